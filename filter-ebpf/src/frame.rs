//! The only packet pointers: the frame's bytes, and the run context that stands in front of them in a test run.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::helpers::generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use filter_common::abi::{ClockAnswer, Desk, MAGIC, RunAnswer, RunContext, run_flags};
use filter_common::bounds::HEADER_OFFSET_MAX;
use filter_common::parse::{self, Bytes, Packet, PacketBytes, ipv6, transport};
use filter_common::verdict::Judgement;

use crate::clock;
use crate::tables::desk;

/// Test runs come from the loopback device, to which the filter is never attached; its number is always 1.
const LOOPBACK_INDEX: usize = 1;

/// The bytes of one frame, in one buffer or in several.
pub struct Frame {
    ctx: *mut xdp_md,
    data: usize,
    data_end: usize,
}

impl Frame {
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        Self {
            ctx: ctx.ctx,
            data: ctx.data(),
            data_end: ctx.data_end(),
        }
    }

    #[inline(always)]
    fn linear(&self) -> u32 {
        (self.data_end - self.data) as u32
    }
}

/// Bytes in the frame's first buffer, or in the scratch buffer.
pub struct Window(usize);

/// A load that need not be aligned: the target has none that the compiler knows of, the kernels have.
macro_rules! load {
    ($size:literal, $window:expr, $at:expr) => {{
        let value: u64;
        // SAFETY: the bytes are inside the window, whose length was checked where it was made; the verifier sees to it.
        unsafe {
            core::arch::asm!(
                concat!("{value} = *(", $size, " *)({window} + {at})"),
                value = out(reg) value,
                window = in(reg) $window.0,
                at = const $at,
                options(pure, readonly, nostack),
            );
        };
        value
    }};
}

impl Bytes for Window {
    #[inline(always)]
    fn u8<const AT: usize>(&self) -> u8 {
        load!("u8", self, AT) as u8
    }
    #[inline(always)]
    fn u16<const AT: usize>(&self) -> u16 {
        u16::from_be(load!("u16", self, AT) as u16)
    }
    #[inline(always)]
    fn u32<const AT: usize>(&self) -> u32 {
        u32::from_be(load!("u32", self, AT) as u32)
    }
    #[inline(always)]
    fn u64<const AT: usize>(&self) -> u64 {
        u64::from_be(load!("u64", self, AT))
    }
}

impl PacketBytes for Frame {
    type Bytes<'a> = Window;

    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: u32) -> Option<Window> {
        // A bound that the verifier can follow; no header lies beyond.
        if offset > HEADER_OFFSET_MAX {
            return None;
        }
        let start = self.data + offset as usize;
        if start + N <= self.data_end {
            return Some(Window(start));
        }
        let at = beyond::<N>(self.ctx, offset);
        if at.is_null() {
            return None;
        }
        Some(Window(at as usize))
    }

    #[inline(always)]
    fn first_bytes<const N: usize>(&self) -> Option<Window> {
        if self.data + N <= self.data_end {
            Some(Window(self.data))
        } else {
            None
        }
    }

    #[inline(always)]
    fn first_holds(&self, length: u32) -> bool {
        length <= self.linear()
    }

    #[inline(always)]
    fn holds(&self, length: u32) -> bool {
        length <= self.linear() || length <= self.length()
    }

    #[inline(always)]
    fn by_layers(&self, _: &mut Packet) -> parse::Frame {
        // The packet stands on the desk.
        parse::Frame::from_number(parse_by_layers(self.ctx))
    }

    #[inline(always)]
    fn ipv6_extension(&self, at: u32, end: u32, next: u8) -> u64 {
        ipv6_extension(self.ctx, at, end, next as u32)
    }

    #[inline(always)]
    fn ipv6_transport(&self, at: u32, end: u32, _: &mut Packet) -> bool {
        // The packet stands on the desk.
        ipv6_transport(self.ctx, at, end) != 0
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: the helper reads the context it is given.
        unsafe { bpf_xdp_get_buff_len(self.ctx) as u32 }
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn parse_by_layers(ctx: *mut xdp_md) -> u32 {
    let Some(desk) = desk() else {
        return parse::Frame::Malformed as u32;
    };
    parse::by_layers(&Frame::new(&XdpContext::new(ctx)), &mut desk.packet) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ipv6_extension(ctx: *mut xdp_md, at: u32, end: u32, next: u32) -> u64 {
    ipv6::extension(&Frame::new(&XdpContext::new(ctx)), at, end, next as u8)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ipv6_transport(ctx: *mut xdp_md, at: u32, end: u32) -> u32 {
    let Some(desk) = desk() else { return 0 };
    u32::from(transport::parse(&Frame::new(&XdpContext::new(ctx)), at, end, &mut desk.packet).is_some())
}

/// Where headers that lie in a later buffer of the frame are copied to, a CPU's own.
#[btf_map]
static SCRATCH: PerCpuArray<[u8; SCRATCH_LENGTH], 1> = PerCpuArray::new();
const SCRATCH_LENGTH: usize = 64;

/// `N` bytes past the frame's first buffer, or null where the frame is shorter. Apart from `read`, so that the
/// common path keeps its registers and the stack holds no copy.
#[inline(never)]
fn beyond<const N: usize>(ctx: *mut xdp_md, offset: u32) -> *const u8 {
    const { assert!(N <= SCRATCH_LENGTH) };
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return core::ptr::null();
    };
    // SAFETY: the helper writes N bytes to a buffer of at least N, or fails past the frame's end.
    let failed = unsafe { bpf_xdp_load_bytes(ctx, offset, scratch.cast(), N as u32) };
    if failed == 0 {
        scratch.cast()
    } else {
        core::ptr::null()
    }
}

/// Set in the desk's flags where this is a test run, whose caller handed in what stands there; no caller's flag.
const IS_RUN: u32 = 1 << 31;

/// Lays on the desk what the caller of a test run handed in; for a packet, what says that nothing was.
#[inline(always)]
pub fn take_run_context(ctx: &XdpContext, desk: &mut Desk) {
    desk.run_flags = 0;
    desk.run_now = 0;
    if ctx.metadata() + size_of::<RunContext>() <= ctx.metadata_end() {
        run_context(ctx.ctx);
    }
}

/// Apart, so that packets, which have none, keep their registers.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn run_context(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(desk) = desk() else { return 0 };
    let start = ctx.metadata();
    let fits = start + size_of::<RunContext>() <= ctx.metadata_end();
    if !fits || ctx.ingress_ifindex() != LOOPBACK_INDEX {
        return 0;
    }
    let context = start as *const RunContext;
    // SAFETY: inside data_meta..data, checked above, where words may lie unaligned.
    if unsafe { core::ptr::read_unaligned(&raw const (*context).magic) } != MAGIC {
        return 0;
    }
    // SAFETY: as above.
    desk.run_now = unsafe { core::ptr::read_unaligned(&raw const (*context).now) };
    // SAFETY: as above.
    desk.run_flags = unsafe { core::ptr::read_unaligned(&raw const (*context).flags) } | IS_RUN;
    1
}

/// Answers in the run context's place, where there is one.
#[inline(always)]
pub fn answer_run(ctx: &XdpContext, flags: u32, judgement: &Judgement) {
    if flags & IS_RUN == 0 {
        return;
    }
    let start = ctx.metadata();
    if start + size_of::<RunAnswer>() > ctx.metadata_end() {
        return;
    }
    if flags & run_flags::CLOCK != 0 {
        // SAFETY: inside data_meta..data, checked above: the two answers are of one size.
        unsafe { core::ptr::write_unaligned(start as *mut ClockAnswer, clock::answer()) };
        return;
    }
    let answer = RunAnswer {
        magic: MAGIC,
        verdict: judgement.verdict as u32,
        reason: judgement.reason as u32,
        service: judgement.service,
        owner: judgement.owner,
        bytes: judgement.bytes,
        reserved: 0,
    };
    // SAFETY: inside data_meta..data, checked above.
    unsafe { core::ptr::write_unaligned(start as *mut RunAnswer, answer) };
}
