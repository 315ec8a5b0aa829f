//! Single entries of the tables in force, changed while packets flow.
//!
//! One writer, words at a time: a packet sees an address as it was or as it is. A slot's key is written before its
//! value, and a removed address keeps its slot until the next generation, or until another IPv4 address takes it in one
//! store. Ranges are written behind all others, and no place of them is used twice.

mod places;

use std::io;
use std::sync::atomic::Ordering;

use filter_common::abi::{LimitSet, Owner, Source, names};
use filter_common::lookup::PORT_SET_WORDS;
use filter_common::lookup::prefixes::Line;

pub use places::{Claims, Write};

use super::load::{Generation, LoadError};
use super::raw::Barrier;
use super::written::Table;
use crate::compiler::prefixes::Homes;

/// There is no place left in a table: the next generation has more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// Entries of a generation's table.
pub fn length(generation: &Generation, name: &'static str) -> Result<u32, LoadError> {
    Ok(generation.map(name)?.info()?.max_entries())
}

/// The tables of the generation in force that single changes touch.
pub struct Edit {
    homes: Homes,
    gate_v4: Table<u64>,
    hosts_v4: Table<Line>,
    top_v4: Table<u64>,
    ranges_v4: Table<u64>,
    gate_v6: Table<u64>,
    hosts_v6: Table<Line>,
    blocks_v6: Table<Line>,
    top_v6: Table<u64>,
    ranges_v6: Table<[u64; 2]>,
    sources: Table<Source>,
    grants: Table<u64>,
    owners: Table<Owner>,
    limits: Table<LimitSet>,
    rows: Table<u64>,
    port_sets: Table<u64>,
    barrier: Barrier,
}

impl Edit {
    pub fn of(generation: &Generation) -> Result<Self, LoadError> {
        Ok(Self {
            homes: generation.homes,
            gate_v4: Table::of(generation, names::GATE_V4)?,
            hosts_v4: Table::of(generation, names::HOSTS_V4)?,
            top_v4: Table::of(generation, names::TOP_V4)?,
            ranges_v4: Table::of(generation, names::RANGES_V4)?,
            gate_v6: Table::of(generation, names::GATE_V6)?,
            hosts_v6: Table::of(generation, names::HOSTS_V6)?,
            blocks_v6: Table::of(generation, names::BLOCKS_V6)?,
            top_v6: Table::of(generation, names::TOP_V6)?,
            ranges_v6: Table::of(generation, names::RANGES_V6)?,
            sources: Table::of(generation, names::SOURCES)?,
            grants: Table::of(generation, names::GRANTS)?,
            owners: Table::of(generation, names::OWNERS)?,
            limits: Table::of(generation, names::LIMITS)?,
            rows: Table::of(generation, names::ROWS)?,
            port_sets: Table::of(generation, names::PORT_SETS)?,
            barrier: Barrier::new()
                .map_err(|error| LoadError::Object(format!("waiting for packets: {error}")))?,
        })
    }

    /// How many owners there is room for.
    pub fn owners(&self) -> u32 {
        self.owners.entries() as u32
    }

    /// How many sets of source ports there is room for, number 0 among them.
    pub fn port_sets(&self) -> u32 {
        (self.port_sets.entries() / PORT_SET_WORDS as usize) as u32
    }

    /// Returns when no packet is under way any more that was when it was called.
    pub fn wait_for_packets(&self) -> io::Result<()> {
        self.barrier.wait()
    }

    /// Whether these ranges stand here.
    pub fn is_run_v4(&self, start: u32, run: &[(u64, u32)]) -> bool {
        (start..).zip(run).all(|(at, range)| {
            let words = self.ranges_v4.words(at as usize);
            words.is_some_and(|words| words[0].load(Ordering::Relaxed) == word_of(range))
        })
    }

    pub fn is_run_v6(&self, start: u32, run: &[(u64, u32)]) -> bool {
        (start..).zip(run).all(|(at, (digit, value))| {
            let words = self.ranges_v6.words(at as usize);
            words.is_some_and(|words| {
                let word = |at: usize| words[at].load(Ordering::Relaxed);
                (word(0), word(1)) == (*digit, u64::from(*value))
            })
        })
    }

    /// Writes ranges, where nothing refers to them yet.
    pub fn set_run_v4(&self, start: u32, run: &[(u64, u32)]) -> Result<(), NoRoom> {
        for (at, range) in (start as usize..).zip(run) {
            store_all(&self.ranges_v4, at, &[word_of(range)])?;
        }
        Ok(())
    }

    pub fn set_run_v6(&self, start: u32, run: &[(u64, u32)]) -> Result<(), NoRoom> {
        for (at, (digit, value)) in (start as usize..).zip(run) {
            store_all(&self.ranges_v6, at, &[*digit, u64::from(*value)])?;
        }
        Ok(())
    }

    /// Writes what several owners or more than owners make of a source, where nothing refers to it yet.
    pub fn set_source(&self, number: u32, source: Source) -> Result<(), NoRoom> {
        let owners = u64::from(source.owners_start) | u64::from(source.owners_length) << 32;
        let words = [source.management, source.denied_until, owners];
        store_all(&self.sources, number as usize, &words)
    }

    pub fn source(&self, number: u32) -> Option<Source> {
        let words = self.sources.words(number as usize)?;
        let owners = words[2].load(Ordering::Relaxed);
        Some(Source {
            management: words[0].load(Ordering::Relaxed),
            denied_until: words[1].load(Ordering::Relaxed),
            owners_start: owners as u32,
            owners_length: (owners >> 32) as u32,
        })
    }

    pub fn grant(&self, position: u32) -> Option<u32> {
        Some(self.grants.words(position as usize)?[0].load(Ordering::Relaxed) as u32)
    }

    /// Writes a list of owners, where nothing refers to it yet.
    pub fn set_grants(&self, start: u32, owners: &[u32]) -> Result<(), NoRoom> {
        for (position, owner) in (start..).zip(owners) {
            store_all(&self.grants, position as usize, &[u64::from(*owner)])?;
        }
        Ok(())
    }

    pub fn set_row(&self, start: usize, row: &[u64]) -> Result<(), NoRoom> {
        set_words(&self.rows, start, row)
    }

    /// Writes a set of source ports, where no packet looks for it yet.
    pub fn set_port_set(&self, number: u32, words: &[u64]) -> Result<(), NoRoom> {
        set_words(&self.port_sets, number as usize * words.len(), words)
    }

    pub fn set_limits(&self, number: u32, limits: &LimitSet) -> Result<(), NoRoom> {
        let sets = [limits.packets, limits.bytes, limits.connections];
        let words = sets.map(|limit| [limit.cost, limit.span, u64::from(limit.shift)]);
        store_all(&self.limits, number as usize, words.as_flattened())
    }

    /// Writes an owner's grant; its end last.
    pub fn set_owner(&self, number: u32, owner: Owner) -> Result<(), NoRoom> {
        let ports = u64::from(owner.source_port_first) | u64::from(owner.source_port_last) << 16;
        let words = [
            (1, u64::from(owner.limits) | u64::from(owner.row) << 32),
            (2, ports | u64::from(owner.port_set) << 32),
            (3, u64::from(owner.publisher) | u64::from(owner.flags) << 32),
            (0, owner.end),
        ];
        words
            .into_iter()
            .try_for_each(|(word, value)| self.owners.store(number as usize, word, value))
            .ok_or(NoRoom)
    }

    /// The number of the limits of an owner that is there or was.
    pub fn limits_of(&self, number: u32) -> Option<u32> {
        Some(
            self.owners
                .words(number as usize)?
                .get(1)?
                .load(Ordering::Relaxed) as u32,
        )
    }

    pub fn set_end(&self, number: u32, end: u64) -> Result<(), NoRoom> {
        self.owners.store(number as usize, 0, end).ok_or(NoRoom)
    }
}

fn word_of((at, value): &(u64, u32)) -> u64 {
    at << 32 | u64::from(*value)
}

fn set_words(memory: &Table<u64>, start: usize, values: &[u64]) -> Result<(), NoRoom> {
    for (at, value) in values.iter().enumerate() {
        store_all(memory, start + at, &[*value])?;
    }
    Ok(())
}

/// The words of one value, the last of them last.
fn store_all<T: aya::Pod>(table: &Table<T>, entry: usize, words: &[u64]) -> Result<(), NoRoom> {
    let mut words = words.iter().enumerate();
    words
        .try_for_each(|(word, value)| table.store(entry, word, *value))
        .ok_or(NoRoom)
}

/// What an owner is granted, without the numbers that say where it stands.
#[cfg(test)]
#[derive(Debug, PartialEq)]
pub struct Granted {
    end: u64,
    source_ports: (u16, u16),
    port_set: Vec<u64>,
    row: Vec<u64>,
    packets: [u64; 2],
    flags: u32,
}

#[cfg(test)]
impl Edit {
    pub fn granted(&self, number: u32, row_words: usize) -> Granted {
        let word = |at: usize| self.owners.words(number as usize).unwrap()[at].load(Ordering::Relaxed);
        let read = |memory: &Table<u64>, number: u64, words: usize| -> Vec<u64> {
            let start = number as usize * words;
            let entries =
                (start..start + words).map(|at| memory.words(at).unwrap()[0].load(Ordering::Relaxed));
            entries.collect()
        };
        let limits = self.limits.words(word(1) as u32 as usize).unwrap();
        Granted {
            end: word(0),
            source_ports: (word(2) as u16, (word(2) >> 16) as u16),
            port_set: read(&self.port_sets, word(2) >> 32, PORT_SET_WORDS as usize),
            row: read(&self.rows, word(1) >> 32, row_words),
            packets: [0, 1].map(|at| limits[at].load(Ordering::Relaxed)),
            flags: (word(3) >> 32) as u32,
        }
    }
}
