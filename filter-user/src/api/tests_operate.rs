//! Observing for a while and detaching, over HTTP.

use serde_json::{Value, json};

use super::fixture::{Running, me, policy_with};
use super::tests::Answer;

async fn post(running: &Running, path: &str, body: &str) -> Answer {
    let rest = format!("content-type: application/json\r\n\r\n{body}");
    running.ask(&format!("POST {path}"), &rest).await
}

async fn last_line(running: &Running) -> serde_json::Value {
    let log = running.ask("GET /v1/audit", "").await;
    serde_json::from_str(log.body.lines().last().unwrap()).unwrap()
}

#[tokio::test]
async fn operator_observes_for_a_while_and_the_audit_log_tells_it() {
    let running = Running::with(policy_with(""), &[&me()]).await;
    let body = r#"{"seconds": 900, "service": "payments", "reason": "OPS-12"}"#;
    let answer = post(&running, "/v1/observe", body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.json()["observing"].is_array(), "{}", answer.body);
    let all = post(&running, "/v1/observe", r#"{"seconds": 0, "reason": "over"}"#).await;
    assert_eq!(all.status, 200, "{}", all.body);
    let asked = running.view.observed.lock().unwrap().clone();
    assert_eq!(asked, [(Some("payments".to_owned()), 900), (None, 0)]);
    let line = last_line(&running).await;
    assert_eq!(
        (&line["what"], &line["seconds"], &line["reason"]),
        (&json!("observe"), &json!(0), &json!("over")),
        "{line}"
    );
}

#[tokio::test]
async fn observing_what_cannot_be_is_refused() {
    let running = Running::with(policy_with(""), &[&me()]).await;
    for body in [
        "{}",
        "no json",
        r#"{"seconds": 5, "reason": "a", "more": 1}"#,
        r#"{"seconds": -5, "reason": "a"}"#,
        r#"{"seconds": 86401, "reason": "a"}"#,
        r#"{"seconds": 5, "reason": " "}"#,
        r#"{"seconds": 5, "service": "none", "reason": "a"}"#,
    ] {
        let answer = post(&running, "/v1/observe", body).await;
        answer.is_problem(422, "invalid");
    }
    let told = post(
        &running,
        "/v1/observe",
        r#"{"seconds": 5, "service": "none", "reason": "a"}"#,
    )
    .await;
    assert_eq!(told.json()["errors"][0]["pointer"], "/service");
    let stranger = Running::with(policy_with(""), &["no-such-user"]).await;
    let body = r#"{"seconds": 5, "reason": "a"}"#;
    post(&stranger, "/v1/observe", body)
        .await
        .is_problem(403, "not-an-operator");
    stranger
        .ask("POST /v1/detach", "")
        .await
        .is_problem(403, "not-an-operator");
}

#[tokio::test]
async fn operator_takes_the_filter_off_or_hears_why_not() {
    let running = Running::with(policy_with(""), &[&me()]).await;
    let deny = "content-type: application/json\r\n\r\n{\"sources\": [\"198.51.100.7\"]}";
    let denied = running.ask("PUT /v1/denies/a", deny).await;
    assert_eq!(denied.json()["warning"], Value::Null, "{}", denied.body);
    let answer = running.ask("POST /v1/detach", "").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["interfaces"], json!(["eth0"]));
    let line = last_line(&running).await;
    assert_eq!(
        (&line["what"], &line["interfaces"]),
        (&json!("detach"), &json!(["eth0"]))
    );
    for answer in [
        running.ask("PUT /v1/denies/b", deny).await,
        running.ask("DELETE /v1/denies/a", "").await,
    ] {
        let told = answer.json()["warning"].as_str().unwrap_or_default().to_owned();
        assert!(told.contains("every packet passes"), "{}", answer.body);
    }
    *running.view.detach.lock().unwrap() = Err("the pin cannot be removed".to_owned());
    let answer = running.ask("POST /v1/detach", "").await;
    answer.is_problem(500, "operation-failed");
}

#[tokio::test]
async fn gateways_are_answered_200_while_a_service_is_observed() {
    let running = Running::with(policy_with(""), &[&me()]).await;
    let line = "GET /v1/authorize/payments";
    let rest = "keyfence-client-address: 192.0.2.1\r\nx-api-key: none";
    let verdict = async || {
        let answer = running.ask(line, rest).await;
        let head = answer.head.clone();
        (answer.status, head.contains("keyfence-verdict: observe"))
    };
    assert_eq!(verdict().await, (401, false));
    post(
        &running,
        "/v1/observe",
        r#"{"seconds": 9, "service": "payments", "reason": "a"}"#,
    )
    .await;
    assert_eq!(verdict().await, (200, true));
}
