//! A change of the files on trial: it counts at once, and is undone unless somebody confirms it.

use std::fs;

use anyhow::{Context, Result, ensure};
use proto_tests::lab::process::{Signal, wait_until};
use proto_tests::live::daemon::{Daemon, replace};
use proto_tests::live::{Observer, Plan, enclosed};

use super::session::WAIT;

/// A range of services in the cluster's configuration: whether it is announced shows which files count.
pub(crate) fn announce(daemon: &Daemon, range: &str) -> Result<()> {
    let base = daemon.resources().join("base.yaml");
    let before = fs::read_to_string(&base)?;
    let (head, rest) = before.split_once("nodeToNodeMeshEnabled: false").context("no BGPConfiguration")?;
    let rest = rest.split_once("}]").filter(|_| rest.starts_with(", serviceClusterIPs")).map_or(rest, |(_, rest)| rest);
    replace(&base, &format!("{head}nodeToNodeMeshEnabled: false, serviceClusterIPs: [{{cidr: {range}}}]{rest}"))
}

/// What `margay confirm …` said, and whether it did something.
pub(crate) fn confirm(daemon: &Daemon, flags: &[&str]) -> Result<(bool, String)> {
    let output = daemon.margay(&[&["confirm"], flags].concat())?;
    Ok((output.status.success(), String::from_utf8([output.stdout, output.stderr].concat())?))
}

pub(crate) fn problem(daemon: &Daemon, words: &str) -> Result<()> {
    wait_until(WAIT, words, || {
        let problems = daemon.api_text("/v1/problems")?;
        ensure!(problems.contains(words), "{problems}");
        Ok(())
    })
}

#[test]
fn a_change_that_nobody_confirms_is_undone_and_a_confirmed_one_stays() {
    enclosed(|| {
        let arguments = vec!["--confirm".to_owned(), "2s".to_owned()];
        let daemon = Plan { arguments, ..Plan::default().external(1) }.start()?;
        let mut router = Observer::establish(&daemon, &daemon.peers[0])?;
        let (done, said) = confirm(&daemon, &[])?;
        ensure!(!done && said.contains("nothing to confirm"), "{said}");

        announce(&daemon, "10.96.0.0/16")?;
        router.route("10.96.0.0/16").context("it counts at once")?;
        router.no_route("10.96.0.0/16").context("and is undone")?;
        problem(&daemon, "a change of the files was undone")?;

        let (done, said) = confirm(&daemon, &[])?;
        ensure!(done && said.contains("Confirmed"), "{said}");
        router.route("10.96.0.0/16").context("it was right after all")?;

        announce(&daemon, "10.97.0.0/16")?;
        router.route("10.97.0.0/16")?;
        let (done, said) = confirm(&daemon, &["--undo"])?;
        // Its two seconds may be over already.
        ensure!(done || said.contains("undone already"), "{said}");
        router.route("10.96.0.0/16").context("what was confirmed last counts again")?;
        router.no_route("10.97.0.0/16")
    });
}

#[test]
fn a_restart_in_the_middle_knows_what_to_go_back_to() {
    enclosed(|| {
        let mut daemon = Plan::default().external(1).start()?;
        let mut router = Observer::establish(&daemon, &daemon.peers[0])?;
        announce(&daemon, "10.96.0.0/16")?;
        router.route("10.96.0.0/16").context("without --confirm it counts for good")?;
        let (done, said) = confirm(&daemon, &["--next", "3s"])?;
        ensure!(done && said.contains("within 3 s"), "{said}");
        announce(&daemon, "10.97.0.0/16")?;
        router.route("10.97.0.0/16")?;
        problem(&daemon, "nobody has confirmed it yet")?;
        drop(router);
        daemon.end(Signal::KILL)?;
        daemon.restart()?;
        let mut router = Observer::establish(&daemon, &daemon.peers[0])?;
        router.route("10.96.0.0/16").context("what was confirmed last counts again, a process later")?;
        router.no_route("10.97.0.0/16")?;
        problem(&daemon, "a change of the files was undone")
    });
}
