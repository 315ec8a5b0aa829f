//! Captures of a real daemon, read back by tshark: what was decided stands beside each packet, what is asked for is what
//! is taken, whatever is not taken is told, and nothing stays behind.

mod capturing;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::process::Stdio;

use filter_common::verdict::Verdict;
use keyfence_tests::harness::drops::SERVICES;
use keyfence_tests::harness::frames::{self, SYN};
use keyfence_tests::harness::{
    Attach, Daemon, INSIDE, LISTED, OUTSIDE, Policy, SERVER, STRANGER, Site, Wire, keyfence, output, run,
    system, until,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use capturing::{Capturing, Frame, capture, comments, gone, programs, read, said, send};

const ENTRIES: &str = r#"
[[client]]
name = "acme"
sources = ["10.77.0.2", "fd77::2"]
services = ["*"]
[[deny]]
name = "abuse"
sources = ["10.66.0.0/16"]
"#;

fn policy(attach: Attach) -> Policy {
    Policy::new(attach, SERVICES).and(ENTRIES)
}

const ALLOWED: &str = "verdict=pass reason=allowed service=api owner=client/acme";
const UNLISTED: &str = "verdict=drop reason=unlisted service=api";
const TRIED: &str = "verdict=observe reason=unlisted service=tried";
const DENIED: &str = "verdict=drop reason=denied";
const OTHER: &str = "verdict=pass reason=other";
const MALFORMED: &str = "verdict=drop reason=malformed";

const SERVER4: IpAddr = IpAddr::V4(SERVER.v4);
const LISTED4: IpAddr = IpAddr::V4(LISTED.v4);
const STRANGER4: IpAddr = IpAddr::V4(STRANGER.v4);

fn udp(source: IpAddr, port: u16, bytes: usize) -> Vec<u8> {
    frames::udp(source, 9, SERVER4, port, &vec![b'k'; bytes])
}

/// One of each kind, with its comment.
fn kinds() -> Vec<(Vec<u8>, &'static str)> {
    let denied = "10.66.1.2".parse().expect("an address");
    let (from6, to6) = (IpAddr::V6(LISTED.v6), IpAddr::V6(SERVER.v6));
    let mut cut = udp(STRANGER4, 7000, 20);
    cut.truncate(30);
    vec![
        (udp(LISTED4, 7000, 20), ALLOWED),
        (frames::tcp(STRANGER4, 9, SERVER4, 7000, SYN), UNLISTED),
        (udp(STRANGER4, 7001, 20), TRIED),
        (udp(denied, 7000, 20), DENIED),
        (udp(STRANGER4, 7002, 20), OTHER),
        (cut, MALFORMED),
        (frames::udp(from6, 9, to6, 7000, b"six"), ALLOWED),
        (frames::tagged(0x8100, 7, &udp(LISTED4, 7000, 20)), ALLOWED),
    ]
}

fn what_was_decided_stands_beside_each_packet(attach: Attach) {
    let site = Site::raw();
    let daemon = Daemon::start(&site, &policy(attach));
    let mut wire = Wire::open(&site);
    let capturing = Capturing::start(&site, "all.pcapng", &["--rate", "1M"]);
    let kinds = kinds();
    let round = kinds.iter().map(|(frame, _)| frame.clone());
    let sent: Vec<Vec<u8>> = (0..25).flat_map(|_| round.clone()).collect();
    send(&site, &mut wire, &sent);
    let (told, read) = capturing.end();
    let mut expected = BTreeMap::new();
    for (_, comment) in &kinds {
        *expected.entry(*comment).or_default() += 25;
    }
    let mine: Vec<Frame> = read
        .iter()
        .filter(|frame| expected.contains_key(frame.comment.as_str()))
        .cloned()
        .collect();
    assert_eq!(comments(&mine), expected, "{told}");
    assert!(read.iter().all(|frame| frame.interface == INSIDE), "{read:?}");
    assert!(read.iter().all(|frame| frame.captured == frame.length));
    let longest = kinds.iter().map(|(frame, _)| frame.len()).max();
    assert_eq!(read.iter().map(|frame| frame.length).max(), longest);
    assert_eq!((&told["ended"], &told["no_room"]), (&"asked".into(), &0.into()));
    assert_eq!(told["packets"], told["judged"], "{told}");
    assert_eq!(replayed(&site), comments(&read).into_iter().map(owned).collect());
    // Judged as without a capture.
    let counters = site.counters();
    let of = |verdict| {
        let counted = counters.0.iter().filter(|(label, _)| label.verdict == verdict);
        counted.map(|(_, tally)| tally.packets).sum::<u64>()
    };
    assert_eq!((of(Verdict::Drop), of(Verdict::Observe)), (75, 25));
    gone();
    drop(daemon);
}

fn owned((comment, count): (&str, usize)) -> (String, usize) {
    (comment.to_owned(), count)
}

/// How `keyfence replay` judges the capture under the same policy, in the words of its comments.
fn replayed(site: &Site) -> BTreeMap<String, usize> {
    let mut command = keyfence();
    let file = site.folder().join("all.pcapng");
    command.args(["replay", "--json", "--policy"]);
    command.arg(site.policy_file()).arg(file);
    let lines = run(&mut command);
    let mut counts = BTreeMap::new();
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    for line in lines.filter(|line| line.get("frame").is_some()) {
        let named = ["verdict", "reason", "service", "owner"].into_iter();
        let words = named.filter_map(|name| Some(format!("{name}={}", line[name].as_str()?)));
        let words: Vec<String> = words.collect();
        *counts.entry(words.join(" ")).or_default() += 1;
    }
    counts
}

#[test]
fn what_was_decided_stands_beside_each_packet_in_native_mode() {
    what_was_decided_stands_beside_each_packet(Attach::Native);
}

#[test]
fn what_was_decided_stands_beside_each_packet_in_generic_mode() {
    what_was_decided_stands_beside_each_packet(Attach::Generic);
}

#[test]
fn captures_at_one_time_each_take_what_they_were_asked_for() {
    let site = Site::raw();
    let daemon = Daemon::start(&site, &policy(Attach::Auto));
    let mut wire = Wire::open(&site);
    let start = |name: &str, arguments: &[&str]| Capturing::start(&site, name, arguments);
    let drops = start("drops.pcapng", &["--verdict", "drop,observe"]);
    let denied = start("denied.pcapng", &["--reason", "denied,malformed"]);
    let listed = start("listed.pcapng", &["--source", "10.77.0.2"]);
    let tried = start("tried.pcapng", &["--service", "tried", "--snap", "40"]);
    // There are no more places.
    let output = output(capture(&site).args(["-w", "/dev/null"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("4 captures run already"),
        "{}",
        said(&output)
    );
    let sent: Vec<Vec<u8>> = kinds().into_iter().map(|(frame, _)| frame).collect();
    send(&site, &mut wire, &sent);
    // Another generation, and what stands in the midst of the line leaves it.
    daemon.reload();
    send(&site, &mut wire, &sent);
    let (_, denied) = denied.end();
    assert_eq!(comments(&denied), BTreeMap::from([(DENIED, 2), (MALFORMED, 2)]));
    send(&site, &mut wire, &sent);
    let (_, drops) = drops.end();
    let expected = [(UNLISTED, 3), (TRIED, 3), (DENIED, 3), (MALFORMED, 3)];
    assert_eq!(comments(&drops), BTreeMap::from(expected));
    let (_, listed) = listed.end();
    assert_eq!(comments(&listed), BTreeMap::from([(ALLOWED, 6)]));
    let (told, tried) = tried.end();
    assert_eq!(comments(&tried), BTreeMap::from([(TRIED, 3)]));
    assert_eq!(
        (told["wanted"].as_u64(), told["packets"].as_u64()),
        (Some(3), Some(3))
    );
    assert!(
        tried
            .iter()
            .all(|frame| (frame.captured, frame.length) == (40, 62)),
        "{tried:?}"
    );
    gone();
    let audit = fs::read_to_string(site.state().join("audit.jsonl")).expect("the audit log is there");
    assert_eq!(audit.matches("\"capture\"").count(), 4, "{audit}");
}

#[test]
fn bounds_hold_and_what_is_not_taken_is_told() {
    let site = Site::raw();
    let daemon = Daemon::start(&site, &policy(Attach::Auto));
    let mut wire = Wire::open(&site);
    let strangers = vec![udp(STRANGER4, 7000, 1_400); 1_000];
    let only = ["--source", "10.77.0.66"];
    let start =
        |name: &str, arguments: &[&str]| Capturing::start(&site, name, &[&only[..], arguments].concat());
    let number = |told: &Value, name: &str| told[name].as_u64().expect("a number");

    let count = start("count.pcapng", &["--count", "5"]);
    let rate = start("rate.pcapng", &["--rate", "1", "--verdict", "drop"]);
    let size = start("size.pcapng", &["--size", "1MB", "--rate", "1M"]);
    let sample = start("sample.pcapng", &["--sample", "4", "--rate", "1M"]);
    send(&site, &mut wire, &strangers);
    let (told, read) = count.ended();
    assert_eq!((&told["ended"], read.len()), (&"count".into(), 5));
    let (told, read) = size.ended();
    assert_eq!(told["ended"], "size");
    assert!((500..700).contains(&read.len()), "{}", read.len());
    assert!(number(&told, "bytes") <= 1_000_000, "{told}");
    let (told, read) = sample.end();
    // The odds of less or more are one to many billions.
    assert!((150..350).contains(&read.len()), "{told}");
    assert_eq!(number(&told, "wanted"), 1_000);
    assert_eq!(number(&told, "unsampled") + read.len() as u64, 1_000, "{told}");
    let (told, read) = rate.end();
    assert!(read.len() < 500, "{}", read.len());
    assert_eq!(number(&told, "over_rate") + read.len() as u64, 1_000, "{told}");

    let duration = start("duration.pcapng", &["--duration", "1s"]);
    let (told, _) = duration.ended();
    assert_eq!(told["ended"], "duration");
    // What is there is left as it is.
    let there = site.folder().join("there.pcapng");
    std::fs::write(&there, "kept").expect("a temporary folder can be written");
    let refused = output(capture(&site).arg("-w").arg(&there));
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("--force"), "{}", said(&refused));
    assert_eq!(std::fs::read(&there).expect("it is there"), b"kept");
    let forced = output(
        capture(&site)
            .arg("-w")
            .arg(&there)
            .args(["--force", "--duration", "1s"]),
    );
    assert!(forced.status.success(), "{}", said(&forced));
    assert_ne!(std::fs::read(&there).expect("it is there"), b"kept");
    for (arguments, word) in [
        (["--service", "none"], "none of the policy's services"),
        (["--duration", "25h"], "from 1 to 86400"),
    ] {
        let output = output(capture(&site).args(["-w", "/dev/null"]).args(arguments));
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains(word), "{}", said(&output));
    }
    drop(daemon);
}

#[test]
fn frames_in_several_buffers_are_captured_whole() {
    let site = Site::raw();
    site.server.ip(&format!("link set {INSIDE} mtu 9000"));
    site.outside.ip(&format!("link set {OUTSIDE} mtu 9000"));
    let daemon = Daemon::start(&site, &policy(Attach::Auto));
    let mut wire = Wire::open(&site);
    let capturing = Capturing::start(&site, "large.pcapng", &["--source", "10.77.0.66"]);
    send(&site, &mut wire, &[udp(STRANGER4, 7000, 8_000)]);
    let (told, read) = capturing.end();
    let [frame] = &read[..] else {
        panic!("{told} {read:?}")
    };
    assert_eq!((frame.length, frame.captured), (8_042, 8_042));
    assert_eq!(frame.comment, UNLISTED);
    drop(daemon);
}

/// A reader by a pipe sees packets as they come; one who takes none loses packets that are counted, and no memory.
#[test]
fn a_pipe_is_a_live_view_and_a_slow_one_loses_what_is_counted() {
    let site = Site::raw();
    let daemon = Daemon::start(&site, &policy(Attach::Auto));
    let mut wire = Wire::open(&site);
    let log = site.folder().join("seen");
    let script = "\"$0\" capture -w - --socket \"$1\" --verdict drop | \"$2\" -l -n -r - -T fields -e frame.comment > \"$3\"";
    let mut live = system("bash");
    live.args(["-c", script])
        .arg(keyfence_tests::harness::keyfence_path())
        .arg(site.socket())
        .arg(system("tshark").get_program())
        .arg(&log);
    let mut live = live.stderr(Stdio::null()).spawn().expect("bash can be started");
    until("the capture stands", || (programs().len() == 1).then_some(()));
    until("a packet is seen as it comes", || {
        wire.send(&udp(STRANGER4, 7000, 20));
        let seen = fs::read_to_string(&log).unwrap_or_default();
        seen.contains(UNLISTED).then_some(())
    });
    let mut slow = capture(&site);
    slow.args([
        "-w",
        "-",
        "--rate",
        "1M",
        "--verdict",
        "drop",
        "--source",
        "10.77.0.0/24",
    ]);
    let slow = slow.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let slow = slow.expect("keyfence can be started");
    until("the second stands", || (programs().len() == 2).then_some(()));
    send(&site, &mut wire, &vec![udp(STRANGER4, 7000, 1_400); 8_000]);
    let id = i32::try_from(slow.id()).expect("process ids are small");
    kill(Pid::from_raw(id), Signal::SIGINT).expect("it runs");
    let output = slow.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let text = said(&output);
    let told: Value = serde_json::from_str(text.lines().last().expect("it tells")).expect("JSON");
    let number = |name: &str| told[name].as_u64().expect("a number");
    assert!(number("no_room") > 1_000, "{told}");
    assert_eq!(number("no_room") + number("packets"), number("wanted"), "{told}");
    assert!(number("wanted") >= 8_000, "{told}");
    assert_eq!(number("bytes"), output.stdout.len() as u64);
    let file = site.folder().join("slow.pcapng");
    fs::write(&file, &output.stdout).expect("a temporary folder can be written");
    assert_eq!(read(&file).len() as u64, number("packets"));

    // The daemon is asked to stop: the capture ends as a whole file.
    daemon.end(Signal::SIGTERM);
    let status = live.wait().expect("it ends");
    assert!(status.success(), "{status}");
    gone();
}

#[test]
fn nothing_stays_of_a_capture_whose_reader_or_daemon_is_killed() {
    let site = Site::raw();
    let daemon = Daemon::start(&site, &policy(Attach::Auto));
    let mut wire = Wire::open(&site);
    let mut reader = Capturing::start(&site, "reader.pcapng", &[]);
    assert_eq!(programs().len(), 1);
    reader.signal(Signal::SIGKILL);
    reader.child.wait().expect("it ends");
    gone();

    let mut reader = Capturing::start(&site, "daemon.pcapng", &[]);
    send(&site, &mut wire, &[udp(STRANGER4, 7000, 20)]);
    until("it is written", || (read(&reader.file).len() == 1).then_some(()));
    daemon.kill();
    let status = reader.child.wait().expect("it ends");
    assert_eq!(status.code(), Some(5));
    gone();
    // The file is whole as far as it goes, and the filter judges on.
    assert_eq!(comments(&read(&reader.file)), BTreeMap::from([(UNLISTED, 1)]));
    let sent: Vec<Vec<u8>> = kinds().into_iter().map(|(frame, _)| frame).collect();
    send(&site, &mut wire, &sent);
    let again = Daemon::start_again(&site);
    let capturing = Capturing::start(&site, "again.pcapng", &["--verdict", "drop"]);
    send(&site, &mut wire, &sent);
    let (_, frames) = capturing.end();
    let expected = [(UNLISTED, 1), (DENIED, 1), (MALFORMED, 1)];
    assert_eq!(comments(&frames), BTreeMap::from(expected));
    drop(again);
}

#[test]
fn captures_go_on_where_a_policy_is_taken_back() {
    let site = Site::raw();
    let old = policy(Attach::Auto);
    let daemon = Daemon::start(&site, &old);
    let mut wire = Wire::open(&site);
    let sent = [udp(LISTED4, 7000, 20)];
    let before = Capturing::start(&site, "before.pcapng", &[]);
    send(&site, &mut wire, &sent);
    let new = old.and("[[deny]]\nname = \"more\"\nsources = [\"192.0.2.1\"]\n");
    let body = serde_json::json!({
        "root": "keyfence.toml",
        "files": { "keyfence.toml": new.text(&site.socket()) },
        "confirm_seconds": 600,
    });
    let ask = |path: &str, body: &Value| {
        let answer = daemon.ask("POST", path, body).expect("the daemon answers");
        assert_eq!(answer.status, 200, "{}", answer.body);
    };
    ask("/v1/policy/apply", &body);
    send(&site, &mut wire, &sent);
    let meanwhile = Capturing::start(&site, "meanwhile.pcapng", &[]);
    send(&site, &mut wire, &sent);
    ask("/v1/policy/rollback", &serde_json::json!({}));
    send(&site, &mut wire, &sent);
    let (_, before) = before.end();
    assert_eq!(comments(&before), BTreeMap::from([(ALLOWED, 4)]));
    let (_, meanwhile) = meanwhile.end();
    assert_eq!(comments(&meanwhile), BTreeMap::from([(ALLOWED, 2)]));
    gone();
}
