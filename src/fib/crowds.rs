//! Routes that are about to leave a next-hop object together: where all routes of one are to go the same way, as when a next hop dies, the
//! object is changed and none of them is written.
//!
//! The Loc-RIB tells of them one by one, over many rounds. So a route that leaves an object for other hops waits here until nothing is
//! left to hear: not at all where it is one of a few, and never longer than writing all of them one by one would take.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::objects::Hops;
use super::rows::RowId;

/// An object with fewer routes is not waited for.
pub(super) const CROWD: usize = 64;
/// A crowd has come together when none has joined it for so long: with the Loc-RIB at rest, of which a peer may yet have more to say, and
/// with the Loc-RIB at work.
const QUIET: Duration = Duration::from_millis(10);
const BUSY: Duration = Duration::from_millis(100);
/// The longest wait, and what it is longer by for each route of the object: about what Linux takes to write it.
const LONGEST: Duration = Duration::from_millis(200);
const LONGER: Duration = Duration::from_micros(10);

/// All routes of an object are to take other hops.
#[derive(Clone, Debug)]
pub(super) struct Move {
    pub group: u32,
    pub hops: Hops,
    pub rows: Vec<RowId>,
}

/// Rows that want to leave one object.
#[derive(Clone, Debug)]
pub(super) struct Crowd {
    pub rows: Vec<RowId>,
    last: Instant,
    /// When it has waited long enough.
    end: Instant,
}

impl Crowd {
    /// Whether enough want to leave at once that more are to be expected.
    pub(super) fn is_large(&self) -> bool {
        self.rows.len() >= CROWD
    }

    /// Whether it has waited long enough.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        now >= self.end
    }
}

/// Those of all objects.
#[derive(Debug, Default)]
pub(super) struct Crowds {
    by_group: BTreeMap<u32, Crowd>,
    /// The Loc-RIB is about to tell more.
    busy: bool,
    /// As of when [`deadline`](Self::deadline) is.
    now: Option<Instant>,
}

impl Crowds {
    /// One more that wants to leave an object, by which so many routes go.
    pub(super) fn join(&mut self, now: Instant, group: u32, routes: usize, row: RowId) {
        self.now = Some(now);
        let crowd = self.by_group.entry(group).or_insert_with(|| {
            let routes = u32::try_from(routes).unwrap_or(u32::MAX);
            Crowd { rows: Vec::new(), last: now, end: now + LONGEST + LONGER.saturating_mul(routes) }
        });
        crowd.rows.push(row);
        crowd.last = now;
    }

    /// Whether the Loc-RIB is about to tell more.
    pub(super) fn expect(&mut self, more: bool) {
        self.busy = more;
    }

    fn complete_at(&self, crowd: &Crowd) -> Instant {
        crowd.end.min(crowd.last + if self.busy { BUSY } else { QUIET })
    }

    /// Whether the crowd has come together.
    pub(super) fn is_complete(&self, crowd: &Crowd, now: Instant) -> bool {
        now >= self.complete_at(crowd)
    }

    /// All of them, to be looked at; those that are to wait on are put back.
    pub(super) fn take(&mut self, now: Instant) -> BTreeMap<u32, Crowd> {
        self.now = Some(now);
        std::mem::take(&mut self.by_group)
    }

    /// It waits on.
    pub(super) fn put_back(&mut self, group: u32, crowd: Crowd) {
        self.by_group.insert(group, crowd);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_group.is_empty()
    }

    /// When the next of them is to be looked at, if nothing happens before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let now = self.now?;
        let due = |crowd: &Crowd| if self.is_complete(crowd, now) { crowd.end } else { self.complete_at(crowd) };
        self.by_group.values().map(due).min()
    }
}
