//! Peer machines as stories: two of them and a link in virtual time.

use std::time::Duration;

use margay::session::{Input, State, StopReason};
use margay::types::{Family, PerFamily};
use proto_tests::story::Pair;

const NONE: PerFamily<bool> = PerFamily { ipv4: false, ipv6: false };
const V4: PerFamily<bool> = PerFamily { ipv4: true, ipv6: false };
const SECOND: Duration = Duration::from_secs(1);

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// F11: started at the same instant, Established within 2 × ConnectRetry + 1 s, and no flap after.
#[test]
fn f11_simultaneous_starts() {
    for seed in 0..300 {
        let mut pair = Pair::new(seed, |_, _| {});
        pair.start();
        pair.run(seconds(11));
        assert_eq!(pair.states(), [State::Established; 2], "seed {seed}");
        pair.run(seconds(600));
        for end in &pair.ends {
            assert_eq!(end.ups().len(), 1, "seed {seed}: {:?}", end.reasons());
            assert_eq!(end.downs(), [], "seed {seed}");
        }
    }
}

/// F11, at its worst: both connect in the same millisecond, again and again.
#[test]
fn f11_truly_simultaneous_connects() {
    for seed in 0..300 {
        let mut pair = Pair::new(seed, |a, b| {
            (a.connect_delay, b.connect_delay) = (Duration::ZERO, Duration::ZERO);
        });
        pair.start();
        pair.run(seconds(11));
        assert_eq!(pair.states(), [State::Established; 2], "seed {seed}: {:?} {:?}", pair.ends[0].reasons(), pair.ends[1].reasons());
        pair.run(seconds(600));
        for end in &pair.ends {
            assert_eq!((end.ups().len(), end.downs().len()), (1, 0), "seed {seed}: {:?}", end.reasons());
        }
    }
}

/// F6: equal identifiers on eBGP are decided by the AS, at both ends alike.
#[test]
fn f6_equal_identifiers() {
    for seed in 0..100 {
        let mut pair = Pair::new(seed, |a, b| {
            (a.connect_delay, b.connect_delay) = (Duration::ZERO, Duration::ZERO);
            b.router_id = a.router_id;
            (b.local_asn, a.remote_asn) = (margay::types::Asn(65001), margay::types::Asn(65001));
        });
        pair.start();
        pair.run(seconds(11));
        assert_eq!(pair.states(), [State::Established; 2], "seed {seed}");
        assert!(pair.ends.iter().all(|end| end.downs().is_empty()), "seed {seed}");
    }
}

/// H1: the same story whatever the cut.
#[test]
fn h1_any_cut() {
    for segment in 1..=64 {
        let mut pair = Pair::new(7, |_, _| {});
        pair.segment = Some(segment);
        pair.establish();
        assert!(pair.ends.iter().all(|end| end.log.iter().any(|(_, output)| matches!(output, margay::session::Output::EndOfRib(_)))));
    }
}

/// F15: a passive peer never connects, and is reached all the same; two passive ones wait for ever.
#[test]
fn f15_passive() {
    let mut pair = Pair::new(1, |_, b| b.passive = true);
    pair.establish();
    let status = pair.ends[1].peer.status(std::time::Instant::now());
    assert_eq!(status.outgoing, Some(false));
    let mut pair = Pair::new(1, |a, b| (a.passive, b.passive) = (true, true));
    pair.start();
    pair.run(seconds(1000));
    assert_eq!(pair.states(), [State::Active; 2]);
}

/// A silent peer: 4/0 after the hold time, its paths stale for its restart time.
#[test]
fn hold_expiry_keeps_paths_for_the_restart_time() {
    let mut pair = Pair::new(3, |_, _| {});
    pair.establish();
    pair.run(seconds(100));
    pair.blackhole = true;
    let before = pair.now();
    pair.run(seconds(91));
    for end in &pair.ends {
        assert_eq!(end.downs(), [V4]);
        assert!(end.reasons().contains(&(4, 0)));
    }
    pair.run(seconds(121));
    for end in &pair.ends {
        let [(at, Family::IPV4_UNICAST)] = end.sweeps()[..] else { panic!("{:?}", end.sweeps()) };
        let after = at - before;
        assert!(after >= seconds(60 + 120) && after <= seconds(90 + 121), "{after:?}");
    }
    pair.blackhole = false;
    pair.run(seconds(60));
    assert_eq!(pair.states(), [State::Established; 2]);
}

/// Section 11, the peer restarted: killed and back in time, End-of-RIB ends the wait.
#[test]
fn restart_in_time() {
    let mut pair = Pair::new(4, |_, _| {});
    pair.establish();
    pair.kill(1);
    pair.run(seconds(20));
    assert_eq!(pair.ends[0].downs(), [V4]);
    assert_eq!(pair.ends[0].sweeps(), []);
    pair.revive(1);
    pair.run(seconds(40));
    assert_eq!(pair.states(), [State::Established; 2]);
    let up = pair.ends[0].ups()[1];
    let [(swept, Family::IPV4_UNICAST)] = pair.ends[0].sweeps()[..] else { panic!("{:?}", pair.ends[0].sweeps()) };
    assert!(swept >= up && swept < up + SECOND, "swept on End-of-RIB: {swept:?} {up:?}");
}

/// Not back in time: the Restart timer sweeps.
#[test]
fn restart_too_late() {
    let mut pair = Pair::new(5, |_, b| b.restart_time = 40);
    pair.establish();
    pair.kill(1);
    let killed = pair.now();
    pair.run(seconds(60));
    let [(swept, Family::IPV4_UNICAST)] = pair.ends[0].sweeps()[..] else { panic!("{:?}", pair.ends[0].sweeps()) };
    assert!(swept >= killed + seconds(40) && swept < killed + seconds(41));
}

/// Back without F: stale paths go at once.
#[test]
fn restart_without_forwarding_state() {
    let mut pair = Pair::new(6, |_, _| {});
    pair.establish();
    pair.kill(1);
    pair.run(SECOND);
    pair.crash(1, false);
    pair.revive(1);
    pair.run(seconds(40));
    let up = pair.ends[0].ups()[1];
    assert_eq!(pair.ends[0].sweeps(), [(up, Family::IPV4_UNICAST)]);
}

/// F8: the peer lost power and is back before we noticed; its new OPEN ends the old session without NOTIFICATION.
#[test]
fn f8_reboot_seen_by_its_new_open() {
    for seed in 0..50 {
        let mut pair = Pair::new(seed, |_, _| {});
        pair.establish();
        pair.run(seconds(5));
        let before = pair.ends[0].reasons().len();
        pair.crash(1, true);
        pair.tell(1, Input::Start);
        pair.run(seconds(10));
        assert_eq!(pair.states(), [State::Established; 2], "seed {seed}");
        assert_eq!(pair.ends[0].downs(), [V4], "seed {seed}");
        assert_eq!(pair.ends[0].reasons()[before..], [(0, 0)], "no NOTIFICATION");
    }
}

/// N on both sides: a reset by the operator keeps the paths, a shutdown is a hard reset.
#[test]
fn g7_reset_is_graceful_and_shutdown_is_hard() {
    let mut pair = Pair::new(10, |_, _| {});
    pair.establish();
    pair.tell(0, Input::Stop(StopReason::AdministrativeReset));
    pair.run(seconds(30));
    assert_eq!(pair.states(), [State::Established; 2]);
    assert_eq!((pair.ends[0].downs(), pair.ends[1].downs()), (vec![V4], vec![V4]));
    assert_eq!(pair.ends[1].reasons().last(), Some(&(6, 4)));
    pair.tell(0, Input::Stop(StopReason::AdministrativeShutdown("bye".to_owned())));
    pair.run(seconds(30));
    assert_eq!(pair.states()[0], State::Idle);
    assert_eq!((pair.ends[0].downs()[1], pair.ends[1].downs()[1]), (NONE, NONE));
    assert!(pair.ends[1].reasons().contains(&(6, 9)));
}

/// Every transcript comes out as it is written.
#[test]
fn transcripts() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts/session");
    proto_tests::transcript::run_folder(&folder).unwrap_or_else(|error| panic!("{error:#}"));
}
