//! The bindings: which credential may call from which addresses, pushed at run time, durable, and in force in the
//! kernel.
//!
//! `Bindings` is the one handle: cheap to clone, typed in and out; the listeners translate HTTP into it. One task, the
//! `Writer`, owns the store. Flow: listeners -> `Bindings` -> `Writer` -> store, audit log, `seam::Grants` -> answer.

pub mod audit;
pub mod clock;
mod memory;
mod model;
pub mod refusal;
pub mod requests;
pub mod seam;
mod store;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use crate::policy::Policy;
use clock::Clock;
use refusal::{Code, Refusal};
use requests::{
    Actor, Answer, Ask, AuditHead, AuditNote, Authorized, BatchLine, BindingView, Delete, DeleteAnswer,
    DenyView, List, Page, Put, PutAnswer, PutDeny, StoreStatus, SyncOptions, SyncSummary, Verdict, Watch,
    WatchLine,
};
use seam::{DenyGrant, Effective, Grantee, Grants};

/// Where and how the store is opened.
pub struct Options {
    /// `[daemon] state`: made if it is not there.
    pub folder: PathBuf,
    pub clock: Arc<dyn Clock>,
}

/// Why the bindings cannot be opened at all. A store that cannot be read is no such reason: it is set aside.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path}: {error}; name another folder with --state or [daemon] state")]
    Folder { path: PathBuf, error: std::io::Error },
    /// Left untouched.
    #[error(
        "{path} is of store format {found}, this release reads up to {known}: run the release that wrote it, or a newer one"
    )]
    Newer { path: PathBuf, found: u64, known: u64 },
    #[error("[credentials]: {0}")]
    Credentials(String),
}

/// The handle. Until `Writer::run` has the engine, what changes something is refused with `starting`.
#[derive(Clone)]
pub struct Bindings {}

/// The one task that changes the store; the daemon spawns it.
pub struct Writer {}

/// A batch that is being read. Never waits for whoever reads the answers.
pub struct BatchInput {}

/// The answers of a batch, while it is being read.
pub struct BatchOutput {}

/// A full sync that is being read; dropped before `finish` it changes nothing.
pub struct SyncInput {}

/// A watch's lines.
pub struct WatchFeed {}

fn not_yet() -> Refusal {
    Refusal::new(Code::Unavailable, "the store is not there yet")
}

impl Bindings {
    /// Reads the store under the policy about to be in force. Blocks. The handle answers reads and `Effective` at
    /// once, so that the engine can start with what it holds.
    pub fn open(_options: Options, _policy: Arc<Policy>) -> Result<(Bindings, Writer), OpenError> {
        Ok((Bindings {}, Writer {}))
    }

    /// Durable, audited and in force when it returns.
    pub async fn put(&self, _actor: &Actor, _put: Put) -> Answer<PutAnswer> {
        Err(not_yet())
    }

    pub async fn delete(&self, _actor: &Actor, _delete: Delete) -> Answer<DeleteAnswer> {
        Err(not_yet())
    }

    /// `unknown-credential` where it is not there.
    pub fn get(&self, _publisher: &str, _credential: &str) -> Answer<BindingView> {
        Err(not_yet())
    }

    pub async fn list(&self, _list: List) -> Answer<Page> {
        Err(not_yet())
    }

    /// Begins a batch: one batch or sync at a time a publisher.
    pub fn batch(
        &self,
        _actor: &Actor,
        _publisher: &str,
        _progress: bool,
    ) -> Answer<(BatchInput, BatchOutput)> {
        Err(not_yet())
    }

    /// Begins a full sync: one batch or sync at a time a publisher.
    pub fn sync(&self, _actor: &Actor, _options: SyncOptions) -> Answer<SyncInput> {
        Err(not_yet())
    }

    pub async fn watch(&self, _watch: Watch) -> Answer<WatchFeed> {
        Err(not_yet())
    }

    /// Lock-light and quick: it may be called on a runtime's thread.
    pub fn authorize(&self, _ask: &Ask<'_>) -> Authorized {
        Authorized {
            verdict: Verdict::Unknown,
            observe: false,
            credential: String::new(),
            publisher: String::new(),
        }
    }

    pub async fn put_deny(&self, _actor: &Actor, _deny: PutDeny) -> Answer<DenyView> {
        Err(not_yet())
    }

    /// False where there was none.
    pub async fn remove_deny(&self, _actor: &Actor, _name: &str) -> Answer<bool> {
        Err(not_yet())
    }

    pub fn denies(&self) -> Vec<DenyView> {
        Vec::new()
    }

    /// A publisher's request that succeeded without changing anything (a list, a GET): its held leases end.
    pub fn succeeded(&self, _publisher: &str) {}

    pub fn status(&self) -> StoreStatus {
        StoreStatus::default()
    }

    pub fn audit_head(&self) -> AuditHead {
        AuditHead::default()
    }

    /// Appends a line about something else than bindings; returns when it is on disk.
    pub async fn audit(&self, _note: AuditNote) -> Answer<AuditHead> {
        Err(not_yet())
    }

    /// Up to `limit` lines of the audit log as they stand there, from line `from` (1-based) on.
    pub async fn audit_lines(&self, _from: u64, _limit: usize) -> Answer<Vec<String>> {
        Err(not_yet())
    }

    /// A consistent copy of the store, online; `to` must not exist.
    pub async fn backup(&self, _actor: &Actor, _to: PathBuf) -> Answer<StoreStatus> {
        Err(not_yet())
    }

    /// Puts a backup in place of what is there, under a new store id. Without `trust`, its bindings are suspended
    /// until their publisher has synced.
    pub async fn restore(&self, _actor: &Actor, _from: PathBuf, _trust: bool) -> Answer<StoreStatus> {
        Err(not_yet())
    }
}

impl Effective for Bindings {
    fn effective(&self, _policy: &Policy) -> (Vec<Grantee>, Vec<DenyGrant>) {
        (Vec::new(), Vec::new())
    }

    fn applied(&self, _epoch: u64, _policy: &Arc<Policy>) {}
}

impl Writer {
    /// Runs until `stop` says true, then writes what is owed and returns.
    pub async fn run(self, _grants: Arc<dyn Grants>, _stop: watch::Receiver<bool>) {}
}

impl BatchInput {
    /// The next bytes of the body, cut anywhere. Waits while too much is undecided, never for a reader.
    pub async fn push(&mut self, _bytes: &[u8]) -> Answer<()> {
        Err(not_yet())
    }

    /// The body's end.
    pub async fn finish(self) -> Answer<()> {
        Err(not_yet())
    }
}

impl BatchOutput {
    /// `None` after the summary.
    pub async fn next(&mut self) -> Option<BatchLine> {
        None
    }
}

impl SyncInput {
    /// The next bytes of the body, cut anywhere. A fault is told by `finish`.
    pub async fn push(&mut self, _bytes: &[u8]) -> Answer<()> {
        Err(not_yet())
    }

    /// The body's end: the stream is the publisher's whole set now, or nothing has changed.
    pub async fn finish(self) -> Answer<SyncSummary> {
        Err(not_yet())
    }
}

impl WatchFeed {
    /// A heartbeat at least every 10 s; `None` after `too-slow`, and when the daemon stops.
    pub async fn next(&mut self) -> Option<WatchLine> {
        None
    }
}
