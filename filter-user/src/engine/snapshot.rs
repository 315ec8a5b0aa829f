//! What the daemon shows of itself: one immutable picture of its state, and the kernel's counters.
//!
//! The engine builds and publishes a `Snapshot`; the listeners and the metrics only read it, through `View`.
//! Nothing here reads a clock, a file or a map.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;

use super::ExplainError;
use super::apply::{FileState, Pending, Proposed};
use crate::judge::in_force::{InForce, Question};
use crate::policy::model::Mode;

/// The state in force, as of its publishing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Snapshot {
    /// `[daemon] instance`: part of the pins' names.
    pub instance: String,
    /// Of the daemon.
    pub version: &'static str,
    pub started_at: jiff::Timestamp,
    pub policy: PolicyState,
    /// Number of the kernel tables in force; rises by one a swap.
    pub generation: u64,
    /// The filter's; a service may have its own. `None` where nobody knows which policy is in force, here and below.
    pub mode: Option<Mode>,
    pub interfaces: Vec<InterfaceState>,
    pub services: Vec<ServiceState>,
    pub tables: Vec<TableFill>,
    pub drift: Drift,
    pub canary: Canary,
    /// What is observed for a while that is enforced otherwise.
    pub observing: Vec<Observing>,
    /// Why the daemon is not ready, a sentence each; empty is ready.
    pub not_ready: Vec<String>,
}

/// The policy in force, and what became of the last attempt to change it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PolicyState {
    /// The file that `run` was given.
    pub file: String,
    /// Of what is in force: SHA-256 over all files, 64 hex digits.
    pub hash: String,
    pub in_force_since: jiff::Timestamp,
    /// Whether the last load succeeded.
    pub reload_ok: bool,
    /// What the last load failed on; `None` after one that succeeded.
    pub last_error: Option<String>,
    /// Whether the file says something else than what is in force.
    pub file_differs: bool,
    /// Why a reload would not take the file as it is now: it cannot be read, or has faults.
    pub file_error: Option<String>,
    /// The policy in force comes to its end then, unless it is confirmed; null where it is confirmed.
    pub pending: Option<Pending>,
}

impl PolicyState {
    pub(super) fn at_start(file: &std::path::Path, hash: &str, since: jiff::Timestamp) -> Self {
        Self {
            file: file.display().to_string(),
            hash: hash.to_owned(),
            in_force_since: since,
            reload_ok: true,
            last_error: None,
            file_differs: false,
            file_error: None,
            pending: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InterfaceState {
    pub name: String,
    pub ifindex: u32,
    pub mode: AttachMode,
    pub attached: bool,
}

/// How the kernel program is attached: in the driver, or behind the generic hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachMode {
    Native,
    Generic,
}

impl AttachMode {
    pub const fn as_str(self) -> &'static str {
        match self {
            AttachMode::Native => "native",
            AttachMode::Generic => "generic",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceState {
    pub name: String,
    pub environment: String,
    /// Its own, or the filter's.
    pub mode: Option<Mode>,
    /// Its number in the kernel's tables.
    pub number: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableFill {
    pub table: &'static str,
    pub entries: u64,
    pub capacity: u64,
}

/// Entries of a generation's tables that are not as the daemon wrote them, as of the last read-back.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Drift {
    /// At least so many: of tables of single words, up to eight that stand together count as one.
    pub entries: u64,
    /// Where they are; empty where there are none.
    pub tables: Vec<TableDrift>,
    /// Which one was read back: in force when that began. Null before the first.
    pub generation: Option<u64>,
    /// When the last read-back ended; null before the first.
    pub checked_at: Option<jiff::Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableDrift {
    pub table: &'static str,
    pub entries: u64,
}

/// What would be dropped passes and is recorded, until then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Observing {
    /// Null: everything.
    pub service: Option<String>,
    pub until: jiff::Timestamp,
}

/// Why nothing is observed that was to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObserveError {
    #[error("there is no service {0}")]
    NoSuchService(String),
    #[error("{0}")]
    Failed(String),
}

/// Known frames that were run through the kernel's program in force, as of the last round.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Canary {
    pub frames: u64,
    /// Those that it judged otherwise than the reference, a sentence each.
    pub differing: Vec<String>,
    /// When the last round of this generation ended; null before the first.
    pub checked_at: Option<jiff::Timestamp>,
}

/// The keys of drops that have a record of their own: entries as of the last interval's end.
pub const RECORD_KEYS_TABLE: &str = "RECORDS";

/// The kernel's counters, read at one time and summed over the CPUs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CounterValues {
    pub verdicts: Vec<VerdictCount>,
    pub interfaces: Vec<InterfaceCount>,
    /// Packets of sources that shared another's bucket.
    pub shared_sources: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VerdictCount {
    /// `None` where no service decided.
    pub service: Option<String>,
    pub verdict: &'static str,
    pub reason: &'static str,
    pub packets: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InterfaceCount {
    pub interface: String,
    pub verdict: &'static str,
    pub packets: u64,
}

/// Who reads the kernel's maps. A read may block for as long as its system calls take.
pub trait Counters: Send + Sync {
    /// All counters, or what stood in the way.
    fn read(&self) -> Result<CounterValues, String>;
}

pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Why a reload changed nothing. The text names what, where and how to fix it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// The file has faults.
    #[error("{0}")]
    Invalid(String),
    /// A guard stood in the way (a session would be cut, say).
    #[error("{0}")]
    Refused(String),
    /// The file is good, but the kernel or the disk refused.
    #[error("{0}")]
    Failed(String),
    #[error("no policy waits to be confirmed")]
    NothingPending,
}

/// What a reload that succeeded has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// In a sentence, what is in force now.
    pub detail: String,
    /// The clients of the policy.
    pub clients: usize,
    /// Those of the policy, one a line, with its place.
    pub warnings: Vec<String>,
}

/// What the listeners see of the daemon.
pub trait View: Send + Sync {
    fn snapshot(&self) -> Arc<Snapshot>;
    /// As `Counters::read`: it may block.
    fn counters(&self) -> Result<CounterValues, String>;
    /// Puts a policy in force; on an error, what was in force stays so.
    fn apply(&self, proposed: Proposed) -> BoxFuture<Result<Applied, ReloadError>>;
    /// The pending policy stays in force.
    fn confirm(&self) -> BoxFuture<Result<(), ReloadError>>;
    /// What was in force before the pending policy comes back at once.
    fn revert(&self) -> BoxFuture<Result<(), ReloadError>>;
    /// What waits to be confirmed; the channel tells each change.
    fn pending(&self) -> watch::Receiver<Option<Pending>>;
    /// Notes what became of the file that `run` was given, for the picture.
    fn note_file(&self, state: FileState);
    /// Observes a service, or everything, for so many seconds; 0 ends it.
    fn observe(&self, service: Option<String>, seconds: u64) -> BoxFuture<Result<(), ObserveError>>;
    /// Whether a service, and whether everything, is observed for a while: asked for every request of a gateway.
    fn observes(&self, service: &str) -> [bool; 2];
    /// Takes the filter off, and says from which interfaces.
    fn detach(&self) -> BoxFuture<Result<Vec<String>, String>>;
    /// Whether somebody took it off since the start: every packet passes.
    fn is_detached(&self) -> bool;
    /// What in force decides a packet, and the kernel program's verdict.
    fn explain(&self, question: Question) -> BoxFuture<Result<InForce, ExplainError>>;
}
