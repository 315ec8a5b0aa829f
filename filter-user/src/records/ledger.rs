//! What one sink has had since its last checkpoint, and the checkpoint that says so.

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::line::{Line, Names};
use crate::bindings::requests::AuditHead;

/// The kernel's and the log's sums at a checkpoint.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) now: Timestamp,
    /// Packets dropped and observed, as the verdicts' counters have them.
    pub(super) counters: Option<[u64; 2]>,
    /// The same in all records that are written.
    pub(super) sums: [u64; 2],
    /// The number of the first record that is not.
    pub(super) next: u64,
    /// The first epoch of the kernel's tables: sums and counters are of what they have seen.
    pub(super) began: u64,
    /// The last line of the audit log: kept here, a cut or rewritten one shows.
    pub(super) audit: AuditHead,
}

/// Lines since the last checkpoint.
#[derive(Clone, Default)]
pub(super) struct Ledger {
    hash: Sha256,
    pub(super) first: Option<u64>,
    pub(super) last: Option<u64>,
    /// Packets dropped and observed in all records up to the last; `None` where none came since the start.
    sums: Option<[u64; 2]>,
    /// Of the last checkpoint's own line.
    pub(super) previous: Option<String>,
}

#[derive(Serialize)]
struct Checkpoint<'a> {
    #[serde(rename = "@timestamp")]
    timestamp: Timestamp,
    ecs: super::document::Ecs,
    event: CheckpointEvent,
    keyfence: CheckpointFigures<'a>,
}

#[derive(Serialize)]
struct CheckpointEvent {
    kind: &'static str,
    category: [&'static str; 1],
    r#type: [&'static str; 1],
    action: &'static str,
}

#[derive(Serialize)]
struct CheckpointFigures<'a> {
    kind: &'static str,
    instance: &'a str,
    counters: Option<Packets>,
    sums: Packets,
    began: u64,
    first: Option<u64>,
    last: Option<u64>,
    sha256: String,
    previous: Option<&'a str>,
    audit: &'a AuditHead,
    clock: Clock<'a>,
}

#[derive(Serialize)]
struct Packets {
    drop: u64,
    observe: u64,
}

impl From<[u64; 2]> for Packets {
    fn from([drop, observe]: [u64; 2]) -> Self {
        Self { drop, observe }
    }
}

/// Both clocks at once: where the wall clock was set, the two have moved apart.
#[derive(Serialize)]
struct Clock<'a> {
    boot_id: &'a str,
    monotonic_ns: u64,
}

impl Ledger {
    /// A line that was written, its newline included.
    pub(super) fn add(&mut self, line: &Line) {
        self.found(line.sequence, line.text.as_bytes());
        self.sums = Some(line.sums);
    }

    /// A line that an earlier daemon wrote.
    pub(super) fn found(&mut self, sequence: u64, line: &[u8]) {
        self.hash.update(line);
        self.first.get_or_insert(sequence);
        self.last = Some(sequence);
    }

    /// The checkpoint's line, newline included.
    pub(super) fn checkpoint(&self, names: &Names, at: &Snapshot) -> String {
        let checkpoint = Checkpoint {
            timestamp: at.now,
            ecs: super::document::ECS,
            event: CheckpointEvent {
                kind: "state",
                category: ["network"],
                r#type: ["info"],
                action: "checkpoint",
            },
            keyfence: CheckpointFigures {
                kind: "checkpoint",
                instance: &names.instance,
                counters: at.counters.map(Packets::from),
                sums: self.sums.unwrap_or(at.sums).into(),
                began: at.began,
                first: self.first,
                last: self.last,
                sha256: hex(&self.hash.clone().finalize()),
                previous: self.previous.as_deref(),
                audit: &at.audit,
                clock: Clock {
                    boot_id: &names.boot,
                    monotonic_ns: crate::kernel::clock::monotonic().0,
                },
            },
        };
        let mut line = serde_json::to_string(&checkpoint).expect("texts and numbers always have a JSON form");
        line.push('\n');
        line
    }

    /// The checkpoint is written: another stretch begins.
    pub(super) fn checkpointed(&mut self, line: &[u8]) {
        *self = Self {
            previous: Some(hex(&Sha256::digest(line))),
            sums: self.sums,
            ..Self::default()
        };
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
