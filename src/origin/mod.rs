//! Origin machine: what this node itself announces.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;
use smallvec::SmallVec;

use crate::config::OriginConfig;
use crate::fib::{KernelEvent, KernelHop};
use crate::policy::RouteSource;
use crate::types::Sync;

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
}

/// What the Origin machine says: to every shard that owns the prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A word about the local routes. `End` is said only when configuration, links, addresses and routes are all in sync (G3).
    Local(Sync<LocalKey, LocalRoute>),
}
