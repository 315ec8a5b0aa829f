//! A bucket's word, which all CPUs take from: the judge's buckets and a capture's, in the objects of both.

use core::intrinsics::{AtomicOrdering, atomic_cxchg};

use filter_common::limit::Bucket;

/// A bucket's word in a map value.
pub struct Word(pub *mut u64);

impl Bucket for Word {
    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: an aligned word of a live map value; other CPUs write it whole.
        unsafe { core::ptr::read_volatile(self.0) }
    }

    #[inline(always)]
    fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        // SAFETY: an aligned word of a live map value.
        let (seen, done) = unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(self.0, old, new)
        };
        if done { Ok(()) } else { Err(seen) }
    }
}
