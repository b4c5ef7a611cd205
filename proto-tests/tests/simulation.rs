//! Networks in virtual time: fixed seeds, those that once failed, fresh ones; and proof that a mistake would be found.

use std::time::{Duration, Instant};

use margay::rib::Step;
use proto_tests::sim::process::Mistake;
use proto_tests::sim::script::{Run, run};
use proto_tests::sim::spec::Spec;

/// Seeds within which a mistake must show.
const SEEDS: u64 = 200;

fn spec(name: &str) -> Spec {
    Spec::named(name).unwrap()
}

fn all_well(name: &str, seeds: impl IntoIterator<Item = u64>) {
    let spec = spec(name);
    for seed in seeds {
        if let Err(failure) = run(&spec, Run::of(seed)) {
            panic!("{failure}");
        }
    }
}

#[test]
fn three_nodes_and_a_router() {
    all_well("quickstart", 0..8);
}

#[test]
fn reflectors_and_clients() {
    all_well("route-reflector", 0..5);
}

#[test]
fn a_mesh_of_eight() {
    all_well("mesh8", 0..2);
}

#[test]
fn two_routers_with_multipath() {
    all_well("dual-tor-ecmp", 0..5);
}

/// A day in which something goes wrong every two minutes.
#[test]
fn a_day_of_trouble() {
    let report = run(&spec("quickstart"), Run { day: true, ..Run::of(1) }).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(report.time >= Duration::from_secs(24 * 3600) && report.faults > 500, "{report:?}");
}

/// BFD beside every session, of which one packet in fifty is lost.
#[test]
fn nodes_with_bfd() {
    all_well("bfd", 0..5);
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let spec = spec("quickstart");
    let digest = |seed| run(&spec, Run::of(seed)).unwrap_or_else(|failure| panic!("{failure}")).digest;
    assert_eq!(digest(4), digest(4));
    assert_ne!(digest(4), digest(5));
}

#[test]
fn what_once_failed_does_not_again() {
    for line in include_str!("../seeds.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let mut words = line.split(' ');
        let (name, seed) = (words.next().unwrap(), words.next().unwrap().parse().unwrap());
        all_well(name, [seed]);
    }
}

/// Two minutes in CI, a few seconds elsewhere.
#[test]
fn fresh_seeds() {
    let time = Duration::from_secs(if std::env::var_os("CI").is_some() { 120 } else { 5 });
    let first = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() * 1000;
    let specs = ["quickstart", "route-reflector", "dual-tor-ecmp", "bfd", "mesh8"].map(spec);
    let (end, mut seed) = (Instant::now() + time, first);
    while Instant::now() < end {
        if let Err(failure) = run(&specs[(seed % 5) as usize], Run::of(seed)) {
            panic!("{failure}");
        }
        seed += 1;
    }
    println!("fresh seeds {first} to {}", seed - 1);
}

/// The first seed that finds it.
fn found(name: &str, how: impl Fn(u64) -> Run) -> u64 {
    let spec = spec(name);
    let seed = (0..SEEDS).find(|seed| run(&spec, how(*seed)).is_err());
    seed.unwrap_or_else(|| panic!("not found within {SEEDS} seeds"))
}

#[test]
fn a_lost_withdrawal_is_found() {
    let seed = found("quickstart", |seed| Run { mistake: Some(Mistake::LostWithdrawal), ..Run::of(seed) });
    println!("found by seed {seed}");
}

#[test]
fn a_skipped_sweep_is_found() {
    let seed = found("quickstart", |seed| Run { mistake: Some(Mistake::SkippedSweep), ..Run::of(seed) });
    println!("found by seed {seed}");
}

/// The decision cannot be broken from outside; so the oracle is, and the machines, which decide right, must be found to differ.
#[test]
fn a_wrong_step_of_the_decision_is_found() {
    let seed = found("dual-tor-ecmp", |seed| Run { wrong_step: Some(Step::RouterId), ..Run::of(seed) });
    println!("found by seed {seed}");
}
