//! The same against a real kube-apiserver, where one is found: it is started with its etcd on loopback.

use std::process::Command;
use std::sync::OnceLock;

use margay::datastore::Updated;
use proto_tests::kube::objects::{Group, object};
use proto_tests::kube::real::{self, RealServer};
use proto_tests::lab::process;
use proto_tests::lab::skip::skipped;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::heard::{Heard, documents};
use super::node_status::writer_with;
use super::rbac::MANIFEST;

/// A server, or the word that the test is skipped.
fn server() -> Option<RealServer> {
    static FOUND: OnceLock<Result<std::path::PathBuf, String>> = OnceLock::new();
    match FOUND.get_or_init(real::find) {
        Ok(program) => Some(RealServer::start(program).unwrap()),
        Err(why) => {
            skipped(std::thread::current().name().unwrap_or_default(), why);
            None
        }
    }
}

fn node(name: &str, asn: u32) -> Value {
    let document =
        json!({ "kind": "Node", "metadata": { "name": name }, "spec": { "bgp": { "ipv4Address": "198.51.100.1/24", "asNumber": asn } } });
    let (_, mut object) = object(Group::Crd, &document);
    let fields = object.as_object_mut().unwrap();
    // The server keeps both itself.
    fields.remove("status");
    fields.remove("spec");
    object["metadata"].as_object_mut().unwrap().remove("managedFields");
    object
}

fn custom(group: Group, yaml: &str) -> Vec<Value> {
    documents(yaml)
        .iter()
        .map(|document| {
            let (_, mut object) = object(group, document);
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("uid");
                metadata.remove("generation");
            }
            object
        })
        .collect()
}

const RESOURCES: &str = r#"
kind: BGPConfiguration
metadata: {name: default, annotations: {margay.io/hold-time: "9"}}
spec: {asNumber: 64512, nodeMeshPassword: {secretKeyRef: {name: bgp-passwords, key: mesh}}, serviceClusterIPs: [{cidr: 10.96.0.0/12}]}
---
kind: BGPPeer
metadata: {name: tor}
spec: {peerIP: 192.0.2.254, asNumber: 65010}
---
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.244.0.0/16}
---
kind: CalicoNodeStatus
metadata: {name: mine}
spec: {node: node-1, classes: [BGP], updatePeriodSeconds: 10}
---
kind: BlockAffinity
metadata: {name: node-1-10-244-1-0-26}
spec: {node: node-1, cidr: 10.244.1.0/26, state: confirmed, deleted: "false"}
---
apiVersion: v1
kind: Secret
metadata: {name: bgp-passwords, namespace: kube-system}
stringData: {mesh: of the mesh}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {type: LoadBalancer, clusterIP: 10.96.7.7, externalTrafficPolicy: Local, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {"kubernetes.io/service-name": web}}
addressType: IPv4
endpoints: [{addresses: [10.244.1.5], nodeName: node-1, conditions: {ready: true}}]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server_is_read_with_the_rights_of_the_manifest_alone() {
    let Some(mut server) = server() else { return };
    server.install(Group::Crd).unwrap();
    server.apply(&[node("node-1", 64601), node("node-2", 64602)]).unwrap();
    server.apply(&custom(Group::Crd, RESOURCES)).unwrap();
    server.apply(&documents(MANIFEST)).unwrap();
    server.kubectl(&["create", "serviceaccount", "calico-node", "-n", "kube-system"], None).unwrap();
    let token = server.kubectl(&["create", "token", "calico-node", "-n", "kube-system"], None).unwrap();

    let mut heard = Heard::with(server.variables(Some(token.trim())));
    heard.told(1).await;
    // CRDs that have just been made answer 429 for a moment.
    heard.until("the manifest is enough", |heard| heard.problems.is_empty() && heard.away.is_none()).await;
    let config = heard.config();
    assert!(config.peers.contains_key("Global_192_0_2_254"), "{:?}", config.peers.keys());
    for key in [
        "Node node-1",
        "Node node-2",
        "BGPPeer tor",
        "IPPool pods",
        "BlockAffinity node-1-10-244-1-0-26",
        "Secret kube-system/bgp-passwords",
        "Service default/web",
        "EndpointSlice default/web-1",
    ] {
        assert!(heard.resources.contains_key(key), "{key} of {:?}", heard.resources.keys());
    }
    assert_eq!(heard.resources["BGPConfiguration default"]["metadata"]["annotations"]["margay.io/hold-time"], "9");

    // Changes, deletion, and a change of status that is none of ours.
    server.apply(&[node("node-2", 64612)]).unwrap();
    heard.until("a changed node", |heard| heard.resources["Node node-2"]["spec"]["bgp"]["asNumber"] == 64612).await;
    let upserts = heard.count("upsert");
    let patch = r#"{"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#;
    server.kubectl(&["patch", "node", "node-2", "--subresource=status", "--type=merge", "-p", patch], None).unwrap();
    server.kubectl(&["delete", "bgppeers.crd.projectcalico.org", "tor"], None).unwrap();
    heard.until("a deleted peer", |heard| !heard.resources.contains_key("BGPPeer tor")).await;
    server.apply(&[node("node-3", 64603)]).unwrap();
    heard.until("a new node", |heard| heard.resources.contains_key("Node node-3")).await;
    assert_eq!(heard.count("upsert"), upserts + 1, "a status is not told");

    // The status, where the definition has no subresource: no news to the reader.
    filled(&server, Group::Crd, token.trim()).await;
    server.apply(&[node("node-2", 64622)]).unwrap();
    heard.until("a change behind", |heard| heard.resources["Node node-2"]["spec"]["bgp"]["asNumber"] == 64622).await;
    assert_eq!(heard.count("upsert"), upserts + 2, "our status is not told");

    // The server dies while nodes change, and comes back with an empty cache: versions go on or are gone, the truth is told.
    server.restart().unwrap();
    let many: Vec<Value> = (10..200).map(|number| node(&format!("node-{number}"), 64700)).collect();
    server.apply(&many).unwrap();
    heard.until("the nodes of after", |heard| heard.resources.keys().filter(|key| key.starts_with("Node ")).count() == 193).await;
    heard.until("it is here", |heard| heard.away.is_none() && heard.problems.is_empty()).await;
    assert_eq!(heard.count("remove"), 1);

    // Without a right: named, and the others go on.
    server.kubectl(&["delete", "rolebinding", "margay-passwords", "-n", "kube-system"], None).unwrap();
    let mut second = Heard::with(server.variables(Some(token.trim())));
    second.told(1).await;
    second
        .until("the missing right", |heard| heard.has_problem("resourceNames [bgp-passwords]") && heard.has_problem("is forbidden"))
        .await;
    assert!(second.resources.contains_key("Node node-199"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newer_group_of_a_real_server_is_found_once_it_is_there() {
    let Some(server) = server() else { return };
    let mut heard = Heard::with(server.variables(None));
    heard.until("it is said", |heard| heard.has_problem("neither crd.projectcalico.org nor projectcalico.org")).await;
    server.install(Group::V3).unwrap();
    server.apply(&[node("node-1", 64601)]).unwrap();
    server.apply(&custom(Group::V3, "kind: BGPPeer\nmetadata: {name: tor}\nspec: {peerIP: 192.0.2.254, asNumber: 65010}\n")).unwrap();
    heard.until("the peer", |heard| heard.resources.contains_key("BGPPeer tor")).await;
    heard.told(1).await;
    heard.until("nothing is wrong any more", |heard| heard.problems.is_empty()).await;
    // The status, where there is a subresource, with the rights of the manifest.
    server.apply(&documents(MANIFEST)).unwrap();
    server.apply(&custom(Group::V3, STATUS)).unwrap();
    filled(&server, Group::V3, &service_account(&server)).await;
}

const STATUS: &str = "kind: CalicoNodeStatus\nmetadata: {name: mine}\nspec: {node: node-1, classes: [BGP], updatePeriodSeconds: 10}\n";

/// The token of calico-node's service account, which the manifest gives rights to.
fn service_account(server: &RealServer) -> String {
    server.kubectl(&["create", "serviceaccount", "calico-node", "-n", "kube-system"], None).unwrap();
    server.kubectl(&["create", "token", "calico-node", "-n", "kube-system"], None).unwrap().trim().to_owned()
}

/// The CalicoNodeStatus `mine` is filled with the rights of this token, and has what was written.
async fn filled(server: &RealServer, group: Group, token: &str) {
    let mut writer = writer_with(server.variables(Some(token)));
    let bgp = |established: u32| json!({ "numberEstablishedV4": established, "numberNotEstablishedV4": 0, "numberEstablishedV6": 0, "numberNotEstablishedV6": 0 });
    let says = |time: &str, established: u32| json!({ "lastUpdated": time, "bgp": bgp(established) });
    assert_eq!(writer.write("mine", &says("2026-01-01T00:00:00Z", 3)).await.unwrap(), Updated::Written);
    assert_eq!(writer.write("mine", &says("2026-01-01T00:00:10Z", 3)).await.unwrap(), Updated::Unchanged);
    assert_eq!(writer.write("mine", &says("2026-01-01T00:00:20Z", 4)).await.unwrap(), Updated::Written);
    assert_eq!(writer.write("nobody's", &says("2026-01-01T00:00:20Z", 4)).await.unwrap(), Updated::Missing);
    let agent = json!({ "lastUpdated": "2026-01-01T00:00:30Z", "agent": { "birdV4": { "state": "Ready" } } });
    let (kind, _) = group.api_version().split_once('/').unwrap();
    let object = |server: &RealServer| -> Value {
        serde_json::from_str(&server.kubectl(&["get", &format!("caliconodestatuses.{kind}"), "mine", "-o", "json"], None).unwrap()).unwrap()
    };
    assert_eq!(object(server)["status"], says("2026-01-01T00:00:20Z", 4));
    assert_eq!(writer.write("mine", &agent).await.unwrap(), Updated::Written);
    assert_eq!(object(server)["status"], agent, "a class that is asked for no more is gone");
    assert_eq!(object(server)["spec"]["updatePeriodSeconds"], 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_of_a_kubeconfig_is_enough() {
    let Some(server) = server() else { return };
    server.install(Group::Crd).unwrap();
    server.apply(&[node("node-1", 64601)]).unwrap();
    let file = server.kubeconfig_with_a_certificate().unwrap();
    let mut heard = Heard::with(vec![("KUBECONFIG".to_owned(), file)]);
    heard.told(1).await;
    heard.until("nothing is wrong", |heard| heard.problems.is_empty()).await;
    assert!(heard.resources.contains_key("Node node-1"));
}

/// Set inside the pod.
const POD: &str = "MARGAY_KUBERNETES_TEST_POD";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_reads_with_its_service_account() {
    const NAME: &str = "real::a_pod_reads_with_its_service_account";
    if std::env::var_os(POD).is_some() {
        let mut heard = Heard::with(Vec::new());
        heard.told(1).await;
        heard.until("nothing is wrong", |heard| heard.problems.is_empty()).await;
        assert!(heard.resources.contains_key("Node node-1"));
        return;
    }
    let Some(server) = server() else { return };
    if !Command::new("unshare").args(["--mount", "true"]).output().is_ok_and(|output| output.status.success()) {
        return skipped(NAME, "it needs a mount namespace: run as root");
    }
    server.install(Group::Crd).unwrap();
    server.apply(&[node("node-1", 64601)]).unwrap();
    server.apply(&documents(MANIFEST)).unwrap();
    // What a kubelet puts into a pod, where the client looks for it: over /run of a namespace of its own.
    let account = TempDir::new().unwrap();
    std::fs::write(account.path().join("token"), service_account(&server)).unwrap();
    std::fs::write(account.path().join("namespace"), "kube-system").unwrap();
    std::fs::copy(server.authority(), account.path().join("ca.crt")).unwrap();
    let script = "mount -t tmpfs none /run && mkdir -p /run/secrets/kubernetes.io/serviceaccount && cp \"$1\"/* /run/secrets/kubernetes.io/serviceaccount \
                  && exec \"$2\" --exact \"$3\" --test-threads=1";
    let mut pod = Command::new("unshare");
    pod.args(["--mount", "sh", "-c", script, "sh"]).arg(account.path()).arg(std::env::current_exe().unwrap()).arg(NAME);
    let address = server.address();
    pod.env(POD, "1").env("KUBERNETES_SERVICE_HOST", address.ip().to_string()).env("KUBERNETES_SERVICE_PORT", address.port().to_string());
    let said = process::run(pod, None).unwrap();
    assert!(said.contains("1 passed"), "{said}");
}
