//! Carries the kernel program's own log lines to the daemon's log, where `--kernel-log` switched them on.

use std::io;

use aya_log::EbpfLogger;
use thiserror::Error;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use super::load::Generation;

#[derive(Debug, Error)]
pub enum LogError {
    #[error("the kernel program's log cannot be read: {0}")]
    Reader(#[from] aya_log::Error),
    #[error("the kernel program's log cannot be waited for: {0}")]
    Wait(#[from] io::Error),
}

/// Reads one generation's lines until it is dropped.
pub struct Lines(JoinHandle<()>);

impl Lines {
    /// Needs the runtime of the daemon.
    pub fn follow(generation: &mut Generation) -> Result<Self, LogError> {
        let logger = EbpfLogger::init_with_logger(&mut generation.ebpf, ToTracing)?;
        // SAFETY: the logger owns its ring buffer's descriptor and names the same one as long as it lives.
        let registered = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) };
        let mut logger = registered.map_err(|error| LogError::Wait(error.into_parts().1))?;
        Ok(Self(tokio::spawn(async move {
            // An error means that the descriptor is gone, and the generation with it.
            while let Ok(mut ready) = logger.readable_mut().await {
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
        })))
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Shows them at the level of what was asked for: whoever switches them on wants to see them.
struct ToTracing;

impl log::Log for ToTracing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        tracing::info!(target: "keyfence::kernel", "{}", record.args());
    }

    fn flush(&self) {}
}
