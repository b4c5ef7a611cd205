//! `cargo fuzz-target NAME`: a fuzzing body under libFuzzer, with the same compiler as everything else.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use proto_tests::fuzz::{ALL, Target};

/// What makes rustc count which edges of the program an input has taken; libFuzzer reads the counters.
const COVERAGE: &str = "--cfg fuzzing -Cdebug-assertions -Coverflow-checks -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                        -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Named, so that build scripts and procedural macros are built without coverage.
const TRIPLE: &str = if cfg!(target_arch = "aarch64") { "aarch64-unknown-linux-gnu" } else { "x86_64-unknown-linux-gnu" };

/// Builds a fuzzing body with coverage and hands it to libFuzzer, which starts from the seeds and what earlier runs have found. What breaks it
/// is left as a file in target/fuzz/artifacts/NAME; `FUZZ_INPUT=FILE cargo test -p proto-tests --test fuzz NAME` runs it once.
#[derive(Debug, Parser)]
#[command(name = "fuzz-target")]
struct Arguments {
    /// message, session, rib, selector, resources, netlink, bird or control.
    target: String,
    /// For so many minutes.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// More words for libFuzzer, such as `-jobs=2`.
    #[arg(last = true)]
    more: Vec<String>,
}

fn main() -> ExitCode {
    match fuzz(&Arguments::parse()) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("fuzz-target: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn fuzz(arguments: &Arguments) -> Result<std::convert::Infallible> {
    let names = || ALL.map(|target| target.name).join(", ");
    let target = Target::named(&arguments.target).with_context(|| format!("`{}` is none of {}", arguments.target, names()))?;
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = here.join("../target/fuzz");
    let build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "--target", TRIPLE, "--manifest-path"])
        .arg(here.join("fuzz/Cargo.toml"))
        .arg("--target-dir")
        .arg(folder.join("build"))
        .env("RUSTFLAGS", COVERAGE)
        .status()
        .context("cannot run cargo")?;
    ensure!(build.success(), "the fuzzer was not built: {build} (libFuzzer needs a C++ compiler: `apt install g++`)");
    let program = folder.join("build").join(TRIPLE).join("release/any");
    let [corpus, artifacts] = ["corpus", "artifacts"].map(|name| folder.join(name).join(target.name));
    for folder in [&corpus, &artifacts] {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    write_seeds(&target, &corpus)?;
    let mut run = Command::new(&program);
    run.arg(&corpus)
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(format!("-max_total_time={}", 60 * arguments.minutes))
        .args(["-timeout=20", "-rss_limit_mb=4096"])
        .args(&arguments.more)
        .env("MARGAY_FUZZ", target.name);
    bail!("{}: {}", program.display(), run.exec())
}

fn write_seeds(target: &Target, corpus: &Path) -> Result<()> {
    for (number, seed) in (target.seeds)().iter().enumerate() {
        let path: PathBuf = corpus.join(format!("seed-{number:04}"));
        std::fs::write(&path, seed).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
