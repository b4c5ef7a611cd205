//! The destinations that may depend on a next hop: of a full table one bit each.

use std::ops::Range;

use roaring::RoaringBitmap;

/// A set of destination indexes.
#[derive(Clone, Debug, Default)]
pub(super) struct Dependants {
    set: RoaringBitmap,
    /// Neighbours that came last, in order as they do when a table is learned, and go into the set together.
    run: Range<u32>,
}

impl Dependants {
    /// One more, if it is not there yet.
    pub(super) fn insert(&mut self, destination: u32) {
        if destination != self.run.end {
            self.set.insert_range(self.run.clone());
            self.run = destination..destination;
        }
        self.run.end = self.run.end.saturating_add(1);
    }

    /// All of them in order, each once.
    pub(super) fn into_list(mut self) -> Vec<u32> {
        self.set.insert_range(self.run);
        self.set.iter().collect()
    }

    /// Octets of memory, more or less.
    pub(super) fn octets(&self) -> usize {
        self.set.serialized_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_there_once_in_whatever_order_they_come() {
        let mut dependants = Dependants::default();
        assert!(dependants.clone().into_list().is_empty());
        for destination in [0, 1, 2, 9, 10, 2, 3, 70_000, 5, 9] {
            dependants.insert(destination);
        }
        assert_eq!(dependants.into_list(), [0, 1, 2, 3, 5, 9, 10, 70_000]);
        let mut table = Dependants::default();
        (0..1_000_000).for_each(|destination| table.insert(destination));
        table.insert(0);
        assert!(table.octets() < 1_000_000 / 8 * 11 / 10, "{}", table.octets());
        assert_eq!(table.into_list().len(), 1_000_000);
    }
}
