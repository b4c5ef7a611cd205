//! A set of small numbers, an eighth of an octet each.

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Bits {
    words: Box<[u64]>,
    count: usize,
}

impl Bits {
    /// An empty set of numbers below `bound`.
    pub fn below(bound: usize) -> Self {
        Self { words: vec![0; bound.div_ceil(64)].into(), count: 0 }
    }

    /// How many are in it.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether a number is in it.
    pub fn has(&self, number: usize) -> bool {
        self.words.get(number / 64).is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    /// Puts a number in or takes it out; whether that changed anything. Numbers beyond the bound are never in it.
    pub fn set(&mut self, number: usize, on: bool) -> bool {
        let Some(word) = self.words.get_mut(number / 64).filter(|word| (**word & (1 << (number % 64)) != 0) != on) else { return false };
        *word ^= 1 << (number % 64);
        if on {
            self.count += 1
        } else {
            self.count -= 1
        }
        true
    }

    /// The numbers in it, growing.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.words.len() * 64).filter(|number| self.has(*number))
    }
}

#[cfg(test)]
mod tests {
    use super::Bits;

    #[test]
    fn a_number_is_counted_once() {
        let mut bits = Bits::below(100);
        assert!(bits.set(70, true) && !bits.set(70, true) && bits.set(3, true) && !bits.set(500, true));
        assert_eq!((bits.count(), bits.iter().collect::<Vec<_>>()), (2, vec![3, 70]));
        assert!(bits.set(70, false) && !bits.has(70) && !bits.set(70, false));
        assert_eq!(bits.count(), 1);
    }
}
