//! How jobs end: with what was decided, with a refusal, or as jobs again.

use super::group::{Answered, Group};
use super::job::Job;
use crate::bindings::refusal::{About, Code, Refusal};
use crate::bindings::seam::GrantError;
use crate::bindings::shared::Shared;

/// The jobs of a group that came to nothing, as they were.
pub(super) fn into_jobs(group: Group) -> Vec<Job> {
    let job = |answered| match answered {
        Answered::Binding(job, _) => Job::Binding(job),
        Answered::Deny(job, _) => Job::Deny(job),
        Answered::Sync(job, _) => Job::Sync(job),
        Answered::Note(line, reply) => Job::Note(line, reply),
    };
    group.answers.into_iter().map(job).collect()
}

/// Answers as decided, or with a refusal for all.
pub(super) fn answer(answered: Answered, refusal: Option<&Refusal>, shared: &Shared) {
    let refused = refusal.cloned();
    // Who has left does not need the answer.
    match answered {
        Answered::Binding(job, answer) => job.answer(refused.map_or(answer, Err)),
        Answered::Deny(job, answer) => {
            if let Some(reply) = job.reply {
                let _ = reply.send(refused.map_or(answer, Err));
            }
        }
        Answered::Sync(mut job, answer) => {
            if let Some(reply) = job.reply.take() {
                let _ = reply.send(refused.map_or(answer, Err));
            }
        }
        Answered::Note(_, reply) => {
            let head = shared.audit_head.load();
            let _ = reply.send(refused.map_or(Ok(head.as_ref().clone()), Err));
        }
    }
}

/// Answers a job that was not even decided.
pub(super) fn refuse(job: Job, refusal: &Refusal) {
    match job {
        Job::Binding(job) => job.answer(Err(refusal.clone())),
        Job::Deny(job) => {
            if let Some(reply) = job.reply {
                let _ = reply.send(Err(refusal.clone()));
            }
        }
        Job::Sync(mut job) => {
            if let Some(reply) = job.reply.take() {
                let _ = reply.send(Err(refusal.clone()));
            }
        }
        Job::Note(_, reply) => drop(reply.send(Err(refusal.clone()))),
        Job::Restore(job) => drop(job.reply.send(Err(refusal.clone()))),
    }
}

/// What is told of a change that the kernel did not take.
pub(super) fn refusal_of(error: &GrantError) -> Refusal {
    let code = match error {
        GrantError::TableFull { .. } | GrantError::TableKept { .. } | GrantError::TooManyOwners { .. } => {
            Code::TableFull
        }
        GrantError::PolicyChanged => Code::Busy,
        GrantError::Detached | GrantError::Failed(_) => Code::Unavailable,
    };
    let refusal = Refusal::new(code, error.to_string());
    match error {
        GrantError::TableFull { table, .. } | GrantError::TableKept { table, .. } => {
            refusal.with("table", *table)
        }
        GrantError::TooManyOwners { prefix, .. } => Refusal {
            about: About::Prefix,
            ..refusal.with("prefix", prefix.as_str())
        },
        _ => refusal,
    }
}
