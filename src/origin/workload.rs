//! Routes learned from the kernel: workloads, and whatever else stands in table main.
//!
//! Learned is every unicast, blackhole, unreachable and prohibit route of table main with TOS 0 that neither the
//! kernel (protocols unspec, redirect, kernel) nor we wrote; of several for one prefix the one with the
//! lowest metric. There is no regard for the interface's name. IPv4 routes with an IPv6 gateway are learned too.
//! Refused are routes through an unknown interface or a gateway that is not on the link.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::device::{Devices, least_prefix};
use super::{Facts, LocalRoute, LocalTarget};
use crate::fib::{KernelHop, KernelRoute, RouteKey, RouteType};
use crate::types::Sync;

/// `RT_TABLE_MAIN`.
const TABLE_MAIN: u32 = 254;

/// `RTPROT_UNSPEC`, `RTPROT_REDIRECT` and `RTPROT_KERNEL`: routes that nobody configured.
const KERNELS_OWN: std::ops::RangeInclusive<u8> = 0..=2;

/// The kernel's routes that may be learned.
#[derive(Clone, Debug, Default)]
pub(super) struct KernelRoutes {
    /// By the kernel's key.
    pub(super) routes: Facts<RouteKey, KernelRoute>,
    /// Which routes leave by an interface.
    by_interface: BTreeSet<(u32, RouteKey)>,
}

/// Whether a route is of a kind that is learned at all; `own` is the protocol number of our own routes.
pub(super) fn is_kept(route: &KernelRoute, own: u8) -> bool {
    route.key.table == TABLE_MAIN
        && route.key.tos == 0
        && route.protocol != own
        && !KERNELS_OWN.contains(&route.protocol)
        && !matches!(route.kind, RouteType::Other(_))
}

impl KernelRoutes {
    /// To be called for each route that came, changed or went.
    pub(super) fn route_changed(&mut self, key: &RouteKey, before: Option<KernelRoute>) {
        for hop in before.iter().flat_map(|route| &route.hops) {
            self.by_interface.remove(&(hop.interface, *key));
        }
        for hop in self.routes.get(key).iter().flat_map(|route| &route.hops) {
            self.by_interface.insert((hop.interface, *key));
        }
    }

    /// Our own protocol number is known now: those that came before it go. (Should it ever change, routes of the old
    /// number are learned with the next relist.)
    pub(super) fn forget_own(&mut self, own: u8) {
        let gone: Vec<RouteKey> = self.routes.iter().filter(|(_, route)| !is_kept(route, own)).map(|(key, _)| *key).collect();
        for key in gone {
            for (key, before) in self.routes.hear(Sync::Remove(key)) {
                self.route_changed(&key, before);
            }
        }
    }

    /// The local route of a prefix.
    pub(super) fn route(&self, prefix: IpNet, devices: &Devices) -> Option<LocalRoute> {
        let first = RouteKey { table: TABLE_MAIN, prefix, metric: 0, tos: 0 };
        let mut routes = self.routes.from(first).take_while(|(key, _)| key.table == TABLE_MAIN && key.prefix == prefix);
        routes.find_map(|(key, route)| Some(LocalRoute { target: target(route, devices)?, metric: Some(key.metric) }))
    }

    /// Prefixes with a route that leaves by the interface.
    pub(super) fn prefixes_via(&self, interface: u32) -> BTreeSet<IpNet> {
        let first = RouteKey { table: 0, prefix: least_prefix(), metric: 0, tos: 0 };
        self.by_interface.range((interface, first)..).take_while(|(i, _)| *i == interface).map(|(_, key)| key.prefix).collect()
    }

    /// Every prefix.
    pub(super) fn prefixes(&self) -> BTreeSet<IpNet> {
        self.routes.iter().map(|(key, _)| key.prefix).collect()
    }
}

fn target(route: &KernelRoute, devices: &Devices) -> Option<LocalTarget> {
    match route.kind {
        RouteType::Unicast => {
            let usable = !route.hops.is_empty() && route.hops.iter().all(|hop| is_usable(hop, devices));
            usable.then(|| LocalTarget::Via(route.hops.clone()))
        }
        RouteType::Blackhole | RouteType::Unreachable | RouteType::Prohibit => Some(LocalTarget::Blackhole),
        RouteType::Other(_) => None,
    }
}

fn is_usable(hop: &KernelHop, devices: &Devices) -> bool {
    devices.links.get(&hop.interface).is_some()
        && hop.gateway.is_none_or(|gateway| !is_compatible(gateway) && devices.reaches(hop, gateway))
}

/// `::/96`, the IPv4-compatible addresses: never a router.
fn is_compatible(gateway: IpAddr) -> bool {
    matches!(gateway, IpAddr::V6(address) if address.segments()[..6] == [0; 6])
}
