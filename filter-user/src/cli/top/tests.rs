//! The page as it stands on a terminal of 80 by 24, and what keys do to it.

use std::process::Command;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::json;

use super::answer::Top;
use super::screen::Screen;
use super::state::{Next, State};
use super::table::short;
use super::{draw, interval};
use crate::cli::exit::{Exit, Failure};

fn top() -> Top {
    let verdict = |service: Option<&str>, verdict: &str, reason: &str, rate: f64| {
        json!({ "service": service, "verdict": verdict, "reason": reason, "packets": 70_000, "bytes": 1,
            "packets_per_second": rate, "bytes_per_second": rate * 60.0 })
    };
    let owner = |name: &str, rate: f64, refused: f64| {
        json!({ "owner": name, "packets": 5, "bytes": 1, "packets_per_second": rate, "bytes_per_second": rate,
            "refused_per_second": refused, "last_seen": "2026-11-22T12:00:03Z" })
    };
    let source = |name: &str, rate: f64, reason: &str| {
        json!({ "source": name, "packets": 9, "bytes": 1, "packets_per_second": rate, "bytes_per_second": rate,
            "reasons": { reason: 9, "zero": 0 }, "services": { "payments": 9 } })
    };
    let bucket = |name: &str, left: u64| json!({ "level": "grant", "name": name, "unit": "packets", "left": left, "burst": 100, "rate": 1, "per_seconds": 1 });
    let answer = json!({
        "schema": 1, "at": "2026-11-22T12:00:03.5Z", "seconds": 1.0, "instance": "main", "mode": "enforce",
        "generation": 7, "not_ready": [],
        "verdicts": [verdict(Some("payments"), "pass", "allowed", 1_234.0), verdict(Some("payments"), "drop", "unlisted", 5_060.0),
            verdict(None, "pass", "other", 0.0)],
        "owners": [owner("client/acme", 1_000.0, 0.0), owner("binding/gateway/key-1", 234.0, 60.0)],
        "sources": [source("203.0.113.66", 5_000.0, "unlisted"), source("2001:db8:bad:1:2:3:4:5", 60.0, "denied")],
        "sources_in_all": 12_345,
        "buckets": [bucket("client/acme", 80), bucket("binding/gateway/key-1", 3)],
        "buckets_error": null,
    });
    serde_json::from_value(answer).unwrap()
}

fn drawn(state: &mut State, (width, height): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::page(frame, state, true)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let line = |row| {
        (0..width)
            .map(|column| buffer[(column, row)].symbol().to_owned())
            .collect::<String>()
    };
    (0..height)
        .map(|row| line(row).trim_end().to_owned() + "\n")
        .collect()
}

fn press(state: &mut State, keys: &str) {
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            key => KeyCode::Char(key),
        };
        assert_eq!(
            state.key(KeyEvent::new(code, KeyModifiers::NONE)),
            Next::Go,
            "{key:?}"
        );
    }
}

/// The first words of the rows below the header of a view of its own.
fn first_words(page: &str) -> Vec<String> {
    let rows = page.lines().skip(4).take_while(|line| !line.is_empty());
    rows.filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

#[test]
fn overview_has_a_part_of_each_view_at_80_by_24() {
    let page = drawn(&mut State::new(top()), (80, 24));
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "keyfence top  instance main, enforce, generation 7",
        "12:00:03 UTC",
        "passed 1.2k/s   dropped 5.1k/s   observed 0/s   refused sources 12.3k",
        " 1 Overview ",
        "payments drop unlisted 5.1k 303.6k 70.0k",
        "client/acme 1.0k 1.0k 0 5 12:00:03",
        "2001:db8:bad:1:2:3:4:5 60 9 denied +1",
        "203.0.113.66",
        "binding/gateway/key-1",
        "3 %",
        "q quit",
    ] {
        assert!(words(&page).contains(&words(part)), "{part:?} is not in\n{page}");
    }
    // Wider ones have more columns, narrower ones cut what they must and show it.
    let wide = drawn(&mut State::new(top()), (120, 24));
    assert!(
        words(&wide).contains("2001:db8:bad:1:2:3:4:5 60 9 denied +1 payments 60"),
        "{wide}"
    );
    let thin = drawn(&mut State::new(top()), (18, 40));
    assert!(thin.contains("binding/gateway/k…"), "{thin}");
    assert!(page.lines().all(|line| line.chars().count() <= 80));
    // It says what fits, however small.
    for size in [(1, 1), (20, 5), (40, 10), (200, 60)] {
        drawn(&mut State::new(top()), size);
    }
}

#[test]
fn rows_are_sorted_filtered_and_turned_by_keys() {
    let mut state = State::new(top());
    let mut words = |keys: &str| {
        press(&mut state, keys);
        first_words(&drawn(&mut state, (80, 24)))
    };
    assert_eq!(words("4"), ["203.0.113.66", "2001:db8:bad:1:2:3:4:5"]);
    let rest = words("r");
    assert!(rest[0].starts_with("2001:db8"), "{rest:?}");
    assert_eq!(words("/DENIED\n").len(), 1);
    assert_eq!(words("\x1b").len(), 2);
    assert_eq!(words("/nobody\n"), ["nothing"]);
    assert_eq!(words("\x1b5"), ["binding/gateway/key-1", "client/acme"]);
    // Behind the last column comes the first: by name, then by level.
    assert_eq!(words("sr"), ["client/acme", "binding/gateway/key-1"]);
    assert_eq!(words("3"), ["client/acme", "binding/gateway/key-1"]);
    assert_eq!(
        words("ss"),
        ["binding/gateway/key-1", "client/acme"],
        "by what is refused"
    );
}

#[test]
fn pause_keeps_what_stands_there_and_a_fault_is_told() {
    let mut state = State::new(top());
    let mut later = top();
    later.at = "2026-11-22T12:00:09Z".to_owned();
    press(&mut state, "p");
    state.take(Ok(later.clone()));
    assert!(drawn(&mut state, (80, 24)).contains("PAUSED 12:00:03"));
    press(&mut state, "p");
    state.take(Ok(later));
    assert!(drawn(&mut state, (80, 24)).contains(" 12:00:09 UTC"));
    state.take(Err(Failure::new(Exit::Unreachable, "no answer from the daemon")));
    assert!(drawn(&mut state, (80, 24)).contains("! no answer from the daemon"));
    state.take(Ok(top()));
    assert!(!drawn(&mut state, (80, 24)).contains('!'));
}

#[test]
fn help_and_filter_are_left_before_the_program_is() {
    let mut state = State::new(top());
    press(&mut state, "?");
    assert!(drawn(&mut state, (80, 24)).contains("choose a view"));
    press(&mut state, "\x1b/q");
    assert_eq!((state.filter.as_str(), state.help), ("q", false));
    press(&mut state, "\n\x1b");
    let key = |code, modifiers| KeyEvent::new(code, modifiers);
    assert_eq!(state.key(key(KeyCode::Esc, KeyModifiers::NONE)), Next::Quit);
    assert_eq!(state.key(key(KeyCode::Char('q'), KeyModifiers::NONE)), Next::Quit);
    state.typing = true;
    assert_eq!(
        state.key(key(KeyCode::Char('c'), KeyModifiers::CONTROL)),
        Next::Quit
    );
}

#[test]
fn numbers_are_short() {
    let shown = [
        0.0, 0.04, 9.94, 9.96, 120.4, 999.4, 999.6, 1_000.0, 12_345.0, 999_960.0, 4e6, 2e12,
    ]
    .map(short);
    let wanted = [
        "0", "0.0", "9.9", "10", "120", "999", "1.0k", "1.0k", "12.3k", "1.0M", "4.0M", "2.0T",
    ];
    assert_eq!(shown, wanted);
    assert!(interval("500ms").is_ok() && interval("499ms").is_err() && interval("2m").is_err());
}

/// Set where the test runs itself again, in a terminal of its own.
const IN_TERMINAL: &str = "KEYFENCE_TEST_TOP_PANICS";

#[test]
fn panic_gives_the_terminal_back_before_it_is_told() {
    if std::env::var_os(IN_TERMINAL).is_some() {
        let mut screen = Screen::open().unwrap();
        screen.draw(&mut State::new(top()), true).unwrap();
        panic!("as it was told to");
    }
    let folder = tempfile::tempdir().unwrap();
    let tmux = |arguments: &[&str]| {
        let socket = folder.path().join("tmux");
        let mut command = Command::new("tmux");
        command.env_remove("TMUX").arg("-S").arg(socket).args(arguments);
        let output = command.output();
        let output = output.unwrap_or_else(|error| panic!("tmux: {error}; `cargo xtask setup` installs it"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    tmux(&[
        "-f",
        "/dev/null",
        "new-session",
        "-d",
        "-x",
        "100",
        "-y",
        "50",
        "sh",
    ]);
    let program = std::env::current_exe().unwrap();
    let name = "cli::top::tests::panic_gives_the_terminal_back_before_it_is_told";
    let line = format!(
        "{IN_TERMINAL}=1 {} --exact {name} --nocapture; echo en''ded",
        program.display()
    );
    tmux(&["send-keys", "-l", &line]);
    tmux(&["send-keys", "Enter"]);
    let deadline = Instant::now() + Duration::from_secs(20);
    let screen = loop {
        let screen = tmux(&["capture-pane", "-p"]);
        if screen.contains("\nended") {
            break screen;
        }
        assert!(Instant::now() < deadline, "it does not end: {screen}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let state = tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
    tmux(&["kill-server"]);
    assert!(screen.contains("as it was told to"), "{screen}");
    assert!(!screen.contains("1 Overview"), "{screen}");
    assert_eq!(state.trim(), "0 1", "{screen}");
}
