//! UPDATEs as a strict neighbour reads them: everything that the RFCs forbid a sender is a complaint.
//!
//! Written from the RFCs, not from margay's decoder, so that an error in one is not repeated in the other.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, bail, ensure};
use ipnet::IpNet;

/// What the reader of a session knows of it.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The sender's AS.
    pub sender: u32,
    /// Sender and reader are in one AS.
    pub internal: bool,
    /// NLRI carries path identifiers.
    pub add_path: bool,
}

/// A path attribute as it came.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attribute {
    /// Flags octet.
    pub flags: u8,
    /// Type code.
    pub code: u8,
    /// Value.
    pub value: Vec<u8>,
}

/// A prefix, with its path identifier where the session has them.
pub type Nlri = (IpNet, Option<u32>);

/// An UPDATE: classic and multiprotocol fields in one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Withdrawn prefixes.
    pub withdrawn: Vec<Nlri>,
    /// Announced prefixes.
    pub reached: Vec<Nlri>,
    /// All attributes but MP_REACH_NLRI and MP_UNREACH_NLRI, in their order.
    pub attributes: Vec<Attribute>,
    /// The next hop of the announced prefixes.
    pub next_hop: Option<Vec<IpAddr>>,
    /// It is the End-of-RIB mark of this AFI.
    pub end_of_rib: Option<u16>,
    /// What a strict reader has to say of it.
    pub complaints: Vec<String>,
}

impl Update {
    /// Reads the body of an UPDATE.
    ///
    /// # Errors
    /// A structure that cannot be read at all.
    pub fn read(body: &[u8], terms: &Terms) -> Result<Self> {
        let mut rest = body;
        let withdrawn = take_two(&mut rest)?;
        let attributes = take_two(&mut rest)?;
        let mut update = Self::default();
        let classic_withdrawn = nlri(withdrawn, 1, terms.add_path)?;
        let classic = nlri(rest, 1, terms.add_path)?;
        let all = read_attributes(attributes)?;
        update.check_order(&all);
        let (mut mp_reach, mut mp_unreach) = (None, None);
        for attribute in all {
            update.check(&attribute, terms);
            match attribute.code {
                14 => mp_reach = Some(read_reach(&attribute.value, terms)?),
                15 => mp_unreach = Some(read_unreach(&attribute.value, terms)?),
                3 if attribute.value.len() == 4 => update.next_hop = Some(vec![v4(&attribute.value)]),
                _ => {}
            }
            if !matches!(attribute.code, 14 | 15) {
                update.attributes.push(attribute);
            }
        }
        let fields = [
            !classic_withdrawn.is_empty(),
            !classic.is_empty(),
            mp_reach.is_some(),
            mp_unreach.as_ref().is_some_and(|(_, nlri)| !nlri.is_empty()),
        ];
        update.expect(fields.iter().filter(|there| **there).count() <= 1, "withdrawals and announcements, or two families, in one message");
        update.end_of_rib = match &mp_unreach {
            Some((afi, nlri)) if nlri.is_empty() && update.attributes.is_empty() && mp_reach.is_none() => Some(*afi),
            None if body.len() == 4 => Some(1),
            _ => None,
        };
        update.expect(fields.contains(&true) || update.end_of_rib.is_some(), "neither prefixes nor the End-of-RIB mark");
        update.withdrawn = classic_withdrawn;
        update.reached = classic;
        if let Some((next_hop, nlri)) = mp_reach {
            update.next_hop = Some(next_hop);
            update.reached.extend(nlri);
        }
        update.withdrawn.extend(mp_unreach.map(|(_, nlri)| nlri).unwrap_or_default());
        update.check_whole(terms);
        Ok(update)
    }

    /// The value of an attribute.
    pub fn attribute(&self, code: u8) -> Option<&[u8]> {
        self.attributes.iter().find(|attribute| attribute.code == code).map(|attribute| &attribute.value[..])
    }

    fn expect(&mut self, holds: bool, complaint: &str) {
        if !holds {
            self.complaints.push(complaint.to_owned());
        }
    }

    fn check_order(&mut self, all: &[Attribute]) {
        let rank = |attribute: &Attribute| if matches!(attribute.code, 14 | 15) { 0 } else { attribute.code };
        self.expect(all.is_sorted_by(|a, b| rank(a) < rank(b)), "attributes repeated or out of order (U23)");
    }

    /// Flags and lengths of the attributes that a speaker knows.
    fn check(&mut self, attribute: &Attribute, terms: &Terms) {
        let Attribute { flags, code, value } = attribute;
        let length = value.len();
        let every = |size: usize| length > 0 && length.is_multiple_of(size);
        let (wanted, fits) = match code {
            1 => (0x40, length == 1 && value[0] <= 2),
            2 => (0x40, true),
            3 => (0x40, length == 4),
            4 => (0x80, length == 4),
            5 => (0x40, length == 4),
            6 => (0x40, length == 0),
            7 => (0xc0, length == 8),
            8 => (0xc0, every(4)),
            9 => (0x80, length == 4),
            10 => (0x80, every(4)),
            14 | 15 => (0x80, true),
            16 => (0xc0, every(8)),
            25 => (0xc0, every(20)),
            32 => (0xc0, every(12)),
            35 => (0xc0, length == 4),
            _ => (0xc0, true),
        };
        // Partial may stand on what is optional and transitive; the extended length only where it is needed.
        let partial = if wanted == 0xc0 { 0x20 } else { 0 };
        self.expect(flags & !0x10 & !partial == wanted, &format!("attribute {code}: flags {flags:#04x}"));
        self.expect((flags & 0x10 != 0) == (length > 255), &format!("attribute {code}: extended length for {length} octets"));
        self.expect(fits, &format!("attribute {code}: {length} octets"));
        self.expect(!matches!(code, 0 | 17 | 18), &format!("attribute {code} to a four-octet speaker"));
        self.expect(terms.internal || !matches!(code, 5 | 9 | 10), &format!("attribute {code} crosses an AS border"));
    }

    fn check_whole(&mut self, terms: &Terms) {
        if self.reached.is_empty() {
            self.expect(self.attributes.is_empty(), "a withdrawal with attributes");
            return;
        }
        for code in [1, 2] {
            self.expect(self.attribute(code).is_some(), &format!("attribute {code} is missing"));
        }
        self.expect(self.next_hop.is_some(), "no next hop");
        self.expect(!terms.internal || self.attribute(5).is_some(), "no LOCAL_PREF inside the AS");
        match self.as_path() {
            Ok(path) => {
                let flat: Vec<u32> = path.iter().flat_map(|(_, ases)| ases.clone()).collect();
                self.expect(!flat.contains(&0), "AS 0 in AS_PATH");
                self.expect(path.iter().all(|(kind, ases)| *kind == 2 && !ases.is_empty()), "a segment that is no AS_SEQUENCE");
                self.expect(terms.internal || flat.first() == Some(&terms.sender), "the first AS is not the sender's");
            }
            Err(error) => self.complaints.push(format!("AS_PATH: {error}")),
        }
        let distinct: BTreeSet<_> = self.reached.iter().collect();
        self.expect(distinct.len() == self.reached.len(), "a prefix twice (P4)");
    }

    /// Segments of the AS path: kind and ASes.
    ///
    /// # Errors
    /// One that cannot be read.
    pub fn as_path(&self) -> Result<Vec<(u8, Vec<u32>)>> {
        let mut rest = self.attribute(2).unwrap_or_default();
        let mut segments = Vec::new();
        while let [kind, count, tail @ ..] = rest {
            let length = usize::from(*count) * 4;
            ensure!(tail.len() >= length, "a segment overruns");
            segments
                .push((*kind, tail[..length].chunks_exact(4).map(|asn| u32::from_be_bytes([asn[0], asn[1], asn[2], asn[3]])).collect()));
            rest = &tail[length..];
        }
        ensure!(rest.is_empty(), "an octet is left");
        Ok(segments)
    }
}

fn take_two<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8]> {
    let [high, low, tail @ ..] = *rest else { bail!("a length field is cut") };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    ensure!(tail.len() >= length, "a field of {length} octets overruns the message");
    let (field, after) = tail.split_at(length);
    *rest = after;
    Ok(field)
}

fn read_attributes(mut rest: &[u8]) -> Result<Vec<Attribute>> {
    let mut all = Vec::new();
    while !rest.is_empty() {
        let (flags, code, length, tail) = match rest {
            [flags, code, high, low, tail @ ..] if flags & 0x10 != 0 => {
                (*flags, *code, usize::from(u16::from_be_bytes([*high, *low])), tail)
            }
            [flags, code, length, tail @ ..] if flags & 0x10 == 0 => (*flags, *code, usize::from(*length), tail),
            _ => bail!("an attribute header is cut"),
        };
        ensure!(tail.len() >= length, "attribute {code} overruns");
        all.push(Attribute { flags, code, value: tail[..length].to_vec() });
        rest = &tail[length..];
    }
    Ok(all)
}

fn read_reach(value: &[u8], terms: &Terms) -> Result<(Vec<IpAddr>, Vec<Nlri>)> {
    let [a, b, safi, length, rest @ ..] = value else { bail!("MP_REACH_NLRI is cut") };
    let length = usize::from(*length);
    ensure!(*safi == 1 && rest.len() > length, "MP_REACH_NLRI: SAFI {safi}, next hop of {length} octets");
    let next_hop = match length {
        4 => vec![v4(&rest[..4])],
        16 | 32 => rest[..length].chunks_exact(16).map(v6).collect(),
        _ => bail!("a next hop of {length} octets"),
    };
    Ok((next_hop, nlri(&rest[length + 1..], u16::from_be_bytes([*a, *b]), terms.add_path)?))
}

fn read_unreach(value: &[u8], terms: &Terms) -> Result<(u16, Vec<Nlri>)> {
    let [a, b, 1, rest @ ..] = value else { bail!("MP_UNREACH_NLRI is cut, or no unicast") };
    let afi = u16::from_be_bytes([*a, *b]);
    Ok((afi, nlri(rest, afi, terms.add_path)?))
}

fn nlri(mut rest: &[u8], afi: u16, add_path: bool) -> Result<Vec<Nlri>> {
    let mut all = Vec::new();
    while !rest.is_empty() {
        let id = match rest {
            [a, b, c, d, tail @ ..] if add_path => {
                rest = tail;
                Some(u32::from_be_bytes([*a, *b, *c, *d]))
            }
            _ if add_path => bail!("a path identifier is cut"),
            _ => None,
        };
        let [length, tail @ ..] = rest else { bail!("a prefix is cut") };
        let used = usize::from(*length).div_ceil(8);
        ensure!(tail.len() >= used, "a prefix is cut");
        let mut octets = [0; 16];
        octets[..used.min(16)].copy_from_slice(&tail[..used.min(16)]);
        let address = if afi == 1 { v4(&octets[..4]) } else { v6(&octets) };
        let prefix = IpNet::new(address, *length)?;
        ensure!(prefix == prefix.trunc(), "{prefix} has host bits");
        all.push((prefix, id));
        rest = &tail[used..];
    }
    Ok(all)
}

fn v4(octets: &[u8]) -> IpAddr {
    Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]).into()
}

fn v6(octets: &[u8]) -> IpAddr {
    let mut all = [0; 16];
    all.copy_from_slice(octets);
    Ipv6Addr::from(all).into()
}

#[cfg(test)]
mod tests {
    use super::super::message;
    use super::*;

    const TERMS: Terms = Terms { sender: 64512, internal: false, add_path: false };

    fn read(message: &[u8]) -> Update {
        Update::read(&message[19..], &TERMS).unwrap()
    }

    #[test]
    fn what_is_right_gives_no_complaint() {
        let update = read(&message::announce(&message::basics(64512), &["10.1.0.0/16", "0.0.0.0/0"]));
        assert_eq!(update.complaints, Vec::<String>::new());
        assert_eq!(update.reached.len(), 2);
        assert_eq!(read(&message::update(&[], &[], &[])).end_of_rib, Some(1));
        assert_eq!(read(&message::update(&[], &message::unreach(2, 1, &[]), &[])).end_of_rib, Some(2));
    }

    #[test]
    fn each_fault_is_a_complaint() {
        let with = |extra: Vec<u8>| [message::basics(64512), vec![extra]].concat();
        let faults = [
            with(message::local_pref(100)),
            with(message::attribute(0x40, 8, &[0; 4])),
            with(message::attribute(0xd0, 8, &[0; 4])),
            with(message::attribute(0xc0, 8, &[])),
            with(message::origin(0)),
            message::basics(64513),
            message::basics(64512)[..2].to_vec(),
        ];
        for attributes in faults {
            assert!(!read(&message::announce(&attributes, &["10.1.0.0/16"])).complaints.is_empty(), "{attributes:02x?}");
        }
    }
}
