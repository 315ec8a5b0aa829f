//! What the lab stands on: its folder, which is also the lock that lets one lab run at a time, and a BPF file system.
//! Owns the clearing up: of this lab at its end, however it ends, and of an earlier one that was killed. Touches only
//! what bears the lab's name.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::{FsType, statfs},
};

use super::{
    names::{self, FOLDER, INSTANCE},
    network, process,
};

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS: FsType = FsType(0xcafe_4a11);
/// Where systemd mounts one; a bare machine has none.
const BPF_FS_OF_HOST: &str = "/sys/fs/bpf";
/// Where a lab that ends may take its folder away between our look and our lock.
const LOCK_TRIES_MAX: u32 = 10;

/// The ground of the one lab that runs. Dropped, it is cleared.
pub(super) struct Ground {
    bpf_fs: PathBuf,
    cleared: bool,
    _lock: Flock<File>,
}

impl Ground {
    /// Takes the lock, clears up after a lab that was killed, and makes the folder ready.
    pub(super) fn take() -> Result<Self> {
        let lock = lock()?;
        let removed = clear()?;
        if !removed.is_empty() {
            eprintln!(
                "An earlier lab was killed; removed what it left: {}.",
                removed.join(", ")
            );
        }
        let mut ground = Self {
            bpf_fs: PathBuf::from(BPF_FS_OF_HOST),
            cleared: false,
            _lock: lock,
        };
        write(&names::file("pid"), &format!("{}\n", std::process::id()))?;
        if !statfs(BPF_FS_OF_HOST).is_ok_and(|found| found.filesystem_type() == BPF_FS) {
            ground.bpf_fs = own_bpf_fs();
            mount_bpf_fs(&ground.bpf_fs)?;
        }
        Ok(ground)
    }

    pub(super) fn bpf_fs(&self) -> &Path {
        &self.bpf_fs
    }

    /// Removes everything of this lab.
    pub(super) fn leave(mut self) -> Result<()> {
        self.cleared = true;
        leave()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if !self.cleared
            && let Err(error) = leave()
        {
            eprintln!("error: {error:#}");
        }
    }
}

fn leave() -> Result<()> {
    clear()?;
    match fs::remove_dir(FOLDER) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context(FOLDER),
        _ => Ok(()),
    }
}

/// What of a lab is on this machine, its folder aside.
pub(super) fn left_over() -> Vec<String> {
    let namespaces = network::present()
        .into_iter()
        .map(|name| format!("namespace {name}"));
    let pins = pins().into_iter().filter(|pins| pins.exists());
    let pins = pins.map(|pins| format!("pins {}", pins.display()));
    let mounts = is_mounted(&own_bpf_fs()).then(|| format!("mount {}", own_bpf_fs().display()));
    let daemons = daemons().into_iter().map(|daemon| format!("daemon {daemon}"));
    namespaces.chain(daemons).chain(pins).chain(mounts).collect()
}

/// Removes all that any lab left, and says what that was. The folder itself stays: it is the lock.
fn clear() -> Result<Vec<String>> {
    let mut removed = Vec::new();
    let daemons = daemons();
    if !daemons.is_empty() {
        process::end(&daemons);
        removed.push(format!("{} daemon", daemons.len()));
    }
    for namespace in network::present() {
        removed.push(match network::remove(&namespace)? {
            0 => format!("namespace {namespace}"),
            inside => format!("namespace {namespace} with {inside} processes"),
        });
    }
    for pins in pins() {
        if pins.exists() {
            // The links first: no interface is left with half a filter.
            for folder in [pins.join("links"), pins.clone()] {
                remove_all(&folder)?;
            }
            removed.push(format!("pins {}", pins.display()));
            // The folder of all instances: only the last takes it away.
            _ = pins.parent().map(fs::remove_dir);
        }
    }
    let bpf_fs = own_bpf_fs();
    if is_mounted(&bpf_fs) {
        umount2(&bpf_fs, MntFlags::MNT_DETACH)
            .with_context(|| format!("cannot unmount {}", bpf_fs.display()))?;
        removed.push(format!("mount {}", bpf_fs.display()));
    }
    let entries = fs::read_dir(FOLDER).into_iter().flatten().flatten();
    let entries: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    for entry in &entries {
        remove_all(entry)?;
    }
    if !entries.is_empty() {
        removed.push(format!("files in {FOLDER}"));
    }
    Ok(removed)
}

fn remove_all(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Locks the folder itself, so that no lock file is left; waits for nobody.
fn lock() -> Result<Flock<File>> {
    for _ in 0..LOCK_TRIES_MAX {
        match fs::create_dir(FOLDER) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("cannot make {FOLDER}"));
            }
            _ => {}
        }
        let Ok(folder) = File::open(FOLDER) else {
            continue;
        };
        let lock = match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EAGAIN)) => {
                let holder = fs::read_to_string(names::file("pid")).unwrap_or_default();
                bail!(
                    "another lab runs (process {}), and there is one at a time: end that one first (Ctrl-C there)",
                    holder.trim()
                );
            }
            Err((_, error)) => return Err(error).context("cannot lock the lab's folder"),
        };
        if is_still_there(&lock)? {
            return Ok(lock);
        }
    }
    bail!("{FOLDER} is made and removed again and again by others; try later")
}

/// Whether the folder that was locked is not one that its lab has removed meanwhile.
fn is_still_there(lock: &File) -> io::Result<bool> {
    let locked = lock.metadata()?;
    let there = fs::metadata(FOLDER);
    Ok(there.is_ok_and(|there| (there.dev(), there.ino()) == (locked.dev(), locked.ino())))
}

fn own_bpf_fs() -> PathBuf {
    names::file("bpf")
}

/// Where the lab's daemon pins, in either file system.
fn pins() -> [PathBuf; 2] {
    [PathBuf::from(BPF_FS_OF_HOST), own_bpf_fs()].map(|bpf_fs| bpf_fs.join("keyfence").join(INSTANCE))
}

/// Daemons that run by the lab's policy, wherever.
fn daemons() -> Vec<u32> {
    let policy = names::policy();
    process::find(|folder| {
        let line = fs::read(folder.join("cmdline")).unwrap_or_default();
        is_daemon(&line, &policy)
    })
}

/// Whether this command line, as /proc has it, is `keyfence run` with this policy.
fn is_daemon(line: &[u8], policy: &Path) -> bool {
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let is_keyfence = words
        .first()
        .is_some_and(|program| program.ends_with(b"/keyfence"));
    is_keyfence
        && words.get(1) == Some(&&b"run"[..])
        && words.contains(&policy.as_os_str().as_encoded_bytes())
}

fn mount_bpf_fs(folder: &Path) -> Result<()> {
    fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let options: Option<&str> = Some("mode=0700");
    mount(
        Some("keyfence-lab"),
        folder,
        Some("bpf"),
        MsFlags::empty(),
        options,
    )
    .with_context(|| format!("cannot mount a BPF file system at {}", folder.display()))
}

fn is_mounted(folder: &Path) -> bool {
    mounts(
        &fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(),
        folder,
    )
}

/// Whether one of these lines of mountinfo is of this folder: the fifth word (proc(5)).
fn mounts(lines: &str, folder: &Path) -> bool {
    let places = lines.lines().filter_map(|line| line.split(' ').nth(4));
    places.into_iter().any(|place| Path::new(place) == folder)
}

pub(super) fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_labs_mount_is_told_from_others() {
        let lines = "22 1 0:20 / /sys rw shared:2 - sysfs sysfs rw\n\
                     40 22 0:35 / /run/keyfence-lab/bpf rw shared:9 - bpf keyfence-lab rw,mode=700\n";
        assert!(mounts(lines, Path::new("/run/keyfence-lab/bpf")));
        assert!(!mounts(lines, Path::new("/run/keyfence-lab")));
        assert!(!mounts(lines, Path::new("/sys/fs/bpf")));
    }

    #[test]
    fn only_a_daemon_with_the_labs_policy_is_the_labs() {
        let policy = Path::new("/run/keyfence-lab/keyfence.toml");
        let is = |line: &str| is_daemon(line.replace(' ', "\0").as_bytes(), policy);
        assert!(is("/a/keyfence run --policy /run/keyfence-lab/keyfence.toml"));
        assert!(!is("/a/keyfence run --policy /etc/keyfence/keyfence.toml"));
        assert!(!is("/a/keyfence check /run/keyfence-lab/keyfence.toml"));
        assert!(!is("vi run /run/keyfence-lab/keyfence.toml"));
    }
}
