//! Successes of publishers that hold leases past their end: on disk before anything ends by them.
//!
//! What a success has ended must stay so over a restart, and most successes (a list, a watch, a DELETE of what is not
//! there) write nothing themselves.

use std::sync::{Arc, PoisonError};

use super::blocking;
use super::core::Core;
use super::job::{BindingJob, Job};
use crate::bindings::clock::Now;
use crate::bindings::memory::Shelf;
use crate::bindings::model::lease::Moment;
use crate::bindings::shared::DISK_ALARM;
use crate::bindings::store::{self, Batch};

/// A publisher and its last success.
type Success = (Arc<Shelf>, Moment);

/// Makes them durable, and gives the reviews that end what is held.
pub(super) async fn count(core: Box<Core>, now: Now) -> (Box<Core>, Vec<Job>) {
    let successes = core.take_successes();
    if successes.is_empty() {
        return (core, Vec::new());
    }
    blocking(core, move |core| core.count_successes(&successes, now)).await
}

impl Core {
    fn take_successes(&self) -> Vec<Success> {
        let asked = std::mem::take(
            &mut *self
                .shared
                .successes
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        let success = |publisher: Arc<str>| {
            let shelf = self.shared.memory.shelf(&publisher)?;
            let at = shelf.last_success()?;
            Some((shelf, at))
        };
        asked.into_iter().filter_map(success).collect()
    }

    /// Blocks. What the disk refuses is tried again with the next turn; until then it is held.
    fn count_successes(&mut self, successes: &[Success], now: Now) -> Vec<Job> {
        let batch = Batch {
            successes: successes
                .iter()
                .map(|(shelf, at)| (shelf.publisher.to_string(), *at))
                .collect(),
            revision: self.revision,
            ..Batch::default()
        };
        let written = self.settle().and_then(|()| self.shared.store.apply(&batch, now));
        if let Err(error) = written {
            self.shared.set_alarm(DISK_ALARM, Some(error.to_string()));
            if error.is_full() {
                self.reserve.release();
            }
            if let Err(error) = self.shared.store.reopen(&store::path_in(&self.shared.folder)) {
                tracing::error!("{error}");
            }
            let mut again = self
                .shared
                .successes
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            again.extend(successes.iter().map(|(shelf, _)| Arc::clone(&shelf.publisher)));
            return Vec::new();
        }
        let mut reviews = Vec::new();
        for (shelf, at) in successes {
            shelf.count_success(*at);
            for credential in self.held.get(&shelf.publisher).into_iter().flatten() {
                let review = BindingJob::review(Arc::clone(&shelf.publisher), credential.clone());
                reviews.push(Job::Binding(review));
            }
        }
        reviews
    }
}
