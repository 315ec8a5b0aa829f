//! The table's words as whoever reads it knows them: records, with what their packets add up to.

use super::key::{FAMILY_V4, FAMILY_V6, READY};
use super::{BYTES_SHIFT, COUNT, LINE_WORDS, META, PORTS, PREFIX_WORDS};
use crate::bounds::RECORD_PREFIXES;
use crate::parse::{Address, Family};
use crate::verdict::{NO_SERVICE, Reason, Verdict};

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
