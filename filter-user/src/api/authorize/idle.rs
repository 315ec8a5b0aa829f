//! When a gateway's connection has been idle for too long, or is to end: watched beside it, on the runtime, where timers
//! may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::api::connection::stopped;

/// Why a connection is to end.
pub(super) enum Ring {
    Idle,
    Stopping,
}

/// A connection as it is watched, until this is dropped.
pub(super) struct Idle {
    asked: Asked,
    _watching: JoinSet<()>,
}

/// When something was asked last.
#[derive(Clone)]
struct Asked {
    begun: Instant,
    after_ms: Arc<AtomicU64>,
}

impl Asked {
    /// Resolves when that is as long ago.
    async fn become_old(self, patience: Duration) {
        loop {
            let due = self.begun + Duration::from_millis(self.after_ms.load(Ordering::Relaxed)) + patience;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due.into()).await;
        }
    }
}

impl Idle {
    /// Resolves when the connection is to end.
    pub(super) fn watched(
        patience: Duration,
        mut shutdown: watch::Receiver<bool>,
        elsewhere: &Handle,
    ) -> (Idle, impl Future<Output = Ring>) {
        let asked = Asked {
            begun: Instant::now(),
            after_ms: Arc::default(),
        };
        let (ring, rung) = oneshot::channel();
        let over = asked.clone().become_old(patience);
        let mut watching = JoinSet::new();
        let watch = async move {
            let why = tokio::select! {
                () = over => Ring::Idle,
                () = stopped(&mut shutdown) => Ring::Stopping,
            };
            // A connection that has ended needs no end.
            let _ = ring.send(why);
        };
        watching.spawn_on(watch, elsewhere);
        let idle = Idle {
            asked,
            _watching: watching,
        };
        // A runtime that is gone watches nothing: the daemon is at its end.
        (idle, async { rung.await.unwrap_or(Ring::Stopping) })
    }

    pub(super) fn is_asked(&self, now: Instant) {
        let after = now.saturating_duration_since(self.asked.begun).as_millis();
        let after_ms = u64::try_from(after).unwrap_or(u64::MAX);
        self.asked.after_ms.store(after_ms, Ordering::Relaxed);
    }
}
