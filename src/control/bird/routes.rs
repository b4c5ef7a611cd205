//! `show route`: rows as BIRD writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;

use super::clock::Clock;
use super::reply::{OK, Reply};
use super::request::RouteFilter;
use crate::policy::RouteSource;
use crate::rib::RouteRow;
use crate::types::{AsPath, Attributes, Origin, PeerId};

/// What rows are printed with.
#[derive(Debug)]
pub struct Printer {
    /// What is asked for.
    pub filter: RouteFilter,
    /// Peers: name, address, since when the session is up.
    pub peers: BTreeMap<PeerId, (String, IpAddr, Timestamp)>,
    /// Prefixes that the kernel did not take.
    pub failed: BTreeSet<IpNet>,
    /// When the process began.
    pub started: Timestamp,
    /// The time.
    pub clock: Clock,
    /// Routes and networks printed, and routes seen.
    pub counted: Counted,
}

/// See [`Printer::counted`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    shown: usize,
    networks: usize,
    seen: usize,
}

impl Printer {
    /// Prints rows, those of one prefix together; the best of each comes first.
    pub fn rows(&mut self, reply: &mut Reply, mut rows: Vec<RouteRow>) {
        for group in rows.chunk_by_mut(|a, b| a.prefix == b.prefix) {
            group.sort_by_key(|row| !row.best);
            self.network(reply, group);
        }
    }

    /// The last line.
    pub fn end(&self, reply: &mut Reply) {
        let Counted { shown, networks, seen } = self.counted;
        match self.filter.prefix {
            _ if self.filter.count => reply.end(14, format_args!("{shown} of {seen} routes for {networks} networks")),
            Some(_) if seen == 0 => reply.end(8001, "Network not in table"),
            _ => reply.end(OK, ""),
        }
    }

    fn network(&mut self, reply: &mut Reply, rows: &[RouteRow]) {
        let mut first = true;
        for row in rows {
            self.counted.seen += 1;
            if (self.filter.primary && !row.best) || self.filter.protocol.as_deref().is_some_and(|name| name != self.protocol(row)) {
                continue;
            }
            self.counted.shown += 1;
            self.counted.networks += usize::from(first);
            if !self.filter.count {
                self.row(reply, row, first);
            }
            first = false;
        }
    }

    fn row(&self, reply: &mut Reply, row: &RouteRow, first: bool) {
        let prefix = if first { row.prefix.to_string() } else { String::new() };
        let (name, from, since) = self.origin(row);
        let mark = match row.best {
            true if self.failed.contains(&row.prefix) => " !",
            true => " *",
            false => "",
        };
        let time = self.clock.short(since);
        reply.line(1007, format_args!("{prefix:<18} {} [{name} {time}{from}]{mark}{}", via(row), info(row)));
        if self.filter.all {
            details(reply, row);
        }
    }

    fn protocol(&self, row: &RouteRow) -> &str {
        match row.peer.and_then(|id| self.peers.get(&id)) {
            Some((name, ..)) => name,
            None => local_protocol(row.source),
        }
    }

    /// Protocol, ` from ADDRESS` where that is not the gateway, and since when.
    fn origin(&self, row: &RouteRow) -> (&str, String, Timestamp) {
        let Some((name, address, since)) = row.peer.and_then(|id| self.peers.get(&id)) else {
            return (self.protocol(row), String::new(), self.started);
        };
        let gateway = row.via.as_ref().and_then(|via| via.gateway);
        let from = if gateway == Some(*address) { String::new() } else { format!(" from {address}") };
        (name, from, *since)
    }
}

/// The protocol that a route without a peer would be of.
pub fn local_protocol(source: RouteSource) -> &'static str {
    match source {
        RouteSource::Device => "direct1",
        RouteSource::Block | RouteSource::Service | RouteSource::Static => "static1",
        RouteSource::Kernel | RouteSource::Agent => "kernel1",
        // Its peer has just been removed.
        RouteSource::Ebgp | RouteSource::Ibgp => "bgp1",
    }
}

fn via(row: &RouteRow) -> String {
    match &row.via {
        Some(via) => match via.gateway {
            Some(gateway) => format!("via {gateway} on {}", via.interface),
            None => format!("dev {}", via.interface),
        },
        None if row.source.is_bgp() || row.source == RouteSource::Static => "unreachable".to_owned(),
        None => "blackhole".to_owned(),
    }
}

fn info(row: &RouteRow) -> String {
    if !row.source.is_bgp() {
        return format!(" ({})", row.source.preference());
    }
    let metric = match row.metric {
        Some(metric) => metric.to_string(),
        None if row.via.is_some() => "?".to_owned(),
        None => "-".to_owned(),
    };
    let stale = if row.stale { "s" } else { "" };
    let attributes = &row.attributes;
    let origin = match attributes.origin {
        Origin::Igp => "i",
        Origin::Egp => "e",
        Origin::Incomplete => "?",
    };
    let last = last(&attributes.as_path).map(|asn| format!("AS{asn}")).unwrap_or_default();
    format!(" (100{stale}/{metric}) [{last}{origin}]")
}

/// The AS that the route began in.
fn last(path: &AsPath) -> Option<u32> {
    path.asns().last().map(|asn| asn.0)
}

/// The first word of a route's type.
pub fn kind(source: RouteSource) -> &'static str {
    match source {
        RouteSource::Device => "device",
        RouteSource::Block | RouteSource::Service | RouteSource::Static => "static",
        RouteSource::Kernel | RouteSource::Agent => "inherit",
        RouteSource::Ebgp | RouteSource::Ibgp => "BGP",
    }
}

fn details(reply: &mut Reply, row: &RouteRow) {
    reply.line(1008, format_args!("\tType: {} unicast univ", kind(row.source)));
    if row.source.is_bgp() {
        for (name, value) in bgp(&row.attributes) {
            reply.line(1012, format_args!("\tBGP.{name}: {value}"));
        }
    }
}

/// Path attributes by BIRD's names.
fn bgp(attributes: &Attributes) -> Vec<(&'static str, String)> {
    let origin = match attributes.origin {
        Origin::Igp => "IGP",
        Origin::Egp => "EGP",
        Origin::Incomplete => "Incomplete",
    };
    let mut list = vec![
        ("origin", origin.to_owned()),
        ("as_path", attributes.as_path.to_string()),
        ("next_hop", attributes.next_hop.address().to_string()),
    ];
    list.extend(attributes.med.map(|med| ("med", med.to_string())));
    list.extend(attributes.local_pref.map(|value| ("local_pref", value.to_string())));
    list.extend(attributes.atomic_aggregate.then(|| ("atomic_aggr", String::new())));
    let join = |items: Vec<String>| items.join(" ");
    let pairs = attributes.communities.iter().map(|c| format!("({},{})", c.0 >> 16, c.0 & 0xffff)).collect::<Vec<_>>();
    list.extend((!pairs.is_empty()).then(|| ("community", join(pairs))));
    list.extend(attributes.rare.originator_id.map(|id| ("originator_id", id.to_string())));
    let clusters = attributes.rare.cluster_list.iter().map(ToString::to_string).collect::<Vec<_>>();
    list.extend((!clusters.is_empty()).then(|| ("cluster_list", join(clusters))));
    let large = attributes.rare.large_communities.iter().map(|c| format!("({}, {}, {})", c.0, c.1, c.2)).collect::<Vec<_>>();
    list.extend((!large.is_empty()).then(|| ("large_community", join(large))));
    list
}
