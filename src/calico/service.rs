//! Service ranges: what BGPConfiguration's three lists announce, and what they keep out of the kernel.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::compile::Cluster;
use super::{Problem, Severity};
use crate::types::canonical;

/// A Node with this label announces no service.
const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// The ranges of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Services {
    /// Announced by this node.
    pub advertised: Vec<IpNet>,
    /// Never programmed: kube-proxy delivers here.
    pub rejected: Vec<IpNet>,
}

impl Services {
    /// serviceClusterIPs count with host routes, the other two lists without; serviceLoadBalancerIPs only
    /// while they are aggregated. A node that is excluded keeps the ranges out of its kernel all the same.
    pub fn compile(cluster: &Cluster<'_>, problems: &mut Vec<Problem>) -> Self {
        let is_range = |cidr: &&IpNet| cidr.prefix_len() < cidr.max_prefix_len();
        let mut ranges: BTreeSet<IpNet> = cluster_ips(cluster, problems).into_iter().collect();
        ranges.extend(cluster.defaults.external_ips.iter().filter(is_range));
        if !cluster.defaults.no_aggregation {
            ranges.extend(cluster.defaults.load_balancer_ips.iter().filter(is_range));
        }
        let rejected: Vec<IpNet> = ranges.into_iter().collect();
        let excluded = cluster.node.labels.get(EXCLUDE_LABEL).is_some_and(|value| value == "true");
        Self { advertised: if excluded { Vec::new() } else { rejected.clone() }, rejected }
    }
}

fn cluster_ips(cluster: &Cluster<'_>, problems: &mut Vec<Problem>) -> Vec<IpNet> {
    let Some(text) = &cluster.environment.cluster_ips else {
        return cluster.defaults.cluster_ips.clone();
    };
    match text.parse::<IpNet>() {
        Ok(cidr) => vec![canonical(cidr)],
        Err(_) => {
            let what = format!("CALICO_ADVERTISE_CLUSTER_IPS is `{text}`, which is no CIDR");
            problems.push(Problem::general(Severity::Error, what, "serviceClusterIPs applies"));
            cluster.defaults.cluster_ips.clone()
        }
    }
}
