//! `margay show …`: what the daemon knows.

use std::io::Write;

use anyhow::Context;
use clap::{Args, Subcommand};
use ipnet::IpNet;
use serde_json::Value;

use crate::cli::client::{Reply, Target};
use crate::cli::events::Events;
use crate::cli::health;
use crate::cli::table::Table;
use crate::cli::{Ended, Failure};

/// What to show.
#[derive(Debug, Args)]
pub struct Show {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// All sessions, a line each.
    Peers,
    /// One session in full.
    Peer {
        /// Session name (`Mesh_10_0_0_2`) or address.
        name: String,
    },
    /// Routes: the best and the others, with the step at which each lost.
    Routes(Routes),
    /// What the kernel should hold, and whether it does.
    Kernel {
        /// Only this prefix.
        prefix: Option<IpNet>,
    },
    /// Everything that is wrong with the resources, and what was done instead.
    Problems,
    /// The configuration in force.
    Config,
    /// What has happened, oldest first, with reasons.
    Events(Events),
    /// Whether the daemon is live and ready, and why not: what /livez, /readyz and the service manager are told. Exit 1 if it is not.
    Health,
}

#[derive(Debug, Args)]
struct Routes {
    /// Only this prefix.
    prefix: Option<IpNet>,
    /// With PREFIX: everything inside it too.
    #[arg(long, requires = "prefix")]
    longer: bool,
    /// Only ipv4 or ipv6.
    #[arg(long, value_name = "FAMILY")]
    family: Option<String>,
    /// What this peer sent, before policy.
    #[arg(long, value_name = "PEER", conflicts_with = "advertised")]
    received: Option<String>,
    /// What this peer is told.
    #[arg(long, value_name = "PEER")]
    advertised: Option<String>,
}

impl Show {
    /// Asks the daemon and prints.
    pub fn carry_out(self) -> Result<Ended, Failure> {
        let target = &self.target;
        match self.what {
            What::Peers => document(target, "/v1/peers", peers),
            What::Peer { name } => document(target, &format!("/v1/peers/{name}"), peer),
            What::Routes(routes) => routes.carry_out(target),
            What::Kernel { prefix } => {
                let query = prefix.map(|p| format!("?prefix={p}")).unwrap_or_default();
                document(target, &format!("/v1/kernel{query}"), kernel)
            }
            What::Problems => document(target, "/v1/problems", problems),
            What::Config => document(target, "/v1/config", pretty),
            What::Events(events) => events.carry_out(target),
            What::Health => health::carry_out(target),
        }
    }
}

fn document(target: &Target, path: &str, table: fn(&Value) -> String) -> Result<Ended, Failure> {
    match target.get::<Value>(path)? {
        Reply::Found(value) => {
            print(&if target.json { pretty(&value) } else { table(&value) })?;
            Ok(Ended::Done)
        }
        Reply::Missing(why) => {
            eprintln!("margay: {}", why.trim());
            Ok(Ended::No)
        }
    }
}

/// Prints; a reader that has gone (`| head`) is no error.
pub fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot print"),
        _ => Ok(()),
    }
}

/// JSON for people: indented, with an ended last line.
pub fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

/// A field as a cell: text as it is, nothing for null, the rest as JSON.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Why the last session or attempt ended. Beside a session that is up it is history, and says so.
fn last_error(peer: &Value) -> String {
    let error = &peer["last_error"];
    match (peer["state"].as_str(), error["text"].as_str()) {
        (Some("Established"), Some(text)) => format!("(before, at {}) {text}", cell(&error["at"])),
        (_, text) => text.unwrap_or_default().to_owned(),
    }
}

fn peers(value: &Value) -> String {
    let mut table = Table::new(&["NAME", "ADDRESS", "AS", "TYPE", "STATE", "SINCE", "RECEIVED", "ACCEPTED", "ADVERTISED", "LAST ERROR"]);
    for peer in rows(value) {
        let count = |what: &str| sum(&peer["families"], what).to_string();
        table.row([
            cell(&peer["name"]),
            cell(&peer["address"]),
            cell(&peer["asn"]),
            cell(&peer["type"]),
            cell(&peer["state"]),
            cell(&peer["since"]),
            count("received"),
            count("accepted"),
            count("advertised"),
            last_error(peer),
        ]);
    }
    if table.is_empty() { "no peers: `margay show problems` may say why\n".into() } else { table.render() }
}

fn sum(families: &Value, what: &str) -> u64 {
    families.as_object().map_or(0, |families| families.values().filter_map(|counts| counts[what].as_u64()).sum())
}

fn peer(value: &Value) -> String {
    let mut text = String::new();
    lines(&mut text, value, 0);
    text
}

/// Nested JSON as indented `key: value` lines.
fn lines(text: &mut String, value: &Value, depth: usize) {
    let Some(fields) = value.as_object() else { return };
    for (key, value) in fields {
        let indent = "  ".repeat(depth);
        if value.is_object() {
            text.push_str(&format!("{indent}{key}:\n"));
            lines(text, value, depth + 1);
        } else {
            text.push_str(&format!("{indent}{key}: {}\n", cell(value)));
        }
    }
}

fn kernel(value: &Value) -> String {
    let mut table = Table::new(&["PREFIX", "STATE", "BECAUSE"]);
    for row in rows(value) {
        table.row([cell(&row["prefix"]), cell(&row["state"]), cell(&row["because"])]);
    }
    table.render()
}

/// Problems as lines that an editor can jump to.
pub fn problems(value: &Value) -> String {
    let mut text = String::new();
    for problem in rows(value) {
        let location = &problem["location"];
        let place = match (cell(&location["file"]), cell(&location["line"])) {
            (file, _) if file.is_empty() => String::new(),
            (file, line) if line.is_empty() || line == "0" => file,
            (file, line) => format!("{file}:{line}:{}", cell(&location["column"])),
        };
        let name = match &problem["resource"] {
            Value::Null => String::new(),
            resource => format!("{} {}", cell(&resource["kind"]), cell(&resource["name"])),
        };
        let parts = [place, cell(&problem["severity"]), name, cell(&problem["field"]), cell(&problem["what"])];
        text.push_str(&parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": "));
        let instead = cell(&problem["instead"]);
        text.push_str(&if instead.is_empty() { "\n".to_owned() } else { format!("; {instead}\n") });
    }
    if text.is_empty() { "no problems\n".into() } else { text }
}

impl Routes {
    fn path(&self) -> String {
        let mut query = Vec::new();
        if let Some(prefix) = self.prefix {
            query.push(format!("prefix={prefix}"));
        }
        if self.longer {
            query.push("longer=true".to_owned());
        }
        let texts = [("family", &self.family), ("received", &self.received), ("advertised", &self.advertised)];
        query.extend(texts.iter().filter_map(|(key, value)| value.as_ref().map(|value| format!("{key}={}", escape(value)))));
        format!("/v1/routes?{}", query.join("&"))
    }

    fn carry_out(self, target: &Target) -> Result<Ended, Failure> {
        if target.json { self.json(target) } else { self.table(target) }
    }

    fn json(self, target: &Target) -> Result<Ended, Failure> {
        let mut first = true;
        let reply = target.lines(&self.path(), |line| {
            print(&format!("{}{line}", if first { "[\n" } else { ",\n" }))?;
            first = false;
            Ok(())
        })?;
        print(match (&reply, first) {
            (Reply::Missing(_), _) => "",
            (Reply::Found(()), true) => "[]\n",
            (Reply::Found(()), false) => "\n]\n",
        })?;
        Ok(ended(reply))
    }

    /// Prints in parts, so that a full table starts to appear at once: columns fit the rows of their part.
    fn table(self, target: &Target) -> Result<Ended, Failure> {
        const ROWS_A_PART: usize = 1000;
        let header = ["", "PREFIX", "NEXT HOP", "FROM", "AS PATH", "PREF", "MED", "COMMUNITIES", "KERNEL", "WHY NOT"];
        let (mut table, mut rows) = (Table::new(&header), 0);
        let reply = target.lines(&self.path(), |line| {
            let row: Value = serde_json::from_str(line)?;
            table.row(route_cells(&row));
            rows += 1;
            if rows % ROWS_A_PART == 0 {
                print(&std::mem::replace(&mut table, Table::new(&header)).render())?;
            }
            Ok(())
        })?;
        if !table.is_empty() {
            print(&table.render())?;
        }
        Ok(ended(reply))
    }
}

/// Exit code of an answer in lines.
pub fn ended(reply: Reply<()>) -> Ended {
    match reply {
        Reply::Found(()) => Ended::Done,
        Reply::Missing(why) => {
            eprintln!("margay: {}", why.trim());
            Ended::No
        }
    }
}

/// Percent-encodes what a query value may not hold (`%` of a link-local address's zone, for instance).
pub fn escape(text: &str) -> String {
    text.bytes()
        .map(|octet| match octet {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b':' => char::from(octet).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

fn route_cells(row: &Value) -> [String; 10] {
    let flag = |name: &str| row[name].as_bool().unwrap_or(false);
    let mark = match (flag("best"), flag("multipath"), flag("valid")) {
        (true, ..) => "*>",
        (_, true, _) => "*=",
        (_, _, true) => "*",
        _ => "!",
    };
    let stale = if flag("stale") { "S" } else { "" };
    let from = match &row["peer"] {
        Value::Null => cell(&row["source"]),
        peer => cell(peer),
    };
    let joined = |name: &str| row[name].as_array().map_or(String::new(), |list| list.iter().map(cell).collect::<Vec<_>>().join(" "));
    let communities =
        [joined("communities"), joined("large_communities")].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ");
    let why = match &row["rejected_by"] {
        Value::Null => cell(&row["lost_at"]),
        rule => cell(rule),
    };
    [
        format!("{mark}{stale}"),
        cell(&row["prefix"]),
        cell(&row["next_hop"]),
        from,
        format!("{} {}", joined("as_path"), cell(&row["origin"])).trim().to_owned(),
        cell(&row["local_pref"]),
        cell(&row["med"]),
        communities,
        cell(&row["kernel"]),
        why,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_escaped() {
        assert_eq!(escape("fe80::1%eth0"), "fe80::1%25eth0");
    }
}
