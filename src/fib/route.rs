//! What becomes of a best route: the kernel route to write, or why there is to be none (Calico's kernel programming rules).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use smallvec::SmallVec;

use super::interface::Interfaces;
use super::{BestRoute, Hop, KernelHop, KernelRoute, RouteKey, RouteType, Target};
use crate::config::{FibAction, FibConfig};
use crate::policy::RouteSource;

/// The metric of BGP-learned routes is this less LOCAL_PREF (Calico's `ipv4NormalRoutePriority` encoding).
const METRIC_BASE: u32 = 2_147_483_647;
/// What IPv6 stores for a route without a metric.
const IPV6_DEFAULT_METRIC: u32 = 1024;
/// LOCAL_PREF of a route that carries none.
const DEFAULT_LOCAL_PREF: u32 = 100;
/// RT_SCOPE_LINK: the prefix itself is on the link.
const SCOPE_LINK: u8 = 253;

/// All of a kernel route but its prefix, table and protocol. Few differ, so they are shared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    pub metric: u32,
    pub kind: RouteType,
    pub scope: u8,
    /// Sorted.
    pub hops: SmallVec<[KernelHop; 1]>,
    pub preferred_source: Option<IpAddr>,
    /// The next-hop object that the kernel's route goes by; none in what is wanted.
    pub object: Option<u32>,
}

impl Shape {
    /// The shape of a route as read.
    pub(super) fn of(route: KernelRoute) -> Self {
        let KernelRoute { key, kind, scope, hops, preferred_source, object, .. } = route;
        Self { metric: key.metric, kind, scope, hops, preferred_source, object }
    }

    /// Whether packets are treated the same, by whatever object.
    pub(super) fn does_as(&self, other: &Self) -> bool {
        self.is_alike(other) && self.hops == other.hops
    }

    /// The same, but for the hops.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        let rest = |shape: &Self| (shape.metric, shape.kind, shape.scope, shape.preferred_source);
        rest(self) == rest(other)
    }

    /// The route of that prefix, to be written.
    pub(super) fn route(&self, config: &FibConfig, prefix: IpNet) -> KernelRoute {
        KernelRoute {
            key: RouteKey { table: config.table, prefix, metric: self.metric, tos: 0 },
            protocol: config.protocol,
            kind: self.kind,
            scope: self.scope,
            hops: self.hops.clone(),
            preferred_source: self.preferred_source,
            object: self.object,
        }
    }
}

/// What is to be in the kernel for a best route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// This.
    Want(Shape),
    /// Nothing, because.
    NotWanted(Reason),
}

/// Why a best route is not written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// Its source has it in the kernel already.
    OwnSource(RouteSource),
    /// A rule says so; its name.
    Rule(Arc<str>),
    /// Its next hop is a node that WireGuard reaches.
    WireGuard(IpAddr),
    /// The best route names no hop that can be used.
    NoHop,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnSource(RouteSource::Device) => f.write_str("the kernel has it already, as the subnet of an interface"),
            Self::OwnSource(_) => f.write_str("it was learned from the kernel"),
            Self::Rule(name) => write!(f, "kept out by {name}"),
            Self::WireGuard(node) => write!(f, "{node} is reached by WireGuard, Felix routes to it"),
            Self::NoHop => f.write_str("no next hop can be used"),
        }
    }
}

/// Applies the rules of `config` to the best route of `prefix`.
pub(super) fn judge(config: &FibConfig, interfaces: &Interfaces, prefix: IpNet, best: &BestRoute) -> Verdict {
    if matches!(best.source, RouteSource::Device | RouteSource::Kernel) {
        return Verdict::NotWanted(Reason::OwnSource(best.source));
    }
    if let Some(node) = encrypted(config, best) {
        return Verdict::NotWanted(Reason::WireGuard(node));
    }
    // The rules say how packets get to other nodes and what of this node is announced only; a workload of this node is always reached.
    let rules = if best.source == RouteSource::Agent { &[][..] } else { &config.rules[..] };
    let rule = rules.iter().find(|rule| rule.cidr.contains(&prefix) && (best.source.is_bgp() || !rule.learned_only));
    let tunnel = match rule.map(|rule| (&rule.action, &rule.name)) {
        Some((FibAction::Skip, name)) => return Verdict::NotWanted(Reason::Rule(Arc::clone(name))),
        Some((FibAction::Tunnel { device, unless_in }, _)) => {
            interfaces.index_of(device).map(|interface| Tunnel { interface, unless_in: *unless_in })
        }
        Some((FibAction::Plain, _)) | None => None,
    };
    let metric = metric(prefix, best);
    let shape = |kind, scope, hops| Verdict::Want(Shape { metric, kind, scope, hops, preferred_source: None, object: None });
    match &best.target {
        Target::Blackhole => shape(RouteType::Blackhole, 0, SmallVec::new()),
        Target::Unreachable => shape(RouteType::Unreachable, 0, SmallVec::new()),
        Target::Via(hops) => {
            let hops = kernel_hops(prefix, hops, tunnel.as_ref());
            if hops.is_empty() {
                return Verdict::NotWanted(Reason::NoHop);
            }
            let on_link = hops.iter().all(|hop| hop.gateway.is_none());
            // IPv6 knows no scope of routes and reads back 0.
            let scope = if on_link && matches!(prefix, IpNet::V4(_)) { SCOPE_LINK } else { 0 };
            shape(RouteType::Unicast, scope, hops)
        }
    }
}

/// The node behind a BGP-learned route, if WireGuard reaches it.
fn encrypted(config: &FibConfig, best: &BestRoute) -> Option<IpAddr> {
    match &best.target {
        Target::Via(hops) if best.source.is_bgp() => {
            hops.iter().map(|hop| hop.next_hop.address()).find(|node| config.wireguard.contains(node))
        }
        _ => None,
    }
}

fn metric(prefix: IpNet, best: &BestRoute) -> u32 {
    let metric = if best.source.is_bgp() { METRIC_BASE.saturating_sub(best.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)) } else { 0 };
    if metric == 0 && matches!(prefix, IpNet::V6(_)) { IPV6_DEFAULT_METRIC } else { metric }
}

/// A tunnel device that exists.
struct Tunnel {
    interface: u32,
    unless_in: Option<IpNet>,
}

/// Each hop gets its own tunnel decision; sorted and without doubles, as the kernel's are read.
fn kernel_hops(prefix: IpNet, hops: &[Hop], tunnel: Option<&Tunnel>) -> SmallVec<[KernelHop; 1]> {
    let mut result: SmallVec<[KernelHop; 1]> = hops.iter().map(|hop| kernel_hop(prefix, hop, tunnel)).collect();
    result.sort_unstable();
    result.dedup();
    if result.len() > 1 && matches!(prefix, IpNet::V6(_)) && result.iter().any(|hop| hop.gateway.is_some()) {
        // An IPv6 hop without gateway cannot be one of several: the kernel would make it a route of its own.
        result.retain(|hop| hop.gateway.is_some());
    }
    result
}

fn kernel_hop(prefix: IpNet, hop: &Hop, tunnel: Option<&Tunnel>) -> KernelHop {
    let remote = hop.next_hop.address();
    let same_family = remote.is_ipv4() == prefix.addr().is_ipv4();
    match tunnel {
        Some(tunnel) if same_family && !tunnel.unless_in.is_some_and(|subnet| subnet.contains(&remote)) => {
            KernelHop { gateway: Some(remote), interface: tunnel.interface, onlink: true }
        }
        _ => KernelHop { gateway: hop.gateway, interface: hop.interface, onlink: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FibRule;
    use crate::fib::Link;
    use crate::types::{NextHop, Sync};

    fn hop(next_hop: &str, gateway: &str, interface: u32) -> Hop {
        let gateway = (!gateway.is_empty()).then(|| gateway.parse().unwrap());
        Hop { next_hop: NextHop::Global(next_hop.parse().unwrap()), gateway, interface }
    }

    fn best(source: RouteSource, local_pref: Option<u32>, target: Target) -> BestRoute {
        BestRoute { source, local_pref, target }
    }

    fn via(hops: &[Hop]) -> Target {
        Target::Via(hops.iter().cloned().collect())
    }

    fn rule(cidr: &str, learned_only: bool, action: FibAction) -> FibRule {
        FibRule { cidr: cidr.parse().unwrap(), name: format!("rule {cidr}").into(), learned_only, action }
    }

    fn tunnel(device: &str, unless_in: Option<&str>) -> FibAction {
        FibAction::Tunnel { device: device.into(), unless_in: unless_in.map(|net| net.parse().unwrap()) }
    }

    fn config() -> FibConfig {
        let rules = vec![
            rule("10.96.0.0/12", true, FibAction::Skip),
            rule("10.245.0.0/17", false, tunnel("tunl0", Some("10.0.0.0/24"))),
            rule("10.245.0.0/16", false, tunnel("tunl0", None)),
            rule("10.246.0.0/16", false, FibAction::Skip),
            rule("10.244.0.0/16", false, FibAction::Plain),
            rule("10.0.0.0/8", false, tunnel("missing0", None)),
            rule("fd00::/8", false, tunnel("tunl0", None)),
        ];
        FibConfig { rules, wireguard: ["10.7.7.7".parse().unwrap()].into(), ..FibConfig::default() }
    }

    fn interfaces() -> Interfaces {
        let mut interfaces = Interfaces::default();
        interfaces.hear(Sync::Upsert(9, Link { name: "tunl0".into(), up: false }));
        interfaces
    }

    /// What is written, as `ip route` would say it.
    fn judged(prefix: &str, best: &BestRoute) -> String {
        match judge(&config(), &interfaces(), prefix.parse().unwrap(), best) {
            Verdict::NotWanted(reason) => format!("no: {reason}"),
            Verdict::Want(shape) => {
                let mut text = format!("{:?} scope {} metric {}", shape.kind, shape.scope, shape.metric).to_lowercase();
                for hop in &shape.hops {
                    let via = hop.gateway.map(|gateway| format!("via {gateway} ")).unwrap_or_default();
                    let onlink = if hop.onlink { " onlink" } else { "" };
                    text += &format!(", {via}dev {}{onlink}", hop.interface);
                }
                text
            }
        }
    }

    #[test]
    fn rules_of_kernel_programming() {
        use RouteSource::*;
        let near = || via(&[hop("10.0.0.2", "10.0.0.2", 2)]);
        let far = || via(&[hop("10.9.9.9", "10.0.0.254", 2)]);
        let encrypted = || via(&[hop("10.7.7.7", "10.0.0.254", 2)]);
        let both = || via(&[hop("10.9.9.9", "10.0.0.254", 2), hop("10.0.0.2", "10.0.0.2", 2)]);
        let normal = Some(METRIC_BASE - 1024);
        let rows: &[(&str, BestRoute, &str)] = &[
            // Sources that are there already.
            ("10.0.0.0/24", best(Device, None, near()), "no: the kernel has it already, as the subnet of an interface"),
            ("10.244.1.5/32", best(Kernel, None, near()), "no: it was learned from the kernel"),
            // Metric: learned from LOCAL_PREF, else none.
            ("192.0.2.0/24", best(Ibgp, normal, near()), "unicast scope 0 metric 1024, via 10.0.0.2 dev 2"),
            ("192.0.2.0/24", best(Ibgp, Some(METRIC_BASE - 512), near()), "unicast scope 0 metric 512, via 10.0.0.2 dev 2"),
            ("192.0.2.0/24", best(Ebgp, None, near()), "unicast scope 0 metric 2147483547, via 10.0.0.2 dev 2"),
            ("192.0.2.0/24", best(Ebgp, Some(u32::MAX), near()), "unicast scope 0 metric 0, via 10.0.0.2 dev 2"),
            ("192.0.2.1/32", best(Static, None, near()), "unicast scope 0 metric 0, via 10.0.0.2 dev 2"),
            ("2001:db8::1/128", best(Static, None, via(&[hop("fe80::1", "fe80::1", 2)])), "unicast scope 0 metric 1024, via fe80::1 dev 2"),
            // Skip, and its learned-only form.
            ("10.96.0.10/32", best(Ibgp, normal, near()), "no: kept out by rule 10.96.0.0/12"),
            ("10.96.0.0/12", best(Service, None, Target::Blackhole), "blackhole scope 0 metric 0"),
            ("10.246.1.0/26", best(Block, None, Target::Blackhole), "no: kept out by rule 10.246.0.0/16"),
            ("10.246.1.0/26", best(Ibgp, normal, far()), "no: kept out by rule 10.246.0.0/16"),
            // Nodes that WireGuard reaches.
            ("10.244.7.0/26", best(Ibgp, normal, encrypted()), "no: 10.7.7.7 is reached by WireGuard, Felix routes to it"),
            ("10.7.7.8/32", best(Static, None, encrypted()), "unicast scope 0 metric 0, via 10.0.0.254 dev 2"),
            // Plain.
            ("10.244.2.0/26", best(Ibgp, normal, far()), "unicast scope 0 metric 1024, via 10.0.0.254 dev 2"),
            ("10.244.1.0/26", best(Block, None, Target::Blackhole), "blackhole scope 0 metric 0"),
            ("10.244.3.0/26", best(Ibgp, normal, Target::Unreachable), "unreachable scope 0 metric 1024"),
            // Tunnels: the BGP next hop itself, on-link; CrossSubnet; a device that is missing; multipath hop by hop.
            ("10.245.200.0/26", best(Ibgp, normal, near()), "unicast scope 0 metric 1024, via 10.0.0.2 dev 9 onlink"),
            ("10.245.1.0/26", best(Ibgp, normal, near()), "unicast scope 0 metric 1024, via 10.0.0.2 dev 2"),
            ("10.245.1.0/26", best(Ibgp, normal, far()), "unicast scope 0 metric 1024, via 10.9.9.9 dev 9 onlink"),
            ("10.245.1.0/26", best(Ibgp, normal, both()), "unicast scope 0 metric 1024, via 10.0.0.2 dev 2, via 10.9.9.9 dev 9 onlink"),
            ("10.245.1.0/26", best(Ibgp, normal, Target::Unreachable), "unreachable scope 0 metric 1024"),
            ("10.245.1.0/26", best(Block, None, Target::Blackhole), "blackhole scope 0 metric 0"),
            ("10.7.0.0/16", best(Ibgp, normal, far()), "unicast scope 0 metric 1024, via 10.0.0.254 dev 2"),
            ("fd00::/64", best(Ibgp, normal, via(&[hop("10.9.9.9", "fe80::1", 2)])), "unicast scope 0 metric 1024, via fe80::1 dev 2"),
            // Shape of hops.
            ("192.0.2.9/32", best(Agent, None, via(&[hop("10.0.0.2", "", 7)])), "unicast scope 253 metric 0, dev 7"),
            ("10.245.200.9/32", best(Agent, None, via(&[hop("0.0.0.0", "", 7)])), "unicast scope 253 metric 0, dev 7"),
            ("10.246.1.9/32", best(Agent, None, via(&[hop("0.0.0.0", "", 7)])), "unicast scope 253 metric 0, dev 7"),
            ("2001:db8::9/128", best(Agent, None, via(&[hop("fe80::1", "", 7)])), "unicast scope 0 metric 1024, dev 7"),
            ("192.0.2.0/24", best(Ebgp, normal, via(&[hop("fe80::1", "fe80::1", 2)])), "unicast scope 0 metric 1024, via fe80::1 dev 2"),
            (
                "192.0.2.0/24",
                best(Ebgp, normal, via(&[hop("10.0.0.3", "10.0.0.3", 2), hop("10.0.0.2", "10.0.0.2", 2), hop("10.9.9.9", "10.0.0.3", 2)])),
                "unicast scope 0 metric 1024, via 10.0.0.2 dev 2, via 10.0.0.3 dev 2",
            ),
            ("192.0.2.0/24", best(Ebgp, normal, via(&[])), "no: no next hop can be used"),
        ];
        for (prefix, best, expected) in rows {
            assert_eq!(judged(prefix, best), *expected, "{prefix} {best:?}");
        }
    }
}
