//! One table of a source as it was told: mark at Begin, sweep at End.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::types::Sync;

/// What a source holds to be true now.
#[derive(Clone, Debug)]
pub(super) struct Facts<K, V> {
    entries: BTreeMap<K, Fact<V>>,
    told: bool,
}

#[derive(Clone, Debug)]
struct Fact<V> {
    value: V,
    marked: bool,
}

/// Keys whose fact is different now, each with what it was before.
pub(super) type Changes<K, V> = SmallVec<[(K, Option<V>); 1]>;

impl<K: Ord + Copy, V: PartialEq> Facts<K, V> {
    /// Takes a word and tells what changed by it.
    pub(super) fn hear(&mut self, word: Sync<K, V>) -> Changes<K, V> {
        match word {
            Sync::Begin => self.entries.values_mut().for_each(|fact| fact.marked = true),
            Sync::Upsert(key, value) => return self.upsert(key, value),
            Sync::Remove(key) => return self.entries.remove(&key).map(|fact| (key, Some(fact.value))).into_iter().collect(),
            Sync::End => {
                self.told = true;
                return self.entries.extract_if(.., |_, fact| fact.marked).map(|(key, fact)| (key, Some(fact.value))).collect();
            }
        }
        Changes::new()
    }

    fn upsert(&mut self, key: K, value: V) -> Changes<K, V> {
        if let Some(fact) = self.entries.get_mut(&key).filter(|fact| fact.value == value) {
            fact.marked = false;
            return Changes::new();
        }
        let before = self.entries.insert(key, Fact { value, marked: false });
        std::iter::once((key, before.map(|fact| fact.value))).collect()
    }

    /// Whether the source has told its table to the end at least once.
    pub(super) fn told(&self) -> bool {
        self.told
    }

    /// The fact of that key.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|fact| &fact.value)
    }

    /// Facts from `first` on, in order.
    pub(super) fn from(&self, first: K) -> impl Iterator<Item = (&K, &V)> {
        self.entries.range(first..).map(|(key, fact)| (key, &fact.value))
    }

    /// All facts in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, fact)| (key, &fact.value))
    }
}

impl<K, V> Default for Facts<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), told: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relist_changes_only_what_is_different() {
        let mut facts = Facts::default();
        let mut hear = |word| facts.hear(word).into_vec();
        assert_eq!(hear(Sync::Upsert(1, 'a')), [(1, None)]);
        assert_eq!(hear(Sync::Upsert(2, 'b')), [(2, None)]);
        assert_eq!(hear(Sync::Upsert(3, 'c')), [(3, None)]);
        assert_eq!(hear(Sync::Begin), []);
        assert_eq!(hear(Sync::Upsert(1, 'a')), []);
        assert_eq!(hear(Sync::Upsert(2, 'x')), [(2, Some('b'))]);
        assert_eq!(hear(Sync::End), [(3, Some('c'))]);
        assert_eq!(hear(Sync::Remove(1)), [(1, Some('a'))]);
        assert_eq!(hear(Sync::Remove(1)), []);
        assert!(facts.told());
    }

    #[test]
    fn a_second_begin_starts_the_relist_over() {
        let mut facts = Facts::default();
        for word in [Sync::Upsert(1, 'a'), Sync::Begin, Sync::Upsert(1, 'a'), Sync::Begin] {
            facts.hear(word);
        }
        assert_eq!(facts.hear(Sync::End).into_vec(), [(1, Some('a'))]);
    }
}
