//! The listeners over real sockets: what is answered to whom.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::engine::fixture::FakeView;
use crate::policy::model::{Listener, ListenerAddress, Role};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn listener(address: ListenerAddress, roles: &[Role]) -> Listener {
    Listener {
        address,
        mode: 0o660,
        group: "keyfence".to_owned(),
        group_written: false,
        assert: false,
        tls: None,
        roles_written: true,
        roles: roles.to_vec(),
        origin: None,
    }
}

/// A Unix listener with the roles read and operate, and a TCP listener with metrics.
pub(super) struct Daemon {
    pub(super) view: Arc<FakeView>,
    pub(super) socket: PathBuf,
    pub(super) tcp: SocketAddr,
    pub(super) stop: watch::Sender<bool>,
    pub(super) serving: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

pub(super) async fn start(bounds: Bounds, operators: &[&str]) -> Daemon {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("api.sock");
    let listeners = [
        listener(
            ListenerAddress::Unix(socket.clone()),
            &[Role::Read, Role::Operate],
        ),
        listener(
            ListenerAddress::Tcp("127.0.0.1:0".parse().unwrap()),
            &[Role::Metrics],
        ),
    ];
    let bound = bind(&listeners).await.unwrap();
    let tcp = bound[1].name().strip_prefix("tcp:").unwrap().parse().unwrap();
    let view = Arc::new(FakeView::default());
    let (stop, stopped) = watch::channel(false);
    let operators = operators.iter().map(|name| (*name).to_owned()).collect();
    let serving = tokio::spawn(serve(
        bound,
        view.clone() as Arc<dyn View>,
        None,
        Arc::new(Metrics::new()),
        operators,
        bounds,
        stopped,
    ));
    Daemon {
        view,
        socket,
        tcp,
        stop,
        serving,
        _folder: folder,
    }
}

pub(super) async fn default_daemon() -> Daemon {
    start(Bounds::default(), &["root"]).await
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Asserts that this is a problem document of its code.
    pub(super) fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        assert!(
            self.head.contains("content-type: application/problem+json"),
            "{}",
            self.head
        );
        let document = self.json();
        assert_eq!(document["status"], status);
        assert_eq!(document["code"], code);
        assert_eq!(document["type"], format!("urn:keyfence:problem:{code}"));
        assert!(!document["title"].as_str().unwrap().is_empty());
        assert!(!document["detail"].as_str().unwrap().is_empty());
    }
}

/// `rest` is further headers, and behind an empty line the body.
pub(super) async fn ask<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, line: &str, rest: &str) -> Answer {
    let (headers, body) = rest
        .split_once("\r\n\r\n")
        .map_or((rest, ""), |(headers, body)| (headers, body));
    let headers = match headers {
        "" => String::new(),
        headers => format!("{}\r\n", headers.trim_end()),
    };
    let length = match body.len() {
        0 => String::new(),
        length => format!("content-length: {length}\r\n"),
    };
    let request =
        format!("{line} HTTP/1.1\r\nhost: keyfence\r\nconnection: close\r\n{headers}{length}\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut text))
        .await
        .expect("an answer in time")
        .unwrap();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer {
        status,
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

pub(super) async fn ask_unix(socket: &Path, line: &str) -> Answer {
    ask(UnixStream::connect(socket).await.unwrap(), line, "").await
}

pub(super) async fn ask_tcp(address: SocketAddr, line: &str) -> Answer {
    ask(TcpStream::connect(address).await.unwrap(), line, "").await
}

#[tokio::test]
async fn health_is_answered_on_every_listener_and_readiness_names_each_reason() {
    let daemon = default_daemon().await;
    for answer in [
        ask_unix(&daemon.socket, "GET /livez").await,
        ask_tcp(daemon.tcp, "GET /livez").await,
    ] {
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
    }
    assert_eq!(ask_unix(&daemon.socket, "GET /readyz").await.status, 200);
    let reasons = ["eth0 is not attached", "the policy file has 1 fault"];
    daemon
        .view
        .change(|snapshot| snapshot.not_ready = reasons.map(str::to_owned).to_vec());
    for answer in [
        ask_unix(&daemon.socket, "GET /readyz").await,
        ask_tcp(daemon.tcp, "GET /readyz").await,
    ] {
        assert_eq!(answer.status, 503);
        assert_eq!(answer.body.lines().collect::<Vec<_>>(), reasons);
    }
    let answer = ask_unix(&daemon.socket, "HEAD /readyz").await;
    assert_eq!((answer.status, answer.body.as_str()), (503, ""));
}

#[tokio::test]
async fn metrics_are_served_where_the_role_is_and_fail_whole() {
    let daemon = default_daemon().await;
    ask_tcp(daemon.tcp, "GET /livez").await;
    let answer = ask_tcp(daemon.tcp, "GET /metrics").await;
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .head
            .contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
        "{}",
        answer.head
    );
    assert!(
        answer
            .body
            .contains(r#"keyfence_http_requests_total{code="200",route="/livez"} 1"#),
        "{}",
        answer.body
    );
    assert!(answer.body.contains("keyfence_generation 7"));

    let lacking = ask_unix(&daemon.socket, "GET /metrics").await;
    lacking.is_problem(404, "not-found");
    assert!(
        lacking.json()["detail"]
            .as_str()
            .unwrap()
            .contains("add \"metrics\""),
        "{}",
        lacking.body
    );

    *daemon.view.counters.lock().unwrap() = Err("map verdicts: permission denied".to_owned());
    let failed = ask_tcp(daemon.tcp, "GET /metrics").await;
    failed.is_problem(500, "counters-unreadable");
    assert!(failed.body.contains("map verdicts: permission denied"));
    assert!(!failed.body.contains("keyfence_generation"));
}

#[tokio::test]
async fn status_shows_snapshot_and_counters_and_stays_whole_without_the_counters() {
    let daemon = default_daemon().await;
    let answer = ask_unix(&daemon.socket, "GET /v1/status").await;
    assert_eq!(answer.status, 200);
    let status = answer.json();
    assert_eq!(status["schema"], 1);
    assert_eq!(status["generation"], 7);
    assert_eq!(status["mode"], "enforce");
    assert_eq!(status["interfaces"][0]["mode"], "native");
    assert_eq!(status["started_at"], "2026-11-22T12:00:00Z");
    assert_eq!(status["counters"]["verdicts"][0]["packets"], 12);
    let available: Vec<_> = status["available"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item.as_str().unwrap())
        .collect();
    assert!(
        available.contains(&"POST /v1/reload") && available.contains(&"POST /v1/detach"),
        "{available:?}"
    );

    *daemon.view.counters.lock().unwrap() = Err("map verdicts: permission denied".to_owned());
    let status = ask_unix(&daemon.socket, "GET /v1/status").await.json();
    assert_eq!(status["counters"], serde_json::Value::Null);
    assert_eq!(status["counters_error"], "map verdicts: permission denied");
    assert_eq!(status["generation"], 7);
    ask_tcp(daemon.tcp, "GET /v1/status")
        .await
        .is_problem(404, "not-found");
}

#[tokio::test]
async fn unknown_path_wrong_method_and_what_is_not_built_are_problem_documents() {
    let daemon = default_daemon().await;
    ask_unix(&daemon.socket, "GET /v2/status")
        .await
        .is_problem(404, "not-found");
    ask_unix(&daemon.socket, "DELETE /")
        .await
        .is_problem(404, "not-found");
    let wrong = ask_unix(&daemon.socket, "POST /v1/status").await;
    wrong.is_problem(405, "method-not-allowed");
    assert!(wrong.head.contains("\r\nallow: get, head"), "{}", wrong.head);
    let wrong = ask_unix(&daemon.socket, "GET /v1/reload").await;
    wrong.is_problem(405, "method-not-allowed");
    assert!(wrong.head.contains("\r\nallow: post"), "{}", wrong.head);
    ask_unix(&daemon.socket, "GET /v1/authorize/payments/a/b?c=d")
        .await
        .is_problem(404, "not-found");
    let long = format!(
        "POST /v1/reload HTTP/1.1\r\nhost: keyfence\r\ncontent-length: {}\r\n\r\n",
        (64 << 10) + 1
    );
    let mut stream = UnixStream::connect(&daemon.socket).await.unwrap();
    stream.write_all(long.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    timeout(PATIENCE, stream.read_exact(&mut start))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
}

#[tokio::test]
async fn every_documented_path_answers_its_methods_where_the_role_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.sock");
    let all = [
        Role::Publish,
        Role::Authorize,
        Role::Read,
        Role::Operate,
        Role::Deny,
        Role::Metrics,
    ];
    let bound = bind(&[listener(ListenerAddress::Unix(path.clone()), &all)])
        .await
        .unwrap();
    let (_stop, stopped) = watch::channel(false);
    let view: Arc<dyn View> = Arc::new(FakeView::default());
    tokio::spawn(serve(
        bound,
        view,
        None,
        Arc::new(Metrics::new()),
        vec!["root".to_owned()],
        Bounds::default(),
        stopped,
    ));
    for route in routes::ROUTES {
        let target = route.path.replace("{*rest}", "a/b").replace(['{', '}'], "");
        let method = match route.verb {
            routes::Verb::Any => "PATCH".to_owned(),
            verb => format!("{verb:?}").to_uppercase(),
        };
        let answer = ask_unix(&path, &format!("{method} {target}")).await;
        match &route.action {
            // Nothing is given: it says what it needs.
            answers::Action::Why | answers::Action::Explain => answer.is_problem(400, "bad-query"),
            action if needs_bindings(action) => answer.is_problem(503, "starting"),
            // These depend on who runs the tests.
            answers::Action::Detach => assert!([200, 403].contains(&answer.status)),
            // It depends on who runs the tests.
            action if is_operators(action) => assert!([503, 403].contains(&answer.status)),
            _ => assert_eq!(answer.status, 200, "{method} {target}: {}", answer.body),
        }
    }
}

/// What is answered to operators alone, once the policies are there.
fn is_operators(action: &answers::Action) -> bool {
    use answers::Action::*;
    matches!(action, Reload | Plan | Apply | Confirm | Rollback)
}

/// What is answered once the bindings are there.
fn needs_bindings(action: &answers::Action) -> bool {
    use answers::Action::*;
    matches!(
        action,
        Authorize
            | List
            | Put
            | Get
            | Delete
            | Batch
            | Sync
            | Watch
            | Denies
            | PutDeny
            | DeleteDeny
            | Audit
            | Drops
            | Capture
            | Top
            | Backup
            | Restore
            | History
            | Observe
    )
}
