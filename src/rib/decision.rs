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
    // The last path has gone.
    if contenders.is_empty() {
        return SmallVec::new();
    }
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
        if self.alive.len() < 2 {
            return;
        }
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
            router_id: contender.attributes.rare.originator_id.unwrap_or(source.identifier),
            cluster_list: contender.attributes.rare.cluster_list.len(),
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rand_pcg::Pcg32;
    use rand_pcg::rand_core::{RngCore, SeedableRng};

    use super::super::testing::{attributes, facts};
    use super::*;
    use crate::policy::RouteSource;
    use crate::types::{ClusterId, Origin, PathId, RouterId};

    #[derive(Clone)]
    struct Entry {
        attributes: Attributes,
        source: Source,
        preference: u8,
        eligible: bool,
        resolved: bool,
        metric: u32,
    }

    fn entry(n: u32, asn: u32) -> Entry {
        Entry {
            attributes: attributes("10.0.0.1", &[asn]),
            source: Source::of_peer(&facts(n, asn, |_, _| {}), PathId(0)),
            preference: 100,
            eligible: true,
            resolved: true,
            metric: 0,
        }
    }

    fn run(entries: &[Entry], max_paths: usize) -> Vec<Fate> {
        let contenders: Vec<Contender<'_>> = entries
            .iter()
            .map(|e| Contender {
                attributes: &e.attributes,
                source: &e.source,
                preference: e.preference,
                eligible: e.eligible,
                resolved: e.resolved,
                metric: e.metric,
            })
            .collect();
        select(&contenders, max_paths).to_vec()
    }

    fn longer(e: &mut Entry) {
        e.attributes.as_path = e.attributes.as_path.prepend(&[e.attributes.as_path.first().unwrap()]);
    }

    /// Each rung is worse than the one before by one step, and better than it by every later one.
    #[test]
    fn the_ladder() {
        type Change = fn(&mut Entry);
        let ladder: [(Step, Change); 13] = [
            (Step::PathId, |e| e.source.path_id = PathId(9)),
            (Step::PeerAddress, |e| e.source.address = Ipv4Addr::new(10, 0, 0, 200).into()),
            (Step::ClusterListLength, |e| e.attributes.rare.cluster_list = [ClusterId(Ipv4Addr::LOCALHOST)].into()),
            (Step::RouterId, |e| e.attributes.rare.originator_id = Some(RouterId(Ipv4Addr::BROADCAST))),
            (Step::IgpMetric, |e| e.metric = u32::MAX),
            (Step::EbgpOverIbgp, |e| e.source.kind = RouteSource::Ibgp),
            (Step::Med, |e| e.attributes.med = Some(1)),
            (Step::Origin, |e| e.attributes.origin = Origin::Incomplete),
            (Step::AsPathLength, longer),
            (Step::LocalPref, |e| e.attributes.local_pref = Some(99)),
            (Step::LongLivedStale, |e| e.attributes.communities = [Community::LLGR_STALE].into()),
            (Step::Resolvable, |e| e.resolved = false),
            (Step::Preference, |e| e.preference = 99),
        ];
        for (rung, (step, worsen)) in ladder.iter().enumerate() {
            let (mut worse, mut better) = (entry(1, 65001), entry(1, 65001));
            worsen(&mut worse);
            ladder[..rung].iter().for_each(|(_, lesser)| lesser(&mut better));
            for entries in [[worse.clone(), better.clone()], [better, worse]] {
                let fates = run(&entries, 1);
                let lost = fates.iter().find_map(|fate| fate.lost_at);
                assert_eq!((lost, fates.iter().filter(|fate| fate.best).count()), (Some(*step), 1));
            }
        }
    }

    #[test]
    fn an_ineligible_path_never_wins_and_an_unresolved_one_may_win_alone() {
        let (mut refused, mut unresolved) = (entry(1, 65001), entry(2, 65002));
        refused.eligible = false;
        unresolved.resolved = false;
        assert_eq!(run(&[refused.clone()], 1)[0].lost_at, Some(Step::Eligible));
        let fates = run(&[refused, unresolved], 16);
        assert!(fates[1].best && !fates[0].best);
    }

    #[test]
    fn local_routes_go_before_bgp_of_the_same_preference() {
        let (mut elevated, mut block) = (entry(1, 65001), entry(2, 65002));
        (elevated.preference, block.preference, block.source.kind) = (200, 200, RouteSource::Block);
        let fates = run(&[elevated, block], 16);
        assert!(fates[1].best && fates[0].lost_at == Some(Step::Preference) && !fates[0].multipath);
    }

    /// The classic: pairwise comparison in order of arrival finds three different winners.
    #[test]
    fn d5_med_is_compared_within_a_neighbouring_as_whatever_the_order() {
        let with_med = |n, asn, med, metric| {
            let mut e = entry(n, asn);
            (e.attributes.med, e.metric, e.source.kind) = (Some(med), metric, RouteSource::Ibgp);
            e
        };
        let entries = [with_med(1, 65001, 10, 5), with_med(2, 65002, 20, 3), with_med(3, 65001, 5, 9)];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let fates = run(&order.map(|i: usize| entries[i].clone()), 1);
            let fate = |i: usize| fates[order.iter().position(|o| *o == i).unwrap()];
            assert!(fate(1).best, "{order:?}");
            assert_eq!((fate(0).lost_at, fate(2).lost_at), (Some(Step::Med), Some(Step::IgpMetric)));
        }
    }

    #[test]
    fn multipath_is_what_is_equal_through_the_metric_step() {
        let mut entries: Vec<Entry> = (1..=5).map(|n| entry(n, 65000 + n)).collect();
        longer(&mut entries[1]);
        let fates = run(&entries, 3);
        let used: Vec<bool> = fates.iter().map(|fate| fate.best || fate.multipath).collect();
        assert_eq!(used, [true, false, true, true, false], "the first three by router id");
        assert_eq!(fates[2].lost_at, Some(Step::RouterId));
        assert!(run(&entries, 1).iter().all(|fate| !fate.multipath));
    }

    /// Law: the fate of a path does not depend on the order of the paths.
    #[test]
    fn order_free() {
        let mut random = Pcg32::seed_from_u64(7);
        for _ in 0..2000 {
            let count = 2 + random.next_u32() % 6;
            let mut entries: Vec<Entry> = (0..count).map(|n| arbitrary(n, &mut random)).collect();
            let expected = run(&entries, 4);
            let mut order: Vec<usize> = (0..entries.len()).collect();
            for i in (1..order.len()).rev() {
                order.swap(i, random.next_u32() as usize % (i + 1));
            }
            entries = order.iter().map(|&i| entries[i].clone()).collect();
            let fates = run(&entries, 4);
            assert!(order.iter().zip(fates).all(|(&i, fate)| expected[i] == fate));
            assert!(expected.iter().filter(|fate| fate.best).count() <= 1);
        }
    }

    fn arbitrary(n: u32, random: &mut Pcg32) -> Entry {
        let mut few = |n: u32| random.next_u32() % n;
        let mut e = entry(n + 1, 65001 + few(2));
        e.eligible = few(8) != 0;
        e.resolved = few(8) != 0;
        e.preference = if few(6) == 0 { 200 } else { 100 };
        e.metric = few(2);
        e.attributes.med = [None, Some(0), Some(5), Some(7)][few(4) as usize];
        e.attributes.local_pref = (few(4) == 0).then_some(100);
        if few(3) == 0 {
            e.source.kind = RouteSource::Ibgp;
        }
        if few(4) == 0 {
            longer(&mut e);
        }
        if few(3) == 0 {
            e.attributes.rare.originator_id = Some(RouterId(Ipv4Addr::from(few(2))));
        }
        e
    }
}
