//! Questions to the owners of state, with a bound on how long an answer may take.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot};

use crate::bfd::SessionStatus;
use crate::calico::{Compiler, ServiceNotes};
use crate::fib::{self, FibStatus};
use crate::rib::{self, Answer, Explained};
use crate::runtime::bfd_thread::BfdMessage;
use crate::runtime::directory::{Directory, PeerEntry};
use crate::runtime::message::{FibMessage, PeerMessage, Question, ShardMessage};
use crate::session::PeerStatus;
use crate::types::PeerId;

/// A task that does not answer within this is stuck; the question is answered without it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Parts of an answer that may wait to be read; with no room for more, whoever answers pauses.
const PARTS: usize = 16;

/// Status of one peer; none if its task does not answer.
pub async fn status(entry: &PeerEntry) -> Option<PeerStatus> {
    let (reply, answer) = oneshot::channel();
    entry.inbox.send(PeerMessage::Status(reply)).await.ok()?;
    tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()
}

/// The BFD sessions by peer.
pub async fn bfd(directory: &Directory) -> BTreeMap<PeerId, SessionStatus> {
    let Some(bfd) = &directory.bfd else { return BTreeMap::new() };
    let (reply, answer) = oneshot::channel();
    if bfd.send(BfdMessage::Status(reply)).await.is_err() {
        return BTreeMap::new();
    }
    tokio::time::timeout(PATIENCE, answer).await.ok().and_then(Result::ok).unwrap_or_default()
}

/// What somebody sees who looks at a machine; none where it does not answer.
pub async fn look<M, T: Send + 'static>(
    inbox: Option<&mpsc::Sender<Question<M>>>,
    look: impl FnOnce(&M) -> T + Send + 'static,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    inbox?.send(Question::new(reply, look)).await.ok()?;
    tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()
}

/// What the Services have to do with a prefix; nothing if the Compiler does not answer.
pub async fn services(directory: &Directory, prefix: IpNet) -> ServiceNotes {
    look(directory.copies.compiler.as_ref(), move |compiler: &Compiler| compiler.service_notes(prefix)).await.unwrap_or_default()
}

/// Streams of rows, one a shard.
pub async fn routes(directory: &Directory, query: rib::Query) -> Vec<mpsc::Receiver<Answer>> {
    let mut answers = Vec::new();
    for shard in &directory.shards {
        let (reply, answer) = mpsc::channel(PARTS);
        if shard.send(ShardMessage::Ask(query.clone(), reply)).await.is_ok() {
            answers.push(answer);
        }
    }
    answers
}

/// Why a prefix is as it is. Each shard knows the longest route around it among its own; the longest of them all counts.
pub async fn explain(directory: &Directory, prefix: IpNet) -> Explained {
    let mut longest = Explained::default();
    for mut answer in routes(directory, rib::Query::Explain(prefix)).await {
        while let Some(part) = answer.recv().await {
            let length = |explained: &Explained| explained.route.map(|route| route.prefix_len());
            if let Answer::Explain(explained) = part
                && length(&explained) > length(&longest)
            {
                longest = explained;
            }
        }
    }
    longest
}

/// The FibSyncer's view of some prefixes.
pub async fn kernel(directory: &Directory, prefixes: Vec<IpNet>) -> BTreeMap<IpNet, FibStatus> {
    let mut states = BTreeMap::new();
    let Some(mut answer) = kernel_rows(directory, fib::Query::Prefixes(prefixes)).await else { return states };
    while let Some(rows) = answer.recv().await {
        states.extend(rows.into_iter().map(|row| (row.prefix, row)));
    }
    states
}

/// The FibSyncer's rows, as it tells them; none before there is one.
pub async fn kernel_rows(directory: &Directory, query: fib::Query) -> Option<mpsc::Receiver<Vec<FibStatus>>> {
    let (reply, answer) = mpsc::channel(PARTS);
    // A FibSyncer that has gone ends the process.
    directory.fib.as_ref()?.send(FibMessage::Ask(query, reply)).await.ok()?;
    Some(answer)
}
