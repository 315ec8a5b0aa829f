//! A store that was just opened, beside what else tells of it: the audit log, which is written after it, and the filter in
//! the kernel, which is told after both.

use std::path::Path;

use super::OpenError;
use super::audit::{self, Audit, Line};
use super::clock::Now;
use super::requests::AuditHead;
use super::store::{self, Opened};
use super::witness::StoreTold;

/// Changes read at once.
const SLICE: usize = 4_096;

/// What a store is found to be.
enum Fault {
    /// It ends with the one revision, and the audit log tells of the other.
    BehindLog(u64, u64),
    /// The same of the kernel.
    BehindKernel(u64, u64),
    /// It has the one id, and the kernel was told of the other.
    Other(String, String),
}

/// The store that goes on, and the alarm of a log that was cut.
pub(super) fn compare(
    (mut opened, is_new): (Opened, bool),
    audit: &mut Audit,
    witness: Option<&StoreTold>,
    (folder, now): (&Path, Now),
) -> Result<(Opened, Option<String>), OpenError> {
    let failed = |error: String| OpenError::Store {
        path: store::path_in(folder),
        error,
    };
    // Where nothing was ever pushed, nothing is missing.
    let is_told = audit.revision > 0 || witness.is_some_and(|told| told.revision > 0);
    if is_new && is_told {
        let why = missing(folder);
        let noted = opened.store.lose(&why);
        noted.map_err(|error| failed(error.to_string()))?;
        opened.lost = Some(why);
    }
    let Some(fault) = fault(&opened, audit.revision, witness) else {
        let cut = tell_missing(audit, &opened, now).map_err(failed)?;
        return Ok((opened, cut));
    };
    // The log that it knew may be gone with what came after; that of another store says nothing of this one.
    let cut = match &fault {
        Fault::BehindKernel(..) => tell_cut(audit, &opened, now),
        Fault::BehindLog(..) | Fault::Other(..) => Ok(None),
    };
    let cut = cut.map_err(|error| failed(format!("the audit log: {error}")))?;
    let opened = catch_up(opened, &fault, audit, witness, (folder, now)).map_err(failed)?;
    Ok((opened, cut))
}

fn fault(opened: &Opened, audit_revision: u64, witness: Option<&StoreTold>) -> Option<Fault> {
    let found = opened.revision;
    if found < audit_revision {
        return Some(Fault::BehindLog(found, audit_revision));
    }
    let told = witness?;
    if told.id == opened.id {
        return (found < told.revision).then_some(Fault::BehindKernel(found, told.revision));
    }
    // Of two that nothing was pushed to, neither is older.
    let says_nothing = found == 0 && told.revision == 0;
    let is_known = says_nothing || opened.before.contains(&told.id);
    (!is_known).then(|| Fault::Other(opened.id.clone(), told.id.clone()))
}

impl Fault {
    fn why(&self) -> String {
        let (what, denies) = match self {
            Fault::BehindLog(found, told) => (
                format!(
                    "the store of bindings is older than the audit log: it ends with revision {found}, and the log tells of \
                     {told}: it was put back, or the disk lost what came after;"
                ),
                "denies that the log tells of since (`keyfence audit`)",
            ),
            Fault::BehindKernel(found, told) => (
                format!(
                    "the store of bindings is older than the filter in the kernel: it ends with revision {found}, and the kernel \
                     was told of {told}: it was put back, alone or with its folder. Put the right one back and start the daemon \
                     anew, or"
                ),
                "denies of the time since",
            ),
            Fault::Other(found, told) => (
                format!(
                    "the store of bindings ({found}) is not the one that the filter in the kernel was made with ({told}): the \
                     state folder is an old one, or another's. Put the right one back and start the daemon anew, or"
                ),
                "denies that are not in it",
            ),
        };
        format!(
            "{what} `keyfence reload`, then publishers must sync, before which its bindings count for nothing, \
             {denies} must be made again, and a restart of the daemon after that ends this"
        )
    }

    /// Of a store that an operator went back to.
    fn known(&self) -> String {
        match self {
            Fault::BehindLog(found, told) => format!(
                "the store of an older release ends with revision {found}, and the audit log tells of {told}: what was pushed \
                 and revoked between them is not in force"
            ),
            Fault::BehindKernel(found, told) => format!(
                "the store of an older release ends with revision {found}, and the filter in the kernel was told of {told}: \
                 what was pushed and revoked between them is not in force"
            ),
            Fault::Other(found, told) => format!(
                "the store ({found}) was gone back to, and the filter in the kernel was made with another ({told}): what was \
                 pushed and revoked there is not in force"
            ),
        }
    }

    fn line(&self) -> Line {
        let line = |found: serde_json::Value, told: serde_json::Value| {
            let what = match self {
                Fault::Other(..) => "other-store",
                Fault::BehindLog(..) | Fault::BehindKernel(..) => "older-store",
            };
            Line::new(what, None).with("found", found).with("told", told)
        };
        match self {
            Fault::BehindLog(found, told) => line((*found).into(), (*told).into()),
            Fault::BehindKernel(found, told) => line((*found).into(), (*told).into()).with("by", "kernel"),
            Fault::Other(found, told) => {
                line(found.as_str().into(), told.as_str().into()).with("by", "kernel")
            }
        }
    }
}

/// Under its old id a store's revisions would name two things, so it gets another, and revisions above all that were told.
/// Unless it is new for a reason, or somebody went back knowingly, it counts as one that cannot be read.
fn catch_up(
    opened: Opened,
    fault: &Fault,
    audit: &mut Audit,
    witness: Option<&StoreTold>,
    (folder, now): (&Path, Now),
) -> Result<Opened, String> {
    let path = store::path_in(folder);
    let is_known = went_back(&path);
    if is_known {
        tracing::warn!("{}: {}", path.display(), fault.known());
    } else if opened.lost.is_none() {
        let noted = opened.store.lose(&fault.why());
        noted.map_err(|error| error.to_string())?;
        let noted = audit.append(&[fault.line()], now.wall_ms);
        noted.map_err(|error| format!("the audit log: {error}"))?;
    }
    let told = witness.map_or(0, |told| told.revision).max(audit.revision);
    let before = witness.map(|told| told.id.as_str());
    let renamed = opened.renamed(is_known, told, before, now);
    renamed.map_err(|error| error.to_string())
}

/// Whether there is no store, or an empty file in its place, and none was moved away.
pub(super) fn is_missing(path: &Path) -> bool {
    let nothing = match std::fs::metadata(path) {
        Ok(found) => found.is_file() && found.len() == 0,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    nothing && !went_back(path)
}

/// Whether a newer release's store was moved away, as `way_back` says.
fn went_back(path: &Path) -> bool {
    path.with_extension("redb.newer").exists()
}

/// What is said of a store that was there once.
pub(super) fn missing(folder: &Path) -> String {
    format!(
        "the store of bindings is not there, though something was pushed: is the volume of {} mounted? Then start the daemon \
         anew; else publishers must sync, and the daemon is unready until its next start",
        folder.display()
    )
}

/// A crash leaves a log that has all that the store knows of: each commit tells it how far the log was on disk. One that
/// has less was cut or written anew; the log itself says so from then on, and the answer is the alarm.
fn tell_cut(audit: &mut Audit, opened: &Opened, now: Now) -> std::io::Result<Option<String>> {
    let Some(known) = &opened.audit else {
        return Ok(None);
    };
    if audit.holds(&known.head)? {
        return Ok(None);
    }
    let (expected, found) = (&known.head, audit.head());
    let shown = |head: &AuditHead| serde_json::json!({"line": head.line, "hash": head.hash});
    let line = Line::new(audit::CUT, None)
        .with("expected", shown(expected))
        .with("found", shown(&found))
        .with("told_up_to", known.revision);
    audit.append(&[line], now.wall_ms)?;
    Ok(Some(format!(
        "the audit log was cut or written anew while the daemon was stopped: it ends with line {}, and the store knows of \
         line {} with hash {}; who can write there has taken lines away (its line {} says so, `keyfence audit verify` fails)",
        found.line,
        expected.line,
        expected.hash,
        found.line + 1,
    )))
}

/// What a crash kept from the audit log between the store's commit and the line: who asked is lost, it was never
/// acknowledged. Before that, what was cut off: the alarm.
fn tell_missing(audit: &mut Audit, opened: &Opened, now: Now) -> Result<Option<String>, String> {
    let cut = tell_cut(audit, opened, now).map_err(|error| format!("the audit log: {error}"))?;
    // What was told and is gone is not told again: nobody would know who asked.
    let told = opened.audit.as_ref().map_or(0, |known| known.revision);
    let mut since = audit.revision.max(told);
    loop {
        let changes = opened.store.changes(since, opened.revision, SLICE);
        let changes = changes.map_err(|error| error.to_string())?;
        let Some((last, _)) = changes.last() else {
            return Ok(cut);
        };
        since = *last;
        let line = |(revision, change): &(u64, store::StoredChange)| {
            let event = serde_json::to_value(change.event).unwrap_or_default();
            Line::new("recovered", None)
                .with("event", event)
                .with("publisher", change.publisher.as_str())
                .with("credential", change.credential.as_str())
                .at(*revision)
        };
        let lines: Vec<Line> = changes.iter().map(line).collect();
        let written = audit.append(&lines, now.wall_ms);
        written.map_err(|error| format!("the audit log: {error}"))?;
    }
}
