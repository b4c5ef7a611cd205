//! Configurations for the tests of this room.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Authentication, MaxPrefixes, NextHopMode, PeerConfig, PeerKind, Ttl};
use crate::policy::Policy;
use crate::types::{Asn, PerFamily, RouterId};

/// Some instant to begin with.
#[expect(clippy::disallowed_methods, reason = "any instant will do as the beginning")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Two nodes of one AS, 10.0.0.1 and 10.0.0.2, as each sees the other.
pub(super) fn pair() -> (PeerConfig, PeerConfig) {
    (towards([10, 0, 0, 1], [10, 0, 0, 2]), towards([10, 0, 0, 2], [10, 0, 0, 1]))
}

fn towards(us: [u8; 4], peer: [u8; 4]) -> PeerConfig {
    let accept = Arc::new(Policy::accept());
    PeerConfig {
        name: format!("Node_{}_{}_{}_{}", peer[0], peer[1], peer[2], peer[3]),
        kind: PeerKind::Node,
        asked_by: "BGPPeer test".to_owned(),
        address: IpAddr::from(peer),
        interface: None,
        port: 179,
        local_asn: Asn(64512),
        remote_asn: Asn(64512),
        router_id: RouterId(us.into()),
        local_address: Some(IpAddr::from(us)),
        passive: false,
        authentication: Authentication::None,
        ttl: Ttl::Multihop,
        hold_time: 90,
        keepalive: None,
        connect_delay: Duration::from_secs(2),
        connect_retry: Duration::from_secs(5),
        idle_hold: (Duration::from_secs(5), Duration::from_secs(30)),
        restart_time: 120,
        families: PerFamily { ipv4: true, ipv6: false },
        add_path: false,
        extended_messages: false,
        extended_next_hop: false,
        reflector_client: false,
        cluster_id: None,
        next_hop_mode: NextHopMode::Auto,
        allow_local_as: 0,
        max_prefixes: MaxPrefixes::default(),
        import: PerFamily { ipv4: accept.clone(), ipv6: accept.clone() },
        export: PerFamily { ipv4: accept.clone(), ipv6: accept },
    }
}
