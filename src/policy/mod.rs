//! Compiled policy: terms in order, the first verdict wins. Data, not code: two policies can be compared.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

use crate::types::{Asn, Attributes, Community, LargeCommunity};

/// Import or export policy of one peer. Terms run in order; the first that matches and has a verdict ends it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// The terms in order.
    pub terms: Vec<Term>,
    /// What happens at the end.
    pub default: Verdict,
}

/// One rule: all `matches` hold → `actions` in order → `verdict`, or on to the next term.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Term {
    /// Where it comes from, for people: `BGPFilter tor-out exportV4[0]`, `Calico export 7: own block 10.244.1.0/26`.
    pub name: Arc<str>,
    /// All must hold; none means always.
    pub matches: Vec<Match>,
    /// Done in order when all hold.
    pub actions: Vec<Action>,
    /// Ends the evaluation, if given.
    pub verdict: Option<Verdict>,
}

/// What becomes of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It passes.
    Accept,
    /// It does not.
    #[default]
    Reject,
}

/// A condition on a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Match {
    /// The prefix is inside `cidr` (or equal) and its length within `min..=max`; `negate` turns it round.
    Prefix {
        /// The covering prefix, canonical.
        cidr: IpNet,
        /// Least prefix length.
        min: u8,
        /// Greatest prefix length.
        max: u8,
        /// True for `NotEqual` and `NotIn`.
        negate: bool,
    },
    /// The prefix is inside (or equal to) one of these.
    InsideAny(Arc<[IpNet]>),
    /// The route was learned over BGP.
    RemotePeers,
    /// The outgoing interface's name matches the shell-like pattern (`*`, `?`); no interface is the empty name.
    Interface(Arc<str>),
    /// The session that the policy belongs to crosses an AS border (or, false, does not).
    SessionIsEbgp(bool),
    /// The route carries the standard community.
    Community(Community),
    /// The route carries the large community.
    LargeCommunity(LargeCommunity),
    /// The AS path begins with this sequence.
    AsPathPrefix(Vec<Asn>),
    /// LOCAL_PREF is exactly this.
    LocalPref(u32),
    /// LOCAL_PREF is greater than this.
    LocalPrefAbove(u32),
    /// The metric (see [`Subject::metric`]) is less than this.
    MetricBelow(u32),
}

/// A change to a route that passes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Action {
    /// Adds a standard community.
    AddCommunity(Community),
    /// Adds a large community.
    AddLargeCommunity(LargeCommunity),
    /// Prepends so that the path starts with the list in the written order.
    PrependAsPath(Vec<Asn>),
    /// Sets LOCAL_PREF.
    SetLocalPref(u32),
    /// Calico's export rule 1 (calico-semantics 4.4): BGP-learned → metric := 2147483647 − LOCAL_PREF; others →
    /// metric := kernel metric, or `normal` where there is none or it is 0, LOCAL_PREF := 2147483647 − metric.
    CalicoPriority {
        /// ipv4NormalRoutePriority or ipv6NormalRoutePriority.
        normal: u32,
    },
    /// Sets the preference between protocols (BIRD's: BGP 100, elevated 200).
    SetPreference(u8),
}

/// Where a route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteSource {
    /// A BGP session across an AS border.
    Ebgp,
    /// A BGP session inside the AS.
    Ibgp,
    /// A connected subnet of an interface.
    Device,
    /// Learned from the kernel's table: workload routes and whatever else stands there.
    Kernel,
    /// Given by the local agent.
    Agent,
    /// An IPAM block of this node.
    Block,
    /// A service address or range.
    Service,
    /// Configured, for instance by `reachableBy`.
    Static,
}

impl RouteSource {
    /// Learned over BGP.
    pub fn is_bgp(self) -> bool {
        matches!(self, Self::Ebgp | Self::Ibgp)
    }

    /// BIRD's preference between protocols (calico-semantics 4.1): device 240, static 200, BGP 100, kernel 10.
    pub fn preference(self) -> u8 {
        match self {
            Self::Device => 240,
            Self::Block | Self::Service | Self::Static => 200,
            Self::Ebgp | Self::Ibgp => 100,
            Self::Kernel | Self::Agent => 10,
        }
    }
}

/// A route as policy sees it. `attributes` are changed in place by the actions of matching terms.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// The prefix, canonical.
    pub prefix: IpNet,
    /// Where it comes from.
    pub source: RouteSource,
    /// Name of the outgoing interface; none for blackholes and unresolved next hops.
    pub interface: Option<&'a str>,
    /// The session that the policy belongs to crosses an AS border.
    pub session_is_ebgp: bool,
    /// Kernel metric of a local route; for BGP-learned routes what `CalicoPriority` made of LOCAL_PREF.
    pub metric: Option<u32>,
    /// Preference between protocols.
    pub preference: u8,
    /// Attributes, copied on the first change.
    pub attributes: std::borrow::Cow<'a, Attributes>,
}

/// What policy said of a route, and which term said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// Passed or not.
    pub verdict: Verdict,
    /// Index of the term that decided; none for the default at the end.
    pub term: Option<usize>,
}
