//! The end of a round of an update group: changes are ordered, encoded once, and appended to log and journal.

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use smallvec::{SmallVec, smallvec};

use super::adj_rib_out::Changed;
use super::bunch::{Bunches, bunches};
use super::contents::Contents;
use super::journal::{Audience, Demand};
use super::outbound::Outbound;
use super::reader::Progress;
use super::receiver::{Census, Excluded, Provenance, Receivers};
use super::sent::{Key, Seen};
use crate::types::{AddressFamily, PeerId};
use crate::wire::{Context, pack};

/// An entry that a round changed, and who hears of it.
#[derive(Clone, Copy, Debug)]
struct Item {
    entry: u32,
    /// Nobody has been told of it before.
    birth: bool,
    /// Number of those that did not hear of what was before.
    before: u32,
    /// Number of those that do not hear of what is now.
    now: u32,
}

/// What a round changed, in bunches that share messages.
#[derive(Debug)]
struct Changes {
    withdrawals: Bunches<u32, Item>,
    /// By what is sent and those that do not hear of it.
    announcements: Bunches<(Key, u32), Item>,
    /// Withdrawals for members that were told of an entry and are to hear no more of it.
    twins: Bunches<PeerId, u32>,
    exclusions: Exclusions,
}

/// Runs on their way into log and journal.
#[derive(Debug, Default)]
struct Batch {
    items: Vec<Item>,
    frames: Vec<Bytes>,
    /// Of each run the readers, and the ends of its items and frames.
    runs: Vec<(Audience, usize, usize)>,
}

impl Batch {
    fn end_run(&mut self, audience: Audience) {
        self.runs.push((audience, self.items.len(), self.frames.len()));
    }
}

impl<A: AddressFamily> Outbound<A> {
    /// Ends a round: changes go into the log, and encoded once into the journal if anybody reads it.
    pub fn flush(&mut self, receivers: &Receivers, context: &Context) {
        let changed = self.rib.settle();
        if !changed.is_empty() {
            self.flush_some(changed, receivers, context);
        }
    }

    #[inline(never)]
    fn flush_some(&mut self, changed: Vec<Changed>, receivers: &Receivers, context: &Context) {
        self.let_readers_in();
        self.trim();
        let encode = (self.readers.len() > self.lingering).then_some(context);
        let before = self.rib.end();
        let mut changes = self.assess(changed, receivers);
        let announced = self.announce(&mut changes, encode, receivers);
        let withdrawn = self.withdraw(&mut changes, encode);
        let twins = self.twins(&mut changes, encode);
        for batch in [withdrawn, twins, announced] {
            self.write(batch, &changes.exclusions);
        }
        if self.rib.end() != before {
            self.late = self.readers.len();
        }
        match encode {
            Some(_) => self.journal.end_round(self.rib.end()),
            None => self.journal.clear(self.rib.end()),
        }
        if let Some(passed) = self.passed() {
            self.rib.forget_before(passed);
        }
        self.compact_if(false, receivers);
    }

    /// Walkers that have nothing left before them read the journal from here on.
    fn let_readers_in(&mut self) {
        if self.lingering == 0 {
            return;
        }
        for reader in self.readers.values_mut() {
            if matches!(&reader.progress, Progress::Walking(walk) if walk.is_drained() && walk.cursor == self.rib.end()) {
                reader.progress = Progress::at_end(&self.rib, &self.journal);
                self.lingering -= 1;
                self.late -= 1;
            }
        }
    }

    /// Bounds the ring; members whose next frame goes will walk.
    fn trim(&mut self) {
        let next = |progress: &Progress| match progress {
            Progress::Following(place) => Some(place.next),
            _ => None,
        };
        let end = self.journal.excess(|| Demand {
            readers: self.readers.values().filter_map(|reader| next(&reader.progress)).collect(),
            lingering: self.lingering,
            superseded: self.rib.is_superseded(self.journal.start()),
        });
        if end == self.journal.first() {
            return;
        }
        for (peer, reader) in &mut self.readers {
            if next(&reader.progress).is_some_and(|next| next < end) {
                reader.progress.fall_behind(&self.journal, *peer);
                self.lingering += 1;
            }
        }
        self.journal.drop_before(end);
    }

    /// Sorts the changes, finds out whom they concern, and counts.
    fn assess(&mut self, changed: Vec<Changed>, receivers: &Receivers) -> Changes {
        let mut exclusions = Exclusions::new();
        let announced = changed.iter().filter(|changed| self.rib.sent(changed.entry).is_some()).count();
        let mut withdrawals = Bunches::with_capacity(changed.len() - announced);
        let mut announcements = Bunches::with_capacity(announced);
        let (mut old, mut new) = (Lookup::new(-1), Lookup::new(1));
        let mut moves = Moves::default();
        for Changed { entry, before: told } in changed {
            let birth = told.is_none();
            let before = told.map_or(0, |(sent, source)| {
                let (sent, rib) = (sent.as_seen(), &self.rib);
                let find = |of: &_| exclusions.number(receivers.excluded(of));
                old.number(sent, source, || rib.provenance(sent, source), find, &mut self.census)
            });
            let Some(sent) = self.rib.sent(entry) else {
                withdrawals.push(before, Item { entry, birth, before, now: 0 });
                moves.add(self, (before, 0), &exclusions);
                continue;
            };
            let (rib, source) = (&self.rib, self.rib.source(entry));
            let find = |of: &_| exclusions.number(receivers.excluded(of));
            let now = new.number(sent, source, || rib.provenance(sent, source), find, &mut self.census);
            announcements.push((sent.key(), now), Item { entry, birth, before, now });
            moves.add(self, (before, now), &exclusions);
        }
        moves.settle(self, &exclusions);
        if old.of == new.of {
            new.change += std::mem::take(&mut old.change);
        }
        old.settle(&mut self.census);
        new.settle(&mut self.census);
        Changes { withdrawals, announcements, twins: Bunches::with_capacity(0), exclusions }
    }

    /// Encodes the announcements by attribute set. What no message can carry is withheld, and withdrawn if it had been told.
    fn announce(&mut self, changes: &mut Changes, context: Option<&Context>, receivers: &Receivers) -> Batch {
        let mut batch = Batch::default();
        let mut nlri = Vec::new();
        let mut unsendable = Vec::new();
        let mut items = std::mem::replace(&mut changes.announcements, Bunches::with_capacity(0)).into_items();
        let contents = context.map(|context| {
            let sent = |item: &Item| Some((self.rib.sent(item.entry)?, item.now));
            Contents::of::<A, _>(&mut items, sent, (self.rib.rewrites(), context, &self.seeded))
        });
        batch.items.reserve(items.len());
        for run in bunches(&items) {
            nlri.clear();
            nlri.extend(run.iter().map(|(_, item)| self.rib.nlri(item.entry)));
            let head = contents.as_ref().map(|contents| contents.head(run[0].0));
            let left = context.zip(head).map(|(context, head)| head.announce::<A>(&nlri, context, &mut batch.frames));
            let left = left.unwrap_or_default();
            let mut unsent = 0;
            for ((_, item), nlri) in run.iter().zip(&nlri) {
                if left.get(unsent) == Some(nlri) {
                    unsent += 1;
                    unsendable.push(item.entry);
                    if !item.birth {
                        changes.withdrawals.push(item.before, *item);
                    }
                    continue;
                }
                if !item.birth && item.before != item.now {
                    let (before, now) = (changes.exclusions.set(item.before), changes.exclusions.set(item.now));
                    now.iter().filter(|peer| !before.has(*peer)).for_each(|peer| changes.twins.push(peer, item.entry));
                }
                batch.items.push(*item);
            }
            batch.end_run(Audience::AllBut(changes.exclusions.set(run[0].1.now).clone()));
        }
        for entry in unsendable {
            self.withhold(entry, receivers);
        }
        batch
    }

    fn withdraw(&self, changes: &mut Changes, context: Option<&Context>) -> Batch {
        let mut batch = Batch::default();
        let items = std::mem::replace(&mut changes.withdrawals, Bunches::with_capacity(0)).into_items();
        for run in bunches(&items) {
            let nlri: Vec<_> = run.iter().map(|(_, item)| self.rib.nlri(item.entry)).collect();
            if let Some(context) = context {
                pack::withdraw::<A>(&nlri, context, &mut batch.frames);
            }
            batch.items.extend(run.iter().map(|(_, item)| Item { birth: false, ..*item }));
            batch.end_run(Audience::AllBut(changes.exclusions.set(run[0].1.before).clone()));
        }
        batch
    }

    fn twins(&self, changes: &mut Changes, context: Option<&Context>) -> Batch {
        let mut batch = Batch::default();
        let Some(context) = context else { return batch };
        let reads = |peer: &PeerId| self.readers.get(peer).is_some_and(|reader| !reader.is_lingering());
        for (peer, twins) in
            std::mem::replace(&mut changes.twins, Bunches::with_capacity(0)).into_bunches().into_iter().filter(|(peer, _)| reads(peer))
        {
            let nlri: Vec<_> = twins.iter().map(|entry| self.rib.nlri(*entry)).collect();
            pack::withdraw::<A>(&nlri, context, &mut batch.frames);
            batch.end_run(Audience::Only(peer));
        }
        batch
    }

    fn write(&mut self, batch: Batch, exclusions: &Exclusions) {
        self.encoded.shared += batch.frames.len() as u64;
        let (mut item, mut frame) = (0, 0);
        for (audience, items, frames) in batch.runs {
            for Item { entry, birth, before, .. } in &batch.items[item..items] {
                self.rib.append(*entry, *birth, exclusions.set(*before));
            }
            for message in &batch.frames[frame..frames] {
                self.journal.push(message, &audience);
            }
            (item, frame) = (items, frames);
        }
    }

    fn recount(&mut self, (before, now): (u32, u32), times: isize, exclusions: &Exclusions) {
        if before != now {
            exclusions.set(before).iter().for_each(|peer| self.count_excluded(peer, -times));
            exclusions.set(now).iter().for_each(|peer| self.count_excluded(peer, times));
        }
    }
}

/// Entries in a row that went from one set of excluded members to the same other one.
#[derive(Debug, Default)]
struct Moves {
    from_to: (u32, u32),
    count: isize,
}

impl Moves {
    fn add<A: AddressFamily>(&mut self, outbound: &mut Outbound<A>, from_to: (u32, u32), exclusions: &Exclusions) {
        if self.from_to != from_to {
            self.settle(outbound, exclusions);
            self.from_to = from_to;
        }
        self.count += 1;
    }

    fn settle<A: AddressFamily>(&mut self, outbound: &mut Outbound<A>, exclusions: &Exclusions) {
        outbound.recount(self.from_to, std::mem::take(&mut self.count), exclusions);
    }
}

/// So many sets are soon looked through.
const FEW: usize = 4;

/// The sets of excluded members that occur in a round, numbered; 0 is the empty one.
#[derive(Debug)]
struct Exclusions {
    sets: SmallVec<[Excluded; FEW]>,
    /// Of those behind the first few.
    numbers: HashMap<Excluded, u32, FixedState>,
}

impl Exclusions {
    fn new() -> Self {
        Self { sets: smallvec![Excluded::default()], numbers: HashMap::default() }
    }

    fn number(&mut self, set: Excluded) -> u32 {
        if let Some(known) = self.sets.iter().take(FEW).position(|known| *known == set) {
            return known as u32;
        }
        let next = self.sets.len() as u32;
        let number = if self.sets.len() < FEW { next } else { *self.numbers.entry(set.clone()).or_insert(next) };
        if number == next {
            self.sets.push(set);
        }
        number
    }

    fn set(&self, number: u32) -> &Excluded {
        &self.sets[number as usize]
    }
}

/// What was found out last: neighbouring changes mostly share it.
#[derive(Debug)]
struct Lookup {
    /// What one occurrence adds to the census.
    each: isize,
    key: Option<Key>,
    source: Option<PeerId>,
    of: Option<Provenance>,
    number: u32,
    change: isize,
}

impl Lookup {
    fn new(each: isize) -> Self {
        Self { each, key: None, source: None, of: None, number: 0, change: 0 }
    }

    /// The number of those excluded, as `find` says; the occurrence goes into the census.
    fn number(
        &mut self,
        sent: Seen<'_>,
        source: Option<PeerId>,
        of: impl FnOnce() -> Provenance,
        find: impl FnOnce(&Provenance) -> u32,
        census: &mut Census,
    ) -> u32 {
        if self.key != Some(sent.key()) || self.source != source {
            (self.key, self.source) = (Some(sent.key()), source);
            let of = of();
            if self.of != Some(of) {
                self.settle(census);
                self.of = Some(of);
                self.number = find(&of);
            }
        }
        self.change += self.each;
        self.number
    }

    fn settle(&mut self, census: &mut Census) {
        if let Some(of) = &self.of {
            census.add(of, std::mem::take(&mut self.change));
        }
    }
}
