//! The compilers that can build core for the kernel's target: rustup's nightlies with `rust-src`, the system's own.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{ToolchainError, absolute_variable, clean_environment, stdout_of};

/// The workspace's `rust-version`, which filter-common is held to in the kernel as well.
pub(super) const RUST_OLDEST: (u32, u32) = (1, 95);
/// Names a rustc to use instead of looking for one, for whoever tries out another compiler.
pub(crate) const COMPILER_OVERRIDE: &str = "KEYFENCE_KERNEL_RUSTC";
/// Debian's own compiler: the packages rustc-web and rust-web-src.
const SYSTEM_RUSTC: &str = "/usr/bin/rustc";

/// A compiler that can build core for the kernel's target, and what it is.
#[derive(Debug, Clone)]
pub(crate) struct Compiler {
    pub(crate) rustc: PathBuf,
    /// The cargo that drives it: its own where it has one, else the one that runs us.
    pub(crate) cargo: PathBuf,
    pub(crate) sysroot: PathBuf,
    /// As `rustc -vV` gives it, such as `1.96.0`.
    pub(crate) release: String,
    /// As `rustc -vV` gives it, such as `22.1.8`.
    pub(crate) llvm: String,
    pub(crate) llvm_major: u32,
}

/// Every fitting compiler, best first: rustup's nightlies with `rust-src`, then the system's own. Never empty.
pub(crate) fn compilers() -> Result<Vec<Compiler>, ToolchainError> {
    let candidates = match env::var_os(COMPILER_OVERRIDE) {
        Some(rustc) => vec![PathBuf::from(rustc)],
        None => nightlies()
            .into_iter()
            .chain([PathBuf::from(SYSTEM_RUSTC)])
            .collect(),
    };
    let mut found = Vec::new();
    let mut looked_at = Vec::new();
    for rustc in candidates {
        match examine(&rustc) {
            Ok(compiler) => found.push(compiler),
            Err(reason) => looked_at.push(format!("{}: {reason}", rustc.display())),
        }
    }
    if found.is_empty() {
        Err(ToolchainError::NoCompiler { looked_at })
    } else {
        Ok(found)
    }
}

/// The rustc of each nightly of rustup: the plain `nightly` first, then by date, the latest first.
fn nightlies() -> Vec<PathBuf> {
    let home = absolute_variable("RUSTUP_HOME").or_else(|| Some(absolute_variable("HOME")?.join(".rustup")));
    let Some(entries) = home.and_then(|home| fs::read_dir(home.join("toolchains")).ok()) else {
        return Vec::new();
    };
    let mut folders: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    folders.retain(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("nightly"))
    });
    // `nightly-x86_64…` sorts after `nightly-2026-…`.
    folders.sort_unstable_by(|a, b| b.cmp(a));
    folders
        .into_iter()
        .map(|folder| folder.join("bin/rustc"))
        .collect()
}

/// Whether this rustc can build core for the kernel; the error says in half a line why it cannot.
fn examine(rustc: &Path) -> Result<Compiler, String> {
    if !rustc.exists() {
        return Err("is not there".to_owned());
    }
    let sysroot = PathBuf::from(stdout_of(rustc_command(rustc).args(["--print", "sysroot"]))?.trim());
    let (release, llvm) = versions(&stdout_of(rustc_command(rustc).arg("-vV"))?)?;
    let number = |text: &str, at: usize| text.split('.').nth(at).and_then(|part| part.parse::<u32>().ok());
    let (Some(major), Some(minor)) = (number(&release, 0), number(&release, 1)) else {
        return Err(format!("has the release {release:?}, which is no version"));
    };
    if (major, minor) < RUST_OLDEST {
        return Err(format!(
            "is {release}, older than {}.{}",
            RUST_OLDEST.0, RUST_OLDEST.1
        ));
    }
    let llvm_major =
        number(&llvm, 0).ok_or_else(|| format!("has the LLVM version {llvm:?}, which is no version"))?;
    if !sysroot
        .join("lib/rustlib/src/rust/library/core/src/lib.rs")
        .is_file()
    {
        return Err(format!(
            "is {release}, but without the source of core (rust-src, in Debian rust-web-src)"
        ));
    }
    let own_cargo = rustc.with_file_name("cargo");
    let rustup_cargo = rustc != Path::new(SYSTEM_RUSTC) && own_cargo.is_file();
    let cargo = if rustup_cargo {
        own_cargo
    } else {
        env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
    };
    Ok(Compiler {
        rustc: rustc.to_owned(),
        cargo,
        sysroot,
        release,
        llvm,
        llvm_major,
    })
}

/// A rustc that is asked about itself, without the variables meant for another.
fn rustc_command(rustc: &Path) -> Command {
    let mut command = Command::new(rustc);
    clean_environment(&mut command);
    command
}

/// The release and the LLVM version in the text of `rustc -vV`.
fn versions(text: &str) -> Result<(String, String), String> {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(|value| value.trim().to_owned())
    };
    match (field("release:"), field("LLVM version:")) {
        (Some(release), Some(llvm)) => Ok((release, llvm)),
        _ => Err("does not show its release and LLVM version".to_owned()),
    }
}

impl Compiler {
    /// Whether this is the distribution's own, whose LLVM is a library of the system.
    pub(crate) fn is_system(&self) -> bool {
        self.rustc == Path::new(SYSTEM_RUSTC)
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (rustc {}, LLVM {})",
            self.rustc.display(),
            self.release,
            self.llvm
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_and_llvm_are_read_from_what_rustc_says() {
        let text = "rustc 1.96.0 (ac68 2026-05-25)\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(versions(text), Ok(("1.96.0".to_owned(), "22.1.8".to_owned())));
        assert!(versions("release: 1.96.0\n").is_err());
    }
}
