//! `margay render PATH… --node NAME`: what that node would do.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde_json::json;

use crate::calico::{self, Compiler, Environment, Problem};
use crate::cli::show::pretty;
use crate::cli::terminal::print;
use crate::cli::{Ended, Failure};
use crate::config::{NodeConfig, PeerConfig};
use crate::policy::Policy;
use crate::types::Outbox;

/// Which resources, as which node.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  margay render /etc/margay/resources --node node1          its peers, policies, blocks, services
  margay render resources/ --node node1 --json              all of the configuration, for a program")]
pub struct Render {
    /// Files or folders of Calico v3 resources.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The node.
    #[arg(long, value_name = "NAME")]
    node: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Render {
    /// Compiles and prints.
    pub fn carry_out(self) -> Result<Ended, Failure> {
        let inputs = crate::datastore::load(&self.paths);
        let (config, problems) = compile(&inputs, &self.node);
        for problem in &problems {
            eprintln!("{problem}");
        }
        let Some(config) = config else {
            eprintln!("margay: Node `{}` is not among these resources: `margay check` says what is wrong with them", self.node);
            return Ok(Ended::No);
        };
        print(&if self.json { pretty(&json!(*config)) } else { text(&config) })?;
        Ok(Ended::Done)
    }
}

/// The configuration of `node` under these resources, and all problems.
pub fn compile(inputs: &[calico::Input], node: &str) -> (Option<Arc<NodeConfig>>, Vec<Problem>) {
    let environment = Environment::from_variables(|name| std::env::var(name).ok());
    let mut compiler = Compiler::new(node.to_owned(), environment);
    let mut out = Outbox::new();
    for input in inputs {
        compiler.handle(Instant::now(), input.clone(), &mut out);
    }
    while let Some(deadline) = compiler.deadline() {
        compiler.on_deadline(deadline, &mut out);
    }
    match out.drain().last() {
        Some(calico::Output::Compiled { config, problems }) => (config, problems.to_vec()),
        None => (None, Vec::new()),
    }
}

fn text(config: &NodeConfig) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail; so below.
    let _ = writeln!(text, "node {}  AS {}  router id {}  port {}", config.node, config.asn, config.router_id, config.listen.port);
    for peer in config.peers.values() {
        peer_text(&mut text, peer);
    }
    let _ = writeln!(text, "origin");
    for block in &config.origin.blocks {
        let _ = writeln!(text, "  block {block}");
    }
    for service in &config.origin.services {
        let _ = writeln!(text, "  service {service}");
    }
    for (destination, gateway) in &config.origin.static_routes {
        let _ = writeln!(text, "  static {destination} via {gateway}");
    }
    let _ = writeln!(text, "kernel  table {}  protocol {}", config.fib.table, config.fib.protocol);
    for rule in &config.fib.rules {
        let _ = writeln!(text, "  {}: {} {:?}", rule.cidr, rule.name, rule.action);
    }
    text
}

fn peer_text(text: &mut String, peer: &PeerConfig) {
    let relation = if peer.is_ibgp() { "iBGP" } else { "eBGP" };
    let _ = writeln!(
        text,
        "peer {}  {} port {}  AS {} ({relation})  asked by {}",
        peer.name, peer.address, peer.port, peer.remote_asn, peer.asked_by
    );
    for family in peer.offered() {
        for (direction, policy) in [("import", peer.import.of(family)), ("export", peer.export.of(family))] {
            if let Some(policy) = policy {
                policy_text(text, &format!("{direction} {family}"), policy);
            }
        }
    }
}

fn policy_text(text: &mut String, name: &str, policy: &Policy) {
    let _ = writeln!(text, "  {name}");
    for term in &policy.terms {
        let verdict = term.verdict.map_or("go on".to_owned(), |verdict| format!("{verdict:?}").to_lowercase());
        let _ = writeln!(text, "    {} → {verdict}", term.name);
    }
    let _ = writeln!(text, "    otherwise → {}", format!("{:?}", policy.default).to_lowercase());
}
