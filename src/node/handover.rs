//! Handover machine: a peer that is no longer configured goes only when what takes its place is there (make before break).
//!
//! The move from a full mesh to route reflectors and back deletes sessions and adds others in one change. If the old ones
//! ended at once, every route of theirs would be gone until the new ones had delivered it again. So a deleted peer
//! *lingers*: its session goes on, or, where the other end has closed it, its paths stay. It is let go when
//!
//! - every new session is Established and its End-of-RIB has come (or [`PATIENCE`] has passed: one of them may never
//!   come up), **and** each of its paths has another one beside it, from somebody who stays; or
//! - [`LONGEST`] has passed.
//!
//! A peer lingers only where something is on its way: nothing was added, renamed or reset within [`LONGEST`] before it was
//! deleted → it goes at once, as it would with BIRD. That nothing is lost takes both ends, and they see the same change
//! of the datastore at different moments; so a session between nodes of one cluster ends without a NOTIFICATION where
//! graceful restart is agreed, and an end that has not heard of the change yet keeps the paths as stale.
//!
//! A reflector that is one no longer goes on reflecting to its former clients for [`LONGEST`] ([`eased`]): they may not have found one
//! another yet, and only they could tell.
//!
//! ```text
//! supervisor ─Arrive, Shift, Leave, Stay→ Handover ─Release→ supervisor
//! peers ─Up, EndOfRib, Failed→               └─Ask→ shards ─Uncovered→ Handover
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::recovery;
use crate::config::diff::{PeerChange, peer_change};
use crate::config::{NodeConfig, PeerConfig, PeerKind};
use crate::types::{Family, Outbox, PeerId, PerFamily};

/// How long new sessions may take to come up before those that are up are enough.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// The longest that a deleted peer lingers, and how long a change counts as under way.
pub const LONGEST: Duration = Duration::from_secs(60);
/// Pause between two questions to the shards.
pub const PAUSE: Duration = Duration::from_millis(250);

/// The configuration to go through on the way from `old` to `new`, where that is not `new` itself: sessions that stay and
/// whose peers were clients of ours still are, in our old cluster.
pub fn eased(old: &NodeConfig, new: &NodeConfig) -> Option<NodeConfig> {
    if !old.peers.values().any(|peer| peer.reflector_client) {
        return None;
    }
    let place = |peer: &PeerConfig| (peer.address, peer.interface.clone(), peer.port);
    let by_place: BTreeMap<_, &Arc<PeerConfig>> = old.peers.values().map(|peer| (place(peer), peer)).collect();
    let before = |peer: &PeerConfig| {
        let same = old.peers.get(&peer.name).or_else(|| by_place.get(&place(peer)).copied())?;
        (!matches!(peer_change(same, peer), PeerChange::Reinit(_))).then_some(same)
    };
    let released = |peer: &PeerConfig| before(peer).is_some_and(|before| before.reflector_client && !peer.reflector_client);
    if !new.peers.values().any(|peer| released(peer)) {
        return None;
    }
    let mut eased = new.clone();
    for peer in eased.peers.values_mut() {
        let Some(before) = before(peer) else { continue };
        let peer = Arc::make_mut(peer);
        peer.reflector_client |= before.reflector_client;
        peer.cluster_id = peer.cluster_id.or(before.cluster_id);
    }
    Some(eased)
}

/// What the Handover machine hears.
#[derive(Clone, Debug)]
pub enum Input {
    /// A peer was added, or its session is made anew: its table is on its way.
    Arrive(PeerId),
    /// A peer's session stays but plays another part (it was renamed): what it tells may change.
    Shift,
    /// Peers that are no longer configured. Said after every `Arrive` and `Shift` of the same change.
    Leave(Vec<PeerId>),
    /// A leaving peer is configured again.
    Stay(PeerId),
    /// A session is Established; End-of-RIB is to come in these families.
    Up(PeerId, PerFamily<bool>),
    /// A peer's End-of-RIB.
    EndOfRib(PeerId, Family),
    /// A session or an attempt failed.
    Failed(PeerId),
    /// How many paths of each leaving peer have no other path beside them; of one that is not named, none.
    Uncovered(BTreeMap<PeerId, u64>),
}

/// Whether a deleted peer makes room at once: a session has its address to itself, and for a workload that is gone nobody stands in.
pub fn makes_room(gone: &PeerConfig, added: &BTreeSet<IpAddr>) -> bool {
    added.contains(&gone.address) || gone.kind == PeerKind::Workload
}

/// The addresses of the peers that a change adds.
pub fn added(changes: &BTreeMap<String, PeerChange>, new: &NodeConfig) -> BTreeSet<IpAddr> {
    let added = changes.iter().filter(|(_, change)| **change == PeerChange::Add).filter_map(|(name, _)| new.peers.get(name));
    added.map(|peer| peer.address).collect()
}

/// Whether a peer that this very change deletes lingers, if its session is Established.
pub fn lingers(gone: &PeerConfig, changes: &BTreeMap<String, PeerChange>, new: &NodeConfig) -> bool {
    let under_way = changes.values().any(|change| Input::of_change(PeerId(0), change).is_some());
    under_way && !makes_room(gone, &added(changes, new))
}

impl Input {
    /// What the change of a peer's configuration is to this machine; a peer that is deleted is told of with all others, last.
    pub fn of_change(peer: PeerId, change: &PeerChange) -> Option<Self> {
        match change {
            PeerChange::Add | PeerChange::Reinit(_) => Some(Self::Arrive(peer)),
            PeerChange::Rename { .. } => Some(Self::Shift),
            PeerChange::Keep | PeerChange::Reload(_) | PeerChange::Delete => None,
        }
    }

    /// What sessions tell recovery, told to this machine.
    pub fn of_session(word: &recovery::Input) -> Option<Self> {
        match word {
            recovery::Input::Start(_) => None,
            recovery::Input::Failed(peer) | recovery::Input::Removed(peer) => Some(Self::Failed(*peer)),
            recovery::Input::EndOfRib(peer, family) => Some(Self::EndOfRib(*peer, *family)),
            recovery::Input::Up(facts) => {
                // Whoever does not speak graceful restart sends no End-of-RIB.
                let families = if facts.graceful_restart.is_some() { facts.context.families } else { PerFamily::default() };
                Some(Self::Up(facts.peer, families))
            }
        }
    }
}

/// What the Handover machine says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The peers are to be let go.
    Release(Vec<PeerId>),
    /// Ask the shards how many paths of these peers have no other path beside them.
    Ask(BTreeSet<PeerId>),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Handover {
    arriving: BTreeMap<PeerId, Arriving>,
    leaving: BTreeMap<PeerId, Leaving>,
    /// Until when something counts as on its way.
    under_way: Option<Instant>,
    /// When the shards are asked next.
    ask: Option<Instant>,
    /// An answer is due.
    asked: bool,
}

#[derive(Debug)]
struct Arriving {
    since: Instant,
    /// Families whose End-of-RIB is missing; none before the session is up.
    missing: Option<PerFamily<bool>>,
}

#[derive(Debug)]
struct Leaving {
    since: Instant,
    /// It was among those that the last question was about.
    asked: bool,
    /// Every path of it has another one beside it, as of the last answer.
    covered: bool,
}

impl Handover {
    /// The peers that linger.
    pub fn leaving(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.leaving.keys().copied()
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Instant, input: Input, out: &mut Outbox<Output>) {
        match input {
            Input::Arrive(peer) => {
                self.leaving.remove(&peer);
                self.arriving.insert(peer, Arriving { since: now, missing: None });
                self.under_way = Some(now + LONGEST);
            }
            Input::Shift => self.under_way = Some(now + LONGEST),
            Input::Leave(peers) => self.leave(now, peers, out),
            Input::Stay(peer) => drop(self.leaving.remove(&peer)),
            Input::Up(peer, families) if families.is_empty() => drop(self.arriving.remove(&peer)),
            Input::Up(peer, families) => {
                if let Some(arriving) = self.arriving.get_mut(&peer) {
                    arriving.missing = Some(families);
                }
            }
            Input::EndOfRib(peer, family) => self.ended(peer, family),
            Input::Failed(peer) => {
                if let Some(arriving) = self.arriving.get_mut(&peer) {
                    arriving.missing = None;
                }
            }
            Input::Uncovered(counts) => {
                for (peer, leaving) in self.leaving.iter_mut().filter(|(_, leaving)| leaving.asked) {
                    leaving.covered = counts.get(peer).is_none_or(|count| *count == 0);
                }
                self.asked = false;
                self.ask = Some(now + PAUSE);
            }
        }
        self.follow(now, out);
    }

    /// When [`Handover::on_deadline`] is to be called next.
    pub fn deadline(&self) -> Option<Instant> {
        let first = self.leaving.values().map(|leaving| leaving.since).min()?;
        let patience = self.arriving.values().map(|arriving| arriving.since + PATIENCE).min();
        let ask = self.ask.filter(|_| self.arriving.is_empty() && !self.asked);
        [Some(first + LONGEST), patience, ask].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn on_deadline(&mut self, now: Instant, out: &mut Outbox<Output>) {
        self.arriving.retain(|_, arriving| now < arriving.since + PATIENCE);
        self.follow(now, out);
    }

    fn leave(&mut self, now: Instant, peers: Vec<PeerId>, out: &mut Outbox<Output>) {
        for peer in &peers {
            self.arriving.remove(peer);
        }
        if self.under_way.is_some_and(|until| now < until) {
            self.leaving.extend(peers.into_iter().map(|peer| (peer, Leaving { since: now, asked: false, covered: false })));
            self.ask.get_or_insert(now);
        } else {
            out.push(Output::Release(peers));
        }
    }

    /// One family less is missing; with the last one the peer has arrived.
    fn ended(&mut self, peer: PeerId, family: Family) {
        let Some(missing) = self.arriving.get_mut(&peer).and_then(|arriving| arriving.missing.as_mut()) else { return };
        if let Some(missing) = missing.of_mut(family) {
            *missing = false;
        }
        if missing.is_empty() {
            self.arriving.remove(&peer);
        }
    }

    /// Lets go who may go, and asks about the others once nothing else is waited for.
    fn follow(&mut self, now: Instant, out: &mut Outbox<Output>) {
        let calm = self.arriving.is_empty();
        let goes = |leaving: &Leaving| (calm && leaving.covered) || now >= leaving.since + LONGEST;
        let gone: Vec<PeerId> = self.leaving.iter().filter(|(_, leaving)| goes(leaving)).map(|(peer, _)| *peer).collect();
        if !gone.is_empty() {
            for peer in &gone {
                self.leaving.remove(peer);
            }
            out.push(Output::Release(gone));
        }
        if self.leaving.is_empty() {
            self.ask = None;
        } else if calm && !self.asked && self.ask.is_some_and(|at| at <= now) {
            self.asked = true;
            self.leaving.values_mut().for_each(|leaving| leaving.asked = true);
            out.push(Output::Ask(self.leaving.keys().copied().collect()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: PeerId = PeerId(1);
    const NEW: PeerId = PeerId(2);
    const V4: PerFamily<bool> = PerFamily { ipv4: true, ipv6: false };

    /// A machine, its clock, and what it says.
    struct World {
        machine: Handover,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            #[expect(clippy::disallowed_methods, reason = "some first instant is needed")]
            let now = Instant::now();
            Self { machine: Handover::default(), now }
        }

        fn hear(&mut self, input: Input) -> Vec<Output> {
            let mut out = Outbox::new();
            self.machine.handle(self.now, input, &mut out);
            out.drain().collect()
        }

        /// Lets time pass to the next deadline.
        fn wait(&mut self) -> Vec<Output> {
            let mut out = Outbox::new();
            self.now = self.machine.deadline().expect("it waits for something");
            self.machine.on_deadline(self.now, &mut out);
            out.drain().collect()
        }

        fn answer(&mut self, counts: &[(PeerId, u64)]) -> Vec<Output> {
            self.hear(Input::Uncovered(counts.iter().copied().collect()))
        }
    }

    fn ask() -> Output {
        Output::Ask(BTreeSet::from([OLD]))
    }

    #[test]
    fn nothing_under_way_nothing_lingers() {
        assert_eq!(World::new().hear(Input::Leave(vec![OLD])), [Output::Release(vec![OLD])]);
    }

    #[test]
    fn the_old_one_goes_when_the_new_one_has_told_its_table_and_nothing_is_lost() {
        let mut world = World::new();
        assert_eq!(world.hear(Input::Arrive(NEW)), []);
        assert_eq!(world.hear(Input::Leave(vec![OLD])), []);
        assert_eq!(world.machine.leaving().collect::<Vec<_>>(), [OLD]);
        assert_eq!(world.hear(Input::Up(NEW, V4)), []);
        assert_eq!(world.hear(Input::EndOfRib(NEW, Family::IPV4_UNICAST)), [ask()]);
        assert_eq!(world.answer(&[(OLD, 3)]), [], "three paths would be gone");
        assert_eq!(world.wait(), [ask()]);
        assert_eq!(world.answer(&[]), [Output::Release(vec![OLD])]);
        assert_eq!(world.machine.deadline(), None);
    }

    #[test]
    fn a_new_session_that_is_lost_is_waited_for_again() {
        let mut world = World::new();
        world.hear(Input::Arrive(NEW));
        world.hear(Input::Leave(vec![OLD]));
        world.hear(Input::Up(NEW, V4));
        world.hear(Input::Failed(NEW));
        assert_eq!(world.hear(Input::EndOfRib(NEW, Family::IPV4_UNICAST)), [], "of the session before");
    }

    #[test]
    fn one_without_graceful_restart_sends_no_end_of_rib() {
        let mut world = World::new();
        world.hear(Input::Arrive(NEW));
        world.hear(Input::Leave(vec![OLD]));
        assert_eq!(world.hear(Input::Up(NEW, PerFamily::default())), [ask()]);
    }

    #[test]
    fn one_that_never_comes_up_holds_nobody_for_long() {
        let mut world = World::new();
        let start = world.now;
        world.hear(Input::Arrive(NEW));
        world.hear(Input::Leave(vec![OLD]));
        assert_eq!(world.wait(), [ask()]);
        assert_eq!(world.now, start + PATIENCE);
        assert_eq!(world.answer(&[(OLD, 1)]), []);
        // Uncovered to the end: it is let go nonetheless.
        let released = loop {
            match &world.wait()[..] {
                [Output::Ask(_)] => assert_eq!(world.answer(&[(OLD, 1)]), []),
                other => break other.to_vec(),
            }
        };
        assert_eq!((released, world.now), (vec![Output::Release(vec![OLD])], start + LONGEST));
    }

    #[test]
    fn a_renamed_session_may_tell_more_soon() {
        let mut world = World::new();
        world.hear(Input::Shift);
        assert_eq!(world.hear(Input::Leave(vec![OLD])), [ask()]);
        assert_eq!(world.answer(&[(OLD, 1)]), []);
        // In two steps: what changed a moment ago counts as well.
        world.now += LONGEST / 2;
        let next = PeerId(3);
        assert_eq!(world.hear(Input::Leave(vec![next])), [Output::Ask(BTreeSet::from([OLD, next]))]);
        world.now += LONGEST;
        assert_eq!(world.hear(Input::Leave(vec![PeerId(4)])), [Output::Release(vec![PeerId(4)]), Output::Release(vec![OLD, next])]);
    }

    #[test]
    fn an_answer_says_nothing_of_who_was_not_asked_about() {
        let mut world = World::new();
        world.hear(Input::Shift);
        assert_eq!(world.hear(Input::Leave(vec![OLD])), [ask()]);
        assert_eq!(world.hear(Input::Leave(vec![NEW])), [], "an answer is due");
        assert_eq!(world.answer(&[]), [Output::Release(vec![OLD])]);
        assert_eq!(world.wait(), [Output::Ask(BTreeSet::from([NEW]))]);
    }

    fn node(peers: impl IntoIterator<Item = PeerConfig>) -> NodeConfig {
        let asn = crate::types::Asn(64512);
        let peers = peers.into_iter().map(|peer| (peer.name.clone(), Arc::new(peer))).collect();
        NodeConfig { peers, ..NodeConfig::new("rr", asn, crate::types::RouterId([10, 0, 0, 1].into())) }
    }

    fn peer(name: &str, last: u8, client: bool) -> PeerConfig {
        let (asn, id) = (crate::types::Asn(64512), crate::types::RouterId([10, 0, 0, 1].into()));
        let cluster_id = client.then(|| crate::types::ClusterId([1, 1, 1, 1].into()));
        PeerConfig { reflector_client: client, cluster_id, ..PeerConfig::new(name, (asn, id), ([10, 0, 0, last].into(), asn)) }
    }

    #[test]
    fn a_former_reflector_goes_on_for_sessions_that_stay() {
        let reflecting = node([peer("Node_a", 2, true), peer("Node_b", 3, true)]);
        let another_as = PeerConfig { remote_asn: crate::types::Asn(65000), ..peer("Node_b", 3, false) };
        let mesh = node([peer("Mesh_a", 2, false), another_as, peer("Mesh_c", 4, false)]);
        let eased = eased(&reflecting, &mesh).unwrap();
        let of = |name: &str| (eased.peers[name].reflector_client, eased.peers[name].cluster_id.is_some());
        assert_eq!((of("Mesh_a"), of("Node_b"), of("Mesh_c")), ((true, true), (false, false), (false, false)));
        assert_eq!(super::eased(&mesh, &reflecting), None, "becoming one takes effect at once");
        assert_eq!(super::eased(&mesh, &mesh), None);
    }

    #[test]
    fn one_that_is_configured_again_stays() {
        let mut world = World::new();
        world.hear(Input::Shift);
        world.hear(Input::Leave(vec![OLD]));
        assert_eq!(world.hear(Input::Stay(OLD)), []);
        assert_eq!(world.answer(&[]), []);
        assert_eq!(world.machine.deadline(), None);
    }
}
