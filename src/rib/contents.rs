//! What is announced together, each content once: sets that differ as they are held may be the same as they are sent.

use hashbrown::HashTable;

use super::bunch::bunches;
use super::sent::{Rewrites, Seen};
use crate::types::{AddressFamily, Seeded};
use crate::wire::Context;
use crate::wire::pack::{Head, Heads};

/// The contents of bunches by their numbers, encoded.
#[derive(Debug)]
pub(super) struct Contents {
    heads: Heads,
    /// Of each bunch what it must have in common with others of the same content, and the hash of that.
    beside: Vec<(u32, u64)>,
    known: HashTable<u32>,
}

impl Contents {
    /// Encodes what each bunch of items is announced with, as `sent` says of its first item, with what else must be the same. Bunches that
    /// have turned out to be the same are one afterwards, in the place of the first.
    pub fn of<'s, A: AddressFamily, T>(
        items: &mut [(u32, T)],
        sent: impl Fn(&T) -> Option<(Seen<'s>, u32)>,
        (rewrites, context, seeded): (&Rewrites, &Context, &Seeded),
    ) -> Self {
        let count = items.last().map_or(0, |(last, _)| *last as usize + 1);
        let (heads, beside) = (Heads::with_capacity(count), Vec::with_capacity(count));
        let mut contents = Self { heads, beside, known: HashTable::new() };
        if let ([(_, item), ..], 1) = (&*items, count) {
            // A single one, as a single change has it, is like no other.
            sent(item).into_iter().for_each(|(sent, _)| contents.heads.push::<A>(&rewrites.content(sent), context));
            return contents;
        }
        contents.known.reserve(count, |_| 0);
        let mut firsts = Vec::with_capacity(count);
        for (_, item) in bunches(items).filter_map(<[_]>::first) {
            let Some((sent, beside)) = sent(item) else { break };
            contents.heads.push::<A>(&rewrites.content(sent), context);
            firsts.push(contents.first_with(beside, seeded));
        }
        if (0..).zip(&firsts).any(|(number, first)| number != *first) {
            items.iter_mut().for_each(|(number, _)| *number = firsts.get(*number as usize).copied().unwrap_or(*number));
            items.sort_by_key(|(number, _)| *number);
        }
        contents
    }

    /// The number of the first bunch that is the same as the last.
    fn first_with(&mut self, beside: u32, seeded: &Seeded) -> u32 {
        let Self { heads, beside: all, known } = self;
        let last = all.len() as u32;
        let head = heads.get(last as usize);
        let hash = seeded.hash(head.octets);
        let is_it = |other: &u32| all[*other as usize] == (beside, hash) && heads.get(*other as usize) == head;
        let first = known.find(hash, is_it).copied();
        all.push((beside, hash));
        first.unwrap_or_else(|| *known.insert_unique(hash, last, |other| all[*other as usize].1).get())
    }

    /// What a bunch is announced with.
    pub fn head(&self, number: u32) -> Head<'_> {
        self.heads.get(number as usize)
    }
}
