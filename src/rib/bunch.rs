//! Bringing together what has one key, without disturbing any other order.

use std::hash::Hash;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// Items on their way into bunches of one key each: keys in order of their first appearance, the items of a key in the order they
/// came. The order depends on which keys are equal, never on their values (which may be addresses in memory).
#[derive(Debug)]
pub(super) struct Bunches<K, T> {
    /// Number 0: mostly the only one, and then nothing is hashed.
    first: Option<K>,
    /// The numbers of the others.
    numbers: HashMap<K, u32, FixedState>,
    last: Option<(K, u32)>,
    items: Vec<(u32, T)>,
    sorted: bool,
}

impl<K: Hash + Eq + Copy, T> Bunches<K, T> {
    /// None yet, with room for so many.
    pub fn with_capacity(items: usize) -> Self {
        Self { first: None, numbers: HashMap::default(), last: None, items: Vec::with_capacity(items), sorted: true }
    }

    /// Whether an item of this key would begin a bunch.
    pub fn is_new(&self, key: K) -> bool {
        self.first != Some(key) && self.last.is_none_or(|(last, _)| last != key) && !self.numbers.contains_key(&key)
    }

    /// Adds an item.
    pub fn push(&mut self, key: K, item: T) {
        let number = match self.last {
            Some((last, number)) if last == key => number,
            _ => {
                let number = self.number(key);
                self.sorted &= self.last.is_none_or(|(_, last)| last <= number);
                self.last = Some((key, number));
                number
            }
        };
        self.items.push((number, item));
    }

    fn number(&mut self, key: K) -> u32 {
        if *self.first.get_or_insert(key) == key {
            return 0;
        }
        let next = self.numbers.len() as u32 + 1;
        *self.numbers.entry(key).or_insert(next)
    }

    /// The items, each with the number of its bunch: those of a bunch stand together.
    pub fn into_items(mut self) -> Vec<(u32, T)> {
        if !self.sorted {
            self.items.sort_by_key(|(number, _)| *number);
        }
        self.items
    }

    /// The bunches, each with its key.
    pub fn into_bunches(self) -> Vec<(K, Vec<T>)> {
        let mut all: Vec<(K, Vec<T>)> = Vec::new();
        let mut keys: Vec<(u32, K)> = self.first.into_iter().map(|key| (0, key)).collect();
        keys.extend(self.numbers.iter().map(|(key, number)| (*number, *key)));
        keys.sort_unstable_by_key(|(number, _)| *number);
        all.extend(keys.into_iter().map(|(_, key)| (key, Vec::new())));
        for (number, item) in self.items {
            all[number as usize].1.push(item);
        }
        all
    }
}

/// The bunches of [`Bunches::into_items`].
pub(super) fn bunches<T>(items: &[(u32, T)]) -> impl Iterator<Item = &[(u32, T)]> {
    items.chunk_by(|(a, _), (b, _)| a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_order_of_appearance_and_items_in_their_own() {
        let mut all = Bunches::with_capacity(0);
        for (key, item) in [(7, 'a'), (3, 'b'), (7, 'c'), (5, 'd'), (3, 'e'), (3, 'f')] {
            assert_eq!(all.is_new(key), matches!(item, 'a' | 'b' | 'd'));
            all.push(key, item);
        }
        let items = all.into_items();
        let together: Vec<String> = bunches(&items).map(|bunch| bunch.iter().map(|(_, item)| *item).collect()).collect();
        assert_eq!(together, ["ac", "bef", "d"]);
    }
}
