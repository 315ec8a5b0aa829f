//! What is written down of policies, and of one that waits to be confirmed.

use std::io::ErrorKind;
use std::sync::Weak;
use std::time::Instant;

use tokio::sync::watch;

use super::store::Store;
use super::trial::Over;
use super::{By, Done, Entry, Inner, PolicyError, State, Terms, Via, noted};
use crate::engine::apply::Pending;

/// What is written down.
pub(super) struct Book {
    pub(super) store: Store,
    /// The entry that waits to be confirmed.
    pub(super) pending: Option<u64>,
    /// The last trial, where it ended by itself.
    pub(super) trial_over: Option<Over>,
    /// Whether the policy that was confirmed last is not known.
    pub(super) is_lost: bool,
    /// The last reload: when it began, and what became of it, for those who asked meanwhile.
    pub(super) reloaded: Option<(Instant, Result<Done, PolicyError>)>,
}

impl Book {
    /// Where nobody knows what would come back.
    pub(super) fn refuse_a_trial(&self, terms: &Terms) -> Result<(), PolicyError> {
        if !self.is_lost || terms.confirm.is_none() {
            return Ok(());
        }
        let why = "which policy would come back is not known, since the last confirmed one cannot be read: apply it \
                   without --confirm-within";
        Err(PolicyError::Failed(why.to_owned()))
    }

    pub(super) fn keep_confirmed(&mut self, number: u64) -> Result<(), PolicyError> {
        let settled = self.store.settle(number, State::Confirmed, None);
        let is_confirmed = |entry: &Entry| entry.number == number && entry.state == State::Confirmed;
        match settled {
            // What failed was to remove older ones.
            settled if self.store.entries().iter().any(is_confirmed) => noted(settled),
            settled => settled.map_err(|error| {
                let why = format!(
                    "that it is confirmed cannot be kept in [daemon] state, so it still waits: {error}; make room and \
                     confirm it again before its time ends"
                );
                unkept(&error, why)
            })?,
        }
        Ok(())
    }
}

/// Why nothing was done: the disk has no room, or refuses.
pub(super) fn unkept(error: &std::io::Error, why: String) -> PolicyError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => PolicyError::Full(why),
        _ => PolicyError::Failed(why),
    }
}

/// A pending policy that has gone without anybody's word is written down as reverted.
pub(super) async fn watch_pending(inner: Weak<Inner>, mut pending: watch::Receiver<Option<Pending>>) {
    let mut was: Option<Pending> = None;
    loop {
        let now = pending.borrow_and_update().clone();
        let Some(inner) = inner.upgrade() else { return };
        if let (Some(was), None) = (&was, &now) {
            let mut book = inner.book.lock().await;
            // Whoever confirmed it or rolled it back has taken it.
            if let Some(number) = book.pending.take() {
                book.trial_over = Some(Over::now(&was.hash));
                let note = "not confirmed in time".to_owned();
                noted(book.store.settle(number, State::Reverted, Some(note)));
                tracing::warn!(
                    hash = was.base,
                    "policy {} was not confirmed in time: the one before is back",
                    was.hash
                );
                let by = By {
                    actor: None,
                    via: Via::Apply,
                };
                let hash = (was.hash.as_str(), was.base.as_str());
                inner.tell_both(&book, "revert", &by, hash, None).await;
                inner.look_again();
            }
        }
        was = now;
        drop(inner);
        if pending.changed().await.is_err() {
            return;
        }
    }
}
