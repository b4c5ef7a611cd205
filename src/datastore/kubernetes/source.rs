//! What is watched: one row per kind of object, with its path, its selection and what is kept of it.

use std::fmt;

use data_encoding::BASE32_NOPAD;
use serde_json::Value;
use sha3::{Digest, Sha3_256};

use super::convert;
use super::object::Object;
use super::reflector::Ask;
use crate::calico::{Problem, ResourceKey};
use crate::datastore::second_look::KINDS;

/// The label by which Calico finds the affinities of a host.
const HOSTNAME_HASH: &str = "projectcalico.org/hostname-hash";

/// Which API group Calico's resources are in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ApiGroup {
    /// `crd.projectcalico.org/v1`: the datastore of most installations.
    #[default]
    Crd,
    /// `projectcalico.org/v3`: served as CRDs by newer releases.
    V3,
}

impl ApiGroup {
    /// The group's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crd => "crd.projectcalico.org",
            Self::V3 => "projectcalico.org",
        }
    }

    /// The group's version.
    pub fn version(self) -> &'static str {
        match self {
            Self::Crd => "v1",
            Self::V3 => "v3",
        }
    }
}

/// What the node reads, and as whom.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    /// Name of our Node.
    pub node: String,
    /// Name of our node in EndpointSlices: `CALICO_K8S_NODE_REF`, else the same.
    pub kubernetes_node: String,
    /// `NAMESPACE`: where password Secrets are.
    pub namespace: String,
    /// `USE_POD_CIDR`: blocks are the Node's podCIDRs; there is no IPAM.
    pub use_pod_cidr: bool,
    /// `K8S_DISABLE_NODE_POLL`: of Nodes, only our own is read.
    pub own_node_only: bool,
    /// `CALICO_ADVERTISE_CLUSTER_IPS` is set, so that Services count whatever BGPConfiguration says.
    pub services: bool,
    /// Where Calico's resources are.
    pub group: ApiGroup,
}

/// One list and watch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    BgpConfigurations,
    BgpFilters,
    BgpPeers,
    IpPools,
    /// Those that ask for other nodes are left out by their content.
    NodeStatuses,
    /// The affinities that carry our host's hash, …
    OwnAffinities,
    /// … and those that carry none, as old releases wrote them: ours among them are found by their content.
    UnlabelledAffinities,
    Nodes,
    /// Our own Node whole, for its podCIDRs.
    PodCidrs,
    Services,
    EndpointSlices,
    /// The Secret of this name.
    Secret(String),
}

impl Plan {
    /// What is always read; Services and Secrets follow when a resource asks for them.
    pub fn sources(&self) -> Vec<Source> {
        let mut sources =
            vec![Source::BgpConfigurations, Source::BgpFilters, Source::BgpPeers, Source::IpPools, Source::NodeStatuses, Source::Nodes];
        if self.use_pod_cidr {
            sources.push(Source::PodCidrs);
        } else {
            sources.extend([Source::OwnAffinities, Source::UnlabelledAffinities]);
        }
        sources
    }
}

/// What an object is to the compiler: resources that are there now, or (none) that are not.
#[derive(Debug, Default)]
pub(super) struct Converted {
    pub resources: Vec<(ResourceKey, Option<Value>)>,
    /// What could not be used of it.
    pub problems: Vec<Problem>,
}

impl Source {
    /// Whether this is a kind of Calico's own API groups.
    pub fn is_calico(&self) -> bool {
        !matches!(self, Self::Nodes | Self::PodCidrs | Self::Services | Self::EndpointSlices | Self::Secret(_))
    }

    /// Whether it is of a kind whose loss would end sessions, so that a listing that lacks most gets a second look.
    pub fn is_precious(&self) -> bool {
        let kind = match self {
            Self::BgpConfigurations => "BGPConfiguration",
            Self::BgpFilters => "BGPFilter",
            Self::BgpPeers => "BGPPeer",
            Self::IpPools => "IPPool",
            Self::Nodes => "Node",
            _ => return false,
        };
        KINDS.contains(&kind)
    }

    /// Plural name, as RBAC rules have it.
    pub fn plural(&self) -> &'static str {
        match self {
            Self::BgpConfigurations => "bgpconfigurations",
            Self::BgpFilters => "bgpfilters",
            Self::BgpPeers => "bgppeers",
            Self::IpPools => "ippools",
            Self::NodeStatuses => "caliconodestatuses",
            Self::OwnAffinities | Self::UnlabelledAffinities => "blockaffinities",
            Self::Nodes | Self::PodCidrs => "nodes",
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices",
            Self::Secret(_) => "secrets",
        }
    }

    /// API group, as RBAC rules have it.
    pub fn api_group(&self, plan: &Plan) -> &'static str {
        match self {
            Self::EndpointSlices => "discovery.k8s.io",
            _ if self.is_calico() => plan.group.name(),
            _ => "",
        }
    }

    /// Path of the collection.
    pub fn path(&self, plan: &Plan) -> String {
        let plural = self.plural();
        match self {
            Self::EndpointSlices => format!("/apis/discovery.k8s.io/v1/{plural}"),
            Self::Secret(_) => format!("/api/v1/namespaces/{}/{plural}", plan.namespace),
            _ if self.is_calico() => format!("/apis/{}/{}/{plural}", plan.group.name(), plan.group.version()),
            _ => format!("/api/v1/{plural}"),
        }
    }

    /// Path and query of a request.
    pub fn uri(&self, plan: &Plan, ask: &Ask, timeout: u32) -> String {
        let mut query: Vec<(&str, String)> = Vec::new();
        match ask {
            Ask::WatchAll => {
                query.push(("watch", "true".to_owned()));
                query.push(("allowWatchBookmarks", "true".to_owned()));
                query.push(("sendInitialEvents", "true".to_owned()));
                query.push(("resourceVersionMatch", "NotOlderThan".to_owned()));
                query.push(("timeoutSeconds", timeout.to_string()));
            }
            Ask::Watch { version } => {
                query.push(("watch", "true".to_owned()));
                query.push(("allowWatchBookmarks", "true".to_owned()));
                query.push(("resourceVersion", version.clone()));
                query.push(("timeoutSeconds", timeout.to_string()));
            }
            Ask::Page { next, all } => {
                if !all {
                    query.push(("limit", "500".to_owned()));
                }
                if !next.is_empty() {
                    query.push(("continue", next.clone()));
                }
            }
        }
        query.extend(self.selection(plan));
        let query: Vec<String> = query.iter().map(|(key, value)| format!("{key}={}", escaped(value))).collect();
        format!("{}?{}", self.path(plan), query.join("&"))
    }

    /// Selectors, so that the server sends no more than is used.
    fn selection(&self, plan: &Plan) -> Option<(&'static str, String)> {
        let own_name = || ("fieldSelector", format!("metadata.name={}", plan.node));
        match self {
            Self::OwnAffinities => Some(("labelSelector", format!("{HOSTNAME_HASH}={}", hostname_hash(&plan.node)))),
            Self::UnlabelledAffinities => Some(("labelSelector", format!("!{HOSTNAME_HASH}"))),
            Self::Nodes => plan.own_node_only.then(own_name),
            Self::PodCidrs => Some(own_name()),
            Self::EndpointSlices => Some(("labelSelector", "kubernetes.io/service-name,!service.kubernetes.io/headless".to_owned())),
            Self::Secret(name) => Some(("fieldSelector", format!("metadata.name={name}"))),
            _ => None,
        }
    }

    /// The form that is asked for: of Nodes, only the metadata, without the kilobytes of status beside it.
    pub fn accept(&self, ask: &Ask) -> &'static str {
        match (self, ask) {
            (Self::Nodes, Ask::Page { .. }) => "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json",
            (Self::Nodes, _) => "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json",
            _ => "application/json",
        }
    }

    /// What an object is to the compiler.
    pub fn convert(&self, plan: &Plan, object: Object) -> Converted {
        match self {
            Self::BgpConfigurations => convert::calico("BGPConfiguration", object),
            Self::BgpFilters => convert::calico("BGPFilter", object),
            Self::BgpPeers => convert::calico("BGPPeer", object),
            Self::IpPools => convert::calico("IPPool", object),
            Self::OwnAffinities | Self::UnlabelledAffinities => convert::own("BlockAffinity", &plan.node, object),
            Self::NodeStatuses => convert::own("CalicoNodeStatus", &plan.node, object),
            Self::Nodes => convert::node(&self.path(plan), object),
            Self::PodCidrs => convert::pod_cidrs(object),
            Self::Services => convert::service(object),
            Self::EndpointSlices => convert::endpoint_slice(plan, object),
            Self::Secret(_) => convert::secret(object),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(name) => write!(f, "secret {name}"),
            Self::OwnAffinities => f.write_str("blockaffinities of this node"),
            Self::UnlabelledAffinities => f.write_str("blockaffinities without a label"),
            other => f.write_str(other.plural()),
        }
    }
}

/// The value of Calico's label: SHA3-256 of the name in base32.
fn hostname_hash(name: &str) -> String {
    BASE32_NOPAD.encode(&Sha3_256::digest(name.as_bytes()))
}

/// A value of a query.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_calicos() {
        assert_eq!(hostname_hash("node-a"), "PY3TQE2E3XMTETLM2MJO3UITKPFB27YUJ4T4E5XGPEJON3SM4QAA");
    }

    #[test]
    fn requests_select_on_the_server() {
        let plan = Plan { node: "node-a".to_owned(), namespace: "kube-system".to_owned(), ..Plan::default() };
        let page = Ask::Page { next: String::new(), all: true };
        assert_eq!(
            Source::Secret("bgp".to_owned()).uri(&plan, &page, 300),
            "/api/v1/namespaces/kube-system/secrets?fieldSelector=metadata.name%3Dbgp"
        );
        assert_eq!(
            Source::UnlabelledAffinities.uri(&plan, &Ask::Watch { version: "7".to_owned() }, 300),
            "/apis/crd.projectcalico.org/v1/blockaffinities?watch=true&allowWatchBookmarks=true&resourceVersion=7&timeoutSeconds=300\
             &labelSelector=%21projectcalico.org%2Fhostname-hash"
        );
        let v3 = Plan { group: ApiGroup::V3, own_node_only: true, ..plan };
        assert!(Source::BgpPeers.uri(&v3, &Ask::WatchAll, 1).starts_with("/apis/projectcalico.org/v3/bgppeers?watch=true&"));
        assert_eq!(Source::Nodes.uri(&v3, &page, 1), "/api/v1/nodes?fieldSelector=metadata.name%3Dnode-a");
    }
}
