//! Moments as BIRD prints them.

use std::time::Instant;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Younger than this a moment is a time of day, else a date.
const DAY: SignedDuration = SignedDuration::from_hours(20);

/// Now, by both clocks.
#[derive(Clone, Debug)]
pub struct Clock {
    now: Timestamp,
    instant: Instant,
    zone: TimeZone,
}

impl Clock {
    /// The machine's.
    pub fn now() -> Self {
        Self { now: Timestamp::now(), instant: Instant::now(), zone: TimeZone::system() }
    }

    /// Now.
    pub fn current(&self) -> Timestamp {
        self.now
    }

    /// The wall clock's reading at an instant of the past.
    pub fn at(&self, instant: Instant) -> Timestamp {
        let ago = SignedDuration::try_from(self.instant.saturating_duration_since(instant)).unwrap_or_default();
        self.now.checked_sub(ago).unwrap_or(self.now)
    }

    /// `2026-08-22 10:00:05`.
    pub fn long(&self, moment: Timestamp) -> String {
        moment.to_zoned_datetime(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// `10:00:05`, or `2026-08-21` where that is no longer of today.
    pub fn short(&self, moment: Timestamp) -> String {
        let format = if self.now.duration_since(moment) < DAY { "%H:%M:%S" } else { "%Y-%m-%d" };
        moment.to_zoned_datetime(self.zone.clone()).strftime(format).to_string()
    }

    /// A clock that stands.
    #[cfg(test)]
    pub fn standing(now: &str) -> Self {
        Self { now: now.parse().unwrap(), instant: Instant::now(), zone: TimeZone::UTC }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_becomes_a_date_after_twenty_hours() {
        let clock = Clock::standing("2026-08-22T20:00:00Z");
        let ago = |hours: i64, seconds: i64| clock.current() - SignedDuration::from_secs(hours * 3600 + seconds);
        assert_eq!(clock.short(ago(0, 5)), "19:59:55");
        assert_eq!(clock.short(ago(19, 3599)), "00:00:01");
        assert_eq!(clock.short(ago(20, 0)), "2026-08-22");
        assert_eq!(clock.short(ago(21, 0)), "2026-08-21");
        assert_eq!(clock.long(ago(0, 5)), "2026-08-22 19:59:55");
    }

    #[test]
    fn instants_become_moments() {
        let clock = Clock::standing("2026-08-22T20:00:00Z");
        assert_eq!(clock.long(clock.at(clock.instant.checked_sub(Duration::from_secs(90)).unwrap())), "2026-08-22 19:58:30");
        assert_eq!(clock.long(clock.at(clock.instant + Duration::from_secs(1))), "2026-08-22 20:00:00");
    }
}
