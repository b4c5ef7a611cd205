//! Journal of an update group in one family: a bounded ring of encoded frames, read by each member at its own pace.
//!
//! Frames lie one after the other in chunks, so that a member takes many of them as one slice. A frame is one message; the
//! frames of one flush are a *round*. Only between rounds is it certain what a member knows, so a member that
//! loses its place in the ring takes the rest of its round along.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::adj_rib_out::Position;
use super::receiver::Excluded;
use crate::types::PeerId;

/// Octets of a chunk, more or less.
const CHUNK: usize = 64 << 10;
/// Frames for which an empty ring keeps room.
const MANY: usize = 256;

/// Bounds of a journal, in octets of messages. They hold for what was written before the latest flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingLimits {
    /// Kept for whoever is behind.
    pub soft: usize,
    /// Kept as long as more than a quarter of all members would lose their place otherwise, or have lost it: they share what is kept, and
    /// everybody who loses it is told by messages of its own. With 4 MiB ten members that are told a million prefixes lose it all, and
    /// margay takes twice the CPU (`cargo bench -p proto-tests --bench compare -- --scenarios S2`).
    pub hard: usize,
}

impl Default for RingLimits {
    fn default() -> Self {
        Self { soft: 512 << 10, hard: 16 << 20 }
    }
}

/// Who needs what a journal keeps.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    /// Next frames of the members that read it.
    pub readers: Vec<u64>,
    /// How many members do not read it.
    pub lingering: usize,
    /// Much of what the ring tells has been superseded since: those who lose their place have less to hear.
    pub superseded: bool,
}

impl Demand {
    /// The frame from which on so many need the ring that it is kept for them; `soft` or beyond, if nothing older is.
    fn needed(mut self, soft: u64) -> u64 {
        let alone = self.readers.iter().filter(|next| **next < soft).count() <= 1;
        let may_lose = ((self.readers.len() + self.lingering) / 4).saturating_sub(self.lingering);
        if self.superseded || alone || may_lose >= self.readers.len() { soft } else { *self.readers.select_nth_unstable(may_lose).1 }
    }
}

/// Who reads a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// Every member but these.
    AllBut(Excluded),
    /// One member: the withdrawal twin of a frame that is kept from it.
    Only(PeerId),
}

#[derive(Clone, Debug)]
struct Frame {
    chunk: u64,
    start: u32,
    end: u32,
    audience: Audience,
}

/// What ends with a flush.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// Number of the frame after its last one.
    end: u64,
    /// How far a member has been told that has read it.
    tells: Position,
}

/// Where a member reads a journal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Number of its next frame.
    pub next: u64,
    /// How far the rounds that it has read have told it.
    pub cursor: Position,
    /// It has read some of the next round.
    midway: bool,
}

/// How much a member may be given in one pull.
#[derive(Clone, Debug)]
pub(super) struct Credit {
    left: usize,
    reserved: usize,
    given: bool,
}

impl Credit {
    pub fn new(octets: usize) -> Self {
        Self { left: octets, reserved: 0, given: false }
    }

    /// Holds back so much of it, instead of what was held back before.
    pub fn reserve(&mut self, octets: usize) {
        self.reserved = octets;
    }

    pub fn left(&self) -> usize {
        self.left.saturating_sub(self.reserved)
    }

    /// Takes a message of this length, if it may still be given: the first one always may.
    pub fn take(&mut self, octets: usize) -> bool {
        let may = octets <= self.left() || (!self.given && self.left > 0);
        if may {
            self.left = self.left.saturating_sub(octets);
            self.given = true;
        }
        may
    }
}

#[derive(Clone, Debug)]
pub(super) struct Journal {
    frames: VecDeque<Frame>,
    /// Number of the first frame.
    first: u64,
    /// Those that have ended and of which the end is there.
    rounds: VecDeque<Round>,
    chunks: VecDeque<Bytes>,
    first_chunk: u64,
    open: BytesMut,
    octets: usize,
    /// How far the rounds tell that are gone.
    start: Position,
    limits: RingLimits,
}

impl Journal {
    pub fn new(start: Position, limits: RingLimits) -> Self {
        Self {
            limits,
            frames: VecDeque::new(),
            first: 0,
            rounds: VecDeque::new(),
            chunks: VecDeque::new(),
            first_chunk: 0,
            open: BytesMut::new(),
            octets: 0,
            start,
        }
    }

    /// Number of the first frame that is still there.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Number of the next frame to be written.
    pub fn end(&self) -> u64 {
        self.first + self.frames.len() as u64
    }

    /// A member whose place is still in the ring has been told at least this far.
    pub fn start(&self) -> Position {
        self.start
    }

    /// Its bounds.
    pub fn limits(&self) -> RingLimits {
        self.limits
    }

    /// Octets of memory that it takes: of frames, and of the list of them.
    pub fn reserved(&self) -> usize {
        self.octets
            + self.open.capacity()
            + self.frames.capacity() * size_of::<Frame>()
            + self.rounds.capacity() * size_of::<Round>()
            + self.chunks.capacity() * size_of::<Bytes>()
    }

    /// Octets held.
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// Where somebody reads who has been told everything, `cursor` being the end of the log.
    pub fn place_at_end(&self, cursor: Position) -> Place {
        Place { next: self.end(), cursor, midway: false }
    }

    /// Where a member reads on that has been told as far as a round does: of the first round that ends at or behind frame `first` and does
    /// not tell too little.
    pub fn place_after(&self, first: u64, tells_too_little: impl Fn(Position) -> bool) -> Option<Place> {
        let round = self.rounds.get(self.rounds.partition_point(|round| round.end < first || tells_too_little(round.tells)))?;
        Some(Place { next: round.end, cursor: round.tells, midway: false })
    }

    /// Appends a message of a round.
    pub fn push(&mut self, message: &[u8], audience: &Audience) {
        if self.open.len() + message.len() > CHUNK {
            self.close_chunk();
        }
        let start = self.open.len() as u32;
        self.open.extend_from_slice(message);
        let chunk = self.first_chunk + self.chunks.len() as u64;
        let end = self.open.len() as u32;
        self.frames.push_back(Frame { chunk, start, end, audience: audience.clone() });
        self.octets += message.len();
    }

    /// Ends a round, before anybody reads it; `end` is how far its messages tell.
    pub fn end_round(&mut self, end: Position) {
        self.close_chunk();
        let frames = self.end();
        match self.rounds.back_mut() {
            // Nothing was written: those who have read the round before have been told this as well.
            Some(last) if last.end == frames => last.tells = end,
            None if self.frames.is_empty() => {}
            _ => self.rounds.push_back(Round { end: frames, tells: end }),
        }
    }

    fn close_chunk(&mut self) {
        if !self.open.is_empty() {
            self.chunks.push_back(self.open.split().freeze());
        }
    }

    /// Empties the ring: everybody has read everything.
    pub fn clear(&mut self, start: Position) {
        self.first += self.frames.len() as u64;
        self.first_chunk += self.chunks.len() as u64;
        self.octets = 0;
        self.start = start;
        self.chunks.clear();
        self.frames.clear();
        self.rounds.clear();
        if self.frames.capacity() > MANY {
            self.frames.shrink_to(MANY);
            self.chunks.shrink_to(MANY);
            self.rounds.shrink_to(MANY);
        }
    }

    /// Number of the frame before which frames are to go so that the ring stays bounded.
    ///
    /// Above the soft limit frames go that at most a quarter of the members need, so that a single slow reader costs little (Q6), those
    /// that a single one needs, since nobody shares them, and those that mostly tell what is true no more; above the hard limit
    /// frames go whoever needs them.
    pub fn excess(&self, demand: impl FnOnce() -> Demand) -> u64 {
        if self.octets <= self.limits.soft {
            return self.first;
        }
        let soft = self.trimmed_to(self.limits.soft);
        let needed = demand().needed(soft);
        if needed >= soft { soft } else { self.chunk_of(needed).max(self.trimmed_to(self.limits.hard)) }
    }

    /// Number of the frame from which on so many octets are left, or fewer.
    fn trimmed_to(&self, limit: usize) -> u64 {
        let (mut gone, mut octets) = (0, self.octets);
        while octets > limit && gone < self.chunks.len() {
            octets -= self.chunks[gone].len();
            gone += 1;
        }
        self.first + self.frames.partition_point(|frame| frame.chunk < self.first_chunk + gone as u64) as u64
    }

    /// Number of the first frame in the chunk of this one.
    fn chunk_of(&self, frame: u64) -> u64 {
        let chunk = self.frames.get((frame - self.first) as usize).map_or(u64::MAX, |frame| frame.chunk);
        self.first + self.frames.partition_point(|frame| frame.chunk < chunk) as u64
    }

    /// Drops the frames before number `end`, which begins a chunk.
    pub fn drop_before(&mut self, end: u64) {
        while self.first < end {
            let Some(frame) = self.frames.pop_front() else { break };
            self.first += 1;
            self.octets -= (frame.end - frame.start) as usize;
        }
        while let Some(round) = self.rounds.pop_front_if(|round| round.end <= self.first) {
            self.start = round.tells;
        }
        let first_chunk = self.frames.front().map_or(self.first_chunk + self.chunks.len() as u64, |frame| frame.chunk);
        self.chunks.drain(..(first_chunk - self.first_chunk) as usize);
        self.first_chunk = first_chunk;
    }

    /// Gives a member the frames from its place on, as far as the credit goes.
    pub fn read(&self, peer: PeerId, place: &mut Place, credit: &mut Credit, frames: &mut Vec<Bytes>) {
        self.read_until(self.end(), peer, place, credit, frames);
    }

    /// Gives a member that is in the middle of a round the rest of it, whatever its size.
    pub fn read_rest(&self, peer: PeerId, place: &mut Place) -> Vec<Bytes> {
        let mut frames = Vec::new();
        while place.midway && place.next < self.end() {
            self.read_until(place.next + 1, peer, place, &mut Credit::new(usize::MAX), &mut frames);
        }
        frames
    }

    fn read_until(&self, end: u64, peer: PeerId, place: &mut Place, credit: &mut Credit, frames: &mut Vec<Bytes>) {
        let mut slice: Option<(u64, u32, u32)> = None;
        let mut rounds = self.rounds.range(self.rounds.partition_point(|round| round.end <= place.next)..).peekable();
        for frame in self.frames.range((place.next - self.first) as usize..(end - self.first) as usize) {
            if frame.audience.has(peer) {
                if !credit.take((frame.end - frame.start) as usize) {
                    break;
                }
                slice = match slice {
                    Some((chunk, start, end)) if chunk == frame.chunk && end == frame.start => Some((chunk, start, frame.end)),
                    other => {
                        frames.extend(other.and_then(|slice| self.slice(slice)));
                        Some((frame.chunk, frame.start, frame.end))
                    }
                };
            }
            place.next += 1;
            let ended = rounds.next_if(|round| round.end == place.next);
            place.midway = ended.is_none();
            place.cursor = ended.map_or(place.cursor, |round| round.tells);
        }
        frames.extend(slice.and_then(|slice| self.slice(slice)));
    }

    fn slice(&self, (chunk, start, end): (u64, u32, u32)) -> Option<Bytes> {
        let chunk = self.chunks.get((chunk - self.first_chunk) as usize)?;
        Some(chunk.slice(start as usize..end as usize))
    }
}

impl Audience {
    fn has(&self, peer: PeerId) -> bool {
        match self {
            Self::AllBut(excluded) => !excluded.has(peer),
            Self::Only(only) => *only == peer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rib::adj_rib_out::{AdjRibOut, LogLimits};
    use crate::types::Ipv4Unicast;

    const LIMITS: RingLimits = RingLimits { soft: 1_000, hard: 5_000 };

    /// A journal with this many rounds of five messages of twenty octets; the last message of a round is for peer 7 only.
    fn journal(rounds: u8) -> (Journal, Position) {
        let position = AdjRibOut::<Ipv4Unicast>::new(false, LogLimits::default()).end();
        let mut journal = Journal::new(position, LIMITS);
        for round in 0..rounds {
            for _ in 0..4 {
                journal.push(&[round; 20], &Audience::AllBut(Excluded::default()));
            }
            journal.push(&[round; 20], &Audience::Only(PeerId(7)));
            journal.end_round(position);
        }
        (journal, position)
    }

    fn demand(readers: impl Iterator<Item = u64>) -> Demand {
        Demand { readers: readers.collect(), lingering: 0, superseded: false }
    }

    #[test]
    fn messages_of_a_chunk_are_one_slice_and_the_credit_holds() {
        let (journal, position) = journal(2);
        for (peer, credit, slices) in
            [(1, 1_000, vec![80, 80]), (7, 1_000, vec![100, 100]), (1, 110, vec![80, 20]), (1, 1, vec![20]), (1, 0, vec![])]
        {
            let mut place = Place { next: journal.first(), cursor: position, midway: false };
            let mut frames = Vec::new();
            journal.read(PeerId(peer), &mut place, &mut Credit::new(credit), &mut frames);
            assert_eq!(frames.iter().map(Bytes::len).collect::<Vec<_>>(), slices, "peer {peer}, credit {credit}");
            assert_eq!(place.next == journal.end(), credit == 1_000);
        }
    }

    #[test]
    fn q6_one_slow_reader_does_not_keep_the_ring() {
        let (mut journal, _) = journal(30);
        let end = journal.end();
        let all_but_one = || demand(std::iter::once(0).chain(std::iter::repeat_n(end, 9)));
        let excess = journal.excess(all_but_one);
        assert_eq!(excess, 100, "down to the soft limit");
        journal.drop_before(excess);
        assert_eq!((journal.octets(), journal.first()), (1_000, 100));
        assert_eq!(journal.excess(all_but_one), 100);
    }

    #[test]
    fn not_more_than_a_quarter_of_all_lose_their_place_however_often_it_is_asked() {
        let (journal, _) = journal(30);
        let slow = |readers: usize, lingering| Demand { lingering, ..demand(std::iter::repeat_n(0, readers)) };
        let some = |slow: usize| demand(std::iter::repeat_n(0, slow).chain(std::iter::repeat_n(journal.end(), 10 - slow)));
        assert_eq!(journal.excess(|| some(2)), 100);
        assert_eq!(journal.excess(|| some(3)), 0);
        assert_eq!(journal.excess(|| slow(8, 2)), 0, "two of ten have lost it before");
        assert_eq!(journal.excess(|| slow(1, 2)), 100, "nobody shares with it");
        assert_eq!(journal.excess(|| Demand { superseded: true, ..slow(10, 0) }), 100, "but what is not true any more is kept for nobody");
    }

    #[test]
    fn most_readers_keep_the_ring_up_to_its_hard_limit() {
        let slow = || demand(std::iter::repeat_n(0, 10));
        assert_eq!(journal(50).0.excess(slow), 0);
        assert_eq!(journal(60).0.excess(slow), 50);
        assert_eq!(journal(30).0.excess(|| demand(std::iter::empty())), 100);
    }

    #[test]
    fn who_loses_its_place_takes_the_rest_of_the_round() {
        let (journal, position) = journal(3);
        let mut place = Place { next: journal.first(), cursor: position, midway: false };
        assert!(journal.read_rest(PeerId(1), &mut place).is_empty(), "between rounds there is no rest");
        journal.read(PeerId(1), &mut place, &mut Credit::new(120), &mut Vec::new());
        let rest = journal.read_rest(PeerId(1), &mut place);
        assert_eq!(rest.concat(), [1; 40]);
        assert_eq!((place.next, place.midway), (10, false));
    }

    #[test]
    fn numbers_go_on_after_the_ring_was_emptied() {
        let (mut journal, position) = journal(3);
        journal.clear(position);
        assert_eq!((journal.first(), journal.end(), journal.octets()), (15, 15, 0));
        let mut place = journal.place_at_end(position);
        journal.push(&[9; 20], &Audience::AllBut(Excluded::default()));
        journal.end_round(position);
        let mut frames = Vec::new();
        journal.read(PeerId(1), &mut place, &mut Credit::new(100), &mut frames);
        assert_eq!(frames, [Bytes::from_static(&[9; 20])]);
    }
}
