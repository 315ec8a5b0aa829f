//! Asks the daemon over its Unix socket: one request and one answer, within a time, or as it comes.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::{Exit, Failure};
use super::service;

/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The socket that the verbs which ask the daemon use.
#[derive(Debug, clap::Args)]
pub(crate) struct SocketArguments {
    /// The daemon's Unix socket: a listener of the policy with the role that the command needs
    #[arg(long, value_name = "PATH", default_value = super::SOCKET)]
    pub(crate) socket: PathBuf,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        [200, 201].contains(&self.status)
    }
}

/// The members of a problem document that a person reads.
#[derive(Deserialize)]
struct Problem {
    title: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    errors: Vec<FieldFault>,
}

/// One fault of what was sent.
#[derive(Deserialize)]
struct FieldFault {
    pointer: String,
    detail: String,
    #[serde(default)]
    fix: String,
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("{0}")]
    Connect(std::io::Error),
    #[error("it took the connection, and gave no answer within {} s", .0.as_secs())]
    Slow(Duration),
    #[error("the answer cannot be read: {0}")]
    Broken(String),
}

/// One question: a path with its query, and a JSON body or none.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Option<serde_json::Value>,
}

/// How long a binding or a deny may take: far more than it does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(35);

/// A path's segment, or a value of the query, with all but plain characters encoded (RFC 3986, 2.3).
pub(crate) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// `?name=value&…` of what is given; empty where nothing is.
pub(crate) fn query(parameters: &[(&str, Option<String>)]) -> String {
    let given = parameters.iter().filter_map(|(name, value)| {
        let value = value.as_deref()?;
        Some(format!("{name}={}", encoded(value)))
    });
    let given: Vec<String> = given.collect();
    match given.as_slice() {
        [] => String::new(),
        given => format!("?{}", given.join("&")),
    }
}

/// The body of a 200, or why there is none.
pub(crate) fn ask(socket: &Path, method: Method, path: &str, patience: Duration) -> Result<String, Failure> {
    let call = Call {
        method,
        path: path.to_owned(),
        body: None,
    };
    send(socket, call, patience)
}

/// The body of a 200 or 201, or why there is none.
pub(crate) fn send(socket: &Path, call: Call, patience: Duration) -> Result<String, Failure> {
    send_as(socket, call, patience, &[])
}

/// How a command calls the members of what it sends.
pub(crate) type Flags = [(&'static str, &'static str)];

/// As `send`; faults of members are told by the command's own words.
pub(crate) fn send_as(
    socket: &Path,
    call: Call,
    patience: Duration,
    flags: &Flags,
) -> Result<String, Failure> {
    let answer = answer(socket, call, patience)?;
    if answer.is_success() {
        Ok(answer.body)
    } else {
        Err(refused_as(&answer, flags))
    }
}

/// Whatever is answered, or why nothing is.
pub(crate) fn answer(socket: &Path, call: Call, patience: Duration) -> Result<Answer, Failure> {
    let runtime = runtime()?;
    let exchange = async {
        match tokio::time::timeout(patience, exchange(socket, call)).await {
            Ok(result) => result,
            Err(_) => Err(Fault::Slow(patience)),
        }
    };
    runtime
        .block_on(exchange)
        .map_err(|fault| unreachable(socket, &fault))
}

async fn exchange(socket: &Path, call: Call) -> Result<Answer, Fault> {
    let broken = |error: &dyn std::fmt::Display| Fault::Broken(error.to_string());
    let stream = UnixStream::connect(socket).await.map_err(Fault::Connect)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(&error))?;
    // It ends with the answer; this runtime, and the task with it, ends right after.
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(call.method)
        .uri(call.path)
        .header(HOST, "keyfence")
        .header(hyper::header::CONNECTION, "close");
    let body = match call.body {
        Some(body) => {
            request = request.header(CONTENT_TYPE, "application/json");
            Bytes::from(body.to_string())
        }
        None => Bytes::new(),
    };
    let request = request.body(Full::new(body)).map_err(|error| broken(&error))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| broken(&error))?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await;
    let body = body.map_err(|error| Fault::Broken(error.to_string()))?.to_bytes();
    Ok(Answer {
        status,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

/// Takes an answer as it comes: `each` gets its pieces, and says whether it wants more. Ctrl-C and SIGTERM ask the daemon
/// for the end of the answer, by the end of the request's own body; a second one stops at once.
pub(crate) fn stream(
    socket: &Path,
    path: &str,
    each: &mut dyn FnMut(&[u8]) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let fault = |fault: Fault| unreachable(socket, &fault);
        let broken = |error: &dyn std::fmt::Display| Fault::Broken(error.to_string());
        let mut ends = Ends::new().map_err(|error| Failure::new(Exit::Failed, error))?;
        let stream = UnixStream::connect(socket).await;
        let stream = stream.map_err(|error| fault(Fault::Connect(error)))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| fault(broken(&error)))?;
        tokio::spawn(connection);
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let mut end = Some(end);
        // Says nothing, and ends when it is told to.
        let body = futures_util::stream::unfold(ended, |ended| async {
            let _ = ended.await;
            None::<(Result<Frame<Bytes>, Infallible>, _)>
        });
        let request = Request::builder()
            .method(Method::GET)
            .uri(path)
            .header(HOST, "keyfence")
            .header(TRANSFER_ENCODING, "chunked")
            .body(StreamBody::new(body))
            .map_err(|error| fault(broken(&error)))?;
        let response = tokio::time::timeout(PATIENCE, sender.send_request(request)).await;
        let response = response.map_err(|_| fault(Fault::Slow(PATIENCE)))?;
        let response = response.map_err(|error| fault(broken(&error)))?;
        let status = response.status().as_u16();
        let mut answer = response.into_body();
        if status != 200 {
            let body = Limited::new(answer, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| fault(Fault::Broken(error.to_string())))?;
            let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
            return Err(refused(&Answer { status, body }));
        }
        loop {
            let frame = tokio::select! {
                frame = answer.frame() => frame,
                () = ends.next() => match end.take() {
                    Some(end) => {
                        let _ = end.send(());
                        continue;
                    }
                    None => return Ok(()),
                },
            };
            match frame {
                None => return Ok(()),
                Some(Err(error)) => return Err(fault(broken(&error))),
                Some(Ok(frame)) => match frame.data_ref() {
                    Some(bytes) if !each(bytes)? => return Ok(()),
                    _ => {}
                },
            }
        }
    })
}

/// The signals that end a command.
struct Ends {
    interrupt: Signal,
    terminate: Signal,
}

impl Ends {
    fn new() -> std::io::Result<Ends> {
        Ok(Ends {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, format!("no event loop: {error}")))
}

fn unreachable(socket: &Path, fault: &Fault) -> Failure {
    let start = service::start();
    let (elsewhere, gone) = (
        format!(
            "is the daemon running? Start it with `{start}`; where the policy has its listener elsewhere, give \
             `--socket PATH`"
        ),
        format!("the daemon that left this socket is gone; start it with `{start}`"),
    );
    let fix = match fault {
        Fault::Connect(error) => match error.kind() {
            ErrorKind::NotFound => elsewhere.as_str(),
            ErrorKind::ConnectionRefused => gone.as_str(),
            ErrorKind::PermissionDenied => {
                "your user may not open it: use sudo, or join the group of the socket (`keyfence`, unless the policy \
                 names another)"
            }
            ErrorKind::WouldBlock => "it has more connections waiting than it takes; try again",
            _ => "check the path",
        },
        Fault::Slow(_) => {
            "it is stopped or overloaded: see the daemon's log; what was asked may still be done"
        }
        Fault::Broken(_) => "try again; if it stays so, see the daemon's log",
    };
    let text = format!(
        "no answer from the daemon at {}: {fault}; {fix}",
        socket.display()
    );
    Failure::new(Exit::Unreachable, text).answered("")
}

/// What the API says in a query is a flag of the commands.
const PUBLISHER_QUERY: &str = "?publisher=NAME";
const PUBLISHER_FLAG: &str = "--publisher NAME";

/// What an answer that is no success means for the command.
pub(crate) fn refused(answer: &Answer) -> Failure {
    refused_as(answer, &[])
}

fn refused_as(answer: &Answer, flags: &Flags) -> Failure {
    let Ok(problem) = serde_json::from_str::<Problem>(&answer.body) else {
        let text = format!("the daemon answered {}: {}", answer.status, answer.body.trim());
        return Failure::new(Exit::Failed, text).answered("");
    };
    let exit = match problem.code.as_str() {
        "policy-invalid" => Exit::PolicyInvalid,
        "policy-refused"
        | "policy-changed"
        | "policy-pending"
        | "mass-revocation"
        | "stale-row-version"
        | "row-version-required"
        | "condition-failed" => Exit::Refused,
        "busy" | "starting" | "draining" | "timeout" => Exit::Unreachable,
        _ => Exit::Failed,
    };
    let mut text = match problem.code.as_str() {
        // It says itself what is not there.
        "not-found" if !problem.detail.is_empty() => problem.detail,
        "policy-invalid" if problem.detail.starts_with("the policy is invalid") => problem.detail,
        _ => format!("{}: {}", problem.title, problem.detail),
    };
    for FieldFault { pointer, detail, fix } in &problem.errors {
        let fix = if fix.is_empty() {
            String::new()
        } else {
            format!("; {fix}")
        };
        text.push_str(&format!("\n  {}: {detail}{fix}", place(pointer, flags)));
    }
    // Names that are no words of the language stand in the sentences too.
    for (member, flag) in flags.iter().filter(|(member, _)| member.contains('_')) {
        text = text.replace(member, flag);
    }
    Failure::new(exit, text.replace(PUBLISHER_QUERY, PUBLISHER_FLAG)).answered(&answer.body)
}

/// `/limit/packets/rate` is `--limit` where a command says so, else `limit/packets/rate`.
fn place<'p>(pointer: &'p str, flags: &Flags) -> &'p str {
    let path = pointer.trim_start_matches('/');
    let member = path.split('/').next().unwrap_or(path);
    let flag = flags.iter().find(|(name, _)| *name == member);
    flag.map_or(path, |(_, flag)| flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_speaks_of_flags_where_the_api_speaks_of_members() {
        let body = r#"{"title": "T", "code": "invalid", "detail": "as an operator, name one with `?publisher=NAME`",
            "errors": [{"pointer": "/seconds", "detail": "none"}, {"pointer": "/other/0", "detail": "odd", "fix": "write lease_seconds"}]}"#;
        let answer = Answer {
            status: 422,
            body: body.to_owned(),
        };
        let failure = refused_as(&answer, &[("seconds", "--for"), ("lease_seconds", "--lease")]);
        assert_eq!(
            failure.text,
            "T: as an operator, name one with `--publisher NAME`\n  --for: none\n  other/0: odd; write --lease"
        );
    }
}
