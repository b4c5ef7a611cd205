//! `cargo layout`: runs margay under callgrind in scenarios of the bench, and writes the order of its functions, `packaging/layout/hot.ld`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use proto_tests::lab::image::repository;
use proto_tests::layout::{order, ran, script, symbols};

/// Basic blocks after which callgrind writes down what has run: margay ends before it could at its end.
const BLOCKS: &str = "10000000";

/// Records which functions of margay run, and writes packaging/layout/hot.ld. Takes some six minutes; needs valgrind and binutils.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo layout")]
struct Arguments {
    /// The margay to look at, built with the release profile and its symbols.
    #[arg(long, default_value_os_t = repository().join("target/release/margay"))]
    margay: PathBuf,
    /// What it does meanwhile: scenarios of the bench.
    #[arg(long, default_value = "S4-125,S7,S8,S2,D1,S3,S7-reload")]
    scenarios: String,
    /// The file to write.
    #[arg(long, default_value_os_t = repository().join("packaging/layout/hot.ld"))]
    output: PathBuf,
}

fn main() -> ExitCode {
    match record(&Arguments::parse()) {
        Ok(functions) => {
            println!("{functions} functions");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("layout: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn record(arguments: &Arguments) -> Result<usize> {
    let margay = std::path::absolute(&arguments.margay)?;
    let listing = Command::new("nm").arg("-S").arg(&margay).output().context("cannot run nm (package binutils)")?;
    ensure!(listing.status.success(), "{}: {}", margay.display(), String::from_utf8_lossy(&listing.stderr).trim());
    let folder = tempfile::tempdir()?;
    play(&margay, &arguments.scenarios, folder.path())?;
    let mut names = BTreeSet::new();
    for trace in fs::read_dir(folder.path())? {
        let text = fs::read(trace?.path())?;
        names.extend(ran(&String::from_utf8_lossy(&text)).map(str::to_owned));
    }
    let listing = String::from_utf8_lossy(&listing.stdout);
    let symbols = symbols(&listing);
    let order = order(&symbols, &names);
    ensure!(!order.is_empty(), "nothing was traced: is valgrind installed, and are there symbols in {}?", margay.display());
    fs::write(&arguments.output, script(&order)).with_context(|| arguments.output.display().to_string())?;
    Ok(order.len())
}

/// Plays the scenarios with a margay that is traced into files of the folder.
fn play(margay: &Path, scenarios: &str, folder: &Path) -> Result<()> {
    let traced = folder.join("traced");
    let options = format!("--tool=callgrind --demangle=no --dump-every-bb={BLOCKS}");
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
    bench.arg("--bin").arg(format!("margay={}", traced.display())).current_dir(repository());
    ensure!(bench.status().context("cannot run cargo")?.success(), "the bench failed");
    Ok(())
}
