//! What the writer is asked to do, and how it answers.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::denies::DenyJob;
use super::sync::SyncJob;
use crate::bindings::audit::Line;
use crate::bindings::model::body::Wanted;
use crate::bindings::model::owned::Credential;
use crate::bindings::model::row::Row;
use crate::bindings::requests::{Actor, Answer, AuditHead, Conditions, Outcome};

pub(crate) enum Job {
    Binding(BindingJob),
    Deny(DenyJob),
    Sync(Box<SyncJob>),
    Note(Line, oneshot::Sender<Answer<AuditHead>>),
    Restore(super::restore::RestoreJob),
}

/// One change of one binding.
pub(crate) struct BindingJob {
    pub(crate) publisher: Arc<str>,
    pub(crate) credential: Credential,
    pub(crate) op: Op,
    /// `None`: the daemon itself.
    pub(crate) actor: Option<Arc<Actor>>,
    pub(crate) reply: Reply,
}

#[derive(Clone)]
pub(crate) enum Op {
    Put {
        wanted: Wanted,
        /// Of the policy under which it was judged.
        epoch: u64,
        conditions: Conditions,
    },
    Renew {
        lease_ms: Option<i64>,
        row_version: Option<u64>,
        epoch: u64,
    },
    Delete {
        row_version: Option<u64>,
        conditions: Conditions,
    },
    /// A timer or a new policy: tells what has become of it.
    Review,
}

/// What was done.
#[derive(Clone, Debug)]
pub(crate) enum Done {
    Put {
        outcome: Outcome,
        row: Arc<Row>,
    },
    Delete {
        removed: bool,
        row_version: Option<u64>,
        revision: u64,
    },
    Nothing,
}

pub(crate) enum Reply {
    /// Nobody waits.
    None,
    One(oneshot::Sender<Answer<Done>>),
    Line(Arc<dyn LineReply>, u64),
}

/// A batch that collects what became of its lines.
pub(crate) trait LineReply: Send + Sync {
    fn decided(&self, line: u64, credential: &str, answer: Answer<Done>);
}

impl BindingJob {
    pub(crate) fn review(publisher: Arc<str>, credential: Credential) -> BindingJob {
        BindingJob {
            publisher,
            credential,
            op: Op::Review,
            actor: None,
            reply: Reply::None,
        }
    }

    pub(crate) fn answer(self, answer: Answer<Done>) {
        match self.reply {
            Reply::None => {}
            // Who has left does not need the answer.
            Reply::One(sender) => drop(sender.send(answer)),
            Reply::Line(batch, line) => batch.decided(line, &self.credential, answer),
        }
    }
}
