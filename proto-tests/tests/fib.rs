//! The FibSyncer against a model of the kernel, in virtual time. Long because the model and its faults stand beside the stories.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use margay::config::{FibAction, FibConfig, FibRule};
use margay::fib::{
    BestRoute, FibChange, FibState, FibStatus, FibSyncer, Hop, Input, KernelHop, KernelOp, KernelRoute, Output, Query, RouteKey, RouteType,
    Target,
};
use margay::kernel::Command;
use margay::policy::RouteSource;
use margay::types::{NextHop, Outbox, QueryId};
use proto_tests::sim::model_kernel::{ModelKernel, show};

/// A FibSyncer, its kernel and a clock.
struct World {
    now: Instant,
    fib: FibSyncer,
    kernel: ModelKernel,
    out: Outbox<Output>,
    /// Prefixes of the writes, in their order.
    sent: Vec<IpNet>,
    answers: Vec<FibStatus>,
    answers_done: usize,
    pulls: usize,
    resyncs: usize,
    /// What people are told of failures.
    refusals: Vec<(IpNet, i32)>,
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
        Self::of(kernel, FibSyncer::new(&FibConfig::default(), 7))
    }

    /// Routes go by next-hop objects.
    fn with_objects(self) -> Self {
        Self::of(self.kernel, FibSyncer::new(&FibConfig::default(), 7).with_objects())
    }

    fn of(kernel: ModelKernel, fib: FibSyncer) -> Self {
        Self {
            now: Instant::now(),
            fib,
            kernel,
            out: Outbox::new(),
            sent: vec![],
            answers: vec![],
            answers_done: 0,
            pulls: 0,
            resyncs: 0,
            refusals: vec![],
        }
    }

    /// The process dies and starts again; the kernel stays, its table is told anew.
    fn restart(self) -> Self {
        let Self { mut kernel, .. } = self;
        kernel.events.clear();
        kernel.commands.clear();
        kernel.answer = None;
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
                Output::Write(ops) => {
                    self.sent.extend(ops.ops.iter().filter_map(|op| match op {
                        KernelOp::Create(route) | KernelOp::Replace(route) | KernelOp::Delete(route) => Some(route.key.prefix),
                        _ => None,
                    }));
                    self.kernel.commands.push_back(Command::Write(ops));
                }
                Output::Resync => {
                    self.resyncs += 1;
                    self.kernel.commands.push_back(Command::Resync);
                }
                Output::Pull { .. } => self.pulls += 1,
                Output::Refused { prefix, errno, .. } => self.refusals.push((prefix, errno)),
                Output::Answer { rows, done, .. } => {
                    self.answers.extend(rows);
                    self.answers_done += usize::from(done);
                }
            }
        }
    }

    /// Hears what the kernel has told; whether it was anything.
    fn hear_all(&mut self) -> bool {
        let events = std::mem::take(&mut self.kernel.events);
        let any = !events.is_empty();
        events.into_iter().for_each(|event| self.give(Input::Kernel(event)));
        any
    }

    /// Hears everything that is told, without letting time pass.
    fn settle(&mut self) {
        loop {
            while self.kernel.work() {}
            let due = self.fib.deadline().is_some_and(|at| at <= self.now);
            if !self.hear_all() && !due {
                return;
            }
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
        self.give(Input::Query(QueryId(1), Query::Prefixes(vec![prefix.parse().unwrap()])));
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
    KernelRoute { key, protocol: 80, kind: RouteType::Blackhole, scope: 0, hops: Default::default(), preferred_source: None, object: None }
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
    assert_eq!(world.refusals, [("10.1.0.0/26".parse().unwrap(), 101)], "the same refusal again is no news");
}

#[test]
fn a_flap_that_cancels_out_writes_nothing() {
    let mut world = World::new();
    world.settle();
    world.change("10.1.0.0/26", learned(&[("10.0.0.2", 2)]));
    // The first batch is under way and not answered.
    for _ in 0..3 {
        world.change("10.2.0.0/26", learned(&[("10.0.0.2", 2)]));
        world.change("10.2.0.0/26", None);
        world.change("10.1.0.0/26", None);
        world.change("10.1.0.0/26", learned(&[("10.0.0.2", 2)]));
    }
    assert_eq!(world.kernel.commands.len(), 1);
    world.settle();
    assert_eq!((world.kernel.ops, world.table()), (1, vec!["10.1.0.0/26 via 10.0.0.2 dev 2 metric 1024".into()]));
}

/// The kernel never waits for the next batch, and no prefix is in two of them.
#[test]
fn the_next_batch_is_there_while_the_kernel_writes_the_first() {
    let mut world = World::new();
    world.settle();
    let route = learned(&[("10.0.0.2", 2)]);
    let change = |n: u32| FibChange { prefix: IpNet::new((0x0a40_0000 + n).to_be_bytes().into(), 32).unwrap(), route: route.clone() };
    world.give(Input::Changes((0..20_000).map(change).collect()));
    let written = |command: &Command| match command {
        Command::Write(ops) => {
            ops.ops.iter().filter_map(|op| if let KernelOp::Create(route) = op { Some(route.key.prefix) } else { None }).collect()
        }
        Command::Resync | Command::Ping(_) => Vec::new(),
    };
    let batches: Vec<Vec<IpNet>> = world.kernel.commands.iter().map(written).collect();
    assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [4096, 4096]);
    // What flaps while it is under way is not written again before the answer.
    world.give(Input::Changes(batches[0].iter().map(|prefix| FibChange { prefix: *prefix, route: None }).collect()));
    world.give(Input::Changes(batches[0].iter().map(|prefix| FibChange { prefix: *prefix, route: route.clone() }).collect()));
    world.settle();
    assert_eq!((world.kernel.ops, world.kernel.routes.len()), (20_000, 20_000));
}

#[test]
fn who_looks_on_writes_nothing_and_says_what_it_would_write() {
    let mut world = World::new();
    world.fib = FibSyncer::new(&FibConfig::default(), 7).looking_on();
    world.kernel.tell_everything();
    world.change("10.1.0.0/26", learned(&[("10.0.0.2", 2)]));
    world.settle();
    let status = world.status("10.1.0.0/26");
    assert_eq!((status.state, world.kernel.ops), (FibState::Pending, 0));
    assert!(status.because.contains("dry run"), "{}", status.because);
    world.change("10.1.0.0/26", None);
    world.give(Input::Query(QueryId(7), Query::All));
    assert_eq!((world.answers.len(), world.kernel.ops), (0, 0));
}

#[test]
fn who_forwards_nothing_hears_everything_and_keeps_nothing() {
    let mut world = World::new();
    world.fib = FibSyncer::new(&FibConfig::default(), 7).idle();
    world.kernel.tell_everything();
    for number in 0..3_u8 {
        world.change(&format!("10.1.{number}.0/24"), learned(&[("10.0.0.2", 2)]));
        world.settle();
    }
    assert_eq!((world.pulls, world.kernel.ops), (3, 0), "it goes on asking, and writes nothing");
    world.give(Input::Query(QueryId(7), Query::Prefixes(vec!["10.1.0.0/24".parse().unwrap()])));
    assert_eq!(world.answers.len(), 0);
}

#[test]
fn another_metric_is_written_before_the_old_one_goes() {
    let mut world = World::new();
    world.change("10.1.0.0/26", learned(&[("10.0.0.2", 2)]));
    world.settle();
    let elevated = BestRoute { local_pref: Some(2_147_483_135), ..learned(&[("10.0.1.2", 3)]).unwrap() };
    world.change("10.1.0.0/26", Some(elevated));
    let Some(Command::Write(batch)) = world.kernel.commands.front() else { panic!("nothing to write") };
    assert!(matches!(&batch.ops[..], [KernelOp::Create(new), KernelOp::Delete(old)] if new.key.metric == 512 && old.key.metric == 1024));
    world.settle();
    assert_eq!(world.table(), ["10.1.0.0/26 via 10.0.1.2 dev 3 metric 512"]);
}

#[test]
fn routes_come_back_with_their_link() {
    let mut world = World::new();
    world.change("10.1.0.0/26", learned(&[("10.0.0.2", 2)]));
    world.change("10.2.0.0/26", learned(&[("10.0.0.2", 2), ("10.0.1.2", 3)]));
    world.change("fd00::/64", learned(&[("fd00::2", 2)]));
    world.settle();
    let before = world.table();
    world.kernel.set_link(2, "eth0", false);
    world.settle();
    assert_eq!(world.table(), ["10.2.0.0/26 via 10.0.0.2 dev 2 via 10.0.1.2 dev 3 metric 1024"]);
    let status = world.status("10.1.0.0/26");
    assert_eq!((status.state, status.errno), (FibState::Failed, Some(100)));
    assert!(status.because.ends_with("eth0 is down or gone"), "{}", status.because);
    world.kernel.set_link(2, "eth0", true);
    world.settle();
    assert_eq!(world.table(), before);
}

#[test]
fn an_audit_finds_what_was_never_told() {
    let mut world = World::new();
    world.change("10.1.0.0/26", learned(&[("10.0.0.2", 2)]));
    world.settle();
    let before = world.table();
    world.kernel.routes.clear();
    world.pass(Duration::from_secs(299));
    assert_eq!((world.table(), world.resyncs), (vec![], 0));
    world.pass(Duration::from_secs(1));
    assert_eq!((world.table(), world.resyncs), (before, 1));
}

fn rules(action: Option<FibAction>) -> Input {
    let rule = |action| FibRule { cidr: "10.0.0.0/8".parse().unwrap(), name: "IPPool pool-a".into(), learned_only: false, action };
    Input::Configure(Arc::new(FibConfig { rules: action.map(rule).into_iter().collect(), ..FibConfig::default() }))
}

#[test]
fn rules_and_tunnel_devices_may_change() {
    let mut world = World::new();
    for i in 0..10_000 {
        world.change(&format!("10.{}.{}.0/24", i >> 8, i & 0xff), learned(&[("10.0.0.2", 2)]));
    }
    world.change("192.0.2.0/24", learned(&[("10.0.0.2", 2)]));
    world.settle();
    let tunnel = FibAction::Tunnel { device: "tunl0".into(), unless_in: None };
    world.give(rules(Some(tunnel.clone())));
    world.settle();
    assert_eq!(world.kernel.ops, 10_001, "without the device the routes stay plain");
    world.kernel.set_link(7, "tunl0", true);
    world.settle();
    assert_eq!(world.kernel.ops, 20_001);
    let tunnelled =
        |world: &World| world.kernel.routes.values().filter(|route| route.hops[0].interface == 7 && route.hops[0].onlink).count();
    assert_eq!(tunnelled(&world), 10_000);
    world.give(rules(Some(FibAction::Skip)));
    world.settle();
    assert_eq!(world.table(), ["192.0.2.0/24 via 10.0.0.2 dev 2 metric 1024"]);
    let status = world.status("10.1.1.0/24");
    assert_eq!((status.state, &*status.because), (FibState::NotWanted, "kept out by IPPool pool-a"));
    world.give(rules(None));
    world.settle();
    assert_eq!((world.kernel.routes.len(), tunnelled(&world)), (10_001, 0));
}

#[test]
fn questions_are_answered_in_bounded_steps_and_in_order() {
    let mut world = World::new();
    for i in 0..1000 {
        world.change(&format!("10.{}.{}.0/24", i >> 8, i & 0xff), learned(&[("10.0.0.2", 2)]));
    }
    world.settle();
    world.give(Input::Query(QueryId(7), Query::All));
    assert_eq!((world.answers.len(), world.answers_done), (256, 0));
    world.settle();
    assert_eq!((world.answers.len(), world.answers_done), (1000, 1));
    assert!(world.answers.is_sorted_by_key(|row| row.prefix));
    assert!(world.answers.iter().all(|row| row.state == FibState::Installed));
}

#[test]
fn a_question_waits_while_whoever_asked_has_no_room() {
    let mut world = World::new();
    for i in 0..1000 {
        world.change(&format!("10.{}.{}.0/24", i >> 8, i & 0xff), learned(&[("10.0.0.2", 2)]));
    }
    world.settle();
    world.give(Input::Query(QueryId(7), Query::All));
    world.give(Input::Pause(QueryId(7)));
    world.settle();
    let told = world.answers.len();
    assert!(told <= 512 && world.answers_done == 0, "{told} rows were told");
    world.give(Input::Query(QueryId(8), Query::Prefixes(vec!["10.0.7.0/24".parse().unwrap(), "192.0.2.0/24".parse().unwrap()])));
    assert_eq!((world.answers.len(), world.answers_done), (told + 1, 1), "others are answered meanwhile");
    world.give(Input::Resume(QueryId(7)));
    world.settle();
    assert_eq!((world.answers.len(), world.answers_done), (1001, 2));
    world.give(Input::Query(QueryId(9), Query::All));
    world.give(Input::Abandon(QueryId(9)));
    world.settle();
    assert_eq!(world.answers_done, 2, "nobody wanted the rest");
}

#[test]
fn one_state_can_be_asked_for() {
    let mut world = World::new();
    for i in 0..9000 {
        world.change(&format!("10.{}.{}.0/24", i >> 8, i & 0xff), learned(&[("10.0.0.2", 2)]));
    }
    world.change("192.0.2.0/24", learned(&[("10.0.0.2", 2)]));
    world.settle();
    world.give(rules(Some(FibAction::Skip)));
    world.settle();
    for (state, rows) in [(FibState::Installed, 1), (FibState::NotWanted, 9000), (FibState::Failed, 0)] {
        world.answers.clear();
        let done = world.answers_done;
        world.give(Input::Query(QueryId(7), Query::InState(state)));
        world.settle();
        assert_eq!((world.answers_done, world.answers.len()), (done + 1, rows), "{state:?}");
        assert!(world.answers.iter().all(|row| row.state == state));
    }
}

#[test]
fn changes_are_pulled_until_enough_wait() {
    let mut world = World::new();
    world.give(Input::Sweep);
    const PART: u32 = 65_536;
    let mut given = 0u32;
    while world.pulls > 0 {
        assert!(given < 32 * PART, "it goes on asking");
        world.pulls = 0;
        let prefix = |i: u32| IpNet::new(std::net::Ipv4Addr::from(0x6400_0000 + i).into(), 32).unwrap();
        let changes = (given..given + PART).map(|i| FibChange { prefix: prefix(i), route: learned(&[("10.0.0.2", 2)]) });
        given += PART;
        world.give(Input::Changes(changes.collect()));
    }
    assert_eq!(given, 16 * PART, "the Loc-RIB keeps the rest");
    world.hear_all();
    assert_eq!((world.sent.len(), world.pulls), (2 * 4096, 1), "the kernel's table is known, and two batches have left");
}

/// Linux likes IPv4 routes far apart from each other and IPv6 routes in a row; most of a table waits while the first of it is written.
#[test]
fn what_waits_is_written_in_the_order_that_linux_likes() {
    const ROUTES: u32 = 64 * 1024;
    let mut world = World::new();
    world.settle();
    let route = learned(&[("fe80::2", 2)]);
    let ipv4 = |n: u32| IpNet::new((0x0a00_0000 + n).to_be_bytes().into(), 32).unwrap();
    let ipv6 = |n: u32| IpNet::new(std::net::Ipv6Addr::from(0x2600 << 112 | u128::from(ROUTES - n) << 64).into(), 64).unwrap();
    let change = |prefix| FibChange { prefix, route: route.clone() };
    world.give(Input::Changes((0..ROUTES).map(ipv4).chain((0..ROUTES).map(ipv6)).map(change).collect()));
    world.settle();
    let (first, rest) = world.sent.split_at(ROUTES as usize);
    let number = |prefix: &IpNet| match prefix.addr() {
        std::net::IpAddr::V4(address) => u32::from(address),
        std::net::IpAddr::V6(_) => panic!("{prefix} before the last of IPv4"),
    };
    assert!(first.windows(2).all(|pair| number(&pair[0]).abs_diff(number(&pair[1])) > ROUTES / 8));
    assert!(rest.len() == ROUTES as usize && rest.is_sorted());
}

/// A small generator; every run is reproduced by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % limit as u64).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    fn route(&mut self) -> BestRoute {
        let local_pref = Some(*self.pick(&[2_147_482_623, 2_147_482_623, 2_147_483_135, 100]));
        match self.below(8) {
            0 => block().unwrap(),
            1 => BestRoute { source: RouteSource::Ebgp, local_pref, target: Target::Unreachable },
            2 => BestRoute { source: RouteSource::Kernel, local_pref: None, target: Target::Blackhole },
            _ => {
                let mut hops: Vec<_> =
                    [("10.0.0.2", 2), ("10.0.0.3", 2), ("10.0.1.2", 3)].into_iter().filter(|_| !self.one_in(2)).collect();
                if hops.is_empty() {
                    hops.push(("10.0.1.9", 3));
                }
                BestRoute { local_pref, ..learned(&hops).unwrap() }
            }
        }
    }
}

/// What the kernel is to hold for a best route when no rule speaks.
fn expected(prefix: IpNet, best: &BestRoute) -> Option<KernelRoute> {
    let metric = match best.source {
        RouteSource::Kernel | RouteSource::Device => return None,
        source if source.is_bgp() => 2_147_483_647 - best.local_pref.unwrap(),
        _ if prefix.addr().is_ipv6() => 1024,
        _ => 0,
    };
    let (kind, mut hops) = match &best.target {
        Target::Blackhole => (RouteType::Blackhole, vec![]),
        Target::Unreachable => (RouteType::Unreachable, vec![]),
        Target::Via(hops) => {
            let hop = |hop: &Hop| KernelHop { gateway: hop.gateway, interface: hop.interface, onlink: false };
            (RouteType::Unicast, hops.iter().map(hop).collect())
        }
    };
    hops.sort_unstable();
    let key = RouteKey { table: 254, prefix, metric, tos: 0 };
    Some(KernelRoute { key, protocol: 12, kind, scope: 0, hops: hops.into_iter().collect(), preferred_source: None, object: None })
}

/// One life after another of a FibSyncer in a hostile world.
fn hostile_world(seed: u64, objects: bool) {
    let mut random = Random(seed);
    let prefixes: Vec<IpNet> =
        (0..6).flat_map(|i| [format!("10.{i}.0.0/16").parse().unwrap(), format!("fd00:{i}::/32").parse().unwrap()]).collect();
    let start = |world: World| if objects { world.with_objects() } else { world };
    let mut world = start(World::new());
    let mut desired: BTreeMap<IpNet, BestRoute> = BTreeMap::new();
    for life in 0..4 {
        for _ in 0..random.below(200) {
            step(&mut world, &mut random, &prefixes, &mut desired);
            if objects && random.one_in(8) {
                crowd_step(&mut world, &mut random, &mut desired);
            }
        }
        calm_down(&mut world);
        compare(&world, &desired, &format!("seed {seed} life {life}"));
        let ops = world.kernel.ops;
        world.pass(Duration::from_secs(1000));
        assert_eq!(world.kernel.ops, ops, "seed {seed} life {life}: writes though nothing changed");
        if random.one_in(3) {
            world.kernel.routes.clear();
            world = start(world.restart());
            desired.clear();
        } else {
            world = zero_writes(start(world.restart()), &desired, &format!("seed {seed} life {life}"));
        }
    }
}

fn step(world: &mut World, random: &mut Random, prefixes: &[IpNet], desired: &mut BTreeMap<IpNet, BestRoute>) {
    let prefix = *random.pick(prefixes);
    match random.below(20) {
        0..6 => {
            let route = (!random.one_in(4)).then(|| random.route());
            match route.clone() {
                Some(route) => drop(desired.insert(prefix, route)),
                None => drop(desired.remove(&prefix)),
            }
            world.give(Input::Changes(vec![FibChange { prefix, route }]));
        }
        6 => {
            let mut route = foreign(&prefix.to_string(), *random.pick(&[0, 512, 1024]));
            if prefix.addr().is_ipv6() {
                route.key.metric = 1024;
            }
            world.kernel.stranger_sets(route);
        }
        7 => {
            if let Some(mut route) = expected(prefix, &random.route()) {
                route.hops.retain(|hop| world.kernel.links[&hop.interface].up);
                if !route.hops.is_empty() {
                    world.kernel.stranger_sets(route);
                }
            }
        }
        8 | 9 => {
            let keys: Vec<_> = world.kernel.routes.keys().copied().collect();
            if !keys.is_empty() {
                world.kernel.stranger_deletes(*random.pick(&keys));
            }
        }
        10 => world.kernel.set_link(2, "eth0", !random.one_in(2)),
        11 => world.kernel.set_link(3, "eth1", !random.one_in(2)),
        12 => drop(world.kernel.fail.insert(prefix, vec![*random.pick(&[1, 12, 22, 101, 105]); 1 + random.below(3)])),
        13 if random.one_in(3) => world.kernel.overrun(),
        14 => world.pass(Duration::from_millis(random.below(10_000) as u64)),
        15 if random.one_in(5) => world.give(Input::Sweep),
        16 => drop(world.kernel.work()),
        _ => {
            let upto = random.below(world.kernel.events.len() + 1);
            let heard: Vec<_> = world.kernel.events.drain(..upto).collect();
            heard.into_iter().for_each(|event| world.give(Input::Kernel(event)));
        }
    }
}

/// Most of a crowd takes other hops at once, or an object is deleted by a stranger.
fn crowd_step(world: &mut World, random: &mut Random, desired: &mut BTreeMap<IpNet, BestRoute>) {
    let ids: Vec<u32> = world.kernel.objects.keys().copied().collect();
    if !ids.is_empty() && random.one_in(8) {
        return world.kernel.stranger_deletes_object(*random.pick(&ids));
    }
    if random.one_in(8) {
        world.kernel.fail_any = vec![22; random.below(3)];
    }
    let route = random.route();
    let mut changes: Vec<FibChange> = Vec::new();
    for host in 0..100 {
        let prefix = format!("10.99.0.{host}/32").parse().unwrap();
        let other = random.one_in(50).then(|| (!random.one_in(3)).then(|| random.route()));
        let route = other.unwrap_or_else(|| Some(route.clone()));
        match route.clone() {
            Some(route) => drop(desired.insert(prefix, route)),
            None => drop(desired.remove(&prefix)),
        }
        changes.push(FibChange { prefix, route });
    }
    let rest = changes.split_off(random.below(100));
    world.give(Input::Changes(changes));
    world.settle();
    world.pass(Duration::from_millis(random.below(8) as u64));
    world.give(Input::Changes(rest));
}

/// No more trouble, and time enough for the longest back-off; less than it takes to the next audit.
fn calm_down(world: &mut World) {
    world.kernel.fail.clear();
    world.kernel.fail_any.clear();
    world.kernel.set_link(2, "eth0", true);
    world.kernel.set_link(3, "eth1", true);
    world.give(Input::Sweep);
    world.pass(Duration::from_secs(130));
}

/// The kernel holds what is wanted, save where a stranger's route has the key, and nothing else of ours.
fn compare(world: &World, desired: &BTreeMap<IpNet, BestRoute>, when: &str) {
    let routes = &world.kernel.routes;
    let wanted = desired.iter().filter_map(|(prefix, best)| expected(*prefix, best));
    let wanted: Vec<_> = wanted.filter(|route| routes.get(&route.key).is_none_or(|r| r.protocol == 12)).map(|route| show(&route)).collect();
    let have: Vec<_> = routes.values().filter(|route| route.protocol == 12).map(show).collect();
    assert_eq!(have, wanted, "{when}");
}

/// The same is decided again after a restart: nothing is written.
fn zero_writes(mut world: World, desired: &BTreeMap<IpNet, BestRoute>, when: &str) -> World {
    world.settle();
    let changes = desired.iter().map(|(prefix, route)| FibChange { prefix: *prefix, route: Some(route.clone()) });
    world.give(Input::Changes(changes.collect()));
    world.settle();
    assert_eq!(world.kernel.ops, 0, "{when}: writes after a restart");
    world
}

#[test]
fn after_calm_the_kernel_holds_what_is_wanted() {
    for seed in 0..300 {
        hostile_world(seed, false);
        if seed < 100 {
            hostile_world(seed, true);
        }
    }
}

/// Routes of a crowd through `gateway`, as the Loc-RIB tells them.
fn crowd(hosts: std::ops::Range<u32>, gateway: &str, interface: u32) -> Vec<FibChange> {
    let prefix = |n: u32| IpNet::new((0x0a00_0000 + n).to_be_bytes().into(), 32).unwrap();
    hosts.map(|n| FibChange { prefix: prefix(n), route: learned(&[(gateway, interface)]) }).collect()
}

/// How many routes the kernel has through each gateway.
fn gateways(world: &World) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for route in world.kernel.routes.values() {
        let gateways: Vec<String> = route.hops.iter().filter_map(|hop| hop.gateway).map(|gateway| gateway.to_string()).collect();
        *counts.entry(gateways.join(" ")).or_default() += 1;
    }
    counts
}

/// A next hop dies, and the Loc-RIB tells of its routes over many rounds: one message moves them all, and one moves them back.
#[test]
fn a_next_hop_that_dies_moves_all_its_routes_in_one_message() {
    const ROUTES: u32 = 10_000;
    let mut world = World::new().with_objects();
    world.give(Input::Changes(crowd(0..ROUTES, "10.0.0.2", 2)));
    world.settle();
    world.give(Input::Sweep);
    world.settle();
    assert_eq!((gateways(&world), world.kernel.objects.len()), ([("10.0.0.2".to_owned(), ROUTES as usize)].into(), 2));
    for gateway in ["10.0.0.3", "10.0.0.2"] {
        let before = world.kernel.ops;
        for start in (0..ROUTES).step_by(1000) {
            world.give(Input::Changes(crowd(start..start + 1000, gateway, 2)));
            world.pass(Duration::from_millis(2));
            let written = world.kernel.ops - before;
            assert!(written == 0 || start + 1000 == ROUTES, "{written} writes while more are expected");
        }
        assert_eq!(gateways(&world), [(gateway.to_owned(), ROUTES as usize)].into());
        // The new single object, the group, and the end of the old one.
        assert_eq!(world.kernel.ops - before, 3);
        assert_eq!(world.state("10.0.0.7/32"), FibState::Installed);
        assert!(world.status("10.0.0.7/32").because.contains("next-hop object"), "{}", world.status("10.0.0.7/32").because);
    }
}

/// Some of the crowd lose their last path, others have another one: they go first, the rest goes at once.
#[test]
fn those_of_a_crowd_that_go_elsewhere_go_first() {
    let mut world = World::new().with_objects();
    world.give(Input::Changes(crowd(0..1000, "10.0.0.2", 2)));
    world.settle();
    let before = world.kernel.ops;
    let mut changes = crowd(0..100, "10.0.1.2", 3);
    changes.extend(crowd(100..150, "10.0.0.2", 2).into_iter().map(|change| FibChange { route: None, ..change }));
    changes.extend(crowd(150..1000, "10.0.0.3", 2));
    world.give(Input::Changes(changes));
    world.pass(Duration::from_millis(300));
    assert_eq!(gateways(&world), [("10.0.1.2".to_owned(), 100), ("10.0.0.3".to_owned(), 850)].into());
    // A hundred and fifty by themselves with a group and a single object; then a single object and the group.
    assert_eq!(world.kernel.ops - before, 150 + 2 + 2);
    // A few of many wait for nobody.
    let before = world.kernel.ops;
    world.give(Input::Changes(crowd(500..510, "10.0.1.2", 3)));
    world.settle();
    assert_eq!((world.kernel.ops - before, gateways(&world)["10.0.1.2"]), (10, 110));
}

/// A crowd of which many stay is written route by route, after a moment.
#[test]
fn a_crowd_that_parts_is_written_one_by_one() {
    let mut world = World::new().with_objects();
    world.give(Input::Changes(crowd(0..1000, "10.0.0.2", 2)));
    world.settle();
    let before = world.kernel.ops;
    world.give(Input::Changes(crowd(0..600, "10.0.0.3", 2)));
    world.settle();
    assert_eq!(world.kernel.ops, before, "the rest may be about to come");
    world.pass(Duration::from_millis(10));
    assert_eq!(gateways(&world), [("10.0.0.2".to_owned(), 400), ("10.0.0.3".to_owned(), 600)].into());
    assert_eq!(world.kernel.ops - before, 600 + 2);
    // More keep coming: nobody waits for ever.
    for step in 0..100 {
        world.give(Input::Changes(crowd(step..step + 70, "10.0.1.2", 3)));
        world.pass(Duration::from_millis(5));
    }
    assert!(gateways(&world)["10.0.1.2"] > 100, "{:?}", gateways(&world));
}

/// After a restart routes and objects are found as they are, and serve on; what nobody needs goes when nobody is waited for.
#[test]
fn objects_of_a_past_life_serve_on() {
    let mut world = World::new().with_objects();
    world.give(Input::Changes(crowd(0..200, "10.0.0.2", 2)));
    world.give(Input::Changes(crowd(200..400, "10.0.1.2", 3)));
    world.settle();
    assert_eq!(world.kernel.objects.len(), 4);
    let mut world = world.restart().with_objects();
    world.settle();
    world.give(Input::Changes(crowd(0..200, "10.0.0.2", 2)));
    world.settle();
    assert_eq!(world.kernel.ops, 0);
    world.give(Input::Changes(crowd(0..200, "10.0.0.3", 2)));
    world.settle();
    assert_eq!((world.kernel.ops, gateways(&world)["10.0.0.3"]), (2, 200), "all of the group's routes: not even a moment is waited");
    world.give(Input::Sweep);
    world.settle();
    assert_eq!((gateways(&world).len(), world.kernel.objects.len()), (1, 2));
    // Without the flag they stay as they are, and go with their routes.
    let mut world = world.restart();
    world.settle();
    world.give(Input::Changes(crowd(0..200, "10.0.0.3", 2)));
    world.give(Input::Sweep);
    world.settle();
    assert_eq!(world.kernel.ops, 0);
    world.give(Input::Changes(crowd(0..200, "10.0.0.2", 2)));
    world.settle();
    assert_eq!((gateways(&world)["10.0.0.2"], world.kernel.objects.len()), (200, 0));
}

/// A kernel before Linux 5.3: routes name their hops.
#[test]
fn a_kernel_without_objects_gets_plain_routes() {
    let mut world = World::new().with_objects();
    world.settle();
    world.kernel.fail_any = vec![22, 95, 95];
    world.give(Input::Changes(crowd(0..1, "10.0.0.2", 2)));
    world.settle();
    assert_eq!(gateways(&world), [("10.0.0.2".to_owned(), 1)].into());
    assert!(world.kernel.objects.is_empty() && world.refusals.is_empty(), "{:?}", world.refusals);
}

/// An interface takes its objects along, and the routes that have no other way.
#[test]
fn objects_go_with_their_interface_and_come_back() {
    let mut world = World::new().with_objects();
    world.change("10.1.0.0/16", learned(&[("10.0.0.2", 2)]));
    world.change("10.2.0.0/16", learned(&[("10.0.0.2", 2), ("10.0.1.2", 3)]));
    world.settle();
    world.kernel.set_link(2, "eth0", false);
    world.settle();
    assert_eq!(world.table(), ["10.2.0.0/16 via 10.0.1.2 dev 3 metric 1024"]);
    assert_eq!((world.state("10.1.0.0/16"), world.state("10.2.0.0/16")), (FibState::Failed, FibState::Failed));
    assert_eq!(world.refusals[0].1, 100, "the interface's state, not the missing object");
    world.kernel.set_link(2, "eth0", true);
    world.settle();
    assert_eq!(
        world.table(),
        ["10.1.0.0/16 via 10.0.0.2 dev 2 metric 1024", "10.2.0.0/16 via 10.0.0.2 dev 2 via 10.0.1.2 dev 3 metric 1024"]
    );
}
