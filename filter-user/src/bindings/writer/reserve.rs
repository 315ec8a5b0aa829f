//! Space kept back: 64 MiB in a file of their own, given up when the disk is full, so that deletes and renewals still
//! succeed. Of a disk that is small as a whole, half.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};

use super::core::Core;
use crate::bindings::shared::SPACE_ALARM;

/// Tests open many stores.
const RESERVE_BYTES: u64 = if cfg!(test) { 1 << 20 } else { 64 << 20 };

/// What must be left beside it: a disk that is full again at once is not worth it.
const BESIDE: u64 = RESERVE_BYTES / 16;

pub(crate) struct Reserve {
    path: PathBuf,
    held: bool,
}

/// Gives the space up for a start on a full disk; false where none was kept back.
pub(crate) fn give_up(folder: &Path) -> bool {
    let file = writing().open(path_in(folder));
    let held = |file: &File| file.metadata().is_ok_and(|metadata| metadata.len() > 0);
    file.is_ok_and(|file| held(&file) && file.set_len(0).is_ok())
}

/// A pipe in its place is refused, and not waited for.
fn writing() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits());
    options
}

fn path_in(folder: &Path) -> PathBuf {
    folder.join("reserve")
}

impl Reserve {
    pub(crate) fn open(folder: &Path) -> Reserve {
        let mut reserve = Reserve {
            path: path_in(folder),
            held: false,
        };
        reserve.hold();
        reserve
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    /// Takes the space, if that leaves some.
    pub(crate) fn hold(&mut self) {
        if self.held {
            return;
        }
        let file = writing()
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.path);
        let Ok(file) = file else { return };
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let Ok(disk) = nix::sys::statvfs::statvfs(folder) else {
            return;
        };
        let in_bytes = |blocks: u64| blocks.saturating_mul(disk.fragment_size());
        let bytes = size_of_reserve(in_bytes(disk.blocks()));
        if length < bytes && in_bytes(disk.blocks_available()) < bytes - length + BESIDE {
            return;
        }
        self.held = match fallocate(&file, FallocateFlags::empty(), 0, bytes.cast_signed()) {
            Ok(()) => true,
            // A file system without this (NFS, say) keeps nothing back.
            Err(nix::errno::Errno::EOPNOTSUPP) => true,
            Err(_) => {
                let _ = file.set_len(0);
                false
            }
        };
    }

    /// Gives the space up; false where it had been already.
    pub(crate) fn release(&mut self) -> bool {
        let freed = writing().open(&self.path).and_then(|file| file.set_len(0));
        std::mem::replace(&mut self.held, false) && freed.is_ok()
    }
}

impl Core {
    /// What would be refused is told before anybody asks.
    pub(super) fn tell_space(&self) {
        let text = || {
            let folder = self.shared.folder.display();
            format!(
                "{folder} has too little space for what is kept back: new and changed bindings are refused \
                 (store-full); free some, or name another folder with [daemon] state"
            )
        };
        let lacks = !self.reserve.is_held();
        self.shared.set_alarm(SPACE_ALARM, lacks.then(text));
    }
}

/// Of a disk of so many bytes.
fn size_of_reserve(disk: u64) -> u64 {
    RESERVE_BYTES.min(disk / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_disk_keeps_half_of_it_back() {
        assert_eq!(size_of_reserve(100 * RESERVE_BYTES), RESERVE_BYTES);
        assert_eq!(size_of_reserve(RESERVE_BYTES), RESERVE_BYTES / 2);
    }

    #[test]
    fn space_is_held_once_and_given_up_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::open(folder.path());
        let bytes = || std::fs::metadata(folder.path().join("reserve")).unwrap().len();
        assert!(reserve.is_held());
        assert_eq!(bytes(), RESERVE_BYTES);
        assert!(reserve.release() && !reserve.release());
        assert_eq!(bytes(), 0);
        reserve.hold();
        assert!(reserve.is_held());
    }
}
