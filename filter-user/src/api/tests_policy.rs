//! Policies over HTTP: planned, applied, refused, confirmed, rolled back; what each call answers to whom.

use filter_common::bounds::OWNERS_PER_SOURCE_MAX;
use serde_json::{Value, json};

use super::fixture::{Running, me, policy_text, policy_with, publisher};
use super::tests::{Answer, ask_tcp, default_daemon};
use super::tests_bindings::binding;
use crate::engine::snapshot::{Applied, ReloadError};

pub(super) const CLIENT: &str =
    "[[client]]\nname = \"acme\"\nsources = [\"198.51.100.7\"]\nservices = [\"payments\"]\n";

pub(super) async fn operated() -> Running {
    Running::with(policy_with(&publisher("gateway", "")), &[&me()]).await
}

pub(super) fn body(text: &str, more: &Value) -> Value {
    let mut body = json!({ "root": "keyfence.toml", "files": { "keyfence.toml": text } });
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    body
}

impl Running {
    pub(super) async fn post(&self, what: &str, body: &Value) -> Answer {
        let rest = format!("content-type: application/json\r\n\r\n{body}");
        self.ask(&format!("POST /v1/policy/{what}"), &rest).await
    }

    pub(super) async fn history(&self) -> Vec<(String, String, String)> {
        let history = self.ask("GET /v1/policy/history", "").await;
        assert_eq!(history.status, 200, "{}", history.body);
        let items = history.json()["items"].as_array().unwrap().clone();
        let text = |item: &Value, name: &str| item[name].as_str().unwrap().to_owned();
        let items = items.iter();
        items
            .map(|item| (text(item, "hash"), text(item, "via"), text(item, "state")))
            .collect()
    }

    pub(super) fn in_force(&self) -> String {
        use crate::engine::snapshot::View as _;
        self.view.snapshot().policy.hash.clone()
    }
}

#[tokio::test]
async fn plan_tells_what_would_change_and_changes_nothing() {
    let running = operated().await;
    let base = running.in_force();
    let same = running
        .post("plan", &body(&policy_text(""), &json!({ "base": base })))
        .await;
    assert_eq!(same.status, 200, "{}", same.body);
    assert_eq!(
        (&same.json()["hash"], &same.json()["base"]),
        (&base.clone().into(), &base.clone().into())
    );
    let plan = running
        .post("plan", &body(&policy_text(CLIENT), &json!({})))
        .await
        .json();
    assert_eq!(plan["schema"], 1);
    assert_ne!(plan["hash"], base);
    let told = plan["changes"].as_array().unwrap();
    let has = |kind: &str, change: &str, name: &str| {
        told.iter()
            .any(|one| one["kind"] == kind && one["change"] == change && one["name"] == name)
    };
    assert!(has("client", "added", "acme"), "{plan}");
    assert!(has("source", "gained", "198.51.100.7/32"), "{plan}");
    assert_eq!(plan["differs"], true);
    assert_eq!(running.in_force(), base);
    assert_eq!(running.history().await.len(), 1);
}

#[tokio::test]
async fn binding_that_a_policy_does_not_allow_is_told_before_it_is_suspended() {
    let running = operated().await;
    assert_eq!(running.put("key-1", &binding("198.51.100.7")).await.status, 201);
    // No publisher any more.
    let plan = running
        .post("plan", &body(&policy_text(""), &json!({})))
        .await
        .json();
    let suspended = &plan["suspended"];
    assert_eq!(plan["counts"]["suspended"], 1, "{plan}");
    assert_eq!(
        (&suspended[0]["publisher"], &suspended[0]["credential"]),
        (&"gateway".into(), &"key-1".into())
    );
    assert!(suspended[0]["because"].as_str().unwrap().len() > 5, "{plan}");
    let kept = policy_text(&publisher("gateway", ""));
    let plan = running.post("plan", &body(&kept, &json!({}))).await.json();
    assert_eq!(plan["counts"]["suspended"], 0, "{plan}");
}

#[tokio::test]
async fn binding_that_would_find_no_room_beside_a_policy_is_told_before_it_gives_way() {
    use std::fmt::Write as _;

    let running = operated().await;
    let mut lines = String::new();
    for at in 0..OWNERS_PER_SOURCE_MAX {
        let line = json!({"op": "put", "credential": format!("key-{at}"), "sources": ["198.51.100.7"],
            "services": ["payments"], "lease_seconds": 3600});
        let _ = writeln!(lines, "{line}");
    }
    let batch = format!("content-type: application/x-ndjson\r\n\r\n{lines}");
    let answer = running.ask("POST /v1/bindings/batch", &batch).await;
    assert!(answer.body.contains("\"failed\":0"), "{}", answer.body);
    let plan = async |client: &str| {
        let text = policy_text(&format!("{}{client}", publisher("gateway", "")));
        running.post("plan", &body(&text, &json!({}))).await.json()
    };
    let fits = plan("").await;
    assert_eq!(fits["counts"]["suspended"], 0, "{fits}");
    let crowded = plan(CLIENT).await;
    assert_eq!(crowded["counts"]["suspended"], 1, "{crowded}");
    let last = format!("key-{}", OWNERS_PER_SOURCE_MAX - 1);
    let suspended = &crowded["suspended"][0];
    assert_eq!(suspended["credential"], last.as_str());
    let because = suspended["because"].as_str().unwrap();
    assert!(
        because.contains("no room") && because.contains("198.51.100.7/32"),
        "{because}"
    );
}

#[tokio::test]
async fn applied_policy_is_kept_and_audited_and_rollback_goes_back_and_forth() {
    let running = operated().await;
    let first = running.in_force();
    running
        .ask("POST /v1/policy/rollback", "")
        .await
        .is_problem(409, "no-earlier-policy");
    let sent = body(&policy_text(CLIENT), &json!({ "base": first }));
    let applied = running.post("apply", &sent).await;
    assert_eq!(applied.status, 200, "{}", applied.body);
    let second = running.in_force();
    assert_eq!(applied.json()["hash"], second.as_str());
    assert_eq!(applied.json()["pending"], Value::Null);
    running
        .post("apply", &sent)
        .await
        .is_problem(409, "policy-changed");
    for expected in [&first, &second] {
        let back = running.ask("POST /v1/policy/rollback", "").await;
        assert_eq!(back.json()["hash"], expected.as_str(), "{}", back.body);
        assert_eq!(&running.in_force(), expected);
    }
    for (what, wrong) in [
        ("policy/rollback", json!({ "confirm_seconds": 0 })),
        (
            "policy/rollback",
            json!({ "connections": [{ "from": "10.0.0.1:1", "to": "[::1]:2" }] }),
        ),
        ("policy/rollback", json!({ "base": second })),
        ("reload", json!({ "force": true })),
        (
            "reload",
            json!({ "connections": [{ "from": "10.0.0.1:1", "to": "[::1]:2" }] }),
        ),
    ] {
        let rest = format!("content-type: application/json\r\n\r\n{wrong}");
        let refused = running.ask(&format!("POST /v1/{what}"), &rest).await;
        refused.is_problem(422, "invalid");
    }
    assert_eq!(running.in_force(), second);
    let stale = format!("POST /v1/policy/rollback?base={first}");
    running.ask(&stale, "").await.is_problem(409, "policy-changed");
    let history = running.history().await;
    let told: Vec<(&str, &str)> = history
        .iter()
        .map(|(hash, via, _)| (hash.as_str(), via.as_str()))
        .collect();
    let expected = [
        (&second, "rollback"),
        (&first, "rollback"),
        (&second, "apply"),
        (&first, "start"),
    ];
    assert_eq!(told, expected.map(|(hash, via)| (hash.as_str(), via)));
    assert!(
        history.iter().all(|(.., state)| state == "confirmed"),
        "{history:?}"
    );
    let audit = running.ask("GET /v1/audit", "").await.body;
    assert!(
        audit.contains("\"apply\"") && audit.contains("\"rollback\""),
        "{audit}"
    );
}

#[tokio::test]
async fn pending_policy_is_confirmed_or_rolled_back_and_others_wait_for_that() {
    let running = operated().await;
    let first = running.in_force();
    running
        .ask("POST /v1/policy/confirm", "")
        .await
        .is_problem(409, "nothing-pending");
    let sent = body(&policy_text(CLIENT), &json!({ "confirm_seconds": 600 }));
    let applied = running.post("apply", &sent).await;
    assert_eq!(applied.status, 200, "{}", applied.body);
    let pending = &applied.json()["pending"];
    assert_eq!(pending["base"], first.as_str(), "{}", applied.body);
    assert!(pending["deadline"].is_string());
    running
        .post("apply", &body(&policy_text(""), &json!({})))
        .await
        .is_problem(409, "policy-pending");
    assert_eq!(running.history().await[0].2, "pending");
    let back = running.ask("POST /v1/policy/rollback", "").await;
    assert_eq!(back.json()["hash"], first.as_str(), "{}", back.body);
    assert_eq!(running.history().await[0].2, "reverted");
    running.post("apply", &sent).await;
    let confirmed = running.ask("POST /v1/policy/confirm", "").await;
    assert_eq!(
        confirmed.json()["hash"],
        running.in_force().as_str(),
        "{}",
        confirmed.body
    );
    assert_eq!(running.history().await[0].2, "confirmed");
    let audit = running.ask("GET /v1/audit", "").await.body;
    assert!(audit.contains("\"confirm\""), "{audit}");
}

#[tokio::test]
async fn policy_that_nobody_confirms_in_time_is_told_as_reverted() {
    let running = operated().await;
    let first = running.in_force();
    let sent = body(&policy_text(CLIENT), &json!({ "confirm_seconds": 600 }));
    running.post("apply", &sent).await;
    // As the kernel and the engine do at the deadline.
    running
        .view
        .change(|snapshot| snapshot.policy.hash.clone_from(&first));
    running.view.pending.send_replace(None);
    let reverted = async {
        loop {
            let history = running.history().await;
            if history[0].2 == "reverted" {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::tests::PATIENCE, reverted)
        .await
        .unwrap();
    let audited = async {
        while !running.ask("GET /v1/audit", "").await.body.contains("\"revert\"") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::tests::PATIENCE, audited)
        .await
        .unwrap();
}

#[tokio::test]
async fn policy_that_cuts_the_callers_connection_is_refused_by_name_unless_it_is_forced() {
    let running = operated().await;
    let base = running.in_force();
    let deny = "[[deny]]\nname = \"abuse\"\nsources = [\"198.51.100.9\"]\n";
    let connection =
        json!({ "from": "198.51.100.9:50000", "to": "203.0.113.1:2222", "held_by": "sshd (812)" });
    let more = json!({ "connections": [connection] });
    let answer = running.post("apply", &body(&policy_text(deny), &more)).await;
    answer.is_problem(409, "policy-refused");
    let told = answer.json();
    assert_eq!(told["connections"][0]["held_by"], "sshd (812)");
    assert_eq!(told["connections"][0]["reason"], "denied");
    let detail = told["detail"].as_str().unwrap();
    for part in [
        "198.51.100.9:50000 to 203.0.113.1:2222/tcp",
        "sshd (812)",
        "3.5 deny",
        "--force",
    ] {
        assert!(detail.contains(part), "{detail}");
    }
    assert_eq!(running.in_force(), base);
    let passing = json!({ "connections": [{ "from": "198.51.100.8:50000", "to": "203.0.113.1:2222" }] });
    let answer = running.post("apply", &body(&policy_text(deny), &passing)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let more_denied = deny.replace("\"198.51.100.9\"", "\"198.51.100.9\", \"198.51.100.10\"");
    let mut forced = body(&policy_text(&more_denied), &more);
    forced["force"] = true.into();
    assert_eq!(running.post("apply", &forced).await.status, 200);
}

#[tokio::test]
async fn what_is_sent_is_read_strictly_and_faults_of_the_policy_are_told_with_their_places() {
    let running = operated().await;
    let invalid = running
        .post("plan", &body("version = 1\nnonsense = 2\n", &json!({})))
        .await;
    invalid.is_problem(422, "policy-invalid");
    assert!(
        invalid.json()["detail"]
            .as_str()
            .unwrap()
            .contains("keyfence.toml:2"),
        "{}",
        invalid.body
    );
    let expect = "[[expect]]\nfrom = \"198.51.100.7:1\"\nto = \"203.0.113.10:443/tcp\"\nverdict = \"pass\"\n";
    running
        .post("plan", &body(&policy_text(expect), &json!({})))
        .await
        .is_problem(422, "policy-invalid");
    for wrong in [
        json!({ "root": "a.toml" }),
        json!({ "files": { "keyfence.toml": "", "../x": "" } }),
        json!({ "confirm_seconds": 0 }),
        json!({ "confirm_seconds": 0.0005 }),
        json!({ "confirm_seconds": 86401 }),
        json!({ "more": 1 }),
        json!({ "base": "a".repeat(65) }),
        json!({ "connections": [{ "from": "198.51.100.9:1", "to": "[2001:db8::1]:22" }] }),
        json!({ "connections": [{ "from": "nobody", "to": "203.0.113.1:22" }] }),
    ] {
        let answer = running.post("apply", &body(&policy_text(""), &wrong)).await;
        answer.is_problem(422, "invalid");
    }
    let twice = "{\"root\": \"a\", \"files\": {\"a\": \"\", \"a\": \"\"}}";
    let rest = format!("content-type: application/json\r\n\r\n{twice}");
    running
        .ask("POST /v1/policy/plan", &rest)
        .await
        .is_problem(422, "invalid");
    let rest = "content-type: application/json\r\n\r\n{";
    running
        .ask("POST /v1/policy/plan", rest)
        .await
        .is_problem(400, "malformed");
}

#[tokio::test]
async fn policies_are_for_operators_alone() {
    let running = Running::with(policy_with(""), &["no-such-user"]).await;
    for what in ["plan", "apply", "confirm", "rollback"] {
        running
            .post(what, &body(&policy_text(""), &json!({})))
            .await
            .is_problem(403, "not-an-operator");
    }
    running
        .ask("POST /v1/reload", "")
        .await
        .is_problem(403, "not-an-operator");
}

#[tokio::test]
async fn reload_applies_the_file_and_tells_what_became_of_it() {
    let running = operated().await;
    let answer = running.ask("POST /v1/reload", "").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let told = answer.json();
    assert_eq!(told["detail"], "generation 8 is in force");
    assert_eq!(
        (&told["mode"], &told["mode_was"]),
        (&"enforce".into(), &Value::Null)
    );
    let file = running.folder.path().join(super::fixture::POLICY_FILE);
    std::fs::write(&file, policy_text(CLIENT)).unwrap();
    let status = running.ask("GET /v1/status", "").await.json();
    assert_eq!(status["policy"]["file_differs"], true, "seen without a reload");
    assert_eq!(running.ask("GET /readyz", "").await.status, 200);
    assert_eq!(running.ask("POST /v1/reload", "").await.status, 200);
    let status = running.ask("GET /v1/status", "").await.json();
    assert_eq!(status["policy"]["file_differs"], false);
    std::fs::write(&file, "version = 1\nnonsense = 2\n").unwrap();
    running
        .ask("POST /v1/reload", "")
        .await
        .is_problem(422, "policy-invalid");
    let ready = running.ask("GET /readyz", "").await;
    assert!(
        ready.status == 503 && ready.body.contains("the last reload failed"),
        "{}",
        ready.body
    );
    std::fs::write(&file, policy_text("")).unwrap();
    *running.view.applied.lock().unwrap() = Err(ReloadError::Failed("the table is full".to_owned()));
    running
        .ask("POST /v1/reload", "")
        .await
        .is_problem(500, "reload-failed");
    *running.view.applied.lock().unwrap() = Ok(Applied {
        detail: "again".to_owned(),
        clients: 0,
        warnings: Vec::new(),
    });
    assert_eq!(running.ask("POST /v1/reload", "").await.status, 200);
    assert_eq!(running.ask("GET /readyz", "").await.status, 200);
}

#[tokio::test]
async fn listener_without_the_role_names_the_signal() {
    let daemon = default_daemon().await;
    let lacking = ask_tcp(daemon.tcp, "POST /v1/reload").await;
    lacking.is_problem(404, "not-found");
    assert!(
        lacking
            .body
            .contains(r#"add \"operate\" to the listener's roles, or send SIGHUP"#),
        "{}",
        lacking.body
    );
}
