//! A sync that changes much, in slices: others' groups are decided in between.
//!
//! Its changes go into the store's log first, beyond the store's revision, where nobody looks and an open throws them
//! away; then into the kernel; then one small commit raises the revision over all of them, one line tells the audit
//! log, and readers see all of it; then its rows are put in place. What fails before is taken back in slices as well.
//! A crash before the commit leaves nothing of it that a start takes over, one after it all.

use std::ops::Range;
use std::sync::Arc;

use super::change_file::ChangeFile;
use super::core::Core;
use super::durable::Fault;
use super::group::Group;
use super::job::Job;
use super::pass::{Pass, Way};
use super::sync::SyncJob;
use crate::bindings::clock::Now;
use crate::bindings::memory::{Next, Shelf};
use crate::bindings::model::allowance::PolicyView;
use crate::bindings::model::lease::Moment;
use crate::bindings::model::owned::Credential;
use crate::bindings::model::row::Row;
use crate::bindings::model::view::grantee;
use crate::bindings::outlook::{and_an_eighth, many};
use crate::bindings::refusal::Refusal;
use crate::bindings::requests::SyncSummary;
use crate::bindings::seam::{Change, Changes, Many};
use crate::bindings::shared::{DISK_ALARM, Shared};
use crate::bindings::store::{self, Batch, StoredChange, key_of};

/// What the policy in force allows, and the one that stands by, where one does.
pub(super) type Views<'v> = (&'v PolicyView, Option<&'v PolicyView>);

/// Row version and wall clock of a deletion.
type Tombstone = Option<(u64, i64)>;

/// What a credential was, and is to be.
struct Touched {
    credential: Credential,
    before: Option<Arc<Row>>,
    row: Option<Arc<Row>>,
    tombstone_before: Tombstone,
    tombstone: Tombstone,
}

impl Touched {
    /// A row that is there hides one, so it may be written before the row goes.
    fn is_buried(&self) -> bool {
        self.tombstone.is_some() && self.tombstone != self.tombstone_before
    }

    /// Told in the same way: one that goes has to stay until the row is there.
    fn is_unburied(&self) -> bool {
        self.tombstone.is_none() && self.tombstone_before.is_some()
    }
}

/// All that a sync changes.
pub(super) struct Large {
    pub(super) summary: SyncSummary,
    pub(super) shelf: Arc<Shelf>,
    /// Of the policy that it was decided under.
    pub(super) epoch: u64,
    rows: Vec<Touched>,
    next: Arc<Next>,
    /// Rows that the kernel is to hold nothing for, as far as it is.
    gone: Vec<usize>,
    /// Those that are not staged yet.
    changes: std::vec::IntoIter<(u64, StoredChange)>,
    first_revision: u64,
    revision: u64,
    renewals: Vec<(Arc<str>, u64)>,
    succeeded: Vec<Arc<str>>,
    /// It ends what a restore has suspended.
    synced: bool,
    file: ChangeFile,
}

impl Large {
    /// Of a group that is decided. Blocks.
    pub(super) fn of(
        mut group: Group,
        summary: SyncSummary,
        shared: &Shared,
        epoch: u64,
    ) -> std::io::Result<Large> {
        let file = ChangeFile::write(&shared.folder, &group.lines)?;
        let synced = !group.synced.is_empty();
        let mut rows = Vec::with_capacity(group.touched.len());
        let mut shelf = None;
        for key in std::mem::take(&mut group.touched) {
            let Some(entry) = group.entries.remove(&key) else {
                continue;
            };
            shelf.get_or_insert(entry.shelf);
            let same = match (&entry.before, &entry.row) {
                (Some(before), Some(row)) => Arc::ptr_eq(before, row),
                (None, None) => entry.tombstone == entry.tombstone_before,
                _ => false,
            };
            if synced || !same {
                rows.push(Touched {
                    credential: key.1,
                    before: entry.before,
                    row: entry.row,
                    tombstone_before: entry.tombstone_before,
                    tombstone: entry.tombstone,
                });
            }
        }
        // As they stand in memory: neighbours are put in place together.
        rows.sort_unstable_by(|one, other| one.credential.cmp(&other.credential));
        let next = rows.iter().map(|row| (row.credential.clone(), row.row.clone()));
        Ok(Large {
            next: Arc::new(next.collect()),
            shelf: shelf.expect("a large sync touches many"),
            summary: SyncSummary {
                revision: group.revision,
                ..summary
            },
            epoch,
            rows,
            gone: Vec::new(),
            changes: group.changes.into_iter(),
            first_revision: group.first_revision,
            revision: group.revision,
            renewals: group.renewals,
            succeeded: group.succeeded,
            synced,
            file,
        })
    }

    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// What is staged: changes, and tombstones of rows.
    pub(super) fn staged_len(&self) -> usize {
        let changes = self.revision + 1 - self.first_revision;
        self.rows
            .len()
            .max(usize::try_from(changes).unwrap_or(usize::MAX))
    }

    /// Whether so many more revisions may come before its own are reached.
    pub(super) fn leaves(&self, revision: u64, more: u64) -> bool {
        revision + more < self.first_revision
    }

    /// Room for the owners and single addresses that it adds.
    pub(super) fn adds(&self) -> Many {
        let new = self.rows.iter().filter(|touched| touched.before.is_none());
        let new = new.filter_map(|touched| touched.row.as_ref());
        and_an_eighth(many(new.map(|row| &*row.content.sources)))
    }

    /// Whether anything of it is taken away.
    pub(super) fn removes(&self) -> bool {
        self.rows.iter().any(|row| row.row.is_none())
    }

    /// From here on whoever asks what is to hold is told of all of it.
    pub(super) fn announce(&self) {
        self.shelf.announce(Arc::clone(&self.next), self.synced);
    }

    /// What the kernel is asked for next, and how far it is then; `None` after the last. It may have some of it already:
    /// a generation made meanwhile holds all that is to be.
    pub(super) fn ask(
        &mut self,
        mut pass: Pass,
        rows: usize,
        views: Views<'_>,
        now: Now,
    ) -> Option<(Changes, Pass)> {
        if !pass.removals && pass.at >= self.rows.len() {
            (pass.removals, pass.at) = (true, 0);
        }
        let end = pass.at.saturating_add(rows);
        let changes = match pass.removals {
            false => {
                let slice = pass.at..end.min(self.rows.len());
                self.additions(pass.way, slice, views, now)
            }
            true if pass.at >= self.gone.len() => return None,
            true => self.removals(pass.at..end.min(self.gone.len())).into(),
        };
        pass.at = end;
        Some((changes, pass))
    }

    /// All at once.
    pub(super) fn ask_whole(&mut self, views: Views<'_>, now: Now) -> (Changes, Pass) {
        let mut changes = self.additions(Way::There, 0..self.rows.len(), views, now);
        changes.in_force.extend(self.removals(0..self.gone.len()));
        let pass = Pass {
            way: Way::There,
            removals: true,
            at: self.gone.len(),
        };
        (changes, pass)
    }

    /// What these rows grant; those that grant nothing are noted.
    fn additions(&mut self, way: Way, slice: Range<usize>, views: Views<'_>, now: Now) -> Changes {
        if slice.start == 0 {
            self.gone.clear();
        }
        let (publisher, facts) = match way {
            Way::There => (&self.shelf.publisher, self.shelf.facts_to_be()),
            Way::Back => (&self.shelf.publisher, self.shelf.facts()),
        };
        let mut changes = Changes::default();
        for (at, touched) in self.rows[slice.clone()].iter().enumerate() {
            let row = match way {
                Way::There => touched.row.as_ref(),
                Way::Back => touched.before.as_ref(),
            };
            let grant =
                |view| row.and_then(|row| grantee(view, publisher, facts, &touched.credential, row, now));
            match grant(views.0) {
                Some(grant) => changes.in_force.push(Change::Put(grant)),
                None => self.gone.push(slice.start + at),
            }
            // No packet goes to tables that stand by: there, what goes may go at once.
            let standing_by = views.1.map(|view| match grant(view) {
                Some(grant) => Change::Put(grant),
                None => Change::Remove {
                    owner: touched.credential.owner(),
                },
            });
            changes.standby.extend(standing_by);
        }
        changes
    }

    fn removals(&self, slice: Range<usize>) -> Vec<Change> {
        let remove = |at: &usize| Change::Remove {
            owner: self.rows[*at].credential.owner(),
        };
        self.gone[slice].iter().map(remove).collect()
    }

    fn tombstones(
        &self,
        slice: Range<usize>,
        of: impl Fn(&Touched) -> bool,
        what: impl Fn(&Touched) -> Tombstone,
    ) -> Vec<(String, Tombstone)> {
        let slice = slice.start.min(self.rows.len())..slice.end.min(self.rows.len());
        let rows = self.rows[slice].iter().filter(|row| of(row));
        rows.map(|row| (key_of(&self.shelf.publisher, &row.credential), what(row)))
            .collect()
    }

    /// The change file is of no line.
    pub(super) fn forget_file(&self) {
        self.file.remove();
    }
}

impl Core {
    /// Some of its changes, into the store's log. Blocks.
    pub(super) fn stage(&mut self, large: &mut Large, slice: Range<usize>, now: Now) -> Result<(), Fault> {
        self.settle().map_err(Fault::Store)?;
        let batch = Batch {
            revision: self.revision,
            changes: large.changes.by_ref().take(slice.len()).collect(),
            tombstones: large.tombstones(slice, Touched::is_buried, |row| row.tombstone),
            audit: Some(self.audit.known()),
            ..Batch::default()
        };
        self.shared.store.apply(&batch, now).map_err(|error| {
            self.reopen();
            Fault::Store(error)
        })
    }

    /// The same taken back. Blocks. What fails is owed, before anything else is written.
    pub(super) fn unstage(&mut self, large: &Large, slice: Range<usize>, now: Now) -> Result<(), ()> {
        let batch = Batch {
            revision: self.revision,
            undone: Some(
                large.first_revision + slice.start as u64..=large.first_revision + slice.end as u64 - 1,
            ),
            tombstones: large.tombstones(slice, Touched::is_buried, |row| row.tombstone_before),
            ..Batch::default()
        };
        self.shared.store.apply(&batch, now).map_err(|error| {
            tracing::error!("{error}");
            self.reopen();
            self.owed = Some(self.undo_of(large));
        })
    }

    fn undo_of(&self, large: &Large) -> Batch {
        let publisher = large.shelf.publisher.to_string();
        Batch {
            revision: self.revision,
            undone: Some(large.first_revision..=large.revision),
            tombstones: large.tombstones(0..large.rows.len(), Touched::is_buried, |row| {
                row.tombstone_before
            }),
            unsynced: large.synced.then_some(publisher).into_iter().collect(),
            ..Batch::default()
        }
    }

    fn reopen(&self) {
        if let Err(error) = self.shared.store.reopen(&store::path_in(&self.shared.folder)) {
            tracing::error!("{error}");
        }
    }

    /// All of it counts from here on, and readers see it. Blocks. On an error nothing of it does.
    pub(super) fn commit(&mut self, large: &Large, job: &SyncJob, now: Now) -> Result<(), Fault> {
        self.settle().map_err(Fault::Store)?;
        let line = self.sync_line(&large.file, &large.summary, &job.actor);
        let line = line.map_err(Fault::Audit)?;
        let publisher = large.shelf.publisher.to_string();
        let successes = large.succeeded.iter();
        let batch = Batch {
            revision: large.revision,
            synced: large.synced.then_some(publisher).into_iter().collect(),
            successes: successes
                .map(|name| (name.to_string(), Moment::at(now)))
                .collect(),
            audit: Some(self.audit.known()),
            ..Batch::default()
        };
        let committed = self.shared.store.apply(&batch, now);
        // Revisions are never given twice.
        self.revision = large.revision;
        if let Err(error) = committed {
            self.reopen();
            // It may have taken after all.
            self.owed = Some(self.undo_of(large));
            return Err(Fault::Store(error));
        }
        if let Err(error) = self.audit.append(&[line], now.wall_ms) {
            self.take_back(self.undo_of(large), now);
            return Err(Fault::Audit(error));
        }
        large.shelf.come();
        self.shared.audit_head.store(Arc::new(self.audit.head()));
        self.shared.published.send_replace(self.revision);
        Ok(())
    }

    /// Some of its rows, in their place: readers see them already. Blocks.
    pub(super) fn place(&mut self, large: &Large, slice: Range<usize>, now: Now) {
        let publisher = &large.shelf.publisher;
        let changes: Vec<_> = large.rows[slice.clone()]
            .iter()
            .map(|row| (row.credential.clone(), row.row.clone()))
            .collect();
        large.shelf.place(&changes);
        for (credential, row) in changes {
            if let Some(held) = self.held.get_mut(publisher) {
                held.remove(&credential);
            }
            let key = (Arc::clone(publisher), credential);
            if let Some(row) = &row {
                self.set_timer(&key, row);
            }
            self.fold.add(&key);
        }
        let tombstones = large.tombstones(slice, Touched::is_unburied, |_| None);
        if tombstones.is_empty() {
            return;
        }
        let batch = Batch {
            revision: self.revision,
            tombstones,
            ..Batch::default()
        };
        if let Err(error) = self.shared.store.apply(&batch, now) {
            // They end by themselves after a day.
            tracing::error!("{error}");
            self.reopen();
        }
    }

    /// The last of it.
    pub(super) fn placed(&mut self, large: &Large, now: Now) {
        large.shelf.placed();
        self.publish_held();
        for (publisher, revision) in &large.renewals {
            self.renewals.add(publisher, *revision, now.wall_ms);
        }
        self.shared.set_alarm(DISK_ALARM, None);
        for publisher in &large.succeeded {
            self.shared.memory.shelf_for(publisher);
            self.shared.succeeded(publisher);
        }
        // What another policy makes of it was not told yet.
        if self.shared.view.load().epoch != large.epoch {
            self.sweeps.policy_changed();
        }
    }

    /// Tells of a disk that has failed, and what the sync is answered.
    pub(super) fn fault(&mut self, fault: &Fault) -> Refusal {
        let failed = self.failed(Vec::new(), fault);
        let refusal = failed.refusal.clone();
        // What is kept back is for what needs no more room.
        let _: Option<Vec<Job>> = self.after_failure(failed);
        refusal
    }
}
