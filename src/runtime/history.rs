//! The history's task: hears events from everywhere, remembers them, and hands them to those who follow.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use crate::runtime::metrics::Metrics;
use crate::telemetry::{Entry, Event, Filter, History};

/// Events that may wait to be remembered.
const INBOX: usize = 1024;
/// Followers at a time.
const FOLLOWERS: usize = 64;

/// To the history's task.
#[derive(Debug)]
enum Message {
    Tell(Event),
    Ask(Filter, oneshot::Sender<Vec<Arc<Entry>>>),
    Follow(Filter, mpsc::Sender<Arc<Entry>>),
}

/// The way to the history; cheap to clone.
#[derive(Clone, Debug)]
pub struct Chronicle {
    inbox: mpsc::Sender<Message>,
    metrics: Metrics,
}

impl Chronicle {
    /// Starts the task; what can be counted is counted in `metrics`.
    pub fn start(metrics: Metrics) -> Self {
        let (inbox, messages) = mpsc::channel(INBOX);
        tokio::spawn(run(messages));
        Self { inbox, metrics }
    }

    /// The numbers of the speaker.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Something happened. Nobody waits for the history: with a full inbox the event is lost.
    pub fn tell(&self, event: Event) {
        match &event {
            Event::KernelRefused { errno, .. } => self.metrics.refused(*errno),
            Event::KernelResync => self.metrics.resync(),
            Event::Configured { .. } => self.metrics.configured(),
            Event::RestartOver => self.metrics.restarting(false),
            _ => {}
        }
        if let Err(mpsc::error::TrySendError::Full(Message::Tell(event))) = self.inbox.try_send(Message::Tell(event)) {
            self.metrics.event_lost();
            debug!(%event, "not remembered: too much happens at once");
        }
    }

    /// What is remembered and asked for, oldest first.
    pub async fn ask(&self, filter: Filter) -> Vec<Arc<Entry>> {
        let (reply, answer) = oneshot::channel();
        // A closed inbox means that the process ends.
        let _ = self.inbox.send(Message::Ask(filter, reply)).await;
        answer.await.unwrap_or_default()
    }

    /// What happens from now on. Who reads too slowly is no longer told: the stream ends.
    pub async fn follow(&self, filter: Filter, entries: mpsc::Sender<Arc<Entry>>) {
        let _ = self.inbox.send(Message::Follow(filter, entries)).await;
    }
}

async fn run(mut inbox: mpsc::Receiver<Message>) {
    let mut history = History::default();
    let mut followers: Vec<(Filter, mpsc::Sender<Arc<Entry>>)> = Vec::new();
    while let Some(message) = inbox.recv().await {
        match message {
            Message::Tell(event) => {
                let Some(entry) = history.tell(Instant::now(), event) else { continue };
                followers.retain(|(filter, entries)| !filter.wants(&entry) || entries.try_send(Arc::clone(&entry)).is_ok());
            }
            // Whoever asked may have gone.
            Message::Ask(filter, reply) => drop(reply.send(history.select(&filter).cloned().collect())),
            Message::Follow(filter, entries) => {
                followers.retain(|(_, entries)| !entries.is_closed());
                if followers.len() < FOLLOWERS {
                    followers.push((filter, entries));
                }
            }
        }
    }
}
