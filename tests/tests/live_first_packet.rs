//! The main job on a real interface: who is listed is served, a stranger's packets never arrive.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use filter_common::verdict::{Reason, Verdict};
use keyfence_tests::harness::{
    Attach, Daemon, LISTED, Namespace, Nginx, Policy, Relay, SERVER, STRANGER, Sink, Site, Wire, connect,
    fetch, frames, until,
};

/// How long a stranger knocks: three SYNs' worth would be longer, one answer would need a thousandth.
const KNOCK: Duration = Duration::from_millis(1500);
const ECHO_PORT: u16 = 9000;

/// The server's address of the same family.
fn server(client: IpAddr) -> IpAddr {
    SERVER.addresses()[usize::from(client.is_ipv6())]
}

fn listed_is_answered_and_stranger_times_out(attach: Attach, site: &Site, clients: &Namespace) {
    let _nginx = Nginx::start(site);
    let _daemon = Daemon::start(site, &Policy::of_two_services(attach, ECHO_PORT));
    for client in LISTED.addresses() {
        let to = SocketAddr::new(server(client), Nginx::PORT);
        let answer = fetch(clients, client, to).unwrap_or_else(|error| panic!("{client}: {error}"));
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, "answered\n"),
            "{client}"
        );
    }
    let before = site.counters();
    assert_eq!(
        before.packets("api", Verdict::Drop, Reason::Unlisted),
        0,
        "{before:?}"
    );
    for (client, knocked) in STRANGER.addresses().into_iter().zip(1..) {
        let to = SocketAddr::new(server(client), Nginx::PORT);
        let error = connect(clients, client, to, KNOCK).expect_err("a stranger is connected");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{client}: {error}");
        let dropped = site.counters().packets("api", Verdict::Drop, Reason::Unlisted);
        assert!(dropped >= knocked, "{client}: {dropped} packets dropped");
    }
    let after = site.counters();
    let passed =
        |counts: &keyfence_tests::harness::Counts| counts.packets("api", Verdict::Pass, Reason::Allowed);
    // Of the listed one's connections the last acknowledgement may be on its way; a stranger adds nothing.
    assert!(
        passed(&before) >= 8 && passed(&after) - passed(&before) <= 2,
        "{before:?} {after:?}"
    );
}

#[test]
fn listed_client_is_answered_and_stranger_times_out_natively() {
    let site = Site::new();
    listed_is_answered_and_stranger_times_out(Attach::Native, &site, &site.outside);
}

#[test]
fn listed_client_is_answered_and_stranger_times_out_generically() {
    let site = Site::new();
    listed_is_answered_and_stranger_times_out(Attach::Generic, &site, &site.outside);
}

#[test]
fn listed_client_behind_vlan_0_is_answered_and_stranger_times_out_natively() {
    let site = Site::raw();
    let relay = Relay::start(&site);
    listed_is_answered_and_stranger_times_out(Attach::Native, &site, &relay.clients);
}

#[test]
fn listed_client_behind_vlan_0_is_answered_and_stranger_times_out_generically() {
    let site = Site::raw();
    let relay = Relay::start(&site);
    listed_is_answered_and_stranger_times_out(Attach::Generic, &site, &relay.clients);
}

/// Linux reads on behind any number of VID-0 tags: the filter reads behind two, and drops what has three.
fn tags_hide_no_stranger(attach: Attach) {
    let site = Site::raw();
    let _daemon = Daemon::start(&site, &Policy::of_two_services(attach, ECHO_PORT));
    let mut wire = Wire::open(&site);
    for (client, stranger) in LISTED.addresses().into_iter().zip(STRANGER.addresses()) {
        let to = server(client);
        let sink = Sink::open(&site.server, SocketAddr::new(to, ECHO_PORT));
        let mut number = 0u64;
        // In the order sent: the last listed one shows that all before it have been judged.
        for tags in [3, 2, 1, 0] {
            for source in [stranger, client] {
                let mut frame = frames::udp(source, 4000, to, ECHO_PORT, &number.to_be_bytes());
                for tag in 0..tags {
                    frame = frames::tagged([0x8100, 0x88a8, 0x8100][tag], 3 << 13, &frame);
                }
                wire.send(&frame);
                number += 1;
            }
        }
        until("the untagged frame arrives", || {
            (sink.numbers(client).last() == Some(&7)).then_some(())
        });
        assert_eq!(sink.numbers(client), [3, 5, 7], "{client}");
        assert_eq!(sink.count(stranger), 0, "{stranger}");
    }
    let counts = site.counters();
    assert_eq!(counts.packets("datagrams", Verdict::Pass, Reason::Allowed), 6);
    assert_eq!(counts.packets("datagrams", Verdict::Drop, Reason::Unlisted), 6);
    assert_eq!(counts.packets("", Verdict::Drop, Reason::Malformed), 4);
    assert_eq!(counts.total(), 16, "{counts:?}");
}

#[test]
fn tags_hide_no_stranger_natively() {
    tags_hide_no_stranger(Attach::Native);
}

#[test]
fn tags_hide_no_stranger_generically() {
    tags_hide_no_stranger(Attach::Generic);
}
