//! Who our peers are: the node-to-node mesh, BGPPeers of all nodes and of ours, and their reverse.
//!
//! A session is known by (scope, address, port); global objects come first, then those of our node, then the reverse
//! of others'. Whoever comes first with a key has it; between two BGPPeers the lower name. Mesh and BGPPeers are made
//! side by side; where both want one address and port, the first in order of session names runs.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

use ipnet::IpNet;

use super::compile::Cluster;
use super::peering::Peering;
use super::resource::{BgpPeer, Endpoint, NextHop, Node, SourceAddress};
use super::{Problem, Severity};
use crate::config::PeerKind;
use crate::types::{Asn, ClusterId};

/// What the resources ask for.
#[derive(Debug, Default)]
pub(super) struct Peerings<'a> {
    /// In order of names.
    pub sessions: Vec<Peering<'a>>,
    /// Host routes of `reachableBy`.
    pub static_routes: Vec<(IpNet, IpAddr)>,
}

/// The sessions of our node.
pub(super) fn peerings<'a>(cluster: &Cluster<'a>, problems: &mut Vec<Problem>) -> Peerings<'a> {
    let mut explicit = Explicit { cluster, found: BTreeMap::new(), problems };
    explicit.forward(BgpPeer::is_global, PeerKind::Global);
    explicit.forward(|peer| !peer.is_global(), PeerKind::Node);
    explicit.reverse();
    let mut sessions: BTreeMap<String, Peering<'a>> = BTreeMap::new();
    let mut static_routes = Vec::new();
    for ((address, _, _), found) in explicit.found {
        static_routes.extend(found.reachable_by.map(|gateway| (IpNet::from(address), gateway)));
        sessions.insert(found.peering.name.clone(), found.peering);
    }
    for (node, peering) in mesh(cluster) {
        match sessions.entry(peering.name.clone()) {
            Entry::Vacant(place) => drop(place.insert(peering)),
            Entry::Occupied(_) => same_address(cluster, node, peering.address, problems),
        }
    }
    for (node, address) in twins(cluster) {
        same_address(cluster, node, address, problems);
    }
    Peerings { sessions: one_each(cluster, sessions, problems), static_routes }
}

/// Of sessions to one address and port the first by name, as BIRD would run it.
fn one_each<'a>(cluster: &Cluster<'a>, sessions: BTreeMap<String, Peering<'a>>, problems: &mut Vec<Problem>) -> Vec<Peering<'a>> {
    let mut winners: BTreeMap<(IpAddr, u16, Option<String>), String> = BTreeMap::new();
    let mut kept = Vec::new();
    for (name, peering) in sessions {
        let key = (peering.address, peering.effective_port(), peering.interface.clone());
        match winners.get(&key) {
            None => {
                winners.insert(key, name);
                kept.push(peering);
            }
            Some(winner) => {
                let what = format!("session {name} has the address and port of {winner}");
                let instead = "only the first in order of names runs";
                problems.push(peering.problem(cluster.store, Severity::Info, "", what, instead));
            }
        }
    }
    kept
}

/// Other nodes with an address of ours.
fn twins<'a>(cluster: &Cluster<'a>) -> impl Iterator<Item = (&'a str, IpAddr)> {
    let others = cluster.store.nodes().filter(|(name, _)| *name != cluster.name);
    others
        .flat_map(|(name, node)| node.addresses().map(move |address| (name, address.address)))
        .filter(|(_, address)| cluster.node.addresses().any(|own| own.address == *address))
}

fn same_address(cluster: &Cluster<'_>, node: &str, address: IpAddr, problems: &mut Vec<Problem>) {
    let field = if address.is_ipv4() { "spec.bgp.ipv4Address" } else { "spec.bgp.ipv6Address" };
    let what = format!("{address} is the address of another Node too");
    problems.push(cluster.store.problem("Node", node, Severity::Warning, field, what, "no session is made with this one"));
}

/// Everybody peers with everybody, reflectors aside. The node with the greater address (as text) connects.
fn mesh<'a>(cluster: &Cluster<'a>) -> impl Iterator<Item = (&'a str, Peering<'a>)> {
    let on = cluster.defaults.mesh.unwrap_or(true) && cluster.node.cluster_id.is_none();
    let others = cluster.store.nodes().filter(move |(_, node)| on && node.cluster_id.is_none());
    others.flat_map(move |(name, node)| {
        node.addresses().filter_map(move |address| {
            let own = cluster.node.address(address.address.is_ipv4())?.address;
            (own != address.address).then(|| (name, mesh_peering(cluster, name, node, address.address, own)))
        })
    })
}

fn mesh_peering<'a>(cluster: &Cluster<'a>, name: &str, node: &Node, address: IpAddr, own: IpAddr) -> Peering<'a> {
    Peering {
        name: session_name("Mesh", address, None, None),
        kind: PeerKind::Mesh,
        resource: ("BGPConfiguration", "default"),
        asked_by: "BGPConfiguration default (mesh)".to_owned(),
        address,
        interface: None,
        port: cluster.port_of(name),
        remote_asn: cluster.asn_of(node),
        local_asn: None,
        peer_cluster: None,
        passive: address.to_string() > own.to_string(),
        password: cluster.defaults.mesh_password.as_ref(),
        from_node_address: true,
        restart_time: cluster.defaults.mesh_restart_time,
        keepalive: None,
        ttl_security: None,
        allow_local_as: 0,
        next_hop: NextHop::Default,
        filters: &[],
        annotations: None,
    }
}

/// `<prefix>_<address>` with `_` for dots and colons, then the interface of a link-local address, then the port if known.
fn session_name(prefix: &str, address: IpAddr, interface: Option<&str>, port: Option<u16>) -> String {
    let mut name = format!("{prefix}_{}", address.to_string().replace(['.', ':'], "_"));
    if let Some(interface) = interface {
        name.push('_');
        name.push_str(interface);
    }
    if let Some(port) = port {
        name.push_str(&format!("_port_{port}"));
    }
    name
}

/// The other side of one session of a BGPPeer.
#[derive(Clone, Debug)]
struct Remote {
    address: IpAddr,
    interface: Option<String>,
    port: Option<u16>,
    asn: Asn,
    cluster: Option<ClusterId>,
    /// It is a peerIP that is some Calico node's address.
    calico_node: bool,
}

/// Address, port (0 counts as 179) and interface.
type Key = (IpAddr, u16, Option<String>);

struct Found<'a> {
    peering: Peering<'a>,
    by: &'a str,
    reachable_by: Option<IpAddr>,
}

struct Explicit<'a, 'b> {
    cluster: &'b Cluster<'a>,
    found: BTreeMap<Key, Found<'a>>,
    problems: &'b mut Vec<Problem>,
}

impl<'a> Explicit<'a, '_> {
    /// BGPPeers that hold for our node.
    fn forward(&mut self, in_scope: fn(&BgpPeer) -> bool, kind: PeerKind) {
        let cluster = self.cluster;
        for (name, peer) in cluster.store.peers() {
            if in_scope(peer) && selects_local(peer, cluster.name, cluster.node) {
                for remote in remotes(cluster, peer) {
                    self.add(kind, name, peer, remote, Some(name));
                }
            }
        }
    }

    /// BGPPeers of other nodes that select ours: we peer back.
    fn reverse(&mut self) {
        let cluster = self.cluster;
        for (name, peer) in cluster.store.peers().filter(|(_, peer)| peer.reverse) {
            let Some(family) = reversed_family(cluster, peer) else { continue };
            for (other, node) in cluster.store.nodes().filter(|(other, node)| selects_local(peer, other, node)) {
                let addresses = node.addresses().filter(|a| family.is_none_or(|ipv4| a.address.is_ipv4() == ipv4));
                for address in addresses {
                    self.add(PeerKind::Node, name, peer, node_remote(cluster, other, node, address.address), None);
                }
            }
        }
    }

    /// Adds a session unless its key is taken. `named` is the BGPPeer to blame then; reverse peerings step back silently.
    fn add(&mut self, kind: PeerKind, name: &'a str, peer: &'a BgpPeer, remote: Remote, named: Option<&str>) {
        let own = self.cluster.node.address(remote.address.is_ipv4()).map(|address| address.address);
        if own == Some(remote.address) {
            return;
        }
        if own.is_none() && remote.interface.is_none() {
            if named.is_some() && matches!(peer.endpoint, Endpoint::Address { .. }) {
                let family = if remote.address.is_ipv4() { "IPv4" } else { "IPv6" };
                let what = format!("Node {} has no {family} address", self.cluster.name);
                self.problem(name, Severity::Warning, "spec.peerIP", what, "no session is made from this node");
            }
            return;
        }
        let key = (remote.address, remote.port.unwrap_or(179), remote.interface.clone());
        if let Some(taken) = self.found.get(&key) {
            let winner = taken.by;
            if named.is_some_and(|named| named != winner) {
                let what = format!("BGPPeer {winner} makes a session with {} already", remote.address);
                self.problem(name, Severity::Warning, "", what, "that one runs (objects for all nodes first, then the lowest name)");
            }
            return;
        }
        let reachable_by = peer.reachable_by.filter(|gateway| gateway.is_ipv4() == remote.address.is_ipv4());
        let peering = self.peering(kind, name, peer, remote, own, named.is_none());
        self.found.insert(key, Found { peering, by: name, reachable_by });
    }

    fn peering(&self, kind: PeerKind, name: &'a str, peer: &'a BgpPeer, remote: Remote, own: Option<IpAddr>, reverse: bool) -> Peering<'a> {
        let prefix = if kind == PeerKind::Global { "Global" } else { "Node" };
        let by_address = matches!(peer.endpoint, Endpoint::Address { .. }) && !reverse;
        let greater = own.is_some_and(|own| remote.address.to_string() > own.to_string());
        Peering {
            name: session_name(prefix, remote.address, remote.interface.as_deref(), remote.port),
            kind,
            resource: ("BGPPeer", name),
            asked_by: if reverse { format!("BGPPeer {name} (reverse)") } else { format!("BGPPeer {name}") },
            address: remote.address,
            interface: remote.interface,
            port: remote.port,
            remote_asn: remote.asn,
            local_asn: peer.local_asn.filter(|_| by_address),
            peer_cluster: remote.cluster,
            passive: kind == PeerKind::Global && remote.calico_node && greater,
            password: peer.password.as_ref(),
            from_node_address: peer.source == SourceAddress::UseNodeIp,
            restart_time: peer.restart_time,
            keepalive: peer.keepalive,
            ttl_security: peer.ttl_security,
            allow_local_as: if by_address { peer.allow_local_as } else { 0 },
            next_hop: peer.next_hop,
            filters: &peer.filters,
            annotations: Some(&peer.annotations),
        }
    }

    fn problem(&mut self, name: &str, severity: Severity, field: &str, what: String, instead: &str) {
        self.problems.push(self.cluster.store.problem("BGPPeer", name, severity, field, what, instead));
    }
}

/// nodeSelector, else node, else every node.
fn selects_local(peer: &BgpPeer, name: &str, node: &Node) -> bool {
    match (&peer.node_selector, &peer.node) {
        (Some(selector), _) => selector.matches(&node.labels),
        (None, Some(wanted)) => wanted == name,
        (None, None) => true,
    }
}

/// The other sides of a BGPPeer.
fn remotes(cluster: &Cluster<'_>, peer: &BgpPeer) -> Vec<Remote> {
    match &peer.endpoint {
        Endpoint::Address { address, port, interface, asn } => {
            let nodes = || cluster.store.nodes().filter(|(_, node)| node.addresses().any(|a| a.address == *address));
            let listening = || nodes().find(|(_, node)| cluster.asn_of(node) == *asn).and_then(|(name, _)| cluster.port_of(name));
            vec![Remote {
                address: *address,
                interface: interface.clone(),
                port: port.or_else(listening),
                asn: *asn,
                cluster: None,
                calico_node: nodes().next().is_some(),
            }]
        }
        Endpoint::Nodes(selector) => {
            let nodes = cluster.store.nodes().filter(|(_, node)| selector.matches(&node.labels));
            nodes.flat_map(|(name, node)| node.addresses().map(move |address| node_remote(cluster, name, node, address.address))).collect()
        }
        Endpoint::Workloads => Vec::new(),
    }
}

fn node_remote(cluster: &Cluster<'_>, name: &str, node: &Node, address: IpAddr) -> Remote {
    Remote {
        address,
        interface: None,
        port: cluster.port_of(name),
        asn: cluster.asn_of(node),
        cluster: node.cluster_id,
        calico_node: false,
    }
}

/// Whether a BGPPeer of others means us: none if not, else the one family (IPv4 is true) or both.
fn reversed_family(cluster: &Cluster<'_>, peer: &BgpPeer) -> Option<Option<bool>> {
    match &peer.endpoint {
        Endpoint::Nodes(selector) => selector.matches(&cluster.node.labels).then_some(None),
        Endpoint::Address { address, port, asn, .. } => {
            let ours = cluster.node.addresses().any(|own| own.address == *address) && cluster.asn == *asn;
            let listening = match (port, cluster.port_of(cluster.name)) {
                (Some(wanted), Some(known)) => *wanted == known,
                _ => true,
            };
            (ours && listening).then(|| Some(address.is_ipv4()))
        }
        Endpoint::Workloads => None,
    }
}
