//! Single entries of the tables in force, changed while packets flow.
//!
//! One writer, words at a time: a packet sees an address as it was or as it is. A slot's key is written before its
//! value, and a removed address keeps its slot until the next generation, or until another IPv4 address takes it in one
//! store.

use std::sync::atomic::Ordering;

use filter_common::abi::{LimitSet, Owner, Source, names};
use filter_common::lookup::prefixes::{
    GATE_CELLS, GATE_HOSTS, Line, PROBES_MAX, REMOVED, SLOTS_V6, gate_cell_v4, gate_cell_v6, home_v4, home_v6,
};

use super::load::{Generation, LoadError};
use super::written::Table;
use crate::compiler::prefixes::Homes;

/// There is no place left in a table: the next generation has more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// The tables of the generation in force that single changes touch.
pub struct Edit {
    homes: Homes,
    gate_v4: Table<u64>,
    hosts_v4: Table<Line>,
    gate_v6: Table<u64>,
    hosts_v6: Table<Line>,
    sources: Table<Source>,
    grants: Table<u64>,
    owners: Table<Owner>,
    limits: Table<LimitSet>,
    rows: Table<u64>,
    port_sets: Table<u64>,
}

impl Edit {
    pub fn of(generation: &Generation) -> Result<Self, LoadError> {
        Ok(Self {
            homes: generation.homes,
            gate_v4: Table::of(generation, names::GATE_V4)?,
            hosts_v4: Table::of(generation, names::HOSTS_V4)?,
            gate_v6: Table::of(generation, names::GATE_V6)?,
            hosts_v6: Table::of(generation, names::HOSTS_V6)?,
            sources: Table::of(generation, names::SOURCES)?,
            grants: Table::of(generation, names::GRANTS)?,
            owners: Table::of(generation, names::OWNERS)?,
            limits: Table::of(generation, names::LIMITS)?,
            rows: Table::of(generation, names::ROWS)?,
            port_sets: Table::of(generation, names::PORT_SETS)?,
        })
    }

    /// How many owners there is room for.
    pub fn owners(&self) -> u32 {
        self.owners.entries() as u32
    }

    /// The value of a single IPv4 address; `None` where it is not listed by itself.
    pub fn host_v4(&self, address: u32) -> Option<u32> {
        let (line, slot) = self.slot_v4(|word| word != 0 && word as u32 == address, address)?;
        let value = (self.hosts_v4.words(line)?[slot].load(Ordering::Relaxed) >> 32) as u32;
        (value != REMOVED).then_some(value)
    }

    pub fn set_host_v4(&self, address: u32, value: u32) -> Result<(), NoRoom> {
        let own = self.slot_v4(|word| word != 0 && word as u32 == address, address);
        let free = || self.slot_v4(|word| word == 0 || (word >> 32) as u32 == REMOVED, address);
        let Some((line, slot)) = own.or_else(free) else {
            return Err(NoRoom);
        };
        let cell = gate_cell_v4(&self.homes, address);
        let mark = GATE_HOSTS << ((cell % GATE_CELLS) * 2);
        self.gate_v4
            .set((cell / GATE_CELLS) as usize, 0, mark)
            .ok_or(NoRoom)?;
        let word = u64::from(address) | u64::from(value) << 32;
        self.hosts_v4.store(line, slot, word).ok_or(NoRoom)
    }

    fn slot_v4(&self, wanted: impl Fn(u64) -> bool, address: u32) -> Option<(usize, usize)> {
        let home = home_v4(&self.homes, address) as usize;
        (home..home + PROBES_MAX as usize).find_map(|line| {
            let words = self.hosts_v4.words(line)?;
            let slot = words
                .iter()
                .position(|word| wanted(word.load(Ordering::Relaxed)))?;
            Some((line, slot))
        })
    }

    /// As for IPv4, by the halves of the address.
    pub fn host_v6(&self, upper: u64, lower: u64) -> Option<u32> {
        let (line, slot) = self.slot_v6(upper, lower, |key, value| key == (upper, lower) && value != 0)?;
        let value = self.value_v6(line, slot)?;
        (value != REMOVED).then_some(value)
    }

    pub fn set_host_v6(&self, upper: u64, lower: u64, value: u32) -> Result<(), NoRoom> {
        let own = self.slot_v6(upper, lower, |key, value| key == (upper, lower) && value != 0);
        let free = || self.slot_v6(upper, lower, |_, value| value == 0);
        let Some((line, slot)) = own.or_else(free) else {
            return Err(NoRoom);
        };
        if let Some(gate) = self.gate_of_v6(upper) {
            let (word, mark) = gate;
            self.gate_v6.set(word, 0, mark).ok_or(NoRoom)?;
        }
        let (word, shift) = (6 + slot / 2, (slot % 2) * 32);
        let values = self.hosts_v6.words(line).ok_or(NoRoom)?[word].load(Ordering::Relaxed);
        let others = values & !(0xffff_ffff << shift);
        [
            (slot * 2, upper),
            (slot * 2 + 1, lower),
            (word, others | u64::from(value) << shift),
        ]
        .into_iter()
        .try_for_each(|(word, value)| self.hosts_v6.store(line, word, value))
        .ok_or(NoRoom)
    }

    fn gate_of_v6(&self, upper: u64) -> Option<(usize, u64)> {
        use filter_common::lookup::prefixes::{Shape as _, parts};
        if self.homes.parts() & parts::GATE_V6 == 0 {
            return None;
        }
        let cell = gate_cell_v6(&self.homes, upper);
        Some((
            (cell / GATE_CELLS) as usize,
            GATE_HOSTS << ((cell % GATE_CELLS) * 2),
        ))
    }

    fn value_v6(&self, line: usize, slot: usize) -> Option<u32> {
        let word = self.hosts_v6.words(line)?[6 + slot / 2].load(Ordering::Relaxed);
        Some((word >> ((slot % 2) * 32)) as u32)
    }

    fn slot_v6(
        &self,
        upper: u64,
        lower: u64,
        wanted: impl Fn((u64, u64), u32) -> bool,
    ) -> Option<(usize, usize)> {
        let home = home_v6(&self.homes, upper, lower) as usize;
        (home..home + PROBES_MAX as usize).find_map(|line| {
            let words = self.hosts_v6.words(line)?;
            let key = |slot: usize| {
                (
                    words[slot * 2].load(Ordering::Relaxed),
                    words[slot * 2 + 1].load(Ordering::Relaxed),
                )
            };
            let slot = (0..SLOTS_V6).find(|slot| {
                self.value_v6(line, *slot)
                    .is_some_and(|value| wanted(key(*slot), value))
            })?;
            Some((line, slot))
        })
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

    pub fn set_port_set(&self, start: usize, words: &[u64]) -> Result<(), NoRoom> {
        set_words(&self.port_sets, start, words)
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

    pub fn set_end(&self, number: u32, end: u64) -> Result<(), NoRoom> {
        self.owners.store(number as usize, 0, end).ok_or(NoRoom)
    }
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
        use filter_common::lookup::PORT_SET_WORDS;
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
