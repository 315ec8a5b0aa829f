//! `"host"` is every address of this host, followed as they change; what cannot be followed is said, never open.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use filter_common::verdict::{Reason, Verdict};
use keyfence_tests::harness::{Attach, Daemon, LISTED, Policy, SERVER, STRANGER, Site, Wire, frames, until};

const PORT: u16 = 9000;

fn policy(more: &str) -> Policy {
    let entries = format!(
        "[[service]]\nname = \"here\"\naddress = \"host\"\nprotocol = \"udp\"\nports = [{PORT}]\n\
         [[client]]\nname = \"listed\"\nsources = [\"{}\"]\nservices = [\"*\"]\n{more}",
        LISTED.v4
    );
    Policy::new(Attach::Auto, &entries)
}

/// Sends datagrams of a stranger to an address of the server until one is dropped as unlisted.
fn assert_closed(site: &Site, service: &str, address: &str) {
    assert_closed_at(site, service, address, PORT);
}

fn assert_closed_at(site: &Site, service: &str, address: &str, port: u16) {
    let to: IpAddr = address.parse().expect("an address");
    let datagram = frames::udp(STRANGER.v4.into(), 40_000, to, port, b"knock");
    let mut wire = Wire::open(site);
    let before = site.counters().packets(service, Verdict::Drop, Reason::Unlisted);
    until("a stranger's datagram is dropped", || {
        wire.send(&datagram);
        (site.counters().packets(service, Verdict::Drop, Reason::Unlisted) > before).then_some(())
    });
}

#[test]
fn addresses_that_come_are_protected_like_those_that_were_there() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy(""));
    assert_closed(&site, "here", &SERVER.v4.to_string());
    site.server.ip("addr add 10.77.0.51/24 dev srv0");
    assert_closed(&site, "here", "10.77.0.51");
    drop(daemon);
}

#[test]
fn addresses_are_followed_on_the_interfaces_that_are_there_while_one_is_missing() {
    let site = Site::new();
    site.server.ip("link add more0 type veth peer name more1");
    let daemon = Daemon::start(&site, &policy("").interface("srv0\", \"more0"));
    site.server.ip("link del more0");
    site.server.ip("addr add 10.77.0.51/24 dev srv0");
    assert_closed(&site, "here", "10.77.0.51");
    let answer = daemon.get("/readyz").expect("the daemon answers");
    assert_eq!(answer.status, 503);
    assert!(
        answer.body.contains("interface more0 is not filtered"),
        "{}",
        answer.body
    );
    assert!(!answer.body.contains("does not mean"), "{}", answer.body);
}

/// Addresses that come are told by the kernel: nothing waits for the look once a second.
#[test]
fn addresses_that_come_are_protected_at_once() {
    const TIMES: u8 = 11;
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy(""));
    let mut took: Vec<Duration> = (100..100 + TIMES)
        .map(|host| {
            let before = daemon.generation();
            site.server.ip(&format!("addr add 10.77.0.{host}/24 dev srv0"));
            let added = Instant::now();
            until("the address is followed", || {
                (daemon.generation() > before).then_some(())
            });
            added.elapsed()
        })
        .collect();
    took.sort_unstable();
    let median = took[took.len() / 2];
    eprintln!("from `ip addr add` to judged: median {median:?} of {took:?}");
    // By the look alone it would be a second.
    assert!(median < Duration::from_millis(500), "{took:?}");
}

#[test]
fn an_address_that_is_a_written_services_too_stays_closed_and_the_daemon_is_not_ready() {
    let site = Site::new();
    let written = format!(
        "[[service]]\nname = \"written\"\naddress = [\"10.77.0.50\"]\nprotocol = \"udp\"\nports = [{PORT}]\n\
         [[service]]\nname = \"aside\"\naddress = [\"10.77.0.51\"]\nprotocol = \"udp\"\nports = [{}]\n",
        PORT + 1
    );
    let daemon = Daemon::start(&site, &policy(&written));
    site.server.ip("addr add 10.77.0.50/24 dev srv0");
    site.server.ip("addr add 10.77.0.51/24 dev srv0");
    assert_closed(&site, "here", "10.77.0.51");
    assert_closed(&site, "written", "10.77.0.50");
    until("the daemon says so", || {
        let answer = daemon.get("/readyz")?;
        (answer.status == 503 && answer.body.contains("overlap")).then_some(())
    });
    // What another service has at another port stays the host's at this one.
    assert_closed_at(&site, "aside", "10.77.0.51", PORT + 1);
    // A start finds both there: filtered and not ready, rather than not filtered.
    daemon.kill();
    let daemon = Daemon::start_unready(&site);
    assert_closed(&site, "written", "10.77.0.50");
    drop(daemon);
}
