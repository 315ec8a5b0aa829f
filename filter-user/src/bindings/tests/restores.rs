//! What a restore must not bring back: content that its publisher has not written again, and whom somebody has kept out.

use axum::body::Bytes;

use super::fixture::*;
use super::streams::batch;
use crate::bindings::refusal::Code;
use crate::bindings::requests::*;
use crate::bindings::store::path_in;

async fn backup(f: &Fixture) -> std::path::PathBuf {
    let path = f.folder.path().join("backup");
    f.bindings.backup(&operator(), path.clone()).await.unwrap();
    path
}

async fn restore(f: &Fixture, from: &std::path::Path, trust: bool) -> Kept {
    let restored = f.bindings.restore(&operator(), from.to_owned(), trust).await;
    restored.unwrap().kept
}

async fn deny(f: &Fixture, name: &str, source: &str, seconds: u64) {
    let body = format!(r#"{{"sources": ["{source}"], "seconds": {seconds}}}"#);
    let deny = PutDeny {
        name: name.to_owned(),
        body: Bytes::from(body),
    };
    f.bindings.put_deny(&operator(), deny).await.unwrap();
}

fn versioned(source: &str, version: u64) -> String {
    body(source, 600).replacen('{', &format!("{{\"row_version\": {version}, "), 1)
}

#[tokio::test]
async fn renewal_extends_what_is_restored_and_leaves_it_suspended() {
    let f = start();
    f.put("plain", &body("192.0.2.1", 600)).await.unwrap();
    f.put("versioned", &versioned("192.0.2.1", 5)).await.unwrap();
    let copy = backup(&f).await;
    f.put("plain", &body("192.0.2.2", 600)).await.unwrap();
    f.put("versioned", &versioned("192.0.2.2", 6)).await.unwrap();
    restore(&f, &copy, false).await;
    let renew = |credential: &str, version: &str| {
        format!(r#"{{"op": "renew", "credential": "{credential}", {version}"lease_seconds": 3600}}"#)
    };
    let lines = [
        renew("plain", ""),
        renew("versioned", "\"row_version\": 6, "),
        renew("versioned", "\"row_version\": 6, "),
    ];
    let (failures, summary) = batch(&f, &lines).await;
    assert!(failures.is_empty(), "{failures:?}");
    assert_eq!((summary.renewed, summary.changed), (3, 0));
    let end = f.bindings.get("gateway", "plain").unwrap().ends_at.unwrap();
    assert_eq!(end.as_millisecond(), START.wall_ms + 3_600_000);
    let f = f.restart().await;
    for credential in ["plain", "versioned"] {
        assert_eq!(f.state("gateway", credential), State::Suspended, "{credential}");
    }
    assert!(f.kernel.owners().is_empty());
    // Content lifts it: of the renewed version as well, and of the same content too; what is older does not.
    assert_eq!(
        code(f.put("versioned", &versioned("192.0.2.1", 5)).await),
        Code::StaleRowVersion
    );
    f.put("versioned", &versioned("192.0.2.2", 6)).await.unwrap();
    f.put("plain", &body("192.0.2.1", 600)).await.unwrap();
    let owner = f.kernel.owner("binding/gateway/versioned").unwrap();
    assert_eq!(owner.sources[0].to_string(), "192.0.2.2/32");
    assert_eq!(f.kernel.owners().len(), 2);
}

#[tokio::test]
async fn equal_content_without_an_end_lifts_it_too() {
    let f = start();
    let endless = body("192.0.2.1", 60).replace("60}", "null}");
    let put = || f.put_as("endless", "key-1", &endless, Conditions::default());
    put().await.unwrap();
    let copy = backup(&f).await;
    restore(&f, &copy, false).await;
    assert_eq!(f.state("endless", "key-1"), State::Suspended);
    put().await.unwrap();
    assert_eq!(f.kernel.owners(), ["binding/endless/key-1"]);
}

#[tokio::test]
async fn denies_made_since_the_backup_stay_in_force() {
    let f = start();
    deny(&f, "both", "192.0.2.1", 60).await;
    deny(&f, "early", "192.0.2.2", 600).await;
    let copy = backup(&f).await;
    deny(&f, "both", "192.0.2.9", 600).await;
    deny(&f, "late", "192.0.2.3", 600).await;
    for trust in [true, false] {
        let kept = restore(&f, &copy, trust).await;
        assert_eq!(kept.denies, 2, "{kept:?}");
        let line = f.audit_lines().pop().unwrap();
        assert_eq!(
            (&line["what"], &line["kept_denies"]),
            (&"restore".into(), &2.into())
        );
    }
    let f = f.restart().await;
    let denies = f.bindings.denies();
    let told: Vec<_> = denies
        .iter()
        .map(|deny| (deny.name.as_str(), deny.sources.len()))
        .collect();
    assert_eq!(told, [("both", 2), ("early", 1), ("late", 1)]);
    let end = START.monotonic_ns + 600_000_000_000;
    let ends: Vec<u64> = f.kernel.held.lock().unwrap().denies.values().copied().collect();
    assert_eq!(ends, [end, end, end]);
    // A restore of what is there has nothing to keep.
    let copy = f.folder.path().join("again");
    f.bindings.backup(&operator(), copy.clone()).await.unwrap();
    assert_eq!(restore(&f, &copy, false).await, Kept::default());
}

#[tokio::test]
async fn deletions_with_a_row_version_stand_against_the_backup_unless_it_is_trusted() {
    let f = start();
    f.put("revoked", &versioned("192.0.2.1", 5)).await.unwrap();
    let copy = backup(&f).await;
    f.delete("revoked", Some(5)).await.unwrap();
    f.delete("absent", Some(3)).await.unwrap();
    let kept = restore(&f, &copy, false).await;
    assert_eq!(kept.deletions, 2);
    assert!(f.bindings.get("gateway", "revoked").is_err());
    let f = f.restart().await;
    for (credential, version) in [("revoked", 5), ("absent", 3)] {
        let late = f.put(credential, &versioned("192.0.2.1", version)).await;
        assert_eq!(code(late), Code::StaleRowVersion, "{credential}");
    }
    assert_eq!(restore(&f, &copy, true).await.deletions, 1);
    assert_eq!(f.state("gateway", "revoked"), State::Active);
    let late = f.put("absent", &versioned("192.0.2.1", 3)).await;
    assert_eq!(code(late), Code::StaleRowVersion);
}

#[tokio::test]
async fn store_that_was_in_use_is_restored_whole() {
    let f = start();
    f.put("key-1", &body("192.0.2.1", 600)).await.unwrap();
    f.put("key-2", &body("192.0.2.2", 600)).await.unwrap();
    // As a crash would leave it: the last changes are not in the table of bindings yet.
    let copy = f.folder.path().join("copy");
    std::fs::copy(path_in(f.folder.path()), &copy).unwrap();
    f.delete("key-1", None).await.unwrap();
    f.delete("key-2", None).await.unwrap();
    restore(&f, &copy, true).await;
    let f = f.restart().await;
    assert_eq!(
        f.kernel.owners(),
        ["binding/gateway/key-1", "binding/gateway/key-2"]
    );
}

#[tokio::test]
async fn pipe_that_nobody_writes_to_is_no_backup_and_holds_up_nobody() {
    let f = start();
    let pipe = f.folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let refused = f.bindings.restore(&operator(), pipe, false).await.unwrap_err();
    assert!(refused.detail.contains("not a regular file"), "{refused:?}");
    f.put("key-1", &body("192.0.2.1", 60)).await.unwrap();
}
