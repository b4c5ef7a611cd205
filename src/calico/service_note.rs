//! What `explain` says of the Services behind a prefix: from the verdicts that the routes come from.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::Compiler;
use super::resource::{Service, ServiceName};
use super::service::{ServiceRules, ServiceVerdict};

/// Services of a range that are named at most.
const NAMED: usize = 100;

/// What the Services have to do with a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServiceNotes {
    /// Ranges of BGPConfiguration that are the prefix, or hold it.
    pub ranges: Vec<RangeNote>,
    /// Addresses of Services inside the prefix, the first hundred of them.
    pub addresses: Vec<AddressNote>,
    /// How many addresses more there are.
    pub more: usize,
}

/// A range of services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RangeNote {
    /// The range.
    pub range: IpNet,
    /// The field of BGPConfiguration that has it.
    pub field: &'static str,
    /// Whether this node announces it as a whole.
    pub announced: bool,
    /// Why, or why not.
    pub because: &'static str,
}

/// One address of one Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AddressNote {
    /// `namespace/name`.
    pub service: String,
    /// The address.
    pub address: IpAddr,
    /// What it is to the Service: `cluster IP`, `external IP`, `load balancer IP`.
    pub role: &'static str,
    /// Whether this node announces it by itself.
    pub announced: bool,
    /// Why, or why not.
    pub because: String,
}

impl Compiler {
    /// What the Services of the resources in force have to do with `prefix`. Costs a look at every Service.
    pub fn service_notes(&self, prefix: IpNet) -> ServiceNotes {
        let Some(rules) = self.service_rules() else { return ServiceNotes::default() };
        let mut notes = ServiceNotes { ranges: ranges(rules, prefix), ..ServiceNotes::default() };
        for (name, service) in self.store().services() {
            let inside = addresses_of(service).filter(|(_, address)| prefix.contains(address));
            let mut verdict = None;
            for (role, address) in inside {
                if notes.addresses.len() == NAMED {
                    notes.more += 1;
                    continue;
                }
                let verdict = *verdict.get_or_insert_with(|| rules.judge(service, self.store().slices_of(&name)));
                notes.addresses.push(AddressNote::new(rules, &name, service, role, address, verdict));
            }
        }
        notes
    }
}

impl AddressNote {
    fn new(rules: &ServiceRules, name: &ServiceName, service: &Service, role: Role, address: IpAddr, verdict: ServiceVerdict) -> Self {
        let counts = rules.addresses(service).contains(&IpNet::from(address));
        let because = match verdict.is_advertised() && !counts {
            true => role.left_out().to_owned(),
            false => verdict.to_string(),
        };
        Self { service: name.to_string(), address, role: role.words(), announced: verdict.is_advertised() && counts, because }
    }
}

/// What an address is to its Service.
#[derive(Clone, Copy, Debug)]
enum Role {
    Cluster,
    External,
    LoadBalancer,
}

impl Role {
    fn words(self) -> &'static str {
        match self {
            Self::Cluster => "cluster IP",
            Self::External => "external IP",
            Self::LoadBalancer => "load balancer IP",
        }
    }

    /// Why an address of a Service that is announced is none of those that are.
    fn left_out(self) -> &'static str {
        match self {
            Self::Cluster => "the Service is announced, but BGPConfiguration default has no serviceClusterIPs",
            Self::External => "the Service is announced, but no range of serviceExternalIPs holds this address",
            Self::LoadBalancer => "the Service is announced, but no range of serviceLoadBalancerIPs holds this address",
        }
    }
}

fn addresses_of(service: &Service) -> impl Iterator<Item = (Role, IpAddr)> {
    let with = |role| move |address: &IpAddr| (role, *address);
    let cluster = service.cluster_ips.iter().map(with(Role::Cluster));
    cluster.chain(service.external_ips.iter().map(with(Role::External))).chain(service.ingress.iter().map(with(Role::LoadBalancer)))
}

fn ranges(rules: &ServiceRules, prefix: IpNet) -> Vec<RangeNote> {
    let lists = [
        ("serviceClusterIPs", &rules.cluster_ips),
        ("serviceExternalIPs", &rules.external_ips),
        ("serviceLoadBalancerIPs", &rules.load_balancer_ips),
    ];
    let announced = rules.ranges();
    let holding = lists.into_iter().flat_map(|(field, list)| list.iter().map(move |range| (field, *range)));
    let holding = holding.filter(|(_, range)| range.contains(&prefix));
    holding
        .map(|(field, range)| {
            let (announced, because) = match announced.contains(&range) {
                true if rules.excluded => (false, "this node is labelled exclude-from-external-load-balancers"),
                true => (true, "it stands for the addresses inside, and kube-proxy delivers from any node"),
                false if rules.no_aggregation && field == "serviceLoadBalancerIPs" => (false, "serviceLoadBalancerAggregation is Disabled"),
                false => (false, "a single address is announced by the Services that have it"),
            };
            RangeNote { range, field, announced, because }
        })
        .collect()
}
