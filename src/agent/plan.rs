//! What is to be done for one workload: what is wanted compared with what there is. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::resources::Workload;
use crate::fib::{KernelHop, KernelRoute, RouteKey, RouteType};
use crate::kernel::plumbing::{Interface, Neighbour};

/// The MAC of our end, of every workload.
pub const MAC: [u8; 6] = [0xee; 6];
/// The router that every workload sees.
const ROUTER_4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The same for IPv6: the link-local address that the MAC gives to this end of the link.
const ROUTER_6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);
/// `RTPROT_BOOT`, as Calico's CNI plugin writes its routes.
const PROTOCOL: u8 = 3;
const TABLE_MAIN: u32 = 254;
const SCOPE_LINK: u8 = 253;
/// What IPv6 stores for a route without a metric.
const IPV6_METRIC: u32 = 1024;
const LOOPBACK: &str = "lo";

/// What there is of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actual {
    /// Our end.
    pub host: Option<Interface>,
    /// Routes here that leave by it, but the kernel's own.
    pub host_routes: Vec<KernelRoute>,
    /// Its interface in the namespace.
    pub inside: Option<Interface>,
    /// The namespace's loopback.
    pub loopback: Option<Interface>,
    /// Its addresses there, but link-local ones.
    pub inside_addresses: Vec<IpNet>,
    /// Routes in the namespace that leave by it, but the kernel's own.
    pub inside_routes: Vec<KernelRoute>,
    /// Neighbours of it that are there for good.
    pub inside_neighbours: Vec<Neighbour>,
    /// Sysctls here by path below `/proc/sys`; those that are missing have none.
    pub sysctls: BTreeMap<String, String>,
    /// Those in the namespace.
    pub inside_sysctls: BTreeMap<String, String>,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the pair.
    Create,
    /// Remove our end, and the other one with it.
    Delete(u32),
    /// Set our end's `ifalias`.
    Alias(u32, String),
    /// Set a sysctl here.
    Sysctl(String, &'static str),
    /// Set a sysctl in the namespace.
    InsideSysctl(String, &'static str),
    /// Set our end up.
    Up(u32),
    /// Set an interface of the namespace up.
    InsideUp(u32),
    /// Remove a route here.
    DropRoute(KernelRoute),
    /// Add a route here.
    AddRoute(KernelRoute),
    /// Remove an address in the namespace.
    DropAddress(u32, IpNet),
    /// Add an address in the namespace.
    AddAddress(u32, IpNet),
    /// Tell the namespace where its router is, for good: proxy ARP answers only where this host has a route to 169.254.1.1, such as a default route.
    Neighbour(Neighbour),
    /// Remove a route in the namespace.
    DropInside(KernelRoute),
    /// Add a route in the namespace.
    AddInside(KernelRoute),
}

/// Sysctls that a workload needs here.
pub fn sysctls(workload: &Workload) -> Vec<(String, &'static str)> {
    let link = workload.link();
    let mut wanted = vec![("net/ipv4/ip_forward".to_owned(), "1")];
    for (name, value) in [("proxy_arp", "1"), ("rp_filter", "1"), ("forwarding", "1")] {
        wanted.push((format!("net/ipv4/conf/{link}/{name}"), value));
    }
    wanted.push((format!("net/ipv4/neigh/{link}/proxy_delay"), "0"));
    if workload.has_ipv6() {
        wanted.push(("net/ipv6/conf/all/forwarding".to_owned(), "1"));
        // Before it is up: the router's address is there at once, made of the MAC.
        for (name, value) in [
            ("disable_ipv6", "0"),
            ("addr_gen_mode", "0"),
            ("accept_dad", "0"),
            ("accept_ra", "0"),
            ("forwarding", "1"),
            ("proxy_ndp", "1"),
        ] {
            wanted.push((format!("net/ipv6/conf/{link}/{name}"), value));
        }
    }
    wanted
}

/// Sysctls that it needs in its namespace.
pub fn inside_sysctls(workload: &Workload) -> Vec<(String, &'static str)> {
    let name = |name: &str| format!("net/ipv6/conf/{}/{name}", workload.interface);
    if workload.has_ipv6() { vec![(name("disable_ipv6"), "0"), (name("accept_ra"), "0")] } else { Vec::new() }
}

/// The next steps; none: everything is as it should be. A pair is made or removed by itself, and what follows is planned from what is
/// there then. The error is in the way, and has to be removed by whoever made it.
pub fn plan(workload: &Workload, alias: &str, actual: &Actual) -> Result<Vec<Step>, String> {
    let Actual { host, inside, .. } = actual;
    let (host, inside) = match (host, inside) {
        (None, None) => return Ok(vec![Step::Create]),
        (None, Some(_)) => {
            return Err(format!("{} has an interface {} already that is not ours", workload.namespace.display(), workload.interface));
        }
        (Some(host), inside) => match inside.as_ref().filter(|inside| inside.peer == Some(host.index) && host.peer == Some(inside.index)) {
            Some(inside) => (host, inside),
            // The namespace is another one than it was, or the interface there is named otherwise.
            None => return Ok(vec![Step::Delete(host.index)]),
        },
    };
    let mut steps = Vec::new();
    if host.alias != alias {
        steps.push(Step::Alias(host.index, alias.to_owned()));
    }
    let missing = |wanted: Vec<(String, &'static str)>, there: &BTreeMap<String, String>| -> Vec<(String, &'static str)> {
        wanted.into_iter().filter(|(path, value)| there.get(path).map(String::as_str) != Some(*value)).collect()
    };
    steps.extend(missing(sysctls(workload), &actual.sysctls).into_iter().map(|(path, value)| Step::Sysctl(path, value)));
    steps
        .extend(missing(inside_sysctls(workload), &actual.inside_sysctls).into_iter().map(|(path, value)| Step::InsideSysctl(path, value)));
    steps.extend(actual.loopback.iter().filter(|lo| !lo.up).map(|lo| Step::InsideUp(lo.index)));
    if !host.up {
        steps.push(Step::Up(host.index));
    }
    if !inside.up {
        steps.push(Step::InsideUp(inside.index));
    }
    let addresses: Vec<IpNet> = workload.addresses.iter().map(|address| IpNet::from(*address)).collect();
    difference(
        &actual.inside_addresses,
        &addresses,
        &mut steps,
        |net| Step::DropAddress(inside.index, net),
        |net| Step::AddAddress(inside.index, net),
    );
    if workload.addresses.iter().any(IpAddr::is_ipv4) {
        let router = (inside.index, IpAddr::V4(ROUTER_4), MAC.to_vec());
        if !actual.inside_neighbours.contains(&router) {
            steps.push(Step::Neighbour(router));
        }
    }
    let here: Vec<KernelRoute> = addresses.iter().map(|prefix| route(*prefix, host.index, None)).collect();
    difference(&actual.host_routes, &here, &mut steps, Step::DropRoute, Step::AddRoute);
    difference(&actual.inside_routes, &way_out(workload, inside.index), &mut steps, Step::DropInside, Step::AddInside);
    Ok(steps)
}

/// The routes of the namespace, the one to the router first.
fn way_out(workload: &Workload, interface: u32) -> Vec<KernelRoute> {
    let mut routes = Vec::new();
    for (router, any) in [(IpAddr::V4(ROUTER_4), IpAddr::V4(Ipv4Addr::UNSPECIFIED)), (ROUTER_6.into(), Ipv6Addr::UNSPECIFIED.into())] {
        if workload.addresses.iter().any(|address| address.is_ipv4() == router.is_ipv4()) {
            routes.push(route(IpNet::from(router), interface, None));
            routes.extend(IpNet::new(any, 0).map(|all| route(all, interface, Some(router))));
        }
    }
    routes
}

fn route(prefix: IpNet, interface: u32, gateway: Option<IpAddr>) -> KernelRoute {
    let ipv4 = prefix.addr().is_ipv4();
    KernelRoute {
        key: RouteKey { table: TABLE_MAIN, prefix, metric: if ipv4 { 0 } else { IPV6_METRIC }, tos: 0 },
        protocol: PROTOCOL,
        kind: RouteType::Unicast,
        scope: if ipv4 && gateway.is_none() { SCOPE_LINK } else { 0 },
        hops: [KernelHop { gateway, interface, onlink: false }].into(),
        preferred_source: None,
        object: None,
    }
}

/// Removals first: what is in the way goes before its successor comes.
fn difference<T: PartialEq + Clone>(there: &[T], wanted: &[T], steps: &mut Vec<Step>, drop: impl Fn(T) -> Step, add: impl Fn(T) -> Step) {
    steps.extend(there.iter().filter(|item| !wanted.contains(item)).cloned().map(drop));
    steps.extend(wanted.iter().filter(|item| !there.contains(item)).cloned().map(add));
}

/// Whether an interface is a namespace's loopback.
pub fn is_loopback(interface: &Interface) -> bool {
    interface.name == LOOPBACK
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(addresses: &[&str]) -> Workload {
        Workload::new("web", "web", addresses.iter().map(|address| address.parse().unwrap()).collect(), None, None).unwrap()
    }

    /// Carries out a step on a model of the kernel.
    fn apply(workload: &Workload, step: Step, actual: &mut Actual) {
        let flip = |routes: &mut Vec<KernelRoute>, route: KernelRoute, there: bool| {
            routes.retain(|other| *other != route);
            if there {
                routes.push(route);
            }
        };
        match step {
            Step::Create => {
                actual.host = Some(Interface { index: 7, peer: Some(2), name: workload.link(), ..Interface::default() });
                actual.inside = Some(Interface { index: 2, peer: Some(7), name: "eth0".into(), ..Interface::default() });
            }
            Step::Delete(_) => *actual = Actual { loopback: actual.loopback.clone(), ..Actual::default() },
            Step::Alias(_, alias) => actual.host.as_mut().unwrap().alias = alias,
            Step::Sysctl(path, value) => drop(actual.sysctls.insert(path, value.into())),
            Step::InsideSysctl(path, value) => drop(actual.inside_sysctls.insert(path, value.into())),
            Step::Up(_) => actual.host.as_mut().unwrap().up = true,
            Step::InsideUp(1) => actual.loopback.as_mut().unwrap().up = true,
            Step::InsideUp(_) => actual.inside.as_mut().unwrap().up = true,
            Step::DropRoute(route) => flip(&mut actual.host_routes, route, false),
            Step::AddRoute(route) => flip(&mut actual.host_routes, route, true),
            Step::DropInside(route) => flip(&mut actual.inside_routes, route, false),
            Step::AddInside(route) => flip(&mut actual.inside_routes, route, true),
            Step::Neighbour(neighbour) => actual.inside_neighbours.push(neighbour),
            Step::DropAddress(_, net) => actual.inside_addresses.retain(|other| *other != net),
            Step::AddAddress(_, net) => actual.inside_addresses.push(net),
        }
    }

    fn empty() -> Actual {
        Actual { loopback: Some(Interface { index: 1, name: "lo".into(), ..Interface::default() }), ..Actual::default() }
    }

    /// Plans and carries out until nothing is left, but dies after `steps` steps.
    fn run(workload: &Workload, actual: &mut Actual, mut steps: usize) -> usize {
        let mut done = 0;
        loop {
            let planned = plan(workload, "alias", actual).unwrap();
            if planned.is_empty() {
                return done;
            }
            for step in planned {
                if steps == 0 {
                    return done;
                }
                steps -= 1;
                done += 1;
                apply(workload, step, actual);
            }
        }
    }

    #[test]
    fn wherever_it_is_killed_it_ends_in_the_same_state_and_then_writes_nothing() {
        let workload = workload(&["10.1.0.0", "10.1.0.255", "fd00::5"]);
        let mut whole = empty();
        let all = run(&workload, &mut whole, usize::MAX);
        assert!(all > 20, "{all}");
        for killed in 0..all {
            let mut actual = empty();
            run(&workload, &mut actual, killed);
            run(&workload, &mut actual, usize::MAX);
            assert_eq!(actual, whole, "killed after {killed} steps");
            assert_eq!(run(&workload, &mut actual, usize::MAX), 0);
        }
    }

    #[test]
    fn what_changes_is_removed_before_its_successor_comes() {
        let mut actual = empty();
        run(&workload(&["10.1.0.1", "fd00::5"]), &mut actual, usize::MAX);
        let steps = plan(&workload(&["10.1.0.2"]), "alias", &actual).unwrap();
        let words: Vec<String> = steps.iter().map(|step| format!("{step:?}").split('(').next().unwrap_or_default().to_owned()).collect();
        let expected = "DropAddress DropAddress AddAddress DropRoute DropRoute AddRoute DropInside DropInside";
        assert_eq!(words.join(" "), expected);
    }

    #[test]
    fn a_strangers_interface_is_left_alone_and_an_old_pair_goes() {
        let workload = workload(&["10.1.0.1"]);
        let stranger = Interface { index: 2, name: "eth0".into(), ..Interface::default() };
        let actual = Actual { inside: Some(stranger.clone()), ..empty() };
        assert!(plan(&workload, "alias", &actual).unwrap_err().contains("not ours"));
        let host = Interface { index: 7, peer: Some(2), ..Interface::default() };
        assert_eq!(plan(&workload, "alias", &Actual { host: Some(host.clone()), ..actual }), Ok(vec![Step::Delete(7)]));
        assert_eq!(plan(&workload, "alias", &Actual { host: Some(host), ..empty() }), Ok(vec![Step::Delete(7)]));
    }
}
