//! Laws of the RIB: what it comes to depends on the state of its sources, never on the way there.
//!
//! A run takes the sources (peers, local routes, the kernel) from state to state, with the words of each in some
//! order, split into rounds anywhere, repeated, by restarts and refreshes, over one shard or three; the result must
//! be that of a fresh shard that only ever heard of the last state. And the *mirror*: what Adj-RIB-Out says that a
//! peer has been told is what the peer has heard.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use ipnet::IpNet;
use margay::config::{AddPath, PeerConfig};
use margay::fib::{BestRoute, InterfaceAddress, KernelEvent, KernelHop, KernelRoute, Link, RouteKey, RouteType};
use margay::origin::{LocalKey, LocalRoute, LocalTarget};
use margay::policy::{Policy, RouteSource};
use margay::rib::{Answer, Input, Output, Query, RibConfig, RouteRow, Shard};
use margay::session::{RouteBatch, RouteChange, SessionEnd, SessionFacts};
use margay::types::{
    AsPath, Asn, Attributes, ClusterId, Community, ConnectionId, Family, NextHop, Nlri, NlriList, Outbox, PathId, PeerId, PerFamily,
    QueryId, RouterId, ShardId, Sync,
};
use margay::wire::{Context, Message, frame};
use proptest::prelude::*;

const US: u32 = 64512;
const PEERS: usize = 4;
const PREFIXES: [&str; 6] = ["192.0.2.0/24", "192.0.2.0/25", "10.244.1.0/26", "0.0.0.0/0", "2001:db8::/32", "fd00:10::1/128"];
const LOCALS: [RouteSource; 3] = [RouteSource::Kernel, RouteSource::Block, RouteSource::Service];

/// What every source says. Numbers choose among a few variants; none says nothing.
#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    /// Which peers are up, and the routes of each by prefix.
    peers: [Option<[Option<u8>; PREFIXES.len()]>; PEERS],
    /// By source and prefix.
    locals: [[Option<u8>; PREFIXES.len()]; LOCALS.len()],
    /// Kernel routes that lead to some of the next hops; whether the second link is up.
    kernel: [bool; 3],
}

fn state() -> impl Strategy<Value = State> {
    let table = || prop::array::uniform6(prop::option::of(0u8..8));
    let peers = prop::array::uniform4(prop::option::weighted(0.8, table()));
    let locals = prop::array::uniform3(prop::array::uniform6(prop::option::weighted(0.2, 0u8..3)));
    (peers, locals, prop::array::uniform3(any::<bool>())).prop_map(|(peers, locals, kernel)| State { peers, locals, kernel })
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn facts(peer: usize, connection: u32) -> SessionFacts {
    let accept = || PerFamily { ipv4: Arc::new(Policy::accept()), ipv6: Arc::new(Policy::accept()) };
    let both = PerFamily { ipv4: true, ipv6: true };
    let remote = [65001, 65002, US, US][peer];
    let n = peer as u8 + 1;
    let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, n));
    let config = PeerConfig {
        hold_time: 90,
        families: both,
        add_path: AddPath::Off,
        reflector_client: peer == 2,
        cluster_id: Some(ClusterId(Ipv4Addr::new(244, 0, 0, 1))),
        import: accept(),
        export: accept(),
        ..PeerConfig::new(format!("Node_10_0_0_{n}"), (Asn(US), RouterId(Ipv4Addr::new(10, 0, 0, 100))), (address, Asn(remote)))
    };
    let add_path = PerFamily { ipv4: peer == 3, ipv6: peer == 3 };
    SessionFacts {
        peer: PeerId(u32::from(n)),
        connection: ConnectionId(connection),
        context: Context {
            four_octet_as: true,
            families: both,
            add_path_send: add_path,
            ebgp: remote != US,
            peer_asn: Asn(remote),
            ..Context::default()
        },
        local: "10.0.0.100".parse().unwrap(),
        local_link: None,
        remote: config.address,
        identifier: RouterId(Ipv4Addr::from([n; 4])),
        config: Arc::new(config),
        graceful_restart: None,
        long_lived: false,
        enhanced_refresh: true,
        refresh: true,
        handshake: Arc::default(),
    }
}

/// Routes that differ in what decides and in what keeps them from some peers.
fn route(peer: usize, variant: u8, prefix: &IpNet) -> Arc<Attributes> {
    let n = peer as u32 + 1;
    let next_hop = match (prefix, variant % 4) {
        (IpNet::V4(_), 0) => "10.7.0.1".to_owned(),
        (IpNet::V4(_), _) => format!("10.0.0.{n}"),
        (IpNet::V6(_), 0) => "fd07::1".to_owned(),
        (IpNet::V6(_), _) => format!("fd00::{n}"),
    };
    let mut path = if peer < 2 { vec![Asn(65000 + n)] } else { vec![Asn(65001)] };
    path.extend((variant == 5).then_some(Asn(65009)));
    path.extend((variant == 6).then_some(Asn(US)));
    Arc::new(Attributes {
        as_path: AsPath::sequence(path),
        med: [None, Some(5), Some(1)][usize::from(variant) % 3],
        local_pref: (peer >= 2).then_some(100 + u32::from(variant / 4)),
        communities: (variant == 7).then_some(Community::NO_EXPORT).into_iter().collect(),
        ..Attributes::originated(NextHop::Global(next_hop.parse().unwrap()))
    })
}

fn local(source: RouteSource, variant: u8) -> LocalRoute {
    let gateway = |text: &str| Some(KernelHop { gateway: Some(text.parse().unwrap()), interface: 2, onlink: false });
    let target = match variant {
        0 => LocalTarget::Blackhole,
        1 => LocalTarget::Via(gateway("10.0.0.9").into_iter().collect()),
        _ => LocalTarget::Via([KernelHop { gateway: None, interface: 2, onlink: false }].into_iter().collect()),
    };
    LocalRoute { target, metric: (source == RouteSource::Kernel).then_some(1024) }
}

fn list(prefix: IpNet) -> NlriList {
    let path_id = PathId(0);
    match prefix {
        IpNet::V4(prefix) => NlriList::Ipv4(vec![Nlri { prefix, path_id }]),
        IpNet::V6(prefix) => NlriList::Ipv6(vec![Nlri { prefix, path_id }]),
    }
}

fn kernel(index: usize, on: bool) -> KernelEvent {
    let route = |prefix: &str, gateway: &str| {
        let key = RouteKey { table: 254, prefix: net(prefix), metric: 0, tos: 0 };
        let hop = KernelHop { gateway: Some(gateway.parse().unwrap()), interface: 2, onlink: false };
        let route = KernelRoute {
            key,
            protocol: 3,
            kind: RouteType::Unicast,
            scope: 0,
            hops: [hop].into_iter().collect(),
            preferred_source: None,
            object: None,
        };
        KernelEvent::Route(if on { Sync::Upsert(key, route) } else { Sync::Remove(key) })
    };
    match index {
        0 => route("10.7.0.0/16", "10.0.0.7"),
        1 => route("fd07::/64", "fd00::7"),
        _ => KernelEvent::Link(Sync::Upsert(3, Link { name: "eth1".into(), up: on })),
    }
}

/// Choices of a run; a seeded generator, so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

type Told = BTreeMap<(IpNet, PathId), Arc<Attributes>>;

/// Shards and everybody around them.
struct World {
    shards: Vec<Shard>,
    now: Instant,
    out: Outbox<Output>,
    fib: BTreeMap<IpNet, BestRoute>,
    heard: [Told; PEERS],
    sessions: u32,
}

impl World {
    fn new(shards: u16) -> Self {
        let config = Arc::new(RibConfig {
            router_id: RouterId(Ipv4Addr::new(10, 0, 0, 100)),
            cluster_id: Some(ClusterId(Ipv4Addr::new(244, 0, 0, 1))),
            max_paths: 16,
            protocol: 12,
        });
        let mut world = Self {
            shards: (0..shards).map(|n| Shard::new(ShardId(n), 7 + u64::from(n), Arc::clone(&config))).collect(),
            now: Instant::now(),
            out: Outbox::new(),
            fib: BTreeMap::new(),
            heard: Default::default(),
            sessions: 0,
        };
        for (index, name) in [(2, "eth0"), (3, "eth1")] {
            world.all(&Input::Kernel(KernelEvent::Link(Sync::Upsert(index, Link { name: name.into(), up: index == 2 }))));
        }
        for (index, address) in [(2, "10.0.0.100/24"), (2, "fd00::100/64"), (3, "10.7.0.100/24")] {
            let facts = InterfaceAddress { global: true, secondary: false };
            world.all(&Input::Kernel(KernelEvent::Address(Sync::Upsert((index, net(address)), facts))));
        }
        world.all(&Input::Local(Sync::End));
        world.all(&Input::RecoveryDone);
        world
    }

    fn all(&mut self, input: &Input) {
        for shard in &mut self.shards {
            shard.handle(self.now, input.clone(), &mut self.out);
        }
    }

    fn owner(&self, prefix: IpNet) -> usize {
        (usize::from(prefix.prefix_len()) + usize::from(prefix.addr().is_ipv6())) % self.shards.len()
    }

    fn one(&mut self, prefix: IpNet, input: Input) {
        let owner = self.owner(prefix);
        self.shards[owner].handle(self.now, input, &mut self.out);
    }

    fn up(&mut self, peer: usize) {
        self.sessions += 1;
        self.heard[peer].clear();
        self.all(&Input::PeerUp(Arc::new(facts(peer, self.sessions))));
    }

    fn say(&mut self, peer: usize, prefix: Option<IpNet>, change: RouteChange) {
        let input = Input::Routes(RouteBatch { peer: PeerId(peer as u32 + 1), changes: vec![change] });
        match prefix {
            Some(prefix) => self.one(prefix, input),
            None => self.all(&input),
        }
    }

    /// Some shard has a round, with or without readers.
    fn round(&mut self, index: usize, readers: bool) {
        if readers {
            for n in 1..=PEERS as u32 {
                self.shards[index].handle(self.now, Input::Pull { peer: PeerId(n), credit: 200 }, &mut self.out);
            }
            self.shards[index].handle(self.now, Input::PullFib { credit: 3 }, &mut self.out);
        }
        self.shards[index].finish_round(self.now, &mut self.out);
        let outputs: Vec<Output> = self.out.drain().collect();
        for output in outputs {
            match output {
                Output::FibChanges { changes, .. } => {
                    for change in changes {
                        match change.route {
                            Some(route) => self.fib.insert(change.prefix, route),
                            None => self.fib.remove(&change.prefix),
                        };
                    }
                }
                Output::Frames { peer, frames, .. } => self.read(peer.0 as usize - 1, &frames.concat()),
                _ => {}
            }
        }
    }

    /// What a peer makes of what it is sent.
    fn read(&mut self, peer: usize, octets: &[u8]) {
        let send = facts(peer, 0).context;
        let context = Context { add_path_receive: send.add_path_send, ..send };
        let mut buffer = BytesMut::from(octets);
        while let Some(frame) = frame::next(&mut buffer, &context).unwrap() {
            let Message::Update(update) = Message::decode(frame.kind, &frame.body, &context).unwrap() else { panic!("no UPDATE") };
            assert!(update.faults.is_empty(), "{:?}", update.faults);
            for nlri in update.withdrawn.iter().flat_map(NlriList::iter) {
                let was = self.heard[peer].remove(&(nlri.prefix, nlri.path_id));
                assert!(was.is_some(), "E10: {} was withdrawn without having been told", nlri.prefix);
            }
            for (attributes, list) in &update.announced {
                for nlri in list.iter() {
                    self.heard[peer].insert((nlri.prefix, nlri.path_id), Arc::clone(attributes));
                }
            }
        }
    }

    fn settle(&mut self) {
        for index in 0..self.shards.len() {
            let mut quiet = 0;
            for _ in 0..200 {
                let (fib, heard) = (self.fib.clone(), self.heard.clone());
                self.round(index, true);
                quiet = if self.shards[index].is_settled() && fib == self.fib && heard == self.heard { quiet + 1 } else { 0 };
                if quiet > 2 {
                    break;
                }
            }
            assert!(self.shards[index].is_settled(), "work is left");
        }
    }

    /// From one state to the next: the words of each source in order, those of different sources interleaved.
    fn go(&mut self, from: &State, to: &State, dice: &mut Dice) {
        let mut queues: Vec<Vec<Word>> = (0..PEERS).map(|peer| peer_words(peer, from.peers[peer], to.peers[peer], dice)).collect();
        let mut locals = Vec::new();
        for (source, (from, to)) in from.locals.iter().zip(&to.locals).enumerate() {
            locals.extend((0..PREFIXES.len()).filter(|&i| from[i] != to[i]).map(|i| Word::Local(source, i, to[i])));
        }
        dice.shuffle(&mut locals);
        queues.push(locals);
        queues.push((0..3).filter(|&i| from.kernel[i] != to.kernel[i]).map(|i| Word::Kernel(i, to.kernel[i])).collect());
        for queue in &mut queues {
            queue.reverse();
        }
        while queues.iter().any(|queue| !queue.is_empty()) {
            let queue = dice.below(queues.len());
            if let Some(word) = queues[queue].pop() {
                self.hear(word.clone());
                if dice.below(5) == 0 && word.may_be_repeated() {
                    self.hear(word);
                }
            }
            if dice.below(3) == 0 {
                let shard = dice.below(self.shards.len());
                self.round(shard, dice.below(2) == 0);
            }
        }
    }

    fn hear(&mut self, word: Word) {
        match word {
            Word::Up(peer) => self.up(peer),
            Word::Down(peer, keep) => {
                self.heard[peer].clear();
                self.all(&Input::PeerDown {
                    peer: PeerId(peer as u32 + 1),
                    keep: PerFamily { ipv4: keep, ipv6: keep },
                    end: SessionEnd::Lost,
                });
            }
            Word::Route(peer, index, Some(variant)) => {
                let prefix = net(PREFIXES[index]);
                self.say(peer, Some(prefix), RouteChange::Announce(route(peer, variant, &prefix), list(prefix)));
            }
            Word::Route(peer, index, None) => {
                let prefix = net(PREFIXES[index]);
                self.say(peer, Some(prefix), RouteChange::Withdraw(list(prefix)));
            }
            Word::Mark(peer, change) => self.say(peer, None, change),
            Word::Local(source, index, variant) => {
                let key = LocalKey { source: LOCALS[source], prefix: net(PREFIXES[index]) };
                let word = variant.map_or(Sync::Remove(key), |variant| Sync::Upsert(key, local(key.source, variant)));
                self.one(key.prefix, Input::Local(word));
            }
            Word::Kernel(index, on) => self.all(&Input::Kernel(kernel(index, on))),
        }
    }

    /// Rows of a query to all shards.
    fn rows(&mut self, received: Option<PeerId>, advertised: Option<PeerId>) -> Vec<RouteRow> {
        let mut rows = Vec::new();
        for shard in &mut self.shards {
            let query = Query::Routes { prefix: None, longer: false, family: None, received, advertised };
            shard.handle(self.now, Input::Query(QueryId(1), query), &mut self.out);
            for _ in 0..10 {
                shard.finish_round(self.now, &mut self.out);
            }
            for output in self.out.drain() {
                if let Output::Answer { rows: Answer::Routes(answer), .. } = output {
                    rows.extend(answer);
                }
            }
        }
        rows
    }

    /// The mirror, and what is to be equal whatever the way.
    fn result(&mut self) -> Outcome {
        let mut told = Vec::new();
        for peer in 0..PEERS {
            let rows = self.rows(None, Some(PeerId(peer as u32 + 1)));
            let said: Told = rows.iter().map(|row| ((row.prefix, row.path_id), Arc::clone(&row.attributes))).collect();
            assert_eq!(said, self.heard[peer], "what peer {peer} was told is what it heard");
            told.push(rows.iter().map(|row| (row.prefix, Arc::clone(&row.attributes))).collect());
        }
        let mut rows = self.rows(None, None);
        for peer in 0..PEERS {
            rows.extend(self.rows(Some(PeerId(peer as u32 + 1)), None));
        }
        Outcome { fib: self.fib.clone(), told, rows: rows.iter().map(|row| format!("{row:?}")).collect() }
    }
}

#[derive(Debug, PartialEq)]
struct Outcome {
    fib: BTreeMap<IpNet, BestRoute>,
    told: Vec<BTreeSet<(IpNet, Arc<Attributes>)>>,
    rows: BTreeSet<String>,
}

/// One word of a source.
#[derive(Clone, Debug)]
enum Word {
    Up(usize),
    Down(usize, bool),
    Route(usize, usize, Option<u8>),
    Mark(usize, RouteChange),
    Local(usize, usize, Option<u8>),
    Kernel(usize, bool),
}

impl Word {
    fn may_be_repeated(&self) -> bool {
        matches!(self, Self::Route(..) | Self::Local(..) | Self::Kernel(..))
    }
}

/// Ways for a peer from one table to another: single changes, a refresh, a graceful restart, a plain reconnect.
fn peer_words(
    peer: usize,
    from: Option<[Option<u8>; PREFIXES.len()]>,
    to: Option<[Option<u8>; PREFIXES.len()]>,
    dice: &mut Dice,
) -> Vec<Word> {
    let mut whole = |table: [Option<u8>; PREFIXES.len()]| {
        let mut words: Vec<Word> = (0..PREFIXES.len()).filter(|&i| table[i].is_some()).map(|i| Word::Route(peer, i, table[i])).collect();
        dice.shuffle(&mut words);
        words
    };
    let marks = |mark: fn(Family) -> RouteChange| Family::ALL.map(|family| Word::Mark(peer, mark(family)));
    match (from, to) {
        (None, None) => Vec::new(),
        (Some(_), None) => vec![Word::Down(peer, false)],
        (None, Some(to)) => [vec![Word::Up(peer)], whole(to), marks(RouteChange::EndOfRib).to_vec()].concat(),
        (Some(from), Some(to)) => {
            let told = whole(to);
            match dice.below(4) {
                0 => [marks(RouteChange::RefreshBegin).to_vec(), told, marks(RouteChange::RefreshEnd).to_vec()].concat(),
                keep @ (1 | 2) => {
                    let again = vec![Word::Down(peer, keep == 1), Word::Up(peer)];
                    [again, told, marks(RouteChange::EndOfRib).to_vec()].concat()
                }
                _ => {
                    let mut words: Vec<Word> =
                        (0..PREFIXES.len()).filter(|&i| from[i] != to[i]).map(|i| Word::Route(peer, i, to[i])).collect();
                    dice.shuffle(&mut words);
                    words
                }
            }
        }
    }
}

fn run(states: &[State], shards: u16, seed: u64) -> Outcome {
    let mut world = World::new(shards);
    let mut dice = Dice(seed);
    let mut from = State::default();
    for to in states {
        world.go(&from, to, &mut dice);
        from = to.clone();
    }
    world.settle();
    world.result()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_result_does_not_depend_on_the_way(states in prop::collection::vec(state(), 1..4), seed in any::<u64>()) {
        let last = states.last().cloned().unwrap_or_default();
        let fresh = run(&[last], 1, 0);
        prop_assert_eq!(&run(&states, 1, seed), &fresh);
    }

    #[test]
    fn three_shards_are_as_good_as_one(states in prop::collection::vec(state(), 1..3), seed in any::<u64>()) {
        prop_assert_eq!(run(&states, 3, seed), run(&states, 1, seed.rotate_left(9)));
    }
}
