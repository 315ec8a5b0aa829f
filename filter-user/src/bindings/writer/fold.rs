//! Folds the log of changes into the table of bindings, while nothing else is to do: in passes over what has changed,
//! in the order of keys, a slice a transaction.
//!
//! A pass that is through has put every change up to its beginning into the table; what came later is replayed by the
//! next start. A slice writes rows as they are by then: replaying older changes over them ends at the same row.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::core::Core;
use super::group::Key;
use crate::bindings::model::owned::Credential;
use crate::bindings::shared::{DISK_ALARM, Shared};
use crate::bindings::store::{Dirty, key_of};

/// Changes that wait for an idle moment; with more, a slice follows each group. As many as a watch is promised: the log
/// has at most twice as many, and a start after a crash has no more than these to replay.
const WAITING_MAX: usize = 1_000_000;

/// Of what changes again and again no more than these stand there.
const TWICE_MAX: usize = 4 * WAITING_MAX;
/// So many are sorted beside the writer: a single write does not wait for that.
const SORTED_BESIDE: usize = 8_192;

pub(super) struct Fold {
    /// Changed since the pass began; what changed again stands there again.
    waiting: Dirty,
    pass: Option<Pass>,
}

/// What a pass has left, and the revision at which it began.
enum Pass {
    Sorting(oneshot::Receiver<Left>, u64),
    Sorted(Left, u64),
}

/// By publisher, each from the last to the first: a million in the places where they waited.
struct Left(Vec<(Arc<str>, Vec<Credential>)>);

impl Left {
    /// The first so many, in their order.
    fn take(&mut self, most: usize) -> Vec<Key> {
        let mut taken = Vec::new();
        while let Some((publisher, credentials)) = self.0.last_mut()
            && taken.len() < most
        {
            let start = credentials.len().saturating_sub(most - taken.len());
            let first = credentials.drain(start..).rev();
            taken.extend(first.map(|credential| (Arc::clone(publisher), credential)));
            if credentials.is_empty() {
                self.0.pop();
            }
        }
        taken
    }
}

impl Fold {
    pub(super) fn new(dirty: Dirty) -> Fold {
        Fold {
            waiting: dirty,
            pass: None,
        }
    }

    pub(super) fn add(&mut self, key: &Key) {
        let (publisher, credential) = key;
        let waiting = self.waiting.entry(Arc::clone(publisher)).or_default();
        if waiting.len() >= TWICE_MAX {
            sort(waiting);
        }
        waiting.push(credential.clone());
    }

    fn waiting(&self) -> usize {
        self.waiting.values().map(Vec::len).sum()
    }

    /// All that waits, from here on a pass.
    fn begin(&mut self, until: u64, shared: &Arc<Shared>) -> Pass {
        let few = self.waiting() < SORTED_BESIDE;
        let waiting = std::mem::take(&mut self.waiting);
        if few {
            return Pass::Sorted(sorted(waiting), until);
        }
        let (done, sorting) = oneshot::channel();
        let shared = Arc::clone(shared);
        tokio::task::spawn_blocking(move || {
            // A writer that is gone folds nothing.
            let _ = done.send(sorted(waiting));
            shared.nudge.notify_one();
        });
        Pass::Sorting(sorting, until)
    }

    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.pass, Some(Pass::Sorted(..)))
    }
}

/// Each once, from the last to the first: names that begin alike are slow to keep in order, so once for a pass.
fn sorted(waiting: Dirty) -> Left {
    let publishers = waiting.into_iter().rev();
    let sorted = publishers.map(|(publisher, mut credentials)| {
        sort(&mut credentials);
        (publisher, credentials)
    });
    Left(sorted.collect())
}

fn sort(credentials: &mut Vec<Credential>) {
    credentials.sort_unstable_by(|one, other| other.cmp(one));
    credentials.dedup();
}

impl Core {
    pub(super) fn is_fold_due(&self, idle: bool) -> bool {
        let waiting = self.fold.waiting();
        // The audit log goes on behind a commit: what it has by now is told the store as well.
        let untold = self.line_stored != self.audit.head().line;
        match &self.fold.pass {
            Some(_) => idle || waiting > WAITING_MAX,
            None => (idle && (waiting > 0 || untold)) || waiting > WAITING_MAX,
        }
    }

    /// One slice of so many rows. Blocks. What fails is tried again.
    pub(super) fn fold(&mut self, rows: usize) {
        let pass = self.fold.pass.take();
        let pass = pass.unwrap_or_else(|| self.fold.begin(self.revision, &self.shared));
        let (mut left, until) = match pass {
            Pass::Sorted(left, until) => (left, until),
            Pass::Sorting(mut sorting, until) => match sorting.try_recv() {
                Ok(left) => (left, until),
                Err(TryRecvError::Empty) => {
                    self.fold.pass = Some(Pass::Sorting(sorting, until));
                    return;
                }
                // To go on without them would tell the next start that they are in the table.
                Err(TryRecvError::Closed) => panic!("what changed could not be sorted"),
            },
        };
        let slice = left.take(rows);
        let row = |key: &Key| {
            let row = self.shared.memory.get(&key.0, &key.1);
            (key_of(&key.0, &key.1), row)
        };
        let mut rows: Vec<_> = slice.iter().map(row).collect();
        // A publisher's name may be the beginning of another's: then their keys' order is not that of the names.
        rows.sort_by(|(one, _), (other, _)| one.cmp(other));
        let folded = left.0.is_empty().then_some(until);
        let audit = self.audit.known();
        if let Err(error) = self.shared.store.fold(&rows, folded, &audit) {
            tracing::error!("{error}");
            self.shared.set_alarm(DISK_ALARM, Some(error.to_string()));
            let slice = slice.into_iter().chain(left.take(usize::MAX));
            slice.for_each(|key| self.fold.add(&key));
            let path = crate::bindings::store::path_in(&self.shared.folder);
            if let Err(error) = self.shared.store.reopen(&path) {
                tracing::error!("{error}");
            }
            return;
        }
        self.line_stored = audit.head.line;
        self.fold.pass = (!left.0.is_empty()).then_some(Pass::Sorted(left, until));
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
    use super::*;

    #[test]
    fn what_changes_twice_is_folded_once() {
        let mut fold = Fold::new([("p".into(), vec![Credential::new("p", "a")])].into());
        for name in ["a", "b", "a"] {
            fold.add(&(Arc::from("p"), Credential::new("p", name)));
        }
        assert_eq!(named(sorted(fold.waiting).take(9)), ["p/a", "p/b"]);
    }

    #[test]
    fn what_is_left_is_taken_in_its_order_over_publishers() {
        let mut fold = Fold::new(Dirty::new());
        for (publisher, name) in [("q", "d"), ("p", "c"), ("p", "a"), ("q", "b"), ("p", "b")] {
            fold.add(&(Arc::from(publisher), Credential::new(publisher, name)));
        }
        let mut left = sorted(fold.waiting);
        assert_eq!(named(left.take(2)), ["p/a", "p/b"]);
        assert_eq!(named(left.take(2)), ["p/c", "q/b"]);
        assert_eq!(named(left.take(2)), ["q/d"]);
        assert!(left.0.is_empty() && left.take(2).is_empty());
    }

    fn named(keys: Vec<Key>) -> Vec<String> {
        let keys = keys.iter();
        keys.map(|(publisher, credential)| key_of(publisher, credential))
            .collect()
    }
}
