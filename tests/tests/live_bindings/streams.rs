//! Many at once: batches and full syncs, and denies of run time.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use filter_common::verdict::{Reason, Verdict};
use keyfence_tests::harness::{PATIENCE, STRANGER, until};
use serde_json::{Value, json};

use super::stage::{PORT, STRANGER4, Stage};

const STRANGER6: IpAddr = IpAddr::V6(STRANGER.v6);
const LATE_MAX: Duration = Duration::from_millis(20 + 250);

fn line(credential: &str, source: &str) -> String {
    let line =
        json!({ "credential": credential, "sources": [source], "services": ["api"], "lease_seconds": 600 });
    format!("{line}\n")
}

/// The summary of a stream that was taken, or the problem.
fn stream(stage: &Stage, method: &str, path: &str, lines: &str) -> (u16, Value) {
    let answer = stage
        .daemon()
        .ask_lines(method, path, lines)
        .expect("the daemon answers");
    let last = answer.body.lines().last().unwrap_or_default();
    (answer.status, serde_json::from_str(last).expect("lines are JSON"))
}

#[test]
fn batch_is_in_force_when_it_is_answered() {
    let mut stage = Stage::new();
    let mut lines = String::new();
    for number in 0..9000 {
        let source = format!("10.80.{}.{}", number / 250, number % 250);
        lines += &line(&format!("many-{number}"), &source).replacen('{', "{\"op\":\"put\",", 1);
    }
    lines += &line("key-1", "10.77.0.66").replacen('{', "{\"op\":\"put\",", 1);
    lines += &line("key-2", "fd77::42").replacen('{', "{\"op\":\"put\",", 1);
    lines += "{\"op\":\"renew\",\"credential\":\"nobody\",\"lease_seconds\":60}\n{\"op\":\"end\",\"count\":9003}\n";
    let (status, summary) = stream(&stage, "POST", "/v1/bindings/batch", &lines);
    assert_eq!(
        (status, &summary["summary"]["failed"]),
        (200, &json!(1)),
        "{summary}"
    );
    assert!(stage.passes(STRANGER4) && stage.passes(STRANGER6));
    let lines =
        "{\"op\":\"delete\",\"credential\":\"key-1\"}\n{\"op\":\"delete\",\"credential\":\"key-2\"}\n";
    let (status, summary) = stream(&stage, "POST", "/v1/bindings/batch", lines);
    assert_eq!(
        (status, &summary["summary"]["changed"]),
        (200, &json!(2)),
        "{summary}"
    );
    assert!(!stage.passes(STRANGER4) && !stage.passes(STRANGER6));
}

#[test]
fn full_sync_becomes_the_whole_set() {
    let mut stage = Stage::new();
    let other: IpAddr = [10, 77, 0, 99].into();
    stage.settle(other);
    let sync = |stage: &Stage, lines: &str| stream(stage, "PUT", "/v1/bindings", lines);
    let end = |count: u32| format!("{{\"op\":\"end\",\"count\":{count}}}\n");
    let both = line("key-1", "10.77.0.66") + &line("key-2", "10.77.0.99");
    assert_eq!(sync(&stage, &(both.clone() + &end(2))).0, 200);
    assert_eq!(stage.passing(&[STRANGER4, other], PORT), [true, true]);
    // Without its end, or with another count, or with a fault, it is none.
    for (lines, code) in [
        (String::new(), "sync-incomplete"),
        (both.clone(), "sync-incomplete"),
        (line("key-1", "10.77.0.66"), "sync-incomplete"),
        (line("key-1", "10.77.0.66") + &end(2), "sync-incomplete"),
        (line("key-1", "10.77.0.66/24") + &end(1), "invalid"),
    ] {
        let (status, problem) = sync(&stage, &lines);
        assert!((400..500).contains(&status), "{status} {problem}");
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(stage.passing(&[STRANGER4, other], PORT), [true, true], "{lines}");
    }
    // What is named anew is moved, what is not is revoked.
    assert_eq!(sync(&stage, &(line("key-1", "10.77.0.99") + &end(1))).0, 200);
    assert_eq!(stage.passing(&[STRANGER4, other], PORT), [false, true]);
    // An empty one with its end says what it means.
    assert_eq!(sync(&stage, &end(0)).0, 200);
    assert_eq!(stage.passing(&[STRANGER4, other], PORT), [false, false]);
}

#[test]
fn cut_full_sync_revokes_nobody() {
    let mut stage = Stage::new();
    stage.bind("key-1", &["10.77.0.66"]);
    let body = line("key-2", "10.77.0.99");
    for kill in [false, true] {
        let mut socket = UnixStream::connect(stage.site.socket()).expect("the daemon listens");
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a time can be set");
        let head = "PUT /v1/bindings HTTP/1.0\r\nContent-Type: application/x-ndjson\r\nContent-Length: 100000\r\n\r\n";
        socket.write_all(head.as_bytes()).expect("the daemon reads");
        socket.write_all(body.as_bytes()).expect("the daemon reads");
        if kill {
            stage.kill();
            stage.start_again();
        } else {
            socket.shutdown(Shutdown::Write).expect("it can be half closed");
            let mut answer = String::new();
            // It may be cut instead of answered.
            let _ = socket.read_to_string(&mut answer);
            assert!(!answer.contains(" 200 "), "{answer}");
        }
        assert!(stage.passes(STRANGER4));
        assert_eq!(stage.ask("GET", "/v1/bindings/key-2", &Value::Null).status, 404);
    }
}

#[test]
fn deny_is_in_force_at_once_and_ends_in_the_kernel() {
    let mut stage = Stage::new();
    stage.bind("key-1", &["10.77.0.66", "fd77::42"]);
    assert!(stage.passes(STRANGER4) && stage.passes(STRANGER6));
    let deny = |sources: &[&str], seconds: Option<u32>| json!({ "sources": sources, "seconds": seconds, "reason": "x" });
    stage.done(
        "PUT",
        "/v1/denies/one",
        &deny(&["10.77.0.66", "fd77::40/122"], None),
    );
    assert!(!stage.passes(STRANGER4) && !stage.passes(STRANGER6));
    stage.done("DELETE", "/v1/denies/one", &Value::Null);
    assert!(stage.passes(STRANGER4) && stage.passes(STRANGER6));
    // With an end, told once more with another, and the daemon dead.
    stage.done("PUT", "/v1/denies/two", &deny(&["10.77.0.64/26"], Some(600)));
    assert!(!stage.passes(STRANGER4) && stage.passes(STRANGER6));
    let asked = Instant::now();
    stage.done("PUT", "/v1/denies/two", &deny(&["10.77.0.66"], Some(2)));
    let answered = Instant::now();
    stage.kill();
    assert!(!stage.passes(STRANGER4));
    let ended = until("the deny ends", || stage.passes(STRANGER4).then(Instant::now));
    let lasts = Duration::from_secs(2);
    assert!(
        ended >= asked + lasts - Duration::from_millis(20),
        "{:?} early",
        asked + lasts - ended
    );
    assert!(
        ended <= answered + lasts + LATE_MAX,
        "{:?} late",
        ended - answered - lasts
    );
    stage.start_again();
    assert!(stage.passes(STRANGER4));
    let denies = || stage.done("GET", "/v1/denies", &Value::Null);
    until("it is gone", || {
        (!denies().to_string().contains("two")).then_some(())
    });
    let counts = stage.site.counters();
    assert!(
        counts.packets("", Verdict::Drop, Reason::Denied) >= 4,
        "{counts:?}"
    );
}

#[test]
fn deny_survives_a_restart() {
    let mut stage = Stage::new();
    stage.bind("key-1", &["10.77.0.66"]);
    stage.done(
        "PUT",
        "/v1/denies/one",
        &json!({ "sources": ["10.77.0.66"], "seconds": 600, "reason": "x" }),
    );
    stage.kill();
    assert!(!stage.passes(STRANGER4));
    stage.start_again();
    assert!(!stage.passes(STRANGER4));
    // A binding of an address that is denied is taken, and changes nothing.
    stage.bind("key-2", &["10.77.0.66"]);
    assert!(!stage.passes(STRANGER4));
    stage.unbind("key-1");
    stage.done("DELETE", "/v1/denies/one", &Value::Null);
    assert!(stage.passes(STRANGER4));
    stage.unbind("key-2");
    assert!(!stage.passes(STRANGER4));
}
