//! `cargo soak`, and the same for the tests.

use std::process::{Child, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

use super::storm::storm;
use super::world::{Kind, World};
use crate::lab::suite::chain;
use crate::lab::{enclosure, etcd, image};
use crate::story::fresh_seed;

/// Events of one storm.
const STORM: u64 = 250;

/// Lets a margay run under churn of fifty peers, kills, datastore trouble and strangers at its kernel routes, and looks in each calm between
/// storms whether kernel and peers hold exactly what they should. A failure prints the command that repeats it.
#[derive(Clone, Debug, Parser)]
#[command(name = "soak")]
pub struct Arguments {
    /// How long.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// How long instead, in seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// The order of events; a fresh one if none is given.
    #[arg(long)]
    seed: Option<u64>,
    /// One world instead of both.
    #[arg(long, value_enum)]
    world: Option<Kind>,
}

impl Arguments {
    /// Both worlds for so long, with a fresh seed.
    pub fn lasting(time: Duration) -> Self {
        Self { minutes: 0, seconds: Some(time.as_secs()), seed: None, world: None }
    }

    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(self.minutes * 60))
    }

    /// What starts one world again, after the program's name.
    fn words(&self, kind: Kind, seed: u64) -> Vec<String> {
        let time = self.time().as_secs().to_string();
        ["--seconds", &time, "--seed", &seed.to_string(), "--world", kind.name()].map(str::to_owned).into()
    }
}

/// Runs the worlds, each in an enclosure of its own; or, inside, the one that this process is for.
pub fn main(arguments: &Arguments) -> ExitCode {
    let done = match arguments.world {
        Some(kind) if enclosure::current().is_some() => inside(arguments, kind).map(|()| true),
        only => outside(arguments, only),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Why the soak cannot run on this host, if it cannot.
///
/// # Errors
/// What is missing, and what to do.
pub fn possible() -> Result<()> {
    enclosure::possible()?;
    anyhow::ensure!(etcd::installed(), "etcd is missing: apt-get install --no-install-recommends etcd-server etcd-client");
    Ok(())
}

fn outside(arguments: &Arguments, only: Option<Kind>) -> Result<bool> {
    possible()?;
    image::build_margay()?;
    let seed = arguments.seed.unwrap_or_else(fresh_seed);
    println!("soak: {} s, seed {seed}", arguments.time().as_secs());
    let kind = enclosure::possible()?;
    let worlds = Kind::value_variants().iter().filter(|world| only.is_none_or(|only| only == **world));
    let started: Vec<(Kind, Result<Child>)> = worlds
        .map(|world| {
            let child = enclosure::command(kind, arguments.words(*world, seed), true)
                .and_then(|mut command| command.spawn().context("cannot run setpriv (package util-linux)"));
            (*world, child)
        })
        .collect();
    let mut well = true;
    for (world, child) in started {
        if !child?.wait()?.success() {
            well = false;
            println!("{}: FAILED; again: cargo soak {}", world.name(), arguments.words(world, seed).join(" "));
        }
    }
    Ok(well)
}

fn inside(arguments: &Arguments, kind: Kind) -> Result<()> {
    let end = Instant::now() + arguments.time();
    let mut world = World::new(kind, arguments.seed.unwrap_or_default())?;
    let mut run = || -> Result<()> {
        world.calm().context("before the first storm")?;
        while Instant::now() < end {
            storm(&mut world, STORM, kind == Kind::Restarting)?;
            world.calm()?;
        }
        Ok(())
    };
    let done = run();
    if done.is_err() {
        eprintln!("{}", world.last_words()?);
    }
    done?;
    print!("{}", world.finish()?);
    Ok(())
}
