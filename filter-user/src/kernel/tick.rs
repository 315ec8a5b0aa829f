//! The kernel's jiffies as a clock: where they are counted off the monotonic clock, a product and a sum give its last
//! tick, without the coarse clock's call.
//!
//! With high-resolution timers the kernel counts jiffies by the monotonic clock itself, so that the time at jiffy 0
//! holds from boot to shutdown: measured once, kept in `Meta`, and held against the clock at every load and look.

use std::thread;
use std::time::{Duration, Instant};

use filter_common::abi::ClockAnswer;
use nix::time::{ClockId, clock_getres};

use super::load::LoadError;
use super::run::{Runner, Xdp};

/// The constants of the program's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Jiffy {
    /// 0: jiffies are not asked.
    pub nanos: u64,
    /// The monotonic time at jiffy 0, wrapped.
    pub zero: u64,
}

/// Ticks that are watched for the moment at which one begins: so many that a stolen CPU is not late for all of them.
const TICKS_WATCHED: u32 = 16;
/// Looks, half a tick apart, before jiffies do not count as followed: a tick may be late where a CPU is stolen.
const TRIES: u32 = 16;

impl Jiffy {
    /// What a judge that is loaded reads, if it can be told by jiffies; `kept` as an earlier daemon measured it, or 0.
    pub fn of(judge: &Xdp, kept: u64) -> Result<Option<Self>, LoadError> {
        let Some(nanos) = nanos() else {
            return Ok(None);
        };
        let mut runner = Runner::default();
        if kept != 0 {
            let kept = Self { nanos, zero: kept };
            if kept.is_followed(&mut runner, judge)? {
                return Ok(Some(kept));
            }
        }
        // No jiffy begins before its time, so the least difference is where one had just begun.
        let until = Instant::now() + Duration::from_nanos(nanos) * TICKS_WATCHED;
        let mut zero = i64::MAX;
        while Instant::now() < until {
            let answer = read(&mut runner, judge)?;
            zero = zero.min(since(&answer, Self { nanos, zero: 0 }));
        }
        let found = Self {
            nanos,
            zero: zero.cast_unsigned(),
        };
        Ok(found.is_followed(&mut runner, judge)?.then_some(found))
    }

    /// Whether the monotonic clock is where jiffies say, to a tick.
    pub fn is_followed(self, runner: &mut Runner, judge: &Xdp) -> Result<bool, LoadError> {
        let tick = self.nanos.cast_signed();
        for tries in 1.. {
            let ahead = since(&read(runner, judge)?, self);
            if (-tick / 4..=tick + tick / 4).contains(&ahead) {
                return Ok(true);
            }
            if tries == TRIES {
                break;
            }
            thread::sleep(Duration::from_nanos(self.nanos / 2));
        }
        Ok(false)
    }
}

/// Whether the kernel counts them so that they may be asked at all.
pub fn are_usable() -> bool {
    nanos().is_some()
}

fn read(runner: &mut Runner, judge: &Xdp) -> Result<ClockAnswer, LoadError> {
    let answer = runner.clock(judge);
    answer.map_err(|error| LoadError::Object(format!("reading the program's clock: {error}")))
}

/// How far the monotonic clock is ahead of the last tick.
fn since(answer: &ClockAnswer, jiffy: Jiffy) -> i64 {
    let tick = answer.jiffies.wrapping_mul(jiffy.nanos).wrapping_add(jiffy.zero);
    answer.monotonic.wrapping_sub(tick).cast_signed()
}

/// Nanoseconds of a jiffy, where the kernel counts them by the monotonic clock.
fn nanos() -> Option<u64> {
    let resolution = |clock| {
        let time = clock_getres(clock).ok()?;
        u64::try_from(time.tv_sec() * 1_000_000_000 + time.tv_nsec()).ok()
    };
    // One nanosecond says that timers are of high resolution; else it is a tick.
    if resolution(ClockId::CLOCK_MONOTONIC)? != 1 {
        return None;
    }
    resolution(ClockId::CLOCK_MONOTONIC_COARSE).filter(|nanos| *nanos > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jiffies_that_begin_below_zero_are_told_from_the_clock() {
        let jiffy = Jiffy {
            nanos: 4_000_000,
            zero: 1_000_000u64.wrapping_sub(4_294_892_296 * 4_000_000),
        };
        let answer = ClockAnswer {
            jiffies: 4_294_892_296 + 10,
            monotonic: 41_500_000,
            ..ClockAnswer::default()
        };
        assert_eq!(since(&answer, jiffy), 500_000);
        let early = ClockAnswer {
            monotonic: 40_900_000,
            ..answer
        };
        assert_eq!(since(&early, jiffy), -100_000);
    }
}
