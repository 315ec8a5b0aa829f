//! Folds the log of changes into the table of bindings, while nothing else is to do: in passes over what has changed,
//! in the order of keys, a slice a transaction.
//!
//! A pass that is through has put every change up to its beginning into the table; what came later is replayed by the
//! next start. A slice writes rows as they are by then: replaying older changes over them ends at the same row.

use std::collections::HashSet;

use super::core::Core;
use super::group::Key;
use crate::bindings::shared::DISK_ALARM;
use crate::bindings::store::key_of;

/// Changes that wait for an idle moment; with more, a slice follows each group. Half of the log that a watch is promised.
const WAITING_MAX: usize = 500_000;

pub(super) struct Fold {
    /// Changed since the pass began.
    waiting: HashSet<Key>,
    /// What the pass has left, from the last to the first, and the revision at which it began.
    pass: Option<(Vec<Key>, u64)>,
}

impl Fold {
    pub(super) fn new(dirty: Vec<(String, String)>) -> Fold {
        let keys = dirty.into_iter();
        Fold {
            waiting: keys
                .map(|(publisher, credential)| (publisher.into(), credential.into()))
                .collect(),
            pass: None,
        }
    }

    pub(super) fn add(&mut self, key: &Key) {
        self.waiting.insert(key.clone());
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.pass.is_some()
    }
}

impl Core {
    pub(super) fn is_fold_due(&self, idle: bool) -> bool {
        let waiting = self.fold.waiting.len();
        // The audit log goes on behind a commit: what it has by now is told the store as well.
        let untold = self.line_stored != self.audit.head().line;
        match &self.fold.pass {
            Some(_) => idle || waiting > WAITING_MAX,
            None => (idle && (waiting > 0 || untold)) || waiting > WAITING_MAX,
        }
    }

    /// One slice of so many rows. Blocks. What fails is tried again.
    pub(super) fn fold(&mut self, rows: usize) {
        let (mut keys, until) = self.fold.pass.take().unwrap_or_else(|| {
            let mut waiting: Vec<Key> = std::mem::take(&mut self.fold.waiting).into_iter().collect();
            // Once for a pass: names that begin alike are slow to keep in order.
            waiting.sort_unstable_by(|one, other| other.cmp(one));
            (waiting, self.revision)
        });
        let slice = keys.split_off(keys.len().saturating_sub(rows));
        let row = |key: &Key| {
            let row = self.shared.memory.get(&key.0, &key.1);
            (key_of(&key.0, &key.1), row)
        };
        let rows: Vec<_> = slice.iter().rev().map(row).collect();
        let folded = keys.is_empty().then_some(until);
        let audit = self.audit.known();
        if let Err(error) = self.shared.store.fold(&rows, folded, &audit) {
            tracing::error!("{error}");
            self.shared.set_alarm(DISK_ALARM, Some(error.to_string()));
            self.fold.waiting.extend(keys.into_iter().chain(slice));
            let path = crate::bindings::store::path_in(&self.shared.folder);
            if let Err(error) = self.shared.store.reopen(&path) {
                tracing::error!("{error}");
            }
            return;
        }
        self.line_stored = audit.head.line;
        self.fold.pass = (!keys.is_empty()).then_some((keys, until));
    }

    /// The last of the audit log, for the store. Blocks.
    pub(super) fn store_head(&mut self) {
        if let Err(error) = self.shared.store.fold(&[], None, &self.audit.known()) {
            tracing::error!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_changes_twice_waits_once() {
        let mut fold = Fold::new(vec![("p".to_owned(), "a".to_owned())]);
        fold.add(&(Arc::from("p"), Arc::from("a")));
        fold.add(&(Arc::from("p"), Arc::from("b")));
        assert_eq!(fold.waiting.len(), 2);
    }
}
