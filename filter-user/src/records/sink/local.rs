//! Sinks of this host that take a line at a time: syslog's socket (RFC 5424), journald's, standard output.

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Local;

pub(super) const SYSLOG: &str = "/dev/log";
pub(super) const JOURNALD: &str = "/run/systemd/journal/socket";

/// How long a line may wait for its reader.
const PATIENCE: Duration = Duration::from_secs(1);
/// Facility 3 (daemon), severity 6 (informational).
const PRIORITY: u32 = 3 * 8 + 6;

/// A datagram socket's other end, connected when it is needed.
struct Socket {
    path: PathBuf,
    open: Option<UnixDatagram>,
}

impl Socket {
    fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    /// Whole, or not at all. Who has restarted has another socket at the path.
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let sent = self.try_send(message);
        if sent.is_ok() {
            return sent;
        }
        self.open = None;
        self.try_send(message).map_err(|error| {
            self.open = None;
            io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
        })
    }

    fn try_send(&mut self, message: &[u8]) -> io::Result<()> {
        if self.open.is_none() {
            let socket = UnixDatagram::unbound()?;
            socket.connect(&self.path)?;
            socket.set_write_timeout(Some(PATIENCE))?;
            self.open = Some(socket);
        }
        let socket = self
            .open
            .as_ref()
            .ok_or_else(|| io::Error::other("not connected"))?;
        socket.send(message).map(drop)
    }
}

pub(super) struct Syslog {
    socket: Socket,
    host: String,
}

impl Syslog {
    pub(super) fn new(path: PathBuf) -> Self {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = host.trim();
        Self {
            socket: Socket::new(path),
            // RFC 5424, 6.2.4: what is not known is a dash.
            host: if host.is_empty() { "-" } else { host }.to_owned(),
        }
    }
}

impl Local for Syslog {
    fn send(&mut self, line: &str) -> io::Result<()> {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ");
        let (host, process) = (&self.host, std::process::id());
        let message = format!(
            "<{PRIORITY}>1 {now} {host} keyfence {process} drops - {}",
            line.trim_end()
        );
        self.socket.send(message.as_bytes())
    }
}

pub(super) struct Journald {
    socket: Socket,
}

impl Journald {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            socket: Socket::new(path),
        }
    }
}

impl Local for Journald {
    fn send(&mut self, line: &str) -> io::Result<()> {
        // The journal's native protocol; a line has no newline inside.
        let message = format!(
            "MESSAGE={}\nPRIORITY=6\nSYSLOG_IDENTIFIER=keyfence\nKEYFENCE_LOG=drops\n",
            line.trim_end()
        );
        self.socket.send(message.as_bytes())
    }
}

pub(super) struct Stdout;

impl Local for Stdout {
    /// A pipe that can take anything takes a line, which is shorter than its page: nobody who does not read stops us.
    fn send(&mut self, line: &str) -> io::Result<()> {
        let output = io::stdout();
        let mut ready = [PollFd::new(output.as_fd(), PollFlags::POLLOUT)];
        let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
        if poll(&mut ready, patience)? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "standard output: nobody reads it",
            ));
        }
        let mut output = output.lock();
        output.write_all(line.as_bytes())?;
        output.flush()
    }
}
