//! The filter's clock, as the kernel program reads it.

use filter_common::units::Nanos;
use nix::time::{ClockId, clock_gettime};

/// The coarse monotonic clock: moves with the tick, stops in suspend.
pub fn monotonic() -> Nanos {
    read(ClockId::CLOCK_MONOTONIC_COARSE)
}

/// The same clock between its ticks: never behind the coarse one.
pub fn precise() -> Nanos {
    read(ClockId::CLOCK_MONOTONIC)
}

/// The wall clock less the monotonic one, in nanoseconds: changes when the wall clock is set or the machine slept.
pub fn wall_offset() -> i128 {
    read(ClockId::CLOCK_REALTIME).0 as i128 - read(ClockId::CLOCK_MONOTONIC).0 as i128
}

fn read(clock: ClockId) -> Nanos {
    // These clocks exist on every Linux; an error would mean a kernel without them.
    let time = clock_gettime(clock).expect("the monotonic and real-time clocks can always be read");
    Nanos(time.tv_sec().cast_unsigned() * 1_000_000_000 + time.tv_nsec().cast_unsigned())
}

/// Whether a time service holds the wall clock, as the kernel was told (adjtimex(2)); `None` where it cannot be asked.
pub fn is_synchronised() -> Option<bool> {
    // SAFETY: numbers alone, for which zero is a value; no mode is a question.
    let mut told: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: a whole structure that is ours to be written.
    let state = unsafe { libc::adjtimex(&raw mut told) };
    (state >= 0).then_some(state != libc::TIME_ERROR && told.status & libc::STA_UNSYNC == 0)
}

/// The monotonic moment of a wall-clock end: 0 where it is past or before boot, `u64::MAX` (no end) where it lies
/// beyond what the kernel's clock can count, 584 years.
pub fn monotonic_end(end: jiff::Timestamp, wall_offset: i128) -> u64 {
    let nanos = end.as_nanosecond() - wall_offset;
    u64::try_from(nanos.max(0)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_that_is_past_has_ended_and_one_beyond_the_clock_never_comes() {
        let offset = 1_000_000_000;
        assert_eq!(monotonic_end(jiff::Timestamp::UNIX_EPOCH, offset), 0);
        assert_eq!(
            monotonic_end(jiff::Timestamp::constant(3, 0), offset),
            2_000_000_000
        );
        assert_eq!(monotonic_end(jiff::Timestamp::MAX, offset), u64::MAX);
    }
}
