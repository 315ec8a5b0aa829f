//! The reference of the policy file (docs/POLICY.md), written from the table of keys.

use std::fmt::Write;

use crate::policy::keys::{
    AUTHORIZE, BUCKET, CERTIFICATE, CLIENT, CREDENTIALS, DAEMON, DENY, EXPECT, FILTER, Key, Kind, LABELS,
    LIMITS, LISTENER, MANAGEMENT, PUBLISHER, Presence, RECORDS, ROOT, SECRET_FILE, SERVICE, SINK, TLS, Table,
    Taken, WIDEST_PREFIX,
};
use crate::policy::units::duration_text;

/// Every table, in the order in which a reader meets them.
const TABLES: [&Table; 21] = [
    &ROOT,
    &FILTER,
    &SERVICE,
    &CLIENT,
    &DENY,
    &MANAGEMENT,
    &PUBLISHER,
    &EXPECT,
    &DAEMON,
    &LISTENER,
    &CREDENTIALS,
    &AUTHORIZE,
    &RECORDS,
    &SINK,
    &LIMITS,
    &BUCKET,
    &LABELS,
    &CERTIFICATE,
    &WIDEST_PREFIX,
    &TLS,
    &SECRET_FILE,
];

const HEAD: &str = "# The policy file

<!-- Generated from filter-user/src/policy/keys. -->

TOML; by default `/etc/keyfence/keyfence.toml`. Unknown keys are faults. Names are
`[A-Za-z0-9][A-Za-z0-9._-]{0,62}`. Counts and bytes are numbers or text with `k M G` (powers of 1000) or
`Ki Mi Gi` (of 1024), bytes also with `B` and `bit`: `\"500k\"`, `\"10MB\"`, `\"80Mbit\"`. A rate is such a
number a second, or text with `/s`, `/m` or `/h`. Durations are text of `d h m s ms`, combined: `\"1h30m\"`.
An address without a length is that one address; IPv4-mapped prefixes are read as IPv4.

*Reload* takes effect with the next reload or apply, *restart* with the next start of the daemon.
";

/// Markdown, one section a table.
pub fn reference() -> String {
    let mut text = HEAD.to_owned();
    for table in TABLES {
        section(&mut text, table);
    }
    text
}

fn section(text: &mut String, table: &Table) {
    let taken = match table.taken {
        Taken::Reload => "Reload.",
        Taken::Restart => "Restart.",
    };
    // Writing to a string cannot fail, here and below.
    let _ = write!(text, "\n## {}\n\n{} {taken}\n", table.title, table.about);
    if table.keys.is_empty() {
        return;
    }
    text.push_str("\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n");
    for key in table.keys {
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            key.name,
            kind(key),
            presence(key),
            cell(key.about)
        );
    }
}

fn presence(key: &Key) -> String {
    match key.presence {
        Presence::Required(_) => "required".to_owned(),
        Presence::Optional(meaning) => cell(meaning),
        Presence::Default(text) => format!("`{}`", cell(text)),
    }
}

fn kind(key: &Key) -> String {
    match key.kind {
        Kind::Text { bytes_max } => format!("text, at most {bytes_max} bytes"),
        Kind::Name => "name".to_owned(),
        Kind::Boolean => "`true` or `false`".to_owned(),
        Kind::Word(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
            words.join(", ")
        }
        Kind::Count { min, max } if min == max => min.to_string(),
        Kind::Count { min, max } => format!("count, {min} to {max}"),
        Kind::Bytes { min, max } => format!("bytes, {min} to {max}"),
        Kind::Duration { min, max } => format!("duration, {} to {}", seconds(min), seconds(max)),
        Kind::Form(form) => cell(form),
        Kind::List { of, min, max } => {
            let least = if min == 0 {
                String::new()
            } else {
                format!("at least {min}, ")
            };
            format!("list of {}, {least}at most {max}", cell(of))
        }
        Kind::Table(table) => format!("table, see {}", link(table)),
        Kind::Tables(table) => format!("tables, see {}", link(table)),
    }
}

fn seconds(seconds: u64) -> String {
    duration_text(std::time::Duration::from_secs(seconds))
}

/// To the section's anchor, as Markdown renderers make it from the headline.
fn link(table: &Table) -> String {
    let anchor: String = table
        .title
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' => Some(c),
            _ => None,
        })
        .collect();
    format!(
        "[{}](#{anchor})",
        table
            .title
            .replace('[', "\\[")
            .replace(']', "\\]")
            .replace('`', "")
    )
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
