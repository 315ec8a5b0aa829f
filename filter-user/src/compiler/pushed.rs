//! What API servers have pushed, as a compile takes it: bindings and denies by their names.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::bindings::seam::{Change, Grantee};

/// Everything pushed that is in force.
#[derive(Clone, Debug, Default)]
pub struct Pushed {
    /// By the owner's name, and so in the order of rule 10.
    pub grantees: BTreeMap<String, Grantee>,
    pub denies: BTreeMap<String, (Vec<IpNet>, u64)>,
}

/// The name of a binding as an owner.
pub fn binding_name(grantee: &Grantee) -> String {
    grantee.credential.clone()
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

    /// Makes a change; gives the one that takes it back.
    pub fn change(&mut self, change: Change) -> Undo {
        match change {
            Change::Put(grantee) => {
                let owner = binding_name(&grantee);
                let before = self.grantees.insert(owner.clone(), grantee);
                Undo::Grantee(owner, before.map(Box::new))
            }
            Change::End { owner, end } => {
                let before = self.grantees.get_mut(&owner).map(|grantee| {
                    let before = grantee.clone();
                    grantee.end = end;
                    Box::new(before)
                });
                Undo::Grantee(owner, before)
            }
            Change::Remove { owner } => {
                let before = self.grantees.remove(&owner).map(Box::new);
                Undo::Grantee(owner, before)
            }
            Change::Deny { name, sources, end } => {
                let before = self.denies.insert(name.clone(), (sources, end));
                Undo::Deny(name, before)
            }
            Change::Undeny { name } => {
                let before = self.denies.remove(&name);
                Undo::Deny(name, before)
            }
        }
    }

    pub fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Grantee(owner, Some(before)) => drop(self.grantees.insert(owner, *before)),
            Undo::Grantee(owner, None) => drop(self.grantees.remove(&owner)),
            Undo::Deny(name, Some(before)) => drop(self.denies.insert(name, before)),
            Undo::Deny(name, None) => drop(self.denies.remove(&name)),
        }
    }
}

/// What stood where a change was made.
#[derive(Debug)]
pub enum Undo {
    Grantee(String, Option<Box<Grantee>>),
    Deny(String, Option<(Vec<IpNet>, u64)>),
}
