//! Changes of what is in force under traffic: not one packet of the listed client is lost, not one of the
//! stranger's passes, and what was used and counted stays used and counted.

use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use filter_common::verdict::{Reason, Verdict};
use keyfence_tests::harness::{
    Attach, Counts, Daemon, GREEDY, LISTED, PATIENCE, Pace, Policy, SERVER, STRANGER, Sender, Sink, Site,
    StopOnDrop, keyfence, until,
};

const PORT: u16 = 9000;
const PACKETS_PER_SECOND: u32 = 3000;
/// Datagrams on their way at once: fewer than the wire's queue holds.
const WINDOW: u64 = 64;
const RELOADS: u64 = 100;
const RESTARTS: u64 = 10;
/// Requests to reload at one time.
const STORM: u64 = 40;
/// Without a bound on the allocator's heaps it was 280 MB.
const RESIDENT_KIB_MAX: u64 = 150 << 10;

const LISTED4: IpAddr = IpAddr::V4(LISTED.v4);
const STRANGER4: IpAddr = IpAddr::V4(STRANGER.v4);
const GREEDY4: IpAddr = IpAddr::V4(GREEDY.v4);

/// Policies that differ in other clients, services, limits and the listed one's own limit.
fn policy(attach: Attach, variant: u64) -> Policy {
    let rate = 100_000 + variant;
    let mut entries = format!(
        r#"
[[service]]
name = "api"
protocol = "udp"
ports = [{PORT}]
limit = {{ packets = {{ rate = {}, burst = 50000 }} }}
[[client]]
name = "listed"
sources = ["{LISTED4}"]
services = ["api"]
limit = {{ packets = {{ rate = {rate}, burst = 50000 }} }}
[[client]]
name = "slow"
sources = ["{GREEDY4}"]
services = ["api"]
limit = {{ packets = {{ rate = "1/h", burst = 5 }} }}
"#,
        rate * 2
    );
    // Numbers of services and clients come and go around those that stay.
    for other in 0..variant % 7 {
        entries += &format!(
            "[[service]]\nname = \"other-{other}-{variant}\"\nprotocol = \"tcp\"\nports = [{}]\n\
             [[client]]\nname = \"a-{other}-{variant}\"\nsources = [\"10.{}.{other}.0/24\", \"{LISTED4}\"]\n\
             services = [\"other-{other}-{variant}\"]\n",
            1000 + other,
            100 + variant % 100
        );
    }
    Policy::new(attach, &entries)
}

/// What a stream of both has sent.
struct Sent {
    listed: u64,
    strangers: u64,
}

/// Does something while the listed client and the stranger send, a packet each in turn.
fn under_traffic(site: &Site, sink: &Sink, change: impl FnOnce()) -> Sent {
    let to = SocketAddr::new(SERVER.v4.into(), PORT);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let stream = scope.spawn(|| {
            let mut listed = Sender::open(&site.outside, LISTED4, to);
            let mut stranger = Sender::open(&site.outside, STRANGER4, to);
            let mut pace = Pace::per_second(PACKETS_PER_SECOND);
            while !over.load(Ordering::Relaxed) {
                listed.send();
                stranger.send();
                pace.wait();
                let deadline = Instant::now() + PATIENCE;
                while listed.sent() - sink.count(LISTED4) > WINDOW {
                    assert!(
                        Instant::now() < deadline,
                        "more than {WINDOW} of the listed client's packets are lost"
                    );
                    pace.wait();
                }
            }
            Sent {
                listed: listed.sent(),
                strangers: stranger.sent(),
            }
        });
        let stop = StopOnDrop(&over);
        change();
        drop(stop);
        match stream.join() {
            Ok(sent) => sent,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Every packet was judged right: those that arrived, and the counters by bpftool.
fn assert_none_misjudged(site: &Site, sink: &Sink, sent: &Sent) {
    let arrived = || (sink.count(LISTED4) >= sent.listed).then_some(());
    let started = Instant::now();
    while arrived().is_none() && started.elapsed() < PATIENCE / 4 {
        thread::yield_now();
    }
    let numbers = sink.numbers(LISTED4);
    let missing: Vec<u64> = (0..sent.listed)
        .filter(|number| numbers.binary_search(number).is_err())
        .collect();
    assert!(missing.is_empty(), "lost of {}: {missing:?}", sent.listed);
    assert_eq!(numbers.len() as u64, sent.listed, "none arrives twice");
    assert_eq!(sink.count(STRANGER4), 0, "a stranger's packets passed");
    let counts = site.counters();
    let of = |verdict, reason| counts.packets("api", verdict, reason);
    assert_eq!(of(Verdict::Drop, Reason::Unlisted), sent.strangers, "{counts:?}");
    let slow = sink.count(GREEDY4);
    assert_eq!(
        of(Verdict::Pass, Reason::Allowed),
        sent.listed + slow,
        "{counts:?}"
    );
    assert_eq!(counts.packets("", Verdict::Drop, Reason::Internal), 0);
}

/// Spends the slow client's bucket, or shows that it is spent.
fn slow_sends(site: &Site, times: u64) {
    let to = SocketAddr::new(SERVER.v4.into(), PORT);
    let mut slow = Sender::open(&site.outside, GREEDY4, to);
    (0..times).for_each(|_| slow.send());
}

fn reloads_misjudge_no_packet(attach: Attach) {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy(attach, 0));
    let sink = Sink::open(&site.server, SocketAddr::new(SERVER.v4.into(), PORT));
    slow_sends(&site, 7);
    until("the slow client's burst arrives", || {
        (sink.count(GREEDY4) == 5).then_some(())
    });
    let started = Instant::now();
    let sent = under_traffic(&site, &sink, || {
        for variant in 1..=RELOADS {
            site.write(&policy(attach, variant));
            daemon.reload();
            // At least some packets under each.
            let so_far = sink.count(LISTED4);
            until("the listed client is heard", || {
                (sink.count(LISTED4) >= so_far + 20).then_some(())
            });
        }
    });
    eprintln!(
        "{RELOADS} reloads in {:?} under {} packets of each",
        started.elapsed(),
        sent.listed
    );
    assert_eq!(daemon.generation(), 1 + RELOADS);
    slow_sends(&site, 3);
    until("the slow client's packets are judged", || {
        let counts = site.counters();
        (counts.packets("api", Verdict::Drop, Reason::LimitGrant) == 5).then_some(())
    });
    assert_eq!(sink.count(GREEDY4), 5, "a spent bucket stays spent");
    assert_none_misjudged(&site, &sink, &sent);
}

#[test]
fn reloads_under_traffic_misjudge_no_packet_natively() {
    reloads_misjudge_no_packet(Attach::Native);
}

#[test]
fn reloads_under_traffic_misjudge_no_packet_generically() {
    reloads_misjudge_no_packet(Attach::Generic);
}

fn restarts_misjudge_no_packet(attach: Attach) {
    let site = Site::new();
    let mut daemon = Some(Daemon::start(&site, &policy(attach, 0)));
    let sink = Sink::open(&site.server, SocketAddr::new(SERVER.v4.into(), PORT));
    slow_sends(&site, 6);
    until("the slow client's burst arrives", || {
        (sink.count(GREEDY4) == 5).then_some(())
    });
    let mut before = Counts::default();
    let sent = under_traffic(&site, &sink, || {
        for variant in 1..=RESTARTS {
            daemon.take().expect("one runs").kill();
            let so_far = sink.count(LISTED4);
            until("the filter goes on without its daemon", || {
                (sink.count(LISTED4) >= so_far + 200).then_some(())
            });
            site.write(&policy(attach, variant));
            let started = Daemon::start_again(&site);
            assert!(
                started
                    .log()
                    .contains("took over the filter of an earlier daemon")
            );
            // What was in force still is, until somebody says otherwise.
            started.reload();
            let counts = site.counters();
            assert_eq!(counts.fallen_since(&before), [], "counters never fall");
            before = counts;
            daemon = Some(started);
        }
    });
    let daemon = daemon.expect("one runs");
    assert_eq!(daemon.generation(), 1 + 2 * RESTARTS);
    slow_sends(&site, 3);
    until("the slow client's packets are judged", || {
        let counts = site.counters();
        (counts.packets("api", Verdict::Drop, Reason::LimitGrant) == 4).then_some(())
    });
    assert_eq!(sink.count(GREEDY4), 5, "a spent bucket stays spent");
    assert_none_misjudged(&site, &sink, &sent);
}

#[test]
fn killed_and_restarted_daemons_misjudge_no_packet_natively() {
    restarts_misjudge_no_packet(Attach::Native);
}

#[test]
fn killed_and_restarted_daemons_misjudge_no_packet_generically() {
    restarts_misjudge_no_packet(Attach::Generic);
}

#[test]
fn storm_of_reloads_shares_them_and_holds_no_memory() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy(Attach::Generic, 0));
    let before = daemon.generation();
    let ask = |_| {
        let mut reload = keyfence();
        reload.args(["reload", "--socket"]).arg(site.socket());
        reload.stdout(Stdio::null()).spawn().expect("the command starts")
    };
    let asked: Vec<Child> = (0..STORM).map(ask).collect();
    for mut reload in asked {
        assert!(reload.wait().expect("it ends").success());
    }
    let made = daemon.generation() - before;
    assert!(made < STORM, "{made} reloads for {STORM} requests");
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).expect("the daemon runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let kib = kib.expect("the kernel tells");
    assert!(kib < RESIDENT_KIB_MAX, "{kib} KiB after {STORM} reloads");
    println!("{STORM} requests: {made} reloads, {kib} KiB resident");
}
