//! How much a compile did: numbers that a test can hold on to where time cannot be trusted.

use std::cell::Cell;

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Nodes looked at, for each of their addresses.
    pub nodes: usize,
    /// Selectors evaluated.
    pub selectors: usize,
    /// Sessions configured.
    pub sessions: usize,
    /// Services judged.
    pub services: usize,
    /// Policies made.
    pub policies: usize,
}

/// Counts through a shared reference.
#[derive(Debug, Default)]
pub(super) struct Counter(Cell<Work>);

impl Counter {
    /// Adds to the numbers.
    pub fn count(&self, add: impl FnOnce(&mut Work)) {
        let mut work = self.0.get();
        add(&mut work);
        self.0.set(work);
    }

    /// The numbers so far.
    pub fn total(&self) -> Work {
        self.0.get()
    }
}
