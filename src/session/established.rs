//! What a peer does while its session is Established: routes in, frames out, refresh, limits.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::config::MaxPrefixAction;
use crate::types::{ConnectionId, Family, Outbox, ShardId};
use crate::wire::{Message, RouteRefresh, Update};

use super::codec;
use super::connection::Parting;
use super::counts::Alarm;
use super::flow::{Flow, Mark};
use super::line::Ends;
use super::negotiate::Negotiated;
use super::peer::{Peer, Trip, link_of};
use super::refusal::Refusal;
use super::restart::Cause;
use super::timer::{STALE_PATHS, Timer};
use super::{Event, Handshake, Output, RouteChange, SessionEnd, SessionFacts};

impl Peer {
    /// The session is up.
    #[inline(never)]
    pub(super) fn up(
        &mut self,
        now: Instant,
        (connection, ends, handshake): (ConnectionId, Option<Ends>, Handshake),
        settled: &Negotiated,
        out: &mut Outbox<Output>,
    ) {
        let Some(ends) = ends else { return };
        self.link = link_of(&ends);
        self.counts.forget_warnings();
        let used = settled.context.families;
        self.advert.forwarding = self.advert.forwarding.map(|family, kept| kept || used.has(family));
        self.flow = Some(Flow::new(connection, self.shards, settled.context.families));
        out.push(Output::Up(Arc::new(SessionFacts {
            peer: self.id,
            connection,
            config: self.config.clone(),
            context: settled.context.clone(),
            local: ends.local.ip(),
            local_link: ends.local_link,
            remote: ends.remote.ip(),
            identifier: settled.identifier(),
            graceful_restart: settled.graceful_restart.clone(),
            long_lived: settled.long_lived,
            enhanced_refresh: settled.enhanced_refresh,
            refresh: settled.refresh,
            handshake: Arc::new(handshake),
        })));
        for family in self.helper.back(now, settled, &mut self.timers) {
            out.push(Output::SweepStale(family));
        }
        self.pull(out);
    }

    /// The session is over: what it said in this read still counts, then the shards are told what stays.
    #[inline(never)]
    pub(super) fn lost(&mut self, now: Instant, (cause, end): (Cause, SessionEnd), settled: &Negotiated, out: &mut Outbox<Output>) {
        self.ingest.flush(out);
        self.flow = None;
        self.flaps += 1;
        for family in Family::ALL {
            self.timers.clear(Timer::refresh(family));
            self.set_refreshing(family, false);
        }
        let stays = self.lingering && !self.stopping;
        let loss = if stays {
            self.helper.hold(settled, &mut self.timers)
        } else {
            self.helper.lost(now, cause, settled, &self.config, &mut self.timers)
        };
        for family in loss.sweep {
            out.push(Output::SweepStale(family));
        }
        out.push(Output::Down { keep: loss.keep, end });
        for family in loss.long_lived {
            out.push(Output::LongLived(family));
        }
    }

    /// The peer is not back in its restart time: its stale paths go, or stay for long as the last choice.
    pub(super) fn restart_expired(&mut self, now: Instant, out: &mut Outbox<Output>) {
        let (sweep, long_lived) = self.helper.restart_expired(now, &mut self.timers);
        for family in sweep {
            out.push(Output::SweepStale(family));
        }
        for family in long_lived {
            out.push(Output::LongLived(family));
        }
    }

    /// An UPDATE: its faults are told, its routes gathered.
    pub(super) fn update(&mut self, now: Instant, update: Update, out: &mut Outbox<Output>) {
        let evidence = self.evidence.take();
        if !update.faults.is_empty() {
            self.tell_faults(now, &update, evidence.as_ref(), out);
        }
        let end_of_rib = update.end_of_rib;
        self.ingest.update(update, self.link);
        self.ingest.flush_full(out);
        if let Some(family) = end_of_rib.filter(|family| self.in_use(*family)) {
            self.ingest.mark(RouteChange::EndOfRib, family);
            self.ingest.flush(out);
            self.settle_stale(family, out);
            out.push(Output::EndOfRib(family));
        }
    }

    /// A ROUTE-REFRESH; of a family that is not in use, or of an unknown subtype, it is ignored (R2).
    #[inline(never)]
    pub(super) fn refresh(&mut self, now: Instant, refresh: RouteRefresh, out: &mut Outbox<Output>) {
        let family = refresh.family();
        if !self.in_use(family) {
            return;
        }
        match refresh.subtype {
            RouteRefresh::REQUEST => {
                let mark = self.flow.as_mut().and_then(|flow| flow.requested(family));
                self.mark(now, mark, out);
            }
            RouteRefresh::BEGIN if self.enhanced_refresh() => {
                self.ingest.mark(RouteChange::RefreshBegin, family);
                self.set_refreshing(family, true);
                self.timers.set(Timer::refresh(family), now + STALE_PATHS);
            }
            RouteRefresh::END => self.end_refresh(family, out),
            _ => {}
        }
    }

    /// EoRR, or its time is up; without BoRR it means nothing (R3).
    pub(super) fn end_refresh(&mut self, family: Family, out: &mut Outbox<Output>) {
        self.timers.clear(Timer::refresh(family));
        if self.refreshing.has(family) {
            self.set_refreshing(family, false);
            self.ingest.mark(RouteChange::RefreshEnd, family);
            self.ingest.flush(out);
        }
    }

    /// The wait for a restarted peer's table is over: what it did not say again goes.
    #[inline(never)]
    pub(super) fn settle_stale(&mut self, family: Family, out: &mut Outbox<Output>) {
        if self.helper.settle(family, &mut self.timers) {
            out.push(Output::SweepStale(family));
        }
    }

    /// Soft reset in: asks the peer for its table, where it can be asked.
    #[inline(never)]
    pub(super) fn request_refresh(&mut self, now: Instant, family: Family, out: &mut Outbox<Output>) {
        if self.in_use(family) && self.session_mut().and_then(|open| open.settled()).is_some_and(|settled| settled.refresh) {
            self.say_refresh(now, family, RouteRefresh::REQUEST, out);
        }
    }

    /// A shard's answer to a `Pull`.
    pub(super) fn frames(
        &mut self,
        now: Instant,
        connection: ConnectionId,
        shard: ShardId,
        frames: Vec<Bytes>,
        ended: &[Family],
        out: &mut Outbox<Output>,
    ) {
        let Some(flow) = self.flow.as_mut().filter(|flow| flow.connection() == connection) else { return };
        let marks = flow.answered(shard, ended);
        let Some(open) = self.session_mut() else { return };
        for frame in frames {
            open.line.send(now, frame, out);
        }
        self.mark(now, marks, out);
        // Where something was written, `Written` will report room.
        if self.session_mut().is_some_and(|open| open.line.waiting == 0) {
            self.pull(out);
        }
    }

    /// Asks the shards for frames, if there is room.
    pub(super) fn pull(&mut self, out: &mut Outbox<Output>) {
        let waiting = self.session_mut().map(|open| open.line.waiting);
        if let (Some(waiting), Some(flow)) = (waiting, self.flow.as_mut()) {
            flow.pull(waiting).into_iter().for_each(|(shard, credit)| out.push(Output::Pull { shard, credit }));
        }
    }

    /// Q3.
    pub(super) fn check_limits(&mut self, now: Instant, out: &mut Outbox<Output>) {
        if self.flow.is_none() {
            return;
        }
        let limits = self.config.max_prefixes;
        for alarm in self.counts.judge(limits) {
            match alarm {
                Alarm::Warn(family, received) => out.push(Output::Event(Event::PrefixLimit { family, received, limit: limits.limit })),
                Alarm::Stop(family) => {
                    self.part(now, &Parting::Notify(Refusal::maximum_prefixes(family, limits.limit)), out);
                    let until = if let MaxPrefixAction::Restart(after) = limits.action { Some(now + after) } else { None };
                    return self.trip(Trip::Prefixes, until, out);
                }
            }
        }
    }

    fn mark(&mut self, now: Instant, marks: impl IntoIterator<Item = Mark>, out: &mut Outbox<Output>) {
        for mark in marks {
            match mark {
                Mark::EndOfRib(family) => {
                    self.say(now, &Message::Update(Update::end_of_rib(family)), out);
                }
                Mark::RefreshBegins(family) => {
                    if self.enhanced_refresh() {
                        self.say_refresh(now, family, RouteRefresh::BEGIN, out);
                    }
                    out.push(Output::RefreshRequested(family));
                }
                Mark::RefreshEnds(family) => {
                    if self.enhanced_refresh() {
                        self.say_refresh(now, family, RouteRefresh::END, out);
                    }
                }
            }
        }
    }

    #[inline(never)]
    fn say_refresh(&mut self, now: Instant, family: Family, subtype: u8, out: &mut Outbox<Output>) {
        self.say(now, &Message::RouteRefresh(RouteRefresh::new(family, subtype)), out);
    }

    #[inline(never)]
    fn say(&mut self, now: Instant, message: &Message, out: &mut Outbox<Output>) {
        if let Some(open) = self.session_mut()
            && let Some(settled) = open.settled().cloned()
        {
            open.line.say(now, message, &settled.context, out);
        }
    }

    fn set_refreshing(&mut self, family: Family, on: bool) {
        if let Some(refreshing) = self.refreshing.of_mut(family) {
            *refreshing = on;
        }
    }

    fn in_use(&mut self, family: Family) -> bool {
        self.session_mut().and_then(|open| open.settled()).is_some_and(|settled| settled.context.families.has(family))
    }

    fn enhanced_refresh(&mut self) -> bool {
        self.session_mut().and_then(|open| open.settled()).is_some_and(|settled| settled.enhanced_refresh)
    }

    /// U25: one event for an UPDATE with faults, at most ten a second (Q13).
    #[inline(never)]
    fn tell_faults(&mut self, now: Instant, update: &Update, octets: Option<&Bytes>, out: &mut Outbox<Output>) {
        self.faulty_updates += 1;
        let Some(suppressed) = self.fault_log.admit(now) else { return };
        let mut words: Vec<String> = update.faults.iter().map(|fault| format!("{} ({:?})", fault.what, fault.action)).collect();
        if suppressed > 0 {
            words.push(format!("{suppressed} more UPDATEs with faults were not told"));
        }
        out.push(Output::Event(Event::Fault {
            text: words.join("; "),
            message: octets.map_or(String::new(), |octets| codec::evidence(octets)),
        }));
    }
}
