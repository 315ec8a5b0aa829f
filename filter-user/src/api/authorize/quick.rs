//! The quick way of authorize: a connection's requests are read, judged and answered here, with one read and one write
//! for those that came together, on a thread where nothing else runs.
//!
//! Takes the plainest requests alone: HTTP/1.1, whole when they are first seen, without a body, and with a verdict for
//! an answer. With the first other one the connection, and what was read of it, goes to hyper for good (`connection`).

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

use super::idle::{Idle, Ring};
use super::{Decided, PATH, PATH_BELOW, PREFIX, decide, in_header};
use crate::api::Context;
use crate::api::connection::FIRST_PATIENCE;
use crate::api::head::{self, Head};
use crate::api::who::Who;
use crate::metrics::Answers;

/// More than gateways send at once.
const READ_BYTES: usize = 8 << 10;
/// Kinds of answers whose counters a connection keeps at hand.
const COUNTED_MAX: usize = 16;

/// How the quick way ends.
pub(in crate::api) enum End {
    Closed,
    /// Something else is asked, in these bytes.
    Other(Vec<u8>),
}

/// `elsewhere` is where its timers are: one on this thread, also if it never rings, would make each wait for a request a
/// microsecond dearer.
pub(in crate::api) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    context: &Context,
    who: &Who,
    shutdown: &watch::Receiver<bool>,
    elsewhere: &Handle,
) -> End {
    let mut quick = Quick {
        context,
        who,
        answers: Vec::new(),
        date: Date::default(),
        counted: Vec::new(),
    };
    let mut held = Vec::with_capacity(READ_BYTES);
    let (idle, ring) = Idle::watched(context.bounds.header_timeout, shutdown.clone(), elsewhere);
    let mut ring = pin!(ring);
    let mut has_asked = false;
    loop {
        let rung = tokio::select! {
            biased;
            read = stream.read_buf(&mut held) => match read {
                Ok(1..) => None,
                // Who has gone without a word, or by an error, has no request open.
                _ => return End::Closed,
            },
            rung = &mut ring => Some(rung),
        };
        match rung {
            None => {}
            // Who has never been answered takes a closed connection for a failure, and rightly so.
            Some(Ring::Stopping) if !has_asked => {
                let first = timeout(FIRST_PATIENCE, stream.read_buf(&mut held)).await;
                return match first {
                    Ok(Ok(1..)) => quick.hear(stream, &mut held, Instant::now()).await,
                    _ => None,
                }
                .unwrap_or(End::Closed);
            }
            Some(_) => return End::Closed,
        }
        let now = Instant::now();
        idle.is_asked(now);
        has_asked = true;
        if let Some(end) = quick.hear(stream, &mut held, now).await {
            return end;
        }
    }
}

/// What a connection keeps from one request to the next.
struct Quick<'c> {
    context: &'c Context,
    who: &'c Who,
    answers: Vec<u8>,
    date: Date,
    counted: Vec<Counted>,
}

impl Quick<'_> {
    /// Answers what was read at `now`; how the connection ends, where it does.
    async fn hear<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        held: &mut Vec<u8>,
        now: Instant,
    ) -> Option<End> {
        let taken = self.answer_all(held, now);
        if !self.answers.is_empty() {
            let stall_timeout = self.context.bounds.stall_timeout;
            let mut writing = pin!(stream.write_all(&self.answers));
            let written = match at_once(writing.as_mut()).await {
                Some(written) => Ok(written),
                None => timeout(stall_timeout, writing).await,
            };
            if !matches!(written, Ok(Ok(()))) {
                return Some(End::Closed);
            }
            self.answers.clear();
        }
        held.drain(..taken);
        (!held.is_empty()).then(|| End::Other(std::mem::take(held)))
    }

    /// Answers what it can, in order; how many bytes that was.
    fn answer_all(&mut self, bytes: &[u8], now: Instant) -> usize {
        let mut taken = 0;
        while let Some(bytes) = self.answer(&bytes[taken..], now) {
            taken += bytes;
        }
        taken
    }

    /// One request, whose bytes it tells; `None` where it is not answered here.
    fn answer(&mut self, bytes: &[u8], now: Instant) -> Option<usize> {
        let mut room = head::room();
        let head = head::read(bytes, &mut room).ok()??;
        let (path, route) = plain(&head)?;
        let decided = decide(self.context, self.who, path, head.headers).ok()?;
        self.write(&decided, now);
        self.count(&decided, route, now.elapsed());
        Some(head.bytes)
    }

    /// The same fields as hyper's answer has.
    fn write(&mut self, decided: &Decided<'_>, now: Instant) {
        let (said, status) = (&decided.said, decided.status);
        let gateways = self.context.backing.as_ref().map(|backing| &backing.gateways);
        let answers = &mut self.answers;
        let mut put = |pieces: &[&str]| {
            for piece in pieces {
                answers.extend_from_slice(piece.as_bytes());
            }
        };
        put(&["HTTP/1.1 ", status.as_str(), " "]);
        put(&[status.canonical_reason().unwrap_or_default()]);
        put(&["\r\nkeyfence-verdict: ", said.verdict]);
        put(&["\r\nkeyfence-credential: ", in_header(&said.credential)]);
        put(&["\r\nkeyfence-publisher: ", in_header(&said.publisher)]);
        put(&[
            "\r\ncache-control: no-store\r\ncontent-length: 0\r\ndate: ",
            self.date.at(now),
        ]);
        if gateways.is_some_and(|gateways| gateways.reason_header) {
            put(&["\r\nkeyfence-reason: ", said.reason]);
        }
        if let Some(challenge) = decided.challenge(self.context) {
            put(&["\r\nwww-authenticate: ", in_header(challenge)]);
        }
        put(&["\r\n\r\n"]);
    }

    fn count(&mut self, decided: &Decided<'_>, route: &'static str, took: Duration) {
        let (status, result, service) = (decided.status.as_u16(), decided.result, &*decided.service);
        let known = self.counted.iter().find(|counted| {
            (counted.status, counted.result, counted.route) == (status, result, route)
                && counted.service == service
        });
        if let Some(known) = known {
            return known.answers.count(took);
        }
        let answers = self.context.metrics.answers(route, status, (service, result));
        answers.count(took);
        if self.counted.len() < COUNTED_MAX {
            self.counted.push(Counted {
                route,
                status,
                result,
                service: service.to_owned(),
                answers,
            });
        }
    }
}

/// Answers of one kind, and what they are counted in.
struct Counted {
    route: &'static str,
    status: u16,
    result: &'static str,
    service: String,
    answers: Answers,
}

/// What it comes to where nothing has to be waited for.
async fn at_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
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
    /// When its second is over.
    until: Option<Instant>,
    text: String,
}

impl Date {
    fn at(&mut self, now: Instant) -> &str {
        if self.until.is_none_or(|until| until <= now) {
            let time = jiff::Timestamp::now();
            let text = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time);
            // Only years that have more than four digits have no such form.
            self.text = text.unwrap_or_default();
            let into_second = u64::from(time.subsec_nanosecond().unsigned_abs());
            self.until = Some(now + Duration::from_secs(1) - Duration::from_nanos(into_second));
        }
        &self.text
    }
}
