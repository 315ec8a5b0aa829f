//! Copies of a store: for a backup, consistent while it is written, and from one.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{ReadTransaction, ReadableDatabase as _, ReadableTable as _};

use super::open::open_with;
use super::tables::{
    BINDINGS, CHANGES, DENIES, LOST, META, NAMES, SUCCESSES, StoredChange, TOMBSTONES, Tables, key_of,
};
use super::{Store, StoreError};

/// The fault of a path that an operator named, unless the disk is full. `barred` is what to do where it is this process
/// that may not use it, whatever the operator may.
fn named(path: &Path, error: std::io::Error, barred: &str) -> StoreError {
    let error = StoreError::File(path.to_owned(), error);
    match (error.is_full(), error) {
        (false, StoreError::File(path, error)) => {
            let why = match error.kind() {
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                    format!("{error} for the daemon, which is the user {}; {barred}", user())
                }
                ErrorKind::AlreadyExists => format!("{error}; name a new file"),
                _ => error.to_string(),
            };
            StoreError::Named(path, why)
        }
        (_, error) => error,
    }
}

/// As whom the daemon runs.
fn user() -> String {
    let uid = nix::unistd::geteuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

/// Copies the file that an operator names, into the daemon's own folder.
pub(crate) fn copy_from(from: &Path, to: &Path) -> Result<(), StoreError> {
    let barred = || {
        let backups = to.with_file_name(BACKUPS);
        let (user, name) = (user(), from.file_name().unwrap_or_default());
        let inside = backups.join(name);
        format!(
            "let it read a copy: `install -o {user} -g {user} -m 600 {} {}.copy`, and restore that",
            from.display(),
            inside.display(),
        )
    };
    // A pipe that nobody writes to would hold up the writer for ever.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(from);
    let file = file.map_err(|error| named(from, error, &barred()))?;
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
    let barred = format!(
        "it writes where it may, such as {}",
        state.join(BACKUPS).join("NAME").display()
    );
    let fail = |error| named(to, error, &barred);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_barred_and_what_to_do_is_told() {
        let told = |kind: ErrorKind| named(Path::new("/srv/off"), kind.into(), "do this").to_string();
        let barred = told(ErrorKind::PermissionDenied);
        assert!(
            barred.starts_with("/srv/off: permission denied for the daemon"),
            "{barred}"
        );
        assert!(
            barred.contains("the user ") && barred.ends_with("; do this"),
            "{barred}"
        );
        assert!(told(ErrorKind::AlreadyExists).ends_with("name a new file"));
        assert!(!told(ErrorKind::NotFound).contains("do this"));
    }
}
