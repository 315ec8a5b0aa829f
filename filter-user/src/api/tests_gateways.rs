//! What gateways ask and hear: the answers of authorize over a socket.

use super::fixture::{Running, policy_with};
use super::tests::listener;
use super::*;
use crate::policy::model::{ListenerAddress, Role};

/// `secret-1`, listed for payments from 198.51.100.0/24.
const CLIENTS: &str = "[[client]]\nname = \"acme\"\nsources = [\"198.51.100.0/24\"]\nservices = [\"payments\"]\n\
    credentials = [\"sha256:f7e7c36e458e80e6b6a2c67d0a9ec09bd718dadd7bfa8d6bf6e7ad526e46c2f7\", \"key-1\"]\n\
    [[deny]]\nname = \"abuse\"\nsources = [\"198.51.100.66\"]\n";

async fn gateways(more: &str) -> Running {
    let policy = policy_with(&format!("{CLIENTS}{more}"));
    Running::on(policy, &[], Bounds::default(), |folder| {
        let at = |name: &str| {
            listener(
                ListenerAddress::Unix(folder.join(name)),
                &[Role::Authorize, Role::Metrics],
            )
        };
        let asserting = crate::policy::model::Listener {
            assert: true,
            ..at("assert.sock")
        };
        vec![at("api.sock"), asserting]
    })
    .await
}

const FROM: &str = "keyfence-client-address: 198.51.100.7\r\n";

#[tokio::test]
async fn gateway_that_is_set_up_wrongly_is_told_so() {
    let running = gateways("").await;
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
            !answer.body.contains("secret-1") && answer.head.contains("keyfence-verdict: \r\n"),
            "{}",
            answer.head
        );
        assert!(answer.head.contains("cache-control: no-store"), "{}", answer.head);
    }
    let page = running.ask("GET /metrics", "").await.body;
    let line = "keyfence_authorize_total{result=\"misconfigured\",service=\"\"} 6";
    assert!(page.contains(line), "{page}");
}
