//! What was received of the paths that import made something else of. Most are kept as they came, and shall not pay for those that are not:
//! a path has a number here, or none.

use std::num::NonZeroU32;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::types::Attributes;

/// Index of a set that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OriginalId(NonZeroU32);

/// Attribute sets as received, each counted as often as a path refers to it.
#[derive(Clone, Debug, Default)]
pub(super) struct Originals {
    /// By address, which is as good as content because sets are interned.
    ids: HashMap<usize, OriginalId, FixedState>,
    slots: Vec<Option<(Arc<Attributes>, u32)>>,
    free: Vec<OriginalId>,
}

impl Originals {
    /// A path refers to the set, which must be interned.
    pub(super) fn hold(&mut self, received: &Arc<Attributes>) -> OriginalId {
        let id = match self.ids.get(&Arc::as_ptr(received).addr()) {
            Some(id) => *id,
            None => self.enter(received),
        };
        if let Some(Some((_, paths))) = self.slots.get_mut(slot_of(id)) {
            *paths += 1;
        }
        id
    }

    fn enter(&mut self, received: &Arc<Attributes>) -> OriginalId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            OriginalId(NonZeroU32::MIN.saturating_add(self.slots.len() as u32 - 1))
        });
        if let Some(slot) = self.slots.get_mut(slot_of(id)) {
            *slot = Some((Arc::clone(received), 0));
        }
        self.ids.insert(Arc::as_ptr(received).addr(), id);
        id
    }

    /// The set.
    pub(super) fn get(&self, id: OriginalId) -> Option<&Arc<Attributes>> {
        self.slots.get(slot_of(id))?.as_ref().map(|(received, _)| received)
    }

    /// A path no longer refers to it.
    pub(super) fn release(&mut self, id: OriginalId) {
        let Some(slot) = self.slots.get_mut(slot_of(id)) else { return };
        if let Some((_, paths)) = slot {
            *paths -= 1;
        }
        if let Some((received, _)) = slot.take_if(|(_, paths)| *paths == 0) {
            self.ids.remove(&Arc::as_ptr(&received).addr());
            self.free.push(id);
        }
        if self.ids.is_empty() {
            *self = Self::default();
        }
    }

    /// Octets of memory that the list takes; the sets themselves are the interner's.
    pub(super) fn octets(&self) -> usize {
        self.ids.allocation_size() + self.slots.capacity() * size_of::<Option<(Arc<Attributes>, u32)>>() + self.free.capacity() * 4
    }
}

fn slot_of(id: OriginalId) -> usize {
    id.0.get() as usize - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_there_as_long_as_a_path_refers_to_it() {
        let mut originals = Originals::default();
        let (one, other) = (Arc::new(Attributes::default()), Arc::new(Attributes::default()));
        let (a, b, c) = (originals.hold(&one), originals.hold(&one), originals.hold(&other));
        assert!(a == b && a != c, "by address");
        originals.release(a);
        assert!(originals.get(b).is_some_and(|known| Arc::ptr_eq(known, &one)));
        originals.release(b);
        assert_eq!((originals.get(b), Arc::strong_count(&one)), (None, 1));
        assert_eq!(originals.hold(&one), b, "its place is used again");
        originals.release(b);
        originals.release(c);
        assert_eq!(originals.octets(), 0);
    }
}
