//! The JSON shapes of the control API: stable, additions only.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::bfd::SessionStatus;
use crate::calico::ServiceNotes;
use crate::config::{PeerConfig, PeerKind};
use crate::control::agents::AgentNote;
use crate::fib::{FibState, FibStatus};
use crate::policy::RouteSource;
use crate::rib::{Explained, RouteRow, Step};
use crate::runtime::directory::Directory;
use crate::session::{DownReason, PeerStatus};
use crate::types::{
    Aggregator, AsPath, Asn, ClusterId, Community, ExtendedCommunity, Family, Ipv6ExtendedCommunity, LargeCommunity, Origin, PathId,
    PeerId, RouterId, UnknownAttribute,
};

/// One session in `show peers`: its configuration, and what its task said (nothing when the task does not answer).
#[derive(Debug, Serialize)]
pub struct PeerView {
    name: String,
    address: IpAddr,
    port: u16,
    interface: Option<String>,
    asn: Asn,
    local_asn: Asn,
    local_address: Option<IpAddr>,
    #[serde(rename = "type")]
    kind: PeerKind,
    asked_by: String,
    /// It is no longer configured and lingers until others have taken its place.
    leaving: bool,
    passive: bool,
    since: Option<String>,
    last_error: Option<LastErrorView>,
    /// State, families, flaps, hold_time, capabilities and more.
    #[serde(flatten)]
    status: serde_json::Map<String, serde_json::Value>,
    /// Its BFD session; none where it has none.
    bfd: Option<SessionStatus>,
    /// The node is drained: this peer is told GRACEFUL_SHUTDOWN with every route.
    drained: bool,
}

#[derive(Debug, Serialize)]
struct LastErrorView {
    #[serde(flatten)]
    reason: DownReason,
    at: String,
}

impl PeerView {
    /// See the struct.
    pub fn new(config: &PeerConfig, status: Option<&PeerStatus>, drained: bool, bfd: Option<SessionStatus>) -> Self {
        let local = status.and_then(|status| status.local).map(|local| local.ip());
        let error = status.and_then(|status| status.last_error.as_ref());
        Self {
            name: config.name.clone(),
            address: config.address,
            port: config.port,
            interface: config.interface.clone(),
            asn: config.remote_asn,
            local_asn: config.local_asn,
            local_address: local.or(config.local_address),
            kind: config.kind,
            asked_by: config.asked_by.clone(),
            leaving: false,
            passive: config.passive,
            since: status.map(|status| wall_clock(status.since)),
            last_error: error.map(|error| LastErrorView { reason: error.reason.clone(), at: wall_clock(error.at) }),
            status: status.map(rest).unwrap_or_default(),
            bfd,
            drained,
        }
    }

    /// With whether it lingers.
    #[must_use]
    pub fn leaving(self, leaving: bool) -> Self {
        Self { leaving, ..self }
    }
}

/// The fields of a status that the view does not say itself.
fn rest(status: &PeerStatus) -> serde_json::Map<String, serde_json::Value> {
    let mut fields = match serde_json::to_value(status) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    for said in ["name", "last_error"] {
        fields.remove(said);
    }
    fields
}

/// The moment in RFC 3339, by how long ago it was, or how soon it will be.
pub fn wall_clock(moment: std::time::Instant) -> String {
    timestamp(moment).map_or_else(String::new, |at| format!("{at:.0}"))
}

/// The same with milliseconds.
pub fn wall_clock_ms(moment: std::time::Instant) -> String {
    timestamp(moment).map_or_else(String::new, |at| format!("{at:.3}"))
}

fn timestamp(moment: std::time::Instant) -> Option<jiff::Timestamp> {
    let (now, wall) = (std::time::Instant::now(), std::time::SystemTime::now());
    let at = if moment > now { wall.checked_add(moment - now) } else { wall.checked_sub(now - moment) };
    jiff::Timestamp::try_from(at?).ok()
}

/// One path in `show routes`. Attributes that most routes have none of are left out where there is none.
#[derive(Debug, Serialize)]
pub struct RouteView<'a> {
    prefix: IpNet,
    family: Family,
    best: bool,
    multipath: bool,
    valid: bool,
    stale: bool,
    source: &'static str,
    peer: Option<&'a str>,
    path_id: PathId,
    next_hop: Option<IpAddr>,
    as_path: &'a AsPath,
    origin: Origin,
    local_pref: Option<u32>,
    med: Option<u32>,
    communities: &'a [Community],
    large_communities: &'a [LargeCommunity],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    atomic_aggregate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    aggregator: Option<Aggregator>,
    #[serde(skip_serializing_if = "Option::is_none")]
    originator_id: Option<RouterId>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    cluster_list: &'a [ClusterId],
    #[serde(skip_serializing_if = "Option::is_none")]
    only_to_customer: Option<Asn>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    extended_communities: &'a [ExtendedCommunity],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    ipv6_extended_communities: &'a [Ipv6ExtendedCommunity],
    /// Transitive attributes that are carried and not understood.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    unknown: &'a [UnknownAttribute],
    lost_at: Option<Step>,
    rejected_by: Option<&'a str>,
    kernel: Option<FibState>,
}

impl<'a> RouteView<'a> {
    /// A row with its peer's name and the kernel's state.
    pub fn new(row: &'a RouteRow, names: &'a BTreeMap<PeerId, String>, kernel: Option<&FibStatus>) -> Self {
        let attributes = &row.attributes;
        let rare = &*attributes.rare;
        Self {
            prefix: row.prefix,
            family: row.family,
            best: row.best,
            multipath: row.multipath,
            valid: row.valid,
            stale: row.stale,
            source: source(row.source),
            peer: row.peer.and_then(|id| names.get(&id)).map(String::as_str),
            path_id: row.path_id,
            next_hop: row.next_hop.map(crate::types::NextHop::address),
            as_path: &attributes.as_path,
            origin: attributes.origin,
            local_pref: attributes.local_pref,
            med: attributes.med,
            communities: &attributes.communities,
            large_communities: &rare.large_communities,
            atomic_aggregate: attributes.atomic_aggregate,
            aggregator: rare.aggregator,
            originator_id: rare.originator_id,
            cluster_list: &rare.cluster_list,
            only_to_customer: rare.only_to_customer,
            extended_communities: &rare.extended_communities,
            ipv6_extended_communities: &rare.ipv6_extended_communities,
            unknown: &rare.unknown,
            lost_at: row.lost_at,
            rejected_by: row.rejected_by.as_deref(),
            kernel: kernel.filter(|_| row.best || row.multipath).map(|status| status.state),
        }
    }
}

fn source(source: RouteSource) -> &'static str {
    match source {
        RouteSource::Ebgp | RouteSource::Ibgp => "peer",
        RouteSource::Device => "device",
        RouteSource::Kernel => "kernel",
        RouteSource::Agent => "agent",
        RouteSource::Block => "block",
        RouteSource::Service => "service",
        RouteSource::Static => "static",
    }
}

/// The answer of `explain PREFIX`.
#[derive(Debug, Serialize)]
pub struct ExplainView {
    /// What was asked for.
    prefix: IpNet,
    /// Whose candidates these are: the prefix, or the longest around it; none where there is no such route.
    route: Option<IpNet>,
    candidates: Vec<serde_json::Value>,
    advertised_to: Vec<AdvertisementView>,
    kernel: KernelView,
    services: ServiceNotes,
    /// The local agents that give the route.
    agents: Vec<AgentNote>,
}

#[derive(Debug, Serialize)]
struct AdvertisementView {
    peer: String,
    yes: bool,
    because: String,
    next_hop: Option<IpAddr>,
}

#[derive(Debug, Serialize)]
struct KernelView {
    state: FibState,
    because: String,
    errno: Option<i32>,
}

impl ExplainView {
    /// What the shard and the FibSyncer said, with names for numbers.
    pub fn new(prefix: IpNet, explained: Explained, kernel: Option<FibStatus>, services: ServiceNotes, directory: &Directory) -> Self {
        let names: BTreeMap<PeerId, String> = directory.peers.iter().map(|(name, entry)| (entry.id, name.clone())).collect();
        let name = |id: PeerId| names.get(&id).cloned().unwrap_or_else(|| format!("peer {id}"));
        let candidates = explained
            .candidates
            .iter()
            .map(|candidate| {
                let mut value = serde_json::to_value(RouteView::new(&candidate.path, &names, kernel.as_ref())).unwrap_or_default();
                value["verdict"] = candidate.verdict.into();
                value["because"] = candidate.because.clone().into();
                value
            })
            .collect();
        let advertised_to = explained
            .advertisements
            .into_iter()
            .map(|told| AdvertisementView { peer: name(told.peer), yes: told.yes, because: told.because, next_hop: told.next_hop })
            .collect();
        let kernel = match kernel {
            Some(status) => KernelView { state: status.state, because: status.because, errno: status.errno },
            None => {
                KernelView { state: FibState::NotWanted, because: "the Loc-RIB has no route that would be written".into(), errno: None }
            }
        };
        Self { prefix, route: explained.route, candidates, advertised_to, kernel, services, agents: Vec::new() }
    }

    /// With what local agents say of it.
    #[must_use]
    pub fn with_agents(self, agents: Vec<AgentNote>) -> Self {
        Self { agents, ..self }
    }
}

/// Names in a list for people.
pub fn join(names: &[&String]) -> String {
    names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Attributes, NextHop};

    fn told(attributes: Attributes) -> serde_json::Value {
        let row = RouteRow {
            prefix: "10.244.1.0/26".parse().unwrap(),
            family: Family::IPV4_UNICAST,
            best: true,
            multipath: false,
            valid: true,
            stale: false,
            source: RouteSource::Ibgp,
            peer: None,
            path_id: PathId(0),
            next_hop: None,
            attributes: attributes.into(),
            lost_at: None,
            rejected_by: None,
            via: None,
            metric: None,
        };
        serde_json::to_value(RouteView::new(&row, &BTreeMap::new(), None)).unwrap()
    }

    #[test]
    fn a_reflected_route_names_its_originator_and_its_reflectors() {
        let mut attributes = Attributes::originated(NextHop::Global("192.0.2.1".parse().unwrap()));
        let usual = told(attributes.clone());
        attributes.rare.originator_id = Some(RouterId("192.0.2.7".parse().unwrap()));
        attributes.rare.cluster_list = ["10.0.0.2", "10.0.0.1"].map(|id| ClusterId(id.parse().unwrap())).into();
        attributes.rare.aggregator = Some(Aggregator { asn: Asn(64500), address: "192.0.2.9".parse().unwrap() });
        attributes.atomic_aggregate = true;
        let reflected = told(attributes);
        assert_eq!(reflected["originator_id"], "192.0.2.7");
        assert_eq!(reflected["cluster_list"], serde_json::json!(["10.0.0.2", "10.0.0.1"]));
        assert_eq!(reflected["aggregator"], serde_json::json!({"asn": 64500, "address": "192.0.2.9"}));
        assert_eq!(reflected["atomic_aggregate"], true);
        let fields = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(fields(&usual).len() + 4, fields(&reflected).len(), "the usual route has none of them: {usual}");
    }
}
