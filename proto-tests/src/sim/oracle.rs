//! What the world ought to come to, computed without any of the machines: naive, from the resources, the kernels and the
//! definition of BGP. Every node's table is worked out again and again from what the others would tell it, until nothing
//! changes. It shares with margay the compiler, the policies (which have proofs of their own) and the words, nothing else:
//! no sessions, no encoding, no increments, no groups.
//!
//! Long because it stands for the whole RIB.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use margay::config::{AddPath, FibAction, NextHopMode, NodeConfig, PeerConfig, Ttl};
use margay::fib::{KernelHop, KernelRoute, RouteKey, RouteType};
use margay::origin::LocalTarget;
use margay::policy::{DEFAULT_LOCAL_PREF, METRIC_BASE, RouteSource, Subject, Verdict};
use margay::rib::Step;
use margay::types::{Attributes, ClusterId, Community, NextHop, RouterId, family_of, is_martian};

use super::model_kernel::{MAIN, ModelKernel};

/// Paths used together at most.
const MAX_PATHS: usize = 16;
/// Rounds after which the network is said not to settle.
const ROUNDS: usize = 100;

/// A node as the oracle sees it.
#[derive(Debug)]
pub struct Node<'a> {
    /// Its configuration.
    pub config: &'a NodeConfig,
    /// Its kernel.
    pub kernel: &'a ModelKernel,
}

/// A session that must be up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// This side.
    pub node: usize,
    /// Its name there.
    pub peer: String,
    /// The other side.
    pub remote: usize,
    /// Its name there.
    pub remote_peer: String,
    /// Our address on it.
    pub local_address: IpAddr,
    /// Theirs.
    pub remote_address: IpAddr,
}

#[derive(Clone, Debug, PartialEq)]
struct Candidate {
    source: RouteSource,
    /// Name of the session it came by.
    peer: Option<String>,
    client: bool,
    identifier: RouterId,
    address: IpAddr,
    attributes: Attributes,
    preference: u8,
    local: Option<LocalTarget>,
    kernel_metric: Option<u32>,
    resolution: Resolution,
}

#[derive(Clone, Debug, PartialEq)]
enum Resolution {
    /// A local route that needs none.
    Needless,
    Own,
    Nowhere,
    Via {
        hops: Vec<(IpAddr, u32)>,
        near: bool,
    },
}

/// By prefix and, with ADD-PATH, by the number of the path and where the teller has it from.
type Heard = BTreeMap<(IpNet, String), Attributes>;

/// What the world ought to come to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Our routes in each kernel.
    pub fibs: Vec<BTreeSet<String>>,
    /// What each node hears by each session: the mirror's other side.
    pub heard: BTreeMap<(usize, String), BTreeMap<(IpNet, String), Attributes>>,
    /// Steps of the decision that removed somebody.
    pub steps: BTreeSet<Step>,
}

/// See the module.
#[derive(Debug)]
pub struct Oracle<'a> {
    nodes: Vec<Node<'a>>,
    /// Sessions of every node.
    pub sessions: Vec<Session>,
    /// A step that is decided the wrong way round, to prove that it would be noticed.
    pub wrong_step: Option<Step>,
}

impl<'a> Oracle<'a> {
    /// An oracle for these nodes.
    pub fn new(nodes: Vec<Node<'a>>) -> Self {
        let mut oracle = Self { nodes, sessions: Vec::new(), wrong_step: None };
        oracle.sessions = oracle.find_sessions();
        oracle
    }

    fn find_sessions(&self) -> Vec<Session> {
        let mut sessions = Vec::new();
        for (node, one) in self.nodes.iter().enumerate() {
            for peer in one.config.peers.values() {
                let Some(local) = peer.local_address.or_else(|| one.kernel.source_for(peer.address)) else { continue };
                let Some(remote) = self.nodes.iter().position(|other| other.kernel.owns(peer.address)).filter(|at| *at != node) else {
                    continue;
                };
                let answers = |theirs: &&std::sync::Arc<PeerConfig>| {
                    theirs.address == local
                        && theirs.local_address.is_none_or(|address| address == peer.address)
                        && theirs.remote_asn == peer.local_asn
                        && theirs.local_asn == peer.remote_asn
                };
                if let Some(theirs) = self.nodes[remote].config.peers.values().find(answers) {
                    sessions.push(Session {
                        node,
                        peer: peer.name.clone(),
                        remote,
                        remote_peer: theirs.name.clone(),
                        local_address: local,
                        remote_address: peer.address,
                    });
                }
            }
        }
        sessions
    }

    fn peer(&self, session: &Session) -> &PeerConfig {
        &self.nodes[session.node].config.peers[&session.peer]
    }

    /// Works it out.
    ///
    /// # Errors
    /// The network does not settle.
    pub fn work_out(&self) -> Result<Outcome, String> {
        let mut heard: BTreeMap<(usize, String), Heard> = BTreeMap::new();
        for _ in 0..ROUNDS {
            let mut next = BTreeMap::new();
            for node in 0..self.nodes.len() {
                let table = self.table(node, &heard);
                for session in self.sessions.iter().filter(|session| session.node == node) {
                    next.insert((session.remote, session.remote_peer.clone()), self.told(session, &table));
                }
            }
            if next == heard {
                return Ok(self.outcome(heard));
            }
            heard = next;
        }
        Err(format!("the oracle's network does not settle in {ROUNDS} rounds"))
    }

    fn outcome(&self, heard: BTreeMap<(usize, String), Heard>) -> Outcome {
        let mut outcome = Outcome { heard, ..Outcome::default() };
        for node in 0..self.nodes.len() {
            let table = self.table(node, &outcome.heard);
            let mut routes = BTreeSet::new();
            for (prefix, candidates) in &table {
                let chosen = self.decide(candidates, &mut outcome.steps);
                if let Some(route) = self.kernel_route(node, *prefix, &chosen)
                    && !self.is_taken(node, &route.key)
                {
                    routes.insert(super::model_kernel::show(&route));
                }
            }
            outcome.fibs.push(routes);
        }
        outcome
    }

    fn is_taken(&self, node: usize, key: &RouteKey) -> bool {
        let Node { config, kernel } = &self.nodes[node];
        kernel.routes.get(key).is_some_and(|route| route.protocol != config.fib.protocol)
    }

    // ── what a node has ─────────────────────────────────────────────────────────────────────────────────────────────────

    fn table(&self, node: usize, heard: &BTreeMap<(usize, String), Heard>) -> BTreeMap<IpNet, Vec<Candidate>> {
        let mut table: BTreeMap<IpNet, Vec<Candidate>> = BTreeMap::new();
        for (prefix, candidate) in self.locals(node) {
            table.entry(prefix).or_default().push(candidate);
        }
        for session in self.sessions.iter().filter(|session| session.node == node) {
            for ((prefix, _), attributes) in heard.get(&(node, session.peer.clone())).into_iter().flatten() {
                if let Some(candidate) = self.import(session, *prefix, attributes) {
                    table.entry(*prefix).or_default().push(candidate);
                }
            }
        }
        table
    }

    fn locals(&self, node: usize) -> Vec<(IpNet, Candidate)> {
        let Node { config, kernel } = &self.nodes[node];
        let mut locals = Vec::new();
        let mut add = |source: RouteSource, prefix: IpNet, target: LocalTarget, metric: Option<u32>| {
            let unspecified: IpAddr = if prefix.addr().is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let (address, resolution) = match &target {
                LocalTarget::Gateway(gateway) => (*gateway, self.resolve(node, NextHop::Global(*gateway), true)),
                LocalTarget::Via(hops) => (hops.first().and_then(|hop| hop.gateway).unwrap_or(unspecified), Resolution::Needless),
                LocalTarget::Blackhole => (unspecified, Resolution::Needless),
            };
            if is_martian(&prefix) || resolution == Resolution::Nowhere || resolution == Resolution::Own {
                return;
            }
            let candidate = Candidate {
                source,
                peer: None,
                client: false,
                identifier: config.router_id,
                address: unspecified,
                attributes: Attributes::originated(NextHop::Global(address)),
                preference: source.preference(),
                local: Some(target),
                kernel_metric: metric,
                resolution,
            };
            locals.push((prefix, candidate));
        };
        for block in config.origin.blocks.iter().filter(|block| block.prefix_len() < block.max_prefix_len()) {
            add(RouteSource::Block, block.trunc(), LocalTarget::Blackhole, None);
        }
        for service in &config.origin.services {
            add(RouteSource::Service, service.trunc(), LocalTarget::Blackhole, None);
        }
        for (host, gateway) in &config.origin.static_routes {
            add(RouteSource::Static, *host, LocalTarget::Gateway(*gateway), None);
        }
        let ignored = |name: &str| config.origin.ignored_interfaces.iter().any(|pattern| matches(pattern, name));
        let mut subnets: BTreeMap<IpNet, u32> = BTreeMap::new();
        for ((index, address), facts) in &kernel.addresses {
            let usable = kernel.links.get(index).is_some_and(|link| link.up && !ignored(&link.name));
            if usable && facts.global && !facts.secondary {
                subnets.entry(address.trunc()).or_insert(*index);
            }
        }
        for (subnet, index) in subnets {
            let hop = KernelHop { gateway: None, interface: index, onlink: false };
            add(RouteSource::Device, subnet, LocalTarget::Via([hop].into()), None);
        }
        let mut learned: BTreeMap<IpNet, &KernelRoute> = BTreeMap::new();
        for route in kernel.routes.values() {
            let known = route.key.table == MAIN && route.key.tos == 0 && route.protocol > 2 && route.protocol != config.fib.protocol;
            let on_link = |hop: &KernelHop| hop.gateway.is_none_or(|gateway| is_on_link(kernel, hop.interface, gateway));
            if known && route.hops.iter().all(on_link) {
                learned.entry(route.key.prefix).or_insert(route);
            }
        }
        for (prefix, route) in learned {
            let target = if route.kind == RouteType::Unicast { LocalTarget::Via(route.hops.clone()) } else { LocalTarget::Blackhole };
            add(RouteSource::Kernel, prefix, target, Some(route.key.metric));
        }
        locals
    }

    fn resolve(&self, node: usize, next_hop: NextHop, connected: bool) -> Resolution {
        let Node { config, kernel } = &self.nodes[node];
        let address = next_hop.address().to_canonical();
        if kernel.addresses.keys().any(|(_, net)| net.addr() == address) {
            return Resolution::Own;
        }
        let up = |index: &u32| kernel.links.get(index).is_some_and(|link| link.up);
        let subnets = kernel.addresses.keys().filter(|(index, net)| net.contains(&address) && up(index));
        let subnet = subnets.max_by_key(|(index, net)| (net.prefix_len(), Reverse(*index)));
        let usable = |route: &&KernelRoute| {
            route.key.table == MAIN
                && route.key.tos == 0
                && route.protocol != config.fib.protocol
                && route.key.prefix.contains(&address)
                && (route.kind != RouteType::Unicast || route.hops.iter().any(|hop| up(&hop.interface)))
        };
        let route = kernel.routes.values().filter(usable).max_by_key(|route| (route.key.prefix.prefix_len(), Reverse(route.key.metric)));
        match (subnet, route) {
            (Some((index, net)), route) if route.is_none_or(|route| route.key.prefix.prefix_len() <= net.prefix_len()) => {
                Resolution::Via { hops: vec![(address, *index)], near: true }
            }
            (_, Some(route)) if route.kind == RouteType::Unicast => {
                let near = route.hops.iter().all(|hop| hop.gateway.is_none());
                if connected && !near {
                    return Resolution::Nowhere;
                }
                let hops = route.hops.iter().filter(|hop| up(&hop.interface));
                let mut hops: Vec<_> = hops.map(|hop| (hop.gateway.unwrap_or(address), hop.interface)).collect();
                hops.sort_unstable();
                Resolution::Via { hops, near }
            }
            _ => Resolution::Nowhere,
        }
    }

    fn interface(&self, node: usize, candidate: &Candidate) -> Option<&str> {
        let index = match (&candidate.resolution, &candidate.local) {
            (Resolution::Via { hops, .. }, _) => hops.first()?.1,
            (Resolution::Needless, Some(LocalTarget::Via(hops))) => hops.first()?.interface,
            _ => return None,
        };
        self.nodes[node].kernel.links.get(&index).map(|link| &*link.name)
    }

    // ── what it makes of what it hears ──────────────────────────────────────────────────────────────────────────────────

    fn import(&self, session: &Session, prefix: IpNet, received: &Attributes) -> Option<Candidate> {
        let (peer, node) = (self.peer(session), session.node);
        let Node { config, kernel } = &self.nodes[node];
        let looped = received.as_path.asns().filter(|asn| *asn == peer.local_asn).count() > peer.allow_local_as as usize
            || received.rare.originator_id == Some(config.router_id)
            || received.rare.cluster_list.contains(&cluster(config, peer));
        let own = kernel.addresses.keys().any(|(_, net)| net.trunc() == prefix || IpNet::from(net.addr()) == prefix);
        if looped || own || received.next_hop.is_martian() || is_martian(&prefix) {
            return None;
        }
        let source = if peer.is_ibgp() { RouteSource::Ibgp } else { RouteSource::Ebgp };
        let mut attributes = received.clone();
        if source == RouteSource::Ebgp {
            attributes.local_pref = received.has_community(Community::GRACEFUL_SHUTDOWN).then_some(0);
        }
        let resolution = self.resolve(node, received.next_hop, peer.ttl == Ttl::Direct && !peer.is_ibgp());
        let mut candidate = Candidate {
            source,
            peer: Some(peer.name.clone()),
            client: peer.reflector_client && peer.is_ibgp(),
            identifier: self.nodes[session.remote].config.router_id,
            address: session.remote_address,
            attributes: attributes.clone(),
            preference: source.preference(),
            local: None,
            kernel_metric: None,
            resolution,
        };
        let mut subject = Subject {
            prefix,
            source,
            interface: self.interface(node, &candidate),
            session_is_ebgp: source == RouteSource::Ebgp,
            metric: None,
            preference: source.preference(),
            attributes: Cow::Owned(attributes),
        };
        let accepted = peer.import.of(family_of(&prefix))?.apply(&mut subject).verdict == Verdict::Accept;
        (candidate.preference, candidate.attributes) = (subject.preference, subject.attributes.into_owned());
        accepted.then_some(candidate)
    }

    /// The best path first, then those used with it.
    fn decide<'c>(&self, candidates: &'c [Candidate], steps: &mut BTreeSet<Step>) -> Vec<&'c Candidate> {
        let eligible = candidates.iter().filter(|c| c.resolution != Resolution::Own);
        let mut alive: Vec<&Candidate> = eligible.collect();
        let mut keep = |step: Step, measure: &dyn Fn(&Candidate) -> u64| {
            let values = alive.iter().map(|candidate| measure(candidate));
            let limit = if self.wrong_step == Some(step) { values.max() } else { values.min() };
            let before = alive.len();
            alive.retain(|candidate| Some(measure(candidate)) == limit);
            if alive.len() < before {
                steps.insert(step);
            }
        };
        keep(Step::Preference, &|c| (u64::from(255 - c.preference) << 1) + u64::from(c.source.is_bgp()));
        keep(Step::Resolvable, &|c| u64::from(c.resolution == Resolution::Nowhere));
        keep(Step::LongLivedStale, &|c| u64::from(c.attributes.has_community(Community::LLGR_STALE)));
        keep(Step::LocalPref, &|c| u64::from(u32::MAX - c.attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)));
        keep(Step::AsPathLength, &|c| c.attributes.as_path.length() as u64);
        keep(Step::Origin, &|c| c.attributes.origin as u64);
        let before = alive.clone();
        let med = |c: &Candidate| c.attributes.med.unwrap_or(0);
        alive.retain(|c| {
            !before.iter().any(|rival| rival.attributes.as_path.first() == c.attributes.as_path.first() && med(rival) < med(c))
        });
        let mut keep = |step: Step, measure: &dyn Fn(&Candidate) -> u64| {
            let values = alive.iter().map(|candidate| measure(candidate));
            let limit = if self.wrong_step == Some(step) { values.max() } else { values.min() };
            let before = alive.len();
            alive.retain(|candidate| Some(measure(candidate)) == limit);
            if alive.len() < before {
                steps.insert(step);
            }
        };
        keep(Step::EbgpOverIbgp, &|c| u64::from(c.source != RouteSource::Ebgp));
        keep(Step::IgpMetric, &|c| match &c.resolution {
            Resolution::Needless | Resolution::Via { near: true, .. } => 0,
            _ => 1,
        });
        alive.sort_by_key(|c| {
            let router_id = c.attributes.rare.originator_id.unwrap_or(c.identifier);
            (router_id, c.attributes.rare.cluster_list.len(), c.address, c.source)
        });
        if self.wrong_step == Some(Step::RouterId) {
            // The wrong one is best, and is thought to be better than its equals.
            alive.reverse();
            alive.truncate(1);
        }
        if alive.len() > 1 {
            steps.insert(Step::RouterId);
        }
        let multipath = alive.first().is_some_and(|best| best.source.is_bgp() && best.resolution != Resolution::Nowhere);
        alive.truncate(if multipath { MAX_PATHS } else { 1 });
        alive
    }

    // ── what it tells ───────────────────────────────────────────────────────────────────────────────────────────────────

    fn told(&self, session: &Session, table: &BTreeMap<IpNet, Vec<Candidate>>) -> Heard {
        let (peer, theirs) = (self.peer(session), &self.nodes[session.remote].config.peers[&session.remote_peer]);
        let mut told = Heard::new();
        for (prefix, candidates) in table {
            let family = family_of(prefix);
            if !peer.families.has(family) || !theirs.families.has(family) {
                continue;
            }
            if matches!(peer.add_path, AddPath::Send | AddPath::Both) && matches!(theirs.add_path, AddPath::Receive | AddPath::Both) {
                let usable = candidates.iter().filter(|candidate| candidate.resolution != Resolution::Own);
                for (number, candidate) in usable.enumerate() {
                    // With ADD-PATH a peer has told several, perhaps.
                    let from = candidate.peer.clone().unwrap_or_else(|| format!("{:?}", candidate.source));
                    if let Some(sent) = self.export(session, peer, *prefix, candidate) {
                        told.insert((*prefix, format!("{number} {from}")), sent);
                    }
                }
                continue;
            }
            let chosen = self.decide(candidates, &mut BTreeSet::new());
            if let Some(sent) = chosen.first().and_then(|best| self.export(session, peer, *prefix, best)) {
                told.insert((*prefix, String::new()), sent);
            }
        }
        told
    }

    fn export(&self, session: &Session, peer: &PeerConfig, prefix: IpNet, best: &Candidate) -> Option<Attributes> {
        let config = self.nodes[session.node].config;
        let external = !peer.is_ibgp();
        let own_learned = best.peer.as_ref() == Some(&peer.name);
        let ibgp = best.source == RouteSource::Ibgp;
        let held_back = best.attributes.communities.iter().any(|community| match *community {
            Community::NO_ADVERTISE => true,
            Community::NO_EXPORT | Community::NO_EXPORT_SUBCONFED => external,
            _ => false,
        });
        if own_learned || held_back || (ibgp && !best.client && !external && !peer.reflector_client) {
            return None;
        }
        let mut attributes = best.attributes.clone();
        attributes.next_hop = self.next_hop(session, peer, prefix, best)?;
        if external {
            if best.source.is_bgp() {
                attributes.med = None;
            }
            attributes.as_path = attributes.as_path.prepend(&[peer.local_asn]);
        } else if ibgp {
            attributes.rare.originator_id.get_or_insert(best.identifier);
            attributes.rare.cluster_list.insert(0, cluster(config, peer));
        }
        let mut subject = Subject {
            prefix,
            source: best.source,
            interface: self.interface(session.node, best),
            session_is_ebgp: external,
            metric: best.kernel_metric,
            preference: best.preference,
            attributes: Cow::Owned(attributes),
        };
        if peer.export.of(family_of(&prefix))?.apply(&mut subject).verdict == Verdict::Reject {
            return None;
        }
        let mut sent = subject.attributes.into_owned();
        if external {
            sent.local_pref = None;
            sent.rare.originator_id = None;
            sent.rare.cluster_list = Vec::new();
        } else {
            sent.local_pref.get_or_insert(DEFAULT_LOCAL_PREF);
        }
        let back = sent.next_hop.address() == session.remote_address
            || sent.rare.originator_id == Some(self.nodes[session.remote].config.router_id);
        (!back).then_some(sent)
    }

    fn next_hop(&self, session: &Session, peer: &PeerConfig, prefix: IpNet, best: &Candidate) -> Option<NextHop> {
        let same_family = |address: IpAddr| address.is_ipv4() == prefix.addr().is_ipv4();
        let keeps = match peer.next_hop_mode {
            NextHopMode::SelfAddress => false,
            NextHopMode::Keep => true,
            NextHopMode::Auto => peer.is_ibgp(),
        };
        let theirs = match &best.local {
            Some(LocalTarget::Via(hops)) if hops.len() == 1 => hops[0].gateway,
            Some(LocalTarget::Gateway(gateway)) => Some(*gateway),
            Some(_) => None,
            None => Some(best.attributes.next_hop.address()),
        };
        let kept = theirs.filter(|address| keeps && same_family(*address));
        let address = kept.or_else(|| Some(session.local_address).filter(|address| same_family(*address)))?;
        Some(NextHop::Global(address))
    }

    // ── what its kernel is to hold ──────────────────────────────────────────────────────────────────────────────────────

    fn kernel_route(&self, node: usize, prefix: IpNet, chosen: &[&Candidate]) -> Option<KernelRoute> {
        let Node { config, kernel } = &self.nodes[node];
        let best = chosen.first()?;
        if matches!(best.source, RouteSource::Device | RouteSource::Kernel) {
            return None;
        }
        let bgp = best.source.is_bgp();
        let rule = config.fib.rules.iter().find(|rule| rule.cidr.contains(&prefix) && (bgp || !rule.learned_only));
        let tunnel = match rule.map(|rule| &rule.action) {
            Some(FibAction::Skip) => return None,
            Some(FibAction::Tunnel { device, unless_in }) => kernel.index_of(device).map(|index| (index, *unless_in)),
            _ => None,
        };
        let local_pref = best.attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF);
        let metric = if bgp { METRIC_BASE.saturating_sub(local_pref) } else { 0 };
        let metric = if metric == 0 && prefix.addr().is_ipv6() { 1024 } else { metric };
        let mut hops: Vec<KernelHop> = Vec::new();
        for candidate in chosen.iter().filter(|_| best.local.is_none() || matches!(best.local, Some(LocalTarget::Gateway(_)))) {
            let Resolution::Via { hops: gateways, .. } = &candidate.resolution else { continue };
            let remote = candidate.attributes.next_hop.address();
            for (gateway, interface) in gateways {
                hops.push(match tunnel {
                    Some((index, unless_in)) if !unless_in.is_some_and(|net| net.contains(&remote)) => {
                        KernelHop { gateway: Some(remote), interface: index, onlink: true }
                    }
                    _ => KernelHop { gateway: Some(*gateway), interface: *interface, onlink: false },
                });
            }
        }
        hops.sort_unstable();
        hops.dedup();
        let kind = match best.local {
            Some(LocalTarget::Blackhole) => RouteType::Blackhole,
            _ if hops.is_empty() => RouteType::Unreachable,
            _ => RouteType::Unicast,
        };
        let key = RouteKey { table: config.fib.table, prefix, metric, tos: 0 };
        Some(KernelRoute { key, protocol: config.fib.protocol, kind, scope: 0, hops: hops.into(), preferred_source: None, object: None })
    }
}

fn cluster(config: &NodeConfig, peer: &PeerConfig) -> ClusterId {
    let of_node = config.peers.values().find_map(|peer| peer.cluster_id);
    peer.cluster_id.or(of_node).unwrap_or(ClusterId(config.router_id.0))
}

fn is_on_link(kernel: &ModelKernel, interface: u32, gateway: IpAddr) -> bool {
    let on = || kernel.addresses.keys().filter(|(index, net)| *index == interface && net.addr().is_ipv4() == gateway.is_ipv4());
    let link_local = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
    link_local || on().any(|(_, net)| net.contains(&gateway) && net.addr() != gateway) || on().next().is_none()
}

/// Shell-like patterns with a star at the end only, as the ignored interfaces have them.
fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |stem| name.starts_with(stem))
}
