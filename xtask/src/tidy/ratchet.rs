//! Sizes as a ratchet: a file or a function over the bound stands in xtask/ratchet.toml with its size and the reason
//! for it. It may shrink and never grow. `tidy --bless` writes the file anew, and takes more only with a reason.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{
    Finding,
    source::{self, Source},
};

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;
const PLACE: &str = "xtask/ratchet.toml";
const HEADING: &str = "\
# Files over 400 lines and functions over 70, each with its size and the reason for it.
# They may shrink, never grow. Written by `cargo xtask tidy --bless`, which takes more only with `--reason`.
";

/// The name of an entry: a file, `a/b.rs`, or a function in it, `a/b.rs: name`.
type Place = String;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    lines: usize,
    reason: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ratchet {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    sizes: BTreeMap<Place, Entry>,
}

/// A file or function over its bound.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Oversize {
    place: Place,
    path: String,
    /// Where it begins.
    line: usize,
    lines: usize,
    max: usize,
}

impl Ratchet {
    pub(super) fn read(root: &Path) -> Result<Self> {
        let file = file(root);
        match fs::read_to_string(&file) {
            Ok(text) => toml::from_str(&text).with_context(|| format!("cannot read {}", file.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    pub(super) fn write(&self, root: &Path) -> Result<()> {
        let file = file(root);
        let text = format!("{HEADING}\n{}", toml::to_string(self)?);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    pub(super) fn check(&self, sources: &[Source]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for Oversize {
            place,
            path,
            line,
            lines,
            max,
        } in oversizes(sources)
        {
            let bound = self.sizes.get(&place).map_or(max, |entry| entry.lines);
            if lines > bound {
                let what = format!("{place} has {lines} lines, more than the {bound} it may have");
                let how = "split it, or `cargo xtask tidy --bless --reason \"why it must be so long\"`";
                findings.push(Finding::new(&path, line, what, how));
            }
        }
        findings
    }

    /// How many entries could be tightened or dropped.
    pub(super) fn slack(&self, sources: &[Source]) -> usize {
        let now: BTreeMap<Place, usize> = oversizes(sources)
            .into_iter()
            .map(|over| (over.place, over.lines))
            .collect();
        self.sizes
            .iter()
            .filter(|(place, entry)| now.get(*place).is_none_or(|lines| *lines < entry.lines))
            .count()
    }

    /// The ratchet for the sizes of now, of the places that begin with `below`; the others stay as they are.
    /// What grew or is new takes the reason, and is refused without one.
    pub(super) fn bless(&self, sources: &[Source], below: &str, reason: Option<&str>) -> Result<Self> {
        let reason = reason.map(str::trim).filter(|reason| !reason.is_empty());
        let others = self.sizes.iter().filter(|(place, _)| !place.starts_with(below));
        let mut sizes: BTreeMap<Place, Entry> = others
            .map(|(place, entry)| (place.clone(), entry.clone()))
            .collect();
        let mut refused = Vec::new();
        for Oversize { place, lines, .. } in oversizes(sources)
            .into_iter()
            .filter(|over| over.place.starts_with(below))
        {
            let known = self.sizes.get(&place).filter(|entry| lines <= entry.lines);
            match known.map(|entry| entry.reason.as_str()).or(reason) {
                Some(reason) => {
                    sizes.insert(
                        place,
                        Entry {
                            lines,
                            reason: reason.to_owned(),
                        },
                    );
                }
                None => refused.push(format!("  {place}: {lines} lines")),
            }
        }
        if !refused.is_empty() {
            bail!(
                "these grew; split them, or give `--reason \"why\"`:\n{}",
                refused.join("\n")
            );
        }
        Ok(Self { sizes })
    }
}

fn file(root: &Path) -> PathBuf {
    root.join(PLACE)
}

fn oversizes(sources: &[Source]) -> Vec<Oversize> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            let path = source.path.clone();
            found.push(Oversize {
                place: path.clone(),
                path,
                line: 1,
                lines,
                max: FILE_LINES_MAX,
            });
        }
        // Of two functions of one name the longer stands for both.
        let mut longest: BTreeMap<Place, Oversize> = BTreeMap::new();
        for function in source::functions(source) {
            let (line, lines) = (function.lines.start, function.lines.len());
            let place = format!("{}: {}", source.path, function.name);
            if lines > FUNCTION_LINES_MAX && longest.get(&place).is_none_or(|over| over.lines < lines) {
                let path = source.path.clone();
                longest.insert(
                    place.clone(),
                    Oversize {
                        place,
                        path,
                        line,
                        lines,
                        max: FUNCTION_LINES_MAX,
                    },
                );
            }
        }
        found.extend(longest.into_values());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(lines: usize) -> Vec<Source> {
        vec![Source::new(
            "a/b.rs",
            &format!("fn long() {{\n{}}}\n", "    f();\n".repeat(lines - 2)),
        )]
    }

    fn file_of(lines: usize) -> Vec<Source> {
        vec![Source::new("a/b.rs", &"// a line\n".repeat(lines))]
    }

    #[test]
    fn what_is_within_the_bounds_needs_no_entry() {
        assert_eq!(Ratchet::default().check(&function(FUNCTION_LINES_MAX)).len(), 0);
        assert_eq!(
            Ratchet::default().check(&function(FUNCTION_LINES_MAX + 1)).len(),
            1
        );
        assert_eq!(Ratchet::default().check(&file_of(FILE_LINES_MAX)).len(), 0);
        assert_eq!(Ratchet::default().check(&file_of(FILE_LINES_MAX + 1)).len(), 1);
    }

    #[test]
    fn what_is_blessed_may_shrink_and_never_grow() {
        let ratchet = Ratchet::default()
            .bless(&function(90), "", Some("one table"))
            .unwrap();
        assert_eq!(ratchet.check(&function(90)).len(), 0);
        assert_eq!(
            (ratchet.check(&function(80)).len(), ratchet.slack(&function(80))),
            (0, 1)
        );
        assert_eq!(ratchet.check(&function(91)).len(), 1);
    }

    #[test]
    fn to_bless_what_grew_takes_a_reason() {
        assert!(Ratchet::default().bless(&function(90), "", None).is_err());
        assert!(Ratchet::default().bless(&function(90), "", Some("  ")).is_err());
        let ratchet = Ratchet::default()
            .bless(&function(90), "", Some("one table"))
            .unwrap();
        assert!(ratchet.bless(&function(91), "", None).is_err());
        let smaller = ratchet.bless(&function(80), "", None).unwrap();
        assert_eq!(
            smaller.sizes["a/b.rs: long"],
            Entry {
                lines: 80,
                reason: "one table".to_owned()
            }
        );
        assert_eq!(
            ratchet.bless(&function(20), "", None).unwrap(),
            Ratchet::default()
        );
    }

    #[test]
    fn to_bless_one_folder_leaves_the_others_as_they_are() {
        let ratchet = Ratchet::default()
            .bless(&function(90), "", Some("one table"))
            .unwrap();
        assert_eq!(ratchet.bless(&function(95), "c/", Some("more")).unwrap(), ratchet);
        let grown = ratchet.bless(&function(95), "a/", Some("more")).unwrap();
        assert_eq!(
            grown.sizes["a/b.rs: long"],
            Entry {
                lines: 95,
                reason: "more".to_owned()
            }
        );
    }

    #[test]
    fn what_is_written_is_read_again_the_same() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("xtask")).unwrap();
        assert_eq!(Ratchet::read(folder.path()).unwrap(), Ratchet::default());
        let ratchet = Ratchet::default()
            .bless(&function(90), "", Some("a \"quoted\" reason"))
            .unwrap();
        ratchet.write(folder.path()).unwrap();
        assert_eq!(Ratchet::read(folder.path()).unwrap(), ratchet);
    }
}
