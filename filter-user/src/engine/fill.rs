//! How full the bounded tables are, single changes included: for status, metrics, and a word in the log long before
//! one is full.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use filter_common::abi::names;
use filter_common::bounds::ROWS_MAX;
use filter_common::lookup::PORT_SET_WORDS;

use super::snapshot::TableFill;
use crate::bindings::seam::Many;
use crate::compiler::{Compiled, Numbers, Pushed};
use crate::kernel::edit::length;
use crate::kernel::load::{Generation, LoadError};
use crate::policy::Policy;
use crate::policy::bounds::{PORT_SETS_MAX, SOURCES_MAX};

/// From here on a table's fill is told of, once; again only after it was well below.
const TOLD_FROM_PERCENT: u64 = 80;
const FORGOTTEN_BELOW_PERCENT: u64 = 75;

/// The owner table of a new filter: what later policies may grow to without a larger one.
const OWNERS_AT_LEAST: u32 = 65_536;
/// The most that publishers' bounds alone ask for: 64 bytes each.
const OWNERS_PUSHED_MAX: u64 = 4_000_000;

const ADDING: [&str; 4] = [names::RANGES_V4, names::RANGES_V6, names::SOURCES, names::GRANTS];

/// One table's fill.
#[derive(Debug)]
pub(super) struct Table {
    name: &'static str,
    entries: AtomicU64,
    capacity: u64,
    /// How many entries it began with.
    began: u64,
}

impl Table {
    fn new(name: &'static str, (entries, capacity): (u64, u64)) -> Self {
        Self {
            name,
            entries: AtomicU64::new(entries),
            capacity,
            began: entries,
        }
    }

    /// Whether more than so many quarters of what was free have been used.
    fn has_used(&self, quarters: u64) -> bool {
        let used = self.entries().saturating_sub(self.began);
        used * 4 > self.capacity.saturating_sub(self.began) * quarters
    }

    pub(super) fn add(&self) {
        self.entries.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn take(&self) {
        self.entries.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn set(&self, entries: u64) {
        self.entries.store(entries, Ordering::Relaxed);
    }

    pub(super) fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// What stands in the way of so many more: the table, how many entries it needs, and how many it has.
    pub(super) fn refuses(&self, more: u64) -> Option<(&'static str, u64, u64)> {
        let needed = self.entries() + more;
        (needed > self.capacity).then_some((self.name, needed, self.capacity))
    }
}

/// Of the generation in force.
#[derive(Debug)]
pub(super) struct Fill {
    pub(super) sources_v4: Table,
    pub(super) sources_v6: Table,
    pub(super) rows: Table,
    pub(super) owners: Table,
    pub(super) port_sets: Table,
    /// Entries of that table as it was made, those among them that packets may still read. Full, it refuses nothing
    /// either.
    pub(super) port_set_entries: Table,
    /// What single changes add to and never give back: ranges of both families, sources, lists of owners. Full, they
    /// refuse nothing: the next change takes a generation, which has room again.
    adding: [Table; 4],
    /// What the generation has room for, in all, and what it began with. Lines of addresses hold some more, and an owner
    /// that is gone keeps its number for a while.
    room: Many,
    began: Many,
}

impl Fill {
    /// Entries and capacity of each.
    pub(super) fn new(
        sources_v4: (u64, u64),
        sources_v6: (u64, u64),
        rows: (u64, u64),
        owners: (u64, u64),
    ) -> Self {
        Self {
            sources_v4: Table::new("SOURCES_V4", sources_v4),
            sources_v6: Table::new("SOURCES_V6", sources_v6),
            rows: Table::new(names::ROWS, rows),
            owners: Table::new(names::OWNER_STATE, owners),
            port_sets: Table::new(names::PORT_SETS, (0, PORT_SETS_MAX.into())),
            port_set_entries: Table::new(names::PORT_SETS, (0, 0)),
            adding: ADDING.map(|name| Table::new(name, (0, 0))),
            room: Many::default(),
            began: Many::default(),
        }
    }

    /// Knows also of tables that single changes add to, of a generation that has some.
    pub(super) fn adding_to(
        mut self,
        generation: &Generation,
        compiled: &Compiled,
    ) -> Result<Self, LoadError> {
        let taken = [
            generation.homes.ranges_v4 as usize,
            generation.homes.ranges_v6 as usize,
            compiled.sources.len(),
            compiled.grants.len(),
        ];
        for ((table, name), taken) in self.adding.iter_mut().zip(ADDING).zip(taken) {
            let (taken, length) = (taken as u64, u64::from(length(generation, name)?));
            // A table that is not in use has one entry all the same.
            if length > taken.max(1) {
                *table = Table::new(name, (taken, length));
            }
        }
        let width = u64::from(PORT_SET_WORDS);
        let entries = u64::from(length(generation, names::PORT_SETS)?) / width;
        let taken = compiled.port_sets.len() as u64 / width;
        self.port_set_entries = Table::new(names::PORT_SETS, (taken, entries));
        Ok(self)
    }

    /// How much of the ranges, sources and lists of owners is used.
    pub(super) fn added(&self, entries: [u32; 4]) {
        for (table, entries) in self.adding.iter().zip(entries) {
            table.set(entries.into());
        }
    }

    /// A table of whose free entries single changes have used more than half.
    pub(super) fn half_used(&self) -> Option<&'static str> {
        self.used(2)
    }

    /// A table of which so little is left that it is kept for what cannot wait: of those that single changes add to a
    /// quarter, of what has room for owners and single addresses a sixteenth.
    pub(super) fn scarce(&self) -> Option<&'static str> {
        self.nearly_used().or_else(|| self.used(3))
    }

    fn used(&self, quarters: u64) -> Option<&'static str> {
        let mut adding = self.adding.iter().chain([&self.port_set_entries]);
        let used = adding.find(|table| table.has_used(quarters));
        used.map(|table| table.name)
    }

    /// What a generation begins with. Its tables are made as large as it needs: what bounds the policy bounds them.
    pub(super) fn of(compiled: &Compiled, owners: usize, owners_max: u32) -> Self {
        let sources = |entries: usize| (entries as u64, SOURCES_MAX as u64);
        let rows = compiled.rows.len() / compiled.row_words.max(1) as usize;
        let fill = Self::new(
            sources(compiled.sources_v4.len()),
            sources(compiled.sources_v6.len()),
            (rows as u64, ROWS_MAX.into()),
            (owners as u64, u64::from(owners_max.saturating_sub(1))),
        );
        // Number 0 is none.
        let port_sets = compiled.port_sets.len() as u64 / u64::from(PORT_SET_WORDS);
        fill.port_sets.set(port_sets.saturating_sub(1));
        let (began, room) = (fill.with(Many::default()), compiled.room);
        Self {
            room: Many {
                owners: began.owners + u64::from(room.owners),
                v4: began.v4 + u64::from(room.hosts_v4),
                v6: began.v6 + u64::from(room.hosts_v6),
            },
            began,
            ..fill
        }
    }

    /// What there is, and so many more; of owners never more than there can be.
    pub(super) fn with(&self, more: Many) -> Many {
        Many {
            owners: (self.owners.entries() + more.owners).min(self.owners.capacity),
            v4: self.sources_v4.entries() + more.v4,
            v6: self.sources_v6.entries() + more.v6,
        }
    }

    /// A table that has no room for so many in all.
    pub(super) fn lacks(&self, many: &Many) -> Option<&'static str> {
        let kinds = kinds(many).into_iter().zip(kinds(&self.room));
        let mut lacking = kinds.filter(|((_, many), (_, room))| many > room);
        lacking.next().map(|((table, _), _)| table)
    }

    /// A table whose room for owners or single addresses is all but used.
    fn nearly_used(&self) -> Option<&'static str> {
        let there = self.with(Many::default());
        let kinds = kinds(&there)
            .into_iter()
            .zip(kinds(&self.began))
            .zip(kinds(&self.room));
        let mut used = kinds.filter(|(((_, there), (_, began)), (_, room))| {
            room > began && there.saturating_sub(*began) * 16 > (room - began) * 15
        });
        used.next().map(|(((table, _), _), _)| table)
    }

    /// Those that refuse when they are full, then the others that have any room.
    fn tables(&self) -> impl Iterator<Item = &Table> {
        let refusing = [
            &self.sources_v4,
            &self.sources_v6,
            &self.rows,
            &self.owners,
            &self.port_sets,
        ];
        let adding = self.adding.iter().filter(|table| table.capacity != 0);
        refusing.into_iter().chain(adding)
    }

    pub(super) fn shown(&self) -> Vec<TableFill> {
        let shown = self.tables().map(|table| TableFill {
            table: table.name,
            entries: table.entries(),
            capacity: table.capacity,
        });
        shown.collect()
    }
}

fn kinds(many: &Many) -> [(&'static str, u64); 3] {
    [
        (names::OWNERS, many.owners),
        (names::HOSTS_V4, many.v4),
        (names::HOSTS_V6, many.v6),
    ]
}

/// How many owners there are.
pub(super) fn owners_of(policy: &Policy, pushed: &Pushed) -> usize {
    policy.clients.len() + pushed.grantees.len()
}

/// Entries of the owner table that a policy needs, with all that its publishers may push: for bounds beyond what is made
/// before it is asked for, no more than that.
pub fn owners_needed(policy: &Policy) -> u32 {
    let clients = policy.clients.len() as u64 + 1;
    clients.max(owners_allowed(policy).min(OWNERS_PUSHED_MAX)) as u32
}

/// The same where so many are there already: above the bounds' part, a table is made when four fifths are used.
pub(super) fn owners_needed_beside(policy: &Policy, used: usize) -> u32 {
    let roomy = (used as u64 + used as u64 / 4).min(owners_allowed(policy));
    owners_needed(policy).max(roomy as u32)
}

fn owners_allowed(policy: &Policy) -> u64 {
    let bounds = policy.publishers.iter().map(|publisher| publisher.bindings_max);
    policy.clients.len() as u64 + 1 + bounds.sum::<u64>()
}

/// Entries of a new owner table: it stays until a start finds that it is too small, so policies to come have some more.
pub(super) fn owners_max(policy: &Policy, numbers: &Numbers, at_least: u32) -> u32 {
    let needed = owners_needed(policy).max(at_least);
    let roomy = needed.saturating_add(needed / 4).min(OWNERS_PUSHED_MAX as u32);
    OWNERS_AT_LEAST
        .max(needed)
        .max(roomy)
        .max(numbers.owners_end().saturating_mul(2))
}

/// Which tables are told of as nearly full.
#[derive(Debug, Default)]
pub(super) struct Told([AtomicBool; 5]);

impl Told {
    /// Says once of a table that it fills up. Of the first five alone: the others are emptied by a generation.
    pub(super) fn look(&self, fill: &Fill) {
        for (table, told) in fill.tables().zip(&self.0) {
            let percent = table.entries() * 100 / table.capacity.max(1);
            if percent < FORGOTTEN_BELOW_PERCENT {
                told.store(false, Ordering::Relaxed);
            } else if percent >= TOLD_FROM_PERCENT && !told.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    table = table.name,
                    entries = table.entries(),
                    capacity = table.capacity,
                    "a table is {percent} % full: what does not fit will be refused"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_told_of_once_and_again_after_it_was_well_below() {
        let fill = Fill::new((0, 10), (0, 10), (79, 100), (0, 10));
        let told = Told::default();
        let rows = |entries| {
            fill.rows.set(entries);
            told.look(&fill);
            told.0[2].load(Ordering::Relaxed)
        };
        assert_eq!([79, 80, 76, 74].map(rows), [false, true, true, false]);
    }

    #[test]
    fn room_is_lacking_for_what_is_more_than_it_and_nearly_used_when_a_sixteenth_is_left() {
        let many = |owners, v4| Many { owners, v4, v6: 0 };
        let fill = Fill {
            room: many(160, 1_000),
            ..Fill::new((0, 2_000), (0, 10), (0, 10), (0, 1_000))
        };
        assert_eq!(fill.lacks(&many(160, 1_000)), None);
        assert_eq!(fill.lacks(&many(161, 0)), Some(names::OWNERS));
        assert_eq!(fill.lacks(&many(0, 1_001)), Some(names::HOSTS_V4));
        fill.owners.set(150);
        assert_eq!(fill.nearly_used(), None);
        fill.owners.set(151);
        assert_eq!(fill.nearly_used(), Some(names::OWNERS));
        assert_eq!(fill.with(many(10, 5)), many(161, 5));
        assert_eq!(
            fill.with(many(10_000, 5)),
            many(1_000, 5),
            "no more than there can be"
        );
    }

    #[test]
    fn a_quarter_of_what_is_only_added_to_is_kept_for_what_cannot_wait() {
        let mut fill = Fill::new((0, 10), (0, 10), (0, 10), (0, 10));
        let sources = Table::new(names::SOURCES, (100, 500));
        fill.adding[2] = sources;
        let used = |fill: &Fill, entries| {
            fill.added([0, 0, entries, 0]);
            (fill.half_used().is_some(), fill.scarce())
        };
        assert_eq!(used(&fill, 300), (false, None));
        assert_eq!(used(&fill, 301), (true, None));
        assert_eq!(used(&fill, 400), (true, None));
        assert_eq!(used(&fill, 401), (true, Some(names::SOURCES)));
    }

    #[test]
    fn what_does_not_fit_is_named_with_what_it_needs() {
        let fill = Fill::new((9, 10), (0, 10), (0, 10), (0, 10));
        assert_eq!(fill.sources_v4.refuses(1), None);
        assert_eq!(fill.sources_v4.refuses(2), Some(("SOURCES_V4", 11, 10)));
    }

    #[test]
    fn table_of_owners_has_room_for_what_may_be_pushed_and_no_start_makes_a_larger_one_twice() {
        for (bound, at_least, needed, entries) in [
            (1, 0, 3, OWNERS_AT_LEAST),
            (100_000, 0, 100_002, 125_002),
            (100_000, 200_000, 100_002, 250_000),
            (10_000_000, 0, 4_000_000, 4_000_000),
        ] {
            let text = format!(
                "version = 1\n[filter]\ninterfaces = [\"eth0\"]\nmanagement-none = true\n\
                 [[client]]\nname = \"c\"\nsources = [\"192.0.2.1\"]\nservices = [\"s\"]\n\
                 [[service]]\nname = \"s\"\nprotocol = \"tcp\"\nports = [443]\n\
                 [[publisher]]\nname = \"p\"\nuser = \"root\"\nservices = [\"s\"]\nbindings-max = {bound}\n"
            );
            let policy = crate::engine::live_tests::policy_from(&text);
            assert_eq!(owners_needed(&policy), needed, "{bound}");
            let made = owners_max(&policy, &Numbers::default(), at_least);
            assert_eq!(made, entries, "{bound}");
            assert!(made >= owners_needed(&policy).max(at_least));
            assert_eq!(owners_needed_beside(&policy, 10), needed);
        }
    }
}
