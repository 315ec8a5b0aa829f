//! When a command that goes on by itself ends: at a signal, or when nobody reads its output any more.
//!
//! A signal is waited for, never handled in the midst of something: what is written is whole lines.

use std::os::fd::AsFd as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};

use super::exit::{Exit, Failure};

/// By convention of shells, with the signal's number.
const ENDED_BY_SIGNAL: i32 = 128;

pub(super) struct Stop {
    asked: Receiver<Signal>,
}

impl Stop {
    /// From here on signals are waited for; threads that are started later leave them to this.
    pub(super) fn listen() -> Result<Stop, Failure> {
        let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
        let failed = |error| Failure::new(Exit::Failed, format!("signals cannot be waited for: {error}"));
        signals.thread_block().map_err(failed)?;
        let (tell, asked) = sync_channel(1);
        std::thread::spawn(move || {
            while let Ok(signal) = signals.wait() {
                // The one before has not been heard: whoever asks twice means it.
                if tell.try_send(signal).is_err() {
                    std::process::exit(ENDED_BY_SIGNAL + signal as i32);
                }
            }
        });
        Ok(Stop { asked })
    }

    /// Whether a signal came within this time.
    pub(super) fn comes_within(&self, time: Duration) -> bool {
        !matches!(self.asked.recv_timeout(time), Err(RecvTimeoutError::Timeout))
    }
}

/// Whether the other end of standard output is closed: a pipe without a reader, a terminal that is gone.
pub(super) fn reader_left() -> bool {
    let output = std::io::stdout();
    let mut ends = [PollFd::new(output.as_fd(), PollFlags::empty())];
    let told = poll(&mut ends, PollTimeout::ZERO).is_ok_and(|count| count > 0);
    told && ends[0].any().unwrap_or(true)
}
