//! What drives a datastore: its task, the [`Intake`] machine between it and the Compiler, and the [`Keeper`] of the state folder.

use std::path::PathBuf;
use std::time::Instant;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use super::asked::{Asked, Listener};
use super::intake::{Heard, Intake, Output, Plan, Trials, WallClock};
use super::keeper::Keeper;
use super::last_known::StateFile;
use super::trial::{Standing, Verdict};
use super::{FileDatastore, Kind, Meters, Settings, State, Status, Word, link, open};
use crate::calico::{Input, Problem};
use crate::types::Outbox;

/// Words that may wait.
const INBOX: usize = 256;
/// Operators' words that may wait for the one being carried out.
const VERDICTS: usize = 8;

/// A running datastore, seen from outside.
#[derive(Debug)]
pub struct Feed {
    /// Everything that counts, for the Compiler.
    pub inputs: mpsc::Receiver<Input>,
    /// How the datastore is.
    pub status: watch::Receiver<Status>,
    /// The CalicoNodeStatus objects of this node.
    pub asked: watch::Receiver<Asked>,
    /// What is wrong with writing them, among the problems of the datastore.
    pub complaints: watch::Sender<Vec<Problem>>,
    /// Takes what operators say of a change on trial.
    pub verdicts: mpsc::Sender<Judgement>,
}

/// What an operator says of a change on trial, and where the answer goes: how the trial is then, or why it cannot be.
#[derive(Debug)]
pub struct Judgement {
    /// What is said.
    pub verdict: Verdict,
    /// Takes the answer.
    pub reply: oneshot::Sender<Result<Standing, String>>,
}

/// Starts the datastore of these settings; `state` is the folder of the last known resources.
///
/// # Errors
/// A setting that can never work, in words.
pub fn start(settings: &Settings, state: PathBuf, meters: Meters) -> anyhow::Result<Feed> {
    let remote = settings.kind != Kind::File;
    let (mut source, words, again) = link(INBOX);
    source.listings = meters.listings.clone();
    let datastore = open(settings)?;
    tokio::spawn(async move {
        if let Err(error) = datastore.run(source).await {
            error!(error = format!("{error:#}"), "the resources are no longer watched; the configuration in force stays");
        }
    });
    let beside = (remote && !settings.resources.is_empty()).then(|| beside(settings));
    let file = StateFile::new(state, settings.node.clone(), settings.kind);
    let last_known = if remote { file.load().unwrap_or_else(|error| unusable(&error)) } else { None };
    let clock = WallClock { at: Instant::now(), is: Timestamp::now() };
    let confirmed = StateFile::confirmed(file.folder().to_owned(), settings.node.clone());
    let left = if remote { None } else { confirmed.load_trial().unwrap_or_else(|error| unusable(&error)) };
    let trials = Trials { always: settings.confirm, saved: left };
    let plan = Plan { name: settings.kind.name(), remote, beside: beside.is_some(), last_known, trials, clock };
    let (out, inputs) = mpsc::channel(INBOX);
    let (published, status) = watch::channel(Status { kind: settings.kind, ..Status::default() });
    meters.status(&status.borrow());
    let (ask, asked) = watch::channel(Asked::new());
    let (complaints, complained) = watch::channel(Vec::new());
    let (verdicts, judged) = mpsc::channel(VERDICTS);
    let listener = Listener::new(settings.node.clone());
    let (kind, machine, keeper) = (settings.kind, Intake::new(plan), Keeper::start(file, confirmed));
    let task = Task { kind, machine, out, again, published, keeper, meters, listener, ask, complained, judged };
    tokio::spawn(task.run(words, beside));
    Ok(Feed { inputs, status, asked, complaints, verdicts })
}

fn unusable<T>(error: &anyhow::Error) -> Option<T> {
    warn!(error = format!("{error:#}"), "nothing is known of an earlier run");
    None
}

/// The files beside a datastore: they add what it does not have, such as Secrets beside etcd.
fn beside(settings: &Settings) -> mpsc::Receiver<Word> {
    let (source, words, _never_asked) = link(INBOX);
    let files = Box::new(FileDatastore::new(settings.resources.clone()));
    tokio::spawn(super::Datastore::run(files, source));
    words
}

struct Task {
    kind: Kind,
    machine: Intake,
    out: mpsc::Sender<Input>,
    again: mpsc::Sender<()>,
    published: watch::Sender<Status>,
    keeper: Keeper,
    meters: Meters,
    listener: Listener,
    ask: watch::Sender<Asked>,
    complained: watch::Receiver<Vec<Problem>>,
    judged: mpsc::Receiver<Judgement>,
}

impl Task {
    async fn run(mut self, mut words: mpsc::Receiver<Word>, mut beside: Option<mpsc::Receiver<Word>>) {
        let mut outbox = Outbox::new();
        loop {
            let deadline = self.machine.deadline();
            let mut said = None;
            tokio::select! {
                () = self.out.closed() => return,
                Some(word) = words.recv() => {
                    if !matches!(word, Word::Away(_)) {
                        self.meters.word();
                    }
                    self.machine.handle(Instant::now(), Heard::Source(word), &mut outbox);
                }
                Ok(()) = self.complained.changed() => {
                    let problems = self.complained.borrow_and_update().clone();
                    self.machine.handle(Instant::now(), Heard::Writer(problems), &mut outbox);
                }
                problem = self.keeper.next() => self.machine.handle(Instant::now(), Heard::Keeper(problem), &mut outbox),
                Some(word) = hear(&mut beside) => self.machine.handle(Instant::now(), Heard::Beside(word), &mut outbox),
                Some(Judgement { verdict, reply }) = self.judged.recv() => {
                    let standing = self.machine.judge(Instant::now(), verdict, &mut outbox);
                    info!(?verdict, ?standing, "an operator's word about a change on trial");
                    said = Some((reply, standing));
                }
                () = until(deadline) => self.machine.on_deadline(Instant::now(), &mut outbox),
            }
            for output in outbox.drain().collect::<Vec<_>>() {
                match output {
                    Output::Tell(input) => {
                        if let Some(asked) = self.listener.hear(&input) {
                            self.ask.send_replace(asked.clone());
                        }
                        if self.out.send(input).await.is_err() {
                            return;
                        }
                    }
                    // One request under way is enough.
                    Output::LookAgain => drop(self.again.try_send(())),
                    Output::Save(table) => self.keeper.save(table),
                    Output::SaveTrial(saved) => self.keeper.save_trial(saved).await,
                }
            }
            self.publish();
            if let Some((reply, standing)) = said {
                // Whoever asked may be gone.
                let _ = reply.send(standing);
            }
        }
    }

    fn publish(&self) {
        let last_known = self.machine.last_known().map(|saved| saved.to_string());
        let trial = self.machine.standing().cloned();
        let status = Status { kind: self.kind, state: self.machine.state(), last_known, trial };
        self.published.send_if_modified(|published| {
            if *published == status {
                return false;
            }
            if published.state != status.state {
                log(&published.state, &status);
            }
            self.meters.status(&status);
            *published = status;
            true
        });
    }
}

fn log(before: &State, Status { kind, state, last_known, .. }: &Status) {
    let (datastore, last_known) = (kind.name(), last_known.as_deref());
    match state {
        State::Starting => {}
        State::InSync => info!(datastore, "the datastore is in sync"),
        State::Away { why, .. } if matches!(before, State::Away { .. }) => warn!(datastore, why, "the datastore is still away"),
        State::Away { why, .. } => warn!(datastore, why, last_known, "the datastore is away; what is in force stays"),
        State::HeldBack { until } => warn!(datastore, until, "the datastore lacks most of what is in force; held back for a second look"),
    }
}

async fn hear(words: &mut Option<mpsc::Receiver<Word>>) -> Option<Word> {
    match words {
        Some(words) => words.recv().await,
        None => None,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
