//! What outlives a generation: the owners' and services' state, and the verdicts' counters.
//!
//! Reads it for metrics and status; names, clears and carries over what a new generation is about to use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::{Array, MapData, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use filter_common::abi::{
    Count, EVERYTHING, LimitSet, Meta, OwnerState, SERVICE_ENTRIES, ServiceState, names,
};
use filter_common::account::{self, COUNTERS};
use filter_common::bounds::{INTERFACES_MAX, SERVICES_MAX};
use filter_common::limit;
use filter_common::units::UNITS_PER_SECOND;
use filter_common::verdict::{NO_SERVICE, Verdict};

use super::clock;
use super::kept::Kept;
use super::levels::{changed, pairs};
use super::load::{Generation, LoadError};
use super::memory::Memory;
use super::pins::Pins;
use super::records::Head;
use super::slots::{self, Counted};
use crate::compiler::Numbers;

pub use super::levels::{Limits, Towards};

// Where the fields stand among the words of a value; the layouts are `repr(C)`.
pub(super) const OWNER_PACKETS: usize = std::mem::offset_of!(OwnerState, packets) / 8;
pub(super) const OWNER_BYTES: usize = std::mem::offset_of!(OwnerState, bytes) / 8;
pub(super) const OWNER_SEEN: usize = std::mem::offset_of!(OwnerState, last_seen) / 8;
pub(super) const OWNER_BUCKETS: usize = std::mem::offset_of!(OwnerState, buckets) / 8;
const SERVICE_OBSERVE: usize = std::mem::offset_of!(ServiceState, observe_until) / 8;
const SERVICE_BUCKETS: usize = std::mem::offset_of!(ServiceState, buckets) / 8;

/// The maps kept over generations.
pub struct State {
    meta: Array<MapData, Meta>,
    counters: PerCpuArray<MapData, Count>,
    interfaces: PerCpuArray<MapData, [u64; 4]>,
    owners: Arc<Memory<OwnerState>>,
    services: Arc<Memory<ServiceState>>,
    records: Head,
}

/// What one owner has done, and the levels of its buckets' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerUse {
    pub packets: u64,
    pub bytes: u64,
    /// Monotonic nanoseconds, 0 for never.
    pub last_seen: u64,
    pub buckets: [u64; 3],
}

impl State {
    pub fn of(generation: &Generation) -> Result<Self, LoadError> {
        Self::by(&Kept::By(generation))
    }

    /// As the pins have it, for whoever holds no generation. These must be of this layout.
    pub fn pinned(pins: &Pins) -> Result<Self, LoadError> {
        Self::by(&Kept::Pinned(pins))
    }

    fn by(kept: &Kept<'_>) -> Result<Self, LoadError> {
        Ok(Self {
            meta: kept.map(names::META)?.try_into()?,
            counters: kept.map(names::COUNTERS)?.try_into()?,
            interfaces: kept.map(names::INTERFACES)?.try_into()?,
            owners: Arc::new(kept.memory(names::OWNER_STATE)?),
            services: Arc::new(kept.memory(names::SERVICE_STATE)?),
            records: Head::of(kept)?,
        })
    }

    /// The same once more, by any of its generations: mapping a million owners takes milliseconds, so both have one
    /// mapping.
    pub fn share(&self, generation: &Generation) -> Result<Self, LoadError> {
        let kept = Kept::By(generation);
        Ok(Self {
            meta: kept.map(names::META)?.try_into()?,
            counters: kept.map(names::COUNTERS)?.try_into()?,
            interfaces: kept.map(names::INTERFACES)?.try_into()?,
            owners: Arc::clone(&self.owners),
            services: Arc::clone(&self.services),
            records: self.records.clone(),
        })
    }

    pub fn meta(&self) -> Result<Meta, LoadError> {
        Ok(self.meta.get(&0, 0)?)
    }

    pub fn write_meta(&mut self, meta: Meta) -> Result<(), LoadError> {
        Ok(self.meta.set(0, meta, 0)?)
    }

    /// How many owners there can be.
    pub fn owners_max(&self) -> u32 {
        self.owners.entries() as u32
    }

    /// The numbers as the kernel has them.
    pub fn numbers(&self) -> Numbers {
        let services = (0..SERVICE_ENTRIES).filter_map(|number| Some((self.service_name(number)?, number)));
        let owners =
            (1..self.owners.entries() as u32).filter_map(|number| Some((self.owner_hash(number)?, number)));
        Numbers::known(services, owners)
    }

    /// The hash of the name of a number's owner; `None` where it has none.
    pub fn owner_hash(&self, number: u32) -> Option<[u8; 16]> {
        let words = self.owners.words(number as usize)?;
        let mut hash = [0; 16];
        hash[..8].copy_from_slice(&words[0].load(Ordering::Relaxed).to_ne_bytes());
        hash[8..].copy_from_slice(&words[1].load(Ordering::Relaxed).to_ne_bytes());
        (hash != [0; 16]).then_some(hash)
    }

    /// Packets dropped and observed, over all counters and those that were cleared since.
    pub fn refused(&self) -> Result<[u64; 2], LoadError> {
        let mut sums = self.records.forgotten();
        let mut add = |verdict, reason, service| -> Result<(), LoadError> {
            if verdict != Verdict::Pass {
                let packets = self.count(account::index(verdict, reason, service))?.packets;
                sums[usize::from(verdict == Verdict::Observe)] += packets;
            }
            Ok(())
        };
        for (verdict, reason) in account::general_reasons() {
            add(verdict, reason, WITHOUT_SERVICE)?;
        }
        let named = (0..SERVICES_MAX).filter(|number| self.service_name(*number).is_some());
        for number in named {
            for (verdict, reason) in account::service_reasons() {
                add(verdict, reason, number)?;
            }
        }
        Ok(sums)
    }

    pub fn service_name(&self, number: u32) -> Option<String> {
        let words = self.services.words(number as usize)?;
        let bytes: Vec<u8> = words[..8]
            .iter()
            .flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes())
            .collect();
        let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8(bytes[..length].to_vec())
            .ok()
            .filter(|name| !name.is_empty())
    }

    /// Names a service's or publisher's number, all it had counted under another name cleared. Not while that number is in use.
    pub fn name_service(&mut self, number: u32, name: &str) -> Result<(), LoadError> {
        let mut value = [0u8; 128];
        value[..name.len().min(63)].copy_from_slice(&name.as_bytes()[..name.len().min(63)]);
        write_words(self.services.words(number as usize), &value);
        if number >= SERVICES_MAX {
            return Ok(());
        }
        let cpus = cpus()?;
        for (verdict, reason) in account::service_reasons() {
            let zero = per_cpu(vec![Count::default(); cpus])?;
            let index = account::index(verdict, reason, number);
            if verdict != Verdict::Pass {
                let packets = self.count(index)?.packets;
                self.records.forget(verdict == Verdict::Observe, packets);
            }
            self.counters.set(index, zero, 0)?;
        }
        Ok(())
    }

    /// Gives an owner's number to another owner. Not while that number is in use.
    pub fn name_owner(&self, number: u32, hash: [u8; 16]) {
        let mut value = [0u8; 64];
        value[..16].copy_from_slice(&hash);
        write_words(self.owners.words(number as usize), &value);
    }

    /// Takes an owner's name off a number that nobody has any more.
    pub fn unname_owner(&self, number: u32) {
        let words = self.owners.words(number as usize).into_iter().flatten();
        words.take(2).for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// Buckets whose limit changed keep the tokens used, up to the new burst.
    pub fn carry(&self, old: &Limits, new: &Limits, towards: Towards) {
        let now = clock::monotonic();
        let owners = |number: usize| self.owners.words(number).map(|words| &words[OWNER_BUCKETS..]);
        changed((&old.owners, &new.owners), (old, new), towards, now, owners);
        let services = |number: usize| self.services.words(number).map(|words| &words[SERVICE_BUCKETS..]);
        changed((&old.services, &new.services), (old, new), towards, now, services);
    }

    /// Hands an owner's buckets on to another number: at no moment do both pay. What still asks the old ones is
    /// refused, for a second at most, in case that this daemon dies right here.
    pub fn move_buckets(&self, (from, to): (u32, u32), hash: [u8; 16], old: &LimitSet, new: &LimitSet) {
        let now = clock::monotonic();
        self.name_owner(to, hash);
        let (Some(from), Some(to)) = (self.owners.words(from as usize), self.owners.words(to as usize))
        else {
            return;
        };
        let words = from[OWNER_BUCKETS..].iter().zip(&to[OWNER_BUCKETS..]);
        for ((from, to), (old, new)) in words.zip(pairs(old, new)) {
            let closed = now.units() + old.span + UNITS_PER_SECOND;
            let left = match old.cost {
                0 => 0,
                _ => from.swap(closed, Ordering::Relaxed),
            };
            let left = if old == new {
                left
            } else {
                limit::carry(old, new, left, now)
            };
            to.store(left, Ordering::Release);
        }
        // The name is the new number's from here on.
        from[..2].iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// Hands what was counted under one number on to another.
    pub fn move_counts(&self, from: u32, to: u32) {
        let (Some(from), Some(to)) = (self.owners.words(from as usize), self.owners.words(to as usize))
        else {
            return;
        };
        for at in [OWNER_PACKETS, OWNER_BYTES] {
            to[at].fetch_add(from[at].swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
        to[OWNER_SEEN].fetch_max(from[OWNER_SEEN].load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Fills every bucket: a word of 0 was full long ago. For a copy of its own, which judges nothing meanwhile.
    pub fn refill(&self) {
        let owners = (0..self.owners.entries()).filter_map(|number| self.owners.words(number));
        let owners = owners.map(|words| &words[OWNER_BUCKETS..OWNER_BUCKETS + 3]);
        let services = (0..self.services.entries()).filter_map(|number| self.services.words(number));
        let services = services.map(|words| &words[SERVICE_BUCKETS..SERVICE_BUCKETS + 3]);
        for word in owners.chain(services).flatten() {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// The words of what a service, a publisher or the ICMP limits have.
    pub fn shared_words(&self, number: u32) -> Option<[u64; 3]> {
        let words = self.services.words(number as usize)?;
        Some([0, 1, 2].map(|unit| words[SERVICE_BUCKETS + unit].load(Ordering::Relaxed)))
    }

    /// Observes what a service refuses, or `EVERYTHING`, until then.
    pub fn observe(&self, number: u32, until: u64) {
        if let Some(words) = self.services.words(number as usize) {
            words[SERVICE_OBSERVE].store(until, Ordering::Release);
        }
    }

    /// Numbers that are observed for a while, and until when: also those of earlier daemons.
    pub fn observed(&self) -> Vec<(u32, u64)> {
        let now = clock::monotonic().0;
        let until = |number: u32| {
            Some(self.services.words(number as usize)?[SERVICE_OBSERVE].load(Ordering::Relaxed))
        };
        let all = (0..SERVICES_MAX).chain([EVERYTHING]);
        let all = all.filter_map(|number| Some((number, until(number)?)));
        all.filter(|(_, until)| *until > now).collect()
    }

    pub fn owner(&self, number: u32) -> Option<OwnerUse> {
        let words = self.owners.words(number as usize)?;
        let word = |at: usize| words[at].load(Ordering::Relaxed);
        Some(OwnerUse {
            packets: word(OWNER_PACKETS),
            bytes: word(OWNER_BYTES),
            last_seen: word(OWNER_SEEN),
            buckets: [
                word(OWNER_BUCKETS),
                word(OWNER_BUCKETS + 1),
                word(OWNER_BUCKETS + 2),
            ],
        })
    }

    /// A verdict's counter over all CPUs.
    pub fn count(&self, index: u32) -> Result<Count, LoadError> {
        debug_assert!(index < COUNTERS);
        let values = self.counters.get(&index, 0)?;
        Ok(values.iter().fold(Count::default(), |sum, count| Count {
            packets: sum.packets + count.packets,
            bytes: sum.bytes + count.bytes,
        }))
    }

    /// Packets by verdict, of the interface that is counted in these slots.
    pub fn interface(&self, slots: &[u32]) -> Result<[u64; 3], LoadError> {
        let mut sum = [0; 3];
        for slot in slots {
            for counts in self.interfaces.get(&(slot + 1), 0)?.iter() {
                for (total, count) in sum.iter_mut().zip(counts) {
                    *total += count;
                }
            }
        }
        Ok(sum)
    }

    /// The slots of interfaces, as `slots::place` has them.
    pub fn place_interfaces(&mut self, wanted: &[Counted<'_>]) -> Result<Vec<Vec<u32>>, LoadError> {
        let mut before = Vec::new();
        for slot in 0..INTERFACES_MAX {
            let values = self.interfaces.get(&(slot + 1), 0)?;
            before.push(values.first().map_or(0, |counts| counts[INTERFACE_NAME]));
        }
        let mut owners = before.clone();
        let slots = slots::place(&mut owners, wanted)
            .ok_or_else(|| LoadError::Object(String::from("more interfaces than slots to count them in")))?;
        let cpus = cpus()?;
        for (slot, (owner, before)) in (1..).zip(owners.iter().zip(&before)) {
            if owner != before {
                let mut values = vec![[0u64; 4]; cpus];
                values[0][INTERFACE_NAME] = *owner;
                self.interfaces.set(slot, per_cpu(values)?, 0)?;
            }
        }
        Ok(slots)
    }
}

/// A map by another descriptor.
/// Behind the three verdicts' counts, on the first CPU: whose they are.
const INTERFACE_NAME: usize = 3;

fn write_words(words: Option<&[AtomicU64]>, value: &[u8]) {
    for (word, bytes) in words.into_iter().flatten().zip(value.chunks_exact(8)) {
        let bytes = bytes.try_into().expect("chunks of eight");
        word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
    }
}

fn per_cpu<V: aya::Pod>(values: Vec<V>) -> Result<PerCpuValues<V>, LoadError> {
    PerCpuValues::try_from(values).map_err(|error| LoadError::Object(error.to_string()))
}

fn cpus() -> Result<usize, LoadError> {
    nr_cpus().map_err(|(file, error)| LoadError::Object(format!("{file}: {error}")))
}

/// Counters without a service stand here in the readers' lists.
pub const WITHOUT_SERVICE: u32 = NO_SERVICE;
