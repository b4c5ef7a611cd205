//! One margay process: the real machines, their inboxes with the runtime's bounds, and the rule by which a word that finds no
//! room waits. Where a word goes is decided by [`margay::node::wiring`], as in the runtime.
//! Long because every machine of a process is wired here, in one place that the runtime can be held against.
//!
//! Whoever has something to do is a [`Seat`]; the world lets one seat at a time take one step.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use margay::bfd::packet::{LENGTH, State as BfdState};
use margay::bfd::{self, Bfd, Report};
use margay::calico::{self, Compiler, Environment};
use margay::config::diff::{PeerChange, diff};
use margay::config::{NodeConfig, PeerConfig};
use margay::fib::{self, FibSyncer};
use margay::kernel::{COMMANDS, Command};
use margay::node::first_telling::{FirstTelling, PastLife};
use margay::node::reach::Reach;
use margay::node::recovery::{self, Recovery};
use margay::node::wiring::{self, FromPeer, FromShard, SocketWord};
use margay::origin::{self, Origin};
use margay::rib::{self, Shard};
use margay::session::{self, Peer, PrefixCounts, RouteChange, State, StopReason};
use margay::types::{ConnectionId, Outbox, PeerId, PerFamily, QueryId, ShardId, Sync};

use super::model_kernel::ModelKernel;
use crate::story::Dice;

/// Bounds of the runtime's channels.
const SHARD_INBOX: usize = 256;
const INBOX: usize = 256;
const PEER_INBOX: usize = 64;
const FRAME_REPLIES: usize = 16;
/// BFD packets that a socket holds.
const BFD_PACKETS: usize = 256;
/// Messages a shard takes into one round.
const MESSAGES_A_ROUND: u64 = 64;

/// A deliberate mistake, to prove that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// One withdrawal in four does not reach the shard.
    LostWithdrawal,
    /// No sweep reaches shard or FibSyncer.
    SkippedSweep,
}

/// Whose turn it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seat {
    /// Hears the datastore.
    Compiler,
    /// Applies configurations.
    Supervisor,
    /// Local routes.
    Origin,
    /// Hands the kernel's facts on.
    KernelTask,
    /// Carries out writes.
    KernelThread,
    /// The FibSyncer.
    Fib,
    /// A shard.
    Shard(u16),
    /// Our own restart.
    Recovery,
    /// The BFD thread.
    Bfd,
    /// A peer.
    Peer(PeerId),
}

/// A word on its way between seats.
#[derive(Clone, Debug)]
enum Word {
    Shard(u16, rib::Input),
    Forget(PeerId),
    Fib(fib::Input),
    Origin(origin::Input),
    Recovery(recovery::Input),
    Peer(PeerId, session::Input),
}

/// What a step wants of the sockets.
#[derive(Debug)]
pub struct Socket {
    /// Whose.
    pub peer: PeerId,
    /// What.
    pub word: SocketWord,
}

/// A peer: its machine and what its task holds.
#[derive(Debug)]
pub struct SimPeer {
    /// Session name.
    pub name: String,
    /// The machine.
    pub machine: Peer,
    /// Its configuration.
    pub config: Arc<PeerConfig>,
    inbox: VecDeque<session::Input>,
    replies: VecDeque<session::Input>,
    counts: BTreeMap<ShardId, PerFamily<PrefixCounts>>,
    counts_changed: bool,
    recovered_due: bool,
    /// What BFD says, and that it is news.
    bfd: (Option<Report>, bool),
    /// No longer configured: ends when its inbox is empty.
    leaving: bool,
    /// Open sockets.
    pub sockets: Vec<ConnectionId>,
}

/// Before and after the first configuration.
#[derive(Debug)]
enum Stage {
    /// No configuration yet.
    Unconfigured,
    /// Machines run; kernel or local routes have not been told whole.
    Listening,
    /// Peers run.
    Running,
}

/// The machines that exist from the first configuration on.
#[derive(Debug)]
pub struct Machines {
    /// Shards.
    pub shards: Vec<Shard>,
    /// FibSyncer.
    pub fib: FibSyncer,
    /// Origin.
    pub origin: Origin,
    /// Recovery.
    pub recovery: Recovery,
}

/// See the module.
#[derive(Debug)]
pub struct Process {
    /// Which life of the host's margay this is.
    pub life: u32,
    compiler: Compiler,
    /// The machines, from the first configuration on.
    pub machines: Option<Machines>,
    /// Peers by number.
    pub peers: BTreeMap<PeerId, SimPeer>,
    /// The configuration in force.
    pub config: Option<Arc<NodeConfig>>,
    stage: Stage,
    shards: u16,
    seed: u64,
    next_peer: u32,
    datastore: VecDeque<calico::Input>,
    bfd: Bfd,
    bfd_in: VecDeque<bfd::Input>,
    /// BFD packets to be sent.
    pub packets: Vec<(PeerId, [u8; LENGTH])>,
    /// All sessions are shut down, until the drain ends.
    shut: bool,
    newest: Option<Arc<NodeConfig>>,
    told: FirstTelling,
    reach: Reach,
    origin_ended: bool,
    past_life: PastLife,
    recovered: bool,
    recovery_done: bool,
    sweep_due: Vec<bool>,
    settled: usize,
    stopping: bool,
    shard_in: Vec<VecDeque<rib::Input>>,
    fib_in: VecDeque<fib::Input>,
    fib_changes: VecDeque<fib::Input>,
    origin_in: VecDeque<origin::Input>,
    recovery_in: VecDeque<recovery::Input>,
    commands: VecDeque<Command>,
    waiting: BTreeMap<Seat, VecDeque<Word>>,
    /// Answers to questions of the invariants.
    answers: BTreeMap<QueryId, (Vec<rib::RouteRow>, bool)>,
    /// Sessions that came up, for reports.
    pub ups: u64,
    /// What the sockets are to do.
    pub sockets: Vec<Socket>,
    mistake: Option<Mistake>,
    /// The greatest number of words that waited anywhere for room.
    pub most_waiting: usize,
}

impl Process {
    /// A process that has just been started.
    pub fn new(node: String, life: u32, shards: u16, seed: u64, mistake: Option<Mistake>) -> Self {
        Self {
            life,
            compiler: Compiler::new(node, Environment::default()),
            machines: None,
            peers: BTreeMap::new(),
            config: None,
            stage: Stage::Unconfigured,
            shards,
            seed,
            next_peer: 0,
            datastore: VecDeque::new(),
            bfd: Bfd::new(seed),
            bfd_in: VecDeque::new(),
            packets: Vec::new(),
            shut: false,
            newest: None,
            told: FirstTelling::new(super::model_kernel::OURS),
            reach: Reach::default(),
            origin_ended: false,
            past_life: PastLife::default(),
            recovered: false,
            recovery_done: false,
            sweep_due: vec![false; usize::from(shards)],
            settled: 0,
            stopping: false,
            shard_in: vec![VecDeque::new(); usize::from(shards)],
            fib_in: VecDeque::new(),
            fib_changes: VecDeque::new(),
            origin_in: VecDeque::new(),
            recovery_in: VecDeque::new(),
            commands: VecDeque::new(),
            waiting: BTreeMap::new(),
            answers: BTreeMap::new(),
            ups: 0,
            sockets: Vec::new(),
            mistake,
            most_waiting: 0,
        }
    }

    /// The datastore says something.
    pub fn datastore_says(&mut self, input: calico::Input) {
        self.datastore.push_back(input);
    }

    /// Whether its listener takes connections.
    pub fn listens(&self) -> bool {
        matches!(self.stage, Stage::Running) && !self.stopping
    }

    /// Our own restart is over.
    pub fn is_recovered(&self) -> bool {
        self.recovered
    }

    /// Ends as SIGTERM asks: BFD ends on purpose, then peers close without a NOTIFICATION.
    pub fn terminate(&mut self, now: Instant) {
        self.stopping = true;
        self.bfd_in.extend(self.peers.keys().map(|peer| bfd::Input::Remove(*peer)));
        while !self.bfd_in.is_empty() {
            self.step_bfd(now);
        }
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        for peer in peers {
            self.say(Seat::Supervisor, Word::Peer(peer, session::Input::Stop(StopReason::ProcessRestart)));
        }
    }

    /// An operator drains the node or ends that, as `Speaker::carry_out`.
    pub fn drain_node(&mut self, on: bool) {
        self.every_shard(Seat::Supervisor, &rib::Input::Drain(on));
        if !on && std::mem::take(&mut self.shut) {
            self.every_peer(&session::Input::Start);
        }
    }

    /// An operator shuts all sessions down, until [`Self::drain_node`] ends.
    pub fn shut_down(&mut self) {
        self.shut = true;
        self.every_peer(&session::Input::Stop(StopReason::AdministrativeShutdown("simulated".to_owned())));
    }

    fn every_peer(&mut self, input: &session::Input) {
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.say(Seat::Supervisor, Word::Peer(peer, input.clone())));
    }

    /// A BFD packet has come; one too many for the socket is lost.
    pub fn bfd_hears(&mut self, input: bfd::Input) {
        if matches!(self.stage, Stage::Running) && self.bfd_in.len() < BFD_PACKETS {
            self.bfd_in.push_back(input);
        }
    }

    /// Whether BFD watches the path to a peer, and has it up.
    pub fn bfd_is_up(&self, now: Instant, peer: PeerId) -> Option<bool> {
        Some(self.bfd.status(now, peer)?.state == BfdState::Up)
    }

    /// Whether a process that was told to end has done what it must.
    pub fn has_ended(&self) -> bool {
        self.stopping && self.peers.values().all(|peer| peer.inbox.is_empty() && peer.sockets.is_empty())
    }

    /// Input for a peer from outside: sockets, people.
    pub fn peer_hears(&mut self, now: Instant, peer: PeerId, input: session::Input) {
        let Some(one) = self.peers.get_mut(&peer) else { return };
        match &input {
            session::Input::Connected { connection, .. } => one.sockets.push(*connection),
            session::Input::Closed { connection, .. } => one.sockets.retain(|open| open != connection),
            _ => {}
        }
        self.peer_input(now, peer, input);
    }

    /// A word of people: soft reset and the like.
    pub fn ask_peer(&mut self, peer: PeerId, input: session::Input) {
        self.say(Seat::Supervisor, Word::Peer(peer, input));
    }

    /// Whether a peer reads: nothing of its words waits for room.
    pub fn reads(&self, peer: PeerId) -> bool {
        self.waiting.get(&Seat::Peer(peer)).is_none_or(VecDeque::is_empty)
    }

    /// The peer that a connection from `remote` belongs to, with the number of the accepted socket.
    pub fn accept(&mut self, remote: std::net::IpAddr, local: std::net::IpAddr) -> Option<(PeerId, ConnectionId)> {
        let suits = |peer: &&mut SimPeer| {
            !peer.leaving && peer.config.address == remote && peer.config.local_address.is_none_or(|address| address == local)
        };
        let (id, peer) = self.peers.iter_mut().find_map(|(id, peer)| suits(&peer).then_some((*id, peer)))?;
        Some((id, peer.machine.allocate()))
    }

    // ── whose turn it may be ────────────────────────────────────────────────────────────────────────────────────────────

    /// Everybody who has something to do at `now`, deadlines and sockets included.
    pub fn runnable(&self, now: Instant, kernel: &ModelKernel) -> Vec<Seat> {
        let mut seats = Vec::new();
        let due = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        let mut add = |seat: Seat, busy: bool| {
            let waiting = self.waiting.get(&seat).and_then(VecDeque::front);
            if waiting.map_or(busy, |word| self.has_room(word)) {
                seats.push(seat);
            }
        };
        add(Seat::Compiler, !self.datastore.is_empty() || due(self.compiler.deadline()));
        add(Seat::Supervisor, self.newest.is_some() || self.recovery_done || self.may_start());
        let Some(machines) = &self.machines else { return seats };
        add(Seat::Origin, !self.origin_in.is_empty());
        add(Seat::KernelTask, !kernel.events.is_empty());
        add(Seat::KernelThread, kernel.has_work() || (!self.commands.is_empty() && kernel.commands.len() < COMMANDS));
        add(Seat::Fib, !self.fib_in.is_empty() || !self.fib_changes.is_empty() || due(machines.fib.deadline()));
        add(Seat::Bfd, !self.bfd_in.is_empty() || due(self.bfd.deadline()));
        add(Seat::Recovery, !self.recovery_in.is_empty() || due(machines.recovery.deadline()));
        for (number, shard) in machines.shards.iter().enumerate() {
            let sweep = self.sweep_due[number] && shard.is_settled();
            add(Seat::Shard(number as u16), !self.shard_in[number].is_empty() || due(shard.deadline()) || sweep);
        }
        for (id, peer) in &self.peers {
            let told = !peer.inbox.is_empty() || !peer.replies.is_empty() || peer.bfd.1;
            let busy = told || peer.counts_changed || peer.recovered_due || peer.leaving;
            let waiting = self.waiting.get(&Seat::Peer(*id)).and_then(VecDeque::front);
            // A peer whose words wait goes on with timers and inputs.
            if busy || due(peer.machine.deadline()) || waiting.is_some_and(|word| self.has_room(word)) {
                seats.push(Seat::Peer(*id));
            }
        }
        seats
    }

    /// The earliest deadline of all machines.
    pub fn deadline(&self) -> Option<Instant> {
        let machines = self.machines.as_ref();
        let of_machines = machines.into_iter().flat_map(|machines| {
            let shards = machines.shards.iter().map(Shard::deadline);
            shards.chain([machines.fib.deadline(), machines.recovery.deadline()])
        });
        let of_peers = self.peers.values().map(|peer| peer.machine.deadline());
        of_machines.chain(of_peers).chain([self.compiler.deadline(), self.bfd.deadline()]).flatten().min()
    }

    // ── one step ────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Lets a seat take one step.
    pub fn step(&mut self, now: Instant, seat: Seat, kernel: &mut ModelKernel, dice: &mut Dice) {
        let had = self.waiting.get(&seat).is_some_and(|words| !words.is_empty());
        self.drain(seat);
        let still = self.waiting.get(&seat).is_some_and(|words| !words.is_empty());
        match seat {
            Seat::Peer(peer) => {
                if had && !still {
                    self.pause(now, peer, false);
                }
                self.step_peer(now, peer, dice);
            }
            _ if still => {}
            Seat::Compiler => self.step_compiler(now),
            Seat::Supervisor => self.step_supervisor(kernel),
            Seat::Origin => self.step_origin(now),
            Seat::KernelTask => self.step_kernel_task(kernel),
            Seat::KernelThread => self.step_kernel_thread(kernel, dice),
            Seat::Fib => self.step_fib(now, dice),
            Seat::Shard(number) => self.step_shard(now, number, dice),
            Seat::Recovery => self.step_recovery(now),
            Seat::Bfd => self.step_bfd(now),
        }
    }

    fn step_compiler(&mut self, now: Instant) {
        let mut out = Outbox::new();
        match self.datastore.pop_front() {
            Some(input) => self.compiler.handle(now, input, &mut out),
            None => self.compiler.on_deadline(now, &mut out),
        }
        if let Some(calico::Output::Compiled { config: Some(config), .. }) = out.drain().last() {
            self.newest = Some(config);
        }
    }

    fn may_start(&self) -> bool {
        matches!(self.stage, Stage::Listening) && self.told.is_whole() && self.origin_ended
    }

    fn step_supervisor(&mut self, kernel: &mut ModelKernel) {
        if self.stopping {
            (self.newest, self.recovery_done) = (None, false);
        } else if self.may_start() {
            self.start_peers();
        } else if std::mem::take(&mut self.recovery_done) {
            for number in 0..self.shards {
                self.say(Seat::Supervisor, Word::Shard(number, rib::Input::RecoveryDone));
            }
            self.recovered = true;
            self.peers.values_mut().for_each(|peer| peer.recovered_due = true);
        } else if let Some(config) = self.newest.take_if(|_| !matches!(self.stage, Stage::Listening)) {
            match self.config.replace(Arc::clone(&config)) {
                None => self.start_machines(&config, kernel),
                Some(old) if old != config => self.apply(&old, &config),
                Some(_) => {}
            }
        }
    }

    /// As `runtime::start_speaker`.
    fn start_machines(&mut self, config: &Arc<NodeConfig>, kernel: &mut ModelKernel) {
        let rib_config = Arc::new(wiring::rib_config(config));
        let shards = (0..self.shards).map(|number| Shard::new(ShardId(number), self.seed, Arc::clone(&rib_config))).collect();
        self.told = FirstTelling::new(config.fib.protocol);
        self.machines = Some(Machines {
            shards,
            fib: FibSyncer::new(&config.fib, self.seed),
            origin: Origin::new(),
            recovery: Recovery::new(false, config.keep_without_peers),
        });
        self.origin_in.push_back(origin::Input::Configure(Arc::new(config.origin.clone())));
        kernel.forget_listener();
        kernel.tell_everything();
        self.stage = Stage::Listening;
    }

    /// As the rest of it, and `Speaker::start`.
    fn start_peers(&mut self) {
        self.stage = Stage::Running;
        let Some(config) = self.config.clone() else { return };
        self.past_life = self.told.past_life();
        if let Some(machines) = &mut self.machines {
            machines.recovery = Recovery::new(self.past_life.is_some(), config.keep_without_peers);
        }
        for (name, peer) in &config.peers {
            self.add_peer(name, Arc::clone(peer));
        }
        self.follow_reach();
        let waited_for: Vec<PeerId> = self.peers.keys().copied().collect();
        self.say(Seat::Supervisor, Word::Recovery(recovery::Input::Start(waited_for.clone())));
        for peer in waited_for {
            self.say(Seat::Supervisor, Word::Peer(peer, session::Input::Start));
        }
    }

    fn add_peer(&mut self, name: &str, config: Arc<PeerConfig>) -> PeerId {
        let id = PeerId(self.next_peer);
        self.next_peer += 1;
        let settings = session::Settings {
            seed: self.seed.wrapping_add(u64::from(id.0)),
            shards: self.shards,
            restarting: self.past_life.is_some() && !self.recovered,
            forwarding: self.past_life.forwarding(),
        };
        let peer = SimPeer {
            name: name.to_owned(),
            machine: Peer::new(id, Arc::clone(&config), settings),
            config,
            inbox: VecDeque::new(),
            replies: VecDeque::new(),
            counts: BTreeMap::new(),
            counts_changed: false,
            recovered_due: false,
            bfd: (None, false),
            leaving: false,
            sockets: Vec::new(),
        };
        self.peers.insert(id, peer);
        self.configure_bfd(id);
        id
    }

    /// As `BfdThread::configure` and `forget`.
    fn configure_bfd(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else { return };
        let wanted = bfd::SessionConfig::of(&peer.config, None).filter(|_| !peer.leaving);
        self.bfd_in.push_back(wanted.map_or(bfd::Input::Remove(id), |config| bfd::Input::Configure(id, config)));
    }

    /// As `Speaker::apply`.
    fn apply(&mut self, old: &NodeConfig, new: &NodeConfig) {
        let changes = diff(Some(old), new);
        let words = wiring::from_config(&changes, new);
        if let Some(input) = words.shards {
            self.every_shard(Seat::Supervisor, &input);
        }
        if let Some(input) = words.fib {
            self.say(Seat::Supervisor, Word::Fib(input));
        }
        if let Some(input) = words.origin {
            self.say(Seat::Supervisor, Word::Origin(input));
        }
        for (name, change) in &changes.peers {
            self.change_peer(name, change, new.peers.get(name));
        }
        self.follow_reach();
    }

    fn follow_reach(&mut self) {
        let present = self.peers.iter().filter(|(_, peer)| !peer.leaving);
        self.reach.configure(present.map(|(id, peer)| (*id, Arc::clone(&peer.config))).collect());
    }

    fn change_peer(&mut self, name: &str, change: &PeerChange, config: Option<&Arc<PeerConfig>>) {
        let config = config.cloned();
        if let (PeerChange::Add, Some(config)) = (change, &config) {
            self.add_peer(name, Arc::clone(config));
        }
        let Some((id, peer)) = self.peers.iter_mut().find(|(_, peer)| peer.name == name && !peer.leaving) else { return };
        if let Some(config) = config {
            peer.config = config;
        }
        let id = *id;
        let words = wiring::from_peer_change(id, change, &peer.config);
        // A peer that comes while all are shut down starts with the others.
        for input in words.peer.into_iter().filter(|input| !(self.shut && matches!(input, session::Input::Start))).collect::<Vec<_>>() {
            self.say(Seat::Supervisor, Word::Peer(id, input));
        }
        if let Some(word) = words.recovery {
            self.say(Seat::Supervisor, Word::Recovery(word));
        }
        if *change == PeerChange::Delete {
            self.say(Seat::Supervisor, Word::Forget(id));
            self.bfd_in.push_back(bfd::Input::Remove(id));
        } else {
            self.configure_bfd(id);
        }
    }

    fn step_origin(&mut self, now: Instant) {
        let (Some(machines), Some(input)) = (&mut self.machines, self.origin_in.pop_front()) else { return };
        let mut out = Outbox::new();
        machines.origin.handle(now, input, &mut out);
        for output in out.drain() {
            self.origin_ended |= output == origin::Output::Local(Sync::End);
            match wiring::from_origin(self.shards, output) {
                (Some(shard), input) => self.say(Seat::Origin, Word::Shard(shard.0, input)),
                (None, input) => self.every_shard(Seat::Origin, &input),
            }
        }
    }

    fn step_kernel_task(&mut self, kernel: &mut ModelKernel) {
        let (Some(event), Some(config)) = (kernel.events.pop_front(), &self.config) else { return };
        self.told.note(&event);
        if wiring::kernel_event_is_for_all(&event, config.fib.protocol) {
            self.say(Seat::KernelTask, Word::Origin(origin::Input::Kernel(event.clone())));
            self.every_shard(Seat::KernelTask, &rib::Input::Kernel(event.clone()));
            for (peer, input) in self.reach.hear(event.clone()) {
                self.say(Seat::KernelTask, Word::Peer(peer, input));
            }
        }
        self.say(Seat::KernelTask, Word::Fib(fib::Input::Kernel(event)));
    }

    fn step_kernel_thread(&mut self, kernel: &mut ModelKernel, dice: &mut Dice) {
        if kernel.has_work() && (self.commands.is_empty() || dice.below(2) == 0) {
            kernel.work();
        } else if let Some(command) = self.commands.pop_front() {
            kernel.commands.push_back(command);
        }
    }

    fn step_fib(&mut self, now: Instant, dice: &mut Dice) {
        let changes_first = dice.below(2) == 0;
        let Some(machines) = &mut self.machines else { return };
        let mut out = Outbox::new();
        let first = if changes_first { self.fib_changes.pop_front() } else { None };
        match first.or_else(|| self.fib_in.pop_front()).or_else(|| self.fib_changes.pop_front()) {
            Some(fib::Input::Sweep) => {
                self.settled += 1;
                if self.settled < usize::from(self.shards) || self.mistake == Some(Mistake::SkippedSweep) {
                    return;
                }
                machines.fib.handle(now, fib::Input::Sweep, &mut out);
            }
            Some(input) => machines.fib.handle(now, input, &mut out),
            None => machines.fib.on_deadline(now, &mut out),
        }
        out.drain().collect::<Vec<_>>().into_iter().for_each(|output| self.deliver_fib(output));
    }

    fn deliver_fib(&mut self, output: fib::Output) {
        match output {
            fib::Output::Write(ops) => self.commands.push_back(Command::Write(ops)),
            fib::Output::Resync => self.commands.push_back(Command::Resync),
            fib::Output::Pull { credit } => self.every_shard(Seat::Fib, &rib::Input::PullFib { credit }),
            fib::Output::Answer { .. } | fib::Output::Refused { .. } => {}
        }
        assert!(self.commands.len() <= COMMANDS, "the FibSyncer floods the kernel's thread: {} commands wait", self.commands.len());
    }

    /// As a shard's task: some messages, then the round.
    fn step_shard(&mut self, now: Instant, number: u16, dice: &mut Dice) {
        let inbox = &mut self.shard_in[usize::from(number)];
        let take = inbox.len().min(1 + dice.below(MESSAGES_A_ROUND) as usize);
        let mut inputs: Vec<rib::Input> = inbox.drain(..take).collect();
        let Some(machines) = &mut self.machines else { return };
        let shard = &mut machines.shards[usize::from(number)];
        let mut out = Outbox::new();
        for mut input in inputs.drain(..) {
            self.sweep_due[usize::from(number)] |= matches!(input, rib::Input::RecoveryDone);
            if err(self.mistake, &mut input, dice) {
                shard.handle(now, input, &mut out);
            }
        }
        if shard.deadline().is_some_and(|deadline| deadline <= now) {
            shard.on_deadline(now, &mut out);
        }
        shard.finish_round(now, &mut out);
        let settled = shard.is_settled();
        self.deliver_shard(number, &mut out);
        if settled && std::mem::take(&mut self.sweep_due[usize::from(number)]) {
            self.fib_changes.push_back(fib::Input::Sweep);
        }
    }

    fn deliver_shard(&mut self, number: u16, out: &mut Outbox<rib::Output>) {
        for output in out.drain() {
            match wiring::from_shard(ShardId(number), output) {
                FromShard::Peer(peer, session::Input::Counts { shard, counts }) => {
                    if let Some(peer) = self.peers.get_mut(&peer) {
                        peer.counts.insert(shard, counts);
                        peer.counts_changed = true;
                    }
                }
                FromShard::Peer(peer, input) => {
                    if let Some(peer) = self.peers.get_mut(&peer) {
                        peer.replies.push_back(input);
                        assert!(peer.replies.len() <= FRAME_REPLIES, "frames beyond the credit: {} answers wait", peer.replies.len());
                    }
                }
                FromShard::Fib(input) => {
                    self.fib_changes.push_back(input);
                    let bound = usize::from(self.shards) * 4;
                    assert!(self.fib_changes.len() <= bound, "Loc-RIB changes beyond the credit: {} wait", self.fib_changes.len());
                }
                FromShard::Answer(query, rib::Answer::Routes(rows), done) => {
                    let answer = self.answers.entry(query).or_default();
                    answer.0.extend(rows);
                    answer.1 |= done;
                }
                FromShard::Answer(..) | FromShard::Monitored(..) | FromShard::Overrun(_) => {}
            }
        }
    }

    /// As the BFD thread: what has come goes before timers.
    fn step_bfd(&mut self, now: Instant) {
        let mut out = Outbox::new();
        match self.bfd_in.pop_front() {
            Some(input) => {
                let removed = if let bfd::Input::Remove(peer) = &input { Some(*peer) } else { None };
                self.bfd.handle(now, input, &mut out);
                if let Some(peer) = removed.and_then(|peer| self.peers.get_mut(&peer)) {
                    peer.bfd = (None, false);
                }
            }
            None => self.bfd.on_deadline(now, &mut out),
        }
        for output in out.drain() {
            match output {
                bfd::Output::Send(peer, octets) => self.packets.push((peer, octets)),
                bfd::Output::State(peer, report) => {
                    if let Some(peer) = self.peers.get_mut(&peer) {
                        peer.bfd = (Some(report), true);
                    }
                }
            }
        }
    }

    fn step_recovery(&mut self, now: Instant) {
        let Some(machines) = &mut self.machines else { return };
        let mut out = Outbox::new();
        match self.recovery_in.pop_front() {
            Some(input) => machines.recovery.handle(now, input, &mut out),
            None => machines.recovery.on_deadline(now, &mut out),
        }
        self.recovery_done |= !out.is_empty();
    }

    /// One thing that is not a socket's. Sockets come first when a timer is due, which the world sees to (F4).
    fn step_peer(&mut self, now: Instant, id: PeerId, dice: &mut Dice) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let reply_first = dice.below(2) == 0;
        let reply = if reply_first { peer.replies.pop_front() } else { None };
        if let Some(input) = reply.or_else(|| peer.inbox.pop_front()).or_else(|| peer.replies.pop_front()) {
            if let session::Input::Configure(config) = &input {
                peer.config = Arc::clone(config);
            }
            self.peer_input(now, id, input);
        } else if std::mem::take(&mut peer.bfd.1) {
            if let Some(report) = peer.bfd.0 {
                self.peer_input(now, id, session::Input::Bfd(report));
            }
        } else if std::mem::take(&mut peer.counts_changed) {
            for (shard, counts) in peer.counts.clone() {
                self.peer_input(now, id, session::Input::Counts { shard, counts });
            }
        } else if std::mem::take(&mut peer.recovered_due) {
            self.peer_input(now, id, session::Input::RecoveryDone);
        } else if peer.machine.deadline().is_some_and(|at| at <= now) {
            let mut out = Outbox::new();
            peer.machine.on_deadline(now, &mut out);
            self.deliver_peer(now, id, out);
        } else if peer.leaving && self.reads(id) {
            self.peers.remove(&id);
            self.waiting.remove(&Seat::Peer(id));
        }
    }

    fn peer_input(&mut self, now: Instant, id: PeerId, input: session::Input) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let mut out = Outbox::new();
        peer.machine.handle(now, input, &mut out);
        self.deliver_peer(now, id, out);
    }

    fn deliver_peer(&mut self, now: Instant, id: PeerId, mut out: Outbox<session::Output>) {
        for output in out.drain() {
            match wiring::from_peer(id, output) {
                FromPeer::Socket(word) => {
                    if let (SocketWord::Close(connection, _), Some(peer)) = (&word, self.peers.get_mut(&id)) {
                        peer.sockets.retain(|open| open != connection);
                    }
                    self.sockets.push(Socket { peer: id, word });
                }
                FromPeer::EveryShard(input) => self.hear_peer(now, id, &input),
                FromPeer::OneShard(shard, input) => self.peer_says(now, id, Word::Shard(shard.0, input)),
                FromPeer::EveryShardAndRecovery(input, word) => {
                    if let (rib::Input::PeerUp(_), Some(peer)) = (&input, self.peers.get_mut(&id)) {
                        // Fresh channels for a new session: an answer to the old one dies with its channel.
                        peer.replies.clear();
                        peer.counts.clear();
                        peer.counts_changed = false;
                        self.ups += 1;
                    }
                    self.hear_peer(now, id, &input);
                    self.peer_says(now, id, Word::Recovery(word));
                }
                FromPeer::Recovery(word) => self.peer_says(now, id, Word::Recovery(word)),
                FromPeer::Told(_, word) => {
                    if let Some(word) = word {
                        self.peer_says(now, id, Word::Recovery(word));
                    }
                }
            }
        }
    }

    fn hear_peer(&mut self, now: Instant, id: PeerId, input: &rib::Input) {
        for shard in 0..self.shards {
            self.peer_says(now, id, Word::Shard(shard, input.clone()));
        }
    }

    fn peer_says(&mut self, now: Instant, id: PeerId, word: Word) {
        let had = self.reads(id);
        self.say(Seat::Peer(id), word);
        if had && !self.reads(id) {
            self.pause(now, id, true);
        }
    }

    fn pause(&mut self, now: Instant, id: PeerId, paused: bool) {
        let open = self.peers.get(&id).map(|peer| peer.sockets.clone()).unwrap_or_default();
        for connection in open {
            self.peer_input(now, id, session::Input::Paused { connection, paused });
        }
    }

    // ── words between seats ─────────────────────────────────────────────────────────────────────────────────────────────

    fn every_shard(&mut self, from: Seat, input: &rib::Input) {
        for shard in 0..self.shards {
            self.say(from, Word::Shard(shard, input.clone()));
        }
    }

    fn say(&mut self, from: Seat, word: Word) {
        let waiting = self.waiting.entry(from).or_default();
        waiting.push_back(word);
        self.most_waiting = self.most_waiting.max(waiting.len());
        self.drain(from);
    }

    fn drain(&mut self, from: Seat) {
        while let Some(word) = self.waiting.get(&from).and_then(VecDeque::front) {
            if !self.has_room(word) {
                return;
            }
            if let Some(word) = self.waiting.get_mut(&from).and_then(VecDeque::pop_front) {
                self.put(word);
            }
        }
    }

    fn has_room(&self, word: &Word) -> bool {
        match word {
            Word::Shard(shard, _) => self.shard_in[usize::from(*shard)].len() < SHARD_INBOX,
            Word::Fib(_) => self.fib_in.len() < INBOX,
            Word::Origin(_) => self.origin_in.len() < INBOX,
            Word::Recovery(_) => self.recovery_in.len() < INBOX,
            Word::Peer(peer, _) => self.peers.get(peer).is_none_or(|peer| peer.inbox.len() < PEER_INBOX),
            Word::Forget(_) => true,
        }
    }

    fn put(&mut self, word: Word) {
        match word {
            Word::Shard(shard, input) => self.shard_in[usize::from(shard)].push_back(input),
            Word::Fib(input) => self.fib_in.push_back(input),
            Word::Origin(input) => self.origin_in.push_back(input),
            Word::Recovery(input) => self.recovery_in.push_back(input),
            Word::Peer(peer, input) => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.inbox.push_back(input);
                }
            }
            Word::Forget(peer) => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.leaving = true;
                }
            }
        }
    }

    // ── looking in ──────────────────────────────────────────────────────────────────────────────────────────────────────

    /// The rows of a question, from all shards. What a shard says besides is delivered as usual.
    pub fn ask(&mut self, now: Instant, query: &rib::Query) -> Vec<rib::RouteRow> {
        let id = QueryId(u64::MAX);
        for number in 0..self.shards {
            let Some(machines) = &mut self.machines else { return Vec::new() };
            let mut out = Outbox::new();
            let shard = &mut machines.shards[usize::from(number)];
            shard.handle(now, rib::Input::Query(id, query.clone()), &mut out);
            shard.finish_round(now, &mut out);
            self.deliver_shard(number, &mut out);
            while !self.answers.get(&id).is_some_and(|answer| answer.1) {
                let Some(machines) = &mut self.machines else { return Vec::new() };
                machines.shards[usize::from(number)].finish_round(now, &mut out);
                self.deliver_shard(number, &mut out);
            }
            if let Some(answer) = self.answers.get_mut(&id) {
                answer.1 = false;
            }
        }
        self.answers.remove(&id).map(|answer| answer.0).unwrap_or_default()
    }

    /// What the FibSyncer says of a prefix.
    pub fn fib_status(&mut self, now: Instant, prefix: ipnet::IpNet) -> Option<fib::FibStatus> {
        let machines = self.machines.as_mut()?;
        let mut out = Outbox::new();
        machines.fib.handle(now, fib::Input::Query(QueryId(0), fib::Query::Prefixes(vec![prefix])), &mut out);
        let mut status = None;
        for output in out.drain().collect::<Vec<_>>() {
            match output {
                fib::Output::Answer { rows, .. } => status = rows.into_iter().next(),
                other => self.deliver_fib(other),
            }
        }
        status
    }

    /// Whether a peer's session is Established.
    pub fn is_established(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.machine.state() == State::Established)
    }

    /// The FibSyncer has been told to sweep.
    pub fn is_swept(&self) -> bool {
        self.settled >= usize::from(self.shards)
    }

    /// Nothing of the kernel's is unheard by the machines.
    pub fn is_quiet(&self) -> bool {
        let empty = self.shard_in.iter().all(VecDeque::is_empty) && self.fib_in.is_empty() && self.fib_changes.is_empty();
        empty && self.commands.is_empty() && self.waiting.values().all(VecDeque::is_empty)
    }
}

/// Makes the mistake; false if the input is lost whole.
fn err(mistake: Option<Mistake>, input: &mut rib::Input, dice: &mut Dice) -> bool {
    match (mistake, input) {
        (Some(Mistake::LostWithdrawal), rib::Input::Routes(batch)) => {
            batch.changes.retain(|change| !matches!(change, RouteChange::Withdraw(_)) || dice.below(4) != 0);
            true
        }
        (Some(Mistake::SkippedSweep), rib::Input::Routes(batch)) => {
            batch.changes.retain(|change| !matches!(change, RouteChange::EndOfRib(_) | RouteChange::RefreshEnd(_)));
            true
        }
        (Some(Mistake::SkippedSweep), rib::Input::SweepStale { .. }) => false,
        _ => true,
    }
}
