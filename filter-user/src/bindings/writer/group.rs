//! A group of jobs that share one commit: decided one after the other, each on what the ones before left.
//!
//! Touches nothing: what it decides is in its fields, for the writer to make durable, audited, in force and seen.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::denies::{Denies, DenyJob};
use super::effects::{PutLine, binding_line, shown};
use super::ground::Ground;
use super::job::{BindingJob, Done, Job, Op};
use crate::bindings::audit::Line;
use crate::bindings::clock::Now;
use crate::bindings::memory::Shelf;
use crate::bindings::model::decide::{self, Stored, Written};
use crate::bindings::model::lease::{Standing, kernel_end};
use crate::bindings::model::owned::Credential;
use crate::bindings::model::row::{Row, Told, told_of};
use crate::bindings::model::view::{PublisherFacts, state};
use crate::bindings::refusal::{Code, Refusal};
use crate::bindings::requests::{Actor, Answer, Caller, Event, Outcome, State};
use crate::bindings::seam::Change;
use crate::bindings::store::{StoreError, StoredChange};

/// Bindings that have ended are kept this long.
pub(crate) const ENDED_KEPT_MS: i64 = 24 * 3_600_000;

pub(crate) type Key = (Arc<str>, Credential);

/// What a credential was before the group, and is after the jobs so far.
pub(crate) struct Entry {
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) before: Option<Arc<Row>>,
    pub(crate) row: Option<Arc<Row>>,
    /// Row version and wall clock of a deletion.
    pub(crate) tombstone_before: Option<(u64, i64)>,
    pub(crate) tombstone: Option<(u64, i64)>,
}

pub(crate) struct Group {
    pub(crate) entries: HashMap<Key, Entry, RandomState>,
    /// In the order in which they were touched first.
    pub(crate) touched: Vec<Key>,
    /// Bindings that each publisher gained (less: lost) within the group.
    pub(super) gained: HashMap<Arc<str>, i64>,
    /// Row versions of credentials that were not there that each publisher left within the group.
    pub(super) buried: HashMap<Arc<str>, u64>,
    pub(crate) first_revision: u64,
    pub(crate) revision: u64,
    pub(crate) changes: Vec<(u64, StoredChange)>,
    pub(crate) lines: Vec<Line>,
    /// Publisher and revision of each renewal.
    pub(crate) renewals: Vec<(Arc<str>, u64)>,
    pub(crate) denies: Option<Denies>,
    pub(crate) deny_changes: Vec<Change>,
    pub(crate) deny_names: Vec<String>,
    /// Of a sync: its lines, which go into a file of their own, what it came to, and whose it was.
    pub(crate) sync_file: Option<(Vec<Line>, crate::bindings::requests::SyncSummary, Arc<Actor>)>,
    /// What is held past its end, and until when.
    pub(crate) held: Vec<(Key, i64)>,
    /// Publishers that this group brought back after a restore.
    pub(crate) synced: Vec<Arc<Shelf>>,
    pub(crate) answers: Vec<Answered>,
    pub(crate) succeeded: Vec<Arc<str>>,
    pub(super) boot_id: u128,
}

/// A job with the answer it gets once the group is in force.
pub(crate) enum Answered {
    Binding(BindingJob, Answer<Done>),
    Deny(DenyJob, Answer<Option<crate::bindings::requests::DenyView>>),
    Sync(
        Box<super::sync::SyncJob>,
        Answer<crate::bindings::requests::SyncSummary>,
    ),
    Note(
        Line,
        tokio::sync::oneshot::Sender<Answer<crate::bindings::requests::AuditHead>>,
    ),
}

impl Answered {
    pub(super) fn is_sync(&self) -> bool {
        matches!(self, Answered::Sync(..))
    }
}

impl Group {
    pub(crate) fn new(revision: u64, boot_id: u128) -> Group {
        Group {
            entries: HashMap::default(),
            touched: Vec::new(),
            gained: HashMap::new(),
            buried: HashMap::new(),
            first_revision: revision + 1,
            revision,
            changes: Vec::new(),
            lines: Vec::new(),
            renewals: Vec::new(),
            denies: None,
            deny_changes: Vec::new(),
            deny_names: Vec::new(),
            sync_file: None,
            held: Vec::new(),
            synced: Vec::new(),
            answers: Vec::new(),
            succeeded: Vec::new(),
            boot_id,
        }
    }

    /// So many jobs are to come.
    pub(crate) fn reserve(&mut self, jobs: usize) {
        self.entries.reserve(jobs);
        self.touched.reserve(jobs);
        self.changes.reserve(jobs);
        self.lines.reserve(jobs);
        self.answers.reserve(jobs);
    }

    /// Decides one job. An error is the store's, and ends the group.
    pub(crate) fn add(&mut self, job: Job, ground: &Ground<'_>) -> Result<(), Box<(Job, StoreError)>> {
        match job {
            Job::Binding(job) => {
                let key = (Arc::clone(&job.publisher), job.credential.clone());
                if let Err(error) = self.load(&key, ground) {
                    return Err(Box::new((Job::Binding(job), error)));
                }
                let answer = self.decide(&key, &job.op, job.actor.as_ref(), ground);
                if answer.is_ok() {
                    self.note_success(job.actor.as_deref());
                }
                self.answers.push(Answered::Binding(job, answer));
            }
            Job::Deny(job) => self.deny(job, ground),
            Job::Note(line, reply) => {
                self.lines.push(line.clone());
                self.answers.push(Answered::Note(line, reply));
            }
            // The writer's own, beside groups and between two.
            Job::Sync(_) | Job::Restore(_) => {}
        }
        Ok(())
    }

    pub(crate) fn note_success(&mut self, actor: Option<&Actor>) {
        if let Some(Caller::Publisher(name)) = actor.map(|actor| &actor.caller)
            && !self.succeeded.iter().any(|known| **known == **name)
        {
            self.succeeded.push(name.as_str().into());
        }
    }

    pub(crate) fn load(&mut self, key: &Key, ground: &Ground<'_>) -> Result<(), StoreError> {
        if self.entries.contains_key(key) {
            return Ok(());
        }
        let shelf = ground.memory.shelf_for(&key.0);
        let before = ground.before.and_then(|group| group.entries.get(key));
        let (row, tombstone) = match before {
            Some(entry) => (entry.row.clone(), entry.tombstone),
            None => match shelf.get(&key.1) {
                Some(row) => (Some(row), None),
                None => (None, ground.tombstone(key)?),
            },
        };
        let entry = Entry {
            shelf,
            before: row.clone(),
            row,
            tombstone_before: tombstone,
            tombstone,
        };
        self.entries.insert(key.clone(), entry);
        self.touched.push(key.clone());
        Ok(())
    }

    pub(crate) fn next_revision(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    pub(crate) fn gain(&mut self, publisher: &Arc<str>, bindings: i64) {
        *self.gained.entry(Arc::clone(publisher)).or_default() += bindings;
    }

    fn decide(
        &mut self,
        key: &Key,
        op: &Op,
        actor: Option<&Arc<Actor>>,
        ground: &Ground<'_>,
    ) -> Answer<Done> {
        let entry = &self.entries[key];
        let facts = entry.shelf.facts();
        let row = entry.row.clone();
        let stored = match (&row, entry.tombstone) {
            (Some(row), _) => facts.stored(row),
            (None, Some((version, _))) => Stored::Tombstone(version),
            (None, None) => Stored::Nothing,
        };
        let standing_now = facts.standing(ground.view, &key.0, row.as_deref(), ground.now);
        match op {
            Op::Put {
                wanted,
                epoch,
                conditions,
            } => {
                if *epoch != ground.view.epoch {
                    ground
                        .view
                        .judge_again(&key.0, Some(&wanted.content), wanted.lease_ms)?;
                }
                let written = decide::put(stored, standing_now, wanted, conditions, ground.now)?;
                self.write(key, written, actor, ground)
            }
            Op::Renew {
                lease_ms,
                row_version,
                epoch,
            } => {
                if *epoch != ground.view.epoch {
                    ground.view.judge_again(&key.0, None, *lease_ms)?;
                }
                let written = decide::renew(stored, standing_now, *lease_ms, *row_version, ground.now)?;
                self.write(key, written, actor, ground)
            }
            Op::Delete {
                row_version,
                conditions,
            } => {
                let deleted = decide::delete(stored, *row_version, conditions)?;
                if deleted.tombstone.is_some() && matches!(stored, Stored::Nothing) {
                    self.judge_buried(key, ground)?;
                }
                Ok(self.remove(key, deleted, actor.map(AsRef::as_ref), ground))
            }
            Op::Review => {
                self.review(key, facts, standing_now, ground);
                Ok(Done::Nothing)
            }
        }
    }

    pub(crate) fn write(
        &mut self,
        key: &Key,
        written: Option<Written>,
        actor: Option<&Arc<Actor>>,
        ground: &Ground<'_>,
    ) -> Answer<Done> {
        let entry = &self.entries[key];
        let Some(written) = written else {
            let row = entry.row.clone();
            let row = row.ok_or_else(|| Refusal::new(Code::UnknownCredential, "there is no such binding"))?;
            let outcome = Outcome::Unchanged;
            return Ok(Done::Put { outcome, row });
        };
        if written.outcome == Outcome::Created {
            self.judge_count(key, ground)?;
        }
        let revision = self.next_revision();
        let entry = self.entries.get_mut(key).expect("it was loaded above");
        let mut row = written.row;
        if row.revision == 0 {
            row.revision = revision;
        }
        row.told = Told::Active;
        let (state, _) = state(ground.view, &key.0, entry.shelf.facts(), &row, ground.now.boot_ms);
        row.told = told_of(state);
        let row = Arc::new(row);
        let before = entry.row.replace(Arc::clone(&row));
        entry.tombstone = None;
        self.log(key, written.event, Some(&row), revision, ground.now);
        if written.event == Event::Renew {
            self.renewals.push((Arc::clone(&key.0), revision));
        } else {
            let put = PutLine {
                key: key.clone(),
                actor: actor.cloned(),
                before,
                after: Arc::clone(&row),
            };
            self.lines.push(Line::later("put", put).at(revision));
        }
        if written.outcome == Outcome::Created {
            self.gain(&key.0, 1);
        }
        Ok(Done::Put {
            outcome: written.outcome,
            row,
        })
    }

    pub(crate) fn remove(
        &mut self,
        key: &Key,
        deleted: decide::Deleted,
        actor: Option<&Actor>,
        ground: &Ground<'_>,
    ) -> Done {
        let entry = self.entries.get_mut(key).expect("it was loaded above");
        if let Some(version) = deleted.tombstone {
            entry.tombstone = Some((version, ground.now.wall_ms));
        }
        let row_version = deleted.tombstone;
        if !deleted.removed {
            if let Some(version) = deleted.tombstone {
                let line = binding_line("delete", key, actor).with("row_version", version);
                self.lines.push(line.with("removed", false));
            }
            return Done::Delete {
                removed: false,
                row_version,
                revision: self.revision,
            };
        }
        let before = entry.row.take();
        let revision = self.next_revision();
        self.log(key, Event::Delete, None, revision, ground.now);
        let line = binding_line("delete", key, actor).with("before", shown(before.as_deref()));
        self.lines.push(line.at(revision));
        // What has ended did not count.
        if before.is_some_and(|row| row.told != Told::Ended) {
            self.gain(&key.0, -1);
        }
        Done::Delete {
            removed: true,
            row_version,
            revision,
        }
    }

    /// Tells what time or the policy has made of it.
    fn review(&mut self, key: &Key, facts: PublisherFacts, standing: Standing, ground: &Ground<'_>) {
        let entry = &self.entries[key];
        let Some(row) = entry.row.clone() else { return };
        let (state, why) = state(ground.view, &key.0, facts, &row, ground.now.boot_ms);
        let told = told_of(state);
        let hold = facts.hold(ground.view, &key.0);
        if state == State::Held
            && let Some(end) = row.end
        {
            self.held.push((key.clone(), kernel_end(end, hold)));
        }
        if told == row.told {
            let over_ms = row
                .end
                .map_or(0, |end| ground.now.boot_ms.saturating_sub(kernel_end(end, hold)));
            if told == Told::Ended && standing == Standing::Over && over_ms >= ENDED_KEPT_MS {
                let deleted = decide::Deleted {
                    removed: true,
                    tombstone: row.row_version,
                };
                self.remove(key, deleted, None, ground);
            }
            return;
        }
        let event = match (row.told, state) {
            (_, State::Ended) => Event::Expire,
            (_, State::Suspended) => Event::Suspend,
            (_, State::Active | State::Held) => Event::Resume,
        };
        let what = match event {
            Event::Expire => "expire",
            Event::Suspend => "suspend",
            _ => "resume",
        };
        let row = Arc::new(Row {
            told,
            ..Row::clone(&row)
        });
        let revision = self.next_revision();
        self.entries.get_mut(key).expect("it was loaded above").row = Some(Arc::clone(&row));
        self.log(key, event, Some(&row), revision, ground.now);
        let mut line = binding_line(what, key, None);
        if let Some(why) = why {
            line = line.with("why", why);
        }
        self.lines.push(line.at(revision));
    }

    pub(crate) fn log(&mut self, key: &Key, event: Event, row: Option<&Row>, revision: u64, now: Now) {
        let change = StoredChange {
            wall_ms: now.wall_ms,
            event,
            publisher: str::to_owned(&key.0),
            credential: str::to_owned(&key.1),
            row: row.map(|row| row.stored(self.boot_id)),
        };
        self.changes.push((revision, change));
    }
}
