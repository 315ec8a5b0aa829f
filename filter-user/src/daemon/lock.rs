//! One daemon an instance: the lock in the state's folder. It goes with the process, however that ends.
//!
//! A start that fails takes away what it made for it: file and folders, unless somebody else has put something there.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::DaemonError;

/// How often the file may go, by a start that fails, between its opening here and its lock.
const TRIES_MAX: u32 = 16;

/// Held while a daemon runs; what it made goes with it until `keep` is called.
pub(super) struct Lock {
    _lock: Flock<File>,
    /// The file, then the folders, innermost first.
    made: Vec<PathBuf>,
}

impl Lock {
    pub(super) fn take(folder: &Path, instance: &str) -> Result<Self, DaemonError> {
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |error| DaemonError::State { path, error }
        };
        let path = folder.join(format!("{instance}.lock"));
        for _ in 0..TRIES_MAX {
            let absent = folder.ancestors().take_while(|folder| !folder.exists());
            let folders: Vec<PathBuf> = absent.map(Path::to_owned).collect();
            // Nobody else may reach the lock: who can hold it can keep the daemon from starting.
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(failed(folder))?;
            let (file, is_new) = open(&path).map_err(failed(&path))?;
            let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock);
            let lock = lock.map_err(|_| DaemonError::Running {
                instance: instance.to_owned(),
                path: path.display().to_string(),
            })?;
            // Whose start failed meanwhile has removed it: nobody else would find this one.
            if lock.metadata().map_err(failed(&path))?.nlink() == 0 {
                continue;
            }
            let made = is_new.then(|| path.clone()).into_iter();
            return Ok(Self {
                _lock: lock,
                made: made.chain(folders).collect(),
            });
        }
        Err(failed(&path)(io::ErrorKind::ResourceBusy.into()))
    }

    /// The daemon has started: what it made stays.
    pub(super) fn keep(&mut self) {
        self.made.clear();
    }
}

/// The file, and whether it was not there.
fn open(path: &Path) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    // A pipe in its place is refused, and not waited for.
    let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
    options.write(true).mode(0o600).custom_flags(flags);
    match options.clone().create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let file = options.create(true).truncate(false).open(path)?;
            Ok((file, false))
        }
        made => made.map(|file| (file, true)),
    }
}

impl Drop for Lock {
    /// Still locked: nobody else can have begun to rely on it.
    fn drop(&mut self) {
        for path in &self.made {
            let removed = if path.is_dir() {
                std::fs::remove_dir(path)
            } else {
                std::fs::remove_file(path)
            };
            // A folder that somebody else uses by now stays, and with it those around it.
            if removed.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_start_made_goes_and_what_was_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("lib/keyfence");
        drop(Lock::take(&state, "main").unwrap());
        assert!(!folder.path().join("lib").exists());

        // Another instance's file keeps the folder.
        let mut other = Lock::take(&state, "other").unwrap();
        other.keep();
        drop(Lock::take(&state, "main").unwrap());
        assert!(!state.join("main.lock").exists());
        drop(other);
        assert!(state.join("other.lock").exists());
        drop(Lock::take(&state, "other").unwrap());
        assert!(state.join("other.lock").exists());
    }

    #[test]
    fn second_of_an_instance_is_refused_and_takes_nothing_away() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::take(folder.path(), "main").unwrap();
        let second = Lock::take(folder.path(), "main");
        assert!(matches!(second.err(), Some(DaemonError::Running { .. })));
        assert!(folder.path().join("main.lock").exists());
        drop(first);
    }
}
