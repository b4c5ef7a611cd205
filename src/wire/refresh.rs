//! ROUTE-REFRESH (RFC 2918), with the marks of enhanced route refresh (RFC 7313).

use bytes::Bytes;

use super::{Context, DecodeError, Kind, frame};
use crate::types::{Afi, Family, Safi};

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

impl RouteRefresh {
    /// Subtype of a request for the whole Adj-RIB-Out.
    pub const REQUEST: u8 = 0;
    /// Subtype of the mark before a table is told again.
    pub const BEGIN: u8 = 1;
    /// Subtype of the mark after it.
    pub const END: u8 = 2;

    /// One of this family.
    pub const fn new(family: Family, subtype: u8) -> Self {
        Self { afi: family.afi, subtype, safi: family.safi }
    }

    /// AFI and SAFI together.
    pub const fn family(self) -> Family {
        Family { afi: self.afi, safi: self.safi }
    }

    pub(super) fn decode(body: &[u8], context: &Context) -> Result<Self, DecodeError> {
        match *body {
            [high, low, subtype, safi] => Ok(Self { afi: Afi(u16::from_be_bytes([high, low])), subtype, safi: Safi(safi) }),
            _ if context.enhanced_refresh => Err(DecodeError::RefreshLength(frame::message(Kind::RouteRefresh, body))),
            _ => Err(DecodeError::bad_length(Kind::RouteRefresh, body)),
        }
    }

    /// The whole message.
    pub fn encode(self) -> Bytes {
        let [high, low] = self.afi.0.to_be_bytes();
        frame::message(Kind::RouteRefresh, &[high, low, self.subtype, self.safi.0])
    }
}
