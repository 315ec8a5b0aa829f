//! A file system of a few pages, to be filled up.

use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;

/// Goes with its value.
#[derive(Debug)]
pub struct Tiny(PathBuf);

impl Tiny {
    pub fn mount(path: PathBuf, size: &str) -> Self {
        fs::create_dir_all(&path).expect("a temporary folder can hold another");
        let options = format!("size={size}");
        mount(
            Some("tmpfs"),
            &path,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .unwrap_or_else(|error| panic!("{} cannot be mounted: {error}", path.display()));
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Takes all space but so much; gives the file that does. Who writes beside it may take some first.
    pub fn fill_but(&self, bytes: u64) -> PathBuf {
        let path = self.0.join("filler");
        let file = fs::File::create(&path).expect("there is an inode");
        let free = || {
            let disk = statvfs(&self.0).expect("it is mounted");
            disk.blocks_available() * disk.fragment_size()
        };
        let take = || {
            let length = i64::try_from(free().saturating_sub(bytes)).expect("it is small");
            match length {
                0 => Ok(()),
                length => fallocate(&file, FallocateFlags::empty(), 0, length),
            }
        };
        // A refused one leaves nothing behind.
        let taken = (0..100)
            .map(|_| take())
            .find(|taken| *taken != Err(Errno::ENOSPC));
        taken.expect("some time nobody writes").expect("a file can grow");
        path
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
