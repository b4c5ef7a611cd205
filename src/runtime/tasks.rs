//! The small tasks: one machine each, an inbox in, other inboxes out.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, error, info};

use crate::calico::{self, Compiler, LocalWorkload};
use crate::fib::{self, KernelEvent};
use crate::node::first_telling::{FirstTelling, PastLife};
use crate::node::handover;
use crate::node::reach::Reach;
use crate::node::recovery::{self, Recovery};
use crate::node::wiring::{from_origin, kernel_event_is_for_all};
use crate::origin::{self, Origin};
use crate::rib;
use crate::runtime::directory::Directory;
use crate::runtime::log::Log;
use crate::runtime::message::{FibMessage, PeerMessage, Question, RecoveryStatus, ShardMessage};
use crate::runtime::recording::Recorder;
use crate::types::{Outbox, Sync};

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn heard(recorder: &mut Option<Recorder>, input: &impl std::fmt::Debug) {
    if let Some(recorder) = recorder {
        recorder.heard(Instant::now(), input);
    }
}

fn said(recorder: &mut Option<Recorder>, outbox: &Outbox<impl std::fmt::Debug>) {
    if let Some(recorder) = recorder {
        recorder.said(Instant::now(), outbox.as_slice().iter());
    }
}

/// What the compiler said last.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// The configuration to be in force.
    pub config: Option<Arc<crate::config::NodeConfig>>,
    /// All that is wrong.
    pub problems: Arc<[calico::Problem]>,
    /// It has spoken.
    pub spoken: bool,
}

/// Runs the Compiler machine; only its newest word counts.
pub async fn compiler(
    mut machine: Compiler,
    mut inbox: mpsc::Receiver<calico::Input>,
    mut workloads: mpsc::Receiver<Vec<LocalWorkload>>,
    mut questions: mpsc::Receiver<Question<Compiler>>,
    newest: watch::Sender<Compiled>,
    mut recorder: Option<Recorder>,
) {
    let mut outbox = Outbox::new();
    loop {
        tokio::select! {
            input = inbox.recv() => match input {
                None => return,
                Some(input) => {
                    heard(&mut recorder, &input);
                    machine.handle(Instant::now(), input, &mut outbox);
                }
            },
            Some(question) = questions.recv() => {
                question.answer(&machine);
                continue;
            }
            Some(workloads) = workloads.recv() => {
                heard(&mut recorder, &workloads);
                machine.set_workloads(Instant::now(), workloads);
            }
            () = until(machine.deadline()) => machine.on_deadline(Instant::now(), &mut outbox),
        }
        said(&mut recorder, &outbox);
        if let Some(calico::Output::Compiled { config, problems }) = outbox.drain().last() {
            debug!(work = ?machine.work(), "the resources are compiled");
            newest.send_replace(Compiled { config, problems, spoken: true });
        }
    }
}

/// Lets the log follow the configuration's level.
pub async fn log_level(log: Log, mut compiled: watch::Receiver<Compiled>) {
    let mut level = None;
    loop {
        let wanted = compiled.borrow_and_update().config.as_ref().map(|config| config.log_level);
        if let Some(wanted) = wanted.filter(|wanted| level != Some(*wanted)) {
            level = Some(wanted);
            log.apply(wanted);
        }
        if compiled.changed().await.is_err() {
            return;
        }
    }
}

/// To the Origin machine's task.
pub type OriginInbox = mpsc::Sender<origin::Input>;

/// Runs the Origin machine; `ready` is told when its first whole table has gone to the shards.
pub async fn origin(
    mut machine: Origin,
    mut inbox: mpsc::Receiver<origin::Input>,
    mut questions: mpsc::Receiver<Question<Origin>>,
    shards: Vec<mpsc::Sender<ShardMessage>>,
    ready: oneshot::Sender<()>,
    mut recorder: Option<Recorder>,
) {
    let mut outbox = Outbox::new();
    let mut ready = Some(ready);
    loop {
        tokio::select! {
            input = inbox.recv() => match input {
                None => return,
                Some(input) => {
                    heard(&mut recorder, &input);
                    machine.handle(Instant::now(), input, &mut outbox);
                }
            },
            Some(question) = questions.recv() => question.answer(&machine),
            () = until(machine.deadline()) => machine.on_deadline(Instant::now(), &mut outbox),
        }
        said(&mut recorder, &outbox);
        for output in outbox.drain() {
            let whole = output == origin::Output::Local(Sync::End);
            let (owner, input) = from_origin(u16::try_from(shards.len()).unwrap_or(u16::MAX), output);
            for (number, shard) in shards.iter().enumerate() {
                if owner.is_none_or(|owner| usize::from(owner.0) == number) {
                    // Closed means that the process ends.
                    let _ = shard.send(ShardMessage::Input(input.clone())).await;
                }
            }
            if whole && let Some(ready) = ready.take() {
                let _ = ready.send(());
            }
        }
    }
}

/// Runs the Recovery machine; `status` shows how far it is. What sessions say here is for the Handover machine as well.
pub async fn recovery(
    mut machine: Recovery,
    mut inbox: mpsc::Receiver<recovery::Input>,
    done: oneshot::Sender<()>,
    status: watch::Sender<RecoveryStatus>,
    handover: mpsc::Sender<handover::Input>,
) {
    let mut outbox = Outbox::new();
    let mut done = Some(done);
    loop {
        tokio::select! {
            input = inbox.recv() => match input {
                None => return,
                Some(input) => {
                    if let Some(word) = handover::Input::of_session(&input) {
                        // Its task waits for nobody; closed means that the process ends.
                        let _ = handover.send(word).await;
                    }
                    machine.handle(Instant::now(), input, &mut outbox);
                }
            },
            () = until(machine.deadline()) => machine.on_deadline(Instant::now(), &mut outbox),
        }
        status.send_replace(RecoveryStatus { waiting: machine.waited_for().len(), give_up: machine.give_up() });
        for recovery::Output::Done in outbox.drain() {
            info!("restart is over: learned routes are sent on, routes of a past life that nobody claimed are removed");
            if let Some(done) = done.take() {
                let _ = done.send(());
            }
        }
    }
}

/// Whom the kernel's facts go to.
pub struct KernelAudience {
    /// Our protocol number.
    pub protocol: u8,
    /// Hears everything.
    pub fib: mpsc::Sender<FibMessage>,
    /// Hears what is not ours.
    pub origin: OriginInbox,
    /// Hear what is not ours.
    pub shards: Vec<mpsc::Sender<ShardMessage>>,
    /// Hears of links and addresses.
    pub reach: mpsc::Sender<KernelEvent>,
}

/// Runs [`Reach`]: tells peers what becomes of their links and source addresses.
pub async fn reach(mut inbox: mpsc::Receiver<KernelEvent>, mut directory: watch::Receiver<Arc<Directory>>) {
    let mut reach = Reach::default();
    loop {
        tokio::select! {
            changed = directory.changed() => {
                if changed.is_err() {
                    return;
                }
                let peers = directory.borrow_and_update().peers.values().map(|entry| (entry.id, Arc::clone(&entry.config))).collect();
                reach.configure(peers);
            }
            event = inbox.recv() => {
                let Some(event) = event else { return };
                for (id, input) in reach.hear(event) {
                    let inbox = directory.borrow().peers.values().find(|entry| entry.id == id).map(|entry| entry.inbox.clone());
                    if let Some(inbox) = inbox {
                        // Closed means that the peer is gone.
                        let _ = inbox.send(PeerMessage::Input(Box::new(input))).await;
                    }
                }
            }
        }
    }
}

/// Hands the kernel's facts on; `first` is told when links, addresses and routes have been told whole once.
pub async fn kernel(mut events: mpsc::Receiver<Vec<KernelEvent>>, audience: KernelAudience, first: oneshot::Sender<PastLife>) {
    let mut first = Some(first);
    let mut told = FirstTelling::new(audience.protocol);
    while let Some(events) = events.recv().await {
        for event in events {
            told.note(&event);
            if kernel_event_is_for_all(&event, audience.protocol) {
                let _ = audience.origin.send(origin::Input::Kernel(event.clone())).await;
                for shard in &audience.shards {
                    let _ = shard.send(ShardMessage::Input(rib::Input::Kernel(event.clone()))).await;
                }
            }
            if matches!(event, KernelEvent::Link(_) | KernelEvent::Address(_)) {
                let _ = audience.reach.send(event.clone()).await;
            }
            let _ = audience.fib.send(FibMessage::Input(fib::Input::Kernel(event))).await;
        }
        if told.is_whole()
            && let Some(first) = first.take()
        {
            let _ = first.send(told.past_life());
        }
    }
    error!("the kernel monitor has ended; changes of links, addresses and routes are no longer seen");
}
