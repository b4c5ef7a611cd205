//! Autonomous system numbers (RFC 6793), written as asplain; asdot is read too (RFC 5396).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// A four-octet autonomous system number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Asn(pub u32);

impl Asn {
    /// Stands in for a number above 65535 in two-octet fields (RFC 6793 section 9).
    pub const TRANS: Self = Self(23456);

    /// The two-octet form: itself, or [`Asn::TRANS`] where it does not fit.
    pub fn two_octets(self) -> u16 {
        u16::try_from(self.0).unwrap_or(23456)
    }

    /// Whether this number may be configured for a speaker: 0 (RFC 7607), AS_TRANS and the two
    /// last numbers (RFC 7300) may not.
    pub fn is_usable(self) -> bool {
        !matches!(self.0, 0 | 23456 | 65535 | u32::MAX)
    }

    /// Private use by RFC 6996.
    pub fn is_private(self) -> bool {
        matches!(self.0, 64512..=65534 | 4_200_000_000..=4_294_967_294)
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is no AS number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no AS number (a number from 0 to 4294967295, or two 16-bit numbers with a dot)")]
pub struct ParseAsnError(pub String);

impl FromStr for Asn {
    type Err = ParseAsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = match text.split_once('.') {
            None => text.parse().ok(),
            Some((high, low)) => match (high.parse::<u16>(), low.parse::<u16>()) {
                (Ok(high), Ok(low)) => Some(u32::from(high) << 16 | u32::from(low)),
                _ => None,
            },
        };
        number.map(Self).ok_or_else(|| ParseAsnError(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Asn {
    /// Accepts a number or a string, as Calico's API does ("1.10" is 65546).
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Asn;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an AS number from 0 to 4294967295, or one in dotted form such as \"1.10\"")
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Asn, E> {
                u32::try_from(number).map(Asn).map_err(|_| E::custom(ParseAsnError(number.to_string())))
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Asn, E> {
                u32::try_from(number).map(Asn).map_err(|_| E::custom(ParseAsnError(number.to_string())))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Asn, E> {
                text.trim().parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_plain_and_dotted() {
        assert_eq!("64512".parse(), Ok(Asn(64512)));
        assert_eq!("1.10".parse(), Ok(Asn(65546)));
        for bad in ["", "-1", "4294967296", "1.65536", "1.2.3", "AS1"] {
            assert!(bad.parse::<Asn>().is_err(), "{bad}");
        }
    }

    #[test]
    fn trans_stands_in_for_large_numbers() {
        assert_eq!(Asn(65535).two_octets(), 65535);
        assert_eq!(Asn(65536).two_octets(), 23456);
    }
}
