//! What is let in.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::super::testing::*;
use super::super::{Query, Step};
use crate::policy::{Action, Match, Policy, Term, Verdict};
use crate::session::RouteChange;
use crate::types::{Attributes, ClusterId, Community, Family, NextHop, PathId, PeerId, PerFamily, RareAttributes, RouterId};

fn received(bench: &mut Bench, n: u32) -> Vec<super::super::RouteRow> {
    bench.routes(Query::Routes { prefix: None, longer: false, family: None, received: Some(PeerId(n)), advertised: None })
}

#[test]
fn faults_keep_a_path_out_and_visible() {
    let ours = RouterId(Ipv4Addr::new(10, 0, 0, 100));
    let looped = attributes("10.0.0.1", &[65001, US]);
    let with = |rare: RareAttributes| Attributes { rare: rare.into(), ..attributes("10.0.0.1", &[65001]) };
    let cases: [(&str, Attributes, &str); 11] = [
        ("192.0.2.0/24", looped, "our AS is in its AS_PATH"),
        ("192.0.2.0/24", with(RareAttributes { originator_id: Some(ours), ..RareAttributes::default() }), "ORIGINATOR_ID"),
        ("192.0.2.0/24", with(RareAttributes { cluster_list: [ClusterId(ours.0)].into(), ..RareAttributes::default() }), "CLUSTER_LIST"),
        ("127.0.0.0/8", attributes("10.0.0.1", &[65001]), "martian"),
        ("ff00::/8", attributes("fd00::1", &[65001]), "martian"),
        ("10.0.0.100/32", attributes("10.0.0.1", &[65001]), "address or connected subnet of this node"),
        ("10.0.0.0/24", attributes("10.0.0.1", &[65001]), "address or connected subnet of this node"),
        ("192.0.2.0/24", attributes("10.0.0.100", &[65001]), "next hop 10.0.0.100 is an address of this node"),
        ("2001:db8::/32", attributes("::", &[65001]), "next hop is unspecified"),
        ("2001:db8::/32", attributes("ff02::1", &[65001]), "next hop is unspecified, loopback or multicast"),
        ("2001:db8::/32", attributes("::ffff:127.0.0.1", &[65001]), "next hop is unspecified, loopback"),
    ];
    for (prefix, attributes, why) in cases {
        let mut bench = Bench::new();
        bench.up(1, 65001);
        bench.up(2, 65002);
        bench.announce(1, prefix, attributes.clone());
        assert_eq!((bench.fib(prefix).as_str(), bench.told(2).len()), ("none", 0), "{why}");
        let rows = received(&mut bench, 1);
        assert_eq!((rows.len(), rows[0].valid, rows[0].lost_at), (1, false, Some(Step::Eligible)), "{why}");
        assert!(rows[0].rejected_by.as_ref().unwrap().contains(why), "{:?}", rows[0].rejected_by);
        assert_eq!(*rows[0].attributes, attributes);
    }
}

#[test]
fn a_looped_path_replaces_the_good_one() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    bench.announce(1, "192.0.2.0/24", attributes("10.0.0.1", &[65001]));
    bench.announce(1, "192.0.2.0/24", attributes("10.0.0.1", &[65001, US]));
    assert_eq!(bench.fib("192.0.2.0/24"), "none");
    let counts = bench.counts[&PeerId(1)].ipv4;
    assert_eq!((counts.received, counts.accepted), (1, 0));
}

#[test]
fn e8_our_as_may_occur_as_often_as_configured() {
    let mut bench = Bench::new();
    bench.up_with(1, 65001, |config, _| config.allow_local_as = 1);
    bench.announce(1, "192.0.2.0/24", attributes("10.0.0.1", &[65001, US]));
    bench.announce(1, "198.51.100.0/24", attributes("10.0.0.1", &[65001, US, US]));
    assert_eq!((bench.fib("192.0.2.0/24").as_str(), bench.fib("198.51.100.0/24").as_str()), ("10.0.0.1", "none"));
}

#[test]
fn m2_addresses_for_ipvs_are_not_our_own() {
    let mut bench = Bench::new();
    bench.link(7, "kube-ipvs0", false);
    bench.address(7, "10.96.0.20/32", true);
    bench.up(1, US);
    bench.announce(1, "10.96.0.20/32", attributes("10.0.0.1", &[]));
    assert_eq!(bench.fib("10.96.0.20/32"), "10.0.0.1");
}

#[test]
fn m2_follows_the_addresses() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    bench.announce(1, "10.9.0.1/32", attributes("10.0.0.1", &[65001]));
    assert_eq!(bench.fib("10.9.0.1/32"), "10.0.0.1");
    bench.address(2, "10.9.0.1/32", true);
    bench.round();
    assert_eq!(bench.fib("10.9.0.1/32"), "none");
    bench.address(2, "10.9.0.1/32", false);
    bench.round();
    assert_eq!(bench.fib("10.9.0.1/32"), "10.0.0.1");
}

#[test]
fn local_pref_from_another_as_does_not_count() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    bench.up(2, US);
    bench.announce(1, "192.0.2.0/24", Attributes { local_pref: Some(900), ..attributes("10.0.0.1", &[65001]) });
    assert_eq!(bench.loc_rib("192.0.2.0/24")[0].attributes.local_pref, Some(100));
    assert_eq!(bench.told_of(2, "192.0.2.0/24").unwrap().local_pref, Some(100));
    assert_eq!(bench.fib[&net("192.0.2.0/24")].local_pref, Some(100));
}

#[test]
fn e7_graceful_shutdown_from_another_as_is_the_last_choice() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    bench.up(2, 65002);
    let leaving = Attributes { communities: [Community::GRACEFUL_SHUTDOWN].into(), ..attributes("10.0.0.1", &[65001]) };
    bench.announce(1, "192.0.2.0/24", leaving);
    bench.announce(2, "192.0.2.0/24", attributes("10.0.0.2", &[65002, 65002, 65002]));
    assert_eq!(bench.fib("192.0.2.0/24"), "10.0.0.2");
}

fn refuse(communities: &[u32]) -> PerFamily<Arc<Policy>> {
    let term = |value: &u32| Term {
        name: format!("no {value}").into(),
        matches: vec![Match::Community(Community(*value))],
        actions: vec![],
        verdict: Some(Verdict::Reject),
    };
    let policy = Arc::new(Policy { terms: communities.iter().map(term).collect(), default: Verdict::Accept });
    PerFamily { ipv4: Arc::clone(&policy), ipv6: policy }
}

#[test]
fn r5_policy_refuses_and_a_new_policy_is_applied_to_what_was_kept() {
    let mut bench = Bench::new();
    bench.up_with(1, 65001, |config, _| config.import = refuse(&[7]));
    for (prefix, value) in [("192.0.2.0/24", 7), ("198.51.100.0/24", 8)] {
        bench.announce(1, prefix, Attributes { communities: [Community(value)].into(), ..attributes("10.0.0.1", &[65001]) });
    }
    assert_eq!((bench.fib("192.0.2.0/24").as_str(), bench.fib("198.51.100.0/24").as_str()), ("none", "10.0.0.1"));
    assert_eq!(received(&mut bench, 1)[0].rejected_by.as_deref(), Some("no 7"));
    let config = facts(1, 65001, |config, _| config.import = refuse(&[8])).config;
    bench.say(super::super::Input::PeerReload { peer: PeerId(1), config });
    bench.round();
    assert_eq!((bench.fib("192.0.2.0/24").as_str(), bench.fib("198.51.100.0/24").as_str()), ("10.0.0.1", "none"));
    assert_eq!(bench.counts[&PeerId(1)].ipv4.accepted, 1);
}

#[test]
fn g9_a_reload_does_not_make_stale_paths_fresh() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    bench.announce(1, "192.0.2.0/24", attributes("10.0.0.1", &[65001]));
    bench.down(1, BOTH);
    let config = facts(1, 65001, |config, _| config.import = refuse(&[8])).config;
    bench.say(super::super::Input::PeerReload { peer: PeerId(1), config });
    bench.round();
    assert!(bench.loc_rib("192.0.2.0/24")[0].stale);
    bench.say(super::super::Input::SweepStale { peer: PeerId(1), family: Family::IPV4_UNICAST });
    bench.round();
    assert_eq!(bench.fib("192.0.2.0/24"), "none");
}

#[test]
fn both_attribute_sets_are_kept_where_policy_changes_them() {
    let mut bench = Bench::new();
    let mark = Term { name: "mark".into(), matches: vec![], actions: vec![Action::AddCommunity(Community(5))], verdict: None };
    let policy = Arc::new(Policy { terms: vec![mark], default: Verdict::Accept });
    bench.up_with(1, US, |config, _| config.import.ipv4 = policy);
    bench.announce(1, "192.0.2.0/24", attributes("10.0.0.1", &[]));
    assert_eq!(&*bench.loc_rib("192.0.2.0/24")[0].attributes.communities, [Community(5)]);
    assert!(received(&mut bench, 1)[0].attributes.communities.is_empty());
}

#[test]
fn x2_x3_path_ids_are_part_of_a_paths_name_and_bounded() {
    let mut bench = Bench::new();
    bench.up(1, US);
    for id in 1..=70 {
        bench.announce_path(1, "192.0.2.0/24", id, attributes("10.0.0.1", &[]));
    }
    assert_eq!(bench.counts[&PeerId(1)].ipv4.received, 64);
    bench.announce_path(1, "192.0.2.0/24", 64, attributes("10.0.0.2", &[65009]));
    assert_eq!(bench.counts[&PeerId(1)].ipv4.received, 64, "a known one is replaced");
    bench.withdraw_path(1, "192.0.2.0/24", 99);
    for id in 1..=63 {
        bench.withdraw_path(1, "192.0.2.0/24", id);
    }
    assert_eq!(bench.fib("192.0.2.0/24"), "10.0.0.2");
    assert_eq!(bench.loc_rib("192.0.2.0/24")[0].path_id, PathId(64));
}

#[test]
fn r3_refresh_sweeps_what_is_not_told_again() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    for prefix in ["192.0.2.0/24", "198.51.100.0/24"] {
        bench.announce(1, prefix, attributes("10.0.0.1", &[65001]));
    }
    bench.hear(1, vec![RouteChange::RefreshEnd(Family::IPV4_UNICAST)]);
    bench.round();
    assert_eq!(bench.fib("198.51.100.0/24"), "10.0.0.1", "EoRR without BoRR");
    bench.hear(1, vec![RouteChange::RefreshBegin(Family::IPV4_UNICAST)]);
    bench.announce(1, "192.0.2.0/24", attributes("10.0.0.1", &[65001]));
    assert_eq!(bench.fib("198.51.100.0/24"), "10.0.0.1");
    bench.hear(1, vec![RouteChange::RefreshEnd(Family::IPV4_UNICAST)]);
    bench.round();
    assert_eq!((bench.fib("192.0.2.0/24").as_str(), bench.fib("198.51.100.0/24").as_str()), ("10.0.0.1", "none"));
}

#[test]
fn words_of_a_peer_that_is_not_up_are_ignored() {
    let mut bench = Bench::new();
    bench.announce(1, "192.0.2.0/24", attributes("10.0.0.1", &[65001]));
    assert_eq!(bench.fib("192.0.2.0/24"), "none");
}

#[test]
fn n3_a_link_local_next_hop_is_on_the_link_of_the_session() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    let next_hop = NextHop::LinkLocal { address: "fe80::1".parse().unwrap(), interface: 2 };
    bench.announce(1, "2001:db8::/32", Attributes { next_hop, ..attributes("fd00::1", &[65001]) });
    assert_eq!(bench.fib("2001:db8::/32"), "fe80::1");
    bench.link(2, "eth0", false);
    bench.round();
    assert_eq!(bench.fib("2001:db8::/32"), "unreachable");
}
