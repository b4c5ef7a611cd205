//! `cargo layout`: runs margay under callgrind in scenarios of the bench, and writes the order of its functions, `packaging/layout/hot.ld`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use proto_tests::lab::image::repository;
use proto_tests::layout::{at_each_wake, order, ran, script, stems, symbols};

/// Basic blocks after which callgrind writes down what has run: margay ends before it could at its end.
const BLOCKS: u32 = 10_000_000;
/// The same where single changes are told from the table before them: less than half a second of them.
const BLOCKS_OF_CHANGES: u32 = 250_000;
/// The scenario of single changes, and what of it: it is the changes that count, not the table before them.
const CHANGES: (&str, f64) = ("S7", 0.1);

/// Records which functions of margay run, and writes packaging/layout/hot.ld. Takes some six minutes; needs valgrind and binutils.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo layout")]
struct Arguments {
    /// The margay to look at, built with the release profile and its symbols.
    #[arg(long, default_value_os_t = repository().join("target/release/margay"))]
    margay: PathBuf,
    /// What it does meanwhile: scenarios of the bench, besides single changes.
    #[arg(long, default_value = "S4-125,S7,S8,S2,D1,S3,S7-reload")]
    scenarios: String,
    /// The file to write.
    #[arg(long, default_value_os_t = repository().join("packaging/layout/hot.ld"))]
    output: PathBuf,
}

fn main() -> ExitCode {
    match record(&Arguments::parse()) {
        Ok((first, functions)) => {
            println!("{first} functions of a single change, {functions} in all");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("layout: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn record(arguments: &Arguments) -> Result<(usize, usize)> {
    let margay = std::path::absolute(&arguments.margay)?;
    let listing = Command::new("nm").arg("-S").arg(&margay).output().context("cannot run nm (package binutils)")?;
    ensure!(listing.status.success(), "{}: {}", margay.display(), String::from_utf8_lossy(&listing.stderr).trim());
    let mut first = (0, Vec::new());
    play(&margay, CHANGES.0, CHANGES.1, BLOCKS_OF_CHANGES, |trace| first = at_each_wake(trace).max(std::mem::take(&mut first)))?;
    let mut names = BTreeSet::new();
    play(&margay, &arguments.scenarios, 1.0, BLOCKS, |trace| names.extend(ran(trace).map(str::to_owned)))?;
    let listing = String::from_utf8_lossy(&listing.stdout);
    let symbols = symbols(&listing);
    let before = fs::read_to_string(&arguments.output).unwrap_or_default();
    let order = order(&symbols, &names, &stems(&before));
    let nothing = || format!("nothing was traced: is valgrind installed, and are there symbols in {}?", margay.display());
    ensure!(!order.is_empty() && !first.1.is_empty(), nothing());
    fs::write(&arguments.output, script(&first.1, &order)).with_context(|| arguments.output.display().to_string())?;
    Ok((first.1.len(), order.len()))
}

/// Plays the scenarios with a margay that is traced, and hands out each trace.
fn play(margay: &Path, scenarios: &str, scale: f64, blocks: u32, mut hear: impl FnMut(&str)) -> Result<()> {
    let folder = tempfile::tempdir()?;
    run(margay, scenarios, scale, blocks, folder.path())?;
    for trace in fs::read_dir(folder.path())? {
        hear(&String::from_utf8_lossy(&fs::read(trace?.path())?));
    }
    Ok(())
}

/// The same, into files of the folder.
fn run(margay: &Path, scenarios: &str, scale: f64, blocks: u32, folder: &Path) -> Result<()> {
    let traced = folder.join("traced");
    let options = format!("--tool=callgrind --demangle=no --dump-every-bb={blocks}");
    // A process of the bench has the same number in each run.
    let file = format!("{}/trace.%p.$(date +%s%N)", folder.display());
    let margay = margay.display();
    let wrapper = format!(
        "#!/bin/sh\ncase \"$1\" in\nrun) exec valgrind {options} --callgrind-out-file={file} '{margay}' \"$@\";;\n*) exec '{margay}' \"$@\";;\nesac\n"
    );
    fs::write(&traced, wrapper)?;
    fs::set_permissions(&traced, fs::Permissions::from_mode(0o755))?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut bench = Command::new(cargo);
    bench.args(["bench", "--workspace", "--bench", "compare", "--", "--speakers", "margay", "--runs", "1", "--scenarios", scenarios]);
    bench.arg("--scale").arg(scale.to_string()).arg("--bin").arg(format!("margay={}", traced.display())).current_dir(repository());
    ensure!(bench.status().context("cannot run cargo")?.success(), "the bench failed");
    Ok(())
}
