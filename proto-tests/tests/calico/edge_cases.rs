//! The unusual and the wrong, a test for each; what is wrong concerns its own resource only. Long because it is a
//! list: one short story a case.

use std::time::Duration;

use margay::config::{AddPath, AsPathRules, Authentication, MaxPrefixAction, NextHopMode, SendHold, Ttl};
use margay::policy::Policy;
use margay::types::PerFamily;

use crate::cluster::{Cluster, block, defaults, node, own, peer, pool, session};

fn two_nodes() -> String {
    [node("a", "10.0.0.1", "", "rack: r1"), node("b", "10.0.0.2", "", "rack: r1")].concat()
}

fn with(text: &str) -> Cluster {
    Cluster::new(&[&two_nodes(), text].concat())
}

/// One problem, and this is in it.
#[track_caller]
fn assert_one_problem(cluster: &Cluster, node: &str, part: &str) {
    let problems = cluster.problems(node);
    assert!(problems.len() == 1 && problems[0].contains(part), "{problems:#?}");
}

/// The session of a BGPPeer on node a, whatever the mesh does.
fn session_of(spec: &str) -> String {
    let cluster = with(&peer("p", spec));
    let config = cluster.config("a");
    let found: Vec<String> = config.peers.values().filter(|peer| peer.asked_by == "BGPPeer p").map(|peer| session(peer)).collect();
    assert_eq!(found.len(), 1, "{:?} {:#?}", config.peers.keys(), cluster.problems("a"));
    found.into_iter().next().unwrap()
}

#[test]
fn my_node_is_missing() {
    let cluster = Cluster::new(&two_nodes());
    let (config, _) = cluster.compile("z");
    assert_eq!(config, None);
    assert_one_problem(&cluster, "z", "there is no Node named `z`; nothing is done without it (there are a, b)");
}

#[test]
fn a_node_without_bgp_or_address_has_no_peers() {
    let cluster = with(
        "---\nkind: Node\nmetadata: {name: c, labels: {rack: r1}}\nspec: {}\n---\nkind: Node\nmetadata: {name: d}\nspec: {bgp: {asNumber: 64999}}\n",
    );
    assert_eq!(cluster.sessions("a").len(), 1);
    assert!(cluster.config("c").peers.is_empty());
    assert_one_problem(&cluster, "c", "warning: Node c: spec.bgp: Node c has no BGP address");
}

#[test]
fn an_address_that_cannot_be_read_counts_as_absent() {
    let cluster = with("---\nkind: Node\nmetadata: {name: c}\nspec: {bgp: {ipv4Address: 10.0.0, ipv6Address: 10.0.0.3}}\n");
    assert!(cluster.config("c").peers.is_empty());
    assert_eq!(cluster.sessions("a").len(), 1);
    let problems = cluster.problems("a");
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems.iter().all(|problem| problem.contains("is no address of this family")), "{problems:#?}");
}

#[test]
fn a_bare_address_is_its_own_subnet() {
    let cluster = Cluster::new(
        &[
            "kind: Node\nmetadata: {name: a}\nspec: {bgp: {ipv4Address: 10.0.0.1}}\n",
            &defaults("programClusterRoutes: Enabled"),
            &pool("p", "cidr: 10.1.0.0/16, ipipMode: CrossSubnet"),
        ]
        .concat(),
    );
    assert_eq!(cluster.rules("a"), ["10.1.0.0/16 tunl0 outside 10.0.0.1/32"]);
}

#[test]
fn two_nodes_with_one_address_do_not_peer() {
    let cluster = with(&node("c", "10.0.0.1", "", ""));
    assert_eq!(cluster.sessions("a"), ["Mesh_10_0_0_2 10.0.0.2:179 64512→64512 from 10.0.0.1 passive"]);
    assert_one_problem(&cluster, "a", "warning: Node c: spec.bgp.ipv4Address: 10.0.0.1 is the address of another Node too");
    // Others see one session with that address, that of the first name.
    assert_eq!(cluster.sessions("b").len(), 1);
    assert_one_problem(&cluster, "b", "Node c");
}

#[test]
fn an_ipv6_only_node_takes_its_identifier_from_its_name() {
    let cluster = Cluster::new("kind: Node\nmetadata: {name: node-1}\nspec: {bgp: {ipv6Address: \"fd00::1/64\"}}\n");
    assert_eq!(cluster.config("node-1").router_id.to_string(), "53.151.27.230");
    assert!(cluster.problems("node-1").is_empty());
}

#[test]
fn without_ipv4_pool_rules_of_ipv4_are_left_out_and_origins_stay() {
    let cluster = Cluster::new(
        &[
            "kind: Node\nmetadata: {name: a}\nspec: {bgp: {ipv6Address: \"fd00::1/64\"}}\n",
            &defaults("serviceClusterIPs: [{cidr: 10.96.0.0/12}]"),
            &pool("p", "cidr: 10.1.0.0/16, vxlanMode: Always"),
            &pool("q", "cidr: \"fd00:1::/48\", vxlanMode: Always"),
            &block("a", "10.1.0.0/26", "confirmed"),
        ]
        .concat(),
    );
    assert_eq!(cluster.rules("a"), ["10.96.0.0/12 skip", "fd00:1::/48 skip"]);
    assert_eq!((cluster.config("a").origin.blocks.len(), cluster.config("a").origin.services.len()), (1, 1));
}

#[test]
fn calico_router_id() {
    let mut cluster = with("");
    for (value, id) in [("hash", "202.151.129.18"), ("1.2.3.4", "1.2.3.4"), ("garbage", "10.0.0.1"), ("0.0.0.0", "10.0.0.1")] {
        cluster.environment.router_id = Some(value.to_owned());
        let config = cluster.config("a");
        assert_eq!(config.router_id.to_string(), id, "{value}");
        assert_eq!(config.peers["Mesh_10_0_0_2"].router_id, config.router_id);
        assert_eq!(cluster.problems("a").len(), usize::from(id == "10.0.0.1"), "{value}");
    }
}

#[test]
fn as_numbers_of_the_mesh() {
    // My own AS, else the cluster's, else 64512; the peer's likewise, and never mine for the peer's.
    let cluster = Cluster::new(
        &[node("a", "10.0.0.1", ", asNumber: 65001", ""), node("b", "10.0.0.2", "", ""), defaults("asNumber: 64600")].concat(),
    );
    assert_eq!(cluster.sessions("a"), ["Mesh_10_0_0_2 10.0.0.2:179 65001→64600 from 10.0.0.1 passive"]);
    assert_eq!(cluster.sessions("b"), ["Mesh_10_0_0_1 10.0.0.1:179 64600→65001 from 10.0.0.2"]);
    let dotted = Cluster::new(&[node("a", "10.0.0.1", ", asNumber: \"1.10\"", ""), node("b", "10.0.0.2", "", "")].concat());
    assert_eq!(dotted.config("a").asn.0, 65546);
}

#[test]
fn m3_as_numbers_that_may_not_be_used() {
    for asn in ["0", "23456", "65535", "4294967295", "4294967296", "-1", "x", "1.10"] {
        let cluster = with(
            &[peer("bad", &format!("peerIP: 192.0.2.1, asNumber: {asn}")), peer("good", "peerIP: 192.0.2.2, asNumber: 65001")].concat(),
        );
        let names: Vec<String> = cluster.config("a").peers.into_keys().collect();
        assert_eq!(names, ["Global_192_0_2_2", "Mesh_10_0_0_2"], "{asn}");
        assert_one_problem(&cluster, "a", "error: BGPPeer bad: spec.asNumber: ");
    }
    assert_one_problem(&with(&peer("bad", "peerIP: 192.0.2.1")), "a", "must be given together with peerIP");
}

#[test]
fn local_as_counts_for_peers_by_address_only() {
    let spec = "peerIP: 192.0.2.1, asNumber: 64999, localASNumber: 64999";
    assert_eq!(session_of(spec), "Global_192_0_2_1 192.0.2.1:179 64999→64999 from 10.0.0.1");
    let cluster = Cluster::new(
        &[
            node("a", "10.0.0.1", "", ""),
            node("rr", "10.0.0.9", ", routeReflectorClusterID: 1.1.1.1", "rr: \"\""),
            peer("p", "peerSelector: has(rr), localASNumber: 64999, numAllowedLocalASNumbers: 2, asNumber: 65001"),
        ]
        .concat(),
    );
    assert_eq!(cluster.sessions("a"), ["Global_10_0_0_9 10.0.0.9:179 64512→64512 from 10.0.0.1"]);
    assert_eq!(cluster.problems("a").len(), 3);
}

#[test]
fn peer_addresses_that_make_no_session() {
    for (spec, what) in [
        ("peerIP: 10.0.0, asNumber: 65001", "`10.0.0` is no address"),
        ("peerIP: \"10.0.0.9:70000\", asNumber: 65001", "is no address"),
        ("peerIP: \"fe80::1\", asNumber: 65001", "is link-local and needs an interface"),
        ("asNumber: 65001", "peerIP, peerSelector or localWorkloadSelector must be given"),
        ("peerIP: 192.0.2.1, asNumber: 65001, reachableBy: \"fd00::1\"", "is not of the family of peerIP"),
        ("peerIP: 192.0.2.1, asNumber: 65001, reachableBy: nowhere", "is no IP address"),
        ("peerIP: 192.0.2.1, asNumber: 65001, nodeSelector: \"rack ==\"", "is no selector"),
        ("peerSelector: \"(((\"", "is no selector"),
        ("peerIP: 192.0.2.1, asNumber: 65001, ttlSecurity: 256", "is not a whole number from 0 to 255"),
        ("peerIP: 192.0.2.1, asNumber: 65001, maxRestartTime: soon", "is no duration"),
        ("peerIP: 192.0.2.1, asNumber: 65001, nextHopMode: Self-ish", "is none of Auto, Self, Keep"),
        ("peerIP: 192.0.2.1, asNumber: 65001, filters: {a: b}", "invalid type"),
        ("peerIP: 192.0.2.1, asNumber: 65001, password: {secretKeyRef: {name: s}}", "must name a Secret and a key"),
    ] {
        let cluster = with(&peer("bad", spec));
        assert_eq!(cluster.sessions("a").len(), 1, "{spec}");
        assert_one_problem(&cluster, "a", what);
    }
}

#[test]
fn an_own_address_as_peer_is_skipped() {
    let cluster = with(&peer("p", "peerIP: 10.0.0.1, asNumber: 64512, reversePeering: Manual"));
    assert_eq!(cluster.sessions("a").len(), 1);
    // The others have it, as Mesh_10_0_0_1 and Global_10_0_0_1; the first name runs.
    assert_eq!(cluster.sessions("b"), ["Global_10_0_0_1 10.0.0.1:179 64512→64512 from 10.0.0.2"]);
}

#[test]
fn n12_link_local_peers_name_their_interface_and_carry_both_families() {
    let six = "kind: Node\nmetadata: {name: a}\nspec: {bgp: {ipv4Address: 10.0.0.1/24, ipv6Address: \"fd00::1/64\"}}\n";
    let annotated =
        "---\nkind: BGPPeer\nmetadata: {name: q, annotations: {margay.io/interface: eth1}}\nspec: {peerIP: \"fe80::2\", asNumber: 65002}\n";
    let cluster = Cluster::new(&[six, &peer("p", "peerIP: \"fe80::1%eth0\", asNumber: 65001"), annotated].concat());
    assert_eq!(
        cluster.sessions("a"),
        ["Global_fe80__1_eth0 fe80::1:179 64512→65001 from any", "Global_fe80__2_eth1 fe80::2:179 64512→65002 from any"]
    );
    let peer = cluster.peer("a", "Global_fe80__1_eth0");
    assert_eq!(peer.interface.as_deref(), Some("eth0"));
    // n12: both families over it, IPv4 with IPv6 next hops.
    assert_eq!((peer.families, peer.extended_next_hop), (PerFamily { ipv4: true, ipv6: true }, true));
}

#[test]
fn addresses_are_compared_as_addresses() {
    // `::ffff:10.0.0.2` is node b, so the passive rule of Calico nodes applies.
    assert_eq!(
        session_of("peerIP: \"::ffff:10.0.0.2\", asNumber: 64512, reversePeering: Manual"),
        "Global_10_0_0_2 10.0.0.2:179 64512→64512 from 10.0.0.1 passive"
    );
}

#[test]
fn ports() {
    assert!(session_of("peerIP: \"192.0.2.1:179\", asNumber: 65001").starts_with("Global_192_0_2_1_port_179 192.0.2.1:179"));
    assert!(session_of("peerIP: \"192.0.2.1:0x10\", asNumber: 65001").starts_with("Global_192_0_2_1_port_16 192.0.2.1:16"));
    assert!(session_of("peerIP: \"192.0.2.1:0\", asNumber: 65001").starts_with("Global_192_0_2_1 192.0.2.1:179"));
}

#[test]
fn one_address_with_two_ports_is_two_sessions() {
    let cluster =
        with(&[peer("p", "peerIP: \"192.0.2.1:150\", asNumber: 65001"), peer("q", "peerIP: \"192.0.2.1:166\", asNumber: 65001")].concat());
    let names: Vec<String> = cluster.config("a").peers.into_keys().collect();
    assert_eq!(names, ["Global_192_0_2_1_port_150", "Global_192_0_2_1_port_166", "Mesh_10_0_0_2"]);
}

#[test]
fn of_two_peers_with_one_key_the_lowest_name_wins() {
    let pair = [peer("q", "peerIP: \"192.0.2.1:179\", asNumber: 65002"), peer("p", "peerIP: 192.0.2.1, asNumber: 65001")].concat();
    let cluster = with(&pair);
    assert_eq!(cluster.peer("a", "Global_192_0_2_1").remote_asn.0, 65001);
    assert_one_problem(&cluster, "a", "warning: BGPPeer q: BGPPeer p makes a session with 192.0.2.1 already");
}

#[test]
fn a_global_peer_wins_over_one_of_the_node() {
    let cluster = with(
        &[peer("a-node", "node: a, peerIP: 192.0.2.1, asNumber: 65001"), peer("z-global", "peerIP: 192.0.2.1, asNumber: 65002")].concat(),
    );
    assert_eq!(cluster.peer("a", "Global_192_0_2_1").remote_asn.0, 65002);
    assert_one_problem(&cluster, "a", "BGPPeer a-node: BGPPeer z-global makes a session");
}

#[test]
fn node_selector_wins_over_node_and_empty_ones_are_unset() {
    let cluster = with(&peer("p", "node: b, nodeSelector: \"rack == 'r1'\", peerIP: 192.0.2.1, asNumber: 65001"));
    assert!(cluster.config("a").peers.contains_key("Node_192_0_2_1"));
    let cluster = with(&peer("p", "node: \"\", nodeSelector: \"\", peerSelector: \"\", peerIP: 192.0.2.1, asNumber: 65001"));
    assert!(cluster.config("a").peers.contains_key("Global_192_0_2_1"));
}

#[test]
fn peer_selector_passes_over_me_and_over_families_that_a_node_has_not() {
    let cluster = Cluster::new(
        &[
            node("a", "10.0.0.1", ", ipv6Address: \"fd00::1/64\"", ""),
            node("b", "10.0.0.2", "", ""),
            defaults("nodeToNodeMeshEnabled: false"),
            peer("p", "peerSelector: all()"),
        ]
        .concat(),
    );
    assert_eq!(cluster.config("a").peers.into_keys().collect::<Vec<_>>(), ["Global_10_0_0_2"]);
}

#[test]
fn a_node_without_the_family_of_peer_ip_says_so() {
    let cluster = with(&peer("p", "peerIP: \"2001:db8::1\", asNumber: 65001"));
    assert_eq!(cluster.sessions("a").len(), 1);
    assert_one_problem(&cluster, "a", "warning: BGPPeer p: spec.peerIP: Node a has no IPv6 address");
}

#[test]
fn listen_ports() {
    let text = [
        own("b", "listenPort: 1790"),
        defaults("listenPort: 178"),
        node("c", "10.0.0.3", "", ""),
        node("rr", "10.0.0.9", ", routeReflectorClusterID: 1.1.1.1", "rr: \"\""),
        peer("p", "nodeSelector: all(), peerSelector: has(rr)"),
    ]
    .concat();
    let cluster = with(&text);
    assert_eq!(cluster.config("b").listen.port, 1790);
    assert_eq!(cluster.config("c").listen.port, 178);
    let ports: Vec<(String, u16)> = cluster.config("a").peers.into_iter().map(|(name, peer)| (name, peer.port)).collect();
    let expected = [("Mesh_10_0_0_2", 1790), ("Mesh_10_0_0_3", 178), ("Node_10_0_0_9_port_178", 178)];
    assert_eq!(ports, expected.map(|(name, port)| (name.to_owned(), port)));
    assert!(cluster.config("rr").peers.contains_key("Node_10_0_0_2_port_1790"));
}

#[test]
fn the_port_of_a_peer_ip_that_is_a_calico_node_is_that_nodes() {
    let cluster = with(
        &[own("b", "listenPort: 1790"), defaults("nodeToNodeMeshEnabled: false"), peer("p", "node: a, peerIP: 10.0.0.2, asNumber: 64512")]
            .concat(),
    );
    assert_eq!(cluster.sessions("a"), ["Node_10_0_0_2_port_1790 10.0.0.2:1790 64512→64512 from 10.0.0.1"]);
    // And that node peers back.
    assert_eq!(cluster.sessions("b"), ["Node_10_0_0_1 10.0.0.1:179 64512→64512 from 10.0.0.2"]);
}

#[test]
fn reverse_peerings() {
    let rr = node("rr", "10.0.0.9", ", routeReflectorClusterID: 1.1.1.1", "");
    let off = defaults("nodeToNodeMeshEnabled: false");
    let reversed = |spec: &str, more: &str| {
        let cluster = with(&[rr.as_str(), &off, more, &peer("p", spec)].concat());
        cluster.config("rr").peers.into_keys().collect::<Vec<_>>()
    };
    let both = ["Node_10_0_0_1".to_owned(), "Node_10_0_0_2".to_owned()];
    assert_eq!(reversed("peerIP: 10.0.0.9, asNumber: 64512", ""), both);
    assert_eq!(reversed("node: a, peerIP: 10.0.0.9, asNumber: 64512", ""), both[..1]);
    assert!(reversed("peerIP: 10.0.0.9, asNumber: 64512, reversePeering: Manual", "").is_empty());
    assert!(reversed("peerIP: 10.0.0.9, asNumber: 65001", "").is_empty(), "another AS");
    assert!(reversed("peerIP: \"10.0.0.9:1179\", asNumber: 64512", &own("rr", "listenPort: 178")).is_empty(), "another port");
    assert_eq!(reversed("peerIP: \"10.0.0.9:1179\", asNumber: 64512", &own("rr", "listenPort: 1179")), both);
    // The other end's settings are copied, its local AS is not.
    let cluster = with(
        &[rr.as_str(), &off, &peer("p", "peerIP: 10.0.0.9, asNumber: 64512, localASNumber: 64999, ttlSecurity: 3, nextHopMode: Self")]
            .concat(),
    );
    assert_eq!(
        cluster.sessions("rr")[0],
        "Node_10_0_0_1 10.0.0.1:179 64512→64512 from 10.0.0.9 client of 1.1.1.1 gtsm 3 next hop SelfAddress"
    );
}

#[test]
fn mesh_and_peers_side_by_side_run_once_on_a_port() {
    let cluster = with(&peer("p", "node: a, peerIP: 10.0.0.2, asNumber: 64512"));
    assert_eq!(cluster.config("a").peers.into_keys().collect::<Vec<_>>(), ["Mesh_10_0_0_2"]);
    assert_one_problem(&cluster, "a", "info: BGPPeer p: session Node_10_0_0_2 has the address and port of Mesh_10_0_0_2");
}

#[test]
fn reachable_by_makes_a_host_route() {
    let cluster = with(
        &[
            peer("p", "peerIP: 192.0.2.1, asNumber: 65001, reachableBy: 10.0.0.254"),
            peer("q", "node: b, peerIP: 192.0.2.2, asNumber: 65001, reachableBy: 10.0.0.254"),
        ]
        .concat(),
    );
    assert_eq!(cluster.config("a").origin.static_routes, [("192.0.2.1/32".parse().unwrap(), "10.0.0.254".parse().unwrap())]);
    assert_eq!(cluster.config("b").origin.static_routes.len(), 2);
}

#[test]
fn next_hop_modes() {
    let mode = |spec: &str| {
        let cluster = with(&peer("p", &format!("peerIP: 192.0.2.1, {spec}")));
        cluster.peer("a", "Global_192_0_2_1").next_hop_mode
    };
    assert_eq!(mode("asNumber: 65001"), NextHopMode::Auto);
    assert_eq!(mode("asNumber: 65001, keepOriginalNextHop: true"), NextHopMode::Keep);
    assert_eq!(mode("asNumber: 64512, keepOriginalNextHop: true"), NextHopMode::Auto, "on iBGP it has no effect");
    assert_eq!(mode("asNumber: 64512, nextHopMode: Keep"), NextHopMode::Keep);
    assert_eq!(mode("asNumber: 65001, nextHopMode: Self, keepOriginalNextHop: true"), NextHopMode::SelfAddress);
    assert_eq!(mode("asNumber: 65001, nextHopMode: Auto, keepOriginalNextHop: true"), NextHopMode::Auto);
}

#[test]
fn passwords_fail_closed() {
    let spec = |optional: &str| {
        peer("p", &format!("peerIP: 192.0.2.1, asNumber: 65001, password: {{secretKeyRef: {{name: s, key: k{optional}}}}}"))
    };
    let secret = |namespace: &str, data: &str| format!("---\nkind: Secret\nmetadata: {{name: s{namespace}}}\n{data}\n");
    let of = |text: String| with(&text).peer("a", "Global_192_0_2_1").authentication;
    let md5 = |value: &str| Authentication::Md5(margay::config::Password(value.as_bytes().into()));
    assert!(matches!(of(spec("")), Authentication::Missing(_)));
    assert_eq!(of(spec(", optional: true")), Authentication::None);
    assert_eq!(of(spec("") + &secret("", "data: {k: aHVudGVyMg==}")), md5("hunter2"));
    assert_eq!(of(spec("") + &secret(", namespace: kube-system", "stringData: {k: hunter2}")), md5("hunter2"));
    assert_eq!(of(spec("") + &secret("", "stringData: {k: \"with\\nnewline\\n\"}")), md5("with\nnewline\n"));
    assert_eq!(of(spec("") + &secret("", "stringData: {k: yes}")), md5("true"));
    assert!(matches!(of(spec("") + &secret(", namespace: default", "stringData: {k: hunter2}")), Authentication::Missing(_)));
    assert!(matches!(of(spec("") + &secret("", "stringData: {other: hunter2}")), Authentication::Missing(_)));
    assert!(matches!(of(spec("") + &secret("", "data: {k: hunter2!}")), Authentication::Missing(_)));
    assert!(matches!(of(spec("") + &secret("", "stringData: {k: \"\"}")), Authentication::Missing(_)));
    assert!(matches!(of(spec("") + &secret("", &format!("stringData: {{k: {}}}", "x".repeat(81)))), Authentication::Missing(_)));
    let mesh = with(&(defaults("nodeMeshPassword: {secretKeyRef: {name: s, key: k}}") + &secret("", "stringData: {k: hunter2}")));
    assert_eq!(mesh.peer("a", "Mesh_10_0_0_2").authentication, md5("hunter2"));
    // A key never shows.
    let shown = format!("{:?} {}", mesh.config("a"), serde_json::to_string(&mesh.config("a")).unwrap());
    assert!(!shown.contains("hunter2"));
}

#[test]
fn timers_and_restart_times() {
    let of = |spec: &str| with(&peer("p", &format!("peerIP: 192.0.2.1, asNumber: 65001{spec}"))).peer("a", "Global_192_0_2_1");
    let plain = of("");
    assert_eq!((plain.hold_time, plain.keepalive, plain.restart_time), (240, None, 120));
    assert_eq!(of(", maxRestartTime: 1m30s").restart_time, 90);
    assert_eq!(of(", maxRestartTime: 400ms").restart_time, 0);
    assert_eq!(of(", maxRestartTime: 1.5s").restart_time, 2);
    assert_eq!(of(", maxRestartTime: 2h").restart_time, 4095);
    assert_eq!(of(", keepaliveTime: 10s").keepalive, Some(std::time::Duration::from_secs(10)));
    assert_eq!(of(", keepaliveTime: 0s").keepalive, None);
}

#[test]
fn missing_filters_are_named() {
    let cluster = with(&peer("p", "peerIP: 192.0.2.1, asNumber: 65001, filters: [gone]"));
    assert_eq!(cluster.sessions("a").len(), 2);
    assert_one_problem(
        &cluster,
        "a",
        "warning: BGPPeer p: spec.filters[0]: there is no BGPFilter `gone`; nothing is filtered in its place",
    );
}

#[test]
fn filters_that_cannot_be_read_let_nothing_through() {
    let filter = "---\nkind: BGPFilter\nmetadata: {name: f}\nspec: {exportV4: nonsense}\n";
    let cluster = with(&(peer("p", "peerIP: 192.0.2.1, asNumber: 65001, filters: [f]") + filter));
    assert_one_problem(&cluster, "a", "every route of its peers is rejected until it is mended");
    let peer = cluster.peer("a", "Global_192_0_2_1");
    for policy in [&peer.import.ipv4, &peer.export.ipv4] {
        let decisive = policy.terms.iter().find(|term| term.verdict.is_some()).unwrap();
        assert!(decisive.matches.is_empty() && decisive.verdict == Some(margay::policy::Verdict::Reject));
    }
}

#[test]
fn a_mesh_password_that_cannot_be_read_fails_closed() {
    for password in ["nonsense", "{}", "{secretKeyRef: {name: 5}}", "{secretKeyRef: []}"] {
        let cluster = with(&defaults(&format!("nodeMeshPassword: {password}")));
        assert!(matches!(cluster.peer("a", "Mesh_10_0_0_2").authentication, Authentication::Missing(_)), "{password}");
    }
}

#[test]
fn kinds_that_no_speaker_acts_on_are_named_once() {
    let endpoint = |name: &str| format!("---\nkind: WorkloadEndpoint\nmetadata: {{name: {name}}}\n");
    let cluster = with(&[endpoint("x"), endpoint("y"), "---\nkind: BgpPeer\nmetadata: {name: p}\n".to_owned()].concat());
    let problems = cluster.problems("a");
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[0].contains("warning: BgpPeer p: kind: margay knows no kind `BgpPeer`"), "{problems:#?}");
    assert_eq!(problems[1], "info: margay does not act on WorkloadEndpoint (2 given); ignored");
}

#[test]
fn kernel_rules_by_owner() {
    let pools = [
        pool("vxlan", "cidr: 10.1.0.0/16, vxlanMode: Always"),
        pool("vxlan-cross", "cidr: 10.2.0.0/16, vxlanMode: CrossSubnet"),
        pool("ipip", "cidr: 10.3.0.0/16, ipipMode: Always"),
        pool("ipip-cross", "cidr: 10.4.0.0/16, ipipMode: CrossSubnet"),
        pool("plain", "cidr: 10.5.0.0/16"),
    ]
    .concat();
    let actions = |owner: &str| {
        let cluster = with(&(pools.clone() + &defaults(owner)));
        cluster.rules("a").iter().map(|rule| rule.split_once(' ').unwrap().1.to_owned()).collect::<Vec<_>>()
    };
    let cross = "tunl0 outside 10.0.0.0/24";
    assert_eq!(actions("programClusterRoutes: Disabled"), ["skip"; 5]);
    assert_eq!(actions(""), ["skip", "skip", "skip", "skip", "plain"]);
    assert_eq!(actions("programClusterRoutes: EnabledNoEncapOnly"), ["skip", "skip", "skip", "skip", "plain"]);
    assert_eq!(actions("programClusterRoutes: EnabledIPIPOnly"), ["skip", "skip", "tunl0", cross, "skip"]);
    assert_eq!(actions("programClusterRoutes: Enabled"), ["skip", "skip", "tunl0", cross, "plain"]);
    assert_eq!(actions("programClusterRoutes: Whatever"), actions(""), "unknown values mean the default");
}

#[test]
fn routes_of_nodes_behind_wireguard_are_felixs() {
    let node = |name: &str, address: &str, wireguard: &str| {
        format!("---\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{bgp: {{ipv4Address: {address}/24}}, wireguard: {{{wireguard}}}}}\n")
    };
    let of = |own: &str| {
        let others = [node("b", "10.0.0.2", "interfaceIPv4Address: 10.9.0.2"), node("c", "10.0.0.3", "interfaceIPv6Address: \"fd00::3\"")];
        Cluster::new(&(node("a", "10.0.0.1", own) + &others.concat())).config("a").fib.wireguard.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(of("interfaceIPv4Address: 10.9.0.1"), ["10.0.0.2".parse::<std::net::IpAddr>().unwrap()]);
    assert!(of("").is_empty());
}

#[test]
fn of_overlapping_pools_the_longest_decides() {
    let cluster = with(
        &[
            pool("a", "cidr: 10.0.0.0/8, vxlanMode: Always"),
            pool("b", "cidr: 10.2.0.0/16"),
            pool("c", "cidr: 10.10.0.0/16, vxlanMode: Always"),
        ]
        .concat(),
    );
    assert_eq!(cluster.rules("a"), ["10.2.0.0/16 plain", "10.10.0.0/16 skip", "10.0.0.0/8 skip"]);
}

#[test]
fn pools_with_faults() {
    let cluster = with(
        &[
            pool("b", "cidr: 10.1.0.0/16, vxlanMode: Always"),
            pool("a", "cidr: 10.1.2.3/16, ipipMode: Sometimes"),
            pool("c", "cidr: nonsense"),
        ]
        .concat(),
    );
    assert_eq!(cluster.rules("a"), ["10.1.0.0/16 plain"], "of one cidr the lowest name counts");
    let problems = cluster.problems("a");
    assert_eq!(problems.len(), 4, "{problems:#?}");
    let six = with(&[defaults("programClusterRoutes: Enabled"), pool("p", "cidr: \"fd00:1::/48\", ipipMode: Always")].concat());
    assert_eq!(six.rules("a"), ["fd00:1::/48 plain"]);
}

#[test]
fn blocks() {
    let text = [
        block("a", "10.1.0.0/26", "confirmed"),
        block("a", "10.1.0.64/26", "\"\""),
        block("a", "10.1.0.128/26", "pendingDeletion"),
        block("a", "10.1.0.192/26", "pending"),
        block("a", "10.1.1.7/32", "confirmed"),
        block("b", "10.1.2.0/26", "confirmed"),
    ]
    .concat()
        + "---\nkind: BlockAffinity\nmetadata: {name: gone}\nspec: {node: a, cidr: 10.1.3.0/26, state: confirmed, deleted: \"true\"}\n\
           ---\nkind: BlockAffinity\nmetadata: {name: virtual}\nspec: {node: a, cidr: 10.1.4.0/26, state: confirmed, type: virtual}\n";
    let cluster = with(&text);
    let config = cluster.config("a");
    assert_eq!(config.origin.blocks.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.1.0.0/26", "10.1.0.64/26", "10.1.0.128/26"]);
    let own = |cidr: &str| format!("{:?}", config.peers["Mesh_10_0_0_2"].export.ipv4).contains(cidr);
    assert!(own("10.1.0.0/26") && own("10.1.0.64/26") && own("10.1.1.7/32"));
    assert!(!own("10.1.0.128/26") && !own("10.1.0.192/26") && !own("10.1.3.0/26") && !own("10.1.4.0/26"));
}

#[test]
fn service_ranges() {
    let lists = |more: &str| {
        defaults(&format!(
            "serviceClusterIPs: [{{cidr: 10.96.0.0/12}}, {{cidr: 10.97.0.1/32}}, {{}}], serviceExternalIPs: [{{cidr: 203.0.113.0/24}}, {{cidr: 203.0.114.1/32}}], \
             serviceLoadBalancerIPs: [{{cidr: 198.51.100.0/24}}, {{cidr: 198.51.101.7/32}}]{more}"
        ))
    };
    let advertised = |cluster: &Cluster| cluster.config("a").origin.services.iter().map(ToString::to_string).collect::<Vec<_>>();
    let cluster = with(&lists(""));
    assert_eq!(advertised(&cluster), ["10.96.0.0/12", "10.97.0.1/32", "198.51.100.0/24", "203.0.113.0/24"]);
    assert!(cluster.problems("a").is_empty(), "{:#?}", cluster.problems("a"));
    let cluster = with(&lists(", serviceLoadBalancerAggregation: Disabled"));
    assert_eq!(advertised(&cluster), ["10.96.0.0/12", "10.97.0.1/32", "203.0.113.0/24"]);
    assert_eq!(cluster.rules("a").len(), 3);
    let mut cluster = with(&lists(""));
    cluster.environment.cluster_ips = Some("10.200.0.0/16".to_owned());
    assert_eq!(advertised(&cluster), ["10.200.0.0/16", "198.51.100.0/24", "203.0.113.0/24"]);
}

#[test]
fn excluded_nodes_announce_no_service_but_keep_them_out_of_the_kernel() {
    let label = |value: &str| {
        let labels = format!("node.kubernetes.io/exclude-from-external-load-balancers: \"{value}\"");
        Cluster::new(&[node("a", "10.0.0.1", "", &labels), defaults("serviceClusterIPs: [{cidr: 10.96.0.0/12}]")].concat())
    };
    assert!(label("true").config("a").origin.services.is_empty());
    assert_eq!(label("true").rules("a"), ["10.96.0.0/12 skip"]);
    assert_eq!(label("True").config("a").origin.services.len(), 1);
    assert_eq!(label("").config("a").origin.services.len(), 1);
}

#[test]
fn bad_entries_of_lists_are_left_out_alone() {
    let cluster = with(&defaults(
        "serviceClusterIPs: [{cidr: nonsense}, {cidr: 10.96.0.1/12}], communities: [{name: x, value: \"1:99999\"}], prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: [x, \"64512:1\"]}]",
    ));
    assert_eq!(cluster.config("a").origin.services.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.96.0.0/12"]);
    assert_eq!(cluster.problems("a").len(), 4, "{:#?}", cluster.problems("a"));
}

#[test]
fn prefix_advertisements_of_the_node_replace_the_clusters_in_both_families() {
    let all = defaults(
        "prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: [\"64512:1\"]}, {cidr: \"fd00::/8\", communities: [\"64512:6\"]}]",
    );
    let terms = |cluster: &Cluster| {
        let peer = cluster.peer("a", "Mesh_10_0_0_2");
        peer.export
            .ipv4
            .terms
            .iter()
            .filter(|term| term.name.contains("prefixAdvertisements"))
            .map(|term| term.name.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(terms(&with(&all)), ["Calico export 6: prefixAdvertisements 10.0.0.0/8"]);
    let cluster = with(&(all + &own("a", "prefixAdvertisements: [{cidr: \"fd00::/8\", communities: [\"64512:6\"]}]")));
    assert!(terms(&cluster).is_empty());
}

#[test]
fn fields_of_default_in_a_node_object_are_ignored_and_named() {
    let cluster = with(&own("a", "nodeToNodeMeshEnabled: false, asNumber: 65000, serviceLoadBalancerAggregation: Enabled"));
    assert_eq!(cluster.sessions("a").len(), 1);
    let problems = cluster.problems("a");
    assert!(
        problems.len() == 2 && problems.iter().all(|problem| problem.contains("is read from BGPConfiguration default alone")),
        "{problems:#?}"
    );
}

#[test]
fn unknown_fields_are_named_and_ignored() {
    let cluster = with(
        &(peer("p", "peerIp: 192.0.2.1, peerIP: 192.0.2.1, asNumber: 65001")
            + "---\nkind: BGPConfiguration\nmetadata: {name: default}\nsepc: {}\n"),
    );
    let problems = cluster.problems("a");
    assert!(
        problems.iter().any(|problem| problem.contains("info: BGPPeer p: spec.peerIp: margay does not know this field")),
        "{problems:#?}"
    );
    assert!(problems.iter().any(|problem| problem.contains("info: BGPConfiguration default: sepc: has no meaning here")), "{problems:#?}");
    assert_eq!(problems.len(), 2);
}

#[test]
fn a_bad_field_of_the_cluster_configuration_costs_that_field() {
    let cluster = with(&defaults("asNumber: x, listenPort: 1790, nodeToNodeMeshEnabled: \"false\""));
    assert!(cluster.sessions("a").is_empty());
    assert_eq!((cluster.config("a").asn.0, cluster.config("a").listen.port), (64512, 1790));
    let problems = cluster.problems("a");
    assert!(
        problems[0].contains("error: BGPConfiguration default: spec.asNumber: ") && problems[0].ends_with("the field is left out"),
        "{problems:#?}"
    );
    assert!(problems[1].contains("info: BGPConfiguration default: spec.nodeToNodeMeshEnabled: is text, not a boolean"), "{problems:#?}");
}

fn annotated(annotations: &str) -> Cluster {
    with(&format!(
        "---\nkind: BGPPeer\nmetadata: {{name: p, annotations: {{{annotations}}}}}\nspec: {{peerIP: 192.0.2.1, asNumber: 65001}}\n"
    ))
}

#[test]
fn annotations_set_what_calico_has_no_field_for() {
    let peer_with = |annotations: &str| {
        let cluster = annotated(annotations);
        assert!(cluster.problems("a").is_empty(), "{annotations}: {:#?}", cluster.problems("a"));
        cluster.peer("a", "Global_192_0_2_1")
    };
    let usual = peer_with("example.com/x: y");
    assert_eq!((usual.hold_time, usual.add_path, usual.extended_messages), (240, AddPath::Both, false), "as Calico's BIRD");
    assert_eq!((usual.ttl, usual.send_hold), (Ttl::Multihop, SendHold::Derived));
    assert_eq!(peer_with("margay.io/hold-time: 30").hold_time, 30);
    assert_eq!(peer_with("margay.io/hold-time: 1m30s").hold_time, 90);
    let most = peer_with("margay.io/max-prefixes: 50 idle").max_prefixes;
    assert_eq!((most.limit, most.action), (50, MaxPrefixAction::Idle));
    for (word, mode) in [("off", AddPath::Off), ("receive", AddPath::Receive), ("send", AddPath::Send), ("both", AddPath::Both)] {
        assert_eq!(peer_with(&format!("margay.io/add-path: {word}")).add_path, mode, "a bare off of YAML is the word off");
    }
    assert_eq!(peer_with("margay.io/send-hold-time: off").send_hold, SendHold::Off);
    assert_eq!(peer_with("margay.io/send-hold-time: 5m").send_hold, SendHold::After(Duration::from_secs(300)));
    assert!(peer_with("margay.io/extended-messages: on").extended_messages);
    assert_eq!(peer_with("margay.io/directly-connected: on").ttl, Ttl::Direct);
    assert_eq!(peer_with("margay.io/default-policy: calico"), usual);
}

#[test]
fn annotations_that_say_nothing_useful_are_problems() {
    for bad in [
        "margay.io/hold-time: 2",
        "margay.io/hold-time: soon",
        "margay.io/max-prefixes: many",
        "margay.io/max-prefixes: 5 warn idle",
        "margay.io/add-path: maybe",
        "margay.io/send-hold-time: on",
        "margay.io/extended-messages: big",
        "margay.io/directly-connected: perhaps",
        "margay.io/default-policy: accept",
        "margay.io/interface: \"\"",
        "margay.io/interface: eth0",
        "margay.io/nonsense: 1",
    ] {
        assert_one_problem(&annotated(bad), "a", "warning: BGPPeer p: metadata.annotations.margay.io/");
    }
    let bfd = annotated("margay.io/bfd: 50ms*3 strict").peer("a", "Global_192_0_2_1").bfd;
    assert!(bfd.is_some_and(|bfd| bfd.strict && bfd.multiplier == 3 && bfd.multihop), "{bfd:?}");
    let two = "---\nkind: BGPPeer\nmetadata: {name: p, annotations: {margay.io/directly-connected: on}}\n\
               spec: {peerIP: 192.0.2.1, asNumber: 65001, ttlSecurity: 2}\n";
    assert_one_problem(&with(two), "a", "margay.io/directly-connected: ttlSecurity lets the peer be 2 hops away; ttlSecurity applies");
    // What protects a session and is not supported keeps the session from running unprotected.
    let protected = annotated("margay.io/tcp-ao: keys");
    assert!(matches!(protected.peer("a", "Global_192_0_2_1").authentication, Authentication::Missing(_)));
    assert_one_problem(
        &protected,
        "a",
        "error: BGPPeer p: metadata.annotations.margay.io/tcp-ao: there is no Secret keys in namespace kube-system",
    );
}

/// E8: our AS by peer and how often it may occur are Calico's fields; the rest of what may become of AS paths is one annotation.
#[test]
fn e8_as_paths_of_a_peer() {
    let session = |annotation: &str| {
        let annotations =
            if annotation.is_empty() { String::new() } else { format!(", annotations: {{margay.io/as-path: \"{annotation}\"}}") };
        with(&format!(
            "---\nkind: BGPPeer\nmetadata: {{name: p{annotations}}}\n\
             spec: {{peerIP: 192.0.2.1, asNumber: 65001, localASNumber: 64999, numAllowedLocalASNumbers: 2}}\n"
        ))
    };
    let cluster = session("");
    let plain = cluster.peer("a", "Global_192_0_2_1");
    assert_eq!((plain.local_asn.0, plain.allow_local_as, plain.as_path), (64999, 2, AsPathRules::default()));
    for (words, remove_private, replace_peer, allow_sets) in [
        ("remove-private", true, false, false),
        ("replace-peer", false, true, false),
        ("allow-sets", false, false, true),
        ("allow-sets  remove-private replace-peer", true, true, true),
    ] {
        let cluster = session(words);
        assert!(cluster.problems("a").is_empty(), "{:#?}", cluster.problems("a"));
        assert_eq!(cluster.peer("a", "Global_192_0_2_1").as_path, AsPathRules { remove_private, replace_peer, allow_sets }, "{words}");
    }
    for wrong in ["remove", "remove-private,replace-peer", "on"] {
        let cluster = session(wrong);
        assert_one_problem(&cluster, "a", "warning: BGPPeer p: metadata.annotations.margay.io/as-path: `");
        assert_eq!(cluster.peer("a", "Global_192_0_2_1").as_path, AsPathRules::default());
    }
}

#[test]
fn annotations_of_the_configuration_are_defaults_for_all() {
    let configuration = |name: &str, seconds: u8| {
        format!(
            "---\nkind: BGPConfiguration\nmetadata: {{name: {name}, annotations: {{margay.io/hold-time: \"{seconds}\"}}}}\nspec: {{}}\n"
        )
    };
    let peer =
        "---\nkind: BGPPeer\nmetadata: {name: p, annotations: {margay.io/hold-time: \"30\"}}\nspec: {peerIP: 192.0.2.1, asNumber: 65001}\n";
    let cluster = with(&[&configuration("default", 9), peer].concat());
    assert_eq!(cluster.peer("a", "Mesh_10_0_0_2").hold_time, 9, "the mesh included");
    assert_eq!(cluster.peer("a", "Global_192_0_2_1").hold_time, 30, "the BGPPeer's own comes first");
    let cluster = with(&[&configuration("default", 9), &configuration("node.a", 12), peer].concat());
    assert_eq!((cluster.peer("a", "Mesh_10_0_0_2").hold_time, cluster.peer("b", "Mesh_10_0_0_1").hold_time), (12, 9), "a node's own next");
    let cluster = with("---\nkind: BGPConfiguration\nmetadata: {name: default, annotations: {margay.io/interface: eth0}}\nspec: {}\n");
    assert_one_problem(&cluster, "a", "warning: BGPConfiguration default: metadata.annotations.margay.io/interface: an interface belongs");
}

#[test]
fn e6_rfc_8212_calicos_rules_are_a_policy_and_reject_lets_only_filtered_routes_through() {
    let resources = |filters: &str| {
        let filter =
            "---\nkind: BGPFilter\nmetadata: {name: some}\nspec: {importV4: [{action: Accept, matchOperator: In, cidr: 10.9.0.0/16}]}\n";
        let peer = format!(
            "---\nkind: BGPPeer\nmetadata: {{name: p, annotations: {{margay.io/default-policy: reject}}}}\n\
             spec: {{peerIP: 192.0.2.1, asNumber: 65001{filters}}}\n"
        );
        with(&[filter, &peer].concat())
    };
    let last = |policy: &Policy| policy.terms.last().map(|term| term.name.to_string()).unwrap_or_default();
    // Without the annotation: what Calico generates for every peer is its policy, by name, and no problem.
    let calico = with("---\nkind: BGPPeer\nmetadata: {name: p}\nspec: {peerIP: 192.0.2.1, asNumber: 65001}\n");
    let peer = calico.peer("a", "Global_192_0_2_1");
    assert_eq!(
        [last(&peer.import.ipv4).as_str(), last(&peer.export.ipv4).as_str()],
        ["Calico import: everything", "Calico export 11: outside every block, service range and pool"]
    );
    assert!(calico.problems("a").is_empty(), "{:#?}", calico.problems("a"));
    let reject = "margay.io/default-policy reject: accepted by no BGPFilter";
    let bare = resources("");
    let peer = bare.peer("a", "Global_192_0_2_1");
    assert_eq!((last(&peer.import.ipv4).as_str(), last(&peer.export.ipv4).as_str()), (reject, reject));
    assert_one_problem(&bare, "a", "warning: BGPPeer p: spec.filters: margay.io/default-policy is reject, and no BGPFilter");
    // The mesh is iBGP: RFC 8212 does not concern it.
    assert_eq!(last(&bare.peer("a", "Mesh_10_0_0_2").import.ipv4), "Calico import: everything");
    let filtered = resources(", filters: [some]");
    assert!(filtered.problems("a").is_empty(), "{:#?}", filtered.problems("a"));
    let import = &filtered.peer("a", "Global_192_0_2_1").import.ipv4;
    assert_eq!((import.terms.len(), last(import).as_str()), (2, reject));
}

#[test]
fn yaml_traps() {
    let cluster = Cluster::new(
        &[
            node("a", "10.0.0.1", "", "edge: yes, zone: 5663:12, count: 3"),
            peer("p", "nodeSelector: \"edge == 'true' && zone == '5663:12' && count == '3'\", peerIP: 192.0.2.1, asNumber: 65001"),
        ]
        .concat(),
    );
    assert_eq!(cluster.sessions("a"), ["Node_192_0_2_1 192.0.2.1:179 64512→65001 from 10.0.0.1"]);
}

#[test]
fn bind_mode() {
    let cluster = with("");
    assert!(cluster.config("a").listen.addresses.is_empty());
    let cluster = with(&defaults("bindMode: NodeIP"));
    assert_eq!(cluster.config("a").listen.addresses, ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
}

#[test]
fn ignored_interfaces_come_before_calicos() {
    let cluster = with(&defaults("ignoredInterfaces: [eth9, \"docker*\"]"));
    assert_eq!(cluster.config("a").origin.ignored_interfaces, ["eth9", "docker*", "cali*", "kube-ipvs*"]);
}
