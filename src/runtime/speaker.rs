//! The supervisor of everything that follows a configuration: peers, listeners, origin, FibSyncer, shards. A new
//! configuration is applied as a diff: what need not reset does not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Id, JoinSet};
use tracing::{Instrument, error, info, info_span};

use crate::bfd::Report;
use crate::calico::Problem;
use crate::config::diff::{PeerChange, diff, peer_change};
use crate::config::{NodeConfig, PeerConfig};
use crate::node::first_telling::PastLife;
use crate::node::handover::{self, LONGEST, eased};
use crate::node::recovery;
use crate::node::wiring::{from_config, from_peer_change};
use crate::origin;
use crate::rib;
use crate::runtime::bfd_thread::BfdMessage;
use crate::runtime::directory::{Directory, PeerEntry};
use crate::runtime::history::Chronicle;
use crate::runtime::listener::{ListenPeer, ListenTable};
use crate::runtime::message::{FibMessage, Order, PeerMessage, ShardMessage};
use crate::runtime::peer_task::{PeerTask, Watched};
use crate::runtime::recording::Recording;
use crate::runtime::talk::Talk;
use crate::runtime::word_queue::Listeners;
use crate::session::{self, Peer, SessionEnd, StopReason};
use crate::telemetry::Event;
use crate::types::{PeerId, PerFamily};

/// Messages that may wait in a peer's inbox: configuration words, accepted connections, questions.
const PEER_INBOX: usize = 64;

/// The inboxes that a configuration concerns.
#[derive(Clone, Debug)]
pub struct Inboxes {
    /// Shards by number.
    pub shards: Vec<mpsc::Sender<ShardMessage>>,
    /// FibSyncer.
    pub fib: mpsc::Sender<FibMessage>,
    /// Origin.
    pub origin: mpsc::Sender<origin::Input>,
    /// Recovery.
    pub recovery: mpsc::Sender<recovery::Input>,
    /// Handover.
    pub handover: mpsc::Sender<handover::Input>,
}

/// See the module.
pub struct Speaker {
    inboxes: Inboxes,
    directory: watch::Sender<Arc<Directory>>,
    listeners: watch::Sender<Arc<ListenTable>>,
    recovered: watch::Sender<bool>,
    chronicle: Chronicle,
    config: Arc<NodeConfig>,
    /// Since when `config` is in force.
    configured: jiff::Timestamp,
    problems: Arc<[Problem]>,
    peers: BTreeMap<String, PeerEntry>,
    /// The configuration that `config` is a step to, and when it is taken.
    rest: Option<(Instant, Arc<NodeConfig>)>,
    /// Peers that are no longer configured and linger.
    leaving: BTreeMap<String, PeerEntry>,
    released: mpsc::Receiver<Vec<PeerId>>,
    tasks: JoinSet<()>,
    names: BTreeMap<Id, String>,
    next_id: u32,
    seed: u64,
    orders: mpsc::Sender<Order>,
    recording: Option<Recording>,
    drained: bool,
    shut: bool,
    bfd: mpsc::Sender<BfdMessage>,
    /// Where BFD reports to each peer's task.
    reports: BTreeMap<PeerId, Arc<watch::Sender<Option<Report>>>>,
    past_life: PastLife,
    talk: Talk,
}

/// What [`Speaker::new`] needs besides the configuration.
pub struct Parts {
    /// The inboxes.
    pub inboxes: Inboxes,
    /// Lingering peers that are to be let go.
    pub released: mpsc::Receiver<Vec<PeerId>>,
    /// Where the directory is published.
    pub directory: watch::Sender<Arc<Directory>>,
    /// Where listeners look.
    pub listeners: watch::Sender<Arc<ListenTable>>,
    /// Where peers see that recovery is over.
    pub recovered: watch::Sender<bool>,
    /// Where events go.
    pub chronicle: Chronicle,
    /// Seed of jitter.
    pub seed: u64,
    /// What the kernel held at start.
    pub past_life: PastLife,
    /// The BFD thread.
    pub bfd: mpsc::Sender<BfdMessage>,
    /// Where operators' orders go in.
    pub orders: mpsc::Sender<Order>,
    /// Where sessions are recorded.
    pub recording: Option<Recording>,
}

impl Speaker {
    /// A speaker that has no peers yet; its machines already run with `config`.
    pub fn new(parts: Parts, config: Arc<NodeConfig>) -> Self {
        let Parts { inboxes, released, directory, listeners, recovered, chronicle, seed, past_life, bfd, orders, recording } = parts;
        Self {
            inboxes,
            directory,
            listeners,
            recovered,
            chronicle,
            config,
            configured: jiff::Timestamp::now(),
            problems: Arc::default(),
            peers: BTreeMap::new(),
            rest: None,
            leaving: BTreeMap::new(),
            released,
            tasks: JoinSet::new(),
            names: BTreeMap::new(),
            next_id: 0,
            seed,
            orders,
            recording,
            drained: false,
            shut: false,
            bfd,
            reports: BTreeMap::new(),
            past_life,
            talk: Talk::default(),
        }
    }

    /// Starts the peers of the first configuration and tells recovery whom to wait for.
    pub async fn start(&mut self, problems: Arc<[Problem]>) {
        self.note_problems(problems);
        self.chronicle.metrics().restarting(!*self.recovered.borrow());
        let config = Arc::clone(&self.config);
        self.chronicle.tell(Event::Configured {
            added: config.peers.keys().cloned().collect(),
            removed: Vec::new(),
            reset: Vec::new(),
            reloaded: Vec::new(),
        });
        let configured: Vec<(String, Arc<PeerConfig>)> = config.peers.iter().map(|(name, peer)| (name.clone(), Arc::clone(peer))).collect();
        for (name, peer) in &configured {
            self.add(name, Arc::clone(peer), self.past_life.forwarding());
            self.configure_bfd(name).await;
        }
        let waited_for = self.peers.values().map(|entry| entry.id).collect();
        // A closed inbox means that the process ends; so in all sends below.
        let _ = self.inboxes.recovery.send(recovery::Input::Start(waited_for)).await;
        for entry in self.peers.values() {
            let _ = entry.inbox.send(PeerMessage::Input(Box::new(session::Input::Start))).await;
        }
        self.publish();
    }

    /// Applies a new configuration as a diff, where need be in two steps.
    pub async fn apply(&mut self, new: Arc<NodeConfig>, problems: Arc<[Problem]>) {
        let Some(eased) = eased(&self.config, &new) else {
            self.rest = None;
            return self.put_in_force(new, problems).await;
        };
        let now = Instant::now();
        let due = self.rest.as_ref().map_or(now + LONGEST, |(due, _)| *due);
        if now >= due {
            self.rest = None;
            return self.put_in_force(new, problems).await;
        }
        info!(seconds = (due - now).as_secs(), "no longer a reflector: going on for former clients for a while");
        self.rest = Some((due, new));
        self.put_in_force(Arc::new(eased), problems).await;
    }

    async fn put_in_force(&mut self, new: Arc<NodeConfig>, problems: Arc<[Problem]>) {
        let old = std::mem::replace(&mut self.config, Arc::clone(&new));
        self.configured = jiff::Timestamp::now();
        self.note_problems(problems);
        let changes = diff(Some(&old), &new);
        self.chronicle.tell(configured(&changes.peers));
        let words = from_config(&changes, &new);
        if let Some(input) = words.shards {
            self.every_shard(&input).await;
        }
        if let Some(input) = words.fib {
            let _ = self.inboxes.fib.send(FibMessage::Input(input)).await;
        }
        if let Some(input) = words.origin {
            let _ = self.inboxes.origin.send(input).await;
        }
        self.apply_peers(&changes.peers, &new).await;
        self.publish();
    }

    /// Names first, then what is new, then what goes: that lingers while something is on its way to take its place.
    async fn apply_peers(&mut self, changes: &BTreeMap<String, PeerChange>, new: &NodeConfig) {
        for (name, change) in changes {
            if let PeerChange::Rename { from, .. } = change {
                self.rename(from, name);
            }
        }
        let (gone, mut stay): (Vec<_>, Vec<_>) = changes.iter().partition(|(_, change)| **change == PeerChange::Delete);
        let addresses = handover::added(changes, new);
        for (name, _) in &gone {
            self.leave(name).await;
        }
        let returning = stay.extract_if(.., |(name, change)| {
            **change == PeerChange::Add && new.peers.get(*name).is_some_and(|config| self.lingers_as(config).is_some())
        });
        for config in returning.collect::<Vec<_>>().into_iter().filter_map(|(name, _)| new.peers.get(name)) {
            self.take_back(config).await;
        }
        // One address has one session at a time: what had the address of a new peer goes before that one comes.
        self.let_go(|entry| handover::makes_room(&entry.config, &addresses)).await;
        for (name, change) in stay {
            self.change(name, change, new.peers.get(name)).await;
        }
        let leaving = gone.iter().filter_map(|(name, _)| self.leaving.get(*name)).map(|entry| entry.id).collect();
        self.tell_handover(handover::Input::Leave(leaving)).await;
    }

    /// A peer is no longer configured.
    async fn leave(&mut self, name: &str) {
        let Some(mut entry) = self.peers.remove(name) else { return };
        entry.leaving = true;
        let _ = entry.inbox.send(PeerMessage::Input(Box::new(session::Input::Linger))).await;
        let _ = self.inboxes.recovery.send(recovery::Input::Removed(entry.id)).await;
        self.leaving.insert(name.to_owned(), entry);
    }

    /// The name of the lingering peer that an added one is: the same name, or another one for the same session.
    fn lingers_as(&self, config: &PeerConfig) -> Option<String> {
        let place = |peer: &PeerConfig| (peer.address, peer.interface.clone(), peer.port);
        let same = |entry: &PeerEntry| {
            place(&entry.config) == place(config) && !matches!(peer_change(&entry.config, config), PeerChange::Reinit(_))
        };
        self.leaving.iter().find(|(name, entry)| **name == config.name || same(entry)).map(|(name, _)| name.clone())
    }

    /// A peer that lingers is configured again.
    async fn take_back(&mut self, config: &Arc<PeerConfig>) {
        let Some((old, mut entry)) = self.lingers_as(config).and_then(|name| self.leaving.remove_entry(&name)) else { return };
        let name = config.name.as_str();
        info!(peer = name, "configured again before it was let go");
        self.names.values_mut().filter(|name| **name == old).for_each(|known| name.clone_into(known));
        let change = peer_change(&entry.config, config);
        entry.leaving = false;
        let _ = entry.inbox.send(PeerMessage::Input(Box::new(session::Input::Start))).await;
        self.tell_handover(handover::Input::Stay(entry.id)).await;
        self.peers.insert(name.to_owned(), entry);
        self.change(name, &change, Some(config)).await;
    }

    /// Lets lingering peers go.
    async fn let_go(&mut self, chosen: impl Fn(&PeerEntry) -> bool) {
        for (name, entry) in self.leaving.extract_if(.., |_, entry| chosen(entry)).collect::<Vec<_>>() {
            info!(peer = name, "no longer configured: let go");
            for input in from_peer_change(entry.id, &PeerChange::Delete, &entry.config).peer {
                let _ = entry.inbox.send(PeerMessage::Input(Box::new(input))).await;
            }
            self.remove_bfd(entry.id).await;
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        info!(peer = from, to, "the session stays under another name");
        if let Some(entry) = self.peers.remove(from) {
            self.peers.insert(to.to_owned(), entry);
        }
        self.names.values_mut().filter(|name| *name == from).for_each(|name| to.clone_into(name));
    }

    async fn tell_handover(&self, input: handover::Input) {
        let _ = self.inboxes.handover.send(input).await;
    }

    async fn change(&mut self, name: &str, change: &PeerChange, config: Option<&Arc<PeerConfig>>) {
        if let PeerChange::Reinit(_) = change {
            info!(peer = name, ?change, "session is reset by its new configuration");
        }
        if let (PeerChange::Add, Some(config)) = (change, config) {
            self.add(name, Arc::clone(config), self.past_life.forwarding());
        }
        if let Some(word) = self.peers.get(name).and_then(|entry| handover::Input::of_change(entry.id, change)) {
            self.tell_handover(word).await;
        }
        let Some(entry) = self.peers.get_mut(name) else { return };
        if let Some(config) = config {
            entry.config = Arc::clone(config);
        }
        let words = from_peer_change(entry.id, change, &entry.config);
        let inbox = entry.inbox.clone();
        // A peer that comes while all are shut down starts with the others.
        for input in words.peer.into_iter().filter(|input| !(self.shut && matches!(input, session::Input::Start))) {
            let _ = inbox.send(PeerMessage::Input(Box::new(input))).await;
        }
        if let Some(word) = words.recovery {
            let _ = self.inboxes.recovery.send(word).await;
        }
        self.configure_bfd(name).await;
    }

    /// Tells the BFD thread what a peer wants of it.
    async fn configure_bfd(&self, name: &str) {
        if let Some(entry) = self.peers.get(name)
            && let Some(reports) = self.reports.get(&entry.id)
        {
            let _ = self.bfd.send(BfdMessage::Configure(entry.id, Arc::clone(&entry.config), Arc::clone(reports))).await;
        }
    }

    async fn remove_bfd(&mut self, peer: PeerId) {
        self.reports.remove(&peer);
        let _ = self.bfd.send(BfdMessage::Remove(peer)).await;
    }

    fn add(&mut self, name: &str, config: Arc<PeerConfig>, forwarding: PerFamily<bool>) {
        let id = PeerId(self.next_id);
        self.next_id += 1;
        let settings = session::Settings {
            seed: self.seed.wrapping_add(u64::from(id.0)),
            shards: u16::try_from(self.inboxes.shards.len()).unwrap_or(u16::MAX),
            restarting: self.past_life.is_some() && !*self.recovered.borrow(),
            forwarding,
        };
        let recorder = self.recording.as_ref().map(|recording| recording.session(id, &config, &settings));
        let machine = Peer::new(id, Arc::clone(&config), settings);
        let (inbox, messages) = mpsc::channel(PEER_INBOX);
        let listeners = Listeners { shards: self.inboxes.shards.clone(), recovery: self.inboxes.recovery.clone(), talk: self.talk.clone() };
        let (reports, reported) = watch::channel(None);
        self.reports.insert(id, Arc::new(reports));
        let watched = Watched { recovered: self.recovered.subscribe(), bfd: reported };
        let task = PeerTask::new(id, (machine, recorder), (listeners, self.chronicle.clone()), messages, watched);
        let paths = task.paths();
        let handle = self.tasks.spawn(task.run().instrument(info_span!("peer", name)));
        self.names.insert(handle.id(), name.to_owned());
        self.peers.insert(name.to_owned(), PeerEntry { id, config, leaving: false, inbox, paths });
    }

    async fn every_shard(&self, input: &rib::Input) {
        for shard in &self.inboxes.shards {
            let _ = shard.send(ShardMessage::Input(input.clone())).await;
        }
    }

    /// Carries out an operator's order. Neither a drain nor a shutdown outlives the process: a margay that starts is in service.
    pub async fn carry_out(&mut self, order: Order) {
        let done = match order {
            Order::Drain(on, done) => {
                info!(drained = on, "the operator's order: routes are told {} GRACEFUL_SHUTDOWN", if on { "with" } else { "without" });
                self.drained = on;
                self.every_shard(&rib::Input::Drain(on)).await;
                if !on && std::mem::take(&mut self.shut) {
                    self.every_peer(&session::Input::Start).await;
                }
                done
            }
            Order::Shutdown(text, done) => {
                info!(text, "the operator's order: all sessions are shut down");
                self.shut = true;
                self.every_peer(&session::Input::Stop(StopReason::AdministrativeShutdown(text))).await;
                done
            }
            // Whoever asked may be gone.
            Order::Ping(reply) => {
                let _ = reply.send(());
                return;
            }
        };
        self.publish();
        // Whoever gave the order may be gone.
        let _ = done.send(());
    }

    async fn every_peer(&self, input: &session::Input) {
        for entry in self.peers.values() {
            let _ = entry.inbox.send(PeerMessage::Input(Box::new(input.clone()))).await;
        }
    }

    /// Our own restart is over.
    pub async fn recovered(&mut self) {
        self.every_shard(&rib::Input::RecoveryDone).await;
        self.recovered.send_replace(true);
        self.chronicle.tell(Event::RestartOver);
        self.publish();
    }

    /// Problems changed, the configuration did not.
    pub fn problems(&mut self, problems: Arc<[Problem]>) {
        self.note_problems(problems);
        self.publish();
    }

    /// Takes over the problems, and tells the history which are new and which are gone.
    fn note_problems(&mut self, new: Arc<[Problem]>) {
        let old = std::mem::replace(&mut self.problems, new);
        self.chronicle.metrics().problems(&self.problems);
        let (before, after): (BTreeSet<&Problem>, BTreeSet<&Problem>) = (old.iter().collect(), self.problems.iter().collect());
        for problem in after.difference(&before) {
            self.chronicle.tell(Event::Problem { severity: problem.severity, text: problem.to_string() });
        }
        for problem in before.difference(&after) {
            self.chronicle.tell(Event::Solved { text: problem.to_string() });
        }
    }

    /// The process ends and comes back: sessions close without a NOTIFICATION, routes stay (G4).
    pub async fn stop(mut self) {
        self.stop_bfd().await;
        for entry in self.peers.values().chain(self.leaving.values()) {
            let _ = entry.inbox.send(PeerMessage::Input(Box::new(session::Input::Stop(StopReason::ProcessRestart)))).await;
        }
        self.peers.clear();
        self.leaving.clear();
        self.publish();
        while self.tasks.join_next().await.is_some() {}
    }

    /// Peers are told that BFD ends on purpose, before TCP closes.
    async fn stop_bfd(&mut self) {
        for peer in std::mem::take(&mut self.reports).into_keys() {
            let _ = self.bfd.send(BfdMessage::Remove(peer)).await;
        }
        let (reply, told) = oneshot::channel();
        let _ = self.bfd.send(BfdMessage::Status(reply)).await;
        let _ = tokio::time::timeout(Duration::from_secs(1), told).await;
    }

    /// Resolves with what calls for the supervisor besides configurations.
    pub async fn next(&mut self) -> Call {
        let due = self.rest.as_ref().map(|(due, _)| *due);
        tokio::select! {
            name = panicked(&mut self.tasks, &mut self.names) => Call::Panicked(name),
            () = async { match due { Some(due) => tokio::time::sleep_until(due.into()).await, None => std::future::pending().await } } => Call::Rest,
            Some(peers) = self.released.recv() => Call::Released(peers),
        }
    }

    /// Does what is called for.
    pub async fn take(&mut self, call: Call) {
        match call {
            Call::Panicked(name) => self.restart(&name).await,
            Call::Rest => {
                if let Some((_, config)) = self.rest.take() {
                    self.put_in_force(config, Arc::clone(&self.problems)).await;
                }
            }
            Call::Released(peers) => {
                self.let_go(|entry| peers.contains(&entry.id)).await;
                self.publish();
            }
        }
    }

    /// Starts a peer again whose task has panicked; what it had said is forgotten. One that lingers is let go.
    async fn restart(&mut self, name: &str) {
        error!(peer = name, "the peer's task panicked; its session starts anew");
        self.chronicle.tell(Event::Panic { peer: name.to_owned() });
        if let Some(entry) = self.leaving.remove(name) {
            self.every_shard(&rib::Input::PeerDown { peer: entry.id, keep: PerFamily::default(), end: SessionEnd::Deconfigured }).await;
            self.remove_bfd(entry.id).await;
        }
        let Some(entry) = self.peers.remove(name) else { return };
        let gone = entry.id;
        self.every_shard(&rib::Input::PeerDown { peer: entry.id, keep: PerFamily::default(), end: SessionEnd::Closed }).await;
        // The kernel has gone on forwarding all the while.
        self.add(name, entry.config, PerFamily { ipv4: true, ipv6: true });
        if let Some(entry) = self.peers.get(name).filter(|_| !self.shut) {
            let _ = entry.inbox.send(PeerMessage::Input(Box::new(session::Input::Start))).await;
        }
        self.remove_bfd(gone).await;
        self.configure_bfd(name).await;
        self.publish();
    }

    /// What has been published last.
    pub fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory.borrow())
    }

    fn publish(&self) {
        self.listeners.send_replace(Arc::new(ListenTable {
            addresses: listen_addresses(&self.config),
            peers: self.peers.values().map(listen_peer).collect(),
        }));
        self.directory.send_modify(|now| {
            *now = Arc::new(Directory {
                node: self.config.node.clone(),
                config: Some(Arc::clone(&self.config)),
                datastore: now.datastore.clone(),
                verdicts: now.verdicts.clone(),
                problems: Arc::clone(&self.problems),
                peers: self.leaving.iter().chain(&self.peers).map(|(name, entry)| (name.clone(), entry.clone())).collect(),
                shards: self.inboxes.shards.clone(),
                fib: Some(self.inboxes.fib.clone()),
                recovered: *self.recovered.borrow(),
                recovery: now.recovery.clone(),
                managed: now.managed,
                started: now.started,
                configured: self.configured,
                drained: self.drained,
                shut: self.shut,
                orders: Some(self.orders.clone()),
                chronicle: Some(self.chronicle.clone()),
                bfd: Some(self.bfd.clone()),
                copies: now.copies.clone(),
                kernel: now.kernel.clone(),
                silent: now.silent.clone(),
                memory: now.memory.clone(),
                agents: now.agents.clone(),
                collectors: now.collectors.clone(),
            });
        });
    }
}

/// A diff as an event.
fn configured(changes: &BTreeMap<String, PeerChange>) -> Event {
    let (mut added, mut removed, mut reset, mut reloaded) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (name, change) in changes {
        match change {
            PeerChange::Add => added.push(name.clone()),
            PeerChange::Delete => removed.push(name.clone()),
            PeerChange::Reinit(_) => reset.push(name.clone()),
            PeerChange::Reload(_) | PeerChange::Rename { .. } => reloaded.push(name.clone()),
            PeerChange::Keep => {}
        }
    }
    Event::Configured { added, removed, reset, reloaded }
}

/// What calls for the supervisor.
#[derive(Debug)]
pub enum Call {
    /// The task of this peer has panicked.
    Panicked(String),
    /// The second step of a configuration is due.
    Rest,
    /// Others have taken the place of these peers.
    Released(Vec<PeerId>),
}

/// Resolves with the name of a peer whose task has panicked (V9: that session ends, nothing else does).
async fn panicked(tasks: &mut JoinSet<()>, names: &mut BTreeMap<Id, String>) -> String {
    loop {
        let Some(ended) = tasks.join_next_with_id().await else { std::future::pending().await };
        let (id, panicked) = match ended {
            Ok((id, ())) => (id, false),
            Err(error) => (error.id(), error.is_panic()),
        };
        if let Some(name) = names.remove(&id)
            && panicked
        {
            return name;
        }
    }
}

fn listen_peer(entry: &PeerEntry) -> ListenPeer {
    ListenPeer {
        address: entry.config.address,
        interface: entry.config.interface.clone(),
        local: entry.config.local_address,
        authentication: entry.config.authentication.clone(),
        inbox: entry.inbox.clone(),
    }
}

/// Where to listen: what `--listen` or bindMode say, else everywhere.
pub fn listen_addresses(config: &NodeConfig) -> Vec<SocketAddr> {
    let wildcards = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let addresses = if config.listen.addresses.is_empty() { &wildcards[..] } else { &config.listen.addresses };
    addresses.iter().map(|address| SocketAddr::new(*address, config.listen.port)).collect()
}

#[cfg(test)]
mod tests;
