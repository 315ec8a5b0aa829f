//! Space kept back: 64 MiB in a file of their own, given up when the disk is full, so that deletes and renewals still
//! succeed.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};

/// Tests open many stores.
const RESERVE_BYTES: u64 = if cfg!(test) { 1 << 20 } else { 64 << 20 };

pub(crate) struct Reserve {
    path: PathBuf,
    held: bool,
}

impl Reserve {
    pub(crate) fn open(folder: &Path) -> Reserve {
        let mut reserve = Reserve {
            path: folder.join("reserve"),
            held: false,
        };
        reserve.hold();
        reserve
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    /// Takes the space, if there is twice as much.
    pub(crate) fn hold(&mut self) {
        if self.held {
            return;
        }
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.path);
        let Ok(file) = file else { return };
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let free = nix::sys::statvfs::statvfs(folder).map_or(0, |space| {
            space.blocks_available().saturating_mul(space.fragment_size())
        });
        if length < RESERVE_BYTES && free < 2 * RESERVE_BYTES {
            return;
        }
        let bytes = RESERVE_BYTES.cast_signed();
        self.held = match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
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
        let freed = OpenOptions::new()
            .write(true)
            .open(&self.path)
            .and_then(|file| file.set_len(0));
        std::mem::replace(&mut self.held, false) && freed.is_ok()
    }
}
