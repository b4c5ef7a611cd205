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
    ];
    let mut reload = differing![
        passive,
        hold_time,
        keepalive,
        connect_delay,
        connect_retry,
        idle_hold,
        restart_time,
        reflector_client,
        cluster_id,
        next_hop_mode,
        allow_local_as,
        max_prefixes,
        import,
        export,
    ];
    if old.authentication != new.authentication {
        let both_keys = matches!((&old.authentication, &new.authentication), (Authentication::Md5(_), Authentication::Md5(_)));
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
