//! The `lab` program: `up`, `down`, `exec`, `status`, `test`, `quickstart`, `needs`.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::{Lab, Topology, enclosure, image, process, suite};

/// Topologies of this repository on this machine, in network namespaces.
#[derive(Parser)]
#[command(name = "lab", about)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Bring a lab up and leave it running
    Up { file: PathBuf },
    /// End a running lab
    Down { file: PathBuf },
    /// Run a command in a node of a running lab
    Exec {
        file: PathBuf,
        node: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// The nodes of a running lab and whether their programs live
    Status { file: PathBuf },
    /// Bring labs up, wait until what their expect.yaml says is true, end them (all of topologies/ when no file is given)
    Test { files: Vec<PathBuf> },
    /// The tour: three nodes and a top-of-rack router, their peers, their routes, and a ping between workloads
    Quickstart,
    /// The Debian packages that the labs need (all of topologies/ when no file is given)
    Needs { files: Vec<PathBuf> },
}

/// What `up` leaves behind for the other verbs.
#[derive(Serialize, Deserialize)]
struct State {
    /// The process outside whose end is the end of the lab.
    enclosure: u32,
    /// When that process started, in the kernel's ticks: its id may be given to another one some day.
    started: String,
    user: bool,
    /// As seen from inside: the process that holds each node's namespaces, and its program.
    nodes: BTreeMap<String, (u32, Option<u32>)>,
    path: String,
}

/// Reads the arguments and does what they say.
pub fn main() -> Result<ExitCode> {
    match Arguments::parse().verb {
        Verb::Up { file } if enclosure::current().is_some() => supervise(&file),
        Verb::Up { file } => up(&file),
        Verb::Down { file } => down(&file),
        Verb::Exec { file, node, command } => exec(&file, &node, &command),
        Verb::Status { file } => status(&file),
        Verb::Test { files } => test(files),
        Verb::Quickstart => quickstart(),
        Verb::Needs { files } => needs(files),
    }
}

fn state_file(topology: &Topology) -> PathBuf {
    let user = rustix::process::getuid().as_raw();
    env::temp_dir().join(format!("margay-lab-{user}-{}.json", topology.name))
}

fn state(file: &Path) -> Result<(State, PathBuf)> {
    let topology = Topology::read(file)?;
    let path = state_file(&topology);
    let text = fs::read_to_string(&path).with_context(|| format!("the lab {} is not up: lab up {}", topology.name, file.display()))?;
    let state: State = serde_json::from_str(&text)?;
    if started(state.enclosure).is_none_or(|started| started != state.started) {
        fs::remove_file(&path)?;
        bail!("the lab {} has ended: lab up {}", topology.name, file.display());
    }
    Ok((state, path))
}

fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

/// Starts the supervisor in an enclosure that outlives this process, and waits until the lab is up.
fn up(file: &Path) -> Result<ExitCode> {
    if let Ok((state, _)) = state(file) {
        bail!("it is up already (process {}): lab down {}", state.enclosure, file.display());
    }
    image::build_margay()?;
    let kind = enclosure::possible()?;
    let topology = Topology::read(file)?;
    let mut command = enclosure::command(kind, ["up".to_owned(), topology.file.display().to_string()], false)?;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run setsid (package util-linux)")?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    let Ok((nodes, path)) = serde_json::from_str(&line) else {
        let _ = child.wait();
        return Ok(ExitCode::FAILURE);
    };
    let enclosure = child.id();
    let state =
        State { enclosure, started: started(enclosure).context("it ended at once")?, user: kind == enclosure::Kind::User, nodes, path };
    fs::write(state_file(&topology), serde_json::to_string(&state)?)?;
    println!("{} is up: lab exec {} NODE COMMAND…; lab down {}", topology.name, file.display(), file.display());
    Ok(ExitCode::SUCCESS)
}

/// Inside: builds the lab, tells the outside about it, and stays as the parent of everything.
fn supervise(file: &Path) -> Result<ExitCode> {
    let lab = Lab::up(file)?;
    let mut nodes = BTreeMap::new();
    for node in lab.nodes() {
        nodes.insert(node.name().to_owned(), (node.holder()?, node.program().ok()));
    }
    println!("{}", serde_json::to_string(&(nodes, image::path()?))?);
    std::io::stdout().flush()?;
    // Orphans come to us, the first process of this PID namespace: wait for them, so that they do not stay as zombies.
    while rustix::process::wait(rustix::process::WaitOptions::empty()).is_ok_and(|ended| ended.is_some()) {}
    Ok(ExitCode::SUCCESS)
}

fn down(file: &Path) -> Result<ExitCode> {
    let (state, path) = state(file)?;
    process::signal(state.enclosure, Signal::KILL);
    let gone = || if process::alive(state.enclosure) { bail!("it still runs") } else { Ok(()) };
    process::wait_until(Duration::from_secs(10), "the lab ends", gone)?;
    fs::remove_file(path)?;
    Ok(ExitCode::SUCCESS)
}

/// The way from outside into the enclosure, and from there into a node.
fn way(state: &State, holder: u32) -> Command {
    let pid = state.enclosure;
    let mut command = Command::new("nsenter");
    if state.user {
        command.args([format!("--user=/proc/{pid}/ns/user").as_str(), "--preserve-credentials"]);
    }
    command.args([format!("--mount=/proc/{pid}/ns/mnt"), format!("--pid=/proc/{pid}/ns/pid_for_children"), "--".to_owned()]);
    command.args(["nsenter", "--target", &holder.to_string(), "--net", "--mount", "--uts", "--wd=/", "--"]);
    command
}

fn exec(file: &Path, node: &str, words: &[String]) -> Result<ExitCode> {
    let (state, _) = state(file)?;
    let names = || state.nodes.keys().cloned().collect::<Vec<_>>().join(", ");
    let (holder, _) = state.nodes.get(node).with_context(|| format!("there is no node `{node}`; nodes: {}", names()))?;
    let error = way(&state, *holder).args(words).env("PATH", &state.path).exec();
    Err(error).context("cannot run nsenter (package util-linux)")
}

fn status(file: &Path) -> Result<ExitCode> {
    let (state, _) = state(file)?;
    let mut dead = 0;
    for (name, (holder, program)) in &state.nodes {
        let says = match program {
            None => "no program",
            Some(pid) => {
                let lives = way(&state, *holder).args(["test", "-e", &format!("/proc/{pid}/exe")]).env("PATH", &state.path).status()?;
                dead += i32::from(!lives.success());
                if lives.success() { "running" } else { "ended" }
            }
        };
        println!("{name:20} {says}");
    }
    Ok(if dead == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn test(files: Vec<PathBuf>) -> Result<ExitCode> {
    if let Some(outside) = enclosure::enter_with_margay()? {
        return Ok(outside);
    }
    let mut code = ExitCode::SUCCESS;
    for file in if files.is_empty() { all()? } else { files } {
        let start = Instant::now();
        let mut lab = match Lab::up(std::path::absolute(&file)?) {
            Err(error) if error.is::<image::Missing>() => {
                println!("{}: SKIPPED: {error}", file.display());
                continue;
            }
            other => other?,
        };
        match lab.expect() {
            Ok(()) => println!("{}: ok ({:.1} s)", file.display(), start.elapsed().as_secs_f32()),
            Err(error) => {
                lab.keep_logs();
                println!("{}: FAILED\n{}\n\n{}all of it: {}", file.display(), suite::chain(&error), lab.tail(), lab.logs().display());
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

fn quickstart() -> Result<ExitCode> {
    if let Some(outside) = enclosure::enter_with_margay()? {
        return Ok(outside);
    }
    let start = Instant::now();
    let lab = Lab::up("topologies/quickstart.clab.yml")?;
    println!("up after {:.1} s: {}", start.elapsed().as_secs_f32(), lab.topology().nodes.keys().cloned().collect::<Vec<_>>().join(" "));
    lab.expect().map_err(|error| error.context(lab.tail()))?;
    println!("converged after {:.1} s\n", start.elapsed().as_secs_f32());
    for (node, line) in [
        ("node1", "margay show peers"),
        ("tor", "margay show peers"),
        ("node1", "margay show routes"),
        ("node1", "ip route"),
        ("node1", "ip -6 route show proto bird"),
        ("wl1a", "ping -n -c 3 -i 0.2 10.244.2.255"),
        ("wl3a", "ping -n -c 3 -i 0.2 2001:db8:203::10"),
    ] {
        println!("{node}# {line}\n{}", lab.node(node)?.exec(line)?);
    }
    drop(lab);
    println!("all of it in {:.1} s; to look around: cargo lab up topologies/quickstart.clab.yml", start.elapsed().as_secs_f32());
    Ok(ExitCode::SUCCESS)
}

fn needs(files: Vec<PathBuf>) -> Result<ExitCode> {
    let mut packages = std::collections::BTreeSet::new();
    for file in if files.is_empty() { all()? } else { files } {
        packages.extend(image::packages(&Topology::read(file)?)?);
    }
    println!("{}", packages.into_iter().collect::<Vec<_>>().join(" "));
    Ok(ExitCode::SUCCESS)
}

/// Every lab file of the repository.
pub fn all() -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(image::repository().join("topologies"))?.collect::<std::io::Result<Vec<_>>>()?;
    let mut files: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    files.retain(|path| path.to_string_lossy().ends_with(".clab.yml"));
    files.sort();
    Ok(files)
}
