//! One task per shard: takes what waits in its inbox, runs one round, answers. It waits for nobody but its inbox:
//! every reply was asked for with a credit, so there is room for it.
//!
//! A small round, as a single change makes it, runs where its words came from: the worker that has read a peer's message decides it and
//! writes what follows, without waking any other thread (two of which cost more than the change itself). Where there is much to do the
//! shard moves to a thread of its own ([`Apart`]) and stays there while that goes on, so that a long round never delays a keepalive.
//! It is always the same thread, since what the allocator keeps for a thread is of little use to another one: on tokio's threads for
//! blocking work a table that came and went took a quarter more memory.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error};

use crate::fib;
use crate::node::wiring::{FromShard, from_shard};
use crate::rib::{self, MonitorId, Monitored, Output, Shard};
use crate::runtime::alarm::Alarm;
use crate::runtime::message::{MonitorWords, PeerReplies, ShardMessage};
use crate::runtime::questions::{Questions, Taken};
use crate::runtime::recording::Recorder;
use crate::runtime::shard_meters::{Lap, Meter, ShardMeters};
use crate::session;
use crate::types::{Outbox, PeerId, QueryId, ShardId};

/// Messages taken into one round at most: one batch a peer, several peers.
const MESSAGES_A_ROUND: usize = 64;
/// Rounds of more work than this go apart, counted as [`ShardMessage::work`] does: some fifty microseconds.
const LITTLE: usize = 256;
/// So long a shard that has had much to do waits for more of it before it goes back to its worker.
const MORE: Duration = Duration::from_millis(2);
/// After so many small rounds in a row it goes back as soon as nothing waits.
const SMALL: u32 = 4;

/// See the module.
pub struct ShardTask {
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
    /// Peers were told something in the last round.
    told: bool,
}

impl ShardTask {
    /// A task for `machine`; `fib` takes the answers to the FibSyncer's pulls.
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
            told: false,
        }
    }

    /// The same, recorded.
    pub fn recorded(self, recorder: Option<Recorder>) -> Self {
        Self { recorder, ..self }
    }

    /// Runs until the inbox is closed.
    pub async fn run(self, apart: Apart) {
        let mut shard = Box::new(self);
        let mut messages = Vec::with_capacity(MESSAGES_A_ROUND);
        let mut alarm = Alarm::default();
        while shard.gather(&mut messages, &mut alarm).await {
            if shard.has_much(&messages) {
                // Should the thread panic it ends the process.
                let Some(back) = apart.run(shard, messages).await else { return };
                (shard, messages) = back;
            } else {
                shard.round(&mut messages);
            }
            if !shard.inbox.is_empty() {
                tokio::task::yield_now().await;
            } else if shard.told {
                let_the_woken_run().await;
            }
        }
        debug!(shard = %shard.id, "shard ended");
    }

    /// Whether the next round is long, by what it has been told or what it has not finished.
    fn has_much(&self, messages: &[ShardMessage]) -> bool {
        self.machine.has_much(Instant::now()) || messages.iter().map(ShardMessage::work).sum::<usize>() > LITTLE
    }

    /// Runs rounds until there is nothing to do for a moment, or there has been little for some rounds.
    async fn apart(&mut self, messages: &mut Vec<ShardMessage>) {
        let (mut small, mut alarm) = (0, Alarm::default());
        loop {
            self.round(messages);
            let patience = if small < SMALL { MORE } else { Duration::ZERO };
            match tokio::time::timeout(patience, self.gather(messages, &mut alarm)).await {
                Ok(true) => small = if self.has_much(messages) { 0 } else { small + 1 },
                Ok(false) | Err(_) => return,
            }
        }
    }

    /// What waits, what follows from it, and who is told.
    fn round(&mut self, messages: &mut Vec<ShardMessage>) {
        // What the machine hears of how its answers were taken makes it say nothing before the next round.
        let mut outbox = Outbox::new();
        let mut lap = Lap::begin();
        for message in messages.drain(..) {
            self.take(message, &mut outbox);
        }
        let now = lap.received();
        // Whether messages or the machine's deadline led here, it is one round: what that may say at most has room with its readers.
        self.machine.finish_round_watched(now, &mut outbox, |stage| lap.done(stage));
        let outputs = outbox.take();
        if let Some(recorder) = &mut self.recorder {
            recorder.said(now, outputs.iter().filter(|output| !matches!(output, Output::Answer { .. })));
        }
        self.told = matches!(outputs.last(), Some(Output::Frames { .. }));
        for output in outputs {
            if let Some(input) = self.deliver(output) {
                self.machine.handle(now, input, &mut outbox);
            }
        }
        self.sweep_if_settled();
        self.meter.round(lap.delivered());
        if self.meter.due().is_some_and(|due| due <= now) {
            self.meter.read(now, &self.machine);
        }
    }

    /// Waits for messages, the machine's deadline, or room for an answer that waits; false when the inbox is closed.
    async fn gather(&mut self, messages: &mut Vec<ShardMessage>, alarm: &mut Alarm) -> bool {
        loop {
            let (work, reading) = (self.machine.deadline(), self.meter.due());
            let deadline = work.into_iter().chain(reading).min();
            // Whichever comes first: `recv_many` loses nothing when it is dropped.
            let room = tokio::select! {
                biased;
                received = self.inbox.recv_many(messages, MESSAGES_A_ROUND) => return received > 0,
                room = self.questions.room() => Some(room),
                () = alarm.at(deadline) => None,
            };
            if let Some(query) = room {
                messages.push(ShardMessage::Input(rib::Input::Resume(query)));
            } else if reading.is_some_and(|reading| work.is_none_or(|work| reading < work)) {
                // No round: a round makes another reading due, and a shard without work would go round for ever.
                self.meter.read(Instant::now(), &self.machine);
                continue;
            }
            return true;
        }
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
            FromShard::Answer(query, rows, done) => self.answer(query, rows, done),
            FromShard::Monitored(monitor, words) => self.monitored(monitor, words),
            FromShard::Overrun(monitor) => {
                self.overrun(monitor);
                None
            }
        }
    }

    #[inline(never)]
    fn answer(&mut self, query: QueryId, rows: rib::Answer, done: bool) -> Option<rib::Input> {
        self.questions.answer(query, rows, done).map(|taken| match taken {
            Taken::Pause(query) => rib::Input::Pause(query),
            Taken::Abandon(query) => rib::Input::Abandon(query),
        })
    }

    #[inline(never)]
    fn monitored(&self, monitor: MonitorId, words: Vec<Monitored>) -> Option<rib::Input> {
        let gone = self.monitors.get(&monitor).is_none_or(|collector| collector.try_send((self.id, words)).is_err());
        gone.then_some(rib::Input::MonitorEnds(monitor))
    }

    /// A collector is given up.
    #[inline(never)]
    fn overrun(&mut self, monitor: MonitorId) {
        if let Some(collector) = self.monitors.remove(&monitor) {
            // It has room for this beside an answer, and may have gone.
            let _ = collector.try_send((self.id, Vec::new()));
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
            ShardMessage::Copy(reply) => self.copy(reply),
            ShardMessage::Ping(reply) => _ = reply.send(()),
            ShardMessage::Ask(query, reply) => {
                let id = self.questions.add(reply);
                self.machine.handle(now, rib::Input::Query(id, query), outbox);
            }
        }
    }

    /// Whoever asked may be gone.
    #[inline(never)]
    fn copy(&self, reply: oneshot::Sender<Box<Shard>>) {
        let _ = reply.send(Box::new(self.machine.clone()));
    }
}

/// Goes on once those who were woken have had their turn: what peers wait for is written before others are told of it. tokio's `yield_now`
/// would also ask the system for news, which is a system call for each change.
async fn let_the_woken_run() {
    let mut waits = true;
    poll_fn(|cx| {
        if std::mem::take(&mut waits) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}

/// A shard, what it has been told, and where both go when there is little to do.
type Move = (Box<ShardTask>, Vec<ShardMessage>, oneshot::Sender<(Box<ShardTask>, Vec<ShardMessage>)>);

/// The thread that a shard moves to while there is much to do.
#[derive(Debug)]
pub struct Apart(mpsc::Sender<Move>);

impl Apart {
    /// Starts the thread; it ends with its shard's task.
    ///
    /// # Errors
    /// The system has no thread for us, or no timer.
    pub fn start(shard: ShardId) -> std::io::Result<Self> {
        // Timers of its own: for those of the workers a worker would have to be woken each time.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (sender, mut moves) = mpsc::channel::<Move>(1);
        std::thread::Builder::new().name(format!("shard-{shard}")).spawn(move || {
            let _guard = EndsTheProcess(shard);
            runtime.block_on(async {
                while let Some((mut shard, mut messages, back)) = moves.recv().await {
                    shard.apart(&mut messages).await;
                    if back.send((shard, messages)).is_err() {
                        return;
                    }
                }
            });
        })?;
        Ok(Self(sender))
    }

    async fn run(&self, shard: Box<ShardTask>, messages: Vec<ShardMessage>) -> Option<(Box<ShardTask>, Vec<ShardMessage>)> {
        let (back, returned) = oneshot::channel();
        self.0.send((shard, messages, back)).await.ok()?;
        returned.await.ok()
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
            if let Err(mpsc::error::TrySendError::Full(_)) = replies.frames.try_send(Box::new(input)) {
                error!(%shard, peer = %replies.peer, "frames beyond the credit were dropped; the session must be reset");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::pin::pin;
    use std::sync::Arc;

    use futures::poll;
    use ipnet::{IpNet, Ipv4Net};
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::origin::{LocalKey, LocalRoute, LocalTarget};
    use crate::policy::RouteSource;
    use crate::rib::{Answer, Query, RibConfig};
    use crate::types::{RouterId, Sync};

    /// A task without a route, and what words come to it by.
    fn task(meters: &ShardMeters) -> (ShardTask, mpsc::Sender<ShardMessage>) {
        let router_id = RouterId(Ipv4Addr::new(10, 0, 0, 1));
        let config = Arc::new(RibConfig { router_id, cluster_id: None, max_paths: 1, protocol: 12 });
        let (sender, inbox) = mpsc::channel(64);
        let (fib, _changes) = mpsc::channel(4);
        (ShardTask::new(ShardId(0), Shard::new(ShardId(0), 7, config), inbox, fib, meters), sender)
    }

    fn local(number: u32) -> ShardMessage {
        let prefix = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from(0x0a00_0000 + number), 32));
        let key = LocalKey { source: RouteSource::Static, prefix };
        let route = LocalRoute { target: LocalTarget::Blackhole, metric: None };
        ShardMessage::Input(rib::Input::Local(Sync::Upsert(key, route)))
    }

    /// A shard's task that holds this many local routes.
    async fn shard(routes: u32) -> mpsc::Sender<ShardMessage> {
        let (task, sender) = task(&ShardMeters::default());
        tokio::spawn(task.run(Apart::start(ShardId(0)).unwrap()));
        for number in 0..routes {
            sender.send(local(number)).await.unwrap();
        }
        sender
    }

    async fn ask(shard: &mpsc::Sender<ShardMessage>, room: usize) -> mpsc::Receiver<Answer> {
        let query = Query::Routes { prefix: None, longer: false, family: None, received: None, advertised: None };
        let (reply, answer) = mpsc::channel(room);
        shard.send(ShardMessage::Ask(query, reply)).await.unwrap();
        answer
    }

    async fn rows(mut answer: mpsc::Receiver<Answer>) -> usize {
        let mut count = 0;
        while let Some(part) = answer.recv().await {
            count += if let Answer::Routes(rows) = part { rows.len() } else { 0 };
        }
        count
    }

    #[tokio::test]
    async fn an_answer_waits_for_its_reader_and_for_nobody_else_and_is_whole() {
        const ROUTES: u32 = 20_000;
        let shard = shard(ROUTES).await;
        let slow = ask(&shard, rib::PARTS_A_ROUND).await;
        drop(ask(&shard, rib::PARTS_A_ROUND).await);
        let quick = ask(&shard, rib::PARTS_A_ROUND).await;
        assert_eq!(rows(quick).await, ROUTES as usize, "though the one before has read nothing");
        assert!(slow.len() <= rib::PARTS_A_ROUND, "no more waits than there is room for");
        assert_eq!(rows(slow).await, ROUTES as usize);
    }

    /// The numbers named `name`, as they would be scraped.
    fn scraped(meters: &ShardMeters, name: &str) -> Vec<String> {
        let (mut registry, mut text) = (Registry::default(), String::new());
        meters.register(&mut registry);
        encode(&mut text, &registry).unwrap();
        text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn a_shard_without_work_reads_what_it_holds_and_waits() {
        let meters = ShardMeters::default();
        let (mut task, sender) = task(&meters);
        let (mut messages, mut alarm) = (Vec::new(), Alarm::default());
        for number in 0..10 {
            sender.send(local(number)).await.unwrap();
        }
        assert!(task.gather(&mut messages, &mut alarm).await);
        task.round(&mut messages);
        assert!(task.meter.due().is_some());
        assert!(poll!(pin!(task.gather(&mut messages, &mut alarm))).is_pending(), "a reading is no reason for a round");
        assert_eq!(task.meter.due(), None);
        assert!(scraped(&meters, "rib_prefixes").contains(&r#"rib_prefixes{shard="0",family="ipv4-unicast"} 10"#.to_owned()));
        assert_eq!(scraped(&meters, "rounds"), [r#"rounds_total{shard="0"} 1"#]);
    }
}
