//! The vocabulary: what every other room speaks of. Data and its text forms; no protocol logic.
//!
//! Names are the RFCs'. Integers that the wire may extend (AFI, SAFI, communities) are newtypes with
//! named constants ("open enums"), so an unknown value survives decoding and re-encoding.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod as_path;
mod asn;
mod attribute_codes;
mod attributes;
mod community;
mod family;
mod id;
mod next_hop;
mod outbox;
mod prefix;
mod rare;
mod seeded;
mod shared_list;
mod sync;

pub use as_path::{AsPath, Segment, SegmentKind};
pub use asn::{Asn, ParseAsnError};
pub use attribute_codes::AttributeCodes;
pub use attributes::{Aggregator, Attributes, Origin, Partial, UnknownAttribute};
pub use community::{Community, ExtendedCommunity, Ipv6ExtendedCommunity, LargeCommunity, ParseCommunityError};
pub use family::{AddressFamily, Afi, Family, Ipv4Unicast, Ipv6Unicast, PerFamily, Safi};
pub use id::{ClusterId, ConnectionId, PathId, PeerId, QueryId, RouterId, ShardId};
pub use next_hop::NextHop;
pub use outbox::Outbox;
pub use prefix::{Nlri, NlriList, canonical, family_of, is_martian};
pub use rare::{Rare, RareAttributes};
pub use seeded::Seeded;
pub use shared_list::SharedList;
pub use sync::Sync;
