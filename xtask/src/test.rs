//! `cargo xtask test`: all tests, unit to live, after the checks that cost less. Ends as cargo-nextest, so that its
//! summary is the last thing printed and its exit code is ours.

use std::{env, ffi::OsString, fs, os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{
    build, privilege,
    setup::{self, Need, cargo_install},
    tidy, vm, workspace,
};

const WHY_ROOT: &str = "the live tests make network namespaces and interfaces, mount a BPF file system, and load programs into the kernel";
/// The profile that tests are compiled with; the program under test is the release build.
const CARGO_PROFILE: &str = "dev";
/// Recorded traffic for the tests that judge it; beside the clone, not in it.
const CAPTURES: &str = "../shared/captures";

/// `fast` leaves out the checks of form; the arguments go on to nextest.
pub(crate) fn run(fast: bool, arguments: &[OsString]) -> Result<()> {
    setup::ensure(Need::Test)?;
    privilege::require_root("test", WHY_ROOT)?;
    if !fast {
        check_format()?;
    }
    let keyfence = build::run()?;
    if !fast {
        check_form()?;
    }
    // A first build takes longer than a test may.
    vm::prepare()?;
    let nextest = cargo_install::nextest().context("cargo-nextest went away")?;
    let mut command = Command::new(nextest);
    command
        .current_dir(workspace::root())
        .args(["nextest", "run", "--workspace", "--cargo-profile", CARGO_PROFILE])
        .args(arguments)
        .env("CARGO", workspace::cargo_path())
        .env("KEYFENCE_BIN", keyfence);
    if let (None, Ok(captures)) = (
        env::var_os("KEYFENCE_CAPTURES"),
        fs::canonicalize(workspace::root().join(CAPTURES)),
    ) {
        command.env("KEYFENCE_CAPTURES", captures);
    }
    eprintln!("==> testing");
    Err(command.exec()).context("cannot start cargo-nextest")
}

/// First of all, since it takes a second.
fn check_format() -> Result<()> {
    require_component("cargo-fmt", "rustfmt")?;
    workspace::step(
        "checking the format",
        workspace::cargo().args(["fmt", "--all", "--check"]),
    )?;
    for (what, manifest) in [
        ("the kernel program", "filter-ebpf/Cargo.toml"),
        ("the fuzz targets", "tests/fuzz/Cargo.toml"),
    ] {
        let mut command = workspace::cargo();
        command
            .args(["fmt", "--check", "--manifest-path"])
            .arg(workspace::root().join(manifest));
        workspace::step(&format!("checking the format of {what}"), &mut command)?;
    }
    Ok(())
}

fn check_form() -> Result<()> {
    require_component("cargo-clippy", "clippy")?;
    eprintln!("==> tidy");
    tidy::run()?;
    let mut clippy = workspace::cargo();
    clippy.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    workspace::step("clippy", &mut clippy)
}

/// These belong to the Rust toolchain that the machine has, and to no package.
fn require_component(program: &str, component: &str) -> Result<()> {
    let beside = workspace::cargo_path().with_file_name(program).is_file();
    ensure!(
        beside || workspace::program(program).is_some(),
        "{program} is missing; run `rustup component add {component}`, or leave the checks of form out by `--fast`"
    );
    Ok(())
}
