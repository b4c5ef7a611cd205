//! Which objects of a kind are there, and whether a listing that lacks most of them counts: the rule of
//! [`crate::datastore::second_look`], for a source whose listing anew is told as its differences.
//!
//! Of an object eight bytes are kept. Looks are counted in place of time: each is [`LOOK_EVERY`] after the one before.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::object::Metadata;
use crate::datastore::second_look::{HOLD, LOOK_EVERY, is_of_concern};

/// Looks after the first one until a listing counts whatever it lacks.
const LOOKS: u32 = (HOLD.as_secs() / LOOK_EVERY.as_secs()) as u32;

/// See the module.
#[derive(Debug)]
pub(super) struct Roll {
    /// The kind is one of those whose loss would end sessions.
    precious: bool,
    there: BTreeSet<u64>,
    listing: Option<BTreeSet<u64>>,
    /// A listing is held back, and was looked at so often since.
    held: Option<u32>,
    /// The next listing counts: whoever asked for it judges it.
    believed: bool,
}

/// What a listing that is held back lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lack {
    pub missing: usize,
    pub in_force: usize,
}

impl Roll {
    /// Nothing is there yet.
    pub fn new(precious: bool) -> Self {
        Self { precious, there: BTreeSet::new(), listing: None, held: None, believed: false }
    }

    /// A listing begins.
    pub fn begin(&mut self) {
        self.listing = Some(BTreeSet::new());
    }

    /// This is there.
    pub fn add(&mut self, object: &Metadata) {
        self.listing.as_mut().unwrap_or(&mut self.there).insert(identity(object));
    }

    /// This is no more: somebody has deleted it.
    pub fn remove(&mut self, object: &Metadata) {
        let identity = identity(object);
        self.there.remove(&identity);
        self.listing.as_mut().map(|listing| listing.remove(&identity));
    }

    /// The next listing counts.
    pub fn believe(&mut self) {
        self.believed = true;
    }

    /// The listing is whole: it counts, or is held back for what it lacks.
    pub fn listed(&mut self) -> Result<(), Lack> {
        let listing = self.listing.take().unwrap_or_default();
        let lack = Lack { missing: self.there.difference(&listing).count(), in_force: self.there.len() };
        let doubted = match self.held {
            None => self.precious && is_of_concern(lack.in_force, lack.missing),
            Some(looks) => lack.missing > 0 && looks + 1 < LOOKS,
        };
        if doubted && !self.believed {
            self.held = Some(self.held.map_or(0, |looks| looks + 1));
            return Err(lack);
        }
        (self.there, self.held, self.believed) = (listing, None, false);
        Ok(())
    }
}

fn identity(object: &Metadata) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&object.namespace, &object.name).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(roll: &mut Roll, names: &[&str]) -> Result<(), Lack> {
        roll.begin();
        names.iter().for_each(|name| roll.add(&object(name)));
        roll.listed()
    }

    fn object(name: &str) -> Metadata {
        Metadata { name: (*name).to_owned(), ..Metadata::default() }
    }

    const ALL: [&str; 4] = ["a", "b", "c", "d"];

    #[test]
    fn more_than_half_is_of_concern_and_from_then_on_anything_that_is_missing() {
        let mut roll = Roll::new(true);
        assert_eq!(listed(&mut roll, &ALL), Ok(()));
        assert_eq!(listed(&mut roll, &["a", "b"]), Ok(()), "half may go");
        let mut roll = Roll::new(true);
        assert_eq!(listed(&mut roll, &ALL), Ok(()));
        // As many others do not make up for those that are missing.
        assert_eq!(listed(&mut roll, &["a", "x", "y", "z"]), Err(Lack { missing: 3, in_force: 4 }));
        assert_eq!(listed(&mut roll, &["a", "b", "c"]), Err(Lack { missing: 1, in_force: 4 }), "half is no longer enough");
        assert_eq!(listed(&mut roll, &ALL), Ok(()));
    }

    #[test]
    fn it_counts_when_it_still_says_so_after_the_time_of_all() {
        let mut roll = Roll::new(true);
        assert_eq!(listed(&mut roll, &ALL), Ok(()));
        let looks = (0..100).take_while(|_| listed(&mut roll, &[]).is_err()).count();
        assert_eq!(LOOK_EVERY * looks as u32, HOLD, "the first look is at the beginning of the hold");
        assert_eq!(listed(&mut roll, &[]), Ok(()), "where nothing was, nothing is doubted");
    }

    #[test]
    fn deletions_and_kinds_that_end_no_session_and_what_was_asked_for_are_not_doubted() {
        let mut roll = Roll::new(true);
        assert_eq!(listed(&mut roll, &ALL), Ok(()));
        ALL[1..].iter().for_each(|name| roll.remove(&object(name)));
        assert_eq!(listed(&mut roll, &["a"]), Ok(()));
        assert!(listed(&mut roll, &[]).is_err());
        roll.believe();
        assert_eq!(listed(&mut roll, &[]), Ok(()));
        let mut roll = Roll::new(false);
        assert_eq!(listed(&mut roll, &ALL), Ok(()));
        assert_eq!(listed(&mut roll, &[]), Ok(()));
    }
}
