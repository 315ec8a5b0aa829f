//! A reload: the policy file read and tried, and what is said once it is in force or is not.

use std::path::PathBuf;
use std::sync::Arc;

use super::error::FilterError;
use super::gate::{load_policy, refusal, unexpected};
use super::snapshot::{Applied, ReloadError, View as _};
use super::told::{counted, restart_keys, warnings};
use super::{Answer, Engine};
use crate::judge::both::JudgeError;
use crate::policy::{self, Colour, Policy};

/// A policy that may come into force.
pub(super) struct Read {
    pub(super) policy: Arc<Policy>,
    hash: String,
    warnings: Vec<String>,
}

/// Reads the file, and tries what it expects.
pub(super) async fn read(file: PathBuf, in_force: Arc<Policy>) -> Result<Read, ReloadError> {
    let mut loaded = tokio::task::spawn_blocking(move || load_policy(&file))
        .await
        .map_err(|error| ReloadError::Failed(format!("reading the policy: {error}")))?;
    if let Some(why) = &loaded.unreadable {
        return Err(ReloadError::Failed(why.clone()));
    }
    if let Some(refusal) = refusal(&loaded) {
        return Err(ReloadError::Invalid(refusal));
    }
    let Some(policy) = loaded.policy.take() else {
        return Err(ReloadError::Invalid(policy::render(&loaded, Colour::Never)));
    };
    let mut warnings = warnings(&loaded);
    let (hash, policy) = (loaded.hash, Arc::new(policy));
    // As large as all sources.
    drop(loaded.files);
    let tried = Arc::clone(&policy);
    let tried = tokio::task::spawn_blocking(move || unexpected(&tried))
        .await
        .map_err(|error| ReloadError::Failed(format!("trying what the policy expects: {error}")))?;
    match tried {
        Ok(None) => {}
        Ok(Some(faults)) => return Err(ReloadError::Invalid(faults)),
        Err(JudgeError::Compile(error)) => return Err(ReloadError::Invalid(error.to_string())),
        Err(error) => return Err(ReloadError::Failed(error.to_string())),
    }
    warnings.extend(restart_keys(&in_force, &policy));
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    Ok(Read {
        policy,
        hash,
        warnings,
    })
}

pub(super) fn failed(error: FilterError) -> ReloadError {
    match error {
        FilterError::Compile(error) => ReloadError::Invalid(error.to_string()),
        error => ReloadError::Failed(error.to_string()),
    }
}

impl Engine {
    /// Its tables are in force: all others are told.
    pub(super) fn reload_in_force(&mut self, answers: Vec<Answer>, read: Read, wall_offset: i128) {
        let clients = read.policy.clients.len();
        let detail = format!(
            "{} and {} in force as generation {}",
            counted(read.policy.services.len(), "service"),
            counted(clients, "client"),
            self.filter.generation()
        );
        let before = std::mem::replace(&mut self.policy, read.policy);
        if let Ok(mut slot) = self.shared.policy.write() {
            *slot = (slot.0 + 1, Arc::clone(&self.policy));
        }
        self.say_applied();
        self.hash = read.hash;
        self.wall_offset = wall_offset;
        self.watch.behind = None;
        self.refresh_reader();
        let applied = Applied {
            detail,
            clients,
            warnings: read.warnings,
        };
        self.reloaded(answers, Ok(applied));
        // As large as all sources.
        tokio::task::spawn_blocking(|| drop(before));
    }

    /// Says what became of a reload, to all who asked for it.
    pub(super) fn reloaded(&mut self, answers: Vec<Answer>, result: Result<Applied, ReloadError>) {
        let mut state = self.shared.snapshot().policy.clone();
        match &result {
            Ok(applied) => {
                state.reload_ok = true;
                state.last_error = None;
                state.file_differs = false;
                state.hash = self.hash.clone();
                state.in_force_since = jiff::Timestamp::now();
                tracing::info!(hash = %self.hash, generation = self.filter.generation(), "reload: {}", applied.detail);
            }
            Err(error) => {
                state.reload_ok = false;
                state.last_error = Some(error.to_string());
                state.file_differs = true;
                tracing::error!("reload changed nothing: {error}");
            }
        }
        self.publish(state);
        for answer in answers {
            // Who asked may have gone; what was done stands either way.
            let _ = answer.send(result.clone());
        }
    }
}
