//! From an older format of the store to this one's: the file is copied aside, then changed in one transaction.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::StoreError;
use super::tables::{FORMAT, Tables};
use crate::bindings::clock::Now;

/// Behind it stands the format, and the time where there is one of that format already.
const ASIDE: &str = "bindings.format-";

/// Copies a store of an older format aside, on disk when this returns.
pub(super) fn copy_aside(path: &Path, format: u64, now: Now) -> Result<PathBuf, StoreError> {
    let mut aside = path.with_file_name(format!("{ASIDE}{format}.redb"));
    if aside.exists() {
        aside = path.with_file_name(format!("{ASIDE}{format}-{}.redb", now.wall_ms));
    }
    let failed = |error| StoreError::File(aside.clone(), error);
    let folder = path.parent().unwrap_or(path);
    // Whole or not there.
    let file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    fs::copy(path, file.path()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(&aside).map_err(|error| failed(error.error))?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed)?;
    tracing::warn!(
        "the store is of format {format}, and is made one of format {FORMAT}; as it was it is kept as {}",
        aside.display()
    );
    Ok(aside)
}

/// The newest copy that was set aside here and this release reads.
pub(crate) fn set_aside(path: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(path.parent()?).ok()?;
    let copies = files.filter_map(|file| {
        let file = file.ok()?;
        let name = file.file_name().into_string().ok()?;
        let format = name.strip_prefix(ASIDE)?.split(['-', '.']).next()?;
        let is_read = format.parse().is_ok_and(|format: u64| format <= FORMAT);
        Some((
            is_read.then(|| file.metadata().ok()?.modified().ok())??,
            file.path(),
        ))
    });
    copies.max().map(|(_, path)| path)
}

/// What is of one format becomes what the next one wants.
pub(super) fn step(from: u64, tables: &mut Tables<'_>) -> Result<(), StoreError> {
    match from {
        // Made up, for tests of upgrades.
        #[cfg(feature = "next-layout")]
        1 => {
            tables.names.insert("format-before", "1")?;
            Ok(())
        }
        _ => {
            let _ = tables;
            Err(StoreError::Unknown(from))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now {
        wall_ms: 1_795_000_000_000,
        boot_ms: 1_000,
        monotonic_ns: 1_000_000_000,
        boot_id: 7,
    };

    #[test]
    fn store_is_copied_aside_whole_and_a_second_copy_replaces_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bindings.redb");
        fs::write(&path, "as it was").unwrap();
        let first = copy_aside(&path, 0, NOW).unwrap();
        assert_eq!(first, folder.path().join("bindings.format-0.redb"));
        assert_eq!(fs::read(&first).unwrap(), b"as it was");
        let second = copy_aside(&path, 0, NOW).unwrap();
        assert_ne!(first, second);
        let copies = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(copies, 3, "nothing half is left");
    }

    #[test]
    fn newest_copy_that_this_release_reads_is_the_way_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bindings.redb");
        assert_eq!(set_aside(&path), None);
        fs::write(&path, "as it was").unwrap();
        let copy = copy_aside(&path, FORMAT, NOW).unwrap();
        // Of a later upgrade, from a format that this release does not read.
        fs::write(folder.path().join("bindings.format-99.redb"), "newer").unwrap();
        fs::write(folder.path().join("bindings.redb.newer"), "newer").unwrap();
        assert_eq!(set_aside(&path), Some(copy));
    }

    #[test]
    fn format_of_no_release_changes_nothing_and_leaves_no_copy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bindings.redb");
        drop(crate::bindings::store::open(&path, NOW).unwrap());
        {
            let db = redb::Database::open(&path).unwrap();
            let write = db.begin_write().unwrap();
            let meta = redb::TableDefinition::<&str, u64>::new("meta");
            write.open_table(meta).unwrap().insert("format", 0).unwrap();
            write.commit().unwrap();
        }
        let error = crate::bindings::store::open(&path, NOW).err().unwrap();
        assert!(error.to_string().contains("format 0 is of no release"), "{error}");
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 1, "whoever is tried again each second fills no disk");
    }
}
