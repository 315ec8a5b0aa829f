//! Time and sizes as the filter counts them.
//!
//! The filter's clock is CLOCK_MONOTONIC in nanoseconds. Buckets count in sixteenths of a nanosecond, so that
//! high rates are not rounded away; 64 bits of them last 36 years from boot.

/// A moment of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Nanos(pub u64);

/// Bucket time units in a nanosecond, as a shift.
pub const UNIT_SHIFT: u32 = 4;
/// Bucket time units in a second.
pub const UNITS_PER_SECOND: u64 = 1_000_000_000 << UNIT_SHIFT;

impl Nanos {
    /// A moment that never comes: the end of a grant that has none.
    pub const NEVER: Nanos = Nanos(u64::MAX);

    /// The moment in bucket time units.
    #[inline(always)]
    pub fn units(self) -> u64 {
        self.0 << UNIT_SHIFT
    }
}
