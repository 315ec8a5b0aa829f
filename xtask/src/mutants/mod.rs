//! `cargo xtask mutants`: the decision with one small wrong in it, thousands of times; each must be noticed by the
//! vectors or by a unit test.
//!
//! Flow: syntax -> operators -> weave -> scratch (build, run) -> report.

mod operators;
mod patterns;
mod report;
mod scratch;
mod syntax;
mod weave;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::workspace;
use report::Reasons;
use scratch::{End, Scratch};
use syntax::File;
use weave::Mutant;

/// The rules of the contract.
const RULES: [&str; 16] = [
    "parse/mod.rs",
    "parse/straight.rs",
    "parse/ethernet.rs",
    "parse/ipv4.rs",
    "parse/ipv6.rs",
    "parse/transport.rs",
    "classify.rs",
    "pipeline.rs",
    "target.rs",
    "admit.rs",
    "charge.rs",
    "limit.rs",
    "source_limit.rs",
    "account.rs",
    "lookup/mod.rs",
    "units.rs",
];
/// Where more families of names, and the bounds, are read.
const NAMES: [&str; 3] = ["verdict.rs", "abi/mod.rs", "bounds.rs"];
const FOLDER: &str = "filter-common/src";
/// Builds that find fault with some mutant, before it is called our own fault.
const BUILDS_MAX: usize = 60;
const SHOW_EVERY: Duration = Duration::from_secs(20);

/// What became of a mutant: what killed it, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    NotBuilt,
    Vectors,
    UnitTests,
    /// Seen by the oracle's random frames and by nothing else: a vector is missing.
    RandomFrames,
    TimedOut,
    Survived,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Try only so many, chosen by the seed; docs/MUTANTS.md is not written.
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Only files of the decision whose path holds this, for example parse/ipv6; the others' rows of docs/MUTANTS.md
    /// stay.
    #[arg(long, value_name = "TEXT")]
    file: Option<String>,
    /// Print the mutants, and try none.
    #[arg(long)]
    list: bool,
    /// Cases that were written already, by KEYFENCE_WRITE_CASES.
    #[arg(long, value_name = "FOLDER")]
    cases: Option<PathBuf>,
}

pub(crate) fn run(options: Options) -> Result<()> {
    let root = workspace::root();
    let files = read(&root, &RULES)?;
    let mutants = all(&root, &files)?;
    let reasons = Reasons::read(&root)?;
    let stale = reasons.stale(&files, &mutants);
    ensure!(stale.is_empty(), "{}", stale.join("\n"));
    let is_whole = options.sample.is_none() && options.file.is_none();
    let mut chosen = mutants;
    if let Some(part) = &options.file {
        chosen.retain(|mutant| files[mutant.file].path.contains(part));
    }
    if let Some(size) = options.sample {
        chosen = sample(chosen, size, options.seed);
    }
    if options.list {
        for mutant in &chosen {
            println!("{}", line(&files, mutant));
        }
        return Ok(());
    }
    let cases = match options.cases {
        Some(cases) => cases,
        None => write_cases()?,
    };
    let fates = try_all(&files, chosen, &cases, if is_whole { "" } else { "part-" })?;
    let mut unexplained = 0;
    for (mutant, fate) in &fates {
        let reason = reasons.of(&files[mutant.file].path, mutant);
        if *fate == Fate::Survived && reason.is_none() {
            unexplained += 1;
            println!("survived: {}", line(&files, mutant));
        }
        if *fate == Fate::RandomFrames {
            println!("only by random frames: {}", line(&files, mutant));
        }
    }
    if options.sample.is_none() {
        report::write(&root, &files, &fates, &reasons)?;
    }
    println!("{}", report::summary(&fates));
    ensure!(
        unexplained == 0,
        "{unexplained} survived, and no reason says why; add a vector, or the reason"
    );
    Ok(())
}

fn line(files: &[File], mutant: &Mutant) -> String {
    let path = &files[mutant.file].path;
    format!("{path}:{}: {}: {}", mutant.line, mutant.name, mutant.change)
}

fn read(root: &Path, names: &[&str]) -> Result<Vec<File>> {
    let read = |name: &&str| {
        let path = format!("{FOLDER}/{name}");
        let text = fs::read_to_string(root.join(&path)).with_context(|| format!("cannot read {path}"))?;
        Ok(File::read(&path, &text))
    };
    names.iter().map(read).collect()
}

fn all(root: &Path, files: &[File]) -> Result<Vec<Mutant>> {
    let names = read(root, &NAMES)?;
    let families: Vec<_> = files.iter().chain(&names).flat_map(operators::families).collect();
    let bounds = names.last().context("the bounds are the last")?;
    let bounds = bounds
        .constants
        .iter()
        .map(|constant| constant.name.clone())
        .collect();
    Ok(weave::list(files, &families, &bounds))
}

/// So many of them, each as likely as the other.
fn sample(mut mutants: Vec<Mutant>, size: usize, seed: u64) -> Vec<Mutant> {
    let mut state = seed;
    let mut chosen = Vec::new();
    while chosen.len() < size && !mutants.is_empty() {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let index = (mixed ^ (mixed >> 31)) % mutants.len() as u64;
        chosen.push(mutants.swap_remove(usize::try_from(index).unwrap_or(0)));
    }
    chosen.sort_by_key(|mutant| mutant.number);
    chosen
}

/// The vectors as cases, by the tests' own crate.
fn write_cases() -> Result<PathBuf> {
    let folder = workspace::target_dir().join("mutants/cases");
    let mut command = workspace::cargo();
    // The whole workspace, so that nothing is built for other features than the tests have.
    command.args([
        "test",
        "--quiet",
        "--workspace",
        "--test",
        "mutants",
        "the_cases_hold",
    ]);
    command.env("KEYFENCE_WRITE_CASES", &folder);
    workspace::step("writing the cases", &mut command)?;
    Ok(folder)
}

/// A part runs in folders of its own, so that it may run beside the whole.
fn try_all(files: &[File], mutants: Vec<Mutant>, cases: &Path, prefix: &str) -> Result<Vec<(Mutant, Fate)>> {
    let mut scratch = Scratch::new(&format!("{prefix}woven"), cases)?;
    let woven: Vec<&Mutant> = mutants.iter().filter(|mutant| mutant.is_woven).collect();
    let unbuilt = build_woven(&mut scratch, files, &woven)?;
    for (name, end) in [
        ("vectors", scratch.run_cases("vectors", 0)?),
        ("random", scratch.run_cases("random", 0)?),
    ] {
        ensure!(
            end == End::Right,
            "the {name} are not right for the decision as it is"
        );
    }
    let mut alone = Scratch::new(&format!("{prefix}alone"), cases)?;
    let mut progress = Progress::new(mutants.len());
    let mut fates = Vec::new();
    for mutant in mutants {
        let fate = if unbuilt.contains(&mutant.number) {
            Fate::NotBuilt
        } else if mutant.is_woven {
            fate(&mut scratch, mutant.number)?
        } else {
            let file = &files[mutant.file];
            alone.write(&file.path, &weave::alone(file, &mutant.edit))?;
            let fate = if alone.build()?.is_empty() {
                fate(&mut alone, 0)?
            } else {
                Fate::NotBuilt
            };
            alone.write(&file.path, &file.text)?;
            fate
        };
        progress.show(fate);
        fates.push((mutant, fate));
    }
    Ok(fates)
}

/// Builds all of them at once; those with which the compiler finds fault are left out, until it finds none.
fn build_woven(scratch: &mut Scratch, files: &[File], mutants: &[&Mutant]) -> Result<BTreeSet<usize>> {
    let started = Instant::now();
    let library = format!("{FOLDER}/lib.rs");
    let text = fs::read_to_string(workspace::root().join(&library))?;
    scratch.write(&library, &(text + weave::SWITCH))?;
    let mut unbuilt = BTreeSet::new();
    for _ in 0..BUILDS_MAX {
        let mut places = Vec::new();
        for (index, file) in files.iter().enumerate() {
            let here = mutants
                .iter()
                .filter(|mutant| mutant.file == index && !unbuilt.contains(&mutant.number));
            let (text, at) = weave::weave(file, &here.copied().collect::<Vec<_>>());
            scratch.write(&file.path, &text)?;
            places.push(at);
        }
        let errors = scratch.build()?;
        if errors.is_empty() {
            eprintln!(
                "{} mutants woven and built in {:.0} s, {} not built",
                mutants.len() - unbuilt.len(),
                started.elapsed().as_secs_f64(),
                unbuilt.len()
            );
            return Ok(unbuilt);
        }
        let before = unbuilt.len();
        for (file, places) in files.iter().zip(&places) {
            unbuilt.extend(weave::faulty(&errors, &file.path, places));
        }
        ensure!(
            unbuilt.len() > before,
            "the woven decision does not build, and no mutant is at fault: {errors:?}"
        );
    }
    anyhow::bail!("after {BUILDS_MAX} builds there are still mutants that do not build")
}

fn fate(scratch: &mut Scratch, mutant: usize) -> Result<Fate> {
    match scratch.run_cases("vectors", mutant)? {
        End::Wrong => return Ok(Fate::Vectors),
        End::TimedOut => return Ok(Fate::TimedOut),
        End::Right => {}
    }
    match scratch.run_tests(mutant)? {
        End::Wrong => return Ok(Fate::UnitTests),
        End::TimedOut => return Ok(Fate::TimedOut),
        End::Right => {}
    }
    Ok(match scratch.run_cases("random", mutant)? {
        End::Wrong => Fate::RandomFrames,
        End::TimedOut => Fate::TimedOut,
        End::Right => Fate::Survived,
    })
}

struct Progress {
    total: usize,
    done: usize,
    survived: usize,
    started: Instant,
    shown: Instant,
}

impl Progress {
    fn new(total: usize) -> Self {
        let now = Instant::now();
        Self {
            total,
            done: 0,
            survived: 0,
            started: now,
            shown: now,
        }
    }

    fn show(&mut self, fate: Fate) {
        self.done += 1;
        self.survived += usize::from(fate == Fate::Survived);
        if self.shown.elapsed() >= SHOW_EVERY || self.done == self.total {
            let seconds = self.started.elapsed().as_secs();
            eprintln!(
                "{} of {} mutants in {seconds} s, {} survived",
                self.done, self.total, self.survived
            );
            self.shown = Instant::now();
        }
    }
}
