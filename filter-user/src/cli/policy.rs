//! What `plan`, `apply`, `confirm`, `rollback` and `history` have in common: the file as it is sent, the question, and the
//! plan as people read it.

use std::path::Path;
use std::time::Duration;

use comfy_table::{Table, presets};
use hyper::Method;
use serde_json::{Map, Value};

use super::ancestors;
use super::client::{self, Answer, Call};
use super::exit::{Exit, Failure};
use super::run;
use super::shell::{Shell, Tone};
use super::words::{count, thousands};
use crate::engine;
use crate::policies::{PolicyText, REFUSED};

/// A policy of millions of sources takes its time; the daemon gives up at the same time.
pub(super) const PATIENCE: Duration = Duration::from_secs(605);
/// Characters of a hash that tell it from others.
const HASH_CHARACTERS_SHOWN: usize = 12;
const HASH_DIGITS_MIN: usize = 8;
/// Changes shown; the rest is counted, and `--json` has more.
const CHANGES_SHOWN_MAX: usize = 50;

/// The policy of a file, free of faults, as the daemon takes it; with `json`, what is wrong is one object as well.
pub(super) fn body(file: &Path, json: bool, shell: &Shell) -> Result<Value, Failure> {
    let read = read(file, shell);
    if let Err(failure) = &read
        && json
    {
        shell.write(&format!("{}\n", problem("", failure)))?;
    }
    read
}

fn read(file: &Path, shell: &Shell) -> Result<Value, Failure> {
    let loaded = engine::load_policy(file);
    if loaded.policy.is_none() {
        return Err(run::invalid(&loaded, shell));
    }
    let text = PolicyText::of(&loaded, None).ok_or_else(|| {
        let text = "the policy cannot be sent: the name of one of its files is no text; rename it";
        Failure::new(Exit::Failed, text)
    })?;
    serde_json::to_value(text).map_err(|error| Failure::new(Exit::Failed, error))
}

/// Asks, and with `json` writes the one object that comes of it: the answer, or the problem.
pub(super) fn ask(
    socket: &Path,
    (path, body): (&str, Option<Value>),
    json: bool,
    shell: &Shell,
) -> Result<Value, Failure> {
    let call = Call {
        method: Method::POST,
        path: path.to_owned(),
        body,
    };
    told(client::answer(socket, call, PATIENCE), json, shell)
}

/// A policy's hash, or enough of its beginning to be no accident.
pub(super) fn digits(text: &str) -> Result<String, String> {
    let hexadecimal = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    match hexadecimal && (HASH_DIGITS_MIN..=64).contains(&text.len()) {
        true => Ok(text.to_owned()),
        false => Err("a policy's hash is 8 to 64 digits of 0-9 and a-f".to_owned()),
    }
}

/// The hash of the policy that waits to be confirmed; fails where none does.
pub(super) fn waiting(socket: &Path, json: bool, shell: &Shell) -> Result<String, Failure> {
    let call = Call {
        method: Method::GET,
        path: "/v1/status".to_owned(),
        body: None,
    };
    let none = || {
        let text = "no policy waits to be confirmed, so nothing was done: `keyfence history` shows what became of it";
        Failure::new(Exit::Failed, text)
    };
    let waiting = client::answer(socket, call, PATIENCE).and_then(|answer| {
        let pending = answer.body.parse::<Value>().unwrap_or_default();
        let hash = pending["policy"]["pending"]["hash"].as_str().map(str::to_owned);
        hash.ok_or_else(none)
    });
    if let (Err(failure), true) = (&waiting, json) {
        shell.write(&format!("{}\n", problem("", failure)))?;
    }
    waiting.map_err(shown)
}

/// `--json` has its object.
fn shown(failure: Failure) -> Failure {
    Failure {
        answer: None,
        ..failure
    }
}

/// The connections that this command hangs on, as the guard takes them; what could not be looked at is said.
pub(super) fn held(shell: &Shell) -> Value {
    let found = ancestors::connections(Path::new("/proc"));
    for unseen in &found.unseen {
        shell.say(&format!("warning: {unseen}"));
    }
    serde_json::to_value(found.connections).unwrap_or_default()
}

/// Reminds whoever put another file's policy in force of the file that the daemon runs with: a reload goes back to it.
pub(super) fn remind(socket: &Path, shell: &Shell) {
    let Ok(status) = client::ask(socket, Method::GET, "/v1/status", PATIENCE) else {
        return;
    };
    let status: Value = serde_json::from_str(&status).unwrap_or_default();
    let policy = &status["policy"];
    let file = text(policy, "file");
    if let Some(fault) = policy["file_error"].as_str() {
        shell.say(&format!(
            "note: the next reload or start would not take {file}, which the daemon runs with: {fault}"
        ));
    } else if policy["file_differs"] == true {
        shell.say(&format!(
            "note: {file}, which the daemon runs with, says something else, and `keyfence reload` would go back to it: \
             write what is in force there as well (`keyfence plan {file}` shows what differs)"
        ));
    }
}

/// The object of an answer; with `json` it is written as it is.
pub(super) fn told(answer: Result<Answer, Failure>, json: bool, shell: &Shell) -> Result<Value, Failure> {
    let (object, result) = match answer {
        Ok(answer) if answer.is_success() => (answer.body.clone(), Ok(answer.body)),
        Ok(answer) => {
            let failure = client::refused(&answer);
            (problem(&answer.body, &failure).to_string(), Err(failure))
        }
        Err(failure) => (problem("", &failure).to_string(), Err(failure)),
    };
    if json {
        shell.write(&format!("{}\n", object.trim_end()))?;
    }
    let body = result.map_err(shown)?;
    serde_json::from_str(&body).map_err(|error| {
        let text = format!("the daemon's answer is not understood: {error}");
        Failure::new(Exit::Failed, text)
    })
}

/// The daemon's problem document as it is, or one of what kept it from answering.
pub(super) fn problem(body: &str, failure: &Failure) -> Value {
    let mut object = match serde_json::from_str(body) {
        Ok(Value::Object(object)) => object,
        _ => Map::from_iter([("detail".to_owned(), Value::from(failure.text.as_str()))]),
    };
    object.insert("schema".to_owned(), 1.into());
    Value::Object(object)
}

pub(super) fn short(hash: &Value) -> String {
    let hash = hash.as_str().unwrap_or("?");
    hash.chars().take(HASH_CHARACTERS_SHOWN).collect()
}

fn list<'v>(plan: &'v Value, name: &str) -> &'v [Value] {
    plan[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or("-")
}

fn joined(values: &Value) -> String {
    let values = values.as_array().into_iter().flatten();
    let values: Vec<&str> = values.filter_map(Value::as_str).collect();
    values.join(", ")
}

/// A plan: its changes, whom it would cut, what it would suspend.
pub(super) fn page(plan: &Value, shell: &Shell) -> String {
    let mut page = format!(
        "policy {}, in force {}\n",
        short(&plan["hash"]),
        short(&plan["base"])
    );
    if plan["differs"] == false {
        page.push_str("nothing would change\n");
        return page;
    }
    let changes = list(plan, "changes");
    for change in changes.iter().take(CHANGES_SHOWN_MAX) {
        page.push_str(&line(change, shell));
    }
    if changes.len() > CHANGES_SHOWN_MAX {
        let more = count(changes.len() - CHANGES_SHOWN_MAX, "more change", "more changes");
        page.push_str(&format!("  … and at least {more}; `--json` has up to 3,000\n"));
    }
    let counts = &plan["counts"];
    let number = |name: &str| counts[name].as_u64().unwrap_or(0);
    page.push_str(&format!(
        "sources: {} gained, {} lost\n",
        thousands(number("sources_gained")),
        thousands(number("sources_lost")),
    ));
    let cut = list(plan, "cut");
    if !cut.is_empty() {
        let head = format!(
            "{} would be cut whose owner sent traffic in the last day (its figures are of all its sources):",
            total(number("cut"), "source")
        );
        page.push_str(&format!("\n{}\n", shell.paint(Tone::Bad, &head)));
        let mut table = table([
            "source",
            "services",
            "owner",
            "reason",
            "owner last seen",
            "owner's packets",
        ]);
        for one in cut.iter().take(CHANGES_SHOWN_MAX) {
            table.add_row([
                text(one, "source").to_owned(),
                joined(&one["services"]),
                text(one, "owner").to_owned(),
                text(one, "reason").to_owned(),
                text(one, "last_seen").to_owned(),
                thousands(one["packets"].as_u64().unwrap_or(0)),
            ]);
        }
        push(&mut page, &table);
    }
    let suspended = list(plan, "suspended");
    if !suspended.is_empty() {
        let head = format!("{} would be suspended:", total(number("suspended"), "binding"));
        page.push_str(&format!("\n{}\n", shell.paint(Tone::Warning, &head)));
        let mut table = table(["publisher", "credential", "because", "last seen"]);
        for one in suspended.iter().take(CHANGES_SHOWN_MAX) {
            let cells = ["publisher", "credential", "because", "last_seen"];
            table.add_row(cells.map(|cell| text(one, cell).to_owned()));
        }
        push(&mut page, &table);
    }
    page
}

fn total(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", thousands(number))
}

/// `+ source 198.51.100.0/24 for payments (client/acme)`, `~ client acme: limit, services`.
fn line(change: &Value, shell: &Shell) -> String {
    let (sign, tone) = match text(change, "change") {
        "added" | "gained" => ("+", Tone::Good),
        "removed" | "lost" => ("-", Tone::Bad),
        _ => ("~", Tone::Warning),
    };
    let mut line = format!("{} {}", text(change, "kind"), text(change, "name"));
    if let Some(owner) = change["owner"].as_str() {
        line.push_str(&format!(" for {} ({owner})", joined(&change["services"])));
    }
    if let Some(keys) = change["keys"].as_object() {
        let keys: Vec<&str> = keys.keys().map(String::as_str).collect();
        line.push_str(&format!(": {}", keys.join(", ")));
    }
    format!("  {} {line}\n", shell.paint(tone, sign))
}

pub(super) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.force_no_tty();
    table.set_header(header);
    table
}

pub(super) fn push(page: &mut String, table: &Table) {
    for line in table.lines() {
        page.push_str(line.trim_end());
        page.push('\n');
    }
}

/// The policy's warnings, on standard error.
pub(super) fn warn(plan: &Value, shell: &Shell) {
    for warning in list(plan, "warnings").iter().filter_map(Value::as_str) {
        shell.say(&format!("warning: {warning}"));
    }
}

/// Of a plan's warnings, the one of connections that the guard would not let it cut.
pub(super) fn warn_of_cut(plan: &Value, shell: &Shell) {
    for refused in list(plan, "warnings")
        .iter()
        .filter_map(|warning| warning.as_str()?.strip_prefix(REFUSED))
    {
        shell.say(&format!("warning: {refused}"));
    }
}

#[cfg(test)]
mod tests {
    use clap::ColorChoice;
    use serde_json::json;

    use super::*;

    #[test]
    fn plan_is_told_by_its_changes_and_by_whom_it_cuts() {
        let shell = Shell::new(ColorChoice::Never);
        let mut plan = json!({
            "schema": 1, "hash": "a".repeat(64), "base": "b".repeat(64), "differs": true,
            "changes": [
                { "kind": "client", "change": "changed", "name": "acme", "keys": { "limit": {}, "services": {} } },
                { "kind": "source", "change": "lost", "name": "198.51.100.0/24", "owner": "client/acme",
                  "services": ["payments"] },
            ],
            "cut": [{ "source": "198.51.100.0/24", "services": ["payments"], "owner": "client/acme",
                "reason": "unlisted", "last_seen": "2026-11-22T12:00:00Z", "packets": 12345 }],
            "suspended": [{ "publisher": "gateway", "credential": "key-1", "because": "no such service",
                "last_seen": null }],
            "counts": { "sources_gained": 0, "sources_lost": 1, "cut": 1, "suspended": 1 },
        });
        let told = page(&plan, &shell);
        for part in [
            "policy aaaaaaaaaaaa, in force bbbbbbbbbbbb\n",
            "  ~ client acme: limit, services\n",
            "  - source 198.51.100.0/24 for payments (client/acme)\n",
            "sources: 0 gained, 1 lost\n",
            "1 source would be cut whose owner sent traffic in the last day",
            "12,345",
            "1 binding would be suspended:",
            "key-1",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        plan["differs"] = false.into();
        assert!(page(&plan, &shell).ends_with("nothing would change\n"));
    }

    #[test]
    fn failure_is_one_object_with_its_problem() {
        let failure = Failure::new(Exit::Unreachable, "no answer");
        assert_eq!(
            problem("", &failure),
            json!({ "schema": 1, "detail": "no answer" })
        );
        let body = r#"{"code": "policy-invalid", "detail": "a.toml:1:1"}"#;
        let object = problem(body, &failure);
        assert_eq!(
            object,
            json!({ "schema": 1, "code": "policy-invalid", "detail": "a.toml:1:1" })
        );
    }
}
