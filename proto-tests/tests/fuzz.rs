//! Each fuzzing body with a bounded number of inputs, the same ones each time; or with one file: `FUZZ_INPUT=FILE`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proto_tests::fuzz::Target;

/// Runs a target; what breaks it is printed as Rust would write it, to become a seed.
fn run(name: &str, count: usize) {
    let target = Target::named(name).unwrap();
    if let Some(file) = std::env::var_os("FUZZ_INPUT") {
        return (target.body)(&std::fs::read(file).unwrap());
    }
    let mut inputs = 0;
    for input in target.inputs(count) {
        inputs += 1;
        if catch_unwind(AssertUnwindSafe(|| (target.body)(&input))).is_err() {
            panic!("{name} broke on {input:?}, that is {:?}", String::from_utf8_lossy(&input));
        }
    }
    assert!(inputs > count, "there are no seeds");
}

#[test]
fn message() {
    run("message", 20_000);
}

#[test]
fn session() {
    run("session", 3_000);
}

#[test]
fn rib() {
    run("rib", 1_500);
}

#[test]
fn selector() {
    run("selector", 30_000);
}

#[test]
fn resources() {
    run("resources", 2_000);
}

#[test]
fn netlink() {
    run("netlink", 100_000);
}

#[test]
fn bird() {
    run("bird", 50_000);
}

#[test]
fn control() {
    run("control", 1_500);
}
