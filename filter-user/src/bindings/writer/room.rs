//! How much a publisher may have: bindings, and row versions of what is not there.

use std::sync::Arc;

use super::ground::Ground;
use super::group::{Group, Key};
use crate::bindings::refusal::{Code, Refusal};

impl Group {
    /// Bindings that have ended do not count.
    pub(super) fn judge_count(&self, key: &Key, ground: &Ground<'_>) -> Result<(), Refusal> {
        let most = ground
            .view
            .publisher(&key.0)
            .map_or(0, |allowance| allowance.publisher.bindings_max);
        let shelf = &self.entries[key].shelf;
        let has = shelf.len().saturating_sub(shelf.ended());
        let groups = ground.before.into_iter().chain([self]);
        let gained = groups.filter_map(|group| group.gained.get(&key.0)).sum();
        let has = has.saturating_add_signed(gained);
        if has < most {
            return Ok(());
        }
        Err(Refusal::new(
            Code::BindingsMax,
            format!("the publisher has {has} bindings, of at most {most}"),
        ))
    }

    /// A publisher leaves row versions of what was never there as often as it may have bindings: those of its own
    /// bindings count, and are never refused.
    pub(super) fn judge_buried(&mut self, key: &Key, ground: &Ground<'_>) -> Result<(), Refusal> {
        // Of one that left the policy an operator asks.
        let Some(allowance) = ground.view.publisher(&key.0) else {
            return Ok(());
        };
        let most = allowance.publisher.bindings_max;
        let within = self.buried.entry(Arc::clone(&key.0)).or_default();
        let room = most.saturating_sub(*within);
        let stored = ground.store.buried(&key.0, room, ground.now);
        let has = stored.map_err(|error| Refusal::new(Code::Unavailable, error.to_string()))?;
        if has < room {
            *within += 1;
            return Ok(());
        }
        Err(Refusal::new(
            Code::BindingsMax,
            format!(
                "there is no such binding, and the store keeps the row versions of {} deleted ones of this publisher: \
                 with {most} it keeps none of what was not there; nothing was done. They go a day after each DELETE",
                has + *within
            ),
        ))
    }
}
