//! What is used up and counted on words that all CPUs share: buckets, and what an owner had.

mod word;

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use filter_common::abi::OwnerState;
use filter_common::lookup::Used;
use filter_common::units::Nanos;

pub use self::word::Word;

/// An owner's state.
pub struct OwnUsed(pub(super) *mut OwnerState);

impl Used for OwnUsed {
    type Bucket = Word;

    #[inline(always)]
    fn bucket(&self, level: u32) -> Word {
        // SAFETY: a value of the map, of this type; only a field is addressed.
        let buckets = unsafe { &raw mut (*self.0).buckets };
        word(buckets, level)
    }

    #[inline(always)]
    fn count(&self, bytes: u32, now: Nanos) {
        // SAFETY: a value of the map, of this type; only fields are addressed, none is read here.
        let packets = unsafe { &raw mut (*self.0).packets };
        // SAFETY: as above.
        let total = unsafe { &raw mut (*self.0).bytes };
        // SAFETY: as above.
        let last_seen = unsafe { &raw mut (*self.0).last_seen };
        // SAFETY: an aligned word of a map value, which all CPUs add to atomically.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(packets, 1) };
        // SAFETY: as above.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(total, bytes as u64) };
        // SAFETY: an aligned word; whichever CPU writes last, the moment is right to a tick.
        unsafe { core::ptr::write_volatile(last_seen, now.0) };
    }
}

/// The bucket of a level: the offset is a constant in each arm, as the verifier wants it.
#[inline(always)]
pub(super) fn word(buckets: *mut [u64; 3], level: u32) -> Word {
    let first = buckets.cast::<u64>();
    match level {
        0 => Word(first),
        1 => Word(first.wrapping_add(1)),
        _ => Word(first.wrapping_add(2)),
    }
}
