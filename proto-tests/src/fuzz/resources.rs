//! Resource files: any text is read into resources and problems, and compiles to the same configuration every time.

use std::time::Instant;

use margay::calico::{Compiler, Environment};
use margay::datastore::{FileText, parse_texts};

/// See the module.
pub fn body(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    let file = FileText { file: "fuzz.yaml".to_owned(), text };
    let (documents, problems) = parse_texts(std::slice::from_ref(&file));
    assert!(problems.iter().all(|problem| !problem.to_string().is_empty()));
    let now = Instant::now();
    let propose = |documents: Vec<_>| {
        let compiler = Compiler::new("node1".to_owned(), Environment::default());
        let (config, problems) = compiler.propose(now, documents, Vec::new(), true);
        (config, problems.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let there = propose(documents.clone());
    let backwards = propose(documents.into_iter().rev().collect());
    assert_eq!(there, backwards, "the order of documents says nothing: {}", file.text);
}

/// One of each kind that margay acts on.
pub fn seeds() -> Vec<Vec<u8>> {
    let documents = [
        "kind: Node\nmetadata: {name: node1, labels: {rack: a}}\nspec: {bgp: {ipv4Address: 172.20.0.1/24, ipv6Address: 'fd00::1/64', asNumber: 64512, routeReflectorClusterID: 1.0.0.1}, orchRefs: [{nodeName: n, orchestrator: k8s}]}\n",
        "kind: Node\nmetadata: {name: node2}\nspec: {bgp: {ipv4Address: 172.20.0.2/24, ipv4IPIPTunnelAddr: 10.244.2.1}}\n",
        "kind: BGPConfiguration\nmetadata: {name: default, annotations: {margay.io/bfd: 50ms*3 single-hop}}\nspec: {asNumber: 64512, nodeToNodeMeshEnabled: true, listenPort: 179, serviceClusterIPs: [{cidr: 10.96.0.0/12}], communities: [{name: c, value: '65000:1'}], prefixAdvertisements: [{cidr: 10.244.0.0/16, communities: [c]}], nodeMeshMaxRestartTime: 120s}\n",
        "kind: BGPPeer\nmetadata: {name: tor}\nspec: {peerIP: '172.20.0.254:1790', asNumber: 65000, nodeSelector: has(rack), filters: [f], keepOriginalNextHop: true, maxRestartTime: 1h, ttlSecurity: 1, reachableBy: 172.20.0.9, password: {secretKeyRef: {name: s, key: k}}}\n",
        "kind: BGPPeer\nmetadata: {name: rr}\nspec: {peerSelector: 'rack == \"a\"', numAllowedLocalASNumbers: 2}\n",
        "kind: BGPFilter\nmetadata: {name: f}\nspec: {exportV4: [{action: Accept, matchOperator: In, cidr: 10.0.0.0/8, prefixLength: {min: 16, max: 26}}, {action: Reject}], importV6: [{action: Accept, source: RemotePeers, interface: 'eth*'}]}\n",
        "kind: IPPool\nmetadata: {name: p}\nspec: {cidr: 10.244.0.0/16, ipipMode: CrossSubnet, blockSize: 26, disabled: false, disableBGPExport: false}\n",
        "kind: BlockAffinity\nmetadata: {name: b}\nspec: {node: node1, cidr: 10.244.1.0/26, state: confirmed}\n",
        "kind: Secret\nmetadata: {name: s, namespace: kube-system}\ndata: {k: aHVudGVyMg==}\n",
        "kind: Service\nmetadata: {name: web, namespace: ns}\nspec: {type: LoadBalancer, externalTrafficPolicy: Local, clusterIP: 10.96.0.1}\nstatus: {loadBalancer: {ingress: [{ip: 198.51.100.7}]}}\n",
        "{\"kind\": \"List\", \"items\": [{\"kind\": \"Node\", \"metadata\": {\"name\": \"node1\"}, \"spec\": {\"bgp\": {\"ipv4Address\": \"10.0.0.1/24\"}}}]}\n",
    ];
    let mut seeds: Vec<Vec<u8>> = documents.iter().map(|text| text.as_bytes().to_vec()).collect();
    seeds.push(documents[..10].join("---\n").into_bytes());
    seeds
}
