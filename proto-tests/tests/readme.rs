//! The README and the guides say what is so: their links lead somewhere, the README's example is valid, its verbs and flags exist.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use proto_tests::lab::image::{build_margay, repository};
use proto_tests::lab::process::run;
use proto_tests::live::daemon::program;

fn documents() -> Result<Vec<PathBuf>> {
    let mut all =
        vec![repository().join("README.md"), repository().join("CONTRIBUTING.md"), repository().join("packaging/prometheus/RUNBOOK.md")];
    for entry in std::fs::read_dir(repository().join("packaging/guides"))? {
        all.push(entry?.path());
    }
    all.retain(|path| path.extension().is_some_and(|end| end == "md"));
    Ok(all)
}

/// What stands in `](…)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// The anchor that a heading gets: lower case, blanks become hyphens, other signs go.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_leads_to_a_file_or_a_heading() -> Result<()> {
    let mut seen = 0;
    for document in documents()? {
        let text = std::fs::read_to_string(&document)?;
        let folder = document.parent().unwrap_or(Path::new("/"));
        for link in links(&text).filter(|link| !link.contains("://")) {
            seen += 1;
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            ensure!(folder.join(file).exists(), "{}: there is no {file}", document.display());
            let there = text.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
            ensure!(heading.is_empty() || !file.is_empty() || there, "{}: there is no heading #{heading}", document.display());
        }
    }
    ensure!(seen > 30, "{seen} links were found");
    Ok(())
}

fn readme() -> Result<String> {
    Ok(std::fs::read_to_string(repository().join("README.md"))?)
}

#[test]
fn the_example_is_valid_and_is_a_peer_of_the_node() -> Result<()> {
    build_margay()?;
    let text = readme()?;
    let example = text.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).context("no example")?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("all.yaml"), example)?;
    let margay = |words: &[&str]| {
        let mut command = Command::new(program()?);
        command.args(words).arg(folder.path());
        run(command, None)
    };
    ensure!(margay(&["check"])? == "no problems\n", "{}", margay(&["check"])?);
    let said = margay(&["render", "--node", "node1"])?;
    ensure!(said.contains("peer Global_172_20_0_254") && said.contains("10.244.1.0/26"), "{said}");
    Ok(())
}

/// The verb of a command as the README writes it, up to the first placeholder, and its flags.
fn parts(command: &str) -> (Vec<&str>, Vec<String>) {
    let plain = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-');
    let verb = command.split_whitespace().skip(1).take_while(plain).collect();
    let flags = command.split(|c: char| c.is_whitespace() || "[]|=".contains(c)).filter(|word| word.starts_with("--"));
    (verb, flags.map(str::to_owned).collect())
}

#[test]
fn every_command_of_the_readme_is_one_that_margay_has() -> Result<()> {
    build_margay()?;
    let text = readme()?;
    let mut seen = 0;
    for code in text.split('`').filter(|code| code.starts_with("margay ") && !code.contains('\n')) {
        let command = code.replace("\\|", "|");
        let (verb, flags) = parts(&command);
        let mut help = Command::new(program()?);
        help.args(&verb).arg("--help");
        let said = run(help, None).with_context(|| format!("the README has `{command}`"))?;
        for flag in flags {
            ensure!(said.contains(&flag), "the README has `{command}`, but margay {} knows no {flag}", verb.join(" "));
        }
        seen += 1;
    }
    ensure!(seen > 25, "{seen} commands were found");
    Ok(())
}
