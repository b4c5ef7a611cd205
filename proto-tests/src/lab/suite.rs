//! A test harness for stories that need a lab. It speaks as libtest does, so that whoever counts tests and names those that failed counts and
//! names stories too; but a story that cannot run says SKIPPED and why, and is counted as ignored.
//!
//! With `CI` set nothing may be skipped: what cannot run has failed.

use std::env;
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
        println!("\nrunning 0 tests\n");
        return ExitCode::SUCCESS;
    }
    let filtered = stories.len() - chosen.len();
    match enclosure::enter_with_margay() {
        Ok(Some(outside)) => outside,
        Ok(None) => run_all(&chosen, filtered, None),
        Err(reason) => run_all(&chosen, filtered, Some(&format!("{reason:#}"))),
    }
}

fn run_all(stories: &[&Story], filtered: usize, obstacle: Option<&str>) -> ExitCode {
    println!("\nrunning {} tests", stories.len());
    let began = Instant::now();
    let (mut passed, mut skipped, mut failed) = (0, 0, Vec::new());
    for story in stories {
        println!("lab {} is run", story.name);
        let start = Instant::now();
        let outcome = match obstacle {
            Some(reason) => Outcome::Skipped(reason.to_owned()),
            None => run(story),
        };
        let seconds = start.elapsed().as_secs_f32();
        match outcome {
            Outcome::Passed => {
                passed += 1;
                println!("test {} ... ok ({seconds:.1} s)", story.name);
            }
            Outcome::Skipped(reason) if env::var_os("CI").is_none() => {
                skipped += 1;
                println!("test {} ... ignored, SKIPPED since {reason}", story.name);
            }
            Outcome::Skipped(reason) | Outcome::Failed(reason) => {
                failed.push(story.name);
                println!("test {} ... FAILED ({seconds:.1} s)\n{reason}", story.name);
            }
        }
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    if !failed.is_empty() {
        println!("\nfailures:");
        failed.iter().for_each(|name| println!("    {name}"));
    }
    println!(
        "\ntest result: {verdict}. {passed} passed; {} failed; {skipped} ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        failed.len(),
        filtered,
        began.elapsed().as_secs_f32()
    );
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
