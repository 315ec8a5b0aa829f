//! What a full sync comes to: decided beside the writer, on the rows of a publisher that nobody else changes meanwhile.
//!
//! Touches nothing but its change file: `syncs` makes it durable, in force and seen.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use foldhash::fast::RandomState;
use tokio::sync::oneshot;

use super::durable::Fault;
use super::ground::Ground;
use super::group::{Answered, Group, Key};
use super::job::Done;
use super::large::Large;
use crate::bindings::clock::Now;
use crate::bindings::memory::Shelf;
use crate::bindings::model::allowance::PolicyView;
use crate::bindings::model::body::Wanted;
use crate::bindings::model::decide::{self, Stored};
use crate::bindings::model::owned::Credential;
use crate::bindings::model::row::{Row, Told};
use crate::bindings::refusal::{Code, Refusal};
use crate::bindings::requests::{Actor, Answer, Conditions, Event, Outcome, SyncOptions, SyncSummary};
use crate::bindings::shared::Shared;
use crate::bindings::store::StoreError;

/// Revocations that are always allowed, so that small sets can change.
const REVOCATIONS_FREE: u64 = 10;
/// Changes looked at in one read of the store.
const SLICE: usize = 4_096;
/// Bindings of a sync that is made like any other group: others wait for it as long as for these.
const SMALL: usize = 512;

/// A sync whose lines have all been read and judged.
pub(crate) struct SyncJob {
    pub(crate) actor: Arc<Actor>,
    pub(crate) options: SyncOptions,
    pub(crate) as_of: u64,
    pub(crate) epoch: u64,
    /// What differed from memory when its line was read, with its line.
    pub(crate) puts: Vec<(u64, Credential, Wanted)>,
    /// Of the lines that did not differ.
    pub(crate) unchanged: u64,
    pub(crate) named: Named,
    pub(crate) lines: u64,
    pub(crate) reply: Option<oneshot::Sender<Answer<SyncSummary>>>,
}

/// The credentials that a sync names, as keyed 64-bit hashes: a million take 16 MB, and nobody can aim at a clash.
#[derive(Default)]
pub(crate) struct Named {
    hashes: HashSet<u64, RandomState>,
    keys: std::hash::RandomState,
}

impl Named {
    /// False where it was named before.
    pub(crate) fn add(&mut self, credential: &str) -> bool {
        self.hashes.insert(self.keys.hash_one(credential))
    }

    pub(crate) fn contains(&self, credential: &str) -> bool {
        self.hashes.contains(&self.keys.hash_one(credential))
    }
}

/// Where a sync is decided.
#[derive(Clone, Copy)]
pub(super) struct At {
    /// That of the store.
    pub(super) revision: u64,
    /// Its own begin after this one.
    pub(super) base: u64,
    pub(super) now: Now,
}

/// What it comes to.
pub(super) enum Decision {
    /// With nothing to write: refused, or asked for its summary alone.
    Answer(Answer<SyncSummary>),
    /// Like any other group.
    Small(Box<Group>, SyncSummary),
    Large(Box<Large>),
    Failed(Fault),
}

/// Decides a sync. Blocks, for as long as its publisher has bindings.
pub(super) fn decide(job: &mut SyncJob, shared: &Shared, view: &PolicyView, at: At) -> Decision {
    let denies = shared.denies.load_full();
    let ground = Ground {
        memory: &shared.memory,
        before: None,
        store: &shared.store,
        deleted: OnceCell::new(),
        view,
        denies: &denies,
        now: at.now,
    };
    let (mut group, mut summary) = match Group::of_sync(job, &ground, at) {
        Ok(decided) => decided,
        Err(Unfit::Refused(refusal)) => return Decision::Answer(Err(refusal)),
        Err(Unfit::Store(error)) => return Decision::Failed(Fault::Store(error)),
    };
    if job.options.dry_run {
        summary.revision = at.revision;
        return Decision::Answer(group.fits(shared, &ground).map(|()| summary));
    }
    group.note_success(Some(&job.actor));
    if group.touched.len() <= SMALL {
        return Decision::Small(Box::new(group), summary);
    }
    // As large as the stream.
    job.puts = Vec::new();
    job.named = Named::default();
    match Large::of(group, summary, shared, view.epoch) {
        Ok(large) => Decision::Large(Box::new(large)),
        Err(error) => Decision::Failed(Fault::Audit(error)),
    }
}

impl Group {
    fn of_sync(job: &SyncJob, ground: &Ground<'_>, at: At) -> Result<(Group, SyncSummary), Unfit> {
        let publisher: Arc<str> = job.options.publisher.as_str().into();
        let shelf = ground.memory.shelf_for(&publisher);
        let deleted = deleted_since(job, ground, at.revision)?;
        let mut summary = SyncSummary {
            lines: job.lines,
            unchanged: job.unchanged,
            dry_run: job.options.dry_run,
            ..SyncSummary::default()
        };
        let mut group = Group::new(at.base, at.now.boot_id);
        let (revoked, of_count, newer) = group.revocations(job, &shelf, ground)?;
        // They make room for what the sync adds.
        group.gain(&publisher, -of_count.cast_signed());
        let (newer, of_unchanged) = kept_newer(job, newer, &deleted);
        summary.kept_newer += newer;
        summary.unchanged = summary.unchanged.saturating_sub(of_unchanged);
        for (line, credential, wanted) in &job.puts {
            let key = (Arc::clone(&publisher), credential.clone());
            if deleted.contains(credential) {
                summary.kept_newer += 1;
                continue;
            }
            group.sync_put(job, &key, wanted, *line, &mut summary, ground)?;
        }
        group.gain(&publisher, of_count.cast_signed());
        for credential in &revoked {
            let key = (Arc::clone(&publisher), credential.clone());
            group.load(&key, ground).map_err(Unfit::Store)?;
            let row_version = group.entries[&key].row.as_ref().and_then(|row| row.row_version);
            let deleted = decide::Deleted {
                removed: true,
                tombstone: row_version,
            };
            group.remove(&key, deleted, Some(&job.actor), ground);
        }
        summary.revoked = revoked.len() as u64;
        if shelf.unsynced.load(Ordering::Acquire) != 0 {
            group.resume_all(&shelf, ground)?;
        }
        Ok((group, summary))
    }

    /// Its revisions begin after `to`, which is below those that it was decided with.
    pub(super) fn rebase(&mut self, to: u64) {
        let first = self.first_revision;
        let by = first - 1 - to;
        let moved = |revision: u64| {
            if revision >= first {
                revision - by
            } else {
                revision
            }
        };
        for row in self.entries.values_mut().filter_map(|entry| entry.row.as_mut()) {
            // Others' rows stay theirs.
            if row.revision >= first {
                Arc::make_mut(row).revision -= by;
            }
        }
        for (revision, change) in &mut self.changes {
            *revision = moved(*revision);
            if let Some(row) = &mut change.row {
                row.revision = moved(row.revision);
            }
        }
        for line in &mut self.lines {
            line.revision = line.revision.map(moved);
        }
        for (_, revision) in &mut self.renewals {
            *revision = moved(*revision);
        }
        self.first_revision = to + 1;
        self.revision -= by;
    }

    /// One line of the audit log for all, beside a file that has each of them.
    pub(super) fn answer_sync(&mut self, job: Box<SyncJob>, mut summary: SyncSummary) {
        let changes = std::mem::take(&mut self.lines);
        summary.revision = self.revision;
        self.sync_file = Some((changes, summary.clone(), Arc::clone(&job.actor)));
        self.answers.push(Answered::Sync(job, Ok(summary)));
    }

    fn sync_put(
        &mut self,
        job: &SyncJob,
        key: &Key,
        wanted: &Wanted,
        line: u64,
        summary: &mut SyncSummary,
        ground: &Ground<'_>,
    ) -> Result<(), Unfit> {
        let at_line = |refusal: Refusal| {
            let credential = key.1.to_string();
            Unfit::Refused(refusal.with("line", line).with("credential", credential))
        };
        if job.epoch != ground.view.epoch {
            let judged = ground
                .view
                .judge_again(&key.0, Some(&wanted.content), wanted.lease_ms);
            judged.map_err(at_line)?;
        }
        self.load(key, ground).map_err(Unfit::Store)?;
        let entry = &self.entries[key];
        let row = entry.row.clone();
        let newer = match (&row, entry.tombstone) {
            (Some(row), _) if row.revision > job.as_of => true,
            (Some(row), _) => row.row_version > wanted.row_version && wanted.row_version.is_some(),
            (None, Some((version, _))) => wanted.row_version.is_some_and(|given| given <= version),
            (None, None) => false,
        };
        if newer {
            summary.kept_newer += 1;
            return Ok(());
        }
        let facts = entry.shelf.facts();
        let stored = match (&row, entry.tombstone) {
            // It is confirmed with the whole set, and need not be written for that.
            (Some(row), _) if row.content == wanted.content => Stored::Row(row),
            (Some(row), _) => facts.stored(row),
            (None, Some((version, _))) => Stored::Tombstone(version),
            (None, None) => Stored::Nothing,
        };
        let standing = facts.standing(ground.view, &key.0, row.as_deref(), ground.now);
        let written = decide::put(stored, standing, wanted, &Conditions::default(), ground.now);
        let written = written.map_err(at_line)?;
        let done = self
            .write(key, written, Some(&job.actor), ground)
            .map_err(at_line)?;
        if let Done::Put { outcome, .. } = done {
            match outcome {
                Outcome::Created => summary.created += 1,
                Outcome::Changed => summary.changed += 1,
                Outcome::Renewed => summary.renewed += 1,
                Outcome::Unchanged => summary.unchanged += 1,
            }
        }
        Ok(())
    }

    /// What the sync does not name and nobody has written since, and how many of them count as bindings; and what
    /// another has written since.
    fn revocations(
        &self,
        job: &SyncJob,
        shelf: &Arc<Shelf>,
        ground: &Ground<'_>,
    ) -> Result<(Vec<Credential>, u64, Vec<Credential>), Unfit> {
        let (mut revoked, mut newer) = (Vec::new(), Vec::new());
        let (mut in_force, mut counted) = (0, 0);
        shelf.each(|credential, row| {
            let ended = row.told == Told::Ended;
            in_force += u64::from(!ended);
            if row.revision > job.as_of {
                newer.push(credential.clone());
            } else if !job.named.contains(credential) {
                counted += u64::from(!ended);
                revoked.push(credential.clone());
            }
        });
        let allowance = ground.view.publisher(&job.options.publisher);
        let percent = allowance.map_or(0.0, |allowance| allowance.publisher.revoke_max_percent);
        let most = job
            .options
            .revoke_max
            .unwrap_or_else(|| share_of(in_force, percent).max(REVOCATIONS_FREE));
        // A dry run tells the number instead.
        if counted > most && !job.options.dry_run {
            let detail = format!(
                "{counted} of {in_force} bindings would be revoked, of at most {most}; nothing was changed: \
                 `?dry_run=true` tells what would be, and where that is meant, `?revoke_max={counted}` admits it"
            );
            let refusal = Refusal::new(Code::MassRevocation, detail);
            return Err(Unfit::Refused(
                refusal.with("revocations", counted).with("revoke_max", most),
            ));
        }
        Ok((revoked, counted, newer))
    }

    /// After a restore: what is kept is in force again.
    fn resume_all(&mut self, shelf: &Arc<Shelf>, ground: &Ground<'_>) -> Result<(), Unfit> {
        let mut credentials = Vec::new();
        shelf.each(|credential, _| credentials.push(credential.clone()));
        for credential in credentials {
            let key = (Arc::clone(&shelf.publisher), credential);
            self.load(&key, ground).map_err(Unfit::Store)?;
            let Some(row) = self.entries[&key].row.clone() else {
                continue;
            };
            let why = ground.view.suspends(&key.0, &row.content, row.end.is_none());
            if row.told != Told::Suspended || why.is_some() {
                continue;
            }
            let row = Arc::new(Row {
                told: Told::Active,
                ..Row::clone(&row)
            });
            let revision = self.next_revision();
            self.log(&key, Event::Resume, Some(&row), revision, ground.now);
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.row = Some(row);
            }
        }
        self.synced.push(Arc::clone(shelf));
        Ok(())
    }
}

/// What another write has made or deleted since the sync's time, beside the sync's own puts: not named, or named with
/// a line that did not differ when it was read. The second number is of those lines: counted as unchanged before.
fn kept_newer(job: &SyncJob, mut newer: Vec<Credential>, deleted: &HashSet<Credential>) -> (u64, u64) {
    let deleted = deleted.iter().filter(|credential| job.named.contains(credential));
    newer.extend(deleted.cloned());
    if newer.is_empty() {
        return (0, 0);
    }
    // A put counts itself.
    let puts: HashSet<&str> = job.puts.iter().map(|(_, credential, _)| &**credential).collect();
    newer.retain(|credential| !puts.contains(&**credential));
    let of_unchanged = newer.iter().filter(|credential| job.named.contains(credential));
    (newer.len() as u64, of_unchanged.count() as u64)
}

/// Why a sync is not to be.
enum Unfit {
    Store(StoreError),
    Refused(Refusal),
}

/// `percent` of a count, rounded down.
fn share_of(count: u64, percent: f64) -> u64 {
    // Ten thousandths of a percent are exact enough, and whole numbers do not surprise.
    let parts = (percent * 10_000.0).round();
    let parts = if parts.is_finite() && parts >= 0.0 {
        parts
    } else {
        0.0
    };
    // In range: the policy has at most 100 %.
    let parts = parts.min(1_000_000.0).to_string().parse::<u64>().unwrap_or(0);
    u64::try_from(u128::from(count) * u128::from(parts) / 1_000_000).unwrap_or(u64::MAX)
}

/// The credentials that another write has deleted after the sync's time.
fn deleted_since(job: &SyncJob, ground: &Ground<'_>, until: u64) -> Result<HashSet<Credential>, Unfit> {
    if job.as_of < ground.store.changes_begin().map_err(Unfit::Store)? {
        let detail = "the changes since as_of are no longer kept: read your rows again, and sync";
        return Err(Unfit::Refused(Refusal::new(Code::Gone, detail)));
    }
    let mut deleted = HashSet::new();
    let mut since = job.as_of;
    loop {
        let changes = ground.store.changes(since, until, SLICE).map_err(Unfit::Store)?;
        let Some((last, _)) = changes.last() else {
            return Ok(deleted);
        };
        since = *last;
        for (_, change) in changes {
            if change.publisher != job.options.publisher {
                continue;
            }
            if change.event == Event::Delete {
                deleted.insert(Credential::new(&change.publisher, &change.credential));
            } else if change.event == Event::Put {
                deleted.remove(change.credential.as_str());
            }
        }
    }
}
