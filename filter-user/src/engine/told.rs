//! What a load of the policy has to say beside what it puts in force.

use crate::policy::model::{Authorize, Credentials};
use crate::policy::{Loaded, Policy, Severity};

/// The warnings of a policy and its place, and the defaults that this build does not enforce.
pub fn warnings(loaded: &Loaded) -> Vec<String> {
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
pub fn restart_keys(old: &Policy, new: &Policy) -> impl Iterator<Item = String> {
    let addresses = |policy: &Policy| -> Vec<_> {
        policy
            .listeners
            .iter()
            .map(|listener| listener.address.clone())
            .collect()
    };
    // Where in the file a table stands says nothing.
    let credentials = |policy: &Policy| Credentials {
        origin: None,
        ..policy.credentials.clone()
    };
    let authorize = |policy: &Policy| Authorize {
        origin: None,
        ..policy.authorize.clone()
    };
    let differs = [
        ("[daemon]", old.daemon != new.daemon),
        ("[[listener]]", addresses(old) != addresses(new)),
        ("[credentials]", credentials(old) != credentials(new)),
        ("[authorize]", authorize(old) != authorize(new)),
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::policy::{LoadContext, MemoryFiles, load_from};

    fn policy(head: &str, tables: &str) -> Policy {
        let text = format!(
            "version = 1\n{head}[filter]\ninterfaces = [\"eth0\"]\n{tables}\n\
             [[service]]\nname = \"a\"\nprotocol = \"tcp\"\nports = [443]\n\
             [[management]]\nname = \"ssh\"\nsources = [\"192.0.2.0/24\"]\nprotocol = \"tcp\"\nports = [22]\n"
        );
        let root = Path::new("keyfence.toml");
        let files = MemoryFiles::new([(root.to_owned(), text.into_bytes())]);
        let loaded = load_from(
            &files,
            root,
            &LoadContext::at("2026-06-01T00:00:00Z".parse().unwrap()),
        );
        let told: Vec<String> = loaded.diagnostics.iter().map(|d| d.to_string()).collect();
        loaded.policy.unwrap_or_else(|| panic!("{told:#?}"))
    }

    #[test]
    fn table_that_is_read_at_start_is_told_where_it_says_something_else_and_not_where_it_moved() {
        let tables = "[credentials]\nheader = [\"x-key\"]\n[authorize]\nreason-header = true";
        let old = policy("", tables);
        let moved = policy("# A line more.\n\n", tables);
        assert_eq!(restart_keys(&old, &moved).count(), 0);
        let changed = policy("", &tables.replace("true", "false").replace("x-key", "x-other"));
        let told: Vec<String> = restart_keys(&old, &changed).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("[credentials] has changed") && told[1].starts_with("[authorize] has"));
    }
}
