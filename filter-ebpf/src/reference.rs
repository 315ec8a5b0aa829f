//! Only in the benchmark's own build, by the feature `lpm-trie`: the look-up of sources as the kernel's LPM_TRIE
//! does it, all else being equal, and a program that parses and decides nothing.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::btf_maps::LpmTrie;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use filter_common::parse::{self, Family, Packet};

use crate::frame::Frame;
use crate::tables;

#[btf_map]
static TRIE_V4: LpmTrie<[u8; 4], u32, 1> = LpmTrie::new();
#[btf_map]
static TRIE_V6: LpmTrie<[u8; 16], u32, 1> = LpmTrie::new();

/// The value of the packet's source, the same word as our own tables hold for it; 0 is none.
#[inline(always)]
pub fn source_value(packet: &Packet) -> u32 {
    let value = if matches!(packet.family, Family::V4) {
        TRIE_V4.get(&Key::new(32, packet.source.v4().to_be_bytes()))
    } else {
        let mut address = [0; 16];
        address[..8].copy_from_slice(&packet.source.upper.to_be_bytes());
        address[8..].copy_from_slice(&packet.source.lower.to_be_bytes());
        TRIE_V6.get(&Key::new(128, address))
    };
    value.copied().unwrap_or(0)
}

/// Parses and drops: what of the filter's cost is no table's.
#[xdp(frags)]
pub fn parse_only(ctx: XdpContext) -> u32 {
    let Some(desk) = tables::desk() else {
        return xdp_action::XDP_ABORTED;
    };
    desk.packet = Packet::default();
    match parse::parse(&Frame::new(&ctx), &mut desk.packet) {
        parse::Frame::Ip => xdp_action::XDP_DROP,
        _ => xdp_action::XDP_ABORTED,
    }
}
