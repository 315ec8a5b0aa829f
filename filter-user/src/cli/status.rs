//! `keyfence status`: what is in force, as the daemon tells it.

mod answer;

use std::fmt::Write;
use std::time::Duration;

use self::answer::{Status, parse};
use super::client::{self, SocketArguments};
use super::exit::{Exit, Failure};
use super::shell::{Shell, Tone};
use comfy_table::{Cell, CellAlignment, Color, Table, presets};
use hyper::Method;

/// A daemon that runs answers in milliseconds; one that is stopped must not hold up who asks.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of the hash: enough to tell two policies apart at a glance.
const HASH_CHARACTERS_SHOWN: usize = 19;
/// From this fill on a table is worth a look.
const FILL_PERCENT_WARNING: u64 = 80;

const AFTER_HELP: &str = "\
Exit codes:
  0  ready
  1  failed
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
        shell.write(&page(&status, jiff::Timestamp::now(), shell))?;
    }
    Ok(exit(&status))
}

fn exit(status: &Status) -> Exit {
    let ready = status.not_ready.is_empty() && status.counters.is_some();
    if ready { Exit::Done } else { Exit::Degraded }
}

fn page(status: &Status, now: jiff::Timestamp, shell: &Shell) -> String {
    let mut page = String::new();
    head(&mut page, status, now, shell);
    let sections = [
        ("Interfaces", interfaces(status)),
        ("Services", services(status)),
        ("Tables", tables(status)),
    ];
    for (title, mut table) in sections {
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
    }
    page
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
    for reason in status.not_ready.iter().chain(&status.counters_error) {
        let _ = writeln!(page, "  {} {reason}", shell.paint(Tone::Bad, "!"));
    }
    let hash: String = policy.hash.chars().take(HASH_CHARACTERS_SHOWN).collect();
    let since = policy
        .in_force_since
        .round(jiff::Unit::Second)
        .unwrap_or(policy.in_force_since);
    let _ = writeln!(page, "policy {}, {hash}, in force since {since}", policy.file);
    let _ = writeln!(page, "mode {mode}, generation {generation}");
    if !policy.reload_ok {
        let error = policy.last_error.as_deref().unwrap_or("see the daemon's log");
        let _ = writeln!(
            page,
            "  {} the last reload changed nothing: {error}",
            shell.paint(Tone::Bad, "!")
        );
    }
    if policy.file_differs {
        let mark = shell.paint(Tone::Warning, "!");
        let _ = writeln!(
            page,
            "  {mark} the file says something else than what is in force; `keyfence reload` applies it"
        );
    }
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
    let rows = rows.map(|service| (Some(service.name.as_str()), &*service.environment, &*service.mode));
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
            Some(packets) => Cell::new(packets).fg(colour),
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
            Cell::new(fill.entries),
            Cell::new(fill.capacity),
            shown,
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::engine::fixture;

    const PLAIN: Shell = Shell {
        colour_output: false,
        colour_errors: false,
    };

    /// What the daemon would answer.
    fn answer(change: impl FnOnce(&mut serde_json::Value)) -> String {
        let mut status = serde_json::to_value(fixture::snapshot()).unwrap();
        status["schema"] = 1.into();
        status["counters"] = serde_json::to_value(fixture::counters()).unwrap();
        status["counters_error"] = serde_json::Value::Null;
        change(&mut status);
        status.to_string()
    }

    fn shown(change: impl FnOnce(&mut serde_json::Value)) -> (String, Exit) {
        let status = parse(&answer(change)).unwrap();
        let now = "2026-11-24T15:30:00Z".parse().unwrap();
        (page(&status, now, &PLAIN), exit(&status))
    }

    #[test]
    fn page_shows_interfaces_services_with_packets_and_tables() {
        let (page, exit) = shown(|_| {});
        assert_eq!(exit, Exit::Done);
        let expected = "\
keyfence 0.1.0, instance main, up 2d 3h: ready
policy /etc/keyfence/keyfence.toml, sha256:0f0f0f0f0f0f, in force since 2026-11-22T12:00:00Z
mode enforce, generation 7

Interfaces
  interface  index  mode    attached
  eth0       2      native  yes

Services
  service   environment  mode     passed  dropped  observed
  payments  production   observe      12        0         5
  (none)                               7        0         0

Tables
  table   entries  capacity  fill
  grants        3      1024   0 %
";
        assert_eq!(page, expected);
    }

    #[test]
    fn what_is_not_ready_is_named_and_ends_with_degraded() {
        let (page, exit) = shown(|status| {
            status["not_ready"] = vec!["eth0 is not attached: another program holds the hook"].into();
            status["policy"]["reload_ok"] = false.into();
            status["policy"]["last_error"] = "keyfence.toml:3:1: unknown key".into();
            status["policy"]["file_differs"] = true.into();
        });
        assert_eq!(exit, Exit::Degraded);
        for part in [
            ": degraded\n  ! eth0 is not attached",
            "changed nothing: keyfence.toml:3:1:",
            "`keyfence reload`",
        ] {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
    }

    #[test]
    fn unreadable_counters_are_question_marks_and_degraded() {
        let (page, exit) = shown(|status| {
            status["counters"] = serde_json::Value::Null;
            status["counters_error"] = "map verdicts: permission denied".into();
        });
        assert_eq!(exit, Exit::Degraded);
        assert!(page.contains("! map verdicts: permission denied"), "{page}");
        assert!(
            page.lines()
                .any(|line| line.contains("payments") && line.ends_with('?')),
            "{page}"
        );
    }

    #[test]
    fn colours_are_there_only_when_asked_for() {
        let status = parse(&answer(|_| {})).unwrap();
        let now = jiff::Timestamp::UNIX_EPOCH;
        assert!(!page(&status, now, &PLAIN).contains('\x1b'));
        let colour = Shell {
            colour_output: true,
            ..PLAIN
        };
        assert!(page(&status, now, &colour).contains("\x1b[32mready\x1b[0m"));
    }

    #[test]
    fn newer_schema_is_refused_and_new_members_are_not() {
        assert!(parse(&answer(|status| status["new"] = 1.into())).is_ok());
        assert!(parse(&answer(|status| status["schema"] = 2.into())).is_err());
    }

    #[test]
    fn daemon_that_is_absent_or_gone_is_unreachable_with_the_fix() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("api.sock");
        let ask = || client::ask(&socket, Method::GET, "/v1/status", PATIENCE).unwrap_err();
        let absent = ask();
        assert_eq!(absent.exit, Exit::Unreachable);
        assert!(
            absent.text.contains("systemctl start keyfence") && absent.text.contains("--socket"),
            "{}",
            absent.text
        );
        drop(UnixListener::bind(&socket).unwrap());
        let gone = ask();
        assert_eq!(gone.exit, Exit::Unreachable);
        assert!(gone.text.contains("is gone"), "{}", gone.text);
    }

    #[test]
    fn daemon_that_is_stopped_is_unreachable_within_seconds() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("api.sock");
        // The kernel takes the connection, as for a daemon under SIGSTOP.
        let _silent = UnixListener::bind(&socket).unwrap();
        let arguments = Arguments {
            daemon: SocketArguments { socket },
            json: false,
        };
        let asked = std::time::Instant::now();
        let stopped = run(&arguments, &PLAIN).unwrap_err();
        assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
        assert_eq!(stopped.exit, Exit::Unreachable);
        assert!(
            stopped.text.contains("no answer within 5 s") && stopped.text.contains("stopped or overloaded"),
            "{}",
            stopped.text
        );
    }
}
