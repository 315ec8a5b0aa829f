//! What the daemon wrote into a generation's tables, and whether it still stands there.
//!
//! A checksum for each few words, worked out from what was meant and kept up by each single change: a read-back needs
//! no second copy of the tables. Readers take no lock: what differs is looked at once more under the writer's, so that
//! a change under way is never taken for somebody else's.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::Pod;
use filter_common::abi::names;

use super::load::{Generation, LoadError};
use super::memory::{Memory, Words};
use super::raw;

/// Words under one checksum where a value is a single word; larger values have one each.
const WORDS_SUMMED: usize = 8;
/// An odd number for each place in a group, so that words that change places are found.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// The checksums of one table.
#[derive(Debug)]
struct Sums {
    /// Words of a group.
    group: usize,
    groups: Vec<AtomicU32>,
}

/// What a word adds to its group's sum: nothing where it is 0, as all words are that nobody wrote.
fn part(place: usize, word: u64) -> u32 {
    let factor = FACTOR.wrapping_mul(2 * place as u64 + 1);
    (word.wrapping_mul(factor) >> 32) as u32
}

impl Sums {
    fn of<V: Pod>(entries: usize, values: &[V]) -> Self {
        // The kernel spaces values by whole words.
        let words = size_of::<V>().div_ceil(8);
        let group = if words == 1 { WORDS_SUMMED } else { words };
        let mut sums = vec![0u32; (entries * words).div_ceil(group)];
        let mut at = 0;
        for value in values {
            for bytes in super::bytes_of(value).chunks(8) {
                let mut word = [0; 8];
                word[..bytes.len()].copy_from_slice(bytes);
                let sum = &mut sums[at / group];
                *sum = sum.wrapping_add(part(at % group, u64::from_ne_bytes(word)));
                at += 1;
            }
        }
        Self {
            group,
            groups: sums.into_iter().map(AtomicU32::new).collect(),
        }
    }

    /// One writer at a time.
    fn changed(&self, word: usize, before: u64, after: u64) {
        if let Some(sum) = self.groups.get(word / self.group) {
            let place = word % self.group;
            let difference = part(place, after).wrapping_sub(part(place, before));
            sum.fetch_add(difference, Ordering::Relaxed);
        }
    }

    fn holds(&self, group: usize, words: &[AtomicU64]) -> bool {
        let Some(expected) = self.groups.get(group) else {
            return true;
        };
        let mut sum = 0u32;
        for (place, word) in words.iter().enumerate() {
            sum = sum.wrapping_add(part(place, word.load(Ordering::Relaxed)));
        }
        expected.load(Ordering::Relaxed) == sum
    }
}

/// The checksums of a generation's tables.
#[derive(Clone, Debug, Default)]
pub struct Written {
    tables: BTreeMap<&'static str, Arc<Sums>>,
    writing: Arc<Mutex<()>>,
}

impl Written {
    /// A table was filled with these values; the entries behind them are zero.
    pub(super) fn filled<V: Pod>(&mut self, table: &'static str, entries: usize, values: &[V]) {
        self.tables.insert(table, Arc::new(Sums::of(entries, values)));
    }

    /// With tables that were filled beside these.
    pub(super) fn with(mut self, other: Written) -> Self {
        self.tables.extend(other.tables);
        self
    }
}

fn lock(writing: &Mutex<()>) -> MutexGuard<'_, ()> {
    writing.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A table whose words are changed while packets flow, by one writer.
pub(super) struct Table<T> {
    memory: Memory<T>,
    sums: Arc<Sums>,
    writing: Arc<Mutex<()>>,
}

impl<T: Pod> Table<T> {
    pub(super) fn of(generation: &Generation, name: &'static str) -> Result<Self, LoadError> {
        let mapped = |error: io::Error| LoadError::Object(format!("mapping {name}: {error}"));
        let sums = generation.written.tables.get(name);
        Ok(Self {
            memory: Memory::of(generation.map(name)?).map_err(mapped)?,
            sums: Arc::clone(sums.ok_or(LoadError::Missing(name))?),
            writing: Arc::clone(&generation.written.writing),
        })
    }

    pub(super) fn entries(&self) -> usize {
        self.memory.entries()
    }

    /// To be read.
    pub(super) fn words(&self, entry: usize) -> Option<&[AtomicU64]> {
        self.memory.words(entry)
    }

    /// Writes one word of a value, for packets to see whole; `None` beyond the table.
    pub(super) fn store(&self, entry: usize, word: usize, value: u64) -> Option<()> {
        self.update(entry, word, |_| value)
    }

    /// Sets bits of a word.
    pub(super) fn set(&self, entry: usize, word: usize, bits: u64) -> Option<()> {
        if self.memory.words(entry)?.get(word)?.load(Ordering::Relaxed) & bits == bits {
            return Some(());
        }
        self.update(entry, word, |before| before | bits)
    }

    fn update(&self, entry: usize, word: usize, change: impl FnOnce(u64) -> u64) -> Option<()> {
        let place = self.memory.words(entry)?.get(word)?;
        let _writing = lock(&self.writing);
        let before = place.load(Ordering::Relaxed);
        let after = change(before);
        if before != after {
            self.sums
                .changed(entry * (size_of::<T>() / 8) + word, before, after);
            place.store(after, Ordering::Release);
        }
        Some(())
    }
}

/// Reads a generation's tables back, beside whoever changes them.
pub struct ReadBack {
    tables: Vec<(&'static str, Words, Arc<Sums>)>,
    writing: Arc<Mutex<()>>,
    in_force: OwnedFd,
    judge: u32,
}

/// How far a read-back has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    table: usize,
    group: usize,
}

impl ReadBack {
    pub fn of(generation: &Generation) -> Result<Self, LoadError> {
        let table = |(name, sums): (&&'static str, &Arc<Sums>)| {
            let words = Words::of(generation.map(name)?);
            let words = words.map_err(|error| LoadError::Object(format!("mapping {name}: {error}")))?;
            Ok((*name, words, Arc::clone(sums)))
        };
        let tables = generation.written.tables.iter().map(table);
        let slot = generation.map(names::GENERATION)?.fd().as_fd();
        let slot = slot.try_clone_to_owned();
        Ok(Self {
            tables: tables.collect::<Result<_, LoadError>>()?,
            writing: Arc::clone(&generation.written.writing),
            in_force: slot.map_err(|error| LoadError::Object(format!("{}: {error}", names::GENERATION)))?,
            judge: generation.judge,
        })
    }

    /// How many steps of so many bytes a whole read-back takes; each table is begun with one.
    pub fn steps(&self, bytes: usize) -> usize {
        let tables = self.tables.iter();
        tables
            .map(|(_, words, _)| (words.all().len() * 8).div_ceil(bytes).max(1))
            .sum()
    }

    /// Whether this generation's judge is the one that packets go to.
    pub fn judges(&self) -> io::Result<bool> {
        match raw::look_up(self.in_force.as_fd(), 0) {
            // No program at all is not ours either.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            program => Ok(program? == self.judge),
        }
    }

    /// Reads about so many bytes on from a place, and tells of each entry that is not as it was written. `None` behind
    /// the last.
    pub fn step(&self, place: Place, bytes: usize, mut differs: impl FnMut(&'static str)) -> Option<Place> {
        let (name, words, sums) = self.tables.get(place.table)?;
        let groups = (bytes / 8 / sums.group).max(1);
        let end = (place.group + groups).min(sums.groups.len());
        let words = words.all();
        for group in place.group..end {
            let first = (group * sums.group).min(words.len());
            let of_group = &words[first..words.len().min(first + sums.group)];
            if !sums.holds(group, of_group) {
                let _writing = lock(&self.writing);
                if !sums.holds(group, of_group) {
                    differs(name);
                }
            }
        }
        let next = match end < sums.groups.len() {
            true => Place { group: end, ..place },
            false => Place {
                table: place.table + 1,
                group: 0,
            },
        };
        (next.table < self.tables.len()).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn atomics(words: &[u64]) -> Vec<AtomicU64> {
        words.iter().copied().map(AtomicU64::new).collect()
    }

    #[test]
    fn sum_holds_of_what_was_filled_and_of_what_was_changed_and_of_nothing_else() {
        let values = [[1u64, 2, 3], [4, 5, 6]];
        let sums = Sums::of(3, &values);
        assert!(sums.holds(0, &atomics(&[1, 2, 3])) && sums.holds(1, &atomics(&[4, 5, 6])));
        assert!(sums.holds(2, &atomics(&[0, 0, 0])), "nobody wrote there");
        for other in [[1, 2, 2], [2, 1, 3], [0, 2, 3], [1 << 63 | 1, 2, 3], [0, 0, 0]] {
            assert!(!sums.holds(0, &atomics(&other)), "{other:?}");
        }
        sums.changed(4, 5, 50);
        assert!(sums.holds(1, &atomics(&[4, 50, 6])) && !sums.holds(1, &atomics(&[4, 5, 6])));
        assert!(sums.holds(0, &atomics(&[1, 2, 3])));
    }

    #[test]
    fn single_words_are_summed_by_eights_and_halves_take_a_word() {
        let sums = Sums::of(10, &[7u32, 8, 9]);
        assert_eq!(sums.groups.len(), 2);
        assert!(sums.holds(0, &atomics(&[7, 8, 9, 0, 0, 0, 0, 0])));
        assert!(!sums.holds(1, &atomics(&[1, 0])));
    }
}
