//! Where addresses, blocks and /16s stand in the tables in force, and the words that are written there.
//!
//! A place is found and claimed first, which changes nothing: what is written then has room, and each word is the whole
//! answer for whatever packet asks it.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::atomic::Ordering;

use filter_common::lookup::prefixes::{
    Block, PROBES_MAX, REMOVED, REMOVED_V4, SLOTS_BLOCK, SLOTS_V4, SLOTS_V6, Shape as _, gate_word_v4,
    gate_word_v6, hash_block, hash_prefix_v4, hash_v4, hash_v6, home_block, home_v4, home_v6, mark, parts,
};
use foldhash::fast::RandomState;

use super::{Edit, NoRoom};
use crate::compiler::Key;

/// A line of a table, and a slot of it.
type Place = (usize, usize);

/// So many are looked through one by one.
const FEW: usize = 16;

/// Places that what is planned is to take, in the order in which it will be written.
#[derive(Debug)]
struct Claimed<K> {
    few: Vec<(K, Place)>,
    /// Those behind the few.
    by_key: HashMap<K, Place, RandomState>,
    taken: HashSet<Place, RandomState>,
}

impl<K> Default for Claimed<K> {
    fn default() -> Self {
        Self {
            few: Vec::new(),
            by_key: HashMap::default(),
            taken: HashSet::default(),
        }
    }
}

impl<K: Hash + Eq> Claimed<K> {
    /// The place that is this key's, or else a free one.
    fn place(
        &mut self,
        key: K,
        (home, slots): (u32, usize),
        own: impl Fn(&Place) -> bool,
        free: impl Fn(&Place) -> bool,
    ) -> Result<Place, NoRoom> {
        let known = self.few.iter().find(|(known, _)| *known == key);
        if let Some(place) = known.map(|(_, place)| place).or_else(|| self.by_key.get(&key)) {
            return Ok(*place);
        }
        let lines = home as usize..home as usize + PROBES_MAX as usize;
        let places = lines.flat_map(|line| (0..slots).map(move |slot| (line, slot)));
        let open =
            |place: &Place| !self.few.iter().any(|(_, taken)| taken == place) && !self.taken.contains(place);
        let place = places.clone().find(|place| own(place) && open(place));
        let place = place.or_else(|| places.clone().find(|place| free(place) && open(place)));
        let place = place.ok_or(NoRoom)?;
        if self.few.len() < FEW {
            self.few.push((key, place));
        } else {
            self.taken.insert(place);
            self.by_key.insert(key, place);
        }
        Ok(place)
    }
}

#[derive(Debug, Default)]
pub struct Claims {
    hosts_v4: Claimed<u32>,
    hosts_v6: Claimed<(u64, u64)>,
    blocks: Claimed<(u64, u64)>,
}

/// One step of a change, for which there is room.
#[derive(Clone, Copy, Debug)]
pub enum Write {
    HostV4(Place, u64),
    HostV6(Place, (u64, u64), u32),
    /// The gate's marks of a prefix.
    MarkV4(Key<4>),
    TopV4(u16, u64),
    TopV6(u16, u64),
    /// Key, and what stands there.
    Block(Place, u64, u64),
}

impl Edit {
    /// Of `parts`: what the program in force walks.
    pub fn has(&self, part: u32) -> bool {
        self.homes.parts() & part != 0
    }

    /// A single address is to have this value, or `REMOVED`.
    pub fn host_v4(&self, address: u32, value: u32, claims: &mut Claims) -> Result<Write, NoRoom> {
        let word = |(line, slot): &Place| {
            let words = self.hosts_v4.words(*line);
            words.map(|words| words[*slot].load(Ordering::Relaxed))
        };
        let own = |place: &Place| word(place).is_some_and(|word| word >> 32 != 0 && word as u32 == address);
        let free = |place: &Place| word(place).is_some_and(|word| word == 0 || word == REMOVED_V4);
        let home = (home_v4(&self.homes, address), SLOTS_V4);
        let place = claims.hosts_v4.place(address, home, own, free)?;
        let word = match value {
            REMOVED => REMOVED_V4,
            value => u64::from(address) | u64::from(value) << 32,
        };
        Ok(Write::HostV4(place, word))
    }

    /// As for IPv4, by the halves of the address. A removed one keeps its slot: its key takes two stores.
    pub fn host_v6(&self, key: (u64, u64), value: u32, claims: &mut Claims) -> Result<Write, NoRoom> {
        let at = |(line, slot): &Place| {
            let words = self.hosts_v6.words(*line)?;
            let word = |at: usize| words[at].load(Ordering::Relaxed);
            let value = word(6 + slot / 2) >> ((slot % 2) * 32);
            Some(((word(slot * 2), word(slot * 2 + 1)), value as u32))
        };
        let own = |place: &Place| at(place).is_some_and(|(known, value)| known == key && value != 0);
        let free = |place: &Place| at(place).is_some_and(|(_, value)| value == 0);
        let home = (home_v6(&self.homes, key.0, key.1), SLOTS_V6);
        let place = claims.hosts_v6.place(key, home, own, free)?;
        Ok(Write::HostV6(place, key, value))
    }

    /// A block of IPv6 is to hold this.
    pub fn block(
        &self,
        (level, key): (u64, u64),
        block: Block,
        claims: &mut Claims,
    ) -> Result<Write, NoRoom> {
        let at = |(line, slot): &Place| {
            let words = self.blocks_v6.words(*line)?;
            let word = |at: usize| words[at].load(Ordering::Relaxed);
            Some((word(slot * 2), word(slot * 2 + 1)))
        };
        let own = |place: &Place| {
            at(place).is_some_and(|(known, word)| known == key && word != 0 && word >> 62 == level)
        };
        let free = |place: &Place| at(place).is_some_and(|(_, word)| word == 0);
        let home = (home_block(&self.homes, key, level), SLOTS_BLOCK);
        let place = claims.blocks.place((level, key), home, own, free)?;
        Ok(Write::Block(place, key, block.pack(level)))
    }

    /// Writes what was planned, in its order.
    pub fn write(&self, writes: &[Write]) -> Result<(), NoRoom> {
        let mut writes = writes.iter();
        writes.try_for_each(|write| self.write_one(*write)).ok_or(NoRoom)
    }

    fn write_one(&self, write: Write) -> Option<()> {
        match write {
            Write::HostV4((line, slot), word) => {
                if word != REMOVED_V4 {
                    let address = word as u32;
                    self.mark_v4(address, hash_v4(&self.homes, address))?;
                }
                self.hosts_v4.store(line, slot, word)
            }
            Write::HostV6((line, slot), (upper, lower), value) => {
                self.mark_v6(upper, hash_v6(&self.homes, upper, lower))?;
                let (word, shift) = (6 + slot / 2, (slot % 2) * 32);
                let values = self.hosts_v6.words(line)?[word].load(Ordering::Relaxed);
                let others = values & !(0xffff_ffff << shift);
                self.hosts_v6.store(line, slot * 2, upper)?;
                self.hosts_v6.store(line, slot * 2 + 1, lower)?;
                self.hosts_v6
                    .store(line, word, others | u64::from(value) << shift)
            }
            Write::MarkV4(prefix) => self.mark_prefix_v4(prefix),
            Write::TopV4(top, word) => self.top_v4.store(top.into(), 0, word),
            Write::TopV6(top, word) => self.top_v6.store(top.into(), 0, word),
            Write::Block((line, slot), key, word) => {
                self.mark_v6(key, hash_block(&self.homes, key, word >> 62))?;
                self.blocks_v6.store(line, slot * 2, key)?;
                self.blocks_v6.store(line, slot * 2 + 1, word)
            }
        }
    }

    fn mark_v4(&self, address: u32, hash: u64) -> Option<()> {
        let word = gate_word_v4(&self.homes, address);
        self.gate_v4.set(word as usize, 0, mark(hash))
    }

    fn mark_prefix_v4(&self, prefix: Key<4>) -> Option<()> {
        if self.has(parts::WIDE_V4) {
            return Some(());
        }
        let words = self.gate_v4.entries();
        let marks = 1usize << 24u8.saturating_sub(prefix.length);
        // So many that few bits would stay zero: until the next generation everybody passes the gate.
        if marks >= words * 16 {
            return (0..words).try_for_each(|word| self.gate_v4.set(word, 0, u64::MAX));
        }
        let first = u32::from_be_bytes(prefix.address);
        (0..marks as u32).try_for_each(|block| {
            let address = first + (block << 8);
            self.mark_v4(address, hash_prefix_v4(&self.homes, address))
        })
    }

    fn mark_v6(&self, upper: u64, hash: u64) -> Option<()> {
        if !self.has(parts::GATE_V6) {
            return Some(());
        }
        let word = gate_word_v6(&self.homes, upper);
        self.gate_v6.set(word as usize, 0, mark(hash))
    }
}

#[cfg(test)]
impl Edit {
    /// All that the kernel holds of sources, to be walked as it does.
    pub fn layout(&self) -> crate::compiler::prefixes::Layout {
        use filter_common::lookup::prefixes::{TableV4 as _, TableV6 as _};

        use crate::kernel::written::Table;

        fn all<const N: usize>(table: &Table<[u64; N]>) -> Vec<[u64; N]> {
            let entries = 0..table.entries();
            let words =
                |entry| std::array::from_fn(|at| table.words(entry).unwrap()[at].load(Ordering::Relaxed));
            entries.map(words).collect()
        }
        fn words(table: &Table<u64>) -> Vec<u64> {
            let entries = 0..table.entries();
            entries
                .map(|entry| table.words(entry).unwrap()[0].load(Ordering::Relaxed))
                .collect()
        }
        crate::compiler::prefixes::Layout {
            parts: self.homes.parts(),
            seed: self.homes.seed(),
            gate_bits_v4: self.homes.gate_bits_v4(),
            gate_v4: words(&self.gate_v4),
            hosts_v4: all(&self.hosts_v4),
            top_v4: words(&self.top_v4),
            ranges_v4: words(&self.ranges_v4),
            gate_bits_v6: self.homes.gate_bits_v6(),
            gate_v6: words(&self.gate_v6),
            hosts_v6: all(&self.hosts_v6),
            blocks_v6: all(&self.blocks_v6),
            top_v6: words(&self.top_v6),
            ranges_v6: all(&self.ranges_v6),
        }
    }
}
