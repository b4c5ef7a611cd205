//! Peer machine: one configured peer, its up to two connections, and what the shards learn of it.
//!
//! ```text
//!  bytes → line ─codec→ messages → connection (FSM) ─Effect→ peer ─→ ingest → Routes → shards
//!                                     │  ├ negotiate (two OPENs)      ├→ restart (what stays) → Down, SweepStale
//!                                     │  └ collision (which survives) ├→ flow (credit, walks) → Pull
//!                                     └→ NOTIFICATION, KEEPALIVE      └→ Connect, the next attempt
//!  shards ─Frames→ flow → line → Send                 timer: all of it as deadlines; status: all of it for people
//! ```
//!
//! Supported: RFC 4271 sections 4, 6, 8 and 10, 4486 and 9003 (Cease), 4724 and 8538 (graceful restart, both roles),
//! 5492 and 9072 (capabilities), 6286 (identifiers), 6608 (FSM subcodes), 6793 (four-octet AS), 2918 and 7313
//! (refresh), 7911 (ADD-PATH), 8654 (extended messages), 8950 (IPv4 with IPv6 next hops), 9494 (long-lived graceful
//! restart), 9687 (SendHold), 5882 and 9384 (BFD beside BGP), 9234 (roles).
//!
//! What surprises in other speakers, and where it is minded:
//! * Two speakers that judge a collision at different moments may each close another connection; the race stands in
//!   RFC 4271. `collision.rs` says what is done about it; where the peer does otherwise, both try again within a second.
//! * BIRD drops an Established session of a restarting peer as soon as TCP is up; here only a good OPEN does it (F8).
//!   So a BIRD's port is never probed: nothing connects while a session is Established.
//! * BIRD as a mere helper sends capability 64 with a time and no family: its paths do not stay (G6). OpenBGPD sets R
//!   always; R means nothing to the helper (W2).
//! * Old speakers refuse capabilities that they do not know instead of ignoring them: the next OPEN leaves them out (O10).
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod attempt;
mod codec;
mod collision;
mod connection;
mod counts;
mod established;
mod flow;
mod ingest;
mod line;
mod negotiate;
mod path;
mod peer;
mod refusal;
mod restart;
#[cfg(test)]
pub(crate) mod sample;
mod status;
#[cfg(test)]
mod tests;
mod timer;
mod traffic;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use crate::bfd;
use crate::config::PeerConfig;
use crate::types::{Attributes, ConnectionId, Family, NlriList, PeerId, PerFamily, RouterId, ShardId};
use crate::wire;

pub use ingest::shard_of;
pub use peer::{Peer, Settings};
pub use status::{AddPathStatus, Capabilities, CapabilitySet, GracefulRestartStatus, LastError, PeerStatus};
pub use traffic::{MessageCounts, Traffic};

/// What a session settled, for everybody who must know; made when it reaches Established.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionFacts {
    /// The peer.
    pub peer: PeerId,
    /// The connection that the session lives on: the name of this session among all of the peer's. Whoever answers
    /// the session with `Frames` gives it back, so that words for an earlier session are not taken for this one's.
    pub connection: ConnectionId,
    /// Its configuration when the session came up.
    pub config: Arc<PeerConfig>,
    /// What encoding and decoding depend on; `families` are those in use.
    pub context: wire::Context,
    /// Our address on the session.
    pub local: IpAddr,
    /// Our link-local address and the interface's index, if the session runs on one link that is known.
    pub local_link: Option<(Ipv6Addr, u32)>,
    /// The peer's address on the session.
    pub remote: IpAddr,
    /// The peer's BGP identifier.
    pub identifier: RouterId,
    /// The peer's graceful restart capability, if it sent one.
    pub graceful_restart: Option<wire::GracefulRestart>,
    /// The peer understands long-lived graceful restart, so it may hear LLGR_STALE paths (RFC 9494).
    pub long_lived: bool,
    /// Both sides have enhanced route refresh (RFC 7313).
    pub enhanced_refresh: bool,
    /// The peer has route refresh (RFC 2918).
    pub refresh: bool,
    /// How it came about.
    pub handshake: Arc<Handshake>,
}

/// How a session came about, octet by octet, for records of it (BMP).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handshake {
    /// Our OPEN, whole.
    pub sent: Bytes,
    /// The peer's, whole.
    pub received: Bytes,
    /// Our TCP port.
    pub local_port: u16,
    /// The peer's.
    pub remote_port: u16,
}

/// How a session ended, for records of it (BMP).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// We sent this NOTIFICATION, whole.
    NotificationSent(Bytes),
    /// We closed without one.
    Closed,
    /// The peer sent this NOTIFICATION, whole.
    NotificationReceived(Bytes),
    /// The peer closed, or the connection broke.
    Lost,
    /// The peer is no longer configured, and we closed without a NOTIFICATION.
    Deconfigured,
}

/// Decoded UPDATEs of one socket read, in order; one batch per shard.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteBatch {
    /// Who said it.
    pub peer: PeerId,
    /// What was said, in order.
    pub changes: Vec<RouteChange>,
}

/// One word of a peer about its table.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteChange {
    /// These prefixes are reached with these attributes.
    Announce(Arc<Attributes>, NlriList),
    /// These are not reached any more.
    Withdraw(NlriList),
    /// The initial table has been told (U12).
    EndOfRib(Family),
    /// BoRR: the table is told anew (RFC 7313).
    RefreshBegin(Family),
    /// EoRR: what was not told again goes.
    RefreshEnd(Family),
}

impl RouteChange {
    /// How many prefixes it names; one for a mark.
    pub fn prefixes(&self) -> usize {
        match self {
            Self::Announce(_, nlri) | Self::Withdraw(nlri) => nlri.len(),
            Self::EndOfRib(_) | Self::RefreshBegin(_) | Self::RefreshEnd(_) => 1,
        }
    }
}

/// Why a session is to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// 6/2 with text; stays down until `Start`.
    AdministrativeShutdown(String),
    /// 6/4 with text (RFC 9003); starts again by itself. With N on both sides the peer keeps our paths meanwhile.
    AdministrativeReset(String),
    /// The same as a hard reset (6/9, RFC 8538): nobody keeps anything.
    HardReset(String),
    /// 6/3; the peer is no longer configured.
    Deconfigured,
    /// 6/6; starts again by itself with its new configuration.
    ConfigurationChange,
    /// The process ends and comes back: TCP just closes, no NOTIFICATION (G4).
    ProcessRestart,
    /// 6/8: the process has no memory left for what the peer says, in words; starts again by itself after this time (Q2).
    OutOfResources {
        /// What people are told.
        text: String,
        /// How long it stays down.
        after: Duration,
    },
    /// The peer is no longer configured, and as a node of this cluster it will know by itself: TCP just closes where
    /// graceful restart is agreed, so that it keeps our routes until then; else 6/3.
    HandedOver,
}

/// What the Peer machine hears.
#[derive(Clone, Debug)]
pub enum Input {
    /// Leave the stopped state: connect or accept.
    Start,
    /// Stop; see the reason.
    Stop(StopReason),
    /// The peer is no longer configured, but what takes its place has not arrived: the session goes on. Once it is lost its
    /// paths stay and no other is made, until `Stop`. `Start` takes it back.
    Linger,
    /// New configuration. What can be taken over in place is; the caller sends `Stop(ConfigurationChange)`
    /// first where `config::diff` says Reinit.
    Configure(Arc<PeerConfig>),
    /// The connect asked for by `Output::Connect` succeeded, or a connection was accepted.
    Connected {
        /// Its number: the one of `Output::Connect`, or one from `Peer::allocate` for an accepted connection.
        connection: ConnectionId,
        /// We opened it.
        outgoing: bool,
        /// Our end.
        local: SocketAddr,
        /// The peer's end.
        remote: SocketAddr,
        /// Our link-local address and interface index on the link of this session, if there is one.
        local_link: Option<(Ipv6Addr, u32)>,
    },
    /// The connect failed.
    ConnectFailed {
        /// Its number.
        connection: ConnectionId,
        /// The system's words.
        error: String,
    },
    /// Bytes as they came, any cut.
    Received {
        /// On which connection.
        connection: ConnectionId,
        /// The bytes.
        bytes: Bytes,
    },
    /// The peer closed, or the connection broke.
    Closed {
        /// Its number.
        connection: ConnectionId,
        /// The system's words; none for a plain FIN.
        error: Option<String>,
    },
    /// The socket took bytes: so many are left in our write buffer (SendHold, credit). Due after every write that
    /// took something, also when nothing is left.
    Written {
        /// On which connection.
        connection: ConnectionId,
        /// Bytes of ours still waiting ahead of the socket.
        waiting: usize,
    },
    /// The runtime stopped reading from this connection because a shard has no room, or reads again. While it does
    /// not read, silence is not the peer's: Hold is extended, at most to three times its length (F4).
    Paused {
        /// On which connection.
        connection: ConnectionId,
        /// Reading has stopped.
        paused: bool,
    },
    /// Frames that answer a `Pull`; `ended` lists families whose table is now told in full by that shard.
    Frames {
        /// The session that they were made for: [`SessionFacts::connection`].
        connection: ConnectionId,
        /// Which shard.
        shard: ShardId,
        /// Encoded messages, each whole.
        frames: Vec<Bytes>,
        /// Families whose walk (the initial table, or a refresh) is complete in this shard with these frames. When all
        /// shards said so the session sends End-of-RIB, or EoRR after a refresh: shards make neither.
        ended: Vec<Family>,
    },
    /// Paths held for this peer in a shard, for max-prefix and status.
    Counts {
        /// Which shard.
        shard: ShardId,
        /// The counters by family.
        counts: PerFamily<PrefixCounts>,
    },
    /// What BFD says of the path to the peer (RFC 5882).
    Bfd(bfd::Report),
    /// Our own restart is over: R is no longer set in OPENs.
    RecoveryDone,
    /// The link of a directly connected peer has gone, in words: its sessions are lost (F16).
    LinkDown(String),
    /// Our source address, or the link, has come: a pause between connects is over.
    LinkUp,
    /// Ask the peer for its table again (soft reset in).
    RequestRefresh(Family),
    /// Tell the peer our table again (soft reset out): as if it had asked.
    Resend(Family),
}

/// Prefix counters of a peer in one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PrefixCounts {
    /// Paths in Adj-RIB-In before policy.
    pub received: u64,
    /// Paths that policy and protocol let in.
    pub accepted: u64,
    /// Paths in Adj-RIB-Out.
    pub advertised: u64,
}

/// What the Peer machine says.
#[derive(Clone, Debug)]
pub enum Output {
    /// Open a TCP connection to the configured address, port, source, TTL and key.
    Connect {
        /// Number for the answers.
        connection: ConnectionId,
    },
    /// Write these bytes, after what was written before.
    Send {
        /// On which connection.
        connection: ConnectionId,
        /// One or more whole messages.
        bytes: Bytes,
    },
    /// Close; with `linger` as H5 says: shut down writing, discard input for at most 1 s, then close.
    Close {
        /// Which.
        connection: ConnectionId,
        /// A NOTIFICATION is on its way.
        linger: bool,
    },
    /// Established: to all shards and to recovery.
    Up(Arc<SessionFacts>),
    /// No longer Established: to all shards and to recovery. Families in `keep` turn stale instead of going.
    Down {
        /// Graceful restart helper: these stay, stale.
        keep: PerFamily<bool>,
        /// How it ended.
        end: SessionEnd,
    },
    /// The configuration changed: to all shards, which know of the peer by an `Up` that was said before, if at all. The session
    /// says it, and nobody else, so that it cannot overtake an `Up` that still carries the old one.
    Reload(Arc<PeerConfig>),
    /// The helper's wait for this family is over: what is still stale goes.
    SweepStale(Family),
    /// The restart time is over, long-lived graceful restart begins (RFC 9494): what is stale in this family is the last choice
    /// from now on, and what carries NO_LLGR goes.
    LongLived(Family),
    /// To one shard.
    Routes(ShardId, RouteBatch),
    /// The peer asks for our table (R1): each shard walks it once and then names the family in `ended`. Said at most
    /// once until all shards did so (R4); the session itself sends BoRR before it and EoRR after (RFC 7313).
    RefreshRequested(Family),
    /// Ask the shard: the peer has room for `credit` bytes of its frames. Not said again before it has answered.
    Pull {
        /// Which.
        shard: ShardId,
        /// Bytes.
        credit: usize,
    },
    /// End-of-RIB of the family has been received (for recovery); the mark itself is in the batches.
    EndOfRib(Family),
    /// A session change, for logs, events and metrics.
    Event(Event),
}

/// A session change worth telling.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The FSM's state changed (the more advanced of the two connections).
    State {
        /// Before.
        from: State,
        /// After.
        to: State,
    },
    /// The session ended, or an attempt failed, and why.
    Down(DownReason),
    /// A connection gave way to another one of the same peer: nothing has failed.
    Superseded(DownReason),
    /// An UPDATE had faults that did not cost the session (U25).
    Fault {
        /// Each fault with what was done about it.
        text: String,
        /// The whole message in hexadecimal, at most 4096 octets of it.
        message: String,
    },
    /// The peer's paths passed three quarters of the limit, or the limit (Q3).
    PrefixLimit {
        /// In which family.
        family: Family,
        /// Paths received, before policy.
        received: u64,
        /// The limit.
        limit: u32,
    },
}

/// States of RFC 4271 section 8; of a peer: the more advanced of its connections'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum State {
    /// Nothing is tried.
    #[default]
    Idle,
    /// A TCP connection is being opened.
    Connect,
    /// Waiting for the next attempt, or for the peer.
    Active,
    /// TCP is up, our OPEN sent.
    OpenSent,
    /// OPENs exchanged.
    OpenConfirm,
    /// Routes flow.
    Established,
}

/// Who ended a session and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DownReason {
    /// Who.
    pub by: Party,
    /// NOTIFICATION code, 0 where none was sent.
    pub code: u8,
    /// NOTIFICATION subcode.
    pub subcode: u8,
    /// In words.
    pub text: String,
}

/// Who is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Party {
    /// We sent a NOTIFICATION or closed.
    Us,
    /// The peer did.
    Peer,
    /// TCP failed.
    Transport,
}
