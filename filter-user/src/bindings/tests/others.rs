//! Authorize, denies, full disks, unreadable stores, backups.

use std::net::IpAddr;

use bytes::Bytes;

use super::fixture::*;
use crate::bindings::refusal::Code;
use crate::bindings::requests::*;

fn ask(f: &Fixture, key: AskedKey<'_>, address: &str) -> Authorized {
    let address: IpAddr = address.parse().unwrap();
    f.bindings.authorize(&Ask {
        service: "payments",
        key,
        address,
        source_port: Some(40_000),
        observing: [false; 2],
    })
}

fn verdict(f: &Fixture, id: &str, address: &str) -> Verdict {
    ask(f, AskedKey::Asserted(id), address).verdict
}

async fn deny(f: &Fixture, actor: &Actor, name: &str, body: &str) -> Answer<DenyView> {
    let deny = PutDeny {
        name: name.to_owned(),
        body: Bytes::copy_from_slice(body.as_bytes()),
    };
    f.bindings.put_deny(actor, deny).await
}

#[tokio::test]
async fn key_serves_its_own_addresses_and_no_others() {
    let f = start();
    f.put("key-1", &body("192.0.2.1", 60)).await.unwrap();
    f.put("key-2", &body("2001:db8::/64", 60)).await.unwrap();
    let allowed = ask(&f, AskedKey::Asserted("key-1"), "::ffff:192.0.2.1");
    let expected = Authorized {
        verdict: Verdict::Allowed,
        observe: false,
        credential: "key-1".to_owned(),
        publisher: "gateway".to_owned(),
    };
    assert_eq!(allowed, expected);
    assert_eq!(verdict(&f, "key-2", "2001:db8::7"), Verdict::Allowed);
    // Listed, but for the other key.
    assert_eq!(verdict(&f, "key-2", "192.0.2.1"), Verdict::Address);
    assert_eq!(verdict(&f, "key-3", "192.0.2.1"), Verdict::Unknown);
    let ledger = body("192.0.2.1", 60).replace("payments", "ledger");
    f.put("key-3", &ledger).await.unwrap();
    assert_eq!(verdict(&f, "key-3", "192.0.2.1"), Verdict::Denied);
    let ports = body("192.0.2.1", 60).replace('}', r#", "source_ports": ["1-1023"]}"#);
    f.put("key-4", &ports).await.unwrap();
    assert_eq!(verdict(&f, "key-4", "192.0.2.1"), Verdict::Address);
    // A client of the policy, and what the policy denies.
    assert_eq!(verdict(&f, "acme-key", "198.51.100.66"), Verdict::Denied);
    assert_eq!(verdict(&f, "acme-key", "198.51.100.9"), Verdict::Allowed);
    assert_eq!(verdict(&f, "acme-key", "192.0.2.1"), Verdict::Address);
    f.clock.pass(60);
    assert_eq!(verdict(&f, "key-1", "192.0.2.1"), Verdict::Ended);
    let nowhere = Ask {
        service: "nope",
        key: AskedKey::Asserted("key-1"),
        address: "192.0.2.1".parse().unwrap(),
        source_port: None,
        observing: [false; 2],
    };
    assert_eq!(f.bindings.authorize(&nowhere).verdict, Verdict::NoSuchService);
}

#[tokio::test]
async fn denied_address_is_refused_for_an_observing_service_unless_the_filter_observes() {
    let payments = "name = \"payments\"\naddress";
    let text = POLICY.replace(
        payments,
        &payments.replace("\naddress", "\nmode = \"observe\"\naddress"),
    );
    let observing = text.replace("[filter]", "[filter]\nmode = \"observe\"");
    for (text, observe) in [(text, false), (observing, true)] {
        let (folder, clock) = (
            tempfile::tempdir().unwrap(),
            FakeClock(std::sync::Mutex::new(START)),
        );
        let f = start_in(folder.into(), clock.into(), &text);
        for id in ["acme-key", "nobody-knows-it"] {
            let denied = ask(&f, AskedKey::Asserted(id), "198.51.100.66");
            assert_eq!(
                (denied.verdict, denied.observe),
                (Verdict::Denied, observe),
                "{id}"
            );
        }
        let unknown = ask(&f, AskedKey::Asserted("nobody-knows-it"), "198.51.100.67");
        assert_eq!((unknown.verdict, unknown.observe), (Verdict::Unknown, true));
    }
}

#[tokio::test]
async fn key_itself_is_known_by_its_fingerprint_and_by_nothing_else() {
    let f = start();
    let fingerprint = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    f.put(fingerprint, &body("192.0.2.1", 60)).await.unwrap();
    assert_eq!(
        ask(&f, AskedKey::Secret(b"abc"), "192.0.2.1").verdict,
        Verdict::Allowed
    );
    assert_eq!(
        ask(&f, AskedKey::Secret(b"abd"), "192.0.2.1").verdict,
        Verdict::Unknown
    );
    let as_key = AskedKey::Secret(fingerprint.as_bytes());
    assert_eq!(ask(&f, as_key, "192.0.2.1").verdict, Verdict::Unknown);
}

#[tokio::test]
async fn deny_beats_a_binding_and_ends_by_itself() {
    let f = start();
    f.put("key-1", &body("192.0.2.1", 600)).await.unwrap();
    let other = Actor {
        caller: Caller::Other("siem".to_owned()),
        peer: Peer::default(),
    };
    let text = r#"{"sources": ["192.0.2.0/24"], "seconds": 60, "reason": "OPS-9"}"#;
    let view = deny(&f, &other, "abuse", text).await.unwrap();
    assert_eq!(
        (view.owner.as_str(), view.reason.as_str()),
        ("user/siem", "OPS-9")
    );
    assert_eq!(verdict(&f, "key-1", "192.0.2.1"), Verdict::Denied);
    let end = START.monotonic_ns + 60_000_000_000;
    assert_eq!(f.kernel.held.lock().unwrap().denies.get("abuse"), Some(&end));
    // Somebody else's, a restart, and an operator's word.
    assert_eq!(
        code(f.bindings.remove_deny(&actor("gateway"), "abuse").await),
        Code::NotTheOwner
    );
    assert_eq!(
        code(deny(&f, &actor("gateway"), "abuse", text).await),
        Code::NotTheOwner
    );
    let f = f.restart().await;
    assert_eq!(f.bindings.denies(), [view]);
    assert!(f.bindings.remove_deny(&operator(), "abuse").await.unwrap());
    assert!(!f.bindings.remove_deny(&operator(), "abuse").await.unwrap());
    assert_eq!(verdict(&f, "key-1", "192.0.2.1"), Verdict::Allowed);
    deny(&f, &other, "abuse", text).await.unwrap();
    f.clock.pass(60);
    f.settle().await;
    assert!(f.bindings.denies().is_empty() && f.kernel.held.lock().unwrap().denies.is_empty());
}

#[tokio::test]
async fn wide_denies_are_an_operators_and_faults_come_at_once() {
    let f = start();
    let wide = r#"{"sources": ["192.0.0.0/16"]}"#;
    assert_eq!(
        code(deny(&f, &actor("gateway"), "abuse", wide).await),
        Code::PrefixTooWide
    );
    assert!(deny(&f, &operator(), "abuse", wide).await.is_ok());
    let bad = deny(&f, &operator(), "a b", r#"{"sources": [], "seconds": 0, "x": 1}"#).await;
    let told: Vec<_> = faults(bad).into_iter().map(|(code, _)| code).collect();
    assert_eq!(told, ["bad-name", "unknown-member", "empty-list", "bad-lease"]);
    let key = "sk_live_aaaaaaaaaaaaaaaaaaaaaaaa";
    let key = deny(&f, &operator(), key, r#"{"sources": ["192.0.2.1"]}"#).await;
    assert_eq!(faults(key)[0].0, "looks-like-a-key");
}

#[tokio::test]
async fn store_that_cannot_be_read_is_set_aside_with_an_alarm() {
    let f = start();
    f.put("key-1", &body("192.0.2.1", 60)).await.unwrap();
    let revision = f.bindings.status().revision;
    let (folder, clock) = f.stop().await;
    let path = folder.path().join("bindings.redb");
    let length = std::fs::metadata(&path).unwrap().len();
    std::fs::write(&path, vec![0x5a; usize::try_from(length).unwrap()]).unwrap();
    let f = start_in(folder, clock, POLICY);
    let status = f.bindings.status();
    assert!(status.alarms[0].contains("publishers must sync"), "{status:?}");
    assert_eq!(f.bindings.not_ready(), status.alarms, "bindings are missing");
    assert!(status.revision >= revision, "revisions are never given twice");
    let aside = std::fs::read_dir(f.folder.path()).unwrap().any(|entry| {
        entry
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with("bindings.unreadable-")
    });
    assert!(aside);
    f.put("key-1", &body("192.0.2.1", 60)).await.unwrap();
}

#[tokio::test]
async fn store_of_a_newer_format_is_left_untouched() {
    let f = start();
    f.put("key-1", &body("192.0.2.1", 60)).await.unwrap();
    let (folder, clock) = f.stop().await;
    let path = folder.path().join("bindings.redb");
    {
        let db = redb::Database::open(&path).unwrap();
        let write = db.begin_write().unwrap();
        let meta = redb::TableDefinition::<&str, u64>::new("meta");
        write.open_table(meta).unwrap().insert("format", 99).unwrap();
        write.commit().unwrap();
    }
    let before = std::fs::metadata(&path).unwrap().len();
    let options = crate::bindings::Options {
        folder: folder.path().to_owned(),
        clock,
        witness: None,
    };
    let error = crate::bindings::Bindings::open(options, policy(POLICY))
        .map(drop)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("store format 99, this release reads up to 1"),
        "{error}"
    );
    assert_eq!(std::fs::metadata(&path).unwrap().len(), before);
}

#[tokio::test]
async fn restored_backup_has_a_new_id_and_waits_for_its_publishers_unless_trusted() {
    let f = start();
    f.put("key-1", &body("192.0.2.1", 600)).await.unwrap();
    let backup = f.folder.path().join("backup");
    let before = f.bindings.backup(&operator(), backup.clone()).await.unwrap();
    assert_eq!(
        code(f.bindings.backup(&operator(), backup.clone()).await),
        Code::Invalid
    );
    f.put("key-2", &body("192.0.2.2", 600)).await.unwrap();
    f.delete("key-1", None).await.unwrap();
    let after = f
        .bindings
        .restore(&operator(), backup.clone(), false)
        .await
        .unwrap()
        .status;
    assert_ne!(after.store, before.store);
    assert_eq!(f.state("gateway", "key-1"), State::Suspended);
    assert!(f.kernel.owners().is_empty());
    // Over a restart as well, until the publisher has synced.
    let f = f.restart().await;
    assert!(f.kernel.owners().is_empty());
    // What it writes since is no backup's.
    f.put("key-3", &body("192.0.2.3", 600)).await.unwrap();
    assert_eq!(f.kernel.owners(), ["binding/gateway/key-3"]);
    let f = f.restart().await;
    assert_eq!(f.kernel.owners(), ["binding/gateway/key-3"]);
    assert_eq!(f.state("gateway", "key-1"), State::Suspended);
    let options = SyncOptions {
        publisher: "gateway".to_owned(),
        ..SyncOptions::default()
    };
    let line = |key: &str| {
        format!(
            "{}\n",
            body("192.0.2.1", 600).replacen('{', &format!("{{\"credential\": \"{key}\", "), 1)
        )
    };
    let mut sync = f.bindings.sync(&actor("gateway"), options).unwrap();
    let text = [
        line("key-1"),
        line("key-3"),
        "{\"op\": \"end\", \"count\": 2}".to_owned(),
    ]
    .concat();
    sync.push(text.as_bytes()).await.unwrap();
    sync.finish().await.unwrap();
    assert_eq!(
        f.kernel.owners(),
        ["binding/gateway/key-1", "binding/gateway/key-3"]
    );
    assert_eq!(f.state("gateway", "key-1"), State::Active);
    f.bindings.restore(&operator(), backup, true).await.unwrap();
    assert_eq!(f.kernel.owners(), ["binding/gateway/key-1"]);
    let bad = f.folder.path().join("bad");
    std::fs::write(&bad, "no store").unwrap();
    assert_eq!(
        code(f.bindings.restore(&operator(), bad, true).await),
        Code::Invalid
    );
    assert_eq!(f.kernel.owners(), ["binding/gateway/key-1"]);
}

#[tokio::test]
async fn audit_log_says_who_did_what_and_its_chain_holds() {
    let f = start();
    f.put("key-1", &body("192.0.2.1", 600)).await.unwrap();
    f.put("key-1", &body("192.0.2.2", 600)).await.unwrap();
    f.delete("key-1", None).await.unwrap();
    let lines = f.audit_lines();
    assert_eq!(lines[1]["actor"]["name"], "gateway");
    assert_eq!(
        (&lines[1]["actor"]["pid"], &lines[1]["actor"]["user"]),
        (&7.into(), &"www-data".into())
    );
    assert_eq!(lines[1]["before"]["sources"], serde_json::json!(["192.0.2.1/32"]));
    assert_eq!(lines[1]["after"]["sources"], serde_json::json!(["192.0.2.2/32"]));
    assert_eq!(
        (&lines[2]["what"], &lines[2]["revision"]),
        (&"delete".into(), &3.into())
    );
    let head = f.bindings.audit_head();
    let verified = crate::bindings::audit::verify(&f.audit_path(), Some(&head.hash)).unwrap();
    assert_eq!(verified.head, head);
    assert_eq!(f.bindings.audit_lines(2, 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn change_that_a_crash_kept_from_the_audit_log_is_told_at_the_next_start() {
    let f = start();
    f.put("key-1", &body("192.0.2.1", 600)).await.unwrap();
    f.put("key-2", &body("192.0.2.1", 600)).await.unwrap();
    let path = f.audit_path();
    let (folder, clock) = f.kill().await;
    // As if the crash had come between the store and the log.
    let text = std::fs::read_to_string(&path).unwrap();
    let first = text.lines().next().unwrap();
    std::fs::write(&path, format!("{first}\n")).unwrap();
    let f = start_in(folder, clock, POLICY);
    let lines = f.audit_lines();
    assert_eq!(
        (&lines[1]["what"], &lines[1]["credential"]),
        (&"recovered".into(), &"key-2".into())
    );
    assert_eq!((lines.len(), &lines[1]["revision"]), (2, &2.into()));
    assert!(crate::bindings::audit::verify(&path, None).is_ok());
}

#[tokio::test]
async fn without_space_kept_back_deletes_and_renewals_alone_are_taken() {
    let f = start();
    f.put("key-1", &body("192.0.2.1", 60)).await.unwrap();
    f.put("key-2", &body("192.0.2.2", 60)).await.unwrap();
    let (folder, clock) = f.stop().await;
    // What stands in the way of the reserve is as good as a full disk.
    std::fs::remove_file(folder.path().join("reserve")).unwrap();
    std::fs::create_dir(folder.path().join("reserve")).unwrap();
    let f = start_in(folder, clock, POLICY);
    assert_eq!(
        code(f.put("key-3", &body("192.0.2.3", 60)).await),
        Code::StoreFull
    );
    assert_eq!(
        code(f.put("key-1", &body("192.0.2.9", 60)).await),
        Code::StoreFull
    );
    assert_eq!(
        f.put("key-1", &body("192.0.2.1", 60)).await.unwrap().outcome,
        Outcome::Renewed
    );
    assert!(f.delete("key-2", None).await.unwrap().removed);
    let all_day = r#"{"sources": ["192.0.2.66"], "seconds": 60, "reason": "flood"}"#;
    deny(&f, &operator(), "flood", all_day).await.unwrap();
    let reasons = f.bindings.not_ready();
    assert!(
        matches!(&reasons[..], [why] if why.contains("store-full")),
        "{reasons:?}"
    );
    std::fs::remove_dir(f.folder.path().join("reserve")).unwrap();
    f.settle().await;
    f.put("key-3", &body("192.0.2.3", 60)).await.unwrap();
    assert!(f.bindings.not_ready().is_empty());
}

#[test]
fn replayed_lines_grant_what_a_sync_would() {
    let policy = policy(POLICY);
    let text = r#"{"credential": "key-1", "sources": ["192.0.2.1"], "services": ["payments"], "lease_seconds": 60}
{"publisher": "endless", "op": "put", "credential": "key-2", "sources": ["192.0.2.2"], "services": ["sandbox"]}
{"credential": "key-3", "sources": ["192.0.2.1/24"], "services": ["payments"], "lease_seconds": 60}
{"op": "end", "count": 3}"#;
    let (grantees, bad) = crate::bindings::grantees_of_lines(&policy, text.as_bytes(), 1_000);
    let owners: Vec<_> = grantees.iter().map(|g| (&*g.credential, g.end)).collect();
    assert_eq!(
        owners,
        [
            ("binding/gateway/key-1", 60_000_001_000),
            ("binding/endless/key-2", u64::MAX)
        ]
    );
    assert_eq!(
        (bad.len(), bad[0].0, bad[0].1.errors[0].code),
        (1, 3, "host-bits")
    );
}
