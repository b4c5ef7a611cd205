//! Objects of the API as the documents that Calico's tools would print, with only what BGP reads.

use serde_json::{Map, Value, json};

use super::node::calico_node;
use super::object::{Metadata, Object};
use super::source::{Converted, Plan};
use crate::calico::{Location, Problem, ResourceKey, Severity};

/// Where Calico keeps the metadata that its users see, on objects of the group `crd.projectcalico.org`.
const WRAPPER: &str = "projectcalico.org/metadata";

/// An object of Calico's own kinds.
///
/// Calico's client hides the labels and annotations of users in one annotation of the custom resource; they are taken
/// out of it. What stands on the resource itself (put there with kubectl) counts too, below it.
pub(super) fn calico(kind: &str, object: Object) -> Converted {
    let key = key(kind, "", &object.metadata.name);
    let mut metadata = Map::new();
    let mut problems = Vec::new();
    let wrapped: Value = match object.metadata.annotations.get(WRAPPER).map(|text| serde_json::from_str(text)) {
        None => Value::Null,
        Some(Ok(wrapped)) => wrapped,
        Some(Err(error)) => {
            let what = format!("annotation {WRAPPER} is no JSON: {error}");
            problems.push(problem(&key, "metadata.annotations", what, "the labels and annotations in it are left out"));
            Value::Null
        }
    };
    let uses = |name: &str| !name.starts_with("kubectl.kubernetes.io/") && name != WRAPPER;
    for (field, own) in [("labels", object.metadata.labels), ("annotations", object.metadata.annotations)] {
        let mut all: Map<String, Value> = own.into_iter().map(|(name, value)| (name, value.into())).collect();
        if let Some(Value::Object(wrapped)) = wrapped.get(field) {
            all.extend(wrapped.clone());
        }
        all.retain(|name, _| uses(name));
        if !all.is_empty() {
            metadata.insert(field.to_owned(), all.into());
        }
    }
    metadata.insert("name".to_owned(), object.metadata.name.into());
    let document = json!({ "apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": object.spec });
    Converted { resources: vec![(key, Some(document))], problems }
}

/// A BlockAffinity or a CalicoNodeStatus, if it is this node's.
pub(super) fn own(kind: &str, node: &str, object: Object) -> Converted {
    if object.spec.get("node").and_then(Value::as_str) != Some(node) {
        return Converted { resources: vec![(key(kind, "", &object.metadata.name), None)], problems: Vec::new() };
    }
    calico(kind, object)
}

/// A core Node.
pub(super) fn node(path: &str, object: Object) -> Converted {
    let key = key("Node", "", &object.metadata.name);
    let (document, unused) = calico_node(&object.metadata);
    let location = Location { file: format!("{path}/{}", key.name), ..Location::default() };
    let problems = unused.into_iter().map(|(annotation, what)| {
        let field = format!("metadata.annotations[{annotation}]");
        Problem { location: location.clone(), ..problem(&key, &field, what, "the annotation is left out, as Calico leaves it out") }
    });
    Converted { problems: problems.collect(), resources: vec![(key, Some(document))] }
}

/// The podCIDRs of our own Node as its blocks: at most one a family, so two places.
pub(super) fn pod_cidrs(object: Object) -> Converted {
    let node = object.metadata.name;
    let mut cidrs: Vec<&str> = object.spec["podCIDRs"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if cidrs.is_empty() {
        cidrs.extend(object.spec["podCIDR"].as_str());
    }
    let mut resources = Vec::new();
    for place in 0..2 {
        let name = format!("{node}-podcidr-{place}");
        let document = cidrs.get(place).map(|cidr| {
            let spec = json!({ "node": node, "cidr": cidr, "state": "confirmed", "type": "host" });
            json!({ "apiVersion": "projectcalico.org/v3", "kind": "BlockAffinity", "metadata": { "name": name }, "spec": spec })
        });
        resources.push((key("BlockAffinity", "", &name), document));
    }
    Converted { resources, problems: Vec::new() }
}

/// A Service: its addresses and traffic policy.
pub(super) fn service(object: Object) -> Converted {
    let Metadata { name, namespace, .. } = object.metadata;
    let kept = ["type", "clusterIP", "clusterIPs", "externalIPs", "loadBalancerIP", "externalTrafficPolicy", "ipFamilies"];
    let ingress = object.status.load_balancer.get("ingress").and_then(Value::as_array);
    let ingress: Vec<Value> = ingress.into_iter().flatten().filter_map(|item| Some(json!({ "ip": item.get("ip")?.as_str()? }))).collect();
    let document = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": namespace },
        "spec": only(&object.spec, &kept),
        "status": { "loadBalancer": { "ingress": ingress } },
    });
    Converted { resources: vec![(key("Service", &namespace, &name), Some(document))], problems: Vec::new() }
}

/// An EndpointSlice, folded to what decides about an advertisement: is there a ready endpoint, on this node, on
/// another? A slice of hundreds of pods that come and go elsewhere thus rarely changes.
pub(super) fn endpoint_slice(plan: &Plan, object: Object) -> Converted {
    const SERVICE: &str = "kubernetes.io/service-name";
    let Metadata { name, namespace, mut labels, .. } = object.metadata;
    labels.retain(|label, _| label == SERVICE);
    let mut endpoints: Vec<(Option<String>, bool)> =
        object.endpoints.into_iter().map(|endpoint| (endpoint.node_name, endpoint.conditions.ready.unwrap_or(true))).collect();
    for (node, _) in &mut endpoints {
        if node.as_ref().is_some_and(|node| *node != plan.kubernetes_node) {
            *node = Some("another node".to_owned());
        }
    }
    endpoints.sort();
    endpoints.dedup();
    let endpoints: Vec<Value> =
        endpoints.into_iter().map(|(node, ready)| json!({ "addresses": [], "nodeName": node, "conditions": { "ready": ready } })).collect();
    let document = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": name, "namespace": namespace, "labels": labels },
        "addressType": object.address_type,
        "endpoints": endpoints,
    });
    Converted { resources: vec![(key("EndpointSlice", &namespace, &name), Some(document))], problems: Vec::new() }
}

/// A Secret.
pub(super) fn secret(object: Object) -> Converted {
    let Metadata { name, namespace, .. } = object.metadata;
    let document = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": name, "namespace": namespace },
        "data": object.data,
    });
    Converted { resources: vec![(key("Secret", &namespace, &name), Some(document))], problems: Vec::new() }
}

fn only(spec: &Value, fields: &[&str]) -> Map<String, Value> {
    let fields = fields.iter().filter_map(|field| Some(((*field).to_owned(), spec.get(field)?.clone())));
    fields.collect()
}

fn key(kind: &str, namespace: &str, name: &str) -> ResourceKey {
    ResourceKey { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
}

fn problem(key: &ResourceKey, field: &str, what: String, instead: &str) -> Problem {
    let general = Problem::general(Severity::Warning, what, instead);
    Problem { resource: Some(key.clone()), field: field.to_owned(), ..general }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Object {
        serde_json::from_value(value).unwrap()
    }

    fn document(converted: Converted) -> Value {
        converted.resources.into_iter().next().unwrap().1.unwrap()
    }

    #[test]
    fn what_calicos_client_has_wrapped_is_taken_out() {
        let annotations = json!({
            WRAPPER: r#"{"labels":{"a":"1"},"annotations":{"margay.io/hold-time":"9"},"creationTimestamp":"2026-11-23T21:30:36Z"}"#,
            "kubectl.kubernetes.io/last-applied-configuration": "{}",
            "margay.io/hold-time": "3",
            "margay.io/add-path": "off",
        });
        let object = json!({ "metadata": { "name": "tor", "uid": "x", "annotations": annotations }, "spec": { "peerIP": "192.0.2.1" } });
        let expected = json!({
            "apiVersion": "projectcalico.org/v3",
            "kind": "BGPPeer",
            "metadata": { "name": "tor", "labels": { "a": "1" }, "annotations": { "margay.io/hold-time": "9", "margay.io/add-path": "off" } },
            "spec": { "peerIP": "192.0.2.1" },
        });
        assert_eq!(document(calico("BGPPeer", read(object))), expected);
        let broken = calico("BGPPeer", read(json!({ "metadata": { "name": "tor", "annotations": { WRAPPER: "{" } } })));
        assert_eq!(broken.problems.len(), 1);
    }

    #[test]
    fn affinities_of_others_are_none() {
        let object =
            |node: &str| read(json!({ "metadata": { "name": "n" }, "spec": { "node": node, "cidr": "10.0.0.0/26", "deleted": "false" } }));
        assert!(own("BlockAffinity", "a", object("a")).resources[0].1.is_some());
        assert!(own("BlockAffinity", "a", object("b")).resources[0].1.is_none());
    }

    #[test]
    fn pod_cidrs_are_blocks() {
        let spec = |spec: Value| pod_cidrs(read(json!({ "metadata": { "name": "a" }, "spec": spec }))).resources;
        let both = spec(json!({ "podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00::/64"] }));
        assert_eq!(both[0].1.as_ref().unwrap()["spec"]["cidr"], "10.1.0.0/24");
        assert_eq!(both[1].1.as_ref().unwrap()["spec"]["cidr"], "fd00::/64");
        let one = spec(json!({ "podCIDR": "10.1.0.0/24" }));
        assert!(one[0].1.is_some() && one[1].1.is_none());
        let none = spec(json!({}));
        assert!(none[0].1.is_none() && none[1].1.is_none());
    }

    #[test]
    fn a_service_is_its_addresses_and_its_policy() {
        let object = json!({
            "metadata": { "name": "web", "namespace": "default" },
            "spec": { "clusterIP": "10.96.7.7", "clusterIPs": ["10.96.7.7"], "type": "LoadBalancer", "externalTrafficPolicy": "Local",
                      "selector": { "app": "web" }, "ports": [{ "port": 80 }] },
            "status": { "loadBalancer": { "ingress": [{ "ip": "198.51.100.9", "ipMode": "VIP" }, { "hostname": "x" }] }, "conditions": [] },
        });
        let service = document(service(read(object)));
        assert_eq!(service["status"], json!({ "loadBalancer": { "ingress": [{ "ip": "198.51.100.9" }] } }));
        let spec =
            json!({ "clusterIP": "10.96.7.7", "clusterIPs": ["10.96.7.7"], "type": "LoadBalancer", "externalTrafficPolicy": "Local" });
        assert_eq!(service["spec"], spec);
    }

    #[test]
    fn a_slice_is_folded_to_what_decides() {
        let endpoint = |node: &str, ready: Value| json!({ "addresses": ["10.0.0.1"], "nodeName": node, "conditions": { "ready": ready } });
        let plan = Plan { kubernetes_node: "a".to_owned(), ..Plan::default() };
        let slice = |endpoints: Value| {
            let metadata = json!({ "name": "web-1", "namespace": "default", "labels": { "kubernetes.io/service-name": "web", "x": "y" } });
            document(endpoint_slice(&plan, read(json!({ "metadata": metadata, "addressType": "IPv4", "endpoints": endpoints }))))
        };
        let yes = json!(true);
        let one = slice(json!([endpoint("b", yes.clone()), endpoint("a", json!(null))]));
        let many =
            slice(json!([endpoint("a", yes.clone()), endpoint("c", yes.clone()), endpoint("d", yes.clone()), endpoint("b", yes.clone())]));
        assert_eq!(one, many);
        assert_eq!(one["endpoints"].as_array().unwrap().len(), 2);
        assert_eq!(one["metadata"]["labels"], json!({ "kubernetes.io/service-name": "web" }));
        assert_ne!(slice(json!([endpoint("a", json!(false)), endpoint("b", yes)])), one);
        assert_eq!(slice(json!(null))["endpoints"], json!([]));
    }
}
