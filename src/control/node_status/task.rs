//! Drives the schedule: asks the owners of state, writes, and says what is wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::content::{Agent, Facts, MOST_ROUTES, Peer, status};
use super::schedule::{Ended, Schedule};
use crate::calico::{NodeStatus, Problem, ResourceKey, Severity, StatusClass};
use crate::control::ask;
use crate::control::bird::{Clock, failed};
use crate::datastore::{Asked, Meters, StatusWriter, Updated};
use crate::rib::{self, Answer, RouteRow};
use crate::runtime::directory::Directory;

/// One object is written in this time or has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the task works with.
#[derive(Debug)]
pub struct Task {
    /// What is asked of this node.
    pub asked: watch::Receiver<Asked>,
    /// Who is there now.
    pub directory: watch::Receiver<Arc<Directory>>,
    /// Where it is written.
    pub writer: StatusWriter,
    /// Where problems go.
    pub problems: watch::Sender<Vec<Problem>>,
    /// Where writes are counted.
    pub meters: Meters,
}

impl Task {
    /// Fills what is asked for, until the datastore has ended.
    pub async fn run(mut self) {
        let mut schedule = Schedule::default();
        let mut troubles: BTreeMap<String, Problem> = BTreeMap::new();
        loop {
            let asked = self.asked.borrow_and_update().clone();
            schedule.ask(Instant::now(), &asked);
            troubles.retain(|name, _| asked.contains_key(name));
            self.tell(&troubles);
            let due = schedule.next(Instant::now()).map(|(name, wanted)| (name.to_owned(), wanted.clone()));
            if let Some((name, wanted)) = due {
                let trouble = self.fill(&name, &wanted).await;
                let failed = trouble.as_ref().is_some_and(|problem| problem.severity != Severity::Info);
                schedule.tried(Instant::now(), &name, if failed { Ended::Failed } else { Ended::Well });
                match trouble {
                    Some(problem) => drop(troubles.insert(name, problem)),
                    None => drop(troubles.remove(&name)),
                }
                self.tell(&troubles);
                continue;
            }
            tokio::select! {
                changed = self.asked.changed() => if changed.is_err() { return },
                () = until(schedule.deadline()) => {}
            }
        }
    }

    fn tell(&self, troubles: &BTreeMap<String, Problem>) {
        let problems: Vec<Problem> = troubles.values().cloned().collect();
        self.problems.send_if_modified(|told| {
            let news = *told != problems;
            *told = problems;
            news
        });
    }

    /// Fills one object; what is wrong with it then, if anything.
    async fn fill(&mut self, name: &str, wanted: &NodeStatus) -> Option<Problem> {
        let (facts, cut) = self.facts(wanted).await;
        let status = status(&wanted.classes, &facts, Timestamp::now());
        let written = match tokio::time::timeout(PATIENCE, self.writer.write(name, &status)).await {
            Ok(written) => written,
            Err(_) => Err(anyhow::anyhow!("not written within {} s", PATIENCE.as_secs())),
        };
        self.meters.status_write(written.as_ref().ok().copied());
        let (severity, what, instead) = match written {
            Err(error) => {
                warn!(name, error = format!("{error:#}"), "a CalicoNodeStatus cannot be written");
                (Severity::Warning, format!("its status cannot be written: {error:#}"), "it is tried again, later and later".to_owned())
            }
            Ok(Updated::Conflict) => {
                let instead = "it is tried again; give each node its own object".to_owned();
                (Severity::Warning, "somebody else writes its status too".to_owned(), instead)
            }
            Ok(Updated::Written | Updated::Unchanged | Updated::Missing) if cut => {
                let what = format!("there are more routes than an object can hold: {MOST_ROUTES} of them are told");
                (Severity::Info, what, "ask `margay show routes`, or leave out the class Routes".to_owned())
            }
            Ok(written) => {
                debug!(name, ?written, "a CalicoNodeStatus is filled");
                return None;
            }
        };
        let key = ResourceKey { kind: "CalicoNodeStatus".to_owned(), namespace: String::new(), name: name.to_owned() };
        Some(Problem { resource: Some(key), field: "status".to_owned(), ..Problem::general(severity, what, instead) })
    }

    /// What the classes speak of, and whether there are more routes than are told.
    async fn facts(&self, wanted: &NodeStatus) -> (Facts, bool) {
        let directory = Arc::clone(&self.directory.borrow());
        let clock = Clock::now();
        let agent = Agent {
            router_id: directory.config.as_ref().map(|config| config.router_id),
            started: clock.long(directory.started),
            configured: clock.long(directory.configured),
        };
        let mut facts = Facts { agent, peers: Vec::new(), routes: Vec::new(), failed: std::collections::BTreeSet::new() };
        if wanted.classes.iter().any(|class| *class != StatusClass::Agent) {
            facts.peers = peers(&directory, &clock).await;
        }
        let mut cut = false;
        if wanted.classes.contains(&StatusClass::Routes) {
            facts.failed = failed(&directory).await;
            (facts.routes, cut) = routes(&directory).await;
        }
        (facts, cut)
    }
}

async fn peers(directory: &Directory, clock: &Clock) -> Vec<Peer> {
    let mut peers = Vec::new();
    for entry in directory.peers.values().filter(|entry| !entry.leaving) {
        let status = ask::status(entry).await;
        peers.push(Peer {
            id: entry.id,
            address: entry.config.address,
            kind: entry.config.kind,
            state: status.as_ref().map(|status| status.state),
            since: clock.long(status.map_or(directory.started, |status| clock.at(status.since))),
        });
    }
    peers
}

/// As many routes as one object can hold, and whether there are more.
async fn routes(directory: &Directory) -> (Vec<RouteRow>, bool) {
    let all = rib::Query::Routes { prefix: None, longer: false, family: None, received: None, advertised: None };
    let mut found = Vec::new();
    for mut answer in ask::routes(directory, all).await {
        while let Some(part) = answer.recv().await {
            if let Answer::Routes(rows) = part {
                found.extend(rows);
            }
            if found.len() > MOST_ROUTES {
                found.truncate(MOST_ROUTES);
                return (found, true);
            }
        }
    }
    (found, false)
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
