//! How fast routes go into the kernel, beside what the kernel can do at all: a raw loop over prebuilt netlink messages ([`raw`]), margay's
//! writer, and a FibSyncer with its kernel thread ([`ours`]), in turn on the same routes, medians of the rounds; the latter once more by
//! next-hop objects, which replace all routes in one message; and how long a FibSyncer
//! takes to adopt the routes of a past life ([`restart`]).
//!
//! `cargo bench --workspace --bench kernel -- [--json FILE] [--ipv4 N] [--ipv6 N] [--restart N] [--rounds N]`; needs root or user
//! namespaces. CPU is that of this process, the kernel's work on its behalf (system) apart from its own (user): the latter hardly depends
//! on how busy the machine is.

mod ours;
mod raw;
mod restart;
mod routes;

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use clap::Parser;
use serde::Serialize;

use routes::{Family, Verb, World};

/// How fast routes go into the kernel, beside what the kernel can do at all.
#[derive(Clone, Debug, Parser)]
struct Options {
    /// IPv4 routes; 0 for none.
    #[arg(long, default_value_t = 1_000_000)]
    ipv4: u32,
    /// IPv6 routes; 0 for none.
    #[arg(long, default_value_t = 200_000)]
    ipv6: u32,
    /// Routes (IPv4) that a restart finds; 0 for none.
    #[arg(long, default_value_t = 500_000)]
    restart: u32,
    /// How often each is run; medians are reported.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Writes all figures of all rounds.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What cargo says to a bench.
    #[arg(long, hide = true)]
    bench: bool,
}

const INSIDE: &str = "MARGAY_BENCH_NAMESPACE";

fn main() {
    let options = Options::parse();
    if std::env::var_os(INSIDE).is_some() {
        return measure(&options);
    }
    let itself = std::env::current_exe().expect("the path of this program");
    let run =
        |unshare: &[&str]| Command::new("unshare").args(unshare).arg(&itself).args(std::env::args_os().skip(1)).env(INSIDE, "1").status();
    if !run(&["--net"]).is_ok_and(|status| status.success()) && !run(&["--map-root-user", "--net"]).is_ok_and(|status| status.success()) {
        std::process::exit(1);
    }
}

/// One measured run.
#[derive(Clone, Debug, Serialize)]
struct Sample {
    who: String,
    family: Family,
    verb: Verb,
    routes: usize,
    seconds: f64,
    /// CPU seconds of this process.
    user: f64,
    system: f64,
}

/// Runs `work` on the clock.
fn sample(who: &str, family: Family, verb: Verb, routes: usize, work: impl FnOnce()) -> Sample {
    let (start, before) = (Instant::now(), cpu());
    work();
    let (seconds, after) = (start.elapsed().as_secs_f64(), cpu());
    Sample { who: who.to_owned(), family, verb, routes, seconds, user: after.0 - before.0, system: after.1 - before.1 }
}

/// CPU seconds of this process so far: its own, and the kernel's on its behalf.
fn cpu() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks: Vec<f64> =
        stat.rsplit(')').next().unwrap_or("").split_whitespace().skip(11).take(2).filter_map(|f| f.parse().ok()).collect();
    // Hundredths of a second, on every machine that Linux runs on.
    (ticks[0] / 100.0, ticks[1] / 100.0)
}

fn measure(options: &Options) {
    let world = World::make();
    let mut samples = Vec::new();
    for (family, count) in [(Family::IPv4, options.ipv4), (Family::IPv6, options.ipv6)].into_iter().filter(|(_, count)| *count > 0) {
        println!("{family:?}, {count} routes");
        let prefixes = family.prefixes(count);
        for round in 1..=options.rounds {
            let mut tell = |sample: Sample| {
                println!("  round {round}: {}", line(&sample));
                samples.push(sample);
            };
            raw::run(&world, family, &prefixes, &mut tell);
            ours::writer(&world, family, &prefixes, &mut tell);
            ours::syncer(&world, family, &prefixes, false, &mut tell);
            ours::syncer(&world, family, &prefixes, true, &mut tell);
        }
    }
    println!();
    let medians = medians(&samples);
    medians.iter().for_each(|median| println!("{}", median.row()));
    let restarts: Vec<_> =
        if options.restart > 0 { (0..options.rounds).map(|_| restart::run(&world, options.restart)).collect() } else { vec![] };
    if let Some(path) = &options.json {
        let all = serde_json::json!({"medians": medians, "restarts": restarts, "runs": samples});
        std::fs::write(path, serde_json::to_string_pretty(&all).expect("figures") + "\n").expect("the file of --json");
    }
}

fn line(sample: &Sample) -> String {
    let Sample { who, verb, routes, seconds, user, system, .. } = sample;
    let each = |seconds: &f64| seconds * 1e6 / *routes as f64;
    format!(
        "{who:24} {:8} {:9.0} a second, CPU a route {:5.2} us user, {:5.2} us system",
        format!("{verb:?}").to_lowercase(),
        *routes as f64 / seconds,
        each(user),
        each(system)
    )
}

/// The middle one of the rounds of a contestant, and how it compares to the best raw loop.
#[derive(Clone, Debug, Serialize)]
struct Median {
    #[serde(flatten)]
    sample: Sample,
    /// Routes a second over those of the fastest raw loop.
    ratio: f64,
}

impl Median {
    fn row(&self) -> String {
        format!("{:?} {}, {:4.2} of the raw loop", self.sample.family, line(&self.sample), self.ratio)
    }
}

fn medians(samples: &[Sample]) -> Vec<Median> {
    let key = |sample: &Sample| (sample.family, sample.verb, sample.who.clone());
    let mut keys: Vec<_> = Vec::new();
    for sample in samples {
        if !keys.contains(&key(sample)) {
            keys.push(key(sample));
        }
    }
    keys.sort_by_key(|(family, verb, _)| (*family, *verb));
    let median = |wanted: &_| {
        let mut rounds: Vec<&Sample> = samples.iter().filter(|sample| key(sample) == *wanted).collect();
        rounds.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        rounds[rounds.len() / 2].clone()
    };
    let all: Vec<Sample> = keys.iter().map(median).collect();
    let of_raw = |of: &Sample| {
        let same = all.iter().filter(|one| (one.family, one.verb) == (of.family, of.verb) && one.who.starts_with("raw"));
        same.map(|one| one.seconds).min_by(f64::total_cmp).map_or(f64::NAN, |best| best / of.seconds)
    };
    all.iter().map(|sample| Median { sample: sample.clone(), ratio: of_raw(sample) }).collect()
}
