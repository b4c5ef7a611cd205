//! Work that may touch a whole table, in bounded steps between rounds: sweeps, reloads, fills, queries.

use std::collections::VecDeque;

use super::Query;
use super::groups::GroupId;
use super::next_hop::NextHopId;
use super::stale::Epoch;
use crate::types::{Family, PeerId, QueryId};

/// Entries that one task looks at before the next one has its turn.
pub(super) const STEP: u32 = 500;

/// Entries looked at in one round by all tasks together.
pub(super) const ROUND: u32 = 2000;

/// One piece of work.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Task {
    /// Remove the paths of a peer that were last told before `older`.
    Sweep {
        /// The peer.
        peer: PeerId,
        /// The family.
        family: Family,
        /// What is older goes.
        older: Epoch,
    },
    /// Mark the paths of a peer that were last told before `older` as long-lived stale (RFC 9494).
    LongLived {
        /// The peer.
        peer: PeerId,
        /// The family.
        family: Family,
        /// What is older is stale.
        older: Epoch,
    },
    /// Run import anew on the paths of a peer.
    Rejudge {
        /// The peer.
        peer: PeerId,
        /// The family.
        family: Family,
    },
    /// Offer everything to a group: it is new, or its rules are.
    Export {
        /// The group.
        group: GroupId,
        /// The family.
        family: Family,
    },
    /// A next hop resolves differently: decide its dependants again.
    NextHop {
        /// The next hop.
        id: NextHopId,
        /// The family.
        family: Family,
        /// Destinations that may depend on it.
        dependants: Vec<u32>,
    },
    /// Answer a question.
    Answer {
        /// Its number.
        id: QueryId,
        /// The question.
        query: Query,
        /// The family that is being walked.
        family: Family,
    },
    /// Free attribute sets that nobody uses.
    Attributes,
}

impl Task {
    fn answers(&self, query: QueryId) -> bool {
        matches!(self, Self::Answer { id, .. } if *id == query)
    }

    /// Whether doing `self` from the start also does `other`.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sweep { peer, family, older }, Self::Sweep { peer: p, family: f, older: o }) => {
                (peer, family) == (p, f) && !older.is_before(*o)
            }
            (Self::LongLived { peer, family, older }, Self::LongLived { peer: p, family: f, older: o }) => {
                (peer, family) == (p, f) && !older.is_before(*o)
            }
            (Self::Rejudge { .. } | Self::Export { .. } | Self::Attributes, _) => self == other,
            _ => false,
        }
    }
}

/// The tasks, in turn.
#[derive(Clone, Debug, Default)]
pub(super) struct Work {
    queue: VecDeque<(Task, u32)>,
    /// Answers that wait for room.
    paused: Vec<(Task, u32)>,
}

impl Work {
    /// Adds a task. One that does the same and has begun starts over instead of being done twice.
    pub(super) fn add(&mut self, task: Task) {
        self.queue.retain(|(other, _)| !task.covers(other));
        self.queue.push_back((task, 0));
    }

    /// Adds a task before the others.
    pub(super) fn add_first(&mut self, task: Task) {
        self.queue.push_front((task, 0));
    }

    /// The next task and where it goes on.
    pub(super) fn next(&mut self) -> Option<(Task, u32)> {
        self.queue.pop_front()
    }

    /// Puts a task back, to go on there.
    pub(super) fn put_back(&mut self, task: Task, cursor: u32) {
        self.queue.push_back((task, cursor));
    }

    /// Drops the tasks for which `keep` is false.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Task) -> bool) {
        self.queue.retain(|(task, _)| keep(task));
    }

    /// An answer waits; what waits for others is no work.
    pub(super) fn pause(&mut self, query: QueryId) {
        let at = self.queue.iter().position(|(task, _)| task.answers(query));
        self.paused.extend(at.and_then(|at| self.queue.remove(at)));
    }

    /// It goes on.
    pub(super) fn resume(&mut self, query: QueryId) {
        if let Some(at) = self.paused.iter().position(|(task, _)| task.answers(query)) {
            self.queue.push_back(self.paused.swap_remove(at));
        }
    }

    /// It is not wanted any more.
    pub(super) fn abandon(&mut self, query: QueryId) {
        self.queue.retain(|(task, _)| !task.answers(query));
        self.paused.retain(|(task, _)| !task.answers(query));
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
