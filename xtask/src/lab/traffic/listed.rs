//! The listed client: HTTP requests at a steady rate, a connection each, over IPv4 and IPv6 in turns.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{Counter, PATIENCE, Report, Stop, report_while};
use crate::lab::names::{LISTED_REQUESTS_PER_SECOND, SERVER_V4, SERVER_V6, WEB_PORT};

/// The longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

#[derive(Default)]
struct Numbers {
    requests: Counter,
    answered_v4: Counter,
    answered_v6: Counter,
    microseconds: Counter,
}

pub(super) fn play(stop: &Stop) -> Result<()> {
    let numbers = Arc::new(Numbers::default());
    let servers: [IpAddr; 2] = [SERVER_V4.parse()?, SERVER_V6.parse()?];
    let work = {
        let (stop, numbers) = (stop.clone(), Arc::clone(&numbers));
        thread::spawn(move || work(servers, &stop, &numbers))
    };
    report_while(&[work], &|| {
        Report::of([
            ("requests", numbers.requests.value()),
            ("answered_v4", numbers.answered_v4.value()),
            ("answered_v6", numbers.answered_v6.value()),
            ("microseconds", numbers.microseconds.value()),
        ])
    })
}

fn work(servers: [IpAddr; 2], stop: &Stop, numbers: &Numbers) {
    let pause = Duration::from_secs(1) / u32::try_from(LISTED_REQUESTS_PER_SECOND).unwrap_or(1);
    for server in servers.into_iter().cycle() {
        if stop.is_set() {
            return;
        }
        let started = Instant::now();
        numbers.requests.add(1);
        if matches!(ask(server), Ok(200)) {
            let answered = if server.is_ipv4() {
                &numbers.answered_v4
            } else {
                &numbers.answered_v6
            };
            answered.add(1);
            let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
            numbers.microseconds.add(took);
        }
        thread::sleep(pause.saturating_sub(started.elapsed()));
    }
}

/// One request on a connection of its own: the status of its answer.
fn ask(server: IpAddr) -> io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(server, WEB_PORT), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    status(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn status(answer: &[u8]) -> Option<u16> {
    let text = str::from_utf8(answer.strip_prefix(b"HTTP/1.1 ")?.get(..3)?).ok()?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_read_from_the_first_line() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n\r\nhello"), Some(200));
        assert_eq!(status(b"HTTP/1.1 20"), None);
        assert_eq!(status(b""), None);
    }
}
