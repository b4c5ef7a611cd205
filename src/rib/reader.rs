//! One member of an update group in one family: how far it has been told, and its walk when it is behind the journal.
//!
//! ```text
//!   join ──→ Walking ──(it boards)──→ Following ──(its frames left the ring)──→ Behind ──(next pull)──→ Walking
//!               ↑                         │
//!               └──────── refresh ────────┘
//! ```
//!
//! It boards the journal at the end of the log or, as long as paths only come, where a round ends.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::adj_rib_out::{AdjRibOut, Position};
use super::bits::Bits;
use super::bunch::{Bunches, bunches};
use super::contents::Contents;
use super::journal::{Credit, Journal, Place};
use super::receiver::{Census, Receiver};
use super::sent::{Key, Same, Seen};
use crate::types::{AddressFamily, Nlri, PeerId, Seeded};
use crate::wire::{Context, pack};

/// Least and greatest estimate of octets that one step of a walk encodes ahead, whatever the credit.
const STEP: std::ops::RangeInclusive<usize> = 16 << 10..=64 << 10;
/// Octets by which a step may grow so as not to tear apart paths of equal attributes (P1).
const STRETCH: usize = 128 << 10;
/// Octets that one attribute set costs in a message, more or less.
const ATTRIBUTES: usize = 64;

/// What a group keeps of a member in one family.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    pub progress: Progress,
    /// Live entries that are kept from this member.
    pub excluded: usize,
    /// A walk has begun whose end is to be reported.
    pub due: bool,
    /// Another walk is to follow that one (R4).
    pub again: bool,
}

/// Where a member stands.
#[derive(Clone, Debug)]
pub(super) enum Progress {
    /// It reads the journal.
    Following(Place),
    /// It has not read what left the ring, but for what it took along.
    Behind {
        /// How far it has been told when it has read the rest.
        cursor: Position,
        /// The rest of the round in which it lost its place.
        rest: VecDeque<Bytes>,
    },
    /// It is told the latest state of what lies ahead in the log, in messages of its own.
    Walking(Walk),
}

impl Reader {
    /// Whether there is something that the member has not been told.
    pub fn is_late(&self, journal: &Journal) -> bool {
        !matches!(&self.progress, Progress::Following(place) if place.next == journal.end())
    }

    /// Whether it does not read the journal.
    pub fn is_lingering(&self) -> bool {
        !matches!(self.progress, Progress::Following(_))
    }

    /// Begins a walk through everything, whatever the member knows already.
    #[inline(never)]
    pub fn start_over<A: AddressFamily>(&mut self, rib: &AdjRibOut<A>, journal: &Journal, receiver: &Receiver, census: &Census) {
        self.progress.fall_behind(journal, receiver.peer);
        self.progress.walk(rib, receiver, census);
        if let Progress::Walking(walk) = &mut self.progress {
            walk.cursor = rib.start();
            // From the start on, it would pass frames of a time when it was no member.
            walk.joined = journal.end();
        }
    }
}

impl Progress {
    /// Everything has been told.
    pub fn at_end<A: AddressFamily>(rib: &AdjRibOut<A>, journal: &Journal) -> Self {
        Self::Following(journal.place_at_end(rib.end()))
    }

    /// Gives up reading the journal.
    pub fn fall_behind(&mut self, journal: &Journal, peer: PeerId) {
        if let Self::Following(place) = self {
            let rest = journal.read_rest(peer, place).into();
            *self = Self::Behind { cursor: place.cursor, rest };
        }
    }

    /// Begins to walk, if behind.
    #[inline(never)]
    pub fn walk<A: AddressFamily>(&mut self, rib: &AdjRibOut<A>, receiver: &Receiver, census: &Census) {
        if let Self::Behind { cursor, rest } = self {
            let backlog = std::mem::take(rest);
            *self = Self::Walking(Walk { cursor: *cursor, known: rib.known_at(*cursor, receiver, census), joined: 0, backlog });
        }
    }
}

/// A walk through the log.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    /// The next slot.
    pub cursor: Position,
    /// The entries that the member has been told and that have not been withdrawn from it.
    pub known: Bits,
    /// The first frame of the journal that was written when it was a member: older ones do not say whether they are kept from it.
    pub joined: u64,
    /// Encoded and not yet given out; whole messages, one or more each.
    backlog: VecDeque<Bytes>,
}

/// How far a step of a walk may go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// Not beyond this position.
    pub until: Position,
    /// Some octets of messages.
    pub octets: usize,
}

/// What a step of a walk found.
#[derive(Debug)]
struct Window<P> {
    withdrawals: Vec<Nlri<P>>,
    announcements: Bunches<Key, u32>,
}

impl Walk {
    /// The walk of a member that knows nothing.
    pub fn of_newcomer(start: Position, joined: u64) -> Self {
        Self { cursor: start, known: Bits::default(), joined, backlog: VecDeque::new() }
    }

    /// Whether all that was encoded has been given out.
    pub fn is_drained(&self) -> bool {
        self.backlog.is_empty()
    }

    /// The next place from which on the member may read the journal instead: it then shares with others what is encoded. At the latest
    /// that is the end. Before it, it may be where a round ends after which nothing has changed that was there: of anything else the
    /// member might hear a withdrawal without having been told of it (E10).
    #[inline(never)]
    pub fn boarding<A: AddressFamily>(&self, rib: &AdjRibOut<A>, journal: &Journal) -> Option<Place> {
        if self.cursor == rib.end() {
            return Some(journal.place_at_end(self.cursor));
        }
        let from = rib.index(self.cursor).max(rib.index(rib.births_since()));
        journal.place_after(self.joined, |tells| rib.index(tells) < from)
    }

    /// Gives out what was encoded, as far as the credit goes.
    pub fn give(&mut self, credit: &mut Credit, frames: &mut Vec<Bytes>) {
        while let Some(mut messages) = self.backlog.pop_front() {
            let mut end = 0;
            while let Some(length) = message_length(&messages[end..]) {
                if !credit.take(length) {
                    break;
                }
                end += length;
            }
            let given = messages.split_to(end);
            frames.extend((!given.is_empty()).then_some(given));
            if !messages.is_empty() {
                self.backlog.push_front(messages);
                break;
            }
        }
    }

    /// Encodes what comes next, as far as `step` says; answers how many messages it took. Entries that no message can carry go
    /// to `unfit`.
    #[inline(never)]
    pub fn step<A: AddressFamily>(
        &mut self,
        rib: &AdjRibOut<A>,
        receiver: &Receiver,
        (context, seeded): (&Context, &Seeded),
        step: Step,
        unfit: &mut Vec<u32>,
    ) -> usize {
        let window = self.gather(rib, receiver, Step { octets: step.octets.clamp(*STEP.start(), *STEP.end()), ..step });
        let mut frames = Vec::new();
        pack::withdraw::<A>(&window.withdrawals, context, &mut frames);
        let (mut nlri, mut too_late) = (Vec::new(), Vec::new());
        let mut items = window.announcements.into_items();
        let contents = Contents::of::<A, _>(&mut items, |entry| Some((rib.sent(*entry)?, 0)), (rib.rewrites(), context, seeded));
        for run in bunches(&items) {
            nlri.clear();
            nlri.extend(run.iter().map(|(_, entry)| rib.nlri(*entry)));
            let left = contents.head(run[0].0).announce::<A>(&nlri, context, &mut frames);
            let mut unsent = 0;
            for ((_, entry), nlri) in run.iter().zip(&nlri) {
                if left.get(unsent) != Some(nlri) {
                    self.known.set(*entry);
                    continue;
                }
                unsent += 1;
                too_late.extend(self.known.clear(*entry).then_some(*nlri));
                unfit.push(*entry);
            }
        }
        pack::withdraw::<A>(&too_late, context, &mut frames);
        let mut backlog = BytesMut::with_capacity(frames.iter().map(Bytes::len).sum());
        frames.iter().for_each(|frame| backlog.extend_from_slice(frame));
        self.backlog.extend((!backlog.is_empty()).then(|| backlog.freeze()));
        frames.len()
    }

    fn gather<A: AddressFamily>(&mut self, rib: &AdjRibOut<A>, receiver: &Receiver, step: Step) -> Window<A::Prefix> {
        let Step { until, octets } = step;
        let mut window = Window { withdrawals: Vec::new(), announcements: Bunches::with_capacity(octets / 16) };
        let mut estimate = 0;
        let (mut last, mut alike): (Option<Seen<'_>>, Same) = Default::default();
        while self.cursor != until {
            let slot = rib.valid(self.cursor);
            if let Some((entry, sent)) = slot.and_then(|entry| Some((entry, rib.told_to(entry, receiver)?))) {
                let key = sent.key();
                let same = last.is_some() && alike.is(last, Some(sent), rib.rewrites());
                if estimate >= octets + if same { STRETCH } else { 0 } {
                    break;
                }
                last = Some(sent);
                estimate += rib.octets(entry) + if same || !window.announcements.is_new(key) { 0 } else { ATTRIBUTES };
                window.announcements.push(key, entry);
            } else if let Some(entry) = slot.filter(|entry| self.known.has(*entry)) {
                if estimate >= octets {
                    break;
                }
                self.known.clear(entry);
                estimate += rib.octets(entry);
                window.withdrawals.push(rib.nlri(entry));
            }
            self.cursor = rib.after(self.cursor);
        }
        window
    }
}

/// Length of the first of some messages.
fn message_length(messages: &[u8]) -> Option<usize> {
    messages.get(16..18)?.try_into().ok().map(u16::from_be_bytes).map(usize::from)
}
