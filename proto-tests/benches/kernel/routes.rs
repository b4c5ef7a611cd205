//! The routes, and the namespace that takes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

use ipnet::IpNet;
use margay::fib::{BestRoute, FibChange, Hop, KernelHop, KernelRoute, RouteKey, RouteType, Target};
use margay::policy::RouteSource;
use margay::types::NextHop;
use serde::Serialize;

/// Metric of the routes.
pub const METRIC: u32 = 1024;
/// LOCAL_PREF that becomes [`METRIC`].
const LOCAL_PREF: u32 = 2_147_483_647 - METRIC;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Family {
    IPv4,
    IPv6,
}

/// What is done to the routes, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    Add,
    Replace,
    Delete,
}

impl Verb {
    pub const ALL: [Self; 3] = [Self::Add, Self::Replace, Self::Delete];
}

impl Family {
    /// Half /24 and half /32; half /48 and half /128; sorted.
    pub fn prefixes(self, count: u32) -> Vec<IpNet> {
        let mut prefixes: Vec<IpNet> = (0..count).map(|i| self.prefix(i)).collect();
        prefixes.sort_unstable();
        prefixes
    }

    fn prefix(self, i: u32) -> IpNet {
        let (address, length): (IpAddr, u8) = match (self, i.is_multiple_of(2)) {
            (Self::IPv4, true) => (Ipv4Addr::from(0x1000_0000 + (i << 8)).into(), 24),
            (Self::IPv4, false) => (Ipv4Addr::from(0x6400_0000 + i).into(), 32),
            (Self::IPv6, true) => (Ipv6Addr::from(0x2600 << 112 | u128::from(i) << 80).into(), 48),
            (Self::IPv6, false) => (Ipv6Addr::from(0x2601 << 112 | u128::from(i)).into(), 128),
        };
        IpNet::new(address, length).expect("a length")
    }

    /// The gateway after so many changes.
    pub fn gateway(self, verb: Verb) -> IpAddr {
        let last = if verb == Verb::Add { 2 } else { 3 };
        match self {
            Self::IPv4 => [10, 0, 0, last].into(),
            Self::IPv6 => Ipv6Addr::from(0xfd00 << 112 | u128::from(last)).into(),
        }
    }
}

/// A namespace with `v0` (10.0.0.1/16, fd00::1/64) and its other end.
pub struct World {
    /// Index of `v0`.
    pub interface: u32,
}

impl World {
    pub fn make() -> Self {
        for line in [
            "link add v0 type veth peer name v1",
            "link set v1 up",
            "link set v0 up",
            "addr add 10.0.0.1/16 dev v0",
            "addr add fd00::1/64 dev v0 nodad",
        ] {
            assert!(Command::new("ip").args(line.split(' ')).status().is_ok_and(|status| status.success()), "ip {line}");
        }
        let shown = Command::new("ip").args(["-o", "link", "show", "dev", "v0"]).output().expect("ip").stdout;
        let index = String::from_utf8_lossy(&shown).split(':').next().and_then(|index| index.trim().parse().ok());
        Self { interface: index.expect("its index") }
    }

    /// The route of a prefix as `verb` writes it.
    pub fn route(&self, family: Family, prefix: IpNet, verb: Verb) -> KernelRoute {
        KernelRoute {
            key: RouteKey { table: 254, prefix, metric: METRIC, tos: 0 },
            protocol: 12,
            kind: RouteType::Unicast,
            scope: 0,
            hops: [KernelHop { gateway: Some(family.gateway(verb)), interface: self.interface, onlink: false }].into_iter().collect(),
            preferred_source: None,
            object: None,
        }
    }

    /// The change of the Loc-RIB that makes a FibSyncer write it.
    pub fn change(&self, family: Family, prefix: IpNet, verb: Verb) -> FibChange {
        let gateway = family.gateway(verb);
        let hop = Hop { next_hop: NextHop::Global(gateway), gateway: Some(gateway), interface: self.interface };
        let target = Target::Via([hop].into_iter().collect());
        let route = BestRoute { source: RouteSource::Ibgp, local_pref: Some(LOCAL_PREF), target };
        FibChange { prefix, route: (verb != Verb::Delete).then_some(route) }
    }
}

/// The order that IPv4 likes: neighbours far apart.
pub fn scatter(prefixes: &mut [IpNet]) {
    prefixes.sort_by_key(|prefix| match prefix.addr() {
        IpAddr::V4(address) => u32::from(address).wrapping_mul(0x9e37_79b1),
        IpAddr::V6(address) => (u128::from(address).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) >> 96) as u32,
    });
}
