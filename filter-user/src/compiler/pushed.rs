//! What API servers have pushed, as a compile takes it: bindings and denies by their names.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use crate::bindings::seam::{Change, Grantee};

/// Everything pushed that is in force.
#[derive(Clone, Debug, Default)]
pub struct Pushed {
    /// By the owner's name, and so in the order of rule 10.
    pub grantees: BTreeMap<Arc<str>, Grantee>,
    pub denies: BTreeMap<String, (Vec<IpNet>, u64)>,
}

/// The name of a binding as an owner.
pub fn binding_name(grantee: &Grantee) -> Arc<str> {
    Arc::clone(&grantee.credential)
}

impl Pushed {
    pub fn of(
        grantees: impl IntoIterator<Item = Grantee>,
        denies: impl IntoIterator<Item = (String, Vec<IpNet>, u64)>,
    ) -> Self {
        Self {
            grantees: grantees
                .into_iter()
                .map(|grantee| (binding_name(&grantee), grantee))
                .collect(),
            denies: denies
                .into_iter()
                .map(|(name, sources, end)| (name, (sources, end)))
                .collect(),
        }
    }

    pub fn change(&mut self, change: Change) {
        match change {
            Change::Put(grantee) => drop(self.grantees.insert(binding_name(&grantee), grantee)),
            Change::End { owner, end } => {
                if let Some(grantee) = self.grantees.get_mut(&owner) {
                    grantee.end = end;
                }
            }
            Change::Remove { owner } => drop(self.grantees.remove(&owner)),
            Change::Kept { .. } => {}
            Change::Deny { name, sources, end } => drop(self.denies.insert(name, (sources, end))),
            Change::Undeny { name } => drop(self.denies.remove(&name)),
        }
    }
}
