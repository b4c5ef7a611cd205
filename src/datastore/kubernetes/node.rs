//! A core Node with Calico's annotations as a Calico Node.
//!
//! | Calico Node | core Node |
//! |---|---|
//! | `metadata.labels` | annotation `projectcalico.org/labels` (JSON), overlaid with the Node's own labels |
//! | `spec.bgp.ipv4Address`, `ipv6Address` | annotations `projectcalico.org/IPv4Address`, `IPv6Address` (address with prefix length; a bare one stands for itself) |
//! | `spec.bgp.asNumber` | annotation `projectcalico.org/ASNumber` |
//! | `spec.bgp.routeReflectorClusterID` | annotation `projectcalico.org/RouteReflectorClusterID` |
//! | `spec.bgp.ipv4IPIPTunnelAddr` | annotation `projectcalico.org/IPv4IPIPTunnelAddr` |
//! | `spec.wireguard.interfaceIPv4Address`, `interfaceIPv6Address` | annotations `projectcalico.org/IPv4WireguardInterfaceAddr`, `IPv6WireguardInterfaceAddr` |
//! | `spec.orchRefs` | the Node's name |
//!
//! A Node without any of the BGP annotations has no `spec.bgp`: no BGP on it. An annotation that cannot be read is left
//! out, with a problem that names it; the others count. Everything else of the Node (addresses, interfaces, VXLAN,
//! status) is not BGP's business and is not kept.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::object::Metadata;
use crate::types::Asn;

/// Prefix of Calico's annotations.
const CALICO: &str = "projectcalico.org/";

/// An annotation that is not used, and why.
pub(super) type Unused = (String, String);

/// Converts; the second part names the annotations that could not be read.
pub(super) fn calico_node(metadata: &Metadata) -> (Value, Vec<Unused>) {
    let mut reader = Reader { annotations: &metadata.annotations, unused: Vec::new() };
    let labels = reader.labels(&metadata.labels);
    let bgp = reader.object(&[
        ("IPv4Address", "ipv4Address", address_v4),
        ("IPv6Address", "ipv6Address", address_v6),
        ("ASNumber", "asNumber", asn),
        ("RouteReflectorClusterID", "routeReflectorClusterID", cluster_id),
        ("IPv4IPIPTunnelAddr", "ipv4IPIPTunnelAddr", plain_v4),
    ]);
    let wireguard = reader.object(&[
        ("IPv4WireguardInterfaceAddr", "interfaceIPv4Address", plain_v4),
        ("IPv6WireguardInterfaceAddr", "interfaceIPv6Address", plain_v6),
    ]);
    let mut spec = Map::new();
    if !bgp.is_empty() {
        spec.insert("bgp".to_owned(), bgp.into());
    }
    if !wireguard.is_empty() {
        spec.insert("wireguard".to_owned(), wireguard.into());
    }
    spec.insert("orchRefs".to_owned(), json!([{ "nodeName": metadata.name, "orchestrator": "k8s" }]));
    let node = json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "Node",
        "metadata": { "name": metadata.name, "labels": labels },
        "spec": spec,
    });
    (node, reader.unused)
}

/// Reads one annotation's text; none if it makes no sense.
type Read = fn(&str) -> Option<Value>;

struct Reader<'a> {
    annotations: &'a BTreeMap<String, String>,
    unused: Vec<Unused>,
}

impl Reader<'_> {
    /// Calico's own labels under the Kubernetes ones, which win.
    fn labels(&mut self, own: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let key = format!("{CALICO}labels");
        let mut labels = BTreeMap::new();
        if let Some(text) = self.annotations.get(&key).filter(|text| !text.is_empty()) {
            match serde_json::from_str::<BTreeMap<String, String>>(text) {
                Ok(calico) => labels = calico,
                Err(error) => self.unused.push((key, format!("is no JSON object of texts: {error}"))),
            }
        }
        labels.extend(own.iter().map(|(key, value)| (key.clone(), value.clone())));
        labels
    }

    /// The fields whose annotations are there and make sense. Empty counts as absent.
    fn object(&mut self, fields: &[(&str, &str, Read)]) -> Map<String, Value> {
        let mut object = Map::new();
        for (annotation, field, read) in fields {
            let key = format!("{CALICO}{annotation}");
            let Some(text) = self.annotations.get(&key).map(|text| text.trim()).filter(|text| !text.is_empty()) else { continue };
            match read(text) {
                Some(value) => drop(object.insert((*field).to_owned(), value)),
                None => self.unused.push((key, format!("`{}` makes no sense", text.chars().take(80).collect::<String>()))),
            }
        }
        object
    }
}

fn address_v4(text: &str) -> Option<Value> {
    network(text).filter(|net| matches!(net, IpNet::V4(_))).map(|_| text.into())
}

fn address_v6(text: &str) -> Option<Value> {
    network(text).filter(|net| matches!(net, IpNet::V6(_))).map(|_| text.into())
}

fn network(text: &str) -> Option<IpNet> {
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    Some(net).filter(|net| !net.addr().is_unspecified())
}

fn plain_v4(text: &str) -> Option<Value> {
    text.parse::<Ipv4Addr>().ok().map(|_| text.into())
}

fn plain_v6(text: &str) -> Option<Value> {
    text.parse::<std::net::Ipv6Addr>().ok().map(|_| text.into())
}

fn cluster_id(text: &str) -> Option<Value> {
    plain_v4(text)
}

fn asn(text: &str) -> Option<Value> {
    let asn: Asn = text.parse().ok()?;
    (asn.0 == 0 || asn.is_usable()).then(|| asn.0.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(annotations: &[(&str, &str)], labels: &[(&str, &str)]) -> Metadata {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Metadata { name: "host-a".to_owned(), annotations: map(annotations), labels: map(labels), ..Metadata::default() }
    }

    #[test]
    fn each_annotation_is_a_field() {
        for (annotation, text, path, value) in [
            ("IPv4Address", "10.0.0.1/24", "/bgp/ipv4Address", json!("10.0.0.1/24")),
            ("IPv4Address", " 10.0.0.1 ", "/bgp/ipv4Address", json!("10.0.0.1")),
            ("IPv6Address", "fd00::1/64", "/bgp/ipv6Address", json!("fd00::1/64")),
            ("ASNumber", "64601", "/bgp/asNumber", json!(64601)),
            ("ASNumber", "1.10", "/bgp/asNumber", json!(65546)),
            ("RouteReflectorClusterID", "244.0.0.1", "/bgp/routeReflectorClusterID", json!("244.0.0.1")),
            ("IPv4IPIPTunnelAddr", "10.244.1.0", "/bgp/ipv4IPIPTunnelAddr", json!("10.244.1.0")),
            ("IPv4WireguardInterfaceAddr", "10.244.1.2", "/wireguard/interfaceIPv4Address", json!("10.244.1.2")),
            ("IPv6WireguardInterfaceAddr", "fd00::2", "/wireguard/interfaceIPv6Address", json!("fd00::2")),
        ] {
            let key = format!("projectcalico.org/{annotation}");
            let (node, unused) = calico_node(&metadata(&[(&key, text)], &[]));
            assert_eq!(node["spec"].pointer(path), Some(&value), "{annotation} {text}: {node}");
            assert_eq!(unused, [], "{annotation} {text}");
        }
    }

    #[test]
    fn an_annotation_that_makes_no_sense_is_left_out_and_named() {
        let good = ("projectcalico.org/IPv6Address", "fd00::1/64");
        for (annotation, text) in [
            ("IPv4Address", "10.0.0.1/33"),
            ("IPv4Address", "fd00::1/64"),
            ("IPv4Address", "0.0.0.0"),
            ("ASNumber", "-1"),
            ("ASNumber", "23456"),
            ("ASNumber", "many"),
            ("RouteReflectorClusterID", "7"),
            ("labels", "[1]"),
            ("labels", "{\"a\": 1}"),
            ("IPv4WireguardInterfaceAddr", "x"),
        ] {
            let key = format!("projectcalico.org/{annotation}");
            let (node, unused) = calico_node(&metadata(&[good, (&key, text)], &[("rack", "r1")]));
            assert_eq!(node["spec"]["bgp"], json!({ "ipv6Address": "fd00::1/64" }), "{annotation} {text}");
            assert_eq!(node["metadata"]["labels"], json!({ "rack": "r1" }), "{annotation} {text}");
            assert_eq!(unused.len(), 1, "{annotation} {text}");
            assert_eq!(unused[0].0, key);
        }
    }

    #[test]
    fn kubernetes_labels_lie_over_calicos() {
        let calico = ("projectcalico.org/labels", r#"{"rack":"old","role":"reflector"}"#);
        let (node, _) = calico_node(&metadata(&[calico], &[("rack", "new")]));
        assert_eq!(node["metadata"]["labels"], json!({ "rack": "new", "role": "reflector" }));
    }

    #[test]
    fn a_node_without_annotations_does_no_bgp() {
        let empty = ("projectcalico.org/RouteReflectorClusterID", "");
        let others = ("projectcalico.org/IPv4VXLANTunnelAddr", "10.1.1.1");
        let (node, unused) = calico_node(&metadata(&[empty, others], &[]));
        assert_eq!(node["spec"], json!({ "orchRefs": [{ "nodeName": "host-a", "orchestrator": "k8s" }] }));
        assert_eq!(unused, []);
    }
}
