//! A test harness for stories that need a lab: like libtest's, but a story that cannot run says SKIPPED and why, and is counted so.
//!
//! With `CI` set nothing may be skipped: what cannot run has failed.

use std::env;
use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use super::{Lab, enclosure, image};

/// A test on a running lab.
pub struct Story {
    /// The test's name.
    pub name: &'static str,
    /// The lab file, relative to the repository.
    pub file: &'static str,
    /// What must come true.
    pub run: fn(&mut Lab) -> Result<()>,
}

enum Outcome {
    Passed,
    Skipped(String),
    Failed(String),
}

/// Runs the stories whose names contain one of the arguments; all, when there is none. `--list` only names them.
pub fn main(stories: &[Story]) -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        stories.iter().for_each(|story| println!("{}: test", story.name));
        return ExitCode::SUCCESS;
    }
    // libtest's flags (--nocapture, --test-threads=…, -q) mean nothing here.
    let exact = arguments.iter().any(|argument| argument == "--exact");
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| {
        filters.is_empty() || filters.iter().any(|filter| if exact { *filter == name } else { name.contains(filter.as_str()) })
    };
    let chosen: Vec<&Story> = stories.iter().filter(|story| wanted(story.name)).collect();
    if chosen.is_empty() {
        println!("\nrunning 0 labs\n");
        return ExitCode::SUCCESS;
    }
    match enclosure::enter_with_margay() {
        Ok(Some(outside)) => outside,
        Ok(None) => run_all(&chosen, None),
        Err(reason) => run_all(&chosen, Some(&format!("{reason:#}"))),
    }
}

fn run_all(stories: &[&Story], obstacle: Option<&str>) -> ExitCode {
    println!("\nrunning {} labs", stories.len());
    let (mut passed, mut skipped, mut failed) = (0, 0, Vec::new());
    for story in stories {
        print!("lab {} ... ", story.name);
        let _ = std::io::stdout().flush();
        let start = Instant::now();
        let outcome = match obstacle {
            Some(reason) => Outcome::Skipped(reason.to_owned()),
            None => run(story),
        };
        let seconds = start.elapsed().as_secs_f32();
        match outcome {
            Outcome::Passed => {
                passed += 1;
                println!("ok ({seconds:.1} s)");
            }
            Outcome::Skipped(reason) if env::var_os("CI").is_none() => {
                skipped += 1;
                println!("SKIPPED: {reason}");
            }
            Outcome::Skipped(reason) | Outcome::Failed(reason) => {
                failed.push(story.name);
                println!("FAILED ({seconds:.1} s)\n{reason}");
            }
        }
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!("\nlab result: {verdict}. {passed} passed; {} failed; {skipped} SKIPPED\n", failed.len());
    failed.iter().for_each(|name| println!("failed: {name}"));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

fn run(story: &Story) -> Outcome {
    let mut lab = match Lab::up(story.file) {
        Ok(lab) => lab,
        Err(error) => {
            return match error.downcast_ref::<image::Missing>() {
                Some(missing) => Outcome::Skipped(missing.to_string()),
                None => Outcome::Failed(chain(&error)),
            };
        }
    };
    match (story.run)(&mut lab) {
        Ok(()) => Outcome::Passed,
        Err(error) if error.is::<image::Missing>() => Outcome::Skipped(chain(&error)),
        Err(error) => {
            let failure = chain(&error);
            let folder = image::repository().join("target/lab/failed").join(story.name);
            let place = match lab.gather(&folder, &failure) {
                Ok(folder) => folder.display().to_string(),
                Err(error) => format!("not gathered: {error:#}"),
            };
            Outcome::Failed(format!("{failure}\n\n{}all of it: {place}", lab.tail()))
        }
    }
}

/// An error and its causes, a line each.
pub fn chain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
