//! The tables of the store and what stands in them.

use ipnet::IpNet;
use redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable as _, ReadableTableMetadata as _, Table, TableDefinition,
    WriteTransaction,
};
use serde::{Deserialize, Serialize};

use super::{StoreError, is_old};
use crate::bindings::audit::Known;
use crate::bindings::clock::Now;
use crate::bindings::model::lease::{LastWrite, StoredMoment};
use crate::bindings::model::row::StoredRow;
use crate::bindings::requests::{AuditHead, Event};

/// Written into `META`; what is newer is refused.
pub(super) const FORMAT: u64 = if cfg!(feature = "next-layout") { 2 } else { 1 };

/// `PUBLISHER/CREDENTIAL` -> `StoredRow`.
pub(super) const BINDINGS: TableDefinition<&str, &[u8]> = TableDefinition::new("bindings");
/// The same -> row version at which it was deleted, wall clock of that.
pub(super) const TOMBSTONES: TableDefinition<&str, (u64, i64)> = TableDefinition::new("tombstones");
pub(super) const TOMBSTONE_TIMES: TableDefinition<(i64, &str), ()> = TableDefinition::new("tombstone-times");
/// Revision -> `StoredChange`.
pub(super) const CHANGES: TableDefinition<u64, &[u8]> = TableDefinition::new("changes");
/// Publisher -> `StoredMoment` of its last success.
pub(super) const SUCCESSES: TableDefinition<&str, &[u8]> = TableDefinition::new("successes");
/// Name -> `StoredDeny`.
pub(super) const DENIES: TableDefinition<&str, &[u8]> = TableDefinition::new("denies");
/// Publishers that have not synced since a restore.
pub(super) const UNSYNCED: TableDefinition<&str, ()> = TableDefinition::new("unsynced");
/// `format`, `revision`, `changes-begin`, `folded` (every change up to this revision is in `BINDINGS`), `audit-line` and
/// `audit-revision` (the audit log was that far), and when the store was last written, in numbers of 64 bits.
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// `store`: the store's id. `before`: those that it has taken the place of. `audit-hash`: of the line `audit-line`. `lost`:
/// why another was set aside.
pub(super) const NAMES: TableDefinition<&str, &str> = TableDefinition::new("names");

/// Ids of stores, with spaces between, the last first.
pub(super) const BEFORE: &str = "before";

/// There as long as the kernel may hold what the one before held.
pub(super) const LOST: &str = "lost";

pub(super) struct Tables<'t> {
    pub(super) bindings: Table<'t, &'static str, &'static [u8]>,
    pub(super) tombstones: Table<'t, &'static str, (u64, i64)>,
    pub(super) tombstone_times: Table<'t, (i64, &'static str), ()>,
    pub(super) changes: Table<'t, u64, &'static [u8]>,
    pub(super) successes: Table<'t, &'static str, &'static [u8]>,
    pub(super) denies: Table<'t, &'static str, &'static [u8]>,
    pub(super) unsynced: Table<'t, &'static str, ()>,
    pub(super) meta: Table<'t, &'static str, u64>,
    pub(super) names: Table<'t, &'static str, &'static str>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(write: &'t WriteTransaction) -> Result<Tables<'t>, StoreError> {
        Ok(Tables {
            bindings: write.open_table(BINDINGS)?,
            tombstones: write.open_table(TOMBSTONES)?,
            tombstone_times: write.open_table(TOMBSTONE_TIMES)?,
            changes: write.open_table(CHANGES)?,
            successes: write.open_table(SUCCESSES)?,
            denies: write.open_table(DENIES)?,
            unsynced: write.open_table(UNSYNCED)?,
            meta: write.open_table(META)?,
            names: write.open_table(NAMES)?,
        })
    }

    pub(super) fn number(&self, name: &str) -> Result<u64, StoreError> {
        Ok(self.meta.get(name)?.map_or(0, |number| number.value()))
    }

    /// Now is when the store was last written.
    pub(super) fn write_last(&mut self, now: Now) -> Result<(), StoreError> {
        let [high, low] = halves(now.boot_id);
        for (name, number) in [
            ("last-write-ms", now.wall_ms.cast_unsigned()),
            ("last-write-boot-ms", now.boot_ms.cast_unsigned()),
            ("last-write-boot-high", high),
            ("last-write-boot-low", low),
        ] {
            self.meta.insert(name, number)?;
        }
        Ok(())
    }

    /// The audit log holds this, on disk.
    pub(super) fn write_audit(&mut self, known: &Known) -> Result<(), StoreError> {
        self.meta.insert("audit-line", known.head.line)?;
        self.meta.insert("audit-revision", known.revision)?;
        self.names.insert("audit-hash", known.head.hash.as_str())?;
        Ok(())
    }

    pub(super) fn audit(&self) -> Result<Option<Known>, StoreError> {
        let Some(hash) = self.names.get("audit-hash")? else {
            return Ok(None);
        };
        let head = AuditHead {
            line: self.number("audit-line")?,
            hash: hash.value().to_owned(),
        };
        let revision = self.number("audit-revision")?;
        Ok(Some(Known { head, revision }))
    }

    pub(super) fn last_write(&self) -> Result<LastWrite, StoreError> {
        let boot_id = u128::from(self.number("last-write-boot-high")?) << 64
            | u128::from(self.number("last-write-boot-low")?);
        Ok(LastWrite {
            wall_ms: self.number("last-write-ms")?.cast_signed(),
            boot_ms: self.number("last-write-boot-ms")?.cast_signed(),
            boot_id,
            earlier_ms: self.number("earlier-write-ms")?.cast_signed(),
        })
    }
}

/// The upper and the lower 64 bits.
fn halves(number: u128) -> [u64; 2] {
    let bytes = number.to_be_bytes();
    let half = |from: usize| {
        let mut half = [0; 8];
        half.copy_from_slice(&bytes[from..from + 8]);
        u64::from_be_bytes(half)
    };
    [half(0), half(8)]
}

/// Deleted credentials at one moment.
pub(crate) struct Deleted {
    table: ReadOnlyTable<&'static str, (u64, i64)>,
    is_empty: bool,
}

impl Deleted {
    pub(super) fn of(read: &ReadTransaction) -> Result<Deleted, StoreError> {
        let table = read.open_table(TOMBSTONES)?;
        Ok(Deleted {
            is_empty: table.is_empty()?,
            table,
        })
    }

    /// The row version at which a credential was deleted, and when, for as long as that counts.
    pub(crate) fn get(
        &self,
        publisher: &str,
        credential: &str,
        now: Now,
    ) -> Result<Option<(u64, i64)>, StoreError> {
        if self.is_empty {
            return Ok(None);
        }
        let found = self
            .table
            .get(key_of(publisher, credential).as_str())?
            .map(|found| found.value());
        Ok(found.filter(|(_, wall_ms)| !is_old(*wall_ms, now.wall_ms)))
    }
}

/// A change as a watch tells it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredChange {
    pub(crate) wall_ms: i64,
    pub(crate) event: Event,
    pub(crate) publisher: String,
    pub(crate) credential: String,
    /// As of this change; none after a delete.
    pub(crate) row: Option<StoredRow>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredDeny {
    pub(crate) owner: String,
    pub(crate) sources: Vec<IpNet>,
    pub(crate) reason: String,
    pub(crate) created_ms: i64,
    pub(crate) end: Option<StoredMoment>,
    pub(crate) revision: u64,
}

/// Publishers' names have no `/`.
pub(crate) fn key_of(publisher: &str, credential: &str) -> String {
    format!("{publisher}/{credential}")
}

pub(crate) fn split_key(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or((key, ""))
}
