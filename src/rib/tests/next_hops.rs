//! Next hops through the shard.

use super::super::testing::*;
use crate::config::Ttl;
use crate::origin::LocalTarget;
use crate::policy::RouteSource;

#[test]
fn n9_the_longest_match_resolves_and_a_default_route_will_do() {
    let mut bench = Bench::new();
    bench.up(1, US);
    bench.announce(1, "192.0.2.0/24", attributes("10.7.0.1", &[]));
    assert_eq!(bench.fib("192.0.2.0/24"), "10.0.0.254");
    bench.kernel_route("10.7.0.0/16", Some("10.0.0.7"), 2, true);
    bench.round();
    assert_eq!(bench.fib("192.0.2.0/24"), "10.0.0.7");
    bench.link(3, "eth1", true);
    bench.address(3, "10.7.0.100/24", true);
    bench.round();
    assert_eq!(bench.fib("192.0.2.0/24"), "10.7.0.1");
    bench.link(3, "eth1", false);
    bench.round();
    assert_eq!(bench.fib("192.0.2.0/24"), "10.0.0.7");
}

#[test]
fn nothing_resolves_without_routes_and_the_kernel_is_told_unreachable() {
    let mut bench = Bench::new();
    bench.kernel_route("0.0.0.0/0", None, 2, false);
    bench.up(1, US);
    bench.announce(1, "192.0.2.0/24", attributes("10.7.0.1", &[]));
    assert_eq!(bench.fib("192.0.2.0/24"), "unreachable");
    bench.up(2, US);
    bench.announce(2, "192.0.2.0/24", attributes("10.0.0.2", &[65009, 65009]));
    assert_eq!(bench.fib("192.0.2.0/24"), "10.0.0.2", "a resolved next hop goes before a better path");
}

#[test]
fn a_change_touches_only_dependants() {
    let mut bench = Bench::new();
    bench.up(1, US);
    for n in 0..50 {
        bench.announce(1, &format!("192.0.{n}.0/24"), attributes("10.7.0.1", &[]));
        bench.announce(1, &format!("198.51.{n}.0/24"), attributes("10.8.0.1", &[]));
    }
    let (changes, decisions) = (bench.fib_changes, bench.shard.decisions());
    bench.kernel_route("10.7.0.0/16", Some("10.0.0.7"), 2, true);
    bench.round();
    assert_eq!((bench.fib_changes - changes, bench.shard.decisions() - decisions), (50, 50));
    bench.kernel_route("10.9.0.0/16", Some("10.0.0.9"), 2, true);
    bench.round();
    assert_eq!(bench.shard.decisions() - decisions, 50);
}

#[test]
fn one_hop_ebgp_needs_a_connected_subnet() {
    let mut bench = Bench::new();
    bench.up_with(1, 65001, |config, _| config.ttl = Ttl::Direct);
    bench.announce(1, "192.0.2.0/24", attributes("10.7.0.1", &[65001]));
    assert_eq!(bench.fib("192.0.2.0/24"), "unreachable");
    bench.announce(1, "192.0.2.0/24", attributes("10.0.0.1", &[65001]));
    assert_eq!(bench.fib("192.0.2.0/24"), "10.0.0.1");
}

#[test]
fn a_static_route_is_there_only_while_its_gateway_is_on_a_link() {
    let mut bench = Bench::new();
    bench.local(RouteSource::Static, "10.5.0.1/32", Some(LocalTarget::Gateway(ip("10.7.0.9"))));
    assert_eq!(bench.fib("10.5.0.1/32"), "none");
    bench.address(2, "10.7.0.100/24", true);
    bench.round();
    assert_eq!(bench.fib("10.5.0.1/32"), "10.7.0.9");
    bench.address(2, "10.7.0.100/24", false);
    bench.round();
    assert_eq!(bench.fib("10.5.0.1/32"), "none");
}

#[test]
fn a_next_hop_is_resolved_by_the_host_route_of_reachable_by_first() {
    let mut bench = Bench::new();
    bench.kernel_route("0.0.0.0/0", Some("10.0.0.254"), 2, true);
    bench.up(1, US);
    bench.announce(1, "192.0.2.0/24", attributes("10.9.0.9", &[]));
    assert_eq!(bench.fib("192.0.2.0/24"), "10.0.0.254");
    bench.local(RouteSource::Static, "10.9.0.9/32", Some(LocalTarget::Gateway(ip("10.7.0.9"))));
    bench.round();
    assert_eq!(bench.fib("192.0.2.0/24"), "10.0.0.254", "its gateway is on no link");
    bench.address(2, "10.7.0.100/24", true);
    bench.round();
    assert_eq!(bench.fib("192.0.2.0/24"), "10.7.0.9");
    bench.local(RouteSource::Static, "10.9.0.9/32", None);
    bench.round();
    assert_eq!(bench.fib("192.0.2.0/24"), "10.0.0.254");
}

#[test]
fn multipath_gives_every_gateway_once() {
    let mut bench = Bench::new();
    for n in 1..=3 {
        bench.up(n, 65000 + n);
        bench.announce(n, "192.0.2.0/24", attributes(&format!("10.0.0.{n}"), &[65000 + n]));
    }
    assert_eq!(bench.fib("192.0.2.0/24"), "10.0.0.1 10.0.0.2 10.0.0.3");
    let rows = bench.loc_rib("192.0.2.0/24");
    assert_eq!(rows.iter().map(|row| (row.best, row.multipath)).collect::<Vec<_>>(), [(true, false), (false, true), (false, true)]);
    bench.down(2, NONE);
    assert_eq!(bench.fib("192.0.2.0/24"), "10.0.0.1 10.0.0.3");
    bench.announce(3, "192.0.2.0/24", attributes("10.0.0.1", &[65003]));
    assert_eq!(bench.fib("192.0.2.0/24"), "10.0.0.1");
}

#[test]
fn n8_a_mapped_address_is_the_ipv4_address() {
    let mut bench = Bench::new();
    bench.up(1, US);
    bench.announce(1, "192.0.2.0/24", attributes("::ffff:10.0.0.1", &[]));
    assert_eq!(bench.fib("192.0.2.0/24"), "10.0.0.1");
}

#[test]
fn a_preference_between_protocols_comes_first() {
    let mut bench = Bench::new();
    bench.up(1, US);
    let device = |gateway: Option<&str>| {
        Some(LocalTarget::Via([crate::fib::KernelHop { gateway: gateway.map(ip), interface: 2, onlink: false }].into_iter().collect()))
    };
    bench.local(RouteSource::Kernel, "10.5.0.0/24", device(Some("10.0.0.9")));
    assert_eq!(bench.fib("10.5.0.0/24"), "10.0.0.9");
    bench.announce(1, "10.5.0.0/24", attributes("10.0.0.1", &[]));
    assert_eq!(bench.fib("10.5.0.0/24"), "10.0.0.1");
    bench.local(RouteSource::Block, "10.5.0.0/24", Some(LocalTarget::Blackhole));
    assert_eq!(bench.fib("10.5.0.0/24"), "blackhole");
    bench.local(RouteSource::Device, "10.5.0.0/24", device(None));
    assert_eq!(bench.fib("10.5.0.0/24"), "dev 2");
    bench.local(RouteSource::Device, "10.5.0.0/24", None);
    bench.local(RouteSource::Block, "10.5.0.0/24", None);
    bench.withdraw(1, "10.5.0.0/24");
    bench.local(RouteSource::Kernel, "10.5.0.0/24", device(Some("10.0.0.8")));
    assert_eq!(bench.fib("10.5.0.0/24"), "10.0.0.8", "the same path with another gateway");
}
