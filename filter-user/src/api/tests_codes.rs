//! Each problem code is answered over HTTP in at least one test: those that no other test answers, and a look at all.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Bounds;
use super::fixture::{ALL, Kernel, Running, policy_with, publisher};
use super::openapi::DOCUMENT;
use super::tests::{Answer, PATIENCE, ask, default_daemon, listener};
use super::tests_bindings::binding;
use crate::bindings::seam::GrantError;
use crate::policy::model::{ListenerAddress, Role};

const NDJSON: &str = "content-type: application/x-ndjson";

async fn gateway(keys: &str) -> Running {
    Running::with(policy_with(&publisher("gateway", keys)), &[]).await
}

#[tokio::test]
async fn what_the_kernel_does_not_take_is_told_and_undone() {
    let running = gateway("").await;
    for (error, status, code) in [
        (
            GrantError::TableFull {
                table: "owners",
                needed: 2,
                max: 1,
            },
            507,
            "table-full",
        ),
        (
            GrantError::TableKept {
                table: "PORT_SETS",
                has: 65,
            },
            507,
            "table-full",
        ),
        (
            GrantError::TooManyOwners {
                prefix: "198.51.100.7/32".to_owned(),
                max: 256,
            },
            507,
            "table-full",
        ),
        (GrantError::Failed("no kernel".to_owned()), 503, "unavailable"),
        (GrantError::PolicyChanged, 503, "busy"),
    ] {
        *running.grants.answer.lock().unwrap() = Kernel::Refuses(error);
        let answer = running.put("key-1", &binding("198.51.100.7")).await;
        answer.is_problem(status, code);
        *running.grants.answer.lock().unwrap() = Kernel::Takes;
        let shown = running.ask("GET /v1/bindings/key-1", "").await;
        shown.is_problem(404, "unknown-credential");
    }
    *running.grants.answer.lock().unwrap() = Kernel::Refuses(GrantError::TableFull {
        table: "owners",
        needed: 2,
        max: 1,
    });
    let answer = running.put("key-1", &binding("198.51.100.7")).await;
    answer.is_problem(507, "table-full");
    assert_eq!(answer.json()["table"], "owners");
    // No table is full, and the caller can do something about it.
    *running.grants.answer.lock().unwrap() = Kernel::Refuses(GrantError::TooManyOwners {
        prefix: "198.51.100.7/32".to_owned(),
        max: 256,
    });
    let answer = running.put("key-1", &binding("198.51.100.7")).await;
    answer.is_problem(507, "table-full");
    assert_eq!(answer.json()["title"], "An address has as many owners as it can");
    assert_eq!(answer.json()["prefix"], "198.51.100.7/32");
    *running.grants.answer.lock().unwrap() = Kernel::Refuses(GrantError::Failed("no kernel".to_owned()));
    let answer = running.put("key-1", &binding("198.51.100.7")).await;
    answer.is_problem(503, "unavailable");
    *running.grants.answer.lock().unwrap() = Kernel::Refuses(GrantError::PolicyChanged);
    let answer = running.put("key-1", &binding("198.51.100.7")).await;
    answer.is_problem(503, "busy");
    assert!(answer.head.contains("retry-after: "), "{}", answer.head);
}

#[tokio::test]
async fn answer_that_does_not_come_is_a_timeout_and_a_later_one_is_answered() {
    let bounds = Bounds {
        request_timeout: Duration::from_millis(200),
        ..Bounds::default()
    };
    let running = Running::on(policy_with(&publisher("gateway", "")), &[], bounds, |folder| {
        vec![listener(ListenerAddress::Unix(folder.join("api.sock")), &ALL)]
    })
    .await;
    *running.grants.answer.lock().unwrap() = Kernel::NeverAnswers;
    let answer = running.put("key-1", &binding("198.51.100.7")).await;
    answer.is_problem(503, "timeout");
    assert_eq!(running.ask("GET /v1/bindings", "").await.status, 200);
}

#[tokio::test]
async fn writes_while_the_daemon_stops_are_refused_and_reads_are_not() {
    let running = gateway("").await;
    running.stop_writer.send(true).unwrap();
    let answer = loop {
        let answer = running.put("key-1", &binding("198.51.100.7")).await;
        if answer.status != 201 && answer.status != 200 {
            break answer;
        }
    };
    answer.is_problem(503, "draining");
    assert!(answer.head.contains("retry-after: "), "{}", answer.head);
    assert_eq!(running.ask("GET /v1/bindings", "").await.status, 200);
}

#[tokio::test]
async fn bounds_of_a_publisher_and_what_it_may_open_are_told() {
    let running = gateway("bindings-max = 1").await;
    assert_eq!(running.put("key-1", &binding("198.51.100.7")).await.status, 201);
    running
        .put("key-2", &binding("198.51.100.8"))
        .await
        .is_problem(409, "bindings-max");
    let entries = publisher("gateway", "").replace("services = [\"*\"]", "services = [\"payments\"]");
    let narrow = Running::with(policy_with(&entries), &[]).await;
    let mut body = binding("198.51.100.7");
    body["services"] = json!(["beta"]);
    narrow
        .put("key-1", &body)
        .await
        .is_problem(403, "service-not-allowed");
}

#[tokio::test]
async fn second_batch_of_a_publisher_is_refused_while_the_first_runs() {
    let running = gateway("").await;
    let mut first = UnixStream::connect(running.socket("api.sock")).await.unwrap();
    let head = format!(
        "POST /v1/bindings/batch HTTP/1.1\r\nhost: keyfence\r\n{NDJSON}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    first.write_all(head.as_bytes()).await.unwrap();
    let line = format!("{NDJSON}\r\n\r\n{{\"op\": \"end\", \"count\": 0}}\n");
    let answer = loop {
        let answer = running.ask("POST /v1/bindings/batch", &line).await;
        // The first may not have been read yet.
        if answer.status != 200 {
            break answer;
        }
    };
    answer.is_problem(409, "batch-running");
}

#[tokio::test]
async fn denies_have_an_owner_and_an_end_to_their_number() {
    let folder = tempfile::tempdir().unwrap();
    let entries: String = ["a", "b"]
        .iter()
        .map(|name| {
            let socket = folder.path().join(format!("{name}.sock"));
            format!(
                "[[publisher]]\nname = \"{name}\"\nsocket = \"unix:{0}\"\nservices = [\"payments\"]\n\
                 [[listener]]\naddress = \"unix:{0}\"\nroles = [\"publish\", \"deny\"]\n",
                socket.display()
            )
        })
        .collect();
    let running = Running::on(policy_with(&entries), &[], Bounds::default(), |_| {
        let roles = [Role::Publish, Role::Deny];
        ["a.sock", "b.sock"]
            .map(|name| listener(ListenerAddress::Unix(folder.path().join(name)), &roles))
            .into()
    })
    .await;
    let ask_as = async |name: &str, line: &str, body: &str| {
        let stream = UnixStream::connect(folder.path().join(name)).await.unwrap();
        ask(stream, line, body).await
    };
    let deny = |block: usize| {
        let sources: Vec<String> = (0..3_000)
            .map(|at| format!("10.{block}.{}.{}", at / 250, at % 250))
            .collect();
        let body = json!({ "sources": sources, "seconds": 60, "reason": "a test" });
        format!("content-type: application/json\r\n\r\n{body}")
    };
    for block in 0..3 {
        let answer = ask_as("a.sock", &format!("PUT /v1/denies/block-{block}"), &deny(block)).await;
        assert!([200, 201].contains(&answer.status), "{}", answer.body);
    }
    ask_as("a.sock", "PUT /v1/denies/block-3", &deny(3))
        .await
        .is_problem(409, "denies-max");
    let few = |count: usize| {
        let sources: Vec<String> = (0..count)
            .map(|at| format!("10.9.{}.{}", at / 250, at % 250))
            .collect();
        format!(
            "content-type: application/json\r\n\r\n{}",
            json!({ "sources": sources })
        )
    };
    // One caller takes all there are; another still has a few.
    let answer = ask_as("a.sock", "PUT /v1/denies/rest", &few(1_000)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    ask_as("a.sock", "PUT /v1/denies/more", &few(1))
        .await
        .is_problem(409, "denies-max");
    let answer = ask_as("b.sock", "PUT /v1/denies/mine", &few(100)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    ask_as("b.sock", "PUT /v1/denies/mine", &few(101))
        .await
        .is_problem(409, "denies-max");
    ask_as("b.sock", "DELETE /v1/denies/block-0", "")
        .await
        .is_problem(403, "not-the-owner");
    drop(running);
}

#[tokio::test]
async fn full_disk_of_the_store_takes_deletes_and_renewals_alone() {
    let running = gateway("").await;
    assert_eq!(running.put("key-1", &binding("198.51.100.7")).await.status, 201);
    let state = running.folder.path().join("state");
    // What stands in the way of the reserve is as good as a full disk; it is taken at a start.
    std::fs::remove_file(state.join("reserve")).unwrap();
    std::fs::create_dir(state.join("reserve")).unwrap();
    let running = running.again().await;
    running
        .put("key-2", &binding("198.51.100.8"))
        .await
        .is_problem(507, "store-full");
    let removed = running.ask("DELETE /v1/bindings/key-1", "").await;
    assert_eq!(removed.json()["removed"], true, "{}", removed.body);
}

#[tokio::test]
async fn heads_and_connections_beyond_their_bounds_are_problem_documents() {
    let daemon = default_daemon().await;
    let long = "a".repeat(70 << 10);
    // Closed with bytes unread is a reset on some sockets: what was answered is there.
    let answer = async |head: String| {
        let mut stream = UnixStream::connect(&daemon.socket).await.unwrap();
        let _ = stream.write_all(head.as_bytes()).await;
        let mut bytes = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    };
    answer(format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n"))
        .await
        .is_problem(414, "target-too-long");
    answer(format!("GET / HTTP/1.1\r\nhost: a\r\na: {long}\r\n\r\n"))
        .await
        .is_problem(431, "head-too-large");
}

/// The codes that a test of these files asserts of an answer over HTTP.
fn asserted(files: &[&str]) -> BTreeSet<String> {
    let pattern = regex::Regex::new(r#"is_problem\(\s*\d{3},\s*"([a-z-]+)""#).unwrap();
    let found = files.iter().flat_map(|text| pattern.captures_iter(text));
    found.map(|found| found[1].to_owned()).collect()
}

#[test]
fn each_code_of_the_document_is_asserted_of_an_answer() {
    let files = [
        include_str!("tests.rs"),
        include_str!("tests_bind.rs"),
        include_str!("tests_bindings.rs"),
        include_str!("tests_bounds.rs"),
        include_str!("tests_callers.rs"),
        include_str!("tests_capture.rs"),
        include_str!("tests_codes.rs"),
        include_str!("tests_gateways.rs"),
        include_str!("tests_policy.rs"),
        include_str!("tests_operate.rs"),
        include_str!("tests_streams.rs"),
        // Against the daemon itself, whose disk is full.
        include_str!("../../../tests/tests/live_bindings/disk.rs"),
        // And whose records go to no file.
        include_str!("../../../tests/tests/live_sinks.rs"),
    ];
    let document: Value = serde_json::from_str(DOCUMENT).unwrap();
    let codes = &document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"];
    let codes: BTreeSet<String> = codes
        .as_array()
        .unwrap()
        .iter()
        .map(|code| code.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(codes, asserted(&files));
}
