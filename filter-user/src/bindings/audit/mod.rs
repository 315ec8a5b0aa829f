//! The audit log: append-only JSON lines, each with the hash of the line before, on disk before an answer.
//!
//! A line's own hash is SHA-256 over its bytes up to the member `hash`, the last. A line that was torn by a crash was
//! never acknowledged: it is cut off, and the next line says so.

mod line;
mod renewals;
mod verify;

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub(crate) use line::{Line, Told};
pub(crate) use renewals::Renewals;
pub use verify::{Verified, VerifyError, verify};

use super::model::view::timestamp;
use super::requests::AuditHead;

/// How much of the end is looked at for the last line; more than any line has.
const TAIL_BYTES: u64 = 16 << 20;

/// What a line of the log has as a rule.
const LINE_BYTES_USUAL: usize = 640;

/// How far back the policy in force is looked for: a million pushes since are ten times as much.
const POLICY_BYTES: [u64; 2] = [1 << 20, 64 << 20];

/// Member of a start's line: its policy stands in for the one confirmed last, of which nothing is kept.
pub const STANDS_IN: &str = "stands_in";

/// The hash before the first line.
pub(crate) const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

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

/// Lines in their places, not on disk yet.
pub(crate) struct Draft {
    bytes: Vec<u8>,
    head: AuditHead,
    revision: u64,
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
        let draft = self.draft(lines, wall_ms);
        self.write(draft)
    }

    /// Lines as they are to stand behind the last that was written.
    pub(crate) fn draft(&self, lines: &[Line], wall_ms: i64) -> Draft {
        let mut draft = Draft {
            bytes: Vec::with_capacity(lines.len() * LINE_BYTES_USUAL),
            head: self.head.clone(),
            revision: self.revision,
        };
        let time = timestamp(wall_ms).to_string();
        for line in lines {
            draft.head = line.write(&mut draft.bytes, &draft.head, &time);
            draft.revision = draft.revision.max(line.revision.unwrap_or(0));
        }
        draft
    }

    /// The same, on disk when it returns; on an error nothing of it is there.
    pub(crate) fn write(&mut self, draft: Draft) -> std::io::Result<()> {
        if draft.bytes.is_empty() {
            return Ok(());
        }
        let written = self
            .file
            .seek(SeekFrom::Start(self.bytes))
            .and_then(|_| self.file.write_all(&draft.bytes))
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Half a line must not stay; if not even this succeeds, the next start cuts it off.
            let _ = self.file.set_len(self.bytes);
            return Err(error);
        }
        self.bytes += draft.bytes.len() as u64;
        self.head = draft.head;
        self.revision = draft.revision;
        Ok(())
    }
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

/// The policy that is told last to be in force: its hash, and the number of its entry in the history, or 0; none where the
/// log's end tells of none.
pub(crate) fn policy_told(path: &Path) -> Option<(String, u64)> {
    let length = std::fs::metadata(path)
        .ok()
        .filter(|found| found.is_file())?
        .len();
    let mut file = File::open(path).ok()?;
    POLICY_BYTES.into_iter().find_map(|bytes| {
        file.seek(SeekFrom::Start(length.saturating_sub(bytes))).ok()?;
        let mut tail = Vec::new();
        (&file).take(bytes).read_to_end(&mut tail).ok()?;
        let mut told = tail.rsplit(|b| *b == b'\n').filter_map(policy_of);
        let (hash, number) = told.next()?;
        let number = number.or_else(|| told.find_map(|(_, number)| number));
        Some((hash, number.unwrap_or(0)))
    })
}

/// Of a line that tells of a start, or of another policy; a start that could not read what was confirmed last tells of none.
fn policy_of(line: &[u8]) -> Option<(String, Option<u64>)> {
    // Lines of pushes need not be parsed.
    let looked = &line[..line.len().min(LINE_BYTES_USUAL)];
    let told = |name: &[u8]| looked.windows(name.len()).any(|found| found == name);
    if !told(b"\"generation\"") {
        return None;
    }
    let value: Value = serde_json::from_slice(line).ok()?;
    let hash = match value["what"] == "start" {
        true if value[STANDS_IN] == true => return None,
        true => value["policy"].as_str()?,
        false => value["before"].as_str().and(value["after"].as_str())?,
    };
    let is_hash = hash.len() == NO_HASH.len() && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then(|| (hash.to_owned(), value["number"].as_u64()))
}

pub(crate) fn path_in(folder: &Path) -> PathBuf {
    folder.join("audit.jsonl")
}
