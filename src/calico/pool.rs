//! IPPools: which routes go into the kernel, by whom and how.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use ipnet::IpNet;

use super::compile::Cluster;
use super::resource::{Encapsulation, IpPool, ProgramClusterRoutes};
use super::service::Services;
use super::{Problem, Severity};
use crate::config::{FibAction, FibRule};
use crate::types::family_of;

/// Calico's IPIP device.
const IPIP_DEVICE: &str = "tunl0";

/// The pools that count: of several with one cidr the one whose name is lowest.
pub(super) fn pools<'a>(cluster: &Cluster<'a>, problems: &mut Vec<Problem>) -> BTreeMap<IpNet, (&'a str, &'a IpPool)> {
    let mut pools: BTreeMap<IpNet, (&str, &IpPool)> = BTreeMap::new();
    for (name, pool) in cluster.store.pools() {
        match pools.get(&pool.cidr) {
            None => drop(pools.insert(pool.cidr, (name, pool))),
            Some((winner, _)) => {
                let what = format!("IPPool {winner} has the same cidr");
                let instead = "the pool whose name is lowest counts, this one is left out";
                problems.push(cluster.store.problem("IPPool", name, Severity::Warning, "spec.cidr", what, instead));
            }
        }
    }
    pools
}

/// Service ranges first, then the pools, the longest first.
pub(super) fn fib_rules(cluster: &Cluster<'_>, services: &Services, problems: &mut Vec<Problem>) -> Vec<FibRule> {
    let mut rules: Vec<FibRule> = services.rejected.iter().map(service_rule).collect();
    let mut pools: Vec<_> = pools(cluster, problems).into_values().collect();
    pools.sort_by_key(|(_, pool)| (Reverse(pool.cidr.prefix_len()), pool.cidr));
    rules.extend(pools.into_iter().filter_map(|(name, pool)| pool_rule(cluster, name, pool)));
    rules
}

fn service_rule(cidr: &IpNet) -> FibRule {
    FibRule { cidr: *cidr, name: format!("service range {cidr}").into(), learned_only: false, action: FibAction::Skip }
}

/// None for an IPv4 pool while our own subnet is unknown: everything is programmed then.
fn pool_rule(cluster: &Cluster<'_>, name: &str, pool: &IpPool) -> Option<FibRule> {
    let is_ipv4 = family_of(&pool.cidr) == crate::types::Family::IPV4_UNICAST;
    let own_subnet = cluster.node.address(is_ipv4).map(|address| address.subnet);
    if is_ipv4 && own_subnet.is_none() {
        return None;
    }
    let owner = cluster.defaults.program_cluster_routes;
    let owns_ipip = matches!(owner, ProgramClusterRoutes::Enabled | ProgramClusterRoutes::EnabledIpipOnly);
    let owns_plain = matches!(owner, ProgramClusterRoutes::Enabled | ProgramClusterRoutes::EnabledNoEncapOnly);
    let tunnel = |unless_in| FibAction::Tunnel { device: IPIP_DEVICE.to_owned(), unless_in };
    let (how, action) = match (pool.vxlan, pool.ipip) {
        (Encapsulation::Always, _) => ("vxlanMode Always", FibAction::Skip),
        (Encapsulation::CrossSubnet, _) => ("vxlanMode CrossSubnet", FibAction::Skip),
        (_, Encapsulation::Always) if owns_ipip && is_ipv4 => ("ipipMode Always", tunnel(None)),
        (_, Encapsulation::CrossSubnet) if owns_ipip && is_ipv4 => ("ipipMode CrossSubnet", tunnel(own_subnet)),
        (_, Encapsulation::Always | Encapsulation::CrossSubnet) if owns_ipip => ("ipipMode without a meaning in IPv6", FibAction::Plain),
        (_, Encapsulation::Always) => ("ipipMode Always, Felix's to program", FibAction::Skip),
        (_, Encapsulation::CrossSubnet) => ("ipipMode CrossSubnet, Felix's to program", FibAction::Skip),
        _ if owns_plain => ("no encapsulation", FibAction::Plain),
        _ => ("no encapsulation, Felix's to program", FibAction::Skip),
    };
    Some(FibRule { cidr: pool.cidr, name: format!("IPPool {name} ({how})").into(), learned_only: false, action })
}
