//! Links and addresses, and from them the device routes: connected subnets of interfaces that are up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};

use super::{Facts, LocalRoute, LocalTarget};
use crate::fib::{InterfaceAddress, KernelHop, Link};
use crate::policy::glob;
use crate::types::canonical;

/// The least prefix, to start ranges with.
pub(super) fn least_prefix() -> IpNet {
    IpNet::V4(Ipv4Net::default())
}

/// What the kernel says of its interfaces.
#[derive(Clone, Debug, Default)]
pub(super) struct Devices {
    /// Interfaces by index.
    pub(super) links: Facts<u32, Link>,
    /// Addresses by interface.
    pub(super) addresses: Facts<(u32, IpNet), InterfaceAddress>,
    by_name: BTreeMap<Arc<str>, u32>,
    /// Subnet, interface and address of each address: who gives a subnet.
    by_subnet: BTreeSet<(IpNet, u32, IpNet)>,
}

impl Devices {
    /// To be called for each link that came, changed or went; answers with the names that mean another interface now, or one that is otherwise.
    pub(super) fn link_changed(&mut self, interface: u32, before: Option<Link>) -> Vec<Arc<str>> {
        let mut names = Vec::new();
        if let Some(Link { name, .. }) = before {
            if self.by_name.get(&name) == Some(&interface) {
                self.by_name.remove(&name);
            }
            names.push(name);
        }
        if let Some(link) = self.links.get(&interface) {
            self.by_name.insert(Arc::clone(&link.name), interface);
            if !names.contains(&link.name) {
                names.push(Arc::clone(&link.name));
            }
        }
        names
    }

    /// The interface of that name.
    pub(super) fn index_of(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// To be called for each address that came, changed or went; answers with its subnet.
    pub(super) fn address_changed(&mut self, (interface, address): (u32, IpNet)) -> IpNet {
        let entry = (canonical(address), interface, address);
        if self.addresses.get(&(interface, address)).is_some() {
            self.by_subnet.insert(entry);
        } else {
            self.by_subnet.remove(&entry);
        }
        entry.0
    }

    /// The device route of a subnet; through the interface of the lowest index, if several have it.
    pub(super) fn route(&self, subnet: IpNet, ignored: &[String]) -> Option<LocalRoute> {
        let mut givers = self.by_subnet.range((subnet, 0, least_prefix())..).take_while(|(s, ..)| *s == subnet);
        let &(_, interface, _) = givers.find(|&&(_, interface, address)| {
            let counts = |address: &InterfaceAddress| address.global && !address.secondary;
            self.addresses.get(&(interface, address)).is_some_and(counts) && self.is_usable(interface, ignored)
        })?;
        let hop = KernelHop { gateway: None, interface, onlink: false };
        Some(LocalRoute { target: LocalTarget::Via([hop].into()), metric: None })
    }

    fn is_usable(&self, interface: u32, ignored: &[String]) -> bool {
        let named = |name: &str| ignored.iter().any(|pattern| glob(pattern.as_bytes(), name.as_bytes()));
        self.links.get(&interface).is_some_and(|link| link.up && !named(&link.name))
    }

    /// Every subnet that an address belongs to.
    pub(super) fn subnets(&self) -> BTreeSet<IpNet> {
        self.by_subnet.iter().map(|(subnet, ..)| *subnet).collect()
    }

    /// The subnets of an interface.
    pub(super) fn subnets_of(&self, interface: u32) -> BTreeSet<IpNet> {
        self.addresses_of(interface).map(canonical).collect()
    }

    fn addresses_of(&self, interface: u32) -> impl Iterator<Item = IpNet> {
        self.addresses.from((interface, least_prefix())).map(|(key, _)| *key).take_while(move |key| key.0 == interface).map(|key| key.1)
    }

    /// Whether the gateway of a kernel route is on the link: said to be (onlink), link-local, or inside a subnet of the
    /// interface; and not our own address there. An interface without any subnet (a point-to-point link, or a host
    /// address beside a link route as clouds have it) leaves nothing to compare with, so the kernel is believed.
    pub(super) fn reaches(&self, hop: &KernelHop, gateway: IpAddr) -> bool {
        if self.addresses_of(hop.interface).any(|net| net.addr() == gateway) {
            return false;
        }
        let link_local = matches!(gateway, IpAddr::V6(address) if address.is_unicast_link_local());
        if hop.onlink || link_local {
            return true;
        }
        let subnet = |net: &IpNet| net.addr().is_ipv4() == gateway.is_ipv4() && net.prefix_len() < net.max_prefix_len();
        let mut subnets = self.addresses_of(hop.interface).filter(subnet).peekable();
        subnets.peek().is_none() || subnets.any(|net| net.contains(&gateway))
    }
}
