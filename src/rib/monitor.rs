//! What collectors of monitoring data (BMP) are to hear: of each, what has changed since it was told, and nothing else.
//! Long because what is watched, what waits and what is told is one machine with one invariant.
//!
//! ```text
//!   a path is stored or removed ─┐
//!   another best path ───────────┼→ Watched: keys, no states ─┐
//!   a session comes or goes ─────┘                            ├─Pull→ words, each as the table stands now
//!   a new collector: a walk of the table, a step a pull ──────┤
//!   Adj-RIB-Out: one more reader of the peer's group ─────────┘
//! ```
//!
//! A collector asks for words when it has room, as the FibSyncer does. What it has not asked for waits as keys, so however slow it is, it
//! costs memory for the paths that have changed and not for how often they did; beyond [`Watch::limit`] keys it is given up, and told everything
//! anew when it comes back. With no collector all of this is one look at an empty list for each path stored.
//!
//! Adj-RIB-Out needs no keys. The collector reads the journal of the peer's update group under a number of its own (a *shadow*), is kept
//! from the same routes as the peer, falls behind and catches up as a slow peer does, and so is told the very messages.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::bunch::Bunches;
use super::loc_rib::{Facts, LocRib};
use super::path::Path;
use super::update_group::Receiver;
use crate::session::{SessionEnd, SessionFacts};
use crate::telemetry::bmp::View;
use crate::types::{AddressFamily, Attributes, Family, Nlri, NlriList, PathId, PeerId};

/// Collectors at most: their numbers stand in the upper bits of shadows.
pub const MONITORS: u8 = 8;
/// Bits of a peer's number that are the peer's.
const PEER_BITS: u32 = 28;
/// Entries of tables that one pull looks at, and paths that it tells, at most.
const STEP: usize = 1000;
/// Octets of Adj-RIB-Out that one pull tells, more or less.
const OCTETS: usize = 64 << 10;

/// Number of a collector, below [`MONITORS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonitorId(pub u8);

/// What a collector wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Adj-RIB-In before policy.
    pub pre: bool,
    /// Adj-RIB-In after policy.
    pub post: bool,
    /// Adj-RIB-Out.
    pub out: bool,
    /// Loc-RIB.
    pub loc: bool,
    /// Changed paths that may wait for it.
    pub limit: usize,
}

impl Watch {
    /// Whether any view but Adj-RIB-Out is wanted.
    pub(super) fn tables(&self) -> bool {
        self.pre || self.post || self.loc
    }

    /// Whether the view is wanted.
    pub fn wants(&self, view: View) -> bool {
        match view {
            View::PrePolicy => self.pre,
            View::PostPolicy => self.post,
            View::AdjRibOut => self.out,
            View::LocRib => self.loc,
        }
    }
}

/// One word to a collector. `peer` is none for the Loc-RIB.
#[derive(Clone, Debug, PartialEq)]
pub enum Monitored {
    /// A session is Established.
    Up(Arc<SessionFacts>),
    /// It has ended, and with it all that was said of its tables.
    Down(PeerId, SessionEnd),
    /// These paths have these attributes now, or are gone.
    Routes {
        /// Whose.
        peer: Option<PeerId>,
        /// In which view.
        view: View,
        /// None: they are gone.
        attributes: Option<Arc<Attributes>>,
        /// The paths.
        list: NlriList,
    },
    /// The peer has been, or is about to be, sent these messages, one or more in each.
    Sent(PeerId, Vec<Bytes>),
    /// This shard has told all of a view.
    Ended(Option<PeerId>, View, Family),
}

/// What a peer has said needlessly since the collector is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needless {
    /// Announcements of what had been announced just so.
    pub announcements: u32,
    /// Withdrawals of what was not there.
    pub withdrawals: u32,
}

/// The number under which a collector reads what a peer is told.
pub(super) fn shadow(peer: PeerId, monitor: MonitorId) -> PeerId {
    PeerId(peer.0 | (u32::from(monitor.0) + 1) << PEER_BITS)
}

/// The peer that a member of a group is, or stands beside.
pub(super) fn real(member: PeerId) -> PeerId {
    PeerId(member.0 & ((1 << PEER_BITS) - 1))
}

/// A collector's member of a peer's group.
pub(super) fn shadow_of(facts: &SessionFacts, monitor: MonitorId) -> Receiver {
    Receiver { peer: shadow(facts.peer, monitor), address: facts.remote, identifier: facts.identifier }
}

/// A path that has changed: what the collector knows of it, and what of it is another now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Change {
    /// The path was there, and was let in.
    known: bool,
    accepted: bool,
    /// What was received is new, and what policy made of it.
    received: bool,
    made: bool,
}

impl Change {
    /// Of a path that becomes another; `before` is none where there was none, `after` where there is none.
    pub(super) fn of(before: Option<&Path>, after: Option<&Path>, facts: &Facts) -> Self {
        let both = before.zip(after);
        Self {
            known: before.is_some(),
            accepted: before.is_some_and(|path| path.fault().is_none()),
            received: both.is_none_or(|(before, after)| !Arc::ptr_eq(facts.received(before), facts.received(after))),
            made: both.is_none_or(|(before, after)| !Arc::ptr_eq(&before.attributes, &after.attributes))
                || before.is_none_or(|path| path.fault().is_some()),
        }
    }
}

/// What collectors are still to hear of one family, by collector; and what peers say needlessly.
#[derive(Clone, Debug)]
pub(super) struct Watched<A: AddressFamily> {
    keys: Vec<(MonitorId, Keys<A>)>,
    /// Peers whose session is up: nobody is told of the others' paths.
    up: BTreeSet<PeerId>,
    needless: BTreeMap<PeerId, Needless>,
}

#[derive(Clone, Debug)]
struct Keys<A: AddressFamily> {
    paths: BTreeMap<PeerId, BTreeMap<(A::Prefix, PathId), Change>>,
    best: BTreeSet<A::Prefix>,
    /// Keys in both.
    count: usize,
}

impl<A: AddressFamily> Default for Watched<A> {
    fn default() -> Self {
        Self { keys: Vec::new(), up: BTreeSet::new(), needless: BTreeMap::new() }
    }
}

impl<A: AddressFamily> Keys<A> {
    fn pop_path(&mut self) -> Option<(PeerId, A::Prefix, PathId, Change)> {
        let mut of_peer = self.paths.first_entry()?;
        let peer = *of_peer.key();
        let first = of_peer.get_mut().pop_first();
        if of_peer.get().is_empty() {
            of_peer.remove();
        }
        self.count -= usize::from(first.is_some());
        first.map(|((prefix, path_id), change)| (peer, prefix, path_id, change))
    }

    fn pop_best(&mut self) -> Option<A::Prefix> {
        let first = self.best.pop_first();
        self.count -= usize::from(first.is_some());
        first
    }

    /// The path is told now, as it stands: what waited was of before.
    fn remove_path(&mut self, peer: PeerId, prefix: A::Prefix, path_id: PathId) {
        let removed = self.paths.get_mut(&peer).and_then(|paths| paths.remove(&(prefix, path_id)));
        self.count -= usize::from(removed.is_some());
    }

    fn remove_best(&mut self, prefix: A::Prefix) {
        self.count -= usize::from(self.best.remove(&prefix));
    }
}

impl<A: AddressFamily> Watched<A> {
    /// Whether nobody watches.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// A path of a peer has changed.
    #[cold]
    pub(super) fn path(&mut self, peer: PeerId, prefix: A::Prefix, path_id: PathId, change: Change) {
        if !self.up.contains(&peer) {
            return;
        }
        for (_, keys) in &mut self.keys {
            match keys.paths.entry(peer).or_default().entry((prefix, path_id)) {
                Entry::Occupied(mut first) => {
                    first.get_mut().received |= change.received;
                    first.get_mut().made |= change.made;
                }
                Entry::Vacant(none) => {
                    none.insert(change);
                    keys.count += 1;
                }
            }
        }
    }

    /// The best path of a prefix has changed.
    #[cold]
    pub(super) fn best(&mut self, prefix: A::Prefix) {
        for (_, keys) in &mut self.keys {
            keys.count += usize::from(keys.best.insert(prefix));
        }
    }

    /// The peer said something needless.
    pub(super) fn count(&mut self, peer: PeerId, count: impl Fn(&mut Needless)) {
        if !self.is_empty() {
            count(self.needless.entry(peer).or_default());
        }
    }

    /// A collector is to hear of these peers and of the Loc-RIB.
    pub(super) fn start(&mut self, id: MonitorId, up: impl Iterator<Item = PeerId>) {
        self.stop(id);
        self.keys.push((id, Keys { paths: BTreeMap::new(), best: BTreeSet::new(), count: 0 }));
        self.up.extend(up);
    }

    /// It has gone.
    pub(super) fn stop(&mut self, id: MonitorId) {
        self.keys.retain(|(other, _)| *other != id);
        if self.keys.is_empty() {
            self.needless.clear();
            self.up.clear();
        }
    }

    fn of(&mut self, id: MonitorId) -> Option<&mut Keys<A>> {
        self.keys.iter_mut().find(|(other, _)| *other == id).map(|(_, keys)| keys)
    }

    /// A peer's session is up.
    pub(super) fn rise(&mut self, peer: PeerId) {
        if !self.is_empty() {
            self.up.insert(peer);
        }
    }

    /// A peer's session has ended: nothing is to be said of its paths.
    pub(super) fn forget(&mut self, peer: PeerId) {
        self.up.remove(&peer);
        for (_, keys) in &mut self.keys {
            keys.count -= keys.paths.remove(&peer).map_or(0, |paths| paths.len());
        }
    }

    /// What waits for a collector.
    pub(super) fn waiting(&self, id: MonitorId) -> usize {
        self.keys.iter().find(|(other, _)| *other == id).map_or(0, |(_, keys)| keys.count)
    }

    /// What peers have said needlessly; with the first part of an answer, the one from `cursor` 0 on, and none with the others.
    pub(super) fn needless(&self, cursor: u32) -> BTreeMap<PeerId, Needless> {
        if cursor == 0 { self.needless.clone() } else { BTreeMap::new() }
    }
}

/// A collector.
#[derive(Clone, Debug)]
struct Monitor {
    watch: Watch,
    /// It has room.
    asks: bool,
    sessions: BTreeMap<PeerId, Session>,
    /// Sessions whose coming or going it is to hear of.
    news: BTreeSet<PeerId>,
    /// Tables, of all peers or of one, and how far they have been walked.
    walks: VecDeque<(Option<PeerId>, Family, u32)>,
    /// Views that are told in full once nothing waits.
    ended: BTreeSet<(Option<PeerId>, View, Family)>,
    /// The peer whose Adj-RIB-Out has its turn next.
    turn: PeerId,
}

/// A session as a collector knows it, or is to know it.
#[derive(Clone, Debug, Default)]
struct Session {
    /// The collector has been told that it is up.
    told: bool,
    /// The end that it is to hear of.
    end: Option<SessionEnd>,
    /// The session that it is to hear of.
    up: Option<Arc<SessionFacts>>,
}

impl Session {
    fn is_up(&self) -> bool {
        self.up.is_some() || (self.told && self.end.is_none())
    }
}

/// The collectors of a shard.
#[derive(Clone, Debug, Default)]
pub(super) struct Monitors {
    monitors: BTreeMap<MonitorId, Monitor>,
}

/// The tables that collectors are told of.
pub(super) struct Tables<'a, A: AddressFamily> {
    pub(super) rib: &'a mut LocRib<A>,
    pub(super) facts: &'a Facts,
}

impl Monitors {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.monitors.is_empty()
    }

    /// Those that hear Adj-RIB-Out.
    pub(super) fn of_adj_rib_out(&self) -> impl Iterator<Item = MonitorId> + '_ {
        self.monitors.iter().filter(|(_, monitor)| monitor.watch.out).map(|(id, _)| *id)
    }

    /// A collector is there: it is told everything, of these sessions and of the Loc-RIB.
    pub(super) fn start<'a>(&mut self, id: MonitorId, watch: Watch, up: impl Iterator<Item = &'a Arc<SessionFacts>>) {
        let mut monitor = Monitor {
            watch,
            asks: false,
            sessions: BTreeMap::new(),
            news: BTreeSet::new(),
            walks: Family::ALL.into_iter().filter(|_| watch.tables()).map(|family| (None, family, 0)).collect(),
            ended: BTreeSet::new(),
            turn: PeerId(0),
        };
        for family in Family::ALL.into_iter().filter(|_| watch.loc) {
            monitor.ended.insert((None, View::LocRib, family));
        }
        for facts in up {
            monitor.up(facts);
            facts.context.families.iter().filter(|(_, used)| **used).for_each(|(family, _)| monitor.end_of_rib(facts.peer, family));
        }
        self.monitors.insert(id, monitor);
    }

    /// It has gone.
    pub(super) fn stop(&mut self, id: MonitorId) {
        self.monitors.remove(&id);
    }

    /// It has room.
    pub(super) fn pull(&mut self, id: MonitorId) {
        if let Some(monitor) = self.monitors.get_mut(&id) {
            monitor.asks = true;
        }
    }

    /// A session is Established; its stale paths, if it has any, are told again.
    pub(super) fn up(&mut self, facts: &Arc<SessionFacts>, has_paths: bool) {
        for monitor in self.monitors.values_mut() {
            monitor.up(facts);
            if has_paths && monitor.watch.tables() {
                monitor.walks.extend(Family::ALL.map(|family| (Some(facts.peer), family, 0)));
            }
        }
    }

    /// A session has ended.
    pub(super) fn down(&mut self, peer: PeerId, end: &SessionEnd) {
        for monitor in self.monitors.values_mut() {
            monitor.walks.retain(|(of, ..)| *of != Some(peer));
            monitor.ended.retain(|(of, ..)| *of != Some(peer));
            let Some(session) = monitor.sessions.get_mut(&peer) else { continue };
            if session.told {
                session.end.get_or_insert_with(|| end.clone());
            }
            session.up = None;
            monitor.news.insert(peer);
        }
    }

    /// A peer has told its table.
    pub(super) fn end_of_rib(&mut self, peer: PeerId, family: Family) {
        self.monitors.values_mut().for_each(|monitor| monitor.end_of_rib(peer, family));
    }

    /// Whether one that asks may be told more at once.
    pub(super) fn is_busy(&self, waiting: impl Fn(MonitorId) -> usize) -> bool {
        self.monitors.iter().any(|(id, monitor)| monitor.asks && (!monitor.walks.is_empty() || waiting(*id) > 0))
    }

    /// Those that ask.
    pub(super) fn asking(&self) -> Vec<MonitorId> {
        self.monitors.iter().filter(|(_, monitor)| monitor.asks).map(|(id, _)| *id).collect()
    }

    /// Those for which more waits than may.
    pub(super) fn overrun(&self, waiting: impl Fn(MonitorId) -> usize) -> Vec<MonitorId> {
        self.monitors.iter().filter(|(id, monitor)| waiting(**id) > monitor.watch.limit).map(|(id, _)| *id).collect()
    }

    /// Sessions that a collector is to hear of, in whose peers' order Adj-RIB-Out is told: first those whose turn it is.
    pub(super) fn turns(&self, id: MonitorId) -> Vec<PeerId> {
        let Some(monitor) = self.monitors.get(&id).filter(|monitor| monitor.watch.out) else { return Vec::new() };
        let up = || monitor.sessions.iter().filter(|(_, session)| session.is_up()).map(|(peer, _)| *peer);
        up().filter(|peer| *peer >= monitor.turn).chain(up().filter(|peer| *peer < monitor.turn)).collect()
    }

    /// What a collector is told now, of sessions and of both families' tables, a step of it; `sent` then adds messages of Adj-RIB-Out.
    pub(super) fn tell(
        &mut self,
        id: MonitorId,
        ipv4: &mut Tables<'_, crate::types::Ipv4Unicast>,
        ipv6: &mut Tables<'_, crate::types::Ipv6Unicast>,
        words: &mut Vec<Monitored>,
    ) {
        let Some(monitor) = self.monitors.get_mut(&id) else { return };
        monitor.tell_sessions(words);
        let mut left = STEP;
        monitor.tell_changes(id, ipv4, &mut left, words);
        monitor.tell_changes(id, ipv6, &mut left, words);
        while left > 0
            && let Some((peer, family, cursor)) = monitor.walks.pop_front()
        {
            let next = match family {
                Family::IPV4_UNICAST => monitor.walk(id, ipv4, (peer, cursor), &mut left, words),
                _ => monitor.walk(id, ipv6, (peer, cursor), &mut left, words),
            };
            if let Some(cursor) = next {
                monitor.walks.push_front((peer, family, cursor));
            }
        }
        if left > 0 && monitor.walks.is_empty() {
            words.extend(std::mem::take(&mut monitor.ended).into_iter().map(|(peer, view, family)| Monitored::Ended(peer, view, family)));
        }
    }

    /// Adds what `pull` finds of a peer's Adj-RIB-Out within a credit of octets, to the same words.
    pub(super) fn tell_sent(
        &mut self,
        id: MonitorId,
        words: &mut Vec<Monitored>,
        mut pull: impl FnMut(PeerId, usize) -> (Vec<Bytes>, Vec<Family>),
    ) {
        let mut left = OCTETS;
        for peer in self.turns(id) {
            let (frames, ended) = pull(peer, left);
            left = left.saturating_sub(frames.iter().map(Bytes::len).sum());
            words.extend((!frames.is_empty()).then_some(Monitored::Sent(peer, frames)));
            words.extend(ended.into_iter().map(|family| Monitored::Ended(Some(peer), View::AdjRibOut, family)));
            if left == 0 {
                break;
            }
            if let Some(monitor) = self.monitors.get_mut(&id) {
                monitor.turn = PeerId(peer.0 + 1);
            }
        }
    }

    /// The collector's question is answered.
    pub(super) fn told(&mut self, id: MonitorId) {
        if let Some(monitor) = self.monitors.get_mut(&id) {
            monitor.asks = false;
        }
    }
}

impl Monitor {
    fn up(&mut self, facts: &Arc<SessionFacts>) {
        self.sessions.entry(facts.peer).or_default().up = Some(Arc::clone(facts));
        self.news.insert(facts.peer);
    }

    fn end_of_rib(&mut self, peer: PeerId, family: Family) {
        for view in [View::PrePolicy, View::PostPolicy] {
            if self.watch.wants(view) {
                self.ended.insert((Some(peer), view, family));
            }
        }
    }

    fn tell_sessions(&mut self, words: &mut Vec<Monitored>) {
        for peer in std::mem::take(&mut self.news) {
            let Some(session) = self.sessions.get_mut(&peer) else { continue };
            if let Some(end) = session.end.take() {
                words.push(Monitored::Down(peer, end));
                session.told = false;
            }
            if let Some(facts) = session.up.take() {
                words.push(Monitored::Up(facts));
                session.told = true;
            }
            if !session.told {
                self.sessions.remove(&peer);
            }
        }
    }

    /// Tells what has changed, as it is now.
    fn tell_changes<A: AddressFamily>(&self, id: MonitorId, tables: &mut Tables<'_, A>, left: &mut usize, words: &mut Vec<Monitored>) {
        let Tables { rib, facts } = tables;
        let Some(keys) = rib.watched.of(id) else { return };
        let mut shared = Shared::<A>::with_capacity(0);
        let (mut paths, mut best) = (Vec::new(), Vec::new());
        while *left > 0
            && let Some(path) = keys.pop_path()
        {
            *left -= 1;
            paths.push(path);
        }
        while *left > 0
            && let Some(prefix) = keys.pop_best()
        {
            *left -= 1;
            best.push(prefix);
        }
        for (peer, prefix, path_id, change) in paths {
            // A session that the collector knows nothing of any more took its paths with it.
            if !self.sessions.contains_key(&peer) {
                continue;
            }
            let of_path = |path: &&Path| {
                let source = facts.sources.get(path.source);
                (source.peer, source.path_id) == (Some(peer), path_id)
            };
            let destination = rib.table.find(&prefix).and_then(|index| rib.table.get(index));
            let path = destination.and_then(|destination| destination.paths.iter().find(of_path));
            self.offer::<A>(Nlri { prefix, path_id }, peer, path.map(|path| (path, facts.received(path))), change, &mut shared);
        }
        for prefix in best.into_iter().filter(|_| self.watch.loc) {
            let destination = rib.table.find(&prefix).and_then(|index| rib.table.get(index));
            let path = destination.and_then(|destination| destination.best());
            add::<A>(&mut shared, (None, View::LocRib), path.map(|path| &path.attributes), Nlri { prefix, path_id: PathId(0) });
        }
        words.extend(into_words::<A>(shared));
    }

    /// What is to be said of a path in both views of Adj-RIB-In; it comes with what was received.
    fn offer<'a, A: AddressFamily>(
        &self,
        nlri: Nlri<A::Prefix>,
        peer: PeerId,
        path: Option<(&'a Path, &'a Arc<Attributes>)>,
        change: Change,
        shared: &mut Shared<'a, A>,
    ) {
        let accepted = path.map(|(path, _)| path).filter(|path| path.fault().is_none());
        if self.watch.pre && if path.is_some() { change.received } else { change.known } {
            add::<A>(shared, (Some(peer), View::PrePolicy), path.map(|(_, received)| received), nlri);
        }
        if self.watch.post && if accepted.is_some() { change.made } else { change.accepted } {
            add::<A>(shared, (Some(peer), View::PostPolicy), accepted.map(|path| &path.attributes), nlri);
        }
    }

    /// Tells the table from a cursor on, of all peers and with the Loc-RIB, or of one peer; where it goes on.
    fn walk<A: AddressFamily>(
        &self,
        id: MonitorId,
        tables: &mut Tables<'_, A>,
        (of, cursor): (Option<PeerId>, u32),
        left: &mut usize,
        words: &mut Vec<Monitored>,
    ) -> Option<u32> {
        const NEW: Change = Change { known: false, accepted: false, received: true, made: true };
        let Tables { rib, facts } = tables;
        let LocRib { table, watched, .. } = &mut **rib;
        let mut shared = Shared::<A>::with_capacity(0);
        let end = table.end().min(cursor.saturating_add(STEP as u32));
        let mut at = cursor;
        while at < end && *left > 0 {
            *left -= 1;
            let destination = table.get(at);
            at += 1;
            let Some(destination) = destination else { continue };
            let prefix = destination.prefix;
            for path in &destination.paths {
                let source = facts.sources.get(path.source);
                let Some(peer) = source.peer.filter(|peer| of.is_none_or(|of| of == *peer) && self.sessions.contains_key(peer)) else {
                    continue;
                };
                if let Some(keys) = watched.of(id) {
                    keys.remove_path(peer, prefix, source.path_id);
                }
                let nlri = Nlri { prefix, path_id: source.path_id };
                self.offer::<A>(nlri, peer, Some((path, facts.received(path))), NEW, &mut shared);
                *left = left.saturating_sub(1);
            }
            if let Some(best) = destination.best().filter(|_| of.is_none() && self.watch.loc) {
                add::<A>(&mut shared, (None, View::LocRib), Some(&best.attributes), Nlri { prefix, path_id: PathId(0) });
                if let Some(keys) = watched.of(id) {
                    keys.remove_best(prefix);
                }
            }
        }
        words.extend(into_words::<A>(shared));
        (at < table.end()).then_some(at)
    }
}

/// Whose, in which view, with which attributes (by address; none for paths that are gone).
type Sharing = (Option<PeerId>, View, Option<*const Attributes>);

/// Paths on their way into words, with their attributes; those that share everything become one.
type Shared<'a, A> = Bunches<Sharing, (Nlri<<A as AddressFamily>::Prefix>, Option<&'a Arc<Attributes>>)>;

fn add<'a, A: AddressFamily>(
    shared: &mut Shared<'a, A>,
    (peer, view): (Option<PeerId>, View),
    attributes: Option<&'a Arc<Attributes>>,
    nlri: Nlri<A::Prefix>,
) {
    shared.push((peer, view, attributes.map(Arc::as_ptr)), (nlri, attributes));
}

fn into_words<A: AddressFamily>(shared: Shared<'_, A>) -> impl Iterator<Item = Monitored> {
    shared.into_bunches().into_iter().map(|((peer, view, _), paths)| {
        let attributes = paths.first().and_then(|(_, attributes)| attributes.cloned());
        Monitored::Routes { peer, view, attributes, list: A::list(paths.into_iter().map(|(nlri, _)| nlri).collect()) }
    })
}
