//! What an operator opens by hand: observing for a while, and taking the filter off.
//!
//! Both are the kernel's from then on; what is kept here is for who asks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use super::Engine;
use super::snapshot::{ObserveError, Observing};
use crate::kernel::clock;

const NANOS: u64 = 1_000_000_000;

/// What is observed for a while, as those see it who may not ask the kernel each time.
#[derive(Default)]
pub(super) struct Observed {
    /// The latest end; 0 where there is none.
    latest: AtomicU64,
    all: RwLock<Vec<(Option<String>, u64)>>,
}

impl Observed {
    pub(super) fn set(&self, all: Vec<(Option<String>, u64)>) {
        let latest = all.iter().map(|(_, until)| *until).max().unwrap_or(0);
        *self.all.write().unwrap_or_else(PoisonError::into_inner) = all;
        self.latest.store(latest, Ordering::Release);
    }

    /// Whether a service is, and whether everything is.
    pub(super) fn of(&self, service: &str) -> [bool; 2] {
        if self.latest.load(Ordering::Acquire) == 0 {
            return [false; 2];
        }
        let now = clock::monotonic().0;
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let is = |of: Option<&str>| {
            let mut all = all.iter();
            all.any(|(name, until)| name.as_deref() == of && *until > now)
        };
        [is(Some(service)), is(None)]
    }

    pub(super) fn shown(&self) -> Vec<Observing> {
        let now = clock::monotonic().0;
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let going_on = all.iter().filter(|(_, until)| *until > now);
        let wall = jiff::Timestamp::now();
        going_on
            .map(|(service, until)| Observing {
                service: service.clone(),
                until: wall
                    .checked_add(jiff::SignedDuration::from_nanos((until - now).cast_signed()))
                    .unwrap_or(jiff::Timestamp::MAX),
            })
            .collect()
    }
}

impl Engine {
    /// Observes a service, or everything, for so many seconds; 0 ends it.
    pub(super) fn observe(&mut self, service: Option<String>, seconds: u64) -> Result<(), ObserveError> {
        let until = match seconds {
            0 => 0,
            seconds => clock::monotonic().0 + seconds * NANOS,
        };
        let what = service.as_deref();
        self.filter.observe(what, until)?;
        self.shared.observing.set(self.filter.observed());
        let what = what.unwrap_or("everything");
        match seconds {
            0 => tracing::warn!(what, "no longer observed: what is refused is dropped again"),
            seconds => tracing::warn!(what, seconds, "observed for a while: what is refused passes"),
        }
        Ok(())
    }

    /// Takes the filter off, and says from which interfaces; it comes back with the next start.
    pub(super) fn detach(&mut self) -> Result<Vec<String>, String> {
        let interfaces = self.filter.interfaces().iter();
        let names = interfaces
            .filter(|state| state.attached)
            .map(|state| state.name.clone());
        let names: Vec<String> = names.collect();
        self.filter.leave().map_err(|error| error.to_string())?;
        tracing::warn!("detached: every packet passes");
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_observed_is_known_until_it_ends() {
        let now = clock::monotonic().0;
        let observed = Observed::default();
        assert_eq!(observed.of("pay"), [false; 2]);
        let later = now + 3_600 * NANOS;
        observed.set(vec![(Some("pay".into()), later), (Some("old".into()), now)]);
        assert_eq!(observed.of("pay"), [true, false]);
        assert_eq!(observed.of("old"), [false; 2], "it has ended");
        let shown = observed.shown();
        assert_eq!((shown.len(), shown[0].service.as_deref()), (1, Some("pay")));
        assert!(shown[0].until > jiff::Timestamp::now());
        observed.set(vec![(None, later)]);
        assert_eq!(observed.of("pay"), [false, true]);
    }
}
