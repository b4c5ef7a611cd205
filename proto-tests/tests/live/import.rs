//! What an operator changes of what a peer may say, on a session that stays: attributes that are dropped, policies, a refresh; and
//! speakers that say more than they need to.

use anyhow::{Context, Result, ensure};
use proto_tests::lab::process::wait_until;
use proto_tests::live::daemon::{ASN, external, replace};
use proto_tests::live::message::{
    self, NEXT_HOP, announce, as_path, attribute, basics, keepalive, next_hop, origin, segment, unreach, update, withdraw,
};
use proto_tests::live::{Daemon, Heard, Neighbour, Observer, Plan, enclosed};

use super::session::WAIT;

/// Reads up to a ROUTE-REFRESH.
fn refresh_asked(session: &mut Neighbour) -> Result<Vec<u8>> {
    loop {
        match session.hear(WAIT)? {
            Heard::Message(message::REFRESH, body) => return Ok(body),
            Heard::Message(..) => {}
            other => anyhow::bail!("no ROUTE-REFRESH but {other:?}"),
        }
    }
}

fn no_flaps(daemon: &Daemon) -> Result<()> {
    for plan in &daemon.peers {
        ensure!(daemon.peer_view(plan)?["flaps"] == 0, "a session was reset");
    }
    Ok(())
}

/// U21: attributes that are not to go on are dropped on receipt, of one peer and not of another, from the next moment on.
#[test]
fn u21_attributes_are_dropped_by_code_and_peer_without_a_restart() {
    enclosed(|| {
        let daemon = Plan::default().peer(external(0).annotated("discard-attributes", "99")).external(2).start()?;
        let [worm, other, watcher] = &daemon.peers[..] else { unreachable!("three peers") };
        let mut observer = Observer::establish(&daemon, watcher)?;
        let mut sessions = [Neighbour::establish(&daemon, worm)?, Neighbour::establish(&daemon, other)?];
        // An unknown one twice, and a known one that is broken: dropped before anybody looks at it.
        let odd = |asn| [&basics(asn)[..], &[attribute(0xc0, 98, &[1, 2]), attribute(0xc0, 99, &[3, 4, 5])]].concat();
        let say = |sessions: &mut [Neighbour; 2]| -> Result<()> {
            for (session, prefix) in sessions.iter_mut().zip(["10.1.0.0/16", "10.2.0.0/16"]) {
                session.send(&announce(&odd(session.plan.asn), &[prefix]))?;
            }
            Ok(())
        };
        say(&mut sessions)?;
        let codes = |observer: &mut Observer, prefix: &str, wanted: &[u8]| {
            let key = (prefix.parse()?, None);
            observer.until(&format!("{prefix} with {wanted:?}"), |seen| {
                seen.routes
                    .get(&key)
                    .is_some_and(|route| [98, 99].into_iter().filter(|c| route.attribute(*c).is_some()).eq(wanted.iter().copied()))
            })
        };
        codes(&mut observer, "10.1.0.0/16", &[98])?;
        codes(&mut observer, "10.2.0.0/16", &[98, 99])?;
        // Another code: what was dropped before is asked for again, and what came before goes.
        daemon.rewrite(&worm.name, Some(&external(0).annotated("discard-attributes", "98 8")))?;
        ensure!(refresh_asked(&mut sessions[0])? == [0, 1, 0, 1], "a request for IPv4 unicast");
        say(&mut sessions)?;
        codes(&mut observer, "10.1.0.0/16", &[99])?;
        // COMMUNITIES of 3 octets would be treated as a withdrawal.
        let broken = [&basics(worm.asn)[..], &[attribute(0xc0, 8, &[1, 2, 3])]].concat();
        sessions[0].send(&announce(&broken, &["10.3.0.0/16"]))?;
        ensure!(observer.route("10.3.0.0/16")?.attribute(8).is_none());
        no_flaps(&daemon)
    });
}

/// RFC 9774: an AS_SET is a withdrawal, unless the peer's annotation lets sets in; the change needs no new session.
#[test]
fn as_sets_are_let_in_where_they_are_allowed() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let [peer, watcher] = &daemon.peers[..] else { unreachable!("two peers") };
        let mut observer = Observer::establish(&daemon, watcher)?;
        let mut session = Neighbour::establish(&daemon, peer)?;
        let path = attribute(0x40, 2, &[segment(2, &[peer.asn]), segment(1, &[65001, 65002])].concat());
        let aggregated = announce(&[origin(0), path, next_hop(NEXT_HOP)], &["10.1.0.0/16"]);
        session.send(&[&aggregated[..], &announce(&basics(peer.asn), &["10.2.0.0/16"])].concat())?;
        observer.route("10.2.0.0/16")?;
        ensure!(!observer.knows("10.1.0.0/16"), "a set was let in");
        daemon.rewrite(&peer.name, Some(&external(0).annotated("as-path", "allow-sets")))?;
        ensure!(refresh_asked(&mut session)? == [0, 1, 0, 1], "what was refused is asked for again");
        session.send(&[&aggregated[..], &announce(&basics(peer.asn), &["10.3.0.0/16"])].concat())?;
        observer.route("10.3.0.0/16")?;
        let explained = daemon.api("/v1/explain?prefix=10.1.0.0/16")?;
        ensure!(explained["candidates"][0]["best"] == true, "it is used: {explained}");
        ensure!(!observer.knows("10.1.0.0/16"), "RFC 9774: it is told to nobody");
        no_flaps(&daemon)
    });
}

/// R5: another import policy is applied to what the peer has said already, without a word to it; `--soft in` asks it, where it can.
#[test]
fn r5_a_new_policy_needs_no_word_of_the_peer() {
    enclosed(|| {
        let daemon = Plan::default().external(3).start()?;
        let [peer, old, watcher] = &daemon.peers[..] else { unreachable!("three peers") };
        let mut observer = Observer::establish(&daemon, watcher)?;
        let mut session = Neighbour::establish(&daemon, peer)?;
        session.send(&announce(&basics(peer.asn), &["10.1.0.0/16"]))?;
        observer.route("10.1.0.0/16")?;
        let base = daemon.resources().join("base.yaml");
        let text = std::fs::read_to_string(&base)?;
        let accept = "importV4: [{action: Accept}]";
        ensure!(text.contains(accept), "{text}");
        replace(&base, &text.replace(accept, "importV4: [{action: Reject}]"))?;
        observer.no_route("10.1.0.0/16")?;
        replace(&base, &text)?;
        observer.route("10.1.0.0/16")?;
        // What it hears next is what it is asked for now, and no request that came before.
        let margay = |words: &[&str]| -> Result<(bool, String)> {
            let output = daemon.margay(words)?;
            Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
        };
        let address = peer.address.to_string();
        ensure!(margay(&["reset", &address, "--soft", "out"])?.0);
        loop {
            match session.hear(WAIT)? {
                Heard::Message(message::REFRESH, _) => anyhow::bail!("a request without need"),
                Heard::Message(message::UPDATE, body) if body.len() == 4 => break,
                Heard::Message(..) => {}
                other => anyhow::bail!("{other:?}"),
            }
        }
        ensure!(margay(&["reset", &address, "--soft", "in"])?.0);
        ensure!(refresh_asked(&mut session)? == [0, 1, 0, 1]);
        // One that has no route refresh is not asked, and the operator is told.
        let mut open = old.open();
        open.capabilities.retain(|(code, _)| *code != 2);
        let _old = Neighbour::establish_with(&daemon, old, &open)?;
        wait_until(WAIT, "it is up", || {
            ensure!(daemon.peer_view(old)?["state"] == "Established", "not yet");
            Ok(())
        })?;
        let (done, said) = margay(&["reset", &old.address.to_string(), "--soft", "in"])?;
        ensure!(!done && said.contains("does not offer route refresh"), "{said}");
        no_flaps(&daemon)
    });
}

/// A4: graceful restart, refresh and multiprotocol are the same with a speaker of two octets, and a loop is looked for in the merged path.
#[test]
fn a4_an_old_speaker_restarts_refreshes_and_loops_like_others() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let [old, watcher] = &daemon.peers[..] else { unreachable!("two peers") };
        let mut observer = Observer::establish(&daemon, watcher)?;
        let mut open = old.open().with(64, &[0, 120, 0, 1, 1, 0x80]).with(70, &[]);
        open.capabilities.retain(|(code, _)| *code != 65);
        let mut session = Neighbour::establish_with(&daemon, old, &open)?;
        let two = |path: &[u16]| {
            let ases: Vec<u8> = path.iter().flat_map(|asn| asn.to_be_bytes()).collect();
            attribute(0x40, 2, &[&[2, path.len() as u8], &ases[..]].concat())
        };
        let four = |path: &[u32]| attribute(0xc0, 17, &segment(2, path));
        let asn = old.asn as u16;
        // Our AS is in AS4_PATH only, where AS_PATH says AS_TRANS: a loop. In an AS4_PATH that is too long to be used: none.
        session.send(&announce(&[origin(0), two(&[asn, 23456, 65009]), next_hop(NEXT_HOP), four(&[ASN, 65009])], &["10.1.0.0/16"]))?;
        session.send(&announce(&[origin(0), two(&[asn]), next_hop(NEXT_HOP), four(&[ASN, 65009])], &["10.2.0.0/16"]))?;
        ensure!(observer.route("10.2.0.0/16")?.as_path() == [ASN, old.asn]);
        ensure!(!observer.knows("10.1.0.0/16"), "a looped path was passed on");
        let explained = daemon.api_text("/v1/explain?prefix=10.1.0.0/16")?;
        ensure!(explained.contains("our AS is in its AS_PATH"), "{explained}");
        // IPv4 in MP_REACH_NLRI.
        let mp = [message::reach(1, 1, &NEXT_HOP.octets(), &message::nlri(&["10.3.0.0/16"])), origin(0), two(&[asn])];
        session.send(&update(&[], &mp.concat(), &[]))?;
        observer.route("10.3.0.0/16")?;
        // Refresh in both directions.
        ensure!(daemon.margay(&["reset", &old.address.to_string(), "--soft", "in"])?.status.success());
        ensure!(refresh_asked(&mut session)? == [0, 1, 0, 1]);
        session.send(&[message::refresh(1, 1, 1), announce(&[origin(0), two(&[asn]), next_hop(NEXT_HOP)], &["10.2.0.0/16"])].concat())?;
        session.send(&message::refresh(1, 2, 1))?;
        observer.no_route("10.3.0.0/16")?;
        // Lost: kept, as of a new speaker.
        drop(session);
        wait_until(WAIT, "it is lost", || {
            let view = daemon.peer_view(old)?;
            ensure!(view["state"] != "Established" && view["stale"] == serde_json::json!(["ipv4-unicast"]), "{view}");
            Ok(())
        })?;
        ensure!(observer.route("10.2.0.0/16")?.told == 1);
        Ok(())
    });
}

/// W3: a router of another AS that tells nothing may lack a policy of its own; no message says so, but an explanation can.
#[test]
fn w3_explain_thinks_of_the_policy_of_a_silent_router() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let explain = |number: usize| -> Result<String> {
            let name = daemon.peer_view(&daemon.peers[number])?["name"].as_str().context("no name")?.to_owned();
            Ok(String::from_utf8(daemon.margay(&["explain", "peer", &name])?.stdout)?)
        };
        let mut session = Neighbour::establish(&daemon, &daemon.peers[0])?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[1])?;
        observer.until("its End-of-RIB", |seen| !seen.ends.is_empty())?;
        let silent = explain(1)?;
        ensure!(silent.contains("has told no routes") && silent.contains("RFC 8212"), "{silent}");
        session.send(&announce(&basics(session.plan.asn), &["10.1.0.0/16"]))?;
        observer.route("10.1.0.0/16")?;
        wait_until(WAIT, "it has told one", || {
            let words = explain(0)?;
            ensure!(!words.contains("has told no routes"), "{words}");
            Ok(())
        })
    });
}

/// W8: attributes in any order, withdrawals of what was never announced, several End-of-RIBs, a flood of KEEPALIVEs, and an OPEN whose
/// parameters are in the long form without need.
#[test]
fn w8_a_speaker_that_says_too_much_is_a_good_speaker() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let [peer, watcher] = &daemon.peers[..] else { unreachable!("two peers") };
        let mut observer = Observer::establish(&daemon, watcher)?;
        let mut session = Neighbour::connect(&daemon, peer)?;
        let open = peer.open();
        let capabilities = &open.parameters()[2..];
        let long = [&[2][..], &(capabilities.len() as u16).to_be_bytes(), capabilities].concat();
        let parameters = [&[255, 255][..], &(long.len() as u16).to_be_bytes(), &long].concat();
        session.send(&[message::message(message::OPEN, &[open.fixed(), parameters].concat()), keepalive()].concat())?;
        session.confirm().context("the long form")?;
        session.send(&keepalive().repeat(20_000))?;
        session.send(&withdraw(&["10.9.0.0/16", "10.8.0.0/16"]).repeat(50))?;
        session.send(&[update(&[], &[], &[]), update(&[], &unreach(1, 1, &[]), &[])].concat().repeat(50))?;
        let mut attributes = basics(peer.asn);
        attributes.push(attribute(0x80, 4, &[0, 0, 0, 7]));
        for turn in 0..attributes.len() {
            attributes.rotate_left(1);
            session.send(&announce(&attributes, &[&format!("10.{turn}.0.0/16")]))?;
        }
        for turn in 0..attributes.len() {
            ensure!(observer.route(&format!("10.{turn}.0.0/16"))?.as_path() == [ASN, peer.asn]);
        }
        let view = daemon.peer_view(peer)?;
        ensure!(view["flaps"] == 0 && view["faulty_updates"] == 0, "{view}");
        ensure!(as_path(&[peer.asn]) == attributes.iter().find(|a| a[1] == 2).context("AS_PATH")?.clone());
        Ok(())
    });
}
