//! How a running lab is: its nodes, their programs, sessions and addresses, its links, and what of `expect.yaml` holds now.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::expect::Verdict;
use super::image::Speaker;
use super::{Expectations, Lab, Node};

/// How a lab is, to be printed.
#[derive(Debug)]
pub struct Status {
    text: String,
    well: bool,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

#[derive(Deserialize)]
struct Interface {
    ifname: String,
    #[serde(default)]
    operstate: String,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    addr_info: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    local: String,
    prefixlen: u8,
    scope: String,
}

impl Status {
    /// Asks every node of `lab`.
    pub fn of(lab: &Lab) -> Result<Self> {
        let (mut text, mut well) = (String::new(), true);
        let mut interfaces = BTreeMap::new();
        writeln!(text, "{}: {} nodes, {} links", lab.topology().name, lab.topology().nodes.len(), lab.topology().links.len())?;
        for node in lab.nodes() {
            let known = of_kernel(node)?;
            let (says, lives) = program(node);
            well &= lives;
            writeln!(text, "{:12} {says:24} {:12} {}", node.name(), sessions(node, lives), addresses(&known))?;
            for fault in node.faults()? {
                writeln!(text, "{:12} fault: {fault}", "")?;
            }
            interfaces.insert(node.name(), known);
        }
        writeln!(text, "\nlinks")?;
        for link in &lab.topology().links {
            let [a, b] = link.ends.each_ref().map(|end| state(interfaces.get(end.node.as_str()), &end.interface));
            let [x, y] = link.ends.each_ref().map(|end| format!("{}:{}", end.node, end.interface));
            let both = if a == b { a.to_owned() } else { format!("{a} at {}, {b} at {}", link.ends[0].node, link.ends[1].node) };
            writeln!(text, "{x:22} {y:22} {both}")?;
        }
        if let Some(expectations) = Expectations::find(lab.topology())? {
            let Verdict { wanted, held, unmet } = expectations.judge(lab)?;
            writeln!(text, "\nexpect.yaml: {held} of {wanted} hold")?;
            unmet.iter().try_for_each(|line| writeln!(text, "  {line}"))?;
            well &= unmet.is_empty();
        } else {
            writeln!(text, "\nno {}: nothing is expected", Expectations::path(lab.topology()).display())?;
        }
        Ok(Self { text, well })
    }

    /// Every program lives, and what is expected holds.
    pub fn is_well(&self) -> bool {
        self.well
    }
}

fn of_kernel(node: Node<'_>) -> Result<Vec<Interface>> {
    let said = node.exec("ip -j address show")?;
    serde_json::from_str(&said).with_context(|| format!("{}: {said}", node.name()))
}

fn program(node: Node<'_>) -> (String, bool) {
    if node.has_ended() {
        return ("program has ended".to_owned(), false);
    }
    if node.program().is_err() {
        return ("no program".to_owned(), true);
    }
    let frozen = node.is_frozen();
    (format!("{} {}", if frozen { "frozen" } else { "running" }, node.spec().image), !frozen)
}

fn sessions(node: Node<'_>, lives: bool) -> String {
    if node.speaker() == Speaker::None || !lives {
        return "-".to_owned();
    }
    match node.sessions() {
        Ok(all) => format!("{} of {} up", all.values().filter(|state| *state == "Established").count(), all.len()),
        Err(_) => "no answer".to_owned(),
    }
}

/// Loopback's own, link-local and multicast ones left out.
fn addresses(interfaces: &[Interface]) -> String {
    let all = interfaces.iter().flat_map(|interface| interface.addr_info.iter().map(move |address| (&interface.ifname, address)));
    let shown = all.filter(|(_, address)| address.scope == "global");
    shown.map(|(name, address)| format!("{name} {}/{}", address.local, address.prefixlen)).collect::<Vec<_>>().join(", ")
}

fn state(interfaces: Option<&Vec<Interface>>, name: &str) -> &'static str {
    match interfaces.into_iter().flatten().find(|interface| interface.ifname == name) {
        None => "gone",
        Some(interface) if !interface.flags.iter().any(|flag| flag == "UP") => "set down",
        Some(interface) if interface.operstate == "UP" => "up",
        Some(_) => "no carrier",
    }
}
