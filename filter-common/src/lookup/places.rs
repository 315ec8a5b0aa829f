//! Where an address, a /24 or a block has its place: the gate's word and its bits there, the line behind the gate. The
//! kernel asks there, and `compiler` puts it there.

use super::prefixes::{TableV4, TableV6};

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// The gate's word for an IPv4 address' /24.
#[inline(always)]
pub fn gate_word_v4<T: TableV4 + ?Sized>(table: &T, address: u32) -> u32 {
    ((address >> 8) ^ table.seed()).wrapping_mul(0x9e37_79b1) >> (32 - table.gate_bits_v4())
}

/// The gate's word for an IPv6 address' /48, from the upper half of the address.
#[inline(always)]
pub fn gate_word_v6<T: TableV6 + ?Sized>(table: &T, upper: u64) -> u32 {
    (((upper >> 16) ^ table.seed() as u64).wrapping_mul(MULTIPLIER) >> (64 - table.gate_bits_v6())) as u32
}

/// The bits of what has this hash, in its word of the gate.
#[inline(always)]
pub const fn mark(hash: u64) -> u64 {
    1 << (hash >> 58) | 1 << (hash >> 52 & 63)
}

#[inline(always)]
pub(super) const fn has(word: u64, mark: u64) -> bool {
    word & mark == mark
}

/// Of a single IPv4 address: its mark, and where its lines begin.
#[inline(always)]
pub fn hash_v4<T: TableV4 + ?Sized>(table: &T, address: u32) -> u64 {
    ((address ^ table.seed()) as u64).wrapping_mul(MULTIPLIER)
}

/// Of an IPv4 address' /24: its mark, where some prefix touches it.
#[inline(always)]
pub fn hash_prefix_v4<T: TableV4 + ?Sized>(table: &T, address: u32) -> u64 {
    (((address >> 8) ^ table.seed()) as u64).wrapping_mul(MULTIPLIER)
}

/// Of a single IPv6 address: as for IPv4.
#[inline(always)]
pub fn hash_v6<T: TableV6 + ?Sized>(table: &T, upper: u64, lower: u64) -> u64 {
    let mixed = (upper ^ table.seed() as u64).wrapping_mul(MULTIPLIER);
    (mixed ^ (mixed >> 29) ^ lower).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// Of a block of IPv6, by its first address: its mark, and where its lines begin.
#[inline(always)]
pub fn hash_block<T: TableV6 + ?Sized>(table: &T, key: u64, level: u64) -> u64 {
    let mixed = (key ^ level ^ ((table.seed() as u64) << 3)).wrapping_mul(MULTIPLIER);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// The line where a single IPv4 address stands, or the first one looked at for it.
#[inline(always)]
pub fn home_v4<T: TableV4 + ?Sized>(table: &T, address: u32) -> u32 {
    reduce(hash_v4(table, address) >> 32, table.lines_v4())
}

#[inline(always)]
pub fn home_v6<T: TableV6 + ?Sized>(table: &T, upper: u64, lower: u64) -> u32 {
    reduce(hash_v6(table, upper, lower) >> 32, table.lines_v6())
}

#[inline(always)]
pub fn home_block<T: TableV6 + ?Sized>(table: &T, key: u64, level: u64) -> u32 {
    reduce(hash_block(table, key, level) >> 32, table.block_lines_v6())
}

/// A 32-bit hash to one of `lines`.
#[inline(always)]
fn reduce(hash: u64, lines: u32) -> u32 {
    ((hash * lines as u64) >> 32) as u32
}
