//! OPEN and capabilities: O1 to O11, V1, V2.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail, ensure};
use proto_tests::live::daemon::{ADDRESS, ASN, external, internal};
use proto_tests::live::message::{self, keepalive};
use proto_tests::live::{Daemon, Heard, Neighbour, Observer, Open, PeerPlan, Plan, enclosed};

use super::session::WAIT;

#[test]
fn o1_open_is_sent_at_once_and_says_what_calico_needs() {
    enclosed(|| {
        let daemon = Plan::default().external(1).start()?;
        let mut neighbour = Neighbour::connect(&daemon, &daemon.peers[0])?;
        let Heard::Message(message::OPEN, body) = neighbour.hear(WAIT)? else { bail!("no OPEN") };
        ensure!(body[..9] == [4, 0xfc, 0, 0, 240, 127, 0, 0, 1], "{body:02x?}");
        let capabilities = capabilities(&body[9..])?;
        let value = |code: u8| capabilities.iter().find(|(found, _)| *found == code).map(|(_, value)| value.clone());
        ensure!(value(1) == Some(vec![0, 1, 0, 1]), "IPv4 unicast is the only family: {capabilities:?}");
        ensure!(value(2) == Some(vec![]) && value(70) == Some(vec![]), "refresh, enhanced refresh: {capabilities:?}");
        ensure!(value(65) == Some(ASN.to_be_bytes().to_vec()), "four-octet AS: {capabilities:?}");
        ensure!(value(69) == Some(vec![0, 1, 1, 3]), "ADD-PATH both ways, as Calico's BIRD: {capabilities:?}");
        let restart = value(64).context("graceful restart is always there")?;
        ensure!(restart.len() == 6 && restart[0] & 0x40 != 0 && restart[1] == 120, "N, 120 s, IPv4 unicast: {restart:02x?}");
        Ok(())
    });
}

/// Capabilities of an OPEN's parameters, which begin with their length.
fn capabilities(parameters: &[u8]) -> Result<Vec<(u8, Vec<u8>)>> {
    let mut all = Vec::new();
    let mut rest = parameters.get(1..).context("no length of parameters")?;
    while let [kind, length, tail @ ..] = rest {
        ensure!(*kind == 2, "parameter {kind}");
        let (mut inside, after) = tail.split_at_checked(usize::from(*length)).context("a parameter overruns")?;
        rest = after;
        while let [code, length, tail @ ..] = inside {
            let (value, after) = tail.split_at_checked(usize::from(*length)).context("a capability overruns")?;
            all.push((*code, value.to_vec()));
            inside = after;
        }
    }
    Ok(all)
}

/// What becomes of an OPEN.
enum Fate {
    /// The session comes up.
    Up,
    /// NOTIFICATION: code, subcode, data where it is fixed.
    Refused(u8, u8, Option<Vec<u8>>),
}

struct Case {
    what: String,
    plan: PeerPlan,
    octets: Vec<u8>,
    fate: Fate,
}

/// Each case as its own peer of one margay.
fn try_all(cases: Vec<Case>) -> Result<()> {
    let mut plan = Plan::default();
    plan.peers = cases.iter().map(|case| case.plan.clone()).collect();
    let mut daemon = plan.external(1).start()?;
    let mut observer = Observer::establish(&daemon, &daemon.peers[cases.len()])?;
    for case in &cases {
        attempt(&daemon, case).with_context(|| case.what.clone())?;
    }
    daemon.alive()?;
    // Nothing of this disturbs another session.
    observer.session.send(&keepalive())?;
    ensure!(observer.session.hear(std::time::Duration::from_millis(50))? == Heard::Message(message::UPDATE, vec![0; 4]), "End-of-RIB");
    Ok(())
}

fn attempt(daemon: &Daemon, case: &Case) -> Result<()> {
    let mut neighbour = Neighbour::connect(daemon, &case.plan)?;
    neighbour.send(&[&case.octets[..], &keepalive()].concat())?;
    match &case.fate {
        Fate::Up => drop(neighbour.confirm()?),
        Fate::Refused(code, subcode, wanted) => {
            let data = neighbour.expect_notification(*code, *subcode)?;
            ensure!(wanted.as_ref().is_none_or(|wanted| *wanted == data), "data {data:02x?}, wanted {wanted:02x?}");
        }
    }
    Ok(())
}

/// Cases from a change of a good OPEN.
#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn next(&self) -> PeerPlan {
        external(self.0.len() as u16)
    }

    fn raw(&mut self, what: &str, fate: Fate, octets: impl FnOnce(&PeerPlan) -> Vec<u8>) {
        let plan = self.next();
        let octets = octets(&plan);
        self.0.push(Case { what: what.to_owned(), plan, octets, fate });
    }

    fn open(&mut self, what: &str, fate: Fate, change: impl FnOnce(&mut Open)) {
        self.raw(what, fate, |plan| {
            let mut open = plan.open();
            change(&mut open);
            open.message()
        });
    }
}

fn refused(code: u8, subcode: u8) -> Fate {
    Fate::Refused(code, subcode, None)
}

#[test]
fn o2_each_fault_and_their_order() {
    enclosed(|| {
        let mut cases = Cases::default();
        let broken = [2, 3, 65, 9, 9];
        let unknown = [7, 1, 0];
        cases.raw("no length of parameters", refused(1, 2), |plan| message::message(1, &plan.open().fixed()));
        cases.open("version 3", Fate::Refused(2, 1, Some(vec![0, 4])), |open| open.version = 3);
        cases.raw("parameters do not parse", refused(2, 0), |plan| plan.open().with_parameters(&broken));
        cases.raw("unknown parameter", refused(2, 4), |plan| plan.open().with_parameters(&unknown));
        cases.open("another AS", refused(2, 2), |open| open.capabilities[2].1 = 64999u32.to_be_bytes().to_vec());
        cases.open("hold time 1", refused(2, 6), |open| open.hold = 1);
        cases.open("hold time 2", refused(2, 6), |open| open.hold = 2);
        cases.open("identifier 0.0.0.0", refused(2, 3), |open| open.identifier = Ipv4Addr::UNSPECIFIED);
        let ours = Some(vec![1, 4, 0, 1, 0, 1]);
        cases.open("no common family", Fate::Refused(2, 7, ours), |open| open.capabilities[0].1 = vec![0, 2, 0, 1]);
        // Two faults: the first of the list is answered.
        cases.raw("version, then parameters", refused(2, 1), |plan| Open { version: 5, ..plan.open() }.with_parameters(&broken));
        cases.raw("parameters, then AS", refused(2, 0), |plan| Open { my_as: 1, ..plan.open() }.with_parameters(&broken));
        cases.raw("unknown parameter, then AS", refused(2, 4), |plan| Open { my_as: 1, ..plan.open() }.with_parameters(&unknown));
        cases.open("AS, then hold time", refused(2, 2), |open| (open.hold, open.capabilities[2].1) = (1, vec![0, 0, 0, 9]));
        cases.open("hold time, then identifier", refused(2, 6), |open| (open.hold, open.identifier) = (1, Ipv4Addr::UNSPECIFIED));
        cases.open("identifier, then family", refused(2, 3), |open| {
            (open.identifier, open.capabilities[0].1) = (Ipv4Addr::UNSPECIFIED, vec![0, 2, 0, 1]);
        });
        let plan = internal(900);
        let octets = Open { identifier: ADDRESS, ..plan.open() }.message();
        cases.0.push(Case { what: "iBGP with our identifier".to_owned(), plan, octets, fate: refused(2, 3) });
        try_all(cases.0)
    });
}

#[test]
fn o3_o4_as_numbers_and_identifiers() {
    enclosed(|| {
        let mut cases = Cases::default();
        cases.open("AS 0 in the capability", refused(2, 2), |open| open.capabilities[2].1 = vec![0; 4]);
        cases.open("My AS 0 without capability", refused(2, 2), |open| (open.my_as, open.capabilities) = (0, vec![]));
        cases.open("AS_TRANS without capability", refused(2, 2), |open| (open.my_as, open.capabilities) = (23456, vec![]));
        cases.open("the capability decides alone", Fate::Up, |open| open.my_as = 1);
        cases.open("an old speaker without capabilities", Fate::Up, |open| open.capabilities.clear());
        cases.open("identifier of class E", Fate::Up, |open| open.identifier = Ipv4Addr::new(240, 0, 0, 1));
        cases.open("identifier 255.255.255.255", Fate::Up, |open| open.identifier = Ipv4Addr::BROADCAST);
        cases.open("our identifier on eBGP", Fate::Up, |open| open.identifier = ADDRESS);
        cases.open("hold time 0", Fate::Up, |open| open.hold = 0);
        cases.open("hold time 3", Fate::Up, |open| open.hold = 3);
        cases.open("hold time 65535", Fate::Up, |open| open.hold = 65535);
        try_all(cases.0)
    });
}

#[test]
fn o5_o6_o7_capabilities_in_any_form() {
    enclosed(|| {
        let mut cases = Cases::default();
        let add = |code: u8, value: &'static [u8]| move |open: &mut Open| open.capabilities.push((code, value.to_vec()));
        cases.open("unknown capabilities", Fate::Up, |open| {
            for code in [0, 3, 4, 67, 72, 74, 76, 77, 128, 129, 130, 131, 199, 255] {
                open.capabilities.push((code, vec![1, 2, 3]));
            }
        });
        cases.raw("a parameter each", Fate::Up, |plan| {
            let open = plan.open();
            let each = open
                .capabilities
                .iter()
                .flat_map(|(code, value)| [&[2, value.len() as u8 + 2, *code, value.len() as u8], &value[..]].concat());
            open.with_parameters(&each.collect::<Vec<u8>>())
        });
        cases.raw("an empty parameter", Fate::Up, |plan| plan.open().with_parameters(&[&[2, 0], &plan.open().parameters()[..]].concat()));
        cases.open("repeated alike", Fate::Up, |open| open.capabilities.extend(open.capabilities.clone()));
        cases.open("a second family", Fate::Up, add(1, &[0, 2, 0, 1]));
        cases.open("a family that nobody knows", Fate::Up, add(1, &[64, 5, 0, 77]));
        cases.open("ADD-PATH mode 0 and 9", Fate::Up, add(69, &[0, 1, 1, 0, 0, 2, 1, 9]));
        cases.open("reserved octet of capability 1", Fate::Up, |open| open.capabilities[0].1[2] = 0xff);
        for (code, value) in [
            (1, &[0, 1, 0][..]),
            (1, &[0, 1, 0, 1, 0]),
            (2, &[1]),
            (5, &[0, 1, 0, 1, 0]),
            (6, &[0]),
            (9, &[]),
            (9, &[0, 0]),
            (64, &[]),
            (64, &[0]),
            (64, &[0, 120, 0]),
            (69, &[0, 1, 1]),
            (70, &[0]),
            (71, &[0, 1, 1, 0x80, 0, 0]),
            (73, &[200, b'x']),
            (73, &[]),
            (75, &[255]),
        ] {
            cases.open(&format!("capability {code} of {} octets", value.len()), Fate::Up, add(code, value));
        }
        for length in [0, 1, 2, 3, 5, 8] {
            let what = format!("four-octet AS of {length} octets");
            cases.open(&what, refused(2, 0), |open| open.capabilities[2].1 = vec![0; length]);
        }
        cases.raw("a capability overruns its parameter", refused(2, 0), |plan| {
            let mut parameters = plan.open().parameters();
            parameters.extend([2, 2, 6, 1]);
            plan.open().with_parameters(&parameters)
        });
        cases.raw("a capability of one octet", refused(2, 0), |plan| {
            plan.open().with_parameters(&[&plan.open().parameters()[..], &[2, 1, 6]].concat())
        });
        cases.raw("a parameter overruns the message", refused(2, 0), |plan| {
            plan.open().with_parameters(&[&plan.open().parameters()[..], &[2, 40, 6, 0]].concat())
        });
        try_all(cases.0)
    });
}

#[test]
fn o8_o11_lengths_of_parameters() {
    enclosed(|| {
        let mut cases = Cases::default();
        // RFC 9072: 255 (or any other number but 0), 255, length of two octets; then parameters with lengths of two octets.
        let extended = |plan: &PeerPlan, first: u8, claim: i32, extra: usize| {
            let open = plan.open();
            let mut capabilities = open.parameters()[2..].to_vec();
            for _ in 0..extra {
                capabilities.extend([199, 250]);
                capabilities.extend([7; 250]);
            }
            let parameter = [&[2][..], &(capabilities.len() as u16).to_be_bytes(), &capabilities].concat();
            let length = (parameter.len() as i32 + claim) as u16;
            message::message(1, &[&open.fixed()[..], &[first, 255], &length.to_be_bytes(), &parameter].concat())
        };
        cases.raw("RFC 9072", Fate::Up, |plan| extended(plan, 255, 0, 0));
        cases.raw("RFC 9072, first length 1", Fate::Up, |plan| extended(plan, 1, 0, 0));
        cases.raw("RFC 9072 with 1 KiB of capabilities", Fate::Up, |plan| extended(plan, 255, 0, 4));
        cases.raw("RFC 9072 with 3.5 KiB of capabilities", Fate::Up, |plan| extended(plan, 255, 0, 14));
        cases.raw("RFC 9072, one octet too many", refused(2, 0), |plan| extended(plan, 255, 1, 0));
        cases.raw("RFC 9072, one octet too few", refused(2, 0), |plan| extended(plan, 255, -1, 0));
        cases.raw("RFC 9072 cut in its length", refused(2, 0), |plan| {
            message::message(1, &[&plan.open().fixed()[..], &[255, 255, 0]].concat())
        });
        cases.raw("RFC 9072 without parameters", Fate::Up, |plan| {
            message::message(1, &[&plan.open().fixed()[..], &[255, 255, 0, 0]].concat())
        });
        cases.raw("octets after the parameters", refused(2, 0), |plan| {
            message::message(1, &[&plan.open().fixed()[..], &[0, 2, 0]].concat())
        });
        cases.raw("the length says less than there is", refused(2, 0), |plan| {
            let mut octets = plan.open().message();
            octets[28] -= 1;
            octets
        });
        cases.raw("the length says more than there is", refused(2, 0), |plan| {
            let mut octets = plan.open().message();
            octets[28] += 1;
            octets
        });
        try_all(cases.0)
    });
}

#[test]
fn v1_open_cut_at_every_octet() {
    enclosed(|| {
        let sample = external(0).open().message();
        let daemon = Plan::default().external(2 * sample.len() as u16).start()?;
        let mut peers = daemon.peers.iter();
        for cut in 19..sample.len() {
            for trim in [false, true] {
                let plan = peers.next().context("a peer")?;
                let open = plan.open().message();
                let mut body = open[19..cut].to_vec();
                if trim && body.len() > 9 {
                    // The length of the parameters fits what is left; what is inside does not.
                    body[9] = (body.len() - 10) as u8;
                }
                let mut neighbour = Neighbour::connect(&daemon, plan)?;
                neighbour.send(&[message::message(1, &body), keepalive()].concat())?;
                ends_as_it_may(&mut neighbour).with_context(|| format!("cut at {cut}, {trim}"))?;
            }
        }
        Ok(())
    });
}

#[test]
fn v1_v2_every_length_octet_of_capabilities() {
    enclosed(|| {
        let codes = [1, 2, 5, 6, 9, 64, 65, 69, 70, 71, 73, 75, 77, 200];
        let lengths = [0, 1, 2, 3, 4, 5, 6, 7, 12, 100, 255];
        let daemon = Plan::default().external((codes.len() * lengths.len()) as u16).start()?;
        let mut peers = daemon.peers.iter();
        for code in codes {
            for claimed in lengths {
                let plan = peers.next().context("a peer")?;
                // Eight octets follow, however long the capability says it is.
                let capability = [&[code, claimed][..], &[3; 8]].concat();
                let parameters = [&plan.open().parameters()[..], &[2, capability.len() as u8], &capability].concat();
                let mut neighbour = Neighbour::connect(&daemon, plan)?;
                neighbour.send(&[plan.open().with_parameters(&parameters), keepalive()].concat())?;
                ends_as_it_may(&mut neighbour).with_context(|| format!("capability {code} of {claimed}"))?;
            }
        }
        Ok(())
    });
}

/// 1/2, 2/x, or a session: anything else is wrong.
fn ends_as_it_may(neighbour: &mut Neighbour) -> Result<()> {
    loop {
        match neighbour.hear(WAIT)? {
            Heard::Message(message::OPEN, _) => {}
            Heard::Message(message::KEEPALIVE, _) => return Ok(()),
            Heard::Message(message::NOTIFICATION, body) => {
                ensure!(matches!(body[..2], [1, 2] | [2, 0 | 2 | 4 | 7]), "{body:?}");
                ensure!(neighbour.hear(WAIT)? == Heard::Fin, "no orderly close");
                return Ok(());
            }
            other => bail!("{other:?}"),
        }
    }
}
