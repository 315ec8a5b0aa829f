//! Bindings, denies, why and copies over a socket, with a store behind them.

use serde_json::{Value, json};

use super::fixture::{Running, policy_with, publisher};
use super::tests::Answer;

fn json_body(body: &Value) -> String {
    format!("content-type: application/json\r\n\r\n{body}")
}

pub(super) fn binding(source: &str) -> Value {
    json!({ "sources": [source], "services": ["payments"], "lease_seconds": 3600 })
}

async fn gateway() -> Running {
    Running::with(policy_with(&publisher("gateway", "")), &[]).await
}

impl Running {
    pub(super) async fn put(&self, credential: &str, body: &Value) -> Answer {
        self.ask(&format!("PUT /v1/bindings/{credential}"), &json_body(body))
            .await
    }
}

#[tokio::test]
async fn binding_is_put_shown_renewed_and_deleted() {
    let running = gateway().await;
    let mut body = binding("198.51.100.7");
    body["row_version"] = 7.into();
    let created = running.put("key-1", &body).await;
    assert_eq!(created.status, 201, "{}", created.body);
    let answer = created.json();
    assert_eq!(
        (&answer["credential"], &answer["changed"]),
        (&json!("key-1"), &json!(true))
    );
    let etag = format!("etag: \"{}\"", answer["etag"].as_str().unwrap());
    let revision = format!("keyfence-revision: {}", answer["revision"]);
    assert!(
        created.head.contains(&etag) && created.head.contains(&revision),
        "{}",
        created.head
    );
    assert_eq!(running.put("key-1", &body).await.status, 200);
    let shown = running.ask("GET /v1/bindings/key-1", "").await;
    assert_eq!(shown.json()["sources"], json!(["198.51.100.7/32"]));
    assert!(shown.head.contains(&etag), "{}", shown.head);
    body["row_version"] = 6.into();
    running
        .put("key-1", &body)
        .await
        .is_problem(409, "stale-row-version");
    running
        .put("key-1", &binding("198.51.100.7"))
        .await
        .is_problem(409, "row-version-required");
    let removed = running.ask("DELETE /v1/bindings/key-1?row_version=9", "").await;
    assert_eq!((removed.status, &removed.json()["removed"]), (200, &json!(true)));
    running
        .ask("GET /v1/bindings/key-1", "")
        .await
        .is_problem(404, "unknown-credential");
    let again = running.ask("DELETE /v1/bindings/key-1?row_version=9", "").await;
    assert_eq!((again.status, &again.json()["removed"]), (200, &json!(false)));
}

#[tokio::test]
async fn conditions_that_do_not_hold_are_412_and_those_that_do_are_taken() {
    let running = gateway().await;
    let put = "PUT /v1/bindings/key-1";
    let with = |condition: &str, source| format!("{condition}\r\n{}", json_body(&binding(source)));
    let first = running.ask(put, &with("if-none-match: *", "198.51.100.7")).await;
    assert_eq!(first.status, 201, "{}", first.body);
    running
        .ask(put, &with("if-none-match: *", "198.51.100.8"))
        .await
        .is_problem(412, "condition-failed");
    running
        .ask(put, &with("if-match: \"c-0\"", "198.51.100.8"))
        .await
        .is_problem(412, "condition-failed");
    running
        .ask("DELETE /v1/bindings/key-1", "if-match: \"c-0\"")
        .await
        .is_problem(412, "condition-failed");
    let etag = first.json()["etag"].as_str().unwrap().to_owned();
    let second = running
        .ask(put, &with(&format!("if-match: \"{etag}\""), "198.51.100.8"))
        .await;
    assert_eq!(second.status, 200, "{}", second.body);
}

#[tokio::test]
async fn faults_of_a_binding_are_told_at_once_and_a_key_is_never_quoted() {
    let running = gateway().await;
    let body = json!({ "sources": ["198.51.100.7/24"], "services": [], "lease_seconds": 0, "colour": "red" });
    let answer = running.put("key-1", &body).await;
    answer.is_problem(422, "invalid");
    let pointers: Vec<Value> = answer.json()["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["pointer"].clone())
        .collect();
    for pointer in ["/sources/0", "/services", "/lease_seconds", ""] {
        assert!(pointers.contains(&json!(pointer)), "{pointer}: {}", answer.body);
    }
    let secret = "sk_live_0123456789abcdef";
    let answer = running.put(secret, &binding("198.51.100.7")).await;
    assert!(
        (400..500).contains(&answer.status) && !answer.body.contains(secret),
        "{}",
        answer.body
    );
    running
        .ask(
            "PUT /v1/bindings/key-1",
            "content-type: application/json\r\n\r\n{",
        )
        .await
        .is_problem(400, "malformed");
    let wide = running.put("key-1", &binding("198.51.0.0/16")).await;
    wide.is_problem(403, "prefix-too-wide");
    let other = running
        .put(
            "key-1",
            &json!({ "sources": ["10.0.0.1"], "services": ["nothing"], "lease_seconds": 1 }),
        )
        .await;
    assert!([403, 422].contains(&other.status), "{}", other.body);
}

#[tokio::test]
async fn credential_named_as_a_route_and_one_with_odd_characters_are_reached() {
    let running = gateway().await;
    for credential in ["batch", "app@example.org:7", "app%40example.org%3A8"] {
        let answer = running.put(credential, &binding("198.51.100.7")).await;
        assert_eq!(answer.status, 201, "{credential}: {}", answer.body);
        assert_eq!(
            running
                .ask(&format!("GET /v1/bindings/{credential}"), "")
                .await
                .status,
            200
        );
    }
}

#[tokio::test]
async fn list_pages_through_what_its_conditions_admit() {
    let running = gateway().await;
    for number in 1..=5 {
        running
            .put(
                &format!("key-{number}"),
                &binding(&format!("198.51.100.{number}")),
            )
            .await;
    }
    let page = running.ask("GET /v1/bindings?limit=2", "").await.json();
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    let mut found = 2;
    let mut next = page["next"].as_str().map(str::to_owned);
    while let Some(after) = next {
        let page = running
            .ask(&format!("GET /v1/bindings?limit=2&after={after}"), "")
            .await
            .json();
        found += page["items"].as_array().unwrap().len();
        next = page["next"].as_str().map(str::to_owned);
    }
    assert_eq!(found, 5);
    for (query, count) in [
        ("source=198.51.100.3", 1),
        ("source=198.51.100.0/30", 3),
        ("service=beta", 0),
        ("state=active", 5),
        ("ends_before=2000-01-01T00:00:00Z", 0),
    ] {
        let page = running.ask(&format!("GET /v1/bindings?{query}"), "").await.json();
        assert_eq!(page["items"].as_array().unwrap().len(), count, "{query}: {page}");
    }
}

#[tokio::test]
async fn another_publishers_binding_is_not_there_and_an_operator_names_its_publisher() {
    let other = "[[publisher]]\nname = \"other\"\ngroup = \"no-such-group\"\nservices = [\"*\"]\nenvironments = [\"production\"]\n";
    let entries = format!("{}{other}", publisher("gateway", ""));
    let running = Running::with(policy_with(&entries), &[&super::fixture::me()]).await;
    let of_other = "PUT /v1/bindings/key-1?publisher=other";
    let put = running.ask(of_other, &json_body(&binding("198.51.100.7"))).await;
    assert_eq!(
        (put.status, &put.json()["publisher"]),
        (201, &json!("other")),
        "{}",
        put.body
    );
    running
        .ask("GET /v1/bindings/key-1", "")
        .await
        .is_problem(404, "unknown-credential");
    let own = running.ask("GET /v1/bindings", "").await.json();
    assert_eq!(own["items"], json!([]));
    let all = running.ask("GET /v1/bindings?publisher=*", "").await.json();
    assert_eq!(all["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn deny_is_put_listed_and_taken_away() {
    let running = Running::with(policy_with(""), &[]).await;
    let body = json!({ "sources": ["198.51.100.66"], "seconds": 3600, "reason": "scans" });
    let put = running.ask("PUT /v1/denies/abuse", &json_body(&body)).await;
    assert_eq!(put.status, 200, "{}", put.body);
    let list = running.ask("GET /v1/denies", "").await.json();
    assert_eq!(
        (&list["items"][0]["name"], &list["items"][0]["reason"]),
        (&json!("abuse"), &json!("scans"))
    );
    let why = running.ask("GET /v1/why?address=198.51.100.66", "").await.json();
    assert!(
        why["sentence"].as_str().unwrap().contains("denied by `abuse`"),
        "{why}"
    );
    let removed = running.ask("DELETE /v1/denies/abuse", "").await.json();
    assert_eq!(removed["removed"], true);
    let none = json!({ "sources": [], "seconds": 3600, "reason": "x" });
    running
        .ask("PUT /v1/denies/abuse", &json_body(&none))
        .await
        .is_problem(422, "invalid");
}

#[tokio::test]
async fn why_names_what_lists_an_address_and_status_tells_of_the_store() {
    let client = "[[client]]\nname = \"acme\"\nsources = [\"198.51.100.0/24\"]\nservices = [\"payments\"]\n";
    let policy = policy_with(&format!("{}{client}", publisher("gateway", "")));
    let running = Running::with(policy, &[&super::fixture::me()]).await;
    running.put("key-1", &binding("198.51.100.7")).await;
    let why = running
        .ask("GET /v1/why?address=::ffff:198.51.100.7", "")
        .await
        .json();
    let owners: Vec<&str> = why["grants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|grant| grant["owner"].as_str().unwrap())
        .collect();
    assert_eq!(owners, ["client/acme", "binding/gateway/key-1"]);
    let nowhere = running.ask("GET /v1/why?address=203.0.113.1", "").await.json();
    assert!(
        nowhere["sentence"].as_str().unwrap().contains("listed nowhere"),
        "{nowhere}"
    );
    let status = running.ask("GET /v1/status", "").await.json();
    assert_eq!(status["bindings"]["publishers"][0]["active"], 1, "{status}");
    let audit = running.ask("GET /v1/audit", "").await;
    let lines: Vec<Value> = audit
        .body
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        !lines.is_empty() && audit.head.contains("application/x-ndjson"),
        "{}",
        audit.body
    );
    assert_eq!(lines.last().unwrap()["hash"], status["bindings"]["audit"]["hash"]);
    let copy = running.socket("copy");
    let backup = running
        .ask("POST /v1/backup", &json_body(&json!({ "path": copy })))
        .await;
    assert_eq!(backup.status, 200, "{}", backup.body);
    running
        .ask("POST /v1/backup", &json_body(&json!({ "path": "copy" })))
        .await
        .is_problem(422, "invalid");
    let restored = running
        .ask("POST /v1/restore", &json_body(&json!({ "path": copy })))
        .await;
    assert_eq!(restored.json()["kept"], json!({ "denies": 0, "deletions": 0 }));
    let shown = running.ask("GET /v1/bindings/key-1", "").await.json();
    assert_eq!(shown["state"], "suspended", "{shown}");
}

#[tokio::test]
async fn path_that_is_no_backup_is_a_fault_of_who_names_it_and_changes_nothing() {
    let policy = policy_with(&publisher("gateway", ""));
    let running = Running::with(policy, &[&super::fixture::me()]).await;
    assert_eq!(running.put("key-1", &binding("198.51.100.7")).await.status, 201);
    let store = running.ask("GET /v1/status", "").await.json()["bindings"]["store"].clone();
    let empty = running.socket("empty");
    std::fs::write(&empty, "").unwrap();
    let text = running.socket("text");
    std::fs::write(&text, "no store\n".repeat(2_000)).unwrap();
    let folder = running.socket("");
    let restores = [&empty, &text, &folder, &running.socket("nothing")];
    for path in restores {
        let body = json_body(&json!({ "path": path }));
        let answer = running.ask("POST /v1/restore", &body).await;
        answer.is_problem(422, "invalid");
        let detail = answer.json()["detail"].to_string();
        assert!(detail.contains(&*path.to_string_lossy()), "{detail}");
    }
    let missing = running.socket("missing");
    let body = json_body(&json!({ "path": missing.join("copy") }));
    let answer = running.ask("POST /v1/backup", &body).await;
    answer.is_problem(422, "invalid");
    assert!(answer.body.contains("missing is not there"), "{}", answer.body);
    assert!(!missing.exists());
    // The daemon's own place for them.
    let own = running.socket("state/backups/monday");
    let body = json_body(&json!({ "path": own }));
    assert_eq!(running.ask("POST /v1/backup", &body).await.status, 200);
    for path in [&empty, &folder, &text.join("below")] {
        let body = json_body(&json!({ "path": path }));
        running
            .ask("POST /v1/backup", &body)
            .await
            .is_problem(422, "invalid");
    }
    for body in [json!([empty]), json!([empty, true])] {
        let line = json_body(&body);
        running
            .ask("POST /v1/restore", &line)
            .await
            .is_problem(422, "invalid");
    }
    let status = running.ask("GET /v1/status", "").await.json();
    assert_eq!(status["bindings"]["store"], store, "{status}");
    let shown = running.ask("GET /v1/bindings/key-1", "").await.json();
    assert_eq!(shown["state"], "active", "{shown}");
}

#[tokio::test]
async fn operator_sees_and_revokes_what_a_publisher_left_behind() {
    let running = gateway().await;
    assert_eq!(running.put("key-1", &binding("198.51.100.7")).await.status, 201);
    let me = super::fixture::me();
    let running = running.again_under(policy_with(""), &[&me]).await;
    let listed = running.ask("GET /v1/bindings?publisher=gateway", "").await.json();
    assert_eq!(listed["items"][0]["state"], "suspended", "{listed}");
    let path = "/v1/bindings/key-1?publisher=gateway";
    assert_eq!(running.ask(&format!("GET {path}"), "").await.status, 200);
    running
        .ask(&format!("PUT {path}"), &json_body(&binding("198.51.100.7")))
        .await
        .is_problem(403, "not-a-publisher");
    for removed in [true, false] {
        let answer = running.ask(&format!("DELETE {path}"), "").await.json();
        assert_eq!(answer["removed"], removed, "{answer}");
    }
    running
        .ask("GET /v1/bindings?publisher=nobody", "")
        .await
        .is_problem(400, "bad-query");
}

#[tokio::test]
async fn body_in_a_coding_is_refused() {
    let running = gateway().await;
    let body = binding("198.51.100.7").to_string();
    for (coding, status) in [("gzip", 415), ("identity", 201)] {
        let rest = format!("content-type: application/json\r\ncontent-encoding: {coding}\r\n\r\n{body}");
        let answer = running.ask("PUT /v1/bindings/key-1", &rest).await;
        assert_eq!(answer.status, status, "{}", answer.body);
    }
    running
        .ask("DELETE /v1/bindings/key-1?row_version=+7", "")
        .await
        .is_problem(400, "bad-query");
}

#[tokio::test]
async fn environments_names_and_lines_that_are_not_allowed_have_their_codes() {
    let sandbox =
        "[[service]]\nname = \"sandbox\"\nenvironment = \"sandbox\"\nprotocol = \"udp\"\nports = [443]\n";
    let running = Running::with(
        policy_with(&format!("{sandbox}{}", publisher("gateway", ""))),
        &[],
    )
    .await;
    let body = json!({ "sources": ["198.51.100.7"], "services": ["sandbox"], "lease_seconds": 60 });
    running
        .put("key-1", &body)
        .await
        .is_problem(403, "environment-not-allowed");
    let long = format!(
        "content-type: application/x-ndjson\r\n\r\n{}\n",
        "x".repeat(65 << 10)
    );
    let batch = running.ask("POST /v1/bindings/batch", &long).await;
    assert!(batch.body.contains("\"line-too-long\""), "{}", batch.body);
    running
        .ask("PUT /v1/bindings", &long)
        .await
        .is_problem(413, "line-too-long");
}
