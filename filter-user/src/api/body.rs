//! The bodies of requests: of which type, how long, and how slowly they may come.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::problem::{Code, Problem};
use crate::bindings::requests::LINE_BYTES_MAX;

pub(super) const NDJSON: &str = "application/x-ndjson";

const DRAIN_BYTES_MAX: usize = 1 << 20;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);

/// The whole body of one binding or deny.
pub(super) async fn json(headers: &HeaderMap, body: &mut Body, patience: Duration) -> Result<Bytes, Problem> {
    whole(headers, body, patience, LINE_BYTES_MAX as u64).await
}

/// An object of these members: a list of their values in order, which serde would take as well, is none.
pub(super) fn object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => Err(serde::de::Error::custom("a list where an object belongs")),
        _ => serde_json::from_slice(bytes),
    }
}

/// A whole body of JSON with a bound of its own.
pub(super) async fn whole(
    headers: &HeaderMap,
    body: &mut Body,
    patience: Duration,
    max: u64,
) -> Result<Bytes, Problem> {
    media(headers, &["application/json"])?;
    let too_large = || Problem::new(Code::TooLarge, format!("a body here has at most {max} bytes"));
    let deadline = Instant::now() + patience;
    let mut bytes = BytesMut::new();
    loop {
        let frame = match timeout_at(deadline, body.frame()).await {
            Err(_) => return Err(slow(patience)),
            Ok(None) => return Ok(bytes.freeze()),
            Ok(Some(frame)) => frame.map_err(|_| cut())?,
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if (bytes.len() + data.len()) as u64 > max {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
}

/// Whether the body's type is one that is taken; none said is taken for the first.
pub(super) fn media(headers: &HeaderMap, taken: &[&str]) -> Result<(), Problem> {
    let plain = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(header::CONTENT_ENCODING).iter().all(plain) {
        let detail = "send the body as it is, without `Content-Encoding`";
        return Err(Problem::new(Code::WrongMedia, detail));
    }
    let mut said = headers.get_all(header::CONTENT_TYPE).iter();
    let Some(value) = said.next() else {
        return Ok(());
    };
    let kind = value.to_str().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if said.next().is_none() && taken.iter().any(|taken| kind.eq_ignore_ascii_case(taken)) {
        return Ok(());
    }
    let detail = format!("send `Content-Type: {}`", taken.join("` or `"));
    Err(Problem::new(Code::WrongMedia, detail))
}

/// Takes what is still on its way of a body that was refused, within bounds: one who sends all before it reads would
/// lose the answer with the connection.
pub(super) async fn drain(body: &mut Body) {
    let deadline = Instant::now() + DRAIN_TIME_MAX;
    let mut left = DRAIN_BYTES_MAX;
    while let Ok(Some(Ok(frame))) = timeout_at(deadline, body.frame()).await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

fn slow(patience: Duration) -> Problem {
    let detail = format!(
        "no whole line or body within {} s; nothing of it was done",
        patience.as_secs()
    );
    Problem::new(Code::SlowBody, detail)
}

fn cut() -> Problem {
    Problem::new(Code::Malformed, "the body ended before it was whole")
}

/// A body of lines, given on in pieces as they come; a line may take its time, but no longer.
pub(super) struct Lines {
    body: Body,
    patience: Duration,
    deadline: Instant,
}

/// How a stream of lines ended before its end.
#[derive(Debug)]
pub(super) enum Broken {
    Slow,
    Cut,
}

impl From<Broken> for Problem {
    fn from(broken: Broken) -> Problem {
        match broken {
            Broken::Slow => Problem::new(Code::SlowBody, "a line took too long; nothing was changed"),
            Broken::Cut => cut(),
        }
    }
}

impl Lines {
    pub(super) fn new(body: Body, patience: Duration) -> Lines {
        Lines {
            body,
            patience,
            deadline: Instant::now() + patience,
        }
    }

    /// The next piece, cut anywhere; `None` is the end. What the caller does between two calls is not the sender's
    /// time.
    pub(super) async fn next(&mut self, since: Instant) -> Result<Option<Bytes>, Broken> {
        self.deadline += since.elapsed();
        loop {
            let frame = match timeout_at(self.deadline, self.body.frame()).await {
                Err(_) => return Err(Broken::Slow),
                Ok(None) => return Ok(None),
                Ok(Some(Err(_))) => return Err(Broken::Cut),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if data.contains(&b'\n') {
                self.deadline = Instant::now() + self.patience;
            }
            return Ok(Some(data));
        }
    }
}
