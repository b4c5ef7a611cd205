//! Fuzzing: one body a target, a function of octets that panics where an invariant breaks.
//!
//! ```text
//! octets ─▶ message    what a peer says, in six kinds of session
//!        ─▶ session    a Peer machine between sockets, clock and shards
//!        ─▶ rib        a shard beside a naive model of what each peer should know
//!        ─▶ selector   Calico's selectors, against what they mean for some labels
//!        ─▶ resources  YAML and JSON of resource files, through the Compiler
//!        ─▶ netlink    what the kernel says
//!        ─▶ bird       a line for `bird.ctl`
//!        ─▶ control    a request to the control API
//! ```
//!
//! `cargo test --test fuzz` runs each body for a bounded number of inputs, the same ones each time: the corpus (vectors, topologies, the
//! seeds of each target) and mutations of it. `cargo fuzz-target NAME` hands the same bodies to libFuzzer, which looks where coverage
//! grows, for as long as one lets it; what it finds is a file that `FUZZ_INPUT=FILE cargo test --test fuzz NAME` runs once.

mod bird;
mod control;
mod netlink;
mod resources;
mod rib;
mod selector;
mod session;

use crate::story::Dice;
use crate::wire::mutate;
use crate::wire::vector::Vectors;

/// What is fuzzed.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Takes any octets.
    pub body: fn(&[u8]),
    /// Octets that mean something to it.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const ALL: [Target; 8] = [
    Target { name: "message", body: mutate::fuzz, seeds: messages },
    Target { name: "session", body: session::body, seeds: session::seeds },
    Target { name: "rib", body: rib::body, seeds: rib::seeds },
    Target { name: "selector", body: selector::body, seeds: selector::seeds },
    Target { name: "resources", body: resources::body, seeds: resources::seeds },
    Target { name: "netlink", body: netlink::body, seeds: netlink::seeds },
    Target { name: "bird", body: bird::body, seeds: bird::seeds },
    Target { name: "control", body: control::body, seeds: control::seeds },
];

impl Target {
    /// The target of that name.
    pub fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|target| target.name == name)
    }

    /// The seeds, then `count` inputs made of them: the same ones each time.
    pub fn inputs(&self, count: usize) -> impl Iterator<Item = Vec<u8>> {
        let seeds = (self.seeds)();
        let mut dice = Dice(self.name.bytes().fold(179, |sum, octet| sum * 31 + u64::from(octet)));
        let first = seeds.clone().into_iter();
        first.chain((0..count).map(move |_| mutated(&seeds, &mut dice)))
    }
}

/// Recorded messages, in each kind of session.
fn messages() -> Vec<Vec<u8>> {
    let all = Vectors::all();
    let messages = all.iter().flat_map(|vectors| vectors.messages().map(<[u8]>::to_vec).collect::<Vec<_>>());
    messages.enumerate().map(|(number, message)| [&[number as u8], message.as_slice()].concat()).collect()
}

/// One seed, or a part of one and of another, a little wrong.
fn mutated(seeds: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut octets = some(seeds, dice);
    if dice.below(4) == 0 {
        let other = some(seeds, dice);
        octets.truncate(dice.below(octets.len() as u64 + 1) as usize);
        octets.extend_from_slice(&other[dice.below(other.len() as u64 + 1) as usize..]);
    }
    for _ in 0..=dice.below(4) {
        let at = dice.below(octets.len() as u64 + 1) as usize;
        match dice.below(6) {
            0 if at < octets.len() => octets[at] ^= 1 << dice.below(8),
            1 if at < octets.len() => octets[at] = dice.roll() as u8,
            2 if at < octets.len() => drop(octets.remove(at)),
            3 => octets.insert(at, [0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b' '][dice.below(8) as usize]),
            4 => octets.truncate(at),
            _ => {
                let end = at + dice.below((octets.len() - at) as u64 + 1) as usize;
                let part = octets[at..end.min(at + 64)].to_vec();
                octets.splice(at..at, part);
            }
        }
    }
    octets
}

fn some(seeds: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    seeds.get(dice.below(seeds.len() as u64) as usize).cloned().unwrap_or_default()
}

/// Octets taken one after the other, zeros at the end: decisions of a body.
#[derive(Debug)]
pub(crate) struct Choices<'a>(pub &'a [u8]);

impl Choices<'_> {
    /// Whether there is anything left to decide by.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next octet.
    pub(crate) fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `bound`, which is at most 256.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.next()) % bound.max(1)
    }

    /// So many octets, fewer at the end.
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }
}
