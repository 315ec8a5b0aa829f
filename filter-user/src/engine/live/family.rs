//! What prefixes of one family say, changed as the compiler would have it: what is said of a prefix itself comes first,
//! then what is around it, and so on for all that is inside it.
//!
//! Changes the model alone, and can be undone.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use filter_common::bounds::OWNERS_PER_SOURCE_MAX;

use super::Stop;
use super::entries::Entries;
use super::meanings::{Meaning, Meanings, meaning};
use crate::compiler::Key;
use crate::kernel::edit::Edit;

/// Prefixes inside one that are changed with it, one by one: of more a generation is made as soon, and beside the engine.
const CHANGED_MAX: usize = 100_000;

/// The value of no prefix.
const NOTHING: u32 = 0;

/// The names of owners' numbers, which have few gaps.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<Option<Arc<str>>>);

impl Names {
    pub(super) fn get(&self, number: u32) -> Option<&Arc<str>> {
        self.0.get(number as usize)?.as_ref()
    }

    pub(super) fn insert(&mut self, number: u32, name: Arc<str>) {
        let number = number as usize;
        if self.0.len() <= number {
            self.0.resize(number + 1, None);
        }
        self.0[number] = Some(name);
    }

    pub(super) fn remove(&mut self, number: u32) {
        if let Some(name) = self.0.get_mut(number as usize) {
            *name = None;
        }
    }
}

impl FromIterator<(u32, Arc<str>)> for Names {
    fn from_iter<I: IntoIterator<Item = (u32, Arc<str>)>>(named: I) -> Self {
        let mut names = Self::default();
        for (number, name) in named {
            names.insert(number, name);
        }
        names
    }
}

/// What is changed of prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Say {
    /// One owner is no longer named there, another is.
    Owner { without: Option<u32>, with: Option<u32> },
    /// A pushed deny with this end is there.
    Denied(u64),
    /// One with this end is no longer.
    Allowed(u64),
}

/// A prefix whose value has changed; `None` is no entry of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Changed<const N: usize> {
    pub(super) key: Key<N>,
    pub(super) before: Option<u32>,
    pub(super) after: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Family<const N: usize> {
    pub(super) entries: Entries<N>,
    /// Prefixes that an owner names beside one around them.
    doubled: HashSet<(Key<N>, u32)>,
    /// What the policy denies, and the ends of what pushed denies do.
    always_denied: BTreeSet<Key<N>>,
    denied: BTreeMap<Key<N>, Vec<u64>>,
    undo: Vec<Undo<N>>,
}

#[derive(Debug)]
enum Undo<const N: usize> {
    Entry(Key<N>, Option<u32>),
    Doubled(Key<N>, u32, bool),
    Denied(Key<N>, Vec<u64>),
}

/// What is around others, from the widest to the one at hand: as it was, and as it is to be.
struct Around<const N: usize> {
    key: Key<N>,
    was: Meaning,
    is: Meaning,
}

/// What is looked up and written beside the family's own.
pub(super) struct Ground<'g> {
    pub(super) edit: &'g Edit,
    pub(super) meanings: &'g mut Meanings,
    pub(super) names: &'g Names,
}

impl<const N: usize> Family<N> {
    pub(super) fn new(
        entries: Vec<(Key<N>, u32)>,
        doubled: Vec<(Key<N>, u32)>,
        always_denied: impl Iterator<Item = Key<N>>,
        pushed: impl Iterator<Item = (Key<N>, u64)>,
    ) -> Self {
        let mut denied: BTreeMap<_, Vec<u64>> = BTreeMap::new();
        for (key, end) in pushed {
            denied.entry(key).or_default().push(end);
        }
        Self {
            entries: Entries::of(entries),
            doubled: doubled.into_iter().collect(),
            always_denied: always_denied.collect(),
            denied,
            undo: Vec::new(),
        }
    }

    /// Says it of prefixes, which are in their order, each once. Gives what has changed by it, in that order.
    pub(super) fn say(
        &mut self,
        keys: &[Key<N>],
        say: Say,
        ground: &mut Ground<'_>,
    ) -> Result<Vec<Changed<N>>, Stop> {
        self.note_denies(keys, say);
        let mut restated = Vec::new();
        let mut rest = keys;
        while let Some(first) = rest.first() {
            let held = rest.partition_point(|key| first.holds(key));
            let (here, behind) = rest.split_at(held);
            self.restate(here, say, ground, &mut restated)?;
            rest = behind;
        }
        let mut changed = Vec::new();
        for (key, before, is) in restated {
            let after = is.map(|is| ground.meanings.value(ground.edit, &is)).transpose()?;
            self.entries.set(key, after);
            self.undo.push(Undo::Entry(key, before));
            changed.push(Changed { key, before, after });
        }
        Ok(changed)
    }

    /// Nothing can be undone any more.
    pub(super) fn keep(&mut self) {
        self.undo.clear();
    }

    /// How much can be undone.
    pub(super) fn mark(&self) -> usize {
        self.undo.len()
    }

    /// As it was at a mark; 0 is when it was last kept.
    pub(super) fn take_back_to(&mut self, mark: usize) {
        while self.undo.len() > mark
            && let Some(undo) = self.undo.pop()
        {
            match undo {
                Undo::Entry(key, before) => drop(self.entries.set(key, before)),
                Undo::Doubled(key, owner, true) => drop(self.doubled.insert((key, owner))),
                Undo::Doubled(key, owner, false) => drop(self.doubled.remove(&(key, owner))),
                Undo::Denied(key, ends) if ends.is_empty() => drop(self.denied.remove(&key)),
                Undo::Denied(key, ends) => drop(self.denied.insert(key, ends)),
            }
        }
    }

    fn note_denies(&mut self, keys: &[Key<N>], say: Say) {
        let (end, is_denied) = match say {
            Say::Owner { .. } => return,
            Say::Denied(end) => (end, true),
            Say::Allowed(end) => (end, false),
        };
        for key in keys {
            let ends = self.denied.entry(*key).or_default();
            self.undo.push(Undo::Denied(*key, ends.clone()));
            match ends.iter().position(|other| *other == end) {
                Some(at) if !is_denied => drop(ends.swap_remove(at)),
                _ if is_denied => ends.push(end),
                _ => {}
            }
            if ends.is_empty() {
                self.denied.remove(key);
            }
        }
    }

    /// What becomes of prefixes of which something is said, the first of them around all others, and of all inside it.
    fn restate(
        &mut self,
        here: &[Key<N>],
        say: Say,
        ground: &Ground<'_>,
        restated: &mut Vec<(Key<N>, Option<u32>, Option<Meaning>)>,
    ) -> Result<(), Stop> {
        let first = here[0];
        let around = self.entries.around(&first);
        // Of most that are new, nothing is said there nor around it.
        if let (
            Say::Owner {
                with: Some(owner), ..
            },
            [key],
            NOTHING,
        ) = (say, here, around)
            && key.is_single()
            && self.entries.value(key).is_none()
        {
            let is = Meaning {
                denied_until: self.denied_at(key),
                owners: vec![owner],
                ..Meaning::default()
            };
            restated.push((*key, None, Some(is)));
            return Ok(());
        }
        let outside = meaning(ground.edit, around)?;
        let mut chain = vec![Around {
            key: Key::cut(first.address, 0),
            was: outside.clone(),
            is: outside,
        }];
        let points = self.points(here, say);
        if points.len() > CHANGED_MAX {
            return Err(Stop::Generation);
        }
        for (key, before) in points {
            while chain.len() > 1 && chain.last().is_some_and(|around| !around.key.holds(&key)) {
                chain.pop();
            }
            let Some(parent) = chain.last() else { continue };
            let was = before.map(|value| meaning(ground.edit, value)).transpose()?;
            let mut own = self.own(&key, was.as_ref(), parent);
            if let Say::Owner { without, with } = say {
                if here.binary_search(&key).is_ok() {
                    change_owner(&mut own, without, with, ground.names);
                }
                for owner in [without, with].into_iter().flatten() {
                    let is_doubled = own.contains(&owner) && parent.is.owners.contains(&owner);
                    if is_doubled != self.doubled.contains(&(key, owner)) {
                        self.undo.push(Undo::Doubled(key, owner, !is_doubled));
                        match is_doubled {
                            true => self.doubled.insert((key, owner)),
                            false => self.doubled.remove(&(key, owner)),
                        };
                    }
                }
            }
            let is = Meaning {
                management: was.as_ref().unwrap_or(&parent.was).management,
                denied_until: self.denied_at(&key).max(parent.is.denied_until),
                owners: joined(&own, &parent.is.owners),
            };
            let more = !own.is_empty()
                || (is.management, is.denied_until) != (parent.is.management, parent.is.denied_until);
            if was.as_ref() != Some(&is).filter(|_| more) {
                if more && is.owners.len() > OWNERS_PER_SOURCE_MAX as usize {
                    let prefix = key.to_string();
                    return Err(Stop::TooManyOwners { prefix });
                }
                restated.push((key, before, more.then(|| is.clone())));
            }
            if !key.is_single() {
                let was = was.unwrap_or_else(|| parent.was.clone());
                chain.push(Around { key, was, is });
            }
        }
        Ok(())
    }

    /// Where something may change, each behind what is around it, with its value.
    fn points(&self, here: &[Key<N>], say: Say) -> Vec<(Key<N>, Option<u32>)> {
        let first = &here[0];
        let inside = self.entries.inside(first).into_iter();
        let mut points: Vec<_> = inside.map(|(key, value)| (key, Some(value))).collect();
        let mut more = here.to_vec();
        if !matches!(say, Say::Owner { .. }) {
            // A deny that said no more than what was around it has no entry, and may need one now.
            let last = first.last();
            more.extend(self.always_denied.range(first..=&last));
            more.extend(self.denied.range(first..=&last).map(|(key, _)| *key));
        }
        if more.len() > 1 || !points.is_empty() {
            points.extend(more.into_iter().map(|key| (key, self.entries.value(&key))));
            points.sort_unstable();
            points.dedup();
        } else {
            points.push((*first, self.entries.value(first)));
        }
        points
    }

    /// The owners that are named at a prefix itself: all but those it has from around it, unless one has both.
    fn own(&self, key: &Key<N>, was: Option<&Meaning>, parent: &Around<N>) -> Vec<u32> {
        let owners = was.map_or(&[][..], |was| &was.owners).iter();
        let own = owners
            .filter(|owner| !parent.was.owners.contains(owner) || self.doubled.contains(&(*key, **owner)));
        own.copied().collect()
    }

    /// Until when denies of a prefix itself last.
    fn denied_at(&self, key: &Key<N>) -> u64 {
        if self.always_denied.contains(key) {
            return u64::MAX;
        }
        let ends = self.denied.get(key).into_iter().flatten();
        ends.copied().max().unwrap_or(0)
    }
}

fn change_owner(own: &mut Vec<u32>, without: Option<u32>, with: Option<u32>, names: &Names) {
    own.retain(|owner| Some(*owner) != without && Some(*owner) != with);
    if let Some(number) = with {
        let name = |number: &u32| names.get(*number);
        let place = own.partition_point(|owner| name(owner) < name(&number));
        own.insert(place, number);
    }
}

/// Each once, at its longest prefix.
fn joined(own: &[u32], around: &[u32]) -> Vec<u32> {
    let behind = around.iter().filter(|owner| !own.contains(owner));
    own.iter().chain(behind).copied().collect()
}

#[cfg(test)]
impl<const N: usize> Family<N> {
    pub(super) fn doubled(&self) -> BTreeSet<(Key<N>, u32)> {
        self.doubled.iter().copied().collect()
    }
}
