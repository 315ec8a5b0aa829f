//! The documents that `keyfence generate` writes: each must be what it would write now.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::Finding;
use crate::workspace;

/// A document, and the arguments of keyfence that print it.
const DOCUMENTS: &[(&str, &[&str])] = &[
    ("docs/POLICY.md", &["generate", "policy-reference"]),
    ("docs/METRICS.md", &["generate", "metrics-reference"]),
    ("docs/API.md", &["generate", "api-reference"]),
    ("docs/DOCTOR.md", &["generate", "doctor-reference"]),
];

/// Asks the keyfence that was built last; without one it must be built first.
pub(super) fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (document, arguments) in DOCUMENTS {
        let keyfence = workspace::keyfence();
        let output = Command::new(&keyfence).args(*arguments).output();
        let output = output
            .with_context(|| format!("cannot start {}; run `cargo xtask build`", keyfence.display()))?;
        ensure!(
            output.status.success(),
            "keyfence {}: {}",
            arguments.join(" "),
            output.status
        );
        let written = fs::read(root.join(document)).unwrap_or_default();
        if written != output.stdout {
            let what = format!("is not what `keyfence {}` prints now", arguments.join(" "));
            findings.push(Finding::new(document, 1, what, "write its output there"));
        }
    }
    Ok(findings)
}
