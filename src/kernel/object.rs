//! Next-hop objects as rtnetlink messages (`RTM_NEWNEXTHOP`, `struct nhmsg`; Linux 5.3 and later).

use std::net::IpAddr;

use smallvec::SmallVec;

use super::message::{
    AF_INET, AF_INET6, AF_UNSPEC, Attributes, Message, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, RTM_DELNEXTHOP, RTM_NEWNEXTHOP,
    RTNH_F_ONLINK, address, begin, finish, put, put_address, u32_at,
};
use crate::fib::{KernelHop, KernelObject, NextHopObject};

const HEADER: usize = 8;

const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
/// `struct nexthop_grp`: number, weight less one, and three octets more.
const MEMBER: usize = 8;

/// Appends the write of an object, new or changed; returns where it begins.
pub(super) fn encode_set(buffer: &mut Vec<u8>, object: &KernelObject, is_new: bool, sequence: u32) -> usize {
    let flags = if is_new { NLM_F_CREATE | NLM_F_EXCL } else { NLM_F_REPLACE };
    let start = begin(buffer, RTM_NEWNEXTHOP, flags, sequence);
    let (family, onlink) = match &object.object {
        NextHopObject::Single(hop) => (if hop.gateway.is_some_and(|gateway| gateway.is_ipv6()) { AF_INET6 } else { AF_INET }, hop.onlink),
        NextHopObject::Group(_) => (AF_UNSPEC, false),
    };
    buffer.extend_from_slice(&[family, 0, object.protocol, 0]);
    buffer.extend_from_slice(&(if onlink { RTNH_F_ONLINK } else { 0 }).to_ne_bytes());
    put(buffer, NHA_ID, &object.id.to_ne_bytes());
    match &object.object {
        NextHopObject::Single(hop) => {
            put(buffer, NHA_OIF, &hop.interface.to_ne_bytes());
            if let Some(gateway) = hop.gateway {
                put_address(buffer, NHA_GATEWAY, gateway);
            }
        }
        NextHopObject::Group(members) => put(buffer, NHA_GROUP, &group(members)),
    }
    finish(buffer, start);
    start
}

fn group(members: &[u32]) -> Vec<u8> {
    members.iter().flat_map(|member| member.to_ne_bytes().into_iter().chain([0; MEMBER - 4])).collect()
}

/// Appends the deletion of an object; returns where it begins.
pub(super) fn encode_delete(buffer: &mut Vec<u8>, id: u32, sequence: u32) -> usize {
    let start = begin(buffer, RTM_DELNEXTHOP, 0, sequence);
    buffer.extend_from_slice(&[0; HEADER]);
    put(buffer, NHA_ID, &id.to_ne_bytes());
    finish(buffer, start);
    start
}

/// The number of a next-hop object.
pub(super) fn number(message: Message<'_>) -> Option<u32> {
    Attributes(message.body.get(HEADER..)?).find(|(kind, _)| *kind == NHA_ID).and_then(|(_, value)| u32_at(value, 0))
}

/// An object as told; none for what is malformed, or of a sort that margay does not make.
pub(super) fn decode(body: &[u8]) -> Option<KernelObject> {
    let protocol = *body.get(2)?;
    let onlink = u32_at(body, 4)? & RTNH_F_ONLINK != 0;
    let (mut id, mut interface, mut gateway, mut members) = (None, None, None::<IpAddr>, None);
    for (kind, value) in Attributes(body.get(HEADER..)?) {
        match kind {
            NHA_ID => id = u32_at(value, 0),
            NHA_OIF => interface = u32_at(value, 0),
            NHA_GATEWAY => gateway = address(value),
            NHA_GROUP => members = Some(value.chunks_exact(MEMBER).map(|member| u32_at(member, 0)).collect::<Option<SmallVec<_>>>()?),
            _ => {}
        }
    }
    let object = match members {
        Some(members) => NextHopObject::Group(members),
        None => NextHopObject::Single(KernelHop { gateway, interface: interface?, onlink }),
    };
    Some(KernelObject { id: id?, protocol, object })
}

#[cfg(test)]
mod tests {
    use super::super::message::Messages;
    use super::*;

    fn single(gateway: &str, onlink: bool) -> NextHopObject {
        NextHopObject::Single(KernelHop { gateway: Some(gateway.parse().unwrap()), interface: 7, onlink })
    }

    #[test]
    fn what_is_written_is_read_the_same() {
        let objects = [
            single("10.0.0.2", false),
            single("fe80::1", false),
            single("10.9.9.9", true),
            NextHopObject::Group([3, 9].into_iter().collect()),
        ];
        for object in objects {
            let object = KernelObject { id: 0x4dfe_0001, protocol: 12, object };
            let mut buffer = Vec::new();
            encode_set(&mut buffer, &object, true, 1);
            let message = Messages(&buffer).next().expect("a message");
            assert_eq!((message.kind, number(message), decode(message.body)), (RTM_NEWNEXTHOP, Some(object.id), Some(object.clone())));
            // Cut short anywhere: something else or nothing, and no panic.
            (0..message.body.len()).for_each(|length| assert_ne!(decode(&message.body[..length]), Some(object.clone())));
        }
    }
}
