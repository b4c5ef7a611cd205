//! The soak of `cargo soak` for three minutes where `CI` is set, else for half a minute, which is too short to judge memory by.

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use proto_tests::lab::enclosure;
use proto_tests::lab::skip::skipped;
use proto_tests::soak::cli::{Arguments, main as soak, possible};

const NAME: &str = "soak";

fn main() -> ExitCode {
    // This program again, in its enclosure.
    if enclosure::current().is_some() {
        return soak(&Arguments::parse());
    }
    let words: Vec<String> = env::args().skip(1).collect();
    if words.iter().any(|word| word == "--list") {
        println!("{NAME}: test");
        return ExitCode::SUCCESS;
    }
    let mut filters = words.iter().filter(|word| !word.starts_with('-')).peekable();
    if filters.peek().is_some() && !filters.any(|filter| NAME.contains(filter.as_str())) {
        return ExitCode::SUCCESS;
    }
    let in_ci = env::var_os("CI").is_some();
    if let Err(why) = possible()
        && !in_ci
    {
        skipped(NAME, &format!("{why:#}"));
        return ExitCode::SUCCESS;
    }
    if !in_ci {
        println!("CI is not set: half a minute instead of three");
    }
    let code = soak(&Arguments::lasting(Duration::from_secs(if in_ci { 180 } else { 30 })));
    let (verdict, failed) = if code == ExitCode::SUCCESS { ("ok", 0) } else { ("FAILED", 1) };
    println!("\ntest result: {verdict}. {} passed; {failed} failed; 0 ignored\n", 1 - failed);
    code
}
