//! Which nodes there are, and what each is to do: Calico's resources, compiled by margay for each node.
//!
//! Racks of 40 nodes with a /24 and a default route each, zones of 250 nodes. A node has so many IPAM blocks (/26), a reflector has
//! none. In a hierarchy a zone has a pair of reflectors with a cluster id of their own, whose clients are the zone's nodes; and two
//! reflectors at the top, with a session between them and one cluster id, have the zones' reflectors for clients.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, bail, ensure};
use ipnet::{IpNet, Ipv4Net};
use margay::calico::{Document, Environment, ResourceKey, Store, compile};
use margay::config::NodeConfig;
use margay::types::Sync;
use serde_json::{Value, json};

/// Nodes of a rack.
const RACK: usize = 40;
/// The pool's first block.
const POOL: u32 = u32::from_be_bytes([10, 64, 0, 0]);
/// Addresses of a block.
const BLOCK: u32 = 64;
/// Blocks that a story may add to those of the nodes.
const SPARE: usize = 64;

/// Who peers with whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Calico's node-to-node mesh.
    Mesh,
    /// Nodes, a pair of reflectors for each zone, two at the top.
    Reflectors,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A node with workloads.
    Node,
    /// A reflector of a zone.
    Reflector,
    /// A reflector of reflectors.
    Top,
}

/// Where a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its rack.
    pub rack: u32,
    /// Its zone.
    pub zone: u32,
}

/// One node of the plan.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Name of its Node resource.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Where it is.
    pub place: Place,
    /// Its address, in its rack's /24.
    pub address: Ipv4Addr,
}

/// See the module.
#[derive(Debug)]
pub struct Plan {
    /// Who peers with whom.
    pub shape: Shape,
    /// All nodes: those with workloads first.
    pub nodes: Vec<Planned>,
    /// How many of them have workloads.
    pub workers: usize,
    /// Blocks of each of these.
    pub blocks: usize,
    store: Store,
    by_address: Vec<(Ipv4Addr, u32)>,
    added: usize,
}

impl Plan {
    /// A plan of that many nodes with workloads, in zones of `zone`, with `blocks` blocks each. ADD-PATH is off in a hierarchy unless
    /// `add_path`: reflectors of reflectors would tell every path of each other.
    ///
    /// # Errors
    /// More nodes or blocks than the addresses of the plan have room for, or none.
    pub fn new(shape: Shape, workers: usize, zone: usize, blocks: usize, add_path: bool) -> Result<Self> {
        ensure!(workers > 1 && zone > 0 && blocks > 0, "there must be at least two nodes, of one block each, in zones of at least one");
        ensure!(workers * blocks + SPARE <= 1 << 16, "the pool 10.64.0.0/10 has 65,536 blocks: {workers} x {blocks} are too many");
        let nodes = planned(shape, workers, zone);
        ensure!(nodes.len() < 40_000, "the racks of 172.16.0.0/12 have room for 40,000 nodes");
        let mut by_address: Vec<_> = nodes.iter().enumerate().map(|(index, node)| (node.address, index as u32)).collect();
        by_address.sort_unstable();
        let mut plan = Self { shape, nodes, workers, blocks, store: Store::default(), by_address, added: 0 };
        plan.store.apply(Sync::Begin);
        let zones = workers.div_ceil(zone);
        for (key, document) in common(shape, zones, add_path) {
            plan.store.apply(Sync::Upsert(key, document));
        }
        for index in 0..plan.nodes.len() {
            let (key, document) = node(&plan.nodes[index], shape);
            plan.store.apply(Sync::Upsert(key, document));
        }
        for block in 0..workers * blocks {
            plan.affinity(block / blocks, block);
        }
        plan.store.apply(Sync::End);
        Ok(plan)
    }

    /// The configuration of a node, as margay's compiler has it.
    ///
    /// # Errors
    /// The compiler found something wrong with the plan.
    pub fn config(&self, node: usize) -> Result<NodeConfig> {
        let name = &self.nodes[node].name;
        let (config, problems) = compile(&self.store, name, &Environment::default());
        if let Some(problem) = problems.first() {
            bail!("{name}: {problem}");
        }
        config.with_context(|| format!("{name} has no configuration"))
    }

    /// The node at an address.
    pub fn at(&self, address: IpAddr) -> Option<u32> {
        let IpAddr::V4(address) = address else { return None };
        let index = self.by_address.binary_search_by_key(&address, |(address, _)| *address).ok()?;
        Some(self.by_address[index].1)
    }

    /// How many blocks there may be.
    pub fn bound(&self) -> usize {
        self.workers * self.blocks + SPARE
    }

    /// How many blocks there are.
    pub fn total(&self) -> usize {
        self.workers * self.blocks
    }

    /// The blocks of a node, those that were added aside.
    pub fn blocks_of(&self, node: usize) -> std::ops::Range<usize> {
        if node < self.workers { node * self.blocks..(node + 1) * self.blocks } else { 0..0 }
    }

    /// Gives a node one more block; its number. A story adds no more than a few dozen.
    pub fn add_block(&mut self, node: usize) -> usize {
        let block = self.total() + self.added % SPARE;
        self.added += 1;
        self.affinity(node, block);
        block
    }

    /// Takes a block that was added back.
    pub fn remove_block(&mut self, node: usize, block: usize) {
        let (key, _) = affinity(&self.nodes[node].name, block);
        self.store.apply(Sync::Remove(key));
    }

    fn affinity(&mut self, node: usize, block: usize) {
        let (key, document) = affinity(&self.nodes[node].name, block);
        self.store.apply(Sync::Upsert(key, document));
    }
}

/// The number of a block; none for other prefixes.
pub fn block_of(prefix: IpNet) -> Option<usize> {
    let IpNet::V4(prefix) = prefix else { return None };
    let offset = u32::from(prefix.addr()).checked_sub(POOL)?;
    (prefix.prefix_len() == 26 && offset < 1 << 22).then_some((offset / BLOCK) as usize)
}

/// The prefix of a block.
fn prefix_of(block: usize) -> String {
    format!("{}/26", Ipv4Addr::from(POOL + block as u32 * BLOCK))
}

fn planned(shape: Shape, workers: usize, zone: usize) -> Vec<Planned> {
    let zones = workers.div_ceil(zone);
    // Where nodes of no zone stand.
    let center = zones;
    let of_nodes = (0..workers).map(|number| (format!("node-{number}"), Role::Node, number / zone));
    let of_zones = (0..zones).flat_map(|zone| [0, 1].map(|twin| (format!("reflector-{zone}-{twin}"), Role::Reflector, zone)));
    let tops = [0, 1].map(|twin| (format!("top-{twin}"), Role::Top, center));
    let reflectors = of_zones.chain(tops).filter(|_| shape == Shape::Reflectors);
    // A rack belongs to one zone. A zone's reflectors stand in a rack of their own.
    let racks = zone.div_ceil(RACK) as u32 + 1;
    let mut seats = vec![0u32; zones + 1];
    let mut twins = vec![0u32; zones + 1];
    of_nodes
        .chain(reflectors)
        .map(|(name, role, zone)| {
            let (rack, seat) = if role == Role::Node {
                seats[zone] += 1;
                ((seats[zone] - 1) / RACK as u32, (seats[zone] - 1) % RACK as u32)
            } else {
                twins[zone] += 1;
                (racks - 1, twins[zone] - 1)
            };
            let rack = zone as u32 * racks + rack;
            let address = Ipv4Addr::new(172, 16 + (rack / 256) as u8, (rack % 256) as u8, seat as u8 + 1);
            Planned { name, role, place: Place { rack, zone: zone as u32 }, address }
        })
        .collect()
}

/// The default route's gateway in a rack.
pub fn gateway(address: Ipv4Addr) -> Ipv4Addr {
    let [a, b, c, _] = address.octets();
    Ipv4Addr::new(a, b, c, 254)
}

/// The address with its rack's network.
pub fn interface_address(address: Ipv4Addr) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(address, 24))
}

fn node(planned: &Planned, shape: Shape) -> (ResourceKey, Document) {
    let role = match planned.role {
        Role::Node => "node",
        Role::Reflector => "reflector",
        Role::Top => "top",
    };
    let labels = json!({ "role": role, "zone": planned.place.zone.to_string() });
    let mut bgp = json!({ "ipv4Address": format!("{}/24", planned.address) });
    if shape == Shape::Reflectors && planned.role != Role::Node {
        let cluster = Ipv4Addr::from(u32::from_be_bytes([244, 0, 0, 1]) + planned.place.zone);
        bgp["routeReflectorClusterID"] = json!(cluster.to_string());
    }
    document("Node", &planned.name, json!({ "labels": labels }), json!({ "bgp": bgp }))
}

fn affinity(node: &str, block: usize) -> (ResourceKey, Document) {
    let spec = json!({ "node": node, "cidr": prefix_of(block), "state": "confirmed" });
    document("BlockAffinity", &format!("{node}-{block}"), json!({}), spec)
}

fn common(shape: Shape, zones: usize, add_path: bool) -> Vec<(ResourceKey, Document)> {
    let pool = document("IPPool", "pool", json!({}), json!({ "cidr": "10.64.0.0/10", "ipipMode": "Never", "vxlanMode": "Never" }));
    let mesh = document("BGPConfiguration", "default", json!({}), json!({ "nodeToNodeMeshEnabled": shape == Shape::Mesh }));
    let mut all = vec![pool, mesh];
    if shape == Shape::Reflectors {
        let annotations = if add_path { json!({}) } else { json!({ "annotations": { "margay.io/add-path": "off" } }) };
        let peer = |name: &str, ours: &str, theirs: &str| {
            document("BGPPeer", name, annotations.clone(), json!({ "nodeSelector": ours, "peerSelector": theirs }))
        };
        all.extend((0..zones).map(|zone| {
            let (ours, theirs) = (format!("role == 'node' && zone == '{zone}'"), format!("role == 'reflector' && zone == '{zone}'"));
            peer(&format!("zone-{zone}"), &ours, &theirs)
        }));
        all.push(peer("top", "role in {'reflector', 'top'}", "role == 'top'"));
    }
    all
}

fn document(kind: &str, name: &str, metadata: Value, spec: Value) -> (ResourceKey, Document) {
    let key = ResourceKey { kind: kind.to_owned(), namespace: String::new(), name: name.to_owned() };
    (key, Document::new(json!({ "kind": kind, "metadata": metadata, "spec": spec }), "plan"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mesh_has_a_session_to_everybody_and_a_hierarchy_few() {
        let plan = Plan::new(Shape::Mesh, 90, 50, 2, false).unwrap();
        let config = plan.config(7).unwrap();
        assert_eq!((config.peers.len(), config.origin.blocks.len()), (89, 2));
        let plan = Plan::new(Shape::Reflectors, 90, 50, 1, false).unwrap();
        let sessions = |node: usize| plan.config(node).unwrap().peers.len();
        // 90 nodes, two zones of 50 and 40 with two reflectors each, two tops.
        assert_eq!(plan.nodes.len(), 96);
        assert_eq!([0, 89, 90, 92, 94].map(sessions), [2, 2, 52, 42, 5]);
        let clients = plan.config(90).unwrap().peers.values().filter(|peer| peer.reflector_client).count();
        assert_eq!(clients, 52, "the tops have another cluster id");
        assert_eq!(plan.config(94).unwrap().peers.values().filter(|peer| peer.reflector_client).count(), 4);
    }

    #[test]
    fn places_are_distinct_and_found_by_address() {
        let plan = Plan::new(Shape::Reflectors, 300, 100, 1, false).unwrap();
        for (index, node) in plan.nodes.iter().enumerate() {
            assert_eq!(plan.at(node.address.into()), Some(index as u32), "{node:?}");
            let other = plan.nodes.iter().find(|other| other.place.rack == node.place.rack).unwrap();
            assert_eq!((other.place.zone, gateway(other.address)), (node.place.zone, gateway(node.address)));
        }
    }

    #[test]
    fn blocks_are_numbered() {
        assert_eq!(block_of(prefix_of(1234).parse().unwrap()), Some(1234));
        assert_eq!(block_of("10.0.0.0/26".parse().unwrap()), None);
        assert_eq!(block_of("10.64.0.0/10".parse().unwrap()), None);
    }
}
