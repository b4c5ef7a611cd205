//! What a peer says of its table in one socket read, sorted into batches per shard.
//!
//! Batches matter: a message across threads costs many times what a route in it costs. Too large ones matter as well: a shard that takes one
//! hears nobody else until it is done, and a read may hold eight thousand withdrawals.

use std::sync::Arc;

use ipnet::IpNet;

use crate::types::{Attributes, Family, NextHop, Nlri, NlriList, Outbox, PeerId, ShardId};
use crate::wire::Update;

use super::{Output, RouteBatch, RouteChange};

/// The shard that a prefix belongs to, the same in every room and in every run.
pub fn shard_of(prefix: &IpNet, shards: u16) -> ShardId {
    if shards <= 1 {
        return ShardId(0);
    }
    let (bits, length) = match prefix {
        IpNet::V4(prefix) => (u128::from(u32::from(prefix.network())), u64::from(prefix.prefix_len())),
        IpNet::V6(prefix) => (u128::from(prefix.network()), 0x100 | u64::from(prefix.prefix_len())),
    };
    let (high, low) = ((bits >> 64) as u64, bits as u64);
    let hash = mix(mix(mix(length) ^ high) ^ low);
    // The upper half times the number of shards: as even as a remainder, without a division.
    ShardId(((hash >> 32).wrapping_mul(u64::from(shards)) >> 32) as u16)
}

/// Finalizer of splitmix64: each bit of the result depends on all bits of the argument.
fn mix(value: u64) -> u64 {
    let a = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let b = (a ^ (a >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let c = (b ^ (b >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    c ^ (c >> 31)
}

/// Prefixes that a batch need not go beyond: about half a millisecond of a shard's work.
const PREFIXES: usize = 1024;

/// The batches of the read under way.
#[derive(Debug)]
pub(super) struct Ingest {
    peer: PeerId,
    /// Prefixes in all batches.
    prefixes: usize,
    batches: Vec<Vec<RouteChange>>,
}

impl Ingest {
    /// For a peer and so many shards.
    pub(super) fn new(peer: PeerId, shards: u16) -> Self {
        Self { peer, prefixes: 0, batches: vec![Vec::new(); usize::from(shards.max(1))] }
    }

    /// Adds an UPDATE: withdrawals first (U9), then what it announces. Link-local next hops are on the session's
    /// interface `link` (N3).
    pub(super) fn update(&mut self, update: Update, link: Option<u32>) {
        for list in update.withdrawn {
            self.each(list, RouteChange::Withdraw);
        }
        for (mut attributes, list) in update.announced {
            if let Some(interface) = link {
                place_next_hop(&mut attributes, interface);
            }
            self.each(list, |list| RouteChange::Announce(attributes.clone(), list));
        }
    }

    /// Adds a mark that concerns the whole table of a family.
    pub(super) fn mark(&mut self, mark: impl Fn(Family) -> RouteChange, family: Family) {
        for batch in &mut self.batches {
            batch.push(mark(family));
        }
    }

    /// Hands the batches over if they are large enough.
    pub(super) fn flush_full(&mut self, out: &mut Outbox<Output>) {
        if self.prefixes >= PREFIXES * self.batches.len() {
            self.flush(out);
        }
    }

    /// Hands the batches over.
    pub(super) fn flush(&mut self, out: &mut Outbox<Output>) {
        self.prefixes = 0;
        for (shard, batch) in (0u16..).zip(&mut self.batches) {
            if !batch.is_empty() {
                let changes = std::mem::take(batch);
                out.push(Output::Routes(ShardId(shard), RouteBatch { peer: self.peer, changes }));
            }
        }
    }

    fn each(&mut self, list: NlriList, change: impl Fn(NlriList) -> RouteChange) {
        if list.is_empty() {
            return;
        }
        self.prefixes += list.len();
        if let [batch] = self.batches.as_mut_slice() {
            batch.push(change(list));
            return;
        }
        let parts = match list {
            NlriList::Ipv4(items) => split(items, self.batches.len(), NlriList::Ipv4),
            NlriList::Ipv6(items) => split(items, self.batches.len(), NlriList::Ipv6),
        };
        for (batch, part) in self.batches.iter_mut().zip(parts) {
            if !part.is_empty() {
                batch.push(change(part));
            }
        }
    }
}

fn split<P: Copy + Into<IpNet>>(items: Vec<Nlri<P>>, shards: usize, list: fn(Vec<Nlri<P>>) -> NlriList) -> Vec<NlriList> {
    let count = u16::try_from(shards).unwrap_or(u16::MAX);
    let mut parts = vec![Vec::new(); shards];
    for item in items {
        let shard = shard_of(&item.prefix.into(), count);
        if let Some(part) = parts.get_mut(usize::from(shard.0)) {
            part.push(item);
        }
    }
    parts.into_iter().map(list).collect()
}

fn place_next_hop(attributes: &mut Arc<Attributes>, index: u32) {
    if matches!(attributes.next_hop, NextHop::Global(_)) {
        return;
    }
    match &mut Arc::make_mut(attributes).next_hop {
        NextHop::GlobalAndLinkLocal { interface, .. } | NextHop::LinkLocal { interface, .. } => *interface = index,
        NextHop::Global(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::PathId;

    fn list(prefixes: impl IntoIterator<Item = u32>) -> NlriList {
        let item = |n: u32| Nlri { prefix: ipnet::Ipv4Net::new_assert(n.into(), 32), path_id: PathId(0) };
        NlriList::Ipv4(prefixes.into_iter().map(item).collect())
    }

    fn batches(ingest: &mut Ingest) -> Vec<(ShardId, Vec<RouteChange>)> {
        let mut out = Outbox::new();
        ingest.flush(&mut out);
        out.drain()
            .map(|output| match output {
                Output::Routes(shard, batch) => (shard, batch.changes),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn one_shard_needs_no_hash_and_many_are_even() {
        let prefixes: Vec<IpNet> = (0..60_000u32).map(|n| IpNet::new((0x0a00_0000 + n).to_be_bytes().into(), 32).unwrap()).collect();
        assert!(prefixes.iter().all(|prefix| shard_of(prefix, 1) == ShardId(0)));
        let mut counts = [0; 3];
        for prefix in &prefixes {
            counts[usize::from(shard_of(prefix, 3).0)] += 1;
        }
        assert!(counts.iter().all(|count| (19_000..21_000).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_read_of_many_prefixes_becomes_several_batches_in_order() {
        let mut ingest = Ingest::new(PeerId(1), 1);
        let mut out = Outbox::new();
        for message in 0..8 {
            ingest.update(Update { withdrawn: vec![list(message * 1000..(message + 1) * 1000)], ..Update::default() }, None);
            ingest.flush_full(&mut out);
        }
        ingest.flush(&mut out);
        let batches: Vec<Vec<RouteChange>> =
            out.drain().map(|output| if let Output::Routes(_, batch) = output { batch.changes } else { vec![] }).collect();
        assert!(batches.iter().all(|batch| batch.len() == 2), "no more than a message beyond what a batch is to hold");
        let told: Vec<RouteChange> = (0..8).map(|message| RouteChange::Withdraw(list(message * 1000..(message + 1) * 1000))).collect();
        assert_eq!(batches.concat(), told);
    }

    #[test]
    fn u9_an_update_keeps_its_order_in_every_shard() {
        let update =
            Update { withdrawn: vec![list(0..50)], announced: vec![(Arc::new(Attributes::default()), list(0..50))], ..Update::default() };
        for shards in [1, 3] {
            let mut ingest = Ingest::new(PeerId(1), shards);
            ingest.update(update.clone(), None);
            ingest.mark(RouteChange::EndOfRib, Family::IPV4_UNICAST);
            let batches = batches(&mut ingest);
            assert_eq!(batches.len(), usize::from(shards));
            let mut seen = 0;
            for (shard, changes) in &batches {
                let [RouteChange::Withdraw(gone), RouteChange::Announce(_, told), RouteChange::EndOfRib(_)] = changes.as_slice() else {
                    panic!("{changes:?}")
                };
                assert_eq!(gone, told);
                assert!(told.iter().all(|item| shard_of(&item.prefix, shards) == *shard));
                seen += told.len();
            }
            assert_eq!(seen, 50);
        }
    }

    #[test]
    fn n3_link_local_next_hops_are_on_the_sessions_interface() {
        let address = "fe80::1".parse().unwrap();
        let attributes = Attributes { next_hop: NextHop::LinkLocal { address, interface: 0 }, ..Attributes::default() };
        let mut ingest = Ingest::new(PeerId(1), 1);
        ingest.update(Update { announced: vec![(Arc::new(attributes), list(0..1))], ..Update::default() }, Some(7));
        let batches = batches(&mut ingest);
        let [RouteChange::Announce(attributes, _)] = batches[0].1.as_slice() else { panic!("{batches:?}") };
        assert_eq!(attributes.next_hop, NextHop::LinkLocal { address, interface: 7 });
    }
}
