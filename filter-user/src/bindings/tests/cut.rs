//! An audit log that loses lines between two runs: told in the log itself and as an alarm, and a crash is no such thing.

use super::fixture::*;
use crate::bindings::audit::{VerifyError, verify};

async fn with_lines(count: usize) -> Fixture {
    let f = start();
    for at in 0..count {
        f.put(&format!("key-{at}"), &body("192.0.2.1", 600))
            .await
            .unwrap();
    }
    f
}

fn cut(f: &Fixture, lines: usize) {
    let text = std::fs::read_to_string(f.audit_path()).unwrap();
    let kept: String = text.split_inclusive('\n').take(lines).collect();
    std::fs::write(f.audit_path(), kept).unwrap();
}

#[tokio::test]
async fn log_that_was_cut_says_so_once_and_nothing_is_made_up_for_what_is_gone() {
    let f = with_lines(4).await;
    let whole = f.bindings.audit_head();
    let (path, folder) = (f.audit_path(), f.folder.path().to_owned());
    let f = f.restart().await;
    assert!(f.bindings.status().alarms.is_empty());
    assert_eq!(f.bindings.audit_head(), whole);
    // The last line alone.
    let (kept, clock) = f.stop().await;
    assert_eq!(kept.path(), folder);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    std::fs::write(&path, lines[..3].concat()).unwrap();
    let f = start_in(kept, clock, POLICY);
    let alarms = f.bindings.status().alarms;
    assert!(
        alarms[0].contains("cut") && alarms[0].contains(&whole.hash),
        "{alarms:?}"
    );
    let told = f.audit_lines();
    assert_eq!(told.len(), 4, "no line makes up for it");
    assert_eq!(told[3]["what"], "cut");
    let (expected, found) = (&told[3]["expected"], &told[3]["found"]);
    assert_eq!(
        (&expected["line"], &expected["hash"]),
        (&4.into(), &whole.hash.into())
    );
    assert_eq!((&found["line"], &told[3]["told_up_to"]), (&3.into(), &4.into()));
    let fault = verify(&path, None).unwrap_err();
    assert!(
        matches!(fault, VerifyError::Cut { line: 4, reached: 4 }),
        "{fault}"
    );
    let head = f.bindings.audit_head().hash;
    assert!(verify(&path, Some(&head)).is_ok());
    // Bindings are whole, and their revisions go on.
    assert_eq!(f.list("gateway").await.len(), 4);
    f.put("key-9", &body("192.0.2.9", 600)).await.unwrap();
    assert_eq!(f.audit_lines()[4]["revision"], 5);
    let f = f.restart().await;
    assert!(f.bindings.status().alarms.is_empty());
    assert_eq!(f.audit_lines().len(), 5);
}

#[tokio::test]
async fn log_that_is_gone_or_another_is_told_of_after_a_kill_too() {
    for lines in [0, 1, 2] {
        let f = with_lines(4).await;
        // What the store knows stands a group behind: without an idle moment it knows of three lines.
        cut(&f, lines);
        let (folder, clock) = f.kill().await;
        let f = start_in(folder, clock, POLICY);
        assert_eq!(f.bindings.status().alarms.len(), 1, "{lines}");
        let told = f.audit_lines();
        assert_eq!(told[lines]["what"], "cut");
        // Of the last group the store cannot know whether it was told.
        assert_eq!(
            (told.len(), &told[lines + 1]["what"]),
            (lines + 2, &"recovered".into())
        );
        assert_eq!(told[lines + 1]["revision"], 4);
    }
}

#[tokio::test]
async fn copy_of_a_store_knows_nothing_of_the_log_beside_it() {
    let f = with_lines(3).await;
    let backup = f.folder.path().join("backup");
    f.bindings.backup(&operator(), backup.clone()).await.unwrap();
    f.bindings
        .restore(&operator(), backup.clone(), true)
        .await
        .unwrap();
    let f = f.restart().await;
    assert!(f.bindings.status().alarms.is_empty());
    // It learns of it with what is written next.
    let (folder, clock) = f.stop().await;
    std::fs::remove_file(folder.path().join("audit.jsonl")).unwrap();
    let f = start_in(folder, clock, POLICY);
    assert_eq!(f.bindings.status().alarms.len(), 1);
}
