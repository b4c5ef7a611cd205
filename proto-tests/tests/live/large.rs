//! Messages of up to 65,535 octets (RFC 8654) that are full of something: what fits goes on as it is to those who take such messages, and is
//! withdrawn from the others.

use anyhow::{Context, Result, ensure};
use proto_tests::live::message::{NEXT_HOP, announce, attribute, basics, next_hop, origin, segment};
use proto_tests::live::{Neighbour, Observer, PeerPlan, Plan, enclosed};

/// Attributes that fit no message of 4096 octets, and what a receiver has of them: code and value.
type Load = (&'static str, Vec<Vec<u8>>, (u8, Vec<u8>));

fn loads(asn: u32, ours: u32) -> Vec<Load> {
    let path = |asns: &[u32]| asns.chunks(255).flat_map(|chunk| segment(2, chunk)).collect::<Vec<u8>>();
    let long: Vec<u32> = std::iter::once(asn).chain((1..4000).map(|n| 100_000 + n)).collect();
    // U24: a full segment gets another one before it.
    let prepended = [segment(2, &[ours]), path(&long)].concat();
    let list = |count: u32| (0..count).flat_map(|n| (0xfc00_0000 + n).to_be_bytes()).collect::<Vec<u8>>();
    let with = |more: Vec<Vec<u8>>| [basics(asn), more].concat();
    let flood = |size: usize| (100..=249).map(|code| attribute(0xc0, code, &vec![code; size])).collect::<Vec<_>>();
    let large: Vec<u8> = (0..4000u32).flat_map(|n| [ours, 1, n].map(u32::to_be_bytes).concat()).collect();
    vec![
        ("4,000 ASes", vec![origin(0), attribute(0x40, 2, &path(&long)), next_hop(NEXT_HOP)], (2, prepended)),
        ("12,000 communities", with(vec![attribute(0xc0, 8, &list(12_000))]), (8, list(12_000))),
        ("4,000 large communities", with(vec![attribute(0xc0, 32, &large)]), (32, large)),
        ("150 unknown attributes", with(flood(400)), (249, vec![249; 400])),
        ("an unknown attribute of 60,000 octets", with(vec![attribute(0xc0, 250, &[7; 60_000])]), (250, vec![7; 60_000])),
    ]
}

fn extended(number: usize, peers: &[PeerPlan], daemon: &proto_tests::live::Daemon) -> Result<Neighbour> {
    let plan = &peers[number];
    let mut session = Neighbour::establish_with(daemon, plan, &plan.open().with(6, &[]))?;
    session.limit = 65_535;
    Ok(session)
}

#[test]
fn x5_p2_messages_full_of_one_thing() {
    enclosed(|| {
        let on = |number| proto_tests::live::daemon::external(number).annotated("extended-messages", "on");
        let mut daemon = Plan::default().peer(on(0)).peer(on(1)).peer(on(2)).start()?;
        let peers = daemon.peers.clone();
        let mut teller = extended(0, &peers, &daemon)?;
        let mut large = Observer::of(&daemon, extended(1, &peers, &daemon)?, false);
        let mut small = Observer::establish(&daemon, &peers[2])?;
        let before = daemon.resident()?;
        for (round, (what, attributes, (code, value))) in loads(peers[0].asn, daemon.asn).into_iter().enumerate() {
            let prefix = format!("10.{round}.0.0/16");
            teller.send(&announce(&basics(peers[0].asn), &[&prefix]))?;
            small.route(&prefix).with_context(|| format!("before {what}"))?;
            teller.send(&announce(&attributes, &[&prefix]))?;
            let is_there = |observer: &Observer| {
                let route = observer.routes.iter().find(|((known, _), _)| known.to_string() == prefix);
                route.is_some_and(|(_, route)| route.attribute(code) == Some(&value))
            };
            large.until(what, is_there)?;
            small.no_route(&prefix).with_context(|| format!("{what} fit no message of 4096 octets"))?;
        }
        teller.send(&announce(&basics(peers[0].asn), &["10.200.0.0/16"]))?;
        small.route("10.200.0.0/16")?;
        let grown = daemon.resident()?.saturating_sub(before);
        ensure!(grown < 16 << 20, "{grown} octets for five routes");
        daemon.alive()
    });
}
