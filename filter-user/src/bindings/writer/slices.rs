//! The steps of a large sync: store, kernel, commit, rows; and back, where one is refused.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::core::Core;
use super::large::Large;
use super::pass::{Pass, Way};
use super::sync::SyncJob;
use super::syncs::Step;
use super::{ATTEMPTS_MAX, blocking, refusal_of};
use crate::bindings::clock::Now;
use crate::bindings::lost;
use crate::bindings::model::allowance::PolicyView;
use crate::bindings::refusal::{Code, Refusal};
use crate::bindings::requests::{Answer, SyncSummary};
use crate::bindings::seam::{Changes, GrantError, Grants};

/// Revisions that others may still use when a sync gives up.
const BEYOND_MIN: u64 = 1 << 14;
/// Rows that are staged or placed at once, at most.
const ROWS: usize = 1_024;
/// Rows that the kernel is asked for at once: the engine does nothing else meanwhile.
const ROWS_ASKED: usize = 512;

type Asked = oneshot::Receiver<Result<(), GrantError>>;

/// How far a large one is.
pub(super) enum Stage {
    Store(usize),
    Kernel(Pass),
    /// The engine has been asked for what the pass says, or for all that is left.
    Asked(Pass, Asked),
    Place(usize),
    /// The kernel is taken back, then the store.
    Back(Refusal, Pass, u32),
    AskedBack(Refusal, Pass, u32, Asked),
    Unstage(Refusal, usize),
}

/// The core again, what is next, or what the sync is answered.
pub(super) type Next = (
    Box<Core>,
    Option<Step>,
    Option<(Box<SyncJob>, Answer<SyncSummary>)>,
);

/// A large one, for one step.
pub(super) struct Hand<'g> {
    core: Box<Core>,
    job: Box<SyncJob>,
    large: Box<Large>,
    view: Arc<PolicyView>,
    standby: Option<Arc<PolicyView>>,
    epoch: u64,
    now: Now,
    rows: usize,
    grants: &'g Arc<dyn Grants>,
}

impl<'g> Hand<'g> {
    /// `rows` are what a single write may wait for.
    pub(super) fn of(
        core: Box<Core>,
        job: Box<SyncJob>,
        large: Box<Large>,
        rows: usize,
        grants: &'g Arc<dyn Grants>,
    ) -> Hand<'g> {
        let (epoch, policy) = grants.policy();
        Hand {
            view: core.shared.view_of(epoch, &policy),
            standby: core.shared.standby_of(grants.as_ref()),
            now: core.shared.clock.now(),
            core,
            job,
            large,
            epoch,
            rows: rows.min(ROWS),
            grants,
        }
    }

    pub(super) async fn step(self, stage: Stage) -> Next {
        match stage {
            Stage::Store(at) => self.store(at).await,
            Stage::Kernel(pass) => self.kernel(pass).await,
            Stage::Asked(pass, asked) => self.asked(pass, asked),
            Stage::Place(at) => self.place(at).await,
            Stage::Back(refusal, pass, tries) => self.back(refusal, pass, tries),
            Stage::AskedBack(refusal, pass, tries, asked) => self.asked_back(refusal, pass, tries, asked),
            Stage::Unstage(refusal, left) => self.unstage(refusal, left).await,
        }
    }

    fn on(self, stage: Stage) -> Next {
        (self.core, Some(Step::Large(self.job, self.large, stage)), None)
    }

    fn over(self, answer: Answer<SyncSummary>) -> Next {
        let large = self.large;
        // As large as the sync.
        tokio::task::spawn_blocking(move || drop(large));
        (self.core, None, Some((self.job, answer)))
    }

    /// Work that blocks, with all of it at hand.
    async fn blocking<T: Send + 'static>(
        self,
        work: impl FnOnce(&mut Core, &mut Large, &SyncJob, Now) -> T + Send + 'static,
    ) -> (Self, T) {
        let Hand {
            core,
            job,
            mut large,
            view,
            standby,
            epoch,
            now,
            rows,
            grants,
        } = self;
        let (core, (large, job, answer)) = blocking(core, move |core| {
            let answer = work(core, &mut large, &job, now);
            (large, job, answer)
        })
        .await;
        let hand = Hand {
            core,
            job,
            large,
            view,
            standby,
            epoch,
            now,
            rows,
            grants,
        };
        (hand, answer)
    }

    /// Why it gives up, where others have used up the revisions before its own.
    fn overtaken(&self) -> Option<Refusal> {
        let detail = "more than a million changes came meanwhile: ask again";
        let overtaken = !self.large.leaves(self.core.revision, BEYOND_MIN);
        overtaken.then(|| Refusal::new(Code::Busy, detail))
    }

    async fn store(self, at: usize) -> Next {
        if let Some(refusal) = self.overtaken() {
            return self.on(Stage::Unstage(refusal, at));
        }
        let end = at.saturating_add(self.rows).min(self.large.staged_len());
        if at == end {
            self.large.announce();
            return self.on(Stage::Kernel(Pass::begin(Way::There)));
        }
        let staging = self.blocking(move |core, large, _, now| core.stage(large, at..end, now));
        let (mut hand, staged) = staging.await;
        let stage = match staged {
            Ok(()) => Stage::Store(end),
            // It may have taken after all.
            Err(fault) => Stage::Unstage(hand.core.fault(&fault), end),
        };
        hand.on(stage)
    }

    async fn kernel(mut self, pass: Pass) -> Next {
        if let Some(refusal) = self.overtaken() {
            return self.take_back(refusal);
        }
        match self
            .large
            .ask(pass, ROWS_ASKED, (&self.view, self.standby.as_deref()), self.now)
        {
            Some((changes, pass)) if changes.is_empty() => self.on(Stage::Kernel(pass)),
            Some((changes, pass)) => {
                let asked = self.ask(changes);
                self.on(Stage::Asked(pass, asked))
            }
            None => {
                let committing = self.blocking(|core, large, job, now| core.commit(large, job, now));
                let (mut hand, committed) = committing.await;
                let Err(fault) = committed else {
                    return hand.on(Stage::Place(0));
                };
                let refusal = hand.core.fault(&fault);
                hand.take_back(refusal)
            }
        }
    }

    /// Asks the engine while others' groups go on, and before these are short of room.
    fn ask(&self, changes: Changes) -> Asked {
        let changes = Changes {
            patient: true,
            ..changes
        };
        let shared = Arc::clone(&self.core.shared);
        let changed = self.grants.change(self.epoch, changes);
        let (done, asked) = oneshot::channel();
        tokio::spawn(async move {
            let taken = changed.await;
            // Whoever asks what is to hold has been told of it before. Not when the writer comes to it: that may wait for
            // the engine, and the engine for this.
            if taken.is_ok() {
                shared.settle();
            }
            // A writer that is gone needs no answer.
            let _ = done.send(taken);
            shared.nudge.notify_one();
        });
        asked
    }

    fn asked(mut self, pass: Pass, mut asked: Asked) -> Next {
        match asked.try_recv() {
            Err(TryRecvError::Empty) => self.on(Stage::Asked(pass, asked)),
            Ok(Ok(())) => self.on(Stage::Kernel(pass)),
            // Under the new one from the beginning: what is there already costs little.
            Ok(Err(GrantError::PolicyChanged)) => self.on(Stage::Kernel(Pass::begin(Way::There))),
            // What goes makes room: only the whole tells whether it fits.
            Ok(Err(
                GrantError::TableFull { .. }
                | GrantError::TableKept { .. }
                | GrantError::TooManyOwners { .. },
            )) if !pass.removals && self.large.removes() => {
                let (changes, pass) = self
                    .large
                    .ask_whole((&self.view, self.standby.as_deref()), self.now);
                let asked = self.ask(changes);
                self.on(Stage::Asked(pass, asked))
            }
            Ok(Err(error)) => self.take_back(refusal_of(&error)),
            Err(TryRecvError::Closed) => self.take_back(lost()),
        }
    }

    async fn place(mut self, at: usize) -> Next {
        let end = at.saturating_add(self.rows).min(self.large.rows());
        if at < end {
            let placing = self.blocking(move |core, large, _, now| core.place(large, at..end, now));
            return placing.await.0.on(Stage::Place(end));
        }
        self.core.placed(&self.large, self.now);
        let summary = self.large.summary.clone();
        self.over(Ok(summary))
    }

    /// The kernel is to hold what it held before.
    fn take_back(self, refusal: Refusal) -> Next {
        self.large.shelf.withdraw();
        self.on(Stage::Back(refusal, Pass::begin(Way::Back), 0))
    }

    fn back(mut self, refusal: Refusal, pass: Pass, tries: u32) -> Next {
        match self
            .large
            .ask(pass, ROWS_ASKED, (&self.view, self.standby.as_deref()), self.now)
        {
            Some((changes, pass)) if changes.is_empty() => self.on(Stage::Back(refusal, pass, tries)),
            Some((changes, pass)) => {
                let asked = self.ask(changes);
                self.on(Stage::AskedBack(refusal, pass, tries, asked))
            }
            None => {
                let staged = self.large.staged_len();
                self.on(Stage::Unstage(refusal, staged))
            }
        }
    }

    fn asked_back(self, refusal: Refusal, pass: Pass, tries: u32, mut asked: Asked) -> Next {
        match asked.try_recv() {
            Err(TryRecvError::Empty) => self.on(Stage::AskedBack(refusal, pass, tries, asked)),
            Ok(Ok(())) => self.on(Stage::Back(refusal, pass, tries)),
            // What the kernel holds judges nothing any more.
            Ok(Err(GrantError::Detached)) => self.on(Stage::Back(refusal, pass, tries)),
            Ok(Err(GrantError::PolicyChanged)) if tries < ATTEMPTS_MAX => {
                self.on(Stage::Back(refusal, Pass::begin(Way::Back), tries + 1))
            }
            failed => {
                let text = "a sync that was refused is in force in part, until the policy is applied again";
                tracing::error!(?failed, "{text}");
                let staged = self.large.staged_len();
                self.on(Stage::Unstage(refusal, staged))
            }
        }
    }

    async fn unstage(self, refusal: Refusal, left: usize) -> Next {
        if left == 0 {
            self.large.forget_file();
            return self.over(Err(refusal));
        }
        let from = left.saturating_sub(self.rows);
        let undoing = self.blocking(move |core, large, _, now| core.unstage(large, from..left, now));
        let (hand, undone) = undoing.await;
        // What failed is owed, all of it.
        let left = if undone.is_ok() { from } else { 0 };
        hand.on(Stage::Unstage(refusal, left))
    }
}
