//! Calico's v3 documents as the objects of the Kubernetes API that Calico's own components make of them.

use data_encoding::BASE64;
use serde_json::{Map, Value, json};

/// Which API group Calico's resources are put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// `crd.projectcalico.org/v1`.
    Crd,
    /// `projectcalico.org/v3`.
    V3,
}

impl Group {
    /// Name and version.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Crd => "crd.projectcalico.org/v1",
            Self::V3 => "projectcalico.org/v3",
        }
    }
}

/// Collection and object of a document: what `calicoctl apply` or `kubectl apply` would leave in the API.
///
/// # Panics
/// On a kind that is not known here.
pub fn object(group: Group, document: &Value) -> (String, Value) {
    let kind = document["kind"].as_str().unwrap_or_default();
    match kind {
        "Node" => ("/api/v1/nodes".to_owned(), node(document)),
        "Secret" => ("/api/v1/secrets".to_owned(), secret(document)),
        "Service" => ("/api/v1/services".to_owned(), document.clone()),
        "EndpointSlice" => ("/apis/discovery.k8s.io/v1/endpointslices".to_owned(), document.clone()),
        "BGPConfiguration" | "BGPPeer" | "BGPFilter" | "CalicoNodeStatus" | "IPPool" => (collection(group, kind), calico(group, document)),
        "BlockAffinity" => (collection(group, kind), calico(group, document)),
        other => panic!("no object of kind {other}"),
    }
}

/// Path of the collection of one of Calico's kinds.
pub fn collection(group: Group, kind: &str) -> String {
    let plural = match kind {
        "BlockAffinity" => "blockaffinities".to_owned(),
        "CalicoNodeStatus" => "caliconodestatuses".to_owned(),
        other => format!("{}s", other.to_lowercase()),
    };
    format!("/apis/{}/{plural}", group.api_version())
}

/// In the older group, labels and annotations of users are in an annotation.
fn calico(group: Group, document: &Value) -> Value {
    let mut object = document.clone();
    object["apiVersion"] = group.api_version().into();
    if group == Group::Crd {
        let metadata = &document["metadata"];
        let wrapped: Map<String, Value> =
            ["labels", "annotations"].into_iter().filter_map(|field| Some((field.to_owned(), metadata.get(field)?.clone()))).collect();
        let mut metadata = json!({ "name": metadata["name"], "uid": "85f08a72-3b9b-4341-b2f5-fd7eee9808fc", "generation": 1 });
        if !wrapped.is_empty() {
            metadata["annotations"] = json!({ "projectcalico.org/metadata": Value::from(wrapped).to_string() });
        }
        object["metadata"] = metadata;
    }
    object
}

/// A core Node with annotations, and with the bulk that a real one has.
fn node(document: &Value) -> Value {
    let mut annotations = Map::new();
    let bgp = &document["spec"]["bgp"];
    for (field, annotation) in [
        ("ipv4Address", "IPv4Address"),
        ("ipv6Address", "IPv6Address"),
        ("asNumber", "ASNumber"),
        ("routeReflectorClusterID", "RouteReflectorClusterID"),
        ("ipv4IPIPTunnelAddr", "IPv4IPIPTunnelAddr"),
    ] {
        let text = match &bgp[field] {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => continue,
        };
        annotations.insert(format!("projectcalico.org/{annotation}"), text.into());
    }
    for (field, annotation) in
        [("interfaceIPv4Address", "IPv4WireguardInterfaceAddr"), ("interfaceIPv6Address", "IPv6WireguardInterfaceAddr")]
    {
        if let Some(text) = document["spec"]["wireguard"][field].as_str() {
            annotations.insert(format!("projectcalico.org/{annotation}"), text.into());
        }
    }
    let labels = document["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": document["metadata"]["name"],
            "labels": labels,
            "annotations": annotations,
            "managedFields": [{ "manager": "kubelet", "operation": "Update", "fieldsV1": { "f:status": {} } }],
        },
        "spec": { "podCIDRs": document["status"]["podCIDRs"] },
        "status": { "images": vec![json!({ "names": ["registry.example/image@sha256:0123456789abcdef"], "sizeBytes": 123_456_789 }); 20] },
    })
}

/// `stringData` is `data` once it is stored.
fn secret(document: &Value) -> Value {
    let mut object = document.clone();
    let mut data = object["data"].as_object().cloned().unwrap_or_default();
    for (key, text) in document["stringData"].as_object().into_iter().flatten() {
        data.insert(key.clone(), BASE64.encode(text.as_str().unwrap_or_default().as_bytes()).into());
    }
    if let Some(object) = object.as_object_mut() {
        object.remove("stringData");
        object.insert("data".to_owned(), data.into());
    }
    object
}
