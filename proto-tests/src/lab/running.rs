//! A lab that goes on running behind `lab up`, and the way of the other verbs to it.
//!
//! ```text
//! lab up ── an enclosure of its own ──→ lab up (the supervisor: builds, then only waits)      state file ← who holds what
//! lab exec ── nsenter ──→ the command in the node
//! lab status, lab fault ── nsenter ──→ the same verb inside the enclosure, which visits the lab (`Lab::visit`)
//! ```

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::{Lab, Processes, Topology, enclosure, image, process};

/// Set for a verb that runs inside the enclosure: where the state file is.
const STATE: &str = "MARGAY_LAB_STATE";

/// What `up` leaves behind for the other verbs.
#[derive(Serialize, Deserialize)]
struct State {
    /// The process outside whose end is the end of the lab.
    enclosure: u32,
    /// When that process started, in the kernel's ticks: its id may be given to another one some day.
    started: String,
    user: bool,
    inside: Inside,
}

/// What the supervisor tells of the lab, as seen from inside.
#[derive(Serialize, Deserialize)]
struct Inside {
    nodes: Processes,
    path: String,
    logs: PathBuf,
}

fn state_file(topology: &Topology) -> PathBuf {
    let user = rustix::process::getuid().as_raw();
    env::temp_dir().join(format!("margay-lab-{user}-{}.json", topology.name))
}

fn read(path: &Path) -> Result<State> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

fn write(path: &Path, state: &State) -> Result<()> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, serde_json::to_string(state)?).with_context(|| fresh.display().to_string())?;
    fs::rename(&fresh, path).with_context(|| path.display().to_string())
}

fn state(file: &Path) -> Result<(State, PathBuf)> {
    let topology = Topology::read(file)?;
    let path = state_file(&topology);
    if !path.exists() {
        bail!("the lab {} is not up: lab up {}", topology.name, file.display());
    }
    let state = read(&path)?;
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
pub fn up(file: &Path) -> Result<ExitCode> {
    if enclosure::current().is_some() {
        return supervise(file);
    }
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
    let Ok(inside) = serde_json::from_str(&line) else {
        let _ = child.wait();
        return Ok(ExitCode::FAILURE);
    };
    let enclosure = child.id();
    let state = State { enclosure, started: started(enclosure).context("it ended at once")?, user: kind == enclosure::Kind::User, inside };
    write(&state_file(&topology), &state)?;
    let file = file.display();
    println!("{} is up: lab status {file} --wait 60; lab exec {file} NODE COMMAND…; lab down {file}", topology.name);
    Ok(ExitCode::SUCCESS)
}

/// Inside: builds the lab, tells the outside about it, and stays as the parent of everything.
fn supervise(file: &Path) -> Result<ExitCode> {
    let mut lab = Lab::up(file)?;
    // They go with `down`, which does not leave us the time for it.
    lab.keep_logs();
    let inside = Inside { nodes: lab.processes(), path: image::path()?, logs: lab.logs().to_owned() };
    println!("{}", serde_json::to_string(&inside)?);
    std::io::stdout().flush()?;
    // Orphans come to us, the first process of this PID namespace: wait for them, so that they do not stay as zombies.
    while rustix::process::wait(rustix::process::WaitOptions::empty()).is_ok_and(|ended| ended.is_some()) {}
    Ok(ExitCode::SUCCESS)
}

/// Ends a lab.
pub fn down(file: &Path) -> Result<ExitCode> {
    let (state, path) = state(file)?;
    process::signal(state.enclosure, Signal::KILL);
    let gone = || if process::alive(state.enclosure) { bail!("it still runs") } else { Ok(()) };
    process::wait_until(Duration::from_secs(10), "the lab ends", gone)?;
    // Gone already is as well.
    let _ = fs::remove_dir_all(&state.inside.logs);
    fs::remove_file(path)?;
    Ok(ExitCode::SUCCESS)
}

/// The way from outside into the enclosure.
fn way(state: &State) -> Command {
    let pid = state.enclosure;
    let mut command = Command::new("nsenter");
    // Another mount namespace has another place to stand in: relative paths are to mean there what they mean here.
    command.arg(format!("--wd={}", env::current_dir().unwrap_or_else(|_| "/".into()).display()));
    if state.user {
        command.args([format!("--user=/proc/{pid}/ns/user").as_str(), "--preserve-credentials"]);
    }
    command.args([format!("--mount=/proc/{pid}/ns/mnt"), format!("--pid=/proc/{pid}/ns/pid_for_children"), "--".to_owned()]);
    command
}

/// Runs a command in a node, in the place of this process.
pub fn exec(file: &Path, node: &str, words: &[String]) -> Result<ExitCode> {
    let (state, _) = state(file)?;
    let nodes = &state.inside.nodes;
    let names = || nodes.keys().cloned().collect::<Vec<_>>().join(", ");
    let (holder, _) = nodes.get(node).with_context(|| format!("there is no node `{node}`; nodes: {}", names()))?;
    let mut command = way(&state);
    command.args(["nsenter", "--target", &holder.to_string(), "--net", "--mount", "--uts", "--wd=/", "--"]);
    let error = command.args(words).env("PATH", &state.inside.path).exec();
    Err(error).context("cannot run nsenter (package util-linux)")
}

/// Runs `act` on the running lab of `file`: this program, as it was called, runs again inside the enclosure. What `act` has started is
/// found there by the next one.
pub fn visit(file: &Path, act: impl FnOnce(&mut Lab) -> Result<ExitCode>) -> Result<ExitCode> {
    let Some(path) = env::var_os(STATE) else {
        let (state, path) = state(file)?;
        let mut command = way(&state);
        command.arg(env::current_exe()?).args(env::args_os().skip(1)).env(STATE, path);
        enclosure::mark(&mut command, if state.user { enclosure::Kind::User } else { enclosure::Kind::Root });
        return Err(command.exec()).context("cannot run nsenter (package util-linux)");
    };
    let path = PathBuf::from(path);
    let mut state = read(&path)?;
    let mut lab = Lab::visit(file, &state.inside.nodes, state.inside.logs.clone())?;
    let code = act(&mut lab)?;
    let now: BTreeMap<_, _> = lab.processes();
    if now != state.inside.nodes {
        state.inside.nodes = now;
        write(&path, &state)?;
    }
    Ok(code)
}
