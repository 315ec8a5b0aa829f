//! The numbers of services and owners: stable while a name stays, so that counters and bucket levels stay too.
//!
//! The kernel keeps the names beside what is counted (a service's name, an owner's hash); a restarted daemon
//! reads them back from there.

use std::collections::{BTreeSet, HashMap};

use sha2::{Digest, Sha256};

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
    owners: HashMap<[u8; 16], u32>,
}

/// What `assign` gave out anew: the state behind these numbers is another's and must be cleared first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    pub services: Vec<(String, u32)>,
    pub owners: Vec<([u8; 16], u32)>,
}

impl Numbers {
    /// As the kernel's tables have them.
    pub fn known(
        services: impl IntoIterator<Item = (String, u32)>,
        owners: impl IntoIterator<Item = ([u8; 16], u32)>,
    ) -> Self {
        Self {
            services: services.into_iter().collect(),
            owners: owners.into_iter().collect(),
        }
    }

    pub fn service(&self, name: &str) -> Option<u32> {
        self.services.get(name).copied()
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
    pub fn assign(&self, policy: &Policy, in_force: Option<&Policy>) -> (Numbers, Assigned) {
        let mut assigned = Assigned::default();
        let names = |policy: &Policy| {
            policy
                .services
                .iter()
                .map(|service| service.name.clone())
                .collect()
        };
        let (services, fresh) = place(&self.services, names(policy), in_force.map(names), 0);
        assigned.services = fresh;
        let names = |policy: &Policy| {
            policy
                .clients
                .iter()
                .map(|client| owner_hash(&owner_name(&client.name)))
                .collect()
        };
        let (owners, fresh) = place(&self.owners, names(policy), in_force.map(names), 1);
        assigned.owners = fresh;
        (Numbers { services, owners }, assigned)
    }
}

type Placed<K> = (HashMap<K, u32>, Vec<(K, u32)>);

fn place<K: Clone + Eq + std::hash::Hash>(
    known: &HashMap<K, u32>,
    wanted: Vec<K>,
    in_force: Option<Vec<K>>,
    first: u32,
) -> Placed<K> {
    let mut numbers: HashMap<K, u32> = HashMap::with_capacity(wanted.len());
    let in_force = in_force.unwrap_or_default();
    for name in wanted.iter().chain(&in_force) {
        if let Some(number) = known.get(name) {
            numbers.insert(name.clone(), *number);
        }
    }
    let taken: BTreeSet<u32> = numbers.values().copied().collect();
    let mut free = (first..).filter(|number| !taken.contains(number));
    let mut fresh = Vec::new();
    for name in wanted {
        if !numbers.contains_key(&name)
            && let Some(number) = free.next()
        {
            numbers.insert(name.clone(), number);
            fresh.push((name, number));
        }
    }
    (numbers, fresh)
}
