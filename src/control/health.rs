//! Health: `/livez`, `/readyz`, `/v1/health` and the sentence that the service manager shows are one answer in four forms.
//!
//! - **live**: every thread and machine of the daemon answers. It says nothing of peers, the datastore or the configuration: starting
//!   margay again would not help those.
//! - **ready**: configured, our own restart over, and a session up if there are any, as calico-node's readiness has it. A datastore that is
//!   away takes nothing from the forwarding: it is told, and no reason to be replaced.

use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::watch;

use crate::calico::{Problem, Severity};
use crate::control::{ask, view};
use crate::datastore;
use crate::runtime::bmp::CollectorStatus;
use crate::runtime::directory::Directory;
use crate::runtime::memory_guard::MemoryStatus;
use crate::session::State as SessionState;

/// `show health --json`.
#[derive(Debug, Serialize)]
pub struct Health {
    /// Name of our Node.
    node: String,
    /// Every machine answers.
    live: bool,
    /// The machines that do not.
    silent: Vec<String>,
    /// See the module.
    ready: bool,
    /// Why it is not ready.
    because: Option<String>,
    sessions: Sessions,
    problems: Problems,
    /// How the datastore is; none before it is opened.
    datastore: Option<datastore::Status>,
    /// The same in words, where it is not in sync.
    #[serde(skip)]
    datastore_words: Option<String>,
    /// Our own restart goes on: End-of-RIB of peers is awaited.
    restarting: bool,
    /// The node is drained (RFC 8326).
    drained: bool,
    /// All sessions are shut down until the drain ends.
    shut: bool,
    /// How much memory is in use, and may be; none where nothing bounds it.
    memory: Option<MemoryStatus>,
    /// The collectors that monitoring data (BMP) go to.
    collectors: Vec<CollectorStatus>,
    /// A service manager has started it, and starts it again when it ends.
    managed: bool,
    /// When the process began (RFC 3339).
    started: String,
}

/// Sessions of the configuration in force.
#[derive(Debug, Default, Serialize)]
struct Sessions {
    configured: usize,
    established: usize,
    /// Names of the others.
    down: Vec<String>,
}

/// How many problems there are, by severity.
#[derive(Debug, Default, Serialize)]
struct Problems {
    error: usize,
    warning: usize,
    info: usize,
}

impl Problems {
    fn of(problems: &[Problem]) -> Self {
        let count = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
        Self { error: count(Severity::Error), warning: count(Severity::Warning), info: count(Severity::Info) }
    }
}

/// How the daemon is now.
pub async fn of(directory: &Directory) -> Health {
    let silent = directory.silent.as_ref().map(|silent| silent.borrow().to_vec()).unwrap_or_default();
    let sessions = sessions(directory).await;
    let datastore_words = directory.datastore_words();
    let because = not_ready(directory, &sessions, datastore_words.as_deref());
    Health {
        node: directory.node.clone(),
        live: silent.is_empty(),
        silent,
        ready: because.is_none(),
        because,
        sessions,
        problems: Problems::of(&directory.problems),
        datastore: directory.datastore.as_ref().map(|status| status.borrow().clone()),
        datastore_words,
        restarting: directory.config.is_some() && !directory.recovered,
        drained: directory.drained,
        shut: directory.shut,
        memory: directory.memory.as_ref().map(|memory| memory.borrow().clone()),
        collectors: directory.collectors.iter().map(|status| status.borrow().clone()).collect(),
        managed: directory.managed,
        started: format!("{:.0}", directory.started),
    }
}

async fn sessions(directory: &Directory) -> Sessions {
    let configured = directory.peers.iter().filter(|(_, entry)| !entry.leaving);
    let asked = configured.map(|(name, entry)| async move { (name, ask::status(entry).await) });
    let peers = futures::future::join_all(asked).await;
    let up = |status: &Option<_>| status.as_ref().is_some_and(|s: &crate::session::PeerStatus| s.state == SessionState::Established);
    let down: Vec<String> = peers.iter().filter(|(_, status)| !up(status)).map(|(name, _)| (*name).clone()).collect();
    Sessions { configured: peers.len(), established: peers.len() - down.len(), down }
}

fn not_ready(directory: &Directory, sessions: &Sessions, datastore: Option<&str>) -> Option<String> {
    if directory.config.is_none() {
        let words = datastore.map(|words| format!("; {words}")).unwrap_or_default();
        return Some(format!("no configuration: Node `{}` has not been seen{words}", directory.node));
    }
    if !directory.recovered {
        return Some("our own restart is not over: waiting for End-of-RIB of peers".into());
    }
    let nobody = sessions.configured > 0 && sessions.established == 0;
    nobody.then(|| format!("no session is Established: {}", view::join(&sessions.down.iter().collect::<Vec<_>>())))
}

impl fmt::Display for Health {
    /// One sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.live {
            write!(f, "hangs: no answer of {}; ", self.silent.join(", "))?;
        }
        let Sessions { configured, established, .. } = &self.sessions;
        match &self.because {
            Some(because) if *configured == 0 || self.restarting => f.write_str(because)?,
            _ => write!(f, "{established} of {configured} sessions Established")?,
        }
        let Problems { error, warning, info } = &self.problems;
        match error + warning + info {
            0 => f.write_str("; no problems")?,
            1 => f.write_str(if *error == 1 { "; 1 problem, an error" } else { "; 1 problem" })?,
            all => write!(f, "; {all} problems, {error} of them errors")?,
        }
        match (&self.datastore, &self.datastore_words) {
            (Some(status), None) => write!(f, "; {} in sync", status.kind.name())?,
            (_, Some(words)) if !self.because.as_ref().is_some_and(|because| because.contains(words)) => write!(f, "; {words}")?,
            _ => {}
        }
        if let Some(words) = self.memory.as_ref().and_then(MemoryStatus::words) {
            write!(f, "; {words}")?;
        }
        for away in self.collectors.iter().filter(|status| !status.connected) {
            write!(f, "; BMP collector {} is away", away.collector)?;
        }
        f.write_str(match (self.shut, self.drained) {
            (true, _) => "; drained, all sessions shut down",
            (_, true) => "; drained",
            _ => "",
        })
    }
}

type Shared = State<watch::Receiver<Arc<Directory>>>;

async fn now(State(directory): Shared) -> Health {
    let directory = Arc::clone(&directory.borrow());
    of(&directory).await
}

/// `GET /v1/health`.
pub async fn health(directory: Shared) -> Json<Health> {
    Json(now(directory).await)
}

/// `GET /livez`. Nobody's peer is asked.
pub async fn livez(State(directory): Shared) -> Response {
    let silent = directory.borrow().silent.as_ref().map(|silent| Arc::clone(&silent.borrow())).unwrap_or_default();
    if silent.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("no answer of {}: part of the daemon hangs\n", silent.join(", "))).into_response()
}

/// `GET /readyz`.
pub async fn readyz(directory: Shared) -> Response {
    let health = now(directory).await;
    match health.because {
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
        None => format!("ready{}\n", health.datastore_words.map(|words| format!("; {words}")).unwrap_or_default()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        Health {
            node: "node1".into(),
            live: true,
            silent: Vec::new(),
            ready: true,
            because: None,
            sessions: Sessions { configured: 3, established: 2, down: vec!["tor".into()] },
            problems: Problems::default(),
            datastore: Some(datastore::Status { state: datastore::State::InSync, ..datastore::Status::default() }),
            datastore_words: None,
            restarting: false,
            drained: false,
            shut: false,
            memory: None,
            collectors: Vec::new(),
            managed: false,
            started: String::new(),
        }
    }

    #[test]
    fn the_sentence_says_what_is_so() {
        assert_eq!(health().to_string(), "2 of 3 sessions Established; no problems; files in sync");
        let none = "no configuration: Node `node1` has not been seen; etcd has been away".to_owned();
        let starting = Health {
            ready: false,
            because: Some(none),
            sessions: Sessions::default(),
            problems: Problems { error: 1, warning: 1, info: 0 },
            datastore_words: Some("etcd has been away".into()),
            ..health()
        };
        assert_eq!(
            starting.to_string(),
            "no configuration: Node `node1` has not been seen; etcd has been away; 2 problems, 1 of them errors",
            "nothing is said twice"
        );
        let hangs = Health { live: false, silent: vec!["shard-0".into()], drained: true, ..health() };
        assert_eq!(hangs.to_string(), "hangs: no answer of shard-0; 2 of 3 sessions Established; no problems; files in sync; drained");
    }
}
