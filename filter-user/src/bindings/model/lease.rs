//! Leases: when a binding ends, over wall-clock jumps, suspends and reboots.
//!
//! In one boot the time since boot decides. After a reboot what remains is the wall-clock end minus the later of now
//! and the store's last write: a clock that came up wrong gives nobody more than was left.

use serde::{Deserialize, Serialize};

use crate::bindings::clock::Now;

/// An end as the store holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredMoment {
    pub(crate) wall_ms: i64,
    pub(crate) boot_ms: i64,
    pub(crate) boot_id: u128,
}

/// A moment in this boot's time, and as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) wall_ms: i64,
    /// Since this boot; before it where negative.
    pub(crate) boot_ms: i64,
}

impl Moment {
    pub(crate) fn at(now: Now) -> Moment {
        Moment {
            wall_ms: now.wall_ms,
            boot_ms: now.boot_ms,
        }
    }

    pub(crate) fn after(now: Now, milliseconds: i64) -> Moment {
        Moment {
            wall_ms: now.wall_ms.saturating_add(milliseconds),
            boot_ms: now.boot_ms.saturating_add(milliseconds),
        }
    }

    pub(crate) fn stored(self, boot_id: u128) -> StoredMoment {
        StoredMoment {
            wall_ms: self.wall_ms,
            boot_ms: self.boot_ms,
            boot_id,
        }
    }
}

/// When the store was last written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LastWrite {
    pub(crate) wall_ms: i64,
    pub(crate) boot_ms: i64,
    pub(crate) boot_id: u128,
    /// By the wall clock, in any boot before that.
    pub(crate) earlier_ms: i64,
}

impl StoredMoment {
    /// In this boot's time.
    pub(crate) fn in_this_boot(self, now: Now, last: LastWrite) -> Moment {
        let boot_ms = if self.boot_id == now.boot_id {
            self.boot_ms
        } else {
            let remains = |write_ms: i64| self.wall_ms.saturating_sub(now.wall_ms.max(write_ms));
            let remains = match self.boot_id == last.boot_id {
                // Never more than was left by then, should the clock have been set since.
                true => remains(last.wall_ms).min(self.boot_ms.saturating_sub(last.boot_ms)),
                false => remains(last.wall_ms.max(last.earlier_ms)),
            };
            now.boot_ms.saturating_add(remains)
        };
        Moment {
            wall_ms: self.wall_ms,
            boot_ms,
        }
    }
}

/// What a publisher adds to the ends of its bindings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) hold_ms: i64,
    /// Of its last successful request, in this boot's time; `i64::MIN` is never.
    pub(crate) last_success_boot_ms: i64,
}

/// Where a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Running,
    Held,
    Over,
}

pub(crate) fn standing(end: Option<Moment>, hold: Hold, now_boot_ms: i64) -> Standing {
    match end {
        None => Standing::Running,
        Some(end) if now_boot_ms < end.boot_ms => Standing::Running,
        Some(end) if now_boot_ms < kernel_end(end, hold) => Standing::Held,
        Some(_) => Standing::Over,
    }
}

/// When the kernel ends it, in this boot's time: a success after the end leaves no hold.
pub(crate) fn kernel_end(end: Moment, hold: Hold) -> i64 {
    match hold.last_success_boot_ms >= end.boot_ms {
        true => end.boot_ms,
        false => end.boot_ms.saturating_add(hold.hold_ms),
    }
}

/// A moment of this boot in nanoseconds of CLOCK_MONOTONIC, which stops in suspend: right as of `now`.
pub(crate) fn monotonic(boot_ms: i64, now: Now) -> u64 {
    let ahead_ns = i128::from(boot_ms - now.boot_ms) * 1_000_000;
    let at = i128::from(now.monotonic_ns) + ahead_ns;
    // `u64::MAX` means no end: a real one stays below it. 0 is past, whatever the clock says.
    u64::try_from(at.max(0)).unwrap_or(u64::MAX).min(u64::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now {
        wall_ms: 1_000_000,
        boot_ms: 50_000,
        monotonic_ns: 40_000_000_000,
        boot_id: 1,
    };

    /// In the boot of `NOW`, whose wall clock was right.
    fn written(wall_ms: i64) -> LastWrite {
        LastWrite {
            wall_ms,
            boot_ms: NOW.boot_ms + wall_ms - NOW.wall_ms,
            boot_id: NOW.boot_id,
            earlier_ms: 0,
        }
    }

    #[test]
    fn in_one_boot_the_wall_clock_changes_nothing() {
        let stored = Moment::after(NOW, 3_600_000).stored(1);
        for wall_ms in [0, 1_000_000, i64::MAX] {
            let jumped = Now { wall_ms, ..NOW };
            assert_eq!(stored.in_this_boot(jumped, written(2_000_000)).boot_ms, 3_650_000);
        }
    }

    #[test]
    fn after_a_reboot_the_later_of_now_and_the_last_write_counts() {
        let stored = Moment::after(NOW, 3_600_000).stored(1);
        let booted = |wall_ms| Now {
            wall_ms,
            boot_ms: 5_000,
            monotonic_ns: 5_000_000_000,
            boot_id: 2,
        };
        // Ten minutes later by a right clock.
        assert_eq!(
            stored.in_this_boot(booted(1_600_000), written(1_200_000)).boot_ms,
            5_000 + 3_000_000
        );
        // A clock that came up at 1970: no more than was left at the last write.
        assert_eq!(
            stored.in_this_boot(booted(0), written(1_200_000)).boot_ms,
            5_000 + 3_400_000
        );
        // Long past.
        assert!(stored.in_this_boot(booted(9_000_000), written(1_000_000)).boot_ms < 5_000);
        // A clock that was set back before the last write: what was left by the time since boot counts.
        let back = LastWrite {
            wall_ms: 0,
            ..written(1_600_000)
        };
        assert_eq!(stored.in_this_boot(booted(0), back).boot_ms, 5_000 + 3_000_000);
        // Two boots with a wrong clock: the writes of the second do not make the first forgotten.
        let later = LastWrite {
            wall_ms: 10_000,
            boot_ms: 10_000,
            boot_id: 3,
            earlier_ms: 1_200_000,
        };
        assert_eq!(stored.in_this_boot(booted(0), later).boot_ms, 5_000 + 3_400_000);
    }

    #[test]
    fn hold_runs_until_a_success_after_the_end() {
        let end = Some(Moment {
            wall_ms: 0,
            boot_ms: 100,
        });
        let hold = |last| Hold {
            hold_ms: 50,
            last_success_boot_ms: last,
        };
        assert_eq!(standing(end, hold(i64::MIN), 99), Standing::Running);
        assert_eq!(standing(end, hold(99), 100), Standing::Held);
        assert_eq!(standing(end, hold(99), 150), Standing::Over);
        assert_eq!(standing(end, hold(120), 120), Standing::Over);
        assert_eq!(standing(None, hold(99), i64::MAX), Standing::Running);
    }

    #[test]
    fn kernel_time_is_ahead_as_far_as_the_end_is() {
        assert_eq!(monotonic(NOW.boot_ms + 1_000, NOW), 41_000_000_000);
        assert_eq!(monotonic(NOW.boot_ms - 60_000, NOW), 0);
        assert_eq!(monotonic(i64::MAX / 2, NOW), u64::MAX - 1);
    }
}
