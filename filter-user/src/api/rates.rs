//! What one publisher may ask: how often (`requests` of its entry), and how much at a time.
//!
//! A bucket and a count a publisher, as many as the policy has. Time is an argument.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{Code, Problem};
use crate::policy::model::Limit;

/// Requests of one publisher that are answered at one time; the surplus is told to come again.
pub(super) const IN_FLIGHT_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Rates {
    publishers: Mutex<HashMap<String, Publisher>>,
}

#[derive(Debug)]
struct Publisher {
    /// When its bucket is full again, in nanoseconds of the caller's clock (GCRA).
    full_at: u64,
    in_flight: Arc<Semaphore>,
}

/// One request under way; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    _permit: OwnedSemaphorePermit,
}

impl Rates {
    /// `now` only ever grows. `publisher` is a name of the policy, so there are no more than it has.
    pub(super) fn admit(
        &self,
        publisher: &str,
        limit: Option<&Limit>,
        now: Duration,
    ) -> Result<Admitted, Problem> {
        let mut all = self.publishers.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains_key(publisher) {
            let fresh = Publisher {
                full_at: 0,
                in_flight: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            };
            all.insert(publisher.to_owned(), fresh);
        }
        let held = all.get_mut(publisher).expect("it has just been put there");
        let Ok(permit) = Arc::clone(&held.in_flight).try_acquire_owned() else {
            let detail = format!("this publisher has {IN_FLIGHT_MAX} requests in flight; nothing was done");
            return Err(Problem::new(Code::Busy, detail));
        };
        if let Some(limit) = limit {
            held.full_at = pay(held.full_at, limit, now).map_err(too_many)?;
        }
        Ok(Admitted { _permit: permit })
    }
}

/// When the bucket is full again after one more request; or how long until it pays for one.
fn pay(full_at: u64, limit: &Limit, now: Duration) -> Result<u64, Duration> {
    let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    let second = 1_000_000_000u64;
    let one = second.saturating_mul(limit.per_seconds.into()) / limit.rate.max(1);
    let whole = one.saturating_mul(limit.burst);
    let next = full_at.max(now).saturating_add(one);
    match next.checked_sub(now.saturating_add(whole)) {
        None | Some(0) => Ok(next),
        Some(wait) => Err(Duration::from_nanos(wait)),
    }
}

fn too_many(wait: Duration) -> Problem {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let seconds = u32::try_from(seconds.max(1)).unwrap_or(u32::MAX);
    let detail = format!("its `requests` are used up; nothing was done, try again in {seconds} s");
    Problem {
        retry_after_seconds: Some(seconds),
        ..Problem::new(Code::RateExceeded, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit {
        rate: 2,
        per_seconds: 1,
        burst: 3,
    };

    #[test]
    fn burst_is_taken_then_the_rate_holds_and_publishers_do_not_share() {
        let rates = Rates::default();
        let ask = |publisher: &str, milliseconds| {
            let admitted = rates.admit(publisher, Some(&LIMIT), Duration::from_millis(milliseconds));
            admitted
                .map_err(|problem| (problem.code, problem.retry_after_seconds))
                .map(drop)
        };
        let refused = Err((Code::RateExceeded, Some(1)));
        for _ in 0..3 {
            assert_eq!(ask("gateway", 10_000), Ok(()));
        }
        assert_eq!(ask("gateway", 10_000), refused);
        assert_eq!(ask("other", 10_000), Ok(()));
        assert_eq!(ask("gateway", 10_499), refused);
        assert_eq!(ask("gateway", 10_500), Ok(()));
        assert_eq!(ask("gateway", 10_500), refused);
        assert!(rates.admit("gateway", None, Duration::from_secs(10)).is_ok());
    }

    #[test]
    fn requests_in_flight_are_bounded_and_end_when_they_are_dropped() {
        let rates = Rates::default();
        let admit = || rates.admit("gateway", None, Duration::ZERO);
        let held: Vec<Admitted> = (0..IN_FLIGHT_MAX).map(|_| admit().unwrap()).collect();
        assert_eq!(admit().unwrap_err().code, Code::Busy);
        drop(held);
        assert!(admit().is_ok());
    }
}
