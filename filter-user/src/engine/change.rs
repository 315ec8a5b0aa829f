//! Changes of what is pushed, in the filter in force: entry by entry where that can be, else as a generation.

use filter_common::bounds::OWNERS_PER_SOURCE_MAX;

use super::error::FilterError;
use super::filter::{Filter, read, write};
use super::live::Stop;
use super::tables::Occasion;
use crate::bindings::seam::{Change, GrantError, Grantee};
use crate::compiler;
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
        let mut undo = Vec::new();
        let mut stop = None;
        for change in additions.into_iter().chain(removals) {
            if stop.is_none() {
                stop = self.change_live(&change).err();
            }
            undo.push(self.pushed.change(change));
        }
        let refused = match stop {
            None => return Ok(()),
            Some(Stop::TooManyOwners { prefix }) => GrantError::TooManyOwners {
                prefix,
                max: OWNERS_PER_SOURCE_MAX,
            },
            Some(Stop::Generation) => match self.again(policy).await {
                Ok(()) => return Ok(()),
                Err(error) => grant_error(error),
            },
        };
        for undo in undo.into_iter().rev() {
            self.pushed.undo(undo);
        }
        // Entries that were changed before the one that could not be are as they were again.
        if let Err(error) = self.again(policy).await {
            tracing::error!("a change that was refused may be in force in part: {error}");
            // The next change makes a generation, and with it all is as it should be.
            self.live = None;
        }
        Err(refused)
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
                let (number, owner) = live.put(&mut write(&self.numbers), &self.state, before, grantee)?;
                live.add_limits(&mut self.limits, number, owner);
                self.carry_limits(before.map(|before| before.limit), grantee);
                Ok(())
            }
            // It has ended since it was asked for, and is not there any more.
            Change::End { owner, .. } if !self.pushed.grantees.contains_key(owner) => Ok(()),
            Change::End { owner, end } => live.end(&read(&self.numbers), owner, *end),
            Change::Remove { owner } => match self.pushed.grantees.get(owner) {
                Some(before) => live.remove(&read(&self.numbers), owner, before),
                None => Ok(()),
            },
            Change::Deny { .. } | Change::Undeny { .. } => Err(Stop::Generation),
        }
    }

    /// Where a binding's limit has changed: tokens used stay used, up to the new burst.
    fn carry_limits(&self, before: Option<crate::policy::model::Limits>, grantee: &Grantee) {
        let (Some(before), Some(number)) = (
            before,
            read(&self.numbers).owner(&compiler::binding_name(grantee)),
        ) else {
            return;
        };
        if before != grantee.limit
            && let (Ok(before), Ok(after)) =
                (compiler::limit_set(&before), compiler::limit_set(&grantee.limit))
        {
            self.state.carry_owner(number, &before, &after);
        }
    }
}

fn grant_error(error: FilterError) -> GrantError {
    match error {
        FilterError::OwnersFull { needed, max } => GrantError::TableFull {
            table: "owners",
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
