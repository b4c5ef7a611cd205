//! Timers as deadlines: a table of what is due when, jitter, and the back-off after errors.

use std::time::{Duration, Instant};

use rand_pcg::Pcg32;
use rand_pcg::rand_core::RngCore;

use crate::config::SendHold;
use crate::types::Family;

/// The pause after the first connect that fails; it doubles up to the ConnectRetry time.
pub(super) const FIRST_RETRY: Duration = Duration::from_secs(1);

/// A TCP connect that hangs is abandoned after this.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long we wait for the peer's OPEN on a connection that we opened.
pub(super) const OPEN_HOLD_OUTGOING: Duration = Duration::from_secs(240);
/// How long we wait for the peer's OPEN on a connection that it opened (Q5).
pub(super) const OPEN_HOLD_INCOMING: Duration = Duration::from_secs(60);
/// Least SendHold time (RFC 9687).
pub(super) const SEND_HOLD: Duration = Duration::from_secs(480);
/// Longest wait for End-of-RIB of a peer that came back, and for EoRR after BoRR.
pub(super) const STALE_PATHS: Duration = Duration::from_secs(360);
/// For so long a connection that has to give way to another one waits for it to get on.
pub(super) const COLLISION_WINDOW: Duration = Duration::from_secs(1);
/// For so long a session is so young that a connection of the other side may have been under way before it.
pub(super) const YOUTH: Duration = Duration::from_millis(250);
/// Errors are forgotten after this time without one.
pub(super) const AMNESIA: Duration = Duration::from_secs(300);

/// How long the peer may take no byte, when `hold` was agreed; none: for ever. Never shorter than `hold`, as RFC 9687 advises.
pub(super) fn send_hold(wanted: SendHold, hold: Option<Duration>) -> Option<Duration> {
    let hold = hold.unwrap_or_default();
    match wanted {
        SendHold::Derived => Some(SEND_HOLD.max(2 * hold)),
        SendHold::After(pause) => Some(pause.max(hold)),
        SendHold::Off => None,
    }
}

/// What may be due. A connection uses the first six, the peer the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// The next connect.
    ConnectRetry,
    /// A connect under way has taken too long.
    ConnectTimeout,
    /// The peer has been silent for too long.
    Hold,
    /// A KEEPALIVE of ours.
    Keepalive,
    /// The peer has not taken a byte for too long (RFC 9687).
    SendHold,
    /// A collision that could not be judged yet has had its time.
    Settle,
    /// The pause after an error is over.
    IdleHold,
    /// The restarting peer has had its time.
    Restart,
    /// The peer that came back has had its time to tell the IPv4 table.
    StaleIpv4,
    /// The same for IPv6.
    StaleIpv6,
    /// BoRR without EoRR, IPv4.
    RefreshIpv4,
    /// The same for IPv6.
    RefreshIpv6,
    /// Long-lived stale paths have had their time, IPv4 (RFC 9494).
    LongLivedIpv4,
    /// The same for IPv6.
    LongLivedIpv6,
    /// A session that was ended because of what the peer said may start again (Q2, Q3).
    Tripped,
}

impl Timer {
    const ALL: [Self; 15] = [
        Self::ConnectRetry,
        Self::ConnectTimeout,
        Self::Hold,
        Self::Keepalive,
        Self::SendHold,
        Self::Settle,
        Self::IdleHold,
        Self::Restart,
        Self::StaleIpv4,
        Self::StaleIpv6,
        Self::RefreshIpv4,
        Self::RefreshIpv6,
        Self::LongLivedIpv4,
        Self::LongLivedIpv6,
        Self::Tripped,
    ];

    /// The stale path timer of a family that margay routes.
    pub(super) fn stale(family: Family) -> Self {
        if family == Family::IPV6_UNICAST { Self::StaleIpv6 } else { Self::StaleIpv4 }
    }

    /// The long-lived stale timer of a family that margay routes.
    pub(super) fn long_lived(family: Family) -> Self {
        if family == Family::IPV6_UNICAST { Self::LongLivedIpv6 } else { Self::LongLivedIpv4 }
    }

    /// The refresh timer of a family that margay routes.
    pub(super) fn refresh(family: Family) -> Self {
        if family == Family::IPV6_UNICAST { Self::RefreshIpv6 } else { Self::RefreshIpv4 }
    }
}

/// What is due when.
#[derive(Clone, Debug, Default)]
pub(super) struct TimerTable {
    at: [Option<Instant>; Timer::ALL.len()],
}

impl TimerTable {
    /// Starts a timer, or starts it anew.
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.at[timer as usize] = Some(at);
    }

    /// Stops a timer.
    pub(super) fn clear(&mut self, timer: Timer) {
        self.at[timer as usize] = None;
    }

    /// Stops all.
    pub(super) fn clear_all(&mut self) {
        *self = Self::default();
    }

    /// Whether a timer runs.
    pub(super) fn runs(&self, timer: Timer) -> bool {
        self.at[timer as usize].is_some()
    }

    /// When the next timer is due.
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.at.iter().flatten().min().copied()
    }

    /// Stops and returns a timer that is due, the one that was due first.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Timer> {
        let (_, timer) = Timer::ALL
            .into_iter()
            .filter_map(|timer| self.at[timer as usize].map(|at| (at, timer)))
            .filter(|(at, _)| *at <= now)
            .min_by_key(|(at, _)| *at)?;
        self.clear(timer);
        Some(timer)
    }
}

/// 75 to 100 % of a duration, at random (RFC 4271 section 10).
pub(super) fn jitter(rng: &mut Pcg32, duration: Duration) -> Duration {
    duration * (768 + rng.next_u32() % 257) / 1024
}

/// Nothing up to all of a duration, at random.
pub(super) fn up_to(rng: &mut Pcg32, duration: Duration) -> Duration {
    duration * (rng.next_u32() % 1025) / 1024
}

/// Pauses after errors: the least at first, doubled each time, forgotten after five minutes without an error.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoff {
    errors: u32,
    last: Option<Instant>,
}

impl Backoff {
    /// The pause after an error, by the least and greatest pause.
    pub(super) fn after_error(&mut self, now: Instant, (least, greatest): (Duration, Duration)) -> Duration {
        let before = self.count(now);
        doubled(least, before).min(greatest.max(least))
    }

    /// The pause after the transport failed under a session: none the first time, for the peer may only have
    /// restarted (the caller chooses a short one); later as after an error.
    pub(super) fn after_loss(&mut self, now: Instant, (least, greatest): (Duration, Duration)) -> Option<Duration> {
        let before = self.count(now);
        (before > 0).then(|| doubled(least, before - 1).min(greatest.max(least)))
    }

    /// Forgets all errors.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Counts an error; how many there had been before it.
    fn count(&mut self, now: Instant) -> u32 {
        let fresh = self.last.is_some_and(|last| now.saturating_duration_since(last) < AMNESIA);
        let before = if fresh { self.errors } else { 0 };
        self.errors = before.saturating_add(1);
        self.last = Some(now);
        before
    }
}

fn doubled(least: Duration, times: u32) -> Duration {
    least.saturating_mul(1u32.checked_shl(times).unwrap_or(u32::MAX))
}

/// Lets ten through in a second and counts the rest (Q13).
#[derive(Clone, Debug, Default)]
pub(super) struct Limiter {
    begun: Option<Instant>,
    admitted: u32,
    suppressed: u64,
}

impl Limiter {
    /// How many were held back before this one, if this one passes.
    pub(super) fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.begun.is_none_or(|begun| now.saturating_duration_since(begun) >= Duration::from_secs(1)) {
            self.begun = Some(now);
            self.admitted = 0;
        }
        if self.admitted >= 10 {
            self.suppressed += 1;
            return None;
        }
        self.admitted += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    const RANGE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));

    #[test]
    fn s2_send_hold_is_never_shorter_than_hold() {
        let seconds = Duration::from_secs;
        let rows = [
            (SendHold::Derived, Some(90), Some(480)),
            (SendHold::Derived, Some(300), Some(600)),
            (SendHold::Derived, None, Some(480)),
            (SendHold::After(seconds(30)), Some(9), Some(30)),
            (SendHold::After(seconds(30)), Some(90), Some(90)),
            (SendHold::Off, Some(90), None),
        ];
        for (wanted, hold, expected) in rows {
            assert_eq!(send_hold(wanted, hold.map(seconds)), expected.map(seconds), "{wanted:?} {hold:?}");
        }
    }

    #[test]
    fn timers_come_in_the_order_of_their_deadlines() {
        let now = sample::now();
        let mut table = TimerTable::default();
        table.set(Timer::Hold, now + Duration::from_secs(3));
        table.set(Timer::Keepalive, now + Duration::from_secs(1));
        table.set(Timer::Restart, now + Duration::from_secs(9));
        assert_eq!(table.earliest(), Some(now + Duration::from_secs(1)));
        let late = now + Duration::from_secs(5);
        assert_eq!([table.pop(late), table.pop(late), table.pop(late)], [Some(Timer::Keepalive), Some(Timer::Hold), None]);
        assert!(table.runs(Timer::Restart));
    }

    #[test]
    fn jitter_stays_between_three_quarters_and_the_whole() {
        let mut rng = Pcg32::new(1, 2);
        let whole = Duration::from_secs(60);
        for _ in 0..1000 {
            let drawn = jitter(&mut rng, whole);
            assert!(drawn >= whole * 3 / 4 && drawn <= whole, "{drawn:?}");
            assert!(up_to(&mut rng, whole) <= whole);
        }
    }

    #[test]
    fn back_off_doubles_to_its_bound_and_forgets() {
        let mut now = sample::now();
        let mut backoff = Backoff::default();
        let pauses: Vec<u64> = (0..5).map(|_| backoff.after_error(now, RANGE).as_secs()).collect();
        assert_eq!(pauses, [5, 10, 20, 30, 30]);
        now += AMNESIA;
        assert_eq!(backoff.after_error(now, RANGE).as_secs(), 5);
        now += AMNESIA;
        assert_eq!(backoff.after_loss(now, RANGE), None);
        assert_eq!(backoff.after_loss(now, RANGE), Some(RANGE.0));
        for _ in 0..200 {
            assert!(backoff.after_error(now, RANGE) <= RANGE.1);
        }
    }
}
