//! Attribute sets, each kept once: equal sets share one `Arc`, so equality below is equality of pointers.

use std::sync::Arc;

use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::types::Attributes;
use crate::types::Seeded;

/// Octets that are not worth a sweep.
const SLACK: usize = 4 << 20;
/// Sets that are looked up together, without memory of their own from the heap.
const SETS: usize = 32;

/// The attribute sets of a shard, by content. A set is hashed once, when it comes in.
#[derive(Clone, Debug)]
pub(super) struct Interner {
    seeded: Seeded,
    table: HashTable<u32>,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    /// Octets of the sets themselves.
    held: usize,
    /// The same after the last sweep.
    swept: usize,
    /// Where the sweep under way goes on.
    cursor: usize,
}

#[derive(Clone, Debug)]
struct Slot {
    hash: u64,
    attributes: Arc<Attributes>,
}

impl Interner {
    /// Nothing yet.
    pub(super) fn new(seed: u64) -> Self {
        Self { seeded: Seeded::new(seed), table: HashTable::new(), slots: Vec::new(), free: Vec::new(), held: 0, swept: 0, cursor: 0 }
    }

    /// The one `Arc` that stands for this content.
    pub(super) fn intern(&mut self, attributes: Arc<Attributes>) -> Arc<Attributes> {
        let hash = self.seeded.hash(&*attributes);
        match self.find(&attributes, hash) {
            Some(known) => known,
            None => self.enter(attributes, hash),
        }
    }

    /// The same for many. In loops of their own the look-ups overlap in the memory system, which is most of their time.
    pub(super) fn intern_all<'a>(&mut self, all: impl Iterator<Item = &'a Arc<Attributes>> + Clone) -> SmallVec<[Arc<Attributes>; SETS]> {
        let hashes: SmallVec<[u64; SETS]> = all.clone().map(|attributes| self.seeded.hash(&**attributes)).collect();
        let known: SmallVec<[Option<Arc<Attributes>>; SETS]> =
            all.clone().zip(&hashes).map(|(attributes, hash)| self.find(attributes, *hash)).collect();
        let hashed = all.zip(hashes).zip(known);
        // One that is new may stand there twice.
        let mut again = |(attributes, hash): (&Arc<Attributes>, u64)| match self.find(attributes, hash) {
            Some(known) => known,
            None => self.enter(Arc::clone(attributes), hash),
        };
        hashed.map(|(hashed, known)| known.unwrap_or_else(|| again(hashed))).collect()
    }

    fn find(&self, attributes: &Attributes, hash: u64) -> Option<Arc<Attributes>> {
        let slot = |index: &u32| self.slots.get(*index as usize).and_then(Option::as_ref);
        let is_it = |index: &u32| slot(index).is_some_and(|slot| slot.hash == hash && *slot.attributes == *attributes);
        self.table.find(hash, is_it).and_then(slot).map(|slot| Arc::clone(&slot.attributes))
    }

    fn enter(&mut self, attributes: Arc<Attributes>, hash: u64) -> Arc<Attributes> {
        self.held += attributes.octets();
        let slot = Some(Slot { hash, attributes: Arc::clone(&attributes) });
        let index = match self.free.pop() {
            Some(index) => {
                if let Some(place) = self.slots.get_mut(index as usize) {
                    *place = slot;
                }
                index
            }
            None => {
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
        };
        let slots = &self.slots;
        self.table.insert_unique(hash, index, |&i| slots.get(i as usize).and_then(Option::as_ref).map_or(0, |s| s.hash));
        attributes
    }

    /// Frees sets that nobody uses, looking at no more than `budget` of them; true when a whole turn is done.
    pub(super) fn sweep(&mut self, budget: usize) -> bool {
        let end = self.slots.len().min(self.cursor.saturating_add(budget));
        for index in self.cursor..end {
            let Some(place) = self.slots.get_mut(index) else { break };
            let Some(slot) = place.take_if(|slot| Arc::strong_count(&slot.attributes) == 1) else { continue };
            self.held = self.held.saturating_sub(slot.attributes.octets());
            if let Ok(entry) = self.table.find_entry(slot.hash, |&i| i as usize == index) {
                entry.remove();
            }
            self.free.push(index as u32);
        }
        self.cursor = end;
        let done = end >= self.slots.len();
        if done {
            (self.cursor, self.swept) = (0, self.held);
            self.shrink();
        }
        done
    }

    /// Octets of memory that the sets and their table have reserved.
    pub(super) fn octets(&self) -> usize {
        self.held + self.slots.capacity() * size_of::<Option<Slot>>() + self.free.capacity() * 4 + self.table.allocation_size()
    }

    /// Whether the sets take more than twice what they took after the last sweep, and a few MiB.
    pub(super) fn has_doubled(&self) -> bool {
        self.held > 2 * self.swept + SLACK
    }

    /// How many sets there are.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    fn shrink(&mut self) {
        if self.table.is_empty() {
            *self = Self {
                seeded: self.seeded.clone(),
                table: HashTable::new(),
                slots: Vec::new(),
                free: Vec::new(),
                held: 0,
                swept: 0,
                cursor: 0,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(med: u32) -> Arc<Attributes> {
        Arc::new(Attributes { med: Some(med), ..Attributes::default() })
    }

    #[test]
    fn equal_content_is_one_pointer() {
        let mut interner = Interner::new(7);
        let (a, b, c) = (interner.intern(set(1)), interner.intern(set(1)), interner.intern(set(2)));
        assert!(Arc::ptr_eq(&a, &b));
        assert!(!Arc::ptr_eq(&a, &c));
        assert_eq!(interner.len(), 2);
    }

    #[test]
    fn unused_sets_are_freed_in_steps_and_their_places_used_again() {
        let mut interner = Interner::new(7);
        let kept = interner.intern(set(0));
        for med in 1..100 {
            interner.intern(set(med));
        }
        let mut steps = 1;
        while !interner.sweep(10) {
            steps += 1;
        }
        assert_eq!((steps, interner.len()), (10, 1));
        for med in 1..50 {
            interner.intern(set(med));
        }
        assert_eq!((interner.len(), interner.slots.len()), (50, 100));
        assert!(Arc::ptr_eq(&kept, &interner.intern(set(0))));
        assert!(!interner.has_doubled(), "it is little");
        for med in 1000..1000 + 2 * SLACK as u32 / 136 {
            interner.intern(set(med));
        }
        assert!(interner.has_doubled());
        assert!(interner.sweep(1 << 20) && !interner.has_doubled());
        drop(kept);
        assert!(interner.sweep(1 << 20));
        assert_eq!((interner.len(), interner.slots.capacity()), (0, 0));
    }
}
