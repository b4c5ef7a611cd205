//! The world: hosts with their kernels and processes, the network between them, and what is to happen.
//! Long because all that can happen in a world stands in one list.
//!
//! One thing happens at a time. As long as anybody has something to do a seeded die chooses who; else time goes on to the
//! next arrival, timer or appointment. So a seed and a topology are the whole of a run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use margay::bfd;
use margay::calico;
use margay::fib::{KernelHop, KernelRoute, RouteKey, RouteType};
use margay::node::wiring::SocketWord;
use margay::session::Input;
use margay::types::Sync;

use super::clock::Clock;
use super::link::{Arrival, Holder, Partitions, Tcp, TcpId, WINDOW, delay};
use super::model_kernel::{MAIN, ModelKernel};
use super::process::{Mistake, Process, Seat};
use super::spec::{Resources, Spec, SpecHost};
use crate::story::Dice;

/// A connect that is not answered is abandoned after this, as in the runtime.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Octets read at once at most.
const READ: usize = 64 * 1024;
/// Lines of the trace that are kept for a failure's report.
const TAIL: usize = 40;

/// A host: it outlives its margay.
#[derive(Debug)]
pub struct Host {
    /// What it was made of.
    pub spec: SpecHost,
    /// Its kernel.
    pub kernel: ModelKernel,
    /// Its margay, while it runs.
    pub process: Option<Process>,
    /// How many margays it has had.
    pub life: u32,
    /// Its clock runs ahead by so much.
    pub ahead: Duration,
    /// Its process is stopped till then.
    pub suspended_until: Duration,
    /// It is switched on.
    pub powered: bool,
    /// Sockets with something to read.
    readable: BTreeSet<(TcpId, usize)>,
    /// Sockets that took something of what waited.
    writable: BTreeSet<(TcpId, usize)>,
    told_until: Duration,
    busy: bool,
}

/// An appointment.
#[derive(Debug)]
enum Happening {
    Syn { from: Holder, local: IpAddr, to: usize, remote: IpAddr },
    SynAck(TcpId),
    Ack(TcpId),
    Refused(Holder, &'static str),
    Land(TcpId, usize),
    Wake(usize),
    Start(usize),
    Tell(usize, calico::Input),
    LinkUp(usize, u32),
    Kernel(usize, KernelChange),
    Cluster(usize, margay::calico::ResourceKey, Option<margay::calico::Document>),
    Packet { to: usize, remote: IpAddr, multihop: bool, payload: Vec<u8> },
    Drained(usize),
}

/// A stranger's hand in a kernel.
#[derive(Clone, Debug)]
pub enum KernelChange {
    /// Adds or replaces.
    Set(KernelRoute),
    /// Deletes.
    Delete(RouteKey),
}

/// What happened, as a number and as its last lines.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Everything so far, digested: equal for equal runs.
    pub digest: u64,
    /// Steps so far.
    pub steps: u64,
    /// Print every line.
    pub print: bool,
    tail: VecDeque<String>,
}

impl Trace {
    /// Adds to the digest.
    fn digest(&mut self, word: u64) {
        self.digest = (self.digest ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(5);
    }

    /// Adds a line that people may want to see.
    pub fn line(&mut self, now: Duration, text: &str) {
        for octet in text.bytes() {
            self.digest(u64::from(octet));
        }
        let line = format!("{:>12.6} {text}", now.as_secs_f64());
        if self.print {
            println!("{line}");
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    /// The last lines.
    pub fn tail(&self) -> impl Iterator<Item = &String> {
        self.tail.iter()
    }
}

/// How a world is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// Shards of every margay.
    pub shards: u16,
    /// A deliberate mistake.
    pub mistake: Option<Mistake>,
    /// Print the trace.
    pub print: bool,
}

/// See the module.
#[derive(Debug)]
pub struct World {
    /// The clock.
    pub clock: Clock,
    /// Chance.
    pub dice: Dice,
    /// The hosts.
    pub hosts: Vec<Host>,
    /// The resources, as they are now.
    pub clusters: Vec<Resources>,
    /// What cannot be heard.
    pub partitions: Partitions,
    /// What happened.
    pub trace: Trace,
    options: Options,
    agenda: BTreeMap<(Duration, u64), Happening>,
    sequence: u64,
    tcps: BTreeMap<TcpId, Tcp>,
    next_tcp: usize,
    connecting: BTreeSet<(usize, u32, u32, u32)>,
}

impl World {
    /// All hosts are on, and every margay is being started.
    pub fn new(spec: &Spec, options: Options) -> Self {
        let mut world = Self {
            clock: Clock::new(),
            dice: Dice(options.seed),
            hosts: Vec::new(),
            clusters: spec.clusters.clone(),
            partitions: Partitions::default(),
            trace: Trace { print: options.print, ..Trace::default() },
            options,
            agenda: BTreeMap::new(),
            sequence: 0,
            tcps: BTreeMap::new(),
            next_tcp: 0,
            connecting: BTreeSet::new(),
        };
        for (index, host) in spec.hosts.iter().enumerate() {
            world.hosts.push(Host {
                spec: host.clone(),
                kernel: boot(host),
                process: None,
                life: 0,
                ahead: Duration::ZERO,
                suspended_until: Duration::ZERO,
                powered: true,
                readable: BTreeSet::new(),
                writable: BTreeSet::new(),
                told_until: Duration::ZERO,
                busy: false,
            });
            let at = Duration::from_millis(world.dice.below(3000));
            world.appoint(at, Happening::Start(index));
        }
        world
    }

    /// The time.
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    fn appoint(&mut self, at: Duration, what: Happening) {
        self.sequence += 1;
        self.agenda.insert((at.max(self.now()), self.sequence), what);
    }

    /// Lets time pass until `until`.
    pub fn run(&mut self, until: Duration) {
        while self.step(until) {}
        self.clock.advance(until);
        self.hosts.iter_mut().for_each(|host| host.busy = true);
    }

    /// Lets one thing happen, if it happens until then.
    fn step(&mut self, until: Duration) -> bool {
        if let Some(host) = self.busy_host() {
            if !self.turn(host) {
                self.hosts[host].busy = false;
            }
            return true;
        }
        let appointment = self.agenda.keys().next().map(|(at, _)| *at);
        let timers = (0..self.hosts.len()).filter_map(|host| self.timer(host)).min();
        let Some(at) = [appointment, timers].into_iter().flatten().min().filter(|at| *at <= until) else { return false };
        self.clock.advance(at);
        while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= at) {
            let what = entry.remove();
            self.happen(what);
        }
        for host in 0..self.hosts.len() {
            self.hosts[host].busy |= self.timer(host).is_some_and(|timer| timer <= at);
        }
        true
    }

    fn busy_host(&mut self) -> Option<usize> {
        let now = self.now();
        let ready = |host: &Host| host.busy && host.process.is_some() && host.suspended_until <= now;
        let count = self.hosts.iter().filter(|host| ready(host)).count();
        if count == 0 {
            return None;
        }
        let chosen = self.dice.below(count as u64) as usize;
        self.hosts.iter().enumerate().filter(|(_, host)| ready(host)).nth(chosen).map(|(index, _)| index)
    }

    fn timer(&self, host: usize) -> Option<Duration> {
        let one = &self.hosts[host];
        let process = one.process.as_ref().filter(|_| one.suspended_until <= self.now())?;
        Some(self.clock.when(process.deadline()?, one.ahead))
    }

    /// One seat of the host takes a step; false if nobody has anything to do.
    fn turn(&mut self, host: usize) -> bool {
        let instant = self.clock.instant(self.hosts[host].ahead);
        let one = &mut self.hosts[host];
        let Some(process) = &mut one.process else { return false };
        let seats = process.runnable(instant, &one.kernel);
        let tcps = &self.tcps;
        let holder = |(tcp, end): &(TcpId, usize)| tcps.get(tcp).and_then(|tcp| tcp.ends[*end]);
        let sockets: Vec<(TcpId, usize)> =
            one.readable.iter().filter(|key| holder(key).is_some_and(|holder| process.reads(holder.peer))).copied().collect();
        let items = seats.len() + sockets.len() + one.writable.len();
        if items == 0 {
            return false;
        }
        let chosen = self.dice.below(items as u64) as usize;
        self.trace.steps += 1;
        self.trace.digest(self.clock.now().as_micros() as u64 ^ (host as u64) << 48 ^ (chosen as u64) << 32);
        let seat = match (seats.get(chosen), sockets.get(chosen.wrapping_sub(seats.len()))) {
            (Some(seat), _) => *seat,
            (None, Some(socket)) => {
                self.read(host, *socket);
                return true;
            }
            (None, None) => {
                self.written(host);
                return true;
            }
        };
        // Sockets before timers: a hold timer is judged on the bytes that are there (F4).
        if let Seat::Peer(peer) = seat
            && let Some(socket) = sockets.iter().find(|key| holder(key).is_some_and(|holder| holder.peer == peer))
        {
            self.read(host, *socket);
            return true;
        }
        process.step(instant, seat, &mut one.kernel, &mut self.dice);
        self.carry_out(host);
        true
    }

    fn read(&mut self, host: usize, (id, end): (TcpId, usize)) {
        let instant = self.clock.instant(self.hosts[host].ahead);
        let Some(tcp) = self.tcps.get_mut(&id) else { return };
        let Some(holder) = tcp.ends[end] else { return };
        let direction = &mut tcp.directions[1 - end];
        let mut input = None;
        let mut octets = bytes::BytesMut::new();
        while let Some(next) = direction.arrived.front() {
            match next {
                Arrival::Bytes(bytes) if octets.len() + bytes.len() <= READ => {}
                Arrival::Bytes(_) => break,
                _ if !octets.is_empty() => break,
                _ => {}
            }
            match direction.read() {
                Some(Arrival::Bytes(bytes)) => octets.extend_from_slice(&bytes),
                Some(Arrival::End) => input = Some(Input::Closed { connection: holder.connection, error: None }),
                Some(Arrival::Reset) => {
                    input = Some(Input::Closed { connection: holder.connection, error: Some("connection reset by peer".to_owned()) });
                }
                None => {}
            }
            if input.is_some() || self.dice.below(3) == 0 {
                break;
            }
        }
        if direction.arrived.is_empty() {
            self.hosts[host].readable.remove(&(id, end));
        }
        if !octets.is_empty() {
            input = Some(Input::Received { connection: holder.connection, bytes: octets.freeze() });
        }
        if matches!(input, Some(Input::Closed { .. })) {
            self.close(id, end, false);
        }
        if let (Some(input), Some(process)) = (input, &mut self.hosts[host].process) {
            process.peer_hears(instant, holder.peer, input);
        }
        self.carry_out(host);
        self.pump(id, 1 - end);
    }

    /// What the last step of a host wants of its sockets.
    fn carry_out(&mut self, host: usize) {
        self.hosts[host].busy = true;
        self.send_packets(host);
        loop {
            let Some(process) = &mut self.hosts[host].process else { return };
            if process.sockets.is_empty() {
                return;
            }
            let life = process.life;
            for socket in std::mem::take(&mut process.sockets) {
                match socket.word {
                    SocketWord::Connect(connection) => {
                        self.connect(Holder { host, life, peer: socket.peer, connection });
                    }
                    SocketWord::Send(connection, bytes) => {
                        self.trace.digest(bytes.len() as u64);
                        let found = self.find(host, life, socket.peer, connection);
                        if let Some((id, end)) = found {
                            if let Some(tcp) = self.tcps.get_mut(&id) {
                                tcp.directions[end].queue.push_back(bytes);
                            }
                            self.pump(id, end);
                        }
                    }
                    SocketWord::Close(connection, linger) => {
                        self.connecting.remove(&(host, life, socket.peer.0, connection.0));
                        if let Some((id, end)) = self.find(host, life, socket.peer, connection) {
                            self.close(id, end, linger);
                        }
                    }
                }
            }
        }
    }

    /// BFD packets go their way; one in fifty is lost, and all of them where nothing gets through.
    fn send_packets(&mut self, host: usize) {
        let Some(process) = &mut self.hosts[host].process else { return };
        for (peer, payload) in std::mem::take(&mut process.packets) {
            let config = self.hosts[host].process.as_ref().and_then(|process| process.peers.get(&peer)).map(|peer| peer.config.clone());
            let Some((config, now)) = config.zip(Some(self.now())) else { continue };
            let kernel = &self.hosts[host].kernel;
            let local = config.local_address.or_else(|| kernel.source_for(config.address)).filter(|local| kernel.owns(*local));
            let to = (0..self.hosts.len()).find(|to| *to != host && self.hosts[*to].kernel.owns(config.address));
            let (Some(remote), Some(to)) = (local, to) else { continue };
            if self.dice.below(50) != 0 && self.partitions.open_at(host, to, now) <= now {
                let at = now + Duration::from_micros(100 + self.dice.below(5_000));
                let multihop = config.bfd.is_some_and(|bfd| bfd.multihop);
                self.appoint(at, Happening::Packet { to, remote, multihop, payload: payload.to_vec() });
            }
        }
    }

    fn find(&self, host: usize, life: u32, peer: margay::types::PeerId, connection: margay::types::ConnectionId) -> Option<(TcpId, usize)> {
        self.tcps.iter().find_map(|(id, tcp)| Some((*id, tcp.end_of(host, life, peer, connection)?)))
    }

    /// Moves what there is room for out of the writer's process.
    fn pump(&mut self, id: TcpId, end: usize) {
        let now = self.now();
        let Some(tcp) = self.tcps.get_mut(&id) else { return };
        let open_at = self.partitions.open_at(tcp.hosts[end], tcp.hosts[1 - end], now);
        let direction = &mut tcp.directions[end];
        direction.stalled_until = direction.stalled_until.max(open_at);
        let mut arrivals = Vec::new();
        let moved = direction.pump(now, &mut self.dice, &mut arrivals);
        assert!(direction.held <= WINDOW, "a connection holds {} octets", direction.held);
        let holder = tcp.ends[end];
        for at in arrivals {
            self.appoint(at, Happening::Land(id, end));
        }
        if let Some(holder) = holder.filter(|_| moved) {
            self.hosts[holder.host].writable.insert((id, end));
            self.hosts[holder.host].busy = true;
        }
    }

    /// A process finds that a socket has taken what it wrote.
    fn written(&mut self, host: usize) {
        let Some((id, end)) = self.hosts[host].writable.pop_first() else { return };
        let Some(tcp) = self.tcps.get(&id) else { return };
        let (waiting, Some(holder)) = (tcp.directions[end].waiting(), tcp.ends[end]) else { return };
        self.tell(holder, Input::Written { connection: holder.connection, waiting });
    }

    fn close(&mut self, id: TcpId, end: usize, linger: bool) {
        let now = self.now();
        let Some(tcp) = self.tcps.get_mut(&id) else { return };
        if let Some(holder) = tcp.ends[end].take() {
            self.hosts[holder.host].readable.remove(&(id, end));
            self.hosts[holder.host].writable.remove(&(id, end));
        }
        let direction = &mut tcp.directions[end];
        let mut arrivals = Vec::new();
        if linger {
            for bytes in std::mem::take(&mut direction.queue) {
                direction.held += bytes.len();
                arrivals.push(direction.fly(now, &mut self.dice, Arrival::Bytes(bytes)));
            }
        }
        direction.queue.clear();
        arrivals.push(direction.fly(now, &mut self.dice, Arrival::End));
        for at in arrivals {
            self.appoint(at, Happening::Land(id, end));
        }
        if self.tcps.get(&id).is_some_and(|tcp| tcp.ends == [None, None]) {
            self.tcps.remove(&id);
        }
    }

    fn connect(&mut self, from: Holder) {
        let host = &self.hosts[from.host];
        let Some(config) = host.process.as_ref().and_then(|process| process.peers.get(&from.peer)).map(|peer| peer.config.clone()) else {
            return;
        };
        self.connecting.insert((from.host, from.life, from.peer.0, from.connection.0));
        let remote = config.address;
        let local = config.local_address.or_else(|| host.kernel.source_for(remote));
        let to = (0..self.hosts.len()).find(|to| *to != from.host && self.hosts[*to].kernel.owns(remote));
        let now = self.now();
        match (local.filter(|local| host.kernel.owns(*local)), to) {
            (Some(local), Some(to)) if self.partitions.open_at(from.host, to, now) <= now && self.hosts[to].powered => {
                let at = now + delay(&mut self.dice);
                self.appoint(at, Happening::Syn { from, local, to, remote });
            }
            (None, _) => self.appoint(now, Happening::Refused(from, "cannot assign requested address")),
            _ => self.appoint(now + CONNECT_TIMEOUT, Happening::Refused(from, "no answer within 10 s")),
        }
    }

    /// When the process that an appointment is for can act; none if it can now.
    fn sleeps(&self, what: &Happening) -> Option<Duration> {
        let host = match what {
            Happening::SynAck(id) => self.tcps.get(id)?.hosts[0],
            Happening::Ack(id) => self.tcps.get(id)?.hosts[1],
            Happening::Refused(holder, _) => holder.host,
            _ => return None,
        };
        Some(self.hosts[host].suspended_until).filter(|until| *until > self.now())
    }

    fn happen(&mut self, what: Happening) {
        let now = self.now();
        if let Some(until) = self.sleeps(&what) {
            return self.appoint(until, what);
        }
        match what {
            Happening::Syn { from, local, to, remote } => self.syn(from, local, to, remote),
            Happening::SynAck(id) => self.syn_ack(id),
            Happening::Ack(id) => self.ack(id),
            Happening::Refused(holder, error) => {
                if self.connecting.remove(&(holder.host, holder.life, holder.peer.0, holder.connection.0)) {
                    self.tell(holder, Input::ConnectFailed { connection: holder.connection, error: error.to_owned() });
                }
            }
            Happening::Land(id, end) => self.land(id, end),
            Happening::Wake(host) => {
                self.trace.line(now, &format!("{} wakes", self.hosts[host].spec.name));
                self.hosts[host].busy = true;
            }
            Happening::Start(host) => self.start(host),
            Happening::Tell(host, input) => {
                if let Some(process) = &mut self.hosts[host].process {
                    process.datastore_says(input);
                    self.hosts[host].busy = true;
                }
            }
            Happening::LinkUp(host, index) => {
                let one = &mut self.hosts[host];
                if let Some(link) = one.kernel.links.get(&index).cloned() {
                    one.kernel.set_link(index, &link.name, true);
                    add_routes(&mut one.kernel, &one.spec);
                    one.busy = true;
                }
            }
            Happening::Kernel(host, change) => {
                let one = &mut self.hosts[host];
                match change {
                    KernelChange::Set(route) => one.kernel.stranger_sets(route),
                    KernelChange::Delete(key) => one.kernel.stranger_deletes(key),
                }
                one.busy = true;
            }
            Happening::Cluster(cluster, key, document) => self.change_resource(cluster, key, document),
            Happening::Packet { to, remote, multihop, payload } => {
                let one = &mut self.hosts[to];
                if let Some(process) = one.process.as_mut().filter(|_| one.powered) {
                    process.bfd_hears(bfd::Input::Received { remote, interface: 0, multihop, ttl: Some(bfd::TTL), payload });
                    one.busy = true;
                }
            }
            Happening::Drained(host) => self.order(host, |process| process.drain_node(false)),
        }
    }

    fn syn(&mut self, from: Holder, local: IpAddr, to: usize, remote: IpAddr) {
        let now = self.now();
        let target = &self.hosts[to];
        if !target.powered || !target.kernel.owns(remote) {
            return self.appoint(now + CONNECT_TIMEOUT, Happening::Refused(from, "no answer within 10 s"));
        }
        if !target.process.as_ref().is_some_and(Process::listens) {
            let at = now + delay(&mut self.dice);
            return self.appoint(at, Happening::Refused(from, "connection refused"));
        }
        let id = TcpId(self.next_tcp);
        self.next_tcp += 1;
        let tcp = Tcp { ends: [Some(from), None], addresses: [local, remote], hosts: [from.host, to], directions: Default::default() };
        self.tcps.insert(id, tcp);
        let at = now + delay(&mut self.dice);
        self.appoint(at, Happening::SynAck(id));
    }

    fn syn_ack(&mut self, id: TcpId) {
        let now = self.now();
        let Some(tcp) = self.tcps.get(&id) else { return };
        let (Some(holder), [local, remote], [from, to]) = (tcp.ends[0], tcp.addresses, tcp.hosts) else { return };
        let alive = self.connecting.remove(&(holder.host, holder.life, holder.peer.0, holder.connection.0));
        if !alive || self.partitions.open_at(to, from, now) > now {
            self.tcps.remove(&id);
            if alive {
                self.tell(holder, Input::ConnectFailed { connection: holder.connection, error: "no answer within 10 s".to_owned() });
            }
            return;
        }
        let at = now + delay(&mut self.dice);
        self.appoint(at, Happening::Ack(id));
        if let Some(tcp) = self.tcps.get_mut(&id) {
            // Nothing may overtake the third word.
            tcp.directions[0].stalled_until = at;
        }
        let ends = (SocketAddr::new(local, 40_000), SocketAddr::new(remote, 179));
        let connected = Input::Connected { connection: holder.connection, outgoing: true, local: ends.0, remote: ends.1, local_link: None };
        self.tell(holder, connected);
    }

    fn ack(&mut self, id: TcpId) {
        let Some(tcp) = self.tcps.get(&id) else { return };
        let ([remote, local], to) = (tcp.addresses, tcp.hosts[1]);
        let host = &mut self.hosts[to];
        let accepted = host.process.as_mut().filter(|process| process.listens()).and_then(|process| {
            let (peer, connection) = process.accept(remote, local)?;
            Some(Holder { host: to, life: process.life, peer, connection })
        });
        let Some(holder) = accepted else { return self.reset(id, 0) };
        if let Some(tcp) = self.tcps.get_mut(&id) {
            tcp.ends[1] = Some(holder);
            if !tcp.directions[0].arrived.is_empty() {
                self.hosts[to].readable.insert((id, 1));
            }
        }
        let connected = Input::Connected {
            connection: holder.connection,
            outgoing: false,
            local: SocketAddr::new(local, 179),
            remote: SocketAddr::new(remote, 40_000),
            local_link: None,
        };
        self.tell(holder, connected);
    }

    fn tell(&mut self, holder: Holder, input: Input) {
        let host = &mut self.hosts[holder.host];
        let instant = self.clock.instant(host.ahead);
        if let Some(process) = host.process.as_mut().filter(|process| process.life == holder.life) {
            process.peer_hears(instant, holder.peer, input);
            self.carry_out(holder.host);
        }
    }

    /// The end `end` of a connection hears that it is broken.
    fn reset(&mut self, id: TcpId, end: usize) {
        let now = self.now();
        let Some(tcp) = self.tcps.get_mut(&id) else { return };
        let at = tcp.directions[1 - end].fly(now, &mut self.dice, Arrival::Reset);
        self.appoint(at, Happening::Land(id, 1 - end));
    }

    fn land(&mut self, id: TcpId, from: usize) {
        let now = self.now();
        let Some(tcp) = self.tcps.get_mut(&id) else { return };
        let to = tcp.hosts[1 - from];
        if !self.hosts[to].powered {
            tcp.directions[from].flying.retain(|(at, _)| *at > now);
            return;
        }
        tcp.directions[from].land(now);
        match tcp.ends[1 - from] {
            Some(_) if !tcp.directions[from].arrived.is_empty() => {
                self.hosts[to].readable.insert((id, 1 - from));
                self.hosts[to].busy = true;
            }
            Some(_) => {}
            // Not accepted yet, or closed there: a closed end answers octets with a reset.
            None => {
                let closed = tcp.hosts[1] != to || tcp.directions[1].latest_sent() || tcp.ends[0].is_none();
                let octets = tcp.directions[from].arrived.iter().any(|what| matches!(what, Arrival::Bytes(_)));
                if closed && octets {
                    tcp.directions[from].arrived.clear();
                    self.reset(id, from);
                }
            }
        }
    }

    // ── processes and hosts ─────────────────────────────────────────────────────────────────────────────────────────────

    fn start(&mut self, host: usize) {
        let now = self.now();
        let one = &mut self.hosts[host];
        if one.process.is_some() {
            return;
        }
        one.powered = true;
        one.life += 1;
        let seed = self.dice.roll();
        let mut process = Process::new(one.spec.node.clone(), one.life, self.options.shards, seed, self.options.mistake);
        process.datastore_says(calico::Input::Resource(Sync::Begin));
        for (key, document) in &self.clusters[one.spec.cluster] {
            process.datastore_says(calico::Input::Resource(Sync::Upsert(key.clone(), document.clone())));
        }
        process.datastore_says(calico::Input::Resource(Sync::End));
        one.process = Some(process);
        one.suspended_until = Duration::ZERO;
        one.busy = true;
        self.trace.line(now, &format!("{} starts, life {}", self.hosts[host].spec.name, self.hosts[host].life));
    }

    /// The process dies at once (`kill -9`); its kernel closes the sockets and keeps the routes.
    pub fn kill(&mut self, host: usize, back_after: Duration) {
        let held: Vec<(TcpId, usize)> = self.held_by(host);
        for (id, end) in held {
            self.close(id, end, false);
        }
        self.end_process(host);
        self.appoint(self.now() + back_after, Happening::Start(host));
    }

    /// The host loses power: nobody is told, and what its kernel had from margay is gone.
    pub fn power_cut(&mut self, host: usize, back_after: Duration) {
        for (id, end) in self.held_by(host) {
            if let Some(tcp) = self.tcps.get_mut(&id) {
                tcp.ends[end] = None;
            }
        }
        self.end_process(host);
        let one = &mut self.hosts[host];
        one.powered = false;
        one.kernel = boot(&one.spec);
        self.appoint(self.now() + back_after, Happening::Start(host));
    }

    fn end_process(&mut self, host: usize) {
        let one = &mut self.hosts[host];
        one.process = None;
        one.readable.clear();
        one.writable.clear();
        one.kernel.forget_listener();
        self.connecting.retain(|(at, ..)| *at != host);
    }

    fn held_by(&self, host: usize) -> Vec<(TcpId, usize)> {
        let ends = self.tcps.iter().flat_map(|(id, tcp)| (0..2).map(|end| (*id, end, tcp.ends[end])));
        ends.filter(|(.., holder)| holder.is_some_and(|holder| holder.host == host)).map(|(id, end, _)| (id, end)).collect()
    }

    /// SIGTERM: the sessions close, then the process ends.
    pub fn terminate(&mut self, host: usize, back_after: Duration) {
        let instant = self.clock.instant(self.hosts[host].ahead);
        let Some(process) = &mut self.hosts[host].process else { return };
        process.terminate(instant);
        self.hosts[host].busy = true;
        // The process has the time that it needs for it; then it is killed as systemd would.
        let now = self.now();
        let until = now + Duration::from_millis(200);
        self.run(until);
        if self.hosts[host].process.is_some() {
            self.kill(host, back_after);
        }
    }

    /// An operator drains a host, maybe shuts its sessions down, and ends that after a while. A margay that has started meanwhile is in service.
    pub fn drain(&mut self, host: usize, shut: bool, length: Duration) {
        self.order(host, |process| process.drain_node(true));
        if shut {
            self.order(host, Process::shut_down);
        }
        self.appoint(self.now() + length, Happening::Drained(host));
    }

    fn order(&mut self, host: usize, order: impl FnOnce(&mut Process)) {
        // No machine takes orders before the first configuration.
        if let Some(process) = self.hosts[host].process.as_mut().filter(|process| process.listens()) {
            order(process);
            self.carry_out(host);
        }
    }

    /// The process is stopped (SIGSTOP) for a while.
    pub fn suspend(&mut self, host: usize, length: Duration) {
        let until = self.now() + length;
        self.hosts[host].suspended_until = until;
        self.appoint(until, Happening::Wake(host));
    }

    /// The host's clock jumps.
    pub fn jump(&mut self, host: usize, by: Duration) {
        self.hosts[host].ahead += by;
        self.hosts[host].busy = true;
    }

    /// Every connection between two hosts breaks; both ends hear of it.
    pub fn cut(&mut self, a: usize, b: usize) {
        let between: Vec<TcpId> =
            self.tcps.iter().filter(|(_, tcp)| tcp.hosts == [a, b] || tcp.hosts == [b, a]).map(|(id, _)| *id).collect();
        for id in between {
            self.reset(id, 0);
            self.reset(id, 1);
        }
    }

    /// Nothing gets from `a` to `b` for a while; TCP sends it again afterwards.
    pub fn silence(&mut self, a: usize, b: usize, length: Duration) {
        let until = self.now() + length;
        self.partitions.tidy(self.now());
        self.partitions.add(a, b, until);
        for tcp in self.tcps.values_mut() {
            for end in 0..2 {
                if tcp.hosts[end] == a && tcp.hosts[1 - end] == b {
                    let direction = &mut tcp.directions[end];
                    direction.stalled_until = direction.stalled_until.max(until);
                }
            }
        }
    }

    /// An interface goes down, and comes up later.
    pub fn flap_link(&mut self, host: usize, index: u32, length: Duration) {
        let one = &mut self.hosts[host];
        if let Some(link) = one.kernel.links.get(&index).cloned() {
            one.kernel.set_link(index, &link.name, false);
            one.busy = true;
            self.appoint(self.now() + length, Happening::LinkUp(host, index));
        }
    }

    /// A stranger changes a host's kernel, now or later.
    pub fn stranger(&mut self, host: usize, change: KernelChange, after: Duration) {
        self.appoint(self.now() + after, Happening::Kernel(host, change));
    }

    /// A resource changes, now or later; each host hears of it in its time.
    pub fn change_resource_after(
        &mut self,
        cluster: usize,
        key: margay::calico::ResourceKey,
        document: Option<margay::calico::Document>,
        after: Duration,
    ) {
        self.appoint(self.now() + after, Happening::Cluster(cluster, key, document));
    }

    fn change_resource(&mut self, cluster: usize, key: margay::calico::ResourceKey, document: Option<margay::calico::Document>) {
        let now = self.now();
        self.trace.line(now, &format!("{key} {}", if document.is_some() { "changes" } else { "goes" }));
        match &document {
            Some(document) => drop(self.clusters[cluster].insert(key.clone(), document.clone())),
            None => drop(self.clusters[cluster].remove(&key)),
        }
        for host in 0..self.hosts.len() {
            if self.hosts[host].spec.cluster == cluster {
                let word = match &document {
                    Some(document) => Sync::Upsert(key.clone(), document.clone()),
                    None => Sync::Remove(key.clone()),
                };
                // Each host hears of changes in their order.
                let at = (now + Duration::from_millis(self.dice.below(200))).max(self.hosts[host].told_until);
                self.hosts[host].told_until = at;
                self.appoint(at, Happening::Tell(host, calico::Input::Resource(word)));
            }
        }
    }

    /// A host's datastore tells everything anew.
    pub fn relist(&mut self, host: usize) {
        // What is on its way arrives in between or later; the truth of then is told then, too.
        let words = std::iter::once(Sync::Begin)
            .chain(self.clusters[self.hosts[host].spec.cluster].iter().map(|(key, document)| Sync::Upsert(key.clone(), document.clone())))
            .chain([Sync::End]);
        if let Some(process) = &mut self.hosts[host].process {
            words.for_each(|word| process.datastore_says(calico::Input::Resource(word)));
            self.hosts[host].busy = true;
        }
    }

    /// Whether nobody has anything to do now.
    pub fn is_quiet(&self, host: usize) -> bool {
        let one = &self.hosts[host];
        let Some(process) = &one.process else { return true };
        let instant = self.clock.instant(one.ahead);
        process.is_quiet() && process.runnable(instant, &one.kernel).is_empty() && one.readable.is_empty()
    }

    /// Makes a host look at what it has again.
    pub fn poke(&mut self, host: usize) {
        self.hosts[host].busy = true;
    }
}

/// A host's kernel as it is after power-on.
pub fn boot(spec: &SpecHost) -> ModelKernel {
    let mut kernel = ModelKernel::default();
    kernel.set_link(1, "lo", true);
    for (index, name) in spec.links.iter().enumerate() {
        kernel.set_link(index as u32 + 2, name, true);
    }
    for (device, address) in &spec.addresses {
        if let Some(index) = kernel.index_of(device) {
            kernel.add_address(index, *address);
        }
    }
    add_routes(&mut kernel, spec);
    kernel.events.clear();
    kernel
}

fn add_routes(kernel: &mut ModelKernel, spec: &SpecHost) {
    for route in &spec.routes {
        let near = || kernel.addresses.keys().find(|(_, net)| route.gateway.is_some_and(|gateway| net.contains(&gateway))).map(|key| key.0);
        let Some(interface) = route.device.as_ref().and_then(|device| kernel.index_of(device)).or_else(near) else { continue };
        let key = RouteKey { table: MAIN, prefix: route.prefix, metric: route.metric, tos: 0 };
        if kernel.routes.contains_key(&key) || !kernel.links.get(&interface).is_some_and(|link| link.up) {
            continue;
        }
        kernel.stranger_sets(workload_route(route.prefix, route.metric, route.gateway, interface));
    }
}

/// A route as Felix, or whoever configures the host, writes it.
pub fn workload_route(prefix: ipnet::IpNet, metric: u32, gateway: Option<IpAddr>, interface: u32) -> KernelRoute {
    let key = RouteKey { table: MAIN, prefix, metric, tos: 0 };
    let scope = if gateway.is_none() && prefix.addr().is_ipv4() { 253 } else { 0 };
    let hops = [KernelHop { gateway, interface, onlink: false }].into();
    KernelRoute { key, protocol: 3, kind: RouteType::Unicast, scope, hops, preferred_source: None, object: None }
}
