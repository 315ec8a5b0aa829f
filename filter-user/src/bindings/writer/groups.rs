//! Groups of jobs from their decision to their answers, and what becomes of those that the kernel does not take.

use std::sync::Arc;

use super::answers::refusal_of;
use super::core::{Core, Ready};
use super::job::Job;
use super::steps::Steps;
use super::{ATTEMPTS_MAX, blocking, detached, tight};
use crate::bindings::model::allowance::PolicyView;
use crate::bindings::seam::{GrantError, Grants};

/// Decides jobs as one group, and puts it in force. Where the kernel has no room for all, each gets its own answer,
/// some of them with a later group: others' come between two.
pub(super) async fn decide(mut core: Box<Core>, mut jobs: Vec<Job>, grants: &dyn Grants) -> Box<Core> {
    if core.tight.is_on() {
        (core, jobs) = tight::sift(core, jobs, grants).await;
    }
    decide_all(core, vec![(jobs, 0)], grants).await
}

/// The same of several, the last of them first, each with how often it was tried.
async fn decide_all(mut core: Box<Core>, mut left: Vec<(Vec<Job>, u32)>, grants: &dyn Grants) -> Box<Core> {
    while let Some((jobs, attempt)) = left.pop() {
        let jobs = core.without_growth(jobs);
        if jobs.is_empty() {
            continue;
        }
        let now = core.shared.clock.now();
        let (epoch, policy) = grants.policy();
        let view: Arc<PolicyView> = core.shared.view_of(epoch, &policy);
        let standby = core.shared.standby_of(grants);
        let mut steps = Steps::begin();
        let prepared;
        (core, prepared) = blocking(core, move |core| {
            core.prepare(jobs, None, (&view, standby.as_deref()), now)
        })
        .await;
        steps.done();
        let ready = match prepared {
            Ok(ready) => ready,
            Err(failed) => {
                left.extend(core.after_failure(failed).map(|jobs| (jobs, attempt)));
                continue;
            }
        };
        let forced;
        (core, forced) = put_in_force(core, ready, epoch, grants, steps).await;
        if let Err((jobs, error)) = forced {
            left.extend(refused(&mut core, jobs, attempt, error));
        }
    }
    core
}

/// A group that the kernel did not take: what of it is decided once more, in which groups.
fn refused(core: &mut Core, mut jobs: Vec<Job>, attempt: u32, error: GrantError) -> Vec<(Vec<Job>, u32)> {
    match error {
        GrantError::PolicyChanged if attempt < ATTEMPTS_MAX => return vec![(jobs, attempt + 1)],
        GrantError::TableFull { .. } | GrantError::TableKept { .. } | GrantError::TooManyOwners { .. }
            if jobs.len() > 1 =>
        {
            // What cannot be told without trying is tried in halves.
            if core.tight.is_on() {
                core.tight.put_off(jobs.split_off(jobs.len() / 2));
            }
            core.tight.begin();
            core.tight.put_off(jobs);
        }
        GrantError::Detached => {
            let parts = detached::parted(core, jobs, &refusal_of(&error));
            return parts.into_iter().map(|jobs| (jobs, attempt)).collect();
        }
        error => core.refuse_all(jobs, &refusal_of(&error)),
    }
    Vec::new()
}

/// What is decided once more of a group that the kernel did not take at first.
pub(super) async fn decide_refused(
    mut core: Box<Core>,
    jobs: Vec<Job>,
    error: GrantError,
    grants: &dyn Grants,
) -> Box<Core> {
    let left = refused(&mut core, jobs, 0, error);
    decide_all(core, left, grants).await
}

/// Steps (4) and (5) of a group. What the kernel refuses is taken back: its jobs, and why.
pub(super) async fn put_in_force(
    mut core: Box<Core>,
    mut ready: Ready,
    epoch: u64,
    grants: &dyn Grants,
    mut steps: Steps,
) -> (Box<Core>, Result<(), (Vec<Job>, GrantError)>) {
    let jobs = ready.group.answers.len();
    let asks = ready.asks();
    let changes = std::mem::take(&mut ready.changes);
    let in_force = match asks {
        true => grants.change(epoch, changes).await,
        false => Ok(()),
    };
    steps.done();
    let Err(error) = in_force else {
        match ready.is_large() {
            true => core = blocking(core, |core| core.publish(ready)).await.0,
            false => core.publish(ready),
        }
        steps.done();
        steps.tell_slow(jobs);
        if asks {
            core.shared.settle();
        }
        return (core, Ok(()));
    };
    let why = error.to_string();
    let jobs;
    (core, jobs) = blocking(core, move |core| core.undo(ready, &why)).await;
    (core, Err((jobs, error)))
}
