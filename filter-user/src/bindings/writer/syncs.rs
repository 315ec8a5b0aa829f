//! Full syncs on their way, one at a time: decided on a thread beside the writer, then a slice a turn between others'
//! groups. The publisher's own changes wait until its sync is over; nobody else does.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::answers::{into_jobs, refuse};
use super::core::Core;
use super::job::Job;
use super::large::Large;
use super::slices::{Hand, Stage};
use super::steps::Steps;
use super::sync::{At, Decision, SyncJob, decide};
use super::{ATTEMPTS_MAX, blocking, put_in_force, refusal_of};
use crate::bindings::refusal::{Code, Refusal};
use crate::bindings::requests::{Caller, SyncSummary};
use crate::bindings::seam::{GrantError, Grants};

/// Revisions that others may use while a sync is on its way: its own lie beyond. What is left of them is never given.
const BEYOND: u64 = 1 << 20;
/// Changes of the publisher that wait for its sync.
const HELD_MAX: usize = 1_024;

#[derive(Default)]
pub(super) struct Syncs {
    /// Each with how often it was tried.
    waiting: VecDeque<(Box<SyncJob>, u32)>,
    under_way: Option<UnderWay>,
    /// What waits for the end of that one.
    held: Vec<Job>,
    /// Something was to be reviewed meanwhile.
    reviews: bool,
}

struct UnderWay {
    publisher: Arc<str>,
    tries: u32,
    step: Step,
}

type Decided = (Box<SyncJob>, Decision);

pub(super) enum Step {
    /// On its thread, under the policy of this epoch.
    Deciding(u64, oneshot::Receiver<Decided>),
    Large(Box<SyncJob>, Box<Large>, Stage),
}

impl Syncs {
    pub(super) fn wait(&mut self, job: Box<SyncJob>) {
        self.waiting.push_back((job, 0));
    }

    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_none() && self.waiting.is_empty() && self.held.is_empty()
    }

    /// Whether the next step can be made now: it waits for no thread and not for the engine.
    pub(super) fn is_ready(&self) -> bool {
        match &self.under_way {
            None => !self.waiting.is_empty(),
            Some(under_way) => !matches!(
                under_way.step,
                Step::Deciding(..) | Step::Large(_, _, Stage::Asked(..) | Stage::AskedBack(..))
            ),
        }
    }

    /// Keeps a job that must wait for the end of what is under way; others are given back.
    pub(super) fn hold(&mut self, job: Job) -> Option<Job> {
        let Some(under_way) = &self.under_way else {
            return Some(job);
        };
        match &job {
            Job::Binding(of) if of.publisher == under_way.publisher => {}
            Job::Restore(_) => {}
            _ => return Some(job),
        }
        if self.held.len() < HELD_MAX {
            self.held.push(job);
        } else {
            let detail = format!("{HELD_MAX} changes wait for the end of this publisher's sync: ask again");
            refuse(job, &Refusal::new(Code::Busy, detail));
        }
        None
    }

    /// The same for what is due: it is asked for again afterwards.
    pub(super) fn put_off(&mut self, job: &Job) -> bool {
        let held = matches!((job, &self.under_way), (Job::Binding(of), Some(sync)) if of.publisher == sync.publisher);
        self.reviews |= held;
        held
    }

    /// What has waited for the end of a sync.
    pub(super) fn released(&mut self) -> Vec<Job> {
        match self.under_way {
            None => std::mem::take(&mut self.held),
            Some(_) => Vec::new(),
        }
    }

    /// One step on. `rows` are what a single write may wait for.
    pub(super) async fn step(
        &mut self,
        mut core: Box<Core>,
        rows: usize,
        grants: &Arc<dyn Grants>,
    ) -> Box<Core> {
        let Some(mut under_way) = self.under_way.take() else {
            self.begin(&mut core, grants);
            return core;
        };
        let tries = under_way.tries;
        let (step, answer);
        (core, step, answer) = match under_way.step {
            Step::Deciding(epoch, mut decided) => match decided.try_recv() {
                Err(TryRecvError::Empty) => {
                    under_way.step = Step::Deciding(epoch, decided);
                    self.under_way = Some(under_way);
                    return core;
                }
                Err(TryRecvError::Closed) => {
                    tracing::error!("a sync could not be decided");
                    (core, None, None)
                }
                Ok((job, Decision::Answer(answer))) => {
                    if let (Ok(_), Caller::Publisher(name)) = (&answer, &job.actor.caller) {
                        core.shared.succeeded(name);
                    }
                    (core, None, Some((job, answer)))
                }
                Ok((job, Decision::Failed(fault))) => {
                    let refusal = core.fault(&fault);
                    (core, None, Some((job, Err(refusal))))
                }
                Ok((job, Decision::Large(large))) => {
                    // While the store takes it.
                    grants.expect(large.adds()).await;
                    (core, Some(Step::Large(job, large, Stage::Store(0))), None)
                }
                Ok((job, Decision::Small(group, summary))) => {
                    let again;
                    (core, again) = small(core, job, (group, summary), epoch, grants).await;
                    if let Some(job) = again {
                        match tries < ATTEMPTS_MAX {
                            true => self.waiting.push_front((job, tries + 1)),
                            false => refuse(Job::Sync(job), &refusal_of(&GrantError::PolicyChanged)),
                        }
                    }
                    (core, None, None)
                }
            },
            Step::Large(job, large, stage) => {
                let hand = Hand::of(core, job, large, rows, grants);
                hand.step(stage).await
            }
        };
        if let Some(step) = step {
            under_way.step = step;
            self.under_way = Some(under_way);
            return core;
        }
        if let Some((mut job, answer)) = answer
            && let Some(reply) = job.reply.take()
        {
            // Who has left does not need the answer.
            let _ = reply.send(answer);
        }
        if std::mem::take(&mut self.reviews) {
            // They are found again by a walk over all bindings.
            core.sweeps.policy_changed();
        }
        core
    }

    fn begin(&mut self, core: &mut Core, grants: &Arc<dyn Grants>) {
        let Some((mut job, tries)) = self.waiting.pop_front() else {
            return;
        };
        if let Some(refusal) = core.no_growth() {
            return refuse(Job::Sync(job), &refusal);
        }
        let (epoch, policy) = grants.policy();
        let view = core.shared.view_of(epoch, &policy);
        let at = At {
            revision: core.revision,
            base: core.revision + BEYOND,
            now: core.shared.clock.now(),
        };
        let (shared, publisher) = (Arc::clone(&core.shared), job.options.publisher.as_str().into());
        let (done, decided) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let decision = decide(&mut job, &shared, &view, at);
            // A writer that is gone needs no decision.
            let _ = done.send((job, decision));
            shared.nudge.notify_one();
        });
        self.under_way = Some(UnderWay {
            publisher,
            tries,
            step: Step::Deciding(epoch, decided),
        });
    }
}

/// One that is made like any other group. Gives it back where it must be decided anew.
async fn small(
    core: Box<Core>,
    job: Box<SyncJob>,
    (mut group, summary): (Box<super::group::Group>, SyncSummary),
    epoch: u64,
    grants: &Arc<dyn Grants>,
) -> (Box<Core>, Option<Box<SyncJob>>) {
    let (now_epoch, policy) = grants.policy();
    if now_epoch != epoch {
        return (core, Some(job));
    }
    let view = core.shared.view_of(epoch, &policy);
    let standby = core.shared.standby_of(grants.as_ref());
    group.rebase(core.revision);
    group.answer_sync(job, summary);
    let ready = move |core: &mut Core| {
        let now = core.shared.clock.now();
        match core.settle() {
            Ok(()) => core.ready(*group, (&view, standby.as_deref()), now),
            Err(error) => Err(core.failed(into_jobs(*group), &super::durable::Fault::Store(error))),
        }
    };
    let mut steps = Steps::begin();
    let (mut core, ready) = blocking(core, ready).await;
    steps.done();
    let (jobs, refusal) = match ready {
        Err(failed) => {
            let (jobs, refusal) = (failed.jobs.len(), failed.refusal.clone());
            let again = core.after_failure(failed).unwrap_or_default();
            debug_assert!(again.is_empty() || again.len() == jobs);
            (again, refusal)
        }
        Ok(ready) => {
            let forced;
            (core, forced) = put_in_force(core, ready, epoch, grants.as_ref(), steps).await;
            match forced {
                Ok(()) => return (core, None),
                Err((mut jobs, GrantError::PolicyChanged)) => {
                    let again = jobs.pop().and_then(|job| match job {
                        Job::Sync(job) => Some(job),
                        _ => None,
                    });
                    return (core, again);
                }
                Err((jobs, error)) => (jobs, refusal_of(&error)),
            }
        }
    };
    for job in jobs {
        refuse(job, &refusal);
    }
    (core, None)
}
