//! The writer: the one task that changes anything. Takes what waits, makes it one group, one commit, one change of the
//! kernel.
//!
//! Single requests and what timers and sweeps ask for are a group of their own; behind it comes one of at most a chunk of
//! a batch, and a full sync goes on by a slice. So neither makes another publisher's request wait for more than a slice.
//! While nobody else asks for anything, a batch's next group is decided while the kernel takes the one before: `ahead`.

mod ahead;
mod answers;
mod change_file;
mod core;
pub(crate) mod denies;
mod detached;
mod dry;
mod durable;
mod effects;
mod fold;
mod ground;
mod group;
mod groups;
pub(crate) mod job;
mod large;
mod pace;
mod pass;
pub(crate) mod reserve;
pub(crate) mod restore;
mod room;
mod slices;
mod steps;
mod successes;
mod sweep;
pub(crate) mod sync;
mod syncs;
mod tight;
mod timers;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use self::answers::{refusal_of, refuse};
use self::core::{Core, Failed};
use super::audit::Audit;
use super::clock::Now;
use super::model::allowance::PolicyView;
use super::refusal::Refusal;
use super::seam::Grants;
use super::shared::{Phase, Shared};
use super::store::Dirty;
use denies::{DenyJob, DenyOp};
use groups::{decide, put_in_force};
use job::{BindingJob, Job};
use pace::Pace;
use syncs::Syncs;

/// Single requests in one group.
const SINGLES_A_GROUP: usize = 256;
/// Lines of a batch in one group.
pub(crate) const LINES_A_CHUNK: usize = 4_096;
/// Timers and sweeps in one group.
const REVIEWS_A_GROUP: usize = 1_024;
/// How often a group is decided anew because the policy changes under it.
const ATTEMPTS_MAX: u32 = 8;
/// The longest sleep: a suspend of the machine is noticed after it.
const TURN: Duration = Duration::from_secs(1);

/// The one task that changes the store; the daemon spawns it.
pub struct Writer {
    core: Box<Core>,
    singles: mpsc::Receiver<Job>,
    chunks: mpsc::Receiver<Vec<BindingJob>>,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        audit: Audit,
        (revision, dirty): (u64, Dirty),
        singles: mpsc::Receiver<Job>,
        chunks: mpsc::Receiver<Vec<BindingJob>>,
    ) -> Writer {
        Writer {
            core: Box::new(Core::new(shared, audit, revision, dirty)),
            singles,
            chunks,
        }
    }

    /// Takes changes from the call on, and decides them until `stop` says true; then those that wait already.
    pub fn run(
        self,
        grants: Arc<dyn Grants>,
        stop: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let shared = &self.core.shared;
        // Set once: there is one writer.
        let _ = shared.grants.set(Arc::clone(&grants));
        let (epoch, policy) = grants.policy();
        shared.view_of(epoch, &policy);
        shared.set_phase(Phase::Running);
        self.decide_all(grants, stop)
    }

    async fn decide_all(mut self, grants: Arc<dyn Grants>, mut stop: watch::Receiver<bool>) {
        let shared = Arc::clone(&self.core.shared);
        let mut core = self.core;
        let counting = Arc::clone(&shared);
        let counting = tokio::task::spawn_blocking(move || counting.store.count_buried());
        let mut pace = Pace::new();
        // What is left of the chunk under way.
        let mut chunk: VecDeque<BindingJob> = VecDeque::new();
        let mut syncs = Syncs::default();
        let mut stopping = false;
        loop {
            let mut jobs = syncs.released();
            let at_once = !chunk.is_empty() || !jobs.is_empty() || core.tight.has_more() || syncs.is_ready();
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop), if !stopping => stopping = true,
                Some(job) = self.singles.recv() => jobs.push(job),
                () = std::future::ready(()), if at_once || (stopping && syncs.is_idle()) => {}
                Some(lines) = self.chunks.recv() => chunk.extend(lines),
                () = shared.nudge.notified() => {}
                () = tokio::time::sleep(core.sleep()) => {}
            }
            if stopping {
                shared.set_phase(Phase::Draining);
                self.singles.close();
                self.chunks.close();
            }
            while jobs.len() < SINGLES_A_GROUP
                && let Ok(job) = self.singles.try_recv()
            {
                jobs.push(job);
            }
            let started = Instant::now();
            if !jobs.is_empty() {
                pace.single(started);
            }
            let most = pace.lines(started);
            fill(&mut chunk, most, &mut self.chunks);
            let more = core.tight.next(most);
            let idle = jobs.is_empty() && chunk.is_empty() && more.is_empty();
            // What was put off comes before the rest of its chunk.
            let lines = match more.is_empty() {
                true => most.min(chunk.len()),
                false => 0,
            };
            let of_chunk = chunk.drain(..lines).map(Job::Binding).collect();
            let mut took = (1, lines + more.len());
            let rows = pace.fold_rows(started);
            // More lines, where they are there already and nobody else waits.
            let next = || {
                if *stop.borrow() || !self.singles.is_empty() {
                    return Vec::new();
                }
                fill(&mut chunk, most, &mut self.chunks);
                let lines = most.min(chunk.len());
                took = (took.0 + u32::from(lines > 0), took.1 + lines);
                chunk.drain(..lines).map(Job::Binding).collect()
            };
            let next = pace.is_alone(started).then_some(next);
            core = turn(core, (jobs, of_chunk, more), next, &mut syncs, rows, &grants).await;
            pace.took(took, started, started.elapsed());
            if stopping && idle && syncs.is_idle() {
                break;
            }
        }
        // Who asks first counts where this has failed. The store is closed with its end.
        drop(counting.await);
        end(core).await;
    }
}

/// Lines for a group, as far as they have come.
fn fill(chunk: &mut VecDeque<BindingJob>, lines: usize, chunks: &mut mpsc::Receiver<Vec<BindingJob>>) {
    while chunk.len() < lines
        && let Ok(more) = chunks.try_recv()
    {
        chunk.extend(more);
    }
}

/// Writes what was put off.
async fn end(mut core: Box<Core>) {
    let now = core.shared.clock.now();
    let flush = move || {
        core.flush_renewals(now, true);
        core.store_head();
    };
    if tokio::task::spawn_blocking(flush).await.is_err() {
        tracing::error!("the audit log could not be closed");
    }
}

/// One turn: what came singly, and what is due; lines of a batch; what was put off, a step of a sync, and so many rows of
/// the fold.
async fn turn(
    mut core: Box<Core>,
    (jobs, lines, more): (Vec<Job>, Vec<Job>, Vec<Job>),
    next: Option<impl FnMut() -> Vec<Job>>,
    syncs: &mut Syncs,
    rows: usize,
    grants: &Arc<dyn Grants>,
) -> Box<Core> {
    let idle = jobs.is_empty() && lines.is_empty() && more.is_empty() && syncs.is_idle();
    let mut waiting = Vec::new();
    for job in jobs {
        let Some(job) = syncs.hold(job) else { continue };
        match job {
            Job::Sync(job) => syncs.wait(job),
            Job::Restore(job) => {
                // In its place among the others.
                core = decide(core, std::mem::take(&mut waiting), grants.as_ref()).await;
                core = restore::restore(core, job, grants.as_ref()).await;
            }
            job => waiting.push(job),
        }
    }
    let now = core.shared.clock.now();
    if core.renewals.is_due(now.wall_ms) {
        core = blocking(core, move |core| core.flush_renewals(now, false))
            .await
            .0;
    }
    core.reserve.hold();
    core.tell_space();
    let (epoch, policy) = grants.policy();
    let view = core.shared.view_of(epoch, &policy);
    let ended;
    (core, ended) = successes::count(core, now).await;
    waiting.extend(ended.into_iter().filter(|job| !syncs.put_off(job)));
    let due = core.due(&view, now);
    waiting.extend(due.into_iter().filter(|job| !syncs.put_off(job)));
    if !waiting.is_empty() {
        core = decide(core, waiting, grants.as_ref()).await;
    }
    let lines: Vec<Job> = lines.into_iter().filter_map(|job| syncs.hold(job)).collect();
    if !lines.is_empty() {
        let next = next.filter(|_| more.is_empty() && syncs.is_idle() && !core.tight.is_on());
        core = match next {
            Some(next) => ahead::decide(core, lines, next, grants.as_ref()).await,
            None => decide(core, lines, grants.as_ref()).await,
        };
    }
    let more: Vec<Job> = more.into_iter().filter_map(|job| syncs.hold(job)).collect();
    if !more.is_empty() {
        core = decide(core, more, grants.as_ref()).await;
    }
    if syncs.is_idle() {
        rearm(&mut core, grants.as_ref()).await;
    }
    core = syncs.step(core, rows, grants).await;
    if core.is_fold_due(idle) {
        core = blocking(core, move |core| core.fold(rows)).await.0;
    }
    core
}

/// Tells the kernel its ends anew, where the machine has slept.
async fn rearm(core: &mut Core, grants: &dyn Grants) {
    let now = core.shared.clock.now();
    let (epoch, policy) = grants.policy();
    let view = core.shared.view_of(epoch, &policy);
    let standby = core.shared.standby_of(grants);
    let changes = core.sweep_ends((&view, standby.as_deref()), now);
    if changes.is_empty() {
        return;
    }
    match grants.change(epoch, changes).await {
        Ok(()) => core.shared.settle(),
        Err(error) => {
            tracing::warn!("ends after a suspend: {error}; trying again");
            core.sweep_ends_again();
        }
    }
}

/// Work that blocks, off the runtime's threads; a panic in it goes on here.
async fn blocking<T: Send + 'static>(
    mut core: Box<Core>,
    work: impl FnOnce(&mut Core) -> T + Send + 'static,
) -> (Box<Core>, T) {
    let worked = tokio::task::spawn_blocking(move || {
        let answer = work(&mut core);
        (core, answer)
    });
    match worked.await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

impl Core {
    fn sleep(&self) -> Duration {
        if self.sweeps.is_under_way() || self.fold.is_under_way() {
            return Duration::ZERO;
        }
        let now = self.shared.clock.now();
        let next = self.timers.next_in_ms(now.boot_ms);
        next.map_or(TURN, |next| TURN.min(Duration::from_millis(next)))
    }

    /// What time and a new policy ask for.
    fn due(&mut self, view: &PolicyView, now: Now) -> Vec<Job> {
        if self.shared.applied.swap(false, Ordering::AcqRel) {
            self.sweeps.policy_changed();
            self.find();
        }
        self.sweeps.notice(now);
        let mut jobs = self.sweep_policy(view, now);
        let room = REVIEWS_A_GROUP.saturating_sub(jobs.len());
        for (publisher, credential) in self.timers.due(now.boot_ms, room) {
            jobs.push(Job::Binding(BindingJob::review(publisher, credential)));
        }
        for name in self.shared.denies.load().over(now) {
            jobs.push(Job::Deny(DenyJob {
                name,
                op: DenyOp::Remove,
                actor: None,
                reply: None,
            }));
        }
        jobs
    }

    /// Why nothing is taken that needs more room, where no space is kept back.
    fn no_growth(&self) -> Option<Refusal> {
        let detail = "the disk of the state folder is full: deletes, denies and renewals alone are taken";
        (!self.reserve.is_held()).then(|| Refusal::new(self.full, detail))
    }

    /// Without space kept back, only what needs no more room is taken.
    fn without_growth(&self, jobs: Vec<Job>) -> Vec<Job> {
        let Some(refusal) = self.no_growth() else {
            return jobs;
        };
        let mut kept = Vec::with_capacity(jobs.len());
        for job in jobs {
            let grows = match &job {
                Job::Binding(job) => self.grows(job),
                Job::Sync(_) | Job::Restore(_) => true,
                // Few and small; whom to keep out must not wait for space.
                Job::Deny(_) | Job::Note(..) => false,
            };
            match grows {
                true => refuse(job, &refusal),
                false => kept.push(job),
            }
        }
        kept
    }

    /// A PUT of equal content is a renewal.
    fn grows(&self, job: &BindingJob) -> bool {
        let job::Op::Put { wanted, .. } = &job.op else {
            return false;
        };
        let row = self.shared.memory.get(&job.publisher, &job.credential);
        row.is_none_or(|row| row.content != wanted.content)
    }

    /// The jobs that are worth another attempt; the others are refused.
    fn after_failure(&mut self, failed: Failed) -> Option<Vec<Job>> {
        if failed.full {
            self.full = failed.refusal.code;
        }
        if failed.full && self.reserve.release() {
            return Some(failed.jobs);
        }
        self.refuse_all(failed.jobs, &failed.refusal);
        None
    }

    fn refuse_all(&mut self, jobs: Vec<Job>, refusal: &Refusal) {
        let now = self.shared.clock.now();
        for job in jobs {
            // Nobody else would come back to it.
            if let Job::Binding(BindingJob {
                op: job::Op::Review,
                publisher,
                credential,
                ..
            }) = &job
            {
                self.timers.add(now.boot_ms + 1_000, publisher, credential);
            }
            refuse(job, refusal);
        }
    }
}
