//! Policies that wait to be confirmed, and what a rollback is meant for once one has gone.

use serde_json::json;

use super::fixture::policy_text;
use super::tests_policy::{CLIENT, body, operated};

#[tokio::test]
async fn time_to_confirm_is_kept_to_the_millisecond() {
    let running = operated().await;
    let sent = body(&policy_text(CLIENT), &json!({ "confirm_seconds": 1.5 }));
    let before = jiff::Timestamp::now();
    let applied = running.post("apply", &sent).await;
    assert_eq!(applied.status, 200, "{}", applied.body);
    let after = jiff::Timestamp::now();
    let deadline = applied.json()["pending"]["deadline"].as_str().unwrap().to_owned();
    let deadline: jiff::Timestamp = deadline.parse().unwrap();
    let asked = jiff::SignedDuration::from_millis(1500);
    assert!((before + asked..=after + asked).contains(&deadline), "{deadline}");
}

#[tokio::test]
async fn confirmation_of_another_policy_than_the_one_that_waits_is_refused() {
    let running = operated().await;
    let first = running.in_force();
    let sent = body(&policy_text(CLIENT), &json!({ "confirm_seconds": 600 }));
    running.post("apply", &sent).await;
    let waiting = running.in_force();
    let confirm = |hash: &str| format!("POST /v1/policy/confirm?hash={hash}");
    let of_another = running.ask(&confirm(&first), "").await;
    assert_eq!(
        of_another.json()["waiting"],
        waiting.as_str(),
        "{}",
        of_another.body
    );
    of_another.is_problem(409, "policy-changed");
    let with_body = running.post("confirm", &json!({ "hash": waiting })).await;
    with_body.is_problem(422, "invalid");
    assert_eq!(running.history().await[0].2, "pending");
    let confirmed = running.ask(&confirm(&waiting), "").await;
    assert_eq!(confirmed.json()["hash"], waiting.as_str(), "{}", confirmed.body);
    assert_eq!(running.history().await[0].2, "confirmed");
}

#[tokio::test]
async fn rollback_just_after_a_trial_ended_by_itself_goes_no_further_back_unless_it_means_to() {
    let running = operated().await;
    let first = running.in_force();
    running
        .post("apply", &body(&policy_text(CLIENT), &json!({})))
        .await;
    let second = running.in_force();
    let deny = "[[deny]]\nname = \"abuse\"\nsources = [\"198.51.100.9\"]\n";
    let sent = body(&policy_text(deny), &json!({ "confirm_seconds": 600 }));
    running.post("apply", &sent).await;
    let trial = running.in_force();
    running
        .view
        .change(|snapshot| snapshot.policy.hash.clone_from(&second));
    running.view.pending.send_replace(None);
    // Before its end is written down, and after.
    for _ in 0..2 {
        let refused = running.ask("POST /v1/policy/rollback", "").await;
        refused.is_problem(409, "nothing-pending");
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        for part in [&trial, &second, &first, &"rollback --force".to_owned()] {
            assert!(detail.contains(part.as_str()), "{detail}");
        }
        assert_eq!(running.in_force(), second);
        let reverted = async {
            while running.history().await[0].2 != "reverted" {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(super::tests::PATIENCE, reverted)
            .await
            .unwrap();
    }
    let meant = format!("POST /v1/policy/rollback?base={second}");
    let back = running.ask(&meant, "").await;
    assert_eq!(back.json()["hash"], first.as_str(), "{}", back.body);
    // Whatever was put in force since is what a rollback is meant for.
    let back = running.ask("POST /v1/policy/rollback", "").await;
    assert_eq!(back.json()["hash"], second.as_str(), "{}", back.body);
}
