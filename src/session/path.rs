//! BFD beside a session (RFC 5882): what becomes of it when the path to the peer goes down or comes up.

use std::time::Instant;

use crate::bfd;
use crate::types::Outbox;

use super::connection::{Event, Parting};
use super::peer::Peer;
use super::{Output, State};

impl Peer {
    /// BFD has something to say. A session that one end has taken out of service says nothing about the path (B3).
    #[inline(never)]
    pub(super) fn path(&mut self, now: Instant, report: bfd::Report, out: &mut Outbox<Output>) {
        let held = self.awaits_bfd();
        let before = self.bfd.replace(report);
        let was_up = before.is_some_and(|before| before.state == bfd::packet::State::Up);
        match report.state {
            bfd::packet::State::Up if held || std::mem::take(&mut self.path_lost) => self.resume(now, out),
            bfd::packet::State::Down if was_up && !report.remote_is_off => self.path_down(now, report, out),
            _ => {}
        }
    }

    /// B4 and G8: 6/10 on what is open. Where the session is lost already, that was a restart, unless the peer's BFD does
    /// not share the fate of its control plane.
    fn path_down(&mut self, now: Instant, report: bfd::Report, out: &mut Outbox<Output>) {
        let graceful = self.config.bfd.is_some_and(|bfd| bfd.graceful) && !report.independent;
        let open: Vec<_> = self.places().into_iter().filter(|place| self.is_open(*place)).collect();
        if open.is_empty() && report.independent {
            self.give_up_stale(out);
        }
        self.path_lost |= !open.is_empty();
        for place in open {
            let parting = Parting::PathDown(graceful, format!("BFD is down: {}", report.diagnostic));
            self.step(now, place, Event::Stop(parting), out);
        }
    }

    fn is_open(&mut self, place: super::peer::Place) -> bool {
        self.connection_mut(place).is_some_and(|open| open.name() >= State::OpenSent)
    }

    /// `strict`: the session waits until BFD is up; one that is Established stays when the other end takes BFD out of service.
    pub(super) fn awaits_bfd(&self) -> bool {
        let up = self.bfd.is_some_and(|report| report.state == bfd::packet::State::Up);
        self.config.bfd.is_some_and(|bfd| bfd.strict) && !up && self.state() < State::Established
    }
}
