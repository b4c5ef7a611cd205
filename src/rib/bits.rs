//! A set of small numbers, one bit each.

/// A set of entry numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// Whether the number is in the set.
    pub fn has(&self, number: u32) -> bool {
        self.words.get(number as usize / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Puts the number in.
    pub fn set(&mut self, number: u32) {
        let word = number as usize / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (number % 64);
    }

    /// Takes the number out; answers whether it was in.
    pub fn clear(&mut self, number: u32) -> bool {
        let was = self.has(number);
        if let Some(word) = self.words.get_mut(number as usize / 64) {
            *word &= !(1 << (number % 64));
        }
        was
    }

    /// Puts the number in, or takes it out.
    pub fn put(&mut self, number: u32, is_in: bool) {
        if is_in {
            self.set(number);
        } else {
            self.clear(number);
        }
    }

    /// Octets of memory that it has reserved.
    pub fn reserved(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }

    /// Puts all of another set in.
    pub fn union(&mut self, other: &Self) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_numbers() {
        let (mut one, mut two) = (Bits::default(), Bits::default());
        assert!(!one.has(1_000) && !one.clear(1_000));
        one.set(63);
        two.set(64);
        two.set(1_000);
        one.union(&two);
        assert!(one.has(63) && one.has(64) && one.has(1_000) && !one.has(65));
        assert!(one.clear(64) && !one.has(64));
        one.put(64, true);
        one.put(63, false);
        assert!(one.has(64) && !one.has(63) && one.reserved() >= 1_001 / 8);
    }
}
