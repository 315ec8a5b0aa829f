//! What the C library does only by a call that Rust holds for unsafe.
#![allow(unsafe_code, reason = "settings of the allocator; each with its reason")]

/// The heaps that threads share.
#[cfg(target_env = "gnu")]
const HEAPS_MAX: libc::c_int = 2;

/// Bounds the heaps of glibc's allocator, eight a CPU unless told otherwise. Each keeps what one load of the kernel
/// program took (20 MB), and loads run on whichever thread is free: a few dozen reloads would hold hundreds of MB.
/// Other C libraries have one heap.
pub(crate) fn bound_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes two numbers; called before there is a second thread.
    let bounded = unsafe { libc::mallopt(libc::M_ARENA_MAX, HEAPS_MAX) };
    #[cfg(target_env = "gnu")]
    if bounded == 0 {
        tracing::warn!("the allocator's heaps cannot be bounded: reloads may hold more memory");
    }
}
