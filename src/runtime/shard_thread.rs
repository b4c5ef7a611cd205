//! One thread per shard: takes what waits in its inbox, runs one round, answers. It waits for nobody but its inbox:
//! every reply was asked for with a credit, so there is room for it.

use std::collections::BTreeMap;
use std::time::Instant;

use tokio::sync::mpsc;
use tracing::{debug, error};

use crate::fib;
use crate::node::wiring::{FromShard, from_shard};
use crate::rib::{self, MonitorId, Output, Shard};
use crate::runtime::message::{MonitorWords, PeerReplies, ShardMessage};
use crate::runtime::questions::{Questions, Taken};
use crate::runtime::recording::Recorder;
use crate::runtime::shard_meters::{Lap, Meter, ShardMeters};
use crate::session;
use crate::types::{Outbox, PeerId, ShardId};

/// Messages taken into one round at most: one batch a peer, several peers.
const MESSAGES_A_ROUND: usize = 64;

/// See the module.
pub struct ShardThread {
    id: ShardId,
    machine: Shard,
    inbox: mpsc::Receiver<ShardMessage>,
    fib: mpsc::Sender<(ShardId, fib::Input)>,
    peers: BTreeMap<PeerId, PeerReplies>,
    questions: Questions<rib::Answer>,
    /// Collectors: with one pull under way there is always room.
    monitors: BTreeMap<MonitorId, mpsc::Sender<MonitorWords>>,
    meter: Meter,
    recorder: Option<Recorder>,
    /// Our own restart is over, but the FibSyncer has not been told to sweep: it must first hear what was learned meanwhile.
    sweep_due: bool,
}

impl ShardThread {
    /// A thread's body for `machine`; `fib` takes the answers to the FibSyncer's pulls.
    pub fn new(
        id: ShardId,
        machine: Shard,
        inbox: mpsc::Receiver<ShardMessage>,
        fib: mpsc::Sender<(ShardId, fib::Input)>,
        meters: &ShardMeters,
    ) -> Self {
        Self {
            id,
            machine,
            inbox,
            fib,
            peers: BTreeMap::new(),
            questions: Questions::new(rib::PARTS_A_ROUND),
            monitors: BTreeMap::new(),
            meter: meters.of(id),
            recorder: None,
            sweep_due: false,
        }
    }

    /// The same, recorded.
    pub fn recorded(self, recorder: Option<Recorder>) -> Self {
        Self { recorder, ..self }
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
                let mut lap = Lap::begin();
                for message in messages.drain(..) {
                    self.take(message, &mut outbox);
                }
                let now = lap.received();
                // Whether messages or the machine's deadline led here, it is one round: what that may say at most has room with its readers.
                self.machine.finish_round_watched(now, &mut outbox, |stage| lap.done(stage));
                let outputs: Vec<Output> = outbox.drain().collect();
                if let Some(recorder) = &mut self.recorder {
                    recorder.said(now, outputs.iter().filter(|output| !matches!(output, Output::Answer { .. })));
                }
                for output in outputs {
                    if let Some(input) = self.deliver(output) {
                        self.machine.handle(now, input, &mut outbox);
                    }
                }
                self.sweep_if_settled();
                self.meter.round(lap.delivered());
                self.meter.read(now, &self.machine);
            }
        });
        debug!(shard = %self.id, "shard ended");
    }

    /// Waits for messages, the machine's deadline, or room for an answer that waits; false when the inbox is closed.
    async fn gather(&mut self, messages: &mut Vec<ShardMessage>) -> bool {
        let deadline = [self.machine.deadline(), self.meter.due()].into_iter().flatten().min();
        // Whichever comes first: `recv_many` loses nothing when it is dropped.
        let room = tokio::select! {
            biased;
            received = self.inbox.recv_many(messages, MESSAGES_A_ROUND) => return received > 0,
            room = self.questions.room() => Some(room),
            () = sleep_until(deadline) => None,
        };
        if let Some(query) = room {
            messages.push(ShardMessage::Input(rib::Input::Resume(query)));
        }
        true
    }

    /// What the FibSyncer hears last before it sweeps is the last of what it would have been wrong to sweep.
    fn sweep_if_settled(&mut self) {
        if self.sweep_due && self.machine.is_settled() {
            self.sweep_due = false;
            if self.fib.try_send((self.id, fib::Input::Sweep)).is_err() {
                debug!(shard = %self.id, "the FibSyncer has ended");
            }
        }
    }

    /// Hands out one output; what the machine is to hear of how it was taken.
    fn deliver(&mut self, output: Output) -> Option<rib::Input> {
        match from_shard(self.id, output) {
            FromShard::Peer(peer, input) => {
                if let Some(replies) = self.peers.get(&peer) {
                    to_peer(self.id, replies, input);
                }
                None
            }
            FromShard::Fib(input) => {
                if self.fib.try_send((self.id, input)).is_err() {
                    debug!(shard = %self.id, "the FibSyncer has ended");
                }
                None
            }
            FromShard::Answer(query, rows, done) => self.questions.answer(query, rows, done).map(|taken| match taken {
                Taken::Pause(query) => rib::Input::Pause(query),
                Taken::Abandon(query) => rib::Input::Abandon(query),
            }),
            FromShard::Monitored(monitor, words) => {
                let gone = self.monitors.get(&monitor).is_none_or(|collector| collector.try_send((self.id, words)).is_err());
                gone.then_some(rib::Input::MonitorEnds(monitor))
            }
            // It has room for this beside an answer.
            FromShard::Overrun(monitor) => {
                if let Some(collector) = self.monitors.remove(&monitor) {
                    // It may have gone.
                    let _ = collector.try_send((self.id, Vec::new()));
                }
                None
            }
        }
    }

    /// Hands the machine an input of those that are recorded.
    fn hear(&mut self, now: Instant, input: rib::Input, outbox: &mut Outbox<Output>) {
        if let Some(recorder) = &mut self.recorder {
            recorder.heard(now, &input);
        }
        match &input {
            rib::Input::MonitorEnds(monitor) => drop(self.monitors.remove(monitor)),
            rib::Input::RecoveryDone => self.sweep_due = true,
            _ => {}
        }
        self.machine.handle(now, input, outbox);
    }

    fn take(&mut self, message: ShardMessage, outbox: &mut Outbox<Output>) {
        let now = Instant::now();
        match message {
            ShardMessage::Input(input) => self.hear(now, input, outbox),
            ShardMessage::Routes(batch, permit) => {
                // The next batch is decoded while this one is entered.
                drop(permit);
                self.hear(now, rib::Input::Routes(batch), outbox);
            }
            ShardMessage::Up(input, replies) => {
                self.peers.insert(replies.peer, replies);
                self.hear(now, input, outbox);
            }
            ShardMessage::Monitor(monitor, watch, collector) => {
                self.monitors.insert(monitor, collector);
                self.machine.handle(now, rib::Input::Monitor(monitor, watch), outbox);
            }
            ShardMessage::Forget(peer) => {
                self.peers.remove(&peer);
            }
            // Whoever asked may be gone.
            ShardMessage::Copy(reply) => drop(reply.send(Box::new(self.machine.clone()))),
            ShardMessage::Ping(reply) => _ = reply.send(()),
            ShardMessage::Ask(query, reply) => {
                let id = self.questions.add(reply);
                self.machine.handle(now, rib::Input::Query(id, query), outbox);
            }
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use ipnet::{IpNet, Ipv4Net};

    use super::*;
    use crate::origin::{LocalKey, LocalRoute, LocalTarget};
    use crate::policy::RouteSource;
    use crate::rib::{Answer, Query, RibConfig};
    use crate::types::{RouterId, Sync};

    /// A shard's thread that holds this many local routes.
    fn shard(routes: u32) -> mpsc::Sender<ShardMessage> {
        let router_id = RouterId(Ipv4Addr::new(10, 0, 0, 1));
        let config = Arc::new(RibConfig { router_id, cluster_id: None, max_paths: 1, protocol: 12 });
        let (sender, inbox) = mpsc::channel(64);
        let (fib, _changes) = mpsc::channel(4);
        ShardThread::new(ShardId(0), Shard::new(ShardId(0), 7, config), inbox, fib, &ShardMeters::default()).spawn().unwrap();
        for number in 0..routes {
            let prefix = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from(0x0a00_0000 + number), 32));
            let key = LocalKey { source: RouteSource::Static, prefix };
            let route = LocalRoute { target: LocalTarget::Blackhole, metric: None };
            sender.blocking_send(ShardMessage::Input(rib::Input::Local(Sync::Upsert(key, route)))).unwrap();
        }
        sender
    }

    fn ask(shard: &mpsc::Sender<ShardMessage>, room: usize) -> mpsc::Receiver<Answer> {
        let query = Query::Routes { prefix: None, longer: false, family: None, received: None, advertised: None };
        let (reply, answer) = mpsc::channel(room);
        shard.blocking_send(ShardMessage::Ask(query, reply)).unwrap();
        answer
    }

    fn rows(mut answer: mpsc::Receiver<Answer>) -> usize {
        let parts = std::iter::from_fn(|| answer.blocking_recv());
        parts.map(|part| if let Answer::Routes(rows) = part { rows.len() } else { 0 }).sum()
    }

    #[test]
    fn an_answer_waits_for_its_reader_and_for_nobody_else_and_is_whole() {
        const ROUTES: u32 = 20_000;
        let shard = shard(ROUTES);
        let slow = ask(&shard, rib::PARTS_A_ROUND);
        drop(ask(&shard, rib::PARTS_A_ROUND));
        let quick = ask(&shard, rib::PARTS_A_ROUND);
        assert_eq!(rows(quick), ROUTES as usize, "though the one before has read nothing");
        assert!(slow.len() <= rib::PARTS_A_ROUND, "no more waits than there is room for");
        assert_eq!(rows(slow), ROUTES as usize);
    }
}
