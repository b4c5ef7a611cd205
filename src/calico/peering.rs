//! One session: what was asked for, and its whole configuration.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::builtin_policy::{ExportInputs, export_policy, import_policy};
use super::compile::{Cluster, own_blocks};
use super::pool::pools;
use super::resource::{Annotations, NextHop, ProgramClusterRoutes, SecretKey};
use super::service::Services;
use super::{Problem, Severity, Store};
use crate::config::{Authentication, NextHopMode, PeerConfig, PeerKind, Ttl};
use crate::policy::Policy;
use crate::types::{Asn, ClusterId, Family, PerFamily};

/// Hold time that Calico's speakers propose, seconds.
const HOLD_TIME: u16 = 240;
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
    pub fn configure(&self, cluster: &Cluster<'_>, policies: &mut Policies<'a>, problems: &mut Vec<Problem>) -> PeerConfig {
        let local_asn = self.local_asn.unwrap_or(cluster.asn);
        let is_ibgp = local_asn == self.remote_asn;
        let own_cluster = cluster.node.cluster_id;
        let defaults = &cluster.defaults.annotations;
        let annotations = self.annotations.map_or_else(|| defaults.clone(), |own| own.or(defaults));
        let family = family(self.address);
        let (import, export) = policies.of(self, family, problems);
        let nothing = policies.nothing.clone();
        let link_local = self.interface.is_some();
        PeerConfig {
            name: self.name.clone(),
            kind: self.kind,
            asked_by: self.asked_by.clone(),
            address: self.address,
            interface: self.interface.clone(),
            port: self.effective_port(),
            local_asn,
            remote_asn: self.remote_asn,
            router_id: cluster.router_id,
            local_address: cluster
                .node
                .address(self.address.is_ipv4())
                .map(|address| address.address)
                .filter(|_| self.from_node_address && !link_local),
            passive: self.passive,
            authentication: self.authentication(cluster, &annotations, problems),
            ttl: self.ttl_security.map_or(Ttl::Multihop, |hops| Ttl::Gtsm { hops }),
            hold_time: annotations.hold_time.unwrap_or(HOLD_TIME),
            keepalive: self.keepalive,
            connect_delay: Duration::from_secs(2),
            connect_retry: Duration::from_secs(5),
            idle_hold: (Duration::from_secs(5), Duration::from_secs(30)),
            restart_time: self.restart_time(cluster, problems),
            families: PerFamily { ipv4: family == Family::IPV4_UNICAST, ipv6: family == Family::IPV6_UNICAST },
            add_path: annotations.add_path.unwrap_or(true),
            extended_messages: false,
            extended_next_hop: false,
            reflector_client: is_ibgp && own_cluster.is_some() && self.peer_cluster != own_cluster,
            cluster_id: own_cluster,
            next_hop_mode: match self.next_hop {
                NextHop::Mode(mode) => mode,
                NextHop::KeepOriginal if !is_ibgp => NextHopMode::Keep,
                NextHop::KeepOriginal | NextHop::Default => NextHopMode::Auto,
            },
            allow_local_as: self.allow_local_as,
            max_prefixes: annotations.max_prefixes.unwrap_or_default(),
            import: by_family(family, import, &nothing),
            export: by_family(family, export, &nothing),
        }
    }

    /// Fails closed: where a key is asked for and cannot be had, the session waits (unless it is `optional`).
    fn authentication(&self, cluster: &Cluster<'_>, annotations: &Annotations, problems: &mut Vec<Problem>) -> Authentication {
        if annotations.tcp_ao {
            return Authentication::Missing("TCP-AO, which is not supported yet".to_owned());
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

/// The family that a session carries: that of its addresses.
pub(super) fn family(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::IPV4_UNICAST } else { Family::IPV6_UNICAST }
}

fn by_family(family: Family, policy: Arc<Policy>, nothing: &Arc<Policy>) -> PerFamily<Arc<Policy>> {
    match family {
        Family::IPV4_UNICAST => PerFamily { ipv4: policy, ipv6: nothing.clone() },
        _ => PerFamily { ipv4: nothing.clone(), ipv6: policy },
    }
}

/// Import and export policy.
type Pair = (Arc<Policy>, Arc<Policy>);

/// Makes policies, each list of filters once: sessions with the same filters share their policies.
#[derive(Debug)]
pub(super) struct Policies<'a> {
    store: &'a Store,
    inputs: PerFamily<ExportInputs>,
    made: BTreeMap<(Family, &'a [String]), Pair>,
    /// For the family that a session does not carry.
    nothing: Arc<Policy>,
}

impl<'a> Policies<'a> {
    /// No policy is made yet.
    pub fn new(cluster: &Cluster<'a>, services: &Services) -> Self {
        let inputs = PerFamily {
            ipv4: export_inputs(cluster, services, Family::IPV4_UNICAST),
            ipv6: export_inputs(cluster, services, Family::IPV6_UNICAST),
        };
        Self { store: cluster.store, inputs, made: BTreeMap::new(), nothing: Arc::default() }
    }

    /// Import and export policy of a session. A filter that is missing restricts nothing, as with Calico, but is named.
    fn of(&mut self, peering: &Peering<'a>, family: Family, problems: &mut Vec<Problem>) -> Pair {
        let mut filters = Vec::new();
        for (index, name) in peering.filters.iter().enumerate() {
            match self.store.filter(name) {
                Some(filter) => filters.push(filter),
                None => {
                    let (what, field) = (format!("there is no BGPFilter `{name}`"), format!("spec.filters[{index}]"));
                    problems.push(peering.problem(self.store, Severity::Warning, &field, what, "nothing is filtered in its place"));
                }
            }
        }
        let inputs = if family == Family::IPV4_UNICAST { &self.inputs.ipv4 } else { &self.inputs.ipv6 };
        let make = || {
            let import = import_policy(&filters, family, inputs.normal_priority);
            (Arc::new(import), Arc::new(export_policy(&filters, inputs)))
        };
        self.made.entry((family, peering.filters)).or_insert_with(make).clone()
    }
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
