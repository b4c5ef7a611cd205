//! Virtual time: a number that only the world moves. Each host has a clock of its own, which may run ahead.

use std::time::{Duration, Instant};

/// The world's time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// An instant that stands for zero; machines only ever compare instants.
    origin: Instant,
    now: Duration,
}

impl Clock {
    /// Time begins.
    #[expect(clippy::new_without_default, reason = "a clock has no default")]
    pub fn new() -> Self {
        Self { origin: Instant::now(), now: Duration::ZERO }
    }

    /// Time since the beginning.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Goes on to `at`; never back.
    pub fn advance(&mut self, at: Duration) {
        self.now = self.now.max(at);
    }

    /// The instant that a clock which runs ahead by `ahead` shows.
    pub fn instant(&self, ahead: Duration) -> Instant {
        self.origin + self.now + ahead
    }

    /// When a clock that runs ahead by `ahead` shows `instant`, in the world's time; now, if that is past.
    pub fn when(&self, instant: Instant, ahead: Duration) -> Duration {
        instant.saturating_duration_since(self.origin).saturating_sub(ahead).max(self.now)
    }
}
