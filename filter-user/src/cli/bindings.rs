//! `keyfence bindings`: what is bound, filtered, as a table or a line of JSON each.

use std::time::Duration;

use comfy_table::{Cell, Table, presets};
use hyper::Method;
use ipnet::IpNet;
use serde_json::Value;

use super::bind::{PublisherArguments, parsed, prefix};
use super::client::{self, Call, SocketArguments, query};
use super::exit::{Exit, Failure};
use super::shell::{Shell, Tone};
use super::words::count;
use crate::policy::units::duration_from_text;

const PAGE_ITEMS: usize = 1_000;

const AFTER_HELP: &str = "\
A publisher sees its own bindings; an operator all, or those of --publisher. Every condition that is given must hold.

Exit codes:
  0  listed, also where there is none
  1  refused or failed
  2  wrong usage
  5  the daemon is not reachable

Examples:
  keyfence bindings --source 198.51.100.7
  keyfence bindings --state active --ending-within 10m
  keyfence bindings --unused-for 30d --json | jq -r .credential";

/// List bindings: who may call what from where, and until when
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// An address (prefixes that hold it) or a prefix (those that overlap it)
    #[arg(long, value_name = "ADDR", value_parser = prefix)]
    source: Option<IpNet>,
    /// That name this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// In this state
    #[arg(long, value_name = "STATE", value_parser = ["active", "held", "ended", "suspended"])]
    state: Option<String>,
    /// That end within this time
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ending_within: Option<Duration>,
    /// That have passed no packet for this time
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    unused_for: Option<Duration>,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = some)]
    limit: Option<usize>,
    #[command(flatten)]
    publisher: PublisherArguments,
    #[command(flatten)]
    daemon: SocketArguments,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    duration_from_text(text).map_err(|_| "a time is written as in 30m, 1h or 1d12h".to_owned())
}

/// For what the API counts in seconds.
pub(crate) fn whole_seconds(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    match time.subsec_nanos() {
        0 if time.as_secs() > 0 => Ok(time),
        _ => Err("whole seconds, one at least".to_owned()),
    }
}

fn some(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("a number from 1".to_owned()),
    }
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let now = jiff::Timestamp::now();
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["credential", "publisher", "sources", "services", "state", "ends"].map(Cell::new));
    let (mut shown, mut after) = (0, None);
    loop {
        let page = page(arguments, now, after.take(), shown)?;
        for item in page["items"].as_array().into_iter().flatten() {
            shown += 1;
            if arguments.json {
                let mut line = item.clone();
                line["schema"] = 1.into();
                shell.write(&format!("{line}\n"))?;
            } else {
                table.add_row(row(item));
            }
        }
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() || arguments.limit.is_some_and(|limit| shown >= limit) {
            break;
        }
    }
    if !arguments.json {
        table.force_no_tty();
        let table = if shown == 0 {
            String::new()
        } else {
            lines(&table, shell) + "\n"
        };
        shell.write(&format!("{table}{}\n", summary(shown, after.is_some())))?;
        if shown == 0 {
            not_ready(&arguments.daemon.socket, shell);
        }
    }
    Ok(Exit::Done)
}

/// Where a store could not be read there are none, and the kernel may have them all the same.
fn not_ready(socket: &std::path::Path, shell: &Shell) {
    let call = Call {
        method: Method::GET,
        path: "/readyz".to_owned(),
        body: None,
    };
    // The list itself has been answered.
    if let Ok(answer) = client::answer(socket, call, client::PATIENCE)
        && !answer.is_success()
    {
        for reason in answer.body.lines() {
            shell.say(&format!("! {reason}"));
        }
    }
}

/// A table with its head in the heading's tone.
pub(crate) fn lines(table: &Table, shell: &Shell) -> String {
    let mut text = String::new();
    for (at, line) in table.lines().enumerate() {
        let line = line.trim_end();
        text.push_str(&if at == 0 {
            shell.paint(Tone::Heading, line)
        } else {
            line.to_owned()
        });
        text.push('\n');
    }
    text
}

fn summary(shown: usize, more: bool) -> String {
    match (shown, more) {
        (0, false) => "No binding matches.".to_owned(),
        (shown, false) => format!("{}.", count(shown, "binding", "bindings")),
        (shown, true) => format!(
            "The first {}; there may be more: --limit shows them, conditions narrow them.",
            count(shown, "binding", "bindings")
        ),
    }
}

fn page(
    arguments: &Arguments,
    now: jiff::Timestamp,
    after: Option<String>,
    shown: usize,
) -> Result<Value, Failure> {
    let later = |within: Duration| {
        now.checked_add(within)
            .unwrap_or(jiff::Timestamp::MAX)
            .to_string()
    };
    let earlier = |ago: Duration| now.checked_sub(ago).unwrap_or(jiff::Timestamp::MIN).to_string();
    let left = arguments
        .limit
        .map_or(PAGE_ITEMS, |limit| (limit - shown).clamp(1, PAGE_ITEMS));
    let parameters = query(&[
        ("publisher", arguments.publisher.publisher.clone()),
        ("limit", Some(left.to_string())),
        ("after", after),
        ("source", arguments.source.map(|source| source.to_string())),
        ("service", arguments.service.clone()),
        ("state", arguments.state.clone()),
        ("ends_before", arguments.ending_within.map(later)),
        ("unused_since", arguments.unused_for.map(earlier)),
    ]);
    let path = format!("/v1/bindings{parameters}");
    parsed(&client::ask(
        &arguments.daemon.socket,
        Method::GET,
        &path,
        client::PATIENCE,
    )?)
}

fn row(item: &Value) -> Vec<Cell> {
    let text = |name: &str| item[name].as_str().unwrap_or("-").to_owned();
    let list = |name: &str| {
        let items = item[name].as_array().into_iter().flatten();
        items.filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
    };
    let state = match item["suspended_because"].as_str() {
        Some(why) => format!("{}: {why}", text("state")),
        None => text("state"),
    };
    let ends = item["ends_at"].as_str().unwrap_or("never").to_owned();
    let cells = [
        text("credential"),
        text("publisher"),
        list("sources"),
        list("services"),
        state,
        ends,
    ];
    cells.into_iter().map(Cell::new).collect()
}
