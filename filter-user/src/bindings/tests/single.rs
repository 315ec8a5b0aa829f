//! Single bindings: PUT, GET, DELETE, conditions, row versions, what is refused, what is in force.

use super::fixture::*;
use crate::bindings::refusal::Code;
use crate::bindings::requests::*;
use crate::bindings::seam::GrantError;

fn versioned(source: &str, version: u64) -> String {
    body(source, 60).replace('}', &format!(", \"row_version\": {version}}}"))
}

#[tokio::test]
async fn binding_is_shown_as_it_was_put_and_in_force_when_the_answer_comes() {
    let f = start();
    let text = r#"{"sources": ["198.51.100.7", "::ffff:192.0.2.1"], "services": ["payments", "ledger"],
        "source_ports": ["1024-65535", 80], "limit": {"packets": {"rate": 100, "burst": 200}},
        "lease_seconds": 3600, "row_version": 7, "labels": {"ticket": "OPS-1"}}"#;
    let answer = f.put("key-1", text).await.unwrap();
    assert_eq!((answer.outcome, answer.changed), (Outcome::Created, true));
    let shown = serde_json::to_value(&answer).unwrap();
    assert_eq!(
        shown["sources"],
        serde_json::json!(["192.0.2.1/32", "198.51.100.7/32"])
    );
    assert_eq!(shown["services"], serde_json::json!(["ledger", "payments"]));
    assert_eq!(shown["source_ports"], serde_json::json!(["80", "1024-65535"]));
    assert_eq!(shown["ends_at"], "2026-11-22T13:00:00Z");
    assert_eq!(
        (&shown["state"], &shown["changed"]),
        (&"active".into(), &true.into())
    );
    assert_eq!(shown["labels"]["ticket"], "OPS-1");
    assert_eq!(f.bindings.get("gateway", "key-1").unwrap(), answer.binding);
    let granted = f.kernel.owner("binding/gateway/key-1").unwrap();
    assert_eq!(*granted.services, ["ledger", "payments"].map(Box::from));
    assert_eq!(granted.end, START.monotonic_ns + 3_600_000_000_000);
    assert_eq!(granted.limit.packets.unwrap().rate, 100);
    // Nobody else's.
    assert_eq!(code(f.bindings.get("endless", "key-1")), Code::UnknownCredential);
}

#[tokio::test]
async fn all_faults_of_a_body_come_at_once_with_their_places() {
    let f = start();
    let text = r#"{"sources": ["198.51.100.7/24", "10.0.0.0/8", "sk_live_0123456789abcdef"],
        "services": ["payments", "nope"], "source_ports": ["9-1"], "lease_seconds": 999999999, "row_version": -1,
        "labels": {"a": 1}, "extra": 1, "limit": {"packets": {"rate": "5k", "burst": 1}}, "limit": {}}"#;
    let refusal = f.put("key-1", text).await.unwrap_err();
    assert_eq!(refusal.code, Code::Invalid);
    let told: Vec<_> = refusal
        .errors
        .iter()
        .map(|f| (f.code, f.pointer.as_str()))
        .collect();
    for expected in [
        ("host-bits", "/sources/0"),
        ("prefix-too-wide", "/sources/1"),
        ("bad-prefix", "/sources/2"),
        ("unknown-service", "/services/1"),
        ("bad-port", "/source_ports/0"),
        ("lease-too-long", "/lease_seconds"),
        ("bad-row-version", "/row_version"),
        ("wrong-type", "/labels"),
        ("unknown-member", ""),
        ("limit-too-high", "/limit/packets"),
        ("repeated-member", "/limit"),
    ] {
        assert!(told.contains(&expected), "{expected:?} in {told:?}");
    }
    assert_eq!(told.len(), 11, "{told:?}");
    assert!(
        !format!("{refusal:?}").contains("sk_live"),
        "keys are never quoted"
    );
    assert!(f.kernel.owners().is_empty() && f.audit_lines().is_empty());
}

#[tokio::test]
async fn what_the_publisher_may_not_open_is_forbidden_and_a_key_is_no_credential() {
    let f = start();
    let sandbox = body("192.0.2.1", 60).replace("payments", "sandbox");
    assert_eq!(code(f.put("key-1", &sandbox).await), Code::ServiceNotAllowed);
    let wide = body("192.0.0.0/16", 60);
    assert_eq!(code(f.put("key-1", &wide).await), Code::PrefixTooWide);
    let endless = body("192.0.2.1", 60).replace("60", "null");
    assert_eq!(
        faults(f.put("key-1", &endless).await),
        [("lease-required", "/lease_seconds".to_owned())]
    );
    let none = r#"{"sources": ["192.0.2.1"], "services": ["payments"]}"#;
    assert_eq!(
        faults(f.put("key-1", none).await),
        [("missing-member", String::new())]
    );
    let key = f.put("ghp_0123456789abcdef0123", &body("192.0.2.1", 60)).await;
    assert_eq!(faults(key), [("looks-like-a-key", "/credential".to_owned())]);
    // Two environments at once, by name and by star.
    for services in [r#"["payments", "sandbox"]"#, r#"["*"]"#] {
        let text = format!(r#"{{"sources": ["192.0.2.1"], "services": {services}}}"#);
        let answer = f.put_as("endless", "key-1", &text, Conditions::default()).await;
        assert!(
            [Code::Invalid, Code::ServiceNotAllowed].contains(&code(answer)),
            "{services}"
        );
    }
    let stranger = f
        .put_as("stranger", "key-1", &body("192.0.2.1", 60), Conditions::default())
        .await;
    assert_eq!(code(stranger), Code::NotAPublisher);
}

#[tokio::test]
async fn equal_content_is_a_renewal_and_without_leases_nothing_at_all() {
    let f = start();
    let first = f.put("key-1", &body("192.0.2.1", 60)).await.unwrap().binding;
    f.clock.pass(30);
    let again = f.put("key-1", &body("192.0.2.1/32", 60)).await.unwrap();
    assert_eq!(again.outcome, Outcome::Renewed);
    assert_eq!(again.binding.etag, first.etag);
    assert!(again.binding.revision > first.revision);
    assert_eq!(
        f.kernel.owner("binding/gateway/key-1").unwrap().end,
        START.monotonic_ns + 90_000_000_000
    );
    let text = r#"{"sources": ["192.0.2.1"], "services": ["payments"]}"#;
    let put = || f.put_as("endless", "key-1", text, Conditions::default());
    let first = put().await.unwrap();
    let (lines, calls) = (f.audit_lines().len(), f.kernel.calls());
    let again = put().await.unwrap();
    assert_eq!((again.outcome, again.changed), (Outcome::Unchanged, false));
    assert_eq!(again.binding.revision, first.binding.revision);
    assert_eq!((f.audit_lines().len(), f.kernel.calls()), (lines, calls));
}

#[tokio::test]
async fn older_row_versions_and_none_are_refused_and_tombstones_keep_revoked_keys_out() {
    let f = start();
    f.put("key-1", &versioned("192.0.2.1", 7)).await.unwrap();
    assert_eq!(
        code(f.put("key-1", &versioned("192.0.2.2", 6)).await),
        Code::StaleRowVersion
    );
    assert_eq!(
        code(f.put("key-1", &versioned("192.0.2.2", 7)).await),
        Code::StaleRowVersion
    );
    assert_eq!(
        code(f.put("key-1", &body("192.0.2.2", 60)).await),
        Code::RowVersionRequired
    );
    assert_eq!(
        f.put("key-1", &versioned("192.0.2.1", 7)).await.unwrap().outcome,
        Outcome::Renewed
    );
    assert_eq!(
        f.put("key-1", &versioned("192.0.2.2", 8)).await.unwrap().outcome,
        Outcome::Changed
    );
    assert_eq!(code(f.delete("key-1", None).await), Code::RowVersionRequired);
    assert_eq!(code(f.delete("key-1", Some(7)).await), Code::StaleRowVersion);
    let deleted = f.delete("key-1", Some(9)).await.unwrap();
    assert!(deleted.removed && f.kernel.owners().is_empty());
    // A late PUT of the version that was revoked, over a restart as well.
    let f = f.restart().await;
    assert_eq!(
        code(f.put("key-1", &versioned("192.0.2.1", 9)).await),
        Code::StaleRowVersion
    );
    assert_eq!(
        code(f.put("key-1", &body("192.0.2.1", 60)).await),
        Code::RowVersionRequired
    );
    assert!(!f.delete("key-1", Some(10)).await.unwrap().removed);
    assert_eq!(
        code(f.put("key-1", &versioned("192.0.2.1", 10)).await),
        Code::StaleRowVersion
    );
    f.clock.pass(24 * 3_600);
    assert_eq!(
        f.put("key-1", &versioned("192.0.2.1", 1)).await.unwrap().outcome,
        Outcome::Created
    );
}

#[tokio::test]
async fn row_versions_of_what_was_never_there_are_as_many_as_bindings_may_be_for_a_day() {
    let f = start();
    let delete = async |f: &Fixture, credential: &str, row_version| {
        let delete = Delete {
            publisher: "endless".to_owned(),
            credential: credential.to_owned(),
            row_version,
            conditions: Conditions::default(),
        };
        f.bindings.delete(&actor("endless"), delete).await
    };
    // Of its own bindings it is never refused.
    let text = r#"{"sources": ["192.0.2.1"], "services": ["payments"], "row_version": 1}"#;
    let put = f.put_as("endless", "mine", text, Conditions::default()).await;
    put.unwrap();
    for at in 0..20 {
        let answer = delete(&f, &format!("key-{at}"), Some(3)).await.unwrap();
        assert!(!answer.removed);
    }
    assert_eq!(code(delete(&f, "key-20", Some(3)).await), Code::BindingsMax);
    assert!(delete(&f, "mine", Some(1)).await.unwrap().removed);
    // Nothing is left of these: what there is of the row is newer, or nothing is said of it.
    assert!(!delete(&f, "key-1", Some(4)).await.unwrap().removed);
    assert!(!delete(&f, "key-20", None).await.unwrap().removed);
    assert!(
        !f.delete("key-20", Some(3)).await.unwrap().removed,
        "another publisher's"
    );
    let f = f.restart().await;
    assert_eq!(code(delete(&f, "key-20", Some(3)).await), Code::BindingsMax);
    assert_eq!(f.bindings.shared.store.counts().unwrap().1, 22);
    f.clock.pass(24 * 3_600);
    assert!(!delete(&f, "key-20", Some(3)).await.unwrap().removed);
    assert_eq!(f.bindings.shared.store.counts().unwrap().1, 1);
}

#[tokio::test]
async fn conditions_hold_or_nothing_is_done() {
    let f = start();
    let none_match = Conditions {
        if_none_match_any: true,
        ..Conditions::default()
    };
    let etag = |tag: &str| Conditions {
        if_match: Some(IfMatch::Tags(vec![tag.to_owned()])),
        ..Conditions::default()
    };
    let put = |conditions, source| {
        let text = body(source, 60);
        let f = &f;
        async move { f.put_as("gateway", "key-1", &text, conditions).await }
    };
    assert_eq!(code(put(etag("c-1"), "192.0.2.1").await), Code::ConditionFailed);
    let first = put(none_match.clone(), "192.0.2.1").await.unwrap();
    assert_eq!(code(put(none_match, "192.0.2.2").await), Code::ConditionFailed);
    assert_eq!(code(put(etag("c-1"), "192.0.2.2").await), Code::ConditionFailed);
    assert_eq!(
        put(etag(&first.binding.etag), "192.0.2.2").await.unwrap().outcome,
        Outcome::Changed
    );
    let delete = Delete {
        publisher: "gateway".to_owned(),
        credential: "key-1".to_owned(),
        row_version: None,
        conditions: etag(&first.binding.etag),
    };
    assert_eq!(
        code(f.bindings.delete(&actor("gateway"), delete).await),
        Code::ConditionFailed
    );
    assert!(f.delete("key-1", None).await.unwrap().removed);
    assert!(!f.delete("key-1", None).await.unwrap().removed);
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill_and_the_kernel_gets_it_back() {
    let f = start();
    for at in 0..20 {
        f.put(&format!("key-{at:02}"), &body("192.0.2.1", 600))
            .await
            .unwrap();
    }
    f.delete("key-07", None).await.unwrap();
    let before = f.list("gateway").await;
    let owners = f.kernel.owners();
    let (folder, clock) = f.kill().await;
    let f = start_in(folder, clock, POLICY);
    assert_eq!(f.list("gateway").await, before);
    assert_eq!(f.kernel.owners(), owners);
    assert_eq!(owners.len(), 19);
}

#[tokio::test]
async fn full_table_refuses_only_what_does_not_fit_and_leaves_nothing_of_it() {
    let f = start();
    f.kernel.held.lock().unwrap().owners_max = 3;
    let puts: Vec<_> = (0..8)
        .map(|at| {
            let (bindings, text) = (f.bindings.clone(), body("192.0.2.1", 60));
            let put = Put {
                publisher: "gateway".to_owned(),
                credential: format!("key-{at}"),
                body: text.into_bytes().into(),
                conditions: Conditions::default(),
            };
            tokio::spawn(async move { bindings.put(&actor("gateway"), put).await })
        })
        .collect();
    let mut good = 0;
    for put in puts {
        match put.await.unwrap() {
            Ok(_) => good += 1,
            Err(refusal) => assert_eq!(refusal.code, Code::TableFull),
        }
    }
    assert_eq!(good, 3);
    assert_eq!(f.list("gateway").await.len(), 3);
    let owners = f.kernel.owners();
    assert_eq!(owners.len(), 3);
    assert!(crate::bindings::audit::verify(&f.audit_path(), None).is_ok());
    // Nothing of the others is in the store either.
    let f = f.restart().await;
    assert_eq!(f.kernel.owners(), owners);
}

#[tokio::test]
async fn failing_kernel_is_a_503_and_the_next_request_goes_through() {
    let f = start();
    f.kernel.held.lock().unwrap().refuse = Some(GrantError::Failed("no".to_owned()));
    assert_eq!(
        code(f.put("key-1", &body("192.0.2.1", 60)).await),
        Code::Unavailable
    );
    assert_eq!(code(f.bindings.get("gateway", "key-1")), Code::UnknownCredential);
    assert_eq!(
        f.put("key-1", &body("192.0.2.1", 60)).await.unwrap().outcome,
        Outcome::Created
    );
}

#[tokio::test]
async fn number_of_bindings_is_bounded_and_ended_ones_do_not_count() {
    let f = start();
    let put = |at: u32, lease: &str| {
        let text =
            format!(r#"{{"sources": ["192.0.2.1"], "services": ["payments"], "lease_seconds": {lease}}}"#);
        let f = &f;
        async move {
            f.put_as("endless", &format!("key-{at}"), &text, Conditions::default())
                .await
        }
    };
    for at in 0..20 {
        put(at, if at == 0 { "5" } else { "null" }).await.unwrap();
    }
    assert_eq!(code(put(20, "null").await), Code::BindingsMax);
    put(1, "null").await.unwrap();
    f.clock.pass(6);
    f.settle().await;
    put(20, "null").await.unwrap();
}

#[tokio::test]
async fn lists_filter_and_page_in_order() {
    let f = start();
    for at in 0..25 {
        f.put(&format!("key-{at:02}"), &body(&format!("192.0.2.{at}"), 60 + at))
            .await
            .unwrap();
    }
    let mut list = List {
        publisher: Some("gateway".to_owned()),
        limit: Some(10),
        ..List::default()
    };
    let mut seen = Vec::new();
    loop {
        let page = f.bindings.list(list.clone()).await.unwrap();
        seen.extend(page.items.into_iter().map(|item| item.credential));
        let Some(next) = page.next else { break };
        list.after = Some(next);
    }
    let expected: Vec<String> = (0..25).map(|at| format!("key-{at:02}")).collect();
    assert_eq!(seen, expected);
    let count = |list: List| {
        let f = &f;
        async move { f.bindings.list(list).await.unwrap().items.len() }
    };
    let source = |text: &str| List {
        source: Some(text.parse().unwrap()),
        ..List::default()
    };
    assert_eq!(count(source("192.0.2.7/32")).await, 1);
    assert_eq!(count(source("192.0.2.0/28")).await, 16);
    assert_eq!(count(source("192.0.3.0/24")).await, 0);
    let by = |state, service: &str, ends_before: &str| List {
        state: Some(state),
        service: Some(service.to_owned()),
        ends_before: Some(ends_before.parse().unwrap()),
        ..List::default()
    };
    assert_eq!(
        count(by(State::Active, "payments", "2026-11-22T12:01:10Z")).await,
        10
    );
    assert_eq!(
        count(by(State::Ended, "payments", "2026-11-22T12:01:10Z")).await,
        0
    );
    assert_eq!(
        count(by(State::Active, "ledger", "2026-11-22T12:01:10Z")).await,
        0
    );
}
