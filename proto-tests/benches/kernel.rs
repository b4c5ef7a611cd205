//! How fast routes go into the kernel: the writer alone, and a FibSyncer with its kernel thread.
//!
//! `cargo bench -p proto-tests --bench kernel -- [ROUTES]`; needs root or user namespaces. Prints routes a second, and the
//! CPU of this process (the kernel's work on its behalf included) a route. The writer
//! gets IPv4 prefixes scattered, as the FibSyncer gives them; the FibSyncer gets them sorted.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command as Process;
use std::time::Instant;

use ipnet::IpNet;
use margay::config::FibConfig;
use margay::fib::{BestRoute, FibChange, FibSyncer, Hop, Input, KernelHop, KernelOp, KernelRoute, Output, RouteKey, RouteType, Target};
use margay::kernel::{Command, Kernel, NetlinkKernel, Settings, spawn};
use margay::policy::RouteSource;
use margay::types::{NextHop, Outbox};

const INSIDE: &str = "MARGAY_BENCH_NAMESPACE";

fn main() {
    let routes: u32 = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(100_000);
    if std::env::var_os(INSIDE).is_some() {
        return inside(routes);
    }
    let itself = std::env::current_exe().expect("the path of this program");
    let run = |options: &[&str]| Process::new("unshare").args(options).arg(&itself).arg(routes.to_string()).env(INSIDE, "1").status();
    if !run(&["--net"]).is_ok_and(|status| status.success()) {
        let _ = run(&["--map-root-user", "--net"]);
    }
}

fn inside(count: u32) {
    for line in [
        "link add v0 type veth peer name v1",
        "link set v1 up",
        "link set v0 up",
        "addr add 10.0.0.1/16 dev v0",
        "addr add fd00::1/64 dev v0 nodad",
    ] {
        assert!(Process::new("ip").args(line.split(' ')).status().is_ok_and(|status| status.success()), "ip {line}");
    }
    let shown = Process::new("ip").args(["-o", "link", "show", "dev", "v0"]).output().expect("ip").stdout;
    let interface = String::from_utf8_lossy(&shown).split(':').next().and_then(|index| index.trim().parse().ok()).expect("its index");
    for ipv6 in [false, true] {
        let prefixes = prefixes(count, ipv6);
        writer(&prefixes, interface);
        syncer(&prefixes, interface);
    }
}

/// Half /24 and half /32; half /48 and half /128.
fn prefixes(count: u32, ipv6: bool) -> Vec<IpNet> {
    let one = |i: u32| {
        if ipv6 {
            let [a, b, c, d] = i.to_be_bytes();
            let text = if i.is_multiple_of(2) {
                format!("2600:{a:02x}{b:02x}:{c:02x}{d:02x}::/48")
            } else {
                format!("2601::{:x}:{:x}/128", i >> 16, i & 0xffff)
            };
            return text.parse().expect("a prefix");
        }
        let (base, length) = if i.is_multiple_of(2) { (0x1000_0000 + (i << 8), 24) } else { (0x6400_0000 + i, 32) };
        IpNet::new(Ipv4Addr::from(base).into(), length).expect("a length")
    };
    let mut prefixes: Vec<_> = (0..count).map(one).collect();
    prefixes.sort_unstable();
    prefixes
}

fn gateway(prefix: &IpNet, last: u8) -> IpAddr {
    if prefix.addr().is_ipv4() { IpAddr::from([10, 0, 0, last]) } else { format!("fd00::{last}").parse().expect("an address") }
}

fn route(prefix: IpNet, interface: u32, last: u8) -> KernelRoute {
    KernelRoute {
        key: RouteKey { table: 254, prefix, metric: 1024, tos: 0 },
        protocol: 12,
        kind: RouteType::Unicast,
        scope: 0,
        hops: [KernelHop { gateway: Some(gateway(&prefix, last)), interface, onlink: false }].into_iter().collect(),
        preferred_source: None,
    }
}

/// CPU seconds of this process so far.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> =
        stat.rsplit(')').next().unwrap_or("").split_whitespace().skip(11).take(2).filter_map(|f| f.parse().ok()).collect();
    fields.iter().sum::<f64>() / 100.0
}

fn measure(what: &str, count: usize, work: impl FnOnce()) {
    let (start, used) = (Instant::now(), cpu());
    work();
    let (seconds, used) = (start.elapsed().as_secs_f64(), cpu() - used);
    println!("{what:24} {:9.0} a second, {:5.2} us of CPU a route", count as f64 / seconds, used * 1e6 / count as f64);
}

fn writer(prefixes: &[IpNet], interface: u32) {
    let mut prefixes = prefixes.to_vec();
    prefixes.sort_by_key(|prefix| match prefix.addr() {
        IpAddr::V4(address) => u32::from(address).wrapping_mul(0x9e37_79b1),
        IpAddr::V6(_) => 0,
    });
    let family = if prefixes[0].addr().is_ipv4() { "IPv4" } else { "IPv6" };
    let mut kernel = NetlinkKernel::open().expect("a socket");
    for (verb, last) in [("add", 2), ("replace", 3), ("delete", 3)] {
        let routes = prefixes.iter().map(|prefix| route(*prefix, interface, last));
        let ops: Vec<_> = match verb {
            "add" => routes.map(KernelOp::Create).collect(),
            "replace" => routes.map(KernelOp::Replace).collect(),
            _ => routes.map(KernelOp::Delete).collect(),
        };
        measure(&format!("{family} writer {verb}"), ops.len(), || {
            for batch in ops.chunks(4096) {
                assert_eq!(kernel.apply(batch), []);
            }
        });
    }
}

fn syncer(prefixes: &[IpNet], interface: u32) {
    let family = if prefixes[0].addr().is_ipv4() { "IPv4" } else { "IPv6" };
    let (commands, mut events) = spawn(&Settings::default()).expect("the kernel's thread");
    let (mut fib, mut out) = (FibSyncer::new(&FibConfig::default(), 7), Outbox::new());
    for (verb, last) in [("add", Some(2)), ("replace", Some(3)), ("delete", None)] {
        let change = |prefix: &IpNet| {
            let gateway = last.map(|last| gateway(prefix, last));
            let hop = gateway.map(|gateway| Hop { next_hop: NextHop::Global(gateway), gateway: Some(gateway), interface });
            let target = hop.map(|hop| Target::Via([hop].into_iter().collect()));
            let route = target.map(|target| BestRoute { source: RouteSource::Ibgp, local_pref: Some(2_147_482_623), target });
            FibChange { prefix: *prefix, route }
        };
        let mut changes = prefixes.chunks(4096).map(|chunk| chunk.iter().map(change).collect::<Vec<_>>());
        measure(&format!("{family} FibSyncer {verb}"), prefixes.len(), || {
            let (mut pulled, mut under_way, mut given) = (verb != "add", false, false);
            while !given || under_way {
                let mut inputs = Vec::new();
                if pulled && !given {
                    match changes.next() {
                        Some(changes) => inputs.push(Input::Changes(changes)),
                        None => given = true,
                    }
                    pulled = false;
                }
                if inputs.is_empty() && (!given || under_way) {
                    let told = events.blocking_recv().expect("the kernel's thread");
                    inputs.extend(told.into_iter().map(Input::Kernel));
                }
                for input in inputs {
                    if let Input::Kernel(margay::fib::KernelEvent::Written { failed, .. }) = &input {
                        assert_eq!(failed[..], []);
                        under_way = false;
                    }
                    fib.handle(Instant::now(), input, &mut out);
                    for output in out.drain() {
                        match output {
                            Output::Write(ops) => {
                                under_way = true;
                                commands.blocking_send(Command::Write(ops)).expect("the kernel's thread");
                            }
                            Output::Pull { .. } => pulled = true,
                            _ => {}
                        }
                    }
                }
            }
        });
    }
}
