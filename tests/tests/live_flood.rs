//! Floods of spoofed sources with the daemon killed and restarted in between: records, counters and what was sent are the
//! same to the packet, and the listed client's traffic is untouched.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use filter_common::abi::{RunContext, run_flags};
use filter_common::verdict::{Judgement, Reason, Verdict};
use filter_user::kernel::attach::Entry;
use filter_user::kernel::clock::monotonic;
use filter_user::kernel::pins::Pins;
use filter_user::kernel::run::Runner;
use keyfence_tests::harness::drops::{SERVICES, assert_in_order, counted, records, sums, verify};
use keyfence_tests::harness::frames::{self, SYN};
use keyfence_tests::harness::{
    Attach, Daemon, LISTED, Pace, Policy, SERVER, Sender, Sink, Site, StopOnDrop, Wire, until,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const ENTRIES: &str = r#"
[[client]]
name = "acme"
sources = ["10.77.0.2"]
services = ["*"]
[[deny]]
name = "abuse"
sources = ["10.66.0.0/16"]
[records]
interval = "10m"
"#;

const SERVER4: IpAddr = IpAddr::V4(SERVER.v4);
/// Where an IPv4 packet's source stands in its frame.
const SOURCE: std::ops::Range<usize> = 26..30;

/// One log, however large.
fn policy(site: &Site) -> Policy {
    let log = site.drops();
    let sink = format!(
        "[[sink]]\npath = \"{}\"\nrotate-size = \"2GB\"\nkeep-size = \"4GB\"\n",
        log.display()
    );
    Policy::new(Attach::Auto, SERVICES).and(ENTRIES).and(&sink)
}

/// Frames of a flood, by number; nobody checks the sum of a header, so only the source is written anew.
struct Flood {
    sources: u32,
    frames: [(Vec<u8>, Verdict, Reason); 4],
}

impl Flood {
    fn new(sources: u32) -> Self {
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let mut malformed = frames::tcp(any, 9, SERVER4, 7000, SYN);
        // A TCP header of four words.
        malformed[46] = 4 << 4;
        Self {
            sources,
            frames: [
                (
                    frames::tcp(any, 9, SERVER4, 7000, SYN),
                    Verdict::Drop,
                    Reason::Unlisted,
                ),
                (
                    frames::udp(any, 9, SERVER4, 7001, b"tried"),
                    Verdict::Observe,
                    Reason::Unlisted,
                ),
                (
                    frames::tcp(any, 9, SERVER4, 7000, SYN),
                    Verdict::Drop,
                    Reason::Denied,
                ),
                (malformed, Verdict::Drop, Reason::Malformed),
            ],
        }
    }

    fn frame(&mut self, number: u64) -> &(Vec<u8>, Verdict, Reason) {
        let source = (number % u64::from(self.sources)) as u32;
        let (which, source) = match source % 32 {
            0..16 => (0, 0x0b00_0000 + source),
            16..30 => (1, 0x0b00_0000 + source),
            30 => (2, 0x0a42_0000 + (source & 0xffff)),
            _ => (3, 0x0b00_0000 + source),
        };
        self.frames[which].0[SOURCE].copy_from_slice(&source.to_be_bytes());
        &self.frames[which]
    }
}

/// What the log has is what the counters have, and these have what was sent.
fn assert_exact(site: &Site, flood: u64, listed: u64) -> Vec<Value> {
    let counts = site.counters();
    let found = records(&site.drops());
    assert_eq!(sums(&found), counted(&counts));
    assert_eq!(counted(&counts).iter().sum::<u64>(), flood, "{counts:?}");
    assert_eq!(
        counts.packets("api", Verdict::Pass, Reason::Allowed),
        listed,
        "{counts:?}"
    );
    assert_in_order(&found);
    let last = found.last().expect("there are records");
    assert!(
        last["event"]["id"]
            .as_str()
            .is_some_and(|id| id.starts_with("main/"))
    );
    let (code, verified) = verify(&[&site.drops()]);
    assert_eq!(
        (code, &verified["packets"], &verified["unvouched"]),
        (Some(0), &flood.into(), &0.into())
    );
    found
}

const PACKETS: u64 = 10_000_000;
const SOURCES: u32 = 1_000_000;
const THREADS: u64 = 2;
const PARTS: u64 = 4;
/// Between two packets of the listed client.
const LISTED_EVERY: u64 = 1000;

/// Lets the pinned program judge a share of the flood; each packet's verdict is as it must be.
fn judge_share(site: &Site, from: u64, to: u64) {
    let pins = Pins::of(site.bpf.path(), "main").expect("the daemon has pinned it");
    let entry = Entry::adopt(&pins).expect("the daemon has pinned it");
    let mut runner = Runner::default();
    let mut judge = |frame: &[u8]| -> Judgement {
        let context = RunContext {
            now: monotonic().0,
            flags: run_flags::NO_SOCKETS,
            ..RunContext::default()
        };
        runner.judge(entry.program(), frame, context).expect("a test run")
    };
    let listed = frames::tcp(IpAddr::V4(LISTED.v4), 9, SERVER4, 7000, SYN);
    let mut flood = Flood::new(SOURCES);
    for number in from..to {
        let (frame, verdict, reason) = flood.frame(number);
        let judgement = judge(frame);
        assert_eq!((judgement.verdict, judgement.reason), (*verdict, *reason));
        if number % LISTED_EVERY == 0 {
            assert_eq!(judge(&listed).reason, Reason::Allowed);
        }
    }
}

#[test]
fn ten_million_packets_of_a_million_sources_are_in_the_log_to_the_packet() {
    let site = Site::new();
    let mut daemon = Some(Daemon::start(&site, &policy(&site)));
    let share = PACKETS / PARTS / THREADS;
    for part in 0..PARTS {
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let from = (part * THREADS + thread) * share;
                let site = &site;
                scope.spawn(move || judge_share(site, from, from + share));
            }
            // All in the midst of the flood.
            match part {
                0 => {}
                1 => daemon.take().into_iter().for_each(Daemon::kill),
                2 => daemon = Some(Daemon::start_again(&site)),
                _ => {
                    daemon.take().into_iter().for_each(Daemon::kill);
                    daemon = Some(Daemon::start_again(&site));
                }
            }
        });
    }
    let daemon = daemon.expect("the last part has started one");
    assert!(daemon.end(Signal::SIGTERM).success());
    let found = assert_exact(&site, PACKETS, PACKETS / LISTED_EVERY);
    let overflow = found
        .iter()
        .filter(|record| record["keyfence"]["kind"] == "overflow")
        .count();
    assert!(
        overflow > 0 && overflow < found.len() / 2,
        "{overflow} of {}",
        found.len()
    );
    for reason in ["unlisted", "denied", "malformed"] {
        assert!(
            found.iter().any(|record| record["event"]["reason"] == reason),
            "no {reason}"
        );
    }
}

/// What the wire's queue holds at most may be lost there, and is no verdict: less is sent than it takes.
const LIVE_PACKETS: u64 = 1_000_000;

#[test]
fn live_flood_is_in_the_log_to_the_packet_and_the_listed_client_does_not_notice() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy(&site));
    let to = SocketAddr::new(SERVER4, 7000);
    let listed = IpAddr::V4(LISTED.v4);
    let sink = Sink::open(&site.server, to);
    let over = AtomicBool::new(false);
    let sent = AtomicU64::new(0);
    let listed_sent = thread::scope(|scope| {
        let _over = StopOnDrop(&over);
        let client = scope.spawn(|| {
            let mut sender = Sender::open(&site.outside, listed, to);
            let mut pace = Pace::per_second(500);
            while !over.load(Ordering::Relaxed) {
                sender.send();
                pace.wait();
            }
            sender.sent()
        });
        let flood = scope.spawn(|| {
            let mut wire = Wire::open(&site);
            let mut flood = Flood::new(200_000);
            for number in 0..LIVE_PACKETS {
                wire.send(&flood.frame(number).0);
                sent.store(number, Ordering::Relaxed);
            }
        });
        let reaches = |share: u64| {
            // A flood takes its time on a loaded machine.
            let deadline = Instant::now() + Duration::from_secs(120);
            while sent.load(Ordering::Relaxed) < LIVE_PACKETS * share / 4 && !flood.is_finished() {
                assert!(Instant::now() < deadline, "the flood stands still");
                thread::sleep(Duration::from_millis(5));
            }
        };
        reaches(1);
        daemon.kill();
        reaches(2);
        let daemon = Daemon::start_again(&site);
        reaches(3);
        daemon.kill();
        let daemon = Daemon::start_again(&site);
        flood.join().expect("the flood is sent");
        over.store(true, Ordering::Relaxed);
        let listed_sent = client.join().expect("the client has sent");
        until("all of the listed client's have arrived", || {
            (sink.count(listed) == listed_sent).then_some(())
        });
        assert!(daemon.end(Signal::SIGTERM).success());
        listed_sent
    });
    assert_eq!(sink.numbers(listed), (0..listed_sent).collect::<Vec<_>>());
    assert_exact(&site, LIVE_PACKETS, listed_sent);
}
