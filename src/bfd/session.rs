//! One BFD session (RFC 5880 section 6): three-way handshake, timers agreed by Poll and Final, detection.

use std::time::{Duration, Instant};

use rand_pcg::Pcg32;
use rand_pcg::rand_core::RngCore;

use super::packet::{Diagnostic, Packet, State};
use super::{Report, SessionConfig, SessionStatus};

/// While a session is not Up packets go no faster than this (RFC 5880 section 6.8.3).
const SLOW: Duration = Duration::from_secs(1);

/// See the module. The names of the RFC's variables are said where they differ.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) config: SessionConfig,
    /// `bfd.LocalDiscr`.
    pub(super) discriminator: u32,
    state: State,
    since: Instant,
    diagnostic: Diagnostic,
    flaps: u64,
    /// What the other end said last.
    remote: Remote,
    /// `bfd.DesiredMinTxInterval` as it is told.
    desired_transmit: Duration,
    /// As it is used: slowed only when Final has come.
    transmit: Duration,
    /// `bfd.RequiredMinRxInterval` as it is used for detection: shortened only when Final has come.
    receive: Duration,
    polling: bool,
    send_at: Option<Instant>,
    detect_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Remote {
    /// `bfd.RemoteDiscr`, 0 where it is not known.
    discriminator: u32,
    state: State,
    diagnostic: Diagnostic,
    independent: bool,
    multiplier: u8,
    desired_transmit: Duration,
    /// `bfd.RemoteMinRxInterval`; none until it is known.
    required_receive: Option<Duration>,
}

/// What one step of a session asks for.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// A packet to send now.
    pub(super) send: Option<Packet>,
    /// The state is another one, or what it means is.
    pub(super) report: Option<Report>,
}

impl Session {
    /// A session that is Down and sends its first packet at once.
    pub(super) fn new(now: Instant, config: SessionConfig, discriminator: u32) -> Self {
        Self {
            discriminator,
            state: State::Down,
            since: now,
            diagnostic: Diagnostic::NONE,
            flaps: 0,
            remote: Remote::default(),
            desired_transmit: config.interval.max(SLOW),
            transmit: config.interval.max(SLOW),
            receive: config.interval,
            polling: false,
            send_at: Some(now),
            detect_at: None,
            config,
        }
    }

    /// The next deadline.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.send_at.into_iter().chain(self.detect_at).min()
    }

    /// The session as people see it.
    pub(super) fn status(&self, now: Instant) -> SessionStatus {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        SessionStatus {
            state: self.state,
            remote_state: self.remote.state,
            seconds_in_state: now.saturating_duration_since(self.since).as_secs(),
            diagnostic: self.diagnostic,
            remote_diagnostic: self.remote.diagnostic,
            multihop: self.config.multihop,
            transmit_ms: millis(self.interval()),
            detection_ms: self.detection().map(millis),
            local_discriminator: self.discriminator,
            remote_discriminator: self.remote.discriminator,
            flaps: self.flaps,
        }
    }

    /// Other timers, on a live session: they are agreed by a poll (B3).
    pub(super) fn configure(&mut self, now: Instant, config: SessionConfig) {
        self.config = config;
        if self.state == State::Up {
            self.begin_poll(config.interval);
        } else {
            (self.desired_transmit, self.receive) = (config.interval.max(SLOW), config.interval);
            self.transmit = self.desired_transmit;
        }
        self.send_at = Some(now);
    }

    /// A packet for this session has come (RFC 5880 section 6.8.6).
    pub(super) fn received(&mut self, now: Instant, packet: &Packet) -> Step {
        let before = (self.state, self.remote.state);
        self.remote = Remote {
            discriminator: packet.mine,
            state: packet.state,
            diagnostic: packet.diagnostic,
            independent: packet.independent,
            multiplier: packet.multiplier,
            desired_transmit: packet.desired_transmit,
            required_receive: Some(packet.required_receive),
        };
        if self.polling && packet.finish {
            self.polling = false;
            (self.transmit, self.receive) = (self.desired_transmit, self.config.interval);
        }
        self.follow(now, packet.state);
        self.detect_at = self.detection().map(|time| now + time);
        self.speed_up(now);
        let report = (before != (self.state, self.remote.state)).then(|| self.report());
        let send = packet.poll.then(|| Packet { poll: false, finish: true, ..self.packet() });
        Step { send, report }
    }

    /// The state table (B2).
    fn follow(&mut self, now: Instant, remote: State) {
        match (self.state, remote) {
            (State::AdminDown, _) | (State::Down, State::AdminDown | State::Up) => {}
            (State::Init | State::Up, State::AdminDown) | (State::Up, State::Down) => {
                self.enter(now, State::Down, Diagnostic::NEIGHBOUR_DOWN)
            }
            (State::Down, State::Down) => self.enter(now, State::Init, self.diagnostic),
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => self.enter(now, State::Up, Diagnostic::NONE),
            (State::Init, State::Down) | (State::Up, State::Init | State::Up) => {}
        }
    }

    fn enter(&mut self, now: Instant, state: State, diagnostic: Diagnostic) {
        self.flaps += u64::from(self.state == State::Up);
        (self.state, self.since, self.diagnostic) = (state, now, diagnostic);
        if state == State::Up {
            self.begin_poll(self.config.interval);
        } else {
            self.polling = false;
            self.desired_transmit = self.config.interval.max(SLOW);
            (self.transmit, self.receive) = (self.desired_transmit, self.config.interval);
        }
        // A change of state is told at once.
        self.send_at = Some(now);
    }

    /// New timers are told with P; faster is done at once, slower when the other end has answered.
    fn begin_poll(&mut self, interval: Duration) {
        self.polling = true;
        self.desired_transmit = interval;
        self.transmit = self.transmit.min(interval);
        self.receive = self.receive.max(interval);
    }

    /// The other end may want more packets now than when the next one was planned.
    fn speed_up(&mut self, now: Instant) {
        if let (Some(at), Some(interval)) = (self.send_at, self.sending()) {
            self.send_at = Some(at.min(now + interval));
        } else if self.send_at.is_none() {
            self.send_at = self.sending().map(|interval| now + interval);
        }
    }

    /// Does what is due.
    pub(super) fn on_deadline(&mut self, now: Instant, rng: &mut Pcg32) -> Step {
        let mut step = Step::default();
        if self.detect_at.is_some_and(|at| at <= now) {
            self.detect_at = None;
            self.remote.discriminator = 0;
            if matches!(self.state, State::Init | State::Up) {
                self.enter(now, State::Down, Diagnostic::TIME_EXPIRED);
                step.report = Some(self.report());
            }
        }
        if self.send_at.is_some_and(|at| at <= now) {
            self.send_at = self.sending().map(|interval| now + jitter(rng, interval, self.config.multiplier));
            step.send = Some(self.packet());
        }
        step
    }

    /// The last packet of a session that is taken away: not a failure (B3).
    pub(super) fn farewell(&mut self, now: Instant) -> Packet {
        self.enter(now, State::AdminDown, Diagnostic::ADMINISTRATIVE);
        self.packet()
    }

    fn packet(&self) -> Packet {
        Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: self.polling,
            finish: false,
            // B5: the process that ends takes BFD with it.
            independent: false,
            demand: false,
            multiplier: self.config.multiplier,
            mine: self.discriminator,
            yours: self.remote.discriminator,
            desired_transmit: self.desired_transmit,
            required_receive: self.config.interval,
            required_echo: Duration::ZERO,
        }
    }

    pub(super) fn report(&self) -> Report {
        Report {
            state: self.state,
            diagnostic: self.diagnostic,
            remote_is_off: self.remote.state == State::AdminDown,
            independent: self.remote.independent,
        }
    }

    /// The pause between packets before jitter; none while the other end wants none.
    fn sending(&self) -> Option<Duration> {
        (self.remote.required_receive != Some(Duration::ZERO)).then(|| self.interval())
    }

    fn interval(&self) -> Duration {
        self.transmit.max(self.remote.required_receive.unwrap_or_default())
    }

    /// After so long without a packet the other end is taken for dead (RFC 5880 section 6.8.4); none until something has come.
    fn detection(&self) -> Option<Duration> {
        let heard = self.remote.required_receive.is_some();
        heard.then(|| self.receive.max(self.remote.desired_transmit) * u32::from(self.remote.multiplier))
    }
}

/// 75 to 100 % of the interval at random, at most 90 % where one lost packet is one too many (RFC 5880 section 6.8.7).
fn jitter(rng: &mut Pcg32, interval: Duration, multiplier: u8) -> Duration {
    let range = if multiplier == 1 { 15 } else { 25 };
    interval * (750 + rng.next_u32() % (range * 10 + 1)) / 1000
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, now, packet};
    use super::*;

    /// B2 as a table: our state, what is heard, our state after and its diagnostic.
    #[test]
    fn b2_the_state_table() {
        use State::{AdminDown, Down, Init, Up};
        let keep = |state: State| if state == Up || state == Init { Diagnostic::NONE } else { Diagnostic::TIME_EXPIRED };
        let rows = [
            (Down, AdminDown, Down, keep(Down)),
            (Down, Down, Init, keep(Down)),
            (Down, Init, Up, Diagnostic::NONE),
            (Down, Up, Down, keep(Down)),
            (Init, AdminDown, Down, Diagnostic::NEIGHBOUR_DOWN),
            (Init, Down, Init, keep(Init)),
            (Init, Init, Up, Diagnostic::NONE),
            (Init, Up, Up, Diagnostic::NONE),
            (Up, AdminDown, Down, Diagnostic::NEIGHBOUR_DOWN),
            (Up, Down, Down, Diagnostic::NEIGHBOUR_DOWN),
            (Up, Init, Up, keep(Up)),
            (Up, Up, Up, keep(Up)),
            (AdminDown, Up, AdminDown, keep(AdminDown)),
            (AdminDown, Down, AdminDown, keep(AdminDown)),
        ];
        for (before, heard, after, diagnostic) in rows {
            let mut session = Session::new(now(), config(), 7);
            (session.state, session.diagnostic) = (before, keep(before));
            let step = session.received(now(), &packet(heard, 7));
            assert_eq!((session.state, session.diagnostic), (after, diagnostic), "{before:?} hears {heard:?}");
            if before != after {
                assert_eq!(step.report.map(|report| report.state), Some(after), "{before:?} hears {heard:?}");
            }
        }
    }

    #[test]
    fn b2_detection_is_theirs_times_the_slower_of_both() {
        for (ours, theirs, multiplier, expected) in [(50, 50, 3, 150), (50, 300, 3, 900), (300, 50, 5, 1500), (50, 1000, 1, 1000)] {
            let config = SessionConfig { interval: Duration::from_millis(ours), ..config() };
            let (start, mut session) = (now(), Session::new(now(), config, 7));
            let up = Packet { multiplier, desired_transmit: Duration::from_millis(theirs), ..packet(State::Init, 7) };
            session.received(start, &up);
            assert_eq!(session.state, State::Up);
            assert_eq!(session.detect_at, Some(start + Duration::from_millis(expected)));
            let mut rng = Pcg32::new(1, 1);
            assert!(session.on_deadline(start + Duration::from_millis(expected - 1), &mut rng).report.is_none());
            let report = session.on_deadline(start + Duration::from_millis(expected), &mut rng).report.unwrap();
            assert_eq!((report.state, report.diagnostic), (State::Down, Diagnostic::TIME_EXPIRED));
            assert_eq!(session.remote.discriminator, 0, "whoever comes next may be another life of it");
        }
    }

    #[test]
    fn b3_faster_at_once_slower_after_final() {
        let (start, mut session) = (now(), Session::new(now(), config(), 7));
        assert_eq!(session.interval(), SLOW, "not Up: no faster than once a second");
        session.received(start, &packet(State::Init, 7));
        assert!(session.packet().poll && session.interval() == config().interval, "Up: fast at once, told with P");
        session.received(start, &Packet { finish: true, ..packet(State::Up, 7) });
        assert!(!session.packet().poll);
        let slower = SessionConfig { interval: Duration::from_millis(400), ..config() };
        session.configure(start, slower);
        assert_eq!((session.interval(), session.packet().desired_transmit), (config().interval, slower.interval), "told, not done");
        assert!(session.packet().poll);
        session.received(start, &Packet { finish: true, ..packet(State::Up, 7) });
        assert_eq!(session.interval(), slower.interval);
        session.configure(start, config());
        assert_eq!((session.interval(), session.receive), (config().interval, slower.interval), "detection stays slow until Final");
    }

    #[test]
    fn b3_a_poll_is_answered_at_once_and_zero_stops_us() {
        let (start, mut session) = (now(), Session::new(now(), config(), 7));
        let answer = session.received(start, &Packet { poll: true, ..packet(State::Init, 7) }).send.unwrap();
        assert!(answer.finish && !answer.poll);
        session.received(start, &Packet { required_receive: Duration::ZERO, ..packet(State::Up, 7) });
        session.on_deadline(start + SLOW, &mut Pcg32::new(1, 1));
        assert_eq!(session.send_at, None, "the other end wants no packets");
    }

    #[test]
    fn b2_jitter() {
        let mut rng = Pcg32::new(7, 7);
        for (multiplier, most) in [(3, 100), (1, 90)] {
            let pauses: Vec<u128> = (0..1000).map(|_| jitter(&mut rng, Duration::from_millis(100), multiplier).as_micros()).collect();
            assert!(pauses.iter().all(|pause| (75_000..=most * 1000).contains(pause)));
            assert!(pauses.iter().any(|pause| *pause < 77_000) && pauses.iter().any(|pause| *pause > (most - 2) * 1000));
        }
    }
}
