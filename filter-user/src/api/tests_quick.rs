//! Authorize over connections that stay: the quick answers are hyper's, and what is asked beside is answered as well.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Bounds;
use super::fixture::{ALL, Running, policy_with, publisher};
use super::tests::{Answer, PATIENCE, listener};
use super::tests_bindings::binding;
use super::tests_gateways::{CLIENTS, FROM, KEY, PAYMENTS, authorizing};
use crate::policy::model::ListenerAddress;

/// A gateway's connection.
struct Kept(UnixStream);

impl Kept {
    async fn open(running: &Running) -> Kept {
        Kept(UnixStream::connect(running.socket("api.sock")).await.unwrap())
    }

    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    async fn ask(&mut self, line: &str, headers: &str) -> Answer {
        self.send(&request(line, headers)).await;
        self.hear().await
    }

    /// The next answer, and no byte behind it.
    async fn hear(&mut self) -> Answer {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            let byte = timeout(PATIENCE, self.0.read_u8())
                .await
                .expect("an answer in time");
            text.push(byte.expect("an answer"));
        }
        let head = String::from_utf8(text).unwrap().trim_end().to_owned();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        timeout(PATIENCE, self.0.read_exact(&mut body))
            .await
            .expect("a body in time")
            .unwrap();
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            body: String::from_utf8(body).unwrap(),
        }
    }

    async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.is_ok() && rest.is_empty()
    }
}

fn request(line: &str, headers: &str) -> String {
    format!("{line} HTTP/1.1\r\nhost: keyfence\r\n{headers}\r\n")
}

/// What does not depend on the moment or on the connection's end.
fn fields(answer: &Answer) -> Vec<String> {
    let passing = |line: &&str| !line.starts_with("date: ") && !line.starts_with("connection: ");
    let mut fields: Vec<String> = answer
        .head
        .lines()
        .filter(passing)
        .map(str::to_lowercase)
        .collect();
    fields[1..].sort();
    fields
}

#[tokio::test]
async fn quick_answer_is_the_one_that_hyper_gives() {
    let running = authorizing("[authorize]\nreason-header = true\n").await;
    let mut kept = Kept::open(&running).await;
    let other = format!("{FROM}x-api-key: other\r\n");
    for (line, headers) in [
        (PAYMENTS, format!("{FROM}{KEY}")),
        ("HEAD /v1/authorize/payments/a/b?c=d", format!("{FROM}{KEY}")),
        ("DELETE /v1/authorize/%70ayments/", format!("{FROM}{KEY}")),
        (
            "POST /v1/authorize/payments?x=/y",
            format!("{FROM}{KEY}content-length: 0\r\n"),
        ),
        (PAYMENTS, other.clone()),
        (PAYMENTS, FROM.to_owned()),
        (PAYMENTS, format!("keyfence-client-address: 203.0.113.1\r\n{KEY}")),
        (
            PAYMENTS,
            format!("keyfence-client-address: 198.51.100.66\r\nConnection: Keep-Alive\r\n{KEY}"),
        ),
        ("GET /v1/authorize/beta", other),
    ] {
        let hyper = running
            .ask(line, &headers.replace("Connection: Keep-Alive\r\n", ""))
            .await;
        assert!(hyper.head.contains("connection: close"), "{}", hyper.head);
        let quick = kept.ask(line, &headers).await;
        assert_eq!(fields(&quick), fields(&hyper), "{line} {headers}");
        let date = quick
            .head
            .lines()
            .find(|line| line.starts_with("date: "))
            .expect("a date");
        assert!(
            date.ends_with(" GMT") && date.len() == "date: Sun, 06 Nov 1994 08:49:37 GMT".len(),
            "{date}"
        );
    }
    let page = running.ask("GET /metrics", "").await.body;
    for line in [
        "keyfence_authorize_total{result=\"allowed\",service=\"payments\"} 8",
        "keyfence_authorize_total{result=\"address\",service=\"payments\"} 2",
        "keyfence_http_requests_total{code=\"200\",route=\"/v1/authorize/{service}/{*rest}\"} 4",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
}

#[tokio::test]
async fn requests_that_come_together_are_answered_in_order_also_where_the_last_is_something_else() {
    let running = authorizing("").await;
    let mut kept = Kept::open(&running).await;
    let good = request(PAYMENTS, &format!("{FROM}{KEY}"));
    let bad = request(PAYMENTS, FROM);
    kept.send(&format!("{good}{bad}{good}{}{bad}", request("GET /livez", "")))
        .await;
    for status in [200, 401, 200, 200, 401] {
        assert_eq!(kept.hear().await.status, status);
    }
    // In pieces, of which the first is no head.
    let mut kept = Kept::open(&running).await;
    let (first, rest) = good.split_at(30);
    kept.send(first).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    kept.send(rest).await;
    assert_eq!(kept.hear().await.status, 200);
    assert_eq!(kept.ask(PAYMENTS, FROM).await.status, 401);
}

#[tokio::test]
async fn connection_serves_everything_whatever_came_first() {
    let text = format!("{CLIENTS}{}", publisher("gateway", ""));
    let running = Running::on(policy_with(&text), &[], Bounds::default(), |folder| {
        vec![listener(ListenerAddress::Unix(folder.join("api.sock")), &ALL)]
    })
    .await;
    let mut kept = Kept::open(&running).await;
    let asked = "keyfence-client-address: 198.51.100.9\r\nx-api-key: abc\r\n";
    assert_eq!(kept.ask(PAYMENTS, asked).await.status, 401);
    let fingerprint = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let body = binding("198.51.100.9").to_string();
    let length = format!(
        "content-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    kept.send(&format!(
        "{}{body}",
        request(&format!("PUT /v1/bindings/{fingerprint}"), &length)
    ))
    .await;
    assert_eq!(kept.hear().await.status, 201);
    assert_eq!(kept.ask(PAYMENTS, asked).await.status, 200);
    // What the gateway does not mean to be read is not taken for a request.
    let mut kept = Kept::open(&running).await;
    assert_eq!(kept.ask(PAYMENTS, asked).await.status, 200);
    let with_body = request(
        "POST /v1/authorize/payments",
        &format!("{asked}content-length: 9\r\n"),
    );
    kept.send(&format!("{with_body}GET / HTT{}", request(PAYMENTS, asked)))
        .await;
    for _ in 0..2 {
        assert_eq!(kept.hear().await.status, 200);
    }
    let bad = kept.ask("GET /v1/authorize/nothing", asked).await;
    bad.is_problem(400, "gateway-misconfigured");
    let mut kept = Kept::open(&running).await;
    assert_eq!(kept.ask(PAYMENTS, asked).await.status, 200);
    kept.send("GET /v1/authorize/payments HTTP/1.1\r\nno host: x\r\n\r\n")
        .await;
    assert_eq!(kept.hear().await.status, 400);
}

#[tokio::test]
async fn idle_gateway_is_let_go_at_its_time_and_a_busy_one_stays() {
    let bounds = Bounds {
        header_timeout: Duration::from_millis(300),
        ..Bounds::default()
    };
    let running = Running::on(policy_with(CLIENTS), &[], bounds, |folder| {
        vec![listener(ListenerAddress::Unix(folder.join("api.sock")), &ALL)]
    })
    .await;
    let mut busy = Kept::open(&running).await;
    let mut idle = Kept::open(&running).await;
    assert_eq!(idle.ask(PAYMENTS, &format!("{FROM}{KEY}")).await.status, 200);
    let since = tokio::time::Instant::now();
    while since.elapsed() < Duration::from_millis(1_000) {
        assert_eq!(busy.ask(PAYMENTS, &format!("{FROM}{KEY}")).await.status, 200);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(idle.is_closed().await && busy.is_closed().await);
}

#[tokio::test]
async fn gateway_that_waits_is_let_go_when_the_daemon_stops_and_who_ends_its_side_hears_its_answer() {
    let running = authorizing("").await;
    let mut half = Kept::open(&running).await;
    half.send(&request(PAYMENTS, &format!("{FROM}{KEY}"))).await;
    half.0.shutdown().await.unwrap();
    assert_eq!(half.hear().await.status, 200);
    assert!(half.is_closed().await);
    let mut kept = Kept::open(&running).await;
    assert_eq!(kept.ask(PAYMENTS, FROM).await.status, 401);
    running.stop.send(true).unwrap();
    assert!(kept.is_closed().await);
}

#[tokio::test]
async fn who_has_connected_before_the_daemon_stops_is_answered_once_still() {
    let running = authorizing("").await;
    let mut new = Kept::open(&running).await;
    // Accepted later, so that one is accepted by now.
    let mut kept = Kept::open(&running).await;
    assert_eq!(kept.ask(PAYMENTS, FROM).await.status, 401);
    running.stop.send(true).unwrap();
    assert!(kept.is_closed().await);
    assert_eq!(new.ask(PAYMENTS, &format!("{FROM}{KEY}")).await.status, 200);
    assert!(new.is_closed().await);
}
