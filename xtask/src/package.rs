//! `cargo xtask package`: what operators install, a Debian package and a tarball with a static program.
//!
//! Both are of one tree, laid out by `config/package/stage`, which the tests of an installation use as well.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    build, progress,
    setup::{self, Need},
    vm, workspace,
};

/// Builds both, and prints where they are.
pub(crate) fn run() -> Result<()> {
    setup::ensure(Need::Build)?;
    let folder = workspace::target_dir().join("package");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let program = build::run()?;
    println!("{}", made(&folder, "deb", &program)?.display());
    let program = vm::built("release")?;
    println!("{}", made(&folder, "tar", &program)?.display());
    Ok(())
}

/// One kind of package of one program.
fn made(folder: &Path, kind: &str, program: &Path) -> Result<PathBuf> {
    let tree = folder.join(kind);
    if tree.exists() {
        fs::remove_dir_all(&tree).with_context(|| format!("cannot empty {}", tree.display()))?;
    }
    let scripts = workspace::root().join("config/package");
    let mut stage = Command::new(scripts.join("stage"));
    progress::run("Laying out the files", stage.arg(program).arg(&tree))?;
    let output = Command::new(scripts.join("build"))
        .args([kind, &tree.to_string_lossy(), env!("CARGO_PKG_VERSION")])
        .arg(folder)
        .output()
        .context("cannot start config/package/build")?;
    anyhow::ensure!(
        output.status.success(),
        "config/package/build failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().into())
}
