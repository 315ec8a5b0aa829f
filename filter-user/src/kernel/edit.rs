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
use super::memory::Memory;
use crate::compiler::prefixes::Homes;

/// There is no place left in a table: the next generation has more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// The tables of the generation in force that single changes touch.
pub struct Edit {
    homes: Homes,
    gate_v4: Memory<u64>,
    hosts_v4: Memory<Line>,
    gate_v6: Memory<u64>,
    hosts_v6: Memory<Line>,
    sources: Memory<Source>,
    grants: Memory<u64>,
    owners: Memory<Owner>,
    limits: Memory<LimitSet>,
    rows: Memory<u64>,
    port_sets: Memory<u64>,
}

impl Edit {
    pub fn of(generation: &Generation) -> Result<Self, LoadError> {
        let mapped = |error: std::io::Error| LoadError::Object(format!("mapping the tables: {error}"));
        Ok(Self {
            homes: generation.homes,
            gate_v4: Memory::of(generation.map(names::GATE_V4)?).map_err(mapped)?,
            hosts_v4: Memory::of(generation.map(names::HOSTS_V4)?).map_err(mapped)?,
            gate_v6: Memory::of(generation.map(names::GATE_V6)?).map_err(mapped)?,
            hosts_v6: Memory::of(generation.map(names::HOSTS_V6)?).map_err(mapped)?,
            sources: Memory::of(generation.map(names::SOURCES)?).map_err(mapped)?,
            grants: Memory::of(generation.map(names::GRANTS)?).map_err(mapped)?,
            owners: Memory::of(generation.map(names::OWNERS)?).map_err(mapped)?,
            limits: Memory::of(generation.map(names::LIMITS)?).map_err(mapped)?,
            rows: Memory::of(generation.map(names::ROWS)?).map_err(mapped)?,
            port_sets: Memory::of(generation.map(names::PORT_SETS)?).map_err(mapped)?,
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
        let gate = self.gate_v4.words((cell / GATE_CELLS) as usize).ok_or(NoRoom)?;
        gate[0].fetch_or(GATE_HOSTS << ((cell % GATE_CELLS) * 2), Ordering::Relaxed);
        let words = self.hosts_v4.words(line).ok_or(NoRoom)?;
        words[slot].store(u64::from(address) | u64::from(value) << 32, Ordering::Release);
        Ok(())
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
            self.gate_v6.words(word).ok_or(NoRoom)?[0].fetch_or(mark, Ordering::Relaxed);
        }
        let words = self.hosts_v6.words(line).ok_or(NoRoom)?;
        words[slot * 2].store(upper, Ordering::Relaxed);
        words[slot * 2 + 1].store(lower, Ordering::Relaxed);
        let (word, shift) = (6 + slot / 2, (slot % 2) * 32);
        let others = words[word].load(Ordering::Relaxed) & !(0xffff_ffff << shift);
        words[word].store(others | u64::from(value) << shift, Ordering::Release);
        Ok(())
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
        let words = self.sources.words(number as usize).ok_or(NoRoom)?;
        words[0].store(source.management, Ordering::Relaxed);
        words[1].store(source.denied_until, Ordering::Relaxed);
        let owners = u64::from(source.owners_start) | u64::from(source.owners_length) << 32;
        words[2].store(owners, Ordering::Release);
        Ok(())
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
            let words = self.grants.words(position as usize).ok_or(NoRoom)?;
            words[0].store(u64::from(*owner), Ordering::Release);
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
        let words = self.limits.words(number as usize).ok_or(NoRoom)?;
        let sets = [limits.packets, limits.bytes, limits.connections];
        for (words, limit) in words.chunks(3).zip(sets) {
            words[0].store(limit.cost, Ordering::Relaxed);
            words[1].store(limit.span, Ordering::Relaxed);
            words[2].store(u64::from(limit.shift), Ordering::Release);
        }
        Ok(())
    }

    /// Writes an owner's grant; its end last.
    pub fn set_owner(&self, number: u32, owner: Owner) -> Result<(), NoRoom> {
        let words = self.owners.words(number as usize).ok_or(NoRoom)?;
        let ports = u64::from(owner.source_port_first) | u64::from(owner.source_port_last) << 16;
        words[1].store(
            u64::from(owner.limits) | u64::from(owner.row) << 32,
            Ordering::Relaxed,
        );
        words[2].store(ports | u64::from(owner.port_set) << 32, Ordering::Relaxed);
        words[3].store(
            u64::from(owner.publisher) | u64::from(owner.flags) << 32,
            Ordering::Relaxed,
        );
        words[0].store(owner.end, Ordering::Release);
        Ok(())
    }

    pub fn set_end(&self, number: u32, end: u64) -> Result<(), NoRoom> {
        self.owners.words(number as usize).ok_or(NoRoom)?[0].store(end, Ordering::Release);
        Ok(())
    }
}

fn set_words(memory: &Memory<u64>, start: usize, values: &[u64]) -> Result<(), NoRoom> {
    for (at, value) in values.iter().enumerate() {
        memory.words(start + at).ok_or(NoRoom)?[0].store(*value, Ordering::Release);
    }
    Ok(())
}
