//! A reload: the policy file read and tried, and what is said once it is in force or is not.

use std::path::PathBuf;
use std::sync::Arc;

use super::apply::Proposed;
use super::gate::{load_policy, refusal, unexpected};
use super::snapshot::ReloadError;
use super::told::{restart_keys, warnings};
use crate::judge::both::JudgeError;
use crate::policy::{self, Colour, Policy};

/// Reads the file, and tries what it expects.
pub(super) async fn read(file: PathBuf, in_force: Arc<Policy>) -> Result<Proposed, ReloadError> {
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
    Ok(Proposed {
        policy,
        hash,
        warnings,
        confirm: None,
    })
}
