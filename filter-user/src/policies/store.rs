//! The policies that were in force, in the folder `policy` of the state: who put each there, what became of it, and its
//! whole text.
//!
//! `NNNNNN.json` an entry, `HASH.policy` a text, which entries of the same policy share. Each is written aside, synced and
//! renamed: a crash leaves the old file or the new. What cannot be read is named, never fatal and never removed.

mod migrate;
#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::schema::{self, SCHEMA, Unread, Written};
use super::text::PolicyText;
use crate::bindings::witness::{PolicyTold, policy_told};
use crate::policy::read_regular;

/// Entries that are kept; older ones go, but for the last two that were confirmed.
pub(super) const ENTRIES_MAX: usize = 20;
const ENTRY: &str = "json";
const TEXT: &str = "policy";

/// By what a policy was put in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    Apply,
    Reload,
    Sighup,
    Rollback,
    /// The file of the first start, or of one that found no policy kept.
    Start,
}

impl Via {
    pub const fn as_str(self) -> &'static str {
        match self {
            Via::Apply => "apply",
            Via::Reload => "reload",
            Via::Sighup => "SIGHUP",
            Via::Rollback => "rollback",
            Via::Start => "start",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// About to be in force, or in force until its deadline.
    Pending,
    Confirmed,
    Reverted,
}

/// One policy that was put in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Rises by one with each.
    pub number: u64,
    pub hash: String,
    pub at: jiff::Timestamp,
    /// Who asked; none for a signal and a start.
    pub user: Option<String>,
    pub via: Via,
    pub state: State,
    /// What became of it, where that wants a word.
    #[serde(default)]
    pub note: Option<String>,
    pub services: usize,
    pub clients: usize,
    /// Prefixes of clients.
    pub sources: usize,
}

#[derive(Default)]
pub(super) struct Store {
    folder: PathBuf,
    /// By number.
    entries: Vec<Entry>,
    /// A sentence for each file that cannot be read.
    unreadable: Vec<String>,
    /// The highest number of an entry that cannot be read, and its sentence; of the folder, the highest there is.
    unreadable_last: Option<(u64, String)>,
    /// The hash of the policy that was told of last, by the audit log or the kernel, where no entry has it.
    gone: Option<String>,
    /// The oldest schema that an entry is written in, and the newest.
    schemas: Option<(u32, u32)>,
}

impl Store {
    /// Reads what is there; writes nothing. `witness` is what the filter in the kernel tells, where there is one.
    pub(super) fn read(state: &Path, witness: Option<&PolicyTold>) -> Store {
        let mut store = Self::listed(state);
        store.miss(state, witness);
        store
    }

    /// An entry that was removed, or a folder that was put back: the audit log knows of a later one, or the kernel does. Not
    /// where the operator went back to an older release's.
    fn miss(&mut self, state: &Path, witness: Option<&PolicyTold>) {
        if self.lacks_the_last().is_some() || self.folder.with_extension("newer").exists() {
            return;
        }
        let last = self.entries.last().map_or(0, |entry| entry.number);
        // One that was gone back to is there twice: the number tells them apart.
        let is_gone = |told: &PolicyTold| {
            told.number > last || self.entries.iter().all(|entry| entry.hash != told.hash)
        };
        let by_log = policy_told(state).filter(is_gone);
        let by_kernel = witness.filter(|told| !told.hash.is_empty() && is_gone(told));
        let folder = self.folder.display();
        let (hash, why) = match (by_log, by_kernel) {
            (Some(PolicyTold { hash, number }), kernel)
                if kernel.is_none_or(|told| told.number <= number) =>
            {
                let why = format!("the audit log tells of {hash} as the last, of which {folder} has nothing");
                (hash, why)
            }
            (_, Some(PolicyTold { hash, .. })) => {
                let why = format!(
                    "the filter in the kernel was told of {hash} as the last, of which {folder} has nothing: was an old folder \
                     put back, or another's?"
                );
                (hash.clone(), why)
            }
            (_, None) => return,
        };
        self.unreadable_last = Some((u64::MAX, why));
        self.gone = Some(hash);
    }

    pub(super) fn listed(state: &Path) -> Store {
        let folder = state.join("policy");
        let mut store = Store {
            folder: folder.clone(),
            ..Store::default()
        };
        let listed = match fs::read_dir(&folder) {
            Ok(listed) => listed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return store,
            Err(error) => {
                store.unreadable.push(format!("{}: {error}", folder.display()));
                store.unreadable_last = store.unreadable.last().map(|why| (u64::MAX, why.clone()));
                return store;
            }
        };
        let paths = listed.filter_map(|entry| Some(entry.ok()?.path()));
        for path in paths.filter(|path| path.extension().is_some_and(|end| end == ENTRY)) {
            match read_entry(&path) {
                Ok((entry, schema)) => {
                    store.met(schema);
                    store.entries.push(entry);
                }
                Err(why) => {
                    if let Unread::Newer(schema) = why {
                        store.met(schema);
                    }
                    let why = format!("{}: {why}", path.display());
                    let numbered = number_of(&path).map(|number| (number, why.clone()));
                    store.unreadable_last = store.unreadable_last.max(numbered);
                    store.unreadable.push(why);
                }
            }
        }
        store.entries.sort_by_key(|entry| entry.number);
        store
    }

    fn met(&mut self, schema: u32) {
        let (oldest, newest) = self.schemas.unwrap_or((schema, schema));
        self.schemas = Some((oldest.min(schema), newest.max(schema)));
    }

    /// Why nothing may be read or written here: a newer release has kept policies.
    pub(super) fn newer(&self) -> Option<String> {
        let (_, newest) = self.schemas.filter(|(_, newest)| *newest > SCHEMA)?;
        Some(format!(
            "{} holds policies of schema {newest}, and this release reads up to {SCHEMA}: they are left as they are. Run \
             the release that wrote them, or a newer one; {}",
            self.folder.display(),
            schema::way_back(&self.folder)
        ))
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    /// One that cannot be read and may have been confirmed after all that can, a sentence.
    pub(super) fn lacks_the_last(&self) -> Option<&str> {
        let last = self.confirmed().next().map_or(0, |entry| entry.number);
        let (number, why) = self.unreadable_last.as_ref()?;
        (*number > last).then_some(why)
    }

    /// What was in force last, where nothing is kept of it: its hash.
    pub(super) fn gone(&self) -> Option<&str> {
        self.gone.as_deref()
    }

    /// Those that were confirmed, the last first.
    pub(super) fn confirmed(&self) -> impl Iterator<Item = &Entry> {
        let confirmed = |entry: &&Entry| entry.state == State::Confirmed;
        self.entries.iter().rev().filter(confirmed)
    }

    /// The text of a policy, as it was kept.
    pub(super) fn text(&self, hash: &str) -> Result<PolicyText, String> {
        let path = self.text_path(hash);
        let shown = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let bytes = read_regular(&path).map_err(|error| shown(&error))?;
        let (text, _) = schema::read(&bytes).map_err(|why| shown(&why))?;
        Ok(text)
    }

    /// Keeps a policy; its number.
    pub(super) fn add(&mut self, mut entry: Entry, text: &PolicyText) -> io::Result<u64> {
        let mut builder = fs::DirBuilder::new();
        // Policies tell who calls from where: nobody else's to read.
        builder.recursive(true).mode(0o700).create(&self.folder)?;
        let path = self.text_path(&entry.hash);
        // One that is there may be cut, or of another folder.
        if self.text(&entry.hash).as_ref() != Ok(text) {
            self.write(&path, text)?;
        }
        entry.number = self.next_number()?;
        self.write(&self.entry_path(entry.number), &entry)?;
        let number = entry.number;
        self.entries.push(entry);
        Ok(number)
    }

    /// Notes what became of one.
    pub(super) fn settle(&mut self, number: u64, state: State, note: Option<String>) -> io::Result<()> {
        let found = self.entries.iter().position(|entry| entry.number == number);
        let Some(at) = found else { return Ok(()) };
        let mut entry = self.entries[at].clone();
        entry.state = state;
        entry.note = note.or(entry.note);
        self.write(&self.entry_path(number), &entry)?;
        self.entries[at] = entry;
        if state != State::Pending {
            self.prune()?;
        }
        Ok(())
    }

    /// As if it had never been added.
    pub(super) fn forget(&mut self, number: u64) -> io::Result<()> {
        self.entries.retain(|entry| entry.number != number);
        fs::remove_file(self.entry_path(number))?;
        self.prune()
    }

    /// Removes what is older than the last ones, and texts that nobody names any more.
    fn prune(&mut self) -> io::Result<()> {
        let needed: BTreeSet<u64> = self.confirmed().take(2).map(|entry| entry.number).collect();
        let surplus = self.entries.len().saturating_sub(ENTRIES_MAX);
        let old: Vec<u64> = self.entries.iter().map(|entry| entry.number).collect();
        let old: Vec<u64> = old
            .into_iter()
            .filter(|number| !needed.contains(number))
            .take(surplus)
            .collect();
        for number in &old {
            match fs::remove_file(self.entry_path(*number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                // Somebody else may have done it.
                _ => {}
            }
        }
        self.entries.retain(|entry| !old.contains(&entry.number));
        // An entry that cannot be read may name any of them.
        if !self.unreadable.is_empty() {
            return Ok(());
        }
        for file in fs::read_dir(&self.folder)? {
            let path = file?.path();
            let text = path.extension().is_some_and(|end| end == TEXT);
            let named = |entry: &Entry| self.text_path(&entry.hash) == path;
            if text && !self.entries.iter().any(named) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Above all that are there, readable or not, and those whose files somebody has removed.
    fn next_number(&self) -> io::Result<u64> {
        let mut last = self.entries.last().map_or(0, |entry| entry.number);
        for file in fs::read_dir(&self.folder)? {
            last = last.max(number_of(&file?.path()).unwrap_or(0));
        }
        Ok(last + 1)
    }

    fn write(&self, path: &Path, what: &impl Serialize) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        let written = Written { schema: SCHEMA, what };
        let mut writer = io::BufWriter::new(file.as_file_mut());
        serde_json::to_writer(&mut writer, &written)?;
        writer.write_all(b"\n")?;
        writer.flush()?;
        drop(writer);
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(&self.folder)?.sync_all()
    }

    fn entry_path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:06}.{ENTRY}"))
    }

    fn text_path(&self, hash: &str) -> PathBuf {
        self.folder.join(format!("{hash}.{TEXT}"))
    }
}

/// Of an entry's file.
fn number_of(path: &Path) -> Option<u64> {
    let stem = path.file_stem()?.to_str()?;
    stem.parse()
        .ok()
        .filter(|_| path.extension().is_some_and(|end| end == ENTRY))
}

/// With the schema that it was written in.
fn read_entry(path: &Path) -> Result<(Entry, u32), Unread> {
    let bytes = read_regular(path).map_err(|error| Unread::Fault(error.to_string()))?;
    let (entry, schema) = schema::read::<Entry>(&bytes)?;
    // It is part of a path.
    let plain = !entry.hash.is_empty() && entry.hash.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match plain {
        true => Ok((entry, schema)),
        false => Err(Unread::Fault("its hash is none".to_owned())),
    }
}
