//! The namespaces that a live test runs in: a network of its own, and mounts that nobody else sees.

use std::env;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::Result;

use super::daemon;
use crate::lab::skip::{pass_on, skipped};
use crate::lab::suite::chain;
use crate::lab::{image, process};

/// Set inside.
const INSIDE: &str = "MARGAY_LIVE_TEST";

/// What a namespace holds: addresses of margay and its neighbours on the loopback (127/8 is there), and a link whose subnets next
/// hops lie in.
const FURNISH: &str = "\
link set lo up
link add link0 type veth peer name link1
link set link1 up
link set link0 up
addr add 192.0.2.1/24 dev link0
addr add 2001:db8:2::1/64 dev link0 nodad
addr add 2001:db8:7::1/128 dev lo
";

/// Runs the calling test in a network namespace of its own, where every address and port is free: the test program is started
/// again for this one test. With [`message`](super::message) constants in mind, `192.0.2.66` and `2001:db8:2::66` are next hops
/// that resolve there.
///
/// # Panics
/// If the test fails inside, or if there can be no namespace and `CI` is set (else the test says SKIPPED).
pub fn enclosed(body: impl FnOnce() -> Result<()>) {
    if env::var_os(INSIDE).is_some() {
        furnish();
        if let Err(error) = body() {
            panic!("{}\n{}", chain(&error), daemon::last_words());
        }
        return;
    }
    let thread = std::thread::current();
    let test = thread.name().expect("libtest names the thread of a test after it");
    let Some(options) = namespace() else {
        assert!(env::var_os("CI").is_none(), "{test} needs a network namespace: run as root or allow user namespaces");
        skipped(test, "it needs a network namespace: run as root or allow user namespaces");
        return;
    };
    build();
    // Whoever ends this program ends what it started: neither setpriv nor unshare forks.
    let output = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "unshare"])
        .args(options)
        .arg("--")
        .arg(env::current_exe().expect("the path of this program"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .expect("setpriv and unshare (package util-linux)");
    pass_on(&String::from_utf8_lossy(&output.stdout));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // Set back, so that nobody who counts results counts it twice.
    let quoted = text.replace('\n', "\n  ");
    assert!(output.status.success() && text.contains("1 passed"), "{test} failed inside its namespace:\n  {quoted}");
}

/// How to make a namespace here, if it is possible.
fn namespace() -> Option<&'static [&'static str]> {
    static OPTIONS: OnceLock<Option<&'static [&'static str]>> = OnceLock::new();
    *OPTIONS.get_or_init(|| {
        let works = |options: &[&str]| Command::new("unshare").args(options).arg("true").output().is_ok_and(|o| o.status.success());
        [&["--net", "--mount"][..], &["--map-root-user", "--net", "--mount"]].into_iter().find(|options| works(options))
    })
}

fn build() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| image::build_margay().expect("margay builds"));
}

/// Gives the network namespace of this process addresses and a link.
///
/// # Panics
/// Without `ip`, or where there are some already.
pub fn furnish() {
    let neighbours: String = (0x0a..0x40).map(|last| format!("addr add 2001:db8:7::{last:x}/128 dev lo\n")).collect();
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]);
    process::run(command, Some(&[FURNISH, &neighbours].concat())).expect("ip (package iproute2)");
}
