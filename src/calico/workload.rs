//! Local workloads that may be peers: what Felix writes about each of its endpoints.
//!
//! Which workload a `localWorkloadSelector` selects is Felix's to find out: it has the labels. It writes a file for each local
//! endpoint that names the BGPPeer, if there is one.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

/// An endpoint of this node that a BGPPeer selects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalWorkload {
    /// `bgpPeerName`: the BGPPeer.
    pub peer: String,
    /// `ifaceName`: our side of its interface.
    pub interface: String,
    /// The first of `ipv4Nets`, and the first of `ipv6Nets`.
    pub addresses: Vec<IpAddr>,
}

impl LocalWorkload {
    /// Reads a file of Felix; `Ok(None)` where the endpoint is nobody's peer. The error is for people: such a file is
    /// half written, or not one of Felix's.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (peer, interface) = (field("bgpPeerName"), field("ifaceName"));
        if peer.is_empty() {
            return Ok(None);
        }
        let mut addresses = Vec::new();
        for list in ["ipv4Nets", "ipv6Nets"] {
            if let Some(text) = value.get(list).and_then(|list| list.get(0)) {
                let text = text.as_str().unwrap_or_default();
                let address = text.parse::<IpNet>().map(|net| net.addr()).or_else(|_| text.parse::<IpAddr>());
                addresses.push(address.map_err(|_| format!("{list}[0] is `{text}`, which is no address"))?);
            }
        }
        Ok(Some(Self { peer, interface, addresses }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_felix_writes() {
        let text =
            r#"{"ifaceName":"cali1","mac":"ee:ee:ee:ee:ee:ee","ipv4Nets":["10.1.0.5/32"],"ipv6Nets":["fd00::5/128"],"bgpPeerName":"pods"}"#;
        let workload = LocalWorkload::parse(text).unwrap().unwrap();
        assert_eq!((workload.peer.as_str(), workload.interface.as_str()), ("pods", "cali1"));
        assert_eq!(workload.addresses, ["10.1.0.5".parse::<IpAddr>().unwrap(), "fd00::5".parse().unwrap()]);
        assert_eq!(LocalWorkload::parse(r#"{"ifaceName":"cali2","ipv4Nets":["10.1.0.6/32"],"bgpPeerName":""}"#), Ok(None));
        assert!(LocalWorkload::parse(r#"{"bgpPeerName":"pods","ipv4Nets":["nonsense"]}"#).is_err());
        assert!(LocalWorkload::parse(r#"{"ifaceName":"ca"#).is_err(), "half written");
    }
}
