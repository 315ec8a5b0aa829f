//! Batches, full syncs and watches.

use std::time::Duration;

use tokio::time::timeout;

use super::fixture::*;
use crate::bindings::refusal::Code;
use crate::bindings::requests::*;

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn put_line(credential: &str, source: &str) -> String {
    format!(
        r#"{{"op": "put", "credential": "{credential}", "sources": ["{source}"], "services": ["payments"], "lease_seconds": 600}}"#
    )
}

pub(super) fn end(count: usize) -> String {
    format!(r#"{{"op": "end", "count": {count}}}"#)
}

pub(super) async fn batch(f: &Fixture, lines: &[String]) -> (Vec<LineFailure>, BatchSummary) {
    let (mut input, mut output) = f.bindings.batch(&actor("gateway"), "gateway", false).unwrap();
    input.push(lines.join("\n").as_bytes()).await.unwrap();
    timeout(PATIENCE, input.finish()).await.unwrap().unwrap();
    let mut failures = Vec::new();
    while let Some(line) = output.next().await {
        match line {
            BatchLine::Failure(failure) => failures.push(failure),
            BatchLine::Summary { summary } => return (failures, summary),
            BatchLine::Progress { .. } => panic!("nobody asked for progress"),
        }
    }
    panic!("there was no summary");
}

pub(super) async fn sync_with(
    f: &Fixture,
    publisher: &str,
    lines: &[String],
    options: SyncOptions,
) -> Answer<SyncSummary> {
    let options = SyncOptions {
        publisher: publisher.to_owned(),
        ..options
    };
    let mut input = f.bindings.sync(&actor(publisher), options)?;
    for line in lines {
        input.push(format!("{line}\n").as_bytes()).await?;
    }
    timeout(PATIENCE, input.finish()).await.unwrap()
}

async fn sync(f: &Fixture, lines: &[String]) -> Answer<SyncSummary> {
    sync_with(f, "gateway", lines, SyncOptions::default()).await
}

/// Lines for so many keys, and the end.
fn keys(count: usize) -> Vec<String> {
    let mut lines: Vec<String> = (0..count)
        .map(|at| put_line(&format!("key-{at:03}"), "192.0.2.1"))
        .collect();
    lines.push(end(count));
    lines
}

#[tokio::test]
async fn bad_lines_of_a_batch_do_not_stop_the_others() {
    let f = start();
    let lines = [
        put_line("key-1", "192.0.2.1"),
        r#"{"op": "renew", "credential": "key-2", "lease_seconds": 3600}"#.to_owned(),
        r#"{"op": "renew", "credential": "key-1", "lease_seconds": 3600}"#.to_owned(),
        "{".to_owned(),
        put_line("key-3", "192.0.2.1/24"),
        put_line("key-4", "192.0.2.1"),
        r#"{"op": "delete", "credential": "key-4"}"#.to_owned(),
        r#"{"op": "delete", "credential": "key-5"}"#.to_owned(),
        put_line("sk_live_0123456789abcdef", "192.0.2.1"),
        end(9),
    ];
    let (failures, summary) = batch(&f, &lines).await;
    let told: Vec<_> = failures
        .iter()
        .map(|f| (f.line, f.credential.as_deref(), f.status, f.code))
        .collect();
    // What cannot be read is told at once, what is decided in its turn.
    assert_eq!(told.len(), 4);
    assert!(told.contains(&(2, Some("key-2"), 404, "unknown-credential")));
    assert!(told.contains(&(4, None, 400, "malformed")));
    assert!(told.contains(&(5, Some("key-3"), 422, "invalid")));
    assert!(told.contains(&(9, None, 422, "invalid")));
    let expected = BatchSummary {
        lines: 9,
        changed: 3,
        renewed: 1,
        unchanged: 1,
        failed: 4,
        complete: true,
        ..summary.clone()
    };
    assert_eq!(summary, expected);
    assert_eq!(f.kernel.owners(), ["binding/gateway/key-1"]);
    let again = batch(&f, &[put_line("key-1", "192.0.2.9")]).await.1;
    assert_eq!((again.complete, again.changed), (false, 1));
}

#[tokio::test]
async fn failures_beyond_a_thousand_are_counted_for_a_client_that_does_not_read() {
    let f = start();
    let mut lines = vec!["{}".to_owned(); 1_500];
    lines.push(put_line("key-1", "192.0.2.1"));
    lines.push(end(1_501));
    let (failures, summary) = batch(&f, &lines).await;
    assert_eq!((failures.len(), summary.failures_not_shown), (1_000, 500));
    assert_eq!(
        (summary.failed, summary.changed, summary.complete),
        (1_500, 1, true)
    );
}

#[tokio::test]
async fn progress_tells_what_is_durable_and_in_force() {
    let f = start();
    let (mut input, mut output) = f.bindings.batch(&actor("gateway"), "gateway", true).unwrap();
    input
        .push(format!("{}\n", put_line("key-1", "192.0.2.1")).as_bytes())
        .await
        .unwrap();
    let line = timeout(PATIENCE, output.next()).await.unwrap();
    assert_eq!(line, Some(BatchLine::Progress { done: 1, revision: 1 }));
    assert_eq!(f.kernel.owners().len(), 1);
    // One at a time a publisher; another's is not held up.
    assert_eq!(
        code(f.bindings.batch(&actor("gateway"), "gateway", false).map(drop)),
        Code::BatchRunning
    );
    assert_eq!(code(sync(&f, &keys(1)).await), Code::BatchRunning);
    assert!(f.bindings.batch(&actor("endless"), "endless", false).is_ok());
    drop(input);
    assert_eq!(timeout(PATIENCE, output.next()).await.unwrap(), None);
    assert!(f.bindings.batch(&actor("gateway"), "gateway", false).is_ok());
}

#[tokio::test]
async fn large_batch_is_all_there_and_survives_a_kill() {
    let f = start();
    let (_, summary) = batch(&f, &keys(5_000)).await;
    assert_eq!(
        (summary.changed, summary.failed, summary.complete),
        (5_000, 0, true)
    );
    assert_eq!(f.kernel.owners().len(), 5_000);
    let (folder, clock) = f.kill().await;
    let f = start_in(folder, clock, POLICY);
    assert_eq!(f.kernel.owners().len(), 5_000);
    assert!(crate::bindings::audit::verify(&f.audit_path(), None).is_ok());
}

#[tokio::test]
async fn sync_makes_the_stream_the_whole_set_and_touches_only_what_differs() {
    let f = start();
    let text = r#"{"credential": "key-0", "sources": ["192.0.2.1"], "services": ["payments"]}"#;
    let lines = |count: usize| -> Vec<String> {
        let line = |at: usize| text.replace("key-0", &format!("key-{at}"));
        (0..count).map(line).chain([end(count)]).collect()
    };
    let options = SyncOptions::default;
    let first = sync_with(&f, "endless", &lines(12), options()).await.unwrap();
    assert_eq!((first.created, first.revoked, first.lines), (12, 0, 12));
    let calls = f.kernel.calls();
    let same = sync_with(&f, "endless", &lines(12), options()).await.unwrap();
    assert_eq!((same.unchanged, same.revision), (12, first.revision));
    assert_eq!(f.kernel.calls(), calls);
    let mut other = lines(12);
    other[3] = other[3].replace("192.0.2.1", "192.0.2.3");
    other.remove(5);
    other.pop();
    other.push(end(11));
    let dry = SyncOptions {
        dry_run: true,
        ..options()
    };
    let told = sync_with(&f, "endless", &other, dry).await.unwrap();
    assert_eq!(
        (told.changed, told.revoked, told.unchanged, f.kernel.calls()),
        (1, 1, 10, calls)
    );
    sync_with(&f, "endless", &other, options()).await.unwrap();
    let last = f.kernel.held.lock().unwrap().calls.last().unwrap().len();
    assert_eq!((last, f.kernel.owners().len()), (2, 11));
    // One line of the audit log a sync, with its change file beside.
    let lines = f.audit_lines();
    let line = lines.last().unwrap();
    assert_eq!(
        (&line["what"], &line["counts"]["revoked"]),
        (&"sync".into(), &1.into())
    );
    let file = std::fs::read(f.folder.path().join(line["file"].as_str().unwrap())).unwrap();
    use sha2::Digest as _;
    let hash = crate::bindings::model::credential::hex(&sha2::Sha256::digest(&file));
    assert_eq!(line["sha256"], hash);
    assert_eq!(String::from_utf8(file).unwrap().lines().count(), 2);
}

#[tokio::test]
async fn cut_or_faulty_sync_revokes_nobody() {
    let f = start();
    sync(&f, &keys(20)).await.unwrap();
    let mut cut = keys(20);
    cut.pop();
    assert_eq!(code(sync(&f, &cut).await), Code::SyncIncomplete);
    assert_eq!(code(sync(&f, &[]).await), Code::SyncIncomplete);
    let mut wrong = keys(20);
    wrong.remove(0);
    assert_eq!(code(sync(&f, &wrong).await), Code::SyncIncomplete);
    let mut faulty = keys(20);
    faulty[7] = put_line("key-007", "192.0.2.1/24");
    let refusal = sync(&f, &faulty).await.unwrap_err();
    assert_eq!(refusal.errors[0].code, "host-bits");
    assert!(refusal.errors[0].detail.starts_with("line 8: "), "{refusal:?}");
    let mut twice = keys(20);
    twice[7] = put_line("key-006", "192.0.2.1");
    assert_eq!(
        faults(sync(&f, &twice).await),
        [("repeated-credential", "/credential".to_owned())]
    );
    let refusal = sync(&f, &keys(0)).await.unwrap_err();
    assert_eq!(refusal.code, Code::MassRevocation);
    assert_eq!(refusal.members[0], ("revocations", 20.into()));
    assert!(refusal.detail.contains("?revoke_max=20"));
    assert_eq!(f.kernel.owners().len(), 20);
    assert_eq!(sync(&f, &keys(10)).await.unwrap().revoked, 10);
    let allowed = SyncOptions {
        revoke_max: Some(10),
        ..SyncOptions::default()
    };
    assert_eq!(
        sync_with(&f, "gateway", &keys(0), allowed).await.unwrap().revoked,
        10
    );
    assert!(f.kernel.owners().is_empty());
}

#[tokio::test]
async fn sync_neither_changes_nor_revokes_nor_revives_what_was_written_after_its_time() {
    let f = start();
    sync(&f, &keys(5)).await.unwrap();
    let as_of = f.bindings.status().revision;
    f.put("key-001", &body("192.0.2.99", 60)).await.unwrap();
    f.put("new", &body("192.0.2.98", 60)).await.unwrap();
    f.delete("key-002", None).await.unwrap();
    let options = SyncOptions {
        as_of: Some(as_of),
        ..SyncOptions::default()
    };
    let summary = sync_with(&f, "gateway", &keys(5), options).await.unwrap();
    assert_eq!((summary.kept_newer, summary.revoked, summary.renewed), (3, 0, 3));
    let source = |credential| f.bindings.get("gateway", credential).unwrap().sources[0].to_string();
    assert_eq!(source("key-001"), "192.0.2.99/32");
    assert_eq!(source("new"), "192.0.2.98/32");
    assert_eq!(
        code(f.bindings.get("gateway", "key-002")),
        Code::UnknownCredential
    );
    let future = SyncOptions {
        as_of: Some(10_000),
        ..SyncOptions::default()
    };
    assert_eq!(code(sync_with(&f, "gateway", &keys(5), future).await), Code::Gone);
}

#[tokio::test]
async fn sync_that_does_not_fit_the_kernel_changes_nothing() {
    let f = start();
    sync(&f, &keys(5)).await.unwrap();
    let before = f.list("gateway").await;
    f.kernel.held.lock().unwrap().owners_max = 10;
    assert_eq!(code(sync(&f, &keys(20)).await), Code::TableFull);
    assert_eq!(f.list("gateway").await, before);
    let f = f.restart().await;
    assert_eq!(f.list("gateway").await, before);
}

async fn next(feed: &mut crate::bindings::WatchFeed) -> (u64, Event, String) {
    match timeout(PATIENCE, feed.next()).await.unwrap() {
        Some(WatchLine::Event {
            revision,
            event,
            credential,
            ..
        }) => (revision, event, credential),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn watch_tells_every_change_in_order_from_history_and_live() {
    let f = start();
    f.put("key-1", &body("192.0.2.1", 60)).await.unwrap();
    f.put("key-1", &body("192.0.2.1", 60)).await.unwrap();
    f.put("key-2", &body("192.0.2.1", 600)).await.unwrap();
    let bindings = f.bindings.clone();
    let watch = |since, renewals| {
        let watch = Watch {
            publisher: Some("gateway".to_owned()),
            since,
            renewals,
            ..Watch::default()
        };
        bindings.watch(watch)
    };
    let mut all = watch(Some(0), true).await.unwrap();
    let mut few = watch(Some(0), false).await.unwrap();
    let mut live = watch(None, false).await.unwrap();
    assert_eq!(next(&mut all).await, (1, Event::Put, "key-1".to_owned()));
    assert_eq!(next(&mut all).await, (2, Event::Renew, "key-1".to_owned()));
    assert_eq!(next(&mut few).await.0, 1);
    assert_eq!(next(&mut few).await.0, 3);
    f.clock.pass(60);
    f.settle().await;
    f.delete("key-2", None).await.unwrap();
    assert_eq!(next(&mut live).await, (4, Event::Expire, "key-1".to_owned()));
    assert_eq!(next(&mut live).await, (5, Event::Delete, "key-2".to_owned()));
    assert_eq!(code(watch(Some(6), false).await.map(drop)), Code::Gone);
    // Another publisher's changes are not told.
    let text = r#"{"sources": ["192.0.2.1"], "services": ["payments"]}"#;
    f.put_as("endless", "key-9", text, Conditions::default())
        .await
        .unwrap();
    f.put("key-3", &body("192.0.2.1", 60)).await.unwrap();
    assert_eq!(next(&mut live).await, (7, Event::Put, "key-3".to_owned()));
    let store = f.bindings.status().store;
    let (folder, clock) = f.stop().await;
    assert_eq!(timeout(PATIENCE, live.next()).await.unwrap(), None);
    drop((all, few, live, bindings));
    let f = start_in(folder, clock, POLICY);
    let again = Watch {
        since: Some(5),
        store: Some(store),
        ..Watch::default()
    };
    let mut again = f.bindings.watch(again).await.unwrap();
    assert_eq!(next(&mut again).await.0, 6);
}

#[tokio::test]
async fn renewals_are_one_line_a_minute_of_the_audit_log() {
    let f = start();
    for _ in 0..5 {
        f.put("key-1", &body("192.0.2.1", 600)).await.unwrap();
    }
    f.clock.pass(60);
    f.settle().await;
    let lines = f.audit_lines();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (&lines[1]["what"], &lines[1]["renewals"]),
        (&"renewals".into(), &4.into())
    );
    f.put("key-1", &body("192.0.2.1", 600)).await.unwrap();
    let path = f.audit_path();
    let _folder = f.stop().await.0;
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text.lines().last().unwrap().contains("\"renewals\":1"),
        "what is owed is written at the stop"
    );
}

#[tokio::test]
async fn restore_ends_every_watch_and_makes_all_watchers_list_again() {
    let f = start();
    f.put("key-1", &body("192.0.2.1", 600)).await.unwrap();
    let backup = f.folder.path().join("backup");
    let before = f.bindings.backup(&operator(), backup.clone()).await.unwrap();
    f.delete("key-1", None).await.unwrap();
    let mut feed = f.bindings.watch(Watch::default()).await.unwrap();
    let Restored { status: after, .. } = f.bindings.restore(&operator(), backup, true).await.unwrap();
    let last = feed.next().await;
    assert!(
        matches!(last, Some(WatchLine::Ended { error: "too-old", .. })),
        "{last:?}"
    );
    assert!(feed.next().await.is_none());
    // A watcher that names no store is told as well: it must list again.
    let since = |since| Watch {
        since: Some(since),
        ..Watch::default()
    };
    for revision in before.revision..after.revision {
        assert_eq!(
            code(f.bindings.watch(since(revision)).await.map(drop)),
            Code::Gone,
            "{revision}"
        );
    }
    assert!(f.bindings.watch(since(after.revision)).await.is_ok());
}
