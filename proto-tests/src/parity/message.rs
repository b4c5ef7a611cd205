//! BGP messages, byte by byte: written for what observers announce, read into words that can be compared.
//!
//! Nothing here is margay's: a mistake in its codec must not be shared by what judges it.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail, ensure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::case::{Announcement, Observer};

pub const OPEN: u8 = 1;
pub const UPDATE: u8 = 2;
pub const NOTIFICATION: u8 = 3;
pub const KEEPALIVE: u8 = 4;
pub const ROUTE_REFRESH: u8 = 5;

/// A message with its header.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xff; 16];
    bytes.extend(u16::try_from(body.len() + 19).unwrap_or(u16::MAX).to_be_bytes());
    bytes.push(kind);
    bytes.extend(body);
    bytes
}

/// AFI of an address.
fn afi(address: IpAddr) -> u8 {
    if address.is_ipv4() { 1 } else { 2 }
}

/// The OPEN of an observer: a Calico node's, or that of a plain router.
pub fn open(observer: &Observer, id: Ipv4Addr) -> Vec<u8> {
    let family = [0, afi(observer.address), 0, 1];
    let mut capabilities = vec![(1, family.to_vec()), (2, vec![]), (65, observer.asn.to_be_bytes().to_vec())];
    if observer.calico {
        // A restart time of 120 s, forwarding not kept; ADD-PATH both ways; enhanced refresh; long-lived restart understood.
        capabilities.extend([(64, vec![0, 120, 0, family[1], 1, 0]), (69, vec![0, family[1], 1, 3]), (70, vec![]), (71, vec![])]);
    }
    let mut list = Vec::new();
    for (code, value) in capabilities {
        list.extend([code, u8::try_from(value.len()).unwrap_or(0)]);
        list.extend(value);
    }
    let short = u16::try_from(observer.asn).unwrap_or(23456);
    let mut body = vec![4];
    body.extend(short.to_be_bytes());
    body.extend(240u16.to_be_bytes());
    body.extend(id.octets());
    let length = u8::try_from(list.len()).unwrap_or(0);
    body.extend([length + 2, 2, length]);
    body.extend(list);
    message(OPEN, &body)
}

/// An attribute that is optional and transitive is 0xc0, optional 0x80, well-known 0x40.
fn attribute(out: &mut Vec<u8>, flags: u8, code: u8, value: &[u8]) {
    out.extend([flags | 0x10, code]);
    out.extend(u16::try_from(value.len()).unwrap_or(0).to_be_bytes());
    out.extend(value);
}

fn nlri(prefix: IpNet, id: Option<u32>) -> Vec<u8> {
    let mut bytes = id.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default();
    bytes.push(prefix.prefix_len());
    let octets = match prefix.network() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    bytes.extend(&octets[..usize::from(prefix.prefix_len().div_ceil(8))]);
    bytes
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The UPDATE that announces; with a path identifier where ADD-PATH is agreed.
pub fn announce(path: &Announcement, add_path: bool) -> Result<Vec<u8>> {
    let nlri = nlri(path.prefix, add_path.then_some(path.id));
    let mut attributes = Vec::new();
    attribute(&mut attributes, 0x40, 1, &[0]);
    let mut segment = Vec::new();
    if !path.path.is_empty() {
        segment.extend([2, u8::try_from(path.path.len())?]);
        path.path.iter().for_each(|asn| segment.extend(asn.to_be_bytes()));
    }
    attribute(&mut attributes, 0x40, 2, &segment);
    if path.prefix.addr().is_ipv4() {
        attribute(&mut attributes, 0x40, 3, &octets(path.next_hop));
    }
    for (flags, code, value) in [(0x80, 4, path.med), (0x40, 5, path.local_pref)] {
        if let Some(value) = value {
            attribute(&mut attributes, flags, code, &value.to_be_bytes());
        }
    }
    for (code, width) in [(8, 2), (32, 3)] {
        let (mut values, size) = (Vec::new(), if width == 2 { 2 } else { 4 });
        for text in path.communities.iter().filter(|text| text.split(':').count() == width) {
            for part in text.split(':') {
                values.extend(&part.parse::<u32>()?.to_be_bytes()[4 - size..]);
            }
        }
        if !values.is_empty() {
            attribute(&mut attributes, 0xc0, code, &values);
        }
    }
    if let Some(originator) = path.originator {
        attribute(&mut attributes, 0x80, 9, &originator.octets());
    }
    if !path.clusters.is_empty() {
        attribute(&mut attributes, 0x80, 10, &path.clusters.iter().flat_map(Ipv4Addr::octets).collect::<Vec<_>>());
    }
    let mut trailer = Vec::new();
    if path.prefix.addr().is_ipv4() {
        trailer = nlri;
    } else {
        let mut reach = vec![0, 2, 1, 16];
        reach.extend(octets(path.next_hop));
        reach.push(0);
        reach.extend(nlri);
        attribute(&mut attributes, 0x80, 14, &reach);
    }
    Ok(update(&[], &attributes, &trailer))
}

/// The UPDATE that withdraws.
pub fn withdraw(prefix: IpNet, id: u32, add_path: bool) -> Vec<u8> {
    let nlri = nlri(prefix, add_path.then_some(id));
    if prefix.addr().is_ipv4() {
        return update(&nlri, &[], &[]);
    }
    let mut attributes = Vec::new();
    attribute(&mut attributes, 0x80, 15, &[&[0, 2, 1], &nlri[..]].concat());
    update(&[], &attributes, &[])
}

/// The End-of-RIB of the family of `address`.
pub fn end_of_rib(address: IpAddr) -> Vec<u8> {
    let mut attributes = Vec::new();
    if address.is_ipv6() {
        attribute(&mut attributes, 0x80, 15, &[0, 2, 1]);
    }
    update(&[], &attributes, &[])
}

fn update(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for part in [withdrawn, attributes] {
        body.extend(u16::try_from(part.len()).unwrap_or(0).to_be_bytes());
        body.extend(part);
    }
    body.extend(nlri);
    message(UPDATE, &body)
}

/// What a node's OPEN says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// One line for the fixed part, one for each capability, sorted.
    pub lines: Vec<String>,
    /// It sends path identifiers to those that take them, and takes them.
    pub add_path: bool,
}

/// Reads an OPEN.
pub fn read_open(body: &[u8]) -> Result<Opened> {
    let mut input = Reader(body);
    let (version, short, hold, id) = (input.u8()?, input.u16()?, input.u16()?, Ipv4Addr::from(input.u32()?));
    let (mut add_path, mut asn) = (false, u32::from(short));
    let mut lines = Vec::new();
    let length = usize::from(input.u8()?);
    let mut parameters = Reader(input.take(length)?);
    ensure!(input.0.is_empty(), "bytes after the OPEN");
    while !parameters.0.is_empty() {
        let (kind, length) = (parameters.u8()?, usize::from(parameters.u8()?));
        let mut list = Reader(parameters.take(length)?);
        ensure!(kind == 2, "optional parameter {kind}");
        while !list.0.is_empty() {
            let (code, length) = (list.u8()?, usize::from(list.u8()?));
            let value = list.take(length)?;
            if code == 65 {
                asn = Reader(value).u32()?;
            }
            add_path |= code == 69 && value.get(3) == Some(&3);
            lines.push(format!("capability {}", capability(code, value)?));
            if code == 64 {
                lines.push(restart(value)?);
            }
        }
    }
    lines.sort();
    lines.insert(0, format!("open version {version} as {asn} ({short}) hold {hold} id {id}"));
    Ok(Opened { lines, add_path })
}

fn capability(code: u8, value: &[u8]) -> Result<String> {
    let mut input = Reader(value);
    Ok(match code {
        1 => format!("multiprotocol {}/{}", input.u16()?, {
            input.u8()?;
            input.u8()?
        }),
        2 => "route-refresh".into(),
        64 => {
            let mut text = format!("graceful-restart time {}", input.u16()? & 0xfff);
            while !input.0.is_empty() {
                write!(text, " {}/{}", input.u16()?, input.u8()?)?;
                input.u8()?;
            }
            text
        }
        65 => format!("four-octet-as {}", input.u32()?),
        69 => {
            let mut text = "add-path".to_owned();
            while !input.0.is_empty() {
                write!(text, " {}/{}:{}", input.u16()?, input.u8()?, input.u8()?)?;
            }
            text
        }
        70 => "enhanced-route-refresh".into(),
        71 => format!("long-lived-graceful-restart {value:02x?}"),
        _ => format!("{code} {value:02x?}"),
    })
}

/// R and N (RFC 8538), and the families with F, of a graceful restart capability.
fn restart(value: &[u8]) -> Result<String> {
    let mut input = Reader(value);
    let head = input.u16()?;
    let mut text = "restart flags".to_owned();
    for (bit, name) in [(0x8000, " R"), (0x4000, " N")] {
        text += if head & bit == 0 { "" } else { name };
    }
    while !input.0.is_empty() {
        let (afi, safi, flags) = (input.u16()?, input.u8()?, input.u8()?);
        if flags & 0x80 != 0 {
            write!(text, " F:{afi}/{safi}")?;
        }
    }
    Ok(text)
}

/// A prefix and the path identifier that it came with.
pub type Key = (IpNet, Option<u32>);

/// What an UPDATE says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Updated {
    pub withdrawn: Vec<Key>,
    /// Prefixes, and the attributes of their path in words.
    pub announced: Vec<(Key, String)>,
    /// It announces and withdraws nothing: the End-of-RIB of this AFI.
    pub end_of_rib: bool,
}

/// Reads an UPDATE of a session on which ADD-PATH is agreed or not.
pub fn read_update(body: &[u8], add_path: bool) -> Result<Updated> {
    let mut input = Reader(body);
    let length = usize::from(input.u16()?);
    let withdrawn = input.take(length)?;
    let length = usize::from(input.u16()?);
    let mut attributes = Reader(input.take(length)?);
    let mut said = Updated { withdrawn: prefixes(withdrawn, 1, add_path)?, ..Updated::default() };
    let mut announced = prefixes(input.0, 1, add_path)?;
    let (mut words, mut none) = (Vec::new(), true);
    while !attributes.0.is_empty() {
        let (flags, code) = (attributes.u8()?, attributes.u8()?);
        let length = if flags & 0x10 == 0 { usize::from(attributes.u8()?) } else { usize::from(attributes.u16()?) };
        let mut value = Reader(attributes.take(length)?);
        match code {
            14 => {
                let (afi, safi, length) = (value.u16()?, value.u8()?, usize::from(value.u8()?));
                ensure!((afi, safi) == (2, 1), "MP_REACH_NLRI of {afi}/{safi}");
                let hops = value.take(length)?;
                ensure!(hops.len() % 16 == 0, "a next hop of {} bytes", hops.len());
                for hop in hops.chunks(16) {
                    words.push((3, format!("next-hop {}", Ipv6Addr::from(<[u8; 16]>::try_from(hop)?))));
                }
                value.u8()?;
                announced.extend(prefixes(value.0, 2, add_path)?);
            }
            15 => {
                let (afi, safi) = (value.u16()?, value.u8()?);
                ensure!((afi, safi) == (2, 1), "MP_UNREACH_NLRI of {afi}/{safi}");
                said.withdrawn.extend(prefixes(value.0, 2, add_path)?);
            }
            _ => {
                none = false;
                words.push((code, words_of(flags, code, value)?));
            }
        }
    }
    words.sort();
    let words = words.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(" ");
    said.end_of_rib = announced.is_empty() && said.withdrawn.is_empty() && none;
    said.announced = announced.into_iter().map(|key| (key, words.clone())).collect();
    Ok(said)
}

/// An attribute in words; its flags only where they are not those that the RFC gives it.
fn words_of(flags: u8, code: u8, mut value: Reader<'_>) -> Result<String> {
    let (usual, text) = match code {
        1 => (0x40, format!("origin {}", ["igp", "egp", "incomplete"].get(usize::from(value.u8()?)).unwrap_or(&"?"))),
        2 => (0x40, format!("path {}", as_path(&mut value)?)),
        3 => (0x40, format!("next-hop {}", Ipv4Addr::from(value.u32()?))),
        4 => (0x80, format!("med {}", value.u32()?)),
        5 => (0x40, format!("local-pref {}", value.u32()?)),
        8 => {
            let mut all = Vec::new();
            while !value.0.is_empty() {
                all.push(format!("{}:{}", value.u16()?, value.u16()?));
            }
            (0xc0, format!("communities {}", all.join(",")))
        }
        9 => (0x80, format!("originator {}", Ipv4Addr::from(value.u32()?))),
        10 => {
            let mut all = Vec::new();
            while !value.0.is_empty() {
                all.push(Ipv4Addr::from(value.u32()?).to_string());
            }
            (0x80, format!("clusters {}", all.join(",")))
        }
        32 => {
            let mut all = Vec::new();
            while !value.0.is_empty() {
                all.push(format!("{}:{}:{}", value.u32()?, value.u32()?, value.u32()?));
            }
            (0xc0, format!("large-communities {}", all.join(",")))
        }
        _ => (0, format!("attribute {code} {:02x?}", std::mem::take(&mut value.0))),
    };
    ensure!(value.0.is_empty(), "attribute {code} is too long");
    Ok(if flags & 0xe0 == usual { text } else { format!("{text} (flags {:02x})", flags & 0xe0) })
}

fn as_path(value: &mut Reader<'_>) -> Result<String> {
    let mut text = "(".to_owned();
    while !value.0.is_empty() {
        let (kind, count) = (value.u8()?, value.u8()?);
        let numbers = (0..count).map(|_| value.u32().map(|asn| asn.to_string())).collect::<Result<Vec<_>>>()?.join(" ");
        if text.len() > 1 {
            text.push(' ');
        }
        text += &if kind == 2 { numbers } else { format!("{kind}{{{numbers}}}") };
    }
    Ok(text + ")")
}

fn prefixes(bytes: &[u8], afi: u8, add_path: bool) -> Result<Vec<Key>> {
    let mut input = Reader(bytes);
    let mut all = Vec::new();
    while !input.0.is_empty() {
        let id = if add_path { Some(input.u32()?) } else { None };
        let length = input.u8()?;
        let bytes = input.take(usize::from(length.div_ceil(8)))?;
        let mut octets = [0; 16];
        octets.get_mut(..bytes.len()).context("a prefix that is too long")?.copy_from_slice(bytes);
        let prefix = match afi {
            1 => IpNet::V4(Ipv4Net::new(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]), length)?),
            _ => IpNet::V6(Ipv6Net::new(Ipv6Addr::from(octets), length)?),
        };
        ensure!(prefix == prefix.trunc(), "{prefix} has bits beyond its length");
        all.push((prefix, id));
    }
    Ok(all)
}

/// Reads from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        if count > self.0.len() {
            bail!("{count} bytes wanted, {} left", self.0.len());
        }
        let (front, back) = self.0.split_at(count);
        self.0 = back;
        Ok(front)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.take(2)?.try_into()?))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let path = Announcement {
            prefix: "10.244.2.0/26".parse().unwrap(),
            next_hop: "10.0.1.12".parse().unwrap(),
            path: vec![65010, 4_200_000_000],
            local_pref: Some(100),
            med: Some(5),
            communities: vec!["64512:100".into(), "64512:1:2".into()],
            originator: Some([10, 0, 0, 9].into()),
            clusters: vec![[244, 0, 0, 1].into()],
            id: 7,
        };
        let words = "origin igp path (65010 4200000000) next-hop 10.0.1.12 med 5 local-pref 100 communities 64512:100 \
                     originator 10.0.0.9 clusters 244.0.0.1 large-communities 64512:1:2";
        let key = (path.prefix, Some(7));
        assert_eq!(read_update(&announce(&path, true).unwrap()[19..], true).unwrap().announced, [(key, words.to_owned())]);
        let path = Announcement { prefix: "fd00::/64".parse().unwrap(), next_hop: "fd00::1".parse().unwrap(), path: vec![], ..path };
        let said = read_update(&announce(&path, false).unwrap()[19..], false).unwrap();
        assert_eq!(said.announced[0].0, (path.prefix, None));
        assert!(said.announced[0].1.starts_with("origin igp path () next-hop fd00::1 med 5"), "{said:?}");
        assert_eq!(read_update(&withdraw(path.prefix, 7, true)[19..], true).unwrap().withdrawn, [(path.prefix, Some(7))]);
        for address in ["10.0.0.1", "::1"] {
            assert!(read_update(&end_of_rib(address.parse().unwrap())[19..], true).unwrap().end_of_rib);
        }
    }
}
