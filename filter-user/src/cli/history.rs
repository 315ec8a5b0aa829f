//! `keyfence history`: the policies that were put in force.

use hyper::Method;
use serde_json::Value;

use super::client::{self, Call, SocketArguments};
use super::exit::{Exit, Failure};
use super::policy::{push, short, table, told};
use super::shell::Shell;

const AFTER_HELP: &str = "\
The last 20 policies, the newest first, with what put each in force and what became of it.

Exit codes:
  0  told
  1  failed
  2  wrong usage
  5  the daemon is not reachable

Example:
  keyfence history";

/// Show which policies were put in force, by whom, and what became of them
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    daemon: SocketArguments,
    /// The daemon's answer as it is: one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let call = Call {
        method: Method::GET,
        path: "/v1/policy/history".to_owned(),
        body: None,
    };
    let answer = client::answer(&arguments.daemon.socket, call, client::PATIENCE);
    let history = told(answer, arguments.json, shell)?;
    if !arguments.json {
        for unreadable in history["unreadable"].as_array().into_iter().flatten() {
            shell.say(&format!("warning: {}", unreadable.as_str().unwrap_or_default()));
        }
        shell.write(&page(&history))?;
    }
    Ok(Exit::Done)
}

fn page(history: &Value) -> String {
    let mut page = String::new();
    let mut table = table([
        "", "policy", "at", "by", "via", "state", "clients", "sources", "note",
    ]);
    let items = history["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut in_force = true;
    for item in items {
        let text = |name: &str| item[name].as_str().unwrap_or("-").to_owned();
        // Of two entries of one policy, the newer one put it in force.
        let is = in_force && item["hash"] == history["in_force"];
        in_force &= !is;
        let at: Option<jiff::Timestamp> = item["at"].as_str().and_then(|at| at.parse().ok());
        let at = at.and_then(|at| jiff::Timestamp::from_second(at.as_second()).ok());
        table.add_row([
            if is { "*" } else { "" }.to_owned(),
            short(&item["hash"]),
            at.map_or_else(|| text("at"), |at| at.to_string()),
            text("user"),
            text("via"),
            text("state"),
            item["clients"].to_string(),
            item["sources"].to_string(),
            item["note"].as_str().unwrap_or_default().to_owned(),
        ]);
    }
    push(&mut page, &table);
    page
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_in_force_is_marked_and_it_is_the_newest_of_its_kind() {
        let item = |hash: &str, via: &str| {
            json!({ "hash": hash, "at": "2026-11-22T12:00:00.5Z", "user": "root", "via": via, "state": "confirmed",
                "note": null, "clients": 2, "sources": 3 })
        };
        let items = [item("aa", "rollback"), item("bb", "apply"), item("aa", "start")];
        let page = page(&json!({ "in_force": "aa", "items": items }));
        let marked: Vec<&str> = page.lines().filter(|line| line.contains('*')).collect();
        assert_eq!(marked.len(), 1, "{page}");
        assert!(
            marked[0].contains("rollback") && marked[0].contains("2026-11-22T12:00:00Z"),
            "{page}"
        );
    }
}
