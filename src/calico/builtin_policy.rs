//! The policy that every Calico peer has after its BGPFilters.
//!
//! Import: a route of elevated priority gets preference 200, and everything is accepted. Export: eleven numbered
//! rules, the first decision ends; the numbers stand in the names of the terms:
//!
//! 1. priority: metric ↔ LOCAL_PREF. 2. the peer's BGPFilters. 3. inside a pool with disableBGPExport → reject.
//! 4. out of a tunnel, towards an iBGP peer → reject. 5. out of an eBPF interface → reject. 6. prefixAdvertisements
//!    add communities. 7. own confirmed blocks: the block itself and elevated routes inside it → accept, the rest inside it
//!    → reject. 8. a service that this node announces, or
//!    inside an advertised service range → accept. 9. on a route reflector: inside a load-balancer or
//!    external range → accept. 10. inside a pool → accept. 11. reject.
//!
//! Surprises that others depend on and that stay: an `Accept` of a BGPFilter ends everything, so 3 to 11 do not
//! happen; a block in `pendingDeletion` is not in rule 7, so 10 lets its addresses out one by one; 10 has no
//! regard for the source, so a top-of-rack router hears every block from every node unless a BGPFilter rejects
//! `RemotePeers`. Different from BIRD: of overlapping pools the longest decides (3 and 10), not the order of text.
//!
//! The result depends on the list of filters and the family only, not on the peer: build it once for each list.

use ipnet::IpNet;

use super::filter::{CommunityValue, CompiledFilter};
use crate::policy::{Action, METRIC_BASE, Match, Policy, PrefixSet, RouteSource, Term, Verdict};
use crate::types::{Family, family_of};

/// Preference of a route whose priority is elevated; others have the one of BGP, 100.
pub const ELEVATED_PREFERENCE: u8 = 200;

/// What the export rules of one family need to know of the node. Prefixes of the other family are passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportInputs {
    /// The family.
    pub family: Family,
    /// `ipv4NormalRoutePriority` or `ipv6NormalRoutePriority`; 1024 unless set.
    pub normal_priority: u32,
    /// Own block affinities that are confirmed (or of the legacy empty state); not those in `pendingDeletion`.
    pub confirmed_blocks: Vec<IpNet>,
    /// Every IPPool: its cidr, and whether it may be exported (not disableBGPExport).
    pub pools: Vec<(IpNet, bool)>,
    /// Service ranges that are being advertised now. The addresses that are advertised one by one are known by their
    /// source: so a policy stays the same when Services come and go, and no peer is looked at anew.
    pub services: Vec<IpNet>,
    /// On a route reflector: `serviceLoadBalancerIPs`; empty on other nodes.
    pub reflected_load_balancers: Vec<IpNet>,
    /// On a route reflector: `serviceExternalIPs`; empty on other nodes.
    pub reflected_externals: Vec<IpNet>,
    /// We program the routes of IPIP pools (`programClusterRoutes` Enabled or EnabledIPIPOnly).
    pub owns_ipip: bool,
    /// `prefixAdvertisements` in order, names of communities resolved.
    pub advertisements: Vec<PrefixAdvertisement>,
}

/// One entry of `prefixAdvertisements`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixAdvertisement {
    /// Routes inside (or equal to) it.
    pub cidr: IpNet,
    /// Get these.
    pub communities: Vec<CommunityValue>,
}

/// The import policy of a peer with these filters, in order.
pub fn import_policy(filters: &[&CompiledFilter], family: Family, normal_priority: u32) -> Policy {
    let mut terms: Vec<Term> = filters.iter().filter_map(|filter| filter.import.of(family)).flatten().cloned().collect();
    let elevated = Match::LocalPrefAbove(METRIC_BASE.saturating_sub(normal_priority));
    terms.push(term("Calico import: elevated priority", [elevated], [Action::SetPreference(ELEVATED_PREFERENCE)], None));
    terms.push(term("Calico import: everything", [], [], Some(Verdict::Accept)));
    Policy { terms, default: Verdict::Reject }
}

/// Import where `margay.io/default-policy` is `reject`: what no filter accepts is refused (RFC 8212).
pub fn filtered_import_policy(filters: &[&CompiledFilter], family: Family) -> Policy {
    let mut terms: Vec<Term> = filters.iter().filter_map(|filter| filter.import.of(family)).flatten().cloned().collect();
    terms.push(unaccepted());
    Policy { terms, default: Verdict::Reject }
}

/// Export where `margay.io/default-policy` is `reject`: what no filter accepts is held back (RFC 8212). Rule 1 still comes first,
/// so that filters see the same priorities.
pub fn filtered_export_policy(filters: &[&CompiledFilter], inputs: &ExportInputs) -> Policy {
    let mut terms = vec![priority(inputs)];
    terms.extend(filters.iter().filter_map(|filter| filter.export.of(inputs.family)).flatten().cloned());
    terms.push(unaccepted());
    Policy { terms, default: Verdict::Reject }
}

/// Whether some term lets something through.
pub fn accepts_anything(policy: &Policy) -> bool {
    policy.default == Verdict::Accept || policy.terms.iter().any(|term| term.verdict == Some(Verdict::Accept))
}

fn unaccepted() -> Term {
    term("margay.io/default-policy reject: accepted by no BGPFilter", [], [], Some(Verdict::Reject))
}

fn priority(inputs: &ExportInputs) -> Term {
    let normal = inputs.normal_priority;
    term("Calico export 1: route priority", [], [Action::CalicoPriority { normal }], None)
}

/// The export policy of a peer with these filters, in order.
pub fn export_policy(filters: &[&CompiledFilter], inputs: &ExportInputs) -> Policy {
    let mut terms = vec![priority(inputs)];
    terms.extend(filters.iter().filter_map(|filter| filter.export.of(inputs.family)).flatten().cloned());
    hidden_pools(inputs, &mut terms);
    tunnels(inputs, &mut terms);
    terms.extend(inputs.advertisements.iter().filter(|entry| family_of(&entry.cidr) == inputs.family).map(communities));
    own_blocks(inputs, &mut terms);
    accept_inside(inputs, "Calico export 8: inside an advertised service range", &inputs.services, &mut terms);
    let service = Match::Source(RouteSource::Service);
    terms.push(term("Calico export 8: a service that this node announces", [service], [], Some(Verdict::Accept)));
    accept_inside(inputs, "Calico export 9: inside a load-balancer range, as reflector", &inputs.reflected_load_balancers, &mut terms);
    accept_inside(inputs, "Calico export 9: inside an external range, as reflector", &inputs.reflected_externals, &mut terms);
    let pools: Vec<IpNet> = inputs.pools.iter().filter(|(_, exported)| *exported).map(|(cidr, _)| *cidr).collect();
    accept_inside(inputs, "Calico export 10: inside a pool", &pools, &mut terms);
    terms.push(term("Calico export 11: outside every block, service range and pool", [], [], Some(Verdict::Reject)));
    Policy { terms, default: Verdict::Reject }
}

/// Rule 3. A pool inside a hidden one that is exported itself is an exception.
fn hidden_pools(inputs: &ExportInputs, terms: &mut Vec<Term>) {
    const NAME: &str = "Calico export 3: inside a pool with disableBGPExport";
    let exported =
        |cidr: &IpNet| inputs.pools.iter().filter(|(_, exported)| *exported).map(|(e, _)| *e).filter(|e| cidr.contains(e)).collect();
    let hidden = inputs.pools.iter().filter(|(cidr, exported)| !exported && family_of(cidr) == inputs.family);
    let (plain, pierced): (Vec<_>, Vec<_>) =
        hidden.map(|(cidr, _)| (*cidr, exported(cidr))).partition(|(_, exceptions): &(IpNet, PrefixSet)| exceptions.is_empty());
    for (cidr, exceptions) in pierced {
        terms.push(term(NAME, [inside(&[cidr]), Match::OutsideAll(exceptions)], [], Some(Verdict::Reject)));
    }
    if !plain.is_empty() {
        let plain = plain.into_iter().map(|(cidr, _)| cidr).collect();
        terms.push(term(NAME, [Match::InsideAny(plain)], [], Some(Verdict::Reject)));
    }
}

/// Rules 4 and 5.
fn tunnels(inputs: &ExportInputs, terms: &mut Vec<Term>) {
    let tunl0 = (!inputs.owns_ipip).then_some("tunl0");
    for pattern in ["*.cali", "*.calico"].into_iter().chain(tunl0) {
        let matches = [Match::SessionIsEbgp(false), Match::Interface(pattern.into())];
        terms.push(term("Calico export 4: out of a tunnel, towards an iBGP peer", matches, [], Some(Verdict::Reject)));
    }
    terms.push(term("Calico export 5: out of an eBPF interface", [Match::Interface("bpf*.cali".into())], [], Some(Verdict::Reject)));
}

/// Rule 6.
fn communities(entry: &PrefixAdvertisement) -> Term {
    let name = format!("Calico export 6: prefixAdvertisements {}", entry.cidr);
    term(&name, [inside(&[entry.cidr])], entry.communities.iter().map(|community| community.added()), None)
}

/// Rule 7: the block itself stands for its addresses.
fn own_blocks(inputs: &ExportInputs, terms: &mut Vec<Term>) {
    let blocks: PrefixSet = of_family(inputs, &inputs.confirmed_blocks);
    if blocks.is_empty() {
        return;
    }
    let elevated = [Match::InsideAny(blocks.clone()), Match::MetricBelow(inputs.normal_priority)];
    terms.push(term("Calico export 7: own block", [Match::EqualToAny(blocks.clone())], [], Some(Verdict::Accept)));
    terms.push(term("Calico export 7: elevated priority inside own block", elevated, [], Some(Verdict::Accept)));
    terms.push(term("Calico export 7: inside own block, which stands for it", [Match::InsideAny(blocks)], [], Some(Verdict::Reject)));
}

fn accept_inside(inputs: &ExportInputs, name: &str, prefixes: &[IpNet], terms: &mut Vec<Term>) {
    let prefixes = of_family(inputs, prefixes);
    if !prefixes.is_empty() {
        terms.push(term(name, [Match::InsideAny(prefixes)], [], Some(Verdict::Accept)));
    }
}

fn of_family(inputs: &ExportInputs, prefixes: &[IpNet]) -> PrefixSet {
    prefixes.iter().copied().filter(|prefix| family_of(prefix) == inputs.family).collect()
}

fn inside(prefixes: &[IpNet]) -> Match {
    Match::InsideAny(prefixes.iter().copied().collect())
}

fn term(name: &str, matches: impl IntoIterator<Item = Match>, actions: impl IntoIterator<Item = Action>, verdict: Option<Verdict>) -> Term {
    Term { name: name.into(), matches: matches.into_iter().collect(), actions: actions.into_iter().collect(), verdict }
}
