//! What a decided group comes to: for the store, for the kernel, for the audit log.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ipnet::IpNet;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::denies::Denies;
use super::group::{Group, Key};
use super::large::Views;
use crate::bindings::audit::{Line, Told};
use crate::bindings::clock::Now;
use crate::bindings::model::allowance::PolicyView;
use crate::bindings::model::content::{Labels, Services};
use crate::bindings::model::limits;
use crate::bindings::model::row::Row;
use crate::bindings::model::view::{PublisherFacts, grantee, timestamp};
use crate::bindings::requests::Actor;
use crate::bindings::seam::{Change, Changes};
use crate::bindings::store::{Batch, key_of};
use crate::policy::model::PortRange;

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

    /// What the kernel is asked for.
    pub(super) fn asks(&self, (view, standby): Views<'_>, now: Now) -> Changes {
        Changes {
            in_force: self.kernel(view, now),
            standby: standby.map_or_else(Vec::new, |standby| self.kernel(standby, now)),
            patient: false,
        }
    }

    /// What the kernel gets: what differs, and which owners have changed without a difference to it.
    fn kernel(&self, view: &PolicyView, now: Now) -> Vec<Change> {
        let mut changes = self.deny_changes();
        for key in &self.touched {
            let entry = &self.entries[key];
            let facts = entry.shelf.facts();
            let facts_after = PublisherFacts {
                unsynced: match self.synced.iter().any(|shelf| Arc::ptr_eq(shelf, &entry.shelf)) {
                    true => 0,
                    false => facts.unsynced,
                },
                ..facts
            };
            if facts.unsynced == facts_after.unsynced && same_row(entry.before.as_ref(), entry.row.as_ref()) {
                continue;
            }
            let grant =
                |row: &Option<Arc<Row>>, facts| grantee(view, &key.0, facts, &key.1, row.as_ref()?, now);
            let owner = key.1.owner();
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
    of_binding(Line::new(what, actor), key)
}

fn of_binding(line: Line, key: &Key) -> Line {
    line.with("publisher", &*key.0).with("credential", &*key.1)
}

/// The line of a put, before its text.
pub(super) struct PutLine {
    pub(super) key: Key,
    pub(super) actor: Option<Arc<Actor>>,
    pub(super) before: Option<Arc<Row>>,
    pub(super) after: Arc<Row>,
}

impl Told for PutLine {
    fn tell(&self, line: Line) -> Line {
        of_binding(line.by(self.actor.as_deref()), &self.key)
            .with("before", shown(self.before.as_deref()))
            .with("after", shown(Some(&self.after)))
    }
}

/// A row as the audit log has it.
#[derive(Serialize)]
pub(super) struct Shown<'r> {
    sources: &'r [IpNet],
    #[serde(serialize_with = "services")]
    services: &'r Services,
    #[serde(skip_serializing_if = "is_empty")]
    source_ports: &'r [PortRange],
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "labels")]
    labels: Option<&'r Labels>,
    row_version: Option<u64>,
    ends_at: Option<jiff::Timestamp>,
}

pub(super) fn shown(row: Option<&Row>) -> Option<Shown<'_>> {
    let row = row?;
    let content = &row.content;
    Some(Shown {
        sources: &content.sources,
        services: &content.services,
        source_ports: &content.source_ports,
        limit: content.limit.as_deref().map(|limit| limits::show(Some(limit))),
        labels: content.labels.as_deref(),
        row_version: row.row_version,
        ends_at: row.end.map(|end| timestamp(end.wall_ms)),
    })
}

fn is_empty(ranges: &[PortRange]) -> bool {
    ranges.is_empty()
}

fn services<S: Serializer>(services: &Services, serializer: S) -> Result<S::Ok, S::Error> {
    match services {
        Services::All => serializer.collect_seq(["*"]),
        Services::Named(names) => serializer.collect_seq(names.iter().map(AsRef::<str>::as_ref)),
    }
}

fn labels<S: Serializer>(labels: &Option<&Labels>, serializer: S) -> Result<S::Ok, S::Error> {
    let labels = labels.iter().flat_map(|labels| labels.iter());
    serializer.collect_map(labels.map(|(name, value)| (&**name, &**value)))
}

/// Marks what a publisher's restored bindings are no longer.
pub(super) fn publish_synced(group: &Group) {
    for shelf in &group.synced {
        shelf.unsynced.store(0, Ordering::Release);
    }
}
