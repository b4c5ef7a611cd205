//! Graceful restart as the helper of a peer (RFC 4724 4.2, RFC 8538): which of its paths stay, and until when.
//!
//! Per family: Fresh → Stale → Fresh or gone.
//!
//! | event | what happens |
//! |---|---|
//! | TCP lost, Hold or SendHold expired | families in the peer's capability turn stale, the Restart timer runs |
//! | NOTIFICATION, sent or received | all paths go; with N on both sides as above, but not for a hard reset (6/9) |
//! | lost again | what is still stale goes, what was renewed turns stale |
//! | Restart timer ends | stale paths go |
//! | Established without the family or its F bit | stale paths go |
//! | Established with it | stale paths wait for End-of-RIB, or the stale path timer |
//!
//! Our own restart needs no state here: R and F stand in our OPEN until the node has recovered, and a process that
//! ends to come back closes TCP without a word (G4), so that its peers become helpers.

use std::time::{Duration, Instant};

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
    /// Another connection of the peer, which has restarted, takes over (F8), or replaces one without OPEN (F10).
    Replaced,
    /// This process ends and comes back (G4).
    ProcessRestart,
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
        matches!(self, Self::Sent { .. } | Self::Received { .. } | Self::HoldExpired) && !self.is_collision()
    }
}

/// What is stale, and what is waited for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Helper {
    stale: PerFamily<bool>,
}

/// What happens to a peer's paths when its session ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Loss {
    /// Families whose paths have been stale since an earlier loss: those go first.
    pub sweep: Vec<Family>,
    /// Families whose paths turn stale.
    pub keep: PerFamily<bool>,
}

impl Helper {
    /// The session ended.
    pub(super) fn lost(&mut self, now: Instant, cause: Cause, settled: &Negotiated, timers: &mut TimerTable) -> Loss {
        let sweep = self.give_up(timers);
        if cause == Cause::ProcessRestart {
            return Loss { sweep: Vec::new(), keep: PerFamily { ipv4: true, ipv6: true } };
        }
        if !is_covered(cause, settled.notification_restart) {
            return Loss { sweep, keep: PerFamily::default() };
        }
        self.stale = settled.restartable();
        if !self.stale.is_empty() {
            let seconds = settled.graceful_restart.as_ref().map_or(0, |gr| gr.restart_time);
            timers.set(Timer::Restart, now + Duration::from_secs(seconds.into()));
        }
        Loss { sweep, keep: self.stale }
    }

    /// The session is Established again; families whose stale paths go at once.
    pub(super) fn back(&mut self, now: Instant, settled: &Negotiated, timers: &mut TimerTable) -> Vec<Family> {
        timers.clear(Timer::Restart);
        let preserved = |family| {
            settled.context.families.has(family)
                && settled.graceful_restart.as_ref().is_some_and(|gr| gr.families.iter().any(|(f, kept)| *f == family && *kept))
        };
        let (wait, gone): (Vec<Family>, Vec<Family>) = families(self.stale).partition(|family| preserved(*family));
        for family in wait {
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

    fn forget(&mut self, family: Family, timers: &mut TimerTable) {
        if let Some(stale) = self.stale.of_mut(family) {
            *stale = false;
        }
        timers.clear(Timer::stale(family));
    }
}

fn families(set: PerFamily<bool>) -> impl Iterator<Item = Family> {
    Family::ALL.into_iter().filter(move |family| set.has(*family))
}

/// Whether graceful restart covers this end of a session; `both` sides have N.
fn is_covered(cause: Cause, both: bool) -> bool {
    match cause {
        Cause::Lost | Cause::HoldExpired | Cause::Replaced | Cause::ProcessRestart => true,
        Cause::Sent { code: code::CEASE, subcode: cease::HARD_RESET }
        | Cause::Received { code: code::CEASE, subcode: cease::HARD_RESET } => false,
        Cause::Sent { .. } | Cause::Received { .. } => both,
    }
}

/// G7: with N on both sides an end that is meant to be final is said as a hard reset (6/9) around the real reason.
pub(super) fn hardened(notification: Notification, both: bool) -> Notification {
    let is_final = notification.code == code::CEASE
        && matches!(notification.subcode, cease::MAXIMUM_PREFIXES | cease::ADMINISTRATIVE_SHUTDOWN | cease::PEER_DECONFIGURED);
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
            (received(6, 4), NONE, BOTH),
            (received(3, 1), NONE, BOTH),
            (received(6, 9), NONE, NONE),
            (sent(3, 1), NONE, BOTH),
            (sent(6, 4), NONE, BOTH),
            (sent(6, 9), NONE, NONE),
        ];
        let now = sample::now();
        for (cause, without, with) in rows {
            for (n, expected) in [(false, without), (true, with)] {
                let mut timers = TimerTable::default();
                let loss = Helper::default().lost(now, cause, &settled(n, 120, &FULL), &mut timers);
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
            assert_eq!(Helper::default().lost(now, Cause::Lost, &session, &mut timers).keep, NONE);
        }
        let one = settled(true, 120, &[(Family::IPV4_UNICAST, false)]);
        assert_eq!(Helper::default().lost(now, Cause::Lost, &one, &mut timers).keep, V4, "F is irrelevant here");
    }

    #[test]
    fn back_with_and_without_the_f_bit() {
        let now = sample::now();
        let mut timers = TimerTable::default();
        let mut helper = Helper::default();
        helper.lost(now, Cause::Lost, &settled(true, 120, &FULL), &mut timers);
        let returned = settled(true, 120, &[(Family::IPV4_UNICAST, true), (Family::IPV6_UNICAST, false)]);
        assert_eq!(helper.back(now, &returned, &mut timers), [Family::IPV6_UNICAST]);
        assert_eq!(helper.stale(), V4);
        assert_eq!(timers.earliest(), Some(now + STALE_PATHS));
        assert!(helper.settle(Family::IPV4_UNICAST, &mut timers));
        assert!(!helper.settle(Family::IPV4_UNICAST, &mut timers));
        assert_eq!(timers.earliest(), None);
    }

    #[test]
    fn second_loss_sweeps_what_was_stale_before() {
        let now = sample::now();
        let mut timers = TimerTable::default();
        let mut helper = Helper::default();
        let session = settled(true, 120, &FULL);
        helper.lost(now, Cause::Lost, &session, &mut timers);
        assert_eq!(helper.back(now, &session, &mut timers), []);
        assert!(helper.settle(Family::IPV6_UNICAST, &mut timers));
        let loss = helper.lost(now, Cause::Lost, &session, &mut timers);
        assert_eq!(loss, Loss { sweep: vec![Family::IPV4_UNICAST], keep: BOTH });
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
