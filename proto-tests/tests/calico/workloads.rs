//! Sessions with local workloads (section 3.6 of Calico's semantics).

use margay::calico::LocalWorkload;
use margay::config::PeerKind;

use crate::cluster::{Cluster, defaults, node, peer, session};

fn with(text: &str, workloads: &[(&str, &[&str])]) -> Cluster {
    let mut cluster =
        Cluster::new(&[node("a", "10.0.0.1", "", "rack: r1"), defaults("nodeToNodeMeshEnabled: false"), text.to_owned()].concat());
    let workload = |(peer, addresses): &(&str, &[&str])| LocalWorkload {
        peer: (*peer).to_owned(),
        interface: "cali1".to_owned(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    };
    cluster.store.set_workloads(workloads.iter().map(workload).collect());
    cluster
}

#[test]
fn one_passive_session_for_each_family_of_each_workload() {
    let spec = "localWorkloadSelector: \"app == 'router'\", asNumber: 65100, localASNumber: 64999";
    let cluster = with(&peer("pods", spec), &[("pods", &["10.1.0.5"]), ("pods", &["10.1.0.6"]), ("others", &["10.1.0.7"])]);
    assert_eq!(
        cluster.sessions("a"),
        [
            "Local_Workload_10_1_0_5 10.1.0.5:179 64999→65100 from any passive",
            "Local_Workload_10_1_0_6 10.1.0.6:179 64999→65100 from any passive"
        ]
    );
    assert_eq!(cluster.peer("a", "Local_Workload_10_1_0_5").kind, PeerKind::Workload);
    assert!(cluster.problems("a").is_empty(), "{:#?}", cluster.problems("a"));
    // A family that the node has no address of has no sessions.
    assert!(with(&peer("pods", spec), &[("pods", &["fd00::5"])]).sessions("a").is_empty());
}

#[test]
fn a_selector_of_other_nodes_makes_no_session_here() {
    let elsewhere = peer("pods", "nodeSelector: \"rack == 'r2'\", localWorkloadSelector: all(), asNumber: 65100");
    assert!(with(&elsewhere, &[("pods", &["10.1.0.5"])]).sessions("a").is_empty());
}

#[test]
fn workload_peers_get_their_password() {
    let spec = "localWorkloadSelector: all(), asNumber: 65100, password: {secretKeyRef: {name: s, key: k}}";
    let secret = "---\nkind: Secret\nmetadata: {name: s, namespace: kube-system}\nstringData: {k: hush}\n";
    let sessions = |secret: &str| with(&(peer("pods", spec) + secret), &[("pods", &["10.1.0.5"])]).sessions("a");
    assert!(sessions(secret)[0].ends_with("passive md5"), "{:?}", sessions(secret));
    assert!(sessions("")[0].contains("waits for key `k` of Secret `s`"), "{:?}", sessions(""));
}

#[test]
fn fields_without_effect_are_named() {
    let spec =
        "localWorkloadSelector: all(), asNumber: 65100, ttlSecurity: 1, keepaliveTime: 5s, numAllowedLocalASNumbers: 2, nextHopMode: Self";
    let cluster = with(&peer("pods", spec), &[("pods", &["10.1.0.5"])]);
    assert_eq!(session(&cluster.peer("a", "Local_Workload_10_1_0_5")), "Local_Workload_10_1_0_5 10.1.0.5:179 64512→65100 from any passive");
    let problems = cluster.problems("a");
    assert_eq!(problems.len(), 4, "{problems:#?}");
    assert!(problems.iter().all(|problem| problem.contains("has no effect together with localWorkloadSelector")), "{problems:#?}");
}

#[test]
fn an_as_number_is_needed() {
    let problems = with(&peer("pods", "localWorkloadSelector: all()"), &[("pods", &["10.1.0.5"])]).problems("a");
    assert!(problems[0].contains("error: BGPPeer pods: spec.asNumber: must be given together with localWorkloadSelector"), "{problems:#?}");
}

/// NodeIP keeps workloads away from the address that they peer with: that is said, and nothing without a workload.
#[test]
fn bind_mode_node_ip_keeps_workloads_away() {
    let told = |mode: &str, workloads: &[(&str, &[&str])]| {
        let peers = peer("pods", "localWorkloadSelector: all(), asNumber: 65100");
        let mode = format!("nodeToNodeMeshEnabled: false, bindMode: {mode}");
        let mut cluster = Cluster::new(&[node("a", "10.0.0.1", "", ""), defaults(&mode), peers].concat());
        cluster.store.set_workloads(with("", workloads).store.workloads().to_vec());
        cluster.problems("a")
    };
    let problems = told("NodeIP", &[("pods", &["10.1.0.5"])]);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(
        problems[0].contains("info: BGPConfiguration default: spec.bindMode: NodeIP listens on the node's addresses alone"),
        "{problems:#?}"
    );
    assert!(problems[0].contains("Local_Workload_10_1_0_5"), "{problems:#?}");
    assert!(told("NodeIP", &[]).is_empty() && told("None", &[("pods", &["10.1.0.5"])]).is_empty());
}
