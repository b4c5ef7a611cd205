//! The test program: every case of `fixtures/parity`, several at a time, each in namespaces of its own.
//!
//! `BLESS=1` runs BIRD and writes what it does to `truth.txt`; look at what changes.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::bench::{Bench, Speaker};
use super::bird;
use super::case::{Case, START};
use super::compare::{self, Phases};
use crate::lab::suite::chain;
use crate::lab::{enclosure, image, process};

/// How long a side may need for a phase. BIRD looks at the kernel every 2 s, and connects after as many; two BIRDs that
/// connect to one another in the same instant may close both connections and then pause for half a minute.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a side must stay as it is before that is what it has come to.
const CALM: Duration = Duration::from_millis(500);
/// The same for BIRD when nobody knows yet what it will come to.
const DEEP_CALM: Duration = Duration::from_secs(12);
/// Cases at a time: most of their time is waiting.
const LANES: usize = 4;

/// Runs the cases whose names contain one of the arguments; all, when there is none. `--list` only names them.
pub fn main() -> ExitCode {
    let cases = match cases() {
        Ok(cases) => cases,
        Err(error) => {
            println!("FAILED: {}", chain(&error));
            return ExitCode::from(101);
        }
    };
    if env::args().any(|argument| argument == "--list") {
        cases.iter().for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let chosen: Vec<Case> =
        cases.into_iter().filter(|case| filters.is_empty() || filters.iter().any(|filter| case.name.contains(filter))).collect();
    match prepare() {
        Ok(Some(outside)) => outside,
        Ok(None) => run_all(&chosen),
        Err(error) if env::var_os("CI").is_none() => {
            println!("test parity ... SKIPPED: {error:#}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("test parity ... FAILED: {error:#}");
            ExitCode::from(101)
        }
    }
}

fn cases() -> Result<Vec<Case>> {
    let folder = image::repository().join("proto-tests/fixtures/parity");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    folders.sort();
    folders.iter().filter(|path| path.is_dir()).map(|path| Case::read(path)).collect()
}

/// Outside: builds and fetches what is tested (inside there is no network), and goes in.
fn prepare() -> Result<Option<ExitCode>> {
    if enclosure::current().is_none() {
        image::build_margay()?;
        if let Err(error) = bird::fetch() {
            println!("note: no BIRD 1.6 ({error:#}): margay is compared with what BIRD was seen to do when it was recorded");
        }
    }
    enclosure::enter()
}

fn run_all(cases: &[Case]) -> ExitCode {
    println!("\nrunning {} tests", cases.len());
    let start = Instant::now();
    let (queue, failed) = (Mutex::new(cases.iter()), Mutex::new(Vec::new()));
    let lane = || {
        loop {
            let Some(case) = queue.lock().ok().and_then(|mut queue| queue.next()) else { return };
            let start = Instant::now();
            let result = run(case);
            let seconds = start.elapsed().as_secs_f32();
            match result {
                Ok(()) => println!("test {} ... ok ({seconds:.1} s)", case.name),
                Err(error) => {
                    println!("test {} ... FAILED ({seconds:.1} s)\n{}", case.name, chain(&error));
                    failed.lock().into_iter().for_each(|mut failed| failed.push(case.name.clone()));
                }
            }
        }
    };
    std::thread::scope(|scope| (0..LANES).for_each(|_| drop(scope.spawn(lane))));
    let failed = failed.into_inner().unwrap_or_default();
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    let passed = cases.len() - failed.len();
    println!("\ntest result: {verdict}. {passed} passed; {} failed; 0 ignored; {:.1} s", failed.len(), start.elapsed().as_secs_f32());
    failed.iter().for_each(|name| println!("failed: {name}"));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

fn run(case: &Case) -> Result<()> {
    if env::var_os("BLESS").is_some() {
        compare::write(case, &learn(case)?)?;
    }
    let truth = compare::read(case)?;
    let wanted = compare::announced(case, &truth)?;
    std::thread::scope(|scope| {
        let other = bird::present().then(|| scope.spawn(|| follow(case, Speaker::Bird, &truth)));
        let margay = follow(case, Speaker::Margay, &wanted);
        let bird = other.map(|thread| thread.join().unwrap_or_else(|_| bail!("panicked"))).transpose();
        let (ours, theirs) = (margay?, bird?);
        if let Some(theirs) = theirs {
            let difference = compare::difference(&theirs, &ours);
            ensure!(difference.is_empty(), "margay changed other routes of the kernel than BIRD did:\n{}", difference.join("\n"));
        }
        Ok(())
    })
}

/// Runs a side through all phases; each must come to what is wanted. Returns the kernel's other routes at the end.
fn follow(case: &Case, speaker: Speaker, wanted: &Phases) -> Result<Vec<String>> {
    let mut bench = Bench::up(case, speaker)?;
    let result = phases(case, &bench, |phase| {
        let wanted = wanted.get(phase).with_context(|| format!("truth.txt has no `{phase}`"))?;
        process::wait_until_calm(PATIENCE, CALM, phase, || agrees(&bench, wanted))
    });
    let others = result.and_then(|()| Ok(bench.lines()?.1));
    others.map_err(|error| {
        let said = bench.tail();
        error.context(format!("{said}all of it: {}", bench.keep().display())).context(format!("{} as {speaker:?}", case.name))
    })
}

fn phases(case: &Case, bench: &Bench, mut each: impl FnMut(&str) -> Result<()>) -> Result<()> {
    each(START)?;
    for step in &case.steps {
        bench.step(step).with_context(|| step.name.clone())?;
        each(&step.name)?;
    }
    Ok(())
}

/// It is as wanted.
fn agrees(bench: &Bench, wanted: &[String]) -> Result<()> {
    let difference = compare::difference(wanted, &bench.lines()?.0);
    ensure!(difference.is_empty(), "wanted (-) and found (+):\n{}", difference.join("\n"));
    Ok(())
}

/// Runs BIRD and sees what it comes to.
fn learn(case: &Case) -> Result<Phases> {
    ensure!(bird::present(), "BLESS=1 needs BIRD 1.6: apt-get download bird");
    let mut bench = Bench::up(case, Speaker::Bird)?;
    let mut all = Phases::new();
    let result = phases(case, &bench, |phase| {
        let lines = process::wait_until_calm(PATIENCE, DEEP_CALM, phase, || Ok(bench.lines()?.0))?;
        let faults: Vec<&String> = lines.iter().filter(|line| line.contains(" no session ") || line.contains(" fault ")).collect();
        ensure!(faults.is_empty() || phase != START, "not a truth to keep: {faults:?}");
        all.insert(phase.to_owned(), lines);
        Ok(())
    });
    result.map_err(|error| error.context(format!("{all:#?}\n{}all of it: {}", bench.tail(), bench.keep().display())))?;
    if env::var_os("KEEP").is_some() {
        println!("{}: {}", case.name, bench.keep().display());
    }
    Ok(all)
}
