//! Which routes a node exports, with which LOCAL_PREF and communities: Calico's policy from BGPFilter text to verdict.

use std::borrow::Cow;

use ipnet::IpNet;
use margay::calico::builtin_policy::{ExportInputs, PrefixAdvertisement, export_policy, import_policy};
use margay::calico::filter::{CommunityValue, CompiledFilter, compile_filter};
use margay::policy::{METRIC_BASE, Policy, RouteSource, Subject, Verdict};
use margay::types::{AsPath, Asn, Attributes, Community, Family};
use serde_json::{Value, json};

use RouteSource::{Block, Device, Ebgp, Ibgp, Kernel, Service};

/// LOCAL_PREF of a route of normal priority, 1024.
const NORMAL: u32 = 2_147_482_623;
const TAGGED: Community = Community(64512 << 16 | 100);

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn nets(list: &[&str]) -> Vec<IpNet> {
    list.iter().copied().map(net).collect()
}

fn filter(spec: Value) -> CompiledFilter {
    let mut problems = Vec::new();
    let compiled = compile_filter("f", &serde_json::from_value(spec).unwrap(), &mut problems);
    assert_eq!(problems, []);
    compiled
}

/// A route on its way to a peer.
#[derive(Clone)]
struct Route {
    prefix: &'static str,
    source: RouteSource,
    interface: Option<&'static str>,
    metric: Option<u32>,
    attributes: Attributes,
}

fn local(source: RouteSource, prefix: &'static str) -> Route {
    Route { prefix, source, interface: None, metric: None, attributes: Attributes::default() }
}

fn workload(prefix: &'static str, metric: u32) -> Route {
    Route { interface: Some("cali1"), metric: Some(metric), ..local(Kernel, prefix) }
}

fn learned(source: RouteSource, prefix: &'static str, local_pref: u32) -> Route {
    let attributes = Attributes { local_pref: Some(local_pref), ..Attributes::default() };
    Route { interface: Some("eth0"), attributes, ..local(source, prefix) }
}

/// What a policy makes of a route.
struct Outcome {
    accepted: bool,
    reason: String,
    local_pref: u32,
    preference: u8,
    attributes: Attributes,
}

fn judge(policy: &Policy, route: &Route, session_is_ebgp: bool) -> Outcome {
    let mut subject = Subject {
        prefix: net(route.prefix),
        source: route.source,
        interface: route.interface,
        session_is_ebgp,
        metric: route.metric,
        preference: route.source.preference(),
        attributes: Cow::Borrowed(&route.attributes),
    };
    let ruling = policy.apply(&mut subject);
    Outcome {
        accepted: ruling.verdict == Verdict::Accept,
        reason: policy.reason(&ruling, &subject.prefix),
        local_pref: subject.local_pref(),
        preference: subject.preference,
        attributes: subject.attributes.into_owned(),
    }
}

/// A node's view: what its export rules know. Sessions of either kind and any filters.
struct Node {
    inputs: ExportInputs,
    filters: Vec<CompiledFilter>,
}

impl Node {
    fn new(blocks: &[&str], services: &[&str]) -> Self {
        let inputs = ExportInputs {
            family: Family::IPV4_UNICAST,
            normal_priority: 1024,
            confirmed_blocks: nets(blocks),
            pools: vec![(net("10.244.0.0/16"), true), (net("10.245.0.0/16"), true)],
            services: nets(services),
            reflected_load_balancers: Vec::new(),
            reflected_externals: Vec::new(),
            owns_ipip: false,
            advertisements: vec![PrefixAdvertisement { cidr: net("10.244.0.0/16"), communities: vec![CommunityValue::Standard(TAGGED)] }],
        };
        Self { inputs, filters: Vec::new() }
    }

    fn filtered(mut self, spec: Value) -> Self {
        self.filters.push(filter(spec));
        self
    }

    fn export(&self, route: &Route, session_is_ebgp: bool) -> Outcome {
        judge(&export_policy(&self.filters.iter().collect::<Vec<_>>(), &self.inputs), route, session_is_ebgp)
    }

    fn to_ibgp(&self, route: &Route) -> Outcome {
        self.export(route, false)
    }

    fn to_ebgp(&self, route: &Route) -> Outcome {
        self.export(route, true)
    }
}

fn node_1() -> Node {
    Node::new(&["10.244.1.0/26", "10.245.1.0/26"], &["10.96.0.0/12", "198.51.100.0/24", "10.96.0.20/32", "198.51.100.7/32"])
}

fn rr_1() -> Node {
    let mut node = Node::new(&["10.244.3.0/26"], &["10.96.0.0/12", "198.51.100.0/24"]);
    node.inputs.reflected_load_balancers = nets(&["198.51.100.0/24"]);
    node
}

fn tor_out() -> Value {
    json!({"exportV4": [{"source": "RemotePeers", "action": "Reject"}]})
}

/// What node-1 has by itself: route, exported, carries the pool's community, why.
fn routes_of_node_1() -> Vec<(Route, bool, bool, &'static str)> {
    vec![
        (local(Block, "10.244.1.0/26"), true, true, "Calico export 7: own block (10.244.1.0/26)"),
        (workload("10.244.1.5/32", 1024), false, true, "Calico export 7: inside own block, which stands for it (10.244.1.0/26)"),
        (workload("10.245.1.7/32", 1024), false, false, "Calico export 7: inside own block, which stands for it (10.245.1.0/26)"),
        (local(Block, "10.245.1.0/26"), true, false, "Calico export 7: own block (10.245.1.0/26)"),
        // Felix's own blackhole, metric 0: of normal priority here, LOCAL_PREF 2147483647 with BIRD.
        (Route { metric: Some(0), ..local(Kernel, "10.245.1.0/26") }, true, false, "Calico export 7: own block (10.245.1.0/26)"),
        (workload("10.244.2.9/32", 1024), true, true, "Calico export 10: inside a pool (10.244.0.0/16)"),
        (local(Service, "10.96.0.0/12"), true, false, "Calico export 8: inside an advertised service range (10.96.0.0/12)"),
        (local(Service, "198.51.100.0/24"), true, false, "Calico export 8: inside an advertised service range (198.51.100.0/24)"),
        (local(Service, "10.96.0.20/32"), true, false, "Calico export 8: inside an advertised service range (10.96.0.20/32)"),
        (local(Service, "198.51.100.7/32"), true, false, "Calico export 8: inside an advertised service range (198.51.100.7/32)"),
        (Route { interface: Some("eth0"), metric: Some(0), ..local(Kernel, "0.0.0.0/0") }, false, false, OUTSIDE),
        (Route { interface: Some("eth0"), ..local(Device, "10.0.1.0/24") }, false, false, OUTSIDE),
    ]
}

const OUTSIDE: &str = "Calico export 11: outside every block, service range and pool";

#[test]
fn node_1_to_the_reflector_and_to_the_top_of_rack_router() {
    for (route, exported, tagged, why) in routes_of_node_1() {
        let plain = node_1();
        let filtered = node_1().filtered(tor_out());
        for outcome in [plain.to_ibgp(&route), plain.to_ebgp(&route), filtered.to_ebgp(&route)] {
            assert_eq!((outcome.accepted, outcome.reason.as_str()), (exported, why), "{}", route.prefix);
            assert_eq!(outcome.local_pref, NORMAL, "{}", route.prefix);
            assert_eq!(outcome.attributes.has_community(TAGGED), tagged, "{}", route.prefix);
        }
    }
}

#[test]
fn what_node_1_learned_goes_to_the_top_of_rack_router_unless_filtered() {
    let pool = "Calico export 10: inside a pool (10.244.0.0/16)";
    let rejected = "BGPFilter f exportV4[0]";
    for (route, without, with) in [
        (learned(Ibgp, "10.244.2.0/26", NORMAL), (true, pool), (false, rejected)),
        (learned(Ibgp, "10.244.3.0/26", NORMAL), (true, pool), (false, rejected)),
        (learned(Ebgp, "172.20.0.0/16", 100), (false, OUTSIDE), (false, rejected)),
        (learned(Ebgp, "0.0.0.0/0", 100), (false, OUTSIDE), (false, rejected)),
    ] {
        for (node, expected) in [(node_1(), without), (node_1().filtered(tor_out()), with)] {
            let outcome = node.to_ebgp(&route);
            assert_eq!((outcome.accepted, outcome.reason.as_str()), expected, "{}", route.prefix);
        }
    }
    assert!(!node_1().to_ibgp(&learned(Ebgp, "172.20.0.0/16", 100)).accepted);
}

#[test]
fn the_reflector_passes_on_blocks_and_services() {
    let node = rr_1();
    let mut excluded = rr_1();
    excluded.inputs.services.clear();
    let reflected = "Calico export 9: inside a load-balancer range, as reflector (198.51.100.0/24)";
    let service = |range: &str| format!("Calico export 8: inside an advertised service range ({range})");
    for (prefix, reason, excluded_reason) in [
        ("10.244.1.0/26", "Calico export 10: inside a pool (10.244.0.0/16)".into(), "Calico export 10: inside a pool (10.244.0.0/16)"),
        ("10.244.2.9/32", "Calico export 10: inside a pool (10.244.0.0/16)".into(), "Calico export 10: inside a pool (10.244.0.0/16)"),
        ("198.51.100.7/32", service("198.51.100.0/24"), reflected),
        ("10.96.0.20/32", service("10.96.0.0/12"), OUTSIDE),
    ] {
        let route = learned(Ibgp, prefix, NORMAL);
        assert_eq!(node.to_ibgp(&route).reason, reason, "{prefix}");
        assert_eq!(excluded.to_ibgp(&route).reason, excluded_reason, "{prefix}");
        assert_eq!(node.to_ibgp(&route).local_pref, NORMAL, "{prefix}");
    }
    excluded.inputs.reflected_externals = nets(&["203.0.113.0/24"]);
    assert!(excluded.to_ibgp(&learned(Ibgp, "203.0.113.9/32", NORMAL)).accepted);
}

#[test]
fn felix_s_tunnel_routes_stay_out_of_ibgp_only() {
    let tunnel = |interface| Route { interface: Some(interface), metric: Some(0), ..local(Kernel, "10.245.1.0/26") };
    let mut node = rr_1();
    for (interface, ibgp, ebgp) in [
        ("tunl0", false, true),
        ("vxlan.calico", false, true),
        ("wireguard.cali", false, true),
        ("bpfout.cali", false, false),
        ("eth0", true, true),
        ("cali123", true, true),
    ] {
        assert_eq!(node.to_ibgp(&tunnel(interface)).accepted, ibgp, "{interface}");
        assert_eq!(node.to_ebgp(&tunnel(interface)).accepted, ebgp, "{interface}");
    }
    node.inputs.owns_ipip = true;
    assert!(node.to_ibgp(&tunnel("tunl0")).accepted, "tunl0 is ours then");
    assert!(!node.to_ibgp(&tunnel("vxlan.calico")).accepted);
}

#[test]
fn own_more_specifics_are_held_back_and_borrowed_addresses_let_through() {
    let node = Node::new(&["10.244.1.0/26", "10.244.7.7/32"], &[]);
    for (route, accepted) in [
        (workload("10.244.1.0/32", 1024), false),
        (workload("10.244.1.63/32", 1024), false),
        (workload("10.244.1.63/32", 0), false),
        (workload("10.244.1.63/32", 512), true),
        (workload("10.244.1.63/32", 2000), false),
        (workload("10.244.1.64/32", 1024), true),
        (workload("10.244.2.0/32", 1024), true),
        (workload("10.244.2.255/32", 1024), true),
        (workload("10.244.7.7/32", 1024), true),
        (local(Block, "10.244.1.0/26"), true),
        (learned(Ibgp, "10.244.1.5/32", NORMAL), false),
        (learned(Ibgp, "10.244.1.5/32", METRIC_BASE - 512), true),
        (workload("10.99.0.1/32", 1024), false),
    ] {
        let outcome = node.to_ibgp(&route);
        assert_eq!(outcome.accepted, accepted, "{} metric {:?}: {}", route.prefix, route.metric, outcome.reason);
    }
    assert_eq!(node.to_ibgp(&workload("10.244.1.63/32", 512)).local_pref, 2_147_483_135);
}

#[test]
fn a_block_pending_deletion_lets_its_addresses_out() {
    let node = Node::new(&[], &[]);
    assert!(node.to_ibgp(&local(Block, "10.244.1.0/26")).accepted);
    assert!(node.to_ibgp(&workload("10.244.1.5/32", 1024)).accepted);
}

#[test]
fn a_block_without_a_pool_is_exported_still() {
    let mut node = Node::new(&["10.244.1.0/26"], &[]);
    node.inputs.pools.clear();
    assert!(node.to_ibgp(&local(Block, "10.244.1.0/26")).accepted);
    assert!(!node.to_ibgp(&workload("10.244.2.9/32", 1024)).accepted);
}

#[test]
fn a_pool_with_disable_bgp_export_is_hidden_and_of_overlapping_pools_the_longest_decides() {
    let mut node = Node::new(&["10.244.1.0/26"], &[]);
    node.inputs.pools = vec![
        (net("10.244.0.0/16"), false),
        (net("10.244.128.0/17"), true),
        (net("10.244.192.0/18"), false),
        (net("10.246.0.0/16"), true),
        (net("10.246.5.0/24"), false),
    ];
    for (prefix, accepted) in
        [("10.244.2.9/32", false), ("10.244.130.9/32", true), ("10.244.200.9/32", false), ("10.246.1.1/32", true), ("10.246.5.1/32", false)]
    {
        assert_eq!(node.to_ibgp(&workload(prefix, 1024)).accepted, accepted, "{prefix}");
    }
    let outcome = node.to_ibgp(&local(Block, "10.244.1.0/26"));
    assert_eq!(
        (outcome.accepted, outcome.reason.as_str()),
        (false, "Calico export 3: inside a pool with disableBGPExport (10.244.0.0/16)")
    );
}

#[test]
fn accept_on_export_passes_by_everything_of_calico_s() {
    let mut node = node_1().filtered(json!({"exportV4": [{"action": "Accept"}]}));
    node.inputs.pools = vec![(net("10.244.0.0/16"), false)];
    for (route, _, _, _) in routes_of_node_1() {
        let outcome = node.to_ibgp(&route);
        assert!(outcome.accepted, "{}", route.prefix);
        assert!(!outcome.attributes.has_community(TAGGED), "no prefixAdvertisements: {}", route.prefix);
        assert_eq!(outcome.local_pref, NORMAL, "the priority comes before the filters: {}", route.prefix);
    }
    assert!(node.to_ibgp(&Route { interface: Some("tunl0"), ..local(Kernel, "10.245.9.0/26") }).accepted);
}

#[test]
fn filters_are_chained_in_order_and_end_in_calico_s_policy() {
    let node = node_1().filtered(json!({"exportV4": [{"cidr": "10.96.0.0/12", "matchOperator": "Equal", "action": "Reject"}]})).filtered(
        json!({"exportV4": [
            {"cidr": "10.96.0.0/12", "matchOperator": "In", "action": "Accept", "operations": [{"setPriority": {"value": 7}}]},
        ]}),
    );
    assert_eq!(node.to_ibgp(&local(Service, "10.96.0.0/12")).reason, "BGPFilter f exportV4[0]");
    let accepted = node.to_ibgp(&local(Service, "10.96.0.20/32"));
    assert_eq!((accepted.accepted, accepted.local_pref), (true, METRIC_BASE - 7));
    assert_eq!(node.to_ibgp(&local(Block, "10.244.1.0/26")).reason, "Calico export 7: own block (10.244.1.0/26)");
}

#[test]
fn a_prepended_list_stands_in_front_of_our_own_as() {
    let node = node_1().filtered(json!({"exportV4": [
        {"asPathPrefix": [64512], "action": "Accept", "operations": [{"prependASPath": {"prefix": [65001, 65002]}}]},
    ]}));
    let mut route = local(Block, "10.244.1.0/26");
    route.attributes.as_path = AsPath::sequence([Asn(64512)]);
    assert_eq!(node.to_ebgp(&route).attributes.as_path.to_string(), "65001 65002 64512");
}

#[test]
fn import_accepts_everything_and_prefers_elevated_routes() {
    let family = Family::IPV4_UNICAST;
    let plain = import_policy(&[], family, 1024);
    for (local_pref, preference) in
        [(100, 100), (NORMAL - 1, 100), (NORMAL, 100), (NORMAL + 1, 200), (METRIC_BASE - 512, 200), (METRIC_BASE, 200), (u32::MAX, 200)]
    {
        let outcome = judge(&plain, &learned(Ibgp, "203.0.113.0/24", local_pref), false);
        assert_eq!((outcome.accepted, outcome.preference), (true, preference), "{local_pref}");
    }
    let rules = filter(json!({"importV4": [
        {"cidr": "10.0.0.0/8", "matchOperator": "In", "action": "Accept", "operations": [{"setPriority": {"value": 512}}]},
        {"cidr": "0.0.0.0/0", "matchOperator": "Equal", "action": "Reject"},
    ], "importV6": [{"action": "Reject"}]}));
    let filtered = import_policy(&[&rules], family, 1024);
    let accepted = judge(&filtered, &learned(Ebgp, "10.9.0.0/16", 100), true);
    assert_eq!((accepted.accepted, accepted.preference, accepted.local_pref), (true, 100, METRIC_BASE - 512), "an Accept ends everything");
    assert!(!judge(&filtered, &learned(Ebgp, "0.0.0.0/0", 100), true).accepted);
    assert!(judge(&filtered, &learned(Ebgp, "172.20.0.0/16", 100), true).accepted);
}

#[test]
fn the_other_family_s_prefixes_are_passed_over() {
    let mut node = Node::new(&["fd00:10::/122", "10.244.1.0/26"], &["fd00:96::/112", "10.96.0.0/12"]);
    node.inputs.family = Family::IPV6_UNICAST;
    node.inputs.pools.push((net("fd00:10::/48"), true));
    assert!(node.to_ibgp(&local(Block, "fd00:10::/122")).accepted);
    assert!(!node.to_ibgp(&workload("fd00:10::5/128", 1024)).accepted);
    assert!(node.to_ibgp(&workload("fd00:10::ff/128", 1024)).accepted);
    assert!(node.to_ibgp(&local(Service, "fd00:96::/112")).accepted);
    let rendered = format!("{:?}", export_policy(&[], &node.inputs));
    assert!(!rendered.contains("10.244"), "{rendered}");
}
