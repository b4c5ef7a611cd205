//! What margay says of what it learned: section 10, ADD-PATH, refresh, limits.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use proto_tests::lab::process::wait_until;
use proto_tests::live::daemon::{ADDRESS, ASN, external, internal};
use proto_tests::live::message::{
    NEXT_HOP, announce, as_path, attribute, basics, communities, local_pref, next_hop, nlri_with_ids, origin, refresh, update, withdraw,
};
use proto_tests::live::{Heard, Neighbour, Observer, Plan, enclosed};

use super::session::WAIT;

fn inside(path: &[u32]) -> Vec<Vec<u8>> {
    vec![origin(0), as_path(path), next_hop(NEXT_HOP), local_pref(200)]
}

#[test]
fn u12_e10_the_table_then_end_of_rib() {
    enclosed(|| {
        let daemon = Plan::default().external(4).start()?;
        let mut feeder = Neighbour::establish(&daemon, &daemon.peers[0])?;
        let mut first = Observer::establish(&daemon, &daemon.peers[1])?;
        first.until("End-of-RIB of an empty table", |seen| seen.ends == [1])?;
        ensure!(first.updates == 1, "nothing else is told");
        for number in 0..200 {
            feeder.send(&announce(&basics(64600), &[&format!("10.{number}.0.0/16")]))?;
        }
        first.until("200 routes", |seen| seen.routes.len() == 200)?;
        let mut second = Observer::establish(&daemon, &daemon.peers[2])?;
        second.until("End-of-RIB", |seen| !seen.ends.is_empty())?;
        ensure!(second.routes.len() == 200, "{} routes before End-of-RIB", second.routes.len());
        // A second peer announces the same: nobody is told what does not change, and nothing is withdrawn (D4).
        let mut rival = Neighbour::establish(&daemon, &daemon.peers[3])?;
        rival.send(&announce(&[origin(0), as_path(&[64603, 65001]), next_hop(NEXT_HOP)], &["10.0.0.0/16"]))?;
        // Words of two peers have no order between them: the rival's next word tells that its first has been heard.
        rival.send(&announce(&[origin(0), as_path(&[64603, 65001]), next_hop(NEXT_HOP)], &["98.0.0.0/16"]))?;
        second.route("98.0.0.0/16")?;
        feeder.send(&withdraw(&["10.0.0.0/16"]))?;
        let key = ("10.0.0.0/16".parse()?, None);
        let from_rival = |seen: &Observer| seen.routes.get(&key).is_some_and(|route| route.as_path() == [ASN, 64603, 65001]);
        second.until("the backup", from_rival)?;
        ensure!(second.withdrawals.is_empty(), "D4: the backup comes without a withdrawal between");
        // E10: what was never told is not withdrawn.
        feeder.send(&withdraw(&["10.250.0.0/16", "99.0.0.0/8"]))?;
        feeder.send(&withdraw(&["10.1.0.0/16"]))?;
        second.no_route("10.1.0.0/16")?;
        ensure!(second.withdrawals.len() == 1, "{:?}", second.withdrawals);
        ensure!(second.ends == [1], "End-of-RIB once");
        Ok(())
    });
}

#[test]
fn e1_nothing_goes_back_to_where_it_came_from() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let mut feeder = Observer::establish(&daemon, &daemon.peers[0])?;
        let mut other = Observer::establish(&daemon, &daemon.peers[1])?;
        feeder.announce("10.1.0.0/16")?;
        other.route("10.1.0.0/16")?;
        other.announce("10.2.0.0/16")?;
        feeder.route("10.2.0.0/16")?;
        ensure!(!feeder.knows("10.1.0.0/16") && !other.knows("10.2.0.0/16"), "split horizon");
        // The other one becomes best for the first one's prefix: the first is told, and is told again when that ends.
        other.session.send(&announce(&[origin(0), as_path(&[64601]), next_hop(NEXT_HOP)], &["10.1.0.0/16"]))?;
        feeder.session.send(&announce(&[origin(0), as_path(&[64600, 65001]), next_hop(NEXT_HOP)], &["10.1.0.0/16"]))?;
        feeder.route("10.1.0.0/16")?;
        other.no_route("10.1.0.0/16")?;
        other.session.send(&withdraw(&["10.1.0.0/16"]))?;
        feeder.no_route("10.1.0.0/16")?;
        other.route("10.1.0.0/16").map(drop)
    });
}

#[test]
fn e2_e3_attributes_across_and_inside_the_as() {
    enclosed(|| {
        let peers = [external(0), internal(1), external(2), internal(3)];
        let daemon = peers.iter().cloned().fold(Plan::default(), Plan::peer).start()?;
        let mut outside = Observer::establish(&daemon, &peers[0])?;
        let mut within = Observer::establish(&daemon, &peers[1])?;
        let mut external = Neighbour::establish(&daemon, &peers[2])?;
        let mut internal = Neighbour::establish(&daemon, &peers[3])?;
        let extra = || {
            vec![
                attribute(0x80, 4, &[0, 0, 0, 77]),
                communities(&[0x0001_0002, 0xffff_0007, 0x0001_0001]),
                // One transitive extended community, one not.
                attribute(0xc0, 16, &[0, 2, 0, 1, 0, 0, 0, 1, 0x40, 2, 0, 1, 0, 0, 0, 2]),
                attribute(0xc0, 32, &[0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 2]),
                attribute(0x40, 6, &[]),
                attribute(0xc0, 7, &[0, 0, 0xfd, 0xe8, 10, 0, 0, 1]),
            ]
        };
        let path = vec![origin(2), as_path(&[64602, 65001]), next_hop(NEXT_HOP)];
        external.send(&announce(&[path, extra(), vec![local_pref(999)]].concat(), &["10.1.0.0/16"]))?;
        internal.send(&announce(&[inside(&[65001]), extra()].concat(), &["10.2.0.0/16"]))?;
        let same = [(8, &extra()[1][3..]), (32, &extra()[3][3..]), (6, &[]), (7, &extra()[5][3..])].map(|(c, v)| (c, v.to_vec()));

        for (prefix, path) in [("10.1.0.0/16", vec![ASN, 64602, 65001]), ("10.2.0.0/16", vec![ASN, 65001])] {
            let route = outside.route(prefix)?;
            ensure!(route.as_path() == path, "E2: {:?}", route.as_path());
            ensure!(route.attribute(4).is_none(), "E2: a MED of another AS is not told");
            ensure!(route.has(16, &extra()[2][3..11]), "E2: {:02x?}", route.attribute(16));
            ensure!(route.next_hop == [IpAddr::from(ADDRESS)], "N5: {:?}", route.next_hop);
            // E9: as received, in order and with duplicates, if there were any.
            for (code, value) in &same {
                ensure!(route.has(*code, value), "E9: {code}");
            }
        }
        let route = within.route("10.1.0.0/16")?;
        ensure!(route.as_path() == [64602, 65001], "E3: {:?}", route.as_path());
        ensure!(route.has(5, &100u32.to_be_bytes()), "E3: LOCAL_PREF of another AS counts for nothing: {:?}", route.attribute(5));
        ensure!(route.has(4, &[0, 0, 0, 77]), "E3: MED is kept");
        ensure!(route.has(16, &extra()[2][3..]), "E3: extended communities are kept");
        ensure!(route.next_hop == [IpAddr::from(NEXT_HOP)], "N6: {:?}", route.next_hop);
        within.session.send(&announce(&inside(&[]), &["10.3.0.0/16"]))?;
        outside.route("10.3.0.0/16")?;
        ensure!(!within.knows("10.2.0.0/16"), "E1: iBGP to iBGP only by reflection");
        Ok(())
    });
}

#[test]
fn e4_reflection() {
    enclosed(|| {
        let peers = [internal(0), internal(1), external(2)];
        let daemon = peers.iter().cloned().fold(Plan::default().reflecting(), Plan::peer).start()?;
        let mut client = Observer::establish(&daemon, &peers[0])?;
        let mut source = Observer::establish(&daemon, &peers[1])?;
        let mut outside = Observer::establish(&daemon, &peers[2])?;
        source.session.send(&announce(&inside(&[65001]), &["10.1.0.0/16"]))?;
        let route = client.route("10.1.0.0/16")?;
        ensure!(route.has(9, &peers[1].open().identifier.octets()), "ORIGINATOR_ID: {:?}", route.attribute(9));
        ensure!(route.has(10, &[10, 7, 0, 1]), "CLUSTER_LIST: {:?}", route.attribute(10));
        ensure!(route.as_path() == [65001] && route.next_hop == [IpAddr::from(NEXT_HOP)], "nothing else is changed");
        ensure!(route.has(5, &200u32.to_be_bytes()));
        outside.route("10.1.0.0/16")?;
        // What others have put there stays, ours comes in front.
        let reflected =
            [inside(&[65001]), vec![attribute(0x80, 9, &[10, 0, 0, 9]), attribute(0x80, 10, &[10, 0, 0, 1, 10, 0, 0, 2])]].concat();
        source.session.send(&announce(&reflected, &["10.2.0.0/16"]))?;
        let route = client.route("10.2.0.0/16")?;
        ensure!(route.has(9, &[10, 0, 0, 9]));
        ensure!(route.has(10, &[10, 7, 0, 1, 10, 0, 0, 1, 10, 0, 0, 2]), "{:?}", route.attribute(10));
        client.announce("10.3.0.0/16")?;
        source.route("10.3.0.0/16")?;
        ensure!(!source.knows("10.1.0.0/16") && !source.knows("10.2.0.0/16"), "not to the originator");
        Ok(())
    });
}

#[test]
fn e5_well_known_communities() {
    enclosed(|| {
        let peers = [external(0), internal(1), external(2)];
        let daemon = peers.iter().cloned().fold(Plan::default(), Plan::peer).start()?;
        let mut outside = Observer::establish(&daemon, &peers[0])?;
        let mut within = Observer::establish(&daemon, &peers[1])?;
        let mut feeder = Neighbour::establish(&daemon, &peers[2])?;
        let tell = |feeder: &mut Neighbour, prefix: &str, community: u32| {
            feeder.send(&announce(&[basics(64602), vec![communities(&[1, community, 2])]].concat(), &[prefix]))
        };
        tell(&mut feeder, "10.1.0.0/16", 0xffff_ff01)?;
        tell(&mut feeder, "10.2.0.0/16", 0xffff_ff02)?;
        tell(&mut feeder, "10.3.0.0/16", 0xffff_ff03)?;
        tell(&mut feeder, "10.4.0.0/16", 0xffff_ff04)?;
        outside.route("10.4.0.0/16").context("NOPEER")?;
        within.route("10.4.0.0/16")?;
        within.route("10.1.0.0/16").context("NO_EXPORT stays inside the AS")?;
        within.route("10.3.0.0/16").context("NO_EXPORT_SUBCONFED stays inside the AS")?;
        ensure!(!outside.knows("10.1.0.0/16") && !outside.knows("10.3.0.0/16"), "not across the border");
        ensure!(!outside.knows("10.2.0.0/16") && !within.knows("10.2.0.0/16"), "NO_ADVERTISE: to nobody");
        // A route that turns NO_EXPORT is withdrawn where it had been told.
        tell(&mut feeder, "10.4.0.0/16", 0xffff_ff01)?;
        outside.no_route("10.4.0.0/16")?;
        // GRACEFUL_SHUTDOWN (E7): the last choice inside the AS.
        tell(&mut feeder, "10.5.0.0/16", 0xffff_0000)?;
        ensure!(within.route("10.5.0.0/16")?.has(5, &[0; 4]));
        Ok(())
    });
}

#[test]
fn x1_x2_path_identifiers_both_ways() {
    enclosed(|| {
        let both = [0, 1, 1, 3];
        let daemon = Plan::default().external(4).start()?;
        let [plain, many, one, two] = &daemon.peers[..] else { unreachable!("four peers") };
        let mut plain = Observer::establish(&daemon, plain)?;
        let mut many = Observer::establish_with(&daemon, many, &many.open().with(69, &both))?;
        let mut sender = Neighbour::establish_with(&daemon, one, &one.open().with(69, &both))?;
        let mut other = Neighbour::establish(&daemon, two)?;
        let prefix = "10.1.0.0/16";
        let say =
            |path: &[u32], id: u32| update(&[], &[origin(0), as_path(path), next_hop(NEXT_HOP)].concat(), &nlri_with_ids(&[(id, prefix)]));
        // Two paths of one prefix by one session, identifier 0 among them (X2); a third by a session without ADD-PATH.
        sender.send(&say(&[one.asn, 65001], 0))?;
        sender.send(&say(&[one.asn, 65002, 65003], 7))?;
        other.send(&announce(&[origin(0), as_path(&[two.asn, 65001, 65001, 65001]), next_hop(NEXT_HOP)], &[prefix]))?;
        many.until("three paths", |seen| seen.routes.len() == 3)?;
        let ids = |seen: &Observer| seen.routes.keys().map(|(_, id)| *id).collect::<Vec<_>>();
        let before = ids(&many);
        ensure!(before.iter().all(Option::is_some), "{before:?}");
        let best = |seen: &Observer| seen.routes.values().all(|route| route.as_path() == [ASN, one.asn, 65001]);
        plain.until("the best one, without identifier", |seen| seen.routes.len() == 1 && best(seen))?;
        // Same prefix and identifier: replaced. An unknown identifier: nothing. A known one: only that path goes.
        sender.send(&say(&[one.asn, 65009], 7))?;
        sender.send(&update(&nlri_with_ids(&[(99, prefix)]), &[], &[]))?;
        let replaced = |seen: &Observer| seen.routes.values().any(|route| route.as_path() == [ASN, one.asn, 65009]);
        many.until("the second path is replaced", replaced)?;
        ensure!(ids(&many) == before, "our identifiers are stable: {before:?} {:?}", ids(&many));
        sender.send(&update(&nlri_with_ids(&[(0, prefix)]), &[], &[]))?;
        many.until("the first path goes", |seen| seen.routes.len() == 2)?;
        plain.until("the second takes its place", replaced)?;
        ensure!(plain.withdrawals.is_empty(), "D4");
        drop(sender);
        many.until("the session's paths go", |seen| seen.routes.len() == 1)?;
        plain.until("the last path", |seen| seen.routes.values().all(|route| route.as_path()[1] == two.asn))?;
        // A path identifier cut short (X3).
        let mut cut = wait_until(WAIT, "the sender is back", || Neighbour::establish_with(&daemon, one, &one.open().with(69, &both)))?;
        cut.send(&update(&[], &basics(one.asn).concat(), &[0, 0, 0]))?;
        cut.expect_notification(3, 10)?;
        Ok(())
    });
}

#[test]
fn x1_identifiers_only_where_both_sides_agreed() {
    enclosed(|| {
        let daemon = Plan::default().external(3).peer(external(3).annotated("add-path", "off")).start()?;
        let [feeder, receives, sends, off] = &daemon.peers[..] else { unreachable!("four peers") };
        let mut receiver = Observer::establish_with(&daemon, receives, &receives.open().with(69, &[0, 1, 1, 1]))?;
        let mut sender = Observer::establish_with(&daemon, sends, &sends.open().with(69, &[0, 1, 1, 2]))?;
        // The other side does not want it: plain both ways.
        let refuses = Neighbour::establish_with(&daemon, off, &off.open().with(69, &[0, 1, 1, 3]))?;
        let mut refuses = Observer::of(&daemon, refuses, false);
        let mut feeder = Neighbour::establish(&daemon, feeder)?;
        feeder.send(&announce(&basics(64600), &["10.1.0.0/16"]))?;
        receiver.until("with identifier", |seen| seen.routes.keys().any(|(_, id)| id.is_some()))?;
        sender.route("10.1.0.0/16")?;
        refuses.route("10.1.0.0/16")?;
        receiver.announce("10.2.0.0/16")?;
        feeder_like(&mut sender, &[(5, "10.3.0.0/16")])?;
        refuses.announce("10.4.0.0/16")?;
        receiver.until("both others", |seen| seen.knows("10.3.0.0/16") && seen.knows("10.4.0.0/16"))?;
        sender.route("10.2.0.0/16").map(drop)
    });
}

/// Announces with path identifiers.
fn feeder_like(sender: &mut Observer, prefixes: &[(u32, &str)]) -> Result<()> {
    let octets = update(&[], &basics(sender.session.plan.asn).concat(), &nlri_with_ids(prefixes));
    sender.session.send(&octets)
}

#[test]
fn r1_r2_route_refresh_is_answered() {
    enclosed(|| {
        let daemon = Plan::default().external(6).start()?;
        let mut feeder = Neighbour::establish(&daemon, &daemon.peers[0])?;
        for number in 0..50 {
            feeder.send(&announce(&basics(64600), &[&format!("10.{number}.0.0/16")]))?;
        }
        // Plain refresh: everything once more, nothing withdrawn, no marks.
        let mut plain = Observer::establish(&daemon, &daemon.peers[1])?;
        plain.until("50 routes", |seen| seen.routes.len() == 50)?;
        plain.session.send(&refresh(1, 0, 1))?;
        plain.until("everything again", |seen| seen.routes.values().all(|route| route.told == 2))?;
        ensure!(plain.withdrawals.is_empty() && plain.refreshes.is_empty());
        // Enhanced: BoRR, everything, EoRR.
        let plan = &daemon.peers[2];
        let mut enhanced = Observer::establish_with(&daemon, plan, &plan.open().with(70, &[]))?;
        enhanced.until("50 routes", |seen| seen.routes.len() == 50)?;
        enhanced.session.send(&refresh(1, 0, 1))?;
        enhanced.until("BoRR and EoRR", |seen| seen.refreshes == [1, 2])?;
        ensure!(enhanced.routes.values().all(|route| route.told == 2), "all of it before EoRR");
        // R2: a family that is not in use, subtypes that nobody knows, EoRR without BoRR: nothing.
        for (afi, subtype, safi) in [(2, 0, 1), (1, 0, 128), (1, 3, 1), (1, 255, 1), (99, 0, 99), (1, 2, 1)] {
            enhanced.session.send(&refresh(afi, subtype, safi))?;
            plain.session.send(&refresh(afi, subtype, safi))?;
        }
        feeder.send(&announce(&basics(64600), &["11.0.0.0/8"]))?;
        enhanced.route("11.0.0.0/8")?;
        plain.route("11.0.0.0/8")?;
        ensure!(enhanced.refreshes == [1, 2] && plain.refreshes.is_empty());
        // R4: a burst costs a walk at a time, not a thousand.
        for _ in 0..1000 {
            plain.session.send(&refresh(1, 0, 1))?;
        }
        feeder.send(&announce(&basics(64600), &["12.0.0.0/8"]))?;
        plain.route("12.0.0.0/8")?;
        ensure!(plain.routes.values().all(|route| route.told < 500), "a thousand requests, as many walks");
        // Wrong lengths.
        let mut long = Neighbour::establish_with(&daemon, &daemon.peers[3], &daemon.peers[3].open().with(70, &[]))?;
        let whole = proto_tests::live::message::message(5, &[0, 1, 0, 1, 9]);
        long.send(&whole)?;
        ensure!(long.expect_notification(7, 1)? == whole, "R2: the whole message is the data");
        let mut old = Neighbour::establish(&daemon, &daemon.peers[4])?;
        old.send(&whole)?;
        ensure!(old.expect_notification(1, 2)? == [0, 24]);
        Ok(())
    });
}

#[test]
fn r3_a_refresh_of_the_peer_sweeps_what_is_not_told_again() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[0])?;
        let plan = &daemon.peers[1];
        let mut feeder = Neighbour::establish_with(&daemon, plan, &plan.open().with(70, &[]))?;
        feeder.send(&announce(&basics(plan.asn), &["10.1.0.0/16", "10.2.0.0/16"]))?;
        observer.route("10.2.0.0/16")?;
        feeder.send(&[refresh(1, 1, 1), announce(&basics(plan.asn), &["10.1.0.0/16", "10.3.0.0/16"])].concat())?;
        observer.route("10.3.0.0/16")?;
        ensure!(observer.knows("10.2.0.0/16"), "nothing goes before EoRR");
        feeder.send(&refresh(1, 2, 1))?;
        observer.no_route("10.2.0.0/16")?;
        ensure!(observer.route("10.1.0.0/16")?.told == 1, "what is the same is not told again");
        Ok(())
    });
}

#[test]
fn q3_more_prefixes_than_expected() {
    enclosed(|| {
        let peers = [external(0).annotated("max-prefixes", "10 warn"), external(1).annotated("max-prefixes", "10 idle"), external(2)];
        let daemon = peers.iter().cloned().fold(Plan::default(), Plan::peer).start()?;
        let mut observer = Observer::establish(&daemon, &peers[2])?;
        let mut warned = Neighbour::establish(&daemon, &peers[0])?;
        for number in 0..20 {
            warned.send(&announce(&basics(64600), &[&format!("10.0.{number}.0/24")]))?;
        }
        observer.until("warn lets all of them through", |seen| seen.routes.len() == 20)?;
        wait_until(WAIT, "a warning is logged", || {
            ensure!(daemon.log().contains("limit"), "{}", daemon.log());
            Ok(())
        })?;
        let mut ended = Neighbour::establish(&daemon, &peers[1])?;
        for number in 0..11 {
            ended.send(&announce(&basics(64601), &[&format!("10.1.{number}.0/24")]))?;
        }
        let data = ended.expect_notification(6, 1)?;
        ensure!(data == [0, 1, 1, 0, 0, 0, 10], "AFI, SAFI, limit: {data:?}");
        observer.until("that peer's routes go, and no others", |seen| {
            seen.routes.len() == 20 && !seen.withdrawals.contains_key(&"10.0.1.0/24".parse().expect("a prefix"))
        })?;
        // It stays idle: a connection is not taken.
        let mut again = Neighbour::connect(&daemon, &peers[1])?;
        let heard = again.hear(WAIT)?;
        ensure!(matches!(heard, Heard::Fin | Heard::Reset), "{heard:?}");
        let view = daemon.peer_view(&peers[1])?;
        ensure!(view["held"].as_str().is_some_and(|why| why.contains("prefixes")), "{view}");
        Ok(())
    });
}

#[test]
fn a1_a2_an_old_speaker_of_two_octets() {
    enclosed(|| {
        let daemon = Plan::default().external(3).start()?;
        let [modern, old, feeder] = &daemon.peers[..] else { unreachable!("three peers") };
        let mut observer = Observer::establish(&daemon, modern)?;
        let mut open = old.open();
        open.capabilities.retain(|(code, _)| *code != 65);
        let mut old = Neighbour::establish_with(&daemon, old, &open)?;
        let two = |path: &[u16]| {
            let ases: Vec<u8> = path.iter().flat_map(|asn| asn.to_be_bytes()).collect();
            attribute(0x40, 2, &[&[2, path.len() as u8], &ases[..]].concat())
        };
        let four = |path: &[u32]| attribute(0xc0, 17, &proto_tests::live::message::segment(2, path));
        // A2: the last ASes of AS_PATH are those of AS4_PATH, which may stand before it.
        let merged = [four(&[70_000, 65002]), origin(0), two(&[64601, 65001, 23456, 65002]), next_hop(NEXT_HOP)];
        old.send(&announce(&merged, &["10.1.0.0/16"]))?;
        ensure!(observer.route("10.1.0.0/16")?.as_path() == [ASN, 64601, 65001, 70_000, 65002]);
        // Longer than AS_PATH: not used. AGGREGATOR with a real AS: neither is used.
        old.send(&announce(&[origin(0), two(&[64601]), next_hop(NEXT_HOP), four(&[1, 2, 3])], &["10.2.0.0/16"]))?;
        ensure!(observer.route("10.2.0.0/16")?.as_path() == [ASN, 64601]);
        let aggregator = attribute(0xc0, 7, &[0xfd, 0xe8, 10, 0, 0, 1]);
        old.send(&announce(&[origin(0), two(&[64601, 23456]), next_hop(NEXT_HOP), aggregator, four(&[70_000])], &["10.3.0.0/16"]))?;
        let route = observer.route("10.3.0.0/16")?;
        ensure!(route.as_path() == [ASN, 64601, 23456], "{:?}", route.as_path());
        ensure!(route.has(7, &[0, 0, 0xfd, 0xe8, 10, 0, 0, 1]));
        // A1: to it, in two octets, with AS4_PATH for what does not fit.
        let mut feeder = Neighbour::establish(&daemon, feeder)?;
        feeder.send(&announce(&[origin(0), as_path(&[64602, 70_000]), next_hop(NEXT_HOP)], &["10.4.0.0/16"]))?;
        let wanted = two(&[ASN as u16, 64602, 23456]);
        loop {
            let Heard::Message(2, body) = old.hear(WAIT)? else { continue };
            if body.windows(4).any(|part| part == [16, 10, 4, 9]) || body.ends_with(&[16, 10, 4]) {
                ensure!(body.windows(wanted.len()).any(|part| part == wanted), "AS_PATH: {body:02x?}");
                let wanted = four(&[ASN, 64602, 70_000]);
                ensure!(body.windows(wanted.len()).any(|part| part == wanted), "AS4_PATH: {body:02x?}");
                return Ok(());
            }
        }
    });
}

#[test]
fn p1_p4_routes_with_one_set_of_attributes_share_messages() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let mut feeder = Neighbour::establish(&daemon, &daemon.peers[0])?;
        let prefixes: Vec<String> = (0..10_000).map(|number| format!("10.{}.{}.0/24", number / 250, number % 250)).collect();
        for chunk in prefixes.chunks(800) {
            let chunk: Vec<&str> = chunk.iter().map(String::as_str).collect();
            feeder.send(&announce(&basics(64600), &chunk))?;
        }
        wait_until(WAIT, "all of them are known", || {
            let received = daemon.peer_view(&daemon.peers[0])?["families"]["ipv4-unicast"]["received"].clone();
            ensure!(received == 10_000, "{received}");
            Ok(())
        })?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[1])?;
        observer.until("End-of-RIB", |seen| !seen.ends.is_empty())?;
        ensure!(observer.routes.len() == 10_000, "{}", observer.routes.len());
        // 4 octets a prefix, 4000 of each message: ten messages and the mark.
        ensure!(observer.updates <= 13, "{} messages", observer.updates);
        drop(feeder);
        let before = observer.updates;
        observer.until("all go", |seen| seen.routes.is_empty())?;
        ensure!(observer.updates - before <= 40, "{} messages of withdrawals", observer.updates - before);
        Ok(())
    });
}
