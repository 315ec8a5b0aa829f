//! What the lab's machines do: one generator a machine, each a process of its own in its namespace (`lab-traffic`).
//! A generator counts what it did and what it saw, prints that as a line some times a second, and ends when its
//! standard input closes: then its last line is exact.

mod events;
mod greedy;
mod listed;
mod report;
mod stranger;

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt};

pub(super) use report::Report;

use super::names::{GUEST_INTERFACE, SERVER_V4, SERVER_V6};

/// So often that a second looks like one, whenever it is looked at.
const REPORT_EVERY: Duration = Duration::from_millis(20);
/// Long enough for a listed packet under load, short enough to look at.
const PATIENCE: Duration = Duration::from_secs(1);
/// Of a socket that must lose nothing itself while its process waits for a core.
const RECEIVE_BYTES: usize = 4 << 20;
/// The first datagram finds the neighbour: a flood meanwhile would overflow that queue, and packets be lost that
/// nobody judged.
const NEIGHBOUR_FIRST: Duration = Duration::from_millis(300);
/// How long answers may still come in at the end.
const LAST_ANSWERS: Duration = Duration::from_millis(300);
/// One batch of a flood.
const TICK: Duration = Duration::from_millis(1);

/// Who is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Role {
    /// HTTP requests within its rights.
    Listed,
    /// Datagrams far over its limit.
    Greedy,
    /// Connects and datagrams without any right.
    Stranger,
    /// The server of the datagrams: answers each.
    Events,
}

impl Role {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Listed => "listed",
            Self::Greedy => "greedy",
            Self::Stranger => "stranger",
            Self::Events => "events",
        }
    }
}

/// Plays the role until standard input closes.
pub(crate) fn play(role: Role) -> Result<()> {
    let stop = Stop::watch();
    match role {
        Role::Listed => listed::play(&stop),
        Role::Greedy => greedy::play(&stop),
        Role::Stranger => stranger::play(&stop),
        Role::Events => events::play(&stop),
    }
}

/// Whether it is time to end.
#[derive(Clone)]
struct Stop(Arc<AtomicBool>);

impl Stop {
    fn watch() -> Self {
        let stop = Self(Arc::default());
        let told = stop.clone();
        thread::spawn(move || {
            // Nobody writes there; what ends the wait is the end, or an error, which is an end too.
            _ = io::stdin().read(&mut [0]);
            told.0.store(true, Ordering::Relaxed);
        });
        stop
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that several threads add to.
#[derive(Default)]
struct Counter(AtomicU64);

impl Counter {
    fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Prints the numbers now and then until the generator is done, then a last time.
fn report_while(working: &[thread::JoinHandle<()>], numbers: &dyn Fn() -> Report) -> Result<()> {
    loop {
        let done = working.iter().all(thread::JoinHandle::is_finished);
        let mut output = io::stdout().lock();
        writeln!(output, "{}", numbers())?;
        output.flush()?;
        if done {
            return Ok(());
        }
        thread::sleep(REPORT_EVERY);
    }
}

/// A socket for datagrams to the server, which does not wait.
fn flood_socket(server: &str, port: u16) -> Result<UdpSocket> {
    let server = SocketAddr::new(server.parse()?, port);
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket
        .connect(server)
        .with_context(|| format!("no way to {server}"))?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BYTES)?;
    Ok(socket)
}

/// Sends datagrams at this rate over IPv4 and IPv6 in turns, and counts what is sent and what is answered.
fn flood(per_second: u64, port: u16, stop: &Stop, sent: &Counter, answered: &Counter) -> Result<()> {
    let sockets = [flood_socket(SERVER_V4, port)?, flood_socket(SERVER_V6, port)?];
    for socket in &sockets {
        sent.add(u64::from(socket.send(b"hello").is_ok()));
    }
    thread::sleep(NEIGHBOUR_FIRST);
    let started = Instant::now();
    let mut done = 0;
    while !stop.is_set() {
        let due = due(per_second, started.elapsed());
        // After a stall the rate goes on; what was missed is not made up for by a burst.
        done = done.max(due.saturating_sub(per_second / 20));
        while done < due {
            let [v4, v6] = &sockets;
            let socket = if done % 2 == 0 { v4 } else { v6 };
            sent.add(u64::from(socket.send(b"event").is_ok()));
            done += 1;
        }
        drain(&sockets, answered);
        thread::sleep(TICK);
    }
    let end = Instant::now() + LAST_ANSWERS;
    while Instant::now() < end {
        drain(&sockets, answered);
        thread::sleep(TICK);
    }
    Ok(())
}

/// How many are due after this time.
fn due(per_second: u64, elapsed: Duration) -> u64 {
    let nanoseconds = u128::from(per_second) * elapsed.as_nanos();
    u64::try_from(nanoseconds / 1_000_000_000).unwrap_or(u64::MAX)
}

fn drain(sockets: &[UdpSocket], answered: &Counter) {
    let mut answer = [0; 64];
    for socket in sockets {
        while socket.recv(&mut answer).is_ok() {
            answered.add(1);
        }
    }
}

/// What this machine's own end of the cable dropped before anybody judged it.
fn lost_on_the_cable() -> u64 {
    dropped(
        &fs::read_to_string("/proc/net/dev").unwrap_or_default(),
        GUEST_INTERFACE,
    )
}

/// The column of dropped outgoing packets in /proc/net/dev: after the name eight for what comes in, then bytes,
/// packets and errors.
fn dropped(text: &str, interface: &str) -> u64 {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let of = lines.into_iter().find(|(name, _)| name.trim() == interface);
    of.and_then(|(_, columns)| columns.split_whitespace().nth(11)?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_due_exactly() {
        assert_eq!(due(8_000, Duration::from_millis(1)), 8);
        assert_eq!(due(8_000, Duration::from_secs(3)), 24_000);
        assert_eq!(due(3, Duration::from_millis(999)), 2);
    }

    #[test]
    fn what_the_cable_dropped_is_read_from_its_line() {
        let text = "Inter-|   Receive | Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes\n    \
                    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  eth0: 1 2 3 4 5 6 7 8 9 10 11 42 13 14 15 16\n";
        assert_eq!(dropped(text, "eth0"), 42);
        assert_eq!(dropped(text, "eth1"), 0);
    }
}
