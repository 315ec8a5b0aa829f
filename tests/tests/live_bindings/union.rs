//! What several grants make of one address: any admits, the longest first, each with its own ports, services and
//! limit; and the levels behind them.

use std::net::IpAddr;
use std::time::Duration;

use filter_common::verdict::{Reason, Verdict};
use keyfence_tests::harness::{Policy, STRANGER, until};
use serde_json::{Value, json};

use super::stage::{ENTRIES, PORT, SPARE_PORT, Stage, binding, policy};

const STRANGER4: IpAddr = IpAddr::V4(STRANGER.v4);
const STRANGER6: IpAddr = IpAddr::V6(STRANGER.v6);

/// One packet an hour beyond the burst: the level does not move while a test runs.
fn limit(burst: u32) -> Value {
    json!({ "packets": { "rate": "1/h", "burst": burst } })
}

fn limited(sources: &[&str], burst: u32) -> Value {
    let mut body = binding(sources);
    body["limit"] = limit(burst);
    body
}

fn put_of_partner(stage: &Stage, credential: &str, body: &Value) {
    stage.done(
        "PUT",
        &format!("/v1/bindings/{credential}?publisher=partner"),
        body,
    );
}

#[test]
fn removing_one_grant_of_an_address_keeps_the_others() {
    let mut stage = Stage::with(&policy().and(
        "[[client]]\nname = \"wide\"\nsources = [\"10.0.0.0/8\", \"fd77::/16\"]\nservices = [\"spare\"]\n",
    ));
    let everywhere = ["10.77.0.66", "fd77::42"];
    for source in [STRANGER4, STRANGER6] {
        assert!(!stage.passes(source));
    }
    stage.bind("key-1", &everywhere);
    put_of_partner(&stage, "key-1", &binding(&everywhere));
    for source in [STRANGER4, STRANGER6] {
        assert!(stage.passes(source));
        assert_eq!(
            stage.passing(&[source], SPARE_PORT),
            [true],
            "the client's prefix is not hidden"
        );
    }
    stage.unbind("key-1");
    for source in [STRANGER4, STRANGER6] {
        assert!(stage.passes(source), "the partner's binding stays");
        assert_eq!(stage.passing(&[source], SPARE_PORT), [true]);
    }
    stage.done("DELETE", "/v1/bindings/key-1?publisher=partner", &Value::Null);
    for source in [STRANGER4, STRANGER6] {
        assert!(!stage.passes(source));
        assert_eq!(
            stage.passing(&[source], SPARE_PORT),
            [true],
            "the client's prefix stays"
        );
    }
    stage.bind("key-2", &everywhere);
    assert!(stage.passes(STRANGER4) && stage.passes(STRANGER6));
}

/// Which binding's bucket pays: the one of which `why` counts a packet more.
fn payers(stage: &mut Stage, packets: usize) -> Vec<String> {
    let counted = |stage: &Stage| -> Vec<(String, u64)> {
        let why = stage.done("GET", "/v1/why?address=10.77.0.66", &Value::Null);
        let grants = why["grants"].as_array().expect("a list").iter();
        let of = |grant: &Value| Some((grant["owner"].as_str()?.to_owned(), grant["packets"].as_u64()?));
        grants.filter_map(of).collect()
    };
    let mut payers = Vec::new();
    for _ in 0..packets {
        let before = counted(stage);
        if !stage.passes(STRANGER4) {
            payers.push("nobody".to_owned());
            continue;
        }
        let paid = counted(stage).into_iter().find(|owner| !before.contains(owner));
        payers.push(paid.map_or("client".to_owned(), |(owner, _)| owner));
    }
    payers
}

#[test]
fn grants_pay_longest_prefix_first_then_in_the_order_of_their_names() {
    let mut stage = Stage::new();
    stage.put("wide", &limited(&["10.77.0.0/24"], 2));
    stage.put("key-b", &limited(&["10.77.0.66"], 2));
    // Comes last and stands first.
    stage.put("key-a", &limited(&["10.77.0.66"], 2));
    let [a, b, wide] = ["key-a", "key-b", "wide"].map(|name| format!("binding/gateway/{name}"));
    let nobody = "nobody".to_owned();
    assert_eq!(
        payers(&mut stage, 7),
        [&a, &a, &b, &b, &wide, &wide, &nobody].map(Clone::clone)
    );
    let counts = stage.site.counters();
    assert_eq!(
        counts.packets("api", Verdict::Drop, Reason::LimitGrant),
        1,
        "{counts:?}"
    );
}

#[test]
fn an_owner_of_a_prefix_and_of_an_address_in_it_keeps_its_place() {
    let mut stage = Stage::new();
    // Both ways in which it may come about, and a later one behind it in the order of names.
    stage.put("key-b", &limited(&["10.77.0.0/24", "10.77.0.66"], 1));
    stage.put("key-c", &limited(&["10.77.0.66"], 1));
    stage.put("key-a", &limited(&["10.77.0.0/24"], 1));
    let [a, b, c] = ["key-a", "key-b", "key-c"].map(|name| format!("binding/gateway/{name}"));
    assert_eq!(payers(&mut stage, 4), [b, c, a, "nobody".to_owned()]);
}

#[test]
fn source_ports_of_a_binding_are_judged() {
    let mut stage = Stage::new();
    let mut body = binding(&["10.77.0.66"]);
    assert!(!stage.passes(STRANGER4));
    // The sender has one port: found out by what the daemon is told to let in.
    for (ports, passes) in [
        (json!(["1-1023"]), false),
        (json!(["1024-65535"]), true),
        (json!(["1-1023", "1024-65535"]), true),
        (json!(["1-7", "9-1023"]), false),
        (json!([]), true),
    ] {
        body["source_ports"] = ports.clone();
        stage.put("key-1", &body);
        assert_eq!(stage.passes(STRANGER4), passes, "{ports}");
    }
    let counts = stage.site.counters();
    assert_eq!(
        counts.packets("api", Verdict::Drop, Reason::SourcePort),
        2,
        "{counts:?}"
    );
}

#[test]
fn services_of_a_binding_are_judged() {
    let mut stage = Stage::new();
    let mut body = binding(&["10.77.0.66"]);
    for (services, passes) in [
        (json!(["api"]), [true, false]),
        (json!(["spare"]), [false, true]),
        (json!(["api", "spare"]), [true, true]),
        (json!(["stream"]), [false, false]),
        (json!(["*"]), [true, true]),
    ] {
        body["services"] = services.clone();
        stage.put("key-1", &body);
        let passed = [PORT, SPARE_PORT].map(|port| stage.passing(&[STRANGER4], port)[0]);
        assert_eq!(passed, passes, "{services}");
    }
}

#[test]
fn level_of_a_limit_is_kept_over_other_writes_and_over_reloads() {
    let mut stage = Stage::new();
    stage.put("key-1", &limited(&["10.77.0.66"], 6));
    assert_eq!(stage.passed_of(STRANGER4, 2), 2);
    stage.bind("key-2", &["10.77.0.99"]);
    assert!(stage.passes(STRANGER4));
    // Of other content, with the same limit; and a renewal.
    let mut body = limited(&["10.77.0.66", "10.77.0.98"], 6);
    stage.put("key-1", &body);
    body["lease_seconds"] = json!(700);
    stage.put("key-1", &body);
    assert!(stage.passes(STRANGER4));
    stage.reload(&policy().and("[[deny]]\nname = \"other\"\nsources = [\"192.0.2.1\"]\n"));
    assert!(stage.passes(STRANGER4));
    stage.kill();
    stage.start_again();
    assert_eq!(stage.passed_of(STRANGER4, 3), 1, "six in all");
}

#[test]
fn renewal_after_the_end_brings_no_second_burst() {
    let mut stage = Stage::new();
    let mut body = limited(&["10.77.0.66"], 4);
    body["lease_seconds"] = json!(1);
    stage.put("key-1", &body);
    assert_eq!(stage.passed_of(STRANGER4, 5), 4);
    until("the lease has ended", || {
        (stage.state("key-1") == "ended").then_some(())
    });
    // The engine has removed it by then.
    std::thread::sleep(Duration::from_millis(1500));
    body["lease_seconds"] = json!(600);
    stage.put("key-1", &body);
    assert_eq!(stage.passed_of(STRANGER4, 2), 0, "four in all");
    let told = stage.done("GET", "/v1/bindings/key-1", &Value::Null);
    assert!(told["last_seen"].is_string(), "{told}");
}

#[test]
fn what_is_used_stays_used_under_a_changed_limit_and_over_the_reload_after_it() {
    let mut stage = Stage::new();
    stage.put("key-1", &limited(&["10.77.0.66"], 4));
    assert_eq!(stage.passed_of(STRANGER4, 5), 4);
    // Four used of ten: six are left, before a reload and after it.
    stage.put("key-1", &limited(&["10.77.0.66"], 10));
    assert_eq!(stage.passed_of(STRANGER4, 2), 2);
    stage.reload(&policy().and("[[deny]]\nname = \"other\"\nsources = [\"192.0.2.1\"]\n"));
    assert_eq!(stage.passed_of(STRANGER4, 6), 4, "ten in all");
}

#[test]
fn limit_of_a_publisher_holds_over_all_its_bindings() {
    let of_partner = "[[publisher]]\nname = \"partner\"";
    let entries = ENTRIES.replace(
        of_partner,
        &format!("{of_partner}\nlimit = {{ packets = {{ rate = \"1/h\", burst = 5 }} }}"),
    );
    let mut stage = Stage::with(&Policy::new(keyfence_tests::harness::Attach::Native, &entries));
    put_of_partner(&stage, "key-1", &binding(&["10.77.0.66"]));
    put_of_partner(&stage, "key-2", &binding(&["fd77::42"]));
    assert_eq!(stage.passed_of(STRANGER4, 3), 3);
    assert_eq!(stage.passed_of(STRANGER6, 4), 2, "five of both");
    let counts = stage.site.counters();
    assert_eq!(
        counts.packets("api", Verdict::Drop, Reason::LimitPublisher),
        2,
        "{counts:?}"
    );
    // Another publisher's grant comes first by its name, and does not pay from that bucket.
    stage.bind("key-1", &["10.77.0.66"]);
    assert_eq!(stage.passed_of(STRANGER4, 3), 3);
}

#[test]
fn limit_of_sources_holds_for_each_by_itself() {
    let entries = "[filter.source-limit]\npackets = { rate = \"1/h\", burst = 3 }\n";
    let mut stage = Stage::with(&Policy::new(
        keyfence_tests::harness::Attach::Native,
        &format!("{entries}{ENTRIES}"),
    ));
    stage.bind("key-1", &["10.77.0.0/24", "fd77::/64"]);
    // The marker is a source as well: it has three packets.
    let sent = stage.passing(&[STRANGER4, STRANGER6], PORT);
    assert_eq!(sent, [true, true]);
    let sent = stage.passing(&[STRANGER4; 3], PORT);
    assert!(sent[0]);
    let counted = || {
        let dropped = stage
            .site
            .counters()
            .packets("api", Verdict::Drop, Reason::LimitSource);
        (dropped == 1).then_some(())
    };
    until("the fourth is counted", counted);
}

#[test]
fn one_owner_too_many_is_refused_and_changes_nothing() {
    let mut stage = Stage::new();
    let line = |number: usize| {
        let line = json!({ "op": "put", "credential": format!("key-{number}"), "sources": ["10.77.0.66"],
                           "services": ["api"], "lease_seconds": 600 });
        format!("{line}\n")
    };
    let lines: String = (0..256).map(line).collect();
    let batch = stage.daemon().ask_lines("POST", "/v1/bindings/batch", &lines);
    assert_eq!(batch.expect("the daemon answers").status, 200);
    assert!(stage.passes(STRANGER4));
    let generation = stage.daemon().generation();
    let refused = stage.ask(
        "PUT",
        "/v1/bindings/key-256",
        &binding(&["10.77.0.99", "10.77.0.66"]),
    );
    assert_eq!(refused.status, 507, "{}", refused.body);
    assert_eq!(
        stage.daemon().generation(),
        generation,
        "nothing was begun, so nothing is taken back"
    );
    let other: IpAddr = [10, 77, 0, 99].into();
    stage.settle(other);
    assert_eq!(stage.passing(&[STRANGER4, other], PORT), [true, false]);
    assert_eq!(stage.ask("GET", "/v1/bindings/key-256", &Value::Null).status, 404);
    stage.unbind("key-0");
    stage.put("key-256", &binding(&["10.77.0.99", "10.77.0.66"]));
    assert_eq!(stage.passing(&[STRANGER4, other], PORT), [true, true]);
}
