//! The peer: start and stop, the next attempt, up to two connections at once.
//! Long because it is where all inputs of the machine arrive, for both connections.
//!
//! The connection that we open is always there, mostly idle; those that the peer opens come and go. Their state
//! machines are in [`super::connection`]; what they ask of the peer as a whole comes back as an [`Effect`]. What is
//! done while a session is Established is in [`super::established`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rand_pcg::Pcg32;

use crate::bfd;
use crate::config::{Authentication, PeerConfig};
use crate::types::{ConnectionId, Family, Outbox, PeerId, PerFamily};
use crate::wire::cease;

use super::collision::{Phase, Rival};
use super::connection::{Connection, Effect, Event, Parting, Scene, next_number};
use super::counts::Counts;
use super::flow::Flow;
use super::ingest::Ingest;
use super::line::Ends;
use super::negotiate::{Advert, Omitted};
use super::refusal::Refusal;
use super::restart::Helper;
use super::status::{Capabilities, CapabilitySet, LastError, PeerStatus};
use super::timer::{Backoff, Limiter, Timer, TimerTable, up_to};
use super::traffic::Traffic;
use super::{DownReason, Event as Word, Input, Output, Party, PrefixCounts, State, StopReason};

/// Incoming connections are taken no faster than this where speed would be abuse (F10, F12).
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// Pause after a stop that is none for good: new configuration comes right behind it.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// What a peer machine is told once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Seed of all jitter.
    pub seed: u64,
    /// Number of shards, at least 1.
    pub shards: u16,
    /// This process has restarted: R stands in OPENs until `RecoveryDone`.
    pub restarting: bool,
    /// F bits of the first session: the kernel holds routes of our past life in that family. After a first session F is set
    /// for its families, since kernel routes outlive a session.
    pub forwarding: PerFamily<bool>,
}

/// One configured peer.
#[derive(Debug)]
pub struct Peer {
    pub(super) id: PeerId,
    pub(super) config: Arc<PeerConfig>,
    pub(super) shards: u16,
    pub(super) timers: TimerTable,
    pub(super) helper: Helper,
    pub(super) ingest: Ingest,
    pub(super) flow: Option<Flow>,
    pub(super) counts: Counts,
    pub(super) flaps: u64,
    pub(super) faulty_updates: u64,
    traffic: Traffic,
    pub(super) evidence: Option<Bytes>,
    pub(super) fault_log: Limiter,
    /// Interface that link-local next hops of the session are on.
    pub(super) link: Option<u32>,
    /// Families between BoRR and EoRR of the peer.
    pub(super) refreshing: PerFamily<bool>,
    /// Down until `Start`.
    stopped: bool,
    /// What BFD said last.
    pub(super) bfd: Option<bfd::Report>,
    /// The last session ended because BFD was down: its return is worth an attempt at once.
    pub(super) path_lost: bool,
    /// Down because of what it said, until reset, new configuration, or its time.
    pub(super) tripped: Option<Trip>,
    /// No longer configured; what takes its place is awaited.
    pub(super) lingering: bool,
    /// A stop is under way: nothing plans the next attempt.
    pub(super) stopping: bool,
    pub(super) outgoing: Connection,
    pub(super) incoming: Vec<Connection>,
    numbers: u32,
    pub(super) rng: Pcg32,
    pub(super) advert: Advert,
    pub(super) backoff: Backoff,
    pub(super) collided: bool,
    last_accept: Option<Instant>,
    state: State,
    since: Option<Instant>,
    last_error: Option<LastError>,
    effects: Vec<Effect>,
}

/// One of the peer's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The one that we open.
    Outgoing,
    /// One that the peer opened.
    Incoming(ConnectionId),
}

/// What a peer said too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trip {
    /// More paths than its limit allows (Q3).
    Prefixes,
    /// The process is at its ceiling of memory (Q2).
    Memory,
}

impl Peer {
    /// A peer that waits for `Start`.
    pub fn new(id: PeerId, config: Arc<PeerConfig>, settings: Settings) -> Self {
        let shards = settings.shards.max(1);
        Self {
            id,
            config,
            shards,
            timers: TimerTable::default(),
            helper: Helper::default(),
            ingest: Ingest::new(id, shards),
            flow: None,
            counts: Counts::default(),
            flaps: 0,
            faulty_updates: 0,
            traffic: Traffic::default(),
            evidence: None,
            fault_log: Limiter::default(),
            link: None,
            refreshing: PerFamily::default(),
            stopped: true,
            bfd: None,
            path_lost: false,
            tripped: None,
            lingering: false,
            stopping: false,
            outgoing: Connection::outgoing(),
            incoming: Vec::new(),
            numbers: 0,
            rng: Pcg32::new(settings.seed, u64::from(id.0)),
            advert: Advert { restarting: settings.restarting, forwarding: settings.forwarding, omitted: Omitted::default() },
            backoff: Backoff::default(),
            collided: false,
            last_accept: None,
            state: State::Idle,
            since: None,
            last_error: None,
            effects: Vec::new(),
        }
    }

    /// A number for a connection that the peer opened, to be told with `Input::Connected`.
    pub fn allocate(&mut self) -> ConnectionId {
        next_number(&mut self.numbers)
    }

    /// The configuration in use.
    pub fn config(&self) -> &Arc<PeerConfig> {
        &self.config
    }

    /// The more advanced of the connections' states.
    pub fn state(&self) -> State {
        self.connections().map(Connection::name).max().unwrap_or_default()
    }

    /// Takes one input. Every connection that was asked for with `Connect`, or announced with `Connected`, gets
    /// exactly one `Close` in the end, unless its connect failed.
    pub fn handle(&mut self, now: Instant, input: Input, out: &mut Outbox<Output>) {
        let before = out.as_slice().len();
        match input {
            Input::Start => self.start(now, out),
            Input::Stop(reason) => self.stop(now, &reason, out),
            Input::Linger => self.linger(now, out),
            Input::Configure(config) => self.configure(now, config, out),
            Input::Connected { connection, outgoing, local, remote, local_link } => {
                let ends = Ends { local, remote, local_link };
                if outgoing { self.connected(now, connection, ends, out) } else { self.accept(now, connection, ends, out) }
            }
            Input::ConnectFailed { connection, error } => self.at(now, connection, Event::Lost(Some(error)), out),
            Input::Closed { connection, error } => self.at(now, connection, Event::Lost(error), out),
            Input::Received { connection, bytes } => self.received(now, connection, &bytes, out),
            Input::Written { connection, waiting } => self.written(now, connection, waiting, out),
            Input::Paused { connection, paused } => {
                if let Some(open) = self.place_of(connection).and_then(|place| self.connection_mut(place)) {
                    open.line.paused = paused;
                }
            }
            Input::Frames { connection, shard, frames, ended } => self.frames(now, connection, shard, frames, &ended, out),
            Input::Counts { shard, counts } => {
                self.counts.set(shard, counts);
                self.check_limits(now, out);
            }
            Input::RecoveryDone => self.advert.restarting = false,
            Input::LinkDown(what) => self.link_down(now, &what, out),
            Input::LinkUp => {
                if self.outgoing.line.timers.runs(Timer::ConnectRetry) {
                    self.outgoing.line.timers.clear(Timer::ConnectRetry);
                    self.step(now, Place::Outgoing, Event::Due(Timer::ConnectRetry), out);
                }
            }
            Input::Bfd(report) => self.path(now, report, out),
            Input::RequestRefresh(family) => self.request_refresh(now, family, out),
            Input::Resend(family) => {
                self.refresh(now, crate::wire::RouteRefresh::new(family, crate::wire::RouteRefresh::REQUEST), out);
            }
        }
        self.note_state(now, out);
        self.count_sent(&out.as_slice()[before..]);
    }

    /// When [`Peer::on_deadline`] is to be called next.
    pub fn deadline(&self) -> Option<Instant> {
        self.connections().filter_map(|open| open.line.timers.earliest()).chain(self.timers.earliest()).min()
    }

    /// Does what is due. Bytes that can be read come first (F4).
    pub fn on_deadline(&mut self, now: Instant, out: &mut Outbox<Output>) {
        let before = out.as_slice().len();
        while let Some(timer) = self.timers.pop(now) {
            self.due(now, timer, out);
        }
        while let Some((place, timer)) = self.pop(now) {
            self.step(now, place, Event::Due(timer), out);
        }
        self.note_state(now, out);
        self.count_sent(&out.as_slice()[before..]);
    }

    fn count_sent(&mut self, said: &[Output]) {
        for output in said {
            if let Output::Send { bytes, .. } = output {
                self.traffic.said(bytes);
            }
        }
    }

    /// Messages of all sessions so far.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// The peer as people see it.
    pub fn status(&self, now: Instant) -> PeerStatus {
        let front = self.connections().filter(|open| open.name() >= State::OpenSent).max_by_key(|open| open.name());
        let ends = front.and_then(|open| open.line.ends);
        let settled = front.and_then(Connection::settled);
        let since = self.since.unwrap_or(now);
        PeerStatus {
            name: self.config.name.clone(),
            state: self.state(),
            since,
            seconds_in_state: now.saturating_duration_since(since).as_secs(),
            held: self.held(),
            last_error: self.last_error.clone(),
            flaps: self.flaps,
            faulty_updates: self.faulty_updates,
            messages: self.traffic,
            hold_time: settled.map(|settled| settled.hold_time),
            keepalive_ms: settled.and_then(|settled| settled.keepalive).map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)),
            identifier: settled.map(|settled| settled.identifier()),
            local: ends.map(|ends| ends.local),
            remote: ends.map(|ends| ends.remote),
            outgoing: front.map(|open| open.line.outgoing),
            families_in_use: settled.map_or(Vec::new(), |settled| members(settled.context.families)),
            stale: members(self.helper.stale()),
            long_lived_stale: members(self.helper.long_lived()),
            capabilities: settled
                .map(|settled| Capabilities { local: CapabilitySet::of(&settled.ours), remote: CapabilitySet::of(&settled.theirs) }),
            families: self.prefix_counts(),
        }
    }

    /// Paths of the peer by family, over all shards. Nothing is advertised to a peer that is not Established.
    pub fn prefix_counts(&self) -> PerFamily<PrefixCounts> {
        let established = self.state() == State::Established;
        self.counts.total().map(|_, counts| PrefixCounts { advertised: if established { counts.advertised } else { 0 }, ..counts })
    }

    /// Why the peer is not allowed to run; none where it is.
    pub(super) fn held(&self) -> Option<String> {
        if self.stopped {
            return Some("stopped".to_owned());
        }
        if self.lingering {
            return Some("no longer configured; it lingers until others have taken its place".to_owned());
        }
        if let Some(trip) = self.tripped {
            let words = match (trip, self.timers.runs(Timer::Tripped)) {
                (Trip::Prefixes, true) => "too many prefixes: it starts again by itself after its time, or when the peer is reset",
                (Trip::Prefixes, false) => "too many prefixes: reset the peer, or raise its limit",
                (Trip::Memory, _) => {
                    "no memory was left for its paths: it starts again by itself after its time, or when the peer is reset; give margay more memory, \
                     or the peer a limit of prefixes"
                }
            };
            return Some(words.to_owned());
        }
        if self.awaits_bfd() {
            return Some("BFD is not up, and `strict` is asked for".to_owned());
        }
        match &self.config.authentication {
            Authentication::Missing(what) => Some(format!("its TCP-MD5 key is missing: {what}")),
            Authentication::None | Authentication::Md5(_) | Authentication::Ao(_) => None,
        }
    }

    /// The session goes on, attempts do not.
    #[inline(never)]
    fn linger(&mut self, now: Instant, out: &mut Outbox<Output>) {
        self.lingering = true;
        self.timers.clear(Timer::IdleHold);
        // A session that is not there yet has no paths that others could take over.
        if self.state() != State::Established {
            self.part(now, &Parting::Notify(Refusal::cease(cease::PEER_DECONFIGURED, "the peer is no longer configured")), out);
        }
    }

    #[inline(never)]
    fn start(&mut self, now: Instant, out: &mut Outbox<Output>) {
        if std::mem::take(&mut self.lingering) && !self.stopped && self.tripped.is_none() && self.state() == State::Idle {
            self.helper.wait(now, self.config.restart_time, &mut self.timers);
            self.begin(now, out);
        }
        if self.stopped || self.tripped.is_some() {
            self.stopped = false;
            self.tripped = None;
            self.timers.clear(Timer::Tripped);
            self.begin(now, out);
        }
    }

    #[inline(never)]
    fn stop(&mut self, now: Instant, reason: &StopReason, out: &mut Outbox<Output>) {
        let cease = |subcode, text: &str| Parting::Notify(Refusal::cease(subcode, text));
        let (parting, for_good) = match reason {
            StopReason::AdministrativeShutdown(text) => (Parting::Notify(Refusal::shutdown(text)), true),
            StopReason::AdministrativeReset(text) => (Parting::Notify(Refusal::reset(text)), false),
            StopReason::HardReset(text) => (Parting::NotifyHard(Refusal::reset(text)), false),
            StopReason::Deconfigured => (cease(cease::PEER_DECONFIGURED, "the peer is no longer configured"), true),
            StopReason::ConfigurationChange => (cease(cease::CONFIGURATION_CHANGE, "its configuration changed"), false),
            StopReason::ProcessRestart => (Parting::ProcessRestart, true),
            StopReason::OutOfResources { text, .. } => (cease(cease::OUT_OF_RESOURCES, text), false),
            StopReason::HandedOver if self.is_restartable() => (Parting::HandedOver, true),
            StopReason::HandedOver => (cease(cease::PEER_DECONFIGURED, "the peer is no longer configured"), true),
        };
        self.part(now, &parting, out);
        if for_good {
            self.stopped = true;
            if *reason != StopReason::ProcessRestart {
                self.give_up_stale(out);
            }
            return;
        }
        self.tripped = None;
        self.timers.clear(Timer::Tripped);
        if let StopReason::OutOfResources { after, .. } = reason
            && !self.stopped
        {
            return self.trip(Trip::Memory, Some(now + *after), out);
        }
        self.backoff.reset();
        if !self.stopped {
            self.begin_after(now, RESTART_PAUSE, out);
        }
    }

    /// The session has ended because of what the peer said: nothing of it stays, and it does not come back before `until`, if that is set.
    #[inline(never)]
    pub(super) fn trip(&mut self, trip: Trip, until: Option<Instant>, out: &mut Outbox<Output>) {
        self.tripped = Some(trip);
        self.give_up_stale(out);
        if let Some(until) = until {
            self.timers.set(Timer::Tripped, until);
        }
    }

    /// Whether the peer keeps our routes when TCP just closes.
    fn is_restartable(&mut self) -> bool {
        self.session_mut().and_then(|open| open.settled()).is_some_and(|settled| settled.graceful_restart.is_some())
    }

    /// Ends all connections.
    pub(super) fn part(&mut self, now: Instant, parting: &Parting, out: &mut Outbox<Output>) {
        self.stopping = true;
        self.timers.clear(Timer::IdleHold);
        for place in self.places() {
            self.step(now, place, Event::Stop(parting.clone()), out);
        }
        self.stopping = false;
    }

    #[inline(never)]
    fn configure(&mut self, now: Instant, config: Arc<PeerConfig>, out: &mut Outbox<Output>) {
        let old = std::mem::replace(&mut self.config, config);
        if old == self.config {
            return;
        }
        out.push(Output::Reload(Arc::clone(&self.config)));
        self.advert.omitted = Omitted::default();
        self.tripped = None;
        self.timers.clear(Timer::Tripped);
        for place in self.places() {
            let config = Arc::clone(&self.config);
            if let Some(open) = self.connection_mut(place) {
                open.reload(&config);
            }
        }
        let reads = |config: &PeerConfig| (config.discard_attributes, config.as_path.allow_sets);
        if reads(&old) != reads(&self.config) {
            // What the peer has said before is asked for again, where it can be.
            Family::ALL.into_iter().for_each(|family| self.request_refresh(now, family, out));
        }
        self.bfd = self.bfd.filter(|_| self.config.bfd.is_some());
        let another =
            old.address != self.config.address || old.remote_asn != self.config.remote_asn || old.local_asn != self.config.local_asn;
        if another {
            self.give_up_stale(out);
        }
        if self.stopped {
            return;
        }
        if let Some(why) = self.held() {
            let words = Refusal::cease(cease::CONFIGURATION_CHANGE, why);
            self.part(now, &Parting::Notify(words), out);
            self.say_held(now, out);
        } else if self.state() < State::OpenSent && (old.passive != self.config.passive || self.outgoing.name() == State::Idle) {
            self.part(now, &Parting::Replaced, out);
            self.begin(now, out);
        }
        self.check_limits(now, out);
    }

    /// Begins to try, or says why not.
    fn begin(&mut self, now: Instant, out: &mut Outbox<Output>) {
        self.begin_after(now, Duration::ZERO, out);
    }

    fn begin_after(&mut self, now: Instant, least: Duration, out: &mut Outbox<Output>) {
        if self.held().is_some() {
            self.say_held(now, out);
            return;
        }
        let after = up_to(&mut self.rng, self.config.connect_delay).max(least);
        self.step(now, Place::Outgoing, Event::Start { after }, out);
    }

    /// What held the peer has gone: no pause after an error, either.
    pub(super) fn resume(&mut self, now: Instant, out: &mut Outbox<Output>) {
        if self.held().is_none() && self.state() == State::Idle {
            self.timers.clear(Timer::IdleHold);
            self.begin(now, out);
        }
    }

    fn say_held(&mut self, now: Instant, out: &mut Outbox<Output>) {
        if let Some(text) = self.held() {
            self.remember(now, DownReason { by: Party::Us, code: 0, subcode: 0, text: format!("the session waits: {text}") }, out);
        }
    }

    pub(super) fn give_up_stale(&mut self, out: &mut Outbox<Output>) {
        for family in self.helper.give_up(&mut self.timers) {
            out.push(Output::SweepStale(family));
        }
    }

    #[inline(never)]
    fn connected(&mut self, now: Instant, connection: ConnectionId, ends: Ends, out: &mut Outbox<Output>) {
        if self.outgoing.line.id == connection && self.outgoing.name() == State::Connect {
            self.step(now, Place::Outgoing, Event::Up(ends), out);
        } else if self.place_of(connection).is_none() {
            out.push(Output::Close { connection, linger: false });
        }
    }

    /// A connection that the peer opened. Back-off delays only our own connects, but connections are not taken in a
    /// stream either (F10, F12).
    #[inline(never)]
    fn accept(&mut self, now: Instant, connection: ConnectionId, ends: Ends, out: &mut Outbox<Output>) {
        let soon = self.last_accept.is_some_and(|last| now.saturating_duration_since(last) < ACCEPT_PAUSE);
        let pending = self.incoming.iter().find(|open| open.name() < State::Established).map(|open| (open.line.id, open.name()));
        let refused = match pending {
            _ if self.held().is_some() => true,
            Some((_, State::OpenSent)) => soon,
            Some(_) => true,
            None => soon && self.timers.runs(Timer::IdleHold),
        };
        if refused || self.place_of(connection).is_some() {
            out.push(Output::Close { connection, linger: false });
            return;
        }
        self.last_accept = Some(now);
        // There is hardly ever a second one; `push` would make room for four.
        self.incoming.reserve_exact(1);
        self.incoming.push(Connection::incoming(connection));
        self.step(now, Place::Incoming(connection), Event::Up(ends), out);
        if let Some((older, _)) = pending {
            self.step(now, Place::Incoming(older), Event::Stop(Parting::Replaced), out);
        }
    }

    fn received(&mut self, now: Instant, connection: ConnectionId, bytes: &[u8], out: &mut Outbox<Output>) {
        let Some(place) = self.place_of(connection) else { return };
        if let Some(open) = self.connection_mut(place) {
            open.line.input.extend_from_slice(bytes);
        }
        // A connection that ends on the way reads no more (H5): it is gone, or has lost its input.
        while let Some((event, evidence)) = self.connection_mut(place).and_then(Connection::next_event) {
            self.evidence = evidence;
            if let Event::Message(message) = &event {
                self.traffic.heard(message);
            }
            self.step(now, place, event, out);
        }
        if let Some(open) = self.connection_mut(place) {
            open.line.alive = !open.line.input.is_empty();
            if !open.line.alive {
                // As large as the largest read; a peer that is silent needs none.
                open.line.input = BytesMut::new();
            }
        }
        self.ingest.flush(out);
    }

    /// F16: what has TCP is lost with the link; a connect that is under way finds out by itself.
    #[inline(never)]
    fn link_down(&mut self, now: Instant, what: &str, out: &mut Outbox<Output>) {
        for place in self.places() {
            if self.connection_mut(place).is_some_and(|open| open.name() >= State::OpenSent) {
                self.step(now, place, Event::Lost(Some(what.to_owned())), out);
            }
        }
    }

    fn written(&mut self, now: Instant, connection: ConnectionId, waiting: usize, out: &mut Outbox<Output>) {
        if let Some(open) = self.place_of(connection).and_then(|place| self.connection_mut(place)) {
            open.line.written(now, waiting);
            self.pull(out);
        }
    }

    /// Hands an event to the connection of this number, if it is still there.
    #[inline(never)]
    fn at(&mut self, now: Instant, connection: ConnectionId, event: Event, out: &mut Outbox<Output>) {
        if let Some(place) = self.place_of(connection) {
            self.step(now, place, event, out);
        }
    }

    /// One event of one connection, and all that follows.
    pub(super) fn step(&mut self, now: Instant, place: Place, event: Event, out: &mut Outbox<Output>) {
        let rival = self.rival_of(now, place).map(|(_, rival)| rival);
        let mut effects = std::mem::take(&mut self.effects);
        let connection = match place {
            Place::Outgoing => Some(&mut self.outgoing),
            Place::Incoming(id) => self.incoming.iter_mut().find(|open| open.line.id == id),
        };
        if let Some(connection) = connection {
            let mut scene = Scene {
                now,
                config: &self.config,
                advert: &self.advert,
                rival,
                rng: &mut self.rng,
                numbers: &mut self.numbers,
                out,
                effects: &mut effects,
            };
            connection.handle(event, &mut scene);
        }
        for effect in effects.drain(..) {
            self.apply(now, place, effect, out);
        }
        self.effects = effects;
        self.note_state(now, out);
    }

    fn apply(&mut self, now: Instant, place: Place, effect: Effect, out: &mut Outbox<Output>) {
        match effect {
            Effect::Update(update) => self.update(now, update, out),
            Effect::Refresh(refresh) => self.refresh(now, refresh, out),
            Effect::Failed(text) => self.remember(now, DownReason { by: Party::Transport, code: 0, subcode: 0, text }, out),
            Effect::Confirmed => self.stop_trying(now, place, out),
            Effect::EndRival(parting) => {
                if let Some((rival, _)) = self.rival_of(now, place) {
                    self.step(now, rival, Event::Stop(parting), out);
                }
            }
            Effect::DoubtRival => {
                if let Some(rival) = self.rival_of(now, place).and_then(|(rival, _)| self.connection_mut(rival)) {
                    rival.line.doubt(now);
                }
            }
            Effect::Established(settled) => {
                self.collided = false;
                if let Some(line) = self.connection_mut(place).map(|open| (open.line.id, open.line.ends, open.line.handshake.clone())) {
                    self.up(now, line, &settled, out);
                }
            }
            Effect::Ended(ending) => self.ended(now, place, &ending, out),
        }
    }

    /// F6: while another connection gets on, ours does not go on trying.
    #[inline(never)]
    fn stop_trying(&mut self, now: Instant, place: Place, out: &mut Outbox<Output>) {
        self.timers.clear(Timer::IdleHold);
        if place != Place::Outgoing && matches!(self.outgoing.name(), State::Connect | State::Active) {
            self.step(now, Place::Outgoing, Event::Stop(Parting::Replaced), out);
        }
    }

    #[inline(never)]
    fn due(&mut self, now: Instant, timer: Timer, out: &mut Outbox<Output>) {
        match timer {
            Timer::IdleHold => self.step(now, Place::Outgoing, Event::Start { after: Duration::ZERO }, out),
            Timer::Restart => self.restart_expired(now, out),
            Timer::Tripped => self.start(now, out),
            Timer::LongLivedIpv4 => self.settle_stale(Family::IPV4_UNICAST, out),
            Timer::LongLivedIpv6 => self.settle_stale(Family::IPV6_UNICAST, out),
            Timer::StaleIpv4 => self.settle_stale(Family::IPV4_UNICAST, out),
            Timer::StaleIpv6 => self.settle_stale(Family::IPV6_UNICAST, out),
            Timer::RefreshIpv4 => self.end_refresh(Family::IPV4_UNICAST, out),
            Timer::RefreshIpv6 => self.end_refresh(Family::IPV6_UNICAST, out),
            Timer::ConnectRetry | Timer::ConnectTimeout | Timer::Hold | Timer::Keepalive | Timer::SendHold | Timer::Settle => {}
        }
    }

    /// Why the last session or attempt ended: kept and told.
    #[inline(never)]
    pub(super) fn remember(&mut self, now: Instant, reason: DownReason, out: &mut Outbox<Output>) {
        self.last_error = Some(LastError { reason: reason.clone(), at: now });
        out.push(Output::Event(Word::Down(reason)));
    }

    fn note_state(&mut self, now: Instant, out: &mut Outbox<Output>) {
        let state = self.state();
        if state != self.state || self.since.is_none() {
            self.since = Some(now);
        }
        if state != self.state {
            let from = std::mem::replace(&mut self.state, state);
            out.push(Output::Event(Word::State { from, to: state }));
        }
    }

    pub(super) fn connections(&self) -> impl Iterator<Item = &Connection> {
        std::iter::once(&self.outgoing).chain(&self.incoming)
    }

    pub(super) fn places(&self) -> Vec<Place> {
        std::iter::once(Place::Outgoing).chain(self.incoming.iter().map(|open| Place::Incoming(open.line.id))).collect()
    }

    /// The connection of a number that has, or waits for, TCP.
    fn place_of(&self, connection: ConnectionId) -> Option<Place> {
        if self.outgoing.line.id == connection && !matches!(self.outgoing.name(), State::Idle | State::Active) {
            return Some(Place::Outgoing);
        }
        self.incoming.iter().find(|open| open.line.id == connection).map(|open| Place::Incoming(open.line.id))
    }

    pub(super) fn connection_mut(&mut self, place: Place) -> Option<&mut Connection> {
        match place {
            Place::Outgoing => Some(&mut self.outgoing),
            Place::Incoming(id) => self.incoming.iter_mut().find(|open| open.line.id == id),
        }
    }

    /// The Established connection.
    pub(super) fn session_mut(&mut self) -> Option<&mut Connection> {
        std::iter::once(&mut self.outgoing).chain(&mut self.incoming).find(|open| open.name() == State::Established)
    }

    /// The most advanced of the other connections.
    fn rival_of(&self, now: Instant, place: Place) -> Option<(Place, Rival)> {
        let rank = |rival: &Rival| match rival.phase {
            Phase::Trying => 0,
            Phase::OpenSent => 1,
            Phase::OpenConfirm => 2,
            Phase::Established { .. } => 3,
        };
        let incoming = self.incoming.iter().map(|open| (Place::Incoming(open.line.id), open));
        std::iter::once((Place::Outgoing, &self.outgoing))
            .chain(incoming)
            .filter(|(other, _)| *other != place)
            .filter_map(|(other, open)| Some((other, open.as_rival(now)?)))
            .max_by_key(|(_, rival)| rank(rival))
    }

    fn pop(&mut self, now: Instant) -> Option<(Place, Timer)> {
        self.places().into_iter().find_map(|place| Some((place, self.connection_mut(place)?.line.timers.pop(now)?)))
    }
}

fn members(set: PerFamily<bool>) -> Vec<Family> {
    set.iter().filter(|(_, on)| **on).map(|(family, _)| family).collect()
}

/// The interface that link-local next hops of a session are on.
pub(super) fn link_of(ends: &Ends) -> Option<u32> {
    let scope = match ends.remote {
        SocketAddr::V6(remote) if remote.scope_id() != 0 => Some(remote.scope_id()),
        _ => None,
    };
    ends.local_link.map(|(_, index)| index).or(scope)
}
