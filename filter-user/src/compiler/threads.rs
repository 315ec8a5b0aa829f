//! Two threads for what takes its time where there are a million.

use std::ops::Range;
use std::panic::resume_unwind;

/// From here on a second thread is worth its start.
const MANY: usize = 10_000;

/// One beside the other.
pub(super) fn both<A: Send, B>(one: impl FnOnce() -> A + Send, other: impl FnOnce() -> B) -> (A, B) {
    std::thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        (one.join().unwrap_or_else(|panic| resume_unwind(panic)), other)
    })
}

/// What is made of so many, in their order.
pub(super) fn in_halves<R: Send>(count: usize, make: impl Fn(Range<usize>) -> Vec<R> + Sync) -> Vec<R> {
    if count < MANY {
        return make(0..count);
    }
    let half = count / 2;
    let (behind, mut made) = both(|| make(half..count), || make(0..half));
    made.extend(behind);
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_made_in_their_order_on_two_threads() {
        for count in [0, 1, MANY, MANY + 1] {
            assert_eq!(
                in_halves(count, |part| part.collect()),
                (0..count).collect::<Vec<_>>()
            );
        }
    }
}
