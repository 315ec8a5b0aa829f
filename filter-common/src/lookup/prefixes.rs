//! Longest prefix match over flat words: what the kernel walks and `compiler` lays out.
//!
//! A gate turns strangers away on one word: that of their /24 or /48, in which every address, every /24 that a prefix
//! touches and every block has two bits of its own, by a hash. Who lacks one is not in there; who has both is looked
//! for. Behind it single addresses stand in lines of 64 bytes found by a hash, prefixes in runs of ranges: for IPv4 one
//! run for each /16, for IPv6 one for each block of 64, 48 or 32 bits that has prefixes of its own, and for each /16. A
//! value is the whole answer for its addresses, so the first one found ends the walk. 0 is "no prefix".

use super::places::has;
pub use super::places::{
    gate_word_v4, gate_word_v6, hash_block, hash_prefix_v4, hash_v4, hash_v6, home_block, home_v4, home_v6,
    mark,
};
use super::slots::{above_if_equal, above_if_none};

/// Slots of a line of single IPv4 addresses: the value above, the address below.
pub const SLOTS_V4: usize = 8;
/// Slots of a line of single IPv6 addresses: three addresses in six words, their values in the last two.
pub const SLOTS_V6: usize = 3;
/// Slots of a line of IPv6 blocks: key, then what stands in it.
pub const SLOTS_BLOCK: usize = 4;
/// Lines that are looked at before an address counts as absent; the compiler never places one beyond.
pub const PROBES_MAX: u32 = 12;
/// The value of a slot whose IPv6 address was removed while packets flow: looked past, and never given out.
pub const REMOVED: u32 = u32::MAX;
/// A slot whose IPv4 address was removed: not empty, and without a value.
pub const REMOVED_V4: u64 = 1;
/// Steps of the search in a run: no run is longer than two to this.
pub const RUN_STEPS_MAX: u32 = 24;

/// Which parts of a table are in use: the kernel's verifier prunes the others.
pub mod parts {
    pub const HOSTS_V4: u32 = 1;
    pub const PREFIXES_V4: u32 = 1 << 1;
    pub const HOSTS_V6: u32 = 1 << 2;
    pub const BLOCKS_64: u32 = 1 << 3;
    pub const BLOCKS_48: u32 = 1 << 4;
    pub const BLOCKS_32: u32 = 1 << 5;
    pub const TOP_V6: u32 = 1 << 6;
    pub const PREFIXES_V6: u32 = BLOCKS_64 | BLOCKS_48 | BLOCKS_32 | TOP_V6;
    /// IPv6's gate is asked: not worth it where few addresses are listed.
    pub const GATE_V6: u32 = 1 << 7;
    /// Some prefix touches so many /24s that IPv4's gate is not asked for prefixes.
    pub const WIDE_V4: u32 = 1 << 8;
}

/// The levels of IPv6 blocks, as their slots name them.
pub const LEVEL_64: u64 = 1;
pub const LEVEL_48: u64 = 2;
pub const LEVEL_32: u64 = 3;

/// A line of a table: one cache line.
pub type Line = [u64; 8];

/// What every family's walk asks of a table.
pub trait Shape {
    /// Of `parts`; a constant of the generation, as are the sizes below.
    fn parts(&self) -> u32;
    /// Mixed into every hash, so that nobody can choose addresses that meet in one line.
    fn seed(&self) -> u32;
}

/// The words of IPv4's half.
pub trait TableV4: Shape {
    /// Two to this is the gate's number of words; 5 to 22, as `gate_bits_v6`.
    fn gate_bits_v4(&self) -> u32;
    fn gate_v4(&self, word: u32) -> u64;
    fn lines_v4(&self) -> u32;
    fn line_v4(&self, line: u32) -> Option<&Line>;
    fn top_v4(&self, index: u32) -> u64;
    /// A range of a run: where it starts, above; its value, below.
    fn range_v4(&self, index: u32) -> u64;

    // The rarer steps, through here so that the kernel can verify each by itself.

    /// `probe_v4`.
    fn further_v4(&self, line: u32, address: u32) -> u32 {
        probe_v4(self, line, address)
    }
    /// `search_v4`.
    fn prefix_v4(&self, address: u32) -> u32 {
        search_v4(self, address)
    }
}

/// The words of IPv6's half.
pub trait TableV6: Shape {
    fn gate_bits_v6(&self) -> u32;
    fn gate_v6(&self, word: u32) -> u64;
    fn lines_v6(&self) -> u32;
    fn line_v6(&self, line: u32) -> Option<&Line>;
    fn block_lines_v6(&self) -> u32;
    fn block_line_v6(&self, line: u32) -> Option<&Line>;
    fn top_v6(&self, index: u32) -> u64;
    /// A range of a run: where it starts, and its value.
    fn range_v6(&self, index: u32) -> [u64; 2];

    // As in `TableV4`.

    /// `probe_v6`.
    fn further_v6(&self, line: u32, upper: u64, lower: u64) -> u32 {
        probe_v6(self, line, upper, lower)
    }
    /// `search_v6`; `levels` are the parts in which the gate has a mark of the address.
    fn prefix_v6(&self, upper: u64, lower: u64, levels: u32) -> u32 {
        search_v6(self, upper, lower, levels)
    }
}

/// What stands for a block: the value of all of it, or where its run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub start: u32,
    /// 0 where `start` is the value.
    pub length: u32,
}

impl Block {
    pub const fn uniform(value: u32) -> Self {
        Self {
            start: value,
            length: 0,
        }
    }

    /// In one word; `level` is 0 where a block stands in a table of its own kind.
    pub const fn pack(self, level: u64) -> u64 {
        self.start as u64 | (self.length as u64) << 32 | level << 62
    }

    #[inline(always)]
    pub const fn unpack(word: u64) -> Self {
        Self {
            start: word as u32,
            length: (word >> 32) as u32 & 0x3fff_ffff,
        }
    }
}

/// The value of an IPv4 address; 0 is none.
#[inline(always)]
pub fn find_v4<T: TableV4 + ?Sized>(table: &T, address: u32) -> u32 {
    if table.parts() & (parts::HOSTS_V4 | parts::PREFIXES_V4) == 0 {
        return 0;
    }
    let gate = table.gate_v4(gate_word_v4(table, address));
    if table.parts() & parts::HOSTS_V4 != 0 && has(gate, mark(hash_v4(table, address))) {
        let value = host_v4(table, address);
        if value != 0 {
            return value;
        }
    }
    if table.parts() & parts::PREFIXES_V4 != 0
        && (table.parts() & parts::WIDE_V4 != 0 || has(gate, mark(hash_prefix_v4(table, address))))
    {
        return table.prefix_v4(address);
    }
    0
}

/// What one line says of an address: a value, or 0 for none; `FURTHER` where a later line may have it.
const FURTHER: u32 = REMOVED;

#[inline(always)]
fn host_v4<T: TableV4 + ?Sized>(table: &T, address: u32) -> u32 {
    let home = home_v4(table, address);
    match in_line_v4(table, home, address) {
        FURTHER => table.further_v4(home + 1, address),
        value => value,
    }
}

/// The lines behind an address' first.
#[inline(always)]
pub fn probe_v4<T: TableV4 + ?Sized>(table: &T, line: u32, address: u32) -> u32 {
    for probe in 0..PROBES_MAX - 1 {
        let value = in_line_v4(table, line + probe, address);
        if value != FURTHER {
            return value;
        }
    }
    0
}

#[inline(always)]
fn in_line_v4<T: TableV4 + ?Sized>(table: &T, line: u32, address: u32) -> u32 {
    let Some(line) = table.line_v4(line) else {
        return 0;
    };
    let mut found = 0;
    for slot in line {
        found |= *slot & above_if_equal(*slot as u32, address);
    }
    let value = (found >> 32) as u32;
    // Slots are filled in order: with the last one empty there is nothing further.
    if value == 0 && line[SLOTS_V4 - 1] != 0 {
        return FURTHER;
    }
    value
}

/// The value of an IPv4 address by prefixes alone.
#[inline(always)]
pub fn search_v4<T: TableV4 + ?Sized>(table: &T, address: u32) -> u32 {
    let block = Block::unpack(table.top_v4(address >> 16));
    if block.length == 0 {
        return block.start;
    }
    let digit = address & 0xffff;
    let (mut start, mut length) = (block.start, block.length);
    for _ in 0..RUN_STEPS_MAX {
        if length <= 1 {
            break;
        }
        let half = length / 2;
        if (table.range_v4(start + half) >> 32) as u32 <= digit {
            start += half;
            length -= half;
        } else {
            length = half;
        }
    }
    table.range_v4(start) as u32
}

/// The value of an IPv6 address in two halves; 0 is none.
#[inline(always)]
pub fn find_v6<T: TableV6 + ?Sized>(table: &T, upper: u64, lower: u64) -> u32 {
    let parts = table.parts();
    let is_gated = parts & parts::GATE_V6 != 0;
    let mut gate = !0;
    if is_gated {
        gate = table.gate_v6(gate_word_v6(table, upper));
    }
    if parts & parts::HOSTS_V6 != 0 && has(gate, mark(hash_v6(table, upper, lower))) {
        let value = host_v6(table, upper, lower);
        if value != 0 {
            return value;
        }
    }
    if parts & parts::PREFIXES_V6 == 0 {
        return 0;
    }
    let mut levels = 0;
    if parts & parts::BLOCKS_64 != 0 && has(gate, mark(hash_block(table, upper, LEVEL_64))) {
        levels |= parts::BLOCKS_64;
    }
    if parts & parts::BLOCKS_48 != 0 && has(gate, mark(hash_block(table, site(upper), LEVEL_48))) {
        levels |= parts::BLOCKS_48;
    }
    // Most that have a longer block need no other word.
    if parts & parts::BLOCKS_32 != 0 && (levels != 0 || !is_gated || is_wide(table, upper)) {
        levels |= parts::BLOCKS_32;
    }
    if levels == 0 && parts & parts::TOP_V6 == 0 {
        return 0;
    }
    table.prefix_v6(upper, lower, levels)
}

/// Whether the gate has a mark of an address' /32: in the word of the first /48 of it.
#[inline(always)]
fn is_wide<T: TableV6 + ?Sized>(table: &T, upper: u64) -> bool {
    let key = wide(upper);
    has(
        table.gate_v6(gate_word_v6(table, key)),
        mark(hash_block(table, key, LEVEL_32)),
    )
}

/// An address' /48, as the key of its block.
#[inline(always)]
fn site(upper: u64) -> u64 {
    upper >> 16 << 16
}

/// An address' /32, as the key of its block.
#[inline(always)]
fn wide(upper: u64) -> u64 {
    upper >> 32 << 32
}

#[inline(always)]
fn host_v6<T: TableV6 + ?Sized>(table: &T, upper: u64, lower: u64) -> u32 {
    let home = home_v6(table, upper, lower);
    match in_line_v6(table, home, upper, lower) {
        FURTHER => table.further_v6(home + 1, upper, lower),
        value => value,
    }
}

/// The lines behind an address' first.
#[inline(always)]
pub fn probe_v6<T: TableV6 + ?Sized>(table: &T, line: u32, upper: u64, lower: u64) -> u32 {
    for probe in 0..PROBES_MAX - 1 {
        let value = in_line_v6(table, line + probe, upper, lower);
        if value != FURTHER {
            return value;
        }
    }
    0
}

#[inline(always)]
fn in_line_v6<T: TableV6 + ?Sized>(table: &T, line: u32, upper: u64, lower: u64) -> u32 {
    let Some(line) = table.line_v6(line) else {
        return 0;
    };
    let values = [line[6] << 32, line[6], line[7] << 32];
    let mut found = 0;
    for slot in 0..SLOTS_V6 {
        let differs = line[slot * 2] ^ upper | line[slot * 2 + 1] ^ lower;
        found |= values[slot] & above_if_none(differs);
    }
    let value = (found >> 32) as u32;
    // Slots are filled in order: with the last one empty there is nothing further.
    if value == 0 && values[SLOTS_V6 - 1] != 0 {
        return FURTHER;
    }
    value
}

/// The value of an IPv6 address by prefixes alone.
#[inline(always)]
pub fn search_v6<T: TableV6 + ?Sized>(table: &T, upper: u64, lower: u64, levels: u32) -> u32 {
    let parts = table.parts();
    if parts & parts::BLOCKS_64 != 0
        && levels & parts::BLOCKS_64 != 0
        && let Some(block) = block(table, upper, LEVEL_64)
    {
        return search_run(table, block, lower);
    }
    if parts & parts::BLOCKS_48 != 0
        && levels & parts::BLOCKS_48 != 0
        && let Some(block) = block(table, site(upper), LEVEL_48)
    {
        return search_run(table, block, upper & 0xffff);
    }
    if parts & parts::BLOCKS_32 != 0
        && levels & parts::BLOCKS_32 != 0
        && let Some(block) = block(table, wide(upper), LEVEL_32)
    {
        return search_run(table, block, upper >> 16 & 0xffff);
    }
    if parts & parts::TOP_V6 != 0 {
        let block = Block::unpack(table.top_v6((upper >> 48) as u32));
        return search_run(table, block, upper >> 32 & 0xffff);
    }
    0
}

#[inline(always)]
fn block<T: TableV6 + ?Sized>(table: &T, key: u64, level: u64) -> Option<Block> {
    let home = home_block(table, key, level);
    for probe in 0..PROBES_MAX {
        let line = table.block_line_v6(home + probe)?;
        let (mut start, mut length) = (0, 0);
        for slot in 0..SLOTS_BLOCK {
            let word = line[slot * 2 + 1];
            let above = above_if_none(line[slot * 2] ^ key | word >> 62 ^ level);
            start |= word << 32 & above;
            length |= word & above;
        }
        // A block's word has its level.
        if length >> 32 != 0 {
            return Some(Block::unpack(start >> 32 | length >> 32 << 32));
        }
        // Slots are filled in order.
        if line[SLOTS_BLOCK * 2 - 1] == 0 {
            return None;
        }
    }
    None
}

#[inline(always)]
fn search_run<T: TableV6 + ?Sized>(table: &T, block: Block, digit: u64) -> u32 {
    if block.length == 0 {
        return block.start;
    }
    let (mut start, mut length) = (block.start, block.length);
    for _ in 0..RUN_STEPS_MAX {
        if length <= 1 {
            break;
        }
        let half = length / 2;
        if table.range_v6(start + half)[0] <= digit {
            start += half;
            length -= half;
        } else {
            length = half;
        }
    }
    table.range_v6(start)[1] as u32
}
