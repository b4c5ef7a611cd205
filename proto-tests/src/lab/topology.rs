//! A containerlab file, read strictly: an unknown key, a wrong value or a dangling name is an error with file and line.
//!
//! Supported is the part of the format that both real containerlab and the namespace runner execute:
//! `name`, `prefix`, `mgmt`, `topology.{defaults,kinds,groups,nodes,links}`; of a node `kind` (`linux`), `image`, `image-pull-policy`,
//! `group`, `binds`, `sysctls`, `env`, `cmd`, `entrypoint`, `exec`, `network-mode`, `healthcheck`, `stages.*.wait-for`, `labels`;
//! links in the brief form and as `type: veth`, with `mtu`. The precedence is node, group, kind, defaults; lists and maps add up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::{documented, expand};

/// A network as its file describes it, with groups, kinds and defaults already merged into the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// The lab's name.
    pub name: String,
    /// What the names of containers begin with; `None`: `clab`. For containerlab alone.
    pub prefix: Option<String>,
    /// The file it was read from.
    pub file: PathBuf,
    /// The nodes by name, sorted.
    pub nodes: BTreeMap<String, Node>,
    /// The links in the order of the file.
    pub links: Vec<Link>,
}

/// One node: a container for containerlab, a set of namespaces for the runner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The image's name, such as `bird:local`.
    pub image: String,
    /// Host path, path in the node, read-only?
    pub binds: Vec<Bind>,
    /// Settings below `/proc/sys`, set before the node's program starts.
    pub sysctls: BTreeMap<String, String>,
    /// Environment of everything that runs in the node.
    pub env: BTreeMap<String, String>,
    /// `entrypoint` followed by `cmd`, as words; empty: the node only idles.
    pub command: Vec<String>,
    /// Commands to run once the links are in place, as words.
    pub exec: Vec<Vec<String>>,
    /// Where the node's network comes from.
    pub network: Network,
    /// How to tell that the node is healthy.
    pub healthcheck: Option<Healthcheck>,
    /// What must have been reached elsewhere before this node is created.
    pub wait_for: Vec<WaitFor>,
    /// Labels, not interpreted.
    pub labels: BTreeMap<String, String>,
}

/// `network-mode`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// A namespace of its own that holds only the links of the lab.
    #[default]
    None,
    /// The namespace of another node.
    Container(String),
}

/// One of `binds`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The path on the host, absolute.
    pub source: PathBuf,
    /// The path in the node, absolute.
    pub target: PathBuf,
    /// Whether the node may not write there.
    pub read_only: bool,
}

/// `healthcheck`: a command that succeeds when the node is healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Healthcheck {
    /// The command as words.
    pub test: Vec<String>,
    /// How long until it must have succeeded.
    pub within: Duration,
}

/// One entry of `stages.create.wait-for`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitFor {
    /// The node waited for.
    pub node: String,
    /// What it must have reached.
    pub stage: Stage,
}

/// What a node can be waited for, in the order in which it gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// It exists and its command was started.
    Create,
    /// Its links are in place.
    CreateLinks,
    /// Its `exec` commands have run.
    Configure,
    /// Its health check succeeded.
    Healthy,
}

/// A virtual cable between two nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its two ends.
    pub ends: [End; 2],
    /// The MTU of both ends; `None`: the kernel's default.
    pub mtu: Option<u32>,
}

/// One end of a [`Link`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The node.
    pub node: String,
    /// The interface's name there.
    pub interface: String,
}

/// What the reader says, and whether containerlab itself knows better.
fn mistake(words: &str) -> anyhow::Error {
    match documented::explain(words) {
        Some(more) => anyhow!("{words}\n{more}"),
        None => anyhow!("{words}"),
    }
}

impl Topology {
    /// Reads `file`, expanding variables from this process's environment.
    pub fn read(file: impl AsRef<Path>) -> Result<Self> {
        let file = file.as_ref();
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let file = std::path::absolute(file)?;
        Self::parse(&text, &file, &std::env::vars().collect())
    }

    /// Reads the text of a lab file; `file` is where relative binds start and what errors name.
    pub fn parse(text: &str, file: &Path, vars: &BTreeMap<String, String>) -> Result<Self> {
        let named = || file.display().to_string();
        let text = expand::variables(text, vars).with_context(named)?;
        let raw: RawFile = serde_saphyr::from_str(&text).map_err(|error| mistake(&error.to_string())).with_context(named)?;
        Self::resolve(raw, file).with_context(named)
    }

    fn resolve(raw: RawFile, file: &Path) -> Result<Self> {
        if raw.name.is_empty() || !raw.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
            bail!("name: `{}` is not a lab name: letters, digits, - and _ only", raw.name);
        }
        let folder = file.parent().unwrap_or(Path::new("/"));
        let mut nodes = BTreeMap::new();
        for (name, fields) in &raw.topology.nodes {
            let line = fields.referenced.line();
            let own = fields.value.clone().unwrap_or_default();
            let node =
                raw.topology.merged(own).and_then(|all| all.resolve(name, folder)).with_context(|| format!("line {line}: node {name}"))?;
            nodes.insert(name.clone(), node);
        }
        let mut links = Vec::new();
        for link in &raw.topology.links {
            links.push(link.value.resolve().with_context(|| format!("line {}", link.referenced.line()))?);
        }
        let topology = Self { name: raw.name, prefix: raw.prefix, file: file.to_owned(), nodes, links };
        topology.check()?;
        Ok(topology)
    }

    /// Names must lead somewhere, interfaces must be unique, and nobody may wait in a circle.
    fn check(&self) -> Result<()> {
        let known = |name: &str| {
            self.nodes.get(name).map(|_| ()).with_context(|| format!("there is no node `{name}`; nodes: {}", join(self.nodes.keys())))
        };
        let mut seen = BTreeSet::new();
        for end in self.links.iter().flat_map(|link| &link.ends) {
            known(&end.node).context("links")?;
            if end.interface.is_empty() || end.interface.len() > 15 || end.interface.contains(['/', ' ']) {
                bail!("links: `{}:{}`: an interface name has 1 to 15 characters", end.node, end.interface);
            }
            if !seen.insert((&end.node, &end.interface)) {
                bail!("links: {}:{} is used twice", end.node, end.interface);
            }
        }
        for (name, node) in &self.nodes {
            if let Network::Container(other) = &node.network {
                known(other).with_context(|| format!("node {name}: network-mode"))?;
            }
            for wait in &node.wait_for {
                known(&wait.node).with_context(|| format!("node {name}: wait-for"))?;
                if wait.stage == Stage::Healthy && self.nodes.get(&wait.node).is_none_or(|node| node.healthcheck.is_none()) {
                    bail!("node {name}: waits for {} to be healthy, which has no healthcheck", wait.node);
                }
            }
        }
        self.waves().map(|_| ())
    }

    /// The nodes in groups that can be created together: each only needs nodes of earlier groups.
    pub fn waves(&self) -> Result<Vec<Vec<String>>> {
        let mut waves: Vec<Vec<String>> = Vec::new();
        let mut done: BTreeSet<&str> = BTreeSet::new();
        while done.len() < self.nodes.len() {
            let ready = |node: &Node| {
                let shares = matches!(&node.network, Network::Container(other) if !done.contains(other.as_str()));
                !shares && node.wait_for.iter().all(|wait| done.contains(wait.node.as_str()))
            };
            let wave: Vec<&str> = self
                .nodes
                .iter()
                .filter(|(name, node)| !done.contains(name.as_str()) && ready(node))
                .map(|(name, _)| name.as_str())
                .collect();
            if wave.is_empty() {
                let stuck = self.nodes.keys().filter(|name| !done.contains(name.as_str()));
                bail!("these nodes wait for one another: {}", join(stuck));
            }
            done.extend(&wave);
            waves.push(wave.into_iter().map(str::to_owned).collect());
        }
        Ok(waves)
    }
}

fn join<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(", ")
}

// ── the file as it is written ──────────────────────────────────────────────────────────────────────────────────────────────

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    name: String,
    prefix: Option<String>,
    #[serde(default, rename = "mgmt")]
    _mgmt: Option<RawMgmt>,
    topology: RawTopology,
}

/// Read so that a wrong key is found; the runner builds no management network.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawMgmt {
    #[serde(default, rename = "network")]
    _network: Option<String>,
    #[serde(default, rename = "ipv4-subnet")]
    _ipv4_subnet: Option<String>,
    #[serde(default, rename = "ipv6-subnet")]
    _ipv6_subnet: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTopology {
    #[serde(default)]
    defaults: RawNode,
    #[serde(default)]
    kinds: BTreeMap<String, RawNode>,
    #[serde(default)]
    groups: BTreeMap<String, RawNode>,
    nodes: BTreeMap<String, Spanned<Option<RawNode>>>,
    #[serde(default)]
    links: Vec<Spanned<RawLink>>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawNode {
    kind: Option<String>,
    image: Option<String>,
    image_pull_policy: Option<String>,
    group: Option<String>,
    #[serde(default)]
    binds: Vec<String>,
    #[serde(default)]
    sysctls: BTreeMap<String, String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    cmd: Option<String>,
    entrypoint: Option<String>,
    #[serde(default)]
    exec: Vec<String>,
    network_mode: Option<String>,
    healthcheck: Option<RawHealthcheck>,
    #[serde(default)]
    stages: RawStages,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawHealthcheck {
    test: Vec<String>,
    interval: Option<u64>,
    timeout: Option<u64>,
    retries: Option<u64>,
    start_period: Option<u64>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStages {
    #[serde(default)]
    create: RawStage,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawStage {
    #[serde(default)]
    wait_for: Vec<RawWait>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWait {
    node: String,
    stage: Stage,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLink {
    #[serde(rename = "type")]
    kind: Option<String>,
    endpoints: Vec<RawEnd>,
    mtu: Option<u32>,
    #[serde(default, rename = "labels")]
    _labels: BTreeMap<String, String>,
}

/// `"node:interface"`, or `{node: …, interface: …}` in links that name their type.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawEnd {
    Brief(String),
    Long(RawLongEnd),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLongEnd {
    node: String,
    interface: String,
}

impl RawTopology {
    /// Node over group over kind over defaults.
    fn merged(&self, node: RawNode) -> Result<RawNode> {
        let mut all = self.defaults.clone();
        let group = match &node.group {
            Some(name) => Some(self.groups.get(name).with_context(|| format!("there is no group `{name}`"))?.clone()),
            None => None,
        };
        let kind = [node.kind.as_ref(), group.as_ref().and_then(|group| group.kind.as_ref()), self.defaults.kind.as_ref()];
        if let Some(kind) = kind.into_iter().flatten().next().and_then(|kind| self.kinds.get(kind)) {
            all = all.under(kind.clone());
        }
        if let Some(group) = group {
            all = all.under(group);
        }
        Ok(all.under(node))
    }
}

impl RawNode {
    /// This as the base of `top`: single values are replaced, lists and maps add up.
    fn under(mut self, top: Self) -> Self {
        self.binds.extend(top.binds);
        self.exec.extend(top.exec);
        self.sysctls.extend(top.sysctls);
        self.env.extend(top.env);
        self.labels.extend(top.labels);
        self.stages.create.wait_for.extend(top.stages.create.wait_for);
        Self {
            kind: top.kind.or(self.kind),
            image: top.image.or(self.image),
            image_pull_policy: top.image_pull_policy.or(self.image_pull_policy),
            group: top.group.or(self.group),
            cmd: top.cmd.or(self.cmd),
            entrypoint: top.entrypoint.or(self.entrypoint),
            network_mode: top.network_mode.or(self.network_mode),
            healthcheck: top.healthcheck.or(self.healthcheck),
            ..self
        }
    }

    fn resolve(self, name: &str, folder: &Path) -> Result<Node> {
        match self.kind.as_deref() {
            Some("linux") => {}
            Some(other) => bail!("kind `{other}` is not supported: routers and hosts are `kind: linux` with an image"),
            None => bail!("kind is missing: write `kind: linux`"),
        }
        if !matches!(self.image_pull_policy.as_deref(), None | Some("Never" | "IfNotPresent" | "Always")) {
            bail!("image-pull-policy is Never, IfNotPresent or Always");
        }
        let mut command = expand::words(self.entrypoint.as_deref().unwrap_or_default()).context("entrypoint")?;
        command.extend(expand::words(self.cmd.as_deref().unwrap_or_default()).context("cmd")?);
        Ok(Node {
            image: self.image.context("image is missing")?,
            binds: self.binds.iter().map(|bind| Bind::parse(bind, name, folder)).collect::<Result<_>>().context("binds")?,
            sysctls: self.sysctls,
            env: self.env,
            command,
            exec: self.exec.iter().map(|line| expand::words(line)).collect::<Result<_>>().context("exec")?,
            network: Network::parse(self.network_mode.as_deref())?,
            healthcheck: self.healthcheck.map(RawHealthcheck::resolve).transpose().context("healthcheck")?,
            wait_for: self.stages.create.wait_for.into_iter().map(|wait| WaitFor { node: wait.node, stage: wait.stage }).collect(),
            labels: self.labels,
        })
    }
}

impl Network {
    fn parse(mode: Option<&str>) -> Result<Self> {
        match mode {
            Some("none") => Ok(Self::None),
            Some(other) => match other.strip_prefix("container:") {
                Some(node) => Ok(Self::Container(node.to_owned())),
                None => bail!("network-mode `{other}` is not supported: `none` or `container:NODE`"),
            },
            None => bail!("network-mode is missing: write `network-mode: none` (no management network is built)"),
        }
    }
}

impl Bind {
    fn parse(text: &str, node: &str, folder: &Path) -> Result<Self> {
        let text = text.replace("__clabNodeName__", node);
        let mut parts = text.split(':');
        let (source, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let read_only = match (parts.next(), parts.next()) {
            (None, _) | (Some("rw"), None) => false,
            (Some("ro"), None) => true,
            _ => bail!("`{text}`: write source:target, source:target:ro or source:target:rw"),
        };
        if source.is_empty() || !target.starts_with('/') {
            bail!("`{text}`: the path in the node must be absolute");
        }
        Ok(Self { source: folder.join(source), target: target.into(), read_only })
    }
}

impl RawHealthcheck {
    /// Docker's meaning of the first word; the time allowed is what Docker would give before it calls the node unhealthy.
    fn resolve(self) -> Result<Healthcheck> {
        let test = match self.test.split_first() {
            Some((kind, rest)) if kind == "CMD" && !rest.is_empty() => rest.to_vec(),
            Some((kind, [line])) if kind == "CMD-SHELL" => vec!["sh".into(), "-c".into(), line.clone()],
            _ => bail!("test is [CMD, program, arguments…] or [CMD-SHELL, line]"),
        };
        let round = self.interval.unwrap_or(30) + self.timeout.unwrap_or(30);
        Ok(Healthcheck { test, within: Duration::from_secs(self.start_period.unwrap_or(0) + round * self.retries.unwrap_or(3)) })
    }
}

impl RawLink {
    fn resolve(&self) -> Result<Link> {
        if let Some(kind) = self.kind.as_deref().filter(|kind| *kind != "veth") {
            bail!("a link of type `{kind}` is not supported: leave `type` out, or write `type: veth`");
        }
        let [a, b] = self.endpoints.as_slice() else { bail!("a link has two endpoints, this one {}", self.endpoints.len()) };
        Ok(Link { ends: [a.resolve()?, b.resolve()?], mtu: self.mtu })
    }
}

impl RawEnd {
    fn resolve(&self) -> Result<End> {
        let (node, interface) = match self {
            Self::Brief(text) => text.split_once(':').with_context(|| format!("endpoint `{text}`: write \"node:interface\""))?,
            Self::Long(end) => (end.node.as_str(), end.interface.as_str()),
        };
        Ok(End { node: node.to_owned(), interface: interface.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Topology> {
        Topology::parse(text, Path::new("/labs/x.clab.yml"), &BTreeMap::new())
    }

    #[test]
    fn groups_kinds_and_defaults_merge_into_nodes() {
        let topology = parse(
            r#"
name: x
prefix: ""
mgmt: {network: clab, ipv4-subnet: 172.20.20.0/24}
topology:
  defaults: {kind: linux, env: {A: d, B: d}, exec: [first]}
  kinds: {linux: {image-pull-policy: Never, network-mode: none, image: kind:local, env: {B: k}}}
  groups: {tor: {image: "frr:local", sysctls: {net.ipv4.ip_forward: 1}, exec: [second]}}
  nodes:
    tor1:
      group: tor
      binds: ["tor1/__clabNodeName__.conf:/etc/frr/frr.conf:ro", "/abs:/b"]
      cmd: sh -c "a b"
      exec: ['ip addr add 10.0.0.1/24 dev net0']
      healthcheck: {test: [CMD-SHELL, "pgrep bgpd"], interval: 1, timeout: 1, retries: 5}
    host1:
      stages: {create: {wait-for: [{node: tor1, stage: healthy}]}}
  links:
    - endpoints: ["tor1:net1", "host1:net0"]
      mtu: 1400
    - type: veth
      endpoints: [{node: tor1, interface: net2}, {node: host1, interface: net3}]
"#,
        )
        .unwrap();
        let tor = &topology.nodes["tor1"];
        assert_eq!(tor.image, "frr:local");
        assert_eq!(tor.env, BTreeMap::from([("A".into(), "d".into()), ("B".into(), "k".into())]));
        assert_eq!(tor.sysctls["net.ipv4.ip_forward"], "1");
        assert_eq!(tor.command, ["sh", "-c", "a b"]);
        assert_eq!(
            tor.exec.iter().map(|words| words.join(" ")).collect::<Vec<_>>(),
            ["first", "second", "ip addr add 10.0.0.1/24 dev net0"]
        );
        assert_eq!(tor.binds[0], Bind { source: "/labs/tor1/tor1.conf".into(), target: "/etc/frr/frr.conf".into(), read_only: true });
        assert_eq!(tor.binds[1].source, Path::new("/abs"));
        assert_eq!(topology.nodes["host1"].image, "kind:local");
        assert_eq!(topology.links[0].mtu, Some(1400));
        assert_eq!(topology.links[1].ends[1], End { node: "host1".into(), interface: "net3".into() });
        assert_eq!(topology.waves().unwrap(), [vec!["tor1".to_owned()], vec!["host1".to_owned()]]);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let base = "name: x\ntopology:\n  defaults: {kind: linux, image: a, network-mode: none}\n  nodes:\n";
        for (rest, expected) in [
            ("    a: {imgae: b}\n", "line 5"),
            ("    a: {ports: [\"80:80\"]}\n", "containerlab knows `ports`"),
            ("    a: {kind: nokia_srlinux}\n", "line 5: node a: kind `nokia_srlinux`"),
            ("    a: {network-mode: bridge}\n", "network-mode `bridge`"),
            ("    a: {binds: [x]}\n", "absolute"),
            ("    a: {group: g}\n", "there is no group `g`"),
            ("    a:\n  links:\n    - endpoints: [\"a:x\", \"b:y\"]\n", "there is no node `b`"),
            ("    a:\n  links:\n    - {type: vxlan, endpoints: [\"a:x\", \"a:y\"]}\n", "line 7: a link of type `vxlan`"),
            ("    a:\n  links:\n    - {endpoints: [\"a:x\", \"a:y\"], ipv4: [10.0.0.1/24]}\n", "line 7"),
            ("    a:\n  links:\n    - {endpoints: [\"a:x\", \"a:x\"]}\n", "a:x is used twice"),
            (
                "    a: {stages: {create: {wait-for: [{node: b, stage: create}]}}}\n    b: {stages: {create: {wait-for: [{node: a, stage: create}]}}}\n",
                "wait for one another: a, b",
            ),
            ("    a: {healthcheck: {test: [NONE]}}\n", "CMD-SHELL"),
            ("    a: {image: x}\n    a: {image: y}\n", "line 6"),
        ] {
            let error = format!("{:#}", parse(&format!("{base}{rest}")).unwrap_err());
            assert!(error.contains("/labs/x.clab.yml") && error.contains(expected), "{rest}\n{error}");
        }
    }
}
