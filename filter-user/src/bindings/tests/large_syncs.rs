//! Full syncs that change much: in slices for all others, at once for whoever looks.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::fixture::*;
use super::streams::{PATIENCE, end, put_line, sync_with};
use crate::bindings::refusal::Code;
use crate::bindings::requests::*;
use crate::bindings::seam::*;

/// Far more than one slice of anything.
const MANY: usize = 2_000;

/// Lines for the keys from one to before another, and the end.
fn lines(keys: std::ops::Range<usize>, source: &str) -> Vec<String> {
    let count = keys.len();
    let line = |at: usize| put_line(&format!("key-{at:05}"), source);
    keys.map(line).chain([end(count)]).collect()
}

fn options() -> SyncOptions {
    SyncOptions {
        revoke_max: Some(u64::MAX),
        ..SyncOptions::default()
    }
}

/// Begins a sync of `gateway`, which a closed gate keeps from its end.
fn begin(f: &Fixture, lines: Vec<String>) -> JoinHandle<Answer<SyncSummary>> {
    let bindings = f.bindings.clone();
    tokio::spawn(async move {
        let options = SyncOptions {
            publisher: "gateway".to_owned(),
            ..options()
        };
        let mut input = bindings.sync(&actor("gateway"), options)?;
        drop(bindings);
        input.push(lines.join("\n").as_bytes()).await?;
        input.finish().await
    })
}

fn names(items: &[BindingView]) -> Vec<(String, String)> {
    let name = |item: &BindingView| (item.credential.clone(), item.sources[0].to_string());
    items.iter().map(name).collect()
}

/// What is to hold, by who asks for it.
fn to_be(f: &Fixture) -> Vec<String> {
    let (epoch, policy) = f.kernel.policy();
    let (grantees, _) = f.bindings.under(epoch, &policy).all();
    let mut names: Vec<String> = grantees
        .into_iter()
        .map(|grantee| grantee.credential.to_string())
        .collect();
    names.sort();
    names
}

async fn all(f: &Fixture) -> Vec<BindingView> {
    let (mut items, mut after) = (Vec::new(), None);
    loop {
        let list = List {
            publisher: Some("gateway".to_owned()),
            after,
            ..List::default()
        };
        let page = f.bindings.list(list).await.unwrap();
        items.extend(page.items);
        after = page.next;
        if after.is_none() {
            return items;
        }
    }
}

#[tokio::test]
async fn others_go_on_while_a_large_sync_is_made_and_nobody_sees_a_part_of_it() {
    let f = start();
    f.put("key-00001", &body("192.0.2.7", 600)).await.unwrap();
    let mut feed = f.bindings.watch(Watch::default()).await.unwrap();
    f.kernel.let_through(2);
    f.kernel.came.store(0, std::sync::atomic::Ordering::Relaxed);
    let sync = begin(&f, lines(0..MANY, "192.0.2.1"));
    timeout(PATIENCE, f.kernel.has_come(3)).await.unwrap();
    // Half-way in the kernel: its publisher's set is what it was for readers, and what it will be for the engine.
    assert_eq!(
        names(&all(&f).await),
        [("key-00001".to_owned(), "192.0.2.7/32".to_owned())]
    );
    assert_eq!(to_be(&f).len(), MANY);
    let text = r#"{"sources": ["192.0.2.1"], "services": ["payments"]}"#;
    let other = timeout(
        PATIENCE,
        f.put_as("endless", "key-9", text, Conditions::default()),
    )
    .await;
    assert_eq!(other.unwrap().unwrap().binding.revision, 2);
    assert_eq!(f.bindings.status().revision, 2);
    // The publisher's own change waits, and comes after it.
    let (bindings, put) = (
        f.bindings.clone(),
        Put {
            publisher: "gateway".to_owned(),
            credential: "key-00002".to_owned(),
            body: body("192.0.2.8", 600).into(),
            conditions: Conditions::default(),
        },
    );
    let own = tokio::spawn(async move { bindings.put(&actor("gateway"), put).await });
    f.settle().await;
    assert!(!own.is_finished() && !sync.is_finished());
    f.kernel.let_through(1_000);
    let summary = timeout(PATIENCE, sync).await.unwrap().unwrap().unwrap();
    assert_eq!(
        (summary.created, summary.changed, summary.kept_newer),
        (MANY as u64 - 1, 1, 0)
    );
    let own = timeout(PATIENCE, own).await.unwrap().unwrap().unwrap().binding;
    assert_eq!(own.revision, summary.revision + 1);
    assert_eq!(all(&f).await.len(), MANY);
    assert_eq!(
        f.kernel.owner("binding/gateway/key-00002").unwrap().sources[0].to_string(),
        "192.0.2.8/32"
    );
    // Each once, in the order of their revisions.
    let mut told = Vec::new();
    while told.len() < MANY + 2 {
        if let Some(WatchLine::Event {
            revision, credential, ..
        }) = timeout(PATIENCE, feed.next()).await.unwrap()
        {
            told.push((revision, credential));
        }
    }
    assert!(told.is_sorted_by(|one, other| one.0 < other.0));
    assert_eq!(
        (told[0].0, told[MANY].0, told[MANY + 1].0),
        (2, summary.revision, own.revision)
    );
    let mut credentials: Vec<&str> = told[1..=MANY]
        .iter()
        .map(|(_, credential)| &**credential)
        .collect();
    credentials.dedup();
    assert_eq!(credentials.len(), MANY);
    // One line of the audit log, and its change file.
    let logged = f.audit_lines();
    let line = logged.iter().find(|line| line["what"] == "sync").unwrap();
    let file = std::fs::read_to_string(f.folder.path().join(line["file"].as_str().unwrap())).unwrap();
    assert_eq!(
        (file.lines().count(), &line["revision"]),
        (MANY, &summary.revision.into())
    );
    assert!(crate::bindings::audit::verify(&f.audit_path(), None).is_ok());
    let before = all(&f).await;
    drop(feed);
    let f = f.restart().await;
    assert_eq!((all(&f).await, f.kernel.owners().len()), (before, MANY + 1));
}

#[tokio::test]
async fn crash_before_the_end_of_a_large_sync_leaves_nothing_of_it_and_after_it_all() {
    let f = start();
    sync_with(&f, "gateway", &lines(0..MANY, "192.0.2.1"), options())
        .await
        .unwrap();
    let before = all(&f).await;
    let (mut folder, mut clock) = f.stop().await;
    // Half of it goes, half is other, half is new: additions are five slices, removals two.
    let other = || lines(MANY / 2..MANY + MANY / 2, "192.0.2.2");
    for slices in [0, 1, 4, 6] {
        let f = start_in(folder, clock, POLICY);
        f.kernel.let_through(slices);
        let sync = begin(&f, other());
        timeout(PATIENCE, f.kernel.has_come(slices + 1)).await.unwrap();
        sync.abort();
        let _ = sync.await;
        (folder, clock) = f.kill().await;
        let f = start_in(folder, clock, POLICY);
        assert_eq!(all(&f).await, before, "after {slices} slices");
        assert_eq!(f.kernel.owners().len(), MANY);
        assert!(crate::bindings::audit::verify(&f.audit_path(), None).is_ok());
        (folder, clock) = f.stop().await;
    }
    let f = start_in(folder, clock, POLICY);
    let revision = f.bindings.status().revision;
    let sync = begin(&f, other());
    // Its commit, and perhaps no row in its place.
    while f.bindings.status().revision == revision {
        tokio::task::yield_now().await;
    }
    sync.abort();
    let _ = sync.await;
    (folder, clock) = f.kill().await;
    let f = start_in(folder, clock, POLICY);
    let after = names(&all(&f).await);
    assert_eq!((after.len(), f.kernel.owners().len()), (MANY, MANY));
    assert!(after.iter().all(|(_, source)| source == "192.0.2.2/32"));
    assert_eq!(after[0].0, format!("key-{:05}", MANY / 2));
}

#[tokio::test]
async fn large_sync_that_the_kernel_refuses_is_taken_back_whole() {
    let f = start();
    sync_with(&f, "gateway", &lines(0..100, "192.0.2.1"), options())
        .await
        .unwrap();
    let (before, held) = (all(&f).await, f.kernel.held.lock().unwrap().owners.clone());
    f.kernel.held.lock().unwrap().owners_max = 1_000;
    let refused = sync_with(&f, "gateway", &lines(0..MANY, "192.0.2.2"), options()).await;
    assert_eq!(code(refused), Code::TableFull);
    assert_eq!(all(&f).await, before);
    assert_eq!(f.kernel.held.lock().unwrap().owners, held);
    // What goes makes room for what comes: only the whole fits.
    f.kernel.held.lock().unwrap().owners_max = 100 + MANY / 2;
    let lines = lines(100..100 + MANY / 2 + 100, "192.0.2.2");
    let summary = sync_with(&f, "gateway", &lines, options()).await.unwrap();
    assert_eq!((summary.created, summary.revoked), (MANY as u64 / 2 + 100, 100));
    assert_eq!(f.kernel.owners().len(), MANY / 2 + 100);
    let before = all(&f).await;
    let f = f.restart().await;
    assert_eq!(all(&f).await, before);
    f.put("key-99999", &body("192.0.2.9", 60)).await.unwrap();
    assert!(crate::bindings::audit::verify(&f.audit_path(), None).is_ok());
}

#[tokio::test]
async fn policy_that_changes_in_the_midst_of_a_large_sync_holds_for_all_of_it() {
    let f = start();
    f.kernel.let_through(2);
    let sync = begin(&f, lines(0..MANY, "192.0.2.1"));
    timeout(PATIENCE, f.kernel.has_come(3)).await.unwrap();
    let narrower = POLICY.replacen(
        "services = [\"payments\", \"ledger\"]",
        "services = [\"ledger\"]",
        1,
    );
    f.apply(&narrower);
    f.kernel.let_through(1_000);
    let summary = timeout(PATIENCE, sync).await.unwrap().unwrap().unwrap();
    assert_eq!(summary.created, MANY as u64);
    // Kept, and in force for no packet.
    assert!(f.kernel.owners().is_empty() && to_be(&f).is_empty());
    f.settle().await;
    assert_eq!(f.state("gateway", "key-00007"), State::Suspended);
    f.apply(POLICY);
    f.settle().await;
    assert_eq!(
        (f.kernel.owners().len(), f.state("gateway", "key-00007")),
        (MANY, State::Active)
    );
}

#[tokio::test]
async fn syncs_of_two_publishers_are_made_one_after_the_other() {
    let f = start();
    f.kernel.let_through(1);
    let sync = begin(&f, lines(0..MANY, "192.0.2.1"));
    timeout(PATIENCE, f.kernel.has_come(2)).await.unwrap();
    let (bindings, kernel) = (f.bindings.clone(), Arc::clone(&f.kernel));
    let held = tokio::spawn(async move {
        let options = SyncOptions {
            publisher: "endless".to_owned(),
            ..options()
        };
        let mut input = bindings.sync(&actor("endless"), options)?;
        input
            .push(format!("{}\n{}", put_line("key-1", "192.0.2.1"), end(1)).as_bytes())
            .await?;
        input.finish().await
    });
    f.settle().await;
    assert!(!held.is_finished());
    kernel.let_through(1_000);
    let first = timeout(PATIENCE, sync).await.unwrap().unwrap().unwrap();
    let second = timeout(PATIENCE, held).await.unwrap().unwrap().unwrap();
    assert_eq!((second.created, second.revision), (1, first.revision + 1));
}
