//! A file system of a few pages, to be filled up.

use std::fs;
use std::path::{Path, PathBuf};

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

    /// Takes all space but so much; gives the file that does.
    pub fn fill_but(&self, bytes: u64) -> PathBuf {
        let disk = statvfs(&self.0).expect("it is mounted");
        let free = disk.blocks_available() * disk.fragment_size();
        let path = self.0.join("filler");
        let file = fs::File::create(&path).expect("there is an inode");
        let length = i64::try_from(free.saturating_sub(bytes)).expect("it is small");
        fallocate(&file, FallocateFlags::empty(), 0, length).expect("there is space");
        path
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
