//! Decision: best and multipath of a prefix by successive elimination (RFC 4271 9.1.2.2, RFC 4456 section 9,
//! with Calico's preference between protocols before them).
//!
//! Each step keeps the contenders that are best by one measure; who is removed remembers the step. Since a
//! step looks at the set and never at the order, so does the result; MED is compared inside groups of one
//! neighbouring AS, among those that are still in at that step.

use smallvec::SmallVec;

use super::Step;
use super::path::Source;
use crate::policy::DEFAULT_LOCAL_PREF;
use crate::types::{Attributes, Community};

/// A path as the decision sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contender<'a> {
    /// After import policy.
    pub(super) attributes: &'a Attributes,
    /// Where it comes from.
    pub(super) source: &'a Source,
    /// Preference between protocols.
    pub(super) preference: u8,
    /// Step 0.
    pub(super) eligible: bool,
    /// The next hop resolves.
    pub(super) resolved: bool,
    /// Metric to the next hop.
    pub(super) metric: u32,
}

/// What became of a contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fate {
    /// It is the best.
    pub(super) best: bool,
    /// It is used together with the best.
    pub(super) multipath: bool,
    /// The step that removed it; none for the best.
    pub(super) lost_at: Option<Step>,
}

/// The fates of the contenders, in their order. At most `max_paths` of them, the best included, are used together.
pub(super) fn select(contenders: &[Contender<'_>], max_paths: usize) -> SmallVec<[Fate; 4]> {
    let lost = |step| Fate { best: false, multipath: false, lost_at: Some(step) };
    let mut round = Round {
        contenders,
        alive: (0..contenders.len()).filter(|&i| contenders[i].eligible).collect(),
        fates: contenders.iter().map(|_| lost(Step::Eligible)).collect(),
    };
    round.keep_least(Step::Preference, |c| (std::cmp::Reverse(c.preference), c.source.kind.is_bgp()));
    round.keep_least(Step::Resolvable, |c| !c.resolved);
    round.keep_least(Step::LongLivedStale, |c| c.attributes.has_community(Community::LLGR_STALE));
    round.keep_least(Step::LocalPref, |c| std::cmp::Reverse(c.attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)));
    round.keep_least(Step::AsPathLength, |c| c.attributes.as_path.length());
    round.keep_least(Step::Origin, |c| c.attributes.origin);
    round.keep_least_med();
    round.keep_least(Step::EbgpOverIbgp, |c| c.source.kind);
    round.keep_least(Step::IgpMetric, |c| c.metric);
    round.settle(max_paths);
    round.fates
}

struct Round<'a, 'b> {
    contenders: &'a [Contender<'b>],
    alive: SmallVec<[usize; 4]>,
    fates: SmallVec<[Fate; 4]>,
}

impl Round<'_, '_> {
    fn keep_least<K: Ord>(&mut self, step: Step, measure: impl Fn(&Contender<'_>) -> K) {
        if self.alive.len() > 1 {
            let least = self.alive.iter().map(|&i| measure(&self.contenders[i])).min();
            self.keep(step, |_, contender| Some(measure(contender)) == least);
        }
    }

    fn keep_least_med(&mut self) {
        let med = |c: &Contender<'_>| c.attributes.med.unwrap_or(0);
        let before = self.alive.clone();
        let beaten = |contender: &Contender<'_>, rival: &Contender<'_>| {
            rival.attributes.as_path.first() == contender.attributes.as_path.first() && med(rival) < med(contender)
        };
        self.keep(Step::Med, |contenders, contender| !before.iter().any(|&rival| beaten(contender, &contenders[rival])));
    }

    fn keep(&mut self, step: Step, stays: impl Fn(&[Contender<'_>], &Contender<'_>) -> bool) {
        let (contenders, fates) = (self.contenders, &mut self.fates);
        self.alive.retain(|i| {
            let stays = stays(contenders, &contenders[*i]);
            if !stays {
                fates[*i].lost_at = Some(step);
            }
            stays
        });
    }

    /// The ties that are left are broken by the last steps; those that are as good are used together.
    fn settle(&mut self, max_paths: usize) {
        self.alive.sort_unstable_by_key(|&i| Ties::of(&self.contenders[i]));
        let Some(&best) = self.alive.first() else { return };
        let ties = Ties::of(&self.contenders[best]);
        let usable = self.contenders[best].resolved && self.contenders[best].source.kind.is_bgp();
        for (rank, &i) in self.alive.iter().enumerate() {
            let lost_at = (i != best).then(|| Ties::of(&self.contenders[i]).step_after(&ties));
            self.fates[i] = Fate { best: i == best, multipath: i != best && usable && rank < max_paths, lost_at };
        }
    }
}

/// Steps 9 to 12, and then what makes the order total.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Ties {
    router_id: crate::types::RouterId,
    cluster_list: usize,
    address: std::net::IpAddr,
    path_id: (crate::types::PathId, Option<crate::types::PeerId>, crate::policy::RouteSource),
}

impl Ties {
    fn of(contender: &Contender<'_>) -> Self {
        let source = contender.source;
        Self {
            router_id: contender.attributes.originator_id.unwrap_or(source.identifier),
            cluster_list: contender.attributes.cluster_list.len(),
            address: source.address,
            path_id: (source.path_id, source.peer, source.kind),
        }
    }

    fn step_after(&self, best: &Self) -> Step {
        if self.router_id != best.router_id {
            Step::RouterId
        } else if self.cluster_list != best.cluster_list {
            Step::ClusterListLength
        } else if self.address != best.address {
            Step::PeerAddress
        } else {
            Step::PathId
        }
    }
}
