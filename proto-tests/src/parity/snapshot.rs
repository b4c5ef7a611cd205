//! What a side has come to, as lines: what each observer heard, and what stands in each node's kernel.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::observer::Heard;

/// Protocol number of BIRD's routes, and of margay's.
const BIRD: &str = "12";

/// The lines of one observer; what the node says of its restart only if `restart`.
///
/// On a first start BIRD claims a restart all the same (Calico always runs it with `-R`) and margay does not, rightly.
pub fn session(name: &str, heard: &Heard, restart: bool) -> Vec<String> {
    let mut lines: Vec<String> = heard.faults.iter().map(|fault| format!("{name} fault {fault}")).collect();
    let Some((opened, from)) = &heard.session else {
        lines.push(format!("{name} no session ({})", heard.ended));
        return lines;
    };
    lines.push(format!("{name} session from {from}"));
    // margay says its host name (capability 73), which BIRD 1.6 cannot: better, for whoever looks at the peer, and in every case.
    let compared = |line: &&String| (restart || !line.starts_with("restart")) && !line.starts_with("capability 73 ");
    lines.extend(opened.lines.iter().filter(compared).map(|line| format!("{name} {line}")));
    if heard.end_of_rib {
        lines.push(format!("{name} end-of-rib"));
    }
    // Path identifiers are a speaker's own affair; how many paths there are is not.
    let mut paths: Vec<String> = heard.paths.iter().map(|((prefix, _), words)| format!("{name} route {prefix} {words}")).collect();
    paths.sort();
    lines.extend(paths);
    lines
}

/// The kernel's routes of a node: the speaker's, and those of others (local and connected ones left out).
pub fn kernel(node: &str, ipv4: &str, ipv6: &str) -> Result<(Vec<String>, Vec<String>)> {
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for text in [ipv4, ipv6] {
        let raw: Vec<Route> = serde_json::from_str(if text.trim().is_empty() { "[]" } else { text }).with_context(|| text.to_owned())?;
        for route in raw {
            match route.protocol.as_str() {
                BIRD => ours.push(format!("{node} kernel {}", route.words())),
                "2" => {}
                _ => others.push(format!("{node} other {} protocol {}", route.words(), route.protocol)),
            }
        }
    }
    ours.sort();
    others.sort();
    Ok((ours, others))
}

/// A route as `ip -N -d -j` has it.
#[derive(Deserialize)]
struct Route {
    #[serde(rename = "type")]
    kind: Option<String>,
    dst: String,
    #[serde(default)]
    protocol: String,
    table: Option<String>,
    scope: Option<String>,
    #[serde(default)]
    metric: u32,
    prefsrc: Option<IpAddr>,
    #[serde(flatten)]
    hop: Hop,
    #[serde(default)]
    nexthops: Vec<Hop>,
    #[serde(default)]
    metrics: Vec<BTreeMap<String, serde_json::Value>>,
}

#[derive(Deserialize)]
struct Hop {
    gateway: Option<String>,
    via: Option<Via>,
    dev: Option<String>,
    weight: Option<u32>,
    #[serde(default)]
    flags: Vec<String>,
}

#[derive(Deserialize)]
struct Via {
    host: String,
}

impl Route {
    fn words(&self) -> String {
        // Types by their numbers, as everything.
        let kind = match self.kind.as_deref() {
            None | Some("unicast" | "1") => String::new(),
            Some("6") => "blackhole ".to_owned(),
            Some("7") => "unreachable ".to_owned(),
            Some("8") => "prohibit ".to_owned(),
            Some(kind) => format!("{kind} "),
        };
        let mut words = format!("{kind}{}", self.dst);
        let mut hops: Vec<String> = std::iter::once(&self.hop).chain(&self.nexthops).map(Hop::words).collect();
        hops.sort();
        hops.iter().for_each(|hop| words += hop);
        words += &format!(" metric {}", self.metric);
        for (name, value, usual) in [("table", &self.table, "254"), ("scope", &self.scope, "0")] {
            if let Some(value) = value.as_deref().filter(|value| *value != usual && !(name == "table" && *value == "main")) {
                words += &format!(" {name} {value}");
            }
        }
        if let Some(source) = self.prefsrc {
            words += &format!(" src {source}");
        }
        if !self.metrics.is_empty() {
            words += &format!(" {:?}", self.metrics);
        }
        words
    }
}

impl Hop {
    fn words(&self) -> String {
        let mut words = String::new();
        if let Some(gateway) = self.gateway.as_ref().or(self.via.as_ref().map(|via| &via.host)) {
            words += &format!(" via {gateway}");
        }
        if let Some(device) = &self.dev {
            words += &format!(" dev {device}");
        }
        if self.flags.iter().any(|flag| flag == "onlink") {
            words += " onlink";
        }
        if let Some(weight) = self.weight.filter(|weight| *weight != 1) {
            words += &format!(" weight {weight}");
        }
        words
    }
}
