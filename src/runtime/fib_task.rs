//! The FibSyncer's task: Loc-RIB changes and kernel facts in, batches of writes out.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use tokio::sync::mpsc;
use tracing::{error, warn};

use crate::fib::{self, FibStatus, FibSyncer, Input, KernelEvent, Output};
use crate::kernel::Command;
use crate::rib;
use crate::runtime::history::Chronicle;
use crate::runtime::message::{FibMessage, ShardMessage, Watch};
use crate::runtime::questions::{Questions, Taken};
use crate::runtime::recording::Recorder;
use crate::telemetry::Event;
use crate::types::{Outbox, ShardId};

/// See the module.
pub struct FibTask {
    machine: FibSyncer,
    /// Configuration, kernel facts, questions.
    inbox: mpsc::Receiver<FibMessage>,
    /// Answers of the shards to our pulls; with one pull a shard under way there is always room.
    changes: mpsc::Receiver<(ShardId, Input)>,
    shards: Vec<mpsc::Sender<ShardMessage>>,
    /// Shards that have been asked and have not answered: they are not asked again, or they would answer faster than we hear.
    asked_shards: BTreeSet<ShardId>,
    kernel: mpsc::Sender<Command>,
    questions: Questions<Vec<FibStatus>>,
    /// Shards that have nothing more to say before the sweep.
    settled: usize,
    chronicle: Chronicle,
    /// Since when changes of best paths wait for the kernel, and the sizes of the batches that it has not answered.
    unsettled: Option<Instant>,
    under_way: VecDeque<usize>,
    /// Prefixes whose best paths somebody follows.
    watches: Vec<Watch>,
    recorder: Option<Recorder>,
}

impl FibTask {
    /// A task for `machine`.
    pub fn new(
        machine: FibSyncer,
        inbox: mpsc::Receiver<FibMessage>,
        changes: mpsc::Receiver<(ShardId, Input)>,
        shards: Vec<mpsc::Sender<ShardMessage>>,
        kernel: mpsc::Sender<Command>,
        chronicle: Chronicle,
    ) -> Self {
        Self {
            machine,
            inbox,
            changes,
            shards,
            asked_shards: BTreeSet::new(),
            kernel,
            questions: Questions::new(fib::PARTS_A_ROUND),
            settled: 0,
            chronicle,
            unsettled: None,
            under_way: VecDeque::new(),
            watches: Vec::new(),
            recorder: None,
        }
    }

    /// The same, recorded.
    pub fn recorded(self, recorder: Option<Recorder>) -> Self {
        Self { recorder, ..self }
    }

    /// Runs until the inbox is closed.
    pub async fn run(mut self) {
        let mut outbox = Outbox::new();
        loop {
            let deadline = self.machine.deadline().map(tokio::time::Instant::from_std);
            tokio::select! {
                message = self.inbox.recv() => match message {
                    None => return,
                    Some(FibMessage::Input(input)) => self.input(input, &mut outbox),
                    Some(FibMessage::Ask(query, reply)) => {
                        let id = self.questions.add(reply);
                        self.hear(Input::Query(id, query), &mut outbox);
                    }
                    Some(FibMessage::Watch(watch)) => self.watches.push(watch),
                    // Whoever asked may be gone.
                    Some(FibMessage::Ping(reply)) => _ = reply.send(()),
                },
                Some((shard, input)) = self.changes.recv() => {
                    if input.changes().is_some() {
                        self.asked_shards.remove(&shard);
                    }
                    self.tell_watched(&input);
                    self.changed(input, &mut outbox);
                }
                query = self.questions.room() => self.hear(Input::Resume(query), &mut outbox),
                () = async { match deadline { Some(at) => tokio::time::sleep_until(at).await, None => std::future::pending().await } } => {
                    self.machine.on_deadline(Instant::now(), &mut outbox);
                }
            }
            // A word about how an answer was taken may be the occasion for whatever else is due.
            while !outbox.is_empty() {
                let outputs = outbox.take();
                if let Some(recorder) = &mut self.recorder {
                    recorder.said(Instant::now(), outputs.iter().filter(|output| !matches!(output, Output::Answer { .. })));
                }
                for output in outputs {
                    if let Some(input) = self.deliver(output).await {
                        self.hear(input, &mut outbox);
                    }
                }
            }
        }
    }

    fn hear(&mut self, input: Input, outbox: &mut Outbox<Output>) {
        let now = Instant::now();
        if let Some(recorder) = &mut self.recorder {
            recorder.heard(now, &input);
        }
        self.machine.handle(now, input, outbox);
    }

    /// Each shard asks for the sweep when it has said all that it learned meanwhile; the last one's word counts.
    fn changed(&mut self, input: Input, outbox: &mut Outbox<Output>) {
        if matches!(input, Input::Sweep) {
            self.settled += 1;
            if self.settled < self.shards.len() {
                return;
            }
        }
        if let Some(changes) = input.changes()
            && !changes.is_empty()
        {
            self.chronicle.metrics().best_paths(changes.len());
            self.unsettled.get_or_insert_with(Instant::now);
        }
        self.hear(input, outbox);
        self.note_settled(outbox);
    }

    fn input(&mut self, input: Input, outbox: &mut Outbox<Output>) {
        if let Input::Kernel(KernelEvent::Written { failed, .. }) = &input {
            self.chronicle.metrics().written(self.under_way.pop_front().unwrap_or(0), failed.len());
        }
        self.hear(input, outbox);
        self.note_settled(outbox);
    }

    /// Nothing is under way and nothing is to be written: the kernel has all that it takes.
    fn note_settled(&mut self, outbox: &Outbox<Output>) {
        let writes = outbox.as_slice().iter().any(|output| matches!(output, Output::Write(_)));
        if self.under_way.is_empty()
            && !writes
            && !self.machine.is_holding()
            && let Some(since) = self.unsettled.take()
        {
            self.chronicle.metrics().programmed(since.elapsed());
        }
    }

    /// Hands out one output; what the machine is to hear of how it was taken, which leads to no answer.
    async fn deliver(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Write(ops) => {
                self.under_way.push_back(ops.ops.len());
                self.command(Command::Write(ops)).await;
            }
            Output::Resync => {
                self.chronicle.tell(Event::KernelResync);
                self.command(Command::Resync).await;
            }
            Output::Refused { prefix, errno, text } => {
                warn!(%prefix, errno, %text, "the kernel refused a route; it is tried again");
                self.chronicle.tell(Event::KernelRefused { prefix, errno, text });
            }
            Output::Pull { credit } => {
                for (id, shard) in (0..).map(ShardId).zip(&self.shards) {
                    if !self.asked_shards.insert(id) {
                        continue;
                    }
                    // A shard's inbox drains by itself; closed means that the process ends.
                    let _ = shard.send(ShardMessage::Input(rib::Input::PullFib { credit })).await;
                }
            }
            Output::Answer { query, rows, done } => {
                return self.questions.answer(query, rows, done).map(|taken| match taken {
                    Taken::Pause(query) => Input::Pause(query),
                    Taken::Abandon(query) => Input::Abandon(query),
                });
            }
        }
        None
    }

    /// Best paths as they change, for those who follow a prefix; they are told what the Loc-RIB coalesced.
    fn tell_watched(&mut self, input: &Input) {
        let Some(changes) = input.changes() else { return };
        self.watches.retain(|watch| !watch.lease.is_closed());
        if self.watches.is_empty() {
            return;
        }
        for change in changes.iter().filter(|change| self.watches.iter().any(|watch| watch.prefix.contains(&change.prefix))) {
            let route = change.route.as_ref();
            self.chronicle.tell(Event::BestPath {
                prefix: change.prefix,
                source: route.map(|route| route.source),
                local_pref: route.and_then(|route| route.local_pref),
                target: route.map(|route| route.target.clone()),
            });
        }
    }

    async fn command(&self, command: Command) {
        if self.kernel.send(command).await.is_err() {
            error!("the kernel's thread has ended; routes are no longer programmed");
        }
    }
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::*;
    use crate::config::FibConfig;
    use crate::fib::{BestRoute, FibChange, Target};
    use crate::policy::RouteSource;
    use crate::runtime::metrics::Metrics;

    /// One shard that answers at once and one that does not: the other answers may not push more pulls onto it, or one day its answers
    /// come faster than they are heard.
    #[tokio::test]
    async fn a_shard_has_one_pull_under_way_however_often_another_answers() {
        let (quick, mut quick_inbox) = mpsc::channel(8);
        let (slow, mut slow_inbox) = mpsc::channel(8);
        let (_inputs, inbox) = mpsc::channel(1);
        let (changes, changed) = mpsc::channel(8);
        let (kernel, _commands) = mpsc::channel(8);
        let machine = FibSyncer::new(&FibConfig::default(), 7).idle();
        let mut task = FibTask::new(machine, inbox, changed, vec![quick, slow], kernel, Chronicle::start(Metrics::default()));
        let mut out = Outbox::new();
        task.machine.handle(Instant::now(), Input::Changes(Vec::new()), &mut out);
        for output in out.take() {
            task.deliver(output).await;
        }
        tokio::spawn(task.run());
        let is_pull = |message| matches!(message, Some(ShardMessage::Input(rib::Input::PullFib { .. })));
        for _ in 0..20 {
            assert!(is_pull(quick_inbox.recv().await));
            changes.send((ShardId(0), Input::Changes(Vec::new()))).await.unwrap();
        }
        assert!(is_pull(quick_inbox.recv().await));
        assert!(is_pull(slow_inbox.recv().await));
        assert!(slow_inbox.try_recv().is_err(), "it has not answered the first");
        changes.send((ShardId(1), Input::Changes(Vec::new()))).await.unwrap();
        assert!(is_pull(slow_inbox.recv().await));
        assert!(quick_inbox.try_recv().is_err(), "nor has this one");
    }

    #[tokio::test]
    async fn an_answer_of_many_parts_waits_for_its_reader_and_is_whole() {
        const ROUTES: u32 = 20_000;
        let (inputs, inbox) = mpsc::channel(1);
        let (_changes, changed) = mpsc::channel(8);
        let (kernel, _commands) = mpsc::channel(8);
        let mut machine = FibSyncer::new(&FibConfig::default(), 7);
        let prefix = |number: u32| IpNet::new(std::net::Ipv4Addr::from(0x0a00_0000 + number).into(), 32).unwrap();
        let route = || BestRoute { source: RouteSource::Ebgp, local_pref: None, target: Target::Blackhole };
        let changes = (0..ROUTES).map(|number| FibChange { prefix: prefix(number), route: Some(route()) });
        machine.handle(Instant::now(), Input::Changes(changes.collect()), &mut Outbox::new());
        let task = FibTask::new(machine, inbox, changed, Vec::new(), kernel, Chronicle::start(Metrics::default()));
        tokio::spawn(task.run());
        let ask = async || {
            let (reply, answer) = mpsc::channel(fib::PARTS_A_ROUND);
            inputs.send(FibMessage::Ask(fib::Query::All, reply)).await.unwrap();
            answer
        };
        let rows = async |mut answer: mpsc::Receiver<Vec<FibStatus>>| {
            let mut rows = 0;
            while let Some(part) = answer.recv().await {
                rows += part.len();
            }
            rows
        };
        let slow = ask().await;
        drop(ask().await);
        assert_eq!(rows(ask().await).await, ROUTES as usize, "though the one before has read nothing");
        assert!(slow.len() <= fib::PARTS_A_ROUND, "no more waits than there is room for");
        assert_eq!(rows(slow).await, ROUTES as usize);
    }
}
