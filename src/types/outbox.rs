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
