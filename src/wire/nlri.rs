//! Prefixes on the wire (RFC 4271 4.3, RFC 4760 5), with and without path identifier (RFC 7911 3).
//!
//! The hot path of a full table: one `Vec` for each field, nothing allocated for a prefix.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::NlriError;
use crate::types::{AddressFamily, Family, Ipv4Unicast, Ipv6Unicast, Nlri, NlriList, PathId};

/// Reads a whole field of a family that margay routes. Host bits are cleared (U10).
pub(super) fn decode(family: Family, field: &[u8], path_ids: bool) -> Result<NlriList, NlriError> {
    Ok(match family {
        Family::IPV6_UNICAST => NlriList::Ipv6(items::<Ipv6Unicast>(field, path_ids)?),
        _ => NlriList::Ipv4(items::<Ipv4Unicast>(field, path_ids)?),
    })
}

fn items<A: AddressFamily>(mut field: &[u8], path_ids: bool) -> Result<Vec<Nlri<A::Prefix>>, NlriError> {
    // What a field of ordinary prefixes holds: /24 in IPv4, /48 and /64 in IPv6.
    let usual = if A::MAX_LENGTH == 32 { 4 } else { 8 } + if path_ids { 4 } else { 0 };
    let mut items = Vec::with_capacity(field.len().div_ceil(usual));
    while !field.is_empty() {
        let mut path_id = PathId(0);
        if path_ids {
            let (id, rest) = field.split_first_chunk().ok_or(NlriError::Cut)?;
            path_id = PathId(u32::from_be_bytes(*id));
            field = rest;
        }
        let (&length, rest) = field.split_first().ok_or(NlriError::Cut)?;
        if length > A::MAX_LENGTH {
            return Err(NlriError::Length(length));
        }
        let octets = usize::from(length).div_ceil(8);
        let after = rest.get(octets..).ok_or(NlriError::Cut)?;
        let prefix = if A::MAX_LENGTH == 32 { ipv4(rest, octets, length) } else { ipv6(rest, octets, length) };
        items.push(Nlri { prefix: prefix.and_then(A::narrow).ok_or(NlriError::Length(length))?, path_id });
        field = after;
    }
    Ok(items)
}

/// Reads four octets where there are so many, whoever they belong to, and masks what is not the prefix's.
fn ipv4(rest: &[u8], octets: usize, length: u8) -> Option<IpNet> {
    let bits = match rest.first_chunk() {
        Some(chunk) => u32::from_be_bytes(*chunk),
        None => rest.iter().take(octets).zip([24, 16, 8, 0]).fold(0, |bits, (octet, shift)| bits | u32::from(*octet) << shift),
    };
    let mask = (u64::from(u32::MAX) << (32 - u32::from(length))) as u32;
    Some(IpNet::V4(Ipv4Net::new(Ipv4Addr::from_bits(bits & mask), length).ok()?))
}

fn ipv6(rest: &[u8], octets: usize, length: u8) -> Option<IpNet> {
    let bits = match rest.first_chunk() {
        Some(chunk) => u128::from_be_bytes(*chunk),
        None => {
            let mut address = [0; 16];
            let octets = octets.min(rest.len()).min(16);
            address[..octets].copy_from_slice(&rest[..octets]);
            u128::from_be_bytes(address)
        }
    };
    let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    Some(IpNet::V6(Ipv6Net::new(Ipv6Addr::from_bits(bits & mask), length).ok()?))
}

/// How many octets an item takes.
pub(super) fn size<A: AddressFamily>(item: &Nlri<A::Prefix>, path_ids: bool) -> usize {
    let prefix: IpNet = item.prefix.into();
    1 + usize::from(prefix.prefix_len()).div_ceil(8) + if path_ids { 4 } else { 0 }
}

/// Appends one item.
pub(super) fn put<A: AddressFamily>(item: &Nlri<A::Prefix>, path_ids: bool, out: &mut Vec<u8>) {
    let prefix: IpNet = item.prefix.into();
    if path_ids {
        out.extend_from_slice(&item.path_id.0.to_be_bytes());
    }
    out.push(prefix.prefix_len());
    let octets = usize::from(prefix.prefix_len()).div_ceil(8);
    match prefix {
        IpNet::V4(prefix) => out.extend_from_slice(&prefix.network().octets()[..octets.min(4)]),
        IpNet::V6(prefix) => out.extend_from_slice(&prefix.network().octets()[..octets.min(16)]),
    }
}

/// Appends a whole list.
pub(super) fn put_list(list: &NlriList, path_ids: bool, out: &mut Vec<u8>) {
    match list {
        NlriList::Ipv4(items) => items.iter().for_each(|item| put::<Ipv4Unicast>(item, path_ids, out)),
        NlriList::Ipv6(items) => items.iter().for_each(|item| put::<Ipv6Unicast>(item, path_ids, out)),
    }
}
