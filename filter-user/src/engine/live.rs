//! Changes of single bindings and denies in the tables in force, without a generation of their own.
//!
//! What prefixes say is worked out as the compiler does it (`family`), then what words the kernel is to hold of it
//! (`words`), and then these are written. What finds no room stops before that, and is left to the next generation.

mod entries;
mod family;
mod meanings;
mod plan;
mod source_ports;
mod trial;
mod words;

use std::collections::BTreeSet;
use std::sync::Arc;

use filter_common::abi::{LimitSet, Owner};
use ipnet::IpNet;

use super::fill::Fill;
use crate::bindings::seam::Grantee;
use crate::compiler::port_sets::PortSets;
use crate::compiler::{
    Compiled, LimitTable, Numbers, OwnerHash, Pushed, Rows, binding_name, limit_set, owner_flags,
};
use crate::kernel::edit::{Edit, NoRoom, Write};
use crate::kernel::load::{Generation, LoadError};
use crate::kernel::state::{Limits, State};
use crate::policy::Policy;
use crate::policy::model::Limits as PolicyLimits;
use family::{Family, Names, Say};
use meanings::Meanings;
use plan::{Keyed, Step};
use words::Runs;

/// Why a change was not made in the tables in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The next generation can.
    Generation,
    TooManyOwners {
        prefix: String,
    },
    /// Which table, how many entries it needs, and how many it has.
    Full(&'static str, u64, u64),
    /// Which table, and how many entries the publisher has of it: the last ones are kept for those that have few.
    Kept(&'static str, u64),
}

impl From<NoRoom> for Stop {
    fn from(_: NoRoom) -> Self {
        Self::Generation
    }
}

/// A deny: its sources and its end.
pub(super) type Deny = (Vec<IpNet>, u64);

/// What a change of a binding comes to, with nothing of it written yet that is referred to.
struct PlannedPut {
    owner: Owner,
    writes: Vec<Write>,
}

/// The tables of a generation, and what is known of them.
pub(super) struct Live {
    edit: Edit,
    v4: Family<4>,
    v6: Family<16>,
    meanings: Meanings,
    runs: Runs,
    row_words: usize,
    rows: Rows,
    limits: LimitTable,
    port_sets: PortSets,
    names: Names,
    owners_end: u32,
    /// Numbers that owners had before their terms changed, and those that they have since.
    moved: Vec<(u32, u32)>,
    fill: Arc<Fill>,
}

impl Live {
    pub(super) fn new(
        generation: &Generation,
        compiled: Compiled,
        numbers: &mut Numbers,
        (policy, pushed, fill): (&Policy, &Pushed, &Arc<Fill>),
        owners_max: u32,
    ) -> Result<Self, LoadError> {
        let edit = Edit::of(generation)?;
        let names = numbers.take_listed(policy, pushed);
        let sources = || policy.denies.iter().flat_map(|deny| &deny.sources);
        let always = || sources().map(|source| Keyed::of(&source.prefix));
        let denies = pushed.denies.values();
        let denied_v4 = denies.clone().flat_map(|deny| denied(deny, Keyed::v4));
        let denied_v6 = denies.flat_map(|deny| denied(deny, Keyed::v6));
        let homes = generation.homes;
        let meanings = Meanings::of(&compiled);
        let (v4, v6) = (compiled.sources_v4, compiled.sources_v6);
        let (doubled_v4, doubled_v6) = (compiled.doubled_v4, compiled.doubled_v6);
        let row_words = compiled.row_words as usize;
        Ok(Self {
            owners_end: edit.owners().min(owners_max),
            edit,
            v4: Family::new(v4, doubled_v4, always().filter_map(Keyed::v4), denied_v4),
            v6: Family::new(v6, doubled_v6, always().filter_map(Keyed::v6), denied_v6),
            meanings,
            runs: Runs::behind(homes.ranges_v4, homes.ranges_v6),
            row_words,
            rows: Rows::of_words(row_words, compiled.rows),
            limits: LimitTable::of(compiled.limits),
            port_sets: PortSets::of(&compiled.port_sets, &compiled.owners),
            names: names.collect(),
            moved: Vec::new(),
            fill: Arc::clone(fill),
        })
    }

    /// A binding as it is now, where `before` was. A packet sees the one or the other: other terms are written under
    /// another number, and each source's value is one word.
    pub(super) fn put(
        &mut self,
        numbers: &mut Numbers,
        state: &State,
        (hash, before): (OwnerHash, Option<&Grantee>),
        grantee: &Grantee,
    ) -> Result<(u32, Owner), Stop> {
        let put = match before.filter(|before| !same_terms(before, grantee)) {
            Some(before) => self.put_moved(numbers, state, (hash, before), grantee),
            None => self.put_same(numbers, state, (hash, before), grantee),
        }?;
        self.drop_port_set(numbers, before);
        Ok(put)
    }

    /// A new one, or one whose sources and end alone have changed.
    fn put_same(
        &mut self,
        numbers: &mut Numbers,
        state: &State,
        (hash, before): (OwnerHash, Option<&Grantee>),
        grantee: &Grantee,
    ) -> Result<(u32, Owner), Stop> {
        let number = numbers.add_owner(hash, self.owners_end).ok_or(Stop::Generation)?;
        let named = state.owner_hash(number) == Some(hash);
        let planned = self.plan_put(numbers, (number, number), before, grantee)?;
        // Who comes back under the same limits, as by a renewal after the end, finds its buckets and counts as it left them:
        // a burst is not had twice. Else whatever was counted under this number was another's.
        let comes_back = named && self.edit.limits_of(number) == Some(planned.owner.limits);
        if before.is_none() && !comes_back {
            state.name_owner(number, hash);
        }
        self.edit.set_owner(number, planned.owner)?;
        self.commit(&planned.writes)?;
        Ok((number, planned.owner))
    }

    /// One whose terms have changed.
    fn put_moved(
        &mut self,
        numbers: &mut Numbers,
        state: &State,
        (hash, before): (OwnerHash, &Grantee),
        grantee: &Grantee,
    ) -> Result<(u32, Owner), Stop> {
        let from = numbers.number_of(&hash).ok_or(Stop::Generation)?;
        let (old, new) = (self.limits_of(&before.limit)?, self.limits_of(&grantee.limit)?);
        let to = numbers.fresh(self.owners_end).ok_or(Stop::Generation)?;
        let planned = self.plan_put(numbers, (from, to), Some(before), grantee);
        let planned = planned.inspect_err(|_| numbers.give_back(to))?;
        self.edit.set_owner(to, planned.owner)?;
        state.move_buckets((from, to), hash, &old, &new);
        numbers.move_owner(hash, to);
        self.commit(&planned.writes)?;
        state.move_counts(from, to);
        self.moved.push((from, to));
        Ok((to, planned.owner))
    }

    /// The same in tables that no packet sees yet: what was, under one number, and what is to be, under another. Its
    /// buckets and counts are where they belong.
    pub(super) fn put_ahead(
        &mut self,
        numbers: &Numbers,
        moved: (u32, u32),
        before: Option<&Grantee>,
        grantee: &Grantee,
    ) -> Result<Owner, Stop> {
        let planned = self.plan_put(numbers, moved, before, grantee)?;
        self.edit.set_owner(moved.1, planned.owner)?;
        self.commit(&planned.writes)?;
        self.drop_port_set(numbers, before);
        Ok(planned.owner)
    }

    /// What a binding's sources are to say, that was under one number and is to be under another.
    fn plan_put(
        &mut self,
        numbers: &Numbers,
        (from, to): (u32, u32),
        before: Option<&Grantee>,
        grantee: &Grantee,
    ) -> Result<PlannedPut, Stop> {
        let name = binding_name(grantee);
        self.names.insert(to, Arc::clone(&name));
        let known = before.map_or(&[][..], |before| &before.sources);
        // Under the same number, those that it had say so already.
        let kept = grantee.sources.iter();
        let kept = kept.filter(|source| from != to || !known.contains(source));
        let gone = known.iter().filter(|source| !grantee.sources.contains(source));
        let say = |with| Say::Owner {
            without: Some(from),
            with,
        };
        let writes = self.plan([Step::of(kept, say(Some(to))), Step::of(gone, say(None))])?;
        // Last: its set of source ports is taken from here on.
        let owner = self.owner(numbers, grantee, &name)?;
        Ok(PlannedPut { owner, writes })
    }

    /// Whose number it is.
    pub(super) fn is_of(&self, number: u32) -> Option<&str> {
        self.names.get(number).map(AsRef::as_ref)
    }

    /// One past the highest number that there is room for.
    pub(super) fn owners_end(&self) -> u32 {
        self.owners_end
    }

    /// Counts what packets that were under way have left under old numbers.
    pub(super) fn settle(&mut self, state: &State) {
        for (from, to) in self.moved.drain(..) {
            state.move_counts(from, to);
        }
    }

    fn limits_of(&self, limit: &PolicyLimits) -> Result<LimitSet, Stop> {
        limit_set(limit).map_err(|_| Stop::Generation)
    }

    /// What the next generation must know of an owner's limits, to carry its levels over.
    pub(super) fn add_limits(&self, known: &mut Limits, number: u32, owner: Owner) {
        let number = number as usize;
        if known.owners.len() <= number {
            known.owners.resize(number + 1, 0);
        }
        known.owners[number] = owner.limits;
        let added = &self.limits.entries[known.limits.len().min(self.limits.entries.len())..];
        known.limits.extend_from_slice(added);
    }

    pub(super) fn end(&mut self, number: Option<u32>, end: u64) -> Result<(), Stop> {
        Ok(self.edit.set_end(number.ok_or(Stop::Generation)?, end)?)
    }

    /// The grant that was an owner's under this number.
    pub(super) fn remove(
        &mut self,
        numbers: &Numbers,
        number: Option<u32>,
        before: &Grantee,
    ) -> Result<(), Stop> {
        let number = number.ok_or(Stop::Generation)?;
        let say = Say::Owner {
            without: Some(number),
            with: None,
        };
        let writes = self.plan([Step::of(before.sources.iter(), say)])?;
        self.commit(&writes)?;
        self.drop_port_set(numbers, Some(before));
        Ok(())
    }

    fn owner(&mut self, numbers: &Numbers, grantee: &Grantee, name: &str) -> Result<Owner, Stop> {
        let publisher = numbers.publisher(&grantee.publisher).unwrap_or(0);
        let known = self.rows.count();
        let row = self.rows.of(grantee
            .services
            .iter()
            .filter_map(|service| numbers.service(service)));
        if self.rows.count() != known {
            let start = row as usize * self.row_words;
            self.edit
                .set_row(start, &self.rows.words[start..][..self.row_words])?;
            self.fill.rows.set(self.rows.count() as u64);
        }
        let known = self.limits.entries.len();
        let limits = self
            .limits
            .number(&grantee.limit, name)
            .map_err(|_| Stop::Generation)?;
        if self.limits.entries.len() != known {
            self.edit
                .set_limits(limits, &self.limits.entries[limits as usize])?;
        }
        let (first, last, port_set) = match &*grantee.source_ports {
            [] => (0, u16::MAX, 0),
            [range] => (range.first, range.last, 0),
            ranges => (0, 0, self.take_port_set(publisher, ranges)?),
        };
        Ok(Owner {
            end: grantee.end,
            limits,
            row,
            source_port_first: first,
            source_port_last: last,
            port_set,
            publisher,
            flags: owner_flags(&grantee.limit),
        })
    }
}

/// The prefixes of a pushed deny that are of one family, each once however often it is named, with its end.
fn denied<K: Ord>((sources, end): &Deny, family: fn(Keyed) -> Option<K>) -> impl Iterator<Item = (K, u64)> {
    let keys = sources.iter().filter_map(|source| family(Keyed::of(source)));
    let each: BTreeSet<K> = keys.collect();
    each.into_iter().map(|key| (key, *end))
}

/// Whether all but sources and end is the same.
pub(super) fn same_terms(one: &Grantee, other: &Grantee) -> bool {
    let terms = |grantee: &Grantee| (grantee.limit, grantee.publisher.clone());
    one.services == other.services && one.source_ports == other.source_ports && terms(one) == terms(other)
}

#[cfg(test)]
impl Live {
    /// What the kernel says of addresses, owners by name: management, denied until, owners.
    pub(super) fn said<'a>(
        &self,
        addresses: impl IntoIterator<Item = &'a IpNet>,
    ) -> Vec<(u64, u64, Vec<String>)> {
        use filter_common::lookup::prefixes::{find_v4, find_v6};
        let layout = self.edit.layout();
        let value = |address: &IpNet| match address {
            IpNet::V4(net) => find_v4(&layout, net.addr().to_bits()),
            IpNet::V6(net) => {
                let bits = net.addr().to_bits();
                find_v6(&layout, (bits >> 64) as u64, bits as u64)
            }
        };
        let said = addresses.into_iter().map(|address| {
            let meaning = meanings::meaning(&self.edit, value(address)).unwrap();
            let names = meaning
                .owners
                .iter()
                .map(|number| self.names.get(*number).unwrap().to_string());
            (meaning.management, meaning.denied_until, names.collect())
        });
        said.collect()
    }

    /// The prefixes of each family that an owner names beside one around them, by name.
    pub(super) fn doubled(&self) -> [Vec<(String, String)>; 2] {
        fn of<const N: usize>(family: &Family<N>, names: &Names) -> Vec<(String, String)> {
            let doubled = family.doubled().into_iter();
            let mut named: Vec<_> = doubled
                .map(|(key, number)| (key.to_string(), names.get(number).unwrap().to_string()))
                .collect();
            named.sort_unstable();
            named
        }
        [of(&self.v4, &self.names), of(&self.v6, &self.names)]
    }

    pub(super) fn granted(&self, number: u32) -> crate::kernel::edit::Granted {
        self.edit.granted(number, self.row_words)
    }
}
