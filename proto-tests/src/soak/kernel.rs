//! The kernel's routes as the soak sees them, and what strangers do to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context, Result};
use ipnet::IpNet;
use serde_json::Value;

use crate::lab::process;

/// Prefix → gateways of the routes with margay's protocol number.
pub type Held = BTreeMap<IpNet, BTreeSet<IpAddr>>;

/// What the kernel holds as margay's.
pub fn held() -> Result<Held> {
    let mut held = Held::new();
    for route in routes("bird")? {
        let one = |value: &Value| value["gateway"].as_str().or_else(|| value["via"]["host"].as_str()).and_then(|hop| hop.parse().ok());
        let hops = route["nexthops"].as_array().into_iter().flatten().filter_map(one).chain(one(&route)).collect();
        held.insert(prefix(&route)?, hops);
    }
    Ok(held)
}

/// The prefixes of a stranger's routes.
pub fn foreign() -> Result<BTreeSet<IpNet>> {
    routes("static")?.iter().map(prefix).collect()
}

fn routes(protocol: &str) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for family in ["-4", "-6"] {
        let text = ip(&[family, "-j", "route", "show", "table", "main", "proto", protocol])?;
        let some: Vec<Value> = serde_json::from_str(if text.trim().is_empty() { "[]" } else { &text }).with_context(|| text.clone())?;
        all.extend(some);
    }
    Ok(all)
}

fn prefix(route: &Value) -> Result<IpNet> {
    let text = route["dst"].as_str().with_context(|| format!("a route without a destination: {route}"))?;
    let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.with_context(|| format!("a destination that is none: {text}"))
}

/// Runs `ip`.
pub fn ip(words: &[&str]) -> Result<String> {
    let mut command = Command::new("ip");
    command.args(words);
    process::run(command, None)
}
