//! Generations made while entries are changed in the one in force: once they take over, they say what a compile of all
//! of it from nothing says, and every owner has the number that it had.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex};

use ipnet::IpNet;
use proptest::prelude::*;

use super::build::{Around, Denies, Ground, Next, Wanted};
use super::compile::Occasion;
use super::filter::{read, write};
use super::live::Stop;
use super::live_tests::{Stage, all, change, grantee, policy_of, runner, said, stage, wide, with_services};
use crate::bindings::seam::{Change, DenyGrant, Grantee, Many, Under};
use crate::compiler::{Keep, Pushed, owner_hash};
use crate::kernel::choice::Choice;
use crate::kernel::load::{Generation, KernelLog};
use crate::kernel::state::State;
use crate::policy::Policy;

/// What is bound, whatever a policy makes of it, and what is denied.
#[derive(Default)]
pub(super) struct Held {
    rows: BTreeMap<Arc<str>, Grantee>,
    denies: BTreeMap<String, (Vec<IpNet>, u64)>,
}

pub(super) type Rows = Arc<Mutex<Held>>;

/// What a change is, whatever a policy makes of it.
pub(super) enum Written {
    Deny(Change),
    /// Whose row, before and after.
    Row(Arc<str>, Box<[Option<Grantee>; 2]>),
}

/// The bindings under a policy: what it has no service for is suspended.
pub(super) struct Bindings(pub(super) Rows, pub(super) Arc<Policy>);

impl Bindings {
    fn grantee(&self, row: &Grantee) -> Option<Grantee> {
        let known = |name: &&str| self.1.services.iter().any(|service| service.name == **name);
        let services: Vec<&str> = row.services.iter().map(AsRef::as_ref).filter(known).collect();
        (!services.is_empty()).then(|| with_services(services, row.clone()))
    }

    pub(super) fn pushed(&self) -> Pushed {
        let (grantees, denies) = self.all();
        Pushed::of(grantees, denies)
    }

    /// A change as it is told under this policy.
    pub(super) fn change(&self, change: Change) -> Change {
        self.told(&self.write(change))
    }

    /// Writes it down, and says what it makes of a row.
    pub(super) fn write(&self, change: Change) -> Written {
        let Held { rows, denies } = &mut *self.0.lock().unwrap();
        match &change {
            Change::Deny { name, sources, end } => drop(denies.insert(name.clone(), (sources.clone(), *end))),
            Change::Undeny { name } => drop(denies.remove(name)),
            _ => {}
        }
        let Some(owner) = change.owner().cloned() else {
            return Written::Deny(change);
        };
        let before = rows.get(&owner).cloned();
        match change {
            Change::Put(row) => drop(rows.insert(owner.clone(), row)),
            Change::End { end, .. } => {
                if let Some(row) = rows.get_mut(&owner) {
                    row.end = end;
                }
            }
            _ => drop(rows.remove(&owner)),
        }
        let after = rows.get(&owner).cloned();
        Written::Row(owner, Box::new([before, after]))
    }

    /// How that is told under this policy.
    pub(super) fn told(&self, written: &Written) -> Change {
        let (owner, [before, after]) = match written {
            Written::Deny(change) => return change.clone(),
            Written::Row(owner, rows) => (owner.clone(), &**rows),
        };
        let grantee = |row: &Option<Grantee>| self.grantee(row.as_ref()?);
        match (grantee(before), grantee(after)) {
            (Some(_), None) => Change::Remove { owner },
            (None, None) => Change::Kept { owner },
            (before, Some(after)) => match before {
                Some(before) if before == after => Change::Kept { owner },
                Some(before)
                    if (Grantee {
                        end: after.end,
                        ..before.clone()
                    }) == after =>
                {
                    let end = after.end;
                    Change::End { owner, end }
                }
                _ => Change::Put(after),
            },
        }
    }
}

impl Under for Bindings {
    fn all(&self) -> (Vec<Grantee>, Vec<DenyGrant>) {
        let Held { rows, denies } = &*self.0.lock().unwrap();
        let denies = denies.iter();
        (
            rows.values().filter_map(|row| self.grantee(row)).collect(),
            denies
                .map(|(name, (sources, end))| (name.clone(), sources.clone(), *end))
                .collect(),
        )
    }

    fn of(&self, owners: &BTreeSet<String>) -> Vec<Grantee> {
        let held = self.0.lock().unwrap();
        let rows = owners.iter().filter_map(|owner| held.rows.get(owner.as_str()));
        rows.filter_map(|row| self.grantee(row)).collect()
    }
}

/// A generation, and what was changed while it was made: after it was begun, while it was compiled, at last.
#[derive(Clone, Debug)]
struct Round {
    other_policy: bool,
    fails: bool,
    changes: [Vec<Change>; 3],
}

fn round() -> impl Strategy<Value = Round> {
    let changes = || proptest::collection::vec(change(), 0..12);
    (
        any::<bool>(),
        prop::bool::weighted(0.2),
        changes(),
        changes(),
        changes(),
    )
        .prop_map(|(other_policy, fails, a, b, c)| Round {
            other_policy,
            fails,
            changes: [a, b, c],
        })
}

/// Whose grants have changed, and the denies that have, as they are.
#[derive(Default)]
pub(super) struct Noted {
    owners: BTreeSet<String>,
    denies: Denies,
}

impl Noted {
    fn extend(&mut self, more: Noted) {
        self.owners.extend(more.owners);
        self.denies.extend(more.denies);
    }
}

/// Makes changes in the tables in force, as the engine does, and notes what they are about.
fn apply(stage: &mut Stage, bindings: &Bindings, changes: Vec<Change>) -> Noted {
    let mut noted = Noted::default();
    for change in changes {
        let change = bindings.change(change);
        noted.owners.extend(change.owner().map(|owner| owner.to_string()));
        stage.change(&change).unwrap();
        let deny = change.deny();
        noted
            .denies
            .extend(deny.map(|name| (name.to_owned(), stage.tables.denies.get(name).cloned())));
    }
    noted
}

fn numbers_of(stage: &Stage) -> BTreeMap<Arc<str>, u32> {
    let numbers = read(&stage.numbers);
    let owners = stage.tables.by_name().into_keys();
    owners
        .map(|name| (Arc::clone(&name), numbers.owner(&name).unwrap()))
        .collect()
}

/// A policy in force, with the bindings as it has them.
pub(super) struct Scene {
    pub(super) rows: Rows,
    pub(super) policy: Arc<Policy>,
    pub(super) stage: Stage,
    /// What outlives generations, here as well.
    kept: Generation,
}

impl Scene {
    pub(super) fn new(policy: &Arc<Policy>, before: Vec<Grantee>) -> Self {
        let rows = before.into_iter().chain([wide()]);
        let rows = rows.map(|row| (row.credential.clone(), row)).collect();
        let rows: Rows = Arc::new(Mutex::new(Held {
            rows,
            ..Held::default()
        }));
        let bindings = Bindings(Arc::clone(&rows), Arc::clone(policy));
        let mut stage = stage(policy, &bindings.pushed());
        let kept = self::stage(policy, &Pushed::default()).tables.generation;
        stage.state = State::of(&kept).unwrap();
        for (hash, number) in read(&stage.numbers).owners() {
            stage.state.name_owner(number, hash);
        }
        Self {
            rows,
            policy: Arc::clone(policy),
            stage,
            kept,
        }
    }

    pub(super) fn under(&self, policy: &Arc<Policy>) -> Arc<Bindings> {
        Arc::new(Bindings(Arc::clone(&self.rows), Arc::clone(policy)))
    }

    pub(super) fn ground(&self) -> Ground {
        Ground {
            numbers: read(&self.stage.numbers).clone(),
            state: self.stage.state.share(&self.kept).unwrap(),
            maps: None,
            log: KernelLog::Off,
            jiffy_zero: 0,
            abandoned: Arc::default(),
        }
    }

    fn make(&self, policy: &Arc<Policy>, ground: Ground) -> Box<Next> {
        self.make_beside(policy, &[], ground)
    }

    /// For a policy, beside others that may come back.
    pub(super) fn make_beside(
        &self,
        policy: &Arc<Policy>,
        standby: &[Arc<Policy>],
        ground: Ground,
    ) -> Box<Next> {
        let before = std::iter::once(&self.policy).chain(standby).cloned();
        let wanted = Wanted {
            policy: Arc::clone(policy),
            before: before.collect(),
            keep: match standby.is_empty() {
                true => Keep::Least,
                false => Keep::All,
            },
            occasion: Occasion::Reload,
            many: Many::default(),
        };
        let choice = Choice {
            interfaces: Vec::new(),
            left_out: Vec::new(),
        };
        let host = Vec::new();
        let under = self.under(policy);
        let pushed = (under.pushed(), Some(under as Arc<dyn Under>));
        Next::make(wanted, pushed, Around { choice, host }, ground).unwrap()
    }

    pub(super) fn apply(&mut self, changes: Vec<Change>) -> Noted {
        let bindings = self.under(&self.policy);
        let noted = apply(&mut self.stage, &bindings, changes);
        assert_eq!(self.stage.tables.by_name(), bindings.pushed().grantees);
        noted
    }

    fn catch_up(&self, next: &mut Next, noted: &Noted) -> Result<(), Stop> {
        next.catch_up(&noted.owners, &noted.denies, &self.stage.numbers)
    }

    fn round(&mut self, policy: &Arc<Policy>, round: Round) {
        let [first, second, last] = round.changes;
        let ground = self.ground();
        let mut noted = self.apply(first);
        let mut next = self.make(policy, ground);
        noted.extend(self.apply(second));
        self.catch_up(&mut next, &noted).unwrap();
        let noted = self.apply(last);
        if round.fails {
            // What was given out for it is anybody's again, and nothing has changed.
            return;
        }
        self.catch_up(&mut next, &noted).unwrap();
        let parted = next.take_over(&mut self.stage.tables, &mut write(&self.stage.numbers));
        parted.let_go();
        self.policy = Arc::clone(policy);
    }
}

#[test]
fn generation_made_beside_changes_says_what_a_compile_of_all_from_nothing_says() {
    let policies = [policy_of(&["a", "b"]), policy_of(&["a"])].map(Arc::new);
    let all = all();
    let before = proptest::collection::vec(grantee(), 0..6);
    let rounds = proptest::collection::vec(round(), 1..3);
    let tested = runner(6).run(&(before, rounds), |(before, rounds)| {
        let mut scene = Scene::new(&policies[0], before);
        for round in rounds {
            let before = read(&scene.stage.numbers).clone();
            scene.round(&policies[usize::from(round.other_policy)], round);
            let pushed = scene.under(&scene.policy).pushed();
            prop_assert_eq!(&scene.stage.tables.by_name(), &pushed.grantees);
            let fresh = stage(&scene.policy, &pushed);
            let numbers = read(&scene.stage.numbers).clone();
            let now = said(&scene.stage.tables, &numbers, &all);
            prop_assert_eq!(now, said(&fresh.tables, &read(&fresh.numbers), &all));
            // Numbers stay with names, but where terms have changed; each is one's alone, and has its name.
            for name in pushed.grantees.keys() {
                let number = numbers.owner(name).unwrap();
                prop_assert!(
                    scene.stage.state.owner_hash(number) == Some(owner_hash(name)),
                    "{}",
                    name
                );
            }
            let distinct: HashSet<u32> = numbers.owners().map(|(_, number)| number).collect();
            prop_assert_eq!(distinct.len(), numbers.owners().count());
            prop_assert_eq!(numbers.owner("client/wide"), before.owner("client/wide"));
        }
        Ok(())
    });
    tested.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn swap_leaves_every_owner_the_number_that_it_has_in_force() {
    let policies = [policy_of(&["a", "b"]), policy_of(&["a"])].map(Arc::new);
    let changes = || proptest::collection::vec(change(), 0..20);
    let tested = runner(4).run(&(changes(), changes()), |(first, last)| {
        let mut scene = Scene::new(&policies[0], Vec::new());
        let ground = scene.ground();
        let noted = scene.apply(first);
        let mut next = scene.make(&policies[1], ground);
        scene.catch_up(&mut next, &noted).unwrap();
        let noted = scene.apply(last);
        let in_force = numbers_of(&scene.stage);
        scene.catch_up(&mut next, &noted).unwrap();
        let stage = &mut scene.stage;
        let parted = next.take_over(&mut stage.tables, &mut write(&stage.numbers));
        parted.let_go();
        for (name, number) in numbers_of(stage) {
            prop_assert_eq!(Some(&number), in_force.get(&name), "{}", name);
        }
        Ok(())
    });
    tested.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn change_that_has_no_room_in_the_new_tables_is_in_them_when_they_are_made_again() {
    const FAR: u32 = 40_000;
    let policy = Arc::new(policy_of(&["a", "b"]));
    let mut scene = Scene::new(&policy, Vec::new());
    let binding = Grantee {
        credential: "binding/gateway/far".into(),
        sources: ["192.0.2.1/32".parse().unwrap()].into(),
        ..wide()
    };
    let mut next = scene.make(&policy, scene.ground());
    let noted = scene.apply(vec![Change::Put(binding.clone())]);
    // As if thousands had been put before it.
    write(&scene.stage.numbers).move_owner(owner_hash(&binding.credential), FAR);
    assert_eq!(scene.catch_up(&mut next, &noted), Err(Stop::Generation));
    drop(next);
    let mut next = scene.make(&policy, scene.ground());
    scene.catch_up(&mut next, &noted).unwrap();
    let stage = &mut scene.stage;
    let parted = next.take_over(&mut stage.tables, &mut write(&stage.numbers));
    parted.let_go();
    assert_eq!(numbers_of(stage)[&binding.credential], FAR);
    let said = stage.tables.live().unwrap().said(binding.sources.iter());
    assert_eq!(said[0].2, [&*binding.credential]);
}
