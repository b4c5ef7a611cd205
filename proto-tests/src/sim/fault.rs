//! What goes wrong, and what people and strangers do meanwhile. Rolled by the world's die, told in one line each.

use std::fmt;
use std::time::Duration;

use margay::calico::{Document, ResourceKey};
use margay::fib::{KernelHop, KernelRoute};
use margay::session::Input;
use margay::types::{Family, PeerId};
use serde_json::json;

use super::spec::resource;
use super::world::{KernelChange, World, workload_route};

/// One thing that goes wrong or changes.
#[derive(Clone, Debug)]
pub enum Fault {
    /// `kill -9`; the kernel keeps its routes.
    Kill(usize, Duration),
    /// The power goes; the kernel forgets.
    PowerCut(usize, Duration),
    /// SIGTERM and a new start.
    Restart(usize, Duration),
    /// SIGSTOP for a while.
    Suspend(usize, Duration),
    /// The clock jumps ahead.
    ClockJump(usize, Duration),
    /// Every connection between two hosts is reset.
    Cut(usize, usize),
    /// What one sends the other does not arrive for a while.
    Silence(usize, usize, Duration),
    /// The next writes to the kernel fail.
    RefusedWrites(usize, Vec<i32>),
    /// The kernel's notifications overrun.
    Overrun(usize),
    /// A stranger changes one of our routes.
    StrangerEdits(usize, KernelRoute),
    /// A stranger deletes one of our routes.
    StrangerDeletes(usize, KernelRoute),
    /// A stranger's route of another protocol appears for a while.
    StrangerAdds(usize, KernelRoute, Duration),
    /// A workload comes, and goes again if a time is given.
    Workload(usize, KernelRoute, Option<Duration>),
    /// An interface goes down for a while.
    LinkFlap(usize, u32, Duration),
    /// The datastore tells everything anew.
    Relist(usize),
    /// A resource vanishes for a while.
    ConfigFlap(usize, ResourceKey, Duration),
    /// A resource appears for a while.
    ConfigAdd(usize, Box<(ResourceKey, Document)>, Duration),
    /// Somebody asks a peer for its table.
    Refresh(usize, PeerId),
    /// Somebody drains a node for a while, or shuts its sessions down as well.
    Drain(usize, bool, Duration),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConfigAdd(cluster, resource, length) => write!(f, "ConfigAdd({cluster}, {}, {length:?})", resource.0),
            Self::ConfigFlap(cluster, key, length) => write!(f, "ConfigFlap({cluster}, {key}, {length:?})"),
            other => {
                let text: String = format!("{other:?}").chars().take(150).collect();
                f.write_str(&text)
            }
        }
    }
}

impl Fault {
    /// Rolls one for the world as it is.
    pub fn roll(world: &mut World) -> Self {
        let hosts = world.hosts.len() as u64;
        let a = world.dice.below(hosts) as usize;
        let b = (a + 1 + world.dice.below(hosts.max(2) - 1) as usize) % hosts as usize;
        let seconds = |world: &mut World, most: u64| Duration::from_millis(world.dice.below(most * 1000));
        match world.dice.below(24) {
            0 | 1 => Self::Kill(a, seconds(world, 60)),
            2 => Self::PowerCut(a, Duration::from_secs(1) + seconds(world, 150)),
            3 => Self::Restart(a, seconds(world, 20)),
            4 => Self::Suspend(a, seconds(world, 200)),
            5 => Self::ClockJump(a, seconds(world, 3600)),
            6 | 7 => Self::Cut(a, b),
            8 | 9 => Self::Silence(a, b, seconds(world, 150)),
            10 => {
                let errnos = [12, 22, 100, 101, 105, 113];
                let count = 1 + world.dice.below(4);
                Self::RefusedWrites(a, (0..count).map(|_| errnos[world.dice.below(6) as usize]).collect())
            }
            11 => Self::Overrun(a),
            12 | 13 => Self::stranger(world, a),
            14 => Self::Relist(a),
            15 | 16 => Self::config(world, a),
            17 => Self::refresh(world, a),
            18 => {
                let links = world.hosts[a].spec.links.len() as u64;
                Self::LinkFlap(a, 2 + world.dice.below(links.max(1)) as u32, seconds(world, 40))
            }
            19 | 20 => Self::Drain(a, world.dice.below(2) == 0, seconds(world, 60)),
            _ => Self::workload(world, a),
        }
    }

    fn stranger(world: &mut World, host: usize) -> Self {
        let ours: Vec<KernelRoute> = world.hosts[host].kernel.ours().cloned().collect();
        if ours.is_empty() {
            return Self::Overrun(host);
        }
        let route = ours[world.dice.below(ours.len() as u64) as usize].clone();
        match world.dice.below(3) {
            0 => Self::StrangerDeletes(host, route),
            1 => {
                let mut edited = route;
                edited.hops = [KernelHop { gateway: None, interface: 1, onlink: false }].into();
                Self::StrangerEdits(host, edited)
            }
            // In the way: same key, another protocol; it goes before the calm.
            _ => {
                let length = Duration::from_millis(world.dice.below(30_000));
                Self::StrangerAdds(host, KernelRoute { protocol: 80, ..route }, length)
            }
        }
    }

    /// An address inside the block of some host (a workload that has moved), or outside of all. Never the same on two hosts:
    /// each would prefer the other's, as under BIRD, and which of them gives way is a matter of chance.
    fn workload(world: &mut World, host: usize) -> Self {
        let (n, block) = (world.dice.below(6), 1 + world.dice.below(4));
        let last = 64 + host as u64 * 8 + world.dice.below(8);
        let text = match n {
            0 | 1 => format!("10.244.{block}.{last}/32"),
            2 => format!("fd00:10:244:{block}::{last:x}/128"),
            _ => format!("10.244.99.{last}/32"),
        };
        let Ok(prefix) = text.parse() else { return Self::Overrun(host) };
        let interface = 1 + world.hosts[host].spec.links.len() as u32;
        let metric = [1024, 1024, 512][world.dice.below(3) as usize];
        let stays = world.dice.below(2) == 0;
        let length = (!stays).then(|| Duration::from_millis(world.dice.below(60_000)));
        Self::Workload(host, workload_route(prefix, metric, None, interface), length)
    }

    fn config(world: &mut World, host: usize) -> Self {
        let cluster = world.hosts[host].spec.cluster;
        let length = Duration::from_millis(world.dice.below(60_000));
        if world.dice.below(2) == 0 {
            let keys: Vec<ResourceKey> = world.clusters[cluster].keys().cloned().collect();
            let key = keys[world.dice.below(keys.len() as u64) as usize].clone();
            return Self::ConfigFlap(cluster, key, length);
        }
        let (kind, name, spec) = match world.dice.below(4) {
            0 => ("BGPFilter", "simulated", json!({ "exportV4": [{ "action": "Reject" }] })),
            1 => ("IPPool", "simulated", json!({ "cidr": "10.244.99.0/24", "disableBGPExport": true })),
            2 => ("BGPConfiguration", "node.simulated", json!({ "prefixAdvertisements": [] })),
            _ => {
                let node = world.hosts[host].spec.node.clone();
                ("BlockAffinity", "simulated", json!({ "node": node, "cidr": "10.244.200.0/26", "state": "confirmed", "deleted": "false" }))
            }
        };
        Self::ConfigAdd(cluster, Box::new(resource(kind, name, json!({}), spec)), length)
    }

    fn refresh(world: &mut World, host: usize) -> Self {
        let peers: Vec<PeerId> = world.hosts[host].process.iter().flat_map(|process| process.peers.keys().copied()).collect();
        match peers.len() as u64 {
            0 => Self::Overrun(host),
            count => Self::Refresh(host, peers[world.dice.below(count) as usize]),
        }
    }

    /// Makes it happen.
    pub fn apply(self, world: &mut World) {
        let now = world.now();
        world.trace.line(now, &self.to_string());
        match self {
            Self::Kill(host, back) => world.kill(host, back),
            Self::PowerCut(host, back) => world.power_cut(host, back),
            Self::Restart(host, back) => world.terminate(host, back),
            Self::Suspend(host, length) => world.suspend(host, length),
            Self::ClockJump(host, by) => world.jump(host, by),
            Self::Cut(a, b) => world.cut(a, b),
            Self::Silence(a, b, length) => world.silence(a, b, length),
            Self::RefusedWrites(host, errnos) => world.hosts[host].kernel.fail_any.extend(errnos),
            Self::Overrun(host) => {
                if world.hosts[host].process.as_ref().is_some_and(|process| process.machines.is_some()) {
                    world.hosts[host].kernel.overrun();
                    world.poke(host);
                }
            }
            Self::StrangerEdits(host, route) => world.stranger(host, KernelChange::Set(route), Duration::ZERO),
            Self::StrangerDeletes(host, route) => world.stranger(host, KernelChange::Delete(route.key), Duration::ZERO),
            Self::StrangerAdds(host, route, length) => {
                let key = route.key;
                world.stranger(host, KernelChange::Set(route), Duration::ZERO);
                world.stranger(host, KernelChange::Delete(key), length);
            }
            Self::Workload(host, route, length) => {
                let key = route.key;
                world.stranger(host, KernelChange::Set(route), Duration::ZERO);
                if let Some(length) = length {
                    world.stranger(host, KernelChange::Delete(key), length);
                }
            }
            Self::LinkFlap(host, index, length) => world.flap_link(host, index, length),
            Self::Relist(host) => world.relist(host),
            Self::ConfigFlap(cluster, key, length) => {
                let document = world.clusters[cluster].get(&key).cloned();
                world.change_resource_after(cluster, key.clone(), None, Duration::ZERO);
                world.change_resource_after(cluster, key, document, length);
            }
            Self::ConfigAdd(cluster, resource, length) => {
                let (key, document) = *resource;
                world.change_resource_after(cluster, key.clone(), Some(document), Duration::ZERO);
                world.change_resource_after(cluster, key, None, length);
            }
            Self::Drain(host, shut, length) => world.drain(host, shut, length),
            Self::Refresh(host, peer) => {
                let family = Family::ALL[world.dice.below(2) as usize];
                let input = if world.dice.below(2) == 0 { Input::RequestRefresh(family) } else { Input::Resend(family) };
                if let Some(process) = &mut world.hosts[host].process {
                    process.ask_peer(peer, input);
                    world.poke(host);
                }
            }
        }
    }
}
