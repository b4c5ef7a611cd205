//! The log: what it tells, and that compaction changes nothing of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::*;
use crate::types::{Ipv4Unicast, NextHop, RouterId};

const SLACK: usize = 1024;

fn net(n: u32) -> Ipv4Net {
    Ipv4Net::new(Ipv4Addr::from(n << 8), 24).unwrap()
}

fn receiver() -> Receiver {
    Receiver { peer: PeerId(1), address: IpAddr::V4(Ipv4Addr::LOCALHOST), identifier: RouterId(Ipv4Addr::LOCALHOST) }
}

/// A table whose positions are about to wrap.
fn table() -> AdjRibOut<Ipv4Unicast> {
    AdjRibOut { base: u32::MAX - 5, births_since: Position(u32::MAX - 5), ..AdjRibOut::new(false, LogLimits { slack: SLACK, bite: 3 }) }
}

/// One round: (prefix, index, whether it is told); each tells other attributes.
fn round(rib: &mut AdjRibOut<Ipv4Unicast>, passed: Option<Position>, offers: &[(u32, u32, bool)]) {
    let attributes = Arc::new(Attributes { med: Some(rib.end().0), ..Attributes::default() });
    for (n, dest, there) in offers {
        rib.offer(net(*n), *dest, PathId(0), there.then(|| (Sent::from(Arc::clone(&attributes)), None)), passed);
    }
    for Changed { entry, before } in rib.settle() {
        rib.append(entry, before.is_none(), &Excluded::default());
    }
}

/// Prefixes (and whether they are told) of the valid slots from a position on.
fn valid(rib: &AdjRibOut<Ipv4Unicast>, mut position: Position) -> Vec<(Ipv4Net, bool)> {
    let mut found = Vec::new();
    while position != rib.end() {
        found.extend(rib.valid(position).map(|entry| (rib.nlri(entry).prefix, rib.sent(entry).is_some())));
        position = rib.after(position);
    }
    found
}

/// Compacts to the end; answers in how many steps.
fn compact(rib: &mut AdjRibOut<Ipv4Unicast>, keep_from: Position, needed: Bits, cursors: &mut [&mut Position]) -> usize {
    rib.begin_compaction(keep_from, needed);
    let mut steps = 0;
    while rib.is_compacting() {
        rib.compact(cursors);
        steps += 1;
    }
    steps
}

#[test]
fn an_entry_is_small() {
    assert_eq!(size_of::<Entry<Ipv4Net>>(), 24);
    assert_eq!(size_of::<Entry<Ipv6Net>>(), 40);
}

#[test]
fn the_log_tells_each_path_once_in_its_latest_state() {
    let mut rib = table();
    round(&mut rib, None, &[(1, 0, true), (2, 1, true), (3, 2, true)]);
    round(&mut rib, None, &[(1, 0, true), (2, 1, false), (2, 1, true), (2, 1, false)]);
    round(&mut rib, None, &[(4, 3, true), (4, 3, false)]);
    assert_eq!(valid(&rib, rib.start()), [(net(3), true), (net(1), true), (net(2), false)]);
    assert_eq!(rib.live(), 2);
}

#[test]
fn compaction_keeps_what_is_needed_and_translates_cursors() {
    let mut rib = table();
    round(&mut rib, None, &(0..10).map(|n| (n, n, true)).collect::<Vec<_>>());
    let mut after_five = (0..5).fold(rib.start(), |position, _| rib.after(position));
    round(&mut rib, None, &(0..8).map(|n| (n, n, n % 2 == 0)).collect::<Vec<_>>());
    let keep_from = rib.end();
    round(&mut rib, None, &[(8, 8, false)]);
    let left = valid(&rib, after_five);
    let mut needed = Bits::default();
    needed.set(1);
    let (mut start, mut end) = (rib.start(), rib.end());
    assert_eq!(compact(&mut rib, keep_from, needed, &mut [&mut end, &mut after_five, &mut start]), 6, "eighteen slots, three a step");
    assert_eq!(start, rib.start());
    assert_eq!(end, rib.end());
    assert_eq!(valid(&rib, rib.start()).iter().filter(|(_, there)| !there).count(), 2, "a needed tombstone, and one that is recent");
    let kept: Vec<_> = left.into_iter().filter(|(prefix, there)| *there || [net(1), net(8)].contains(prefix)).collect();
    assert_eq!(valid(&rib, after_five), kept);
    assert_eq!(
        rib.known_at(rib.end(), &receiver(), &Census::default()),
        (0..10).filter(|n| n % 2 == 0 && *n != 8).chain([9]).fold(Bits::default(), |mut bits, n| {
            bits.set(n);
            bits
        })
    );
}

#[test]
fn members_that_walk_between_the_steps_of_a_compaction_hear_each_path_in_its_latest_state() {
    let mut rib = table();
    round(&mut rib, None, &(0..40).map(|n| (n, n, true)).collect::<Vec<_>>());
    round(&mut rib, None, &(0..40).filter(|n| n % 4 != 0).map(|n| (n, n, n % 2 == 0)).collect::<Vec<_>>());
    // One has heard this much, and hears a slot or two between two steps; meanwhile paths change.
    for (told, pace) in (0..70).flat_map(|told| (0..4).map(move |pace| (told, pace))) {
        let mut rib = rib.clone();
        let mut cursor = rib.position(told);
        let known = rib.known_at(cursor, &receiver(), &Census::default());
        let mut walk = Walk { heard: (0..40).filter(|n| known.has(*n)).map(|n| (net(n), true)).collect(), latest: BTreeSet::new() };
        walk.latest.extend((0..told).filter_map(|at| rib.valid(rib.position(at))).map(|entry| rib.nlri(entry).prefix));
        let keep_from = rib.end();
        rib.begin_compaction(keep_from, known);
        for change in 0.. {
            (0..pace).for_each(|_| walk.hear(&rib, &mut cursor));
            if !rib.is_compacting() {
                break;
            }
            round(&mut rib, None, &[(change % 40, change % 40, change % 3 == 0)]);
            walk.latest.remove(&net(change % 40));
            rib.compact(&mut [&mut cursor]);
        }
        while cursor != rib.end() {
            walk.hear(&rib, &mut cursor);
        }
        let there = (0..40).filter(|n| rib.at(net(*n), *n).any(|entry| rib.sent(entry).is_some()));
        walk.heard.retain(|_, there| *there);
        assert_eq!(walk.heard, there.map(|n| (net(n), true)).collect(), "told {told}, {pace} slots between steps");
    }
}

/// What a member that walks has heard, and of which paths it is the latest.
struct Walk {
    heard: BTreeMap<Ipv4Net, bool>,
    latest: BTreeSet<Ipv4Net>,
}

impl Walk {
    fn hear(&mut self, rib: &AdjRibOut<Ipv4Unicast>, cursor: &mut Position) {
        if *cursor == rib.end() {
            return;
        }
        if let Some(entry) = rib.valid(*cursor) {
            let prefix = rib.nlri(entry).prefix;
            assert!(self.latest.insert(prefix), "{prefix} is heard again though it has not changed");
            self.heard.insert(prefix, rib.sent(entry).is_some());
        }
        *cursor = rib.after(*cursor);
    }
}

#[test]
fn an_index_used_again_detaches_the_tombstone_that_is_still_needed() {
    let mut rib = table();
    round(&mut rib, None, &[(1, 0, true)]);
    round(&mut rib, None, &[(1, 0, false)]);
    round(&mut rib, None, &[(2, 0, true)]);
    assert_eq!(valid(&rib, rib.start()), [(net(1), false), (net(2), true)]);
    round(&mut rib, None, &[(1, 1, true)]);
    assert_eq!(valid(&rib, rib.start()), [(net(2), true), (net(1), true)], "it came back under another index");
    assert_eq!(rib.entries.len(), 2);
}

#[test]
fn an_index_used_again_takes_over_a_tombstone_that_nobody_needs() {
    let mut rib = table();
    for n in 0..1000 {
        for there in [true, false] {
            let passed = Some(rib.end());
            round(&mut rib, passed, &[(n, 0, there)]);
        }
    }
    assert_eq!(rib.entries.len(), 1);
}

#[test]
fn memory_is_given_back_when_the_table_is_gone() {
    let mut rib = table();
    round(&mut rib, None, &(0..10_000).map(|n| (n, n, true)).collect::<Vec<_>>());
    round(&mut rib, None, &(0..10_000).map(|n| (n, n, false)).collect::<Vec<_>>());
    assert!(rib.wants_compaction(true));
    let end = rib.end();
    compact(&mut rib, end, Bits::default(), &mut []);
    assert_eq!(rib.entries.capacity() + rib.log.capacity() + rib.heads.capacity(), SLACK, "but for the slack of the log");
    round(&mut rib, None, &[(7, 7, true)]);
    assert_eq!(valid(&rib, rib.start()), [(net(7), true)]);
}

#[test]
fn what_a_member_knows_is_what_is_told_but_for_what_is_kept_from_it() {
    let mut rib = table();
    let mut census = Census::default();
    // A third is the member's own; of another third some go by its address.
    let told = |n: u32, here: bool| {
        let next_hop = NextHop::Global(if here && n % 3 == 1 { receiver().address } else { [10, 0, 0, 2].into() });
        (Sent::from(Arc::new(Attributes { next_hop, med: Some(n), ..Attributes::default() })), Some(PeerId(n % 3 + 1)))
    };
    for (first, here) in [(0, false), (30, false), (20, true), (0, true)] {
        for n in first..first + 40 {
            rib.offer(net(n), n, PathId(0), (n % 7 != 0).then(|| told(n, here)), None);
        }
        let receiver = receiver();
        for Changed { entry, before } in rib.settle() {
            let of = |sent: Seen<'_>, source| rib.provenance(sent, source);
            let before = before.map(|(sent, source)| of(sent.as_seen(), source));
            before.iter().for_each(|of| census.add(of, -1));
            if let Some(sent) = rib.sent(entry) {
                census.add(&of(sent, rib.source(entry)), 1);
            }
            rib.append(entry, before.is_none(), &Excluded::default());
        }
        let only_its_own = !here;
        assert_eq!(census.kept_from(&receiver).1, only_its_own);
        let known = rib.known_at(rib.end(), &receiver, &census);
        assert!((0..80).all(|entry| known.has(entry) == rib.told(&receiver).any(|told| told == entry)), "from {first} on");
        assert_eq!((0..80).filter(|entry| known.has(*entry)).count(), rib.live() - census.excluded(&receiver));
    }
}
