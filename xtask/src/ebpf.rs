//! `cargo xtask ebpf`: builds the kernel program alone, into the folder that filter-user's build uses as well.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::{
    toolchain::{self, Toolchain},
    workspace,
};

/// Builds, and answers where the object file is.
pub(crate) fn run(toolchain: &Toolchain) -> Result<PathBuf> {
    let root = workspace::root();
    let folder = root.join("filter-ebpf");
    let manifest = folder.join("Cargo.toml");
    ensure!(
        manifest.is_file(),
        "{} is not there: no kernel program to build",
        manifest.display()
    );
    let target = toolchain::ebpf_target_dir(&root);
    let what = format!("building the kernel program with {}", toolchain.compiler);
    workspace::step(&what, &mut toolchain::build_command(toolchain, &folder, &target))?;
    let object = toolchain::object_path(&target);
    ensure!(object.is_file(), "the build left no {}", object.display());
    Ok(object)
}
