//! `cargo xtask vm`: Debian's 6.1 and 6.12 kernels under qemu, in software alone, with a static keyfence as operators
//! would have it. Each replays every vector, filters live traffic, and upgrades to the build of another layout and back;
//! what differs from the contract is a failure.
//!
//! `kernels` gets them, `image` packs what they boot, `machine` runs them, `answers` reads what they printed.

mod answers;
mod image;
pub(crate) mod kernels;
mod machine;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    setup::{self, Need},
    workspace,
};
use answers::Answers;
use kernels::Kernel;
use machine::Machine;

/// The target is named, so that build scripts and macros are not linked statically with the program.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROFILE: &str = "static";
/// A build for release refuses the feature: one for debugging is told by its assertions.
const NEXT: [&str; 6] = [
    "--bin",
    "keyfence-next",
    "--features",
    "next-layout",
    "--config",
    "profile.static.package.filter-user.debug-assertions=true",
];
/// The tests' program that writes the vectors as captures and holds answers to them; the tests name the one they were
/// built with.
const CAPTURES_PROGRAM: &str = "KEYFENCE_VECTOR_CAPTURES";

/// All kernels, or those of these series.
pub(crate) fn run(series: &[String]) -> Result<()> {
    setup::ensure(Need::Vm)?;
    let programs = prepare()?;
    let kernels = chosen(series)?;
    let captures = captures_program()?;
    let folder = workspace::target_dir().join("vm");
    let vectors = folder.join("vectors");
    if vectors.exists() {
        fs::remove_dir_all(&vectors).with_context(|| format!("cannot empty {}", vectors.display()))?;
    }
    succeed(Command::new(&captures).arg("write").arg(&vectors))?;
    let mut machines = Vec::new();
    for kernel in kernels {
        machines.push(Machine::new(&folder, kernel, &programs, &vectors)?);
    }
    machine::run(&mut machines)?;
    let mut failed = Vec::new();
    for machine in &machines {
        let release = &machine.kernel.release;
        match report(machine, &captures) {
            Ok(line) => println!("linux {release}: {line}"),
            Err(error) => {
                println!("linux {release}: FAILED");
                failed.push(format!("linux {release}: {error:#}"));
            }
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

/// What a machine runs, without shared libraries.
pub(crate) struct Programs {
    pub(crate) keyfence: PathBuf,
    /// With the made-up layout after this one.
    pub(crate) next: PathBuf,
}

/// Builds both, which takes minutes the first time, and answers where they are.
pub(crate) fn prepare() -> Result<Programs> {
    Ok(Programs {
        keyfence: program(PROFILE, &["--bin", "keyfence"])?,
        next: program(PROFILE, &NEXT)?,
    })
}

/// The static keyfence of a profile.
pub(crate) fn built(profile: &str) -> Result<PathBuf> {
    program(profile, &["--bin", "keyfence"])
}

fn program(profile: &str, which: &[&str]) -> Result<PathBuf> {
    let target = workspace::target_dir().join("static");
    let mut build = workspace::cargo();
    build
        .args(["build", "--package", "filter-user"])
        .args(which)
        .args(["--profile", profile, "--target", TARGET, "--target-dir"])
        .arg(&target)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    let name = which[1];
    workspace::step(&format!("building {name} without shared libraries"), &mut build)?;
    Ok(target.join(TARGET).join(profile).join(name))
}

fn chosen(series: &[String]) -> Result<Vec<Kernel>> {
    let mut kernels = kernels::here();
    if let Some(unknown) = series.iter().find(|one| !kernels::SERIES.contains(&one.as_str())) {
        bail!("no kernel {unknown}; there are {}", kernels::SERIES.join(" and "));
    }
    kernels.retain(|kernel| series.is_empty() || series.iter().any(|one| one == kernel.series));
    Ok(kernels)
}

fn captures_program() -> Result<PathBuf> {
    if let Some(program) = env::var_os(CAPTURES_PROGRAM) {
        return Ok(program.into());
    }
    let mut build = workspace::cargo();
    // Of the whole workspace, so that the features of what it needs are those of the tests' build.
    build.args(["build", "--workspace", "--bin", "vector-captures"]);
    workspace::step("building what writes the vectors as captures", &mut build)?;
    Ok(workspace::target_dir().join("debug/vector-captures"))
}

/// The line of a kernel that agrees in all; the error names all that does not.
fn report(machine: &Machine, captures: &Path) -> Result<String> {
    let text = machine.answers()?;
    let answers = Answers::read(&text);
    let mut faults = machine.faults();
    faults.extend(answers.faults());
    for (group, lines) in &answers.groups {
        let path = machine.folder.join(format!("{group}.jsonl"));
        fs::write(&path, lines).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let compared = Command::new(captures)
        .arg("compare")
        .arg(&machine.folder)
        .output();
    let compared = compared.with_context(|| format!("cannot start {}", captures.display()))?;
    let vectors = String::from_utf8_lossy(&compared.stdout).trim().to_owned();
    if !compared.status.success() {
        faults.push(format!(
            "{vectors}\n{}",
            String::from_utf8_lossy(&compared.stderr).trim()
        ));
    }
    if faults.is_empty() {
        return Ok(format!("{vectors}; {answers}; {:.0} s", machine.seconds()));
    }
    if !answers.ended() {
        faults.push(format!("its console ended with\n{}", machine.console_tail()));
    }
    bail!("{}", faults.join("\n"))
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status();
    let status = status.with_context(|| format!("cannot start {}", command.get_program().display()))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
