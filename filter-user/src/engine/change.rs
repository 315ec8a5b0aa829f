//! Changes of what is pushed, in the filter in force: entry by entry, or as a generation where that cannot be.

use std::sync::Arc;

use filter_common::bounds::OWNERS_PER_SOURCE_MAX;

use super::build::Denies;
use super::error::FilterError;
use super::filter::{Filter, read};
use super::live::Stop;
use super::under_way::Purpose;
use super::{Changed, Engine, standby};
use crate::bindings::seam::{Change, Changes, GrantError};
use crate::compiler;
use crate::kernel::clock;

/// Why changes were not made entry by entry. Nothing of them was done, unless it says so.
#[derive(Debug)]
pub enum NotSingly {
    /// A generation can: here they are again.
    Generation(Changes),
    /// They were made in the tables in force; for those that stand by it takes a generation.
    Standby(Changes),
    Refused(GrantError),
}

impl Engine {
    /// Makes changes at once, or begins a generation that has them; the answer comes when they are in force.
    pub(super) fn change(&mut self, epoch: u64, changes: Changes, answer: Changed) {
        if self.must_wait(&changes) {
            // Once: should there be no more room then, they take what is left.
            let changes = Changes {
                patient: false,
                ..changes
            };
            self.waiting.push_back((epoch, changes, answer));
            return;
        }
        let result = if self.filter.kept {
            Err(NotSingly::Refused(GrantError::Failed(
                FilterError::Kept.to_string(),
            )))
        } else if epoch == self.shared.policy_in_force().0 {
            if let Some(under_way) = &mut self.under_way {
                under_way.note(&changes);
            }
            self.filter.change(changes)
        } else {
            Err(NotSingly::Refused(GrantError::PolicyChanged))
        };
        let result = match result {
            Ok(()) => Ok(()),
            Err(NotSingly::Refused(error)) => Err(error),
            // What was made of them already is made once more then, and is the same.
            Err(NotSingly::Generation(changes) | NotSingly::Standby(changes)) if self.under_way.is_some() => {
                self.waiting.push_back((epoch, changes, answer));
                return;
            }
            Err(NotSingly::Generation(changes)) => return self.begin(Purpose::Change(changes, answer)),
            Err(NotSingly::Standby(changes)) => {
                return self.begin(Purpose::Standby(changes.standby, Some(answer)));
            }
        };
        self.changed(answer, result);
    }

    /// Whether these wait for the generation under way, or for one with more room that is begun for them.
    fn must_wait(&mut self, changes: &Changes) -> bool {
        if changes.patient && self.filter.fill().scarce().is_some() {
            self.make_room();
            return self.under_way.is_some();
        }
        let under_way = self.under_way.as_ref();
        under_way.is_some_and(|under_way| under_way.holds_up(changes))
    }

    /// Which of these would be refused, where the tables in force can tell.
    pub(super) fn sift(&mut self, epoch: u64, changes: &[Change]) -> Vec<(Arc<str>, GrantError)> {
        if self.filter.kept || epoch != self.shared.policy_in_force().0 {
            return Vec::new();
        }
        let filter = &mut self.filter;
        let refused = filter.tables.sift(&filter.numbers, changes);
        let refused = refused.into_iter();
        refused
            .filter_map(|(owner, stop)| Some((owner, refusal_of(stop)?)))
            .collect()
    }

    /// Says what became of changes.
    pub(super) fn changed(&mut self, answer: Changed, result: Result<(), GrantError>) {
        self.changes += u64::from(result.is_ok());
        // Who asked may have gone; what was done stands either way.
        let _ = answer.send(result);
        self.make_room();
    }
}

impl Filter {
    /// Makes changes of what is pushed, entry by entry, additions before removals; in the tables in force, then in those
    /// that stand by. All or none in the former.
    pub fn change(&mut self, changes: Changes) -> Result<(), NotSingly> {
        let failed = |text: String| Err(NotSingly::Refused(GrantError::Failed(text)));
        let detached = !self.is_pinned();
        if detached
            && !changes
                .in_force
                .iter()
                .chain(&changes.standby)
                .all(Change::revokes)
        {
            return Err(NotSingly::Refused(GrantError::Detached));
        }
        if let Some(owner) = self.unknown(&changes.in_force) {
            return failed(format!("{owner} has no grant to renew"));
        }
        // Of all together, removals among them: it needs no tables to tell.
        let fit = self.tables.port_sets_fit(&self.numbers, &changes.in_force);
        let fit = fit.and_then(|()| self.standby_port_sets_fit(&changes.standby));
        if let Some(error) = fit.err().and_then(refusal_of) {
            return Err(NotSingly::Refused(error));
        }
        let were = standby::numbers_of(&self.numbers, &changes.standby);
        let made = self.change_in_force(&changes.in_force);
        if detached {
            // Made all the same, should packets still come here; where it cannot be, the next start makes it.
            return Ok(());
        }
        if let Err(stop) = made {
            // What was taken back may have got another number.
            let owners = changes.standby.iter().zip(were);
            let owners = owners.filter_map(|(change, were)| Some((Arc::clone(change.owner()?), were)));
            let kept = owners.map(|(owner, were)| (Change::Kept { owner }, were));
            let (kept, were): (Vec<_>, Vec<_>) = kept.unzip();
            // Where that cannot be, the tables that stand by are made anew.
            let _ = self.change_standby(&kept, &were);
            // Removals make room, in a table and at an address: only the whole tells then whether it fits.
            let is_open = changes.in_force.iter().any(is_removal);
            return Err(match refusal_of(stop).filter(|_| !is_open) {
                Some(error) => NotSingly::Refused(error),
                None => NotSingly::Generation(changes),
            });
        }
        match self.change_standby(&changes.standby, &were) {
            Ok(()) => Ok(()),
            Err(_) => Err(NotSingly::Standby(changes)),
        }
    }

    fn change_in_force(&mut self, changes: &[Change]) -> Result<(), Stop> {
        let (removals, additions): (Vec<_>, Vec<_>) = changes.iter().partition(|change| is_removal(change));
        let mut back = Vec::new();
        for change in additions.into_iter().chain(removals) {
            match self.tables.change(&self.numbers, &self.state, change.clone()) {
                Ok(undo) => back.extend(undo),
                Err(stop) => {
                    self.take_back(back);
                    return Err(stop);
                }
            }
        }
        Ok(())
    }

    fn take_back(&mut self, back: Vec<Change>) {
        let mut back = back.into_iter().rev();
        let whole = back.all(|change| self.tables.change(&self.numbers, &self.state, change).is_ok());
        if !whole {
            // Nobody is answered before they are; what is in force meanwhile is either as it was or as it will be.
            tracing::warn!(
                "a group of changes found no room half-way: part of it is in force, and tables with more room are made"
            );
            self.in_part = true;
            self.tables.close();
        }
    }

    /// These denies as they are in force.
    pub(super) fn denies_of(&self, names: impl IntoIterator<Item = String>) -> Denies {
        let denies = &self.tables.denies;
        let names = names.into_iter();
        names
            .map(|name| {
                let deny = denies.get(&name).cloned();
                (name, deny)
            })
            .collect()
    }

    /// Once a second: packets that were under way when owners got other numbers have gone by then.
    pub(super) fn settle(&mut self) {
        self.tables.settle(&self.state);
    }

    /// The first owner that is to be renewed and has no grant.
    fn unknown<'c>(&self, changes: &'c [Change]) -> Option<&'c str> {
        let now = clock::monotonic().0;
        let numbers = read(&self.numbers);
        let known = |owner: &Arc<str>| self.tables.grantees.get(numbers.owner(owner), owner).is_some();
        changes.iter().find_map(|change| match change {
            Change::End { owner, end } if *end > now && !known(owner) => Some(&**owner),
            _ => None,
        })
    }
}

/// Why a change cannot be, where a generation could not make it either.
fn refusal_of(stop: Stop) -> Option<GrantError> {
    match stop {
        Stop::Generation => None,
        Stop::TooManyOwners { prefix } => Some(GrantError::TooManyOwners {
            prefix,
            max: OWNERS_PER_SOURCE_MAX,
        }),
        Stop::Full(table, needed, max) => Some(GrantError::TableFull { table, needed, max }),
        Stop::Kept(table, has) => Some(GrantError::TableKept { table, has }),
    }
}

pub(super) fn is_removal(change: &Change) -> bool {
    matches!(change, Change::Remove { .. } | Change::Undeny { .. })
}

pub(super) fn grant_error(error: FilterError) -> GrantError {
    match error {
        FilterError::OwnersFull { needed, max } => GrantError::TableFull {
            table: filter_common::abi::names::OWNER_STATE,
            needed: needed.into(),
            max: max.into(),
        },
        FilterError::Compile(compiler::CompileError::OwnersPerSource { prefix, .. }) => {
            GrantError::TooManyOwners {
                prefix,
                max: OWNERS_PER_SOURCE_MAX,
            }
        }
        FilterError::Compile(compiler::CompileError::TableFull {
            table, needed, max, ..
        }) => GrantError::TableFull {
            table,
            needed: needed as u64,
            max: max.into(),
        },
        FilterError::Detached => GrantError::Detached,
        error => GrantError::Failed(error.to_string()),
    }
}
