//! One shard with peers that announce and peers that listen, for tests and benches that count what it takes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use margay::config::{AddPath, PeerConfig};
use margay::policy::Policy;
use margay::rib::{Input, Output, RibConfig, Shard};
use margay::session::{RouteBatch, RouteChange, SessionFacts};
use margay::types::{
    Asn, Attributes, ConnectionId, Family, Ipv4Unicast, Nlri, NlriList, Outbox, PathId, PeerId, PerFamily, RouterId, ShardId, Sync,
};
use margay::wire::{Context, Message, frame, pack};

use crate::compare::table::{self, Numbers};

const US: Asn = Asn(65000);

/// What one peer announces, decoded as it comes from one message after the other.
#[derive(Clone, Debug)]
pub struct Announced {
    /// By attribute set.
    pub sets: Vec<(Arc<Attributes>, NlriList)>,
    /// Prefixes in all.
    pub count: usize,
}

impl Announced {
    /// A table like the internet's of so many prefixes, eight to a set, told by a peer. Different peers tell the same prefixes.
    pub fn new(peer: u32, count: usize) -> Self {
        let prefixes = table::ipv4(count, &mut Numbers::new(1));
        let mut numbers = Numbers::new(u64::from(peer) + 2);
        let mut left = &prefixes[..];
        let mut sets = Vec::new();
        for run in table::runs(count, 8, &mut numbers) {
            let (here, rest) = left.split_at(run);
            let set = table::attributes(Some(asn(peer)), address(peer), None, &mut numbers);
            sets.push((Arc::new(set), list(here)));
            left = rest;
        }
        Self { sets, count }
    }

    /// The same as messages of a session.
    pub fn messages(&self) -> Vec<bytes::Bytes> {
        let mut frames = Vec::new();
        for (set, list) in &self.sets {
            let NlriList::Ipv4(items) = list else { continue };
            let left = pack::announce::<Ipv4Unicast>(set, items, &context(), &mut frames);
            assert!(left.is_empty(), "no message can carry {set:?}");
        }
        frames
    }
}

fn list(prefixes: &[IpNet]) -> NlriList {
    let one = |prefix: &IpNet| match prefix {
        IpNet::V4(prefix) => Some(Nlri { prefix: *prefix, path_id: PathId(0) }),
        IpNet::V6(_) => None,
    };
    NlriList::Ipv4(prefixes.iter().filter_map(one).collect())
}

pub(crate) fn asn(peer: u32) -> Asn {
    Asn(100_000 + peer)
}

pub(crate) fn address(peer: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a01_0000 + peer))
}

/// How the sessions encode and decode.
pub fn context() -> Context {
    Context { four_octet_as: true, families: PerFamily { ipv4: true, ipv6: false }, ebgp: true, ..Context::default() }
}

pub(crate) fn facts(peer: u32) -> SessionFacts {
    let accept = || PerFamily { ipv4: Arc::new(Policy::accept()), ipv6: Arc::new(Policy::accept()) };
    let us = RouterId(Ipv4Addr::new(10, 7, 0, 1));
    let config = PeerConfig {
        families: PerFamily { ipv4: true, ipv6: false },
        add_path: AddPath::Off,
        import: accept(),
        export: accept(),
        ..PeerConfig::new(format!("peer-{peer}"), (US, us), (address(peer), asn(peer)))
    };
    SessionFacts {
        peer: PeerId(peer),
        connection: ConnectionId(1),
        config: Arc::new(config),
        context: Context { peer_asn: asn(peer), ..context() },
        local: IpAddr::V4(us.0),
        local_link: None,
        remote: address(peer),
        identifier: RouterId(Ipv4Addr::from(0x0a01_0000 + peer)),
        graceful_restart: None,
        long_lived: false,
        enhanced_refresh: true,
        refresh: true,
        handshake: Arc::default(),
    }
}

/// What a peer was told in a round.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Messages.
    pub messages: usize,
    /// Their octets.
    pub octets: usize,
    /// Prefixes announced, with the length of the AS_PATH.
    pub announced: Vec<(IpNet, usize)>,
    /// Prefixes withdrawn.
    pub withdrawn: usize,
    /// Families whose table, asked for or not, is complete with this.
    pub ended: usize,
}

impl Told {
    /// Adds what was told later.
    pub fn add(&mut self, later: Self) {
        self.messages += later.messages;
        self.octets += later.octets;
        self.announced.extend(later.announced);
        self.withdrawn += later.withdrawn;
        self.ended += later.ended;
    }

    /// One entry of frames may be several messages.
    fn take(&mut self, frames: &bytes::Bytes) {
        self.octets += frames.len();
        let mut left = bytes::BytesMut::from(&frames[..]);
        let context = context();
        while let Some(frame) = frame::next(&mut left, &context).expect("a whole message") {
            self.messages += 1;
            let Message::Update(update) = Message::decode(frame.kind, &frame.body, &context).expect("a good one") else { continue };
            let prefixes = |list: &NlriList| match list {
                NlriList::Ipv4(items) => items.iter().map(|item| IpNet::V4(item.prefix)).collect::<Vec<_>>(),
                NlriList::Ipv6(_) => Vec::new(),
            };
            self.withdrawn += update.withdrawn.iter().map(|list| prefixes(list).len()).sum::<usize>();
            for (attributes, list) in &update.announced {
                self.announced.extend(prefixes(list).into_iter().map(|prefix| (prefix, attributes.as_path.asns().count())));
            }
        }
    }
}

/// A shard, and what was heard of it.
#[derive(Debug)]
pub struct Bench {
    shard: Shard,
    now: Instant,
    out: Outbox<Output>,
    listeners: Vec<PeerId>,
    /// Octets that listeners were sent.
    pub octets: usize,
    /// Changes that the FibSyncer was told.
    pub fib_changes: usize,
}

impl Bench {
    /// With these peers that announce, and these that listen too.
    pub fn new(senders: u32, listeners: u32) -> Self {
        let config = RibConfig { router_id: RouterId(Ipv4Addr::new(10, 7, 0, 1)), cluster_id: None, max_paths: 16, protocol: 12 };
        let shard = Shard::new(ShardId(0), 7, Arc::new(config));
        let mut bench = Self { shard, now: Instant::now(), out: Outbox::new(), listeners: Vec::new(), octets: 0, fib_changes: 0 };
        bench.say(Input::Local(Sync::End));
        bench.say(Input::RecoveryDone);
        for peer in 1..=senders {
            bench.say(Input::PeerUp(Arc::new(facts(peer))));
        }
        for peer in 1001..=1000 + listeners {
            bench.listen(peer);
        }
        bench.round();
        bench
    }

    /// A peer that announces reads what it is told, from now on. (A member of a group that does not read keeps what others no longer need.)
    pub fn read(&mut self, peer: u32) {
        self.listeners.push(PeerId(peer));
    }

    /// A peer comes up that reads whatever it is told.
    pub fn listen(&mut self, peer: u32) {
        self.say(Input::PeerUp(Arc::new(facts(peer))));
        self.listeners.push(PeerId(peer));
    }

    fn say(&mut self, input: Input) {
        self.shard.handle(self.now, input, &mut self.out);
    }

    /// A peer announces its table, 64 sets in a round.
    pub fn announce(&mut self, peer: u32, table: &Announced) {
        for part in table.sets.chunks(64) {
            let changes = part.iter().map(|(set, list)| RouteChange::Announce(Arc::clone(set), list.clone())).collect();
            self.say(Input::Routes(RouteBatch { peer: PeerId(peer), changes }));
            self.round();
        }
    }

    /// A peer withdraws it.
    pub fn withdraw(&mut self, peer: u32, table: &Announced) {
        for part in table.sets.chunks(64) {
            let changes = part.iter().map(|(_, list)| RouteChange::Withdraw(list.clone())).collect();
            self.say(Input::Routes(RouteBatch { peer: PeerId(peer), changes }));
            self.round();
        }
    }

    /// One round in which everybody reads.
    pub fn round(&mut self) {
        for peer in self.listeners.clone() {
            self.say(Input::Pull { peer, credit: 1 << 20 });
        }
        self.say(Input::PullFib { credit: 1 << 20 });
        self.shard.finish_round(self.now, &mut self.out);
        for output in self.out.drain() {
            match output {
                Output::Frames { frames, .. } => self.octets += frames.iter().map(bytes::Bytes::len).sum::<usize>(),
                Output::FibChanges { changes, .. } => self.fib_changes += changes.len(),
                _ => {}
            }
        }
    }

    /// One round in which all these have room for so many octets, and nobody else reads; what each was told, as messages.
    pub fn serve(&mut self, peers: impl IntoIterator<Item = u32>, credit: usize) -> BTreeMap<u32, Told> {
        for peer in peers {
            self.say(Input::Pull { peer: PeerId(peer), credit });
        }
        self.shard.finish_round(self.now, &mut self.out);
        let mut told: BTreeMap<u32, Told> = BTreeMap::new();
        for output in self.out.drain() {
            let Output::Frames { peer, frames, ended, .. } = output else { continue };
            let told = told.entry(peer.0).or_default();
            told.ended += ended.len();
            frames.iter().for_each(|frame| told.take(frame));
        }
        told
    }

    /// A peer changes one prefix of its table: set number `set` goes over a longer path from now on.
    pub fn change(&mut self, peer: u32, table: &Announced, set: usize, longer: u32) -> IpNet {
        let (attributes, list) = &table.sets[set % table.sets.len()];
        let path = margay::types::AsPath::sequence(attributes.as_path.asns().chain([Asn(longer)]));
        let attributes = Arc::new(Attributes { as_path: path, ..Attributes::clone(attributes) });
        let NlriList::Ipv4(items) = list else { unreachable!("tables are IPv4") };
        let one = items[0];
        let changes = vec![RouteChange::Announce(attributes, NlriList::Ipv4(std::iter::once(one).collect()))];
        self.say(Input::Routes(RouteBatch { peer: PeerId(peer), changes }));
        IpNet::V4(one.prefix)
    }

    /// A peer comes up; it reads in rounds of [`serve`](Self::serve) alone.
    pub fn join(&mut self, peer: u32) {
        self.say(Input::PeerUp(Arc::new(facts(peer))));
    }

    /// A peer asks for everything again.
    pub fn refresh(&mut self, peer: u32) {
        self.say(Input::RefreshRequested { peer: PeerId(peer), family: Family::IPV4_UNICAST });
    }

    /// Lets time pass, and whatever is due be done.
    pub fn rest(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.shard.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.shard.on_deadline(self.now, &mut self.out);
            self.round();
        }
        self.now = end;
        self.round();
        // Whoever has not had its turn has it now.
        while self.shard.deadline().is_some_and(|at| at <= end) {
            self.round();
        }
    }

    /// The memory that it says it has reserved.
    pub fn octets_reserved(&self) -> margay::rib::Octets {
        self.shard.octets()
    }

    /// What it holds.
    pub fn stats(&self) -> margay::rib::Stats {
        self.shard.stats()
    }
}
