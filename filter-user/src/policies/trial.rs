//! A trial that has ended by itself: for a while a rollback is meant for it, and must not become another one.

use std::time::{Duration, Instant};

use super::Book;
use super::store::State;

/// For so long after its end.
const MEANT: Duration = Duration::from_mins(10);

/// Which, and when it was.
pub(super) struct Over {
    hash: String,
    at: Instant,
}

impl Over {
    pub(super) fn now(hash: &str) -> Over {
        Over {
            hash: hash.to_owned(),
            at: Instant::now(),
        }
    }
}

/// The policy of the trial that a rollback would be meant for; nothing is pending.
pub(super) fn over(book: &Book) -> Option<String> {
    // Its end has not been written down yet.
    let ending = book.store.entries().iter();
    let mut ending =
        ending.filter(|entry| Some(entry.number) == book.pending && entry.state == State::Pending);
    if let Some(entry) = ending.next() {
        return Some(entry.hash.clone());
    }
    let over = book.trial_over.as_ref();
    over.filter(|over| over.at.elapsed() < MEANT)
        .map(|over| over.hash.clone())
}
