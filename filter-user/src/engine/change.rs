//! Changes of what is pushed, in the filter in force: entry by entry where that can be, else as a generation.

use filter_common::bounds::OWNERS_PER_SOURCE_MAX;

use super::error::FilterError;
use super::filter::{Filter, read, write};
use super::live::Stop;
use super::tables::Occasion;
use crate::bindings::seam::{Change, GrantError, Grantee};
use crate::compiler::{self, Undo};
use crate::kernel::clock;
use crate::policy::Policy;

impl Filter {
    /// Makes changes of what is pushed: entry by entry where that can be, else as a generation. All or none.
    pub async fn change(&mut self, policy: &Policy, changes: Vec<Change>) -> Result<(), GrantError> {
        if !self.is_pinned() {
            return Err(GrantError::Failed(FilterError::Detached.to_string()));
        }
        if let Some(owner) = self.unknown(&changes) {
            return Err(GrantError::Failed(format!("{owner} has no grant to renew")));
        }
        let (removals, additions): (Vec<_>, Vec<_>) = changes
            .into_iter()
            .partition(|change| matches!(change, Change::Remove { .. } | Change::Undeny { .. }));
        // Removals make room: only the whole tells then whether it fits.
        let makes_room = !removals.is_empty();
        let mut undo = Vec::new();
        let mut live = 0;
        let mut stop = None;
        for change in additions.into_iter().chain(removals) {
            if stop.is_none() {
                stop = self.change_live(&change).err();
                live += usize::from(stop.is_none());
            }
            undo.push(self.pushed.change(change));
        }
        let refused = match stop {
            None => return Ok(()),
            Some(Stop::TooManyOwners { prefix }) => GrantError::TooManyOwners {
                prefix,
                max: OWNERS_PER_SOURCE_MAX,
            },
            Some(Stop::Full(table, needed, max)) if !makes_room => {
                GrantError::TableFull { table, needed, max }
            }
            Some(Stop::Generation | Stop::Full(..)) => match self.again(policy).await {
                Ok(()) => return Ok(()),
                Err(error) => grant_error(error),
            },
        };
        self.take_back(policy, undo, live).await;
        Err(refused)
    }

    /// Takes changes back, the first so many of which were made in the tables in force.
    async fn take_back(&mut self, policy: &Policy, undo: Vec<Undo>, live: usize) {
        let mut whole = true;
        for (at, undo) in undo.into_iter().enumerate().rev() {
            if at < live
                && let Undo::Grantee(owner, before) = &undo
            {
                let back = match before {
                    Some(before) => Change::Put(Grantee::clone(before)),
                    None => Change::Remove { owner: owner.clone() },
                };
                whole &= self.change_live(&back).is_ok();
            }
            self.pushed.undo(undo);
        }
        if whole {
            return;
        }
        if let Err(error) = self.again(policy).await {
            tracing::error!("a change that was refused may be in force in part: {error}");
            // The next change makes a generation, and with it all is as it should be.
            self.live = None;
        }
    }

    /// Once a second: packets that were under way when owners got other numbers have gone by then.
    pub(super) fn settle(&mut self) {
        if let Some(live) = &mut self.live {
            live.settle(&self.state);
        }
    }

    /// The first owner that is to be renewed and has no grant.
    fn unknown<'c>(&self, changes: &'c [Change]) -> Option<&'c str> {
        let now = clock::monotonic().0;
        changes.iter().find_map(|change| match change {
            Change::End { owner, end } if *end > now && !self.pushed.grantees.contains_key(owner) => {
                Some(owner.as_str())
            }
            _ => None,
        })
    }

    /// The same policy, and what is pushed as it is now, as a generation.
    async fn again(&mut self, policy: &Policy) -> Result<(), FilterError> {
        let pushed = self.pushed.clone();
        self.apply(policy, pushed, Some(policy), Occasion::Change).await
    }

    fn change_live(&mut self, change: &Change) -> Result<(), Stop> {
        let Some(live) = &mut self.live else {
            return Err(Stop::Generation);
        };
        match change {
            Change::Put(grantee) => {
                let before = self.pushed.grantees.get(&compiler::binding_name(grantee));
                if before.is_none()
                    && let Some((table, needed, max)) = self.fill.owners.refuses(1)
                {
                    return Err(Stop::Full(table, needed, max));
                }
                let (number, owner) = live.put(&mut write(&self.numbers), &self.state, before, grantee)?;
                live.add_limits(&mut self.limits, number, owner);
                if before.is_none() {
                    self.fill.owners.add();
                }
                Ok(())
            }
            // It has ended since it was asked for, and is not there any more.
            Change::End { owner, .. } if !self.pushed.grantees.contains_key(owner) => Ok(()),
            Change::End { owner, end } => live.end(&read(&self.numbers), owner, *end),
            Change::Remove { owner } => match self.pushed.grantees.get(owner) {
                Some(before) => {
                    live.remove(&read(&self.numbers), owner, before)?;
                    self.fill.owners.take();
                    Ok(())
                }
                None => Ok(()),
            },
            Change::Deny { .. } | Change::Undeny { .. } => Err(Stop::Generation),
        }
    }
}

fn grant_error(error: FilterError) -> GrantError {
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
        error => GrantError::Failed(error.to_string()),
    }
}
