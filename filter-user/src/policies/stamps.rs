//! By what a change of the policy's files is seen without reading them.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A file's or folder's name, size and last change, of its rights too; no size where it is not there.
pub(super) type Stamp = (PathBuf, Option<(u64, i64, i64)>);

/// Of the file, the files it was read with, and the folders that they are in: a new one there may be included.
pub(super) fn stamps(file: &Path, others: &[&str]) -> Vec<Stamp> {
    let mut paths: Vec<PathBuf> = others.iter().map(PathBuf::from).collect();
    paths.push(file.to_owned());
    let folders: Vec<PathBuf> = paths
        .iter()
        .filter_map(|path| Some(path.parent()?.to_owned()))
        .collect();
    if !others.is_empty() {
        paths.extend(folders);
    }
    paths.sort();
    paths.dedup();
    stamps_of(&paths)
}

pub(super) fn stamps_of(paths: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.len(), metadata.ctime(), metadata.ctime_nsec()))
    };
    paths.iter().map(|path| (path.clone(), stamp(path))).collect()
}
