//! What the engine has begun and does not wait for: a generation on its way, for whoever asked for it.
//!
//! One at a time. Single changes of bindings go on meanwhile in the tables in force; whose they were is noted, and made
//! in the new tables before these take over. What cannot be changed singly waits, and so do further policies.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::apply::{self, Proposed};
use super::build::{Around, Next, Wanted};
use super::change::grant_error;
use super::compile::Occasion;
use super::error::FilterError;
use super::live::Stop;
use super::snapshot::View as _;
use super::watch::{Cause, Woken};
use super::{Answer, Changed, Engine};
use crate::bindings::seam::{BoxFuture, Change, Changes, Effective, Many};
use crate::compiler::{Keep, Pushed};
use crate::kernel::clock;

/// Owners and denies whose changes the engine makes in the new tables itself, right before these take over: within a
/// millisecond or two. More are made beside it.
const CHANGED_AT_LAST: usize = 128;
/// How often changes are made beside the engine, before it makes what is left, however much it is.
const ROUNDS_MAX: u32 = 16;
/// From so many rounds on, what is more than the engine makes itself waits for the tables that are nearly there: a batch
/// changes as much in each round as was made up for in the one before.
const ROUNDS_OF_MANY: u32 = 3;
/// How often a generation is made anew because changes made meanwhile do not fit it.
const TRIES_MAX: u32 = 4;
/// Far longer than the bindings take to make a change seen that is in force.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(30);

/// Why a generation is made.
pub(super) enum Purpose {
    /// A policy is to come into force.
    Apply(Box<Proposed>, Answer),
    /// What cannot be changed entry by entry.
    Change(Changes, Changed),
    /// The same in the tables that stand by, where those in force have it already: these are made anew.
    Standby(Vec<Change>, Option<Changed>),
    /// The host has changed around the policy.
    Around(Vec<Cause>, Instant),
    /// A table is to have more room, for so many in all.
    Room(&'static str, Many),
}

/// A generation, or why there is none.
pub(super) type Made = Result<Box<Next>, Halt>;

/// Why a generation was not made.
pub(super) enum Halt {
    /// Of changes made meanwhile, something did not fit it.
    Overtaken(Stop),
    Error(FilterError),
}

impl<E: Into<FilterError>> From<E> for Halt {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// Whose grants may have changed, and which denies.
#[derive(Debug, Default)]
struct Noted {
    owners: BTreeSet<String>,
    denies: BTreeSet<String>,
}

/// A generation on its way.
pub(super) struct UnderWay {
    work: BoxFuture<Made>,
    purpose: Purpose,
    /// What may have changed since it was begun and is not made in it yet.
    changed: Noted,
    tries: u32,
    rounds: u32,
    /// By which ends were worked out.
    wall_offset: i128,
    _waited_for: WaitedFor,
}

/// Its threads stop at the next step when nobody waits any more.
#[derive(Default)]
struct WaitedFor(Arc<AtomicBool>);

impl Drop for WaitedFor {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl UnderWay {
    fn new(purpose: Purpose, tries: u32, work: BoxFuture<Made>, waited_for: WaitedFor) -> Self {
        Self {
            work,
            purpose,
            changed: Noted::default(),
            tries,
            rounds: 0,
            wall_offset: clock::wall_offset(),
            _waited_for: waited_for,
        }
    }

    /// These may grant or deny something else from here on.
    pub(super) fn note(&mut self, changes: &Changes) {
        let Noted { owners, denies } = &mut self.changed;
        for change in changes.in_force.iter().chain(&changes.standby) {
            owners.extend(change.owner().map(|owner| owner.to_string()));
            denies.extend(change.deny().map(String::from));
        }
    }

    /// Whether these are to wait for it.
    pub(super) fn holds_up(&self, changes: &Changes) -> bool {
        self.rounds >= ROUNDS_OF_MANY && changes.in_force.len() > CHANGED_AT_LAST
    }

    pub(super) fn is_for_standby(&self) -> bool {
        matches!(self.purpose, Purpose::Standby(..))
    }

    /// What it was for; nobody waits for it any more.
    pub(super) fn abandon(self) -> Purpose {
        self.purpose
    }
}

/// Resolves when what is under way has come one step on; never, where nothing is.
pub(super) async fn step(under_way: &mut Option<UnderWay>) -> Made {
    match under_way {
        Some(under_way) => under_way.work.as_mut().await,
        None => std::future::pending().await,
    }
}

impl Engine {
    /// Begins a generation; nothing else is under way.
    pub(super) fn begin(&mut self, purpose: Purpose) {
        self.make(purpose, 1);
    }

    fn make(&mut self, purpose: Purpose, tries: u32) {
        let epoch = self.shared.policy_in_force().0;
        let standby = self.filter.before();
        let policy = Arc::clone(&self.policy);
        let (policy, occasion, epoch, changes) = match &purpose {
            Purpose::Apply(proposed, _) => {
                let policy = Arc::clone(&proposed.policy);
                (policy, Occasion::Reload, epoch + 1, Vec::new())
            }
            Purpose::Change(changes, _) => (policy, Occasion::Change, epoch, changes.in_force.clone()),
            Purpose::Standby(changes, _) => {
                let (policy, epoch) = standby.map_or((policy, epoch), |standby| {
                    (Arc::clone(&standby.policy), standby.epoch)
                });
                (policy, Occasion::Change, epoch, changes.clone())
            }
            Purpose::Around(..) | Purpose::Room(..) => (policy, Occasion::Change, epoch, Vec::new()),
        };
        let confirms = matches!(&purpose, Purpose::Apply(proposed, _) if proposed.confirm.is_some());
        let standby = standby.map(|standby| Arc::clone(&standby.policy));
        let wanted = Wanted {
            policy,
            keep: match confirms || standby.is_some() {
                true => Keep::All,
                false => Keep::Least,
            },
            // Names of a generation that is not known are the kernel's own.
            before: match self.filter.kept {
                true => Vec::new(),
                false => std::iter::once(Arc::clone(&self.policy)).chain(standby).collect(),
            },
            occasion,
            many: match &purpose {
                Purpose::Room(_, many) => *many,
                _ => Many::default(),
            },
        };
        let waited_for = WaitedFor::default();
        // All that is changed from here on is noted.
        let ground = self.filter.ground(Arc::clone(&waited_for.0));
        let numbers = self.filter.shared_numbers();
        let effective = self.effective.clone();
        let known = caught_up(effective.clone(), self.changes);
        let made = async move {
            let mut ground = ground?;
            known.await?;
            let around = Around::read(&wanted.policy, occasion).await?;
            beside(move || {
                let under = effective.map(|effective| effective.under(epoch, &wanted.policy));
                let (grantees, denies) = under.as_ref().map(|under| under.all()).unwrap_or_default();
                let mut pushed = Pushed::of(grantees, denies);
                changes.into_iter().for_each(|change| pushed.change(change));
                // Who came since the ground was laid has a number by now: with another, each would hold two until the
                // generation after, and the table of owners were full before it is.
                ground.numbers = super::filter::read(&numbers).clone();
                Ok(Next::make(wanted, (pushed, under), around, ground)?)
            })
            .await
        };
        let work = Box::pin(made);
        self.under_way = Some(UnderWay::new(purpose, tries, work, waited_for));
    }

    /// What was under way has come one step on.
    pub(super) async fn advance(&mut self, made: Made) {
        self.not_confirmed();
        let Some(under_way) = self.under_way.take() else {
            return;
        };
        match made {
            Ok(next) => {
                let changed = &under_way.changed;
                let many = changed.owners.len() + changed.denies.len() > CHANGED_AT_LAST;
                match many && under_way.rounds < ROUNDS_MAX {
                    true => self.follow(under_way, next),
                    false => self.put(under_way, next).await,
                }
            }
            Err(halt) => self.halted(under_way.purpose, under_way.tries, halt),
        }
        self.go_on();
        if self.under_way.is_none() && std::mem::take(&mut self.watch.missed) {
            self.watch(Woken::ByEvent).await;
        }
    }

    /// Has the changes made in the new tables that were made in those in force meanwhile.
    fn follow(&mut self, mut under_way: UnderWay, mut next: Box<Next>) {
        let Noted { owners, denies } = std::mem::take(&mut under_way.changed);
        let denies = self.filter.denies_of(denies);
        let numbers = self.filter.shared_numbers();
        let known = caught_up(self.effective.clone(), self.changes);
        let followed = async move {
            known.await?;
            beside(move || match next.catch_up(&owners, &denies, &numbers) {
                Ok(()) => Ok(next),
                Err(stop) => Err(Halt::Overtaken(stop)),
            })
            .await
        };
        under_way.rounds += 1;
        under_way.work = Box::pin(followed);
        self.under_way = Some(under_way);
    }

    /// The last changes, and the swap: nothing is changed in between.
    async fn put(&mut self, under_way: UnderWay, next: Box<Next>) {
        // The bindings' view of the policy is wanted once more when it is in force.
        let _under = next.under();
        match self.try_put(&under_way.purpose, under_way.changed, next).await {
            Ok(()) => self.in_force(under_way.purpose, under_way.wall_offset),
            Err(halt) => self.halted(under_way.purpose, under_way.tries, halt),
        }
    }

    async fn try_put(&mut self, purpose: &Purpose, changed: Noted, mut next: Box<Next>) -> Result<(), Halt> {
        let Noted { owners, denies } = changed;
        if !owners.is_empty() {
            caught_up(self.effective.clone(), self.changes).await?;
        }
        let denies = self.filter.denies_of(denies);
        let numbers = self.filter.shared_numbers();
        let before = self.before(purpose);
        let filter = &mut self.filter;
        // System calls for as long as a millisecond or two: the other tasks of this thread go on elsewhere.
        let parted = tokio::task::block_in_place(|| {
            if let Err(stop) = next.catch_up(&owners, &denies, &numbers) {
                tokio::task::spawn_blocking(|| drop(next));
                return Err(Halt::Overtaken(stop));
            }
            Ok(match purpose {
                Purpose::Standby(..) => filter.put_standby(next)?,
                _ => filter.put(next, before)?,
            })
        })?;
        tokio::task::spawn_blocking(|| {
            parted.let_go();
            crate::sys::give_back_memory();
        });
        Ok(())
    }

    fn in_force(&mut self, purpose: Purpose, wall_offset: i128) {
        match purpose {
            Purpose::Apply(proposed, answer) => self.proposed_in_force(answer, *proposed, wall_offset),
            Purpose::Change(changes, answer) => {
                self.refresh_reader();
                self.publish(self.shared.snapshot().policy.clone());
                match self.filter.before() {
                    Some(_) => self.begin(Purpose::Standby(changes.standby, Some(answer))),
                    None => self.changed(answer, Ok(())),
                }
            }
            Purpose::Standby(_, answer) => {
                self.filter.note_wall_offset(wall_offset);
                answer.into_iter().for_each(|answer| self.changed(answer, Ok(())));
            }
            Purpose::Around(causes, started) => {
                self.followed(&causes, started, wall_offset);
                if self.filter.before().is_some() {
                    self.begin(Purpose::Standby(Vec::new(), None));
                }
            }
            Purpose::Room(..) => {
                self.refresh_reader();
                self.publish(self.shared.snapshot().policy.clone());
            }
        }
    }

    fn halted(&mut self, purpose: Purpose, tries: u32, halt: Halt) {
        let error = match halt {
            Halt::Overtaken(stop) if tries < TRIES_MAX => {
                tracing::info!(
                    ?stop,
                    "what was pushed meanwhile does not fit the new tables: made again"
                );
                return self.make(purpose, tries + 1);
            }
            Halt::Overtaken(_) => FilterError::Overtaken(tries),
            Halt::Error(error) => error,
        };
        match purpose {
            Purpose::Apply(_, answer) => self.proposal_ended(answer, Err(apply::failed(error))),
            Purpose::Change(_, answer) => drop(answer.send(Err(grant_error(error)))),
            Purpose::Standby(_, answer) => self.standby_not_made(answer, error),
            Purpose::Around(causes, _) => self.not_followed(&causes, &error),
            Purpose::Room(table, _) => self.no_room_made(table, &error),
        }
    }

    /// What has waited.
    pub(super) fn go_on(&mut self) {
        while self.under_way.is_none()
            && let Some((epoch, changes, answer)) = self.waiting.pop_front()
        {
            self.change(epoch, changes, answer);
        }
        if self.under_way.is_none()
            && let Some((proposed, answer)) = self.proposed.pop_front()
        {
            self.propose(proposed, answer);
        }
    }
}

/// Waits until who pushes knows all that is in force: it is asked for it next.
async fn caught_up(effective: Option<Arc<dyn Effective>>, changes: u64) -> Result<(), FilterError> {
    let Some(effective) = effective else {
        return Ok(());
    };
    let waited = tokio::time::timeout(CATCH_UP_PATIENCE, effective.caught_up(changes)).await;
    waited.map_err(|_| FilterError::Behind)
}

/// On a thread that may block.
async fn beside(work: impl FnOnce() -> Result<Box<Next>, Halt> + Send + 'static) -> Result<Box<Next>, Halt> {
    match tokio::task::spawn_blocking(work).await {
        Ok(made) => made,
        Err(error) => Err(Halt::Error(FilterError::Panicked(error.to_string()))),
    }
}
