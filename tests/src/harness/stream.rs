//! Numbered UDP datagrams: who sent which, and which arrived.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use super::namespace::Namespace;

/// Room for more than any test sends, so that only the filter loses datagrams.
const RECEIVE_BYTES: usize = 64 << 20;
const LISTEN: Duration = Duration::from_millis(20);

/// Sends from one address.
pub struct Sender {
    socket: UdpSocket,
    sent: u64,
}

impl Sender {
    pub fn open(from: &Namespace, source: IpAddr, to: SocketAddr) -> Self {
        let socket = from.inside(|| {
            let socket = UdpSocket::bind((source, 0))?;
            socket.connect(to)?;
            Ok::<_, std::io::Error>(socket)
        });
        Self {
            socket: socket.unwrap_or_else(|error| panic!("{source} cannot send to {to}: {error}")),
            sent: 0,
        }
    }

    /// Sends the next number.
    pub fn send(&mut self) {
        let number = self.sent.to_be_bytes();
        self.socket.send(&number).expect("a datagram can be sent");
        self.sent += 1;
    }

    pub fn sent(&self) -> u64 {
        self.sent
    }
}

type Arrived = Arc<Mutex<BTreeMap<IpAddr, Vec<u64>>>>;

/// Takes what arrives at an address of the server, until it is dropped.
pub struct Sink {
    arrived: Arrived,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    pub fn open(namespace: &Namespace, address: SocketAddr) -> Self {
        let socket = namespace.inside(|| {
            let socket = UdpSocket::bind(address)?;
            setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BYTES)?;
            socket.set_read_timeout(Some(LISTEN))?;
            Ok::<_, std::io::Error>(socket)
        });
        let socket = socket.unwrap_or_else(|error| panic!("no socket at {address}: {error}"));
        let arrived = Arrived::default();
        let over = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (arrived, over) = (Arc::clone(&arrived), Arc::clone(&over));
            move || receive(&socket, &arrived, &over)
        });
        Self {
            arrived,
            over,
            thread: Some(thread),
        }
    }

    /// How many datagrams of a source have arrived.
    pub fn count(&self, source: IpAddr) -> u64 {
        let arrived = self.arrived.lock().expect("the receiver does not panic");
        arrived.get(&source).map_or(0, |numbers| numbers.len() as u64)
    }

    /// Their numbers, as they arrived.
    pub fn numbers(&self, source: IpAddr) -> Vec<u64> {
        let arrived = self.arrived.lock().expect("the receiver does not panic");
        arrived.get(&source).cloned().unwrap_or_default()
    }
}

fn receive(socket: &UdpSocket, arrived: &Arrived, over: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !over.load(Ordering::Relaxed) {
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                let number = buffer[..length]
                    .first_chunk()
                    .map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes));
                let mut arrived = arrived.lock().expect("no reader panics with the lock");
                arrived.entry(from.ip()).or_default().push(number);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => panic!("receiving failed: {error}"),
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic has been shown.
            let _ = thread.join();
        }
    }
}

/// Spaces packets evenly. After a pause of the machine's it goes on, and does not catch up: a burst would fill the
/// wire's queue, and what is lost there is no verdict.
pub struct Pace {
    next: Instant,
    interval: Duration,
}

impl Pace {
    /// Behind by more packets than these, the rest is forgone.
    const BEHIND_MAX: u32 = 16;

    pub fn per_second(packets: u32) -> Self {
        Self {
            next: Instant::now(),
            interval: Duration::from_secs(1) / packets,
        }
    }

    pub fn wait(&mut self) {
        self.next += self.interval;
        let now = Instant::now();
        match self.next.checked_duration_since(now) {
            Some(ahead) => thread::sleep(ahead),
            None => self.next = self.next.max(now - self.interval * Self::BEHIND_MAX),
        }
    }
}
