//! A policy that asks for more owners than the kernel's table holds: a start makes a larger one, and nobody notices.

use std::net::SocketAddr;
use std::thread;

use filter_common::abi::names;
use filter_common::verdict::{Reason, Verdict};
use keyfence_tests::harness::{
    Attach, Daemon, GREEDY, LISTED, Policy, SERVER, Sender, Site, StopOnDrop, Traffic, until,
};
use serde_json::Value;

const BURST: u64 = 5;
const PLENTY: u64 = 20_000;

fn policy(bindings_max: u64) -> Policy {
    let (port, greedy, listed) = (Traffic::PORT, GREEDY.v4, LISTED.v4);
    let entries = format!(
        r#"
[[service]]
name = "api"
protocol = "udp"
ports = [{port}]
[[client]]
name = "greedy"
sources = ["{greedy}"]
services = ["api"]
limit = {{ packets = {{ rate = "1/h", burst = {BURST} }} }}
[[client]]
name = "steady"
sources = ["{listed}"]
services = ["api"]
limit = {{ packets = {{ rate = "1/h", burst = {PLENTY} }} }}
[[publisher]]
name = "gateway"
user = "root"
services = ["api"]
bindings-max = {bindings_max}
"#
    );
    Policy::new(Attach::Auto, &entries)
}

fn capacity(daemon: &Daemon) -> u64 {
    let status = daemon.status();
    let tables = status["tables"].as_array().into_iter().flatten();
    let mut owners = tables.filter(|table| table["table"] == names::OWNER_STATE);
    let owners = owners.next().expect("it is told of");
    owners["capacity"].as_u64().expect("a number")
}

/// What the listed client's owner has counted, and what is left in its bucket.
fn used(daemon: &Daemon) -> (u64, u64) {
    let why = daemon.get(&format!("/v1/why?address={}", LISTED.v4));
    let why: Value = serde_json::from_str(&why.expect("it answers").body).expect("JSON");
    let grant = &why["grants"][0];
    let used = grant["packets"]
        .as_u64()
        .zip(grant["buckets"][0]["left"].as_u64());
    used.unwrap_or_else(|| panic!("{why}"))
}

#[test]
fn larger_bound_has_its_room_after_a_restart_under_traffic_and_no_count_or_bucket_is_lost() {
    let site = Site::new();
    let traffic = Traffic::open(&site);
    let to = SocketAddr::new(SERVER.v4.into(), Traffic::PORT);
    let mut greedy = Sender::open(&site.outside, GREEDY.v4.into(), to);
    let daemon = Daemon::start(&site, &policy(1_000));
    let small = capacity(&daemon);
    (0..2 * BURST).for_each(|_| greedy.send());
    until("the burst is spent", || {
        (site.counters().packets("api", Verdict::Drop, Reason::LimitGrant) == BURST).then_some(())
    });

    let wanted = 2 * small;
    site.write(&policy(wanted));
    daemon.reload();
    let told = daemon.log();
    assert!(
        told.contains("until a restart of the daemon makes a larger one"),
        "{told}"
    );
    assert_eq!(capacity(&daemon), small);

    let (sent, daemon) = thread::scope(|scope| {
        let senders = scope.spawn(|| traffic.run(&site));
        let stop = StopOnDrop(&traffic.over);
        daemon.kill();
        let (counts, maps) = (site.counters(), site.map_ids());
        let daemon = Daemon::start_again(&site);
        assert!(capacity(&daemon) > wanted, "{}", capacity(&daemon));
        assert_eq!(site.counters().fallen_since(&counts), []);
        let stayed = |name| {
            maps.iter()
                .any(|map| map.0.ends_with(name) && site.map_ids().contains(map))
        };
        assert!([names::COUNTERS, names::SERVICE_STATE].into_iter().all(stayed));
        assert!(!stayed(names::OWNER_STATE));
        let (before, at_start) = (traffic.sink.count(LISTED.v4.into()), site.map_ids());
        until("packets go on", || {
            (traffic.sink.count(LISTED.v4.into()) > before + 100).then_some(())
        });
        // Once is enough.
        daemon.kill();
        let daemon = Daemon::start_again(&site);
        assert_eq!(site.map_ids(), at_start);
        drop(stop);
        let sent = senders.join();
        (
            sent.unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            daemon,
        )
    });
    traffic.assert_none_misjudged(&site, &sent);
    assert_eq!(
        used(&daemon),
        (sent.listed, PLENTY - sent.listed),
        "every packet is counted and paid for, whichever table had it"
    );
    (0..2 * BURST).for_each(|_| greedy.send());
    until("they are judged", || {
        (site.counters().packets("api", Verdict::Drop, Reason::LimitGrant) == 3 * BURST).then_some(())
    });
    assert_eq!(
        traffic.sink.count(GREEDY.v4.into()),
        BURST,
        "its bucket is as empty as before"
    );
}
