//! Builds the kernel program and hands its path to the crate, which takes it in.
//!
//! `KEYFENCE_EBPF_OBJECT` names a prebuilt object file instead, for whoever builds without its toolchain.

use std::path::{Path, PathBuf};
use std::{env, fs};

#[path = "../xtask/src/toolchain/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with xtask, which uses the rest")]
mod toolchain;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-env-changed=KEYFENCE_EBPF_OBJECT");
    if let Some(object) = env::var_os("KEYFENCE_EBPF_OBJECT").map(PathBuf::from) {
        let object = fs::canonicalize(&object).map_err(|error| format!("{}: {error}", object.display()))?;
        return embed(&object);
    }
    let user = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("not run by cargo")?);
    let workspace = user.parent().ok_or("no workspace around filter-user")?;
    for watched in [
        "filter-ebpf/src",
        "filter-ebpf/Cargo.toml",
        "filter-ebpf/Cargo.lock",
        "filter-common/src",
    ] {
        println!("cargo:rerun-if-changed={}", workspace.join(watched).display());
    }
    let target = toolchain::ebpf_target_dir(workspace);
    let found = toolchain::find()?;
    let status = toolchain::build_command(&found, &workspace.join("filter-ebpf"), &target).status()?;
    if !status.success() {
        return Err(format!("the kernel program does not build: {status}").into());
    }
    embed(&toolchain::object_path(&target))
}

fn embed(object: &Path) -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed={}", object.display());
    println!("cargo:rustc-env=KEYFENCE_EBPF={}", object.display());
    Ok(())
}
