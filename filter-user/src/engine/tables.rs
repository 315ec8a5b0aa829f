//! The tables of one generation and all that is known of them: changed entry by entry, in force or before they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::change::is_removal;
use super::fill::{Fill, owners_of};
use super::filter::{SharedNumbers, read, write};
use super::grantees::Grantees;
use super::live::{Deny, Live, Stop, same_terms};
use crate::bindings::seam::{Change, Grantee};
use crate::compiler::{Compiled, Numbers, Pushed, owner_hash};
use crate::kernel::clock;
use crate::kernel::load::{Generation, LoadError};
use crate::kernel::state::{Limits, State};
use crate::policy::Policy;

/// An owner whose grant is changed in tables that are not in force.
#[derive(Clone, Copy)]
pub(super) struct Ahead<'o> {
    pub(super) owner: &'o str,
    /// The number that it has there, where it has a grant there.
    pub(super) from: Option<u32>,
    pub(super) in_force: Option<u32>,
}

pub(super) struct Tables {
    /// Its maps stay readable while it is held.
    pub(super) generation: Generation,
    pub(super) limits: Limits,
    pub(super) fill: Arc<Fill>,
    /// What API servers have pushed, as it stands here.
    pub(super) grantees: Grantees,
    pub(super) denies: BTreeMap<String, Deny>,
    /// Where something may be pushed: what a change of single entries needs.
    live: Option<Live>,
}

impl Tables {
    /// Of a generation that is loaded, with room for changes where there may be some.
    pub(super) fn new(
        generation: Generation,
        compiled: Compiled,
        numbers: &mut Numbers,
        (policy, pushed): (&Policy, Pushed),
        owners_max: u32,
    ) -> Result<Self, LoadError> {
        let fill = Fill::of(&compiled, owners_of(policy, &pushed), owners_max);
        let fill = Arc::new(match policy.publishers.is_empty() {
            true => fill,
            false => fill.adding_to(&generation, &compiled)?,
        });
        let limits = Limits::from(&compiled);
        let pushed_numbers = numbers.pushed_numbers().to_vec();
        let live = if policy.publishers.is_empty() {
            None
        } else {
            let around = (policy, &pushed, &fill);
            let live = Live::new(&generation, compiled, numbers, around, owners_max)?;
            Some(live)
        };
        Ok(Self {
            generation,
            limits,
            fill,
            grantees: pushed_numbers
                .into_iter()
                .zip(pushed.grantees.into_values())
                .collect(),
            denies: pushed.denies,
            live,
        })
    }

    /// Of a generation that an earlier daemon left: nothing is known of it but the limits, and how many owners there may be.
    pub(super) fn unknown(generation: Generation, limits: Limits, owners_max: u32) -> Self {
        let fill = Fill::of(&Compiled::default(), 0, owners_max);
        Self {
            generation,
            limits,
            fill: Arc::new(fill),
            grantees: Grantees::default(),
            denies: BTreeMap::new(),
            live: None,
        }
    }

    /// From here on, every change takes a generation.
    pub(super) fn close(&mut self) {
        self.live = None;
    }

    /// Makes a change while packets are judged by these tables; gives the one that takes it back, where there is any.
    pub(super) fn change(
        &mut self,
        numbers: &SharedNumbers,
        state: &State,
        change: Change,
    ) -> Result<Option<Change>, Stop> {
        let live = self.live.as_mut().ok_or(Stop::Generation);
        let back = match change {
            Change::Put(grantee) => {
                let hash = owner_hash(&grantee.credential);
                let known = read(numbers).number_of(&hash);
                let before = self.grantees.get(known, &grantee.credential);
                if let Some(before) = before.filter(|before| is_but_its_end(before, &grantee)) {
                    // Of a large change that a generation has made already, perhaps.
                    if before.end == grantee.end {
                        return Ok(None);
                    }
                    live?.end(known, grantee.end)?;
                    let back = Change::Put(before.clone());
                    self.grantees.set_end(known, grantee.end);
                    return Ok(Some(back));
                }
                let full = self.fill.owners.refuses(1).filter(|_| before.is_none());
                if let (Ok(_), Some((table, needed, max))) = (&live, full) {
                    return Err(Stop::Full(table, needed, max));
                }
                let live = live?;
                let (number, owner) = live.put(&mut write(numbers), state, (hash, before), &grantee)?;
                live.add_limits(&mut self.limits, number, owner);
                let back = match before {
                    // Other terms may have another number.
                    Some(_) => self.grantees.take(known).map(Change::Put),
                    None => {
                        self.fill.owners.add();
                        let owner = grantee.credential.clone();
                        Some(Change::Remove { owner })
                    }
                };
                self.grantees.put(number, grantee);
                back
            }
            // What has ended since it was asked for is not there any more.
            Change::End { owner, end } => {
                let number = read(numbers).owner(&owner);
                let Some(before) = self.grantees.get(number, &owner).map(|before| before.end) else {
                    return Ok(None);
                };
                live?.end(number, end)?;
                self.grantees.set_end(number, end);
                Some(Change::End { owner, end: before })
            }
            Change::Remove { owner } => {
                let number = read(numbers).owner(&owner);
                let Some(before) = self.grantees.get(number, &owner) else {
                    return Ok(None);
                };
                live?.remove(&read(numbers), number, before)?;
                self.fill.owners.take();
                self.grantees.take(number).map(Change::Put)
            }
            Change::Kept { .. } => None,
            Change::Deny { name, sources, end } => return self.deny(&name, Some((sources, end))),
            Change::Undeny { name } => return self.deny(&name, None),
        };
        Ok(back)
    }

    /// Whether these changes together leave no more sets of source ports than there may be: told before any is made.
    pub(super) fn port_sets_fit(&self, numbers: &SharedNumbers, changes: &[Change]) -> Result<(), Stop> {
        match &self.live {
            Some(live) => live.port_sets_fit(&read(numbers), &self.grantees, changes),
            None => Ok(()),
        }
    }

    /// Which grants would find no place if they were put one after the other, each behind those that would: as far as
    /// the next generation could not give them one either. Nothing is changed.
    pub(super) fn sift(&mut self, numbers: &SharedNumbers, changes: &[Change]) -> Vec<(Arc<str>, Stop)> {
        let Some(live) = &mut self.live else {
            return Vec::new();
        };
        let makes_room = changes.iter().any(is_removal);
        let numbers = read(numbers);
        let (mut refused, mut added) = (Vec::new(), 0);
        let mut trial = live.trial(&numbers);
        for change in changes {
            let Change::Put(grantee) = change else { continue };
            let number = numbers.owner(&grantee.credential);
            let before = self.grantees.get(number, &grantee.credential);
            let full = self.fill.owners.refuses(added + 1).filter(|_| before.is_none());
            let tried = match full {
                Some((table, needed, max)) => Err(Stop::Full(table, needed, max)),
                None => trial.put(before, grantee),
            };
            match tried {
                // Only the whole tells whether it fits.
                Err(Stop::Full(..) | Stop::Kept(..)) if makes_room => {}
                Err(stop @ (Stop::Full(..) | Stop::Kept(..) | Stop::TooManyOwners { .. })) => {
                    refused.push((Arc::clone(&grantee.credential), stop));
                }
                Ok(()) | Err(Stop::Generation) => added += u64::from(before.is_none()),
            }
        }
        refused
    }

    /// Makes a deny what it is to be, in force or ahead; `None` is none.
    pub(super) fn deny(&mut self, name: &str, wanted: Option<Deny>) -> Result<Option<Change>, Stop> {
        let before = self.denies.get(name);
        match (&mut self.live, before, &wanted) {
            (_, before, wanted) if before == wanted.as_ref() => return Ok(None),
            (Some(live), before, wanted) => live.deny(before, wanted.as_ref())?,
            // The kernel has ended it already.
            (None, Some((_, end)), None) if *end <= clock::monotonic().0 => {}
            (None, ..) => return Err(Stop::Generation),
        }
        let name = name.to_owned();
        let before = match wanted {
            Some(deny) => self.denies.insert(name.clone(), deny),
            None => self.denies.remove(&name),
        };
        Ok(Some(match before {
            Some((sources, end)) => Change::Deny { name, sources, end },
            None => Change::Undeny { name },
        }))
    }

    /// Makes an owner's grant what it is to be in tables that are not in force: under the number that it has in those
    /// that are. Also the number that was nobody's, where it took one.
    pub(super) fn change_ahead(
        &mut self,
        numbers: &mut Numbers,
        state: &State,
        Ahead {
            owner,
            from,
            in_force,
        }: Ahead<'_>,
        wanted: Option<Grantee>,
    ) -> Result<Option<u32>, Stop> {
        let before = self.grantees.get(from, owner);
        let from = before.and(from);
        if before == wanted.as_ref() && (from == in_force || before.is_none()) {
            return Ok(None);
        }
        let live = self.live.as_mut().ok_or(Stop::Generation)?;
        let Some(wanted) = wanted else {
            if let Some(before) = before {
                live.remove(numbers, from, before)?;
                self.fill.owners.take();
                self.grantees.take(from);
            }
            // Its levels and counts are under the number that it has in force, should it be here again.
            if let Some(number) = in_force.filter(|_| from.is_some()) {
                numbers.move_owner(owner_hash(owner), number);
            }
            return Ok(None);
        };
        let (to, taken) = match in_force.or(from) {
            Some(number) => (number, None),
            None => {
                let number = numbers.fresh(live.owners_end()).ok_or(Stop::Generation)?;
                (number, Some(number))
            }
        };
        if to >= live.owners_end() || live.is_of(to).is_some_and(|of| of != owner) {
            return Err(Stop::Generation);
        }
        let same = |before: &Grantee| from == Some(to) && is_but_its_end(before, &wanted);
        if before.is_some_and(same) {
            live.end(Some(to), wanted.end)?;
        } else {
            let put = live.put_ahead(numbers, (from.unwrap_or(to), to), before, &wanted);
            let put = put.inspect_err(|_| taken.into_iter().for_each(|number| numbers.give_back(number)))?;
            live.add_limits(&mut self.limits, to, put);
            let hash = owner_hash(owner);
            numbers.move_owner(hash, to);
            if taken.is_some() {
                state.name_owner(to, hash);
            }
            if let Some(from) = from.filter(|from| *from != to) {
                state.unname_owner(from);
            }
        }
        if before.is_none() {
            self.fill.owners.add();
        }
        self.grantees.take(from);
        self.grantees.put(to, wanted);
        Ok(taken)
    }

    /// Packets that were under way when owners got other numbers have gone.
    pub(super) fn settle(&mut self, state: &State) {
        if let Some(live) = &mut self.live {
            live.settle(state);
        }
    }
}

fn is_but_its_end(before: &Grantee, wanted: &Grantee) -> bool {
    before.sources == wanted.sources && same_terms(before, wanted)
}

#[cfg(test)]
impl Tables {
    pub(super) fn live(&self) -> Option<&Live> {
        self.live.as_ref()
    }

    pub(super) fn by_name(&self) -> BTreeMap<Arc<str>, Grantee> {
        let named = self.grantees.iter();
        named
            .map(|grantee| (Arc::clone(&grantee.credential), grantee.clone()))
            .collect()
    }
}
