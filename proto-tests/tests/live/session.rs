//! The state machine as a peer can see it: F1 to F13, G4, V9 to V12.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use proto_tests::lab::process::wait_until;
use proto_tests::live::daemon::{ADDRESS, external, replace};
use proto_tests::live::message::{self, announce, basics, keepalive, notification, refresh};
use proto_tests::live::neighbour::PATIENCE;
use proto_tests::live::{Daemon, Heard, Neighbour, Observer, PeerPlan, Plan, enclosed};
use rustix::process::Signal;

/// How long an answer may take.
pub const WAIT: Duration = PATIENCE;

#[test]
fn f13_an_unknown_address_is_turned_away_at_once() {
    enclosed(|| {
        let mut daemon = Plan::default().external(1).start()?;
        for number in 1..40 {
            let mut stranger = Neighbour::connect(&daemon, &external(number))?;
            // Not even an OPEN.
            let heard = stranger.hear(WAIT)?;
            ensure!(matches!(heard, Heard::Fin | Heard::Reset), "{heard:?}");
        }
        let lines = daemon.log().lines().filter(|line| line.contains("127.1.0.")).count();
        ensure!(lines < 10, "a line of log for each stranger");
        Neighbour::establish(&daemon, &daemon.peers[0])?;
        daemon.alive()
    });
}

/// The listener is bound to the wildcard, so the kernel lets a peer in at any address of ours.
#[test]
fn f14_a_peer_is_found_by_both_addresses() {
    enclosed(|| {
        let mut daemon = Plan::default().external(1).start()?;
        let plan = daemon.peers[0].clone();
        let elsewhere = SocketAddr::new(Ipv4Addr::new(127, 0, 0, 2).into(), daemon.address(true).port());
        let mut connection = Neighbour::connect_to(elsewhere, &plan, None, WAIT)?;
        let heard = connection.hear(WAIT)?;
        ensure!(matches!(heard, Heard::Fin | Heard::Reset), "at an address that is not the session's: {heard:?}");
        let session = Neighbour::establish(&daemon, &plan)?;
        drop(session);
        // With `sourceAddress: None` no address of ours is configured: any will do.
        let file = daemon.resources().join(format!("{}.yaml", plan.name));
        let text = std::fs::read_to_string(&file)?;
        replace(&file, &text.replace("spec: {", "spec: {sourceAddress: None, "))?;
        wait_until(WAIT, "a session at another address", || {
            let mut session = Neighbour::connect_to(elsewhere, &plan, None, WAIT)?;
            session.send(&[plan.open().message(), keepalive()].concat())?;
            session.confirm()
        })?;
        daemon.alive()
    });
}

/// What is sent before what, and the answer.
#[test]
fn f1_messages_that_do_not_belong_into_a_state() {
    enclosed(|| {
        let update = announce(&basics(64600), &["10.1.0.0/16"]);
        let end_of_rib = message::update(&[], &[], &[]);
        let before_open: [(&str, Vec<u8>); 4] = [
            ("KEEPALIVE", keepalive()),
            ("UPDATE", update.clone()),
            ("End-of-RIB", end_of_rib.clone()),
            ("ROUTE-REFRESH", refresh(1, 0, 1)),
        ];
        let plan = |number| external(number);
        let in_open_confirm: [(&str, Vec<u8>); 3] =
            [("UPDATE", update), ("ROUTE-REFRESH", refresh(1, 0, 1)), ("OPEN", plan(6).open().message())];
        let daemon = Plan::default().external(8).start()?;
        for (number, (what, octets)) in before_open.iter().enumerate() {
            let mut neighbour = Neighbour::connect(&daemon, &plan(number as u16))?;
            neighbour.send(octets)?;
            neighbour.expect_notification(5, 1).with_context(|| format!("{what} in OpenSent"))?;
        }
        for (number, (what, octets)) in in_open_confirm.iter().enumerate() {
            let plan = plan(number as u16 + 4);
            let mut neighbour = Neighbour::connect(&daemon, &plan)?;
            neighbour.send(&plan.open().message())?;
            neighbour.confirm()?;
            neighbour.send(octets)?;
            neighbour.expect_notification(5, 2).with_context(|| format!("{what} in OpenConfirm"))?;
        }
        let mut neighbour = Neighbour::establish(&daemon, &plan(7))?;
        neighbour.send(&plan(7).open().message())?;
        neighbour.expect_notification(5, 3).context("OPEN in Established")?;
        Ok(())
    });
}

#[test]
fn f2_a_notification_received_is_remembered() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[1])?;
        let plan = &daemon.peers[0];
        let mut neighbour = Neighbour::establish(&daemon, plan)?;
        neighbour.send(&announce(&basics(plan.asn), &["10.1.0.0/16"]))?;
        observer.route("10.1.0.0/16")?;
        let text = b"moving the rack";
        neighbour.send(&notification(6, 2, &[&[text.len() as u8], &text[..]].concat()))?;
        drop(neighbour);
        observer.no_route("10.1.0.0/16")?;
        wait_until(WAIT, "show peers tells the NOTIFICATION", || {
            let view = daemon.peer_view(plan)?;
            let error = &view["last_error"];
            ensure!(error["code"] == 6 && error["subcode"] == 2 && error["by"] == "peer", "{error}");
            ensure!(error["text"].as_str().is_some_and(|said| said.contains("moving the rack")), "{error}");
            Ok(())
        })
    });
}

/// F2: a RST right behind the NOTIFICATION does not take it away: what has come is read to its end.
#[test]
fn f2_a_notification_before_a_reset_is_remembered() {
    enclosed(|| {
        let daemon = Plan::default().external(10).start()?;
        for (number, plan) in daemon.peers.iter().enumerate() {
            let mut neighbour = Neighbour::establish(&daemon, plan)?;
            let text = format!("round {number}");
            neighbour.reset_on_close()?;
            neighbour.send(&notification(6, 2, &[&[text.len() as u8], text.as_bytes()].concat()))?;
            drop(neighbour);
            wait_until(WAIT, "show peers tells the NOTIFICATION", || {
                let error = &daemon.peer_view(plan)?["last_error"];
                ensure!(error["code"] == 6 && error["text"].as_str().is_some_and(|said| said.contains(&text)), "{error}");
                Ok(())
            })?;
        }
        Ok(())
    });
}

#[test]
fn f3_fin_ends_the_session() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[1])?;
        let mut neighbour = Neighbour::establish(&daemon, &daemon.peers[0])?;
        neighbour.send(&announce(&basics(daemon.peers[0].asn), &["10.1.0.0/16"]))?;
        observer.route("10.1.0.0/16")?;
        neighbour.finish()?;
        ensure!(neighbour.expect_end()?.is_none(), "no NOTIFICATION for a FIN");
        observer.no_route("10.1.0.0/16")
    });
}

#[test]
fn f5_routes_right_behind_open_and_keepalive_are_not_lost() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[1])?;
        let plan = &daemon.peers[0];
        let mut neighbour = Neighbour::connect(&daemon, plan)?;
        let route = announce(&basics(plan.asn), &["10.1.0.0/16"]);
        neighbour.send(&[plan.open().message(), keepalive(), route, keepalive()].concat())?;
        neighbour.confirm()?;
        observer.route("10.1.0.0/16").map(drop)
    });
}

#[test]
fn hold_time_of_three_seconds_expires() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[1])?;
        let plan = &daemon.peers[0];
        let mut open = plan.open();
        open.hold = 3;
        let mut neighbour = Neighbour::establish_with(&daemon, plan, &open)?;
        neighbour.send(&announce(&basics(plan.asn), &["10.1.0.0/16"]))?;
        observer.route("10.1.0.0/16")?;
        let mut keepalives = 0;
        loop {
            match neighbour.hear(WAIT)? {
                Heard::Message(message::KEEPALIVE, _) => keepalives += 1,
                Heard::Message(message::NOTIFICATION, body) => {
                    ensure!(body == [4, 0], "{body:?}");
                    break;
                }
                Heard::Message(message::UPDATE, _) => {}
                other => bail!("{other:?}"),
            }
        }
        ensure!((1..=6).contains(&keepalives), "{keepalives} KEEPALIVEs within a hold time of 3 s");
        ensure!(neighbour.hear(WAIT)? == Heard::Fin);
        observer.no_route("10.1.0.0/16")
    });
}

/// The connection that margay opened to this peer, its OPEN read, and one that the peer opened.
fn collide(daemon: &Daemon, plan: &PeerPlan, listener: &TcpListener) -> Result<(Neighbour, Neighbour)> {
    let (stream, _) = listener.accept()?;
    let mut theirs = Neighbour::over(stream, plan);
    ensure!(matches!(theirs.hear(WAIT)?, Heard::Message(message::OPEN, _)), "margay's OPEN on its own connection");
    let mut ours = Neighbour::connect(daemon, plan)?;
    ensure!(matches!(ours.hear(WAIT)?, Heard::Message(message::OPEN, _)), "margay's OPEN on our connection");
    Ok((theirs, ours))
}

#[test]
fn f6_of_two_connections_the_one_of_the_higher_identifier_survives() {
    enclosed(|| {
        let peers = [external(0), external(1), external(2), external(3)];
        let listeners = peers.iter().map(PeerPlan::listen).collect::<Result<Vec<_>>>()?;
        let daemon = Plan::default().external(4).start()?;
        let (low, high) = (Ipv4Addr::new(1, 0, 0, 1), Ipv4Addr::new(200, 0, 0, 1));
        // Our identifier; whether our OPEN goes on margay's connection first; whether margay's connection survives.
        for (number, (identifier, theirs_first, theirs_survives)) in
            [(high, true, false), (high, false, false), (low, true, true), (low, false, true)].into_iter().enumerate()
        {
            let plan = &peers[number];
            let (mut theirs, mut ours) = collide(&daemon, plan, &listeners[number])?;
            let mut open = plan.open();
            open.identifier = identifier;
            let both = if theirs_first { [&mut theirs, &mut ours] } else { [&mut ours, &mut theirs] };
            for connection in both {
                connection.send(&open.message())?;
            }
            let (survivor, loser) = if theirs_survives { (&mut theirs, &mut ours) } else { (&mut ours, &mut theirs) };
            let what = || format!("identifier {identifier}, margay's connection first: {theirs_first}");
            loser.expect_notification(6, 7).with_context(what)?;
            ensure!(matches!(survivor.hear(WAIT)?, Heard::Message(message::KEEPALIVE, _)), "{}", what());
            survivor.send(&keepalive())?;
            let state = || {
                let view = daemon.peer_view(plan)?;
                ensure!(view["state"] == "Established", "{view}");
                Ok(())
            };
            wait_until(WAIT, "the survivor is Established", state).with_context(what)?;
        }
        Ok(())
    });
}

#[test]
fn f6_equal_identifiers_are_decided_by_the_higher_as() {
    enclosed(|| {
        // AS 64600 is above margay's 64512: the connection that we opened survives.
        let plan = external(0);
        let listener = plan.listen()?;
        let daemon = Plan::default().external(1).start()?;
        let (mut theirs, mut ours) = collide(&daemon, &plan, &listener)?;
        let mut open = plan.open();
        open.identifier = ADDRESS;
        theirs.send(&open.message())?;
        ours.send(&open.message())?;
        theirs.expect_notification(6, 7)?;
        ensure!(matches!(ours.hear(WAIT)?, Heard::Message(message::KEEPALIVE, _)));
        Ok(())
    });
}

#[test]
fn f7_a_second_connection_to_an_established_peer_gets_6_7() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[1])?;
        let plan = &daemon.peers[0];
        let mut first = Neighbour::establish(&daemon, plan)?;
        let mut second = Neighbour::connect(&daemon, plan)?;
        second.send(&plan.open().message())?;
        second.expect_notification(6, 7)?;
        first.send(&announce(&basics(plan.asn), &["10.1.0.0/16"]))?;
        observer.route("10.1.0.0/16").map(drop)
    });
}

#[test]
fn f8_a_restarted_peer_with_graceful_restart_takes_over_and_its_routes_stay() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[1])?;
        let plan = &daemon.peers[0];
        let open = plan.open().with(64, &[0, 120, 0, 1, 1, 0x80]);
        let mut first = Neighbour::establish_with(&daemon, plan, &open)?;
        let both = announce(&basics(plan.asn), &["10.1.0.0/16", "10.2.0.0/16"]);
        first.send(&[both, message::update(&[], &[], &[])].concat())?;
        observer.route("10.2.0.0/16")?;
        let mut second = Neighbour::connect(&daemon, plan)?;
        // The connect alone moves nothing: only a good OPEN does.
        ensure!(matches!(second.hear(WAIT)?, Heard::Message(message::OPEN, _)));
        first.send(&announce(&basics(plan.asn), &["10.3.0.0/16"]))?;
        observer.route("10.3.0.0/16")?;
        second.send(&[open.message(), keepalive()].concat())?;
        ensure!(first.expect_end()?.is_none(), "the old connection ends without NOTIFICATION");
        ensure!(matches!(second.hear(WAIT)?, Heard::Message(message::KEEPALIVE, _)));
        // One route is told again, then the end of the table: the others go, the one that is the same is not told anew.
        second.send(&announce(&basics(plan.asn), &["10.1.0.0/16", "10.4.0.0/16"]))?;
        observer.route("10.4.0.0/16")?;
        ensure!(observer.withdrawals.is_empty(), "stale routes stay: {:?}", observer.withdrawals);
        second.send(&message::update(&[], &[], &[]))?;
        observer.no_route("10.2.0.0/16")?;
        observer.no_route("10.3.0.0/16")?;
        let kept = observer.route("10.1.0.0/16")?;
        ensure!(kept.told == 1, "the same route was told {} times", kept.told);
        Ok(())
    });
}

#[test]
fn f12_a_peer_in_back_off_may_come_back() {
    enclosed(|| {
        let daemon = Plan::default().external(1).start()?;
        let plan = &daemon.peers[0];
        let mut neighbour = Neighbour::establish(&daemon, plan)?;
        neighbour.send(&message::header(99, 19))?;
        neighbour.expect_notification(1, 3)?;
        wait_until(WAIT, "a connection in back-off is taken", || Neighbour::establish(&daemon, plan).map(drop))
    });
}

#[test]
fn v10_shutdown_texts_of_every_kind() {
    enclosed(|| {
        let texts: Vec<Vec<u8>> = vec![
            vec![],
            vec![0],
            vec![255],
            vec![5, b'a'],
            [&[128][..], &[b'x'; 128]].concat(),
            [&[255][..], &[b'y'; 255]].concat(),
            [&[3][..], &[b'z'; 200]].concat(),
            vec![2, 0xff, 0xfe],
            [&[22][..], b"\x1b[2J\r\nmargay: forged\0"].concat(),
            vec![b'%'; 4075],
        ];
        let mut daemon = Plan::default().external(2 * texts.len() as u16 + 1).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[2 * texts.len()])?;
        for (number, text) in texts.iter().enumerate() {
            for (offset, subcode) in [2, 4].into_iter().enumerate() {
                let plan = &daemon.peers[2 * number + offset];
                let mut neighbour = Neighbour::establish(&daemon, plan)?;
                neighbour.send(&notification(6, subcode, text))?;
                ensure!(neighbour.expect_end()?.is_none(), "6/{subcode} {text:02x?}");
                wait_until(WAIT, "the text is remembered", || {
                    let error = &daemon.peer_view(plan)?["last_error"];
                    let said = error["text"].as_str().context("no text")?;
                    ensure!(error["subcode"] == subcode, "{error}");
                    ensure!(said.len() <= 600 && !said.chars().any(char::is_control), "not escaped, or too long: {said:?}");
                    Ok(())
                })?;
            }
        }
        let log = daemon.log();
        ensure!(!log.contains('\u{1b}') && !log.lines().any(|line| line.starts_with("margay: forged")), "the log is not escaped");
        observer.announce("10.1.0.0/16")?;
        daemon.alive()
    });
}

#[test]
fn v12_notifications_of_every_code() {
    enclosed(|| {
        let pairs: Vec<(u8, u8)> = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 128, 255]
            .into_iter()
            .flat_map(|code| [0, 1, 7, 9, 255].map(|subcode| (code, subcode)))
            .collect();
        let mut daemon = Plan::default().external(pairs.len() as u16 + 1).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[pairs.len()])?;
        for ((number, (code, subcode)), size) in pairs.iter().enumerate().zip([0, 1, 2, 21, 255, 4075].into_iter().cycle()) {
            let plan = &daemon.peers[number];
            let prefix = format!("10.{number}.0.0/16");
            let mut neighbour = Neighbour::establish(&daemon, plan)?;
            neighbour.send(&announce(&basics(plan.asn), &[&prefix]))?;
            observer.route(&prefix)?;
            neighbour.send(&notification(*code, *subcode, &vec![0xa5; size]))?;
            ensure!(neighbour.expect_end()?.is_none(), "{code}/{subcode} was answered");
            observer.no_route(&prefix).with_context(|| format!("{code}/{subcode}"))?;
        }
        ensure!(daemon.api("/v1/peers")?.as_array().is_some_and(|peers| peers.len() == pairs.len() + 1));
        daemon.alive()
    });
}

#[test]
fn v11_peers_come_and_go_in_every_state_and_others_do_not_notice() {
    enclosed(|| {
        let daemon = Plan::default().external(4).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[3])?;
        let mut opening = Neighbour::connect(&daemon, &daemon.peers[0])?;
        let mut confirming = Neighbour::connect(&daemon, &daemon.peers[1])?;
        confirming.send(&daemon.peers[1].open().message())?;
        confirming.confirm()?;
        let mut established = Neighbour::establish(&daemon, &daemon.peers[2])?;
        established.send(&announce(&basics(daemon.peers[2].asn), &["10.1.0.0/16"]))?;
        observer.route("10.1.0.0/16")?;
        for plan in &daemon.peers[..3] {
            daemon.rewrite(&plan.name, None)?;
        }
        for neighbour in [&mut opening, &mut confirming, &mut established] {
            neighbour.expect_notification(6, 3).context("the peer is no longer configured")?;
        }
        observer.no_route("10.1.0.0/16")?;
        // The addresses are those of strangers now (F13).
        let heard = Neighbour::connect(&daemon, &daemon.peers[0])?.hear(WAIT)?;
        ensure!(matches!(heard, Heard::Fin | Heard::Reset), "{heard:?}");
        // Back again, one of them in another AS.
        let mut other = daemon.peers[0].clone();
        other.asn = 64999;
        daemon.rewrite(&other.name, Some(&other))?;
        daemon.rewrite(&daemon.peers[1].name, Some(&daemon.peers[1]))?;
        let mut back = wait_until(WAIT, "the peer is configured again", || Neighbour::establish(&daemon, &other))?;
        back.send(&announce(&basics(64999), &["10.2.0.0/16"]))?;
        observer.route("10.2.0.0/16")?;
        // A live change of AS resets this session and no other.
        other.asn = 64998;
        daemon.rewrite(&other.name, Some(&other))?;
        back.expect_notification(6, 6)?;
        observer.no_route("10.2.0.0/16")?;
        observer.announce("10.3.0.0/16")?;
        ensure!(daemon.peer_view(&daemon.peers[3])?["flaps"] == 0, "the observer's session was reset");
        Ok(())
    });
}

#[test]
fn g4_sigterm_closes_without_notification() {
    enclosed(|| {
        let mut daemon = Plan::default().external(2).start()?;
        let mut plain = Neighbour::establish(&daemon, &daemon.peers[0])?;
        let open = daemon.peers[1].open().with(64, &[0x40, 120, 0, 1, 1, 0x80]);
        let mut graceful = Neighbour::establish_with(&daemon, &daemon.peers[1], &open)?;
        let status = daemon.end(Signal::TERM)?;
        ensure!(status.success(), "{status}");
        ensure!(graceful.expect_end()?.is_none());
        ensure!(plain.expect_end()?.is_none());
        Ok(())
    });
}

/// x5: 65535 octets from a peer that offers them, where margay was told to; what it sends on fits each peer's limit.
#[test]
fn x5_extended_messages_in_both_directions() {
    enclosed(|| {
        let on = |number| external(number).annotated("extended-messages", "on");
        let daemon = Plan::default().peer(on(0)).peer(on(1)).peer(on(2)).start()?;
        let open = |plan: &PeerPlan| plan.open().with(6, &[]);
        let mut teller = Neighbour::establish_with(&daemon, &daemon.peers[0], &open(&daemon.peers[0]))?;
        let mut large = Neighbour::establish_with(&daemon, &daemon.peers[1], &open(&daemon.peers[1]))?;
        large.limit = 65535;
        let mut small = Neighbour::establish(&daemon, &daemon.peers[2])?;
        let prefixes: Vec<String> = (0..12_000).map(|n: u32| format!("10.{}.{}.{}/32", n / 40_000, n / 200, n % 200)).collect();
        let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
        let update = announce(&basics(daemon.peers[0].asn), &prefixes);
        ensure!((60_000..=65_535).contains(&update.len()), "{}", update.len());
        teller.send(&update)?;
        let sizes = |neighbour: &mut Neighbour| -> Result<Vec<usize>> {
            let (mut sizes, mut octets) = (Vec::new(), 0);
            // Each prefix is 5 octets; what stands before them in a message is less than 100.
            while octets < 5 * prefixes.len() {
                match neighbour.hear(WAIT)? {
                    Heard::Message(message::UPDATE, body) if body.len() > 4 => {
                        sizes.push(body.len() + 19);
                        octets += body.len() + 19;
                        octets -= 19 + 4 + usize::from(u16::from_be_bytes([body[2], body[3]]));
                    }
                    Heard::Message(..) => {}
                    other => bail!("{other:?}"),
                }
            }
            Ok(sizes)
        };
        let heard = sizes(&mut large)?;
        ensure!(heard.iter().any(|size| *size > 4096), "nothing long: {heard:?}");
        let heard = sizes(&mut small)?;
        ensure!(heard.len() >= 15 && heard.iter().all(|size| *size <= 4096), "too long: {heard:?}");
        teller.send(&keepalive())?;
        ensure!(daemon.peer_view(&daemon.peers[0])?["capabilities"]["local"]["extended_message"] == true, "margay offers it");
        Ok(())
    });
}
