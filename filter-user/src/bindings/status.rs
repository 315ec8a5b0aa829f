//! What status and metrics show of the bindings.

use std::sync::{Arc, PoisonError};

use super::Bindings;
use super::memory::Shelf;
use super::model::view::{state, timestamp};
use super::requests::{PublisherStatus, State, StoreStatus};

/// Bindings that end within these are counted.
const ENDING_WITHIN_MS: [i64; 3] = [300_000, 3_600_000, 86_400_000];
const SLICE: usize = 4_096;

impl Bindings {
    /// Looks at every binding: a million take a tenth of a second. It may be called on a blocking thread.
    pub fn status(&self) -> StoreStatus {
        let shared = &self.shared;
        let alarms = shared.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        let alarms = alarms.values().cloned().collect();
        let shelves = shared.memory.shelves();
        StoreStatus {
            store: shared.store_id.load().as_ref().clone(),
            revision: *shared.published.borrow(),
            alarms,
            publishers: shelves.iter().map(|shelf| self.publisher_status(shelf)).collect(),
            denies: shared.denies.load().len() as u64,
            audit: self.audit_head(),
        }
    }

    fn publisher_status(&self, shelf: &Shelf) -> PublisherStatus {
        let view = self.shared.view.load_full();
        let now = self.shared.clock.now();
        let mut status = PublisherStatus {
            name: shelf.publisher.to_string(),
            last_success: shelf.last_success().map(|at| timestamp(at.wall_ms)),
            ..PublisherStatus::default()
        };
        let mut after: Option<Arc<str>> = None;
        loop {
            let rows = shelf.after(after.as_deref(), SLICE);
            let Some((last, _)) = rows.last() else {
                return status;
            };
            after = Some(Arc::clone(last));
            for (_, row) in &rows {
                let (state, _) = state(&view, &shelf.publisher, shelf.facts(), row, now.boot_ms);
                match state {
                    State::Active => status.active += 1,
                    State::Held => status.held += 1,
                    State::Ended => status.ended += 1,
                    State::Suspended => status.suspended += 1,
                }
                let Some(end) = row.end.filter(|end| end.boot_ms > now.boot_ms) else {
                    continue;
                };
                for (count, within) in status.ending.iter_mut().zip(ENDING_WITHIN_MS) {
                    *count += u64::from(end.boot_ms - now.boot_ms <= within);
                }
            }
        }
    }
}
