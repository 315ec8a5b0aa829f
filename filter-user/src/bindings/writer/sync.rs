//! The end of a full sync: what differs becomes the publisher's whole set, in one step or not at all.

use std::collections::HashSet;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::ground::Ground;
use super::group::{Answered, Group, Key};
use super::job::{Done, Job};
use crate::bindings::audit::Line;
use crate::bindings::memory::Shelf;
use crate::bindings::model::body::Wanted;
use crate::bindings::model::decide::{self, Stored};
use crate::bindings::model::lease::{Standing, standing};
use crate::bindings::model::row::{Row, Told};
use crate::bindings::refusal::{Code, Refusal};
use crate::bindings::requests::{Actor, Answer, Conditions, Event, Outcome, SyncOptions, SyncSummary};
use crate::bindings::store::StoreError;

/// Revocations that are always allowed, so that small sets can change.
const REVOCATIONS_FREE: u64 = 10;
/// Changes looked at in one read of the store.
const SLICE: usize = 4_096;

/// A sync whose lines have all been read and judged.
pub(crate) struct SyncJob {
    pub(crate) actor: Arc<Actor>,
    pub(crate) options: SyncOptions,
    pub(crate) as_of: u64,
    pub(crate) epoch: u64,
    /// What differed from memory when its line was read, with its line.
    pub(crate) puts: Vec<(u64, Arc<str>, Wanted)>,
    /// Of the lines that did not differ.
    pub(crate) unchanged: u64,
    pub(crate) named: Named,
    pub(crate) lines: u64,
    pub(crate) reply: Option<oneshot::Sender<Answer<SyncSummary>>>,
}

/// The credentials that a sync names, as keyed 64-bit hashes: a million take 16 MB, and nobody can aim at a clash.
#[derive(Default)]
pub(crate) struct Named {
    hashes: HashSet<u64>,
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

impl Group {
    pub(super) fn sync(
        &mut self,
        job: Box<SyncJob>,
        ground: &Ground<'_>,
    ) -> Result<(), Box<(Job, StoreError)>> {
        match self.decide_sync(&job, ground) {
            Err(Fault::Store(error)) => Err(Box::new((Job::Sync(job), error))),
            Err(Fault::Refused(refusal)) => {
                self.answers.push(Answered::Sync(job, Err(refusal)));
                Ok(())
            }
            Ok(summary) => {
                self.note_success(Some(&job.actor));
                self.answers.push(Answered::Sync(job, Ok(summary)));
                Ok(())
            }
        }
    }

    fn decide_sync(&mut self, job: &SyncJob, ground: &Ground<'_>) -> Result<SyncSummary, Fault> {
        let publisher: Arc<str> = job.options.publisher.as_str().into();
        let shelf = ground.memory.shelf_for(&publisher);
        let deleted = deleted_since(job, ground)?;
        let mut summary = SyncSummary {
            lines: job.lines,
            unchanged: job.unchanged,
            dry_run: job.options.dry_run,
            ..SyncSummary::default()
        };
        // Decided in a group of its own: a fault in the middle, or a dry run, leaves nothing behind.
        let mut group = Group::new(self.revision, ground.now.boot_id);
        let (revoked, of_count) = group.revocations(job, &shelf, ground)?;
        // They make room for what the sync adds.
        group.gain(&publisher, -of_count.cast_signed());
        let (newer, of_unchanged) = newer(job, &shelf, &deleted);
        summary.kept_newer += newer;
        summary.unchanged = summary.unchanged.saturating_sub(of_unchanged);
        for (line, credential, wanted) in &job.puts {
            let key = (Arc::clone(&publisher), Arc::clone(credential));
            if deleted.contains(credential) {
                summary.kept_newer += 1;
                continue;
            }
            group.sync_put(job, &key, wanted, *line, &mut summary, ground)?;
        }
        group.gain(&publisher, of_count.cast_signed());
        for credential in &revoked {
            let key = (Arc::clone(&publisher), Arc::clone(credential));
            group.load(&key, ground).map_err(Fault::Store)?;
            let row_version = group.entries[&key].row.as_ref().and_then(|row| row.row_version);
            let deleted = decide::Deleted {
                removed: true,
                tombstone: row_version,
            };
            group.remove(&key, deleted, Some(&job.actor), ground);
        }
        summary.revoked = revoked.len() as u64;
        summary.revision = self.revision;
        if job.options.dry_run {
            return Ok(summary);
        }
        if shelf.unsynced.load(Ordering::Acquire) {
            group.resume_all(&shelf, ground)?;
        }
        // One line for all, beside a file that has each of them.
        let changes = std::mem::take(&mut group.lines);
        summary.revision = group.revision;
        group.sync_file = Some((changes, summary.clone(), Arc::clone(&job.actor)));
        // A sync is alone in its group.
        *self = group;
        Ok(summary)
    }

    fn sync_put(
        &mut self,
        job: &SyncJob,
        key: &Key,
        wanted: &Wanted,
        line: u64,
        summary: &mut SyncSummary,
        ground: &Ground<'_>,
    ) -> Result<(), Fault> {
        let at_line = |refusal: Refusal| {
            let credential = key.1.to_string();
            Fault::Refused(refusal.with("line", line).with("credential", credential))
        };
        if job.epoch != ground.view.epoch {
            let judged = ground
                .view
                .judge_again(&key.0, Some(&wanted.content), wanted.lease_ms);
            judged.map_err(at_line)?;
        }
        self.load(key, ground).map_err(Fault::Store)?;
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
        let stored = match (&row, entry.tombstone) {
            (Some(row), _) => Stored::Row(row),
            (None, Some((version, _))) => Stored::Tombstone(version),
            (None, None) => Stored::Nothing,
        };
        let hold = entry.shelf.facts().hold(ground.view, &key.0);
        let standing = row.as_ref().map_or(Standing::Running, |row| {
            standing(row.end, hold, ground.now.boot_ms)
        });
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

    /// What the sync does not name and nobody has written since, and how many of them count as bindings.
    fn revocations(
        &self,
        job: &SyncJob,
        shelf: &Arc<Shelf>,
        ground: &Ground<'_>,
    ) -> Result<(Vec<Arc<str>>, u64), Fault> {
        let mut revoked = Vec::new();
        let (mut in_force, mut counted) = (0, 0);
        shelf.each(|credential, row| {
            let ended = row.told == Told::Ended;
            in_force += u64::from(!ended);
            if !job.named.contains(credential) && row.revision <= job.as_of {
                counted += u64::from(!ended);
                revoked.push(Arc::clone(credential));
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
            return Err(Fault::Refused(
                refusal.with("revocations", counted).with("revoke_max", most),
            ));
        }
        Ok((revoked, counted))
    }

    /// After a restore: what is kept is in force again.
    fn resume_all(&mut self, shelf: &Arc<Shelf>, ground: &Ground<'_>) -> Result<(), Fault> {
        let mut credentials = Vec::new();
        shelf.each(|credential, _| credentials.push(Arc::clone(credential)));
        for credential in credentials {
            let key = (Arc::clone(&shelf.publisher), credential);
            self.load(&key, ground).map_err(Fault::Store)?;
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
fn newer(job: &SyncJob, shelf: &Shelf, deleted: &HashSet<Arc<str>>) -> (u64, u64) {
    let mut newer: Vec<Arc<str>> = deleted
        .iter()
        .filter(|credential| job.named.contains(credential))
        .cloned()
        .collect();
    shelf.each(|credential, row| {
        if row.revision > job.as_of {
            newer.push(Arc::clone(credential));
        }
    });
    if newer.is_empty() {
        return (0, 0);
    }
    // A put counts itself.
    let puts: HashSet<&str> = job.puts.iter().map(|(_, credential, _)| &**credential).collect();
    newer.retain(|credential| !puts.contains(&**credential));
    let of_unchanged = newer.iter().filter(|credential| job.named.contains(credential));
    (newer.len() as u64, of_unchanged.count() as u64)
}

enum Fault {
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
fn deleted_since(job: &SyncJob, ground: &Ground<'_>) -> Result<HashSet<Arc<str>>, Fault> {
    if job.as_of < ground.store.changes_begin().map_err(Fault::Store)? {
        let detail = "the changes since as_of are no longer kept: read your rows again, and sync";
        return Err(Fault::Refused(Refusal::new(Code::Gone, detail)));
    }
    let mut deleted = HashSet::new();
    let mut since = job.as_of;
    loop {
        let changes = ground
            .store
            .changes(since, u64::MAX, SLICE)
            .map_err(Fault::Store)?;
        let Some((last, _)) = changes.last() else {
            return Ok(deleted);
        };
        since = *last;
        for (_, change) in changes {
            if change.publisher != job.options.publisher {
                continue;
            }
            if change.event == Event::Delete {
                deleted.insert(change.credential.into());
            } else if change.event == Event::Put {
                deleted.remove(change.credential.as_str());
            }
        }
    }
}

/// What a line of a change file says.
#[derive(serde::Serialize)]
struct Change<'l> {
    what: &'static str,
    revision: Option<u64>,
    change: &'l serde_json::Map<String, serde_json::Value>,
}

/// What one takes, mostly.
const CHANGE_BYTES: usize = 512;

/// The bytes of a sync's change file: a line a change.
pub(crate) fn change_file(changes: &[Line]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(changes.len() * CHANGE_BYTES);
    for line in changes {
        let change = Change {
            what: line.what,
            revision: line.revision,
            change: &line.members,
        };
        serde_json::to_writer(&mut bytes, &change).expect("writing to memory cannot fail");
        bytes.push(b'\n');
    }
    bytes
}
