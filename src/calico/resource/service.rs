//! Service, of core Kubernetes: the addresses that may be announced, and the policy that says where from.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use super::{Fields, Text};
use crate::calico::{Document, Report};

/// Namespace and name of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ServiceName {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl ServiceName {
    /// The name of that Service.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// `spec.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceType {
    /// What Kubernetes makes of an absent type.
    #[default]
    ClusterIp,
    /// Also on a port of every node.
    NodePort,
    /// Also on addresses of a load balancer.
    LoadBalancer,
    /// ExternalName or anything newer: it has no addresses to announce.
    Other,
}

/// `spec.externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// Not set, as in a plain ClusterIP Service.
    #[default]
    Unset,
    /// Any node delivers to any endpoint.
    Cluster,
    /// A node delivers to its own endpoints alone.
    Local,
}

/// A core/v1 Service, as far as it concerns routes. Other fields (ports, selector, …) are kube-proxy's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// `spec.type`.
    pub kind: ServiceType,
    /// `spec.clusterIP` is neither empty nor `None`.
    pub has_cluster_ip: bool,
    /// `spec.clusterIPs`; `spec.clusterIP` where an old object has only that.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `spec.loadBalancerIP`, the address that was asked for.
    pub load_balancer_ip: Option<IpAddr>,
    /// `status.loadBalancer.ingress[].ip`, the addresses that were given; ingresses by hostname are none.
    pub ingress: Vec<IpAddr>,
    /// `spec.ipFamilies` (IPv4 is true); the families of the cluster IPs where it is absent.
    pub families: Vec<bool>,
    /// `spec.externalTrafficPolicy`.
    pub policy: TrafficPolicy,
}

impl Service {
    /// Reads the document. An address that cannot be read is left out alone.
    pub fn decode(document: &Document, report: &mut Report<'_>) -> Self {
        Fields::require_object(report, document, "spec");
        let mut spec = Fields::of(document, "spec");
        let kind = match spec.text(report, "type").as_deref() {
            None | Some("ClusterIP") => ServiceType::ClusterIp,
            Some("NodePort") => ServiceType::NodePort,
            Some("LoadBalancer") => ServiceType::LoadBalancer,
            Some(_) => ServiceType::Other,
        };
        let cluster_ip = spec.text(report, "clusterIP").filter(|text| text != "None");
        let mut service = Self {
            kind,
            has_cluster_ip: cluster_ip.is_some(),
            cluster_ips: addresses(&mut spec, report, "clusterIPs"),
            external_ips: addresses(&mut spec, report, "externalIPs"),
            load_balancer_ip: spec.text(report, "loadBalancerIP").and_then(|text| address(report, "spec.loadBalancerIP", &text)),
            policy: policy(&mut spec, report),
            ..Self::default()
        };
        if service.cluster_ips.is_empty() {
            service.cluster_ips.extend(cluster_ip.and_then(|text| address(report, "spec.clusterIP", &text)));
        }
        service.ingress = ingress(document, report);
        service.families = families(&mut spec, report, &service.cluster_ips);
        service
    }
}

fn policy(spec: &mut Fields<'_>, report: &mut Report<'_>) -> TrafficPolicy {
    match spec.text(report, "externalTrafficPolicy").as_deref() {
        None => TrafficPolicy::Unset,
        Some("Cluster") => TrafficPolicy::Cluster,
        Some("Local") => TrafficPolicy::Local,
        Some(other) => {
            report.warning("spec.externalTrafficPolicy", format!("`{other}` is neither Cluster nor Local"), "read as not set");
            TrafficPolicy::Unset
        }
    }
}

fn ingress(document: &Document, report: &mut Report<'_>) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let mut status = Fields::of(document, "status");
    if let Some(mut balancer) = status.object(report, "loadBalancer") {
        for (path, item) in balancer.items(report, "ingress") {
            let mut entry = Fields::new(path, Some(item));
            let field = entry.path("ip");
            found.extend(entry.text(report, "ip").and_then(|text| address(report, &field, &text)));
        }
    }
    found
}

fn families(spec: &mut Fields<'_>, report: &mut Report<'_>, cluster_ips: &[IpAddr]) -> Vec<bool> {
    let mut families: Vec<bool> =
        spec.get::<Vec<Text>>(report, "ipFamilies").unwrap_or_default().iter().map(|text| text.0 == "IPv4").collect();
    if families.is_empty() {
        families = cluster_ips.iter().map(IpAddr::is_ipv4).collect();
    }
    families.sort_unstable();
    families.dedup();
    families
}

fn addresses(spec: &mut Fields<'_>, report: &mut Report<'_>, field: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for (path, item) in spec.items(report, field) {
        match item.as_str() {
            Some("" | "None") => {}
            Some(text) => found.extend(address(report, &path, text)),
            None => report.warning(&path, "is no text", "this address is left out"),
        }
    }
    found
}

fn address(report: &mut Report<'_>, field: &str, text: &str) -> Option<IpAddr> {
    let parsed = text.parse::<IpAddr>().map(|address| address.to_canonical());
    if parsed.is_err() {
        report.warning(field, format!("`{text}` is no IP address"), "this address is left out");
    }
    parsed.ok()
}
