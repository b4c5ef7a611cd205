//! Configurations for the tests of this room.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::config::{AddPath, PeerConfig};
use crate::policy::Policy;
use crate::session::SessionFacts;
use crate::types::{Asn, ConnectionId, PeerId, PerFamily, RouterId};
use crate::wire::{Context, GracefulRestart};

/// A session with peer `n` in IPv4; the peer has graceful restart and says whether it is restarting, or has none.
pub(crate) fn facts(n: u32, graceful_restart: Option<bool>) -> SessionFacts {
    let config = pair().0;
    SessionFacts {
        peer: PeerId(n),
        connection: ConnectionId(1),
        context: Context { families: config.families, ..Context::default() },
        local: IpAddr::from([10, 0, 0, 1]),
        local_link: None,
        remote: config.address,
        identifier: RouterId([10, 0, 0, 2].into()),
        graceful_restart: graceful_restart.map(|restarting| GracefulRestart {
            restarting,
            restart_time: 120,
            ..GracefulRestart::default()
        }),
        long_lived: false,
        enhanced_refresh: false,
        refresh: true,
        handshake: Arc::default(),
        config: Arc::new(config),
    }
}

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
        asked_by: "BGPPeer test".to_owned(),
        local_address: Some(IpAddr::from(us)),
        hold_time: 90,
        add_path: AddPath::Off,
        import: PerFamily { ipv4: accept.clone(), ipv6: accept.clone() },
        export: PerFamily { ipv4: accept.clone(), ipv6: accept },
        ..PeerConfig::new(
            format!("Node_{}_{}_{}_{}", peer[0], peer[1], peer[2], peer[3]),
            (Asn(64512), RouterId(us.into())),
            (peer.into(), Asn(64512)),
        )
    }
}
