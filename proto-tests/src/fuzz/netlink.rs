//! What the kernel says: any datagram leads to events, or to none, and tables that were told are told to their end.

use margay::fib::KernelEvent;
use margay::kernel;

/// The first octet says where to cut the rest into datagrams.
pub fn body(data: &[u8]) {
    let Some((cut, octets)) = data.split_first() else { return };
    let datagrams = octets.chunks(usize::from(*cut).max(16) * 4);
    for event in kernel::events_of(datagrams) {
        if let KernelEvent::Route(margay::types::Sync::Upsert(key, route)) = event {
            assert_eq!(key, route.key);
            assert_eq!(key.prefix, key.prefix.trunc(), "a prefix has no host bits");
        }
    }
}

/// A route, an address and a link, as Linux says them.
pub fn seeds() -> Vec<Vec<u8>> {
    let message = |kind: u16, body: &[u8]| {
        let mut octets = (16 + body.len() as u32).to_ne_bytes().to_vec();
        octets.extend_from_slice(&kind.to_ne_bytes());
        octets.extend_from_slice(&[0; 10]);
        octets.extend_from_slice(body);
        octets
    };
    let attribute = |kind: u16, value: &[u8]| {
        let mut octets = (4 + value.len() as u16).to_ne_bytes().to_vec();
        octets.extend_from_slice(&kind.to_ne_bytes());
        octets.extend_from_slice(value);
        octets.resize(octets.len().next_multiple_of(4), 0);
        octets
    };
    // rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags.
    let route = [
        &[2, 24, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0][..],
        &attribute(1, &[10, 1, 2, 0]),
        &attribute(5, &[10, 0, 0, 2]),
        &attribute(4, &2u32.to_ne_bytes()),
    ];
    let hops = [&16u16.to_ne_bytes()[..], &[0, 0], &2u32.to_ne_bytes(), &attribute(5, &[10, 0, 0, 2])].concat();
    let multipath =
        [&[2, 24, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0][..], &attribute(1, &[10, 1, 3, 0]), &attribute(9, &[hops.clone(), hops].concat())];
    let address = [&[2, 24, 0, 0][..], &2u32.to_ne_bytes(), &attribute(2, &[10, 0, 0, 1]), &attribute(1, &[10, 0, 0, 1])];
    let link = [&[0, 0, 1, 0][..], &2u32.to_ne_bytes(), &0x1_0001u32.to_ne_bytes(), &[0; 4], &attribute(3, b"eth0\0")];
    let ipv6 = [
        &[10, 64, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0][..],
        &attribute(1, &[0xfd; 16]),
        &attribute(5, &[0xfe; 16]),
        &attribute(4, &2u32.to_ne_bytes()),
    ];
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for (kind, body) in [
        (24, route.concat()),
        (24, multipath.concat()),
        (20, address.concat()),
        (16, link.concat()),
        (24, ipv6.concat()),
        (25, route.concat()),
        (17, link.concat()),
    ] {
        seeds.push([&[64][..], &message(kind, &body)].concat());
    }
    let all: Vec<u8> = seeds.iter().flat_map(|seed| seed[1..].to_vec()).collect();
    seeds.push([&[255][..], &all].concat());
    seeds
}
