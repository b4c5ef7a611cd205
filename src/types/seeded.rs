//! Hashing with a key of our own: peers choose what is hashed, so they must not know where it lands (V17).

use std::hash::{Hash, Hasher};

use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;

/// A hash function that depends on the seed given at construction, and on nothing else.
#[derive(Clone, Debug)]
pub struct Seeded {
    own: u64,
    shared: SharedSeed,
}

impl Seeded {
    /// The function of this seed, which wants to be random in all its bits: under a small number prefixes that follow each other crowd
    /// into few places.
    pub fn new(seed: u64) -> Self {
        Self { own: seed.rotate_left(32), shared: SharedSeed::from_u64(seed) }
    }

    /// The hash of a value.
    pub fn hash(&self, value: &(impl Hash + ?Sized)) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.own, &self.shared);
        value.hash(&mut hasher);
        hasher.finish()
    }
}
