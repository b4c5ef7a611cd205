//! One margay: its machines, what has come and not been taken in yet, and one step of its core.
//! Long because every machine of a node is wired here, in one place. Wired by [`margay::node::wiring`], as the runtime and [`crate::sim::process`] are.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use margay::config::diff::diff;
use margay::config::{NodeConfig, PeerConfig};
use margay::fib::{KernelHop, KernelRoute, RouteKey, RouteType};
use margay::node::recovery::{self, Recovery};
use margay::node::wiring::{self, FromPeer, FromShard, SocketWord};
use margay::origin::{self, Origin};
use margay::rib::{self, RibConfig, Shard};
use margay::session::{self, MessageCounts, Peer, RouteBatch, RouteChange};
use margay::types::{ConnectionId, NlriList, Outbox, PeerId, PerFamily, ShardId};
use smallvec::{SmallVec, smallvec};

use super::bits::Bits;
use super::pace;
use super::plan::{self, block_of};
use super::tcp::TcpId;
use crate::sim::model_kernel::{MAIN, ModelKernel};

/// Things taken from the inbox in one step at most, as a shard takes messages into one round.
const BATCH: usize = 64;
/// Changes that the FIB has room for.
const FIB_CREDIT: usize = 4096;

/// What comes to a node.
#[derive(Debug)]
pub(super) enum Arrival {
    /// A connection that the peer asked for is open.
    Connected { peer: u32, connection: u32, tcp: TcpId },
    /// Somebody's connection is open.
    Accepted { peer: u32, tcp: TcpId },
    /// It came to nothing.
    Refused { peer: u32, connection: u32 },
    /// Octets.
    Octets { peer: u32, tcp: TcpId, octets: Bytes },
    /// The other end is gone.
    Closed { peer: u32, tcp: TcpId, broken: bool },
}

/// What a step wants of the network, and when in the step.
#[derive(Debug)]
pub(super) enum Word {
    /// Open a connection to the node at the other end of the session.
    Connect { peer: u32, connection: u32 },
    /// Write all of it at once.
    Send { tcp: TcpId, octets: SmallVec<[Bytes; 1]> },
    /// Close.
    Close { tcp: TcpId },
}

/// A session of a node.
#[derive(Debug)]
struct Session {
    machine: Peer,
    remote: u32,
    /// When its timer is appointed; the end of time if it is not.
    timer: u64,
    connections: SmallVec<[(u32, TcpId); 1]>,
    connecting: SmallVec<[u32; 1]>,
}

/// Where a node's paths go.
#[derive(Debug)]
enum Paths {
    /// Into its shard.
    Whole,
    /// Into a bit a session and prefix.
    Light(Vec<Bits>),
}

/// The machines of one life.
#[derive(Debug)]
struct Machines {
    sessions: Vec<Session>,
    /// Sessions by the node at their other end.
    by_remote: Vec<(u32, u32)>,
    shard: Shard,
    shard_in: Vec<rib::Input>,
    origin: Origin,
    recovery: Recovery,
    paths: Paths,
    /// Sessions that are Established.
    up: usize,
    timers: BinaryHeap<Reverse<(u64, u32)>>,
}

/// What a node has done and seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages sent, of all lives.
    pub messages: MessageCounts,
    /// Octets sent.
    pub octets: u64,
    /// End-of-RIBs received in this life.
    pub ends: u64,
    /// Sessions lost.
    pub losses: u64,
    /// Changes of blocks told to the FIB: routes to write.
    pub writes: u64,
    /// Time that its core worked.
    pub worked: Duration,
}

/// What all steps need.
pub(super) struct Scene<'a> {
    /// An instant that stands for zero.
    pub origin: Instant,
    /// What the step wants of the network, each with its time.
    pub words: &'a mut Vec<(u64, Word)>,
    /// Blocks that are known here now and were not, or not any more.
    pub news: &'a mut Vec<(usize, bool)>,
}

/// See the module.
#[derive(Debug)]
pub struct Node {
    /// Its number.
    pub number: u32,
    machines: Option<Machines>,
    inbox: VecDeque<Arrival>,
    /// When its core is free again.
    free_at: u64,
    /// Blocks that its Loc-RIB has told the FIB.
    pub known: Bits,
    /// What it has done.
    pub tally: Tally,
    /// Which life this is.
    pub life: u32,
    outbox: Outbox<session::Output>,
}

impl Node {
    /// A node whose margay does not run yet.
    pub fn new(number: u32, bound: usize) -> Self {
        Self {
            number,
            machines: None,
            inbox: VecDeque::new(),
            free_at: 0,
            known: Bits::below(bound),
            tally: Tally::default(),
            life: 0,
            outbox: Outbox::new(),
        }
    }

    /// Whether its margay runs.
    pub fn runs(&self) -> bool {
        self.machines.is_some()
    }

    /// How many sessions it is to have, and how many are Established.
    pub fn sessions(&self) -> (usize, usize) {
        self.machines.as_ref().map_or((0, 0), |machines| (machines.sessions.len(), machines.up))
    }

    /// The session with another node.
    pub fn session_with(&self, remote: u32) -> Option<u32> {
        let machines = self.machines.as_ref()?;
        let index = machines.by_remote.binary_search_by_key(&remote, |(remote, _)| *remote).ok()?;
        Some(machines.by_remote[index].1)
    }

    /// The node at the other end of a session.
    pub fn remote(&self, peer: u32) -> Option<u32> {
        Some(self.machines.as_ref()?.sessions.get(peer as usize)?.remote)
    }

    /// Whether a connect of a session is still wanted; forgets it.
    pub fn take_connecting(&mut self, peer: u32, connection: u32) -> bool {
        let session = self.machines.as_mut().and_then(|machines| machines.sessions.get_mut(peer as usize));
        let Some(session) = session else { return false };
        let before = session.connecting.len();
        session.connecting.retain(|open| *open != connection);
        session.connecting.len() < before
    }

    /// Messages that its sessions have sent, of this life.
    fn sent(&self) -> MessageCounts {
        let sessions = self.machines.iter().flat_map(|machines| &machines.sessions);
        sessions.fold(MessageCounts::default(), |sum, session| add(sum, session.machine.traffic().sent))
    }

    /// What it has done so far.
    pub fn total(&self) -> Tally {
        Tally { messages: add(self.tally.messages, self.sent()), ..self.tally }
    }

    /// Octets that the shard says it has reserved.
    pub fn rib_octets(&self) -> rib::Octets {
        self.machines.as_ref().map(|machines| machines.shard.octets()).unwrap_or_default()
    }

    /// How many prefixes, sets of attributes and groups the shard has.
    pub fn rib_stats(&self) -> rib::Stats {
        self.machines.as_ref().map(|machines| machines.shard.stats()).unwrap_or_default()
    }

    // ── lives ───────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Starts its margay, as `runtime::start_speaker` and `Speaker::start` do. A margay that `restarts` finds routes of a past life in its
    /// kernel.
    pub(super) fn start(&mut self, at: u64, config: NodeConfig, how: Start, scene: &mut Scene<'_>) {
        let seed = how.seed;
        let now = scene.origin + Duration::from_nanos(at);
        let rib_config: Arc<RibConfig> = Arc::new(wiring::rib_config(&config));
        let mut machines = Machines {
            sessions: Vec::with_capacity(config.peers.len()),
            by_remote: Vec::with_capacity(config.peers.len()),
            shard: Shard::new(ShardId(0), seed, rib_config),
            shard_in: Vec::new(),
            origin: Origin::new(),
            recovery: Recovery::new(how.restarts, config.keep_without_peers),
            paths: if how.whole { Paths::Whole } else { Paths::Light(vec![Bits::below(how.bound); config.peers.len()]) },
            up: 0,
            timers: BinaryHeap::new(),
        };
        let settings =
            session::Settings { seed, shards: 1, restarting: how.restarts, forwarding: PerFamily { ipv4: how.restarts, ipv6: false } };
        for ((peer, config), remote) in (0..).zip(config.peers.into_values()).zip(how.remotes) {
            let settings = session::Settings { seed: seed.wrapping_add(u64::from(peer)), ..settings };
            let machine = Peer::new(PeerId(peer), config, settings);
            let (connections, connecting) = (SmallVec::new(), SmallVec::new());
            machines.sessions.push(Session { machine, remote, timer: u64::MAX, connections, connecting });
            machines.by_remote.push((remote, peer));
        }
        machines.by_remote.sort_unstable();
        machines.hear_kernel(now, how.address, config.fib.protocol);
        machines.tell_origin(now, origin::Input::Configure(Arc::new(config.origin)));
        machines.shard_in.push(rib::Input::PullFib { credit: FIB_CREDIT });
        let peers: Vec<PeerId> = (0..machines.sessions.len() as u32).map(PeerId).collect();
        self.machines = Some(machines);
        self.known = Bits::below(how.bound);
        self.free_at = at;
        self.life += 1;
        let mut step = Step { node: self, scene, start: at, cost: Duration::ZERO };
        step.recover(recovery::Input::Start(peers.clone()));
        peers.into_iter().for_each(|peer| step.tell(peer.0, session::Input::Start));
    }

    /// Its process dies without a word; what it held of the network is the world's to close.
    pub fn die(&mut self) {
        self.tally = self.total();
        self.tally.ends = 0;
        self.machines = None;
        self.inbox.clear();
    }

    /// Takes a new configuration, as `Speaker::apply` does. No sessions come or go.
    pub(super) fn apply(&mut self, at: u64, old: &NodeConfig, new: &NodeConfig, scene: &mut Scene<'_>) {
        let start = at.max(self.free_at);
        let now = scene.origin + Duration::from_nanos(start);
        let changes = diff(Some(old), new);
        let words = wiring::from_config(&changes, new);
        let Some(machines) = &mut self.machines else { return };
        machines.shard_in.extend(words.shards);
        if let Some(input) = words.origin {
            machines.tell_origin(now, input);
        }
        let names: Vec<&String> = old.peers.keys().collect();
        let mut step = Step { node: self, scene, start, cost: Duration::ZERO };
        for (name, change) in &changes.peers {
            let (Ok(peer), Some(config)) = (names.binary_search(&name), new.peers.get(name)) else { continue };
            let words = wiring::from_peer_change(PeerId(peer as u32), change, config);
            words.peer.into_iter().for_each(|input| step.tell(peer as u32, input));
        }
        step.round();
        step.end();
    }

    /// Ends its margay, and weighs it meanwhile. `live` says how many octets are allocated.
    pub fn weigh(&mut self, live: fn() -> u64) -> Weight {
        let Some(Machines { sessions, shard, shard_in, .. }) = self.machines.take() else { return Weight::default() };
        let configs: Vec<Arc<PeerConfig>> = sessions.iter().map(|session| Arc::clone(session.machine.config())).collect();
        let whole = live();
        drop((shard, shard_in));
        let without_rib = live();
        drop(sessions);
        let without_sessions = live();
        drop(configs);
        let rest = live();
        Weight { rib: whole - without_rib, sessions: without_rib - without_sessions, configs: without_sessions - rest }
    }

    // ── steps ───────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Something has come.
    pub(super) fn hear(&mut self, arrival: Arrival) {
        if self.machines.is_some() {
            self.inbox.push_back(arrival);
        }
    }

    /// Whether anything waits to be done that is no timer.
    pub fn is_busy(&self) -> bool {
        !self.inbox.is_empty() || self.machines.as_ref().is_some_and(|machines| !machines.shard_in.is_empty())
    }

    /// When it wants its next step; none if it waits for others.
    pub fn next(&mut self, origin: Instant) -> Option<u64> {
        let machines = self.machines.as_ref()?;
        if self.is_busy() {
            return Some(self.free_at);
        }
        let since = |at: Instant| at.saturating_duration_since(origin).as_nanos() as u64;
        let others = [machines.shard.deadline(), machines.recovery.deadline()].into_iter().flatten().map(since);
        let timer = machines.timers.peek().map(|Reverse((at, _))| *at);
        others.chain(timer).min().map(|at| at.max(self.free_at))
    }

    /// Takes what has come, then timers that are due, then a round of the shard.
    pub(super) fn step(&mut self, at: u64, scene: &mut Scene<'_>) {
        let start = at.max(self.free_at);
        let mut step = Step { node: self, scene, start, cost: Duration::ZERO };
        step.take_in();
        step.timers();
        step.round();
        step.end();
    }
}

/// How a margay is started.
#[derive(Clone, Debug)]
pub(super) struct Start {
    /// Of all its dice.
    pub seed: u64,
    /// Its kernel holds the routes of a past life.
    pub restarts: bool,
    /// It keeps what it hears.
    pub whole: bool,
    /// Its address.
    pub address: Ipv4Addr,
    /// How many blocks there may be.
    pub bound: usize,
    /// The nodes at the other ends of its sessions, in the order of these.
    pub remotes: Vec<u32>,
}

/// Octets of memory that the allocator got back for a node's parts, its own overhead aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Its shard: tables, attributes, what groups have told.
    pub rib: u64,
    /// Its Peer machines.
    pub sessions: u64,
    /// Configurations of the sessions.
    pub configs: u64,
}

/// One step of a node.
struct Step<'a, 'b> {
    node: &'a mut Node,
    scene: &'a mut Scene<'b>,
    start: u64,
    cost: Duration,
}

impl Step<'_, '_> {
    fn now(&self) -> Instant {
        self.scene.origin + Duration::from_nanos(self.start)
    }

    /// The time that the work so far has taken it to.
    fn by_now(&self) -> u64 {
        self.start + self.cost.as_nanos() as u64
    }

    fn say(&mut self, word: Word) {
        let at = self.by_now();
        self.scene.words.push((at, word));
    }

    fn take_in(&mut self) {
        for _ in 0..BATCH {
            let Some(arrival) = self.node.inbox.pop_front() else { break };
            self.arrive(arrival);
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Connected { peer, connection, tcp } => {
                let Some(session) = self.session(peer) else { return };
                session.connections.push((connection, tcp));
                self.connected(peer, connection, true);
            }
            Arrival::Accepted { peer, tcp } => {
                let Some(session) = self.session(peer) else { return };
                let connection = session.machine.allocate().0;
                session.connections.push((connection, tcp));
                self.connected(peer, connection, false);
            }
            Arrival::Refused { peer, connection } => {
                let error = "connection refused".to_owned();
                self.tell(peer, session::Input::ConnectFailed { connection: ConnectionId(connection), error });
            }
            Arrival::Octets { peer, tcp, octets } => {
                self.cost += pace::SEGMENT + pace::octets(octets.len());
                let Some(connection) = self.session(peer).and_then(|session| session.connection(tcp)) else { return };
                self.tell(peer, session::Input::Received { connection: ConnectionId(connection), bytes: octets });
            }
            Arrival::Closed { peer, tcp, broken } => {
                let Some(session) = self.session(peer) else { return };
                let Some(connection) = session.connection(tcp) else { return };
                session.connections.retain(|(open, _)| *open != connection);
                let error = broken.then(|| "connection reset by peer".to_owned());
                self.tell(peer, session::Input::Closed { connection: ConnectionId(connection), error });
            }
        }
    }

    fn connected(&mut self, peer: u32, connection: u32, outgoing: bool) {
        let Some(session) = self.session(peer) else { return };
        let config: &PeerConfig = session.machine.config();
        let (ours, theirs) = (config.local_address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), config.address);
        let (local, remote) = if outgoing { (40_000, 179) } else { (179, 40_000) };
        let (local, remote) = (SocketAddr::new(ours, local), SocketAddr::new(theirs, remote));
        let connection = ConnectionId(connection);
        self.tell(peer, session::Input::Connected { connection, outgoing, local, remote, local_link: None });
    }

    fn session(&mut self, peer: u32) -> Option<&mut Session> {
        self.node.machines.as_mut()?.sessions.get_mut(peer as usize)
    }

    /// Hands an input to a peer, and does what it says.
    fn tell(&mut self, peer: u32, input: session::Input) {
        let now = self.now();
        let mut out = std::mem::take(&mut self.node.outbox);
        if let Some(session) = self.session(peer) {
            session.machine.handle(now, input, &mut out);
        }
        self.carry_out(peer, out);
    }

    fn timers(&mut self) {
        loop {
            let Some(machines) = &mut self.node.machines else { return };
            let Some(Reverse((at, peer))) = machines.timers.peek().copied().filter(|Reverse((at, _))| *at <= self.start) else { break };
            machines.timers.pop();
            let now = self.scene.origin + Duration::from_nanos(self.start);
            let session = &mut machines.sessions[peer as usize];
            if session.timer != at {
                continue;
            }
            session.timer = u64::MAX;
            let mut out = std::mem::take(&mut self.node.outbox);
            if session.machine.deadline().is_some_and(|due| due <= now) {
                session.machine.on_deadline(now, &mut out);
            }
            self.carry_out(peer, out);
        }
        let now = self.now();
        let due = self.node.machines.as_ref().is_some_and(|machines| machines.recovery.deadline().is_some_and(|due| due <= now));
        if due && let Some(machines) = &mut self.node.machines {
            let mut out = Outbox::new();
            machines.recovery.on_deadline(now, &mut out);
            self.recovered(!out.is_empty());
        }
    }

    /// What a peer has said; then the socket has taken all of it.
    fn carry_out(&mut self, peer: u32, mut out: Outbox<session::Output>) {
        let mut wrote: SmallVec<[u32; 2]> = SmallVec::new();
        loop {
            for output in out.drain() {
                match wiring::from_peer(PeerId(peer), output) {
                    FromPeer::Socket(word) => self.socket(peer, word, &mut wrote),
                    FromPeer::EveryShard(input) => self.shard_input(Some(input)),
                    FromPeer::OneShard(_, input) => self.routes(peer, input),
                    FromPeer::EveryShardAndRecovery(input, word) => {
                        self.up_or_down(peer, &input);
                        self.shard_input(Some(input));
                        self.recover(word);
                    }
                    FromPeer::Recovery(word) => {
                        self.node.tally.ends += u64::from(matches!(word, recovery::Input::EndOfRib(..)));
                        self.recover(word);
                    }
                    FromPeer::Told(_, word) => {
                        if let Some(word) = word {
                            self.recover(word);
                        }
                    }
                }
            }
            let Some(connection) = wrote.pop() else { break };
            let now = self.now();
            let Some(session) = self.session(peer) else { break };
            session.machine.handle(now, session::Input::Written { connection: ConnectionId(connection), waiting: 0 }, &mut out);
        }
        self.node.outbox = out;
        self.appoint(peer);
    }

    /// Puts the peer's next timer into the heap, if it comes sooner than what is there.
    fn appoint(&mut self, peer: u32) {
        let origin = self.scene.origin;
        let Some(machines) = &mut self.node.machines else { return };
        let session = &mut machines.sessions[peer as usize];
        let Some(due) = session.machine.deadline() else { return };
        let due = due.saturating_duration_since(origin).as_nanos() as u64;
        if due < session.timer {
            session.timer = due;
            machines.timers.push(Reverse((due, peer)));
        }
    }

    fn socket(&mut self, peer: u32, word: SocketWord, wrote: &mut SmallVec<[u32; 2]>) {
        match word {
            SocketWord::Connect(connection) => {
                if let Some(session) = self.session(peer) {
                    session.connecting.push(connection.0);
                }
                self.say(Word::Connect { peer, connection: connection.0 });
            }
            SocketWord::Send(connection, octets) => {
                let tcp = self.session(peer).and_then(|session| session.tcp(connection.0));
                let Some(tcp) = tcp else { return };
                self.cost += pace::octets(octets.len());
                self.node.tally.octets += octets.len() as u64;
                self.write(tcp, octets);
                if !wrote.contains(&connection.0) {
                    wrote.push(connection.0);
                }
            }
            SocketWord::Close(connection, _) => {
                let Some(session) = self.session(peer) else { return };
                session.connecting.retain(|open| *open != connection.0);
                let tcp = session.tcp(connection.0);
                session.connections.retain(|(open, _)| *open != connection.0);
                if let Some(tcp) = tcp {
                    self.say(Word::Close { tcp });
                }
            }
        }
    }

    /// What a step writes to one connection without a word in between goes out together.
    fn write(&mut self, tcp: TcpId, octets: Bytes) {
        if let Some((_, Word::Send { tcp: last, octets: before })) = self.scene.words.last_mut()
            && *last == tcp
        {
            return before.push(octets);
        }
        self.cost += pace::SEGMENT;
        self.say(Word::Send { tcp, octets: smallvec![octets] });
    }

    fn up_or_down(&mut self, peer: u32, input: &rib::Input) {
        let Some(machines) = &mut self.node.machines else { return };
        if matches!(input, rib::Input::PeerDown { .. }) {
            machines.up -= 1;
            self.node.tally.losses += 1;
        } else {
            machines.up += 1;
        }
        // A light node keeps no stale paths: what it knew of a session ends with it.
        self.forget(peer);
    }

    fn forget(&mut self, peer: u32) {
        let Some(Machines { paths: Paths::Light(bits), .. }) = &mut self.node.machines else { return };
        let gone: Vec<usize> = bits[peer as usize].iter().collect();
        for block in gone {
            bits[peer as usize].set(block, false);
            let known = bits.iter().any(|bits| bits.has(block));
            if !known && self.node.known.set(block, false) {
                self.scene.news.push((block, false));
            }
        }
    }

    fn shard_input(&mut self, input: Option<rib::Input>) {
        if let Some(machines) = &mut self.node.machines {
            machines.shard_in.extend(input);
        }
    }

    /// What a peer has told: to the shard, or into the bits.
    fn routes(&mut self, peer: u32, input: rib::Input) {
        let Some(machines) = &mut self.node.machines else { return };
        let (Paths::Light(bits), rib::Input::Routes(batch)) = (&mut machines.paths, &input) else {
            return machines.shard_in.push(input);
        };
        for (block, on) in told(batch) {
            self.cost += pace::PATH;
            if bits[peer as usize].set(block, on) {
                let known = on || bits.iter().any(|bits| bits.has(block));
                if self.node.known.set(block, known) {
                    self.scene.news.push((block, known));
                }
            }
        }
    }

    fn recover(&mut self, word: recovery::Input) {
        let now = self.now();
        let Some(machines) = &mut self.node.machines else { return };
        let mut out = Outbox::new();
        machines.recovery.handle(now, word, &mut out);
        self.recovered(!out.is_empty());
    }

    fn recovered(&mut self, done: bool) {
        let peers = self.node.machines.as_ref().map_or(0, |machines| machines.sessions.len() as u32);
        if done {
            self.shard_input(Some(rib::Input::RecoveryDone));
            (0..peers).for_each(|peer| self.tell(peer, session::Input::RecoveryDone));
        }
    }

    /// A round of the shard, if it has anything to do.
    fn round(&mut self) {
        let now = self.now();
        let Some(machines) = &mut self.node.machines else { return };
        let due = machines.shard.deadline().is_some_and(|due| due <= now);
        if machines.shard_in.is_empty() && !due {
            return;
        }
        self.cost += pace::ROUND;
        let mut out = Outbox::new();
        for input in std::mem::take(&mut machines.shard_in) {
            if let rib::Input::Routes(batch) = &input {
                self.cost += pace::PATH * paths_of(batch);
            }
            machines.shard.handle(now, input, &mut out);
        }
        if due {
            machines.shard.on_deadline(now, &mut out);
        }
        machines.shard.finish_round(now, &mut out);
        for output in out.drain() {
            match wiring::from_shard(ShardId(0), output) {
                FromShard::Peer(peer, input) => self.tell(peer.0, input),
                FromShard::Fib(input) => self.fib(input),
                FromShard::Answer(..) | FromShard::Monitored(..) | FromShard::Overrun(_) => {}
            }
        }
    }

    fn fib(&mut self, input: margay::fib::Input) {
        let Some(changes) = input.changes() else { return };
        for change in changes {
            self.cost += pace::PATH;
            let Some(block) = block_of(change.prefix) else { continue };
            self.node.tally.writes += 1;
            if self.node.known.set(block, change.route.is_some()) {
                self.scene.news.push((block, change.route.is_some()));
            }
        }
        self.shard_input(Some(rib::Input::PullFib { credit: FIB_CREDIT }));
    }

    fn end(self) {
        self.node.free_at = self.by_now();
        self.node.tally.worked += self.cost;
    }
}

impl Session {
    fn connection(&self, tcp: TcpId) -> Option<u32> {
        self.connections.iter().find(|(_, open)| *open == tcp).map(|(connection, _)| *connection)
    }

    fn tcp(&self, connection: u32) -> Option<TcpId> {
        self.connections.iter().find(|(open, _)| *open == connection).map(|(_, tcp)| *tcp)
    }
}

impl Machines {
    /// The kernel tells everything: one interface in the rack's network, and a default route.
    fn hear_kernel(&mut self, now: Instant, address: Ipv4Addr, protocol: u8) {
        let mut kernel = ModelKernel::default();
        kernel.set_link(1, "lo", true);
        kernel.set_link(2, "eth0", true);
        kernel.add_address(2, plan::interface_address(address));
        let key = RouteKey { table: MAIN, prefix: ipnet::Ipv4Net::default().into(), metric: 0, tos: 0 };
        let hops = [KernelHop { gateway: Some(plan::gateway(address).into()), interface: 2, onlink: false }].into();
        kernel.stranger_sets(KernelRoute {
            key,
            protocol: 3,
            kind: RouteType::Unicast,
            scope: 0,
            hops,
            preferred_source: None,
            object: None,
        });
        kernel.forget_listener();
        kernel.tell_everything();
        for event in kernel.events.into_iter().filter(|event| wiring::kernel_event_is_for_all(event, protocol)) {
            self.tell_origin(now, origin::Input::Kernel(event.clone()));
            self.shard_in.push(rib::Input::Kernel(event));
        }
    }

    fn tell_origin(&mut self, now: Instant, input: origin::Input) {
        let mut out = Outbox::new();
        self.origin.handle(now, input, &mut out);
        self.shard_in.extend(out.drain().map(|output| wiring::from_origin(1, output).1));
    }
}

/// Blocks that a batch tells of, and whether they are there.
fn told(batch: &RouteBatch) -> impl Iterator<Item = (usize, bool)> + '_ {
    batch.changes.iter().flat_map(|change| {
        let (list, on) = match change {
            RouteChange::Announce(_, list) => (Some(list), true),
            RouteChange::Withdraw(list) => (Some(list), false),
            RouteChange::EndOfRib(_) | RouteChange::RefreshBegin(_) | RouteChange::RefreshEnd(_) => (None, false),
        };
        let items = match list {
            Some(NlriList::Ipv4(items)) => items.as_slice(),
            Some(NlriList::Ipv6(_)) | None => &[],
        };
        items.iter().filter_map(move |item| Some((block_of(item.prefix.into())?, on)))
    })
}

fn paths_of(batch: &RouteBatch) -> u32 {
    let paths = batch.changes.iter().map(|change| match change {
        RouteChange::Announce(_, list) | RouteChange::Withdraw(list) => list.len() as u32,
        RouteChange::EndOfRib(_) | RouteChange::RefreshBegin(_) | RouteChange::RefreshEnd(_) => 0,
    });
    paths.sum()
}

/// Both counts.
pub fn add(a: MessageCounts, b: MessageCounts) -> MessageCounts {
    MessageCounts {
        open: a.open + b.open,
        update: a.update + b.update,
        notification: a.notification + b.notification,
        keepalive: a.keepalive + b.keepalive,
        route_refresh: a.route_refresh + b.route_refresh,
    }
}
