//! What people see of a peer: the data behind `show peers`.

use std::net::SocketAddr;
use std::time::Instant;

use serde::Serialize;

use crate::types::{Asn, Family, PerFamily, RouterId};
use crate::wire::{Capability, Open};

use super::{DownReason, PrefixCounts, State, Traffic};

/// A peer as it stands. Instants are left to the caller, who knows the wall clock.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PeerStatus {
    /// Session name.
    pub name: String,
    /// The more advanced of the connections' states.
    pub state: State,
    /// Since when it is in that state.
    #[serde(skip)]
    pub since: Instant,
    /// Whole seconds since then.
    pub seconds_in_state: u64,
    /// Why it is held down although it is configured; none where it may run.
    pub held: Option<String>,
    /// Why the last session or attempt ended.
    pub last_error: Option<LastError>,
    /// How often an Established session was lost.
    pub flaps: u64,
    /// UPDATEs with faults that did not cost the session, in all sessions.
    pub faulty_updates: u64,
    /// Messages by type, in all sessions.
    pub messages: Traffic,
    /// Negotiated Hold time in seconds, from OpenConfirm on.
    pub hold_time: Option<u16>,
    /// Pause between our KEEPALIVEs in milliseconds, before jitter.
    pub keepalive_ms: Option<u64>,
    /// The peer's BGP identifier.
    pub identifier: Option<RouterId>,
    /// Our end of the most advanced connection.
    pub local: Option<SocketAddr>,
    /// The peer's end of it.
    pub remote: Option<SocketAddr>,
    /// We opened that connection.
    pub outgoing: Option<bool>,
    /// Families in use.
    pub families_in_use: Vec<Family>,
    /// Families whose paths are stale because the peer restarts.
    pub stale: Vec<Family>,
    /// Those of them that are long-lived stale (RFC 9494): used only where there is nothing else.
    pub long_lived_stale: Vec<Family>,
    /// Capabilities of both sides, from OpenConfirm on.
    pub capabilities: Option<Capabilities>,
    /// Paths by family.
    pub families: PerFamily<PrefixCounts>,
}

/// Why the last session or attempt ended, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastError {
    /// Who and why.
    #[serde(flatten)]
    pub reason: DownReason,
    /// When.
    #[serde(skip)]
    pub at: Instant,
}

/// Capabilities of both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// Ours.
    pub local: CapabilitySet,
    /// The peer's.
    pub remote: CapabilitySet,
}

/// The capabilities of one OPEN, as people read them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CapabilitySet {
    /// Families (code 1).
    pub multiprotocol: Vec<String>,
    /// Route refresh (2).
    pub route_refresh: bool,
    /// IPv4 unicast with IPv6 next hops, and whatever else stands there (5).
    pub extended_next_hop: bool,
    /// Extended messages (6).
    pub extended_message: bool,
    /// Role (9).
    pub role: Option<u8>,
    /// Graceful restart (64).
    pub graceful_restart: Option<GracefulRestartStatus>,
    /// Four-octet AS (65).
    pub four_octet_as: Option<Asn>,
    /// ADD-PATH (69) by family: `receive`, `send` or `both`.
    pub add_path: Vec<AddPathStatus>,
    /// Enhanced route refresh (70).
    pub enhanced_route_refresh: bool,
    /// Long-lived graceful restart (71): the families named.
    pub long_lived_graceful_restart: Option<Vec<String>>,
    /// Host name (73).
    pub host_name: Option<String>,
    /// Software version (75).
    pub software_version: Option<String>,
    /// Codes that margay does not know, or whose value was malformed.
    pub unknown: Vec<u8>,
}

/// Graceful restart as a capability says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GracefulRestartStatus {
    /// R.
    pub restarting: bool,
    /// N.
    pub notification: bool,
    /// Seconds.
    pub restart_time: u16,
    /// Families covered.
    pub families: Vec<String>,
    /// Those of them with F.
    pub forwarding: Vec<String>,
}

/// ADD-PATH of one family as a capability says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AddPathStatus {
    /// The family.
    pub family: String,
    /// `receive`, `send` or `both`.
    pub mode: &'static str,
}

impl CapabilitySet {
    /// Those of an OPEN.
    pub fn of(open: &Open) -> Self {
        let mut set = Self::default();
        for capability in &open.capabilities {
            set.add(capability);
        }
        set
    }

    fn add(&mut self, capability: &Capability) {
        match capability {
            Capability::Multiprotocol(family) => self.multiprotocol.push(family.to_string()),
            Capability::RouteRefresh => self.route_refresh = true,
            Capability::ExtendedNextHop(_) => self.extended_next_hop = true,
            Capability::ExtendedMessage => self.extended_message = true,
            Capability::Role(role) => self.role = Some(*role),
            Capability::GracefulRestart(gr) => {
                self.graceful_restart = Some(GracefulRestartStatus {
                    restarting: gr.restarting,
                    notification: gr.notification,
                    restart_time: gr.restart_time,
                    families: gr.families.iter().map(|(family, _)| family.to_string()).collect(),
                    forwarding: gr.families.iter().filter(|(_, kept)| *kept).map(|(family, _)| family.to_string()).collect(),
                });
            }
            Capability::FourOctetAs(asn) => self.four_octet_as = Some(*asn),
            Capability::AddPath(modes) => {
                let status = |(family, mode): &(Family, u8)| {
                    let mode = ["receive", "send", "both"].get(usize::from(*mode).checked_sub(1)?)?;
                    Some(AddPathStatus { family: family.to_string(), mode })
                };
                self.add_path = modes.iter().filter_map(status).collect();
            }
            Capability::EnhancedRouteRefresh => self.enhanced_route_refresh = true,
            Capability::LongLivedGracefulRestart(families) => {
                self.long_lived_graceful_restart = Some(families.iter().map(|(family, ..)| family.to_string()).collect());
            }
            Capability::Fqdn { host, .. } => self.host_name = Some(shown(host)),
            Capability::SoftwareVersion(version) => self.software_version = Some(shown(version)),
            Capability::Unknown { code, .. } => self.unknown.push(*code),
        }
    }
}

/// Text of a peer: escaped, never trusted.
fn shown(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).chars().take(255).flat_map(char::escape_debug).collect()
}
