//! Room for what a stream brings: made for all of it at its beginning, by one generation.

use serde_json::json;

use super::stage::{STRANGER4, Stage};

/// More than twice what tables are made with, so that one doubling would not do.
const LINES: usize = 40_000;

fn lines(first: u8) -> String {
    let line = |number: usize| {
        let source = format!("10.{}.{}.{}", first, number / 250, number % 250);
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
