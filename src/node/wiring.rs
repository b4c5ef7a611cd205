//! The wiring table: whose word goes to whose inbox. Pure functions, one per speaker, so that the runtime's tasks and
//! a simulator deliver the same way.

use std::sync::Arc;

use bytes::Bytes;

use crate::fib::{self, KernelEvent};
use crate::node::recovery;
use crate::types::{ConnectionId, PeerId, QueryId, ShardId, Sync};
use crate::{rib, session};

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
        Output::Down { keep } => FromPeer::EveryShardAndRecovery(rib::Input::PeerDown { peer, keep }, recovery::Input::Failed(peer)),
        Output::SweepStale(family) => FromPeer::EveryShard(rib::Input::SweepStale { peer, family }),
        Output::Routes(shard, batch) => FromPeer::OneShard(shard, rib::Input::Routes(batch)),
        Output::RefreshRequested(family) => FromPeer::EveryShard(rib::Input::RefreshRequested { peer, family }),
        Output::Pull { credit } => FromPeer::EveryShard(rib::Input::Pull { peer, credit }),
        Output::EndOfRib(family) => FromPeer::Recovery(recovery::Input::EndOfRib(peer, family)),
        Output::Event(event) => {
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
        KernelEvent::Written { .. } | KernelEvent::Flushed { .. } => false,
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
}

/// Routes one output of shard `shard`.
pub fn from_shard(shard: ShardId, output: rib::Output) -> FromShard {
    match output {
        rib::Output::Frames { peer, connection, frames, ended } => {
            FromShard::Peer(peer, session::Input::Frames { connection, shard, frames, ended })
        }
        rib::Output::Counts { peer, counts } => FromShard::Peer(peer, session::Input::Counts { shard, counts }),
        rib::Output::FibChanges(changes) => FromShard::Fib(fib::Input::Changes(changes)),
        rib::Output::Answer { query, rows, done } => FromShard::Answer(query, rows, done),
    }
}
