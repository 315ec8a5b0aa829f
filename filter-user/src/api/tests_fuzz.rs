//! Any body, path and query: an answer below 500, and never a panic.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::cases::cases;

use super::fixture::{Running, me, policy_with, publisher};

/// Words that stand in bodies, and what could stand in their place.
fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop_oneof![
            Just("*"),
            Just("payments"),
            Just("198.51.100.7"),
            Just("::/0"),
            Just("put"),
            Just("1-2"),
            Just("1/s")
        ]
        .prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ]
}

fn member() -> impl Strategy<Value = String> {
    let known = [
        "op",
        "credential",
        "sources",
        "services",
        "source_ports",
        "limit",
        "lease_seconds",
        "row_version",
        "labels",
        "count",
        "packets",
        "rate",
        "burst",
        "seconds",
        "reason",
        "path",
        "trust",
    ];
    prop_oneof![9 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => ".{0,6}"]
}

fn body() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map(member(), inner, 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A good body with one member replaced: it comes further.
fn nearly() -> impl Strategy<Value = Value> {
    (member(), body()).prop_map(|(name, value)| {
        let mut good = json!({ "sources": ["198.51.100.7"], "services": ["payments"], "lease_seconds": 60 });
        good[name] = value;
        good
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => nearly().prop_map(|value| value.to_string()),
        4 => body().prop_map(|value| value.to_string()),
        1 => "[ -~]{0,40}",
        1 => nearly().prop_map(|value| { let text = value.to_string(); text.chars().take(text.chars().count() / 2).collect() }),
    ]
}

#[test]
fn any_body_is_answered_below_500() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let running = runtime.block_on(Running::with(policy_with(&publisher("gateway", "")), &[&me()]));
    let mut runner = TestRunner::new(cases(96));
    let segment = prop_oneof![
        Just("key-1".to_owned()),
        "[!-~&&[^ #?%/]]{1,12}",
        Just("%2F%00".to_owned())
    ];
    let query = prop_oneof![Just(String::new()), "[a-z_]{1,8}=[!-~&&[^ #%]]{0,8}"];
    let input = (text(), segment, query);
    let result = runner.run(&input, |(text, segment, query)| {
        for (line, kind) in [
            (format!("PUT /v1/bindings/{segment}?{query}"), "application/json"),
            (format!("PUT /v1/denies/{segment}?{query}"), "application/json"),
            (format!("GET /v1/bindings?{query}"), "application/json"),
            (format!("PUT /v1/bindings?{query}"), "application/x-ndjson"),
            (format!("POST /v1/bindings/batch?{query}"), "application/x-ndjson"),
            ("POST /v1/restore".to_owned(), "application/json"),
            (format!("GET /v1/why?{query}"), "application/json"),
        ] {
            let rest = format!("content-type: {kind}\r\n\r\n{text}\n");
            let answer = runtime.block_on(running.ask(&line, &rest));
            prop_assert!(answer.status < 500, "{line}: {text}\n{}", answer.body);
            if answer.status >= 400 {
                let document = answer.json();
                prop_assert_eq!(&document["status"], &json!(answer.status));
            }
        }
        Ok(())
    });
    result.unwrap();
}
