//! The kernel side of `cargo xtask bench`, in no release: a driver that writes another source address into the frame
//! at each run and goes on to the program under test; a sender of such frames; programs that do nothing.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, xdp_action};
use aya_ebpf::btf_maps::{Array, PerCpuArray, ProgramArray};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;

/// The program under test.
#[btf_map]
static TARGET: ProgramArray<1> = ProgramArray::new();
/// The source addresses in the order of their use, in the wire's byte order; IPv4 in the first word.
#[btf_map]
static ADDRESSES: Array<[u32; 4], 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static POSITION: PerCpuArray<u32, 1> = PerCpuArray::new();

/// One less than the number of addresses, which is a power of two.
#[unsafe(no_mangle)]
static MASK: Global<u32> = Global::new(0);
/// The sum of the IPv4 header's 16-bit words but the checksum and the source, in the wire's byte order.
#[unsafe(no_mangle)]
static CHECKSUM_BASE: Global<u32> = Global::new(0);

const ETHERNET: usize = 14;
const CHECKSUM_V4: usize = ETHERNET + 10;
const SOURCE_V4: usize = ETHERNET + 12;
const SOURCE_V6: usize = ETHERNET + 8;

#[xdp(frags)]
pub fn drive_v4(ctx: XdpContext) -> u32 {
    match address_v4(&ctx) {
        Some(_) => go_on(&ctx),
        None => xdp_action::XDP_ABORTED,
    }
}

#[xdp(frags)]
pub fn drive_v6(ctx: XdpContext) -> u32 {
    match address_v6(&ctx) {
        Some(()) => go_on(&ctx),
        None => xdp_action::XDP_ABORTED,
    }
}

/// Sends the frame out of the device that a test run with live frames names.
#[xdp]
pub fn send_v4(ctx: XdpContext) -> u32 {
    match address_v4(&ctx).and_then(|address| checksum(&ctx, address)) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_ABORTED,
    }
}

#[xdp]
pub fn send_v6(ctx: XdpContext) -> u32 {
    match address_v6(&ctx) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_ABORTED,
    }
}

/// What an XDP program costs that does nothing.
#[xdp(frags)]
pub fn empty(_: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// Lets all through, for a device whose driver takes frames into XDP only while it has a program.
#[xdp(frags)]
pub fn pass(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// A store that need not be aligned, of one piece: what is written byte by byte cannot be read as a word at once, and no
/// frame that came off a wire makes a filter wait for that.
macro_rules! store {
    ($size:literal, $window:expr, $at:literal, $value:expr) => {
        // SAFETY: inside the frame, as its caller has checked; the verifier sees to it.
        unsafe {
            core::arch::asm!(
                concat!("*(", $size, " *)({window} + {at}) = {value}"),
                window = in(reg) $window,
                at = const $at,
                value = in(reg) $value,
                options(nostack),
            );
        }
    };
}

#[inline(always)]
fn address_v4(ctx: &XdpContext) -> Option<u32> {
    let [address, ..] = *next()?;
    let at = ctx.data() + SOURCE_V4;
    if at + size_of::<u32>() > ctx.data_end() {
        return None;
    }
    store!("u32", at, 0, address as u64);
    Some(address)
}

#[inline(always)]
fn address_v6(ctx: &XdpContext) -> Option<()> {
    let [first, second, third, fourth] = *next()?;
    let at = ctx.data() + SOURCE_V6;
    if at + size_of::<[u32; 4]>() > ctx.data_end() {
        return None;
    }
    store!("u64", at, 0, first as u64 | (second as u64) << 32);
    store!("u64", at, 8, third as u64 | (fourth as u64) << 32);
    Some(())
}

/// Of the IPv4 header: the stack drops a wrong one before any filter of its own sees it.
#[inline(always)]
fn checksum(ctx: &XdpContext, address: u32) -> Option<()> {
    let sum = CHECKSUM_BASE.load() + (address & 0xffff) + (address >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let at = ctx.data() + CHECKSUM_V4;
    if at + size_of::<u16>() > ctx.data_end() {
        return None;
    }
    // SAFETY: inside the frame, checked above.
    unsafe { core::ptr::write_unaligned(at as *mut u16, !sum as u16) };
    Some(())
}

#[inline(always)]
fn next() -> Option<&'static [u32; 4]> {
    let position = POSITION.get_ptr_mut(0)?;
    // SAFETY: this CPU's own value.
    let at = unsafe { *position };
    // SAFETY: as above.
    unsafe { *position = at.wrapping_add(1) };
    ADDRESSES.get(at & MASK.load())
}

#[inline(always)]
fn go_on(ctx: &XdpContext) -> u32 {
    // SAFETY: the map holds only programs of this type, put there by the loader.
    unsafe { TARGET.tail_call(ctx, 0) };
    xdp_action::XDP_ABORTED
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // A panic path that survives the optimizer is refused by the verifier: this is never run.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
