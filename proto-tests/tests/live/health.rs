//! What the daemon says of its own health: on the control socket, by its exit code, and to the service manager.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use proto_tests::lab::process::wait_until;
use proto_tests::lab::skip::skipped;
use proto_tests::live::daemon::program;
use proto_tests::live::{Daemon, Neighbour, Plan, ServiceManager, enclosed};
use rustix::process::Signal;
use serde_json::Value;

use crate::session::WAIT;

/// What a service manager puts into the environment.
fn environment(manager: &ServiceManager, watchdog: Option<Duration>) -> Vec<(String, String)> {
    let socket = ("NOTIFY_SOCKET".to_owned(), manager.path().display().to_string());
    let watchdog = watchdog.map(|time| ("WATCHDOG_USEC".to_owned(), time.as_micros().to_string()));
    [socket].into_iter().chain(watchdog).collect()
}

#[test]
fn the_service_manager_hears_of_start_sessions_changes_and_end() {
    enclosed(|| {
        let manager = ServiceManager::new(WAIT)?;
        let plan = Plan { environment: environment(&manager, None), ..Plan::default().external(2) };
        let mut daemon = plan.start()?;
        let before = manager.wait_for("READY=1")?;
        ensure!(before.iter().all(|said| said.starts_with("STATUS=")), "before it serves: {before:?}");
        manager.wait_for("STATUS=0 of 2 sessions Established; no problems; files in sync")?;

        let _neighbour = Neighbour::establish(&daemon, &daemon.peers[0].clone())?;
        manager.wait_for("STATUS=1 of 2 sessions Established; no problems")?;
        let bad = "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: bad}\nspec: {peerIP: nonsense, asNumber: 1}\n";
        std::fs::write(daemon.resources().join("bad.yaml"), bad)?;
        manager.wait_for("; 1 problem, an error")?;

        daemon.rewrite(&daemon.peers[1].name.clone(), None)?;
        manager.wait_for("RELOADING=1\nMONOTONIC_USEC=")?;
        manager.wait_for("READY=1")?;
        manager.wait_for("STATUS=1 of 1 sessions Established")?;

        // Another margay may not take its place: the manager would start it again beside that one.
        let other = daemon.margay(&["run", "--node", "bench", "--dry-run", "--replace"])?;
        let words = String::from_utf8_lossy(&other.stderr).into_owned();
        ensure!(
            !other.status.success() && words.contains("has a service manager") && words.contains("systemctl restart margay"),
            "{words}"
        );
        daemon.alive()?;

        daemon.end(Signal::TERM)?;
        let before = manager.wait_for("STOPPING=1")?;
        ensure!(before.iter().all(|said| !said.contains("WATCHDOG")), "no watchdog was asked for: {before:?}");
        Ok(())
    });
}

#[test]
fn a_daemon_without_a_configuration_is_ready_and_says_what_it_waits_for() {
    enclosed(|| {
        let manager = ServiceManager::new(WAIT)?;
        let folder = tempfile::tempdir()?;
        let (resources, socket) = (folder.path().join("resources"), folder.path().join("socket"));
        std::fs::create_dir(&resources)?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program()?)
            .args(["run", "--node", "nobody", "--dry-run", "--resources"])
            .arg(&resources)
            .arg("--socket")
            .arg(&socket)
            .arg("--state")
            .arg(folder.path().join("state"))
            .envs(environment(&manager, None))
            .stderr(Stdio::null())
            .spawn()?;
        let _ended = Ended(child);
        manager.wait_for("READY=1")?;
        let (code, health) = show_health(&socket)?;
        ensure!(code == Some(1) && health["live"] == true && health["ready"] == false, "{health}");
        let because = health["because"].as_str().context("no reason")?;
        ensure!(because.starts_with("no configuration: Node `nobody` has not been seen"), "{because}");
        manager.wait_for(because)?;
        Ok(())
    });
}

/// Ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Exit code and JSON of `margay show health`.
fn show_health(socket: &Path) -> Result<(Option<i32>, Value)> {
    let output = Command::new(program()?).args(["show", "health", "--json", "--socket"]).arg(socket).output()?;
    Ok((output.status.code(), serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?))
}

#[test]
fn health_says_who_is_down_and_livez_does_not_care() {
    enclosed(|| {
        let daemon = Plan::default().external(2).start()?;
        let (code, health) = show_health(&daemon.socket())?;
        ensure!(code == Some(1) && health["live"] == true && health["ready"] == false, "{health}");
        ensure!(health["sessions"]["down"].as_array().is_some_and(|down| down.len() == 2), "{health}");
        let because = health["because"].as_str().context("no reason")?;
        ensure!(daemon.api_text("/readyz")? == format!("{because}\n"), "one answer in every form");
        ensure!(daemon.api_text("/livez")? == "ok\n", "no peer is needed to be alive");

        let _neighbour = Neighbour::establish(&daemon, &daemon.peers[0].clone())?;
        let (code, health) = show_health(&daemon.socket())?;
        ensure!(code == Some(0) && health["ready"] == true && health["because"].is_null(), "{health}");
        ensure!(health["sessions"]["established"] == 1 && health["datastore"]["state"] == "in-sync", "{health}");
        ensure!(daemon.api_text("/readyz")? == "ready\n");
        Ok(())
    });
}

/// The thread of `daemon` with this name, as the system numbers it.
fn thread(daemon: &Daemon, name: &str) -> Result<String> {
    for task in std::fs::read_dir(format!("/proc/{}/task", daemon.id()))? {
        let task = task?;
        if std::fs::read_to_string(task.path().join("comm"))?.trim() == name {
            return Ok(task.file_name().to_string_lossy().into_owned());
        }
    }
    bail!("no thread {name}")
}

#[test]
fn a_machine_that_hangs_starves_the_watchdog_and_fails_livez() {
    enclosed(|| {
        let manager = ServiceManager::new(WAIT)?;
        let plan = Plan { environment: environment(&manager, Some(Duration::from_secs(2))), ..Plan::default().external(1) };
        let daemon = plan.start()?;
        for _ in 0..3 {
            manager.wait_for("WATCHDOG=1")?;
        }
        // Every system call of that one thread takes minutes from now on.
        let hold = ["-q", "-e", "trace=all", "-e", "inject=all:delay_enter=600000000", "-o", "/dev/null", "-p"];
        let tracer = Command::new("strace").args(hold).arg(thread(&daemon, "bfd")?).stderr(Stdio::null()).spawn();
        let Ok(tracer) = tracer else { bail!("strace (package strace)") };
        let mut tracer = Ended(tracer);
        let hung = wait_until(WAIT, "livez fails", || {
            if let Some(status) = tracer.0.try_wait()? {
                return Ok(Some(status));
            }
            ensure!(daemon.api_text("/livez")? == "no answer of bfd: part of the daemon hangs\n");
            Ok(None)
        })?;
        if let Some(status) = hung {
            skipped(
                "a_machine_that_hangs_starves_the_watchdog_and_fails_livez",
                &format!("one thread cannot be held here: strace ended, {status}"),
            );
            return Ok(());
        }
        let (code, health) = show_health(&daemon.socket())?;
        ensure!(code == Some(1) && health["live"] == false && health["silent"] == serde_json::json!(["bfd"]), "{health}");
        manager.wait_for("STATUS=hangs: no answer of bfd; ")?;
        // Two watchdog times pass in silence.
        manager.until_silent(Duration::from_secs(4), |said| {
            ensure!(!said.contains("WATCHDOG=1"), "the watchdog is fed though a machine hangs");
            Ok(())
        })?;
        drop(tracer);
        manager.wait_for("WATCHDOG=1")?;
        wait_until(WAIT, "livez is well again", || {
            ensure!(daemon.api_text("/livez")? == "ok\n");
            Ok(())
        })
    });
}
