//! The page of a status, and what it ends with.

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
    (page(&status, (now, false), &PLAIN), exit(&status))
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
  grants        3     1,024   0 %
";
    assert_eq!(page, expected);
}

#[test]
fn what_is_not_ready_is_named_and_ends_with_degraded() {
    let (page, exit) = shown(|status| {
        status["not_ready"] = vec![
            "eth0 is not attached: another program holds the hook",
            "the last reload failed; what was in force before still is",
        ]
        .into();
        status["policy"]["reload_ok"] = false.into();
        status["policy"]["last_error"] = "keyfence.toml:3:1: unknown key\n\n  and where\n".into();
        status["policy"]["file_differs"] = true.into();
    });
    assert_eq!(exit, Exit::Degraded);
    for part in [
        ": degraded\n  ! eth0 is not attached",
        "changed nothing: keyfence.toml:3:1: unknown key\n      and where\n",
        "! mend the file, then `keyfence reload`\n",
    ] {
        assert!(page.contains(part), "{part} is not in\n{page}");
    }
    assert_eq!(page.matches("reload changed").count(), 1, "{page}");
    assert!(
        !page.contains("reload failed") && !page.contains("applies it"),
        "{page}"
    );
}

#[test]
fn what_waits_to_be_confirmed_and_a_file_that_was_invalid_at_the_start_are_told() {
    let (page, exit) = shown(|status| {
        status["policy"]["pending"] =
            serde_json::json!({ "hash": "aa", "base": "bb", "deadline": "2026-11-22T12:00:00Z" });
    });
    assert_eq!(exit, Exit::Done);
    assert!(
        page.contains("! not confirmed: bb is back at 2026-11-22T12:00:00Z unless `keyfence confirm`"),
        "{page}"
    );
    let (page, _) = shown(|status| {
        status["not_ready"] =
            vec!["the policy file is invalid; the last confirmed policy serves for all"].into();
        status["policy"]["reload_ok"] = false.into();
        status["policy"]["last_error"] = "keyfence.toml:3:1: unknown key".into();
    });
    assert_eq!(page.matches("invalid at the start").count(), 1, "{page}");
    assert!(
        !page.contains("changed nothing") && page.contains("keyfence.toml:3:1"),
        "{page}"
    );
}

#[test]
fn suspended_bindings_and_denies_of_run_time_are_told() {
    let publisher = |name: &str, suspended: u64| {
        serde_json::json!({ "name": name, "active": 0, "held": 0, "ended": 0, "suspended": suspended,
            "ending": [0, 0, 0], "last_success": null })
    };
    let (page, exit) = shown(|status| {
        status["bindings"] = serde_json::json!({ "alarms": [], "denies": 2,
            "publishers": [publisher("gateway", 3), publisher("other", 0)] });
    });
    assert_eq!(exit, Exit::Done);
    assert!(
        page.contains("  ! 3 bindings of gateway are suspended: "),
        "{page}"
    );
    assert!(
        page.contains("\n2 denies of run time: `keyfence deny --list`\n"),
        "{page}"
    );
    assert_eq!(page.matches("are suspended").count(), 1, "{page}");
}

#[test]
fn advice_is_what_helps_here() {
    let parsed = parse(&answer(|status| status["policy"]["file_differs"] = true.into())).unwrap();
    let now = jiff::Timestamp::UNIX_EPOCH;
    let differs = page(&parsed, (now, false), &PLAIN);
    assert!(
        differs.contains("what `keyfence reload` would change"),
        "{differs}"
    );
    let unreadable = |status: &mut serde_json::Value| {
        status["policy"]["file_differs"] = true.into();
        status["policy"]["file_error"] = "it cannot be read: Permission denied\n".into();
    };
    let shut = page(&parse(&answer(unreadable)).unwrap(), (now, false), &PLAIN);
    assert!(
        shut.contains("would not take the file: it cannot be read: Permission denied\n")
            && !shut.contains("says something else"),
        "{shut}"
    );
    let gone = page(&parsed, (now, true), &PLAIN);
    assert!(
        gone.contains("is gone: put it back") && !gone.contains("applies it"),
        "{gone}"
    );
    let detached = |error: Option<&'static str>| {
        shown(|status| {
            status["interfaces"][0]["attached"] = false.into();
            status["not_ready"] = vec!["interface eth0 is not filtered"].into();
            status["policy"]["reload_ok"] = error.is_none().into();
            status["policy"]["last_error"] = error.into();
        })
        .0
    };
    for error in [None, Some("the filter was detached: restart the daemon")] {
        let page = detached(error);
        assert!(
            page.contains("restart the daemon") && !page.contains("mend"),
            "{page}"
        );
    }
}

#[test]
fn read_back_says_when_and_what_it_found() {
    let page = |entries: u64, generation: u64| {
        let (page, _) = shown(|status| {
            status["generation"] = 7.into();
            status["drift"]["entries"] = entries.into();
            status["drift"]["generation"] = generation.into();
            status["drift"]["checked_at"] = "2026-11-24T15:29:57Z".into();
        });
        let last = page.lines().last().unwrap();
        last.strip_prefix("  read back 3s ago: ").unwrap().to_owned()
    };
    assert_eq!(page(0, 7), "all as written");
    assert_eq!(page(0, 5), "all as written");
    assert_eq!(page(1, 7), "1 entry is not as written");
    assert_eq!(page(1200, 7), "1,200 entries are not as written");
    let past = "not as written in generation 5, which is in force no more";
    assert_eq!(page(1, 5), format!("1 entry was {past}"));
    assert_eq!(page(1200, 5), format!("1,200 entries were {past}"));
}

#[test]
fn time_in_force_is_not_rounded_up() {
    let (page, _) = shown(|status| {
        status["policy"]["in_force_since"] = "2026-11-22T12:00:00.9Z".into();
    });
    assert!(page.contains("in force since 2026-11-22T12:00:00Z"), "{page}");
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
    assert!(!page(&status, (now, false), &PLAIN).contains('\x1b'));
    let colour = Shell {
        colour_output: true,
        ..PLAIN
    };
    assert!(page(&status, (now, false), &colour).contains("\x1b[32mready\x1b[0m"));
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
        absent.text.contains("`keyfence run`") && absent.text.contains("--socket"),
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
