//! The owners' numbers by their names' hashes: shared with whoever compiles from them, and changed meanwhile.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::OwnerHash;

pub(super) type ByHash = HashMap<OwnerHash, u32, RandomState>;

/// A clone shares what is there, and sees nothing of what is changed after it.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    all: Arc<ByHash>,
    /// What was changed while others read the rest.
    since: ByHash,
}

impl From<ByHash> for Known {
    fn from(all: ByHash) -> Self {
        Self {
            all: Arc::new(all),
            since: ByHash::default(),
        }
    }
}

impl Known {
    pub(super) fn get(&self, hash: &OwnerHash) -> Option<u32> {
        self.since.get(hash).or_else(|| self.all.get(hash)).copied()
    }

    /// Whether nothing was changed since it was shared, and it has so many.
    pub(super) fn are_just(&self, count: usize) -> bool {
        self.since.is_empty() && self.all.len() == count
    }

    pub(super) fn insert(&mut self, hash: OwnerHash, number: u32) {
        match Arc::get_mut(&mut self.all) {
            Some(all) => {
                all.extend(self.since.drain());
                all.insert(hash, number);
            }
            None => drop(self.since.insert(hash, number)),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (OwnerHash, u32)> {
        let all = self.all.iter();
        let all = all.filter(|(hash, _)| self.since.is_empty() || !self.since.contains_key(*hash));
        self.since
            .iter()
            .chain(all)
            .map(|(hash, number)| (*hash, *number))
    }

    /// What was changed since it was last shared, where it still is.
    pub(super) fn since(&self) -> impl Iterator<Item = (OwnerHash, u32)> {
        self.since.iter().map(|(hash, number)| (*hash, *number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clone_keeps_what_was_and_the_changes_are_one_with_it_later() {
        let hash = |name: u8| [name; 16];
        let mut known = Known::from(ByHash::from_iter([(hash(1), 10), (hash(2), 20)]));
        let read = known.clone();
        known.insert(hash(2), 21);
        known.insert(hash(3), 30);
        assert_eq!(
            [1, 2, 3].map(|name| read.get(&hash(name))),
            [Some(10), Some(20), None]
        );
        assert_eq!(
            [1, 2, 3].map(|name| known.get(&hash(name))),
            [Some(10), Some(21), Some(30)]
        );
        assert_eq!(known.since().count(), 2);
        drop(read);
        known.insert(hash(4), 40);
        assert_eq!(known.since().count(), 0);
        let mut all: Vec<u32> = known.iter().map(|(_, number)| number).collect();
        all.sort_unstable();
        assert_eq!(all, [10, 21, 30, 40]);
    }
}
