//! What a `topologies/*.clab.yml` file means to the simulator: hosts with interfaces, addresses, routes and resources.
//!
//! Every router becomes a margay. A node that runs another speaker takes its place in the cluster's resources if it has
//! one there; otherwise it is given resources that answer the sessions the others have to it, and accepts and announces
//! everything. Switches and workloads are left out: an address can be reached if a host has it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use margay::calico::{self, Document, ResourceKey};
use margay::types::{Asn, Sync};
use serde_json::{Value, json};

use crate::lab::image::{self, Speaker};
use crate::lab::{Topology, image::repository};

/// Resources by name.
pub type Resources = BTreeMap<ResourceKey, Document>;

/// A route that the host has before margay starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecRoute {
    /// The destination.
    pub prefix: IpNet,
    /// The gateway, if it is not on the link.
    pub gateway: Option<IpAddr>,
    /// The interface; found by the gateway if not given.
    pub device: Option<String>,
    /// The metric.
    pub metric: u32,
}

/// One host.
#[derive(Clone, Debug)]
pub struct SpecHost {
    /// Its name in the topology.
    pub name: String,
    /// Name of its Node resource.
    pub node: String,
    /// Interfaces in order; their indexes begin at 2.
    pub links: Vec<String>,
    /// Interface and address.
    pub addresses: Vec<(String, IpNet)>,
    /// Routes.
    pub routes: Vec<SpecRoute>,
    /// Which of the resource sets is its.
    pub cluster: usize,
}

/// A network to simulate.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// The hosts.
    pub hosts: Vec<SpecHost>,
    /// The resource sets; hosts with the same set see the same changes.
    pub clusters: Vec<Resources>,
    /// What is not as in the file, in words.
    pub notes: Vec<String>,
}

impl Spec {
    /// Reads `topologies/NAME.clab.yml`, or the file itself if a path is given.
    pub fn named(name: &str) -> Result<Self> {
        let file = if name.contains('/') { PathBuf::from(name) } else { repository().join(format!("topologies/{name}.clab.yml")) };
        Self::read(&file)
    }

    /// Reads a topology.
    pub fn read(file: &Path) -> Result<Self> {
        let topology = Topology::read(file)?;
        let mut spec = Self { name: topology.name.clone(), ..Self::default() };
        let mut folders: Vec<PathBuf> = Vec::new();
        let mut others = Vec::new();
        for (name, node) in &topology.nodes {
            let speaker = image::speaker(&node.image)?;
            let folder = node.binds.iter().find(|bind| bind.target.ends_with("margay/resources")).map(|bind| bind.source.clone());
            let mut host = Self::host(name, &topology)?;
            match (folder, speaker) {
                (Some(folder), _) => {
                    if speaker != Speaker::Margay {
                        spec.notes.push(format!("{name} runs {speaker:?} in the lab and is a margay here"));
                    }
                    host.cluster = folders.iter().position(|known| *known == folder).unwrap_or_else(|| {
                        folders.push(folder.clone());
                        spec.clusters.push(load(&folder));
                        folders.len() - 1
                    });
                    spec.hosts.push(host);
                }
                (None, Speaker::None) => {}
                (None, _) => others.push(host),
            }
        }
        for host in others {
            spec.stand_in(host);
        }
        if spec.hosts.is_empty() {
            bail!("{}: no node of it can be simulated", file.display());
        }
        spec.hosts.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(spec)
    }

    fn host(name: &str, topology: &Topology) -> Result<SpecHost> {
        let node = &topology.nodes[name];
        let mut words = node.command.iter();
        let given = words.find(|word| *word == "--node").and_then(|_| words.next());
        let mut host = SpecHost {
            name: name.to_owned(),
            node: given.cloned().unwrap_or_else(|| name.to_owned()),
            links: Vec::new(),
            addresses: Vec::new(),
            routes: Vec::new(),
            cluster: 0,
        };
        let ends = topology.links.iter().flat_map(|link| &link.ends).filter(|end| end.node == name);
        host.links.extend(ends.map(|end| end.interface.clone()));
        for line in &node.exec {
            host.exec(line).with_context(|| format!("{name}: exec `{}`", line.join(" ")))?;
        }
        Ok(host)
    }

    /// A router of another make: in the cluster's resources, or answering whoever peers with it.
    fn stand_in(&mut self, mut host: SpecHost) {
        let in_cluster = |resources: &Resources| resources.keys().any(|key| key.kind == "Node" && key.name == host.node);
        if let Some(cluster) = self.clusters.iter().position(in_cluster) {
            self.notes.push(format!("{} runs another speaker in the lab and is a margay here", host.name));
            host.cluster = cluster;
            return self.hosts.push(host);
        }
        let mut answers: Vec<(IpAddr, Asn)> = Vec::new();
        let mut asn = None;
        for other in &self.hosts {
            let Some(config) = compile(&self.clusters[other.cluster], &other.node) else { continue };
            for peer in config.peers.values().filter(|peer| host.addresses.iter().any(|(_, net)| net.addr() == peer.address)) {
                let near = host.addresses.iter().find(|(_, net)| net.addr() == peer.address).map(|(_, net)| *net);
                let own = other.addresses.iter().map(|(_, net)| net.addr());
                let source = peer.local_address.or_else(|| own.clone().find(|own| near.is_some_and(|net| net.contains(own))));
                let Some(source) = source else { continue };
                asn = Some(peer.remote_asn);
                answers.push((source, peer.local_asn));
            }
        }
        let Some(asn) = asn else {
            return self.notes.push(format!("{} is left out: no session leads to it", host.name));
        };
        self.notes.push(format!("{} runs another speaker in the lab; here a margay of AS {asn} that announces all it has", host.name));
        let bfd = self.clusters.iter().flat_map(|cluster| cluster.values()).find_map(bfd_of);
        let mut resources = answering(&host, asn, &answers);
        if let Some((bfd, document)) = bfd.zip(resources.values_mut().find(|document| document.object["kind"] == "BGPConfiguration")) {
            ask_for_bfd(document, &bfd);
        }
        self.clusters.push(resources);
        host.cluster = self.clusters.len() - 1;
        self.hosts.push(host);
    }
}

impl SpecHost {
    fn exec(&mut self, line: &[String]) -> Result<()> {
        let mut words: Vec<&str> = line.iter().map(String::as_str).collect();
        if words.first() != Some(&"ip") {
            return Ok(());
        }
        words.remove(0);
        let v6 = words.first() == Some(&"-6");
        words.retain(|word| *word != "-6");
        let after = |key: &str| words.iter().position(|word| *word == key).and_then(|at| words.get(at + 1)).copied();
        match words.as_slice() {
            ["link", "add", name, ..] => self.links.push((*name).to_owned()),
            ["addr", "add", address, ..] => {
                let device = after("dev").context("no dev")?.to_owned();
                let address: IpNet = if address.contains('/') { address.parse()? } else { IpNet::from(address.parse::<IpAddr>()?) };
                self.addresses.push((device, address));
            }
            ["route", "add", prefix, ..] if !words.contains(&"nexthop") => {
                let gateway: Option<IpAddr> = after("via").map(str::parse).transpose()?;
                let everything = if v6 || gateway.is_some_and(|gateway| gateway.is_ipv6()) { "::/0" } else { "0.0.0.0/0" };
                let prefix = match *prefix {
                    "default" => everything.parse()?,
                    text if text.contains('/') => text.parse()?,
                    text => IpNet::from(text.parse::<IpAddr>()?),
                };
                let metric = after("metric").map(str::parse).transpose()?;
                let metric = metric.unwrap_or(if prefix.addr().is_ipv6() { 1024 } else { 0 });
                self.routes.push(SpecRoute { prefix, gateway, device: after("dev").map(str::to_owned), metric });
            }
            _ => {}
        }
        Ok(())
    }
}

/// The resources of a folder.
pub fn load(folder: &Path) -> Resources {
    let words = margay::datastore::load(&[folder.to_owned()]).into_iter();
    words
        .filter_map(|input| match input {
            calico::Input::Resource(Sync::Upsert(key, document)) => Some((key, slow_bfd(document))),
            _ => None,
        })
        .collect()
}

/// The annotation that asks for BFD.
const BFD: &str = "margay.io/bfd";

/// Twenty packets a second of each session would be all that a run has to do, and TCP here is slower than BFD may be: one a second it is.
fn slow_bfd(mut document: Document) -> Document {
    if let Some(words) = bfd_of(&document) {
        let rest = words.split_once(' ').map_or("", |(_, rest)| rest);
        ask_for_bfd(&mut document, format!("1s*3 {rest}").trim_end());
    }
    document
}

fn bfd_of(document: &Document) -> Option<String> {
    document.object["metadata"]["annotations"][BFD].as_str().map(str::to_owned)
}

fn ask_for_bfd(document: &mut Document, words: &str) {
    let mut object = Value::clone(&document.object);
    object["metadata"]["annotations"][BFD] = json!(words);
    document.object = std::sync::Arc::new(object);
}

/// What a fresh compiler makes of resources.
pub fn compile(resources: &Resources, node: &str) -> Option<margay::config::NodeConfig> {
    let mut store = calico::Store::default();
    store.apply(Sync::Begin);
    for (key, document) in resources {
        store.apply(Sync::Upsert(key.clone(), document.clone()));
    }
    store.apply(Sync::End);
    calico::compile(&store, node, &calico::Environment::default()).0
}

/// A resource with a spec, ready to be told.
pub fn resource(kind: &str, name: &str, labels: Value, spec: Value) -> (ResourceKey, Document) {
    let key = ResourceKey { kind: kind.to_owned(), namespace: String::new(), name: name.to_owned() };
    let object = json!({
        "apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": { "name": name, "labels": labels }, "spec": spec,
    });
    (key, Document::new(object, "simulator"))
}

fn answering(host: &SpecHost, asn: Asn, answers: &[(IpAddr, Asn)]) -> Resources {
    let global = |v4: bool| {
        let of_family = host.addresses.iter().find(|(device, net)| net.addr().is_ipv4() == v4 && device != "lo");
        of_family.map_or(Value::Null, |(_, net)| Value::String(net.to_string()))
    };
    let everything = json!([{ "action": "Accept" }]);
    let mut resources = Resources::from([
        resource("BGPConfiguration", "default", json!({}), json!({ "asNumber": asn.0, "nodeToNodeMeshEnabled": false })),
        resource("Node", &host.node, json!({}), json!({ "bgp": { "ipv4Address": global(true), "ipv6Address": global(false) } })),
        resource("BGPFilter", "everything", json!({}), json!({ "exportV4": everything, "exportV6": everything })),
    ]);
    for (index, (address, remote)) in answers.iter().enumerate() {
        let spec = json!({ "peerIP": address.to_string(), "asNumber": remote.0, "filters": ["everything"], "sourceAddress": "None" });
        resources.extend([resource("BGPPeer", &format!("answer-{index}"), json!({}), spec)]);
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topology_has_hosts_that_compile() {
        for file in crate::lab::cli::all().unwrap() {
            // Its resources change while it runs, so they are not where the simulator looks: refused, with words.
            if file.ends_with("mesh-to-reflectors.clab.yml") {
                assert!(Spec::read(&file).is_err());
                continue;
            }
            let spec = Spec::read(&file).unwrap();
            for host in &spec.hosts {
                let config = compile(&spec.clusters[host.cluster], &host.node);
                // The simulator's links have no link-local addresses: a router that is reached by nothing else has no session there.
                let unreachable = spec.name == "link-local" && host.name == "tor1";
                let alone = config.is_none_or(|config| config.peers.is_empty());
                assert_eq!(alone, unreachable, "{}: {}", spec.name, host.name);
                assert!(!host.addresses.is_empty(), "{}: {}", spec.name, host.name);
            }
        }
    }
}
