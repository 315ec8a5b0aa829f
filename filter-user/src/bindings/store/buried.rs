//! How many deleted credentials each publisher has row versions of, for who bounds them.
//!
//! Counted once, when somebody asks first, and kept up from then on by whatever the store writes.

use std::collections::HashMap;
use std::sync::PoisonError;

use redb::{Database, ReadableDatabase as _, ReadableTable as _};

use super::tables::{TOMBSTONE_TIMES, TOMBSTONES, Tables, split_key};
use super::{Batch, Store, StoreError, is_old, trim_tombstones};
use crate::bindings::clock::Now;

/// What one look at a publisher that has too many takes away of what is too old.
const TRIMMED_AT_ONCE: usize = 16_384;

/// By publisher; `None` until somebody asks.
pub(super) type Buried = Option<HashMap<String, u64>>;

/// What a transaction adds and takes away.
#[derive(Default)]
pub(super) struct Difference(HashMap<String, i64>);

impl Difference {
    pub(super) fn note(&mut self, key: &str, was: bool, is: bool) {
        let by = i64::from(is) - i64::from(was);
        if by == 0 {
            return;
        }
        let (publisher, _) = split_key(key);
        match self.0.get_mut(publisher) {
            Some(sum) => *sum += by,
            None => drop(self.0.insert(publisher.to_owned(), by)),
        }
    }

    pub(super) fn apply(self, buried: &mut Buried) {
        let Some(buried) = buried else { return };
        for (publisher, by) in self.0 {
            let sum = buried.entry(publisher).or_default();
            *sum = sum.saturating_add_signed(by);
        }
        buried.retain(|_, sum| *sum > 0);
    }
}

impl Store {
    /// How many of a publisher's deleted credentials count. Where these are `most` already, those that have become too
    /// old are taken away first.
    pub(crate) fn buried(&self, publisher: &str, most: u64, now: Now) -> Result<u64, StoreError> {
        let db = self.db();
        let db = db.get()?;
        let mut buried = self.buried.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = match &mut *buried {
            Some(counted) => counted,
            none => none.insert(count(db)?),
        };
        let has = |counted: &HashMap<String, u64>| counted.get(publisher).copied().unwrap_or(0);
        let before = has(counted);
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
        difference.apply(&mut buried);
        Ok(buried.as_ref().map_or(0, has))
    }
}

fn has_old(db: &Database, now: Now) -> Result<bool, StoreError> {
    let read = db.begin_read()?;
    let times = read.open_table(TOMBSTONE_TIMES)?;
    let first = times.first()?.map(|(key, _)| key.value().0);
    Ok(first.is_some_and(|deleted_ms| is_old(deleted_ms, now.wall_ms)))
}

fn count(db: &Database) -> Result<HashMap<String, u64>, StoreError> {
    let read = db.begin_read()?;
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
