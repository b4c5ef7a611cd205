//! The wire: bytes to [`Message`] and back. No state beyond what an OPEN exchange settles ([`Context`]).
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod as_path;
mod attribute;
mod capability;
mod error;
pub mod frame;
mod nlri;
mod notification;
mod open;
pub mod pack;
mod refresh;
mod update;

use bytes::Bytes;

use crate::types::{Asn, PerFamily};

pub use capability::{Capability, GracefulRestart, capability_octets};
pub use error::{AttributeError, DecodeError, EncodeError, NlriError, Outcome, Problem};
pub use notification::{Notification, cease, code};
pub use open::Open;
pub use refresh::RouteRefresh;
pub use update::{Fault, FaultAction, Update};

/// Octets of a message header (RFC 4271 4.1).
pub const HEADER: usize = 19;
/// Greatest message without RFC 8654, and of OPEN and KEEPALIVE always.
pub const STANDARD_LIMIT: usize = 4096;
/// Greatest message with RFC 8654.
pub const EXTENDED_LIMIT: usize = 65535;

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

/// Message types; the numbers are the wire's. Others are refused by the header check (H2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// OPEN.
    Open = 1,
    /// UPDATE.
    Update = 2,
    /// NOTIFICATION.
    Notification = 3,
    /// KEEPALIVE.
    Keepalive = 4,
    /// ROUTE-REFRESH (RFC 2918).
    RouteRefresh = 5,
}

impl Kind {
    /// The type of this number, if it is one.
    pub fn from_octet(octet: u8) -> Option<Self> {
        Some(match octet {
            1 => Self::Open,
            2 => Self::Update,
            3 => Self::Notification,
            4 => Self::Keepalive,
            5 => Self::RouteRefresh,
            _ => return None,
        })
    }
}

impl Message {
    /// Reads the body (what follows the header) of a message. Faults of an UPDATE that do not cost the session are in
    /// [`Update::faults`]; an error ends the session with [`DecodeError::notification`].
    pub fn decode(kind: Kind, body: &[u8], context: &Context) -> Result<Self, DecodeError> {
        match kind {
            Kind::Open => Open::decode(body).map(Self::Open),
            Kind::Update => Update::decode(body, context).map(Self::Update),
            Kind::Notification => Notification::decode(body).map(Self::Notification),
            Kind::Keepalive if body.is_empty() => Ok(Self::Keepalive),
            Kind::Keepalive => Err(DecodeError::bad_length(kind, body)),
            Kind::RouteRefresh => RouteRefresh::decode(body, context).map(Self::RouteRefresh),
        }
    }

    /// The whole message, header included. Only an UPDATE can fail: it may be more than one message can say.
    pub fn encode(&self, context: &Context) -> Result<Bytes, EncodeError> {
        match self {
            Self::Open(open) => Ok(open.encode()),
            Self::Update(update) => update.encode(context),
            Self::Notification(notification) => Ok(notification.encode()),
            Self::Keepalive => Ok(keepalive()),
            Self::RouteRefresh(refresh) => Ok(refresh.encode()),
        }
    }

    /// The type.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Open(_) => Kind::Open,
            Self::Update(_) => Kind::Update,
            Self::Notification(_) => Kind::Notification,
            Self::Keepalive => Kind::Keepalive,
            Self::RouteRefresh(_) => Kind::RouteRefresh,
        }
    }
}

/// A KEEPALIVE, whole.
pub fn keepalive() -> Bytes {
    const KEEPALIVE: [u8; HEADER] =
        [255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, HEADER as u8, Kind::Keepalive as u8];
    Bytes::from_static(&KEEPALIVE)
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
            send_limit: STANDARD_LIMIT,
            receive_limit: STANDARD_LIMIT,
            ebgp: false,
            peer_asn: Asn(0),
            check_first_as: false,
            allow_as_set: false,
        }
    }
}
