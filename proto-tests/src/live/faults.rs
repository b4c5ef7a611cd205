//! Faulty UPDATEs and what must become of each: the structure (U1 to U14) and every attribute's faults (RFC 7606), one row a case.
//! Long because it is a list.
//!
//! `tests/live/faults.rs` plays them against margay, and [`compare::hostile`](crate::compare::hostile) against other speakers as well.

use std::fmt;
use std::net::Ipv4Addr;

use super::daemon::ADDRESS;
use super::message::{
    NEXT_HOP, as_path, attribute, communities, local_pref, next_hop, nlri, origin, reach, segment, unreach, update, update_claiming,
};

/// What must become of a faulty UPDATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It counts, without these attributes.
    Announced(&'static [u8]),
    /// Its prefix is not reached any more: treat-as-withdraw, or a path that may not be used.
    Withdrawn,
    /// Nothing happens.
    Ignored,
    /// The session ends with this NOTIFICATION.
    Reset(u8, u8),
}

/// It counts as it is.
pub const ANNOUNCED: Fate = Fate::Announced(&[]);

/// Who says it, and of which prefix.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its AS.
    pub asn: u32,
    /// The AS of whom it talks to.
    pub hearer: u32,
    /// The prefix.
    pub prefix: String,
}

/// Told by faulty messages only.
pub const MARK: u32 = 0xfc00_0bad;

impl Subject {
    /// Good attributes of a faulty message.
    pub fn good(&self) -> Vec<Vec<u8>> {
        let path = if self.asn == self.hearer { as_path(&[]) } else { as_path(&[self.asn]) };
        let mut all = vec![origin(0), path, next_hop(NEXT_HOP)];
        if self.asn == self.hearer {
            all.push(local_pref(100));
        }
        all.push(communities(&[MARK]));
        all
    }

    /// The good route that comes before the fault: without the mark.
    pub fn before(&self) -> Vec<u8> {
        self.say(&self.unmarked())
    }

    /// Its attributes.
    pub fn unmarked(&self) -> Vec<Vec<u8>> {
        self.good().into_iter().filter(|attribute| attribute[1] != 8).collect()
    }

    fn nlri(&self) -> Vec<u8> {
        nlri(&[&self.prefix])
    }

    fn say(&self, attributes: &[Vec<u8>]) -> Vec<u8> {
        update(&[], &attributes.concat(), &self.nlri())
    }

    /// One attribute more.
    fn with(&self, extra: Vec<u8>) -> Vec<u8> {
        self.say(&[self.good(), vec![extra]].concat())
    }

    /// Without an attribute.
    fn without(&self, code: u8) -> Vec<u8> {
        self.say(&self.good().into_iter().filter(|attribute| attribute[1] != code).collect::<Vec<_>>())
    }

    /// One attribute in place of the good one of its code.
    fn instead(&self, other: Vec<u8>) -> Vec<u8> {
        let code = other[1];
        self.say(&self.good().into_iter().map(|attribute| if attribute[1] == code { other.clone() } else { attribute }).collect::<Vec<_>>())
    }

    /// MP_REACH_NLRI in place of NEXT_HOP and the classic field.
    fn by_mp(&self, reach: Vec<u8>) -> Vec<u8> {
        let mut all = self.good();
        all.retain(|attribute| attribute[1] != 3);
        all.insert(0, reach);
        update(&[], &all.concat(), &[])
    }
}

/// How a subject says it.
type Octets = dyn Fn(&Subject) -> Vec<u8>;

/// One case.
pub struct Row {
    /// What is wrong, in words.
    pub what: String,
    /// What must follow.
    pub fate: Fate,
    /// The RFCs leave a choice, or speakers could not know yet: another fate is no fault of theirs.
    pub choice: bool,
    octets: Box<Octets>,
}

impl Row {
    /// The faulty message.
    pub fn octets(&self, subject: &Subject) -> Vec<u8> {
        (self.octets)(subject)
    }

    fn by_choice(mut self) -> Self {
        self.choice = true;
        self
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {:?}", self.what, self.fate)
    }
}

fn row(what: &str, fate: Fate, octets: impl Fn(&Subject) -> Vec<u8> + 'static) -> Row {
    Row { what: what.to_owned(), fate, choice: false, octets: Box::new(octets) }
}

/// The structure of an UPDATE.
pub fn structure() -> Vec<Row> {
    use Fate::{Ignored, Reset, Withdrawn};
    let bad_origin = || origin(9);
    let prefix_33 = [33, 10, 0, 0, 0, 0];
    let cut = [24, 10, 0];
    let v4 = NEXT_HOP.octets();
    vec![
        row("U1 withdrawn length overruns", Reset(3, 1), |s| update_claiming(200, 0, &[&[], &s.good().concat(), &s.nlri()])),
        row("U1 attributes length overruns", Reset(3, 1), |s| update_claiming(0, 200, &[&[], &s.good().concat(), &s.nlri()])),
        row("U1 attributes length overruns by one", Reset(3, 1), |s| {
            let all = s.good().concat();
            update_claiming(0, all.len() + s.nlri().len() + 1, &[&[], &all, &s.nlri()])
        }),
        row("U2 NLRI of 33 bits", Reset(3, 10), move |s| update(&[], &s.good().concat(), &prefix_33)),
        row("U2 NLRI cut", Reset(3, 10), move |s| update(&[], &s.good().concat(), &cut)),
        row("U2 withdrawn of 33 bits", Reset(3, 10), move |_| update(&prefix_33, &[], &[])),
        row("U2 withdrawn cut", Reset(3, 10), move |_| update(&cut, &[], &[])),
        row("U2 MP_REACH of 33 bits", Reset(3, 9), move |s| s.by_mp(reach(1, 1, &v4, &prefix_33))),
        row("U2 MP_REACH cut", Reset(3, 9), move |s| s.by_mp(reach(1, 1, &v4, &cut))),
        row("U2 MP_UNREACH of 33 bits", Reset(3, 9), move |_| update(&[], &unreach(1, 1, &prefix_33), &[])),
        row("U2 MP_UNREACH cut", Reset(3, 9), move |_| update(&[], &unreach(1, 1, &cut), &[])),
        row("U3 an attribute header of one octet", Withdrawn, |s| s.with(vec![0x40])),
        row("U3 an attribute header of two octets", Withdrawn, |s| s.with(vec![0xc0, 8])),
        row("U3 an extended header cut", Withdrawn, |s| s.with(vec![0xd0, 8, 0])),
        row("U3 an attribute overruns the block", Withdrawn, |s| s.with(vec![0xc0, 99, 20, 1, 2, 3])),
        row("U3 an extended attribute overruns the block", Withdrawn, |s| s.with(vec![0xd0, 99, 0x10, 0, 1])),
        row("U3 a mandatory attribute overruns the block", Withdrawn, |s| {
            let all = [origin(0), as_path(&[s.asn]), communities(&[MARK]), vec![0x40, 3, 9, 192, 0, 2, 66]];
            update(&[], &all.concat(), &s.nlri())
        }),
        row("U4 ORIGIN twice", ANNOUNCED, |s| s.with(origin(2))),
        row("U4 COMMUNITIES twice", ANNOUNCED, |s| s.with(communities(&[1, 2]))),
        row("U4 a faulty second ORIGIN", ANNOUNCED, |s| s.with(origin(9))),
        row("U4 MP_REACH twice", Reset(3, 1), move |s| {
            let one = reach(1, 1, &v4, &s.nlri());
            s.by_mp([one.clone(), one].concat())
        }),
        row("U4 MP_UNREACH twice", Reset(3, 1), |s| {
            let one = unreach(1, 1, &s.nlri());
            update(&[], &[one.clone(), one].concat(), &[])
        }),
        row("U5 no ORIGIN", Withdrawn, |s| s.without(1)),
        row("U5 no AS_PATH", Withdrawn, |s| s.without(2)),
        row("U5 no NEXT_HOP", Withdrawn, |s| s.without(3)),
        row("U5, V4 no attributes at all", Withdrawn, |s| update(&[], &[], &s.nlri())),
        row("U5 MP_REACH without ORIGIN", Withdrawn, move |s| {
            update(&[], &[reach(1, 1, &v4, &s.nlri()), as_path(&[s.asn]), communities(&[MARK])].concat(), &[])
        }),
        row("U6 reset is stronger than withdraw", Reset(3, 1), move |s| {
            let one = reach(1, 1, &v4, &s.nlri());
            update(&[], &[bad_origin(), one.clone(), one].concat(), &[])
        }),
        row("U6 withdraw is stronger than discard", Withdrawn, |s| {
            s.say(&[s.good(), vec![attribute(0xc0, 7, &[1]), attribute(0x80, 4, &[1])]].concat())
        }),
        row("U6 discard before reset", Reset(3, 2), |s| {
            s.say(&[s.good(), vec![attribute(0xc0, 7, &[1]), attribute(0x40, 99, &[1])]].concat())
        }),
        row("U7 a fault without NLRI", Reset(3, 1), |_| update(&[], &origin(9), &[])),
        // RFC 7606 section 5.2 has the session reset where no prefix is announced, since then nothing shows that the prefixes were found;
        // a withdrawn prefix shows it as well.
        row("U7 a fault in a message of withdrawals only", Withdrawn, |s| update(&s.nlri(), &origin(9), &[])).by_choice(),
        row("U8 attributes in reverse order", ANNOUNCED, |s| s.say(&s.good().into_iter().rev().collect::<Vec<_>>())),
        row("U8 extended length on short attributes", ANNOUNCED, |s| s.instead(attribute(0x50, 1, &[0]))),
        row("U8 MP_REACH and classic NLRI", ANNOUNCED, move |s| s.with(reach(1, 1, &v4, &nlri(&["12.0.0.0/8"])))),
        row("U8 MP_UNREACH of another prefix", ANNOUNCED, |s| s.with(unreach(1, 1, &nlri(&["12.0.0.0/8"])))),
        row("U8 withdraw covers MP_REACH", Withdrawn, move |s| {
            let all = [bad_origin(), as_path(&[s.asn]), reach(1, 1, &v4, &s.nlri()), next_hop(NEXT_HOP)];
            update(&[], &all.concat(), &nlri(&["12.0.0.0/8"]))
        }),
        row("U8 a faulty message's own withdrawals happen", Withdrawn, move |s| {
            update(&s.nlri(), &[bad_origin(), as_path(&[s.asn]), next_hop(NEXT_HOP)].concat(), &nlri(&["12.0.0.0/8"]))
        }),
        row("U9 withdrawn and announced in one", ANNOUNCED, |s| update(&s.nlri(), &s.good().concat(), &s.nlri())),
        row("U9 announced twice in one", ANNOUNCED, |s| update(&[], &s.good().concat(), &s.nlri().repeat(3))),
        row("U10 an unknown prefix withdrawn", Ignored, |_| update(&nlri(&["12.99.0.0/16"]), &[], &[])),
        row("U11 IPv6 on an IPv4 session", ANNOUNCED, |s| s.with(reach(2, 1, &[0x20; 16], &nlri(&["2001:db8:9::/48"])))).by_choice(),
        row("U11, U13a garbage of a family not in use", ANNOUNCED, |s| s.with(reach(2, 1, &[0x20; 16], &[200, 1, 2]))).by_choice(),
        row("U11, U13a garbage withdrawn of a family not in use", ANNOUNCED, |s| s.with(unreach(2, 1, &[200, 1]))).by_choice(),
        row("U11 unknown AFI and SAFI", ANNOUNCED, |s| s.with(reach(16388, 71, &[], &[0, 3, 0, 1, 2]))).by_choice(),
        row("U11, V21 VPN NLRI", ANNOUNCED, |s| s.with(reach(1, 128, &[0; 12], &[88, 0, 1]))).by_choice(),
        row("U12 End-of-RIB of IPv4", Ignored, |_| update(&[], &[], &[])),
        row("U12 End-of-RIB of IPv4 in MP_UNREACH", Ignored, |_| update(&[], &unreach(1, 1, &[]), &[])),
        row("U12 End-of-RIB of a family not in use", Ignored, |_| update(&[], &unreach(2, 1, &[]), &[])).by_choice(),
        row("U13 NEXT_HOP beside MP_REACH is ignored", ANNOUNCED, move |s| {
            s.by_mp([reach(1, 1, &v4, &s.nlri()), next_hop(Ipv4Addr::UNSPECIFIED)].concat())
        }),
        row("U13 reserved octet of MP_REACH", ANNOUNCED, move |s| {
            s.by_mp(attribute(0x80, 14, &[&[0, 1, 1, 4][..], &v4, &[77], &s.nlri()].concat()))
        }),
        row("U13a a bad ORIGIN does not move the NLRI", Withdrawn, |s| s.instead(attribute(0x40, 1, &[0, 0, 0, 0]))),
        row("U14 IPv4 in MP_REACH", ANNOUNCED, move |s| s.by_mp(reach(1, 1, &v4, &s.nlri()))),
        row("U14, V22 IPv4 in MP_UNREACH", Withdrawn, |s| update(&[], &unreach(1, 1, &s.nlri()), &[])),
        row("V4 MP_REACH without prefixes", Ignored, move |s| {
            update(&[], &[reach(1, 1, &v4, &[]), origin(0), as_path(&[s.asn])].concat(), &[])
        }),
        row("V4 attributes without prefixes", Ignored, |s| update(&[], &s.good().concat(), &[])),
    ]
}

/// Attributes of a peer in another AS.
pub fn external_rows() -> Vec<Row> {
    let mut rows = flag_rows();
    rows.extend(path_rows());
    rows.extend(value_rows());
    rows.extend(mp_rows());
    rows
}

fn flag_rows() -> Vec<Row> {
    use Fate::Withdrawn;
    let flagged = |code: u8, flags: u8, fate: Fate| {
        row(&format!("attribute {code} with flags {flags:#04x}"), fate, move |s| {
            let value = match code {
                1 => vec![0],
                2 => segment(2, &[s.asn]),
                3 => NEXT_HOP.octets().to_vec(),
                8 => MARK.to_be_bytes().to_vec(),
                16 => vec![0, 2, 0, 0, 0, 0, 0, 1],
                32 => vec![0; 12],
                _ => vec![0, 0, 0, 1],
            };
            let made = attribute(flags, code, &value);
            if code <= 3 || code == 8 { s.instead(made) } else { s.with(made) }
        })
    };
    let mut rows = Vec::new();
    for (code, wrong) in [
        (1, [0x00, 0x80, 0xc0]),
        (2, [0x00, 0x80, 0xc0]),
        (3, [0x00, 0x80, 0xc0]),
        (4, [0x00, 0x40, 0xc0]),
        (8, [0x00, 0x40, 0x80]),
        (16, [0x00, 0x40, 0x80]),
        (32, [0x00, 0x40, 0x80]),
        (35, [0x00, 0x40, 0x80]),
    ] {
        rows.extend(wrong.map(|flags| flagged(code, flags, Withdrawn)).map(|row| if code == 35 { row.by_choice() } else { row }));
    }
    rows.push(flagged(1, 0x60, ANNOUNCED).by_choice());
    rows.push(flagged(2, 0x60, ANNOUNCED).by_choice());
    rows.push(flagged(4, 0xa0, ANNOUNCED).by_choice());
    rows.push(flagged(8, 0xe0, ANNOUNCED));
    rows.push(flagged(1, 0x4f, ANNOUNCED));
    rows.push(flagged(8, 0xcf, ANNOUNCED));
    rows
}

fn path_rows() -> Vec<Row> {
    use Fate::Withdrawn;
    let path = |what: &str, fate: Fate, value: fn(u32) -> Vec<u8>| {
        row(&format!("AS_PATH: {what}"), fate, move |s| s.instead(attribute(0x40, 2, &value(s.asn))))
    };
    vec![
        path("segment type 0", Withdrawn, |asn| [segment(2, &[asn]), segment(0, &[1])].concat()),
        path("segment type 5", Withdrawn, |asn| [segment(2, &[asn]), segment(5, &[1])].concat()),
        path("an empty segment", Withdrawn, |asn| [segment(2, &[asn]), vec![2, 0]].concat()),
        path("an empty segment in front", Withdrawn, |asn| [vec![2, 0], segment(2, &[asn])].concat()),
        path("a segment overruns", Withdrawn, |asn| [segment(2, &[asn]), vec![2, 3, 0, 0, 0, 1]].concat()),
        path("one octet is left", Withdrawn, |asn| [segment(2, &[asn]), vec![2]].concat()),
        path("two-octet ASes on a four-octet session", Withdrawn, |asn| [&[2, 1][..], &(asn as u16).to_be_bytes()].concat()),
        path("AS 0", Withdrawn, |asn| segment(2, &[asn, 0])),
        path("a confederation sequence", Withdrawn, |asn| [segment(3, &[1]), segment(2, &[asn])].concat()),
        path("a confederation set", Withdrawn, |asn| [segment(2, &[asn]), segment(4, &[1])].concat()),
        path("an AS_SET (RFC 9774)", Withdrawn, |asn| [segment(2, &[asn]), segment(1, &[1, 2])].concat()).by_choice(),
        path("the first AS is another's", Withdrawn, |_| segment(2, &[65001])).by_choice(),
        path("empty", Withdrawn, |_| vec![]).by_choice(),
        row("AS_PATH: our AS inside", Withdrawn, |s| s.instead(attribute(0x40, 2, &segment(2, &[s.asn, 65001, s.hearer])))),
        path("255 ASes in a segment", ANNOUNCED, |asn| segment(2, &[asn; 255])),
        path("960 ASes", ANNOUNCED, |asn| {
            [segment(2, &[asn; 255]), segment(2, &[65001; 255]), segment(2, &[65002; 255]), segment(2, &[65003; 195])].concat()
        }),
        path("reserved ASes", ANNOUNCED, |asn| segment(2, &[asn, 23456, 65535, u32::MAX])).by_choice(),
    ]
}

fn value_rows() -> Vec<Row> {
    use Fate::{Announced, Reset, Withdrawn};
    let of_length = |code: u8, flags: u8, length: usize, fate: Fate| {
        row(&format!("attribute {code} of {length} octets"), fate, move |s| {
            let made = attribute(flags, code, &vec![1; length]);
            if code <= 3 || code == 8 { s.instead(made) } else { s.with(made) }
        })
    };
    let mut rows = Vec::new();
    for (code, flags, lengths, fate) in [
        (1, 0x40, &[0, 2, 255][..], Withdrawn),
        (3, 0x40, &[0, 3, 5, 16], Withdrawn),
        (4, 0x80, &[0, 3, 5], Withdrawn),
        (5, 0x40, &[0, 3, 4, 5], Announced(&[5])),
        (6, 0x40, &[1, 4], Announced(&[6])),
        (7, 0xc0, &[0, 6, 7, 9], Announced(&[7])),
        (8, 0xc0, &[0, 3, 5], Withdrawn),
        (9, 0x80, &[0, 3, 4, 5], Announced(&[9])),
        (10, 0x80, &[0, 3, 4, 5], Announced(&[10])),
        (16, 0xc0, &[0, 7, 9], Withdrawn),
        (17, 0xc0, &[0, 3, 6], Announced(&[17])),
        (18, 0xc0, &[0, 7, 8], Announced(&[18])),
        (25, 0xc0, &[0, 8, 21], Withdrawn),
        (32, 0xc0, &[0, 11, 13], Withdrawn),
        (35, 0xc0, &[0, 3, 5], Withdrawn),
        // AIGP, and other optional non-transitive ones that we do not know: dropped, whatever they hold.
        (26, 0x80, &[0, 1, 11], Announced(&[26])),
        (99, 0x80, &[0, 1, 255], Announced(&[99])),
        (0, 0x40, &[0, 1], Announced(&[0])),
        (0, 0xc0, &[0, 1], Announced(&[0])),
        (99, 0xc0, &[0, 1, 255], ANNOUNCED),
        (99, 0x40, &[0, 1, 255], Reset(3, 2)),
        (128, 0x00, &[0, 1], Reset(3, 2)),
    ] {
        // Who does not know these passes them on, or drops them.
        let made = lengths.iter().map(|length| of_length(code, flags, *length, fate));
        rows.extend(made.map(|row| if matches!(code, 0 | 25 | 35) { row.by_choice() } else { row }));
    }
    for value in [3, 4, 255] {
        rows.push(row(&format!("ORIGIN {value}"), Withdrawn, move |s| s.instead(origin(value))));
    }
    for text in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"] {
        let address = text.parse().expect("an address");
        rows.push(row(&format!("NEXT_HOP {text}"), Withdrawn, move |s| s.instead(next_hop(address))).by_choice());
    }
    rows.push(row("NEXT_HOP is our own address", Withdrawn, |s| s.instead(attribute(0x40, 3, &[192, 0, 2, 1]))).by_choice());
    // As in Calico's BIRD such a route stays, as unreachable.
    rows.push(row("NEXT_HOP resolves to nothing", ANNOUNCED, |s| s.instead(attribute(0x40, 3, &[203, 0, 113, 9]))).by_choice());
    rows.push(row("AGGREGATOR with AS 0", Announced(&[7]), |s| s.with(attribute(0xc0, 7, &[0, 0, 0, 0, 10, 0, 0, 1]))));
    rows.push(row("AS4_AGGREGATOR with AS 0", Announced(&[18]), |s| s.with(attribute(0xc0, 18, &[0; 8]))));
    rows.push(row("LARGE_COMMUNITIES twice the same", ANNOUNCED, |s| s.with(attribute(0xc0, 32, &[7; 24]))));
    rows
}

fn mp_rows() -> Vec<Row> {
    use Fate::{Reset, Withdrawn};
    let mut rows = Vec::new();
    for length in 0..5 {
        rows.push(row(&format!("MP_REACH of {length} octets"), Reset(3, 9), move |s| {
            s.with(attribute(0x80, 14, &[0, 1, 1, 0][..length.min(4)]))
        }));
    }
    for length in 0..3 {
        rows.push(row(&format!("MP_UNREACH of {length} octets"), Reset(3, 9), move |s| s.with(attribute(0x80, 15, &[0, 1, 1][..length]))));
    }
    for length in [0, 3, 5, 8, 16, 32] {
        let fate = Reset(3, 9);
        rows.push(row(&format!("MP_REACH of IPv4 with a next hop of {length} octets"), fate, move |s| {
            s.by_mp(reach(1, 1, &vec![0x20; length], &s.nlri()))
        }));
    }
    rows.push(row("MP_REACH: the next hop overruns", Reset(3, 9), |s| s.by_mp(attribute(0x80, 14, &[0, 1, 1, 40, 192, 0, 2, 66]))));
    for text in ["0.0.0.0", "127.0.0.1", "224.0.0.1"] {
        let address: Ipv4Addr = text.parse().expect("an address");
        rows.push(
            row(&format!("MP_REACH of IPv4 by {text}"), Withdrawn, move |s| s.by_mp(reach(1, 1, &address.octets(), &s.nlri()))).by_choice(),
        );
    }
    for (code, flags) in [(14, 0x40), (14, 0xc0), (15, 0xc0)] {
        rows.push(row(&format!("attribute {code} with flags {flags:#04x}"), Withdrawn, move |s| {
            let mut made = if code == 14 { reach(1, 1, &NEXT_HOP.octets(), &s.nlri()) } else { unreach(1, 1, &nlri(&["12.0.0.0/8"])) };
            made[0] = flags;
            if code == 14 { s.by_mp(made) } else { s.with(made) }
        }));
    }
    rows
}

/// Rows of a peer in our AS.
pub fn internal_rows() -> Vec<Row> {
    use Fate::{Announced, Reset, Withdrawn};
    let cluster = [10, 7, 0, 1];
    vec![
        row("LOCAL_PREF missing (U5)", ANNOUNCED, |s| s.without(5)),
        row("LOCAL_PREF of 3 octets", Withdrawn, |s| s.instead(attribute(0x40, 5, &[0; 3]))),
        row("LOCAL_PREF of 0 octets", Withdrawn, |s| s.instead(attribute(0x40, 5, &[]))),
        row("LOCAL_PREF as optional", Withdrawn, |s| s.instead(attribute(0xc0, 5, &[0; 4]))),
        row("ORIGINATOR_ID of 3 octets", Withdrawn, |s| s.with(attribute(0x80, 9, &[1; 3]))),
        row("ORIGINATOR_ID is ours", Withdrawn, |s| s.with(attribute(0x80, 9, &ADDRESS.octets()))),
        row("ORIGINATOR_ID of another", Announced(&[9]), |s| s.with(attribute(0x80, 9, &[10, 0, 0, 9]))),
        row("CLUSTER_LIST of 0 octets", Withdrawn, |s| s.with(attribute(0x80, 10, &[]))),
        row("CLUSTER_LIST of 5 octets", Withdrawn, |s| s.with(attribute(0x80, 10, &[1; 5]))),
        row("CLUSTER_LIST with our cluster", Withdrawn, move |s| s.with(attribute(0x80, 10, &[&[1; 4][..], &cluster].concat()))),
        row("CLUSTER_LIST of others", Announced(&[10]), |s| s.with(attribute(0x80, 10, &[1; 12]))),
        row("AS_PATH with our AS", Withdrawn, |s| s.instead(as_path(&[65001, s.hearer]))),
        row("AS_PATH that begins with any AS", ANNOUNCED, |s| s.instead(as_path(&[65001, 65002]))),
        row("AS_PATH with a confederation segment", Withdrawn, |s| s.instead(attribute(0x40, 2, &segment(3, &[65001])))),
        row("ORIGIN 3", Withdrawn, |s| s.instead(origin(3))),
        row("COMMUNITIES of 5 octets", Withdrawn, |s| s.instead(attribute(0xc0, 8, &[0; 5]))),
        row("unknown well-known", Reset(3, 2), |s| s.with(attribute(0x40, 99, &[1]))),
        row("MP_REACH twice", Reset(3, 1), |s| {
            let one = reach(1, 1, &NEXT_HOP.octets(), &s.nlri());
            s.by_mp([one.clone(), one].concat())
        }),
    ]
}
