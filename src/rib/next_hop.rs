//! Next hops: what each one resolves to, from the kernel's links, addresses and routes, and which
//! destinations depend on it (N9, N10).
//!
//! A next hop resolves to the longest match among the connected subnets of links that are up and the
//! kernel's routes of table main that are not our own: our routes would resolve through themselves.
//! Before all of that comes the host route of a peer's `reachableBy`, which the kernel has as our own.
//! A default route will do. A change re-examines the next hops inside the changed prefix, and touches
//! the destinations of those whose result really differs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use smallvec::SmallVec;

use super::dependants::Dependants;
use super::stale::Told;
use crate::fib::{InterfaceAddress, KernelEvent, KernelRoute, Link, RouteKey, RouteType};
use crate::types::{Family, NextHop, PerFamily, Sync};

/// Table main of the kernel.
const MAIN: u32 = 254;

/// Metric of a next hop that is not on a link: BIRD's "unknown".
const FAR: u32 = u32::MAX;

/// Index of a tracked next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NextHopId(NonZeroU32);

/// What a next hop resolves to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Resolution {
    /// Nothing leads there.
    #[default]
    Unresolved,
    /// It is one of our own addresses (N10).
    Own,
    /// Out of these interfaces, to these gateways.
    Via {
        /// At least one.
        hops: SmallVec<[Gateway; 1]>,
        /// 0 on the link, else the greatest number.
        metric: u32,
    },
}

/// Where packets to a next hop go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Gateway {
    /// The next router: the next hop itself on the link, else the gateway of the route that covers it.
    pub(super) address: IpAddr,
    /// Index of the interface.
    pub(super) interface: u32,
}

impl Resolution {
    /// Where packets go; empty if nowhere.
    pub(super) fn gateways(&self) -> &[Gateway] {
        match self {
            Self::Via { hops, .. } => hops,
            _ => &[],
        }
    }

    /// The metric to the next hop (step 8 of the decision).
    pub(super) fn metric(&self) -> u32 {
        match self {
            Self::Via { metric, .. } => *metric,
            _ => FAR,
        }
    }
}

/// What is tracked: a next hop, and whether only a connected subnet will do (one-hop eBGP, `reachableBy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    address: IpAddr,
    next_hop: NextHop,
    connected: bool,
}

impl Key {
    /// A v4-mapped IPv6 address is resolved as the IPv4 address that it is (N8).
    // Inside its callers it takes twice the instructions: the parts of the key are put together octet by octet.
    #[inline(never)]
    pub(super) fn new(next_hop: NextHop, connected: bool) -> Self {
        Self { address: next_hop.address().to_canonical(), next_hop, connected }
    }
}

#[derive(Clone, Debug)]
struct Tracked {
    key: Key,
    resolution: Resolution,
    paths: u32,
    /// Indexes of destinations that may depend on it, with some that no longer do.
    dependants: PerFamily<Dependants>,
}

/// Interfaces, each with the number of its addresses that stand behind an entry.
type Interfaces = BTreeMap<u32, u32>;

/// The next hops of a shard and the kernel's facts that resolve them.
#[derive(Clone, Debug)]
pub(super) struct NextHops {
    protocol: u8,
    links: Told<u32, Link>,
    addresses: Told<(u32, IpNet), InterfaceAddress>,
    routes: Told<RouteKey, KernelRoute>,
    own: BTreeMap<IpAddr, Interfaces>,
    connected: Cover<Interfaces>,
    /// Metrics of the kernel's routes, not our own, of table main.
    covering: Cover<BTreeSet<u32>>,
    /// Hosts that are reached through a gateway of our configuration (`reachableBy`).
    statics: BTreeMap<IpAddr, IpAddr>,
    slots: Vec<Option<Tracked>>,
    free: Vec<NextHopId>,
    ids: BTreeMap<Key, NextHopId>,
    suspects: BTreeSet<NextHopId>,
    /// What M2 keeps from peers, as of the last round.
    own_prefixes: BTreeSet<IpNet>,
    own_changes: BTreeSet<IpNet>,
    addresses_changed: bool,
}

impl NextHops {
    /// Octets of memory that the lists of who depends on them have reserved.
    pub(super) fn octets(&self) -> usize {
        let lists = self.slots.iter().flatten().flat_map(|tracked| tracked.dependants.iter());
        lists.map(|(_, list)| list.octets()).sum()
    }

    /// Nothing is known yet. `protocol` is the number of our own kernel routes.
    pub(super) fn new(protocol: u8) -> Self {
        Self {
            protocol,
            links: Told::new(),
            addresses: Told::new(),
            routes: Told::new(),
            own: BTreeMap::new(),
            connected: Cover::default(),
            covering: Cover::default(),
            statics: BTreeMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            ids: BTreeMap::new(),
            suspects: BTreeSet::new(),
            own_prefixes: BTreeSet::new(),
            own_changes: BTreeSet::new(),
            addresses_changed: false,
        }
    }

    /// Another number for our own routes. Those of the old number are heard of at the kernel's next listing.
    pub(super) fn set_protocol(&mut self, protocol: u8) {
        self.protocol = protocol;
        let ours: Vec<RouteKey> = self.routes.iter().filter(|(_, route)| route.protocol == protocol).map(|(key, _)| *key).collect();
        ours.into_iter().for_each(|key| self.hear_route(Sync::Remove(key)));
    }

    /// Takes a word of the kernel. [`NextHops::reexamine`] finds out what it changes.
    pub(super) fn hear(&mut self, event: KernelEvent) {
        match event {
            KernelEvent::Link(word) => {
                let mut changed = Vec::new();
                self.links.apply(word, |index, _| changed.push(*index));
                if !changed.is_empty() {
                    self.suspects.extend(self.ids.values());
                    let subnets = self.addresses.iter().filter(|((index, _), _)| changed.contains(index));
                    self.own_changes.extend(subnets.flat_map(|((_, address), _)| own_prefixes(address)));
                }
            }
            KernelEvent::Address(word) => self.hear_address(word),
            KernelEvent::Route(word) => self.hear_route(word),
            // Our own routes, and what became of writing them, are the FibSyncer's affair.
            KernelEvent::Flushed { .. } | KernelEvent::Written { .. } | KernelEvent::Object(_) => {}
        }
    }

    fn hear_address(&mut self, word: Sync<(u32, IpNet), InterfaceAddress>) {
        let mut changed = Vec::new();
        self.addresses.apply(word, |key, old| changed.push((*key, old.is_some())));
        self.addresses_changed |= !changed.is_empty();
        for ((interface, address), was) in changed {
            let is = self.addresses.get(&(interface, address)).is_some();
            let owners = self.own.entry(address.addr()).or_default();
            if count(owners, interface, was, is) {
                self.own.remove(&address.addr());
            }
            self.connected.change(address.trunc(), |links| count(links, interface, was, is));
            self.suspect(&address.trunc());
            let behind: Vec<IpAddr> =
                self.statics.iter().filter(|(_, gateway)| address.contains(*gateway)).map(|(host, _)| *host).collect();
            behind.into_iter().for_each(|host| self.suspect(&host.into()));
            self.own_changes.extend(own_prefixes(&address));
        }
    }

    fn hear_route(&mut self, word: Sync<RouteKey, KernelRoute>) {
        let word = match word {
            Sync::Upsert(key, _) | Sync::Remove(key) if key.table != MAIN || key.tos != 0 => return,
            // Of our own there may be a million: they are not even kept.
            Sync::Upsert(key, route) if route.protocol == self.protocol => Sync::Remove(key),
            word => word,
        };
        let mut changed = Vec::new();
        self.routes.apply(word, |key, _| changed.push(*key));
        for key in changed {
            let here = self.routes.get(&key).is_some();
            self.covering.change(key.prefix, |metrics| {
                if here {
                    metrics.insert(key.metric)
                } else {
                    metrics.remove(&key.metric)
                };
                metrics.is_empty()
            });
            self.suspect(&key.prefix);
        }
    }

    /// A host route through a gateway of our configuration, or none any more.
    pub(super) fn set_static(&mut self, host: IpNet, gateway: Option<IpAddr>) {
        match gateway {
            Some(gateway) => drop(self.statics.insert(host.addr(), gateway)),
            None => drop(self.statics.remove(&host.addr())),
        }
        self.suspect(&host);
    }

    fn suspect(&mut self, prefix: &IpNet) {
        let first = Key { address: prefix.network(), next_hop: NextHop::Global(IpAddr::V4([0; 4].into())), connected: false };
        let inside = self.ids.range(first..).take_while(|(key, _)| prefix.contains(&key.address));
        self.suspects.extend(inside.map(|(_, id)| *id));
    }

    /// Whether the kernel's words of this round may have changed anything.
    pub(super) fn has_news(&self) -> bool {
        !self.suspects.is_empty() || !self.own_changes.is_empty() || self.addresses_changed
    }

    /// Resolves again what the kernel's words may have changed; the next hops whose result is another now.
    pub(super) fn reexamine(&mut self) -> Vec<NextHopId> {
        let mut changed = Vec::new();
        for id in std::mem::take(&mut self.suspects) {
            let Some(key) = self.tracked(id).map(|t| t.key) else { continue };
            let resolution = self.resolve(&key);
            let Some(tracked) = self.tracked_mut(id) else { continue };
            if tracked.resolution != resolution {
                tracked.resolution = resolution;
                changed.push(id);
            }
        }
        changed
    }

    /// Prefixes that have become, or are no longer, our own (M2).
    pub(super) fn take_own_changes(&mut self) -> Vec<IpNet> {
        let mut changed = Vec::new();
        for prefix in std::mem::take(&mut self.own_changes) {
            let differs = if self.is_ours(&prefix) { self.own_prefixes.insert(prefix) } else { self.own_prefixes.remove(&prefix) };
            if differs {
                changed.push(prefix);
            }
        }
        changed
    }

    /// Whether an address has come or gone since the last call.
    pub(super) fn take_addresses_changed(&mut self) -> bool {
        std::mem::take(&mut self.addresses_changed)
    }

    /// Whether the prefix was, at the last round, an own address as a host route, or a connected subnet (M2).
    pub(super) fn is_own_prefix(&self, prefix: &IpNet) -> bool {
        self.own_prefixes.contains(prefix)
    }

    /// Service addresses that kube-proxy puts on a dummy interface for IPVS are everybody's and do not count.
    fn is_ours(&self, prefix: &IpNet) -> bool {
        let counts = |index: &u32| self.links.get(index).is_none_or(|link| !link.name.starts_with("kube-ipvs"));
        let host = prefix.prefix_len() == prefix.max_prefix_len() && self.own.get(&prefix.addr()).is_some_and(|l| l.keys().any(counts));
        host || self.connected.get(prefix).is_some_and(|links| links.keys().any(counts))
    }

    /// The tracked next hop of a key, resolved.
    pub(super) fn track(&mut self, key: Key) -> NextHopId {
        if let Some(id) = self.ids.get(&key) {
            return *id;
        }
        let tracked = Some(Tracked { key, resolution: self.resolve(&key), paths: 0, dependants: PerFamily::default() });
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(slot) = self.slots.get_mut(slot_of(id)) {
                    *slot = tracked;
                }
                id
            }
            None => {
                self.slots.push(tracked);
                NextHopId(NonZeroU32::MIN.saturating_add(self.slots.len() as u32 - 1))
            }
        };
        self.ids.insert(key, id);
        id
    }

    /// What it resolves to.
    pub(super) fn resolution(&self, id: NextHopId) -> &Resolution {
        const NOTHING: &Resolution = &Resolution::Unresolved;
        self.tracked(id).map_or(NOTHING, |tracked| &tracked.resolution)
    }

    /// A path of this destination depends on it.
    pub(super) fn hold(&mut self, id: NextHopId, family: Family, destination: u32) {
        let Some(tracked) = self.tracked_mut(id) else { return };
        tracked.paths += 1;
        if let Some(list) = tracked.dependants.of_mut(family) {
            list.insert(destination);
        }
    }

    /// A path no longer depends on it.
    pub(super) fn release(&mut self, id: NextHopId) {
        if let Some(tracked) = self.tracked_mut(id) {
            tracked.paths -= 1;
        }
        self.drop_unused(id);
    }

    /// Forgets a next hop that no path depends on.
    pub(super) fn drop_unused(&mut self, id: NextHopId) {
        let Some(slot) = self.slots.get_mut(slot_of(id)) else { return };
        if let Some(tracked) = slot.take_if(|tracked| tracked.paths == 0) {
            self.ids.remove(&tracked.key);
            self.free.push(id);
        }
    }

    /// Takes the destinations that may depend on it; those that do are put back with [`NextHops::keep`].
    pub(super) fn take_dependants(&mut self, id: NextHopId) -> PerFamily<Dependants> {
        self.tracked_mut(id).map(|tracked| std::mem::take(&mut tracked.dependants)).unwrap_or_default()
    }

    /// The destination does depend on it.
    pub(super) fn keep(&mut self, id: NextHopId, family: Family, destination: u32) {
        if let Some(list) = self.tracked_mut(id).and_then(|tracked| tracked.dependants.of_mut(family)) {
            list.insert(destination);
        }
    }

    /// Name of an interface.
    pub(super) fn interface_name(&self, index: u32) -> Option<&Arc<str>> {
        self.links.get(&index).map(|link| &link.name)
    }

    /// A global address of the wanted IP version on the interface that holds `local`: the next hop that stands for
    /// us in routes of the other family (N8). The least one, so that the choice does not depend on order.
    pub(super) fn sibling_address(&self, local: IpAddr, v4: bool) -> Option<IpAddr> {
        let links = self.own.get(&local)?;
        self.addresses
            .iter()
            .filter(|((index, address), facts)| {
                links.contains_key(index) && facts.global && address.addr().is_ipv4() == v4 && !is_link_local(address.addr())
            })
            .map(|((_, address), _)| address.addr())
            .min()
    }

    /// The link-local and the global address of an interface, for sessions on link-local addresses.
    pub(super) fn global_on(&self, interface: u32) -> Option<Ipv6Addr> {
        self.addresses.iter().filter(|((index, _), facts)| *index == interface && facts.global).find_map(|((_, address), _)| match address
            .addr()
        {
            IpAddr::V6(address) if !is_link_local(IpAddr::V6(address)) => Some(address),
            _ => None,
        })
    }

    /// The link-local address of the interface that has this address, and its index (N4). The least one of each.
    pub(super) fn link_local_beside(&self, global: Ipv6Addr) -> Option<(Ipv6Addr, u32)> {
        let interface = *self.own.get(&IpAddr::V6(global))?.keys().next()?;
        let here = self.addresses.iter().filter(|((index, _), _)| *index == interface);
        let link_local = here.filter_map(|((_, address), _)| match address.addr() {
            IpAddr::V6(address) if address.is_unicast_link_local() => Some(address),
            _ => None,
        });
        Some((link_local.min()?, interface))
    }

    fn resolve(&self, key: &Key) -> Resolution {
        match key.next_hop {
            NextHop::LinkLocal { address, interface } => self.on_link(address.into(), interface),
            NextHop::GlobalAndLinkLocal { link_local, interface, .. } if interface != 0 => self.on_link(link_local.into(), interface),
            _ if self.own.contains_key(&key.address) => Resolution::Own,
            _ => self.through_static(key).unwrap_or_else(|| self.longest_match(key.address, key.connected)),
        }
    }

    fn on_link(&self, address: IpAddr, interface: u32) -> Resolution {
        if self.own.get(&address).is_some_and(|links| links.contains_key(&interface)) {
            return Resolution::Own;
        }
        if !self.is_up(interface) {
            return Resolution::Unresolved;
        }
        Resolution::Via { hops: SmallVec::from_iter([Gateway { address, interface }]), metric: 0 }
    }

    /// As long as its gateway is on a link.
    fn through_static(&self, key: &Key) -> Option<Resolution> {
        let gateway = self.statics.get(&key.address).filter(|_| !key.connected)?;
        match self.longest_match(*gateway, true) {
            Resolution::Via { hops, .. } => Some(Resolution::Via { hops, metric: FAR }),
            _ => None,
        }
    }

    fn longest_match(&self, address: IpAddr, connected: bool) -> Resolution {
        let subnet = self.connected.longest(address, |_, links| links.keys().any(|index| self.is_up(*index)));
        let route = self.covering.longest(address, |prefix, metrics| self.usable(prefix, metrics).is_some());
        match (subnet, route) {
            (Some((subnet, links)), route) if route.is_none_or(|(route, _)| route.prefix_len() <= subnet.prefix_len()) => {
                let up = links.keys().find(|index| self.is_up(**index));
                Resolution::Via { hops: up.map(|&interface| Gateway { address, interface }).into_iter().collect(), metric: 0 }
            }
            (_, Some((prefix, metrics))) => {
                self.usable(prefix, metrics).map_or(Resolution::Unresolved, |route| self.through(route, address, connected))
            }
            _ => Resolution::Unresolved,
        }
    }

    fn through(&self, route: &KernelRoute, address: IpAddr, connected: bool) -> Resolution {
        if route.kind != RouteType::Unicast {
            return Resolution::Unresolved;
        }
        let near = route.hops.iter().all(|hop| hop.gateway.is_none());
        if connected && !near {
            return Resolution::Unresolved;
        }
        let mut hops: SmallVec<[Gateway; 1]> = route
            .hops
            .iter()
            .filter(|hop| self.is_up(hop.interface))
            .map(|hop| Gateway { address: hop.gateway.unwrap_or(address), interface: hop.interface })
            .collect();
        hops.sort_unstable();
        Resolution::Via { hops, metric: if near { 0 } else { FAR } }
    }

    /// The first of a prefix's routes by metric that needs no link, or has one that is up.
    fn usable(&self, prefix: IpNet, metrics: &BTreeSet<u32>) -> Option<&KernelRoute> {
        metrics.iter().find_map(|&metric| {
            let route = self.routes.get(&RouteKey { table: MAIN, prefix, metric, tos: 0 })?;
            (route.kind != RouteType::Unicast || route.hops.iter().any(|hop| self.is_up(hop.interface))).then_some(route)
        })
    }

    fn is_up(&self, interface: u32) -> bool {
        self.links.get(&interface).is_some_and(|link| link.up)
    }

    fn tracked(&self, id: NextHopId) -> Option<&Tracked> {
        self.slots.get(slot_of(id))?.as_ref()
    }

    fn tracked_mut(&mut self, id: NextHopId) -> Option<&mut Tracked> {
        self.slots.get_mut(slot_of(id))?.as_mut()
    }
}

fn slot_of(id: NextHopId) -> usize {
    id.0.get() as usize - 1
}

fn own_prefixes(address: &IpNet) -> [IpNet; 2] {
    [IpNet::from(address.addr()), address.trunc()]
}

/// Counts one address more or less of an interface; answers whether no interface is left.
fn count(interfaces: &mut Interfaces, interface: u32, was: bool, is: bool) -> bool {
    let addresses = interfaces.entry(interface).or_default();
    *addresses = (*addresses + u32::from(is)).saturating_sub(u32::from(was));
    if *addresses == 0 {
        interfaces.remove(&interface);
    }
    interfaces.is_empty()
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Prefixes of both families with longest match.
#[derive(Clone, Debug)]
struct Cover<T> {
    v4: PrefixMap<Ipv4Net, T>,
    v6: PrefixMap<Ipv6Net, T>,
}

impl<T> Default for Cover<T> {
    fn default() -> Self {
        Self { v4: PrefixMap::new(), v6: PrefixMap::new() }
    }
}

impl<T: Default> Cover<T> {
    fn get(&self, prefix: &IpNet) -> Option<&T> {
        match prefix {
            IpNet::V4(prefix) => self.v4.get(prefix),
            IpNet::V6(prefix) => self.v6.get(prefix),
        }
    }

    /// Changes the entry of a prefix, made if there is none; `f` answers whether it is to go.
    fn change(&mut self, prefix: IpNet, f: impl FnOnce(&mut T) -> bool) {
        match prefix {
            IpNet::V4(prefix) => {
                if f(self.v4.entry(prefix).or_default()) {
                    self.v4.remove(&prefix);
                }
            }
            IpNet::V6(prefix) => {
                if f(self.v6.entry(prefix).or_default()) {
                    self.v6.remove(&prefix);
                }
            }
        }
    }

    /// The longest prefix around the address whose entry is `usable`.
    fn longest(&self, address: IpAddr, usable: impl Fn(IpNet, &T) -> bool) -> Option<(IpNet, &T)> {
        match address {
            IpAddr::V4(address) => {
                let around = self.v4.cover(&Ipv4Net::from(address)).filter(|(prefix, entry)| usable(IpNet::V4(*prefix), entry));
                around.last().map(|(prefix, entry)| (IpNet::V4(prefix), entry))
            }
            IpAddr::V6(address) => {
                let around = self.v6.cover(&Ipv6Net::from(address)).filter(|(prefix, entry)| usable(IpNet::V6(*prefix), entry));
                around.last().map(|(prefix, entry)| (IpNet::V6(prefix), entry))
            }
        }
    }
}
