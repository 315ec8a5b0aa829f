//! The kernel's side of the daemon: loads, attaches, pins, reads, test-runs. The only user of aya.
//!
//! One `Generation` is a judge with tables of its own; the entry program on the interfaces goes on to the one
//! in force. What is pinned outlives the daemon.
#![allow(
    unsafe_code,
    reason = "raw bpf(2) calls that aya does not offer; each with its reason"
)]

pub mod addresses;
pub mod attach;
pub mod capture;
pub mod choice;
pub mod clock;
pub mod devices;
pub mod edit;
pub mod ethtool;
pub mod events;
mod fill;
mod generations;
pub mod grown;
pub mod holder;
pub mod interfaces;
mod kept;
mod levels;
pub mod links;
pub mod load;
pub mod log;
mod memory;
pub mod pins;
mod raw;
pub mod records;
pub mod repin;
pub mod routes;
pub mod run;
mod shapes;
pub mod slots;
pub mod source_levels;
pub mod state;
pub mod succession;
pub mod switch;
pub mod tick;
mod torn;
pub mod witness;
pub mod written;

use std::fmt::Write as _;

pub use memory::fill;

/// The kernel program, built from `filter-ebpf`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("KEYFENCE_EBPF"));

fn bytes_of<T: Copy>(value: &T) -> &[u8] {
    // SAFETY: called for repr(C) structs of integers without padding (those of the maps, RunContext, xdp_md), alive as
    // long as the slice.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// Of memory: what a frame must fit into in most drivers.
pub fn page_bytes() -> u32 {
    // SAFETY: takes a number, and answers with one.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u32::try_from(bytes).unwrap_or(4096)
}

/// An error with all its causes: aya's own text leaves them out.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let line = error.to_string();
        if !text.contains(&line) {
            let _ = write!(text, ": {line}");
        }
        cause = error.source();
    }
    text
}
