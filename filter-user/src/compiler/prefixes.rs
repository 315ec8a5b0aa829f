//! Prefixes with their values, laid out as the words that `filter_common::lookup::prefixes` walks.
//!
//! Pure and plain: knows no map. What it lays out the host can walk as well, so tests hold it to a naive search.

use filter_common::lookup::prefixes::{
    LEVEL_48, LEVEL_64, Line, PROBES_MAX, SLOTS_BLOCK, SLOTS_V4, SLOTS_V6, Shape, TableV4, TableV6,
    gate_word_v4, gate_word_v6, hash_block, hash_prefix_v4, hash_v4, hash_v6, home_block, home_v4, home_v6,
    mark, parts,
};

pub use super::homes::Homes;
use super::runs::{Long, Placed, Short, blocks, place_run, tops};
use super::{Key, Room};

/// One table's words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    pub parts: u32,
    pub seed: u32,
    pub gate_bits_v4: u32,
    pub gate_v4: Vec<u64>,
    /// With the lines behind the last home that a probe may reach, here and below.
    pub hosts_v4: Vec<Line>,
    pub top_v4: Vec<u64>,
    pub ranges_v4: Vec<u64>,
    pub gate_bits_v6: u32,
    pub gate_v6: Vec<u64>,
    pub hosts_v6: Vec<Line>,
    pub blocks_v6: Vec<Line>,
    pub top_v6: Vec<u64>,
    pub ranges_v6: Vec<[u64; 2]>,
}

/// Entries a line holds on average when it is laid out: half of IPv4's eight, so that few lines are ever full.
const PER_LINE_V4: usize = 4;
/// In tenths, of three and of four.
const PER_LINE_V6_TENTHS: usize = 15;
const PER_LINE_BLOCK_TENTHS: usize = 20;
/// Each begins one and ends one, in a run that is made anew with each change.
const RANGES_A_PREFIX: usize = 4;
/// Bits of the gate for each mark of two: one stranger in 70 finds both of one set by others, one in 20 where the gate
/// would not stay in a core's own cache else. A mebibyte does.
const GATE_BITS_PER_MARK: usize = 16;
const GATE_BITS_PER_MARK_LEAST: usize = 8;
/// In words, as powers of two.
const GATE_NEAR: u32 = 17;
const GATE_MIN: u32 = 5;
const GATE_MAX: u32 = 22;
/// IPv4 prefixes shorter than this would mark most of the gate: it is not asked for prefixes then.
const WIDE_V4_BELOW: u8 = 8;
/// With fewer entries than these the lines themselves stay in the CPU's nearest cache, and IPv6 has no gate.
const GATED_V6_MIN: usize = 64;
/// Of the blocks, and of those that there is room for at least: half of each line is free besides.
const BLOCKS_FREE_PART: usize = 4;
/// Seeds tried before the table is made larger.
const SEEDS_PER_SIZE: u32 = 4;

/// Lays out prefixes of both families, each with the whole answer for the addresses whose longest prefix it is.
/// Both are sorted by address, then length, without repetition.
pub fn lay_out(v4: &[(Key<4>, u32)], v6: &[(Key<16>, u32)], room: Room) -> Layout {
    let mut layout = Layout::default();
    let (hosts_v4, prefixes_v4) = split_v4(v4);
    let (hosts_v6, prefixes_v6) = split_v6(v6);
    layout.parts = room.parts;
    layout.prefixes_v4(&prefixes_v4);
    let blocks = layout.prefixes_v6(&prefixes_v6);
    layout.size(&hosts_v4, &prefixes_v4, &hosts_v6, &blocks, room);
    let mut tries = 0;
    while !layout.place(&hosts_v4, &hosts_v6, &blocks) {
        tries += 1;
        layout.seed = layout.seed.wrapping_add(0x9e37_79b9);
        let grow = |lines: &mut Vec<Line>| {
            let length = lines.len();
            let length = if tries % SEEDS_PER_SIZE == 0 && length != 0 {
                length * 5 / 4 + 1
            } else {
                length
            };
            lines.clear();
            lines.resize(length, [0; 8]);
        };
        grow(&mut layout.hosts_v4);
        grow(&mut layout.hosts_v6);
        grow(&mut layout.blocks_v6);
    }
    layout.mark(&hosts_v4, &prefixes_v4, &hosts_v6, &blocks);
    layout
}

/// A single IPv6 address in halves, and its value.
type Host6 = (u64, u64, u32);

fn split_v4(entries: &[(Key<4>, u32)]) -> (Vec<(u32, u32)>, Vec<Short>) {
    let mut hosts = Vec::new();
    let mut prefixes = Vec::new();
    for (key, value) in entries {
        let address = u32::from_be_bytes(key.address);
        if key.length == 32 {
            hosts.push((address, *value));
        } else {
            prefixes.push((address, key.length, *value));
        }
    }
    // A value of none needs no entry: no longer prefix says less than those around it.
    hosts.retain(|(_, value)| *value != 0);
    (hosts, prefixes)
}

fn halves(address: [u8; 16]) -> (u64, u64) {
    let whole = u128::from_be_bytes(address);
    ((whole >> 64) as u64, whole as u64)
}

fn split_v6(entries: &[(Key<16>, u32)]) -> (Vec<Host6>, Vec<Long>) {
    let mut hosts = Vec::new();
    let mut prefixes = Vec::new();
    for (key, value) in entries {
        let (upper, lower) = halves(key.address);
        if key.length == 128 {
            hosts.push((upper, lower, *value));
        } else {
            prefixes.push((upper, lower, key.length, *value));
        }
    }
    hosts.retain(|(_, _, value)| *value != 0);
    (hosts, prefixes)
}

impl Layout {
    fn prefixes_v4(&mut self, prefixes: &[Short]) {
        if prefixes.is_empty() && self.parts & parts::PREFIXES_V4 == 0 {
            return;
        }
        self.parts |= parts::PREFIXES_V4;
        let ranges = &mut self.ranges_v4;
        self.top_v4 = tops(prefixes, |run| {
            let start = ranges.len() as u32;
            ranges.extend(run.iter().map(|(at, value)| at << 32 | u64::from(*value)));
            start
        });
    }

    fn prefixes_v6(&mut self, prefixes: &[Long]) -> Vec<Placed> {
        let short: Vec<Short> = prefixes
            .iter()
            .filter(|(_, _, length, _)| *length < 32)
            .map(|(upper, _, length, value)| ((upper >> 32) as u32, *length, *value))
            .collect();
        let ranges = &mut self.ranges_v6;
        if !short.is_empty() || self.parts & parts::TOP_V6 != 0 {
            self.parts |= parts::TOP_V6;
            self.top_v6 = tops(&short, |run| place_run(ranges, run));
        }
        let blocks = blocks(prefixes, |run| place_run(ranges, run));
        for placed in &blocks {
            self.parts |= match placed.level {
                LEVEL_64 => parts::BLOCKS_64,
                LEVEL_48 => parts::BLOCKS_48,
                _ => parts::BLOCKS_32,
            };
        }
        blocks
    }

    fn size(
        &mut self,
        hosts_v4: &[(u32, u32)],
        prefixes_v4: &[Short],
        hosts_v6: &[Host6],
        blocks: &[Placed],
        room: Room,
    ) {
        let behind = PROBES_MAX as usize - 1;
        let lines =
            |entries: usize, tenths: usize| vec![[0; 8]; (entries * 10).div_ceil(tenths).max(1) + behind];
        let (v4, v6) = (
            hosts_v4.len() + room.hosts_v4 as usize,
            hosts_v6.len() + room.hosts_v6 as usize,
        );
        if v4 != 0 {
            self.parts |= parts::HOSTS_V4;
            self.hosts_v4 = lines(v4, PER_LINE_V4 * 10);
        }
        if v6 != 0 {
            self.parts |= parts::HOSTS_V6;
            self.hosts_v6 = lines(v6, PER_LINE_V6_TENTHS);
        }
        if self.parts & (parts::BLOCKS_64 | parts::BLOCKS_48 | parts::BLOCKS_32) != 0 {
            let free = (blocks.len() / BLOCKS_FREE_PART).max(room.prefixes as usize / BLOCKS_FREE_PART);
            let free = if room.prefixes == 0 { 0 } else { free };
            self.blocks_v6 = lines(blocks.len() + free, PER_LINE_BLOCK_TENTHS);
        }
        if self.parts & (parts::HOSTS_V4 | parts::PREFIXES_V4) != 0 {
            let marked = prefixes_v4
                .iter()
                .filter(|(_, length, _)| *length >= WIDE_V4_BELOW);
            let touched: usize = marked
                .clone()
                .map(|(_, length, _)| 1 << 24u8.saturating_sub(*length))
                .sum();
            if marked.count() != prefixes_v4.len() {
                self.parts |= parts::WIDE_V4;
            }
            self.gate_bits_v4 = gate_bits(v4 + touched);
            self.gate_v4 = vec![0; 1 << self.gate_bits_v4];
        }
        let gated = parts::HOSTS_V6 | parts::BLOCKS_64 | parts::BLOCKS_48 | parts::BLOCKS_32;
        if self.parts & gated != 0 && v6 + blocks.len() >= GATED_V6_MIN {
            self.parts |= parts::GATE_V6;
            self.gate_bits_v6 = gate_bits(v6 + blocks.len());
            self.gate_v6 = vec![0; 1 << self.gate_bits_v6];
        }
    }

    /// Puts all entries into lines; false where one found no place within reach.
    fn place(&mut self, hosts_v4: &[(u32, u32)], hosts_v6: &[Host6], blocks: &[Placed]) -> bool {
        for (address, value) in hosts_v4 {
            let home = home_v4(self, *address) as usize;
            let word = u64::from(*address) | u64::from(*value) << 32;
            let free = self.hosts_v4[home..home + PROBES_MAX as usize]
                .iter_mut()
                .flat_map(|line| &mut line[..SLOTS_V4])
                .find(|slot| **slot == 0);
            match free {
                Some(slot) => *slot = word,
                None => return false,
            }
        }
        for (upper, lower, value) in hosts_v6 {
            let home = home_v6(self, *upper, *lower) as usize;
            let lines = &mut self.hosts_v6[home..home + PROBES_MAX as usize];
            if !lines.iter_mut().any(|line| put_v6(line, *upper, *lower, *value)) {
                return false;
            }
        }
        for placed in blocks {
            let home = home_block(self, placed.key, placed.level) as usize;
            let lines = &mut self.blocks_v6[home..home + PROBES_MAX as usize];
            if !lines.iter_mut().any(|line| put_block(line, placed)) {
                return false;
            }
        }
        true
    }

    fn mark(
        &mut self,
        hosts_v4: &[(u32, u32)],
        prefixes_v4: &[Short],
        hosts_v6: &[Host6],
        blocks: &[Placed],
    ) {
        for (address, _) in hosts_v4 {
            self.mark_v4(*address, hash_v4(self, *address));
        }
        for (address, length, _) in prefixes_v4 {
            if *length < WIDE_V4_BELOW {
                continue;
            }
            for block in 0..1u32 << 24u8.saturating_sub(*length) {
                let address = address + (block << 8);
                self.mark_v4(address, hash_prefix_v4(self, address));
            }
        }
        for (upper, lower, _) in hosts_v6 {
            self.mark_v6(*upper, hash_v6(self, *upper, *lower));
        }
        // A block's key is the first address in it, whatever its size.
        for placed in blocks {
            self.mark_v6(placed.key, hash_block(self, placed.key, placed.level));
        }
    }

    fn mark_v4(&mut self, address: u32, hash: u64) {
        let word = gate_word_v4(self, address);
        self.gate_v4[word as usize] |= mark(hash);
    }

    fn mark_v6(&mut self, upper: u64, hash: u64) {
        if self.parts & parts::GATE_V6 == 0 {
            return;
        }
        let word = gate_word_v6(self, upper);
        self.gate_v6[word as usize] |= mark(hash);
    }
}

/// Two to this is the number of words for so many marks.
fn gate_bits(marks: usize) -> u32 {
    let words = |bits: usize| {
        marks
            .saturating_mul(bits)
            .div_ceil(64)
            .max(1)
            .next_power_of_two()
            .ilog2()
    };
    let least = words(GATE_BITS_PER_MARK_LEAST);
    words(GATE_BITS_PER_MARK)
        .min(GATE_NEAR)
        .max(least)
        .clamp(GATE_MIN, GATE_MAX)
}

fn put_v6(line: &mut Line, upper: u64, lower: u64, value: u32) -> bool {
    for slot in 0..SLOTS_V6 {
        let (word, shift) = (6 + slot / 2, (slot % 2) * 32);
        if (line[word] >> shift) as u32 == 0 {
            line[slot * 2] = upper;
            line[slot * 2 + 1] = lower;
            line[word] |= u64::from(value) << shift;
            return true;
        }
    }
    false
}

fn put_block(line: &mut Line, placed: &Placed) -> bool {
    for slot in 0..SLOTS_BLOCK {
        if line[slot * 2 + 1] == 0 {
            line[slot * 2] = placed.key;
            line[slot * 2 + 1] = placed.block.pack(placed.level);
            return true;
        }
    }
    false
}

impl Layout {
    /// What a change of single entries needs to know of it.
    pub fn homes(&self) -> Homes {
        Homes {
            parts: self.parts,
            seed: self.seed,
            gate_bits_v4: self.gate_bits_v4,
            lines_v4: self.lines_v4(),
            gate_bits_v6: self.gate_bits_v6,
            lines_v6: self.lines_v6(),
            block_lines_v6: self.block_lines_v6(),
            ranges_v4: self.ranges_v4.len() as u32,
            ranges_v6: self.ranges_v6.len() as u32,
        }
    }

    /// Ranges of each family that are left free behind those that are taken.
    pub fn ranges_free(&self, room: Room) -> [usize; 2] {
        let free = |part: u32, taken: usize| match (self.parts & part, room.prefixes) {
            (0, _) | (_, 0) => 0,
            (_, least) => taken.max(least as usize * RANGES_A_PREFIX),
        };
        [
            free(parts::PREFIXES_V4, self.ranges_v4.len()),
            free(parts::PREFIXES_V6, self.ranges_v6.len()),
        ]
    }
}

impl Shape for Layout {
    fn parts(&self) -> u32 {
        self.parts
    }
    fn seed(&self) -> u32 {
        self.seed
    }
}

fn homes(lines: &[Line]) -> u32 {
    (lines.len() as u32).saturating_sub(PROBES_MAX - 1)
}

impl TableV4 for Layout {
    fn gate_bits_v4(&self) -> u32 {
        self.gate_bits_v4
    }
    fn gate_v4(&self, word: u32) -> u64 {
        self.gate_v4.get(word as usize).copied().unwrap_or(0)
    }
    fn lines_v4(&self) -> u32 {
        homes(&self.hosts_v4)
    }
    fn line_v4(&self, line: u32) -> Option<&Line> {
        self.hosts_v4.get(line as usize)
    }
    fn top_v4(&self, index: u32) -> u64 {
        self.top_v4.get(index as usize).copied().unwrap_or(0)
    }
    fn range_v4(&self, index: u32) -> u64 {
        self.ranges_v4.get(index as usize).copied().unwrap_or(0)
    }
}

impl TableV6 for Layout {
    fn gate_bits_v6(&self) -> u32 {
        self.gate_bits_v6
    }
    fn gate_v6(&self, word: u32) -> u64 {
        self.gate_v6.get(word as usize).copied().unwrap_or(0)
    }
    fn lines_v6(&self) -> u32 {
        homes(&self.hosts_v6)
    }
    fn line_v6(&self, line: u32) -> Option<&Line> {
        self.hosts_v6.get(line as usize)
    }
    fn block_lines_v6(&self) -> u32 {
        homes(&self.blocks_v6)
    }
    fn block_line_v6(&self, line: u32) -> Option<&Line> {
        self.blocks_v6.get(line as usize)
    }
    fn top_v6(&self, index: u32) -> u64 {
        self.top_v6.get(index as usize).copied().unwrap_or(0)
    }
    fn range_v6(&self, index: u32) -> [u64; 2] {
        self.ranges_v6.get(index as usize).copied().unwrap_or([0; 2])
    }
}
