//! NEXT_HOP in every form that the wire has (RFC 4271, 2545, 8950).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use serde::Serialize;

/// Where a path says that its prefix is reached.
///
/// A link-local address means *on the interface of the session* (protocol statement N3); the
/// interface index is filled in by the session that heard it and is 0 until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum NextHop {
    /// One address that routing can resolve, of either family (IPv4 routes may have an IPv6 next hop).
    Global(IpAddr),
    /// A global IPv6 address and the link-local one of the same router.
    GlobalAndLinkLocal {
        /// The global address.
        global: Ipv6Addr,
        /// The link-local address.
        link_local: Ipv6Addr,
        /// Index of the interface it is on.
        interface: u32,
    },
    /// Only a link-local address.
    LinkLocal {
        /// The link-local address.
        address: Ipv6Addr,
        /// Index of the interface it is on.
        interface: u32,
    },
}

impl NextHop {
    /// The address to compare, show and resolve: the global one where there is one.
    pub fn address(self) -> IpAddr {
        match self {
            Self::Global(address) => address,
            Self::GlobalAndLinkLocal { global, .. } => IpAddr::V6(global),
            Self::LinkLocal { address, .. } => IpAddr::V6(address),
        }
    }

    /// Whether it can be no router's address: unspecified, loopback or multicast (RFC 1812 section 5.3.7). In an IPv4
    /// UPDATE that is a fault; in MP_REACH_NLRI it makes the path one that may not be used.
    pub fn is_martian(self) -> bool {
        let address = self.address().to_canonical();
        address.is_unspecified() || address.is_loopback() || address.is_multicast()
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global(address) => address.fmt(f),
            Self::GlobalAndLinkLocal { global, .. } => global.fmt(f),
            Self::LinkLocal { address, interface } => write!(f, "{address}%{interface}"),
        }
    }
}

impl From<IpAddr> for NextHop {
    fn from(address: IpAddr) -> Self {
        Self::Global(address)
    }
}
