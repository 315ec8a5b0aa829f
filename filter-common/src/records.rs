//! Drop accounting: what every dropped or observed packet is counted under until the daemon has written it down.
//!
//! A fixed table, of two halves that the daemon swaps: packets go to the half of the epoch in force, the other one is
//! read and cleared. A key has a line of its own while there is room; what finds none is counted by reason and source
//! prefix, and what finds no room there by reason alone. Nothing is evicted, nothing is counted twice, nobody is woken.
//! Two CPUs may give the same key a line each: who reads adds them up.

mod key;
mod read;

pub use key::{Key, Sighting};
pub use read::{Ports, Record, RecordKey, Tally, has_ports, read_line, read_more};

use key::{FAMILY_V4, FAMILY_V6, READY};

use crate::bounds::{RECORD_BUCKETS, RECORD_PREFIXES, RECORD_SLOTS, RECORD_WAYS};

/// Words of a line: six of the key, then the count and the ports.
pub const LINE_WORDS: usize = 8;
const META: usize = 5;
const COUNT: usize = 6;
const PORTS: usize = 7;
/// Words of a prefix' place: the key, and the count.
pub const PREFIX_WORDS: usize = 2;

/// Places behind the prefixes: one for each reason and verdict.
pub const REST: u32 = 64;
/// Places of one half beside its lines.
pub const MORE: u32 = RECORD_PREFIXES + REST;
/// Where large counts are put down, of one half: the lines', then the others'.
pub const SPILLS: u32 = RECORD_SLOTS + MORE;

/// A count is packets (24 bits) and bytes (40): one addition for both. Long before either is full, it is put down.
const BYTES_SHIFT: u32 = 24;
const SPILL: u64 = 1 << 23 | 1 << 63;

/// Keys in a bucket up to which the first of its buckets takes a key; beyond, the emptier of two does.
const FIRST_UNTIL: u32 = 3;
/// Places that a prefix may be in: those of one cache line.
const PREFIX_TRIES: u32 = 4;
const _: () = assert!(RECORD_PREFIXES.is_multiple_of(PREFIX_TRIES));

const EVERY_BYTE: u64 = 0x0101_0101_0101_0101;
const TOP_BITS: u64 = EVERY_BYTE << 7;

/// Words that all CPUs share.
pub trait Words {
    fn load(&self, word: usize) -> u64;
    /// Not while others may write it.
    fn store(&self, word: usize, value: u64);
    /// What the word held before.
    fn add(&self, word: usize, value: u64) -> u64;
    fn or(&self, word: usize, bits: u64);
    fn swap(&self, word: usize, value: u64) -> u64;
    fn compare_exchange(&self, word: usize, old: u64, new: u64) -> Result<(), u64>;
    /// The second lowest 16 bits of a word: whichever CPU is last, has the last word.
    fn store_second_half(&self, word: usize, value: u16);
}

/// The table in memory, both halves behind each other.
pub trait Memory {
    type Words: Words;
    fn epoch(&self) -> u64;
    fn seed(&self) -> u64;
    fn tags(&self, index: u32) -> Option<Self::Words>;
    fn line(&self, index: u32) -> Option<Self::Words>;
    fn more(&self, index: u32) -> Option<Self::Words>;
    fn spill(&self, index: u32) -> Option<Self::Words>;

    // The rarer stages, called through here so that the kernel can verify each by itself.

    /// `add_elsewhere`, for the packet and judgement at hand.
    fn elsewhere(&self, key: &Key, sighting: Sighting);
    /// `put_down`.
    fn put_down(&self, index: u32, count: u64);
}

/// The two buckets that a key may be in, as the hash has them.
#[inline(always)]
fn first_bucket(hash: u64) -> u32 {
    (hash >> 52) as u32 & (RECORD_BUCKETS - 1)
}

#[inline(always)]
fn second_bucket(hash: u64) -> u32 {
    (hash >> 24) as u32 & (RECORD_BUCKETS - 1)
}

/// Never 0, which is a free place.
#[inline(always)]
fn tag(hash: u64) -> u64 {
    hash >> 11 & 0x7f | 0x80
}

/// The top bit of each byte that is the tag; above the lowest such byte others may be marked wrongly.
#[inline(always)]
fn matching(tags: u64, tag: u64) -> u64 {
    let differs = tags ^ tag.wrapping_mul(EVERY_BYTE);
    differs.wrapping_sub(EVERY_BYTE) & !differs & TOP_BITS
}

/// The number of the byte whose top bit is the lowest one set.
#[inline(always)]
fn lowest(marks: u64) -> u32 {
    let bit = (marks & marks.wrapping_neg()) >> 7;
    (bit.wrapping_mul(0x0001_0203_0405_0607) >> 56) as u32 & (RECORD_WAYS - 1)
}

#[inline(always)]
fn half(epoch: u64) -> u32 {
    epoch as u32 & 1
}

/// Counts a packet that was dropped or observed: straight where its key has the place that it has nearly always.
#[inline(always)]
pub fn record<M: Memory>(memory: &M, key: &Key, sighting: Sighting) {
    let half = half(memory.epoch());
    let hash = key.hash(memory.seed());
    let bucket = half * RECORD_BUCKETS + first_bucket(hash);
    let Some(tags) = memory.tags(bucket) else { return };
    let marks = matching(tags.load(0), tag(hash));
    if marks != 0 {
        let index = bucket * RECORD_WAYS + lowest(marks);
        if seen_again(memory, half, index, key, hash, sighting) {
            return;
        }
    }
    memory.elsewhere(key, sighting);
}

/// Counts the packet if the line is its key's.
#[inline(always)]
fn seen_again<M: Memory>(
    memory: &M,
    half: u32,
    index: u32,
    key: &Key,
    hash: u64,
    sighting: Sighting,
) -> bool {
    let Some(line) = memory.line(index) else {
        return false;
    };
    // Others come after: this one says that they are whole.
    let differs = line.load(META) ^ key.meta(hash)
        | line.load(1) ^ key.words[1]
        | line.load(3) ^ key.words[3]
        | line.load(4) ^ key.words[4]
        | line.load(0) ^ key.words[0]
        | line.load(2) ^ key.words[2];
    if differs != 0 {
        return false;
    }
    let ports = line.load(PORTS);
    let bits = sighting.ports(ports as u16);
    if ports | bits != ports {
        line.or(PORTS, bits);
    }
    if (ports >> 16) as u16 != sighting.source_port {
        line.store_second_half(PORTS, sighting.source_port);
    }
    let spill = half * SPILLS + index - half * RECORD_SLOTS;
    count(memory, &line, COUNT, spill, sighting);
    true
}

#[inline(always)]
fn count<M: Memory>(memory: &M, words: &M::Words, word: usize, spill: u32, sighting: Sighting) {
    let added = sighting.count();
    let now = words.add(word, added).wrapping_add(added);
    if now & SPILL != 0 {
        memory.put_down(spill, words.swap(word, 0));
    }
}

/// Adds what was taken out of a count to where large counts are. Called through `Memory`.
#[inline(always)]
pub fn put_down<M: Memory>(memory: &M, index: u32, count: u64) {
    if let Some(spill) = memory.spill(index) {
        spill.add(0, count & ((1 << BYTES_SHIFT) - 1));
        spill.add(1, count >> BYTES_SHIFT);
    }
}

/// The same as `record` for a key that is new, or elsewhere than most are. Called through `Memory`.
#[inline(always)]
pub fn add_elsewhere<M: Memory>(memory: &M, key: &Key, sighting: Sighting) {
    let half = half(memory.epoch());
    // Once more: handing it on would cost the common path a place on the stack, which has none left.
    let hash = key.hash(memory.seed());
    let at = half * RECORD_BUCKETS;
    let (first, second) = (at + first_bucket(hash), at + second_bucket(hash));
    let (Some(one), Some(other)) = (memory.tags(first), memory.tags(second)) else {
        return;
    };
    let (one, other) = (one.load(0), other.load(0));
    let is_full = |tags: u64| !tags & TOP_BITS == 0;
    if is_full(one) && is_full(other) && matching(one, tag(hash)) | matching(other, tag(hash)) == 0 {
        // In a flood nearly every packet: its key has no line, and gets none in this epoch.
        return beyond(memory, half, key, sighting);
    }
    if is_known(memory, half, (first, one), key, hash, sighting)
        || is_known(memory, half, (second, other), key, hash, sighting)
    {
        return;
    }
    let swapped = used(one) >= FIRST_UNTIL && used(other) < used(one);
    let (one, other) = if swapped {
        ((second, other), (first, one))
    } else {
        ((first, one), (second, other))
    };
    if is_new(memory, one, key, hash, sighting) || is_new(memory, other, key, hash, sighting) {
        return;
    }
    beyond(memory, half, key, sighting);
}

/// Looks for the key in a bucket with these tags.
#[inline(always)]
fn is_known<M: Memory>(
    memory: &M,
    half: u32,
    (bucket, tags): (u32, u64),
    key: &Key,
    hash: u64,
    sighting: Sighting,
) -> bool {
    let mut marks = matching(tags, tag(hash));
    for _ in 0..RECORD_WAYS {
        if marks == 0 {
            return false;
        }
        let index = bucket * RECORD_WAYS + lowest(marks);
        if seen_again(memory, half, index, key, hash, sighting) {
            return true;
        }
        marks &= marks - 1;
    }
    false
}

/// Takes a line of the bucket for the key, if there is one; its tags as they were a moment ago.
#[inline(always)]
fn is_new<M: Memory>(
    memory: &M,
    (bucket, mut seen): (u32, u64),
    key: &Key,
    hash: u64,
    sighting: Sighting,
) -> bool {
    if !seen & TOP_BITS == 0 {
        return false;
    }
    let Some(tags) = memory.tags(bucket) else {
        return false;
    };
    // Each failure is a place that another CPU has taken: there are no more of them than places.
    for _ in 0..=RECORD_WAYS {
        let free = !seen & TOP_BITS;
        if free == 0 {
            return false;
        }
        let way = lowest(free);
        match tags.compare_exchange(0, seen, seen | tag(hash) << (way * 8)) {
            Ok(()) => return write(memory, bucket * RECORD_WAYS + way, key, hash, sighting),
            Err(now) => seen = now,
        }
    }
    false
}

#[inline(always)]
fn used(tags: u64) -> u32 {
    ((tags >> 7 & EVERY_BYTE).wrapping_mul(EVERY_BYTE) >> 56) as u32
}

#[inline(always)]
fn write<M: Memory>(memory: &M, index: u32, key: &Key, hash: u64, sighting: Sighting) -> bool {
    let Some(line) = memory.line(index) else {
        return false;
    };
    line.store(0, key.words[0]);
    line.store(1, key.words[1]);
    line.store(2, key.words[2]);
    line.store(3, key.words[3]);
    line.store(4, key.words[4]);
    let port = sighting.source_port as u64;
    line.store(PORTS, sighting.ports(sighting.source_port) | port << 16 | port);
    line.store(COUNT, sighting.count());
    // A full barrier: from here on the line is whole to every CPU.
    line.swap(META, key.meta(hash));
    true
}

/// By reason and source prefix, or by reason alone.
#[inline(always)]
fn beyond<M: Memory>(memory: &M, half: u32, key: &Key, sighting: Sighting) {
    let prefix = prefix_key(key);
    let line = half * MORE + prefix_line(prefix, memory.seed());
    let load = |step| Some(memory.more(line + step)?.load(0));
    let (Some(a), Some(b), Some(c), Some(d)) = (load(0), load(1), load(2), load(3)) else {
        return;
    };
    // No branch for each place: which one it is cannot be foreseen, and a wrong guess costs more than to ask all four.
    let is = |found| equal(found, prefix);
    let (is_a, is_b, is_c, is_d) = (is(a), is(b), is(c), is(d));
    let is_known = is_a | is_b | is_c | is_d;
    let step = (is_b | is_d) >> 63 | (is_c | is_d) >> 63 << 1;
    let (own, rest) = (line as u64 + step, (half * MORE + rest(prefix)) as u64);
    let mut index = (rest ^ (rest ^ own) & 0u64.wrapping_sub(is_known >> 63)) as u32;
    if (is_known | a & b & c & d) & READY == 0
        && let Some(new) = new_place(memory, line, prefix)
    {
        index = new;
    }
    let Some(place) = memory.more(index) else { return };
    let spill = half * (SPILLS - MORE) + RECORD_SLOTS + index;
    count(memory, &place, 1, spill, sighting);
}

/// The top bit where two keys of prefixes are equal, or free places; else it is not set.
#[inline(always)]
fn equal(one: u64, other: u64) -> u64 {
    let differs = one ^ other;
    differs.wrapping_sub(1) & !differs
}

/// Takes a place for the prefix, or finds that it has one by now.
#[inline(always)]
fn new_place<M: Memory>(memory: &M, line: u32, prefix: u64) -> Option<u32> {
    for step in 0..PREFIX_TRIES {
        let index = line + step;
        match memory.more(index)?.compare_exchange(0, 0, prefix) {
            Ok(()) => return Some(index),
            Err(other) if other == prefix => return Some(index),
            Err(_) => {}
        }
    }
    None
}

/// The first of the places that a prefix may be in.
#[inline(always)]
fn prefix_line(prefix: u64, seed: u64) -> u32 {
    let hash = (prefix ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let lines = (RECORD_PREFIXES / PREFIX_TRIES) as u64;
    (((hash >> 32) * lines) >> 32) as u32 * PREFIX_TRIES
}

/// Where a reason and verdict are counted whose prefix has no place.
#[inline(always)]
fn rest(prefix: u64) -> u32 {
    let reason = (prefix >> 40) as u32 & 31;
    let observed = (prefix >> 49) as u32 & 1;
    RECORD_PREFIXES + observed * 32 + reason
}

/// The source's /16 or /32 beside reason, verdict and family.
#[inline(always)]
fn prefix_key(key: &Key) -> u64 {
    let meta = key.words[META];
    let family = meta >> 50 & 3;
    let prefix = match family {
        FAMILY_V4 => key.words[1] & 0xffff_0000,
        FAMILY_V6 => key.words[0] >> 32,
        _ => 0,
    };
    prefix | meta & (0xff << 40 | 0x3 << 48 | 0x3 << 50) | READY
}

#[cfg(test)]
mod tests;
