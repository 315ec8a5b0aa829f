//! The clock of one capture: starts at its first stamp, follows the stamps, never goes back.

use filter_common::units::UNIT_SHIFT;

use crate::judge::{BASE_NS, ELAPSED_NS_MAX};
use crate::kernel::clock::monotonic_end;

const _: () = assert!(
    BASE_NS + ELAPSED_NS_MAX < 1 << (u64::BITS - UNIT_SHIFT),
    "bucket time would wrap"
);

#[derive(Debug, Default)]
pub(super) struct Clock {
    /// The first stamp, nanoseconds since 1970.
    origin: Option<u64>,
    elapsed: u64,
}

impl Clock {
    /// Takes a stamp in; true where it is the first, so that ends can be set by it.
    pub(super) fn follow(&mut self, stamp: Option<u64>) -> bool {
        let Some(stamp) = stamp else { return false };
        let first = self.origin.is_none();
        let origin = *self.origin.get_or_insert(stamp);
        let elapsed = stamp.saturating_sub(origin).min(ELAPSED_NS_MAX);
        self.elapsed = self.elapsed.max(elapsed);
        first
    }

    /// The filter's clock now.
    pub(super) fn now(&self) -> u64 {
        BASE_NS + self.elapsed
    }

    /// A wall-clock end by this clock; 0 is past. Before any stamp nothing has ended.
    pub(super) fn end(&self, end: jiff::Timestamp) -> u64 {
        let Some(origin) = self.origin else {
            return u64::MAX;
        };
        monotonic_end(end, i128::from(origin) - i128::from(BASE_NS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_follows_the_stamps_and_never_goes_back() {
        let mut clock = Clock::default();
        let mut at = |stamp: Option<u64>| {
            clock.follow(stamp);
            clock.now() - BASE_NS
        };
        assert_eq!(at(None), 0);
        assert_eq!(at(Some(5_000)), 0);
        assert_eq!(at(Some(7_000)), 2_000);
        assert_eq!(at(Some(6_000)), 2_000);
        assert_eq!(at(Some(1)), 2_000);
        assert_eq!(at(None), 2_000);
        assert_eq!(at(Some(8_000)), 3_000);
        assert_eq!(at(Some(u64::MAX)), ELAPSED_NS_MAX);
    }

    #[test]
    fn ends_are_told_by_the_captures_own_time() {
        let mut clock = Clock::default();
        let end = jiff::Timestamp::from_second(100).unwrap();
        assert_eq!(clock.end(end), u64::MAX);
        assert!(clock.follow(Some(90_000_000_000)));
        assert!(!clock.follow(Some(91_000_000_000)));
        assert_eq!(clock.end(end), BASE_NS + 10_000_000_000);
        assert_eq!(clock.end(jiff::Timestamp::from_second(80).unwrap()), 0);
        assert_eq!(clock.end(jiff::Timestamp::MIN), 0);
    }
}
