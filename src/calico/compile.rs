//! `(store, node, environment) → (NodeConfig, problems)`: pure and total.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use super::changes::Changes;
use super::mesh::Peers;
use super::peering::{Made, Policies};
use super::resource::{AffinityState, BgpConfiguration, BindMode, Node};
use super::service::{ServiceRoutes, ServiceRules, Services};
use super::work::{Counter, Work};
use super::{Environment, Problem, Severity, Store, pool};
use crate::config::{FibConfig, ListenConfig, LogLevel, NodeConfig, OriginConfig, PeerConfig, PeerKind};
use crate::types::{Asn, RouterId};

/// AS of the cluster where nothing else is said.
const DEFAULT_ASN: Asn = Asn(64512);

/// BGP's port.
const DEFAULT_PORT: u16 = 179;

/// The store as one node sees it.
#[derive(Debug)]
pub(super) struct Cluster<'a> {
    pub store: &'a Store,
    pub environment: &'a Environment,
    /// Our name.
    pub name: &'a str,
    /// Our Node.
    pub node: &'a Node,
    /// BGPConfiguration `default`, or an empty one.
    pub defaults: &'a BgpConfiguration,
    /// Our AS.
    pub asn: Asn,
    /// Our identifier.
    pub router_id: RouterId,
    /// What compiling it costs.
    pub work: &'a Counter,
}

impl Cluster<'_> {
    /// The AS of a node: its own, else the cluster's.
    pub fn asn_of(&self, node: &Node) -> Asn {
        node.asn.or(self.defaults.asn).unwrap_or(DEFAULT_ASN)
    }

    /// The port that a node's own BGPConfiguration sets.
    pub fn own_port_of(&self, name: &str) -> Option<u16> {
        self.store.configuration(&format!("node.{name}")).and_then(|configuration| configuration.listen_port)
    }

    /// The port that a node listens on, as far as resources say.
    pub fn port_of(&self, name: &str) -> Option<u16> {
        self.own_port_of(name).or(self.defaults.listen_port)
    }
}

/// Compiles the store for one node. No configuration without that Node; whatever else is wrong is a problem and
/// concerns its own resource only.
pub fn compile(store: &Store, node: &str, environment: &Environment) -> (Option<NodeConfig>, Vec<Problem>) {
    let (config, problems, _) = Compilation::default().update(store, node, environment, Changes::default());
    (config, problems)
}

/// Every problem of the resources, whichever node has it: what `margay check` says. Of very large clusters the
/// first nodes stand for all.
pub fn check(store: &Store, environment: &Environment) -> Vec<Problem> {
    const ENOUGH: usize = 200;
    let names: Vec<&str> = store.nodes().map(|(name, _)| name).take(ENOUGH).collect();
    let mut problems = of_documents(store);
    for name in names {
        problems.extend(compile(store, name, environment).1);
    }
    sort(&mut problems);
    problems
}

/// What the documents say by themselves.
fn of_documents(store: &Store) -> Vec<Problem> {
    let unused = store
        .unused()
        .iter()
        .map(|(kind, count)| Problem::general(Severity::Info, format!("margay does not act on {kind} ({count} given)"), "ignored"));
    store.problems().cloned().chain(unused).collect()
}

/// The worst first, each once.
fn sort(problems: &mut Vec<Problem>) {
    problems.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.cmp(b)));
    problems.dedup();
}

/// What is remembered from one compile to the next. Whatever the changes were, the outcome is that of a compile from nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Compilation {
    /// By address: names of the sessions with it, and what is wrong with them.
    sessions: BTreeMap<IpAddr, Neighbour>,
    /// By name.
    peers: BTreeMap<String, Arc<PeerConfig>>,
    policies: Made,
    services: ServiceRoutes,
}

/// What was made for one address.
#[derive(Clone, Debug, Default)]
struct Neighbour {
    names: Vec<String>,
    static_routes: Vec<(IpNet, IpAddr)>,
    problems: Vec<Problem>,
}

impl Compilation {
    /// The rules that Services were judged by; none without a Node of ours.
    pub fn service_rules(&self) -> Option<&ServiceRules> {
        self.services.rules()
    }

    /// Compiles what has changed; see [`compile`]. Also says how much was done.
    pub fn update(
        &mut self,
        store: &Store,
        name: &str,
        environment: &Environment,
        mut changes: Changes,
    ) -> (Option<NodeConfig>, Vec<Problem>, Work) {
        let mut problems = of_documents(store);
        let work = Counter::default();
        if changes.nodes.contains(name) || changes.configurations.contains(name) || changes.blocks_of.contains(name) {
            changes = Changes::default();
        }
        let config = match store.node(name) {
            Some(node) => Some(self.update_node(store, name, node, environment, &changes, &work, &mut problems)),
            None => {
                *self = Self::default();
                problems.push(missing_node(store, name));
                None
            }
        };
        sort(&mut problems);
        (config, problems, work.total())
    }

    #[expect(clippy::too_many_arguments, reason = "one place that has everything at hand")]
    fn update_node(
        &mut self,
        store: &Store,
        name: &str,
        node: &Node,
        environment: &Environment,
        changes: &Changes,
        work: &Counter,
        problems: &mut Vec<Problem>,
    ) -> NodeConfig {
        let none = BgpConfiguration::default();
        let defaults = store.configuration("default").unwrap_or(&none);
        let asn = node.asn.or(defaults.asn).unwrap_or(DEFAULT_ASN);
        let router_id = router_id(name, node, environment, problems);
        let cluster = Cluster { store, environment, name, node, defaults, asn, router_id, work };
        if node.addresses().next().is_none() {
            let what = format!("Node {name} has no BGP address");
            problems.push(store.problem("Node", name, Severity::Warning, "spec.bgp", what, "it has no sessions until it gets one"));
        }
        let rules = ServiceRules::new(&cluster, problems);
        let judged = self.services.update(store, &rules, changes);
        work.count(|work| work.services += judged);
        let services = Services::new(&rules);
        self.update_sessions(&cluster, &services, changes);
        for neighbour in self.sessions.values() {
            problems.extend(neighbour.problems.iter().cloned());
        }
        let origin = self.origin(&cluster, &services);
        let rules = pool::fib_rules(&cluster, &services, problems);
        let fib = FibConfig { table: environment.table, protocol: environment.protocol, rules, wireguard: wireguard(&cluster) };
        problems.extend(self.deaf_to_workloads(&cluster));
        let keep_without_peers = defaults.annotations.keep_without_peers.unwrap_or(false);
        let (node, listen, peers) = (name.to_owned(), listen(&cluster), self.peers.clone());
        let log_level = log_level(&cluster, problems);
        NodeConfig { node, router_id, asn, listen, peers, origin, fib, log_level, keep_without_peers }
    }

    /// Workloads connect to the address that their interfaces have for it (`localWorkloadPeeringIPV4`), not to the node's.
    fn deaf_to_workloads(&self, cluster: &Cluster<'_>) -> Option<Problem> {
        let workload = self.peers.values().find(|peer| peer.kind == PeerKind::Workload)?;
        (cluster.defaults.bind_mode == BindMode::NodeIp).then(|| {
            let what = "NodeIP listens on the node's addresses alone, so workloads that peer cannot reach the address given them for it \
                        (localWorkloadPeeringIPV4, localWorkloadPeeringIPV6)";
            let instead =
                format!("{} and its like get no session unless they connect to the node's address: set bindMode to None", workload.name);
            cluster.store.problem("BGPConfiguration", "default", Severity::Info, "spec.bindMode", what.to_owned(), &instead)
        })
    }

    fn update_sessions(&mut self, cluster: &Cluster<'_>, services: &Services, changes: &Changes) {
        let peers = Peers::new(cluster);
        let before = if changes.everything { std::mem::take(&mut self.policies) } else { Made::default() };
        let mut policies = Policies::new(cluster, services, before, std::mem::take(&mut self.policies));
        let dirty = if changes.everything {
            peers.addresses().into_iter().chain(self.sessions.keys().copied()).collect()
        } else {
            let addresses = |name: &String| cluster.store.node(name).into_iter().flat_map(Node::addresses).map(|address| address.address);
            changes.addresses.iter().copied().chain(changes.configurations.iter().flat_map(addresses)).collect::<BTreeSet<_>>()
        };
        for address in dirty {
            self.update_address(cluster, &peers, &mut policies, address);
        }
        self.policies = policies.into_made();
    }

    fn update_address(&mut self, cluster: &Cluster<'_>, peers: &Peers<'_, '_>, policies: &mut Policies<'_>, address: IpAddr) {
        let mut neighbour = Neighbour::default();
        let peerings = peers.at(address, &mut neighbour.problems);
        let mut made = Vec::new();
        for peering in &peerings.sessions {
            cluster.work.count(|work| work.sessions += 1);
            made.push(peering.configure(cluster, policies, &mut neighbour.problems));
        }
        neighbour.names = made.iter().map(|config| config.name.clone()).collect();
        neighbour.static_routes = peerings.static_routes;
        let empty = neighbour.names.is_empty() && neighbour.static_routes.is_empty() && neighbour.problems.is_empty();
        let before = if empty { self.sessions.remove(&address) } else { self.sessions.insert(address, neighbour) };
        let mut gone: BTreeSet<String> = before.into_iter().flat_map(|before| before.names).collect();
        for config in made {
            gone.remove(&config.name);
            // What is as before stays the same in memory: then comparing it costs nothing.
            if self.peers.get(&config.name).is_none_or(|before| **before != config) {
                self.peers.insert(config.name.clone(), Arc::new(config));
            }
        }
        for name in gone {
            self.peers.remove(&name);
        }
    }

    fn origin(&self, cluster: &Cluster<'_>, services: &Services) -> OriginConfig {
        let advertised: BTreeSet<IpNet> = services.advertised.iter().copied().chain(self.services.addresses()).collect();
        let mut static_routes: Vec<_> = self.sessions.values().flat_map(|neighbour| neighbour.static_routes.iter().copied()).collect();
        static_routes.sort_unstable();
        static_routes.dedup();
        OriginConfig {
            blocks: blocks(cluster),
            services: advertised.into_iter().collect(),
            static_routes,
            ignored_interfaces: ignored_interfaces(cluster.defaults),
            protocol: cluster.environment.protocol,
        }
    }
}

/// Addresses of the nodes that WireGuard reaches: those that have a WireGuard address of a family that ours has too.
fn wireguard(cluster: &Cluster<'_>) -> BTreeSet<IpAddr> {
    let of = |ipv4: bool| {
        let encrypted = move |node: &Node| if ipv4 { node.wireguard_ipv4 } else { node.wireguard_ipv6 };
        let others = cluster.store.nodes().filter(move |(name, node)| *name != cluster.name && encrypted(cluster.node) && encrypted(node));
        others.filter_map(move |(_, node)| node.address(ipv4)).map(|address| address.address)
    };
    of(true).chain(of(false)).collect()
}

fn missing_node(store: &Store, node: &str) -> Problem {
    let known: Vec<&str> = store.nodes().map(|(name, _)| name).take(10).collect();
    let known = if known.is_empty() { "there is no Node at all".to_owned() } else { format!("there are {}", known.join(", ")) };
    let what = format!("there is no Node named `{node}`");
    Problem::general(Severity::Error, what, format!("nothing is done without it ({known}): create it, or say --node NAME"))
}

fn listen(cluster: &Cluster<'_>) -> ListenConfig {
    let addresses = match cluster.defaults.bind_mode {
        BindMode::NodeIp => cluster.node.addresses().map(|address| address.address).collect(),
        BindMode::None => cluster.environment.listen.clone(),
    };
    ListenConfig { port: cluster.port_of(cluster.name).unwrap_or(DEFAULT_PORT), addresses }
}

/// Blocks that get a blackhole: those affine to this node, host routes excepted.
fn blocks(cluster: &Cluster<'_>) -> Vec<IpNet> {
    let mut blocks: Vec<_> = own_blocks(cluster).map(|(cidr, _)| cidr).filter(|cidr| cidr.prefix_len() < cidr.max_prefix_len()).collect();
    blocks.sort_unstable();
    blocks.dedup();
    blocks
}

/// Blocks of this node, and whether they are confirmed.
pub(super) fn own_blocks<'a>(cluster: &'a Cluster<'_>) -> impl Iterator<Item = (IpNet, bool)> + 'a {
    let own = cluster.store.affinities_of(cluster.name).filter(|affinity| !affinity.void);
    own.filter(|affinity| affinity.state != AffinityState::Pending)
        .map(|affinity| (affinity.cidr, affinity.state == AffinityState::Confirmed))
}

/// `BGP_LOGSEVERITYSCREEN`, else our own BGPConfiguration's level, else the cluster's.
fn log_level(cluster: &Cluster<'_>, problems: &mut Vec<Problem>) -> LogLevel {
    let own = cluster.store.configuration(&format!("node.{}", cluster.name)).and_then(|own| own.log_level);
    let configured = own.or(cluster.defaults.log_level).unwrap_or_default();
    let Some(text) = &cluster.environment.log_severity else { return configured };
    LogLevel::parse(text).unwrap_or_else(|| {
        let what = format!("BGP_LOGSEVERITYSCREEN is `{text}`, which is none of Trace, Debug, Info, Warning, Error, Fatal");
        problems.push(Problem::general(Severity::Warning, what, "logSeverityScreen applies"));
        configured
    })
}

fn ignored_interfaces(defaults: &BgpConfiguration) -> Vec<String> {
    defaults.ignored_interfaces.iter().cloned().chain(["cali*".to_owned(), "kube-ipvs*".to_owned()]).collect()
}

/// `CALICO_ROUTER_ID`, else the IPv4 address, else (where BIRD would not start) the hash of the name.
fn router_id(name: &str, node: &Node, environment: &Environment, problems: &mut Vec<Problem>) -> RouterId {
    match environment.router_id.as_deref() {
        Some("hash") => return hashed_router_id(name),
        Some(text) => match text.parse::<Ipv4Addr>() {
            Ok(id) if !id.is_unspecified() => return RouterId(id),
            _ => {
                let what = format!("CALICO_ROUTER_ID is `{text}`, which is neither `hash` nor a dotted quad other than 0.0.0.0");
                problems.push(Problem::general(Severity::Error, what, "the node's IPv4 address (else a hash of its name) is used"));
            }
        },
        None => {}
    }
    match node.ipv4.map(|address| address.address) {
        Some(IpAddr::V4(address)) => RouterId(address),
        _ => hashed_router_id(name),
    }
}

/// Calico's `hash`: the first four octets of SHA-256 of the name, the first one below 224.
fn hashed_router_id(name: &str) -> RouterId {
    let digest = Sha256::digest(name.as_bytes());
    let [first, second, third, fourth, ..] = digest.0;
    let first = if first > 223 { first - 32 } else { first };
    RouterId(Ipv4Addr::new(first, second, third, fourth))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m4_router_id_from_the_name() {
        for (name, id) in
            [("kube-master", "25.79.212.8"), ("node-1", "53.151.27.230"), ("node-18", "213.194.139.227"), ("node-369", "0.55.1.27")]
        {
            assert_eq!(hashed_router_id(name).to_string(), id, "{name}");
        }
    }
}
