//! Adj-RIB-Out of an update group in one family: the latest of each path, and the log of their changes.
//!
//! One entry a path (a prefix, or a prefix and path identifier under ADD-PATH), in a flat array: 24 octets for IPv4. It refers to an
//! attribute set that is held anyway and to the rewrite that makes of it what is sent ([`sent`](super::sent)). Beside the entries
//! an append-only **log** of slots in the order of change. A slot is *valid* as long as its entry has not changed
//! since; a change appends a new slot and thereby invalidates the old one. Whoever walks the log and takes valid
//! slots only thus hears each path once, in its latest state, whatever happens meanwhile.
//!
//! A withdrawn entry stays as a *tombstone* with a valid slot until nobody needs it. A [compaction] drops
//! invalid slots and unneeded tombstones.
//!
//! The shard may use the index of a prefix again as soon as it has withdrawn it. If somebody still needs the tombstone it
//! is then *detached*: found by its prefix instead, should that come back under another index.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ipnet::IpNet;

use self::compaction::Compaction;
pub use self::compaction::LogLimits;
use super::bits::Bits;
use super::receiver::{Census, Excluded, Provenance, Receiver};
use super::sent::{RewriteId, Rewrites, Same, Seen, Sent};
use crate::types::{AddressFamily, Attributes, Nlri, PathId, PeerId};

mod compaction;

/// No entry, or no source.
const NONE: u32 = u32::MAX;

/// In a slot: before this change the path was not there to be told.
const BIRTH: u32 = 1 << 31;

/// In [`Entry::flags`]: offered since the last flush.
const PENDING: u8 = 1;
/// In [`Entry::flags`]: has a valid slot.
const LOGGED: u8 = 2;
/// In [`Entry::flags`]: no message can carry it (P2): there, but not told.
const UNSENDABLE: u8 = 4;

/// A place in the log. Numbers go on across compactions and wrap; only [`AdjRibOut`] can compare them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position(u32);

#[derive(Clone, Debug)]
struct Entry<P> {
    /// The set whose rewrite is sent, as offered last; none for tombstones and vacant entries.
    held: Option<Arc<Attributes>>,
    /// Position of the valid slot, if `LOGGED`.
    slot: u32,
    /// The peer it was learned from.
    source: u32,
    rewrite: RewriteId,
    prefix: P,
    flags: u8,
}

impl<P> Entry<P> {
    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn set(&mut self, flag: u8, on: bool) {
        self.flags = if on { self.flags | flag } else { self.flags & !flag };
    }

    fn is_live(&self) -> bool {
        self.held.is_some() && !self.has(UNSENDABLE)
    }

    fn is_vacant(&self) -> bool {
        self.held.is_none() && !self.has(PENDING | LOGGED)
    }

    /// What is told; none for tombstones and what does not fit.
    fn told(&self) -> Option<Seen<'_>> {
        self.held.as_ref().filter(|_| self.is_live()).map(|held| Seen { held, rewrite: self.rewrite })
    }

    fn source(&self) -> Option<PeerId> {
        (self.source != NONE).then_some(PeerId(self.source))
    }
}

/// Under ADD-PATH, beside each entry: its identifier and the next entry of the same prefix.
#[derive(Clone, Copy, Debug)]
struct Link {
    path_id: PathId,
    next: u32,
}

/// What an entry was at the last flush, kept from its first offer in a round.
#[derive(Clone, Debug)]
struct Old {
    entry: u32,
    source: u32,
    sent: Option<Sent>,
}

/// An entry that a round changed.
#[derive(Clone, Debug)]
pub(super) struct Changed {
    pub entry: u32,
    /// What was told before, and the peer it was learned from; none if nothing was.
    pub before: Option<(Sent, Option<PeerId>)>,
}

/// Slots whose paths, as they were before, these members had not been told.
#[derive(Clone, Debug)]
struct Untold {
    start: u32,
    end: u32,
    members: Excluded,
}

#[derive(Clone, Debug)]
pub(super) struct AdjRibOut<A: AddressFamily> {
    entries: Vec<Entry<A::Prefix>>,
    rewrites: Rewrites,
    /// Of the same length as `entries` under ADD-PATH, else empty.
    links: Vec<Link>,
    add_path: bool,
    /// By the shard's index of the prefix: its first entry.
    heads: Vec<u32>,
    /// Tombstones whose index the shard has used again.
    detached: BTreeMap<(A::Prefix, PathId), u32>,
    /// Entries that belong to nothing.
    free: Vec<u32>,
    log: Vec<u32>,
    /// Position of `log[0]`.
    base: u32,
    /// Where those slots begin after which only paths have come that were not there.
    births_since: Position,
    /// In order of their slots; only of slots that a member may have to be told round by round.
    untold: VecDeque<Untold>,
    /// Entries that are told, as of the last round, and how many they are.
    told: Bits,
    live: usize,
    round: Vec<Old>,
    limits: LogLimits,
    /// Length of the log at which compaction is worth a try again.
    compact_at: usize,
    /// One that has begun.
    compaction: Option<Box<Compaction>>,
}

/// So many slots of a stretch of the log are looked at to judge it.
const SAMPLE: usize = 64;
/// Of so many slots more than one is invalid where much has been superseded.
const SUPERSEDED: usize = 8;
/// Changes of a round for which room is kept.
const ROUND: usize = 4096;

impl<A: AddressFamily> AdjRibOut<A> {
    /// Octets of memory that the entries and their log have reserved.
    pub fn reserved(&self) -> usize {
        let numbers = self.heads.capacity() + self.free.capacity() + self.log.capacity();
        let entries = self.entries.capacity() * size_of::<Entry<A::Prefix>>() + self.links.capacity() * size_of::<Link>();
        let rewrites = self.rewrites.reserved();
        rewrites
            + entries
            + self.told.reserved()
            + numbers * 4
            + self.round.capacity() * size_of::<Old>()
            + self.untold.capacity() * size_of::<Untold>()
    }

    pub fn new(add_path: bool, limits: LogLimits) -> Self {
        Self {
            entries: Vec::new(),
            rewrites: Rewrites::new(),
            links: Vec::new(),
            add_path,
            heads: Vec::new(),
            detached: BTreeMap::new(),
            free: Vec::new(),
            log: Vec::new(),
            base: 0,
            births_since: Position(0),
            untold: VecDeque::new(),
            told: Bits::default(),
            live: 0,
            round: Vec::new(),
            limits,
            compact_at: limits.slack,
            compaction: None,
        }
    }

    /// The latest word on a path. `passed` is a position before which nobody needs old slots or tombstones, if it is known.
    pub fn offer(
        &mut self,
        prefix: A::Prefix,
        dest: u32,
        path_id: PathId,
        route: Option<(Sent, Option<PeerId>)>,
        passed: Option<Position>,
    ) {
        let path_id = if self.add_path { path_id } else { PathId(0) };
        let entry = match self.find(prefix, dest, path_id) {
            Some(entry) => entry,
            None => {
                self.evict_other(prefix, dest, passed);
                if route.is_none() {
                    return;
                }
                self.attach(prefix, dest, path_id)
            }
        };
        let (sent, source) = route.map_or((None, None), |(sent, source)| (Some(sent), source));
        self.put(entry, sent, source);
    }

    /// Ends a round: the entries that really changed, in order of their first offer.
    pub fn settle(&mut self) -> Vec<Changed> {
        let mut round = std::mem::take(&mut self.round);
        let mut changes = Vec::with_capacity(round.len());
        let mut same = Same::default();
        for old in round.drain(..) {
            let entry = &mut self.entries[old.entry as usize];
            entry.set(PENDING, false);
            let new = entry.held.as_ref().map(|held| Seen { held, rewrite: entry.rewrite });
            let same = old.source == entry.source && same.is(old.sent.as_ref().map(Sent::as_seen), new, &self.rewrites);
            if same {
                continue;
            }
            let before = old.sent.filter(|_| !entry.has(UNSENDABLE));
            entry.set(UNSENDABLE, false);
            if before.is_none() && entry.held.is_none() {
                continue;
            }
            let is_told = entry.held.is_some();
            self.live = self.live + usize::from(is_told) - usize::from(before.is_some());
            self.told.put(old.entry, is_told);
            let source = (old.source != NONE).then_some(PeerId(old.source));
            changes.push(Changed { entry: old.entry, before: before.map(|sent| (sent, source)) });
        }
        round.shrink_to(ROUND);
        self.round = round;
        changes
    }

    /// A live entry turns out to be unsendable: it is not told any more.
    pub fn withhold(&mut self, number: u32) {
        let entry = &mut self.entries[number as usize];
        if entry.is_live() {
            entry.flags |= UNSENDABLE;
            self.live -= 1;
            self.told.clear(number);
        }
    }

    /// Appends a slot for the entry. `birth`: nothing was told of it before; else `before` are those that were not.
    pub fn append(&mut self, entry: u32, birth: bool, before: &Excluded) {
        let position = self.end().0;
        let e = &mut self.entries[entry as usize];
        // A tombstone that somebody has not been told of is no longer told where it was, so what takes its place is no mere birth.
        let mere_birth = birth && !e.has(LOGGED);
        e.set(LOGGED, true);
        e.slot = position;
        self.log.push(entry | if birth { BIRTH } else { 0 });
        if !mere_birth {
            self.births_since = self.end();
        }
        match self.untold.back_mut() {
            _ if before.is_empty() => {}
            Some(last) if last.end == position && last.members == *before => last.end = position.wrapping_add(1),
            _ => self.untold.push_back(Untold { start: position, end: position.wrapping_add(1), members: before.clone() }),
        }
    }

    /// Forgets what is needed only for members that have been told no further than before the position.
    pub fn forget_before(&mut self, position: Position) {
        let passed = self.index(position);
        while self.untold.pop_front_if(|untold| untold.end.wrapping_sub(self.base) as usize <= passed).is_some() {}
    }

    /// The oldest slot.
    pub fn start(&self) -> Position {
        Position(self.base)
    }

    /// Where the next slot will be.
    pub fn end(&self) -> Position {
        self.position(self.log.len())
    }

    /// No path that was there before it has changed since this position, or a later one.
    pub fn births_since(&self) -> Position {
        self.births_since
    }

    /// The position after `position`.
    pub fn after(&self, position: Position) -> Position {
        Position(position.0.wrapping_add(1))
    }

    /// The entry whose valid slot is at the position, if there is one.
    pub fn valid(&self, position: Position) -> Option<u32> {
        let entry = self.log.get(self.index(position))? & !BIRTH;
        let e = self.entries.get(entry as usize)?;
        (e.has(LOGGED) && e.slot == position.0).then_some(entry)
    }

    /// Whether much of what has changed since the position has changed again, as a sample of the slots says.
    pub fn is_superseded(&self, since: Position) -> bool {
        let start = self.index(since).min(self.log.len());
        let slots = (start..self.log.len()).step_by(((self.log.len() - start) / SAMPLE).max(1));
        let all = slots.len();
        let invalid = slots.filter(|index| self.valid(self.position(*index)).is_none()).count();
        invalid * SUPERSEDED > all
    }

    /// What is told under the entry; none for tombstones and what does not fit.
    pub fn sent(&self, entry: u32) -> Option<Seen<'_>> {
        self.entries[entry as usize].told()
    }

    /// What the sets that are held become.
    pub fn rewrites(&self) -> &Rewrites {
        &self.rewrites
    }

    /// The same, to add to them.
    pub fn rewrites_mut(&mut self) -> &mut Rewrites {
        &mut self.rewrites
    }

    /// What decides from whom a route is kept.
    pub fn provenance(&self, sent: Seen<'_>, source: Option<PeerId>) -> Provenance {
        Provenance::of(source, sent.held, self.rewrites.get(sent.rewrite))
    }

    /// The peer that the entry was learned from.
    pub fn source(&self, entry: u32) -> Option<PeerId> {
        self.entries[entry as usize].source()
    }

    /// The entry as it stands in a message.
    pub fn nlri(&self, entry: u32) -> Nlri<A::Prefix> {
        Nlri { prefix: self.entries[entry as usize].prefix, path_id: self.path_id(entry) }
    }

    /// Octets that the entry takes in a message.
    pub fn octets(&self, entry: u32) -> usize {
        let prefix: IpNet = self.entries[entry as usize].prefix.into();
        1 + usize::from(prefix.prefix_len().div_ceil(8)) + if self.add_path { 4 } else { 0 }
    }

    /// What the member is to hear of the entry now.
    pub fn told_to(&self, entry: u32, receiver: &Receiver) -> Option<Seen<'_>> {
        let entry = &self.entries[entry as usize];
        let told = entry.told()?;
        (!receiver.is_excluded(&self.provenance(told, entry.source()))).then_some(told)
    }

    /// Entries that are told.
    pub fn live(&self) -> usize {
        self.live
    }

    /// All entries that are told to the member.
    pub fn told<'a>(&'a self, receiver: &'a Receiver) -> impl Iterator<Item = u32> + 'a {
        (0..self.entries.len() as u32).filter(move |entry| self.told_to(*entry, receiver).is_some())
    }

    /// The entries of one prefix.
    pub fn at(&self, prefix: A::Prefix, dest: u32) -> impl Iterator<Item = u32> + '_ {
        self.chain(dest).filter(move |entry| self.entries[*entry as usize].prefix == prefix)
    }

    /// Which entries a member knows that has been told everything before `cursor` round by round, and nothing after; `census` counts what
    /// is told now. It is a copy of a set that is kept, with little done to it: of a hundred members who ask for everything again in one
    /// instant each wants its own, and all others wait meanwhile.
    pub fn known_at(&self, cursor: Position, receiver: &Receiver, census: &Census) -> Bits {
        let mut known = self.told.clone();
        self.keep_from(receiver, census, &mut known);
        let cursor = self.index(cursor);
        // The earliest change after the cursor says what was before it, so it has the last word.
        let mut untold = self.untold.iter().rev().filter(|untold| untold.members.has(receiver.peer)).peekable();
        for index in (cursor..self.log.len()).rev() {
            let slot = self.log[index];
            while untold.next_if(|untold| self.index(Position(untold.start)) > index).is_some() {}
            let kept_from_it = untold.peek().is_some_and(|untold| self.index(Position(untold.end)) > index);
            if slot & BIRTH == 0 && !kept_from_it {
                known.set(slot & !BIRTH);
            } else {
                known.clear(slot & !BIRTH);
            }
        }
        known
    }

    /// Takes out what is kept from the member, if anything is: what is told is looked at until all of that is found.
    fn keep_from(&self, receiver: &Receiver, census: &Census, known: &mut Bits) {
        let (mut left, only_its_own) = census.kept_from(receiver);
        for (number, entry) in (0..).zip(&self.entries) {
            if left == 0 {
                return;
            }
            // What another one is told under is far away in memory, whose it is stands in the entry.
            let is_kept = if only_its_own { receiver.is_source(entry.source()) } else { self.told_to(number, receiver).is_none() };
            if is_kept && known.clear(number) {
                left -= 1;
            }
        }
    }

    /// Distance from the start of the log.
    pub fn index(&self, position: Position) -> usize {
        position.0.wrapping_sub(self.base) as usize
    }

    fn position(&self, index: usize) -> Position {
        Position(self.base.wrapping_add(index as u32))
    }

    fn is_passed(&self, entry: u32, passed: Option<Position>) -> bool {
        passed.is_some_and(|passed| self.index(Position(self.entries[entry as usize].slot)) < self.index(passed))
    }

    fn path_id(&self, entry: u32) -> PathId {
        self.links.get(entry as usize).map_or(PathId(0), |link| link.path_id)
    }

    fn next(&self, entry: u32) -> u32 {
        self.links.get(entry as usize).map_or(NONE, |link| link.next)
    }

    fn chain(&self, dest: u32) -> impl Iterator<Item = u32> + '_ {
        let head = self.heads.get(dest as usize).copied().unwrap_or(NONE);
        std::iter::successors((head != NONE).then_some(head), |at| Some(self.next(*at)).filter(|next| *next != NONE))
    }

    fn find(&self, prefix: A::Prefix, dest: u32, path_id: PathId) -> Option<u32> {
        self.chain(dest).find(|entry| {
            let e = &self.entries[*entry as usize];
            e.prefix == prefix && self.path_id(*entry) == path_id && !e.is_vacant()
        })
    }

    /// If entries of another prefix stand under the index: lets go of them.
    fn evict_other(&mut self, prefix: A::Prefix, dest: u32, passed: Option<Position>) {
        let mut at = match self.heads.get(dest as usize) {
            Some(&head) if head != NONE && self.entries[head as usize].prefix != prefix => head,
            _ => return,
        };
        self.heads[dest as usize] = NONE;
        while at != NONE {
            let next = self.next(at);
            if self.entries[at as usize].held.is_some() {
                self.put(at, None, None);
            }
            let needed = self.entries[at as usize].has(LOGGED) && !self.is_passed(at, passed);
            let entry = &mut self.entries[at as usize];
            if !entry.has(PENDING) && !needed {
                entry.set(LOGGED, false);
                self.free.push(at);
            } else {
                self.detached.insert((self.entries[at as usize].prefix, self.path_id(at)), at);
            }
            at = next;
        }
    }

    /// Puts an entry for the path under the index: its own tombstone, a vacant one, or a new one.
    fn attach(&mut self, prefix: A::Prefix, dest: u32, path_id: PathId) -> u32 {
        if self.heads.len() <= dest as usize {
            self.heads.resize(dest as usize + 1, NONE);
        }
        let vacant = self.chain(dest).find(|entry| self.entries[*entry as usize].is_vacant());
        let entry = match (self.detached.remove(&(prefix, path_id)), vacant) {
            (None, Some(entry)) => {
                if let Some(link) = self.links.get_mut(entry as usize) {
                    link.path_id = path_id;
                }
                return entry;
            }
            (Some(entry), vacant) => {
                self.free.extend(vacant.filter(|_| !self.add_path));
                entry
            }
            (None, None) => self.free.pop().unwrap_or_else(|| self.allocate(prefix)),
        };
        self.entries[entry as usize].prefix = prefix;
        if let Some(link) = self.links.get_mut(entry as usize) {
            *link = Link { path_id, next: self.heads[dest as usize] };
        }
        self.heads[dest as usize] = entry;
        entry
    }

    fn allocate(&mut self, prefix: A::Prefix) -> u32 {
        self.entries.push(Entry { held: None, slot: 0, source: NONE, rewrite: RewriteId::default(), prefix, flags: 0 });
        if self.add_path {
            self.links.push(Link { path_id: PathId(0), next: NONE });
        }
        self.entries.len() as u32 - 1
    }

    fn put(&mut self, index: u32, sent: Option<Sent>, source: Option<PeerId>) {
        let entry = &mut self.entries[index as usize];
        let (held, rewrite) = sent.map_or((None, RewriteId::default()), |sent| (Some(sent.held), sent.rewrite));
        let held = std::mem::replace(&mut entry.held, held);
        let rewrite = std::mem::replace(&mut entry.rewrite, rewrite);
        let source = std::mem::replace(&mut entry.source, source.map_or(NONE, |peer| peer.0));
        if !entry.has(PENDING) {
            entry.set(PENDING, true);
            self.round.push(Old { entry: index, source, sent: held.map(|held| Sent { held, rewrite }) });
        }
    }
}

#[cfg(test)]
mod tests;
