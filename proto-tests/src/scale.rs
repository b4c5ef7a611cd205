//! Clusters of any size, made up but typical, for the compile bench and for the tests that count what a compile looks at.
//!
//! Racks of 40 nodes, each with its top-of-rack router; reflectors of zones; a node-to-node mesh beside them; ten blocks a node;
//! a Service for each ten nodes. `node-0` is the node that compiles.

use std::time::Instant;

use margay::calico::{Compiler, Document, Environment, Input, Output, ResourceKey, Work};
use margay::config::NodeConfig;
use margay::types::{Outbox, Sync};
use serde_json::{Value, json};
use std::sync::Arc;

/// How much there is of everything.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Nodes.
    pub nodes: usize,
    /// BGPPeers, all with selectors.
    pub peers: usize,
    /// BGPFilters.
    pub filters: usize,
    /// Block affinities.
    pub blocks: usize,
    /// Services, each with an EndpointSlice.
    pub services: usize,
}

impl Size {
    /// A cluster of that many nodes with all that belongs to it: 200 BGPPeers, 50 filters, ten blocks a node.
    pub fn of(nodes: usize) -> Self {
        Self { nodes, peers: 200, filters: 50, blocks: nodes * 10, services: nodes / 10 }
    }
}

/// A compiler with a cluster in it.
#[derive(Debug)]
pub struct Scale {
    compiler: Compiler,
    now: Instant,
    out: Outbox<Output>,
}

impl Scale {
    /// Tells the whole cluster, but for the end of the telling: the next [`compile`](Self::compile) compiles all of it.
    pub fn told(size: Size) -> Self {
        let mut scale =
            Self { compiler: Compiler::new("node-0".to_owned(), Environment::default()), now: Instant::now(), out: Outbox::new() };
        scale.hear(Sync::Begin);
        for (key, document) in resources(size) {
            scale.hear(Sync::Upsert(key, document));
        }
        scale
    }

    /// Ends the telling: everything is compiled.
    pub fn compile(&mut self) -> Option<Arc<NodeConfig>> {
        self.hear(Sync::End);
        self.said()
    }

    /// Changes one resource, and compiles.
    pub fn change(&mut self, (key, document): (ResourceKey, Document)) -> Option<Arc<NodeConfig>> {
        self.hear(Sync::Upsert(key, document));
        if let Some(due) = self.compiler.deadline() {
            self.now = due;
            self.compiler.on_deadline(due, &mut self.out);
        }
        self.said()
    }

    /// What the last compile looked at.
    pub fn work(&self) -> Work {
        self.compiler.work()
    }

    fn hear(&mut self, word: Sync<ResourceKey, Document>) {
        self.compiler.handle(self.now, Input::Resource(word), &mut self.out);
    }

    fn said(&mut self) -> Option<Arc<NodeConfig>> {
        self.out.drain().last().and_then(|Output::Compiled { config, .. }| config)
    }
}

/// Every resource of the cluster.
pub fn resources(size: Size) -> impl Iterator<Item = (ResourceKey, Document)> {
    let nodes = (0..size.nodes).map(|number| node(number, 0));
    let peers = (0..size.peers).map(move |number| peer(number, size.filters));
    let filters = (0..size.filters).map(filter);
    let blocks = (0..size.blocks).map(move |number| block(number, size.nodes));
    let services = (0..size.services).flat_map(move |number| [service(number), slice(number, number * 7 % size.nodes.max(1))]);
    nodes.chain(peers).chain(filters).chain(blocks).chain(services).chain(common())
}

/// A Node; of another `version` it has another label.
pub fn node(number: usize, version: usize) -> (ResourceKey, Document) {
    let (rack, zone) = (number / 40, number % 10);
    let mut labels = json!({
        "kubernetes.io/hostname": format!("node-{number}"), "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        "topology.kubernetes.io/zone": format!("zone-{zone}"), "rack": format!("rack-{rack}"), "version": version.to_string(),
    });
    if number % 500 == 499 {
        labels["route-reflector"] = json!("true");
    }
    let address = format!("10.{}.{}.{}/24", 128 + number / 10_000, number / 100 % 100, number % 100 + 1);
    document("Node", "", &format!("node-{number}"), json!({ "labels": labels }), json!({ "bgp": { "ipv4Address": address } }))
}

/// Nine of ten are top-of-rack routers, each with a filter; the tenth pairs the nodes of a zone with reflectors.
pub fn peer(number: usize, filters: usize) -> (ResourceKey, Document) {
    let filters: Vec<String> = (filters > 0).then(|| format!("filter-{}", number % filters)).into_iter().collect();
    let spec = if number % 10 == 9 {
        let zone = number / 10 % 10;
        json!({
            "nodeSelector": format!("topology.kubernetes.io/zone == 'zone-{zone}' && !has(route-reflector)"),
            "peerSelector": format!("has(route-reflector) && kubernetes.io/os == 'linux' && rack != 'rack-{number}'"),
            "filters": filters,
        })
    } else {
        json!({
            "nodeSelector": format!("rack in {{'rack-{number}', 'rack-{}'}}", number + 1000),
            "peerIP": format!("192.0.{}.{}", number / 250, number % 250 + 1),
            "asNumber": 65000 + number,
            "filters": filters,
        })
    };
    document("BGPPeer", "", &format!("peer-{number}"), json!({}), spec)
}

fn filter(number: usize) -> (ResourceKey, Document) {
    let rules: Vec<Value> = (0..4)
        .map(|rule| json!({ "cidr": format!("172.{}.{}.0/24", 16 + number % 16, rule), "matchOperator": "In", "action": "Reject" }))
        .collect();
    document("BGPFilter", "", &format!("filter-{number}"), json!({}), json!({ "exportV4": rules, "importV4": rules }))
}

fn block(number: usize, nodes: usize) -> (ResourceKey, Document) {
    let owner = number % nodes.max(1);
    let cidr = format!("10.{}.{}.{}/26", 64 + number / 1024 % 64, number / 4 % 256, number % 4 * 64);
    let spec = json!({ "node": format!("node-{owner}"), "cidr": cidr, "state": "confirmed" });
    document("BlockAffinity", "", &format!("node-{owner}-{number}"), json!({}), spec)
}

fn service(number: usize) -> (ResourceKey, Document) {
    let address = format!("10.97.{}.{}", number / 250, number % 250 + 1);
    let spec = json!({
        "type": "NodePort", "externalTrafficPolicy": "Local", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"],
    });
    document("Service", "default", &format!("service-{number}"), json!({}), spec)
}

/// The EndpointSlice of a Service, with one endpoint.
pub fn slice(service: usize, node: usize) -> (ResourceKey, Document) {
    let key = ResourceKey { kind: "EndpointSlice".to_owned(), namespace: "default".to_owned(), name: format!("service-{service}-x") };
    let object = json!({
        "kind": "EndpointSlice", "metadata": { "labels": { "kubernetes.io/service-name": format!("service-{service}") } },
        "addressType": "IPv4", "endpoints": [{ "nodeName": format!("node-{node}"), "conditions": { "ready": true } }],
    });
    (key, Document::new(object, "scale"))
}

fn common() -> [(ResourceKey, Document); 2] {
    let pool = json!({ "cidr": "10.64.0.0/10", "ipipMode": "CrossSubnet" });
    let lists = json!({ "serviceClusterIPs": [{ "cidr": "10.96.0.0/12" }] });
    [document("IPPool", "", "pool", json!({}), pool), document("BGPConfiguration", "", "default", json!({}), lists)]
}

fn document(kind: &str, namespace: &str, name: &str, metadata: Value, spec: Value) -> (ResourceKey, Document) {
    let key = ResourceKey { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() };
    (key, Document::new(json!({ "kind": kind, "metadata": metadata, "spec": spec }), "scale"))
}
