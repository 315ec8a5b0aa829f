//! What gateways ask and hear: the answers of authorize over a socket.

use super::fixture::{Running, policy_with, publisher};
use super::tests::{Answer, listener};
use super::tests_bindings::binding;
use super::*;
use crate::policy::model::{Listener, ListenerAddress, Role};

/// `secret-1`, listed for payments from 198.51.100.0/24.
pub(super) const CLIENTS: &str = "[[client]]\nname = \"acme\"\nsources = [\"198.51.100.0/24\"]\nservices = [\"payments\"]\n\
    credentials = [\"sha256:f7e7c36e458e80e6b6a2c67d0a9ec09bd718dadd7bfa8d6bf6e7ad526e46c2f7\", \"key-1\"]\n\
    [[deny]]\nname = \"abuse\"\nsources = [\"198.51.100.66\"]\n";

pub(super) async fn authorizing(more: &str) -> Running {
    Running::on(
        policy_with(&format!("{CLIENTS}{more}")),
        &[],
        Bounds::default(),
        |folder| {
            let roles = [Role::Authorize, Role::Metrics, Role::Publish];
            let at = |name: &str| listener(ListenerAddress::Unix(folder.join(name)), &roles);
            let asserting = Listener {
                assert: true,
                ..at("assert.sock")
            };
            vec![at("api.sock"), asserting]
        },
    )
    .await
}

pub(super) const FROM: &str = "keyfence-client-address: 198.51.100.7\r\n";

/// Status, verdict, credential, publisher, reason; the body must be empty.
fn said(answer: &Answer) -> Said {
    assert_eq!(answer.body, "");
    assert!(answer.head.contains("cache-control: no-store"), "{}", answer.head);
    let header = |name: &str| {
        let line = answer
            .head
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.map(str::to_owned)
    };
    let must = |name: &str| header(name).unwrap_or_else(|| panic!("no {name}: {}", answer.head));
    (
        answer.status,
        must("keyfence-verdict"),
        must("keyfence-credential"),
        must("keyfence-publisher"),
        header("keyfence-reason"),
    )
}

pub(super) const PAYMENTS: &str = "GET /v1/authorize/payments";
pub(super) const KEY: &str = "x-api-key: secret-1\r\n";

type Said = (u16, String, String, String, Option<String>);

async fn ask(running: &Running, line: &str, headers: &str) -> Said {
    said(&running.ask(line, headers).await)
}

#[tokio::test]
async fn key_is_let_in_from_its_address_alone() {
    let running = authorizing("[authorize]\nreason-header = true\n").await;
    let at = |address: &str| format!("keyfence-client-address: {address}\r\n");
    for (headers, status, verdict, reason) in [
        (format!("{FROM}{KEY}"), 200, "pass", "allowed"),
        (format!("{}{KEY}", at("203.0.113.1")), 403, "drop", "address"),
        (format!("{}{KEY}", at("198.51.100.66")), 403, "drop", "denied"),
        (format!("{FROM}x-api-key: other\r\n"), 401, "drop", "unknown"),
        (FROM.to_owned(), 401, "drop", "unknown"),
    ] {
        let found = ask(&running, PAYMENTS, &headers).await;
        assert_eq!(
            (found.0, found.1.as_str(), found.4.as_deref()),
            (status, verdict, Some(reason)),
            "{headers}"
        );
    }
}

#[tokio::test]
async fn id_that_a_gateway_has_proved_is_taken_where_the_listener_may_assert() {
    let running = authorizing(&publisher("gateway", "")).await;
    assert_eq!(running.put("key-2", &binding("198.51.100.9")).await.status, 201);
    let prove = async |headers: &str| said(&running.ask_at("assert.sock", PAYMENTS, headers).await);
    let client = prove(&format!("{FROM}keyfence-credential: key-1\r\n")).await;
    assert_eq!(
        (client.0, client.2.as_str(), client.3.as_str()),
        (200, "key-1", "")
    );
    let bound = prove("keyfence-client-address: 198.51.100.9\r\nkeyfence-credential: key-2\r\n").await;
    assert_eq!(
        (bound.0, bound.2.as_str(), bound.3.as_str()),
        (200, "key-2", "gateway")
    );
    let not_there = ask(
        &running,
        PAYMENTS,
        &format!("{FROM}keyfence-credential: key-1\r\n"),
    )
    .await;
    assert_eq!(not_there.0, 401);
}

#[tokio::test]
async fn any_method_and_path_below_are_answered_and_each_answer_is_counted() {
    let running = authorizing("").await;
    for line in [
        "HEAD /v1/authorize/payments/a/b?c=d",
        "DELETE /v1/authorize/payments/x",
        "OPTIONS /v1/authorize/payments",
    ] {
        assert_eq!(
            ask(&running, line, &format!("{FROM}{KEY}")).await.0,
            200,
            "{line}"
        );
    }
    let other = format!("{FROM}x-api-key: other\r\n");
    let observed = ask(&running, "GET /v1/authorize/beta", &other).await;
    assert_eq!((observed.0, observed.1.as_str()), (200, "observe"));
    assert_eq!(ask(&running, PAYMENTS, &other).await.0, 401);
    let page = running.ask("GET /metrics", "").await.body;
    for line in [
        "keyfence_authorize_total{result=\"allowed\",service=\"payments\"} 3",
        "keyfence_authorize_total{result=\"unknown\",service=\"payments\"} 1",
        "keyfence_authorize_total{result=\"denied\",service=\"payments\"} 0",
        "keyfence_authorize_total{result=\"observe-unknown\",service=\"beta\"} 1",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
}

#[tokio::test]
async fn whatever_follows_the_service_is_ignored_also_where_it_is_nothing() {
    let running = authorizing("").await;
    let other = format!("{FROM}x-api-key: other\r\n");
    for rest in ["", "?a=b", "/", "/?a=b", "//", "/v2/pay", "/v2/pay/?x"] {
        let path = format!("POST /v1/authorize/payments{rest}");
        assert_eq!(running.ask(&path, &other).await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn reason_is_told_only_where_the_policy_says_so() {
    let running = authorizing("").await;
    let answer = running
        .ask(
            "GET /v1/authorize/payments",
            &format!("{FROM}x-api-key: other\r\n"),
        )
        .await;
    assert_eq!(said(&answer).4, None);
    assert!(
        answer.head.contains("www-authenticate: bearer"),
        "{}",
        answer.head
    );
}

#[tokio::test]
async fn gateway_that_is_set_up_wrongly_is_told_so() {
    let running = authorizing("").await;
    let key = "x-api-key: secret-1\r\n";
    for (path, headers) in [
        ("/v1/authorize/nothing", format!("{FROM}{key}")),
        ("/v1/authorize/payments", key.to_owned()),
        ("/v1/authorize/payments", format!("{FROM}{FROM}{key}")),
        (
            "/v1/authorize/payments",
            format!("keyfence-client-address: me\r\n{key}"),
        ),
        (
            "/v1/authorize/payments",
            format!("{FROM}{key}keyfence-client-port: http\r\n"),
        ),
        ("/v1/authorize/%ff", format!("{FROM}{key}")),
    ] {
        let answer = running.ask(&format!("GET {path}"), &headers).await;
        answer.is_problem(400, "gateway-misconfigured");
        assert!(
            !answer.body.contains("secret-1") && answer.head.contains("keyfence-verdict: "),
            "{}",
            answer.head
        );
    }
    let page = running.ask("GET /metrics", "").await.body;
    let line = "keyfence_authorize_total{result=\"misconfigured\",service=\"\"} 6";
    assert!(page.contains(line), "{page}");
}

#[tokio::test]
async fn every_answer_to_a_gateway_has_its_headers_whoever_gave_it() {
    let running = authorizing("").await;
    let cases = [
        ("GET /v1/authorize/payments/<a>", FROM, 400),
        ("GET /v1/authorize/payments?a=\"b\"", FROM, 400),
        ("GET /v1/authorize", FROM, 404),
        ("GET /v1/authorize/", FROM, 404),
        ("GET /v1/authorize/payments", "host: again\r\n", 400),
    ];
    for (line, headers, status) in cases {
        let answer = running.ask(line, &format!("{headers}\r\n")).await;
        assert!([status, 400].contains(&answer.status), "{line}: {}", answer.head);
        for name in [
            "keyfence-verdict: ",
            "keyfence-credential: ",
            "keyfence-publisher: ",
        ] {
            assert!(answer.head.contains(name), "{line}: {}", answer.head);
        }
    }
    // On a path of another kind there is nothing to say.
    let status = running.ask("GET /livez", "\r\n").await;
    assert!(!status.head.contains("keyfence-verdict"), "{}", status.head);
}
