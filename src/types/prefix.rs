//! Prefixes over `ipnet`: canonical form, NLRI items, martians.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Family, PathId};

/// The prefix with its host bits cleared (protocol statement U10).
pub fn canonical(prefix: IpNet) -> IpNet {
    prefix.trunc()
}

/// The unicast family of a prefix.
pub fn family_of(prefix: &IpNet) -> Family {
    match prefix {
        IpNet::V4(_) => Family::IPV4_UNICAST,
        IpNet::V6(_) => Family::IPV6_UNICAST,
    }
}

/// One item of an NLRI or withdrawn field: a prefix, and its path identifier under ADD-PATH (else 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nlri<P> {
    /// The prefix, host bits zero.
    pub prefix: P,
    /// The sender's path identifier; 0 where ADD-PATH is not in use.
    pub path_id: PathId,
}

/// Items of one family, in the order of the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NlriList {
    /// IPv4 unicast.
    Ipv4(Vec<Nlri<Ipv4Net>>),
    /// IPv6 unicast.
    Ipv6(Vec<Nlri<Ipv6Net>>),
}

impl NlriList {
    /// The family of the items.
    pub fn family(&self) -> Family {
        match self {
            Self::Ipv4(_) => Family::IPV4_UNICAST,
            Self::Ipv6(_) => Family::IPV6_UNICAST,
        }
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Ipv4(items) => items.len(),
            Self::Ipv6(items) => items.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The items with their prefixes widened to either family.
    pub fn iter(&self) -> Box<dyn Iterator<Item = Nlri<IpNet>> + '_> {
        match self {
            Self::Ipv4(items) => Box::new(items.iter().map(|n| Nlri { prefix: IpNet::V4(n.prefix), path_id: n.path_id })),
            Self::Ipv6(items) => Box::new(items.iter().map(|n| Nlri { prefix: IpNet::V6(n.prefix), path_id: n.path_id })),
        }
    }
}

/// Prefixes that no peer may announce: protocol statement M1. Default routes, private ranges and
/// shared address space are normal in a data centre and are not martians.
pub fn is_martian(prefix: &IpNet) -> bool {
    const V4: [(u32, u8); 5] = [(0x0000_0000, 8), (0x7f00_0000, 8), (0xa9fe_0000, 16), (0xe000_0000, 4), (0xf000_0000, 4)];
    match prefix {
        IpNet::V4(p) if p.prefix_len() == 0 => false,
        IpNet::V4(p) => {
            let bits = u32::from(p.network());
            V4.iter().any(|&(net, len)| p.prefix_len() >= len && (bits ^ net) >> (32 - len) == 0)
        }
        IpNet::V6(p) => {
            let a = p.network();
            let s = a.segments();
            let mapped = p.prefix_len() >= 96 && s[..5] == [0; 5] && s[5] == 0xffff;
            let low = p.prefix_len() == 128 && (a.is_unspecified() || a.is_loopback());
            let link_local = p.prefix_len() >= 10 && s[0] & 0xffc0 == 0xfe80;
            let multicast = p.prefix_len() >= 8 && s[0] & 0xff00 == 0xff00;
            mapped || low || link_local || multicast
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m1_martians() {
        for bad in [
            "0.1.0.0/16",
            "127.0.0.1/32",
            "169.254.1.1/32",
            "224.0.0.0/4",
            "240.1.0.0/16",
            "255.255.255.255/32",
            "::/128",
            "::1/128",
            "::ffff:10.0.0.0/104",
            "fe80::/64",
            "ff02::/16",
        ] {
            assert!(is_martian(&bad.parse().unwrap()), "{bad}");
        }
        for good in [
            "0.0.0.0/0",
            "::/0",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "192.168.0.0/16",
            "fd00::/8",
            "2001:db8::/32",
            "10.0.0.0/32",
            "10.0.0.255/32",
        ] {
            assert!(!is_martian(&good.parse().unwrap()), "{good}");
        }
    }
}
