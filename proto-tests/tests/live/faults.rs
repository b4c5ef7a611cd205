//! Malformed UPDATEs: the structure (U1…) and every attribute's faults (RFC 7606), one peer a row.
//!
//! Each row first announces its prefix in order, then says the same prefix with the fault. What must follow: the session is kept or
//! reset with the right code; if it is kept a canary on the same session still propagates; another session is not disturbed.

use anyhow::{Context, Result, ensure};
use proto_tests::live::daemon::{ASN, external, external_6, internal};
use proto_tests::live::faults::{Fate, MARK, Row, Subject, external_rows, internal_rows, structure};
use proto_tests::live::message::{NEXT_HOP_6, as_path, basics, nlri, origin, reach, unreach, update};
use proto_tests::live::{Daemon, Neighbour, Observer, PeerPlan, Plan, Route, enclosed};

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
    for (number, (row, plan)) in rows.iter().zip(peers).enumerate() {
        match scene.play(number, plan, row) {
            Ok(session) => kept.push(session),
            Err(error) => failures.push(format!("{row:?}: {error:#}")),
        }
        scene.is_undisturbed(number).with_context(|| row.what.clone())?;
    }
    let view = scene.daemon.peer_view(&scene.bystander.plan)?;
    ensure!(view["flaps"] == 0, "the bystander's session was reset: {view}");
    scene.daemon.alive()?;
    ensure!(failures.is_empty(), "{} of {} rows:\n{}", failures.len(), rows.len(), failures.join("\n"));
    Ok(())
}

impl Scene {
    fn play(&mut self, number: usize, plan: &PeerPlan, row: &Row) -> Result<Neighbour> {
        let subject = Subject { asn: plan.asn, hearer: ASN, prefix: format!("10.{number}.0.0/24") };
        let mut session = Neighbour::establish(&self.daemon, plan)?;
        session.send(&subject.before())?;
        self.observer.route(&subject.prefix).context("the good route before the faulty one")?;
        session.send(&row.octets(&subject))?;
        if let Fate::Reset(code, subcode) = row.fate {
            session.expect_notification(code, subcode)?;
            self.observer.no_route(&subject.prefix)?;
            return Ok(session);
        }
        let canary = format!("10.{number}.1.0/24");
        session.send(&update(&[], &subject.unmarked().concat(), &nlri(&[&canary])))?;
        self.observer.route(&canary).context("the canary on the same session")?;
        match row.fate {
            Fate::Announced(lacking) => {
                let key = (subject.prefix.parse()?, None);
                let marked = |route: &Route| route.communities().contains(&MARK);
                self.observer.until("the faulty message counts", |seen| seen.routes.get(&key).is_some_and(marked))?;
                let route = &self.observer.routes[&key];
                ensure!(lacking.iter().all(|code| route.attribute(*code).is_none()), "it was sent on: {:?}", route.attributes);
            }
            Fate::Withdrawn => self.observer.no_route(&subject.prefix)?,
            Fate::Ignored | Fate::Reset(..) => {
                let route = self.observer.route(&subject.prefix)?;
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

#[test]
fn section_7_attributes_from_another_as() {
    enclosed(|| {
        let rows = external_rows();
        play(Plan::default(), &externals(rows.len()), &rows)
    });
}

#[test]
fn section_7_attributes_inside_the_as() {
    enclosed(|| {
        let rows = internal_rows();
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
