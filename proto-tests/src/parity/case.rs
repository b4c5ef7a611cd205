//! A case: the nodes, what surrounds them, and the differences that are announced. Read from `case.yaml`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ipnet::IpNet;
use serde::Deserialize;

/// One case.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Case {
    /// The folder's name.
    #[serde(skip)]
    pub name: String,
    /// The folder.
    #[serde(skip)]
    pub folder: PathBuf,
    /// What is to be seen.
    #[serde(rename = "about")]
    pub _about: String,
    /// The resources, relative to the folder; `cluster.yaml` where neither these nor `resources` are given.
    #[serde(default)]
    pub cluster: Vec<PathBuf>,
    /// More resources: documents as they stand in a file.
    #[serde(default)]
    pub resources: String,
    /// The speaker finds routes of a past life: what it says of its restart is compared, too.
    #[serde(default)]
    pub restart: bool,
    /// Switches of the outside, and the addresses that the outside has on each.
    pub networks: BTreeMap<String, Vec<IpNet>>,
    /// The nodes under test.
    pub nodes: BTreeMap<String, Node>,
    /// The neighbours.
    #[serde(default)]
    pub observers: BTreeMap<String, Observer>,
    /// What happens after the start.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Where margay is meant to differ.
    #[serde(default)]
    pub differences: Vec<Difference>,
}

/// A node under test.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Node {
    /// Interface → network.
    pub links: BTreeMap<String, String>,
    /// Arguments of `ip` that make its kernel what it is, in order.
    pub ip: Vec<String>,
    /// Environment of the speaker (`CALICO_…`).
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// What Felix writes about its endpoints: file → JSON.
    #[serde(default)]
    pub endpoint_status: BTreeMap<String, String>,
    /// What Calico makes of the resources for BIRD.
    pub bird: Bird,
}

/// What one node's BIRD is told, by family.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Bird {
    pub router_id: String,
    #[serde(rename = "as")]
    pub asn: u32,
    pub ipv4: Option<BirdFamily>,
    pub ipv6: Option<BirdFamily>,
}

/// One of the two daemons.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct BirdFamily {
    /// The source of its sessions.
    pub address: Option<IpAddr>,
    /// Where it listens; 179 unless set.
    pub listen: Option<u16>,
    /// Interfaces that are no device routes, beside Calico's own.
    pub ignored_interfaces: Vec<String>,
    /// Blocks with a confirmed affinity.
    pub blocks: Vec<IpNet>,
    /// Blocks whose affinity is pendingDeletion.
    pub leaving_blocks: Vec<IpNet>,
    /// Service addresses and ranges that are announced.
    pub services: Vec<IpNet>,
    /// Ranges that are not programmed.
    pub rejects: Vec<IpNet>,
    /// A reflector accepts what is inside these.
    pub reflected: Vec<IpNet>,
    /// Host routes: peer → gateway.
    pub reachable_by: BTreeMap<IpAddr, IpAddr>,
    /// Pools in the order in which their rules are tried.
    pub pools: Vec<Pool>,
    /// `prefixAdvertisements`.
    pub communities: Vec<(IpNet, Vec<String>)>,
    /// The normal route priority; 1024 unless set.
    pub priority: Option<u32>,
    /// BIRD owns the routes of IP-in-IP pools, so tunl0's are no Felix's.
    pub owns_ipip: bool,
    /// Sessions by name.
    pub peers: BTreeMap<String, BirdPeer>,
}

/// One IPPool.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Pool {
    pub cidr: IpNet,
    /// `disableBGPExport` is not set.
    #[serde(default = "yes")]
    pub exported: bool,
    /// The speaker programs its routes.
    pub programmed: bool,
}

/// One session.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct BirdPeer {
    pub address: Option<IpAddr>,
    #[serde(rename = "as")]
    pub asn: u32,
    pub local_as: Option<u32>,
    pub port: Option<u16>,
    pub passive: bool,
    /// Our cluster; the peer is its client.
    pub client_of: Option<String>,
    /// `self` or `keep`.
    pub next_hop: Option<String>,
    pub restart_time: Option<u32>,
    pub ttl_security: bool,
    pub allow_local_as: Option<u32>,
    pub password: Option<String>,
    /// No source address is given.
    pub any_source: bool,
    /// BGPFilter import rules, in BIRD's words.
    pub import: String,
    /// BGPFilter export rules, in BIRD's words.
    pub export: String,
}

/// A neighbour: a BGP speaker that announces what it is told and writes down what it hears.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Observer {
    /// Its address, which the outside has.
    pub address: IpAddr,
    #[serde(rename = "as")]
    pub asn: u32,
    /// Its identifier; needed where its address is IPv6.
    pub id: Option<std::net::Ipv4Addr>,
    /// The node's address.
    pub node: IpAddr,
    /// It waits for the node to connect, on this port, instead of connecting itself.
    pub listen: Option<u16>,
    /// It signs with this key (TCP-MD5), and takes nothing that is not signed so.
    pub password: Option<String>,
    /// The node's port; 179 unless set.
    pub port: Option<u16>,
    /// It has ADD-PATH and graceful restart as Calico's nodes do; a router of another kind has not.
    #[serde(default)]
    pub calico: bool,
    /// What it announces at first.
    #[serde(default)]
    pub announces: Vec<Announcement>,
}

/// A path that an observer announces.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Announcement {
    pub prefix: IpNet,
    pub next_hop: IpAddr,
    #[serde(default)]
    pub path: Vec<u32>,
    pub local_pref: Option<u32>,
    pub med: Option<u32>,
    #[serde(default)]
    pub communities: Vec<String>,
    pub originator: Option<std::net::Ipv4Addr>,
    #[serde(default)]
    pub clusters: Vec<std::net::Ipv4Addr>,
    /// Its identifier where ADD-PATH is agreed.
    #[serde(default = "one")]
    pub id: u32,
}

/// Something that happens on both sides, after which they must agree again.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Step {
    pub name: String,
    /// Node → arguments of `ip`.
    #[serde(default)]
    pub ip: BTreeMap<String, Vec<String>>,
    /// Observer → announcements.
    #[serde(default)]
    pub announce: BTreeMap<String, Vec<Announcement>>,
    /// Observer → prefixes (with the path id 1 where ADD-PATH is agreed).
    #[serde(default)]
    pub withdraw: BTreeMap<String, Vec<IpNet>>,
    /// Observers that end their session with Cease and stay away.
    #[serde(default)]
    pub leave: Vec<String>,
    /// Observer → the key that it signs with from now on; its session ends with that, before anything else happens.
    #[serde(default)]
    pub password: BTreeMap<String, String>,
    /// Node → files of Felix that are gone.
    #[serde(default)]
    pub endpoint_gone: BTreeMap<String, Vec<String>>,
    /// What changes in `resources`.
    #[serde(default)]
    pub edit: Vec<Edit>,
    /// What Calico then makes of them for BIRD, which is told to read it.
    #[serde(default)]
    pub bird: BTreeMap<String, Bird>,
}

/// One text in the place of another, which must be there.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    pub from: String,
    pub to: String,
}

/// A line or two in which margay is meant to differ from BIRD.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Difference {
    /// The step at which it is seen; at all of them when absent.
    pub step: Option<String>,
    /// Lines of BIRD that margay does not have.
    #[serde(default)]
    pub bird: Vec<String>,
    /// Lines of margay that BIRD does not have.
    #[serde(default)]
    pub margay: Vec<String>,
    /// The reason.
    pub because: String,
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

/// The name of the phase before the first step.
pub const START: &str = "start";

impl Case {
    /// Reads the case in `folder`.
    pub fn read(folder: &Path) -> Result<Self> {
        let file = folder.join("case.yaml");
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let mut case: Self = serde_saphyr::from_str(&text).with_context(|| format!("{}", file.display()))?;
        case.name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        case.folder = folder.to_owned();
        if case.cluster.is_empty() && case.resources.is_empty() {
            case.cluster.push("cluster.yaml".into());
        }
        Ok(case)
    }

    /// The phases that are compared, in order.
    pub fn phases(&self) -> impl Iterator<Item = &str> {
        std::iter::once(START).chain(self.steps.iter().map(|step| step.name.as_str()))
    }

    /// The file with BIRD's lines.
    pub fn truth(&self) -> PathBuf {
        self.folder.join("truth.txt")
    }
}
