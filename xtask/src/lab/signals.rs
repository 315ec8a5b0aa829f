//! Ctrl-C and its like, taken as a question asked between two steps: the lab always ends in its own order.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};

/// How soon a signal is seen.
const LOOK_EVERY: Duration = Duration::from_millis(50);

const STOPPING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

pub(super) struct Signals {
    descriptor: SignalFd,
}

impl Signals {
    /// From here on these signals stop nothing by themselves. To be called before any thread is started.
    pub(super) fn hold() -> Result<Self> {
        let set = set();
        set.thread_block().context("cannot block signals")?;
        let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .context("cannot wait for signals")?;
        Ok(Self { descriptor })
    }

    /// Whether one has come since this was asked last.
    pub(super) fn stopped(&self) -> bool {
        matches!(self.descriptor.read_signal(), Ok(Some(_)))
    }

    /// Waits; true as soon as a signal comes.
    pub(super) fn pause(&self, duration: Duration) -> bool {
        let end = Instant::now() + duration;
        loop {
            if self.stopped() {
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            thread::sleep(left.min(LOOK_EVERY));
        }
    }
}

fn set() -> SigSet {
    STOPPING.into_iter().collect()
}

/// For a program that is started from here: it takes its signals as it likes.
pub(super) fn release() -> Result<()> {
    set().thread_unblock().context("cannot unblock signals")
}
