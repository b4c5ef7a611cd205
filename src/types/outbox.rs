//! What a machine says, in order; one reused buffer, drained by whoever drives the machine.

/// The outputs of one call of a machine, in order.
#[derive(Clone, Debug)]
pub struct Outbox<T> {
    items: Vec<T>,
}

impl<T> Outbox<T> {
    /// An empty outbox.
    pub fn new() -> Self {
        Self { items: Vec::new() }
    }

    /// Appends one output.
    pub fn push(&mut self, item: T) {
        self.items.push(item);
    }

    /// Takes everything out, oldest first; the buffer is kept for the next call.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.items.drain(..)
    }

    /// The same as a list; the buffer goes with it. For machines of which there are many, and that are silent most of the time.
    pub fn take(&mut self) -> Vec<T> {
        std::mem::take(&mut self.items)
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// What was said so far.
    pub fn as_slice(&self) -> &[T] {
        &self.items
    }
}

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        Self::new()
    }
}
