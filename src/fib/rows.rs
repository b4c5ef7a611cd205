//! Rows: what the FibSyncer knows of each prefix. There may be a million of them, so a row of IPv4 takes 24 octets, and its place in
//! the index 5 more; what many rows have in common is held once ([`Shared`]).

use std::collections::BTreeSet;
use std::hash::Hash;
use std::sync::Arc;

use hashbrown::HashTable;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use smallvec::SmallVec;

use super::BestRoute;
use super::route::{Shape, Verdict};
use crate::types::Seeded;

/// A best route and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Decision {
    pub best: BestRoute,
    pub verdict: Verdict,
}

impl Decision {
    pub(super) fn wanted(&self) -> Option<&Shape> {
        match &self.verdict {
            Verdict::Want(shape) => Some(shape),
            Verdict::NotWanted(_) => None,
        }
    }
}

/// The routes of ours that the kernel has for a prefix, one a metric; never empty where a row has it.
pub(super) type Shapes = SmallVec<[Shape; 1]>;

/// Number of a row; it stays with its prefix until the row is released. IPv4 comes before IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RowId(u32);

impl RowId {
    /// The least of all.
    pub(super) const FIRST: Self = Self(0);
    const IPV6: u32 = 1 << 31;

    /// The number after it.
    pub(super) fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Whether its prefix is one of IPv4.
    pub(super) fn is_ipv4(self) -> bool {
        self.0 & Self::IPV6 == 0
    }

    fn index(self) -> usize {
        (self.0 & !Self::IPV6) as usize
    }
}

/// What is true of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Mark {
    /// It holds a prefix.
    Used = 1,
    /// What the kernel has is of a past life and not claimed.
    Adopted = 2,
    /// It waits to be looked at.
    Dirty = 4,
    /// A write of it is under way.
    Flying = 8,
    /// It is to be written by itself, and not to wait for others that go by the same object.
    Alone = 16,
}

/// The part of a row that does not depend on the family.
#[derive(Debug, Default)]
struct State {
    decision: Option<Arc<Decision>>,
    have: Option<Arc<Shapes>>,
}

#[derive(Debug)]
struct Slot<P> {
    state: State,
    prefix: P,
    generation: u8,
    marks: u8,
}

impl<P> Slot<P> {
    fn is_vacant(&self) -> bool {
        self.state.decision.is_none() && self.state.have.is_none() && self.marks & (Mark::Dirty as u8 | Mark::Flying as u8) == 0
    }
}

/// A row, to look at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub id: RowId,
    pub prefix: IpNet,
    pub decision: Option<&'a Arc<Decision>>,
    have: Option<&'a Arc<Shapes>>,
    /// The read-back (or live event) that `have` stems from.
    pub generation: u8,
    marks: u8,
}

impl<'a> Row<'a> {
    pub(super) fn wanted(&self) -> Option<&'a Shape> {
        self.decision.and_then(|decision| decision.wanted())
    }

    /// The routes of ours that the kernel has.
    pub(super) fn have(&self) -> &'a [Shape] {
        self.have.map_or(&[], |have| have.as_slice())
    }

    /// The one of this metric.
    pub(super) fn have_metric(&self, metric: u32) -> Option<&'a Shape> {
        self.have().iter().find(|shape| shape.metric == metric)
    }

    pub(super) fn is(&self, mark: Mark) -> bool {
        self.marks & mark as u8 != 0
    }

    /// There is something to tell about the prefix.
    pub(super) fn is_known(&self) -> bool {
        self.decision.is_some() || self.have.is_some()
    }
}

/// A row, to change.
#[derive(Debug)]
pub(super) struct RowMut<'a> {
    pub decision: &'a mut Option<Arc<Decision>>,
    pub have: &'a mut Option<Arc<Shapes>>,
    pub generation: &'a mut u8,
    marks: &'a mut u8,
}

impl RowMut<'_> {
    /// Sets or clears the mark; answers whether it was set.
    pub(super) fn set(&mut self, mark: Mark, on: bool) -> bool {
        let was = *self.marks & mark as u8 != 0;
        *self.marks = if on { *self.marks | mark as u8 } else { *self.marks & !(mark as u8) };
        was
    }
}

/// All rows.
#[derive(Debug)]
pub(super) struct Rows {
    seeded: Seeded,
    ipv4: Slab<Ipv4Net>,
    ipv6: Slab<Ipv6Net>,
}

impl Rows {
    /// None yet; `seed` keys the index.
    pub(super) fn new(seed: u64) -> Self {
        Self { seeded: Seeded::new(seed), ipv4: Slab::default(), ipv6: Slab::default() }
    }

    /// The row of a prefix.
    pub(super) fn find(&self, prefix: &IpNet) -> Option<RowId> {
        match prefix {
            IpNet::V4(prefix) => self.ipv4.find(&self.seeded, prefix).map(RowId),
            IpNet::V6(prefix) => self.ipv6.find(&self.seeded, prefix).map(|index| RowId(index | RowId::IPV6)),
        }
    }

    /// The row of a prefix, made if there is none: then nothing is known of it.
    pub(super) fn enter(&mut self, prefix: IpNet) -> RowId {
        match prefix {
            IpNet::V4(prefix) => RowId(self.ipv4.enter(&self.seeded, prefix)),
            IpNet::V6(prefix) => RowId(self.ipv6.enter(&self.seeded, prefix) | RowId::IPV6),
        }
    }

    /// A row.
    pub(super) fn get(&self, id: RowId) -> Option<Row<'_>> {
        if id.is_ipv4() { self.ipv4.get(id) } else { self.ipv6.get(id) }
    }

    /// A row, to change.
    pub(super) fn get_mut(&mut self, id: RowId) -> Option<RowMut<'_>> {
        if id.is_ipv4() { self.ipv4.get_mut(id) } else { self.ipv6.get_mut(id) }
    }

    /// Forgets the row if nothing is known of it and nothing is to be done.
    pub(super) fn release(&mut self, id: RowId) {
        if id.is_ipv4() { self.ipv4.release(&self.seeded, id) } else { self.ipv6.release(&self.seeded, id) }
    }

    /// The numbers of the rows that there are now, IPv4 first.
    pub(super) fn ids(&self) -> impl Iterator<Item = RowId> + use<> {
        self.ipv4_ids().chain((0..self.ipv6.slots.len() as u32).map(|index| RowId(index | RowId::IPV6)))
    }

    /// Those of IPv4.
    pub(super) fn ipv4_ids(&self) -> impl Iterator<Item = RowId> + use<> {
        (0..self.ipv4.slots.len() as u32).map(RowId)
    }

    /// The rows from a number on.
    pub(super) fn from(&self, start: RowId) -> impl Iterator<Item = Row<'_>> {
        let (ipv4, ipv6) = if start.is_ipv4() { (start.index(), 0) } else { (self.ipv4.slots.len(), start.index()) };
        let ipv4 = (ipv4..self.ipv4.slots.len()).filter_map(|index| self.get(RowId(index as u32)));
        ipv4.chain((ipv6..self.ipv6.slots.len()).filter_map(|index| self.get(RowId(index as u32 | RowId::IPV6))))
    }
}

/// The rows of one family and the index of their prefixes.
#[derive(Debug)]
struct Slab<P> {
    map: HashTable<u32>,
    slots: Vec<Slot<P>>,
    free: Vec<u32>,
}

impl<P> Default for Slab<P> {
    fn default() -> Self {
        Self { map: HashTable::new(), slots: Vec::new(), free: Vec::new() }
    }
}

impl<P: Copy + Eq + Hash + Into<IpNet>> Slab<P> {
    fn find(&self, seeded: &Seeded, prefix: &P) -> Option<u32> {
        self.map.find(seeded.hash(prefix), |&index| self.slots[index as usize].prefix == *prefix).copied()
    }

    fn enter(&mut self, seeded: &Seeded, prefix: P) -> u32 {
        if let Some(index) = self.find(seeded, &prefix) {
            return index;
        }
        let slot = Slot { state: State::default(), prefix, generation: 0, marks: Mark::Used as u8 };
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
        };
        let slots = &self.slots;
        self.map.insert_unique(seeded.hash(&prefix), index, |&index| seeded.hash(&slots[index as usize].prefix));
        index
    }

    fn used(&self, id: RowId) -> Option<&Slot<P>> {
        self.slots.get(id.index()).filter(|slot| slot.marks & Mark::Used as u8 != 0)
    }

    fn get(&self, id: RowId) -> Option<Row<'_>> {
        let Slot { state, prefix, generation, marks } = self.used(id)?;
        let (decision, have) = (state.decision.as_ref(), state.have.as_ref());
        Some(Row { id, prefix: (*prefix).into(), decision, have, generation: *generation, marks: *marks })
    }

    fn get_mut(&mut self, id: RowId) -> Option<RowMut<'_>> {
        let Slot { state, generation, marks, .. } = self.slots.get_mut(id.index()).filter(|slot| slot.marks & Mark::Used as u8 != 0)?;
        Some(RowMut { decision: &mut state.decision, have: &mut state.have, generation, marks })
    }

    fn release(&mut self, seeded: &Seeded, id: RowId) {
        let Some(prefix) = self.used(id).filter(|slot| slot.is_vacant()).map(|slot| slot.prefix) else { return };
        let index = id.index() as u32;
        if let Ok(entry) = self.map.find_entry(seeded.hash(&prefix), |&other| other == index) {
            entry.remove();
        }
        self.slots[id.index()].marks = 0;
        self.free.push(index);
        if self.map.is_empty() {
            *self = Self::default();
        }
    }
}

/// Values held once, however many rows point to them: equal ones are one `Arc`.
#[derive(Debug)]
pub(super) struct Shared<T> {
    values: BTreeSet<Arc<T>>,
    /// What was asked for last: neighbours mostly want the same.
    last: Option<Arc<T>>,
    /// Beyond this many, unused ones are dropped.
    limit: usize,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self { values: BTreeSet::new(), last: None, limit: 1024 }
    }
}

impl<T: Ord> Shared<T> {
    /// The one `Arc` of this value.
    pub(super) fn get(&mut self, value: T) -> Arc<T> {
        if let Some(last) = self.last.as_ref().filter(|last| ***last == value) {
            return Arc::clone(last);
        }
        let value = match self.values.get(&value) {
            Some(known) => Arc::clone(known),
            None => self.add(value),
        };
        self.last = Some(Arc::clone(&value));
        value
    }

    fn add(&mut self, value: T) -> Arc<T> {
        self.last = None;
        if self.values.len() >= self.limit {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.limit = 1024.max(2 * self.values.len());
        }
        let value = Arc::new(value);
        self.values.insert(Arc::clone(&value));
        value
    }

    /// Whether `pick` holds for any value; some of them may be out of use.
    pub(super) fn any(&self, pick: impl Fn(&T) -> bool) -> bool {
        self.values.iter().any(|value| pick(value))
    }
}

impl Shared<Shapes> {
    /// The one `Arc` of a route alone.
    pub(super) fn only(&mut self, shape: &Shape) -> Arc<Shapes> {
        match &self.last {
            Some(last) if last.as_slice() == std::slice::from_ref(shape) => Arc::clone(last),
            _ => self.get([shape.clone()].into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(n: u32) -> IpNet {
        IpNet::new(n.to_be_bytes().into(), 32).unwrap()
    }

    #[test]
    fn a_row_is_small() {
        assert_eq!((size_of::<Slot<Ipv4Net>>(), size_of::<Slot<Ipv6Net>>()), (24, 40));
    }

    #[test]
    fn a_number_stays_while_anything_is_known_and_memory_goes_back_with_the_last_row() {
        let mut rows = Rows::new(7);
        let ids: Vec<RowId> = (0..1000).map(|n| rows.enter(net(n))).collect();
        let six = rows.enter("2001:db8::/32".parse().unwrap());
        assert!((0..1000).all(|n| rows.find(&net(n)) == Some(ids[n as usize]) && rows.enter(net(n)) == ids[n as usize]));
        rows.get_mut(ids[5]).unwrap().set(Mark::Dirty, true);
        ids.iter().for_each(|id| rows.release(*id));
        assert_eq!((rows.find(&net(5)), rows.find(&net(6))), (Some(ids[5]), None));
        assert_eq!(rows.from(RowId::FIRST).map(|row| row.id).collect::<Vec<_>>(), [ids[5], six]);
        assert_eq!(rows.from(ids[5].next()).map(|row| row.id).collect::<Vec<_>>(), [six]);
        rows.get_mut(ids[5]).unwrap().set(Mark::Dirty, false);
        rows.release(ids[5]);
        assert_eq!((rows.ipv4.slots.capacity(), rows.ids().count()), (0, 1));
    }

    #[test]
    fn equal_values_are_one() {
        let mut shared = Shared::default();
        let (a, b, c) = (shared.get(1), shared.get(2), shared.get(1));
        assert!(Arc::ptr_eq(&a, &c) && !Arc::ptr_eq(&a, &b));
    }
}
