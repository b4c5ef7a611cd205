//! Compiled policy: terms in order, the first verdict wins. Data, not code: two policies can be compared.
//!
//! ```text
//! BGPFilter rules ┐                        ┌ matcher: do all matches hold?
//! Calico's own    ┴→ Policy ─apply(Subject)┤
//!                                          └ action: change the attributes (copied on the first change)
//! ```
//!
//! The shard calls [`Policy::apply`] with a [`Subject`] and gets a [`Ruling`]; the subject's attributes,
//! metric and preference are then what policy made of them. What the caller prepares:
//!
//! * Import from an eBGP peer: LOCAL_PREF is 100 already (what the peer sent is ignored).
//! * Export to an eBGP peer: our AS stands in front of the path already, so an AS path condition sees it
//!   and a prepended list stands in front of it, as in BIRD. LOCAL_PREF is still there to be compared and is
//!   taken off afterwards.
//!
//! A route without LOCAL_PREF counts as 100 in every condition.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod action;
mod matcher;
mod prefix_set;

use std::borrow::Cow;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

pub(crate) use matcher::glob;
pub use prefix_set::PrefixSet;

use crate::types::{Asn, Attributes, Community, LargeCommunity};

/// LOCAL_PREF of a route with metric 0 in Calico's encoding: LOCAL_PREF = 2147483647 − metric.
pub const METRIC_BASE: u32 = 2_147_483_647;

/// LOCAL_PREF of a route that carries none.
pub const DEFAULT_LOCAL_PREF: u32 = 100;

/// Import or export policy of one peer. Terms run in order; the first that matches and has a verdict ends it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// The terms in order.
    pub terms: Vec<Term>,
    /// What happens at the end.
    pub default: Verdict,
}

impl Policy {
    /// Lets everything through unchanged.
    pub fn accept() -> Self {
        Self { terms: Vec::new(), default: Verdict::Accept }
    }

    /// Lets nothing through.
    pub fn reject() -> Self {
        Self::default()
    }

    /// Runs the terms on a route. Its attributes, metric and preference are changed by the terms that match, also
    /// where the verdict is to reject; nothing is copied unless an attribute really changes.
    pub fn apply(&self, subject: &mut Subject<'_>) -> Ruling {
        for (index, term) in self.terms.iter().enumerate() {
            if !term.matches.iter().all(|condition| condition.holds(subject)) {
                continue;
            }
            for action in &term.actions {
                action.perform(subject);
            }
            if let Some(verdict) = term.verdict {
                return Ruling { verdict, term: Some(index) };
            }
        }
        Ruling { verdict: self.default, term: None }
    }

    /// Name of the term that decided.
    pub fn term_name(&self, ruling: &Ruling) -> &str {
        match (self.deciding(ruling), ruling.verdict) {
            (Some(term), _) => &term.name,
            (None, Verdict::Accept) => "accepted at the end of the policy",
            (None, Verdict::Reject) => "rejected at the end of the policy",
        }
    }

    /// Why a prefix was ruled so, for people: the deciding term, and the listed prefix that it is inside of, such as
    /// `Calico export 10: inside a pool (10.244.0.0/16)`.
    pub fn reason(&self, ruling: &Ruling, prefix: &IpNet) -> String {
        let name = self.term_name(ruling);
        let set = self.deciding(ruling).and_then(|term| {
            term.matches.iter().find_map(|condition| match condition {
                Match::InsideAny(set) | Match::EqualToAny(set) => set.covering(prefix),
                _ => None,
            })
        });
        set.map_or_else(|| name.to_owned(), |covering| format!("{name} ({covering})"))
    }

    fn deciding(&self, ruling: &Ruling) -> Option<&Term> {
        self.terms.get(ruling.term?)
    }
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
    InsideAny(PrefixSet),
    /// The prefix is inside (or equal to) none of these.
    OutsideAll(PrefixSet),
    /// The prefix is one of these.
    EqualToAny(PrefixSet),
    /// Of this source.
    Source(RouteSource),
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
    /// Calico's export rule 1: BGP-learned → metric := 2147483647 − LOCAL_PREF; others →
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

    /// BIRD's preference between protocols: device 240, static 200, BGP 100, kernel 10. BIRD knows no agents; theirs is 150: packets to
    /// a workload of this node stay here, as they do where the workload's route stands in the kernel, unless a route of elevated
    /// priority (200) says that it has moved.
    pub fn preference(self) -> u8 {
        match self {
            Self::Device => 240,
            Self::Block | Self::Service | Self::Static => 200,
            Self::Ebgp | Self::Ibgp => 100,
            Self::Agent => 150,
            Self::Kernel => 10,
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
    pub attributes: Cow<'a, Attributes>,
}

impl Subject<'_> {
    /// LOCAL_PREF, or 100 where there is none.
    pub fn local_pref(&self) -> u32 {
        self.attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)
    }
}

/// What policy said of a route, and which term said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// Passed or not.
    pub verdict: Verdict,
    /// Index of the term that decided; none for the default at the end.
    pub term: Option<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(name: &str, matches: Vec<Match>, actions: Vec<Action>, verdict: Option<Verdict>) -> Term {
        Term { name: name.into(), matches, actions, verdict }
    }

    fn subject(attributes: &Attributes) -> Subject<'_> {
        Subject {
            prefix: "10.1.0.0/16".parse().unwrap(),
            source: RouteSource::Ibgp,
            interface: None,
            session_is_ebgp: true,
            metric: None,
            preference: 100,
            attributes: Cow::Borrowed(attributes),
        }
    }

    #[test]
    fn the_first_verdict_wins_and_terms_without_one_go_on() {
        let pools: PrefixSet = ["10.0.0.0/8".parse().unwrap()].into_iter().collect();
        let policy = Policy {
            terms: vec![
                term("not for us", vec![Match::SessionIsEbgp(false)], vec![], Some(Verdict::Reject)),
                term("mark", vec![Match::RemotePeers], vec![Action::AddCommunity(Community(7))], None),
                term("both", vec![Match::RemotePeers, Match::Community(Community(8))], vec![], Some(Verdict::Reject)),
                term("inside a pool", vec![Match::Community(Community(7)), Match::InsideAny(pools)], vec![], Some(Verdict::Accept)),
                term("never reached", vec![], vec![], Some(Verdict::Reject)),
            ],
            default: Verdict::Reject,
        };
        let attributes = Attributes::default();
        let mut route = subject(&attributes);
        let ruling = policy.apply(&mut route);
        assert_eq!(ruling, Ruling { verdict: Verdict::Accept, term: Some(3) });
        assert_eq!(policy.term_name(&ruling), "inside a pool");
        assert_eq!(policy.reason(&ruling, &route.prefix), "inside a pool (10.0.0.0/8)");
        assert!(route.attributes.has_community(Community(7)));
    }

    #[test]
    fn the_default_has_a_name_too() {
        let attributes = Attributes::default();
        for (policy, name) in
            [(Policy::accept(), "accepted at the end of the policy"), (Policy::reject(), "rejected at the end of the policy")]
        {
            let ruling = policy.apply(&mut subject(&attributes));
            assert_eq!((ruling.verdict, policy.term_name(&ruling)), (policy.default, name));
        }
    }
}
