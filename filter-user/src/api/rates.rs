//! What one caller may ask: how often (of a publisher, `requests` of its entry), and how much at a time.
//!
//! A bucket and a count for each publisher of the policy, and for each other user that denies. Time is an argument.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{Code, Problem};
use crate::policy::model::Limit;

/// Requests of one caller that are answered at one time; the surplus is told to come again.
pub(super) const IN_FLIGHT_MAX: usize = 64;
/// What a user may ask that is neither a publisher nor an operator: each deny is a commit and a change of the kernel.
pub(super) const OTHERS: Limit = Limit {
    rate: 100,
    per_seconds: 1,
    burst: 1_000,
};
/// Callers that are kept; with more, those are forgotten that ask nothing and owe nothing.
const CALLERS_KEPT: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Rates {
    callers: Mutex<HashMap<String, Caller>>,
}

#[derive(Debug)]
struct Caller {
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
    /// `now` only ever grows. `caller` is a name of the policy, or a user's; no publisher's name has a `/`.
    pub(super) fn admit(
        &self,
        caller: &str,
        limit: Option<&Limit>,
        now: Duration,
    ) -> Result<Admitted, Problem> {
        let mut all = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains_key(caller) {
            if all.len() >= CALLERS_KEPT {
                all.retain(|_, caller| caller.full_at > nanos(now) || caller.is_asking());
            }
            let fresh = Caller {
                full_at: 0,
                in_flight: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            };
            all.insert(caller.to_owned(), fresh);
        }
        let held = all.get_mut(caller).expect("it has just been put there");
        let Ok(permit) = Arc::clone(&held.in_flight).try_acquire_owned() else {
            let detail = format!("this caller has {IN_FLIGHT_MAX} requests in flight; nothing was done");
            return Err(Problem::new(Code::Busy, detail));
        };
        if let Some(limit) = limit {
            held.full_at = pay(held.full_at, limit, now).map_err(too_many)?;
        }
        Ok(Admitted { _permit: permit })
    }
}

impl Caller {
    fn is_asking(&self) -> bool {
        self.in_flight.available_permits() < IN_FLIGHT_MAX
    }
}

fn nanos(now: Duration) -> u64 {
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// When the bucket is full again after one more request; or how long until it pays for one.
fn pay(full_at: u64, limit: &Limit, now: Duration) -> Result<u64, Duration> {
    let now = nanos(now);
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
    let detail = format!(
        "the caller's requests are used up (of a publisher, `requests` of its entry); nothing was done, try again in {seconds} s"
    );
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

    #[test]
    fn callers_that_ask_and_owe_nothing_are_forgotten_where_there_are_many() {
        let rates = Rates::default();
        let owing = rates.admit("user/owing", Some(&LIMIT), Duration::from_secs(10));
        assert!(owing.is_ok());
        drop(owing);
        let asking = rates.admit("user/asking", None, Duration::from_secs(10)).unwrap();
        for uid in 0..2 * CALLERS_KEPT {
            assert!(
                rates
                    .admit(&format!("user/{uid}"), None, Duration::from_secs(10))
                    .is_ok()
            );
        }
        let callers = rates.callers.lock().unwrap();
        assert!(callers.len() <= CALLERS_KEPT, "{}", callers.len());
        assert!(callers.contains_key("user/owing") && callers.contains_key("user/asking"));
        drop((callers, asking));
    }
}
