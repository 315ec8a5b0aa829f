//! Backups of the store and their return, and the audit log's lines for readers.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Map;
use tokio::sync::oneshot;

use super::refusal::{Code, Refusal};
use super::requests::{Actor, Answer, AuditNote, Restored, StoreStatus};
use super::writer::job::Job;
use super::writer::restore::RestoreJob;
use super::{Bindings, audit, lost, store};

/// Lines of the audit log in one answer.
const AUDIT_LINES_MAX: usize = 10_000;

impl Bindings {
    /// Up to `limit` lines of the audit log as they stand there, from line `from` (1-based) on.
    pub async fn audit_lines(&self, from: u64, limit: usize) -> Answer<Vec<String>> {
        let path = audit::path_in(&self.shared.folder);
        let (head, limit) = (self.audit_head().line, limit.min(AUDIT_LINES_MAX));
        let read = move || {
            let file = std::fs::File::open(path)?;
            // Not beyond the head: the line after it may be half written.
            let whole = usize::try_from(head).unwrap_or(usize::MAX);
            let skipped = usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX);
            let lines = BufReader::new(file).lines().take(whole).skip(skipped);
            lines.take(limit).collect::<Result<Vec<String>, std::io::Error>>()
        };
        let lines = tokio::task::spawn_blocking(read).await.map_err(|_| lost())?;
        lines.map_err(|error| Refusal::new(Code::Unavailable, format!("the audit log: {error}")))
    }

    /// A consistent copy of the store, online; `to` must not exist.
    pub async fn backup(&self, actor: &Actor, to: PathBuf) -> Answer<StoreStatus> {
        let shared = Arc::clone(&self.shared);
        let path = to.clone();
        let copied =
            tokio::task::spawn_blocking(move || store::copy_to(&shared.store, &shared.folder, &path)).await;
        copied.map_err(|_| lost())??;
        let members = Map::from_iter([("to".to_owned(), to.display().to_string().into())]);
        self.audit(AuditNote {
            actor: Some(actor.clone()),
            what: "backup",
            members,
        })
        .await?;
        Ok(self.status())
    }

    /// Puts a backup in place of what is there, under a new store id. Without `trust`, its bindings are suspended
    /// until their publisher has synced. What was there is kept beside it, its denies and deletions in force.
    pub async fn restore(&self, actor: &Actor, from: PathBuf, trust: bool) -> Answer<Restored> {
        let (reply, answer) = oneshot::channel();
        self.shared.send(Job::Restore(RestoreJob {
            from,
            trust,
            actor: Arc::new(actor.clone()),
            reply,
        }))?;
        let kept = answer.await.map_err(|_| lost())??;
        let status = self.status();
        Ok(Restored { status, kept })
    }
}
