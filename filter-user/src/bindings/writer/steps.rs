//! Where the time of a group went: others wait for it.

use std::time::{Duration, Instant};

/// A group that takes longer is told in the log, where it is asked for debugging.
const SLOW: Duration = Duration::from_millis(50);

/// How long the steps of a group took.
pub(super) struct Steps {
    last: Instant,
    took: Vec<Duration>,
}

impl Steps {
    pub(super) fn begin() -> Steps {
        Steps {
            last: Instant::now(),
            took: Vec::new(),
        }
    }

    pub(super) fn done(&mut self) {
        self.done_at(Instant::now());
    }

    pub(super) fn done_at(&mut self, now: Instant) {
        self.took.push(now.saturating_duration_since(self.last));
        self.last = now;
    }

    /// Others wait for a group: where the time went is worth a line.
    pub(super) fn tell_slow(&self, jobs: usize) {
        if self.took.iter().sum::<Duration>() > SLOW {
            let [disk, kernel, memory] = [0, 1, 2].map(|step| self.took.get(step));
            tracing::debug!(jobs, ?disk, ?kernel, ?memory, "a group of changes was slow");
        }
    }
}
