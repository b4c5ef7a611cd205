//! BFD machine (RFC 5880): is the path to a peer alive? Asynchronous mode, one hop (RFC 5881) and several (RFC 5883).
//!
//! ```text
//! configuration ─→ Bfd ─→ Send ─→ a UDP socket of each session ─→ the peer
//! UDP payload, TTL ─→ packet ─(B1: checks)→ session ─→ State ─→ the Peer machine: 6/10, or nothing (RFC 5882, 9384)
//! ```
//!
//! Supported: RFC 5880 without authentication, echo and demand mode (which are tolerated at the other end), 5881 with
//! its check of TTL 255, 5882 as far as BGP goes, 5883. Discriminators are random and new in each life (B5).
//!
//! What surprises in other speakers:
//! * BIRD's and FRR's iBGP sessions use port 4784 (several hops) even on one link, unless told otherwise; so
//!   `margay.io/bfd` takes the word `multihop`.
//! * FRR starts with an interval of 1 s and speeds up by Poll and Final like everybody; BIRD answers a poll with a packet of
//!   its own and sets P in it as well.
//! * BIRD whose BFD finds us dead closes every connection we make for its `error wait time`, 45 to 60 s unless it is told
//!   otherwise, even when BFD is up again after one; we read `the peer closed the connection` and try on. Its operator is to
//!   lower that time (`topologies/dual-tor-ecmp/tor1-bird.conf` does; a node that was frozen comes back there).
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod packet;
mod session;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rand_pcg::Pcg32;
use rand_pcg::rand_core::RngCore;
use serde::Serialize;

use crate::config::PeerConfig;
use crate::types::{Outbox, PeerId};
use packet::{Diagnostic, Dropped, LENGTH, Packet, State};
use session::Session;

/// UDP port of sessions over one hop (RFC 5881).
pub const SINGLE_HOP_PORT: u16 = 3784;
/// UDP port of sessions over several hops (RFC 5883).
pub const MULTIHOP_PORT: u16 = 4784;
/// TTL of packets over one hop, sent and required (RFC 5881 section 5).
pub const TTL: u8 = 255;

/// One session's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// The peer.
    pub remote: IpAddr,
    /// Our address.
    pub local: Option<IpAddr>,
    /// The interface of a link-local peer.
    pub interface: Option<u32>,
    /// Over several hops: another port, and no check of the TTL.
    pub multihop: bool,
    /// Desired interval between packets, both ways.
    pub interval: Duration,
    /// Packets that may be missed before the peer is taken for dead.
    pub multiplier: u8,
}

impl SessionConfig {
    /// What the configuration of a peer asks for; none where that is no BFD. `interface` is that of a link-local peer.
    pub fn of(config: &PeerConfig, interface: Option<u32>) -> Option<Self> {
        let bfd = config.bfd?;
        Some(Self {
            remote: config.address,
            local: config.local_address,
            interface,
            multihop: bfd.multihop,
            interval: bfd.interval,
            multiplier: bfd.multiplier,
        })
    }
}

/// What the Bfd machine hears.
#[derive(Clone, Debug)]
pub enum Input {
    /// A session is wanted, or wanted otherwise. Timers change in place, everything else makes a new session.
    Configure(PeerId, SessionConfig),
    /// A session is not wanted any more: the other end is told that this is no failure.
    Remove(PeerId),
    /// A UDP payload has come.
    Received {
        /// Where it comes from.
        remote: IpAddr,
        /// The interface that it came in by, for link-local addresses; 0 where that does not matter.
        interface: u32,
        /// It came to the port for several hops.
        multihop: bool,
        /// Its TTL or hop limit; none where the system did not tell.
        ttl: Option<u8>,
        /// The payload.
        payload: Vec<u8>,
    },
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this packet on the peer's session.
    Send(PeerId, [u8; LENGTH]),
    /// The session's state has changed, or what it means.
    State(PeerId, Report),
}

/// What a peer's session has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Our state.
    pub state: State,
    /// Why it went down last.
    pub diagnostic: Diagnostic,
    /// The other end has taken its session out of service: no failure.
    pub remote_is_off: bool,
    /// C: the other end's BFD does not share the fate of its control plane.
    pub independent: bool,
}

/// A session as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionStatus {
    /// Our state.
    pub state: State,
    /// The other end's.
    pub remote_state: State,
    /// Whole seconds in it.
    pub seconds_in_state: u64,
    /// Why we went down last.
    pub diagnostic: Diagnostic,
    /// Why the other end did.
    pub remote_diagnostic: Diagnostic,
    /// Over several hops (port 4784).
    pub multihop: bool,
    /// The pause between our packets before jitter.
    pub transmit_ms: u64,
    /// After so long without a packet the peer is taken for dead; none until one has come.
    pub detection_ms: Option<u64>,
    /// Our discriminator.
    pub local_discriminator: u32,
    /// The other end's, 0 where it is not known.
    pub remote_discriminator: u32,
    /// How often the session was lost when it was Up.
    pub flaps: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Bfd {
    sessions: BTreeMap<PeerId, Session>,
    rng: Pcg32,
    dropped: BTreeMap<Dropped, u64>,
}

impl Bfd {
    /// No sessions; discriminators and jitter come from the seed.
    pub fn new(seed: u64) -> Self {
        Self { sessions: BTreeMap::new(), rng: Pcg32::new(seed, 0xbfd), dropped: BTreeMap::new() }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Instant, input: Input, out: &mut Outbox<Output>) {
        match input {
            Input::Configure(peer, config) => self.configure(now, peer, config, out),
            Input::Remove(peer) => self.remove(now, peer, out),
            Input::Received { remote, interface, multihop, ttl, payload } => {
                if let Err(why) = self.received(now, (remote, interface, multihop, ttl), &payload, out) {
                    *self.dropped.entry(why).or_default() += 1;
                }
            }
        }
    }

    /// When [`Bfd::on_deadline`] is to be called next.
    pub fn deadline(&self) -> Option<Instant> {
        self.sessions.values().filter_map(Session::deadline).min()
    }

    /// Sends and detects what is due. Packets that can be read come first.
    pub fn on_deadline(&mut self, now: Instant, out: &mut Outbox<Output>) {
        for (peer, session) in &mut self.sessions {
            let step = session.on_deadline(now, &mut self.rng);
            say(*peer, step, out);
        }
    }

    /// A session as people see it.
    pub fn status(&self, now: Instant, peer: PeerId) -> Option<SessionStatus> {
        Some(self.sessions.get(&peer)?.status(now))
    }

    /// Packets that were dropped, by the reason.
    pub fn dropped(&self) -> &BTreeMap<Dropped, u64> {
        &self.dropped
    }

    /// Whether there is no session.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    fn configure(&mut self, now: Instant, peer: PeerId, config: SessionConfig, out: &mut Outbox<Output>) {
        let fixed = |config: &SessionConfig| (config.remote, config.local, config.interface, config.multihop);
        match self.sessions.get_mut(&peer) {
            Some(session) if session.config == config => {}
            Some(session) if fixed(&session.config) == fixed(&config) => session.configure(now, config),
            _ => {
                self.remove(now, peer, out);
                let discriminator = self.new_discriminator();
                let session = Session::new(now, config, discriminator);
                out.push(Output::State(peer, session.report()));
                self.sessions.insert(peer, session);
            }
        }
    }

    fn remove(&mut self, now: Instant, peer: PeerId, out: &mut Outbox<Output>) {
        if let Some(mut session) = self.sessions.remove(&peer) {
            out.push(Output::Send(peer, session.farewell(now).encode()));
            out.push(Output::State(peer, session.report()));
        }
    }

    /// Not 0, and of no other session.
    fn new_discriminator(&mut self) -> u32 {
        loop {
            let number = self.rng.next_u32();
            if number != 0 && self.sessions.values().all(|session| session.discriminator != number) {
                return number;
            }
        }
    }

    fn received(
        &mut self,
        now: Instant,
        (remote, interface, multihop, ttl): (IpAddr, u32, bool, Option<u8>),
        payload: &[u8],
        out: &mut Outbox<Output>,
    ) -> Result<(), Dropped> {
        if !multihop && ttl != Some(TTL) {
            return Err(Dropped::Ttl);
        }
        let packet = Packet::decode(payload)?;
        let fits = |session: &Session| {
            let config = &session.config;
            let link = config.interface.is_none_or(|wanted| wanted == interface);
            let named = packet.yours == 0 || packet.yours == session.discriminator;
            config.remote == remote && config.multihop == multihop && link && named
        };
        let (peer, session) = self.sessions.iter_mut().find(|(_, session)| fits(session)).ok_or(Dropped::NoSession)?;
        let step = session.received(now, &packet);
        say(*peer, step, out);
        Ok(())
    }
}

fn say(peer: PeerId, step: session::Step, out: &mut Outbox<Output>) {
    if let Some(report) = step.report {
        out.push(Output::State(peer, report));
    }
    if let Some(packet) = step.send {
        out.push(Output::Send(peer, packet.encode()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId(1);

    #[expect(clippy::disallowed_methods, reason = "any instant will do as the beginning")]
    pub(super) fn now() -> Instant {
        Instant::now()
    }

    pub(super) fn config() -> SessionConfig {
        SessionConfig {
            remote: [10, 0, 0, 2].into(),
            local: None,
            interface: None,
            multihop: false,
            interval: Duration::from_millis(50),
            multiplier: 3,
        }
    }

    /// A packet of a peer with the same settings.
    pub(super) fn packet(state: State, yours: u32) -> Packet {
        Packet {
            diagnostic: Diagnostic::NONE,
            state,
            poll: false,
            finish: false,
            independent: false,
            demand: false,
            multiplier: 3,
            mine: 99,
            yours,
            desired_transmit: Duration::from_millis(50),
            required_receive: Duration::from_millis(50),
            required_echo: Duration::ZERO,
        }
    }

    /// Two machines and a link in virtual time.
    struct Pair {
        ends: [Bfd; 2],
        start: Instant,
        now: Instant,
        /// Arrivals: when, a number to keep their order, at which end, and what.
        under_way: BTreeMap<(Instant, u64), (usize, [u8; LENGTH])>,
        sent: [u64; 2],
        latest: [Instant; 2],
        states: [Vec<(Duration, Report)>; 2],
        dice: Pcg32,
        /// Packets lost of a hundred.
        loss: u32,
        /// Nothing gets through from this end.
        dead: [bool; 2],
    }

    impl Pair {
        fn new(seed: u64, configs: [SessionConfig; 2]) -> Self {
            let start = now();
            let mut pair = Self {
                ends: [Bfd::new(seed), Bfd::new(seed + 1)],
                start,
                now: start,
                under_way: BTreeMap::new(),
                sent: [0; 2],
                latest: [start; 2],
                states: [Vec::new(), Vec::new()],
                dice: Pcg32::new(seed, 3),
                loss: 0,
                dead: [false; 2],
            };
            for (end, config) in configs.into_iter().enumerate() {
                pair.tell(end, Input::Configure(PEER, config));
            }
            pair
        }

        fn tell(&mut self, end: usize, input: Input) {
            let mut out = Outbox::new();
            self.ends[end].handle(self.now, input, &mut out);
            self.take(end, out);
        }

        fn take(&mut self, end: usize, mut out: Outbox<Output>) {
            for output in out.drain() {
                match output {
                    Output::State(_, report) => self.states[end].push((self.now - self.start, report)),
                    Output::Send(_, octets) => {
                        self.sent[end] += 1;
                        if !self.dead[end] && self.dice.next_u32() % 100 >= self.loss {
                            let delay = Duration::from_micros(100 + u64::from(self.dice.next_u32() % 2000));
                            // A link keeps the order: an old Down behind a new Up would take the session down.
                            let at = (self.now + delay).max(self.latest[end]);
                            self.latest[end] = at;
                            self.under_way.insert((at, self.sent[0] + self.sent[1]), (1 - end, octets));
                        }
                    }
                }
            }
        }

        fn run(&mut self, time: Duration) {
            let until = self.now + time;
            loop {
                let arrival = self.under_way.keys().next().map(|(at, _)| *at);
                let due = (0..2).filter_map(|end| Some((self.ends[end].deadline()?, end))).min();
                match (arrival, due) {
                    (Some(at), due) if at <= until && due.is_none_or(|(deadline, _)| at <= deadline) => {
                        self.now = at.max(self.now);
                        let Some((_, (end, octets))) = self.under_way.pop_first() else { continue };
                        let remote = [[10, 0, 0, 2], [10, 0, 0, 1]][end].into();
                        let payload = octets.to_vec();
                        self.tell(end, Input::Received { remote, interface: 2, multihop: false, ttl: Some(255), payload });
                    }
                    (_, Some((at, end))) if at <= until => {
                        self.now = at.max(self.now);
                        let mut out = Outbox::new();
                        self.ends[end].on_deadline(self.now, &mut out);
                        self.take(end, out);
                    }
                    _ => break,
                }
            }
            self.now = until;
        }

        fn state(&self, end: usize) -> SessionStatus {
            self.ends[end].status(self.now, PEER).unwrap()
        }

        fn is_up(&self) -> bool {
            (0..2).all(|end| self.state(end).state == State::Up)
        }
    }

    fn configs() -> [SessionConfig; 2] {
        [config(), SessionConfig { remote: [10, 0, 0, 1].into(), ..config() }]
    }

    #[test]
    fn two_ends_find_each_other_and_speed_up() {
        for seed in 0..200 {
            let mut pair = Pair::new(seed, configs());
            pair.run(Duration::from_secs(5));
            assert!(pair.is_up(), "seed {seed}: {:?}", pair.states);
            let before = pair.sent;
            pair.run(Duration::from_secs(10));
            let sent = [pair.sent[0] - before[0], pair.sent[1] - before[1]];
            // 50 ms with jitter of 75 to 100 %: 200 to 267 packets in ten seconds.
            assert!(sent.iter().all(|count| (200..=268).contains(count)), "seed {seed}: {sent:?}");
            assert_eq!((pair.state(0).transmit_ms, pair.state(0).detection_ms), (50, Some(150)));
            assert_eq!(pair.state(0).remote_discriminator, pair.state(1).local_discriminator);
        }
    }

    #[test]
    fn a_silent_end_is_dead_after_its_detection_time_and_back_when_it_speaks() {
        for seed in 0..100 {
            let mut pair = Pair::new(seed, configs());
            pair.run(Duration::from_secs(5));
            pair.dead[1] = true;
            let dead = pair.now - pair.start;
            pair.run(Duration::from_secs(1));
            let (at, report) = *pair.states[0].last().unwrap();
            assert_eq!((report.state, report.diagnostic), (State::Down, Diagnostic::TIME_EXPIRED), "seed {seed}");
            assert!(at - dead <= Duration::from_millis(155), "seed {seed}: {:?}", at - dead);
            // The dead end hears that it is thought dead.
            assert_eq!(pair.state(1).diagnostic, Diagnostic::NEIGHBOUR_DOWN, "seed {seed}");
            pair.dead[1] = false;
            pair.run(Duration::from_secs(5));
            assert!(pair.is_up() && pair.state(0).flaps == 1, "seed {seed}");
        }
    }

    #[test]
    fn three_packets_in_a_row_may_be_lost_but_hardly_ever_are() {
        let mut flaps = 0;
        for seed in 0..20 {
            let mut pair = Pair::new(seed, configs());
            pair.run(Duration::from_secs(5));
            pair.loss = 2;
            pair.run(Duration::from_secs(120));
            flaps += pair.state(0).flaps + pair.state(1).flaps;
            pair.loss = 0;
            pair.run(Duration::from_secs(5));
            assert!(pair.is_up(), "seed {seed}");
        }
        // 20 × 2 × 2400 packets at 2 %: three in a row are lost 0.8 times; each takes both ends down.
        assert!(flaps <= 8, "{flaps}");
    }

    #[test]
    fn the_slower_end_sets_the_pace_and_changes_keep_the_session() {
        let [fast, slow] = configs();
        let slow = SessionConfig { interval: Duration::from_millis(300), ..slow };
        let mut pair = Pair::new(3, [fast, slow]);
        pair.run(Duration::from_secs(5));
        assert_eq!((pair.state(0).transmit_ms, pair.state(0).detection_ms, pair.state(1).detection_ms), (300, Some(900), Some(900)));
        pair.tell(1, Input::Configure(PEER, SessionConfig { interval: Duration::from_millis(50), ..slow }));
        pair.run(Duration::from_secs(5));
        assert_eq!((pair.state(0).transmit_ms, pair.state(0).detection_ms), (50, Some(150)));
        pair.tell(0, Input::Configure(PEER, SessionConfig { interval: Duration::from_millis(500), ..fast }));
        pair.run(Duration::from_secs(5));
        assert_eq!((pair.state(1).detection_ms, pair.state(0).flaps, pair.state(1).flaps), (Some(1500), 0, 0));
        assert!(pair.is_up());
    }

    #[test]
    fn b3_a_session_that_is_taken_away_is_no_failure() {
        let mut pair = Pair::new(4, configs());
        pair.run(Duration::from_secs(5));
        pair.tell(0, Input::Remove(PEER));
        pair.run(Duration::from_secs(1));
        let (_, report) = *pair.states[1].last().unwrap();
        assert_eq!((report.state, report.remote_is_off), (State::Down, true));
        assert!(pair.ends[0].is_empty() && pair.ends[0].deadline().is_none());
    }

    #[test]
    fn b5_another_life_has_another_discriminator_and_comes_up_again() {
        let mut pair = Pair::new(5, configs());
        pair.run(Duration::from_secs(5));
        let before = pair.state(1).local_discriminator;
        pair.ends[1] = Bfd::new(77);
        pair.tell(1, Input::Configure(PEER, configs()[1]));
        pair.run(Duration::from_secs(6));
        assert!(pair.is_up() && pair.state(1).local_discriminator != before);
        assert_eq!(pair.state(0).flaps, 1);
    }

    #[test]
    fn b1_what_belongs_to_no_session() {
        let mut bfd = Bfd::new(1);
        let mut out = Outbox::new();
        bfd.handle(now(), Input::Configure(PEER, config()), &mut out);
        let mine = bfd.status(now(), PEER).unwrap().local_discriminator;
        let good: IpAddr = [10, 0, 0, 2].into();
        type Row = (&'static str, IpAddr, bool, Option<u8>, u32, Option<Dropped>);
        let rows: [Row; 7] = [
            ("a TTL of 254", good, false, Some(254), mine, Some(Dropped::Ttl)),
            ("no TTL known", good, false, None, mine, Some(Dropped::Ttl)),
            ("the other port", good, true, Some(255), mine, Some(Dropped::NoSession)),
            ("a stranger who knows our discriminator", [10, 0, 0, 3].into(), false, Some(255), mine, Some(Dropped::NoSession)),
            ("another discriminator", good, false, Some(255), mine ^ 1, Some(Dropped::NoSession)),
            ("no discriminator", good, false, Some(255), 0, None),
            ("ours", good, false, Some(255), mine, None),
        ];
        for (row, remote, multihop, ttl, yours, expected) in rows {
            let before = bfd.dropped().clone();
            let payload = packet(State::Down, yours).encode().to_vec();
            bfd.handle(now(), Input::Received { remote, interface: 2, multihop, ttl, payload }, &mut out);
            let counted = bfd.dropped().iter().find(|(why, count)| before.get(why) != Some(count)).map(|(why, _)| *why);
            assert_eq!(counted, expected, "{row}");
        }
    }
}
