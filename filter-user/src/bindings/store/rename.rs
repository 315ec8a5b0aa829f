//! A store that goes on under another id: a copy that is restored, or one that was put back by hand. It tells which ones it
//! has taken the place of, so that whoever knew the last of them knows it for the next.

use std::path::Path;
use std::sync::PoisonError;

use redb::{ReadOnlyTable, ReadableDatabase as _};

use super::open::{Opened, format_of, new_id, open_file, read};
use super::tables::{BEFORE, NAMES, Tables, key_of};
use super::{Live, Store, StoreError};
use crate::bindings::clock::Now;
use crate::bindings::requests::Kept;

/// Ids that one tells of: a crash in a row of restores leaves few of them untold.
const BEFORE_MAX: usize = 16;

/// Gives a copy a new id, and revisions above those of what it replaces; without trust its publishers are unsynced. What
/// the one before kept out stays out.
pub(crate) fn rename_store(
    path: &Path,
    trust: bool,
    revision: u64,
    live: &Live<'_>,
    now: Now,
) -> Result<Kept, StoreError> {
    let db = open_file(path)?;
    if format_of(&db)?.is_none() {
        return Err(StoreError::Named(
            path.to_owned(),
            "there is no store in it".to_owned(),
        ));
    }
    let before = live.store.ids()?;
    read(db, now)?.rename(trust, revision, (before, Some(live)), now)
}

impl Opened {
    /// As another store, whose revisions begin above this one, in the place of this one and of `before`; without trust its
    /// publishers are unsynced.
    pub(crate) fn renamed(
        self,
        trust: bool,
        revision: u64,
        before: Option<&str>,
        now: Now,
    ) -> Result<Opened, StoreError> {
        let ids = std::iter::once(self.id.clone()).chain(before.map(str::to_owned));
        let before = ids.chain(self.before.iter().cloned()).collect();
        self.rename(trust, revision, (before, None), now)?;
        let db = self.store.db.into_inner().unwrap_or_else(PoisonError::into_inner);
        read(db.expect("it was open just now"), now)
    }

    fn rename(
        &self,
        trust: bool,
        revision: u64,
        (before, live): (Vec<String>, Option<&Live<'_>>),
        now: Now,
    ) -> Result<Kept, StoreError> {
        let db = self.store.db();
        let mut write = db.get()?.begin_write()?;
        write.set_two_phase_commit(true);
        let mut kept = Kept::default();
        {
            let mut tables = Tables::open(&write)?;
            fold_dirty(&mut tables, self, now)?;
            if let Some(live) = live {
                kept = live.keep(&mut tables, self, trust, now)?;
            }
            // Of its own: who watched up to the last one lists again as well.
            let revision = revision.max(self.revision) + 1;
            tables.meta.insert("revision", revision)?;
            tables.meta.insert("folded", revision)?;
            tables.meta.insert("changes-begin", revision)?;
            tables.meta.insert("restored", revision)?;
            tables.names.insert("store", new_id()?.as_str())?;
            let before = &before[..before.len().min(BEFORE_MAX)];
            tables.names.insert(BEFORE, before.join(" ").as_str())?;
            // That of the host it is copied from.
            tables.names.remove("audit-hash")?;
            if !trust {
                for publisher in self.rows.keys() {
                    tables.unsynced.insert(publisher.as_ref(), ())?;
                }
            }
        }
        write.commit()?;
        Ok(kept)
    }
}

/// A store that was in use, and is restored, has changes that its table has not.
fn fold_dirty(tables: &mut Tables<'_>, opened: &Opened, now: Now) -> Result<(), StoreError> {
    let dirty = opened.dirty.iter();
    let dirty =
        dirty.flat_map(|(publisher, credentials)| credentials.iter().map(move |one| (publisher, one)));
    for (publisher, credential) in dirty {
        let key = key_of(publisher, credential);
        let row = opened.rows.get(publisher).and_then(|rows| rows.get(credential));
        match row {
            Some(row) => {
                let bytes = postcard::to_allocvec(&row.stored(now.boot_id))?;
                tables.bindings.insert(key.as_str(), bytes.as_slice())?;
            }
            None => drop(tables.bindings.remove(key.as_str())?),
        }
    }
    Ok(())
}

impl Store {
    /// Its own, and those of the stores that it has taken the place of.
    fn ids(&self) -> Result<Vec<String>, StoreError> {
        let db = self.db();
        let names = db.get()?.begin_read()?.open_table(NAMES)?;
        let (own, before) = (ids_in(&names, "store")?, ids_in(&names, BEFORE)?);
        Ok(own.into_iter().chain(before).collect())
    }
}

/// The ids that stand under a name.
pub(super) fn ids_in(
    names: &ReadOnlyTable<&'static str, &'static str>,
    name: &str,
) -> Result<Vec<String>, StoreError> {
    let text = names.get(name)?;
    let ids = text.iter().flat_map(|text| text.value().split_whitespace());
    Ok(ids.map(str::to_owned).collect())
}
