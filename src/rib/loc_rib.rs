//! Loc-RIB: the destinations of one family, their chosen paths, and what the FibSyncer is to hear of them.

use std::collections::VecDeque;
use std::sync::Arc;

use ipnet::IpNet;
use smallvec::{SmallVec, smallvec};

use super::attributes::Interner;
use super::decision::{self, Contender, Fate};
use super::export::Candidate;
use super::groups::{GroupId, Groups};
use super::import::Judgement;
use super::monitor::{Change, Watched};
use super::next_hop::{Gateway, NextHopId, NextHops, Resolution};
use super::original::Originals;
use super::path::{Path, Source, SourceId, Sources};
use super::stale::{Epoch, Told};
use super::table::{Destination, Mark, Table};
use crate::fib::{BestRoute, FibChange, Hop, Target};
use crate::origin::{LocalKey, LocalRoute, LocalTarget};
use crate::policy::DEFAULT_LOCAL_PREF;
use crate::session::PrefixCounts;
use crate::types::{AddressFamily, Attributes, NextHop};

/// What the tables of both families share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    /// Attribute sets.
    pub(super) interner: Interner,
    /// What paths are judged by.
    pub(super) facts: Facts,
    /// Whom they are told.
    pub(super) groups: Groups,
}

/// What paths refer to.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Where paths come from.
    pub(super) sources: Sources,
    /// What they are sent through.
    pub(super) next_hops: NextHops,
    /// What was received of those that import has changed.
    pub(super) originals: Originals,
    /// Routes of this node.
    pub(super) local: Told<LocalKey, LocalRoute>,
    /// Paths used together at most.
    pub(super) max_paths: usize,
}

impl Facts {
    /// The local route behind a path.
    pub(super) fn local_route(&self, path: &Path, prefix: IpNet) -> Option<&LocalRoute> {
        let source = self.sources.get(path.source).kind;
        if source.is_bgp() { None } else { self.local.get(&LocalKey { source, prefix }) }
    }

    /// The attributes of a path before import policy.
    pub(super) fn received<'a>(&'a self, path: &'a Path) -> &'a Arc<Attributes> {
        path.original.and_then(|id| self.originals.get(id)).unwrap_or(&path.attributes)
    }

    /// What a path's next hop resolves to.
    pub(super) fn resolution(&self, path: &Path) -> Option<&Resolution> {
        path.next_hop.map(|id| self.next_hops.resolution(id))
    }

    /// Name of the interface that packets of a path leave by.
    pub(super) fn interface(&self, path: &Path, prefix: IpNet) -> Option<&Arc<str>> {
        let index = match (self.resolution(path), self.local_route(path, prefix).map(|route| &route.target)) {
            (Some(resolution), _) => resolution.gateways().first()?.interface,
            (None, Some(LocalTarget::Via(hops))) => hops.first()?.interface,
            _ => return None,
        };
        self.next_hops.interface_name(index)
    }

    /// A path as the decision sees it.
    pub(super) fn contender<'a>(&'a self, path: &'a Path) -> Contender<'a> {
        let source = self.sources.get(path.source);
        let (eligible, resolved, metric) = match self.resolution(path) {
            None => (true, true, 0),
            Some(Resolution::Own) => (false, false, u32::MAX),
            // A static route is there only while its gateway is on a link; a learned one may be chosen all the same.
            Some(Resolution::Unresolved) => (source.kind.is_bgp(), false, u32::MAX),
            Some(via) => (true, true, via.metric()),
        };
        let eligible = eligible && path.fault().is_none();
        Contender { attributes: &path.attributes, source, preference: path.preference, eligible, resolved, metric }
    }

    /// A path as export sees it.
    pub(super) fn candidate<'a>(&'a self, path: &'a Path, prefix: IpNet) -> Candidate<'a> {
        Candidate {
            prefix,
            attributes: &path.attributes,
            source: self.sources.get(path.source),
            local: self.local_route(path, prefix),
            interface: self.interface(path, prefix).map(|name| &**name),
            preference: path.preference,
        }
    }

    /// The fate of each path, in their order.
    pub(super) fn fates<P>(&self, destination: &Destination<P>) -> SmallVec<[Fate; 4]> {
        let contenders: SmallVec<[Contender<'_>; 4]> = destination.paths.iter().map(|path| self.contender(path)).collect();
        decision::select(&contenders, self.max_paths)
    }
}

/// Dirty destinations that are decided at once, within a round: with all that belongs to them they fill a few hundred kilobytes. Were they
/// left until the end of a round that brings a whole table, everything would have to be fetched from slow memory again.
const BITE: usize = 1024;

/// A path to be entered.
pub(super) struct NewPath {
    /// What import made of it.
    pub(super) judgement: Judgement,
    /// Its tracked next hop.
    pub(super) next_hop: Option<NextHopId>,
    /// When it was told.
    pub(super) told: Epoch,
}

/// The destinations of one family and what is to be done about them.
#[derive(Clone, Debug)]
pub(super) struct LocRib<A: AddressFamily> {
    /// The destinations.
    pub(super) table: Table<A>,
    dirty: Vec<u32>,
    fib_due: VecDeque<u32>,
    /// What collectors are to hear of.
    pub(super) watched: Watched<A>,
    /// How often a destination has been decided.
    pub(super) decisions: u64,
    /// How often a path was replaced or removed.
    pub(super) replaced: u64,
}

impl<A: AddressFamily> LocRib<A> {
    /// An empty one.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            table: Table::new(seed),
            dirty: Vec::new(),
            fib_due: VecDeque::new(),
            watched: Watched::default(),
            decisions: 0,
            replaced: 0,
        }
    }

    /// Octets of memory that the destinations and the lists of work on them have reserved.
    pub(super) fn octets(&self) -> usize {
        self.table.octets() + self.dirty.capacity() * 4 + self.fib_due.capacity() * 4
    }

    /// Enters or replaces the path of a source. A path told again unchanged is only renewed: then the answer is false.
    pub(super) fn store(
        &mut self,
        shared: &mut Shared,
        index: u32,
        source: SourceId,
        new: NewPath,
        counts: Option<&mut PrefixCounts>,
    ) -> bool {
        let Some(destination) = self.table.get_mut(index) else { return false };
        let accepted = new.judgement.fault.is_none();
        let Some(at) = destination.position(source) else {
            shared.facts.sources.hold(source);
            if let Some(id) = new.next_hop {
                shared.facts.next_hops.hold(id, A::FAMILY, index);
            }
            if let Some(counts) = counts {
                counts.received += 1;
                counts.accepted += u64::from(accepted);
            }
            let before = destination.spilled();
            destination.push(new.into_path(source, &mut shared.facts.originals));
            let more = destination.spilled() - before;
            self.table.spilled += more;
            if !self.watched.is_empty() {
                self.watch(&shared.facts, index, source, None);
            }
            self.soil(index);
            return true;
        };
        let chosen = at == 0 && destination.has_best;
        let path = &mut destination.paths[at];
        path.told = new.told;
        if new.is_same(path, &shared.facts) {
            return false;
        }
        if let Some(counts) = counts {
            counts.accepted += u64::from(accepted);
            counts.accepted -= u64::from(path.fault().is_none());
        }
        if path.next_hop != new.next_hop {
            if let Some(id) = new.next_hop {
                shared.facts.next_hops.hold(id, A::FAMILY, index);
            }
            if let Some(id) = path.next_hop {
                shared.facts.next_hops.release(id);
            }
        }
        self.replaced += 1;
        let before = std::mem::replace(path, new.into_path(source, &mut shared.facts.originals));
        if chosen || before.is_multipath() {
            destination.set(Mark::Touched, true);
        }
        if !self.watched.is_empty() {
            self.watch(&shared.facts, index, source, Some(&before));
        }
        before.original.into_iter().for_each(|id| shared.facts.originals.release(id));
        self.soil(index);
        true
    }

    /// Removes the path of a source; whether it was there.
    pub(super) fn remove(&mut self, shared: &mut Shared, index: u32, source: SourceId, counts: Option<&mut PrefixCounts>) -> bool {
        let Some(destination) = self.table.get_mut(index) else { return false };
        let Some(at) = destination.position(source) else { return false };
        let path = destination.paths.swap_remove(at);
        self.replaced += 1;
        if at == 0 && destination.has_best {
            destination.has_best = false;
            destination.set(Mark::Touched, true);
        }
        if path.is_multipath() {
            destination.set(Mark::Touched, true);
        }
        if let Some(counts) = counts {
            counts.received -= 1;
            counts.accepted -= u64::from(path.fault().is_none());
        }
        if let Some(id) = path.next_hop {
            shared.facts.next_hops.release(id);
        }
        shared.groups.withdraw_path(destination.prefix.into(), index, shared.facts.sources.get(source).sent);
        if !self.watched.is_empty() {
            self.watch(&shared.facts, index, source, Some(&path));
        }
        path.original.into_iter().for_each(|id| shared.facts.originals.release(id));
        shared.facts.sources.release(source);
        self.soil(index);
        true
    }

    /// A source's path of a destination has become what it is now: collectors are to hear of it.
    #[cold]
    fn watch(&mut self, facts: &Facts, index: u32, source: SourceId, before: Option<&Path>) {
        let (Some(destination), Source { peer: Some(peer), path_id, .. }) = (self.table.get(index), facts.sources.get(source)) else {
            return;
        };
        let after = destination.position(source).and_then(|at| destination.paths.get(at));
        self.watched.path(*peer, destination.prefix, *path_id, Change::of(before, after, facts));
    }

    /// The destination is to be decided again, and its result counts as changed.
    pub(super) fn touch(&mut self, index: u32) {
        if let Some(destination) = self.table.get_mut(index) {
            destination.set(Mark::Touched, true);
            self.soil(index);
        }
    }

    fn soil(&mut self, index: u32) {
        if self.table.get_mut(index).is_some_and(|destination| !destination.set(Mark::Dirty, true)) {
            self.dirty.push(index);
        }
    }

    /// Decides what is dirty as soon as there is a bite of it. What changes once more before the round ends is decided once more: where
    /// several peers tell of the same prefixes that is likely, and all is left to the end of the round.
    pub(super) fn decide_bites(&mut self, shared: &mut Shared) {
        let last = self.dirty.last().filter(|_| self.dirty.len() >= BITE);
        if last.and_then(|last| self.table.get(*last)).is_some_and(|destination| destination.paths.len() < 2) {
            self.decide(shared);
        }
    }

    /// Decides what is dirty; offers the results to the groups and notes them for the FibSyncer.
    pub(super) fn decide(&mut self, shared: &mut Shared) {
        let mut dirty = std::mem::take(&mut self.dirty);
        self.decisions += dirty.len() as u64;
        // What is left in the list are the destinations without a path.
        dirty.retain(|&index| self.decide_one(shared, index));
        self.table.release(&dirty);
        dirty.clear();
        self.dirty = dirty;
    }

    /// Decides one destination; whether it has no path left.
    fn decide_one(&mut self, shared: &mut Shared, index: u32) -> bool {
        let Some(destination) = self.table.get_mut(index) else { return false };
        destination.set(Mark::Dirty, false);
        let changed = choose(&shared.facts, destination) | destination.set(Mark::Touched, false);
        if changed && (destination.has_best || destination.has(Mark::FibTold)) && !destination.set(Mark::FibDue, true) {
            self.fib_due.push_back(index);
        }
        if changed && !self.watched.is_empty() {
            self.watched.best(destination.prefix);
        }
        shared.groups.offer(&shared.facts, &mut shared.interner, destination, index, changed);
        destination.paths.is_empty()
    }

    /// Offers a destination to one group again, as it stands.
    pub(super) fn offer_to(&self, shared: &mut Shared, index: u32, group: GroupId) {
        if let Some(destination) = self.table.get(index) {
            shared.groups.offer_to(&shared.facts, &mut shared.interner, destination, index, group);
        }
    }

    /// Appends changes for the FibSyncer, at most `credit` of them, each as the destination stands now.
    pub(super) fn pull_fib(&mut self, facts: &Facts, credit: usize, changes: &mut Vec<FibChange>) {
        let mut gone = Vec::new();
        while changes.len() < credit {
            let Some(index) = self.fib_due.pop_front() else { break };
            let Some(destination) = self.table.get_mut(index) else { continue };
            destination.set(Mark::FibDue, false);
            let route = best_route(facts, destination);
            let told = destination.set(Mark::FibTold, route.is_some());
            if told || route.is_some() {
                changes.push(FibChange { prefix: destination.prefix.into(), route });
            }
            if destination.paths.is_empty() {
                gone.push(index);
            }
        }
        self.table.release(&gone);
    }

    /// How many destinations in `range` have a best path; whether there may be more behind it.
    pub(super) fn count_best(&self, range: std::ops::Range<u32>) -> (usize, bool) {
        let end = range.end;
        let best = range.filter(|index| self.table.get(*index).is_some_and(|destination| destination.has_best)).count();
        (best, end < self.table.end())
    }

    /// Whether the FibSyncer has something to hear.
    pub(super) fn has_fib_changes(&self) -> bool {
        !self.fib_due.is_empty()
    }
}

impl NewPath {
    fn into_path(self, source: SourceId, originals: &mut Originals) -> Path {
        let Self { judgement: Judgement { attributes, received, fault, preference }, next_hop, told } = self;
        let original = received.map(|received| originals.hold(&received));
        Path::new((attributes, original), (source, next_hop), told, (preference, fault))
    }

    fn is_same(&self, path: &Path, facts: &Facts) -> bool {
        let received = self.judgement.received.as_ref().unwrap_or(&self.judgement.attributes);
        Arc::ptr_eq(&self.judgement.attributes, &path.attributes)
            && Arc::ptr_eq(received, facts.received(path))
            && (self.judgement.fault, self.judgement.preference, self.next_hop) == (path.fault(), path.preference, path.next_hop)
    }
}

/// Chooses the best path, puts it first and marks those used with it; true if the choice is another than before.
fn choose<P>(facts: &Facts, destination: &mut Destination<P>) -> bool {
    if let [path] = destination.paths.as_mut_slice() {
        let eligible = facts.contender(path).eligible;
        path.set_multipath(false);
        return std::mem::replace(&mut destination.has_best, eligible) != eligible;
    }
    let fates = facts.fates(destination);
    let mut changed = false;
    for (path, fate) in destination.paths.iter_mut().zip(&fates) {
        changed |= path.set_multipath(fate.multipath);
    }
    let best = fates.iter().position(|fate| fate.best);
    changed |= std::mem::replace(&mut destination.has_best, best.is_some()) != best.is_some();
    if let Some(best) = best.filter(|best| *best != 0) {
        destination.paths.swap(0, best);
        changed = true;
    }
    changed
}

/// What the kernel should do with packets to the destination; none without a best path.
pub(super) fn best_route<P: Copy + Into<IpNet>>(facts: &Facts, destination: &Destination<P>) -> Option<BestRoute> {
    let best = destination.best()?;
    let source = facts.sources.get(best.source).kind;
    let local = facts.local_route(best, destination.prefix.into());
    let target = match local.map(|route| &route.target) {
        Some(LocalTarget::Blackhole) => Target::Blackhole,
        Some(LocalTarget::Via(hops)) => Target::Via(
            hops.iter()
                .map(|hop| Hop {
                    next_hop: hop.gateway.map_or(best.attributes.next_hop, NextHop::Global),
                    gateway: hop.gateway,
                    interface: hop.interface,
                })
                .collect(),
        ),
        Some(LocalTarget::Gateway(_)) | None => learned_target(facts, destination),
    };
    let local_pref = source.is_bgp().then(|| best.attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF));
    Some(BestRoute { source, local_pref, target })
}

/// The gateways of the best path and of those used with it, in an order that does not depend on arrival.
fn learned_target<P>(facts: &Facts, destination: &Destination<P>) -> Target {
    if let [path] = destination.paths.as_slice()
        && let Some([gateway]) = facts.resolution(path).map(Resolution::gateways)
    {
        return Target::Via(smallvec![hop(path, gateway)]);
    }
    let used = destination.paths.iter().enumerate().filter(|(at, path)| *at == 0 || path.is_multipath());
    let mut hops: SmallVec<[Hop; 1]> = used
        .flat_map(|(_, path)| {
            let gateways = facts.resolution(path).map_or(&[][..], Resolution::gateways);
            gateways.iter().map(|gateway| hop(path, gateway))
        })
        .collect();
    hops.sort_unstable();
    hops.dedup();
    if hops.is_empty() { Target::Unreachable } else { Target::Via(hops) }
}

fn hop(path: &Path, gateway: &Gateway) -> Hop {
    Hop { next_hop: path.attributes.next_hop, gateway: Some(gateway.address), interface: gateway.interface }
}
