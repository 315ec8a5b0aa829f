//! Opening a store: made where there is none, read whole, set aside where it cannot be read, copied for a backup.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadTransaction, ReadableDatabase, ReadableTable as _, StorageBackend};

use super::rename::ids_in;
use super::rows::{self, Dirty, Found, Rows};
use super::tables::{BEFORE, DENIES, FORMAT, LOST, META, NAMES, SUCCESSES, StoredDeny, Tables, UNSYNCED};
use super::{CACHE_BYTES, Store, StoreError, migrate};
use crate::bindings::audit::Known;
use crate::bindings::clock::Now;
use crate::bindings::model::content::NamesTable;
use crate::bindings::model::lease::{LastWrite, Moment, StoredMoment};

/// A store and all that it holds.
pub(crate) struct Opened {
    pub(crate) store: Store,
    pub(crate) id: String,
    /// The ids of those that it has taken the place of, the last first.
    pub(crate) before: Vec<String>,
    pub(crate) revision: u64,
    pub(crate) rows: Rows,
    /// The lists of services that they share.
    pub(crate) names: NamesTable,
    pub(crate) dirty: Dirty,
    pub(crate) successes: BTreeMap<String, Moment>,
    pub(crate) denies: BTreeMap<String, StoredDeny>,
    /// Publishers that have not synced since a restore, and its revision.
    pub(crate) unsynced: BTreeMap<String, u64>,
    pub(crate) last_write: LastWrite,
    /// How far the audit log was; `None` in a new store and in a copy.
    pub(crate) audit: Option<Known>,
    /// Why another was set aside, a sentence: the kernel may hold what that one held.
    pub(crate) lost: Option<String>,
}

/// Opens the file, or makes it. One that cannot be read is set aside under another name, and a new one begun.
pub(crate) fn open(path: &Path, now: Now) -> Result<Opened, StoreError> {
    // A pipe would hold up the start for ever.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return set_aside(path, "it is not a regular file", now);
    }
    // Damage that redb meets only where it stumbles over it.
    let tried = catch_unwind(|| {
        refuse_newer(path)?;
        open_migrating(path, now)
    });
    let Ok(opened) = tried else {
        return set_aside(path, "it is damaged inside", now);
    };
    match opened {
        Err(StoreError::Redb(error)) if is_unreadable(&error) => set_aside(path, &error.to_string(), now),
        Err(StoreError::Entry(error)) => set_aside(path, &error.to_string(), now),
        other => other,
    }
}

/// Before it is opened for writing, which changes a file. One that needs repair shows its format after that.
fn refuse_newer(path: &Path) -> Result<(), StoreError> {
    let Ok(db) = Builder::new().open_read_only(path) else {
        return Ok(());
    };
    match format_of(&db) {
        Ok(Some(found)) if found > FORMAT => Err(StoreError::Newer { found, known: FORMAT }),
        _ => Ok(()),
    }
}

/// With a copy aside where it is of an older format: what is read then is changed.
fn open_migrating(path: &Path, now: Now) -> Result<Opened, StoreError> {
    let db = open_file(path)?;
    let Some(found) = format_of(&db)?.filter(|found| *found < FORMAT) else {
        return read(db, now);
    };
    drop(db);
    let aside = migrate::copy_aside(path, found, now)?;
    let opened = open_file(path).and_then(|db| read(db, now));
    if opened.is_err() {
        // Nothing has changed: whoever tries again copies again.
        std::fs::remove_file(&aside).map_err(|error| StoreError::File(aside, error))?;
    }
    opened
}

pub(super) fn open_file(path: &Path) -> Result<Database, StoreError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    let file = file.map_err(|error| StoreError::File(path.to_owned(), error))?;
    open_with(FileBackend::new(file)?)
}

pub(super) fn open_with(backend: impl StorageBackend) -> Result<Database, StoreError> {
    let mut builder = Builder::new();
    Ok(builder.set_cache_size(CACHE_BYTES).create_with_backend(backend)?)
}

/// For tests of crashes: a store over other storage.
#[cfg(test)]
pub(crate) fn open_backend(backend: impl StorageBackend, now: Now) -> Result<Opened, StoreError> {
    read(open_with(backend)?, now)
}

/// Damage, and not a disk that fails or a lock that is held: those may pass.
fn is_unreadable(error: &redb::Error) -> bool {
    match error {
        redb::Error::Corrupted(_) | redb::Error::RepairAborted | redb::Error::UpgradeRequired(_) => true,
        redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. } => true,
        // redb's own word for a file that is none of its.
        redb::Error::Io(error) => matches!(
            error.kind(),
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof
        ),
        _ => false,
    }
}

fn set_aside(path: &Path, why: &str, now: Now) -> Result<Opened, StoreError> {
    let aside = path.with_extension(format!("unreadable-{}", now.wall_ms));
    std::fs::rename(path, &aside).map_err(|error| StoreError::File(path.to_owned(), error))?;
    let db = open_file(path)?;
    let why = format!(
        "the store could not be read ({why}): it is kept as {}; `keyfence restore` a backup if there is one, \
         then `keyfence reload`, then publishers must sync, and a restart of the daemon after that ends this",
        aside.display()
    );
    let write = db.begin_write()?;
    write.open_table(NAMES)?.insert(LOST, why.as_str())?;
    write.commit()?;
    read(db, now)
}

pub(super) fn read(db: Database, now: Now) -> Result<Opened, StoreError> {
    let Prepared {
        id,
        revision,
        folded,
        last,
        audit,
    } = prepare(&db, now)?;
    let read = db.begin_read()?;
    let Found { rows, dirty, names } = rows::read(&read, folded, now, last)?;
    let mut successes = BTreeMap::new();
    for entry in read.open_table(SUCCESSES)?.iter()? {
        let (name, value) = entry?;
        let moment: StoredMoment = postcard::from_bytes(value.value())?;
        successes.insert(name.value().to_owned(), moment.in_this_boot(now, last));
    }
    let mut denies = BTreeMap::new();
    for entry in read.open_table(DENIES)?.iter()? {
        let (name, value) = entry?;
        denies.insert(name.value().to_owned(), postcard::from_bytes(value.value())?);
    }
    let unsynced = unsynced(&read)?;
    let told = read.open_table(NAMES)?;
    let lost = told.get(LOST)?.map(|why| why.value().to_owned());
    let before = ids_in(&told, BEFORE)?;
    drop((told, read));
    Ok(Opened {
        store: Store {
            db: RwLock::new(Some(db)),
            buried: super::buried::Buried::default(),
            boot_id: now.boot_id,
        },
        id,
        before,
        revision,
        rows,
        names,
        dirty,
        successes,
        denies,
        unsynced,
        last_write: last,
        audit,
        lost,
    })
}

struct Prepared {
    id: String,
    revision: u64,
    folded: u64,
    last: LastWrite,
    audit: Option<Known>,
}

/// Makes what is not there yet, and of an older format this one; refuses a newer format before anything is written.
fn prepare(db: &Database, now: Now) -> Result<Prepared, StoreError> {
    let found = format_of(db)?;
    if let Some(found) = found.filter(|found| *found > FORMAT) {
        return Err(StoreError::Newer { found, known: FORMAT });
    }
    let mut write = db.begin_write()?;
    write.set_two_phase_commit(true);
    write.set_quick_repair(true);
    let prepared;
    {
        let mut tables = Tables::open(&write)?;
        for from in found.unwrap_or(FORMAT)..FORMAT {
            migrate::step(from, &mut tables)?;
        }
        tables.meta.insert("format", FORMAT)?;
        let id = tables.names.get("store")?.map(|id| id.value().to_owned());
        let id = match id {
            Some(id) => id,
            None => {
                let id = new_id()?;
                tables.names.insert("store", id.as_str())?;
                id
            }
        };
        let last = tables.last_write()?;
        if last.boot_id != now.boot_id {
            let earlier_ms = last.earlier_ms.max(last.wall_ms);
            tables
                .meta
                .insert("earlier-write-ms", earlier_ms.cast_unsigned())?;
        }
        let revision = tables.number("revision")?;
        // Staged for a change that a crash came before.
        tables
            .changes
            .retain_in(revision.saturating_add(1).., |_, _| false)?;
        prepared = Prepared {
            id,
            revision,
            folded: tables.number("folded")?,
            last,
            audit: tables.audit()?,
        };
    }
    write.commit()?;
    Ok(prepared)
}

pub(super) fn format_of(db: &impl ReadableDatabase) -> Result<Option<u64>, StoreError> {
    let read = db.begin_read()?;
    match read.open_table(META) {
        Ok(meta) => Ok(meta.get("format")?.map(|format| format.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Publishers that have not synced since a restore, and its revision, which a store of an earlier release does not tell.
fn unsynced(read: &ReadTransaction) -> Result<BTreeMap<String, u64>, StoreError> {
    let restored = read.open_table(META)?.get("restored")?;
    let restored = restored.map_or(u64::MAX, |revision| revision.value());
    let mut unsynced = BTreeMap::new();
    for entry in read.open_table(UNSYNCED)?.iter()? {
        unsynced.insert(entry?.0.value().to_owned(), restored);
    }
    Ok(unsynced)
}

pub(super) fn new_id() -> Result<String, StoreError> {
    let mut bytes = [0; 8];
    let path = Path::new("/dev/urandom");
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| StoreError::File(path.to_owned(), error))?;
    Ok(crate::bindings::model::credential::hex(&bytes))
}

impl Store {
    /// Reads another file in place of the one at hand.
    pub(crate) fn replace(&self, path: &Path, now: Now) -> Result<Opened, StoreError> {
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        drop(db.take());
        let mut opened = read(open_file(path)?, now)?;
        let taken = opened.store.db.get_mut().unwrap_or_else(PoisonError::into_inner);
        *db = taken.take();
        self.buried.forget();
        Ok(opened)
    }
}

/// The file of the store in the state folder.
pub(crate) fn path_in(folder: &Path) -> PathBuf {
    folder.join("bindings.redb")
}
