//! What a restore keeps of the store that it replaces: whom somebody has kept out since the backup stays out.
//!
//! Denies of both stand; of one name, what either denies, until the later of both ends. A deletion with a row version
//! stands against an older row of the backup, unless the operator trusts that one.

use std::collections::{BTreeMap, BTreeSet};

use redb::{ReadableDatabase as _, ReadableTable as _};

use super::buried::{self, Difference};
use super::tables::{StoredDeny, TOMBSTONES, Tables, split_key};
use super::{Batch, Opened, Store, StoreError, is_old};
use crate::bindings::clock::Now;
use crate::bindings::model::lease::LastWrite;
use crate::bindings::requests::Kept;

/// The store that is in use until then.
pub(crate) struct Live<'s> {
    pub(crate) store: &'s Store,
    /// What has not ended, in this boot's time.
    pub(crate) denies: BTreeMap<String, StoredDeny>,
}

impl Live<'_> {
    /// Into a copy that is about to take its place.
    pub(super) fn keep(
        &self,
        tables: &mut Tables<'_>,
        copy: &Opened,
        trust: bool,
        now: Now,
    ) -> Result<Kept, StoreError> {
        let mut kept = Kept::default();
        for (name, deny) in &self.denies {
            let before = copy.denies.get(name);
            if let Some(deny) = with_copy(deny, before, copy.last_write, now) {
                let bytes = postcard::to_allocvec(&deny)?;
                tables.denies.insert(name.as_str(), bytes.as_slice())?;
                kept.denies += 1;
            }
        }
        let tombstones = self.deletions(tables, copy, trust, now)?;
        kept.deletions = tombstones.len() as u64;
        let batch = Batch {
            tombstones,
            ..Batch::default()
        };
        // Counted anew where it is opened.
        buried::write(tables, &batch, &mut Difference::default())?;
        Ok(kept)
    }

    /// Those that the copy has not; its rows that they are newer than go.
    fn deletions(
        &self,
        tables: &mut Tables<'_>,
        copy: &Opened,
        trust: bool,
        now: Now,
    ) -> Result<Vec<Tombstone>, StoreError> {
        let db = self.store.db();
        let read = db.get()?.begin_read()?;
        let mut kept = Vec::new();
        for entry in read.open_table(TOMBSTONES)?.iter()? {
            let (key, value) = entry?;
            let (key, (version, deleted_ms)) = (key.value(), value.value());
            let known = tables.tombstones.get(key)?.map(|known| known.value().0);
            if is_old(deleted_ms, now.wall_ms) || known.is_some_and(|known| known >= version) {
                continue;
            }
            let (publisher, credential) = split_key(key);
            let row = copy.rows.get(publisher).and_then(|rows| rows.get(credential));
            if let Some(row) = row {
                if trust || row.row_version.is_some_and(|known| known > version) {
                    continue;
                }
                tables.bindings.remove(key)?;
            }
            kept.push((key.to_owned(), Some((version, deleted_ms))));
        }
        Ok(kept)
    }
}

/// As a batch has it.
type Tombstone = (String, Option<(u64, i64)>);

/// A deny of before with the copy's of its name; `None` where that one keeps out as much, and as long.
fn with_copy(
    deny: &StoredDeny,
    copy: Option<&StoredDeny>,
    copied: LastWrite,
    now: Now,
) -> Option<StoredDeny> {
    let end_ms = |deny: &StoredDeny| {
        deny.end
            .map_or(i64::MAX, |end| end.in_this_boot(now, copied).boot_ms)
    };
    let Some(copy) = copy.filter(|copy| end_ms(copy) > now.boot_ms) else {
        return Some(deny.clone());
    };
    let sources: BTreeSet<_> = deny.sources.iter().chain(&copy.sources).collect();
    let longer = end_ms(deny) > end_ms(copy);
    (longer || sources.len() > copy.sources.len()).then(|| StoredDeny {
        sources: sources.into_iter().copied().collect(),
        end: if longer { deny.end } else { copy.end },
        ..deny.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::model::lease::Moment;

    const NOW: Now = Now {
        wall_ms: 1_000_000,
        boot_ms: 50_000,
        monotonic_ns: 50_000_000_000,
        boot_id: 1,
    };

    fn deny(source: &str, seconds: Option<i64>) -> StoredDeny {
        StoredDeny {
            owner: "operator/root".to_owned(),
            sources: vec![source.parse().unwrap()],
            reason: String::new(),
            created_ms: 0,
            end: seconds.map(|seconds| Moment::after(NOW, seconds * 1_000).stored(NOW.boot_id)),
            revision: 1,
        }
    }

    #[test]
    fn denies_of_one_name_deny_what_either_did_until_the_later_end() {
        let with =
            |live: &StoredDeny, copy: &StoredDeny| with_copy(live, Some(copy), LastWrite::default(), NOW);
        let (short, long) = (deny("192.0.2.1/32", Some(60)), deny("192.0.2.1/32", Some(600)));
        let endless = deny("192.0.2.1/32", None);
        assert_eq!(
            with_copy(&short, None, LastWrite::default(), NOW),
            Some(short.clone())
        );
        assert_eq!(with(&short, &short), None);
        assert_eq!(with(&short, &long), None);
        assert_eq!(with(&short, &endless), None);
        assert_eq!(with(&long, &short), Some(long.clone()));
        assert_eq!(with(&endless, &long), Some(endless.clone()));
        let both = with(&short, &deny("192.0.2.9/32", Some(600))).unwrap();
        assert_eq!(both.sources.len(), 2);
        assert_eq!(both.end, long.end);
        // What is over denies nothing any more.
        assert_eq!(with(&short, &deny("192.0.2.9/32", Some(-1))), Some(short.clone()));
    }
}
