//! Builds the kernel programs, the filter's and the capture's, and tells the crate where their object files are, so that
//! keyfence is one file. Never installs: what is missing is named, and `cargo xtask setup` brings it.
//! KEYFENCE_EBPF_OBJECT names the filter's object file that was built elsewhere, with the capture's beside it; then
//! nothing is built here.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

// The very module that the set-up uses, so that both find the same compiler. This build needs a part of it.
#[allow(dead_code, unused_imports, reason = "shared with xtask, which uses the rest")]
#[path = "../xtask/src/toolchain/mod.rs"]
mod toolchain;

const PREBUILT: &str = "KEYFENCE_EBPF_OBJECT";
/// The capture's object file, beside the filter's.
const CAPTURE: &str = "capture";
/// What the object files are made of.
const SOURCES: [&str; 6] = [
    "filter-ebpf/src",
    "filter-ebpf/Cargo.toml",
    "filter-ebpf/Cargo.lock",
    "filter-common/src",
    "filter-common/Cargo.toml",
    "xtask/src/toolchain",
];

fn main() -> ExitCode {
    match object() {
        Ok(object) => {
            let capture = object.with_file_name(CAPTURE);
            println!("cargo::rustc-env=KEYFENCE_EBPF={}", object.display());
            println!("cargo::rustc-env=KEYFENCE_EBPF_CAPTURE={}", capture.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            // Cargo takes one line a message.
            error
                .to_string()
                .lines()
                .for_each(|line| println!("cargo::error={line}"));
            ExitCode::FAILURE
        }
    }
}

/// The absolute path of the filter's object file, built if need be.
fn object() -> Result<PathBuf, Box<dyn Error>> {
    for variable in [
        PREBUILT,
        toolchain::COMPILER_OVERRIDE,
        "XDG_CACHE_HOME",
        "CARGO_TARGET_DIR",
    ] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    if let Some(prebuilt) = env::var_os(PREBUILT).map(PathBuf::from) {
        println!("cargo::rerun-if-changed={}", prebuilt.display());
        let found = fs::canonicalize(&prebuilt);
        return Ok(found.map_err(|error| format!("{PREBUILT}={}: {error}", prebuilt.display()))?);
    }
    let user = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo sets no CARGO_MANIFEST_DIR")?);
    let workspace = user.parent().ok_or("filter-user lies in no workspace")?;
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    build(workspace)
}

fn build(workspace: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let found = toolchain::find()?;
    // Debian and rustup move these on in place.
    println!("cargo::rerun-if-changed={}", found.compiler.rustc.display());
    println!("cargo::rerun-if-changed={}", found.linker.display());
    let mut target = toolchain::ebpf_target_dir(workspace);
    let is_next = env::var_os("CARGO_FEATURE_NEXT_LAYOUT").is_some();
    if is_next {
        // Beside the other, which stays built.
        target.push("next-layout");
    }
    let mut command = toolchain::build_command(&found, &workspace.join("filter-ebpf"), &target);
    if is_next {
        command.args(["--features", "next-layout"]);
    }
    let status = command.status()?;
    if !status.success() {
        return Err(format!(
            "the kernel program does not build with {}: {status}",
            found.compiler
        )
        .into());
    }
    // Copies, not watched: the object is younger than the start of this script, so cargo would take it for changed and
    // compile all of this crate a second time. Its sources are watched.
    let copy = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?).join("kernel-program");
    let built = toolchain::object_path(&target);
    fs::copy(&built, &copy)?;
    fs::copy(built.with_file_name(CAPTURE), copy.with_file_name(CAPTURE))?;
    Ok(copy)
}
