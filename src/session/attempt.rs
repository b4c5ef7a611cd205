//! After an end: what is told, what is learnt of it, and when we try again.

use std::time::{Duration, Instant};

use crate::types::Outbox;
use crate::wire::code;

use super::connection::{Connection, Ending, Event, LastWord, Parting};
use super::peer::{Peer, Place};
use super::restart::Cause;
use super::timer::{Timer, jitter, up_to};
use super::{Event as Word, Output, State, refusal};

/// The peer did not agree about a collision: both try again within this time (W5, F9).
const COLLISION_PAUSE: Duration = Duration::from_secs(1);

impl Peer {
    /// A connection whose TCP was up is over.
    #[inline(never)]
    pub(super) fn ended(&mut self, now: Instant, place: Place, ending: &Ending, out: &mut Outbox<Output>) {
        if let Place::Incoming(id) = place {
            self.incoming.retain(|open| open.line.id != id);
        }
        if let Some(session) = &ending.session {
            self.lost(now, (ending.cause, ending.as_end()), session, out);
        }
        self.learn(ending);
        match ending.cause.is_collision() || ending.cause == Cause::Replaced {
            true => out.push(Output::Event(Word::Superseded(ending.reason.clone()))),
            false => self.remember(now, ending.reason.clone(), out),
        }
        self.release_awaiting(now, place, out);
        self.collided |= ending.cause.is_collision();
        if !self.stopping && self.held().is_none() {
            self.plan(now, ending, out);
        }
    }

    /// O10: the peer may refuse a capability by its name.
    fn learn(&mut self, ending: &Ending) {
        if let (Some(ours), LastWord::Received(notification)) = (&ending.ours, &ending.last_word)
            && notification.code == code::OPEN
            && matches!(notification.subcode, refusal::open::UNSUPPORTED_PARAMETER | refusal::open::UNSUPPORTED_CAPABILITY)
        {
            self.advert.omitted.refused(ours, notification);
        }
    }

    /// A connection that waited for the one that ended may become Established now.
    fn release_awaiting(&mut self, now: Instant, place: Place, out: &mut Outbox<Output>) {
        for other in self.places() {
            let waits = other != place && self.connection_mut(other).is_some_and(|open| open.line.timers.runs(Timer::Settle));
            if waits {
                self.step(now, other, Event::Due(Timer::Settle), out);
            }
        }
    }

    /// When we try again after an end, if no other connection has got further.
    fn plan(&mut self, now: Instant, ending: &Ending, out: &mut Outbox<Output>) {
        let alive = |open: &Connection| open.name() >= State::OpenConfirm;
        if self.connections().any(alive) {
            return;
        }
        let only_trying = self.connections().all(|open| open.name() < State::OpenSent);
        let cause = ending.cause;
        let pause = if self.collided && only_trying && !cause.is_error() {
            self.collided = false;
            up_to(&mut self.rng, COLLISION_PAUSE)
        } else if cause.is_error() {
            let pause = self.backoff.after_error(now, self.config.idle_hold);
            jitter(&mut self.rng, pause)
        } else if ending.from >= State::OpenConfirm && cause == Cause::Lost {
            match self.backoff.after_loss(now, self.config.idle_hold) {
                Some(pause) => jitter(&mut self.rng, pause),
                None => up_to(&mut self.rng, self.config.connect_delay),
            }
        } else if self.outgoing.name() == State::Idle && only_trying {
            jitter(&mut self.rng, self.config.connect_retry)
        } else {
            return;
        };
        self.rest(now, pause, out);
    }

    /// Pauses our connects; one that is under way goes on.
    fn rest(&mut self, now: Instant, pause: Duration, out: &mut Outbox<Output>) {
        if self.outgoing.name() == State::Active {
            self.step(now, Place::Outgoing, Event::Stop(Parting::Replaced), out);
        }
        if self.outgoing.name() == State::Idle {
            self.timers.set(Timer::IdleHold, now + pause);
        }
    }
}
