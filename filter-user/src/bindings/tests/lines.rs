//! Lines of batches and syncs: how they are counted, what they must say, and what a set may hold after them.

use super::fixture::*;
use super::streams::{batch, end, put_line, sync_with};
use crate::bindings::refusal::Code;
use crate::bindings::requests::*;

#[tokio::test]
async fn faults_of_a_batch_name_the_line_as_an_editor_counts_it() {
    let f = start();
    let lines = [
        "",
        "{bad",
        "",
        "[]",
        "null",
        &put_line("key-1", "192.0.2.1"),
        &end(4),
    ];
    let (failures, summary) = batch(&f, &lines.map(str::to_owned)).await;
    let told: Vec<_> = failures
        .iter()
        .map(|failure| {
            (
                failure.line,
                failure.code,
                failure.errors.first().map(|error| error.code),
            )
        })
        .collect();
    let expected = [
        (2, "malformed", None),
        (4, "invalid", Some("wrong-type")),
        (5, "invalid", Some("wrong-type")),
    ];
    assert_eq!(told, expected);
    assert_eq!((summary.lines, summary.changed, summary.complete), (4, 1, true));
}

#[tokio::test]
async fn renewal_of_a_row_with_a_version_must_say_its_own() {
    let f = start();
    let put = put_line("key-1", "192.0.2.1").replace("\"lease", "\"row_version\": 7, \"lease");
    batch(&f, &[put]).await;
    let renew = |version: &str| {
        format!(r#"{{"op": "renew", "credential": "key-1", {version}"lease_seconds": 3600}}"#)
    };
    let lines = [
        renew(""),
        renew("\"row_version\": 6, "),
        renew("\"row_version\": 7, "),
    ];
    let (failures, summary) = batch(&f, &lines).await;
    let told: Vec<_> = failures.iter().map(|f| (f.line, f.status, f.code)).collect();
    assert_eq!(
        told,
        [(1, 409, "row-version-required"), (2, 409, "stale-row-version")]
    );
    assert_eq!(summary.renewed, 1);
}

#[tokio::test]
async fn sync_that_fits_is_taken_however_full_the_set_was_and_a_dry_run_tells_any_number() {
    let f = start();
    let lines = |from: usize, count: usize| {
        let keys = (from..from + count).map(|at| put_line(&format!("key-{at:03}"), "192.0.2.1"));
        keys.chain([end(count)]).collect::<Vec<String>>()
    };
    let with = |dry_run, revoke_max| SyncOptions {
        dry_run,
        revoke_max,
        ..SyncOptions::default()
    };
    // `bindings-max` is 20.
    sync_with(&f, "endless", &lines(0, 20), with(false, None))
        .await
        .unwrap();
    let revision = f.bindings.status().revision;
    let dry = sync_with(&f, "endless", &lines(100, 20), with(true, None))
        .await
        .unwrap();
    assert_eq!((dry.created, dry.revoked, dry.revision), (20, 20, revision));
    let refused = sync_with(&f, "endless", &lines(100, 20), with(false, None)).await;
    assert_eq!(refused.unwrap_err().code, Code::MassRevocation);
    let other = sync_with(&f, "endless", &lines(100, 20), with(false, Some(20)))
        .await
        .unwrap();
    assert_eq!((other.created, other.revoked), (20, 20));
    let more = sync_with(&f, "endless", &lines(200, 21), with(false, Some(20))).await;
    assert_eq!(more.unwrap_err().code, Code::BindingsMax);
    let fewer = sync_with(&f, "endless", &lines(110, 11), with(false, None))
        .await
        .unwrap();
    assert_eq!((fewer.created, fewer.revoked), (1, 10));
}

#[tokio::test]
async fn dry_run_of_a_sync_that_finds_no_room_is_refused_as_the_sync_is() {
    let f = start();
    let lines = |from: usize, count: usize| {
        let keys = (from..from + count).map(|at| put_line(&format!("key-{at:03}"), "192.0.2.1"));
        keys.chain([end(count)]).collect::<Vec<String>>()
    };
    let with = |dry_run| SyncOptions {
        dry_run,
        revoke_max: Some(20),
        ..SyncOptions::default()
    };
    sync_with(&f, "endless", &lines(0, 12), with(false))
        .await
        .unwrap();
    f.kernel.held.lock().unwrap().owners_max = 12;
    for dry_run in [true, false] {
        let refused = sync_with(&f, "endless", &lines(0, 13), with(dry_run)).await;
        assert_eq!(refused.unwrap_err().code, Code::TableFull);
    }
    // What goes makes room.
    for dry_run in [true, false] {
        let told = sync_with(&f, "endless", &lines(6, 12), with(dry_run))
            .await
            .unwrap();
        assert_eq!((told.created, told.revoked, told.dry_run), (6, 6, dry_run));
    }
}
