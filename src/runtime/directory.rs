//! Who is there now: published whole by the supervisor whenever it changes, read by the control API.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::calico::{Compiler, Problem};
use crate::config::{NodeConfig, PeerConfig};
use crate::datastore::{self, Judgement, State};
use crate::kernel;
use crate::origin::Origin;
use crate::runtime::agents::AgentMessage;
use crate::runtime::bfd_thread::BfdMessage;
use crate::runtime::bmp::CollectorStatus;
use crate::runtime::history::Chronicle;
use crate::runtime::memory_guard::MemoryStatus;
use crate::runtime::message::{FibMessage, Order, PeerMessage, Question, RecoveryStatus, ShardMessage};
use crate::runtime::pulse::Silent;
use crate::types::PeerId;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    /// Name of our Node.
    pub node: String,
    /// The configuration in force; none before the first.
    pub config: Option<Arc<NodeConfig>>,
    /// How the datastore is, at any moment; none before it is opened.
    pub datastore: Option<watch::Receiver<datastore::Status>>,
    /// Takes operators' words about changes on trial; none before the datastore is opened.
    pub verdicts: Option<mpsc::Sender<Judgement>>,
    /// All that is wrong with the resources.
    pub problems: Arc<[Problem]>,
    /// Peers by session name.
    pub peers: BTreeMap<String, PeerEntry>,
    /// The shards' inboxes.
    pub shards: Vec<mpsc::Sender<ShardMessage>>,
    /// The FibSyncer's inbox.
    pub fib: Option<mpsc::Sender<FibMessage>>,
    /// The kernel thread's inbox.
    pub kernel: Option<mpsc::Sender<kernel::Command>>,
    /// Which machines do not answer.
    pub silent: Option<watch::Receiver<Silent>>,
    /// Our own restart is over.
    pub recovered: bool,
    /// What our own restart waits for; none before the first configuration.
    pub recovery: Option<watch::Receiver<RecoveryStatus>>,
    /// A service manager has started us and is told how we are.
    pub managed: bool,
    /// When the process began.
    pub started: jiff::Timestamp,
    /// When the configuration in force was taken.
    pub configured: jiff::Timestamp,
    /// How much memory the process uses, and may; none where nothing bounds it.
    pub memory: Option<watch::Receiver<MemoryStatus>>,
    /// The node is drained: peers are told GRACEFUL_SHUTDOWN with every route.
    pub drained: bool,
    /// All sessions are shut down until the drain ends.
    pub shut: bool,
    /// The supervisor's inbox; none before the first configuration.
    pub orders: Option<mpsc::Sender<Order>>,
    /// The BFD thread's inbox.
    pub bfd: Option<mpsc::Sender<BfdMessage>>,
    /// What has happened; none before the machines run.
    pub chronicle: Option<Chronicle>,
    /// The door of the local agents; none before the first configuration.
    pub agents: Option<mpsc::Sender<AgentMessage>>,
    /// The collectors of monitoring data.
    pub collectors: Vec<watch::Receiver<CollectorStatus>>,
    /// Where machines are looked at.
    pub copies: Copies,
}

/// Whose machine can be looked at, or copied to try a proposed configuration on. Shards hand out copies of theirs by
/// [`ShardMessage::Copy`].
#[derive(Clone, Debug, Default)]
pub struct Copies {
    /// The Compiler's task.
    pub compiler: Option<mpsc::Sender<Question<Compiler>>>,
    /// The Origin machine's task; none before the first configuration.
    pub origin: Option<mpsc::Sender<Question<Origin>>>,
}

/// One peer.
#[derive(Clone, Debug)]
pub struct PeerEntry {
    /// Its number in rows of shards.
    pub id: PeerId,
    /// Its configuration.
    pub config: Arc<PeerConfig>,
    /// It is no longer configured and lingers until others have taken its place.
    pub leaving: bool,
    /// Its task.
    pub inbox: mpsc::Sender<PeerMessage>,
    /// Paths received from it, before policy, in all families.
    pub paths: watch::Receiver<u64>,
}

impl Directory {
    /// What is wrong with the datastore, in words; none while it is in sync.
    pub fn datastore_words(&self) -> Option<String> {
        let status = self.datastore.as_ref()?.borrow();
        let name = status.kind.name();
        match &status.state {
            State::InSync => None,
            State::Starting => Some(format!("{name}: not everything has been told yet")),
            State::Away { since, why } => Some(format!("{name} has been away since {since}: {why}")),
            State::HeldBack { until } => Some(format!("{name} lacks most of what is in force, held back until {until}")),
        }
    }

    /// A peer by session name, or by its address, which may come with its port (`10.0.0.2:1790`, `[fd00::2]:1790`) where it has several.
    pub fn find(&self, name: &str) -> Option<(&String, &PeerEntry)> {
        let (address, port) = match (name.parse::<SocketAddr>(), name.parse::<IpAddr>()) {
            (Ok(socket), _) => (Some(socket.ip()), Some(socket.port())),
            (_, address) => (address.ok(), None),
        };
        let is_there = |entry: &PeerEntry| Some(entry.config.address) == address && port.is_none_or(|port| port == entry.config.port);
        self.peers.get_key_value(name).or_else(|| self.peers.iter().find(|(_, entry)| is_there(entry)))
    }

    /// The peer with this number, and its session name.
    pub fn numbered(&self, id: PeerId) -> Option<(&str, &PeerEntry)> {
        self.peers.iter().find(|(_, entry)| entry.id == id).map(|(name, entry)| (name.as_str(), entry))
    }

    /// The session name of a peer's number.
    pub fn peer_name(&self, id: PeerId) -> Option<&str> {
        self.numbered(id).map(|(name, _)| name)
    }
}
