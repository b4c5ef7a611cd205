//! The outbound half of a shard for one update group and family: Adj-RIB-Out, journal, and the members that read them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::adj_rib_out::{AdjRibOut, Changed, Position};
use super::bits::Bits;
use super::bunch::bunch;
use super::journal::{Audience, Credit, Journal, RingLimits};
use super::reader::{Progress, Reader, Walk, announce};
use super::receiver::{Excluded, Provenance, Receiver, Receivers};
use super::update_group::{Encoded, Told, Unsendable};
use crate::types::{AddressFamily, Attributes, Family, Nlri, PathId, PeerId};
use crate::wire::{Context, pack};

/// Paths found too large that are remembered for [`UpdateGroup::take_unsendable`](super::update_group::UpdateGroup::take_unsendable).
const REPORTS: usize = 1024;

#[derive(Debug)]
pub(super) struct Outbound<A: AddressFamily> {
    rib: AdjRibOut<A>,
    journal: Journal,
    readers: BTreeMap<PeerId, Reader>,
    /// Live entries by what decides from whom they are kept.
    census: HashMap<Provenance, usize, FixedState>,
    /// Members that have not been told everything.
    late: usize,
    /// Members that do not read the journal.
    lingering: usize,
    complete: bool,
    unsendable: Vec<Unsendable>,
    encoded: Encoded,
}

/// An entry that a round changed, and who hears of it.
#[derive(Clone, Debug)]
struct Item {
    entry: u32,
    /// Nobody has been told of it before.
    birth: bool,
    /// Those that did not hear of what was before.
    before: Excluded,
    /// Those that do not hear of what is now.
    now: Excluded,
}

/// Runs on their way into log and journal.
#[derive(Debug, Default)]
struct Batch {
    /// Entry, whether it is a birth, and who had not been told before.
    slots: Vec<(u32, bool, Excluded)>,
    frames: Vec<Bytes>,
    /// Of each run the readers, and the ends of its slots and frames.
    runs: Vec<(Audience, usize, usize)>,
}

impl Batch {
    fn end_run(&mut self, audience: Audience) {
        self.runs.push((audience, self.slots.len(), self.frames.len()));
    }
}

impl<A: AddressFamily> Outbound<A> {
    pub fn new(context: &Context, limits: RingLimits) -> Self {
        let rib = AdjRibOut::new(context.add_path_send.has(A::FAMILY));
        let journal = Journal::new(rib.end(), limits);
        Self {
            rib,
            journal,
            readers: BTreeMap::new(),
            census: HashMap::default(),
            late: 0,
            lingering: 0,
            complete: false,
            unsendable: Vec::new(),
            encoded: Encoded::default(),
        }
    }

    pub fn offer(&mut self, prefix: A::Prefix, dest: u32, path_id: PathId, route: Option<(Arc<Attributes>, Option<PeerId>)>) {
        let passed = self.passed();
        self.rib.offer(prefix, dest, path_id, route, passed);
    }

    pub fn complete(&mut self) {
        self.complete = true;
    }

    pub fn join(&mut self, receiver: &Receiver) {
        self.leave(receiver.peer);
        let excluded = self.census.iter().filter(|(of, _)| receiver.is_excluded(of)).map(|(_, count)| *count).sum();
        let walk = Walk::of_newcomer(self.rib.start());
        self.readers.insert(receiver.peer, Reader { progress: Progress::Walking(walk), excluded, due: true, again: false });
        self.late += 1;
        self.lingering += 1;
    }

    pub fn leave(&mut self, peer: PeerId) {
        if let Some(reader) = self.readers.remove(&peer) {
            self.late -= usize::from(reader.is_late(&self.journal));
            self.lingering -= usize::from(reader.is_lingering());
        }
        self.rest();
    }

    /// Moves members, with what they have been told, into a copy.
    pub fn split(&mut self, peers: &[Receiver]) -> Self {
        let mut other = Self {
            rib: self.rib.clone(),
            journal: Journal::new(self.rib.end(), self.journal.limits()),
            readers: BTreeMap::new(),
            census: self.census.clone(),
            late: 0,
            lingering: 0,
            complete: self.complete,
            unsendable: Vec::new(),
            encoded: Encoded::default(),
        };
        for receiver in peers {
            let Some(mut reader) = self.readers.remove(&receiver.peer) else { continue };
            self.late -= usize::from(reader.is_late(&self.journal));
            self.lingering -= usize::from(reader.is_lingering());
            if reader.is_late(&self.journal) {
                reader.progress.fall_behind(&self.journal, receiver.peer);
                reader.progress.walk(&self.rib, receiver);
                other.late += 1;
                other.lingering += 1;
            } else {
                reader.progress = Progress::at_end(&other.rib, &other.journal);
            }
            other.readers.insert(receiver.peer, reader);
        }
        self.rest();
        other
    }

    pub fn refresh(&mut self, receiver: &Receiver) {
        let Some(reader) = self.readers.get_mut(&receiver.peer) else { return };
        if reader.due {
            reader.again = true;
            return;
        }
        reader.due = true;
        self.late += usize::from(!reader.is_late(&self.journal));
        self.lingering += usize::from(!reader.is_lingering());
        reader.start_over(&self.rib, &self.journal, receiver);
    }

    pub fn has_output(&self, peer: PeerId) -> bool {
        self.readers.get(&peer).is_some_and(|reader| match &reader.progress {
            Progress::Following(place) => place.next != self.journal.end() || (reader.due && self.complete),
            Progress::Behind { .. } => true,
            Progress::Walking(walk) => !walk.is_drained() || walk.cursor != self.rib.end() || (reader.due && self.complete),
        })
    }

    pub fn advertised_count(&self, peer: PeerId) -> usize {
        self.readers.get(&peer).map_or(0, |reader| self.rib.live() - reader.excluded)
    }

    pub fn advertised<'a>(&'a self, receiver: &'a Receiver) -> impl Iterator<Item = Told<'a>> + 'a {
        self.rib.told(receiver).filter_map(|entry| self.told(entry))
    }

    pub fn advertised_at<'a>(&'a self, receiver: &'a Receiver, prefix: A::Prefix, dest: u32) -> impl Iterator<Item = Told<'a>> + 'a {
        self.rib.at(prefix, dest).filter(|entry| self.rib.is_for(*entry, receiver)).filter_map(|entry| self.told(entry))
    }

    pub fn encoded(&self) -> Encoded {
        self.encoded
    }

    pub fn take_unsendable(&mut self) -> Vec<Unsendable> {
        std::mem::take(&mut self.unsendable)
    }

    /// Ends a round: changes go into the log, and encoded once into the journal if anybody reads it.
    pub fn flush(&mut self, receivers: &Receivers, context: &Context) {
        let changes = self.rib.settle();
        if changes.is_empty() {
            return;
        }
        self.let_readers_in();
        self.trim();
        let encode = self.readers.len() > self.lingering;
        let (mut withdrawals, announcements) = self.assess(changes, receivers);
        let mut twins = Vec::new();
        let announced = self.announce(announcements, encode.then_some(context), receivers, &mut withdrawals, &mut twins);
        let withdrawn = self.withdraw(withdrawals, encode.then_some(context));
        let before = self.rib.end();
        self.write(withdrawn);
        let twins = self.twins(twins, context);
        self.write(twins);
        self.write(announced);
        self.journal.end_round(self.rib.end());
        if self.rib.end() != before {
            self.late = self.readers.len();
        }
        if !encode {
            self.journal.clear(self.rib.end());
        }
        if let Some(passed) = self.passed() {
            self.rib.forget_before(passed);
        }
        self.compact_if(false, receivers);
    }

    pub fn pull(
        &mut self,
        receiver: &Receiver,
        receivers: &Receivers,
        context: &Context,
        credit: &mut Credit,
        frames: &mut Vec<Bytes>,
        ended: &mut Vec<Family>,
    ) {
        let Some(reader) = self.readers.get_mut(&receiver.peer) else { return };
        let (late, lingering) = (reader.is_late(&self.journal), reader.is_lingering());
        let mut unfit = Vec::new();
        loop {
            match &mut reader.progress {
                Progress::Following(place) => {
                    self.journal.read(receiver.peer, place, credit, frames);
                    break;
                }
                Progress::Behind { .. } => reader.progress.walk(&self.rib, receiver),
                Progress::Walking(walk) => {
                    walk.give(credit, frames);
                    if walk.is_drained() && walk.cursor == self.rib.end() {
                        reader.progress = Progress::at_end(&self.rib, &self.journal);
                    } else if !walk.is_drained() || credit.left() == 0 {
                        break;
                    } else {
                        self.encoded.private += walk.step(&self.rib, receiver, context, credit.left(), &mut unfit) as u64;
                    }
                }
            }
        }
        if self.complete && reader.due && !reader.is_late(&self.journal) {
            ended.push(A::FAMILY);
            reader.due = std::mem::take(&mut reader.again);
            if reader.due {
                reader.start_over(&self.rib, &self.journal, receiver);
            }
        }
        self.late = self.late + usize::from(reader.is_late(&self.journal)) - usize::from(late);
        self.lingering = self.lingering + usize::from(reader.is_lingering()) - usize::from(lingering);
        for entry in unfit {
            self.withhold(entry, receivers);
        }
        self.rest();
        self.compact_if(self.late == 0, receivers);
    }

    fn told(&self, entry: u32) -> Option<Told<'_>> {
        let attributes = self.rib.attributes(entry)?;
        let Nlri { prefix, path_id } = self.rib.nlri(entry);
        Some(Told { prefix: prefix.into(), path_id, attributes, source: self.rib.source(entry) })
    }

    /// A position before which nobody needs old slots or tombstones; none if it is not that simple.
    fn passed(&self) -> Option<Position> {
        (self.lingering == 0).then(|| self.journal.start())
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

    /// Bounds the ring; members whose next frame is gone will walk.
    fn trim(&mut self) {
        let next = |reader: &Reader| match &reader.progress {
            Progress::Following(place) => Some(place.next),
            _ => None,
        };
        let end = self.journal.excess(self.readers.values().filter_map(next));
        if end == self.journal.first() {
            return;
        }
        for (peer, reader) in &mut self.readers {
            if next(reader).is_some_and(|next| next < end) {
                reader.progress.fall_behind(&self.journal, *peer);
                self.lingering += 1;
            }
        }
        self.journal.drop_before(end);
    }

    /// Sorts the changes into withdrawals and announcements, finds out whom they concern, and counts.
    fn assess(&mut self, changes: Vec<Changed>, receivers: &Receivers) -> (Vec<Item>, Vec<Item>) {
        let (mut withdrawals, mut announcements) = (Vec::new(), Vec::new());
        let (mut old, mut new) = (Lookup::default(), Lookup::default());
        for Changed { entry, before: told } in changes {
            let birth = told.is_none();
            let of = told.map(|(attributes, source)| Provenance::of(source, &attributes));
            let before = of.map(|of| old.excluded(of, receivers, &mut self.census, -1)).unwrap_or_default();
            let of = self.rib.attributes(entry).map(|attributes| Provenance::of(self.rib.source(entry), attributes));
            let now = of.map(|of| new.excluded(of, receivers, &mut self.census, 1)).unwrap_or_default();
            if before != now {
                before.iter().for_each(|peer| self.count_excluded(peer, -1));
                now.iter().for_each(|peer| self.count_excluded(peer, 1));
            }
            let items = if of.is_none() { &mut withdrawals } else { &mut announcements };
            items.push(Item { entry, birth, before, now });
        }
        old.settle(&mut self.census);
        new.settle(&mut self.census);
        (withdrawals, announcements)
    }

    /// Encodes the announcements by attribute set. What does not fit is withheld, and withdrawn if it had been told.
    fn announce(
        &mut self,
        items: Vec<Item>,
        context: Option<&Context>,
        receivers: &Receivers,
        withdrawals: &mut Vec<Item>,
        twins: &mut Vec<(PeerId, u32)>,
    ) -> Batch {
        let mut batch = Batch::default();
        let pointer = |item: &Item| self.rib.attributes(item.entry).map(Arc::as_ptr);
        let items = bunch(items, |item| (pointer(item), item.now.clone()));
        let lengths: Vec<usize> = items.chunk_by(|a, b| pointer(a) == pointer(b) && a.now == b.now).map(<[Item]>::len).collect();
        let mut items = items.into_iter();
        for length in lengths {
            let run: Vec<Item> = items.by_ref().take(length).collect();
            let entries: Vec<u32> = run.iter().map(|item| item.entry).collect();
            let left = match (context, entries.first().and_then(|entry| self.rib.attributes(*entry))) {
                (Some(context), Some(attributes)) => announce(&self.rib, attributes, &entries, context, &mut batch.frames),
                _ => Vec::new(),
            };
            let mut left = left.into_iter().peekable();
            let mut audience = Excluded::default();
            for item in run {
                if left.next_if_eq(&item.entry).is_some() {
                    self.withhold(item.entry, receivers);
                    withdrawals.extend((!item.birth).then_some(item));
                    continue;
                }
                if !item.birth {
                    twins.extend(item.now.iter().filter(|peer| !item.before.has(*peer)).map(|peer| (peer, item.entry)));
                }
                batch.slots.push((item.entry, item.birth, item.before));
                audience = item.now;
            }
            batch.end_run(Audience::AllBut(audience));
        }
        batch
    }

    fn withdraw(&self, items: Vec<Item>, context: Option<&Context>) -> Batch {
        let mut batch = Batch::default();
        for run in bunch(items, |item| item.before.clone()).chunk_by(|a, b| a.before == b.before) {
            let nlri: Vec<_> = run.iter().map(|item| self.rib.nlri(item.entry)).collect();
            if let Some(context) = context {
                pack::withdraw::<A>(&nlri, context, &mut batch.frames);
            }
            batch.slots.extend(run.iter().map(|item| (item.entry, false, item.before.clone())));
            batch.end_run(Audience::AllBut(run[0].before.clone()));
        }
        batch
    }

    /// Withdrawals for members that were told of an entry and are to hear no more of it.
    fn twins(&self, twins: Vec<(PeerId, u32)>, context: &Context) -> Batch {
        let mut batch = Batch::default();
        for run in bunch(twins, |(peer, _)| *peer).chunk_by(|a, b| a.0 == b.0) {
            let nlri: Vec<_> = run.iter().map(|(_, entry)| self.rib.nlri(*entry)).collect();
            if self.readers.get(&run[0].0).is_some_and(|reader| !reader.is_lingering()) {
                pack::withdraw::<A>(&nlri, context, &mut batch.frames);
                batch.end_run(Audience::Only(run[0].0));
            }
        }
        batch
    }

    fn write(&mut self, batch: Batch) {
        self.encoded.shared += batch.frames.len() as u64;
        let (mut slot, mut frame) = (0, 0);
        for (audience, slots, frames) in batch.runs {
            for (entry, birth, before) in &batch.slots[slot..slots] {
                self.rib.append(*entry, *birth, before);
            }
            for message in &batch.frames[frame..frames] {
                self.journal.push(message, audience.clone());
            }
            (slot, frame) = (slots, frames);
        }
    }

    /// An entry fits into no message.
    fn withhold(&mut self, entry: u32, receivers: &Receivers) {
        let Some(attributes) = self.rib.attributes(entry).map(Arc::clone) else { return };
        let of = Provenance::of(self.rib.source(entry), &attributes);
        receivers.excluded(&of).iter().for_each(|peer| self.count_excluded(peer, -1));
        Lookup { last: Some((of, Excluded::default())), change: -1 }.settle(&mut self.census);
        self.rib.withhold(entry);
        if self.unsendable.len() < REPORTS {
            let Nlri { prefix, path_id } = self.rib.nlri(entry);
            self.unsendable.push(Unsendable { prefix: prefix.into(), path_id, attributes });
        }
    }

    fn count_excluded(&mut self, peer: PeerId, change: isize) {
        if let Some(reader) = self.readers.get_mut(&peer) {
            reader.excluded = reader.excluded.saturating_add_signed(change);
        }
    }

    /// When everybody has been told everything the ring need not keep anything.
    fn rest(&mut self) {
        if self.late == 0 && self.journal.octets() > 0 {
            self.journal.clear(self.rib.end());
            self.rib.forget_before(self.rib.end());
        }
    }

    fn compact_if(&mut self, quiet: bool, receivers: &Receivers) {
        if !self.rib.wants_compaction(quiet) {
            return;
        }
        let mut needed = Bits::default();
        let mut cursors = Vec::new();
        for (peer, reader) in &mut self.readers {
            if let Some(receiver) = receivers.get(*peer) {
                reader.progress.walk(&self.rib, receiver);
            }
            if let Progress::Walking(walk) = &mut reader.progress {
                needed.union(&walk.known);
                cursors.push(&mut walk.cursor);
            }
        }
        self.rib.compact(self.journal.start(), &needed, &mut cursors);
    }
}

/// The exclusions and the count of the provenance seen last: neighbouring changes mostly share it.
#[derive(Debug, Default)]
struct Lookup {
    last: Option<(Provenance, Excluded)>,
    change: isize,
}

impl Lookup {
    /// Those excluded; `each` is added to the census.
    fn excluded(
        &mut self,
        of: Provenance,
        receivers: &Receivers,
        census: &mut HashMap<Provenance, usize, FixedState>,
        each: isize,
    ) -> Excluded {
        match &self.last {
            Some((last, excluded)) if *last == of => {
                self.change += each;
                excluded.clone()
            }
            _ => {
                self.settle(census);
                let excluded = receivers.excluded(&of);
                self.change = each;
                self.last = Some((of, excluded.clone()));
                excluded
            }
        }
    }

    fn settle(&mut self, census: &mut HashMap<Provenance, usize, FixedState>) {
        let Some((of, _)) = &self.last else { return };
        let count = census.entry(*of).or_default();
        *count = count.saturating_add_signed(std::mem::take(&mut self.change));
        if *count == 0 {
            census.remove(of);
        }
    }
}
