//! A shard beside a naive model. The model knows what each peer has told last and nothing of how it came to that; whoever listens must
//! in the end know what a fresh shard tells that hears the model alone. On the way nobody is told what nobody has announced.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ipnet::{IpNet, Ipv4Net};
use margay::rib::{Input, Output, RibConfig, Shard};
use margay::session::{RouteBatch, RouteChange, SessionEnd};
use margay::types::{AsPath, Asn, Attributes, Nlri, NlriList, Origin, Outbox, PathId, PeerId, PerFamily, RouterId, ShardId, Sync};
use margay::wire::{Message, frame};

use super::Choices;
use crate::shard::{address, asn, context, facts};

const PEERS: u32 = 4;
const PREFIXES: u8 = 12;

/// What each peer has told last, while it is up.
type Told = BTreeMap<(u32, u8), Attributes>;

struct World {
    shard: Shard,
    now: Instant,
    out: Outbox<Output>,
    /// What each peer that is up has heard.
    heard: BTreeMap<u32, BTreeMap<IpNet, Attributes>>,
}

/// Each octet says what happens next.
pub fn body(data: &[u8]) {
    let (world, told) = play(data);
    let mut fresh = World::new();
    world.heard.keys().for_each(|peer| fresh.up(*peer));
    for ((peer, prefix), set) in &told {
        fresh.announce(*peer, *prefix, set.clone());
    }
    fresh.settle();
    assert_eq!(world.heard, fresh.heard, "{told:?}");
}

/// What comes of it once everything is at rest, and what was told last.
fn play(data: &[u8]) -> (World, Told) {
    let mut choices = Choices(data);
    let mut world = World::new();
    let mut told = Told::new();
    (0..PEERS).for_each(|peer| world.up(peer));
    while !choices.is_empty() {
        world.happens(&mut choices, &mut told);
    }
    world.settle();
    (world, told)
}

impl World {
    fn new() -> Self {
        let config = RibConfig { router_id: RouterId([10, 7, 0, 1].into()), cluster_id: None, max_paths: 4, protocol: 12 };
        let shard = Shard::new(ShardId(0), 7, Arc::new(config));
        let mut world = Self { shard, now: Instant::now(), out: Outbox::new(), heard: BTreeMap::new() };
        world.say(Input::Local(Sync::Begin));
        world.say(Input::Local(Sync::End));
        world.say(Input::RecoveryDone);
        world.round();
        world
    }

    fn happens(&mut self, choices: &mut Choices<'_>, told: &mut Told) {
        let (peer, prefix) = (choices.below(PEERS as usize) as u32, choices.below(usize::from(PREFIXES)) as u8);
        let is_up = self.heard.contains_key(&peer);
        match choices.below(10) {
            0..=3 if is_up => {
                let set = attributes(peer, choices);
                told.insert((peer, prefix), set.clone());
                self.announce(peer, prefix, set);
            }
            4 | 5 if is_up => {
                told.remove(&(peer, prefix));
                self.change(peer, RouteChange::Withdraw(list(prefix)));
            }
            6 if is_up => {
                told.retain(|(teller, _), _| *teller != peer);
                self.heard.remove(&peer);
                self.say(Input::PeerDown { peer: PeerId(peer), keep: PerFamily::default(), end: SessionEnd::Lost });
            }
            7 if !is_up => self.up(peer),
            8 => self.round(),
            9 if is_up => {
                self.say(Input::Pull { peer: PeerId(peer), credit: 64 + 16 * choices.below(256) });
                self.round();
            }
            _ => {}
        }
    }

    fn up(&mut self, peer: u32) {
        self.heard.insert(peer, BTreeMap::new());
        self.say(Input::PeerUp(Arc::new(facts(peer))));
    }

    fn announce(&mut self, peer: u32, prefix: u8, set: Attributes) {
        self.change(peer, RouteChange::Announce(Arc::new(set), list(prefix)));
    }

    fn change(&mut self, peer: u32, change: RouteChange) {
        self.say(Input::Routes(RouteBatch { peer: PeerId(peer), changes: vec![change] }));
    }

    fn say(&mut self, input: Input) {
        self.shard.handle(self.now, input, &mut self.out);
    }

    fn round(&mut self) {
        self.shard.finish_round(self.now, &mut self.out);
        for output in self.out.drain().collect::<Vec<_>>() {
            if let Output::Frames { peer, frames, .. } = output {
                let heard = self.heard.get_mut(&peer.0).expect("frames for a peer that is up");
                frames.iter().for_each(|frame| hear(heard, frame));
            }
        }
    }

    /// Everybody reads until nobody is told anything any more.
    fn settle(&mut self) {
        for _ in 0..50 {
            for peer in self.heard.keys().copied().collect::<Vec<_>>() {
                self.say(Input::Pull { peer: PeerId(peer), credit: 1 << 20 });
            }
            self.round();
            while let Some(due) = self.shard.deadline().filter(|due| *due <= self.now + Duration::from_secs(1)) {
                self.now = self.now.max(due);
                self.round();
            }
        }
    }
}

/// Everything of this peer: its path may be long or short, and its MED and ORIGIN differ.
fn attributes(peer: u32, choices: &mut Choices<'_>) -> Attributes {
    let hops = 1 + choices.below(3) as u32;
    let origin = [Origin::Igp, Origin::Egp, Origin::Incomplete][choices.below(3)];
    let med = (choices.below(2) == 1).then(|| choices.below(3) as u32);
    let path = AsPath::sequence(std::iter::once(asn(peer)).chain((1..hops).map(Asn)));
    Attributes { as_path: path, origin, med, next_hop: margay::types::NextHop::Global(address(peer)), ..Attributes::default() }
}

fn list(prefix: u8) -> NlriList {
    let prefix = Ipv4Net::new_assert([10, 100, prefix, 0].into(), 24);
    NlriList::Ipv4(vec![Nlri { prefix, path_id: PathId(0) }])
}

fn hear(heard: &mut BTreeMap<IpNet, Attributes>, frame: &[u8]) {
    let mut buffer = BytesMut::from(frame);
    while let Some(message) = frame::next(&mut buffer, &context()).expect("a whole message") {
        let Ok(Message::Update(update)) = Message::decode(message.kind, &message.body, &context()) else { continue };
        assert_eq!(update.faults, [], "margay tells no faulty UPDATE");
        for item in update.withdrawn.iter().flat_map(NlriList::iter) {
            assert!(heard.remove(&item.prefix).is_some(), "{} is withdrawn, but was not told", item.prefix);
        }
        for (set, list) in &update.announced {
            for item in list.iter() {
                let before = heard.insert(item.prefix, Attributes::clone(set));
                assert_ne!(before.as_ref(), Some(&**set), "{} is told again unchanged", item.prefix);
            }
        }
    }
}

/// A few changes of mind.
pub fn seeds() -> Vec<Vec<u8>> {
    vec![
        vec![0, 0, 0, 0, 0, 0, 1, 0, 8, 1, 0, 0, 1, 1, 1, 0, 8, 0, 0, 4, 8],
        vec![0, 1, 0, 2, 0, 0, 2, 0, 9, 255, 1, 1, 6, 1, 1, 7, 1, 1, 0, 0, 0, 0, 8],
        vec![2, 5, 0, 0, 0, 0, 3, 5, 0, 1, 0, 0, 0, 0, 8, 2, 5, 6, 0, 0, 8, 2, 5, 7, 0, 0, 9, 10],
        (0..200).map(|number: u32| (number * 37 % 251) as u8).collect(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_tell_something_and_take_something_back() {
        let heard: Vec<usize> = seeds().iter().map(|seed| play(seed).0.heard.values().map(BTreeMap::len).sum()).collect();
        assert!(heard.iter().filter(|count| **count > 0).count() >= 3, "{heard:?}");
    }
}
