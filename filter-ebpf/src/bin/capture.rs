//! The program of one capture: behind the judge, hands on what the capture wants, and goes on to the next capture.
//!
//! It stands in the packets' way only while its capture runs, and goes with the process that reads it. It decides
//! nothing: what becomes of the packet stands on the desk already, and is what it ends with.
#![no_std]
#![no_main]
#![allow(
    internal_features,
    reason = "compare-exchange has no stable form on this target"
)]
#![feature(core_intrinsics)]

use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_NOEXIST, BPF_RB_NO_WAKEUP, xdp_action};
use aya_ebpf::btf_maps::{Array, PerCpuArray, PerCpuHashMap, ProgramArray, RingBuf};
use aya_ebpf::helpers::generated::{
    bpf_get_prandom_u32, bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_ringbuf_output,
    bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use filter_common::abi::Desk;
use filter_common::capture::{Counts, INTERFACES, SNAP_MAX, Taken, Wanted};
use filter_common::limit::{self, Effect};
use filter_common::units::Nanos;
use filter_common::verdict::Verdict;

use self::word::Word;

#[path = "../tables/used/word.rs"]
mod word;

/// The filter's own.
#[btf_map]
static DESK: PerCpuArray<Desk, 1> = PerCpuArray::new();
#[btf_map]
static WANTED: Array<Wanted, 1> = Array::new();
/// To the reader; the loader sets its size.
#[btf_map]
static FRAMES: RingBuf<u8, 4096> = RingBuf::new();
/// Where a CPU puts a frame together: too large for the kernel's own maps of CPUs. The loader makes as many as there are.
#[btf_map]
static SCRATCH: Array<Scratch, 1> = Array::new();
/// By interface.
#[btf_map]
static COUNTS: PerCpuHashMap<u32, Counts, INTERFACES> = PerCpuHashMap::new();
/// Of the rate: its word.
#[btf_map]
static BUCKET: Array<u64, 1> = Array::new();
/// The capture behind this one.
#[btf_map]
static NEXT: ProgramArray<1> = ProgramArray::new();

#[repr(C)]
struct Scratch {
    taken: Taken,
    frame: [u8; SNAP_MAX as usize],
}

#[xdp(frags)]
pub fn capture(ctx: XdpContext) -> u32 {
    let Some(desk) = DESK.get(0) else {
        return xdp_action::XDP_DROP;
    };
    let action = match desk.judgement.verdict {
        Verdict::Drop => xdp_action::XDP_DROP,
        Verdict::Pass | Verdict::Observe => xdp_action::XDP_PASS,
    };
    // Test runs are no packets.
    if desk.run_flags == 0 {
        take(&ctx, desk);
    }
    // SAFETY: the map holds only programs of this type, put there by the loader.
    unsafe { NEXT.tail_call(&ctx, 0) };
    action
}

#[inline(always)]
fn take(ctx: &XdpContext, desk: &Desk) {
    let interface = ctx.ingress_ifindex() as u32;
    let (Some(wanted), Some(counts)) = (WANTED.get(0), counts(interface)) else {
        return;
    };
    counts.judged += 1;
    if !wanted.takes(desk) {
        return;
    }
    counts.wanted += 1;
    // SAFETY: takes nothing, and gives a number.
    if wanted.sample != u32::MAX && unsafe { bpf_get_prandom_u32() } > wanted.sample {
        counts.unsampled += 1;
        return;
    }
    // SAFETY: as above.
    let time = unsafe { bpf_ktime_get_ns() };
    let Some(word) = BUCKET.get_ptr_mut(0) else {
        return;
    };
    if !limit::take(&Word(word), &wanted.limit, 1, Nanos(time), Effect::Commit) {
        counts.over += 1;
        return;
    }
    if !hand_on(ctx, interface, desk, wanted, time) {
        counts.lost += 1;
    }
}

/// Whether the reader's buffer had room.
#[inline(always)]
fn hand_on(ctx: &XdpContext, interface: u32, desk: &Desk, wanted: &Wanted, time: u64) -> bool {
    // SAFETY: takes nothing, and gives a number.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(scratch) = SCRATCH.get_ptr_mut(cpu) else {
        return false;
    };
    // SAFETY: the helper reads the context it is given.
    let length = unsafe { bpf_xdp_get_buff_len(ctx.ctx) } as u32;
    let captured = length.min(wanted.snap);
    if captured == 0 || captured > SNAP_MAX {
        return false;
    }
    let judgement = &desk.judgement;
    let taken = Taken {
        time,
        length,
        captured,
        interface,
        service: judgement.service,
        owner: judgement.owner,
        verdict: judgement.verdict as u8,
        reason: judgement.reason as u8,
        reserved: [0; 2],
    };
    // SAFETY: a value of this CPU's own; XDP does not interrupt itself.
    let head = unsafe { &raw mut (*scratch).taken };
    // SAFETY: as above.
    unsafe { head.write(taken) };
    // SAFETY: as above.
    let frame = unsafe { &raw mut (*scratch).frame };
    // SAFETY: the helper writes so many bytes to a buffer of at least as many, or fails past the frame's end.
    if unsafe { bpf_xdp_load_bytes(ctx.ctx, 0, frame.cast(), captured) } != 0 {
        return false;
    }
    let size = size_of::<Taken>() as u64 + u64::from(captured);
    let frames = (&raw const FRAMES).cast_mut().cast::<c_void>();
    // The reader looks by itself: waking it costs a hundred times as much.
    let flags = u64::from(BPF_RB_NO_WAKEUP);
    // SAFETY: the helper copies from the scratch, which has so many bytes.
    unsafe { bpf_ringbuf_output(frames, scratch.cast(), size, flags) == 0 }
}

/// This CPU's counts of an interface.
#[inline(always)]
fn counts(interface: u32) -> Option<&'static mut Counts> {
    let counts = match COUNTS.get_ptr_mut(interface) {
        Some(counts) => counts,
        None => {
            // Another CPU may have been first, or the table is full.
            let _ = COUNTS.insert(interface, Counts::default(), BPF_NOEXIST.into());
            COUNTS.get_ptr_mut(interface).or_else(|| COUNTS.get_ptr_mut(0))?
        }
    };
    // SAFETY: this CPU's own value, and this program does not interrupt itself.
    Some(unsafe { &mut *counts })
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // A panic path that survives the optimizer is refused by the verifier: this is never run.
    loop {}
}

/// The helper that reads the clock is for programs under the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
