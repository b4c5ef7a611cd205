//! A route as birdwatcher writes it.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde::Serialize;

use crate::control::bird::kind;
use crate::rib::RouteRow;
use crate::types::{Attributes, ExtendedCommunity, Origin};

/// LOCAL_PREF of a route without one, as BIRD takes it.
const LOCAL_PREF: u32 = 100;

/// See the module.
#[derive(Debug, Serialize)]
pub struct Route<'a> {
    from_protocol: &'a str,
    network: IpNet,
    gateway: String,
    interface: &'a str,
    /// The peer; empty where that is nobody.
    learnt_from: String,
    /// BIRD's preference, which is what birdwatcher takes for a metric.
    metric: u32,
    primary: bool,
    age: &'a str,
    #[serde(rename = "type")]
    kind: [&'static str; 3],
    #[serde(skip_serializing_if = "Option::is_none")]
    bgp: Option<Bgp>,
    /// The rule that refused it; birdwatcher has no such field.
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected_by: Option<&'a str>,
}

/// Path attributes.
#[derive(Debug, Serialize)]
struct Bgp {
    origin: &'static str,
    as_path: Vec<String>,
    next_hop: IpAddr,
    local_pref: String,
    med: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    otc: Option<String>,
    communities: Vec<[u32; 2]>,
    large_communities: Vec<[u32; 3]>,
    /// A word and two texts each: alice-lg takes nothing else.
    ext_communities: Vec<[String; 3]>,
}

impl<'a> Route<'a> {
    /// A row of the protocol `from`, which is of the peer at `peer`, since `age`.
    pub fn new(row: &'a RouteRow, from: &'a str, peer: Option<IpAddr>, age: &'a str) -> Self {
        let refused = row.rejected_by.as_deref();
        let by_via = row.via.as_ref().and_then(|via| via.gateway);
        let gateway = match (refused, peer) {
            (Some(_), Some(peer)) => Some(peer),
            _ => by_via.or(row.next_hop.map(crate::types::NextHop::address)),
        };
        let text = |address: Option<IpAddr>| address.map(|address| address.to_string()).unwrap_or_default();
        Self {
            from_protocol: from,
            network: row.prefix,
            gateway: text(gateway),
            interface: row.via.as_ref().map_or("", |via| &via.interface),
            learnt_from: text(peer),
            metric: if row.source.is_bgp() { 100 } else { u32::from(row.source.preference()) },
            primary: row.best,
            age,
            kind: [kind(row.source), "unicast", "univ"],
            bgp: row.source.is_bgp().then(|| Bgp::new(&row.attributes)),
            rejected_by: refused,
        }
    }
}

impl Bgp {
    fn new(attributes: &Attributes) -> Self {
        Self {
            origin: match attributes.origin {
                Origin::Igp => "IGP",
                Origin::Egp => "EGP",
                Origin::Incomplete => "Incomplete",
            },
            as_path: attributes.as_path.asns().map(|asn| asn.0.to_string()).collect(),
            next_hop: attributes.next_hop.address(),
            local_pref: attributes.local_pref.unwrap_or(LOCAL_PREF).to_string(),
            med: attributes.med.unwrap_or_default().to_string(),
            otc: attributes.rare.only_to_customer.map(|asn| asn.0.to_string()),
            communities: attributes.communities.iter().map(|c| [c.0 >> 16, c.0 & 0xffff]).collect(),
            large_communities: attributes.rare.large_communities.iter().map(|c| [c.0, c.1, c.2]).collect(),
            ext_communities: attributes.rare.extended_communities.iter().map(|c| extended(*c)).collect(),
        }
    }
}

/// As BIRD names them: `rt` and `ro` with an AS or an address (RFC 4360, RFC 5668), else `generic` with its octets.
fn extended(ExtendedCommunity(octets): ExtendedCommunity) -> [String; 3] {
    let [kind, subtype, a, b, c, d, e, f] = octets;
    let word = match subtype {
        2 => "rt",
        3 => "ro",
        _ => "",
    };
    let (key, value) = match kind {
        0 => (u16::from_be_bytes([a, b]).to_string(), u32::from_be_bytes([c, d, e, f])),
        1 => (Ipv4Addr::new(a, b, c, d).to_string(), u16::from_be_bytes([e, f]).into()),
        2 => (u32::from_be_bytes([a, b, c, d]).to_string(), u16::from_be_bytes([e, f]).into()),
        _ => (String::new(), 0),
    };
    if word.is_empty() || key.is_empty() {
        let half = |part: [u8; 4]| format!("{:#x}", u32::from_be_bytes(part));
        return ["generic".to_owned(), half([kind, subtype, a, b]), half([c, d, e, f])];
    }
    [word.to_owned(), key, value.to_string()]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::policy::RouteSource;
    use crate::rib::Via;
    use crate::types::{AsPath, Asn, Community, Family, LargeCommunity, NextHop, PathId, PeerId, Rare, RareAttributes};

    fn row(rejected_by: Option<&str>, via: Option<Via>) -> RouteRow {
        let next_hop = NextHop::Global("192.0.2.9".parse().unwrap());
        let attributes = Attributes {
            as_path: AsPath::default().prepend(&[Asn(4_200_000_001), Asn(64500)]),
            med: Some(7),
            communities: [Community(0xfbf0_0001)].into(),
            rare: Rare::from(RareAttributes {
                large_communities: [LargeCommunity(64512, 1, 2)].into(),
                extended_communities: [ExtendedCommunity([0, 2, 0xfb, 0xf0, 0, 0, 0, 9])].into(),
                ..RareAttributes::default()
            }),
            ..Attributes::originated(next_hop)
        };
        RouteRow {
            prefix: "10.1.0.0/16".parse().unwrap(),
            family: Family::IPV4_UNICAST,
            best: rejected_by.is_none(),
            multipath: false,
            valid: true,
            stale: false,
            source: RouteSource::Ebgp,
            peer: Some(PeerId(1)),
            path_id: PathId(0),
            next_hop: Some(next_hop),
            attributes: Arc::new(attributes),
            lost_at: None,
            rejected_by: rejected_by.map(str::to_owned),
            via,
            metric: None,
        }
    }

    fn told(row: &RouteRow) -> serde_json::Value {
        serde_json::to_value(Route::new(row, "Node_a", Some("192.0.2.1".parse().unwrap()), "2026-08-22 10:00:05")).unwrap()
    }

    #[test]
    fn a_route_has_what_alice_lg_reads() {
        let via = Via { gateway: Some("192.0.2.7".parse().unwrap()), interface: "eth0".into() };
        let expected = json!({
            "from_protocol": "Node_a", "network": "10.1.0.0/16", "gateway": "192.0.2.7", "interface": "eth0", "learnt_from": "192.0.2.1",
            "metric": 100, "primary": true, "age": "2026-08-22 10:00:05", "type": ["BGP", "unicast", "univ"],
            "bgp": {
                "origin": "IGP", "as_path": ["4200000001", "64500"], "next_hop": "192.0.2.9", "local_pref": "100", "med": "7",
                "communities": [[64496, 1]], "large_communities": [[64512, 1, 2]], "ext_communities": [["rt", "64496", "9"]],
            },
        });
        assert_eq!(told(&row(None, Some(via))), expected);
        let unresolved = told(&row(None, None));
        assert_eq!((&unresolved["gateway"], &unresolved["interface"]), (&json!("192.0.2.9"), &json!("")));
    }

    #[test]
    fn a_refused_route_is_its_peers() {
        let refused = told(&row(Some("BGPFilter narrow"), None));
        assert_eq!(refused["gateway"], "192.0.2.1");
        assert_eq!((&refused["rejected_by"], &refused["primary"]), (&json!("BGPFilter narrow"), &json!(false)));
    }

    #[test]
    fn extended_communities_as_bird_names_them() {
        let rows = [
            ([0, 3, 0xfb, 0xf0, 0, 1, 0, 0], ["ro", "64496", "65536"]),
            ([1, 2, 192, 0, 2, 1, 0, 5], ["rt", "192.0.2.1", "5"]),
            ([2, 2, 0xfa, 0x56, 0xea, 1, 0, 5], ["rt", "4200000001", "5"]),
            ([0x40, 4, 0xfb, 0xf0, 0, 0, 0, 9], ["generic", "0x4004fbf0", "0x9"]),
            ([0, 4, 0xfb, 0xf0, 0, 0, 0, 9], ["generic", "0x4fbf0", "0x9"]),
        ];
        for (octets, words) in rows {
            assert_eq!(extended(ExtendedCommunity(octets)), words, "{octets:?}");
        }
    }
}
