//! Keeps in the state folder what a restart must know: the last known resources, or how the trial of a change is. One version after the other; what
//! comes meanwhile is replaced by what comes later. What cannot be written, on a full disk for instance, is a problem and is tried again.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tracing::{info, warn};

use super::last_known::StateFile;
use super::second_look::Table;
use super::trial::Saved;
use crate::calico::{Problem, Severity};

/// Pause before what could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(15);
/// What it means that they are not written.
const NO_RESOURCES: &str = "what is in force stays, but a start without the datastore would not know the newest resources";
const NO_TRIAL: &str = "what is in force stays, but a restart would not know how to undo a change of the files";

/// What is to be kept.
#[derive(Clone, Debug)]
enum Wanted {
    /// The last known resources.
    Resources(Table),
    /// How the trial of a change is; none: nothing of one is needed any more.
    Trial(Option<Saved>),
}

/// How far keeping is.
#[derive(Clone, Debug, Default)]
struct Kept {
    /// The version that was tried last.
    version: u64,
    /// Why it is not on disk.
    problem: Option<Problem>,
}

/// The way to the state folder.
#[derive(Debug)]
pub struct Keeper {
    newest: watch::Sender<(u64, Option<Wanted>)>,
    kept: watch::Receiver<Kept>,
}

impl Keeper {
    /// Starts to keep resources in `resources` and trials in `trials`.
    pub fn start(resources: StateFile, trials: StateFile) -> Self {
        let (newest, wanted) = watch::channel((0, None));
        let (told, kept) = watch::channel(Kept::default());
        tokio::spawn(keep(resources, trials, wanted, told));
        Self { newest, kept }
    }

    /// These are the last known resources from now on.
    pub fn save(&self, resources: Table) {
        self.want(Wanted::Resources(resources));
    }

    /// This is how the trial is from now on. Returns when that is on disk, or cannot be written: what to go back to is there before a change
    /// counts, and before an operator hears that it will be undone, for the change may be what ends this process.
    pub async fn save_trial(&mut self, saved: Option<Saved>) {
        let version = self.want(Wanted::Trial(saved));
        // The task ends after this one only.
        let _ = self.kept.wait_for(|kept| kept.version >= version).await;
        self.kept.mark_changed();
    }

    fn want(&self, wanted: Wanted) -> u64 {
        self.newest.send_modify(|newest| *newest = (newest.0 + 1, Some(wanted)));
        self.newest.borrow().0
    }

    /// Resolves with what is wrong, when that may have changed.
    pub async fn next(&mut self) -> Option<Problem> {
        if self.kept.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.kept.borrow_and_update().problem.clone()
    }
}

async fn keep(resources: StateFile, trials: StateFile, mut newest: watch::Receiver<(u64, Option<Wanted>)>, told: watch::Sender<Kept>) {
    let mut failing = false;
    loop {
        tokio::select! {
            changed = newest.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(AGAIN), if failing => {}
        }
        let (version, Some(wanted)) = newest.borrow_and_update().clone() else { continue };
        let (resources, trials) = (resources.clone(), trials.clone());
        let written = tokio::task::spawn_blocking(move || match wanted {
            Wanted::Resources(table) => resources.save(&table, Timestamp::now()).map_err(|error| (error, NO_RESOURCES)),
            Wanted::Trial(saved) => trials.save_trial(saved.as_ref(), Timestamp::now()).map_err(|error| (error, NO_TRIAL)),
        });
        // A writer that has panicked has written nothing that counts: the next version is another try.
        let problem = written.await.ok().and_then(Result::err).map(|(error, means)| {
            Problem::general(Severity::Warning, format!("{error:#}"), format!("{means}; it is tried again every {} s", AGAIN.as_secs()))
        });
        match &problem {
            Some(problem) if !failing => warn!(%problem, "the state folder cannot be written"),
            None if failing => info!("the state folder is written again"),
            _ => {}
        }
        failing = problem.is_some();
        told.send_replace(Kept { version, problem });
    }
}
