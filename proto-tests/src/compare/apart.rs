//! The part of a scenario that lives in a thread of its own: the sender whose changes are timed, and who hears them. What the generator
//! has to do for a hundred others does not count as the speaker's delay then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::{mpsc, oneshot};

use super::meter::{Goal, Heard};
use super::run::Prepared;
use super::scenario::Peer;
use super::world::{Pace, World};

/// What it is to do.
#[derive(Clone, Debug)]
pub enum Task {
    /// Connect, until all are up.
    Connect,
    /// Say everything, or withdraw it, until all have arrived.
    Tell(Goal),
    /// Wait until all have everything.
    Settle,
    /// Change single prefixes.
    Churn(Arc<Pace>),
    /// Wait until nothing more is heard.
    Calm,
}

/// How it went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// What was heard.
    pub heard: Heard,
    /// The longest silence of a session.
    pub silence: Duration,
    /// Sessions that are up.
    pub up: usize,
    /// Of the changes.
    pub latency: Option<(f64, f64)>,
}

type Answer = oneshot::Sender<Result<Report>>;

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub struct Apart {
    tasks: mpsc::Sender<(Task, Answer)>,
}

impl Apart {
    /// Starts it with these peers.
    ///
    /// # Errors
    /// There is no thread.
    pub fn start(prepared: &Prepared, peers: BTreeMap<usize, Peer>, limit: Duration) -> Result<Self> {
        let (tasks, asked) = mpsc::channel(1);
        let prepared = prepared.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("apart".to_owned()).spawn(move || {
            tokio::task::LocalSet::new().block_on(&runtime, serve(World::new(&prepared, peers, limit, true), asked));
        })?;
        Ok(Self { tasks })
    }

    /// Gives it a task; the answer comes when it is done.
    ///
    /// # Errors
    /// It went wrong.
    pub async fn ask(&self, task: Task) -> Result<Report> {
        let (answer, done) = oneshot::channel();
        self.tasks.send((task, answer)).await.ok().context("the thread has ended")?;
        done.await.context("the thread has ended")?
    }
}

async fn serve(mut world: World, mut asked: mpsc::Receiver<(Task, Answer)>) {
    while let Some((task, mut answer)) = asked.recv().await {
        // Who asked may have given up, at the end of a run that failed.
        let done = tokio::select! {
            done = perform(&mut world, task) => done,
            () = answer.closed() => return,
        };
        let _ = answer.send(done);
    }
}

async fn perform(world: &mut World, task: Task) -> Result<Report> {
    let mut latency = None;
    match task {
        Task::Connect => {
            world.connect(false);
            world.until_up().await?;
        }
        Task::Tell(goal) => {
            world.aim(goal, false);
            world.say(|feed| if goal == Goal::Empty { &feed.withdraw } else { &feed.announce }).await?;
            world.until_arrived().await?;
        }
        Task::Settle => world.until_arrived().await?,
        Task::Churn(pace) => latency = Some(world.churn(&pace).await?),
        Task::Calm => world.until_quiet().await?,
    }
    let meter = world.shared().meter.borrow();
    Ok(Report { heard: meter.heard(), silence: meter.silence(), up: world.shared().up.get(), latency })
}
