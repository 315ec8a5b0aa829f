//! What the kernel is to hold of prefixes that have changed: for each address one word that says all, so a packet sees
//! it as it was or as it is to be.
//!
//! The longest come first: an address gets a word of its own before what it fell back to changes, and falls back when
//! that has changed.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher as _, RandomState};

use filter_common::lookup::prefixes::{Block, LEVEL_64, REMOVED, parts};

use super::Stop;
use super::entries::{Entries, TOPS};
use super::family::Changed;
use crate::compiler::Key;
use crate::compiler::runs::{block_of, block_run, level_of, top_run};
use crate::kernel::edit::{Claims, Edit, Write};

/// A change of the kernel's tables, planned and not yet made.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) writes: Vec<Write>,
    claims: Claims,
}

/// What is known of the blocks and runs of the tables.
#[derive(Debug)]
pub(super) struct Runs {
    pub(super) end_v4: u32,
    pub(super) end_v6: u32,
    /// Runs that stand somewhere, by their hashes: what was before a change is often there again after the next.
    known_v4: HashMap<u64, u32>,
    known_v6: HashMap<u64, u32>,
    hashes: RandomState,
    /// Blocks of IPv6, levels and keys, that may stand there without a prefix in them: they say what is around them.
    bare: BTreeSet<(u64, u64)>,
}

impl Runs {
    pub(super) fn behind(end_v4: u32, end_v6: u32) -> Self {
        Self {
            end_v4,
            end_v6,
            known_v4: HashMap::new(),
            known_v6: HashMap::new(),
            hashes: RandomState::new(),
            bare: BTreeSet::new(),
        }
    }

    /// Where a run stands, which is written behind all others if it does not.
    fn place_v4(&mut self, edit: &Edit, run: &[(u64, u32)]) -> Result<u32, Stop> {
        let hash = self.hashes.hash_one(run);
        match self.known_v4.get(&hash) {
            Some(start) if edit.is_run_v4(*start, run) => Ok(*start),
            _ => {
                let start = self.end_v4;
                edit.set_run_v4(start, run)?;
                self.end_v4 += run.len() as u32;
                self.known_v4.insert(hash, start);
                Ok(start)
            }
        }
    }

    fn place_v6(&mut self, edit: &Edit, run: &[(u64, u32)]) -> Result<u32, Stop> {
        let hash = self.hashes.hash_one(run);
        match self.known_v6.get(&hash) {
            Some(start) if edit.is_run_v6(*start, run) => Ok(*start),
            _ => {
                let start = self.end_v6;
                edit.set_run_v6(start, run)?;
                self.end_v6 += run.len() as u32;
                self.known_v6.insert(hash, start);
                Ok(start)
            }
        }
    }

    /// Of entries that are as they are to be.
    pub(super) fn plan_v4(
        &mut self,
        (entries, edit): (&Entries<4>, &Edit),
        changed: &[Changed<4>],
        draft: &mut Draft,
    ) -> Result<(), Stop> {
        let Draft { writes, claims } = draft;
        let mut host =
            |one: &Changed<4>, value: u32| edit.host_v4(u32::from_be_bytes(one.key.address), value, claims);
        let (hosts, prefixes): (Vec<&Changed<4>>, Vec<&Changed<4>>) =
            changed.iter().partition(|one| one.key.is_single());
        for one in &hosts {
            if let Some(value) = one.after {
                writes.push(host(one, value)?);
            }
        }
        if !prefixes.is_empty() && !edit.has(parts::PREFIXES_V4) {
            return Err(Stop::Generation);
        }
        let new = prefixes.iter().filter(|one| one.before.is_none());
        writes.extend(new.map(|one| Write::MarkV4(one.key)));
        for top in tops_of(&prefixes) {
            let run = run_of_top(entries, top);
            let block = block_of(&run, |run| self.place_v4(edit, run))?;
            writes.push(Write::TopV4(top, block.pack(0)));
        }
        for one in hosts.iter().filter(|one| one.after.is_none()) {
            writes.push(host(one, REMOVED)?);
        }
        Ok(())
    }

    pub(super) fn plan_v6(
        &mut self,
        (entries, edit): (&Entries<16>, &Edit),
        changed: &[Changed<16>],
        draft: &mut Draft,
    ) -> Result<(), Stop> {
        let Draft { writes, claims } = draft;
        let (hosts, prefixes): (Vec<&Changed<16>>, Vec<&Changed<16>>) =
            changed.iter().partition(|one| one.key.is_single());
        for one in &hosts {
            if let Some(value) = one.after {
                writes.push(edit.host_v6(halves(&one.key), value, claims)?);
            }
        }
        // By level, the smallest blocks first.
        for (level, key) in self.blocks_of(entries, &prefixes) {
            if !edit.has(part_of(level)) {
                return Err(Stop::Generation);
            }
            let block = self.block(entries, edit, (level, key))?;
            writes.push(edit.block((level, key), block, claims)?);
        }
        let tops = tops_of(&prefixes);
        if !tops.is_empty() && !edit.has(parts::TOP_V6) {
            return Err(Stop::Generation);
        }
        for top in tops {
            let run = run_of_top(entries, top);
            let block = block_of(&run, |run| self.place_v6(edit, run))?;
            writes.push(Write::TopV6(top, block.pack(0)));
        }
        for one in hosts.iter().filter(|one| one.after.is_none()) {
            writes.push(edit.host_v6(halves(&one.key), REMOVED, claims)?);
        }
        Ok(())
    }

    /// The blocks that prefixes stand in, and those inside them, which say what is around them.
    fn blocks_of(&self, entries: &Entries<16>, prefixes: &[&Changed<16>]) -> BTreeSet<(u64, u64)> {
        let mut blocks = BTreeSet::new();
        let mut outer: Option<Key<16>> = None;
        for one in prefixes {
            if one.key.length >= 32 {
                blocks.insert(block_key(&one.key));
            }
            if one.key.length >= 64 || outer.is_some_and(|outer| outer.holds(&one.key)) {
                continue;
            }
            outer = Some(one.key);
            for class in Entries::<16>::class(one.key.length) + 1..Entries::<16>::class(Key::<16>::BITS) {
                blocks.extend(
                    entries
                        .of_class(class, &one.key)
                        .map(|(inner, _)| block_key(&inner)),
                );
            }
            let inside = |level| (level, halves(&one.key).0)..=(level, halves(&one.key.last()).0);
            let levels = LEVEL_64..level_of(one.key.length).0 + u64::from(one.key.length < 32);
            blocks.extend(levels.flat_map(|level| self.bare.range(inside(level))));
        }
        blocks
    }

    fn block(
        &mut self,
        entries: &Entries<16>,
        edit: &Edit,
        (level, upper): (u64, u64),
    ) -> Result<Block, Stop> {
        let bits = bits_of(level);
        let key = Key::cut((u128::from(upper) << 64).to_be_bytes(), bits);
        let mut items = entries.of_class(Entries::<16>::class(bits), &key).peekable();
        if items.peek().is_none() {
            self.bare.insert((level, upper));
        }
        let items = items.map(|(key, value)| {
            let (upper, lower) = halves(&key);
            (upper, lower, key.length, value)
        });
        let run = block_run(level, entries.around(&key), items);
        block_of(&run, |run| self.place_v6(edit, run))
    }
}

/// The /16s that prefixes are in, or that are in them; those of a length that stands in blocks are in none.
fn tops_of<const N: usize>(prefixes: &[&Changed<N>]) -> BTreeSet<u16> {
    let short = prefixes
        .iter()
        .filter(|one| Entries::<N>::class(one.key.length) == TOPS);
    let tops = short.flat_map(|one| top_of(&one.key)..=top_of(&one.key.last()));
    tops.collect()
}

fn top_of<const N: usize>(key: &Key<N>) -> u16 {
    u16::from_be_bytes([key.address[0], key.address[1]])
}

fn run_of_top<const N: usize>(entries: &Entries<N>, top: u16) -> Vec<(u64, u32)> {
    let mut address = [0; N];
    address[..2].copy_from_slice(&top.to_be_bytes());
    let key = Key { address, length: 16 };
    let around = entries.value(&key).unwrap_or_else(|| entries.around(&key));
    let items = entries.of_class(TOPS, &key).filter(|(key, _)| key.length > 16);
    let items = items.map(|(Key { address, length }, value)| {
        let upper = [address[0], address[1], address[2], address[3]];
        (u32::from_be_bytes(upper), length, value)
    });
    top_run(around, items)
}

fn halves(key: &Key<16>) -> (u64, u64) {
    let whole = u128::from_be_bytes(key.address);
    ((whole >> 64) as u64, whole as u64)
}

/// The level and the key of the block that a prefix stands in.
fn block_key(key: &Key<16>) -> (u64, u64) {
    let (level, bits) = level_of(key.length);
    (level, halves(&Key::cut(key.address, bits)).0)
}

fn bits_of(level: u64) -> u8 {
    80 - 16 * level as u8
}

fn part_of(level: u64) -> u32 {
    parts::BLOCKS_64 << (level - LEVEL_64)
}
