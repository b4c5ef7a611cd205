//! The `lab` program: its verbs and their arguments.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use rustix::process::Signal;

use super::fault::Direction;
use super::{Lab, Status, Topology, container, draw, enclosure, image, process, running, suite, vm};

/// Networks as text, on this machine: topologies in containerlab's format, in network namespaces.
#[derive(Parser)]
#[command(name = "lab", about, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  cargo lab up topologies/dual-tor-ecmp.clab.yml
  cargo lab status topologies/dual-tor-ecmp.clab.yml --wait 60
  cargo lab fault topologies/dual-tor-ecmp.clab.yml freeze tor1
  cargo lab exec topologies/dual-tor-ecmp.clab.yml node1 ip route
  cargo lab fault topologies/dual-tor-ecmp.clab.yml heal
  cargo lab down topologies/dual-tor-ecmp.clab.yml

Root is not needed where users may make user namespaces, except for speakers that change to a user of their own (FRR, OpenBGPD).
Exit codes: 0 done and well, 1 something is not as it should be, 2 it could not be done.";

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
    /// A running lab: nodes, programs, sessions, addresses, links, faults, and what of its expect.yaml holds now
    Status {
        file: PathBuf,
        /// Wait until every program lives and all that is expected holds, for at most SECONDS
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
    },
    /// Bring labs up, wait until what their expect.yaml says is true, pings included, end them (all of topologies/ when no file is given)
    Test {
        files: Vec<PathBuf>,
        /// What the labs are made of
        #[arg(long, value_enum, default_value_t = Runner::Namespaces)]
        runner: Runner,
        /// Where a failed lab's evidence goes: for each node its log, kernel state and its speaker's answers
        #[arg(long, value_name = "DIR", default_value = "target/lab/failed")]
        logs: PathBuf,
    },
    /// Let something go wrong in a running lab, or end it
    Fault {
        file: PathBuf,
        #[command(subcommand)]
        fault: Fault,
    },
    /// Draw a lab from its file, as SVG, to standard output or to --output
    Draw {
        file: PathBuf,
        /// Where the picture goes
        #[arg(long, short, value_name = "SVG")]
        output: Option<PathBuf>,
    },
    /// Make the images of the nodes for containerlab: Debian's packages of every speaker, and margay (needs root, debootstrap, an engine)
    Images,
    /// The tour: three nodes and a top-of-rack router, their peers, their routes, and a ping between workloads
    Quickstart,
    /// The Debian packages that the labs need (all of topologies/ when no file is given)
    Needs { files: Vec<PathBuf> },
}

/// What a lab is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Runner {
    /// Network namespaces of this kernel
    Namespaces,
    /// The same, on a kernel of its own that has ipip and netem (user-mode Linux; needs root)
    Vm,
    /// Containers, by containerlab and the engine that `docker` reaches
    Containerlab,
}

#[derive(Subcommand)]
enum Fault {
    /// Set an end of a link down or up; the other end sees no carrier
    Link {
        /// NODE:INTERFACE
        end: String,
        #[arg(value_parser = ["down", "up"])]
        state: String,
    },
    /// Lose packets one way, ARP and all (nftables); 0 ends it
    Loss {
        /// NODE:INTERFACE
        end: String,
        /// Of what that end sends, or would get, how much is lost
        #[arg(value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
        percent: u32,
        #[command(flatten)]
        way: Way,
    },
    /// Deliver what an end sends later (the kernel's netem, where it has one); 0 ends it
    Latency {
        /// NODE:INTERFACE
        end: String,
        #[arg(value_name = "MILLISECONDS")]
        delay: u64,
    },
    /// End a node's program; its namespaces and its kernel's routes stay
    Kill {
        node: String,
        /// Let it end in its own way (SIGTERM); without this it has no time for a word (SIGKILL)
        #[arg(long)]
        gently: bool,
    },
    /// Start a node's program again; kills it first where it lives
    Restart { node: String },
    /// Stop every process of a node where it is; its kernel goes on forwarding
    Freeze { node: String },
    /// Let a frozen node go on
    Thaw { node: String },
    /// End all faults: links, losses, latencies, frozen nodes, ended programs
    Heal,
}

#[derive(Args)]
#[group(multiple = false)]
struct Way {
    /// What it sends (the default)
    #[arg(long)]
    out: bool,
    /// What it would get
    #[arg(long = "in")]
    inward: bool,
}

/// Reads the arguments and does what they say.
pub fn main() -> Result<ExitCode> {
    match Arguments::parse().verb {
        Verb::Up { file } => running::up(&file),
        Verb::Down { file } => running::down(&file),
        Verb::Exec { file, node, command } => running::exec(&file, &node, &command),
        Verb::Status { file, wait } => running::visit(&file, |lab| status(lab, wait)),
        Verb::Test { files, runner: Runner::Vm, .. } => test_in_vm(&files),
        Verb::Test { files, runner, logs } => test(files, runner, &logs),
        Verb::Images => {
            image::build_margay()?;
            container::images().map(|()| ExitCode::SUCCESS)
        }
        Verb::Fault { file, fault } => running::visit(&file, |lab| inflict(lab, &fault).map(|()| ExitCode::SUCCESS)),
        Verb::Draw { file, output } => picture(&file, output.as_deref()),
        Verb::Quickstart => quickstart(),
        Verb::Needs { files } => needs(files),
    }
}

fn status(lab: &Lab, wait: Option<u64>) -> Result<ExitCode> {
    let within = Duration::from_secs(wait.unwrap_or(0));
    let well = process::wait_until(within, "all is well", || {
        let status = Status::of(lab)?;
        if status.is_well() || wait.is_none() { Ok(status) } else { bail!("{status}") }
    });
    let status = match well {
        Ok(status) => status,
        Err(error) => {
            println!("{}", suite::chain(&error));
            return Ok(ExitCode::FAILURE);
        }
    };
    print!("{status}");
    Ok(if status.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn inflict(lab: &mut Lab, fault: &Fault) -> Result<()> {
    match fault {
        Fault::Link { end, state } => lab.set_link(&lab.end(end)?, state == "up"),
        Fault::Loss { end, percent, way } => lab.lose(&lab.end(end)?, if way.inward { Direction::In } else { Direction::Out }, *percent),
        Fault::Latency { end, delay } => lab.delay(&lab.end(end)?, Duration::from_millis(*delay)),
        Fault::Kill { node, gently } => lab.kill(node, if *gently { Signal::TERM } else { Signal::KILL }),
        Fault::Restart { node } => {
            if lab.node(node)?.runs() {
                lab.kill(node, Signal::KILL)?;
            }
            lab.restart(node)
        }
        Fault::Freeze { node } => lab.freeze(node),
        Fault::Thaw { node } => lab.thaw(node),
        Fault::Heal => lab.heal(),
    }
}

fn test_in_vm(files: &[PathBuf]) -> Result<ExitCode> {
    image::build_margay()?;
    vm::fetch()?;
    let mut words = vec![std::env::current_exe()?.display().to_string(), "test".to_owned()];
    for file in if files.is_empty() { all()? } else { files.to_vec() } {
        words.push(std::path::absolute(file)?.display().to_string());
    }
    match vm::run(&words.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(said) => print!("{said}"),
        Err(error) if error.is::<image::Missing>() => return Err(error),
        Err(error) => {
            println!("{error:#}");
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn picture(file: &Path, output: Option<&Path>) -> Result<ExitCode> {
    let svg = draw::draw(&Topology::read(file)?)?;
    match output {
        Some(path) => fs::write(path, svg).with_context(|| path.display().to_string())?,
        None => print!("{svg}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn test(files: Vec<PathBuf>, runner: Runner, logs: &Path) -> Result<ExitCode> {
    if runner == Runner::Containerlab {
        match container::check() {
            Ok(versions) => println!("{versions}"),
            Err(error) => {
                println!("SKIPPED: containerlab: {error:#}");
                return Ok(ExitCode::SUCCESS);
            }
        }
    } else if let Some(outside) = enclosure::enter_with_margay()? {
        return Ok(outside);
    }
    let mut code = ExitCode::SUCCESS;
    for file in if files.is_empty() { all()? } else { files } {
        let start = Instant::now();
        let path = std::path::absolute(&file)?;
        let made = if runner == Runner::Containerlab { Lab::deploy(path) } else { Lab::up(path) };
        let lab = match made {
            Err(error) if error.is::<image::Missing>() => {
                println!("{}: SKIPPED: {error}", file.display());
                continue;
            }
            Err(error) => {
                println!("{}: FAILED\n{}", file.display(), suite::chain(&error));
                code = ExitCode::FAILURE;
                continue;
            }
            Ok(lab) => lab,
        };
        match lab.expect() {
            Ok(()) => println!("{}: ok ({:.1} s)", file.display(), start.elapsed().as_secs_f32()),
            Err(error) => {
                let failure = suite::chain(&error);
                let folder = lab.gather(&logs.join(&lab.topology().name), &failure)?;
                println!("{}: FAILED\n{failure}\n\n{}all of it: {}", file.display(), lab.tail(), folder.display());
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
