//! Where things are in this repository, and how the host's cargo is called for it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// The root of the repository: the folder above this crate.
pub(crate) fn root() -> PathBuf {
    // Cargo sets it for `cargo xtask`; the other is for this program started by itself.
    let manifest_dir = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let own = manifest_dir.filter(|dir| dir.join("src/toolchain/mod.rs").is_file());
    let own = own.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).to_owned());
    own.parent().map_or_else(|| ".".into(), Path::to_owned)
}

/// Cargo's folder for what it builds.
pub(crate) fn target_dir() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    root().join(target)
}

/// The one file that operators get.
pub(crate) fn keyfence() -> PathBuf {
    target_dir().join("release/keyfence")
}

/// The cargo that runs us, at the root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(cargo_path());
    command.current_dir(root());
    command
}

pub(crate) fn cargo_path() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

/// Says the step, runs it with our own output, and fails where it fails.
pub(crate) fn step(what: &str, command: &mut Command) -> Result<()> {
    eprintln!("==> {what}");
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    ensure!(status.success(), "{what} failed: {status}");
    Ok(())
}

/// The first of these folders on PATH, or of those for administrators, that holds the program.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // An ordinary user's PATH often lacks these, though `ip` and `bpftool` are there.
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(system)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}
