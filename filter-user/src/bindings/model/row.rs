//! A binding as it is kept: one row in the store, one in memory.

use serde::{Deserialize, Serialize};

use super::content::Content;
use super::lease::{LastWrite, Moment, StoredMoment};
use crate::bindings::clock::Now;
use crate::bindings::requests::State;

/// In memory. Its publisher and credential are its place there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) content: Content,
    pub(crate) row_version: Option<u64>,
    pub(crate) created_ms: i64,
    /// `None`: without an end.
    pub(crate) end: Option<Moment>,
    /// Of the last write by its publisher or an operator.
    pub(crate) revision: u64,
    /// What watchers were last told. The kernel holds a grant for it unless `Ended`, or suspended now.
    pub(crate) told: Told,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Told {
    Active,
    Suspended,
    Ended,
}

/// In the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredRow {
    content: Content,
    row_version: Option<u64>,
    created_ms: i64,
    end: Option<StoredMoment>,
    pub(crate) revision: u64,
    told: Told,
}

impl Row {
    pub(crate) fn stored(&self, boot_id: u128) -> StoredRow {
        StoredRow {
            content: self.content.clone(),
            row_version: self.row_version,
            created_ms: self.created_ms,
            end: self.end.map(|end| end.stored(boot_id)),
            revision: self.revision,
            told: self.told,
        }
    }
}

impl StoredRow {
    /// Whether its end was written in another boot, and says nothing of this one's time.
    pub(crate) fn is_of_another_boot(&self, boot_id: u128) -> bool {
        self.end.is_some_and(|end| end.boot_id != boot_id)
    }

    pub(crate) fn in_this_boot(self, now: Now, last: LastWrite) -> Row {
        Row {
            content: self.content,
            row_version: self.row_version,
            created_ms: self.created_ms,
            end: self.end.map(|end| end.in_this_boot(now, last)),
            revision: self.revision,
            told: self.told,
        }
    }
}

/// What watchers are to be told of a state; a held binding is still in force.
pub(crate) fn told_of(state: State) -> Told {
    match state {
        State::Active | State::Held => Told::Active,
        State::Suspended => Told::Suspended,
        State::Ended => Told::Ended,
    }
}

/// A row of which tests ask nothing but its revision.
#[cfg(test)]
pub(crate) fn plain(revision: u64) -> std::sync::Arc<Row> {
    use super::content::{Ports, Services};
    let content = Content {
        sources: [].into(),
        services: Services::All,
        source_ports: Ports::default(),
        limit: None,
        labels: None,
    };
    std::sync::Arc::new(Row {
        content,
        row_version: None,
        created_ms: 0,
        end: None,
        revision,
        told: Told::Active,
    })
}
