//! The clocks that leases are judged by, read together: the wall, the time since boot, the monotonic one.
//!
//! Everything else takes a `Now` as an argument.

use nix::time::{ClockId, clock_gettime};

/// One moment on each clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since 1970; may jump.
    pub wall_ms: i64,
    /// Milliseconds since boot, suspend included; never jumps.
    pub boot_ms: i64,
    /// Nanoseconds of CLOCK_MONOTONIC: the kernel program's time, which stops in suspend.
    pub monotonic_ns: u64,
    /// Which boot `boot_ms` counts from.
    pub boot_id: u128,
}

pub trait Clock: Send + Sync {
    fn now(&self) -> Now;
}

/// This host's clocks.
pub struct SystemClock {
    boot_id: u128,
}

impl SystemClock {
    /// Reads which boot this is.
    pub fn new() -> std::io::Result<SystemClock> {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        let boot_id = u128::from_str_radix(&digits, 16)
            .map_err(|_| std::io::Error::other("/proc/sys/kernel/random/boot_id holds no id"))?;
        Ok(SystemClock { boot_id })
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let milliseconds = |clock| {
            let time = read(clock);
            time.tv_sec() * 1_000 + time.tv_nsec() / 1_000_000
        };
        let monotonic = read(ClockId::CLOCK_MONOTONIC);
        Now {
            wall_ms: milliseconds(ClockId::CLOCK_REALTIME),
            boot_ms: milliseconds(ClockId::CLOCK_BOOTTIME),
            monotonic_ns: monotonic.tv_sec().cast_unsigned() * 1_000_000_000
                + monotonic.tv_nsec().cast_unsigned(),
            boot_id: self.boot_id,
        }
    }
}

fn read(clock: ClockId) -> nix::sys::time::TimeSpec {
    // An error would mean a kernel without these clocks.
    clock_gettime(clock).expect("the real-time, monotonic and boot clocks can always be read")
}
