//! How long a compile takes: `cargo bench -p proto-tests --bench compile [nodes…]` (1000 2000 5000 10000 unless said).
//!
//! Each size has 200 BGPPeers with selectors, 50 filters, ten block affinities a node and a mesh of all. Printed for each: the
//! decoding of every document, a compile from nothing (the best of three), one changed Node, one changed EndpointSlice and one changed BGPPeer
//! (which, as a filter, a pool, a Secret, the default BGPConfiguration or the own Node, compiles everything again). The time is what the
//! thread has spent on a CPU, so that a busy machine matters little.
//!
//! Targets: 5000 nodes compile in less than 300 ms, one changed Node in less than 5 ms. Seen on two cores of a virtual machine that three
//! other builds kept at load 15, the best and the worst of three runs:
//!
//! | nodes | decode, the making of the documents included | compile | one Node | one slice | one BGPPeer |
//! |---|---|---|---|---|---|
//! | 1000 | 74–97 ms | 4–8 ms | 0.6–0.9 ms | 0.2–0.4 ms | 7 ms |
//! | 2000 | 107–152 ms | 8–16 ms | 1.1–1.5 ms | 0.4–0.8 ms | 10–15 ms |
//! | 5000 | 290–431 ms | 28–36 ms | 3.0–5.8 ms | 1.8–2.9 ms | 31–40 ms |
//! | 10000 | 582–875 ms | 57–74 ms | 9.4–12.9 ms | 5.9–9.9 ms | 75–83 ms |
//!
//! The same machine at rest (`cargo bench --workspace --bench compile -- 1000 5000 10000`):
//!
//! | nodes | decode | compile | one Node | one slice | one BGPPeer |
//! |---|---|---|---|---|---|
//! | 1000 | 100 ms | 8 ms | 0.7 ms | 0.3 ms | 7 ms |
//! | 5000 | 340 ms | 28 ms | 2.4 ms | 0.9 ms | 26 ms |
//! | 10000 | 668 ms | 52 ms | 10.5 ms | 7.8 ms | 76 ms |
//!
//! So a change that compiles everything may stay as it is: it costs a tenth of its target. What one Node costs grows with the cluster because
//! the list of sessions is copied and compared as a whole; the Nodes that are looked at do not grow (`tests/calico/scale.rs`).

use std::time::Duration;

use proto_tests::scale::{Scale, Size, node, peer, slice};

/// Changes of one kind, whose mean is told.
const ROUNDS: usize = 50;

fn main() {
    let sizes: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![1000, 2000, 5000, 10_000] } else { sizes };
    println!("{:>7} {:>12} {:>12} {:>12} {:>12} {:>12}", "nodes", "decode", "compile", "one Node", "one slice", "one BGPPeer");
    for nodes in sizes {
        let (mut decode, mut compile) = (Vec::new(), Vec::new());
        let mut scale = None;
        for _ in 0..3 {
            let mut told = timed(&mut decode, || Scale::told(Size::of(nodes)));
            timed(&mut compile, || told.compile()).expect("node-0 is there");
            scale = Some(told);
        }
        let mut scale = scale.expect("three of them");
        let mut mean = |rounds: usize, change: &dyn Fn(usize) -> _| {
            let mut times = Vec::new();
            timed(&mut times, || (1..=rounds).for_each(|round| drop(scale.change(change(round)))));
            times.iter().sum::<Duration>() / rounds as u32
        };
        let one_node = mean(ROUNDS, &|round| node(nodes / 2 + round, round));
        let one_slice = mean(ROUNDS, &|round| slice(round, 0));
        let one_peer = mean(5, &|round| peer(30, 20 + round));
        let best = |times: Vec<Duration>| times.into_iter().min().unwrap_or_default();
        println!("{nodes:>7} {:>12.3?} {:>12.3?} {one_node:>12.3?} {one_slice:>12.3?} {one_peer:>12.3?}", best(decode), best(compile));
    }
}

fn timed<T>(times: &mut Vec<Duration>, work: impl FnOnce() -> T) -> T {
    let start = on_cpu();
    let outcome = work();
    times.push(on_cpu().saturating_sub(start));
    outcome
}

/// How long this thread has been on a CPU, to the kernel's last tick.
fn on_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("a kernel with scheduler statistics");
    let nanoseconds = text.split_whitespace().next().and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.expect("the first number is the time on a CPU"))
}
