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
    /// Kept as long as more than a quarter of the members that read the journal still need it: they share what is kept.
    pub hard: usize,
}

impl Default for RingLimits {
    fn default() -> Self {
        Self { soft: 512 << 10, hard: 4 << 20 }
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
    /// On the last frame of a round: how far a member has been told that has read it.
    ends_round: Option<Position>,
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
        Self { limits, frames: VecDeque::new(), first: 0, chunks: VecDeque::new(), first_chunk: 0, open: BytesMut::new(), octets: 0, start }
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
        self.octets + self.open.capacity() + self.frames.capacity() * size_of::<Frame>() + self.chunks.capacity() * size_of::<Bytes>()
    }

    /// Octets held.
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// Where somebody reads who has been told everything, `cursor` being the end of the log.
    pub fn place_at_end(&self, cursor: Position) -> Place {
        Place { next: self.end(), cursor, midway: false }
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
        self.frames.push_back(Frame { chunk, start, end, audience: audience.clone(), ends_round: None });
        self.octets += message.len();
    }

    /// Ends a round, before anybody reads it; `end` is how far its messages tell.
    pub fn end_round(&mut self, end: Position) {
        self.close_chunk();
        if let Some(last) = self.frames.back_mut() {
            last.ends_round = Some(end);
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
        if self.frames.capacity() > MANY {
            self.frames.shrink_to(MANY);
            self.chunks.shrink_to(MANY);
        }
    }

    /// Number of the frame before which frames are to go so that the ring stays bounded. `readers` are the next frames of the members.
    ///
    /// Above the soft limit frames go that at most a quarter of the members need, so that a single slow reader costs
    /// little (Q6); above the hard limit frames go whoever needs them.
    pub fn excess(&self, readers: impl Iterator<Item = u64>) -> u64 {
        if self.octets <= self.limits.soft {
            return self.first;
        }
        let mut readers: Vec<u64> = readers.collect();
        let quarter = readers.len() / 4;
        let needed = match readers.is_empty() {
            true => self.end(),
            false => *readers.select_nth_unstable(quarter).1,
        };
        let (mut end, mut octets) = (self.first, self.octets);
        for chunk in (0..).zip(&self.chunks).map(|(index, _)| self.first_chunk + index) {
            let chunk_end = self.first + self.frames.partition_point(|frame| frame.chunk <= chunk) as u64;
            if octets <= self.limits.soft || (chunk_end > needed && octets <= self.limits.hard) {
                break;
            }
            octets -= self.chunks[(chunk - self.first_chunk) as usize].len();
            end = chunk_end;
        }
        end
    }

    /// Drops the frames before number `end`, which begins a chunk.
    pub fn drop_before(&mut self, end: u64) {
        while self.first < end {
            let Some(frame) = self.frames.pop_front() else { break };
            self.first += 1;
            self.octets -= (frame.end - frame.start) as usize;
            self.start = frame.ends_round.unwrap_or(self.start);
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
            place.midway = frame.ends_round.is_none();
            place.cursor = frame.ends_round.unwrap_or(place.cursor);
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
        let all_but_one = |slow: u64| std::iter::once(slow).chain(std::iter::repeat_n(end, 9));
        let excess = journal.excess(all_but_one(0));
        assert_eq!(excess, 100, "down to the soft limit");
        journal.drop_before(excess);
        assert_eq!((journal.octets(), journal.first()), (1_000, 100));
        assert_eq!(journal.excess(all_but_one(0)), 100);
    }

    #[test]
    fn most_readers_keep_the_ring_up_to_its_hard_limit() {
        let slow = || std::iter::repeat_n(0, 10);
        assert_eq!(journal(50).0.excess(slow()), 0);
        assert_eq!(journal(60).0.excess(slow()), 50);
        assert_eq!(journal(30).0.excess(std::iter::empty()), 100);
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
