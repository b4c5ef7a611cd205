//! What is declared: documents of the kinds `Workload` and `PortExposure` (`apiVersion: margay.io/v1`), and the IPPools of Calico.
//!
//! ```yaml
//! kind: Workload
//! metadata: {name: web}
//! spec:
//!   netns: web                          # a name in /run/netns, a path, or the number of a process
//!   addresses: [10.244.1.5, fd00:10::5]
//!   interface: eth0                     # its name there; this is the default
//!   mtu: 1450                           # the kernel's default unless given
//! ---
//! kind: PortExposure
//! metadata: {name: web-http}
//! spec:
//!   protocol: TCP                       # or UDP
//!   port: 8080                          # of this host
//!   hostAddresses: [192.0.2.10]         # those of the host that are meant; all unless given
//!   address: 10.244.1.5                 # where to
//!   targetPort: 80                      # the same port unless given
//! ```
//! Of an IPPool `cidr` and `natOutgoing` count here.
//!
//! While anything is wrong with the files, a folder without any file included, nothing is removed and the nftables table stays as it is: what is
//! missing may only be unreadable. A file with a comment alone, or with pools only, is how to say that no workload is wanted.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::calico::{Document, Input, Problem, Severity};
use crate::types::Sync;

/// A workload as it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its name.
    pub name: String,
    /// Its network namespace.
    pub namespace: PathBuf,
    /// The name of its interface there.
    pub interface: String,
    /// Its addresses, sorted.
    pub addresses: Vec<IpAddr>,
    /// MTU; none: the kernel's default.
    pub mtu: Option<u32>,
}

/// A port of this host that leads to a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The host's port.
    pub port: u16,
    /// The host's addresses; none: all.
    pub host_addresses: Vec<IpAddr>,
    /// Where to.
    pub address: IpAddr,
    /// The port there.
    pub target_port: u16,
}

/// What is exposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Everything that is declared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// By name.
    pub workloads: BTreeMap<String, Workload>,
    /// By name.
    pub exposures: BTreeMap<String, Exposure>,
    /// Every pool, and whether its addresses are hidden from what is outside of pools.
    pub pools: BTreeMap<IpNet, bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WorkloadSpec {
    netns: String,
    addresses: Vec<IpAddr>,
    interface: Option<String>,
    mtu: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ExposureSpec {
    protocol: Protocol,
    port: u16,
    #[serde(default)]
    host_addresses: Vec<IpAddr>,
    address: IpAddr,
    target_port: Option<u16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PoolSpec {
    cidr: IpNet,
    #[serde(default)]
    nat_outgoing: bool,
}

impl Workload {
    /// The error says what is wrong with it.
    pub fn new(name: &str, netns: &str, mut addresses: Vec<IpAddr>, interface: Option<String>, mtu: Option<u32>) -> Result<Self, String> {
        let good = |c: char| c.is_ascii_graphic();
        if name.is_empty() || name.len() > 200 || !name.chars().all(good) {
            return Err(format!("`{name}` is no workload's name: 1 to 200 visible ASCII letters without blanks"));
        }
        addresses.sort_unstable();
        addresses.dedup();
        if let Some(bad) = addresses.iter().find(|address| crate::types::is_martian(&IpNet::from(**address))) {
            return Err(format!("{bad} is no hosts' address"));
        }
        if addresses.is_empty() {
            return Err("a workload without an address cannot be reached: give one".to_owned());
        }
        let interface = interface.unwrap_or_else(|| "eth0".to_owned());
        if interface.is_empty() || interface.len() > 15 || interface.contains(['/', ' ']) {
            return Err(format!("`{interface}` is no name of an interface: 1 to 15 letters, no blank and no slash"));
        }
        let namespace = match netns {
            "" => return Err("netns: a name in /run/netns, a path, or the number of a process".to_owned()),
            path if path.contains('/') => PathBuf::from(path),
            number if number.bytes().all(|octet| octet.is_ascii_digit()) => PathBuf::from(format!("/proc/{number}/ns/net")),
            name => PathBuf::from("/run/netns").join(name),
        };
        Ok(Self { name: name.to_owned(), namespace, interface, addresses, mtu })
    }

    /// The name of its interface here.
    pub fn link(&self) -> String {
        link_of(&self.name)
    }

    /// Whether it has an IPv6 address.
    pub fn has_ipv6(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_ipv6)
    }
}

/// The name of a workload's interface here: `cali` and the first eleven hexadecimal digits of the SHA-256 of its name.
pub fn link_of(name: &str) -> String {
    let digest = Sha256::digest(name.as_bytes());
    let digits: String = digest.iter().map(|octet| format!("{octet:02x}")).collect();
    format!("cali{}", &digits[..11])
}

/// Reads what the files say. A document with a fault is left out, and is a problem.
pub fn read(inputs: &[Input]) -> (Declared, Vec<Problem>) {
    let (mut declared, mut problems) = (Declared::default(), Vec::new());
    for input in inputs {
        let (key, document) = match input {
            Input::SourceProblems(found) => {
                problems.extend(found.iter().cloned());
                continue;
            }
            Input::Resource(Sync::Upsert(key, document)) => (key, document),
            Input::Resource(_) => continue,
        };
        let name = key.name.clone();
        let done = match key.kind.as_str() {
            "Workload" => workload(&name, document).map(|workload| drop(declared.workloads.insert(name, workload))),
            "PortExposure" => exposure(document).map(|exposure| drop(declared.exposures.insert(name, exposure))),
            "IPPool" => {
                spec(document).map(|PoolSpec { cidr, nat_outgoing }| *declared.pools.entry(cidr.trunc()).or_default() |= nat_outgoing)
            }
            _ => Ok(()),
        };
        if let Err(what) = done {
            let problem = Problem::general(Severity::Error, format!("{key}: {what}"), "it is left out, and nothing is removed meanwhile");
            problems.push(Problem { location: document.location.clone(), ..problem });
        }
    }
    (declared, problems)
}

fn spec<T: DeserializeOwned>(document: &Document) -> Result<T, String> {
    let spec = document.object.get("spec").cloned().unwrap_or_default();
    serde_json::from_value(spec).map_err(|error| format!("spec: {error}"))
}

fn workload(name: &str, document: &Document) -> Result<Workload, String> {
    let WorkloadSpec { netns, addresses, interface, mtu } = spec(document)?;
    Workload::new(name, &netns, addresses, interface, mtu)
}

fn exposure(document: &Document) -> Result<Exposure, String> {
    let ExposureSpec { protocol, port, host_addresses, address, target_port } = spec(document)?;
    let target_port = target_port.unwrap_or(port);
    if port == 0 || target_port == 0 {
        return Err("a port is 1 to 65535".to_owned());
    }
    if let Some(other) = host_addresses.iter().find(|host| host.is_ipv4() != address.is_ipv4()) {
        return Err(format!("{other} and {address} are of two families"));
    }
    Ok(Exposure { protocol, port, host_addresses, address, target_port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::{FileText, parse_texts};

    fn declared(text: &str) -> (Declared, Vec<String>) {
        let files: Vec<FileText> = serde_json::from_value(serde_json::json!([{ "file": "f", "text": text }])).unwrap();
        let (documents, problems) = parse_texts(&files);
        let inputs: Vec<Input> = std::iter::once(Input::SourceProblems(problems))
            .chain(documents.into_iter().map(|(key, document)| Input::Resource(Sync::Upsert(key, document))))
            .collect();
        let (declared, problems) = read(&inputs);
        (declared, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_documents_say() {
        let (declared, problems) = declared(
            "kind: Workload\nmetadata: {name: web}\nspec: {netns: web, addresses: [fd00::5, 10.1.0.255, 10.1.0.0], mtu: 1400}\n---\n\
             kind: PortExposure\nmetadata: {name: http}\nspec: {protocol: TCP, port: 8080, address: 10.1.0.0, targetPort: 80}\n---\n\
             kind: IPPool\nmetadata: {name: a}\nspec: {cidr: 10.1.0.0/16, natOutgoing: true, ipipMode: Never}\n---\n\
             kind: Node\nmetadata: {name: n}\n",
        );
        assert_eq!(problems, [""; 0]);
        let web = &declared.workloads["web"];
        assert_eq!((web.namespace.to_str().unwrap(), web.interface.as_str(), web.mtu), ("/run/netns/web", "eth0", Some(1400)));
        assert_eq!(web.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.1.0.0", "10.1.0.255", "fd00::5"]);
        assert_eq!(declared.exposures["http"].target_port, 80);
        assert_eq!(declared.pools, [("10.1.0.0/16".parse().unwrap(), true)].into());
    }

    #[test]
    fn faults_name_their_document() {
        let rows = [
            ("kind: Workload\nmetadata: {name: w}\nspec: {netns: a, addresses: []}", "without an address"),
            ("kind: Workload\nmetadata: {name: w}\nspec: {netns: a, addresses: [127.0.0.1]}", "no hosts' address"),
            ("kind: Workload\nmetadata: {name: w}\nspec: {addresses: [10.1.0.1]}", "missing field `netns`"),
            ("kind: Workload\nmetadata: {name: w}\nspec: {netns: a, addresses: [10.1.0.1], nat: true}", "unknown field `nat`"),
            ("kind: PortExposure\nmetadata: {name: p}\nspec: {protocol: SCTP, port: 1, address: 10.1.0.1}", "unknown variant `SCTP`"),
            (
                "kind: PortExposure\nmetadata: {name: p}\nspec: {protocol: TCP, port: 1, address: 10.1.0.1, hostAddresses: [fd00::1]}",
                "two families",
            ),
        ];
        for (text, expected) in rows {
            let (declared, problems) = declared(text);
            assert!(problems.len() == 1 && problems[0].contains(expected) && problems[0].contains("f:1"), "{text}: {problems:?}");
            assert_eq!(declared, Declared::default());
        }
    }

    #[test]
    fn namespaces_and_links() {
        let path = |netns: &str| {
            Workload::new("w", netns, vec!["10.1.0.1".parse().unwrap()], None, None).map(|w| w.namespace.display().to_string())
        };
        assert_eq!(path("a").as_deref(), Ok("/run/netns/a"));
        assert_eq!(path("77").as_deref(), Ok("/proc/77/ns/net"));
        assert_eq!(path("/proc/7/ns/net").as_deref(), Ok("/proc/7/ns/net"));
        assert!(path("").is_err());
        assert_eq!((link_of("web").len(), &link_of("web")[..4]), (15, "cali"));
        assert_ne!(link_of("web"), link_of("web2"));
    }
}
