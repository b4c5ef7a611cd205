//! Origin machine: what this node itself announces.
//!
//! ```text
//! NodeConfig ─→ configured: blocks, services, reachableBy ┐
//! kernel: links, addresses ─→ device: connected subnets   ├─→ what was said so far ─differences→ every shard
//! kernel: routes ──────────→ workload: learned routes     │
//! local agents ─→ agents ──→ agent: what they tell        ┘
//! ```
//!
//! Every fact is kept as it was told ([`Facts`]), and each local route is a function of the facts now: a change of a
//! fact derives the routes anew that depend on it, and only differences are said. The way to a state therefore
//! never shows in it, and a relist of the kernel costs the shards nothing.
//!
//! Local routes are said as they are found; `End` follows once, when configuration, links, addresses and routes have
//! all been told to their end.
//!
//! Prefixes that are multicast, loopback, link-local or otherwise no hosts' are refused from every source.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod agent;
pub mod agents;
mod configured;
mod device;
mod facts;
mod workload;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use serde::Serialize;
use smallvec::SmallVec;

pub use self::agent::AgentRoute;
use self::agent::AgentRoutes;
use self::device::Devices;
use self::facts::Facts;
use self::workload::KernelRoutes;

use crate::config::OriginConfig;
use crate::fib::{KernelEvent, KernelHop, KernelRoute, RouteKey};
use crate::policy::RouteSource;
use crate::types::{Outbox, Sync, is_martian};

/// What names a local route: one per source and prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct LocalKey {
    /// Where it comes from.
    pub source: RouteSource,
    /// The prefix.
    pub prefix: IpNet,
}

/// A route that this node has without BGP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LocalRoute {
    /// What to do with packets.
    pub target: LocalTarget,
    /// Kernel metric; none for device and static routes.
    pub metric: Option<u32>,
}

/// See [`LocalRoute`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum LocalTarget {
    /// Out of an interface or to gateways, as the kernel has it.
    Via(SmallVec<[KernelHop; 1]>),
    /// To a gateway that must be on-link (`reachableBy`); the shard resolves it.
    Gateway(IpAddr),
    /// Dropped: a block or a service range; or a blackhole, unreachable or prohibit route of the kernel.
    Blackhole,
}

/// What the Origin machine hears.
#[derive(Clone, Debug)]
pub enum Input {
    /// New configuration.
    Configure(Arc<OriginConfig>),
    /// The kernel's facts: links, addresses, routes.
    Kernel(KernelEvent),
    /// What the local agents tell, merged.
    Agents(Vec<Sync<IpNet, AgentRoute>>),
}

/// What the Origin machine says: to every shard that owns the prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A word about the local routes. `End` is said only when configuration, links, addresses and routes are all in sync (G3).
    Local(Sync<LocalKey, LocalRoute>),
}

/// The Origin machine. It has no timers.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    config: Option<Arc<OriginConfig>>,
    devices: Devices,
    kernel: KernelRoutes,
    agents: AgentRoutes,
    /// What the shards have been told.
    said: BTreeMap<LocalKey, LocalRoute>,
    begun: bool,
    ended: bool,
}

impl Origin {
    /// A machine that knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes an input and says what changes by it.
    pub fn handle(&mut self, _now: Instant, input: Input, out: &mut Outbox<Output>) {
        if !self.begun {
            self.begun = true;
            out.push(Output::Local(Sync::Begin));
        }
        match input {
            Input::Configure(config) => self.configure(config, out),
            Input::Kernel(KernelEvent::Link(word)) => {
                for (interface, before) in self.devices.links.hear(word) {
                    let names = self.devices.link_changed(interface, before);
                    self.interface_changed(interface, out);
                    names.iter().for_each(|name| self.derive_agent_routes_by(name, out));
                }
            }
            Input::Kernel(KernelEvent::Address(word)) => {
                for (key, _) in self.devices.addresses.hear(word) {
                    let subnet = self.devices.address_changed(key);
                    self.derive_device(subnet, out);
                    self.derive_kernel_routes_of(key.0, out);
                    if let Some(name) = self.devices.links.get(&key.0).map(|link| Arc::clone(&link.name)) {
                        self.derive_agent_routes_by(&name, out);
                    }
                }
            }
            Input::Kernel(KernelEvent::Route(word)) => {
                let word = self.learnable(word);
                for (key, before) in self.kernel.routes.hear(word) {
                    self.kernel.route_changed(&key, before);
                    self.derive_kernel_route(key.prefix, out);
                }
            }
            Input::Kernel(KernelEvent::Written { .. } | KernelEvent::Flushed { .. } | KernelEvent::Object(_)) => {}
            Input::Agents(words) => {
                for word in words {
                    for (prefix, _) in self.agents.hear(word) {
                        self.derive_agent_route(prefix, out);
                    }
                }
            }
        }
        self.end(out);
    }

    /// Never: the machine only answers.
    pub fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Nothing to do.
    pub fn on_deadline(&mut self, _now: Instant, _out: &mut Outbox<Output>) {}

    /// What comes from the configuration alone is compared as a whole; what comes of the kernel's facts is derived anew only
    /// where the configuration has a say in it, so that a Service that changes costs a comparison.
    fn configure(&mut self, config: Arc<OriginConfig>, out: &mut Outbox<Output>) {
        let before = self.config.replace(Arc::clone(&config));
        let same = |part: fn(&OriginConfig, &OriginConfig) -> bool| before.as_ref().is_some_and(|before| part(before, &config));
        if !same(|a, b| a.protocol == b.protocol) {
            let prefixes = self.kernel.prefixes();
            self.kernel.forget_own(config.protocol);
            for prefix in prefixes {
                self.derive_kernel_route(prefix, out);
            }
        }
        if !same(|a, b| a.ignored_interfaces == b.ignored_interfaces) {
            for subnet in self.devices.subnets() {
                self.derive_device(subnet, out);
            }
        }
        let wanted = configured::routes(&config);
        let ours = |source| matches!(source, RouteSource::Block | RouteSource::Service | RouteSource::Static);
        let gone: Vec<_> = self.said.keys().filter(|key| ours(key.source) && !wanted.contains_key(key)).copied().collect();
        for key in gone {
            self.say(key, None, out);
        }
        for (key, route) in wanted {
            self.say(key, Some(route), out);
        }
    }

    fn interface_changed(&mut self, interface: u32, out: &mut Outbox<Output>) {
        for subnet in self.devices.subnets_of(interface) {
            self.derive_device(subnet, out);
        }
        self.derive_kernel_routes_of(interface, out);
    }

    fn derive_device(&mut self, subnet: IpNet, out: &mut Outbox<Output>) {
        let Some(config) = &self.config else { return };
        let route = self.devices.route(subnet, &config.ignored_interfaces);
        self.say(LocalKey { source: RouteSource::Device, prefix: subnet }, route, out);
    }

    fn derive_kernel_routes_of(&mut self, interface: u32, out: &mut Outbox<Output>) {
        for prefix in self.kernel.prefixes_via(interface) {
            self.derive_kernel_route(prefix, out);
        }
    }

    fn derive_kernel_route(&mut self, prefix: IpNet, out: &mut Outbox<Output>) {
        if self.config.is_some() {
            let route = self.kernel.route(prefix, &self.devices);
            self.say(LocalKey { source: RouteSource::Kernel, prefix }, route, out);
        }
    }

    fn derive_agent_routes_by(&mut self, name: &Arc<str>, out: &mut Outbox<Output>) {
        for prefix in self.agents.prefixes_by(name) {
            self.derive_agent_route(prefix, out);
        }
    }

    fn derive_agent_route(&mut self, prefix: IpNet, out: &mut Outbox<Output>) {
        let route = self.agents.route(&prefix, &self.devices).and_then(Result::ok);
        self.say(LocalKey { source: RouteSource::Agent, prefix }, route, out);
    }

    /// Routes of agents that do not count yet, each with what it waits for; all of them, or that of one prefix.
    pub fn waiting(&self, prefix: Option<IpNet>) -> Vec<(IpNet, String)> {
        let why = |prefix: &IpNet| Some((*prefix, self.agents.route(prefix, &self.devices)?.err()?));
        match prefix {
            Some(prefix) => why(&prefix).into_iter().collect(),
            None => self.agents.prefixes().filter_map(why).collect(),
        }
    }

    /// A route that is never learned is as good as none; not keeping them matters where we wrote a million ourselves.
    fn learnable(&self, word: Sync<RouteKey, KernelRoute>) -> Sync<RouteKey, KernelRoute> {
        let own = self.config.as_ref().map_or(u8::MAX, |config| config.protocol);
        match word {
            Sync::Upsert(key, route) if !workload::is_kept(&route, own) => Sync::Remove(key),
            word => word,
        }
    }

    fn say(&mut self, key: LocalKey, route: Option<LocalRoute>, out: &mut Outbox<Output>) {
        match route.filter(|_| !is_martian(&key.prefix)) {
            Some(route) if self.said.get(&key) != Some(&route) => {
                self.said.insert(key, route.clone());
                out.push(Output::Local(Sync::Upsert(key, route)));
            }
            Some(_) => {}
            None if self.said.remove(&key).is_some() => out.push(Output::Local(Sync::Remove(key))),
            None => {}
        }
    }

    fn end(&mut self, out: &mut Outbox<Output>) {
        let told = self.config.is_some() && self.devices.links.told() && self.devices.addresses.told() && self.kernel.routes.told();
        if told && !self.ended {
            self.ended = true;
            out.push(Output::Local(Sync::End));
        }
    }
}

#[cfg(test)]
mod tests;
