//! Drop accounting: what every dropped or observed packet is counted under until the daemon has written it down.
//!
//! A fixed table, of two halves that the daemon swaps: packets go to the half of the epoch in force, the other one is
//! read and cleared. A key has a line of its own while there is room; what finds none is counted by reason and source
//! prefix, and what finds no room there by reason alone. Nothing is evicted, nothing is counted twice, nobody is woken.
//! Two CPUs may give the same key a line each: who reads adds them up.

use crate::bounds::{RECORD_BUCKETS, RECORD_PREFIXES, RECORD_SLOTS, RECORD_WAYS};
use crate::parse::{Address, Family, Packet};
use crate::verdict::{Judgement, NO_SERVICE, Reason, Verdict};

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

/// Last to be set in a key's last word: the line is whole.
const READY: u64 = 1 << 63;
const CHECK_SHIFT: u32 = 52;
const CHECK: u64 = 0x7ff << CHECK_SHIFT;

/// A count is packets (24 bits) and bytes (40): one addition for both. Long before either is full, it is put down.
const BYTES_SHIFT: u32 = 24;
const SPILL: u64 = 1 << 23 | 1 << 63;

/// Keys in a bucket up to which the first of its buckets takes a key; beyond, the emptier of two does.
const FIRST_UNTIL: u32 = 3;
/// Buckets that a key may be in.
const CHOICES: u32 = 4;
/// Places that a prefix may be in.
const PREFIX_TRIES: u32 = 8;

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

/// What a packet adds to its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    pub bytes: u32,
    pub source_port: u16,
    pub tcp_flags: u8,
}

impl Sighting {
    #[inline(always)]
    pub fn of(packet: &Packet, bytes: u32) -> Self {
        Self {
            bytes,
            source_port: packet.source_port,
            tcp_flags: packet.tcp_flags,
        }
    }

    #[inline(always)]
    fn count(self) -> u64 {
        1 | (self.bytes as u64) << BYTES_SHIFT
    }

    /// Bits that are only ever set: flags, that there was another port than the first, and which ports, roughly.
    #[inline(always)]
    fn ports(self, first: u16) -> u64 {
        let mixed = (self.source_port as u32).wrapping_mul(40_503) & 0xffff;
        let several = (self.source_port != first) as u64;
        (self.tcp_flags as u64) << 32 | several << 40 | 1 << (41 + ((mixed * 23) >> 16))
    }
}

/// A record's key in the words of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub words: [u64; 6],
}

/// 0: the source is not known (what is no IP, or broken before it).
const FAMILY_V4: u64 = 1;
const FAMILY_V6: u64 = 2;

impl Key {
    #[inline(always)]
    pub fn of(packet: &Packet, judgement: &Judgement, interface: u32) -> Self {
        let family = if matches!(packet.family, Family::V6) {
            FAMILY_V6
        } else {
            packet.source.is_mapped() as u64
        };
        let service = judgement.service as u64 & 0xffff;
        Self {
            words: [
                packet.source.upper,
                packet.source.lower,
                packet.destination.upper,
                packet.destination.lower,
                judgement.owner as u64 | service << 32 | (packet.destination_port as u64) << 48,
                interface as u64
                    | (packet.protocol_number as u64) << 32
                    | (judgement.reason as u64) << 40
                    | (judgement.verdict as u64) << 48
                    | family << 50,
            ],
        }
    }

    /// Sums of products in parallel: one pass of the multiplier, not six in a row.
    #[inline(always)]
    pub fn hash(&self, seed: u64) -> u64 {
        let [a, b, c, d, e, f] = self.words;
        let sum = (a ^ seed)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add((b ^ seed).wrapping_mul(0xc2b2_ae3d_27d4_eb4f))
            .wrapping_add(c.wrapping_mul(0x1656_67b1_9e37_79f9))
            .wrapping_add(d.wrapping_mul(0x27d4_eb2f_1656_67c5))
            .wrapping_add(e.wrapping_mul(0x85eb_ca77_c2b2_ae63))
            .wrapping_add(f.wrapping_mul(0xff51_afd7_ed55_8ccd));
        let mixed = (sum ^ sum >> 32).wrapping_mul(0x9e6c_63d0_876a_68ee | 1);
        mixed ^ mixed >> 29
    }

    /// The last word as it stands in a line.
    #[inline(always)]
    fn meta(&self, hash: u64) -> u64 {
        self.words[META] | (hash << CHECK_SHIFT) & CHECK | READY
    }
}

/// Which of its buckets, as the hash has them.
#[inline(always)]
fn bucket(hash: u64, choice: u32) -> u32 {
    let bits = match choice {
        0 => hash >> 52,
        1 => hash >> 24,
        2 => hash >> 36,
        _ => (hash >> 52) ^ (hash >> 24) ^ 0x555,
    };
    bits as u32 & (RECORD_BUCKETS - 1)
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
    let bucket = half * RECORD_BUCKETS + bucket(hash, 0);
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
    let hash = key.hash(memory.seed());
    if is_known(memory, half, key, hash, sighting) || is_new(memory, half, key, hash, sighting) {
        return;
    }
    beyond(memory, half, key, sighting);
}

/// Looks wherever the key may be.
#[inline(always)]
fn is_known<M: Memory>(memory: &M, half: u32, key: &Key, hash: u64, sighting: Sighting) -> bool {
    let mut full = true;
    for choice in 0..CHOICES {
        // The last ones take keys only where the first two are full.
        if choice == 2 && !full {
            return false;
        }
        let bucket = half * RECORD_BUCKETS + bucket(hash, choice);
        let Some(tags) = memory.tags(bucket) else {
            return false;
        };
        let tags = tags.load(0);
        full &= tags & TOP_BITS == TOP_BITS;
        let mut marks = matching(tags, tag(hash));
        for _ in 0..RECORD_WAYS {
            if marks == 0 {
                break;
            }
            let index = bucket * RECORD_WAYS + lowest(marks);
            if seen_again(memory, half, index, key, hash, sighting) {
                return true;
            }
            marks &= marks - 1;
        }
    }
    false
}

/// Takes a line for the key, if one of its buckets has any.
#[inline(always)]
fn is_new<M: Memory>(memory: &M, half: u32, key: &Key, hash: u64, sighting: Sighting) -> bool {
    let filled = |choice| match memory.tags(half * RECORD_BUCKETS + bucket(hash, choice)) {
        Some(tags) => used(tags.load(0)),
        None => RECORD_WAYS,
    };
    let first = filled(0);
    let swapped = first >= FIRST_UNTIL && filled(1) < first;
    for choice in 0..CHOICES {
        let choice = if choice < 2 && swapped { 1 - choice } else { choice };
        let bucket = half * RECORD_BUCKETS + bucket(hash, choice);
        let Some(tags) = memory.tags(bucket) else {
            return false;
        };
        let mut seen = tags.load(0);
        // Each failure is a place that another CPU has taken: there are no more of them than places.
        for _ in 0..=RECORD_WAYS {
            let free = !seen & TOP_BITS;
            if free == 0 {
                break;
            }
            let way = lowest(free);
            match tags.compare_exchange(0, seen, seen | tag(hash) << (way * 8)) {
                Ok(()) => return write(memory, bucket * RECORD_WAYS + way, key, hash, sighting),
                Err(now) => seen = now,
            }
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
    let wanted = prefix_key(key);
    let hash = (wanted ^ memory.seed()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let start = (((hash >> 32) * RECORD_PREFIXES as u64) >> 32) as u32;
    for step in 0..PREFIX_TRIES {
        let index = if start + step < RECORD_PREFIXES {
            start + step
        } else {
            start + step - RECORD_PREFIXES
        };
        let Some(place) = memory.more(half * MORE + index) else {
            return;
        };
        let mut found = place.load(0);
        if found == 0 {
            found = match place.compare_exchange(0, 0, wanted) {
                Ok(()) => wanted,
                Err(other) => other,
            };
        }
        if found == wanted {
            count(memory, &place, 1, half * SPILLS + RECORD_SLOTS + index, sighting);
            return;
        }
    }
    let meta = key.words[META];
    let reason = (meta >> 40) as u32 & 31;
    let observed = (meta >> 49) as u32 & 1;
    let index = RECORD_PREFIXES + observed * 32 + reason;
    if let Some(place) = memory.more(half * MORE + index) {
        count(memory, &place, 1, half * SPILLS + RECORD_SLOTS + index, sighting);
    }
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

/// What one record is about: packets with equal keys share a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    pub source: Address,
    pub destination: Address,
    /// `None`: the packet is none of IP, or broken before its addresses, which then say nothing.
    pub family: Option<Family>,
    pub service: u32,
    pub owner: u32,
    pub interface: u32,
    pub destination_port: u16,
    /// As the packet names it.
    pub protocol: u8,
    pub reason: Reason,
    pub verdict: Verdict,
}

/// What a half held under one key. For whoever reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Exact {
        key: RecordKey,
        tally: Tally,
        ports: Ports,
    },
    Overflow {
        /// With its length, 16 or 32; `None` where not even the prefix found room, or there is none.
        prefix: Option<(Address, Family)>,
        reason: Reason,
        verdict: Verdict,
        tally: Tally,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub packets: u64,
    pub bytes: u64,
}

impl Tally {
    fn of(count: u64, spill: [u64; 2]) -> Self {
        Self {
            packets: (count & ((1 << BYTES_SHIFT) - 1)).wrapping_add(spill[0]),
            bytes: (count >> BYTES_SHIFT).wrapping_add(spill[1]),
        }
    }
}

/// Source ports and TCP flags of a record's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    pub first: u16,
    pub last: u16,
    /// Whether all packets had the first.
    pub same: bool,
    /// No fewer ports than this were seen.
    pub distinct_min: u32,
    /// All that any of them had.
    pub tcp_flags: u8,
}

impl Ports {
    fn of(word: u64) -> Self {
        let same = word >> 40 & 1 == 0;
        Self {
            first: word as u16,
            last: (word >> 16) as u16,
            same,
            distinct_min: (word >> 41).count_ones().max(if same { 1 } else { 2 }),
            tcp_flags: (word >> 32) as u8,
        }
    }

    /// Of two lines of one key.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        let same = self.same && other.same && self.first == other.first;
        let distinct = self.distinct_min.max(other.distinct_min);
        Self {
            first: self.first,
            last: other.last,
            same,
            distinct_min: distinct.max(if same { 1 } else { 2 }),
            tcp_flags: self.tcp_flags | other.tcp_flags,
        }
    }
}

/// What a line holds; `None` for a free one.
pub fn read_line(words: [u64; LINE_WORDS], spill: [u64; 2]) -> Option<Record> {
    let meta = words[META];
    if meta & READY == 0 {
        return None;
    }
    let address = |upper, lower| Address { upper, lower };
    let service = (words[4] >> 32) as u32 & 0xffff;
    Some(Record::Exact {
        key: RecordKey {
            source: address(words[0], words[1]),
            destination: address(words[2], words[3]),
            family: family(meta),
            service: if service == 0xffff { NO_SERVICE } else { service },
            owner: words[4] as u32,
            interface: meta as u32,
            destination_port: (words[4] >> 48) as u16,
            protocol: (meta >> 32) as u8,
            reason: reason(meta),
            verdict: verdict(meta),
        },
        tally: Tally::of(words[COUNT], spill),
        ports: Ports::of(words[PORTS]),
    })
}

/// What one of the other places holds; `None` for a free one. `index` is its place in the half.
pub fn read_more(index: u32, words: [u64; PREFIX_WORDS], spill: [u64; 2]) -> Option<Record> {
    let tally = Tally::of(words[1], spill);
    if index < RECORD_PREFIXES {
        let key = words[0];
        let prefix = match family(key) {
            Some(Family::V4) => Some((Address::of_v4(key as u32 & 0xffff_0000), Family::V4)),
            Some(Family::V6) => Some((
                Address {
                    upper: key << 32,
                    lower: 0,
                },
                Family::V6,
            )),
            None => None,
        };
        return (key & READY != 0).then_some(Record::Overflow {
            prefix,
            reason: reason(key),
            verdict: verdict(key),
            tally,
        });
    }
    let index = index - RECORD_PREFIXES;
    (tally != Tally::default()).then_some(Record::Overflow {
        prefix: None,
        reason: Reason::from_number(index as u8 & 31).unwrap_or(Reason::Internal),
        verdict: if index >= 32 {
            Verdict::Observe
        } else {
            Verdict::Drop
        },
        tally,
    })
}

fn family(meta: u64) -> Option<Family> {
    match meta >> 50 & 3 {
        FAMILY_V4 => Some(Family::V4),
        FAMILY_V6 => Some(Family::V6),
        _ => None,
    }
}

fn reason(meta: u64) -> Reason {
    Reason::from_number((meta >> 40) as u8).unwrap_or(Reason::Internal)
}

fn verdict(meta: u64) -> Verdict {
    match meta >> 48 & 3 {
        2 => Verdict::Observe,
        _ => Verdict::Drop,
    }
}

/// The TCP and UDP protocols carry ports; what else has none.
pub fn has_ports(protocol: u8) -> bool {
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    matches!(protocol, TCP | UDP)
}

#[cfg(test)]
mod tests;
