//! `margay explain …`: why a route is where it is; why a peer is up, down or absent.

use clap::{Args, Subcommand};
use ipnet::IpNet;
use serde_json::Value;

use crate::cli::client::{Reply, Target, escape};
use crate::cli::show::{cell, pretty};
use crate::cli::terminal::print;
use crate::cli::{Ended, Failure, complete};

/// What to explain.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  margay explain 10.244.1.0/26        each candidate, whom the prefix is told, what the kernel holds, and why
  margay explain 10.244.1.5           the host route of an address, or the longest that holds it
  margay explain 10.96.0.10           the Service that has it, and whether this node announces it
  margay explain peer Mesh_10_0_0_2   which resource asked for it, and how its session is")]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Explain {
    #[command(flatten)]
    target: Target,
    /// A prefix, for instance 10.244.1.0/26 (an address means the host route). Where it has no route: the longest around it.
    #[arg(required = true, value_name = "PREFIX", add = complete::prefixes())]
    prefix: Option<String>,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Which resource asked for a peer (or why none did), and how its session is.
    #[command(after_help = "Examples:
  margay explain peer Mesh_10_0_0_2   a session that is down
  margay explain peer 10.0.0.9        an address that one might expect to be a peer")]
    Peer {
        /// Session name or address.
        #[arg(add = complete::peers())]
        name: String,
    },
}

impl Explain {
    /// Asks the daemon and prints.
    pub fn carry_out(self) -> Result<Ended, Failure> {
        match (self.what, self.prefix) {
            (Some(What::Peer { name }), _) => ask(&self.target, &format!("/v1/explain/peer/{}", escape(&name)), peer),
            (None, Some(text)) => {
                let prefix = prefix(&text)?;
                ask(&self.target, &format!("/v1/explain?prefix={prefix}"), route)
            }
            (None, None) => Err(Failure::Other(anyhow::anyhow!("explain what? Give a prefix, or `peer NAME`"))),
        }
    }
}

fn prefix(text: &str) -> anyhow::Result<IpNet> {
    let parsed = text.parse().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
    parsed.map_err(|_| anyhow::anyhow!("`{text}` is no prefix (such as 10.244.1.0/26) and no address"))
}

fn ask(target: &Target, path: &str, text: fn(&Value) -> String) -> Result<Ended, Failure> {
    match target.get::<Value>(path)? {
        Reply::Found(value) => {
            print(&if target.json { pretty(&value) } else { text(&value) })?;
            Ok(Ended::Done)
        }
        Reply::Missing(why) => {
            eprintln!("margay: {}", why.trim());
            Ok(Ended::No)
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn route(value: &Value) -> String {
    let (prefix, around) = (cell(&value["prefix"]), &value["route"]);
    let mut text = match around {
        Value::Null => format!("{prefix}\n  no candidate: no peer and no local source has told of it, or of anything around it\n"),
        same if *same == value["prefix"] => format!("{prefix}\n"),
        around => format!("{prefix} has no route of its own; the longest that holds it is\n{}\n", cell(around)),
    };
    let candidates = list(&value["candidates"]);
    for candidate in candidates {
        let from = match &candidate["peer"] {
            Value::Null => cell(&candidate["source"]),
            peer => cell(peer),
        };
        let via = match &candidate["next_hop"] {
            Value::Null => String::new(),
            next_hop => format!(" via {}", cell(next_hop)),
        };
        text.push_str(&format!("  {:<9} from {from}{via}: {}\n", cell(&candidate["verdict"]), cell(&candidate["because"])));
    }
    text.push_str("advertised to\n");
    for peer in list(&value["advertised_to"]) {
        let word = if peer["yes"].as_bool().unwrap_or(false) { "yes" } else { "no" };
        text.push_str(&format!("  {word:<3} {}: {}\n", cell(&peer["peer"]), cell(&peer["because"])));
    }
    let kernel = &value["kernel"];
    text.push_str(&format!("kernel\n  {}: {}\n", cell(&kernel["state"]), cell(&kernel["because"])));
    let agents = list(&value["agents"]);
    if !agents.is_empty() {
        text.push_str("local agents\n");
    }
    for note in agents {
        let word = if note["counts"].as_bool().unwrap_or(false) { "yes" } else { "no" };
        text.push_str(&format!("  {word:<3} {}: {}\n", cell(&note["agent"]), cell(&note["because"])));
    }
    text.push_str(&services(&value["services"]));
    text
}

/// The Services behind the prefix; nothing where there are none.
fn services(notes: &Value) -> String {
    let yes = |note: &Value| if note["announced"].as_bool().unwrap_or(false) { "yes" } else { "no" };
    let range = |note: &Value| {
        let (range, field) = (cell(&note["range"]), cell(&note["field"]));
        format!("  {:<3} {range} of {field}: {}\n", yes(note), cell(&note["because"]))
    };
    let address = |note: &Value| {
        let (address, role, service) = (cell(&note["address"]), cell(&note["role"]), cell(&note["service"]));
        format!("  {:<3} {address}, {role} of {service}: {}\n", yes(note), cell(&note["because"]))
    };
    let mut lines: Vec<String> = list(&notes["ranges"]).iter().map(range).collect();
    lines.extend(list(&notes["addresses"]).iter().map(address));
    if let Some(more @ 1..) = notes["more"].as_u64() {
        lines.push(format!("      and {more} more\n"));
    }
    if lines.is_empty() { String::new() } else { format!("services, announced by this node\n{}", lines.concat()) }
}

fn peer(value: &Value) -> String {
    list(&value["because"]).iter().map(|line| format!("{}\n", cell(line))).collect()
}
