//! The kernel program: an adapter around `filter_common::pipeline`. No decision is made here.
//!
//! `keyfence` is attached to every interface and only goes on to the generation in force; `judge` is that
//! generation: loaded anew, with tables of its own, for each policy, and put in place in one step.
#![no_std]
#![no_main]
#![allow(
    internal_features,
    reason = "compare-exchange and add have no stable form on this target"
)]
#![feature(core_intrinsics, asm_experimental_arch)]

mod account;
mod clock;
mod frame;
mod prefixes;
mod records;
#[cfg(feature = "lpm-trie")]
mod reference;
mod sockets;
mod tables;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;
use aya_log_ebpf::macro_support::{Level, level_enabled};
use filter_common::abi::{Desk, run_flags, slots};
use filter_common::account::index;
use filter_common::parse::Packet;
use filter_common::pipeline;
use filter_common::verdict::{Judgement, NO_SERVICE, Reason, Verdict};

use crate::frame::{Frame, answer_run, take_run_context};
use crate::tables::KernelTables;

/// The entry: one jump to the generation in force.
#[xdp(frags)]
pub fn keyfence(ctx: XdpContext) -> u32 {
    // Two jumps, each with a number that is written in the code: the kernel makes them plain ones.
    if tables::is_unconfirmed() {
        // SAFETY: the map holds only programs of this type, put there by the loader.
        unsafe { tables::GENERATION.tail_call(&ctx, slots::STANDBY) };
    }
    // SAFETY: as above.
    unsafe { tables::GENERATION.tail_call(&ctx, slots::IN_FORCE) };
    // No generation: its pin was removed under a running filter. Nothing can be told apart any more.
    account::count(index(Verdict::Drop, Reason::Internal, NO_SERVICE), 0);
    if let Some(desk) = tables::desk() {
        desk.packet = Packet::default();
        desk.judgement = Judgement::default();
        records::record(&desk.packet, &desk.judgement, ctx.ingress_ifindex() as u32);
    }
    xdp_action::XDP_DROP
}

/// One generation.
#[xdp(frags)]
pub fn judge(ctx: XdpContext) -> u32 {
    let Some(desk) = tables::desk() else {
        return xdp_action::XDP_DROP;
    };
    take_run_context(&ctx, desk);
    let tables = KernelTables::<false>::new(ctx.ctx, desk.run_flags, desk.run_now);
    let judgement = pipeline::judge(&Frame::new(&ctx), &tables, &mut desk.packet);
    // Asked here, not in there: a call costs as much as a look-up, and the verifier removes no call.
    if level_enabled(Level::Debug) {
        log(&ctx, &judgement);
    }
    answer_run(&ctx, desk.run_flags, &judgement);
    if matches!(judgement.verdict, Verdict::Pass) {
        return end(&ctx, desk, judgement);
    }
    // Last, where the fewest values are held: the stack is near its bound.
    if desk.run_flags & run_flags::DRY == 0 {
        records::record(&desk.packet, &judgement, ctx.ingress_ifindex() as u32);
    }
    end(&ctx, desk, judgement)
}

/// Goes on to the captures, where there are some.
#[inline(always)]
fn end(ctx: &XdpContext, desk: &mut Desk, judgement: Judgement) -> u32 {
    desk.judgement = judgement;
    // SAFETY: the map holds only programs of this type, put there by the loader.
    unsafe { tables::CAPTURE.tail_call(ctx, 0) };
    match judgement.verdict {
        Verdict::Drop => xdp_action::XDP_DROP,
        Verdict::Pass | Verdict::Observe => xdp_action::XDP_PASS,
    }
}

/// A line a packet for whoever debugs the program; pruned by the verifier unless switched on at load.
#[inline(never)]
fn log(ctx: &XdpContext, judgement: &Judgement) {
    debug!(
        ctx,
        "verdict {} reason {} service {} owner {} bytes {}",
        judgement.verdict as u8,
        judgement.reason as u8,
        judgement.service,
        judgement.owner,
        judgement.bytes
    );
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // A panic path that survives the optimizer is refused by the verifier: this is never run.
    loop {}
}

/// The helpers that look at sockets and clocks are for programs under the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
