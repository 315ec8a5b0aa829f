//! Groups of a batch, while nobody else asks for anything: the next is decided and made durable while the kernel takes
//! the one before.
//!
//! It is decided on what the one before leaves, and like that one neither seen nor answered before the kernel has it.
//! Where the kernel refuses the one before, the next is taken back first: what it was decided on is not to be.

use std::time::Instant;

use super::blocking;
use super::core::{Core, Failed, Ready};
use super::groups::{self, decide_refused};
use super::job::Job;
use super::steps::Steps;
use crate::bindings::seam::{BoxFuture, GrantError, Grants};

/// Groups in a row, before whatever else may be due.
const GROUPS_MAX: usize = 16;

/// A group that is durable and audited.
struct Durable {
    ready: Ready,
    /// Of the policy that it was decided under.
    epoch: u64,
    jobs: usize,
    asks: bool,
    steps: Steps,
}

/// Decides jobs as a group, and those that `next` gives as others behind it, until it gives none.
pub(super) async fn decide(
    mut core: Box<Core>,
    jobs: Vec<Job>,
    mut next: impl FnMut() -> Vec<Job>,
    grants: &dyn Grants,
) -> Box<Core> {
    let mut jobs = core.without_growth(jobs);
    // What is still to be seen, and what the kernel is still to take.
    let (mut in_force, mut durable): (Option<Durable>, Option<Durable>) = (None, None);
    let (mut groups, mut failed) = (0, None);
    while !jobs.is_empty() || durable.is_some() || in_force.is_some() {
        let asked = durable.as_mut().and_then(|durable| durable.ask(grants));
        let stepping = step(core, (in_force, durable), jobs, grants);
        let ((taken, at), front, behind);
        ((taken, at), (core, front, behind)) = tokio::join!(answer(asked), stepping);
        (in_force, durable, jobs) = (None, None, Vec::new());
        if let Some(mut front) = front {
            if let Err(error) = taken {
                return take_back(core, front, behind, error, grants).await;
            }
            front.steps.done_at(at);
            in_force = Some(front);
        }
        match behind {
            Some(Ok(behind)) => durable = Some(behind),
            Some(Err(behind)) => failed = core.after_failure(behind),
            None => {}
        }
        groups += 1;
        if durable.is_some() && groups < GROUPS_MAX && core.no_growth().is_none() {
            jobs = next();
        }
    }
    match failed {
        Some(jobs) => groups::decide(core, jobs, grants).await,
        None => core,
    }
}

/// What the kernel makes of a group, and when it has said so.
async fn answer(asked: Option<BoxFuture<Result<(), GrantError>>>) -> (Result<(), GrantError>, Instant) {
    let taken = match asked {
        Some(asked) => asked.await,
        None => Ok(()),
    };
    (taken, Instant::now())
}

impl Durable {
    /// Asks the kernel, where there is anything to ask for.
    fn ask(&mut self, grants: &dyn Grants) -> Option<BoxFuture<Result<(), GrantError>>> {
        let changes = std::mem::take(&mut self.ready.changes);
        self.asks.then(|| grants.change(self.epoch, changes))
    }

    /// Step (5). Blocks.
    fn publish(mut self, core: &mut Core) {
        core.publish(self.ready);
        self.steps.done();
        self.steps.tell_slow(self.jobs);
        if self.asks {
            core.shared.settle();
        }
    }
}

/// Shows what is in force, then decides jobs behind what the kernel is taking, and makes them durable.
async fn step(
    core: Box<Core>,
    (in_force, front): (Option<Durable>, Option<Durable>),
    jobs: Vec<Job>,
    grants: &dyn Grants,
) -> (Box<Core>, Option<Durable>, Option<Result<Durable, Failed>>) {
    let now = core.shared.clock.now();
    let (epoch, policy) = grants.policy();
    let view = core.shared.view_of(epoch, &policy);
    let standby = core.shared.standby_of(grants);
    let (core, (front, behind)) = blocking(core, move |core| {
        if let Some(in_force) = in_force {
            in_force.publish(core);
        }
        if jobs.is_empty() {
            return (front, None);
        }
        let mut steps = Steps::begin();
        let before = front.as_ref().map(|front| &front.ready.group);
        let prepared = core.prepare(jobs, before, (&view, standby.as_deref()), now);
        steps.done();
        let durable = prepared.map(|ready| Durable {
            epoch,
            jobs: ready.group.answers.len(),
            asks: ready.asks(),
            ready,
            steps,
        });
        (front, Some(durable))
    })
    .await;
    (core, front, behind)
}

/// The kernel has refused a group: it and the one behind it are as if they had never been, and decided anew.
async fn take_back(
    core: Box<Core>,
    front: Durable,
    behind: Option<Result<Durable, Failed>>,
    error: GrantError,
    grants: &dyn Grants,
) -> Box<Core> {
    let why = error.to_string();
    let (core, jobs) = blocking(core, move |core| {
        let behind = match behind {
            Some(Ok(behind)) => core.undo(behind.ready, &why),
            Some(Err(failed)) => core.after_failure(failed).unwrap_or_default(),
            None => Vec::new(),
        };
        core.tight.put_off(behind);
        core.undo(front.ready, &why)
    })
    .await;
    decide_refused(core, jobs, error, grants).await
}
