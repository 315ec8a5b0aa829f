//! Prefixes with their values as the kernel has them, in the order of their addresses: what is around one, what is
//! inside it.
//!
//! In classes of lengths, so that what a run or a block is made from stands together: single addresses are one, IPv4's
//! other prefixes another, and IPv6's are those of each size of blocks.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::compiler::Key;

/// Of the shortest lengths: what stands for the /16s.
pub(super) const TOPS: usize = 0;

#[derive(Debug)]
pub(super) struct Entries<const N: usize> {
    classes: Vec<BTreeMap<Key<N>, u32>>,
}

impl<const N: usize> Entries<N> {
    /// The longest length of each class.
    const LONGEST: &[u8] = if N == 4 {
        &[31, 32]
    } else {
        &[31, 47, 63, 127, 128]
    };

    /// Of entries in the order of their keys.
    pub(super) fn of(entries: Vec<(Key<N>, u32)>) -> Self {
        let mut classes = vec![Vec::new(); Self::LONGEST.len()];
        for entry in entries {
            classes[Self::class(entry.0.length)].push(entry);
        }
        Self {
            classes: classes.into_iter().map(BTreeMap::from_iter).collect(),
        }
    }

    pub(super) fn class(length: u8) -> usize {
        Self::LONGEST.partition_point(|longest| *longest < length)
    }

    pub(super) fn count(&self) -> u64 {
        self.classes.iter().map(|class| class.len() as u64).sum()
    }

    pub(super) fn value(&self, key: &Key<N>) -> Option<u32> {
        self.classes[Self::class(key.length)].get(key).copied()
    }

    /// Gives the value that was there.
    pub(super) fn set(&mut self, key: Key<N>, value: Option<u32>) -> Option<u32> {
        match (self.classes[Self::class(key.length)].entry(key), value) {
            (Entry::Occupied(mut entry), Some(value)) => Some(entry.insert(value)),
            (Entry::Occupied(entry), None) => Some(entry.remove()),
            (Entry::Vacant(entry), value) => {
                value.map(|value| entry.insert(value));
                None
            }
        }
    }

    /// The value of the longest prefix around one; 0 is none.
    pub(super) fn around(&self, key: &Key<N>) -> u32 {
        let Some(longest) = key.length.checked_sub(1) else {
            return 0;
        };
        let classes = self.classes.iter().zip(Self::LONGEST);
        let mut shorter = classes.take(Self::class(longest) + 1).rev();
        shorter
            .find_map(|(class, end)| longest_in(class, key, longest.min(*end)))
            .unwrap_or(0)
    }

    /// All that are inside a prefix, each behind what is around it.
    pub(super) fn inside(&self, key: &Key<N>) -> Vec<(Key<N>, u32)> {
        let mut inside = Vec::new();
        if !key.is_single() {
            for class in Self::class(key.length)..self.classes.len() {
                inside.extend(self.of_class(class, key).filter(|(inner, _)| inner != key));
            }
            inside.sort_unstable();
        }
        inside
    }

    /// Those of one class that a prefix holds, in their order; itself as well.
    pub(super) fn of_class(&self, class: usize, key: &Key<N>) -> impl Iterator<Item = (Key<N>, u32)> {
        let entries = self.classes[class].range(key..=&key.last());
        entries.map(|(key, value)| (*key, *value))
    }
}

/// The value of the longest prefix around one that is not longer than said.
fn longest_in<const N: usize>(class: &BTreeMap<Key<N>, u32>, key: &Key<N>, longest: u8) -> Option<u32> {
    let mut at = Key::cut(key.address, longest);
    loop {
        let (found, value) = class.range(..=at).next_back()?;
        if found.holds(key) {
            return Some(*value);
        }
        // Whatever is around both ends within what they share, and so does whatever is around the one looked for.
        at = Key::cut(key.address, found.shared(key));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Key<16>> {
        // Few bits are free, so that prefixes often meet.
        let address = prop::sample::subsequence(vec![0u32, 15, 16, 31, 32, 47, 48, 63, 64, 127], 0..10);
        (address, 0u8..=128).prop_map(|(bits, length)| {
            let address = bits.iter().fold(0u128, |address, bit| address | 1 << (127 - bit));
            Key::cut(address.to_be_bytes(), length)
        })
    }

    proptest! {
        #[test]
        fn around_is_the_longest_that_holds_and_inside_is_all_that_is_held(
            keys in prop::collection::btree_set(key(), 0..60),
            asked in prop::collection::vec(key(), 1..40),
        ) {
            let all: Vec<_> = keys.iter().copied().zip(1..).collect();
            let entries = Entries::of(all.clone());
            for key in asked.into_iter().chain(keys) {
                let around = all.iter().filter(|(other, _)| *other != key && other.holds(&key));
                let longest = around.max_by_key(|(other, _)| other.length);
                prop_assert_eq!(entries.around(&key), longest.map_or(0, |(_, value)| *value), "{}", key);
                let inside = all.iter().filter(|(other, _)| *other != key && key.holds(other));
                prop_assert_eq!(entries.inside(&key), inside.copied().collect::<Vec<_>>(), "{}", key);
            }
        }
    }
}
