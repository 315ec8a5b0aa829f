//! What came of the mutants: the summary, tests/mutants/survivors.toml with the reasons for those that nothing kills,
//! and docs/MUTANTS.md made of both.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{Fate, syntax::File, weave::Mutant};

const REASONS: &str = "tests/mutants/survivors.toml";
const DOCUMENT: &str = "docs/MUTANTS.md";
/// Stands where a reason is missing; no test lets it stand.
const UNEXPLAINED: &str = "**unexplained**";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reasons {
    #[serde(default)]
    survivor: Vec<Reason>,
}

/// Why one change, wherever it stands in its function, makes no difference that a test could see.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reason {
    file: String,
    function: String,
    /// All of these changes; `before => after`.
    changes: Vec<String>,
    reason: String,
}

impl Reasons {
    pub(super) fn read(root: &Path) -> Result<Self> {
        let path = root.join(REASONS);
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("cannot read {}", path.display()))
    }

    pub(super) fn of(&self, file: &str, mutant: &Mutant) -> Option<&str> {
        let fits = |reason: &&Reason| {
            file.ends_with(&reason.file)
                && reason.function == mutant.name
                && reason.changes.contains(&mutant.change)
        };
        self.survivor
            .iter()
            .find(fits)
            .map(|reason| reason.reason.as_str())
    }

    /// Those that fit no mutant that there is: their source changed.
    pub(super) fn stale(&self, files: &[File], mutants: &[Mutant]) -> Vec<String> {
        let mut stale = Vec::new();
        for reason in &self.survivor {
            for change in &reason.changes {
                let fits = |mutant: &Mutant| {
                    files[mutant.file].path.ends_with(&reason.file)
                        && mutant.name == reason.function
                        && mutant.change == *change
                };
                if !mutants.iter().any(fits) {
                    stale.push(format!(
                        "{REASONS}: {}: {}: no mutant is {change}",
                        reason.file, reason.function
                    ));
                }
            }
        }
        stale
    }
}

/// How many there were of each fate.
pub(super) fn summary(fates: &[(Mutant, Fate)]) -> String {
    let count = |wanted: &[Fate]| fates.iter().filter(|(_, fate)| wanted.contains(fate)).count();
    let built = fates.len() - count(&[Fate::NotBuilt]);
    let killed = count(&[Fate::Vectors, Fate::UnitTests, Fate::RandomFrames, Fate::TimedOut]);
    format!(
        "{} mutants: {} not built, {killed} of {built} killed ({} by the vectors, {} by unit tests, {} by the oracle's \
         random frames alone, {} timed out), {} survived",
        fates.len(),
        fates.len() - built,
        count(&[Fate::Vectors]),
        count(&[Fate::UnitTests]),
        count(&[Fate::RandomFrames]),
        count(&[Fate::TimedOut]),
        count(&[Fate::Survived]),
    )
}

pub(super) fn write(root: &Path, files: &[File], fates: &[(Mutant, Fate)], reasons: &Reasons) -> Result<()> {
    let path = root.join(DOCUMENT);
    fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
    fs::write(&path, document(files, fates, reasons))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn document(files: &[File], fates: &[(Mutant, Fate)], reasons: &Reasons) -> String {
    let mut text = String::from(
        "# Mutants of the decision\n\n\
         Written by `cargo xtask mutants`. Each mutant is the decision with one small wrong in it: another operator, a \
         number off by one, a condition that always or never holds, a statement, an arm or an alternative left out, \
         another reason or flag, a function that does nothing. A mutant is killed when a vector is judged otherwise \
         (verdict, reason, service, owner, counters; dry and for good; with a connection of the host's own and \
         without) or a unit test fails. One that survives is a missing vector, or makes no difference: then it stands \
         below with the reason, kept in `tests/mutants/survivors.toml`.\n\n",
    );
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}.\n", summary(fates));
    text += "| file | mutants | not built | vectors | unit tests | random frames | timed out | survived |\n";
    text += "| --- | --- | --- | --- | --- | --- | --- | --- |\n";
    for (index, file) in files.iter().enumerate() {
        let of = |wanted: Option<Fate>| {
            let here = fates.iter().filter(|(mutant, _)| mutant.file == index);
            here.filter(|(_, fate)| wanted.is_none_or(|wanted| wanted == *fate))
                .count()
        };
        let fates = [
            Fate::NotBuilt,
            Fate::Vectors,
            Fate::UnitTests,
            Fate::RandomFrames,
            Fate::TimedOut,
            Fate::Survived,
        ];
        let counts = fates.map(|fate| of(Some(fate)).to_string()).join(" | ");
        let _ = writeln!(text, "| {} | {} | {counts} |", file.path, of(None));
    }
    text += "\n## Survivors\n\n";
    let mut groups: BTreeMap<(&str, &str, &str), Vec<String>> = BTreeMap::new();
    for (mutant, _) in fates.iter().filter(|(_, fate)| *fate == Fate::Survived) {
        let file = files[mutant.file].path.as_str();
        let reason = reasons.of(file, mutant).unwrap_or(UNEXPLAINED);
        let change = format!("`{}`", mutant.change.replace('|', "\\|"));
        groups
            .entry((file, &mutant.name, reason))
            .or_default()
            .push(change);
    }
    text += "| where | change | why nothing sees it |\n| --- | --- | --- |\n";
    for ((file, name, reason), changes) in groups {
        let short = file.trim_start_matches("filter-common/src/");
        let _ = writeln!(text, "| {short}: {name} | {} | {reason} |", changes.join("<br>"));
    }
    text
}
