//! The inner cargo that builds the kernel program: another compiler, target, lock file and folder than the outer one,
//! and so none of the outer one's environment.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use super::Toolchain;

const TARGET: &str = "bpfel-unknown-none";
/// The binary of filter-ebpf, which is the object file for the kernel.
const OBJECT: &str = "keyfence";

/// The inner cargo that builds the kernel program in `ebpf_dir` into `target_dir`; run it as it is.
pub(crate) fn build_command(toolchain: &Toolchain, ebpf_dir: &Path, target_dir: &Path) -> Command {
    let mut command = Command::new(&toolchain.compiler.cargo);
    clean_environment(&mut command);
    let mut linker = OsString::from("-Clinker=");
    linker.push(&toolchain.linker);
    let arch = format!("--cfg=bpf_target_arch=\"{}\"", toolchain.arch);
    let mut flags = OsString::from(arch);
    // Without the second link argument every memset is a call and a loop over bytes.
    for flag in [
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        "-Clink-arg=--disable-expand-memcpy-in-order",
        "-Ctarget-cpu=v3",
    ]
    .map(OsString::from)
    .into_iter()
    .chain([linker])
    {
        // Cargo's separator for flags, so that a space in the linker's path stays in it.
        flags.push("\x1f");
        flags.push(flag);
    }
    command
        .current_dir(ebpf_dir)
        .args([
            "build",
            "--release",
            "--locked",
            "-Z",
            "build-std=core",
            "--target",
            TARGET,
            "--target-dir",
        ])
        .arg(target_dir)
        .env("RUSTC", &toolchain.compiler.rustc)
        // Lets a stable compiler and a stable cargo build core.
        .env("RUSTC_BOOTSTRAP", "1")
        // Empty switches off a wrapper of the user's own configuration: it was made for the host's compiler.
        .env("RUSTC_WRAPPER", "")
        .env("RUSTC_WORKSPACE_WRAPPER", "")
        .env("CARGO_ENCODED_RUSTFLAGS", flags);
    command
}

/// Where `build_command` leaves the object file.
pub(crate) fn object_path(target_dir: &Path) -> PathBuf {
    target_dir.join(TARGET).join("release").join(OBJECT)
}

/// The one fixed folder for the kernel program's build, whoever asks for it, so that it is built once.
pub(crate) fn ebpf_target_dir(workspace: &Path) -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    workspace.join(target).join("ebpf")
}

/// Takes away what an outer cargo or rustup sets and what would misdirect an inner one. How to reach a registry stays.
pub(crate) fn clean_environment(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(misdirects) {
            command.env_remove(name);
        }
    }
}

fn misdirects(name: &str) -> bool {
    const KEPT: [&str; 4] = ["CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTRIES_", "CARGO_SOURCE_"];
    let cargo =
        name.starts_with("CARGO") && name != "CARGO_HOME" && !KEPT.iter().any(|kept| name.starts_with(kept));
    // What a build script is told about the outer build, which the inner one must find out for itself.
    let outer = matches!(
        name,
        "TARGET" | "HOST" | "OUT_DIR" | "RUSTFLAGS" | "RUSTDOCFLAGS" | "RUSTUP_TOOLCHAIN"
    );
    cargo || outer || name.starts_with("RUSTC")
}

#[cfg(test)]
mod tests {
    use super::{super::tests::toolchain, *};

    #[test]
    fn the_inner_cargo_keeps_how_to_reach_a_registry_and_nothing_else_of_the_outer() {
        for kept in [
            "PATH",
            "HOME",
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "CARGO_HTTP_PROXY",
            "RUSTUP_HOME",
        ] {
            assert!(!misdirects(kept), "{kept} must stay");
        }
        for taken in [
            "CARGO",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_TARGET",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTFLAGS",
        ] {
            assert!(misdirects(taken), "{taken} must go");
        }
    }

    #[test]
    fn a_space_in_the_path_of_the_linker_does_not_split_the_flag() {
        let command = build_command(&toolchain(), Path::new("/ebpf"), Path::new("/target/ebpf"));
        let flags = command
            .get_envs()
            .find(|(name, _)| *name == "CARGO_ENCODED_RUSTFLAGS");
        let flags = flags.and_then(|(_, value)| value?.to_str()).unwrap();
        assert!(
            flags
                .split('\x1f')
                .any(|flag| flag == "-Clinker=/cache/my folder/bpf-linker"),
            "{flags}"
        );
        assert!(
            flags
                .split('\x1f')
                .any(|flag| flag == "--cfg=bpf_target_arch=\"x86_64\""),
            "{flags}"
        );
    }
}
