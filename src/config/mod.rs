//! What this node is to do: the compiler's result, plain data that can be compared field by field.
//!
//! [`diff`] says what a new configuration changes and which sessions it touches.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod diff;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

use crate::policy::Policy;
use crate::types::{Asn, AttributeCodes, ClusterId, Family, PerFamily, RouterId};

/// Everything that the machines need to know of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeConfig {
    /// Name of our Node resource.
    pub node: String,
    /// BGP identifier of every session.
    pub router_id: RouterId,
    /// Our AS.
    pub asn: Asn,
    /// Listening sockets.
    pub listen: ListenConfig,
    /// Peers by session name (`Mesh_10_0_0_2`).
    pub peers: BTreeMap<String, Arc<PeerConfig>>,
    /// What we originate.
    pub origin: OriginConfig,
    /// What goes into the kernel.
    pub fib: FibConfig,
    /// How much is logged, unless `--log-level` says otherwise.
    pub log_level: LogLevel,
    /// After our own restart routes of a past life stay in the kernel until some peer is up, however long that takes. Read at start.
    pub keep_without_peers: bool,
}

/// How much is logged (`logSeverityScreen`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// `Error` and `Fatal`.
    Error,
    /// `Warning`.
    Warn,
    /// `Info`, and where nothing is set.
    #[default]
    Info,
    /// `Debug`.
    Debug,
    /// `Trace`.
    Trace,
}

impl LogLevel {
    /// Calico's word in any case; none for another.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "trace" => Self::Trace,
            "debug" => Self::Debug,
            "info" => Self::Info,
            "warning" | "warn" => Self::Warn,
            "error" | "fatal" => Self::Error,
            _ => return None,
        })
    }
}

impl std::fmt::Display for LogLevel {
    /// The level's name in `--log-level`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

impl NodeConfig {
    /// A node that listens on port 179 everywhere and has neither peers nor routes.
    pub fn new(node: impl Into<String>, asn: Asn, router_id: RouterId) -> Self {
        Self {
            node: node.into(),
            router_id,
            asn,
            listen: ListenConfig { port: 179, addresses: Vec::new() },
            peers: BTreeMap::new(),
            origin: OriginConfig::default(),
            fib: FibConfig::default(),
            keep_without_peers: false,
            log_level: LogLevel::default(),
        }
    }
}

/// Where we listen (`listenPort`, `bindMode`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListenConfig {
    /// TCP port.
    pub port: u16,
    /// bindMode NodeIP: only these addresses; empty means all.
    pub addresses: Vec<IpAddr>,
}

/// What kind of BGPPeer a session comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerKind {
    /// Node-to-node mesh.
    Mesh,
    /// A global BGPPeer.
    Global,
    /// A BGPPeer of this node, reverse peerings included.
    Node,
    /// A local workload.
    Workload,
}

/// How next hops are written on export (Calico's `nextHopMode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum NextHopMode {
    /// The protocol's rule.
    #[default]
    Auto,
    /// Always ourselves.
    #[serde(rename = "Self")]
    SelfAddress,
    /// Never changed.
    Keep,
}

/// TTL of a session's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Ttl {
    /// Sent as 64 and not checked (Calico's `multihop`).
    Multihop,
    /// GTSM (RFC 5082): sent as 255, accepted from 256 − `hops`.
    Gtsm {
        /// Routers allowed between the peers, counted as Calico's ttlSecurity does.
        hops: u8,
    },
    /// One hop without GTSM: sent as 1.
    Direct,
}

/// Directions of ADD-PATH that we offer (RFC 7911).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AddPath {
    /// Not offered.
    #[default]
    Off,
    /// We can receive several paths.
    Receive,
    /// We would send several paths.
    Send,
    /// Both.
    Both,
}

impl AddPath {
    /// The Send/Receive field of the capability; none where it is not offered.
    pub fn mode(self) -> Option<u8> {
        match self {
            Self::Off => None,
            Self::Receive => Some(1),
            Self::Send => Some(2),
            Self::Both => Some(3),
        }
    }
}

/// How long a peer may take no byte of ours (RFC 9687).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum SendHold {
    /// Eight minutes, or twice the negotiated hold time if that is longer.
    #[default]
    Derived,
    /// For ever.
    Off,
    /// So long, but not less than the negotiated hold time.
    After(Duration),
}

/// What becomes of AS paths beyond what the protocol says (`margay.io/as-path`). The first two concern sessions with another AS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AsPathRules {
    /// Private AS numbers (RFC 6996) are left out of what is told, but for ours in front.
    pub remove_private: bool,
    /// The peer's own AS number in what it is told is replaced by ours, so that two sites of one AS hear each other.
    pub replace_peer: bool,
    /// AS_SETs are let in, which RFC 9774 has treated as withdrawals; such a path is used here and told to nobody.
    pub allow_sets: bool,
}

/// A TCP-MD5 key, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub Arc<[u8]>);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

impl Serialize for Password {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("…")
    }
}

/// TCP-AO keys of a session (RFC 5925). A key is rolled over by adding the next one at both ends, and then taking the old one away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AoKeys {
    /// Master keys of 1 to 80 octets by number; the number is sent and expected as KeyID.
    pub keys: BTreeMap<u8, Password>,
    /// The key that we sign with, and ask the peer to sign with.
    pub current: u8,
    /// How segments are signed.
    pub algorithm: AoAlgorithm,
}

/// Algorithms that RFC 5926 requires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AoAlgorithm {
    /// HMAC-SHA-1-96.
    #[default]
    HmacSha1,
    /// AES-128-CMAC-96.
    CmacAes128,
}

/// TCP-MD5 (`password`) or TCP-AO of a session: fails closed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Authentication {
    /// None asked.
    #[default]
    None,
    /// The TCP-MD5 key is known.
    Md5(Password),
    /// The TCP-AO keys are known.
    Ao(AoKeys),
    /// A key is asked for but its Secret or key is missing: the session waits. Which one, for people.
    Missing(String),
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeerConfig {
    /// Session name, as Calico's tools parse it: `Mesh_10_0_0_2`, `Node_10_0_0_1_port_1179`.
    pub name: String,
    /// Mesh, global, node or workload.
    pub kind: PeerKind,
    /// The resource that asked for it, for people: `BGPPeer tor-a`, `BGPConfiguration default (mesh)`.
    pub asked_by: String,
    /// The peer is a node of this cluster, by its address: both ends follow the same datastore.
    pub cluster_node: bool,
    /// The peer's address.
    pub address: IpAddr,
    /// Interface of a link-local address.
    pub interface: Option<String>,
    /// The peer's TCP port.
    pub port: u16,
    /// The AS we use on this session.
    pub local_asn: Asn,
    /// The peer's AS.
    pub remote_asn: Asn,
    /// Our identifier.
    pub router_id: RouterId,
    /// Source address; none lets the kernel choose.
    pub local_address: Option<IpAddr>,
    /// Never connects, only accepts.
    pub passive: bool,
    /// TCP-MD5.
    pub authentication: Authentication,
    /// TTL handling.
    pub ttl: Ttl,
    /// Proposed hold time, whole seconds: 0 or at least 3.
    pub hold_time: u16,
    /// How long the peer may take no byte.
    pub send_hold: SendHold,
    /// Keepalive interval; none means a third of the negotiated hold time.
    pub keepalive: Option<Duration>,
    /// Pause before the first connect (upper bound of a random choice).
    pub connect_delay: Duration,
    /// Pause between connects.
    pub connect_retry: Duration,
    /// Least and greatest pause after an error.
    pub idle_hold: (Duration, Duration),
    /// Graceful restart time in our OPEN, seconds, 0 to 4095.
    pub restart_time: u16,
    /// Long-lived graceful restart (RFC 9494): for how many seconds (1 to 16777215) paths stay after the restart time; none: it is off.
    pub long_lived: Option<u32>,
    /// A peer of our AS that does not know long-lived graceful restart is told LLGR_STALE paths with LOCAL_PREF 0 and NO_EXPORT, not
    /// spared them (RFC 9494 section 4.6).
    pub long_lived_partial: bool,
    /// What becomes of stale paths when the session is lost again.
    pub consecutive_restarts: ConsecutiveRestarts,
    /// Families to offer.
    pub families: PerFamily<bool>,
    /// Offer ADD-PATH, in which directions.
    pub add_path: AddPath,
    /// Offer extended messages (RFC 8654).
    pub extended_messages: bool,
    /// Offer IPv4 with IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// We are a reflector of this cluster and the peer is a client of it.
    pub reflector_client: bool,
    /// Our cluster, if we are a reflector.
    pub cluster_id: Option<ClusterId>,
    /// How next hops are written on export.
    pub next_hop_mode: NextHopMode,
    /// Occurrences of our AS tolerated in a path (`numAllowedLocalASNumbers`).
    pub allow_local_as: u32,
    /// Max-prefix.
    pub max_prefixes: MaxPrefixes,
    /// BFD beside the session.
    pub bfd: Option<BfdConfig>,
    /// Our role (RFC 9234); on eBGP sessions only.
    pub role: Option<RoleConfig>,
    /// Host name told to the peer (capability 73).
    pub host_name: Option<Arc<str>>,
    /// Attributes that are dropped from what the peer says before anything looks at them (U21).
    pub discard_attributes: AttributeCodes,
    /// What becomes of AS paths beyond what the protocol says.
    pub as_path: AsPathRules,
    /// Import policy by family.
    pub import: PerFamily<Arc<Policy>>,
    /// Export policy by family.
    pub export: PerFamily<Arc<Policy>>,
}

impl PeerConfig {
    /// A session between `local` and `peer` as Calico's speakers make it where no resource says otherwise: for the
    /// family of the address, from whatever source address the kernel chooses, with policies that let nothing through.
    pub fn new(name: impl Into<String>, local: (Asn, RouterId), peer: (IpAddr, Asn)) -> Self {
        let ((local_asn, router_id), (address, remote_asn)) = (local, peer);
        Self {
            name: name.into(),
            kind: PeerKind::Node,
            asked_by: String::new(),
            cluster_node: false,
            address,
            interface: None,
            port: 179,
            local_asn,
            remote_asn,
            router_id,
            local_address: None,
            passive: false,
            authentication: Authentication::None,
            ttl: Ttl::Multihop,
            hold_time: 240,
            send_hold: SendHold::Derived,
            keepalive: None,
            connect_delay: Duration::from_secs(2),
            connect_retry: Duration::from_secs(5),
            idle_hold: (Duration::from_secs(5), Duration::from_secs(30)),
            restart_time: 120,
            long_lived: None,
            long_lived_partial: false,
            consecutive_restarts: ConsecutiveRestarts::Keep,
            families: PerFamily { ipv4: address.is_ipv4(), ipv6: address.is_ipv6() },
            add_path: AddPath::Both,
            extended_messages: false,
            extended_next_hop: false,
            reflector_client: false,
            cluster_id: None,
            next_hop_mode: NextHopMode::Auto,
            allow_local_as: 0,
            max_prefixes: MaxPrefixes::default(),
            bfd: None,
            role: None,
            host_name: None,
            discard_attributes: AttributeCodes::default(),
            as_path: AsPathRules::default(),
            import: PerFamily::default(),
            export: PerFamily::default(),
        }
    }

    /// iBGP: the peer's AS is the one we use on the session.
    pub fn is_ibgp(&self) -> bool {
        self.local_asn == self.remote_asn
    }

    /// No router stands between: the session lives and dies with a link of ours (F16).
    pub fn is_directly_connected(&self) -> bool {
        self.interface.is_some() || matches!(self.ttl, Ttl::Direct | Ttl::Gtsm { hops: 0 | 1 })
    }

    /// The families that the session offers.
    pub fn offered(&self) -> impl Iterator<Item = Family> + '_ {
        self.families.iter().filter(|(_, on)| **on).map(|(family, _)| family)
    }
}

/// A role of RFC 9234, with its number in the capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// We sell transit to the peer.
    Provider,
    /// We are a route server and the peer is a client.
    RouteServer,
    /// The peer is a route server and we are a client.
    RouteServerClient,
    /// The peer sells transit to us.
    Customer,
    /// Both tell their own routes and those of their customers.
    Peer,
}

impl Role {
    /// What the other end must be (L1).
    #[must_use]
    pub fn counterpart(self) -> Self {
        match self {
            Self::Provider => Self::Customer,
            Self::RouteServer => Self::RouteServerClient,
            Self::RouteServerClient => Self::RouteServer,
            Self::Customer => Self::Provider,
            Self::Peer => Self::Peer,
        }
    }
}

/// Our role on a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RoleConfig {
    /// What we are.
    pub role: Role,
    /// A peer that names no role is refused.
    pub strict: bool,
}

/// BFD (RFC 5880) of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BfdConfig {
    /// Desired interval between packets, both ways; at least 50 ms.
    pub interval: Duration,
    /// Packets that may be missed, at least 1.
    pub multiplier: u8,
    /// Several hops (RFC 5883, port 4784), or one (RFC 5881, port 3784, TTL 255 required).
    pub multihop: bool,
    /// The session waits until BFD is up.
    pub strict: bool,
    /// A failure counts as a restart of the peer, whose paths stay stale, unless its C bit says otherwise.
    pub graceful: bool,
}

/// What becomes of paths that are stale when the session of a restarting peer is lost once more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ConsecutiveRestarts {
    /// They stay as long as the series of losses is younger than the stale path time (360 s): a peer that starts twice in a row
    /// still forwards.
    #[default]
    Keep,
    /// They go, as RFC 4724 section 4.2 has it.
    Drop,
}

/// What happens when a peer sends more paths than expected (Q3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MaxPrefixes {
    /// Paths a family, counted before policy.
    pub limit: u32,
    /// What happens then.
    pub action: MaxPrefixAction,
}

impl Default for MaxPrefixes {
    fn default() -> Self {
        Self { limit: 100_000, action: MaxPrefixAction::Warn }
    }
}

/// See [`MaxPrefixes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MaxPrefixAction {
    /// Say so in `show problems`.
    Warn,
    /// End the session with 6/1; it stays idle until an operator resets it or the configuration changes.
    Idle,
    /// The same, but it starts again by itself after this time, not before.
    Restart(Duration),
}

/// What this node announces by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OriginConfig {
    /// IPAM blocks of this node (confirmed and pendingDeletion): a blackhole each, /32 and /128 excepted.
    pub blocks: Vec<IpNet>,
    /// Service addresses and ranges to announce.
    pub services: Vec<IpNet>,
    /// Host routes of `reachableBy`: destination and gateway.
    pub static_routes: Vec<(IpNet, IpAddr)>,
    /// Interface patterns whose connected subnets are no device routes (`ignoredInterfaces`, then Calico's own).
    pub ignored_interfaces: Vec<String>,
    /// Protocol number of our own kernel routes ([`FibConfig::protocol`]), which are not learned.
    pub protocol: u8,
}

impl Default for OriginConfig {
    fn default() -> Self {
        let protocol = FibConfig::default().protocol;
        Self { blocks: Vec::new(), services: Vec::new(), static_routes: Vec::new(), ignored_interfaces: Vec::new(), protocol }
    }
}

/// What goes into the kernel, and how (`programClusterRoutes`, IPPools).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FibConfig {
    /// Routing table.
    pub table: u32,
    /// Protocol number of our routes; the only one that we ever touch.
    pub protocol: u8,
    /// Rules tried in order on a prefix; the first that covers it decides; none means: program it plainly.
    pub rules: Vec<FibRule>,
    /// BGP next hops whose routes are not programmed: nodes that WireGuard reaches, so that Felix routes to them.
    pub wireguard: BTreeSet<IpAddr>,
}

impl Default for FibConfig {
    fn default() -> Self {
        Self { table: 254, protocol: 12, rules: Vec::new(), wireguard: BTreeSet::new() }
    }
}

/// One rule of [`FibConfig`]: prefixes inside `cidr` get `action`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FibRule {
    /// Covering prefix.
    pub cidr: IpNet,
    /// Where it comes from, for people: `IPPool pool-a (vxlanMode Always)`.
    pub name: Arc<str>,
    /// Only BGP-learned routes are meant (service reject CIDRs).
    pub learned_only: bool,
    /// What to do.
    pub action: FibAction,
}

/// See [`FibRule`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum FibAction {
    /// Not programmed.
    Skip,
    /// Programmed with the resolved gateway.
    Plain,
    /// Programmed through this device with the BGP next hop as on-link gateway.
    Tunnel {
        /// Name of the tunnel device (`tunl0`).
        device: String,
        /// Next hops inside this subnet are programmed plainly (CrossSubnet).
        unless_in: Option<IpNet>,
    },
}
