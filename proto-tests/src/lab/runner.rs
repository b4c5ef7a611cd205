//! A lab, running: nodes in namespaces, links between them, programs started, everything ended when it is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use super::container::{self, Deployed};
use super::image::{self, Speaker};
use super::namespace::Namespace;
use super::topology::{Link, Network, Node as Spec, Stage, Topology};
use super::{enclosure, expand, process};

/// A running lab. Dropping it ends all its processes and, with them, its namespaces and links; unless it was only visited.
#[derive(Debug)]
pub struct Lab {
    topology: Topology,
    nodes: BTreeMap<String, Running>,
    logs: PathBuf,
    /// `Some` where the logs go with the lab.
    cleanup: Option<TempDir>,
    /// `Some` where containerlab made it.
    deployed: Option<Deployed>,
}

#[derive(Debug)]
struct Running {
    // Programs go before the namespaces they run in.
    program: Option<Program>,
    namespace: Namespace,
    speaker: Speaker,
}

/// What a node runs.
#[derive(Debug)]
enum Program {
    /// Started by this process.
    Own(Child),
    /// Started by another one.
    Found(u32),
}

/// The processes of a running lab, by which another process finds them: node → the holder of its namespaces, its program.
pub type Processes = BTreeMap<String, (u32, Option<u32>)>;

/// One node of a running lab.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    lab: &'a Lab,
    name: &'a str,
}

impl Lab {
    /// Brings up the lab of `file` (relative to the repository), as containerlab would: create and start, link, `exec`.
    pub fn up(file: impl AsRef<Path>) -> Result<Self> {
        let topology = Topology::read(image::repository().join(file))?;
        image::check(&topology)?;
        ensure!(enclosure::current().is_some(), "labs are built inside an enclosure only: call enclosure::enter first");
        let logs = logs(&topology)?;
        let mut lab = Self { topology, nodes: BTreeMap::new(), logs: logs.path().to_owned(), cleanup: Some(logs), deployed: None };
        match lab.build() {
            Ok(()) => Ok(lab),
            Err(error) => Err(error.context(format!("lab {}", lab.topology.name)).context(lab.tail())),
        }
    }

    /// A lab that another process brought up, in whose enclosure we are: what ends here is only the visit.
    pub fn visit(file: impl AsRef<Path>, processes: &Processes, logs: PathBuf) -> Result<Self> {
        let topology = Topology::read(file)?;
        let mut nodes = BTreeMap::new();
        for (name, (holder, program)) in processes {
            let spec = topology.nodes.get(name).with_context(|| format!("the file has changed: the running lab has a node {name}"))?;
            let namespace = Namespace::found(*holder, environment(spec)?);
            let running = Running { program: program.map(Program::Found), namespace, speaker: image::speaker(&spec.image)? };
            nodes.insert(name.clone(), running);
        }
        ensure!(nodes.len() == topology.nodes.len(), "the file has changed: the running lab has fewer nodes");
        Ok(Self { topology, nodes, logs, cleanup: None, deployed: None })
    }

    /// The lab of `file` as containerlab makes it, in containers. Faults and `kill` are not for it.
    pub fn deploy(file: impl AsRef<Path>) -> Result<Self> {
        let topology = Topology::read(file)?;
        image::check_kernel(&topology)?;
        let logs = logs(&topology)?;
        let deployed = Some(Deployed::deploy(&topology)?);
        let mut nodes = BTreeMap::new();
        for (name, spec) in &topology.nodes {
            let namespace = Namespace::container(container::name(&topology, name));
            nodes.insert(name.clone(), Running { program: None, namespace, speaker: image::speaker(&spec.image)? });
        }
        Ok(Self { topology, nodes, logs: logs.path().to_owned(), cleanup: Some(logs), deployed })
    }

    /// How another process finds this lab.
    pub fn processes(&self) -> Processes {
        let both = |running: &Running| (running.namespace.pid(), running.program.as_ref().map(Program::id));
        self.nodes.iter().map(|(name, running)| (name.clone(), both(running))).collect()
    }

    fn build(&mut self) -> Result<()> {
        for wave in self.topology.waves()? {
            self.wait_for(&wave)?;
            for name in &wave {
                self.create(name).with_context(|| format!("node {name}"))?;
            }
            self.link(&wave).context("links")?;
            for name in &wave {
                self.configure(name).with_context(|| format!("node {name}"))?;
            }
        }
        Ok(())
    }

    fn wait_for(&self, wave: &[String]) -> Result<()> {
        let waits = wave.iter().flat_map(|name| &self.topology.nodes[name].wait_for);
        // Everything before `healthy` has happened when the node's wave is over.
        for name in waits.filter(|wait| wait.stage == Stage::Healthy).map(|wait| &wait.node).collect::<BTreeSet<_>>() {
            let Some(check) = &self.topology.nodes[name].healthcheck else { continue };
            let healthy = || process::run(self.node(name)?.command(&check.test)?, None);
            process::wait_until(check.within, &format!("{name} is healthy"), healthy)?;
        }
        Ok(())
    }

    fn create(&mut self, name: &str) -> Result<()> {
        let spec = &self.topology.nodes[name];
        let share = match &spec.network {
            Network::None => None,
            Network::Container(other) => self.nodes.get(other).map(|node| &node.namespace),
        };
        let namespace = Namespace::create(name, share, environment(spec)?)?;
        spec.binds.iter().try_for_each(|bind| namespace.bind(bind))?;
        if !spec.sysctls.is_empty() {
            let settings = spec.sysctls.iter().map(|(key, value)| format!("{key}={value}"));
            let words: Vec<String> = ["sysctl", "-q", "-w"].map(str::to_owned).into_iter().chain(settings).collect();
            process::run(namespace.command(&words), None)?;
        }
        let (command, speaker) = (spec.command.clone(), image::speaker(&spec.image)?);
        self.nodes.insert(name.to_owned(), Running { program: None, namespace, speaker });
        if command.is_empty() { Ok(()) } else { self.start(name, &command) }
    }

    /// Starts a node's program in the background, its output going to the node's log.
    fn start(&mut self, name: &str, command: &[String]) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.log(name))?;
        let running = self.nodes.get_mut(name).context("no such node")?;
        let mut command = running.namespace.command(command);
        // Of a group of its own: what ends the one who starts it (Ctrl-C) is not meant for it.
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        running.program = Some(Program::Own(command.spawn().context("cannot run nsenter (package util-linux)")?));
        Ok(())
    }

    /// Makes the links of which this wave brings the second end. Both ends are born in their namespaces, under their names.
    fn link(&self, wave: &[String]) -> Result<()> {
        let mut make = String::new();
        let mut ups: BTreeMap<&str, String> = BTreeMap::new();
        for link in &self.topology.links {
            let now =
                link.ends.iter().all(|end| self.nodes.contains_key(&end.node)) && link.ends.iter().any(|end| wave.contains(&end.node));
            if now {
                writeln!(make, "{}", self.veth(link))?;
                for end in &link.ends {
                    writeln!(ups.entry(&end.node).or_default(), "link set dev {} up", end.interface)?;
                }
            }
        }
        let mut batch = Command::new("ip");
        process::run(
            {
                batch.args(["-batch", "-"]);
                batch
            },
            Some(&make),
        )?;
        for (name, lines) in ups {
            process::run(self.node(name)?.command(&["ip", "-batch", "-"])?, Some(&lines))?;
        }
        Ok(())
    }

    fn veth(&self, link: &Link) -> String {
        let mtu = link.mtu.map(|mtu| format!(" mtu {mtu}")).unwrap_or_default();
        let [a, b] = link.ends.each_ref().map(|end| format!("name {} netns {}{mtu}", end.interface, self.nodes[&end.node].namespace.pid()));
        format!("link add {a} type veth peer {b}")
    }

    fn configure(&self, name: &str) -> Result<()> {
        let node = self.node(name)?;
        self.topology.nodes[name].exec.iter().try_for_each(|words| process::run(node.command(words)?, None).map(|_| ()))
    }

    /// The node of that name.
    pub fn node<'a>(&'a self, name: &'a str) -> Result<Node<'a>> {
        ensure!(self.nodes.contains_key(name), "there is no node `{name}` in the lab {}", self.topology.name);
        Ok(Node { lab: self, name })
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        self.nodes.keys().map(|name| Node { lab: self, name })
    }

    /// What the lab was built from.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Ends the program of `node` with `signal` and waits until it is gone; the namespaces and the kernel's routes stay.
    pub fn kill(&mut self, node: &str, signal: Signal) -> Result<()> {
        ensure!(self.deployed.is_none(), "{node} is a container: its engine ends it");
        let running = self.nodes.get_mut(node).context("no such node")?;
        let mut program = running.program.take().with_context(|| format!("{node} runs nothing"))?;
        process::signal(program.id(), signal);
        // A frozen one would never hear it.
        process::signal(program.id(), Signal::CONT);
        let gone = || if program.ended()? { Ok(()) } else { bail!("it still runs") };
        process::wait_until(Duration::from_secs(10), &format!("{node} ends after a signal"), gone)
    }

    /// Starts `line` (no shell) as the program of a node whose program was ended; from now on it speaks as `speaker`.
    pub fn run(&mut self, node: &str, speaker: Speaker, line: &str) -> Result<()> {
        let running = self.nodes.get_mut(node).context("no such node")?;
        ensure!(running.program.is_none(), "{node} still runs its program");
        running.speaker = speaker;
        self.start(node, &expand::words(line)?)
    }

    /// Starts the program of the lab file again, after it was ended.
    pub fn restart(&mut self, node: &str) -> Result<()> {
        let spec = self.topology.nodes.get(node).context("no such node")?;
        let (command, speaker) = (spec.command.clone(), image::speaker(&spec.image)?);
        let running = self.nodes.get_mut(node).context("no such node")?;
        let dead = running.program.as_mut().map_or(Ok(true), Program::ended)?;
        ensure!(dead, "{node} still runs its program");
        running.speaker = speaker;
        self.start(node, &command)
    }

    /// Starts `line` (no shell) beside the node's program, which is to end by itself and leave its place to the new one.
    pub fn hand_over(&mut self, node: &str, line: &str) -> Result<()> {
        let running = self.nodes.get_mut(node).context("no such node")?;
        let mut old = running.program.take().with_context(|| format!("{node} runs nothing"))?;
        self.start(node, &expand::words(line)?)?;
        let gone = || if old.ended()? { Ok(()) } else { bail!("it still runs") };
        process::wait_until(Duration::from_secs(30), &format!("the old program of {node} makes room"), gone)
    }

    fn log(&self, node: &str) -> PathBuf {
        self.logs.join(format!("{node}.log"))
    }

    /// Where the nodes' logs are; they go with the lab unless kept.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// Lets the logs outlive the lab.
    pub fn keep_logs(&mut self) {
        if let Some(folder) = &mut self.cleanup {
            folder.disable_cleanup(true);
        }
    }

    /// The last lines that each node's program said.
    pub fn tail(&self) -> String {
        let mut all = String::new();
        for name in self.nodes.keys() {
            let mut text = Vec::new();
            let read = File::open(self.log(name)).and_then(|mut file| file.read_to_end(&mut text));
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            if read.is_ok() && !lines.is_empty() {
                let _ = writeln!(all, "── {name} ──\n{}", lines[lines.len().saturating_sub(12)..].join("\n"));
            }
        }
        all
    }
}

/// A fresh folder for logs in the build folder, or in the one for temporary files if somebody else built.
fn logs(topology: &Topology) -> Result<TempDir> {
    let (folder, prefix) = (image::repository().join("target/lab"), format!("{}-", topology.name));
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix);
    if let Ok(logs) = std::fs::create_dir_all(&folder).and_then(|()| builder.tempdir_in(&folder)) {
        return Ok(logs);
    }
    builder.tempdir().with_context(|| format!("neither {} nor {} is ours to write", folder.display(), std::env::temp_dir().display()))
}

impl Program {
    fn id(&self) -> u32 {
        match self {
            Self::Own(child) => child.id(),
            Self::Found(pid) => *pid,
        }
    }

    fn ended(&mut self) -> Result<bool> {
        match self {
            Self::Own(child) => Ok(child.try_wait()?.is_some()),
            Self::Found(pid) => Ok(!process::alive(*pid)),
        }
    }
}

/// The environment of everything in a node.
fn environment(spec: &Spec) -> Result<BTreeMap<String, String>> {
    let mut env = BTreeMap::from([("HOME".to_owned(), "/root".to_owned()), ("PATH".to_owned(), image::path()?)]);
    env.extend(spec.env.clone());
    Ok(env)
}

impl<'a> Node<'a> {
    /// Its name.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// What the file says of it.
    pub fn spec(&self) -> &'a Spec {
        &self.lab.topology.nodes[self.name]
    }

    /// The speaker that runs there.
    pub fn speaker(&self) -> Speaker {
        self.lab.nodes.get(self.name).map_or(Speaker::None, |running| running.speaker)
    }

    /// A command in the node, not yet running.
    pub fn command<S: AsRef<str>>(&self, words: &[S]) -> Result<Command> {
        let running = self.lab.nodes.get(self.name).context("the node is gone")?;
        // No question to a node may hold up its lab.
        let bounded: Vec<&str> = ["timeout", "--kill-after=1", "20"].into_iter().chain(words.iter().map(AsRef::as_ref)).collect();
        Ok(running.namespace.command(&bounded))
    }

    /// A command in the node without a limit to its time, for what runs beside a story.
    pub fn background<S: AsRef<str>>(&self, words: &[S]) -> Result<Command> {
        Ok(self.lab.nodes.get(self.name).context("the node is gone")?.namespace.command(words))
    }

    /// Runs `line` (no shell) in the node: what it printed, or an error when it fails.
    pub fn exec(&self, line: &str) -> Result<String> {
        process::run(self.command(&expand::words(line)?)?, None).with_context(|| format!("on {}", self.name))
    }

    /// Where the lab keeps what its programs say.
    pub fn logs(&self) -> &'a Path {
        self.lab.logs()
    }

    /// The process id of the node's program.
    pub fn program(&self) -> Result<u32> {
        let program = self.lab.nodes.get(self.name).and_then(|running| running.program.as_ref());
        program.map(Program::id).with_context(|| format!("{} runs nothing", self.name))
    }

    /// Every process in the node, the one that holds its namespaces included.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let running = self.lab.nodes.get(self.name).context("the node is gone")?;
        Ok(running.namespace.processes().into_iter().chain([running.namespace.pid()]).collect())
    }

    /// The process that holds the node's namespaces.
    pub fn holder(&self) -> Result<u32> {
        Ok(self.lab.nodes.get(self.name).context("the node is gone")?.namespace.pid())
    }
}
