//! The kernel's side on the real kernel: each test runs again inside a network namespace of its own, made by `unshare`.
//! Long because what the tests build on, a namespace with links and a second socket, stands beside them.
//!
//! Needs root, or a host that lets users make namespaces; where neither is the case they are skipped, said and counted.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command as Process;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use margay::config::FibConfig;
use margay::fib::{
    BestRoute, FibChange, FibState, FibStatus, FibSyncer, Hop, Input, KernelEvent, KernelHop, KernelOp, KernelOps, KernelRoute, Link,
    Output, Query, RouteKey, RouteType, Target,
};
use margay::kernel::{Command, Kernel, NetlinkKernel, Settings, spawn};
use margay::policy::RouteSource;
use margay::types::{NextHop, Outbox, QueryId, Sync};
use tokio::sync::mpsc;

const INSIDE: &str = "MARGAY_TEST_NAMESPACE";

/// What is not seen after so long does not come; half a million routes may take their time on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `body` in a new network namespace with `v0` (10.0.0.1/24, fd00::1/64) and its other end `v1`, both up.
fn in_namespace(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        for line in [
            "link set lo up",
            "link add v0 type veth peer name v1",
            "link set v1 up",
            "link set v0 up",
            "addr add 10.0.0.1/24 dev v0",
            "addr add fd00::1/64 dev v0 nodad",
        ] {
            ip(line);
        }
        return body();
    }
    let reachable = |options: &[&str]| Process::new("unshare").args(options).arg("true").output().is_ok_and(|o| o.status.success());
    let Some(options) = [&["--net"][..], &["--map-root-user", "--net"]].into_iter().find(|options| reachable(options)) else {
        proto_tests::lab::skip::skipped(
            test,
            "it needs a network namespace: run as root or allow user namespaces, with util-linux installed",
        );
        return;
    };
    let itself = std::env::current_exe().unwrap();
    let status = Process::new("unshare")
        .args(options)
        .arg(itself)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed inside its namespace");
}

fn ip(line: &str) {
    let output = Process::new("ip").args(line.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
}

fn ip_says(line: &str) -> String {
    let output = Process::new("ip").args(line.split_whitespace()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn index(interface: &str) -> u32 {
    let line = ip_says(&format!("-o link show dev {interface}"));
    line.split(':').next().unwrap().trim().parse().unwrap()
}

fn hop(gateway: &str, interface: u32) -> KernelHop {
    KernelHop { gateway: (!gateway.is_empty()).then(|| gateway.parse::<IpAddr>().unwrap()), interface, onlink: false }
}

fn route(prefix: &str, metric: u32, kind: RouteType, hops: &[KernelHop]) -> KernelRoute {
    let prefix: IpNet = prefix.parse().unwrap();
    let mut hops: Vec<_> = hops.to_vec();
    hops.sort_unstable();
    let on_link = kind == RouteType::Unicast && hops.iter().all(|hop| hop.gateway.is_none());
    KernelRoute {
        key: RouteKey { table: 254, prefix, metric, tos: 0 },
        protocol: 12,
        kind,
        scope: if on_link && prefix.addr().is_ipv4() { 253 } else { 0 },
        hops: hops.into_iter().collect(),
        preferred_source: None,
        object: None,
    }
}

fn via(prefix: &str, gateway: &str, interface: u32) -> KernelRoute {
    route(prefix, 1024, RouteType::Unicast, &[hop(gateway, interface)])
}

/// The monitor, and what it has told so far.
struct Monitor {
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<Vec<KernelEvent>>,
    links: BTreeMap<u32, Link>,
    addresses: BTreeMap<(u32, IpNet), bool>,
    routes: BTreeMap<RouteKey, KernelRoute>,
    written: BTreeMap<u64, Vec<(usize, i32)>>,
    /// Whole tellings of the routes.
    tellings: usize,
    /// Routes told, and routes told to be gone.
    told: usize,
    told_gone: usize,
    batch: u64,
    runtime: tokio::runtime::Runtime,
}

impl Monitor {
    fn start(settings: &Settings) -> Self {
        let (commands, events) = spawn(settings).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (links, addresses, routes, written) = Default::default();
        let mut monitor =
            Self { commands, events, links, addresses, routes, written, tellings: 0, told: 0, told_gone: 0, batch: 0, runtime };
        monitor.until("first telling", |m| m.tellings == 1);
        monitor
    }

    /// Hears events until `done`; fails when nothing is heard for too long.
    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let next = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, self.events.recv()).await });
            let batch = next.unwrap_or_else(|_| panic!("not seen: {what}; routes {:#?}", self.routes)).expect("the thread ended");
            batch.into_iter().for_each(|event| self.hear(event));
        }
    }

    fn hear(&mut self, event: KernelEvent) {
        match event {
            KernelEvent::Link(Sync::Begin) => self.links.clear(),
            KernelEvent::Link(Sync::Upsert(index, link)) => drop(self.links.insert(index, link)),
            KernelEvent::Link(Sync::Remove(index)) => drop(self.links.remove(&index)),
            KernelEvent::Address(Sync::Begin) => self.addresses.clear(),
            KernelEvent::Address(Sync::Upsert(key, address)) => drop(self.addresses.insert(key, address.global)),
            KernelEvent::Address(Sync::Remove(key)) => drop(self.addresses.remove(&key)),
            KernelEvent::Route(Sync::Begin) => self.routes.clear(),
            KernelEvent::Route(Sync::Upsert(key, route)) => {
                self.told += 1;
                self.routes.insert(key, route);
            }
            KernelEvent::Route(Sync::Remove(key)) => {
                self.told_gone += 1;
                self.routes.remove(&key);
            }
            KernelEvent::Route(Sync::End) => self.tellings += 1,
            KernelEvent::Written { batch, failed } => drop(self.written.insert(batch, failed)),
            KernelEvent::Flushed { .. } | KernelEvent::Object(_) | KernelEvent::Link(Sync::End) | KernelEvent::Address(Sync::End) => {}
        }
    }

    /// Writes a batch and waits for its answer.
    fn write(&mut self, ops: Vec<KernelOp>) -> Vec<(usize, i32)> {
        self.batch += 1;
        let batch = self.batch;
        self.commands.blocking_send(Command::Write(KernelOps { batch, ops })).unwrap();
        self.until("answer to a batch", |m| m.written.contains_key(&batch));
        self.written.remove(&batch).unwrap()
    }

    /// All told anew: our own routes included.
    fn resync(&mut self) {
        let tellings = self.tellings;
        self.commands.blocking_send(Command::Resync).unwrap();
        self.until("telling anew", |m| m.tellings > tellings);
    }

    fn ours(&self) -> Vec<KernelRoute> {
        self.routes.values().filter(|route| route.protocol == 12).cloned().collect()
    }

    /// How many changes of routes the kernel has announced until now, this question's own left out.
    fn announced(&mut self) -> usize {
        let marker: IpNet = "192.0.2.99/32".parse().unwrap();
        let has = |m: &Self| m.routes.keys().any(|key| key.prefix == marker);
        let before = self.told + self.told_gone;
        ip("route add blackhole 192.0.2.99/32");
        self.until("marker", has);
        ip("route del blackhole 192.0.2.99/32");
        self.until("marker gone", |m| !has(m));
        let announced = self.told + self.told_gone - before - 2;
        assert_eq!(self.tellings, 1, "the queue overran: what was announced is not known");
        announced
    }
}

#[test]
fn every_shape_of_route_is_written_and_read_back() {
    in_namespace("every_shape_of_route_is_written_and_read_back", || {
        let v0 = index("v0");
        let mut onlink = via("10.5.0.0/16", "172.31.0.1", v0);
        onlink.hops[0].onlink = true;
        let mut onlink6 = via("2001:db8:5::/48", "2001:db8:ffff::1", v0);
        onlink6.hops[0].onlink = true;
        let mut mixed = route("10.7.0.0/16", 1024, RouteType::Unicast, &[hop("10.0.0.2", v0), hop("172.31.0.1", v0)]);
        mixed.hops[1].onlink = true;
        let mut routes = vec![
            via("10.1.0.0/16", "10.0.0.2", v0),
            via("0.0.0.0/0", "10.0.0.2", v0),
            via("10.2.0.0/16", "fd00::2", v0),
            route("10.3.3.3/32", 0, RouteType::Unicast, &[hop("", v0)]),
            route("10.4.0.0/26", 0, RouteType::Blackhole, &[]),
            route("10.4.0.64/26", 2_147_483_547, RouteType::Unreachable, &[]),
            onlink,
            route("10.6.0.0/16", 1024, RouteType::Unicast, &[hop("10.0.0.2", v0), hop("10.0.0.3", v0), hop("fd00::4", v0)]),
            mixed,
            via("2001:db8:1::/48", "fd00::2", v0),
            via("::/0", "fe80::1", v0),
            route("2001:db8:3::3/128", 1024, RouteType::Unicast, &[hop("", v0)]),
            route("2001:db8:4::/64", 1024, RouteType::Blackhole, &[]),
            route("2001:db8:4:1::/64", 7, RouteType::Unreachable, &[]),
            onlink6,
            route("2001:db8:6::/48", 1024, RouteType::Unicast, &[hop("fd00::2", v0), hop("fd00::3", v0)]),
        ];
        let mut monitor = Monitor::start(&Settings::default());
        assert_eq!(monitor.write(routes.iter().cloned().map(KernelOp::Create).collect()), []);
        monitor.resync();
        routes.sort_by_key(|route| route.key);
        assert_eq!(monitor.ours(), routes);
        assert_eq!(monitor.write(routes.iter().cloned().map(KernelOp::Delete).collect()), []);
        monitor.resync();
        assert_eq!(monitor.ours(), []);
    });
}

/// `count` routes of each family.
fn many(count: u32, interface: u32) -> Vec<KernelRoute> {
    let v4 = (0..count).map(|i| via(&format!("{}/32", std::net::Ipv4Addr::from(0x6400_0000 + i)), "10.0.0.2", interface));
    let v6 = (0..count).map(|i| via(&format!("2001:db8:{:x}:{:x}::/64", i >> 16, i & 0xffff), "fd00::2", interface));
    v4.chain(v6).collect()
}

#[test]
fn thousands_in_a_batch() {
    in_namespace("thousands_in_a_batch", || {
        let v0 = index("v0");
        let mut monitor = Monitor::start(&Settings::default());
        let told = monitor.told;
        let mut routes = many(10_000, v0);
        assert_eq!(monitor.write(routes.iter().cloned().map(KernelOp::Create).collect()), []);
        assert_eq!(monitor.told, told, "our own writes are not echoed");
        monitor.resync();
        assert_eq!(monitor.ours(), routes);
        for route in &mut routes {
            route.hops[0] = hop(if route.key.prefix.addr().is_ipv4() { "10.0.0.3" } else { "fd00::3" }, v0);
        }
        assert_eq!(monitor.write(routes.iter().cloned().map(KernelOp::Replace).collect()), []);
        monitor.resync();
        assert_eq!(monitor.ours(), routes);
        assert_eq!(monitor.write(routes.into_iter().map(KernelOp::Delete).collect()), []);
        monitor.resync();
        assert_eq!(monitor.ours(), []);
    });
}

#[test]
fn q16_each_failure_is_matched_to_its_operation() {
    in_namespace("q16_each_failure_is_matched_to_its_operation", || {
        let v0 = index("v0");
        let mut monitor = Monitor::start(&Settings::default());
        let mut ops: Vec<_> = many(3000, v0).into_iter().map(KernelOp::Create).collect();
        let (bad, mut expected) = ("172.31.0.1", vec![]);
        for at in [0, 1, 2, 700, 1500, 2998, 2999] {
            let KernelOp::Create(route) = &mut ops[at] else { unreachable!() };
            route.hops[0].gateway = Some(bad.parse().unwrap());
            expected.push((at, 101));
        }
        let KernelOp::Create(route) = &mut ops[4000] else { unreachable!() };
        route.hops[0].interface = 9999;
        expected.push((4000, 19));
        ops.push(KernelOp::Delete(via("192.0.2.0/24", "10.0.0.2", v0)));
        expected.push((6000, 3));
        assert_eq!(monitor.write(ops.clone()), expected);
        monitor.resync();
        assert_eq!(monitor.ours().len(), 6000 - 8);
        // All fail at once.
        assert_eq!(monitor.write(ops[1000..2000].to_vec()).len(), 999 + 1);
    });
}

#[test]
fn a_foreign_route_is_not_overwritten_nor_deleted() {
    in_namespace("a_foreign_route_is_not_overwritten_nor_deleted", || {
        let v0 = index("v0");
        for line in [
            "route add 10.1.0.0/16 via 10.0.0.9 metric 1024 proto 80",
            "route add 2001:db8:1::/48 via fd00::9 metric 1024 proto 80",
            "route add blackhole 10.4.0.0/26 proto 80",
        ] {
            ip(line);
        }
        let mut monitor = Monitor::start(&Settings::default());
        let foreign: Vec<_> = monitor.routes.values().filter(|route| route.protocol == 80).cloned().collect();
        let ours =
            [via("10.1.0.0/16", "10.0.0.2", v0), via("2001:db8:1::/48", "fd00::2", v0), route("10.4.0.0/26", 0, RouteType::Blackhole, &[])];
        assert_eq!(monitor.write(ours.iter().cloned().map(KernelOp::Create).collect()), [(0, 17), (1, 17), (2, 17)]);
        assert_eq!(monitor.write(ours.iter().cloned().map(KernelOp::Delete).collect()), [(0, 3), (1, 3), (2, 3)]);
        monitor.resync();
        let still: Vec<_> = monitor.routes.values().filter(|route| route.protocol == 80).cloned().collect();
        assert_eq!((foreign.len(), &foreign), (3, &still));
        // Another metric is another route.
        let mut beside = ours[0].clone();
        beside.key.metric = 512;
        assert_eq!(monitor.write(vec![KernelOp::Create(beside.clone())]), []);
        assert_eq!(monitor.write(vec![KernelOp::Delete(beside)]), []);
    });
}

#[test]
fn any_shape_replaces_any_other() {
    in_namespace("any_shape_replaces_any_other", || {
        let v0 = index("v0");
        let mut monitor = Monitor::start(&Settings::default());
        for (prefix, gateways) in
            [("10.1.0.0/16", ["10.0.0.2", "10.0.0.3", "10.0.0.4"]), ("2001:db8::/48", ["fd00::2", "fd00::3", "fd00::4"])]
        {
            let hops = gateways.map(|gateway| hop(gateway, v0));
            let shapes = [
                route(prefix, 1024, RouteType::Unicast, &hops[..1]),
                route(prefix, 1024, RouteType::Unicast, &hops[..2]),
                route(prefix, 1024, RouteType::Unicast, &hops[1..]),
                route(prefix, 1024, RouteType::Unicast, &[hop("", v0)]),
                route(prefix, 1024, RouteType::Blackhole, &[]),
                route(prefix, 1024, RouteType::Unreachable, &[]),
            ];
            for first in &shapes {
                for second in &shapes {
                    assert_eq!(monitor.write(vec![KernelOp::Create(first.clone())]), []);
                    assert_eq!(monitor.write(vec![KernelOp::Replace(second.clone())]), [], "{first:?} by {second:?}");
                    monitor.resync();
                    assert_eq!(monitor.ours(), std::slice::from_ref(second), "{first:?} by {second:?}");
                    assert_eq!(monitor.write(vec![KernelOp::Delete(second.clone())]), []);
                    monitor.resync();
                    assert_eq!(monitor.ours(), [], "{second:?} deleted");
                }
            }
        }
    });
}

#[test]
fn links_addresses_and_routes_appear_and_vanish() {
    in_namespace("links_addresses_and_routes_appear_and_vanish", || {
        let v0 = index("v0");
        let mut monitor = Monitor::start(&Settings::default());
        assert!(monitor.links[&v0].up && &*monitor.links[&v0].name == "v0");
        let key: (u32, IpNet) = (v0, "10.0.0.1/24".parse().unwrap());
        assert!(monitor.addresses[&key]);
        ip("link add w0 type veth peer name w1");
        let w0 = index("w0");
        monitor.until("new link", |m| m.links.get(&w0).is_some_and(|link| !link.up));
        ip("link set w0 up");
        ip("link set w1 up");
        monitor.until("link up", |m| m.links[&w0].up);
        ip("addr add 192.0.2.1/24 dev w0");
        ip("addr add 2001:db8:9::1/64 dev w0 nodad");
        let wanted: [(u32, IpNet); 2] = [(w0, "192.0.2.1/24".parse().unwrap()), (w0, "2001:db8:9::1/64".parse().unwrap())];
        monitor.until("addresses", |m| wanted.iter().all(|key| m.addresses.contains_key(key)));
        let has = |m: &Monitor, prefix: &str| m.routes.keys().any(|key| key.prefix == prefix.parse::<IpNet>().unwrap());
        monitor.until("subnets", |m| has(m, "192.0.2.0/24") && has(m, "2001:db8:9::/64"));
        ip("route add 10.244.1.5/32 dev w0 metric 1024 proto 80");
        ip("route add 10.244.1.6/32 via 192.0.2.9 proto 3");
        ip("-6 route add 2001:db8:10::5/128 dev w0 proto 80");
        let workloads = ["10.244.1.5/32", "10.244.1.6/32", "2001:db8:10::5/128"];
        monitor.until("workload routes", |m| workloads.iter().all(|prefix| has(m, prefix)));
        // The kernel does not say that IPv4 routes go with their link.
        ip("link del w0");
        monitor.until("link gone", |m| !m.links.contains_key(&w0));
        monitor.until("all gone with it", |m| {
            let gone = |prefix: &str| !has(m, prefix);
            workloads.iter().all(|p| gone(p)) && gone("192.0.2.0/24") && gone("2001:db8:9::/64") && !m.addresses.contains_key(&wanted[0])
        });
        let told = monitor.routes.clone();
        monitor.resync();
        assert_eq!(monitor.routes, told);
    });
}

#[test]
fn silences_of_linux_are_filled_in() {
    in_namespace("silences_of_linux_are_filled_in", || {
        for line in [
            "link add w0 type veth peer name w1",
            "link set w1 up",
            "link set w0 up",
            "addr add 10.0.1.1/24 dev w0",
            "addr add 10.0.1.7/24 dev w0",
            "addr add fd01::1/64 dev w0 nodad",
        ] {
            ip(line);
        }
        let mut monitor = Monitor::start(&Settings::default());
        let lines: &[(&str, &[&str])] = &[
            (
                "an address of several, and the routes that prefer it",
                &["route add 10.9.0.0/16 dev v0 src 10.0.1.7", "addr del 10.0.1.7/24 dev w0"],
            ),
            ("several routes of a key", &["route add 10.8.0.0/16 via 10.0.0.2", "route append 10.8.0.0/16 via 10.0.1.2 proto 80"]),
            ("the first of them", &["route del 10.8.0.0/16 via 10.0.0.2"]),
            ("one in front", &["route prepend 10.8.0.0/16 via 10.0.0.3"]),
            ("a replaced one", &["route replace 10.8.0.0/16 via 10.0.0.4 proto 81"]),
            ("the same subnet twice", &["addr add 10.0.0.5/24 dev w0"]),
            ("and once", &["addr del 10.0.0.5/24 dev w0"]),
            ("IPv6 multipath", &["-6 route add fd09::/64 nexthop via fd00::2 nexthop via fd01::2 nexthop via fd01::3"]),
            ("less a hop", &["-6 route del fd09::/64 via fd01::3"]),
            ("less another", &["-6 route del fd09::/64 via fd00::2"]),
            ("grown again", &["-6 route append fd09::/64 via fd00::3"]),
            ("IPv6 side by side", &["-6 route add fd08::/64 dev v0 metric 7", "-6 route append fd08::/64 dev w0 metric 7"]),
            ("one of them less", &["-6 route del fd08::/64 dev v0 metric 7"]),
            (
                "multipath over both",
                &["route add 10.7.0.0/16 nexthop via 10.0.0.2 nexthop via 10.0.1.2", "route add 10.6.0.0/16 via 10.0.1.2"],
            ),
            (
                "IPv6 multipath over both",
                &["-6 route add fd07::/64 nexthop via fd00::2 nexthop via fd01::2", "-6 route add fd06::/64 via fd01::2"],
            ),
            ("a link down", &["link set w0 down"]),
            ("up again", &["link set w0 up", "addr add fd01::1/64 dev w0 nodad"]),
            ("the last address", &["route add 10.5.0.0/16 dev w0", "addr del 10.0.1.1/24 dev w0"]),
            ("both links down", &["link set w0 down", "link set v0 down"]),
        ];
        for (what, lines) in lines {
            lines.iter().for_each(|line| ip(line));
            ip("link set lo mtu 65535");
            ip("route add blackhole 192.0.2.99/32");
            let marker: IpNet = "192.0.2.99/32".parse().unwrap();
            monitor.until("marker", |m| m.routes.keys().any(|key| key.prefix == marker));
            ip("route del blackhole 192.0.2.99/32");
            monitor.until("marker gone", |m| !m.routes.keys().any(|key| key.prefix == marker));
            let told = monitor.routes.clone();
            monitor.resync();
            let (told, read): (Vec<_>, Vec<_>) = (told.into_values().collect(), monitor.routes.values().cloned().collect());
            let only = |a: &[KernelRoute], b: &[KernelRoute]| a.iter().filter(|route| !b.contains(route)).cloned().collect::<Vec<_>>();
            assert!(told == read, "{what}: told only {:#?}, read only {:#?}", only(&told, &read), only(&read, &told));
        }
    });
}

/// Routes of others that go by next-hop objects (FRR's do): what becomes of them when the objects change, which Linux hardly says.
#[test]
fn what_next_hop_objects_do_to_routes_is_seen() {
    in_namespace("what_next_hop_objects_do_to_routes_is_seen", || {
        let v0 = index("v0");
        let mut monitor = Monitor::start(&Settings::default());
        let lines = [
            "nexthop add id 7 via 10.0.0.2 dev v0",
            "nexthop add id 8 via 10.0.0.3 dev v0",
            "nexthop add id 9 group 7/8",
            "nexthop add id 17 via fd00::2 dev v0",
            "nexthop add id 18 via fd00::3 dev v0",
            "nexthop add id 19 group 17/18",
            "route add 10.7.0.0/16 nhid 7",
            "route add 10.9.0.0/16 nhid 9",
            "-6 route add fd07::/64 nhid 17",
            "-6 route add fd09::/64 nhid 19",
            "nexthop add id 30 via 10.0.0.4 dev v0",
        ];
        lines.iter().for_each(|line| ip(line));
        let prefixes = ["10.7.0.0/16", "10.9.0.0/16", "fd07::/64", "fd09::/64"].map(|prefix| prefix.parse::<IpNet>().unwrap());
        let hops = |m: &Monitor, prefix: &IpNet| {
            m.routes.values().find(|route| route.key.prefix == *prefix).map_or(vec![], |route| route.hops.to_vec())
        };
        monitor.until("the routes", |m| prefixes.iter().all(|prefix| !hops(m, prefix).is_empty()));
        assert_eq!(monitor.tellings, 1, "new objects change no route");
        // One that no route goes by any more concerns nobody either.
        for line in
            ["nexthop add id 31 via 10.0.0.4 dev v0", "route add 10.31.0.0/16 nhid 31", "route del 10.31.0.0/16", "nexthop del id 31"]
        {
            ip(line);
        }
        assert_eq!(monitor.announced(), 2, "and nothing is told anew");
        let row = |gateways: &[&str]| gateways.iter().map(|gateway| hop(gateway, v0)).collect::<Vec<_>>();
        let steps = [
            ("nexthop replace id 7 via 10.0.0.5 dev v0", [row(&["10.0.0.5"]), row(&["10.0.0.3", "10.0.0.5"])]),
            ("nexthop replace id 17 via fd00::5 dev v0", [row(&["fd00::5"]), row(&["fd00::3", "fd00::5"])]),
            ("nexthop del id 8", [row(&["10.0.0.5"]), row(&["10.0.0.5"])]),
            ("nexthop del id 18", [row(&["fd00::5"]), row(&["fd00::5"])]),
            ("nexthop del id 7", [row(&[]), row(&[])]),
            ("nexthop del id 17", [row(&[]), row(&[])]),
        ];
        for (step, (line, expected)) in steps.iter().enumerate() {
            let of_family = if step % 2 == 0 { &prefixes[..2] } else { &prefixes[2..] };
            ip(line);
            monitor.until(line, |m| of_family.iter().zip(expected).all(|(prefix, expected)| hops(m, prefix) == *expected));
        }
    });
}

#[test]
fn strangers_edits_of_our_routes_are_told() {
    in_namespace("strangers_edits_of_our_routes_are_told", || {
        let v0 = index("v0");
        let mut monitor = Monitor::start(&Settings::default());
        let routes = [via("10.1.0.0/16", "10.0.0.2", v0), via("2001:db8::/48", "fd00::2", v0)];
        let multipath = route("2001:db8:1::/48", 1024, RouteType::Unicast, &[hop("fd00::2", v0), hop("fd00::3", v0)]);
        let all = routes.iter().chain([&multipath]).cloned();
        assert_eq!(monitor.write(all.map(KernelOp::Create).collect()), []);
        ip("route replace 10.1.0.0/16 via 10.0.0.66 metric 1024 proto 12");
        monitor.until("edit", |m| m.routes.get(&routes[0].key).is_some_and(|r| r.hops[0] == hop("10.0.0.66", v0)));
        ip("route del 10.1.0.0/16");
        monitor.until("deletion", |m| !m.routes.contains_key(&routes[0].key));
        ip("-6 route del 2001:db8:1::/48 via fd00::3");
        monitor.until("a hop less", |m| m.routes.get(&multipath.key).is_some_and(|r| r.hops[..] == [hop("fd00::2", v0)]));
        ip("-6 route replace 2001:db8::/48 via fd00::66 metric 1024 proto 80");
        monitor.until("taken over", |m| m.routes.get(&routes[1].key).is_some_and(|r| r.protocol == 80));
        assert_eq!(ip_says("-6 route show proto 12").lines().count(), 1);
    });
}

#[test]
fn an_overrun_is_followed_by_everything_anew() {
    in_namespace("an_overrun_is_followed_by_everything_anew", || {
        let settings = Settings { receive_buffer: 4096, ..Settings::default() };
        let mut monitor = Monitor::start(&settings);
        let lines: String =
            (0..20_000u32).map(|i| format!("route add blackhole {}\n", std::net::Ipv4Addr::from(0x6400_0000 + i))).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), lines).unwrap();
        ip(&format!("-batch {}", file.path().display()));
        monitor.until("all routes", |m| m.routes.len() > 20_000);
        assert!(monitor.tellings > 1, "the queue did not overrun: the test proves nothing");
    });
}

#[test]
fn our_table_is_watched_beside_main() {
    in_namespace("our_table_is_watched_beside_main", || {
        let v0 = index("v0");
        let mut monitor = Monitor::start(&Settings { table: 1000, ..Settings::default() });
        let mut routes = [via("10.1.0.0/16", "10.0.0.2", v0), via("2001:db8::/48", "fd00::2", v0)];
        routes.iter_mut().for_each(|route| route.key.table = 1000);
        assert_eq!(monitor.write(routes.iter().cloned().map(KernelOp::Create).collect()), []);
        monitor.resync();
        assert_eq!(monitor.ours(), routes);
        assert!(monitor.routes.keys().any(|key| key.table == 254) && monitor.routes.keys().all(|key| key.table != 255));
    });
}

#[test]
fn a_dry_run_writes_nothing() {
    in_namespace("a_dry_run_writes_nothing", || {
        let v0 = index("v0");
        let mut monitor = Monitor::start(&Settings { dry_run: true, ..Settings::default() });
        assert_eq!(monitor.write(vec![KernelOp::Create(via("10.1.0.0/16", "10.0.0.2", v0))]), []);
        monitor.resync();
        assert_eq!(monitor.ours(), []);
    });
}

/// A FibSyncer on the real kernel.
struct Node {
    fib: FibSyncer,
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<Vec<KernelEvent>>,
    out: Outbox<Output>,
    writes: usize,
    /// Batches that the kernel has not answered.
    under_way: usize,
    rows: Vec<FibStatus>,
    /// The last answer is complete.
    answered: bool,
    runtime: tokio::runtime::Runtime,
}

impl Node {
    fn start() -> Self {
        Self::of(FibSyncer::new(&FibConfig::default(), 7))
    }

    /// Routes go by next-hop objects.
    fn with_objects() -> Self {
        Self::of(FibSyncer::new(&FibConfig::default(), 7).with_objects())
    }

    fn of(fib: FibSyncer) -> Self {
        let (commands, events) = spawn(&Settings::default()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Self { fib, commands, events, out: Outbox::new(), writes: 0, under_way: 0, rows: vec![], answered: false, runtime }
    }

    fn give(&mut self, input: Input) {
        self.under_way -= usize::from(matches!(input, Input::Kernel(KernelEvent::Written { .. })));
        self.fib.handle(Instant::now(), input, &mut self.out);
        self.collect();
    }

    fn collect(&mut self) {
        for output in self.out.drain().collect::<Vec<_>>() {
            match output {
                Output::Write(ops) => {
                    self.writes += ops.ops.len();
                    self.under_way += 1;
                    self.commands.blocking_send(Command::Write(ops)).unwrap();
                }
                Output::Resync => self.commands.blocking_send(Command::Resync).unwrap(),
                Output::Pull { .. } | Output::Refused { .. } => {}
                Output::Answer { rows, done, .. } => {
                    self.rows.extend(rows);
                    self.answered = done;
                }
            }
        }
    }

    /// The kernel's table has been read once: the next time to read it is set.
    fn knows_the_table(&self) -> bool {
        self.fib.deadline().is_some()
    }

    fn decide(&mut self, routes: &[(&str, BestRoute)]) {
        let change = |(prefix, route): &(&str, BestRoute)| FibChange { prefix: prefix.parse().unwrap(), route: Some(route.clone()) };
        self.give(Input::Changes(routes.iter().map(change).collect()));
    }

    fn state(&mut self, prefix: &str) -> Option<FibState> {
        self.rows.clear();
        self.give(Input::Query(QueryId(1), Query::Prefixes(vec![prefix.parse().unwrap()])));
        self.rows.first().map(|row| row.state)
    }

    /// Lives on until `done`; fails after [`PATIENCE`].
    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < end, "not seen: {what}: {:?}", self.rows);
            let wait = self.fib.deadline().unwrap_or(end).min(end).saturating_duration_since(Instant::now());
            match self.runtime.block_on(async { tokio::time::timeout(wait, self.events.recv()).await }) {
                Ok(events) => events.unwrap().into_iter().for_each(|event| self.give(Input::Kernel(event))),
                Err(_) => {
                    self.fib.on_deadline(Instant::now(), &mut self.out);
                    self.collect();
                }
            }
        }
    }

    /// How many prefixes are in that state.
    fn count(&mut self, state: FibState) -> usize {
        self.rows.clear();
        self.answered = false;
        self.give(Input::Query(QueryId(1), Query::InState(state)));
        self.until("the whole answer", |node| node.answered);
        self.rows.len()
    }

    /// Lives on until every batch is answered and no prefix waits to be written.
    fn settle(&mut self) {
        self.until("all batches answered", |node| node.under_way == 0);
        assert_eq!(self.count(FibState::Pending), 0);
    }

    fn until_state(&mut self, state: FibState, prefixes: &[&str]) {
        self.until(&format!("{state:?}"), |node| prefixes.iter().all(|prefix| node.state(prefix) == Some(state)));
    }
}

fn learned(hops: &[(&str, u32)]) -> BestRoute {
    let hop = |(gateway, interface): &(&str, u32)| {
        let gateway: IpAddr = gateway.parse().unwrap();
        Hop { next_hop: NextHop::Global(gateway), gateway: Some(gateway), interface: *interface }
    };
    BestRoute { source: RouteSource::Ibgp, local_pref: Some(2_147_482_623), target: Target::Via(hops.iter().map(hop).collect()) }
}

#[test]
fn g1_a_fib_syncer_on_the_real_kernel() {
    in_namespace("g1_a_fib_syncer_on_the_real_kernel", || {
        let v0 = index("v0");
        let block = BestRoute { source: RouteSource::Block, local_pref: None, target: Target::Blackhole };
        let unreachable = BestRoute { target: Target::Unreachable, ..learned(&[]) };
        let decided = [
            ("10.1.0.0/16", learned(&[("10.0.0.2", v0)])),
            ("10.2.0.0/16", learned(&[("10.0.0.2", v0), ("10.0.0.3", v0)])),
            ("10.3.0.0/16", learned(&[("fd00::2", v0)])),
            ("10.4.0.0/26", block.clone()),
            ("10.5.0.0/26", unreachable.clone()),
            ("2001:db8:1::/48", learned(&[("fd00::2", v0)])),
            ("2001:db8:2::/48", learned(&[("fd00::2", v0), ("fd00::3", v0)])),
            ("2001:db8:4::/64", block),
            ("2001:db8:5::/64", unreachable),
        ];
        let prefixes = decided.each_ref().map(|(prefix, _)| *prefix);
        let shown = || ip_says("route show proto 12") + &ip_says("-6 route show proto 12");
        ip("route add 10.9.0.0/16 via 10.0.0.9 metric 1024 proto 12");
        let mut node = Node::start();
        node.decide(&decided);
        node.until_state(FibState::Installed, &prefixes);
        node.until_state(FibState::Adopted, &["10.9.0.0/16"]);
        node.give(Input::Sweep);
        node.until("swept", |node| node.state("10.9.0.0/16").is_none());
        let before = shown();
        // A new life: what is decided again costs nothing, and nothing goes meanwhile.
        drop(node);
        let mut node = Node::start();
        node.until_state(FibState::Adopted, &prefixes);
        node.decide(&decided);
        node.until_state(FibState::Installed, &prefixes);
        node.give(Input::Sweep);
        assert_eq!((node.writes, shown()), (0, before.clone()));
        // Strangers.
        ip("route del 10.1.0.0/16");
        ip("-6 route del 2001:db8:2::/48 via fd00::2");
        ip("route replace 10.2.0.0/16 via 10.0.0.66 metric 1024 proto 12");
        // The same hop by way of an object, which takes the route along when it goes.
        ip("nexthop add id 7 via fd00::2 dev v0");
        ip("route replace 10.3.0.0/16 nhid 7 metric 1024 proto 12");
        ip("nexthop del id 7");
        ip("-6 route replace blackhole 2001:db8:1::/48 metric 1024 proto 12");
        node.until("all put back", |node| node.writes >= 4 && shown() == before);
        // The link goes, and the kernel's routes with it; all return.
        ip("link set v0 down");
        node.until("gone", |node| node.state("10.1.0.0/16") == Some(FibState::Failed));
        ip("link set v0 up");
        ip("addr add fd00::1/64 dev v0 nodad");
        node.until_state(FibState::Installed, &prefixes);
        assert_eq!(shown(), before);
    });
}

/// So many prefixes of length 32.
fn hosts(count: u32) -> Vec<IpNet> {
    (0..count).map(|i| IpNet::new(std::net::Ipv4Addr::from(0x6400_0000 + i).into(), 32).unwrap()).collect()
}

/// Best paths of all of them, or that there are none.
fn changes(prefixes: &[IpNet], route: Option<&BestRoute>) -> Vec<FibChange> {
    prefixes.iter().map(|prefix| FibChange { prefix: *prefix, route: route.cloned() }).collect()
}

#[test]
fn g1_a_restart_adopts_half_a_million_routes_and_writes_none() {
    const ROUTES: u32 = 500_000;
    in_namespace("g1_a_restart_adopts_half_a_million_routes_and_writes_none", || {
        let v0 = index("v0");
        let prefixes = hosts(ROUTES);
        let earlier: Vec<_> = prefixes.iter().map(|prefix| KernelOp::Create(via(&prefix.to_string(), "10.0.0.2", v0))).collect();
        assert_eq!(NetlinkKernel::open().unwrap().apply(&earlier), []);
        let mut monitor = Monitor::start(&Settings::default());
        assert_eq!(monitor.ours().len(), prefixes.len());
        let mut node = Node::start();
        let best = learned(&[("10.0.0.2", v0)]);
        // The first tenth comes back while the kernel's table is read, the rest after.
        let (early, late) = prefixes.split_at(prefixes.len() / 10);
        early.chunks(4096).for_each(|part| node.give(Input::Changes(changes(part, Some(&best)))));
        node.until("the table told", |node| node.knows_the_table());
        assert_eq!(node.state(&prefixes[prefixes.len() - 1].to_string()), Some(FibState::Adopted));
        late.chunks(4096).for_each(|part| node.give(Input::Changes(changes(part, Some(&best)))));
        node.give(Input::Sweep);
        node.settle();
        assert_eq!((node.count(FibState::Installed), node.writes), (prefixes.len(), 0));
        assert_eq!(monitor.announced(), 0);
    });
}

#[test]
fn a_flap_of_ten_thousand_prefixes_writes_nothing_that_cancels_out() {
    const FLAPPING: u32 = 10_000;
    /// What two batches hold: that much leaves at once, and cannot be called back.
    const LEAVES: usize = 2 * 4096;
    in_namespace("a_flap_of_ten_thousand_prefixes_writes_nothing_that_cancels_out", || {
        let v0 = index("v0");
        let (old, new) = (learned(&[("10.0.0.2", v0)]), learned(&[("10.0.0.3", v0)]));
        let prefixes = hosts(FLAPPING);
        let others: Vec<IpNet> = hosts(FLAPPING + LEAVES as u32).split_off(prefixes.len());
        let mut monitor = Monitor::start(&Settings::default());
        let mut node = Node::start();
        node.until("the table told", |node| node.knows_the_table());
        let (come, go, move_on) = (changes(&prefixes, Some(&old)), changes(&prefixes, None), changes(&prefixes, Some(&new)));
        node.give(Input::Changes(come.clone()));
        node.settle();
        assert_eq!((node.writes, monitor.announced()), (prefixes.len(), prefixes.len()));
        let busy = [changes(&others, Some(&old)), changes(&others, None)];
        let both = |first: &[FibChange], second: &[FibChange]| first.iter().chain(second).cloned().collect::<Vec<_>>();
        let steps: Vec<(&str, Vec<Vec<FibChange>>, usize)> = vec![
            ("withdrawn and announced again in one word of the Loc-RIB", vec![both(&go, &come)], 0),
            ("moved and back in one word", vec![both(&move_on, &come)], 0),
            ("withdrawn, announced otherwise, and as before", vec![both(&both(&go, &move_on), &come)], 0),
            ("while others are under way", vec![busy[0].clone(), go.clone(), come.clone()], LEAVES),
            ("moved and back while others are under way", vec![busy[1].clone(), move_on.clone(), go.clone(), come.clone()], LEAVES),
            ("announced again while its withdrawal is under way", vec![go.clone(), come.clone()], 2 * LEAVES),
            ("and that three times", vec![go.clone(), come.clone(), go.clone(), come.clone(), go.clone(), come.clone()], 2 * LEAVES),
            ("moved back while the move is under way", vec![move_on.clone(), come.clone()], 2 * LEAVES),
            ("withdrawn for good", vec![go.clone()], prefixes.len()),
            ("announced and withdrawn in one word", vec![both(&come, &go)], 0),
            ("withdrawn while its announcement is under way", vec![come.clone(), go.clone()], 2 * LEAVES),
            ("announced", vec![come.clone()], prefixes.len()),
        ];
        for (what, words, needed) in steps {
            let before = node.writes;
            // No event of the kernel is heard between them: what left is under way.
            words.into_iter().for_each(|changes| node.give(Input::Changes(changes)));
            node.settle();
            assert_eq!((node.writes - before, monitor.announced()), (needed, needed), "{what}");
        }
        assert_eq!(node.count(FibState::Installed), prefixes.len());
    });
}

/// Our routes as the kernel has them now, whatever objects they go by.
fn plain_routes() -> Vec<KernelRoute> {
    let mut routes = Monitor::start(&Settings::default()).ours();
    routes.iter_mut().for_each(|route| route.object = None);
    routes
}

/// Objects made and found again, changed by strangers, and lost with their link and with its carrier.
#[test]
fn routes_by_next_hop_objects_on_the_real_kernel() {
    in_namespace("routes_by_next_hop_objects_on_the_real_kernel", || {
        ip("link add w0 type veth peer name w1");
        ["link set w1 up", "link set w0 up", "addr add 10.0.1.1/24 dev w0"].into_iter().for_each(ip);
        let (v0, w0) = (index("v0"), index("w0"));
        let block = BestRoute { source: RouteSource::Block, local_pref: None, target: Target::Blackhole };
        let decided = [
            ("10.1.0.0/16", learned(&[("10.0.0.2", v0)])),
            ("10.2.0.0/16", learned(&[("10.0.0.2", v0), ("10.0.1.3", w0)])),
            ("10.3.0.0/16", learned(&[("fd00::2", v0)])),
            ("10.4.0.0/26", block),
            ("10.5.0.0/16", learned(&[("10.0.1.3", w0)])),
            ("2001:db8:1::/48", learned(&[("fd00::2", v0)])),
            ("2001:db8:2::/48", learned(&[("fd00::2", v0), ("fd00::3", v0)])),
        ];
        let prefixes = decided.each_ref().map(|(prefix, _)| *prefix);
        // The same without objects: what is to be there, whatever happens.
        let mut plain = Node::start();
        plain.decide(&decided);
        plain.until_state(FibState::Installed, &prefixes);
        let before = plain_routes();
        // Routes of a past life that name their hops stay as they are; new ones go by objects.
        let mut node = Node::with_objects();
        node.until_state(FibState::Adopted, &prefixes);
        node.decide(&decided);
        node.give(Input::Sweep);
        node.until_state(FibState::Installed, &prefixes);
        assert_eq!((node.writes, ip_says("nexthop show")), (0, String::new()));
        ["route flush proto 12", "-6 route flush proto 12"].into_iter().for_each(ip);
        node.until("all put back", |_| plain_routes() == before);
        let by_objects =
            || ip_says("route show proto 12").matches("nhid").count() + ip_says("-6 route show proto 12").matches("nhid").count();
        assert_eq!((by_objects(), ip_says("nexthop show").lines().count()), (6, 9), "{}", ip_says("nexthop show"));
        // A new life finds them, and writes nothing.
        drop(node);
        let mut node = Node::with_objects();
        node.until_state(FibState::Adopted, &prefixes);
        node.decide(&decided);
        node.until_state(FibState::Installed, &prefixes);
        node.give(Input::Sweep);
        assert_eq!((node.writes, node.fib.is_holding(), plain_routes()), (0, false, before.clone()));
        // Strangers delete a single object, and routes with it; one of a hop of several; and a route.
        let single = |gateway: &str| {
            let all = ip_says("nexthop show");
            let line = all.lines().find(|line| line.contains(&format!("via {gateway} "))).unwrap_or_else(|| panic!("{gateway} in {all}"));
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        ip(&format!("nexthop del id {}", single("10.0.0.2")));
        ip(&format!("nexthop del id {}", single("fd00::3")));
        ip("-6 route del 2001:db8:1::/48");
        node.until("all put back", |_| plain_routes() == before);
        // A link goes, and another loses its carrier: Linux takes objects and routes along without a word.
        ip("link set v0 down");
        node.until("gone", |node| node.state("10.1.0.0/16") == Some(FibState::Failed));
        assert!(ip_says("route show 10.2.0.0/16").contains("via 10.0.1.3 dev w0"), "the other hop is still there");
        ["link set v0 up", "addr add fd00::1/64 dev v0 nodad"].into_iter().for_each(ip);
        node.until("all put back", |_| plain_routes() == before);
        ip("link set w1 down");
        node.until("gone", |node| node.state("10.5.0.0/16") == Some(FibState::Failed));
        ip("link set w1 up");
        node.until("all put back", |_| plain_routes() == before);
        // The last address of an interface goes: its objects stay, and so do their routes.
        ip("addr del 10.0.1.1/24 dev w0");
        node.until_state(FibState::Installed, &prefixes);
        assert_eq!(plain_routes(), before);
        // Where Linux does not say what the routes of objects lead to, the objects do.
        std::fs::write("/proc/sys/net/ipv4/nexthop_compat_mode", "0").unwrap();
        assert!(!ip_says("route show 10.1.0.0/16").contains("10.0.0.2"));
        drop(node);
        let mut node = Node::with_objects();
        node.until_state(FibState::Adopted, &prefixes);
        node.decide(&decided);
        node.until_state(FibState::Installed, &prefixes);
        assert_eq!(node.writes, 0);
        node.give(Input::Sweep);
        // With all routes gone nothing stays behind.
        node.give(Input::Changes(prefixes.iter().map(|prefix| FibChange { prefix: prefix.parse().unwrap(), route: None }).collect()));
        node.until("nothing left", |_| ip_says("nexthop show").is_empty() && ip_says("route show proto 12").is_empty());
    });
}

#[test]
fn a_next_hop_that_dies_moves_a_hundred_thousand_routes_in_one_message() {
    const ROUTES: u32 = 100_000;
    in_namespace("a_next_hop_that_dies_moves_a_hundred_thousand_routes_in_one_message", || {
        let v0 = index("v0");
        let prefixes = hosts(ROUTES);
        let mut node = Node::with_objects();
        node.until("the table told", |node| node.knows_the_table());
        node.give(Input::Sweep);
        node.give(Input::Changes(changes(&prefixes, Some(&learned(&[("10.0.0.2", v0)])))));
        node.settle();
        assert_eq!(node.count(FibState::Installed), prefixes.len());
        // As the Loc-RIB tells of it; there and back.
        for gateway in ["10.0.0.3", "10.0.0.2"] {
            let before = node.writes;
            let best = learned(&[(gateway, v0)]);
            // However busy the machine is, the Loc-RIB is quick here.
            let now = Instant::now();
            for part in prefixes.chunks(4096) {
                node.fib.handle(now, Input::Changes(changes(part, Some(&best))), &mut node.out);
                node.collect();
            }
            node.until("moved", |node| node.under_way == 0 && !node.fib.is_holding());
            assert_eq!(node.count(FibState::Installed), prefixes.len());
            // The single object of the new hop, the group; and the end of the other single object.
            assert!((2..=3).contains(&(node.writes - before)), "{} writes", node.writes - before);
            for prefix in [prefixes.first(), prefixes.get(prefixes.len() / 2), prefixes.last()].into_iter().flatten() {
                let line = ip_says(&format!("route get {}", prefix.addr()));
                assert!(line.contains(&format!("via {gateway} dev v0")), "{line}");
            }
            assert_eq!(ip_says("route show proto 12").matches(&format!("via {gateway} ")).count(), prefixes.len());
        }
    });
}
