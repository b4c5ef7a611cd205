//! UPDATE frames of a run of prefixes: stands in until `wire::pack` has landed; only the commonest attributes.

use bytes::{BufMut, Bytes, BytesMut};
use ipnet::IpNet;

use crate::types::{AddressFamily, Attributes, Family, Nlri, SegmentKind};
use crate::wire::Context;

/// Frames that announce `nlri`; answers what did not fit.
pub(super) fn announce<A: AddressFamily>(
    attributes: &Attributes,
    nlri: &[Nlri<A::Prefix>],
    context: &Context,
    frames: &mut Vec<Bytes>,
) -> Vec<Nlri<A::Prefix>> {
    let add_path = context.add_path_send.has(A::FAMILY);
    let mut plain = BytesMut::new();
    plain.put_slice(&[0x40, 1, 1, attributes.origin as u8]);
    let mut path = BytesMut::new();
    for segment in &attributes.as_path.segments {
        for chunk in segment.asns.chunks(255) {
            path.put_u8(match segment.kind {
                SegmentKind::Set => 1,
                _ => 2,
            });
            path.put_u8(u8::try_from(chunk.len()).unwrap_or(255));
            chunk.iter().for_each(|asn| path.put_u32(asn.0));
        }
    }
    plain.put_slice(&[0x50, 2]);
    plain.put_u16(u16::try_from(path.len()).unwrap_or(u16::MAX));
    plain.put_slice(&path);
    if let (Family::IPV4_UNICAST, std::net::IpAddr::V4(address)) = (A::FAMILY, attributes.next_hop.address()) {
        plain.put_slice(&[0x40, 3, 4]);
        plain.put_slice(&address.octets());
    }
    for (code, value) in [(4, attributes.med), (5, attributes.local_pref)] {
        if let Some(value) = value {
            plain.put_slice(&[if code == 4 { 0x80 } else { 0x40 }, code, 4]);
            plain.put_u32(value);
        }
    }
    let classic = A::FAMILY == Family::IPV4_UNICAST;
    let overhead = 23 + plain.len() + if classic { 0 } else { 4 + 5 + 16 };
    let mut left = Vec::new();
    for chunk in chunks::<A>(nlri, add_path, context.send_limit.saturating_sub(overhead), &mut left) {
        let mut body = BytesMut::new();
        body.put_u16(0);
        if classic {
            body.put_u16(u16::try_from(plain.len()).unwrap_or(u16::MAX));
            body.put_slice(&plain);
            body.put_slice(&chunk);
        } else {
            body.put_u16(u16::try_from(plain.len() + 4 + 21 + chunk.len()).unwrap_or(u16::MAX));
            body.put_slice(&plain);
            body.put_slice(&[0x90, 14]);
            body.put_u16(u16::try_from(21 + chunk.len()).unwrap_or(u16::MAX));
            body.put_slice(&[0, 2, 1, 16]);
            match attributes.next_hop.address() {
                std::net::IpAddr::V6(address) => body.put_slice(&address.octets()),
                std::net::IpAddr::V4(address) => body.put_slice(&address.to_ipv6_mapped().octets()),
            }
            body.put_u8(0);
            body.put_slice(&chunk);
        }
        frames.push(frame(&body));
    }
    left
}

/// Frames that withdraw `nlri`.
pub(super) fn withdraw<A: AddressFamily>(nlri: &[Nlri<A::Prefix>], context: &Context, frames: &mut Vec<Bytes>) {
    let classic = A::FAMILY == Family::IPV4_UNICAST;
    let room = context.send_limit - 23 - if classic { 0 } else { 7 };
    for chunk in chunks::<A>(nlri, context.add_path_send.has(A::FAMILY), room, &mut Vec::new()) {
        let mut body = BytesMut::new();
        if classic {
            body.put_u16(u16::try_from(chunk.len()).unwrap_or(u16::MAX));
            body.put_slice(&chunk);
            body.put_u16(0);
        } else {
            body.put_u16(0);
            body.put_u16(u16::try_from(7 + chunk.len()).unwrap_or(u16::MAX));
            body.put_slice(&[0x90, 15]);
            body.put_u16(u16::try_from(3 + chunk.len()).unwrap_or(u16::MAX));
            body.put_slice(&[0, 2, 1]);
            body.put_slice(&chunk);
        }
        frames.push(frame(&body));
    }
}

fn frame(body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(19 + body.len());
    bytes.put_slice(&[0xff; 16]);
    bytes.put_u16(u16::try_from(19 + body.len()).unwrap_or(u16::MAX));
    bytes.put_u8(2);
    bytes.put_slice(body);
    bytes.freeze()
}

fn chunks<A: AddressFamily>(nlri: &[Nlri<A::Prefix>], add_path: bool, room: usize, left: &mut Vec<Nlri<A::Prefix>>) -> Vec<Vec<u8>> {
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    for item in nlri {
        let mut one = Vec::new();
        if add_path {
            one.put_u32(item.path_id.0);
        }
        let prefix: IpNet = item.prefix.into();
        one.put_u8(prefix.prefix_len());
        let octets = usize::from(prefix.prefix_len().div_ceil(8));
        match prefix {
            IpNet::V4(p) => one.extend(p.network().octets().iter().take(octets)),
            IpNet::V6(p) => one.extend(p.network().octets().iter().take(octets)),
        }
        if one.len() > room {
            left.push(*item);
            continue;
        }
        match chunks.last_mut() {
            Some(chunk) if chunk.len() + one.len() <= room => chunk.extend(one),
            _ => chunks.push(one),
        }
    }
    chunks
}
