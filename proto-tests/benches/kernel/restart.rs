//! How long a FibSyncer that starts upon the routes of a past life takes until it has them for its own: the kernel's table read, and all
//! of the best paths heard again. It writes nothing; the target is two seconds for half a million routes.

use std::time::Instant;

use margay::fib::KernelOp;
use margay::kernel::{Kernel, NetlinkKernel};
use serde::Serialize;

use crate::cpu;
use crate::ours::Node;
use crate::routes::{Family, Verb, World};

/// What one restart took.
#[derive(Clone, Debug, Serialize)]
pub struct Restart {
    routes: u32,
    /// Seconds until the kernel's table was known.
    read: f64,
    /// Seconds more until all best paths were heard.
    decided: f64,
    /// CPU seconds of this process.
    user: f64,
    system: f64,
    /// Routes written: none.
    writes: usize,
}

/// One restart upon `count` IPv4 routes.
pub fn run(world: &World, count: u32) -> Restart {
    let family = Family::IPv4;
    let prefixes = family.prefixes(count);
    let route = |prefix: &_| world.route(family, *prefix, Verb::Add);
    let mut kernel = NetlinkKernel::open().expect("a socket");
    assert_eq!(kernel.apply(&prefixes.iter().map(route).map(KernelOp::Create).collect::<Vec<_>>()), []);
    let change = |prefix: &_| world.change(family, *prefix, Verb::Add);
    let changes: Vec<Vec<_>> = prefixes.chunks(4096).map(|chunk| chunk.iter().map(change).collect()).collect();
    let (start, before) = (Instant::now(), cpu());
    let mut node = Node::start();
    node.until(|node| node.told);
    let read = start.elapsed().as_secs_f64();
    node.feed(changes);
    let (all, after) = (start.elapsed().as_secs_f64(), cpu());
    let (user, system) = (after.0 - before.0, after.1 - before.1);
    let restart = Restart { routes: count, read, decided: all - read, user, system, writes: node.asked };
    println!(
        "restart upon {count} routes: {all:.2} s ({read:.2} to read them, {:.2} to hear them again), CPU {user:.2} s user, {system:.2} s system, {} writes",
        restart.decided, restart.writes
    );
    assert_eq!(kernel.apply(&prefixes.iter().map(route).map(KernelOp::Delete).collect::<Vec<_>>()), []);
    restart
}
