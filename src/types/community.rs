//! Standard (RFC 1997), extended (RFC 4360, 5701) and large (RFC 8092) communities.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A standard community, `asn:value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

impl Community {
    /// RFC 8326.
    pub const GRACEFUL_SHUTDOWN: Self = Self(0xffff_0000);
    /// RFC 7611.
    pub const ACCEPT_OWN: Self = Self(0xffff_0001);
    /// RFC 9494.
    pub const LLGR_STALE: Self = Self(0xffff_0006);
    /// RFC 9494.
    pub const NO_LLGR: Self = Self(0xffff_0007);
    /// RFC 7999.
    pub const BLACKHOLE: Self = Self(0xffff_029a);
    /// RFC 1997.
    pub const NO_EXPORT: Self = Self(0xffff_ff01);
    /// RFC 1997.
    pub const NO_ADVERTISE: Self = Self(0xffff_ff02);
    /// RFC 1997.
    pub const NO_EXPORT_SUBCONFED: Self = Self(0xffff_ff03);
    /// RFC 3765.
    pub const NOPEER: Self = Self(0xffff_ff04);
}

/// A large community, `asn:value:value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity(pub u32, pub u32, pub u32);

/// An extended community, kept as its eight octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedCommunity(pub [u8; 8]);

impl ExtendedCommunity {
    /// Whether it may cross an AS border (RFC 4360 section 2: bit 0x40 of the type is clear).
    pub fn is_transitive(self) -> bool {
        self.0[0] & 0x40 == 0
    }
}

/// An IPv6-address-specific extended community (RFC 5701), kept as its twenty octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipv6ExtendedCommunity(pub [u8; 20]);

impl Ipv6ExtendedCommunity {
    /// Whether it may cross an AS border.
    pub fn is_transitive(self) -> bool {
        self.0[0] & 0x40 == 0
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0 >> 16, self.0 & 0xffff)
    }
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.0, self.1, self.2)
    }
}

fn hex(f: &mut fmt::Formatter<'_>, octets: &[u8]) -> fmt::Result {
    octets.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
}

impl fmt::Display for ExtendedCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

impl fmt::Display for Ipv6ExtendedCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

macro_rules! serialize_as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}
serialize_as_text!(Community, LargeCommunity, ExtendedCommunity, Ipv6ExtendedCommunity);

/// The text is no community of the kind asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no community (16-bit `aa:nn`, or 32-bit `aa:nn:mm` for a large one)")]
pub struct ParseCommunityError(pub String);

impl FromStr for Community {
    type Err = ParseCommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text
            .split_once(':')
            .and_then(|(high, low)| Some(u32::from(high.parse::<u16>().ok()?) << 16 | u32::from(low.parse::<u16>().ok()?)));
        parsed.map(Self).ok_or_else(|| ParseCommunityError(text.to_owned()))
    }
}

impl FromStr for LargeCommunity {
    type Err = ParseCommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(':').map(str::parse::<u32>);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(a)), Some(Ok(b)), Some(Ok(c)), None) => Ok(Self(a, b, c)),
            _ => Err(ParseCommunityError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        assert_eq!("65535:65281".parse(), Ok(Community::NO_EXPORT));
        assert_eq!(Community::NO_EXPORT.to_string(), "65535:65281");
        assert_eq!("1:2:3".parse(), Ok(LargeCommunity(1, 2, 3)));
        assert!("65536:1".parse::<Community>().is_err());
        assert!("1:2:3:4".parse::<LargeCommunity>().is_err());
    }
}
