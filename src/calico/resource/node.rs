//! Node: addresses, AS, cluster identifier, labels.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::{Fields, text_map};
use crate::calico::{Document, Report};
use crate::types::{Asn, ClusterId};

/// A BGP address with the subnet that it was given with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// Its subnet; a bare address is its own.
    pub subnet: IpNet,
}

/// A v3 Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `spec.bgp.ipv4Address`.
    pub ipv4: Option<Address>,
    /// `spec.bgp.ipv6Address`.
    pub ipv6: Option<Address>,
    /// `spec.bgp.asNumber`.
    pub asn: Option<Asn>,
    /// `spec.bgp.routeReflectorClusterID`: the node is a route reflector.
    pub cluster_id: Option<ClusterId>,
    /// `spec.wireguard.interfaceIPv4Address` is set.
    pub wireguard_ipv4: bool,
    /// `spec.wireguard.interfaceIPv6Address` is set.
    pub wireguard_ipv6: bool,
    /// `spec.orchRefs[]` with orchestrator `k8s`: the Kubernetes node's name.
    pub kubernetes_name: Option<String>,
}

impl Node {
    /// Reads the document. An address that cannot be read counts as absent, as Calico has it.
    pub fn decode(document: &Document, report: &mut Report<'_>) -> Self {
        Fields::require_object(report, document, "spec");
        let mut node = Self { labels: text_map(document, report, "labels"), ..Self::default() };
        let mut spec = Fields::of(document, "spec");
        if let Some(mut bgp) = spec.object(report, "bgp") {
            node.ipv4 = node_address(&mut bgp, report, "ipv4Address", IpAddr::is_ipv4);
            node.ipv6 = node_address(&mut bgp, report, "ipv6Address", IpAddr::is_ipv6);
            bgp.note_zero(report, "asNumber");
            node.asn = usable_asn(&mut bgp, report, "asNumber");
            node.cluster_id = cluster_id(&mut bgp, report);
            bgp.finish(report, &["ipv4IPIPTunnelAddr"]);
        }
        if let Some(mut wireguard) = spec.object(report, "wireguard") {
            node.wireguard_ipv4 = wireguard.text(report, "interfaceIPv4Address").is_some();
            node.wireguard_ipv6 = wireguard.text(report, "interfaceIPv6Address").is_some();
        }
        node.kubernetes_name = kubernetes_name(&mut spec, report);
        let others =
            ["addresses", "interfaces", "ipv4VXLANTunnelAddr", "ipv6VXLANTunnelAddr", "vxlanTunnelMACAddr", "vxlanTunnelMACAddrV6"];
        spec.finish(report, &others);
        node
    }

    /// The address of a family.
    pub fn address(&self, ipv4: bool) -> Option<Address> {
        if ipv4 { self.ipv4 } else { self.ipv6 }
    }

    /// The addresses that there are, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = Address> {
        self.ipv4.into_iter().chain(self.ipv6)
    }
}

/// An AS number; 0 counts as absent, and one that no speaker may use (RFC 7607, RFC 7300) is an error.
pub(super) fn usable_asn(fields: &mut Fields<'_>, report: &mut Report<'_>, field: &str) -> Option<Asn> {
    let path = fields.path(field);
    if let Some(serde_json::Value::Number(number)) = fields.raw(field)
        && number.as_u64().is_none()
    {
        report.error(&path, format!("{number} is no AS number; one in dotted form must be quoted, such as \"1.10\""), "");
        return None;
    }
    let asn: Asn = fields.get(report, field)?;
    if asn.0 != 0 && !asn.is_usable() {
        report.error(&path, format!("AS {asn} is reserved and may not be used"), "");
        return None;
    }
    Some(asn).filter(|asn| asn.0 != 0)
}

fn node_address(bgp: &mut Fields<'_>, report: &mut Report<'_>, field: &str, wanted: fn(&IpAddr) -> bool) -> Option<Address> {
    let text = bgp.text(report, field)?;
    let parsed = match text.split_once('/') {
        Some(_) => text.parse::<IpNet>().ok().map(|net| Address { address: net.addr(), subnet: net.trunc() }),
        None => text.parse::<IpAddr>().ok().map(|address| Address { address, subnet: IpNet::from(address) }),
    };
    let good = parsed.filter(|parsed| wanted(&parsed.address) && !parsed.address.is_unspecified());
    if good.is_none() {
        report.warning(&bgp.path(field), format!("`{text}` is no address of this family"), "the node has no address of it");
    }
    good
}

fn cluster_id(bgp: &mut Fields<'_>, report: &mut Report<'_>) -> Option<ClusterId> {
    let text = bgp.text(report, "routeReflectorClusterID")?;
    let parsed = text.parse::<Ipv4Addr>();
    if parsed.is_err() {
        report.error(&bgp.path("routeReflectorClusterID"), format!("`{text}` is no cluster identifier (a dotted quad)"), "");
    }
    parsed.ok().map(ClusterId)
}

fn kubernetes_name(spec: &mut Fields<'_>, report: &mut Report<'_>) -> Option<String> {
    let mut name = None;
    for (path, item) in spec.items(report, "orchRefs") {
        let mut reference = Fields::new(path, Some(item));
        let node = reference.text(report, "nodeName");
        if reference.text(report, "orchestrator").as_deref() == Some("k8s") {
            name = name.or(node);
        }
    }
    name
}
