//! Builds bpf-linker and cargo-nextest into this user's cache, with the host's cargo, where they are not to be had.
//! Takes no root, and leaves the user's own `~/.cargo/bin` alone.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    progress,
    toolchain::{self, BPF_LINKER_VERSION, Compiler},
    workspace,
};

/// The release the tests' configuration was written for.
const NEXTEST_VERSION: &str = "0.9.143";

/// Where cargo-nextest is: on PATH, else in our cache.
pub(crate) fn nextest() -> Option<PathBuf> {
    let own = nextest_root()
        .map(|root| root.join("bin/cargo-nextest"))
        .filter(|file| file.is_file());
    workspace::program("cargo-nextest").or(own)
}

pub(super) fn install_nextest() -> Result<()> {
    let root = nextest_root().context(NO_CACHE)?;
    let package = format!("cargo-nextest@{NEXTEST_VERSION}");
    let mut command = cargo_install(&root)?;
    // It only starts other programs: built quickly it serves as well as its own slow release profile.
    command
        .args([&package, "--locked"])
        // All but its own updates over the network.
        .args(["--no-default-features", "--features", "default-no-update"])
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    progress::run(
        &format!("Building {package} (five minutes or more)"),
        &mut command,
    )
}

/// Builds the linker of this compiler's LLVM into our cache, against the very library that the compiler loads.
pub(super) fn install_linker(compiler: &Compiler) -> Result<()> {
    let root = toolchain::linker_root(compiler.llvm_major).context(NO_CACHE)?;
    let library = llvm_library(compiler)
        .with_context(|| format!("{compiler} came without its libLLVM.so.{}", compiler.llvm_major))?;
    let mut command = cargo_install(&root)?;
    let prefix = llvm_prefix(&root, &library)?;
    command
        .arg(format!("bpf-linker@{BPF_LINKER_VERSION}"))
        .args(["--locked", "--force", "--no-default-features", "--features"])
        .arg(format!("llvm-{}", compiler.llvm_major))
        .env("LLVM_PREFIX", prefix);
    if let Some(folder) = library.parent().filter(|_| !compiler.is_system()) {
        // rustup's LLVM is not where the loader looks by itself.
        command.env(
            "CARGO_ENCODED_RUSTFLAGS",
            format!("-Clink-arg=-Wl,-rpath,{}", folder.display()),
        );
    }
    let heading = format!(
        "Building bpf-linker {BPF_LINKER_VERSION} with LLVM {} (a minute)",
        compiler.llvm
    );
    progress::run(&heading, &mut command)
}

const NO_CACHE: &str = "no folder to keep it in: set HOME or XDG_CACHE_HOME to an absolute path";

fn nextest_root() -> Option<PathBuf> {
    Some(toolchain::cache_dir()?.join(format!("cargo-nextest-{NEXTEST_VERSION}")))
}

/// `cargo install` with the cargo that runs us and the rustc beside it, into a folder of its own.
fn cargo_install(root: &Path) -> Result<Command> {
    fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
    let cargo = workspace::cargo_path();
    let mut command = Command::new(&cargo);
    toolchain::clean_environment(&mut command);
    let rustc = cargo.with_file_name("rustc");
    if rustc.is_absolute() && rustc.is_file() {
        command.env("RUSTC", rustc);
    }
    // Away from this repository's own configuration of cargo.
    command.current_dir(root).arg("install").arg("--root").arg(root);
    Ok(command)
}

/// A folder whose `lib/` has the one link that bpf-linker's build looks for; the packages for development of LLVM,
/// half a gigabyte, are not needed.
fn llvm_prefix(root: &Path, library: &Path) -> Result<PathBuf> {
    let prefix = root.join("llvm");
    let folder = prefix.join("lib");
    let link = folder.join("libLLVM.so");
    let context = || format!("cannot make {}", link.display());
    fs::create_dir_all(&folder).with_context(context)?;
    match fs::remove_file(&link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(context);
        }
        _ => symlink(library, &link).with_context(context)?,
    }
    Ok(prefix)
}

/// The LLVM that the compiler itself loads: in its own folder for rustup's, in the system's for Debian's.
fn llvm_library(compiler: &Compiler) -> Option<PathBuf> {
    let arch = env::consts::ARCH;
    let system = [
        format!("/usr/lib/{arch}-linux-gnu"),
        "/usr/lib64".to_owned(),
        "/usr/lib".to_owned(),
    ];
    let folders = [compiler.sysroot.join("lib")]
        .into_iter()
        .chain(system.into_iter().map(PathBuf::from));
    folders.into_iter().find_map(|folder| {
        let entries = fs::read_dir(&folder).ok()?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        // The longest matches best: `libLLVM.so.22.1-rust-1.97.0-nightly` beside a bare `libLLVM.so.22.1`.
        let fitting = names.filter(|name| is_llvm_library(name, compiler.llvm_major));
        Some(folder.join(fitting.max_by_key(String::len)?))
    })
}

fn is_llvm_library(name: &str, major: u32) -> bool {
    name.strip_prefix("libLLVM.so.")
        .and_then(|rest| rest.split('.').next())
        == Some(major.to_string().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_library_of_the_compilers_llvm_fits() {
        assert!(is_llvm_library("libLLVM.so.22.1", 22));
        assert!(is_llvm_library("libLLVM.so.22.1-rust-1.97.0-nightly", 22));
        assert!(!is_llvm_library("libLLVM.so.21.1", 22));
        assert!(!is_llvm_library("libLLVM-22-rust-1.97.0-nightly.so", 22));
    }

    #[test]
    fn the_link_for_the_build_is_made_anew_each_time() {
        let folder = tempfile::tempdir().unwrap();
        for target in ["/lib/libLLVM.so.22.0", "/lib/libLLVM.so.22.1"] {
            let prefix = llvm_prefix(folder.path(), Path::new(target)).unwrap();
            assert_eq!(
                fs::read_link(prefix.join("lib/libLLVM.so")).unwrap(),
                Path::new(target)
            );
        }
    }
}
