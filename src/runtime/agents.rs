//! The task of the Agents machine: takes what comes through the door, hands the merged table on to Origin, and keeps it over a restart.
//!
//! ```text
//! control API, a task a connection ─AgentMessage→ agents task ─words→ origin task
//!        ↑ answers, with each message ─────────────────┘ └─ at most once a second ─→ agents.json in --state
//! ```
//! A connection's task waits for the answers to what it has handed in before it reads on, so an agent that does not read its answers holds
//! up itself. The agents' task waits for Origin alone.
//!
//! **Our own restart.** `agents.json` says what each agent had told, and is read before the first session comes up: the routes count
//! at once, as those of agents whose connections are gone, so neither peers nor the kernel see them go. An agent that comes back within the
//! hold time finds them; those of one that does not go then. The file is of one boot of the machine: interfaces of an earlier one
//! are gone. It is written a second after a change at the latest, and on SIGTERM; after a `kill -9` in between, the resync mends it.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::origin::agents::{AgentStatus, Agents, Answer, Happening, Input, Kept, Line, Output};
use crate::origin::{self};
use crate::runtime::history::Chronicle;
use crate::runtime::message::Question;
use crate::runtime::recording::Recorder;
use crate::runtime::settings::Settings;
use crate::runtime::tasks::OriginInbox;
use crate::telemetry::Event;
use crate::types::Outbox;

/// Messages that may wait.
const INBOX: usize = 64;
/// A change is on disk so long after it.
const SAVE: Duration = Duration::from_secs(1);
/// The file in the state folder.
const FILE: &str = "agents.json";

/// To the agents' task.
#[derive(Debug)]
pub enum AgentMessage {
    /// An agent of this name connects.
    Connect(Arc<str>, oneshot::Sender<Result<Admission, String>>),
    /// Lines of a connection; the answers to them go back.
    Lines(u64, Vec<Line>, oneshot::Sender<Vec<Answer>>),
    /// A connection is gone.
    Gone(u64),
    /// A look at the machine.
    Look(Question<Agents>),
    /// Keep what there is on disk now.
    Keep(oneshot::Sender<()>),
}

/// What a connection gets.
#[derive(Debug)]
pub struct Admission {
    /// Its number.
    pub connection: u64,
    /// Its first answer.
    pub hello: Answer,
    /// Told when another connection has taken over, with the last words.
    pub over: oneshot::Receiver<Answer>,
}

/// See the module.
pub struct AgentsTask {
    machine: Agents,
    inbox: mpsc::Receiver<AgentMessage>,
    origin: OriginInbox,
    chronicle: Chronicle,
    recorder: Option<Recorder>,
    file: KeptFile,
    connections: std::collections::BTreeMap<u64, oneshot::Sender<Answer>>,
    next: u64,
    /// When a change is to be on disk.
    due: Option<Instant>,
    told: Vec<AgentStatus>,
    outbox: Outbox<Output>,
}

impl AgentsTask {
    /// Reads what was kept, tells it to Origin, and starts the task.
    pub async fn start(
        settings: &Settings,
        origin: OriginInbox,
        chronicle: Chronicle,
        recorder: Option<Recorder>,
    ) -> mpsc::Sender<AgentMessage> {
        let (sender, inbox) = mpsc::channel(INBOX);
        let file = KeptFile::of(settings);
        let mut task = Self {
            machine: Agents::new(settings.agent_hold),
            inbox,
            origin,
            chronicle,
            recorder,
            connections: std::collections::BTreeMap::new(),
            next: 0,
            due: None,
            told: Vec::new(),
            outbox: Outbox::new(),
            file: file.clone(),
        };
        match tokio::task::spawn_blocking(move || file.load()).await {
            Ok(Ok(kept)) => {
                let routes: usize = kept.iter().map(|agent| agent.routes.len()).sum();
                if routes > 0 {
                    info!(agents = kept.len(), routes, "routes that local agents had told before the restart stay until they come back");
                }
                task.machine.restore(Instant::now(), kept, &mut task.outbox);
            }
            Ok(Err(error)) => {
                warn!(error = format!("{error:#}"), "what local agents had told before the restart is not known: they have to tell it anew")
            }
            Err(_) => {}
        }
        task.deliver(None).await;
        tokio::spawn(task.run());
        sender
    }

    async fn run(mut self) {
        loop {
            let (deadline, due) = (self.machine.deadline(), self.due);
            tokio::select! {
                message = self.inbox.recv() => match message {
                    None => return,
                    Some(message) => self.take(message).await,
                },
                () = until(deadline) => {
                    self.machine.on_deadline(Instant::now(), &mut self.outbox);
                    self.deliver(None).await;
                }
                () = until(due) => self.save().await,
            }
        }
    }

    async fn take(&mut self, message: AgentMessage) {
        match message {
            AgentMessage::Connect(name, reply) => self.connect(name, reply).await,
            AgentMessage::Lines(connection, lines, reply) => {
                self.hear(Input::Lines(connection, lines));
                let answers = self.deliver(Some(connection)).await;
                // The connection may be gone.
                let _ = reply.send(answers);
            }
            AgentMessage::Gone(connection) => {
                self.connections.remove(&connection);
                self.hear(Input::Gone(connection));
                self.deliver(None).await;
            }
            AgentMessage::Look(question) => question.answer(&self.machine),
            AgentMessage::Keep(reply) => {
                if self.due.is_some() {
                    self.save().await;
                }
                let _ = reply.send(());
            }
        }
    }

    fn hear(&mut self, input: Input) {
        if let Some(recorder) = &mut self.recorder {
            recorder.heard(Instant::now(), &input);
        }
        self.machine.handle(Instant::now(), input, &mut self.outbox);
    }

    async fn connect(&mut self, name: Arc<str>, reply: oneshot::Sender<Result<Admission, String>>) {
        self.next += 1;
        let connection = self.next;
        let (end, over) = oneshot::channel();
        self.connections.insert(connection, end);
        self.hear(Input::Connect(connection, name));
        let answer = match self.deliver(Some(connection)).await.pop() {
            Some(Answer::Bye { error }) => Err(error),
            Some(hello) => Ok(Admission { connection, hello, over }),
            None => Err("the daemon did not answer itself: please report this".to_owned()),
        };
        if let Err(Ok(admission)) = reply.send(answer) {
            self.hear(Input::Gone(admission.connection));
            self.deliver(None).await;
        }
    }

    /// Hands on what the machine has said; the answers to `asker` come back.
    async fn deliver(&mut self, asker: Option<u64>) -> Vec<Answer> {
        if let Some(recorder) = &mut self.recorder {
            recorder.said(Instant::now(), self.outbox.as_slice().iter());
        }
        let (mut words, mut answers, mut last_words) = (Vec::new(), Vec::new(), std::collections::BTreeMap::new());
        for output in self.outbox.drain() {
            match output {
                Output::Route(word) => words.push(word),
                Output::Answer(connection, answer) if asker == Some(connection) => answers.push(answer),
                Output::Answer(connection, answer) => drop(last_words.insert(connection, answer)),
                Output::Close(connection) => {
                    if let (Some(end), Some(words)) = (self.connections.remove(&connection), last_words.remove(&connection)) {
                        // It may have gone by itself.
                        let _ = end.send(words);
                    }
                }
                Output::Told(happening) => self.chronicle.tell(event(happening)),
            }
        }
        if !words.is_empty() {
            self.due = self.due.or_else(|| Some(Instant::now() + SAVE));
            // Closed means that the process ends.
            let _ = self.origin.send(origin::Input::Agents(words)).await;
        }
        let status = self.machine.summary();
        if status != self.told {
            self.chronicle.metrics().agents(&self.told, &status);
            self.told = status;
        }
        answers
    }

    async fn save(&mut self) {
        let (file, kept) = (self.file.clone(), self.machine.kept());
        let saved = tokio::task::spawn_blocking(move || file.save(kept)).await;
        self.due = None;
        if let Ok(Err(error)) = saved {
            warn!(
                error = format!("{error:#}"),
                "what local agents have told cannot be kept: after a restart they have to tell it before it counts"
            );
            self.due = Some(Instant::now() + 15 * SAVE);
        }
    }
}

/// Waits until everything is on disk.
pub async fn keep(agents: Option<mpsc::Sender<AgentMessage>>) {
    let (reply, kept) = oneshot::channel();
    if let Some(agents) = agents
        && agents.send(AgentMessage::Keep(reply)).await.is_ok()
    {
        // The task may have ended.
        let _ = kept.await;
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn event(happening: Happening) -> Event {
    match happening {
        Happening::Connected(agent, routes) => Event::Agent { agent: agent.to_string(), connected: true, routes, hold: None },
        Happening::Gone(agent, routes, hold) => {
            Event::Agent { agent: agent.to_string(), connected: false, routes, hold: Some(hold.as_secs()) }
        }
        Happening::Expired(agent, routes) => Event::AgentExpired { agent: agent.to_string(), routes },
    }
}

/// What agents have told, on disk.
#[derive(Clone, Debug)]
struct KeptFile {
    folder: PathBuf,
    node: String,
}

/// Its content.
#[derive(Serialize, Deserialize)]
struct Content {
    node: String,
    /// The kernel's name of this boot.
    boot: String,
    agents: Vec<Kept>,
}

impl KeptFile {
    fn of(settings: &Settings) -> Self {
        Self { folder: settings.state.clone(), node: settings.datastore.node.clone() }
    }

    /// What there is, if it is this node's and of this boot.
    fn load(&self) -> anyhow::Result<Vec<Kept>> {
        let path = self.folder.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
        };
        let content: Content = serde_json::from_slice(&text).with_context(|| format!("{} cannot be used", path.display()))?;
        Ok(if content.node == self.node && content.boot == boot() { content.agents } else { Vec::new() })
    }

    /// Replaces it in one step; where there is nothing to keep there is no file.
    fn save(&self, agents: Vec<Kept>) -> anyhow::Result<()> {
        let path = self.folder.join(FILE);
        if agents.is_empty() {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(error).with_context(|| format!("{} cannot be removed", path.display()))
                }
                _ => Ok(()),
            };
        }
        let fresh = path.with_extension("fresh");
        let write = || -> anyhow::Result<()> {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            let mut writer = BufWriter::new(&file);
            serde_json::to_writer(&mut writer, &Content { node: self.node.clone(), boot: boot(), agents })?;
            writer.flush()?;
            drop(writer);
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            Ok(File::open(&self.folder)?.sync_all()?)
        };
        write().with_context(|| format!("{} cannot be written", path.display()))
    }
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
