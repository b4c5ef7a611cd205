//! A set of path attribute codes.

use serde::Serialize;

/// Some of the 256 codes, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AttributeCodes([u64; 4]);

impl AttributeCodes {
    /// Adds a code; whether it was new.
    pub fn insert(&mut self, code: u8) -> bool {
        let word = &mut self.0[usize::from(code) / 64];
        let before = *word;
        *word |= 1 << (code % 64);
        *word != before
    }

    /// Whether the code is there.
    pub fn has(&self, code: u8) -> bool {
        self.0[usize::from(code) / 64] & 1 << (code % 64) != 0
    }

    /// The codes, in order.
    pub fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        (0..=u8::MAX).filter(|code| self.has(*code))
    }
}

impl Serialize for AttributeCodes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}
