//! What a node's speaker says of itself, in one form for all of them: its sessions, and what it learned over them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::Node;
use super::image::Speaker;

/// A path that a speaker learned from a peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LearnedPath {
    /// The BGP next hop, the global one if there are two.
    pub next_hop: IpAddr,
    /// The AS_PATH, sets and sequences in a row.
    pub as_path: Vec<u32>,
}

/// Prefix (as the speaker writes it) → the paths learned from peers.
pub type Learned = BTreeMap<String, BTreeSet<LearnedPath>>;

impl Node<'_> {
    /// The state of each session by the peer's address, in the RFC's words; all of them where two have one address.
    pub fn sessions(&self) -> Result<BTreeMap<String, String>> {
        self.can_answer()?;
        match self.speaker() {
            Speaker::Margay => {
                let peers = self.json("margay show peers --json")?;
                each(&peers, |peer| Some((text(&peer["address"])?, text(&peer["state"])?)))
            }
            Speaker::Bird => bird_sessions(&self.exec("birdc show protocols all")?),
            Speaker::Frr => {
                let mut all = BTreeMap::new();
                let summary = self.json("vtysh -c 'show bgp summary json'")?;
                for (address, peer) in
                    summary.as_object().into_iter().flatten().flat_map(|(_, family)| family["peers"].as_object()).flatten()
                {
                    all.insert(address.clone(), text(&peer["state"]).context("no state")?);
                }
                Ok(all)
            }
            Speaker::Gobgp => {
                let state = |peer: &Value| match peer["state"]["session_state"].as_u64() {
                    Some(6) => "Established".to_owned(),
                    other => format!("{other:?}"),
                };
                each(&self.json("gobgp neighbor -j")?, |peer| Some((text(&peer["state"]["neighbor_address"])?, state(peer))))
            }
            Speaker::Openbgpd => {
                each(&self.json("bgpctl -j show")?["neighbors"], |peer| Some((text(&peer["remote_addr"])?, text(&peer["state"])?)))
            }
            Speaker::None => bail!("{} runs no speaker", self.name()),
        }
    }

    /// Everything that the speaker learned from its peers and did not refuse, best or not.
    pub fn learned(&self) -> Result<Learned> {
        self.can_answer()?;
        let mut all = Learned::new();
        match self.speaker() {
            Speaker::Margay => {
                for route in array(&self.json("margay show routes --json")?)? {
                    if route["source"] == "peer" && route["rejected_by"].is_null() {
                        add(&mut all, &route["prefix"], &route["next_hop"], as_path(&route["as_path"]))?;
                    }
                }
            }
            Speaker::Bird => bird_routes(&self.exec("birdc show route all")?, &mut all)?,
            Speaker::Frr => {
                for family in ["ipv4", "ipv6"] {
                    let table = self.json(&format!("vtysh -c 'show bgp {family} unicast json'"))?;
                    for (prefix, path) in
                        table["routes"].as_object().into_iter().flatten().flat_map(|(p, paths)| Some((p, paths.as_array()?)))
                    {
                        path.iter().try_for_each(|path| frr_path(prefix, path, &mut all))?;
                    }
                }
            }
            Speaker::Gobgp => {
                for family in ["ipv4", "ipv6"] {
                    let table = self.json(&format!("gobgp global rib -a {family} -j"))?;
                    for (prefix, paths) in table.as_object().into_iter().flatten() {
                        array(paths)?.iter().try_for_each(|path| gobgp_path(prefix, path, &mut all))?;
                    }
                }
            }
            Speaker::Openbgpd => {
                for path in array(&self.json("bgpctl -j show rib")?["rib"])? {
                    if path["neighbor"]["description"] != "LOCAL" {
                        add(&mut all, &path["prefix"], &path["exit_nexthop"], as_path(&path["aspath"]))?;
                    }
                }
            }
            Speaker::None => bail!("{} runs no speaker", self.name()),
        }
        Ok(all)
    }

    /// Who is frozen would be asked in vain, for as long as patience lasts.
    fn can_answer(&self) -> Result<()> {
        ensure!(!self.is_frozen(), "{} is frozen", self.name());
        Ok(())
    }

    /// Runs `line` and reads what it printed as JSON.
    pub fn json(&self, line: &str) -> Result<Value> {
        let text = self.exec(line)?;
        serde_json::from_str(&text).with_context(|| format!("{}: `{line}` printed no JSON: {text}", self.name()))
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn array(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().with_context(|| format!("not a list: {value}"))
}

fn each(list: &Value, pair: impl Fn(&Value) -> Option<(String, String)>) -> Result<BTreeMap<String, String>> {
    array(list)?.iter().map(|item| pair(item).with_context(|| format!("not as expected: {item}"))).collect()
}

/// `64512 65000`, or the same as a list of numbers.
fn as_path(value: &Value) -> Vec<u32> {
    match value {
        Value::Array(numbers) => {
            numbers.iter().filter_map(|number| number.as_u64().and_then(|number| u32::try_from(number).ok())).collect()
        }
        other => other.as_str().unwrap_or_default().split_whitespace().filter_map(|number| number.parse().ok()).collect(),
    }
}

fn add(all: &mut Learned, prefix: &Value, next_hop: &Value, as_path: Vec<u32>) -> Result<()> {
    let prefix = text(prefix).context("a route without a prefix")?;
    let global = next_hop.as_str().unwrap_or_default().split([' ', ',']).next().unwrap_or_default();
    let next_hop = global.parse().with_context(|| format!("{prefix}: next hop `{next_hop}`"))?;
    all.entry(prefix).or_default().insert(LearnedPath { next_hop, as_path });
    Ok(())
}

/// `nexthops` of a path may hold a link-local address beside the global one.
fn frr_path(prefix: &str, path: &Value, all: &mut Learned) -> Result<()> {
    let hops = path["nexthops"].as_array().into_iter().flatten();
    let addresses = hops.filter_map(|hop| hop["ip"].as_str()?.parse::<IpAddr>().ok());
    let mut addresses = addresses.filter(|ip| !ip.is_unspecified() && !ip.to_string().starts_with("fe80:"));
    match addresses.next() {
        Some(next_hop) => add(all, &prefix.into(), &next_hop.to_string().into(), as_path(&path["path"])),
        None => Ok(()),
    }
}

/// Attributes are objects with the type code of the RFC: 2 is AS_PATH, 3 NEXT_HOP, 14 MP_REACH_NLRI.
fn gobgp_path(prefix: &str, path: &Value, all: &mut Learned) -> Result<()> {
    let attributes = array(&path["attrs"])?;
    let attribute = |code: u64| attributes.iter().find(|attribute| attribute["type"].as_u64() == Some(code));
    // What the router itself announces has no neighbour.
    if path["neighbor-ip"].as_str().is_none_or(|ip| ip.parse::<IpAddr>().is_err()) {
        return Ok(());
    }
    let segments = attribute(2).and_then(|path| path["as_paths"].as_array()).into_iter().flatten();
    let numbers = segments.flat_map(|segment| as_path(&segment["asns"])).collect();
    let hop = attribute(3).or(attribute(14)).with_context(|| format!("{prefix}: no next hop"))?;
    add(all, &prefix.into(), &hop["nexthop"], numbers)
}

/// `show protocols all`: the address comes after the state, both indented below the protocol.
fn bird_sessions(said: &str) -> Result<BTreeMap<String, String>> {
    let (mut all, mut state) = (BTreeMap::new(), "");
    for line in said.lines() {
        if let Some((_, rest)) = line.split_once("BGP state:") {
            state = rest.trim();
        } else if let Some((_, address)) = line.split_once("Neighbor address:") {
            all.insert(address.trim().to_owned(), state.to_owned());
        }
    }
    Ok(all)
}

/// `show route all`: a prefix begins a line, further paths of it begin with blanks, attributes with a tab.
fn bird_routes(said: &str, all: &mut Learned) -> Result<()> {
    let (mut prefix, mut path) = (String::new(), Vec::new());
    for line in said.lines() {
        if let Some(attribute) = line.strip_prefix('\t') {
            if let Some(numbers) = attribute.strip_prefix("BGP.as_path:") {
                path = as_path(&numbers.into());
            } else if let Some(hops) = attribute.strip_prefix("BGP.next_hop:") {
                add(all, &prefix.as_str().into(), &hops.trim().into(), std::mem::take(&mut path))?;
            }
        } else if let Some(first) = line.split(' ').next().filter(|first| first.contains('/')) {
            first.clone_into(&mut prefix);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn birds_tables_are_read_with_all_their_paths() {
        let said = "BIRD 2.0.12 ready.\nTable master4:\n10.244.1.0/26        unicast [node1 00:40:15.260] * (100) [AS64512i]\n\tvia 172.20.0.1 on br0\n\
                    \tBGP.as_path: 64512\n\tBGP.next_hop: 172.20.0.1\n                     unicast [node2 00:40:15.355] (100) [AS64512i]\n\
                    \tBGP.as_path: 64512 7\n\tBGP.next_hop: 172.20.0.2\n10.1.0.0/16          blackhole [static1 00:40:14.000] * (200)\n\
                    fd00::/64            unicast [x 00:00:00.000] * (100) [i]\n\tBGP.as_path: \n\tBGP.next_hop: fd00:172:20::1 fe80::1\n";
        let mut all = Learned::new();
        bird_routes(said, &mut all).unwrap();
        let path = |next_hop: &str, as_path: &[u32]| LearnedPath { next_hop: next_hop.parse().unwrap(), as_path: as_path.to_vec() };
        assert_eq!(all.len(), 2);
        assert_eq!(all["10.244.1.0/26"], BTreeSet::from([path("172.20.0.1", &[64512]), path("172.20.0.2", &[64512, 7])]));
        assert_eq!(all["fd00::/64"], BTreeSet::from([path("fd00:172:20::1", &[])]));
        let said = "node1      BGP        ---        up     00:40:15.204  Established   \n  BGP state:          Established\n    Neighbor address: 172.20.0.1\n";
        assert_eq!(bird_sessions(said).unwrap(), BTreeMap::from([("172.20.0.1".to_owned(), "Established".to_owned())]));
    }
}
