//! The Handover machine's task: words of sessions and of the supervisor in, questions to the shards and releases out. It waits
//! for nobody but its inbox: releases that the supervisor has no time for stay here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tracing::debug;

use crate::node::handover::{Handover, Input, Output};
use crate::rib::{self, Answer};
use crate::runtime::message::ShardMessage;
use crate::types::{Outbox, PeerId};

/// Parts of an answer that may wait.
const PARTS: usize = 16;

/// See the module.
pub struct HandoverTask {
    machine: Handover,
    inbox: mpsc::Receiver<Input>,
    /// Our own inbox, for answers.
    own: mpsc::Sender<Input>,
    shards: Vec<mpsc::Sender<ShardMessage>>,
    releases: mpsc::Sender<Vec<PeerId>>,
    pending: VecDeque<Vec<PeerId>>,
}

impl HandoverTask {
    /// A task whose inbox is `inbox`, with `own` as another way into it; who is to be let go is told to `releases`.
    pub fn new(
        inbox: mpsc::Receiver<Input>,
        own: mpsc::Sender<Input>,
        shards: Vec<mpsc::Sender<ShardMessage>>,
        releases: mpsc::Sender<Vec<PeerId>>,
    ) -> Self {
        Self { machine: Handover::default(), inbox, own, shards, releases, pending: VecDeque::new() }
    }

    /// Runs until the supervisor is gone.
    pub async fn run(mut self) {
        let mut outbox = Outbox::new();
        loop {
            let deadline = self.machine.deadline().map(tokio::time::Instant::from_std);
            tokio::select! {
                input = self.inbox.recv() => match input {
                    None => return,
                    Some(input) => self.machine.handle(Instant::now(), input, &mut outbox),
                },
                permit = self.releases.reserve(), if !self.pending.is_empty() => match permit {
                    Err(_) => return,
                    Ok(permit) => if let Some(peers) = self.pending.pop_front() { permit.send(peers) },
                },
                () = async { match deadline { Some(at) => tokio::time::sleep_until(at).await, None => std::future::pending().await } } => {
                    self.machine.on_deadline(Instant::now(), &mut outbox);
                }
            }
            for output in outbox.drain() {
                match output {
                    Output::Release(peers) => self.pending.push_back(peers),
                    Output::Ask(peers) => drop(tokio::spawn(ask(self.shards.clone(), peers, self.own.clone()))),
                }
            }
        }
    }
}

/// Asks every shard and hands in the sum. A shard that is gone ends the process.
async fn ask(shards: Vec<mpsc::Sender<ShardMessage>>, peers: BTreeSet<PeerId>, answer: mpsc::Sender<Input>) {
    let peers = Arc::new(peers);
    let mut counts: BTreeMap<PeerId, u64> = BTreeMap::new();
    for shard in shards {
        let (reply, mut parts) = mpsc::channel(PARTS);
        if shard.send(ShardMessage::Ask(rib::Query::Uncovered(Arc::clone(&peers)), reply)).await.is_err() {
            return;
        }
        while let Some(part) = parts.recv().await {
            if let Answer::Uncovered(part) = part {
                part.into_iter().for_each(|(peer, count)| *counts.entry(peer).or_default() += count);
            }
        }
    }
    if !counts.is_empty() {
        debug!(
            peers = counts.len(),
            paths = counts.values().sum::<u64>(),
            "peers that are no longer configured linger: nothing stands in for these paths yet"
        );
    }
    // A closed inbox means that the process ends.
    let _ = answer.send(Input::Uncovered(counts)).await;
}
