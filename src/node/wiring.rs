//! The wiring table: whose word goes to whose inbox. Pure functions, one per speaker, so that the runtime's tasks and
//! a simulator deliver the same way.

use std::sync::Arc;

use bytes::Bytes;

use crate::config::diff::{Diff, PeerChange};
use crate::config::{NodeConfig, PeerConfig};
use crate::fib::{self, KernelEvent};
use crate::node::recovery;
use crate::origin;
use crate::rib::{MonitorId, Monitored, RibConfig};
use crate::session::StopReason;
use crate::types::{ConnectionId, PeerId, QueryId, ShardId, Sync};
use crate::{rib, session};

/// Paths used together for one prefix at most, as Calico's BIRD does.
const MAX_PATHS: usize = 16;

/// Where a word of a Peer machine goes.
#[derive(Debug)]
pub enum FromPeer {
    /// To its own sockets.
    Socket(SocketWord),
    /// To every shard.
    EveryShard(rib::Input),
    /// To one shard.
    OneShard(ShardId, rib::Input),
    /// To every shard, and to recovery.
    EveryShardAndRecovery(rib::Input, recovery::Input),
    /// To recovery.
    Recovery(recovery::Input),
    /// To logs, events and metrics; a failed attempt also ends recovery's wait for the peer.
    Told(session::Event, Option<recovery::Input>),
}

/// What a Peer machine wants of its sockets.
#[derive(Debug)]
pub enum SocketWord {
    /// Open a connection.
    Connect(ConnectionId),
    /// Write.
    Send(ConnectionId, Bytes),
    /// Close; lingering if true (H5).
    Close(ConnectionId, bool),
}

/// Routes one output of peer `peer`.
pub fn from_peer(peer: PeerId, output: session::Output) -> FromPeer {
    use session::Output;
    match output {
        Output::Connect { connection } => FromPeer::Socket(SocketWord::Connect(connection)),
        Output::Send { connection, bytes } => FromPeer::Socket(SocketWord::Send(connection, bytes)),
        Output::Close { connection, linger } => FromPeer::Socket(SocketWord::Close(connection, linger)),
        Output::Up(facts) => FromPeer::EveryShardAndRecovery(rib::Input::PeerUp(Arc::clone(&facts)), recovery::Input::Up(facts)),
        Output::Down { keep, end } => {
            FromPeer::EveryShardAndRecovery(rib::Input::PeerDown { peer, keep, end }, recovery::Input::Failed(peer))
        }
        Output::Reload(config) => FromPeer::EveryShard(rib::Input::PeerReload { peer, config }),
        Output::LongLived(family) => FromPeer::EveryShard(rib::Input::LongLived { peer, family }),
        Output::SweepStale(family) => FromPeer::EveryShard(rib::Input::SweepStale { peer, family }),
        Output::Routes(shard, batch) => FromPeer::OneShard(shard, rib::Input::Routes(batch)),
        Output::RefreshRequested(family) => FromPeer::EveryShard(rib::Input::RefreshRequested { peer, family }),
        Output::Pull { shard, credit } => FromPeer::OneShard(shard, rib::Input::Pull { peer, credit }),
        Output::EndOfRib(family) => FromPeer::Recovery(recovery::Input::EndOfRib(peer, family)),
        Output::Event(event) => {
            // A connection that gave way to another one (`Superseded`) is no failure.
            let failed = matches!(event, session::Event::Down(_)).then_some(recovery::Input::Failed(peer));
            FromPeer::Told(event, failed)
        }
    }
}

/// Whether a fact of the kernel concerns the machines besides the FibSyncer: everything but our own routes
/// (which resolve no next hop and originate nothing) and the answers to writes.
pub fn kernel_event_is_for_all(event: &KernelEvent, protocol: u8) -> bool {
    match event {
        KernelEvent::Route(Sync::Upsert(_, route)) => route.protocol != protocol,
        KernelEvent::Written { .. } | KernelEvent::Flushed { .. } | KernelEvent::Object(_) => false,
        KernelEvent::Link(_) | KernelEvent::Address(_) | KernelEvent::Route(_) => true,
    }
}

/// Where a word of a shard goes.
#[derive(Debug)]
pub enum FromShard {
    /// To a peer's inbox.
    Peer(PeerId, session::Input),
    /// To the FibSyncer.
    Fib(fib::Input),
    /// To whoever asked; complete if true.
    Answer(QueryId, rib::Answer, bool),
    /// To a collector.
    Monitored(MonitorId, Vec<Monitored>),
    /// To a collector: it is given up.
    Overrun(MonitorId),
}

/// Routes one output of shard `shard`.
pub fn from_shard(shard: ShardId, output: rib::Output) -> FromShard {
    match output {
        rib::Output::Frames { peer, connection, frames, ended } => {
            FromShard::Peer(peer, session::Input::Frames { connection, shard, frames, ended })
        }
        rib::Output::Counts { peer, counts } => FromShard::Peer(peer, session::Input::Counts { shard, counts }),
        rib::Output::FibChanges { changes, more: false } => FromShard::Fib(fib::Input::Changes(changes)),
        rib::Output::FibChanges { changes, more: true } => FromShard::Fib(fib::Input::SomeChanges(changes)),
        rib::Output::Answer { query, rows, done } => FromShard::Answer(query, rows, done),
        rib::Output::Monitored(monitor, words) => FromShard::Monitored(monitor, words),
        rib::Output::Overrun(monitor) => FromShard::Overrun(monitor),
    }
}

/// Where a word of the Origin machine goes: a route to the shard that owns its prefix, and to no other, since each shard
/// answers for its prefixes alone; `Begin` and `End` to every shard (none).
pub fn from_origin(shards: u16, output: origin::Output) -> (Option<ShardId>, rib::Input) {
    let origin::Output::Local(word) = output;
    let owner = match &word {
        Sync::Upsert(key, _) | Sync::Remove(key) => Some(session::shard_of(&key.prefix, shards)),
        Sync::Begin | Sync::End => None,
    };
    (owner, rib::Input::Local(word))
}

/// What every shard knows of the node.
pub fn rib_config(config: &NodeConfig) -> RibConfig {
    let cluster_id = config.peers.values().find_map(|peer| peer.cluster_id);
    RibConfig { router_id: config.router_id, cluster_id, max_paths: MAX_PATHS, protocol: config.fib.protocol }
}

/// What the machines other than peers hear of a changed configuration.
#[derive(Debug)]
pub struct FromConfig {
    /// To every shard.
    pub shards: Option<rib::Input>,
    /// To the FibSyncer.
    pub fib: Option<fib::Input>,
    /// To the Origin machine.
    pub origin: Option<origin::Input>,
}

/// Routes a new configuration that differs from the old one by `diff`; its peers go by [`from_peer_change`].
pub fn from_config(diff: &Diff, new: &NodeConfig) -> FromConfig {
    FromConfig {
        shards: diff.rib.then(|| rib::Input::Configure(Arc::new(rib_config(new)))),
        fib: diff.fib.then(|| fib::Input::Configure(Arc::new(new.fib.clone()))),
        origin: diff.origin.then(|| origin::Input::Configure(Arc::new(new.origin.clone()))),
    }
}

/// What a changed peer leads to.
#[derive(Debug, Default)]
pub struct FromPeerChange {
    /// To the peer, in this order.
    pub peer: Vec<session::Input>,
    /// To recovery.
    pub recovery: Option<recovery::Input>,
}

/// Routes the change of one peer. A peer that was added or deleted is made before, or forgotten after, by the caller. Shards hear
/// of a changed peer by its session ([`session::Output::Reload`]), behind what that has told them before.
pub fn from_peer_change(peer: PeerId, change: &PeerChange, config: &Arc<PeerConfig>) -> FromPeerChange {
    let configure = session::Input::Configure(Arc::clone(config));
    match change {
        PeerChange::Add => FromPeerChange { peer: vec![session::Input::Start], ..FromPeerChange::default() },
        PeerChange::Delete => FromPeerChange {
            peer: vec![session::Input::Stop(if config.cluster_node { StopReason::HandedOver } else { StopReason::Deconfigured })],
            recovery: Some(recovery::Input::Removed(peer)),
        },
        PeerChange::Keep | PeerChange::Reload(_) | PeerChange::Rename { .. } => {
            FromPeerChange { peer: vec![configure], ..FromPeerChange::default() }
        }
        PeerChange::Reinit(_) => {
            FromPeerChange { peer: vec![session::Input::Stop(StopReason::ConfigurationChange), configure], ..FromPeerChange::default() }
        }
    }
}
