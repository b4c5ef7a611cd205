//! Answers for people: routes in bounded steps, and why a prefix is as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use smallvec::SmallVec;

use super::decision::{Contender, Fate};
use super::groups::Groups;
use super::import::Import;
use super::loc_rib::{Facts, LocRib, Shared};
use super::next_hop::Resolution;
use super::path::{Fault, Path};
use super::shard::PeerState;
use super::table::Destination;
use super::update_group::Told;
use super::{Advertisement, Candidate, ReceivedPath, RibConfig, RouteRow, Step, Via};
use crate::origin::LocalTarget;
use crate::policy::{DEFAULT_LOCAL_PREF, RouteSource};
use crate::session::SessionFacts;
use crate::types::{AddressFamily, Attributes, Family, NextHop, PeerId};

/// What rows are made from.
pub(super) struct View<'a> {
    /// Of the node.
    pub(super) config: &'a RibConfig,
    /// What paths refer to.
    pub(super) facts: &'a Facts,
    /// What peers are told.
    pub(super) groups: &'a Groups,
    /// The peers.
    pub(super) peers: &'a BTreeMap<PeerId, PeerState>,
}

/// Which rows are asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filter {
    /// This prefix; with `longer` everything inside it.
    pub(super) prefix: Option<IpNet>,
    /// See `prefix`.
    pub(super) longer: bool,
    /// Of one family.
    pub(super) family: Option<Family>,
    /// As received from this peer.
    pub(super) received: Option<PeerId>,
    /// As told to this peer.
    pub(super) advertised: Option<PeerId>,
}

impl View<'_> {
    /// Appends the rows of the destinations from `cursor` to `end`; whether there may be more behind.
    pub(super) fn rows<A: AddressFamily>(&self, rib: &LocRib<A>, filter: &Filter, cursor: u32, end: u32, rows: &mut Vec<RouteRow>) -> bool {
        if filter.family.is_some_and(|family| family != A::FAMILY) {
            return false;
        }
        if let Some(prefix) = filter.prefix.filter(|_| !filter.longer) {
            let index = A::narrow(prefix).and_then(|prefix| rib.table.find(&prefix));
            index.into_iter().for_each(|index| self.rows_of(rib, index, filter, rows));
            return false;
        }
        (cursor..end.min(rib.table.end())).for_each(|index| self.rows_of(rib, index, filter, rows));
        end < rib.table.end()
    }

    /// Appends what all peers have told of the destinations in `range`; whether there may be more behind.
    pub(super) fn received<A: AddressFamily>(&self, rib: &LocRib<A>, range: std::ops::Range<u32>, paths: &mut Vec<ReceivedPath>) -> bool {
        let end = range.end;
        for destination in (range.start..end.min(rib.table.end())).filter_map(|index| rib.table.get(index)) {
            paths.extend(destination.paths.iter().filter_map(|path| {
                let source = self.facts.sources.get(path.source);
                let peer = source.peer?;
                let add_path = self.peers.get(&peer).is_some_and(|state| state.facts.context.add_path_receive.has(A::FAMILY));
                Some(ReceivedPath {
                    prefix: destination.prefix.into(),
                    peer,
                    path_id: add_path.then_some(source.path_id),
                    attributes: Arc::clone(self.facts.received(path)),
                })
            }));
        }
        end < rib.table.end()
    }

    /// Counts, by peer of `leaving`, the paths that no other one could stand in for; whether there may be more behind `range`.
    pub(super) fn uncovered<A: AddressFamily>(
        &self,
        rib: &LocRib<A>,
        leaving: &BTreeSet<PeerId>,
        range: std::ops::Range<u32>,
        counts: &mut BTreeMap<PeerId, u64>,
    ) -> bool {
        let end = range.end;
        for destination in (range.start..end.min(rib.table.end())).filter_map(|index| rib.table.get(index)) {
            let usable = |path: &Path| {
                path.fault().is_none() && self.facts.resolution(path).is_none_or(|resolution| !resolution.gateways().is_empty())
            };
            let goes = |path: &&Path| self.facts.sources.get(path.source).peer.filter(|peer| leaving.contains(peer));
            let usable = destination.paths.iter().filter(|path| usable(path));
            let going: SmallVec<[PeerId; 4]> = usable.clone().filter_map(|path| goes(&path)).collect();
            if going.len() == usable.count() {
                going.into_iter().for_each(|peer| *counts.entry(peer).or_default() += 1);
            }
        }
        end < rib.table.end()
    }

    fn rows_of<A: AddressFamily>(&self, rib: &LocRib<A>, index: u32, filter: &Filter, rows: &mut Vec<RouteRow>) {
        let Some(destination) = rib.table.get(index) else { return };
        let prefix: IpNet = destination.prefix.into();
        if filter.prefix.is_some_and(|outer| !outer.contains(&prefix)) {
            return;
        }
        if let Some(peer) = filter.advertised {
            let group = self.peers.get(&peer).and_then(|state| self.groups.get(state.group?));
            let told = group.into_iter().flat_map(|group| group.out.advertised_at(peer, prefix, index));
            return rows.extend(told.map(|told| self.told_row(A::FAMILY, destination, &told)));
        }
        for (path, fate) in destination.paths.iter().zip(self.facts.fates(destination)) {
            match filter.received {
                Some(peer) if self.facts.sources.get(path.source).peer == Some(peer) => {
                    let row = self.row(A::FAMILY, prefix, path, fate);
                    rows.push(RouteRow {
                        next_hop: Some(self.facts.received(path).next_hop),
                        attributes: Arc::clone(self.facts.received(path)),
                        ..row
                    });
                }
                None if path.fault().is_none() => rows.push(self.row(A::FAMILY, prefix, path, fate)),
                _ => {}
            }
        }
    }

    /// A row of Adj-RIB-Out, with what the path that is told is to us.
    fn told_row<P: Copy + Into<IpNet>>(&self, family: Family, destination: &Destination<P>, told: &Told) -> RouteRow {
        let fates = self.facts.fates(destination);
        let of = |path: &Path| {
            let source = self.facts.sources.get(path.source);
            source.peer == told.source && (told.path_id.0 == 0 || source.sent == told.path_id)
        };
        let known = destination.paths.iter().zip(fates).find(|(path, fate)| of(path) && (fate.best || told.path_id.0 != 0));
        let row = known.map(|(path, fate)| self.row(family, told.prefix, path, fate));
        RouteRow {
            prefix: told.prefix,
            family,
            best: row.as_ref().is_some_and(|row| row.best),
            multipath: row.as_ref().is_some_and(|row| row.multipath),
            valid: true,
            stale: row.as_ref().is_some_and(|row| row.stale),
            source: row.as_ref().map_or(RouteSource::Kernel, |row| row.source),
            peer: told.source,
            path_id: told.path_id,
            next_hop: Some(told.attributes.next_hop),
            attributes: Arc::clone(&told.attributes),
            lost_at: row.as_ref().and_then(|row| row.lost_at),
            rejected_by: None,
            metric: row.as_ref().and_then(|row| row.metric),
            via: row.and_then(|row| row.via),
        }
    }

    fn row(&self, family: Family, prefix: IpNet, path: &Path, fate: Fate) -> RouteRow {
        let source = self.facts.sources.get(path.source);
        let renewal = source.peer.and_then(|peer| self.peers.get(&peer)).and_then(|state| state.renewal.of(family));
        let next_hop = match self.facts.local_route(path, prefix).map(|route| &route.target) {
            Some(LocalTarget::Via(hops)) => hops.first().and_then(|hop| hop.gateway).map(NextHop::Global),
            Some(LocalTarget::Blackhole) => None,
            Some(LocalTarget::Gateway(_)) | None => Some(path.attributes.next_hop),
        };
        RouteRow {
            prefix,
            family,
            best: fate.best,
            multipath: fate.multipath,
            valid: fate.lost_at != Some(Step::Eligible),
            stale: renewal.is_some_and(|renewal| renewal.is_stale(path.told)),
            source: source.kind,
            peer: source.peer,
            path_id: source.path_id,
            next_hop,
            attributes: if source.kind.is_bgp() { in_full(&path.attributes) } else { Arc::clone(&path.attributes) },
            lost_at: fate.lost_at,
            rejected_by: self.rejected_by(family, prefix, path),
            via: self.via(path, prefix),
            metric: self.facts.resolution(path).map(Resolution::metric).filter(|metric| *metric != u32::MAX),
        }
    }

    /// Where packets of a path go first.
    fn via(&self, path: &Path, prefix: IpNet) -> Option<Via> {
        let gateway = match (self.facts.resolution(path), self.facts.local_route(path, prefix).map(|route| &route.target)) {
            (Some(resolution), _) => Some(resolution.gateways().first()?.address),
            (None, Some(LocalTarget::Via(hops))) => hops.first()?.gateway,
            _ => return None,
        };
        Some(Via { gateway, interface: Arc::clone(self.facts.interface(path, prefix)?) })
    }

    /// What keeps a path out, in words.
    fn rejected_by(&self, family: Family, prefix: IpNet, path: &Path) -> Option<String> {
        let source = self.facts.sources.get(path.source);
        match (path.fault(), self.facts.resolution(path)) {
            (Some(Fault::Policy), _) => {
                let state = self.peers.get(&source.peer?)?;
                let interface = self.facts.interface(path, prefix).map(Arc::clone);
                Some(Import::explain(self.config, &state.facts, family, self.facts.received(path), interface, prefix))
            }
            (Some(fault), _) => Some(fault.text().to_owned()),
            (None, Some(Resolution::Own)) => Some(format!("its next hop {} is an address of this node", path.attributes.next_hop)),
            (None, Some(Resolution::Unresolved)) if !source.kind.is_bgp() => {
                Some(format!("the gateway {} is not on a connected subnet", path.attributes.next_hop))
            }
            _ => None,
        }
    }

    /// The candidates of a destination, each with its fate and the reason.
    pub(super) fn candidates<A: AddressFamily>(&self, destination: &Destination<A::Prefix>) -> Vec<Candidate> {
        let fates = self.facts.fates(destination);
        let paths = destination.paths.iter().zip(fates);
        paths
            .map(|(path, fate)| {
                let row = self.row(A::FAMILY, destination.prefix.into(), path, fate);
                let because = self.because(destination, path, fate, &row);
                Candidate { verdict: verdict(fate), because, path: row }
            })
            .collect()
    }

    fn because<P>(&self, destination: &Destination<P>, path: &Path, fate: Fate, row: &RouteRow) -> String {
        let unresolved = matches!(self.facts.resolution(path), Some(Resolution::Unresolved));
        match (fate.lost_at, destination.best()) {
            (None, _) if unresolved => format!("nothing better; but its next hop {} does not resolve", path.attributes.next_hop),
            (None, _) if destination.paths.len() == 1 => "the only path".to_owned(),
            (None, _) => "better than all others".to_owned(),
            (Some(Step::Eligible), _) | (_, None) => row.rejected_by.clone().unwrap_or_else(|| "not eligible".to_owned()),
            (Some(step), Some(best)) => comparison(step, &self.facts.contender(path), &self.facts.contender(best)),
        }
    }
}

/// Whether and why a destination is told to each peer that is up.
pub(super) fn advertisements<A: AddressFamily>(
    rib: &LocRib<A>,
    shared: &mut Shared,
    peers: &BTreeMap<PeerId, PeerState>,
    index: u32,
) -> Vec<Advertisement> {
    let Some(destination) = rib.table.get(index) else { return Vec::new() };
    let prefix: IpNet = destination.prefix.into();
    let mut rows = Vec::new();
    for (&peer, state) in peers {
        let Some(group) = state.group else { continue };
        let told = shared.groups.get(group).and_then(|group| group.out.advertised_at(peer, prefix, index).next());
        let next_hop = told.map(|told| told.attributes.next_hop.address());
        let because = if !state.facts.context.families.has(A::FAMILY) {
            "the session does not carry the family".to_owned()
        } else if let Some(best) = destination.best() {
            let candidate = shared.facts.candidate(best, prefix);
            match shared.groups.explain(group, &candidate, &mut shared.interner) {
                Some((Ok(sent), _)) if next_hop.is_none() => withheld(&state.facts, &sent, candidate.source.peer).to_owned(),
                Some((_, because)) => because,
                None => continue,
            }
        } else {
            "there is no best path".to_owned()
        };
        rows.push(Advertisement { peer, yes: next_hop.is_some(), because, next_hop });
    }
    rows
}

/// What keeps a route that the group is told from one of its members.
fn withheld(facts: &SessionFacts, sent: &Attributes, source: Option<PeerId>) -> &'static str {
    if source == Some(facts.peer) {
        "learned from this very peer"
    } else if sent.next_hop.address() == facts.remote {
        "its next hop is the peer itself"
    } else if sent.rare.originator_id == Some(facts.identifier) {
        "the peer is its originator"
    } else {
        "no message of this session can carry it"
    }
}

/// LOCAL_PREF as it counts.
fn in_full(attributes: &Arc<Attributes>) -> Arc<Attributes> {
    match attributes.local_pref {
        Some(_) => Arc::clone(attributes),
        None => Arc::new(Attributes { local_pref: Some(DEFAULT_LOCAL_PREF), ..Attributes::clone(attributes) }),
    }
}

fn verdict(fate: Fate) -> &'static str {
    match fate {
        Fate { best: true, .. } => "best",
        Fate { multipath: true, .. } => "multipath",
        Fate { lost_at: Some(Step::Eligible), .. } => "refused",
        _ => "lost",
    }
}

/// Both values of the step at which `loser` lost to the best.
fn comparison(step: Step, loser: &Contender<'_>, best: &Contender<'_>) -> String {
    let name = if best.source.kind.is_bgp() { best.source.address.to_string() } else { format!("{:?}", best.source.kind).to_lowercase() };
    let text = |c: &Contender<'_>| match step {
        Step::Eligible | Step::Resolvable => if c.resolved { "resolved" } else { "not resolved" }.to_owned(),
        Step::Preference => c.preference.to_string(),
        Step::LongLivedStale => "long-lived stale".to_owned(),
        Step::LocalPref => c.attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF).to_string(),
        Step::AsPathLength => c.attributes.as_path.length().to_string(),
        Step::Origin => format!("{:?}", c.attributes.origin).to_lowercase(),
        Step::Med => c.attributes.med.unwrap_or(0).to_string(),
        Step::EbgpOverIbgp => format!("{:?}", c.source.kind).to_lowercase(),
        Step::IgpMetric => {
            if c.metric == u32::MAX {
                "unknown".to_owned()
            } else {
                c.metric.to_string()
            }
        }
        Step::RouterId => c.attributes.rare.originator_id.unwrap_or(c.source.identifier).to_string(),
        Step::ClusterListLength => c.attributes.rare.cluster_list.len().to_string(),
        Step::PeerAddress => c.source.address.to_string(),
        Step::PathId => c.source.path_id.to_string(),
    };
    let what = match step {
        Step::Eligible => "eligibility",
        Step::Resolvable => "next hop",
        Step::Preference => "preference",
        Step::LongLivedStale => return "long-lived stale, and another path is not".to_owned(),
        Step::LocalPref => "LOCAL_PREF",
        Step::AsPathLength => "AS_PATH length",
        Step::Origin => "ORIGIN",
        Step::Med => "MED",
        Step::EbgpOverIbgp => "source",
        Step::IgpMetric => "metric to the next hop",
        Step::RouterId => "router id",
        Step::ClusterListLength => "CLUSTER_LIST length",
        Step::PeerAddress => "peer address",
        Step::PathId => "path id",
    };
    let (mine, theirs) = (text(loser), text(best));
    match step {
        // The rival that it lost to at this step may itself have lost to the best later.
        Step::Med if mine == theirs || loser.attributes.as_path.first() != best.attributes.as_path.first() => {
            format!("{what} {mine}: another path by AS {} has a lower one", loser.attributes.as_path.first().map_or(0, |asn| asn.0))
        }
        _ => format!("{what} {mine}, against {theirs} by {name}"),
    }
}
