//! `packaging/kubernetes/rbac.yaml` grants exactly what the datastore asks for.

use std::collections::BTreeSet;

use proto_tests::kube::objects::Group;
use proto_tests::kube::{ApiServer, Asked, Behaviour};
use serde_json::{Value, json};

use super::heard::{Heard, apply, documents};
use super::node_status::writer;

/// The manifest.
pub const MANIFEST: &str = include_str!("../../../packaging/kubernetes/rbac.yaml");

/// One thing that may be done: verb, group, plural, namespace, name (the last two empty where they do not matter).
type Right = (String, String, String, String, String);

/// What the rules grant.
fn granted() -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for role in documents(MANIFEST) {
        let namespace = if role["kind"] == "Role" { text(&role["metadata"]["namespace"]) } else { String::new() };
        for rule in role["rules"].as_array().into_iter().flatten() {
            let names = rule.get("resourceNames").map_or(vec![String::new()], texts);
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for verb in texts(&rule["verbs"]) {
                        rights.extend(
                            names.iter().map(|name| (verb.clone(), group.clone(), resource.clone(), namespace.clone(), name.clone())),
                        );
                    }
                }
            }
        }
    }
    rights
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

/// What was asked for, as a rule must grant it: a name counts in a namespace only, since the ClusterRole has none.
fn right(asked: &Asked) -> Right {
    let Asked { verb, group, resource, namespace, name, .. } = asked.clone();
    let name = if namespace.is_empty() { String::new() } else { name };
    (verb, group, resource, namespace, name)
}

const CLUSTER: &str = r#"
kind: Node
metadata: {name: node-1}
spec: {bgp: {ipv4Address: 192.0.2.1/24}}
---
kind: BGPConfiguration
metadata: {name: default}
spec: {serviceClusterIPs: [{cidr: 10.96.0.0/12}], nodeMeshPassword: {secretKeyRef: {name: bgp-passwords, key: mesh}}}
---
kind: CalicoNodeStatus
metadata: {name: mine}
spec: {node: node-1, classes: [Agent], updatePeriodSeconds: 10}
"#;

#[tokio::test]
async fn the_manifest_grants_what_is_asked_for_and_nothing_else() {
    let mut asked = BTreeSet::new();
    for (group, name) in [(Group::Crd, "crd.projectcalico.org"), (Group::V3, "projectcalico.org")] {
        // Both ways of reading are needed: one server knows initial events, the other wants lists.
        for initial_events in [true, false] {
            let server = ApiServer::start_with(Behaviour { groups: vec![name], initial_events, ..Behaviour::default() }).unwrap();
            apply(&server, group, CLUSTER);
            let mut heard = Heard::start(&server, &[]);
            heard.told(1).await;
            writer(&server).write("mine", &json!({ "agent": {} })).await.unwrap();
            let discovery = |asked: &Asked| asked.resource == "/apis";
            asked.extend(server.asked().iter().filter(|asked| !discovery(asked)).map(right));
            // What system:discovery grants to everybody is asked for once by whoever reads and by whoever writes.
            assert_eq!(server.asked().iter().filter(|asked| discovery(asked)).count(), 2);
        }
    }
    assert_eq!(asked, granted());
}

#[tokio::test]
async fn less_is_asked_for_where_less_is_needed() {
    let server = ApiServer::start().unwrap();
    apply(&server, Group::Crd, "kind: Node\nmetadata: {name: node-1}\nstatus: {podCIDRs: [10.9.0.0/24]}\nspec: {}\n");
    let mut heard = Heard::start(&server, &[("USE_POD_CIDR", "true"), ("K8S_DISABLE_NODE_POLL", "true")]);
    heard.told(1).await;
    let plurals: BTreeSet<String> = server.asked().into_iter().map(|asked| asked.resource).collect();
    assert_eq!(
        plurals.iter().map(String::as_str).collect::<Vec<_>>(),
        ["/apis", "bgpconfigurations", "bgpfilters", "bgppeers", "caliconodestatuses", "ippools", "nodes"]
    );
    assert!(server.asked().iter().filter(|asked| asked.resource == "nodes").all(|asked| asked.name == "node-1"));
    assert_eq!(heard.resources["BlockAffinity node-1-podcidr-0"]["spec"]["cidr"], "10.9.0.0/24");
}
