//! `cargo scale`: what a size costs, counted in virtual time.

use std::alloc::System;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use proto_tests::sim::scale::plan::{Plan, Role, Shape};
use proto_tests::sim::scale::report::Report;
use proto_tests::sim::scale::story::{Story, run};
use proto_tests::sim::scale::world::Options;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Octets that are allocated now.
fn live() -> u64 {
    let stats = ALLOCATOR.stats();
    (stats.bytes_allocated as u64).wrapping_sub(stats.bytes_deallocated as u64)
}

/// Networks of thousands of margays in virtual time: messages, octets, time until everybody knows, memory a node. What is real and what is
/// modelled stands in the documentation of `proto_tests::sim::scale`. A whole mesh takes some 7 KB a session end: 7 GB for 1,000 nodes.
#[derive(Parser)]
#[command(name = "scale")]
struct Arguments {
    /// Who peers with whom.
    shape: Wanted,
    /// How many nodes with workloads; several sizes are run one after another.
    #[arg(required = true)]
    nodes: Vec<usize>,
    /// Nodes of a zone: the clients of a pair of reflectors.
    #[arg(long, default_value_t = 250)]
    zone: usize,
    /// IPAM blocks of each node.
    #[arg(long, default_value_t = 1)]
    blocks: usize,
    /// One node in so many is whole. In a mesh the others have only their sessions with those; in a hierarchy they count what they hear and
    /// do not keep it, while reflectors keep everything. All nodes of a mesh, one in 50 of a hierarchy unless given.
    #[arg(long)]
    whole: Option<usize>,
    /// ADD-PATH in a hierarchy, where it is off otherwise: every path goes to everybody.
    #[arg(long)]
    add_path: bool,
    /// The seed of everything.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only cold start, an idle while, and a block that comes and goes.
    #[arg(long)]
    short: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wanted {
    /// Calico's node-to-node mesh.
    Mesh,
    /// A pair of reflectors a zone, and two reflectors of these.
    Reflectors,
}

fn main() -> ExitCode {
    match scale(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn scale(arguments: &Arguments) -> Result<()> {
    let shape = if arguments.shape == Wanted::Mesh { Shape::Mesh } else { Shape::Reflectors };
    let whole = arguments.whole.unwrap_or(if shape == Shape::Mesh { 1 } else { 50 });
    ensure!(whole > 0, "--whole 0: one node in so many is at least one in one");
    for &nodes in &arguments.nodes {
        let begun = Instant::now();
        let plan = Plan::new(shape, nodes, arguments.zone, arguments.blocks, arguments.add_path)?;
        println!("{shape:?} of {nodes} nodes, {} in all, {} blocks, seed {}", plan.nodes.len(), plan.total(), arguments.seed);
        let story = Story { short: arguments.short, live: Some(live) };
        let (report, world) = run(plan, Options { seed: arguments.seed, whole }, story, |phase| {
            println!("{phase}  [{:.1} s, {} MB allocated]", begun.elapsed().as_secs_f64(), live() >> 20);
        })?;
        tell(&report);
        drop(world);
    }
    Ok(())
}

fn tell(report: &Report) {
    report.memory.iter().for_each(|memory| println!("{memory}"));
    for role in [Role::Node, Role::Reflector, Role::Top] {
        if let Some((sessions, octets)) = report.mean(role) {
            println!("mean of those, {role:?}: {sessions} sessions, {:.2} MB", octets as f64 / 1e6);
        }
    }
    println!("digest {:016x}", report.digest);
}
