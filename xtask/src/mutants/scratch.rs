//! A copy of what the mutants need, below target/mutants: the decision, the crate that runs the cases, and a
//! workspace for the two. Builds it, and runs what was built on one mutant.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::workspace;

/// A mutant that runs longer walks in circles.
const RUN_MAX: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(3);
const MEMBERS: [&str; 2] = ["filter-common", "tests/mutants"];
/// Files of other crates that the runner reads as its own.
const SHARED: [&str; 5] = [
    "filter-user/src/compiler/homes.rs",
    "filter-user/src/compiler/host.rs",
    "filter-user/src/compiler/prefixes.rs",
    "filter-user/src/compiler/runs.rs",
    "filter-user/src/compiler/tables.rs",
];

pub(super) struct Scratch {
    root: PathBuf,
    /// What `cargo xtask` read the decision from.
    cases: PathBuf,
    /// The test program of the decision, once it is built.
    tests: Option<PathBuf>,
}

/// How a run on a mutant ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Right,
    Wrong,
    TimedOut,
}

/// What the compiler found fault with: file and line.
pub(super) type Errors = Vec<(String, usize)>;

impl Scratch {
    /// A fresh copy of the repository's files in a folder of this name; what cargo built there before stays.
    pub(super) fn new(name: &str, cases: &Path) -> Result<Self> {
        let root = workspace::target_dir().join("mutants").join(name);
        let from = workspace::root();
        for member in MEMBERS {
            copy_folder(&from.join(member), &root.join(member))?;
        }
        for file in SHARED.iter().chain(&["Cargo.lock"]) {
            write(&root.join(file), &read(&from.join(file))?)?;
        }
        let manifest = read(&from.join("Cargo.toml"))?;
        let lines = manifest
            .lines()
            .map(|line| match line.split_once(" = ").map(|(key, _)| key) {
                Some("members") => format!("members = {MEMBERS:?}"),
                Some("exclude" | "default-members") => String::new(),
                _ => line.to_owned(),
            });
        write(&root.join("Cargo.toml"), &lines.collect::<Vec<_>>().join("\n"))?;
        Ok(Self {
            root,
            cases: cases.into(),
            tests: None,
        })
    }

    pub(super) fn write(&mut self, path: &str, text: &str) -> Result<()> {
        self.tests = None;
        write(&self.root.join(path), text)
    }

    /// Builds the runner; the places of the faults, if the compiler finds any.
    pub(super) fn build(&self) -> Result<Errors> {
        self.cargo(&["build", "--package", "keyfence-mutants"])
            .map(|(_, errors)| errors)
    }

    /// Runs the cases of this name.
    pub(super) fn run_cases(&self, name: &str, mutant: usize) -> Result<End> {
        let mut command = Command::new(self.root.join("target/debug/keyfence-mutants"));
        command.arg(self.cases.join(name));
        ended(&mut command, mutant)
    }

    /// Runs the decision's own unit tests; a decision whose tests do not build is wrong too.
    pub(super) fn run_tests(&mut self, mutant: usize) -> Result<End> {
        if self.tests.is_none() {
            let (output, errors) =
                self.cargo(&["test", "--package", "filter-common", "--lib", "--no-run"])?;
            if !errors.is_empty() {
                return Ok(End::Wrong);
            }
            let path = output
                .lines()
                .find_map(|line| line.trim().strip_prefix("Executable unittests src/lib.rs ("));
            let path = path.context("cargo names no test program")?.trim_end_matches(')');
            self.tests = Some(self.root.join(path));
            let is_woven = mutant != 0;
            ensure!(
                !is_woven || self.run_test_program(0)? == End::Right,
                "the unit tests fail for the decision as it is"
            );
        }
        self.run_test_program(mutant)
    }

    fn run_test_program(&self, mutant: usize) -> Result<End> {
        let tests = self.tests.as_ref().context("there is a test program")?;
        let mut command = Command::new(tests);
        command
            .args(["--quiet", "--test-threads", "1"])
            .current_dir(self.root.join("filter-common"));
        // The same values for every mutant, and none kept for the next.
        command
            .env("PROPTEST_RNG_SEED", "1")
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
        ended(&mut command, mutant)
    }

    /// Cargo's output, and the places of errors.
    fn cargo(&self, arguments: &[&str]) -> Result<(String, Errors)> {
        let output = Command::new(workspace::cargo_path())
            .current_dir(&self.root)
            .args(arguments)
            .args(["--offline", "--message-format", "short", "--target-dir", "target"])
            // A mutant that only warns is a mutant.
            .env("RUSTFLAGS", "--cap-lints=allow")
            .env_remove("CARGO_BUILD_TARGET")
            .output()
            .context("cannot start cargo")?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let errors: Errors = text.lines().filter_map(error_place).collect();
        let is_build_error = !errors.is_empty();
        ensure!(
            output.status.success() || is_build_error,
            "cargo {arguments:?} failed:\n{text}"
        );
        Ok((text, errors))
    }
}

/// `filter-common/src/limit.rs:12:3: error[E0308]: mismatched types`
fn error_place(line: &str) -> Option<(String, usize)> {
    let mut parts = line.splitn(4, ':');
    let (file, line, _, message) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    message.trim_start().starts_with("error").then_some(())?;
    Some((file.into(), line.parse().ok()?))
}

fn ended(command: &mut Command, mutant: usize) -> Result<End> {
    command
        .env("KEYFENCE_MUTANT", mutant.to_string())
        .env("RUST_BACKTRACE", "0");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let deadline = Instant::now() + RUN_MAX;
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(End::Right),
            Some(status) if status.code() == Some(2) => bail!("{command:?} cannot run"),
            Some(_) => return Ok(End::Wrong),
            None if Instant::now() > deadline => {
                child.kill()?;
                child.wait()?;
                return Ok(End::TimedOut);
            }
            None => thread::sleep(POLL_EVERY),
        }
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_folder(&path, &target)?;
        } else {
            write(&target, &read(&path)?)?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A file that says so already is left alone, for cargo.
fn write(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_of_errors_are_read_and_warnings_are_none() {
        let error = "filter-common/src/limit.rs:12:3: error[E0308]: mismatched types";
        assert_eq!(
            error_place(error),
            Some(("filter-common/src/limit.rs".into(), 12))
        );
        assert_eq!(error_place("a.rs:1:2: warning: unused"), None);
        assert_eq!(error_place("error: could not compile"), None);
    }
}
