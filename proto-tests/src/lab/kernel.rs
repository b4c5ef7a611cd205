//! What the kernel of a node holds, as `ip -j route` tells.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::{Node, process};

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRoute {
    /// The destination, always with its length: `10.244.1.5/32`, `0.0.0.0/0`.
    pub prefix: String,
    /// `unicast`, `blackhole`, `unreachable`, …
    pub kind: String,
    /// The protocol's name or number: `bird` is 12.
    pub protocol: String,
    /// The metric; 0 when there is none.
    pub metric: u32,
    /// The gateways, sorted.
    pub gateways: BTreeSet<IpAddr>,
    /// The interfaces, sorted.
    pub devices: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    dst: String,
    #[serde(default)]
    protocol: String,
    #[serde(default)]
    metric: u32,
    gateway: Option<IpAddr>,
    via: Option<Via>,
    dev: Option<String>,
    #[serde(default)]
    nexthops: Vec<Hop>,
}

#[derive(Deserialize)]
struct Hop {
    gateway: Option<IpAddr>,
    via: Option<Via>,
    dev: Option<String>,
}

#[derive(Deserialize)]
struct Via {
    host: IpAddr,
}

impl Node<'_> {
    /// The routes of the main table, both families; IPv6 link-local and multicast ones left out.
    pub fn kernel_routes(&self) -> Result<Vec<KernelRoute>> {
        let mut routes = Vec::new();
        for (family, everything) in [("-4", "0.0.0.0/0"), ("-6", "::/0")] {
            let text = self.exec(&format!("ip -j {family} -d route show table main"))?;
            let raw: Vec<Raw> = serde_json::from_str(if text.trim().is_empty() { "[]" } else { &text }).with_context(|| text.clone())?;
            routes.extend(raw.into_iter().map(|route| route.resolve(everything)));
        }
        routes.retain(|route| !route.prefix.starts_with("fe80:") && !route.prefix.starts_with("ff00:"));
        Ok(routes)
    }

    /// The kernel's routes to exactly `prefix`.
    pub fn kernel_routes_to(&self, prefix: &str) -> Result<Vec<KernelRoute>> {
        Ok(self.kernel_routes()?.into_iter().filter(|route| route.prefix == prefix).collect())
    }
}

impl KernelRoute {
    /// Whether it is what `wanted` says: `via GATEWAY…` (all of them), `through INTERFACE…` (whatever the
    /// gateway), `dev INTERFACE` (without a gateway), or a type such as `blackhole`.
    pub fn looks_like(&self, wanted: &str) -> Result<bool> {
        match wanted.split_once(' ') {
            None => Ok(self.kind == wanted),
            Some(("through", devices)) => Ok(self.devices.iter().map(String::as_str).eq(devices.split_whitespace())),
            Some(("dev", device)) => Ok(self.gateways.is_empty() && self.devices.iter().eq([device])),
            Some(("via", gateways)) => {
                let gateways: Result<BTreeSet<IpAddr>, _> = gateways.split_whitespace().map(str::parse).collect();
                Ok(self.gateways == gateways.with_context(|| format!("`{wanted}`"))?)
            }
            Some(_) => bail!("`{wanted}`: write via GATEWAY…, through INTERFACE…, dev INTERFACE, a route type, or absent"),
        }
    }
}

impl Raw {
    fn resolve(self, everything: &str) -> KernelRoute {
        let prefix = match self.dst {
            dst if dst == "default" => everything.to_owned(),
            dst if dst.contains('/') => dst,
            dst if dst.contains(':') => format!("{dst}/128"),
            dst => format!("{dst}/32"),
        };
        let mut hops = self.nexthops;
        hops.push(Hop { gateway: self.gateway, via: self.via, dev: self.dev });
        KernelRoute {
            prefix,
            kind: self.kind.unwrap_or_else(|| "unicast".to_owned()),
            protocol: self.protocol,
            metric: self.metric,
            gateways: hops.iter().filter_map(|hop| hop.gateway.or(hop.via.as_ref().map(|via| via.host))).collect(),
            devices: hops.iter().filter_map(|hop| hop.dev.clone()).collect(),
        }
    }
}

impl fmt::Display for KernelRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.prefix)?;
        self.gateways.iter().try_for_each(|gateway| write!(f, " via {gateway}"))?;
        self.devices.iter().try_for_each(|device| write!(f, " dev {device}"))?;
        write!(f, " proto {} metric {}", self.protocol, self.metric)
    }
}

/// Every change of a node's routes since the watch began.
#[derive(Debug)]
pub struct RouteWatch {
    child: Child,
    output: PathBuf,
}

impl Node<'_> {
    /// The kernel has one route to `prefix`, and it looks as `wanted` (see [`KernelRoute::looks_like`]); or `absent`, and there is none.
    pub fn has_route(&self, prefix: &str, wanted: &str) -> Result<()> {
        let routes = self.kernel_routes_to(prefix)?;
        let right = match &routes[..] {
            [] => wanted == "absent",
            [route] => wanted != "absent" && route.looks_like(wanted)?,
            _ => false,
        };
        anyhow::ensure!(right, "{}: wanted {prefix} {wanted}, found {routes:?}", self.name());
        Ok(())
    }

    /// Begins to watch the changes of routes.
    pub fn watch_routes(&self) -> Result<RouteWatch> {
        let output = self.logs().join(format!("routes-{}.log", self.name()));
        let mut command = self.background(&["stdbuf", "-oL", "ip", "-ts", "monitor", "route"])?;
        let child = command.stdin(Stdio::null()).stdout(File::create(&output)?).stderr(Stdio::null()).spawn()?;
        let watch = RouteWatch { child, output };
        // A route of no consequence shows that the watch is on.
        process::wait_until(Duration::from_secs(5), "the watch sees a change", || {
            self.exec("ip route replace blackhole 198.18.0.0/32 proto static")?;
            self.exec("ip route del blackhole 198.18.0.0/32 proto static")?;
            anyhow::ensure!(!std::fs::read(&watch.output)?.is_empty(), "nothing seen");
            Ok(())
        })?;
        Ok(watch)
    }
}

impl RouteWatch {
    /// The routes that a BGP speaker (margay and BIRD write as `bird`, FRR as `bgp`) removed so far, a line each.
    ///
    /// FRR's zebra replaces an IPv6 route by a deletion and an addition in one go, less than a tenth of a millisecond apart, where
    /// the others have the kernel replace it: what is the very next thing to come back was not removed.
    pub fn removed(&self) -> Result<Vec<String>> {
        Ok(removed(&std::fs::read_to_string(&self.output)?))
    }
}

fn removed(text: &str) -> Vec<String> {
    // Next hops of a route are indented lines below it.
    let mut events = text.lines().filter(|line| line.starts_with('[')).peekable();
    let mut gone = Vec::new();
    while let Some(line) = events.next() {
        let Some((_, route)) = line.split_once("] Deleted ") else { continue };
        let replaced = route.contains("proto bgp")
            && events
                .peek()
                .and_then(|next| next.split_once("] "))
                .is_some_and(|(_, next)| next.split(' ').next() == route.split(' ').next());
        if !replaced && (route.contains("proto bird") || route.contains("proto bgp")) {
            gone.push(line.to_owned());
        }
    }
    gone
}

impl Drop for RouteWatch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_zebra_replaces_is_not_removed() {
        let replaced = "[t] Deleted fd00:1::/122 nhid 29 proto bgp metric 20 pref medium\n\tnexthop via fd00::1 dev br0 weight 1\n\
                        [t] fd00:1::/122 nhid 29 proto bgp metric 20 pref medium\n\tnexthop via fd00::1 dev br0 weight 1\n";
        let gone = "[t] Deleted fd00:1::/122 nhid 29 proto bgp metric 20\n[t] fd00:2::/122 nhid 29 proto bgp metric 20\n\
                    [t] Deleted 10.1.0.0/26 via 172.20.0.1 dev eth0 proto bird\n[t] 10.1.0.0/26 via 172.20.0.1 dev eth0 proto bird\n\
                    [t] Deleted blackhole 198.18.0.0 proto static\n";
        assert_eq!(super::removed(replaced), Vec::<String>::new());
        assert_eq!(super::removed(gone).len(), 2);
    }
}
