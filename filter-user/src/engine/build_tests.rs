//! Generations made while entries are changed in the one in force: once they take over, they say what a compile of all
//! of it from nothing says, and every owner has the number that it had.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::build::{Around, Ground, Next, Wanted};
use super::compile::Occasion;
use super::filter::{read, write};
use super::live_tests::{Stage, all, change, grantee, policy_of, runner, said, stage, wide};
use crate::bindings::seam::{Change, DenyGrant, Grantee, Under};
use crate::compiler::{Pushed, owner_hash};
use crate::kernel::choice::Choice;
use crate::kernel::load::KernelLog;
use crate::kernel::state::State;
use crate::policy::Policy;

/// What is bound, whatever a policy makes of it.
type Rows = Arc<Mutex<BTreeMap<String, Grantee>>>;

/// The bindings under a policy: what it has no service for is suspended.
struct Bindings(Rows, Arc<Policy>);

impl Bindings {
    fn grantee(&self, row: &Grantee) -> Option<Grantee> {
        let known = |name: &String| self.1.services.iter().any(|service| service.name == *name);
        let services: Vec<String> = row.services.iter().filter(|name| known(name)).cloned().collect();
        (!services.is_empty()).then(|| Grantee {
            services,
            ..row.clone()
        })
    }

    fn pushed(&self) -> Pushed {
        let (grantees, denies) = self.all();
        Pushed::of(grantees, denies)
    }

    /// A change as it is told under this policy.
    fn change(&self, change: Change) -> Change {
        let mut rows = self.0.lock().unwrap();
        let owner = change.owner().unwrap().to_owned();
        let before = rows.get(&owner).and_then(|row| self.grantee(row));
        match change {
            Change::Put(row) => drop(rows.insert(owner.clone(), row)),
            Change::End { end, .. } => {
                if let Some(row) = rows.get_mut(&owner) {
                    row.end = end;
                }
            }
            _ => drop(rows.remove(&owner)),
        }
        let after = rows.get(&owner).and_then(|row| self.grantee(row));
        match (before, after) {
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
        let rows = self.0.lock().unwrap();
        (
            rows.values().filter_map(|row| self.grantee(row)).collect(),
            Vec::new(),
        )
    }

    fn of(&self, owners: &BTreeSet<String>) -> Vec<Grantee> {
        let rows = self.0.lock().unwrap();
        let rows = owners.iter().filter_map(|owner| rows.get(owner));
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

/// Makes changes in the tables in force, as the engine does, and notes whose they are.
fn apply(stage: &mut Stage, bindings: &Bindings, changes: Vec<Change>) -> BTreeSet<String> {
    let mut noted = BTreeSet::new();
    for change in changes {
        let change = bindings.change(change);
        noted.extend(change.owner().map(String::from));
        stage.change(&change).unwrap();
    }
    noted
}

fn numbers_of(stage: &Stage) -> BTreeMap<String, u32> {
    let numbers = read(&stage.numbers);
    let owners = stage.tables.pushed.grantees.keys();
    owners
        .map(|name| (name.clone(), numbers.owner(name).unwrap()))
        .collect()
}

#[test]
fn generation_made_beside_changes_says_what_a_compile_of_all_from_nothing_says() {
    let policies = [policy_of(&["a", "b"]), policy_of(&["a"])].map(Arc::new);
    let all = all();
    let before = proptest::collection::vec(grantee(), 0..6);
    let rounds = proptest::collection::vec(round(), 1..3);
    let tested = runner(10).run(&(before, rounds), |(before, rounds)| {
        let rows = before.into_iter().chain([wide()]);
        let rows = rows.map(|row| (row.credential.clone(), row)).collect();
        let rows: Rows = Arc::new(Mutex::new(rows));
        let under = |policy: &Arc<Policy>| Bindings(Arc::clone(&rows), Arc::clone(policy));
        let mut policy = Arc::clone(&policies[0]);
        let mut stage = stage(&policy, &under(&policy).pushed());
        // What outlives generations, here as well.
        let kept = self::stage(&policies[0], &Pushed::default()).tables.generation;
        stage.state = State::of(&kept).unwrap();
        for (hash, number) in read(&stage.numbers).owners() {
            stage.state.name_owner(number, hash);
        }
        for Round {
            other_policy,
            fails,
            changes: [first, second, last],
        } in rounds
        {
            let bindings = under(&policy);
            let next_policy = Arc::clone(&policies[usize::from(other_policy)]);
            let ground = Ground {
                numbers: read(&stage.numbers).clone(),
                state: State::of(&kept).unwrap(),
                maps: None,
                log: KernelLog::Off,
                jiffy_zero: 0,
                abandoned: Arc::default(),
            };
            let mut noted = apply(&mut stage, &bindings, first);
            let wanted = Wanted {
                policy: Arc::clone(&next_policy),
                before: Some(Arc::clone(&policy)),
                occasion: Occasion::Reload,
            };
            let around = Around {
                choice: Choice {
                    interfaces: Vec::new(),
                    left_out: Vec::new(),
                },
                host: Vec::new(),
            };
            let next_bindings = Arc::new(under(&next_policy));
            let pushed = (
                next_bindings.pushed(),
                Some(Arc::clone(&next_bindings) as Arc<dyn Under>),
            );
            let mut next = Next::make(wanted, pushed, around, ground).unwrap();
            noted.extend(apply(&mut stage, &bindings, second));
            next.catch_up(&noted, &stage.numbers).unwrap();
            let noted = apply(&mut stage, &bindings, last);
            prop_assert_eq!(&stage.tables.pushed.grantees, &bindings.pushed().grantees);
            if fails {
                // What was given out for it is anybody's again, and nothing has changed.
                drop(next);
                continue;
            }
            next.catch_up(&noted, &stage.numbers).unwrap();
            let numbers = numbers_of(&stage);
            let parted = next.take_over(&mut stage.tables, &mut write(&stage.numbers));
            parted.let_go();
            policy = next_policy;

            let pushed = next_bindings.pushed();
            prop_assert_eq!(&stage.tables.pushed.grantees, &pushed.grantees);
            let fresh = self::stage(&policy, &pushed);
            let now = said(&stage.tables, &read(&stage.numbers), &all);
            prop_assert_eq!(now, said(&fresh.tables, &read(&fresh.numbers), &all));
            let after = numbers_of(&stage);
            for (name, number) in &after {
                prop_assert_eq!(number, numbers.get(name).unwrap_or(number), "{}", name);
                prop_assert!(
                    stage.state.owner_hash(*number) == Some(owner_hash(name)),
                    "{}",
                    name
                );
            }
            let distinct: HashSet<u32> = read(&stage.numbers).owners().map(|(_, number)| number).collect();
            prop_assert_eq!(distinct.len(), read(&stage.numbers).owners().count());
        }
        Ok(())
    });
    tested.unwrap_or_else(|error| panic!("{error}"));
}
