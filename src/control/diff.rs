//! What a proposed configuration would change: compiled by a copy of the Compiler, judged by [`node::proposal`](crate::node::proposal).
//!
//! The question is the texts of files, a JSON array of `{"file", "text"}`, that are taken for all resources (`?add=true`: for
//! additions to those in force). Nothing in the daemon changes by it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

use crate::calico::{Compiler, Problem, Severity};
use crate::config::NodeConfig;
use crate::control::api::Refusal;
use crate::control::ask;
use crate::datastore::{FileText, parse_texts};
use crate::node::proposal::{Machines, Outlook, Verdict};
use crate::runtime::directory::Directory;
use crate::runtime::message::{Question, ShardMessage};
use crate::types::PeerId;

/// Octets of a proposal at most.
pub const LIMIT: usize = 256 << 20;

/// How the texts are meant.
#[derive(Debug, Deserialize)]
pub struct DiffQuery {
    /// They are added to the resources in force, and do not replace them.
    #[serde(default)]
    add: bool,
}

/// Answers [`Outlook`] with `changes`, `problems` and `valid`; peers that would go or reset with their `state`.
pub async fn diff(
    State(directory): State<watch::Receiver<Arc<Directory>>>,
    Query(query): Query<DiffQuery>,
    Json(texts): Json<Vec<FileText>>,
) -> Result<Json<Value>, Refusal> {
    let directory = Arc::clone(&directory.borrow());
    let compiler: Compiler = copy(directory.copies.compiler.as_ref()).await?;
    let now = Instant::now();
    let (config, problems) = blocking(move || {
        let (documents, problems) = parse_texts(&texts);
        compiler.propose(now, documents, problems, !query.add)
    })
    .await?;
    let outlook = match config {
        None => Outlook::default(),
        Some(proposed) => outlook(&directory, proposed, now).await?,
    };
    Ok(Json(answer(&directory, &outlook, &problems).await))
}

async fn outlook(directory: &Directory, proposed: Arc<NodeConfig>, now: Instant) -> Result<Outlook, Refusal> {
    let in_force = directory.config.clone();
    let mut outlook = Outlook::new(in_force.as_deref(), &proposed);
    let Some(in_force) = in_force else { return Ok(outlook) };
    if in_force == proposed {
        // Equal configurations leave every route where it is: that needs no copy of the tables.
        return Ok(outlook);
    }
    let peers: BTreeMap<String, PeerId> = directory.peers.iter().map(|(name, entry)| (name.clone(), entry.id)).collect();
    let mut shards = Vec::new();
    for shard in &directory.shards {
        let (reply, copied) = oneshot::channel();
        shard.send(ShardMessage::Copy(reply)).await.map_err(|_| ending())?;
        shards.push(*copied.await.map_err(|_| ending())?);
    }
    let machines = Machines { now, shards, origin: copy(directory.copies.origin.as_ref()).await? };
    blocking(move || {
        outlook.look_at_routes(&in_force, &proposed, machines, &peers);
        outlook
    })
    .await
}

async fn answer(directory: &Directory, outlook: &Outlook, problems: &[Problem]) -> Value {
    let mut value = json!(outlook);
    for peer in value["peers"].as_array_mut().into_iter().flatten() {
        let ends = [Verdict::Remove, Verdict::Reset].iter().any(|verdict| peer["change"] == json!(verdict));
        let entry = peer["name"].as_str().and_then(|name| directory.peers.get(name)).filter(|_| ends);
        if let Some(entry) = entry {
            peer["state"] = json!(ask::status(entry).await.map(|status| status.state));
        }
    }
    value["changes"] = json!(!outlook.is_empty());
    value["valid"] = json!(problems.iter().all(|problem| problem.severity != Severity::Error));
    value["problems"] = json!(problems);
    value
}

/// A copy of a machine, from its task.
async fn copy<M: Clone + Send + 'static>(owner: Option<&mpsc::Sender<Question<M>>>) -> Result<M, Refusal> {
    let starting = || Refusal(StatusCode::SERVICE_UNAVAILABLE, "the daemon is starting: ask again in a moment".into());
    let (reply, copied) = oneshot::channel();
    owner.ok_or_else(starting)?.send(Question::new(reply, M::clone)).await.map_err(|_| ending())?;
    copied.await.map_err(|_| ending())
}

/// Work that takes a while, away from the threads that serve sockets.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    let failed = |_| Refusal(StatusCode::INTERNAL_SERVER_ERROR, "trying the proposal panicked: see the daemon's log".into());
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

fn ending() -> Refusal {
    Refusal(StatusCode::SERVICE_UNAVAILABLE, "the daemon is ending".into())
}
