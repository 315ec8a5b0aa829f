//! `keyfence status`: what is in force, as the daemon tells it.

mod answer;
mod reloads;
#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use self::answer::{Publisher, Status, parse};
use self::reloads::{reloads, taken_off};
use super::client::{self, SocketArguments};
use super::exit::{Exit, Failure};
use super::shell::{Shell, Tone};
use super::words::thousands;
use comfy_table::{Cell, CellAlignment, Color, Table, presets};
use hyper::Method;

/// A daemon that runs answers in milliseconds; one that is stopped must not hold up who asks.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of the hash: enough to tell two policies apart at a glance.
const HASH_CHARACTERS_SHOWN: usize = 19;
/// How the daemon's word for a failed reload begins.
const RELOAD_FAILED: &str = "the last reload failed";
const FILE_INVALID: &str = "the policy file is invalid";
/// A section of the page, with what was read back of them below.
const TABLES: &str = "Tables";
/// From this fill on a table is worth a look.
const FILL_PERCENT_WARNING: u64 = 80;

const AFTER_HELP: &str = "\
Exit codes:
  0  ready
  1  failed
  2  wrong usage
  5  the daemon is not reachable
  6  degraded: something is not ready, and named

Examples:
  keyfence status
  keyfence status --json | jq .not_ready";

/// Show what is in force: interfaces, policy, services with their packets, tables, what is not ready
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
    let body = client::ask(&arguments.daemon.socket, Method::GET, "/v1/status", PATIENCE)?;
    let status = parse(&body)?;
    if arguments.json {
        shell.write(&format!("{}\n", body.trim_end()))?;
    } else {
        // Only what is sure: a folder that may not be looked into says nothing.
        let file = Path::new(&status.policy.file);
        let gone = file.is_absolute() && matches!(file.try_exists(), Ok(false));
        let now = jiff::Timestamp::now();
        shell.write(&page(&status, (now, gone), shell))?;
    }
    Ok(exit(&status))
}

fn exit(status: &Status) -> Exit {
    let ready = status.not_ready.is_empty() && status.counters.is_some();
    if ready { Exit::Done } else { Exit::Degraded }
}

/// `gone`: the policy's file is not there.
fn page(status: &Status, (now, gone): (jiff::Timestamp, bool), shell: &Shell) -> String {
    let mut page = String::new();
    head(&mut page, status, now, shell);
    reloads(&mut page, status, gone, shell);
    let sections = [
        ("Interfaces", interfaces(status)),
        ("Services", services(status)),
        (TABLES, tables(status)),
        ("Bindings", publishers(status)),
    ];
    // Where nobody may push, there are none to tell of.
    let shown = sections.into_iter().filter(|(_, table)| table.row_count() > 0);
    for (title, mut table) in shown {
        // The decision is the shell's; the table must not look at the terminal again.
        if shell.colour_output {
            table.enforce_styling()
        } else {
            table.force_no_tty()
        };
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(page, "\n{}", shell.paint(Tone::Heading, title));
        for line in table.lines() {
            let _ = writeln!(page, "{}", line.trim_end());
        }
        if title == TABLES {
            read_back(&mut page, status, now, shell);
        }
    }
    page
}

/// Whether the tables hold what the daemon wrote; what is wrong stands at the head already.
fn read_back(page: &mut String, status: &Status, now: jiff::Timestamp, shell: &Shell) {
    let Some(at) = status.drift.checked_at else {
        return;
    };
    let ago = elapsed(now.as_second().saturating_sub(at.as_second()));
    let past = status.drift.generation.filter(|read| *read != status.generation);
    let found = match (status.drift.entries, past) {
        (0, _) => "all as written".to_owned(),
        (1, None) => shell.paint(Tone::Bad, "1 entry is not as written"),
        (entries, None) => shell.paint(
            Tone::Bad,
            &format!("{} entries are not as written", thousands(entries)),
        ),
        (entries, Some(read)) => {
            let entries = match entries {
                1 => "1 entry was".to_owned(),
                many => format!("{} entries were", thousands(many)),
            };
            let mended = format!("{entries} not as written in generation {read}, which is in force no more");
            shell.paint(Tone::Warning, &mended)
        }
    };
    let _ = writeln!(page, "  read back {ago} ago: {found}");
}

/// Bindings that are kept without a grant, and what is denied beside the policy.
fn bindings(page: &mut String, status: &Status, shell: &Shell) {
    let Some(bindings) = &status.bindings else { return };
    for Publisher { name, suspended, .. } in bindings.publishers.iter().filter(|one| one.suspended > 0) {
        let mark = shell.paint(Tone::Warning, "!");
        let what = match suspended {
            1 => format!("1 binding of {name} is suspended"),
            many => format!("{} bindings of {name} are suspended", thousands(*many)),
        };
        let _ = writeln!(
            page,
            "  {mark} {what}: `keyfence bindings --state suspended` says why"
        );
    }
    match bindings.denies {
        0 => {}
        1 => page.push_str("1 deny of run time: `keyfence deny --list`\n"),
        many => {
            let _ = writeln!(
                page,
                "{} denies of run time: `keyfence deny --list`",
                thousands(many)
            );
        }
    }
}

/// What concerns the whole daemon; what is wrong comes first.
fn head(page: &mut String, status: &Status, now: jiff::Timestamp, shell: &Shell) {
    let state = match exit(status) {
        Exit::Done => shell.paint(Tone::Good, "ready"),
        _ => shell.paint(Tone::Bad, "degraded"),
    };
    let up = elapsed(now.as_second().saturating_sub(status.started_at.as_second()));
    let Status {
        version,
        instance,
        policy,
        mode,
        generation,
        ..
    } = status;
    let _ = writeln!(page, "keyfence {version}, instance {instance}, up {up}: {state}");
    // A reload that failed is told below, with its cause.
    let told_below = |reason: &&String| {
        !policy.reload_ok && (reason.starts_with(RELOAD_FAILED) || reason.starts_with(FILE_INVALID))
    };
    let not_ready = status.not_ready.iter().filter(|reason| !told_below(reason));
    let alarms = status.bindings.iter().flat_map(|bindings| &bindings.alarms);
    // Some make the daemon unready: told once.
    let alarms = alarms.filter(|alarm| !status.not_ready.contains(alarm));
    for reason in not_ready.chain(&status.counters_error).chain(alarms) {
        let _ = writeln!(page, "  {} {reason}", shell.paint(Tone::Bad, "!"));
    }
    for observing in &status.observing {
        let mark = shell.paint(Tone::Warning, "!");
        let _ = writeln!(page, "  {mark} {}", super::observe::line(observing));
    }
    if taken_off(status) {
        let mark = shell.paint(Tone::Bad, "!");
        let _ = writeln!(
            page,
            "  {mark} the filter was taken off while the daemon ran: restart the daemon"
        );
    }
    let hash: String = policy.hash.chars().take(HASH_CHARACTERS_SHOWN).collect();
    // The second that it is in: a later one would be before its time.
    let since =
        jiff::Timestamp::from_second(policy.in_force_since.as_second()).unwrap_or(policy.in_force_since);
    let _ = writeln!(page, "policy {}, {hash}, in force since {since}", policy.file);
    if let Some(pending) = &policy.pending {
        let base: String = pending.base.chars().take(HASH_CHARACTERS_SHOWN).collect();
        let _ = writeln!(
            page,
            "  {} not confirmed: {base} is back at {} unless `keyfence confirm` comes first",
            shell.paint(Tone::Warning, "!"),
            pending.deadline
        );
    }
    let mode = mode.as_deref().unwrap_or("unknown");
    let _ = writeln!(page, "mode {mode}, generation {generation}");
    bindings(page, status, shell);
}

fn table(header: &[&str], numbers_from: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((if index == 0 { 2 } else { 0 }, 2));
        if index >= numbers_from {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn interfaces(status: &Status) -> Table {
    let mut table = table(&["interface", "index", "mode", "attached"], usize::MAX);
    for interface in &status.interfaces {
        let attached = match interface.attached {
            true => Cell::new("yes").fg(Color::Green),
            false => Cell::new("no").fg(Color::Red),
        };
        table.add_row([
            Cell::new(&interface.name),
            Cell::new(interface.ifindex),
            Cell::new(&interface.mode),
            attached,
        ]);
    }
    table
}

fn services(status: &Status) -> Table {
    let mut table = table(
        &["service", "environment", "mode", "passed", "dropped", "observed"],
        3,
    );
    let rows = status.services.iter();
    let rows = rows.map(|service| {
        let mode = service.mode.as_deref().unwrap_or("?");
        (Some(service.name.as_str()), &*service.environment, mode)
    });
    for (name, environment, mode) in rows.chain([(None, "", "")]) {
        let sum = |verdict: &str| {
            let counters = status.counters.as_ref()?;
            let counts = counters
                .verdicts
                .iter()
                .filter(|count| count.service.as_deref() == name);
            Some(
                counts
                    .filter(|count| count.verdict == verdict)
                    .map(|count| count.packets)
                    .sum::<u64>(),
            )
        };
        let cell = |verdict, colour| match sum(verdict) {
            Some(0) => Cell::new(0),
            Some(packets) => Cell::new(thousands(packets)).fg(colour),
            None => Cell::new("?"),
        };
        let mode = match mode {
            "observe" => Cell::new(mode).fg(Color::Yellow),
            _ => Cell::new(mode),
        };
        table.add_row([
            Cell::new(name.unwrap_or("(none)")),
            Cell::new(environment),
            mode,
            cell("pass", Color::Green),
            cell("drop", Color::Red),
            cell("observe", Color::Yellow),
        ]);
    }
    table
}

fn tables(status: &Status) -> Table {
    let mut table = table(&["table", "entries", "capacity", "fill"], 1);
    for fill in &status.tables {
        let percent = fill.entries.saturating_mul(100) / fill.capacity.max(1);
        let shown = Cell::new(format!("{percent} %"));
        let shown = if percent >= FILL_PERCENT_WARNING {
            shown.fg(Color::Yellow)
        } else {
            shown
        };
        table.add_row([
            Cell::new(&fill.table),
            Cell::new(thousands(fill.entries)),
            Cell::new(thousands(fill.capacity)),
            shown,
        ]);
    }
    table
}

fn publishers(status: &Status) -> Table {
    let header = [
        "publisher",
        "active",
        "held",
        "ended",
        "suspended",
        "ending in 1h",
        "last success",
    ];
    let mut table = table(&header, 1);
    let publishers = status.bindings.iter().flat_map(|bindings| &bindings.publishers);
    for publisher in publishers {
        let colour = |count: u64| match count {
            0 => Cell::new(0),
            count => Cell::new(thousands(count)).fg(Color::Yellow),
        };
        table.add_row([
            Cell::new(&publisher.name),
            Cell::new(thousands(publisher.active)),
            colour(publisher.held),
            Cell::new(thousands(publisher.ended)),
            colour(publisher.suspended),
            Cell::new(thousands(publisher.ending[1])),
            Cell::new(publisher.last_success.as_deref().unwrap_or("never")),
        ]);
    }
    table
}

/// The two largest units of a time: `2d 3h`.
fn elapsed(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}
