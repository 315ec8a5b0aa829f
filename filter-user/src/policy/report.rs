//! What `check --json` says: one object with the faults, the warnings and a summary.

use serde_json::{Value, json};

use crate::policy::bounds::DIAGNOSTICS_SHOWN_MAX;
use crate::policy::diagnostic::{Diagnostic, Severity};
use crate::policy::enforced::not_enforced_warnings;
use crate::policy::load::Loaded;
use crate::policy::model::Policy;

pub fn check_report_json(loaded: &Loaded) -> Value {
    let of = |severity| move |diagnostic: &&Diagnostic| diagnostic.severity == severity;
    let errors: Vec<&Diagnostic> = loaded
        .diagnostics
        .iter()
        .filter(of(Severity::Error))
        .take(DIAGNOSTICS_SHOWN_MAX)
        .collect();
    let not_enforced = not_enforced_warnings(loaded);
    let warnings_all = loaded.warnings + not_enforced.len();
    let warnings: Vec<&Diagnostic> = loaded
        .diagnostics
        .iter()
        .filter(of(Severity::Warning))
        .chain(&not_enforced)
        .take(DIAGNOSTICS_SHOWN_MAX)
        .collect();
    json!({
        "schema": 1,
        "file": loaded.files.first().map(|root| root.name.as_ref()),
        "valid": loaded.policy.is_some(),
        "errors_not_shown": loaded.errors - errors.len(),
        "warnings_not_shown": warnings_all - warnings.len(),
        "errors": errors,
        "warnings": warnings,
        "summary": loaded.policy.as_ref().map(summary),
        "files": loaded.files.len(),
        "hash": loaded.unreadable.is_none().then_some(&loaded.hash),
    })
}

fn summary(policy: &Policy) -> Value {
    let clients: usize = policy.clients.iter().map(|client| client.sources.len()).sum();
    let denies: usize = policy.denies.iter().map(|deny| deny.sources.len()).sum();
    let management: usize = policy
        .management
        .iter()
        .map(|management| management.sources.len())
        .sum();
    json!({
        "services": policy.services.len(),
        "clients": policy.clients.len(),
        "denies": policy.denies.len(),
        "management": policy.management.len(),
        "publishers": policy.publishers.len(),
        "expects": policy.expects.len(),
        "listeners": policy.listeners.len(),
        "sinks": policy.sinks.len(),
        "sources": clients + denies + management,
    })
}
