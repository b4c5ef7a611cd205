//! Routes given by local agents, as the Origin machine sees them: one table, whoever gave what ([`Agents`](super::agents::Agents) merges them).
//!
//! An agent names interfaces; the kernel numbers them. A route counts while its interface is there and up, and its gateway, if it has
//! one, is on that link; until then it waits, and [`Origin::waiting`](super::Origin::waiting) says for what.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::device::{Devices, least_prefix};
use super::facts::Changes;
use super::{Facts, LocalRoute, LocalTarget};
use crate::fib::KernelHop;
use crate::types::Sync;

/// What an agent wants done with packets to a prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentRoute {
    /// Out of the interface of this name.
    Device {
        /// The interface's name.
        dev: Arc<str>,
        /// A gateway on that link; none: the prefix itself is on the link.
        via: Option<IpAddr>,
    },
    /// To a gateway that must be on a network of the node.
    Gateway(IpAddr),
    /// Dropped: the prefix is announced, and something else takes its packets before the routing does.
    Blackhole,
}

/// The merged table of all agents.
#[derive(Clone, Debug, Default)]
pub(super) struct AgentRoutes {
    routes: Facts<IpNet, AgentRoute>,
    by_device: BTreeSet<(Arc<str>, IpNet)>,
}

impl AgentRoutes {
    /// Takes a word over and tells what changed by it.
    pub(super) fn hear(&mut self, word: Sync<IpNet, AgentRoute>) -> Changes<IpNet, AgentRoute> {
        let changes = self.routes.hear(word);
        for (prefix, before) in &changes {
            if let Some(AgentRoute::Device { dev, .. }) = before {
                self.by_device.remove(&(Arc::clone(dev), *prefix));
            }
            if let Some(AgentRoute::Device { dev, .. }) = self.routes.get(prefix) {
                self.by_device.insert((Arc::clone(dev), *prefix));
            }
        }
        changes
    }

    /// The prefixes whose route leaves by the interface of that name.
    pub(super) fn prefixes_by(&self, dev: &Arc<str>) -> Vec<IpNet> {
        let all = self.by_device.range((Arc::clone(dev), least_prefix())..);
        all.take_while(|(name, _)| name == dev).map(|(_, prefix)| *prefix).collect()
    }

    /// The local route of a prefix; or why there is none, if an agent gives it.
    pub(super) fn route(&self, prefix: &IpNet, devices: &Devices) -> Option<Result<LocalRoute, String>> {
        let target = match self.routes.get(prefix)? {
            AgentRoute::Blackhole => Ok(LocalTarget::Blackhole),
            AgentRoute::Gateway(gateway) => Ok(LocalTarget::Gateway(*gateway)),
            AgentRoute::Device { dev, via } => hop(dev, *via, devices).map(|hop| LocalTarget::Via([hop].into())),
        };
        Some(target.map(|target| LocalRoute { target, metric: None }))
    }

    /// All prefixes.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = &IpNet> {
        self.routes.iter().map(|(prefix, _)| prefix)
    }
}

fn hop(dev: &Arc<str>, via: Option<IpAddr>, devices: &Devices) -> Result<KernelHop, String> {
    let Some(interface) = devices.index_of(dev) else { return Err(format!("there is no interface {dev}")) };
    if !devices.links.get(&interface).is_some_and(|link| link.up) {
        return Err(format!("interface {dev} is not up"));
    }
    let hop = KernelHop { gateway: via, interface, onlink: false };
    match via {
        Some(gateway) if !devices.reaches(&hop, gateway) => Err(format!("{gateway} is on no network of interface {dev}")),
        _ => Ok(hop),
    }
}
