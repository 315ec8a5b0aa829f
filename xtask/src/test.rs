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
    refuse_unknown(arguments)?;
    privilege::require_way_to_root("test", WHY_ROOT)?;
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
    build::next()?;
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

/// What nextest will not take is better said before the build than after it. Where it is not there yet, it says so
/// itself.
fn refuse_unknown(arguments: &[OsString]) -> Result<()> {
    let Some(nextest) = cargo_install::nextest() else {
        return Ok(());
    };
    let ours = arguments.iter().take_while(|argument| *argument != "--");
    // Help comes last: it is shown only where all before it was understood.
    let parsed = Command::new(nextest)
        .args(["nextest", "run"])
        .args(ours)
        .arg("--help")
        .output()
        .context("cannot start cargo-nextest")?;
    let said = String::from_utf8_lossy(&parsed.stderr);
    ensure!(
        parsed.status.success(),
        "cargo-nextest does not take these arguments:\n{}",
        said.trim_end()
    );
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_nextest_does_not_take_are_refused_before_a_build() {
        let refused = |arguments: &[&str]| {
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            refuse_unknown(&arguments).map_err(|error| error.to_string())
        };
        assert_eq!(
            refused(&["-E", "test(a)", "--no-capture", "name", "--", "--bar"]),
            Ok(())
        );
        // Without nextest nobody can tell.
        if cargo_install::nextest().is_some() {
            let said = refused(&["--bar"]).unwrap_err();
            assert!(said.contains("--bar"), "{said}");
        }
    }
}
