//! What the handle and the writer share: all that can be read without asking the writer, and the way to it.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use arc_swap::{ArcSwap, ArcSwapOption};
use regex::Regex;
use tokio::sync::{Notify, mpsc, watch};

use super::clock::Clock;
use super::guard::Streams;
use super::memory::{Memory, Shelf};
use super::model::allowance::PolicyView;
use super::model::credential::Fingerprints;
use super::model::lease::Moment;
use super::model::row::Row;
use super::model::view::show;
use super::refusal::{Code, Refusal};
use super::requests::{Answer, AuditHead, BindingView};
use super::seam::Grants;
use super::store::Store;
use super::writer::denies::Denies;
use super::writer::job::{BindingJob, Job};
use crate::policy::Policy;

/// The alarm that the store or the audit log cannot be written.
pub(crate) const DISK_ALARM: &str = "disk";

/// The alarm that no space is kept back.
pub(crate) const SPACE_ALARM: &str = "space";

/// The store was set aside: bindings are not in force that were acknowledged. Until the next start.
pub(crate) const STORE_ALARM: &str = "store";

/// A secret of hmac-sha256 cannot be read.
pub(crate) const SECRETS_ALARM: &str = "secrets";

/// Bindings are left out: more would grant an address than the kernel walks.
pub(crate) const CROWDED_ALARM: &str = "crowded";

/// What then holds where an earlier daemon's filter is in force.
const KEPT: &str = "the kernel keeps what was in force, and takes no change of it: `keyfence restore` a backup, and \
                    then, or without one, `keyfence reload`; after that publishers must sync";

/// Single requests that wait for the writer; more are `busy`.
pub(crate) const SINGLES_MAX: usize = 1_024;
/// Chunks of batches that wait for the writer; a batch waits for room.
pub(crate) const CHUNKS_MAX: usize = 4;

pub(crate) struct Shared {
    pub(crate) folder: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) memory: Memory,
    pub(crate) store: Store,
    pub(crate) store_id: ArcSwap<String>,
    pub(crate) view: ArcSwap<PolicyView>,
    /// Of the policy that may be in force next.
    pub(crate) next_view: Mutex<Weak<PolicyView>>,
    /// Of the policy that was in force before, which may come back.
    pub(crate) last_view: Mutex<Weak<PolicyView>>,
    pub(crate) denies: ArcSwap<Denies>,
    pub(crate) grants: OnceLock<Arc<dyn Grants>>,
    /// The last revision that is durable and in force.
    pub(crate) published: watch::Sender<u64>,
    /// Changes that the kernel has taken and that can be seen here.
    pub(crate) settled: watch::Sender<u64>,
    pub(crate) singles: mpsc::Sender<Job>,
    pub(crate) chunks: mpsc::Sender<Vec<BindingJob>>,
    pub(crate) alarms: Mutex<BTreeMap<&'static str, String>>,
    /// Writes to the store or the audit log that the disk refused.
    pub(crate) disk_errors: AtomicU64,
    pub(crate) audit_head: ArcSwap<AuditHead>,
    pub(crate) id_pattern: Regex,
    pub(crate) fingerprints: Fingerprints,
    /// Publishers with a batch or a sync under way.
    pub(crate) streams: Streams,
    pub(crate) phase: AtomicU8,
    /// Another policy is in force: what it suspends and resumes is to be told.
    pub(crate) applied: AtomicBool,
    /// Publishers with held leases whose request has succeeded: the writer makes that durable, then ends them.
    pub(crate) successes: Mutex<HashSet<Arc<str>>>,
    /// Why the store was set aside or is missing, where it is.
    pub(crate) lost: ArcSwapOption<String>,
    /// Whether it was made by this start.
    pub(crate) is_new: bool,
    /// Whether the audit log had lines when it was opened: an earlier daemon ran here.
    pub(super) has_past: bool,
    /// What it held may count in the kernel still, until something else is applied.
    pub(crate) is_lost: AtomicBool,
    /// It does.
    pub(crate) kept: AtomicBool,
    /// Wakes the writer for these two.
    pub(crate) nudge: Notify,
}

/// Where the daemon is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    Starting,
    Running,
    Draining,
}

impl Shared {
    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Whether something can be changed now.
    pub(crate) fn judge_phase(&self) -> Result<(), Refusal> {
        self.judge_running()?;
        match self.kept.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(Refusal::new(Code::Unavailable, self.why_kept())),
        }
    }

    fn judge_running(&self) -> Result<(), Refusal> {
        let phase = self.phase.load(Ordering::Acquire);
        if phase == Phase::Running as u8 {
            return Ok(());
        }
        Err(match phase == Phase::Starting as u8 {
            true => Refusal::new(Code::Starting, "the daemon is starting: ask again"),
            false => Refusal::new(Code::Draining, "the daemon is stopping: ask again"),
        })
    }

    fn why_kept(&self) -> String {
        match self.is_lost.load(Ordering::Acquire) {
            true => format!("the store could not be read: {KEPT}"),
            false => "the last confirmed policy could not be read: the kernel keeps what was in force, and takes no change \
                      of it; `keyfence reload` begins anew"
                .to_owned(),
        }
    }

    /// The kernel keeps what it had: see `Bindings::keep`.
    pub(crate) fn keep(&self) {
        self.kept.store(true, Ordering::Release);
        // Where the store is whole, it is the policy that is not, and that is told with the policy.
        let alarm = self.lost.load_full().map(|lost| format!("{lost}; {KEPT}"));
        self.set_alarm(STORE_ALARM, alarm);
    }

    /// It does no longer.
    pub(crate) fn let_go(&self) {
        if self.kept.swap(false, Ordering::AcqRel) {
            let lost = self.lost.load_full();
            self.set_alarm(STORE_ALARM, lost.map(|lost| lost.as_ref().clone()));
        }
    }

    /// Hands a job to the writer, or says that there is no room.
    pub(crate) fn send(&self, job: Job) -> Answer<()> {
        match job {
            Job::Note(..) | Job::Restore(_) => self.judge_running()?,
            _ => self.judge_phase()?,
        }
        self.singles.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refusal::new(
                Code::Busy,
                format!("{SINGLES_MAX} changes wait already: ask again"),
            ),
            mpsc::error::TrySendError::Closed(_) => {
                Refusal::new(Code::Draining, "the daemon is stopping: ask again")
            }
        })
    }

    /// What the kernel has taken last can be seen here now.
    pub(crate) fn settle(&self) {
        self.settled.send_modify(|settled| *settled += 1);
    }

    /// The view of this policy: the one at hand, or a new one in its place.
    pub(crate) fn view_of(&self, epoch: u64, policy: &Arc<Policy>) -> Arc<PolicyView> {
        let view = self.view.load_full();
        if view.epoch == epoch && Arc::ptr_eq(&view.policy, policy) {
            return view;
        }
        let view = self.view_to_be(epoch, policy);
        let last = self.view.swap(Arc::clone(&view));
        *self.last_view.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&last);
        view
    }

    /// The view of a policy that may come into force with this epoch, or was with it: made once, as long as somebody
    /// holds it.
    pub(crate) fn view_to_be(&self, epoch: u64, policy: &Arc<Policy>) -> Arc<PolicyView> {
        let is = |view: &Arc<PolicyView>| view.epoch == epoch && Arc::ptr_eq(&view.policy, policy);
        let in_force = self.view.load_full();
        if is(&in_force) {
            return in_force;
        }
        let last = self.last_view.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = last.upgrade().filter(is) {
            return view;
        }
        drop(last);
        let mut next = self.next_view.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = next.upgrade().filter(is) {
            return view;
        }
        let view = Arc::new(PolicyView::new(epoch, Arc::clone(policy)));
        *next = Arc::downgrade(&view);
        view
    }

    /// The view of the policy that stands by, where one does.
    pub(crate) fn standby_of(&self, grants: &dyn Grants) -> Option<Arc<PolicyView>> {
        let (epoch, policy) = grants.standby()?;
        Some(self.view_to_be(epoch, &policy))
    }

    /// A publisher's request has succeeded: leases that are held end, as soon as that is on disk.
    pub(crate) fn succeeded(&self, publisher: &str) {
        let Some(shelf) = self.memory.shelf(publisher) else {
            return;
        };
        shelf.succeeded(Moment::at(self.clock.now()));
        self.end_held(&shelf);
    }

    /// Asks the writer for it, where there is something to end.
    pub(crate) fn end_held(&self, shelf: &Shelf) {
        if shelf.owes_ends() {
            let mut successes = self.successes.lock().unwrap_or_else(PoisonError::into_inner);
            successes.insert(Arc::clone(&shelf.publisher));
            self.nudge.notify_one();
        }
    }

    pub(crate) fn set_alarm(&self, kind: &'static str, text: Option<String>) {
        if kind == DISK_ALARM && text.is_some() {
            self.disk_errors.fetch_add(1, Ordering::Relaxed);
        }
        let mut alarms = self.alarms.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = match text {
            Some(text) if alarms.get(kind) != Some(&text) => alarms.insert(kind, text).is_none(),
            Some(_) => false,
            None => {
                alarms.remove(kind);
                false
            }
        };
        if changed && let Some(text) = alarms.get(kind) {
            match kind {
                SPACE_ALARM => tracing::warn!("{text}"),
                _ => tracing::error!("{text}"),
            }
        }
    }

    /// A binding as it is shown now.
    pub(crate) fn show(&self, publisher: &str, credential: &str, row: &Row) -> BindingView {
        let now = self.clock.now();
        let view = self.view.load();
        let facts = self.memory.shelf_for(publisher).facts();
        let owner = super::model::view::owner(publisher, credential);
        let used = self.grants.get().and_then(|grants| grants.used(&owner));
        let last_seen = used.filter(|used| used.last_seen > 0).map(|used| {
            let ago_ms = now.monotonic_ns.saturating_sub(used.last_seen) / 1_000_000;
            super::model::view::timestamp(now.wall_ms.saturating_sub_unsigned(ago_ms))
        });
        show(&view, publisher, facts, credential, row, last_seen, now)
    }
}
