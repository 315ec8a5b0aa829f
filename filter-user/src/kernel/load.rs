//! Loads one generation: the judge with its constants and tables of just the size that the policy needs.

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use aya::maps::lpm_trie::Key as TrieKey;
use aya::maps::{Array, Map, MapData, MapError};
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader, Pod};
use filter_common::abi::{Owner, names};
use filter_common::bounds::INTERFACES_MAX;
use filter_common::lookup::PORT_SET_WORDS;
use filter_common::lookup::prefixes::{Shape as _, TableV4 as _, TableV6 as _};
use thiserror::Error;

use super::run::Runner;
use super::tick::Jiffy;
use super::written::Written;
use super::{OBJECT, chain, memory, raw};
use crate::compiler::prefixes::{Homes, Layout, lay_out};
use crate::compiler::{Compiled, Key, Room};

#[derive(Debug, Error)]
pub enum LoadError {
    #[error(
        "the kernel refuses bpf(2): {0}; run as root or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON \
         (and check that /proc/sys/kernel/unprivileged_bpf_disabled and any container profile allow it)"
    )]
    NotPermitted(String),
    #[error("the kernel does not take the tables: {0}")]
    Object(String),
    #[error("the kernel does not take the program: {0}; Keyfence needs Linux 6.1 or later")]
    Program(String),
    #[error("{table}: {done} of {wanted} entries went in: {error}")]
    Fill {
        table: &'static str,
        done: u32,
        wanted: usize,
        error: io::Error,
    },
    #[error("{0} is missing from the kernel program: a fault of this build")]
    Missing(&'static str),
}

impl From<EbpfError> for LoadError {
    fn from(error: EbpfError) -> Self {
        let text = chain(&error);
        if text.contains("Operation not permitted") {
            Self::NotPermitted(text)
        } else {
            Self::Object(text)
        }
    }
}

impl From<ProgramError> for LoadError {
    fn from(error: ProgramError) -> Self {
        let text = chain(&error);
        if text.contains("Operation not permitted") {
            Self::NotPermitted(text)
        } else {
            Self::Program(text)
        }
    }
}

impl From<MapError> for LoadError {
    fn from(error: MapError) -> Self {
        Self::Object(chain(&error))
    }
}

/// How much the kernel program says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum KernelLog {
    /// Nothing: its log calls are pruned when it is loaded.
    #[default]
    Off,
    /// A line for each packet judged. For debugging: it costs more than the judgement.
    Debug,
}

impl KernelLog {
    /// aya-log's level: 0 is below all.
    fn level(self) -> u8 {
        match self {
            KernelLog::Off => 0,
            KernelLog::Debug => 4,
        }
    }
}

/// What a load needs beside the tables.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// The interfaces' numbers, in the policy's order: what packets are counted under.
    pub interfaces: &'a [u32],
    /// Where the maps that outlive a generation are pinned; `None` for a copy of its own (test runs).
    pub pins: Option<&'a Path>,
    /// Entries of the owner table, where this load makes it.
    pub owners_max: u32,
    pub log: KernelLog,
    /// Whether what is dropped and observed is counted under its record's key.
    pub records: bool,
}

/// A judge with tables of its own, loaded and filled, not yet in force.
pub struct Generation {
    pub ebpf: Ebpf,
    /// What the verifier looked at.
    pub verified_instructions: u32,
    /// Where addresses and blocks are in its tables: what a change of one entry needs to know.
    pub homes: Homes,
    /// What it was filled with, and was changed to since.
    pub written: Written,
    /// The judge's id in the kernel.
    pub judge: u32,
    source_lines: u32,
    /// The words that its program reads and this daemon writes: those of its clock, and until when anything is observed.
    words: [u64; 3],
}

impl Generation {
    pub fn load(compiled: &Compiled, setting: Setting<'_>) -> Result<Self, LoadError> {
        let from = lay_out(&compiled.sources_v4, &compiled.sources_v6, compiled.room);
        let mut generation = Self::make(OBJECT, &[], &from, compiled, setting)?.judged()?;
        generation.homes = from.homes();
        Ok(generation)
    }

    /// For the benchmark alone: the same out of another build of the kernel program, whose sources stand in the
    /// kernel's own tries.
    pub fn load_reference(
        object: &[u8],
        compiled: &Compiled,
        setting: Setting<'_>,
    ) -> Result<Self, LoadError> {
        const TRIES: [&str; 2] = ["TRIE_V4", "TRIE_V6"];
        let lengths = [compiled.sources_v4.len(), compiled.sources_v6.len()];
        let sizes = [(TRIES[0], lengths[0]), (TRIES[1], lengths[1])];
        let nothing = lay_out(&[], &[], Room::default());
        let generation = Self::make(object, &sizes, &nothing, compiled, setting)?;
        generation.write_trie(TRIES[0], &compiled.sources_v4)?;
        generation.write_trie(TRIES[1], &compiled.sources_v6)?;
        generation.judged()
    }

    /// The maps, filled; `from` is the sources' table.
    fn make(
        object: &[u8],
        more: &[(&'static str, usize)],
        from: &Layout,
        compiled: &Compiled,
        setting: Setting<'_>,
    ) -> Result<Self, LoadError> {
        let mut numbers = [0u32; INTERFACES_MAX as usize];
        for (slot, number) in numbers.iter_mut().zip(setting.interfaces) {
            *slot = *number;
        }
        let count = setting.interfaces.len() as u32;
        let level = setting.log.level();
        let records = u32::from(setting.records);
        let to = lay_out(&[], &compiled.addresses, Room::default());
        let shapes = shapes(from, &to);
        let mut loader = EbpfLoader::new();
        for (name, value) in &shapes {
            loader.override_global(name, value, true);
        }
        loader
            .override_global("CONFIG_FLAGS", &compiled.flags, true)
            .override_global("ROW_WORDS", &compiled.row_words, true)
            .override_global("INTERFACE_COUNT", &count, true)
            .override_global("INTERFACE_NUMBERS", &numbers, true)
            .override_global("SOURCE_LINES", &compiled.source_lines, true)
            .override_global("RECORDS", &records, true)
            .override_global("AYA_LOG_LEVEL", &level, true);
        for (name, length) in sizes(compiled, from, &to).iter().chain(more) {
            loader.map_max_entries(name, (*length).max(1) as u32);
        }
        loader.map_max_entries(
            names::OWNER_STATE,
            setting.owners_max.max(compiled.owners.len() as u32),
        );
        if setting.records || setting.pins.is_some() {
            for (name, length) in super::records::SIZES {
                loader.map_max_entries(name, length);
            }
        }
        if let Some(pins) = setting.pins {
            for name in names::PERSISTENT {
                loader.map_pin_path(name, pins.join(name));
            }
            // Of another size, it is another: `source_levels` carries over what sources owe.
            if super::source_levels::fits(pins, source_entries(compiled) as u32) {
                loader.map_pin_path(names::SOURCE_STATE, pins.join(names::SOURCE_STATE));
            }
        }
        let mut generation = Self {
            ebpf: loader.load(object)?,
            verified_instructions: 0,
            homes: Homes::default(),
            written: Written::default(),
            judge: 0,
            source_lines: compiled.source_lines,
            words: [0; 3],
        };
        generation.fill(compiled, from, &to)?;
        Ok(generation)
    }

    /// With its judge in the kernel.
    fn judged(mut self) -> Result<Self, LoadError> {
        let judge = self.program(names::JUDGE)?;
        judge.load()?;
        let info = judge.info()?;
        let (id, verified) = (info.id(), info.verified_instruction_count());
        self.judge = id;
        self.verified_instructions = verified.unwrap_or(0);
        Ok(self)
    }

    /// Has its clock run by jiffies, where they follow the monotonic one, and says by which.
    pub fn wind(&mut self, kept: u64) -> Result<Option<Jiffy>, LoadError> {
        let jiffy = Jiffy::of(self.program(names::JUDGE)?, kept)?;
        self.write_jiffy(jiffy.unwrap_or_default())?;
        Ok(jiffy)
    }

    /// Where jiffies have lost the monotonic clock, has the program ask the coarse one, and says so.
    pub fn rewind(&mut self, jiffy: Jiffy) -> Result<bool, LoadError> {
        let judge = self.program(names::JUDGE)?;
        let lost = !jiffy.is_followed(&mut Runner::default(), judge)?;
        if lost {
            // The other word stays: a packet that has read the first may be about to read it.
            self.write_jiffy(Jiffy { nanos: 0, ..jiffy })?;
        }
        Ok(lost)
    }

    fn write_jiffy(&mut self, jiffy: Jiffy) -> Result<(), LoadError> {
        (self.words[0], self.words[1]) = (jiffy.nanos, jiffy.zero);
        self.write(names::DATA, &[0u32], &[self.words])
    }

    /// Says until when anything is observed that is enforced; 0 is not at all, and costs a drop nothing.
    pub fn observe(&mut self, until: u64) -> Result<(), LoadError> {
        if self.words[2] == until {
            return Ok(());
        }
        self.words[2] = until;
        self.write(names::DATA, &[0u32], &[self.words])
    }

    pub fn program(&mut self, name: &'static str) -> Result<&mut Xdp, LoadError> {
        let program = self.ebpf.program_mut(name).ok_or(LoadError::Missing(name))?;
        program.try_into().map_err(|_| LoadError::Missing(name))
    }

    pub fn map(&self, name: &'static str) -> Result<&MapData, LoadError> {
        data(self.ebpf.map(name)).ok_or(LoadError::Missing(name))
    }

    /// How many lines of the sources' own buckets a unit has; 0 where sources have none.
    pub fn source_lines(&self) -> u32 {
        self.source_lines
    }

    /// A line of them: tags and words.
    pub fn source_line(&self, line: u32) -> Result<[u64; 8], LoadError> {
        let name = names::SOURCE_STATE;
        let map = self.ebpf.map(name).ok_or(LoadError::Missing(name))?;
        let lines: Array<&MapData, [u64; 8]> = map.try_into()?;
        Ok(lines.get(&line, 0)?)
    }

    /// Fills the sources' own buckets. For a copy of its own, which judges nothing meanwhile.
    pub fn refill_sources(&self) -> Result<(), LoadError> {
        let cleared = memory::clear::<[u64; 8]>(self.map(names::SOURCE_STATE)?);
        cleared.map_err(|error| LoadError::Object(format!("{}: {error}", names::SOURCE_STATE)))
    }

    /// Writes single owners anew, by their numbers.
    pub fn write_owners(&self, owners: &[(u32, Owner)]) -> Result<(), LoadError> {
        let (keys, values): (Vec<u32>, Vec<Owner>) = owners.iter().copied().unzip();
        self.write(names::OWNERS, &keys, &values)
    }

    fn write_trie<const N: usize>(
        &self,
        table: &'static str,
        entries: &[(Key<N>, u32)],
    ) -> Result<(), LoadError>
    where
        TrieKey<[u8; N]>: Pod,
    {
        let key = |(key, _): &(Key<N>, u32)| TrieKey::new(u32::from(key.length), key.address);
        let keys: Vec<_> = entries.iter().map(key).collect();
        let values: Vec<u32> = entries.iter().map(|(_, value)| *value).collect();
        self.write(table, &keys, &values)
    }

    fn write<K: Pod, V: Pod>(&self, table: &'static str, keys: &[K], values: &[V]) -> Result<(), LoadError> {
        let map = self.map(table)?;
        raw::update(map.fd().as_fd(), keys, values).map_err(|(done, error)| LoadError::Fill {
            table,
            done,
            wanted: keys.len(),
            error,
        })
    }
}

/// The constants that say how large the tables of sources and destinations are.
fn shapes(from: &Layout, to: &Layout) -> [(&'static str, u32); 12] {
    [
        ("FROM_PARTS", from.parts()),
        ("FROM_SEED", from.seed()),
        ("FROM_GATE_BITS_V4", from.gate_bits_v4()),
        ("FROM_LINES_V4", from.lines_v4()),
        ("FROM_GATE_BITS_V6", from.gate_bits_v6()),
        ("FROM_LINES_V6", from.lines_v6()),
        ("FROM_BLOCK_LINES_V6", from.block_lines_v6()),
        ("TO_PARTS", to.parts()),
        ("TO_SEED", to.seed()),
        ("TO_GATE_BITS_V6", to.gate_bits_v6()),
        ("TO_LINES_V6", to.lines_v6()),
        ("TO_BLOCK_LINES_V6", to.block_lines_v6()),
    ]
}

/// The maps whose sizes follow the policy.
fn sizes(compiled: &Compiled, from: &Layout, to: &Layout) -> [(&'static str, usize); 23] {
    let (several, shared) = (compiled.room.sources as usize, compiled.room.shared as usize);
    let ([free_v4, free_v6], listed) = (from.ranges_free(compiled.room), compiled.room.grants as usize);
    let port_sets = compiled.room.port_sets as usize * PORT_SET_WORDS as usize;
    [
        (names::GATE_V4, from.gate_v4.len()),
        (names::HOSTS_V4, from.hosts_v4.len()),
        (names::TOP_V4, from.top_v4.len()),
        (names::RANGES_V4, from.ranges_v4.len() + free_v4),
        (names::GATE_V6, from.gate_v6.len()),
        (names::HOSTS_V6, from.hosts_v6.len()),
        (names::BLOCKS_V6, from.blocks_v6.len()),
        (names::TOP_V6, from.top_v6.len()),
        (names::RANGES_V6, from.ranges_v6.len() + free_v6),
        (names::SOURCES, compiled.sources.len() + several),
        (names::GATE_TO, to.gate_v6.len()),
        (names::HOSTS_TO, to.hosts_v6.len()),
        (names::BLOCKS_TO, to.blocks_v6.len()),
        (names::TOP_TO, to.top_v6.len()),
        (names::RANGES_TO, to.ranges_v6.len()),
        (names::CLASSES, compiled.classes.len()),
        (names::PORT_MASKS, compiled.port_masks.len()),
        (
            names::ROWS,
            compiled.rows.len() + shared * compiled.row_words as usize,
        ),
        (names::GRANTS, compiled.grants.len() + listed),
        (
            names::OWNERS,
            compiled.owners.len() + compiled.room.owners as usize,
        ),
        (names::PORT_SETS, compiled.port_sets.len() + port_sets),
        (names::LIMITS, compiled.limits.len() + shared),
        (names::SOURCE_STATE, source_entries(compiled)),
    ]
}

/// Lines of the sources' own buckets, of all units.
fn source_entries(compiled: &Compiled) -> usize {
    (3 * compiled.source_lines as usize).max(1)
}

pub(super) fn data(map: Option<&Map>) -> Option<&MapData> {
    match map? {
        Map::Array(data) | Map::PerCpuArray(data) | Map::ProgramArray(data) | Map::LpmTrie(data) => {
            Some(data)
        }
        _ => None,
    }
}
