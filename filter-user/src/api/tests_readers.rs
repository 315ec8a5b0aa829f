//! Readers who do not read, and connections that are closed on one side only.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Bounds;
use super::fixture::{ALL, Running, me, policy_with, publisher};
use super::tests::{PATIENCE, listener};
use super::tests_bindings::binding;
use crate::policy::model::ListenerAddress;

const WATCH: &[u8] = b"GET /v1/watch?since=0 HTTP/1.1\r\nhost: keyfence\r\n\r\n";

async fn gateway(bounds: Bounds) -> Running {
    let policy = policy_with(&publisher(
        "gateway",
        "requests = { rate = \"1M\", burst = \"1M\" }",
    ));
    Running::on(policy, &[&me()], bounds, |folder| {
        vec![listener(ListenerAddress::Unix(folder.join("api.sock")), &ALL)]
    })
    .await
}

async fn connect(running: &Running) -> UnixStream {
    UnixStream::connect(running.socket("api.sock")).await.unwrap()
}

/// All that comes until the connection ends, however it does.
async fn rest(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    // Closed with bytes unread is a reset on some sockets: what came is there.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("the connection ends");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_that_nobody_reads_holds_up_nobody_and_is_ended() {
    let bounds = Bounds {
        stall_timeout: Duration::from_millis(500),
        ..Bounds::default()
    };
    let running = gateway(bounds).await;
    let mut idle = connect(&running).await;
    idle.write_all(WATCH).await.unwrap();
    // Far more than its socket holds.
    let count = 5_000;
    let lines: String = (0..count)
        .map(|at| {
            let labels = json!({ "for": "x".repeat(200) });
            let line = json!({ "op": "put", "credential": format!("key-{at}"), "sources": ["198.51.100.7"],
                "services": ["payments"], "lease_seconds": 600, "labels": labels });
            format!("{line}\n")
        })
        .collect();
    let sent = format!("content-type: application/x-ndjson\r\n\r\n{lines}");
    let batch = running.ask("POST /v1/bindings/batch", &sent).await;
    assert!(
        batch.body.contains(&format!("\"changed\":{count}")),
        "{}",
        batch.body
    );
    assert_eq!(running.put("late", &binding("198.51.100.8")).await.status, 201);
    tokio::time::sleep(bounds.stall_timeout * 3).await;
    let told = rest(&mut idle).await;
    assert!(
        !told.contains("\"late\""),
        "it was ended before it could be told all"
    );
}

#[tokio::test]
async fn watch_that_its_store_has_left_behind_is_told_so_and_ended() {
    let running = gateway(Bounds::default()).await;
    assert_eq!(running.put("key-1", &binding("198.51.100.7")).await.status, 201);
    let copy = running.folder.path().join("copy");
    let body = format!(
        "content-type: application/json\r\n\r\n{}",
        json!({ "path": copy })
    );
    let backup = running.ask("POST /v1/backup", &body).await;
    assert_eq!(backup.status, 200, "{}", backup.body);
    let mut watch = BufReader::new(connect(&running).await);
    watch.write_all(WATCH).await.unwrap();
    let mut told = String::new();
    while !told.contains("\"key-1\"") {
        timeout(PATIENCE, watch.read_line(&mut told))
            .await
            .unwrap()
            .unwrap();
    }
    let restored = running.ask("POST /v1/restore", &body).await;
    assert_eq!(restored.status, 200, "{}", restored.body);
    assert_eq!(running.put("key-2", &binding("198.51.100.8")).await.status, 201);
    let told = rest(watch.get_mut()).await;
    assert!(
        told.contains("\"error\":\"too-old\"") && !told.contains("key-2"),
        "{told}"
    );
}

#[tokio::test]
async fn half_closed_connection_is_answered_and_half_a_body_does_nothing() {
    let running = gateway(Bounds::default()).await;
    let body = binding("198.51.100.7").to_string();
    let head = format!(
        "PUT /v1/bindings/key-1 HTTP/1.1\r\nhost: keyfence\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut half = connect(&running).await;
    half.write_all(format!("{head}{}", &body[..body.len() / 2]).as_bytes())
        .await
        .unwrap();
    half.shutdown().await.unwrap();
    let told = rest(&mut half).await;
    assert!(!told.starts_with("HTTP/1.1 2"), "{told}");
    running
        .ask("GET /v1/bindings/key-1", "")
        .await
        .is_problem(404, "unknown-credential");
    let mut whole = connect(&running).await;
    whole.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    whole.shutdown().await.unwrap();
    let told = rest(&mut whole).await;
    assert!(told.starts_with("HTTP/1.1 201"), "{told}");
    assert_eq!(running.ask("GET /v1/bindings/key-1", "").await.status, 200);
}
