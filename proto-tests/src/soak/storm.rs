//! A storm: one event after the other, by the die. What is taken away comes back before the calm.

use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::IpNet;
use serde_json::json;

use super::kernel;
use super::speaker::{Loss, Order};
use super::world::{BGP_PEERS, World};
use crate::lab::process::Signal;
use crate::live::daemon::replace;
use crate::live::remote::bgp_peer;

/// Between two events at most.
const STEP: u64 = 80;
/// Prefixes that change in one event at most.
const CHANGES: u64 = 200;
/// One of so many events is churn; the rest is trouble.
const TROUBLE: u64 = 5;
/// Routes that strangers have at a time.
const FOREIGN: usize = 20;

/// What a storm has taken away and must bring back.
#[derive(Default)]
struct Debts {
    silent: Vec<usize>,
    peer_away: Option<usize>,
    broken: bool,
}

/// So many events, and everything that they took away is back.
pub fn storm(world: &mut World, events: u64, restarts: bool) -> Result<()> {
    let mut debts = Debts::default();
    for _ in 0..events {
        if world.dice.below(TROUBLE) == 0 {
            trouble(world, &mut debts, restarts)?
        } else {
            churn(world)?
        }
        let step = world.dice.below(STEP);
        world.pass(Duration::from_millis(step));
    }
    settle(world, debts)
}

fn churn(world: &mut World) -> Result<()> {
    let at = world.dice.below(world.peers.len() as u64) as usize;
    let count = 1 + world.dice.below(CHANGES) as usize;
    let changes = world.model.change(at, count, &mut world.dice);
    world.happens("changes of a peer's routes");
    world.peers[at].tell(Order::Change(changes))
}

fn trouble(world: &mut World, debts: &mut Debts, restarts: bool) -> Result<()> {
    match world.dice.below(if restarts { 10 } else { 8 }) {
        0 | 1 => lose(world),
        2 => silence(world, debts),
        3 => datastore(world, debts),
        4..=7 => stranger(world),
        8 => end(world, Signal::KILL, "kill -9"),
        _ => end(world, Signal::TERM, "SIGTERM"),
    }
}

fn lose(world: &mut World) -> Result<()> {
    let at = world.dice.below(world.peers.len() as u64) as usize;
    let loss = [Loss::Reset, Loss::Closed, Loss::Ceased][world.dice.below(3) as usize];
    world.happens("sessions ended by a peer");
    world.peers[at].tell(Order::Lose(loss))
}

fn silence(world: &mut World, debts: &mut Debts) -> Result<()> {
    let at = world.dice.below(world.peers.len() as u64) as usize;
    debts.silent.push(at);
    world.happens("peers fallen silent");
    world.peers[at].tell(Order::Silence(true))
}

fn end(world: &mut World, signal: Signal, what: &'static str) -> Result<()> {
    // Now and then again before it has come back to itself.
    let again = world.dice.below(3) == 0;
    for _ in 0..=u8::from(again) {
        world.daemon.end(signal)?;
        world.daemon.spawn_again()?;
        world.happens(what);
        let moment = world.dice.below(10 * STEP);
        world.pass(Duration::from_millis(moment));
    }
    Ok(())
}

fn datastore(world: &mut World, debts: &mut Debts) -> Result<()> {
    // etcd that is away comes back first.
    if let Some(etcd) = world.etcd.as_mut().filter(|etcd| !etcd.runs()) {
        return etcd.restart();
    }
    if let Some(at) = debts.peer_away.take() {
        return write_peer(world, at, false);
    }
    let at = world.dice.below(world.peers.len() as u64) as usize;
    match (world.dice.below(3), &mut world.etcd) {
        (0, Some(etcd)) => {
            etcd.kill()?;
            world.happens("etcd killed");
        }
        (0, None) => {
            replace(&world.daemon.resources().join("broken.yaml"), "kind: BGPPeer\nmetadata: {name: x}\nspec: {peerIP: nowhere\n")?;
            debts.broken = true;
            world.happens("broken files");
        }
        (1, etcd) => {
            let name = &world.peers[at].plan.name;
            match etcd {
                Some(etcd) => drop(etcd.ctl(&["del", &format!("{BGP_PEERS}/{name}")])?),
                None => world.daemon.rewrite(name, None)?,
            }
            debts.peer_away = Some(at);
            world.happens("BGPPeers taken away");
        }
        _ => {
            write_peer(world, at, true)?;
            world.happens("BGPPeers rewritten");
        }
    }
    Ok(())
}

/// The resource of a peer is written, with another setting that resets nothing or as it was.
fn write_peer(world: &mut World, at: usize, otherwise: bool) -> Result<()> {
    let plan = world.peers[at].plan.clone();
    match &world.etcd {
        Some(etcd) => {
            let mut document = bgp_peer(&plan);
            if otherwise {
                document["metadata"]["annotations"] = json!({ "margay.io/max-prefixes": "50000 warn" });
            }
            etcd.put(&[(format!("{BGP_PEERS}/{}", plan.name), document.to_string())])
        }
        None => {
            let plan = if otherwise { plan.annotated("max-prefixes", "50000 warn") } else { plan };
            world.daemon.rewrite(&plan.name.clone(), Some(&plan))
        }
    }
}

/// Somebody else at the kernel's routes.
fn stranger(world: &mut World) -> Result<()> {
    let prefix = world.model.any_prefix(&mut world.dice).to_string();
    let (family, hop) = if prefix.contains(':') { ("-6", "2001:db8:2::ffff") } else { ("-4", "192.0.2.250") };
    match world.dice.below(8) {
        0 => {
            // margay may remove one of them at the same moment, which `ip` takes ill.
            let _ = kernel::ip(&[family, "route", "flush", "table", "main", "proto", "bird"]);
            world.happens("flushes of all our kernel routes");
        }
        1 | 2 => {
            // Deleted where there is one.
            let _ = kernel::ip(&[family, "route", "del", &prefix, "proto", "bird"]);
            world.happens("kernel routes deleted");
        }
        3 | 4 => {
            let _ = kernel::ip(&[family, "route", "del", &prefix, "proto", "bird"]);
            // Ours may be back already.
            let _ = kernel::ip(&[family, "route", "append", &prefix, "via", hop, "dev", "link0", "proto", "bird"]);
            world.happens("kernel routes changed");
        }
        5 => {
            let number = world.dice.below(200);
            let _ = kernel::ip(&["route", "add", &format!("198.18.{number}.0/24"), "via", "192.0.2.250", "proto", "bird"]);
            world.happens("kernel routes added under our number");
        }
        _ => foreign(world)?,
    }
    Ok(())
}

/// Routes of another protocol are none of margay's business.
fn foreign(world: &mut World) -> Result<()> {
    if world.foreign.len() >= FOREIGN {
        let gone = world.foreign.pop_first().context("there are some")?;
        kernel::ip(&["route", "del", &gone.to_string(), "proto", "static"])?;
    }
    let number = world.dice.below(250);
    let prefix = format!("198.19.{number}.0/24");
    kernel::ip(&["route", "replace", &prefix, "via", "192.0.2.251", "proto", "static"])?;
    world.foreign.insert(prefix.parse::<IpNet>()?);
    world.happens("kernel routes of others");
    Ok(())
}

fn settle(world: &mut World, debts: Debts) -> Result<()> {
    for at in debts.silent {
        world.peers[at].tell(Order::Silence(false))?;
    }
    if let Some(etcd) = world.etcd.as_mut().filter(|etcd| !etcd.runs()) {
        etcd.restart()?;
    }
    if let Some(at) = debts.peer_away {
        write_peer(world, at, false)?;
    }
    if debts.broken {
        std::fs::remove_file(world.daemon.resources().join("broken.yaml"))?;
    }
    Ok(())
}
