//! `keyfence top` in a real terminal: what it shows of live traffic, its keys, and the terminal it leaves behind.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use keyfence_tests::harness::frames;
use keyfence_tests::harness::{
    Attach, Daemon, LISTED, Pace, Policy, SERVER, STRANGER, Sender, Sink, Site, StopOnDrop, Terminal, Wire,
    keyfence, keyfence_path, output, until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const ENTRIES: &str = r#"
[[service]]
name = "api"
protocol = "udp"
ports = [7000]
limit = { packets = { rate = "1M", burst = "1M" } }
[[client]]
name = "acme"
sources = ["10.77.0.2"]
services = ["api"]
limit = { packets = { rate = 50, burst = 60 } }
"#;

fn policy() -> Policy {
    Policy::new(Attach::Auto, ENTRIES).and("[records]\ninterval = \"5s\"\n")
}

/// A listed client over its limit and a stranger, as long as something is watched.
fn under_traffic<R>(site: &Site, watch: impl FnOnce() -> R) -> R {
    let to = SocketAddr::new(SERVER.v4.into(), 7000);
    let _sink = Sink::open(&site.server, to);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _over = StopOnDrop(&over);
        for (source, rate) in [(LISTED, 200), (STRANGER, 400)] {
            let over = &over;
            scope.spawn(move || {
                let mut sender = Sender::open(&site.outside, source.v4.into(), to);
                let mut pace = Pace::per_second(rate);
                while !over.load(Ordering::Relaxed) {
                    sender.send();
                    pace.wait();
                }
            });
        }
        watch()
    })
}

/// Runs it; the shell says by this mark that it has ended, and how.
fn start(terminal: &Terminal, site: &Site, arguments: &str, mark: &str) {
    let program = keyfence_path();
    terminal.types(&format!(
        "{} top --socket {} {arguments}; echo ended''-{mark} $?",
        program.display(),
        site.socket().display()
    ));
    terminal.press("Enter");
}

/// The shell is back, its screen is the one from before, the cursor shows, and typing echoes.
fn assert_clean(terminal: &Terminal, mark: &str) {
    let screen = terminal.shows(&format!("ended-{mark} 0"));
    assert!(
        screen.contains("top --socket"),
        "the screen from before is back:\n{screen}"
    );
    assert!(!screen.contains("1 Overview"), "{screen}");
    assert_eq!(terminal.state("#{alternate_on} #{cursor_flag}"), "0 1");
    terminal.types(&format!("echo as be''fore-{mark}"));
    terminal.press("Enter");
    let screen = terminal.shows(&format!("as before-{mark}"));
    assert!(
        screen.contains(&format!("echo as be''fore-{mark}")),
        "it echoes: {screen}"
    );
}

/// The program in the terminal.
fn process(site: &Site) -> Pid {
    let wanted = format!(
        "{}\0top\0--socket\0{}",
        keyfence_path().display(),
        site.socket().display()
    );
    until("it runs", || {
        let processes = std::fs::read_dir("/proc").expect("there is /proc").flatten();
        let is_it = |id: &i32| {
            let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).starts_with(&wanted)
        };
        let mut ids = processes.filter_map(|entry| entry.file_name().to_string_lossy().parse::<i32>().ok());
        ids.find(is_it).map(Pid::from_raw)
    })
}

#[test]
fn live_traffic_is_shown_by_service_reason_client_and_source_and_keys_work() {
    let site = Site::new();
    let _daemon = Daemon::start(&site, &policy());
    let terminal = Terminal::open(site.folder(), (80, 24));
    under_traffic(&site, || {
        start(&terminal, &site, "", "keys");
        terminal.shows("1 Overview");
        // Rates, as they are.
        let screen = until("all of it is shown", || {
            let screen = terminal.screen();
            let all = ["unlisted", "limit-grant", "client/acme", "10.77.0.66", "allowed"];
            all.iter().all(|part| screen.contains(part)).then_some(screen)
        });
        assert!(screen.contains("instance main, enforce"), "{screen}");
        assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
        terminal.press("3");
        let row = |of: &str| {
            let screen = terminal.screen();
            let line = screen.lines().find(|line| line.starts_with(of))?.to_owned();
            Some(line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        };
        let near = |text: &str, wanted: f64| {
            text.parse::<f64>()
                .is_ok_and(|rate| (rate - wanted).abs() < wanted / 2.0)
        };
        until(
            "the listed client passes by its limit, and the rest is refused",
            || {
                let row = row("client/acme")?;
                (near(&row[1], 50.0) && near(&row[3], 150.0)).then_some(())
            },
        );
        terminal.press("4");
        until("the stranger is refused", || {
            let row = row("10.77.0.66")?;
            (near(&row[1], 400.0) && row[3] == "unlisted").then_some(())
        });
        terminal.press("5");
        let screen = terminal.shows("left %");
        // The emptiest first, and the service's far behind.
        let places = ["client/acme", "api "].map(|name| screen.find(&format!("\n{name}")));
        assert!(places[0].is_some() && places[0] < places[1], "{screen}");
        let colours = terminal.colours();
        assert!(
            colours.contains("\x1b[38;5;1m     0 %"),
            "what is nearly empty is red: {colours}"
        );
        filter_pause_and_help_work(&terminal);
        terminal.press("q");
        assert_clean(&terminal, "keys");
    });
}

fn filter_pause_and_help_work(terminal: &Terminal) {
    terminal.press("2");
    terminal.types("/unlis");
    terminal.press("Enter");
    let screen = terminal.shows("filter: unlis");
    assert!(
        screen.contains("unlisted") && !screen.contains("allowed"),
        "{screen}"
    );
    terminal.press("p");
    let paused = terminal.shows("PAUSED");
    let time = |screen: &str| screen.lines().next().map(|line| line[60..].to_owned());
    assert_eq!(time(&terminal.screen()), time(&paused));
    terminal.press("?");
    terminal.shows("choose a view");
    terminal.resize((60, 15));
    terminal.press("Escape");
    until("help goes", || {
        (!terminal.screen().contains("choose a view")).then_some(())
    });
    terminal.resize((80, 24));
}

#[test]
fn daemon_that_goes_is_told_of_and_one_that_is_not_there_before_the_terminal_is_taken() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy());
    let terminal = Terminal::open(site.folder(), (80, 24));
    start(&terminal, &site, "--interval 500ms", "gone");
    terminal.shows("1 Overview");
    daemon.kill();
    terminal.shows("! no answer from the daemon");
    terminal.press("C-c");
    assert_clean(&terminal, "gone");
    start(&terminal, &site, "", "none");
    let screen = terminal.shows("ended-none 5");
    assert!(screen.contains("error: no answer from the daemon"), "{screen}");
}

#[test]
fn terminal_is_left_clean_by_signals_and_nothing_stays_where_it_is_closed() {
    let site = Site::new();
    let _daemon = Daemon::start(&site, &policy());
    let terminal = Terminal::open(site.folder(), (80, 24));
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        start(&terminal, &site, "", signal.as_str());
        terminal.shows("1 Overview");
        kill(process(&site), signal).expect("it runs");
        assert_clean(&terminal, signal.as_str());
    }
    start(&terminal, &site, "", "closed");
    terminal.shows("1 Overview");
    let id = process(&site);
    terminal.close();
    // Its parent is gone as well: it may stay as a name without a command.
    let gone = || {
        std::fs::read(format!("/proc/{id}/cmdline"))
            .unwrap_or_default()
            .is_empty()
    };
    until("it ends with its terminal", || gone().then_some(()));
}

#[test]
fn program_reads_one_object_a_line() {
    let site = Site::new();
    let _daemon = Daemon::start(&site, &policy());
    let mut wire = Wire::open(&site);
    let mut command = keyfence();
    command
        .args(["top", "--json", "--interval", "500ms", "--limit", "3", "--socket"])
        .arg(site.socket());
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it can be started");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut next = || -> Value {
        for number in 0..50u32 {
            let source: IpAddr = Ipv4Addr::from(0x0a0a_0000 + number % 5).into();
            wire.send(&frames::udp(source, 9, SERVER.v4.into(), 7000, b"top"));
        }
        let line = lines.next().expect("it goes on").expect("it writes text");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    let told = until("rates are told", || {
        let told = next();
        assert_eq!(told["schema"], 1);
        let verdicts = told["verdicts"].as_array().expect("a list");
        let unlisted = verdicts.iter().find(|count| count["reason"] == "unlisted")?;
        (unlisted["packets_per_second"].as_f64()? > 0.0).then(|| told.clone())
    });
    assert_eq!(
        (told["sources"].as_array().map(Vec::len), &told["sources_in_all"]),
        (Some(3), &5.into())
    );
    assert!(
        told["seconds"].as_f64().is_some_and(|seconds| seconds >= 0.2),
        "{told}"
    );
    drop(lines);
    let ended = until("it ends without a reader", || {
        child.try_wait().expect("it is our child")
    });
    assert_eq!(ended.code(), Some(0));
    // Without a terminal and without --json it says what to do.
    let refused = output(
        keyfence()
            .args(["top", "--socket"])
            .arg(site.socket())
            .stdin(Stdio::null()),
    );
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        refused.status.code() == Some(1) && said.contains("--json"),
        "{said}"
    );
}
