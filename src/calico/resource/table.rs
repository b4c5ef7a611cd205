//! The table of fields in the documentation of `calico::resource`: its rows, and the tests that hold it against the code.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::calico::Problem;

/// Kind, field, what it does.
type Row = (&'static str, &'static str, &'static str);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("BGPConfiguration", "spec.logSeverityScreen", "level of the log, live (Trace is the most verbose); `node.NAME` before `default`; `BGP_LOGSEVERITYSCREEN` before both, `--log-level` before everything"),
    ("BGPConfiguration", "spec.nodeToNodeMeshEnabled", "`default` only: a session between all nodes that are no reflectors; on unless false"),
    ("BGPConfiguration", "spec.asNumber", "`default` only: AS of each node that has none; 64512 unless set"),
    ("BGPConfiguration", "spec.serviceClusterIPs[].cidr", "`default` only: announced, kept out of the kernel; cluster IPs of Services that are announced one by one"),
    ("BGPConfiguration", "spec.serviceExternalIPs[].cidr", "`default` only: announced and kept out of the kernel if it is a range; the external IPs that may be announced"),
    ("BGPConfiguration", "spec.serviceLoadBalancerIPs[].cidr", "`default` only: announced and kept out of the kernel if it is a range and aggregated; the load balancer addresses that may be announced"),
    ("BGPConfiguration", "spec.serviceLoadBalancerAggregation", "`default` only: Disabled announces each address instead of the range"),
    ("BGPConfiguration", "spec.communities[].name", "a name for a community in prefixAdvertisements of the same object"),
    ("BGPConfiguration", "spec.communities[].value", "`aa:nn` or `aa:nn:mm`"),
    ("BGPConfiguration", "spec.prefixAdvertisements[].cidr", "routes inside get the communities; the list of `node.NAME`, if it is there at all, in place of that of `default`"),
    ("BGPConfiguration", "spec.prefixAdvertisements[].communities", "communities, or names of them"),
    ("BGPConfiguration", "spec.listenPort", "port that the node listens on, and that others connect to; `node.NAME` before `default`; 179 unless set"),
    ("BGPConfiguration", "spec.nodeMeshPassword.secretKeyRef", "`default` only: TCP-MD5 key of the mesh: name, key and optional, as in BGPPeer"),
    ("BGPConfiguration", "spec.nodeMeshMaxRestartTime", "`default` only: restart time in the OPEN to mesh peers, whole seconds up to 4095; 120 s unless set"),
    (
        "BGPConfiguration",
        "spec.bindMode",
        "`default` only: NodeIP listens on the node's BGP addresses alone; a problem of level info says that local workloads cannot reach their peering address then",
    ),
    ("BGPConfiguration", "spec.ignoredInterfaces", "`default` only: interfaces whose subnets are no device routes, before `cali*` and `kube-ipvs*`"),
    ("BGPConfiguration", "spec.localWorkloadPeeringIPV4", "nothing: Felix puts it on the interfaces of workloads that peer"),
    ("BGPConfiguration", "spec.localWorkloadPeeringIPV6", "nothing: as its IPv4 sister"),
    ("BGPConfiguration", "spec.programClusterRoutes", "`default` only: which pools' routes margay writes into the kernel; EnabledNoEncapOnly unless set"),
    ("BGPConfiguration", "spec.ipv4NormalRoutePriority", "`default` only: metric of an ordinary route; LOCAL_PREF is 2147483647 less the metric; 1024 unless set"),
    ("BGPConfiguration", "spec.ipv6NormalRoutePriority", "`default` only: the same for IPv6"),
    ("BGPPeer", "spec.node", "the one node that the session is made on; nodeSelector is before it; neither: every node"),
    ("BGPPeer", "spec.nodeSelector", "the nodes that the session is made on"),
    ("BGPPeer", "spec.peerIP", "address of the peer, with port or `%interface` if need be"),
    ("BGPPeer", "spec.asNumber", "AS of the peer; needed with peerIP and localWorkloadSelector"),
    ("BGPPeer", "spec.localASNumber", "AS that we use on the session; not with peerSelector"),
    ("BGPPeer", "spec.peerSelector", "the peers are these Nodes, at each of their addresses"),
    ("BGPPeer", "spec.localWorkloadSelector", "the peers are workloads of the node that Felix names in endpoint-status; always passive"),
    ("BGPPeer", "spec.keepOriginalNextHop", "next hops stay as they are on eBGP; only where nextHopMode is not set"),
    ("BGPPeer", "spec.nextHopMode", "Auto, Self or Keep"),
    ("BGPPeer", "spec.password.secretKeyRef.name", "Secret with the TCP-MD5 key, in `NAMESPACE`"),
    ("BGPPeer", "spec.password.secretKeyRef.key", "key in that Secret; the session waits until it is there"),
    ("BGPPeer", "spec.password.secretKeyRef.optional", "without the key the session runs without TCP-MD5"),
    ("BGPPeer", "spec.sourceAddress", "UseNodeIP: the session starts at the node's address; None: the kernel chooses"),
    ("BGPPeer", "spec.maxRestartTime", "restart time in our OPEN, whole seconds up to 4095; 120 s unless set"),
    ("BGPPeer", "spec.keepaliveTime", "pause between keepalives, whole seconds; a third of the hold time unless set"),
    ("BGPPeer", "spec.numAllowedLocalASNumbers", "how often our AS may be in a path; with peerIP only"),
    ("BGPPeer", "spec.ttlSecurity", "GTSM: packets must have come at most that many hops"),
    ("BGPPeer", "spec.reachableBy", "a host route to the peer through this gateway"),
    ("BGPPeer", "spec.filters", "BGPFilters in order, before Calico's own policy; one that is missing is named and restricts nothing"),
    ("BGPPeer", "spec.reversePeering", "Manual: the selected peers do not peer back by this object"),
    ("BGPFilter", "spec.exportV4", "rules for what IPv4 sessions send, in order"),
    ("BGPFilter", "spec.importV4", "rules for what IPv4 sessions receive"),
    ("BGPFilter", "spec.exportV6", "rules for what IPv6 sessions send"),
    ("BGPFilter", "spec.importV6", "rules for what IPv6 sessions receive"),
    ("BGPFilter", "rule.cidr", "prefix to compare with; canonicalised, with a problem of level info"),
    ("BGPFilter", "rule.matchOperator", "Equal, NotEqual, In, NotIn"),
    ("BGPFilter", "rule.prefixLength.min", "least length"),
    ("BGPFilter", "rule.prefixLength.max", "greatest length"),
    ("BGPFilter", "rule.source", "RemotePeers: learned over BGP"),
    ("BGPFilter", "rule.interface", "shell-like pattern of the outgoing interface"),
    ("BGPFilter", "rule.peerType", "eBGP or iBGP: the rule is for such sessions only"),
    ("BGPFilter", "rule.communities.values", "the one community that the route carries"),
    ("BGPFilter", "rule.asPathPrefix", "ASes that the path begins with"),
    ("BGPFilter", "rule.priority", "priority of the route"),
    ("BGPFilter", "rule.action", "Accept or Reject; either ends the evaluation of everything"),
    ("BGPFilter", "rule.operations[].addCommunity.value", "adds a community"),
    ("BGPFilter", "rule.operations[].prependASPath.prefix", "prepends, in the written order"),
    ("BGPFilter", "rule.operations[].setPriority.value", "sets the priority"),
    ("IPPool", "spec.cidr", "what is inside may be exported; canonicalised, with a problem of level info"),
    ("IPPool", "spec.ipipMode", "Always, CrossSubnet: routes through `tunl0` where programClusterRoutes leaves them to margay"),
    ("IPPool", "spec.vxlanMode", "any but Never: the routes are Felix's"),
    ("IPPool", "spec.disableBGPExport", "nothing inside is exported"),
    ("IPPool", "spec.natOutgoing", "nothing: Felix's"),
    ("IPPool", "spec.disabled", "nothing: IPAM's; the pool counts all the same"),
    ("IPPool", "spec.blockSize", "nothing: IPAM's"),
    ("IPPool", "spec.nodeSelector", "nothing: IPAM's"),
    ("IPPool", "spec.namespaceSelector", "nothing: IPAM's"),
    ("IPPool", "spec.serviceSelector", "nothing: IPAM's"),
    ("IPPool", "spec.assignmentMode", "nothing: IPAM's"),
    ("IPPool", "spec.allowedUses", "nothing: a pool for load balancers counts like any other"),
    ("Node", "metadata.labels", "what selectors look at; `node.kubernetes.io/exclude-from-external-load-balancers: true` announces no service"),
    ("Node", "spec.bgp.ipv4Address", "BGP address and subnet; without it the node has no IPv4 sessions"),
    ("Node", "spec.bgp.ipv6Address", "the same for IPv6"),
    ("Node", "spec.bgp.asNumber", "AS of the node"),
    ("Node", "spec.bgp.routeReflectorClusterID", "the node reflects for this cluster, and is not in the mesh"),
    ("Node", "spec.bgp.ipv4IPIPTunnelAddr", "nothing: Felix puts it on `tunl0`"),
    ("Node", "spec.wireguard.interfaceIPv4Address", "set on both ends: routes to that node are Felix's"),
    ("Node", "spec.wireguard.interfaceIPv6Address", "the same for IPv6"),
    ("Node", "spec.orchRefs[].nodeName", "name in EndpointSlices, where `CALICO_K8S_NODE_REF` is not set"),
    ("Node", "spec.orchRefs[].orchestrator", "only `k8s` counts"),
    ("Node", "spec.addresses", "nothing"),
    ("Node", "spec.interfaces", "nothing"),
    ("Node", "spec.ipv4VXLANTunnelAddr", "nothing: Felix's"),
    ("Node", "spec.ipv6VXLANTunnelAddr", "nothing: Felix's"),
    ("Node", "spec.vxlanTunnelMACAddr", "nothing: Felix's"),
    ("Node", "spec.vxlanTunnelMACAddrV6", "nothing: Felix's"),
    ("BlockAffinity", "spec.node", "whose block it is"),
    ("BlockAffinity", "spec.cidr", "the block: a blackhole, announced in place of its addresses"),
    ("BlockAffinity", "spec.state", "pending: ignored; pendingDeletion: the blackhole stays, its addresses are announced one by one"),
    ("BlockAffinity", "spec.type", "any but `host`: ignored"),
    ("BlockAffinity", "spec.deleted", "true: ignored"),
    ("Secret", "data", "TCP-MD5 keys in base64, used verbatim"),
    ("Secret", "stringData", "the same as plain text; before data"),
    ("Service", "spec.type", "ClusterIP, NodePort and LoadBalancer have addresses to announce"),
    ("Service", "spec.clusterIP", "`None` or empty: nothing is announced"),
    ("Service", "spec.clusterIPs", "announced if serviceClusterIPs is not empty"),
    ("Service", "spec.externalIPs", "announced if inside serviceExternalIPs"),
    ("Service", "spec.loadBalancerIP", "makes the Service count where the list has this address by itself"),
    ("Service", "spec.ipFamilies", "families of the EndpointSlices that count"),
    ("Service", "spec.externalTrafficPolicy", "Local: announced by nodes with a ready endpoint alone"),
    ("Service", "status.loadBalancer.ingress[].ip", "announced if inside serviceLoadBalancerIPs"),
    ("EndpointSlice", "metadata.labels.kubernetes.io/service-name", "the Service; without it the slice counts for none"),
    ("EndpointSlice", "addressType", "must be a family of the Service"),
    ("EndpointSlice", "endpoints[].nodeName", "where the endpoint is"),
    ("EndpointSlice", "endpoints[].conditions.ready", "false: the endpoint does not count"),
    ("CalicoNodeStatus", "spec.node", "whose status is filled, in etcd and the Kubernetes API; in files: named at level info, not filled"),
    ("CalicoNodeStatus", "spec.classes", "what it says: Agent, BGP, Routes; another one is left out"),
    ("CalicoNodeStatus", "spec.updatePeriodSeconds", "how often, 86400 at most; 0: once after each change; absent: the object is refused"),
];

/// A document of each kind with every field of the table.
fn samples() -> Vec<(&'static str, Value)> {
    let rule = json!([{
        "cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": { "min": 24, "max": 32 }, "source": "RemotePeers", "interface": "eth0",
        "peerType": "eBGP", "communities": { "values": ["1:1"] }, "asPathPrefix": [1], "priority": 1, "action": "Accept",
        "operations": [{ "addCommunity": { "value": "1:1" } }, { "prependASPath": { "prefix": [1] } }, { "setPriority": { "value": 1 } }],
    }]);
    let reference = json!({ "secretKeyRef": { "name": "s", "key": "k", "optional": true } });
    let lists = json!([{ "cidr": "10.96.0.0/12" }]);
    vec![
        (
            "BGPConfiguration",
            json!({ "spec": {
            "logSeverityScreen": "Trace", "nodeToNodeMeshEnabled": true, "asNumber": 64512, "serviceClusterIPs": lists,
            "serviceExternalIPs": lists, "serviceLoadBalancerIPs": lists, "serviceLoadBalancerAggregation": "Enabled",
            "communities": [{ "name": "x", "value": "1:1" }], "prefixAdvertisements": [{ "cidr": "10.0.0.0/8", "communities": ["x"] }],
            "listenPort": 179, "nodeMeshPassword": reference, "nodeMeshMaxRestartTime": "1s", "bindMode": "None", "ignoredInterfaces": ["x"],
            "localWorkloadPeeringIPV4": "10.0.0.1", "localWorkloadPeeringIPV6": "fe80::1", "programClusterRoutes": "Enabled",
            "ipv4NormalRoutePriority": 1024, "ipv6NormalRoutePriority": 1024,
        } }),
        ),
        (
            "BGPPeer",
            json!({ "spec": {
            "node": "a", "peerIP": "192.0.2.1", "asNumber": 1, "localASNumber": 2, "keepOriginalNextHop": true, "password": reference,
            "sourceAddress": "None", "maxRestartTime": "1s", "keepaliveTime": "1s", "numAllowedLocalASNumbers": 1, "ttlSecurity": 1,
            "reachableBy": "192.0.2.2", "filters": ["f"], "reversePeering": "Auto",
        } }),
        ),
        ("BGPPeer", json!({ "spec": { "nodeSelector": "all()", "peerSelector": "all()", "nextHopMode": "Self" } })),
        ("BGPPeer", json!({ "spec": { "localWorkloadSelector": "all()", "asNumber": 1 } })),
        ("BGPFilter", json!({ "spec": { "exportV4": rule, "importV4": [], "exportV6": [], "importV6": [] } })),
        (
            "IPPool",
            json!({ "spec": {
            "cidr": "10.0.0.0/8", "ipipMode": "Never", "vxlanMode": "Never", "disableBGPExport": false, "natOutgoing": true, "disabled": true,
            "blockSize": 26, "nodeSelector": "all()", "namespaceSelector": "all()", "serviceSelector": "all()", "assignmentMode": "Automatic",
            "allowedUses": ["Workload"],
        } }),
        ),
        (
            "Node",
            json!({ "metadata": { "labels": { "a": "b" } }, "spec": {
            "bgp": {
                "ipv4Address": "10.0.0.1/24", "ipv6Address": "fd00::1/64", "asNumber": 1, "routeReflectorClusterID": "1.1.1.1",
                "ipv4IPIPTunnelAddr": "10.0.0.9",
            },
            "wireguard": { "interfaceIPv4Address": "10.0.0.8", "interfaceIPv6Address": "fd00::8" },
            "orchRefs": [{ "nodeName": "a", "orchestrator": "k8s" }], "addresses": [], "interfaces": [], "ipv4VXLANTunnelAddr": "10.0.0.7",
            "ipv6VXLANTunnelAddr": "fd00::7", "vxlanTunnelMACAddr": "x", "vxlanTunnelMACAddrV6": "x",
        } }),
        ),
        (
            "BlockAffinity",
            json!({ "spec": { "node": "a", "cidr": "10.0.0.0/26", "state": "confirmed", "type": "host", "deleted": "false" } }),
        ),
        ("Secret", json!({ "data": { "k": "eA==" }, "stringData": { "k": "x" } })),
        (
            "Service",
            json!({
                "spec": {
                    "type": "LoadBalancer", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "externalIPs": ["10.0.0.1"],
                    "loadBalancerIP": "10.0.0.2", "ipFamilies": ["IPv4"], "externalTrafficPolicy": "Local",
                },
                "status": { "loadBalancer": { "ingress": [{ "ip": "10.0.0.2" }] } },
            }),
        ),
        (
            "EndpointSlice",
            json!({
                "metadata": { "labels": { "kubernetes.io/service-name": "web" } }, "addressType": "IPv4",
                "endpoints": [{ "nodeName": "a", "conditions": { "ready": true } }],
            }),
        ),
        ("CalicoNodeStatus", json!({ "spec": { "node": "a", "classes": ["BGP"], "updatePeriodSeconds": 10 } })),
    ]
}

fn problems(kind: &str, object: Value) -> Vec<Problem> {
    let key = ResourceKey { kind: kind.to_owned(), namespace: String::new(), name: "default".to_owned() };
    let document = Document::new(object, "sample");
    let mut report = Report::new(&key, &document);
    decode(&key, &document, &mut report);
    report.into_problems()
}

/// Fields of a document, lists as `[]`; not below what the table speaks of as one.
fn fields(kind: &str, path: &str, value: &Value, found: &mut BTreeSet<String>) {
    let row = path.strip_suffix("[]").unwrap_or(path);
    if ROWS.iter().any(|(of, field, _)| *of == kind && *field == row && *field != "spec.exportV4") {
        found.insert(row.to_owned());
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                fields(kind, &format!("{path}.{name}").trim_start_matches('.').replace("spec.exportV4[].", "rule."), value, found);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            found.extend((path == "spec.exportV4").then(|| path.to_owned()));
            items.iter().for_each(|item| fields(kind, &format!("{path}[]"), item, found));
        }
        _ => drop(found.insert(row.to_owned())),
    }
}

fn markdown() -> String {
    let mut text = "| kind | field | does what |\n|---|---|---|\n".to_owned();
    for (kind, field, does) in ROWS {
        text += &format!("| {kind} | `{field}` | {does} |\n");
    }
    text
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test compares a file of the repository")]
fn the_documentation_has_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/calico/resource/fields.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, markdown()).unwrap();
    }
    assert!(std::fs::read_to_string(path).unwrap() == markdown(), "fields.md differs from the rows here; BLESS=1 writes it anew");
}

#[test]
fn every_field_of_the_table_is_read_and_no_other() {
    let mut found = BTreeSet::new();
    for (kind, object) in samples() {
        let mut of_sample = BTreeSet::new();
        fields(kind, "", &object, &mut of_sample);
        found.extend(of_sample.into_iter().map(|field| (kind, field)));
        let unknown: Vec<String> = problems(kind, object).iter().map(ToString::to_string).collect();
        assert!(unknown.is_empty(), "{kind}: {unknown:#?}");
    }
    let table: BTreeSet<(&str, String)> = ROWS.iter().map(|(kind, field, _)| (*kind, (*field).to_owned())).collect();
    assert_eq!(table.len(), ROWS.len(), "each once");
    assert_eq!(found, table);
}

/// What the decoders ask for is in the table: the names are taken from their text.
#[test]
fn every_field_that_the_code_reads_is_in_the_table() {
    let sources = [
        ("BGPConfiguration", include_str!("bgp_configuration.rs")),
        ("BGPPeer", include_str!("bgp_peer.rs")),
        ("IPPool", include_str!("ip_pool.rs")),
        ("Node", include_str!("node.rs")),
        ("BlockAffinity", include_str!("block_affinity.rs")),
        ("Service", include_str!("service.rs")),
        ("EndpointSlice", include_str!("endpoint_slice.rs")),
        ("CalicoNodeStatus", include_str!("node_status.rs")),
    ];
    let mut asked = 0;
    for (kind, source) in sources {
        for part in source.split("report, \"").skip(1) {
            let name = part.split('"').next().unwrap();
            if name.contains(['.', '[', ' ']) || ["spec", "asNumber or", "metadata"].contains(&name) {
                continue;
            }
            asked += 1;
            let parts = |field: &str| field.split(['.', '[']).any(|part| part == name);
            assert!(ROWS.iter().any(|(of, field, _)| *of == kind && parts(field)), "{kind} reads {name}, which the table lacks");
        }
    }
    assert!(asked > 50, "the decoders are written differently now: {asked}");
}

#[test]
fn fields_that_nobody_has_are_named() {
    for (kind, mut object) in samples().into_iter().filter(|(kind, _)| !["Service", "Secret", "EndpointSlice"].contains(kind)) {
        object["spec"]["nonsense"] = json!(1);
        let found = problems(kind, object);
        let named = |problem: &Problem| problem.field == "spec.nonsense" && problem.severity == crate::calico::Severity::Info;
        assert!(found.len() == 1 && named(&found[0]), "{kind}: {found:?}");
    }
    let rule = json!({ "spec": { "importV4": [{ "action": "Accept", "nonsense": 1, "prefixLength": { "most": 3 }, "cidr": "10.0.0.0/8", "matchOperator": "In" }] } });
    let named: Vec<String> = problems("BGPFilter", rule).into_iter().map(|problem| problem.field).collect();
    assert_eq!(named, ["spec.importV4[0].nonsense", "spec.importV4[0].prefixLength.most"]);
}
