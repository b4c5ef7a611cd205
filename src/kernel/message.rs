//! rtnetlink messages as bytes: encode route writes and dump requests, decode links, addresses and routes.
//!
//! All numbers are in the byte order of the host, all lengths are checked: a malformed message ends the walk, it never panics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use smallvec::SmallVec;

use super::object;
use crate::fib::{InterfaceAddress, KernelHop, KernelOp, KernelRoute, Link, RouteKey, RouteType};

/// Table main.
pub const TABLE_MAIN: u32 = 254;

pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
pub(super) const RTM_GETLINK: u16 = 18;
pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_DELADDR: u16 = 21;
pub(super) const RTM_GETADDR: u16 = 22;
pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_DELROUTE: u16 = 25;
pub(super) const RTM_GETROUTE: u16 = 26;
pub(super) const RTM_NEWNEXTHOP: u16 = 104;
pub(super) const RTM_DELNEXTHOP: u16 = 105;
pub(super) const RTM_GETNEXTHOP: u16 = 106;

pub(super) const NLM_F_REQUEST: u16 = 0x01;
pub(super) const NLM_F_ACK: u16 = 0x04;
/// The table changed while it was dumped: the dump may lack entries.
pub(super) const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
pub(super) const NLM_F_REPLACE: u16 = 0x100;
pub(super) const NLM_F_EXCL: u16 = 0x200;
pub(super) const NLM_F_CREATE: u16 = 0x400;

pub(super) const AF_UNSPEC: u8 = 0;
pub(super) const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
pub(super) const AF_INET6: u8 = 10;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_NH_ID: u16 = 30;
pub(super) const IFLA_IFNAME: u16 = 3;
pub(super) const IFA_ADDRESS: u16 = 1;
pub(super) const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;

pub(super) const RTNH_F_ONLINK: u32 = 4;
const RTM_F_CLONED: u32 = 0x200;
pub(super) const IFF_UP: u32 = 0x1;
const IFF_LOWER_UP: u32 = 0x1_0000;
const IFA_F_SECONDARY: u32 = 0x1;
const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_NOWHERE: u8 = 255;
/// What IPv6 stores for a route without a metric.
const IPV6_DEFAULT_METRIC: u32 = 1024;

const HEADER: usize = 16;
const ROUTE_HEADER: usize = 12;

/// Length of the netlink header that every message begins with.
pub(super) const fn align(length: usize) -> usize {
    (length + 3) & !3
}

/// The number the kernel uses for a type of route.
fn type_number(kind: RouteType) -> u8 {
    match kind {
        RouteType::Unicast => 1,
        RouteType::Blackhole => 6,
        RouteType::Unreachable => 7,
        RouteType::Prohibit => 8,
        RouteType::Other(number) => number,
    }
}

fn type_of(number: u8) -> RouteType {
    match number {
        1 => RouteType::Unicast,
        6 => RouteType::Blackhole,
        7 => RouteType::Unreachable,
        8 => RouteType::Prohibit,
        number => RouteType::Other(number),
    }
}

/// Appends one write; returns where it begins, for [`ask_acknowledgement`].
pub(super) fn encode_write(buffer: &mut Vec<u8>, op: &KernelOp, sequence: u32) -> usize {
    let (kind, flags, route) = match op {
        KernelOp::CreateObject(object) => return object::encode_set(buffer, object, true, sequence),
        KernelOp::ReplaceObject(object) => return object::encode_set(buffer, object, false, sequence),
        KernelOp::DeleteObject(id) => return object::encode_delete(buffer, *id, sequence),
        KernelOp::Create(route) => (RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, route),
        KernelOp::Replace(route) => (RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, route),
        KernelOp::Delete(route) => (RTM_DELROUTE, 0, route),
    };
    let start = begin(buffer, kind, flags, sequence);
    let deleting = kind == RTM_DELROUTE;
    let single = if deleting || route.object.is_some() || route.hops.len() != 1 { None } else { route.hops.first() };
    let RouteKey { table, prefix, metric, tos } = route.key;
    buffer.extend_from_slice(&[
        family_of(&prefix),
        prefix.prefix_len(),
        0,
        tos,
        u8::try_from(table).unwrap_or(0),
        route.protocol,
        // By key and protocol: any scope and any type.
        if deleting { RT_SCOPE_NOWHERE } else { route.scope },
        if deleting { 0 } else { type_number(route.kind) },
    ]);
    let onlink = if single.is_some_and(|hop| hop.onlink) { RTNH_F_ONLINK } else { 0 };
    buffer.extend_from_slice(&onlink.to_ne_bytes());
    put_address(buffer, RTA_DST, prefix.network());
    if u8::try_from(table).is_err() {
        put(buffer, RTA_TABLE, &table.to_ne_bytes());
    }
    if metric != 0 {
        put(buffer, RTA_PRIORITY, &metric.to_ne_bytes());
    }
    if !deleting {
        if let Some(source) = route.preferred_source {
            put_address(buffer, RTA_PREFSRC, source);
        }
        match (route.object, single) {
            (Some(object), _) => put(buffer, RTA_NH_ID, &object.to_ne_bytes()),
            (None, Some(hop)) => {
                put(buffer, RTA_OIF, &hop.interface.to_ne_bytes());
                put_gateway(buffer, &prefix, hop);
            }
            (None, None) if !route.hops.is_empty() => put_multipath(buffer, &prefix, &route.hops),
            (None, None) => {}
        }
    }
    finish(buffer, start);
    start
}

/// Makes the message that begins at `start` ask for an acknowledgement.
pub(super) fn ask_acknowledgement(buffer: &mut [u8], start: usize) {
    if let Some(flags) = buffer.get_mut(start + 6..start + 8) {
        let value = u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK;
        flags.copy_from_slice(&value.to_ne_bytes());
    }
}

/// A request for everything of one kind; routes of one table where `table` is given (and the kernel filters).
pub(super) fn encode_dump(kind: u16, family: u8, table: Option<u32>, sequence: u32) -> Vec<u8> {
    let mut buffer = Vec::new();
    let start = begin(&mut buffer, kind, NLM_F_DUMP, sequence);
    let length = match kind {
        RTM_GETADDR | RTM_GETNEXTHOP => 8,
        RTM_GETROUTE => ROUTE_HEADER,
        _ => 16,
    };
    buffer.push(family);
    buffer.resize(HEADER + length, 0);
    if let Some(table) = table {
        put(&mut buffer, RTA_TABLE, &table.to_ne_bytes());
    }
    finish(&mut buffer, start);
    buffer
}

pub(super) fn begin(buffer: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32) -> usize {
    let start = buffer.len();
    buffer.extend_from_slice(&0u32.to_ne_bytes());
    buffer.extend_from_slice(&kind.to_ne_bytes());
    buffer.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
    buffer.extend_from_slice(&sequence.to_ne_bytes());
    buffer.extend_from_slice(&0u32.to_ne_bytes());
    start
}

pub(super) fn finish(buffer: &mut [u8], start: usize) {
    let length = u32::try_from(buffer.len() - start).unwrap_or(u32::MAX);
    if let Some(field) = buffer.get_mut(start..start + 4) {
        field.copy_from_slice(&length.to_ne_bytes());
    }
}

pub(super) fn put(buffer: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    buffer.extend_from_slice(&length.to_ne_bytes());
    buffer.extend_from_slice(&kind.to_ne_bytes());
    buffer.extend_from_slice(value);
    buffer.resize(align(buffer.len()), 0);
}

pub(super) fn put_address(buffer: &mut Vec<u8>, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => put(buffer, kind, &address.octets()),
        IpAddr::V6(address) => put(buffer, kind, &address.octets()),
    }
}

fn put_gateway(buffer: &mut Vec<u8>, prefix: &IpNet, hop: &KernelHop) {
    match (prefix, hop.gateway) {
        (_, None) => {}
        (IpNet::V4(_), Some(IpAddr::V6(gateway))) => {
            let mut via = [0; 18];
            via[..2].copy_from_slice(&u16::from(AF_INET6).to_ne_bytes());
            via[2..].copy_from_slice(&gateway.octets());
            put(buffer, RTA_VIA, &via);
        }
        (_, Some(gateway)) => put_address(buffer, RTA_GATEWAY, gateway),
    }
}

fn put_multipath(buffer: &mut Vec<u8>, prefix: &IpNet, hops: &[KernelHop]) {
    let start = buffer.len();
    put(buffer, RTA_MULTIPATH, &[]);
    for hop in hops {
        let at = buffer.len();
        let flags = if hop.onlink { RTNH_F_ONLINK as u8 } else { 0 };
        buffer.extend_from_slice(&[0, 0, flags, 0]);
        buffer.extend_from_slice(&hop.interface.to_ne_bytes());
        put_gateway(buffer, prefix, hop);
        set_length(buffer, at);
    }
    set_length(buffer, start);
}

/// Writes the 16-bit length of what begins at `start` and reaches to the end.
pub(super) fn set_length(buffer: &mut [u8], start: usize) {
    let length = u16::try_from(buffer.len() - start).unwrap_or(u16::MAX);
    if let Some(field) = buffer.get_mut(start..start + 2) {
        field.copy_from_slice(&length.to_ne_bytes());
    }
}

fn family_of(prefix: &IpNet) -> u8 {
    match prefix {
        IpNet::V4(_) => AF_INET,
        IpNet::V6(_) => AF_INET6,
    }
}

/// One netlink message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    pub body: &'a [u8],
}

/// The messages of a datagram; ends at the first that is cut short.
pub(super) struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = u32_at(self.0, 0)? as usize;
        let message = Message {
            kind: u16_at(self.0, 4)?,
            flags: u16_at(self.0, 6)?,
            sequence: u32_at(self.0, 8)?,
            body: self.0.get(HEADER..length)?,
        };
        self.0 = self.0.get(align(length)..).unwrap_or(&[]);
        Some(message)
    }
}

/// The attributes of a message; ends at the first that is cut short.
pub(super) struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = usize::from(u16_at(self.0, 0)?);
        // The two highest bits say "nested" and "network byte order".
        let kind = u16_at(self.0, 2)? & 0x3fff;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(align(length)..).unwrap_or(&[]);
        Some((kind, value))
    }
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_ne_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_ne_bytes)
}

pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes_at::<4>(bytes, 0).map(|b| Ipv4Addr::from(b).into()),
        16 => bytes_at::<16>(bytes, 0).map(|b| Ipv6Addr::from(b).into()),
        _ => None,
    }
}

/// The errno of an acknowledgement or error (positive; 0 is success).
pub(super) fn errno(body: &[u8]) -> Option<i32> {
    bytes_at(body, 0).map(i32::from_ne_bytes).map(i32::wrapping_neg)
}

/// An interface: its index, what it is, and whether it is administratively up. None for what is no link: malformed, or
/// the bridge's word about one of its ports (whose "delete" only means that the port has left).
pub(super) fn decode_link(body: &[u8]) -> Option<(u32, Link, bool)> {
    if *body.first()? == AF_BRIDGE {
        return None;
    }
    let (index, flags) = (u32_at(body, 4)?, u32_at(body, 8)?);
    let name = Attributes(body.get(16..)?).find(|(kind, _)| *kind == IFLA_IFNAME)?.1;
    let name = name.split(|byte| *byte == 0).next().unwrap_or(name);
    let name: Arc<str> = String::from_utf8_lossy(name).into();
    let (admin_up, carrier) = (flags & IFF_UP != 0, flags & IFF_LOWER_UP != 0);
    Some((index, Link { name, up: admin_up && carrier }, admin_up))
}

/// An address with its interface.
pub(super) fn decode_address(body: &[u8]) -> Option<((u32, IpNet), InterfaceAddress)> {
    let [family, length, flags, scope] = bytes_at::<4>(body, 0)?;
    let index = u32_at(body, 4)?;
    let (mut own, mut peer, mut flags) = (None, None, u32::from(flags));
    for (kind, value) in Attributes(body.get(8..)?) {
        match kind {
            // On a point-to-point link IFA_ADDRESS is the other end.
            IFA_LOCAL => own = address(value),
            IFA_ADDRESS => peer = address(value),
            IFA_FLAGS => flags = u32_at(value, 0).unwrap_or(flags),
            _ => {}
        }
    }
    let prefix = IpNet::new(own.or(peer)?, length).ok()?;
    // The same bit means "temporary" in IPv6.
    let secondary = family == AF_INET && flags & IFA_F_SECONDARY != 0;
    Some(((index, prefix), InterfaceAddress { global: scope < RT_SCOPE_LINK, secondary }))
}

/// A route; none for what is malformed, or a cache entry of the kernel (redirects, path MTU).
pub(super) fn decode_route(body: &[u8]) -> Option<KernelRoute> {
    let [family, length, _, tos, table, protocol, scope, kind] = bytes_at::<8>(body, 0)?;
    let flags = u32_at(body, 8)?;
    if flags & RTM_F_CLONED != 0 {
        return None;
    }
    let any: IpAddr = match family {
        AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let prefix = IpNet::new(any, length).ok()?;
    let key = RouteKey { table: u32::from(table), prefix, metric: 0, tos };
    let mut route = KernelRoute { key, protocol, kind: type_of(kind), scope, hops: SmallVec::new(), preferred_source: None, object: None };
    let (mut interface, mut gateway) = (None, None);
    for (kind, value) in Attributes(body.get(ROUTE_HEADER..)?) {
        match kind {
            RTA_DST => route.key.prefix = IpNet::new(address(value)?, length).ok()?.trunc(),
            RTA_TABLE => route.key.table = u32_at(value, 0)?,
            RTA_PRIORITY => route.key.metric = u32_at(value, 0)?,
            RTA_PREFSRC => route.preferred_source = address(value),
            RTA_OIF => interface = u32_at(value, 0),
            RTA_GATEWAY => gateway = address(value),
            RTA_VIA => gateway = address(value.get(2..)?),
            RTA_MULTIPATH => decode_multipath(value, &mut route.hops)?,
            RTA_NH_ID => route.object = u32_at(value, 0),
            _ => {}
        }
    }
    if family == AF_INET6 && route.key.metric == 0 {
        route.key.metric = IPV6_DEFAULT_METRIC;
    }
    if route.hops.is_empty() && (interface.is_some() || gateway.is_some()) {
        let onlink = flags & RTNH_F_ONLINK != 0;
        route.hops.push(KernelHop { gateway, interface: interface.unwrap_or(0), onlink });
    }
    if matches!(route.kind, RouteType::Blackhole | RouteType::Unreachable | RouteType::Prohibit) {
        // IPv6 says "dev lo" of these.
        route.hops.clear();
    }
    route.hops.sort_unstable();
    Some(route)
}

fn decode_multipath(mut bytes: &[u8], hops: &mut SmallVec<[KernelHop; 1]>) -> Option<()> {
    while !bytes.is_empty() {
        let length = usize::from(u16_at(bytes, 0)?);
        let flags = *bytes.get(2)?;
        let mut hop = KernelHop { gateway: None, interface: u32_at(bytes, 4)?, onlink: u32::from(flags) & RTNH_F_ONLINK != 0 };
        for (kind, value) in Attributes(bytes.get(8..length)?) {
            match kind {
                RTA_GATEWAY => hop.gateway = address(value),
                RTA_VIA => hop.gateway = address(value.get(2..)?),
                _ => {}
            }
        }
        hops.push(hop);
        bytes = bytes.get(align(length)..).unwrap_or(&[]);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;

    fn hop(gateway: &str, interface: u32, onlink: bool) -> KernelHop {
        KernelHop { gateway: (!gateway.is_empty()).then(|| gateway.parse().unwrap()), interface, onlink }
    }

    fn route(prefix: &str, metric: u32, kind: RouteType, hops: &[KernelHop]) -> KernelRoute {
        let key = RouteKey { table: 254, prefix: prefix.parse().unwrap(), metric, tos: 0 };
        KernelRoute { key, protocol: 12, kind, scope: 0, hops: hops.iter().copied().collect(), preferred_source: None, object: None }
    }

    fn routes() -> Vec<KernelRoute> {
        use RouteType::*;
        let mut table = route("192.0.2.0/24", 5, Unicast, &[hop("10.0.0.1", 3, false)]);
        table.key.table = 100_000;
        table.preferred_source = Some("10.0.0.7".parse().unwrap());
        vec![
            route("0.0.0.0/0", 0, Unicast, &[hop("10.0.0.1", 3, false)]),
            route("10.1.2.3/32", 1024, Unicast, &[hop("", 9, false)]),
            route("10.1.2.0/25", 7, Unicast, &[hop("fe80::1", 3, true)]),
            route("10.1.0.0/26", 0, Blackhole, &[]),
            route("2001:db8::/32", 1024, Unicast, &[hop("fe80::1", 3, false), hop("fe80::2", 4, true)]),
            route("10.9.0.0/16", 1, Unicast, &[hop("10.0.0.1", 3, true), hop("fe80::2", 4, false)]),
            route("::/0", 3, Unreachable, &[]),
            table,
        ]
    }

    #[test]
    fn what_is_written_reads_back() {
        for route in routes() {
            let mut buffer = vec![];
            assert_eq!(encode_write(&mut buffer, &KernelOp::Replace(route.clone()), 77), 0);
            ask_acknowledgement(&mut buffer, 0);
            let messages: Vec<_> = Messages(&buffer).collect();
            assert_eq!((messages.len(), messages[0].kind, messages[0].sequence), (1, RTM_NEWROUTE, 77));
            assert_eq!(messages[0].flags, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE);
            assert_eq!(decode_route(messages[0].body), Some(route));
        }
    }

    #[test]
    fn a_route_by_an_object_names_no_hop() {
        let by_object = KernelRoute { object: Some(0x4dfe_0007), ..routes()[0].clone() };
        let mut buffer = vec![];
        encode_write(&mut buffer, &KernelOp::Create(by_object.clone()), 1);
        let read = decode_route(Messages(&buffer).next().unwrap().body).unwrap();
        assert_eq!(read, KernelRoute { hops: smallvec![], ..by_object });
    }

    #[test]
    fn a_delete_names_key_and_protocol_only() {
        let mut buffer = vec![];
        encode_write(&mut buffer, &KernelOp::Delete(routes()[4].clone()), 1);
        let read = decode_route(Messages(&buffer).next().unwrap().body).unwrap();
        assert_eq!((read.key, read.protocol, read.hops), (routes()[4].key, 12, smallvec![]));
        assert_eq!((read.kind, read.scope), (RouteType::Other(0), RT_SCOPE_NOWHERE));
    }

    #[test]
    fn malformed_messages_never_panic() {
        for route in routes() {
            let mut buffer = vec![];
            encode_write(&mut buffer, &KernelOp::Create(route), 1);
            for cut in 0..buffer.len() {
                let _ = Messages(&buffer[..cut]).count();
                if cut >= HEADER {
                    decode_all(&buffer[HEADER..cut]);
                }
            }
            for at in 0..buffer.len() {
                for value in [0, 1, 0x7f, 0xff] {
                    let mut broken = buffer.clone();
                    broken[at] = value;
                    for message in Messages(&broken) {
                        decode_all(message.body);
                    }
                    decode_all(&broken[HEADER..]);
                }
            }
        }
    }

    fn decode_all(body: &[u8]) {
        let _ = (decode_route(body), decode_link(body), decode_address(body), errno(body));
        let _ = object::decode(body);
    }

    #[test]
    fn a_port_leaving_its_bridge_is_no_link_leaving() {
        let mut body = vec![AF_BRIDGE, 0, 0, 0, 5, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0];
        put(&mut body, IFLA_IFNAME, b"eth0\0");
        assert_eq!(decode_link(&body), None);
        body[0] = 0;
        assert_eq!(decode_link(&body), Some((5, Link { name: "eth0".into(), up: true }, true)));
    }
}
