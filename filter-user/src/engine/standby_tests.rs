//! A policy that stands by beside the one in force, in real maps: the kernel goes back to it by itself, and it is kept
//! up with what is pushed as if it were in force.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use filter_common::abi::{RunContext, Switch as Armed, names, run_flags};
use filter_common::verdict::{Judgement, Reason};
use proptest::prelude::*;

use super::build_tests::Scene;
use super::filter::{read, write};
use super::live_tests::{all, change, grantee, policy_of, runner, said, stage, stage_over};
use super::standby;
use super::tables::Tables;
use crate::bindings::seam::{Change, Changes};
use crate::compiler::{Pushed, owner_hash};
use crate::judge::frame::{Flow, build};
use crate::kernel::load::Generation;
use crate::kernel::run::Runner;
use crate::kernel::switch::Switch;
use crate::kernel::{attach, clock};
use crate::policy::Policy;
use crate::policy::model::ExpectProtocol;

/// Far longer than the kernel takes to see a tick.
const PATIENCE: Duration = Duration::from_secs(20);

fn judged(entry: &mut Generation, runner: &mut Runner) -> Judgement {
    let flow = Flow {
        from: ("10.0.0.1".parse().unwrap(), 4000),
        to: ("203.0.113.10".parse().unwrap(), 443),
        protocol: ExpectProtocol::Udp,
    };
    let context = RunContext {
        flags: run_flags::DRY | run_flags::NO_SOCKETS,
        ..RunContext::default()
    };
    let program = entry.program(names::ENTRY).unwrap();
    runner.judge(program, &build(&flow).unwrap(), context).unwrap()
}

#[test]
fn kernel_goes_back_at_the_deadline_by_itself_and_never_before() {
    // Under the one a client has the service, under the other there is no such service.
    let [mut new, mut old] = [&["a"][..], &["a", "b"]]
        .map(|services| stage(&policy_of(services), &Pushed::default()).tables.generation);
    attach::swap(&mut new).unwrap();
    attach::stand_by_for(&mut old, &mut new).unwrap();
    new.program(names::ENTRY).unwrap().load().unwrap();
    let switch = Switch::of(&new).unwrap();
    let mut runner = Runner::default();
    let mut reason = |new: &mut Generation| judged(new, &mut runner).reason;
    let in_force = reason(&mut new);
    assert_ne!(in_force, Reason::Allowed);
    let arm = |deadline| switch.arm(Armed { deadline, standby: 1 });

    arm(clock::monotonic().0 + 3_600_000_000_000);
    assert_eq!(reason(&mut new), in_force, "an hour before");
    let deadline = clock::monotonic().0 + 50_000_000;
    arm(deadline);
    let started = Instant::now();
    while reason(&mut new) != Reason::Allowed {
        assert!(started.elapsed() < PATIENCE, "it does not go back");
        thread::yield_now();
    }
    assert!(clock::monotonic().0 >= deadline, "it went back too early");
    assert_eq!(reason(&mut new), Reason::Allowed, "and stays");
    switch.disarm();
    assert_eq!(reason(&mut new), in_force);
    arm(1);
    assert_eq!(reason(&mut new), Reason::Allowed);
    // What cannot be, since the deadline goes first: no packet is let in by nobody's judgement.
    attach::stand_down(&mut new).unwrap();
    attach::stand_down(&mut new).unwrap();
    assert_eq!(reason(&mut new), in_force);
}

/// A policy in force, and one that stands by.
struct Pair {
    scene: Scene,
    old: Arc<Policy>,
    standby: Tables,
}

/// What is done while a policy is to be confirmed.
#[derive(Clone, Debug)]
enum Step {
    Change(Change),
    /// A generation for the policy in force, or for the one that stands by, with changes while it is made.
    Anew(bool, Vec<Change>),
}

fn step() -> impl Strategy<Value = Step> {
    let changes = proptest::collection::vec(change(), 0..6);
    prop_oneof![
        8 => change().prop_map(Step::Change),
        1 => (any::<bool>(), changes).prop_map(|(in_force, changes)| Step::Anew(in_force, changes)),
    ]
}

impl Pair {
    fn new(mut scene: Scene, new: &Arc<Policy>) -> Self {
        let old = Arc::clone(&scene.policy);
        let next = scene.make_beside(new, std::slice::from_ref(&old), scene.ground());
        let stage = &mut scene.stage;
        let mut parted = next.take_over(&mut stage.tables, &mut write(&stage.numbers));
        let standby = parted.take_tables().unwrap();
        parted.let_go();
        scene.policy = Arc::clone(new);
        Self { scene, old, standby }
    }

    /// As the bindings tell it, and the engine makes it.
    fn change(&mut self, change: Change) {
        let (new, old) = (self.scene.under(&self.scene.policy), self.scene.under(&self.old));
        let written = new.write(change);
        let told = |under: &super::build_tests::Bindings| vec![under.told(&written)];
        let changes = Changes {
            in_force: told(&new),
            standby: told(&old),
            patient: false,
        };
        let stage = &mut self.scene.stage;
        let were = standby::numbers_of(&stage.numbers, &changes.standby);
        for change in &changes.in_force {
            stage.change(change).unwrap();
        }
        let kept = (&stage.numbers, &stage.state);
        standby::change(&mut self.standby, kept, &changes.standby, &were).unwrap();
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Change(change) => self.change(change),
            Step::Anew(in_force, changes) => {
                let policy = if in_force { &self.scene.policy } else { &self.old };
                let old = std::slice::from_ref(&self.old);
                let mut next = self.scene.make_beside(policy, old, self.scene.ground());
                let owners = changes
                    .iter()
                    .filter_map(Change::owner)
                    .map(|owner| owner.to_string());
                let owners = owners.collect();
                let denies: Vec<String> = changes
                    .iter()
                    .filter_map(Change::deny)
                    .map(String::from)
                    .collect();
                changes.into_iter().for_each(|change| self.change(change));
                let stage = &mut self.scene.stage;
                let denied = &stage.tables.denies;
                let denies = denies.into_iter().map(|name| {
                    let deny = denied.get(&name).cloned();
                    (name, deny)
                });
                let denies = denies.collect();
                next.catch_up(&owners, &denies, &stage.numbers).unwrap();
                let parted = match in_force {
                    true => next.take_over(&mut stage.tables, &mut write(&stage.numbers)),
                    false => next.stand_by(&mut self.standby, &mut write(&stage.numbers)),
                };
                parted.let_go();
            }
        }
    }

    /// Each says what a compile of all that is bound says, and no number is two owners'.
    fn check(&self) -> Result<(), TestCaseError> {
        let numbers = read(&self.scene.stage.numbers).clone();
        let mut held = HashSet::new();
        for (policy, tables) in [
            (&self.scene.policy, &self.scene.stage.tables),
            (&self.old, &self.standby),
        ] {
            let pushed = self.scene.under(policy).pushed();
            prop_assert_eq!(&tables.by_name(), &pushed.grantees);
            let fresh = stage_over(&numbers, policy, &pushed);
            let fresh = said(&fresh.tables, &read(&fresh.numbers), &all());
            prop_assert_eq!(said(tables, &numbers, &all()), fresh);
            let clients = policy
                .clients
                .iter()
                .map(|client| format!("client/{}", client.name).into());
            for name in pushed.grantees.keys().cloned().chain(clients) {
                let number = numbers.owner(&name).unwrap();
                let hash = self.scene.stage.state.owner_hash(number);
                prop_assert_eq!(hash, Some(owner_hash(&name)), "{} of {}", number, name);
                held.insert((name, number));
            }
        }
        let distinct: HashSet<u32> = held.iter().map(|(_, number)| *number).collect();
        prop_assert_eq!(distinct.len(), held.len());
        Ok(())
    }

    /// Nothing stands by any more.
    fn end(mut self, comes_back: bool) -> Scene {
        if comes_back {
            self.scene.stage.tables = self.standby;
            write(&self.scene.stage.numbers).come_back();
            self.scene.policy = self.old;
        }
        self.scene
    }
}

#[test]
fn what_stands_by_says_what_it_would_say_in_force() {
    let policies = [policy_of(&["a", "b"]), policy_of(&["a"])].map(Arc::new);
    let before = proptest::collection::vec(grantee(), 0..6);
    let steps = proptest::collection::vec(step(), 0..12);
    let after = proptest::collection::vec(change(), 0..8);
    let cases = (before, steps, any::<bool>(), any::<bool>(), after);
    let tested = runner(5).run(&cases, |(before, steps, other_way, comes_back, after)| {
        let [old, new] = if other_way { [1, 0] } else { [0, 1] }.map(|at: usize| &policies[at]);
        let mut pair = Pair::new(Scene::new(old, before), new);
        pair.check()?;
        for step in steps {
            pair.step(step);
        }
        pair.check()?;
        let mut scene = pair.end(comes_back);
        scene.apply(after);
        // Twice: what has left is given out again by the second, and is nobody's then.
        for _ in 0..2 {
            let policy = Arc::clone(&scene.policy);
            let next = scene.make_beside(&policy, &[], scene.ground());
            let stage = &mut scene.stage;
            let parted = next.take_over(&mut stage.tables, &mut write(&stage.numbers));
            parted.let_go();
        }
        let pushed = scene.under(&scene.policy).pushed();
        let numbers = read(&scene.stage.numbers).clone();
        let fresh = stage_over(&numbers, &scene.policy, &pushed);
        let fresh = said(&fresh.tables, &read(&fresh.numbers), &all());
        prop_assert_eq!(said(&scene.stage.tables, &numbers, &all()), fresh);
        let distinct: HashSet<u32> = numbers.owners().map(|(_, number)| number).collect();
        prop_assert_eq!(distinct.len(), numbers.owners().count());
        for (hash, number) in numbers.owners() {
            prop_assert_eq!(scene.stage.state.owner_hash(number), Some(hash), "{}", number);
        }
        Ok(())
    });
    tested.unwrap_or_else(|error| panic!("{error}"));
}
