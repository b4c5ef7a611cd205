//! MRT dumps of Adj-RIB-In: TABLE_DUMP_V2 (RFC 6396 section 4.3) and its ADD-PATH records (RFC 8050).
//!
//! A PEER_INDEX_TABLE names the peers, then each prefix has one record with what each of them says of it: RIB_IPV4_UNICAST or
//! RIB_IPV6_UNICAST, and RIB_IPV4_UNICAST_ADDPATH or RIB_IPV6_UNICAST_ADDPATH for the peers that send path identifiers; a prefix that both
//! kinds of peers tell has two records. AS numbers have four octets whatever the session had, and MP_REACH_NLRI is cut down to the next hop
//! (section 4.3.4). "Originated time" is when the peer's session came up, 0 for one that is down: the age of a path is not kept.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::rib::ReceivedPath;
use crate::types::{Asn, Family, PeerId, RouterId};
use crate::wire::pack;

/// MRT type TABLE_DUMP_V2.
const TABLE_DUMP_V2: u16 = 13;
/// Octets of a record's header.
const HEADER: usize = 12;
const PEER_INDEX_TABLE: u16 = 1;
/// Bits of a peer's type: its address is IPv6, its AS number has four octets.
const ADDRESS_IS_IPV6: u8 = 1;
const FOUR_OCTET_AS: u8 = 2;

/// A peer of the PEER_INDEX_TABLE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpedPeer {
    /// Its number.
    pub peer: PeerId,
    /// Its BGP identifier; 0.0.0.0 where no session has told it yet.
    pub identifier: RouterId,
    /// Its address.
    pub address: IpAddr,
    /// Its AS.
    pub asn: Asn,
    /// When its session came up, in seconds since 1970; 0 where it is down.
    pub since: u32,
}

/// Writes one dump, record by record.
#[derive(Debug)]
pub struct TableDump {
    timestamp: u32,
    /// Index and `since` of each peer.
    peers: BTreeMap<PeerId, (u16, u32)>,
    sequence: u32,
}

impl TableDump {
    /// Begins a dump taken at `timestamp` (seconds since 1970) by the speaker `collector`: its first record goes to `out`. Peers
    /// beyond the 65,535th, which the format has no number for, are left out.
    pub fn begin(timestamp: u32, collector: RouterId, peers: &[DumpedPeer], out: &mut Vec<u8>) -> Self {
        let peers = &peers[..peers.len().min(usize::from(u16::MAX))];
        record(timestamp, PEER_INDEX_TABLE, out, |out| {
            out.extend_from_slice(&collector.0.octets());
            // No view has a name.
            put_u16(0, out);
            put_u16(peers.len(), out);
            for peer in peers {
                put_peer(peer, out);
            }
        });
        let index = peers.iter().enumerate().map(|(index, peer)| (peer.peer, (index as u16, peer.since)));
        Self { timestamp, peers: index.collect(), sequence: 0 }
    }

    /// Appends the records of these paths; those of one prefix stand together. Paths of peers that the index does not have, because they came
    /// up after the dump had begun, are left out.
    pub fn append(&mut self, paths: &[ReceivedPath], out: &mut Vec<u8>) {
        for of_prefix in paths.chunk_by(|a, b| a.prefix == b.prefix) {
            for add_path in [false, true] {
                let known = of_prefix.iter().filter(|path| path.path_id.is_some() == add_path && self.peers.contains_key(&path.peer));
                let chosen: Vec<&ReceivedPath> = known.collect();
                for chunk in chosen.chunks(usize::from(u16::MAX)) {
                    self.prefix(of_prefix[0].prefix, chunk, add_path, out);
                }
            }
        }
    }

    fn prefix(&mut self, prefix: IpNet, paths: &[&ReceivedPath], add_path: bool, out: &mut Vec<u8>) {
        let (subtype, family) = match (prefix, add_path) {
            (IpNet::V4(_), false) => (2, Family::IPV4_UNICAST),
            (IpNet::V6(_), false) => (4, Family::IPV6_UNICAST),
            (IpNet::V4(_), true) => (8, Family::IPV4_UNICAST),
            (IpNet::V6(_), true) => (10, Family::IPV6_UNICAST),
        };
        let mut attributes = Vec::new();
        record(self.timestamp, subtype, out, |out| {
            out.extend_from_slice(&self.sequence.to_be_bytes());
            put_prefix(prefix, out);
            let count_at = out.len();
            put_u16(0, out);
            let mut count = 0_u16;
            for path in paths {
                let Some((index, since)) = self.peers.get(&path.peer) else { continue };
                attributes.clear();
                pack::table_entry(&path.attributes, family, &mut attributes);
                // What came in one message could outgrow the field only by AS numbers that have become four octets long.
                let Ok(length) = u16::try_from(attributes.len()) else { continue };
                out.extend_from_slice(&index.to_be_bytes());
                out.extend_from_slice(&since.to_be_bytes());
                if let Some(id) = path.path_id {
                    out.extend_from_slice(&id.0.to_be_bytes());
                }
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(&attributes);
                count += 1;
            }
            out[count_at..count_at + 2].copy_from_slice(&count.to_be_bytes());
        });
        self.sequence = self.sequence.wrapping_add(1);
    }
}

/// Appends a record with the body that `body` appends.
fn record(timestamp: u32, subtype: u16, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&timestamp.to_be_bytes());
    out.extend_from_slice(&TABLE_DUMP_V2.to_be_bytes());
    out.extend_from_slice(&subtype.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    body(out);
    // 65,535 entries of 65,535 octets each are more than a record can say, and more than a peer's message can bring about.
    let length = u32::try_from(out.len() - start - HEADER).unwrap_or(u32::MAX);
    out[start + HEADER - 4..start + HEADER].copy_from_slice(&length.to_be_bytes());
}

fn put_peer(peer: &DumpedPeer, out: &mut Vec<u8>) {
    out.push(FOUR_OCTET_AS | if peer.address.is_ipv6() { ADDRESS_IS_IPV6 } else { 0 });
    out.extend_from_slice(&peer.identifier.0.octets());
    match peer.address {
        IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
    }
    out.extend_from_slice(&peer.asn.0.to_be_bytes());
}

fn put_prefix(prefix: IpNet, out: &mut Vec<u8>) {
    let octets = usize::from(prefix.prefix_len()).div_ceil(8);
    out.push(prefix.prefix_len());
    match prefix.network() {
        IpAddr::V4(address) => out.extend_from_slice(&address.octets()[..octets]),
        IpAddr::V6(address) => out.extend_from_slice(&address.octets()[..octets]),
    }
}

fn put_u16(number: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use super::*;
    use crate::types::{AsPath, Attributes, Community, NextHop, PathId};

    const TIME: [u8; 4] = [0x60, 0, 0, 1];

    fn peer(number: u32, address: &str, asn: u32) -> DumpedPeer {
        let identifier = RouterId(Ipv4Addr::new(10, 0, 0, number as u8));
        DumpedPeer { peer: PeerId(number), identifier, address: address.parse().unwrap(), asn: Asn(asn), since: 7 }
    }

    fn path(prefix: &str, number: u32, path_id: Option<u32>, next_hop: &str) -> ReceivedPath {
        let attributes = Attributes {
            as_path: AsPath::sequence([Asn(70000)]),
            local_pref: Some(200),
            communities: [Community(0xfde8_0001)].into(),
            ..Attributes::originated(NextHop::Global(next_hop.parse().unwrap()))
        };
        ReceivedPath {
            prefix: prefix.parse().unwrap(),
            peer: PeerId(number),
            path_id: path_id.map(PathId),
            attributes: Arc::new(attributes),
        }
    }

    fn begin(out: &mut Vec<u8>) -> TableDump {
        let peers = [peer(1, "192.0.2.1", 70000), peer(2, "2001:db8::2", 64512)];
        TableDump::begin(u32::from_be_bytes(TIME), RouterId(Ipv4Addr::new(10, 9, 9, 9)), &peers, out)
    }

    #[test]
    fn the_index_names_the_peers() {
        let mut out = Vec::new();
        begin(&mut out);
        let v6 = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
        let body =
            [&[10, 9, 9, 9, 0, 0, 0, 2][..], &[2, 10, 0, 0, 1, 192, 0, 2, 1, 0, 1, 0x11, 0x70], &[3, 10, 0, 0, 2], &v6, &[0, 0, 0xfc, 0]]
                .concat();
        let header = [&TIME[..], &[0, 13, 0, 1, 0, 0, 0, body.len() as u8]].concat();
        assert_eq!(out, [header, body].concat());
    }

    #[test]
    fn an_ipv4_record_has_four_octet_as_numbers_and_next_hop() {
        let mut out = Vec::new();
        let mut dump = begin(&mut Vec::new());
        dump.append(&[path("10.1.0.0/16", 1, None, "192.0.2.66"), path("10.1.0.0/16", 9, None, "192.0.2.66")], &mut out);
        let attributes = [
            &[0x40, 1, 1, 0][..],
            &[0x40, 2, 6, 2, 1, 0, 1, 0x11, 0x70],
            &[0x40, 3, 4, 192, 0, 2, 66],
            &[0x40, 5, 4, 0, 0, 0, 200],
            &[0xc0, 8, 4, 0xfd, 0xe8, 0, 1],
        ]
        .concat();
        let entry = [&[0, 0, 0, 0, 0, 7, 0, attributes.len() as u8][..], &attributes].concat();
        let body = [&[0, 0, 0, 0, 16, 10, 1, 0, 1][..], &entry].concat();
        let header = [&TIME[..], &[0, 13, 0, 2, 0, 0, 0, body.len() as u8]].concat();
        assert_eq!(out, [header, body].concat(), "and the path of a peer without an index is left out");
    }

    #[test]
    fn ipv6_has_a_short_mp_reach_and_add_path_a_record_of_its_own() {
        let mut out = Vec::new();
        let mut dump = begin(&mut Vec::new());
        let paths = [
            path("2001:db8:1::/48", 1, None, "2001:db8::66"),
            path("2001:db8:1::/48", 2, Some(0), "2001:db8::66"),
            path("2001:db8:1::/48", 2, Some(5), "2001:db8::66"),
        ];
        dump.append(&paths, &mut out);
        let next_hop = [&[0x80, 14, 17, 16, 0x20, 1, 0x0d, 0xb8][..], &[0; 11], &[0x66]].concat();
        assert!(out.windows(next_hop.len()).any(|window| window == next_hop), "neither family nor prefixes: {out:?}");
        let subtypes = |mut rest: &[u8]| {
            let mut found = Vec::new();
            while let [_, _, _, _, _, _, high, low, a, b, c, d, body @ ..] = rest {
                let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
                let count = &body[4 + 1 + 6..][..2];
                found.push((u16::from_be_bytes([*high, *low]), u32::from_be_bytes(*body.first_chunk().unwrap()), count.to_vec()));
                rest = &body[length..];
            }
            found
        };
        assert_eq!(subtypes(&out), [(4, 0, vec![0, 1]), (10, 1, vec![0, 2])], "subtype, sequence, entries");
    }
}
