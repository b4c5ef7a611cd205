//! `cargo simulate`: networks of margays in virtual time, by seed.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Parser;
use proto_tests::lab::cli;
use proto_tests::sim::script::{Run, run};
use proto_tests::sim::spec::Spec;
use proto_tests::story::fresh_seed;

/// Runs networks of margays in virtual time and looks for what must never be. A failure prints the command that repeats it.
#[derive(Parser)]
#[command(name = "simulate")]
struct Arguments {
    /// Topologies by name or file; all of the repository's with more than one router if none is named.
    #[arg(long, value_delimiter = ',')]
    topology: Vec<String>,
    /// One seed.
    #[arg(long)]
    seed: Option<u64>,
    /// So many seeds, from --seed or 0 on.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Fresh seeds for so many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// Shards of every margay; 1 for even and 3 for odd seeds if not given.
    #[arg(long)]
    shards: Option<u16>,
    /// A day of trouble instead of a few minutes.
    #[arg(long)]
    day: bool,
    /// Print everything that happens.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    match simulate(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("simulate: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn simulate(arguments: &Arguments) -> Result<()> {
    let specs = specs(&arguments.topology)?;
    let first = match (arguments.seed, arguments.minutes) {
        (Some(seed), _) => seed,
        (None, Some(_)) => fresh_seed(),
        (None, None) => 0,
    };
    let end = arguments.minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let mut seed = first;
    let (mut runs, mut virtually) = (0u64, Duration::ZERO);
    let more = |seed: u64| end.map_or(seed < first + arguments.seeds, |end| Instant::now() < end);
    while more(seed) {
        for spec in &specs {
            let how = Run { shards: arguments.shards, day: arguments.day, trace: arguments.trace, ..Run::of(seed) };
            let begun = Instant::now();
            match run(spec, how) {
                Ok(report) => {
                    runs += 1;
                    virtually += report.time;
                    if arguments.minutes.is_none() {
                        println!(
                            "{} seed {seed}: {} faults, {} sessions, {} steps, decided at {:?}, {} s of virtual time in {:.1} s, digest {:016x}",
                            spec.name,
                            report.faults,
                            report.sessions,
                            report.steps,
                            report.decided_at,
                            report.time.as_secs(),
                            begun.elapsed().as_secs_f64(),
                            report.digest
                        );
                    }
                }
                Err(failure) => bail!("{failure}"),
            }
        }
        seed += 1;
    }
    println!("{runs} runs, seeds {first} to {}, {} hours of virtual time: nothing found", seed - 1, virtually.as_secs() / 3600);
    Ok(())
}

fn specs(names: &[String]) -> Result<Vec<Spec>> {
    let specs: Vec<Spec> = if names.is_empty() {
        let all = cli::all()?.iter().map(|file| Spec::read(file)).collect::<Result<Vec<_>>>()?;
        all.into_iter().filter(|spec| spec.hosts.len() > 1).collect()
    } else {
        names.iter().map(|name| Spec::named(name)).collect::<Result<_>>()?
    };
    for spec in &specs {
        spec.notes.iter().for_each(|note| println!("{}: {note}", spec.name));
    }
    Ok(specs)
}
