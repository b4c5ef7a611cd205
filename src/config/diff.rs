//! What a new configuration changes, and which sessions it touches.
//!
//! Only what must resets a session: the TCP connection's ends and protection, the ASes, what an OPEN agrees.
//! Policies and export settings are reloaded; timers count from the next OPEN; a TCP-MD5 key is changed on the
//! sockets in place.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Authentication, NodeConfig, PeerConfig};

/// What to do with a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerChange {
    /// Nothing that matters to the protocol.
    Keep,
    /// Hand the new configuration to the peer and the shards; the session stays. These fields differ.
    Reload(Vec<&'static str>),
    /// The session ends with 6/6 and starts with the new configuration, because these fields differ.
    Reinit(Vec<&'static str>),
    /// The session ends with 6/3.
    Delete,
    /// A new session.
    Add,
}

/// What a new configuration changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// By session name; peers that are the same in every field are not there.
    pub peers: BTreeMap<String, PeerChange>,
    /// Listening sockets are to be opened anew.
    pub listen: bool,
    /// The Origin machine has a new configuration.
    pub origin: bool,
    /// The FibSyncer has a new configuration.
    pub fib: bool,
    /// Router identifier, AS or cluster differ: the shards have a new configuration.
    pub rib: bool,
}

impl Diff {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The sessions that end: those deleted and those made anew.
    pub fn resets(&self) -> impl Iterator<Item = &str> {
        let ends = |change: &PeerChange| matches!(change, PeerChange::Delete | PeerChange::Reinit(_));
        self.peers.iter().filter(move |(_, change)| ends(change)).map(|(name, _)| name.as_str())
    }
}

/// What `new` changes in `old`; without an old one everything is new.
pub fn diff(old: Option<&NodeConfig>, new: &NodeConfig) -> Diff {
    let Some(old) = old else {
        let peers = new.peers.keys().map(|name| (name.clone(), PeerChange::Add)).collect();
        return Diff { peers, listen: true, origin: true, fib: true, rib: true };
    };
    let mut peers = BTreeMap::new();
    for (name, peer) in &new.peers {
        match old.peers.get(name) {
            None => drop(peers.insert(name.clone(), PeerChange::Add)),
            Some(before) if before == peer => {}
            Some(before) => drop(peers.insert(name.clone(), peer_change(before, peer))),
        }
    }
    peers.extend(old.peers.keys().filter(|name| !new.peers.contains_key(*name)).map(|name| (name.clone(), PeerChange::Delete)));
    let cluster = |config: &NodeConfig| config.peers.values().find_map(|peer| peer.cluster_id);
    Diff {
        peers,
        listen: old.listen != new.listen,
        origin: old.origin != new.origin,
        fib: old.fib != new.fib,
        rib: old.router_id != new.router_id || old.asn != new.asn || cluster(old) != cluster(new),
    }
}

/// Compares field by field. Every field of [`PeerConfig`] is named in exactly one of the three groups.
fn peer_change(old: &PeerConfig, new: &PeerConfig) -> PeerChange {
    macro_rules! differing {
        ($($field:ident),* $(,)?) => {{
            let mut fields: Vec<&'static str> = Vec::new();
            $(if old.$field != new.$field { fields.push(stringify!($field)); })*
            fields
        }};
    }
    let mut reinit = differing![
        kind,
        address,
        interface,
        port,
        local_asn,
        remote_asn,
        router_id,
        local_address,
        ttl,
        families,
        add_path,
        extended_messages,
        extended_next_hop,
        role,
    ];
    let mut reload = differing![
        passive,
        hold_time,
        send_hold,
        keepalive,
        connect_delay,
        connect_retry,
        idle_hold,
        restart_time,
        long_lived,
        consecutive_restarts,
        reflector_client,
        cluster_id,
        next_hop_mode,
        allow_local_as,
        max_prefixes,
        bfd,
        host_name,
        discard_attributes,
        import,
        export,
    ];
    if old.authentication != new.authentication {
        let both_keys = matches!(
            (&old.authentication, &new.authentication),
            (Authentication::Md5(_), Authentication::Md5(_)) | (Authentication::Ao(_), Authentication::Ao(_))
        );
        if both_keys { reload.push("authentication") } else { reinit.push("authentication") }
    }
    if !reinit.is_empty() {
        PeerChange::Reinit(reinit)
    } else if !reload.is_empty() {
        PeerChange::Reload(reload)
    } else {
        PeerChange::Keep
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{FibConfig, ListenConfig, NextHopMode, OriginConfig, Password, Ttl};
    use crate::policy::Policy;
    use crate::types::{Asn, RouterId};

    fn peer(name: &str) -> PeerConfig {
        PeerConfig::new(name, (Asn(64512), RouterId([10, 0, 0, 1].into())), ("192.0.2.1".parse().unwrap(), Asn(65001)))
    }

    fn node(peers: &[PeerConfig]) -> NodeConfig {
        NodeConfig {
            node: "a".to_owned(),
            router_id: RouterId([10, 0, 0, 1].into()),
            asn: Asn(64512),
            listen: ListenConfig { port: 179, addresses: Vec::new() },
            peers: peers.iter().map(|peer| (peer.name.clone(), Arc::new(peer.clone()))).collect(),
            origin: OriginConfig::default(),
            fib: FibConfig::default(),
            log_level: crate::config::LogLevel::default(),
            keep_without_peers: false,
        }
    }

    fn change(f: impl Fn(&mut PeerConfig)) -> Option<PeerChange> {
        let (old, mut new) = (peer("p"), peer("p"));
        f(&mut new);
        diff(Some(&node(&[old])), &node(&[new])).peers.remove("p")
    }

    fn key(text: &str) -> Authentication {
        Authentication::Md5(Password(text.as_bytes().into()))
    }

    #[test]
    fn only_what_must_resets_a_session() {
        assert_eq!(change(|_| {}), None);
        assert_eq!(change(|p| p.asked_by = "BGPPeer q".to_owned()), Some(PeerChange::Keep));
        assert_eq!(change(|p| p.export.ipv4 = Arc::new(Policy::accept())), Some(PeerChange::Reload(vec!["export"])));
        assert_eq!(change(|p| p.next_hop_mode = NextHopMode::Keep), Some(PeerChange::Reload(vec!["next_hop_mode"])));
        assert_eq!(change(|p| p.hold_time = 30), Some(PeerChange::Reload(vec!["hold_time"])));
        assert_eq!(change(|p| p.max_prefixes.limit = 5), Some(PeerChange::Reload(vec!["max_prefixes"])));
        assert_eq!(change(|p| p.remote_asn = Asn(65002)), Some(PeerChange::Reinit(vec!["remote_asn"])));
        assert_eq!(change(|p| p.ttl = Ttl::Gtsm { hops: 1 }), Some(PeerChange::Reinit(vec!["ttl"])));
        assert_eq!(change(|p| p.authentication = key("x")), Some(PeerChange::Reinit(vec!["authentication"])));
        let both = change(|p| (p.hold_time, p.port) = (30, 1179));
        assert_eq!(both, Some(PeerChange::Reinit(vec!["port"])));
    }

    #[test]
    fn a_key_is_changed_in_place() {
        let with = |text: &str| PeerConfig { authentication: key(text), ..peer("p") };
        let diff = diff(Some(&node(&[with("x")])), &node(&[with("y")]));
        assert_eq!(diff.peers["p"], PeerChange::Reload(vec!["authentication"]));
    }

    #[test]
    fn peers_come_and_go_without_touching_others() {
        let difference = diff(Some(&node(&[peer("p"), peer("q")])), &node(&[peer("p"), peer("r")]));
        assert_eq!(difference.peers, BTreeMap::from([("q".to_owned(), PeerChange::Delete), ("r".to_owned(), PeerChange::Add)]));
        assert_eq!(difference.resets().collect::<Vec<_>>(), ["q"]);
        assert!(!difference.listen && !difference.origin && !difference.fib && !difference.rib);
    }

    #[test]
    fn the_first_configuration_is_all_new() {
        let difference = diff(None, &node(&[peer("p")]));
        assert_eq!(difference.peers["p"], PeerChange::Add);
        assert!(difference.listen && difference.origin && difference.fib && difference.rib);
        assert!(diff(Some(&node(&[peer("p")])), &node(&[peer("p")])).is_empty());
    }

    #[test]
    fn parts_of_the_node() {
        let mut new = node(&[]);
        new.listen.port = 1179;
        new.origin.blocks = vec!["10.0.0.0/26".parse().unwrap()];
        let difference = diff(Some(&node(&[])), &new);
        assert!(difference.listen && difference.origin && !difference.fib && !difference.rib);
        new.asn = Asn(1);
        assert!(diff(Some(&node(&[])), &new).rib);
    }
}
