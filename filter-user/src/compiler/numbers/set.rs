//! Numbers as bits: which of a million are among others.

pub(super) struct Set(Vec<u64>);

impl Set {
    pub(super) fn of(numbers: impl Iterator<Item = u32>) -> Self {
        let mut words = Vec::new();
        for number in numbers {
            let word = number as usize / 64;
            if words.len() <= word {
                words.resize((word + 1).next_power_of_two(), 0);
            }
            words[word] |= 1 << (number % 64);
        }
        Self(words)
    }

    pub(super) fn holds(&self, number: u32) -> bool {
        let word = self.0.get(number as usize / 64);
        word.is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
}
