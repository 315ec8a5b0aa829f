//! What a load of the policy has to say beside what it puts in force.

use crate::policy::{Loaded, Policy, Severity};

/// The warnings of a policy, said in the log, once a load.
pub fn say_warnings(loaded: &Loaded) {
    for warning in warnings(loaded) {
        tracing::warn!("{warning}");
    }
}

/// The warnings of a policy and its place, and the defaults that this build does not enforce.
pub(super) fn warnings(loaded: &Loaded) -> Vec<String> {
    let warnings = loaded
        .diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Warning);
    warnings
        .map(|warning| {
            format!(
                "{}:{}:{}: {}",
                warning.file, warning.line, warning.column, warning.message
            )
        })
        .collect()
}

/// What is read at start only, and differs: said, since the reload leaves it as it is.
pub(super) fn restart_keys(old: &Policy, new: &Policy) -> impl Iterator<Item = String> {
    let addresses = |policy: &Policy| -> Vec<_> {
        policy
            .listeners
            .iter()
            .map(|listener| listener.address.clone())
            .collect()
    };
    let differs = [
        ("[daemon]", old.daemon != new.daemon),
        ("[[listener]]", addresses(old) != addresses(new)),
        ("[credentials]", old.credentials != new.credentials),
        ("[authorize]", old.authorize != new.authorize),
        ("[records]", !same_records(old, new)),
    ];
    differs
        .into_iter()
        .filter(|(_, differs)| *differs)
        .map(|(table, _)| format!("{table} has changed and is read at start only: restart the daemon for it"))
}

/// Such as `1 service` and `2 services`.
pub(super) fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// Where records come from in the file is no part of what they are.
fn same_records(old: &Policy, new: &Policy) -> bool {
    let records = |policy: &Policy| (policy.records.interval, policy.records.addresses);
    let sinks = |policy: &Policy| {
        let told = policy.sinks.iter().map(|sink| {
            (
                sink.kind,
                sink.path.clone(),
                sink.rotate_size,
                sink.keep_size,
                sink.keep_age,
            )
        });
        told.collect::<Vec<_>>()
    };
    records(old) == records(new) && sinks(old) == sinks(new)
}
