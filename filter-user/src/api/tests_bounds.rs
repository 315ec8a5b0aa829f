//! What the slow and the many cannot do to the listeners, and how they end.

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

use super::Bounds;
use super::tests::{PATIENCE, ask_tcp, ask_unix, default_daemon, start};

#[tokio::test]
async fn thousand_idle_connections_do_not_stop_another_listener_and_the_surplus_is_counted() {
    // Both ends of all connections are in this process.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(4096).min(hard), hard).unwrap();
    let bounds = Bounds {
        connections_max: 512,
        ..Bounds::default()
    };
    let daemon = start(bounds, &["root"]).await;
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(UnixStream::connect(&daemon.socket).await.unwrap());
    }
    let answer = ask_tcp(daemon.tcp, "GET /livez").await;
    assert_eq!(answer.status, 200);
    // The share of one user, and that of one operator in what is kept for these.
    let mine = match nix::unistd::getuid().is_root() {
        true => 299 + 43,
        false => 299,
    };
    let surplus = 1000 - mine;
    let line = format!("keyfence_http_connections_refused_total {surplus}");
    let deadline = Instant::now() + PATIENCE;
    while !ask_tcp(daemon.tcp, "GET /metrics").await.body.contains(&line) {
        assert!(Instant::now() < deadline, "{surplus} were never refused");
        tokio::task::yield_now().await;
    }
    // The last was one too many, and was told so.
    let mut last = idle.pop().unwrap();
    let mut text = String::new();
    timeout(PATIENCE, last.read_to_string(&mut text))
        .await
        .unwrap()
        .unwrap();
    assert!(
        text.starts_with("HTTP/1.1 503 ") && text.contains("urn:keyfence:problem:busy"),
        "{text}"
    );
    // Those that leave make room again.
    drop(idle);
    let deadline = Instant::now() + PATIENCE;
    while ask_unix(&daemon.socket, "GET /livez").await.status != 200 {
        assert!(Instant::now() < deadline, "there never was room again");
    }
}

#[tokio::test]
async fn thousand_idle_connections_of_one_user_leave_room_for_itself() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(4096).min(hard), hard).unwrap();
    let daemon = default_daemon().await;
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(UnixStream::connect(&daemon.socket).await.unwrap());
    }
    assert_eq!(ask_unix(&daemon.socket, "GET /livez").await.status, 200);
    drop(idle);
}

#[tokio::test]
async fn idle_connections_of_one_address_leave_room_for_others() {
    let bounds = Bounds {
        connections_max: 16,
        ..Bounds::default()
    };
    let daemon = start(bounds, &["root"]).await;
    let from = |address: &'static str| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(address.parse().unwrap()).unwrap();
        socket.connect(daemon.tcp)
    };
    let mut idle = Vec::new();
    for _ in 0..11 {
        idle.push(from("127.0.0.2:0").await.unwrap());
    }
    let ask_from = async |address| super::tests::ask(from(address).await.unwrap(), "GET /livez", "").await;
    // Read without a word: bytes that nobody reads would take the answer away.
    let mut told = String::new();
    let mut surplus = from("127.0.0.2:0").await.unwrap();
    timeout(PATIENCE, surplus.read_to_string(&mut told))
        .await
        .unwrap()
        .unwrap();
    assert!(
        told.starts_with("HTTP/1.1 503 ") && told.contains("problem:busy"),
        "{told}"
    );
    assert_eq!(ask_from("127.0.0.3:0").await.status, 200);
    drop(idle);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut stream = from("127.0.0.2:0").await.unwrap();
        let request = b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let mut told = Vec::new();
        // A refused one may end with a reset.
        let _ = stream.write_all(request).await;
        let _ = timeout(PATIENCE, stream.read_to_end(&mut told)).await.unwrap();
        if told.starts_with(b"HTTP/1.1 200") {
            break;
        }
        assert!(Instant::now() < deadline, "there never was room again");
    }
}

#[tokio::test]
async fn slow_header_is_cut_at_the_deadline_and_a_quick_one_is_answered() {
    let bounds = Bounds {
        header_timeout: Duration::from_millis(300),
        ..Bounds::default()
    };
    let daemon = start(bounds, &["root"]).await;
    let began = Instant::now();
    let mut slow = UnixStream::connect(&daemon.socket).await.unwrap();
    slow.write_all(b"GET /livez HTTP/1.1\r\nhost: key").await.unwrap();
    let mut silent = UnixStream::connect(&daemon.socket).await.unwrap();
    // One that is kept alive, and asks nothing more.
    let mut kept = UnixStream::connect(&daemon.socket).await.unwrap();
    let request = b"GET /livez HTTP/1.1\r\nhost: keyfence\r\n\r\n";
    kept.write_all(request).await.unwrap();
    for (stream, answers) in [(&mut slow, 0), (&mut silent, 0), (&mut kept, 1)] {
        let mut bytes = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut bytes))
            .await
            .expect("it is cut")
            .unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.matches("HTTP/1.1 200").count(), answers, "{text}");
    }
    assert!(began.elapsed() >= bounds.header_timeout);
    assert_eq!(ask_unix(&daemon.socket, "GET /livez").await.status, 200);
}

#[tokio::test]
async fn stop_removes_the_socket_and_ends_idle_connections_within_the_drain() {
    let bounds = Bounds {
        drain_timeout: Duration::from_millis(500),
        ..Bounds::default()
    };
    let daemon = start(bounds, &["root"]).await;
    let mut kept = UnixStream::connect(&daemon.socket).await.unwrap();
    kept.write_all(b"GET /livez HTTP/1.1\r\nhost: keyfence\r\n\r\n")
        .await
        .unwrap();
    let mut start = [0; 12];
    kept.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    let mut half = UnixStream::connect(&daemon.socket).await.unwrap();
    half.write_all(b"GET /li").await.unwrap();
    daemon.stop.send(true).unwrap();
    timeout(PATIENCE, daemon.serving)
        .await
        .expect("serve returns")
        .unwrap();
    assert!(!daemon.socket.exists());
    for stream in [&mut kept, &mut half] {
        let mut rest = Vec::new();
        // Closed with bytes unread is a reset on some sockets: ended is what counts.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .expect("the connection ends");
    }
    assert!(TcpStream::connect(daemon.tcp).await.is_err());
}

/// All that is answered to these bytes, until the connection ends.
async fn raw(daemon: &super::tests::Daemon, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(&daemon.socket).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answers = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut answers)).await;
    // Closed with bytes unread is a reset on some sockets: what was answered is there.
    let _ = ended.expect("the connection ends");
    String::from_utf8(answers).unwrap()
}

fn parse(answer: &str) -> (u16, String) {
    assert!(
        answer.contains("\r\ncontent-type: application/problem+json\r\n"),
        "{answer}"
    );
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let document: serde_json::Value = serde_json::from_str(body).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(document["status"], status);
    (status, document["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn what_hyper_would_refuse_or_guess_at_is_a_problem_document_and_ends_the_connection() {
    let daemon = default_daemon().await;
    let long = "a".repeat(70 << 10);
    for (head, status, code) in [
        ("GET /livez HTTP/1.1\r\n\r\n".to_owned(), 400, "malformed"),
        (
            "GET /livez HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_owned(),
            400,
            "malformed",
        ),
        (
            "POST /v1/reload HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n"
                .to_owned(),
            400,
            "malformed",
        ),
        ("G(T / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 400, "malformed"),
        (format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n"), 414, "target-too-long"),
        (
            format!("GET / HTTP/1.1\r\nhost: a\r\na: {long}\r\n\r\n"),
            431,
            "head-too-large",
        ),
    ] {
        let answer = raw(&daemon, head.as_bytes()).await;
        assert_eq!(parse(&answer), (status, code.to_owned()));
    }
    let metrics = ask_tcp(daemon.tcp, "GET /metrics").await.body;
    let counted = r#"keyfence_http_requests_total{code="400",route="other"} 4"#;
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn refused_head_is_answered_behind_those_before_it_and_nothing_behind_it_is() {
    let daemon = default_daemon().await;
    let good = "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";
    // A body that reads like a request is none.
    let body = format!(
        "POST /livez HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{good}",
        good.len()
    );
    let bad = "GET /livez HTTP/1.1\r\n\r\n";
    let answers = raw(&daemon, format!("{good}\r\n{body}{good}{bad}{good}").as_bytes()).await;
    let statuses: Vec<u16> = answers
        .split("HTTP/1.1 ")
        .filter_map(|answer| answer.get(..3)?.parse().ok())
        .collect();
    assert_eq!(statuses, [200, 405, 200, 400], "{answers}");
}

#[tokio::test]
async fn body_in_chunks_is_the_last_of_its_connection() {
    let daemon = default_daemon().await;
    let chunked = "GET /livez HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    let answers = raw(
        &daemon,
        format!("{chunked}GET /livez HTTP/1.1\r\n\r\n").as_bytes(),
    )
    .await;
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 1, "{answers}");
    assert_eq!(answers.matches("HTTP/1.1").count(), 1, "{answers}");
}

#[tokio::test]
async fn head_that_comes_byte_by_byte_is_answered() {
    let daemon = default_daemon().await;
    let mut stream = UnixStream::connect(&daemon.socket).await.unwrap();
    for byte in b"\r\nGET /livez HTTP/1.1\r\nhost: a\r\n\r\n" {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut start = [0; 12];
    timeout(PATIENCE, stream.read_exact(&mut start))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
}
