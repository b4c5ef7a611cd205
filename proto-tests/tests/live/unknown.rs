//! Attributes that margay does not know, and messages that are nearly full: V5 to V8, V19, U20, U22, U24.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use proto_tests::live::daemon::{ASN, external, internal};
use proto_tests::live::message::{NEXT_HOP, announce, as_path, attribute, basics, local_pref, next_hop, nlri, origin, segment, update};
use proto_tests::live::{Neighbour, Observer, Plan, Route, enclosed};

/// A generator that the same seed repeats.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }

    fn octets(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.roll(256) as u8).collect()
    }
}

/// Codes that margay gives a meaning to.
const KNOWN: [u8; 18] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14, 15, 16, 17, 18, 25, 32, 35];

const LENGTHS: [usize; 7] = [0, 1, 3, 4, 255, 256, 3000];

fn inside_basics() -> Vec<Vec<u8>> {
    vec![origin(0), as_path(&[]), next_hop(NEXT_HOP), local_pref(100)]
}

/// V5 for all that must not reset: everything but the attributes with NLRI inside and unknown well-known ones.
#[test]
fn v5_any_attribute_with_any_flags_and_length_costs_no_session() {
    enclosed(|| {
        let mut daemon = Plan::default().peer(external(0)).peer(external(1)).peer(internal(2)).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[0])?;
        let mut outside = Neighbour::establish(&daemon, &daemon.peers[1])?;
        let mut inside = Neighbour::establish(&daemon, &daemon.peers[2])?;
        let mut dice = Dice(20_260_101);
        let mut said = 0u32;
        for code in 0..=255u8 {
            let unknown = !KNOWN.contains(&code) && code != 0;
            for flags in (0..16u8).map(|high| high << 4) {
                if matches!(code, 14 | 15) || unknown && flags & 0x80 == 0 {
                    continue;
                }
                // Each length for what is known; a roll of the dice for the rest.
                let lengths: &[usize] = if unknown { &[LENGTHS[dice.roll(LENGTHS.len())]] } else { &LENGTHS };
                for length in lengths {
                    let value = dice.octets(*length);
                    let ebgp = dice.roll(2) == 0;
                    let (session, mut attributes) = if ebgp { (&mut outside, basics(64601)) } else { (&mut inside, inside_basics()) };
                    attributes.push(attribute(flags, code, &value));
                    let prefix = Ipv4Addr::from(0x0a00_0000 | said << 4);
                    session.send(&announce(&attributes, &[&format!("{prefix}/28")]))?;
                    said += 1;
                }
            }
        }
        for (number, (session, attributes)) in [(&mut outside, basics(64601)), (&mut inside, inside_basics())].into_iter().enumerate() {
            let canary = format!("11.{number}.0.0/16");
            session.send(&announce(&attributes, &[&canary]))?;
            observer.route(&canary).with_context(|| format!("{said} messages"))?;
        }
        ensure!(observer.routes.len() > 300, "{} of {said} came through", observer.routes.len());
        for plan in &daemon.peers {
            ensure!(daemon.peer_view(plan)?["flaps"] == 0, "a session was reset");
        }
        daemon.alive()
    });
}

/// V5 for what must reset.
#[test]
fn v5_an_unknown_well_known_attribute_resets_with_itself_as_data() {
    enclosed(|| {
        let mut dice = Dice(7);
        let cases: Vec<(u8, u8, usize)> = [11, 19, 20, 23, 26, 28, 40, 99, 128, 254, 255]
            .into_iter()
            .flat_map(|code| [0x00, 0x40].map(|flags| (code, flags, [0, 1, 4, 255, 256, 3000][(code as usize + flags as usize / 64) % 6])))
            .collect();
        let daemon = Plan::default().external(cases.len() as u16).start()?;
        for ((code, flags, length), plan) in cases.iter().zip(&daemon.peers) {
            let mut session = Neighbour::establish(&daemon, plan)?;
            let bad = attribute(*flags, *code, &dice.octets(*length));
            session.send(&announce(&[basics(plan.asn), vec![bad.clone()]].concat(), &["10.0.0.0/8"]))?;
            let data = session.expect_notification(3, 2).with_context(|| format!("{code} {flags:#x} {length}"))?;
            ensure!(data == bad, "{code}: {data:02x?}, wanted {bad:02x?}");
        }
        Ok(())
    });
}

#[test]
fn v6_u20_unknown_transitive_attributes_come_out_byte_identical_with_partial() {
    enclosed(|| {
        let peers = [external(0), internal(1), external(2), internal(3)];
        let daemon = peers.iter().cloned().fold(Plan::default().reflecting(), Plan::peer).start()?;
        let mut observers = [Observer::establish(&daemon, &peers[0])?, Observer::establish(&daemon, &peers[1])?];
        let mut outside = Neighbour::establish(&daemon, &peers[2])?;
        let mut inside = Neighbour::establish(&daemon, &peers[3])?;
        let mut dice = Dice(99);
        // Codes of the accidents of the past among them; longer and longer.
        let codes = [11, 19, 20, 21, 22, 23, 24, 26, 27, 28, 29, 33, 34, 36, 40, 99, 128, 129, 200, 254, 255];
        let lengths = [0, 1, 2, 3, 4, 7, 100, 254, 255, 256, 257, 1000, 2000, 3000, 3800, 3900, 3950, 3970, 3990, 4000, 4010];
        for (number, (code, length)) in codes.into_iter().zip(lengths).enumerate() {
            let value = dice.octets(length);
            // Flags as careless senders have them: extended length where it is not needed, Partial already set, low bits.
            let flags = [0xc0, 0xe0, 0xd0, 0xcf][number % 4];
            for (session, prefix) in [(&mut outside, format!("10.{number}.0.0/24")), (&mut inside, format!("10.{number}.1.0/24"))] {
                let basics = if session.plan.asn == ASN { inside_basics() } else { basics(session.plan.asn) };
                session.send(&announce(&[basics, vec![attribute(flags, code, &value)]].concat(), &[&prefix]))?;
                for observer in &mut observers {
                    let route = observer.route(&prefix).with_context(|| format!("attribute {code} of {length} octets"))?;
                    passed_on(&route, code, &value)?;
                }
            }
        }
        Ok(())
    });
}

fn passed_on(route: &Route, code: u8, value: &[u8]) -> Result<()> {
    let found = route.attributes.iter().find(|attribute| attribute.code == code).with_context(|| format!("{code} is gone"))?;
    ensure!(found.value == value, "{code} was changed: {:02x?}", found.value);
    ensure!(found.flags == if value.len() > 255 { 0xf0 } else { 0xe0 }, "{code}: flags {:#04x}", found.flags);
    Ok(())
}

#[test]
fn u22_routes_that_differ_in_an_unknown_attribute_only() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[0])?;
        let mut session = Neighbour::establish(&daemon, &daemon.peers[1])?;
        for value in [1, 2, 3] {
            let all = [basics(daemon.peers[1].asn), vec![attribute(0xc0, 99, &[value])]].concat();
            session.send(&announce(&all, &["10.1.0.0/16", &format!("10.{}.0.0/16", value + 1)]))?;
        }
        let key = ("10.1.0.0/16".parse()?, None);
        observer.until("the last value", |seen| seen.routes.get(&key).is_some_and(|route| route.has(99, &[3])))?;
        ensure!(observer.route("10.2.0.0/16")?.has(99, &[1]));
        ensure!(observer.route("10.3.0.0/16")?.has(99, &[2]));
        // Many in one message, in disorder, each once.
        let many: Vec<Vec<u8>> = (40..120).rev().map(|code| attribute(0xc0, code, &[code])).collect();
        session.send(&announce(&[many, basics(daemon.peers[1].asn)].concat(), &["10.9.0.0/16"]))?;
        let route = observer.route("10.9.0.0/16")?;
        ensure!((40..120).all(|code| route.has(code, &[code])), "{:?}", route.attributes);
        Ok(())
    });
}

/// V19, P2: what fits us may not fit the next one, since our AS is added.
#[test]
fn v19_p2_attributes_that_fill_the_message() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[0])?;
        let plan = &daemon.peers[1];
        let mut session = Neighbour::establish(&daemon, plan)?;
        let path = as_path(&[plan.asn]);
        let fixed = announce(&[origin(0), path.clone(), next_hop(NEXT_HOP), attribute(0xd0, 99, &[])], &["10.0.0.0/24"]).len();
        let mut expected = Vec::new();
        for total in 4000..=4096usize {
            let number = total - 4000;
            let prefix = format!("10.{number}.0.0/24");
            // It is there before in a form that fits: what no longer fits must be withdrawn.
            session.send(&announce(&basics(plan.asn), &[&prefix]))?;
            let filler = attribute(0xd0, 99, &vec![number as u8; total - fixed]);
            let octets = announce(&[origin(0), path.clone(), next_hop(NEXT_HOP), filler], &[&prefix]);
            ensure!(octets.len() == total, "{} is not {total}", octets.len());
            session.send(&octets)?;
            // Four octets for our AS.
            expected.push((prefix, total + 4 <= 4096));
        }
        let canary = "11.0.0.0/8";
        session.send(&announce(&basics(plan.asn), &[canary]))?;
        observer.route(canary)?;
        for (prefix, fits) in expected {
            if fits {
                let key = (prefix.parse()?, None);
                observer.until(&prefix, |seen| seen.routes.get(&key).is_some_and(|route| route.attribute(99).is_some()))?;
            } else {
                observer.no_route(&prefix)?;
            }
        }
        ensure!(daemon.peer_view(plan)?["flaps"] == 0 && daemon.peer_view(&daemon.peers[0])?["flaps"] == 0);
        Ok(())
    });
}

#[test]
fn u24_v7_long_paths_gain_a_segment() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[0])?;
        let plan = &daemon.peers[1];
        let mut session = Neighbour::establish(&daemon, plan)?;
        for (number, length) in [1usize, 2, 254, 255, 256, 500, 510, 511, 990].into_iter().enumerate() {
            let ases: Vec<u32> = std::iter::once(plan.asn).chain((1..length as u32).map(|n| 100_000 + n)).collect();
            let value: Vec<u8> = ases.chunks(255).flat_map(|chunk| segment(2, chunk)).collect();
            let prefix = format!("10.{number}.0.0/16");
            session.send(&announce(&[origin(0), attribute(0x40, 2, &value), next_hop(NEXT_HOP)], &[&prefix]))?;
            let route = observer.route(&prefix).with_context(|| format!("{length} ASes"))?;
            let wanted: Vec<u32> = std::iter::once(ASN).chain(ases).collect();
            ensure!(route.as_path() == wanted, "{length} ASes: {:?}", route.as_path());
        }
        Ok(())
    });
}

/// V8: AS4_PATH and AS4_AGGREGATOR before what they belong to, and from a speaker that may not send them.
#[test]
fn v8_as4_attributes_in_every_order() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[0])?;
        let plan = &daemon.peers[1];
        let mut session = Neighbour::establish(&daemon, plan)?;
        let four = [
            as_path(&[plan.asn, 70_000]),
            attribute(0xc0, 7, &[0, 1, 0x11, 0x70, 10, 0, 0, 1]),
            attribute(0xc0, 17, &segment(2, &[9, 9])),
            attribute(0xc0, 18, &[0, 0, 0, 9, 10, 0, 0, 9]),
        ];
        let mut orders = 0;
        for a in 0..4 {
            for b in (0..4).filter(|b| *b != a) {
                for c in (0..4).filter(|c| ![a, b].contains(c)) {
                    let d = 6 - a - b - c;
                    let prefix = format!("10.{orders}.0.0/16");
                    let ordered: Vec<Vec<u8>> = [a, b, c, d].map(|index| four[index].clone()).to_vec();
                    let all = [vec![next_hop(NEXT_HOP)], ordered, vec![origin(0)]].concat();
                    session.send(&update(&[], &all.concat(), &nlri(&[&prefix])))?;
                    let route = observer.route(&prefix)?;
                    ensure!(route.as_path() == [ASN, plan.asn, 70_000], "{:?}", route.as_path());
                    ensure!(route.has(7, &four[1][3..]) && route.attribute(17).is_none() && route.attribute(18).is_none());
                    orders += 1;
                }
            }
        }
        ensure!(orders == 24);
        Ok(())
    });
}
