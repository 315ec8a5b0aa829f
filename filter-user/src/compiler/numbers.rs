//! The numbers of services and owners: stable while a name stays, so that counters and bucket levels stay too.
//!
//! The kernel keeps the names beside what is counted (a service's name, an owner's hash); a restarted daemon
//! reads them back from there.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use filter_common::abi::PUBLISHERS_START;
use filter_common::bounds::{PUBLISHERS_MAX, SERVICES_MAX};
use sha2::{Digest, Sha256};

use super::Pushed;
use crate::policy::model::Policy;

/// The name of a client as an owner.
pub fn owner_name(client: &str) -> String {
    format!("client/{client}")
}

/// How an owner is known in the kernel's tables: the first half of the SHA-256 of its name.
pub fn owner_hash(name: &str) -> [u8; 16] {
    let digest = Sha256::digest(name.as_bytes());
    let mut hash = [0; 16];
    hash.copy_from_slice(&digest[..16]);
    hash
}

/// Which name has which number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Numbers {
    services: HashMap<String, u32>,
    publishers: HashMap<String, u32>,
    owners: HashMap<[u8; 16], u32>,
}

/// What `assign` gave out anew: the state behind these numbers is another's and must be cleared first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// Publishers among them, behind the services.
    pub services: Vec<(String, u32)>,
    pub owners: Vec<([u8; 16], u32)>,
}

impl Numbers {
    /// As the kernel's tables have them.
    pub fn known(
        services: impl IntoIterator<Item = (String, u32)>,
        owners: impl IntoIterator<Item = ([u8; 16], u32)>,
    ) -> Self {
        let (publishers, services) = services
            .into_iter()
            .partition(|(_, number)| *number >= SERVICES_MAX);
        Self {
            services,
            publishers,
            owners: owners.into_iter().collect(),
        }
    }

    pub fn service(&self, name: &str) -> Option<u32> {
        self.services.get(name).copied()
    }

    pub fn publisher(&self, name: &str) -> Option<u32> {
        self.publishers.get(name).copied()
    }

    /// A number for an owner added to what is in force, or the one that it has; `None` where there is none below `end`.
    pub fn add_owner(&mut self, name: &str, next: &mut u32, end: u32) -> Option<u32> {
        let hash = owner_hash(name);
        if let Some(number) = self.owners.get(&hash) {
            return Some(*number);
        }
        if *next >= end {
            return None;
        }
        let number = *next;
        *next += 1;
        self.owners.insert(hash, number);
        Some(number)
    }

    /// Never 0, which is nobody's.
    pub fn owner(&self, name: &str) -> Option<u32> {
        self.owners.get(&owner_hash(name)).copied()
    }

    pub fn services(&self) -> impl Iterator<Item = (&str, u32)> {
        self.services
            .iter()
            .map(|(name, number)| (name.as_str(), *number))
    }

    pub fn owners(&self) -> impl Iterator<Item = ([u8; 16], u32)> {
        self.owners.iter().map(|(hash, number)| (*hash, *number))
    }

    /// One past the highest owner's number.
    pub fn owners_end(&self) -> u32 {
        self.owners.values().max().map_or(1, |highest| highest + 1)
    }

    /// The numbers for a policy: known names keep theirs, new ones take numbers that no name of the policy in
    /// force has, those never used first; names that neither policy has are forgotten.
    pub fn assign(
        &self,
        (policy, pushed): (&Policy, &Pushed),
        in_force: Option<(&Policy, &Pushed)>,
    ) -> (Numbers, Assigned) {
        let mut assigned = Assigned::default();
        let names = |policy: &Policy| {
            policy
                .services
                .iter()
                .map(|service| service.name.clone())
                .collect()
        };
        let before = in_force.map(|(policy, _)| names(policy));
        let (services, fresh) = place(&self.services, names(policy), before, 0..SERVICES_MAX);
        assigned.services = fresh;
        let names = |policy: &Policy| {
            policy
                .publishers
                .iter()
                .map(|publisher| publisher.name.clone())
                .collect()
        };
        let before = in_force.map(|(policy, _)| names(policy));
        let range = PUBLISHERS_START..PUBLISHERS_START + PUBLISHERS_MAX;
        let (publishers, fresh) = place(&self.publishers, names(policy), before, range);
        assigned.services.extend(fresh);
        let names = |(policy, pushed): (&Policy, &Pushed)| {
            let clients = policy
                .clients
                .iter()
                .map(|client| owner_hash(&owner_name(&client.name)));
            clients
                .chain(pushed.grantees.keys().map(|name| owner_hash(name)))
                .collect()
        };
        let before = in_force.map(names);
        let (owners, fresh) = place(&self.owners, names((policy, pushed)), before, 1..u32::MAX);
        assigned.owners = fresh;
        let numbers = Numbers {
            services,
            publishers,
            owners,
        };
        (numbers, assigned)
    }
}

type Placed<K> = (HashMap<K, u32>, Vec<(K, u32)>);

/// New names take numbers below `end` that nobody is known to have had; then those of names that neither policy
/// has; and where there is no other, those of names that only the policy in force has.
fn place<K: Clone + Eq + std::hash::Hash>(
    known: &HashMap<K, u32>,
    wanted: Vec<K>,
    in_force: Option<Vec<K>>,
    range: Range<u32>,
) -> Placed<K> {
    let of = |names: &[K]| -> HashMap<K, u32> {
        names
            .iter()
            .filter_map(|name| Some((name.clone(), *known.get(name)?)))
            .collect()
    };
    let mut numbers = of(&wanted);
    let kept = of(&in_force.unwrap_or_default());
    let taken: HashSet<u32> = numbers.values().copied().collect();
    let ever: HashSet<u32> = known.values().copied().collect();
    let busy: HashSet<u32> = kept.values().copied().collect();
    let unknown = range.clone().filter(|number| !ever.contains(number));
    let idle = range
        .clone()
        .filter(|n| ever.contains(n) && !busy.contains(n) && !taken.contains(n));
    let last = range.filter(|number| busy.contains(number) && !taken.contains(number));
    let mut free = unknown.chain(idle).chain(last);
    let mut fresh = Vec::new();
    for name in wanted {
        if !numbers.contains_key(&name)
            && let Some(number) = free.next()
        {
            numbers.insert(name.clone(), number);
            fresh.push((name, number));
        }
    }
    // What only the policy in force has keeps its number for one change more, unless it was the last to be had.
    let given: HashSet<u32> = numbers.values().copied().collect();
    let kept: Vec<_> = kept
        .into_iter()
        .filter(|(_, number)| !given.contains(number))
        .collect();
    for (name, number) in kept {
        numbers.entry(name).or_insert(number);
    }
    (numbers, fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(
        known: &[(&str, u32)],
        wanted: &[&str],
        in_force: &[&str],
    ) -> (Vec<(String, u32)>, Vec<String>) {
        let known = known
            .iter()
            .map(|(name, number)| (name.to_string(), *number))
            .collect();
        let text = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let (numbers, fresh) = place(&known, text(wanted), Some(text(in_force)), 1..4);
        let mut numbers: Vec<_> = numbers.into_iter().collect();
        numbers.sort();
        (numbers, fresh.into_iter().map(|(name, _)| name).collect())
    }

    fn pairs(list: &[(&str, u32)]) -> Vec<(String, u32)> {
        list.iter()
            .map(|(name, number)| (name.to_string(), *number))
            .collect()
    }

    #[test]
    fn known_names_keep_their_numbers_and_new_ones_are_named_as_fresh() {
        let (numbers, fresh) = placed(&[("a", 7), ("b", 2)], &["b", "c", "a"], &["a", "b"]);
        assert_eq!(numbers, pairs(&[("a", 7), ("b", 2), ("c", 1)]));
        assert_eq!(fresh, ["c"]);
    }

    #[test]
    fn the_number_of_a_name_still_in_force_is_nobody_elses() {
        let (numbers, _) = placed(&[("old", 1)], &["new"], &["old"]);
        assert_eq!(numbers, pairs(&[("new", 2), ("old", 1)]));
    }

    #[test]
    fn numbers_never_used_come_first_then_those_that_nobody_has_any_more() {
        let (numbers, _) = placed(&[("gone", 1)], &["x", "y", "z"], &[]);
        assert_eq!(numbers, pairs(&[("x", 2), ("y", 3), ("z", 1)]));
    }

    #[test]
    fn a_policy_of_other_names_only_finds_numbers_too() {
        let known = [("a", 1), ("b", 2), ("c", 3)];
        let (numbers, fresh) = placed(&known, &["x", "y", "z"], &["a", "b", "c"]);
        assert_eq!(numbers, pairs(&[("x", 1), ("y", 2), ("z", 3)]));
        assert_eq!(fresh, ["x", "y", "z"]);
    }
}
