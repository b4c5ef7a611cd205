//! Questions under way to a machine that answers in parts, and the readers of the answers.
//!
//! A reader that does not keep up makes its answer wait, and nothing else; one that is gone gets no more of it. Nobody waits for a
//! reader: a machine is told to pause before there is no room, and may say a round's worth of parts more.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::mpsc;

use crate::types::QueryId;

/// What the machine is to hear of how its answer was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The reader has no room: go on with other work until it has.
    Pause(QueryId),
    /// Nobody reads.
    Abandon(QueryId),
}

/// See the module.
#[derive(Debug)]
pub struct Questions<T> {
    replies: BTreeMap<QueryId, mpsc::Sender<T>>,
    asked: u64,
    /// Those whose reader has no room.
    full: BTreeSet<QueryId>,
    /// Parts that the machine may say in one round, and that there must be room for.
    round: usize,
}

impl<T> Questions<T> {
    /// None yet; `round` is how many parts of one answer the machine says in one round at most.
    pub fn new(round: usize) -> Self {
        Self { replies: BTreeMap::new(), asked: 0, full: BTreeSet::new(), round }
    }

    /// The number of a question whose answer goes to `reply`.
    pub fn add(&mut self, reply: mpsc::Sender<T>) -> QueryId {
        self.asked += 1;
        let query = QueryId(self.asked);
        self.replies.insert(query, reply);
        query
    }

    /// Hands out a part of an answer; `done`: the last.
    pub fn answer(&mut self, query: QueryId, part: T, done: bool) -> Option<Taken> {
        let reply = self.replies.get(&query)?;
        let gone = reply.try_send(part).is_err();
        if done || gone {
            self.replies.remove(&query);
            return gone.then_some(Taken::Abandon(query));
        }
        let full = reply.capacity() < self.round;
        (full && self.full.insert(query)).then_some(Taken::Pause(query))
    }

    /// The first of the answers that wait whose reader has room for all that one round may say of it, or is gone; it waits no more.
    pub async fn room(&mut self) -> QueryId {
        let query = self.first_with_room().await;
        self.full.remove(&query);
        query
    }

    async fn first_with_room(&self) -> QueryId {
        let waits = self.full.iter().filter_map(|query| Some((*query, self.replies.get(query)?)));
        let waits: Vec<_> = waits
            .map(|(query, reply)| {
                Box::pin(async move {
                    // What has been reserved is given back at once: nobody else sends there.
                    let _ = reply.reserve_many(self.round).await;
                    query
                })
            })
            .collect();
        if waits.is_empty() {
            return std::future::pending().await;
        }
        futures::future::select_all(waits).await.0
    }
}
