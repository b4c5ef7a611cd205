//! Keeps the process below its ceiling of memory (Q2): looks at what is resident, asks the [`MemoryGuard`] machine, and does what it says.
//!
//! The ceiling is what `--memory-limit` says, else three quarters of what there is: the least limit of our control group and of those above it
//! (version 2, or 1), or the machine's memory. The kernel kills at the limit of the group, and counts there what is not resident memory of ours:
//! hence a quarter less.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::node::memory::{DOWN, Look, MemoryGuard, Output};
use crate::runtime::directory::{Directory, PeerEntry};
use crate::runtime::message::PeerMessage;
use crate::runtime::metrics::Metrics;
use crate::session::{Input, StopReason};
use crate::telemetry::{Event, MemoryAct};
use crate::types::Outbox;

/// Of what there is, in percent.
const SHARE: u64 = 75;

/// How much memory the process may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryLimit {
    /// Three quarters of the control group's limit, or of the machine's memory.
    #[default]
    Share,
    /// So many octets.
    Octets(u64),
    /// Whatever it needs.
    None,
}

impl FromStr for MemoryLimit {
    type Err = String;

    /// `none`, or a number of octets with K, M or G behind it (of 1024) or with nothing.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::None);
        }
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let shift = match unit.trim_end_matches("iB") {
            "" => 0,
            "K" | "k" => 10,
            "M" => 20,
            "G" => 30,
            _ => return Err(format!("`{unit}` is no unit: K, M or G")),
        };
        let octets = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
        match octets {
            Some(octets) if octets >= 16 << 20 => Ok(Self::Octets(octets)),
            Some(_) => Err("margay needs 16M at least before it knows a route".to_owned()),
            None => Err(format!("`{text}` is no amount of memory such as `512M`")),
        }
    }
}

impl MemoryLimit {
    /// In octets; none where nothing bounds it.
    pub fn ceiling(self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Octets(octets) => Some(octets),
            Self::Share => {
                let group = fs::read_to_string("/proc/self/cgroup").ok().and_then(|lines| group_limit(&lines, Path::new("/sys/fs/cgroup")));
                let there_is = group.into_iter().chain(machine_memory(&fs::read_to_string("/proc/meminfo").ok()?)).min()?;
                Some(there_is / 100 * SHARE)
            }
        }
    }
}

/// The least limit of the control groups that `/proc/self/cgroup` names and of those above them.
fn group_limit(lines: &str, root: &Path) -> Option<u64> {
    let limits = lines.lines().filter_map(|line| {
        let mut words = line.splitn(3, ':').skip(1);
        let (controllers, path) = (words.next()?, words.next()?.trim_start_matches('/'));
        let (top, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => return None,
        };
        least(&top, path, file)
    });
    limits.min()
}

/// The least number in the files named `file` from `top` down to `path` below it. "max" is no number. In a container the path may be one of the
/// host, which is not there: then only `top` is looked at.
fn least(top: &Path, path: &str, file: &str) -> Option<u64> {
    let mut folder: PathBuf = top.join(path);
    let mut found = Vec::new();
    loop {
        found.extend(fs::read_to_string(folder.join(file)).ok().and_then(|text| text.trim().parse::<u64>().ok()));
        if folder == top || !folder.pop() || !folder.starts_with(top) {
            return found.into_iter().min();
        }
    }
}

fn machine_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Octets resident now, by `/proc/self/status`.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// How memory is, for whoever asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryStatus {
    /// Resident octets at the last look.
    pub resident: u64,
    /// The ceiling in octets.
    pub ceiling: u64,
    /// Peers that are not read.
    pub held: Vec<String>,
}

impl MemoryStatus {
    /// In words, where memory is short.
    pub fn words(&self) -> Option<String> {
        let percent = self.resident.saturating_mul(100).checked_div(self.ceiling)?;
        let not_read = if self.held.is_empty() { String::new() } else { format!(", {} not read", self.held.join(", ")) };
        (percent >= 90 || !self.held.is_empty())
            .then(|| format!("memory is at {percent} % of its ceiling of {} MiB{not_read}", self.ceiling >> 20))
    }
}

/// See the module.
pub struct MemoryGuardTask {
    machine: MemoryGuard,
    directory: watch::Receiver<Arc<Directory>>,
    told: watch::Sender<MemoryStatus>,
    metrics: Metrics,
}

impl MemoryGuardTask {
    /// Starts to guard, and tells in the directory how memory is; nothing where nothing bounds it.
    pub fn start(limit: MemoryLimit, directory: &watch::Sender<Arc<Directory>>, metrics: &Metrics) {
        let Some(ceiling) = limit.ceiling() else { return };
        info!(mebibytes = ceiling >> 20, "the ceiling of memory: at it the peer with the most paths is told to go");
        let (told, memory) = watch::channel(MemoryStatus { ceiling, ..MemoryStatus::default() });
        directory.send_modify(|now| *now = Arc::new(Directory { memory: Some(memory), ..Directory::clone(now) }));
        let task = Self { machine: MemoryGuard::new(ceiling), directory: directory.subscribe(), told, metrics: metrics.clone() };
        tokio::spawn(task.run());
    }

    async fn run(mut self) {
        let mut out = Outbox::new();
        // A kernel without /proc tells nothing: there is nothing to guard by, then.
        while let Some(resident) = fs::read_to_string("/proc/self/status").ok().and_then(|status| resident(&status)) {
            let directory = Arc::clone(&self.directory.borrow());
            // Cold cache lines of every peer, each second: only where it matters.
            let counted = (!self.machine.is_calm(resident)).then(|| directory.peers.values());
            let paths = counted.into_iter().flatten().map(|entry| (entry.id, *entry.paths.borrow())).collect();
            self.machine.handle(Instant::now(), &Look { resident, paths }, &mut out);
            for output in out.drain() {
                carry_out(&directory, output, resident, self.machine.ceiling()).await;
            }
            self.tell(&directory, resident);
            tokio::time::sleep(self.machine.pace(resident)).await;
        }
    }

    fn tell(&self, directory: &Directory, resident: u64) {
        let ceiling = self.machine.ceiling();
        self.metrics.memory(resident, ceiling);
        let held = self.machine.held().filter_map(|peer| directory.peer_name(peer)).map(str::to_owned).collect();
        self.told.send_replace(MemoryStatus { resident, ceiling, held });
    }
}

async fn carry_out(directory: &Directory, output: Output, resident: u64, ceiling: u64) {
    let (peer, act) = match output {
        Output::Hold(peer) => (peer, MemoryAct::Held),
        Output::Release(peer) => (peer, MemoryAct::Released),
        Output::Stop(peer) => (peer, MemoryAct::Stopped),
    };
    // Gone in the meantime, and what it had with it.
    let Some((name, entry)) = directory.numbered(peer) else { return };
    let event = Event::Memory { peer: name.to_owned(), act, resident, ceiling };
    warn!(peer = name, "{event}");
    match act {
        MemoryAct::Stopped => {
            let text = format!("memory is at its ceiling of {} MiB, and no peer has told more paths", ceiling >> 20);
            say(entry, PeerMessage::Hold(false)).await;
            say(entry, PeerMessage::Input(Box::new(Input::Stop(StopReason::OutOfResources { text, after: DOWN })))).await;
        }
        _ => say(entry, PeerMessage::Hold(act == MemoryAct::Held)).await,
    }
    if let Some(chronicle) = &directory.chronicle {
        chronicle.metrics().memory_act(act);
        chronicle.tell(event);
    }
}

/// A peer's task takes messages whatever else it waits for; one that has ended needs none.
async fn say(entry: &PeerEntry, message: PeerMessage) {
    let _ = entry.inbox.send(message).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_as_people_write_them() {
        assert_eq!("none".parse(), Ok(MemoryLimit::None));
        for (text, octets) in [("512M", 512 << 20), ("2GiB", 2 << 30), ("20480K", 20 << 20), ("67108864", 64 << 20)] {
            assert_eq!(text.parse(), Ok(MemoryLimit::Octets(octets)), "{text}");
        }
        for text in ["", "much", "5T", "-1M", "15M", "99999999999999999999G", "17179869184G"] {
            assert!(text.parse::<MemoryLimit>().is_err(), "{text}");
        }
        assert_eq!(MemoryLimit::None.ceiling(), None);
        assert_eq!(MemoryLimit::Octets(1 << 30).ceiling(), Some(1 << 30));
        assert!(MemoryLimit::Share.ceiling().is_some_and(|octets| octets > 64 << 20));
    }

    #[test]
    fn the_least_limit_of_the_groups_counts() {
        let root = std::env::temp_dir().join(format!("margay-cgroup-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let file = root.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write("system.slice/memory.max", "4000\n");
        write("system.slice/margay.service/memory.max", "max\n");
        write("memory/pods/one/memory.limit_in_bytes", "3000\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        let limit = |lines: &str| group_limit(lines, &root);
        assert_eq!(limit("0::/system.slice/margay.service\n"), Some(4000));
        assert_eq!(limit("0::/\n"), None);
        assert_eq!(limit("4:cpu,cpuacct:/pods/one\n3:memory:/pods/one\n0::/system.slice\n"), Some(3000));
        assert_eq!(limit("3:memory:/a/path/of/the/host\n"), Some(9_223_372_036_854_771_712), "as a container sees it");
        assert_eq!(limit(""), None);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_the_kernel_says_of_memory() {
        assert_eq!(machine_memory("MemTotal:       24689764 kB\nMemFree: 1 kB\n"), Some(24_689_764 * 1024));
        assert_eq!(machine_memory("MemFree: 1 kB\n"), None);
        assert_eq!(resident("Name:\tmargay\nVmRSS:\t   20480 kB\n"), Some(20 << 20));
        assert!(resident(&fs::read_to_string("/proc/self/status").unwrap()).is_some_and(|octets| octets > 1 << 20));
    }

    #[test]
    fn short_memory_is_said() {
        let status =
            |resident, held: &[&str]| MemoryStatus { resident, ceiling: 100 << 20, held: held.iter().map(|&name| name.into()).collect() };
        assert_eq!(status(50 << 20, &[]).words(), None);
        let words = status(95 << 20, &["tor"]).words();
        assert_eq!(words.as_deref(), Some("memory is at 95 % of its ceiling of 100 MiB, tor not read"));
    }
}
