//! One thread per shard: takes what waits in its inbox, runs one round, answers. It waits for nobody but its inbox:
//! every reply was asked for with a credit, so there is room for it.

use std::collections::BTreeMap;
use std::time::Instant;

use tokio::sync::mpsc;
use tracing::{debug, error};

use crate::fib;
use crate::node::wiring::{FromShard, from_shard};
use crate::rib::{self, Output, Shard};
use crate::runtime::message::{PeerReplies, ShardMessage};
use crate::session;
use crate::types::{Outbox, PeerId, QueryId, ShardId};

/// Messages taken into one round at most: one batch a peer, several peers.
const MESSAGES_A_ROUND: usize = 64;

/// See the module.
pub struct ShardThread {
    id: ShardId,
    machine: Shard,
    inbox: mpsc::Receiver<ShardMessage>,
    fib: mpsc::Sender<fib::Input>,
    peers: BTreeMap<PeerId, PeerReplies>,
    questions: BTreeMap<QueryId, mpsc::Sender<rib::Answer>>,
    asked: u64,
    /// Our own restart is over, but the FibSyncer has not been told to sweep: it must first hear what was learned meanwhile.
    sweep_due: bool,
}

impl ShardThread {
    /// A thread's body for `machine`; `fib` takes the answers to the FibSyncer's pulls.
    pub fn new(id: ShardId, machine: Shard, inbox: mpsc::Receiver<ShardMessage>, fib: mpsc::Sender<fib::Input>) -> Self {
        Self { id, machine, inbox, fib, peers: BTreeMap::new(), questions: BTreeMap::new(), asked: 0, sweep_due: false }
    }

    /// Starts the thread; it ends when its inbox is closed.
    ///
    /// # Errors
    /// The system has no thread for us.
    pub fn spawn(self) -> std::io::Result<std::thread::JoinHandle<()>> {
        std::thread::Builder::new().name(format!("shard-{}", self.id)).spawn(move || {
            let _guard = EndsTheProcess(self.id);
            self.run();
        })
    }

    fn run(mut self) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => return error!(%error, "shard has no timer"),
        };
        runtime.block_on(async {
            let mut outbox = Outbox::new();
            let mut messages = Vec::with_capacity(MESSAGES_A_ROUND);
            while self.gather(&mut messages).await {
                for message in messages.drain(..) {
                    self.take(message, &mut outbox);
                }
                let now = Instant::now();
                if self.machine.deadline().is_some_and(|deadline| deadline <= now) {
                    self.machine.on_deadline(now, &mut outbox);
                }
                self.machine.finish_round(now, &mut outbox);
                for output in outbox.drain() {
                    deliver(self.id, output, &mut self.peers, &mut self.questions, &self.fib);
                }
                self.sweep_if_settled();
            }
        });
        debug!(shard = %self.id, "shard ended");
    }

    /// Waits for messages or the machine's deadline; false when the inbox is closed.
    async fn gather(&mut self, messages: &mut Vec<ShardMessage>) -> bool {
        let receive = self.inbox.recv_many(messages, MESSAGES_A_ROUND);
        match self.machine.deadline() {
            None => receive.await > 0,
            // Past the deadline the machine has its turn; `recv_many` loses nothing when it is dropped.
            Some(deadline) => tokio::time::timeout_at(deadline.into(), receive).await.map_or(true, |received| received > 0),
        }
    }

    /// What the FibSyncer hears last before it sweeps is the last of what it would have been wrong to sweep.
    fn sweep_if_settled(&mut self) {
        if self.sweep_due && self.machine.is_settled() {
            self.sweep_due = false;
            if self.fib.try_send(fib::Input::Sweep).is_err() {
                debug!(shard = %self.id, "the FibSyncer has ended");
            }
        }
    }

    fn take(&mut self, message: ShardMessage, outbox: &mut Outbox<Output>) {
        let now = Instant::now();
        match message {
            ShardMessage::Input(input) => {
                self.sweep_due |= matches!(input, rib::Input::RecoveryDone);
                self.machine.handle(now, input, outbox);
            }
            ShardMessage::Up(input, replies) => {
                self.peers.insert(replies.peer, replies);
                self.machine.handle(now, input, outbox);
            }
            ShardMessage::Forget(peer) => {
                self.peers.remove(&peer);
            }
            // Whoever asked may be gone.
            ShardMessage::Copy(reply) => drop(reply.send(Box::new(self.machine.clone()))),
            ShardMessage::Ask(query, reply) => {
                self.asked += 1;
                let id = QueryId(self.asked);
                self.questions.insert(id, reply);
                self.machine.handle(now, rib::Input::Query(id, query), outbox);
            }
        }
    }
}

/// A shard's state is suspect after a panic: the process ends, its kernel routes stay, its successor adopts them.
struct EndsTheProcess(ShardId);

impl Drop for EndsTheProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!(shard = %self.0, "a shard panicked; the process ends and kernel routes stay");
            std::process::exit(101);
        }
    }
}

fn deliver(
    shard: ShardId,
    output: Output,
    peers: &mut BTreeMap<PeerId, PeerReplies>,
    questions: &mut BTreeMap<QueryId, mpsc::Sender<rib::Answer>>,
    fib: &mpsc::Sender<fib::Input>,
) {
    match from_shard(shard, output) {
        FromShard::Peer(peer, input) => {
            if let Some(replies) = peers.get(&peer) {
                to_peer(shard, replies, input);
            }
        }
        FromShard::Fib(input) => {
            if fib.try_send(input).is_err() {
                debug!(%shard, "the FibSyncer has ended");
            }
        }
        FromShard::Answer(query, rows, done) => {
            // A reader that is gone, or does not read, gets a short answer; the shard waits for nobody.
            let refused = questions.get(&query).is_some_and(|reply| reply.try_send(rows).is_err());
            if done || refused {
                questions.remove(&query);
            }
        }
    }
}

fn to_peer(shard: ShardId, replies: &PeerReplies, input: session::Input) {
    match input {
        session::Input::Counts { shard, counts } => {
            replies.counts.send_modify(|all| {
                all.insert(shard, counts);
            });
        }
        // The session may have ended meanwhile: its channel is closed.
        input => {
            if let Err(mpsc::error::TrySendError::Full(_)) = replies.frames.try_send(input) {
                error!(%shard, peer = %replies.peer, "frames beyond the credit were dropped; the session must be reset");
            }
        }
    }
}
