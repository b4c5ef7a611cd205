//! One side: the nodes under test in their namespaces, the outside, the speakers, the observers.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::bird;
use super::case::{Bird, Case, Edit, Node, Step};
use super::observer::{Command, Observers};
use super::snapshot;
use crate::lab::image;
use crate::lab::namespace::Namespace;
use crate::lab::process;

/// Who speaks on a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// BIRD 1.6 as Calico configures it.
    Bird,
    /// margay with Calico's resources.
    Margay,
}

/// A side, running until it is dropped.
pub struct Bench {
    case: Case,
    speaker: Speaker,
    // Observers and programs go before the namespaces they run in.
    observers: Option<Observers>,
    programs: Vec<Child>,
    nodes: BTreeMap<String, Namespace>,
    outside: Namespace,
    folder: TempDir,
    /// The resources have changed: peers may be gone.
    edited: Cell<bool>,
}

/// Forwarding on; no duplicate address detection, whose second would be ours.
const SETTINGS: [&str; 9] = [
    "sysctl",
    "-q",
    "-w",
    "net.ipv4.ip_forward=1",
    "net.ipv6.conf.all.disable_ipv6=0",
    "net.ipv6.conf.default.disable_ipv6=0",
    "net.ipv6.conf.all.accept_dad=0",
    "net.ipv6.conf.default.accept_dad=0",
    "net.ipv6.conf.all.forwarding=1",
];

impl Bench {
    /// Brings a side up and starts everything.
    pub fn up(case: &Case, speaker: Speaker) -> Result<Self> {
        let target = image::repository().join("target/lab");
        std::fs::create_dir_all(&target)?;
        let folder = tempfile::Builder::new().prefix(&format!("parity-{}-", case.name)).tempdir_in(target)?;
        let outside = namespace("outside")?;
        let mut bench = Self {
            case: case.clone(),
            speaker,
            observers: None,
            programs: Vec::new(),
            nodes: BTreeMap::new(),
            outside,
            folder,
            edited: Cell::new(false),
        };
        bench.networks().context("networks")?;
        for (name, node) in &case.nodes {
            bench.node(name, node).with_context(|| format!("node {name}"))?;
        }
        bench.observers = Some(Observers::start(&case.observers, bench.outside.pid())?);
        for (name, node) in &case.nodes {
            match speaker {
                Speaker::Bird => bench.start_bird(name, node)?,
                Speaker::Margay => bench.start_margay(name, node)?,
            }
        }
        Ok(bench)
    }

    fn networks(&self) -> Result<()> {
        let mut lines = String::new();
        for (network, addresses) in &self.case.networks {
            writeln!(lines, "link add {network} type bridge\nlink set {network} up")?;
            for address in addresses {
                writeln!(lines, "addr add {address} dev {network}")?;
            }
        }
        batch(&self.outside, &lines)
    }

    fn node(&mut self, name: &str, node: &Node) -> Result<()> {
        let namespace = namespace(name)?;
        let (mut links, mut ports, mut own) = (String::new(), String::new(), String::new());
        for (interface, network) in &node.links {
            let port = format!("{}.{interface}", name.get(..name.len().min(8)).unwrap_or(name));
            writeln!(links, "link add name {interface} netns {} type veth peer name {port} netns {}", namespace.pid(), self.outside.pid())?;
            writeln!(ports, "link set {port} master {network} up")?;
            writeln!(own, "link set {interface} up")?;
        }
        for line in &node.ip {
            writeln!(own, "{line}")?;
        }
        batch(&self.outside, &links)?;
        batch(&self.outside, &ports)?;
        batch(&namespace, &own)?;
        self.nodes.insert(name.to_owned(), namespace);
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&mut self, name: &str, words: &[String], environment: &BTreeMap<String, String>) -> Result<()> {
        let log = File::create(self.path(&format!("{name}-{}.log", self.programs.len())))?;
        let namespace = self.nodes.get(name).context("no such node")?;
        let mut command = namespace.command(words);
        command.envs(environment).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.programs.push(command.spawn().context("cannot run nsenter (package util-linux)")?);
        Ok(())
    }

    fn start_bird(&mut self, name: &str, node: &Node) -> Result<()> {
        self.configure_bird(name, &node.bird)?;
        for (family, ipv6) in [(&node.bird.ipv4, false), (&node.bird.ipv6, true)] {
            let Some(_) = family else { continue };
            let at = |kind: &str| self.bird_file(name, ipv6, kind);
            let program = bird::program(ipv6).display().to_string();
            let files = [("-c", "conf"), ("-s", "ctl"), ("-P", "pid")];
            let mut words = vec![program, "-f".into(), "-R".into()];
            words.extend(files.into_iter().flat_map(|(flag, kind)| [flag.to_owned(), at(kind).display().to_string()]));
            self.start(name, &words, &BTreeMap::new())?;
        }
        Ok(())
    }

    fn bird_file(&self, name: &str, ipv6: bool, kind: &str) -> PathBuf {
        self.path(&format!("{name}-bird{}.{kind}", if ipv6 { 6 } else { 4 }))
    }

    fn configure_bird(&self, name: &str, bird: &Bird) -> Result<()> {
        for (family, ipv6) in [(&bird.ipv4, false), (&bird.ipv6, true)] {
            let Some(family) = family else { continue };
            let text = bird::configuration(bird, family, &self.bird_file(name, ipv6, "log"))?;
            std::fs::write(self.bird_file(name, ipv6, "conf"), text)?;
        }
        Ok(())
    }

    /// The resources change: margay sees it, and BIRD is told as confd tells it.
    fn edit(&self, step: &Step) -> Result<()> {
        if step.edit.is_empty() && step.bird.is_empty() {
            return Ok(());
        }
        self.edited.set(true);
        if self.speaker == Speaker::Margay {
            let path = self.path("resources.yaml");
            let mut text = std::fs::read_to_string(&path)?;
            for Edit { from, to } in &step.edit {
                ensure!(text.contains(from.as_str()), "`{from}` is not in the resources");
                text = text.replace(from.as_str(), to);
            }
            return crate::live::daemon::replace(&path, &text);
        }
        for (name, bird) in &step.bird {
            self.configure_bird(name, bird)?;
            for ipv6 in [false, true] {
                let Ok(pid) = std::fs::read_to_string(self.bird_file(name, ipv6, "pid")) else { continue };
                process::signal(pid.trim().parse().context("BIRD's process id")?, rustix::process::Signal::HUP);
            }
        }
        Ok(())
    }

    fn start_margay(&mut self, name: &str, node: &Node) -> Result<()> {
        let inline = self.path("resources.yaml");
        std::fs::write(&inline, &self.case.resources)?;
        let files = self.case.cluster.iter().map(|file| self.case.folder.join(file)).chain([inline]);
        let mut words = ["margay", "run", "--node", name].map(str::to_owned).to_vec();
        words.extend(files.flat_map(|file| ["--resources".to_owned(), file.display().to_string()]));
        let mut environment = node.environment.clone();
        environment.insert("CALICO_ENDPOINT_STATUS_PATH_PREFIX".to_owned(), self.path(name).display().to_string());
        std::fs::create_dir_all(self.endpoint_status(name))?;
        for (file, text) in &node.endpoint_status {
            std::fs::write(self.endpoint_status(name).join(file), text)?;
        }
        self.start(name, &words, &environment)
    }

    /// Where Felix would write about the endpoints of a node.
    fn endpoint_status(&self, node: &str) -> PathBuf {
        self.path(node).join("endpoint-status")
    }

    /// Observers take other keys. Each says goodbye with the old one, and this waits for that: what is signed with a key that the
    /// other end has given up is not heard, and either would think for minutes that there is a session.
    fn change_keys(&self, step: &Step) -> Result<()> {
        let observers = self.observers.as_ref().context("no observers")?;
        for (name, key) in &step.password {
            observers.tell(name, Command::Password(key.clone()))?;
            process::wait_until(std::time::Duration::from_secs(10), "the session ends", || {
                let session = observers.heard().get(name).is_some_and(|heard| heard.session.is_some());
                ensure!(!session, "{name} still has one");
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Lets a step happen.
    pub fn step(&self, step: &Step) -> Result<()> {
        for (node, lines) in &step.ip {
            batch(self.nodes.get(node).context("no such node")?, &(lines.join("\n") + "\n"))?;
        }
        self.change_keys(step)?;
        self.edit(step)?;
        if self.speaker == Speaker::Margay {
            for (node, files) in &step.endpoint_gone {
                files.iter().try_for_each(|file| std::fs::remove_file(self.endpoint_status(node).join(file)))?;
            }
        }
        let observers = self.observers.as_ref().context("no observers")?;
        for (name, paths) in &step.announce {
            paths.iter().try_for_each(|path| observers.tell(name, Command::Announce(path.clone())))?;
        }
        for (name, prefixes) in &step.withdraw {
            prefixes.iter().try_for_each(|prefix| observers.tell(name, Command::Withdraw(*prefix)))?;
        }
        step.leave.iter().try_for_each(|name| observers.tell(name, Command::Leave))
    }

    /// What it has come to: the lines that are compared, and the kernel's other routes.
    pub fn lines(&self) -> Result<(Vec<String>, Vec<String>)> {
        let (mut lines, mut others) = (Vec::new(), Vec::new());
        for (name, heard) in self.observers.as_ref().context("no observers")?.heard() {
            let said = snapshot::session(&name, &heard, self.case.restart);
            // Whether a stranger's connection is refused, or closed a moment later, is no matter.
            let refused = |line: &String| self.edited.get() && line.contains(" no session (") && !line.contains("(left)");
            lines.extend(said.into_iter().map(|line| if refused(&line) { format!("{name} no session (refused)") } else { line }));
        }
        for (name, namespace) in &self.nodes {
            let routes = |family: &str| {
                let words = ["timeout", "10", "ip", "-N", "-d", "-j", family, "route", "show", "table", "all"];
                process::run(namespace.command(&words), None)
            };
            let (ours, theirs) = snapshot::kernel(name, &routes("-4")?, &routes("-6")?)?;
            lines.extend(ours);
            others.extend(theirs);
        }
        lines.sort();
        Ok((lines, others))
    }

    /// The last words of every program.
    pub fn tail(&self) -> String {
        let mut all = String::new();
        for entry in std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
                let lines: Vec<&str> = text.lines().collect();
                if !lines.is_empty() {
                    let _ =
                        writeln!(all, "── {:?} {} ──\n{}", self.speaker, name(&path), lines[lines.len().saturating_sub(12)..].join("\n"));
                }
            }
        }
        all
    }

    /// Lets the files outlive the side; says where they are.
    pub fn keep(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for program in &mut self.programs {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn namespace(name: &str) -> Result<Namespace> {
    let env = BTreeMap::from([("HOME".to_owned(), "/root".to_owned()), ("PATH".to_owned(), image::path()?)]);
    let namespace = Namespace::create(name, None, env)?;
    process::run(namespace.command(&SETTINGS), None)?;
    Ok(namespace)
}

fn batch(namespace: &Namespace, lines: &str) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    process::run(namespace.command(&["timeout", "10", "ip", "-batch", "-"]), Some(lines)).map(|_| ())
}
