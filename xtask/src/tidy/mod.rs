//! `cargo xtask tidy`: holds what HOUSE asks for and no lint of the compiler knows: directions between modules,
//! headings, sizes, where `unsafe` may be, what must not be left in a file. Reads; only `--bless` writes.

mod directions;
mod generated;
mod paths;
mod ratchet;
pub(crate) mod source;
mod verified;
mod words;

use std::fmt;

use anyhow::{Result, bail};

use crate::workspace;
use ratchet::Ratchet;

/// One fault, where it is, and how to fix it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    path: String,
    line: usize,
    what: String,
    how: &'static str,
}

impl Finding {
    fn new(path: &str, line: usize, what: String, how: &'static str) -> Self {
        Self {
            path: path.to_owned(),
            line,
            what,
            how,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}; {}", self.path, self.line, self.what, self.how)
    }
}

/// All checks, all faults at once.
pub(crate) fn run() -> Result<()> {
    let root = workspace::root();
    let sources = source::read_all(&root)?;
    let ratchet = Ratchet::read(&root)?;
    verified::warn(&root, &workspace::target_dir())?;
    let mut findings = directions::check(&sources);
    findings.extend(words::check_headings(&sources));
    findings.extend(ratchet.check(&sources));
    findings.extend(words::check_unsafe(&sources));
    findings.extend(words::check_left_over(&sources));
    findings.extend(words::Traces::of_machine(&root).check(&sources));
    findings.extend(generated::check(&root)?);
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy found {} faults in {} files", findings.len(), sources.len());
    }
    match ratchet.slack(&sources) {
        0 => eprintln!("tidy: {} files, no fault", sources.len()),
        slack => eprintln!(
            "tidy: {} files, no fault; {slack} sizes shrank: `cargo xtask tidy --bless`",
            sources.len()
        ),
    }
    Ok(())
}

/// Writes the sizes of now, of the files that begin with `below`, into the ratchet.
pub(crate) fn bless(below: &str, reason: Option<&str>) -> Result<()> {
    let root = workspace::root();
    let sources = source::read_all(&root)?;
    Ratchet::read(&root)?.bless(&sources, below, reason)?.write(&root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_where_what_and_how_to_fix_it() {
        let finding = Finding::new("a/b.rs", 12, "has no heading".to_owned(), "write one");
        assert_eq!(finding.to_string(), "a/b.rs:12: has no heading; write one");
    }
}
