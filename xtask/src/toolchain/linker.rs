//! The linkers of the kernel program: one must have the compiler's own LLVM, since it reads what that LLVM wrote.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Compiler, ToolchainError, absolute_variable, stdout_of};

/// The one bpf-linker that was tried with the pinned aya.
pub(crate) const BPF_LINKER_VERSION: &str = "0.13.0";
/// The LLVM majors this bpf-linker can be built for: its features `llvm-<major>`.
pub(super) const LLVM_MAJORS: std::ops::RangeInclusive<u32> = 21..=23;

/// Our own folder for a linker of this LLVM; its program is at `bin/bpf-linker`.
pub(crate) fn linker_root(llvm_major: u32) -> Option<PathBuf> {
    Some(cache_dir()?.join(format!("bpf-linker-{BPF_LINKER_VERSION}-llvm-{llvm_major}")))
}

/// Where the set-up keeps what it builds for this user.
pub(crate) fn cache_dir() -> Option<PathBuf> {
    let base =
        absolute_variable("XDG_CACHE_HOME").or_else(|| Some(absolute_variable("HOME")?.join(".cache")));
    Some(base?.join("keyfence"))
}

/// Looks for a bpf-linker of the compiler's LLVM: our own first, then on PATH.
pub(crate) fn linker_for(compiler: &Compiler) -> Result<PathBuf, ToolchainError> {
    let major = compiler.llvm_major;
    if !LLVM_MAJORS.contains(&major) {
        return Err(ToolchainError::LlvmUnknown {
            compiler: Box::new(compiler.clone()),
        });
    }
    let mut looked_at = Vec::new();
    if let Some(root) = linker_root(major) {
        let own = root.join("bin/bpf-linker");
        match linker_version(&own) {
            Ok(version) if version == BPF_LINKER_VERSION => return Ok(own),
            Ok(version) => looked_at.push(format!("{}: is {version}", own.display())),
            Err(reason) => looked_at.push(format!("{}: {reason}", own.display())),
        }
    }
    let path = env::var_os("PATH").unwrap_or_default();
    for candidate in env::split_paths(&path)
        .map(|folder| folder.join("bpf-linker"))
        .filter(|file| file.is_file())
    {
        match foreign_linker(&candidate, major) {
            Ok(()) => return Ok(std::path::absolute(&candidate).unwrap_or(candidate)),
            Err(reason) => looked_at.push(format!("{}: {reason}", candidate.display())),
        }
    }
    Err(ToolchainError::NoLinker {
        compiler: Box::new(compiler.clone()),
        looked_at,
    })
}

/// Somebody else's linker is taken only where it shows its LLVM: a wrong one fails late and says little.
fn foreign_linker(linker: &Path, llvm_major: u32) -> Result<(), String> {
    let version = linker_version(linker)?;
    if version != BPF_LINKER_VERSION {
        return Err(format!("is {version}"));
    }
    let program = fs::read(linker).map_err(|error| error.to_string())?;
    match linked_llvm(&program) {
        Some(major) if major == llvm_major => Ok(()),
        Some(major) => Err(format!("is {version} with LLVM {major}")),
        None => Err(format!(
            "is {version}, but does not show which LLVM it is linked with"
        )),
    }
}

/// The LLVM major that a program names: the library it loads, or the producer that a static LLVM writes into bitcode.
fn linked_llvm(program: &[u8]) -> Option<u32> {
    ["libLLVM.so.", "libLLVM-", "LLVM"].iter().find_map(|mark| {
        let mark = mark.as_bytes();
        let mut starts = program
            .windows(mark.len())
            .enumerate()
            .filter(|(_, window)| *window == mark);
        starts.find_map(|(start, _)| {
            let rest = &program[start + mark.len()..];
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            // A version follows with a dot: `LLVM22.1.8`, `libLLVM.so.22.1`, `libLLVM-22.so`.
            let versioned = digits == 2 && rest.get(digits) == Some(&b'.');
            versioned.then(|| std::str::from_utf8(&rest[..digits]).ok()?.parse().ok())?
        })
    })
}

fn linker_version(linker: &Path) -> Result<String, String> {
    let text = stdout_of(Command::new(linker).arg("--version"))?;
    text.split_whitespace()
        .nth(1)
        .map(str::to_owned)
        .ok_or_else(|| "shows no version".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linker_shows_its_llvm_whether_it_loads_or_holds_it() {
        assert_eq!(
            linked_llvm(b"\0libc.so.6\0libLLVM.so.22.1\0LLVM_22.1\0"),
            Some(22)
        );
        assert_eq!(linked_llvm(b"\0libLLVM-21.so\0"), Some(21));
        assert_eq!(linked_llvm(b"\0LLVM issued\0LLVM23.1.0\0"), Some(23));
        assert_eq!(
            linked_llvm(b"\0LLVM issued a diagnostic; LLVM 22 builds\0LLVM"),
            None
        );
    }
}
