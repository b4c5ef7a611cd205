//! What work costs at most, whoever asks for it and however often; and what does not depend on the way or the time it came.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;

use super::super::testing::*;
use super::super::walk::ROUND;
use super::super::{Input, RibConfig, Shard, Step};
use crate::config::PeerConfig;
use crate::fib::{BestRoute, Target};
use crate::origin::LocalTarget;
use crate::policy::{Match, Policy, RouteSource, Term, Verdict};
use crate::session::RouteChange;
use crate::types::{Attributes, Community, Family, PeerId, PerFamily, RouterId, ShardId};

const TABLE: u32 = 20_000;

fn prefix(n: u32) -> String {
    format!("{}/32", Ipv4Addr::from(0xac10_0000 + n))
}

/// A table of peer 1, and peer 2 to hear of it.
fn full() -> Bench {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    bench.up(2, US);
    let route = Arc::new(attributes("10.0.0.1", &[65001]));
    let prefixes: Vec<_> = (0..TABLE).map(|n| net(&prefix(n))).collect();
    bench.hear(1, vec![RouteChange::Announce(route, items(&prefixes, 0))]);
    bench.round();
    assert_eq!((bench.fib.len() as u32, bench.sent(2).len() as u32), (TABLE, TABLE));
    bench
}

/// Rounds from now to the end of all work, and the most changes that the kernel was told in one of them.
fn settle(bench: &mut Bench) -> (u32, u32) {
    let (mut rounds, mut most) = (0, 0);
    loop {
        let before = bench.fib_changes;
        bench.one_round();
        rounds += 1;
        most = most.max((bench.fib_changes - before) as u32);
        if bench.shard.is_settled() {
            return (rounds, most);
        }
    }
}

/// An import policy that refuses one community.
fn refusing(value: u32) -> PerFamily<Arc<Policy>> {
    let matches = vec![Match::Community(Community(value))];
    let term = Term { name: "no".into(), matches, actions: vec![], verdict: Some(Verdict::Reject) };
    let policy = Arc::new(Policy { terms: vec![term], default: Verdict::Accept });
    PerFamily { ipv4: Arc::clone(&policy), ipv6: policy }
}

/// V15: a policy that changes a hundred times while its walk is under way costs a walk more, not a hundred; and each round is bounded.
#[test]
fn v15_reloads_and_refreshes_are_bounded_walks_that_coalesce() {
    let reload = |bench: &mut Bench, value: u32| {
        let old = facts(1, 65001, |_, _| {}).config;
        let config = Arc::new(PeerConfig { import: refusing(value), ..PeerConfig::clone(&old) });
        bench.say(Input::PeerReload { peer: PeerId(1), config });
    };
    let mut bench = full();
    reload(&mut bench, 1);
    let (once, _) = settle(&mut bench);
    assert!((TABLE / ROUND..=TABLE / ROUND * 2 + 2).contains(&once), "{once} rounds for {TABLE} paths");
    // Again and again, in the middle of a walk.
    for value in 2..100 {
        reload(&mut bench, value);
        if value == 50 {
            bench.one_round();
            bench.one_round();
        }
    }
    let (again, _) = settle(&mut bench);
    assert!(again <= once + 2, "{again} rounds where one change takes {once}");
    assert_eq!((bench.fib.len() as u32, bench.sent(2).len()), (TABLE, 0), "nothing has changed");
    // A refresh tells the table again, a thousand of them tell it twice at most (R4).
    for _ in 0..1000 {
        bench.say(Input::RefreshRequested { peer: PeerId(2), family: Family::IPV4_UNICAST });
    }
    bench.round();
    let told = bench.sent(2).len() as u32;
    assert!((TABLE..=2 * TABLE).contains(&told), "{told} prefixes told");
}

/// Q9, on a smaller scale: a peer that vanishes with its table takes rounds of bounded work, so nobody waits for the end of it.
#[test]
fn q9_a_withdraw_storm_goes_in_bounded_rounds() {
    let mut bench = full();
    bench.up(3, 65003);
    bench.say(Input::PeerDown { peer: PeerId(1), keep: NONE, end: crate::session::SessionEnd::Lost });
    let (rounds, most) = settle(&mut bench);
    assert!(most <= 2 * ROUND, "{most} changes in one round: the FibSyncer hears of two, since members were told in the one before");
    assert!((TABLE / ROUND..=TABLE / ROUND * 2 + 2).contains(&rounds), "{rounds} rounds");
    bench.round();
    assert_eq!((bench.fib.len(), bench.sent(2).len() as u32), (0, TABLE), "each is withdrawn once");
    // What somebody else says in the middle of it is told at once.
    let mut bench = full();
    bench.up(3, 65003);
    bench.say(Input::PeerDown { peer: PeerId(1), keep: NONE, end: crate::session::SessionEnd::Lost });
    bench.one_round();
    bench.hear(3, vec![RouteChange::Announce(Arc::new(attributes("10.0.0.3", &[65003])), items(&[net("192.0.2.0/24")], 0))]);
    bench.one_round();
    bench.one_round();
    assert!(bench.fib("192.0.2.0/24") == "10.0.0.3" && bench.fib.len() > 1, "{} are still there", bench.fib.len());
    assert!(bench.sent(2).contains(&"+192.0.2.0/24".to_owned()));
}

/// D2: what is our own is not a peer's to say, whatever preference it comes with.
#[test]
fn d2_connected_and_local_prefixes_are_not_overridden() {
    let strong = |path: &[u32]| Attributes { local_pref: Some(u32::MAX), ..attributes("10.0.0.1", path) };
    let mut bench = Bench::new();
    bench.up(1, US);
    bench.up(2, 65002);
    for own in ["10.0.0.0/24", "10.0.0.100/32", "127.0.0.1/32", "fd00::/64", "fd00::100/128"] {
        bench.announce(1, own, if own.contains(':') { attributes("fd00::1", &[]) } else { strong(&[]) });
        assert_eq!((bench.fib(own).as_str(), bench.told_of(2, own)), ("none", None), "{own}");
    }
    bench.local(RouteSource::Block, "10.244.1.0/26", Some(LocalTarget::Blackhole));
    bench.announce(1, "10.244.1.0/26", strong(&[]));
    assert_eq!(bench.fib("10.244.1.0/26"), "blackhole");
    let rows = bench.loc_rib("10.244.1.0/26");
    assert!(rows.iter().any(|row| row.lost_at == Some(Step::Preference)), "{rows:?}");
    // A subnet inside ours is somebody else's.
    bench.announce(1, "10.0.0.64/26", strong(&[]));
    assert_eq!(bench.fib("10.0.0.64/26"), "10.0.0.1");
}

/// D3: the older of two equal paths is not preferred (RFC 5004 is off): the result is the same after a restart.
#[test]
fn d3_the_oldest_path_is_not_preferred() {
    for order in [[1, 2], [2, 1]] {
        let mut bench = Bench::new();
        bench.say(Input::Configure(Arc::new(RibConfig {
            router_id: RouterId(Ipv4Addr::new(10, 0, 0, 100)),
            cluster_id: None,
            max_paths: 1,
            protocol: 12,
        })));
        for n in order {
            bench.up(n, 65000 + n);
            bench.announce(n, "192.0.2.0/24", attributes(&format!("10.0.0.{n}"), &[65000 + n]));
        }
        assert_eq!(bench.fib("192.0.2.0/24"), "10.0.0.1", "{order:?}");
        bench.announce(1, "192.0.2.0/24", attributes("10.0.0.1", &[65001]));
        assert_eq!(bench.fib("192.0.2.0/24"), "10.0.0.1", "{order:?}");
    }
}

/// V17: where a prefix or a set of attributes lands is known to nobody outside; what is decided does not depend on it.
#[test]
fn v17_hashes_are_seeded_and_results_are_not() {
    let tables = SEEDS.map(|seed| {
        let config = RibConfig { router_id: RouterId(Ipv4Addr::new(10, 0, 0, 100)), cluster_id: None, max_paths: 16, protocol: 12 };
        let mut bench = Bench::new();
        let fresh = Shard::new(ShardId(0), seed, Arc::new(config));
        bench.restart_as(fresh);
        for n in 1..=3 {
            bench.up(n, 65000 + n);
            let prefixes: Vec<_> = (0..500).map(|i| net(&prefix(i * n))).collect();
            let route = attributes(&format!("10.0.0.{n}"), &[65000 + n]);
            bench.hear(n, vec![RouteChange::Announce(Arc::new(route), items(&prefixes, 0))]);
        }
        bench.round();
        let hops = |route: &BestRoute| match &route.target {
            Target::Via(hops) => hops.iter().map(|hop| hop.gateway).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        bench.fib.iter().map(|(prefix, route)| (*prefix, hops(route))).collect::<Vec<_>>()
    });
    assert_eq!(tables[0], tables[1]);
    let hashes = |seed: u64| {
        let seeded = crate::types::Seeded::new(seed);
        (0..1000).map(|n| seeded.hash(&Ipv4Net::new(Ipv4Addr::from(0x0a00_0000 + n * 256), 24).expect("a prefix")) % 1024).collect()
    };
    let [one, other]: [Vec<u64>; 2] = SEEDS.map(hashes);
    assert_eq!(one, hashes(SEEDS[0]));
    let alike = one.iter().zip(&other).filter(|(one, other)| one == other).count();
    assert!(alike < 20, "{alike} of 1000 prefixes are in the same one of 1024 places with another seed");
    // Prefixes that somebody has chosen because they share a place with one seed are spread out by another.
    let crowd: BTreeSet<u64> = (0..1000).filter(|n| one[*n] % 16 == one[0] % 16).map(|n| other[n] % 16).collect();
    assert!(crowd.len() > 8, "{crowd:?}");
}

const SEEDS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9];
