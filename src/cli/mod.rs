//! The command line: one verb a file, `--json` first, tables second.
//!
//! Exit codes: 0 done; 1 the answer is "no" or "invalid"; 2 usage; 3 the daemon cannot be reached.

mod check;
mod client;
mod diff;
mod drain;
mod events;
mod explain;
mod health;
mod render;
mod reset;
mod run;
mod show;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A native BGP route-distribution speaker for Calico-style networks.
#[derive(Debug, Parser)]
#[command(name = "margay", version, about, max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The daemon.
    Run(run::Run),
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
    /// Reset a session, or ask for routes again with --soft.
    Reset(reset::Reset),
    /// Move traffic away from this node: tell all routes with GRACEFUL_SHUTDOWN (RFC 8326).
    Drain(drain::Drain),
    /// End a drain: the node is in service again.
    Undrain(drain::Undrain),
    /// Print the completion script of a shell.
    Completion {
        /// bash, zsh, fish, elvish or powershell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder.
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
        Verb::Reset(verb) => verb.carry_out(),
        Verb::Drain(verb) => verb.carry_out(),
        Verb::Undrain(verb) => verb.carry_out(),
        Verb::Completion { shell } => {
            clap_complete::generate(shell, &mut command(), "margay", &mut std::io::stdout());
            Ok(Ended::Done)
        }
        Verb::Man { dir } => {
            clap_mangen::generate_to(command(), &dir)
                .map_err(|e| anyhow::anyhow!("cannot write manual pages into {}: {e}", dir.display()))?;
            Ok(Ended::Done)
        }
    }
}

fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}
