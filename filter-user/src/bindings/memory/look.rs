//! A look at all rows of a publisher where they stand, for what asks each of a million.

use std::ops::Bound;
use std::sync::Arc;

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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::model::row::plain as row;

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
