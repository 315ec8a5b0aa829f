//! Loads one generation: the judge with its constants and tables of just the size that the policy needs.

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use aya::maps::lpm_trie::Key as TrieKey;
use aya::maps::{Map, MapData, MapError};
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader, Pod};
use filter_common::abi::{Owner, names};
use filter_common::bounds::INTERFACES_MAX;
use thiserror::Error;

use super::{OBJECT, chain, raw};
use crate::compiler::{Compiled, Key};

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
}

/// A judge with tables of its own, loaded and filled, not yet in force.
pub struct Generation {
    pub ebpf: Ebpf,
    /// What the verifier looked at.
    pub verified_instructions: u32,
}

impl Generation {
    pub fn load(compiled: &Compiled, setting: Setting<'_>) -> Result<Self, LoadError> {
        let mut numbers = [0u32; INTERFACES_MAX as usize];
        for (slot, number) in numbers.iter_mut().zip(setting.interfaces) {
            *slot = *number;
        }
        let count = setting.interfaces.len() as u32;
        let level = setting.log.level();
        let mut loader = EbpfLoader::new();
        loader
            .override_global("CONFIG_FLAGS", &compiled.flags, true)
            .override_global("ROW_WORDS", &compiled.row_words, true)
            .override_global("INTERFACE_COUNT", &count, true)
            .override_global("INTERFACE_NUMBERS", &numbers, true)
            .override_global("AYA_LOG_LEVEL", &level, true);
        for (name, length) in sizes(compiled) {
            loader.map_max_entries(name, length.max(1) as u32);
        }
        loader.map_max_entries(
            names::OWNER_STATE,
            setting.owners_max.max(compiled.owners.len() as u32),
        );
        if let Some(pins) = setting.pins {
            for name in names::PERSISTENT {
                loader.map_pin_path(name, pins.join(name));
            }
        }
        let mut generation = Self {
            ebpf: loader.load(OBJECT)?,
            verified_instructions: 0,
        };
        generation.fill(compiled)?;
        let judge = generation.program(names::JUDGE)?;
        judge.load()?;
        let info = judge.info()?;
        generation.verified_instructions = info.verified_instruction_count().unwrap_or(0);
        Ok(generation)
    }

    pub fn program(&mut self, name: &'static str) -> Result<&mut Xdp, LoadError> {
        let program = self.ebpf.program_mut(name).ok_or(LoadError::Missing(name))?;
        program.try_into().map_err(|_| LoadError::Missing(name))
    }

    pub fn map(&self, name: &'static str) -> Result<&MapData, LoadError> {
        data(self.ebpf.map(name)).ok_or(LoadError::Missing(name))
    }

    /// Writes single owners anew, by their numbers.
    pub fn write_owners(&self, owners: &[(u32, Owner)]) -> Result<(), LoadError> {
        let (keys, values): (Vec<u32>, Vec<Owner>) = owners.iter().copied().unzip();
        self.write(names::OWNERS, &keys, &values)
    }

    fn fill(&mut self, compiled: &Compiled) -> Result<(), LoadError> {
        self.fill_trie(names::SOURCES_V4, &compiled.sources_v4)?;
        self.fill_trie(names::SOURCES_V6, &compiled.sources_v6)?;
        self.fill_trie(names::ADDRESSES, &compiled.addresses)?;
        self.fill_array(names::CLASSES, &compiled.classes)?;
        self.fill_array(names::PORTS, &compiled.ports)?;
        self.fill_array(names::PORT_MASKS, &compiled.port_masks)?;
        self.fill_array(names::ROWS, &compiled.rows)?;
        self.fill_array(names::GRANTS, &compiled.grants)?;
        self.fill_array(names::OWNERS, &compiled.owners)?;
        self.fill_array(names::PORT_SETS, &compiled.port_sets)?;
        self.fill_array(names::LIMITS, &compiled.limits)?;
        self.fill_array(names::SERVICES, &compiled.services)
    }

    fn fill_trie<const N: usize, V: Pod>(
        &mut self,
        table: &'static str,
        entries: &[(Key<N>, V)],
    ) -> Result<(), LoadError>
    where
        TrieKey<[u8; N]>: Pod,
    {
        let keys: Vec<_> = entries
            .iter()
            .map(|(key, _)| TrieKey::new(u32::from(key.length), key.address))
            .collect();
        let values: Vec<V> = entries.iter().map(|(_, value)| *value).collect();
        self.write(table, &keys, &values)
    }

    /// A new array is zero: what is zero need not be written.
    fn fill_array<V: Pod + Default + PartialEq>(
        &mut self,
        table: &'static str,
        entries: &[V],
    ) -> Result<(), LoadError> {
        let zero = V::default();
        let (keys, values): (Vec<u32>, Vec<V>) = (0u32..)
            .zip(entries)
            .filter(|(_, value)| **value != zero)
            .map(|(key, value)| (key, *value))
            .unzip();
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

/// The maps whose sizes follow the policy.
fn sizes(compiled: &Compiled) -> [(&'static str, usize); 10] {
    [
        (names::SOURCES_V4, compiled.sources_v4.len()),
        (names::SOURCES_V6, compiled.sources_v6.len()),
        (names::ADDRESSES, compiled.addresses.len()),
        (names::CLASSES, compiled.classes.len()),
        (names::PORT_MASKS, compiled.port_masks.len()),
        (names::ROWS, compiled.rows.len()),
        (names::GRANTS, compiled.grants.len()),
        (names::OWNERS, compiled.owners.len()),
        (names::PORT_SETS, compiled.port_sets.len()),
        (names::LIMITS, compiled.limits.len()),
    ]
}

pub(super) fn data(map: Option<&Map>) -> Option<&MapData> {
    match map? {
        Map::Array(data) | Map::PerCpuArray(data) | Map::LpmTrie(data) | Map::ProgramArray(data) => {
            Some(data)
        }
        _ => None,
    }
}
