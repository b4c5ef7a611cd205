//! Compaction of the log: invalid slots and tombstones that nobody needs are dropped, in steps, so that a table of a million paths that
//! comes and goes delays nobody else's changes by more than a step.
//!
//! ```text
//!   0 ─────────── next ░░░░░░░░ start ━━━━━━━━━━━━━━━━━ split ──────────────→ end
//!   to be looked at    void      kept, without gaps      not touched: members
//!                                                        may need it as it was
//! ```
//!
//! A step looks at slots from `next` downward and moves what is kept to just before `start`. An entry is told its new place at once, which
//! by itself makes what is left in the void invalid: whoever reads the log between two steps finds nothing to mind. Members
//! that walk and stand below a slot that moves up are still below it; one that `next` has passed, or that has walked into the void, is put
//! at `start`: what it has heard is going to be moved to before that.
//!
//! Who begins a walk meanwhile does not need what was not needed at the beginning: a tombstone below `split` was told to all that read
//! the journal then, and a newcomer is told of no tombstone at all.

use super::{AdjRibOut, Bits, LOGGED, Position};
use crate::types::AddressFamily;

/// How many times as much as is needed there must be before it is worth looking at all of it. Others wait meanwhile: with a table that is
/// withdrawn as a whole twice as much would be looked through at nine lengths above 50,000, this at four.
const MOSTLY: usize = 4;

/// When a log is compacted, and in which steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// Slots that are not worth a compaction.
    pub slack: usize,
    /// Slots that a step looks at; at least one.
    pub bite: usize,
}

impl Default for LogLimits {
    /// A step takes some 100 µs.
    fn default() -> Self {
        Self { slack: 1024, bite: 32 << 10 }
    }
}

/// A compaction under way; see the module.
#[derive(Clone, Debug)]
pub(super) struct Compaction {
    next: usize,
    start: usize,
    /// Entries whose tombstones somebody needs.
    needed: Bits,
}

impl<A: AddressFamily> AdjRibOut<A> {
    /// Whether there is enough to drop. `quiet`: nobody needs tombstones or old slots.
    pub fn wants_compaction(&self, quiet: bool) -> bool {
        let long = self.log.len() > MOSTLY * self.live + self.limits.slack;
        // A compaction on the way may have left no log to speak of.
        let gone = self.live == 0 && self.entries.len() > self.limits.slack;
        (long && (quiet || self.log.len() >= self.compact_at)) || (gone && quiet)
    }

    /// Whether a compaction has begun and goes on with the next [`compact`](Self::compact).
    pub fn is_compacting(&self) -> bool {
        self.compaction.is_some()
    }

    /// Begins to drop invalid slots before `keep_from` and tombstones there that are not in `needed`. No member but those whose cursors
    /// [`compact`](Self::compact) is going to be given may have been told less than up to `keep_from`.
    pub fn begin_compaction(&mut self, keep_from: Position, needed: Bits) {
        self.forget_before(keep_from);
        let split = self.index(keep_from).min(self.log.len());
        if self.index(self.births_since) < split {
            self.births_since = self.position(split);
        }
        self.compaction = Some(Box::new(Compaction { next: split, start: split, needed }));
    }

    /// Goes on by a step. `cursors` are the positions of all members that walk.
    pub fn compact(&mut self, cursors: &mut [&mut Position]) {
        let Some(mut compaction) = self.compaction.take() else { return };
        self.step(&mut compaction, cursors);
        if compaction.next > 0 {
            self.compaction = Some(compaction);
        } else {
            self.finish(compaction.start, cursors);
        }
    }

    fn step(&mut self, compaction: &mut Compaction, cursors: &mut [&mut Position]) {
        let Compaction { next, start, needed } = compaction;
        let end = next.saturating_sub(self.limits.bite.max(1));
        let cursors = cursors.iter_mut().map(|cursor| (self.index(**cursor), &mut **cursor));
        let mut cursors: Vec<(usize, &mut Position)> = cursors.filter(|(at, _)| (end + 1..=*start).contains(at)).collect();
        cursors.sort_unstable_by_key(|(at, _)| std::cmp::Reverse(*at));
        let mut cursors = cursors.into_iter().peekable();
        for index in (end..*next).rev() {
            while let Some((_, cursor)) = cursors.next_if(|(at, _)| *at > index) {
                *cursor = self.position(*start);
            }
            let Some(entry) = self.valid(self.position(index)) else { continue };
            if self.entries[entry as usize].is_live() || needed.has(entry) {
                *start -= 1;
                self.log[*start] = entry;
                self.entries[entry as usize].slot = self.position(*start).0;
            } else {
                self.entries[entry as usize].set(LOGGED, false);
            }
        }
        *next = end;
    }

    /// Everything before `start` is void.
    fn finish(&mut self, start: usize, cursors: &mut [&mut Position]) {
        let base = self.position(start);
        cursors.iter_mut().filter(|cursor| self.index(***cursor) < start).for_each(|cursor| **cursor = base);
        self.base = base.0;
        self.log.drain(..start);
        if self.log.capacity() > 4 * self.log.len() + self.limits.slack {
            self.log.shrink_to(2 * self.log.len() + self.limits.slack);
        }
        self.compact_at = self.log.len() + (self.log.len() / 2).max(self.limits.slack);
        self.release();
    }

    /// Gives back detached entries without a slot, and all memory when nothing is left. A table of which some is left is likely to come again:
    /// it keeps its room, as the Loc-RIB does.
    fn release(&mut self) {
        let (entries, free) = (&self.entries, &mut self.free);
        self.detached.retain(|_, entry| {
            let needed = !entries[*entry as usize].is_vacant();
            if !needed {
                free.push(*entry);
            }
            needed
        });
        if self.live == 0 && self.log.is_empty() && self.round.is_empty() && self.detached.is_empty() {
            (self.entries, self.links, self.heads, self.free, self.told) = Default::default();
        }
    }
}
