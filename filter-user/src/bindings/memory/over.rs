//! Rows with a large change laid over them.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::bindings::model::owned::Credential;
use crate::bindings::model::row::Row;

/// Rows as a change makes them, in the order of their keys: what it has of a key stands in place of what is there. Each is
/// passed once, however many there are before the next that stays.
pub(super) fn over<'r>(
    rows: impl Iterator<Item = (&'r Credential, &'r Arc<Row>)>,
    next: impl Iterator<Item = (&'r Credential, &'r Option<Arc<Row>>)>,
) -> impl Iterator<Item = (&'r Credential, &'r Arc<Row>)> {
    let (mut rows, mut next) = (rows.peekable(), next.peekable());
    std::iter::from_fn(move || {
        loop {
            let order = match (rows.peek(), next.peek()) {
                (Some((row, _)), Some((other, _))) => row.cmp(other),
                (None, Some(_)) => Ordering::Greater,
                (_, None) => Ordering::Less,
            };
            match order {
                Ordering::Less => return rows.next(),
                Ordering::Equal => drop(rows.next()),
                Ordering::Greater => {}
            }
            if let Some((credential, Some(row))) = next.next() {
                return Some((credential, row));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;

    use super::*;
    use crate::bindings::model::row::plain as row;

    fn key(at: usize) -> Credential {
        Credential::new("p", &format!("key-{at:04}"))
    }

    #[test]
    fn change_of_every_row_is_walked_over_as_far_as_it_is_asked_for() {
        let rows: BTreeMap<_, _> = (0..1_000).map(|at| (key(at), row(1))).collect();
        let next: BTreeMap<_, _> = (0..1_000).map(|at| (key(at), Some(row(2)))).collect();
        let passed = Cell::new(0);
        let pass = || passed.set(passed.get() + 1);
        let counted = over(rows.iter().inspect(|_| pass()), next.iter().inspect(|_| pass()));
        let taken: Vec<_> = counted.take(10).map(|(_, row)| row.revision).collect();
        assert_eq!(taken, [2; 10]);
        assert!(passed.get() <= 2 * 11, "{} were passed", passed.get());
    }

    #[test]
    fn what_a_change_has_stands_in_place_of_what_is_there() {
        let rows: BTreeMap<_, _> = [1, 2, 4, 6].map(|at| (key(at), row(1))).into();
        let next = [
            (0, Some(row(2))),
            (2, None),
            (4, Some(row(2))),
            (5, None),
            (7, Some(row(2))),
        ];
        let next: BTreeMap<_, _> = next.map(|(at, row)| (key(at), row)).into();
        let seen: Vec<_> = over(rows.iter(), next.iter())
            .map(|(credential, row)| (credential.to_string(), row.revision))
            .collect();
        let expected = [(0, 2), (1, 1), (4, 2), (6, 1), (7, 2)];
        assert_eq!(
            seen,
            expected.map(|(at, revision)| (key(at).to_string(), revision))
        );
    }
}
