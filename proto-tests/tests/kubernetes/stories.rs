//! What is in the API is what files would say; what changes there is told, once.

use std::time::Duration;

use margay::calico::{Compiler, Environment, Output};
use margay::config::{Authentication, NodeConfig};
use margay::types::Outbox;
use proto_tests::kube::objects::{Group, collection, object};
use proto_tests::kube::{ApiServer, Behaviour};
use serde_json::{Value, json};

use super::heard::{Heard, apply, documents};

/// A cluster that uses every kind.
const CLUSTER: &str = r#"
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node-1, labels: {rack: r1, "kubernetes.io/hostname": node-1}}
spec: {bgp: {ipv4Address: 192.0.2.1/24, ipv6Address: "2001:db8::1/64", asNumber: 64601}, orchRefs: [{nodeName: node-1, orchestrator: k8s}]}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node-2, labels: {rack: r2}}
spec: {bgp: {ipv4Address: 192.0.2.2/24}, wireguard: {interfaceIPv4Address: 10.0.9.2}, orchRefs: [{nodeName: node-2, orchestrator: k8s}]}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: reflector, labels: {route-reflector: "true"}}
spec: {bgp: {ipv4Address: 192.0.2.9/24, routeReflectorClusterID: 244.0.0.1}, orchRefs: [{nodeName: reflector, orchestrator: k8s}]}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default, annotations: {margay.io/hold-time: "9"}}
spec: {asNumber: 64512, nodeMeshPassword: {secretKeyRef: {name: passwords, key: mesh}}, serviceClusterIPs: [{cidr: 10.96.0.0/12}]}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: node.node-2}
spec: {listenPort: 1790}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: tor}
spec: {nodeSelector: "rack == 'r1'", peerIP: 192.0.2.254, asNumber: 65010, filters: [only-pods], password: {secretKeyRef: {name: passwords, key: tor}}}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: reflectors}
spec: {peerSelector: has(route-reflector)}
---
apiVersion: projectcalico.org/v3
kind: BGPFilter
metadata: {name: only-pods}
spec: {exportV4: [{action: Accept, matchOperator: In, cidr: 10.244.0.0/16}, {action: Reject}]}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.244.0.0/16, ipipMode: CrossSubnet, natOutgoing: true}
---
apiVersion: projectcalico.org/v3
kind: BlockAffinity
metadata: {name: node-1-10-244-1-0-26}
spec: {node: node-1, cidr: 10.244.1.0/26, state: confirmed, deleted: "false"}
---
apiVersion: projectcalico.org/v3
kind: BlockAffinity
metadata: {name: node-2-10-244-2-0-26}
spec: {node: node-2, cidr: 10.244.2.0/26, state: confirmed, deleted: "false"}
---
apiVersion: v1
kind: Secret
metadata: {name: passwords, namespace: kube-system}
stringData: {mesh: of the mesh, tor: of the tor}
---
apiVersion: v1
kind: Secret
metadata: {name: nobody-asks-for-this, namespace: kube-system}
stringData: {mesh: x}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {type: LoadBalancer, clusterIP: 10.96.7.7, clusterIPs: [10.96.7.7], externalTrafficPolicy: Local, ipFamilies: [IPv4]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {"kubernetes.io/service-name": web}}
addressType: IPv4
endpoints: [{addresses: [10.244.1.5], nodeName: node-1, conditions: {ready: true}}, {addresses: [10.244.2.5], nodeName: node-2}]
"#;

/// What the node does with the same documents from files.
fn from_files(yaml: &str) -> NodeConfig {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("all.yaml"), yaml).unwrap();
    let mut compiler = Compiler::new("node-1".to_owned(), Environment::default());
    let mut outbox = Outbox::new();
    let now = std::time::Instant::now();
    for input in margay::datastore::load(&[folder.path().to_path_buf()]) {
        compiler.handle(now, input, &mut outbox);
    }
    compiler.on_deadline(now + Duration::from_secs(1), &mut outbox);
    let Some(Output::Compiled { config: Some(config), .. }) = outbox.drain().last() else { panic!("no configuration") };
    (*config).clone()
}

fn node(name: &str, asn: u32) -> (String, Value) {
    let bgp = json!({ "ipv4Address": "198.51.100.1/24", "asNumber": asn });
    object(Group::Crd, &json!({ "kind": "Node", "metadata": { "name": name }, "spec": { "bgp": bgp } }))
}

#[tokio::test]
async fn the_same_resources_as_files_give_the_same_configuration() {
    let expected = from_files(CLUSTER);
    let with_password = expected.peers.values().filter(|peer| matches!(peer.authentication, Authentication::Md5(_))).count();
    assert!(expected.peers.len() >= 3 && with_password > 0, "{expected:#?}");
    for (group, name) in [(Group::Crd, "crd.projectcalico.org"), (Group::V3, "projectcalico.org")] {
        let server = ApiServer::start_with(Behaviour { groups: vec![name], ..Behaviour::default() }).unwrap();
        apply(&server, group, CLUSTER);
        let mut heard = Heard::start(&server, &[]);
        heard.told(1).await;
        assert_eq!(heard.problems, []);
        assert_eq!(heard.config(), expected, "{name}");
        let keys: Vec<&str> = heard.resources.keys().map(String::as_str).collect();
        assert!(keys.contains(&"Secret kube-system/passwords") && !keys.iter().any(|key| key.contains("nobody")), "{keys:?}");
        assert!(keys.contains(&"Service default/web") && keys.contains(&"EndpointSlice default/web-1"), "{keys:?}");
        assert!(!keys.iter().any(|key| key.contains("node-2-10-244")), "blocks of others are not kept: {keys:?}");
        heard.ended().await.unwrap();
    }
}

#[tokio::test]
async fn the_older_group_is_taken_where_both_are_served_unless_the_variable_says_otherwise() {
    let groups = vec!["crd.projectcalico.org", "projectcalico.org"];
    let server = ApiServer::start_with(Behaviour { groups, ..Behaviour::default() }).unwrap();
    let pool = |cidr: &str| json!({ "kind": "IPPool", "metadata": { "name": "pool" }, "spec": { "cidr": cidr } });
    server.put([object(Group::Crd, &pool("10.1.0.0/16")), object(Group::V3, &pool("10.3.0.0/16")), node("node-1", 1)]);
    for (variable, cidr) in
        [(None, "10.1.0.0/16"), (Some("projectcalico.org/v3"), "10.3.0.0/16"), (Some("crd.projectcalico.org/v1"), "10.1.0.0/16")]
    {
        let variables: Vec<(&str, &str)> = variable.iter().map(|group| ("CALICO_API_GROUP", *group)).collect();
        let mut heard = Heard::start(&server, &variables);
        heard.told(1).await;
        assert_eq!(heard.resources["IPPool pool"]["spec"]["cidr"], cidr, "{variable:?}");
    }
}

#[tokio::test]
async fn every_change_is_told() {
    let server = ApiServer::start().unwrap();
    apply(&server, Group::Crd, CLUSTER);
    let mut heard = Heard::start(&server, &[]);
    heard.told(1).await;
    let upserts = heard.count("upsert");

    server.put([node("node-3", 64603)]);
    heard.until("a new node", |heard| heard.resources.contains_key("Node node-3")).await;
    server.put([node("node-3", 64604)]);
    heard.until("a changed node", |heard| heard.resources["Node node-3"]["spec"]["bgp"]["asNumber"] == 64604).await;
    server.delete("/api/v1/nodes", "", "node-3");
    heard.until("a node that goes", |heard| !heard.resources.contains_key("Node node-3")).await;

    let mut filter = documents(CLUSTER).into_iter().find(|document| document["kind"] == "BGPFilter").unwrap();
    filter["spec"]["exportV4"][0]["action"] = "Reject".into();
    server.put([object(Group::Crd, &filter)]);
    heard.until("a changed filter", |heard| heard.resources["BGPFilter only-pods"]["spec"]["exportV4"][0]["action"] == "Reject").await;
    assert_eq!(heard.count("upsert"), upserts + 3, "each change once");
    assert_eq!((heard.count("begin"), heard.count("end"), heard.count("remove")), (1, 1, 1));
}

#[tokio::test]
async fn a_changed_password_is_told_and_a_secret_that_nobody_names_is_forgotten() {
    let server = ApiServer::start().unwrap();
    apply(&server, Group::Crd, CLUSTER);
    let mut heard = Heard::start(&server, &[]);
    heard.told(1).await;
    let secret = |text: &str| json!({ "kind": "Secret", "metadata": { "name": "passwords", "namespace": "kube-system" }, "stringData": { "tor": text } });
    server.put([object(Group::Crd, &secret("another"))]);
    heard.until("the new password", |heard| heard.resources["Secret kube-system/passwords"]["data"]["tor"] == "YW5vdGhlcg==").await;

    server.delete(&collection(Group::Crd, "BGPPeer"), "", "tor");
    heard.until("the peer is gone", |heard| !heard.resources.contains_key("BGPPeer tor")).await;
    assert!(heard.resources.contains_key("Secret kube-system/passwords"), "the mesh needs it still");
    let defaults = json!({ "kind": "BGPConfiguration", "metadata": { "name": "default" }, "spec": {} });
    server.put([object(Group::Crd, &defaults)]);
    heard.until("nobody names it", |heard| !heard.resources.contains_key("Secret kube-system/passwords")).await;
    heard
        .until("no service is advertised", |heard| {
            !heard.resources.keys().any(|key| key.starts_with("Service") || key.starts_with("Endpoint"))
        })
        .await;

    let advertises = json!({ "kind": "BGPConfiguration", "metadata": { "name": "default" }, "spec": { "serviceExternalIPs": [{ "cidr": "203.0.113.0/24" }] } });
    server.put([object(Group::Crd, &advertises)]);
    heard
        .until("services again", |heard| {
            heard.resources.contains_key("Service default/web") && heard.resources.contains_key("EndpointSlice default/web-1")
        })
        .await;
}

#[tokio::test]
async fn block_affinities_of_this_node_are_found_with_and_without_their_label() {
    let server = ApiServer::start().unwrap();
    let affinity = |name: &str, node: &str, label: Option<&str>| {
        let spec = json!({ "node": node, "cidr": "10.244.1.0/26", "state": "confirmed", "deleted": "false" });
        let (collection, mut object) = object(Group::Crd, &json!({ "kind": "BlockAffinity", "metadata": { "name": name }, "spec": spec }));
        if let Some(label) = label {
            object["metadata"]["labels"] = json!({ "projectcalico.org/hostname-hash": label });
        }
        (collection, object)
    };
    // SHA3-256 of `node-1` in base32.
    let own = "A3XPYDATRKB7Q4SM2O5FN4RXIHBFIL2PITFX26BAIP5XAB2X74CA";
    server.put([
        affinity("labelled", "node-1", Some(own)),
        affinity("old", "node-1", None),
        affinity("other", "node-2", Some("OTHER")),
        affinity("old-other", "node-2", None),
    ]);
    let mut heard = Heard::start(&server, &[]);
    heard.told(1).await;
    let blocks = |heard: &Heard| heard.resources.keys().filter(|key| key.starts_with("BlockAffinity")).cloned().collect::<Vec<_>>();
    assert_eq!(blocks(&heard), ["BlockAffinity labelled", "BlockAffinity old"]);
    let before = heard.count("remove");
    server.put([affinity("old", "node-1", Some(own)), affinity("last", "node-1", Some(own))]);
    heard.until("the last change", |heard| heard.resources.contains_key("BlockAffinity last")).await;
    heard.until("the label moves it", |heard| heard.resources.contains_key("BlockAffinity old")).await;
    assert!(heard.count("remove") <= before + 1, "at most a moment");
}
