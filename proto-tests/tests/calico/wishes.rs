//! What users of Calico's BIRD begged for, as far as it is a matter of resources: a test for each wish, named after its row and the
//! threads in which it was asked. Service advertisement (row 19) is in `services`; a restart that waits for nobody (row 2) in margay's
//! `node::recovery`; a start without the datastore (row 14) in `etcd`; routes that wait for the data plane (row 20) in margay's `origin`;
//! what a lab shows is named there.

use std::borrow::Cow;

use margay::config::{AddPath, FibAction, NextHopMode, PeerConfig};
use margay::policy::{Policy, RouteSource, Subject, Verdict};
use margay::types::{AsPath, Asn, Attributes, Community};

use crate::cluster::{Cluster, defaults, node, peer, pool};

fn with(text: &str) -> Cluster {
    Cluster::new(&[node("a", "10.0.0.1", ", ipv6Address: \"fd00::1/64\"", ""), node("b", "10.0.0.2", "", ""), text.to_owned()].concat())
}

fn filter(name: &str, spec: &str) -> String {
    format!("---\nkind: BGPFilter\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
}

fn learned(prefix: &str, path: &[u32], communities: &[u32]) -> Subject<'static> {
    let attributes = Attributes {
        as_path: AsPath::sequence(path.iter().copied().map(Asn)),
        communities: communities.iter().map(|value| Community(*value)).collect(),
        ..Attributes::default()
    };
    Subject {
        prefix: prefix.parse().unwrap(),
        source: RouteSource::Ebgp,
        interface: None,
        session_is_ebgp: true,
        metric: None,
        preference: 100,
        attributes: Cow::Owned(attributes),
    }
}

fn passes(policy: &Policy, mut subject: Subject<'_>) -> bool {
    policy.apply(&mut subject).verdict == Verdict::Accept
}

/// calico#10844, #7284: a peer that has a link-local address only.
#[test]
fn wish_05_calico_10844_link_local_peers() {
    let cluster = with(&peer("tor", "peerIP: \"fe80::1%eth0\", asNumber: 65001"));
    let tor = cluster.peer("a", "Global_fe80__1_eth0");
    assert_eq!((tor.address.to_string().as_str(), tor.interface.as_deref(), tor.local_address), ("fe80::1", Some("eth0"), None));
    let bare = with(&peer("tor", "peerIP: \"fe80::1\", asNumber: 65001"));
    assert!(bare.problems("a").iter().any(|problem| problem.contains("is link-local and needs an interface")));
}

/// calico#1647: a default route, or somebody else's routes, refused from a top-of-rack router.
#[test]
fn wish_10_calico_1647_import_filters() {
    let rules =
        "importV4: [{cidr: 0.0.0.0/0, matchOperator: Equal, action: Reject}, {cidr: 10.244.0.0/16, matchOperator: In, action: Reject}]";
    let cluster = with(&(peer("tor", "peerIP: 192.0.2.1, asNumber: 65001, filters: [safe]") + &filter("safe", rules)));
    let import = cluster.peer("a", "Global_192_0_2_1").import.ipv4;
    assert!(!passes(&import, learned("0.0.0.0/0", &[65001], &[])));
    assert!(!passes(&import, learned("10.244.7.0/26", &[65001], &[])));
    assert!(passes(&import, learned("172.20.0.0/16", &[65001], &[])));
}

/// calico#1604, #3049, PR#12002: export filters with everything that the newest BGPFilter can say.
#[test]
fn wish_11_calico_12002_export_filters() {
    let rules = "exportV4: [{peerType: iBGP, action: Reject}, {communities: {values: [\"65000:666\"]}, action: Reject}, \
                 {asPathPrefix: [65001, 65002], action: Reject}, {priority: 512, action: Reject}, \
                 {cidr: 172.16.0.0/12, matchOperator: In, prefixLength: {max: 24}, action: Accept, \
                  operations: [{addCommunity: {value: \"65000:1\"}}, {prependASPath: {prefix: [64512, 64512]}}, {setPriority: {value: 100}}]}]";
    let cluster = with(&(peer("tor", "peerIP: 192.0.2.1, asNumber: 65001, filters: [out]") + &filter("out", rules)));
    let export = cluster.peer("a", "Global_192_0_2_1").export.ipv4;
    assert!(!passes(&export, learned("172.20.0.0/16", &[65003], &[65000 << 16 | 666])));
    assert!(!passes(&export, learned("172.20.0.0/16", &[65001, 65002, 65003], &[])));
    assert!(!passes(&export, learned("172.20.1.0/25", &[65003], &[])), "longer than prefixLength, and then Calico's own policy");
    let mut subject = learned("172.20.0.0/16", &[65003], &[]);
    assert_eq!(export.apply(&mut subject).verdict, Verdict::Accept);
    assert_eq!(subject.attributes.as_path.asns().map(|asn| asn.0).collect::<Vec<_>>(), [64512, 64512, 65003]);
    assert!(subject.attributes.communities.contains(&Community(65000 << 16 | 1)));
    assert_eq!(subject.local_pref(), 2_147_483_647 - 100);
}

/// calicoctl PR#675, calico-bird#28, calico#1420: one bad resource stops nothing but itself, and is named.
#[test]
fn wish_13_calico_bird_28_one_bad_resource_stops_nothing_else() {
    let bad = [
        peer("bad-address", "peerIP: nowhere, asNumber: 65001"),
        peer("bad-as", "peerIP: 192.0.2.9, asNumber: 0"),
        peer("bad-selector", "nodeSelector: \"((\", peerIP: 192.0.2.8, asNumber: 65001"),
        filter("bad-filter", "exportV4: [{cidr: 10.0.0.0/33, matchOperator: In, action: Accept}]"),
        pool("bad-pool", "cidr: everything"),
        peer("good", "peerIP: 192.0.2.1, asNumber: 65001"),
    ];
    let cluster = with(&bad.concat());
    assert_eq!(
        cluster.sessions("a").iter().map(|line| line.split(' ').next().unwrap()).collect::<Vec<_>>(),
        ["Global_192_0_2_1", "Mesh_10_0_0_2"]
    );
    let problems = cluster.problems("a");
    for name in ["bad-address", "bad-as", "bad-selector", "bad-filter", "bad-pool"] {
        assert!(problems.iter().any(|problem| problem.contains(name)), "{name}: {problems:#?}");
    }
    assert!(!problems.iter().any(|problem| problem.contains("good")));
}

/// calico#4462, #4114, bird#90: every path is told (ADD-PATH), and an IPIP pool's routes go through the tunnel, hop by hop; the lab's
/// story `encapsulation` has the kernel.
#[test]
fn wish_17_calico_4462_ecmp_also_through_the_tunnel() {
    let cluster = with(&(defaults("programClusterRoutes: Enabled") + &pool("p", "cidr: 10.244.0.0/16, ipipMode: Always")));
    let config = cluster.config("a");
    assert!(config.peers.values().all(|peer| peer.add_path == AddPath::Both));
    assert_eq!(config.fib.rules[0].action, FibAction::Tunnel { device: "tunl0".to_owned(), unless_in: None });
}

/// calico#3666, #12208: next hop self, kept or automatic, peer by peer.
#[test]
fn wish_18_calico_3666_next_hop_by_peer() {
    let mode = |spec: &str| -> NextHopMode {
        let cluster = with(&peer("tor", &format!("peerIP: 192.0.2.1, asNumber: 65001{spec}")));
        cluster.peer("a", "Global_192_0_2_1").next_hop_mode
    };
    assert_eq!(mode(""), NextHopMode::Auto);
    assert_eq!(mode(", nextHopMode: Self"), NextHopMode::SelfAddress);
    assert_eq!(mode(", nextHopMode: Keep"), NextHopMode::Keep);
    assert_eq!(mode(", keepOriginalNextHop: true"), NextHopMode::Keep);
    assert_eq!(mode(", keepOriginalNextHop: true, nextHopMode: Auto"), NextHopMode::Auto);
}

/// calico#1829, #7377, bird#88: two top-of-rack routers on two legs, from whatever address the kernel takes, each with its own AS of ours.
#[test]
fn wish_21_calico_1829_two_routers_on_two_legs() {
    let cluster = with(
        &[
            defaults("nodeToNodeMeshEnabled: false"),
            peer("tor-1", "peerIP: 192.0.2.1, asNumber: 65001, localASNumber: 64901, sourceAddress: None"),
            peer("tor-2", "peerIP: 198.51.100.1, asNumber: 65002, localASNumber: 64902, sourceAddress: None, reachableBy: 198.51.100.254"),
        ]
        .concat(),
    );
    assert_eq!(
        cluster.sessions("a"),
        ["Global_192_0_2_1 192.0.2.1:179 64901→65001 from any", "Global_198_51_100_1 198.51.100.1:179 64902→65002 from any"]
    );
    let routes = cluster.config("a").origin.static_routes;
    assert_eq!(routes, [("198.51.100.1/32".parse().unwrap(), "198.51.100.254".parse().unwrap())]);
    // A node whose address is on its loopback is a node like any other: the session starts there unless sourceAddress is None.
    let from = |peer: PeerConfig| peer.local_address.map(|address| address.to_string());
    assert_eq!(from(with(&peer("tor", "peerIP: 192.0.2.1, asNumber: 65001")).peer("a", "Global_192_0_2_1")).as_deref(), Some("10.0.0.1"));
}
