//! Update groups against a naive model: whatever is offered, joined, pulled and asked again in whatever order, each member ends
//! with exactly what it is to hear, and is never told nonsense on the way.
//! Long because the naive model and the members stand beside the stories.
//!
//! The members' side is a decoder of its own, so that group and encoder are judged from outside; attributes are also
//! read with margay's decoder, and must come out as they went in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bytes::Bytes;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use margay::rib::update_group::{LogLimits, Receiver, RingLimits, Sent, UpdateGroup};
use margay::types::{AsPath, Asn, AttributeCodes, Attributes, Family, NextHop, PathId, PeerId, PerFamily, RouterId, Seeded, family_of};
use margay::wire::{Context, Kind, Message};

/// A permuted congruential generator (PCG-XSH-RR), seeded: the same seed gives the same run.
struct Pcg(u64);

impl Pcg {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let word = (((self.0 >> 18) ^ self.0) >> 27) as u32;
        word.rotate_right((self.0 >> 59) as u32)
    }

    fn below(&mut self, bound: u32) -> u32 {
        ((u64::from(self.next()) * u64::from(bound)) >> 32) as u32
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }
}

fn context(add_path: bool) -> Context {
    Context {
        four_octet_as: true,
        families: PerFamily { ipv4: true, ipv6: true },
        add_path_receive: PerFamily::default(),
        add_path_send: PerFamily { ipv4: add_path, ipv6: add_path },
        extended_next_hop: false,
        send_limit: 4096,
        receive_limit: 4096,
        ebgp: false,
        peer_asn: Asn(64512),
        check_first_as: false,
        allow_as_set: false,
        discard: AttributeCodes::default(),
        enhanced_refresh: false,
    }
}

type Key = (IpNet, PathId);

/// What one message says.
#[derive(Default)]
struct Heard {
    withdrawn: Vec<Key>,
    announced: Vec<Key>,
    med: Option<u32>,
}

/// Decodes UPDATEs as far as this test needs: prefixes, and MULTI_EXIT_DISC, which numbers the attribute sets.
fn decode(message: &[u8], add_path: bool) -> Heard {
    assert_eq!(message[..16], [0xff; 16]);
    assert_eq!(message[18], 2, "an UPDATE");
    let u16_at = |at: usize| usize::from(u16::from_be_bytes([message[at], message[at + 1]]));
    let withdrawn = &message[21..21 + u16_at(19)];
    let attributes_at = 21 + withdrawn.len() + 2;
    let attributes = &message[attributes_at..attributes_at + u16_at(attributes_at - 2)];
    let mut heard = Heard { withdrawn: prefixes(withdrawn, false, add_path), ..Heard::default() };
    heard.announced = prefixes(&message[attributes_at + attributes.len()..], false, add_path);
    let mut rest = attributes;
    while let [flags, code, more @ ..] = rest {
        let (length, value) = match flags & 0x10 {
            0 => (usize::from(more[0]), &more[1..]),
            _ => (usize::from(u16::from_be_bytes([more[0], more[1]])), &more[2..]),
        };
        let (value, after) = value.split_at(length);
        match code {
            4 => heard.med = Some(u32::from_be_bytes(value.try_into().unwrap())),
            14 => heard.announced.extend(prefixes(&value[5 + usize::from(value[3])..], true, add_path)),
            15 => heard.withdrawn.extend(prefixes(&value[3..], true, add_path)),
            _ => {}
        }
        rest = after;
    }
    assert!(heard.withdrawn.is_empty() || heard.announced.is_empty(), "P3: withdrawals and announcements in one message");
    let mut seen = BTreeSet::new();
    assert!(heard.withdrawn.iter().chain(&heard.announced).all(|key| seen.insert(*key)), "P4: a path twice in one message");
    heard
}

fn prefixes(mut octets: &[u8], v6: bool, add_path: bool) -> Vec<Key> {
    let mut keys = Vec::new();
    while !octets.is_empty() {
        let mut path_id = PathId(0);
        if add_path {
            path_id = PathId(u32::from_be_bytes(octets[..4].try_into().unwrap()));
            octets = &octets[4..];
        }
        let (length, size) = (octets[0], usize::from(octets[0].div_ceil(8)));
        let mut address = [0; 16];
        address[..size].copy_from_slice(&octets[1..=size]);
        let prefix = match v6 {
            true => Ipv6Net::new(address.into(), length).unwrap().into(),
            false => Ipv4Net::new(<[u8; 4]>::try_from(&address[..4]).unwrap().into(), length).unwrap().into(),
        };
        keys.push((prefix, path_id));
        octets = &octets[1 + size..];
    }
    keys
}

/// One entry of `frames` may be several messages.
fn messages(frames: &[Bytes]) -> impl Iterator<Item = &[u8]> {
    frames.iter().flat_map(|frame| {
        let mut rest = &frame[..];
        std::iter::from_fn(move || {
            let length = usize::from(u16::from_be_bytes(rest.get(16..18)?.try_into().unwrap()));
            let (message, after) = rest.split_at(length);
            rest = after;
            Some(message)
        })
    })
}

/// What a member has heard: by path the number of the attribute set.
#[derive(Default)]
struct Member {
    heard: BTreeMap<Key, u32>,
    ended: Vec<Family>,
    withdrawals: usize,
    superfluous: usize,
    messages: Vec<usize>,
}

/// A group, what it was offered, and its members' ears.
struct World {
    group: UpdateGroup,
    add_path: bool,
    truth: BTreeMap<Key, (u32, Option<PeerId>)>,
    sets: Vec<Arc<Attributes>>,
    offers: u32,
    /// By set and way the sets that become it.
    held: BTreeMap<(u32, u32), Arc<Attributes>>,
    dests: BTreeMap<IpNet, u32>,
    free: Vec<u32>,
    members: BTreeMap<PeerId, Member>,
    /// Steps of compactions that were not done at once.
    compactions: usize,
}

fn receiver(n: u32) -> Receiver {
    Receiver { peer: PeerId(n), address: Ipv4Addr::from(0x0a00_0000 + n).into(), identifier: RouterId(Ipv4Addr::from(n)) }
}

impl World {
    fn new(add_path: bool, limits: (RingLimits, LogLimits)) -> Self {
        Self {
            group: UpdateGroup::with_limits(context(add_path), Seeded::new(7), limits.0, limits.1),
            add_path,
            truth: BTreeMap::new(),
            sets: Vec::new(),
            offers: 0,
            held: BTreeMap::new(),
            dests: BTreeMap::new(),
            free: Vec::new(),
            members: BTreeMap::new(),
            compactions: 0,
        }
    }

    /// An attribute set; its number is its MED.
    fn set(&mut self, change: impl FnOnce(&mut Attributes)) -> u32 {
        let med = self.sets.len() as u32;
        let mut attributes = Attributes {
            next_hop: NextHop::Global(Ipv4Addr::new(192, 0, 2, 1).into()),
            as_path: AsPath::sequence([Asn(64512), Asn(65000 + med)]),
            local_pref: Some(100),
            med: Some(med),
            ..Attributes::default()
        };
        change(&mut attributes);
        self.sets.push(Arc::new(attributes));
        med
    }

    /// Offers as a shard does: an index of a prefix is free for others once the last path is gone.
    fn offer(&mut self, prefix: IpNet, path_id: u32, route: Option<(u32, Option<PeerId>)>) {
        let key = (prefix, PathId(path_id));
        let next = self.dests.len() as u32 + self.free.len() as u32;
        let dest = *self.dests.entry(prefix).or_insert_with(|| self.free.pop().unwrap_or(next));
        match route {
            Some(route) => self.truth.insert(key, route),
            None => self.truth.remove(&key),
        };
        let set = route.map(|(set, source)| (self.sent(family_of(&prefix), set), source));
        self.group.offer(prefix, dest, key.1, set);
        if self.truth.range((prefix, PathId(0))..=(prefix, PathId(u32::MAX))).next().is_none() {
            self.dests.remove(&prefix);
            self.free.push(dest);
        }
    }

    /// A set as it is sent, or one of two others that become it: nobody hears the difference.
    fn sent(&mut self, family: Family, set: u32) -> Sent {
        self.offers += 1;
        let content = &self.sets[set as usize];
        let way = self.offers % 3;
        let held = self.held.entry((set, way)).or_insert_with(|| Arc::new(held(content, way)));
        self.group.rewritten(family, held, content).unwrap_or_else(|| Sent::from(Arc::clone(content)))
    }

    fn join(&mut self, n: u32) {
        self.group.join(receiver(n));
        self.members.insert(PeerId(n), Member::default());
    }

    fn leave(&mut self, n: u32) {
        self.group.leave(PeerId(n));
        self.members.remove(&PeerId(n));
    }

    /// Pulls once and listens; answers whether something came.
    fn pull(&mut self, n: u32, credit: usize) -> bool {
        let (mut frames, mut ended) = (Vec::new(), Vec::new());
        self.group.pull(PeerId(n), credit, &mut frames, &mut ended);
        let octets: usize = frames.iter().map(Bytes::len).sum();
        let count = messages(&frames).count();
        assert!(octets <= credit || count == 1, "{octets} octets in {count} messages for a credit of {credit}");
        assert!(credit > 0 || count == 0);
        let member = self.members.get_mut(&PeerId(n)).unwrap();
        for message in messages(&frames) {
            member.listen(&decode(message, self.add_path), &self.sets, &receiver(n));
            read_back(message, self.group.context(), &self.sets);
            member.messages.push(message.len());
        }
        member.ended.extend(&ended);
        octets > 0 || !ended.is_empty()
    }

    fn pull_all(&mut self, n: u32) {
        while self.group.has_output(PeerId(n)) {
            self.pull(n, 10_000);
        }
    }

    /// What the member is to hear.
    fn expected(&self, n: u32) -> BTreeMap<Key, u32> {
        let receiver = receiver(n);
        let hears =
            |(set, source): &(u32, Option<PeerId>)| *source != Some(receiver.peer) && !excludes(&receiver, &self.sets[*set as usize]);
        self.truth.iter().filter(|(_, route)| hears(route)).map(|(key, (set, _))| (*key, *set)).collect()
    }

    /// Everybody pulls to the end; then views, counts and listings must agree with the model.
    fn check(&mut self) {
        self.group.flush();
        let members: Vec<u32> = self.members.keys().map(|peer| peer.0).collect();
        for n in members {
            self.pull_all(n);
            let expected = self.expected(n);
            assert_eq!(self.members[&PeerId(n)].heard, expected, "member {n}");
            for family in [Family::IPV4_UNICAST, Family::IPV6_UNICAST] {
                let of_family = expected.iter().filter(|((prefix, _), _)| family_of(prefix) == family);
                let listed: BTreeMap<Key, u32> = self
                    .group
                    .advertised(PeerId(n), family)
                    .map(|told| ((told.prefix, told.path_id), told.attributes.med.unwrap()))
                    .collect();
                assert_eq!(listed, of_family.map(|(key, set)| (*key, *set)).collect());
                assert_eq!(self.group.advertised_count(PeerId(n), family), listed.len());
            }
            if let Some(((prefix, _), _)) = expected.first_key_value() {
                let at: Vec<Key> =
                    self.group.advertised_at(PeerId(n), *prefix, self.dests[prefix]).map(|told| (told.prefix, told.path_id)).collect();
                assert_eq!(at.len(), expected.keys().filter(|(other, _)| other == prefix).count());
                assert!(at.iter().all(|key| expected.contains_key(key)));
            }
        }
    }
}

/// A set that a rewrite makes the content of.
fn held(content: &Attributes, way: u32) -> Attributes {
    let mut held = content.clone();
    match way {
        0 => {}
        1 => {
            held.next_hop = NextHop::Global(Ipv4Addr::new(198, 51, 100, 7).into());
            held.rare.originator_id = None;
            (held.med, held.local_pref) = (None, None);
        }
        _ => {
            held.as_path = AsPath::sequence(held.as_path.asns().skip(1));
            held.rare.originator_id = Some(RouterId(Ipv4Addr::new(9, 9, 9, 9)));
            held.med = Some(u32::MAX);
        }
    }
    held
}

fn excludes(receiver: &Receiver, attributes: &Attributes) -> bool {
    attributes.next_hop.address() == receiver.address || attributes.rare.originator_id == Some(receiver.identifier)
}

/// Margay's own decoder finds no fault in the message, and the attributes that were offered.
fn read_back(message: &[u8], context: &Context, sets: &[Arc<Attributes>]) {
    let context = Context { add_path_receive: context.add_path_send, ..context.clone() };
    let Ok(Message::Update(update)) = Message::decode(Kind::Update, &message[19..], &context) else { panic!("not an UPDATE: {message:?}") };
    assert_eq!(update.faults, []);
    assert_eq!(update.end_of_rib, None);
    for (attributes, list) in &update.announced {
        // The sets have IPv4 next hops, which IPv6 prefixes carry as mapped addresses.
        let mut expected = Attributes::clone(&sets[attributes.med.unwrap() as usize]);
        if let (Family::IPV6_UNICAST, IpAddr::V4(address)) = (list.family(), expected.next_hop.address()) {
            expected.next_hop = NextHop::Global(address.to_ipv6_mapped().into());
        }
        assert_eq!(**attributes, expected);
    }
}

impl Member {
    fn listen(&mut self, heard: &Heard, sets: &[Arc<Attributes>], receiver: &Receiver) {
        for key in &heard.withdrawn {
            self.withdrawals += 1;
            self.superfluous += usize::from(self.heard.remove(key).is_none());
        }
        for key in &heard.announced {
            let set = heard.med.expect("every attribute set has a number");
            assert!(!excludes(receiver, &sets[set as usize]), "N7, E4");
            self.heard.insert(*key, set);
        }
    }
}

fn v4(n: u32) -> IpNet {
    Ipv4Net::new(Ipv4Addr::from(0x0a00_0000 + (n << 8)), 24).unwrap().into()
}

fn v6(n: u32) -> IpNet {
    Ipv6Net::new(Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(n) << 64), 64).unwrap().into()
}

fn any(n: u32) -> IpNet {
    if n.is_multiple_of(3) { v6(n) } else { v4(n) }
}

type Limits = (RingLimits, LogLimits);
const USUAL: Limits = (RingLimits { soft: 512 << 10, hard: 4 << 20 }, LogLimits { slack: 1024, bite: 32 << 10 });
const SMALL: Limits = (RingLimits { soft: 600, hard: 2_000 }, LogLimits { slack: 20, bite: 7 });
const WIDE: Limits = (RingLimits { soft: 64 << 20, hard: 64 << 20 }, LogLimits { slack: 100, bite: 40 });

/// One random run: six members, the slower the higher their number, and up to 320 prefixes of which the members are source, next
/// hop or originator now and then.
fn random_run(seed: u64, add_path: bool, limits: Limits) -> World {
    let mut rng = Pcg(seed);
    let mut world = World::new(add_path, limits);
    for n in 0..24 {
        world.set(|attributes| {
            if n % 6 == 1 {
                attributes.next_hop = NextHop::Global(receiver(n % 5 + 1).address);
            }
            if n % 6 == 2 {
                attributes.rare.originator_id = Some(receiver(n % 5 + 1).identifier);
            }
        });
    }
    let prefixes = 20 + rng.below(300);
    for step in 0..600 {
        // At times paths only come, as when a peer tells its table: then those who walk may read the journal again before its end.
        let only_come = step / 50 % 2 == 1;
        match rng.below(10) {
            0..4 => {
                let burst = 1 + rng.below(60);
                for _ in 0..burst {
                    let n = rng.below(if only_come { 4 * prefixes } else { prefixes });
                    let path_id = if add_path { rng.below(4) } else { 0 };
                    if only_come && world.truth.contains_key(&(any(n), PathId(path_id))) {
                        continue;
                    }
                    let source = rng.below(8);
                    let source = (source > 0).then_some(PeerId(source));
                    let route = (only_come || !rng.one_in(3)).then(|| (rng.below(24), source));
                    world.offer(any(n), path_id, route);
                }
                if !rng.one_in(5) {
                    world.group.flush();
                }
            }
            4 => {
                let n = 1 + rng.below(6);
                match world.members.contains_key(&PeerId(n)) {
                    true if rng.one_in(4) => world.leave(n),
                    true => {}
                    false => world.join(n),
                }
            }
            5 if rng.one_in(3) => {
                let n = 1 + rng.below(6);
                let family = if rng.one_in(2) { Family::IPV4_UNICAST } else { Family::IPV6_UNICAST };
                if !world.members.contains_key(&PeerId(n)) {
                    continue;
                }
                world.group.refresh(PeerId(n), family);
            }
            _ => {
                // The higher its number the slower a peer.
                let n = 1 + rng.below(6);
                if world.members.contains_key(&PeerId(n)) && rng.one_in(n * n) {
                    let credit = rng.below(3) * rng.below(5_000);
                    world.pull(n, credit as usize);
                }
            }
        }
        if rng.one_in(2) {
            world.compactions += usize::from(world.group.is_compacting());
            world.group.compact();
        }
        if rng.one_in(150) {
            world.check();
        }
    }
    world.group.complete(Family::IPV4_UNICAST);
    world.group.complete(Family::IPV6_UNICAST);
    world.check();
    world
}

#[test]
fn members_end_with_what_they_are_to_hear_and_e10_hear_no_withdrawal_of_what_they_were_not_told() {
    let mut compactions = 0;
    for seed in 0..5 {
        for add_path in [false, true] {
            for limits in [SMALL, WIDE] {
                let world = random_run(seed, add_path, limits);
                compactions += world.compactions;
                for (peer, member) in &world.members {
                    assert_eq!(member.superfluous, 0, "seed {seed}, add-path {add_path}, {limits:?}, member {peer}");
                }
            }
        }
    }
    assert!(compactions > 100, "no more than {compactions} steps of compactions");
}

/// A world of members 1 to `n` that have joined and heard everything.
fn listening(n: u32) -> World {
    let mut world = World::new(false, USUAL);
    for n in 1..=n {
        world.join(n);
        world.pull_all(n);
    }
    world
}

impl World {
    fn member(&self, n: u32) -> &Member {
        &self.members[&PeerId(n)]
    }

    /// What the next pulls bring, message by message.
    fn hear(&mut self, n: u32) -> Vec<Heard> {
        let mut heard = Vec::new();
        while self.group.has_output(PeerId(n)) {
            let mut frames = Vec::new();
            self.group.pull(PeerId(n), 64 << 10, &mut frames, &mut Vec::new());
            heard.extend(messages(&frames).map(|message| decode(message, self.add_path)));
        }
        heard
    }
}

#[test]
fn a_newcomer_that_walks_shares_with_the_others_before_it_has_heard_everything() {
    let mut world = listening(2);
    let set = world.set(|_| {});
    let tell = |world: &mut World, paths: std::ops::Range<u32>| {
        paths.for_each(|n| world.offer(v4(n), 0, Some((set, None))));
        world.group.flush();
    };
    tell(&mut world, 0..4_000);
    (1..=2).for_each(|n| world.pull_all(n));
    world.join(3);
    // Member 2 keeps the ring; member 3 is told less than comes. It knows of everything that it may board behind a round.
    let mut told_alone = Vec::new();
    for round in 0..40 {
        tell(&mut world, 4_000 + 400 * round..4_400 + 400 * round);
        world.pull_all(1);
        world.pull(3, 1_400);
        told_alone.push(world.group.encoded().private);
    }
    assert!(world.group.has_output(PeerId(3)) && !world.group.is_walking(PeerId(3)));
    assert_eq!(told_alone[20], told_alone[39], "{told_alone:?}");
    world.check();
    // A path that was there changes: who walks then has to hear everything before it shares.
    tell(&mut world, 20_000..24_000);
    world.join(4);
    world.offer(v4(20_001), 0, None);
    tell(&mut world, 24_000..24_400);
    world.pull(4, 1_400);
    tell(&mut world, 24_400..24_800);
    assert!(world.group.is_walking(PeerId(4)));
    world.check();
}

#[test]
fn one_encoding_serves_all_members_that_keep_up() {
    let mut world = listening(50);
    for round in 0..10 {
        for n in 0..100 {
            let set = world.set(|_| ());
            world.offer(any(round * 100 + n), 0, Some((set, None)));
        }
        world.group.flush();
        let mut first: Option<Vec<Bytes>> = None;
        for n in 1..=50 {
            let mut frames = Vec::new();
            world.group.pull(PeerId(n), 1 << 20, &mut frames, &mut Vec::new());
            let first = first.get_or_insert_with(|| frames.clone());
            let places = |frames: &[Bytes]| frames.iter().map(|frame| (frame.as_ptr(), frame.len())).collect::<Vec<_>>();
            assert_eq!(places(&frames), places(first), "the same octets, not a copy");
        }
    }
    assert_eq!((world.group.encoded().shared, world.group.encoded().private), (1000, 0));
}

#[test]
fn p1_messages_are_filled() {
    for credit in [4096, 10_000, 64 << 10, 1 << 20] {
        let mut world = listening(1);
        let set = world.set(|_| ());
        for n in 0..10_000 {
            world.offer(v4(n), 0, Some((set, None)));
            world.offer(v6(n), 0, Some((set, Some(PeerId(9)))));
        }
        world.group.flush();
        // One member reads the journal, the other walks.
        world.join(2);
        for n in [1, 2] {
            while world.pull(n, credit) {}
            let lengths = &world.member(n).messages;
            let full = lengths.iter().filter(|length| **length >= 4000).count();
            assert!(lengths.len() <= 10 + 23, "{} messages", lengths.len());
            assert!(full + 2 >= lengths.len(), "of each family only the last may be short: {lengths:?}");
            assert_eq!(world.member(n).heard.len(), 20_000);
        }
    }
}

#[test]
fn p1_a_walk_brings_equal_attributes_together() {
    let mut world = World::new(false, USUAL);
    let sets: Vec<u32> = (0..10).map(|_| world.set(|_| ())).collect();
    for n in 0..2_000 {
        world.offer(v4(n), 0, Some((sets[n as usize % 10], None)));
        world.group.flush();
    }
    world.join(1);
    world.pull_all(1);
    assert_eq!(world.member(1).messages.len(), 10);
}

#[test]
fn neither_family_waits_for_the_other() {
    let mut world = listening(1);
    let set = world.set(|_| ());
    for n in 0..30_000 {
        world.offer(any(n), 0, Some((set, None)));
    }
    world.group.flush();
    world.join(2);
    for n in [1, 2] {
        world.pull(n, 20_000);
        let heard = |v6: bool| world.member(n).heard.keys().filter(|(prefix, _)| prefix.addr().is_ipv6() == v6).count();
        assert!(heard(false) > 1_500 && heard(true) > 800, "{} and {}", heard(false), heard(true));
    }
}

#[test]
fn p4_what_came_and_went_within_a_round_is_not_told() {
    let mut world = listening(1);
    let (one, two) = (world.set(|_| ()), world.set(|_| ()));
    world.offer(v4(1), 0, Some((one, None)));
    world.group.flush();
    assert_eq!(world.hear(1).len(), 1);
    world.offer(v4(2), 0, Some((one, None)));
    world.offer(v4(2), 0, None);
    world.offer(v4(1), 0, Some((two, None)));
    world.offer(v4(1), 0, None);
    world.offer(v4(1), 0, Some((one, None)));
    world.group.flush();
    assert!(!world.group.has_output(PeerId(1)));
    // The index of a prefix goes to another one and comes back, all in one round.
    world.offer(v4(1), 0, None);
    world.offer(v4(3), 0, Some((two, None)));
    world.offer(v4(1), 0, Some((one, None)));
    world.group.flush();
    let heard = world.hear(1);
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0].announced, [(v4(3), PathId(0))]);
}

#[test]
fn p5_withdrawals_go_first() {
    let mut world = listening(1);
    let (one, two) = (world.set(|_| ()), world.set(|_| ()));
    for n in 0..100 {
        world.offer(v4(n), 0, Some((one, None)));
    }
    world.group.flush();
    world.hear(1);
    world.join(2);
    for n in 0..100 {
        world.offer(v4(n), 0, (n % 2 == 0).then_some((two, None)));
    }
    world.group.flush();
    let heard = world.hear(1);
    assert_eq!(heard.iter().map(|heard| (heard.withdrawn.len(), heard.announced.len())).collect::<Vec<_>>(), [(50, 0), (0, 50)]);
    let heard = world.hear(2);
    assert_eq!(heard.len(), 1, "E10: a newcomer hears no withdrawal");
    assert_eq!(heard[0].announced.len(), 50);
}

#[test]
fn p2_what_no_message_can_carry_is_withdrawn_and_reported() {
    let mut world = listening(2);
    let small = world.set(|_| ());
    let large = world.set(|attributes| attributes.as_path = AsPath::sequence((0..1_100).map(Asn)));
    world.offer(v4(1), 0, Some((small, None)));
    world.group.flush();
    world.hear(1);
    world.hear(2);
    for (n, set) in [(1, large), (2, large), (3, small)] {
        world.offer(v4(n), 0, Some((set, None)));
    }
    world.join(3);
    world.group.flush();
    let heard = world.hear(1);
    assert_eq!(heard.len(), 2);
    assert_eq!((&heard[0].withdrawn[..], &heard[1].announced[..]), (&[(v4(1), PathId(0))][..], &[(v4(3), PathId(0))][..]));
    assert_eq!(world.hear(3).len(), 1);
    let reported: Vec<IpNet> = world.group.take_unsendable().iter().map(|path| path.prefix).collect();
    assert_eq!(reported, [v4(1), v4(2)]);
    assert_eq!(world.group.advertised_count(PeerId(1), Family::IPV4_UNICAST), 1);
    assert_eq!(world.group.advertised(PeerId(1), Family::IPV4_UNICAST).count(), 1);
    // Offered again it is still too large, and made smaller it is told.
    world.offer(v4(1), 0, Some((large, None)));
    world.offer(v4(2), 0, Some((small, None)));
    world.group.flush();
    assert_eq!(world.hear(1).len(), 1);
    assert_eq!(world.group.take_unsendable(), []);
    assert_eq!(world.group.advertised_count(PeerId(1), Family::IPV4_UNICAST), 2);
}

#[test]
fn p2_a_walk_finds_what_no_message_can_carry() {
    let mut world = World::new(false, SMALL);
    let large = world.set(|attributes| attributes.as_path = AsPath::sequence((0..1_100).map(Asn)));
    let small = world.set(|_| ());
    world.offer(v4(1), 0, Some((large, Some(PeerId(2)))));
    world.offer(v4(2), 0, Some((small, Some(PeerId(2)))));
    world.join(1);
    world.join(2);
    assert_eq!(world.hear(1).len(), 1);
    assert_eq!(world.group.take_unsendable().len(), 1);
    assert_eq!(world.group.advertised_count(PeerId(1), Family::IPV4_UNICAST), 1);
    assert_eq!(world.group.advertised_count(PeerId(2), Family::IPV4_UNICAST), 0);
    assert_eq!(world.hear(2).len(), 0);
}

#[test]
fn e1_a_source_hears_the_twin_only_if_it_had_been_told() {
    let mut world = listening(3);
    let set = world.set(|_| ());
    let other = world.set(|_| ());
    world.offer(v4(1), 0, Some((set, Some(PeerId(1)))));
    world.offer(v4(2), 0, Some((set, Some(PeerId(2)))));
    world.group.flush();
    world.hear(1);
    world.hear(3);
    world.offer(v4(2), 0, Some((other, Some(PeerId(1)))));
    world.offer(v4(1), 0, Some((other, Some(PeerId(1)))));
    world.group.flush();
    let heard = world.hear(1);
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0].withdrawn, [(v4(2), PathId(0))]);
    let heard = world.hear(3);
    assert_eq!(heard.iter().map(|heard| (heard.withdrawn.len(), heard.announced.len())).collect::<Vec<_>>(), [(0, 2)]);
    world.offer(v4(1), 0, None);
    world.group.flush();
    assert_eq!(world.hear(1).len(), 0, "it was the source");
    assert_eq!(world.hear(3).len(), 1);
}

#[test]
fn q6_a_laggard_hears_the_latest_state_once() {
    let mut world = listening(8);
    let sets: Vec<u32> = (0..40).map(|_| world.set(|_| ())).collect();
    for round in 0..200 {
        for n in 0..1_000 {
            let route = ((n + round) % 5 > 0).then_some((sets[((n + round) % 40) as usize], None));
            world.offer(v4(n), 0, route);
        }
        world.group.flush();
        // Seven keep up, the eighth takes nothing.
        (1..8).for_each(|n| world.pull_all(n));
    }
    let private = world.group.encoded().private;
    assert_eq!(private, 0);
    world.pull_all(8);
    let member = world.member(8);
    assert_eq!(member.superfluous, 0);
    // It lost its place at some round and then heard one more time what had changed since.
    let octets: usize = member.messages.iter().sum();
    assert!(octets < USUAL.0.hard + 20_000, "{octets}");
    assert!(world.group.encoded().private < 200, "{:?}", world.group.encoded());
    world.check();
}

#[test]
fn q7_a_path_that_flaps_while_nobody_listens_is_told_once() {
    let mut world = World::new(false, (RingLimits { soft: 0, hard: 0 }, USUAL.1));
    let set = world.set(|_| ());
    world.join(1);
    world.pull_all(1);
    for n in 0..100 {
        world.offer(v4(n), 0, Some((set, None)));
    }
    world.group.flush();
    world.pull_all(1);
    for round in 0..50 {
        // The indices of the prefixes come back in another order each time.
        for n in 0..100 {
            world.offer(v4((n * 7 + round) % 100), 0, None);
        }
        world.group.flush();
        for n in 0..100 {
            world.offer(v4((n * 3 + round) % 100), 0, Some((set, None)));
        }
        world.group.flush();
    }
    let heard = world.hear(1);
    let (withdrawn, announced): (Vec<_>, Vec<_>) = heard.into_iter().map(|heard| (heard.withdrawn, heard.announced)).unzip();
    // The rest of the round in which it lost its place, then each path once.
    assert!(withdrawn.concat().len() <= 100, "{}", withdrawn.concat().len());
    assert!(announced.concat().len() <= 100, "{}", announced.concat().len());
}

#[test]
fn x1_path_identifiers_are_told_and_withdrawn_by_themselves() {
    let mut world = World::new(true, USUAL);
    world.join(1);
    let set = world.set(|_| ());
    for path_id in [7, 0, u32::MAX] {
        world.offer(v4(1), path_id, Some((set, None)));
        world.offer(v6(1), path_id, Some((set, None)));
    }
    world.check();
    world.offer(v4(1), 0, None);
    world.offer(v6(1), u32::MAX, None);
    world.group.flush();
    let withdrawn: Vec<Key> = world.hear(1).into_iter().flat_map(|heard| heard.withdrawn).collect();
    assert_eq!(withdrawn, [(v4(1), PathId(0)), (v6(1), PathId(u32::MAX))]);
}

#[test]
fn r4_requests_during_a_walk_cost_one_more() {
    let mut world = listening(1);
    world.group.complete(Family::IPV4_UNICAST);
    let set = world.set(|_| ());
    for n in 0..3_000 {
        world.offer(v4(n), 0, Some((set, None)));
    }
    world.pull_all(1);
    assert_eq!(world.member(1).ended, [Family::IPV4_UNICAST]);
    let before = world.member(1).messages.len();
    world.group.refresh(PeerId(1), Family::IPV4_UNICAST);
    world.pull(1, 4096);
    for _ in 0..1_000 {
        world.group.refresh(PeerId(1), Family::IPV4_UNICAST);
    }
    world.pull_all(1);
    assert_eq!(world.member(1).ended.len(), 3, "the initial table, the walk, and one follow-up");
    assert_eq!(world.member(1).messages.len(), 3 * before, "everything was told again, and again");
    assert_eq!(world.member(1).withdrawals, 0);
}

#[test]
fn r1_a_refresh_tells_what_is_and_withdraws_what_was_not_heard_to_be_gone() {
    let mut world = listening(1);
    let set = world.set(|_| ());
    for n in 0..10 {
        world.offer(v4(n), 0, Some((set, None)));
    }
    world.group.flush();
    world.pull_all(1);
    for n in 0..3 {
        world.offer(v4(n), 0, None);
    }
    world.group.complete(Family::IPV4_UNICAST);
    world.group.flush();
    world.group.refresh(PeerId(1), Family::IPV4_UNICAST);
    world.check();
    assert_eq!((world.member(1).withdrawals, world.member(1).superfluous), (3, 0));
}

#[test]
fn end_of_rib_follows_the_whole_table() {
    let mut world = World::new(false, USUAL);
    world.join(1);
    let set = world.set(|_| ());
    for n in 0..5_000 {
        world.offer(v4(n), 0, Some((set, None)));
    }
    world.pull_all(1);
    assert_eq!(world.member(1).ended, [], "the fill goes on");
    world.offer(v4(9_000), 0, Some((set, None)));
    world.group.flush();
    world.group.complete(Family::IPV4_UNICAST);
    world.group.complete(Family::IPV6_UNICAST);
    world.join(2);
    world.pull(2, 5_000);
    assert_eq!(world.member(2).ended, [Family::IPV6_UNICAST], "nothing to tell in this one");
    for n in [1, 2] {
        world.pull_all(n);
        assert_eq!(world.member(n).heard.len(), 5_001);
        let mut ended = world.member(n).ended.clone();
        ended.sort_by_key(|family| family.afi);
        assert_eq!(ended, [Family::IPV4_UNICAST, Family::IPV6_UNICAST]);
    }
}

#[test]
fn a_split_group_knows_what_its_members_were_told() {
    for limits in [SMALL, WIDE] {
        let mut world = World::new(false, limits);
        let (one, two) = (world.set(|_| ()), world.set(|_| ()));
        for n in 1..=3 {
            world.join(n);
        }
        for n in 0..600 {
            world.offer(v4(n), 0, Some((one, Some(PeerId(n % 4)))));
            if n % 100 == 0 {
                world.group.flush();
                world.pull_all(1);
                world.pull(3, 200);
            }
        }
        world.pull_all(1);
        world.pull_all(2);
        let other = world.group.split(&[PeerId(2), PeerId(3), PeerId(77)]);
        let mut moved = World {
            group: other,
            truth: world.truth.clone(),
            sets: world.sets.clone(),
            dests: world.dests.clone(),
            members: BTreeMap::new(),
            ..World::new(false, limits)
        };
        for n in [2, 3] {
            moved.members.extend(world.members.remove_entry(&PeerId(n)));
        }
        for n in 0..600 {
            world.offer(v4(n), 0, (n % 2 == 0).then_some((one, None)));
            moved.offer(v4(n), 0, (n % 2 == 1).then_some((two, Some(PeerId(2)))));
        }
        world.check();
        moved.check();
        assert!(world.members.values().chain(moved.members.values()).all(|member| member.superfluous == 0));
        assert_eq!(moved.group.members().collect::<Vec<_>>(), [PeerId(2), PeerId(3)]);
    }
}
