//! The sources' own buckets from one generation to the next: the same map where it has the right size, so that no
//! packet's taking is lost, else a new one with all that sources still owe.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::{MapData, MapInfo};
use filter_common::abi::{Limit, LimitSet, SOURCE_LIMIT, names};
use filter_common::bounds::SOURCE_WAYS;
use filter_common::limit;
use filter_common::source_limit::line;
use filter_common::units::Nanos;

use super::chain;
use super::clock;
use super::levels::{Limits, pairs};
use super::load::{Generation, LoadError};
use super::memory::Words;

/// Of packets, bytes and connections.
const UNITS: u32 = 3;
/// A way's tag, and its bucket's word.
const WAY_WORDS: usize = 2;
const LINE_WORDS: usize = SOURCE_WAYS as usize * WAY_WORDS;

/// Whether the map pinned here has so many entries.
pub(super) fn fits(pins: &Path, entries: u32) -> bool {
    MapInfo::from_pin(pins.join(names::SOURCE_STATE)).is_ok_and(|info| info.max_entries() == entries)
}

/// Gives the buckets of a generation that is about to be in force the levels that they have in the one that is. Their
/// limits may be others.
pub fn carry(pins: &Path, next: &Generation, old: &Limits, new: &Limits) -> Result<(), LoadError> {
    match MapData::from_pin(pins.join(names::SOURCE_STATE)) {
        Ok(was) => between((&was, next.map(names::SOURCE_STATE)?), (old, new)),
        Err(_) => Ok(()),
    }
}

/// The same between two generations of which neither is in force.
pub fn hand_over(
    (was, next): (&Generation, &Generation),
    limits: (&Limits, &Limits),
) -> Result<(), LoadError> {
    let map = |generation| Generation::map(generation, names::SOURCE_STATE);
    between((map(was)?, map(next)?), limits)
}

fn between((was, map): (&MapData, &MapData), (old, new): (&Limits, &Limits)) -> Result<(), LoadError> {
    let (old, new) = (old.of_sources(), new.of_sources());
    let is_same = was.info()?.id() == map.info()?.id();
    let limits = pairs(&old, &new);
    if is_same && limits.iter().all(|(old, new)| old == new) {
        return Ok(());
    }
    let mapped = |map: &MapData| Words::of(map).map_err(|error| failed(&error));
    let (was, now) = (mapped(was)?, clock::monotonic());
    if is_same {
        change(was.all(), limits, now);
    } else {
        copy(was.all(), mapped(map)?.all(), limits, now);
    }
    Ok(())
}

/// The generation is in force: its buckets are those that the next one finds.
pub fn keep(pins: &Path, generation: &Generation) -> Result<(), LoadError> {
    let (path, map) = (
        pins.join(names::SOURCE_STATE),
        generation.map(names::SOURCE_STATE)?,
    );
    if MapInfo::from_pin(&path).is_ok_and(|info| Some(info.id()) == map.info().map(|info| info.id()).ok()) {
        return Ok(());
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(&error)),
        _ => {}
    }
    map.pin(&path).map_err(|error| failed(&chain(&error)))
}

fn failed(error: &dyn std::fmt::Display) -> LoadError {
    LoadError::Object(format!("{}: {error}", names::SOURCE_STATE))
}

impl Limits {
    fn of_sources(&self) -> LimitSet {
        let number = self.services.get(SOURCE_LIMIT as usize).copied().unwrap_or(0);
        self.limits.get(number as usize).copied().unwrap_or_default()
    }
}

/// The lines of a unit.
fn of_unit(words: &[AtomicU64], unit: usize) -> &[AtomicU64] {
    let length = words.len() / LINE_WORDS / UNITS as usize * LINE_WORDS;
    &words[unit * length..][..length]
}

/// Packets go on taking from it: the change is made to what they left.
fn change(words: &[AtomicU64], limits: [(&Limit, &Limit); 3], now: Nanos) {
    for (unit, (old, new)) in limits
        .into_iter()
        .enumerate()
        .filter(|(_, (old, new))| old != new)
    {
        for way in of_unit(words, unit).chunks_exact(WAY_WORDS) {
            let update = |seen| (seen > now.units()).then(|| limit::carry(old, new, seen, now));
            // What is full stays so.
            let _ = way[1].fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        }
    }
}

/// Into tables that judge nothing yet.
fn copy(from: &[AtomicU64], to: &[AtomicU64], limits: [(&Limit, &Limit); 3], now: Nanos) {
    let lines = (to.len() / LINE_WORDS) as u32 / UNITS;
    if lines == 0 {
        return;
    }
    for (unit, (old, new)) in limits
        .into_iter()
        .enumerate()
        .filter(|(_, (_, new))| new.cost != 0)
    {
        for way in of_unit(from, unit).chunks_exact(WAY_WORDS) {
            let (tag, word) = (way[0].load(Ordering::Relaxed), way[1].load(Ordering::Relaxed));
            if tag == 0 || word <= now.units() || old.cost == 0 {
                continue;
            }
            let word = limit::carry(old, new, word, now);
            let (at, hash) = line(tag, unit as u32, lines);
            let ways = &to[at as usize * LINE_WORDS..][..LINE_WORDS];
            let free = ways.chunks_exact(WAY_WORDS).find(|way| {
                let owner = way[0].load(Ordering::Relaxed);
                owner == 0 || owner == tag
            });
            match free {
                Some(way) => {
                    way[0].store(tag, Ordering::Relaxed);
                    way[1].fetch_max(word, Ordering::Relaxed);
                }
                // As the program does where all are in use: shared, stricter and never looser.
                None => {
                    let shared = (hash as u32 & (SOURCE_WAYS - 1)) as usize * WAY_WORDS;
                    ways[shared + 1].fetch_max(word, Ordering::Relaxed);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Nanos = Nanos(3_600_000_000_000);

    fn words(lines: usize) -> Vec<AtomicU64> {
        (0..lines * UNITS as usize * LINE_WORDS)
            .map(|_| AtomicU64::new(0))
            .collect()
    }

    fn owed(words: &[AtomicU64], tag: u64, unit: u32) -> Option<u64> {
        let lines = (words.len() / LINE_WORDS) as u32 / UNITS;
        let (at, _) = line(tag, unit, lines);
        let ways = &words[at as usize * LINE_WORDS..][..LINE_WORDS];
        let way = ways
            .chunks_exact(WAY_WORDS)
            .find(|way| way[0].load(Ordering::Relaxed) == tag)?;
        Some(way[1].load(Ordering::Relaxed) - NOW.units())
    }

    fn owe(words: &[AtomicU64], tag: u64, unit: u32, units: u64) {
        let lines = (words.len() / LINE_WORDS) as u32 / UNITS;
        let (at, _) = line(tag, unit, lines);
        let mut ways = words[at as usize * LINE_WORDS..][..LINE_WORDS].chunks_exact(WAY_WORDS);
        let way = ways.find(|way| way[0].load(Ordering::Relaxed) == 0).unwrap();
        way[0].store(tag, Ordering::Relaxed);
        way[1].store(NOW.units() + units, Ordering::Relaxed);
    }

    #[test]
    fn what_is_owed_goes_over_into_a_table_of_another_size_and_under_another_limit() {
        let (slow, fast) = (
            Limit::of_tokens(1, 1, 10).unwrap(),
            Limit::of_tokens(2, 1, 10).unwrap(),
        );
        let none = Limit::NONE;
        let (from, to) = (words(64), words(7));
        for tag in 1..=20u64 {
            owe(&from, tag << 32 | 77, 0, slow.cost * 5);
        }
        owe(&from, 21 << 32 | 77, 1, slow.cost * 5);
        copy(&from, &to, [(&slow, &fast), (&none, &none), (&none, &none)], NOW);
        let found = (1..=20u64).filter_map(|tag| owed(&to, tag << 32 | 77, 0));
        let found: Vec<u64> = found.collect();
        assert!(found.len() > 10, "{found:?}");
        assert!(found.iter().all(|owed| *owed == fast.cost * 5), "{found:?}");
        assert_eq!(owed(&to, 21 << 32 | 77, 1), None, "what has no limit any more");
    }

    #[test]
    fn another_limit_keeps_the_tokens_used_in_the_same_table() {
        let (slow, fast) = (
            Limit::of_tokens(1, 1, 10).unwrap(),
            Limit::of_tokens(2, 1, 4).unwrap(),
        );
        let all = words(16);
        owe(&all, 5, 0, slow.cost * 3);
        owe(&all, 6, 0, slow.cost * 9);
        owe(&all, 5, 2, slow.cost * 3);
        change(&all, [(&slow, &fast), (&slow, &slow), (&slow, &slow)], NOW);
        assert_eq!(owed(&all, 5, 0), Some(fast.cost * 3));
        assert_eq!(owed(&all, 6, 0), Some(fast.cost * 4), "up to the new burst");
        assert_eq!(owed(&all, 5, 2), Some(slow.cost * 3));
    }
}
