//! A look at all rows of a publisher where they stand, for what asks each of a million.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Shelf, Which};
use crate::bindings::model::owned::Credential;
use crate::bindings::model::row::Row;

/// Rows looked at under one hold of a lock.
const ROWS_A_LOOK: usize = 512;

impl Shelf {
    /// Calls for each row without a copy of it: the lock is held while it is called, for a few rows at a time. So it
    /// has to be quick, and must ask nothing of this shelf.
    pub(crate) fn look(&self, which: Which, mut call: impl FnMut(&Credential, &Arc<Row>)) {
        let mut after: Option<Credential> = None;
        loop {
            self.give_way();
            let held = self.read();
            if held.next(which).is_some() {
                drop(held);
                let rows = self.after_of(which, after.as_deref(), ROWS_A_LOOK);
                rows.iter().for_each(|(credential, row)| call(credential, row));
                let Some((last, _)) = rows.into_iter().next_back() else {
                    return;
                };
                after = Some(last);
                continue;
            }
            let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let rows = held.rows.range::<Credential, _>((from, Bound::Unbounded));
            let mut last = None;
            for (credential, row) in rows.take(ROWS_A_LOOK) {
                call(credential, row);
                last = Some(credential);
            }
            let Some(last) = last.cloned() else { return };
            drop(held);
            after = Some(last);
        }
    }

    /// Lets those have the lock who wait to change something: few, each for a few rows.
    pub(super) fn give_way(&self) {
        while self.waiting.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::model::row::plain as row;

    #[test]
    fn who_changes_something_does_not_wait_for_the_end_of_a_walk() {
        let shelf = Shelf::new("p".into());
        let key = |at: usize| Credential::new("p", &format!("key-{at:04}"));
        let count = 2 * ROWS_A_LOOK;
        shelf.fill((0..count).map(|at| (key(at), row(1))).collect());
        let change = [(key(count - 1), Some(row(2)))];
        let mut last = None;
        std::thread::scope(|scope| {
            let mut changing = None;
            shelf.look(Which::Seen, |_, row| {
                changing.get_or_insert_with(|| {
                    let thread = scope.spawn(|| shelf.change(&change));
                    while shelf.waiting.load(Ordering::Relaxed) == 0 {
                        std::thread::yield_now();
                    }
                    thread
                });
                last = Some(row.revision);
            });
        });
        assert_eq!(last, Some(2), "it came between two holds of the lock");
    }

    #[test]
    fn look_calls_for_every_row_once_and_in_order() {
        let shelf = Shelf::new("p".into());
        let key = |at: usize| Credential::new("p", &format!("key-{at:04}"));
        let count = 2 * ROWS_A_LOOK;
        shelf.fill((0..count).map(|at| (key(at), row(1))).collect());
        let seen = |which| {
            let mut seen = Vec::new();
            shelf.look(which, |credential, row| {
                seen.push((credential.clone(), row.revision))
            });
            seen
        };
        let all: Vec<_> = (0..count).map(|at| (key(at), 1)).collect();
        assert_eq!(seen(Which::Seen), all);
        let next = [(key(0), None), (key(1), Some(row(2)))].into();
        shelf.announce(Arc::new(next), false);
        assert_eq!(seen(Which::Seen), all);
        let to_be = seen(Which::ToBe);
        assert_eq!(
            (to_be.len(), &to_be[..2]),
            (count - 1, &[(key(1), 2), (key(2), 1)][..])
        );
    }
}
