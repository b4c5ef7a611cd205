//! `lab`: topologies on this machine, without containers. `cargo lab quickstart` is the tour.

use std::process::ExitCode;

fn main() -> ExitCode {
    match proto_tests::lab::cli::main() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::from(2)
        }
    }
}
