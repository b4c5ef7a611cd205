//! The wire: bytes to [`Message`] and back. No state beyond what an OPEN exchange settles ([`Context`]).
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

use std::sync::Arc;

use bytes::Bytes;

use crate::types::{Afi, Asn, Attributes, Family, NlriList, PerFamily, RouterId, Safi};

/// One BGP message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Type 1.
    Open(Open),
    /// Type 2.
    Update(Update),
    /// Type 3.
    Notification(Notification),
    /// Type 4.
    Keepalive,
    /// Type 5.
    RouteRefresh(RouteRefresh),
}

/// OPEN (RFC 4271 4.2), capabilities of all its parameters gathered in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The two-octet AS field as it stands on the wire.
    pub my_as: u16,
    /// Proposed hold time in seconds.
    pub hold_time: u16,
    /// BGP identifier.
    pub identifier: RouterId,
    /// Capabilities in order, unknown ones included.
    pub capabilities: Vec<Capability>,
}

/// A capability (RFC 5492). Malformed known ones decode as [`Capability::Unknown`] (O5, O7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Code 1.
    Multiprotocol(Family),
    /// Code 2.
    RouteRefresh,
    /// Code 5: (NLRI AFI, NLRI SAFI, next-hop AFI).
    ExtendedNextHop(Vec<(Afi, u16, Afi)>),
    /// Code 6.
    ExtendedMessage,
    /// Code 9: 0 provider, 1 RS, 2 RS-client, 3 customer, 4 peer.
    Role(u8),
    /// Code 64.
    GracefulRestart(GracefulRestart),
    /// Code 65.
    FourOctetAs(Asn),
    /// Code 69: (family, mode 1 receive, 2 send, 3 both).
    AddPath(Vec<(Family, u8)>),
    /// Code 70.
    EnhancedRouteRefresh,
    /// Code 71: (family, F bit, stale time in seconds).
    LongLivedGracefulRestart(Vec<(Family, bool, u32)>),
    /// Code 73: host and domain name, raw octets as the peer sent them.
    Fqdn {
        /// Host name.
        host: Bytes,
        /// Domain name.
        domain: Bytes,
    },
    /// Code 75.
    SoftwareVersion(Bytes),
    /// Any other code, or a known one whose value is malformed.
    Unknown {
        /// Capability code.
        code: u8,
        /// Value.
        value: Bytes,
    },
}

/// Graceful restart capability (RFC 4724, RFC 8538).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// R: the speaker has restarted.
    pub restarting: bool,
    /// N: NOTIFICATIONs are covered too (RFC 8538).
    pub notification: bool,
    /// Seconds, 0 to 4095.
    pub restart_time: u16,
    /// Families with their F bit (forwarding state preserved).
    pub families: Vec<(Family, bool)>,
}

/// ROUTE-REFRESH (RFC 2918, 7313).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteRefresh {
    /// Address family.
    pub afi: Afi,
    /// 0 request, 1 BoRR, 2 EoRR; others are ignored by the receiver.
    pub subtype: u8,
    /// Subsequent address family.
    pub safi: Safi,
}

/// NOTIFICATION (RFC 4271 4.5); any code and subcode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Error code.
    pub code: u8,
    /// Error subcode.
    pub subcode: u8,
    /// Data, uninterpreted.
    pub data: Bytes,
}

/// A decoded UPDATE after RFC 7606: what it withdraws (by its own word or by treat-as-withdraw), what it
/// announces, and what was wrong with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update {
    /// Withdrawn prefixes, to be applied before `announced`.
    pub withdrawn: Vec<NlriList>,
    /// Announced prefixes with their attributes: one entry for the classic field, one for MP_REACH_NLRI.
    pub announced: Vec<(Arc<Attributes>, NlriList)>,
    /// This UPDATE is the End-of-RIB marker of a family (U12).
    pub end_of_rib: Option<Family>,
    /// Faults that did not cost the session, in order of the message.
    pub faults: Vec<Fault>,
}

/// One fault in an UPDATE and what was done about it (RFC 7606; section 7 of the protocol bar).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The attribute's code; none for faults of structure.
    pub attribute: Option<u8>,
    /// In words, for logs and `show problems`.
    pub what: String,
    /// The action taken.
    pub action: FaultAction,
}

/// RFC 7606's actions short of a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultAction {
    /// Something was missing and its default was taken (LOCAL_PREF on iBGP, U5).
    UseDefault,
    /// The attribute was dropped, the rest used.
    DiscardAttribute,
    /// Every prefix of the message counts as withdrawn.
    TreatAsWithdraw,
}

/// What an OPEN exchange settles about encoding, and what decoding has to know of the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Both sides speak four-octet AS numbers.
    pub four_octet_as: bool,
    /// Families in use on the session; NLRI of others is ignored (U11).
    pub families: PerFamily<bool>,
    /// Families in which the peer sends path identifiers to us.
    pub add_path_receive: PerFamily<bool>,
    /// Families in which we send path identifiers.
    pub add_path_send: PerFamily<bool>,
    /// IPv4 NLRI may carry an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    /// Both sides speak enhanced route refresh (RFC 7313): a ROUTE-REFRESH of a wrong length is answered 7/1.
    pub enhanced_refresh: bool,
    /// Greatest message we may send: 4096 or 65535.
    pub send_limit: usize,
    /// Greatest message we must accept: 4096 or 65535.
    pub receive_limit: usize,
    /// The session crosses an AS border.
    pub ebgp: bool,
    /// The peer's AS, for the first-AS check.
    pub peer_asn: Asn,
    /// On eBGP the first AS of the path must be the peer's.
    pub check_first_as: bool,
    /// AS_SET is accepted (RFC 9774 says no).
    pub allow_as_set: bool,
}

impl Default for Context {
    /// What holds until OPENs have been exchanged: no family, no option, messages of at most 4096 octets.
    fn default() -> Self {
        Self {
            four_octet_as: false,
            families: PerFamily::default(),
            add_path_receive: PerFamily::default(),
            add_path_send: PerFamily::default(),
            extended_next_hop: false,
            enhanced_refresh: false,
            send_limit: 4096,
            receive_limit: 4096,
            ebgp: false,
            peer_asn: Asn(0),
            check_first_as: false,
            allow_as_set: false,
        }
    }
}
