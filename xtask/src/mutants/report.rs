//! What came of the mutants: the summary, tests/mutants/survivors.toml with the reasons for those that nothing kills,
//! and docs/MUTANTS.md made of both.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{FOLDER, Fate, syntax::File, weave::Mutant};

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

/// What stands in docs/MUTANTS.md: a row of counts and the survivors of each file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Page {
    counts: BTreeMap<String, [usize; 6]>,
    /// Lines of the table, by file.
    survivors: BTreeMap<String, Vec<String>>,
}

const FATES: [Fate; 6] = [
    Fate::NotBuilt,
    Fate::Vectors,
    Fate::UnitTests,
    Fate::RandomFrames,
    Fate::TimedOut,
    Fate::Survived,
];

/// How many there were of each fate.
pub(super) fn summary(fates: &[(Mutant, Fate)]) -> String {
    sentence(FATES.map(|wanted| fates.iter().filter(|(_, fate)| wanted == *fate).count()))
}

fn sentence(counts: [usize; 6]) -> String {
    let [not_built, vectors, unit_tests, random, timed_out, survived] = counts;
    let all: usize = counts.iter().sum();
    format!(
        "{all} mutants: {not_built} not built, {} of {} killed ({vectors} by the vectors, {unit_tests} by unit tests, \
         {random} by the oracle's random frames alone, {timed_out} timed out), {survived} survived",
        all - not_built - survived,
        all - not_built,
    )
}

/// Writes the rows of the files that were tried; those of others stay as they are.
pub(super) fn write(root: &Path, files: &[File], fates: &[(Mutant, Fate)], reasons: &Reasons) -> Result<()> {
    let path = root.join(DOCUMENT);
    fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
    let mut page = Page::read(&fs::read_to_string(&path).unwrap_or_default());
    page.replace(files, fates, reasons);
    let order: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    fs::write(&path, page.text(&order)).with_context(|| format!("cannot write {}", path.display()))
}

impl Page {
    /// What an earlier run wrote.
    fn read(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines().filter_map(|line| line.strip_prefix("| ")) {
            if let Some((file, rest)) = line
                .split_once(" | ")
                .filter(|(file, _)| file.starts_with(FOLDER))
            {
                let numbers: Vec<usize> = rest
                    .split('|')
                    .filter_map(|cell| cell.trim().parse().ok())
                    .collect();
                // The sum comes first.
                if let [_, counts @ ..] = numbers.as_slice()
                    && let Ok(counts) = counts.try_into()
                {
                    page.counts.insert(file.to_owned(), counts);
                }
            } else if let Some((file, _)) = line.split_once(": ").filter(|(file, _)| file.ends_with(".rs")) {
                let lines = page.survivors.entry(format!("{FOLDER}/{file}")).or_default();
                lines.push(format!("| {line}"));
            }
        }
        page
    }

    fn replace(&mut self, files: &[File], fates: &[(Mutant, Fate)], reasons: &Reasons) {
        for (index, file) in files.iter().enumerate() {
            let here: Vec<_> = fates.iter().filter(|(mutant, _)| mutant.file == index).collect();
            if here.is_empty() {
                continue;
            }
            let counts = FATES.map(|wanted| here.iter().filter(|(_, fate)| wanted == *fate).count());
            self.counts.insert(file.path.clone(), counts);
            let mut groups: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
            for (mutant, _) in here.iter().filter(|(_, fate)| *fate == Fate::Survived) {
                let reason = reasons.of(&file.path, mutant).unwrap_or(UNEXPLAINED);
                let change = format!("`{}`", mutant.change.replace('|', "\\|"));
                groups.entry((&mutant.name, reason)).or_default().push(change);
            }
            let short = file.path.trim_start_matches(FOLDER).trim_start_matches('/');
            let line = |((name, reason), changes): ((&str, &str), Vec<String>)| {
                format!("| {short}: {name} | {} | {reason} |", changes.join("<br>"))
            };
            self.survivors
                .insert(file.path.clone(), groups.into_iter().map(line).collect());
        }
    }

    fn text(&self, order: &[&str]) -> String {
        let mut text = String::from(
            "# Mutants of the decision\n\n\
             Written by `cargo xtask mutants`. Each mutant is the decision with one small wrong in it: another operator, \
             a number off by one, a condition that always or never holds, a statement, an arm or an alternative left \
             out, another reason or flag, a function that does nothing. A mutant is killed when a vector is judged \
             otherwise (verdict, reason, service, owner, counters; dry and for good; with a connection of the host's \
             own and without) or a unit test fails. One that survives is a missing vector, or makes no difference: then \
             it stands below with the reason, kept in `tests/mutants/survivors.toml`. A file that has changed since can \
             be tried by itself (`--file`); the other rows stay.\n\n",
        );
        let files = order
            .iter()
            .filter_map(|file| Some((*file, self.counts.get(*file)?)));
        let mut sums = [0; 6];
        for (_, counts) in files.clone() {
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}.\n", sentence(sums));
        text +=
            "| file | mutants | not built | vectors | unit tests | random frames | timed out | survived |\n";
        text += "| --- | --- | --- | --- | --- | --- | --- | --- |\n";
        for (file, counts) in files {
            let all: usize = counts.iter().sum();
            let counts = counts.map(|count| count.to_string()).join(" | ");
            let _ = writeln!(text, "| {file} | {all} | {counts} |");
        }
        text += "\n## Survivors\n\n| where | change | why nothing sees it |\n| --- | --- | --- |\n";
        for line in order
            .iter()
            .filter_map(|file| self.survivors.get(*file))
            .flatten()
        {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_whole() {
        let mut page = Page::default();
        let (one, other) = (format!("{FOLDER}/one.rs"), format!("{FOLDER}/parse/other.rs"));
        page.counts.insert(one.clone(), [1, 2, 3, 4, 5, 1]);
        page.counts.insert(other.clone(), [0; 6]);
        page.survivors
            .insert(one.clone(), vec!["| one.rs: f | `a => b` | why |".into()]);
        let text = page.text(&[&one, &other]);
        assert_eq!(Page::read(&text), page);
        assert!(
            text.contains("16 mutants: 1 not built, 14 of 15 killed"),
            "{text}"
        );
    }
}
