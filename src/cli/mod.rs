//! The command line: one verb a file, `--json` first, tables second.
//!
//! Exit codes: 0 done; 1 the answer is "no" or "invalid"; 2 usage; 3 the daemon cannot be reached.

mod check;
mod client;
mod complete;
mod confirm;
mod diag;
mod diff;
mod drain;
mod dump;
mod events;
mod explain;
mod health;
mod man;
mod progress;
mod render;
mod replace;
mod reset;
mod routes;
mod run;
mod show;
mod table;
mod terminal;
mod time;
mod watch;
mod whole_file;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A native BGP route-distribution speaker for Calico-style networks.
#[derive(Debug, Parser)]
#[command(
    name = "margay",
    version,
    about,
    max_term_width = 120,
    after_help = "Examples:
  margay run --node node1 --resources /etc/margay/resources    the daemon
  margay show peers                                            its sessions
  margay explain 10.244.1.0/26                                 why a route is where it is
  margay check /etc/margay/resources                           before a change: is it valid?

Exit codes: 0 done, 1 the answer is no, 2 usage, 3 the daemon cannot be reached."
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The daemon.
    Run(Box<run::Run>),
    /// What the daemon knows: peers, routes, the kernel, problems, the configuration.
    Show(show::Show),
    /// Why a route is where it is, or why a peer is up, down or absent.
    Explain(explain::Explain),
    /// Whether resources are valid; every problem with file and line. Exit 1 if any is an error.
    Check(check::Check),
    /// What a node would do with these resources: peers, policies, origins.
    Render(render::Render),
    /// What these resources would change in the running daemon: peers, sessions, routes.
    Diff(diff::Diff),
    /// What happens, as it happens: sessions, configuration, the kernel, best paths of a prefix.
    Monitor(events::Monitor),
    /// Let a change of the files that is on trial count for good, or undo it.
    Confirm(confirm::Confirm),
    /// Reset a session, or ask for routes again with --soft.
    Reset(reset::Reset),
    /// Move traffic away from this node: tell all routes with GRACEFUL_SHUTDOWN (RFC 8326).
    Drain(drain::Drain),
    /// End a drain: the node is in service again.
    Undrain(drain::Undrain),
    /// Plumb workloads on a host without Felix: interfaces, routes, NAT.
    Workload(workload::WorkloadVerb),
    /// Write what peers have told into a file, for other tools.
    Dump(dump::Dump),
    /// Pack what a bug report needs into one archive, secrets removed.
    Diag(diag::Diag),
    /// Print what makes a shell complete verbs and flags, and peers and prefixes from the running daemon.
    #[command(after_help = "Examples:
  margay completion bash > /etc/bash_completion.d/margay             for everybody
  margay completion zsh > /usr/local/share/zsh/site-functions/_margay
  margay completion fish > ~/.config/fish/completions/margay.fish")]
    Completion {
        /// bash, zsh, fish, elvish or powershell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder.
    #[command(after_help = "Examples:
  margay man /usr/local/share/man/man1    then `man margay-show-routes`")]
    Man {
        /// The folder; it must exist.
        dir: PathBuf,
    },
}

/// How a verb ended.
#[derive(Debug)]
pub enum Ended {
    /// Exit code 0.
    Done,
    /// Exit code 1: the answer is "no" or "invalid".
    No,
}

/// Why a verb could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Exit code 3.
    #[error("{0}")]
    Unreachable(String),
    /// Exit code 1.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    complete::answer(command);
    let arguments = Arguments::parse();
    match carry_out(arguments.verb) {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::No) => ExitCode::from(1),
        Err(Failure::Unreachable(text)) => complain(3, &text),
        Err(Failure::Other(error)) => complain(1, &format!("{error:#}")),
    }
}

fn complain(code: u8, text: &str) -> ExitCode {
    eprintln!("margay: {text}");
    ExitCode::from(code)
}

fn carry_out(verb: Verb) -> Result<Ended, Failure> {
    match verb {
        Verb::Run(verb) => verb.carry_out(),
        Verb::Show(verb) => verb.carry_out(),
        Verb::Explain(verb) => verb.carry_out(),
        Verb::Check(verb) => verb.carry_out(),
        Verb::Render(verb) => verb.carry_out(),
        Verb::Diff(verb) => verb.carry_out(),
        Verb::Monitor(verb) => verb.carry_out(),
        Verb::Confirm(verb) => verb.carry_out(),
        Verb::Reset(verb) => verb.carry_out(),
        Verb::Drain(verb) => verb.carry_out(),
        Verb::Undrain(verb) => verb.carry_out(),
        Verb::Workload(verb) => verb.carry_out(),
        Verb::Dump(verb) => verb.carry_out(),
        Verb::Diag(verb) => verb.carry_out(),
        Verb::Completion { shell } => {
            let script = complete::script(&shell.to_string()).map_err(anyhow::Error::from)?;
            terminal::print(&String::from_utf8_lossy(&script))?;
            Ok(Ended::Done)
        }
        Verb::Man { dir } => {
            man::write(command(), &dir).map_err(|e| anyhow::anyhow!("cannot write manual pages into {}: {e}", dir.display()))?;
            Ok(Ended::Done)
        }
    }
}

fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every verb that people can give, with those below it.
    fn verbs(command: &clap::Command, found: &mut Vec<clap::Command>) {
        found.push(command.clone());
        command.get_subcommands().filter(|verb| verb.get_name() != "help").for_each(|verb| verbs(verb, found));
    }

    /// The words of an example as a shell would cut them; what follows two spaces is its explanation.
    fn words(line: &str) -> Vec<String> {
        let (line, _) = line.trim().split_once("  ").unwrap_or((line.trim(), ""));
        let line = line.split(" > ").next().unwrap_or_default();
        line.split('\'')
            .enumerate()
            .flat_map(|(number, part)| match number % 2 {
                0 => part.split_whitespace().map(str::to_owned).collect(),
                _ => vec![part.to_owned()],
            })
            .collect()
    }

    #[test]
    fn every_verb_has_examples_and_each_is_a_line_that_margay_takes() {
        let mut all = command();
        all.build();
        let mut found = Vec::new();
        verbs(&all, &mut found);
        assert!(found.len() >= 20, "{}", found.len());
        for verb in found {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            let (_, text) = help.split_once("Examples:\n").unwrap_or_else(|| panic!("no examples: {verb}"));
            let examples: Vec<&str> = text.lines().take_while(|line| line.starts_with("  ")).collect();
            assert!(!examples.is_empty(), "no examples: {verb}");
            let own = verb.get_bin_name().unwrap_or_default().to_owned();
            for example in examples {
                let words = words(example);
                assert!(words.join(" ").starts_with(&own), "`{example}` is no example of `{own}`");
                if let Err(error) = command().try_get_matches_from(&words) {
                    panic!("`{example}`: {error}");
                }
            }
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}
