//! The Origin machine from outside: what it learns, and that the way to a state does not matter.
#![expect(clippy::disallowed_methods, reason = "some instant to hand over; nothing depends on it")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use smallvec::SmallVec;

use super::*;
use crate::fib::{InterfaceAddress, Link, RouteType};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn link(index: u32, name: &str, up: bool) -> Input {
    Input::Kernel(KernelEvent::Link(Sync::Upsert(index, Link { name: name.into(), up })))
}

fn address(interface: u32, address: &str) -> Input {
    Input::Kernel(KernelEvent::Address(Sync::Upsert((interface, net(address)), InterfaceAddress { global: true, secondary: false })))
}

fn hop(interface: u32, gateway: Option<&str>) -> KernelHop {
    KernelHop { gateway: gateway.map(ip), interface, onlink: false }
}

fn unicast(prefix: &str, metric: u32, hops: &[KernelHop]) -> KernelRoute {
    KernelRoute {
        key: RouteKey { table: 254, prefix: net(prefix), metric, tos: 0 },
        protocol: 3,
        kind: RouteType::Unicast,
        scope: 253,
        hops: SmallVec::from_slice(hops),
        preferred_source: None,
        object: None,
    }
}

fn route(route: KernelRoute) -> Input {
    Input::Kernel(KernelEvent::Route(Sync::Upsert(route.key, route)))
}

fn workload(prefix: &str) -> Input {
    route(unicast(prefix, 1024, &[hop(7, None)]))
}

fn begin() -> [Input; 3] {
    [KernelEvent::Link(Sync::Begin), KernelEvent::Address(Sync::Begin), KernelEvent::Route(Sync::Begin)].map(Input::Kernel)
}

fn end() -> [Input; 3] {
    [KernelEvent::Link(Sync::End), KernelEvent::Address(Sync::End), KernelEvent::Route(Sync::End)].map(Input::Kernel)
}

fn config() -> OriginConfig {
    OriginConfig {
        blocks: ["10.244.1.0/26", "10.244.9.9/32", "fd00:10::/122"].map(net).into(),
        services: vec![net("10.96.0.0/12"), net("198.51.100.7/32")],
        static_routes: vec![(net("192.0.2.1/32"), ip("10.0.0.254"))],
        ignored_interfaces: ["cali*", "kube-ipvs*"].map(String::from).into(),
        ..OriginConfig::default()
    }
}

fn configure(config: OriginConfig) -> Input {
    Input::Configure(Arc::new(config))
}

/// A machine, and a shard's table that follows it.
struct Harness {
    origin: Origin,
    table: BTreeMap<LocalKey, LocalRoute>,
    words: usize,
    ended: usize,
}

impl Harness {
    fn new() -> Self {
        Self { origin: Origin::new(), table: BTreeMap::new(), words: 0, ended: 0 }
    }

    fn hear(&mut self, input: Input) -> &mut Self {
        let mut out = Outbox::new();
        self.origin.handle(Instant::now(), input, &mut out);
        for Output::Local(word) in out.drain() {
            self.words += 1;
            match word {
                Sync::Begin => assert_eq!(self.words, 1, "the first word, and no other, is Begin"),
                Sync::Upsert(key, route) => assert_ne!(self.table.insert(key, route.clone()), Some(route), "only real changes are said"),
                Sync::Remove(key) => assert!(self.table.remove(&key).is_some(), "only what was said is removed"),
                Sync::End => self.ended += 1,
            }
        }
        self
    }

    fn hear_all(&mut self, inputs: impl IntoIterator<Item = Input>) -> &mut Self {
        for input in inputs {
            self.hear(input);
        }
        self
    }

    fn of(&self, source: RouteSource) -> Vec<String> {
        self.table.keys().filter(|key| key.source == source).map(|key| key.prefix.to_string()).collect()
    }
}

/// Two interfaces and the configuration, all in sync.
fn running() -> Harness {
    let mut harness = Harness::new();
    harness.hear_all(begin()).hear_all([configure(config()), link(2, "eth0", true), link(7, "cali7", true)]);
    harness.hear_all([address(2, "10.0.0.1/24"), address(2, "fd00::1/64")]).hear_all(end());
    harness
}

/// calico#11523: a workload is announced when its route is in the kernel, and not from what a datastore says of it; and nobody is told that
/// the table is whole before the kernel has been heard to the end.
#[test]
fn g3_wish_20_calico_11523_end_is_said_once_when_everything_is_in_sync() {
    let mut harness = Harness::new();
    harness.hear(configure(config())).hear_all(begin()).hear(link(2, "eth0", true));
    let [links, addresses, routes] = end();
    harness.hear(addresses.clone()).hear(routes.clone());
    assert_eq!(harness.ended, 0);
    harness.hear(links);
    assert_eq!(harness.ended, 1);
    harness.hear_all(begin()).hear(addresses).hear(routes).hear(configure(config()));
    assert_eq!(harness.ended, 1);

    let mut late = Harness::new();
    late.hear_all(begin()).hear_all(end());
    assert_eq!(late.ended, 0, "not without configuration");
    late.hear(configure(config()));
    assert_eq!(late.ended, 1);
}

#[test]
fn what_the_configuration_asks_for() {
    let mut harness = running();
    assert_eq!(harness.of(RouteSource::Block), ["10.244.1.0/26", "fd00:10::/122"], "a /32 block has no blackhole");
    assert_eq!(harness.of(RouteSource::Service), ["10.96.0.0/12", "198.51.100.7/32"]);
    assert_eq!(harness.of(RouteSource::Static), ["192.0.2.1/32"]);
    let key = LocalKey { source: RouteSource::Static, prefix: net("192.0.2.1/32") };
    assert_eq!(harness.table[&key], LocalRoute { target: LocalTarget::Gateway(ip("10.0.0.254")), metric: None });

    harness.hear(configure(OriginConfig { blocks: vec![net("10.244.2.0/26")], ..OriginConfig::default() }));
    assert_eq!(harness.of(RouteSource::Block), ["10.244.2.0/26"]);
    assert!(harness.of(RouteSource::Service).is_empty() && harness.of(RouteSource::Static).is_empty());
}

#[test]
fn workloads_ending_in_0_and_255_are_learned() {
    let mut harness = running();
    let prefixes = ["10.244.1.0/32", "10.244.1.5/32", "10.244.1.255/32", "fd00:10::/128", "fd00:10::ff/128"];
    harness.hear_all(prefixes.map(workload));
    assert_eq!(harness.of(RouteSource::Kernel), prefixes);
    let key = LocalKey { source: RouteSource::Kernel, prefix: net("10.244.1.0/32") };
    assert_eq!(harness.table[&key], LocalRoute { target: LocalTarget::Via([hop(7, None)].into()), metric: Some(1024) });
    harness.hear(Input::Kernel(KernelEvent::Route(Sync::Remove(RouteKey {
        table: 254,
        prefix: net("10.244.1.0/32"),
        metric: 1024,
        tos: 0,
    }))));
    assert_eq!(harness.of(RouteSource::Kernel), prefixes[1..]);
}

#[test]
fn which_kernel_routes_are_learned() {
    let base = || unicast("10.5.0.0/24", 0, &[hop(2, Some("10.0.0.9"))]);
    let with = |change: fn(&mut KernelRoute)| {
        let mut route = base();
        change(&mut route);
        route
    };
    let through = |prefix: &str, hops: &[KernelHop]| unicast(prefix, 0, hops);
    let onlink = KernelHop { onlink: true, ..hop(2, Some("192.0.2.9")) };
    let cases = [
        ("plain", base(), true),
        ("unspec", with(|r| r.protocol = 0), false),
        ("redirect", with(|r| r.protocol = 1), false),
        ("kernel", with(|r| r.protocol = 2), false),
        ("boot", with(|r| r.protocol = 3), true),
        ("static", with(|r| r.protocol = 4), true),
        ("our own", with(|r| r.protocol = 12), false),
        ("Felix", with(|r| r.protocol = 80), true),
        ("another table", with(|r| r.key.table = 100), false),
        ("with TOS", with(|r| r.key.tos = 16), false),
        ("blackhole", with(|r| (r.kind, r.hops) = (RouteType::Blackhole, SmallVec::new())), true),
        ("unreachable", with(|r| (r.kind, r.hops) = (RouteType::Unreachable, SmallVec::new())), true),
        ("prohibit", with(|r| (r.kind, r.hops) = (RouteType::Prohibit, SmallVec::new())), true),
        ("local", with(|r| r.kind = RouteType::Other(2)), false),
        ("broadcast", with(|r| r.kind = RouteType::Other(3)), false),
        ("throw", with(|r| r.kind = RouteType::Other(9)), false),
        ("without hops", through("10.5.0.0/24", &[]), false),
        ("unknown interface", through("10.5.0.0/24", &[hop(99, None)]), false),
        ("workload interface", through("10.5.0.0/24", &[hop(7, None)]), true),
        ("gateway elsewhere", through("10.5.0.0/24", &[hop(2, Some("192.0.2.9"))]), false),
        ("gateway elsewhere, onlink", through("10.5.0.0/24", &[onlink]), true),
        ("gateway on an interface without subnet", through("10.5.0.0/24", &[hop(7, Some("192.0.2.9"))]), true),
        ("gateway is our own address", through("10.5.0.0/24", &[hop(2, Some("10.0.0.1"))]), false),
        ("multipath", through("10.5.0.0/24", &[hop(2, Some("10.0.0.9")), hop(2, Some("10.0.0.8"))]), true),
        ("multipath, one gateway elsewhere", through("10.5.0.0/24", &[hop(2, Some("10.0.0.9")), hop(2, Some("192.0.2.9"))]), false),
        ("IPv4 via IPv6", through("10.5.0.0/24", &[hop(2, Some("fe80::9"))]), true),
        ("IPv4 via global IPv6, multipath", through("10.5.0.0/24", &[hop(2, Some("fd00::9")), hop(2, Some("fe80::8"))]), true),
        ("IPv6", through("fd00:5::/64", &[hop(2, Some("fd00::9"))]), true),
        ("IPv6 via link-local", through("fd00:5::/64", &[hop(2, Some("fe80::9"))]), true),
        ("IPv6 via IPv4-compatible", through("fd00:5::/64", &[hop(7, Some("::10.0.0.1"))]), false),
        ("default", through("0.0.0.0/0", &[hop(2, Some("10.0.0.254"))]), true),
        ("multicast", through("224.0.0.0/4", &[hop(2, None)]), false),
        ("loopback", through("127.1.0.0/16", &[hop(2, None)]), false),
        ("link-local", through("169.254.0.0/16", &[hop(2, None)]), false),
        ("IPv6 link-local", through("fe80::/64", &[hop(2, None)]), false),
        ("IPv6 multicast", through("ff00::/8", &[hop(2, None)]), false),
    ];
    for (name, kernel_route, learned) in cases {
        let mut harness = running();
        harness.hear(route(kernel_route));
        assert_eq!(!harness.of(RouteSource::Kernel).is_empty(), learned, "{name}");
    }
}

#[test]
fn of_several_kernel_routes_the_lowest_metric_counts() {
    let metric = |harness: &Harness| {
        let key = LocalKey { source: RouteSource::Kernel, prefix: net("10.5.0.0/24") };
        harness.table.get(&key).and_then(|route| route.metric)
    };
    let at = |metric| unicast("10.5.0.0/24", metric, &[hop(7, None)]);
    let mut harness = running();
    harness.hear(route(at(1024)));
    assert_eq!(metric(&harness), Some(1024));
    harness.hear(route(at(512)));
    assert_eq!(metric(&harness), Some(512));
    harness.hear(route(KernelRoute { protocol: 12, ..at(100) }));
    assert_eq!(metric(&harness), Some(512), "ours is no rival");
    harness.hear(Input::Kernel(KernelEvent::Route(Sync::Remove(at(512).key))));
    assert_eq!(metric(&harness), Some(1024));
    harness.hear(route(KernelRoute { protocol: 12, ..at(1024) }));
    assert_eq!(metric(&harness), None, "ours stands in its place now");
}

#[test]
fn device_routes_are_the_subnets_of_usable_interfaces() {
    let mut harness = running();
    assert_eq!(harness.of(RouteSource::Device), ["10.0.0.0/24", "fd00::/64"]);
    harness.hear(address(7, "10.9.0.1/24"));
    assert_eq!(harness.of(RouteSource::Device), ["10.0.0.0/24", "fd00::/64"], "cali* is left out");

    let narrow = InterfaceAddress { global: false, secondary: false };
    let second = InterfaceAddress { global: true, secondary: true };
    harness.hear(Input::Kernel(KernelEvent::Address(Sync::Upsert((2, net("10.1.0.1/24")), narrow))));
    harness.hear(Input::Kernel(KernelEvent::Address(Sync::Upsert((2, net("10.2.0.1/24")), second))));
    assert_eq!(harness.of(RouteSource::Device), ["10.0.0.0/24", "fd00::/64"]);

    harness.hear(link(2, "eth0", false));
    assert!(harness.of(RouteSource::Device).is_empty());
    harness.hear(link(2, "eth0", true));
    assert_eq!(harness.of(RouteSource::Device), ["10.0.0.0/24", "fd00::/64"]);
    harness.hear(configure(OriginConfig { ignored_interfaces: vec!["eth?".into()], ..config() }));
    assert_eq!(harness.of(RouteSource::Device), ["10.9.0.0/24"]);
}

#[test]
fn a_subnet_on_two_interfaces_belongs_to_the_lower_index() {
    let mut harness = running();
    let via = |harness: &Harness| {
        let key = LocalKey { source: RouteSource::Device, prefix: net("10.0.0.0/24") };
        harness.table.get(&key).map(|route| route.target.clone())
    };
    harness.hear_all([link(3, "eth1", true), address(3, "10.0.0.2/24")]);
    assert_eq!(via(&harness), Some(LocalTarget::Via([hop(2, None)].into())));
    harness.hear(Input::Kernel(KernelEvent::Address(Sync::Remove((2, net("10.0.0.1/24"))))));
    assert_eq!(via(&harness), Some(LocalTarget::Via([hop(3, None)].into())));
}

#[test]
fn a_kernel_route_waits_for_its_interface_and_goes_with_it() {
    let mut harness = Harness::new();
    harness.hear_all([configure(config()), workload("10.244.1.5/32")]);
    assert!(harness.of(RouteSource::Kernel).is_empty());
    harness.hear(link(7, "cali7", true));
    assert_eq!(harness.of(RouteSource::Kernel), ["10.244.1.5/32"]);
    harness.hear(link(7, "cali7", false));
    assert_eq!(harness.of(RouteSource::Kernel), ["10.244.1.5/32"], "the kernel takes routes away itself where it must");
    harness.hear(Input::Kernel(KernelEvent::Link(Sync::Remove(7))));
    assert!(harness.of(RouteSource::Kernel).is_empty());
}

#[test]
fn an_overrun_says_only_differences() {
    let mut harness = running();
    harness.hear_all(["10.244.1.5/32", "10.244.1.6/32"].map(workload));
    let words = harness.words;
    harness.hear_all(begin()).hear_all([link(2, "eth0", true), link(7, "cali7", true)]);
    harness.hear_all([address(2, "10.0.0.1/24"), address(2, "fd00::1/64")]);
    harness.hear_all([workload("10.244.1.6/32"), workload("10.244.1.7/32")]);
    assert_eq!(harness.words, words + 1, "one new route");
    harness.hear_all(end());
    assert_eq!(harness.words, words + 2, "one route gone");
    assert_eq!(harness.of(RouteSource::Kernel), ["10.244.1.6/32", "10.244.1.7/32"]);
    assert_eq!(harness.ended, 1);
}

/// One state of the world, told in many ways: the table is a function of the state.
mod path_independence {
    use super::*;

    fn facts() -> Vec<Input> {
        vec![
            configure(config()),
            link(2, "eth0", true),
            link(3, "eth1", true),
            link(7, "cali7", true),
            link(8, "eth8", false),
            address(2, "10.0.0.1/24"),
            address(2, "fd00::1/64"),
            address(3, "10.0.0.2/24"),
            address(7, "10.9.0.1/24"),
            address(8, "10.8.0.1/24"),
            workload("10.244.1.0/32"),
            workload("10.244.1.255/32"),
            workload("fd00:10::5/128"),
            route(unicast("10.5.0.0/24", 512, &[hop(2, Some("10.0.0.9")), hop(3, Some("10.0.0.9"))])),
            route(unicast("10.5.0.0/24", 1024, &[hop(2, Some("10.0.0.8"))])),
            route(unicast("10.6.0.0/24", 1, &[hop(2, Some("172.31.0.1"))])),
            route(unicast("10.6.0.0/24", 2, &[hop(2, Some("10.0.0.7"))])),
            route(unicast("0.0.0.0/0", 0, &[hop(2, Some("10.0.0.254"))])),
            route(KernelRoute { protocol: 12, ..unicast("10.7.0.0/24", 0, &[hop(2, Some("10.0.0.9"))]) }),
        ]
    }

    /// What contradicts the state for a while.
    fn noise() -> Vec<Input> {
        vec![
            configure(OriginConfig { ignored_interfaces: vec!["*".into()], blocks: vec![net("10.77.0.0/26")], ..OriginConfig::default() }),
            link(2, "eth0", false),
            link(9, "eth9", true),
            address(9, "10.99.0.1/24"),
            address(2, "172.31.0.9/24"),
            workload("10.244.1.77/32"),
            route(unicast("10.5.0.0/24", 100, &[hop(9, None)])),
            route(KernelRoute { protocol: 12, ..unicast("10.5.0.0/24", 512, &[hop(2, None)]) }),
            route(KernelRoute { kind: RouteType::Blackhole, hops: SmallVec::new(), ..unicast("10.7.0.0/24", 0, &[]) }),
        ]
    }

    fn told(inputs: impl IntoIterator<Item = Input>) -> BTreeMap<LocalKey, LocalRoute> {
        let mut harness = Harness::new();
        harness.hear_all(begin()).hear_all(inputs).hear_all(end());
        assert_eq!(harness.ended, 1);
        harness.table
    }

    #[test]
    fn the_way_to_a_state_does_not_show() {
        let expected = told(facts());
        assert_eq!(expected.len(), 13, "{expected:?}");
        assert_eq!(told(facts().into_iter().rev()), expected, "reversed");
        assert_eq!(told(facts().into_iter().chain(facts())), expected, "twice");
        assert_eq!(told(facts().into_iter().flat_map(|fact| [fact.clone(), fact])), expected, "each twice");
        for cut in 0..facts().len() {
            let (first, second) = (facts()[..cut].to_vec(), facts()[cut..].to_vec());
            assert_eq!(told(second.clone().into_iter().chain(first.clone())), expected, "rotated at {cut}");
            assert_eq!(told(first.into_iter().chain(begin()).chain(second).chain(facts())), expected, "relist started at {cut}");
        }
        for (index, noise) in noise().into_iter().enumerate() {
            let resync = facts().into_iter().chain([noise]).chain(begin()).chain(facts());
            assert_eq!(told(resync), expected, "noise {index}, then a relist");
        }
        assert_eq!(told(noise().into_iter().chain(begin()).chain(facts())), expected, "all noise, then a relist");
        assert_eq!(
            told(facts().into_iter().chain(noise()).chain(end()).chain(begin()).chain(facts())),
            expected,
            "in sync, noise, a relist"
        );
    }
}

fn agents(words: impl IntoIterator<Item = Sync<IpNet, AgentRoute>>) -> Input {
    Input::Agents(words.into_iter().collect())
}

#[test]
fn an_agents_route_counts_while_its_interface_is_there_and_up() {
    let mut harness = running();
    let route = |dev: &str, via: Option<&str>| AgentRoute::Device { dev: dev.into(), via: via.map(ip) };
    harness.hear(agents([
        Sync::Upsert(net("10.244.7.1/32"), route("cali9", None)),
        Sync::Upsert(net("10.244.7.2/32"), route("eth0", Some("10.0.0.9"))),
        Sync::Upsert(net("10.244.7.3/32"), route("eth0", Some("10.9.9.9"))),
        Sync::Upsert(net("10.244.7.4/32"), AgentRoute::Blackhole),
        Sync::Upsert(net("10.244.7.5/32"), AgentRoute::Gateway(ip("10.0.0.9"))),
    ]));
    assert_eq!(harness.of(RouteSource::Agent), ["10.244.7.2/32", "10.244.7.4/32", "10.244.7.5/32"]);
    let waiting = |harness: &Harness| -> Vec<String> { harness.origin.waiting(None).into_iter().map(|(_, why)| why).collect() };
    assert_eq!(waiting(&harness), ["there is no interface cali9", "10.9.9.9 is on no network of interface eth0"]);
    harness.hear(link(9, "cali9", false));
    assert_eq!(waiting(&harness)[0], "interface cali9 is not up");
    harness.hear(link(9, "cali9", true)).hear(address(2, "10.9.9.1/24"));
    assert_eq!(harness.of(RouteSource::Agent).len(), 5);
    assert_eq!(waiting(&harness), [""; 0]);
    harness.hear(link(9, "cali10", true));
    assert_eq!(waiting(&harness), ["there is no interface cali9"], "a name is what an agent means");
    harness.hear(link(11, "cali9", true));
    let key = LocalKey { source: RouteSource::Agent, prefix: net("10.244.7.1/32") };
    assert_eq!(harness.table[&key].target, LocalTarget::Via([hop(11, None)].into()), "under another number");
    harness.hear(agents([Sync::Remove(net("10.244.7.1/32")), Sync::Remove(net("10.244.7.4/32"))]));
    assert_eq!(harness.of(RouteSource::Agent), ["10.244.7.2/32", "10.244.7.3/32", "10.244.7.5/32"]);
}
