//! One TCP connection's finite state machine (RFC 4271 section 8): one function per state, each answering all events.
//! Long because the table of states and events is one table.
//!
//! ```text
//! Idle ─Start→ Connect ─Up→ OpenSent ─OPEN→ OpenConfirm ─KEEPALIVE→ Established
//!                 ↕ ConnectRetry                                       (any end → Idle)
//!              Active ─Up→ OpenSent
//! ```
//!
//! The default arm from OpenSent on is the FSM error NOTIFICATION (RFC 6608). What concerns the peer as a whole (the
//! other connection, routes, the next attempt) is left to it as an [`Effect`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand_pcg::Pcg32;

use crate::config::PeerConfig;
use crate::types::{ConnectionId, Outbox};
use crate::wire::{Context, Message, Notification, Open, RouteRefresh, Update, cease};

use super::collision::{self, Phase, Rival, Speaker, Verdict};
use super::line::{Ends, Line};
use super::negotiate::{Advert, Negotiated, negotiate, our_open};
use super::refusal::Refusal;
use super::restart::{Cause, hardened};
use super::timer::{self, Timer, jitter};
use super::{DownReason, Handshake, Output, Party, SessionEnd, codec};

/// What happens to a connection.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// Begin to try; `after` a pause.
    Start {
        /// The pause before the first connect.
        after: Duration,
    },
    /// TCP is up.
    Up(Ends),
    /// The connect failed, or the connection is gone: FIN, RST, anything.
    Lost(Option<String>),
    /// A whole message came.
    Message(Message),
    /// What came is no message; what to answer, if anything (H4).
    Broken {
        /// The NOTIFICATION; none where the fault lies in a NOTIFICATION.
        answer: Option<Notification>,
        /// In words.
        text: String,
    },
    /// A timer of this connection.
    Due(Timer),
    /// It has to end.
    Stop(Parting),
}

/// How a connection is told to end.
#[derive(Clone, Debug)]
pub(super) enum Parting {
    /// With a NOTIFICATION, if its TCP is up.
    Notify(Refusal),
    /// The same, and as a hard reset where graceful restart would cover it (RFC 8538).
    NotifyHard(Refusal),
    /// With 6/10 (RFC 9384): BFD is down. Whether the peer's paths stay, and why in words.
    PathDown(bool, String),
    /// Without a word, because another connection of the peer takes its place.
    Replaced,
    /// Without a word, because this process will be back.
    ProcessRestart,
    /// Without a word, because the peer will know that others have taken our place.
    HandedOver,
}

/// What a connection asks of its peer.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    /// A connect failed; it will be tried again.
    Failed(String),
    /// The peer's OPEN is good: connections that only try are to stop.
    Confirmed,
    /// The other connection is to end.
    EndRival(Parting),
    /// The other connection is to give way, once it is clear that the peer agrees.
    DoubtRival,
    /// Routes may flow.
    Established(Arc<Negotiated>),
    /// An UPDATE of an Established session.
    Update(Update),
    /// A ROUTE-REFRESH of an Established session.
    Refresh(RouteRefresh),
    /// It is over.
    Ended(Ending),
}

/// The end of a connection whose TCP was up.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    /// Why, for what comes after.
    pub cause: Cause,
    /// Why, for people.
    pub reason: DownReason,
    /// Its state before.
    pub from: super::State,
    /// The OPEN that we had sent.
    pub ours: Option<Open>,
    /// What had been settled, if it was Established.
    pub session: Option<Arc<Negotiated>>,
    /// The NOTIFICATION, if there was one.
    pub last_word: LastWord,
}

/// The NOTIFICATION that ended a connection.
#[derive(Clone, Debug)]
pub(super) enum LastWord {
    /// There was none.
    None,
    /// We sent it.
    Sent(Notification),
    /// The peer did.
    Received(Notification),
}

impl Ending {
    /// For records of it.
    pub(super) fn as_end(&self) -> SessionEnd {
        match (&self.last_word, self.cause) {
            (LastWord::Sent(notification), _) => SessionEnd::NotificationSent(notification.encode()),
            (LastWord::Received(notification), _) => SessionEnd::NotificationReceived(notification.encode()),
            (LastWord::None, Cause::HandedOver) => SessionEnd::Deconfigured,
            (LastWord::None, _) if self.reason.by == Party::Transport => SessionEnd::Lost,
            (LastWord::None, _) => SessionEnd::Closed,
        }
    }
}

/// What the states need from around the connection.
pub(super) struct Scene<'a> {
    pub now: Instant,
    pub config: &'a PeerConfig,
    pub advert: &'a Advert,
    pub rival: Option<Rival>,
    pub rng: &'a mut Pcg32,
    pub numbers: &'a mut u32,
    pub out: &'a mut Outbox<Output>,
    pub effects: &'a mut Vec<Effect>,
}

/// The states, each with what is true only then.
#[derive(Debug, Default)]
pub(super) enum State {
    #[default]
    Idle,
    Connect,
    Active,
    OpenSent(OpenSent),
    OpenConfirm(OpenConfirm),
    Established(Established),
}

/// Our OPEN is out.
#[derive(Debug)]
pub(super) struct OpenSent {
    ours: Open,
}

/// Both OPENs are good.
#[derive(Debug)]
pub(super) struct OpenConfirm {
    settled: Arc<Negotiated>,
    /// The peer's KEEPALIVE has come, but a connection that would be preferred may still prove itself.
    heard: bool,
}

/// Routes flow.
#[derive(Debug)]
pub(super) struct Established {
    settled: Arc<Negotiated>,
    since: Instant,
}

/// One connection: its line and its state.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) line: Line,
    pub(super) state: State,
}

impl Connection {
    /// The connection that we open, again and again.
    pub(super) fn outgoing() -> Self {
        Self { line: Line::new(ConnectionId(0), true), state: State::Idle }
    }

    /// A connection that the peer opened.
    pub(super) fn incoming(id: ConnectionId) -> Self {
        Self { line: Line::new(id, false), state: State::Active }
    }

    /// The state's name.
    pub(super) fn name(&self) -> super::State {
        match self.state {
            State::Idle => super::State::Idle,
            State::Connect => super::State::Connect,
            State::Active => super::State::Active,
            State::OpenSent(_) => super::State::OpenSent,
            State::OpenConfirm(_) => super::State::OpenConfirm,
            State::Established(_) => super::State::Established,
        }
    }

    /// What has been settled with the peer, from OpenConfirm on.
    pub(super) fn settled(&self) -> Option<&Arc<Negotiated>> {
        match &self.state {
            State::OpenConfirm(OpenConfirm { settled, .. }) | State::Established(Established { settled, .. }) => Some(settled),
            _ => None,
        }
    }

    /// Takes over what a new configuration changes about reading, on a session that stays.
    pub(super) fn reload(&mut self, config: &PeerConfig) {
        if let State::OpenConfirm(OpenConfirm { settled, .. }) | State::Established(Established { settled, .. }) = &mut self.state
            && (settled.context.discard, settled.context.allow_as_set) != (config.discard_attributes, config.as_path.allow_sets)
        {
            let context = &mut Arc::make_mut(settled).context;
            (context.discard, context.allow_as_set) = (config.discard_attributes, config.as_path.allow_sets);
        }
    }

    /// This connection as the other one sees it.
    pub(super) fn as_rival(&self, now: Instant) -> Option<Rival> {
        let phase = match &self.state {
            State::Idle => return None,
            State::Connect | State::Active => Phase::Trying,
            State::OpenSent(_) => Phase::OpenSent,
            State::OpenConfirm(_) => Phase::OpenConfirm,
            State::Established(established) => Phase::Established {
                graceful: established.settled.graceful_restart.is_some(),
                young: now.saturating_duration_since(established.since) < timer::YOUTH,
            },
        };
        Some(Rival { outgoing: self.line.outgoing, phase })
    }

    /// Takes the next message off the input, as far as this state reads it.
    pub(super) fn next_event(&mut self) -> Option<(Event, Option<Bytes>)> {
        match &self.state {
            State::Idle | State::Connect | State::Active => None,
            State::OpenSent(_) => {
                let next = codec::next(&mut self.line.input, &Context::default(), false);
                if let Some((Event::Message(Message::Open(_)), Some(octets))) = &next {
                    self.line.handshake.received = octets.clone();
                }
                next
            }
            State::OpenConfirm(OpenConfirm { settled, heard }) => codec::next(&mut self.line.input, &settled.context, *heard),
            State::Established(Established { settled, .. }) => codec::next(&mut self.line.input, &settled.context, true),
        }
    }

    /// Answers one event.
    pub(super) fn handle(&mut self, event: Event, scene: &mut Scene<'_>) {
        if let State::OpenConfirm(OpenConfirm { settled, heard: true }) = &self.state
            && matches!(event, Event::Message(Message::Update(_) | Message::RouteRefresh(_)))
        {
            // The peer is Established on this connection, whatever we think of the other one.
            self.state = establish(&mut self.line, settled.clone(), scene);
        }
        let line = &mut self.line;
        let next = match &mut self.state {
            State::Idle => idle(line, event, scene),
            State::Connect => connect(line, event, scene),
            State::Active => active(line, event, scene),
            State::OpenSent(state) => open_sent(state, line, event, scene),
            State::OpenConfirm(state) => open_confirm(state, line, event, scene),
            State::Established(state) => established(state, line, event, scene),
        };
        if let Some(next) = next {
            self.state = next;
        }
    }
}

/// Nothing is tried; everything but a start is ignored (RFC 4271 8.2.2).
#[inline(never)]
fn idle(line: &mut Line, event: Event, scene: &mut Scene<'_>) -> Option<State> {
    match event {
        Event::Start { after } if after.is_zero() && !scene.config.passive => Some(enter_connect(line, scene)),
        Event::Start { after } => Some(enter_active(line, after, scene)),
        _ => None,
    }
}

/// A connect is under way.
#[inline(never)]
fn connect(line: &mut Line, event: Event, scene: &mut Scene<'_>) -> Option<State> {
    match event {
        Event::Up(ends) => Some(enter_open_sent(line, ends, scene)),
        Event::Lost(error) => {
            scene.effects.push(Effect::Failed(error.unwrap_or_else(|| "the connection was closed".to_owned())));
            Some(retry(line, scene))
        }
        Event::Due(Timer::ConnectTimeout) => {
            line.close(false, scene.out);
            let seconds = timer::CONNECT_TIMEOUT.as_secs();
            scene.effects.push(Effect::Failed(format!("no answer to the TCP connect within {seconds} s")));
            Some(retry(line, scene))
        }
        Event::Stop(_) => {
            line.close(false, scene.out);
            line.reset();
            Some(State::Idle)
        }
        _ => None,
    }
}

/// Waiting for the next connect, or for the peer.
#[inline(never)]
fn active(line: &mut Line, event: Event, scene: &mut Scene<'_>) -> Option<State> {
    match event {
        Event::Due(Timer::ConnectRetry) => Some(enter_connect(line, scene)),
        Event::Up(ends) => Some(enter_open_sent(line, ends, scene)),
        Event::Stop(_) => {
            line.reset();
            Some(State::Idle)
        }
        _ => None,
    }
}

/// Waiting for the peer's OPEN.
#[inline(never)]
fn open_sent(state: &mut OpenSent, line: &mut Line, event: Event, scene: &mut Scene<'_>) -> Option<State> {
    let facts = Facts { from: super::State::OpenSent, ours: Some(state.ours.clone()), session: None };
    match event {
        Event::Message(Message::Open(theirs)) => match negotiate(scene.config, &state.ours, &theirs) {
            Ok(settled) => contest(facts, line, settled, scene),
            Err(refusal) => Some(facts.refuse(line, refusal, scene)),
        },
        Event::Message(Message::Notification(notification)) => Some(facts.notified(line, notification, scene)),
        Event::Broken { answer, text } => Some(facts.broken(line, answer, text, scene)),
        Event::Lost(error) => {
            facts.lost(line, error, scene);
            Some(if line.outgoing { retry(line, scene) } else { State::Idle })
        }
        Event::Due(Timer::Hold) => Some(facts.hold_expired(line, "no OPEN came in time", scene)),
        Event::Due(Timer::SendHold) => Some(facts.send_hold_expired(line, scene)),
        Event::Stop(parting) => Some(facts.part(line, parting, scene)),
        other => Some(facts.fsm_error(line, 1, &other, scene)),
    }
}

/// Waiting for the peer's KEEPALIVE.
#[inline(never)]
fn open_confirm(state: &mut OpenConfirm, line: &mut Line, event: Event, scene: &mut Scene<'_>) -> Option<State> {
    let facts = Facts { from: super::State::OpenConfirm, ours: Some(state.settled.ours.clone()), session: None };
    match event {
        Event::Message(Message::Keepalive) => {
            line.heard(scene.now, state.settled.hold());
            state.heard = true;
            if awaits_rival(line, &state.settled, scene) {
                line.doubt(scene.now);
                return None;
            }
            Some(establish(line, state.settled.clone(), scene))
        }
        Event::Due(Timer::Settle) if rival_confirmed(scene) && awaits_rival(line, &state.settled, scene) => {
            Some(facts.refuse(line, Refusal::collision(), scene))
        }
        Event::Due(Timer::Settle) => state.heard.then(|| establish(line, state.settled.clone(), scene)),
        Event::Message(Message::Notification(notification)) => Some(facts.notified(line, notification, scene)),
        Event::Broken { answer, text } => Some(facts.broken(line, answer, text, scene)),
        Event::Lost(error) => Some(facts.lost(line, error, scene)),
        Event::Due(Timer::Hold) if line.extends_hold(scene.now, state.settled.hold()) => None,
        Event::Due(Timer::Hold) => Some(facts.hold_expired(line, SILENT, scene)),
        Event::Due(Timer::Keepalive) => keepalive(line, &state.settled, scene),
        Event::Due(Timer::SendHold) => Some(facts.send_hold_expired(line, scene)),
        Event::Stop(parting) => Some(facts.part(line, parting, scene)),
        other => Some(facts.fsm_error(line, 2, &other, scene)),
    }
}

/// Routes flow.
fn established(state: &mut Established, line: &mut Line, event: Event, scene: &mut Scene<'_>) -> Option<State> {
    match event {
        Event::Message(Message::Update(update)) => {
            line.heard(scene.now, state.settled.hold());
            scene.effects.push(Effect::Update(update));
            None
        }
        Event::Message(Message::Keepalive) => {
            line.heard(scene.now, state.settled.hold());
            None
        }
        Event::Message(Message::RouteRefresh(refresh)) => {
            line.heard(scene.now, state.settled.hold());
            scene.effects.push(Effect::Refresh(refresh));
            None
        }
        _ => beside_routes(state, line, event, scene),
    }
}

/// Timers, and what ends the session.
#[inline(never)]
fn beside_routes(state: &mut Established, line: &mut Line, event: Event, scene: &mut Scene<'_>) -> Option<State> {
    let facts = Facts { from: super::State::Established, ours: None, session: Some(state.settled.clone()) };
    match event {
        Event::Message(Message::Notification(notification)) => Some(facts.notified(line, notification, scene)),
        Event::Broken { answer, text } => Some(facts.broken(line, answer, text, scene)),
        Event::Lost(error) => Some(facts.lost(line, error, scene)),
        Event::Due(Timer::Hold) if line.extends_hold(scene.now, state.settled.hold()) => None,
        Event::Due(Timer::Hold) => Some(facts.hold_expired(line, SILENT, scene)),
        Event::Due(Timer::Keepalive) => keepalive(line, &state.settled, scene),
        Event::Due(Timer::SendHold) => Some(facts.send_hold_expired(line, scene)),
        Event::Stop(parting) => Some(facts.part(line, parting, scene)),
        other => Some(facts.fsm_error(line, 3, &other, scene)),
    }
}

const SILENT: &str = "the peer was silent for the hold time";

/// Opens TCP.
fn enter_connect(line: &mut Line, scene: &mut Scene<'_>) -> State {
    line.reset();
    line.id = next_number(scene.numbers);
    line.timers.set(Timer::ConnectTimeout, scene.now + timer::CONNECT_TIMEOUT);
    scene.out.push(Output::Connect { connection: line.id });
    State::Connect
}

/// Numbers of a peer's connections, from 1.
pub(super) fn next_number(numbers: &mut u32) -> ConnectionId {
    *numbers = numbers.wrapping_add(1);
    ConnectionId(*numbers)
}

/// Waits for the peer and, unless passive, for the next connect.
fn enter_active(line: &mut Line, pause: Duration, scene: &mut Scene<'_>) -> State {
    line.reset();
    if !scene.config.passive {
        line.timers.set(Timer::ConnectRetry, scene.now + pause);
    }
    State::Active
}

/// Waits for the next connect as long as it is between connects; at first less long, for on a host that starts, our address
/// or the peer is often there a moment later.
fn retry(line: &mut Line, scene: &mut Scene<'_>) -> State {
    let soon = timer::FIRST_RETRY.saturating_mul(1 << line.failures.min(16));
    line.failures = line.failures.saturating_add(1);
    let pause = jitter(scene.rng, scene.config.connect_retry.min(soon));
    enter_active(line, pause, scene)
}

/// O1: our OPEN goes out at once.
fn enter_open_sent(line: &mut Line, ends: Ends, scene: &mut Scene<'_>) -> State {
    line.timers.clear_all();
    line.ends = Some(ends);
    line.opened(scene.now, if line.outgoing { timer::OPEN_HOLD_OUTGOING } else { timer::OPEN_HOLD_INCOMING });
    let ours = our_open(scene.config, scene.advert);
    line.handshake =
        Handshake { sent: ours.encode(), local_port: ends.local.port(), remote_port: ends.remote.port(), ..Handshake::default() };
    line.send(scene.now, line.handshake.sent.clone(), scene.out);
    State::OpenSent(OpenSent { ours })
}

/// F6…F8: a good OPEN has come; is this the connection that goes on?
fn contest(facts: Facts, line: &mut Line, settled: Negotiated, scene: &mut Scene<'_>) -> Option<State> {
    let (us, peer) = speakers(scene.config, &settled);
    match scene.rival.map(|rival| collision::judge(line.outgoing, rival, us, peer)) {
        None | Some(Verdict::KeepBoth | Verdict::DropOther) => {}
        Some(Verdict::CloseOtherLater) => scene.effects.push(Effect::DoubtRival),
        Some(Verdict::Restarted) => scene.effects.push(Effect::EndRival(Parting::Replaced)),
        Some(Verdict::CloseThis) => return Some(facts.refuse(line, Refusal::collision(), scene)),
    }
    Some(enter_open_confirm(line, settled, scene))
}

fn speakers(config: &PeerConfig, settled: &Negotiated) -> (Speaker, Speaker) {
    (Speaker { identifier: config.router_id, asn: config.local_asn }, Speaker { identifier: settled.identifier(), asn: config.remote_asn })
}

/// KEEPALIVE answers the OPEN; the negotiated Hold time counts from here. Without one the wait for the OPEN goes on
/// as the wait for the KEEPALIVE.
fn enter_open_confirm(line: &mut Line, settled: Negotiated, scene: &mut Scene<'_>) -> State {
    line.failures = 0;
    line.send_hold = timer::send_hold(scene.config.send_hold, settled.hold());
    line.say(scene.now, &Message::Keepalive, &settled.context, scene.out);
    if let Some(hold) = settled.hold() {
        line.heard(scene.now, Some(hold));
    }
    keepalive_later(line, &settled, scene);
    scene.effects.push(Effect::Confirmed);
    State::OpenConfirm(OpenConfirm { settled: Arc::new(settled), heard: false })
}

fn awaits_rival(line: &Line, settled: &Negotiated, scene: &Scene<'_>) -> bool {
    let (us, peer) = speakers(scene.config, settled);
    collision::awaits(line.outgoing, scene.rival, us, peer)
}

fn rival_confirmed(scene: &Scene<'_>) -> bool {
    scene.rival.is_some_and(|rival| rival.phase == Phase::OpenConfirm)
}

/// The session is up; a connection that has not come so far has lost.
#[inline(never)]
fn establish(line: &mut Line, settled: Arc<Negotiated>, scene: &mut Scene<'_>) -> State {
    line.timers.clear(Timer::Settle);
    if settled.hold_time == 0 {
        line.timers.clear(Timer::Hold);
    }
    if scene.rival.is_some_and(|rival| matches!(rival.phase, Phase::OpenSent | Phase::OpenConfirm)) {
        scene.effects.push(Effect::EndRival(Parting::Notify(Refusal::collision())));
    }
    scene.effects.push(Effect::Established(settled.clone()));
    State::Established(Established { settled, since: scene.now })
}

fn keepalive(line: &mut Line, settled: &Negotiated, scene: &mut Scene<'_>) -> Option<State> {
    line.say(scene.now, &Message::Keepalive, &settled.context, scene.out);
    keepalive_later(line, settled, scene);
    None
}

/// The next KEEPALIVE, with jitter but never less than a second away.
fn keepalive_later(line: &mut Line, settled: &Negotiated, scene: &mut Scene<'_>) {
    if let Some(interval) = settled.keepalive {
        let pause = jitter(scene.rng, interval).max(Duration::from_secs(1));
        line.timers.set(Timer::Keepalive, scene.now + pause);
    }
}

/// What an end of a connection tells of it.
struct Facts {
    from: super::State,
    ours: Option<Open>,
    session: Option<Arc<Negotiated>>,
}

impl Facts {
    /// We send a NOTIFICATION and read no more (H5).
    fn refuse(self, line: &mut Line, refusal: Refusal, scene: &mut Scene<'_>) -> State {
        let Refusal { notification, text } = refusal;
        let (code, subcode) = (notification.code, notification.subcode);
        let cause = if code == 4 { Cause::HoldExpired } else { Cause::Sent { code, subcode } };
        self.refuse_as(line, cause, notification, text, scene)
    }

    fn refuse_as(self, line: &mut Line, cause: Cause, notification: Notification, text: String, scene: &mut Scene<'_>) -> State {
        let reason = DownReason { by: Party::Us, code: notification.code, subcode: notification.subcode, text };
        line.say(scene.now, &Message::Notification(notification.clone()), &Context::default(), scene.out);
        self.end(line, true, cause, reason, LastWord::Sent(notification), scene)
    }

    fn notified(self, line: &mut Line, notification: Notification, scene: &mut Scene<'_>) -> State {
        let (code, subcode) = (notification.code, notification.subcode);
        let reason = DownReason { by: Party::Peer, code, subcode, text: notification.to_string() };
        self.end(line, false, Cause::Received { code, subcode }, reason, LastWord::Received(notification), scene)
    }

    /// H4: a broken NOTIFICATION is not answered.
    fn broken(self, line: &mut Line, answer: Option<Notification>, text: String, scene: &mut Scene<'_>) -> State {
        match answer {
            Some(notification) => self.refuse(line, Refusal { notification, text }, scene),
            None => {
                let reason = DownReason { by: Party::Us, code: 0, subcode: 0, text };
                self.end(line, false, Cause::Lost, reason, LastWord::None, scene)
            }
        }
    }

    fn lost(self, line: &mut Line, error: Option<String>, scene: &mut Scene<'_>) -> State {
        let text = error.unwrap_or_else(|| "the peer closed the connection".to_owned());
        let reason = DownReason { by: Party::Transport, code: 0, subcode: 0, text };
        self.end(line, false, Cause::Lost, reason, LastWord::None, scene)
    }

    fn hold_expired(self, line: &mut Line, text: &str, scene: &mut Scene<'_>) -> State {
        self.refuse(line, Refusal::new(4, 0, text), scene)
    }

    /// S2: 8/0 is tried once; the session ends as if TCP had been lost.
    fn send_hold_expired(self, line: &mut Line, scene: &mut Scene<'_>) -> State {
        let refusal = Refusal::new(8, 0, format!("the peer took no byte for {} s", line.send_hold.unwrap_or_default().as_secs()));
        self.refuse_as(line, Cause::Lost, refusal.notification, refusal.text, scene)
    }

    fn fsm_error(self, line: &mut Line, subcode: u8, event: &Event, scene: &mut Scene<'_>) -> State {
        let text = format!("{} came in state {:?}", name(event), self.from);
        self.refuse(line, Refusal::new(5, subcode, text), scene)
    }

    fn part(self, line: &mut Line, parting: Parting, scene: &mut Scene<'_>) -> State {
        let by_peer = DownReason { by: Party::Peer, code: 0, subcode: 0, text: "the peer opened a new connection".to_owned() };
        let by_us = DownReason { by: Party::Us, code: 0, subcode: 0, text: "this process restarts".to_owned() };
        match parting {
            Parting::Notify(Refusal { notification, text }) => {
                let both = self.session.as_ref().is_some_and(|session| session.notification_restart);
                self.refuse(line, Refusal { notification: hardened(notification, both), text }, scene)
            }
            Parting::NotifyHard(Refusal { notification, text }) => {
                let both = self.session.as_ref().is_some_and(|session| session.notification_restart);
                let notification = if both { notification.into_hard_reset() } else { notification };
                self.refuse(line, Refusal { notification, text }, scene)
            }
            Parting::PathDown(graceful, text) => {
                self.refuse_as(line, Cause::PathDown { graceful }, Notification::cease(cease::BFD_DOWN), text, scene)
            }
            Parting::Replaced => self.end(line, false, Cause::Replaced, by_peer, LastWord::None, scene),
            Parting::ProcessRestart => self.end(line, false, Cause::ProcessRestart, by_us, LastWord::None, scene),
            Parting::HandedOver => {
                let reason = DownReason { text: "no longer configured, and others have taken its place".to_owned(), ..by_us };
                self.end(line, false, Cause::HandedOver, reason, LastWord::None, scene)
            }
        }
    }

    fn end(self, line: &mut Line, linger: bool, cause: Cause, reason: DownReason, last_word: LastWord, scene: &mut Scene<'_>) -> State {
        line.close(linger, scene.out);
        line.reset();
        scene.effects.push(Effect::Ended(Ending { cause, reason, from: self.from, ours: self.ours, session: self.session, last_word }));
        State::Idle
    }
}

/// An event in words, for the FSM error.
fn name(event: &Event) -> &'static str {
    match event {
        Event::Message(Message::Open(_)) => "an OPEN",
        Event::Message(Message::Update(_)) => "an UPDATE",
        Event::Message(Message::Keepalive) => "a KEEPALIVE",
        Event::Message(Message::RouteRefresh(_)) => "a ROUTE-REFRESH",
        Event::Message(Message::Notification(_)) => "a NOTIFICATION",
        Event::Up(_) => "a second TCP connection",
        Event::Start { .. } => "a start",
        Event::Due(_) => "a timer that should not run",
        Event::Lost(_) | Event::Broken { .. } | Event::Stop(_) => "an end",
    }
}
