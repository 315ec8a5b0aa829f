//! `explain` and `why` against what is in force: bindings, denies and bucket levels as the kernel has them.

use std::net::IpAddr;

use filter_common::verdict::{Reason, Verdict};
use keyfence_tests::harness::{Attach, Policy, SERVER, STRANGER, keyfence, output};
use serde_json::{Value, json};

use super::stage::{ENTRIES, PORT, Stage, binding};

const STRANGER4: IpAddr = IpAddr::V4(STRANGER.v4);

fn explain(stage: &Stage, from: &str, to: &str) -> Value {
    let path = format!("/v1/explain?from={from}&to={to}");
    let told = stage.done("GET", &path, &Value::Null);
    assert_eq!(told["agree"], true, "{told:#}");
    assert_eq!(told["kernel"], told["reference"], "{told:#}");
    told
}

/// The level of one bucket of an answer.
fn left(told: &Value, level: &str, unit: &str) -> Option<u64> {
    let mut buckets = told["buckets"].as_array().expect("a list").iter();
    let found = buckets.find(|bucket| bucket["level"] == level && bucket["unit"] == unit);
    found.map(|bucket| bucket["left"].as_u64().expect("a number"))
}

fn rule<'a>(told: &'a Value, name: &str) -> &'a str {
    let mut rules = told["rules"].as_array().expect("a list").iter();
    let rule = rules
        .find(|rule| rule["rule"] == name)
        .expect("each rule is told");
    rule["detail"].as_str().expect("a text")
}

#[test]
fn explain_names_the_binding_and_the_levels_of_its_buckets_and_takes_nothing() {
    let entries = ENTRIES.replace(
        "widest-prefix = { ipv4 = 24, ipv6 = 48 }",
        "widest-prefix = { ipv4 = 24, ipv6 = 48 }\nlimit = { packets = { rate = \"7/h\", burst = 7 } }",
    );
    let policy = Policy::new(Attach::Native, &entries)
        .filter("[filter.source-limit]\npackets = { rate = \"9/h\", burst = 9 }");
    let mut stage = Stage::with(&policy);
    let (from, to) = ("10.77.0.66:40000", format!("{}:{PORT}/udp", SERVER.v4));
    let told = explain(&stage, from, &to);
    assert_eq!(
        (&told["verdict"], &told["reason"]),
        (&json!("drop"), &json!("unlisted"))
    );
    assert_eq!(told["matched"]["binding"], Value::Null);

    let mut body = binding(&["10.77.0.66"]);
    body["limit"] = json!({ "packets": { "rate": "5/h", "burst": 5 } });
    stage.put("key-1", &body);
    assert_eq!(stage.passed_of(STRANGER4, 2), 2);
    let before = stage.site.counters();
    for _ in 0..3 {
        let told = explain(&stage, from, &to);
        assert_eq!(told["owner"], "binding/gateway/key-1", "{told:#}");
        assert_eq!(told["reason"], "allowed");
        let matched = &told["matched"]["binding"];
        assert_eq!(matched["name"], "gateway/key-1");
        assert_eq!((&matched["file"], &matched["line"]), (&Value::Null, &Value::Null));
        assert_eq!(matched["source"]["prefix"], "10.77.0.66/32");
        assert!(told["matched"]["service"]["line"].is_u64(), "{told:#}");
        let levels = ["source", "grant", "publisher"].map(|level| left(&told, level, "packets"));
        assert_eq!(levels, [Some(7), Some(3), Some(5)], "{told:#}");
        assert!(rule(&told, "3.10 limits").contains("binding gateway/key-1: packets 3 of 5"));
    }
    let counted = |verdict, reason| stage.site.counters().packets("api", verdict, reason);
    assert_eq!(
        counted(Verdict::Pass, Reason::Allowed),
        before.packets("api", Verdict::Pass, Reason::Allowed),
        "an explanation counts nothing"
    );

    assert_eq!(stage.passed_of(STRANGER4, 4), 3);
    let told = explain(&stage, from, &to);
    assert_eq!(
        (&told["verdict"], &told["reason"]),
        (&json!("drop"), &json!("limit-grant"))
    );
    assert_eq!(told["owner"], "binding/gateway/key-1");
    let why = stage.done("GET", "/v1/why?address=10.77.0.66", &Value::Null);
    let grant = &why["grants"][0];
    assert_eq!(grant["buckets"][0]["left"], 0, "{why:#}");
    assert_eq!(grant["buckets"][0]["burst"], 5, "{why:#}");
    assert!(
        (1..=600).contains(&grant["seconds_left"].as_i64().unwrap()),
        "{why:#}"
    );
    assert_eq!(why["buckets_error"], Value::Null);

    let deny = json!({ "sources": ["10.77.0.66"], "seconds": 60, "reason": "a test" });
    stage.done("PUT", "/v1/denies/abuse", &deny);
    let told = explain(&stage, from, &to);
    assert_eq!(
        (&told["reason"], &told["matched"]["deny"]["file"]),
        (&json!("denied"), &Value::Null)
    );
    assert_eq!(told["matched"]["deny"]["source"]["prefix"], "10.77.0.66/32");
}

#[test]
fn explain_asks_the_daemon_unless_a_file_is_named() {
    let mut stage = Stage::new();
    stage.bind("key-1", &["10.77.0.66"]);
    let to = format!("{}:{PORT}/udp", SERVER.v4);
    let command = |more: &[&str]| {
        let mut command = keyfence();
        command.args(["explain", "--from", "10.77.0.66:4000", "--to", &to]);
        output(command.args(more))
    };
    let socket = stage.site.socket().display().to_string();
    let file = stage.site.policy_file().display().to_string();
    let asked = command(&["--socket", &socket]);
    let page = String::from_utf8_lossy(&asked.stdout).into_owned();
    assert_eq!(asked.status.code(), Some(0), "{page}");
    assert!(
        page.contains("binding gateway/key-1") && page.contains("reason allowed"),
        "{page}"
    );
    let asked = command(&["--policy", &file, "--json"]);
    let told: Value = serde_json::from_slice(&asked.stdout).expect("one object");
    assert_eq!(told["reason"], "unlisted", "a file knows no bindings: {told:#}");
    stage.kill();
    let asked = command(&["--socket", &socket]);
    assert_eq!(asked.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&asked.stderr).contains("--policy FILE"));
    assert_eq!(
        command(&["--socket", &socket, "--policy", &file]).status.code(),
        Some(2)
    );
}
