//! The namespaces of one node: network, mounts and host name, held open by an idle process.
//!
//! The node sees the host's files; `/run` is its own and empty, and in `/etc`, `/var/lib` and `/var/log` it may write without the host
//! noticing. (Layers on layers are limited to two, and the host may be a container: so no layer over `/` or all of `/var`.)

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::process;
use super::topology::Bind;

/// What a node looks like from inside: a fresh `/run`, writable layers over three folders, a name, the loopback up.
const FURNISH: &str = "\
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/lock
for d in /etc /var/lib /var/log; do
  mkdir -p /run/.lab$d/upper /run/.lab$d/work
  mount -t overlay -o lowerdir=$d,upperdir=/run/.lab$d/upper,workdir=/run/.lab$d/work overlay $d
done
mount -t sysfs sysfs /sys 2>/dev/null || true
hostname \"$1\"
ip link set lo up";

/// Mounts `$1` on `$2`, which is made if it is not there; read-only if `$3` is `ro`.
const BIND: &str = "\
if [ -d \"$1\" ]; then mkdir -p \"$2\"; else mkdir -p \"$(dirname \"$2\")\"; [ -e \"$2\" ] || : > \"$2\"; fi
mount --bind \"$1\" \"$2\"
[ \"$3\" = rw ] || mount -o remount,bind,ro \"$2\"";

/// The namespaces of a node. Dropping those that this process made ends every process in them.
#[derive(Debug)]
pub struct Namespace {
    holder: Holder,
    env: BTreeMap<String, String>,
}

/// The idle process that holds the namespaces open.
#[derive(Debug)]
enum Holder {
    /// Our child: its end is ours to bring about.
    Own(Child),
    /// Somebody else's, found by its id: left alone.
    Found(u32),
    /// None: a container has them, and its engine is asked.
    Container(String),
}

impl Namespace {
    /// Makes the namespaces; the network is that of `share` if given.
    pub fn create(name: &str, share: Option<&Self>, env: BTreeMap<String, String>) -> Result<Self> {
        let mut command = match share {
            Some(other) => {
                let mut command = Command::new("nsenter");
                command.args(["--target", &other.pid().to_string(), "--net", "--", "unshare"]);
                command
            }
            None => {
                let mut command = Command::new("unshare");
                command.arg("--net");
                command
            }
        };
        // `cat` waits for the end of its input: it goes when the runner closes the pipe, even if it can do nothing else any more.
        command.args(["--mount", "--uts", "--propagation", "private", "--", "sh", "-c", "echo ready && exec cat"]);
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot run unshare (package util-linux)")?;
        let mut line = String::new();
        if let Some(stdout) = holder.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let namespace = Self { holder: Holder::Own(holder), env };
        anyhow::ensure!(line == "ready\n", "cannot make namespaces for {name}: see the message of unshare above");
        namespace.script(FURNISH, &[name])?;
        Ok(namespace)
    }

    /// Those that another process made, and keeps.
    pub fn found(holder: u32, env: BTreeMap<String, String>) -> Self {
        Self { holder: Holder::Found(holder), env }
    }

    /// Those of a container of that name.
    pub fn container(name: String) -> Self {
        Self { holder: Holder::Container(name), env: BTreeMap::new() }
    }

    /// The process that holds the namespaces open; 0 (which is none) where an engine does.
    pub fn pid(&self) -> u32 {
        match &self.holder {
            Holder::Own(child) => child.id(),
            Holder::Found(pid) => *pid,
            Holder::Container(_) => 0,
        }
    }

    /// A command that runs in the node with the node's environment.
    pub fn command<S: AsRef<str>>(&self, words: &[S]) -> Command {
        if let Holder::Container(name) = &self.holder {
            let mut command = Command::new("docker");
            command.args(["exec", "--interactive", name]).args(words.iter().map(AsRef::as_ref));
            return command;
        }
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid().to_string(), "--net", "--mount", "--uts", "--wd=/", "--"]);
        command.args(words.iter().map(AsRef::as_ref)).env_clear().envs(&self.env);
        command
    }

    /// Makes a file or folder of the host visible in the node.
    pub fn bind(&self, bind: &Bind) -> Result<()> {
        let Bind { source, target, read_only } = bind;
        anyhow::ensure!(source.exists(), "bind: there is no {} on the host", source.display());
        let words = [source.display().to_string(), target.display().to_string()];
        self.script(BIND, &[&words[0], &words[1], if *read_only { "ro" } else { "rw" }]).with_context(|| {
            format!("bind {}: the path in the node must exist on the host or be in /etc, /var/lib or /run", target.display())
        })
    }

    fn script(&self, text: &str, arguments: &[&str]) -> Result<()> {
        let words: Vec<&str> = ["sh", "-ec", text, "sh"].iter().chain(arguments).copied().collect();
        process::run(self.command(&words), None).map(|_| ())
    }

    /// Every process in the node, the holder excluded.
    pub fn processes(&self) -> Vec<u32> {
        let mut pids = process::sharing(self.pid(), "mnt");
        pids.retain(|pid| *pid != self.pid());
        pids
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !matches!(self.holder, Holder::Own(_)) {
            return;
        }
        // A process may fork while we look: look again until there is none, but not for ever.
        for _ in 0..20 {
            let left: Vec<u32> = self.processes().into_iter().filter(|pid| process::alive(*pid)).collect();
            if left.is_empty() {
                break;
            }
            left.into_iter().for_each(|pid| process::signal(pid, Signal::KILL));
        }
        if let Holder::Own(holder) = &mut self.holder {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}
