//! Interfaces that come, go and are made anew while the daemon runs: what the policy means is filtered by itself, and
//! what should be filtered and is not makes the daemon unready with its name.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use filter_common::verdict::{Reason, Verdict};
use keyfence_tests::harness::{
    Attach, Daemon, INSIDE, Policy, Probe, Site, keyfence, output, run, system, until,
};

/// Names and globs, in the policy's order.
fn policy(interfaces: &[&str]) -> Policy {
    Policy::new(Attach::Auto, Probe::ENTRIES).interface(&interfaces.join("\", \""))
}

fn make(site: &Site, inside: &str, outside: &str) {
    site.server
        .ip(&format!("link add {inside} type veth peer name {outside}"));
    site.server
        .ip(&format!("link set {outside} netns {}", site.outside.name()));
    site.server.ip(&format!("link set {inside} up"));
    site.outside.ip(&format!("link set {outside} up"));
}

fn is_attached(site: &Site, interface: &str) -> bool {
    site.server
        .ip(&format!("link show dev {interface}"))
        .contains("xdp")
}

/// What the status says of each interface.
fn shown(daemon: &Daemon) -> Vec<(String, bool)> {
    let status = daemon.status();
    let interfaces = status["interfaces"].as_array().expect("a list");
    let one = |interface: &serde_json::Value| {
        let name = interface["name"].as_str().expect("a name").to_owned();
        (name, interface["attached"] == true)
    };
    let mut shown: Vec<_> = interfaces.iter().map(one).collect();
    // A glob has them in the kernel's order.
    shown.sort();
    shown
}

fn until_ready(daemon: &Daemon, interfaces: &[&str]) {
    let mut wanted: Vec<_> = interfaces.iter().map(|name| (name.to_string(), true)).collect();
    wanted.sort();
    until("all interfaces are filtered, and the daemon is ready", || {
        let ready = daemon.get("/readyz").is_some_and(|answer| answer.status == 200);
        (ready && shown(daemon) == wanted).then_some(())
    });
}

fn until_unready(daemon: &Daemon, why: &str) -> String {
    until(&format!("the daemon is not ready: {why}"), || {
        let answer = daemon.get("/readyz")?;
        (answer.status == 503 && answer.body.contains(why)).then_some(answer.body)
    })
}

/// A datagram of a stranger by the wire of another interface, and what came in by that so far.
fn knock_at(site: &Site, daemon: &Daemon, inside: &str, outside: &str) -> f64 {
    let (here, there) = (Ipv4Addr::new(10, 78, 0, 1), Ipv4Addr::new(10, 78, 0, 2));
    site.server.ip(&format!("addr replace {here}/24 dev {inside}"));
    site.outside.ip(&format!("addr replace {there}/24 dev {outside}"));
    let before = site.counters().packets("probe", Verdict::Drop, Reason::Unlisted);
    let socket = site.outside.inside(|| UdpSocket::bind((there, 0)));
    let socket = socket.expect("the address is there");
    until("a stranger's datagram is dropped", || {
        let _ = socket.send_to(b"knock", (IpAddr::from(here), Probe::PORT));
        (site.counters().packets("probe", Verdict::Drop, Reason::Unlisted) > before).then_some(())
    });
    daemon.metric(&format!(
        "keyfence_interface_packets_total{{interface=\"{inside}\",verdict=\"drop\"}}"
    ))
}

#[test]
fn interface_that_appears_and_matches_is_filtered_and_counted_also_when_it_is_made_anew() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy(&["srv*"]));
    until_ready(&daemon, &[INSIDE]);
    make(&site, "srv1", "cli1");
    until_ready(&daemon, &[INSIDE, "srv1"]);
    assert!(is_attached(&site, "srv1"));
    let first = knock_at(&site, &daemon, "srv1", "cli1");
    assert!(first >= 1.0, "counted in a slot of its own");

    site.server.ip("link del srv1");
    until_ready(&daemon, &[INSIDE]);
    make(&site, "srv1", "cli1");
    until_ready(&daemon, &[INSIDE, "srv1"]);
    assert!(
        knock_at(&site, &daemon, "srv1", "cli1") > first,
        "its counts go on"
    );
    let mut probe = Probe::open(&site);
    probe.assert_filtered();
}

#[test]
fn interface_that_is_missing_is_named_and_filtered_when_it_returns() {
    let site = Site::new();
    make(&site, "more0", "more1");
    let daemon = Daemon::start(&site, &policy(&[INSIDE, "more0"]));
    site.server.ip("link del more0");
    until_unready(
        &daemon,
        "interface more0 is not filtered: interface more0 does not exist",
    );
    assert_eq!(
        daemon.metric("keyfence_filter_attached{interface=\"more0\",mode=\"native\"}"),
        0.0
    );
    let mut probe = Probe::open(&site);
    probe.assert_filtered();
    make(&site, "more0", "more1");
    until_ready(&daemon, &[INSIDE, "more0"]);
    assert!(is_attached(&site, "more0"));
}

#[test]
fn glob_whose_last_interface_goes_is_told_and_followed_when_one_comes() {
    let site = Site::new();
    make(&site, "more0", "more1");
    let daemon = Daemon::start(&site, &policy(&["more*"]));
    site.server.ip("link del more0");
    until_unready(&daemon, "no interface matches more*");
    make(&site, "more7", "more1");
    until_ready(&daemon, &["more7"]);
    assert!(is_attached(&site, "more7"));
}

#[test]
fn interface_with_another_name_stays_filtered() {
    let site = Site::new();
    make(&site, "srv1", "cli1");
    let daemon = Daemon::start(&site, &policy(&["srv*"]));
    site.server.ip("link set srv1 down");
    site.server.ip("link set srv1 name srv2");
    assert!(is_attached(&site, "srv2"));
    until_ready(&daemon, &[INSIDE, "srv2"]);
    assert!(is_attached(&site, "srv2"));
    assert!(
        !daemon.log().contains("is not filtered any more"),
        "{}",
        daemon.log()
    );
}

#[test]
fn interface_whose_hook_is_held_is_named_and_filtered_as_soon_as_it_is_free() {
    let site = Site::new();
    let other = Daemon::elsewhere(&site, "other", &policy(&[INSIDE]));
    make(&site, "held0", "held1");
    let program = site.pins("other").join("keyfence");
    let mut attach = site.server.command(system("bpftool").get_program());
    attach.args(["net", "attach", "xdpgeneric", "pinned"]);
    run(attach.arg(program).args(["dev", "held0"]));

    make(&site, "more0", "cli0more");
    let daemon = Daemon::start(&site, &policy(&["more*"]));
    site.server.ip("link set held0 down");
    site.server.ip("link set held0 name more1");
    until_unready(&daemon, "interface more1 is not filtered");
    assert_eq!(shown(&daemon), [("more0".into(), true), ("more1".into(), false)]);
    site.server.ip("link set dev more1 xdpgeneric off");
    until_ready(&daemon, &["more0", "more1"]);
    drop(other);
}

#[test]
fn upper_interface_of_a_stack_that_appears_is_left_out_and_named() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy(&["srv*"]));
    site.server.ip(&format!(
        "link add link {INSIDE} name srv1 type macvlan mode bridge"
    ));
    until_unready(&daemon, "srv1 is stacked on srv0");
    assert!(!is_attached(&site, "srv1"));
    site.server.ip("link del srv1");
    until_ready(&daemon, &[INSIDE]);
}

#[test]
fn filter_that_is_detached_is_not_put_back_by_an_interface_that_comes() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &policy(&["srv*"]));
    let detached = Daemon::detach(&site, &["--yes"]);
    assert_eq!(detached.code, Some(0), "{}", detached.log);
    make(&site, "srv1", "cli1");
    until_unready(&daemon, "the filter was detached");
    for words in [
        &["why", "10.77.0.4"][..],
        &["explain", "--from", "10.77.0.4:5", "--to", "10.77.0.1:9000/udp"],
    ] {
        let told = output(keyfence().args(words).arg("--socket").arg(site.socket()));
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        assert!(
            told.contains("he filter was detached: every packet passes"),
            "{told}"
        );
    }
    assert!(!is_attached(&site, INSIDE) && !is_attached(&site, "srv1"));
}

/// Tables that cannot be made, as long as nothing can be pinned.
#[test]
fn addresses_that_are_not_followed_are_named_until_they_are() {
    let site = Site::new();
    let entries = Probe::ENTRIES.replace("[[client]]", "address = \"host\"\n[[client]]");
    let daemon = Daemon::start(&site, &Policy::new(Attach::Auto, &entries));
    site.bpf.remount("ro");
    site.server.ip("addr add 10.77.0.51/24 dev srv0");
    until_unready(&daemon, "does not mean 10.77.0.51 yet");
    site.bpf.remount("rw");
    until_ready(&daemon, &[INSIDE]);
    let log = daemon.log();
    assert_eq!(
        log.matches("does not mean 10.77.0.51").count(),
        1,
        "told once: {log}"
    );
    assert_eq!(log.matches("of this host have changed").count(), 1, "{log}");
}
