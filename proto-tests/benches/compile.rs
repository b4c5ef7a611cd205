//! How long a compile takes: `cargo bench -p proto-tests --bench compile [nodes…]` (1000 2000 5000 10000 unless said).
//!
//! Each size has 200 BGPPeers with selectors, 50 filters, ten block affinities a node and a mesh of all. Printed for each: the
//! decoding of every document, a compile from nothing, one changed Node, one changed EndpointSlice; each the median of several.

use std::time::{Duration, Instant};

use proto_tests::scale::{Scale, Size, node, slice};

fn main() {
    let sizes: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![1000, 2000, 5000, 10_000] } else { sizes };
    println!("{:>7} {:>12} {:>12} {:>12} {:>12}", "nodes", "decode", "compile", "one Node", "one slice");
    for nodes in sizes {
        let (mut decode, mut compile, mut one_node, mut one_slice) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..3 {
            let mut scale = timed(&mut decode, || Scale::told(Size::of(nodes)));
            timed(&mut compile, || scale.compile()).expect("node-0 is there");
            for round in 1..8 {
                let changed = node(nodes / 2 + round, round);
                timed(&mut one_node, || scale.change(changed));
                let changed = slice(round, 0);
                timed(&mut one_slice, || scale.change(changed));
            }
        }
        println!(
            "{nodes:>7} {:>12.3?} {:>12.3?} {:>12.3?} {:>12.3?}",
            median(decode),
            median(compile),
            median(one_node),
            median(one_slice)
        );
    }
}

fn timed<T>(times: &mut Vec<Duration>, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let outcome = work();
    times.push(start.elapsed());
    outcome
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
