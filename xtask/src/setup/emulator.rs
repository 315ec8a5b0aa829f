//! The qemu that boots other kernels: the system's own, or Debian's unpacked into the cache with what it links to where
//! apt would have to remove a package for it (a newer `qemu-utils`, as backports have it, shuts Debian 12's qemu out).

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};

use super::apt;
use crate::{progress, toolchain, workspace};

pub(super) const PROGRAM: &str = "qemu-system-x86_64";
pub(super) const PACKAGE: &str = "qemu-system-x86";

/// Where Debian puts libraries, below the root it is unpacked to.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Ready for its arguments, if it is here.
pub(crate) fn command() -> Option<Command> {
    if let Some(program) = workspace::program(PROGRAM) {
        return Some(Command::new(program));
    }
    let root = unpacked().filter(|root| root.is_dir())?;
    let mut command = Command::new(root.join("usr/bin").join(PROGRAM));
    command
        .env("LD_LIBRARY_PATH", root.join(LIBRARIES))
        .env("QEMU_MODULE_DIR", root.join(LIBRARIES).join("qemu"))
        .arg("-L")
        .arg(root.join("usr/share/qemu"))
        .arg("-L")
        .arg(root.join("usr/share/seabios"));
    Some(command)
}

/// Where it is, if it is here.
pub(super) fn place() -> Option<PathBuf> {
    Some(PathBuf::from(command()?.get_program()))
}

fn unpacked() -> Option<PathBuf> {
    Some(toolchain::cache_dir()?.join("qemu"))
}

/// Takes Debian's packages of it into the cache, and installs none.
pub(super) fn unpack() -> Result<()> {
    let root =
        unpacked().context("no folder to keep it in: set HOME or XDG_CACHE_HOME to an absolute path")?;
    let part = root.with_extension("part");
    // Of a run that was stopped.
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    let (archives, whole) = (part.join("archives"), part.join("root"));
    // apt asks for the second folder too.
    fs::create_dir_all(archives.join("partial"))
        .and_then(|()| fs::create_dir_all(&whole))
        .with_context(|| format!("cannot make {}", part.display()))?;
    apt::download(PACKAGE, &archives)?;
    let mut command = Command::new("sh");
    command
        .args([
            "-ec",
            r#"for package in "$0"/*.deb; do dpkg -x "$package" "$1"; done"#,
        ])
        .args([&archives, &whole]);
    progress::run("Unpacking qemu", &mut command)?;
    ensure!(
        whole.join("usr/bin").join(PROGRAM).is_file(),
        "Debian's package {PACKAGE} has no {PROGRAM}"
    );
    fs::rename(&whole, &root).with_context(|| format!("cannot move to {}", root.display()))?;
    fs::remove_dir_all(&part)?;
    Ok(())
}
