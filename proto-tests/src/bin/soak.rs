//! `cargo soak`: half an hour, or longer, of everything that can go wrong on a real kernel.

use std::process::ExitCode;

use clap::Parser;
use proto_tests::soak::cli::{Arguments, main as soak};

fn main() -> ExitCode {
    soak(&Arguments::parse())
}
