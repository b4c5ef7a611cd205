//! Typical clusters: who peers with whom, and the worked example of one with reflectors and a top-of-rack router.

use margay::config::{AddPath, PeerKind};

use crate::cluster::{Cluster, block, defaults, node, peer, pool};

fn three_nodes() -> String {
    [node("a", "10.0.0.1", "", "rack: r1"), node("b", "10.0.0.2", "", "rack: r1"), node("c", "10.0.0.10", "", "rack: r2")].concat()
}

#[test]
fn full_mesh_is_what_nothing_else_gives() {
    let cluster = Cluster::new(&three_nodes());
    assert_eq!(
        cluster.sessions("a"),
        ["Mesh_10_0_0_10 10.0.0.10:179 64512→64512 from 10.0.0.1 passive", "Mesh_10_0_0_2 10.0.0.2:179 64512→64512 from 10.0.0.1 passive"]
    );
    // As text 10.0.0.10 is before 10.0.0.2, so of those two c is passive.
    assert_eq!(
        cluster.sessions("c"),
        ["Mesh_10_0_0_1 10.0.0.1:179 64512→64512 from 10.0.0.10", "Mesh_10_0_0_2 10.0.0.2:179 64512→64512 from 10.0.0.10 passive"]
    );
    assert_eq!(cluster.sessions("b")[1], "Mesh_10_0_0_10 10.0.0.10:179 64512→64512 from 10.0.0.2");
    assert!(cluster.problems("a").is_empty());
}

#[test]
fn dual_stack_mesh_has_a_session_for_each_family() {
    let cluster = Cluster::new(
        &[node("a", "10.0.0.1", ", ipv6Address: \"fd00::1/64\"", ""), node("b", "10.0.0.2", ", ipv6Address: \"fd00::2/64\"", "")].concat(),
    );
    let config = cluster.config("a");
    assert_eq!(config.peers.keys().collect::<Vec<_>>(), ["Mesh_10_0_0_2", "Mesh_fd00__2"]);
    let (v4, v6) = (&config.peers["Mesh_10_0_0_2"], &config.peers["Mesh_fd00__2"]);
    assert!(v4.families.ipv4 && !v4.families.ipv6 && !v6.families.ipv4 && v6.families.ipv6);
    assert_eq!((v4.add_path, v6.add_path), (AddPath::Both, AddPath::Both));
    assert_eq!(v6.local_address, Some("fd00::1".parse().unwrap()));
    // The identifier is the IPv4 address for both.
    assert_eq!(v6.router_id.to_string(), "10.0.0.1");
}

#[test]
fn global_top_of_rack() {
    let cluster = Cluster::new(
        &[three_nodes(), defaults("nodeToNodeMeshEnabled: false"), peer("tor", "peerIP: 192.0.2.1, asNumber: 65001")].concat(),
    );
    for (name, address) in [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.10")] {
        assert_eq!(cluster.sessions(name), [format!("Global_192_0_2_1 192.0.2.1:179 64512→65001 from {address}")]);
    }
    assert_eq!(cluster.peer("a", "Global_192_0_2_1").kind, PeerKind::Global);
}

#[test]
fn top_of_rack_of_one_rack() {
    let cluster = Cluster::new(
        &[
            three_nodes(),
            defaults("nodeToNodeMeshEnabled: false"),
            peer("tor", "nodeSelector: \"rack == 'r1'\", peerIP: \"192.0.2.1:1179\", asNumber: 65001"),
        ]
        .concat(),
    );
    assert_eq!(cluster.sessions("a"), ["Node_192_0_2_1_port_1179 192.0.2.1:1179 64512→65001 from 10.0.0.1"]);
    assert!(cluster.sessions("c").is_empty());
}

fn reflectors(same_cluster: bool, mesh: bool) -> Cluster {
    let second = if same_cluster { "244.0.0.1" } else { "244.0.0.2" };
    Cluster::new(
        &[
            three_nodes(),
            node("rr1", "10.0.9.1", ", routeReflectorClusterID: 244.0.0.1", "route-reflector: \"true\""),
            node("rr2", "10.0.9.2", &format!(", routeReflectorClusterID: {second}"), "route-reflector: \"true\""),
            defaults(&format!("nodeToNodeMeshEnabled: {mesh}")),
            peer("to-rr", "nodeSelector: all(), peerSelector: has(route-reflector)"),
        ]
        .concat(),
    )
}

#[test]
fn reflectors_of_one_cluster() {
    let cluster = reflectors(true, false);
    assert_eq!(
        cluster.sessions("a"),
        ["Node_10_0_9_1 10.0.9.1:179 64512→64512 from 10.0.0.1", "Node_10_0_9_2 10.0.9.2:179 64512→64512 from 10.0.0.1"]
    );
    assert_eq!(
        cluster.sessions("rr1"),
        [
            "Node_10_0_0_1 10.0.0.1:179 64512→64512 from 10.0.9.1 client of 244.0.0.1",
            "Node_10_0_0_10 10.0.0.10:179 64512→64512 from 10.0.9.1 client of 244.0.0.1",
            "Node_10_0_0_2 10.0.0.2:179 64512→64512 from 10.0.9.1 client of 244.0.0.1",
            "Node_10_0_9_2 10.0.9.2:179 64512→64512 from 10.0.9.1"
        ]
    );
    assert!(cluster.problems("rr1").is_empty());
}

#[test]
fn reflectors_of_different_clusters_are_clients_of_each_other() {
    let cluster = reflectors(false, false);
    assert!(cluster.sessions("rr1").contains(&"Node_10_0_9_2 10.0.9.2:179 64512→64512 from 10.0.9.1 client of 244.0.0.1".to_owned()));
    assert!(cluster.sessions("rr2").contains(&"Node_10_0_9_1 10.0.9.1:179 64512→64512 from 10.0.9.2 client of 244.0.0.2".to_owned()));
}

#[test]
fn reflectors_with_the_mesh_left_on_stay_out_of_it() {
    let cluster = reflectors(true, true);
    let names = |node: &str| cluster.config(node).peers.into_keys().collect::<Vec<_>>();
    assert_eq!(names("a"), ["Mesh_10_0_0_10", "Mesh_10_0_0_2", "Node_10_0_9_1", "Node_10_0_9_2"]);
    assert_eq!(names("rr1"), ["Node_10_0_0_1", "Node_10_0_0_10", "Node_10_0_0_2", "Node_10_0_9_2"]);
}

/// Two nodes in rack a, a reflector in another subnet, a top-of-rack router.
fn worked_example() -> Cluster {
    Cluster::new(
        &[
            defaults(
                "nodeToNodeMeshEnabled: false, serviceClusterIPs: [{cidr: 10.96.0.0/12}], serviceLoadBalancerIPs: [{cidr: 198.51.100.0/24}], \
                 prefixAdvertisements: [{cidr: 10.244.0.0/16, communities: [\"64512:100\"]}]",
            ),
            pool("pool-a", "cidr: 10.244.0.0/16"),
            pool("pool-b", "cidr: 10.245.0.0/16, ipipMode: CrossSubnet"),
            node("node-1", "10.0.1.11", "", "rack: a"),
            node("node-2", "10.0.1.12", "", "rack: a"),
            node("rr-1", "10.0.2.13", ", routeReflectorClusterID: 244.0.0.1", "route-reflector: \"true\""),
            peer("nodes-to-rr", "nodeSelector: all(), peerSelector: has(route-reflector)"),
            peer("tor-a", "nodeSelector: \"rack == 'a'\", peerIP: 10.0.1.1, asNumber: 65010, filters: [tor-out]"),
            "---\nkind: BGPFilter\nmetadata: {name: tor-out}\nspec: {exportV4: [{source: RemotePeers, action: Reject}]}\n".to_owned(),
            block("node-1", "10.244.1.0/26", "confirmed"),
            block("node-1", "10.245.1.0/26", "confirmed"),
            block("node-2", "10.244.2.0/26", "confirmed"),
            block("rr-1", "10.244.3.0/26", "confirmed"),
        ]
        .concat(),
    )
}

#[test]
fn worked_example_sessions() {
    let cluster = worked_example();
    assert_eq!(
        cluster.sessions("node-1"),
        ["Node_10_0_1_1 10.0.1.1:179 64512→65010 from 10.0.1.11", "Node_10_0_2_13 10.0.2.13:179 64512→64512 from 10.0.1.11"]
    );
    assert_eq!(
        cluster.sessions("node-2"),
        ["Node_10_0_1_1 10.0.1.1:179 64512→65010 from 10.0.1.12", "Node_10_0_2_13 10.0.2.13:179 64512→64512 from 10.0.1.12"]
    );
    assert_eq!(
        cluster.sessions("rr-1"),
        [
            "Node_10_0_1_11 10.0.1.11:179 64512→64512 from 10.0.2.13 client of 244.0.0.1",
            "Node_10_0_1_12 10.0.1.12:179 64512→64512 from 10.0.2.13 client of 244.0.0.1"
        ]
    );
    let filtered = |name: &str| cluster.peer("node-1", name).export.ipv4.terms.iter().any(|term| term.name.contains("tor-out"));
    assert!(filtered("Node_10_0_1_1") && !filtered("Node_10_0_2_13"));
    assert!(cluster.problems("node-1").is_empty());
}

#[test]
fn worked_example_origins_and_kernel() {
    let cluster = worked_example();
    let origin = cluster.config("node-1").origin;
    assert_eq!(origin.blocks.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.244.1.0/26", "10.245.1.0/26"]);
    assert_eq!(origin.services.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.96.0.0/12", "198.51.100.0/24"]);
    assert_eq!(cluster.rules("node-1"), ["10.96.0.0/12 skip", "198.51.100.0/24 skip", "10.244.0.0/16 plain", "10.245.0.0/16 skip"]);
    assert_eq!(cluster.config("node-1").fib.protocol, 12);
}
