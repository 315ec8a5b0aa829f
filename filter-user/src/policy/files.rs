//! Where policy files are read: the disk, or a set of files in memory (a policy sent over the API).
//!
//! The only file IO of this module is `DiskFiles` and `open_regular`; everything else works on what these return.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use crate::policy::bounds::FILE_BYTES_MAX;

/// `*` stays within a folder and does not match hidden files (what editors leave behind).
const GLOB_OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

pub trait Files {
    /// The bytes of a file. May stop once `FILE_BYTES_MAX` are exceeded: the caller refuses such a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Where a path of `folder` leads out of it, by a symbolic link at any of its parts; `None` where it does not, or
    /// is not there.
    fn outside(&self, folder: &Path, path: &Path) -> Option<PathBuf>;

    /// The files below `folder` that match `pattern`, as paths relative to `folder`, in any order.
    fn glob(&self, folder: &Path, pattern: &str) -> io::Result<Vec<PathBuf>>;
}

/// Files of this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskFiles;

impl Files for DiskFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        open_regular(path)?
            .take(FILE_BYTES_MAX as u64 + 1)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn outside(&self, folder: &Path, path: &Path) -> Option<PathBuf> {
        let here = Path::new(".");
        let folder = if folder.as_os_str().is_empty() {
            here
        } else {
            folder
        };
        let real = path.canonicalize().ok()?;
        (!real.starts_with(folder.canonicalize().ok()?)).then_some(real)
    }

    fn glob(&self, folder: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
        let folder_text = folder
            .to_str()
            .ok_or_else(|| invalid("the folder's name is not UTF-8"))?;
        let prefix = if folder_text.is_empty() {
            String::new()
        } else {
            format!("{folder_text}/")
        };
        let whole = format!("{}{pattern}", Pattern::escape(&prefix));
        let paths = glob::glob_with(&whole, GLOB_OPTIONS).map_err(|error| invalid(error.msg))?;
        paths
            .map(|path| {
                let path = path.map_err(io::Error::from)?;
                Ok(path.strip_prefix(folder).map(Path::to_owned).unwrap_or(path))
            })
            .collect()
    }
}

/// Opens a file that an operator named, to read it. Never a pipe or a device: nobody may be at a pipe's other end, and neither
/// need ever end.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    match path.metadata()?.is_file() {
        true => File::open(path),
        false => Err(invalid("not a regular file")),
    }
}

/// The whole of such a file.
pub(crate) fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Files given by name: the root and what it includes, with paths relative to the root's folder.
#[derive(Clone, Debug, Default)]
pub struct MemoryFiles {
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl MemoryFiles {
    pub fn new(files: impl IntoIterator<Item = (PathBuf, Vec<u8>)>) -> Self {
        MemoryFiles {
            files: files.into_iter().collect(),
        }
    }
}

impl Files for MemoryFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files
            .get(path)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn outside(&self, _: &Path, _: &Path) -> Option<PathBuf> {
        None
    }

    fn glob(&self, folder: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
        let pattern = Pattern::new(pattern).map_err(|error| invalid(error.msg))?;
        let below = self
            .files
            .keys()
            .filter_map(|path| path.strip_prefix(folder).ok());
        Ok(below
            .filter(|path| pattern.matches_path_with(path, GLOB_OPTIONS))
            .map(Path::to_owned)
            .collect())
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_and_memory_agree_on_what_a_pattern_matches() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["a.toml", "b.toml", ".hidden.toml", "c.txt", "clients.d/x.toml"];
        std::fs::create_dir(folder.path().join("clients.d")).unwrap();
        for name in names {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let memory = MemoryFiles::new(names.map(|name| (PathBuf::from(name), name.as_bytes().to_vec())));
        for (pattern, expected) in [
            ("*.toml", vec!["a.toml", "b.toml"]),
            ("clients.d/*.toml", vec!["clients.d/x.toml"]),
            ("[ab].toml", vec!["a.toml", "b.toml"]),
            ("none.d/*", vec![]),
        ] {
            let expected: Vec<PathBuf> = expected.into_iter().map(PathBuf::from).collect();
            assert_eq!(
                DiskFiles.glob(folder.path(), pattern).unwrap(),
                expected,
                "{pattern}"
            );
            assert_eq!(
                memory.glob(Path::new(""), pattern).unwrap(),
                expected,
                "{pattern}"
            );
        }
        assert!(memory.glob(Path::new(""), "[").is_err());
        assert!(DiskFiles.glob(folder.path(), "[").is_err());
    }

    #[test]
    fn pipe_without_a_writer_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [pipe.as_path(), Path::new("/dev/zero")] {
            let error = DiskFiles.read(path).unwrap_err();
            assert_eq!(error.to_string(), "not a regular file", "{}", path.display());
        }
    }

    #[test]
    fn a_folder_is_not_read_as_a_file() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            DiskFiles.read(folder.path()).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        std::fs::write(folder.path().join("a"), "text").unwrap();
        assert_eq!(DiskFiles.read(&folder.path().join("a")).unwrap(), b"text");
    }
}
