//! The outbound half of a shard for one update group and family: Adj-RIB-Out, journal, and the members that read them. The
//! end of a round is in [`flush`](super::flush).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::adj_rib_out::{AdjRibOut, LogLimits, Position};
use super::bits::Bits;
use super::journal::{Credit, Journal, RingLimits};
use super::reader::{Progress, Reader, Step, Walk};
use super::receiver::{Census, Receiver, Receivers};
use super::sent::Sent;
use super::update_group::{Encoded, Told, Unsendable};
use crate::types::{AddressFamily, Family, Nlri, PathId, PeerId, Seeded};
use crate::wire::Context;

/// Unsendable paths that are remembered for [`UpdateGroup::take_unsendable`](super::update_group::UpdateGroup::take_unsendable).
const REPORTS: usize = 1024;

#[derive(Clone, Debug)]
pub(super) struct Outbound<A: AddressFamily> {
    pub(super) rib: AdjRibOut<A>,
    pub(super) journal: Journal,
    pub(super) readers: BTreeMap<PeerId, Reader>,
    pub(super) census: Census,
    /// Members that have not been told everything.
    pub(super) late: usize,
    /// Members that do not read the journal.
    pub(super) lingering: usize,
    pub(super) encoded: Encoded,
    pub(super) seeded: Seeded,
    complete: bool,
    unsendable: Vec<Unsendable>,
}

impl<A: AddressFamily> Outbound<A> {
    pub fn new(context: &Context, ring: RingLimits, log: LogLimits, seeded: Seeded) -> Self {
        let rib = AdjRibOut::new(context.add_path_send.has(A::FAMILY), log);
        let journal = Journal::new(rib.end(), ring);
        Self {
            rib,
            journal,
            readers: BTreeMap::new(),
            census: Census::default(),
            late: 0,
            lingering: 0,
            complete: false,
            unsendable: Vec::new(),
            encoded: Encoded::default(),
            seeded,
        }
    }

    pub fn offer(&mut self, prefix: A::Prefix, dest: u32, path_id: PathId, route: Option<(Sent, Option<PeerId>)>) {
        let passed = self.passed();
        self.rib.offer(prefix, dest, path_id, route, passed);
    }

    /// Octets of memory that Adj-RIB-Out and the frames for its readers take.
    pub fn octets(&self) -> usize {
        self.rib.reserved() + self.journal.reserved()
    }

    pub fn complete(&mut self) {
        self.complete = true;
    }

    pub fn join(&mut self, receiver: &Receiver) {
        self.leave(receiver.peer);
        let excluded = self.census.excluded(receiver);
        let walk = Walk::of_newcomer(self.rib.start(), self.journal.end());
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
            seeded: self.seeded.clone(),
        };
        for receiver in peers {
            let Some(mut reader) = self.readers.remove(&receiver.peer) else { continue };
            self.late -= usize::from(reader.is_late(&self.journal));
            self.lingering -= usize::from(reader.is_lingering());
            if reader.is_late(&self.journal) {
                reader.progress.fall_behind(&self.journal, receiver.peer);
                reader.progress.walk(&self.rib, receiver, &self.census);
                other.late += 1;
                other.lingering += 1;
            } else {
                reader.progress = Progress::at_end(&other.rib, &other.journal);
            }
            if let Progress::Walking(walk) = &mut reader.progress {
                walk.joined = 0;
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
        reader.start_over(&self.rib, &self.journal, receiver, &self.census);
    }

    pub fn has_output(&self, peer: PeerId) -> bool {
        self.readers.get(&peer).is_some_and(|reader| match &reader.progress {
            Progress::Following(place) => place.next != self.journal.end() || (reader.due && self.complete),
            Progress::Behind { .. } => true,
            Progress::Walking(walk) => !walk.is_drained() || walk.cursor != self.rib.end() || (reader.due && self.complete),
        })
    }

    pub fn is_walking(&self, peer: PeerId) -> bool {
        self.readers.get(&peer).is_some_and(Reader::is_lingering)
    }

    pub fn advertised_count(&self, peer: PeerId) -> usize {
        self.readers.get(&peer).map_or(0, |reader| self.rib.live() - reader.excluded)
    }

    pub fn advertised<'a>(&'a self, receiver: &'a Receiver) -> impl Iterator<Item = Told> + 'a {
        self.rib.told(receiver).filter_map(|entry| self.told(entry))
    }

    pub fn advertised_at<'a>(&'a self, receiver: &'a Receiver, prefix: A::Prefix, dest: u32) -> impl Iterator<Item = Told> + 'a {
        self.rib.at(prefix, dest).filter(|entry| self.rib.told_to(*entry, receiver).is_some()).filter_map(|entry| self.told(entry))
    }

    pub fn encoded(&self) -> Encoded {
        self.encoded
    }

    pub fn take_unsendable(&mut self) -> Vec<Unsendable> {
        std::mem::take(&mut self.unsendable)
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
                Progress::Behind { .. } => reader.progress.walk(&self.rib, receiver, &self.census),
                Progress::Walking(walk) => {
                    walk.give(credit, frames);
                    let boarding = walk.boarding(&self.rib, &self.journal);
                    match boarding {
                        Some(place) if walk.is_drained() && place.cursor == walk.cursor => reader.progress = Progress::Following(place),
                        _ if !walk.is_drained() || credit.left() == 0 => break,
                        _ => {
                            let until = boarding.map_or(self.rib.end(), |place| place.cursor);
                            let step = Step { until, octets: credit.left() };
                            self.encoded.private += walk.step(&self.rib, receiver, (context, &self.seeded), step, &mut unfit) as u64;
                        }
                    }
                }
            }
        }
        if self.complete && reader.due && !reader.is_late(&self.journal) {
            ended.push(A::FAMILY);
            reader.due = std::mem::take(&mut reader.again);
            if reader.due {
                reader.start_over(&self.rib, &self.journal, receiver, &self.census);
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

    fn told(&self, entry: u32) -> Option<Told> {
        let attributes = self.rib.rewrites().to_attributes(self.rib.sent(entry)?);
        let Nlri { prefix, path_id } = self.rib.nlri(entry);
        Some(Told { prefix: prefix.into(), path_id, attributes, source: self.rib.source(entry) })
    }

    /// A position before which nobody needs old slots or tombstones; none if it is not that simple.
    pub(super) fn passed(&self) -> Option<Position> {
        (self.lingering == 0).then(|| self.journal.start())
    }

    /// No message can carry the entry.
    #[inline(never)]
    pub(super) fn withhold(&mut self, entry: u32, receivers: &Receivers) {
        let Some(sent) = self.rib.sent(entry) else { return };
        let (of, attributes) = (self.rib.provenance(sent, self.rib.source(entry)), self.rib.rewrites().to_attributes(sent));
        receivers.excluded(&of).iter().for_each(|peer| self.count_excluded(peer, -1));
        self.census.add(&of, -1);
        self.rib.withhold(entry);
        if self.unsendable.len() < REPORTS {
            let Nlri { prefix, path_id } = self.rib.nlri(entry);
            self.unsendable.push(Unsendable { prefix: prefix.into(), path_id, attributes });
        }
    }

    pub(super) fn count_excluded(&mut self, peer: PeerId, change: isize) {
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

    /// Begins a compaction, if one is due and none is under way.
    pub(super) fn compact_if(&mut self, quiet: bool, receivers: &Receivers) {
        if !self.rib.is_compacting() && self.rib.wants_compaction(quiet) {
            self.begin_compaction(receivers);
        }
    }

    #[inline(never)]
    fn begin_compaction(&mut self, receivers: &Receivers) {
        let mut needed = Bits::default();
        for (peer, reader) in &mut self.readers {
            if let Some(receiver) = receivers.get(*peer) {
                reader.progress.walk(&self.rib, receiver, &self.census);
            }
            if let Progress::Walking(walk) = &reader.progress {
                needed.union(&walk.known);
            }
        }
        self.rib.begin_compaction(self.journal.start(), needed);
        self.compact();
    }

    /// Goes on with a compaction.
    pub fn compact(&mut self) {
        if !self.rib.is_compacting() {
            return;
        }
        let walking = self.readers.values_mut().filter_map(|reader| match &mut reader.progress {
            Progress::Walking(walk) => Some(&mut walk.cursor),
            _ => None,
        });
        self.rib.compact(&mut walking.collect::<Vec<_>>());
    }

    pub fn is_compacting(&self) -> bool {
        self.rib.is_compacting()
    }
}
