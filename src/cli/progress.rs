//! How far a long answer has come: a line on standard error that is written over, for people only.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Between two words.
const PAUSE: Duration = Duration::from_millis(250);
/// The clock is read once in so many things.
const STRIDE: u64 = 256;

/// Counts things as they come, and says so where somebody waits with nothing to read: standard error is a terminal, and standard output,
/// where the things go, is not.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    count: u64,
    /// None where nobody looks.
    next: Option<Instant>,
    said: bool,
}

impl Progress {
    /// Of `what`, in the plural.
    pub fn new(what: &'static str) -> Self {
        let seen = std::io::stderr().is_terminal() && !std::io::stdout().is_terminal();
        Self { what, count: 0, next: seen.then(|| Instant::now() + PAUSE), said: false }
    }

    /// One more.
    pub fn step(&mut self) {
        self.count += 1;
        if self.next.is_some()
            && self.count.is_multiple_of(STRIDE)
            && let Some(words) = self.words(Instant::now())
        {
            say(&words);
        }
    }

    /// What is to be said now, if anything is.
    fn words(&mut self, now: Instant) -> Option<String> {
        self.next.filter(|next| now >= *next)?;
        self.next = Some(now + PAUSE);
        self.said = true;
        Some(format!("\r{} {} …", self.count, self.what))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.said {
            say(&format!("\r{} {}  \n", self.count, self.what));
        }
    }
}

fn say(words: &str) {
    // Who cannot be told is not told.
    let _ = std::io::stderr().write_all(words.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_four_times_a_second_and_none_where_nobody_looks() {
        let now = Instant::now();
        let mut progress = Progress { what: "routes", count: 512, next: Some(now), said: false };
        assert_eq!(progress.words(now).as_deref(), Some("\r512 routes …"));
        assert_eq!(progress.words(now + PAUSE / 2), None);
        assert!(progress.words(now + PAUSE).is_some());
        progress.said = false;
        let mut unseen = Progress { what: "routes", count: 0, next: None, said: false };
        (0..2 * STRIDE).for_each(|_| unseen.step());
        assert!(!unseen.said && unseen.words(now).is_none());
    }
}
