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
use super::told::counted;
use super::{Answer, Command, Commands, Engine};
use crate::policy::Policy;

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
}

impl FileState {
    pub(super) fn show(&self, snapshot: &mut Snapshot) {
        snapshot.policy.reload_ok = self.error.is_none();
        snapshot.policy.last_error.clone_from(&self.error);
        snapshot.policy.file_differs = self.hash.as_ref() != Some(&snapshot.policy.hash);
        if self.error.is_some() {
            let sentence = match self.at_start {
                true => "the policy file is invalid; the last confirmed policy serves for all",
                false => "the last reload failed; what was in force before still is",
            };
            snapshot.not_ready.push(sentence.to_owned());
        }
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
        if let Ok(mut slot) = self.shared.policy.write() {
            *slot = (slot.0 + 1, Arc::clone(&self.policy));
        }
        self.say_applied();
        self.hash = proposed.hash;
        self.wall_offset = wall_offset;
        self.watch.behind = None;
        self.refresh_reader();
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

    /// The policy in force is confirmed: nothing comes back.
    pub(super) fn confirm(&mut self, answer: Settled) {
        drop(answer.send(self.nothing_pending()));
    }

    /// What was in force before the pending policy comes back at once.
    pub(super) fn revert(&mut self, answer: Settled) {
        drop(answer.send(self.nothing_pending()));
    }

    fn nothing_pending(&self) -> Result<(), ReloadError> {
        Err(ReloadError::NothingPending)
    }
}
