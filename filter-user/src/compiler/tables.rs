//! What a compile gives: plain tables, of the values that kernel and host share and of nothing else, so that whoever
//! walks them needs no more than `filter-common`.

use filter_common::abi::{Class, LimitSet, Owner, Service, Source};

/// A prefix as the kernel's tries take it: length and address, host bits zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key<const N: usize> {
    pub address: [u8; N],
    pub length: u8,
}

/// All tables of one generation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compiled {
    pub flags: u32,
    pub row_words: u32,
    /// Source prefixes to `lookup::Value`s.
    pub sources_v4: Vec<(Key<4>, u32)>,
    pub sources_v6: Vec<(Key<16>, u32)>,
    /// What the values mean that are no single owner.
    pub sources: Vec<Source>,
    /// Destination prefixes, IPv4 as ::ffff:a.b.c.d, to class numbers.
    pub addresses: Vec<(Key<16>, u32)>,
    pub classes: Vec<Class>,
    pub ports: Vec<u64>,
    pub port_masks: Vec<u64>,
    pub rows: Vec<u64>,
    pub grants: Vec<u32>,
    /// Single addresses that an owner names beside a prefix around them; IPv4 as ::ffff:a.b.c.d.
    pub doubled: Vec<(Key<16>, u32)>,
    pub owners: Vec<Owner>,
    pub port_sets: Vec<u64>,
    pub limits: Vec<LimitSet>,
    pub services: Vec<Service>,
    /// Buckets of the sources' own, in lines for each unit; 0 where there is no such limit.
    pub source_lines: u32,
    pub room: Room,
}

/// Entries left free for what is added while a generation is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Single addresses of each family.
    pub hosts_v4: u32,
    pub hosts_v6: u32,
    pub owners: u32,
    /// What more than one owner has to say of a source, and lists of owners.
    pub sources: u32,
    /// Of each of the tables that many owners share: rows, limits, port sets.
    pub shared: u32,
}

impl Room {
    /// As much again as there is, and never little: an addition that finds no room costs a generation, and a million
    /// cost few. `several` are the sources that more than one owner has.
    pub fn for_more(owners: usize, sources: usize, several: usize) -> Self {
        const LEAST: usize = 16_384;
        const SHARED_LEAST: usize = 4_096;
        let more = |entries: usize| entries.max(LEAST) as u32;
        Self {
            hosts_v4: more(sources),
            hosts_v6: more(sources),
            owners: more(owners),
            sources: several.max(owners / 16).max(SHARED_LEAST) as u32,
            shared: (owners / 32).max(SHARED_LEAST) as u32,
        }
    }
}
