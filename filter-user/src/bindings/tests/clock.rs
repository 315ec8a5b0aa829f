//! Clocks that a test moves.

use std::sync::Mutex;

use crate::bindings::clock::{Clock, Now};

pub(super) struct FakeClock(pub(super) Mutex<Now>);

impl FakeClock {
    /// All clocks move on, as they do while the machine is awake.
    pub(super) fn pass(&self, seconds: i64) {
        let mut now = self.0.lock().unwrap();
        now.wall_ms += seconds * 1_000;
        now.boot_ms += seconds * 1_000;
        now.monotonic_ns += seconds.unsigned_abs() * 1_000_000_000;
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Now)) {
        change(&mut self.0.lock().unwrap());
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Now {
        *self.0.lock().unwrap()
    }
}

/// 2026-11-22T12:00:00Z, an hour after boot.
pub(super) const START: Now = Now {
    wall_ms: 1_795_348_800_000,
    boot_ms: 3_600_000,
    monotonic_ns: 3_600_000_000_000,
    boot_id: 1,
};
