//! What a network of that size lives through: cold start, an idle while, a block comes and goes, nodes die and start.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::node::Tally;
use super::plan::{Plan, Role, Shape};
use super::report::{Memory, Phase, Report};
use super::world::{Options, World};

/// A keepalive interval: a third of the hold time, which is Calico's 240 s.
pub const IDLE: Duration = Duration::from_secs(80);
/// Between the death of a process and its next life.
const AWAY: Duration = Duration::from_secs(1);
/// The longest that anything may take: hold time, restart time, and what follows.
const PATIENCE: Duration = Duration::from_secs(600);
/// Nodes of each role that are weighed.
const WEIGHED: usize = 4;

/// How much of the story is lived.
#[derive(Clone, Copy, Debug)]
pub struct Story {
    /// Only the cold start, the idle while, and a block that comes and goes.
    pub short: bool,
    /// Says how many octets are allocated; none: memory is not weighed.
    pub live: Option<fn() -> u64>,
}

/// Lives it.
///
/// # Errors
/// Something did not come about: a session, a route, an End-of-RIB.
pub fn run(plan: Plan, options: Options, story: Story, mut told: impl FnMut(&Phase)) -> Result<(Report, World)> {
    let mut world = World::new(plan, options);
    let mut phases = Vec::new();
    let mut phase = |world: &mut World, name, act: &mut dyn FnMut(&mut World) -> Result<()>| -> Result<()> {
        let phase = measure(world, name, act)?;
        told(&phase);
        phases.push(phase);
        Ok(())
    };
    phase(&mut world, "cold start", &mut |world| {
        world.run_until_all_have_it(PATIENCE)?;
        whole(world)
    })?;
    phase(&mut world, "idle for 80 s", &mut |world| world.run_until(world.now() + IDLE))?;
    let node = (0..world.plan.workers).rfind(|node| world.is_whole(*node) && *node <= world.plan.workers / 2).unwrap_or(0) as u32;
    let mut block = 0;
    phase(&mut world, "a block comes", &mut |world| {
        block = world.add_block(node)?;
        world.run_until_all_have_it(PATIENCE)
    })?;
    phase(&mut world, "a block goes", &mut |world| {
        world.remove_block(node, block)?;
        world.run_until_all_have_it(PATIENCE)
    })?;
    if !story.short {
        phase(&mut world, "a node's process dies and starts", &mut |world| restart(world, node))?;
        if world.plan.shape == Shape::Reflectors {
            let reflector = world.plan.workers as u32;
            phase(&mut world, "a reflector's process dies and starts", &mut |world| restart(world, reflector))?;
        }
        phase(&mut world, "a node dies for good", &mut |world| {
            world.kill(node);
            let block = world.plan.blocks_of(node as usize).start;
            world.watch_block(block, false);
            world.run_until_all_have_it(PATIENCE)
        })?;
    }
    let memory = story.live.map(|live| weigh(&mut world, node, live)).unwrap_or_default();
    Ok((Report { phases, memory, digest: world.digest() }, world))
}

/// Everybody has every session and an End-of-RIB on each; none was lost.
fn whole(world: &World) -> Result<()> {
    for node in &world.nodes {
        let (name, (all, up), tally) = (&world.plan.nodes[node.number as usize].name, node.sessions(), node.total());
        ensure!(all == up && tally.ends == all as u64, "{name} has {up} of {all} sessions, and {} End-of-RIBs", tally.ends);
        ensure!(tally.losses == 0, "{name} lost {} sessions", tally.losses);
    }
    Ok(())
}

/// It is `kill -9` and a start, a second later; its peers keep its routes meanwhile.
fn restart(world: &mut World, node: u32) -> Result<()> {
    world.kill(node);
    world.watch_all();
    world.run_until(world.now() + AWAY)?;
    world.start(node, true)?;
    world.run_until_all_have_it(PATIENCE)
}

fn measure(world: &mut World, name: &'static str, act: &mut dyn FnMut(&mut World) -> Result<()>) -> Result<Phase> {
    let (begun, before) = (world.now(), tallies(world));
    act(world)?;
    let after = tallies(world);
    let roles = world.plan.nodes.iter().enumerate().map(|(index, node)| (node.role, world.is_whole(index)));
    let had = world.had().into_iter().map(|at| at.saturating_sub(begun)).collect();
    Ok(Phase::new(name, world.now() - begun, world.moved().saturating_sub(begun), had, roles.zip(before.into_iter().zip(after))))
}

fn tallies(world: &World) -> Vec<Tally> {
    world.nodes.iter().map(super::node::Node::total).collect()
}

fn weigh(world: &mut World, dead: u32, live: fn() -> u64) -> Vec<Memory> {
    let mut all = Vec::new();
    for role in [Role::Node, Role::Reflector, Role::Top] {
        let chosen: Vec<usize> = (0..world.nodes.len())
            .filter(|index| world.plan.nodes[*index].role == role && world.is_whole(*index) && *index != dead as usize)
            .filter(|index| world.nodes[*index].runs())
            .take(WEIGHED)
            .collect();
        for index in chosen {
            let node = &mut world.nodes[index];
            let (sessions, stats, said) = (node.sessions().1, node.rib_stats(), node.rib_octets());
            let said = (said.destinations + said.attributes + said.advertised) as u64;
            all.push(Memory { role, sessions, prefixes: stats.ipv4, said, weight: node.weigh(live) });
        }
    }
    all
}
