//! Looks at each request's head before hyper sees it, so that every refusal is a problem document.
//!
//! hyper answers a head that it cannot read by itself, with an empty body, and lets pass what RFC 9112 refuses: no
//! Host or two, Content-Length beside Transfer-Encoding. Parses with httparse, as hyper does, so both agree on where
//! a head ends. In place of a refused head hyper is given one that `Refusals` answers, as the connection's last.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use axum::http::uri::Authority;
use axum::http::{Method, Uri};
use httparse::{Header, Request, Status};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::problem::{Code, Problem};

/// The longest head that is read.
pub(super) const HEAD_BYTES_MAX: usize = 64 << 10;
/// As many as hyper takes.
pub(super) const HEADERS_MAX: usize = 100;
const READ_BYTES: usize = 8 << 10;
/// What hyper reads in place of a refused head. It closes behind the answer.
const STAND_IN: &[u8] = b"GET /refused HTTP/1.1\r\nhost: keyfence\r\nconnection: close\r\n\r\n";

/// What is wrong with a head.
pub(super) type Fault = (Code, &'static str);

const fn malformed(detail: &'static str) -> Fault {
    (Code::Malformed, detail)
}

/// Which of a connection's requests is refused, and why: the last one.
#[derive(Default)]
pub(super) struct Refusals {
    asked: AtomicU64,
    refused: OnceLock<(u64, Fault)>,
}

impl Refusals {
    /// Called once for each request, in their order.
    pub(super) fn next(&self) -> Option<Problem> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let (at, (code, detail)) = self.refused.get()?;
        (*at == number).then(|| Problem::new(*code, *detail))
    }
}

/// A connection whose heads are looked at.
pub(super) struct Screened<S> {
    stream: S,
    refusals: Arc<Refusals>,
    /// Read and not yet passed on.
    held: Vec<u8>,
    /// How many of these were looked at in vain: a head that comes byte by byte is not parsed at each.
    looked_at: usize,
    /// What may be passed on: the head at hand and its body.
    passable: u64,
    /// Heads passed on.
    heads: u64,
}

impl<S> Screened<S> {
    /// `held` was read of it already.
    pub(super) fn new(stream: S, refusals: Arc<Refusals>, held: Vec<u8>) -> Screened<S> {
        Screened {
            stream,
            refusals,
            held,
            looked_at: 0,
            passable: 0,
            heads: 0,
        }
    }

    /// Passes on what is held and may be.
    fn pass(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let may = usize::try_from(self.passable).unwrap_or(usize::MAX);
        let length = self.held.len().min(buffer.remaining()).min(may);
        buffer.put_slice(&self.held[..length]);
        self.held.drain(..length);
        self.passable -= length as u64;
        length > 0
    }

    /// Looks for the next head in what is held.
    fn screen(&mut self) {
        let line_ends = self.held.split_inclusive(|byte| *byte == b'\n');
        let empty: usize = line_ends
            .take_while(|line| matches!(*line, b"\n" | b"\r\n"))
            .map(<[u8]>::len)
            .sum();
        // Empty lines before a request line are ignored (RFC 9112, 2.2).
        self.held.drain(..empty);
        if self.looked_at > 0 && !ends_head(&self.held[self.looked_at.saturating_sub(2)..]) {
            self.looked_at = self.held.len();
            if self.looked_at < HEAD_BYTES_MAX {
                return;
            }
        }
        match look(&self.held) {
            Ok(None) => self.looked_at = self.held.len(),
            Ok(Some(length)) => {
                (self.passable, self.looked_at) = (length, 0);
                self.heads += 1;
            }
            Err(fault) => {
                // It is set once: nothing is read any more.
                let _ = self.refusals.refused.set((self.heads, fault));
                self.held = STAND_IN.to_vec();
                self.passable = STAND_IN.len() as u64;
            }
        }
    }

    fn is_refused(&self) -> bool {
        self.refusals.refused.get().is_some()
    }
}

fn ends_head(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|end| end == b"\n\n") || bytes.windows(3).any(|end| end == b"\n\r\n")
}

/// A head that RFC 9112 lets pass.
pub(super) struct Head<'h, 'b> {
    pub(super) method: &'b str,
    pub(super) target: &'b str,
    /// HTTP/1.1, and not 1.0.
    pub(super) newer: bool,
    pub(super) headers: &'h [Header<'b>],
    pub(super) bytes: usize,
    pub(super) body_bytes: u64,
}

/// Room for the fields of a head.
pub(super) type Room<'b> = [MaybeUninit<Header<'b>>; HEADERS_MAX];

pub(super) const fn room<'b>() -> Room<'b> {
    [const { MaybeUninit::uninit() }; HEADERS_MAX]
}

/// The bytes of the request that begins here, its body included; `None` where its head is not whole yet.
fn look(bytes: &[u8]) -> Result<Option<u64>, Fault> {
    let head = read(bytes, &mut room())?.map(|head| (head.bytes as u64).saturating_add(head.body_bytes));
    Ok(head)
}

/// The head that begins here; `None` where it is not whole yet.
pub(super) fn read<'h, 'b>(bytes: &'b [u8], room: &'h mut Room<'b>) -> Result<Option<Head<'h, 'b>>, Fault> {
    let mut request = Request::new(&mut []);
    let looked_at = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    let head_bytes = match request.parse_with_uninit_headers(looked_at, room) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
        Ok(_) if request.version.is_none() => {
            return Err((Code::TargetTooLong, "a head has at most 64 KiB"));
        }
        Ok(_) => return Err((Code::HeadTooLarge, "a head has at most 64 KiB")),
        Err(httparse::Error::TooManyHeaders) => {
            return Err((Code::HeadTooLarge, "a head has at most 100 fields"));
        }
        Err(httparse::Error::Version) => {
            return Err(malformed("the version is neither HTTP/1.1 nor HTTP/1.0"));
        }
        Err(_) => return Err(malformed("the head is no HTTP")),
    };
    let method = request.method.unwrap_or_default();
    let target = request.path.unwrap_or_default();
    if Method::from_bytes(method.as_bytes()).is_err() || !is_target(target) {
        return Err(malformed("the request line cannot be read"));
    }
    let newer = request.version == Some(1);
    host(request.headers, newer)?;
    Ok(Some(Head {
        method,
        target,
        newer,
        body_bytes: body(request.headers, newer)?,
        headers: request.headers,
        bytes: head_bytes,
    }))
}

fn values<'h>(headers: &'h [Header<'h>], name: &'static str) -> impl Iterator<Item = &'h [u8]> {
    let named = headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| header.value)
}

/// Bytes that no target and no host gives a meaning to.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-')
}

fn is_target(target: &str) -> bool {
    let is_plain_path = || target.bytes().all(|byte| is_plain(byte) || byte == b'/');
    target.starts_with('/') && is_plain_path() || Uri::try_from(target).is_ok()
}

fn is_host(host: &[u8]) -> bool {
    host.iter().all(|byte| is_plain(*byte)) || !host.contains(&b'@') && Authority::try_from(host).is_ok()
}

/// RFC 9112, 3.2: HTTP/1.1 has one Host; none has two, or one that names no host.
fn host(headers: &[Header<'_>], newer: bool) -> Result<(), Fault> {
    let mut hosts = values(headers, "host");
    match (hosts.next(), hosts.next()) {
        (None, _) if newer => Err(malformed("a request of HTTP/1.1 has a Host field")),
        (None, _) => Ok(()),
        (Some(host), None) if is_host(host) => Ok(()),
        (Some(_), None) => Err(malformed("the Host field names no host")),
        (Some(_), Some(_)) => Err(malformed("a request has one Host field")),
    }
}

/// How long the body is: to the connection's end where it comes in chunks (its answer closes the connection).
fn body(headers: &[Header<'_>], newer: bool) -> Result<u64, Fault> {
    let of_two = |name| {
        let mut values = values(headers, name);
        (values.next(), values.next())
    };
    match (of_two("content-length"), of_two("transfer-encoding")) {
        ((None, _), (None, _)) => Ok(0),
        ((Some(length), None), (None, _)) => {
            let digits = std::str::from_utf8(length).ok();
            let digits = digits.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let length = digits.and_then(|digits| digits.parse().ok());
            // hyper keeps the largest numbers for itself.
            length
                .filter(|length| *length <= u64::MAX >> 1)
                .ok_or(malformed("the Content-Length is no number of bytes"))
        }
        ((None, _), (Some(coding), None)) if newer && coding.eq_ignore_ascii_case(b"chunked") => Ok(u64::MAX),
        (_, (None, _)) => Err(malformed("a request has one Content-Length field")),
        ((None, _), _) if newer => Err(malformed("the transfer coding `chunked` alone is known")),
        ((None, _), _) => Err(malformed("a request of HTTP/1.0 has no Transfer-Encoding field")),
        // The two may tell a proxy in front of us another length than us (RFC 9112, 6.1).
        _ => Err(malformed(
            "Content-Length and Transfer-Encoding exclude each other",
        )),
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Screened<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.passable == 0 && !self.held.is_empty() {
                self.screen();
            }
            if self.pass(buffer) {
                return Poll::Ready(Ok(()));
            }
            let mut bytes = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut read))?;
            match (self.is_refused(), read.filled()) {
                // Not told as the end: hyper would cut short the answers on their way, and closes behind the last.
                (true, []) => return Poll::Pending,
                (false, []) => return Poll::Ready(Ok(())),
                // What is left unread when the connection is closed takes the answer away from who sent it.
                (true, _) => {}
                (false, bytes) => self.held.extend_from_slice(bytes),
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Screened<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(head: &str) -> Result<Option<u64>, Code> {
        look(head.as_bytes()).map_err(|(code, _)| code)
    }

    #[test]
    fn head_is_passed_with_its_body_and_a_part_waits() {
        let plain = "GET / HTTP/1.1\r\nhost: keyfence\r\n\r\n";
        assert_eq!(code(plain), Ok(Some(plain.len() as u64)));
        assert_eq!(code(&plain[..plain.len() - 2]), Ok(None));
        assert_eq!(code(&format!("{plain}GET")), Ok(Some(plain.len() as u64)));
        for accepted in [
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.1\r\nhost:\r\n\r\n",
            "GET / HTTP/1.1\nHOST: [::1]:9469\n\n",
            "OPTIONS * HTTP/1.1\r\nhost: 10.0.0.1:80\r\n\r\n",
            "GET /v1/authorize/a-b.c/ HTTP/1.1\r\nhost: a-1.example\r\n\r\n",
            "GET /a%20b?c=d HTTP/1.1\r\nhost: a:1\r\n\r\n",
        ] {
            assert_eq!(code(accepted), Ok(Some(accepted.len() as u64)), "{accepted:?}");
        }
        let sized = "PUT / HTTP/1.1\r\nhost: k\r\ncontent-length: 12\r\n\r\n";
        assert_eq!(code(sized), Ok(Some(sized.len() as u64 + 12)));
        let chunked = "PUT / HTTP/1.1\r\nhost: k\r\nTransfer-Encoding: Chunked\r\n\r\n";
        assert_eq!(code(chunked), Ok(Some(u64::MAX)));
    }

    #[test]
    fn what_rfc_9112_refuses_is_refused() {
        let sized = "content-length: 5\r\n";
        let chunked = "transfer-encoding: chunked\r\n";
        for fields in [
            "",
            "host: a\r\nhost: a\r\n",
            "host: a b\r\n",
            "host: you@keyfence\r\n",
            &format!("host: a\r\n{sized}{chunked}"),
            &format!("host: a\r\n{chunked}{sized}"),
            &format!("host: a\r\n{sized}{sized}"),
            &format!("host: a\r\n{chunked}{chunked}"),
            "host: a\r\ntransfer-encoding: gzip, chunked\r\n",
            "host: a\r\ncontent-length: +5\r\n",
            "host: a\r\ncontent-length: 5, 5\r\n",
            "host: a\r\ncontent-length: 18446744073709551615\r\n",
            "host: a\r\ncontent-length:\r\n",
            "host: a\r\nspace : b\r\n",
            "host: a\r\nfolded: b\r\n c\r\n",
        ] {
            let head = format!("PUT / HTTP/1.1\r\n{fields}\r\n");
            assert_eq!(code(&head), Err(Code::Malformed), "{head:?}");
        }
        for head in [
            "GET / HTTP/1.0\r\nhost: a\r\nhost: a\r\n\r\n",
            "GET / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\n",
            "GET http:// HTTP/1.1\r\nhost: a\r\n\r\n",
            "\u{16}\u{3}\u{1}",
        ] {
            assert_eq!(code(head), Err(Code::Malformed), "{head:?}");
        }
    }

    #[test]
    fn head_has_bounds() {
        let fields = |count: usize| format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "a: b\r\n".repeat(count));
        assert!(code(&fields(HEADERS_MAX - 1)).is_ok());
        assert_eq!(code(&fields(HEADERS_MAX)), Err(Code::HeadTooLarge));
        let long = "a".repeat(HEAD_BYTES_MAX);
        assert_eq!(code(&format!("GET /{long}")), Err(Code::TargetTooLong));
        let field = format!("GET / HTTP/1.1\r\nhost: a\r\nlong: {long}");
        assert_eq!(code(&field), Err(Code::HeadTooLarge));
    }
}
