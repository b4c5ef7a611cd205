//! Bringing together what has one key, without disturbing any other order.

use std::hash::Hash;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// Reorders the items so that those of one key stand together: keys in order of their first appearance, the items of a key
/// in the order they had. The order depends on which keys are equal, never on their values (which may be addresses).
pub(super) fn bunch<T, K: Hash + Eq + Clone>(items: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut numbers: HashMap<K, u32, FixedState> = HashMap::default();
    let mut last: Option<(K, u32)> = None;
    let mut numbered: Vec<(u32, T)> = Vec::with_capacity(items.len());
    for item in items {
        let key = key(&item);
        let number = match &last {
            Some((last, number)) if *last == key => *number,
            _ => {
                let next = numbers.len() as u32;
                *numbers.entry(key.clone()).or_insert(next)
            }
        };
        last = Some((key, number));
        numbered.push((number, item));
    }
    if !numbered.is_sorted_by_key(|(number, _)| *number) {
        numbered.sort_by_key(|(number, _)| *number);
    }
    numbered.into_iter().map(|(_, item)| item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_order_of_appearance_and_items_in_their_own() {
        let items = vec![(7, 'a'), (3, 'b'), (7, 'c'), (5, 'd'), (3, 'e')];
        assert_eq!(bunch(items, |(key, _)| *key), [(7, 'a'), (7, 'c'), (3, 'b'), (3, 'e'), (5, 'd')]);
    }
}
