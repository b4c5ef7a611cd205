//! Restarts of peers, seen by a third one (RFC 4724, 8538, 9494), and a node that is drained (RFC 8326).

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proto_tests::lab::process::{Signal, run, wait_until};
use proto_tests::live::daemon::{ASN, external, internal};
use proto_tests::live::message::{announce, basics, communities, keepalive, notification, update};
use proto_tests::live::{Daemon, Neighbour, Observer, PeerPlan, Plan, enclosed};

use super::session::WAIT;

/// A hundred thousand routes may take so long on a busy machine.
const LONG: Duration = Duration::from_secs(120);

const IPV4: [u8; 3] = [0, 1, 1];
const GRACEFUL_SHUTDOWN: u32 = 0xffff_0000;
const LLGR_STALE: u32 = 0xffff_0006;

/// Capability 64 for IPv4: flags and time, then F.
fn restarts(flags: u8, seconds: u8, forwarding: bool) -> Vec<u8> {
    [&[flags, seconds], &IPV4[..], &[if forwarding { 0x80 } else { 0 }]].concat()
}

const N: u8 = 0x40;

/// How a session ends.
enum End {
    Lost,
    Told(u8, u8),
}

/// Section 11, "the peer restarted": what a loss leaves, one row one case.
#[test]
fn g5_g6_g7_what_a_loss_leaves_row_by_row() {
    enclosed(|| {
        let rows: Vec<(&str, Option<Vec<u8>>, End, bool)> = vec![
            ("TCP lost, no graceful restart", None, End::Lost, false),
            ("TCP lost, IPv4 covered", Some(restarts(0, 120, true)), End::Lost, true),
            ("F is irrelevant for the loss", Some(restarts(0, 120, false)), End::Lost, true),
            ("G6: no family, BIRD as a mere helper", Some(vec![0, 120]), End::Lost, false),
            ("W2: no family, R set: OpenBGPD as a mere helper", Some(vec![0x80, 0]), End::Lost, false),
            ("G5: restart time 0", Some(restarts(0, 0, true)), End::Lost, false),
            ("another family only", Some([&[0, 120][..], &[0, 2, 1, 0x80]].concat()), End::Lost, false),
            ("NOTIFICATION received, no N", Some(restarts(0, 120, true)), End::Told(6, 4), false),
            ("NOTIFICATION received, N on both sides", Some(restarts(N, 120, true)), End::Told(6, 4), true),
            ("4/0 received, N on both sides", Some(restarts(N, 120, true)), End::Told(4, 0), true),
            ("hard reset, N on both sides", Some(restarts(N, 120, true)), End::Told(6, 9), false),
        ];
        let daemon = Plan::default().external(rows.len() as u16 + 1).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[rows.len()])?;
        for (number, (row, capability, end, stays)) in rows.into_iter().enumerate() {
            let plan = &daemon.peers[number];
            let prefix = format!("10.{number}.0.0/16");
            let open = capability.map_or_else(|| plan.open(), |value| plan.open().with(64, &value));
            let mut neighbour = Neighbour::establish_with(&daemon, plan, &open)?;
            neighbour.send(&announce(&basics(plan.asn), &[&prefix]))?;
            observer.route(&prefix)?;
            match end {
                End::Lost => drop(neighbour),
                End::Told(code, subcode) => {
                    neighbour.send(&notification(code, subcode, if subcode == 9 { &[6, 4] } else { &[] }))?;
                    neighbour.expect_end()?;
                }
            }
            let families = if stays { vec!["ipv4-unicast"] } else { vec![] };
            wait_until(WAIT, "the session is down", || {
                let view = daemon.peer_view(plan)?;
                ensure!(view["state"] != "Established" && view["stale"] == serde_json::json!(families), "{row}: {view}");
                Ok(())
            })?;
            match stays {
                true => {
                    let canary = format!("172.16.{number}.0/24");
                    observer.announce(&canary)?;
                    wait_until(WAIT, "the canary has been heard", || {
                        ensure!(daemon.api_text("/v1/routes")?.contains(&canary), "not yet");
                        Ok(())
                    })?;
                    ensure!(observer.knows(&prefix) && daemon.api_text("/v1/routes")?.contains(&prefix), "{row}: it has gone");
                }
                false => observer.no_route(&prefix).context(row)?,
            }
        }
        Ok(())
    });
}

/// Section 11: what a return leaves.
#[test]
fn g_what_a_return_leaves_row_by_row() {
    enclosed(|| {
        let rows: [(&str, Option<Vec<u8>>, bool); 4] = [
            ("W2: with F, and R set as OpenBGPD always has it: what is stale waits for End-of-RIB", Some(restarts(0x80, 120, true)), true),
            ("without F", Some(restarts(0x80, 120, false)), false),
            ("without the family", Some(vec![0x80, 120]), false),
            ("without graceful restart", None, false),
        ];
        let daemon = Plan::default().external(rows.len() as u16 + 1).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[rows.len()])?;
        for (number, (row, capability, stays)) in rows.into_iter().enumerate() {
            let plan = &daemon.peers[number];
            let (old, new) = (format!("10.{number}.0.0/16"), format!("172.16.{number}.0/24"));
            let first = plan.open().with(64, &restarts(0, 120, true));
            let mut neighbour = Neighbour::establish_with(&daemon, plan, &first)?;
            neighbour.send(&announce(&basics(plan.asn), &[&old]))?;
            observer.route(&old)?;
            drop(neighbour);
            let open = capability.map_or_else(|| plan.open(), |value| plan.open().with(64, &value));
            let mut back = wait_until(WAIT, "the peer is back", || Neighbour::establish_with(&daemon, plan, &open))?;
            back.send(&announce(&basics(plan.asn), &[&new]))?;
            observer.route(&new)?;
            ensure!(!stays || observer.knows(&old), "{row}: it has gone");
            if stays {
                back.send(&update(&[], &[], &[]))?;
            }
            observer.no_route(&old).context(row)?;
            ensure!(observer.knows(&new), "{row}: what is new has gone too");
        }
        Ok(())
    });
}

/// A peer that is lost again before End-of-RIB: stale paths stay, or go by the letter of RFC 4724 section 4.2 (a setting).
#[test]
fn a_second_loss_while_paths_are_stale() {
    enclosed(|| {
        let strict = external(1).annotated("consecutive-restarts", "drop");
        let daemon = Plan::default().external(1).peer(strict).peer(external(2)).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[2])?;
        for (plan, stays) in [(&daemon.peers[0], true), (&daemon.peers[1], false)] {
            let open = plan.open().with(64, &restarts(0, 120, true));
            let (old, renewed) = (format!("10.{}.0.0/16", plan.asn - 64600), format!("10.{}.0.0/16", plan.asn - 64500));
            let tell = |prefixes: &[&str]| -> Result<()> {
                let mut neighbour = wait_until(WAIT, "the peer is taken", || Neighbour::establish_with(&daemon, plan, &open))?;
                neighbour.send(&announce(&basics(plan.asn), prefixes))?;
                wait_until(WAIT, "the routes are there, and fresh", || {
                    let received: serde_json::Value = daemon.peer_view(plan)?;
                    ensure!(received["families"]["ipv4-unicast"]["received"].as_u64() == Some(2), "{received}");
                    let text = daemon.api_text(&format!("/v1/routes?prefix={}", prefixes[0]))?;
                    ensure!(text.contains("\"stale\":false"), "{text}");
                    Ok(())
                })
            };
            tell(&[&renewed, &old])?;
            tell(&[&renewed])?;
            wait_until(WAIT, "the session is down again", || {
                ensure!(daemon.peer_view(plan)?["stale"] == serde_json::json!(["ipv4-unicast"]), "not stale");
                Ok(())
            })?;
            observer.route(&renewed)?;
            match stays {
                true => ensure!(observer.route(&old)?.told == 1 && observer.withdrawals.is_empty(), "it was told again"),
                false => observer.no_route(&old)?,
            }
            ensure!(observer.knows(&renewed), "what was renewed stays");
        }
        Ok(())
    });
}

/// RFC 9494: the restart time over, paths stay as the last choice, marked, for those who understand; NO_LLGR goes.
#[test]
fn llgr_stale_paths_are_marked_and_go_only_to_those_who_understand() {
    enclosed(|| {
        let patient = external(0).annotated("llgr-stale-time", "1h");
        let daemon = Plan::default().peer(patient).external(2).start()?;
        let [plan, knows, ignorant] = &daemon.peers[..] else { unreachable!("three peers") };
        let mut knowing = Observer::establish_with(&daemon, knows, &knows.open().with(64, &[0, 0]).with(71, &[]))?;
        let mut ignorant = Observer::establish(&daemon, ignorant)?;
        let long = |flags: u8| plan.open().with(64, &restarts(flags, 1, true)).with(71, &[&IPV4[..], &[0x80, 0, 0, 200]].concat());
        let mut neighbour = Neighbour::connect(&daemon, plan)?;
        neighbour.send(&[long(0).message(), keepalive()].concat())?;
        let open = neighbour.confirm()?;
        // F is not set: this margay has only just started, and its kernel held nothing of a past life.
        let ours = [&[71, 7][..], &IPV4, &[0, 0, 0x0e, 0x10]].concat();
        ensure!(open.windows(ours.len()).any(|part| part == ours), "an hour is asked of the peer as well: {open:02x?}");
        neighbour.send(&announce(&basics(plan.asn), &["10.1.0.0/16"]))?;
        let no_llgr = [&basics(plan.asn)[..], &[communities(&[0xffff_0007])]].concat();
        neighbour.send(&announce(&no_llgr, &["10.2.0.0/16"]))?;
        for observer in [&mut knowing, &mut ignorant] {
            observer.route("10.1.0.0/16")?;
            observer.route("10.2.0.0/16")?;
        }
        drop(neighbour);
        ignorant.no_route("10.1.0.0/16")?;
        ignorant.no_route("10.2.0.0/16")?;
        knowing.no_route("10.2.0.0/16")?;
        let key = ("10.1.0.0/16".parse()?, None);
        knowing.until("it is told again with LLGR_STALE", |seen| seen.routes[&key].communities().contains(&LLGR_STALE))?;
        let view = daemon.peer_view(plan)?;
        ensure!(view["long_lived_stale"] == serde_json::json!(["ipv4-unicast"]), "{view}");
        // Back: what is told again is fresh, the rest goes with End-of-RIB.
        let mut back = Neighbour::establish_with(&daemon, plan, &long(0x80))?;
        back.send(&[announce(&basics(plan.asn), &["10.1.0.0/16"]), update(&[], &[], &[])].concat())?;
        ignorant.route("10.1.0.0/16")?;
        knowing.until("the mark is gone", |seen| !seen.routes[&key].communities().contains(&LLGR_STALE))?;
        ensure!(!knowing.withdrawals.contains_key(&key.0), "it was withdrawn from one who understands");
        Ok(())
    });
}

/// RFC 9494 4.6: inside our AS one who does not understand may hear of them all the same, as the last choice that stays inside.
#[test]
fn llgr_stale_paths_are_told_as_the_last_choice_where_that_is_asked_for() {
    enclosed(|| {
        let patient = external(0).annotated("llgr-stale-time", "1h");
        let told = internal(1).annotated("llgr-partial", "on");
        let outside = external(3).annotated("llgr-partial", "on");
        let daemon = Plan::default().peer(patient).peer(told).internal(1).peer(outside).start()?;
        let [plan, told, spared, outside] = &daemon.peers[..] else { unreachable!("four peers") };
        let mut told = Observer::establish(&daemon, told)?;
        let mut others = [Observer::establish(&daemon, spared)?, Observer::establish(&daemon, outside)?];
        let open = plan.open().with(64, &restarts(0, 1, true)).with(71, &[&IPV4[..], &[0x80, 0, 0, 200]].concat());
        let mut neighbour = Neighbour::establish_with(&daemon, plan, &open)?;
        neighbour.send(&announce(&basics(plan.asn), &["10.1.0.0/16"]))?;
        told.route("10.1.0.0/16")?;
        for other in &mut others {
            other.route("10.1.0.0/16")?;
        }
        drop(neighbour);
        for other in &mut others {
            other.no_route("10.1.0.0/16")?;
        }
        let key = ("10.1.0.0/16".parse()?, None);
        told.until("it is the last choice", |seen| {
            let Some(route) = seen.routes.get(&key) else { return false };
            route.has(5, &[0; 4]) && [LLGR_STALE, 0xffff_ff01].iter().all(|mark| route.communities().contains(mark))
        })?;
        ensure!(!told.withdrawals.contains_key(&key.0), "it was withdrawn in between");
        Ok(())
    });
}

/// The forwarding bit tells what the kernel has kept: nothing at first, then everything (libraries: a flag that was missing in one of five OPENs).
#[test]
fn the_forwarding_bit_follows_the_kernel() {
    enclosed(|| {
        let daemon = Plan::default().external(1).start()?;
        let plan = &daemon.peers[0];
        for expected in [0x00, 0x80, 0x80] {
            let mut neighbour = wait_until(WAIT, "a session", || {
                let mut neighbour = Neighbour::connect(&daemon, plan)?;
                neighbour.send(&[plan.open().message(), keepalive()].concat())?;
                let open = neighbour.confirm()?;
                Ok((neighbour, open))
            })?;
            let at = neighbour.1.windows(4).position(|part| part == [64, 6, 0x40, 120]).with_context(|| format!("{:02x?}", neighbour.1))?;
            ensure!(neighbour.1[at + 4..at + 8] == [0, 1, 1, expected], "{:02x?}", neighbour.1);
            neighbour.0.send(&update(&[], &[], &[]))?;
            wait_until(WAIT, "Established", || {
                ensure!(daemon.peer_view(plan)?["state"] == "Established", "not yet");
                Ok(())
            })?;
        }
        Ok(())
    });
}

fn told(observer: &mut Observer, drained: bool) -> Result<()> {
    let key = ("10.1.0.0/16".parse()?, None);
    observer.until("what the drain asks for", |seen| {
        seen.routes.get(&key).is_some_and(|route| route.communities().contains(&GRACEFUL_SHUTDOWN) == drained)
    })?;
    let route = &observer.routes[&key];
    let preference = route.attribute(5).map(<[u8]>::to_vec);
    let expected = match (observer.session.plan.asn == ASN, drained) {
        (false, _) => None,
        (true, true) => Some(vec![0, 0, 0, 0]),
        (true, false) => Some(vec![0, 0, 0, 100]),
    };
    ensure!(preference == expected, "LOCAL_PREF {preference:?}");
    ensure!(observer.withdrawals.is_empty(), "there was a gap");
    Ok(())
}

fn establish(daemon: &Daemon, plan: &PeerPlan) -> Result<Observer> {
    wait_until(WAIT, "a session", || Observer::establish(daemon, plan))
}

/// E7: `margay drain`, what it says to whom, that it can shut sessions down with words, and that `undrain` ends it all.
#[test]
fn e7_drain_and_back() {
    enclosed(|| {
        let daemon = Plan::default().external(2).peer(internal(2)).start()?;
        let mut source = establish(&daemon, &daemon.peers[0])?;
        let mut observers = [establish(&daemon, &daemon.peers[1])?, establish(&daemon, &daemon.peers[2])?];
        source.announce("10.1.0.0/16")?;
        observers.iter_mut().try_for_each(|observer| told(observer, false))?;
        ensure!(daemon.post("/v1/drain")? == serde_json::json!({"drained": true, "shutdown": false}));
        observers.iter_mut().try_for_each(|observer| told(observer, true))?;
        ensure!(daemon.peer_view(&daemon.peers[1])?["drained"] == true);
        daemon.post("/v1/undrain")?;
        observers.iter_mut().try_for_each(|observer| told(observer, false))?;
        let state = daemon.post("/v1/drain?shutdown=new%20kernel")?;
        ensure!(state == serde_json::json!({"drained": true, "shutdown": true}), "{state}");
        for observer in &mut observers {
            let text = observer.session.expect_notification(6, 2)?;
            ensure!(text == [&[10][..], b"new kernel"].concat(), "{text:02x?}");
        }
        // A peer that comes meanwhile is turned away; when the drain is over it is welcome.
        let refused = Neighbour::connect(&daemon, &daemon.peers[1])?.expect_end()?;
        ensure!(refused.is_none(), "{refused:?}");
        daemon.post("/v1/undrain")?;
        establish(&daemon, &daemon.peers[1]).map(drop)
    });
}

/// G7: an operator's reset keeps paths where both sides have N; a hard one does not; both carry the operator's words (RFC 9003).
#[test]
fn g7_reset_and_hard_reset() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let mut observer = Observer::establish(&daemon, &daemon.peers[1])?;
        let plan = &daemon.peers[0];
        let open = plan.open().with(64, &restarts(N, 120, true));
        for (query, subcode, data) in [("reason=why", 4, &b"\x03why"[..]), ("hard=true&reason=why", 9, b"\x06\x04\x03why")] {
            let mut neighbour = wait_until(WAIT, "the peer is taken", || Neighbour::establish_with(&daemon, plan, &open))?;
            neighbour.send(&[announce(&basics(plan.asn), &["10.1.0.0/16"]), update(&[], &[], &[])].concat())?;
            observer.route("10.1.0.0/16")?;
            daemon.post(&format!("/v1/peers/{}/reset?{query}", plan.address))?;
            ensure!(neighbour.expect_notification(6, subcode)? == data, "6/{subcode}");
            if subcode == 9 {
                observer.no_route("10.1.0.0/16")?;
            } else {
                let view = daemon.peer_view(plan)?;
                ensure!(view["stale"] == serde_json::json!(["ipv4-unicast"]) && observer.withdrawals.is_empty(), "{view}");
            }
        }
        Ok(())
    });
}

/// A configuration that comes while the machines start, which takes a moment where the kernel holds much, is not taken for the one they
/// have started with.
#[test]
fn a_change_while_margay_starts_counts() {
    enclosed(|| {
        let routes: String =
            (0..15_000u32).map(|n| format!("route add 10.{}.{}.{}/32 dev link0 proto bird\n", n >> 16, n >> 8 & 255, n & 255)).collect();
        let mut batch = Command::new("ip");
        batch.args(["-batch", "-"]);
        run(batch, Some(&routes))?;
        let mut daemon = Plan::default().external(2).start()?;
        let late = daemon.peers[1].clone();
        for round in 0..2 {
            daemon.end(Signal::KILL)?;
            daemon.rewrite(&late.name, None)?;
            daemon.spawn_again()?;
            wait_until(WAIT, "the control socket answers", || daemon.api("/v1/problems"))?;
            daemon.rewrite(&late.name, Some(&late))?;
            wait_until(WAIT, "the late peer is known", || daemon.peer_view(&late).with_context(|| format!("round {round}")))?;
        }
        Ok(())
    });
}

/// G1 on the whole daemon: a hundred thousand routes of a life that was killed are found in the kernel, told again by the peer, and none is
/// written.
#[test]
fn g1_a_daemon_that_was_killed_takes_over_a_hundred_thousand_routes_and_writes_none() {
    const ROUTES: u32 = 100_000;
    /// Prefixes of length 24: so many fit a message.
    const MESSAGE: usize = 800;
    enclosed(|| {
        let mut daemon = Plan { kernel: true, ..Plan::default().external(1) }.start()?;
        let plan = daemon.peers[0].clone();
        let prefixes: Vec<String> = (0..ROUTES).map(|n| format!("{}/24", std::net::Ipv4Addr::from(0x1000_0000 + (n << 8)))).collect();
        let messages: Vec<Vec<u8>> = prefixes
            .chunks(MESSAGE)
            .map(|part| announce(&basics(plan.asn), &part.iter().map(String::as_str).collect::<Vec<_>>()))
            .chain([update(&[], &[], &[])])
            .collect();
        let open = plan.open().with(64, &restarts(0, 120, true));
        let tell = |daemon: &Daemon| -> Result<Neighbour> {
            let mut neighbour = wait_until(WAIT, "the peer is taken", || Neighbour::establish_with(daemon, &plan, &open))?;
            neighbour.send(&messages.concat())?;
            Ok(neighbour)
        };
        let written = |daemon: &Daemon| -> Result<u64> {
            let metrics = daemon.api_text("/metrics")?;
            let values = metrics.lines().filter(|line| line.starts_with("margay_kernel_writes_total{"));
            Ok(values.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
        };
        let first = tell(&daemon)?;
        wait_until(LONG, "all are written", || {
            ensure!(written(&daemon)? == u64::from(ROUTES), "{}", written(&daemon)?);
            Ok(())
        })?;
        daemon.end(Signal::KILL)?;
        drop(first);
        daemon.restart()?;
        let _second = tell(&daemon)?;
        // Told again, and the restart over: whatever was not claimed would be swept now.
        wait_until(LONG, "all are the new life's", || {
            ensure!(daemon.api_text("/metrics")?.lines().any(|line| line == "margay_restarting 0"), "the restart is not over");
            let received = daemon.peer_view(&plan)?["families"]["ipv4-unicast"]["received"].as_u64();
            ensure!(received == Some(u64::from(ROUTES)), "{received:?} received");
            for state in ["adopted", "pending", "failed"] {
                let rows = daemon.api(&format!("/v1/kernel?state={state}"))?.as_array().map_or(0, Vec::len);
                ensure!(rows == 0, "{rows} {state}");
            }
            Ok(())
        })?;
        let kernel = Command::new("ip").args(["route", "show", "proto", "12"]).output()?.stdout;
        let kernel = String::from_utf8(kernel)?.lines().count();
        ensure!(kernel == ROUTES as usize, "{kernel} in the kernel");
        ensure!(written(&daemon)? == 0, "{} routes were written", written(&daemon)?);
        daemon.alive()
    });
}
