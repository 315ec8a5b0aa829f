//! Room for what a stream brings: made for all of it at its beginning, by one generation.

use serde_json::json;

use super::stage::{STRANGER4, Stage};

/// More than twice what tables are made with, so that one doubling would not do.
const LINES: usize = 40_000;

fn lines(first: u8) -> String {
    shifted(first, 0)
}

/// Each with the address of another, so many lines on.
fn shifted(first: u8, by: usize) -> String {
    let line = |number: usize| {
        let address = (number + by) % LINES;
        let source = format!("10.{}.{}.{}", first, address / 250, address % 250);
        let line = json!({
            "op": "put", "credential": format!("many-{first}-{number}"), "sources": [source], "services": ["api"],
            "lease_seconds": 600
        });
        format!("{line}\n")
    };
    let lines: String = (0..LINES).map(line).collect();
    lines + &format!("{{\"op\":\"end\",\"count\":{LINES}}}\n")
}

fn taken(stage: &Stage, (method, path): (&str, &str), lines: &str, count: &str) {
    let answer = stage
        .daemon()
        .ask_lines(method, path, lines)
        .expect("the daemon answers");
    assert!(
        answer.status == 200 && answer.body.contains(&format!("\"{count}\":{LINES}")),
        "{} {}",
        answer.status,
        answer.body
    );
}

#[test]
fn batch_and_sync_have_one_generation_each_however_large_they_are() {
    let mut stage = Stage::new();
    let made = |stage: &Stage| stage.daemon().generation();
    let before = made(&stage);
    let batch = ("POST", "/v1/bindings/batch");
    taken(&stage, batch, &lines(100), "changed");
    assert_eq!(made(&stage), before + 1);
    let sync = ("PUT", "/v1/bindings?publisher=partner");
    taken(&stage, sync, &lines(101), "created");
    assert_eq!(made(&stage), before + 2);
    // Single changes find their room in it.
    stage.bind("key-1", &["10.77.0.66"]);
    assert!(stage.passes(STRANGER4));
    assert_eq!(made(&stage), before + 2);
}

#[test]
fn sync_that_gives_each_address_to_another_owner_waits_for_one_generation_at_most() {
    let mut stage = Stage::new();
    let made = |stage: &Stage| stage.daemon().generation();
    let sync = ("PUT", "/v1/bindings?publisher=partner");
    taken(&stage, sync, &lines(100), "created");
    let before = made(&stage);
    // Lists of two owners for half of the addresses: more than there is room for.
    taken(&stage, sync, &shifted(100, 1), "changed");
    assert_eq!(made(&stage), before + 1);
    stage.bind("key-1", &["10.77.0.66"]);
    assert!(stage.passes(STRANGER4));
    assert_eq!(made(&stage), before + 1);
}
