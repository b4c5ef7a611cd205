//! The order of margay's functions, `packaging/layout/hot.ld`, still knows the program.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use proto_tests::lab::image::repository;
use proto_tests::layout::{stem, stems, symbols};
use proto_tests::live::daemon::program;

/// Of the stems so many in a hundred are functions of the program. In the build of the tests some are missing that LLVM makes, and
/// some of the standard library that are named otherwise by another compiler.
const KNOWN: usize = 75;

#[test]
fn the_order_of_functions_knows_most_of_those_that_run() -> Result<()> {
    let listing = Command::new("nm").arg("-S").arg(program()?).output().context("nm (package binutils)")?;
    let listing = String::from_utf8(listing.stdout)?;
    let known: BTreeSet<&str> = symbols(&listing).into_keys().map(stem).collect();
    let order = fs::read_to_string(repository().join("packaging/layout/hot.ld"))?;
    let wanted = stems(&order);
    let found = wanted.iter().filter(|stem| known.contains(**stem)).count();
    assert!(found * 100 >= wanted.len() * KNOWN, "of {} functions {found} are there: `cargo layout` records them anew", wanted.len());
    println!("{found} of {}", wanted.len());
    Ok(())
}
