//! Finds what compiles the kernel program: a rustc that has the source of core, and a bpf-linker of the same LLVM;
//! then shapes the inner cargo that builds it. Looks and never installs: that is `setup`.
//! filter-user/build.rs includes this same module, so it uses std alone and no other module of xtask.

mod compiler;
mod inner_cargo;
mod linker;

use std::{
    env, fmt,
    path::PathBuf,
    process::{Command, Output},
};

pub(crate) use compiler::{COMPILER_OVERRIDE, Compiler, compilers};
pub(crate) use inner_cargo::{build_command, clean_environment, ebpf_target_dir, object_path};
pub(crate) use linker::{BPF_LINKER_VERSION, cache_dir, linker_for, linker_root};

use compiler::RUST_OLDEST;
use linker::LLVM_MAJORS;

/// A compiler and a linker that fit each other, for the processor that the program is for.
#[derive(Debug, Clone)]
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    /// Absolute: the inner cargo runs in another folder.
    pub(crate) linker: PathBuf,
    /// `bpf_target_arch`, which decides the layout of `pt_regs` and its like.
    pub(crate) arch: &'static str,
}

/// Why the kernel program cannot be built here. Each text says what was found, and what to do.
#[derive(Debug)]
pub(crate) enum ToolchainError {
    /// No rustc at all that fits; one line for each that was looked at.
    NoCompiler {
        looked_at: Vec<String>,
    },
    /// A compiler whose LLVM this bpf-linker does not know.
    LlvmUnknown {
        compiler: Box<Compiler>,
    },
    /// A compiler, but no linker of its LLVM; one line for each linker that was looked at.
    NoLinker {
        compiler: Box<Compiler>,
        looked_at: Vec<String>,
    },
    Arch {
        arch: String,
    },
}

/// The compiler and the linker to use: the first compiler in order for which a fitting linker exists.
pub(crate) fn find() -> Result<Toolchain, ToolchainError> {
    let arch = target_arch()?;
    let mut first_error = None;
    for compiler in compilers()? {
        match linker_for(&compiler) {
            Ok(linker) => {
                return Ok(Toolchain {
                    compiler,
                    linker,
                    arch,
                });
            }
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or(ToolchainError::NoCompiler {
        looked_at: Vec::new(),
    }))
}

/// For a build script the processor that the outer build is for; elsewhere this machine's.
fn target_arch() -> Result<&'static str, ToolchainError> {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_else(|_| env::consts::ARCH.to_owned());
    match arch.as_str() {
        "x86_64" => Ok("x86_64"),
        "aarch64" => Ok("aarch64"),
        _ => Err(ToolchainError::Arch { arch }),
    }
}

fn stdout_of(command: &mut Command) -> Result<String, String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "is not there".to_owned(),
        _ => error.to_string(),
    })?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let first = String::from_utf8_lossy(&stderr)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    Err(format!("does not run ({status}): {first}"))
}

/// The XDG rules, and good sense, ask to ignore a relative path here.
fn absolute_variable(name: &str) -> Option<PathBuf> {
    env::var_os(name)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
}

impl fmt::Display for ToolchainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, lines: &[String]| {
            lines
                .iter()
                .try_for_each(|line| write!(f, "\n  looked at {line}"))
        };
        match self {
            Self::NoCompiler { looked_at } => {
                write!(
                    f,
                    "no compiler for the kernel program: it takes a rustc {}.{} or later that has the source of core; \
                     run `cargo xtask setup`",
                    RUST_OLDEST.0, RUST_OLDEST.1
                )?;
                list(f, looked_at)
            }
            Self::LlvmUnknown { compiler } => write!(
                f,
                "{compiler} does not fit bpf-linker {BPF_LINKER_VERSION}, which knows LLVM {} to {}; \
                 set {COMPILER_OVERRIDE} to a rustc with one of these",
                LLVM_MAJORS.start(),
                LLVM_MAJORS.end()
            ),
            Self::NoLinker { compiler, looked_at } => {
                write!(
                    f,
                    "no bpf-linker {BPF_LINKER_VERSION} with LLVM {} to go with {compiler}; run `cargo xtask setup`",
                    compiler.llvm_major
                )?;
                list(f, looked_at)
            }
            Self::Arch { arch } => {
                write!(
                    f,
                    "the kernel program is built for x86_64 and aarch64, not for {arch}; build on one of these"
                )
            }
        }
    }
}

impl std::error::Error for ToolchainError {}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn toolchain() -> Toolchain {
        let compiler = Compiler {
            rustc: "/usr/bin/rustc".into(),
            cargo: "cargo".into(),
            sysroot: "/usr".into(),
            release: "1.96.0".into(),
            llvm: "22.1.8".into(),
            llvm_major: 22,
        };
        Toolchain {
            compiler,
            linker: "/cache/my folder/bpf-linker".into(),
            arch: "x86_64",
        }
    }

    #[test]
    fn versions_that_do_not_fit_are_both_named() {
        let compiler = Box::new(toolchain().compiler);
        let looked_at = vec!["/usr/local/bin/bpf-linker: is 0.13.0 with LLVM 23".to_owned()];
        let text = ToolchainError::NoLinker { compiler, looked_at }.to_string();
        for part in ["LLVM 22", "with LLVM 23", "rustc 1.96.0", "cargo xtask setup"] {
            assert!(text.contains(part), "{part:?} is missing in: {text}");
        }
    }
}
