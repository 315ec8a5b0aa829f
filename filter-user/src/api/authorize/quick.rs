//! The quick way of authorize: a connection's requests are read, judged and answered here, with one read and one write
//! for those that came together, on a thread where nothing else runs.
//!
//! Takes the plainest requests alone: HTTP/1.1, whole when they are first seen, without a body, and with a verdict for
//! an answer. With the first other one the connection, and what was read of it, goes to hyper for good (`connection`).

use std::io::Write as _;
use std::pin::pin;
use std::time::Instant;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{Decided, PATH, PATH_BELOW, PREFIX, decide, in_header};
use crate::api::Context;
use crate::api::connection::{FIRST_PATIENCE, stopped};
use crate::api::head::{self, Head};
use crate::api::who::Who;

/// More than gateways send at once.
const READ_BYTES: usize = 8 << 10;

/// How the quick way ends.
pub(in crate::api) enum End {
    Closed,
    /// Something else is asked, in these bytes.
    Other(Vec<u8>),
}

pub(in crate::api) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    context: &Context,
    who: &Who,
    shutdown: &mut watch::Receiver<bool>,
) -> End {
    let bounds = context.bounds;
    let mut quick = Quick {
        context,
        who,
        headers: HeaderMap::new(),
        date: Date::default(),
    };
    let mut held = Vec::with_capacity(READ_BYTES);
    let mut answers = Vec::new();
    // Looked at when it rings, and not set anew with each request.
    let mut idle = pin!(sleep(bounds.header_timeout));
    let mut active = tokio::time::Instant::now();
    let mut stopping = pin!(stopped(shutdown));
    let (mut has_asked, mut leaving) = (false, false);
    loop {
        let read = tokio::select! {
            biased;
            read = stream.read_buf(&mut held) => read,
            () = &mut stopping, if !leaving => {
                // Who has never been answered takes a closed connection for a failure, and rightly so.
                if has_asked {
                    return End::Closed;
                }
                leaving = true;
                idle.as_mut().reset(tokio::time::Instant::now() + FIRST_PATIENCE);
                continue;
            }
            () = &mut idle => {
                if leaving {
                    return End::Closed;
                }
                let due = active + bounds.header_timeout;
                if due <= tokio::time::Instant::now() {
                    return End::Closed;
                }
                idle.as_mut().reset(due);
                continue;
            }
        };
        // Who has gone without a word, or by an error, has no request open.
        if !matches!(read, Ok(1..)) {
            return End::Closed;
        }
        active = tokio::time::Instant::now();
        has_asked = true;
        let taken = quick.answer_all(&held, &mut answers);
        if !answers.is_empty() {
            let written = timeout(bounds.stall_timeout, stream.write_all(&answers)).await;
            if !matches!(written, Ok(Ok(()))) {
                return End::Closed;
            }
            answers.clear();
        }
        held.drain(..taken);
        if !held.is_empty() {
            return End::Other(held);
        }
        if leaving {
            return End::Closed;
        }
    }
}

struct Quick<'c> {
    context: &'c Context,
    who: &'c Who,
    headers: HeaderMap,
    date: Date,
}

impl Quick<'_> {
    /// Answers what it can, in order; how many bytes that was.
    fn answer_all(&mut self, bytes: &[u8], answers: &mut Vec<u8>) -> usize {
        let mut taken = 0;
        while let Some(bytes) = self.answer(&bytes[taken..], answers) {
            taken += bytes;
        }
        taken
    }

    /// One request, whose bytes it tells; `None` where it is not answered here.
    fn answer(&mut self, bytes: &[u8], answers: &mut Vec<u8>) -> Option<usize> {
        let started = Instant::now();
        let mut room = head::room();
        let head = head::read(bytes, &mut room).ok()??;
        let (path, label) = plain(&head)?;
        self.headers.clear();
        for header in head.headers {
            let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
            self.headers
                .append(name, HeaderValue::from_bytes(header.value).ok()?);
        }
        let decided = decide(self.context, self.who, path, &self.headers).ok()?;
        self.write(&decided, answers);
        let metrics = &self.context.metrics;
        metrics.authorized(&decided.service, decided.result);
        metrics.request_answered(label, decided.status.as_u16(), started.elapsed());
        Some(head.bytes)
    }

    /// The same fields as hyper's answer has.
    fn write(&mut self, decided: &Decided, answers: &mut Vec<u8>) {
        let said = &decided.said;
        let reason = decided.status.canonical_reason().unwrap_or_default();
        // Writing to memory cannot fail.
        let _ = write!(
            answers,
            "HTTP/1.1 {} {reason}\r\nkeyfence-verdict: {}\r\nkeyfence-credential: {}\r\nkeyfence-publisher: {}\r\n\
             cache-control: no-store\r\ncontent-length: 0\r\ndate: {}\r\n",
            decided.status.as_u16(),
            said.verdict,
            in_header(&said.credential),
            in_header(&said.publisher),
            self.date.now(),
        );
        let backing = self.context.backing.as_ref();
        if backing.is_some_and(|backing| backing.gateways.reason_header) {
            let _ = write!(answers, "keyfence-reason: {}\r\n", said.reason);
        }
        if let Some(challenge) = decided.challenge(self.context) {
            let _ = write!(answers, "www-authenticate: {}\r\n", in_header(challenge));
        }
        answers.extend_from_slice(b"\r\n");
    }
}

/// The path of a request that is answered here, and its label in the metrics.
fn plain<'b>(head: &Head<'_, 'b>) -> Option<(&'b str, &'static str)> {
    if !head.newer || head.body_bytes > 0 || head.method == "CONNECT" || head.target.contains('#') {
        return None;
    }
    let hyper_knows = |name: &str| {
        ["expect", "upgrade"]
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known))
    };
    for header in head.headers {
        let stays = || header.value.eq_ignore_ascii_case(b"keep-alive");
        if hyper_knows(header.name) || header.name.eq_ignore_ascii_case("connection") && !stays() {
            return None;
        }
    }
    let path = head.target.split('?').next().unwrap_or_default();
    match path.strip_prefix(PREFIX)?.split_once('/') {
        Some(("", _)) => None,
        Some(_) => Some((path, PATH_BELOW)),
        None if path.len() == PREFIX.len() => None,
        None => Some((path, PATH)),
    }
}

/// The field Date (RFC 9110, 6.6.1), made once a second.
#[derive(Default)]
struct Date {
    second: i64,
    text: String,
}

impl Date {
    fn now(&mut self) -> &str {
        let now = jiff::Timestamp::now();
        if self.text.is_empty() || self.second != now.as_second() {
            self.second = now.as_second();
            let text = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now);
            // Only years that have more than four digits have no such form.
            self.text = text.unwrap_or_default();
        }
        &self.text
    }
}
