//! What status and metrics show of the bindings.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::Bindings;
use super::memory::Shelf;
use super::model::view::{state, timestamp};
use super::requests::{PublisherStatus, State, StoreStatus};
use super::shared::{SECRETS_ALARM, SPACE_ALARM, STORE_ALARM};
use super::unfound::Unfound;

/// Bindings that end within these are counted.
const ENDING_WITHIN_MS: [i64; 3] = [300_000, 3_600_000, 86_400_000];

impl Bindings {
    /// Looks at every binding: a million take a tenth of a second. It may be called on a blocking thread.
    pub fn status(&self) -> StoreStatus {
        let shared = &self.shared;
        let alarms = shared.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        let alarms: Vec<String> = alarms.values().cloned().collect();
        // A publisher of the policy is there from the start.
        for publisher in &shared.view.load().policy.publishers {
            shared.memory.shelf_for(&publisher.name);
        }
        let shelves = shared.memory.shelves();
        let mut unfound = Unfound::under(shared.fingerprints.ids(), &shared.view.load().policy);
        let publishers = shelves.iter();
        let publishers = publishers
            .map(|shelf| self.publisher_status(shelf, &mut unfound))
            .collect();
        StoreStatus {
            store: shared.store_id.load().as_ref().clone(),
            revision: *shared.published.borrow(),
            alarms: alarms.into_iter().chain(unfound.sentence()).collect(),
            disk_errors: shared.disk_errors.load(Ordering::Relaxed),
            publishers,
            denies: shared.denies.load().len() as u64,
            audit: self.audit_head(),
        }
    }

    /// Which alarms make the daemon unready, a sentence each: changes would be refused,
    /// bindings were lost, or keys are.
    pub fn not_ready(&self) -> Vec<String> {
        let alarms = self.shared.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        let unready = [SPACE_ALARM, STORE_ALARM, SECRETS_ALARM];
        unready
            .iter()
            .filter_map(|kind| alarms.get(kind).cloned())
            .collect()
    }

    fn publisher_status(&self, shelf: &Shelf, unfound: &mut Unfound<'_>) -> PublisherStatus {
        let view = self.shared.view.load_full();
        let now = self.shared.clock.now();
        let mut status = PublisherStatus {
            name: shelf.publisher.to_string(),
            last_success: shelf.last_success().map(|at| timestamp(at.wall_ms)),
            ..PublisherStatus::default()
        };
        shelf.each(|credential, row| {
            let (state, _) = state(&view, &shelf.publisher, shelf.facts(), row, now.boot_ms);
            match state {
                State::Active => status.active += 1,
                State::Held => status.held += 1,
                State::Ended => status.ended += 1,
                State::Suspended => status.suspended += 1,
            }
            if state != State::Ended {
                unfound.look(credential);
            }
            let ahead = row
                .end
                .map(|end| end.boot_ms - now.boot_ms)
                .filter(|ahead| *ahead > 0);
            for (count, within) in status.ending.iter_mut().zip(ENDING_WITHIN_MS) {
                *count += u64::from(ahead.is_some_and(|ahead| ahead <= within));
            }
        });
        status
    }
}
