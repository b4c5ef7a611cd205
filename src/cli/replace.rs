//! `margay run --replace`: an upgrade in place. The daemon that runs makes room for this one, as for a restart: its sessions close without a
//! NOTIFICATION, its routes stay in the kernel, and this one adopts them.
//!
//! What can fail is tried before: only a margay that has a configuration to run with ends the one that runs. The old one is found by the
//! control socket and ended with SIGTERM, so it may be of any version, and whoever may send it a signal may replace it: its own user, and root.

use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;
use tokio::runtime::Runtime;
use tracing::info;

use crate::cli::Failure;
use crate::cli::client::{Reply, Target};
use crate::runtime::rehearsal::rehearse;
use crate::runtime::settings::Settings;

/// How long the datastore may take to tell everything, before the daemon that runs is left alone.
const REHEARSAL: Duration = Duration::from_secs(60);
/// How long the daemon that runs may take to answer whose it is.
const ANSWER: Duration = Duration::from_secs(10);
/// How long it may take to end.
const END: Duration = Duration::from_secs(10);

/// Ends the daemon that answers on our control socket, if there is one and this process can take its place.
pub fn make_room(settings: &Settings, runtime: &Runtime) -> Result<(), Failure> {
    let target = Target::at(settings.socket.clone());
    let Some(predecessor) = Predecessor::find(&target)? else { return Ok(()) };
    predecessor.is_ours_to_end(&target, settings)?;
    runtime.block_on(rehearse(settings, REHEARSAL)).context("not replaced, the daemon that runs goes on")?;
    Ok(predecessor.end()?)
}

/// The daemon that runs.
struct Predecessor {
    /// Its process id, for words.
    id: i32,
    /// The process itself: an id may become another's.
    process: OwnedFd,
}

impl Predecessor {
    fn find(target: &Target) -> anyhow::Result<Option<Self>> {
        if !target.answers() {
            return Ok(None);
        }
        let elsewhere = || anyhow!("the daemon that runs is in another PID namespace: end it there, then start this one");
        let id = target.daemon().ok_or_else(elsewhere)?;
        let pid = Pid::from_raw(id).ok_or_else(elsewhere)?;
        let process = pidfd_open(pid, PidfdFlags::empty()).with_context(|| format!("cannot watch the daemon that runs (process {id})"))?;
        // Had the id become another's between the question and the answer, the socket would say so now.
        ensure!(target.daemon() == Some(id), "the daemon that runs has just ended: start this one again");
        Ok(Some(Self { id, process }))
    }

    fn is_ours_to_end(&self, target: &Target, settings: &Settings) -> anyhow::Result<()> {
        let health = match target.get_within::<Value>(ANSWER, "/v1/health") {
            Ok(Reply::Found(health)) => health,
            // Of an old version, or hung: no reason to keep it.
            Ok(Reply::Missing(_)) | Err(_) => return Ok(()),
        };
        let (node, ours) = (health["node"].as_str().unwrap_or_default(), &settings.datastore.node);
        ensure!(node == ours, "the daemon that runs is that of node `{node}`, this one would be `{ours}`: give this one its own --socket");
        if health["managed"] == true {
            bail!(
                "the daemon that runs (process {}) has a service manager, which would start it again beside this one: put the new binary in \
                 its place and let the manager restart it (`systemctl restart margay`)",
                self.id
            );
        }
        Ok(())
    }

    fn end(self) -> anyhow::Result<()> {
        info!(process = self.id, "taking the place of the daemon that runs");
        pidfd_send_signal(&self.process, Signal::TERM)
            .with_context(|| format!("not replaced: cannot send SIGTERM to the daemon that runs (process {}): use root", self.id))?;
        let mut ends = [PollFd::new(&self.process, PollFlags::IN)];
        let patience = Timespec::try_from(END).context("a time that the system can tell")?;
        let ended = poll(&mut ends, Some(&patience)).context("waiting for the daemon that runs to end")?;
        ensure!(
            ended == 1,
            "the daemon that runs has not ended {} s after SIGTERM: end it (kill -9 {}), and start this one again",
            END.as_secs(),
            self.id
        );
        Ok(())
    }
}
