//! Static routes that the configuration asks for: IPAM blocks, services, hosts behind a gateway.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::{LocalKey, LocalRoute, LocalTarget};
use crate::config::OriginConfig;
use crate::policy::RouteSource;
use crate::types::canonical;

/// All of them. Of two gateways for one host the first counts.
pub(super) fn routes(config: &OriginConfig) -> BTreeMap<LocalKey, LocalRoute> {
    let blocks = config.blocks.iter().filter(|block| is_aggregate(block)).map(|block| (RouteSource::Block, *block, LocalTarget::Blackhole));
    let services = config.services.iter().map(|service| (RouteSource::Service, *service, LocalTarget::Blackhole));
    let hosts = config.static_routes.iter().rev().map(|(host, gateway)| (RouteSource::Static, *host, LocalTarget::Gateway(*gateway)));
    let routes = blocks.chain(services).chain(hosts);
    routes.map(|(source, prefix, target)| (LocalKey { source, prefix: canonical(prefix) }, LocalRoute { target, metric: None })).collect()
}

/// A block of one address has no blackhole: it would drop the packets of the very workload whose route it is.
fn is_aggregate(block: &IpNet) -> bool {
    block.prefix_len() < block.max_prefix_len()
}
