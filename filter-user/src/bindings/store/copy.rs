//! Copies of a store: for a backup, consistent while it is written, and from one.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{ReadTransaction, ReadableDatabase as _, ReadableTable as _};

use super::open::open_with;
use super::tables::{
    BINDINGS, CHANGES, DENIES, LOST, META, NAMES, SUCCESSES, StoredChange, TOMBSTONES, Tables, key_of,
};
use super::{Store, StoreError};

/// The fault of a path that an operator named, unless the disk is full.
fn named(path: &Path, error: std::io::Error) -> StoreError {
    let error = StoreError::File(path.to_owned(), error);
    match (error.is_full(), error) {
        (false, StoreError::File(path, error)) => StoreError::Named(path, error.to_string()),
        (_, error) => error,
    }
}

/// Copies the file that an operator names.
pub(crate) fn copy_from(from: &Path, to: &Path) -> Result<(), StoreError> {
    let file = std::fs::File::open(from).map_err(|error| named(from, error))?;
    if !file.metadata().is_ok_and(|what| what.is_file()) {
        return Err(StoreError::Named(
            from.to_owned(),
            "not a regular file".to_owned(),
        ));
    }
    std::fs::copy(from, to).map_err(|error| StoreError::File(to.to_owned(), error))?;
    Ok(())
}

fn is_missing(folder: &Path) -> bool {
    let metadata = folder.metadata();
    metadata.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// The folder for them in the state folder: the only one that is made where it is not there.
const BACKUPS: &str = "backups";

/// A consistent copy in a new file, on disk when it returns. `state` is the daemon's own folder.
pub(crate) fn copy_to(store: &Store, state: &Path, to: &Path) -> Result<(), StoreError> {
    let fail = |error| named(to, error);
    match to.parent() {
        Some(folder) if folder == state.join(BACKUPS) => {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(fail)?;
        }
        // A slip of the pen is no wish for a folder.
        Some(folder) if is_missing(folder) => {
            let why = format!(
                "the folder {} is not there; make it, writable for the daemon's user, or name {}",
                folder.display(),
                state.join(BACKUPS).join("NAME").display()
            );
            return Err(StoreError::Named(to.to_owned(), why));
        }
        _ => {}
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to);
    let copy = open_with(FileBackend::new(file.map_err(fail)?)?)?;
    let db = store.db();
    let read = db.get()?.begin_read()?;
    let write = copy.begin_write()?;
    {
        let mut tables = Tables::open(&write)?;
        for entry in read.open_table(BINDINGS)?.iter()? {
            let (key, value) = entry?;
            tables.bindings.insert(key.value(), value.value())?;
        }
        for entry in read.open_table(TOMBSTONES)?.iter()? {
            let (key, value) = entry?;
            tables.tombstones.insert(key.value(), value.value())?;
            tables
                .tombstone_times
                .insert((value.value().1, key.value()), ())?;
        }
        for entry in read.open_table(SUCCESSES)?.iter()? {
            let (key, value) = entry?;
            tables.successes.insert(key.value(), value.value())?;
        }
        for entry in read.open_table(DENIES)?.iter()? {
            let (key, value) = entry?;
            tables.denies.insert(key.value(), value.value())?;
        }
        for entry in read.open_table(META)?.iter()? {
            let (key, value) = entry?;
            tables.meta.insert(key.value(), value.value())?;
        }
        for entry in read.open_table(NAMES)?.iter()? {
            let (key, value) = entry?;
            tables.names.insert(key.value(), value.value())?;
        }
        // Whatever was set aside on this host, the copy is whole.
        tables.names.remove(LOST)?;
        let revision = fold(&read, &mut tables)?;
        // The log of changes stays behind: a restored store has a new id, and every watcher lists again.
        tables.meta.insert("folded", revision)?;
        tables.meta.insert("changes-begin", revision)?;
    }
    write.commit()?;
    drop(copy);
    File::open(to).and_then(|file| file.sync_all()).map_err(fail)
}

/// Lays the changes over the table that they have not come to yet; gives the last revision.
fn fold(read: &ReadTransaction, tables: &mut Tables<'_>) -> Result<u64, StoreError> {
    let (folded, revision) = (tables.number("folded")?, tables.number("revision")?);
    let changes = read.open_table(CHANGES)?;
    // Beyond is what is staged.
    for entry in changes.range(folded.saturating_add(1)..=revision.max(folded.saturating_add(1)))? {
        let (at, value) = entry?;
        if at.value() > revision {
            break;
        }
        let change: StoredChange = postcard::from_bytes(value.value())?;
        let key = key_of(&change.publisher, &change.credential);
        match &change.row {
            Some(row) => drop(
                tables
                    .bindings
                    .insert(key.as_str(), postcard::to_allocvec(row)?.as_slice())?,
            ),
            None => drop(tables.bindings.remove(key.as_str())?),
        }
    }
    Ok(revision)
}
