//! Prefixes of one block as a run of ranges, each with the value of its longest prefix: all blocks when a table is laid
//! out, and single ones anew when a prefix in them or around them has changed.

use filter_common::lookup::prefixes::{Block, LEVEL_32, LEVEL_48, LEVEL_64};

/// The last digit of all blocks but those of 64 bits.
const DIGIT_MAX: u64 = 0xffff;
/// A prefix of IPv4, or the upper 32 bits of one of IPv6.
pub type Short = (u32, u8, u32);
/// A prefix of IPv6: address in halves, length, value.
pub type Long = (u64, u64, u8, u32);
/// Where ranges start, and their values: each up to the next.
pub type Run = Vec<(u64, u32)>;

/// A block of IPv6: key, level, and what stands in it.
pub(super) struct Placed {
    pub(super) key: u64,
    pub(super) level: u64,
    pub(super) block: Block,
}

pub(super) fn place_run(ranges: &mut Vec<[u64; 2]>, run: &[(u64, u32)]) -> u32 {
    let start = ranges.len() as u32;
    ranges.extend(run.iter().map(|(at, value)| [*at, u64::from(*value)]));
    start
}

/// What a block holds: one value, or a run that `place` puts somewhere.
pub fn block_of<E>(
    run: &[(u64, u32)],
    place: impl FnOnce(&[(u64, u32)]) -> Result<u32, E>,
) -> Result<Block, E> {
    match run {
        [(_, value)] => Ok(Block::uniform(*value)),
        _ => Ok(Block {
            start: place(run)?,
            length: run.len() as u32,
        }),
    }
}

/// What holds in a /16, by what is around it and by the longer prefixes in it.
pub fn top_run(around: u32, items: impl Iterator<Item = Short>) -> Run {
    let items = items.map(|(address, length, value)| {
        let start = u64::from(address & 0xffff);
        (start, start + (1 << (32 - length)) - 1, value)
    });
    flatten(around, DIGIT_MAX, items)
}

/// The level of the blocks that prefixes of this length stand in, and the bits of their keys.
pub const fn level_of(length: u8) -> (u64, u8) {
    match length {
        64.. => (LEVEL_64, 64),
        48.. => (LEVEL_48, 48),
        _ => (LEVEL_32, 32),
    }
}

/// What holds in a block of IPv6, by what is around it and by the prefixes in it.
pub fn block_run(level: u64, around: u32, items: impl Iterator<Item = Long>) -> Run {
    let digit_max = if level == LEVEL_64 { u64::MAX } else { DIGIT_MAX };
    let items = items.map(|(upper, lower, length, value)| {
        let (start, last) = match level {
            LEVEL_64 => span(lower, 128 - u32::from(length)),
            LEVEL_48 => span(upper & 0xffff, 64 - u32::from(length)),
            _ => span(upper >> 16 & 0xffff, 48 - u32::from(length)),
        };
        (start, last, value)
    });
    flatten(around, digit_max, items)
}

/// Of a place that always has room.
fn placed(run: &[(u64, u32)], place: &mut impl FnMut(&[(u64, u32)]) -> u32) -> Block {
    let Ok(block) = block_of(run, |run| Ok::<_, std::convert::Infallible>(place(run)));
    block
}

/// The words for each /16.
pub(super) fn tops(prefixes: &[Short], mut place: impl FnMut(&[(u64, u32)]) -> u32) -> Vec<u64> {
    let mut around = vec![0u32; 1 << 16];
    for (address, length, value) in prefixes.iter().filter(|(_, length, _)| *length <= 16) {
        let first = (address >> 16) as usize;
        around[first..first + (1 << (16 - length))].fill(*value);
    }
    let mut words: Vec<u64> = around
        .iter()
        .map(|value| Block::uniform(*value).pack(0))
        .collect();
    let longer: Vec<&Short> = prefixes.iter().filter(|(_, length, _)| *length > 16).collect();
    for group in longer.chunk_by(|(a, ..), (b, ..)| a >> 16 == b >> 16) {
        let top = (group[0].0 >> 16) as usize;
        let run = top_run(around[top], group.iter().map(|item| **item));
        words[top] = placed(&run, &mut place).pack(0);
    }
    words
}

/// The blocks of IPv6 prefixes of 32 bits and more.
pub(super) fn blocks(prefixes: &[Long], mut place: impl FnMut(&[(u64, u32)]) -> u32) -> Vec<Placed> {
    let mut all = Vec::new();
    let mut chain: Vec<&Long> = Vec::new();
    let mut open: [Option<Open>; 3] = [None, None, None];
    for prefix in prefixes {
        let (upper, _, length, _) = *prefix;
        while chain.last().is_some_and(|around| !holds(around, prefix)) {
            chain.pop();
        }
        if length >= 32 {
            let (level, bits) = level_of(length);
            let key = if bits == 64 {
                upper
            } else {
                upper >> (64 - bits) << (64 - bits)
            };
            let slot = &mut open[level as usize - 1];
            if slot.as_ref().is_none_or(|open| open.key != key) {
                let around = chain.iter().rev().find(|around| around.2 < bits);
                let next = Open {
                    key,
                    around: around.map_or(0, |around| around.3),
                    items: Vec::new(),
                };
                all.extend(slot.replace(next).map(|open| open.close(level, &mut place)));
            }
            if let Some(open) = slot {
                open.items.push(*prefix);
            }
        }
        chain.push(prefix);
    }
    for (slot, level) in open.into_iter().zip(LEVEL_64..) {
        all.extend(slot.map(|open| open.close(level, &mut place)));
    }
    all
}

/// A prefix from where it starts to its last.
fn span(start: u64, free_bits: u32) -> (u64, u64) {
    let width = if free_bits >= 64 {
        u64::MAX
    } else {
        (1 << free_bits) - 1
    };
    (start, start | width)
}

/// A block whose prefixes are still coming.
struct Open {
    key: u64,
    around: u32,
    items: Vec<Long>,
}

impl Open {
    fn close(self, level: u64, place: &mut impl FnMut(&[(u64, u32)]) -> u32) -> Placed {
        let run = block_run(level, self.around, self.items.into_iter());
        Placed {
            key: self.key,
            level,
            block: placed(&run, place),
        }
    }
}

fn holds(outer: &Long, inner: &Long) -> bool {
    let whole = |long: &Long| u128::from(long.0) << 64 | u128::from(long.1);
    outer.2 == 0 || outer.2 <= inner.2 && (whole(outer) ^ whole(inner)) >> (128 - u32::from(outer.2)) == 0
}

/// Ranges one inside the other, wider ones first, as one list of starts, each with the value up to the next.
fn flatten(around: u32, digit_max: u64, items: impl Iterator<Item = (u64, u64, u32)>) -> Run {
    let mut run = vec![(0, around)];
    let mut begin = |at: u64, value: u32| {
        if let Some(last) = run.last_mut().filter(|last| last.0 == at) {
            last.1 = value;
        } else {
            run.push((at, value));
        }
        if let [.., (_, before), (_, last)] = run.as_slice()
            && before == last
        {
            run.pop();
        }
    };
    let mut chain: Vec<(u64, u32)> = vec![(digit_max, around)];
    let end = |chain: &mut Vec<(u64, u32)>, before: Option<u64>, begin: &mut dyn FnMut(u64, u32)| {
        while let [.., (_, below), (last, _)] = chain.as_slice()
            && before.is_none_or(|start| *last < start)
        {
            if *last != digit_max {
                begin(last + 1, *below);
            }
            chain.pop();
        }
    };
    for (start, last, value) in items {
        end(&mut chain, Some(start), &mut begin);
        begin(start, value);
        chain.push((last, value));
    }
    end(&mut chain, None, &mut begin);
    run
}
