//! Resources as text, and what a node makes of them in lines that a person can read.

use std::path::{Path, PathBuf};

use margay::calico::{Environment, Input, Problem, Store, compile};
use margay::config::{Authentication, FibAction, NextHopMode, NodeConfig, PeerConfig, Ttl};
use margay::datastore::load;

/// The resources of one file, loaded.
pub struct Cluster {
    pub store: Store,
    pub source_problems: Vec<Problem>,
    pub environment: Environment,
}

impl Cluster {
    /// Reads a file.
    pub fn of_file(path: &Path) -> Self {
        Self::of(load(&[path.to_path_buf()]))
    }

    /// Reads YAML.
    pub fn new(yaml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resources.yaml");
        std::fs::write(&path, yaml).unwrap();
        Self::of_file(&path)
    }

    fn of(inputs: Vec<Input>) -> Self {
        let (mut store, mut source_problems) = (Store::default(), Vec::new());
        for input in inputs {
            match input {
                Input::Resource(word) => drop(store.apply(word)),
                Input::SourceProblems(problems) => source_problems = problems,
            }
        }
        assert!(store.in_sync());
        Self { store, source_problems, environment: Environment::default() }
    }

    /// What this node does, and all that is wrong.
    pub fn compile(&self, node: &str) -> (Option<NodeConfig>, Vec<Problem>) {
        let (config, problems) = compile(&self.store, node, &self.environment);
        (config, self.source_problems.iter().cloned().chain(problems).collect())
    }

    /// What this node does.
    pub fn config(&self, node: &str) -> NodeConfig {
        let (config, problems) = self.compile(node);
        config.unwrap_or_else(|| panic!("no configuration: {problems:#?}"))
    }

    /// The sessions of a node, a line each: see [`session`].
    pub fn sessions(&self, node: &str) -> Vec<String> {
        self.config(node).peers.values().map(|peer| session(peer)).collect()
    }

    /// One session of a node.
    pub fn peer(&self, node: &str, name: &str) -> PeerConfig {
        let config = self.config(node);
        let known: Vec<&String> = config.peers.keys().collect();
        config.peers.get(name).map(|peer| PeerConfig::clone(peer)).unwrap_or_else(|| panic!("{name} is not among {known:?}"))
    }

    /// The problems, without the file's folder.
    pub fn problems(&self, node: &str) -> Vec<String> {
        self.compile(node).1.iter().map(problem_line).collect()
    }

    /// The kernel rules of a node, a line each.
    pub fn rules(&self, node: &str) -> Vec<String> {
        let action = |action: &FibAction| match action {
            FibAction::Skip => "skip".to_owned(),
            FibAction::Plain => "plain".to_owned(),
            FibAction::Tunnel { device, unless_in: None } => device.clone(),
            FibAction::Tunnel { device, unless_in: Some(subnet) } => format!("{device} outside {subnet}"),
        };
        self.config(node).fib.rules.iter().map(|rule| format!("{} {}", rule.cidr, action(&rule.action))).collect()
    }
}

/// `error: BGPPeer tor: spec.peerIP: what; instead`, with line and column but without the file.
pub fn problem_line(problem: &Problem) -> String {
    let text = problem.to_string();
    match text.strip_prefix(&format!("{}:", problem.location.file)) {
        Some(rest) if !problem.location.file.is_empty() => rest.trim_start().to_owned(),
        _ => text,
    }
}

/// Name, address and port, ASes, and whatever is not as in an ordinary session.
pub fn session(peer: &PeerConfig) -> String {
    let mut line = format!("{} {}:{} {}→{}", peer.name, peer.address, peer.port, peer.local_asn, peer.remote_asn);
    let mut add = |text: String| {
        line.push(' ');
        line.push_str(&text);
    };
    match peer.local_address {
        Some(address) => add(format!("from {address}")),
        None => add("from any".to_owned()),
    }
    if peer.passive {
        add("passive".to_owned());
    }
    if peer.reflector_client {
        add(format!("client of {}", peer.cluster_id.unwrap()));
    }
    match &peer.authentication {
        Authentication::None => {}
        Authentication::Md5(_) => add("md5".to_owned()),
        Authentication::Ao(keys) => add(format!("ao key {}", keys.current)),
        Authentication::Missing(what) => add(format!("waits for {what}")),
    }
    if let Ttl::Gtsm { hops } = peer.ttl {
        add(format!("gtsm {hops}"));
    }
    if peer.next_hop_mode != NextHopMode::Auto {
        add(format!("next hop {:?}", peer.next_hop_mode));
    }
    if peer.allow_local_as != 0 {
        add(format!("allow {}", peer.allow_local_as));
    }
    line
}

/// A file of `fixtures/`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// A Node with an IPv4 address in a /24, more fields of `spec.bgp` and labels.
pub fn node(name: &str, address: &str, bgp: &str, labels: &str) -> String {
    format!("---\nkind: Node\nmetadata: {{name: {name}, labels: {{{labels}}}}}\nspec: {{bgp: {{ipv4Address: {address}/24{bgp}}}}}\n")
}

/// A BGPPeer.
pub fn peer(name: &str, spec: &str) -> String {
    format!("---\nkind: BGPPeer\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
}

/// BGPConfiguration default.
pub fn defaults(spec: &str) -> String {
    format!("---\nkind: BGPConfiguration\nmetadata: {{name: default}}\nspec: {{{spec}}}\n")
}

/// A BGPConfiguration of one node.
pub fn own(node: &str, spec: &str) -> String {
    format!("---\nkind: BGPConfiguration\nmetadata: {{name: node.{node}}}\nspec: {{{spec}}}\n")
}

/// An IPPool.
pub fn pool(name: &str, spec: &str) -> String {
    format!("---\nkind: IPPool\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
}

/// A BlockAffinity.
pub fn block(node: &str, cidr: &str, state: &str) -> String {
    let name = format!("{node}-{}", cidr.replace(['.', ':', '/'], "-"));
    format!("---\nkind: BlockAffinity\nmetadata: {{name: {name}}}\nspec: {{node: {node}, cidr: \"{cidr}\", state: {state}}}\n")
}

/// A Service in namespace `ns`; `status` are its load balancer's addresses.
pub fn service(name: &str, spec: &str, ingress: &[&str]) -> String {
    let ingress: Vec<String> = ingress.iter().map(|ip| format!("{{ip: \"{ip}\"}}")).collect();
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: ns}}\nspec: {{{spec}}}\nstatus: {{loadBalancer: {{ingress: [{}]}}}}\n",
        ingress.join(", ")
    )
}

/// An EndpointSlice of that Service; an endpoint is `node`, `!node` (not ready) or `?node` (readiness not said).
pub fn slice(name: &str, service: &str, family: &str, endpoints: &[&str]) -> String {
    let endpoint = |text: &&str| match (text.strip_prefix('!'), text.strip_prefix('?')) {
        (Some(node), _) => format!("{{nodeName: {node}, addresses: [\"x\"], conditions: {{ready: false, serving: true}}}}"),
        (_, Some(node)) => format!("{{nodeName: {node}, addresses: [\"x\"], conditions: {{ready: null}}}}"),
        _ => format!("{{nodeName: {text}, addresses: [\"x\"], conditions: {{ready: true}}}}"),
    };
    let endpoints: Vec<String> = endpoints.iter().map(endpoint).collect();
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, namespace: ns, labels: {{kubernetes.io/service-name: {service}}}}}\n\
         addressType: {family}\nendpoints: [{}]\nports: []\n",
        endpoints.join(", ")
    )
}
