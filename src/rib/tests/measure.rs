//! A look at time and memory, by hand: `cargo test --release --lib rib::tests::measure -- --ignored --nocapture`.
//! Figures are printed, never asserted.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::{IpNet, Ipv4Net};

use super::super::testing::*;
use super::super::{Input, Output};
use crate::session::{RouteBatch, RouteChange};
use crate::types::{Attributes, Community, Outbox, PeerId};

const PREFIXES: u32 = 1_000_000;
const A_SET: u32 = 8;
const A_ROUND: u32 = 1024;

#[expect(clippy::disallowed_methods, reason = "this is a measurement")]
fn now() -> Instant {
    Instant::now()
}

/// Time on a CPU of this thread: the machine may be busy with other things.
#[expect(clippy::disallowed_methods, reason = "this is a measurement")]
fn spent() -> u64 {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    statistics.split(' ').next().unwrap().parse().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "this is a measurement")]
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn batch(from: u32, changes: impl Fn(u32, Vec<IpNet>) -> RouteChange) -> RouteBatch {
    let sets = (from..from + A_ROUND).step_by(A_SET as usize);
    let prefix = |n: u32| IpNet::V4(Ipv4Net::new(Ipv4Addr::from(0x1400_0000 + n * 256), 24).unwrap());
    RouteBatch { peer: PeerId(1), changes: sets.map(|first| changes(first, (first..first + A_SET).map(prefix).collect())).collect() }
}

#[test]
#[ignore = "a measurement"]
fn a_million_prefixes_from_one_peer_to_another() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    bench.up(2, 65002);
    let mut out: Outbox<Output> = Outbox::new();
    let mut run = |name: &str, change: &dyn Fn(u32, Vec<IpNet>) -> RouteChange| {
        let (mut time, mut octets, before) = (0, 0, resident());
        for from in (0..PREFIXES).step_by(A_ROUND as usize) {
            let batch = batch(from, change);
            let (start, at) = (now(), spent());
            bench.shard.handle(start, Input::Routes(batch), &mut out);
            loop {
                for n in [1, 2] {
                    bench.shard.handle(start, Input::Pull { peer: PeerId(n), credit: 1 << 16 }, &mut out);
                }
                bench.shard.handle(start, Input::PullFib { credit: 4096 }, &mut out);
                bench.shard.finish_round(start, &mut out);
                let mut more = false;
                for output in out.drain() {
                    if let Output::Frames { frames, .. } = output {
                        octets += frames.iter().map(bytes::Bytes::len).sum::<usize>();
                        more = true;
                    }
                }
                if !more {
                    break;
                }
            }
            time += spent() - at;
        }
        let grown = resident() as i64 - before as i64;
        println!(
            "{name}: {} ns and {} bytes a prefix, {octets} octets sent, {:?}",
            time / u64::from(PREFIXES),
            grown / i64::from(PREFIXES),
            bench.shard.stats()
        );
    };
    let route = |first: u32, med: u32| {
        let communities = [Community(first), Community(first ^ 7)].into();
        Arc::new(Attributes { communities, med: Some(med), ..attributes("10.0.0.1", &[65001, 65100 + first % 100, 65200 + first]) })
    };
    run("announce", &|first, prefixes| RouteChange::Announce(route(first, 1), items(&prefixes, 0)));
    run("announce the same", &|first, prefixes| RouteChange::Announce(route(first, 1), items(&prefixes, 0)));
    run("announce others", &|first, prefixes| RouteChange::Announce(route(first, 2), items(&prefixes, 0)));
    run("withdraw", &|_, prefixes| RouteChange::Withdraw(items(&prefixes, 0)));
}
