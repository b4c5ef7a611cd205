//! Adj-RIB-In: what each peer said, entered into the tables and taken out of them again.
//!
//! There is no table for each peer: a destination holds the paths of all of them, each with what was
//! received and with what import made of it, refused ones included.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::Arc;

use ipnet::IpNet;
use smallvec::SmallVec;

use super::RibConfig;
use super::import::{Import, Judgement, next_hop_key};
use super::loc_rib::{LocRib, NewPath, Shared};
use super::next_hop::{Key, NextHopId, NextHops};
use super::path::{Path, SourceId};
use super::shard::PeerState;
use super::stale::Epoch;
use crate::origin::{LocalKey, LocalTarget};
use crate::session::{PrefixCounts, SessionFacts};
use crate::types::{AddressFamily, Attributes, Community, NextHop, Nlri, PathId, PeerId};

/// Paths that a peer may announce for one prefix with ADD-PATH; newer ones are ignored (X3).
const PATHS_PER_PREFIX: usize = 64;

/// A set of attributes and what is reached with it.
pub(super) type Announcement<'a, A> = (&'a Arc<Attributes>, &'a [Nlri<<A as AddressFamily>::Prefix>]);

/// Enters what a peer announces, in its order.
pub(super) fn announce<A: AddressFamily>(
    rib: &mut LocRib<A>,
    shared: &mut Shared,
    config: &RibConfig,
    state: &mut PeerState,
    run: &[Announcement<'_, A>],
) {
    let PeerState { facts, renewal, counts, .. } = state;
    let (Some(renewal), Some(counts)) = (renewal.of_mut(A::FAMILY), counts.of_mut(A::FAMILY)) else { return };
    let told = renewal.tell();
    if let [(attributes, items @ [item])] = run {
        // A single change does without room for many.
        let (received, index) = (shared.interner.intern(Arc::clone(attributes)), [rib.table.enter(item.prefix)]);
        return announce_set(rib, shared, config, (facts, counts), (received, told), items.iter().zip(&mut index.iter().copied()));
    }
    announce_many(rib, shared, config, (facts, counts), told, run);
}

/// Beside [`announce`]: the stack of a single change is a page or two.
#[inline(never)]
fn announce_many<A: AddressFamily>(
    rib: &mut LocRib<A>,
    shared: &mut Shared,
    config: &RibConfig,
    (facts, counts): (&SessionFacts, &mut PrefixCounts),
    told: Epoch,
    run: &[Announcement<'_, A>],
) {
    let received = shared.interner.intern_all(run.iter().map(|(attributes, _)| *attributes));
    let indexes = rib.table.enter_all(run.iter().flat_map(|(_, items)| items.iter()).map(|item| item.prefix));
    let mut indexes = indexes.iter().copied();
    for ((_, items), received) in run.iter().zip(received) {
        announce_set(rib, shared, config, (facts, counts), (received, told), items.iter().zip(&mut indexes));
    }
}

/// Enters the paths of one set of attributes; each item comes with the index of its prefix.
fn announce_set<'a, A: AddressFamily>(
    rib: &mut LocRib<A>,
    shared: &mut Shared,
    config: &RibConfig,
    (facts, counts): (&SessionFacts, &mut PrefixCounts),
    (received, told): (Arc<Attributes>, Epoch),
    items: impl Iterator<Item = (&'a Nlri<A::Prefix>, u32)>,
) {
    let next_hop = shared.facts.next_hops.track(next_hop_key(&facts.config, &received));
    let interface = interface(&shared.facts.next_hops, next_hop);
    let mut import = Import::new(config, facts, A::FAMILY, received, interface, &mut shared.interner);
    let mut source: Option<(PathId, SourceId)> = None;
    for (item, index) in items {
        let id = match source {
            Some((path_id, id)) if path_id == item.path_id => id,
            _ => shared.facts.sources.of_peer(facts, item.path_id),
        };
        source = Some((item.path_id, id));
        if item.path_id != PathId(0) && is_full(rib, shared, facts.peer, index, id) {
            continue;
        }
        let judgement = import.judge(item.prefix.into(), &shared.facts.next_hops, &mut shared.interner);
        if !rib.store(shared, index, id, NewPath { judgement, next_hop: Some(next_hop), told }, Some(counts)) {
            rib.watched.count(facts.peer, |needless| needless.announcements += 1);
        }
    }
    shared.facts.next_hops.drop_unused(next_hop);
}

/// X3: the peer has as many paths for the prefix as it may.
fn is_full<A: AddressFamily>(rib: &LocRib<A>, shared: &Shared, peer: PeerId, index: u32, source: SourceId) -> bool {
    let Some(destination) = rib.table.get(index) else { return false };
    destination.paths.len() >= PATHS_PER_PREFIX
        && destination.position(source).is_none()
        && destination.paths.iter().filter(|path| shared.facts.sources.get(path.source).peer == Some(peer)).count() >= PATHS_PER_PREFIX
}

fn interface(next_hops: &NextHops, id: NextHopId) -> Option<Arc<str>> {
    let gateway = next_hops.resolution(id).gateways().first()?;
    next_hops.interface_name(gateway.interface).map(Arc::clone)
}

/// Removes what a peer withdraws; answers how many items there were.
pub(super) fn withdraw<A: AddressFamily>(
    rib: &mut LocRib<A>,
    shared: &mut Shared,
    state: Option<&mut PeerState>,
    items: &[Nlri<A::Prefix>],
) -> usize {
    let Some(state) = state else { return 0 };
    let PeerState { facts, counts, .. } = state;
    let Some(counts) = counts.of_mut(A::FAMILY) else { return 0 };
    let indexes: SmallVec<[Option<u32>; 64]> = items.iter().map(|item| rib.table.find(&item.prefix)).collect();
    for (item, index) in items.iter().zip(indexes) {
        let source = shared.facts.sources.find_peer(facts, item.path_id);
        let known = source.zip(index).is_some_and(|(source, index)| rib.remove(shared, index, source, Some(counts)));
        if !known {
            rib.watched.count(facts.peer, |needless| needless.withdrawals += 1);
        }
    }
    items.len()
}

/// Takes over what the node itself says of a prefix now.
pub(super) fn local<A: AddressFamily>(rib: &mut LocRib<A>, shared: &mut Shared, key: LocalKey, prefix: A::Prefix) {
    let source = shared.facts.sources.of_local(key.source);
    let Some(route) = shared.facts.local.get(&key) else {
        if let Some(index) = rib.table.find(&prefix) {
            rib.remove(shared, index, source, None);
        }
        return;
    };
    let unspecified = match key.prefix {
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let (address, tracked) = match &route.target {
        LocalTarget::Gateway(gateway) => (*gateway, Some(Key::new(NextHop::Global(*gateway), true))),
        LocalTarget::Via(hops) => (hops.first().and_then(|hop| hop.gateway).unwrap_or(unspecified), None),
        LocalTarget::Blackhole => (unspecified, None),
    };
    let attributes = shared.interner.intern(Arc::new(Attributes::originated(NextHop::Global(address))));
    let judgement = Judgement { attributes, received: None, fault: None, preference: key.source.preference() };
    let next_hop = tracked.map(|key| shared.facts.next_hops.track(key));
    let index = rib.table.enter(prefix);
    rib.store(shared, index, source, NewPath { judgement, next_hop, told: Epoch::default() }, None);
    // Interfaces and metrics are not in the path: it may look the same and be another.
    rib.touch(index);
}

/// Removes the paths of a peer that were last told before `older`.
pub(super) fn sweep<A: AddressFamily>(
    rib: &mut LocRib<A>,
    shared: &mut Shared,
    state: Option<&mut PeerState>,
    peer: PeerId,
    older: Epoch,
    range: Range<u32>,
) {
    let Some(counts) = state.and_then(|state| state.counts.of_mut(A::FAMILY)) else { return };
    for index in range {
        while let Some(path) = rib.table.get(index).and_then(|destination| {
            destination.paths.iter().find(|path| path.told.is_before(older) && shared.facts.sources.get(path.source).peer == Some(peer))
        }) {
            let source = path.source;
            rib.remove(shared, index, source, Some(counts));
        }
    }
}

/// Runs import again on the paths of a peer.
pub(super) fn rejudge<A: AddressFamily>(
    rib: &mut LocRib<A>,
    shared: &mut Shared,
    config: &RibConfig,
    peers: &mut BTreeMap<PeerId, PeerState>,
    peer: PeerId,
    range: Range<u32>,
) {
    for index in range {
        rejudge_one(rib, shared, config, peers, index, |of, _| of == peer);
    }
}

/// Runs import again on those paths of a destination that `which` picks by peer and next hop.
pub(super) fn rejudge_one<A: AddressFamily>(
    rib: &mut LocRib<A>,
    shared: &mut Shared,
    config: &RibConfig,
    peers: &mut BTreeMap<PeerId, PeerState>,
    index: u32,
    which: impl Fn(PeerId, Option<NextHopId>) -> bool,
) {
    let Some(destination) = rib.table.get(index) else { return };
    let prefix = destination.prefix;
    let picked: Vec<_> = destination
        .paths
        .iter()
        .filter_map(|path| {
            let peer = shared.facts.sources.get(path.source).peer.filter(|peer| which(*peer, path.next_hop))?;
            Some((peer, path.source, Arc::clone(shared.facts.received(path)), path.told))
        })
        .collect();
    for (peer, source, received, told) in picked {
        let Some(PeerState { facts, counts, .. }) = peers.get_mut(&peer) else { continue };
        judge_again(rib, shared, config, (facts, counts.of_mut(A::FAMILY)), (index, prefix.into(), source), (received, told));
    }
}

/// Runs import on what a path received and enters what comes of it.
fn judge_again<A: AddressFamily>(
    rib: &mut LocRib<A>,
    shared: &mut Shared,
    config: &RibConfig,
    (facts, counts): (&SessionFacts, Option<&mut PrefixCounts>),
    (index, prefix, source): (u32, IpNet, SourceId),
    (received, told): (Arc<Attributes>, Epoch),
) {
    let next_hop = shared.facts.next_hops.track(next_hop_key(&facts.config, &received));
    let interface = interface(&shared.facts.next_hops, next_hop);
    let mut import = Import::new(config, facts, A::FAMILY, received, interface, &mut shared.interner);
    let judgement = import.judge(prefix, &shared.facts.next_hops, &mut shared.interner);
    rib.store(shared, index, source, NewPath { judgement, next_hop: Some(next_hop), told }, counts);
}

/// Marks the stale paths of a peer, those told before the epoch, with LLGR_STALE; those with NO_LLGR go (RFC 9494 section 4.3).
/// The mark counts as received: policies see it, and the path loses it only by being told again.
pub(super) fn long_lived<A: AddressFamily>(
    rib: &mut LocRib<A>,
    shared: &mut Shared,
    config: &RibConfig,
    peers: &mut BTreeMap<PeerId, PeerState>,
    (peer, older): (PeerId, Epoch),
    range: Range<u32>,
) {
    let Some(PeerState { facts, counts, .. }) = peers.get_mut(&peer) else { return };
    for index in range {
        let Some(destination) = rib.table.get(index) else { continue };
        let prefix = destination.prefix;
        let of_peer = |path: &&Path| path.told.is_before(older) && shared.facts.sources.get(path.source).peer == Some(peer);
        let stale: SmallVec<[_; 1]> = destination
            .paths
            .iter()
            .filter(of_peer)
            .map(|path| (path.source, Arc::clone(shared.facts.received(path)), path.told))
            .collect();
        for (source, received, told) in stale {
            if received.has_community(Community::NO_LLGR) {
                rib.remove(shared, index, source, counts.of_mut(A::FAMILY));
            } else if !received.has_community(Community::LLGR_STALE) {
                let mut marked = Attributes::clone(&received);
                marked.add_community(Community::LLGR_STALE);
                let received = shared.interner.intern(Arc::new(marked));
                judge_again(rib, shared, config, (facts, counts.of_mut(A::FAMILY)), (index, prefix.into(), source), (received, told));
            }
        }
    }
}

/// Decides again the destinations that do depend on a next hop whose resolution has changed.
pub(super) fn depend<A: AddressFamily>(
    rib: &mut LocRib<A>,
    shared: &mut Shared,
    config: &RibConfig,
    peers: &mut BTreeMap<PeerId, PeerState>,
    id: NextHopId,
    dependants: &[u32],
) {
    for &index in dependants {
        let depends =
            |index| rib.table.get(index).is_some_and(|destination| destination.paths.iter().any(|path| path.next_hop == Some(id)));
        if depends(index) {
            shared.facts.next_hops.keep(id, A::FAMILY, index);
            // The name of the outgoing interface may be a condition of the import policy.
            rejudge_one(rib, shared, config, peers, index, |_, next_hop| next_hop == Some(id));
            rib.touch(index);
        }
    }
}
