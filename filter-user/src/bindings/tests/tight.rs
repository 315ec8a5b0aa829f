//! What the kernel has no room for: found before it is durable, or tried where only that can tell.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;
use tokio::time::timeout;

use super::fixture::*;
use super::streams::{PATIENCE, batch, put_line};
use crate::bindings::requests::*;
use crate::bindings::seam::{Change, GrantError};

impl Held {
    /// As the engine tells it of its table of owners.
    pub(super) fn sift(&self, changes: &[Change]) -> Vec<(Arc<str>, GrantError)> {
        let mut owners: BTreeSet<&Arc<str>> = self.owners.keys().collect();
        let mut refused = Vec::new();
        for owner in changes.iter().filter_map(Change::owner).filter(|_| self.sifts) {
            if owners.contains(owner) || owners.len() < self.owners_max {
                owners.insert(owner);
                continue;
            }
            let full = GrantError::TableFull {
                table: "OWNERS",
                needed: owners.len() as u64 + 1,
                max: self.owners_max as u64,
            };
            refused.push((Arc::clone(owner), full));
        }
        refused
    }
}

/// A batch of more lines than the kernel's table has room for, and another publisher's writes beside it. What the audit
/// log tells of it.
async fn overfull(sifts: bool, lines: usize) -> Vec<Value> {
    let f = start();
    {
        let mut held = f.kernel.held.lock().unwrap();
        (held.owners_max, held.sifts) = (10, sifts);
    }
    let text: Vec<String> = (0..lines)
        .map(|at| put_line(&format!("key-{at:05}"), "192.0.2.1"))
        .collect();
    let beside = async {
        // It finds no place or one, but is answered between two groups of the batch.
        for at in 0..20 {
            let (key, text) = (format!("key-{at}"), body("192.0.2.9", 60));
            let put = f.put_as("endless", &key, &text, Conditions::default());
            let _ = timeout(PATIENCE, put).await.unwrap();
        }
    };
    let ((failures, summary), ()) = tokio::join!(batch(&f, &text), beside);
    let held = f.kernel.owners();
    assert_eq!(held.len(), 10);
    let own = held
        .iter()
        .filter(|name| name.starts_with("binding/gateway/"))
        .count();
    assert_eq!(
        (summary.changed, summary.failed),
        (own as u64, (lines - own) as u64)
    );
    assert!(failures.iter().all(|failure| failure.code == "table-full"));
    assert_eq!(f.list("gateway").await.len(), own);
    assert!(crate::bindings::audit::verify(&f.audit_path(), None).is_ok());
    let told = f.audit_lines();
    let f = f.restart().await;
    assert_eq!(f.kernel.owners(), held);
    told
}

#[tokio::test]
async fn lines_that_find_no_room_are_found_before_they_are_durable() {
    let lines = overfull(true, 6_000).await;
    let undone = lines.iter().filter(|line| line["what"] == "undone").count();
    // The first group tells that room is short; from there on nothing is made durable in vain.
    assert!((1..=4).contains(&undone), "{undone} groups were taken back");
}

#[tokio::test]
async fn each_line_has_its_own_answer_where_only_a_try_can_tell() {
    overfull(false, 60).await;
}
