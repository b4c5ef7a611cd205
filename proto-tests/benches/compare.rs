//! margay beside other speakers: `cargo bench -p proto-tests --bench compare -- --help`.
//!
//! What is measured, and how, says [`proto_tests::compare`].

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use proto_tests::compare::run::{Prepared, Row};
use proto_tests::compare::scenario::{ALL, Scenario};
use proto_tests::compare::speaker::Speaker;
use proto_tests::compare::{self, chart, report};
use proto_tests::lab::enclosure;
use serde_json::json;

/// Runs margay and whichever of BIRD, FRR, GoBGP and OpenBGPD are installed through the same scenarios, in turn, and prints one table.
#[derive(Debug, Parser)]
struct Options {
    /// Scenarios [default: S1,S2,S3,S4,S4-herd,S4-500,S4-1000,S7,S7-reload,S8,D1]; `--list` says what each is.
    #[arg(long, value_delimiter = ',')]
    scenarios: Vec<String>,
    /// Families of scenarios of growing size, `S4` and `mesh`: all their sizes, and a table of how messages, octets, CPU and memory grow.
    #[arg(long, value_delimiter = ',', value_name = "FAMILY")]
    curve: Vec<String>,
    /// Lists the scenarios.
    #[arg(long)]
    list: bool,
    /// Speakers [default: those that are installed]. `margay-2` is margay with `--shards 2`.
    #[arg(long, value_delimiter = ',')]
    speakers: Vec<String>,
    /// Another program: `bird3=/opt/bird3/sbin/bird`, `rustybgp=/opt/rustybgpd`. The name begins with margay, bird, frr, gobgp, rustybgp or
    /// openbgpd. One that is not there is left out, with a line that says so.
    #[arg(long, value_name = "NAME=PATH")]
    bin: Vec<String>,
    /// How often each is run; medians are reported.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Seconds that a phase may take.
    #[arg(long, default_value_t = 120)]
    limit: u64,
    /// A share of the prefixes, for a quick look: the figures are then none of the scenario.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Writes all figures of all runs.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draws them.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// What cargo says to a bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match measure() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn measure() -> Result<ExitCode> {
    let options = Options::parse();
    if options.list {
        ALL.iter().for_each(|scenario| println!("{:16} {}", scenario.name, scenario.what));
        return Ok(ExitCode::SUCCESS);
    }
    let names = options.names()?;
    if let Some(code) = enclosure::enter_with_margay()? {
        return Ok(code);
    }
    compare::furnish()?;
    let (speakers, lacking) = Speaker::chosen(&options.speakers, &options.bin)?;
    lacking.iter().for_each(|line| println!("{line}"));
    for speaker in &speakers {
        println!("{}: {} ({})", speaker.name, speaker.program.display(), speaker.version());
    }
    let mut rows: Vec<Row> = Vec::new();
    for name in &names {
        let scenario = Scenario::named(name).with_context(|| format!("scenario {name}: there is {}", ALL.map(|one| one.name).join(" ")))?;
        println!("\n{name}: {}", scenario.what);
        let prepared = Prepared::new(scenario.scaled(options.scale));
        let mut failed: BTreeSet<&str> = BTreeSet::new();
        for run in 1..=options.runs {
            for speaker in &speakers {
                // What has failed once is not waited for again.
                if failed.contains(&*speaker.name) {
                    continue;
                }
                for row in prepared.run(speaker, Duration::from_secs(options.limit)) {
                    println!("  run {run}: {}", one_line(&row));
                    if row.error.is_some() {
                        failed.insert(&speaker.name);
                    }
                    rows.push(row);
                }
            }
        }
    }
    let lines = report::lines(&rows);
    println!("\n{}", report::table(&lines));
    if let Some(curve) = report::curve(&lines) {
        println!("{curve}");
    }
    if options.scale != 1.0 {
        println!("With --scale {} these are not the figures of the scenarios.", options.scale);
    }
    if let Some(path) = &options.json {
        let versions: Vec<_> = speakers.iter().map(|speaker| json!({"name": speaker.name, "version": speaker.version()})).collect();
        let all = json!({"scale": options.scale, "speakers": versions, "medians": lines, "runs": rows});
        std::fs::write(path, serde_json::to_string_pretty(&all)? + "\n").with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &options.svg {
        std::fs::write(path, chart::svg(&lines)).with_context(|| path.display().to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is run without a word; the others take long, or want many sessions.
const USUAL: [&str; 11] = ["S1", "S2", "S3", "S4", "S4-herd", "S4-500", "S4-1000", "S7", "S7-reload", "S8", "D1"];

impl Options {
    /// The scenarios that are meant.
    fn names(&self) -> Result<Vec<String>> {
        let mut names = self.scenarios.clone();
        for family in &self.curve {
            let size = |name: &str| name.strip_prefix(family)?.strip_prefix('-')?.parse::<usize>().ok();
            let before = names.len();
            names.extend(ALL.iter().filter(|scenario| size(scenario.name).is_some()).map(|scenario| scenario.name.to_owned()));
            ensure!(names.len() > before, "--curve {family}: there is S4 and mesh");
        }
        if names.is_empty() {
            names = USUAL.map(str::to_owned).to_vec();
        }
        Ok(names)
    }
}

fn one_line(row: &Row) -> String {
    if let Some(error) = &row.error {
        return format!("{:14} {:10} failed: {error}", row.row, row.speaker);
    }
    let latency = row.latency.map_or(String::new(), |(half, worst)| format!(", p50 {half:.3} ms, p99 {worst:.3} ms"))
        + &if row.rounds > 1 { format!(", {} rounds", row.rounds) } else { String::new() }
        + &row.idle.map_or(String::new(), |share| format!(", {share:.2} % of a core"))
        + &row.silence.map_or(String::new(), |longest| format!(", {} sessions, silent {longest:.3} s at most", row.sessions));
    format!(
        "{:14} {:10} {:7.2} s, CPU {:6.2} s ({:.2} until done), generator {:5.2} s, peak {:4.0} MB, {} messages{latency}",
        row.row,
        row.speaker,
        row.seconds,
        row.cpu,
        row.cpu_until_done,
        row.generator_cpu,
        row.peak as f64 / 1e6,
        row.messages
    )
}
