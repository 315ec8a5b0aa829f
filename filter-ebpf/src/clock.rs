//! The monotonic clock to a tick. Jiffies are two loads, the coarse clock is a call that costs as much as a look-up.

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};
use filter_common::abi::{ClockAnswer, MAGIC};

/// Nanoseconds of a jiffy and the monotonic time at jiffy 0, wrapped, from the daemon that measured them; zeros where
/// jiffies do not follow the monotonic clock: then the coarse clock is asked. Then until when anything is observed that
/// is enforced: 0 is never, and no clock is asked.
#[unsafe(no_mangle)]
static mut JIFFY: [u64; 3] = [0; 3];

#[inline(always)]
pub fn now() -> u64 {
    let words = (&raw const JIFFY).cast::<u64>();
    // SAFETY: the first of three aligned words, which the daemon writes whole.
    let nanos = unsafe { core::ptr::read_volatile(words) };
    if nanos == 0 {
        return coarse();
    }
    // SAFETY: the second of the three: written before packets are judged here, and never changed after.
    let zero = unsafe { core::ptr::read_volatile(words.add(1)) };
    // SAFETY: a helper without arguments.
    let jiffies = unsafe { bpf_jiffies64() };
    jiffies.wrapping_mul(nanos).wrapping_add(zero)
}

/// By a call, whatever the constants are: for the entry program, which outlives the daemon that measured them.
#[inline(always)]
pub fn coarse() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Whether anything is observed that is enforced.
#[inline(always)]
pub fn observes_any() -> bool {
    let words = (&raw const JIFFY).cast::<u64>();
    // SAFETY: the last of three aligned words, which the daemon writes whole.
    let until = unsafe { core::ptr::read_volatile(words.add(2)) };
    until != 0
}

/// For the daemon, which holds the two against each other.
#[inline(always)]
pub fn answer() -> ClockAnswer {
    ClockAnswer {
        magic: MAGIC,
        // SAFETY: a helper without arguments.
        jiffies: unsafe { bpf_jiffies64() },
        // SAFETY: as above.
        monotonic: unsafe { bpf_ktime_get_ns() },
        now: now(),
    }
}
