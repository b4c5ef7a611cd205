//! One timer of a task, for the deadline of its machine, which changes with almost everything the machine hears.
//!
//! It is set anew only where the deadline has come nearer: one that has moved away is seen when the timer fires. And it fires a little
//! late, at an instant that alarms of many tasks share: of a thousand sessions that each owe a KEEPALIVE now and then, those whose turn is near
//! are served by one wake of the process, instead of one wake each with all caches cold.

use std::pin::Pin;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tokio::time::Sleep;

/// An alarm may be late by this part of the time that it waits: a KEEPALIVE each 30 s by less than a second, one each second by some 30 ms.
const PATIENCE: u32 = 32;
/// Nothing is later than this.
const LATEST: Duration = Duration::from_millis(256);
/// From here on shared instants are counted. tokio sorts timers that are far off into slots of 64 ms since it started: an instant where such
/// a slot begins costs one wake, any other one two.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Counts shared instants from now on: to be called where the runtime's timers start.
pub fn align() {
    LazyLock::force(&ORIGIN);
}

/// See the module.
#[derive(Debug)]
pub struct Alarm {
    sleep: Pin<Box<Sleep>>,
    /// The deadline that it is set for.
    set: Option<Instant>,
}

impl Default for Alarm {
    /// Not set. It belongs to the runtime whose task asks for it.
    fn default() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), set: None }
    }
}

impl Alarm {
    /// Resolves when `deadline` has passed; never without one. Whoever asks again for the same or a later one costs no timer.
    pub async fn at(&mut self, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return std::future::pending().await };
        loop {
            if self.set.is_none_or(|set| set > deadline) {
                let now = Instant::now();
                if deadline <= now {
                    return;
                }
                self.set = Some(deadline);
                self.sleep.as_mut().reset(shared(now, deadline).into());
            }
            self.sleep.as_mut().await;
            self.set = None;
        }
    }
}

/// The instant at or soon after `deadline` that others may share.
fn shared(now: Instant, deadline: Instant) -> Instant {
    let patience = (deadline.saturating_duration_since(now) / PATIENCE).min(LATEST).as_millis();
    let grid = if patience == 0 { return deadline } else { 1 << patience.ilog2() };
    let since = deadline.saturating_duration_since(*ORIGIN).as_micros().div_ceil(1000);
    let millis = since.next_multiple_of(grid);
    *ORIGIN + Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn an_instant_is_shared_by_all_that_are_due_shortly_before_it() {
        let start = *ORIGIN + Duration::from_micros(77);
        for (wait, grid) in [(30_000, 256), (5000, 128), (3000, 64), (1000, 16), (100, 2), (31, 0), (0, 0)] {
            let wait = Duration::from_millis(wait);
            let mut instants: Vec<Instant> =
                (0..1000).map(|more| shared(start + more * wait / 1000, start + more * wait / 1000 + wait)).collect();
            for (more, at) in (0..).zip(&instants) {
                let deadline = start + more * wait / 1000 + wait;
                assert!(*at >= deadline && *at <= deadline + Duration::from_millis(grid), "{wait:?}");
                assert!(*at <= deadline + wait / PATIENCE + Duration::from_millis(1));
            }
            instants.dedup();
            let most = if grid == 0 { 1000 } else { usize::try_from(wait.as_millis() / u128::from(grid)).unwrap() + 2 };
            assert!(instants.len() <= most, "{wait:?}: {} instants", instants.len());
        }
    }

    #[tokio::test]
    async fn it_is_never_early_and_a_deadline_that_moves_away_sets_no_timer() {
        let mut alarm = Alarm::default();
        let (begun, soon) = (Instant::now(), Duration::from_millis(20));
        for step in 1..=10 {
            let asked = futures::poll!(Box::pin(alarm.at(Some(begun + step * HOUR))));
            assert_eq!((asked, alarm.set), (Poll::Pending, Some(begun + HOUR)), "set once, for the first");
        }
        alarm.at(Some(begun + soon)).await;
        assert!(Instant::now() >= begun + soon, "one that comes nearer is kept");
        assert_eq!(futures::poll!(Box::pin(alarm.at(Some(begun + 2 * soon)))), Poll::Pending);
        alarm.at(Some(begun + 4 * soon)).await;
        assert!(Instant::now() >= begun + 4 * soon, "set for an earlier one, it is set anew");
        alarm.at(Some(begun)).await;
        assert_eq!(futures::poll!(Box::pin(alarm.at(None))), Poll::Pending);
    }
}
