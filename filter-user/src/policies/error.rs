//! Why a policy is not in force.

use super::guard::CutConnection;
use crate::engine::apply::Pending;
use crate::engine::snapshot::ReloadError;

/// Why a policy was not planned or put in force. What was in force stays so.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PolicyError {
    /// It has faults: all of them, as text.
    #[error("{0}")]
    Invalid(String),
    /// It would cut connections that stand.
    #[error("{}", refused(.0))]
    Refused(Vec<CutConnection>),
    #[error("policy {in_force} is in force, and not the one that this change was made for: plan it again")]
    Changed { in_force: String },
    #[error("policy {} waits to be confirmed until {}: confirm it, or roll it back for good, first", .0.hash, .0.deadline)]
    Pending(Pending),
    #[error("policy {pending} waits to be confirmed, and not the one that is named: nothing was done")]
    OtherPending { pending: String },
    #[error(
        "it was confirmed, rolled back, or its time ended, which a restart of the daemon does as well: `keyfence history`"
    )]
    NothingPending,
    /// The rollback was meant for a trial that has ended by itself.
    #[error(
        "nothing was done: policy {trial} has gone by itself, not confirmed in time or by a restart of the daemon, and \
         {in_force} is in force again. To go back further, to {earlier}: `keyfence rollback --force`"
    )]
    TrialOver {
        trial: String,
        in_force: String,
        earlier: String,
    },
    #[error(
        "nothing was done: what the kernel goes on with cannot be read any more, so that nothing could put it back in time. \
         Without --confirm-within, `keyfence apply` and `keyfence reload` let go of it for good"
    )]
    NoWayBack,
    #[error("no earlier policy was confirmed")]
    NothingEarlier,
    /// The disk has no room to keep it.
    #[error("{0}")]
    Full(String),
    /// The kernel or the disk refused.
    #[error("{0}")]
    Failed(String),
}

impl From<ReloadError> for PolicyError {
    fn from(error: ReloadError) -> PolicyError {
        match error {
            ReloadError::Invalid(faults) => PolicyError::Invalid(faults),
            ReloadError::NothingPending => PolicyError::NothingPending,
            error => PolicyError::Failed(error.to_string()),
        }
    }
}

fn refused(cut: &[CutConnection]) -> String {
    let lines: Vec<String> = cut.iter().map(ToString::to_string).collect();
    format!(
        "it would cut connections that stand, or those that follow them, and perhaps you off:\n  {}\nadd a [[management]] entry for the peer, or \
         apply it with --confirm-within, or with --force",
        lines.join("\n  ")
    )
}
