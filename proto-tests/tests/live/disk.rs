//! A disk that is full: what cannot be kept is told, and nothing else changes.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use proto_tests::lab::process::{run, wait_until};
use proto_tests::live::{Observer, Plan, enclosed};
use tempfile::TempDir;

use super::confirm::{announce, confirm, problem};
use super::session::WAIT;

/// A file system of a few pages.
fn small(folder: &Path) -> Result<()> {
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(folder);
    run(mount, None).map(drop)
}

/// Uses up what is left of it.
fn fill(folder: &Path) -> Result<()> {
    for number in 0..64 {
        let path = folder.join(format!("ballast-{number}"));
        if fs::write(&path, [0; 4096]).is_err() {
            // A file without octets takes no page; the next one might find room for it.
            fs::remove_file(path)?;
            break;
        }
    }
    ensure!(fs::write(folder.join("one-more"), [0; 1]).is_err(), "there is room left");
    Ok(())
}

#[test]
fn a_full_disk_costs_no_session_and_no_route() {
    enclosed(|| {
        let folder = TempDir::new()?;
        // Each its own: a recording would take all the room there is.
        let [state, record] = ["state", "record"].map(|name| folder.path().join(name));
        for folder in [&state, &record] {
            fs::create_dir(folder)?;
            small(folder)?;
        }
        let arguments = vec!["--confirm".into(), "10m".into(), "--record".into(), record.display().to_string()];
        let mut daemon = Plan { arguments, state: Some(state.clone()), ..Plan::default().external(2) }.start()?;
        let mut router = Observer::establish(&daemon, &daemon.peers[0])?;
        fill(&state)?;
        fill(&record)?;
        announce(&daemon, "10.96.0.0/16")?;
        router.route("10.96.0.0/16")?;
        problem(&daemon, "No space left on device")?;
        let mut other = Observer::establish(&daemon, &daemon.peers[1])?;
        other.announce("10.1.0.0/16")?;
        router.route("10.1.0.0/16")?;
        ensure!(daemon.peer_view(&daemon.peers[0])?["flaps"] == 0, "a session was lost");

        for file in fs::read_dir(&state)? {
            fs::remove_file(file?.path())?;
        }
        let (done, said) = confirm(&daemon, &[])?;
        ensure!(done, "{said}");
        wait_until(WAIT, "it is kept once there is room", || {
            let kept = fs::read_to_string(state.join("confirmed.json"))?;
            ensure!(kept.contains("10.96.0.0/16"), "{kept}");
            Ok(())
        })?;
        daemon.alive()
    });
}
