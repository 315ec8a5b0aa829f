//! Opening: folder, store, audit log, memory, and what a crash left to tell.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, watch};

use super::audit::{self, Audit, Line};
use super::clock::Now;
use super::memory::Memory;
use super::model::allowance::PolicyView;
use super::model::credential::Fingerprints;
use super::model::lease::Moment;
use super::model::owned::Credential;
use super::requests::AuditHead;
use super::shared::{CHUNKS_MAX, Phase, SINGLES_MAX, STORE_ALARM, Shared};
use super::store::{self, Opened, Rows, StoreError};
use super::writer::Writer;
use super::writer::denies::{Denies, Deny};
use super::{Bindings, OpenError, Options};
use crate::policy::Policy;
use crate::policy::model::{Credentials, Scheme};

/// Changes read at once.
const SLICE: usize = 4_096;

pub(super) fn open(options: Options, policy: Arc<Policy>) -> Result<(Bindings, Writer), OpenError> {
    let now = options.clock.now();
    let folder = options.folder;
    let at_folder = |error| OpenError::Folder {
        path: folder.clone(),
        error,
    };
    // Bindings tell who calls from where: nobody else's to read.
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder);
    made.map_err(at_folder)?;
    let id_pattern = crate::policy::compile_id_pattern(&policy.credentials.id_pattern)
        .map_err(|error| OpenError::Credentials(error.to_string()))?;
    let fingerprints = fingerprints(&policy.credentials)?;
    let path = store::path_in(&folder);
    let opened = open_store(&path, now)?;
    let mut audit = Audit::open(&audit::path_in(&folder), now.wall_ms).map_err(at_folder)?;
    let cut = tell_missing(&mut audit, &opened, now).map_err(|error| OpenError::Store {
        path: path.clone(),
        error,
    })?;
    // Files that were made just now have names on the disk too, before anything in them is acknowledged.
    let synced = std::fs::File::open(&folder).and_then(|folder| folder.sync_all());
    synced.map_err(at_folder)?;
    let (singles, singles_in) = mpsc::channel(SINGLES_MAX);
    let (chunks, chunks_in) = mpsc::channel(CHUNKS_MAX);
    // Above whatever the audit log names, should the store have been set aside.
    let revision = opened.revision.max(audit.revision);
    let memory = Memory::default();
    fill(&memory, opened.rows, &opened.successes, &opened.unsynced);
    let deny = |(name, stored)| (name, Arc::new(Deny::read(stored, now, opened.last_write)));
    let denies = Denies::new(opened.denies.into_iter().map(deny).collect());
    let shared = Arc::new(Shared {
        folder,
        clock: options.clock,
        memory,
        store: opened.store,
        store_id: ArcSwap::from_pointee(opened.id),
        // Of no epoch: the engine says the first.
        view: ArcSwap::from_pointee(PolicyView::new(0, policy)),
        denies: ArcSwap::from_pointee(denies),
        last_view: Mutex::default(),
        grants: OnceLock::new(),
        published: watch::Sender::new(revision),
        settled: watch::Sender::new(0),
        singles,
        chunks,
        alarms: Mutex::default(),
        disk_errors: AtomicU64::new(0),
        audit_head: ArcSwap::from_pointee(audit.head()),
        id_pattern,
        fingerprints,
        streams: Mutex::default(),
        phase: AtomicU8::new(Phase::Starting as u8),
        applied: AtomicBool::new(false),
        next_view: Mutex::default(),
        successes: Mutex::default(),
        is_lost: AtomicBool::new(opened.lost.is_some()),
        lost: opened.lost.clone(),
        kept: AtomicBool::new(false),
        nudge: Notify::new(),
    });
    shared.set_alarm(STORE_ALARM, opened.lost);
    shared.set_alarm("audit", cut);
    let writer = Writer::new(
        Arc::clone(&shared),
        audit,
        (revision, opened.dirty),
        singles_in,
        chunks_in,
    );
    Ok((Bindings { shared }, writer))
}

fn open_store(path: &Path, now: Now) -> Result<Opened, OpenError> {
    store::open(path, now).map_err(|error| match error {
        StoreError::Newer { found, known } => OpenError::Newer {
            back: way_back(path),
            path: path.to_owned(),
            found,
            known,
        },
        error => OpenError::Store {
            path: path.to_owned(),
            error: error.to_string(),
        },
    })
}

/// How to go on with an older release, a sentence.
fn way_back(path: &Path) -> String {
    let (newer, aside) = (path.with_extension("redb.newer"), store::set_aside(path));
    let (path, newer) = (path.display(), newer.display());
    match aside {
        Some(aside) => format!(
            "to go back to what was there before that, without what was pushed and revoked since: `mv {path} {newer} && \
             cp -p {} {path}`",
            aside.display()
        ),
        None => format!(
            "to go on without any binding until publishers sync: `mv {path} {newer}`, then `keyfence restore` a backup \
             of this release"
        ),
    }
}

pub(super) fn fill(
    memory: &Memory,
    rows: Rows,
    successes: &BTreeMap<String, Moment>,
    unsynced: &BTreeMap<String, u64>,
) {
    for (publisher, rows) in rows {
        let shelf = memory.shelf_for(&publisher);
        shelf.fill(rows.into_iter().map(|(credential, mut row)| {
            memory.share(&mut row.content);
            (Credential::new(&publisher, &credential), Arc::new(row))
        }));
    }
    for (publisher, at) in successes {
        let shelf = memory.shelf_for(publisher);
        shelf.succeeded(*at);
        shelf.count_success(*at);
    }
    for (publisher, restored) in unsynced {
        let shelf = memory.shelf_for(publisher);
        shelf.unsynced.store(*restored, Ordering::Release);
    }
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

fn fingerprints(credentials: &Credentials) -> Result<Fingerprints, OpenError> {
    if credentials.scheme == Scheme::Sha256 {
        return Ok(Fingerprints::Sha256);
    }
    let mut secrets = Vec::new();
    for (id, path) in &credentials.secret_files {
        let secret = std::fs::read(path)
            .map_err(|error| OpenError::Credentials(format!("{}: {error}", path.display())))?;
        // The newline that an editor leaves is no part of the secret.
        let secret = secret.trim_ascii_end().to_vec();
        if secret.is_empty() {
            let text = format!("{} is empty: write a secret into it", path.display());
            return Err(OpenError::Credentials(text));
        }
        secrets.push((id.clone(), secret));
    }
    Ok(Fingerprints::hmac(secrets))
}
