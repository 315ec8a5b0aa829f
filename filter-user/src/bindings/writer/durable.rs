//! Steps (2) and (3) of a group: the store, the audit log, and what happens where a disk fails.

use std::panic::resume_unwind;
use std::sync::atomic::Ordering;

use super::change_file::ChangeFile;
use super::core::{Core, Failed};
use super::group::Group;
use super::job::Job;
use super::large::Views;
use crate::bindings::audit::Line;
use crate::bindings::clock::Now;
use crate::bindings::refusal::{Code, Refusal};
use crate::bindings::requests::{Actor, SyncSummary};
use crate::bindings::seam::Changes;
use crate::bindings::shared::DISK_ALARM;
use crate::bindings::store::{self, Batch, StoreError};

/// Bindings of a group that are worth a thread of their own: to start one takes some ten microseconds.
const BESIDE_FROM: usize = 64;

pub(super) enum Fault {
    Store(StoreError),
    Audit(std::io::Error),
}

impl Core {
    /// What the kernel is to be asked for is worked out meanwhile.
    pub(super) fn make_durable(
        &mut self,
        group: &mut Group,
        (batch, undo): (&Batch, &Batch),
        views: Views<'_>,
        now: Now,
    ) -> Result<Changes, Fault> {
        if let Some((changes, summary, actor)) = group.sync_file.take() {
            let written = ChangeFile::write(&self.shared.folder, &changes);
            let line = written.and_then(|file| self.sync_line(&file, &summary, &actor));
            group.lines.push(line.map_err(Fault::Audit)?);
        }
        let (group, audit, store) = (&*group, &self.audit, &self.shared.store);
        let apply = || match batch.is_empty() {
            true => Ok(()),
            false => store.apply(batch, now),
        };
        let follow = || (audit.draft(&group.lines, now.wall_ms), group.asks(views, now));
        let (applied, (draft, changes)) = match group.touched.len() < BESIDE_FROM {
            true => (apply(), follow()),
            false => std::thread::scope(|scope| {
                let following = scope.spawn(follow);
                let applied = apply();
                let followed = following.join();
                (applied, followed.unwrap_or_else(|panic| resume_unwind(panic)))
            }),
        };
        if let Err(error) = applied {
            self.recover(batch, undo);
            return Err(Fault::Store(error));
        }
        // Not before the store has it.
        if let Err(error) = self.audit.write(draft) {
            self.take_back(undo.clone(), now);
            return Err(Fault::Audit(error));
        }
        Ok(changes)
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
        Ok(line.by(Some(actor)).with("counts", counts).at(summary.revision))
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
        // What is owed already came later, and goes first.
        let taken_back = self.settle().and_then(|()| self.shared.store.apply(&undo, now));
        if let Err(error) = taken_back {
            tracing::error!("{error}");
            match &mut self.owed {
                Some(owed) => owed.append(undo),
                None => self.owed = Some(undo),
            }
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

    /// The kernel holds what is here: the next start may do the same.
    pub(super) fn find(&mut self) {
        if !self.shared.is_lost.swap(false, Ordering::AcqRel) {
            return;
        }
        if let Err(error) = self.shared.store.find() {
            tracing::error!("{error}");
            self.shared.is_lost.store(true, Ordering::Release);
        }
        // From here on it is what the kernel is told of.
        self.shared.published.send_modify(|_| ());
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
