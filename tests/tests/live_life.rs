//! How a filter begins and ends: with its daemon's death it stays, with `detach` it goes, and nothing is left over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use filter_common::verdict::{Reason, Verdict};
use keyfence_tests::harness::{
    Attach, Daemon, Ended, INSIDE, Namespace, Policy, Probe, Site, StopOnDrop, until,
};
use nix::sys::signal::Signal;

fn policy() -> Policy {
    Policy::new(Attach::Auto, Probe::ENTRIES)
}

/// Whether `ip` shows an XDP program on the interface.
fn is_attached(site: &Site) -> bool {
    site.server.ip(&format!("link show dev {INSIDE}")).contains("xdp")
}

#[test]
fn daemon_that_is_told_to_stop_leaves_in_order_and_the_filter_stays() {
    let site = Site::new();
    let mut probe = Probe::open(&site);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let daemon = Daemon::start(&site, &policy());
        let status = daemon.end(signal);
        assert_eq!(status.code(), Some(0), "{signal}: {status}");
        assert!(!site.socket().exists(), "{signal}: its socket is gone");
        assert!(is_attached(&site), "{signal}");
        probe.assert_filtered();
    }
}

#[test]
fn killed_daemon_leaves_the_filter_judging() {
    let site = Site::new();
    let mut probe = Probe::open(&site);
    Daemon::start(&site, &policy()).kill();
    probe.assert_filtered();
    let before = site.counters().packets("probe", Verdict::Drop, Reason::Unlisted);
    probe.assert_filtered();
    let after = site.counters().packets("probe", Verdict::Drop, Reason::Unlisted);
    assert_eq!(after, before + 1);
}

#[test]
fn daemon_whose_policy_says_so_detaches_when_it_stops() {
    let site = Site::new();
    let mut probe = Probe::open(&site);
    let daemon = Daemon::start(&site, &policy().daemon("on-exit = \"detach\""));
    probe.assert_filtered();
    assert_eq!(daemon.end(Signal::SIGTERM).code(), Some(0));
    assert!(!is_attached(&site));
    assert!(
        site.bpf.list("keyfence").is_empty(),
        "{:?}",
        site.bpf.list("keyfence")
    );
    probe.assert_open();
}

#[test]
fn detach_asks_before_it_opens_and_works_without_a_daemon() {
    let site = Site::new();
    let mut probe = Probe::open(&site);
    Daemon::start(&site, &policy()).kill();
    let Ended { code, log } = Daemon::detach(&site, &[]);
    assert_eq!(code, Some(4), "{log}");
    assert!(log.contains(INSIDE) && log.contains("--yes"), "{log}");
    probe.assert_filtered();

    let Ended { code, log } = Daemon::detach(&site, &["--yes"]);
    assert_eq!(code, Some(0), "{log}");
    assert!(!is_attached(&site));
    assert!(
        site.bpf.list("keyfence").is_empty(),
        "{:?}",
        site.bpf.list("keyfence")
    );
    probe.assert_open();
    let Ended { code, log } = Daemon::detach(&site, &["--yes"]);
    assert_eq!((code, log.contains("filters nothing")), (Some(0), true), "{log}");
}

/// Root takes away what a daemon of another user pinned; nobody takes over what is not his, and a folder that others
/// may write in is nobody's.
#[test]
fn root_detaches_what_another_user_pinned() {
    let site = Site::new();
    let mut probe = Probe::open(&site);
    Daemon::start(&site, &policy()).kill();
    let nobody = Some(nix::unistd::Uid::from_raw(65534));
    let parent = site.bpf.path().join("keyfence");
    let instance = std::fs::read_dir(&parent)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    for folder in [&parent, &instance] {
        nix::unistd::chown(folder, nobody, None).unwrap();
    }
    let own = std::fs::metadata(&parent).unwrap().permissions();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(&parent, open).unwrap();
    let Ended { code, log } = Daemon::detach(&site, &["--yes"]);
    assert_eq!(code, Some(1), "{log}");
    probe.assert_filtered();
    std::fs::set_permissions(&parent, own).unwrap();
    let Ended { code, log } = Daemon::detach(&site, &["--yes"]);
    assert_eq!(code, Some(0), "{log}");
    probe.assert_open();
}

/// The kernel lets go of a link some time after its last pin, later while it is busy with other interfaces:
/// `detach` is done when the hook is free.
#[test]
fn detached_interface_is_free_at_once() {
    let site = Site::new();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                Namespace::new("busy").ip("link add a0 type veth peer name b0");
            }
        });
        let stop = StopOnDrop(&over);
        let still: Vec<u32> = (0..10)
            .filter(|_| {
                Daemon::start(&site, &policy()).kill();
                let Ended { code, log } = Daemon::detach(&site, &["--yes"]);
                assert_eq!(code, Some(0), "{log}");
                is_attached(&site)
            })
            .collect();
        drop(stop);
        assert!(still.is_empty(), "still attached after {still:?} of 10");
    });
}

#[test]
fn attach_mode_that_changes_is_followed_or_told_of() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &Policy::new(Attach::Native, Probe::ENTRIES));
    let mut probe = Probe::open(&site);
    site.write(&Policy::new(Attach::Generic, Probe::ENTRIES));
    daemon.reload();
    probe.assert_filtered();
    let mode = daemon.status()["interfaces"][0]["mode"].clone();
    let told = daemon
        .log()
        .lines()
        .any(|line| line.contains("WARN") && line.contains("attach"));
    assert!(
        mode == "generic" || told,
        "attached as {mode}, and nobody is told"
    );
}

#[test]
fn interface_that_leaves_the_policy_is_open_and_one_that_joins_is_filtered() {
    let site = Site::new();
    site.server.ip("link add more0 type veth peer name more1");
    let daemon = Daemon::start(&site, &policy());
    let shows = |device: &str| site.server.ip(&format!("link show dev {device}")).contains("xdp");
    assert!(shows(INSIDE) && !shows("more0"));
    site.write(&policy().interface("more0"));
    daemon.reload();
    assert!(!shows(INSIDE) && shows("more0"));
    let mut probe = Probe::open(&site);
    probe.assert_open();
    site.write(&policy());
    daemon.reload();
    assert!(shows(INSIDE) && !shows("more0"));
    probe.assert_filtered();
}

#[test]
fn grant_ends_in_the_kernel_without_its_daemon() {
    let site = Site::new();
    let end = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + 6).expect("a near time");
    let entries = format!("{}expires = {end}\n", Probe::ENTRIES);
    Daemon::start(&site, &Policy::new(Attach::Auto, &entries)).kill();
    let mut probe = Probe::open(&site);
    probe.assert_filtered();
    assert!(
        jiff::Timestamp::now() < end,
        "the machine is too slow for this test"
    );
    let mut ended_at = None;
    until("the grant ends", || {
        probe.send_listed();
        let now = jiff::Timestamp::now();
        let ended = site.counters().packets("probe", Verdict::Drop, Reason::Ended) > 0;
        ended.then(|| ended_at = Some(now))
    });
    // No earlier than log, but for the tick of the filter's clock.
    let early = end.duration_since(ended_at.expect("it ended"));
    assert!(early < jiff::SignedDuration::from_millis(20), "{early} too early");
}
