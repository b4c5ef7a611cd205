//! Table: the destinations of one family. An exact map from prefix to index, and walks by index.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use smallvec::SmallVec;

use super::path::{Path, SourceId};
use crate::types::AddressFamily;
use crate::types::Seeded;

/// A prefix and its candidates.
#[derive(Clone, Debug)]
pub(super) struct Destination<P> {
    /// The prefix.
    pub(super) prefix: P,
    /// At most one of each source; the best is the first, once decided.
    pub(super) paths: SmallVec<[Path; 1]>,
    /// The first path is the best.
    pub(super) has_best: bool,
    /// See [`Mark`].
    marks: u8,
}

/// What is to be done about a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Mark {
    /// It is in the list of those to decide.
    Dirty = 1,
    /// A path that was chosen has changed, so the result is another even if the same path wins.
    Touched = 2,
    /// It is in the list of those that the FibSyncer is to hear of.
    FibDue = 4,
    /// The FibSyncer holds a route for it.
    FibTold = 8,
}

impl<P> Destination<P> {
    /// Whether the mark is set.
    pub(super) fn has(&self, mark: Mark) -> bool {
        self.marks & mark as u8 != 0
    }

    /// Sets or clears the mark; answers whether it was set.
    pub(super) fn set(&mut self, mark: Mark, on: bool) -> bool {
        let was = self.has(mark);
        self.marks = if on { self.marks | mark as u8 } else { self.marks & !(mark as u8) };
        was
    }

    /// The best path.
    pub(super) fn best(&self) -> Option<&Path> {
        self.paths.first().filter(|_| self.has_best)
    }

    /// Index of the path of a source.
    pub(super) fn position(&self, source: SourceId) -> Option<usize> {
        self.paths.iter().position(|path| path.source == source)
    }

    /// Adds a path. From four on room grows by a quarter: twice the room for each of ten peers' paths would be half as much again for nothing.
    pub(super) fn push(&mut self, path: Path) {
        let paths = self.paths.len();
        if paths == self.paths.capacity() {
            self.paths.reserve_exact((1 + paths / 4).max(paths.min(2)));
        }
        self.paths.push(path);
    }

    /// Octets that the paths take outside of the destination: none for one path, which lies in it.
    pub(super) fn spilled(&self) -> usize {
        if self.paths.spilled() { self.paths.capacity() * size_of::<Path>() } else { 0 }
    }

    /// Nobody needs the entry any more.
    fn is_vacant(&self) -> bool {
        self.paths.is_empty() && self.marks & (Mark::Dirty as u8 | Mark::FibDue as u8 | Mark::FibTold as u8) == 0
    }
}

/// Prefixes that are looked up together, without memory of their own from the heap.
const MANY: usize = 256;

/// The destinations of one family. An index stays with its prefix until [`Table::release`] finds it unused.
#[derive(Clone, Debug)]
pub(super) struct Table<A: AddressFamily> {
    seeded: Seeded,
    map: HashTable<u32>,
    slots: Vec<Option<Destination<A::Prefix>>>,
    free: Vec<u32>,
    /// Octets of paths that lie outside of their destination.
    pub(super) spilled: usize,
}

impl<A: AddressFamily> Table<A> {
    /// An empty table.
    pub(super) fn new(seed: u64) -> Self {
        Self { seeded: Seeded::new(seed), map: HashTable::new(), slots: Vec::new(), free: Vec::new(), spilled: 0 }
    }

    /// Octets of memory that the table has reserved, with all paths.
    pub(super) fn octets(&self) -> usize {
        self.spilled
            + self.slots.capacity() * size_of::<Option<Destination<A::Prefix>>>()
            + self.free.capacity() * 4
            + self.map.allocation_size()
    }

    /// How many destinations there are, those about to go included.
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// One more than the greatest index in use.
    pub(super) fn end(&self) -> u32 {
        self.slots.len() as u32
    }

    /// The index of a prefix.
    pub(super) fn find(&self, prefix: &A::Prefix) -> Option<u32> {
        self.find_hashed(prefix, self.seeded.hash(prefix))
    }

    fn find_hashed(&self, prefix: &A::Prefix, hash: u64) -> Option<u32> {
        self.map.find(hash, |&i| self.get(i).is_some_and(|d| d.prefix == *prefix)).copied()
    }

    /// The index of a prefix, which is entered if it is new.
    pub(super) fn enter(&mut self, prefix: A::Prefix) -> u32 {
        self.enter_hashed(prefix, self.seeded.hash(&prefix))
    }

    /// The same of many, in their order. In loops of their own the look-ups overlap in the memory system, which is most of their time;
    /// what they have found is near when it is found again.
    pub(super) fn enter_all(&mut self, prefixes: impl Iterator<Item = A::Prefix>) -> SmallVec<[u32; MANY]> {
        let hashed: SmallVec<[(A::Prefix, u64); MANY]> = prefixes.map(|prefix| (prefix, self.seeded.hash(&prefix))).collect();
        let known: SmallVec<[Option<u32>; MANY]> = hashed.iter().map(|(prefix, hash)| self.find_hashed(prefix, *hash)).collect();
        hashed.iter().zip(known).map(|((prefix, hash), known)| known.unwrap_or_else(|| self.enter_hashed(*prefix, *hash))).collect()
    }

    fn enter_hashed(&mut self, prefix: A::Prefix, hash: u64) -> u32 {
        if self.map.len() == self.map.capacity() {
            // A full map would hash everything again to make room for a prefix that it has already.
            if let Some(known) = self.find_hashed(&prefix, hash) {
                return known;
            }
            self.grow();
        }
        let slots = &self.slots;
        let is_it = |&i: &u32| slots.get(i as usize).and_then(Option::as_ref).is_some_and(|d| d.prefix == prefix);
        let vacant = match self.map.entry(hash, is_it, |_| unreachable_rehash()) {
            Entry::Occupied(known) => return *known.get(),
            Entry::Vacant(vacant) => vacant,
        };
        let destination = Some(Destination { prefix, paths: SmallVec::new(), has_best: false, marks: 0 });
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = destination;
                index
            }
            None => {
                self.slots.push(destination);
                self.slots.len() as u32 - 1
            }
        };
        vacant.insert(index);
        index
    }

    /// Makes the map anew with twice the room. Going by slots reads memory in a row, where the map's own way would jump about in it.
    fn grow(&mut self) {
        let mut map = HashTable::with_capacity((2 * self.map.len()).max(3));
        for (index, destination) in (0..).zip(&self.slots) {
            if let Some(destination) = destination {
                map.insert_unique(self.seeded.hash(&destination.prefix), index, |_| unreachable_rehash());
            }
        }
        self.map = map;
    }

    /// The destination of an index.
    pub(super) fn get(&self, index: u32) -> Option<&Destination<A::Prefix>> {
        self.slots.get(index as usize)?.as_ref()
    }

    /// The destination of an index, to change.
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Destination<A::Prefix>> {
        self.slots.get_mut(index as usize)?.as_mut()
    }

    /// Frees those of the indexes whose destination has no path and no mark.
    pub(super) fn release(&mut self, indexes: &[u32]) {
        if !indexes.is_empty() {
            self.release_some(indexes);
        }
    }

    #[inline(never)]
    fn release_some(&mut self, indexes: &[u32]) {
        for indexes in indexes.chunks(64) {
            let vacant = indexes.iter().filter_map(|index| Some((*index, self.get(*index).filter(|destination| destination.is_vacant())?)));
            let mut vacant: SmallVec<[(u32, u64); 64]> =
                vacant.map(|(index, destination)| (index, self.seeded.hash(&destination.prefix))).collect();
            // In a loop of their own the look-ups overlap in the memory system, and what they find is near when it is removed.
            vacant.retain(|(index, hash)| self.map.find(*hash, |i| i == index).is_some());
            for (index, hash) in vacant {
                self.forget(index, hash);
            }
        }
    }

    fn forget(&mut self, index: u32, hash: u64) {
        let Some(destination) = self.slots.get_mut(index as usize).and_then(Option::take) else { return };
        if let Ok(entry) = self.map.find_entry(hash, |&i| i == index) {
            entry.remove();
        }
        self.spilled = self.spilled.saturating_sub(destination.spilled());
        self.free.push(index);
        if self.map.is_empty() {
            // Memory goes back after a storm; walks under way just find nothing.
            (self.map, self.slots, self.free) = (HashTable::new(), Vec::new(), Vec::new());
        }
    }
}

/// A map with room left hashes nothing again; were it to, the entry would be found by nobody, and entered once more.
fn unreachable_rehash() -> u64 {
    debug_assert!(false, "the map grew by itself");
    0
}

#[cfg(test)]
mod tests {
    use ipnet::Ipv4Net;

    use super::*;
    use crate::types::Ipv4Unicast;

    fn net(n: u32) -> Ipv4Net {
        Ipv4Net::new(n.to_be_bytes().into(), 32).unwrap()
    }

    #[test]
    fn a_destination_is_small() {
        assert_eq!(size_of::<Option<Destination<Ipv4Net>>>(), 40);
    }

    #[test]
    fn an_index_stays_until_it_is_released() {
        let mut table = Table::<Ipv4Unicast>::new(3);
        let indexes: Vec<u32> = (0..1000).map(|n| table.enter(net(n))).collect();
        assert!((0..1000).all(|n| table.find(&net(n)) == Some(indexes[n as usize]) && table.enter(net(n)) == indexes[n as usize]));
        table.get_mut(indexes[5]).unwrap().set(Mark::FibTold, true);
        for index in &indexes {
            table.release(&[*index]);
        }
        assert_eq!((table.len(), table.find(&net(5)), table.find(&net(6))), (1, Some(indexes[5]), None));
        assert_ne!(table.enter(net(2000)), indexes[5]);
        table.get_mut(indexes[5]).unwrap().set(Mark::FibTold, false);
        table.release(&[indexes[5], table.find(&net(2000)).unwrap()]);
        assert_eq!((table.len(), table.end()), (0, 0));
    }
}
