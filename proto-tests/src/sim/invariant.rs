//! What must be true: always, and once everything has calmed down.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use margay::config::NodeConfig;
use margay::fib::{FibState, RouteType};
use margay::rib::{Query, RouteRow, Step};
use margay::types::{Attributes, Family, PeerId};

use super::model_kernel::show;
use super::oracle::{Node, Oracle};
use super::spec;
use super::world::World;

/// Words that may wait for room at one seat: a whole table of the kernel or of local routes, told at once. What a peer says is
/// bounded by what it reads at once.
const MOST_WAITING: usize = 4096;

/// Rows of a shard's answer, by prefix and path.
fn rows(world: &mut World, host: usize, query: &Query) -> Vec<RouteRow> {
    let instant = world.clock.instant(world.hosts[host].ahead);
    let rows = world.hosts[host].process.as_mut().map(|process| process.ask(instant, query)).unwrap_or_default();
    world.poke(host);
    rows
}

const ALL: Query = Query::Routes { prefix: None, longer: false, family: None, received: None, advertised: None };

/// Checks what must hold at every moment at which a host has nothing to do.
///
/// # Errors
/// What does not hold.
pub fn always(world: &mut World, host: usize) -> Result<(), String> {
    if !world.is_quiet(host) {
        return Ok(());
    }
    let name = world.hosts[host].spec.name.clone();
    if let Some(most) = world.hosts[host].process.as_ref().map(|process| process.most_waiting).filter(|most| *most > MOST_WAITING) {
        return Err(format!("{name}: {most} words waited for room"));
    }
    if !world.hosts[host].process.as_ref().is_some_and(super::process::Process::listens) {
        return Ok(());
    }
    let rows = rows(world, host, &ALL);
    let one = &world.hosts[host];
    let Some(process) = &one.process else { return Ok(()) };
    let mut via: BTreeSet<IpNet> = BTreeSet::new();
    for row in &rows {
        match row.peer {
            Some(peer) if !row.stale && !process.is_established(peer) => {
                return Err(format!("{name}: {} is there from peer {peer}, which is down, and is not stale", row.prefix));
            }
            _ => drop((row.best || row.multipath).then(|| via.insert(row.prefix))),
        }
    }
    if !process.is_recovered() || !is_clean(process) {
        return Ok(());
    }
    let nobodys = |route: &&margay::fib::KernelRoute| route.kind == RouteType::Unicast && !via.contains(&route.key.prefix);
    let suspects: Vec<_> = one.kernel.ours().filter(nobodys).cloned().collect();
    let instant = world.clock.instant(one.ahead);
    for route in suspects {
        let process = world.hosts[host].process.as_mut();
        let state = process.and_then(|process| process.fib_status(instant, route.key.prefix)).map(|status| status.state);
        // On its way out, or refused to go and tried again: the FibSyncer knows.
        if !matches!(state, Some(FibState::Pending | FibState::Failed)) {
            return Err(format!("{name}: `{}` is installed ({state:?}) and no peer that is up, or stale, told it", show(&route)));
        }
    }
    Ok(())
}

/// The RIB has nothing left to do, and routes of a past life have been swept.
fn is_clean(process: &super::process::Process) -> bool {
    process.machines.as_ref().is_some_and(|machines| machines.shards.iter().all(margay::rib::Shard::is_settled)) && process.is_swept()
}

/// Checks what must hold when nothing has gone wrong for long enough. The decision steps that were needed.
///
/// # Errors
/// What does not hold, a line each.
pub fn after_calm(world: &mut World, wrong_step: Option<Step>) -> Result<BTreeSet<Step>, String> {
    let mut wrong = Vec::new();
    let configs: Vec<NodeConfig> = world
        .hosts
        .iter()
        .map(|host| {
            spec::compile(&world.clusters[host.spec.cluster], &host.spec.node).ok_or(format!("{}: no configuration", host.spec.name))
        })
        .collect::<Result<_, _>>()?;
    let kernels: Vec<_> = world.hosts.iter().map(|host| host.kernel.clone()).collect();
    for (host, config) in world.hosts.iter().zip(&configs) {
        let process = host.process.as_ref().ok_or(format!("{} does not run", host.spec.name))?;
        if process.config.as_deref() != Some(config) {
            wrong.push(format!("{}: the configuration in force is not that of the resources", host.spec.name));
        }
        if !process.is_recovered() {
            wrong.push(format!("{}: its own restart is not over", host.spec.name));
        }
    }
    let nodes = configs.iter().zip(&kernels).map(|(config, kernel)| Node { config, kernel }).collect();
    let mut oracle = Oracle::new(nodes);
    oracle.wrong_step = wrong_step;
    let outcome = oracle.work_out()?;
    for session in &oracle.sessions {
        let up = id_of(world, session.node, &session.peer).filter(|peer| is_up(world, session.node, *peer));
        if up.is_none() {
            let process = world.hosts[session.node].process.as_ref();
            let peer = process.and_then(|process| process.peers.values().find(|peer| peer.name == session.peer));
            let status = peer.map(|peer| peer.machine.status(world.clock.instant(world.hosts[session.node].ahead)));
            let why = status.map(|status| format!("{:?}, {:?}", status.state, status.last_error.map(|error| error.reason.text)));
            wrong.push(format!("{}: {} is not up: {why:?}", world.hosts[session.node].spec.name, session.peer));
        }
        if let (Some(peer), Some(process)) = (up, world.hosts[session.node].process.as_ref())
            && [(session.node, &session.peer), (session.remote, &session.remote_peer)]
                .iter()
                .all(|(node, peer)| configs[*node].peers[*peer].bfd.is_some())
            && process.bfd_is_up(world.clock.instant(world.hosts[session.node].ahead), peer) != Some(true)
        {
            wrong.push(format!("{}: BFD with {} is not up", world.hosts[session.node].spec.name, session.peer));
        }
    }
    for (host, expected) in outcome.fibs.iter().enumerate() {
        let found: BTreeSet<String> = world.hosts[host].kernel.ours().map(show).collect();
        let name = world.hosts[host].spec.name.clone();
        let missing = expected.difference(&found).map(|route| (route, "missing"));
        let differing: Vec<_> = missing.chain(found.difference(expected).map(|route| (route, "too much"))).collect();
        for (route, what) in differing {
            let prefix = route.split(' ').find_map(|word| word.parse().ok());
            let instant = world.clock.instant(world.hosts[host].ahead);
            let process = world.hosts[host].process.as_mut();
            let status = process.zip(prefix).and_then(|(process, prefix)| process.fib_status(instant, prefix));
            let status = status.map_or("nothing".to_owned(), |row| format!("{:?}: {} (errno {:?})", row.state, row.because, row.errno));
            let of_prefix = Query::Routes { prefix, longer: false, family: None, received: None, advertised: None };
            let rows = rows(world, host, &of_prefix);
            let paths: Vec<String> = rows.iter().map(brief).collect();
            wrong.push(format!("{name}: {what} in the kernel: {route}; the FibSyncer says {status}; paths: {}", paths.join("; ")));
        }
    }
    for session in &oracle.sessions {
        let heard = outcome.heard.get(&(session.remote, session.remote_peer.clone())).cloned().unwrap_or_default();
        mirror(world, session, &heard, &mut wrong);
    }
    if wrong.is_empty() { Ok(outcome.steps) } else { Err(wrong.join("\n")) }
}

/// The attribute sets of each prefix, in order.
fn by_prefix<'a>(paths: impl Iterator<Item = (IpNet, &'a Attributes)>) -> BTreeMap<IpNet, Vec<&'a Attributes>> {
    let mut all: BTreeMap<IpNet, Vec<&Attributes>> = BTreeMap::new();
    paths.for_each(|(prefix, attributes)| all.entry(prefix).or_default().push(attributes));
    all.values_mut().for_each(|sets| sets.sort());
    all
}

fn brief(row: &RouteRow) -> String {
    let RouteRow { best, multipath, valid, stale, source, peer, lost_at, .. } = row;
    let hop = row.next_hop.map(|hop| hop.to_string());
    format!("{source:?} of {peer:?} by {hop:?} best {best} multipath {multipath} valid {valid} stale {stale} lost at {lost_at:?}")
}

fn id_of(world: &World, host: usize, name: &str) -> Option<PeerId> {
    let peers = &world.hosts[host].process.as_ref()?.peers;
    peers.iter().find(|(_, peer)| peer.name == name).map(|(id, _)| *id)
}

fn is_up(world: &World, host: usize, peer: PeerId) -> bool {
    world.hosts[host].process.as_ref().is_some_and(|process| process.is_established(peer))
}

/// What we say that we have told a peer is what it holds of us, and what the oracle would have it hold; and both count right.
fn mirror(world: &mut World, session: &super::oracle::Session, expected: &BTreeMap<(IpNet, String), Attributes>, wrong: &mut Vec<String>) {
    let (Some(ours), Some(theirs)) = (id_of(world, session.node, &session.peer), id_of(world, session.remote, &session.remote_peer)) else {
        return;
    };
    let Query::Routes { prefix, longer, family, .. } = ALL else { return };
    let told = rows(world, session.node, &Query::Routes { prefix, longer, family, received: None, advertised: Some(ours) });
    let heard = rows(world, session.remote, &Query::Routes { prefix, longer, family, received: Some(theirs), advertised: None });
    let label = format!("{} → {}", world.hosts[session.node].spec.name, session.peer);
    let table = |rows: &[RouteRow]| -> BTreeMap<(IpNet, u32), Attributes> {
        rows.iter().map(|row| ((row.prefix, row.path_id.0), Attributes::clone(&row.attributes))).collect()
    };
    let (out, inside) = (table(&told), table(&heard));
    for key in out.keys().chain(inside.keys()).collect::<BTreeSet<_>>() {
        if out.get(key) != inside.get(key) {
            wrong.push(format!("{label}: mirror: {} told {:?}, held {:?}", key.0, out.get(key), inside.get(key)));
        }
    }
    let (held, wanted) = (by_prefix(inside.iter().map(|(key, a)| (key.0, a))), by_prefix(expected.iter().map(|(key, a)| (key.0, a))));
    for prefix in wanted.keys().chain(held.keys()).copied().collect::<BTreeSet<_>>() {
        if held.get(&prefix) != wanted.get(&prefix) {
            wrong.push(format!("{label}: {prefix}: held {:?}, and the oracle says {:?}", held.get(&prefix), wanted.get(&prefix)));
        }
    }
    for family in Family::ALL {
        let count = |rows: &[RouteRow]| rows.iter().filter(|row| row.family == family).count() as u64;
        let counted = |host: usize, peer: PeerId| {
            let instant = world.clock.instant(world.hosts[host].ahead);
            let peer = world.hosts[host].process.as_ref().and_then(|process| process.peers.get(&peer));
            peer.and_then(|peer| peer.machine.status(instant).families.of(family).copied()).unwrap_or_default()
        };
        let (advertised, received) = (counted(session.node, ours).advertised, counted(session.remote, theirs).received);
        if (advertised, received) != (count(&told), count(&heard)) {
            wrong.push(format!(
                "{label}: counters of {family}: {advertised} told, {received} held; rows: {}, {}",
                count(&told),
                count(&heard)
            ));
        }
    }
}
