//! What a new configuration changes, and which sessions it touches.
//!
//! Only what must resets a session: the TCP connection's ends and protection, the ASes, what an OPEN agrees.
//! Policies and export settings are reloaded; timers count from the next OPEN; a TCP-MD5 key is changed on the
//! sockets in place.

use std::collections::BTreeMap;
use std::sync::Arc;

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
    /// The session stays under another name; these fields differ, the name among them.
    Rename {
        /// Its name until now.
        from: String,
        /// The fields.
        fields: Vec<&'static str>,
    },
    /// The session ends; where others are on their way, once they have taken its place
    /// ([`node::handover`](crate::node::handover)).
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
///
/// A peer that only gets another name (a mesh session becomes one of a BGPPeer, a port appears in the name) keeps its session.
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
    find_renames(old, new, &mut peers);
    let cluster = |config: &NodeConfig| config.peers.values().find_map(|peer| peer.cluster_id);
    Diff {
        peers,
        listen: old.listen != new.listen,
        origin: old.origin != new.origin,
        fib: old.fib != new.fib,
        rib: old.router_id != new.router_id || old.asn != new.asn || cluster(old) != cluster(new),
    }
}

/// A deleted and an added peer of one address whose sessions are the same on the wire are one that is renamed. Several
/// peers may have one address; they are told apart by their ports.
fn find_renames(old: &NodeConfig, new: &NodeConfig, peers: &mut BTreeMap<String, PeerChange>) {
    let place = |peer: &PeerConfig| (peer.address, peer.interface.clone(), peer.port);
    let gone = |change: &PeerChange| *change == PeerChange::Delete;
    let mut leaving: BTreeMap<_, &Arc<PeerConfig>> = peers
        .iter()
        .filter(|(_, change)| gone(change))
        .filter_map(|(name, _)| old.peers.get(name))
        .map(|peer| (place(peer), peer))
        .collect();
    let added: Vec<&Arc<PeerConfig>> =
        peers.iter().filter(|(_, change)| **change == PeerChange::Add).filter_map(|(name, _)| new.peers.get(name)).collect();
    for peer in added {
        let Some(before) = leaving.get(&place(peer)).copied() else { continue };
        if let PeerChange::Reload(mut fields) = peer_change(before, peer) {
            leaving.remove(&place(peer));
            fields.insert(0, "name");
            peers.remove(&before.name);
            peers.insert(peer.name.clone(), PeerChange::Rename { from: before.name.clone(), fields });
        } else if let PeerChange::Keep = peer_change(before, peer) {
            leaving.remove(&place(peer));
            peers.remove(&before.name);
            peers.insert(peer.name.clone(), PeerChange::Rename { from: before.name.clone(), fields: vec!["name"] });
        }
    }
}

/// What the change of one peer's configuration means to its session. Compares field by field: every field of
/// [`PeerConfig`] but its name, and whom it was asked by, is named in exactly one of the groups.
pub fn peer_change(old: &PeerConfig, new: &PeerConfig) -> PeerChange {
    macro_rules! differing {
        ($($field:ident),* $(,)?) => {{
            let mut fields: Vec<&'static str> = Vec::new();
            $(if old.$field != new.$field { fields.push(stringify!($field)); })*
            fields
        }};
    }
    let mut reinit = differing![
        address,
        interface,
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
        kind,
        cluster_node,
        port,
        passive,
        hold_time,
        send_hold,
        keepalive,
        connect_delay,
        connect_retry,
        idle_hold,
        restart_time,
        long_lived,
        long_lived_partial,
        consecutive_restarts,
        reflector_client,
        cluster_id,
        next_hop_mode,
        allow_local_as,
        max_prefixes,
        bfd,
        host_name,
        discard_attributes,
        as_path,
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
    use std::time::Duration;

    use super::*;
    use crate::config::{AddPath, FibConfig, ListenConfig, NextHopMode, OriginConfig, Password, PeerKind, SendHold, Ttl};
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
        let both = change(|p| (p.hold_time, p.add_path) = (30, AddPath::Off));
        assert_eq!(both, Some(PeerChange::Reinit(vec!["add_path"])));
    }

    /// Every field of a session, what changes it, and what that costs.
    #[test]
    fn each_field_and_what_its_change_costs() {
        // A new field must be named here, and so in the table.
        let PeerConfig {
            name: _,
            kind: _,
            asked_by: _,
            cluster_node: _,
            address: _,
            interface: _,
            port: _,
            local_asn: _,
            remote_asn: _,
            router_id: _,
            local_address: _,
            passive: _,
            authentication: _,
            ttl: _,
            hold_time: _,
            send_hold: _,
            keepalive: _,
            connect_delay: _,
            connect_retry: _,
            idle_hold: _,
            restart_time: _,
            long_lived: _,
            long_lived_partial: _,
            consecutive_restarts: _,
            families: _,
            add_path: _,
            extended_messages: _,
            extended_next_hop: _,
            reflector_client: _,
            cluster_id: _,
            next_hop_mode: _,
            allow_local_as: _,
            max_prefixes: _,
            bfd: _,
            role: _,
            host_name: _,
            discard_attributes: _,
            as_path: _,
            import: _,
            export: _,
        } = peer("p");
        type Change = fn(&mut PeerConfig);
        let keep: [Change; 1] = [|p| p.asked_by = "BGPPeer q".to_owned()];
        for f in keep {
            assert_eq!(change(f), Some(PeerChange::Keep));
        }
        // In place: the rules at once, the timers and what only a connect needs from the next one on.
        let reload: [(&str, Change); 25] = [
            ("kind", |p| p.kind = PeerKind::Global),
            ("cluster_node", |p| p.cluster_node = true),
            ("port", |p| p.port = 1179),
            ("passive", |p| p.passive = true),
            ("hold_time", |p| p.hold_time = 30),
            ("send_hold", |p| p.send_hold = SendHold::Off),
            ("keepalive", |p| p.keepalive = Some(Duration::from_secs(1))),
            ("connect_delay", |p| p.connect_delay = Duration::ZERO),
            ("connect_retry", |p| p.connect_retry = Duration::from_secs(1)),
            ("idle_hold", |p| p.idle_hold.0 = Duration::from_secs(1)),
            ("restart_time", |p| p.restart_time = 1),
            ("long_lived", |p| p.long_lived = Some(1)),
            ("long_lived_partial", |p| p.long_lived_partial = true),
            ("consecutive_restarts", |p| p.consecutive_restarts = crate::config::ConsecutiveRestarts::Drop),
            ("reflector_client", |p| p.reflector_client = true),
            ("cluster_id", |p| p.cluster_id = Some(crate::types::ClusterId([1, 1, 1, 1].into()))),
            ("next_hop_mode", |p| p.next_hop_mode = NextHopMode::Keep),
            ("allow_local_as", |p| p.allow_local_as = 1),
            ("max_prefixes", |p| p.max_prefixes.limit = 5),
            ("bfd", |p| {
                p.bfd = Some(crate::config::BfdConfig {
                    interval: Duration::from_secs(1),
                    multiplier: 3,
                    multihop: true,
                    strict: false,
                    graceful: false,
                })
            }),
            ("host_name", |p| p.host_name = Some("a".into())),
            ("as_path", |p| p.as_path.remove_private = true),
            ("import", |p| p.import.ipv4 = Arc::new(Policy::accept())),
            ("export", |p| p.export.ipv4 = Arc::new(Policy::accept())),
            ("export", |p| p.export.ipv6 = Arc::new(Policy::accept())),
        ];
        for (field, f) in reload {
            assert_eq!(change(f), Some(PeerChange::Reload(vec![field])), "{field}");
        }
        // What the OPEN says, and both ends of TCP.
        let reinit: [(&str, Change); 14] = [
            ("address", |p| p.address = "192.0.2.2".parse().unwrap()),
            ("interface", |p| p.interface = Some("eth0".to_owned())),
            ("local_asn", |p| p.local_asn = Asn(1)),
            ("remote_asn", |p| p.remote_asn = Asn(1)),
            ("router_id", |p| p.router_id = RouterId([10, 0, 0, 9].into())),
            ("local_address", |p| p.local_address = Some("192.0.2.9".parse().unwrap())),
            ("authentication", |p| p.authentication = Authentication::Md5(Password(b"x"[..].into()))),
            ("authentication", |p| p.authentication = Authentication::Missing("Secret s".to_owned())),
            ("ttl", |p| p.ttl = Ttl::Direct),
            ("role", |p| p.role = Some(crate::config::RoleConfig { role: crate::config::Role::Customer, strict: false })),
            ("families", |p| p.families.ipv6 = true),
            ("add_path", |p| p.add_path = AddPath::Off),
            ("extended_messages", |p| p.extended_messages = true),
            ("extended_next_hop", |p| p.extended_next_hop = true),
        ];
        for (field, f) in reinit {
            assert_eq!(change(f), Some(PeerChange::Reinit(vec![field])), "{field}");
        }
    }

    /// Changes between two lists of peers.
    fn changes(old: &[PeerConfig], new: &[PeerConfig]) -> BTreeMap<String, PeerChange> {
        diff(Some(&node(old)), &node(new)).peers
    }

    #[test]
    fn a_new_name_keeps_the_session() {
        let renamed = |from: &str, fields: &[&'static str]| PeerChange::Rename { from: from.to_owned(), fields: fields.to_vec() };
        let (global, own) = (PeerConfig { kind: PeerKind::Global, ..peer("Global_192_0_2_1") }, peer("Node_192_0_2_1"));
        let only = |name: &str, change: PeerChange| BTreeMap::from([(name.to_owned(), change)]);
        assert_eq!(
            changes(std::slice::from_ref(&global), std::slice::from_ref(&own)),
            only("Node_192_0_2_1", renamed("Global_192_0_2_1", &["name", "kind"]))
        );
        assert_eq!(changes(&[peer("a")], &[peer("b")]), only("b", renamed("a", &["name"])));
        // A client of a reflector now: another export, the same session.
        let client = PeerConfig { reflector_client: true, ..own.clone() };
        assert_eq!(
            changes(std::slice::from_ref(&global), &[client]),
            only("Node_192_0_2_1", renamed("Global_192_0_2_1", &["name", "kind", "reflector_client"]))
        );
        // Another AS is another session, another address another peer, another port perhaps another speaker.
        for other in [
            PeerConfig { remote_asn: Asn(65002), ..own.clone() },
            PeerConfig { address: "192.0.2.7".parse().unwrap(), ..own.clone() },
            PeerConfig { port: 1179, ..own.clone() },
        ] {
            let expected = [("Global_192_0_2_1", PeerChange::Delete), ("Node_192_0_2_1", PeerChange::Add)];
            assert_eq!(changes(std::slice::from_ref(&global), &[other]), expected.map(|(name, change)| (name.to_owned(), change)).into());
        }
        // Two sessions with one address are told apart by their ports.
        let on = |name: &str, port| PeerConfig { port, ..peer(name) };
        let two = changes(&[on("a", 179), on("b", 1179)], &[on("c", 1179), on("d", 179)]);
        assert_eq!((&two["c"], &two["d"]), (&renamed("b", &["name"]), &renamed("a", &["name"])));
    }

    #[test]
    fn a_key_is_changed_in_place() {
        let with = |text: &str| PeerConfig { authentication: key(text), ..peer("p") };
        let diff = diff(Some(&node(&[with("x")])), &node(&[with("y")]));
        assert_eq!(diff.peers["p"], PeerChange::Reload(vec!["authentication"]));
    }

    #[test]
    fn peers_come_and_go_without_touching_others() {
        let other = PeerConfig { address: "192.0.2.9".parse().unwrap(), ..peer("r") };
        let difference = diff(Some(&node(&[peer("p"), peer("q")])), &node(&[peer("p"), other]));
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
