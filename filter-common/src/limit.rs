//! Token buckets: GCRA on one word, shared by all CPUs, taken from by compare-exchange.
//!
//! The word is the moment at which the bucket will be full again (the theoretical arrival time), in bucket
//! time units. A packet conforms while that moment lies no further ahead than the burst is worth. Never more
//! than rate x time + burst, over all CPUs together.

use crate::abi::Limit;
use crate::bounds::BUCKET_ATTEMPTS_MAX;
use crate::units::{Nanos, UNITS_PER_SECOND};

/// One bucket's word, wherever it lives.
pub trait Bucket {
    fn load(&self) -> u64;
    /// Stores `new` if the word is still `old`; else gives the word as it is.
    fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64>;
}

/// Whether a decision may change anything: a dry run takes no token and counts nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Commit,
    Dry,
}

/// Takes `amount` tokens from the bucket, or refuses and takes none. No limit admits everything.
#[inline(always)]
pub fn take<B: Bucket>(bucket: &B, limit: &Limit, amount: u32, now: Nanos, effect: Effect) -> bool {
    if limit.cost == 0 {
        return true;
    }
    let price = price(limit, amount);
    let now = now.units();
    let mut full_at = bucket.load();
    for _ in 0..BUCKET_ATTEMPTS_MAX {
        let start = if full_at > now { full_at } else { now };
        let new = start + price;
        if new - now > limit.span {
            return false;
        }
        if matches!(effect, Effect::Dry) {
            return true;
        }
        match bucket.compare_exchange(full_at, new) {
            Ok(()) => return true,
            Err(seen) => full_at = seen,
        }
    }
    // Other CPUs won each time: refusing keeps the promise that a limit is never exceeded.
    false
}

/// What `amount` tokens cost in bucket time, rounded up: a limit is never looser than written.
#[inline(always)]
fn price(limit: &Limit, amount: u32) -> u64 {
    let shift = limit.shift & 63;
    (limit.cost * amount as u64 + ((1 << shift) - 1)) >> shift
}

/// The tokens that a bucket holds at a moment, at most the burst.
pub fn level(limit: &Limit, word: u64, now: Nanos) -> u64 {
    if limit.cost == 0 {
        return 0;
    }
    let debt = word.saturating_sub(now.units());
    let left = limit.span.saturating_sub(debt) as u128;
    ((left << limit.shift) / limit.cost as u128) as u64
}

/// A bucket's word under another limit: tokens used stay used, up to the new burst.
pub fn carry(old: &Limit, new: &Limit, word: u64, now: Nanos) -> u64 {
    let debt = word.saturating_sub(now.units()).min(old.span);
    if debt == 0 || old.cost == 0 || new.cost == 0 {
        return 0;
    }
    let used = ((debt as u128) << old.shift).div_ceil(old.cost as u128);
    let debt = (used * new.cost as u128).div_ceil(1 << new.shift);
    now.units() + u64::try_from(debt).unwrap_or(u64::MAX).min(new.span)
}

/// Costs that would not leave room for a packet's bytes are not scaled up any more.
const COST_SCALED_MAX: u128 = 1 << 40;
/// More fractional bits would gain nothing.
const SHIFT_MAX: u32 = 40;

/// What prices that were rounded up may owe together before a packet is refused for it: else of packets that come at
/// exactly the rate and are as large as the burst, every second one would be. Less than a byte.
const ROUNDED_MAX: u64 = 256;

impl Limit {
    /// No limit.
    pub const NONE: Limit = Limit {
        cost: 0,
        span: 0,
        shift: 0,
        reserved: 0,
    };

    /// Packets or connections: taken one by one, so a price is a whole number of units and bursts are exact.
    /// `None` where nothing is admitted at all, or the burst takes longer than bucket time lasts: the policy's
    /// bounds exclude both.
    pub fn of_tokens(rate: u64, per_seconds: u32, burst: u64) -> Option<Limit> {
        Self::scaled(rate, per_seconds, burst, 0)
    }

    /// Bytes: many to a packet, so a price that is no whole number of units gains fractional bits.
    pub fn of_bytes(rate: u64, per_seconds: u32, burst: u64) -> Option<Limit> {
        let second_units = UNITS_PER_SECOND as u128 * per_seconds as u128;
        let mut shift = 0;
        while rate != 0
            && !(second_units << shift).is_multiple_of(rate as u128)
            && (second_units << (shift + 1)) / (rate as u128) < COST_SCALED_MAX
            && shift < SHIFT_MAX
        {
            shift += 1;
        }
        let limit = Self::scaled(rate, per_seconds, burst, shift)?;
        if (second_units << shift).is_multiple_of(rate as u128) {
            return Some(limit);
        }
        let byte = limit.cost >> shift;
        Some(Limit {
            span: limit.span + byte.saturating_sub(2).min(ROUNDED_MAX),
            ..limit
        })
    }

    fn scaled(rate: u64, per_seconds: u32, burst: u64, shift: u32) -> Option<Limit> {
        if rate == 0 || burst == 0 {
            return None;
        }
        let second_units = UNITS_PER_SECOND as u128 * per_seconds as u128;
        let cost = (second_units << shift).div_ceil(rate as u128);
        let span = (cost * burst as u128).div_ceil(1 << shift);
        Some(Limit {
            cost: u64::try_from(cost).ok()?,
            span: u64::try_from(span).ok().filter(|span| *span < 1 << 62)?,
            shift,
            reserved: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    struct Word(Cell<u64>);
    impl Bucket for Word {
        fn load(&self) -> u64 {
            self.0.get()
        }
        fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
            if self.0.get() == old {
                self.0.set(new);
                return Ok(());
            }
            Err(self.0.get())
        }
    }

    const START: Nanos = Nanos(1_000_000_000);

    fn admitted(limit: &Limit, word: &Word, offers: u64, amount: u32, now: Nanos) -> u64 {
        (0..offers)
            .filter(|_| take(word, limit, amount, now, Effect::Commit))
            .count() as u64
    }

    #[test]
    fn packets_as_large_as_the_burst_pass_at_exactly_the_rate() {
        for (rate, size, gap) in [
            (1428, 1428, 1_000_000_000),
            (1500, 1428, 952_000_000),
            (7000, 1428, 204_000_000),
            (60_000, 1428, 23_800_000),
            (1_000_000, 1500, 1_500_000),
        ] {
            let limit = Limit::of_bytes(rate, 1, size).unwrap();
            let word = Word(Cell::new(0));
            let passed = (0..1000).filter(|number| {
                let now = Nanos(START.0 + number * gap);
                let passes = take(&word, &limit, size as u32, now, Effect::Commit);
                let more = passes && take(&word, &limit, 1, now, Effect::Dry);
                assert!(!more, "not a byte more at {rate}");
                passes
            });
            let passed = passed.count();
            assert!(passed >= 990, "{passed} of 1000 at {rate}");
        }
    }

    #[test]
    fn a_full_bucket_admits_its_burst_and_not_one_more() {
        for (rate, per, burst) in [
            (1, 3600, 1),
            (10, 1, 3),
            (1000, 1, 2000),
            (3_000_000, 1, 77),
            (7, 60, 5),
        ] {
            let limit = Limit::of_tokens(rate, per, burst).unwrap();
            assert_eq!(
                admitted(&limit, &Word(Cell::new(0)), burst + 50, 1, START),
                burst,
                "{rate}/{per} {burst}"
            );
        }
    }

    #[test]
    fn a_dry_run_takes_nothing() {
        let limit = Limit::of_tokens(1, 1, 1).unwrap();
        let word = Word(Cell::new(0));
        assert!(take(&word, &limit, 1, START, Effect::Dry));
        assert!(take(&word, &limit, 1, START, Effect::Commit));
        assert!(!take(&word, &limit, 1, START, Effect::Dry));
    }

    #[test]
    fn no_limit_admits_everything() {
        let word = Word(Cell::new(u64::MAX));
        assert!(take(&word, &Limit::NONE, u32::MAX, START, Effect::Commit));
    }

    #[test]
    fn more_than_the_burst_at_once_never_conforms() {
        let limit = Limit::of_bytes(1_000_000, 1, 1500).unwrap();
        let word = Word(Cell::new(0));
        assert!(!take(&word, &limit, 1501, START, Effect::Commit));
        assert!(take(&word, &limit, 1500, START, Effect::Commit));
    }

    #[test]
    fn a_changed_limit_keeps_what_was_used_up_to_the_new_burst() {
        let old = Limit::of_tokens(10, 1, 100).unwrap();
        let new = Limit::of_tokens(1000, 1, 50).unwrap();
        let word = Word(Cell::new(0));
        assert_eq!(admitted(&old, &word, 30, 1, START), 30);
        let carried = carry(&old, &new, word.load(), START);
        assert_eq!(level(&new, carried, START), 20);
        assert_eq!(admitted(&old, &word, 60, 1, START), 60);
        assert_eq!(level(&new, carry(&old, &new, word.load(), START), START), 0);
    }

    /// Other CPUs win so often.
    struct Contended(Cell<u32>);
    impl Bucket for Contended {
        fn load(&self) -> u64 {
            0
        }
        fn compare_exchange(&self, _: u64, _: u64) -> Result<(), u64> {
            let left = self.0.get();
            self.0.set(left.saturating_sub(1));
            if left == 0 { Ok(()) } else { Err(0) }
        }
    }

    #[test]
    fn who_loses_four_times_is_refused() {
        let limit = Limit::of_tokens(10, 1, 10).unwrap();
        assert!(take(&Contended(Cell::new(3)), &limit, 1, START, Effect::Commit));
        assert!(!take(&Contended(Cell::new(4)), &limit, 1, START, Effect::Commit));
    }

    #[test]
    fn a_level_is_between_nothing_and_the_burst() {
        let bytes = Limit::of_bytes(7, 60, 100).unwrap();
        assert!(bytes.shift > 0);
        for limit in [Limit::of_tokens(10, 1, 100).unwrap(), bytes] {
            assert_eq!(level(&limit, 0, START), 100);
            assert_eq!(level(&limit, u64::MAX, START), 0);
            let word = Word(Cell::new(0));
            assert!(take(&word, &limit, 30, START, Effect::Commit));
            assert_eq!(level(&limit, word.load(), START), 70);
        }
        assert_eq!(level(&Limit::NONE, 0, START), 0);
    }

    #[test]
    fn a_bucket_under_no_limit_or_that_is_full_carries_nothing() {
        let limit = Limit::of_tokens(10, 1, 100).unwrap();
        let bytes = Limit::of_bytes(7, 60, 100).unwrap();
        let word = Word(Cell::new(0));
        assert_eq!(carry(&limit, &bytes, 0, START), 0);
        assert_eq!(carry(&limit, &bytes, START.units(), START), 0);
        assert_eq!(admitted(&limit, &word, 30, 1, START), 30);
        assert_eq!(carry(&limit, &Limit::NONE, word.load(), START), 0);
        assert_eq!(carry(&Limit::NONE, &limit, word.load(), START), 0);
        // To a limit of bytes and back: what a price is rounded up by counts as one more token used, once.
        let there = carry(&limit, &bytes, word.load(), START);
        assert_eq!(there, START.units() + price(&bytes, 30));
        assert_eq!(level(&limit, carry(&bytes, &limit, there, START), START), 69);
        assert_eq!(
            carry(&limit, &bytes, START.units() + 1, START),
            START.units() + price(&bytes, 1)
        );
        let new = Limit { span: 99, ..limit };
        assert_eq!(carry(&limit, &new, word.load(), START), START.units() + 99);
    }

    /// Worked out by hand: a second is 16 x 10^9 units.
    #[test]
    fn limits_are_the_numbers_that_they_are() {
        let limit = |cost, span, shift| {
            Some(Limit {
                cost,
                span,
                shift,
                reserved: 0,
            })
        };
        assert_eq!(Limit::of_tokens(10, 1, 3), limit(1_600_000_000, 4_800_000_000, 0));
        assert_eq!(Limit::of_tokens(3, 1, 2), limit(5_333_333_334, 10_666_666_668, 0));
        assert_eq!(Limit::of_bytes(1_000_000, 1, 1500), limit(16_000, 24_000_000, 0));
        assert_eq!(
            Limit::of_bytes(1, 60, 2),
            limit(960_000_000_000, 1_920_000_000_000, 0)
        );
        // 16e9 x 2^7 / 3 is the last below 2^40; 16e9 x 2^40 / 10^12 x 1.1 stops at 40 bits.
        assert_eq!(
            Limit::of_bytes(3, 1, 10),
            limit(682_666_666_667, 53_333_333_334 + 256, 7)
        );
        assert_eq!(
            Limit::of_bytes(1_100_000_000_000, 1, 1),
            limit(15_992_896_405, 1, 40)
        );
        // 145 units a byte: 143 may be owed for rounding. A price that is whole with a bit more owes nothing.
        assert_eq!(
            Limit::of_bytes(110_000_000, 1, 1),
            limit(624722515782, 146 + 143, 32)
        );
        assert_eq!(Limit::of_bytes(16_384, 1, 1), limit(1_953_125, 976_563, 1));
        assert_eq!(Limit::NONE, Limit::default());
        for limit in [
            Limit::of_tokens(0, 1, 1),
            Limit::of_tokens(1, 1, 0),
            Limit::of_bytes(0, 1, 1),
        ] {
            assert_eq!(limit, None);
        }
        // 2^62 units are too long, half of it is not: 5^9 tokens a second cost 2^13 units each.
        assert_eq!(Limit::of_tokens(1_953_125, 1, 1 << 49), None);
        assert_eq!(
            Limit::of_tokens(1_953_125, 1, 1 << 48),
            limit(1 << 13, 1 << 61, 0)
        );
        assert_eq!(Limit::of_tokens(1_953_125, 1, 3 << 48), None);
    }

    proptest! {
        /// Never more than rate x time + burst; at least 99 % of what conforms once the burst is spent.
        #[test]
        fn the_rate_is_held(rate in 1u64..2_000_000, per in prop::sample::select(vec![1u32, 60, 3600]),
                            burst in 1u64..1000, steps in prop::collection::vec(1u64..3_000_000_000, 1..200)) {
            let limit = Limit::of_tokens(rate, per, burst).unwrap();
            let word = Word(Cell::new(0));
            let mut now = START;
            let mut passed = 0u128;
            let mut exact = burst as u128 * (per as u128 * 1_000_000_000);
            let full = exact;
            for step in steps {
                let admitted = admitted(&limit, &word, burst + 1, 1, now) as u128;
                // The exact level, in tokens x nanoseconds of the period.
                prop_assert!(admitted * (per as u128 * 1_000_000_000) <= exact, "more than there is");
                let due = exact / (per as u128 * 1_000_000_000);
                prop_assert!(admitted + 1 >= due * 99 / 100, "{admitted} of {due}");
                exact -= admitted * (per as u128 * 1_000_000_000);
                passed += admitted;
                exact = full.min(exact + step as u128 * rate as u128);
                now.0 += step;
            }
            prop_assert!(passed >= burst as u128);
        }

        /// Rates of bytes that are no whole number of units are rounded to the strict side by under 0.1 %.
        #[test]
        fn byte_prices_are_close_and_never_cheap(rate in 1u64..1_000_000_000_000, amount in 1u32..200_000) {
            if let Some(limit) = Limit::of_bytes(rate, 1, 1 << 20) {
                let exact = UNITS_PER_SECOND as f64 * amount as f64 / rate as f64;
                let got = price(&limit, amount) as f64;
                prop_assert!(got >= exact * 0.999_999_9 && got <= exact * 1.000_1 + 1.0, "{got} for {exact}");
            }
        }
    }
}
