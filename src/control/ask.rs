//! Questions to the owners of state, with a bound on how long an answer may take.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot};

use crate::bfd::SessionStatus;
use crate::fib::{self, FibStatus};
use crate::rib::{self, Advertisement, Answer, Candidate, RouteRow};
use crate::runtime::bfd_thread::BfdMessage;
use crate::runtime::directory::{Directory, PeerEntry};
use crate::runtime::message::{FibMessage, PeerMessage, ShardMessage};
use crate::session::PeerStatus;
use crate::types::PeerId;

/// A task that does not answer within this is stuck; the question is answered without it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Parts of a shard's answer that may wait to be read; with no room for more the shard's walk pauses.
pub const PARTS: usize = 16;
/// Parts of the FibSyncer's answer that may wait to be read: it does not pause, and whoever asks reads at once.
pub const KERNEL_PARTS: usize = 4096;

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

/// All rows of an answer, gathered.
pub async fn gather(answers: Vec<mpsc::Receiver<Answer>>) -> (Vec<RouteRow>, Vec<Candidate>, Vec<Advertisement>) {
    let mut gathered = (Vec::new(), Vec::new(), Vec::new());
    for mut answer in answers {
        while let Some(part) = answer.recv().await {
            match part {
                Answer::Routes(rows) => gathered.0.extend(rows),
                Answer::Uncovered(_) | Answer::AdjRibIn(_) => {}
                Answer::Explain(candidates, advertisements) => {
                    gathered.1.extend(candidates);
                    gathered.2.extend(advertisements);
                }
            }
        }
    }
    gathered
}

/// The FibSyncer's view, by prefix.
pub async fn kernel(directory: &Directory, prefix: Option<IpNet>) -> BTreeMap<IpNet, FibStatus> {
    let Some(fib) = &directory.fib else { return BTreeMap::new() };
    let query = prefix.map_or(fib::Query::All, fib::Query::Prefix);
    let (reply, mut answer) = mpsc::channel(KERNEL_PARTS);
    if fib.send(FibMessage::Ask(query, reply)).await.is_err() {
        return BTreeMap::new();
    }
    let mut states = BTreeMap::new();
    while let Some(rows) = answer.recv().await {
        states.extend(rows.into_iter().map(|row| (row.prefix, row)));
    }
    states
}
