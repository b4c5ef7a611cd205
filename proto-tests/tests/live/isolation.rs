//! What one peer does, or does not do, is no matter of the others.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use proto_tests::lab::process::wait_until;
use proto_tests::live::message::{NEXT_HOP, announce, as_path, attribute, basics, next_hop, origin};
use proto_tests::live::{Daemon, Heard, Neighbour, Observer, PeerPlan, Plan, enclosed};
use proto_tests::wire::mutate::mutate_body;

use super::session::WAIT;

/// S3: a peer that reads nothing, then an octet at a time, then a kilobyte for each message of three, while other peers are told all the same.
#[test]
fn s3_a_peer_that_hardly_reads_delays_nobody() {
    a_peer_hardly_reads("1");
}

/// Each shard answers when it is asked, and once.
#[test]
fn s3_a_peer_that_hardly_reads_two_shards_delays_nobody() {
    a_peer_hardly_reads("2");
}

fn a_peer_hardly_reads(shards: &str) {
    const ROUTES: u32 = 3000;
    const VERSIONS: u32 = 80;
    enclosed(|| {
        let daemon = Plan { arguments: vec!["--shards".into(), shards.into()], ..Plan::default() }.external(3).start()?;
        let [slow, fast, source] = &daemon.peers[..] else { unreachable!("three peers") };
        let mut slow = Neighbour::establish(&daemon, slow)?;
        let mut fast = Observer::establish(&daemon, fast)?;
        let mut source = Neighbour::establish(&daemon, source)?;
        // A message each, of some 3000 octets: more than sockets hold.
        let mut say = |number: u32, version: u32| {
            let filling = [&number.to_be_bytes()[..], &version.to_be_bytes(), &[0x5a; 2986]].concat();
            let attributes = [&basics(source.plan.asn)[..], &[attribute(0xc0, 250, &filling)]].concat();
            source.send(&announce(&attributes, &[&format!("10.{}.{}.0/24", number / 256, number % 256)]))
        };
        (0..ROUTES).try_for_each(|number| say(number, 0))?;
        fast.until("everything, while the other one reads nothing", |seen| seen.routes.len() == ROUTES as usize)?;
        for number in ROUTES..ROUTES + 200 {
            slow.take_octet()?;
            say(number, 0)?;
            fast.route(&format!("10.{}.{}.0/24", number / 256, number % 256))?;
        }
        let mut half = 0;
        for version in 1..=VERSIONS {
            for number in 0..200 {
                slow.take_octets(1024)?;
                say(number, version)?;
            }
            let key = ("10.0.199.0/24".parse()?, None);
            let newest = |seen: &Observer| {
                seen.routes.get(&key).and_then(|route| route.attribute(250)).is_some_and(|value| value[4..8] == version.to_be_bytes())
            };
            fast.until("the newest version, while the other one hardly reads", newest)?;
            if version == VERSIONS / 2 {
                half = daemon.resident()?;
            }
        }
        ensure!(daemon.peer_view(&slow.plan)?["state"] == "Established", "it has its time (S2)");
        // What it has not read is not kept: it hears the newest of each path. Attributes that nobody uses any more go when they are as many
        // as those in use, so memory goes up and down by some MB.
        let (told, more) = (u64::from(VERSIONS / 2) * 200 * 3000, daemon.resident()?.saturating_sub(half));
        println!("    {told} octets were told, {more} more are in memory");
        ensure!(more < told / 3, "{more} octets more in memory for {told} that it was told");
        // It reads on, and nothing is lacking.
        let mut slow = Observer::of(&daemon, slow, false);
        slow.until("everything in the end", |seen| seen.routes.len() == ROUTES as usize + 200)
    });
}

/// Q1: what a session without routes costs, both buffers included.
#[test]
fn q1_an_idle_peer_costs_less_than_64_kib() {
    const PEERS: u16 = 150;
    enclosed(|| {
        let daemon = Plan::default().external(PEERS).start()?;
        // The first ones pay for what all share.
        let mut sessions = Vec::new();
        let mut establish = |range: std::ops::Range<usize>| -> Result<u64> {
            for plan in &daemon.peers[range] {
                sessions.push(Neighbour::establish(&daemon, plan)?);
            }
            wait_until(WAIT, "all are up", || {
                let peers = daemon.api("/v1/peers")?;
                let up = peers.as_array().into_iter().flatten().filter(|peer| peer["state"] == "Established").count();
                ensure!(up == sessions.len(), "{up} of {}", sessions.len());
                Ok(())
            })?;
            daemon.resident()
        };
        let before = establish(0..50)?;
        let grown = establish(50..usize::from(PEERS))?.saturating_sub(before);
        let each = grown / 100;
        println!("    {each} octets an idle session");
        ensure!(each <= 64 << 10, "{each} octets an idle session");
        Ok(())
    });
}

/// A faulty UPDATE: ORIGIN 9.
fn faulty(asn: u32) -> Vec<u8> {
    announce(&[origin(9), as_path(&[asn]), next_hop(NEXT_HOP)], &["10.66.0.0/16"])
}

/// Q13: neither faults by the thousand nor sessions that come and go fill a log, and what a peer says of itself is escaped there.
#[test]
fn q13_a_hostile_peer_does_not_fill_the_log() {
    enclosed(|| {
        let mut daemon = Plan::default().external(2).start()?;
        let [hostile, bystander] = &daemon.peers.clone()[..] else { unreachable!("two peers") };
        let mut observer = Observer::establish(&daemon, bystander)?;
        let began = Instant::now();
        // A name with an escape sequence and a line of its own.
        let name = b"\x1b[2J\nroot: forged line";
        let open = hostile.open().with(73, &[&[name.len() as u8][..], name, &[0]].concat());
        let mut session = Neighbour::establish_with(&daemon, hostile, &open)?;
        for _ in 0..5000 {
            session.send(&faulty(hostile.asn))?;
        }
        session.send(&announce(&basics(hostile.asn), &["10.1.0.0/16"]))?;
        observer.route("10.1.0.0/16")?;
        ensure!(daemon.peer_view(hostile)?["faulty_updates"] == 5000, "each is counted");
        // Words of farewell with the same.
        let text = b"\x1b]0;mine\x07\nbye";
        session.send(&proto_tests::live::message::notification(6, 2, &[&[text.len() as u8][..], text].concat()))?;
        session.expect_end()?;
        for _ in 0..200 {
            let mut again = Neighbour::connect(&daemon, hostile)?;
            let _ = again.send(&[0; 64]);
            again.expect_end()?;
        }
        let log = daemon.log();
        let ours = log.lines().filter(|line| line.contains(&hostile.address.to_string()) || line.contains("fault in UPDATE")).count();
        let most = 10 * (began.elapsed().as_secs() as usize + 2);
        ensure!(ours <= most, "{ours} lines, {most} allowed");
        ensure!(!log.lines().any(|line| line.starts_with("root:") || line.starts_with("bye")), "a line is forged");
        let escapes = log.replace("\x1b[0m", "").matches("\x1b[2J").count() + log.matches("\x1b]0;").count();
        ensure!(escapes == 0, "the terminal of whoever reads the log is the peer's");
        daemon.alive()
    });
}

/// Q14, and Q11 on the wire: UPDATEs that are a little wrong anywhere end at most the session that they came on, and change nobody
/// else's routes.
#[test]
fn q11_q14_whatever_a_peer_says_other_sessions_and_routes_stay() {
    const HOSTILE: usize = 100;
    enclosed(|| {
        let mut daemon = Plan::default().external(HOSTILE as u16 + 2).start()?;
        let [hostile @ .., bystander, watcher] = &daemon.peers.clone()[..] else { unreachable!("peers") };
        let mut observer = Observer::establish(&daemon, watcher)?;
        let mut bystander = Neighbour::establish(&daemon, bystander)?;
        bystander.send(&announce(&basics(bystander.plan.asn), &["11.0.0.0/8", "12.1.0.0/16"]))?;
        observer.route("12.1.0.0/16")?;
        let (mut said, mut resets, mut kept) = (0u64, 0, Vec::new());
        for (number, plan) in hostile.iter().enumerate() {
            let mut session = Neighbour::establish_with(&daemon, plan, &plan.open().with(70, &[]))?;
            // Few sessions live through many of them.
            match harass(&mut session, [1, 5, 100][number % 3], &mut said)? {
                true => kept.push(session),
                false => resets += 1,
            }
            daemon.alive()?;
        }
        println!("    {said} messages, {resets} of {HOSTILE} sessions reset");
        ensure!(said > 1000 && (1..HOSTILE).contains(&resets), "{said} messages, {resets} resets");
        bystander.send(&announce(&basics(bystander.plan.asn), &["11.255.0.0/16"]))?;
        observer.route("11.255.0.0/16")?;
        for prefix in ["11.0.0.0/8", "12.1.0.0/16"] {
            ensure!(observer.route(prefix)?.told == 1, "{prefix} of another peer was told again");
        }
        for plan in [&bystander.plan, watcher] {
            let view = daemon.peer_view(plan)?;
            ensure!(view["flaps"] == 0 && view["state"] == "Established", "{view}");
        }
        daemon.alive()
    });
}

/// So many UPDATEs with errors in their bodies, or as many as the session lives through; whether it does.
fn harass(session: &mut Neighbour, messages: u64, said: &mut u64) -> Result<bool> {
    let good = [&basics(session.plan.asn)[..], &[attribute(0xc0, 8, &[0, 1, 0, 2]), attribute(0xc0, 32, &[7; 12])]].concat();
    for number in 0..messages {
        let prefix = format!("10.{}.{number}.0/24", session.plan.asn % 256);
        let message = announce(&good, &[&prefix]);
        let body = mutate_body(&message[19..], session.plan.asn as u64 * 1000 + number);
        let sent = session.send(&proto_tests::live::message::message(2, &body));
        *said += 1;
        if sent.is_err() {
            return Ok(false);
        }
    }
    // Begin-of-RR is the answer to this and to nothing before it: either the session lives, or it says why not.
    session.send(&proto_tests::live::message::refresh(1, 0, 1)).ok();
    loop {
        match session.hear(WAIT)? {
            Heard::Message(5, body) if body[2] == 1 => return Ok(true),
            Heard::Message(2 | 4 | 5, _) => {}
            Heard::Message(3, _) | Heard::Fin | Heard::Reset => return Ok(false),
            other => anyhow::bail!("{other:?}"),
        }
    }
}

fn limit(daemon: &Daemon, descriptors: &str) -> Result<()> {
    let status = Command::new("prlimit").args(["--pid", &daemon.id().to_string(), &format!("--nofile={descriptors}")]).status();
    ensure!(status.context("prlimit (package util-linux)")?.success(), "prlimit");
    Ok(())
}

/// T10: without a descriptor for one more connection, sessions go on; and who waited is taken when there is one again.
#[test]
fn t10_running_out_of_descriptors_is_survived() {
    enclosed(|| {
        let mut daemon = Plan::default().external(3).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[0])?;
        let mut source = Observer::establish(&daemon, &daemon.peers[1])?;
        let plan: PeerPlan = daemon.peers[2].clone();
        limit(&daemon, "3:4096")?;
        // The kernel's queue takes the connection; margay cannot.
        let mut late = Neighbour::connect(&daemon, &plan)?;
        late.send(&[plan.open().message(), proto_tests::live::message::keepalive()].concat())?;
        wait_until(WAIT, "margay says so", || {
            ensure!(daemon.log().contains("accept failed"), "not yet");
            Ok(())
        })?;
        for number in 0..50 {
            let prefix = format!("10.{number}.0.0/16");
            source.announce(&prefix)?;
            observer.route(&prefix)?;
        }
        let lines = daemon.log().matches("accept failed").count();
        limit(&daemon, "1024:4096")?;
        late.confirm().context("taken when there is room")?;
        println!("    {lines} attempts to accept meanwhile");
        daemon.alive()
    });
}
