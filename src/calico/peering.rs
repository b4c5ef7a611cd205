//! One session: what was asked for, and its whole configuration.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::builtin_policy::{ExportInputs, accepts_anything, export_policy, filtered_export_policy, filtered_import_policy, import_policy};
use super::compile::{Cluster, own_blocks};
use super::filter::CompiledFilter;
use super::pool::pools;
use super::resource::{Annotations, Bfd, DefaultPolicy, NextHop, ProgramClusterRoutes, SecretKey, TcpAo};
use super::service::Services;
use super::{Problem, Severity, Store};
use crate::config::{AoKeys, Authentication, BfdConfig, NextHopMode, PeerConfig, PeerKind, Ttl};
use crate::policy::Policy;
use crate::types::{Asn, ClusterId, Family, PerFamily};

/// Graceful restart time unless a resource says otherwise, seconds.
const RESTART_TIME: u16 = 120;
/// Twelve bits in the capability (RFC 4724 section 3).
const MAX_RESTART_TIME: u64 = 4095;
/// `ipv4NormalRoutePriority` unless set.
const NORMAL_PRIORITY: u32 = 1024;

/// A session that the resources ask for.
#[derive(Clone, Debug)]
pub(super) struct Peering<'a> {
    /// `Mesh_10_0_0_2`.
    pub name: String,
    pub kind: PeerKind,
    /// Kind and name of the resource that asks.
    pub resource: (&'static str, &'a str),
    /// For people.
    pub asked_by: String,
    pub address: IpAddr,
    pub interface: Option<String>,
    /// The peer's port, if known.
    pub port: Option<u16>,
    pub remote_asn: Asn,
    /// `localASNumber`.
    pub local_asn: Option<Asn>,
    /// The cluster that the peer is known to reflect for.
    pub peer_cluster: Option<ClusterId>,
    pub passive: bool,
    pub password: Option<&'a SecretKey>,
    /// The session starts from our BGP address.
    pub from_node_address: bool,
    pub restart_time: Option<u64>,
    pub keepalive: Option<Duration>,
    pub ttl_security: Option<u8>,
    pub allow_local_as: u32,
    pub next_hop: NextHop,
    pub filters: &'a [String],
    pub annotations: Option<&'a Annotations>,
}

impl<'a> Peering<'a> {
    /// The port that is connected to.
    pub fn effective_port(&self) -> u16 {
        self.port.unwrap_or(179)
    }

    /// The whole configuration.
    pub fn configure(&self, cluster: &Cluster<'_>, policies: &mut Policies<'_>, problems: &mut Vec<Problem>) -> PeerConfig {
        let local_asn = self.local_asn.unwrap_or(cluster.asn);
        let is_ibgp = local_asn == self.remote_asn;
        let own_cluster = cluster.node.cluster_id;
        let annotations = self.annotations(cluster);
        let link_local = self.interface.is_some();
        let families = self.families();
        let default_policy = if is_ibgp { DefaultPolicy::Calico } else { annotations.default_policy.unwrap_or_default() };
        let (import, export) = policies.of(self, families, default_policy, problems);
        let usual = PeerConfig::new(self.name.clone(), (local_asn, cluster.router_id), (self.address, self.remote_asn));
        PeerConfig {
            kind: self.kind,
            cluster_node: self.kind == PeerKind::Mesh || cluster.store.nodes_at(self.address).next().is_some(),
            asked_by: self.asked_by.clone(),
            interface: self.interface.clone(),
            port: self.effective_port(),
            local_address: cluster
                .node
                .address(self.address.is_ipv4())
                .map(|address| address.address)
                .filter(|_| self.from_node_address && !link_local),
            passive: self.passive,
            authentication: self.authentication(cluster, &annotations, problems),
            ttl: match self.ttl_security {
                Some(hops) => Ttl::Gtsm { hops },
                None if annotations.directly_connected.unwrap_or(false) => Ttl::Direct,
                None => Ttl::Multihop,
            },
            hold_time: annotations.hold_time.unwrap_or(usual.hold_time),
            send_hold: annotations.send_hold.unwrap_or_default(),
            keepalive: self.keepalive,
            restart_time: self.restart_time(cluster, problems),
            long_lived: annotations.long_lived.unwrap_or(None),
            long_lived_partial: annotations.long_lived_partial.unwrap_or(false),
            consecutive_restarts: annotations.consecutive_restarts.unwrap_or_default(),
            families,
            add_path: annotations.add_path.unwrap_or(usual.add_path),
            extended_messages: annotations.extended_messages.unwrap_or(false),
            extended_next_hop: link_local,
            reflector_client: is_ibgp && own_cluster.is_some() && self.peer_cluster != own_cluster,
            cluster_id: own_cluster,
            next_hop_mode: match self.next_hop {
                NextHop::Mode(mode) => mode,
                NextHop::KeepOriginal if !is_ibgp => NextHopMode::Keep,
                NextHop::KeepOriginal | NextHop::Default => NextHopMode::Auto,
            },
            allow_local_as: self.allow_local_as,
            max_prefixes: annotations.max_prefixes.unwrap_or_default(),
            role: annotations.role.filter(|_| !is_ibgp),
            host_name: annotations.host_name.unwrap_or(true).then(|| cluster.name.into()),
            discard_attributes: annotations.discard_attributes.unwrap_or_default(),
            as_path: annotations.as_path.unwrap_or_default(),
            bfd: annotations.bfd.and_then(|bfd| self.bfd(bfd, cluster, &annotations)),
            import,
            export,
            ..usual
        }
    }

    /// One hop where the peer is on a network of the node, unless the annotation says otherwise.
    fn bfd(&self, bfd: Bfd, cluster: &Cluster<'_>, annotations: &Annotations) -> Option<BfdConfig> {
        let Bfd::On { interval, multiplier, multihop, strict, graceful } = bfd else { return None };
        let on_link = self.interface.is_some()
            || annotations.directly_connected == Some(true)
            || cluster.node.address(self.address.is_ipv4()).is_some_and(|own| own.subnet.contains(&self.address));
        Some(BfdConfig { interval, multiplier, multihop: multihop.unwrap_or(!on_link), strict, graceful })
    }

    /// The settings of the BGPPeer, else of our node's own BGPConfiguration, else of the cluster's.
    fn annotations(&self, cluster: &Cluster<'_>) -> Annotations {
        let own = cluster.store.configuration(&format!("node.{}", cluster.name));
        let layers = [self.annotations, own.map(|own| &own.annotations), Some(&cluster.defaults.annotations)];
        layers.into_iter().flatten().fold(Annotations::default(), |settings, layer| settings.or(layer))
    }

    /// A session carries the family of its addresses; over link-local ones, which belong to no plan of addresses, both (N12).
    fn families(&self) -> PerFamily<bool> {
        let link_local = self.interface.is_some();
        PerFamily { ipv4: link_local || self.address.is_ipv4(), ipv6: self.address.is_ipv6() }
    }

    /// Fails closed: where a key is asked for and cannot be had, the session waits (unless it is `optional`).
    fn authentication(&self, cluster: &Cluster<'_>, annotations: &Annotations, problems: &mut Vec<Problem>) -> Authentication {
        if let Some(settings) = &annotations.tcp_ao {
            return self.tcp_ao(cluster, settings).unwrap_or_else(|what| {
                let field = "metadata.annotations.margay.io/tcp-ao";
                problems.push(self.problem(
                    cluster.store,
                    Severity::Error,
                    field,
                    what.clone(),
                    "the session waits rather than run unprotected",
                ));
                Authentication::Missing(what)
            });
        }
        let Some(reference) = self.password else { return Authentication::None };
        let secret = cluster.store.secret(&cluster.environment.namespace, &reference.name);
        match secret.and_then(|secret| secret.data.get(&reference.key)) {
            Some(password) if (1..=80).contains(&password.0.len()) => Authentication::Md5(password.clone()),
            Some(password) => {
                let what = format!("{reference} has {} octets; TCP-MD5 takes 1 to 80", password.0.len());
                problems.push(self.problem(
                    cluster.store,
                    Severity::Error,
                    self.password_field(),
                    what,
                    "the session waits for a usable key",
                ));
                Authentication::Missing(reference.to_string())
            }
            None if reference.optional => Authentication::None,
            None => {
                let namespace = &cluster.environment.namespace;
                let what = format!("there is no {reference} in namespace {namespace}");
                problems.push(self.problem(cluster.store, Severity::Error, self.password_field(), what, "the session waits for it"));
                Authentication::Missing(reference.to_string())
            }
        }
    }

    /// The keys of TCP-AO, or what is missing.
    fn tcp_ao(&self, cluster: &Cluster<'_>, settings: &TcpAo) -> Result<Authentication, String> {
        let (namespace, name) = (&cluster.environment.namespace, &settings.secret);
        let secret = cluster.store.secret(namespace, name).ok_or_else(|| format!("there is no Secret {name} in namespace {namespace}"))?;
        let mut keys = BTreeMap::new();
        for (number, key) in &secret.data {
            let number: u8 = number.parse().map_err(|_| format!("Secret {name}: key `{number}` is not named by a number from 0 to 255"))?;
            if !(1..=80).contains(&key.0.len()) {
                return Err(format!("Secret {name}: key {number} has {} octets; TCP-AO takes 1 to 80", key.0.len()));
            }
            keys.insert(number, key.clone());
        }
        let greatest = *keys.last_key_value().ok_or_else(|| format!("Secret {name} has no keys"))?.0;
        let current = settings.current.unwrap_or(greatest);
        if !keys.contains_key(&current) {
            return Err(format!("Secret {name} has no key {current}"));
        }
        Ok(Authentication::Ao(AoKeys { keys, current, algorithm: settings.algorithm }))
    }

    fn restart_time(&self, cluster: &Cluster<'_>, problems: &mut Vec<Problem>) -> u16 {
        let Some(seconds) = self.restart_time else { return RESTART_TIME };
        if seconds > MAX_RESTART_TIME {
            let field = if self.kind == PeerKind::Mesh { "spec.nodeMeshMaxRestartTime" } else { "spec.maxRestartTime" };
            let what = format!("{seconds} s does not fit the capability");
            problems.push(self.problem(cluster.store, Severity::Warning, field, what, "4095 s is announced"));
        }
        u16::try_from(seconds.min(MAX_RESTART_TIME)).unwrap_or(RESTART_TIME)
    }

    fn password_field(&self) -> &'static str {
        if self.kind == PeerKind::Mesh { "spec.nodeMeshPassword" } else { "spec.password" }
    }

    /// A problem of the resource that asks for the session.
    pub fn problem(&self, store: &Store, severity: Severity, field: &str, what: String, instead: &str) -> Problem {
        store.problem(self.resource.0, self.resource.1, severity, field, what, instead)
    }
}

/// Import and export policy.
type Pair = (Arc<Policy>, Arc<Policy>);

/// Policies by family, list of filters and what comes after them.
pub(super) type Made = BTreeMap<(Family, Vec<String>, DefaultPolicy), Pair>;

/// Makes policies, each list of filters once: sessions with the same filters share their policies.
#[derive(Debug)]
pub(super) struct Policies<'a> {
    cluster: &'a Cluster<'a>,
    inputs: PerFamily<ExportInputs>,
    /// Of another time: where they are the same, they stay the same in memory.
    before: Made,
    made: Made,
    /// For the family that a session does not carry.
    nothing: Arc<Policy>,
}

impl<'a> Policies<'a> {
    /// A maker that has `made` already, and had made `before`.
    pub fn new(cluster: &'a Cluster<'a>, services: &Services, before: Made, made: Made) -> Self {
        let inputs = PerFamily {
            ipv4: export_inputs(cluster, services, Family::IPV4_UNICAST),
            ipv6: export_inputs(cluster, services, Family::IPV6_UNICAST),
        };
        Self { cluster, inputs, before, made, nothing: Arc::default() }
    }

    /// All that was made.
    pub fn into_made(self) -> Made {
        self.made
    }

    /// Import and export policy of a session, by family.
    fn of(
        &mut self,
        peering: &Peering<'_>,
        families: PerFamily<bool>,
        default: DefaultPolicy,
        problems: &mut Vec<Problem>,
    ) -> (PerFamily<Arc<Policy>>, PerFamily<Arc<Policy>>) {
        let filters = self.filters(peering, problems);
        let pairs =
            families.map(|family, carried| if carried { self.pair(&filters, peering.filters, family, default) } else { self.nothing() });
        let carried = || pairs.iter().filter(|(family, _)| families.has(*family)).map(|(_, pair)| pair);
        if default == DefaultPolicy::Reject && !carried().any(|(import, export)| accepts_anything(import) || accepts_anything(export)) {
            let what = "margay.io/default-policy is reject, and no BGPFilter of this session accepts anything".to_owned();
            let instead = "nothing is learned from the peer or advertised to it (RFC 8212) until spec.filters names one that does";
            problems.push(peering.problem(self.cluster.store, Severity::Warning, "spec.filters", what, instead));
        }
        (pairs.clone().map(|_, (import, _)| import), pairs.map(|_, (_, export)| export))
    }

    /// A filter that is missing restricts nothing, as with Calico, but is named.
    fn filters(&self, peering: &Peering<'_>, problems: &mut Vec<Problem>) -> Vec<&'a CompiledFilter> {
        let store = self.cluster.store;
        let mut filters = Vec::new();
        for (index, name) in peering.filters.iter().enumerate() {
            match store.filter(name) {
                Some(filter) => filters.push(filter),
                None => {
                    let (what, field) = (format!("there is no BGPFilter `{name}`"), format!("spec.filters[{index}]"));
                    problems.push(peering.problem(store, Severity::Warning, &field, what, "nothing is filtered in its place"));
                }
            }
        }
        filters
    }

    fn pair(&mut self, filters: &[&CompiledFilter], names: &[String], family: Family, default: DefaultPolicy) -> Pair {
        let key = (family, names.to_vec(), default);
        if let Some(made) = self.made.get(&key) {
            return made.clone();
        }
        self.cluster.work.count(|work| work.policies += 1);
        let inputs = if family == Family::IPV4_UNICAST { &self.inputs.ipv4 } else { &self.inputs.ipv6 };
        let (import, export) = match default {
            DefaultPolicy::Calico => (import_policy(filters, family, inputs.normal_priority), export_policy(filters, inputs)),
            DefaultPolicy::Reject => (filtered_import_policy(filters, family), filtered_export_policy(filters, inputs)),
        };
        let (import_before, export_before) = self.before.remove(&key).unzip();
        let pair = (unless_same(import, import_before), unless_same(export, export_before));
        self.made.insert(key, pair.clone());
        pair
    }

    fn nothing(&self) -> Pair {
        (self.nothing.clone(), self.nothing.clone())
    }
}

/// The policy, in the memory that it had before if it is the same.
fn unless_same(policy: Policy, before: Option<Arc<Policy>>) -> Arc<Policy> {
    before.filter(|before| **before == policy).unwrap_or_else(|| Arc::new(policy))
}

fn export_inputs(cluster: &Cluster<'_>, services: &Services, family: Family) -> ExportInputs {
    let defaults = cluster.defaults;
    let own = cluster.store.configuration(&format!("node.{}", cluster.name));
    let priority = if family == Family::IPV4_UNICAST { defaults.ipv4_priority } else { defaults.ipv6_priority };
    let reflected = |list: &[IpNet]| if cluster.node.cluster_id.is_some() { list.to_vec() } else { Vec::new() };
    let mut confirmed_blocks: Vec<IpNet> = own_blocks(cluster).filter(|(_, confirmed)| *confirmed).map(|(cidr, _)| cidr).collect();
    confirmed_blocks.sort_unstable();
    confirmed_blocks.dedup();
    ExportInputs {
        family,
        normal_priority: priority.unwrap_or(NORMAL_PRIORITY),
        confirmed_blocks,
        pools: pools(cluster, &mut Vec::new()).into_values().map(|(_, pool)| (pool.cidr, !pool.disable_bgp_export)).collect(),
        services: services.advertised.clone(),
        reflected_load_balancers: reflected(&defaults.load_balancer_ips),
        reflected_externals: reflected(&defaults.external_ips),
        owns_ipip: matches!(defaults.program_cluster_routes, ProgramClusterRoutes::Enabled | ProgramClusterRoutes::EnabledIpipOnly),
        advertisements: own
            .and_then(|own| own.prefix_advertisements.clone())
            .or_else(|| defaults.prefix_advertisements.clone())
            .unwrap_or_default(),
    }
}
