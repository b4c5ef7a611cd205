//! Documents that are wrong, kind by kind: the problem that names them, and what is done instead. Whatever it is, the rest of the
//! cluster goes on: node `a` keeps its session with node `b`.

use crate::cluster::{Cluster, node};

/// A document beside two good nodes, and how its problems differ from those wanted (each a part of one line, in order), if they do.
fn told(document: &str, problems: &[&str]) -> (Cluster, Option<String>) {
    let good = [node("a", "10.0.0.1", "", ""), node("b", "10.0.0.2", "", "")].concat();
    let cluster = Cluster::new(&[&good, "---\n", document].concat());
    assert!(cluster.config("a").peers.contains_key("Mesh_10_0_0_2"), "{document}");
    let found = cluster.problems("a");
    let all = found.len() == problems.len() && found.iter().zip(problems).all(|(found, part)| found.contains(part));
    let difference = format!("{}\nwanted {problems:#?}\nfound {found:#?}", &document[..document.len().min(300)]);
    (cluster, (!all).then_some(difference))
}

/// A document gives these problems and no others.
#[track_caller]
fn gives(document: &str, problems: &[&str]) -> Cluster {
    let (cluster, difference) = told(document, problems);
    assert_eq!(difference, None);
    cluster
}

/// So does each of many.
#[track_caller]
fn each_gives(rows: &[(&str, &[&str])], document: impl Fn(&str) -> String) {
    let wrong: Vec<String> = rows.iter().filter_map(|(spec, problems)| told(&document(spec), problems).1).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn default(spec: &str) -> String {
    format!("kind: BGPConfiguration\nmetadata: {{name: default}}\nspec: {spec}\n")
}

fn object(kind: &str, spec: &str) -> String {
    format!("kind: {kind}\nmetadata: {{name: x}}\nspec: {spec}\n")
}

#[test]
fn bgp_configuration() {
    each_gives(
        &[
            ("{asNumber: soon}", &["spec.asNumber: "]),
            ("{asNumber: 4294967296}", &["spec.asNumber: "]),
            ("{asNumber: 23456}", &["spec.asNumber: AS 23456 is reserved and may not be used; the field is left out"]),
            ("{asNumber: -1}", &["spec.asNumber: -1 is no AS number"]),
            ("{asNumber: 1.1}", &["one in dotted form must be quoted"]),
            ("{asNumber: 0}", &["spec.asNumber: 0 stands for no value; read as if the field were not there"]),
            ("{listenPort: 65536}", &["spec.listenPort: 65536 is not a whole number from 0 to 65535; the field is left out"]),
            ("{listenPort: x}", &["spec.listenPort: \"x\" is not a whole number"]),
            ("{listenPort: 0}", &["spec.listenPort: 0 stands for no value; read as if the field were not there"]),
            ("{nodeToNodeMeshEnabled: perhaps}", &["spec.nodeToNodeMeshEnabled: "]),
            ("{nodeToNodeMeshEnabled: [false]}", &["spec.nodeToNodeMeshEnabled: "]),
            ("{serviceClusterIPs: 10.0.0.0/8}", &["spec.serviceClusterIPs: is no list; the field is left out"]),
            (
                "{serviceClusterIPs: [{cidr: 10.0.0.0/33}]}",
                &["spec.serviceClusterIPs[0].cidr: `10.0.0.0/33` is no CIDR; this entry is left out"],
            ),
            ("{serviceExternalIPs: [{cidr: 10.0.0.1}]}", &["`10.0.0.1` is no CIDR"]),
            ("{serviceLoadBalancerIPs: [{cidr: 10.1.2.3/16}]}", &["has host bits set; read as 10.1.0.0/16"]),
            ("{serviceLoadBalancerAggregation: Sometimes}", &["`Sometimes` is none of Enabled, Disabled; the field is left out"]),
            ("{bindMode: Somewhere}", &["`Somewhere` is none of None, NodeIP; the field is left out"]),
            (
                "{programClusterRoutes: Some}",
                &["`Some` is none of Enabled, Disabled, EnabledIPIPOnly, EnabledNoEncapOnly; EnabledNoEncapOnly applies"],
            ),
            ("{ipv4NormalRoutePriority: 2147483647}", &["is not a whole number from 0 to 2147483646; the field is left out"]),
            ("{ipv6NormalRoutePriority: 0}", &["spec.ipv6NormalRoutePriority: 0 stands for no value; read as if the field were not there"]),
            ("{nodeMeshMaxRestartTime: soon}", &["`soon` is no duration (such as 90s or 2m0s); the field is left out"]),
            (
                "{communities: [{name: x, value: many}]}",
                &["spec.communities[0].value: `many` is no community; the name stands for nothing"],
            ),
            (
                "{prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: [nobody]}]}",
                &["spec.prefixAdvertisements[0].communities[0]: `nobody` is no community and no name of one in this object; left out"],
            ),
            (
                "{logSeverityScreen: Loud}",
                &["spec.logSeverityScreen: `Loud` is none of Trace, Debug, Info, Warning, Error, Fatal; the field is left out"],
            ),
            ("{ignoredInterfaces: eth0}", &["spec.ignoredInterfaces: "]),
            ("[]", &["spec: is no object; the field is left out"]),
        ],
        default,
    );
    gives("kind: BGPConfiguration\nmetadata: {name: mine}\nspec: {}\n", &["only `default` and `node.<name>` have a meaning; ignored"]);
}

#[test]
fn bgp_peer() {
    each_gives(
        &[
            ("{}", &["peerIP, peerSelector or localWorkloadSelector must be given; no session is made of this BGPPeer"]),
            (
                "{peerIP: 192.0.2.1}",
                &["spec.asNumber: must be given together with peerIP, and not be 0; no session is made of this BGPPeer"],
            ),
            ("{peerIP: 192.0.2.1, asNumber: 0}", &["spec.asNumber: must be given together with peerIP, and not be 0"]),
            ("{peerIP: 192.0.2.1, asNumber: 65535}", &["AS 65535 is reserved and may not be used; the resource is left out"]),
            ("{peerIP: nowhere, asNumber: 1}", &["spec.peerIP: `nowhere` is no address with or without a port; no session is made"]),
            ("{peerIP: \"192.0.2.1:65536\", asNumber: 1}", &["is no address with or without a port"]),
            ("{peerIP: \"192.0.2.1:0\", asNumber: 1}", &["spec.peerIP: port 0 is no port; the port that is usual for the peer is used"]),
            ("{peerIP: \"192.0.2.1:\", asNumber: 1}", &["is no address with or without a port"]),
            ("{peerIP: 192.0.2.0/24, asNumber: 1}", &["is no address with or without a port"]),
            ("{peerIP: \"fe80::1\", asNumber: 1}", &["is link-local and needs an interface"]),
            (
                "{peerIP: [192.0.2.1], asNumber: 1}",
                &["spec: peerIP, peerSelector or", "spec.peerIP: invalid type: sequence, expected text"],
            ),
            (
                "{nodeSelector: \"rack = 'a'\", peerIP: 192.0.2.1, asNumber: 1}",
                &["`rack = 'a'` is no selector: it goes wrong at `= 'a'`; it selects no node"],
            ),
            ("{peerSelector: \"has(\"}", &["`has(` is no selector"]),
            ("{peerIP: 192.0.2.1, asNumber: 1, nextHopMode: Other}", &["`Other` is none of"]),
            ("{peerIP: 192.0.2.1, asNumber: 1, sourceAddress: Mine}", &["`Mine` is none of UseNodeIP, None; the resource is left out"]),
            (
                "{peerIP: 192.0.2.1, asNumber: 1, ttlSecurity: 256}",
                &["spec.ttlSecurity: 256 is not a whole number from 0 to 255; the resource is left out"],
            ),
            ("{peerIP: 192.0.2.1, asNumber: 1, keepaliveTime: 5}", &["`5` is no duration"]),
            ("{peerIP: 192.0.2.1, asNumber: 1, numAllowedLocalASNumbers: -1}", &["-1 is not a whole number"]),
            (
                "{peerIP: 192.0.2.1, asNumber: 1, reachableBy: \"fd00::1\"}",
                &["is not of the family of peerIP; no session is made of this BGPPeer"],
            ),
            ("{peerIP: 192.0.2.1, asNumber: 1, filters: [nobody]}", &["there is no BGPFilter `nobody`; nothing is filtered in its place"]),
            ("{peerIP: 192.0.2.1, asNumber: 1, filters: nobody}", &["spec.filters: "]),
            (
                "{peerIP: 192.0.2.1, asNumber: 1, password: {secretKeyRef: {name: s, key: k}}}",
                &["spec.password: there is no key `k` of Secret `s` in namespace kube-system; the session waits for it"],
            ),
            (
                "{peerIP: 192.0.2.1, asNumber: 1, password: {}}",
                &["spec.password: must name a Secret and a key in it (secretKeyRef); the resource is left out"],
            ),
            ("{peerIP: 192.0.2.1, asNumber: 1, maxRestartTime: 2h}", &["7200 s does not fit the capability; 4095 s is announced"]),
        ],
        |spec| object("BGPPeer", spec),
    );
}

#[test]
fn bgp_filter() {
    each_gives(
        &[
            ("{exportV4: {}}", &["spec: "]),
            ("{exportV4: [{}]}", &["spec.exportV4[0]"]),
            ("{exportV4: [{action: Perhaps}]}", &["spec.exportV4[0].action: "]),
            ("{exportV4: [{action: Accept, cidr: 10.0.0.0/33, matchOperator: In}]}", &["spec.exportV4[0].cidr: "]),
            ("{exportV4: [{action: Accept, cidr: \"fd00::/8\", matchOperator: In}]}", &["spec.exportV4[0].cidr: "]),
            ("{exportV4: [{action: Accept, cidr: 10.0.0.0/8, matchOperator: Near}]}", &["spec.exportV4[0].matchOperator: "]),
            ("{exportV4: [{action: Accept, cidr: 10.1.2.3/8, matchOperator: In}]}", &["info: BGPFilter x: spec.exportV4[0].cidr: "]),
            (
                "{exportV4: [{action: Accept, cidr: 10.0.0.0/16, matchOperator: In, prefixLength: {min: 30, max: 20}}]}",
                &["spec.exportV4[0].prefixLength"],
            ),
            ("{exportV4: [{action: Accept, prefixLength: {min: 8}}]}", &["spec.exportV4[0].prefixLength"]),
            ("{exportV4: [{action: Accept, source: Nobody}]}", &["`Nobody` is no source (RemotePeers)"]),
            ("{exportV4: [{action: Accept, peerType: xBGP}]}", &["spec.exportV4[0].peerType: "]),
            ("{exportV4: [{action: Accept, communities: {values: [x]}}]}", &["spec.exportV4[0].communities"]),
            ("{exportV4: [{action: Accept, priority: 3000000000}]}", &["spec.exportV4[0].priority: "]),
            ("{exportV4: [{action: Reject, operations: [{setPriority: {value: 5}}]}]}", &["spec.exportV4[0].operations"]),
            ("{exportV4: [{action: Accept, operations: [{}]}]}", &["spec.exportV4[0].operations: an operation has exactly one of"]),
            ("{exportV4: [{action: Accept, asPathPrefix: [x]}]}", &["spec.exportV4[0]"]),
        ],
        |spec| object("BGPFilter", spec),
    );
    // Rules that contradict one another are no fault: the first that matches decides.
    gives(&object("BGPFilter", "{exportV4: [{action: Accept}, {action: Reject}]}"), &[]);
}

#[test]
fn ip_pool() {
    each_gives(
        &[
            ("{}", &["spec.cidr: `` is no CIDR; the pool is left out"]),
            ("{cidr: 10.0.0.0/33}", &["spec.cidr: `10.0.0.0/33` is no CIDR; the pool is left out"]),
            ("{cidr: 10.0.0.1/8}", &["has host bits set; read as 10.0.0.0/8"]),
            ("{cidr: 10.0.0.0/8, ipipMode: Often}", &["`Often` is none of Always, CrossSubnet, Never; read as Never"]),
            ("{cidr: 10.0.0.0/8, vxlanMode: Often}", &["`Often` is none of Always, CrossSubnet, Never; read as Never"]),
            ("{cidr: 10.0.0.0/8, disableBGPExport: perhaps}", &["spec.disableBGPExport: "]),
            ("{cidr: {}}", &["spec.cidr: `` is no CIDR", "spec.cidr: invalid type: map, expected text"]),
        ],
        |spec| object("IPPool", spec),
    );
    let twice = object("IPPool", "{cidr: 10.0.0.0/8}") + "---\nkind: IPPool\nmetadata: {name: z}\nspec: {cidr: 10.0.0.0/8}\n";
    gives(&twice, &["IPPool z: spec.cidr: IPPool x has the same cidr; the pool whose name is lowest counts, this one is left out"]);
    // Pools inside pools are no fault: the longest decides.
    gives(&(object("IPPool", "{cidr: 10.0.0.0/8}") + "---\nkind: IPPool\nmetadata: {name: z}\nspec: {cidr: 10.1.0.0/16}\n"), &[]);
}

#[test]
fn a_node() {
    each_gives(
        &[
            (
                "{bgp: {ipv4Address: 10.0.0}}",
                &["spec.bgp.ipv4Address: `10.0.0` is no address of this family; the node has no address of it"],
            ),
            ("{bgp: {ipv4Address: \"fd00::1\"}}", &["is no address of this family"]),
            ("{bgp: {ipv6Address: 0.0.0.0}}", &["is no address of this family"]),
            ("{bgp: {ipv4Address: 10.0.0.9/99}}", &["is no address of this family"]),
            ("{bgp: []}", &["spec.bgp: is no object; the field is left out"]),
            ("{bgp: {asNumber: x}}", &["spec.bgp.asNumber: "]),
            ("{bgp: {routeReflectorClusterID: one}}", &["`one` is no cluster identifier (a dotted quad); the field is left out"]),
            ("{bgp: {ipv4Address: 10.0.0.1/24}}", &["10.0.0.1 is the address of another Node too; no session is made with this one"]),
            ("3", &["spec: is no object; the field is left out"]),
            ("{orchRefs: x}", &["spec.orchRefs: is no list; the field is left out"]),
        ],
        |spec| object("Node", spec),
    );
    gives("kind: Node\nmetadata: {name: x, labels: [a]}\nspec: {}\n", &["metadata.labels: "]);
}

#[test]
fn block_affinity() {
    each_gives(
        &[
            ("{}", &["node and cidr must be given; no block is made of it"]),
            ("{node: a}", &["node and cidr must be given; no block is made of it"]),
            ("{node: [a], cidr: 10.0.0.0/26}", &["node and cidr must be given", "spec.node: "]),
            ("{node: a, cidr: 10.0.0.0/33}", &["`10.0.0.0/33` is no CIDR; no block is made of it"]),
            ("{node: a, cidr: here}", &["`here` is no CIDR; no block is made of it"]),
            (
                "{node: a, cidr: 10.0.0.0/26, state: perhaps}",
                &["`perhaps` is none of confirmed, pending, pendingDeletion; the resource is left out"],
            ),
        ],
        |spec| object("BlockAffinity", spec),
    );
}

#[test]
fn secret() {
    gives(
        "kind: Secret\nmetadata: {name: x, namespace: kube-system}\ndata: {k: \"!\"}\n",
        &["data.k: is no base64; the key counts as missing"],
    );
    // What may be a secret is not quoted, as other values are.
    for field in ["data", "stringData"] {
        for value in ["[s3cret]", "s3cret", "{k: {s3cret: 1}}"] {
            let document = format!("kind: Secret\nmetadata: {{name: x, namespace: kube-system}}\n{field}: {value}\n");
            let cluster = gives(&document, &[&format!("{field}: is not a map of texts")]);
            assert!(!cluster.problems("a").concat().contains("s3cret"), "{document}");
        }
    }
    let long = "a".repeat(81);
    let document = format!(
        "kind: Secret\nmetadata: {{name: s, namespace: kube-system}}\nstringData: {{k: {long}}}\n---\n{}",
        object("BGPPeer", "{peerIP: 192.0.2.1, asNumber: 1, password: {secretKeyRef: {name: s, key: k}}}")
    );
    gives(&document, &["key `k` of Secret `s` has 81 octets; TCP-MD5 takes 1 to 80; the session waits for a usable key"]);
}

#[test]
fn service_and_slice() {
    each_gives(
        &[
            ("{clusterIP: nowhere}", &["spec.clusterIP: `nowhere` is no IP address; this address is left out"]),
            ("{clusterIPs: 10.96.0.1}", &["spec.clusterIPs: is no list; the resource is left out"]),
            ("{externalIPs: [1]}", &["spec.externalIPs[0]: is no text; this address is left out"]),
            ("{externalTrafficPolicy: Nearby}", &["`Nearby` is neither Cluster nor Local; read as not set"]),
            ("{clusterIP: 10.96.0.0/12}", &["spec.clusterIP: `10.96.0.0/12` is no IP address; this address is left out"]),
            ("{ipFamilies: IPv4}", &["spec.ipFamilies: "]),
            ("[]", &["spec: is no object; the resource is left out"]),
        ],
        |spec| format!("kind: Service\nmetadata: {{name: x, namespace: ns}}\nspec: {spec}\n"),
    );
    each_gives(
        &[
            ("addressType: IPv5", &["addressType: `IPv5` is none of IPv4, IPv6, FQDN; its endpoints count for no Service"]),
            ("addressType: IPv4\nendpoints: {}", &["endpoints: is no list; the resource is left out"]),
            ("addressType: IPv4\nendpoints: [{conditions: {ready: perhaps}}]", &["endpoints[0].conditions.ready: "]),
            ("addressType: IPv4\nendpoints: [{conditions: []}]", &["endpoints[0].conditions: is no object; the resource is left out"]),
        ],
        |fields| {
            format!("kind: EndpointSlice\nmetadata: {{name: x, namespace: ns, labels: {{kubernetes.io/service-name: x}}}}\n{fields}\n")
        },
    );
}

/// Names of a megabyte, in every place that takes one: named, or simply carried along.
#[test]
fn names_of_a_megabyte() {
    let long = "x".repeat(1 << 20);
    for kind in
        ["BGPPeer", "BGPFilter", "IPPool", "Node", "BlockAffinity", "BGPConfiguration", "Secret", "Service", "EndpointSlice", "Nonsense"]
    {
        let spec = "{peerIP: 192.0.2.1, asNumber: 1, cidr: 10.0.0.0/26, node: a}";
        let document = format!("kind: {kind}\nmetadata: {{name: {long}}}\nspec: {spec}\n");
        let good = [node("a", "10.0.0.1", "", ""), node("b", "10.0.0.2", "", "")].concat();
        let cluster = Cluster::new(&[&good, "---\n", &document].concat());
        assert!(cluster.config("a").peers.contains_key("Mesh_10_0_0_2"), "{kind}");
    }
    let fields = format!(
        "{{peerIP: {long}, asNumber: 1, nodeSelector: \"has({long})\", filters: [{long}], password: {{secretKeyRef: {{name: {long}, key: {long}}}}}}}"
    );
    let good = [node("a", "10.0.0.1", "", ""), node("b", "10.0.0.2", "", "")].concat();
    let cluster = Cluster::new(&[&good, "---\n", &object("BGPPeer", &fields)].concat());
    assert!(cluster.config("a").peers.contains_key("Mesh_10_0_0_2") && !cluster.problems("a").is_empty());
}
