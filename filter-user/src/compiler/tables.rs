//! What a compile gives: plain tables, of the values that kernel and host share and of nothing else, so that whoever
//! walks them needs no more than `filter-common`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use filter_common::abi::{Class, LimitSet, Owner, Service, Source};

/// A prefix as the kernel's tries take it: length and address, host bits zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key<const N: usize> {
    pub address: [u8; N],
    pub length: u8,
}

impl<const N: usize> Key<N> {
    /// Of a single address.
    pub const BITS: u8 = (N * 8) as u8;

    /// The prefix of this length that holds an address.
    pub fn cut(mut address: [u8; N], length: u8) -> Self {
        for (at, byte) in (0u8..).zip(&mut address) {
            *byte &= !(0xff_u16 >> length.saturating_sub(at * 8).min(8)) as u8;
        }
        Self { address, length }
    }

    pub fn is_single(&self) -> bool {
        self.length == Self::BITS
    }

    /// Itself as well.
    pub fn holds(&self, inner: &Self) -> bool {
        if self.length > inner.length {
            return false;
        }
        let (whole, rest) = (usize::from(self.length / 8), self.length % 8);
        self.address[..whole] == inner.address[..whole]
            && (rest == 0 || (self.address[whole] ^ inner.address[whole]) >> (8 - rest) == 0)
    }

    /// How many of the first bits of their addresses are the same.
    pub fn shared(&self, other: &Self) -> u8 {
        let bytes = (0u8..).zip(self.address.iter().zip(&other.address));
        let mut other = bytes.map(|(at, (one, other))| (at, one ^ other));
        other
            .find(|(_, bits)| *bits != 0)
            .map_or(Self::BITS, |(at, bits)| at * 8 + bits.leading_zeros() as u8)
    }

    /// The last single address in it: in the order of keys, all that it holds come before, or are it.
    pub fn last(mut self) -> Self {
        for (at, byte) in (0u8..).zip(&mut self.address) {
            *byte |= (0xff_u16 >> self.length.saturating_sub(at * 8).min(8)) as u8;
        }
        Self {
            length: Self::BITS,
            ..self
        }
    }

    pub fn ip(&self) -> Option<IpAddr> {
        match *self.address.as_slice() {
            [a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d).into()),
            ref bytes => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        }
    }
}

impl<const N: usize> std::fmt::Display for Key<N> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.ip() {
            Some(address) => write!(out, "{address}/{}", self.length),
            None => write!(out, "?/{}", self.length),
        }
    }
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
    /// Prefixes that an owner names beside one around them.
    pub doubled_v4: Vec<(Key<4>, u32)>,
    pub doubled_v6: Vec<(Key<16>, u32)>,
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
    /// Prefixes that are no single addresses, in each family that has some: as many again as there are, and these at
    /// least.
    pub prefixes: u32,
    /// Parts of the table that may be added to, whether anything stands there or not.
    pub parts: u32,
    /// What more than one owner has to say of a source.
    pub sources: u32,
    /// Positions in lists of owners.
    pub grants: u32,
    /// Of each of the tables that many owners share: rows, limits.
    pub shared: u32,
    /// Sets of source ports.
    pub port_sets: u32,
}

impl Room {
    /// As much again as there is, and never little: an addition that finds no room costs a generation, and a million
    /// cost few. `several` are the sources that more than one owner has.
    pub fn for_more(owners: usize, sources: usize, several: usize, grants: usize) -> Self {
        const LEAST: usize = 16_384;
        const SHARED_LEAST: usize = 4_096;
        const OWNERS_EACH: usize = 8;
        let more = |entries: usize| entries.max(LEAST) as u32;
        let sources_free = several.max(owners / 16).max(SHARED_LEAST);
        Self {
            hosts_v4: more(sources),
            hosts_v6: more(sources),
            owners: more(owners),
            prefixes: LEAST as u32,
            parts: 0,
            sources: sources_free as u32,
            grants: (sources_free * OWNERS_EACH).max(grants) as u32,
            shared: (owners / 32).max(SHARED_LEAST) as u32,
            port_sets: 0,
        }
    }
}
