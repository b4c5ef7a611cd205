//! Malformed UPDATEs: the structure (U1…) and every attribute's faults (RFC 7606), one peer a row.
//!
//! Each row first announces its prefix in order, then says the same prefix with the fault. What must follow: the session is kept or
//! reset with the right code; if it is kept a canary on the same session still propagates; another session is not disturbed.

use anyhow::{Context, Result, ensure};
use proto_tests::live::daemon::{ADDRESS, ASN, external, external_6, internal};
use proto_tests::live::message::{
    NEXT_HOP, NEXT_HOP_6, as_path, attribute, basics, communities, local_pref, next_hop, nlri, origin, reach, segment, unreach, update,
    update_claiming,
};
use proto_tests::live::{Daemon, Neighbour, Observer, PeerPlan, Plan, Route, enclosed};

/// What must become of a faulty UPDATE.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It counts, without these attributes.
    Announced(&'static [u8]),
    /// Its prefix is not reached any more: treat-as-withdraw, or a path that may not be used.
    Withdrawn,
    /// Nothing happens.
    Ignored,
    /// The session ends with this NOTIFICATION.
    Reset(u8, u8),
}

const ANNOUNCED: Fate = Fate::Announced(&[]);

/// Who says it, and of which prefix.
struct Speaker {
    asn: u32,
    internal: bool,
    prefix: String,
}

/// Told by faulty messages only.
const MARK: u32 = 0xfc00_0bad;

impl Speaker {
    /// Good attributes of a faulty message.
    fn good(&self) -> Vec<Vec<u8>> {
        let path = if self.internal { as_path(&[]) } else { as_path(&[self.asn]) };
        let mut all = vec![origin(0), path, next_hop(NEXT_HOP)];
        if self.internal {
            all.push(local_pref(100));
        }
        all.push(communities(&[MARK]));
        all
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

type Row = (String, Fate, Box<dyn Fn(&Speaker) -> Vec<u8>>);

fn row(what: &str, fate: Fate, octets: impl Fn(&Speaker) -> Vec<u8> + 'static) -> Row {
    (what.to_owned(), fate, Box::new(octets))
}

/// The observer, the bystander, and margay.
struct Scene {
    daemon: Daemon,
    observer: Observer,
    bystander: Neighbour,
}

/// Plays all rows against one margay; tells every row that fails.
fn play(plan: Plan, peers: &[PeerPlan], rows: &[Row]) -> Result<()> {
    let mut all = plan;
    all.peers = peers.to_vec();
    let daemon = all.external(2).start()?;
    let [.., observer, bystander] = &daemon.peers[..] else { unreachable!("two more peers") };
    let observer = Observer::establish(&daemon, observer)?;
    let mut bystander = Neighbour::establish(&daemon, bystander)?;
    bystander.send(&update(&[], &basics(bystander.plan.asn).concat(), &nlri(&["11.255.0.0/16"])))?;
    let mut scene = Scene { daemon, observer, bystander };
    scene.observer.route("11.255.0.0/16")?;
    let mut failures = Vec::new();
    let mut kept = Vec::new();
    for (number, ((what, fate, octets), plan)) in rows.iter().zip(peers).enumerate() {
        match scene.play(number, plan, *fate, octets) {
            Ok(session) => kept.push(session),
            Err(error) => failures.push(format!("{what} → {fate:?}: {error:#}")),
        }
        scene.is_undisturbed(number).with_context(|| what.clone())?;
    }
    let view = scene.daemon.peer_view(&scene.bystander.plan)?;
    ensure!(view["flaps"] == 0, "the bystander's session was reset: {view}");
    scene.daemon.alive()?;
    ensure!(failures.is_empty(), "{} of {} rows:\n{}", failures.len(), rows.len(), failures.join("\n"));
    Ok(())
}

impl Scene {
    fn play(&mut self, number: usize, plan: &PeerPlan, fate: Fate, octets: &dyn Fn(&Speaker) -> Vec<u8>) -> Result<Neighbour> {
        let speaker = Speaker { asn: plan.asn, internal: plan.asn == ASN, prefix: format!("10.{number}.0.0/24") };
        let mut session = Neighbour::establish(&self.daemon, plan)?;
        let good: Vec<Vec<u8>> = speaker.good().into_iter().filter(|attribute| attribute[1] != 8).collect();
        session.send(&speaker.say(&good))?;
        self.observer.route(&speaker.prefix).context("the good route before the faulty one")?;
        session.send(&octets(&speaker))?;
        if let Fate::Reset(code, subcode) = fate {
            session.expect_notification(code, subcode)?;
            self.observer.no_route(&speaker.prefix)?;
            return Ok(session);
        }
        let canary = format!("10.{number}.1.0/24");
        session.send(&update(&[], &good.concat(), &nlri(&[&canary])))?;
        self.observer.route(&canary).context("the canary on the same session")?;
        match fate {
            Fate::Announced(lacking) => {
                let key = (speaker.prefix.parse()?, None);
                let marked = |route: &Route| route.communities().contains(&MARK);
                self.observer.until("the faulty message counts", |seen| seen.routes.get(&key).is_some_and(marked))?;
                let route = &self.observer.routes[&key];
                ensure!(lacking.iter().all(|code| route.attribute(*code).is_none()), "it was sent on: {:?}", route.attributes);
            }
            Fate::Withdrawn => self.observer.no_route(&speaker.prefix)?,
            Fate::Ignored | Fate::Reset(..) => {
                let route = self.observer.route(&speaker.prefix)?;
                ensure!(route.told == 1, "told {} times", route.told);
            }
        }
        Ok(session)
    }

    /// Another session lives, its route was never touched, and its new routes propagate.
    fn is_undisturbed(&mut self, number: usize) -> Result<()> {
        let canary = format!("11.{number}.0.0/24");
        self.bystander.send(&update(&[], &basics(self.bystander.plan.asn).concat(), &nlri(&[&canary])))?;
        self.observer.route(&canary).context("the canary on another session")?;
        let first = self.observer.route("11.255.0.0/16")?;
        ensure!(first.told == 1, "a route of another session was told {} times", first.told);
        Ok(())
    }
}

fn externals(count: usize) -> Vec<PeerPlan> {
    (0..count as u16).map(external).collect()
}

#[test]
fn u1_to_u14_structure() {
    enclosed(|| {
        let rows = structure();
        play(Plan::default(), &externals(rows.len()), &rows)
    });
}

fn structure() -> Vec<Row> {
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
        row("U7 a fault in a message of withdrawals only", Withdrawn, |s| update(&s.nlri(), &origin(9), &[])),
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
        row("U11 IPv6 on an IPv4 session", ANNOUNCED, |s| s.with(reach(2, 1, &[0x20; 16], &nlri(&["2001:db8:9::/48"])))),
        row("U11, U13a garbage of a family not in use", ANNOUNCED, |s| s.with(reach(2, 1, &[0x20; 16], &[200, 1, 2]))),
        row("U11, U13a garbage withdrawn of a family not in use", ANNOUNCED, |s| s.with(unreach(2, 1, &[200, 1]))),
        row("U11 unknown AFI and SAFI", ANNOUNCED, |s| s.with(reach(16388, 71, &[], &[0, 3, 0, 1, 2]))),
        row("U11, V21 VPN NLRI", ANNOUNCED, |s| s.with(reach(1, 128, &[0; 12], &[88, 0, 1]))),
        row("U12 End-of-RIB of IPv4", Ignored, |_| update(&[], &[], &[])),
        row("U12 End-of-RIB of IPv4 in MP_UNREACH", Ignored, |_| update(&[], &unreach(1, 1, &[]), &[])),
        row("U12 End-of-RIB of a family not in use", Ignored, |_| update(&[], &unreach(2, 1, &[]), &[])),
        row("U13 NEXT_HOP beside MP_REACH is ignored", ANNOUNCED, move |s| {
            s.by_mp([reach(1, 1, &v4, &s.nlri()), next_hop(std::net::Ipv4Addr::UNSPECIFIED)].concat())
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

#[test]
fn section_7_attributes_from_another_as() {
    enclosed(|| {
        let rows = external_rows();
        play(Plan::default(), &externals(rows.len()), &rows)
    });
}

fn external_rows() -> Vec<Row> {
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
        rows.extend(wrong.map(|flags| flagged(code, flags, Withdrawn)));
    }
    rows.push(flagged(1, 0x60, ANNOUNCED));
    rows.push(flagged(2, 0x60, ANNOUNCED));
    rows.push(flagged(4, 0xa0, ANNOUNCED));
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
        path("an AS_SET (RFC 9774)", Withdrawn, |asn| [segment(2, &[asn]), segment(1, &[1, 2])].concat()),
        path("the first AS is another's", Withdrawn, |_| segment(2, &[65001])),
        path("empty", Withdrawn, |_| vec![]),
        path("our AS inside", Withdrawn, |asn| segment(2, &[asn, 65001, ASN])),
        path("255 ASes in a segment", ANNOUNCED, |asn| segment(2, &[asn; 255])),
        path("960 ASes", ANNOUNCED, |asn| {
            [segment(2, &[asn; 255]), segment(2, &[65001; 255]), segment(2, &[65002; 255]), segment(2, &[65003; 195])].concat()
        }),
        path("reserved ASes", ANNOUNCED, |asn| segment(2, &[asn, 23456, 65535, u32::MAX])),
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
        rows.extend(lengths.iter().map(|length| of_length(code, flags, *length, fate)));
    }
    for value in [3, 4, 255] {
        rows.push(row(&format!("ORIGIN {value}"), Withdrawn, move |s| s.instead(origin(value))));
    }
    for text in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"] {
        let address = text.parse().expect("an address");
        rows.push(row(&format!("NEXT_HOP {text}"), Withdrawn, move |s| s.instead(next_hop(address))));
    }
    rows.push(row("NEXT_HOP is our own address", Withdrawn, |s| s.instead(attribute(0x40, 3, &[192, 0, 2, 1]))));
    // As in Calico's BIRD such a route stays, as unreachable.
    rows.push(row("NEXT_HOP resolves to nothing", ANNOUNCED, |s| s.instead(attribute(0x40, 3, &[203, 0, 113, 9]))));
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
        let address: std::net::Ipv4Addr = text.parse().expect("an address");
        rows.push(row(&format!("MP_REACH of IPv4 by {text}"), Withdrawn, move |s| s.by_mp(reach(1, 1, &address.octets(), &s.nlri()))));
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

#[test]
fn section_7_attributes_inside_the_as() {
    enclosed(|| {
        use Fate::{Announced, Reset, Withdrawn};
        let cluster = [10, 7, 0, 1];
        let rows = vec![
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
            row("AS_PATH with our AS", Withdrawn, |s| s.instead(as_path(&[65001, ASN]))),
            row("AS_PATH that begins with any AS", ANNOUNCED, |s| s.instead(as_path(&[65001, 65002]))),
            row("AS_PATH with a confederation segment", Withdrawn, |s| s.instead(attribute(0x40, 2, &segment(3, &[65001])))),
            row("ORIGIN 3", Withdrawn, |s| s.instead(origin(3))),
            row("COMMUNITIES of 5 octets", Withdrawn, |s| s.instead(attribute(0xc0, 8, &[0; 5]))),
            row("unknown well-known", Reset(3, 2), |s| s.with(attribute(0x40, 99, &[1]))),
            row("MP_REACH twice", Reset(3, 1), |s| {
                let one = reach(1, 1, &NEXT_HOP.octets(), &s.nlri());
                s.by_mp([one.clone(), one].concat())
            }),
        ];
        let peers: Vec<PeerPlan> = (0..rows.len() as u16).map(internal).collect();
        play(Plan::default().reflecting(), &peers, &rows)
    });
}

#[test]
fn u10_host_bits_are_masked_and_length_0_is_the_default_route() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[0])?;
        let mut session = Neighbour::establish(&daemon, &daemon.peers[1])?;
        let attributes = basics(daemon.peers[1].asn).concat();
        session.send(&update(&[], &attributes, &[20, 10, 1, 0x1f, 9, 10, 0xff, 0, 32, 10, 9, 9, 9]))?;
        for prefix in ["10.1.16.0/20", "10.128.0.0/9", "0.0.0.0/0", "10.9.9.9/32"] {
            observer.route(prefix)?;
        }
        // Withdrawn with other host bits.
        session.send(&update(&[20, 10, 1, 0x10, 0], &[], &[]))?;
        observer.no_route("10.1.16.0/20")?;
        observer.no_route("0.0.0.0/0")
    });
}

#[test]
fn m1_martians_cost_nothing_and_go_nowhere() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[0])?;
        let mut session = Neighbour::establish(&daemon, &daemon.peers[1])?;
        let martians = [
            "0.1.0.0/16",
            "127.0.0.0/8",
            "127.9.0.0/16",
            "169.254.0.0/16",
            "169.254.1.1/32",
            "224.0.0.0/4",
            "239.0.0.0/8",
            "240.0.0.0/4",
            "255.255.255.255/32",
        ];
        // Our own addresses (M2).
        let ours = ["192.0.2.1/32", "127.0.0.1/32"];
        let good = ["100.64.0.0/10", "192.168.0.0/16", "172.16.0.0/12"];
        for list in [&martians[..], &ours, &good] {
            session.send(&update(&[], &basics(daemon.peers[1].asn).concat(), &nlri(list)))?;
        }
        good.iter().try_for_each(|prefix| observer.route(prefix).map(drop))?;
        ensure!(observer.routes.len() == good.len(), "{:?}", observer.routes.keys());
        // D2: our own subnet is not what a peer says of it.
        session.send(&update(&[], &basics(daemon.peers[1].asn).concat(), &nlri(&["192.0.2.0/24", "10.0.0.0/8"])))?;
        observer.route("10.0.0.0/8")?;
        let answer = daemon.api("/v1/explain?prefix=192.0.2.0/24")?;
        let candidates = answer["candidates"].as_array().context("candidates")?;
        let refused = |path: &serde_json::Value| path["source"] == "peer" && path["best"] == false;
        ensure!(candidates.len() == 2 && candidates.iter().any(refused), "{answer}");
        Ok(())
    });
}

#[test]
fn n1_n2_n10_next_hops_of_ipv6() {
    enclosed(|| {
        let global = NEXT_HOP_6.octets();
        let link_local = "fe80::5".parse::<std::net::Ipv6Addr>()?.octets();
        let pair = |first: [u8; 16], second: [u8; 16]| [first, second].concat();
        let address = |text: &str| text.parse::<std::net::Ipv6Addr>().expect("an address").octets().to_vec();
        let good = [
            ("global", global.to_vec()),
            ("global and link-local", pair(global, link_local)),
            ("two globals", pair(global, global)),
            ("one that resolves to nothing: unreachable, but told", address("3fff::1")),
        ];
        let useless = [
            ("unspecified", address("::")),
            ("loopback", address("::1")),
            ("multicast", address("ff02::1")),
            ("our own", address("2001:db8:2::1")),
        ];
        let lengths = [0, 4, 8, 15, 17, 24, 31, 33, 48];
        let count = good.len() + useless.len() + lengths.len();
        let mut plan = Plan::default().peer(external_6(0x0a));
        for number in 0..count as u16 {
            plan = plan.peer(external_6(0x0b + number));
        }
        let daemon = plan.start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[0])?;
        let mut kept = Vec::new();
        let mut peers = daemon.peers[1..].iter();
        let mut tell = |next_hop: &[u8], number: usize| -> Result<(Neighbour, String)> {
            let plan = peers.next().context("a peer")?;
            let prefix = format!("2001:db8:{number:x}00::/48");
            let mut session = Neighbour::establish(&daemon, plan)?;
            let attributes = [reach(2, 1, next_hop, &nlri(&[&prefix])), origin(0), as_path(&[plan.asn])].concat();
            session.send(&update(&[], &attributes, &[]))?;
            Ok((session, prefix))
        };
        for (number, (what, next_hop)) in good.iter().enumerate() {
            let (session, prefix) = tell(next_hop, number + 1)?;
            let route = observer.route(&prefix).with_context(|| (*what).to_owned())?;
            // eBGP: ourselves, in 16 octets, since no link is shared (N4).
            ensure!(route.next_hop == [std::net::IpAddr::from(proto_tests::live::daemon::ADDRESS_6)], "{what}: {:?}", route.next_hop);
            kept.push(session);
        }
        for (number, (what, next_hop)) in useless.iter().enumerate() {
            let (mut session, prefix) = tell(next_hop, 0x20 + number)?;
            let canary = format!("2001:db8:{number:x}ff::/48");
            session.send(&update(
                &[],
                &[reach(2, 1, &global, &nlri(&[&canary])), origin(0), as_path(&[session.plan.asn])].concat(),
                &[],
            ))?;
            observer.route(&canary).with_context(|| (*what).to_owned())?;
            ensure!(!observer.knows(&prefix), "{what} was propagated");
            kept.push(session);
        }
        for (number, length) in lengths.into_iter().enumerate() {
            let (mut session, _) = tell(&vec![0x20; length], 0x40 + number)?;
            session.expect_notification(3, 9).with_context(|| format!("a next hop of {length} octets"))?;
        }
        // Classic fields mean IPv4, which is not in use here (U11); End-of-RIB of either form is known.
        let session = kept.first_mut().context("a session")?;
        session.send(&update(&nlri(&["10.1.0.0/16"]), &basics(session.plan.asn).concat(), &nlri(&["10.2.0.0/16"])))?;
        session.send(&[update(&[], &[], &[]), update(&[], &unreach(2, 1, &[]), &[])].concat())?;
        session.send(&update(&[], &unreach(2, 1, &nlri(&["2001:db8:100::/48"])), &[]))?;
        observer.no_route("2001:db8:100::/48")
    });
}
