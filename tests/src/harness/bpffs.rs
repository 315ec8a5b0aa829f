//! A BPF file system of the test's own: this machine may have none, and none is shared.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::namespace::{PREFIX, is_stale, require_root};
use super::program::{run, system};

/// A mounted one; all that is pinned in it goes with it.
#[derive(Debug)]
pub struct BpfFs {
    path: PathBuf,
}

impl BpfFs {
    /// Mounts one in a folder that is made for it.
    pub fn mount(path: PathBuf) -> Self {
        require_root();
        fs::create_dir_all(&path).expect("a temporary folder can hold another");
        mount(Some("bpf"), &path, Some("bpf"), MsFlags::empty(), None::<&str>).unwrap_or_else(|error| {
            panic!("no BPF file system can be mounted at {}: {error}", path.display())
        });
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets nothing be pinned or removed (`ro`), or everything again (`rw`).
    pub fn remount(&self, how: &str) {
        let mut mount = Command::new("mount");
        run(mount.args(["-o", &format!("remount,{how}")]).arg(&self.path));
    }

    /// All paths in a folder of it, below it, sorted.
    pub fn list(&self, folder: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.path.join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path.clone());
                }
                found.push(path);
            }
        }
        found.sort();
        found
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        // A guard must not panic; what stays is cleared by the next run.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}

/// Unmounts what test processes that are gone left in temporary folders.
pub(super) fn clear_stale() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for line in mounts.lines().filter(|line| line.starts_with("bpf ")) {
        let path = Path::new(line.split(' ').nth(1).unwrap_or_default());
        let stale = path.iter().any(|part| is_stale(&part.to_string_lossy()));
        if stale {
            // Another test process may clear at the same time.
            let _ = umount2(path, MntFlags::MNT_DETACH);
            let folder = path.ancestors().find(|folder| {
                let name = folder.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with(PREFIX)
            });
            let _ = folder.map(fs::remove_dir_all);
        }
    }
}

/// The entries of a pinned map, as bpftool reads them.
pub(super) fn dump<T: DeserializeOwned>(map: &Path) -> T {
    let mut command = system("bpftool");
    command.args(["-j", "map", "dump", "pinned"]).arg(map);
    let text = run(&mut command);
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("bpftool's dump of {} is not understood: {error}", map.display()))
}

/// What bpftool tells of a pinned map, its id among it.
pub(super) fn show_map(path: &Path) -> Value {
    let mut command = system("bpftool");
    command.args(["-j", "map", "show", "pinned"]).arg(path);
    serde_json::from_str(&run(&mut command)).expect("bpftool writes JSON")
}
