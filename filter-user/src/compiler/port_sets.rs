//! Sets of source ports, each distinct one once, and who uses it: what nobody uses any more makes room for others.
//!
//! One range stands in its owner; more make a set of bits in the kernel, of 8 KiB. So their number is bounded, and of
//! the last ones some are kept for publishers that have few.

use std::collections::HashMap;

use filter_common::abi::{Owner, names};
use filter_common::lookup::PORT_SET_WORDS;

use super::CompileError;
use crate::policy::bounds::{PORT_SETS_FEW, PORT_SETS_KEPT, PORT_SETS_MAX};
use crate::policy::model::PortRange;

/// In order, and none that touch: the same ports are the same ranges.
pub type Ports = Box<[PortRange]>;

const WORDS: usize = PORT_SET_WORDS as usize;
/// Entries left free for what is pushed, of 2 MiB; where there are more than half as many sets, room for all that there may
/// be, and these beside them for sets that are still read.
const ROOM: u32 = 256;

/// Whether these ranges take a set of their own.
pub fn are_set(ranges: &[PortRange]) -> bool {
    ranges.len() > 1
}

/// The same ports, however they were written.
pub fn ports(ranges: &[PortRange]) -> Ports {
    ranges_of(&words_of(ranges))
}

/// Entries to leave free beside so many sets.
pub fn room_beside(sets: u32) -> u32 {
    match sets <= ROOM / 2 {
        true => ROOM,
        false => (PORT_SETS_MAX + ROOM).saturating_sub(sets),
    }
}

/// As the kernel has them: a bit for each port.
fn words_of(ranges: &[PortRange]) -> Vec<u64> {
    let mut words = vec![0u64; WORDS];
    for range in ranges {
        let (first, last) = (usize::from(range.first), usize::from(range.last));
        for (at, word) in words.iter_mut().enumerate().take(last / 64 + 1).skip(first / 64) {
            let from = first.saturating_sub(at * 64);
            let to = (last - at * 64).min(63);
            *word |= (u64::MAX << from) & (u64::MAX >> (63 - to));
        }
    }
    words
}

fn ranges_of(words: &[u64]) -> Ports {
    let mut ranges: Vec<PortRange> = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let mut left = *word;
        while left != 0 {
            let start = left.trailing_zeros();
            let length = (!(left >> start)).trailing_zeros().min(64 - start);
            left &= !(u64::MAX >> (64 - length) << start);
            let first = at * 64 + start as usize;
            let (first, last) = (first as u16, (first + length as usize - 1) as u16);
            match ranges.last_mut() {
                Some(before) if u32::from(before.last) + 1 == u32::from(first) => before.last = last,
                _ => ranges.push(PortRange { first, last }),
            }
        }
    }
    ranges.into()
}

/// What a compile makes of source ports: one range stands in the owner itself; more make a set of bits, shared by all
/// who ask for the same.
#[derive(Default)]
pub(super) struct SourcePorts<'a> {
    /// By what was written: most ask for what another has asked for.
    asked: HashMap<&'a [PortRange], u32>,
    sets: HashMap<Ports, u32>,
}

impl<'a> SourcePorts<'a> {
    /// First, last, and the number of a set.
    pub(super) fn of(&mut self, ranges: &'a [PortRange]) -> (u16, u16, u32) {
        match ranges {
            [] => (0, u16::MAX, 0),
            [range] => (range.first, range.last, 0),
            ranges => {
                let set = *self.asked.entry(ranges).or_insert_with(|| {
                    let next = self.sets.len() as u32 + 1;
                    *self.sets.entry(ports(ranges)).or_insert(next)
                });
                (0, 0, set)
            }
        }
    }

    /// All sets, number 0 an empty one.
    pub(super) fn words(&self) -> Result<Vec<u64>, CompileError> {
        let needed = self.sets.len();
        if needed > PORT_SETS_MAX as usize {
            return Err(CompileError::TableFull {
                table: names::PORT_SETS,
                what: "sets of source ports",
                needed,
                max: PORT_SETS_MAX,
            });
        }
        let mut words = vec![0; (needed + 1) * WORDS];
        for (ranges, number) in &self.sets {
            words[*number as usize * WORDS..][..WORDS].copy_from_slice(&words_of(ranges));
        }
        Ok(words)
    }
}

#[derive(Debug)]
struct Set {
    number: u32,
    users: u32,
}

/// A set that an owner is to have.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken {
    pub number: u32,
    /// Of one that was not there.
    pub words: Option<Vec<u64>>,
}

/// The sets of a generation. Number 0 is none; publisher 0 is the policy itself.
#[derive(Debug)]
pub struct PortSets {
    sets: HashMap<Ports, Set>,
    /// Owners of each publisher that use a set, by publisher and set.
    uses: HashMap<(u32, u32), u32>,
    /// Sets that each publisher uses.
    of: HashMap<u32, u32>,
    /// One past the highest number that was given out.
    end: u32,
    free: Vec<u32>,
    /// Nobody's any more, but packets that are under way may read them still.
    left: Vec<u32>,
}

impl PortSets {
    /// Of what a compile gave.
    pub fn of(words: &[u64], owners: &[Owner]) -> Self {
        let mut sets = Self {
            sets: HashMap::new(),
            uses: HashMap::new(),
            of: HashMap::new(),
            end: (words.len() / WORDS).max(1) as u32,
            free: Vec::new(),
            left: Vec::new(),
        };
        let mut users = vec![0u32; sets.end as usize];
        for owner in owners.iter().filter(|owner| owner.port_set != 0) {
            users[owner.port_set as usize] += 1;
            sets.used(owner.publisher, owner.port_set);
        }
        for (number, words) in (0u32..).zip(words.chunks(WORDS)).skip(1) {
            let users = users[number as usize];
            sets.sets.insert(ranges_of(words), Set { number, users });
        }
        sets
    }

    pub fn count(&self) -> u32 {
        self.sets.len() as u32
    }

    /// Entries of the table that may be read.
    pub fn entries(&self) -> u32 {
        self.end - self.free.len() as u32
    }

    /// One more owner with these ports, in a table of so many entries; `None` where that has none free.
    pub fn take(&mut self, publisher: u32, ranges: &[PortRange], entries: u32) -> Option<Taken> {
        let words = words_of(ranges);
        let ports = ranges_of(&words);
        let taken = match self.sets.get_mut(&ports) {
            Some(set) => {
                set.users += 1;
                Taken {
                    number: set.number,
                    words: None,
                }
            }
            None => {
                let number = self.free.pop().or_else(|| {
                    let next = self.end;
                    (next < entries).then(|| {
                        self.end += 1;
                        next
                    })
                })?;
                self.sets.insert(ports, Set { number, users: 1 });
                Taken {
                    number,
                    words: Some(words),
                }
            }
        };
        self.used(publisher, taken.number);
        Some(taken)
    }

    fn used(&mut self, publisher: u32, set: u32) {
        let uses = self.uses.entry((publisher, set)).or_default();
        *uses += 1;
        if *uses == 1 {
            *self.of.entry(publisher).or_default() += 1;
        }
    }

    /// One owner less with these ports.
    pub fn give_back(&mut self, publisher: u32, ranges: &[PortRange]) {
        let ports = ports(ranges);
        let Some(set) = self.sets.get_mut(&ports) else {
            return;
        };
        let number = set.number;
        set.users = set.users.saturating_sub(1);
        if set.users == 0 {
            self.sets.remove(&ports);
            self.left.push(number);
        }
        let Some(uses) = self.uses.get_mut(&(publisher, number)) else {
            return;
        };
        *uses -= 1;
        if *uses == 0 {
            self.uses.remove(&(publisher, number));
            if let Some(of) = self.of.get_mut(&publisher) {
                *of -= 1;
            }
        }
    }

    /// Whether more would be free once packets that are under way have gone.
    pub fn waits(&self) -> bool {
        !self.left.is_empty()
    }

    /// Packets that were under way have gone.
    pub fn settle(&mut self) {
        self.free.append(&mut self.left);
    }
}

/// Why sets that are wanted cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSet {
    /// So many would be needed.
    Full(u32),
    /// The last ones are kept for publishers that have fewer than this one.
    Kept(u32),
}

/// What becomes of the number of sets with some changes, before any of them is made.
#[derive(Debug, Default)]
pub struct PortDraft {
    /// Of sets that are not there, numbers from behind all others.
    new: HashMap<Ports, u32>,
    /// Owners more or less, of each set, and by publisher and set.
    users: HashMap<u32, i64>,
    uses: HashMap<(u32, u32), i64>,
    /// Sets more or less, in all and of each publisher.
    more: i64,
    more_of: HashMap<u32, i64>,
}

impl PortDraft {
    /// So many owners more or less with these ports.
    pub fn change(&mut self, sets: &PortSets, publisher: u32, ranges: &[PortRange], by: i64) {
        if !are_set(ranges) {
            return;
        }
        let ports = ports(ranges);
        let (number, known) = match sets.sets.get(&ports) {
            Some(set) => (set.number, i64::from(set.users)),
            None => {
                let next = u32::MAX - self.new.len() as u32;
                (*self.new.entry(ports).or_insert(next), 0)
            }
        };
        self.more += moved(known, self.users.entry(number).or_default(), by);
        let known = sets
            .uses
            .get(&(publisher, number))
            .map_or(0, |uses| i64::from(*uses));
        let uses = self.uses.entry((publisher, number)).or_default();
        *self.more_of.entry(publisher).or_default() += moved(known, uses, by);
    }

    /// Sets more than there are.
    pub fn more(&self) -> i64 {
        self.more
    }

    /// Why these changes cannot be, of which some are this publisher's.
    pub fn refuses(&self, sets: &PortSets, publisher: u32) -> Option<NoSet> {
        let count = u32::try_from(i64::from(sets.count()) + self.more).unwrap_or(0);
        if self.more <= 0 {
            return None;
        }
        if count > PORT_SETS_MAX {
            return Some(NoSet::Full(count));
        }
        let more = self.more_of.get(&publisher).copied().unwrap_or(0);
        let has = sets.of.get(&publisher).copied().unwrap_or(0);
        let few = i64::from(has) + more <= i64::from(PORT_SETS_FEW);
        let is_kept = publisher != 0 && more > 0 && !few && count > PORT_SETS_MAX - PORT_SETS_KEPT;
        // Without the one that was too many.
        is_kept.then_some(NoSet::Kept(u32::try_from(i64::from(has) + more - 1).unwrap_or(0)))
    }

    /// Why all of these changes together cannot be.
    pub fn refuses_any(&self, sets: &PortSets) -> Option<NoSet> {
        self.more_of
            .keys()
            .find_map(|publisher| self.refuses(sets, *publisher))
    }
}

/// What a change of users makes of the number of those that have any: one more, one less, or none.
fn moved(known: i64, more: &mut i64, by: i64) -> i64 {
    let before = known + *more > 0;
    *more += by;
    i64::from(known + *more > 0) - i64::from(before)
}

#[cfg(test)]
#[path = "port_sets_tests.rs"]
mod tests;
