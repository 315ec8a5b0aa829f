//! Who may do what: roles of listeners, publishers by peer, operators, and everyone else.

use super::fixture::{Running, me, policy_with, publisher};
use super::tests::listener;
use super::*;
use crate::policy::model::{ListenerAddress, Role};

const JSON: &str = "content-type: application/json\r\n\r\n{}";

#[tokio::test]
async fn peer_that_is_no_publisher_is_told_so() {
    let none = Running::with(policy_with(""), &[]).await;
    let answer = none.ask("PUT /v1/bindings/key-1", JSON).await;
    answer.is_problem(403, "not-a-publisher");
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("not by its user, not by its groups"), "{detail}");
}

#[tokio::test]
async fn without_a_publisher_lists_and_watches_are_refused_and_status_is_not() {
    let running = Running::with(policy_with(""), &[]).await;
    for line in ["GET /v1/bindings", "GET /v1/watch", "GET /v1/bindings/key-1"] {
        running.ask(line, "").await.is_problem(403, "not-a-publisher");
    }
    assert_eq!(running.ask("GET /v1/status", "").await.status, 200);
    running
        .ask("GET /v1/audit", "")
        .await
        .is_problem(403, "not-an-operator");
    for line in ["POST /v1/backup", "POST /v1/restore"] {
        running.ask(line, JSON).await.is_problem(403, "not-an-operator");
    }
}

#[tokio::test]
async fn operator_names_a_publisher_and_others_may_not() {
    let entries = publisher("gateway", "");
    let mine = Running::with(policy_with(&entries), &[]).await;
    let answer = mine.ask("GET /v1/bindings?publisher=other", "").await;
    answer.is_problem(403, "not-an-operator");
    // Its own name is no other's.
    let answer = mine.ask("GET /v1/bindings?publisher=gateway", "").await;
    assert_ne!(answer.status, 403, "{}", answer.body);

    let elsewhere = entries.replace(&format!("user = \"{}\"", me()), "group = \"no-such-group\"");
    let operator = Running::with(policy_with(&elsewhere), &[&me()]).await;
    let answer = operator.ask("GET /v1/bindings?publisher=nobody", "").await;
    answer.is_problem(400, "bad-query");
    let answer = operator.ask("PUT /v1/bindings/key-1", JSON).await;
    answer.is_problem(403, "not-a-publisher");
    assert!(answer.body.contains("?publisher=NAME"), "{}", answer.body);
    operator
        .ask("PUT /v1/bindings/key-1?publisher=*", JSON)
        .await
        .is_problem(400, "bad-query");
}

const ROLES: [(&str, Role); 5] = [
    ("publish", Role::Publish),
    ("authorize", Role::Authorize),
    ("read", Role::Read),
    ("operate", Role::Operate),
    ("deny", Role::Deny),
];

/// A listener for each role, of its name.
async fn with_each_role() -> Running {
    Running::on(
        policy_with(&publisher("gateway", "")),
        &[&me()],
        Bounds::default(),
        |folder| {
            let all = ROLES.iter();
            all.map(|(name, role)| listener(ListenerAddress::Unix(folder.join(name)), &[*role]))
                .collect()
        },
    )
    .await
}

#[tokio::test]
async fn role_of_the_listener_bounds_what_can_be_asked_there() {
    let running = with_each_role().await;
    for (line, admitted) in [
        ("PUT /v1/bindings/key-1", &["publish", "operate"][..]),
        ("GET /v1/bindings", &["publish", "read", "operate"]),
        ("POST /v1/bindings/batch", &["publish", "operate"]),
        ("GET /v1/watch?limit=1", &["publish", "read", "operate"]),
        ("GET /v1/authorize/payments", &["authorize"]),
        ("GET /v1/denies", &["deny"]),
        ("GET /v1/status", &["read"]),
        ("GET /v1/audit", &["operate"]),
        (
            "GET /openapi.json",
            &["publish", "authorize", "read", "operate", "deny"],
        ),
    ] {
        for (name, _) in ROLES {
            let answer = running.ask_at(name, line, "").await;
            assert_eq!(
                ![404, 405].contains(&answer.status),
                admitted.contains(&name),
                "{line} at {name}: {}",
                answer.body
            );
        }
    }
    // A reader is no publisher there, and an operator only where the listener lets it operate.
    running
        .ask_at("read", "GET /v1/bindings", "")
        .await
        .is_problem(403, "not-a-publisher");
    running
        .ask_at("read", "GET /v1/bindings?publisher=gateway", "")
        .await
        .is_problem(403, "not-an-operator");
}

#[tokio::test]
async fn role_that_is_lacking_is_named_also_where_the_path_answers_something_else() {
    let running = with_each_role().await;
    for (name, line, status, named) in [
        (
            "read",
            "PUT /v1/bindings/key-1",
            405,
            r#"\"publish\" or \"operate\""#,
        ),
        (
            "deny",
            "PUT /v1/bindings/key-1",
            404,
            r#"\"publish\" or \"operate\""#,
        ),
        (
            "deny",
            "GET /v1/bindings/key-1",
            404,
            r#"\"publish\" or \"read\" or \"operate\""#,
        ),
        (
            "read",
            "GET /v1/bindings",
            403,
            r#"add \"publish\" to its roles (roles are read at start)"#,
        ),
        (
            "operate",
            "PUT /v1/bindings/key-1",
            403,
            r#"add \"publish\" to its roles"#,
        ),
        (
            "read",
            "GET /v1/bindings?publisher=gateway",
            403,
            r#"add \"operate\" to its roles"#,
        ),
    ] {
        let answer = running.ask_at(name, line, JSON).await;
        assert_eq!(answer.status, status, "{line} at {name}: {}", answer.body);
        assert!(answer.body.contains(named), "{line} at {name}: {}", answer.body);
    }
}

#[tokio::test]
async fn own_socket_makes_anyone_its_publisher() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own.sock");
    let entry = format!(
        "[[publisher]]\nname = \"own\"\nsocket = \"unix:{0}\"\nservices = [\"payments\"]\n\
         [[listener]]\naddress = \"unix:{0}\"\nroles = [\"publish\"]\n",
        own.display()
    );
    let running = Running::on(policy_with(&entry), &[], Bounds::default(), |_| {
        vec![listener(ListenerAddress::Unix(own.clone()), &[Role::Publish])]
    })
    .await;
    let stream = tokio::net::UnixStream::connect(&own).await.unwrap();
    let answer = tests::ask(stream, "GET /v1/bindings", "").await;
    assert_ne!(answer.status, 403, "{}", answer.body);
    drop(running);
}

#[tokio::test]
async fn requests_beyond_the_rate_are_429_and_say_when_to_come_again() {
    let limited = publisher("gateway", "requests = { rate = \"2/h\", burst = 2 }");
    let running = Running::with(policy_with(&limited), &[]).await;
    for _ in 0..2 {
        assert_ne!(running.ask("GET /v1/bindings/key-1", "").await.status, 429);
    }
    let answer = running.ask("GET /v1/bindings/key-1", "").await;
    answer.is_problem(429, "rate-exceeded");
    let wait = answer.head.split("retry-after: ").nth(1).unwrap();
    let wait: u32 = wait.split("\r\n").next().unwrap().parse().unwrap();
    assert!((1700..=1800).contains(&wait), "{wait}");
}

#[tokio::test]
async fn types_lengths_and_parameters_of_requests_are_checked_before_anything_is_done() {
    let running = Running::with(policy_with(&publisher("gateway", "")), &[]).await;
    let put = "PUT /v1/bindings/key-1";
    let form = "content-type: application/x-www-form-urlencoded\r\n\r\na=b";
    running
        .ask(put, form)
        .await
        .is_problem(415, "unsupported-media-type");
    running
        .ask("POST /v1/bindings/batch", JSON)
        .await
        .is_problem(415, "unsupported-media-type");
    running
        .ask("PUT /v1/bindings", JSON)
        .await
        .is_problem(415, "unsupported-media-type");
    let long = format!(
        "content-type: application/json\r\n\r\n\"{}\"",
        "a".repeat(64 << 10)
    );
    running.ask(put, &long).await.is_problem(413, "too-large");
    for line in [
        "GET /v1/bindings?limit=0",
        "GET /v1/bindings?limit=1001",
        "GET /v1/bindings?limit=1&limit=2",
        "GET /v1/bindings?colour=red",
        "GET /v1/bindings?state=gone",
        "GET /v1/bindings?source=198.51.100.7/24",
        "GET /v1/bindings?ends_before=tomorrow",
        "GET /v1/watch?since=-1",
        "GET /v1/why?address=localhost",
        "GET /v1/denies?x=1",
        "DELETE /v1/bindings/key-1?row_version=9007199254740992",
        "PUT /v1/bindings?as_of=x",
    ] {
        running.ask(line, "").await.is_problem(400, "bad-query");
    }
    running
        .ask("PUT /v1/bindings/%ff", JSON)
        .await
        .is_problem(400, "malformed");
    let condition = "if-match: c-1\r\ncontent-type: application/json\r\n\r\n{}";
    running.ask(put, condition).await.is_problem(400, "malformed");
}

#[tokio::test]
async fn body_that_does_not_come_is_cut_at_its_time() {
    let bounds = Bounds {
        line_timeout: Duration::from_millis(200),
        ..Bounds::default()
    };
    let running = Running::on(policy_with(&publisher("gateway", "")), &[], bounds, |folder| {
        vec![listener(
            ListenerAddress::Unix(folder.join("api.sock")),
            &fixture::ALL,
        )]
    })
    .await;
    let headers = "content-type: application/json\r\ncontent-length: 100";
    running
        .ask("PUT /v1/bindings/key-1", headers)
        .await
        .is_problem(408, "slow-body");
}
