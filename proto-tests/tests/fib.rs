//! The FibSyncer against a model of the kernel, in virtual time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use margay::config::FibConfig;
use margay::fib::{
    BestRoute, FibChange, FibState, FibStatus, FibSyncer, Hop, Input, KernelEvent, KernelOp, KernelOps, KernelRoute, Link, Output, Query,
    RouteKey, RouteType, Target,
};
use margay::policy::RouteSource;
use margay::types::{NextHop, Outbox, QueryId, Sync};

/// A kernel: one table, links, and the same words as the real one. Own writes are not echoed.
#[derive(Default)]
struct ModelKernel {
    links: BTreeMap<u32, Link>,
    routes: BTreeMap<RouteKey, KernelRoute>,
    /// Told and not yet heard.
    events: Vec<KernelEvent>,
    /// Operations asked for.
    ops: usize,
    /// Errno of the next operations on a prefix.
    fail: BTreeMap<IpNet, Vec<i32>>,
}

impl ModelKernel {
    fn tell_everything(&mut self) {
        self.events.push(KernelEvent::Link(Sync::Begin));
        self.events.extend(self.links.iter().map(|(index, link)| KernelEvent::Link(Sync::Upsert(*index, link.clone()))));
        self.events.push(KernelEvent::Link(Sync::End));
        self.events.push(KernelEvent::Route(Sync::Begin));
        self.events.extend(self.routes.iter().map(|(key, route)| KernelEvent::Route(Sync::Upsert(*key, route.clone()))));
        self.events.push(KernelEvent::Route(Sync::End));
    }

    fn apply(&mut self, KernelOps { batch, ops }: KernelOps) {
        let mut failed = vec![];
        for (index, op) in ops.iter().enumerate() {
            self.ops += 1;
            if let Some(errno) = self.refuses(op) {
                failed.push((index, errno));
            }
        }
        self.events.push(KernelEvent::Written { batch, failed });
    }

    fn refuses(&mut self, op: &KernelOp) -> Option<i32> {
        let (KernelOp::Create(route) | KernelOp::Replace(route) | KernelOp::Delete(route)) = op;
        let key = route.key;
        if let Some(errno) = self.fail.get_mut(&key.prefix).and_then(Vec::pop) {
            return Some(errno);
        }
        let present = self.routes.get(&key);
        if matches!(op, KernelOp::Delete(_)) {
            if present.is_none_or(|present| present.protocol != route.protocol) {
                return Some(3);
            }
            self.routes.remove(&key);
            return None;
        }
        if let KernelOp::Create(_) = op
            && present.is_some()
        {
            return Some(17);
        }
        assert!(present.is_none_or(|present| present.protocol == 12), "a route of somebody else was overwritten: {present:?}");
        if route.hops.iter().any(|hop| !self.links.get(&hop.interface).is_some_and(|link| link.up)) {
            return Some(100);
        }
        self.routes.insert(key, route.clone());
        None
    }

    fn stranger_sets(&mut self, route: KernelRoute) {
        self.events.push(KernelEvent::Route(Sync::Upsert(route.key, route.clone())));
        self.routes.insert(route.key, route);
    }

    fn stranger_deletes(&mut self, key: RouteKey) {
        if self.routes.remove(&key).is_some() {
            self.events.push(KernelEvent::Route(Sync::Remove(key)));
        }
    }

    fn set_link(&mut self, index: u32, name: &str, up: bool) {
        let link = Link { name: name.into(), up };
        self.links.insert(index, link.clone());
        self.events.push(KernelEvent::Link(Sync::Upsert(index, link)));
        if up {
            return;
        }
        let links = &self.links;
        let dead =
            |route: &KernelRoute| !route.hops.is_empty() && route.hops.iter().all(|hop| !links.get(&hop.interface).is_some_and(|l| l.up));
        let gone: Vec<_> = self.routes.values().filter(|route| dead(route)).cloned().collect();
        for route in gone {
            self.routes.remove(&route.key);
            // IPv4 is silent about it; for routes of others the monitor makes up for that.
            if route.key.prefix.addr().is_ipv6() || route.protocol != 12 {
                self.events.push(KernelEvent::Route(Sync::Remove(route.key)));
            }
        }
        self.events.push(KernelEvent::Flushed { interface: index });
    }
}

/// A FibSyncer, its kernel and a clock.
struct World {
    now: Instant,
    fib: FibSyncer,
    kernel: ModelKernel,
    out: Outbox<Output>,
    answers: Vec<FibStatus>,
    pulls: usize,
    resyncs: usize,
}

impl World {
    fn new() -> Self {
        let mut kernel = ModelKernel::default();
        kernel.set_link(2, "eth0", true);
        kernel.set_link(3, "eth1", true);
        kernel.events.clear();
        kernel.tell_everything();
        Self::over(kernel)
    }

    fn over(kernel: ModelKernel) -> Self {
        let fib = FibSyncer::new(&FibConfig::default());
        Self { now: Instant::now(), fib, kernel, out: Outbox::new(), answers: vec![], pulls: 0, resyncs: 0 }
    }

    /// The process dies and starts again; the kernel stays, its table is told anew.
    fn restart(self) -> Self {
        let Self { mut kernel, .. } = self;
        kernel.events.clear();
        kernel.ops = 0;
        kernel.tell_everything();
        Self::over(kernel)
    }

    fn give(&mut self, input: Input) {
        self.fib.handle(self.now, input, &mut self.out);
        self.collect();
    }

    fn collect(&mut self) {
        for output in self.out.drain().collect::<Vec<_>>() {
            match output {
                Output::Write(ops) => self.kernel.apply(ops),
                Output::Resync => {
                    self.resyncs += 1;
                    self.kernel.tell_everything();
                }
                Output::Pull { .. } => self.pulls += 1,
                Output::Answer { rows, .. } => self.answers.extend(rows),
            }
        }
    }

    /// Hears everything that is told, without letting time pass.
    fn settle(&mut self) {
        loop {
            let events = std::mem::take(&mut self.kernel.events);
            let due = self.fib.deadline().is_some_and(|at| at <= self.now);
            if events.is_empty() && !due {
                return;
            }
            events.into_iter().for_each(|event| self.give(Input::Kernel(event)));
            if due {
                self.fib.on_deadline(self.now, &mut self.out);
                self.collect();
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        while let Some(at) = self.fib.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.fib.on_deadline(self.now, &mut self.out);
            self.collect();
            self.settle();
        }
        self.now = end;
    }

    fn change(&mut self, prefix: &str, route: Option<BestRoute>) {
        self.give(Input::Changes(vec![FibChange { prefix: prefix.parse().unwrap(), route }]));
    }

    fn status(&mut self, prefix: &str) -> FibStatus {
        self.answers.clear();
        self.give(Input::Query(QueryId(1), Query::Prefix(prefix.parse().unwrap())));
        self.answers.pop().expect("a row")
    }

    fn state(&mut self, prefix: &str) -> FibState {
        self.status(prefix).state
    }

    /// The kernel's routes, as `ip route` would show them.
    fn table(&self) -> Vec<String> {
        self.kernel.routes.values().map(show).collect()
    }
}

fn show(route: &KernelRoute) -> String {
    let kind = if route.kind == RouteType::Unicast { String::new() } else { format!("{:?} ", route.kind).to_lowercase() };
    let hops: String = route.hops.iter().map(|hop| format!(" via {} dev {}", hop.gateway.unwrap(), hop.interface)).collect();
    let protocol = if route.protocol == 12 { String::new() } else { format!(" proto {}", route.protocol) };
    format!("{kind}{}{hops} metric {}{protocol}", route.key.prefix, route.key.metric)
}

fn learned(hops: &[(&str, u32)]) -> Option<BestRoute> {
    let hops = hops.iter().map(|(gateway, interface)| {
        let gateway = gateway.parse().unwrap();
        Hop { next_hop: NextHop::Global(gateway), gateway: Some(gateway), interface: *interface }
    });
    Some(BestRoute { source: RouteSource::Ibgp, local_pref: Some(2_147_482_623), target: Target::Via(hops.collect()) })
}

fn block() -> Option<BestRoute> {
    Some(BestRoute { source: RouteSource::Block, local_pref: None, target: Target::Blackhole })
}

fn foreign(prefix: &str, metric: u32) -> KernelRoute {
    let key = RouteKey { table: 254, prefix: prefix.parse().unwrap(), metric, tos: 0 };
    KernelRoute { key, protocol: 80, kind: RouteType::Blackhole, scope: 0, hops: Default::default(), preferred_source: None }
}

#[test]
fn installs_changes_and_removes() {
    let mut world = World::new();
    world.change("10.1.0.0/26", learned(&[("10.0.0.2", 2)]));
    world.change("10.2.0.0/26", block());
    assert_eq!((world.kernel.ops, world.state("10.1.0.0/26")), (0, FibState::Pending), "nothing is written before the table is known");
    world.settle();
    assert_eq!(world.table(), ["10.1.0.0/26 via 10.0.0.2 dev 2 metric 1024", "blackhole 10.2.0.0/26 metric 0"]);
    world.change("10.1.0.0/26", learned(&[("10.0.0.2", 2), ("10.0.1.2", 3)]));
    world.change("10.2.0.0/26", None);
    world.settle();
    assert_eq!(world.table(), ["10.1.0.0/26 via 10.0.0.2 dev 2 via 10.0.1.2 dev 3 metric 1024"]);
    assert_eq!((world.kernel.ops, world.state("10.1.0.0/26")), (4, FibState::Installed));
}

#[test]
fn g1_a_restart_with_the_same_routes_writes_nothing() {
    let mut world = World::new();
    world.change("10.1.0.0/26", learned(&[("10.0.0.2", 2)]));
    world.change("10.2.0.0/26", learned(&[("10.0.0.2", 2), ("10.0.1.2", 3)]));
    world.change("10.3.0.0/26", block());
    world.change("10.4.0.0/26", learned(&[("10.0.0.2", 2)]));
    world.change("10.5.0.0/26", learned(&[("10.0.0.2", 2)]));
    world.settle();
    let before = world.table();
    let mut world = world.restart();
    world.settle();
    assert_eq!((world.state("10.1.0.0/26"), world.table()), (FibState::Adopted, before.clone()));
    world.change("10.1.0.0/26", learned(&[("10.0.0.2", 2)]));
    // Multipath comes back path by path.
    world.change("10.2.0.0/26", learned(&[("10.0.1.2", 3)]));
    world.settle();
    assert_eq!(world.state("10.2.0.0/26"), FibState::Adopted);
    world.change("10.2.0.0/26", learned(&[("10.0.0.2", 2), ("10.0.1.2", 3)]));
    world.change("10.3.0.0/26", block());
    world.settle();
    assert_eq!((world.kernel.ops, world.table()), (0, before));
    // Another path for an adopted prefix is one write.
    world.change("10.4.0.0/26", learned(&[("10.0.0.9", 2)]));
    world.settle();
    assert_eq!((world.kernel.ops, world.state("10.4.0.0/26")), (1, FibState::Installed));
    // What nobody claimed goes with the sweep, and only then.
    assert_eq!(world.state("10.5.0.0/26"), FibState::Adopted);
    world.give(Input::Sweep);
    world.settle();
    assert_eq!((world.kernel.ops, world.table().len()), (2, 4));
}

#[test]
fn a_stranger_s_edit_of_our_route_is_undone() {
    let mut world = World::new();
    world.change("10.1.0.0/26", learned(&[("10.0.0.2", 2)]));
    world.settle();
    let (table, ours) = (world.table(), world.kernel.routes.values().next().unwrap().clone());
    world.kernel.stranger_deletes(ours.key);
    world.settle();
    assert_eq!(world.table(), table);
    let mut edited = ours.clone();
    edited.hops[0].gateway = Some("10.0.0.66".parse().unwrap());
    world.kernel.stranger_sets(edited);
    world.settle();
    assert_eq!((world.table(), world.kernel.ops), (table, 3));
}

#[test]
fn a_foreign_route_is_never_touched_and_is_named() {
    let mut world = World::new();
    world.settle();
    world.kernel.stranger_sets(foreign("10.1.0.0/26", 0));
    world.settle();
    world.change("10.1.0.0/26", block());
    world.settle();
    let status = world.status("10.1.0.0/26");
    assert_eq!((status.state, world.kernel.ops), (FibState::Failed, 0));
    assert!(status.because.contains("Felix (protocol 80)"), "{}", status.because);
    let key = foreign("10.1.0.0/26", 0).key;
    world.kernel.stranger_deletes(key);
    world.settle();
    assert_eq!(world.state("10.1.0.0/26"), FibState::Installed);
    // Replaced under our feet: it is theirs now.
    world.kernel.stranger_sets(foreign("10.1.0.0/26", 0));
    world.pass(Duration::from_secs(1000));
    assert_eq!(world.table(), ["blackhole 10.1.0.0/26 metric 0 proto 80"]);
}

#[test]
fn q16_a_refused_route_is_tried_again() {
    let mut world = World::new();
    world.settle();
    world.kernel.fail.insert("10.1.0.0/26".parse().unwrap(), vec![101; 3]);
    world.change("10.1.0.0/26", learned(&[("10.0.0.2", 2)]));
    world.change("10.2.0.0/26", learned(&[("10.0.0.2", 2)]));
    world.settle();
    let status = world.status("10.1.0.0/26");
    assert_eq!((status.state, status.errno, world.state("10.2.0.0/26")), (FibState::Failed, Some(101), FibState::Installed));
    assert!(status.because.contains("ENETUNREACH"), "{}", status.because);
    world.pass(Duration::from_secs(6));
    assert_eq!((world.state("10.1.0.0/26"), world.kernel.ops), (FibState::Failed, 4));
    world.pass(Duration::from_secs(1));
    assert_eq!((world.state("10.1.0.0/26"), world.kernel.ops), (FibState::Installed, 5));
}
