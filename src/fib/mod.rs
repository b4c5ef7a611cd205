//! FibSyncer machine: what the kernel should hold against what it holds. And the words that margay and
//! the kernel exchange, spoken by `kernel/` above the wall.
//!
//! ```text
//! shards ─changes→ route (rules) ─→ delta: decided ≠ kernel's ──turns──→ objects ──→ Output::Write, two batches at a time
//! kernel ─facts──→ interface, delta      └─ crowds: rows that leave one object together ─→ the object is changed
//! kernel ─answer─→ delta, objects, failure (tried again)
//! ```
//! With [`FibSyncer::with_objects`] routes that leave the same way go by a next-hop object; `objects` has what Linux does with these.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod crowds;
mod delta;
mod failure;
mod interface;
mod objects;
mod queries;
mod route;
mod rows;
mod status;
mod syncer;
mod turns;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;
use smallvec::SmallVec;

use crate::config::FibConfig;
use crate::policy::RouteSource;
use crate::types::{NextHop, QueryId, Sync};

pub use objects::numbers as object_numbers;
pub use syncer::FibSyncer;

/// The best route of a prefix, as the Loc-RIB hands it down.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct BestRoute {
    /// Where it comes from. Device and kernel routes are never written (they are there already).
    pub source: RouteSource,
    /// LOCAL_PREF, from which the metric of BGP-learned routes is made: 2147483647 − LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// What to do with packets.
    pub target: Target,
}

/// What to do with packets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Target {
    /// Send them on; more than one hop is multipath.
    Via(SmallVec<[Hop; 1]>),
    /// Drop them silently (own blocks, service ranges).
    Blackhole,
    /// Answer unreachable: no next hop can be resolved.
    Unreachable,
}

/// One resolved next hop.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Hop {
    /// The next hop that BGP named (for tunnels).
    pub next_hop: NextHop,
    /// The gateway on the link; none when the prefix itself is on the link.
    pub gateway: Option<IpAddr>,
    /// Index of the outgoing interface.
    pub interface: u32,
}

/// A change of the Loc-RIB; none removes the prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FibChange {
    /// The prefix.
    pub prefix: IpNet,
    /// The new best route.
    pub route: Option<BestRoute>,
}

/// Type of a kernel route (`RTN_…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteType {
    /// Sent to a gateway or out of an interface.
    Unicast,
    /// Dropped silently.
    Blackhole,
    /// Answered with unreachable.
    Unreachable,
    /// Answered with prohibited.
    Prohibit,
    /// Any other, by its number.
    Other(u8),
}

/// A route of the kernel's table, read or to be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KernelRoute {
    /// Key of the kernel: table, prefix and metric (with `tos`) name a route.
    #[serde(flatten)]
    pub key: RouteKey,
    /// `RTPROT_…`.
    pub protocol: u8,
    /// Type.
    pub kind: RouteType,
    /// `RT_SCOPE_…`.
    pub scope: u8,
    /// Next hops; empty for blackholes and the like.
    pub hops: SmallVec<[KernelHop; 1]>,
    /// `RTA_PREFSRC`.
    pub preferred_source: Option<IpAddr>,
    /// `RTA_NH_ID`: the next-hop object that it goes by, whose hops those above are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<u32>,
}

/// A next-hop object of the kernel (`ip nexthop`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelObject {
    /// Its number.
    pub id: u32,
    /// `RTPROT_…` of who made it.
    pub protocol: u8,
    /// What it leads to.
    pub object: NextHopObject,
}

/// What a next-hop object leads to (`RTM_NEWNEXTHOP`; Linux 5.3 and later).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextHopObject {
    /// One hop.
    Single(KernelHop),
    /// Several single objects, or one, by their numbers.
    Group(SmallVec<[u32; 2]>),
}

/// What names a route in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RouteKey {
    /// Routing table.
    pub table: u32,
    /// Destination.
    pub prefix: IpNet,
    /// Priority; IPv6 kernels store 1024 for none.
    pub metric: u32,
    /// Type of service; 0 for all that margay reads or writes.
    pub tos: u8,
}

/// One next hop of a kernel route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct KernelHop {
    /// Gateway of either family (an IPv6 gateway of an IPv4 route is RTA_VIA).
    pub gateway: Option<IpAddr>,
    /// Interface index.
    pub interface: u32,
    /// `RTNH_F_ONLINK`.
    pub onlink: bool,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Its name.
    pub name: Arc<str>,
    /// Administratively up and with carrier.
    pub up: bool,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterfaceAddress {
    /// Scope wider than link (`RT_SCOPE_UNIVERSE` or `SITE`).
    pub global: bool,
    /// `IFA_F_SECONDARY`.
    pub secondary: bool,
}

/// What the kernel says. Links, addresses, next-hop objects and routes (both families) are each told as Begin … End after start, after
/// every overrun and on request; live changes follow. The echo of our own writes is left out: `Written` tells of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelEvent {
    /// Interfaces by index.
    Link(Sync<u32, Link>),
    /// Addresses by interface index and address with prefix length.
    Address(Sync<(u32, IpNet), InterfaceAddress>),
    /// Next-hop objects of ours, by number.
    Object(Sync<u32, KernelObject>),
    /// Routes of table main, and of our table.
    Route(Sync<RouteKey, KernelRoute>),
    /// This interface went down or lost its last IPv4 address: the kernel has silently dropped the IPv4 routes all of
    /// whose hops left by it. Said of our own routes; those of others are removed one by one.
    Flushed {
        /// Index of the interface.
        interface: u32,
    },
    /// The answer to [`KernelOps`] of that number: what failed, by index, with the errno (positive).
    Written {
        /// Number of the batch.
        batch: u64,
        /// Index of the operation and errno of those that failed.
        failed: Vec<(usize, i32)>,
    },
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelOp {
    /// Create; fails with `EEXIST` where the key is taken, so nobody else's route is ever overwritten.
    Create(KernelRoute),
    /// Atomically replace our own route of the same key (or create it, should it be gone).
    Replace(KernelRoute),
    /// Delete, by key and protocol.
    Delete(KernelRoute),
    /// Make a next-hop object; fails with `EEXIST` where the number is taken.
    CreateObject(KernelObject),
    /// Make our object lead elsewhere, and all routes that go by it.
    ReplaceObject(KernelObject),
    /// Delete our object of this number; no route goes by it.
    DeleteObject(u32),
}

/// A batch of writes; the kernel answers with [`KernelEvent::Written`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelOps {
    /// Number, growing.
    pub batch: u64,
    /// The operations, in order.
    pub ops: Vec<KernelOp>,
}

/// What the FibSyncer hears.
#[derive(Clone, Debug)]
pub enum Input {
    /// New configuration (table, protocol, rules); everything is judged anew.
    Configure(Arc<FibConfig>),
    /// Changes of the Loc-RIB, as pulled from a shard: all that there are.
    Changes(Vec<FibChange>),
    /// The same, and the shard is about to have more.
    SomeChanges(Vec<FibChange>),
    /// The kernel's facts and answers.
    Kernel(KernelEvent),
    /// Nobody is waited for any more: routes of a past life that nobody claimed may go (bar 11).
    Sweep,
    /// Routes and their states, for the control API.
    Query(QueryId, Query),
    /// Whoever asked has no room: the answer waits.
    Pause(QueryId),
    /// There is room again.
    Resume(QueryId),
    /// Nobody reads the answer any more.
    Abandon(QueryId),
}

impl Input {
    /// The changes of the Loc-RIB that it tells of.
    pub fn changes(&self) -> Option<&[FibChange]> {
        match self {
            Self::Changes(changes) | Self::SomeChanges(changes) => Some(changes),
            _ => None,
        }
    }
}

/// Parts of one answer that follow one input at most.
pub const PARTS_A_ROUND: usize = 2;

/// A question to the FibSyncer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// Every route: desired, installed, failed.
    All,
    /// Those in this state.
    InState(FibState),
    /// These, those that there are; in one part.
    Prefixes(Vec<IpNet>),
}

/// What the FibSyncer says.
#[derive(Clone, Debug)]
pub enum Output {
    /// Write these. At most two batches are under way at a time, and no prefix in both.
    Write(KernelOps),
    /// Tell all links, addresses and routes again: an audit, or an answer that contradicts what is known.
    Resync,
    /// Room for more Loc-RIB changes.
    Pull {
        /// At most this many.
        credit: usize,
    },
    /// The kernel refused a route for the first time, or for another reason than before.
    Refused {
        /// The prefix.
        prefix: IpNet,
        /// errno, positive.
        errno: i32,
        /// In words.
        text: String,
    },
    /// Answer to a query, in no particular order; complete when `done`.
    Answer {
        /// The question.
        query: QueryId,
        /// States.
        rows: Vec<FibStatus>,
        /// No more follows.
        done: bool,
    },
}

/// What became of a prefix in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FibStatus {
    /// The prefix.
    pub prefix: IpNet,
    /// `installed`, `pending`, `failed`, `not wanted`, `adopted`.
    pub state: FibState,
    /// Why, in words: the rule that skipped it, the errno's meaning, the foreign route in the way.
    pub because: String,
    /// errno of the last failure.
    pub errno: Option<i32>,
    /// What we want there.
    pub wanted: Option<KernelRoute>,
}

/// See [`FibStatus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FibState {
    /// The kernel holds what we want.
    Installed,
    /// On its way.
    Pending,
    /// The kernel refused it; retried with back-off.
    Failed,
    /// A rule keeps it out, or its source writes it itself.
    #[serde(rename = "not wanted")]
    NotWanted,
    /// Of a past life, not yet claimed or swept.
    Adopted,
}
