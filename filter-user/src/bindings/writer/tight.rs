//! While the kernel's tables have no room for all that is asked: what does not fit is found before a group is made
//! durable, and what has to wait for another group lets others' go first.
//!
//! Taking a group back costs several fsyncs, which a batch of refused lines would cost each of them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answers::{into_jobs, refuse};
use super::core::Core;
use super::job::{Job, Op};
use super::{blocking, refusal_of};
use crate::bindings::refusal::Refusal;
use crate::bindings::seam::Grants;

/// For so long after a group that did not fit, the next is looked at first.
const TIGHT_FOR: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Tight {
    until: Option<Instant>,
    /// Jobs that wait for a group of their own; those in front came first.
    more: VecDeque<Vec<Job>>,
}

impl Tight {
    pub(super) fn begin(&mut self) {
        self.until = Some(Instant::now() + TIGHT_FOR);
    }

    pub(super) fn is_on(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    /// Before all others that were put off.
    pub(super) fn put_off(&mut self, jobs: Vec<Job>) {
        if !jobs.is_empty() {
            self.more.push_front(jobs);
        }
    }

    pub(super) fn has_more(&self) -> bool {
        !self.more.is_empty()
    }

    /// What is next, at most so many.
    pub(super) fn next(&mut self, most: usize) -> Vec<Job> {
        let mut next = self.more.pop_front().unwrap_or_default();
        self.put_off(next.split_off(most.min(next.len())));
        next
    }
}

/// Refuses the jobs whose grants find no place, and gives those that may: of a group in which each credential is
/// written once, and nothing is deleted beside what is put. The rest is put off.
pub(super) async fn sift(mut core: Box<Core>, jobs: Vec<Job>, grants: &dyn Grants) -> (Box<Core>, Vec<Job>) {
    let (jobs, rest) = first_run(jobs);
    core.tight.put_off(rest);
    let now = core.shared.clock.now();
    let (epoch, policy) = grants.policy();
    let view = core.shared.view_of(epoch, &policy);
    let decided;
    (core, decided) = blocking(core, move |core| {
        let group = core.group(jobs, None, &view, now).map_err(|(jobs, _)| jobs)?;
        let changes = group.asks((&view, None), now).in_force;
        Ok((into_jobs(group), changes))
    })
    .await;
    let (jobs, changes) = match decided {
        Ok(decided) => decided,
        // Whoever makes them durable is told by the store why not.
        Err(jobs) => return (core, jobs),
    };
    let refused: HashMap<Arc<str>, _> = grants.sift(epoch, changes).await.into_iter().collect();
    if refused.is_empty() {
        return (core, jobs);
    }
    core.tight.begin();
    let mut kept = Vec::with_capacity(jobs.len());
    for job in jobs {
        match refusal_for(&job, |owner| refused.get(owner).map(refusal_of)) {
            Some(refusal) => refuse(job, &refusal),
            None => kept.push(job),
        }
    }
    (core, kept)
}

fn refusal_for(job: &Job, refused: impl Fn(&str) -> Option<Refusal>) -> Option<Refusal> {
    match job {
        Job::Binding(job) => refused(&job.credential.owner()),
        _ => None,
    }
}

/// Jobs up to the first that deletes after others put, or the other way, or whose credential is among them already.
fn first_run(mut jobs: Vec<Job>) -> (Vec<Job>, Vec<Job>) {
    let mut known = HashSet::new();
    let mut deletes = None;
    let end = jobs.iter().position(|job| {
        let Job::Binding(job) = job else { return false };
        let is_delete = matches!(job.op, Op::Delete { .. });
        *deletes.get_or_insert(is_delete) != is_delete || !known.insert(job.credential.owner())
    });
    let rest = end.map_or_else(Vec::new, |end| jobs.split_off(end));
    (jobs, rest)
}
