//! What a policy asks for that this build does not enforce yet: refused by run and apply, a warning of check.
//!
//! Keep it in step with the build: what is enforced goes from here, and nothing else needs to know.

use std::collections::HashMap;
use std::sync::Arc;

use crate::policy::diagnostic::{Diagnostic, Severity};
use crate::policy::load::Loaded;
use crate::policy::model::{Limits, Listener, Origin, Policy, Role};
use crate::policy::source::Source;
use crate::policy::suggest::quoted;
use crate::policy::validate::shown_address;
use crate::policy::words::Word;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotEnforced {
    /// As it stands in the policy: `[filter.source-limit]`, ``credentials of client `acme` ``.
    pub what: String,
    pub origin: Option<Origin>,
    /// Nobody wrote it: it is a default, said once and no reason to refuse.
    pub default: bool,
}

/// Roles that this build does not serve.
/// `operate` is served as far as there is something to operate: reload.
const ROLES_NOT_SERVED: [Role; 3] = [Role::Publish, Role::Authorize, Role::Deny];

pub fn not_enforced(policy: &Policy) -> Vec<NotEnforced> {
    let mut found = Vec::new();
    filter(policy, &mut found);
    for client in policy
        .clients
        .iter()
        .filter(|client| !client.credentials.is_empty())
    {
        found.push(written(
            format!("credentials of client {}", quoted(&client.name)),
            &client.origin,
        ));
    }
    for publisher in &policy.publishers {
        found.push(written(
            format!("[[publisher]] {}", quoted(&publisher.name)),
            &publisher.origin,
        ));
    }
    for listener in &policy.listeners {
        roles(listener, &mut found);
    }
    let tables = [
        ("[credentials]", &policy.credentials.origin),
        ("[authorize]", &policy.authorize.origin),
        ("[records]", &policy.records.origin),
    ];
    for (table, origin) in tables {
        if let Some(origin) = origin {
            found.push(written(table.to_owned(), origin));
        }
    }
    for sink in &policy.sinks {
        match &sink.origin {
            Some(origin) => found.push(written(format!("[[sink]] of type {}", sink.kind.name()), origin)),
            None if policy.records.written => {}
            None => found.push(default("drop records".to_owned())),
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
    let written = not_enforced(policy).into_iter().filter(|found| !found.default);
    let placed = written.filter_map(|found| {
        let origin = found.origin?;
        if !sources.contains_key(&origin.file) {
            let file = loaded.files.iter().find(|file| file.name == origin.file)?;
            sources.insert(origin.file.clone(), Source::new(file.clone()));
        }
        warning(sources.get(&origin.file)?, &found.what, origin)
    });
    placed.collect()
}

fn filter(policy: &Policy, found: &mut Vec<NotEnforced>) {
    let filter = &policy.filter;
    if let Some(origin) = &filter.source_limit_origin
        && filter.source_limit != Limits::default()
    {
        found.push(written("[filter.source-limit]".to_owned(), origin));
    }
    if let Some(origin) = &filter.source_limit_max_origin {
        found.push(written("source-limit-max of [filter]".to_owned(), origin));
    }
}

fn roles(listener: &Listener, found: &mut Vec<NotEnforced>) {
    let address = shown_address(&listener.address);
    let missing: Vec<&str> = listener
        .roles
        .iter()
        .filter(|role| ROLES_NOT_SERVED.contains(role))
        .map(|role| role.name())
        .collect();
    let roles = format!("roles {} of listener {}", missing.join(", "), quoted(&address));
    match &listener.origin {
        Some(origin) if listener.roles_written && !missing.is_empty() => found.push(written(roles, origin)),
        _ if missing.is_empty() => {}
        _ => found.push(default(roles)),
    }
    if let (Some(_), Some(origin)) = (&listener.tls, &listener.origin) {
        found.push(written(format!("tls of listener {}", quoted(&address)), origin));
    }
    if let (true, Some(origin)) = (listener.assert, &listener.origin) {
        found.push(written(
            format!("assert of listener {}", quoted(&address)),
            origin,
        ));
    }
}

fn written(what: String, origin: &Origin) -> NotEnforced {
    NotEnforced {
        what,
        origin: Some(origin.clone()),
        default: false,
    }
}

fn default(what: String) -> NotEnforced {
    NotEnforced {
        what,
        origin: None,
        default: true,
    }
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
