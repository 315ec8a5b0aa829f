//! Which of the owners' numbers are given out: to names in force, to those that have left last, and to a policy that
//! is being compiled beside them.
//!
//! One set for all who take numbers, so that none is given twice. What is given back has been in no table for as long
//! as a generation is in force: no packet holds it any more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Numbers taken or given back under one hold of the lock, so that no change of a single owner waits long.
const NUMBERS_A_HOLD: usize = 1024;

/// Shared by its clones.
#[derive(Clone, Debug, Default)]
pub(super) struct Given(Arc<Mutex<Taken>>);

impl Given {
    pub(super) fn of(numbers: impl Iterator<Item = u32>) -> Self {
        let mut taken = Taken::default();
        numbers.for_each(|number| taken.set(number));
        Self(Arc::new(Mutex::new(taken)))
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // A bit is set or not, wherever a panic was.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lowest number below `end` that is nobody's: never 0.
    pub(super) fn take(&self, end: u32) -> Option<u32> {
        self.lock().take(end)
    }

    /// So many of them, or as many as there are.
    pub(super) fn take_many(&self, count: usize, end: u32) -> Vec<u32> {
        let mut numbers = Vec::with_capacity(count);
        while numbers.len() < count {
            let most = (count - numbers.len()).min(NUMBERS_A_HOLD);
            let mut taken = self.lock();
            let before = numbers.len();
            numbers.extend(std::iter::from_fn(|| taken.take(end)).take(most));
            if numbers.len() - before < most {
                break;
            }
        }
        numbers
    }

    pub(super) fn give_back(&self, numbers: &[u32]) {
        for numbers in numbers.chunks(NUMBERS_A_HOLD) {
            let mut taken = self.lock();
            numbers.iter().for_each(|number| taken.clear(*number));
        }
    }
}

/// As bits.
#[derive(Debug, Default)]
struct Taken {
    words: Vec<u64>,
    /// All words below have no free bit.
    full: usize,
}

impl Taken {
    fn take(&mut self, end: u32) -> Option<u32> {
        // Nobody's.
        self.set(0);
        while self.words.get(self.full).is_some_and(|word| *word == u64::MAX) {
            self.full += 1;
        }
        let word = self.words.get(self.full).copied().unwrap_or(0);
        let number = u32::try_from(self.full * 64).ok()? + word.trailing_ones();
        if number >= end {
            return None;
        }
        self.set(number);
        Some(number)
    }

    fn set(&mut self, number: u32) {
        let at = number as usize / 64;
        if self.words.len() <= at {
            self.words.resize(at + 1, 0);
        }
        self.words[at] |= 1 << (number % 64);
    }

    fn clear(&mut self, number: u32) {
        let at = number as usize / 64;
        if let Some(word) = self.words.get_mut(at) {
            *word &= !(1 << (number % 64));
            self.full = self.full.min(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_free_number_is_given_and_none_twice() {
        let given = Given::of([1, 3, 64].into_iter());
        assert_eq!(given.take(9), Some(2));
        assert_eq!(given.take_many(60, 65), (4..64).collect::<Vec<_>>());
        assert_eq!(given.take(65), None);
        assert_eq!(given.take(66), Some(65));
        given.give_back(&[64, 2, 1_000_000]);
        assert_eq!(given.take_many(9, 67), [2, 64, 66]);
    }
}
