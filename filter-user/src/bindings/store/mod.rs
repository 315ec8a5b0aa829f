//! The store: the log of changes, bindings, tombstones, denies, publishers' successes, in one redb file.
//!
//! One writer, one transaction a group, on disk when `apply` returns (two-phase commit; quick repair). A group is
//! appended to the log, which a watch reads and an open replays; rows follow into their table later, in the order of
//! their keys: random ones would rewrite a page each. What cannot be read is set aside whole, never emptied.

mod buried;
mod copy;
mod error;
mod kept;
mod migrate;
mod open;
mod rename;
mod rows;
mod sorted;
mod tables;

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use redb::{Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _};

use buried::{Buried, Difference};
pub(crate) use copy::{copy_from, copy_to};
pub(crate) use error::StoreError;
pub(crate) use kept::Live;
pub(crate) use migrate::set_aside;
#[cfg(test)]
pub(crate) use open::open_backend;
pub(crate) use open::{Opened, open, path_in};
pub(crate) use rename::rename_store;
pub(crate) use rows::Dirty;
use sorted::{encode, put_sorted};
use tables::{CHANGES, LOST, META, NAMES, Tables};
pub(crate) use tables::{Deleted, StoredChange, StoredDeny, key_of};

use super::audit::Known;
use super::clock::Now;
use super::model::lease::Moment;
use super::model::row::Row;

/// Changes that a watch can still be given.
pub(crate) const CHANGES_MAX: u64 = 1_000_000;
pub(crate) const CHANGES_KEPT_MS: i64 = 24 * 3_600_000;
pub(crate) const TOMBSTONES_KEPT_MS: i64 = 24 * 3_600_000;
/// Each write trims this many more than it adds, so that what is owed is made good without one long write.
const TRIM_AHEAD: usize = 64;
/// Of redb: what is read twice is in memory anyway.
const CACHE_BYTES: usize = 16 << 20;

pub(crate) struct Store {
    /// Taken out only while it is opened anew.
    db: RwLock<Option<Database>>,
    buried: Buried,
    boot_id: u128,
}

/// The database for as long as one call takes.
struct Open<'s>(RwLockReadGuard<'s, Option<Database>>);

impl Open<'_> {
    fn get(&self) -> Result<&Database, StoreError> {
        let closed = || StoreError::Redb(Box::new(redb::Error::DatabaseClosed));
        self.0.as_ref().ok_or_else(closed)
    }
}

/// What one transaction writes. `None` removes.
#[derive(Clone, Default)]
pub(crate) struct Batch {
    /// Each with the wall clock of its deletion.
    pub(crate) tombstones: Vec<(String, Option<(u64, i64)>)>,
    pub(crate) changes: Vec<(u64, StoredChange)>,
    /// Revisions whose changes never were: what the kernel refused.
    pub(crate) undone: Option<std::ops::RangeInclusive<u64>>,
    pub(crate) successes: Vec<(String, Moment)>,
    pub(crate) denies: Vec<(String, Option<StoredDeny>)>,
    pub(crate) synced: Vec<String>,
    pub(crate) unsynced: Vec<String>,
    pub(crate) revision: u64,
    /// The audit log as it is on disk.
    pub(crate) audit: Option<Known>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.tombstones.is_empty()
            && self.changes.is_empty()
            && self.undone.is_none()
            && self.successes.is_empty()
            && self.denies.is_empty()
            && self.synced.is_empty()
            && self.unsynced.is_empty()
    }

    /// What takes back another group as well, the one before.
    pub(crate) fn append(&mut self, other: Batch) {
        // Lines of the audit log may name the later ones.
        self.revision = self.revision.max(other.revision);
        self.tombstones.extend(other.tombstones);
        self.denies.extend(other.denies);
        self.unsynced.extend(other.unsynced);
        let (one, other) = (self.undone.take(), other.undone);
        self.undone = match (one, other) {
            (Some(one), Some(other)) => Some(*one.start().min(other.start())..=*one.end().max(other.end())),
            (one, other) => one.or(other),
        };
    }
}

impl Store {
    fn db(&self) -> Open<'_> {
        Open(self.db.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// After an error of the disk redb takes no more writes: the file is opened anew.
    pub(crate) fn reopen(&self, path: &Path) -> Result<(), StoreError> {
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        // The old one holds the file's lock.
        drop(db.take());
        *db = Some(open::open_file(path)?);
        // What became of the last transaction is not known.
        self.buried.forget();
        Ok(())
    }

    /// One transaction, on disk when it returns. Changes beyond the batch's revision are staged: nobody is told of them,
    /// and an open throws them away, until another batch raises the revision above them.
    pub(crate) fn apply(&self, batch: &Batch, now: Now) -> Result<(), StoreError> {
        let db = self.db();
        let mut write = db.get()?.begin_write()?;
        write.set_two_phase_commit(true);
        write.set_quick_repair(true);
        let mut buried = Difference::default();
        {
            let mut tables = Tables::open(&write)?;
            buried::write(&mut tables, batch, &mut buried)?;
            self.write_facts(&mut tables, batch)?;
            let changes = batch.changes.iter();
            let changes = changes.map(|(revision, change)| (*revision, Some(change)));
            put_sorted(&mut tables.changes, changes, encode)?;
            if let Some(undone) = &batch.undone {
                for revision in undone.clone() {
                    tables.changes.remove(revision)?;
                }
            }
            trim_changes(&mut tables, batch.changes.len() + TRIM_AHEAD, now.wall_ms)?;
            let most = batch.tombstones.len() + TRIM_AHEAD;
            trim_tombstones(&mut tables, most, now.wall_ms, &mut buried)?;
            tables.meta.insert("revision", batch.revision)?;
            if let Some(known) = &batch.audit {
                tables.write_audit(known)?;
            }
            tables.write_last(now)?;
        }
        let mut sums = self.buried.sums();
        write.commit()?;
        sums.change(buried);
        Ok(())
    }

    /// Rows as they are now, in the order of their keys, into their table, and the audit log as it is on disk. With
    /// `folded`, every change up to that revision is in it.
    pub(crate) fn fold(
        &self,
        rows: &[(String, Option<Arc<Row>>)],
        folded: Option<u64>,
        audit: &Known,
    ) -> Result<(), StoreError> {
        let db = self.db();
        let mut write = db.get()?.begin_write()?;
        write.set_two_phase_commit(true);
        write.set_quick_repair(true);
        {
            let mut tables = Tables::open(&write)?;
            let rows = rows.iter().map(|(key, row)| (key.as_str(), row.as_ref()));
            put_sorted(&mut tables.bindings, rows, |row, bytes| {
                encode(&row.stored(self.boot_id), bytes)
            })?;
            if let Some(folded) = folded {
                tables.meta.insert("folded", folded)?;
            }
            tables.write_audit(audit)?;
        }
        write.commit()?;
        Ok(())
    }

    /// The kernel may hold what is not here.
    pub(crate) fn lose(&self, why: &str) -> Result<(), StoreError> {
        let db = self.db();
        let mut write = db.get()?.begin_write()?;
        write.set_two_phase_commit(true);
        write.set_quick_repair(true);
        write.open_table(NAMES)?.insert(LOST, why)?;
        write.commit()?;
        Ok(())
    }

    /// What it holds is in force: whatever was set aside counts no more.
    pub(crate) fn find(&self) -> Result<(), StoreError> {
        let db = self.db();
        let mut write = db.get()?.begin_write()?;
        write.set_two_phase_commit(true);
        write.set_quick_repair(true);
        write.open_table(NAMES)?.remove(LOST)?;
        write.commit()?;
        Ok(())
    }

    fn write_facts(&self, tables: &mut Tables<'_>, batch: &Batch) -> Result<(), StoreError> {
        for (publisher, moment) in &batch.successes {
            let bytes = postcard::to_allocvec(&moment.stored(self.boot_id))?;
            tables.successes.insert(publisher.as_str(), bytes.as_slice())?;
        }
        for (name, deny) in &batch.denies {
            match deny {
                Some(deny) => {
                    tables
                        .denies
                        .insert(name.as_str(), postcard::to_allocvec(deny)?.as_slice())?;
                }
                None => {
                    tables.denies.remove(name.as_str())?;
                }
            }
        }
        for publisher in &batch.synced {
            tables.unsynced.remove(publisher.as_str())?;
        }
        for publisher in &batch.unsynced {
            tables.unsynced.insert(publisher.as_str(), ())?;
        }
        Ok(())
    }

    /// What has been deleted, as it is now: opened once for many looks.
    pub(crate) fn tombstones(&self) -> Result<Deleted, StoreError> {
        let db = self.db();
        Deleted::of(&db.get()?.begin_read()?)
    }

    /// Changes after `since` up to `until`, at most `most`.
    pub(crate) fn changes(
        &self,
        since: u64,
        until: u64,
        most: usize,
    ) -> Result<Vec<(u64, StoredChange)>, StoreError> {
        let db = self.db();
        let read = db.get()?.begin_read()?;
        let table = read.open_table(CHANGES)?;
        let mut changes = Vec::new();
        for entry in table
            .range(since.saturating_add(1)..=until.max(since.saturating_add(1)))?
            .take(most)
        {
            let (revision, change) = entry?;
            if revision.value() <= until {
                changes.push((revision.value(), postcard::from_bytes(change.value())?));
            }
        }
        Ok(changes)
    }

    /// Whether an attempt to open it anew has failed.
    pub(crate) fn is_closed(&self) -> bool {
        self.db().0.is_none()
    }

    /// Of the last transaction.
    pub(crate) fn revision(&self) -> Result<u64, StoreError> {
        let db = self.db();
        let read = db.get()?.begin_read()?;
        let meta = read.open_table(META)?;
        Ok(meta.get("revision")?.map_or(0, |value| value.value()))
    }

    /// The revision before the oldest change that is kept: who has seen this much misses nothing.
    pub(crate) fn changes_begin(&self) -> Result<u64, StoreError> {
        let db = self.db();
        let read = db.get()?.begin_read()?;
        let meta = read.open_table(META)?;
        Ok(meta.get("changes-begin")?.map_or(0, |value| value.value()))
    }

    #[cfg(test)]
    pub(crate) fn leases_of_other_boots(&self, boot_id: u128) -> Result<usize, StoreError> {
        let db = self.db();
        let read = db.get()?.begin_read()?;
        let mut count = 0;
        for entry in read.open_table(tables::BINDINGS)?.iter()? {
            let row: super::model::row::StoredRow = postcard::from_bytes(entry?.1.value())?;
            count += usize::from(row.is_of_another_boot(boot_id));
        }
        Ok(count)
    }

    #[cfg(test)]
    pub(crate) fn counts(&self) -> Result<(u64, u64, u64), StoreError> {
        let db = self.db();
        let read = db.get()?.begin_read()?;
        let tombstones = read.open_table(tables::TOMBSTONES)?.len()?;
        assert_eq!(tombstones, read.open_table(tables::TOMBSTONE_TIMES)?.len()?);
        Ok((
            read.open_table(CHANGES)?.len()?,
            tombstones,
            read.open_table(tables::DENIES)?.len()?,
        ))
    }
}

fn trim_changes(tables: &mut Tables<'_>, most: usize, wall_ms: i64) -> Result<(), StoreError> {
    // What is not in the table of bindings yet is needed by the next start.
    let folded = tables.meta.get("folded")?.map_or(0, |folded| folded.value());
    let surplus = tables.changes.len()?.saturating_sub(CHANGES_MAX);
    let mut begin = None;
    for (at, entry) in (0..).zip(tables.changes.iter()?.take(most)) {
        let (revision, change) = entry?;
        let is_kept = at >= surplus && is_young(change.value(), wall_ms)?;
        if revision.value() > folded || is_kept {
            break;
        }
        begin = Some(revision.value());
    }
    if let Some(begin) = begin {
        tables.changes.retain_in(..=begin, |_, _| false)?;
        tables.meta.insert("changes-begin", begin)?;
    }
    Ok(())
}

/// By a change's first field: when it was.
fn is_young(change: &[u8], wall_ms: i64) -> Result<bool, StoreError> {
    let (changed_ms, _): (i64, _) = postcard::take_from_bytes(change)?;
    Ok(wall_ms.saturating_sub(changed_ms) < CHANGES_KEPT_MS)
}

fn is_old(deleted_ms: i64, wall_ms: i64) -> bool {
    wall_ms.saturating_sub(deleted_ms) >= TOMBSTONES_KEPT_MS
}

fn trim_tombstones(
    tables: &mut Tables<'_>,
    most: usize,
    wall_ms: i64,
    buried: &mut Difference,
) -> Result<(), StoreError> {
    for _ in 0..most {
        let first = tables
            .tombstone_times
            .first()?
            .map(|(key, _)| (key.value().0, key.value().1.to_owned()));
        let Some((deleted_ms, key)) = first else { break };
        if !is_old(deleted_ms, wall_ms) {
            break;
        }
        tables.tombstone_times.remove((deleted_ms, key.as_str()))?;
        let was = tables.tombstones.remove(key.as_str())?.is_some();
        buried.note(&key, was, false);
    }
    Ok(())
}
