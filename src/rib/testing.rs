//! A shard with its surroundings, so that tests read as stories.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use smallvec::SmallVec;

use super::{Advertisement, Answer, Candidate, Input, MonitorId, Monitored, Output, Query, RibConfig, RouteRow, Shard};
use crate::config::{AddPath, PeerConfig};
use crate::fib::{BestRoute, InterfaceAddress, KernelEvent, KernelHop, KernelRoute, Link, RouteKey, RouteType, Target};
use crate::origin::{LocalKey, LocalRoute, LocalTarget};
use crate::policy::{Policy, RouteSource};
use crate::session::{PrefixCounts, RouteBatch, RouteChange, SessionEnd, SessionFacts};
use crate::types::{
    AsPath, Asn, Attributes, ConnectionId, Family, Nlri, NlriList, Outbox, PathId, PeerId, PerFamily, QueryId, RouterId, ShardId, Sync,
};
use crate::wire;

/// Our AS.
pub(super) const US: u32 = 64512;

/// Both families.
pub(super) const BOTH: PerFamily<bool> = PerFamily { ipv4: true, ipv6: true };

/// Neither.
pub(super) const NONE: PerFamily<bool> = PerFamily { ipv4: false, ipv6: false };

pub(super) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Attributes of a route with this next hop and path.
pub(super) fn attributes(next_hop: &str, path: &[u32]) -> Attributes {
    Attributes { as_path: AsPath::sequence(path.iter().map(|asn| Asn(*asn))), ..Attributes::originated(ip(next_hop).into()) }
}

/// The items as one list; all must be of one family.
pub(super) fn items(prefixes: &[IpNet], path_id: u32) -> NlriList {
    let path_id = PathId(path_id);
    match prefixes[0] {
        IpNet::V4(_) => NlriList::Ipv4(
            prefixes
                .iter()
                .map(|prefix| match prefix {
                    IpNet::V4(prefix) => Nlri { prefix: *prefix, path_id },
                    IpNet::V6(_) => panic!("mixed families"),
                })
                .collect(),
        ),
        IpNet::V6(_) => NlriList::Ipv6(
            prefixes
                .iter()
                .map(|prefix| match prefix {
                    IpNet::V6(prefix) => Nlri { prefix: *prefix, path_id },
                    IpNet::V4(_) => panic!("mixed families"),
                })
                .collect(),
        ),
    }
}

/// Peer `n`: 10.0.0.n, identifier n.n.n.n, of AS `remote`, with policies that accept everything.
pub(super) fn facts(n: u32, remote: u32, change: impl FnOnce(&mut PeerConfig, &mut wire::Context)) -> SessionFacts {
    let accept = || PerFamily { ipv4: Arc::new(Policy::accept()), ipv6: Arc::new(Policy::accept()) };
    let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, n as u8));
    let mut config = PeerConfig {
        hold_time: 90,
        families: BOTH,
        add_path: AddPath::Off,
        import: accept(),
        export: accept(),
        ..PeerConfig::new(format!("Node_10_0_0_{n}"), (Asn(US), RouterId(Ipv4Addr::new(10, 0, 0, 100))), (address, Asn(remote)))
    };
    let mut context = wire::Context {
        four_octet_as: true,
        families: BOTH,
        add_path_receive: NONE,
        add_path_send: NONE,
        extended_next_hop: false,
        send_limit: 4096,
        ebgp: remote != US,
        peer_asn: Asn(remote),
        ..wire::Context::default()
    };
    change(&mut config, &mut context);
    SessionFacts {
        peer: PeerId(n),
        connection: ConnectionId(1),
        config: Arc::new(config),
        context,
        local: ip("10.0.0.100"),
        local_link: None,
        remote: address,
        identifier: RouterId(Ipv4Addr::from([n as u8; 4])),
        graceful_restart: None,
        long_lived: false,
        enhanced_refresh: true,
        refresh: true,
        handshake: Arc::default(),
    }
}

/// A shard on a node 10.0.0.100/24 on eth0 (index 2) with a default route via 10.0.0.254.
pub(super) struct Bench {
    pub(super) shard: Shard,
    pub(super) now: Instant,
    /// What the FibSyncer has been told.
    pub(super) fib: BTreeMap<IpNet, BestRoute>,
    /// How many changes it was told.
    pub(super) fib_changes: usize,
    /// Messages sent to each peer.
    pub(super) frames: BTreeMap<PeerId, Vec<bytes::Bytes>>,
    pub(super) ended: BTreeMap<PeerId, Vec<Family>>,
    pub(super) counts: BTreeMap<PeerId, PerFamily<PrefixCounts>>,
    pub(super) rounds: usize,
    /// What collectors have been told, and which were given up.
    pub(super) monitored: Vec<(MonitorId, Vec<Monitored>)>,
    pub(super) overrun: Vec<MonitorId>,
    pub(super) answers: Vec<Answer>,
    out: Outbox<Output>,
}

impl Bench {
    /// With next hops in 10.0.0.0/24 on the link, no restart to recover from and no local routes.
    pub(super) fn new() -> Self {
        let mut bench = Self::restarting();
        bench.say(Input::RecoveryDone);
        bench.local_synced();
        bench.round();
        bench
    }

    pub(super) fn restarting() -> Self {
        let config = RibConfig { router_id: RouterId(Ipv4Addr::new(10, 0, 0, 100)), cluster_id: None, max_paths: 16, protocol: 12 };
        let mut bench = Self {
            shard: Shard::new(ShardId(0), 42, Arc::new(config)),
            now: start(),
            fib: BTreeMap::new(),
            fib_changes: 0,
            frames: BTreeMap::new(),
            ended: BTreeMap::new(),
            counts: BTreeMap::new(),
            rounds: 0,
            monitored: Vec::new(),
            overrun: Vec::new(),
            answers: Vec::new(),
            out: Outbox::new(),
        };
        bench.link(1, "lo", true);
        bench.link(2, "eth0", true);
        bench.address(2, "10.0.0.100/24", true);
        bench.address(2, "fd00::100/64", true);
        bench.kernel_route("0.0.0.0/0", Some("10.0.0.254"), 2, true);
        bench
    }

    /// Another shard in the place of this one, that hears what a new one hears first.
    pub(super) fn restart_as(&mut self, shard: Shard) {
        self.shard = shard;
        self.link(1, "lo", true);
        self.link(2, "eth0", true);
        self.address(2, "10.0.0.100/24", true);
        self.say(Input::RecoveryDone);
        self.local_synced();
        self.round();
    }

    pub(super) fn say(&mut self, input: Input) {
        self.shard.handle(self.now, input, &mut self.out);
    }

    pub(super) fn local_synced(&mut self) {
        self.say(Input::Local(Sync::End));
    }

    /// Rounds until nothing is left to do; every peer and the FibSyncer have room.
    pub(super) fn round(&mut self) {
        for _ in 0..1000 {
            self.one_round();
            self.rounds += 1;
            if self.shard.deadline() != Some(self.now) {
                break;
            }
        }
        self.one_round();
    }

    pub(super) fn one_round(&mut self) {
        for peer in self.shard.up() {
            self.say(Input::Pull { peer, credit: 1 << 20 });
        }
        self.say(Input::PullFib { credit: 1 << 20 });
        self.shard.finish_round(self.now, &mut self.out);
        for output in self.out.drain() {
            match output {
                Output::Frames { peer, frames, ended, .. } => {
                    self.frames.entry(peer).or_default().extend(frames);
                    self.ended.entry(peer).or_default().extend(ended);
                }
                Output::FibChanges { changes, .. } => {
                    self.fib_changes += changes.len();
                    for change in changes {
                        match change.route {
                            Some(route) => self.fib.insert(change.prefix, route),
                            None => self.fib.remove(&change.prefix),
                        };
                    }
                }
                Output::Counts { peer, counts } => {
                    self.counts.insert(peer, counts);
                }
                Output::Answer { rows, .. } => self.answers.push(rows),
                Output::Monitored(monitor, words) => self.monitored.push((monitor, words)),
                Output::Overrun(monitor) => self.overrun.push(monitor),
            }
        }
    }

    /// Peer `n` of AS `remote` comes up.
    pub(super) fn up(&mut self, n: u32, remote: u32) {
        self.up_with(n, remote, |_, _| {});
    }

    pub(super) fn up_with(&mut self, n: u32, remote: u32, change: impl FnOnce(&mut PeerConfig, &mut wire::Context)) {
        self.say(Input::PeerUp(Arc::new(facts(n, remote, change))));
        self.round();
    }

    pub(super) fn down(&mut self, n: u32, keep: PerFamily<bool>) {
        self.say(Input::PeerDown { peer: PeerId(n), keep, end: SessionEnd::Lost });
        self.round();
    }

    pub(super) fn hear(&mut self, n: u32, changes: Vec<RouteChange>) {
        self.say(Input::Routes(RouteBatch { peer: PeerId(n), changes }));
    }

    pub(super) fn announce(&mut self, n: u32, prefix: &str, attributes: Attributes) {
        self.announce_path(n, prefix, 0, attributes);
    }

    pub(super) fn announce_path(&mut self, n: u32, prefix: &str, path_id: u32, attributes: Attributes) {
        self.hear(n, vec![RouteChange::Announce(Arc::new(attributes), items(&[net(prefix)], path_id))]);
        self.round();
    }

    pub(super) fn withdraw(&mut self, n: u32, prefix: &str) {
        self.withdraw_path(n, prefix, 0);
    }

    pub(super) fn withdraw_path(&mut self, n: u32, prefix: &str, path_id: u32) {
        self.hear(n, vec![RouteChange::Withdraw(items(&[net(prefix)], path_id))]);
        self.round();
    }

    pub(super) fn local(&mut self, source: RouteSource, prefix: &str, target: Option<LocalTarget>) {
        let key = LocalKey { source, prefix: net(prefix) };
        let metric = (source == RouteSource::Kernel).then_some(1024);
        self.say(Input::Local(target.map_or(Sync::Remove(key), |target| Sync::Upsert(key, LocalRoute { target, metric }))));
        self.round();
    }

    pub(super) fn link(&mut self, index: u32, name: &str, up: bool) {
        self.say(Input::Kernel(KernelEvent::Link(Sync::Upsert(index, Link { name: name.into(), up }))));
    }

    pub(super) fn address(&mut self, index: u32, address: &str, here: bool) {
        let key = (index, net(address));
        let facts = InterfaceAddress { global: true, secondary: false };
        self.say(Input::Kernel(KernelEvent::Address(if here { Sync::Upsert(key, facts) } else { Sync::Remove(key) })));
    }

    pub(super) fn kernel_route(&mut self, prefix: &str, gateway: Option<&str>, interface: u32, here: bool) {
        let key = RouteKey { table: 254, prefix: net(prefix), metric: 0, tos: 0 };
        let route = KernelRoute {
            key,
            protocol: 3,
            kind: RouteType::Unicast,
            scope: 0,
            hops: SmallVec::from_iter([KernelHop { gateway: gateway.map(ip), interface, onlink: false }]),
            preferred_source: None,
            object: None,
        };
        self.say(Input::Kernel(KernelEvent::Route(if here { Sync::Upsert(key, route) } else { Sync::Remove(key) })));
    }

    /// What the kernel is to do with a prefix: gateways by interface, or the kind of target.
    pub(super) fn fib(&self, prefix: &str) -> String {
        match self.fib.get(&net(prefix)).map(|route| &route.target) {
            None => "none".to_owned(),
            Some(Target::Blackhole) => "blackhole".to_owned(),
            Some(Target::Unreachable) => "unreachable".to_owned(),
            Some(Target::Via(hops)) => {
                let hops =
                    hops.iter().map(|hop| hop.gateway.map_or_else(|| format!("dev {}", hop.interface), |gateway| gateway.to_string()));
                hops.collect::<Vec<_>>().join(" ")
            }
        }
    }

    pub(super) fn routes(&mut self, query: Query) -> Vec<RouteRow> {
        self.say(Input::Query(QueryId(1), query));
        self.round();
        let answers = std::mem::take(&mut self.answers).into_iter();
        answers.flat_map(|answer| if let Answer::Routes(rows) = answer { rows } else { Vec::new() }).collect()
    }

    /// Rows of the Loc-RIB.
    pub(super) fn loc_rib(&mut self, prefix: &str) -> Vec<RouteRow> {
        self.routes(Query::Routes { prefix: Some(net(prefix)), longer: false, family: None, received: None, advertised: None })
    }

    /// What peer `n` has been told.
    pub(super) fn told(&mut self, n: u32) -> Vec<RouteRow> {
        self.routes(Query::Routes { prefix: None, longer: false, family: None, received: None, advertised: Some(PeerId(n)) })
    }

    /// What peer `n` has been told of one prefix, which is at most one path.
    pub(super) fn told_of(&mut self, n: u32, prefix: &str) -> Option<Attributes> {
        let told = self.told(n).into_iter().find(|row| row.prefix == net(prefix));
        told.map(|row| Attributes::clone(&row.attributes))
    }

    pub(super) fn explain(&mut self, prefix: &str) -> (Vec<Candidate>, Vec<Advertisement>) {
        self.say(Input::Query(QueryId(1), Query::Explain(net(prefix))));
        self.round();
        match std::mem::take(&mut self.answers).pop() {
            Some(Answer::Explain(explained)) => (explained.candidates, explained.advertisements),
            other => panic!("{other:?}"),
        }
    }

    /// The UPDATEs sent to peer `n` since the last call, each as `+prefix` or `-prefix` words; End-of-RIB is empty.
    pub(super) fn sent(&mut self, n: u32) -> Vec<String> {
        let frames = self.frames.remove(&PeerId(n)).unwrap_or_default();
        let context = wire::Context { families: BOTH, ..wire::Context::default() };
        let context = wire::Context { four_octet_as: true, ..context };
        let mut buffer: bytes::BytesMut = frames.concat().as_slice().into();
        std::iter::from_fn(|| wire::frame::next(&mut buffer, &context).unwrap()).flat_map(|frame| words(&frame.body, &context)).collect()
    }
}

fn words(body: &[u8], context: &wire::Context) -> Vec<String> {
    let wire::Message::Update(update) = wire::Message::decode(wire::Kind::Update, body, context).unwrap() else { panic!("no UPDATE") };
    let gone = update.withdrawn.iter().flat_map(|list| list.iter().map(|nlri| format!("-{}", nlri.prefix)));
    let here = update.announced.iter().flat_map(|(_, list)| list.iter().map(|nlri| format!("+{}", nlri.prefix)));
    gone.chain(here).collect()
}

#[expect(clippy::disallowed_methods, reason = "tests need some instant to begin with")]
fn start() -> Instant {
    Instant::now()
}
