//! The levels of buckets from one generation to the next: what of its limits must be known, and who has others now.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::{Array, Map, MapData};
use filter_common::abi::{Limit, LimitSet, Owner, Service, names};
use filter_common::limit;
use filter_common::units::Nanos;

use super::memory::Words;
use crate::compiler::Compiled;

/// What of a generation in force is needed to carry levels over to the next.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// By the numbers of owners and services: where in `limits`.
    pub owners: Vec<u32>,
    pub services: Vec<u32>,
    pub limits: Vec<LimitSet>,
}

/// Where levels are carried to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    Next,
    /// A generation that has stood by, and was in force before: what had no limit since has its level still.
    Back,
}

/// Carries over the levels of those whose limits are others now.
pub(super) fn changed<'w>(
    (before, after): (&[u32], &[u32]),
    (old, new): (&Limits, &Limits),
    towards: Towards,
    now: Nanos,
    words: impl Fn(usize) -> Option<&'w [AtomicU64]>,
) {
    // Most have the same two sets as the one before them: a million are looked at within a millisecond or two.
    let mut same = (0, 0);
    for (number, sets) in before.iter().copied().zip(after.iter().copied()).enumerate() {
        if sets == same {
            continue;
        }
        let (old, new) = (old.set(sets.0), new.set(sets.1));
        if pairs(&old, &new).iter().all(|(old, new)| old == new) {
            same = sets;
            continue;
        }
        for (word, (old, new)) in words(number).into_iter().flatten().zip(pairs(&old, &new)) {
            if towards == Towards::Next || old.cost != 0 {
                carry_word(word, old, new, now);
            }
        }
    }
}

fn set(list: &[LimitSet], number: u32) -> LimitSet {
    list.get(number as usize).copied().unwrap_or_default()
}

pub(super) fn pairs<'a>(old: &'a LimitSet, new: &'a LimitSet) -> [(&'a Limit, &'a Limit); 3] {
    [
        (&old.packets, &new.packets),
        (&old.bytes, &new.bytes),
        (&old.connections, &new.connections),
    ]
}

impl Limits {
    fn set(&self, number: u32) -> LimitSet {
        set(&self.limits, number)
    }

    /// Of a pinned generation; `None` where its tables cannot be read.
    pub fn pinned(folder: &Path) -> Option<Self> {
        Some(Self {
            owners: owners(folder)?,
            services: all(folder, names::SERVICES)?.iter().map(service_limits).collect(),
            limits: all(folder, names::LIMITS)?,
        })
    }
}

/// The limits of all owners of a pinned generation, from its memory: a call for each of a million takes seconds.
fn owners(folder: &Path) -> Option<Vec<u32>> {
    const WORDS: usize = size_of::<Owner>() / 8;
    const LIMITS: usize = std::mem::offset_of!(Owner, limits) / 8;
    const { assert!(std::mem::offset_of!(Owner, limits).is_multiple_of(8)) };
    let map = MapData::from_pin(folder.join(names::OWNERS)).ok()?;
    let is_known = map.info().ok()?.value_size() as usize == size_of::<Owner>();
    let words = Words::of(&map).ok().filter(|_| is_known)?;
    let owners = words.all().chunks_exact(WORDS);
    // The lower half of the word.
    Some(
        owners
            .map(|owner| owner[LIMITS].load(Ordering::Relaxed) as u32)
            .collect(),
    )
}

/// All values of a pinned array.
fn all<V: aya::Pod>(folder: &Path, name: &str) -> Option<Vec<V>> {
    let map = Map::from_map_data(MapData::from_pin(folder.join(name)).ok()?).ok()?;
    let array: Array<MapData, V> = map.try_into().ok()?;
    array.iter().collect::<Result<_, _>>().ok()
}

impl From<&Compiled> for Limits {
    fn from(compiled: &Compiled) -> Self {
        Self {
            owners: compiled.owners.iter().map(owner_limits).collect(),
            services: compiled.services.iter().map(service_limits).collect(),
            limits: compiled.limits.clone(),
        }
    }
}

fn owner_limits(owner: &Owner) -> u32 {
    owner.limits
}

fn service_limits(service: &Service) -> u32 {
    service.limits
}

fn carry_word(word: &AtomicU64, old: &Limit, new: &Limit, now: Nanos) {
    // Without a limit nothing is taken: the level is there still where the old limit comes back.
    if old == new || new.cost == 0 {
        return;
    }
    // Packets go on taking from it: the change is made to what they left.
    let update = |seen| Some(limit::carry(old, new, seen, now));
    let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
}
