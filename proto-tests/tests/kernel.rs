//! The kernel's side on the real kernel: each test runs again inside a network namespace of its own, made by `unshare`.
//!
//! Needs root, or a host that lets users make namespaces; says so and passes where neither is the case.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command as Process;
use std::time::Duration;

use ipnet::IpNet;
use margay::fib::{KernelEvent, KernelHop, KernelOp, KernelOps, KernelRoute, Link, RouteKey, RouteType};
use margay::kernel::{Command, Settings, spawn};
use margay::types::Sync;
use tokio::sync::mpsc;

const INSIDE: &str = "MARGAY_TEST_NAMESPACE";

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
        eprintln!("skipped: {test} needs a network namespace: run as root or allow user namespaces, with util-linux installed");
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
    /// Routes told singly.
    told: usize,
    batch: u64,
    runtime: tokio::runtime::Runtime,
}

impl Monitor {
    fn start(settings: &Settings) -> Self {
        let (commands, events) = spawn(settings).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (links, addresses, routes, written) = Default::default();
        let mut monitor = Self { commands, events, links, addresses, routes, written, tellings: 0, told: 0, batch: 0, runtime };
        monitor.until("first telling", |m| m.tellings == 1);
        monitor
    }

    /// Hears events until `done`; fails after 20 seconds.
    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let next = self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), self.events.recv()).await });
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
            KernelEvent::Route(Sync::Remove(key)) => drop(self.routes.remove(&key)),
            KernelEvent::Route(Sync::End) => self.tellings += 1,
            KernelEvent::Written { batch, failed } => drop(self.written.insert(batch, failed)),
            KernelEvent::Flushed { .. } | KernelEvent::Link(Sync::End) | KernelEvent::Address(Sync::End) => {}
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
