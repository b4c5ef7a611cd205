//! The wire: bytes to [`Message`] and back. No state beyond what an OPEN exchange settles ([`Context`]).
//!
//! # The way in
//! [`frame::next`] cuts the stream at the headers, which it judges before their bodies are there. [`Message::decode`] reads one
//! body. Whatever is wrong becomes a [`DecodeError`], and [`DecodeError::outcome`] alone says what follows: a NOTIFICATION and
//! the end of the session, or one of RFC 7606's milder actions. The milder ones exist for UPDATE only; they have already been
//! taken when [`Update`] is handed on, and are listed in [`Update::faults`]. What the values mean to a session (AS, hold time,
//! identifier) or to a table (loops, own addresses, martians, unusable next hops) is judged there, not here.
//!
//! An UPDATE is walked to its end before anything is decided. Each attribute is read by its row of the table in `attribute.rs`:
//! code, flags, on which sessions it has a meaning, what a malformed value costs, decoder, encoder. Unknown transitive attributes
//! are carried and never parsed. Prefixes are found by the two length fields alone.
//!
//! # The way out
//! [`pack`] turns attributes and many prefixes into frames filled to the session's limit, once for all peers of an update group.
//! [`Message::encode`] says one message; an [`Update`] of any shape that one message can hold, for tests and transcripts.
//! Flags and lengths are made anew: MP_REACH_NLRI and MP_UNREACH_NLRI first, then ascending codes, extended length only where
//! the value needs it, Partial on unknown attributes and where it was heard. What belongs to iBGP is neither sent nor read across an AS border.
//!
//! # What is supported
//! | RFC | what | where |
//! |---|---|---|
//! | 4271 | messages, attributes, limits | everywhere |
//! | 7606 | revised handling of faults in UPDATEs | `error`, `attribute`, `update` |
//! | 4760, 2545 | multiprotocol for IPv4 and IPv6 unicast, IPv6 next hops | `attribute`, `pack` |
//! | 8950 | IPv4 prefixes with IPv6 next hops | `attribute`, `pack` |
//! | 7911 | path identifiers, per family and direction | `nlri` |
//! | 6793 | four-octet AS numbers, AS4_PATH and AS4_AGGREGATOR towards and from old speakers | `as_path`, `update` |
//! | 9774, 7607, 5065 | AS_SET (unless allowed), AS 0 and confederation segments are refused | `as_path` |
//! | 1997, 4360, 5701, 8092 | standard, extended, IPv6 extended and large communities | `attribute` |
//! | 4456 | ORIGINATOR_ID, CLUSTER_LIST | `attribute` |
//! | 9234 | ONLY_TO_CUSTOMER, role capability | `attribute`, `capability` |
//! | 5492, 9072 | capabilities, extended optional parameters | `open`, `capability` |
//! | 2918, 7313 | route refresh and its marks | `refresh` |
//! | 4724, 8538, 9494 | graceful restart capabilities, End-of-RIB, hard reset | `capability`, `update`, `notification` |
//! | 8654 | messages of 65535 octets | `frame`, `pack` |
//! | 4486, 6608, 9003, 9384, 9687 | NOTIFICATION codes in words, shutdown text | `notification` |
//!
//! # What others do
//! Recorded conversations with BIRD, FRR, GoBGP and OpenBGPD stand in `proto-tests/vectors`, each with what margay makes of it.
//! - BIRD, FRR and OpenBGPD send MP_REACH_NLRI with extended length however short it is, FRR AS_PATH too. FRR sends one optional
//!   parameter for each capability, and an IPv4-mapped IPv6 next hop where its interface has no IPv6 address.
//! - OpenBGPD sends `::` as IPv6 next hop in the same place: read as it is; the table finds it unusable.
//! - OpenBGPD and GoBGP put MP_REACH_NLRI behind the other attributes, BIRD and FRR before them.
//! - A path that passed a speaker of two-octet AS numbers loses what AS4_PATH says when AGGREGATOR names a narrow AS (A2).
//!
//! Everything that reads is also a fuzz body: `proto-tests/src/wire/mutate.rs`.
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
#[cfg(test)]
mod tests;
mod update;

use bytes::Bytes;

use crate::types::{Asn, AttributeCodes, PerFamily};

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
    /// Attributes that are skipped as if they were not there (U21).
    pub discard: AttributeCodes,
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
            discard: AttributeCodes::default(),
        }
    }
}
