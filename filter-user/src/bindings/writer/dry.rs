//! A sync's dry run: whether the kernel would have room for what it comes to.

use std::sync::Arc;

use super::ground::Ground;
use super::group::Group;
use super::refusal_of;
use crate::bindings::model::owned::Credential;
use crate::bindings::model::row::Row;
use crate::bindings::model::view::{PublisherFacts, grantee};
use crate::bindings::refusal::Refusal;
use crate::bindings::seam::Grantee;
use crate::bindings::shared::Shared;

impl Group {
    /// Refused as the sync itself would be. Blocks, for as long as there are bindings.
    pub(super) fn fits(&self, shared: &Shared, ground: &Ground<'_>) -> Result<(), Refusal> {
        let Some(grants) = shared.grants.get() else {
            return Ok(());
        };
        let (all, more) = self.to_be(ground);
        let fits = grants.fit(&ground.view.policy, all, more);
        fits.map_err(|error| refusal_of(&error))
    }

    /// All that would be granted with it, of every publisher, and how many more grants that is than there are.
    fn to_be(&self, ground: &Ground<'_>) -> (Vec<Grantee>, i64) {
        let (mut all, mut more) = (Vec::new(), 0);
        for shelf in ground.memory.shelves() {
            let before = shelf.facts();
            let synced = self.synced.iter().any(|synced| Arc::ptr_eq(synced, &shelf));
            let after = PublisherFacts {
                unsynced: if synced { 0 } else { before.unsynced },
                ..before
            };
            let grant = |facts, credential: &Credential, row: &Row| {
                let grant = grantee(ground.view, &shelf.publisher, facts, credential, row, ground.now);
                grant.filter(|grant| grant.end > ground.now.monotonic_ns)
            };
            let mut count = |was: bool, is: Option<Grantee>| {
                more += i64::from(is.is_some()) - i64::from(was);
                all.extend(is);
            };
            let own = |credential: &Credential| {
                let key = (Arc::clone(&shelf.publisher), credential.clone());
                self.entries.get(&key)
            };
            let is_its = self.touched.first().is_some_and(|key| key.0 == shelf.publisher);
            shelf.each(|credential, row| {
                let was = grant(before, credential, row);
                match is_its.then(|| own(credential)).flatten() {
                    Some(entry) => {
                        let row = entry.row.as_ref();
                        count(was.is_some(), row.and_then(|row| grant(after, credential, row)));
                    }
                    None if synced => count(was.is_some(), grant(after, credential, row)),
                    None => count(was.is_some(), was),
                }
            });
            let fresh = self.touched.iter().filter(|_| is_its).filter_map(|key| {
                let entry = &self.entries[key];
                let row = entry.row.as_ref().filter(|_| entry.before.is_none())?;
                Some((&key.1, row))
            });
            fresh.for_each(|(credential, row)| count(false, grant(after, credential, row)));
        }
        (all, more)
    }
}
