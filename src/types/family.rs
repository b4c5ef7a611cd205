//! Address families: the open pair of the wire, and the two that margay routes.

use std::fmt;
use std::hash::Hash;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::{Nlri, NlriList};

/// Address family identifier (RFC 4760); any number may arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Afi(pub u16);

impl Afi {
    /// IPv4.
    pub const IPV4: Self = Self(1);
    /// IPv6.
    pub const IPV6: Self = Self(2);
}

/// Subsequent address family identifier (RFC 4760); any number may arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Safi(pub u8);

impl Safi {
    /// Unicast forwarding.
    pub const UNICAST: Self = Self(1);
}

/// AFI and SAFI together, for instance IPv4 unicast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Family {
    /// Address family identifier.
    pub afi: Afi,
    /// Subsequent address family identifier.
    pub safi: Safi,
}

impl Family {
    /// IPv4 unicast.
    pub const IPV4_UNICAST: Self = Self { afi: Afi::IPV4, safi: Safi::UNICAST };
    /// IPv6 unicast.
    pub const IPV6_UNICAST: Self = Self { afi: Afi::IPV6, safi: Safi::UNICAST };
    /// The families that margay routes.
    pub const ALL: [Self; 2] = [Self::IPV4_UNICAST, Self::IPV6_UNICAST];

    /// Whether margay routes this family.
    pub fn is_supported(self) -> bool {
        Self::ALL.contains(&self)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::IPV4_UNICAST => f.pad("ipv4-unicast"),
            Self::IPV6_UNICAST => f.pad("ipv6-unicast"),
            Self { afi, safi } => write!(f, "afi-{}-safi-{}", afi.0, safi.0),
        }
    }
}

impl Serialize for Family {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One value for each family that margay routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PerFamily<T> {
    /// The value for IPv4 unicast.
    #[serde(rename = "ipv4-unicast")]
    pub ipv4: T,
    /// The value for IPv6 unicast.
    #[serde(rename = "ipv6-unicast")]
    pub ipv6: T,
}

impl<T> PerFamily<T> {
    /// The value of `family`; none for a family that margay does not route.
    pub fn of(&self, family: Family) -> Option<&T> {
        match family {
            Family::IPV4_UNICAST => Some(&self.ipv4),
            Family::IPV6_UNICAST => Some(&self.ipv6),
            _ => None,
        }
    }

    /// The value of `family`, to change; none for a family that margay does not route.
    pub fn of_mut(&mut self, family: Family) -> Option<&mut T> {
        match family {
            Family::IPV4_UNICAST => Some(&mut self.ipv4),
            Family::IPV6_UNICAST => Some(&mut self.ipv6),
            _ => None,
        }
    }

    /// Both values with their families, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = (Family, &T)> {
        [(Family::IPV4_UNICAST, &self.ipv4), (Family::IPV6_UNICAST, &self.ipv6)].into_iter()
    }

    /// The same shape with each value replaced by what `f` makes of it.
    pub fn map<U>(self, mut f: impl FnMut(Family, T) -> U) -> PerFamily<U> {
        PerFamily { ipv4: f(Family::IPV4_UNICAST, self.ipv4), ipv6: f(Family::IPV6_UNICAST, self.ipv6) }
    }
}

impl PerFamily<bool> {
    /// Whether `family` is set; false for families that margay does not route.
    pub fn has(&self, family: Family) -> bool {
        self.of(family).copied().unwrap_or(false)
    }

    /// Whether no family is set.
    pub fn is_empty(&self) -> bool {
        !self.ipv4 && !self.ipv6
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A family that margay routes, as a type: tables are written once and built for each.
pub trait AddressFamily: sealed::Sealed + Copy + Default + fmt::Debug + Eq + Hash + Send + Sync + 'static {
    /// Its prefixes; always with the host bits zero.
    type Prefix: Copy + fmt::Debug + fmt::Display + Eq + Ord + Hash + Send + Sync + Into<IpNet> + 'static;
    /// AFI and SAFI.
    const FAMILY: Family;
    /// The longest prefix length.
    const MAX_LENGTH: u8;

    /// The prefix, if it is of this family.
    fn narrow(prefix: IpNet) -> Option<Self::Prefix>;
    /// These items as a list of whatever family.
    fn list(items: Vec<Nlri<Self::Prefix>>) -> NlriList;
}

/// IPv4 unicast as a type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ipv4Unicast;

/// IPv6 unicast as a type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ipv6Unicast;

impl sealed::Sealed for Ipv4Unicast {}
impl sealed::Sealed for Ipv6Unicast {}

impl AddressFamily for Ipv4Unicast {
    type Prefix = Ipv4Net;
    const FAMILY: Family = Family::IPV4_UNICAST;
    const MAX_LENGTH: u8 = 32;

    fn narrow(prefix: IpNet) -> Option<Ipv4Net> {
        match prefix {
            IpNet::V4(prefix) => Some(prefix),
            IpNet::V6(_) => None,
        }
    }

    fn list(items: Vec<Nlri<Ipv4Net>>) -> NlriList {
        NlriList::Ipv4(items)
    }
}

impl AddressFamily for Ipv6Unicast {
    type Prefix = Ipv6Net;
    const FAMILY: Family = Family::IPV6_UNICAST;
    const MAX_LENGTH: u8 = 128;

    fn narrow(prefix: IpNet) -> Option<Ipv6Net> {
        match prefix {
            IpNet::V6(prefix) => Some(prefix),
            IpNet::V4(_) => None,
        }
    }

    fn list(items: Vec<Nlri<Ipv6Net>>) -> NlriList {
        NlriList::Ipv6(items)
    }
}
