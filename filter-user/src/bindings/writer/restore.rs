//! A backup in place of what is there: the writer swaps the store between two groups.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::core::Core;
use crate::bindings::refusal::{Code, Refusal};
use crate::bindings::requests::{Actor, Answer};
use crate::bindings::seam::Grants;

/// Asks for a restore. The file was judged to be a store before.
pub(crate) struct RestoreJob {
    pub(crate) from: PathBuf,
    pub(crate) trust: bool,
    pub(crate) actor: Arc<Actor>,
    pub(crate) reply: oneshot::Sender<Answer<()>>,
}

pub(super) async fn restore(core: Box<Core>, job: RestoreJob, _grants: &dyn Grants) -> Box<Core> {
    let _ = (job.from, job.trust, job.actor);
    let _ = job
        .reply
        .send(Err(Refusal::new(Code::Unavailable, "not in this build")));
    core
}
