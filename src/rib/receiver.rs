//! Members of an update group, and from whom among them a route is kept.

use std::collections::BTreeMap;
use std::net::IpAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use super::monitor::{MONITORS, MonitorId, real, shadow};
use super::rewrite::Rewrite;
use crate::types::{Attributes, PeerId, RouterId};

/// A member of a group, as far as the rules that differ between members go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// The peer, or a collector's shadow of it; routes learned from it never go back to it (E1).
    pub peer: PeerId,
    /// Its address on the session; routes with that next hop do not go to it (N7).
    pub address: IpAddr,
    /// Its BGP identifier; routes with that ORIGINATOR_ID do not go to it (E4).
    pub identifier: RouterId,
}

impl Receiver {
    /// Whether routes that were learned from `source` come from the member itself.
    pub(super) fn is_source(&self, source: Option<PeerId>) -> bool {
        source == Some(real(self.peer))
    }

    /// Whether routes of this provenance are kept from the member.
    pub(super) fn is_excluded(&self, of: &Provenance) -> bool {
        self.is_source(of.source) || of.next_hop == self.address || of.originator == Some(self.identifier)
    }
}

/// What of a route decides from which members it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Provenance {
    /// The peer it was learned from.
    pub source: Option<PeerId>,
    /// Its next hop.
    pub next_hop: IpAddr,
    /// Its ORIGINATOR_ID.
    pub originator: Option<RouterId>,
}

impl Provenance {
    /// Of a route from this source, for which the rewrite of a set that is held is sent.
    pub fn of(source: Option<PeerId>, held: &Attributes, rewrite: &Rewrite) -> Self {
        Self { source, next_hop: rewrite.next_hop(held).address(), originator: rewrite.originator_id(held) }
    }
}

/// How many routes there are of each provenance, so that a new member knows how many are kept from it.
#[derive(Clone, Debug, Default)]
pub(super) struct Census {
    counts: HashMap<Provenance, usize, FixedState>,
}

impl Census {
    /// Counts so many more, or fewer.
    pub fn add(&mut self, of: &Provenance, change: isize) {
        if change == 0 {
            return;
        }
        let count = self.counts.entry(*of).or_default();
        *count = count.saturating_add_signed(change);
        if *count == 0 {
            self.counts.remove(of);
        }
    }

    /// How many are kept from the member.
    pub fn excluded(&self, receiver: &Receiver) -> usize {
        self.kept_from(receiver).0
    }

    /// How many are kept from the member, and whether it is their source alone that keeps them from it.
    pub fn kept_from(&self, receiver: &Receiver) -> (usize, bool) {
        let kept = self.counts.iter().filter(|(of, _)| receiver.is_excluded(of));
        kept.fold((0, true), |(all, only), (of, count)| (all + count, only && receiver.is_source(of.source)))
    }
}

/// The members that a route is kept from, in order of their numbers; mostly none or one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Excluded(SmallVec<[PeerId; 3]>);

impl Excluded {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn has(&self, peer: PeerId) -> bool {
        self.0.contains(&peer)
    }

    pub fn iter(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.0.iter().copied()
    }
}

/// All members of a group, to be found by what excludes them.
#[derive(Clone, Debug, Default)]
pub(super) struct Receivers {
    peers: BTreeMap<PeerId, Receiver>,
    addresses: Index<IpAddr>,
    identifiers: Index<RouterId>,
    /// Members that are collectors' shadows of others.
    shadows: usize,
}

impl Receivers {
    pub fn insert(&mut self, receiver: Receiver) {
        self.remove(receiver.peer);
        self.shadows += usize::from(real(receiver.peer) != receiver.peer);
        self.peers.insert(receiver.peer, receiver);
        self.addresses.insert(receiver.address, receiver.peer);
        self.identifiers.insert(receiver.identifier, receiver.peer);
    }

    pub fn remove(&mut self, peer: PeerId) {
        if let Some(receiver) = self.peers.remove(&peer) {
            self.shadows -= usize::from(real(peer) != peer);
            self.addresses.remove(receiver.address, peer);
            self.identifiers.remove(receiver.identifier, peer);
        }
    }

    pub fn get(&self, peer: PeerId) -> Option<&Receiver> {
        self.peers.get(&peer)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Receiver> {
        self.peers.values()
    }

    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    fn shadows_of(&self, peer: PeerId) -> impl Iterator<Item = PeerId> + '_ {
        (0..MONITORS).map(move |number| shadow(peer, MonitorId(number))).filter(|shadow| self.peers.contains_key(shadow))
    }

    /// The members for which [`Receiver::is_excluded`] holds.
    pub fn excluded(&self, of: &Provenance) -> Excluded {
        let mut peers = SmallVec::new();
        if let Some(source) = of.source {
            if self.peers.contains_key(&source) {
                peers.push(source);
            }
            if self.shadows > 0 {
                peers.extend(self.shadows_of(source));
            }
        }
        let (address, identifier) =
            (self.addresses.with(of.next_hop), of.originator.map(|id| self.identifiers.with(id)).unwrap_or_default());
        if !(address.is_empty() && identifier.is_empty()) {
            peers.extend(address.iter().map(|(_, peer)| *peer));
            peers.extend(identifier.iter().map(|(_, peer)| *peer));
            peers.sort_unstable();
            peers.dedup();
        }
        Excluded(peers)
    }
}

/// Peers by something that several may share, in order: what is looked up with every change stands in few cache lines.
#[derive(Clone, Debug)]
struct Index<K>(Vec<(K, PeerId)>);

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord + Copy> Index<K> {
    fn insert(&mut self, key: K, peer: PeerId) {
        if let Err(at) = self.0.binary_search(&(key, peer)) {
            self.0.insert(at, (key, peer));
        }
    }

    fn remove(&mut self, key: K, peer: PeerId) {
        if let Ok(at) = self.0.binary_search(&(key, peer)) {
            self.0.remove(at);
        }
    }

    /// Those of one key, in order of their numbers.
    fn with(&self, key: K) -> &[(K, PeerId)] {
        let begin = self.0.partition_point(|(other, _)| *other < key);
        let rest = &self.0[begin..];
        &rest[..rest.iter().take_while(|(other, _)| *other == key).count()]
    }
}
