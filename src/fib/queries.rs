//! Questions under way: each is answered in bounded steps, in turn, and waits while whoever asked has no room.

use std::collections::VecDeque;

use super::FibState;
use super::rows::RowId;
use crate::types::QueryId;

/// One question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub id: QueryId,
    /// Only rows in this state.
    pub state: Option<FibState>,
    /// The next row to be told.
    pub next: RowId,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Queries {
    due: VecDeque<Question>,
    paused: Vec<Question>,
}

impl Queries {
    /// A question about all rows, or those in one state.
    pub(super) fn add(&mut self, id: QueryId, state: Option<FibState>) {
        self.due.push_back(Question { id, state, next: RowId::FIRST });
    }

    /// The one whose turn it is.
    pub(super) fn next(&mut self) -> Option<Question> {
        self.due.pop_front()
    }

    /// It goes on when it is its turn again.
    pub(super) fn put_back(&mut self, question: Question) {
        self.due.push_back(question);
    }

    /// It waits.
    pub(super) fn pause(&mut self, id: QueryId) {
        let at = self.due.iter().position(|question| question.id == id);
        self.paused.extend(at.and_then(|at| self.due.remove(at)));
    }

    /// It goes on.
    pub(super) fn resume(&mut self, id: QueryId) {
        let at = self.paused.iter().position(|question| question.id == id);
        self.due.extend(at.map(|at| self.paused.swap_remove(at)));
    }

    /// Nobody wants the rest.
    pub(super) fn abandon(&mut self, id: QueryId) {
        self.due.retain(|question| question.id != id);
        self.paused.retain(|question| question.id != id);
    }

    /// Whether there is nothing to answer now.
    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty()
    }
}
