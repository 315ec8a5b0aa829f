//! `cargo xtask bench`: builds the benchmark, its kernel programs and the reference they are compared with, and runs it.
//! The measuring is the crate `bench`; here is only how it comes about.

#[path = "../../bench/src/selection.rs"]
mod selection;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::{
    build, privilege,
    setup::{self, Need},
    toolchain::{self, Toolchain},
    workspace,
};

const WHY_ROOT: &str = "the benchmark loads programs into the kernel, and makes network namespaces";
const PACKAGE: &str = "keyfence-bench";
/// The feature of the kernel program that no release is built with.
const REFERENCE: &str = "lpm-trie";
/// The benchmark's own kernel program.
const DRIVER: &str = "bench";

/// Measures what a packet, an entry and an update cost, beside what else there is. Needs root, and a quiet machine.
///
/// All sizes and parts take about two hours. Measures and tells, and judges nothing: no figure makes it fail.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask bench",
    bin_name = "cargo xtask bench",
    max_term_width = 100
)]
struct Arguments {
    #[command(flatten)]
    _selection: selection::Selection,
}

pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    // Faults and --help before anything is built.
    Arguments::parse_from([OsString::from("bench")].iter().chain(arguments));
    let toolchain = setup::ensure(Need::Bench)?;
    privilege::require_root("bench", WHY_ROOT)?;
    let (reference, driver) = kernel_programs(&toolchain)?;
    let keyfence = build::run()?;
    workspace::step(
        "building the benchmark",
        workspace::cargo().args(["build", "--release", "--package", PACKAGE]),
    )?;
    let program = workspace::target_dir().join("release").join(PACKAGE);
    let status = Command::new(&program)
        .arg("--driver")
        .arg(driver)
        .arg("--reference")
        .arg(reference)
        .args(arguments)
        .env("KEYFENCE_BIN", keyfence)
        .status()
        .with_context(|| format!("cannot start {}", program.display()))?;
    ensure!(status.success(), "the benchmark failed: {status}");
    Ok(())
}

/// The reference's object file and the driver's, in a folder of their own: what operators get is never built there.
fn kernel_programs(toolchain: &Toolchain) -> Result<(PathBuf, PathBuf)> {
    let target = workspace::target_dir().join("ebpf-bench");
    let mut command = toolchain::build_command(toolchain, &workspace::root().join("filter-ebpf"), &target);
    command.args(["--features", REFERENCE]);
    workspace::step("building the benchmark's kernel programs", &mut command)?;
    let reference = toolchain::object_path(&target);
    let driver = reference.with_file_name(DRIVER);
    for object in [&reference, &driver] {
        ensure!(Path::is_file(object), "the build left no {}", object.display());
    }
    Ok((reference, driver))
}
