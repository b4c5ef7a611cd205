//! BGPPeer: which nodes peer with whom, and how.

use std::net::IpAddr;
use std::time::Duration;

use super::annotation::Annotations;
use super::node::usable_asn;
use super::secret_key::SecretKey;
use super::{Fields, Text};
use crate::calico::selector::Selector;
use crate::calico::{Document, Report};
use crate::config::NextHopMode;
use crate::types::Asn;

/// The other side of a BGPPeer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `peerIP`.
    Address {
        /// The address, canonical.
        address: IpAddr,
        /// The port, if written.
        port: Option<u16>,
        /// The interface of a link-local address.
        interface: Option<String>,
        /// `asNumber`.
        asn: Asn,
    },
    /// `peerSelector`: Calico nodes.
    Nodes(Selector),
    /// `localWorkloadSelector`.
    Workloads {
        /// `asNumber`.
        asn: Asn,
    },
}

/// `nextHopMode`, or the deprecated `keepOriginalNextHop`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NextHop {
    /// Neither is set.
    #[default]
    Default,
    /// `keepOriginalNextHop`: kept on eBGP sessions.
    KeepOriginal,
    /// `nextHopMode`.
    Mode(NextHopMode),
}

/// `sourceAddress`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceAddress {
    /// The node's BGP address of the family.
    #[default]
    UseNodeIp,
    /// The kernel chooses.
    None,
}

/// A v3 BGPPeer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpPeer {
    /// `node`, where there is no nodeSelector.
    pub node: Option<String>,
    /// `nodeSelector`.
    pub node_selector: Option<Selector>,
    /// The other side.
    pub endpoint: Endpoint,
    /// `localASNumber`.
    pub local_asn: Option<Asn>,
    /// `nextHopMode` or `keepOriginalNextHop`.
    pub next_hop: NextHop,
    /// `password`.
    pub password: Option<SecretKey>,
    /// `sourceAddress`.
    pub source: SourceAddress,
    /// `maxRestartTime`, seconds.
    pub restart_time: Option<u64>,
    /// `keepaliveTime`.
    pub keepalive: Option<Duration>,
    /// `numAllowedLocalASNumbers`.
    pub allow_local_as: u32,
    /// `ttlSecurity`.
    pub ttl_security: Option<u8>,
    /// `reachableBy`.
    pub reachable_by: Option<IpAddr>,
    /// `filters`.
    pub filters: Vec<String>,
    /// `reversePeering` is not Manual.
    pub reverse: bool,
    /// `margay.io/` annotations.
    pub annotations: Annotations,
}

impl BgpPeer {
    /// Whether it holds for every node.
    pub fn is_global(&self) -> bool {
        self.node.is_none() && self.node_selector.is_none()
    }

    /// Reads the document; none where it names no peer that a session can be made with.
    pub fn decode(document: &Document, report: &mut Report<'_>) -> Option<Self> {
        Fields::require_object(report, document, "spec");
        let annotations = Annotations::decode(document, report);
        let mut spec = Fields::of(document, "spec");
        let node = spec.text(report, "node");
        let node_selector = selector(&mut spec, report, "nodeSelector");
        if node.is_some() && node_selector.is_some() {
            report.warning("spec.node", "both node and nodeSelector are set", "nodeSelector applies");
        }
        let endpoint = endpoint(&mut spec, report, annotations.interface.as_deref());
        let mut peer = Self {
            node: node.filter(|_| node_selector.is_none()),
            node_selector,
            endpoint: endpoint?,
            local_asn: usable_asn(&mut spec, report, "localASNumber"),
            next_hop: next_hop(&mut spec, report),
            password: SecretKey::decode(&mut spec, report, "password"),
            source: spec
                .word(report, "sourceAddress", &[("UseNodeIP", SourceAddress::UseNodeIp), ("None", SourceAddress::None)])
                .unwrap_or_default(),
            restart_time: spec.seconds(report, "maxRestartTime"),
            keepalive: spec.seconds(report, "keepaliveTime").filter(|s| *s != 0).map(Duration::from_secs),
            allow_local_as: spec.number(report, "numAllowedLocalASNumbers", i32::MAX.unsigned_abs()).unwrap_or(0),
            ttl_security: spec.number(report, "ttlSecurity", 255).and_then(|hops| u8::try_from(hops).ok()),
            reachable_by: spec.address(report, "reachableBy"),
            filters: spec.get::<Vec<Text>>(report, "filters").unwrap_or_default().into_iter().map(|text| text.0).collect(),
            reverse: spec.word(report, "reversePeering", &[("Auto", true), ("Manual", false)]).unwrap_or(true),
            annotations,
        };
        if let Endpoint::Workloads { .. } = peer.endpoint {
            peer.leave_to_workloads(report);
        }
        peer.check(report);
        spec.finish(report, &[]);
        Some(peer)
    }

    /// Takes away what Calico does not apply to a session with a local workload. Its password is applied, unlike in Calico.
    fn leave_to_workloads(&mut self, report: &mut Report<'_>) {
        let plain = Self {
            node: self.node.clone(),
            node_selector: self.node_selector.clone(),
            endpoint: self.endpoint.clone(),
            local_asn: self.local_asn,
            password: self.password.clone(),
            filters: self.filters.clone(),
            annotations: self.annotations.clone(),
            source: SourceAddress::None,
            reverse: false,
            next_hop: NextHop::Default,
            restart_time: None,
            keepalive: None,
            allow_local_as: 0,
            ttl_security: None,
            reachable_by: None,
        };
        let set = [
            ("nextHopMode", self.next_hop != plain.next_hop),
            ("maxRestartTime", self.restart_time.is_some()),
            ("keepaliveTime", self.keepalive.is_some()),
            ("numAllowedLocalASNumbers", self.allow_local_as != 0),
            ("ttlSecurity", self.ttl_security.is_some()),
            ("reachableBy", self.reachable_by.is_some()),
        ];
        for (field, _) in set.iter().filter(|(_, set)| *set) {
            let what = "has no effect together with localWorkloadSelector";
            report.info(&format!("spec.{field}"), what, "ignored, as Calico ignores it");
        }
        *self = plain;
    }

    /// What fits not together.
    fn check(&self, report: &mut Report<'_>) {
        if self.annotations.interface.is_some() && !matches!(&self.endpoint, Endpoint::Address { interface: Some(_), .. }) {
            let field = "metadata.annotations.margay.io/interface";
            report.warning(field, "only a link-local peerIP is reached through an interface", "ignored");
        }
        if let (Some(true), Some(hops @ 2..)) = (self.annotations.directly_connected, self.ttl_security) {
            let what = format!("ttlSecurity lets the peer be {hops} hops away");
            report.warning("metadata.annotations.margay.io/directly-connected", what, "ttlSecurity applies");
        }
        match &self.endpoint {
            Endpoint::Address { address, .. } => {
                if self.reachable_by.is_some_and(|gateway| gateway.is_ipv4() != address.is_ipv4()) {
                    report.error("spec.reachableBy", "is not of the family of peerIP", "no session is made of this BGPPeer");
                }
            }
            Endpoint::Nodes(_) => {
                if self.local_asn.is_some() {
                    report.info("spec.localASNumber", "has no effect together with peerSelector", "ignored, as Calico ignores it");
                }
                if self.allow_local_as != 0 {
                    report.info(
                        "spec.numAllowedLocalASNumbers",
                        "has no effect together with peerSelector",
                        "ignored, as Calico ignores it",
                    );
                }
            }
            Endpoint::Workloads { .. } => {}
        }
    }
}

fn selector(spec: &mut Fields<'_>, report: &mut Report<'_>, field: &str) -> Option<Selector> {
    let text = spec.text(report, field)?;
    match Selector::parse(&text) {
        Ok(selector) => Some(selector),
        Err(error) => {
            report.error(&spec.path(field), error.to_string(), "it selects no node");
            None
        }
    }
}

fn endpoint(spec: &mut Fields<'_>, report: &mut Report<'_>, interface: Option<&str>) -> Option<Endpoint> {
    let has_workloads = spec.raw("localWorkloadSelector").is_some_and(|value| value != "");
    let has_nodes = spec.raw("peerSelector").is_some_and(|value| value != "");
    let text = spec.text(report, "peerIP");
    let asn = usable_asn(spec, report, "asNumber");
    if has_workloads {
        selector(spec, report, "localWorkloadSelector")?;
        let Some(asn) = asn else {
            if !report.is_refused() {
                let instead = "no session is made of this BGPPeer";
                report.error("spec.asNumber", "must be given together with localWorkloadSelector, and not be 0", instead);
            }
            return None;
        };
        if text.is_some() || has_nodes {
            report.warning("spec", "localWorkloadSelector is set beside peerIP or peerSelector", "localWorkloadSelector applies");
        }
        return Some(Endpoint::Workloads { asn });
    }
    if has_nodes {
        if text.is_some() {
            report.warning("spec.peerIP", "both peerSelector and peerIP are set", "peerSelector applies");
        }
        if asn.is_some() {
            report.info("spec.asNumber", "has no effect together with peerSelector", "the AS of each selected node applies");
        }
        return selector(spec, report, "peerSelector").map(Endpoint::Nodes);
    }
    let Some(text) = text else {
        report.error("spec", "peerIP, peerSelector or localWorkloadSelector must be given", "no session is made of this BGPPeer");
        return None;
    };
    let Some((address, port, zone)) = parse_peer(&text) else {
        report.error("spec.peerIP", format!("`{text}` is no address with or without a port"), "no session is made of this BGPPeer");
        return None;
    };
    if port.is_none() && (text.contains(']') || address.is_ipv4()) && text.trim_end_matches('0').ends_with(':') {
        report.warning("spec.peerIP", "port 0 is no port", "the port that is usual for the peer is used, as without one");
    }
    let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    let interface = zone.or_else(|| interface.map(str::to_owned)).filter(|_| link_local);
    if link_local && interface.is_none() {
        let instead = "write it as address%interface, or set the annotation margay.io/interface; no session is made until then";
        report.error("spec.peerIP", format!("`{text}` is link-local and needs an interface"), instead);
        return None;
    }
    let Some(asn) = asn else {
        if !report.is_refused() {
            report.error("spec.asNumber", "must be given together with peerIP, and not be 0", "no session is made of this BGPPeer");
        }
        return None;
    };
    Some(Endpoint::Address { address, port, interface, asn })
}

fn next_hop(spec: &mut Fields<'_>, report: &mut Report<'_>) -> NextHop {
    let keep = spec.flag(report, "keepOriginalNextHop");
    let words = [("Auto", NextHopMode::Auto), ("Self", NextHopMode::SelfAddress), ("Keep", NextHopMode::Keep)];
    match spec.word(report, "nextHopMode", &words) {
        Some(mode) => {
            if keep {
                report.warning("spec.keepOriginalNextHop", "nextHopMode is set too", "nextHopMode applies");
            }
            NextHop::Mode(mode)
        }
        None if keep => NextHop::KeepOriginal,
        None => NextHop::Default,
    }
}

/// `IP`, `IPv4:port`, `[IPv6]:port`, `[IPv6]`; an IPv6 address may carry `%interface`.
fn parse_peer(text: &str) -> Option<(IpAddr, Option<u16>, Option<String>)> {
    let plain = |text: &str| {
        let (address, zone) = match text.split_once('%') {
            Some((address, zone)) => (address, Some(zone.to_owned()).filter(|zone| !zone.is_empty())),
            None => (text, None),
        };
        let address = address.parse::<IpAddr>().ok()?.to_canonical();
        Some((address, zone)).filter(|(address, zone)| address.is_ipv6() || zone.is_none())
    };
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (text, None),
        },
    };
    let (address, zone) = plain(host)?;
    let port = match port {
        Some(port) => Some(go_number(port)?).filter(|port| *port != 0),
        None => None,
    };
    (!address.is_unspecified() && !address.is_multicast()).then_some((address, port, zone))
}

/// A port as Calico's runtime reads it: `0x` is hexadecimal, `0o` and a leading 0 octal, `0b` binary.
fn go_number(text: &str) -> Option<u16> {
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (&lower[..], 10),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    u16::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_addresses() {
        let parsed = |text: &str| parse_peer(text).map(|(a, p, z)| (a.to_string(), p, z));
        let some = |address: &str, port: Option<u16>, zone: Option<&str>| Some((address.to_owned(), port, zone.map(str::to_owned)));
        assert_eq!(parsed("192.0.2.1"), some("192.0.2.1", None, None));
        assert_eq!(parsed("192.0.2.1:1179"), some("192.0.2.1", Some(1179), None));
        assert_eq!(parsed("192.0.2.1:0"), some("192.0.2.1", None, None));
        assert_eq!(parsed("192.0.2.1:0x10"), some("192.0.2.1", Some(16), None));
        assert_eq!(parsed("192.0.2.1:010"), some("192.0.2.1", Some(8), None));
        assert_eq!(parsed("fe80::0001%eth0"), some("fe80::1", None, Some("eth0")));
        assert_eq!(parsed("[2001:db8::1]:1179"), some("2001:db8::1", Some(1179), None));
        assert_eq!(parsed("[fe80::1%eth0]:1179"), some("fe80::1", Some(1179), Some("eth0")));
        assert_eq!(parsed("2001:db8::1"), some("2001:db8::1", None, None));
        assert_eq!(parsed("::ffff:10.0.0.1"), some("10.0.0.1", None, None));
        for bad in
            ["", "x", "10.0.0", "10.0.0.1:x", "10.0.0.1:65536", "[10.0.0.1", "[::1]x", "10.0.0.1%eth0", "0.0.0.0", "224.0.0.1", "10.0.0.1:"]
        {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
