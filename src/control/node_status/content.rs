//! What the status says, as Calico's API has it: pure, from what the owners of state have told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::calico::StatusClass;
use crate::config::PeerKind;
use crate::control::bird::VERSION;
use crate::policy::RouteSource;
use crate::rib::RouteRow;
use crate::session::State;
use crate::types::{PeerId, RouterId};

/// Routes of one object at most: some 150 octets each, where etcd takes 1.5 MB.
pub const MOST_ROUTES: usize = 6000;

/// The process.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Our identifier; none without a configuration: then it is not ready.
    pub router_id: Option<RouterId>,
    /// When the process began, in words.
    pub started: String,
    /// When the configuration in force was taken, in words.
    pub configured: String,
}

/// One peer.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its number in rows.
    pub id: PeerId,
    /// Its address.
    pub address: IpAddr,
    /// Who asked for it.
    pub kind: PeerKind,
    /// Its state; none where its task does not answer.
    pub state: Option<State>,
    /// Since when, in words.
    pub since: String,
}

/// Everything that a status may speak of; what is not asked for may be empty.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The process.
    pub agent: Agent,
    /// Its peers.
    pub peers: Vec<Peer>,
    /// Its routes, [`MOST_ROUTES`] at most.
    pub routes: Vec<RouteRow>,
    /// What the kernel did not take.
    pub failed: BTreeSet<IpNet>,
}

/// The status with these classes, as of `now`.
pub fn status(classes: &BTreeSet<StatusClass>, facts: &Facts, now: Timestamp) -> Value {
    let mut status = json!({ "lastUpdated": format!("{now:.0}") });
    for class in classes {
        match class {
            StatusClass::Agent => status["agent"] = agent(&facts.agent),
            StatusClass::Bgp => status["bgp"] = bgp(&facts.peers),
            StatusClass::Routes => status["routes"] = routes(facts),
        }
    }
    status
}

/// Both families alike: one process speaks for both.
fn agent(Agent { router_id, started, configured }: &Agent) -> Value {
    let bird = json!({
        "state": if router_id.is_some() { "Ready" } else { "NotReady" },
        "version": VERSION,
        "routerID": router_id.map(|id| id.to_string()).unwrap_or_default(),
        "lastBootTime": started,
        "lastReconfigurationTime": configured,
    });
    json!({ "birdV4": bird, "birdV6": bird })
}

fn bgp(peers: &[Peer]) -> Value {
    let mut bgp = json!({});
    for (family, is_v4) in [("V4", true), ("V6", false)] {
        let of_family = || peers.iter().filter(|peer| peer.address.is_ipv4() == is_v4);
        let rows: Vec<Value> = of_family().filter_map(peer).collect();
        let established = rows.iter().filter(|row| row["state"] == "Established").count();
        bgp[format!("numberEstablished{family}")] = established.into();
        bgp[format!("numberNotEstablished{family}")] = (rows.len() - established).into();
        bgp[format!("peers{family}")] = rows.into();
    }
    bgp
}

/// Calico's API has no word for peerings with workloads.
fn peer(Peer { address, kind, state, since, .. }: &Peer) -> Option<Value> {
    let kind = match kind {
        PeerKind::Mesh => "NodeMesh",
        PeerKind::Node => "NodePeer",
        PeerKind::Global => "GlobalPeer",
        PeerKind::Workload => return None,
    };
    let state = match state {
        None | Some(State::Idle) => "Idle",
        Some(State::Connect) => "Connect",
        Some(State::Active) => "Active",
        Some(State::OpenSent) => "OpenSent",
        Some(State::OpenConfirm) => "OpenConfirm",
        Some(State::Established) => "Established",
    };
    Some(json!({ "peerIP": address, "type": kind, "state": state, "since": since }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LearnedFrom {
    source_type: &'static str,
    #[serde(rename = "peerIP", skip_serializing_if = "Option::is_none")]
    peer: Option<IpAddr>,
}

fn routes(Facts { peers, routes, failed, .. }: &Facts) -> Value {
    let peers: BTreeMap<PeerId, &Peer> = peers.iter().map(|peer| (peer.id, peer)).collect();
    let mut families = [Vec::new(), Vec::new()];
    for row in routes.iter().take(MOST_ROUTES) {
        let used = (row.best || row.multipath) && !failed.contains(&row.prefix);
        let (gateway, interface) = via(row);
        families[usize::from(row.prefix.addr().is_ipv6())].push(json!({
            "type": if used { "FIB" } else { "RIB" },
            "destination": row.prefix,
            "gateway": gateway,
            "interface": interface,
            "learnedFrom": learned_from(row, &peers),
        }));
    }
    let [v4, v6] = families;
    json!({ "routesV4": v4, "routesV6": v6 })
}

/// Gateway and interface, in Calico's words where there is none.
fn via(row: &RouteRow) -> (String, String) {
    match &row.via {
        Some(via) => (via.gateway.map_or_else(|| "N/A".to_owned(), |gateway| gateway.to_string()), via.interface.to_string()),
        None if row.source.is_bgp() || row.source == RouteSource::Static => ("N/A".to_owned(), "unreachable".to_owned()),
        None => ("N/A".to_owned(), "blackhole".to_owned()),
    }
}

fn learned_from(row: &RouteRow, peers: &BTreeMap<PeerId, &Peer>) -> LearnedFrom {
    let peer = row.peer.and_then(|id| peers.get(&id));
    let source_type = match (row.source, peer.map(|peer| peer.kind)) {
        (RouteSource::Ebgp | RouteSource::Ibgp, Some(PeerKind::Mesh)) => "NodeMesh",
        (RouteSource::Ebgp | RouteSource::Ibgp, _) => "BGPPeer",
        (RouteSource::Device, _) => "Direct",
        (RouteSource::Block | RouteSource::Service | RouteSource::Static, _) => "Static",
        (RouteSource::Kernel | RouteSource::Agent, _) => "Kernel",
    };
    LearnedFrom { source_type, peer: peer.map(|peer| peer.address) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::rib::Via;
    use crate::types::{Attributes, Family, NextHop, PathId};

    fn peer(id: u32, address: &str, kind: PeerKind, state: Option<State>) -> Peer {
        Peer { id: PeerId(id), address: address.parse().unwrap(), kind, state, since: "10:00:05".to_owned() }
    }

    fn facts() -> Facts {
        Facts {
            agent: Agent {
                router_id: Some(RouterId([10, 0, 0, 1].into())),
                started: "2026-08-22 10:00:00".to_owned(),
                configured: "2026-08-22 10:00:01".to_owned(),
            },
            peers: vec![
                peer(1, "10.0.0.2", PeerKind::Mesh, Some(State::Established)),
                peer(2, "10.0.0.3", PeerKind::Global, Some(State::Active)),
                peer(3, "10.0.0.4", PeerKind::Node, None),
                peer(4, "10.0.0.5", PeerKind::Workload, Some(State::Established)),
                peer(5, "fd00::2", PeerKind::Mesh, Some(State::OpenConfirm)),
            ],
            routes: Vec::new(),
            failed: BTreeSet::new(),
        }
    }

    fn told(classes: &[StatusClass], facts: &Facts) -> Value {
        status(&classes.iter().copied().collect(), facts, "2026-08-22T10:00:05.4Z".parse().unwrap())
    }

    fn row(prefix: &str, source: RouteSource, from: Option<u32>, via: Option<(&str, &str)>) -> RouteRow {
        let prefix: IpNet = prefix.parse().unwrap();
        let attributes = Attributes::originated(NextHop::Global(prefix.addr()));
        RouteRow {
            prefix,
            family: Family::IPV4_UNICAST,
            best: true,
            multipath: false,
            valid: true,
            stale: false,
            source,
            peer: from.map(PeerId),
            path_id: PathId(0),
            next_hop: None,
            attributes: Arc::new(attributes),
            lost_at: None,
            rejected_by: None,
            via: via.map(|(gateway, interface)| Via { gateway: gateway.parse().ok(), interface: interface.into() }),
            metric: None,
        }
    }

    #[test]
    fn only_what_is_asked_for() {
        assert_eq!(told(&[], &facts()), json!({ "lastUpdated": "2026-08-22T10:00:05Z" }));
        let all = told(&[StatusClass::Agent, StatusClass::Bgp, StatusClass::Routes], &facts());
        assert_eq!(all.as_object().unwrap().keys().collect::<Vec<_>>(), ["agent", "bgp", "lastUpdated", "routes"]);
    }

    #[test]
    fn the_agent_is_ready_with_a_configuration() {
        let status = told(&[StatusClass::Agent], &facts());
        let expected = json!({
            "state": "Ready", "version": VERSION, "routerID": "10.0.0.1",
            "lastBootTime": "2026-08-22 10:00:00", "lastReconfigurationTime": "2026-08-22 10:00:01",
        });
        assert_eq!(status["agent"], json!({ "birdV4": expected, "birdV6": expected }));
        let mut early = facts();
        early.agent.router_id = None;
        assert_eq!(told(&[StatusClass::Agent], &early)["agent"]["birdV6"]["state"], "NotReady");
    }

    #[test]
    fn peers_by_family_with_the_words_of_the_api() {
        let row = |address: &str, kind: &str, state: &str| json!({ "peerIP": address, "type": kind, "state": state, "since": "10:00:05" });
        let expected = json!({
            "numberEstablishedV4": 1,
            "numberNotEstablishedV4": 2,
            "numberEstablishedV6": 0,
            "numberNotEstablishedV6": 1,
            "peersV4": [
                row("10.0.0.2", "NodeMesh", "Established"),
                row("10.0.0.3", "GlobalPeer", "Active"),
                row("10.0.0.4", "NodePeer", "Idle"),
            ],
            "peersV6": [row("fd00::2", "NodeMesh", "OpenConfirm")],
        });
        assert_eq!(told(&[StatusClass::Bgp], &facts())["bgp"], expected);
    }

    #[test]
    fn routes_with_where_they_go_and_come_from() {
        let mut facts = facts();
        let other = RouteRow { best: false, ..row("10.1.0.0/26", RouteSource::Ebgp, Some(2), Some(("10.0.0.3", "eth0"))) };
        let shared =
            RouteRow { best: false, multipath: true, ..row("10.2.0.0/26", RouteSource::Ebgp, Some(4), Some(("10.0.0.5", "cali1"))) };
        facts.routes = vec![
            row("10.1.0.0/26", RouteSource::Ibgp, Some(1), Some(("10.0.0.2", "eth0"))),
            other,
            shared,
            row("10.3.0.0/26", RouteSource::Block, None, None),
            row("10.4.0.1/32", RouteSource::Agent, None, Some(("", "cali2"))),
            row("192.0.2.0/24", RouteSource::Device, None, Some(("", "eth0"))),
            row("10.5.0.0/26", RouteSource::Ibgp, Some(1), None),
            row("fd00:1::/122", RouteSource::Ibgp, Some(5), Some(("fd00::2", "eth0"))),
        ];
        facts.failed = BTreeSet::from(["192.0.2.0/24".parse().unwrap()]);
        let status = told(&[StatusClass::Routes], &facts);
        let shown = |row: &Value| {
            let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            let from = &row["learnedFrom"];
            [&row["type"], &row["destination"], &row["gateway"], &row["interface"], &from["sourceType"], &from["peerIP"]]
                .map(text)
                .join(" ")
        };
        let rows = |family: &str| status["routes"][family].as_array().unwrap().iter().map(shown).collect::<Vec<_>>();
        assert_eq!(
            rows("routesV4"),
            [
                "FIB 10.1.0.0/26 10.0.0.2 eth0 NodeMesh 10.0.0.2",
                "RIB 10.1.0.0/26 10.0.0.3 eth0 BGPPeer 10.0.0.3",
                "FIB 10.2.0.0/26 10.0.0.5 cali1 BGPPeer 10.0.0.5",
                "FIB 10.3.0.0/26 N/A blackhole Static -",
                "FIB 10.4.0.1/32 N/A cali2 Kernel -",
                "RIB 192.0.2.0/24 N/A eth0 Direct -",
                "FIB 10.5.0.0/26 N/A unreachable NodeMesh 10.0.0.2",
            ]
        );
        assert_eq!(rows("routesV6"), ["FIB fd00:1::/122 fd00::2 eth0 NodeMesh fd00::2"]);
    }

    #[test]
    fn no_object_grows_beyond_what_a_datastore_takes() {
        let mut facts = facts();
        facts.routes =
            vec![row("255.255.255.255/32", RouteSource::Ibgp, Some(1), Some(("255.255.255.255", "cali0123456789a"))); MOST_ROUTES + 1];
        let status = told(&[StatusClass::Routes], &facts);
        assert_eq!(status["routes"]["routesV4"].as_array().unwrap().len(), MOST_ROUTES);
        assert!(status.to_string().len() < 1_400_000, "{}", status.to_string().len());
    }
}
