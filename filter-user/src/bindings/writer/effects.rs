//! What a decided group comes to: for the store, for the kernel, for the audit log.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::denies::Denies;
use super::group::{Group, Key};
use crate::bindings::audit::Line;
use crate::bindings::clock::Now;
use crate::bindings::model::allowance::PolicyView;
use crate::bindings::model::content::Services;
use crate::bindings::model::lease::Moment;
use crate::bindings::model::limits;
use crate::bindings::model::row::Row;
use crate::bindings::model::view::{PublisherFacts, grantee, owner, timestamp};
use crate::bindings::requests::Actor;
use crate::bindings::seam::Change;
use crate::bindings::store::{Batch, key_of};

impl Group {
    /// What the store gets, and what undoes it.
    pub(super) fn batches(&mut self, denies_before: &Denies) -> (Batch, Batch) {
        let mut batch = Batch {
            revision: self.revision,
            ..Batch::default()
        };
        let mut undo = Batch {
            revision: self.revision,
            ..Batch::default()
        };
        for key in &self.touched {
            let entry = &self.entries[key];
            let name = || key_of(&key.0, &key.1);
            if entry.tombstone != entry.tombstone_before {
                batch.tombstones.push((name(), entry.tombstone));
                undo.tombstones.push((name(), entry.tombstone_before));
            }
        }
        for shelf in &self.synced {
            batch.synced.push(shelf.publisher.to_string());
            undo.unsynced.push(shelf.publisher.to_string());
        }
        if self.revision >= self.first_revision {
            undo.undone = Some(self.first_revision..=self.revision);
        }
        for name in &self.deny_names {
            let stored = |denies: &Denies| denies.get(name).map(|deny| deny.stored(self.boot_id));
            batch
                .denies
                .push((name.clone(), self.denies.as_ref().and_then(stored)));
            undo.denies.push((name.clone(), stored(denies_before)));
        }
        batch.changes = std::mem::take(&mut self.changes);
        (batch, undo)
    }

    /// What the kernel gets: what differs, and which owners have changed without a difference to it.
    pub(super) fn kernel(&self, view: &PolicyView, now: Now) -> Vec<Change> {
        let mut changes = self.deny_changes();
        for key in &self.touched {
            let entry = &self.entries[key];
            let facts = entry.shelf.facts();
            let facts_after = PublisherFacts {
                unsynced: facts.unsynced && !self.synced.iter().any(|s| Arc::ptr_eq(s, &entry.shelf)),
                ..facts
            };
            if facts.unsynced == facts_after.unsynced && same_row(entry.before.as_ref(), entry.row.as_ref()) {
                continue;
            }
            let grant =
                |row: &Option<Arc<Row>>, facts| grantee(view, &key.0, facts, &key.1, row.as_ref()?, now);
            let owner = owner(&key.0, &key.1);
            match (grant(&entry.before, facts), grant(&entry.row, facts_after)) {
                (None, None) => changes.push(Change::Kept { owner }),
                (Some(_), None) => changes.push(Change::Remove { owner }),
                (None, Some(after)) => changes.push(Change::Put(after)),
                (Some(before), Some(after)) if before == after => changes.push(Change::Kept { owner }),
                // Once it has ended, the kernel may have forgotten it.
                (Some(before), Some(after)) if before.end <= now.monotonic_ns => {
                    changes.push(Change::Put(after));
                }
                (Some(mut before), Some(after)) => {
                    before.end = after.end;
                    changes.push(match before == after {
                        true => Change::End {
                            owner,
                            end: after.end,
                        },
                        false => Change::Put(after),
                    });
                }
            }
        }
        changes
    }

    /// The last change of each deny: they are put in force as one, additions first.
    fn deny_changes(&self) -> Vec<Change> {
        let named = self.deny_names.iter().zip(&self.deny_changes).enumerate();
        let last = named.filter(|(at, (name, _))| !self.deny_names[at + 1..].contains(name));
        last.map(|(_, (_, change))| change.clone()).collect()
    }
}

fn same_row(a: Option<&Arc<Row>>, b: Option<&Arc<Row>>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        _ => false,
    }
}

pub(super) fn binding_line(what: &'static str, key: &Key, actor: Option<&Actor>) -> Line {
    Line::new(what, actor)
        .with("publisher", &*key.0)
        .with("credential", &*key.1)
}

/// A row as the audit log has it.
pub(super) fn shown(row: Option<&Row>) -> Value {
    let Some(row) = row else { return Value::Null };
    let services = match &row.content.services {
        Services::All => json!(["*"]),
        Services::Named(names) => json!(names.iter().map(AsRef::as_ref).collect::<Vec<&str>>()),
    };
    let end = row.end.map(|end: Moment| timestamp(end.wall_ms).to_string());
    let mut shown = json!({
        "sources": row.content.sources,
        "services": services,
        "row_version": row.row_version,
        "ends_at": end,
    });
    if !row.content.source_ports.is_empty() {
        shown["source_ports"] = json!(row.content.source_ports);
    }
    if let Some(limit) = &row.content.limit {
        shown["limit"] = limits::show(Some(limit));
    }
    if let Some(labels) = &row.content.labels {
        let labels = labels
            .iter()
            .map(|(name, value)| (name.to_string(), Value::from(&**value)));
        shown["labels"] = Value::Object(labels.collect());
    }
    shown
}

/// Marks what a publisher's restored bindings are no longer.
pub(super) fn publish_synced(group: &Group) {
    for shelf in &group.synced {
        shelf.unsynced.store(false, Ordering::Release);
    }
}
