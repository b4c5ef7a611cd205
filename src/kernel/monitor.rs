//! What the kernel tells: dumps and live messages made into [`KernelEvent`]s, with Linux's silences filled in.
//!
//! Linux does not announce everything, nor always as one would think; [`View`] remembers what is needed to tell the truth:
//! - IPv4 routes vanish silently with their interface (or its last address, or their preferred source).
//! - One hop of an IPv6 multipath route, or one of several IPv6 routes of the same key (`fe80::/64` of each interface),
//!   is deleted by a message that names only that hop; the others stay.
//! - IPv4 can hold several routes of one key (`ip route append`, a subnet on two interfaces); the first is used.
//! - `RTM_DELLINK` of family bridge means that a port left its bridge.
//! - Routes may go by a next-hop object (`ip nexthop`, FRR's zebra, ours). When that is deleted, IPv4 routes vanish silently with it; when a
//!   group loses a member, the routes of the group change silently. Objects are rarely changed while routes go by them, so all is asked anew
//!   then. With `net.ipv4.nexthop_compat_mode` 0 such routes show no hops at all, to nobody.
//! - An interface that loses its carrier, or goes down, takes the objects along that lead out of it, without a word about either; the FibSyncer
//!   knows that of ours, and for those of others all is asked anew.
//! - An IPv6 route that goes by an object is deleted as a whole, by a message that names the hops that it had left.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;
use smallvec::SmallVec;

use super::message::*;
use super::netlink::Route;
use super::object;
use crate::fib::{KernelEvent, KernelOp, KernelRoute, Link, RouteKey, RouteType, object_numbers};
use crate::types::Sync;

/// RTNLGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE, _NEXTHOP (which kernels before 5.3 pass over).
pub(super) const GROUPS: u32 = 1 << 0 | 1 << 4 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 31;

/// NLM_F_REPLACE and NLM_F_APPEND in an announcement.
const REPLACED: u16 = 0x100;
const APPENDED: u16 = 0x800;

/// A dump that the kernel calls inconsistent is asked for again, so often at most.
pub(super) const DUMP_ATTEMPTS: usize = 5;

/// What is dumped, in this order: who hears of routes knows the links already.
pub(super) const DUMPS: [Dump; 4] = [Dump::Links, Dump::Addresses, Dump::Objects, Dump::Routes];

/// A part of the kernel's state that is told as one Begin … End.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dump {
    Links,
    Addresses,
    Objects,
    Routes,
}

impl Dump {
    /// The requests that together list it.
    pub(super) fn requests(self, tables: &[u32], filtered: bool) -> Vec<Vec<u8>> {
        match self {
            Self::Links => vec![encode_dump(RTM_GETLINK, AF_UNSPEC, None, 1)],
            Self::Addresses => vec![encode_dump(RTM_GETADDR, AF_UNSPEC, None, 1)],
            Self::Objects => vec![encode_dump(RTM_GETNEXTHOP, AF_UNSPEC, None, 1)],
            Self::Routes => {
                let tables: Vec<_> = if filtered { tables.iter().copied().map(Some).collect() } else { vec![None] };
                let families = [AF_INET, AF_INET6];
                families.iter().flat_map(|f| tables.iter().map(|t| encode_dump(RTM_GETROUTE, *f, *t, 1))).collect()
            }
        }
    }
}

/// Everything dumped so far of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DumpProgress {
    pub done: bool,
    /// The table changed meanwhile: something may be missing.
    pub interrupted: bool,
}

/// Reads one datagram of a dump.
pub(super) fn read_dump(socket: &Route, buffer: &mut [u8], view: &mut View, out: &mut Vec<KernelEvent>) -> io::Result<DumpProgress> {
    let mut progress = DumpProgress::default();
    for message in Messages(socket.receive(buffer)?) {
        progress.interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
        match message.kind {
            NLMSG_DONE => progress.done = true,
            NLMSG_ERROR => match errno(message.body) {
                // A table that nobody has written to does not exist, or a family that is switched off.
                Some(libc::ENOENT | libc::EAFNOSUPPORT | libc::EOPNOTSUPP) => progress.done = true,
                Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
                None => return Err(io::ErrorKind::InvalidData.into()),
            },
            _ => view.hear(message, out),
        }
    }
    Ok(progress)
}

/// What is remembered of links, addresses and other people's routes.
pub(super) struct View {
    tables: SmallVec<[u32; 2]>,
    protocol: u8,
    /// Numbers of our own next-hop objects.
    numbers: Range<u32>,
    /// What was told of each link, and whether it is administratively up.
    links: BTreeMap<u32, (Link, bool)>,
    ipv4_addresses: BTreeMap<u32, Vec<IpAddr>>,
    /// Routes of others by key, the one in use first; of ours only IPv6 multipath ones.
    routes: BTreeMap<RouteKey, SmallVec<[KernelRoute; 1]>>,
    /// Numbers of others' next-hop objects that routes go by, ours included: somebody may have made them do so.
    objects: BTreeMap<RouteKey, u32>,
    /// Routes may have changed without a word.
    doubtful: bool,
    dumping: bool,
}

impl View {
    pub(super) fn new(table: u32, protocol: u8) -> Self {
        let mut tables: SmallVec<[u32; 2]> = smallvec::smallvec![TABLE_MAIN, table];
        tables.dedup();
        Self {
            tables,
            protocol,
            numbers: object_numbers(table),
            links: BTreeMap::new(),
            ipv4_addresses: BTreeMap::new(),
            routes: BTreeMap::new(),
            objects: BTreeMap::new(),
            doubtful: false,
            dumping: false,
        }
    }

    /// Whether all has to be read anew since the last time that this was asked: Linux has changed routes and does not say which.
    pub(super) fn take_doubt(&mut self) -> bool {
        std::mem::take(&mut self.doubtful)
    }

    pub(super) fn tables(&self) -> &[u32] {
        &self.tables
    }

    /// A dump of `what` begins: what was known of it is forgotten.
    pub(super) fn begin(&mut self, what: Dump, out: &mut Vec<KernelEvent>) {
        self.dumping = true;
        match what {
            Dump::Links => self.links.clear(),
            Dump::Addresses => self.ipv4_addresses.clear(),
            Dump::Objects => {}
            Dump::Routes => {
                self.routes.clear();
                self.objects.clear();
            }
        }
        out.push(match what {
            Dump::Links => KernelEvent::Link(Sync::Begin),
            Dump::Addresses => KernelEvent::Address(Sync::Begin),
            Dump::Objects => KernelEvent::Object(Sync::Begin),
            Dump::Routes => KernelEvent::Route(Sync::Begin),
        });
    }

    /// The dump is complete.
    pub(super) fn end(&mut self, what: Dump, out: &mut Vec<KernelEvent>) {
        self.dumping = false;
        out.push(match what {
            Dump::Links => KernelEvent::Link(Sync::End),
            Dump::Addresses => KernelEvent::Address(Sync::End),
            Dump::Objects => KernelEvent::Object(Sync::End),
            Dump::Routes => KernelEvent::Route(Sync::End),
        });
    }

    /// Makes events of one message, dumped or live.
    pub(super) fn hear(&mut self, message: Message<'_>, out: &mut Vec<KernelEvent>) {
        match message.kind {
            RTM_NEWLINK | RTM_DELLINK => {
                let Some((index, link, admin_up)) = decode_link(message.body) else { return };
                if message.kind == RTM_NEWLINK { self.link(index, link, admin_up, out) } else { self.link_gone(index, out) }
            }
            RTM_NEWADDR | RTM_DELADDR => {
                let Some((key, address)) = decode_address(message.body) else { return };
                if message.kind == RTM_NEWADDR {
                    self.address(key.0, key.1.addr());
                    out.push(KernelEvent::Address(Sync::Upsert(key, address)));
                } else {
                    out.push(KernelEvent::Address(Sync::Remove(key)));
                    self.address_gone(key, out);
                }
            }
            RTM_NEWROUTE | RTM_DELROUTE => {
                let Some(route) = decode_route(message.body).filter(|route| self.tables.contains(&route.key.table)) else { return };
                self.note_object(route.key, route.object.filter(|_| message.kind == RTM_NEWROUTE));
                if message.kind == RTM_NEWROUTE { self.route(route, message.flags, out) } else { self.route_gone(&route, out) }
            }
            RTM_NEWNEXTHOP if self.dumping => {
                let ours =
                    object::decode(message.body).filter(|object| object.protocol == self.protocol && self.numbers.contains(&object.id));
                out.extend(ours.map(|object| KernelEvent::Object(Sync::Upsert(object.id, object))));
            }
            // A new object has no routes yet: this one was changed, or has lost a member. What we write is not echoed.
            RTM_NEWNEXTHOP | RTM_DELNEXTHOP => {
                let number = object::number(message);
                self.doubtful |=
                    number.is_some_and(|number| self.numbers.contains(&number) || self.objects.values().any(|used| *used == number));
            }
            _ => {}
        }
    }

    fn note_object(&mut self, key: RouteKey, object: Option<u32>) {
        match object.filter(|object| !self.numbers.contains(object)) {
            Some(object) => _ = self.objects.insert(key, object),
            None if self.objects.is_empty() => {}
            None => _ = self.objects.remove(&key),
        }
    }

    /// Somebody else has a route of this key.
    pub(super) fn is_foreign(&self, key: &RouteKey) -> bool {
        self.routes.get(key).is_some_and(|known| known.iter().any(|route| route.protocol != self.protocol))
    }

    /// One of our own writes was carried out.
    pub(super) fn wrote(&mut self, op: &KernelOp) {
        let (KernelOp::Create(route) | KernelOp::Replace(route) | KernelOp::Delete(route)) = op else { return };
        self.note_object(route.key, None);
        if !matches!(route.key.prefix, IpNet::V6(_)) {
            return;
        }
        if is_told_by_hops(route) && !matches!(op, KernelOp::Delete(_)) {
            self.routes.insert(route.key, SmallVec::from_elem(route.clone(), 1));
        } else if self.routes.get(&route.key).is_some_and(|known| known.iter().all(|known| known.protocol == self.protocol)) {
            self.routes.remove(&route.key);
        }
    }

    fn link(&mut self, index: u32, link: Link, admin_up: bool, out: &mut Vec<KernelEvent>) {
        let before = self.links.insert(index, (link.clone(), admin_up));
        let loses_carrier = before.as_ref().is_some_and(|(before, _)| before.up) && !link.up;
        self.doubtful |= loses_carrier && !self.objects.is_empty();
        // The kernel repeats itself whenever a counter or a neighbour's state changes.
        if before.as_ref().is_none_or(|(before, _)| *before != link) {
            out.push(KernelEvent::Link(Sync::Upsert(index, link)));
        }
        if before.is_some_and(|(_, was_up)| was_up) && !admin_up {
            self.flush(index, out);
        }
    }

    fn link_gone(&mut self, index: u32, out: &mut Vec<KernelEvent>) {
        self.links.remove(&index);
        self.ipv4_addresses.remove(&index);
        out.push(KernelEvent::Link(Sync::Remove(index)));
        self.flush(index, out);
    }

    fn address(&mut self, index: u32, address: IpAddr) {
        if address.is_ipv4() {
            let known = self.ipv4_addresses.entry(index).or_default();
            if !known.contains(&address) {
                known.push(address);
            }
        }
    }

    fn address_gone(&mut self, (index, prefix): (u32, IpNet), out: &mut Vec<KernelEvent>) {
        let address = prefix.addr();
        let Some(known) = self.ipv4_addresses.get_mut(&index) else { return };
        known.retain(|known| *known != address);
        if known.is_empty() {
            self.ipv4_addresses.remove(&index);
            self.flush(index, out);
        }
        if !self.ipv4_addresses.values().flatten().any(|known| *known == address) {
            self.drop_routes(|route| route.preferred_source == Some(address), out);
        }
    }

    /// IPv4 routes all of whose hops are dead are gone, and the kernel has not said so.
    fn flush(&mut self, interface: u32, out: &mut Vec<KernelEvent>) {
        let links = std::mem::take(&mut self.links);
        let dead = |index: u32| index == interface || links.get(&index).is_none_or(|(_, admin_up)| !admin_up);
        self.drop_routes(|route| !route.hops.is_empty() && route.hops.iter().all(|hop| dead(hop.interface)), out);
        self.links = links;
        out.push(KernelEvent::Flushed { interface });
    }

    /// Removes the IPv4 routes of others that `gone` picks.
    fn drop_routes(&mut self, gone: impl Fn(&KernelRoute) -> bool, out: &mut Vec<KernelEvent>) {
        self.routes.retain(|key, known| {
            if !matches!(key.prefix, IpNet::V4(_)) || !known.iter().any(&gone) {
                return true;
            }
            known.retain(|route| !gone(route));
            out.push(KernelEvent::Route(told(*key, known)));
            !known.is_empty()
        });
    }

    fn route(&mut self, route: KernelRoute, flags: u16, out: &mut Vec<KernelEvent>) {
        let (key, ipv6) = (route.key, matches!(route.key.prefix, IpNet::V6(_)));
        if route.protocol == self.protocol {
            if ipv6 && is_told_by_hops(&route) {
                self.routes.insert(key, SmallVec::from_elem(route.clone(), 1));
            } else if flags & REPLACED != 0 {
                self.routes.remove(&key);
            }
            out.push(KernelEvent::Route(Sync::Upsert(key, route)));
            return;
        }
        let known = self.routes.entry(key).or_default();
        let own = self.protocol;
        known.retain(|known| known.protocol != own);
        if ipv6 {
            merge_ipv6(known, route, flags);
        } else if flags & REPLACED != 0 && !known.is_empty() {
            known[0] = route;
        } else if self.dumping && known.contains(&route) {
            // A kernel without IPv6 answers the IPv6 dump with IPv4 once more.
        } else if flags & APPENDED != 0 || self.dumping {
            known.push(route);
        } else {
            known.insert(0, route);
        }
        out.push(KernelEvent::Route(told(key, known)));
    }

    fn route_gone(&mut self, gone: &KernelRoute, out: &mut Vec<KernelEvent>) {
        let key = gone.key;
        let Some(known) = self.routes.get_mut(&key) else {
            out.push(KernelEvent::Route(Sync::Remove(key)));
            return;
        };
        if matches!(key.prefix, IpNet::V6(_)) {
            if gone.object.is_some() {
                known.retain(|route| route.object != gone.object);
            }
            for route in known.iter_mut().filter(|route| route.kind == gone.kind) {
                let had_hops = !route.hops.is_empty();
                route.hops.retain(|hop| !gone.hops.contains(hop));
                if had_hops && route.hops.is_empty() {
                    route.kind = RouteType::Other(0);
                }
            }
            known.retain(|route| route.kind != RouteType::Other(0) && !(route.hops.is_empty() && gone.hops.is_empty()));
        } else {
            let same = |route: &KernelRoute| route.hops == gone.hops && route.protocol == gone.protocol && route.kind == gone.kind;
            // One that we do not know has been dropped before, on its address's or interface's word.
            if let Some(at) = known.iter().position(same) {
                known.remove(at);
            }
        }
        out.push(KernelEvent::Route(told(key, known)));
        if known.is_empty() {
            self.routes.remove(&key);
        }
    }
}

/// IPv6: the hops of a route with several are deleted one by one, unless it goes by an object.
fn is_told_by_hops(route: &KernelRoute) -> bool {
    route.hops.len() > 1 && route.object.is_none()
}

/// IPv6: an announcement with gateways tells all of them; routes without gateway stand side by side.
fn merge_ipv6(known: &mut SmallVec<[KernelRoute; 1]>, route: KernelRoute, flags: u16) {
    let has_gateway = |route: &KernelRoute| route.hops.iter().any(|hop| hop.gateway.is_some());
    let multipath = has_gateway(&route);
    if flags & REPLACED != 0 {
        // The kernel replaces one of the same sort where there is one, else the first.
        let at = known.iter().position(|known| has_gateway(known) == multipath).unwrap_or(0);
        if at < known.len() {
            known.remove(at);
        }
    } else {
        known.retain(|known| if multipath { !has_gateway(known) } else { known.hops != route.hops || known.kind != route.kind });
    }
    known.push(route);
}

/// The word about a key: its first route (IPv6: with the hops of all), or that there is none.
fn told(key: RouteKey, known: &[KernelRoute]) -> Sync<RouteKey, KernelRoute> {
    let Some((first, rest)) = known.split_first() else { return Sync::Remove(key) };
    let mut route = first.clone();
    if matches!(key.prefix, IpNet::V6(_)) {
        route.hops.extend(rest.iter().flat_map(|route| route.hops.iter().copied()));
        route.hops.sort_unstable();
        route.hops.dedup();
    }
    Sync::Upsert(key, route)
}
