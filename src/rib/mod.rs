//! Shard machine: Adj-RIB-In, decision, Loc-RIB, export, Adj-RIB-Out of a slice of the prefixes.
//!
//! ```text
//! RouteBatch ─→ adj_rib_in ─import (rules, policy)─→ ┐                ┌→ groups ─export (rules, policy)─→ update_group ─Pull→ frames
//! Sync of local routes ────────────────────────────→ ├ table: dirty ─→ decision
//! kernel's words ─→ next_hop ─(dependants)─────────→ ┘                └→ loc_rib: pending ─PullFib→ changes
//! ```
//!
//! Collectors of monitoring data (BMP) pull what has changed of all three tables; see `monitor`.
//!
//! Inputs only change tables and mark what is dirty; [`Shard::finish_round`] decides it once, however often it changed. Only where
//! one peer alone brings much it is decided bite by bite, while fast memory still has it; peers and FibSyncer hear of it at the end
//! of the round all the same.
//! What may touch a whole table (sweeps, reloads, fills of groups, queries) is a task of `walk`, done in steps between
//! rounds: [`Shard::deadline`] is *now* as long as there is one. So it is while the log of an Adj-RIB-Out is compacted, a step a round.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod adj_rib_in;
mod adj_rib_out;
mod attributes;
mod bits;
mod bunch;
mod contents;
mod decision;
mod dependants;
mod explain;
mod export;
mod flush;
mod groups;
mod import;
mod journal;
mod loc_rib;
mod monitor;
mod next_hop;
mod original;
mod outbound;
mod path;
mod pulls;
mod reader;
mod receiver;
mod rewrite;
mod sent;
mod shard;
mod stale;
mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod update_group;
mod walk;
mod watching;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use ipnet::IpNet;
use serde::Serialize;

pub use monitor::{MONITORS, MonitorId, Monitored, Needless, Watch};
pub use shard::Shard;

use crate::config::PeerConfig;
use crate::fib::{FibChange, KernelEvent};
use crate::origin::{LocalKey, LocalRoute};
use crate::policy::RouteSource;
use crate::session::{PrefixCounts, RouteBatch, SessionEnd, SessionFacts};
use crate::types::{Attributes, ClusterId, ConnectionId, Family, NextHop, PathId, PeerId, PerFamily, QueryId, RouterId, Sync};

/// What every shard knows of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RibConfig {
    /// Our identifier (ORIGINATOR_ID loop test).
    pub router_id: RouterId,
    /// Our cluster, if we are a reflector.
    pub cluster_id: Option<ClusterId>,
    /// Paths used for multipath at most.
    pub max_paths: usize,
    /// Protocol number of our own kernel routes: never used to resolve next hops.
    pub protocol: u8,
}

/// What a shard hears. One batch of a peer is one step; a round ends with `Shard::finish_round`.
#[derive(Clone, Debug)]
pub enum Input {
    /// New configuration of the node.
    Configure(Arc<RibConfig>),
    /// A session is Established. Its stale paths, if any, stay until renewed or swept.
    PeerUp(Arc<SessionFacts>),
    /// A session ended; families in `keep` turn stale, paths of the others go.
    PeerDown {
        /// The peer.
        peer: PeerId,
        /// Families that turn stale.
        keep: PerFamily<bool>,
        /// How it ended.
        end: SessionEnd,
    },
    /// The policies (or other settings that need no reset) of a peer changed: judge its paths, and what it is told, anew.
    PeerReload {
        /// The peer.
        peer: PeerId,
        /// Its new configuration.
        config: Arc<PeerConfig>,
    },
    /// What a peer said.
    Routes(RouteBatch),
    /// Stale paths of this family that were not renewed go.
    SweepStale {
        /// The peer.
        peer: PeerId,
        /// The family.
        family: Family,
    },
    /// Stale paths of this family are long-lived from now on (RFC 9494): marked with LLGR_STALE, and gone where NO_LLGR says so.
    LongLived {
        /// The peer.
        peer: PeerId,
        /// The family.
        family: Family,
    },
    /// The peer asked for our table again: one walk, then the family in `ended`. BoRR and EoRR are made by the session.
    RefreshRequested {
        /// The peer.
        peer: PeerId,
        /// The family.
        family: Family,
    },
    /// Routes of this node.
    Local(Sync<LocalKey, LocalRoute>),
    /// The kernel's links, addresses and routes, for next hops and own addresses.
    Kernel(KernelEvent),
    /// The node is drained (RFC 8326), or not any more: everything is told again with GRACEFUL_SHUTDOWN, and to our own AS with
    /// LOCAL_PREF 0.
    Drain(bool),
    /// Our own restart is over: routes learned from peers may be sent on, and End-of-RIB too (bar 11).
    RecoveryDone,
    /// The peer has room. Stays open until there is something to say; a later one replaces it.
    Pull {
        /// The peer.
        peer: PeerId,
        /// Bytes.
        credit: usize,
    },
    /// The FibSyncer has room. Stays open likewise.
    PullFib {
        /// Changes.
        credit: usize,
    },
    /// A collector of monitoring data is there, and is to be told everything; one of the same number is replaced.
    Monitor(MonitorId, Watch),
    /// It has gone.
    MonitorEnds(MonitorId),
    /// It has room for one step. Stays open until there is something to say.
    PullMonitor(MonitorId),
    /// A question of the control API; answered in bounded steps, at most [`PARTS_A_ROUND`] parts in a round.
    Query(QueryId, Query),
    /// Whoever asked has no more room: the answer goes on after `Resume`.
    Pause(QueryId),
    /// There is room again.
    Resume(QueryId),
    /// Whoever asked has gone.
    Abandon(QueryId),
}

/// Parts of answers to queries in one round, at most.
pub const PARTS_A_ROUND: usize = (walk::ROUND / walk::STEP) as usize;

/// How much a shard holds and has done, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// IPv4 destinations.
    pub ipv4: usize,
    /// IPv6 destinations.
    pub ipv6: usize,
    /// Different attribute sets.
    pub attribute_sets: usize,
    /// Update groups.
    pub groups: usize,
    /// How often a destination has been decided.
    pub decisions: u64,
    /// How many paths fit into no message for a group of peers, and were not told (P2).
    pub unsendable: u64,
}

/// Octets of memory by what they are for. It is what tables have reserved, so a table that has shrunk may still hold more than it needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Octets {
    /// Destinations and their paths: Adj-RIB-In and Loc-RIB.
    pub destinations: usize,
    /// Attribute sets, as received, after import policy, and as sent where that is no rewrite of either.
    pub attributes: usize,
    /// Adj-RIB-Out of all update groups, and frames that wait for readers.
    pub advertised: usize,
}

/// A part of a round, for whoever measures how long each takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Changes of the kernel and the configuration are taken up.
    Prepare,
    /// Bounded work over whole tables: sweeps, reloads, fills, questions.
    Walk,
    /// Best paths are decided, and offered to the update groups.
    Decide,
    /// What is offered is encoded.
    Encode,
    /// Peers and the FibSyncer get what they have asked for.
    Answer,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Prepare, Self::Walk, Self::Decide, Self::Encode, Self::Answer];

    /// In metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Walk => "walk",
            Self::Decide => "decide",
            Self::Encode => "encode",
            Self::Answer => "answer",
        }
    }
}

/// A question to a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// Routes that match all that is given.
    Routes {
        /// Exactly this prefix, or with `longer` everything inside it.
        prefix: Option<IpNet>,
        /// With `prefix`: everything inside it.
        longer: bool,
        /// Of one family.
        family: Option<Family>,
        /// Adj-RIB-In of this peer before policy, refused routes included.
        received: Option<PeerId>,
        /// Adj-RIB-Out towards this peer.
        advertised: Option<PeerId>,
    },
    /// Adj-RIB-In of all peers before policy, refused paths included; those of a prefix stand together.
    AdjRibIn,
    /// How many paths of each of these peers, which are about to go, have no other path beside them.
    Uncovered(Arc<BTreeSet<PeerId>>),
    /// What a collector is told in numbers: prefixes of the Loc-RIB, and what peers have said needlessly.
    Totals,
    /// Every candidate of a prefix (of the longest around it, where it has no route) with the step that beat it, and whom it is advertised to.
    Explain(IpNet),
}

/// What a shard says.
#[derive(Clone, Debug)]
pub enum Output {
    /// Answer to a `Pull`, never more than its credit (or one message, if that is larger).
    Frames {
        /// For whom.
        peer: PeerId,
        /// For which of its sessions: [`SessionFacts::connection`].
        connection: ConnectionId,
        /// Whole messages, one or more in each.
        frames: Vec<Bytes>,
        /// Families whose walk (the initial table, or a refresh) is now told in full.
        ended: Vec<Family>,
    },
    /// Answer to a `PullFib`, never more than its credit.
    FibChanges {
        /// The changes.
        changes: Vec<FibChange>,
        /// There are more, or there is work under way that may lead to more.
        more: bool,
    },
    /// Answer to a `PullMonitor`.
    Monitored(MonitorId, Vec<Monitored>),
    /// More waited for a collector than may: it is given up.
    Overrun(MonitorId),
    /// Counters of a peer that changed in this round.
    Counts {
        /// The peer.
        peer: PeerId,
        /// By family.
        counts: PerFamily<PrefixCounts>,
    },
    /// Part of the answer to a query.
    Answer {
        /// The question.
        query: QueryId,
        /// The rows.
        rows: Answer,
        /// No more follows.
        done: bool,
    },
}

/// Part of the answer to a query.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// For `Query::Routes`.
    Routes(Vec<RouteRow>),
    /// For `Query::AdjRibIn`.
    AdjRibIn(Vec<ReceivedPath>),
    /// For `Query::Uncovered`: to be summed over all parts; a peer that is not named has none.
    Uncovered(BTreeMap<PeerId, u64>),
    /// For `Query::Totals`: to be summed over all parts.
    Totals(PerFamily<u64>, BTreeMap<PeerId, Needless>),
    /// For `Query::Explain`.
    Explain(Explained),
}

/// Why a prefix is as it is: of its own destination or, where it has none, of the longest around it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Explained {
    /// The destination's prefix; none where nothing holds the prefix that was asked for.
    pub route: Option<IpNet>,
    /// Every path of it, with its fate.
    pub candidates: Vec<Candidate>,
    /// Whom it is told to, and whom not.
    pub advertisements: Vec<Advertisement>,
}

/// A path as its peer told it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceivedPath {
    /// The prefix.
    pub prefix: IpNet,
    /// Who told it.
    pub peer: PeerId,
    /// Its path identifier; none where the session has no ADD-PATH in this direction.
    pub path_id: Option<PathId>,
    /// Before import policy.
    pub attributes: Arc<Attributes>,
}

/// One path, for people and tests.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteRow {
    /// The prefix.
    pub prefix: IpNet,
    /// Its family.
    pub family: Family,
    /// The best path of the prefix.
    pub best: bool,
    /// Used together with the best.
    pub multipath: bool,
    /// May be chosen at all.
    pub valid: bool,
    /// Of a peer that is restarting.
    pub stale: bool,
    /// Where it comes from.
    pub source: RouteSource,
    /// Which peer, for BGP.
    pub peer: Option<PeerId>,
    /// Path identifier received (or sent, for advertised routes).
    pub path_id: PathId,
    /// The next hop (as sent, for advertised routes); none for local routes without one.
    pub next_hop: Option<NextHop>,
    /// The attributes: after policy, before it for `received`, as sent for `advertised`.
    pub attributes: Arc<Attributes>,
    /// Decision step that removed it.
    pub lost_at: Option<Step>,
    /// The rule that refused it.
    pub rejected_by: Option<String>,
    /// Where packets go first; none where they are dropped, or where the next hop does not resolve.
    pub via: Option<Via>,
    /// Metric to the next hop; none where it is unknown.
    pub metric: Option<u32>,
}

/// A way out of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Via {
    /// The next router; none on the link itself.
    pub gateway: Option<IpAddr>,
    /// The interface.
    pub interface: Arc<str>,
}

/// Steps of the decision, numbered after RFC 4271 9.1.2.2 with our extensions, Calico's preference before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// 0: not eligible: refused by policy, looped, martian, own next hop.
    Eligible,
    /// 1: lower preference between protocols (device, static, BGP, kernel).
    Preference,
    /// 1b: next hop not resolved, while another path's is.
    Resolvable,
    /// 2: long-lived stale.
    LongLivedStale,
    /// 3: lower LOCAL_PREF.
    LocalPref,
    /// 4: longer AS_PATH.
    AsPathLength,
    /// 5: higher ORIGIN.
    Origin,
    /// 6: higher MED from the same neighbouring AS.
    Med,
    /// 7: iBGP while an eBGP path exists.
    EbgpOverIbgp,
    /// 8: higher metric to the next hop.
    IgpMetric,
    /// 9: higher ORIGINATOR_ID or identifier.
    RouterId,
    /// 10: longer CLUSTER_LIST.
    ClusterListLength,
    /// 11: higher peer address.
    PeerAddress,
    /// 12: higher path identifier.
    PathId,
}

/// A candidate of a prefix and its fate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// The path.
    #[serde(flatten)]
    pub path: RouteRow,
    /// `best`, `multipath`, `lost`, `refused`.
    pub verdict: &'static str,
    /// Why, with both values where two were compared.
    pub because: String,
}

/// Whether a prefix goes to a peer, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advertisement {
    /// The peer.
    pub peer: PeerId,
    /// It is told.
    pub yes: bool,
    /// The rule that accepted or refused it.
    pub because: String,
    /// The next hop that it is told.
    pub next_hop: Option<IpAddr>,
}
