//! BGPConfiguration: `default` for the cluster, `node.<name>` for one node.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::annotation::Annotations;
use super::node::usable_asn;
use super::secret_key::SecretKey;
use super::{Fields, Text};
use crate::calico::builtin_policy::PrefixAdvertisement;
use crate::calico::filter::CommunityValue;
use crate::calico::{Document, Report};
use crate::config::LogLevel;
use crate::types::{Asn, canonical};

/// `bindMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BindMode {
    /// All addresses.
    #[default]
    None,
    /// Only the node's BGP addresses.
    NodeIp,
}

/// `programClusterRoutes`: whose routes margay programs, the others being Felix's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProgramClusterRoutes {
    /// Those of pools without encapsulation.
    #[default]
    EnabledNoEncapOnly,
    /// Those of IPIP pools.
    EnabledIpipOnly,
    /// Both.
    Enabled,
    /// None.
    Disabled,
}

/// A v3 BGPConfiguration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BgpConfiguration {
    /// `logSeverityScreen`.
    pub log_level: Option<LogLevel>,
    /// `nodeToNodeMeshEnabled`; absent means true.
    pub mesh: Option<bool>,
    /// `asNumber`.
    pub asn: Option<Asn>,
    /// `serviceClusterIPs`.
    pub cluster_ips: Vec<IpNet>,
    /// `serviceExternalIPs`.
    pub external_ips: Vec<IpNet>,
    /// `serviceLoadBalancerIPs`.
    pub load_balancer_ips: Vec<IpNet>,
    /// `serviceLoadBalancerAggregation` is Disabled.
    pub no_aggregation: bool,
    /// `prefixAdvertisements`, if the object has the field at all.
    pub prefix_advertisements: Option<Vec<PrefixAdvertisement>>,
    /// `listenPort`.
    pub listen_port: Option<u16>,
    /// `nodeMeshPassword`.
    pub mesh_password: Option<SecretKey>,
    /// `nodeMeshMaxRestartTime`, seconds.
    pub mesh_restart_time: Option<u64>,
    /// `bindMode`.
    pub bind_mode: BindMode,
    /// `ignoredInterfaces`.
    pub ignored_interfaces: Vec<String>,
    /// `programClusterRoutes`.
    pub program_cluster_routes: ProgramClusterRoutes,
    /// `ipv4NormalRoutePriority`.
    pub ipv4_priority: Option<u32>,
    /// `ipv6NormalRoutePriority`.
    pub ipv6_priority: Option<u32>,
    /// `margay.io/` annotations.
    pub annotations: Annotations,
}

/// Fields that a `node.` object may set; the others are read from `default` alone.
const PER_NODE: [&str; 4] = ["logSeverityScreen", "listenPort", "prefixAdvertisements", "communities"];

/// Felix's own.
const OTHERS: [&str; 2] = ["localWorkloadPeeringIPV4", "localWorkloadPeeringIPV6"];

/// Greatest route priority: LOCAL_PREF, which is 2147483647 less the priority, stays positive.
const MAX_PRIORITY: u32 = 2_147_483_646;

impl BgpConfiguration {
    /// Reads the document. What is wrong is left out and reported.
    pub fn decode(document: &Document, report: &mut Report<'_>) -> Self {
        Fields::require_object(report, document, "spec");
        let name = report.key().name.clone();
        let mut spec = Fields::of(document, "spec");
        if name != "default" && !name.starts_with("node.") {
            report.warning("metadata.name", "only `default` and `node.<name>` have a meaning", "ignored");
            return Self::default();
        }
        let mut configuration = Self {
            log_level: log_level(&mut spec, report),
            listen_port: port(&mut spec, report),
            prefix_advertisements: advertisements(&mut spec, report),
            annotations: Annotations::decode(document, report),
            ..Self::default()
        };
        if configuration.annotations.interface.take().is_some() {
            let field = "metadata.annotations.margay.io/interface";
            report.warning(field, "an interface belongs to one peer", "ignored; set it on the BGPPeer");
        }
        if name == "default" {
            configuration.read_cluster_wide(&mut spec, report);
        } else {
            for field in document.object.get("spec").and_then(|spec| spec.as_object()).into_iter().flat_map(|spec| spec.keys()) {
                if !PER_NODE.contains(&field.as_str()) && spec.raw(field).is_some() && field != "serviceLoadBalancerAggregation" {
                    report.info(&spec.path(field), "is read from BGPConfiguration default alone", "ignored");
                }
            }
        }
        spec.finish(report, &OTHERS);
        configuration
    }

    fn read_cluster_wide(&mut self, spec: &mut Fields<'_>, report: &mut Report<'_>) {
        self.mesh = spec.switch(report, "nodeToNodeMeshEnabled");
        for field in ["asNumber", "ipv4NormalRoutePriority", "ipv6NormalRoutePriority"] {
            spec.note_zero(report, field);
        }
        self.asn = usable_asn(spec, report, "asNumber");
        self.cluster_ips = cidrs(spec, report, "serviceClusterIPs");
        self.external_ips = cidrs(spec, report, "serviceExternalIPs");
        self.load_balancer_ips = cidrs(spec, report, "serviceLoadBalancerIPs");
        self.no_aggregation =
            spec.word(report, "serviceLoadBalancerAggregation", &[("Enabled", false), ("Disabled", true)]).unwrap_or(false);
        self.mesh_password = SecretKey::decode(spec, report, "nodeMeshPassword");
        self.mesh_restart_time = spec.seconds(report, "nodeMeshMaxRestartTime");
        self.bind_mode = spec.word(report, "bindMode", &[("None", BindMode::None), ("NodeIP", BindMode::NodeIp)]).unwrap_or_default();
        self.ignored_interfaces =
            spec.get::<Vec<Text>>(report, "ignoredInterfaces").unwrap_or_default().into_iter().map(|text| text.0).collect();
        self.program_cluster_routes = program_cluster_routes(spec, report);
        self.ipv4_priority = spec.number(report, "ipv4NormalRoutePriority", MAX_PRIORITY);
        self.ipv6_priority = spec.number(report, "ipv6NormalRoutePriority", MAX_PRIORITY);
    }
}

/// Calico's words in any case; another is left out with a warning.
fn log_level(spec: &mut Fields<'_>, report: &mut Report<'_>) -> Option<LogLevel> {
    let text = spec.text(report, "logSeverityScreen")?;
    let level = LogLevel::parse(&text);
    if level.is_none() {
        let what = format!("`{text}` is none of Trace, Debug, Info, Warning, Error, Fatal");
        report.warning("spec.logSeverityScreen", what, "the field is left out");
    }
    level
}

fn port(spec: &mut Fields<'_>, report: &mut Report<'_>) -> Option<u16> {
    spec.note_zero(report, "listenPort");
    spec.number(report, "listenPort", u32::from(u16::MAX)).and_then(|port| u16::try_from(port).ok())
}

fn program_cluster_routes(spec: &mut Fields<'_>, report: &mut Report<'_>) -> ProgramClusterRoutes {
    match spec.text(report, "programClusterRoutes").as_deref() {
        None | Some("EnabledNoEncapOnly") => ProgramClusterRoutes::EnabledNoEncapOnly,
        Some("EnabledIPIPOnly") => ProgramClusterRoutes::EnabledIpipOnly,
        Some("Enabled") => ProgramClusterRoutes::Enabled,
        Some("Disabled") => ProgramClusterRoutes::Disabled,
        Some(other) => {
            report.warning(
                "spec.programClusterRoutes",
                format!("`{other}` is none of Enabled, Disabled, EnabledIPIPOnly, EnabledNoEncapOnly"),
                "EnabledNoEncapOnly applies",
            );
            ProgramClusterRoutes::EnabledNoEncapOnly
        }
    }
}

/// A list of `{cidr}`; empty entries are skipped, bad ones left out.
fn cidrs(spec: &mut Fields<'_>, report: &mut Report<'_>, field: &str) -> Vec<IpNet> {
    let mut list = Vec::new();
    for (path, item) in spec.items(report, field) {
        let mut entry = Fields::new(path, Some(item));
        let cidr = entry.path("cidr");
        if let Some(text) = entry.text(report, "cidr") {
            list.extend(parse_cidr(report, &cidr, &text));
        }
        entry.finish(report, &[]);
    }
    list
}

/// A CIDR in canonical form; a bad one is left out with a problem.
fn parse_cidr(report: &mut Report<'_>, field: &str, text: &str) -> Option<IpNet> {
    let Ok(cidr) = text.parse::<IpNet>() else {
        report.warning(field, format!("`{text}` is no CIDR"), "this entry is left out");
        return None;
    };
    if canonical(cidr) != cidr {
        report.info(field, format!("`{text}` has host bits set"), format!("read as {}", canonical(cidr)));
    }
    Some(canonical(cidr))
}

fn advertisements(spec: &mut Fields<'_>, report: &mut Report<'_>) -> Option<Vec<PrefixAdvertisement>> {
    let mut names = BTreeMap::new();
    for (path, item) in spec.items(report, "communities") {
        let mut entry = Fields::new(path, Some(item));
        let (name, value, field) = (entry.text(report, "name"), entry.text(report, "value"), entry.path("value"));
        match value.as_deref().and_then(CommunityValue::parse) {
            Some(community) => drop(name.and_then(|name| names.insert(name, community))),
            None => report.warning(&field, format!("`{}` is no community", value.unwrap_or_default()), "the name stands for nothing"),
        }
        entry.finish(report, &[]);
    }
    spec.raw("prefixAdvertisements")?;
    let mut list = Vec::new();
    for (path, item) in spec.items(report, "prefixAdvertisements") {
        let mut entry = Fields::new(path, Some(item));
        let field = entry.path("cidr");
        let cidr = entry.text(report, "cidr").and_then(|text| parse_cidr(report, &field, &text));
        let communities = resolve(&mut entry, report, &names);
        entry.finish(report, &[]);
        list.extend(cidr.filter(|_| !communities.is_empty()).map(|cidr| PrefixAdvertisement { cidr, communities }));
    }
    Some(list)
}

fn resolve(entry: &mut Fields<'_>, report: &mut Report<'_>, names: &BTreeMap<String, CommunityValue>) -> Vec<CommunityValue> {
    let mut found = Vec::new();
    for (path, item) in entry.items(report, "communities") {
        let text = item.as_str().unwrap_or_default();
        match CommunityValue::parse(text).or_else(|| names.get(text).copied()) {
            Some(community) => found.push(community),
            None => report.warning(&path, format!("`{text}` is no community and no name of one in this object"), "left out"),
        }
    }
    found
}
