//! HTTP as small as tests need it: one request, one answer, over a Unix socket or TCP with a source of one's own.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::namespace::Namespace;

/// For what is let through, far more than it takes.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// Asks the daemon over its socket.
pub fn get(socket: &Path, path: &str) -> io::Result<Answer> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    exchange(stream, path)
}

/// A request of any kind to the daemon over its socket; a body is JSON, or lines of it.
pub(super) fn ask(socket: &Path, method: &str, path: &str, headers: &str, body: &str) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // HTTP/1.0: an answer of lines comes as it is, not in chunks.
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: test\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    answer(stream)
}

/// Asks a server from an address of this namespace.
pub fn fetch(from: &Namespace, source: IpAddr, to: SocketAddr) -> io::Result<Answer> {
    let stream = connect(from, source, to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    exchange(stream, "/")
}

/// Asks a server from within this namespace.
pub(super) fn get_over_tcp(from: &Namespace, to: SocketAddr, path: &str) -> io::Result<Answer> {
    let mut stream = from.inside(|| TcpStream::connect_timeout(&to, PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // As above.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n")?;
    answer(stream)
}

/// A connection from an address of this namespace, or `TimedOut`.
pub fn connect(
    from: &Namespace,
    source: IpAddr,
    to: SocketAddr,
    patience: Duration,
) -> io::Result<TcpStream> {
    from.inside(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        socket.connect_timeout(&to.into(), patience)?;
        Ok(socket.into())
    })
}

fn exchange(mut stream: impl Read + Write, path: &str) -> io::Result<Answer> {
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    )?;
    answer(stream)
}

fn answer(mut stream: impl Read) -> io::Result<Answer> {
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let broken = || io::Error::other(format!("no HTTP answer: {text}"));
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .ok_or_else(broken)?;
    Ok(Answer {
        status,
        body: body.to_owned(),
    })
}
