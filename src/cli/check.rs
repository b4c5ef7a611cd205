//! `margay check PATH…`: are these resources valid?

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::calico::{self, Environment, Problem, Severity, Store};
use crate::cli::render::compile;
use crate::cli::show::{pretty, problems};
use crate::cli::terminal::{Look, Screen, print};
use crate::cli::{Ended, Failure};

/// Which resources, as which node.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  margay check /etc/margay/resources           every problem with file and line; exit 1 if any is an error
  margay check new.yaml --node node1           as one node sees them
  margay check resources/ --json               in a pipeline")]
pub struct Check {
    /// Files or folders of Calico v3 resources.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Check them as this node would see them [default: as every Node among them].
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    look: Look,
}

impl Check {
    /// Compiles for every node and prints all problems.
    pub fn carry_out(self) -> Result<Ended, Failure> {
        let inputs = crate::datastore::load(&self.paths);
        let mut found = match &self.node {
            Some(node) => compile(&inputs, node).1,
            None => as_any_node(&inputs),
        };
        found.sort();
        found.dedup();
        let value = json!(found);
        print(&if self.json { pretty(&value) } else { problems(&value, &Screen::of_stdout(self.look)) })?;
        let invalid = found.iter().any(|problem| problem.severity == Severity::Error);
        Ok(if invalid { Ended::No } else { Ended::Done })
    }
}

/// The source's own problems, and those that any node would see.
fn as_any_node(inputs: &[calico::Input]) -> Vec<Problem> {
    let environment = Environment::from_variables(|name| std::env::var(name).ok());
    let mut store = Store::default();
    let mut found = Vec::new();
    for input in inputs {
        match input {
            calico::Input::Resource(word) => {
                store.apply(word.clone());
            }
            calico::Input::SourceProblems(problems) => found.clone_from(problems),
        }
    }
    found.extend(calico::check(&store, &environment));
    found
}
