//! What a policy asks for that this build does not enforce yet: refused by run and apply, a warning of check.
//!
//! Keep it in step with the build: what is enforced goes from here, and nothing else needs to know.

use std::collections::HashMap;
use std::sync::Arc;

use crate::policy::diagnostic::{Diagnostic, Severity};
use crate::policy::load::Loaded;
use crate::policy::model::{Origin, Policy};
use crate::policy::source::Source;
use crate::policy::suggest::quoted;
use crate::policy::validate::shown_address;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotEnforced {
    /// As it stands in the policy: `tls of listener …`.
    pub what: String,
    pub origin: Origin,
}

pub fn not_enforced(policy: &Policy) -> Vec<NotEnforced> {
    let mut found = Vec::new();
    for listener in &policy.listeners {
        if let (Some(_), Some(origin)) = (&listener.tls, &listener.origin) {
            let address = quoted(&shown_address(&listener.address));
            found.push(NotEnforced {
                what: format!("tls of listener {address}"),
                origin: origin.clone(),
            });
        }
    }
    found
}

/// The warnings that check adds to what loading found.
pub fn not_enforced_warnings(loaded: &Loaded) -> Vec<Diagnostic> {
    let Some(policy) = &loaded.policy else {
        return Vec::new();
    };
    let mut sources: HashMap<Arc<str>, Source> = HashMap::new();
    let placed = not_enforced(policy).into_iter().filter_map(|found| {
        let origin = found.origin;
        if !sources.contains_key(&origin.file) {
            let file = loaded.files.iter().find(|file| file.name == origin.file)?;
            sources.insert(origin.file.clone(), Source::new(file.clone()));
        }
        warning(sources.get(&origin.file)?, &found.what, origin)
    });
    placed.collect()
}

fn warning(source: &Source, what: &str, origin: Origin) -> Option<Diagnostic> {
    let message = format!("this build does not enforce {what}");
    let fix = "remove it, or use a build that enforces it: run and apply refuse it";
    entry(source, &origin, Severity::Warning, "not-enforced", message, fix)
}

/// An error about a whole entry, found after loading.
pub fn entry_error(
    loaded: &Loaded,
    origin: &Origin,
    code: &'static str,
    message: String,
    fix: &str,
) -> Option<Diagnostic> {
    let file = loaded.files.iter().find(|file| file.name == origin.file)?;
    let source = Source::new(file.clone());
    entry(&source, origin, Severity::Error, code, message, fix)
}

/// Underlines the line of the entry's header.
fn entry(
    source: &Source,
    origin: &Origin,
    severity: Severity,
    code: &'static str,
    message: String,
    fix: &str,
) -> Option<Diagnostic> {
    let start = source.line_start(origin.line) as usize;
    let line = source.file.text.get(start..)?.lines().next().unwrap_or_default();
    let indent = line.len() - line.trim_start().len();
    Some(Diagnostic {
        severity,
        code,
        file: Arc::clone(&origin.file),
        line: origin.line,
        column: line[..indent].chars().count() as u32 + 1,
        span: start + indent..start + line.trim_end().len(),
        message,
        fix: Some(fix.to_owned()),
    })
}
