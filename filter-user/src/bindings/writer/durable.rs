//! Steps (2) and (3) of a group: the store, the audit log, and what happens where a disk fails.

use super::change_file::ChangeFile;
use super::core::{Core, Failed};
use super::group::Group;
use super::job::Job;
use crate::bindings::audit::Line;
use crate::bindings::clock::Now;
use crate::bindings::refusal::{Code, Refusal};
use crate::bindings::requests::{Actor, SyncSummary};
use crate::bindings::shared::DISK_ALARM;
use crate::bindings::store::{self, Batch, StoreError};

pub(super) enum Fault {
    Store(StoreError),
    Audit(std::io::Error),
}

impl Core {
    pub(super) fn make_durable(
        &mut self,
        group: &mut Group,
        batch: &Batch,
        undo: &Batch,
        now: Now,
    ) -> Result<(), Fault> {
        if let Some((changes, summary, actor)) = group.sync_file.take() {
            let written = ChangeFile::write(&self.shared.folder, &changes);
            let line = written.and_then(|file| self.sync_line(&file, &summary, &actor));
            group.lines.push(line.map_err(Fault::Audit)?);
        }
        if !batch.is_empty()
            && let Err(error) = self.shared.store.apply(batch, now)
        {
            self.recover(batch, undo);
            return Err(Fault::Store(error));
        }
        if let Err(error) = self.audit.append(&group.lines, now.wall_ms) {
            self.take_back(undo.clone(), now);
            return Err(Fault::Audit(error));
        }
        Ok(())
    }

    /// The line of a sync, whose change file is in its place before it.
    pub(super) fn sync_line(
        &self,
        file: &ChangeFile,
        summary: &SyncSummary,
        actor: &Actor,
    ) -> std::io::Result<Line> {
        let line = file.place(self.audit.head().line + 1)?;
        let counts = serde_json::to_value(summary).expect("counts always have a JSON form");
        let mut line = line.with("counts", counts).at(summary.revision);
        line.members.extend(Line::new("sync", Some(actor)).members);
        Ok(line)
    }

    /// After the store failed: opens it anew, and learns whether the transaction took after all.
    fn recover(&mut self, batch: &Batch, undo: &Batch) {
        let path = store::path_in(&self.shared.folder);
        if let Err(error) = self.shared.store.reopen(&path) {
            tracing::error!("{error}");
            self.owed = Some(undo.clone());
            return;
        }
        match self.shared.store.revision() {
            Ok(revision) if revision < batch.revision || batch.changes.is_empty() => {}
            _ => self.owed = Some(undo.clone()),
        }
    }

    /// What is in the store but will not be: it goes now, or before the next group.
    pub(super) fn take_back(&mut self, undo: Batch, now: Now) {
        if undo.is_empty() {
            return;
        }
        if let Err(error) = self.shared.store.apply(&undo, now) {
            tracing::error!("{error}");
            self.owed = Some(undo);
        }
    }

    pub(super) fn settle(&mut self) -> Result<(), StoreError> {
        if self.shared.store.is_closed() {
            self.shared.store.reopen(&store::path_in(&self.shared.folder))?;
        }
        if let Some(undo) = self.owed.take()
            && let Err(error) = self.shared.store.apply(&undo, self.shared.clock.now())
        {
            self.owed = Some(undo);
            let reopened = self.shared.store.reopen(&store::path_in(&self.shared.folder));
            reopened?;
            return Err(error);
        }
        Ok(())
    }

    pub(super) fn failed(&mut self, jobs: Vec<Job>, fault: &Fault) -> Failed {
        let (code, text, full) = match fault {
            Fault::Store(error) if error.is_full() => (Code::StoreFull, error.to_string(), true),
            Fault::Store(error) => (Code::Unavailable, error.to_string(), false),
            Fault::Audit(error) => {
                use std::io::ErrorKind::{QuotaExceeded, StorageFull};
                let full = matches!(error.kind(), StorageFull | QuotaExceeded);
                let code = if full { Code::AuditFull } else { Code::Unavailable };
                (code, format!("the audit log: {error}"), full)
            }
        };
        self.shared.set_alarm(DISK_ALARM, Some(text.clone()));
        Failed {
            jobs,
            refusal: Refusal::new(code, text),
            full,
        }
    }
}
