//! The TCP side of a connection: its number, bytes in, bytes out, and the timers of both.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::types::{ConnectionId, Outbox};
use crate::wire::{Context, Message};

use super::timer::{self, Timer, TimerTable};
use super::{Handshake, Output, codec};

/// Both ends of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    /// Ours.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// Our link-local address and the interface's index on the link of the session.
    pub local_link: Option<(Ipv6Addr, u32)>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Line {
    /// Its number; of the last attempt where there is none now.
    pub(super) id: ConnectionId,
    /// We open it.
    pub(super) outgoing: bool,
    /// Its ends, while TCP is up.
    pub(super) ends: Option<Ends>,
    /// The OPENs, as far as they have been said.
    pub(super) handshake: Handshake,
    /// Its timers.
    pub(super) timers: TimerTable,
    /// Bytes of ours ahead of the socket, as far as we know.
    pub(super) waiting: usize,
    /// Bytes of the peer that are no whole message yet.
    pub(super) input: BytesMut,
    /// The runtime does not read at present.
    pub(super) paused: bool,
    /// Bytes came since the last whole message, or since Hold was last extended.
    pub(super) alive: bool,
    /// Connects that came to nothing since the last one that reached OpenConfirm.
    pub(super) failures: u32,
    last_message: Option<Instant>,
    /// How long the peer may take no byte; none: for ever.
    pub(super) send_hold: Option<Duration>,
}

impl Line {
    /// A line without TCP.
    pub(super) fn new(id: ConnectionId, outgoing: bool) -> Self {
        Self {
            id,
            outgoing,
            ends: None,
            handshake: Handshake::default(),
            timers: TimerTable::default(),
            waiting: 0,
            input: BytesMut::new(),
            paused: false,
            alive: false,
            failures: 0,
            last_message: None,
            send_hold: Some(timer::SEND_HOLD),
        }
    }

    /// Writes bytes; SendHold runs from now if nothing was waiting before.
    pub(super) fn send(&mut self, now: Instant, bytes: Bytes, out: &mut Outbox<Output>) {
        self.waiting += bytes.len();
        if !self.timers.runs(Timer::SendHold) {
            self.await_taken(now);
        }
        out.push(Output::Send { connection: self.id, bytes });
    }

    /// Writes a message.
    pub(super) fn say(&mut self, now: Instant, message: &Message, context: &Context, out: &mut Outbox<Output>) {
        self.send(now, codec::encode(message, context), out);
    }

    /// The socket took bytes (S2).
    pub(super) fn written(&mut self, now: Instant, waiting: usize) {
        let progress = waiting < self.waiting;
        self.waiting = waiting;
        if waiting == 0 {
            self.timers.clear(Timer::SendHold);
        } else if progress {
            self.await_taken(now);
        }
    }

    fn await_taken(&mut self, now: Instant) {
        match self.send_hold {
            Some(pause) => self.timers.set(Timer::SendHold, now + pause),
            None => self.timers.clear(Timer::SendHold),
        }
    }

    /// TCP is up; the peer's OPEN is due within `hold`.
    pub(super) fn opened(&mut self, now: Instant, hold: Duration) {
        self.timers.set(Timer::Hold, now + hold);
    }

    /// Another connection may take its place, or this one goes on when that has not become clear in time.
    pub(super) fn doubt(&mut self, now: Instant) {
        if !self.timers.runs(Timer::Settle) {
            self.timers.set(Timer::Settle, now + timer::COLLISION_WINDOW);
        }
    }

    /// A message came that restarts Hold.
    pub(super) fn heard(&mut self, now: Instant, hold: Option<Duration>) {
        self.alive = false;
        self.last_message = Some(now);
        if let Some(hold) = hold {
            self.timers.set(Timer::Hold, now + hold);
        }
    }

    /// F4: Hold is due. While we do not read, or while a long message is trickling in, it is extended, to three
    /// times its length at most. Whether it was.
    pub(super) fn extends_hold(&mut self, now: Instant, hold: Option<Duration>) -> bool {
        let Some((last, hold)) = self.last_message.zip(hold) else { return false };
        let limit = last + 3 * hold;
        let extends = (self.paused || self.alive) && now < limit;
        if extends {
            self.alive = false;
            self.timers.set(Timer::Hold, limit.min(now + hold));
        }
        extends
    }

    /// Asks for TCP to be closed.
    pub(super) fn close(&mut self, linger: bool, out: &mut Outbox<Output>) {
        out.push(Output::Close { connection: self.id, linger });
    }

    /// Forgets all but its number, and how often it failed.
    pub(super) fn reset(&mut self) {
        *self = Self { failures: self.failures, ..Self::new(self.id, self.outgoing) };
    }
}
