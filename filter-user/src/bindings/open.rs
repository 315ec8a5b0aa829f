//! Opening: folder, store, audit log, memory, and what a crash left to tell.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Notify, mpsc, watch};

use super::audit::{self, Audit};
use super::clock::Now;
use super::compare::{compare, is_missing};
use super::memory::Memory;
use super::model::allowance::PolicyView;
use super::model::credential::Fingerprints;
use super::secret::read_secret;
use super::shared::{CHUNKS_MAX, Phase, SECRETS_ALARM, SINGLES_MAX, STORE_ALARM, Shared};
use super::store::{self, Opened, StoreError};
use super::writer::Writer;
use super::writer::denies::{Denies, Deny};
use super::writer::reserve::give_up;
use super::{Bindings, OpenError, Options};
use crate::policy::Policy;
use crate::policy::model::{Credentials, Scheme};

pub(super) fn open(options: Options, policy: Arc<Policy>) -> Result<(Bindings, Writer), OpenError> {
    let now = options.clock.now();
    let (folder, witness) = (options.folder, options.witness);
    let at_folder = |error| OpenError::Folder {
        path: folder.clone(),
        error,
    };
    make(&folder).map_err(at_folder)?;
    let id_pattern = crate::policy::compile_id_pattern(&policy.credentials.id_pattern)
        .map_err(|error| OpenError::Credentials(error.to_string()))?;
    let (fingerprints, unread) = fingerprints(&policy.credentials);
    let is_new = is_missing(&store::path_in(&folder));
    let opened = open_store(&folder, now)?;
    let mut audit = open_audit(&folder, now)?;
    let has_past = audit.head().line > 0;
    let (mut opened, cut) = compare((opened, is_new), &mut audit, witness.as_ref(), (&folder, now))?;
    // Files that were made just now have names on the disk too, before anything in them is acknowledged.
    let synced = std::fs::File::open(&folder).and_then(|folder| folder.sync_all());
    synced.map_err(at_folder)?;
    let (singles, singles_in) = mpsc::channel(SINGLES_MAX);
    let (chunks, chunks_in) = mpsc::channel(CHUNKS_MAX);
    let revision = opened.revision;
    let memory = Memory::default();
    fill(&memory, &mut opened);
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
        lost: ArcSwapOption::from_pointee(opened.lost.clone()),
        is_new,
        has_past,
        kept: AtomicBool::new(false),
        nudge: Notify::new(),
    });
    shared.set_alarm(STORE_ALARM, opened.lost);
    shared.set_alarm("audit", cut);
    shared.set_alarm(SECRETS_ALARM, unread);
    let writer = Writer::new(
        Arc::clone(&shared),
        audit,
        (revision, opened.dirty),
        singles_in,
        chunks_in,
    );
    Ok((Bindings { shared }, writer))
}

/// Bindings tell who calls from where: nobody else's to read.
fn make(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(folder)
}

fn open_audit(folder: &Path, now: Now) -> Result<Audit, OpenError> {
    let path = audit::path_in(folder);
    let opened = set_irregular_aside(&path, now).and_then(|()| Audit::open(&path, now.wall_ms));
    opened.map_err(|error| OpenError::Folder { path, error })
}

/// A folder or a pipe where a file is to be: it would end the start, or hold it up for ever.
fn set_irregular_aside(path: &Path, now: Now) -> std::io::Result<()> {
    if std::fs::metadata(path).map_or(true, |found| found.is_file()) {
        return Ok(());
    }
    let aside = path.with_extension(format!("unreadable-{}", now.wall_ms));
    tracing::error!(
        "{} is not a regular file: it is set aside as {}, and a new one begun",
        path.display(),
        aside.display()
    );
    std::fs::rename(path, aside)
}

fn open_store(folder: &Path, now: Now) -> Result<Opened, OpenError> {
    let path = store::path_in(folder);
    let opened = match store::open(&path, now) {
        // Whom to keep out must not wait for space either.
        Err(error) if error.is_full() && give_up(folder) => {
            tracing::warn!(
                "{}: the disk is full: what was kept back is used",
                folder.display()
            );
            store::open(&path, now)
        }
        opened => opened,
    };
    opened.map_err(|error| match error {
        StoreError::Newer { found, known } => OpenError::Newer {
            back: way_back(&path),
            path,
            found,
            known,
        },
        error => {
            let room = match error.is_full() {
                true => "; make room there, or name another folder with --state or [daemon] state",
                false => "",
            };
            OpenError::Store {
                path,
                error: format!("{error}{room}"),
            }
        }
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

pub(super) fn fill(memory: &Memory, opened: &mut Opened) {
    memory.learn(std::mem::take(&mut opened.names));
    for (publisher, rows) in std::mem::take(&mut opened.rows) {
        memory.shelf_for(&publisher).fill(rows);
    }
    for (publisher, at) in &opened.successes {
        let shelf = memory.shelf_for(publisher);
        shelf.succeeded(*at);
        shelf.count_success(*at);
    }
    for (publisher, restored) in &opened.unsynced {
        let shelf = memory.shelf_for(publisher);
        shelf.unsynced.store(*restored, Ordering::Release);
    }
}

/// The scheme with those of its secrets that can be read, and what is wrong with the others: packets are judged without.
fn fingerprints(credentials: &Credentials) -> (Fingerprints, Option<String>) {
    if credentials.scheme == Scheme::Sha256 {
        return (Fingerprints::default(), None);
    }
    let (mut secrets, mut faults) = (Vec::new(), Vec::new());
    for (id, path) in &credentials.secret_files {
        match read_secret(path) {
            Ok(secret) => secrets.push((id.clone(), secret)),
            Err(why) => faults.push(why),
        }
    }
    let unread = (!faults.is_empty()).then(|| {
        format!(
            "[credentials]: {}; authorize refuses the keys that are known by it until the daemon is restarted with it",
            faults.join("; ")
        )
    });
    (Fingerprints::new(secrets), unread)
}
