//! A table filled to the brim by a publisher: refused with its code, nothing half done, and told of long before.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::stage::{ENTRIES, STRANGER4, Stage, binding};
use keyfence_tests::harness::{Attach, Policy, until};

const OWNERS: &str = "keyfence_table_entries{table=\"OWNER_STATE\"}";
const OWNERS_MAX: &str = "keyfence_table_capacity{table=\"OWNER_STATE\"}";

/// With as many bindings allowed to `gateway`.
fn policy(bindings_max: u32) -> Policy {
    let gateway = "user = \"root\"\n";
    let entries = ENTRIES.replace(gateway, &format!("{gateway}bindings-max = {bindings_max}\n"));
    Policy::new(
        Attach::Native,
        &entries.replace("user = \"nobody\"", "user = \"nobody\"\nbindings-max = 10"),
    )
}

/// Entries and capacity of the owner table, by status and metrics alike.
fn owners(stage: &Stage) -> (u32, u32) {
    let status = stage.daemon().status();
    let tables = status["tables"].as_array().expect("tables are listed");
    let table = tables.iter().find(|table| table["table"] == "OWNER_STATE");
    let table = table.expect("it is among them");
    let of = |what: &str| u32::try_from(table[what].as_u64().expect("a number")).expect("it is small");
    let (entries, capacity) = (of("entries"), of("capacity"));
    for (series, value) in [(OWNERS, entries), (OWNERS_MAX, capacity)] {
        assert_eq!(stage.daemon().metric(series), f64::from(value), "{series}");
    }
    (entries, capacity)
}

/// So many lines from a number on, each with an address of its own.
fn lines(from: u32, count: u32) -> String {
    let mut lines = String::new();
    for number in from..from + count {
        let [_, b, c, d] = number.to_be_bytes();
        let source = format!("10.{}.{c}.{d}", 100 + b);
        let line = json!({"op": "put", "credential": format!("many-{number}"), "sources": [source],
            "services": ["api"], "lease_seconds": 3600});
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{line}");
    }
    lines
}

#[test]
fn full_owner_table_is_an_error_to_the_pusher_and_told_of_before() {
    // The table is made for the first policy, and stays.
    let mut stage = Stage::with(&policy(10));
    stage.reload(&policy(200_000));
    let (entries, capacity) = owners(&stage);
    let free = capacity - entries;
    assert!(!stage.daemon().log().contains("% full"));
    stage.bind("key-1", &["10.77.0.99"]);
    assert_eq!(owners(&stage).0, entries + 1, "a single change counts at once");

    let answer = stage
        .daemon()
        .ask_lines("POST", "/v1/bindings/batch", &lines(0, free - 2));
    let answer = answer.expect("the daemon answers");
    assert!(answer.body.contains("\"failed\":0"), "{}", answer.body);
    assert_eq!(owners(&stage).0, capacity - 1);
    until("it is told of", || {
        stage.daemon().log().contains("% full").then_some(())
    });

    stage.bind("last", &["10.77.0.98"]);
    assert_eq!(owners(&stage).0, capacity);
    let before = stage.daemon().generation();
    let refused = stage.ask(
        "PUT",
        "/v1/bindings/key-2",
        &binding(&["10.77.0.66", "10.77.0.97"]),
    );
    assert_eq!(refused.status, 507, "{}", refused.body);
    let problem: Value = serde_json::from_str(&refused.body).expect("problems are JSON");
    assert_eq!(problem["code"], "table-full", "{problem}");
    let absent = stage.ask("GET", "/v1/bindings/key-2", &Value::Null);
    assert_eq!(absent.status, 404, "{}", absent.body);
    assert!(!stage.passes(STRANGER4), "nothing of it is in force");
    assert_eq!(
        stage.daemon().generation(),
        before,
        "a refusal makes no generation"
    );
    assert_eq!(owners(&stage).0, capacity);

    // What is there can still be changed, and what goes makes room.
    stage.bind("last", &["10.77.0.66"]);
    assert!(stage.passes(STRANGER4));
    stage.unbind("last");
    assert!(!stage.passes(STRANGER4));
    stage.bind("key-2", &["10.77.0.66"]);
    assert!(stage.passes(STRANGER4));
    assert_eq!(owners(&stage).0, capacity);
}
