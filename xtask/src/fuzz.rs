//! `cargo xtask fuzz`: any bytes to the parser, the decision and the policy file, by libFuzzer, on the stable compiler.
//!
//! The targets are tests/fuzz, compiled with LLVM's coverage pass and linked with libFuzzer. Their corpus lives below
//! target/fuzz and starts from the vectors and the captures.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};

use crate::workspace;

const TARGETS: [&str; 3] = ["parse", "decide", "policy"];
/// What cargo-fuzz passes to rustc, but for the sanitizer, which takes a nightly compiler: nothing here is unsafe.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
const EXECUTION_SECONDS_MAX: u32 = 20;
const MEMORY_MEGABYTES_MAX: u32 = 2048;
const TAIL_LINES_MAX: usize = 40;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// All three, where none is named.
    #[arg(value_parser = TARGETS)]
    target: Option<String>,
    /// How long each runs.
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let binaries = build()?;
    let chosen = TARGETS
        .iter()
        .filter(|target| options.target.as_deref().is_none_or(|named| named == **target));
    for target in chosen {
        println!("{}", try_for(&binaries, target, options.seconds)?);
    }
    Ok(())
}

fn folder() -> PathBuf {
    workspace::target_dir().join("fuzz")
}

/// Compiles the targets, and answers where they are.
fn build() -> Result<PathBuf> {
    let host = host()?;
    let mut command = workspace::cargo();
    command
        // A target by name, even if it is the host's, so that build scripts and macros go without the counters.
        .args([
            "build",
            "--quiet",
            "--release",
            "--locked",
            "--bins",
            "--target",
            &host,
        ])
        .arg("--manifest-path")
        .arg(workspace::root().join("tests/fuzz/Cargo.toml"))
        .arg("--target-dir")
        .arg(folder())
        .env("RUSTFLAGS", RUSTFLAGS)
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    workspace::step("building the fuzz targets", &mut command)?;
    Ok(folder().join(host).join("release"))
}

/// The compiler's own target.
fn host() -> Result<String> {
    let compiler = workspace::cargo_path().with_file_name("rustc");
    let compiler = if compiler.is_file() {
        compiler
    } else {
        "rustc".into()
    };
    let output = Command::new(compiler)
        .arg("-vV")
        .output()
        .context("cannot start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}

/// One line on what was tried; an error with the input that made the target fail.
fn try_for(binaries: &Path, target: &str, seconds: u32) -> Result<String> {
    let corpus = folder().join("corpus").join(target);
    fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
    let failed = folder().join(format!("failed-{target}-"));
    let started = Instant::now();
    eprintln!("==> fuzzing {target} for {seconds} s");
    let output = Command::new(binaries.join(target))
        .arg(&corpus)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={EXECUTION_SECONDS_MAX}"))
        .arg(format!("-rss_limit_mb={MEMORY_MEGABYTES_MAX}"))
        .arg(format!("-artifact_prefix={}", failed.display()))
        .arg("-print_final_stats=1")
        .env("KEYFENCE_FUZZ_CORPUS", &corpus)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start the target {target}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES_MAX)..].join("\n  | ");
        bail!(
            "the target {target} failed ({}); try it alone with\n  {} FILE\nwith the file named here:\n  | {tail}",
            output.status,
            binaries.join(target).display()
        );
    }
    let figures =
        Figures::read(&text).with_context(|| format!("libFuzzer prints no figures for {target}"))?;
    ensure!(
        figures.executions > 0 && figures.coverage > 0,
        "{target} was not tried: {figures:?}"
    );
    Ok(format!(
        "fuzz {target}: {} executions in {:.0} s, {} branches reached, {} inputs kept, no failure",
        figures.executions,
        started.elapsed().as_secs_f64(),
        figures.coverage,
        figures.inputs
    ))
}

#[derive(Debug, PartialEq, Eq)]
struct Figures {
    executions: u64,
    coverage: u64,
    inputs: u64,
}

impl Figures {
    /// From libFuzzer's last status line: `#775574 DONE cov: 2213 ft: 9120 corp: 3040/412Kb …`.
    fn read(text: &str) -> Option<Self> {
        let line = text
            .lines()
            .rev()
            .find(|line| line.starts_with('#') && line.contains(" cov: "))?;
        let mut words = line.split_whitespace();
        let executions = words.next()?.strip_prefix('#')?.parse().ok()?;
        let words: Vec<&str> = words.collect();
        let behind = |key: &str| {
            let at = words.iter().position(|word| *word == key)?;
            words.get(at + 1)?.split('/').next()?.parse().ok()
        };
        Some(Self {
            executions,
            coverage: behind("cov:")?,
            inputs: behind("corp:")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_those_of_the_last_line() {
        let text = "INFO: seed\n#2\tINITED cov: 5 ft: 6 corp: 1/1b\n#775574\tDONE   cov: 2213 ft: 9120 corp: 3040/412Kb lim: 4096\nDone 7";
        let figures = Figures {
            executions: 775_574,
            coverage: 2213,
            inputs: 3040,
        };
        assert_eq!(Figures::read(text), Some(figures));
        assert_eq!(Figures::read("nothing"), None);
    }
}
