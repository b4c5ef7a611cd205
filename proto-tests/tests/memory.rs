//! Octets and allocations of a shard, counted by the allocator. They are the same in every run on every machine of 64 bits, so they
//! can be bounded closely: a field more in a row of the table shows here.
//!
//! Tables are a tenth of the internet's, eight prefixes to an attribute set; a million prefixes takes as much a prefix:
//! `MARGAY_MEMORY_PREFIXES=1000000 cargo test -p proto-tests --test memory -- --nocapture`.

use std::alloc::System;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use margay::rib::Octets;
use proto_tests::shard::{Announced, Bench};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The allocator counts for the whole program: one test at a time.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A count of octets in use, and of allocations so far.
#[derive(Clone, Copy, Debug)]
struct Count {
    octets: i64,
    allocations: i64,
}

impl Count {
    fn now() -> Self {
        let stats = ALLOCATOR.stats();
        Self {
            octets: stats.bytes_allocated as i64 - stats.bytes_deallocated as i64,
            allocations: (stats.allocations + stats.reallocations) as i64,
        }
    }

    /// Octets that are in use now and were not then, and allocations since.
    fn since(self) -> Self {
        let now = Self::now();
        Self { octets: now.octets - self.octets, allocations: now.allocations - self.allocations }
    }
}

fn prefixes() -> usize {
    std::env::var("MARGAY_MEMORY_PREFIXES").ok().and_then(|count| count.parse().ok()).unwrap_or(100_000)
}

/// What the tables take is not the shard's: sets are made anew for it, as a session would.
fn fresh(peer: u32, count: usize) -> Announced {
    Announced::new(peer, count)
}

#[test]
fn q1_a_prefix_of_one_peer_and_one_listener() {
    let _turn = turn();
    let count = prefixes();
    let mut bench = Bench::new(1, 1);
    let start = Count::now();
    {
        let table = fresh(1, count);
        let given = Count::now();
        bench.announce(1, &table);
        let took = given.since();
        println!("{count} prefixes: {:.2} allocations a prefix", took.allocations as f64 / count as f64);
        assert!(took.allocations < 2 * count as i64, "{took:?}");
    }
    bench.rest(Duration::from_secs(60));
    // The tables' own lists are gone with them, the sets that the shard has taken over are not.
    let held = start.since();
    let each = held.octets / count as i64;
    println!("{count} prefixes in {} sets: {each} octets a prefix, its share of an attribute set included", bench.stats().attribute_sets);
    assert_eq!((bench.stats().ipv4, bench.fib_changes), (count, count));
    assert!(each < PREFIX, "{each} octets a prefix");
    assert_told(&bench, held);
}

/// What the shard says of its memory is what the allocator counts, but for a tenth.
#[track_caller]
fn assert_told(bench: &Bench, held: Count) {
    let Octets { destinations, attributes, advertised } = bench.octets_reserved();
    let told = (destinations + attributes + advertised) as i64;
    println!("the shard says {told} octets, the allocator {}", held.octets);
    assert!((held.octets - told).abs() < held.octets / 10, "{told} octets said, {} held", held.octets);
}

/// Octets of a prefix with one path told to one group, an eighth of an attribute set included: what is sent is not held beside it.
const PREFIX: i64 = 166;

#[test]
fn nine_more_paths_of_the_same_prefixes() {
    let _turn = turn();
    let count = prefixes() / 10;
    let mut bench = Bench::new(10, 1);
    let begin = Count::now();
    bench.announce(1, &fresh(1, count));
    bench.rest(Duration::from_secs(60));
    let start = Count::now();
    for peer in 2..=10 {
        bench.announce(peer, &fresh(peer, count));
    }
    bench.rest(Duration::from_secs(60));
    let each = start.since().octets / (9 * count as i64);
    println!("{count} prefixes of nine more peers: {each} octets a path, its share of an attribute set included");
    assert_eq!(bench.stats().ipv4, count);
    assert!(each < PATH, "{each} octets a path");
    assert_told(&bench, begin.since());
}

/// Octets of one more path for a prefix that is there, an eighth of an attribute set included.
const PATH: i64 = 68;

#[test]
fn q1_five_hundred_peers_of_one_group_cost_a_cursor_each() {
    let _turn = turn();
    // All of it is told to each of them: that takes its time.
    let count = prefixes() / 50;
    let mut bench = Bench::new(1, 1);
    bench.announce(1, &fresh(1, count));
    bench.rest(Duration::from_secs(60));
    let told = bench.octets;
    let start = Count::now();
    for peer in 1002..=1500 {
        bench.listen(peer);
    }
    bench.rest(Duration::from_secs(60));
    assert_eq!(bench.stats().groups, 1);
    assert!(bench.octets >= 499 * told / 2, "each has been told the table: {} octets, the first {told}", bench.octets);
    let each = start.since().octets / 499;
    println!("{count} prefixes told to 499 more peers: {each} octets a peer");
    assert!(each < PEER, "{each} octets a peer");
}

/// Octets of one more peer of a group, whatever the table: its configuration, which is given with it, and its cursor.
const PEER: i64 = 4096;

#[test]
fn memory_comes_back_after_everything_is_withdrawn() {
    let _turn = turn();
    let count = prefixes();
    let mut bench = Bench::new(1, 1);
    bench.read(1);
    let start = Count::now();
    {
        let table = fresh(1, count);
        bench.announce(1, &table);
        bench.rest(Duration::from_secs(60));
        bench.withdraw(1, &table);
    }
    bench.rest(Duration::from_secs(120));
    let left = start.since().octets;
    println!("{count} prefixes announced and withdrawn: {left} octets are left, {:?}", bench.octets_reserved());
    let stats = bench.stats();
    assert_eq!((stats.ipv4, stats.attribute_sets), (0, 0));
    assert!(left < KEPT + count as i64 / 10, "{left} octets are left");
}

/// Octets that stay as room for the next table, whatever its size.
const KEPT: i64 = 64 << 10;
