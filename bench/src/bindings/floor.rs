//! What this machine itself takes for a request over a Unix socket: a server that reads one and writes an answer, and
//! looks at neither.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use anyhow::{Context as _, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use super::load;
use crate::figures::Percentiles;

/// As long as the daemon's.
const ANSWER: &[u8] = b"HTTP/1.1 403 Forbidden\r\nkeyfence-verdict: drop\r\nkeyfence-credential: sha256:\
    0000000000000000000000000000000000000000000000000000000000000000\r\nkeyfence-publisher: gateway\r\n\
    cache-control: no-store\r\ncontent-length: 0\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n";
/// A request is smaller.
const REQUEST_BYTES_MAX: usize = 4096;

/// CPU time of a request, and how long they took, under the load that authorize has.
pub(super) fn measure(
    path: &Path,
    bindings: usize,
    a_second: u32,
    seconds: u64,
) -> Result<(f64, Percentiles)> {
    // One of an earlier measurement.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).with_context(|| path.display().to_string())?;
    // A thread a connection: no waiting for many is cheaper. It ends with its connection.
    let server = thread::spawn(move || {
        let threads: Vec<_> = (0..load::GATEWAYS)
            .map_while(|_| listener.accept().ok())
            .map(|(stream, _)| thread::spawn(move || answer(stream)))
            .collect();
        let spent = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_default());
        spent.sum::<i64>()
    });
    let (taken, ms, _) = load::ask(path, bindings, a_second, seconds)?;
    let spent_us = server.join().unwrap_or_default();
    Ok((spent_us as f64 / taken.max(1) as f64, ms))
}

/// Microseconds of CPU time of this thread, once the other side has gone.
fn answer(mut stream: UnixStream) -> i64 {
    let mut bytes = [0; REQUEST_BYTES_MAX];
    while stream.read(&mut bytes).is_ok_and(|read| read > 0) && stream.write_all(ANSWER).is_ok() {}
    let usage = getrusage(UsageWho::RUSAGE_THREAD);
    usage.map_or(0, |usage| {
        (usage.user_time() + usage.system_time()).num_microseconds()
    })
}
