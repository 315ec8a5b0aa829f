//! Watches: every change in the order of revisions, from the store's log, so that no queue grows for a slow reader.
//!
//! A reader that falls behind what is kept is told so and ended.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use super::Bindings;
use super::model::lease::LastWrite;
use super::model::row::Told;
use super::refusal::{Code, Refusal};
use super::requests::{Answer, BindingView, Event, State, Watch, WatchLine};
use super::shared::{Phase, Shared};
use super::store::{StoreError, StoredChange};

const HEARTBEAT: Duration = Duration::from_secs(10);
/// The reader has fallen behind what is kept.
const TOO_SLOW: &str = "too-slow";
/// Changes read from the store at once.
const SLICE: usize = 256;

/// A watch's lines.
pub struct WatchFeed {
    shared: Arc<Shared>,
    watch: Watch,
    store: Arc<String>,
    /// All up to here is told.
    last: u64,
    lines: VecDeque<WatchLine>,
    published: watch::Receiver<u64>,
    heartbeat: Interval,
    ended: bool,
}

impl Bindings {
    pub async fn watch(&self, watch: Watch) -> Answer<WatchFeed> {
        let shared = Arc::clone(&self.shared);
        let published = shared.published.subscribe();
        let revision = *published.borrow();
        let since = watch.since.unwrap_or(revision);
        let store = shared.store_id.load_full();
        let other = watch.store.as_ref().is_some_and(|asked| *asked != *store);
        let begin = shared.store.changes_begin().map_err(unreadable)?;
        if other || since > revision || since < begin {
            let detail = match other || since > revision {
                true => "these revisions are of another store: list again",
                false => "these revisions are no longer kept: list again",
            };
            let refusal = Refusal::new(Code::Gone, detail);
            return Err(refusal.with("store", store.as_str()).with("revision", revision));
        }
        let mut heartbeat = interval_at(tokio::time::Instant::now() + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(WatchFeed {
            shared,
            watch,
            store,
            last: since,
            lines: VecDeque::new(),
            published,
            heartbeat,
            ended: false,
        })
    }
}

fn unreadable(error: StoreError) -> Refusal {
    Refusal::new(Code::Unavailable, error.to_string())
}

impl WatchFeed {
    /// A heartbeat at least every 10 s; `None` after `Ended`, and when the daemon stops. It may be dropped while
    /// it waits, and called again.
    pub async fn next(&mut self) -> Option<WatchLine> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            if self.ended {
                return None;
            }
            let published = *self.published.borrow_and_update();
            if published > self.last || *self.shared.store_id.load_full() != *self.store {
                self.read(published).await;
                continue;
            }
            if self.shared.phase.load(Ordering::Acquire) == Phase::Draining as u8 {
                return None;
            }
            tokio::select! {
                changed = self.published.changed() => self.ended |= changed.is_err(),
                _ = self.heartbeat.tick() => return Some(WatchLine::Heartbeat { heartbeat: self.last }),
            }
        }
    }

    async fn read(&mut self, published: u64) {
        let (shared, since) = (Arc::clone(&self.shared), self.last);
        let read = tokio::task::spawn_blocking(move || {
            let changes = shared.store.changes(since, published, SLICE)?;
            // Read last: what was trimmed meanwhile shows.
            Ok::<_, StoreError>((changes, shared.store.changes_begin()?))
        });
        let same_store = *self.shared.store_id.load_full() == *self.store;
        match read.await {
            Ok(Ok((changes, begin))) if begin <= self.last && same_store => self.take(changes, published),
            _ => {
                self.ended = true;
                let error = match same_store {
                    true => TOO_SLOW,
                    // What a new watch is answered.
                    false => Code::Gone.slug(),
                };
                self.lines.push_back(WatchLine::Ended {
                    error,
                    revision: self.last,
                });
            }
        }
    }

    fn take(&mut self, changes: Vec<(u64, StoredChange)>, published: u64) {
        self.last = match changes.last() {
            Some((revision, _)) if changes.len() == SLICE => *revision,
            _ => published,
        };
        for (revision, change) in changes {
            let wanted = self
                .watch
                .publisher
                .as_ref()
                .is_none_or(|name| *name == change.publisher)
                && (self.watch.renewals || change.event != Event::Renew);
            if wanted {
                let line = self.line(revision, change);
                self.lines.push_back(line);
            }
        }
    }

    fn line(&self, revision: u64, change: StoredChange) -> WatchLine {
        let now = self.shared.clock.now();
        let row = change.row.map(|row| row.in_this_boot(now, LastWrite::default()));
        let binding = row.map(|row| {
            let shown = self.shared.show(&change.publisher, &change.credential, &row);
            // As it was then, not as time and policy have made it since.
            let state = match row.told {
                Told::Active => State::Active,
                Told::Suspended => State::Suspended,
                Told::Ended => State::Ended,
            };
            let suspended_because = shown
                .suspended_because
                .clone()
                .filter(|_| state == State::Suspended);
            Box::new(BindingView {
                state,
                suspended_because,
                ..shown
            })
        });
        WatchLine::Event {
            revision,
            store: self.store.to_string(),
            event: change.event,
            publisher: change.publisher,
            credential: change.credential,
            binding,
        }
    }
}
