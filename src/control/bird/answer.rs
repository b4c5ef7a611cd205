//! From a command to its reply: asks the owners of the state, and hands out text as it comes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use super::clock::Clock;
use super::protocols::{self, OTHERS, Protocol};
use super::reply::{OK, Reply};
use super::request::{Command, Refusal, RouteFilter, Which, matches};
use super::routes::{Counted, Printer};
use super::status::{self, Recovering, Status};
use crate::control::ask;
use crate::fib::{self, FibState};
use crate::node::recovery::DEFERRAL;
use crate::rib::{self, Answer};
use crate::runtime::directory::{Directory, PeerEntry};
use crate::session::PeerStatus;
use crate::types::{Family, PeerId};

/// Tasks of peers that are asked at the same time.
const AT_ONCE: usize = 64;

/// What the sockets answer from.
#[derive(Clone, Debug)]
pub struct Source {
    /// Who is there now.
    pub directory: watch::Receiver<Arc<Directory>>,
    /// Whose socket it is.
    pub family: Family,
}

/// Hands the reply to `out`, in pieces; an error ends it: the client is gone.
pub async fn answer(source: &Source, command: Command, out: &mpsc::Sender<String>) -> Result<(), mpsc::error::SendError<String>> {
    let directory = Arc::clone(&source.directory.borrow());
    let clock = Clock::now();
    let reply = match command {
        Command::Status => status::status(&status_of(&directory), &clock),
        Command::Memory => status::memory(resident_kib()),
        Command::Symbols => {
            let peers = own_peers(&directory, source.family).map(|(name, _)| name.as_str());
            status::symbols(OTHERS.iter().map(|(name, ..)| *name).chain(peers))
        }
        Command::Restrict => ended(16, "Access restricted"),
        Command::Echo | Command::Nothing => ended(OK, ""),
        Command::Help => help(),
        Command::Protocols { .. } | Command::Routes(_) if directory.config.is_none() => {
            ended(8003, &format!("No configuration yet: Node `{}` has not been seen", directory.node))
        }
        Command::Protocols { all, which } => return protocols(&directory, source.family, all, &which, &clock, out).await,
        Command::Routes(filter) => return routes(&directory, source.family, filter, clock, out).await,
    };
    send(reply, out).await
}

/// Hands out why a line is no command.
pub async fn refuse(Refusal(code, text): Refusal, out: &mpsc::Sender<String>) -> Result<(), mpsc::error::SendError<String>> {
    send(ended(code, &text), out).await
}

async fn send(mut reply: Reply, out: &mpsc::Sender<String>) -> Result<(), mpsc::error::SendError<String>> {
    out.send(reply.take()).await
}

fn ended(code: u16, text: &str) -> Reply {
    let mut reply = Reply::default();
    reply.end(code, text);
    reply
}

fn help() -> Reply {
    let mut reply = Reply::default();
    for line in [
        "show status",
        "show protocols [all] [NAME|\"PATTERN\"]",
        "show route [PREFIX|for PREFIX] [all] [primary] [protocol NAME] [export NAME] [count]",
        "show memory",
        "show symbols",
        "margay is configured by Calico's resources; `margay show` and `margay explain` tell more",
    ] {
        reply.line(OK, line);
    }
    reply.end(OK, "");
    reply
}

fn status_of(directory: &Directory) -> Status {
    let recovering = directory.recovery.as_ref().filter(|_| directory.config.is_some() && !directory.recovered).map(|recovery| {
        let recovery = recovery.borrow();
        let left = recovery.give_up.map_or(DEFERRAL, |at| at.saturating_duration_since(Instant::now()));
        Recovering { waiting: recovery.waiting, seconds: (left.as_secs(), DEFERRAL.as_secs()) }
    });
    Status {
        router_id: directory.config.as_ref().map(|config| config.router_id),
        started: directory.started,
        configured: directory.configured,
        recovering,
    }
}

fn own_peers(directory: &Directory, family: Family) -> impl Iterator<Item = (&String, &PeerEntry)> {
    let ipv4 = family == Family::IPV4_UNICAST;
    directory.peers.iter().filter(move |(_, entry)| !entry.leaving && entry.config.address.is_ipv4() == ipv4)
}

fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
}

async fn protocols(
    directory: &Directory,
    family: Family,
    all: bool,
    which: &Which,
    clock: &Clock,
    out: &mpsc::Sender<String>,
) -> Result<(), mpsc::error::SendError<String>> {
    let wanted = |name: &str| match which {
        Which::All => true,
        Which::Named(wanted) => wanted == name,
        Which::Matching(pattern) => matches(pattern, name),
    };
    let others: Vec<_> = OTHERS.into_iter().filter(|(name, ..)| wanted(name)).collect();
    let peers: Vec<_> = own_peers(directory, family).filter(|(name, _)| wanted(name)).map(|(_, entry)| entry).collect();
    if others.is_empty() && peers.is_empty() {
        return send(unknown(which), out).await;
    }
    let mut reply = Reply::default();
    protocols::header(&mut reply);
    for other in others {
        protocols::other(&mut reply, other, directory.started, all, clock);
    }
    for some in peers.chunks(AT_ONCE) {
        let told = futures::future::join_all(some.iter().map(|entry| ask::status(entry))).await;
        for (entry, status) in some.iter().zip(&told) {
            let peer = Protocol { config: &entry.config, status: status.as_ref(), waiting: !directory.recovered };
            protocols::peer(&mut reply, &peer, all, clock, directory.started);
        }
        out.send(reply.take()).await?;
    }
    reply.end(OK, "");
    send(reply, out).await
}

fn unknown(which: &Which) -> Reply {
    match which {
        Which::Named(name) => ended(9002, &format!("{name} is not a protocol")),
        Which::All | Which::Matching(_) => ended(8003, "No protocols match"),
    }
}

async fn routes(
    directory: &Directory,
    family: Family,
    filter: RouteFilter,
    clock: Clock,
    out: &mpsc::Sender<String>,
) -> Result<(), mpsc::error::SendError<String>> {
    let exists = |name: &String| directory.peers.contains_key(name) || OTHERS.iter().any(|(other, ..)| other == name);
    let unknown_name = [&filter.protocol, &filter.export].into_iter().flatten().find(|name| !exists(name)).cloned();
    if let Some(name) = unknown_name {
        return send(unknown(&Which::Named(name)), out).await;
    }
    let question = question(directory, family, &filter);
    let mut printer = Printer {
        failed: failed(directory).await,
        peers: sessions(directory, &clock).await,
        filter,
        started: directory.started,
        clock,
        counted: Counted::default(),
    };
    let mut reply = Reply::default();
    if let rib::Query::Explain(prefix) = question {
        // Of `for`: the longest prefix around, with those that are refused.
        let candidates = ask::explain(directory, prefix).await.candidates.into_iter();
        printer.rows(&mut reply, candidates.filter(|candidate| candidate.verdict != "refused").map(|candidate| candidate.path).collect());
        printer.end(&mut reply);
        return send(reply, out).await;
    }
    for mut rows in ask::routes(directory, question).await {
        while let Some(part) = rows.recv().await {
            let Answer::Routes(rows) = part else { continue };
            printer.rows(&mut reply, rows);
            let text = reply.take();
            if !text.is_empty() {
                out.send(text).await?;
            }
        }
    }
    printer.end(&mut reply);
    send(reply, out).await
}

fn question(directory: &Directory, family: Family, filter: &RouteFilter) -> rib::Query {
    match filter.prefix {
        Some(prefix) if filter.covering => rib::Query::Explain(prefix),
        prefix => rib::Query::Routes {
            prefix,
            longer: false,
            family: Some(family),
            received: None,
            advertised: filter.export.as_ref().and_then(|name| directory.peers.get(name)).map(|entry| entry.id),
        },
    }
}

/// Since when each peer's session is what it is.
pub async fn sessions(directory: &Directory, clock: &Clock) -> BTreeMap<PeerId, (String, IpAddr, Timestamp)> {
    let mut sessions = BTreeMap::new();
    let entries: Vec<(&String, &PeerEntry)> = directory.peers.iter().collect();
    for some in entries.chunks(AT_ONCE) {
        let told: Vec<Option<PeerStatus>> = futures::future::join_all(some.iter().map(|(_, entry)| ask::status(entry))).await;
        for ((name, entry), status) in some.iter().zip(told) {
            let since = status.map_or(directory.started, |status| clock.at(status.since));
            sessions.insert(entry.id, ((*name).clone(), entry.config.address, since));
        }
    }
    sessions
}

/// What the kernel did not take.
pub async fn failed(directory: &Directory) -> BTreeSet<IpNet> {
    let mut failed = BTreeSet::new();
    let Some(mut answer) = ask::kernel_rows(directory, fib::Query::InState(FibState::Failed)).await else { return failed };
    while let Some(rows) = answer.recv().await {
        failed.extend(rows.into_iter().map(|row| row.prefix));
    }
    failed
}
