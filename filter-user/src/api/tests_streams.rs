//! Batch, sync and watch over a socket: both ways at once, in odd orders, and at their bounds.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::fixture::{ALL, Running, policy_with, publisher};
use super::tests::{PATIENCE, listener};
use super::*;
use crate::policy::model::ListenerAddress;

async fn gateway() -> Running {
    Running::with(policy_with(&publisher("gateway", "")), &[]).await
}

fn line(credential: &str, source: &str) -> String {
    let line = json!({ "op": "put", "credential": credential, "sources": [source], "services": ["payments"], "lease_seconds": 3600 });
    format!("{line}\n")
}

fn ndjson(body: &str) -> String {
    format!("content-type: application/x-ndjson\r\n\r\n{body}")
}

/// The lines of an answer, its chunks joined.
fn lines(body: &str) -> Vec<Value> {
    let json = body.lines().filter(|line| line.starts_with('{'));
    json.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[tokio::test]
async fn batch_does_what_it_can_and_tells_each_failure_with_its_line() {
    let running = gateway().await;
    let body = format!(
        "{}{}\n{}\n{}\n",
        line("key-1", "198.51.100.7"),
        json!({ "op": "renew", "credential": "key-2", "lease_seconds": 3600 }),
        json!({ "op": "delete", "credential": "key-3", "row_version": 9 }),
        json!({ "op": "end", "count": 3 })
    );
    let answer = running
        .ask("POST /v1/bindings/batch?progress=true", &ndjson(&body))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let told = lines(&answer.body);
    let failure = told.iter().find(|line| line["line"] == 2).unwrap();
    assert_eq!(
        (&failure["status"], &failure["code"]),
        (&json!(404), &json!("unknown-credential"))
    );
    let summary = &told.last().unwrap()["summary"];
    assert_eq!(
        (&summary["lines"], &summary["failed"], &summary["complete"]),
        (&json!(3), &json!(1), &json!(true))
    );
    assert!(told.iter().any(|line| line["done"] == 3), "{}", answer.body);
    assert_eq!(running.ask("GET /v1/bindings/key-1", "").await.status, 200);
}

#[tokio::test]
async fn batch_is_answered_while_it_is_still_being_sent() {
    let running = gateway().await;
    let mut stream = UnixStream::connect(running.socket("api.sock")).await.unwrap();
    let head = "POST /v1/bindings/batch?progress=true HTTP/1.1\r\nhost: keyfence\r\n\
                content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    for number in 1..=3u32 {
        let text = line(&format!("key-{number}"), &format!("198.51.100.{number}"));
        write
            .write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())
            .await
            .unwrap();
        let done = format!("\"done\":{number}");
        let mut told = String::new();
        while !told.contains(&done) {
            let count = timeout(PATIENCE, read.read_line(&mut told))
                .await
                .expect("progress")
                .unwrap();
            assert!(count > 0, "the answer ended: {told}");
        }
    }
    write.write_all(b"0\r\n\r\n").await.unwrap();
    let mut rest = String::new();
    timeout(PATIENCE, read.read_to_string(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert!(
        rest.contains("\"complete\":false") && rest.contains("\"lines\":3"),
        "{rest}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_sends_all_before_it_reads_is_heard_to_the_end() {
    let running = gateway().await;
    let mut stream = UnixStream::connect(running.socket("api.sock")).await.unwrap();
    let count = 20_000;
    let bad = "{\"op\": \"put\", \"credential\": \"key-1\"}\n".repeat(count);
    let head = format!(
        "POST /v1/bindings/batch?progress=true HTTP/1.1\r\nhost: keyfence\r\nconnection: close\r\n\
         content-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
        bad.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    timeout(PATIENCE, stream.write_all(bad.as_bytes()))
        .await
        .expect("it never stops reading")
        .unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    let told = lines(&answer);
    let failures = told.iter().filter(|line| line["line"].is_u64()).count();
    let summary = &told.last().unwrap()["summary"];
    assert_eq!(summary["failed"], count, "{summary}");
    let unseen = summary["failures_not_shown"].as_u64().unwrap_or(0);
    assert_eq!(failures as u64 + unseen, count as u64);
    // What was told while it came, and the thousand that are kept.
    assert!(failures >= 1_000, "{failures}");
}

#[tokio::test]
async fn sync_makes_the_stream_the_whole_set_or_changes_nothing() {
    let running = gateway().await;
    running
        .ask("POST /v1/bindings/batch", &ndjson(&line("key-1", "198.51.100.1")))
        .await;
    let end = |count: u32| format!("{}\n", json!({ "op": "end", "count": count }));
    for body in [
        String::new(),
        line("key-2", "198.51.100.2"),
        format!("{}{}", line("key-2", "198.51.100.2"), end(2)),
    ] {
        running
            .ask("PUT /v1/bindings", &ndjson(&body))
            .await
            .is_problem(422, "sync-incomplete");
    }
    let whole = format!("{}{}", line("key-2", "198.51.100.2"), end(1));
    let dry = running
        .ask("PUT /v1/bindings?dry_run=true", &ndjson(&whole))
        .await;
    assert_eq!(lines(&dry.body)[0]["summary"]["revoked"], 1, "{}", dry.body);
    assert_eq!(running.ask("GET /v1/bindings/key-1", "").await.status, 200);
    let done = running.ask("PUT /v1/bindings", &ndjson(&whole)).await;
    assert_eq!(done.status, 200, "{}", done.body);
    assert!(
        done.head.contains("application/x-ndjson") && done.head.contains("keyfence-revision: "),
        "{}",
        done.head
    );
    running
        .ask("GET /v1/bindings/key-1", "")
        .await
        .is_problem(404, "unknown-credential");
    assert_eq!(running.ask("GET /v1/bindings/key-2", "").await.status, 200);
}

#[tokio::test]
async fn sync_that_would_revoke_many_is_refused_with_their_number() {
    let running = gateway().await;
    let all: String = (1..=40)
        .map(|at| line(&format!("key-{at}"), &format!("198.51.100.{at}")))
        .collect();
    running.ask("POST /v1/bindings/batch", &ndjson(&all)).await;
    let empty = ndjson("{\"op\": \"end\", \"count\": 0}\n");
    let refused = running.ask("PUT /v1/bindings", &empty).await;
    refused.is_problem(409, "mass-revocation");
    assert!(refused.body.contains("40"), "{}", refused.body);
    let done = running.ask("PUT /v1/bindings?revoke_max=40", &empty).await;
    assert_eq!(lines(&done.body)[0]["summary"]["revoked"], 40, "{}", done.body);
}

#[tokio::test]
async fn second_sync_of_a_publisher_is_refused_while_one_runs_and_single_changes_are_not() {
    let running = gateway().await;
    let mut first = UnixStream::connect(running.socket("api.sock")).await.unwrap();
    let head = "PUT /v1/bindings HTTP/1.1\r\nhost: keyfence\r\ncontent-type: application/x-ndjson\r\n\
                content-length: 1000\r\nexpect: 100-continue\r\n\r\n";
    first.write_all(head.as_bytes()).await.unwrap();
    // Its body is asked for: it runs.
    let mut interim = [0; 12];
    timeout(PATIENCE, first.read_exact(&mut interim))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100");
    let empty = ndjson("{\"op\": \"end\", \"count\": 0}\n");
    running
        .ask("PUT /v1/bindings", &empty)
        .await
        .is_problem(409, "sync-running");
    let body = line("key-1", "198.51.100.7");
    let mut single: Value = serde_json::from_str(&body).unwrap();
    let members = single.as_object_mut().unwrap();
    members.retain(|name, _| name != "op" && name != "credential");
    let put = format!("content-type: application/json\r\n\r\n{single}");
    assert_eq!(running.ask("PUT /v1/bindings/key-1", &put).await.status, 201);
    // One that leaves in the middle has changed nothing, and makes room.
    drop(first);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while running.ask("PUT /v1/bindings", &empty).await.status == 409 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "there never was room again"
        );
    }
}

#[tokio::test]
async fn slow_sender_ends_its_sync_and_its_batch_is_not_complete() {
    let bounds = Bounds {
        line_timeout: Duration::from_millis(200),
        ..Bounds::default()
    };
    let running = Running::on(policy_with(&publisher("gateway", "")), &[], bounds, |folder| {
        vec![listener(ListenerAddress::Unix(folder.join("api.sock")), &ALL)]
    })
    .await;
    let headers = "content-type: application/x-ndjson\r\ncontent-length: 100";
    running
        .ask("PUT /v1/bindings", headers)
        .await
        .is_problem(408, "slow-body");
    let batch = running.ask("POST /v1/bindings/batch", headers).await;
    assert_eq!(
        lines(&batch.body)[0]["summary"]["complete"],
        false,
        "{}",
        batch.body
    );
}

#[tokio::test]
async fn watch_tells_changes_as_they_happen_and_ends_with_the_daemon() {
    let running = gateway().await;
    running
        .ask("POST /v1/bindings/batch", &ndjson(&line("key-1", "198.51.100.1")))
        .await;
    let mut stream = UnixStream::connect(running.socket("api.sock")).await.unwrap();
    stream
        .write_all(b"GET /v1/watch?since=0 HTTP/1.1\r\nhost: keyfence\r\n\r\n")
        .await
        .unwrap();
    let mut read = BufReader::new(stream);
    let mut told = String::new();
    while !told.contains("\"credential\":\"key-1\"") {
        timeout(PATIENCE, read.read_line(&mut told))
            .await
            .expect("an event")
            .unwrap();
    }
    running.ask("DELETE /v1/bindings/key-1", "").await;
    while !told.contains("\"event\":\"delete\"") {
        timeout(PATIENCE, read.read_line(&mut told))
            .await
            .expect("an event")
            .unwrap();
    }
    running.stop.send(true).unwrap();
    let mut rest = String::new();
    timeout(PATIENCE, read.read_to_string(&mut rest))
        .await
        .expect("the watch ends")
        .unwrap();
    timeout(PATIENCE, running.serving)
        .await
        .expect("serve returns")
        .unwrap();
}

#[tokio::test]
async fn watch_of_revisions_that_are_not_kept_is_410() {
    let running = gateway().await;
    running
        .ask("GET /v1/watch?since=1&store=other", "")
        .await
        .is_problem(410, "too-old");
}
