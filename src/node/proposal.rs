//! What a proposed configuration would do: verdicts from the very functions that a live change goes through
//! ([`config::diff`](crate::config::diff), [`handover`], [`wiring`](super::wiring)), and routes by
//! changing copies of the machines and looking at what they would tell.
//!
//! ```text
//! in force, proposed ─diff─→ a verdict a peer
//! copies of Origin and shards ─the words of the change, until nothing is left to do─→ Loc-RIB and Adj-RIBs-Out, before and after
//! ```
//!
//! The routes are those of the moment after the change has settled, as far as one node can know it: a peer that is removed
//! takes its paths along; one that is reset is taken to come back with the same capabilities and to say what it said; from
//! one that is added nothing has been heard. Other nodes that follow the same change are not foreseen.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::handover;
use super::wiring::{from_config, from_origin};
use crate::config::diff::{Diff, PeerChange, diff};
use crate::config::{NodeConfig, PeerConfig};
use crate::origin::{self, Origin};
use crate::rib::{Answer, Input, Output, Query, RouteRow, Shard};
use crate::session::SessionEnd;
use crate::types::{Attributes, NextHop, Outbox, PathId, PeerId, PerFamily, QueryId};

/// Prefixes that are named in each list; all are counted.
const NAMED: usize = 1000;

/// What a proposed configuration would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outlook {
    /// Peers that it changes, and those that are told other routes by it, by name.
    pub peers: Vec<PeerOutlook>,
    /// How many peers it leaves as they are.
    pub unchanged: usize,
    /// Listening sockets are opened anew; sessions stay.
    pub listen: bool,
    /// Blocks, service addresses or host routes that this node announces.
    pub origin: bool,
    /// What is programmed into the kernel, and how.
    pub kernel: bool,
    /// AS, router identifier or cluster of the node.
    pub identity: bool,
    /// We are a reflector no longer, and go on reflecting for former clients for so many seconds.
    pub reflects_for: Option<u64>,
    /// Best paths of this node; none where no machine was asked.
    pub best: Option<RouteChanges>,
}

/// What becomes of one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerOutlook {
    /// Session name; the new one, where it gets another.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// The verdict.
    pub change: Verdict,
    /// Fields of its configuration that differ and lead to the verdict.
    pub because: Vec<String>,
    /// The name until now, where that is another.
    pub from: Option<String>,
    /// A removed peer's session goes on until others have taken its place, if it is Established.
    pub lingers: bool,
    /// Routes that it is told; none for one that is added, or where no machine was asked.
    pub told: Option<RouteChanges>,
}

/// See [`PeerOutlook`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// A new session.
    Add,
    /// The session ends.
    Remove,
    /// The session ends and begins anew.
    Reset,
    /// The session stays.
    Keep,
}

/// Routes before and after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteChanges {
    /// Not there before.
    pub appear: Prefixes,
    /// Not there any more.
    pub vanish: Prefixes,
    /// There with other paths or attributes.
    pub change: Prefixes,
}

/// A list of prefixes, of which the first thousand are named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefixes {
    /// How many there are.
    pub count: u64,
    /// The first of them.
    pub prefixes: Vec<IpNet>,
}

impl Prefixes {
    fn add(&mut self, prefix: IpNet) {
        self.count += 1;
        if self.prefixes.len() < NAMED {
            self.prefixes.push(prefix);
        }
    }
}

impl RouteChanges {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn between(before: &Rows, after: &Rows) -> Self {
        let mut changes = Self::default();
        for (prefix, paths) in after {
            match before.get(prefix) {
                None => changes.appear.add(*prefix),
                Some(old) if old != paths => changes.change.add(*prefix),
                Some(_) => {}
            }
        }
        before.keys().filter(|prefix| !after.contains_key(*prefix)).for_each(|prefix| changes.vanish.add(*prefix));
        changes
    }
}

impl Outlook {
    /// What replacing `in_force` by `proposed` does to peers, without their routes.
    pub fn new(in_force: Option<&NodeConfig>, proposed: &NodeConfig) -> Self {
        let changes = diff(in_force, proposed);
        let peers = changes.peers.iter().filter_map(|(name, change)| peer(name, change, &changes, in_force, proposed));
        let mut outlook = Self {
            peers: peers.collect(),
            unchanged: 0,
            listen: changes.listen,
            origin: changes.origin,
            kernel: changes.fib,
            identity: changes.rib,
            reflects_for: in_force.and_then(|old| handover::eased(old, proposed)).map(|_| handover::LONGEST.as_secs()),
            best: None,
        };
        outlook.count_unchanged(proposed);
        outlook
    }

    /// Whether nothing would change: no peer, no route, no setting.
    pub fn is_empty(&self) -> bool {
        let Self { peers, unchanged: _, listen, origin, kernel, identity, reflects_for, best } = self;
        let still = best.as_ref().is_none_or(RouteChanges::is_empty) && reflects_for.is_none();
        peers.is_empty() && still && ![listen, origin, kernel, identity].into_iter().any(|changes| *changes)
    }

    /// Adds what becomes of routes, by changing copies of the machines. `peers` are those that the machines know, by name.
    pub fn look_at_routes(&mut self, in_force: &NodeConfig, proposed: &NodeConfig, machines: Machines, peers: &BTreeMap<String, PeerId>) {
        let changes = diff(Some(in_force), proposed);
        let now = machines.now;
        let Machines { shards, origin, .. } = machines;
        let mut before = Copies::new(shards, now);
        let mut after = before.clone();
        after.change(&changes, proposed, origin, peers);
        self.best = Some(RouteChanges::between(&before.best(), &after.best()));
        let decided_anew = self.best.as_ref().is_some_and(|best| !best.is_empty()) || changes.rib;
        for (name, id) in peers {
            let change = changes.peers.get_key_value(name).or_else(|| renamed(&changes, name));
            if change.is_none() && !decided_anew {
                continue;
            }
            let told = RouteChanges::between(&before.told(*id), &after.told(*id));
            let new_name = change.map_or(name, |(name, _)| name);
            match self.peers.iter_mut().find(|peer| peer.name == *new_name) {
                Some(peer) => peer.told = Some(told),
                None if told.is_empty() => {}
                None => self.peers.extend(proposed.peers.get(new_name).map(|config| kept(config, told))),
            }
        }
        self.peers.sort_by(|a, b| a.name.cmp(&b.name));
        self.count_unchanged(proposed);
    }

    fn count_unchanged(&mut self, proposed: &NodeConfig) {
        let named = self.peers.iter().filter(|peer| peer.change != Verdict::Remove).count();
        self.unchanged = proposed.peers.len().saturating_sub(named);
    }
}

/// The verdict on one change; none where only words for people differ.
fn peer(name: &str, change: &PeerChange, changes: &Diff, old: Option<&NodeConfig>, new: &NodeConfig) -> Option<PeerOutlook> {
    let before = old.and_then(|old| old.peers.get(name));
    let config = new.peers.get(name).or(before)?;
    let (verdict, fields, from) = match change {
        PeerChange::Keep => return None,
        PeerChange::Add => (Verdict::Add, &[][..], None),
        PeerChange::Delete => (Verdict::Remove, &[][..], None),
        PeerChange::Reinit(fields) => (Verdict::Reset, fields.as_slice(), None),
        PeerChange::Reload(fields) => (Verdict::Keep, fields.as_slice(), None),
        PeerChange::Rename { from, fields } => (Verdict::Keep, fields.as_slice(), Some(from.clone())),
    };
    Some(PeerOutlook {
        name: name.to_owned(),
        address: config.address,
        change: verdict,
        because: fields.iter().map(|field| (*field).to_owned()).collect(),
        from,
        lingers: verdict == Verdict::Remove && handover::lingers(config, &changes.peers, new),
        told: None,
    })
}

/// A peer whose configuration does not change, but what it is told.
fn kept(config: &Arc<PeerConfig>, told: RouteChanges) -> PeerOutlook {
    PeerOutlook {
        name: config.name.clone(),
        address: config.address,
        change: Verdict::Keep,
        because: Vec::new(),
        from: None,
        lingers: false,
        told: Some(told),
    }
}

fn renamed<'a>(changes: &'a Diff, old: &str) -> Option<(&'a String, &'a PeerChange)> {
    changes.peers.iter().find(|(_, change)| matches!(change, PeerChange::Rename { from, .. } if from == old))
}

/// Copies of the machines that a change of the configuration concerns.
#[derive(Clone, Debug)]
pub struct Machines {
    /// The time that they are told.
    pub now: Instant,
    /// All shards.
    pub shards: Vec<Shard>,
    /// What this node announces by itself.
    pub origin: Origin,
}

/// The paths of each prefix as far as they are compared.
type Rows = BTreeMap<IpNet, Vec<(Option<PeerId>, PathId, Option<NextHop>, Arc<Attributes>)>>;

/// Our questions; no shard's task asks by this number.
const QUESTION: QueryId = QueryId(0);

/// Shards that nobody else hears.
#[derive(Clone)]
struct Copies {
    shards: Vec<Shard>,
    now: Instant,
}

impl Copies {
    fn new(shards: Vec<Shard>, now: Instant) -> Self {
        let mut copies = Self { shards, now };
        copies.settle();
        copies
    }

    /// Tells them of the change as the supervisor would.
    fn change(&mut self, changes: &Diff, proposed: &NodeConfig, mut origin: Origin, peers: &BTreeMap<String, PeerId>) {
        let words = from_config(changes, proposed);
        if let Some(input) = words.shards {
            self.tell(&input);
        }
        if let Some(input) = words.origin {
            self.tell_origin(&mut origin, input);
        }
        for (name, change) in &changes.peers {
            let known_as = if let PeerChange::Rename { from, .. } = change { from } else { name };
            let Some(id) = peers.get(known_as).copied() else { continue };
            match (change, proposed.peers.get(name)) {
                (PeerChange::Delete, _) => {
                    self.tell(&Input::PeerDown { peer: id, keep: PerFamily::default(), end: SessionEnd::Deconfigured })
                }
                // Its session would pass it on; one that is reset comes back and says the same, and then these rules are in force.
                (_, Some(config)) => self.tell(&Input::PeerReload { peer: id, config: Arc::clone(config) }),
                (_, None) => {}
            }
        }
        self.settle();
    }

    fn tell_origin(&mut self, origin: &mut Origin, input: origin::Input) {
        let mut out = Outbox::new();
        origin.handle(self.now, input, &mut out);
        for output in out.drain() {
            let (owner, input) = from_origin(u16::try_from(self.shards.len()).unwrap_or(u16::MAX), output);
            let mut ignored = Outbox::new();
            let concerned = self.shards.iter_mut().filter(|shard| owner.is_none_or(|owner| owner == shard.id()));
            concerned.for_each(|shard| shard.handle(self.now, input.clone(), &mut ignored));
        }
    }

    fn tell(&mut self, input: &Input) {
        let mut ignored = Outbox::new();
        self.shards.iter_mut().for_each(|shard| shard.handle(self.now, input.clone(), &mut ignored));
    }

    /// Rounds until nothing is left to do.
    fn settle(&mut self) {
        let mut ignored = Outbox::new();
        for shard in &mut self.shards {
            shard.finish_round(self.now, &mut ignored);
            while shard.deadline().is_some_and(|due| due <= self.now) {
                shard.on_deadline(self.now, &mut ignored);
                ignored.drain().for_each(drop);
            }
        }
    }

    /// The chosen paths of the Loc-RIB.
    fn best(&mut self) -> Rows {
        self.rows(None, |row| row.best || row.multipath)
    }

    /// The Adj-RIB-Out of a peer.
    fn told(&mut self, peer: PeerId) -> Rows {
        self.rows(Some(peer), |_| true)
    }

    fn rows(&mut self, advertised: Option<PeerId>, wanted: impl Fn(&RouteRow) -> bool) -> Rows {
        let query = Query::Routes { prefix: None, longer: false, family: None, received: None, advertised };
        let mut rows = Rows::new();
        let mut out = Outbox::new();
        for shard in &mut self.shards {
            shard.handle(self.now, Input::Query(QUESTION, query.clone()), &mut out);
            loop {
                shard.finish_round(self.now, &mut out);
                let mut done = false;
                for output in out.drain() {
                    if let Output::Answer { query: QUESTION, rows: Answer::Routes(part), done: last } = output {
                        for row in part.into_iter().filter(&wanted) {
                            rows.entry(row.prefix).or_default().push((row.peer, row.path_id, row.next_hop, row.attributes));
                        }
                        done |= last;
                    }
                }
                if done {
                    break;
                }
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Asn, RouterId};

    fn peer(name: &str, last: u8) -> PeerConfig {
        let (asn, id) = (Asn(64512), RouterId([10, 0, 0, 1].into()));
        PeerConfig::new(name, (asn, id), ([10, 0, 0, last].into(), asn))
    }

    fn node(peers: impl IntoIterator<Item = PeerConfig>) -> NodeConfig {
        let peers = peers.into_iter().map(|peer| (peer.name.clone(), Arc::new(peer))).collect();
        NodeConfig { peers, ..NodeConfig::new("a", Asn(64512), RouterId([10, 0, 0, 1].into())) }
    }

    /// Name, verdict, fields, former name, lingers.
    fn said(outlook: &Outlook) -> Vec<(&str, Verdict, String, Option<&str>, bool)> {
        let line = |peer: &'_ PeerOutlook| peer.because.join(" ");
        outlook.peers.iter().map(|peer| (peer.name.as_str(), peer.change, line(peer), peer.from.as_deref(), peer.lingers)).collect()
    }

    #[test]
    fn a_verdict_for_each_peer() {
        let old = node([peer("Mesh_2", 2), peer("Mesh_3", 3), peer("Mesh_4", 4), peer("Mesh_5", 5)]);
        let reset = PeerConfig { remote_asn: Asn(65000), ..peer("Mesh_3", 3) };
        let kept = PeerConfig { hold_time: 30, ..peer("Mesh_4", 4) };
        let new = node([peer("Node_2", 2), reset, kept, peer("Node_9", 9)]);
        let outlook = Outlook::new(Some(&old), &new);
        assert_eq!(
            said(&outlook),
            [
                ("Mesh_3", Verdict::Reset, "remote_asn".to_owned(), None, false),
                ("Mesh_4", Verdict::Keep, "hold_time".to_owned(), None, false),
                ("Mesh_5", Verdict::Remove, String::new(), None, true),
                ("Node_2", Verdict::Keep, "name".to_owned(), Some("Mesh_2"), false),
                ("Node_9", Verdict::Add, String::new(), None, false),
            ]
        );
        assert!(!outlook.is_empty() && outlook.unchanged == 0);
        let same = Outlook::new(Some(&old), &old);
        assert!(same.is_empty() && same.unchanged == 4, "{same:?}");
        assert_eq!(Outlook::new(None, &old).peers.len(), 4, "everything is new without a configuration in force");
    }

    /// Nothing is on its way, or what comes needs the address: it does not linger.
    #[test]
    fn who_makes_room_at_once() {
        let gone = |new: NodeConfig| Outlook::new(Some(&node([peer("Mesh_2", 2)])), &new).peers.iter().any(|peer| peer.lingers);
        assert!(!gone(node([])));
        let other = PeerConfig { remote_asn: Asn(65000), ..peer("Node_2", 2) };
        assert!(!gone(node([other])), "one address, one session");
        assert!(gone(node([peer("Node_3", 3)])));
    }

    #[test]
    fn a_reflector_goes_on_for_its_clients() {
        let client = PeerConfig { reflector_client: true, ..peer("Node_2", 2) };
        assert_eq!(Outlook::new(Some(&node([client])), &node([peer("Node_2", 2)])).reflects_for, Some(60));
    }

    #[test]
    fn routes_before_and_after() {
        let rows = |prefixes: &[(&str, u32)]| -> Rows {
            let row = |id: u32| vec![(None, PathId(id), None, Arc::default())];
            prefixes.iter().map(|(prefix, id)| (prefix.parse().unwrap(), row(*id))).collect()
        };
        let changes =
            RouteChanges::between(&rows(&[("10.0.0.0/8", 1), ("10.1.0.0/16", 1)]), &rows(&[("10.1.0.0/16", 2), ("10.2.0.0/16", 1)]));
        let names = |list: &Prefixes| list.prefixes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(
            (names(&changes.vanish), names(&changes.change), names(&changes.appear)),
            ("10.0.0.0/8".into(), "10.1.0.0/16".into(), "10.2.0.0/16".into())
        );
        let many: Vec<IpNet> = (0..2000u32).map(|n| IpNet::new(std::net::Ipv4Addr::from(n << 8).into(), 24).unwrap()).collect();
        let all = many.iter().map(|prefix| (*prefix, vec![(None, PathId(0), None, Arc::default())])).collect();
        let appear = RouteChanges::between(&Rows::new(), &all).appear;
        assert_eq!((appear.count, appear.prefixes.len()), (2000, NAMED), "all are counted");
    }
}
