//! A batch's next group, durable while the kernel takes the one before: what is seen, what is taken back, what a crash
//! leaves.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::fixture::*;
use super::streams::{PATIENCE, batch, put_line};
use crate::bindings::Bindings;
use crate::bindings::requests::*;
use crate::bindings::seam::GrantError;

/// More than two groups.
const LINES: usize = 12_000;
/// Lines of the first.
const FIRST: u64 = 2_048;

fn lines() -> Vec<String> {
    let key = |at: usize| put_line(&format!("key-{at:05}"), "192.0.2.1");
    (0..LINES).map(key).collect()
}

/// A batch on its way, and the failures and the summary that it ends with.
fn begin(bindings: &Bindings, lines: &[String]) -> JoinHandle<(Vec<LineFailure>, BatchSummary)> {
    let (mut input, mut output) = bindings.batch(&actor("gateway"), "gateway", false).unwrap();
    let text = lines.join("\n");
    tokio::spawn(async move {
        input.push(text.as_bytes()).await.unwrap();
        input.finish().await.unwrap();
        let mut failures = Vec::new();
        loop {
            match output.next().await {
                Some(BatchLine::Failure(failure)) => failures.push(failure),
                Some(BatchLine::Summary { summary }) => return (failures, summary),
                _ => panic!("there was no summary"),
            }
        }
    })
}

/// Returns when the store has the group behind the one that the kernel is taking.
async fn second_is_durable(f: &Fixture) {
    let durable = async {
        f.kernel.has_come(1).await;
        while f.bindings.shared.store.revision().unwrap() <= FIRST {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, durable).await.unwrap();
}

#[tokio::test]
async fn next_group_is_durable_while_the_kernel_takes_one_and_neither_is_seen() {
    let f = start();
    f.kernel.let_through(0);
    let under_way = begin(&f.bindings, &lines());
    second_is_durable(&f).await;
    assert_eq!(f.kernel.came.load(Ordering::Relaxed), 1);
    assert!(f.list("gateway").await.is_empty());
    assert_eq!(f.bindings.status().revision, 0);
    f.kernel.gate.add_permits(100);
    let (failures, summary) = timeout(PATIENCE, under_way).await.unwrap().unwrap();
    assert!(failures.is_empty());
    assert_eq!(summary.changed, LINES as u64);
    assert_eq!(f.kernel.owners().len(), LINES);
    assert!(crate::bindings::audit::verify(&f.audit_path(), None).is_ok());
    let lines = f.audit_lines();
    assert_eq!(lines.iter().filter(|line| line["what"] == "put").count(), LINES);
}

#[tokio::test]
async fn what_the_kernel_refuses_takes_the_next_group_back_which_is_decided_anew() {
    let f = start();
    f.kernel.let_through(0);
    let mut lines = lines();
    // In the second group, of a key of the first one.
    lines[3_000] = r#"{"op": "renew", "credential": "key-00000", "lease_seconds": 60}"#.to_owned();
    let under_way = begin(&f.bindings, &lines);
    second_is_durable(&f).await;
    f.kernel.held.lock().unwrap().refuse = Some(GrantError::Failed("no".to_owned()));
    f.kernel.gate.add_permits(100);
    let (failures, summary) = timeout(PATIENCE, under_way).await.unwrap().unwrap();
    let (changed, first) = (summary.changed, summary.failed - 1);
    assert_eq!((changed, summary.renewed), (LINES as u64 - first - 1, 0));
    assert_eq!(first, FIRST);
    assert!(
        failures
            .iter()
            .all(|failure| failure.code == "unavailable" && failure.line <= first)
    );
    assert_eq!(f.kernel.owners().len() as u64, changed);
    assert!(f.bindings.get("gateway", "key-00000").is_err());
    assert!(crate::bindings::audit::verify(&f.audit_path(), None).is_ok());
    let lines = f.audit_lines();
    let undone: Vec<u64> = lines
        .iter()
        .filter(|line| line["what"] == "undone")
        .map(|line| line["first_revision"].as_u64().unwrap())
        .collect();
    assert_eq!(undone, [first + 1, 1], "the later one goes first");
    let held = f.kernel.owners();
    let f = f.restart().await;
    assert_eq!(f.kernel.owners(), held);
}

#[tokio::test]
async fn crash_between_two_groups_leaves_both_whole() {
    let f = start();
    f.kernel.let_through(0);
    let under_way = begin(&f.bindings, &lines());
    second_is_durable(&f).await;
    under_way.abort();
    let _ = under_way.await;
    let (folder, clock) = f.kill().await;
    let f = start_in(folder, clock, POLICY);
    let held = f.kernel.owners().len() as u64;
    assert!(held > FIRST, "what is durable is in force after a start");
    assert_eq!(f.bindings.status().revision, held);
    assert!(crate::bindings::audit::verify(&f.audit_path(), None).is_ok());
    f.put("key-after", &body("192.0.2.2", 60)).await.unwrap();
    let put = f
        .audit_lines()
        .iter()
        .filter(|line| line["what"] == "put")
        .count();
    assert_eq!(put as u64, held + 1);
}

#[tokio::test]
async fn bindings_of_the_group_before_count() {
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let clock = std::sync::Arc::new(FakeClock(std::sync::Mutex::new(START)));
    let policy = POLICY.replace("bindings-max = 1000000", "bindings-max = 5000");
    let f = start_in(folder, clock, &policy);
    let (failures, summary) = batch(&f, &lines()).await;
    assert_eq!((summary.changed, summary.failed), (5_000, LINES as u64 - 5_000));
    assert!(failures.iter().all(|failure| failure.code == "bindings-max"));
    assert_eq!(f.kernel.owners().len(), 5_000);
}
