//! What the picture says of a node: what runs there, its AS number, an address.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use margay::calico;

use crate::lab::image::{self, Speaker};
use crate::lab::topology::{Node, Topology};

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) speaker: Speaker,
    /// It makes a bridge, routes nothing and speaks nothing.
    pub(super) is_switch: bool,
    /// Its kernel forwards.
    pub(super) routes: bool,
    /// The interfaces at the other end of its links begin with `cali`, or with `cable`, which leads to a tap.
    pub(super) is_workload: bool,
    pub(super) asn: Option<String>,
    /// What its label `address` says, or else the first one that its `exec` lines add, without the length.
    pub(super) address: Option<String>,
}

impl Facts {
    /// The name of the speaker, for people.
    pub(super) fn word(&self) -> &'static str {
        match self.speaker {
            Speaker::Margay => "margay",
            Speaker::Bird => "BIRD",
            Speaker::Frr => "FRR",
            Speaker::Gobgp => "GoBGP",
            Speaker::Openbgpd => "OpenBGPD",
            Speaker::None if self.is_switch => "switch",
            Speaker::None if self.is_workload => "workload",
            Speaker::None if self.routes => "router",
            Speaker::None => "host",
        }
    }
}

/// The facts of every node.
pub(super) fn gather(topology: &Topology) -> Result<BTreeMap<String, Facts>> {
    topology.nodes.iter().map(|(name, node)| Ok((name.clone(), of(topology, name, node)?))).collect()
}

fn of(topology: &Topology, name: &str, node: &Node) -> Result<Facts> {
    let speaker = image::speaker(&node.image)?;
    let bridges = node.exec.iter().any(|words| words.windows(2).any(|pair| pair == ["type", "bridge"]));
    let routes =
        ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"].iter().any(|key| node.sysctls.get(*key).is_some_and(|value| value == "1"));
    let links = || topology.links.iter().filter(|link| link.ends.iter().any(|end| end.node == name));
    let workloads = |interface: &str| ["cali", "cable"].iter().any(|start| interface.starts_with(start));
    let on_node = |link: &&crate::lab::Link| link.ends.iter().any(|end| end.node != name && workloads(&end.interface));
    let asn = node.labels.get("as").cloned().or_else(|| node.binds.iter().find_map(|bind| asn(&bind.source, name, speaker)));
    Ok(Facts {
        speaker,
        is_switch: speaker == Speaker::None && bridges && !routes,
        routes,
        is_workload: speaker == Speaker::None && !bridges && links().count() > 0 && links().all(|link| on_node(&link)),
        asn: asn.filter(|_| speaker != Speaker::None),
        address: node.labels.get("address").cloned().or_else(|| node.exec.iter().find_map(|words| address(words))),
    })
}

/// Of `ip [-6] address add ADDRESS/LENGTH dev …`.
fn address(words: &[String]) -> Option<String> {
    let at = words.windows(2).position(|pair| pair[0].starts_with("addr") && pair[1] == "add")?;
    let address = words.get(at + 2)?.split('/').next()?;
    (!address.starts_with("fe80:")).then(|| address.to_owned())
}

/// The AS number that a folder of resources gives to `node`, or a speaker's configuration to itself.
fn asn(path: &Path, node: &str, speaker: Speaker) -> Option<String> {
    if path.is_dir() && speaker == Speaker::Margay {
        let mut store = calico::Store::default();
        for input in margay::datastore::load(&[path.to_owned()]) {
            if let calico::Input::Resource(word) = input {
                store.apply(word);
            }
        }
        let (config, _) = calico::compile(&store, node, &calico::Environment::default());
        return config?.peers.values().next().map(|peer| peer.local_asn.to_string());
    }
    configured(&std::fs::read_to_string(path).ok()?)
}

/// `local [ADDRESS] as N` (BIRD), `router bgp N` (FRR), `AS N` (OpenBGPD), `as = N` (GoBGP): the first of them.
fn configured(text: &str) -> Option<String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with(['#', '!']));
    let words: Vec<&str> =
        lines.flat_map(|line| line.split(|c: char| c.is_whitespace() || ";{}".contains(c))).filter(|word| !word.is_empty()).collect();
    let number = |at: usize| words.get(at).filter(|word| word.parse::<u32>().is_ok()).map(|word| (*word).to_owned());
    (0..words.len()).find_map(|at| match &words[at..] {
        ["local", "as", ..] | ["router", "bgp", ..] | ["as", "=", ..] => number(at + 2),
        ["local", _, "as", ..] => number(at + 3),
        ["AS", ..] => number(at + 1),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_speaker_says_its_as_in_its_own_words() {
        for (text, asn) in [
            ("# local as 1\ntemplate bgp x { local as 65001; direct; }", Some("65001")),
            ("  local fe80::fe as 65002;", Some("65002")),
            ("! router bgp 1\nrouter bgp 65003\n neighbor x remote-as 7", Some("65003")),
            ("AS 65004\nrouter-id 1.1.1.1", Some("65004")),
            ("[global.config]\n  as = 65005\n", Some("65005")),
            ("peer-as = 64512", None),
        ] {
            assert_eq!(super::configured(text).as_deref(), asn, "{text}");
        }
    }
}
