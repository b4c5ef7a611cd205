//! Calico's v3 resources as types, a file each, decoded field by field.
//!
//! Empty text, 0, absent and null are the same unless a field says otherwise. A field of the wrong type refuses its
//! resource; a field that margay does not know is named at level info and ignored, as Calico ignores it.
//!
#![doc = include_str!("fields.md")]

mod annotation;
mod bgp_configuration;
mod bgp_filter;
mod bgp_peer;
mod block_affinity;
mod endpoint_slice;
mod fields;
mod ip_pool;
mod node;
mod node_status;
mod secret;
mod secret_key;
mod service;
#[cfg(test)]
mod table;
mod value;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::filter::{CompiledFilter, compile_filter};
use super::{Document, Report, ResourceKey};
use crate::policy::{Term, Verdict};
use crate::types::PerFamily;

pub use annotation::{Annotations, Bfd, DefaultPolicy, TcpAo};
pub use bgp_configuration::{BgpConfiguration, BindMode, ProgramClusterRoutes};
pub use bgp_filter::{
    AddCommunity, BgpFilterRule, BgpFilterSpec, FilterRule, MatchCommunities, Operation, PrefixLength, PrependAsPath, SetPriority,
};
pub use bgp_peer::{BgpPeer, Endpoint, NextHop, SourceAddress};
pub use block_affinity::{AffinityState, BlockAffinity};
pub use endpoint_slice::EndpointSlice;
pub use fields::Fields;
pub use ip_pool::{Encapsulation, IpPool};
pub use node::{Address, Node};
pub use node_status::{NodeStatus, StatusClass};
pub use secret::Secret;
pub use secret_key::SecretKey;
pub use service::{Service, ServiceName, ServiceType, TrafficPolicy};
pub use value::{Text, duration};

/// A decoded resource.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// `BGPConfiguration`.
    BgpConfiguration(Box<BgpConfiguration>),
    /// `BGPPeer`.
    BgpPeer(Box<BgpPeer>),
    /// `BGPFilter`.
    BgpFilter(CompiledFilter),
    /// `Node`.
    Node(Node),
    /// `IPPool`.
    IpPool(IpPool),
    /// `BlockAffinity`.
    BlockAffinity(BlockAffinity),
    /// `Secret`.
    Secret(Secret),
    /// `Service`.
    Service(Service),
    /// `EndpointSlice`.
    EndpointSlice(EndpointSlice),
    /// A kind that is accepted and not acted on.
    Unused,
}

/// What became of a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded {
    /// It can be used (perhaps with a field left out, which is reported).
    Good(Resource),
    /// It is refused. What can be made of it stands in only where it never had a good form.
    Refused(Option<Resource>),
}

/// Kinds of `calicoctl get` that no speaker acts on; and those of the embedded agent (`margay workload apply`).
const UNUSED: [&str; 18] = [
    "ClusterInformation",
    "FelixConfiguration",
    "GlobalNetworkPolicy",
    "GlobalNetworkSet",
    "HostEndpoint",
    "IPAMConfiguration",
    "IPReservation",
    "KubeControllersConfiguration",
    "NetworkPolicy",
    "NetworkSet",
    "PortExposure",
    "Profile",
    "StagedGlobalNetworkPolicy",
    "StagedKubernetesNetworkPolicy",
    "StagedNetworkPolicy",
    "Tier",
    "Workload",
    "WorkloadEndpoint",
];

/// Decodes one document by its kind. Total: whatever it holds gives a resource, problems, or both.
pub fn decode(key: &ResourceKey, document: &Document, report: &mut Report<'_>) -> Decoded {
    if let Some(why) = document.object.as_str() {
        report.error("", format!("the value cannot be read: {why}"), "");
        return Decoded::Refused(None);
    }
    name_unknown_parts(document, report);
    let resource = match key.kind.as_str() {
        "BGPConfiguration" => Some(Resource::BgpConfiguration(Box::new(BgpConfiguration::decode(document, report)))),
        "BGPPeer" => BgpPeer::decode(document, report).map(Box::new).map(Resource::BgpPeer),
        "BGPFilter" => Some(Resource::BgpFilter(bgp_filter(key, document, report))),
        "Node" => Some(Resource::Node(Node::decode(document, report))),
        "IPPool" => IpPool::decode(document, report).map(Resource::IpPool),
        "BlockAffinity" => BlockAffinity::decode(document, report).map(Resource::BlockAffinity),
        "Secret" => Some(Resource::Secret(Secret::decode(document, report))),
        "Service" => Some(Resource::Service(Service::decode(document, report))),
        "EndpointSlice" => Some(Resource::EndpointSlice(EndpointSlice::decode(document, report))),
        // Read for what is wrong with it: it changes no configuration, and whoever fills it reads it there.
        "CalicoNodeStatus" => NodeStatus::decode(document, report).map(|_| Resource::Unused),
        kind if UNUSED.contains(&kind) => Some(Resource::Unused),
        kind => {
            report.warning("kind", format!("margay knows no kind `{kind}`"), "ignored");
            Some(Resource::Unused)
        }
    };
    match resource {
        Some(resource) if !report.is_refused() => Decoded::Good(resource),
        Some(resource @ (Resource::BgpConfiguration(_) | Resource::BgpFilter(_) | Resource::Node(_))) => Decoded::Refused(Some(resource)),
        _ => Decoded::Refused(None),
    }
}

/// Names what stands beside `spec` and has no meaning there, such as a misspelt `spec`.
fn name_unknown_parts(document: &Document, report: &mut Report<'_>) {
    const KNOWN: [&str; 9] = ["apiVersion", "data", "immutable", "kind", "metadata", "spec", "status", "stringData", "type"];
    for part in document.object.as_object().into_iter().flat_map(|object| object.keys()) {
        if !KNOWN.contains(&part.as_str()) && report.key().kind != "EndpointSlice" {
            report.info(part, "has no meaning here", "ignored, as Calico ignores it");
        }
    }
}

/// A BGPFilter as terms. A rule that cannot be read concerns itself only; a filter that cannot be read at all lets
/// nothing through, so that no peer hears by mistake what it was there to keep back.
fn bgp_filter(key: &ResourceKey, document: &Document, report: &mut Report<'_>) -> CompiledFilter {
    let spec = document.object.get("spec").filter(|spec| !spec.is_null());
    match spec.map_or_else(|| Ok(BgpFilterSpec::default()), BgpFilterSpec::deserialize) {
        Ok(spec) => {
            let mut problems = Vec::new();
            let compiled = compile_filter(&key.name, &spec, &mut problems);
            report.adopt(problems);
            bgp_filter::name_unknown(document, report);
            compiled
        }
        Err(error) => {
            report.error("spec", error.to_string(), "every route of its peers is rejected until it is mended");
            let name = format!("BGPFilter {}, which cannot be read", key.name).into();
            let reject = vec![Term { name, matches: Vec::new(), actions: Vec::new(), verdict: Some(Verdict::Reject) }];
            let both = PerFamily { ipv4: reject.clone(), ipv6: reject };
            CompiledFilter { import: both.clone(), export: both }
        }
    }
}

/// The labels of a document; values that YAML read as booleans or numbers become text, as kubectl makes them.
fn text_map(document: &Document, report: &mut Report<'_>, field: &str) -> BTreeMap<String, String> {
    let mut metadata = Fields::of(document, "metadata");
    let map: Option<BTreeMap<String, Option<Text>>> = metadata.get(report, field);
    map.unwrap_or_default().into_iter().map(|(key, value)| (key, value.map(|text| text.0).unwrap_or_default())).collect()
}

/// Reads null as the default value.
pub fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
