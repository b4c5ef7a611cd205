//! Restarts, ours and the peers', walks and memory.

use std::time::Duration;

use super::super::testing::*;
use super::super::{Input, Query, Step};
use crate::origin::LocalTarget;
use crate::policy::RouteSource;
use crate::session::{RouteChange, SessionFacts};
use crate::types::{Attributes, Community, Family, PeerId};

#[test]
fn our_restart_holds_back_what_peers_said_and_end_of_rib() {
    let mut bench = Bench::restarting();
    bench.up(1, 65001);
    bench.up(2, US);
    bench.announce(1, "192.0.2.0/24", attributes("10.0.0.1", &[65001]));
    bench.local(RouteSource::Block, "10.244.1.0/26", Some(LocalTarget::Blackhole));
    assert_eq!(bench.fib("192.0.2.0/24"), "10.0.0.1", "the kernel hears of it at once");
    assert_eq!(bench.sent(2), ["+10.244.1.0/26"]);
    assert!(bench.explain("192.0.2.0/24").1[1].because.contains("restart"));
    bench.local_synced();
    bench.round();
    assert!(bench.ended.values().all(Vec::is_empty));
    bench.say(Input::RecoveryDone);
    bench.round();
    assert_eq!((bench.sent(2), bench.ended[&PeerId(2)].as_slice()), (vec!["+192.0.2.0/24".to_owned()], &Family::ALL[..]));
}

#[test]
fn g3_end_of_rib_waits_for_our_own_routes() {
    let mut bench = Bench::restarting();
    bench.say(Input::RecoveryDone);
    bench.up(1, 65001);
    assert!(bench.ended.values().all(Vec::is_empty));
    bench.local(RouteSource::Block, "10.244.1.0/26", Some(LocalTarget::Blackhole));
    bench.local_synced();
    bench.round();
    assert_eq!((bench.sent(1), bench.ended[&PeerId(1)].as_slice()), (vec!["+10.244.1.0/26".to_owned()], &Family::ALL[..]));
}

#[test]
fn a_second_loss_keeps_what_was_stale_unless_the_session_sweeps_it() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    for prefix in ["192.0.2.0/24", "198.51.100.0/24"] {
        bench.announce(1, prefix, attributes("10.0.0.1", &[65001]));
    }
    bench.down(1, BOTH);
    bench.up(1, 65001);
    bench.announce(1, "192.0.2.0/24", attributes("10.0.0.1", &[65001]));
    bench.down(1, BOTH);
    let fib = |bench: &mut Bench| ["192.0.2.0/24", "198.51.100.0/24"].map(|prefix| bench.fib(prefix));
    assert_eq!(fib(&mut bench), ["10.0.0.1", "10.0.0.1"]);
    assert!(bench.loc_rib("192.0.2.0/24")[0].stale && bench.loc_rib("198.51.100.0/24")[0].stale);
    bench.up(1, 65001);
    bench.announce(1, "192.0.2.0/24", attributes("10.0.0.1", &[65001]));
    bench.say(Input::SweepStale { peer: PeerId(1), family: Family::IPV4_UNICAST });
    bench.down(1, BOTH);
    assert_eq!(fib(&mut bench), ["10.0.0.1", "none"]);
}

/// RFC 9494: the last choice, told to those who understand it and withdrawn from the others; NO_LLGR goes; told again it is itself again.
#[test]
fn llgr_stale_paths_are_the_last_choice_and_go_only_to_peers_that_understand() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    bench.up(2, 65002);
    bench.say(Input::PeerUp(std::sync::Arc::new(SessionFacts { long_lived: true, ..facts(3, US, |_, _| {}) })));
    bench.up(4, US);
    let route = |asn| attributes("10.0.0.1", &[asn]);
    bench.announce(1, "192.0.2.0/24", route(65001));
    bench.announce(2, "192.0.2.0/24", attributes("10.0.0.2", &[65002, 65002]));
    bench.announce(1, "198.51.100.0/24", route(65001));
    let mut impatient = route(65001);
    impatient.communities = [Community::NO_LLGR].into();
    bench.announce(1, "203.0.113.0/24", impatient);
    bench.down(1, BOTH);
    assert_eq!(bench.fib("192.0.2.0/24"), "10.0.0.1", "stale paths compete as if fresh (D1)");
    bench.say(Input::LongLived { peer: PeerId(1), family: Family::IPV4_UNICAST });
    bench.round();
    assert_eq!(bench.fib("192.0.2.0/24"), "10.0.0.2");
    assert!(bench.loc_rib("192.0.2.0/24").iter().any(|row| row.lost_at == Some(Step::LongLivedStale)));
    assert_eq!(["198.51.100.0/24", "203.0.113.0/24"].map(|prefix| bench.fib(prefix)), ["10.0.0.1", "none"]);
    let told = bench.told_of(3, "198.51.100.0/24").expect("it understands");
    assert!(told.has_community(Community::LLGR_STALE));
    assert_eq!(bench.told_of(4, "198.51.100.0/24"), None, "it sent no capability 71");
    bench.up(1, 65001);
    bench.announce(1, "192.0.2.0/24", route(65001));
    assert_eq!(bench.fib("192.0.2.0/24"), "10.0.0.1");
    bench.say(Input::SweepStale { peer: PeerId(1), family: Family::IPV4_UNICAST });
    bench.round();
    assert_eq!(bench.fib("198.51.100.0/24"), "none");
    assert!(!bench.told_of(3, "192.0.2.0/24").expect("it is the best").has_community(Community::LLGR_STALE));
}

#[test]
fn a_family_that_is_not_kept_goes_and_what_comes_again_meanwhile_stays() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    for n in 0..3000 {
        bench.hear(1, vec![announce(n)]);
    }
    bench.announce(1, "2001:db8::/32", attributes("fd00::1", &[65001]));
    bench.say(Input::PeerDown {
        peer: PeerId(1),
        keep: crate::types::PerFamily { ipv4: false, ipv6: true },
        end: crate::session::SessionEnd::Lost,
    });
    bench.one_round();
    assert!(bench.fib.len() > 500, "in steps");
    bench.up(1, 65001);
    bench.announce(1, "2001:db8::/32", attributes("fd00::1", &[65001]));
    assert_eq!(bench.fib.len(), 1);
    bench.down(1, crate::types::PerFamily { ipv4: false, ipv6: true });
    bench.say(Input::PeerUp(std::sync::Arc::new(facts(1, 65001, |_, _| {}))));
    bench.hear(1, vec![announce(7)]);
    bench.round();
    assert_eq!(bench.fib.len(), 2);
}

fn announce(n: u32) -> RouteChange {
    let prefix = format!("172.16.{}.{}/32", n / 256, n % 256);
    RouteChange::Announce(std::sync::Arc::new(attributes("10.0.0.1", &[65001])), items(&[net(&prefix)], 0))
}

#[test]
fn a_late_joiner_is_told_everything_and_then_end_of_rib() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    for n in 0..3000 {
        bench.hear(1, vec![announce(n)]);
    }
    bench.round();
    bench.say(Input::PeerUp(std::sync::Arc::new(facts(2, US, |_, _| {}))));
    bench.one_round();
    let ended = |bench: &Bench| bench.ended.get(&PeerId(2)).cloned().unwrap_or_default();
    assert!(!ended(&bench).contains(&Family::IPV4_UNICAST), "the walk is not over");
    bench.round();
    assert_eq!(ended(&bench), [Family::IPV6_UNICAST, Family::IPV4_UNICAST]);
    assert_eq!(bench.counts[&PeerId(2)].ipv4.advertised, 3000);
    assert_eq!(bench.told(2).len(), 3000);
}

#[test]
fn a_peer_that_has_gone_leaves_nothing() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    for n in 0..1000 {
        let mut route = attributes("10.0.0.1", &[65001]);
        route.communities = [Community(n)].into();
        bench.announce(1, &format!("172.16.{}.{}/32", n / 256, n % 256), route);
    }
    assert!(bench.shard.stats().attribute_sets >= 1000);
    bench.down(1, NONE);
    bench.now += Duration::from_secs(2);
    bench.round();
    let stats = bench.shard.stats();
    assert_eq!((stats.attribute_sets, stats.ipv4, stats.groups, bench.fib.len()), (0, 0, 0, 0));
}

#[test]
fn queries_come_in_steps_and_filter() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    for n in 0..2500 {
        bench.hear(1, vec![announce(n)]);
    }
    bench.announce(1, "2001:db8::/32", attributes("fd00::1", &[65001]));
    let all = Query::Routes { prefix: None, longer: false, family: None, received: None, advertised: None };
    assert_eq!(bench.routes(all).len(), 2501);
    let v6 = Query::Routes { prefix: None, longer: false, family: Some(Family::IPV6_UNICAST), received: None, advertised: None };
    assert_eq!(bench.routes(v6).len(), 1);
    let inside = Query::Routes { prefix: Some(net("172.16.1.0/24")), longer: true, family: None, received: None, advertised: None };
    assert_eq!(bench.routes(inside).len(), 256);
}

#[test]
fn r1_a_refresh_tells_the_table_again() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    bench.up(2, 65002);
    bench.announce(1, "192.0.2.0/24", attributes("10.0.0.1", &[65001]));
    bench.sent(2);
    bench.say(Input::RefreshRequested { peer: PeerId(2), family: Family::IPV4_UNICAST });
    bench.round();
    assert_eq!(bench.sent(2), ["+192.0.2.0/24"]);
    assert_eq!(bench.ended[&PeerId(2)].last(), Some(&Family::IPV4_UNICAST));
}

#[test]
fn a_pull_stays_open_until_there_is_something() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    bench.up(2, 65002);
    bench.announce(1, "192.0.2.0/24", Attributes::clone(&attributes("10.0.0.1", &[65001])));
    assert_eq!(bench.sent(2).len(), 1);
    bench.hear(1, vec![announce(1)]);
    let mut out = crate::types::Outbox::new();
    bench.shard.finish_round(bench.now, &mut out);
    let kinds: Vec<_> = out.as_slice().iter().map(std::mem::discriminant).collect();
    assert!(!kinds.is_empty(), "the pull of the round before is answered");
}
