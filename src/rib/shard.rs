//! Shard: the machine. Inputs change Adj-RIB-In and the facts it is judged by; a round then decides what
//! became dirty, tells the groups, and answers who asked.
//! Long because it is where all inputs of the machine arrive; what they lead to is in the rooms beside it.
//!
//! One round, [`Shard::finish_round`]: next hops and groups that have changed → a bounded step of walks →
//! decision of the dirty destinations → flush of the groups → open pulls. What the FibSyncer, collectors and counters are told follows in the
//! same round where no peer was told anything, else in the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipnet::IpNet;
use smallvec::SmallVec;

use super::adj_rib_in::{self, Announcement};
use super::attributes::Interner;
use super::explain::{self, Filter, View};
use super::export::GroupKey;
use super::groups::{GroupId, Groups};
use super::loc_rib::{Facts, LocRib, Shared};
use super::monitor::{self, Monitors};
use super::next_hop::NextHops;
use super::original::Originals;
use super::path::Sources;
use super::pulls::{PRIVATE, Pulls};
use super::stale::{Renewal, Told};
use super::update_group::Receiver;
use super::walk::{ROUND, STEP, Task, Work};
use super::{Answer, Explained, Input, Octets, Output, Query, RibConfig, Stage, Stats};
use crate::config::PeerConfig;
use crate::fib::KernelEvent;
use crate::origin::{LocalKey, LocalRoute, LocalTarget};
use crate::policy::RouteSource;
use crate::session::{PrefixCounts, RouteBatch, RouteChange, SessionFacts};
use crate::types::{Family, Ipv4Unicast, Ipv6Unicast, NlriList, Outbox, PeerId, PerFamily, QueryId, ShardId, Sync};

/// Announcements of a peer that are entered together.
const RUN: usize = 32;

/// A slice of the prefixes: everything between a decoded UPDATE and an encoded one.
#[derive(Clone, Debug)]
pub struct Shard {
    id: ShardId,
    config: Arc<RibConfig>,
    now: Option<Instant>,
    pub(super) shared: Shared,
    pub(super) peers: BTreeMap<PeerId, PeerState>,
    pub(super) ipv4: LocRib<Ipv4Unicast>,
    pub(super) ipv6: LocRib<Ipv6Unicast>,
    work: Work,
    pulls: Pulls,
    fib_credit: Option<usize>,
    counted: BTreeSet<PeerId>,
    regroup: BTreeSet<GroupId>,
    draining: bool,
    releases: usize,
    /// Paths that had been replaced or removed when attributes were swept last.
    replaced: u64,
    sweep_due: Option<Instant>,
    /// The log of an Adj-RIB-Out is being compacted, a step a round.
    compacting: bool,
    pub(super) monitors: Monitors,
    /// The last round had frames for peers: what others are to hear of it comes in the next one.
    owes: bool,
}

/// A peer that is up, or that has left paths behind.
#[derive(Clone, Debug)]
pub(super) struct PeerState {
    /// Of its last session, with the configuration of now.
    pub(super) facts: Arc<SessionFacts>,
    /// How far it has told its tables.
    pub(super) renewal: PerFamily<Renewal>,
    /// Who it hears with; none while the session is down.
    pub(super) group: Option<GroupId>,
    /// What it has told, and what of that was let in.
    pub(super) counts: PerFamily<PrefixCounts>,
    reported: PerFamily<PrefixCounts>,
}

impl PeerState {
    /// Whether it has left paths behind.
    fn has_paths(&self) -> bool {
        self.counts.iter().any(|(_, counts)| counts.received > 0)
    }
}

impl Shard {
    /// An empty shard. `seed` keys its hash tables. It holds back routes learned from peers until
    /// [`Input::RecoveryDone`].
    pub fn new(id: ShardId, seed: u64, config: Arc<RibConfig>) -> Self {
        let facts = Facts {
            sources: Sources::default(),
            next_hops: NextHops::new(config.protocol),
            originals: Originals::default(),
            local: Told::new(),
            max_paths: config.max_paths.max(1),
        };
        Self {
            id,
            config,
            now: None,
            shared: Shared { interner: Interner::new(seed), facts, groups: Groups::new(seed) },
            peers: BTreeMap::new(),
            ipv4: LocRib::new(seed),
            ipv6: LocRib::new(seed),
            work: Work::default(),
            pulls: Pulls::default(),
            fib_credit: None,
            counted: BTreeSet::new(),
            regroup: BTreeSet::new(),
            draining: false,
            releases: 0,
            replaced: 0,
            sweep_due: None,
            compacting: false,
            monitors: Monitors::default(),
            owes: false,
        }
    }

    /// Which shard this is.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// How much it holds and has done.
    pub fn stats(&self) -> Stats {
        Stats {
            ipv4: self.ipv4.table.len(),
            ipv6: self.ipv6.table.len(),
            attribute_sets: self.shared.interner.len(),
            groups: self.shared.groups.ids().len(),
            decisions: self.ipv4.decisions + self.ipv6.decisions,
            unsendable: self.shared.groups.unsendable,
        }
    }

    /// How much memory it has reserved. Costs a look at every next hop and update group.
    pub fn octets(&self) -> Octets {
        Octets {
            destinations: self.ipv4.octets() + self.ipv6.octets() + self.shared.facts.next_hops.octets(),
            attributes: self.shared.interner.octets() + self.shared.facts.originals.octets(),
            advertised: self.shared.groups.octets(),
        }
    }

    /// Takes one input. What it leads to is said by the [`Shard::finish_round`] that must follow, after
    /// this input or after several.
    pub fn handle(&mut self, now: Instant, input: Input, _out: &mut Outbox<Output>) {
        self.now = Some(now);
        match input {
            Input::Routes(batch) => self.routes(batch),
            Input::Pull { peer, credit } => self.pulls.open(peer, credit),
            Input::PullFib { credit } => self.fib_credit = Some(credit),
            Input::Configure(config) => self.configure(config),
            Input::PeerUp(facts) => self.peer_up(facts),
            Input::PeerDown { peer, keep, end } => {
                self.unwatch_peer(peer, &end);
                self.peer_down(peer, keep);
            }
            Input::Monitor(id, watch) => self.watch(id, watch),
            Input::MonitorEnds(id) => self.unwatch(id),
            Input::PullMonitor(id) => self.monitors.pull(id),
            Input::PeerReload { peer, config } => self.peer_reload(peer, config),
            Input::SweepStale { peer, family } => self.settle(peer, family),
            Input::LongLived { peer, family } => {
                if let Some(older) = self.peers.get(&peer).and_then(|state| state.renewal.of(family)).and_then(Renewal::stale) {
                    self.work.add(Task::LongLived { peer, family, older });
                }
            }
            Input::RefreshRequested { peer, family } => {
                let group = self.peers.get(&peer).and_then(|state| state.group);
                if let Some(group) = group.and_then(|id| self.shared.groups.get_mut(id)) {
                    group.out.refresh(peer, family);
                }
            }
            Input::Local(word) => self.local(word),
            Input::Kernel(event) => self.kernel(event),
            Input::Drain(draining) => {
                self.draining = draining;
                self.regroup.extend(self.shared.groups.ids());
            }
            Input::RecoveryDone => self.recovery_done(),
            Input::Query(id, query) => self.work.add(Task::Answer { id, query, family: Family::IPV4_UNICAST }),
            Input::Pause(id) => self.work.pause(id),
            Input::Resume(id) => self.work.resume(id),
            Input::Abandon(id) => self.work.abandon(id),
        }
    }

    /// Whether the Loc-RIB's last word has been pulled by the FibSyncer and no work is left.
    pub fn is_settled(&self) -> bool {
        self.work.is_empty() && !self.ipv4.has_fib_changes() && !self.ipv6.has_fib_changes()
    }

    /// When [`Shard::on_deadline`] wants to be called: at once while there is work left or peers wait for their turn, else when unused memory
    /// is due.
    pub fn deadline(&self) -> Option<Instant> {
        if self.owes || self.is_behind() { self.now } else { self.sweep_due }
    }

    /// Whether the next round has much to do even if it is told nothing.
    pub fn has_much(&self, now: Instant) -> bool {
        self.is_behind() || self.sweep_due.is_some_and(|due| due <= now)
    }

    fn is_behind(&self) -> bool {
        !self.work.is_empty() || self.compacting || self.is_monitoring() || self.pulls.is_waiting()
    }

    /// Goes on with bounded work: a round without input.
    pub fn on_deadline(&mut self, now: Instant, out: &mut Outbox<Output>) {
        self.finish_round(now, out);
    }

    /// Ends a round: decides what has changed since the last one and says what follows from it.
    pub fn finish_round(&mut self, now: Instant, out: &mut Outbox<Output>) {
        self.finish_round_watched(now, out, |_| {});
    }

    /// The same; `done` is called at the end of each stage, in order.
    pub fn finish_round_watched(&mut self, now: Instant, out: &mut Outbox<Output>, mut done: impl FnMut(Stage)) {
        self.now = Some(now);
        if self.shared.facts.next_hops.has_news() {
            self.follow_kernel();
        }
        if !self.regroup.is_empty() {
            self.follow_reloads();
        }
        self.schedule_memory(now);
        done(Stage::Prepare);
        if !self.work.is_empty() {
            self.walk(out);
        }
        done(Stage::Walk);
        self.ipv4.decide(&mut self.shared);
        self.ipv6.decide(&mut self.shared);
        done(Stage::Decide);
        let whole = self.shared.groups.is_recovered() && self.shared.facts.local.is_synced();
        self.shared.groups.flush(whole);
        done(Stage::Encode);
        // Peers do not wait for what is done for others: that is put off by one round, and never by two. Frames come last, since of
        // several workers each runs next the task that it has woken last.
        let owed = std::mem::take(&mut self.owes);
        if owed {
            self.tell_others(out);
        }
        self.owes = self.answer_pulls(out);
        if !self.owes && !owed {
            self.tell_others(out);
        }
        self.shared.facts.sources.finish_round();
        done(Stage::Answer);
    }

    fn tell_others(&mut self, out: &mut Outbox<Output>) {
        self.compacting = self.shared.groups.compact();
        self.answer_fib(out);
        self.report_counts(out);
        if !self.monitors.is_empty() {
            self.answer_monitors(out);
        }
    }

    #[inline(never)]
    fn configure(&mut self, config: Arc<RibConfig>) {
        let old = std::mem::replace(&mut self.config, config);
        self.shared.facts.next_hops.set_protocol(self.config.protocol);
        self.shared.facts.max_paths = self.config.max_paths.max(1);
        if *old == *self.config {
            return;
        }
        for table in [(0..self.ipv4.table.end(), true), (0..self.ipv6.table.end(), false)] {
            // Rare, and the whole result may differ: decided in one round.
            let (indexes, v4) = table;
            for index in indexes {
                if v4 { self.ipv4.touch(index) } else { self.ipv6.touch(index) }
            }
        }
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        for peer in peers {
            self.rejudge(peer);
            self.rekey(peer);
        }
    }

    #[inline(never)]
    fn peer_up(&mut self, facts: Arc<SessionFacts>) {
        let peer = facts.peer;
        self.leave_group(peer);
        let renewed = self.shared.facts.sources.renew(&facts);
        let old = self.peers.remove(&peer);
        let judged_anew = renewed || old.as_ref().is_some_and(|old| is_judged_by_another(&old.facts.config, &facts.config));
        let (renewal, counts, reported) = old.map(|old| (old.renewal, old.counts, old.reported)).unwrap_or_default();
        let receiver = Receiver { peer, address: facts.remote, identifier: facts.identifier };
        let key = GroupKey::new(&facts, &self.config, self.draining);
        let families = facts.context.families;
        let (group, new) = self.shared.groups.join(key, receiver, &self.shared.facts.next_hops);
        if !self.monitors.is_empty() {
            self.watch_peer(&facts, group, counts.iter().any(|(_, counts)| counts.received > 0));
        }
        self.peers.insert(peer, PeerState { facts, renewal, group: Some(group), counts, reported });
        for family in Family::ALL {
            if new {
                self.work.add(Task::Export { group, family });
            }
            if !families.has(family) {
                self.settle(peer, family);
            }
        }
        if judged_anew {
            self.rejudge(peer);
        }
        self.counted.insert(peer);
    }

    #[inline(never)]
    fn peer_down(&mut self, peer: PeerId, keep: PerFamily<bool>) {
        self.leave_group(peer);
        self.pulls.close(peer);
        let Some(state) = self.peers.get_mut(&peer) else { return };
        for family in Family::ALL {
            let Some(renewal) = state.renewal.of_mut(family) else { continue };
            if keep.has(family) {
                renewal.lose();
            } else {
                self.work.add(Task::Sweep { peer, family, older: renewal.forget() });
            }
        }
        self.counted.insert(peer);
    }

    #[inline(never)]
    fn peer_reload(&mut self, peer: PeerId, config: Arc<PeerConfig>) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let judged_anew = is_judged_by_another(&state.facts.config, &config);
        state.facts = Arc::new(SessionFacts { config, ..SessionFacts::clone(&state.facts) });
        self.shared.facts.sources.renew(&state.facts);
        if judged_anew {
            self.rejudge(peer);
        }
        self.rekey(peer);
    }

    fn rejudge(&mut self, peer: PeerId) {
        for family in Family::ALL {
            self.work.add(Task::Rejudge { peer, family });
        }
    }

    fn rekey(&mut self, peer: PeerId) {
        self.regroup.extend(self.peers.get(&peer).and_then(|state| state.group));
    }

    fn leave_group(&mut self, peer: PeerId) {
        if let Some(group) = self.peers.get_mut(&peer).and_then(|state| state.group.take()) {
            if let Some(group) = self.shared.groups.get_mut(group) {
                self.monitors.of_adj_rib_out().for_each(|id| group.out.leave(monitor::shadow(peer, id)));
            }
            self.shared.groups.leave(group, peer);
        }
    }

    /// Nobody waits for stale paths any longer.
    #[inline(never)]
    fn settle(&mut self, peer: PeerId, family: Family) {
        let renewal = self.peers.get_mut(&peer).and_then(|state| state.renewal.of_mut(family));
        if let Some(older) = renewal.and_then(Renewal::settle) {
            self.work.add(Task::Sweep { peer, family, older });
        }
    }

    fn routes(&mut self, batch: RouteBatch) {
        let peer = batch.peer;
        if self.peers.get(&peer).is_none_or(|state| state.group.is_none()) {
            return;
        }
        self.counted.insert(peer);
        let announces = |change: &RouteChange| matches!(change, RouteChange::Announce(..));
        let alike = batch.changes.chunk_by(|one, next| announces(one) && announces(next));
        for run in alike.flat_map(|alike| alike.chunks(RUN)) {
            match run {
                [change] => self.route_change(peer, change),
                run => self.announce(peer, run),
            }
            // Not before: what was entered but has no path yet is not to be taken for unused.
            self.decide_bites();
        }
    }

    fn route_change(&mut self, peer: PeerId, change: &RouteChange) {
        match change {
            RouteChange::Announce(..) => self.announce(peer, std::slice::from_ref(change)),
            RouteChange::Withdraw(NlriList::Ipv4(items)) => {
                self.releases += adj_rib_in::withdraw(&mut self.ipv4, &mut self.shared, self.peers.get_mut(&peer), items);
            }
            RouteChange::Withdraw(NlriList::Ipv6(items)) => {
                self.releases += adj_rib_in::withdraw(&mut self.ipv6, &mut self.shared, self.peers.get_mut(&peer), items);
            }
            RouteChange::EndOfRib(family) => {
                self.settle(peer, *family);
                self.monitors.end_of_rib(peer, *family);
            }
            RouteChange::RefreshBegin(family) => {
                if let Some(renewal) = self.peers.get_mut(&peer).and_then(|state| state.renewal.of_mut(*family)) {
                    renewal.begin();
                }
            }
            RouteChange::RefreshEnd(family) => {
                let renewal = self.peers.get_mut(&peer).and_then(|state| state.renewal.of_mut(*family));
                if let Some(older) = renewal.and_then(Renewal::end) {
                    self.work.add(Task::Sweep { peer, family: *family, older });
                }
            }
        }
    }

    fn decide_bites(&mut self) {
        self.ipv4.decide_bites(&mut self.shared);
        self.ipv6.decide_bites(&mut self.shared);
    }

    /// Enters a run of announcements. One family does not see in which order the other was told.
    fn announce(&mut self, peer: PeerId, run: &[RouteChange]) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let mut ipv4: SmallVec<[Announcement<'_, Ipv4Unicast>; RUN]> = SmallVec::new();
        let mut ipv6: SmallVec<[Announcement<'_, Ipv6Unicast>; RUN]> = SmallVec::new();
        for change in run {
            let RouteChange::Announce(attributes, list) = change else { continue };
            self.releases += list.len();
            match list {
                NlriList::Ipv4(items) if !items.is_empty() => ipv4.push((attributes, items)),
                NlriList::Ipv6(items) if !items.is_empty() => ipv6.push((attributes, items)),
                _ => {}
            }
        }
        if !ipv4.is_empty() {
            adj_rib_in::announce(&mut self.ipv4, &mut self.shared, &self.config, state, &ipv4);
        }
        if !ipv6.is_empty() {
            adj_rib_in::announce(&mut self.ipv6, &mut self.shared, &self.config, state, &ipv6);
        }
    }

    #[inline(never)]
    fn local(&mut self, word: Sync<LocalKey, LocalRoute>) {
        let mut changed = Vec::new();
        self.shared.facts.local.apply(word, |key, _| changed.push(*key));
        for key in changed {
            if key.source == RouteSource::Static {
                let gateway = match self.shared.facts.local.get(&key).map(|route| &route.target) {
                    Some(LocalTarget::Gateway(gateway)) => Some(*gateway),
                    _ => None,
                };
                self.shared.facts.next_hops.set_static(key.prefix, gateway);
            }
            match key.prefix {
                IpNet::V4(prefix) => adj_rib_in::local(&mut self.ipv4, &mut self.shared, key, prefix),
                IpNet::V6(prefix) => adj_rib_in::local(&mut self.ipv6, &mut self.shared, key, prefix),
            }
        }
    }

    #[inline(never)]
    fn kernel(&mut self, event: KernelEvent) {
        self.shared.facts.next_hops.hear(event);
    }

    #[inline(never)]
    fn recovery_done(&mut self) {
        if !self.shared.groups.is_recovered() {
            self.shared.groups.set_recovered();
            self.refill(self.shared.groups.ids());
        }
    }

    fn refill(&mut self, groups: impl IntoIterator<Item = GroupId>) {
        for group in groups {
            for family in Family::ALL {
                self.work.add(Task::Export { group, family });
            }
        }
    }

    /// What the kernel's words of this round mean for next hops, own prefixes and our own address.
    #[inline(never)]
    fn follow_kernel(&mut self) {
        let next_hops = &mut self.shared.facts.next_hops;
        for id in next_hops.reexamine() {
            let PerFamily { ipv4, ipv6 } = next_hops.take_dependants(id);
            for (family, dependants) in [(Family::IPV4_UNICAST, ipv4), (Family::IPV6_UNICAST, ipv6)] {
                let dependants = dependants.into_list();
                if !dependants.is_empty() {
                    self.work.add_first(Task::NextHop { id, family, dependants });
                }
            }
        }
        let own = next_hops.take_own_changes();
        for prefix in own {
            match prefix {
                IpNet::V4(prefix) => {
                    if let Some(index) = self.ipv4.table.find(&prefix) {
                        adj_rib_in::rejudge_one(&mut self.ipv4, &mut self.shared, &self.config, &mut self.peers, index, |_, _| true);
                    }
                }
                IpNet::V6(prefix) => {
                    if let Some(index) = self.ipv6.table.find(&prefix) {
                        adj_rib_in::rejudge_one(&mut self.ipv6, &mut self.shared, &self.config, &mut self.peers, index, |_, _| true);
                    }
                }
            }
        }
        if self.shared.facts.next_hops.take_addresses_changed() {
            let groups = self.shared.groups.renew_own_next_hops(&self.shared.facts.next_hops);
            self.refill(groups);
        }
    }

    /// Peers whose configuration changed in place may belong elsewhere now.
    #[inline(never)]
    fn follow_reloads(&mut self) {
        for group in std::mem::take(&mut self.regroup) {
            let members = self.peers.iter().filter(|(_, state)| state.group == Some(group));
            let keys = members.map(|(peer, state)| (*peer, GroupKey::new(&state.facts, &self.config, self.draining))).collect();
            let again = self.shared.groups.regroup(group, &keys, &self.shared.facts.next_hops);
            for (group, peers) in &again {
                for peer in peers {
                    if let Some(state) = self.peers.get_mut(peer) {
                        state.group = Some(*group);
                    }
                }
            }
            self.refill(again.into_iter().map(|(group, _)| group));
        }
    }

    /// Attribute sets are freed in walks: soon after much has changed, else now and then.
    fn schedule_memory(&mut self, now: Instant) {
        if self.sweep_due.is_some_and(|due| due <= now) {
            self.sweep_due = None;
            (self.releases, self.replaced) = (0, self.ipv4.replaced + self.ipv6.replaced);
            self.work.add(Task::Attributes);
        }
        if self.releases > 0 {
            let soon = self.releases > self.shared.interner.len() / 4;
            // A table that is new leaves nothing behind, one that is told again and again a copy of its attributes each time.
            let at_once = self.ipv4.replaced + self.ipv6.replaced != self.replaced && self.shared.interner.has_doubled();
            let due = now
                + Duration::from_secs(if at_once {
                    0
                } else if soon {
                    1
                } else {
                    30
                });
            self.sweep_due = Some(self.sweep_due.map_or(due, |other| other.min(due)));
        }
    }

    #[inline(never)]
    fn walk(&mut self, out: &mut Outbox<Output>) {
        let mut left = ROUND;
        while left > 0 {
            let Some((task, cursor)) = self.work.next() else { return };
            left = left.saturating_sub(STEP);
            if let Some((task, cursor)) = self.step(task, cursor, out) {
                self.work.put_back(task, cursor);
            }
        }
    }

    /// One step of a task from `cursor` on; the task and where it goes on, if it is not done.
    fn step(&mut self, task: Task, cursor: u32, out: &mut Outbox<Output>) -> Option<(Task, u32)> {
        let end = cursor + STEP;
        let Self { shared, config, peers, ipv4, ipv6, .. } = self;
        let range = cursor..end;
        match task {
            Task::Sweep { peer, family: Family::IPV4_UNICAST, older } => {
                adj_rib_in::sweep(ipv4, shared, peers.get_mut(&peer), peer, older, range)
            }
            Task::Sweep { peer, older, .. } => adj_rib_in::sweep(ipv6, shared, peers.get_mut(&peer), peer, older, range),
            Task::LongLived { peer, family: Family::IPV4_UNICAST, older } => {
                adj_rib_in::long_lived(ipv4, shared, config, peers, (peer, older), range)
            }
            Task::LongLived { peer, older, .. } => adj_rib_in::long_lived(ipv6, shared, config, peers, (peer, older), range),
            Task::Rejudge { peer, family: Family::IPV4_UNICAST } => adj_rib_in::rejudge(ipv4, shared, config, peers, peer, range),
            Task::Rejudge { peer, .. } => adj_rib_in::rejudge(ipv6, shared, config, peers, peer, range),
            Task::Export { group, family: Family::IPV4_UNICAST } => (range).for_each(|index| ipv4.offer_to(shared, index, group)),
            Task::Export { group, .. } => (range).for_each(|index| ipv6.offer_to(shared, index, group)),
            Task::NextHop { id, family: Family::IPV4_UNICAST, ref dependants } => {
                adj_rib_in::depend(ipv4, shared, config, peers, id, slice(dependants, cursor, end));
            }
            Task::NextHop { id, ref dependants, .. } => adj_rib_in::depend(ipv6, shared, config, peers, id, slice(dependants, cursor, end)),
            Task::Attributes => return (!shared.interner.sweep(STEP as usize)).then_some((task, 0)),
            Task::Answer { id, query, family } => return self.answer(id, query, family, cursor, end, out),
        }
        self.after_step(task, end)
    }

    fn after_step(&mut self, task: Task, end: u32) -> Option<(Task, u32)> {
        let table_end = |family| if family == Family::IPV4_UNICAST { self.ipv4.table.end() } else { self.ipv6.table.end() };
        let done = match &task {
            Task::Sweep { family, .. } | Task::LongLived { family, .. } | Task::Rejudge { family, .. } | Task::Export { family, .. } => {
                end >= table_end(*family)
            }
            Task::NextHop { dependants, .. } => end as usize >= dependants.len(),
            Task::Attributes | Task::Answer { .. } => true,
        };
        match &task {
            Task::Sweep { peer, .. } | Task::LongLived { peer, .. } | Task::Rejudge { peer, .. } => {
                self.counted.insert(*peer);
                self.releases += STEP as usize;
            }
            Task::Export { group, family } if done => self.shared.groups.fill_done(*group, *family),
            _ => {}
        }
        (!done).then_some((task, end))
    }

    /// One step of the answer to a question.
    fn answer(
        &mut self,
        id: QueryId,
        query: Query,
        family: Family,
        cursor: u32,
        end: u32,
        out: &mut Outbox<Output>,
    ) -> Option<(Task, u32)> {
        let filter = match &query {
            Query::Explain(prefix) => {
                let rows = Answer::Explain(self.explain(*prefix));
                out.push(Output::Answer { query: id, rows, done: true });
                return None;
            }
            Query::Uncovered(peers) => {
                let mut counts = BTreeMap::new();
                let more = match family {
                    Family::IPV4_UNICAST => self.view().uncovered(&self.ipv4, peers, cursor..end, &mut counts),
                    _ => self.view().uncovered(&self.ipv6, peers, cursor..end, &mut counts),
                };
                return self.answered(id, query, family, more.then_some(end), Answer::Uncovered(counts), out);
            }
            Query::AdjRibIn => {
                let mut paths = Vec::new();
                let more = match family {
                    Family::IPV4_UNICAST => self.view().received(&self.ipv4, cursor..end, &mut paths),
                    _ => self.view().received(&self.ipv6, cursor..end, &mut paths),
                };
                return self.answered(id, query, family, more.then_some(end), Answer::AdjRibIn(paths), out);
            }
            Query::Totals => {
                let count = |best: usize| u64::try_from(best).unwrap_or(u64::MAX);
                let (totals, needless, more) = match family {
                    Family::IPV4_UNICAST => {
                        let (best, more) = self.ipv4.count_best(cursor..end);
                        (PerFamily { ipv4: count(best), ipv6: 0 }, self.ipv4.watched.needless(cursor), more)
                    }
                    _ => {
                        let (best, more) = self.ipv6.count_best(cursor..end);
                        (PerFamily { ipv4: 0, ipv6: count(best) }, self.ipv6.watched.needless(cursor), more)
                    }
                };
                return self.answered(id, query, family, more.then_some(end), Answer::Totals(totals, needless), out);
            }
            Query::Routes { prefix, longer, family, received, advertised } => {
                Filter { prefix: *prefix, longer: *longer, family: *family, received: *received, advertised: *advertised }
            }
        };
        let mut rows = Vec::new();
        let more = match family {
            Family::IPV4_UNICAST => self.view().rows(&self.ipv4, &filter, cursor, end, &mut rows),
            _ => self.view().rows(&self.ipv6, &filter, cursor, end, &mut rows),
        };
        self.answered(id, query, family, more.then_some(end), Answer::Routes(rows), out)
    }

    /// Hands out a part of an answer; where the walk goes on: in the same family at `more`, in the next one, or nowhere.
    fn answered(
        &self,
        id: QueryId,
        query: Query,
        family: Family,
        more: Option<u32>,
        part: Answer,
        out: &mut Outbox<Output>,
    ) -> Option<(Task, u32)> {
        let next = match (more, family) {
            (Some(cursor), family) => Some((family, cursor)),
            (None, Family::IPV4_UNICAST) => Some((Family::IPV6_UNICAST, 0)),
            (None, _) => None,
        };
        let is_empty = match &part {
            Answer::Routes(rows) => rows.is_empty(),
            Answer::AdjRibIn(paths) => paths.is_empty(),
            Answer::Uncovered(counts) => counts.is_empty(),
            Answer::Totals(totals, needless) => *totals == PerFamily::default() && needless.is_empty(),
            Answer::Explain(..) => false,
        };
        if next.is_none() || !is_empty {
            out.push(Output::Answer { query: id, rows: part, done: next.is_none() });
        }
        next.map(|(family, cursor)| (Task::Answer { id, query, family }, cursor))
    }

    /// Explains the prefix or, where there is none such, the longest one around it.
    fn explain(&mut self, prefix: IpNet) -> Explained {
        let around = (0..=prefix.prefix_len()).rev().filter_map(|length| IpNet::new(prefix.addr(), length).ok());
        let found = around.map(|around| around.trunc()).find_map(|around| {
            let index = match around {
                IpNet::V4(prefix) => self.ipv4.table.find(&prefix),
                IpNet::V6(prefix) => self.ipv6.table.find(&prefix),
            };
            Some((around, index?))
        });
        let Some((route, index)) = found else { return Explained::default() };
        let candidates = match prefix {
            IpNet::V4(_) => self.ipv4.table.get(index).map(|destination| self.view().candidates::<Ipv4Unicast>(destination)),
            IpNet::V6(_) => self.ipv6.table.get(index).map(|destination| self.view().candidates::<Ipv6Unicast>(destination)),
        };
        let advertisements = match prefix {
            IpNet::V4(_) => explain::advertisements(&self.ipv4, &mut self.shared, &self.peers, index),
            IpNet::V6(_) => explain::advertisements(&self.ipv6, &mut self.shared, &self.peers, index),
        };
        Explained { route: Some(route), candidates: candidates.unwrap_or_default(), advertisements }
    }

    fn view(&self) -> View<'_> {
        View { config: &self.config, facts: &self.shared.facts, groups: &self.shared.groups, peers: &self.peers }
    }

    /// Whether there was anything to tell.
    fn answer_pulls(&mut self, out: &mut Outbox<Output>) -> bool {
        let (mut private, mut left) = (PRIVATE, false);
        let before = out.as_slice().len();
        for (peer, credit) in self.pulls.turn() {
            left |= !self.answer_pull(peer, credit, &mut private, out);
        }
        self.pulls.end_turn(left);
        out.as_slice().len() > before
    }

    /// Tells a peer what there is for it. False: it is a walker, and `private` was used up before its turn.
    fn answer_pull(&mut self, peer: PeerId, credit: usize, private: &mut usize, out: &mut Outbox<Output>) -> bool {
        let of_group = self.peers.get(&peer).and_then(|state| Some((state, state.group?)));
        let Some((state, group)) = of_group.and_then(|(state, id)| Some((state, self.shared.groups.get_mut(id)?))) else {
            self.pulls.close(peer);
            return true;
        };
        if !group.out.has_output(peer) {
            return true;
        }
        let walks = group.out.is_walking(peer);
        if walks && *private == 0 {
            return false;
        }
        let (mut frames, mut ended) = (Vec::new(), Vec::new());
        group.out.pull(peer, credit, &mut frames, &mut ended);
        if walks {
            *private = private.saturating_sub(frames.iter().map(Bytes::len).sum());
            self.pulls.served(peer);
        }
        if !frames.is_empty() || !ended.is_empty() {
            self.counted.insert(peer);
            self.pulls.close(peer);
            out.push(Output::Frames { peer, connection: state.facts.connection, frames, ended });
        }
        true
    }

    fn answer_fib(&mut self, out: &mut Outbox<Output>) {
        let Some(credit) = self.fib_credit.filter(|_| self.ipv4.has_fib_changes() || self.ipv6.has_fib_changes()) else { return };
        let mut changes = Vec::new();
        self.ipv4.pull_fib(&self.shared.facts, credit, &mut changes);
        self.ipv6.pull_fib(&self.shared.facts, credit, &mut changes);
        if !changes.is_empty() {
            self.fib_credit = None;
            let more = !self.is_settled();
            out.push(Output::FibChanges { changes, more });
        }
    }

    fn report_counts(&mut self, out: &mut Outbox<Output>) {
        if self.counted.is_empty() {
            return;
        }
        for peer in std::mem::take(&mut self.counted) {
            let Some(state) = self.peers.get_mut(&peer) else { continue };
            let group = state.group.and_then(|id| self.shared.groups.get(id));
            let advertised = |family| group.map_or(0, |group| group.out.advertised_count(peer, family) as u64);
            let counts = state.counts.map(|family, counts| PrefixCounts { advertised: advertised(family), ..counts });
            if counts != std::mem::replace(&mut state.reported, counts) {
                out.push(Output::Counts { peer, counts });
            }
            // A peer that is down and whose last path is gone is forgotten, with what was still to be swept.
            if state.group.is_none() && !state.has_paths() {
                self.peers.remove(&peer);
                self.work.retain(|task| !matches!(task, Task::Sweep { peer: p, .. } | Task::LongLived { peer: p, .. } | Task::Rejudge { peer: p, .. } if *p == peer));
            }
        }
    }
}

/// Whether paths of a peer have to be judged again.
fn is_judged_by_another(old: &PeerConfig, new: &PeerConfig) -> bool {
    let judge = |config: &PeerConfig| (config.allow_local_as, config.ttl, config.cluster_id, config.is_ibgp());
    judge(old) != judge(new) || old.import != new.import
}

fn slice(list: &[u32], cursor: u32, end: u32) -> &[u32] {
    list.get(cursor as usize..list.len().min(end as usize)).unwrap_or_default()
}

#[cfg(test)]
impl Shard {
    /// How often destinations have been decided.
    pub(super) fn decisions(&self) -> u64 {
        self.stats().decisions
    }

    /// How many groups there are.
    pub(super) fn groups(&self) -> usize {
        self.stats().groups
    }

    /// The peers that are up.
    pub(super) fn up(&self) -> Vec<PeerId> {
        self.peers.iter().filter(|(_, state)| state.group.is_some()).map(|(peer, _)| *peer).collect()
    }
}
