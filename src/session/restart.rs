//! Graceful restart as the helper of a peer (RFC 4724 4.2, RFC 8538): which of its paths stay, and until when.
//!
//! Per family: Fresh → Stale → Fresh or gone.
//!
//! | event | what happens |
//! |---|---|
//! | TCP lost, Hold or SendHold expired | families in the peer's capability turn stale, the Restart timer runs |
//! | NOTIFICATION, sent or received | all paths go; with N on both sides as above, but not for a hard reset (6/9) |
//! | lost again | what was renewed turns stale; what is still stale stays while the series of losses is young, or goes (a setting) |
//! | Restart timer ends | stale paths go, or become long-lived (RFC 9494) where both sides want that |
//! | Established without the family or its F bit | stale paths go |
//! | Established with it | stale paths wait for End-of-RIB, or the stale path timer; long-lived ones for theirs, which runs on |
//!
//! BFD (G8). A node that dies takes its BFD and leaves its TCP connections open; a process that dies has its connections closed
//! by its kernel, and its BFD falls silent a moment later. So BFD down on a session that is Established is a real failure and
//! the paths go, unless `graceful` is asked for and the peer's C bit is clear; BFD down when the session is lost already
//! is part of a restart, unless the peer's C bit says that its BFD would have lived through one.
//!
//! Two readings of ours. RFC 4724 section 4.2 drops what is stale when the session is lost again; a peer that starts twice
//! in a row still forwards, so by default such paths stay up to the stale path time (`ConsecutiveRestarts`). And where
//! a session is lost while long-lived paths wait for its End-of-RIB, what it had renewed becomes long-lived at once.
//!
//! Our own restart needs no state here: R and F stand in our OPEN until the node has recovered, and a process that
//! ends to come back closes TCP without a word (G4), so that its peers become helpers.

use std::time::{Duration, Instant};

use crate::config::{ConsecutiveRestarts, PeerConfig};
use crate::types::{Family, PerFamily};
use crate::wire::{Notification, cease, code};

use super::negotiate::Negotiated;
use super::timer::{STALE_PATHS, Timer, TimerTable};

/// How a connection ended, as far as it matters to what comes after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// TCP was lost, or SendHold expired.
    Lost,
    /// The peer was silent.
    HoldExpired,
    /// We sent a NOTIFICATION.
    Sent {
        /// Its code.
        code: u8,
        /// Its subcode.
        subcode: u8,
    },
    /// We received one.
    Received {
        /// Its code.
        code: u8,
        /// Its subcode.
        subcode: u8,
    },
    /// BFD said that the path is down; whether that counts as a restart (G8).
    PathDown {
        /// The peer's paths stay.
        graceful: bool,
    },
    /// Another connection of the peer, which has restarted, takes over (F8), or replaces one without OPEN (F10).
    Replaced,
    /// This process ends and comes back (G4).
    ProcessRestart,
    /// The peer is no longer configured, and others have taken its place.
    HandedOver,
}

impl Cause {
    /// The connection gave way to another one.
    pub(super) fn is_collision(self) -> bool {
        matches!(
            self,
            Self::Sent { code: code::CEASE, subcode: cease::COLLISION } | Self::Received { code: code::CEASE, subcode: cease::COLLISION }
        )
    }

    /// A NOTIFICATION was sent or received, collisions apart: the pause before the next connect grows.
    pub(super) fn is_error(self) -> bool {
        matches!(self, Self::Sent { .. } | Self::Received { .. } | Self::HoldExpired | Self::PathDown { .. }) && !self.is_collision()
    }
}

/// What is stale, and what is waited for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Helper {
    stale: PerFamily<bool>,
    /// Those of them whose restart time is over.
    long_lived: PerFamily<bool>,
    /// For how many seconds paths of the last session may stay after its restart time.
    times: PerFamily<u32>,
    /// The first loss of the series that has left something stale.
    since: Option<Instant>,
}

/// What happens to a peer's paths when its session ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Loss {
    /// Families whose paths have been stale since an earlier loss: those go first.
    pub sweep: Vec<Family>,
    /// Families whose paths turn stale.
    pub keep: PerFamily<bool>,
    /// Families whose stale paths are long-lived at once.
    pub long_lived: Vec<Family>,
}

impl Helper {
    /// The session ended.
    pub(super) fn lost(&mut self, now: Instant, cause: Cause, settled: &Negotiated, config: &PeerConfig, timers: &mut TimerTable) -> Loss {
        if cause == Cause::ProcessRestart {
            return Loss { sweep: self.give_up(timers), keep: PerFamily { ipv4: true, ipv6: true }, long_lived: Vec::new() };
        }
        if !is_covered(cause, settled.notification_restart) {
            return Loss { sweep: self.give_up(timers), ..Loss::default() };
        }
        self.times = settled.long_lived_times(config.long_lived);
        let restartable = settled.restartable();
        let keep = restartable.map(|family, restarts| restarts || self.time(family) > 0);
        let sweep: Vec<Family> = families(self.stale).filter(|family| !keep.has(*family) || !self.outlives(now, *family, config)).collect();
        for family in &sweep {
            self.forget(*family, timers);
        }
        for family in Family::ALL {
            timers.clear(Timer::stale(family));
        }
        self.stale = keep;
        self.since = self.since.or((!keep.is_empty()).then_some(now));
        if !restartable.is_empty() {
            let seconds = settled.graceful_restart.as_ref().map_or(0, |gr| gr.restart_time);
            timers.set(Timer::Restart, now + Duration::from_secs(seconds.into()));
        }
        let long_lived: Vec<Family> = families(keep).filter(|family| !restartable.has(*family) || self.long_lived.has(*family)).collect();
        for family in &long_lived {
            self.begin_long_lived(now, *family, timers);
        }
        Loss { sweep, keep, long_lived }
    }

    /// Whether what was stale before this loss stays. Long-lived paths have a time of their own.
    fn outlives(&self, now: Instant, family: Family, config: &PeerConfig) -> bool {
        let young = self.since.is_some_and(|since| now.saturating_duration_since(since) < STALE_PATHS);
        self.long_lived.has(family) || (config.consecutive_restarts == ConsecutiveRestarts::Keep && young)
    }

    /// The restart time is over: the families whose stale paths go, and those that become long-lived.
    pub(super) fn restart_expired(&mut self, now: Instant, timers: &mut TimerTable) -> (Vec<Family>, Vec<Family>) {
        let due = families(self.stale).filter(|family| !self.long_lived.has(*family));
        let (long_lived, gone): (Vec<Family>, Vec<Family>) = due.partition(|family| self.time(*family) > 0);
        for family in &long_lived {
            self.begin_long_lived(now, *family, timers);
        }
        for family in &gone {
            self.forget(*family, timers);
        }
        (gone, long_lived)
    }

    /// The long-lived stale timer runs on through sessions that come and go without End-of-RIB.
    fn begin_long_lived(&mut self, now: Instant, family: Family, timers: &mut TimerTable) {
        if let Some(long_lived) = self.long_lived.of_mut(family) {
            *long_lived = true;
        }
        if !timers.runs(Timer::long_lived(family)) {
            timers.set(Timer::long_lived(family), now + Duration::from_secs(self.time(family).into()));
        }
    }

    fn time(&self, family: Family) -> u32 {
        self.times.of(family).copied().unwrap_or(0)
    }

    /// The session of a peer that lingers ended, however it did: its paths stay until others have taken their place.
    pub(super) fn hold(&mut self, settled: &Negotiated, timers: &mut TimerTable) -> Loss {
        let sweep = self.give_up(timers);
        self.stale = settled.context.families;
        Loss { sweep, keep: self.stale, long_lived: Vec::new() }
    }

    /// What was held is waited for again, as after the loss of a session.
    pub(super) fn wait(&mut self, now: Instant, seconds: u16, timers: &mut TimerTable) {
        if !self.stale.is_empty() {
            timers.set(Timer::Restart, now + Duration::from_secs(seconds.into()));
        }
    }

    /// The session is Established again; families whose stale paths go at once.
    pub(super) fn back(&mut self, now: Instant, settled: &Negotiated, timers: &mut TimerTable) -> Vec<Family> {
        timers.clear(Timer::Restart);
        let preserved = |family| match self.long_lived.has(family) {
            true => settled.has_kept_for_long(family),
            false => settled.has_kept(family),
        };
        let (wait, gone): (Vec<Family>, Vec<Family>) = families(self.stale).partition(|family| preserved(*family));
        for family in wait.into_iter().filter(|family| !self.long_lived.has(*family)) {
            timers.set(Timer::stale(family), now + STALE_PATHS);
        }
        for family in &gone {
            self.forget(*family, timers);
        }
        gone
    }

    /// The wait for a family is over: End-of-RIB has come, or its time is up. Whether anything was stale.
    pub(super) fn settle(&mut self, family: Family, timers: &mut TimerTable) -> bool {
        let was_stale = self.stale.has(family);
        self.forget(family, timers);
        was_stale
    }

    /// Nothing is waited for any more; the families that were.
    pub(super) fn give_up(&mut self, timers: &mut TimerTable) -> Vec<Family> {
        let gone: Vec<Family> = families(self.stale).collect();
        timers.clear(Timer::Restart);
        for family in &gone {
            self.forget(*family, timers);
        }
        gone
    }

    /// Families that are stale now.
    pub(super) fn stale(&self) -> PerFamily<bool> {
        self.stale
    }

    /// Those of them that are long-lived.
    pub(super) fn long_lived(&self) -> PerFamily<bool> {
        self.long_lived
    }

    fn forget(&mut self, family: Family, timers: &mut TimerTable) {
        for set in [&mut self.stale, &mut self.long_lived] {
            if let Some(on) = set.of_mut(family) {
                *on = false;
            }
        }
        if self.stale.is_empty() {
            self.since = None;
        }
        timers.clear(Timer::stale(family));
        timers.clear(Timer::long_lived(family));
    }
}

fn families(set: PerFamily<bool>) -> impl Iterator<Item = Family> {
    Family::ALL.into_iter().filter(move |family| set.has(*family))
}

/// Whether graceful restart covers this end of a session; `both` sides have N.
fn is_covered(cause: Cause, both: bool) -> bool {
    match cause {
        Cause::Lost | Cause::HoldExpired | Cause::Replaced | Cause::ProcessRestart => true,
        Cause::HandedOver => false,
        Cause::Sent { code: code::CEASE, subcode: cease::HARD_RESET }
        | Cause::Received { code: code::CEASE, subcode: cease::HARD_RESET } => false,
        Cause::PathDown { graceful } => graceful,
        Cause::Sent { .. } | Cause::Received { .. } => both,
    }
}

/// G7: with N on both sides an end that is meant to be final is said as a hard reset (6/9) around the real reason.
pub(super) fn hardened(notification: Notification, both: bool) -> Notification {
    let is_final = notification.code == code::CEASE
        && matches!(
            notification.subcode,
            cease::MAXIMUM_PREFIXES | cease::ADMINISTRATIVE_SHUTDOWN | cease::PEER_DECONFIGURED | cease::OUT_OF_RESOURCES
        );
    if both && is_final { notification.into_hard_reset() } else { notification }
}

#[cfg(test)]
mod tests {
    use super::super::negotiate::{Advert, negotiate, our_open};
    use super::super::sample;
    use super::*;
    use crate::wire::{Capability, GracefulRestart};

    const BOTH: PerFamily<bool> = PerFamily { ipv4: true, ipv6: true };
    const NONE: PerFamily<bool> = PerFamily { ipv4: false, ipv6: false };
    const V4: PerFamily<bool> = PerFamily { ipv4: true, ipv6: false };

    /// A session in both families whose peer sent this capability.
    fn settled(notification: bool, restart_time: u16, families: &[(Family, bool)]) -> Negotiated {
        let (mut config, mut peer) = sample::pair();
        (config.families, peer.families) = (BOTH, BOTH);
        let mut open = our_open(&peer, &Advert::default());
        open.capabilities.retain(|capability| !matches!(capability, Capability::GracefulRestart(_)));
        open.capabilities.push(Capability::GracefulRestart(GracefulRestart {
            restarting: false,
            notification,
            restart_time,
            families: families.to_vec(),
        }));
        negotiate(&config, &our_open(&config, &Advert::default()), &open).unwrap()
    }

    fn lose(helper: &mut Helper, at: Instant, cause: Cause, session: &Negotiated, timers: &mut TimerTable) -> Loss {
        helper.lost(at, cause, session, &sample::pair().0, timers)
    }

    const FULL: [(Family, bool); 2] = [(Family::IPV4_UNICAST, true), (Family::IPV6_UNICAST, true)];

    #[test]
    fn what_stays_by_cause() {
        let sent = |code, subcode| Cause::Sent { code, subcode };
        let received = |code, subcode| Cause::Received { code, subcode };
        // cause, kept without N, kept with N
        let rows = [
            (Cause::Lost, BOTH, BOTH),
            (Cause::HoldExpired, BOTH, BOTH),
            (Cause::Replaced, BOTH, BOTH),
            (Cause::ProcessRestart, BOTH, BOTH),
            (Cause::HandedOver, NONE, NONE),
            (received(6, 4), NONE, BOTH),
            (received(3, 1), NONE, BOTH),
            (received(6, 9), NONE, NONE),
            (sent(3, 1), NONE, BOTH),
            (sent(6, 4), NONE, BOTH),
            (sent(6, 9), NONE, NONE),
            (Cause::PathDown { graceful: false }, NONE, NONE),
            (Cause::PathDown { graceful: true }, BOTH, BOTH),
        ];
        let now = sample::now();
        for (cause, without, with) in rows {
            for (n, expected) in [(false, without), (true, with)] {
                let mut timers = TimerTable::default();
                let loss = lose(&mut Helper::default(), now, cause, &settled(n, 120, &FULL), &mut timers);
                assert_eq!(loss.keep, expected, "{cause:?} N={n}");
                let waits = expected != NONE && cause != Cause::ProcessRestart;
                assert_eq!(timers.earliest(), waits.then(|| now + Duration::from_secs(120)), "{cause:?} N={n}");
            }
        }
    }

    #[test]
    fn g5_g6_time_zero_or_no_family_is_no_helper() {
        let now = sample::now();
        let mut timers = TimerTable::default();
        for session in [settled(true, 0, &FULL), settled(true, 120, &[])] {
            assert_eq!(lose(&mut Helper::default(), now, Cause::Lost, &session, &mut timers).keep, NONE);
        }
        let one = settled(true, 120, &[(Family::IPV4_UNICAST, false)]);
        assert_eq!(lose(&mut Helper::default(), now, Cause::Lost, &one, &mut timers).keep, V4, "F is irrelevant here");
    }

    #[test]
    fn back_with_and_without_the_f_bit() {
        let now = sample::now();
        let mut timers = TimerTable::default();
        let mut helper = Helper::default();
        lose(&mut helper, now, Cause::Lost, &settled(true, 120, &FULL), &mut timers);
        let returned = settled(true, 120, &[(Family::IPV4_UNICAST, true), (Family::IPV6_UNICAST, false)]);
        assert_eq!(helper.back(now, &returned, &mut timers), [Family::IPV6_UNICAST]);
        assert_eq!(helper.stale(), V4);
        assert_eq!(timers.earliest(), Some(now + STALE_PATHS));
        assert!(helper.settle(Family::IPV4_UNICAST, &mut timers));
        assert!(!helper.settle(Family::IPV4_UNICAST, &mut timers));
        assert_eq!(timers.earliest(), None);
    }

    /// What RFC 4724 section 4.2 drops stays by default, as long as the series of losses is young.
    #[test]
    fn second_loss_keeps_or_drops_what_was_stale_before() {
        let session = settled(true, 120, &FULL);
        let rows = [
            (ConsecutiveRestarts::Keep, Duration::from_secs(359), vec![]),
            (ConsecutiveRestarts::Keep, Duration::from_secs(360), vec![Family::IPV4_UNICAST]),
            (ConsecutiveRestarts::Drop, Duration::from_secs(1), vec![Family::IPV4_UNICAST]),
        ];
        for (setting, after, sweep) in rows {
            let config = PeerConfig { consecutive_restarts: setting, ..sample::pair().0 };
            let (start, mut timers, mut helper) = (sample::now(), TimerTable::default(), Helper::default());
            helper.lost(start, Cause::Lost, &session, &config, &mut timers);
            assert_eq!(helper.back(start, &session, &mut timers), []);
            assert!(helper.settle(Family::IPV6_UNICAST, &mut timers));
            let loss = helper.lost(start + after, Cause::Lost, &session, &config, &mut timers);
            assert_eq!(loss, Loss { sweep, keep: BOTH, long_lived: vec![] }, "{setting:?} {after:?}");
            assert_eq!(timers.earliest(), Some(start + after + Duration::from_secs(120)));
        }
    }

    /// The peer of both families keeps forwarding for 1000 s (IPv4) and not at all (IPv6); `kept` is its F bit in 71.
    fn long_lived(restart_time: u16, kept: bool) -> Negotiated {
        let mut session = settled(true, restart_time, &FULL);
        session.theirs.capabilities.retain(|capability| capability.code() != 71);
        let tuples = vec![(Family::IPV4_UNICAST, kept, 1000), (Family::IPV6_UNICAST, kept, 0)];
        session.theirs.capabilities.push(Capability::LongLivedGracefulRestart(tuples));
        session
    }

    const LONG: Duration = Duration::from_secs(1000);

    fn patient(limit: u32) -> PeerConfig {
        PeerConfig { long_lived: Some(limit), ..sample::pair().0 }
    }

    #[test]
    fn llgr_begins_after_the_restart_time_where_both_sides_want_it() {
        let start = sample::now();
        for (limit, time) in [(5000, 1000), (7, 7)] {
            let (mut timers, mut helper) = (TimerTable::default(), Helper::default());
            let loss = helper.lost(start, Cause::Lost, &long_lived(120, true), &patient(limit), &mut timers);
            assert_eq!((loss.keep, loss.long_lived), (BOTH, vec![]));
            let expired = timers.earliest().unwrap();
            assert_eq!(expired, start + Duration::from_secs(120));
            timers.pop(expired);
            let (gone, long) = helper.restart_expired(expired, &mut timers);
            assert_eq!((gone, long), (vec![Family::IPV6_UNICAST], vec![Family::IPV4_UNICAST]));
            assert_eq!(timers.earliest(), Some(expired + Duration::from_secs(time)), "the lesser of the two times");
        }
        let (mut timers, mut helper) = (TimerTable::default(), Helper::default());
        helper.lost(start, Cause::Lost, &long_lived(120, true), &sample::pair().0, &mut timers);
        assert_eq!(helper.restart_expired(start, &mut timers).1, [], "off by default");
    }

    #[test]
    fn g5_llgr_begins_at_once_with_restart_time_zero() {
        let (start, mut timers, mut helper) = (sample::now(), TimerTable::default(), Helper::default());
        let loss = helper.lost(start, Cause::Lost, &long_lived(0, true), &patient(5000), &mut timers);
        assert_eq!((loss.keep, loss.long_lived), (V4, vec![Family::IPV4_UNICAST]));
        assert_eq!(timers.earliest(), Some(start + LONG));
        let hard = helper.lost(start, Cause::Received { code: 6, subcode: 9 }, &long_lived(0, true), &patient(5000), &mut timers);
        assert_eq!((hard.sweep, hard.keep, timers.earliest()), (vec![Family::IPV4_UNICAST], NONE, None), "a hard reset ends it all");
    }

    #[test]
    fn llgr_runs_on_through_sessions_until_end_of_rib() {
        let (start, mut timers, mut helper) = (sample::now(), TimerTable::default(), Helper::default());
        let later = |seconds| start + Duration::from_secs(seconds);
        helper.lost(start, Cause::Lost, &long_lived(0, true), &patient(5000), &mut timers);
        assert_eq!(helper.back(later(100), &long_lived(120, true), &mut timers), []);
        assert_eq!(timers.earliest(), Some(start + LONG), "neither stopped nor started anew");
        let loss = helper.lost(later(200), Cause::Lost, &long_lived(120, true), &patient(5000), &mut timers);
        assert_eq!((loss.sweep, loss.keep, loss.long_lived), (vec![], BOTH, vec![Family::IPV4_UNICAST]));
        assert_eq!(helper.back(later(300), &long_lived(120, true), &mut timers), []);
        assert!(helper.settle(Family::IPV4_UNICAST, &mut timers) && helper.settle(Family::IPV6_UNICAST, &mut timers));
        assert_eq!(timers.earliest(), None);
    }

    #[test]
    fn llgr_ends_at_once_where_the_peer_comes_back_without_f() {
        let (start, mut timers, mut helper) = (sample::now(), TimerTable::default(), Helper::default());
        helper.lost(start, Cause::Lost, &long_lived(0, true), &patient(5000), &mut timers);
        assert_eq!(helper.back(start, &long_lived(120, false), &mut timers), [Family::IPV4_UNICAST]);
        assert_eq!((helper.stale(), timers.earliest()), (NONE, None));
    }

    #[test]
    fn g7_final_ends_are_hard_resets() {
        let cease = |subcode| Notification { code: 6, subcode, data: (&b"x"[..]).into() };
        for (subcode, hard) in [(1, true), (2, true), (3, true), (4, false), (6, false), (7, false)] {
            let said = hardened(cease(subcode), true);
            assert_eq!(said.subcode == 9, hard, "6/{subcode}");
            if hard {
                assert_eq!(said.data, [6, subcode, b'x'][..]);
            }
            assert_eq!(hardened(cease(subcode), false), cease(subcode));
        }
    }
}
