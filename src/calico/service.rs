//! Service advertisement: the ranges of BGPConfiguration's three lists, and the addresses of each Service.
//!
//! ```text
//! BGPConfiguration: serviceClusterIPs, serviceExternalIPs, serviceLoadBalancerIPs ─→ ranges: announced, kept out of the kernel
//! Service, its EndpointSlices ─→ verdict ─→ its addresses ─counted→ announced one by one
//! ```
//!
//! A Service is judged as a whole by what is known of it now, over all its EndpointSlices; so whatever changes (a
//! slice that goes, too) has the outcome that the same resources would have at start. An address that several Services want
//! is announced until the last of them is gone. A changed slice costs one verdict, whatever else the cluster has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::changes::Changes;
use super::compile::Cluster;
use super::resource::{EndpointSlice, Service, ServiceName, ServiceType, TrafficPolicy};
use super::{Problem, Severity, Store};
use crate::types::canonical;

/// A Node with this label (and the value `true`) announces no service.
const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// What a Service's advertisement depends on besides the Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceRules {
    /// `serviceClusterIPs`, or `CALICO_ADVERTISE_CLUSTER_IPS`.
    pub cluster_ips: Vec<IpNet>,
    /// `serviceExternalIPs`.
    pub external_ips: Vec<IpNet>,
    /// `serviceLoadBalancerIPs`.
    pub load_balancer_ips: Vec<IpNet>,
    /// `serviceLoadBalancerAggregation` is Disabled.
    pub no_aggregation: bool,
    /// Our Node is labelled so that it announces no service.
    pub excluded: bool,
    /// Our name in `nodeName` of endpoints: `CALICO_K8S_NODE_REF`, else the Node's `orchRefs`, else its name.
    pub node: String,
}

/// Why this node announces a Service's addresses one by one, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceVerdict {
    /// Yes: this address of it stands alone in serviceLoadBalancerIPs or serviceExternalIPs.
    SingleAddress(IpAddr),
    /// Yes: an endpoint on this node is ready.
    LocalEndpoint,
    /// Yes: ranges are not aggregated, and an endpoint is ready somewhere.
    ReadyEndpoint,
    /// No: our Node is excluded by its label.
    Excluded,
    /// No: of this type it has nothing to announce.
    Type,
    /// No: headless.
    Headless,
    /// No: its policy is not Local, so the announced ranges stand for it.
    Aggregated,
    /// No: no endpoint on this node is ready.
    NoLocalEndpoint,
    /// No: no endpoint is ready.
    NoEndpoint,
}

impl ServiceVerdict {
    /// Whether the addresses are announced.
    pub fn is_advertised(self) -> bool {
        matches!(self, Self::SingleAddress(_) | Self::LocalEndpoint | Self::ReadyEndpoint)
    }
}

impl fmt::Display for ServiceVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SingleAddress(address) => return write!(f, "its address {address} is listed by itself in BGPConfiguration default"),
            Self::LocalEndpoint => "an endpoint on this node is ready",
            Self::ReadyEndpoint => "an endpoint is ready, and serviceLoadBalancerAggregation is Disabled",
            Self::Excluded => "this node is labelled exclude-from-external-load-balancers",
            Self::Type => "a Service of this type has no address to announce",
            Self::Headless => "it has no cluster IP",
            Self::Aggregated => "its externalTrafficPolicy is not Local, so the announced ranges stand for it",
            Self::NoLocalEndpoint => "no endpoint on this node is ready, and its externalTrafficPolicy is Local",
            Self::NoEndpoint => "no endpoint is ready",
        })
    }
}

impl ServiceRules {
    /// The rules for our node.
    pub(super) fn new(cluster: &Cluster<'_>, problems: &mut Vec<Problem>) -> Self {
        let defaults = cluster.defaults;
        let kubernetes = cluster.environment.kubernetes_node.as_deref().or(cluster.node.kubernetes_name.as_deref());
        Self {
            cluster_ips: cluster_ips(cluster, problems),
            external_ips: defaults.external_ips.clone(),
            load_balancer_ips: defaults.load_balancer_ips.clone(),
            no_aggregation: defaults.no_aggregation,
            excluded: cluster.node.labels.get(EXCLUDE_LABEL).is_some_and(|value| value == "true"),
            node: kubernetes.unwrap_or(cluster.name).to_owned(),
        }
    }

    /// The ranges that stand for their addresses: serviceClusterIPs with host routes, the other two lists without;
    /// serviceLoadBalancerIPs only while they are aggregated. Routes inside are never programmed, since kube-proxy delivers here.
    pub fn ranges(&self) -> BTreeSet<IpNet> {
        let is_range = |cidr: &&IpNet| !is_single(cidr);
        let mut ranges: BTreeSet<IpNet> = self.cluster_ips.iter().copied().collect();
        ranges.extend(self.external_ips.iter().filter(is_range));
        if !self.no_aggregation {
            ranges.extend(self.load_balancer_ips.iter().filter(is_range));
        }
        ranges
    }

    /// Whether this node announces the Service's addresses one by one.
    pub fn judge<'s>(&self, service: &Service, slices: impl Iterator<Item = &'s EndpointSlice>) -> ServiceVerdict {
        if self.excluded {
            return ServiceVerdict::Excluded;
        }
        if service.kind == ServiceType::Other {
            return ServiceVerdict::Type;
        }
        if !service.has_cluster_ip {
            return ServiceVerdict::Headless;
        }
        if let Some(address) = self.single_address(service) {
            return ServiceVerdict::SingleAddress(address);
        }
        let local = service.policy == TrafficPolicy::Local;
        if !local && !self.no_aggregation {
            return ServiceVerdict::Aggregated;
        }
        let mut slices = slices.filter(|slice| slice.family.is_some_and(|family| service.families.contains(&family)));
        match (local, local && slices.any(|slice| slice.ready_nodes.contains(&self.node)) || !local && slices.any(|slice| slice.ready)) {
            (true, true) => ServiceVerdict::LocalEndpoint,
            (true, false) => ServiceVerdict::NoLocalEndpoint,
            (false, true) => ServiceVerdict::ReadyEndpoint,
            (false, false) => ServiceVerdict::NoEndpoint,
        }
    }

    /// An address of a Service of policy Cluster that is listed by itself.
    fn single_address(&self, service: &Service) -> Option<IpAddr> {
        if service.policy != TrafficPolicy::Cluster {
            return None;
        }
        let listed = |list: &[IpNet], address: &IpAddr| list.iter().any(|cidr| is_single(cidr) && cidr.addr() == *address);
        let balanced = service.load_balancer_ip.iter().chain(&service.ingress);
        let mut balanced = balanced.filter(|address| service.kind == ServiceType::LoadBalancer && listed(&self.load_balancer_ips, address));
        balanced.next().or_else(|| service.external_ips.iter().find(|address| listed(&self.external_ips, address))).copied()
    }

    /// The addresses of a Service that is announced.
    pub fn addresses(&self, service: &Service) -> Vec<IpNet> {
        let inside = |list: &[IpNet], address: &IpAddr| list.iter().any(|cidr| cidr.contains(address));
        let mut routes: Vec<IpNet> = Vec::new();
        if !self.cluster_ips.is_empty() {
            routes.extend(service.cluster_ips.iter().copied().map(IpNet::from));
        }
        routes.extend(service.external_ips.iter().filter(|address| inside(&self.external_ips, address)).copied().map(IpNet::from));
        routes.extend(service.ingress.iter().filter(|address| inside(&self.load_balancer_ips, address)).copied().map(IpNet::from));
        routes.sort_unstable();
        routes.dedup();
        routes
    }
}

/// The ranges of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Services {
    /// Announced by this node.
    pub advertised: Vec<IpNet>,
    /// Never programmed: kube-proxy delivers here.
    pub rejected: Vec<IpNet>,
}

impl Services {
    /// A node that is excluded keeps the ranges out of its kernel all the same.
    pub fn new(rules: &ServiceRules) -> Self {
        let rejected: Vec<IpNet> = rules.ranges().into_iter().collect();
        Self { advertised: if rules.excluded { Vec::new() } else { rejected.clone() }, rejected }
    }
}

fn is_single(cidr: &IpNet) -> bool {
    cidr.prefix_len() == cidr.max_prefix_len()
}

/// The addresses of Services that are announced, each with the number of Services that want it.
#[derive(Clone, Debug, Default)]
pub(super) struct ServiceRoutes {
    rules: Option<ServiceRules>,
    by_service: BTreeMap<ServiceName, Vec<IpNet>>,
    wanted: BTreeMap<IpNet, usize>,
}

impl ServiceRoutes {
    /// Follows the changes; judges every Service where the rules are others. Answers how many were judged.
    pub fn update(&mut self, store: &Store, rules: &ServiceRules, changes: &Changes) -> usize {
        if self.rules.as_ref() == Some(rules) && !changes.everything {
            for name in &changes.services {
                self.set(store, rules, name);
            }
            return changes.services.len();
        }
        *self = Self { rules: Some(rules.clone()), ..Self::default() };
        let names: Vec<ServiceName> = store.services().map(|(name, _)| name).collect();
        for name in &names {
            self.set(store, rules, name);
        }
        names.len()
    }

    /// The rules of the last update.
    pub fn rules(&self) -> Option<&ServiceRules> {
        self.rules.as_ref()
    }

    fn set(&mut self, store: &Store, rules: &ServiceRules, name: &ServiceName) {
        for route in self.by_service.remove(name).unwrap_or_default() {
            if let Some(count) = self.wanted.get_mut(&route) {
                *count -= 1;
                if *count == 0 {
                    self.wanted.remove(&route);
                }
            }
        }
        let Some(service) = store.service(name).filter(|service| rules.judge(service, store.slices_of(name)).is_advertised()) else {
            return;
        };
        let routes = rules.addresses(service);
        for route in &routes {
            *self.wanted.entry(*route).or_default() += 1;
        }
        if !routes.is_empty() {
            self.by_service.insert(name.clone(), routes);
        }
    }

    /// The addresses, in order.
    pub fn addresses(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.wanted.keys().copied()
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
