//! The pulse: every few seconds each machine's thread or task is asked for a sign of life.
//!
//! ```text
//!            ┌─ask─▶ shards, FibSyncer, kernel, Origin, agents, Compiler, supervisor, BFD
//! Pulse task ┤                                   │
//!            ◀──────────── answers ──────────────┘
//!            ├─ all answered ─▶ WATCHDOG=1 to the service manager
//!            └─ who is silent ─▶ /livez, `margay show health`, the metric `margay_silent_machines`
//! ```
//! A machine answers from its own loop, so one that hangs, or has ended, does not. Peers' tasks are not asked: nothing that another
//! host does may look as if we were ill.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{error, info};

use crate::kernel;
use crate::runtime::agents::AgentMessage;
use crate::runtime::bfd_thread::BfdMessage;
use crate::runtime::directory::Directory;
use crate::runtime::manager::Manager;
use crate::runtime::message::{FibMessage, Order, Question, ShardMessage};
use crate::runtime::metrics::Metrics;

/// How often machines are asked where no watchdog says otherwise.
const PERIOD: Duration = Duration::from_secs(10);

/// A question on its way; none when the inbox is closed.
type Asking = Pin<Box<dyn Future<Output = Option<oneshot::Receiver<()>>> + Send>>;

/// The machines that have not answered within one period, by name; empty while all do.
pub type Silent = Arc<[String]>;

/// See the module.
pub struct Pulse {
    directory: watch::Receiver<Arc<Directory>>,
    silent: watch::Sender<Silent>,
    manager: Option<Manager>,
    metrics: Metrics,
    /// Questions that are not answered yet: nobody is asked a second time meanwhile.
    pending: BTreeMap<String, oneshot::Receiver<()>>,
}

impl Pulse {
    /// A pulse over the machines of `directory`; `manager` hears of it.
    pub fn new(
        directory: watch::Receiver<Arc<Directory>>,
        silent: watch::Sender<Silent>,
        manager: Option<Manager>,
        metrics: Metrics,
    ) -> Self {
        Self { directory, silent, manager, metrics, pending: BTreeMap::new() }
    }

    /// Beats until the process ends: at half of the watchdog's time, so that a machine may take as long as that for its answer.
    pub async fn run(mut self) {
        let period = self.manager.as_ref().and_then(Manager::watchdog).map_or(PERIOD, |time| time / 2);
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let silent = self.beat(period).await;
            self.note(silent, period);
        }
    }

    fn note(&self, silent: Vec<String>, period: Duration) {
        if silent.is_empty()
            && let Some(manager) = &self.manager
        {
            manager.watchdog_is_fed();
        }
        self.metrics.silent_machines(silent.len());
        self.silent.send_if_modified(|before| {
            if before[..] == silent[..] {
                return false;
            }
            if silent.is_empty() {
                info!("all machines answer again");
            } else {
                error!(machines = silent.join(", "), seconds = period.as_secs_f64(), "no answer: the daemon hangs in part");
            }
            *before = silent.into();
            true
        });
    }

    /// Asks every machine at once; who has not answered within `patience`, by name.
    async fn beat(&mut self, patience: Duration) -> Vec<String> {
        let directory = Arc::clone(&self.directory.borrow());
        let until = Instant::now() + patience;
        let mut before = std::mem::take(&mut self.pending);
        let asked = machines(&directory).into_iter().map(|(name, asking)| {
            let before = before.remove(&name);
            async move { (name, answer(before, asking, until).await) }
        });
        let mut silent = Vec::new();
        for (name, answer) in futures::future::join_all(asked).await {
            let Err(pending) = answer else { continue };
            silent.push(name.clone());
            if let Some(pending) = pending {
                self.pending.insert(name, pending);
            }
        }
        silent
    }
}

/// Waits for one machine; a question that it has not answered is handed back.
async fn answer(before: Option<oneshot::Receiver<()>>, asking: Asking, until: Instant) -> Result<(), Option<oneshot::Receiver<()>>> {
    let pending = match before {
        Some(pending) => Some(pending),
        // An inbox without room is as silent as one that nobody reads.
        None => tokio::time::timeout_at(until, asking).await.ok().flatten(),
    };
    let mut pending = pending.ok_or(None)?;
    match tokio::time::timeout_at(until, &mut pending).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(None),
        Err(_) => Err(Some(pending)),
    }
}

/// Every machine there is now, and how it is asked.
fn machines(directory: &Directory) -> Vec<(String, Asking)> {
    let mut all = Vec::new();
    if let Some(inbox) = &directory.copies.compiler {
        all.push(machine("compiler".to_owned(), inbox, Question::ping));
    }
    if let Some(inbox) = &directory.copies.origin {
        all.push(machine("origin".to_owned(), inbox, Question::ping));
    }
    if let Some(inbox) = &directory.agents {
        all.push(machine("agents".to_owned(), inbox, |reply| AgentMessage::Look(Question::ping(reply))));
    }
    for (number, inbox) in directory.shards.iter().enumerate() {
        all.push(machine(format!("shard-{number}"), inbox, ShardMessage::Ping));
    }
    if let Some(inbox) = &directory.fib {
        all.push(machine("fib".to_owned(), inbox, FibMessage::Ping));
    }
    if let Some(inbox) = &directory.kernel {
        all.push(machine("kernel".to_owned(), inbox, ping_kernel));
    }
    if let Some(inbox) = &directory.bfd {
        all.push(machine("bfd".to_owned(), inbox, BfdMessage::Ping));
    }
    if let Some(inbox) = &directory.orders {
        all.push(machine("supervisor".to_owned(), inbox, Order::Ping));
    }
    all
}

/// Commands to the kernel can be cloned, so the answer takes a detour.
fn ping_kernel(reply: oneshot::Sender<()>) -> kernel::Command {
    let (answer, mut answered) = mpsc::channel(1);
    tokio::spawn(async move {
        if answered.recv().await.is_some() {
            // Whoever asked may be gone.
            let _ = reply.send(());
        }
    });
    kernel::Command::Ping(answer)
}

fn machine<M: Send + 'static>(name: String, inbox: &mpsc::Sender<M>, ask: fn(oneshot::Sender<()>) -> M) -> (String, Asking) {
    let inbox = inbox.clone();
    let asking = async move {
        let (reply, answer) = oneshot::channel();
        inbox.send(ask(reply)).await.ok().map(|()| answer)
    };
    (name, Box::pin(asking))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(50);

    fn pulse(shards: Vec<mpsc::Sender<ShardMessage>>) -> Pulse {
        let (_, directory) = watch::channel(Arc::new(Directory { shards, ..Directory::default() }));
        Pulse::new(directory, watch::channel(Silent::default()).0, None, Metrics::default())
    }

    fn answer_one(inbox: &mut mpsc::Receiver<ShardMessage>) {
        match inbox.try_recv() {
            Ok(ShardMessage::Ping(reply)) => reply.send(()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn one_that_hangs_is_named_asked_once_and_forgiven() {
        let (quick, mut quick_inbox) = mpsc::channel(1);
        let (stuck, mut stuck_inbox) = mpsc::channel(8);
        tokio::spawn(async move {
            while let Some(ShardMessage::Ping(reply)) = quick_inbox.recv().await {
                let _ = reply.send(());
            }
        });
        let mut pulse = pulse(vec![quick, stuck]);
        for _ in 0..3 {
            assert_eq!(pulse.beat(PATIENCE).await, ["shard-1"]);
        }
        answer_one(&mut stuck_inbox);
        assert!(stuck_inbox.try_recv().is_err(), "asked once only");
        assert!(pulse.beat(PATIENCE).await.is_empty(), "the late answer counts");
        assert_eq!(pulse.beat(PATIENCE).await, ["shard-1"], "and no longer than once");
    }

    #[tokio::test]
    async fn an_inbox_without_room_or_without_a_reader_is_silent() {
        let (full, _inbox) = mpsc::channel(1);
        full.try_send(ShardMessage::Forget(crate::types::PeerId(1))).unwrap();
        let (ended, _) = mpsc::channel(1);
        assert_eq!(pulse(vec![full, ended]).beat(PATIENCE).await, ["shard-0", "shard-1"]);
    }
}
