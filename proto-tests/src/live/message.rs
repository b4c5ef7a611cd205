//! Messages, good and bad, as octets.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// OPEN.
pub const OPEN: u8 = 1;
/// UPDATE.
pub const UPDATE: u8 = 2;
/// NOTIFICATION.
pub const NOTIFICATION: u8 = 3;
/// KEEPALIVE.
pub const KEEPALIVE: u8 = 4;
/// ROUTE-REFRESH.
pub const REFRESH: u8 = 5;

/// A next hop that resolves where live tests run.
pub const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 66);
/// The same for IPv6.
pub const NEXT_HOP_6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x66);

/// A message with a header that is right.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&header(kind, 19 + body.len())[..], body].concat()
}

/// A header that claims `length`.
pub fn header(kind: u8, length: usize) -> Vec<u8> {
    let length = u16::try_from(length).expect("a length of two octets").to_be_bytes();
    [&[0xff; 16][..], &length, &[kind]].concat()
}

/// KEEPALIVE.
pub fn keepalive() -> Vec<u8> {
    message(KEEPALIVE, &[])
}

/// NOTIFICATION.
pub fn notification(code: u8, subcode: u8, data: &[u8]) -> Vec<u8> {
    message(NOTIFICATION, &[&[code, subcode], data].concat())
}

/// ROUTE-REFRESH.
pub fn refresh(afi: u16, subtype: u8, safi: u8) -> Vec<u8> {
    message(REFRESH, &[&afi.to_be_bytes()[..], &[subtype, safi]].concat())
}

/// UPDATE of its three fields.
pub fn update(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    update_claiming(withdrawn.len(), attributes.len(), &[withdrawn, attributes, nlri])
}

/// UPDATE whose two length fields say what they like.
pub fn update_claiming(withdrawn_length: usize, attributes_length: usize, fields: &[&[u8]; 3]) -> Vec<u8> {
    let two = |length: usize| u16::try_from(length).expect("a length of two octets").to_be_bytes();
    message(UPDATE, &[&two(withdrawn_length)[..], fields[0], &two(attributes_length), fields[1], fields[2]].concat())
}

/// UPDATE that announces IPv4 prefixes.
pub fn announce(attributes: &[Vec<u8>], prefixes: &[&str]) -> Vec<u8> {
    update(&[], &attributes.concat(), &nlri(prefixes))
}

/// UPDATE that withdraws IPv4 prefixes.
pub fn withdraw(prefixes: &[&str]) -> Vec<u8> {
    update(&nlri(prefixes), &[], &[])
}

/// A path attribute; two octets of length where the flags or the value ask for it.
pub fn attribute(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    if value.len() > 255 || flags & 0x10 != 0 {
        let length = u16::try_from(value.len()).expect("a length of two octets").to_be_bytes();
        return [&[flags | 0x10, code], &length[..], value].concat();
    }
    [&[flags, code, value.len() as u8], value].concat()
}

/// ORIGIN.
pub fn origin(value: u8) -> Vec<u8> {
    attribute(0x40, 1, &[value])
}

/// AS_PATH of one sequence (empty for no AS), in four octets each.
pub fn as_path(path: &[u32]) -> Vec<u8> {
    if path.is_empty() { attribute(0x40, 2, &[]) } else { attribute(0x40, 2, &segment(2, path)) }
}

/// A segment of an AS path.
pub fn segment(kind: u8, path: &[u32]) -> Vec<u8> {
    [&[kind, path.len() as u8], &path.iter().flat_map(|asn| asn.to_be_bytes()).collect::<Vec<u8>>()[..]].concat()
}

/// NEXT_HOP.
pub fn next_hop(address: Ipv4Addr) -> Vec<u8> {
    attribute(0x40, 3, &address.octets())
}

/// LOCAL_PREF.
pub fn local_pref(value: u32) -> Vec<u8> {
    attribute(0x40, 5, &value.to_be_bytes())
}

/// COMMUNITIES.
pub fn communities(values: &[u32]) -> Vec<u8> {
    attribute(0xc0, 8, &values.iter().flat_map(|value| value.to_be_bytes()).collect::<Vec<u8>>())
}

/// The attributes that an IPv4 route of another AS needs.
pub fn basics(asn: u32) -> Vec<Vec<u8>> {
    vec![origin(0), as_path(&[asn]), next_hop(NEXT_HOP)]
}

/// MP_REACH_NLRI.
pub fn reach(afi: u16, safi: u8, next_hop: &[u8], nlri: &[u8]) -> Vec<u8> {
    attribute(0x80, 14, &[&afi.to_be_bytes()[..], &[safi, next_hop.len() as u8], next_hop, &[0], nlri].concat())
}

/// MP_UNREACH_NLRI.
pub fn unreach(afi: u16, safi: u8, nlri: &[u8]) -> Vec<u8> {
    attribute(0x80, 15, &[&afi.to_be_bytes()[..], &[safi], nlri].concat())
}

/// Prefixes on the wire.
pub fn nlri(prefixes: &[&str]) -> Vec<u8> {
    prefixes.iter().flat_map(|prefix| one_nlri(prefix)).collect()
}

/// Prefixes on the wire, each with its path identifier.
pub fn nlri_with_ids(prefixes: &[(u32, &str)]) -> Vec<u8> {
    prefixes.iter().flat_map(|(id, prefix)| [&id.to_be_bytes()[..], &one_nlri(prefix)].concat()).collect()
}

fn one_nlri(prefix: &str) -> Vec<u8> {
    let prefix: IpNet = prefix.parse().expect("a prefix");
    let octets = match prefix {
        IpNet::V4(net) => net.addr().octets().to_vec(),
        IpNet::V6(net) => net.addr().octets().to_vec(),
    };
    let used = usize::from(prefix.prefix_len()).div_ceil(8);
    [&[prefix.prefix_len()], &octets[..used]].concat()
}
