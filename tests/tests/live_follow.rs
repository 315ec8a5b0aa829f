//! What goes on by itself: `keyfence drops --follow`, and the audit log's head in every checkpoint of the drop log.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use keyfence_tests::harness::drops::{counted, lines, sums, verify};
use keyfence_tests::harness::frames::{self, SYN};
use keyfence_tests::harness::{Attach, Daemon, Policy, SERVER, Site, Wire, keyfence, output, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const SERVICE: &str = "[[service]]\nname = \"api\"\nprotocol = \"tcp\"\nports = [7000]\n";

fn drop_some(wire: &mut Wire, first: u32, count: u32) {
    for number in first..first + count {
        let source: IpAddr = Ipv4Addr::from(0x0a0a_0000 + number).into();
        wire.send(&frames::tcp(source, 9, IpAddr::V4(SERVER.v4), 7000, SYN));
    }
}

/// The command as a user has it: in the background, its lines read as they come.
struct Follower {
    child: Child,
    lines: Receiver<Value>,
}

fn following(site: &Site) -> Command {
    let mut command = keyfence();
    command.args(["drops", "--follow", "--json", "--limit", "10000", "--socket"]);
    command.arg(site.socket()).stdout(Stdio::piped());
    command
}

impl Follower {
    fn start(site: &Site) -> Self {
        let mut child = following(site).spawn().expect("the command can be started");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines() {
                let line = line.expect("the command writes text");
                let line = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                if tell.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    /// How it ends at a signal.
    fn end(mut self, signal: Signal) -> Option<i32> {
        let id = i32::try_from(self.child.id()).expect("process ids are small");
        kill(Pid::from_raw(id), signal).expect("it runs");
        let ended = until("it has ended", || self.child.try_wait().expect("it is our child"));
        ended.code()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn drops_are_followed_over_rotations_until_interrupted() {
    let site = Site::new();
    let log = site.folder().join("small.jsonl");
    let sink = format!("[[sink]]\npath = \"{}\"\nrotate-size = \"1MB\"\n", log.display());
    let daemon = Daemon::start(&site, &Policy::new(Attach::Auto, SERVICE).and(&sink));
    let mut wire = Wire::open(&site);
    let follower = Follower::start(&site);
    let mut followed: Vec<Value> = Vec::new();
    // It follows from when it was started on: the first one must be in.
    until("it follows", || {
        drop_some(&mut wire, 0, 1);
        followed.extend(follower.lines.try_iter());
        (!followed.is_empty()).then_some(())
    });
    for round in 1..5 {
        drop_some(&mut wire, 1000 * round, 1000);
        until("what was dropped is told", || {
            followed.extend(follower.lines.try_iter());
            let dropped = counted(&site.counters())[0];
            (sums(&followed)[0] >= dropped).then_some(())
        });
    }
    let rotated = fs::read_dir(site.folder()).expect("a folder").flatten();
    let rotated = rotated.filter(|entry| entry.file_name().to_string_lossy().starts_with("small.jsonl."));
    assert!(rotated.count() > 1, "it was not rotated");
    assert_eq!(sums(&followed), counted(&site.counters()), "each record once");
    let numbers = followed
        .iter()
        .map(|line| line["event"]["sequence"].as_u64().expect("a number"));
    let numbers: Vec<u64> = numbers.collect();
    let first = numbers[0];
    assert_eq!(numbers, (first..first + numbers.len() as u64).collect::<Vec<_>>());
    assert!(followed.iter().all(|line| line["schema"] == 1));
    assert_eq!(follower.end(Signal::SIGINT), Some(0));
    drop(daemon);
}

#[test]
fn follower_ends_when_its_reader_or_its_daemon_is_gone() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &Policy::new(Attach::Auto, SERVICE));
    let mut child = following(&site).spawn().expect("the command can be started");
    // Nothing is written: it must notice by itself.
    drop(child.stdout.take());
    let ended = until("it notices", || child.try_wait().expect("it is our child"));
    assert_eq!(ended.code(), Some(0));

    let mut follower = Follower::start(&site);
    daemon.kill();
    let ended = until("it notices", || {
        follower.child.try_wait().expect("it is our child")
    });
    assert_eq!(ended.code(), Some(5));
}

/// The head of the audit log that the last checkpoint in a log has.
fn head(log: &Path) -> String {
    let checkpoint = lines(log).pop().expect("a checkpoint at the stop");
    let audit = &checkpoint["keyfence"]["audit"];
    assert!(
        audit["line"].as_u64().is_some_and(|line| line > 0),
        "{checkpoint}"
    );
    audit["hash"].as_str().expect("a hash").to_owned()
}

#[test]
fn audit_log_that_was_cut_shows_by_the_head_in_the_drop_log() {
    let site = Site::new();
    let other = site.folder().join("other.jsonl");
    let sinks = format!(
        "[[sink]]\npath = \"{}\"\n[[sink]]\npath = \"{}\"\n",
        site.drops().display(),
        other.display()
    );
    let daemon = Daemon::start(&site, &Policy::new(Attach::Auto, SERVICE).and(&sinks));
    let audit = site.state().join("audit.jsonl");
    assert!(daemon.end(Signal::SIGTERM).success());
    let early = head(&site.drops());
    assert_eq!(early, head(&other), "each sink has it");
    // Another start is another line.
    assert!(Daemon::start_again(&site).end(Signal::SIGTERM).success());
    let late = head(&site.drops());
    assert_ne!(early, late);
    assert_eq!(verify(&[&site.drops()]).0, Some(0));
    let check = |head: Option<&str>| {
        let mut command = keyfence();
        command.args(["audit", "verify"]).arg(&audit);
        if let Some(head) = head {
            command.args(["--head", head]);
        }
        output(&mut command).status.code()
    };
    assert_eq!(
        [check(None), check(Some(&early)), check(Some(&late))],
        [Some(0); 3]
    );
    let text = fs::read_to_string(&audit).expect("root may read it");
    let kept = text.trim_end().rsplit_once('\n').expect("two lines or more").0;
    fs::write(&audit, format!("{kept}\n")).expect("root may write it");
    assert_eq!(
        [check(None), check(Some(&early)), check(Some(&late))],
        [Some(0), Some(0), Some(6)]
    );
}
