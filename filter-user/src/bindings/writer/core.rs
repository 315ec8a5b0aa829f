//! What the writer owns, and the steps of one group.
//!
//! The order, and what a crash after each step leaves:
//! (1) decided in memory: nothing; (2) the store, one transaction with fsync: the change whole, not acknowledged; the
//! next start puts it in force and tells the audit log; (3) the audit log, with fsync: the same; (4) the kernel: the
//! same; (5) memory, watchers, answers. What fails in 3 or 4 is taken back in the store before anybody is told.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::answers::{answer, into_jobs};
use super::durable::Fault;
use super::effects::publish_synced;
use super::fold::Fold;
use super::ground::Ground;
use super::group::{Answered, ENDED_KEPT_MS, Group, Key};
use super::job::Job;
use super::large::Views;
use super::reserve::Reserve;
use super::sweep::Sweeps;
use super::tight::Tight;
use super::timers::Timers;
use crate::bindings::audit::{Audit, Line, Renewals};
use crate::bindings::clock::Now;
use crate::bindings::memory::{RowChanges, Shelf, Which};
use crate::bindings::model::allowance::PolicyView;
use crate::bindings::model::lease::Moment;
use crate::bindings::model::owned::Credential;
use crate::bindings::model::row::{Row, Told};
use crate::bindings::refusal::{Code, Refusal};
use crate::bindings::seam::Changes;
use crate::bindings::shared::{DISK_ALARM, Shared};
use crate::bindings::store::{Batch, Dirty, StoreError};

/// Bindings of a group that are put into memory in less than a few milliseconds.
const LARGE: usize = 4_096;

pub(crate) struct Core {
    pub(super) shared: Arc<Shared>,
    pub(super) audit: Audit,
    pub(super) renewals: Renewals,
    pub(super) revision: u64,
    pub(super) timers: Timers,
    /// By publisher: what is held past its end.
    pub(super) held: BTreeMap<Arc<str>, BTreeSet<Credential>>,
    pub(super) reserve: Reserve,
    /// What was full last: the store or the audit log.
    pub(super) full: Code,
    pub(super) sweeps: Sweeps,
    pub(super) fold: Fold,
    pub(super) tight: Tight,
    /// The audit log's last line that the store knows of.
    pub(super) line_stored: u64,
    /// What must be taken back in the store before anything else is written.
    pub(super) owed: Option<Batch>,
    /// What a restore took away, until the kernel knows.
    pub(super) gone: Vec<Arc<Shelf>>,
    pub(super) gone_denies: Vec<String>,
}

/// A group that is durable and audited.
pub(crate) struct Ready {
    pub(crate) group: Group,
    pub(crate) changes: Changes,
    undo: Batch,
    now: Now,
}

impl Ready {
    /// Whether the kernel is to be asked. What it need not know under this policy it may have to under the next.
    pub(super) fn asks(&self) -> bool {
        !self.changes.is_empty() || self.group.revision >= self.group.first_revision
    }

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

impl Core {
    pub(super) fn new(shared: Arc<Shared>, audit: Audit, revision: u64, dirty: Dirty) -> Core {
        let reserve = Reserve::open(&shared.folder);
        let mut core = Core {
            audit,
            renewals: Renewals::default(),
            revision,
            timers: Timers::default(),
            held: BTreeMap::new(),
            reserve,
            full: Code::StoreFull,
            sweeps: Sweeps::new(shared.clock.now()),
            fold: Fold::new(dirty),
            tight: Tight::default(),
            line_stored: 0,
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
            shelf.look(Which::Seen, |credential, row| {
                if row.end.is_some() {
                    self.set_timer(&(Arc::clone(&shelf.publisher), credential.clone()), row);
                }
            });
        }
    }

    pub(super) fn set_timer(&mut self, key: &Key, row: &Row) {
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

    /// Steps (1) to (3), behind a group that is durable and not seen yet, where there is one. Blocks.
    pub(super) fn prepare(
        &mut self,
        jobs: Vec<Job>,
        before: Option<&Group>,
        (view, standby): (&PolicyView, Option<&PolicyView>),
        now: Now,
    ) -> Result<Ready, Failed> {
        let jobs = match self.settle() {
            Ok(()) => jobs,
            Err(error) => return Err(self.failed(jobs, &Fault::Store(error))),
        };
        match self.group(jobs, before, view, now) {
            Ok(group) => self.ready(group, (view, standby), now),
            Err((jobs, error)) => Err(self.failed(jobs, &Fault::Store(error))),
        }
    }

    /// Step (1). Blocks. An error is the store's.
    pub(super) fn group(
        &self,
        jobs: Vec<Job>,
        before: Option<&Group>,
        view: &PolicyView,
        now: Now,
    ) -> Result<Group, (Vec<Job>, StoreError)> {
        let denies = self.shared.denies.load_full();
        let ground = Ground {
            memory: &self.shared.memory,
            before,
            store: &self.shared.store,
            deleted: OnceCell::new(),
            view,
            denies: &denies,
            now,
        };
        let revision = before.map_or(self.revision, |group| group.revision);
        let mut group = Group::new(revision, now.boot_id);
        group.reserve(jobs.len());
        let mut rest = jobs.into_iter();
        while let Some(job) = rest.next() {
            if let Err(fault) = group.add(job, &ground) {
                let (job, error) = *fault;
                let mut jobs = into_jobs(group);
                jobs.push(job);
                jobs.extend(rest);
                return Err((jobs, error));
            }
        }
        Ok(group)
    }

    /// Steps (2) and (3) of a group that is decided. Blocks.
    pub(super) fn ready(&mut self, mut group: Group, views: Views<'_>, now: Now) -> Result<Ready, Failed> {
        let denies = self.shared.denies.load_full();
        let (mut batch, undo) = group.batches(&denies);
        batch.audit = Some(self.audit.known());
        if !batch.is_empty() {
            let successes = group.succeeded.iter();
            batch.successes = successes
                .map(|name| (name.to_string(), Moment::at(now)))
                .collect();
        }
        match self.make_durable(&mut group, (&batch, &undo), views, now) {
            Ok(changes) => Ok(Ready {
                changes,
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

    /// The kernel has refused: nothing of the group stays. Blocks.
    pub(super) fn undo(&mut self, ready: Ready, why: &str) -> Vec<Job> {
        let Ready { group, undo, now, .. } = ready;
        let revisions = (group.first_revision, group.revision);
        // Revisions are never given twice: lines of the audit log name them.
        self.revision = self.revision.max(group.revision);
        let revision = self.revision;
        self.take_back(Batch { revision, ..undo }, now);
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
        let whole = group.answers.iter().any(Answered::is_sync);
        for (publisher, changes) in &by_shelf {
            let shelf = self.shared.memory.shelf_for(publisher);
            match whole {
                true => shelf.change_whole(changes),
                // Each by itself, as they were asked for.
                false => shelf.change(changes),
            }
        }
        let mut holding = BTreeSet::new();
        for (key, until) in std::mem::take(&mut group.held) {
            self.timers.add(until, &key.0, &key.1);
            holding.insert(Arc::clone(&key.0));
            self.held.entry(key.0).or_default().insert(key.1);
        }
        publish_synced(&group);
        self.publish_held();
        // A success may have come between a lease's end and its timer.
        for publisher in holding {
            self.shared.end_held(&self.shared.memory.shelf_for(&publisher));
        }
        if let Some(denies) = group.denies.take() {
            self.shared.denies.store(Arc::new(denies));
        }
        for (publisher, revision) in &group.renewals {
            self.renewals.add(publisher, *revision, now.wall_ms);
        }
        self.revision = self.revision.max(group.revision);
        self.shared.audit_head.store(Arc::new(self.audit.head()));
        self.shared.published.send_replace(self.revision);
        self.shared.set_alarm(DISK_ALARM, None);
        for publisher in &group.succeeded {
            self.shared.memory.shelf_for(publisher);
            self.shared.succeeded(publisher);
        }
        for answered in group.answers {
            answer(answered, None, &self.shared);
        }
    }

    pub(super) fn publish_held(&mut self) {
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
                .set_alarm(DISK_ALARM, Some(format!("the audit log: {error}"))),
        }
    }
}
