//! A policy put in force: what is proposed, what became of it, and what waits to be confirmed.
//!
//! Who proposes has read the policy, found it free of faults and tried what it expects; the engine makes its tables and
//! swaps. With `confirm`, the policy in force before stands by until it is confirmed (`View::confirm`), and comes back by itself.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::oneshot;

use super::error::FilterError;
use super::snapshot::{Applied, ReloadError, Snapshot, View as _};
use super::standby::{Before, left_until};
use super::told::counted;
use super::under_way::{Purpose, UnderWay};
use super::{Answer, Command, Commands, Engine};
use crate::bindings::seam::GrantError;
use crate::kernel::clock;
use crate::policy::Policy;

/// Why no policy comes into force while one waits to be confirmed.
const UNCONFIRMED: &str = "a policy waits to be confirmed: `keyfence confirm` keeps it, `keyfence rollback` takes it back; \
                           then try again";

/// A policy that may come into force.
#[derive(Clone, Debug)]
pub struct Proposed {
    pub policy: Arc<Policy>,
    /// SHA-256 over its files, 64 hex digits.
    pub hash: String,
    /// Those of the policy, one a line, with its place.
    pub warnings: Vec<String>,
    /// The one before comes back unless it is confirmed within this time; `None` puts it in force for good.
    pub confirm: Option<Duration>,
}

/// A policy in force that waits to be confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pending {
    /// Of the policy in force.
    pub hash: String,
    /// Of the policy that comes back.
    pub base: String,
    /// When it does.
    pub deadline: jiff::Timestamp,
    /// The same in nanoseconds of CLOCK_MONOTONIC, by which the kernel goes.
    #[serde(skip)]
    pub deadline_ns: u64,
}

/// What became of the last reading of the file that `run` was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileState {
    /// What it failed on; `None` after one that succeeded.
    pub error: Option<String>,
    /// Whether that was at the start: then the last confirmed policy serves for all.
    pub at_start: bool,
    /// Of what it says; `None` where it is invalid.
    pub hash: Option<String>,
    /// Why it would not be taken, as it was seen last.
    pub fault: Option<String>,
    /// Why the policy that was confirmed last is not known, until another is: a sentence.
    pub lost: Option<String>,
    /// What the start could not open, a sentence each: it goes on without.
    pub unopened: Vec<String>,
}

impl FileState {
    /// It says what is in force.
    pub(super) fn of(hash: &str) -> Self {
        Self {
            hash: Some(hash.to_owned()),
            ..Self::default()
        }
    }

    pub(super) fn show(&self, snapshot: &mut Snapshot) {
        snapshot.policy.reload_ok = self.error.is_none();
        snapshot.policy.last_error.clone_from(&self.error);
        snapshot.policy.file_differs = self.hash.as_ref() != Some(&snapshot.policy.hash);
        snapshot.policy.file_error.clone_from(&self.fault);
        snapshot.not_ready.extend(self.lost.clone());
        if self.error.is_some() {
            let sentence = match self.at_start {
                true => "the policy file is invalid; the last confirmed policy serves for all",
                false => "the last reload failed; what was in force before still is",
            };
            snapshot.not_ready.push(sentence.to_owned());
        }
        snapshot.not_ready.extend(self.unopened.iter().cloned());
    }
}

/// Answers whoever settles what is pending.
pub(super) type Settled = oneshot::Sender<Result<(), ReloadError>>;

/// Asks the engine, and waits for its answer.
pub(super) async fn asked<T>(
    commands: Commands,
    command: impl FnOnce(oneshot::Sender<Result<T, ReloadError>>) -> Command,
) -> Result<T, ReloadError> {
    let (sender, answer) = oneshot::channel();
    let gone = || ReloadError::Failed(String::from("the daemon is stopping"));
    commands.send(command(sender)).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

pub(super) fn failed(error: FilterError) -> ReloadError {
    match error {
        FilterError::Compile(error) => ReloadError::Invalid(error.to_string()),
        error => ReloadError::Failed(error.to_string()),
    }
}

impl Engine {
    /// Its tables are in force: all others are told.
    pub(super) fn proposed_in_force(&mut self, answer: Answer, proposed: Proposed, wall_offset: i128) {
        let clients = proposed.policy.clients.len();
        let detail = format!(
            "{} and {} in force as generation {}",
            counted(proposed.policy.services.len(), "service"),
            counted(clients, "client"),
            self.filter.generation()
        );
        let before = std::mem::replace(&mut self.policy, proposed.policy);
        let standby = self.filter.before();
        self.shared
            .stands_by(standby.map(|before| (before.epoch, Arc::clone(&before.policy))));
        if let Ok(mut slot) = self.shared.policy.write() {
            *slot = (slot.0 + 1, Arc::clone(&self.policy));
        }
        self.say_applied();
        self.hash = proposed.hash;
        self.wall_offset = wall_offset;
        self.watch.behind = None;
        self.refresh_reader();
        self.say_pending();
        let applied = Applied {
            detail,
            clients,
            warnings: proposed.warnings,
        };
        self.proposal_ended(answer, Ok(applied));
        // As large as all sources.
        tokio::task::spawn_blocking(|| drop(before));
    }

    /// Says what became of a proposal.
    pub(super) fn proposal_ended(&mut self, answer: Answer, result: Result<Applied, ReloadError>) {
        let mut state = self.shared.snapshot().policy.clone();
        match &result {
            Ok(applied) => {
                state.hash = self.hash.clone();
                state.in_force_since = jiff::Timestamp::now();
                tracing::info!(hash = %self.hash, generation = self.filter.generation(), "policy: {}", applied.detail);
            }
            Err(error) => tracing::error!("what was in force stays so: {error}"),
        }
        self.publish(state);
        // Who asked may have gone; what was done stands either way.
        let _ = answer.send(result);
    }

    /// Begins to put a policy in force, unless another waits to be confirmed; nothing else is under way.
    pub(super) fn propose(&mut self, proposed: Box<Proposed>, answer: Answer) {
        match self.filter.before() {
            Some(_) => self.proposal_ended(answer, Err(ReloadError::Refused(UNCONFIRMED.to_owned()))),
            None => self.begin(Purpose::Apply(proposed, answer)),
        }
    }

    /// What is in force when a policy comes into force that has to be confirmed.
    pub(super) fn before(&self, purpose: &Purpose) -> Option<Before> {
        let Purpose::Apply(proposed, _) = purpose else {
            return None;
        };
        let confirm = u64::try_from(proposed.confirm?.as_nanos()).unwrap_or(u64::MAX);
        let (epoch, policy) = self.shared.policy_in_force();
        let effective = self.effective.as_ref();
        Some(Before {
            under: effective.map(|effective| effective.under(epoch, &policy)),
            policy,
            hash: self.hash.clone(),
            epoch,
            wall_offset: self.wall_offset,
            deadline: clock::precise().0.saturating_add(confirm),
        })
    }

    /// Tells all others what waits to be confirmed.
    fn say_pending(&self) {
        let pending = self.filter.before().map(|before| Pending {
            hash: self.hash.clone(),
            base: before.hash.clone(),
            deadline: jiff::Timestamp::now() + left_until(before.deadline),
            deadline_ns: before.deadline,
        });
        self.shared.pending.send_replace(pending);
    }

    /// The policy in force is confirmed: nothing comes back.
    pub(super) fn confirm(&mut self, answer: Settled) {
        let Some(standby) = self.filter.confirm() else {
            drop(answer.send(Err(ReloadError::NothingPending)));
            return;
        };
        self.shared.stands_by(None);
        self.say_pending();
        tracing::info!(hash = %self.hash, "policy: confirmed");
        // What was to be made in the tables that stood by is in force.
        if let Some(under_way) = self.under_way.take_if(|under_way| under_way.is_for_standby()) {
            if let Purpose::Standby(_, Some(answer)) = under_way.abandon() {
                self.changed(answer, Ok(()));
            }
            self.go_on();
        }
        self.publish(self.shared.snapshot().policy.clone());
        let _ = answer.send(Ok(()));
        tokio::task::spawn_blocking(|| drop(standby));
    }

    /// What was in force before the pending policy comes back at once.
    pub(super) fn revert(&mut self, answer: Settled) {
        let result = match self.come_back("taken back") {
            Ok(true) => Ok(()),
            Ok(false) => Err(ReloadError::NothingPending),
            Err(error) => Err(ReloadError::Failed(error.to_string())),
        };
        drop(answer.send(result));
    }

    /// Where the time is over in which the policy in force had to be confirmed, the one before is in force again.
    pub(super) fn not_confirmed(&mut self) {
        let due = self.filter.due();
        if due.is_some_and(|due| left_until(due).is_zero())
            && let Err(error) = self.come_back("not confirmed in time")
        {
            tracing::error!(
                "the policy before judges packets again, but the daemon could not follow ({error}): trying again"
            );
        }
    }

    /// Whether anything came back.
    fn come_back(&mut self, why: &str) -> Result<bool, FilterError> {
        let came_back = tokio::task::block_in_place(|| self.filter.come_back())?;
        let Some((before, gone)) = came_back else {
            return Ok(false);
        };
        tracing::warn!(
            hash = %self.hash, in_force = %before.hash, generation = self.filter.generation(),
            "policy: {why}: the one before is in force again"
        );
        let policy = std::mem::replace(&mut self.policy, before.policy);
        if let Ok(mut slot) = self.shared.policy.write() {
            *slot = (slot.0 + 1, Arc::clone(&self.policy));
        }
        self.shared.stands_by(None);
        self.say_applied();
        self.hash = before.hash;
        self.wall_offset = before.wall_offset;
        self.watch.look_anew();
        self.refresh_reader();
        let mut state = self.shared.snapshot().policy.clone();
        state.hash.clone_from(&self.hash);
        state.in_force_since = jiff::Timestamp::now();
        self.publish(state);
        self.say_pending();
        // Computed under the policy that is gone: who asked asks again.
        match self.under_way.take().map(UnderWay::abandon) {
            Some(Purpose::Change(_, answer) | Purpose::Standby(_, Some(answer))) => {
                self.changed(answer, Err(GrantError::PolicyChanged));
            }
            Some(Purpose::Apply(proposed, answer)) => self.proposed.push_front((proposed, answer)),
            Some(Purpose::Standby(_, None) | Purpose::Around(..) | Purpose::Room(..)) | None => {}
        }
        self.go_on();
        // As large as all sources.
        tokio::task::spawn_blocking(|| drop((policy, gone, before.under)));
        Ok(true)
    }
}
