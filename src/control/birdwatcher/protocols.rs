//! The peers as birdwatcher tells BIRD's protocols.

use serde_json::{Map, Value, json};

use super::time;
use crate::control::ask;
use crate::control::bird::{Clock, Protocol, sum};
use crate::runtime::directory::Directory;
use crate::session::PrefixCounts;
use crate::types::Family;

/// Tasks of peers that are asked at the same time.
const AT_ONCE: usize = 64;

/// The peers by session name, each in the form of `form`.
pub async fn all(directory: &Directory, form: fn(&Protocol<'_>, &str) -> Value) -> Value {
    let clock = Clock::now();
    let entries: Vec<_> = directory.peers.values().filter(|entry| !entry.leaving).collect();
    let mut protocols = Map::new();
    for some in entries.chunks(AT_ONCE) {
        let told = futures::future::join_all(some.iter().map(|entry| ask::status(entry))).await;
        for (entry, status) in some.iter().zip(&told) {
            let since = status.as_ref().map_or(directory.started, |status| clock.at(status.since));
            let peer = Protocol { config: &entry.config, status: status.as_ref(), waiting: !directory.recovered };
            protocols.insert(entry.config.name.clone(), form(&peer, &time(since)));
        }
    }
    Value::Object(protocols)
}

/// An entry of `/protocols/short`.
pub fn short(peer: &Protocol<'_>, since: &str) -> Value {
    json!({
        "proto": "BGP",
        "table": "master",
        "state": peer.protocol_state(),
        "since": since,
        "info": peer.state_word(),
    })
}

/// An entry of `/protocols/bgp`.
pub fn long(peer: &Protocol<'_>, since: &str) -> Value {
    let config = peer.config;
    let counts = |family| peer.status.and_then(|status| status.families.of(family)).copied().unwrap_or_default();
    json!({
        "protocol": config.name,
        "bird_protocol": "BGP",
        "table": "master",
        "state": peer.protocol_state(),
        "state_changed": since,
        "connection": peer.state_word(),
        "bgp_state": peer.state_word(),
        "description": config.asked_by,
        "neighbor_address": config.address,
        "neighbor_as": config.remote_asn.0,
        "neighbor_id": peer.status.and_then(|status| status.identifier).map(|id| id.to_string()),
        "source_address": peer.status.and_then(|status| status.local).map(|local| local.ip()),
        "import_limit": config.max_prefixes.limit,
        "last_error": peer.error().unwrap_or_default(),
        "routes": routes(peer.status.map(sum).unwrap_or_default()),
        "channels": {
            "ipv4": { "routes_count": routes(counts(Family::IPV4_UNICAST)) },
            "ipv6": { "routes_count": routes(counts(Family::IPV6_UNICAST)) },
        },
    })
}

fn routes(PrefixCounts { received, accepted, advertised }: PrefixCounts) -> Value {
    json!({ "imported": accepted, "filtered": received.saturating_sub(accepted), "exported": advertised })
}
