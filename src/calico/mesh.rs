//! Who our peers are: the node-to-node mesh, BGPPeers of all nodes and of ours, and their reverse.
//!
//! Whatever two sessions can have to do with each other, they have in common their address: so each address is looked
//! at by itself, and a changed Node costs its own addresses, not the cluster's.
//!
//! A session is known by (scope, address, port); global objects come first, then those of our node, then the reverse
//! of others'. Whoever comes first with a key has it; between two BGPPeers the lower name. Mesh and BGPPeers are made
//! side by side; where both want one address and port, the first in order of session names runs.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::compile::Cluster;
use super::peering::Peering;
use super::resource::{BgpPeer, Endpoint, NextHop, Node, SourceAddress};
use super::{Problem, Severity};
use crate::config::PeerKind;
use crate::types::{Asn, ClusterId};

/// What the resources ask for at one address.
#[derive(Debug, Default)]
pub(super) struct Peerings<'a> {
    /// In order of names.
    pub sessions: Vec<Peering<'a>>,
    /// Host routes of `reachableBy`.
    pub static_routes: Vec<(IpNet, IpAddr)>,
}

/// What all addresses have in common: the BGPPeers that concern our node, and whether it is in the mesh.
#[derive(Debug)]
pub(super) struct Peers<'a, 'b> {
    cluster: &'b Cluster<'a>,
    /// BGPPeers that hold for our node: those of every node first.
    forward: Vec<(PeerKind, &'a str, &'a BgpPeer)>,
    /// BGPPeers of others that mean us, and the one family (IPv4 is true) that they mean us in, if not both.
    reverse: Vec<(&'a str, &'a BgpPeer, Option<bool>)>,
    mesh: bool,
}

impl<'a, 'b> Peers<'a, 'b> {
    /// Looks at each BGPPeer once.
    pub fn new(cluster: &'b Cluster<'a>) -> Self {
        let mut forward = Vec::new();
        for (kind, global) in [(PeerKind::Global, true), (PeerKind::Node, false)] {
            let ours = cluster.store.peers().filter(|(_, peer)| peer.is_global() == global);
            let ours = ours.filter(|(_, peer)| selects_local(cluster, peer, cluster.name, cluster.node));
            forward.extend(ours.map(|(name, peer)| (kind, name, peer)));
        }
        let reverse = cluster.store.peers().filter(|(_, peer)| peer.reverse);
        let reverse = reverse.filter_map(|(name, peer)| Some((name, peer, reversed_family(cluster, peer)?))).collect();
        Self { cluster, forward, reverse, mesh: cluster.defaults.mesh.unwrap_or(true) && cluster.node.cluster_id.is_none() }
    }

    /// Every address that there may be a session with.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        let mut addresses: BTreeSet<IpAddr> = self.cluster.store.node_addresses().collect();
        addresses.extend(self.forward.iter().filter_map(|(_, _, peer)| match peer.endpoint {
            Endpoint::Address { address, .. } => Some(address),
            Endpoint::Nodes(_) | Endpoint::Workloads { .. } => None,
        }));
        addresses.extend(self.cluster.store.workloads().iter().flat_map(|workload| workload.addresses.iter().copied()));
        addresses
    }

    /// The sessions of our node with one address. They depend on the Nodes that have it and on nothing else that has a number.
    pub fn at(&self, address: IpAddr, problems: &mut Vec<Problem>) -> Peerings<'a> {
        let cluster = self.cluster;
        let members: Vec<Member<'a>> =
            cluster.store.nodes_at(address).map(|(name, node)| Member::new(cluster, name, node, address)).collect();
        cluster.work.count(|work| work.nodes += members.len());
        let mut explicit = Explicit { cluster, found: BTreeMap::new(), problems };
        for (kind, name, peer) in &self.forward {
            explicit.forward(*kind, name, peer, address, &members);
        }
        for (name, peer, family) in &self.reverse {
            if family.is_none_or(|ipv4| address.is_ipv4() == ipv4) {
                explicit.reverse(name, peer, &members);
            }
        }
        let mut sessions: BTreeMap<String, Peering<'a>> = BTreeMap::new();
        let mut static_routes = Vec::new();
        for found in explicit.found.into_values() {
            static_routes.extend(found.reachable_by.map(|gateway| (IpNet::from(address), gateway)));
            sessions.insert(found.peering.name.clone(), found.peering);
        }
        self.add_mesh(address, &members, &mut sessions, problems);
        for twin in members.iter().filter(|member| member.name != cluster.name && is_own(cluster, address)) {
            same_address(cluster, twin.name, address, problems);
        }
        Peerings { sessions: one_each(cluster, sessions, problems), static_routes }
    }

    /// Everybody peers with everybody, reflectors aside. The node with the greater address (as text) connects.
    fn add_mesh(&self, address: IpAddr, members: &[Member<'a>], sessions: &mut BTreeMap<String, Peering<'a>>, problems: &mut Vec<Problem>) {
        let Some(own) = self.cluster.node.address(address.is_ipv4()).filter(|own| self.mesh && own.address != address) else { return };
        for member in members.iter().filter(|member| member.node.cluster_id.is_none()) {
            let peering = mesh_peering(self.cluster, member, own.address);
            match sessions.entry(peering.name.clone()) {
                Entry::Vacant(place) => drop(place.insert(peering)),
                Entry::Occupied(_) => same_address(self.cluster, member.name, address, problems),
            }
        }
    }
}

/// A Node that has the address in question.
#[derive(Debug)]
struct Member<'a> {
    name: &'a str,
    node: &'a Node,
    remote: Remote,
}

impl<'a> Member<'a> {
    fn new(cluster: &Cluster<'a>, name: &'a str, node: &'a Node, address: IpAddr) -> Self {
        let (port, asn, cluster_id) = (cluster.port_of(name), cluster.asn_of(node), node.cluster_id);
        Self { name, node, remote: Remote { address, interface: None, port, asn, cluster: cluster_id, calico_node: false } }
    }
}

/// Of sessions to one address and port the first by name, as BIRD would run it.
fn one_each<'a>(cluster: &Cluster<'a>, sessions: BTreeMap<String, Peering<'a>>, problems: &mut Vec<Problem>) -> Vec<Peering<'a>> {
    let mut winners: BTreeMap<(u16, Option<String>), String> = BTreeMap::new();
    let mut kept = Vec::new();
    for (name, peering) in sessions {
        match winners.entry((peering.effective_port(), peering.interface.clone())) {
            Entry::Vacant(place) => {
                place.insert(name);
                kept.push(peering);
            }
            Entry::Occupied(winner) => {
                let what = format!("session {name} has the address and port of {}", winner.get());
                let instead = "only the first in order of names runs";
                problems.push(peering.problem(cluster.store, Severity::Info, "", what, instead));
            }
        }
    }
    kept
}

fn is_own(cluster: &Cluster<'_>, address: IpAddr) -> bool {
    cluster.node.addresses().any(|own| own.address == address)
}

fn same_address(cluster: &Cluster<'_>, node: &str, address: IpAddr, problems: &mut Vec<Problem>) {
    let field = if address.is_ipv4() { "spec.bgp.ipv4Address" } else { "spec.bgp.ipv6Address" };
    let what = format!("{address} is the address of another Node too");
    problems.push(cluster.store.problem("Node", node, Severity::Warning, field, what, "no session is made with this one"));
}

fn mesh_peering<'a>(cluster: &Cluster<'a>, member: &Member<'a>, own: IpAddr) -> Peering<'a> {
    let address = member.remote.address;
    Peering {
        name: session_name("Mesh", address, None, None),
        kind: PeerKind::Mesh,
        resource: ("BGPConfiguration", "default"),
        asked_by: "BGPConfiguration default (mesh)".to_owned(),
        address,
        interface: None,
        port: member.remote.port,
        remote_asn: member.remote.asn,
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

/// Port (0 counts as 179) and interface.
type Key = (u16, Option<String>);

struct Found<'a> {
    peering: Peering<'a>,
    by: &'a str,
    reachable_by: Option<IpAddr>,
}

/// Sessions that BGPPeers ask for at one address.
struct Explicit<'a, 'b> {
    cluster: &'b Cluster<'a>,
    found: BTreeMap<Key, Found<'a>>,
    problems: &'b mut Vec<Problem>,
}

impl<'a> Explicit<'a, '_> {
    /// A BGPPeer that holds for our node.
    fn forward(&mut self, kind: PeerKind, name: &'a str, peer: &'a BgpPeer, address: IpAddr, members: &[Member<'a>]) {
        match &peer.endpoint {
            Endpoint::Address { address: wanted, port, interface, asn } if *wanted == address => {
                let listening = || members.iter().find(|member| member.remote.asn == *asn).and_then(|member| member.remote.port);
                let remote = Remote {
                    address,
                    interface: interface.clone(),
                    port: port.or_else(listening),
                    asn: *asn,
                    cluster: None,
                    calico_node: !members.is_empty(),
                };
                self.add(kind, name, peer, remote, Some(name));
            }
            Endpoint::Nodes(selector) => {
                self.cluster.work.count(|work| work.selectors += members.len());
                for member in members.iter().filter(|member| selector.matches(&member.node.labels)) {
                    self.add(kind, name, peer, member.remote.clone(), Some(name));
                }
            }
            Endpoint::Workloads { asn } => {
                let ours = self.cluster.store.workloads().iter().filter(|workload| workload.peer == name);
                if ours.flat_map(|workload| &workload.addresses).any(|found| *found == address) {
                    let remote = Remote { address, interface: None, port: None, asn: *asn, cluster: None, calico_node: false };
                    self.add(PeerKind::Workload, name, peer, remote, Some(name));
                }
            }
            Endpoint::Address { .. } => {}
        }
    }

    /// A BGPPeer of other nodes that selects ours: we peer back.
    fn reverse(&mut self, name: &'a str, peer: &'a BgpPeer, members: &[Member<'a>]) {
        let cluster = self.cluster;
        for member in members.iter().filter(|member| selects_local(cluster, peer, member.name, member.node)) {
            self.add(PeerKind::Node, name, peer, member.remote.clone(), None);
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
        let key = (remote.port.unwrap_or(179), remote.interface.clone());
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
        let prefix = match kind {
            PeerKind::Global => "Global",
            PeerKind::Workload => "Local_Workload",
            PeerKind::Node | PeerKind::Mesh => "Node",
        };
        let by_address = !matches!(peer.endpoint, Endpoint::Nodes(_)) && !reverse;
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
            passive: kind == PeerKind::Workload || kind == PeerKind::Global && remote.calico_node && greater,
            password: peer.password.as_ref(),
            from_node_address: peer.source == SourceAddress::UseNodeIp && kind != PeerKind::Workload,
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
fn selects_local(cluster: &Cluster<'_>, peer: &BgpPeer, name: &str, node: &Node) -> bool {
    match (&peer.node_selector, &peer.node) {
        (Some(selector), _) => {
            cluster.work.count(|work| work.selectors += 1);
            selector.matches(&node.labels)
        }
        (None, Some(wanted)) => wanted == name,
        (None, None) => true,
    }
}

/// Whether a BGPPeer of others means us: none if not, else the one family (IPv4 is true) or both.
fn reversed_family(cluster: &Cluster<'_>, peer: &BgpPeer) -> Option<Option<bool>> {
    match &peer.endpoint {
        Endpoint::Nodes(selector) => {
            cluster.work.count(|work| work.selectors += 1);
            selector.matches(&cluster.node.labels).then_some(None)
        }
        Endpoint::Address { address, port, asn, .. } => {
            let ours = cluster.node.addresses().any(|own| own.address == *address) && cluster.asn == *asn;
            let listening = match (port, cluster.port_of(cluster.name)) {
                (Some(wanted), Some(known)) => *wanted == known,
                _ => true,
            };
            (ours && listening).then(|| Some(address.is_ipv4()))
        }
        Endpoint::Workloads { .. } => None,
    }
}
