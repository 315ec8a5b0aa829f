//! The maps of source and destination prefixes: the kernel's side of `filter_common::lookup::prefixes`.

use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use filter_common::lookup::prefixes::{
    Line, Shape, TableV4, TableV6, probe_v4, probe_v6, search_v4, search_v6,
};
#[cfg(not(feature = "lpm-trie"))]
use filter_common::lookup::prefixes::{find_v4, find_v6};
#[cfg(not(feature = "lpm-trie"))]
use filter_common::parse::{Family, Packet};

#[btf_map]
static GATE_V4: Array<u64, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static HOSTS_V4: Array<Line, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static TOP_V4: Array<u64, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static RANGES_V4: Array<u64, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static GATE_V6: Array<u64, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static HOSTS_V6: Array<Line, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static BLOCKS_V6: Array<Line, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static TOP_V6: Array<u64, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static RANGES_V6: Array<[u64; 2], 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static GATE_TO: Array<u64, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static HOSTS_TO: Array<Line, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static BLOCKS_TO: Array<Line, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static TOP_TO: Array<u64, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static RANGES_TO: Array<[u64; 2], 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// The shapes of the sources' and the destinations' tables.
#[unsafe(no_mangle)]
static FROM_PARTS: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static FROM_SEED: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static FROM_GATE_BITS_V4: Global<u32> = Global::new(10);
#[unsafe(no_mangle)]
static FROM_LINES_V4: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static FROM_GATE_BITS_V6: Global<u32> = Global::new(10);
#[unsafe(no_mangle)]
static FROM_LINES_V6: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static FROM_BLOCK_LINES_V6: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static TO_PARTS: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static TO_SEED: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static TO_GATE_BITS_V6: Global<u32> = Global::new(10);
#[unsafe(no_mangle)]
static TO_LINES_V6: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static TO_BLOCK_LINES_V6: Global<u32> = Global::new(0);

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn from_further_v4(line: u32, address: u32) -> u32 {
    probe_v4(&From, line, address)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn from_prefix_v4(address: u32) -> u32 {
    search_v4(&From, address)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn from_further_v6(line: u32, upper: u64, lower: u64) -> u32 {
    probe_v6(&From, line, upper, lower)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn from_prefix_v6(upper: u64, lower: u64, levels: u32) -> u32 {
    search_v6(&From, upper, lower, levels)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn to_further_v6(line: u32, upper: u64, lower: u64) -> u32 {
    probe_v6(&To, line, upper, lower)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn to_prefix_v6(upper: u64, lower: u64, levels: u32) -> u32 {
    search_v6(&To, upper, lower, levels)
}

/// The value of the packet's source; 0 is none.
#[inline(always)]
#[cfg(not(feature = "lpm-trie"))]
pub fn source_value(packet: &Packet) -> u32 {
    if matches!(packet.family, Family::V4) {
        find_v4(&From, packet.source.v4())
    } else {
        find_v6(&From, packet.source.upper, packet.source.lower)
    }
}

/// The tables of the sources.
pub struct From;
/// The tables of the destinations.
pub struct To;

impl Shape for From {
    #[inline(always)]
    fn parts(&self) -> u32 {
        FROM_PARTS.load()
    }
    #[inline(always)]
    fn seed(&self) -> u32 {
        FROM_SEED.load()
    }
}

impl TableV4 for From {
    #[inline(always)]
    fn gate_bits_v4(&self) -> u32 {
        FROM_GATE_BITS_V4.load()
    }
    #[inline(always)]
    fn gate_v4(&self, word: u32) -> u64 {
        GATE_V4.get(word).copied().unwrap_or(0)
    }
    #[inline(always)]
    fn lines_v4(&self) -> u32 {
        FROM_LINES_V4.load()
    }
    #[inline(always)]
    fn line_v4(&self, line: u32) -> Option<&Line> {
        HOSTS_V4.get(line)
    }
    #[inline(always)]
    fn top_v4(&self, index: u32) -> u64 {
        TOP_V4.get(index).copied().unwrap_or(0)
    }
    #[inline(always)]
    fn range_v4(&self, index: u32) -> u64 {
        RANGES_V4.get(index).copied().unwrap_or(0)
    }
    #[inline(always)]
    fn further_v4(&self, line: u32, address: u32) -> u32 {
        from_further_v4(line, address)
    }
    #[inline(always)]
    fn prefix_v4(&self, address: u32) -> u32 {
        from_prefix_v4(address)
    }
}

impl TableV6 for From {
    #[inline(always)]
    fn gate_bits_v6(&self) -> u32 {
        FROM_GATE_BITS_V6.load()
    }
    #[inline(always)]
    fn gate_v6(&self, word: u32) -> u64 {
        GATE_V6.get(word).copied().unwrap_or(0)
    }
    #[inline(always)]
    fn lines_v6(&self) -> u32 {
        FROM_LINES_V6.load()
    }
    #[inline(always)]
    fn line_v6(&self, line: u32) -> Option<&Line> {
        HOSTS_V6.get(line)
    }
    #[inline(always)]
    fn block_lines_v6(&self) -> u32 {
        FROM_BLOCK_LINES_V6.load()
    }
    #[inline(always)]
    fn block_line_v6(&self, line: u32) -> Option<&Line> {
        BLOCKS_V6.get(line)
    }
    #[inline(always)]
    fn top_v6(&self, index: u32) -> u64 {
        TOP_V6.get(index).copied().unwrap_or(0)
    }
    #[inline(always)]
    fn range_v6(&self, index: u32) -> [u64; 2] {
        RANGES_V6.get(index).copied().unwrap_or([0; 2])
    }
    #[inline(always)]
    fn further_v6(&self, line: u32, upper: u64, lower: u64) -> u32 {
        from_further_v6(line, upper, lower)
    }
    #[inline(always)]
    fn prefix_v6(&self, upper: u64, lower: u64, levels: u32) -> u32 {
        from_prefix_v6(upper, lower, levels)
    }
}

impl Shape for To {
    #[inline(always)]
    fn parts(&self) -> u32 {
        TO_PARTS.load()
    }
    #[inline(always)]
    fn seed(&self) -> u32 {
        TO_SEED.load()
    }
}

impl TableV6 for To {
    #[inline(always)]
    fn gate_bits_v6(&self) -> u32 {
        TO_GATE_BITS_V6.load()
    }
    #[inline(always)]
    fn gate_v6(&self, word: u32) -> u64 {
        GATE_TO.get(word).copied().unwrap_or(0)
    }
    #[inline(always)]
    fn lines_v6(&self) -> u32 {
        TO_LINES_V6.load()
    }
    #[inline(always)]
    fn line_v6(&self, line: u32) -> Option<&Line> {
        HOSTS_TO.get(line)
    }
    #[inline(always)]
    fn block_lines_v6(&self) -> u32 {
        TO_BLOCK_LINES_V6.load()
    }
    #[inline(always)]
    fn block_line_v6(&self, line: u32) -> Option<&Line> {
        BLOCKS_TO.get(line)
    }
    #[inline(always)]
    fn top_v6(&self, index: u32) -> u64 {
        TOP_TO.get(index).copied().unwrap_or(0)
    }
    #[inline(always)]
    fn range_v6(&self, index: u32) -> [u64; 2] {
        RANGES_TO.get(index).copied().unwrap_or([0; 2])
    }
    #[inline(always)]
    fn further_v6(&self, line: u32, upper: u64, lower: u64) -> u32 {
        to_further_v6(line, upper, lower)
    }
    #[inline(always)]
    fn prefix_v6(&self, upper: u64, lower: u64, levels: u32) -> u32 {
        to_prefix_v6(upper, lower, levels)
    }
}
