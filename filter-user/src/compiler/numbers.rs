//! The numbers of services and owners: stable while a name stays, so that counters and bucket levels stay too.
//!
//! The kernel keeps the names beside what is counted (a service's name, an owner's hash); a restarted daemon
//! reads them back from there.

mod given;
mod hashes;
mod known;
mod set;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use filter_common::abi::PUBLISHERS_START;
use filter_common::bounds::{PUBLISHERS_MAX, SERVICES_MAX};

use super::threads::in_halves;
use super::{CompileError, Pushed};
use crate::policy::model::Policy;
use given::Given;
use hashes::owner_hashes;
pub use hashes::{OwnerHash, owner_hash};
use known::{ByHash, Known};
use set::Set;

/// The name of a client as an owner.
pub fn owner_name(client: &str) -> String {
    format!("client/{client}")
}

/// Which name has which number. A clone costs little, and both take new numbers from one set.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    services: HashMap<String, u32>,
    publishers: HashMap<String, u32>,
    owners: Known,
    /// Of names that only what was in force before has: forgotten by the next assignment.
    leaving: Arc<ByHash>,
    given: Given,
    /// Numbers that names have had since these were assigned, and those before them.
    parted: Vec<u32>,
    parted_before: Vec<u32>,
    /// As they were assigned: of the policy's clients, and of the pushed grantees, each in their order.
    clients: Vec<u32>,
    grantees: Vec<u32>,
}

/// What `assign` gave out anew: the state behind these numbers is another's and must be cleared first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// Publishers among them, behind the services.
    pub services: Vec<(String, u32)>,
    pub owners: Vec<(OwnerHash, u32)>,
    /// Owners for whom there was no number left.
    pub unnumbered: usize,
    /// The same of services and publishers: none, where nothing has to be kept.
    pub unnamed: usize,
    /// Numbers that were nobody's before.
    taken: Vec<u32>,
    /// Numbers that nobody has once these are in force.
    left: Vec<u32>,
    /// Numbers of names that were changed since: one that had left may be here again with its own.
    met: Vec<u32>,
}

/// What stays with the names that the assignment does not ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Numbers of names in force, for one change more, unless they are the last to be had.
    Least,
    /// Every number: tables that stand by may be in force again.
    All,
}

impl Assigned {
    /// One owner's number as it is now, and the one that was nobody's where it took one.
    pub fn took(&mut self, owner: &str, number: Option<u32>, taken: Option<u32>) {
        let hash = owner_hash(owner);
        self.owners.extend(taken.map(|number| (hash, number)));
        self.taken.extend(taken);
        self.met.extend(number);
    }
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
        let owners: ByHash = owners.into_iter().collect();
        Self {
            services,
            publishers,
            given: Given::of(owners.values().copied()),
            owners: Known::from(owners),
            ..Self::default()
        }
    }

    /// The numbers of a policy's clients, in their order, as they were assigned for it.
    pub(super) fn clients(&self, policy: &Policy) -> Result<&[u32], CompileError> {
        let fits = self.clients.len() == policy.clients.len();
        fits.then_some(self.clients.as_slice())
            .ok_or_else(|| CompileError::Unnumbered(String::from("a client")))
    }

    /// The same of what is pushed.
    pub(super) fn grantees(&self, pushed: &Pushed) -> Result<&[u32], CompileError> {
        let fits = self.grantees.len() == pushed.grantees.len();
        fits.then_some(self.grantees.as_slice())
            .ok_or_else(|| CompileError::Unnumbered(String::from("a binding")))
    }

    /// The numbers of what was pushed, in its order, as they were assigned.
    pub fn pushed_numbers(&self) -> &[u32] {
        &self.grantees
    }

    /// Names and numbers of all owners, as they were assigned; nobody asks for the order after this.
    pub fn take_listed<'n>(
        &mut self,
        policy: &'n Policy,
        pushed: &'n Pushed,
    ) -> impl Iterator<Item = (u32, Arc<str>)> + use<'n> {
        let clients = std::mem::take(&mut self.clients).into_iter();
        let clients = clients.zip(&policy.clients);
        let clients = clients.map(|(number, client)| (number, Arc::from(owner_name(&client.name))));
        let grantees = std::mem::take(&mut self.grantees).into_iter();
        let grantees = grantees.zip(pushed.grantees.keys());
        clients.chain(grantees.map(|(number, name)| (number, Arc::clone(name))))
    }

    pub fn service(&self, name: &str) -> Option<u32> {
        self.services.get(name).copied()
    }

    pub fn publisher(&self, name: &str) -> Option<u32> {
        self.publishers.get(name).copied()
    }

    /// A number for an owner, by its name's hash, that is added to what is in force, or the one that it has; `None`
    /// where there is none below `end`.
    pub fn add_owner(&mut self, hash: OwnerHash, end: u32) -> Option<u32> {
        let known = self.number_of(&hash);
        let number = match known.filter(|number| *number < end) {
            Some(number) => number,
            None => self.given.take(end)?,
        };
        match known {
            Some(_) => self.put_owner(hash, number),
            None => self.owners.insert(hash, number),
        }
        Some(number)
    }

    /// A number below `end` that nobody has had since the last generation.
    pub fn fresh(&self, end: u32) -> Option<u32> {
        self.given.take(end)
    }

    /// Gives back a number that was not used.
    pub fn give_back(&self, number: u32) {
        self.given.give_back(&[number]);
    }

    /// An owner that is in force under another number now.
    pub fn move_owner(&mut self, hash: OwnerHash, to: u32) {
        self.put_owner(hash, to);
    }

    fn put_owner(&mut self, hash: OwnerHash, number: u32) {
        let before = self.owners.get(&hash);
        if before != Some(number) {
            self.parted.extend(before);
            self.owners.insert(hash, number);
        }
    }

    /// Never 0, which is nobody's.
    pub fn owner(&self, name: &str) -> Option<u32> {
        self.number_of(&owner_hash(name))
    }

    pub fn services(&self) -> impl Iterator<Item = (&str, u32)> {
        self.services
            .iter()
            .map(|(name, number)| (name.as_str(), *number))
    }

    /// Those that left last among them.
    pub fn owners(&self) -> impl Iterator<Item = (OwnerHash, u32)> {
        let leaving = self.leaving.iter().map(|(hash, number)| (*hash, *number));
        let leaving = leaving.filter(|(hash, _)| self.owners.get(hash).is_none());
        self.owners.iter().chain(leaving)
    }

    /// One past the highest owner's number.
    pub fn owners_end(&self) -> u32 {
        let all = self.owners().map(|(_, number)| number);
        all.max().map_or(1, |highest| highest + 1)
    }

    /// The numbers for a policy: known names keep theirs, new ones take numbers that no name of the policy in
    /// force has, those never used first; names that neither policy has are forgotten. Owners' are below `owners_end`.
    pub fn assign(
        &self,
        wanted: (&Policy, &Pushed),
        in_force: Option<&Policy>,
        owners_end: u32,
    ) -> (Numbers, Assigned) {
        self.assign_over(wanted, (in_force.as_slice(), Keep::Least), owners_end)
    }

    /// The same over several policies, of which one may come back as it is: then what it has is kept.
    pub fn assign_over(
        &self,
        (policy, pushed): (&Policy, &Pushed),
        (known, keep): (&[&Policy], Keep),
        owners_end: u32,
    ) -> (Numbers, Assigned) {
        let mut assigned = Assigned::default();
        let of = |names: fn(&Policy) -> Vec<String>| {
            let known = known.iter().flat_map(|known| names(known));
            (names(policy), known.collect::<Vec<String>>())
        };
        let (services, fresh) = place(&self.services, of(service_names), 0..SERVICES_MAX, keep);
        assigned.services = fresh;
        let range = PUBLISHERS_START..PUBLISHERS_START + PUBLISHERS_MAX;
        let (publishers, fresh) = place(&self.publishers, of(publisher_names), range, keep);
        assigned.services.extend(fresh);
        let unnamed = |names: Vec<String>, numbers: &HashMap<String, u32>| {
            names.iter().filter(|name| !numbers.contains_key(*name)).count()
        };
        assigned.unnamed =
            unnamed(service_names(policy), &services) + unnamed(publisher_names(policy), &publishers);
        let hashes = owner_hashes(policy, pushed);
        let Owned {
            numbers: owned,
            taken,
            are_known,
        } = self.place_owners(&hashes, owners_end, keep);
        assigned.taken = taken;
        assigned.unnumbered = owned.iter().filter(|number| **number == 0).count();
        // At a restart all of a million are known, and nobody else is: looking for each once more takes as long again.
        let same = are_known && self.leaving.is_empty() && self.owners.are_just(hashes.len());
        let owners = match same {
            true => self.owners.clone(),
            false => Known::from(self.placed(&hashes, &owned, &mut assigned)),
        };
        // What only the policy in force has keeps its number for one change more, unless it was the last to be had.
        let given = Set::of(owned.iter().copied());
        let (mut leaving, mut parted_before) = (ByHash::default(), Vec::new());
        match keep {
            Keep::Least => {
                let busy = Set::of(self.owners.iter().map(|(_, number)| number));
                let left = self.leaving.values().chain(&self.parted_before);
                let left = left.filter(|number| !given.holds(**number) && !busy.holds(**number));
                assigned.left = left.copied().collect();
            }
            Keep::All => {
                leaving.extend(self.leaving.iter().map(|(hash, number)| (*hash, *number)));
                leaving.retain(|_, number| !given.holds(*number));
                parted_before.clone_from(&self.parted_before);
            }
        }
        leaving.extend(self.owners.iter().filter(|(_, number)| !given.holds(*number)));
        let numbers = Numbers {
            services,
            publishers,
            leaving: Arc::new(leaving),
            owners,
            given: self.given.clone(),
            parted: Vec::new(),
            parted_before,
            clients: owned[..policy.clients.len()].to_vec(),
            grantees: owned[policy.clients.len()..].to_vec(),
        };
        (numbers, assigned)
    }

    /// These are in force now, after `before`, from which they were assigned and which may have changed since: who
    /// left meanwhile keeps its number for one change more.
    pub fn succeed(&mut self, before: &Numbers, assigned: &mut Assigned) {
        let changed: Vec<_> = before.owners.since().collect();
        let gone = changed
            .iter()
            .filter(|(hash, number)| self.owners.get(hash) != Some(*number));
        let gone: Vec<_> = gone.copied().collect();
        if !gone.is_empty() {
            Arc::make_mut(&mut self.leaving).extend(gone);
        }
        let used = changed.iter().map(|(_, number)| number);
        let used: HashSet<u32> = used.chain(&assigned.met).copied().collect();
        assigned.left.retain(|number| !used.contains(number));
        self.parted_before.extend(&before.parted);
    }

    /// What was assigned is in tables that stand by: the names that these do not know have those numbers.
    pub fn learn(&mut self, assigned: &Assigned) {
        for (hash, number) in &assigned.owners {
            if self.number_of(hash).is_none() {
                self.put_owner(*hash, *number);
            }
        }
    }

    /// What stood by is in force: who had left with it is here again, and leaves with the next assignment.
    pub fn come_back(&mut self) {
        for (hash, number) in std::mem::take(&mut self.leaving).iter() {
            match self.owners.get(hash) {
                Some(other) if other != *number => self.parted.push(*number),
                Some(_) => {}
                None => self.owners.insert(*hash, *number),
            }
        }
    }

    /// The numbers that nobody has any more since these are in force may be given to others; each is told of first.
    pub fn release(&self, assigned: &Assigned, tell: impl Fn(u32)) {
        assigned.left.iter().for_each(|number| tell(*number));
        self.given.give_back(&assigned.left);
    }

    /// What was assigned never came into force.
    pub fn dismiss(&self, assigned: &Assigned) {
        self.given.give_back(&assigned.taken);
    }

    /// The same by its name's hash.
    pub fn number_of(&self, hash: &OwnerHash) -> Option<u32> {
        self.owners.get(hash).or_else(|| self.leaving.get(hash).copied())
    }

    /// The numbers by their owners; what is new in them is noted.
    fn placed(&self, hashes: &[OwnerHash], numbers: &[u32], assigned: &mut Assigned) -> ByHash {
        let mut owners = ByHash::with_capacity_and_hasher(hashes.len(), Default::default());
        for (hash, number) in hashes.iter().zip(numbers).filter(|(_, number)| **number != 0) {
            if self.number_of(hash) != Some(*number) {
                assigned.owners.push((*hash, *number));
            }
            owners.insert(*hash, *number);
        }
        owners
    }

    /// As `place`, for as many as a million.
    fn place_owners(&self, wanted: &[OwnerHash], end: u32, keep: Keep) -> Owned {
        let known = |hash: &OwnerHash| self.number_of(hash).filter(|number| *number < end).unwrap_or(0);
        let mut numbers = in_halves(wanted.len(), |half| wanted[half].iter().map(known).collect());
        let without = numbers.iter().filter(|number| **number == 0).count();
        let fresh = self.given.take_many(without, end);
        let mut used = Vec::new();
        if fresh.len() < without && keep == Keep::Least {
            let taken = Set::of(numbers.iter().copied());
            let busy = Set::of(self.owners.iter().map(|(_, number)| number));
            let idle = Set::of(self.leaving.values().copied());
            let end = end.min(self.owners_end());
            let idle = (1..end).filter(|number| idle.holds(*number) && !busy.holds(*number));
            let last = (1..end).filter(|number| busy.holds(*number));
            used.extend(idle.chain(last).filter(|number| !taken.holds(*number)));
        }
        let mut free = fresh.iter().chain(&used);
        for number in numbers.iter_mut().filter(|number| **number == 0) {
            *number = free.next().copied().unwrap_or(0);
        }
        Owned {
            numbers,
            taken: fresh,
            are_known: without == 0,
        }
    }
}

/// Owners' numbers, in the order of the owners; 0 for whom there is none left.
struct Owned {
    numbers: Vec<u32>,
    /// Those that were nobody's.
    taken: Vec<u32>,
    /// Whether all had theirs before.
    are_known: bool,
}

type Placed<K> = (HashMap<K, u32>, Vec<(K, u32)>);

fn service_names(policy: &Policy) -> Vec<String> {
    let services = policy.services.iter();
    services.map(|service| service.name.clone()).collect()
}

fn publisher_names(policy: &Policy) -> Vec<String> {
    let publishers = policy.publishers.iter();
    publishers.map(|publisher| publisher.name.clone()).collect()
}

/// New names take numbers below `end` that nobody is known to have had; then those of names that neither policy
/// has; and where there is no other, those of names that only the policy in force has, unless these are to be kept.
fn place<K: Clone + Eq + std::hash::Hash>(
    known: &HashMap<K, u32>,
    (wanted, in_force): (Vec<K>, Vec<K>),
    range: Range<u32>,
    keep: Keep,
) -> Placed<K> {
    let of = |names: &[K]| -> HashMap<K, u32> {
        names
            .iter()
            .filter_map(|name| Some((name.clone(), *known.get(name)?)))
            .collect()
    };
    let mut numbers = of(&wanted);
    let kept = of(&in_force);
    let taken: HashSet<u32> = numbers.values().copied().collect();
    let ever: HashSet<u32> = known.values().copied().collect();
    let busy: HashSet<u32> = kept.values().copied().collect();
    let unknown = range.clone().filter(|number| !ever.contains(number));
    let idle = range
        .clone()
        .filter(|n| ever.contains(n) && !busy.contains(n) && !taken.contains(n));
    let last = range.filter(|number| keep == Keep::Least && busy.contains(number) && !taken.contains(number));
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
