//! Service advertisement (section 5 of Calico's semantics): a table of one line a case, and the threads in which users asked for it.
//! The cluster of all cases: C = 10.96.0.0/12, E = 203.0.113.0/24, L = 198.51.100.0/24; we are node `a`.

use margay::calico::{Compiler, Document, Environment, Input, Output, ResourceKey};
use margay::types::{Outbox, Sync};
use std::time::Instant;

use crate::cluster::{Cluster, defaults, node, peer, pool, service, slice};

const LISTS: &str = "serviceClusterIPs: [{cidr: 10.96.0.0/12}, {cidr: \"fd00:96::/112\"}], serviceExternalIPs: [{cidr: 203.0.113.0/24}], \
                     serviceLoadBalancerIPs: [{cidr: 198.51.100.0/24}";

const RANGES: [&str; 4] = ["10.96.0.0/12", "198.51.100.0/24", "203.0.113.0/24", "fd00:96::/112"];

const LOCAL: &str = "type: LoadBalancer, externalTrafficPolicy: Local, clusterIP: 10.96.0.20, clusterIPs: [10.96.0.20], ipFamilies: [IPv4]";
const CLUSTER: &str =
    "type: LoadBalancer, externalTrafficPolicy: Cluster, clusterIP: 10.96.0.20, clusterIPs: [10.96.0.20], ipFamilies: [IPv4]";

fn enabled() -> String {
    defaults(&format!("{LISTS}]"))
}

fn disabled() -> String {
    defaults(&format!("{LISTS}], serviceLoadBalancerAggregation: Disabled"))
}

fn cluster(resources: &[String]) -> Cluster {
    Cluster::new(&[node("a", "10.0.0.1", "", ""), node("b", "10.0.0.2", "", ""), resources.concat()].concat())
}

/// What node `a` announces of services besides the ranges of its configuration.
#[track_caller]
fn announces(resources: &[String], wanted: &[&str]) {
    let cluster = cluster(resources);
    let config = cluster.config("a");
    let found: Vec<String> = config.origin.services.iter().map(ToString::to_string).filter(|cidr| !RANGES.contains(&&**cidr)).collect();
    assert_eq!(found, wanted, "{:#?}", cluster.problems("a"));
}

fn web(spec: &str) -> String {
    service("web", spec, &["198.51.100.7"])
}

fn on(endpoints: &[&str]) -> String {
    slice("web-1", "web", "IPv4", endpoints)
}

#[test]
fn s5_6_any_service_the_ranges() {
    let config = cluster(&[enabled()]).config("a");
    assert_eq!(config.origin.services.iter().map(ToString::to_string).collect::<Vec<_>>(), RANGES);
    assert_eq!(cluster(&[enabled()]).rules("a").len(), RANGES.len());
}

#[test]
fn s5_6_policy_cluster_aggregated_announces_nothing_more() {
    announces(&[enabled(), web(CLUSTER), on(&["a", "b"])], &[]);
}

#[test]
fn s5_6_policy_local_with_a_ready_endpoint_here() {
    announces(&[enabled(), web(LOCAL), on(&["a"])], &["10.96.0.20/32", "198.51.100.7/32"]);
    announces(&[disabled(), web(LOCAL), on(&["a"])], &["10.96.0.20/32", "198.51.100.7/32"]);
    let external = format!("{LOCAL}, externalIPs: [203.0.113.9, 192.0.2.9]");
    announces(&[enabled(), web(&external), on(&["a"])], &["10.96.0.20/32", "198.51.100.7/32", "203.0.113.9/32"]);
}

#[test]
fn s5_6_policy_local_without_a_ready_endpoint_here() {
    for aggregation in [enabled(), disabled()] {
        for endpoints in [&[][..], &["b"], &["!a"], &["!a", "b"]] {
            announces(&[aggregation.clone(), web(LOCAL), on(endpoints)], &[]);
        }
        announces(&[aggregation.clone(), web(LOCAL)], &[]);
    }
}

#[test]
fn s5_6_policy_cluster_with_aggregation_disabled() {
    let all = [disabled(), web(CLUSTER), on(&["b"])];
    announces(&all, &["10.96.0.20/32", "198.51.100.7/32"]);
    assert!(!cluster(&all).config("a").origin.services.contains(&"198.51.100.0/24".parse().unwrap()));
    announces(&[disabled(), web(CLUSTER), on(&["!b"])], &[]);
    // A plain ClusterIP Service counts like one of policy Cluster here.
    announces(&[disabled(), service("plain", "clusterIP: 10.96.0.21", &[]), slice("p", "plain", "IPv4", &["b"])], &["10.96.0.21/32"]);
}

#[test]
fn s5_6_an_address_that_is_listed_by_itself_needs_no_endpoint() {
    let single = defaults(&format!("{LISTS}, {{cidr: 198.51.100.7/32}}]"));
    announces(&[single.clone(), web(CLUSTER)], &["10.96.0.20/32", "198.51.100.7/32"]);
    announces(&[single.clone(), web(LOCAL)], &[]);
    // loadBalancerIP makes it count, but is no route of its own.
    let asked = format!("{CLUSTER}, loadBalancerIP: 198.51.100.7");
    announces(&[single, service("web", &asked, &["198.51.100.8"])], &["10.96.0.20/32", "198.51.100.8/32"]);
    let external = defaults("serviceExternalIPs: [{cidr: 203.0.113.9/32}]");
    let exposed = "type: NodePort, externalTrafficPolicy: Cluster, clusterIP: 10.96.0.20, externalIPs: [203.0.113.9]";
    announces(&[external, service("web", exposed, &[])], &["203.0.113.9/32"]);
}

#[test]
fn s5_6_headless_and_external_name_services() {
    for aggregation in [enabled(), disabled()] {
        announces(&[aggregation.clone(), web(&LOCAL.replace("clusterIP: 10.96.0.20", "clusterIP: None")), on(&["a"])], &[]);
        announces(&[aggregation.clone(), web("type: ExternalName, externalName: example.com, clusterIP: 10.96.0.20"), on(&["a"])], &[]);
        announces(&[aggregation, web(&LOCAL.replace("clusterIP: 10.96.0.20", "clusterIP: \"\"")), on(&["a"])], &[]);
    }
}

#[test]
fn s5_6_an_excluded_node_announces_nothing_and_keeps_its_kernel_clear() {
    let labels = "node.kubernetes.io/exclude-from-external-load-balancers: \"true\"";
    let excluded = Cluster::new(&[node("a", "10.0.0.1", "", labels), enabled(), web(LOCAL), on(&["a"])].concat());
    assert!(excluded.config("a").origin.services.is_empty());
    assert_eq!(excluded.rules("a").len(), RANGES.len());
}

#[test]
fn cluster_ips_are_announced_only_where_the_list_is_not_empty_but_then_wherever_they_are() {
    announces(&[defaults("serviceLoadBalancerIPs: [{cidr: 198.51.100.0/24}]"), web(LOCAL), on(&["a"])], &["198.51.100.7/32"]);
    announces(&[enabled(), web(&LOCAL.replace("10.96.0.20", "172.30.0.20")), on(&["a"])], &["172.30.0.20/32", "198.51.100.7/32"]);
}

#[test]
fn calico_advertise_cluster_ips_takes_the_place_of_the_list() {
    let mut cluster = cluster(&[defaults(""), web(LOCAL), on(&["a"])]);
    assert!(cluster.config("a").origin.services.is_empty());
    cluster.environment.cluster_ips = Some("10.200.0.0/16".to_owned());
    let services: Vec<String> = cluster.config("a").origin.services.iter().map(ToString::to_string).collect();
    assert_eq!(services, ["10.96.0.20/32", "10.200.0.0/16"]);
}

#[test]
fn calico_k8s_node_ref_names_our_endpoints() {
    let mut cluster = cluster(&[enabled(), web(LOCAL), on(&["worker-1"])]);
    assert!(!cluster.config("a").origin.services.contains(&"198.51.100.7/32".parse().unwrap()));
    cluster.environment.kubernetes_node = Some("worker-1".to_owned());
    assert!(cluster.config("a").origin.services.contains(&"198.51.100.7/32".parse().unwrap()));
    // Where it is not set, the Node's own reference to Kubernetes counts.
    let own =
        "kind: Node\nmetadata: {name: a}\nspec: {bgp: {ipv4Address: 10.0.0.1/24}, orchRefs: [{nodeName: worker-1, orchestrator: k8s}]}\n";
    let referred = Cluster::new(&[own, &enabled(), &web(LOCAL), &on(&["worker-1"])].concat());
    assert!(referred.config("a").origin.services.contains(&"198.51.100.7/32".parse().unwrap()));
}

#[test]
fn slices_count_by_family_label_and_namespace() {
    let v6 = slice("web-1", "web", "IPv6", &["a"]);
    announces(&[enabled(), web(LOCAL), v6], &[]);
    announces(&[enabled(), web(LOCAL), slice("web-1", "web", "FQDN", &["a"])], &[]);
    announces(&[enabled(), web(LOCAL), on(&["a"]).replace("namespace: ns", "namespace: other")], &[]);
    announces(&[enabled(), web(LOCAL), on(&["a"]).replace("kubernetes.io/service-name", "name")], &[]);
    // Without ipFamilies the cluster IPs say which family it is.
    announces(&[enabled(), web(&LOCAL.replace(", ipFamilies: [IPv4]", "")), on(&["a"])], &["10.96.0.20/32", "198.51.100.7/32"]);
    // Readiness that is not said, or null, is readiness.
    announces(&[enabled(), web(LOCAL), on(&["?a"])], &["10.96.0.20/32", "198.51.100.7/32"]);
}

#[test]
fn bad_addresses_of_a_service_are_left_out_alone() {
    let cluster = cluster(&[
        enabled(),
        service("web", &format!("{LOCAL}, externalIPs: [nonsense, 203.0.113.9]"), &["198.51.100.7", "x"]),
        on(&["a"]),
    ]);
    assert!(cluster.config("a").origin.services.contains(&"203.0.113.9/32".parse().unwrap()));
    let problems = cluster.problems("a");
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(
        problems.iter().all(|problem| problem.contains("Service ns/web") && problem.ends_with("this address is left out")),
        "{problems:#?}"
    );
}

// --- Threads in which users asked.

/// calico#11639, #11502: of a dual-stack Service one family's slice came after the other's, and the routes were lost.
#[test]
fn wish_19_calico_11639_dual_stack_slices_in_any_order() {
    let dual = "type: LoadBalancer, externalTrafficPolicy: Local, clusterIP: \"fd00:96::20\", clusterIPs: [\"fd00:96::20\", 10.96.0.20], \
                ipFamilies: [IPv6, IPv4]";
    let (v4, v6) = (slice("web-4", "web", "IPv4", &["a"]), slice("web-6", "web", "IPv6", &["a"]));
    let all = ["10.96.0.20/32", "198.51.100.7/32", "fd00:96::20/128"];
    announces(&[enabled(), web(dual), v4.clone(), v6.clone()], &all);
    announces(&[enabled(), web(dual), v6, v4.clone()], &all);
    announces(&[enabled(), web(dual), v4], &all);
}

/// calico#6074: a LoadBalancer Service of policy Local is announced by the nodes of its endpoints alone.
#[test]
fn wish_19_calico_6074_local_services_from_their_nodes_alone() {
    let cluster = cluster(&[enabled(), web(LOCAL), on(&["b"])]);
    let has = |node: &str| cluster.config(node).origin.services.contains(&"198.51.100.7/32".parse().unwrap());
    assert!(!has("a") && has("b"));
}

/// calico#5235: nodes without endpoints re-announce another node's address to the top-of-rack router. BIRD does so, and so does
/// margay (rule 8); a BGPFilter on that peer ends it.
#[test]
fn wish_19_calico_5235_learned_addresses_can_be_kept_from_a_router() {
    let filter = "---\nkind: BGPFilter\nmetadata: {name: own}\nspec: {exportV4: [{source: RemotePeers, action: Reject}]}\n".to_owned();
    let tor = peer("tor", "peerIP: 10.0.0.254, asNumber: 65000, filters: [own]");
    let cluster = cluster(&[enabled(), tor, filter]);
    let names: Vec<String> = cluster.peer("a", "Global_10_0_0_254").export.ipv4.terms.iter().map(|term| term.name.to_string()).collect();
    let place = |part: &str| names.iter().position(|name| name.contains(part)).unwrap();
    assert!(place("BGPFilter own") < place("Calico export 8"), "{names:#?}");
}

/// calico#8375: an external address outside serviceExternalIPs is not announced.
#[test]
fn wish_19_calico_8375_external_addresses_must_be_listed() {
    let spec = "type: NodePort, externalTrafficPolicy: Local, clusterIP: 10.96.0.20, externalIPs: [203.0.114.9, 203.0.113.9]";
    announces(&[enabled(), service("web", spec, &[]), on(&["a"])], &["10.96.0.20/32", "203.0.113.9/32"]);
}

/// calico#10112: both cluster IPs of a dual-stack Service.
#[test]
fn wish_19_calico_10112_both_cluster_ips() {
    let spec = "type: NodePort, externalTrafficPolicy: Local, clusterIP: 10.96.0.20, clusterIPs: [10.96.0.20, \"fd00:96::20\"], ipFamilies: [IPv4, IPv6]";
    announces(&[enabled(), service("web", spec, &[]), on(&["a"])], &["10.96.0.20/32", "fd00:96::20/128"]);
}

/// calico PR#13255: a node whose only endpoint is not ready; one slice may not take away what another gives.
#[test]
fn wish_19_calico_13255_only_ready_endpoints_over_all_slices() {
    announces(&[enabled(), web(LOCAL), on(&["!a"])], &[]);
    let two = |first: &str, second: &str| [enabled(), web(LOCAL), on(&[first]), slice("web-2", "web", "IPv4", &[second])];
    announces(&two("!a", "a"), &["10.96.0.20/32", "198.51.100.7/32"]);
    announces(&two("a", "!a"), &["10.96.0.20/32", "198.51.100.7/32"]);
    announces(&two("!a", "!a"), &[]);
}

/// calico PR#8837: several clusters share a range, and each announces its own addresses alone.
#[test]
fn wish_19_calico_8837_no_range_but_each_address() {
    let config = cluster(&[disabled(), web(CLUSTER), on(&["b"])]).config("a");
    let services: Vec<String> = config.origin.services.iter().map(ToString::to_string).collect();
    assert_eq!(services, ["10.96.0.0/12", "10.96.0.20/32", "198.51.100.7/32", "203.0.113.0/24", "fd00:96::/112"]);
}

// --- Events: what changes costs what it concerns.

/// A compiler that hears documents one by one.
struct Live {
    compiler: Compiler,
    now: Instant,
}

impl Live {
    fn new(yaml: &str) -> Self {
        let mut live = Self { compiler: Compiler::new("a".to_owned(), Environment::default()), now: Instant::now() };
        live.hear(
            [Input::Resource(Sync::Begin)]
                .into_iter()
                .chain(documents(yaml).map(|(key, document)| Input::Resource(Sync::Upsert(key, document)))),
        );
        live.hear([Input::Resource(Sync::End)]);
        live
    }

    fn hear(&mut self, inputs: impl IntoIterator<Item = Input>) -> Vec<String> {
        let mut out = Outbox::new();
        for input in inputs {
            self.compiler.handle(self.now, input, &mut out);
        }
        if let Some(due) = self.compiler.deadline() {
            self.now = due;
            self.compiler.on_deadline(due, &mut out);
        }
        let Some(Output::Compiled { config, .. }) = out.drain().last() else { return Vec::new() };
        let services = config.into_iter().flat_map(|config| config.origin.services.clone());
        services.map(|cidr| cidr.to_string()).filter(|cidr| !RANGES.contains(&&**cidr)).collect()
    }

    fn upsert(&mut self, yaml: &str) -> Vec<String> {
        self.hear(documents(yaml).map(|(key, document)| Input::Resource(Sync::Upsert(key, document))).collect::<Vec<_>>())
    }

    fn remove(&mut self, kind: &str, name: &str) -> Vec<String> {
        self.hear([Input::Resource(Sync::Remove(ResourceKey { kind: kind.to_owned(), namespace: "ns".to_owned(), name: name.to_owned() }))])
    }
}

fn documents(yaml: &str) -> impl Iterator<Item = (ResourceKey, Document)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.yaml");
    std::fs::write(&path, yaml).unwrap();
    margay::datastore::load(&[path]).into_iter().filter_map(|input| match input {
        Input::Resource(Sync::Upsert(key, document)) => Some((key, document)),
        _ => None,
    })
}

#[test]
fn s5_4_events_of_services_and_slices() {
    let mut live = Live::new(&[node("a", "10.0.0.1", "", ""), enabled()].concat());
    let both = ["10.96.0.20/32", "198.51.100.7/32"];
    assert!(live.upsert(&on(&["a"])).is_empty(), "a slice of an unknown Service");
    assert_eq!(live.upsert(&web(LOCAL)), both, "the Service comes after its slice");
    assert!(live.upsert(&on(&["!a"])).is_empty(), "not ready any more");
    assert_eq!(live.upsert(&on(&["a", "b"])), both);
    // BIRD and confd keep announcing here; margay looks again.
    assert!(live.remove("EndpointSlice", "web-1").is_empty(), "the only slice goes");
    assert_eq!(live.upsert(&on(&["a"])), both);
    // A second Service wants the same address: it stays until the last is gone.
    let mut shared =
        live.upsert(&(service("too", &LOCAL.replace("10.96.0.20", "10.96.0.21"), &["198.51.100.7"]) + &slice("t", "too", "IPv4", &["a"])));
    assert_eq!(shared, ["10.96.0.20/32", "10.96.0.21/32", "198.51.100.7/32"]);
    shared = live.remove("Service", "web");
    assert_eq!(shared, ["10.96.0.21/32", "198.51.100.7/32"]);
    assert!(live.remove("Service", "too").is_empty());
    // The configuration, and our own labels.
    assert_eq!(live.upsert(&web(CLUSTER)), [""; 0]);
    assert_eq!(live.upsert(&disabled()), both, "aggregation off");
    assert_eq!(live.upsert(&node("a", "10.0.0.1", "", "node.kubernetes.io/exclude-from-external-load-balancers: \"true\"")), [""; 0]);
}

#[test]
fn a_changed_slice_looks_at_one_service_and_at_no_node() {
    let mut all = String::new();
    for number in 1..=100u32 {
        all += &node(&format!("n{number}"), &format!("10.0.1.{number}"), "", "");
        all += &service(&format!("s{number}"), &LOCAL.replace("10.96.0.20", &format!("10.96.1.{number}")), &[]);
    }
    all += &[node("a", "10.0.0.1", "", ""), enabled(), pool("p", "cidr: 10.244.0.0/16"), web(LOCAL), on(&["b"])].concat();
    let mut live = Live::new(&all);
    assert_eq!(live.compiler.work().services, 101);
    assert_eq!(live.upsert(&on(&["a"])), ["10.96.0.20/32", "198.51.100.7/32"]);
    let work = live.compiler.work();
    assert_eq!((work.services, work.nodes, work.sessions, work.selectors, work.policies), (1, 0, 0, 0, 0));
}

/// What `explain` says of a prefix, a line each.
fn notes(live: &Live, prefix: &str) -> Vec<String> {
    let notes = live.compiler.service_notes(prefix.parse().unwrap());
    let yes = |announced| if announced { "yes" } else { "no" };
    let ranges = notes.ranges.iter().map(|note| format!("{} {} of {}: {}", yes(note.announced), note.range, note.field, note.because));
    let addresses = notes
        .addresses
        .iter()
        .map(|note| format!("{} {} {} {}: {}", yes(note.announced), note.address, note.role, note.service, note.because));
    ranges.chain(addresses).chain((notes.more > 0).then(|| format!("{} more", notes.more))).collect()
}

#[test]
fn explain_says_which_service_has_an_address_and_why_it_is_or_is_not_announced() {
    let mut live = Live::new(&[node("a", "10.0.0.1", "", ""), enabled(), web(LOCAL), on(&["b"])].concat());
    let range = "yes 198.51.100.0/24 of serviceLoadBalancerIPs: it stands for the addresses inside, and kube-proxy delivers from any node";
    let address = "198.51.100.7/32";
    let not_here = "no 198.51.100.7 load balancer IP ns/web: no endpoint on this node is ready, and its externalTrafficPolicy is Local";
    assert_eq!(notes(&live, address), [range, not_here]);
    live.upsert(&on(&["a"]));
    assert_eq!(notes(&live, address), [range, "yes 198.51.100.7 load balancer IP ns/web: an endpoint on this node is ready"]);
    live.upsert(&web(CLUSTER));
    let aggregated =
        "no 198.51.100.7 load balancer IP ns/web: its externalTrafficPolicy is not Local, so the announced ranges stand for it";
    assert_eq!(notes(&live, address), [range, aggregated]);
    live.upsert(&defaults("serviceExternalIPs: [{cidr: 203.0.113.0/24}]"));
    live.upsert(&web(LOCAL));
    let outside = "the Service is announced, but no range of serviceLoadBalancerIPs holds this address";
    assert_eq!(notes(&live, address), [format!("no 198.51.100.7 load balancer IP ns/web: {outside}")]);
    let no_list = "the Service is announced, but BGPConfiguration default has no serviceClusterIPs";
    assert_eq!(notes(&live, "10.96.0.20/32"), [format!("no 10.96.0.20 cluster IP ns/web: {no_list}")]);
    assert!(notes(&live, "192.0.2.1/32").is_empty(), "nobody's address");
}

#[test]
fn explain_of_a_range_names_a_hundred_addresses_and_counts_the_rest() {
    let mut all = [node("a", "10.0.0.1", "", "node.kubernetes.io/exclude-from-external-load-balancers: \"true\""), enabled()].concat();
    for number in 1..=120 {
        all += &service(&format!("s{number}"), &CLUSTER.replace("10.96.0.20", &format!("10.96.1.{number}")), &[]);
    }
    let live = Live::new(&all);
    let notes = notes(&live, "10.96.0.0/12");
    assert_eq!(notes[0], "no 10.96.0.0/12 of serviceClusterIPs: this node is labelled exclude-from-external-load-balancers");
    assert_eq!((notes.len(), notes[101].as_str()), (102, "20 more"));
}
