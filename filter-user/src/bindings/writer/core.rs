//! What the writer owns, and the steps of one group.
//!
//! The order, and what a crash after each step leaves:
//! (1) decided in memory: nothing; (2) the store, one transaction with fsync: the change whole, not acknowledged; the
//! next start puts it in force and tells the audit log; (3) the audit log, with fsync: the same; (4) the kernel: the
//! same; (5) memory, watchers, answers. What fails in 3 or 4 is taken back in the store before anybody is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::fold::Fold;
use super::group::{Answered, ENDED_KEPT_MS, Ground, Group, Key, publish_synced};
use super::job::Job;
use super::reserve::Reserve;
use super::sweep::Sweeps;
use super::sync::change_file;
use super::timers::Timers;
use crate::bindings::audit::{Audit, Line, Renewals};
use crate::bindings::clock::Now;
use crate::bindings::memory::{RowChanges, Shelf};
use crate::bindings::model::allowance::PolicyView;
use crate::bindings::model::credential::hex;
use crate::bindings::model::lease::Moment;
use crate::bindings::model::row::{Row, Told};
use crate::bindings::refusal::{Code, Refusal};
use crate::bindings::seam::Change;
use crate::bindings::shared::Shared;
use crate::bindings::store::{self, Batch, StoreError};

/// Bindings of a group that are put into memory in less than a few milliseconds.
const LARGE: usize = 4_096;

pub(crate) struct Core {
    pub(super) shared: Arc<Shared>,
    pub(super) audit: Audit,
    pub(super) renewals: Renewals,
    pub(super) revision: u64,
    pub(super) timers: Timers,
    /// By publisher: what is held past its end.
    pub(super) held: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    pub(super) reserve: Reserve,
    pub(super) sweeps: Sweeps,
    pub(super) fold: Fold,
    /// What must be taken back in the store before anything else is written.
    pub(super) owed: Option<Batch>,
    /// What a restore took away, until the kernel knows.
    pub(super) gone: Vec<Arc<Shelf>>,
    pub(super) gone_denies: Vec<String>,
}

/// A group that is durable and audited.
pub(crate) struct Ready {
    pub(crate) group: Group,
    pub(crate) changes: Vec<Change>,
    undo: Batch,
    now: Now,
}

impl Ready {
    /// Whether it takes too long for a runtime's thread.
    pub(super) fn is_large(&self) -> bool {
        self.group.touched.len() > LARGE
    }
}

/// A group of which nothing is left.
pub(crate) struct Failed {
    pub(crate) jobs: Vec<Job>,
    pub(crate) refusal: Refusal,
    pub(crate) full: bool,
}

enum Fault {
    Store(StoreError),
    Audit(std::io::Error),
}

impl Core {
    pub(super) fn new(
        shared: Arc<Shared>,
        audit: Audit,
        revision: u64,
        dirty: Vec<(String, String)>,
    ) -> Core {
        let reserve = Reserve::open(&shared.folder);
        let mut core = Core {
            audit,
            renewals: Renewals::default(),
            revision,
            timers: Timers::default(),
            held: BTreeMap::new(),
            reserve,
            sweeps: Sweeps::new(shared.clock.now()),
            fold: Fold::new(dirty),
            owed: None,
            gone: Vec::new(),
            gone_denies: Vec::new(),
            shared,
        };
        core.set_timers();
        core
    }

    /// Of all that is in memory.
    pub(super) fn set_timers(&mut self) {
        self.timers.clear();
        for shelf in self.shared.memory.shelves() {
            shelf.each(|credential, row| {
                self.set_timer(&(Arc::clone(&shelf.publisher), Arc::clone(credential)), row);
            });
        }
    }

    fn set_timer(&mut self, key: &Key, row: &Row) {
        let Some(end) = row.end else { return };
        let at = match row.told {
            // Kept for a day after its hold, were it held.
            Told::Ended => {
                let view = self.shared.view.load();
                let hold_ms = view.publisher(&key.0).map_or(0, |allowance| allowance.hold_ms());
                end.boot_ms.saturating_add(hold_ms).saturating_add(ENDED_KEPT_MS)
            }
            Told::Active | Told::Suspended => end.boot_ms,
        };
        self.timers.add(at, &key.0, &key.1);
    }

    /// Steps (1) to (3). Blocks.
    pub(super) fn prepare(&mut self, jobs: Vec<Job>, view: &PolicyView, now: Now) -> Result<Ready, Failed> {
        let jobs = match self.settle() {
            Ok(()) => jobs,
            Err(error) => return Err(self.failed(jobs, &Fault::Store(error))),
        };
        let denies = self.shared.denies.load_full();
        let ground = Ground {
            memory: &self.shared.memory,
            store: &self.shared.store,
            view,
            denies: &denies,
            now,
        };
        let mut group = Group::new(self.revision, now.boot_id);
        let mut rest = jobs.into_iter();
        while let Some(job) = rest.next() {
            if let Err(fault) = group.add(job, &ground) {
                let (job, error) = *fault;
                let mut jobs = into_jobs(group);
                jobs.push(job);
                jobs.extend(rest);
                return Err(self.failed(jobs, &Fault::Store(error)));
            }
        }
        let (mut batch, undo) = group.batches(&denies);
        if !batch.is_empty() {
            let successes = group.succeeded.iter();
            batch.successes = successes
                .map(|name| (name.to_string(), Moment::at(now)))
                .collect();
        }
        match self.make_durable(&mut group, &batch, &undo, now) {
            Ok(()) => Ok(Ready {
                changes: group.kernel(view, now),
                group,
                undo,
                now,
            }),
            Err(fault) => {
                let jobs = into_jobs(group);
                Err(self.failed(jobs, &fault))
            }
        }
    }

    fn make_durable(
        &mut self,
        group: &mut Group,
        batch: &Batch,
        undo: &Batch,
        now: Now,
    ) -> Result<(), Fault> {
        if let Some((changes, summary, actor)) = group.sync_file.take() {
            let line = self
                .write_sync(&changes, summary.revision)
                .map_err(Fault::Audit)?;
            let counts = serde_json::to_value(&summary).expect("counts always have a JSON form");
            let mut line = line.with("counts", counts).at(summary.revision);
            line.members.extend(Line::new("sync", Some(&actor)).members);
            group.lines.push(line);
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

    /// A sync's change file, on disk before its line names its hash.
    fn write_sync(&self, changes: &[Line], revision: u64) -> std::io::Result<Line> {
        use sha2::Digest as _;
        use std::io::Write as _;
        use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
        let bytes = change_file(changes);
        let folder = self.shared.folder.join("audit-syncs");
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)?;
        let name = format!("sync-{revision}.jsonl");
        // One of the same revision was never acknowledged: a crash came before its commit.
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(folder.join(&name))?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        std::fs::File::open(&folder)?.sync_all()?;
        let hash = hex(&sha2::Sha256::digest(&bytes));
        let line = Line::new("sync", None).with("file", format!("audit-syncs/{name}"));
        Ok(line.with("sha256", hash))
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
    fn take_back(&mut self, undo: Batch, now: Now) {
        if undo.is_empty() {
            return;
        }
        if let Err(error) = self.shared.store.apply(&undo, now) {
            tracing::error!("{error}");
            self.owed = Some(undo);
        }
    }

    fn settle(&mut self) -> Result<(), StoreError> {
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

    fn failed(&mut self, jobs: Vec<Job>, fault: &Fault) -> Failed {
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
        self.shared.set_alarm("disk", Some(text.clone()));
        Failed {
            jobs,
            refusal: Refusal::new(code, text),
            full,
        }
    }

    /// The kernel has refused: nothing of the group stays. Blocks.
    pub(super) fn undo(&mut self, ready: Ready, why: &str) -> Vec<Job> {
        let Ready { group, undo, now, .. } = ready;
        let revisions = (group.first_revision, group.revision);
        self.take_back(undo, now);
        // Revisions are never given twice: lines of the audit log name them.
        self.revision = self.revision.max(group.revision);
        if !group.lines.is_empty() {
            let line = Line::new("undone", None)
                .with("first_revision", revisions.0)
                .with("last_revision", revisions.1)
                .with("why", why);
            if let Err(error) = self.audit.append(&[line], now.wall_ms) {
                tracing::error!("the audit log: {error}");
            }
        }
        into_jobs(group)
    }

    /// Step (5).
    pub(super) fn publish(&mut self, ready: Ready) {
        let Ready { mut group, now, .. } = ready;
        let mut by_shelf: BTreeMap<Arc<str>, RowChanges> = BTreeMap::new();
        for key in std::mem::take(&mut group.touched) {
            let Some(entry) = group.entries.remove(&key) else {
                continue;
            };
            if let Some(held) = self.held.get_mut(&key.0) {
                held.remove(&key.1);
            }
            let changed = match (&entry.before, &entry.row) {
                (Some(before), Some(row)) => !Arc::ptr_eq(before, row),
                (None, None) => false,
                _ => true,
            };
            if let (true, Some(row)) = (changed, &entry.row) {
                self.set_timer(&key, row);
            }
            if changed {
                self.fold.add(&key);
                by_shelf.entry(key.0).or_default().push((key.1, entry.row));
            }
        }
        for (publisher, changes) in &by_shelf {
            self.shared.memory.shelf_for(publisher).change(changes);
        }
        for (key, until) in std::mem::take(&mut group.held) {
            self.timers.add(until, &key.0, &key.1);
            self.held.entry(key.0).or_default().insert(key.1);
        }
        publish_synced(&group);
        self.publish_held();
        if let Some(denies) = group.denies.take() {
            self.shared.denies.store(Arc::new(denies));
        }
        for (publisher, revision) in &group.renewals {
            self.renewals.add(publisher, *revision, now.wall_ms);
        }
        self.revision = self.revision.max(group.revision);
        self.shared.audit_head.store(Arc::new(self.audit.head()));
        self.shared.published.send_replace(self.revision);
        self.shared.set_alarm("disk", None);
        for publisher in &group.succeeded {
            self.shared.memory.shelf_for(publisher);
            self.shared.succeeded(publisher);
        }
        for answered in group.answers {
            answer(answered, None, &self.shared);
        }
    }

    fn publish_held(&mut self) {
        self.held.retain(|publisher, held| {
            let shelf = self.shared.memory.shelf_for(publisher);
            shelf.past_end.store(held.len() as u64, Ordering::Release);
            !held.is_empty()
        });
        let count: usize = self.held.values().map(BTreeSet::len).sum();
        let text =
            "leases are past their end and held: their publishers have made no successful request since";
        self.shared.set_alarm(
            "held",
            (count > 0).then(|| format!("{text}; keyfence bindings --state held lists them")),
        );
    }

    /// Writes what is owed of renewals, where their minute is over or `always`. Blocks.
    pub(super) fn flush_renewals(&mut self, now: Now, always: bool) {
        if !(always || self.renewals.is_due(now.wall_ms)) {
            return;
        }
        match self.audit.append(&self.renewals.lines(), now.wall_ms) {
            Ok(()) => {
                self.renewals.written();
                self.shared.audit_head.store(Arc::new(self.audit.head()));
            }
            Err(error) => self
                .shared
                .set_alarm("disk", Some(format!("the audit log: {error}"))),
        }
    }
}

/// The jobs of a group that came to nothing, as they were.
fn into_jobs(group: Group) -> Vec<Job> {
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
