//! Which files a list of captures means: files as they are named, folders with all that is in them.

use std::path::{Path, PathBuf};

/// Folders below folders; a deeper one is said, not read.
const DEPTH_MAX: usize = 64;

/// One file to read, or why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// As it was given, or the folder as it was given joined with the path below it.
    pub(super) path: PathBuf,
    /// 0 where it cannot be known.
    pub(super) bytes: u64,
    pub(super) skipped: Option<String>,
}

/// In the order of the arguments; what is in a folder by the bytes of its path.
pub(super) fn find(captures: &[PathBuf]) -> Vec<Named> {
    let mut found = Vec::new();
    for capture in captures {
        if !capture.is_dir() {
            found.push(named(capture));
            continue;
        }
        let mut inside = Vec::new();
        walk(capture, 0, &mut inside);
        inside.sort_by(|a, b| a.path.as_os_str().cmp(b.path.as_os_str()));
        found.append(&mut inside);
    }
    found
}

fn walk(folder: &Path, depth: usize, found: &mut Vec<Named>) {
    if depth >= DEPTH_MAX {
        return found.push(skipped(folder, format!("more than {DEPTH_MAX} folders deep")));
    }
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return found.push(skipped(folder, format!("cannot be listed: {error}"))),
    };
    for entry in entries {
        match entry {
            Ok(entry) => enter(&entry, depth, found),
            Err(error) => found.push(skipped(folder, format!("cannot be listed: {error}"))),
        }
    }
}

fn enter(entry: &std::fs::DirEntry, depth: usize, found: &mut Vec<Named>) {
    let path = entry.path();
    let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
    match std::fs::metadata(&path) {
        // A link back up would have no end.
        Ok(what) if what.is_dir() && is_link => {
            found.push(skipped(&path, "a link to a folder: not followed".to_owned()));
        }
        Ok(what) if what.is_dir() => walk(&path, depth + 1, found),
        // A pipe or a device may never end; who means it names it.
        Ok(what) if !what.is_file() => found.push(skipped(&path, "not a regular file".to_owned())),
        Ok(what) => found.push(Named {
            path,
            bytes: what.len(),
            skipped: None,
        }),
        Err(error) => found.push(skipped(&path, cannot_be_read(&error))),
    }
}

fn named(path: &Path) -> Named {
    match std::fs::metadata(path) {
        Ok(what) => Named {
            path: path.to_owned(),
            bytes: if what.is_file() { what.len() } else { 0 },
            skipped: None,
        },
        Err(error) => skipped(path, cannot_be_read(&error)),
    }
}

fn skipped(path: &Path, why: String) -> Named {
    Named {
        path: path.to_owned(),
        bytes: 0,
        skipped: Some(why),
    }
}

pub(super) fn cannot_be_read(error: &std::io::Error) -> String {
    format!("cannot be read: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_read_whole_in_the_order_of_bytes_and_named_as_given() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("a/deep")).unwrap();
        for file in ["b.pcap", "a.pcap", "a/deep/z", "a/B", "a-x"] {
            std::fs::write(root.join(file), "123").unwrap();
        }
        std::os::unix::fs::symlink(root, root.join("loop")).unwrap();
        let found = find(&[root.join("b.pcap"), root.to_owned(), root.join("none")]);
        let shown: Vec<_> = found
            .iter()
            .map(|named| named.path.strip_prefix(root).unwrap())
            .collect();
        let expected = [
            "b.pcap", "a-x", "a.pcap", "a/B", "a/deep/z", "b.pcap", "loop", "none",
        ];
        assert_eq!(shown, expected.map(Path::new));
        let skipped: Vec<_> = found
            .iter()
            .filter_map(|named| named.skipped.as_deref())
            .collect();
        assert_eq!(skipped.len(), 2, "{skipped:?}");
        assert!(skipped[0].contains("not followed") && skipped[1].contains("cannot be read"));
        assert_eq!(found[0].bytes, 3);
    }
}
