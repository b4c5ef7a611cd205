//! A model of the kernel: links, addresses, one table of routes, and the same words as the real one.
//!
//! What it shares with Linux matters to the machines: own writes are not echoed; IPv4 routes vanish silently with their
//! interface; routes that go by a next-hop object follow it without a word; a write that somebody else's route stands against is refused; connected subnets are routes of protocol
//! `kernel`; and when nobody listens for too long everything is told anew.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use ipnet::IpNet;
use margay::fib::{
    InterfaceAddress, KernelEvent, KernelHop, KernelObject, KernelOp, KernelOps, KernelRoute, Link, NextHopObject, RouteKey, RouteType,
};
use margay::kernel::Command;
use margay::types::Sync;
use smallvec::SmallVec;

/// Our protocol number.
pub const OURS: u8 = 12;
/// Protocol number of what the kernel itself adds.
const KERNEL: u8 = 2;
/// Table main.
pub const MAIN: u32 = 254;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct ModelKernel {
    /// Interfaces by index.
    pub links: BTreeMap<u32, Link>,
    /// Addresses by interface.
    pub addresses: BTreeMap<(u32, IpNet), InterfaceAddress>,
    /// Next-hop objects, by number.
    pub objects: BTreeMap<u32, KernelObject>,
    /// Routes, ours and others'.
    pub routes: BTreeMap<RouteKey, KernelRoute>,
    /// Told and not yet heard.
    pub events: VecDeque<KernelEvent>,
    /// Asked and not yet done.
    pub commands: VecDeque<Command>,
    /// Done and not yet answered.
    pub answer: Option<KernelEvent>,
    /// Operations asked for.
    pub ops: usize,
    /// Errno of the next operations on a prefix.
    pub fail: BTreeMap<IpNet, Vec<i32>>,
    /// Errno of the next operations on whatever prefix.
    pub fail_any: Vec<i32>,
}

impl ModelKernel {
    /// Tells links, addresses and routes whole, as after start, an overrun, or on request.
    pub fn tell_everything(&mut self) {
        self.events.push_back(KernelEvent::Link(Sync::Begin));
        self.events.extend(self.links.iter().map(|(index, link)| KernelEvent::Link(Sync::Upsert(*index, link.clone()))));
        self.events.push_back(KernelEvent::Link(Sync::End));
        self.events.push_back(KernelEvent::Address(Sync::Begin));
        self.events.extend(self.addresses.iter().map(|(key, address)| KernelEvent::Address(Sync::Upsert(*key, address.clone()))));
        self.events.push_back(KernelEvent::Address(Sync::End));
        self.events.push_back(KernelEvent::Object(Sync::Begin));
        self.events.extend(self.objects.iter().map(|(id, object)| KernelEvent::Object(Sync::Upsert(*id, object.clone()))));
        self.events.push_back(KernelEvent::Object(Sync::End));
        self.events.push_back(KernelEvent::Route(Sync::Begin));
        self.events.extend(self.routes.iter().map(|(key, route)| KernelEvent::Route(Sync::Upsert(*key, route.clone()))));
        self.events.push_back(KernelEvent::Route(Sync::End));
    }

    /// The process that listened is gone: what it was to hear, and what it asked for and is not done, goes with it.
    pub fn forget_listener(&mut self) {
        self.events.clear();
        self.commands.clear();
        self.answer = None;
    }

    fn apply(&mut self, KernelOps { batch, ops }: KernelOps) {
        let mut failed = vec![];
        for (index, op) in ops.iter().enumerate() {
            self.ops += 1;
            if let Some(errno) = self.refuses(op) {
                failed.push((index, errno));
            }
        }
        self.answer = Some(KernelEvent::Written { batch, failed });
    }

    /// Whether there is something to do.
    pub fn has_work(&self) -> bool {
        self.answer.is_some() || !self.commands.is_empty()
    }

    /// Does one thing: answers the batch just written, or takes the next command.
    pub fn work(&mut self) -> bool {
        if let Some(answer) = self.answer.take() {
            self.events.push_back(answer);
            return true;
        }
        match self.commands.pop_front() {
            Some(Command::Write(ops)) => self.apply(ops),
            Some(Command::Resync) => self.tell_everything(),
            // Whoever asked may be gone.
            Some(Command::Ping(reply)) => _ = reply.try_send(()),
            None => return false,
        }
        true
    }

    /// The queue of notifications overran (`ENOBUFS`): what was not heard is lost, and all is told anew.
    pub fn overrun(&mut self) {
        self.events.retain(|event| matches!(event, KernelEvent::Written { .. }));
        self.events.extend(self.answer.take());
        self.tell_everything();
    }

    fn refuses(&mut self, op: &KernelOp) -> Option<i32> {
        let (KernelOp::Create(route) | KernelOp::Replace(route) | KernelOp::Delete(route)) = op else { return self.refuses_object(op) };
        let key = route.key;
        if let Some(errno) = self.fail.get_mut(&key.prefix).and_then(Vec::pop).or_else(|| self.fail_any.pop()) {
            return Some(errno);
        }
        let present = self.routes.get(&key);
        if matches!(op, KernelOp::Delete(_)) {
            if present.is_none_or(|present| present.protocol != route.protocol) {
                return Some(3);
            }
            self.routes.remove(&key);
            return None;
        }
        // Before it writes, the kernel's thread hears what was told, and spares other people's routes.
        if present.is_some_and(|present| matches!(op, KernelOp::Create(_)) || present.protocol != OURS) {
            return Some(17);
        }
        let mut route = route.clone();
        if let Some(object) = route.object {
            match self.hops_of(object) {
                Some(hops) => route.hops = hops,
                None => return Some(22),
            }
        }
        if route.hops.iter().any(|hop| !self.is_up(hop.interface)) {
            return Some(100);
        }
        self.routes.insert(key, route);
        None
    }

    fn refuses_object(&mut self, op: &KernelOp) -> Option<i32> {
        match op {
            _ if !self.fail_any.is_empty() => return self.fail_any.pop(),
            KernelOp::CreateObject(object) if self.objects.contains_key(&object.id) => return Some(17),
            KernelOp::ReplaceObject(object) if !self.objects.contains_key(&object.id) => return Some(2),
            KernelOp::CreateObject(object) | KernelOp::ReplaceObject(object) => match &object.object {
                NextHopObject::Single(hop) if !self.is_up(hop.interface) => return Some(100),
                NextHopObject::Group(members) if members.iter().any(|member| !self.objects.contains_key(member)) => return Some(22),
                _ => _ = self.objects.insert(object.id, object.clone()),
            },
            KernelOp::DeleteObject(id) if self.objects.remove(id).is_none() => return Some(2),
            _ => {}
        }
        self.follow_objects();
        None
    }

    fn hops_of(&self, object: u32) -> Option<SmallVec<[KernelHop; 1]>> {
        let mut hops: SmallVec<[KernelHop; 1]> = match &self.objects.get(&object)?.object {
            NextHopObject::Single(hop) => [*hop].into_iter().collect(),
            NextHopObject::Group(members) => members.iter().filter_map(|member| self.hops_of(*member)).flatten().collect(),
        };
        hops.sort_unstable();
        Some(hops)
    }

    /// Groups lose members that are gone, empty ones go, and routes follow their objects. IPv4 is silent about it.
    fn follow_objects(&mut self) {
        let ids: Vec<u32> = self.objects.keys().copied().collect();
        for object in self.objects.values_mut() {
            if let NextHopObject::Group(members) = &mut object.object {
                members.retain(|member| ids.contains(member));
            }
        }
        self.objects.retain(|_, object| !matches!(&object.object, NextHopObject::Group(members) if members.is_empty()));
        let by_object: Vec<KernelRoute> = self.routes.values().filter(|route| route.object.is_some()).cloned().collect();
        for route in by_object {
            match route.object.and_then(|object| self.hops_of(object)) {
                Some(hops) => _ = self.routes.insert(route.key, KernelRoute { hops, ..route }),
                None => {
                    self.routes.remove(&route.key);
                    if route.key.prefix.addr().is_ipv6() {
                        self.events.push_back(KernelEvent::Route(Sync::Remove(route.key)));
                    }
                }
            }
        }
    }

    /// Somebody else deletes an object. The monitor notices that routes go by it, and tells everything anew.
    pub fn stranger_deletes_object(&mut self, id: u32) {
        self.objects.remove(&id);
        self.follow_objects();
        self.events.extend(self.answer.take());
        self.tell_everything();
    }

    fn is_up(&self, interface: u32) -> bool {
        self.links.get(&interface).is_some_and(|link| link.up)
    }

    /// Somebody else adds a route or replaces one, ours included.
    pub fn stranger_sets(&mut self, route: KernelRoute) {
        self.events.push_back(KernelEvent::Route(Sync::Upsert(route.key, route.clone())));
        self.routes.insert(route.key, route);
    }

    /// Somebody else deletes a route, ours included.
    pub fn stranger_deletes(&mut self, key: RouteKey) {
        if self.routes.remove(&key).is_some() {
            self.events.push_back(KernelEvent::Route(Sync::Remove(key)));
        }
    }

    /// Adds an interface, or takes it up or down.
    pub fn set_link(&mut self, index: u32, name: &str, up: bool) {
        let link = Link { name: name.into(), up };
        self.links.insert(index, link.clone());
        self.events.push_back(KernelEvent::Link(Sync::Upsert(index, link)));
        if up {
            let addresses: Vec<IpNet> = self.addresses.keys().filter(|key| key.0 == index).map(|key| key.1).collect();
            return addresses.into_iter().for_each(|address| self.connect(index, address));
        }
        let links = &self.links;
        self.objects
            .retain(|_, object| !matches!(&object.object, NextHopObject::Single(hop) if !links.get(&hop.interface).is_some_and(|l| l.up)));
        self.follow_objects();
        let links = &self.links;
        let dead =
            |route: &KernelRoute| !route.hops.is_empty() && route.hops.iter().all(|hop| !links.get(&hop.interface).is_some_and(|l| l.up));
        let gone: Vec<_> = self.routes.values().filter(|route| dead(route)).cloned().collect();
        for route in gone {
            self.routes.remove(&route.key);
            // IPv4 is silent about it; for routes of others the monitor makes up for that.
            if route.key.prefix.addr().is_ipv6() || route.protocol != OURS {
                self.events.push_back(KernelEvent::Route(Sync::Remove(route.key)));
            }
        }
        self.events.push_back(KernelEvent::Flushed { interface: index });
    }

    /// Gives an interface an address.
    pub fn add_address(&mut self, index: u32, address: IpNet) {
        let global = !matches!(address.addr(), IpAddr::V6(v6) if v6.is_unicast_link_local());
        let facts = InterfaceAddress { global, secondary: false };
        self.addresses.insert((index, address), facts.clone());
        self.events.push_back(KernelEvent::Address(Sync::Upsert((index, address), facts)));
        if self.is_up(index) {
            self.connect(index, address);
        }
    }

    /// The connected subnet of an address.
    fn connect(&mut self, index: u32, address: IpNet) {
        if address.prefix_len() == address.max_prefix_len() {
            return;
        }
        let metric = if address.addr().is_ipv6() { 256 } else { 0 };
        let key = RouteKey { table: MAIN, prefix: address.trunc(), metric, tos: 0 };
        let hops = [KernelHop { gateway: None, interface: index, onlink: false }].into();
        self.stranger_sets(KernelRoute {
            key,
            protocol: KERNEL,
            kind: RouteType::Unicast,
            scope: 253,
            hops,
            preferred_source: None,
            object: None,
        });
    }

    /// The index of an interface.
    pub fn index_of(&self, name: &str) -> Option<u32> {
        self.links.iter().find(|(_, link)| &*link.name == name).map(|(index, _)| *index)
    }

    /// Whether one of the interfaces that are up has this address.
    pub fn owns(&self, address: IpAddr) -> bool {
        self.addresses.keys().any(|(index, net)| net.addr() == address && self.is_up(*index))
    }

    /// Our address on the subnet of `remote`, or the first of its family.
    pub fn source_for(&self, remote: IpAddr) -> Option<IpAddr> {
        let of_family = || self.addresses.iter().filter(|((_, net), facts)| facts.global && net.addr().is_ipv4() == remote.is_ipv4());
        let near = of_family().find(|((_, net), _)| net.contains(&remote));
        near.or_else(|| of_family().next()).map(|((_, net), _)| net.addr())
    }

    /// Our routes, as `ip route` would show them.
    pub fn ours(&self) -> impl Iterator<Item = &KernelRoute> {
        self.routes.values().filter(|route| route.protocol == OURS)
    }
}

/// A route as `ip route` would show it.
pub fn show(route: &KernelRoute) -> String {
    let kind = if route.kind == RouteType::Unicast { String::new() } else { format!("{:?} ", route.kind).to_lowercase() };
    let hops: String = route
        .hops
        .iter()
        .map(|hop| match hop.gateway {
            Some(gateway) => format!(" via {gateway} dev {}", hop.interface),
            None => format!(" dev {}", hop.interface),
        })
        .collect();
    let protocol = if route.protocol == OURS { String::new() } else { format!(" proto {}", route.protocol) };
    format!("{kind}{}{hops} metric {}{protocol}", route.key.prefix, route.key.metric)
}
