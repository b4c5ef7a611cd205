//! What tasks and threads send each other: machine inputs, and what only exists above the wall (sockets, reply channels).
//! Every channel is bounded; the await graph is sockets → peer → shard, and a shard waits for nobody.

use std::fmt;
use std::net::SocketAddr;

use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use crate::rib::MonitorId;
use crate::session::{PeerStatus, PrefixCounts, RouteBatch, RouteChange};
use crate::types::{PeerId, PerFamily, ShardId};
use crate::{fib, rib, session};

/// To a peer's task. Small: its inbox keeps room for 32 of them from the start.
#[derive(Debug)]
pub enum PeerMessage {
    /// For its machine.
    Input(Box<session::Input>),
    /// A connection, and where it comes from.
    Accepted(Box<(TcpStream, SocketAddr)>),
    /// Read nothing from the peer, or read again: memory is short (Q2).
    Hold(bool),
    /// Tell how you are.
    Status(oneshot::Sender<PeerStatus>),
    /// Panic over these octets, to show what becomes of the others (V9).
    #[cfg(test)]
    Panic(bytes::Bytes),
}

/// To the supervisor, from the control API. The answer comes when every machine has been told.
#[derive(Debug)]
pub enum Order {
    /// Drain the node (RFC 8326), or end the drain and what `Shutdown` did.
    Drain(bool, oneshot::Sender<()>),
    /// End all sessions with 6/2 and this text (RFC 9003); they stay down until the drain ends.
    Shutdown(String, oneshot::Sender<()>),
    /// Give a sign of life.
    Ping(oneshot::Sender<()>),
}

/// To the task of a machine: a look at it, from which whoever asks takes what he needs, be it a copy or a sign of life. The task does
/// nothing else meanwhile.
pub struct Question<M>(Box<dyn FnOnce(&M) + Send>);

impl<M> Question<M> {
    /// What `look` sees goes to `reply`.
    pub fn new<T: Send + 'static>(reply: oneshot::Sender<T>, look: impl FnOnce(&M) -> T + Send + 'static) -> Self {
        // Whoever asked may be gone.
        Self(Box::new(move |machine| drop(reply.send(look(machine)))))
    }

    /// Gives a sign of life.
    pub fn ping(reply: oneshot::Sender<()>) -> Self {
        Self::new(reply, |_| ())
    }

    /// Answers for `machine`.
    pub fn answer(self, machine: &M) {
        (self.0)(machine);
    }
}

impl<M> fmt::Debug for Question<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Question")
    }
}

/// To a shard's task.
#[derive(Debug)]
pub enum ShardMessage {
    /// For its machine.
    Input(rib::Input),
    /// Routes of a peer, of which there are only so many on their way at once: whoever takes them lets the next ones in.
    Routes(RouteBatch, OwnedSemaphorePermit),
    /// A session came up: its facts, and where its frames and counters go. Replaces what an older session gave, so
    /// that frames of an older session are never written to a newer one.
    Up(rib::Input, PeerReplies),
    /// A collector of monitoring data is there: what it wants, and where its words go.
    Monitor(MonitorId, rib::Watch, mpsc::Sender<MonitorWords>),
    /// The peer is gone for good.
    Forget(PeerId),
    /// A question and where the answer goes.
    Ask(rib::Query, mpsc::Sender<rib::Answer>),
    /// Hand out a copy of the machine, to try something on. Attributes are shared, tables are copied: some 100 ms a million
    /// prefixes, in which this shard does nothing else.
    Copy(oneshot::Sender<Box<rib::Shard>>),
    /// Give a sign of life.
    Ping(oneshot::Sender<()>),
}

impl ShardMessage {
    /// How much work it makes, in prefixes that change or what takes about as long.
    pub fn work(&self) -> usize {
        match self {
            Self::Routes(batch, _) => batch.changes.iter().map(RouteChange::prefixes).sum(),
            // The whole table.
            Self::Copy(_) => usize::from(u16::MAX),
            // May be answered with a socket's room of messages.
            Self::Input(rib::Input::Pull { .. }) => 8,
            _ => 1,
        }
    }
}

/// What a shard tells a collector; nothing at all where the collector is given up.
pub type MonitorWords = (ShardId, Vec<rib::Monitored>);

/// Where a shard answers a session.
#[derive(Clone, Debug)]
pub struct PeerReplies {
    /// The peer.
    pub peer: PeerId,
    /// Frames. Never more than were asked for, so there is always room.
    pub frames: mpsc::Sender<Box<session::Input>>,
    /// The newest counters by shard; older ones are of no interest.
    pub counts: watch::Sender<ShardCounts>,
}

/// Counters of one peer, as its shards told them last.
pub type ShardCounts = std::collections::BTreeMap<ShardId, PerFamily<PrefixCounts>>;

/// What our own restart waits for.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecoveryStatus {
    /// Peers whose table is awaited.
    pub waiting: usize,
    /// When nobody is waited for any more.
    pub give_up: Option<std::time::Instant>,
}

/// To the FibSyncer's task.
#[derive(Debug)]
pub enum FibMessage {
    /// For its machine.
    Input(fib::Input),
    /// A question and where the answer goes.
    Ask(fib::Query, mpsc::Sender<Vec<fib::FibStatus>>),
    /// Tell the history of best paths as they change.
    Watch(Watch),
    /// Give a sign of life.
    Ping(oneshot::Sender<()>),
}

/// A prefix whose best paths somebody follows.
#[derive(Debug)]
pub struct Watch {
    /// It and those inside it.
    pub prefix: IpNet,
    /// Closed when nobody follows any more.
    pub lease: mpsc::Sender<()>,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::types::{Nlri, NlriList, PathId};

    #[test]
    fn a_single_change_is_little_work_and_a_table_is_much() {
        let permit = || Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().unwrap();
        let routes = |count| {
            let prefix = Nlri { prefix: "10.0.0.0/8".parse().unwrap(), path_id: PathId::default() };
            let change = RouteChange::Withdraw(NlriList::Ipv4(vec![prefix; count]));
            ShardMessage::Routes(RouteBatch { peer: PeerId(1), changes: vec![change] }, permit())
        };
        let (copy, _copied) = oneshot::channel();
        let (ping, _alive) = oneshot::channel();
        let work = [routes(1), ShardMessage::Ping(ping), routes(300), ShardMessage::Copy(copy)].map(|message| message.work());
        assert_eq!(work[..3], [1, 1, 300]);
        assert!(work[3] > 10_000);
    }
}
