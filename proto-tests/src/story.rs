//! Two Peer machines joined by a modelled TCP, in virtual time: a test reads as a story.
//!
//! ```text
//! let mut pair = Pair::new(42, |_, _| {});
//! pair.start();
//! pair.run(Duration::from_secs(10));
//! assert_eq!(pair.states(), [State::Established; 2]);
//! ```
//!
//! The link keeps each direction of a connection in order and delays it at random, by the seed. Each end's shards are
//! one list of frames: an initial table is complete when they have been told. A crashed end comes back without
//! memory; its old connections answer with a reset, as a kernel does.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use margay::config::{AddPath, PeerConfig};
use margay::policy::Policy;
use margay::session::{Event, Input, Output, Peer, Settings, State};
use margay::types::{Asn, ConnectionId, Family, Outbox, PeerId, PerFamily, RouterId, ShardId};

/// A small generator whose whole state is a number (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let a = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let b = (a ^ (a >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        b ^ (b >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound.max(1)
    }
}

/// A seed that was probably never tried.
pub fn fresh_seed() -> u64 {
    std::hash::RandomState::new().build_hasher().finish() >> 16
}

/// The configuration of a session between two nodes of AS 64512, as the node at `us` sees it.
pub fn config(us: [u8; 4], peer: [u8; 4]) -> PeerConfig {
    let accept = Arc::new(Policy::accept());
    PeerConfig {
        asked_by: "BGPPeer story".to_owned(),
        local_address: Some(IpAddr::from(us)),
        hold_time: 90,
        add_path: AddPath::Off,
        import: PerFamily { ipv4: accept.clone(), ipv6: accept.clone() },
        export: PerFamily { ipv4: accept.clone(), ipv6: accept },
        ..PeerConfig::new(
            format!("Node_{}_{}_{}_{}", peer[0], peer[1], peer[2], peer[3]),
            (Asn(64512), RouterId(us.into())),
            (peer.into(), Asn(64512)),
        )
    }
}

/// One end of the story.
#[derive(Debug)]
pub struct End {
    /// The machine.
    pub peer: Peer,
    /// All that it said, with the time since the beginning; bytes and pulls apart.
    pub log: Vec<(Duration, Output)>,
    /// Frames that its shard will tell with the next answers.
    pub frames: VecDeque<Bytes>,
    config: Arc<PeerConfig>,
    settings: Settings,
    address: IpAddr,
    session: Option<ConnectionId>,
    walks: Vec<Family>,
    credit: Option<usize>,
    lives: u32,
}

impl End {
    /// Times at which the session came up.
    pub fn ups(&self) -> Vec<Duration> {
        self.log.iter().filter(|(_, output)| matches!(output, Output::Up(_))).map(|(at, _)| *at).collect()
    }

    /// What it kept each time the session went down.
    pub fn downs(&self) -> Vec<PerFamily<bool>> {
        self.log
            .iter()
            .filter_map(|(_, output)| match output {
                Output::Down { keep, .. } => Some(*keep),
                _ => None,
            })
            .collect()
    }

    /// Families whose stale paths were swept, with the time.
    pub fn sweeps(&self) -> Vec<(Duration, Family)> {
        self.log
            .iter()
            .filter_map(|(at, output)| match output {
                Output::SweepStale(family) => Some((*at, *family)),
                _ => None,
            })
            .collect()
    }

    /// Families whose stale paths became long-lived, with the time.
    pub fn long_lived(&self) -> Vec<(Duration, Family)> {
        self.log
            .iter()
            .filter_map(|(at, output)| match output {
                Output::LongLived(family) => Some((*at, *family)),
                _ => None,
            })
            .collect()
    }

    /// Reasons for ends, as `code/subcode`.
    pub fn reasons(&self) -> Vec<(u8, u8)> {
        self.log
            .iter()
            .filter_map(|(_, output)| match output {
                Output::Event(Event::Down(reason) | Event::Superseded(reason)) => Some((reason.code, reason.subcode)),
                _ => None,
            })
            .collect()
    }
}

/// What is under way on the link.
#[derive(Clone, Debug)]
enum Parcel {
    /// A connect arrives.
    Syn { from: ConnectionId },
    /// The answer to one.
    SynAck { to: ConnectionId },
    /// The third word: the listener hands the connection over.
    Ack { from: ConnectionId },
    /// Nobody listens, or the connection is unknown.
    Refused { to: ConnectionId },
    /// Octets.
    Data { on: usize, bytes: Bytes },
    /// The other end closed.
    Fin { on: usize },
    /// The connection is not known at the other end.
    Reset { on: usize },
}

/// A TCP connection: its number at each end while that end holds it, with the life of the process it belongs to.
#[derive(Clone, Debug)]
struct Tcp {
    ends: [Option<(ConnectionId, u32)>; 2],
    /// Latest arrival in each direction: later parcels do not overtake.
    latest: [Duration; 2],
}

/// Two peers and the link between them.
#[derive(Debug)]
pub struct Pair {
    /// The two ends.
    pub ends: [End; 2],
    /// Nothing gets through while this is set: what is sent is lost.
    pub blackhole: bool,
    /// Everything is printed, for whoever reads a failing story.
    pub trace: bool,
    /// The process of this end is away: connects are refused.
    pub absent: [bool; 2],
    /// The shards of this end never say that the initial table is complete: no End-of-RIB.
    pub mute: [bool; 2],
    /// Octets of each segment at most; none delivers each write whole.
    pub segment: Option<usize>,
    dice: Dice,
    origin: Instant,
    now: Duration,
    queue: BTreeMap<(Duration, u64), (usize, Parcel)>,
    sequence: u64,
    connections: Vec<Tcp>,
    /// Half-open connects: where the SYN came from, and how the accepted end is called.
    pending: BTreeMap<(usize, ConnectionId), usize>,
}

impl Pair {
    /// Two nodes, 10.0.0.1 and 10.0.0.2, with their configurations changed as told.
    pub fn new(seed: u64, change: impl FnOnce(&mut PeerConfig, &mut PeerConfig)) -> Self {
        let addresses = [[10, 0, 0, 1], [10, 0, 0, 2]];
        let mut configs = [config(addresses[0], addresses[1]), config(addresses[1], addresses[0])];
        let [first, second] = &mut configs;
        change(first, second);
        let end = |index: usize| {
            let config = Arc::new(configs[index].clone());
            let settings = Settings { seed: seed.wrapping_mul(2).wrapping_add(index as u64), shards: 1, ..Settings::default() };
            End {
                peer: Peer::new(PeerId(1), config.clone(), settings),
                log: Vec::new(),
                frames: VecDeque::new(),
                config,
                settings,
                address: addresses[index].into(),
                session: None,
                walks: Vec::new(),
                credit: None,
                lives: 0,
            }
        };
        Self {
            ends: [end(0), end(1)],
            blackhole: false,
            trace: false,
            absent: [false; 2],
            mute: [false; 2],
            segment: None,
            dice: Dice(seed),
            origin: Instant::now(),
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            sequence: 0,
            connections: Vec::new(),
            pending: BTreeMap::new(),
        }
    }

    /// Time since the beginning.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Both states.
    pub fn states(&self) -> [State; 2] {
        [self.ends[0].peer.state(), self.ends[1].peer.state()]
    }

    /// Starts both at the same instant.
    pub fn start(&mut self) {
        self.tell(0, Input::Start);
        self.tell(1, Input::Start);
    }

    /// Hands an input to one end.
    pub fn tell(&mut self, end: usize, input: Input) {
        let mut out = Outbox::new();
        let now = self.origin + self.now;
        self.print(end, '<', &input);
        self.ends[end].peer.handle(now, input, &mut out);
        self.carry_out(end, out);
    }

    /// Lets the session come up, or fails.
    pub fn establish(&mut self) {
        self.start();
        self.run(Duration::from_secs(30));
        assert_eq!(self.states(), [State::Established; 2], "{:?}", self.ends.each_ref().map(End::reasons));
    }

    /// Lets time pass.
    pub fn run(&mut self, duration: Duration) {
        let until = self.now + duration;
        while self.step(until) {}
        self.now = until;
    }

    /// Lets the next thing happen, if it happens until then.
    fn step(&mut self, until: Duration) -> bool {
        let arrival = self.queue.keys().next().copied();
        let deadline = (0..2).filter_map(|end| Some((self.ends[end].peer.deadline()?.saturating_duration_since(self.origin), end))).min();
        match (arrival, deadline) {
            // Bytes before timers, as the runtime does (F4).
            (Some(key), deadline) if key.0 <= until && deadline.is_none_or(|(at, _)| key.0 <= at) => {
                self.now = self.now.max(key.0);
                if let Some((end, parcel)) = self.queue.remove(&key) {
                    self.arrive(end, parcel);
                }
                true
            }
            (_, Some((at, end))) if at <= until => {
                self.now = self.now.max(at);
                let mut out = Outbox::new();
                self.ends[end].peer.on_deadline(self.origin + self.now, &mut out);
                self.carry_out(end, out);
                true
            }
            _ => false,
        }
    }

    /// One end's process dies without a word and is there again at once, restarting (R), with or without the routes
    /// of its past life in the kernel (F).
    pub fn crash(&mut self, end: usize, forwarding: bool) {
        let one = &mut self.ends[end];
        one.lives += 1;
        one.settings.seed = one.settings.seed.wrapping_add(1_000_003);
        one.settings.restarting = true;
        one.settings.forwarding = PerFamily { ipv4: forwarding, ipv6: forwarding };
        one.peer = Peer::new(PeerId(1), one.config.clone(), one.settings);
        (one.session, one.credit) = (None, None);
        one.walks.clear();
        self.pending.retain(|(at, _), _| *at != end);
    }

    /// One end's process dies; its kernel closes the connections. It is away until [`Pair::revive`].
    pub fn kill(&mut self, end: usize) {
        for on in 0..self.connections.len() {
            if self.holder(end, on).is_some() {
                self.connections[on].ends[end] = None;
                self.send(end, on, Parcel::Fin { on });
            }
        }
        self.absent[end] = true;
        self.crash(end, true);
    }

    /// A killed process is there again.
    pub fn revive(&mut self, end: usize) {
        self.absent[end] = false;
        self.tell(end, Input::Start);
    }

    /// Every connection breaks; both ends hear of it.
    pub fn cut(&mut self) {
        for on in 0..self.connections.len() {
            for end in 0..2 {
                self.send(1 - end, on, Parcel::Reset { on });
            }
        }
    }

    fn carry_out(&mut self, end: usize, mut out: Outbox<Output>) {
        let outputs: Vec<Output> = out.drain().collect();
        for output in outputs {
            self.print(end, '>', &output);
            match output {
                Output::Connect { connection } => self.post(1 - end, Parcel::Syn { from: connection }),
                Output::Send { connection, bytes } => self.write(end, connection, bytes),
                Output::Close { connection, .. } => self.close(end, connection),
                Output::Pull { credit, .. } => {
                    self.ends[end].credit = Some(credit);
                    self.answer(end);
                }
                other => {
                    self.note(end, &other);
                    self.ends[end].log.push((self.now, other));
                }
            }
        }
    }

    fn print(&self, end: usize, way: char, what: &dyn std::fmt::Debug) {
        if self.trace {
            let text: String = format!("{what:?}").chars().take(200).collect();
            println!("{:>12.6} {end} {way} {text}", self.now.as_secs_f64());
        }
    }

    fn note(&mut self, end: usize, output: &Output) {
        let one = &mut self.ends[end];
        match output {
            Output::Up(facts) => {
                one.session = Some(facts.connection);
                one.walks = facts.context.families.iter().filter(|(_, on)| **on).map(|(family, _)| family).collect();
            }
            Output::Down { .. } => (one.session, one.credit) = (None, None),
            Output::RefreshRequested(family) => {
                one.walks.push(*family);
                self.answer(end);
            }
            _ => {}
        }
    }

    /// The shard answers a pull: frames up to the credit, and the ends of its walks.
    fn answer(&mut self, end: usize) {
        let one = &mut self.ends[end];
        let (Some(connection), Some(credit)) = (one.session, one.credit) else { return };
        let mut frames = Vec::new();
        let mut room = credit;
        while let Some(frame) = one.frames.front().filter(|frame| frame.len() <= room) {
            room -= frame.len();
            frames.push(frame.clone());
            one.frames.pop_front();
        }
        let ended = if one.frames.is_empty() && !self.mute[end] { std::mem::take(&mut one.walks) } else { Vec::new() };
        if frames.is_empty() && ended.is_empty() {
            return;
        }
        one.credit = None;
        self.tell(end, Input::Frames { connection, shard: ShardId(0), frames, ended });
    }

    /// More frames for one end to tell.
    pub fn feed(&mut self, end: usize, frames: impl IntoIterator<Item = Bytes>) {
        self.ends[end].frames.extend(frames);
        self.answer(end);
    }

    fn write(&mut self, end: usize, connection: ConnectionId, bytes: Bytes) {
        if let Some(on) = self.tcp(end, connection) {
            let size = self.segment.unwrap_or(usize::MAX).max(1);
            let mut rest = bytes;
            while !rest.is_empty() {
                let part = rest.split_to(size.min(rest.len()));
                self.send(end, on, Parcel::Data { on, bytes: part });
            }
            if !self.blackhole {
                self.tell(end, Input::Written { connection, waiting: 0 });
            }
        }
    }

    fn close(&mut self, end: usize, connection: ConnectionId) {
        match self.tcp(end, connection) {
            Some(on) => {
                self.connections[on].ends[end] = None;
                self.send(end, on, Parcel::Fin { on });
            }
            None => drop(self.pending.remove(&(end, connection))),
        }
    }

    fn tcp(&self, end: usize, connection: ConnectionId) -> Option<usize> {
        let name = Some((connection, self.ends[end].lives));
        self.connections.iter().position(|tcp| tcp.ends[end] == name)
    }

    /// Puts a parcel of a connection on the way, behind the earlier ones.
    fn send(&mut self, from: usize, on: usize, parcel: Parcel) {
        let at = (self.now + self.delay()).max(self.connections[on].latest[from]);
        self.connections[on].latest[from] = at;
        self.put(at, 1 - from, parcel);
    }

    fn post(&mut self, to: usize, parcel: Parcel) {
        let at = self.now + self.delay();
        self.put(at, to, parcel);
    }

    fn put(&mut self, at: Duration, to: usize, parcel: Parcel) {
        if !self.blackhole {
            self.sequence += 1;
            self.queue.insert((at, self.sequence), (to, parcel));
        }
    }

    fn delay(&mut self) -> Duration {
        Duration::from_micros(100 + self.dice.below(20_000))
    }

    fn arrive(&mut self, end: usize, parcel: Parcel) {
        match parcel {
            Parcel::Syn { from } if self.absent[end] => self.post(1 - end, Parcel::Refused { to: from }),
            Parcel::Syn { from } => {
                let on = self.connections.len();
                self.connections.push(Tcp { ends: [None, None], latest: [self.now; 2] });
                self.pending.insert((1 - end, from), on);
                self.post(1 - end, Parcel::SynAck { to: from });
            }
            Parcel::SynAck { to } => {
                let Some(on) = self.pending.get(&(end, to)).copied() else { return };
                self.connections[on].ends[end] = Some((to, self.ends[end].lives));
                self.send(end, on, Parcel::Ack { from: to });
                self.connected(end, to, true);
            }
            Parcel::Ack { from } => {
                let Some(on) = self.pending.remove(&(1 - end, from)) else { return };
                let connection = self.ends[end].peer.allocate();
                self.connections[on].ends[end] = Some((connection, self.ends[end].lives));
                self.connected(end, connection, false);
            }
            Parcel::Refused { to } => self.tell(end, Input::ConnectFailed { connection: to, error: "connection refused".to_owned() }),
            Parcel::Data { on, bytes } => match self.holder(end, on) {
                Some(connection) => self.tell(end, Input::Received { connection, bytes }),
                None => self.send(end, on, Parcel::Reset { on }),
            },
            Parcel::Fin { on } => self.lose(end, on, None),
            Parcel::Reset { on } => self.lose(end, on, Some("connection reset by peer".to_owned())),
        }
    }

    fn lose(&mut self, end: usize, on: usize, error: Option<String>) {
        if let Some(connection) = self.holder(end, on) {
            self.connections[on].ends[end] = None;
            self.tell(end, Input::Closed { connection, error });
        }
    }

    /// The number that a connection has at an end whose present life holds it.
    fn holder(&self, end: usize, on: usize) -> Option<ConnectionId> {
        let (connection, life) = self.connections[on].ends[end]?;
        (life == self.ends[end].lives).then_some(connection)
    }

    fn connected(&mut self, end: usize, connection: ConnectionId, outgoing: bool) {
        let at = |end: usize, port| SocketAddr::new(self.ends[end].address, port);
        let (local, remote) = if outgoing { (at(end, 40_000), at(1 - end, 179)) } else { (at(end, 179), at(1 - end, 40_000)) };
        self.tell(end, Input::Connected { connection, outgoing, local, remote, local_link: None });
    }
}
