//! What the daemon is at while a group is decided: memory, the store's deleted credentials, the policy, the time.

use std::cell::OnceCell;

use super::denies::Denies;
use super::group::{Group, Key};
use crate::bindings::clock::Now;
use crate::bindings::memory::Memory;
use crate::bindings::model::allowance::PolicyView;
use crate::bindings::store::{Deleted, Store, StoreError};

/// What the daemon is at, as the jobs see it.
pub(crate) struct Ground<'g> {
    pub(crate) memory: &'g Memory,
    /// A group that is durable and not seen yet: what it leaves is what jobs find.
    pub(crate) before: Option<&'g Group>,
    pub(crate) store: &'g Store,
    /// Opened by the first credential that is not in memory.
    pub(crate) deleted: OnceCell<Deleted>,
    pub(crate) view: &'g PolicyView,
    pub(crate) denies: &'g Denies,
    pub(crate) now: Now,
}

impl Ground<'_> {
    pub(super) fn tombstone(&self, key: &Key) -> Result<Option<(u64, i64)>, StoreError> {
        let deleted = match self.deleted.get() {
            Some(deleted) => deleted,
            None => {
                let opened = self.store.tombstones()?;
                self.deleted.get_or_init(|| opened)
            }
        };
        deleted.get(&key.0, &key.1, self.now)
    }
}
