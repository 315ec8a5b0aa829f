//! What is asked of the bindings and what they answer, as types: the listeners translate HTTP into these and back.
//!
//! Answers are `Serialize` in API.md's own shapes. Bodies come in as bytes: their strict reading is the model's.

use bytes::Bytes;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use super::authorize::{Ask, AskedKey, Authorized, Verdict};
use super::refusal::Refusal;

/// Prefixes of all denies that are no operator's.
pub const DENY_PREFIXES_MAX: usize = 10_000;
/// Beyond these, so many more for who has few: nobody keeps all others from denying anything.
pub const DENY_PREFIXES_KEPT: usize = 1_000;
/// As many as are few.
pub const DENY_PREFIXES_FEW: usize = 100;

/// On whose behalf something is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    pub caller: Caller,
    pub peer: Peer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The name of a publisher in the policy.
    Publisher(String),
    /// An operator: its user's name.
    Operator(String),
    /// Anybody else a listener admits (denies): its user's name.
    Other(String),
}

/// Of the connection, for the audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Peer {
    pub pid: Option<i32>,
    pub uid: Option<u32>,
    pub user: Option<String>,
}

/// `If-Match` and `If-None-Match: *`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    pub if_match: Option<IfMatch>,
    pub if_none_match_any: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// `*`: whatever is there.
    Any,
    /// Without their quotes.
    Tags(Vec<String>),
}

/// `PUT /v1/bindings/{credential}`. The binding is `publisher`'s (for a publisher its own, else `?publisher=`).
#[derive(Clone, Debug)]
pub struct Put {
    pub publisher: String,
    pub credential: String,
    /// The JSON body as it came.
    pub body: Bytes,
    pub conditions: Conditions,
}

/// `DELETE /v1/bindings/{credential}`.
#[derive(Clone, Debug)]
pub struct Delete {
    pub publisher: String,
    pub credential: String,
    pub row_version: Option<u64>,
    pub conditions: Conditions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Active,
    /// Past its end, and still in force by `lease-hold`.
    Held,
    Ended,
    /// Kept without a grant; `suspended_because` says why.
    Suspended,
}

impl State {
    pub const ALL: [State; 4] = [State::Active, State::Held, State::Ended, State::Suspended];

    pub const fn as_str(self) -> &'static str {
        match self {
            State::Active => "active",
            State::Held => "held",
            State::Ended => "ended",
            State::Suspended => "suspended",
        }
    }
}

/// A binding as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BindingView {
    pub credential: String,
    pub publisher: String,
    pub sources: Vec<IpNet>,
    pub services: Vec<String>,
    /// `"443"` or `"1024-65535"`; empty is any.
    pub source_ports: Vec<String>,
    /// `{"packets": {"rate": "100", "burst": 200}, …}`, as it was given; `{}` is the publisher's `limit-default`.
    pub limit: serde_json::Value,
    pub labels: serde_json::Map<String, serde_json::Value>,
    pub row_version: Option<u64>,
    pub created: jiff::Timestamp,
    /// `None`: without an end.
    pub ends_at: Option<jiff::Timestamp>,
    /// What is left of its lease by what decides: this boot's time, whatever the wall clock says. Negative once it is over.
    #[serde(skip)]
    pub ends_in_ms: Option<i64>,
    /// When its grant last passed a packet.
    pub last_seen: Option<jiff::Timestamp>,
    pub state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended_because: Option<String>,
    /// Of the content, without quotes: `c-91f3…`.
    pub etag: String,
    pub revision: u64,
}

/// What a PUT or a renewal came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 201.
    Created,
    Changed,
    Renewed,
    /// Nothing was written.
    Unchanged,
}

/// Answer of a PUT: the binding, and `changed`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PutAnswer {
    #[serde(flatten)]
    pub binding: BindingView,
    /// False only where nothing was written.
    pub changed: bool,
    #[serde(skip)]
    pub outcome: Outcome,
}

/// Answer of a DELETE.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeleteAnswer {
    pub credential: String,
    pub publisher: String,
    pub removed: bool,
    pub row_version: Option<u64>,
    pub revision: u64,
}

/// `GET /v1/bindings`. Every condition that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// `None`: all publishers (operators).
    pub publisher: Option<String>,
    /// At most `LIST_ITEMS_MAX`; `None` is that.
    pub limit: Option<usize>,
    /// `next` of the page before.
    pub after: Option<String>,
    /// An address (a host prefix): prefixes that hold it; a prefix: those that overlap.
    pub source: Option<IpNet>,
    pub service: Option<String>,
    pub state: Option<State>,
    pub ends_before: Option<jiff::Timestamp>,
    pub unused_since: Option<jiff::Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Page {
    pub store: String,
    pub revision: u64,
    pub items: Vec<BindingView>,
    /// May be there with few items or none: a page looks at a bounded number of bindings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A line of a batch's answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum BatchLine {
    Failure(LineFailure),
    Progress { done: u64, revision: u64 },
    Summary { summary: BatchSummary },
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LineFailure {
    /// 1-based.
    pub line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    pub status: u16,
    pub code: &'static str,
    pub detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<super::refusal::FieldFault>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BatchSummary {
    pub lines: u64,
    pub changed: u64,
    pub renewed: u64,
    pub unchanged: u64,
    pub failed: u64,
    /// Failures beyond those that were kept and answered.
    #[serde(skip_serializing_if = "is_zero")]
    pub failures_not_shown: u64,
    /// Whether the line `end` came, with the right count.
    pub complete: bool,
    pub revision: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The query of a full sync.
#[derive(Clone, Debug, Default)]
pub struct SyncOptions {
    pub publisher: String,
    /// `None`: the revision when the request came.
    pub as_of: Option<u64>,
    pub dry_run: bool,
    /// How many revocations are allowed, in place of the publisher's `revoke-max`.
    pub revoke_max: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SyncSummary {
    pub lines: u64,
    pub created: u64,
    pub changed: u64,
    pub renewed: u64,
    pub unchanged: u64,
    pub revoked: u64,
    pub kept_newer: u64,
    pub dry_run: bool,
    pub revision: u64,
}

/// `GET /v1/watch`.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// `None`: all publishers (operators).
    pub publisher: Option<String>,
    /// Exclusive; `None` is from now.
    pub since: Option<u64>,
    /// The store that `since` is of, where the client says it.
    pub store: Option<String>,
    pub renewals: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    Put,
    Delete,
    Expire,
    Suspend,
    Resume,
    Renew,
}

/// A line of a watch.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum WatchLine {
    Event {
        revision: u64,
        store: String,
        event: Event,
        publisher: String,
        credential: String,
        /// As of this revision; none after a delete.
        #[serde(skip_serializing_if = "Option::is_none")]
        binding: Option<Box<BindingView>>,
    },
    Heartbeat {
        heartbeat: u64,
    },
    /// The last line: `too-slow`, and the reader may watch again from here; or `too-old`, since a restore has put
    /// another store in place, and the reader lists again.
    Ended {
        error: &'static str,
        revision: u64,
    },
}

/// `PUT /v1/denies/{name}`.
#[derive(Clone, Debug)]
pub struct PutDeny {
    pub name: String,
    pub body: Bytes,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DenyView {
    pub name: String,
    /// `publisher/NAME`, `operator/USER` or `user/USER`.
    pub owner: String,
    pub sources: Vec<IpNet>,
    pub reason: String,
    pub created: jiff::Timestamp,
    pub ends_at: Option<jiff::Timestamp>,
    pub revision: u64,
}

/// For `/v1/status` and the metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StoreStatus {
    pub store: String,
    pub revision: u64,
    /// Alarms, a sentence each: held leases, a store that was set aside, little space.
    pub alarms: Vec<String>,
    /// Writes that the disk refused since the start.
    pub disk_errors: u64,
    pub publishers: Vec<PublisherStatus>,
    pub denies: u64,
    pub audit: AuditHead,
}

/// What a restore has kept of the store before, so that nobody it kept out gets in: of what the backup has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Kept {
    pub denies: u64,
    /// Row versions of deleted bindings.
    pub deletions: u64,
}

/// The answer to a restore.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Restored {
    pub status: StoreStatus,
    pub kept: Kept,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PublisherStatus {
    pub name: String,
    pub active: u64,
    pub held: u64,
    pub ended: u64,
    pub suspended: u64,
    /// Bindings that end within 5 minutes, an hour, a day: each count holds the ones before.
    pub ending: [u64; 3],
    pub last_success: Option<jiff::Timestamp>,
}

/// The last line of the audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditHead {
    pub line: u64,
    /// 64 hex digits.
    pub hash: String,
}

/// Something besides bindings that belongs into the audit log: apply, observe, detach, start and the like.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditNote {
    pub actor: Option<Actor>,
    pub what: &'static str,
    pub members: serde_json::Map<String, serde_json::Value>,
}

impl AuditNote {
    /// Another policy is in force: by whom or what, the hash before and after, and the generation of its tables.
    pub fn applied(actor: Option<Actor>, by: &str, hash: (&str, &str), generation: u64) -> AuditNote {
        let members = [
            ("by", by.into()),
            ("before", hash.0.into()),
            ("after", hash.1.into()),
            ("generation", generation.into()),
        ];
        AuditNote {
            actor,
            what: "apply",
            members: members
                .map(|(name, value)| (name.to_owned(), value))
                .into_iter()
                .collect(),
        }
    }
}

pub type Answer<T> = Result<T, Refusal>;

/// Items of a page at most.
pub const LIST_ITEMS_MAX: usize = 1_000;
/// Bytes of a body of one binding or deny, and of a line of a batch or a sync.
pub const LINE_BYTES_MAX: usize = 64 << 10;
