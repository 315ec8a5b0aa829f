//! The audit log: append-only JSON lines, each with the hash of the line before, on disk before an answer.
//!
//! A line's own hash is SHA-256 over its bytes up to the member `hash`, the last. A line that was torn by a crash was
//! never acknowledged: it is cut off, and the next line says so.

mod renewals;
mod verify;

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

pub(crate) use renewals::Renewals;
pub use verify::{Verified, VerifyError, verify};

use super::model::credential::hex;
use super::model::view::timestamp;
use super::requests::{Actor, AuditHead, Caller};

/// How much of the end is looked at for the last line; more than any line has.
const TAIL_BYTES: u64 = 16 << 20;

/// The hash before the first line.
pub(crate) const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What each line has: no note may say it a second time.
const OWN_MEMBERS: [&str; 6] = ["line", "time", "what", "revision", "previous", "hash"];

/// What a line is that tells of lines that are gone.
pub(crate) const CUT: &str = "cut";

pub(crate) struct Audit {
    file: File,
    bytes: u64,
    head: AuditHead,
    /// The highest revision that a line told.
    pub(crate) revision: u64,
}

/// What the store knows of the log: a head that was on disk, and the highest revision told by then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) head: AuditHead,
    pub(crate) revision: u64,
}

/// A line before it has its place in the chain.
#[derive(Clone)]
pub(crate) struct Line {
    pub(crate) what: &'static str,
    pub(crate) members: Map<String, Value>,
    pub(crate) revision: Option<u64>,
}

impl Line {
    pub(crate) fn new(what: &'static str, actor: Option<&Actor>) -> Line {
        let mut members = Map::new();
        if let Some(actor) = actor {
            members.insert("actor".to_owned(), actor_value(actor));
        }
        Line {
            what,
            members,
            revision: None,
        }
    }

    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Line {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    #[must_use]
    pub(crate) fn at(mut self, revision: u64) -> Line {
        self.revision = Some(revision);
        self
    }
}

fn actor_value(actor: &Actor) -> Value {
    let (kind, name) = match &actor.caller {
        Caller::Publisher(name) => ("publisher", name),
        Caller::Operator(name) => ("operator", name),
        Caller::Other(name) => ("user", name),
    };
    json!({"kind": kind, "name": name, "pid": actor.peer.pid, "uid": actor.peer.uid, "user": actor.peer.user})
}

impl Audit {
    /// Opens the log and finds its head; what follows the last whole line is cut off.
    pub(crate) fn open(path: &Path, wall_ms: i64) -> std::io::Result<Audit> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let length = file.seek(SeekFrom::End(0))?;
        let from = length.saturating_sub(TAIL_BYTES);
        file.seek(SeekFrom::Start(from))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        let whole = tail.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let torn = tail.len() - whole;
        let (head, revision) = head_of(&tail[..whole]).unwrap_or_default();
        let mut audit = Audit {
            file,
            bytes: length - torn as u64,
            head,
            revision,
        };
        if audit.head.hash.is_empty() {
            audit.head.hash = NO_HASH.to_owned();
        }
        if torn > 0 {
            audit.file.set_len(audit.bytes)?;
            let line = Line::new("torn", None).with("bytes", torn);
            audit.append(&[line], wall_ms)?;
        }
        Ok(audit)
    }

    pub(crate) fn head(&self) -> AuditHead {
        self.head.clone()
    }

    pub(crate) fn known(&self) -> Known {
        Known {
            head: self.head(),
            revision: self.revision,
        }
    }

    /// Whether the log has this line still. One that it lacks was cut off, or written anew.
    pub(crate) fn holds(&mut self, head: &AuditHead) -> std::io::Result<bool> {
        if head.line == 0 || *head == self.head {
            return Ok(true);
        }
        if self.head.line <= head.line {
            return Ok(false);
        }
        // Near the end, but after a disk that took lines and refused the store's writes for long.
        for from in [self.bytes.saturating_sub(TAIL_BYTES), 0] {
            self.file.seek(SeekFrom::Start(from))?;
            for line in BufReader::new(&self.file).take(self.bytes - from).lines() {
                let Ok(value) = serde_json::from_str::<Value>(&line?) else {
                    continue;
                };
                if value["line"] == head.line {
                    return Ok(value["hash"] == *head.hash);
                }
            }
        }
        Ok(false)
    }

    /// All lines, on disk when it returns; on an error none of them is there.
    pub(crate) fn append(&mut self, lines: &[Line], wall_ms: i64) -> std::io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut head = self.head.clone();
        let mut revision = self.revision;
        let mut bytes = Vec::with_capacity(lines.len() * 512);
        let time = timestamp(wall_ms).to_string();
        for line in lines {
            head = write_line(&mut bytes, line, &head, &time);
            revision = revision.max(line.revision.unwrap_or(0));
        }
        let written = self
            .file
            .seek(SeekFrom::Start(self.bytes))
            .and_then(|_| self.file.write_all(&bytes))
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Half a line must not stay; if not even this succeeds, the next start cuts it off.
            let _ = self.file.set_len(self.bytes);
            return Err(error);
        }
        self.bytes += bytes.len() as u64;
        self.head = head;
        self.revision = revision;
        Ok(())
    }
}

/// Appends a line and answers the head that it makes.
fn write_line(bytes: &mut Vec<u8>, line: &Line, before: &AuditHead, time: &str) -> AuditHead {
    let taken = |name: &String| OWN_MEMBERS.contains(&name.as_str());
    debug_assert!(
        !line.members.keys().any(taken),
        "a member of the chain's own: {:?}",
        line.members
    );
    let number = before.line + 1;
    let start = bytes.len();
    let mut head = Map::new();
    head.insert("line".to_owned(), number.into());
    head.insert("time".to_owned(), time.into());
    head.insert("what".to_owned(), line.what.into());
    if let Some(revision) = line.revision {
        head.insert("revision".to_owned(), revision.into());
    }
    let previous = Map::from_iter([("previous".to_owned(), Value::from(before.hash.as_str()))]);
    for (at, part) in [&head, &line.members, &previous].into_iter().enumerate() {
        let text = serde_json::to_vec(part).expect("a map of texts and values always has a JSON form");
        let inner = &text[1..text.len() - 1];
        if inner.is_empty() {
            continue;
        }
        bytes.push(if at == 0 { b'{' } else { b',' });
        bytes.extend_from_slice(inner);
    }
    let hash = hex(&Sha256::digest(&bytes[start..]));
    bytes.extend_from_slice(format!(",\"hash\":\"{hash}\"}}\n").as_bytes());
    AuditHead { line: number, hash }
}

/// The last line's number and hash, and the highest revision among the lines.
fn head_of(lines: &[u8]) -> Option<(AuditHead, u64)> {
    let mut revision = 0;
    let mut head = None;
    // From the end: the revisions of the last lines are the highest.
    for (at, line) in lines
        .rsplit(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .enumerate()
    {
        // Lines of starts and policies have none: further back one does.
        if at >= 64 && revision > 0 {
            break;
        }
        let Ok(value) = serde_json::from_slice::<Value>(line) else {
            continue;
        };
        revision = revision.max(value["revision"].as_u64().unwrap_or(0));
        if head.is_none() {
            head = Some(AuditHead {
                line: value["line"].as_u64()?,
                hash: value["hash"].as_str()?.to_owned(),
            });
        }
    }
    head.map(|head| (head, revision))
}

pub(crate) fn path_in(folder: &Path) -> PathBuf {
    folder.join("audit.jsonl")
}
