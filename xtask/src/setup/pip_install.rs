//! Installs schemathesis into this user's cache, in a virtual environment of the system's Python: Debian has no package
//! of it. Takes no root, and leaves the user's own Python alone.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{progress, toolchain, workspace};

/// The release that the test was written for; the test asks for the same.
const VERSION: &str = "4.32.5";
pub(crate) const WHY: &str = "asks the API whatever its document allows, and what it does not";

fn root() -> Option<PathBuf> {
    Some(toolchain::cache_dir()?.join(format!("schemathesis-{VERSION}")))
}

/// Where it is, if it is.
pub(crate) fn schemathesis() -> Option<PathBuf> {
    let program = root()?.join("bin/schemathesis");
    program.is_file().then_some(program)
}

pub(super) fn install_schemathesis() -> Result<()> {
    let root = root().context("no folder to keep it in: set HOME or XDG_CACHE_HOME to an absolute path")?;
    let virtualenv = workspace::program("virtualenv").context("virtualenv is missing")?;
    let mut command = Command::new(virtualenv);
    command
        .args(["--quiet", "--python", "/usr/bin/python3"])
        .arg(&root);
    progress::run("Making a virtual environment of Python", &mut command)?;
    let mut command = Command::new(root.join("bin/pip"));
    command.args(["install", "--quiet", "--disable-pip-version-check"]);
    command.arg(format!("schemathesis=={VERSION}"));
    progress::run(&format!("Installing schemathesis {VERSION}"), &mut command)
}
