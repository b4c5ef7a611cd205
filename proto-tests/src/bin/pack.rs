//! `cargo pack`: what margay is shipped as. `deb` makes the Debian package, `root` the root filesystem of the container image.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use proto_tests::lab::image::repository;
use proto_tests::package::{deb, root};

/// Packs margay, built with the release profile.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo pack")]
enum Pack {
    /// The Debian package; its path is printed. Needs cargo-deb (`cargo install cargo-deb --locked`), dpkg-dev and binutils.
    Deb {
        /// The file to write, or the folder to write into.
        #[arg(long, default_value = "target/debian")]
        output: PathBuf,
        /// Who answers for the package: `Name <address>`.
        #[arg(long)]
        maintainer: Option<String>,
    },
    /// The root filesystem of the container image, without an engine: what packaging/container/Containerfile makes. Needs binutils.
    Root {
        /// The folder to fill.
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    match pack(Pack::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pack: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn pack(what: Pack) -> Result<()> {
    let margay = build()?;
    match what {
        Pack::Deb { output, maintainer } => {
            let options: Vec<&str> = maintainer.iter().flat_map(|name| ["--maintainer", name]).collect();
            println!("{}", deb::build(&margay, &std::path::absolute(output)?, &options)?.display());
        }
        Pack::Root { folder } => root::assemble(&margay, &folder)?,
    }
    Ok(())
}

/// The release build of margay.
fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--locked", "--package", "margay", "--bin", "margay"]).current_dir(repository());
    command.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_PKG_NAME");
    ensure!(command.status().context("cannot run cargo")?.success(), "margay does not build");
    Ok(repository().join("target/release/margay"))
}
