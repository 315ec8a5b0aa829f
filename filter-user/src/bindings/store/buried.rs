//! How many deleted credentials each publisher has row versions of, for who bounds them.
//!
//! Counted once, beside the writer, and kept up from then on by whatever the store writes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{Database, ReadTransaction, ReadableDatabase as _, ReadableTable as _};

use super::tables::{TOMBSTONE_TIMES, TOMBSTONES, Tables, split_key};
use super::{Batch, Store, StoreError, is_old, trim_tombstones};
use crate::bindings::clock::Now;

/// What one look at a publisher that has too many takes away of what is too old.
const TRIMMED_AT_ONCE: usize = 16_384;

#[derive(Default)]
pub(super) struct Buried {
    /// One counts at a time.
    counting: Mutex<()>,
    /// Held over each commit: what is counted is of before it or of after it.
    sums: Mutex<Sums>,
}

/// By publisher.
#[derive(Default)]
pub(super) enum Sums {
    #[default]
    Unknown,
    /// With what was written since the count began.
    Counting(Difference),
    Known(HashMap<String, u64>),
}

/// What transactions add and take away.
#[derive(Default)]
pub(super) struct Difference(HashMap<String, i64>);

impl Difference {
    pub(super) fn note(&mut self, key: &str, was: bool, is: bool) {
        let by = i64::from(is) - i64::from(was);
        if by != 0 {
            self.add(split_key(key).0, by);
        }
    }

    fn add(&mut self, publisher: &str, by: i64) {
        match self.0.get_mut(publisher) {
            Some(sum) => *sum += by,
            None => drop(self.0.insert(publisher.to_owned(), by)),
        }
    }
}

impl Sums {
    /// After a commit.
    pub(super) fn change(&mut self, by: Difference) {
        match self {
            Sums::Unknown => {}
            Sums::Counting(since) => by.0.iter().for_each(|(publisher, by)| since.add(publisher, *by)),
            Sums::Known(sums) => {
                for (publisher, by) in by.0 {
                    let sum = sums.entry(publisher).or_default();
                    *sum = sum.saturating_add_signed(by);
                }
                sums.retain(|_, sum| *sum > 0);
            }
        }
    }
}

impl Buried {
    pub(super) fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another file, or nobody knows what became of the last transaction.
    pub(super) fn forget(&self) {
        *self.sums() = Sums::Unknown;
    }
}

impl Store {
    /// Counts, where nobody has. Blocks for as long as there are deleted credentials; others write meanwhile.
    pub(crate) fn count_buried(&self) -> Result<(), StoreError> {
        let _one = self
            .buried
            .counting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let db = self.db();
        let read = {
            let mut sums = self.buried.sums();
            if matches!(*sums, Sums::Known(_)) {
                return Ok(());
            }
            *sums = Sums::Counting(Difference::default());
            db.get()?.begin_read()?
        };
        let counted = count(&read);
        let mut sums = self.buried.sums();
        let Sums::Counting(since) = std::mem::take(&mut *sums) else {
            return Ok(());
        };
        *sums = Sums::Known(counted?);
        sums.change(since);
        Ok(())
    }

    /// How many of a publisher's deleted credentials count. Where these are `most` already, those that have become too
    /// old are taken away first.
    pub(crate) fn buried(&self, publisher: &str, most: u64, now: Now) -> Result<u64, StoreError> {
        self.count_buried()?;
        let db = self.db();
        let db = db.get()?;
        let mut sums = self.buried.sums();
        let has = |sums: &Sums| match sums {
            Sums::Known(sums) => sums.get(publisher).copied().unwrap_or(0),
            // Its file was taken away under it.
            Sums::Unknown | Sums::Counting(_) => 0,
        };
        let before = has(&sums);
        if before < most || !has_old(db, now)? {
            return Ok(before);
        }
        let mut difference = Difference::default();
        let mut write = db.begin_write()?;
        write.set_two_phase_commit(true);
        write.set_quick_repair(true);
        trim_tombstones(
            &mut Tables::open(&write)?,
            TRIMMED_AT_ONCE,
            now.wall_ms,
            &mut difference,
        )?;
        write.commit()?;
        sums.change(difference);
        Ok(has(&sums))
    }
}

fn has_old(db: &Database, now: Now) -> Result<bool, StoreError> {
    let read = db.begin_read()?;
    let times = read.open_table(TOMBSTONE_TIMES)?;
    let first = times.first()?.map(|(key, _)| key.value().0);
    Ok(first.is_some_and(|deleted_ms| is_old(deleted_ms, now.wall_ms)))
}

fn count(read: &ReadTransaction) -> Result<HashMap<String, u64>, StoreError> {
    let mut counted: HashMap<String, u64> = HashMap::new();
    for entry in read.open_table(TOMBSTONES)?.iter()? {
        let (key, _) = entry?;
        let (publisher, _) = split_key(key.value());
        match counted.get_mut(publisher) {
            Some(sum) => *sum += 1,
            None => drop(counted.insert(publisher.to_owned(), 1)),
        }
    }
    Ok(counted)
}

/// A batch's own.
pub(super) fn write(
    tables: &mut Tables<'_>,
    batch: &Batch,
    difference: &mut Difference,
) -> Result<(), StoreError> {
    for (key, tombstone) in &batch.tombstones {
        let before = match tombstone {
            Some(tombstone) => tables.tombstones.insert(key.as_str(), *tombstone)?,
            None => tables.tombstones.remove(key.as_str())?,
        };
        difference.note(key, before.is_some(), tombstone.is_some());
        if let Some(before) = before {
            tables.tombstone_times.remove((before.value().1, key.as_str()))?;
        }
        if let Some((_, wall_ms)) = tombstone {
            tables.tombstone_times.insert((*wall_ms, key.as_str()), ())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{key_of, open};
    use super::*;
    use crate::bindings::clock::{Clock as _, SystemClock};

    #[test]
    fn what_is_written_while_it_is_counted_is_counted_once() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemClock::new().unwrap().now();
        let store = open(&folder.path().join("bindings.redb"), now).unwrap().store;
        let tombstone =
            |at: usize, is: bool| (key_of("p", &format!("key-{at}")), is.then_some((1, now.wall_ms)));
        let write = |tombstones: Vec<_>| {
            let batch = Batch {
                tombstones,
                ..Batch::default()
            };
            store.apply(&batch, now).unwrap();
        };
        write((0..5_000).map(|at| tombstone(at, true)).collect());
        std::thread::scope(|scope| {
            scope.spawn(|| store.count_buried().unwrap());
            // One that is there already, one that goes, and two that come.
            for at in 0..20 {
                let new = [tombstone(10_000 + at, true), tombstone(20_000 + at, true)];
                let old = [tombstone(at, true), tombstone(1_000 + at, false)];
                write(new.into_iter().chain(old).collect());
            }
        });
        assert_eq!(store.buried("p", u64::MAX, now).unwrap(), 5_020);
        assert_eq!(store.counts().unwrap().1, 5_020);
        store.buried.forget();
        assert_eq!(store.buried("p", u64::MAX, now).unwrap(), 5_020);
        assert_eq!(store.buried("q", u64::MAX, now).unwrap(), 0);
    }
}
