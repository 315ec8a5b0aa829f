//! Walks over all bindings, a slice a turn: after a policy change for what it suspends and resumes, after a suspend
//! of the machine for the kernel's ends.

use std::sync::Arc;

use super::core::Core;
use super::job::{BindingJob, Job};
use crate::bindings::clock::Now;
use crate::bindings::memory::Shelf;
use crate::bindings::model::allowance::PolicyView;
use crate::bindings::model::lease::{kernel_end, monotonic};
use crate::bindings::model::owned::Credential;
use crate::bindings::model::row::{Row, Told, told_of};
use crate::bindings::model::view::{state, suspended};
use crate::bindings::seam::{Change, Changes};

/// Rows that one turn looks at.
const SLICE: usize = 4_096;
/// The clocks are read one after the other, and the kernel's end is good to two ticks anyway.
const CLOCKS_APART_MS: i64 = 50;

/// A place in the order of all bindings.
#[derive(Clone, Default)]
struct Cursor {
    publisher: Option<Arc<str>>,
    credential: Option<Credential>,
}

pub(super) struct Sweeps {
    policy: Option<Cursor>,
    ends: Option<Cursor>,
    /// How long the machine has slept since it was booted.
    slept_ms: i64,
}

impl Sweeps {
    pub(super) fn new(now: Now) -> Sweeps {
        Sweeps {
            // What a policy changed while the daemon was away is told as well.
            policy: Some(Cursor::default()),
            ends: None,
            slept_ms: slept_ms(now),
        }
    }

    pub(super) fn policy_changed(&mut self) {
        self.policy = Some(Cursor::default());
    }

    /// Notes a suspend: CLOCK_MONOTONIC stood still, so the kernel would end leases too late.
    pub(super) fn notice(&mut self, now: Now) {
        let slept_ms = slept_ms(now);
        if slept_ms > self.slept_ms + CLOCKS_APART_MS {
            self.ends = Some(Cursor::default());
            self.slept_ms = slept_ms;
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.policy.is_some() || self.ends.is_some()
    }
}

fn slept_ms(now: Now) -> i64 {
    now.boot_ms - i64::try_from(now.monotonic_ns / 1_000_000).unwrap_or(i64::MAX)
}

impl Core {
    /// Reviews that the next slice of the policy's sweep asks for.
    pub(super) fn sweep_policy(&mut self, view: &PolicyView, now: Now) -> Vec<Job> {
        let Some(mut cursor) = self.sweeps.policy.take() else {
            return Vec::new();
        };
        let mut jobs = Vec::new();
        let more = self.slice(&mut cursor, |shelf, credential, row| {
            let (state, _) = state(view, &shelf.publisher, shelf.facts(), row, now.boot_ms);
            if told_of(state) != row.told {
                let review = BindingJob::review(Arc::clone(&shelf.publisher), credential.clone());
                jobs.push(Job::Binding(review));
            }
        });
        self.sweeps.policy = more.then_some(cursor);
        jobs
    }

    /// The kernel's ends in the next slice, by the clocks as they are now.
    pub(super) fn sweep_ends(
        &mut self,
        (view, standby): (&PolicyView, Option<&PolicyView>),
        now: Now,
    ) -> Changes {
        let mut changes = Changes::default();
        let Some(mut cursor) = self.sweeps.ends.take() else {
            return changes;
        };
        let more = self.slice(&mut cursor, |shelf, credential, row| {
            let facts = shelf.facts();
            let publisher = &shelf.publisher;
            let Some(end) = row.end.filter(|_| row.told != Told::Ended) else {
                return;
            };
            let end_under = |view| {
                let holds = suspended(view, publisher, facts, row).is_none();
                holds.then(|| Change::End {
                    owner: credential.owner(),
                    end: monotonic(kernel_end(end, facts.hold(view, publisher)), now),
                })
            };
            changes.in_force.extend(end_under(view));
            changes.standby.extend(standby.and_then(end_under));
        });
        self.sweeps.ends = more.then_some(cursor);
        changes
    }

    /// The ends must be told again from the start.
    pub(super) fn sweep_ends_again(&mut self) {
        self.sweeps.ends = Some(Cursor::default());
    }

    /// Calls for each row of the next slice; whether there is more.
    fn slice(&self, cursor: &mut Cursor, mut call: impl FnMut(&Shelf, &Credential, &Row)) -> bool {
        let shelves = self.shared.memory.shelves();
        let mut room = SLICE;
        for shelf in shelves {
            let begun = match &cursor.publisher {
                Some(publisher) if *shelf.publisher < **publisher => continue,
                Some(publisher) => *shelf.publisher == **publisher,
                None => false,
            };
            let after = cursor.credential.take().filter(|_| begun);
            let rows = shelf.after(after.as_deref(), room);
            for (credential, row) in &rows {
                call(&shelf, credential, row);
            }
            room -= rows.len();
            if room == 0 {
                cursor.publisher = Some(Arc::clone(&shelf.publisher));
                cursor.credential = rows.last().map(|(credential, _)| credential.clone());
                return true;
            }
        }
        false
    }
}
