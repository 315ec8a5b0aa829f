//! What is in force from a start on: the file that `run` was given, and the last confirmed policy of the state.
//!
//! `[daemon]`, listeners, credentials, authorize, records and sinks are the file's; all else is the kept policy's. Where
//! none was ever confirmed, all is the file's; where the file is invalid, all is the kept policy's.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::store::{State, Store};
use super::text::PolicyText;
use crate::bindings::Bindings;
use crate::bindings::seam::Grants;
use crate::bindings::witness::Witness;
use crate::engine;
use crate::engine::apply::FileState;
use crate::engine::snapshot::View;
use crate::policy::{Loaded, Policy};
use crate::records;

/// Where the state is, unless the file or the command says otherwise.
pub const STATE: &str = "/var/lib/keyfence";

/// The policy to start with, and where each part of it comes from.
pub struct Start {
    pub policy: Arc<Policy>,
    pub hash: String,
    /// Entries of the owner table that the file's policy would need.
    pub owners_needed: u32,
    /// The file's warnings; those of what is in force, where they are others.
    pub warnings: Vec<String>,
    /// All that was read for the policy: what a reload reads again.
    pub files: Vec<PathBuf>,
    pub(super) file: PathBuf,
    pub(super) store: Store,
    /// The file's text, where it is what is in force, and no text that was confirmed before says so.
    pub(super) first: Option<PolicyText>,
    pub(super) file_state: FileState,
    /// Whether the policy that was confirmed last is not known: this one may be older.
    pub(super) is_lost: bool,
    /// Whether the command named the state's folder.
    pub(super) state_given: bool,
    /// What the filter in the kernel tells of the state, where there is one.
    pub witness: Option<Witness>,
}

/// Why there is no start.
pub enum NoStart {
    /// There is nothing to start with: the file, as it was read.
    Policy(Box<Loaded>),
    /// A newer release's policies are kept: a sentence.
    Newer(String),
}

/// What of the daemon a policy is planned and made by.
pub struct Seen {
    pub(super) view: Arc<dyn View>,
    pub(super) grants: Arc<dyn Grants>,
    pub(super) bindings: Bindings,
    /// Who is only observed; `None` where there is no log.
    pub(super) records: Option<records::Handle>,
}

impl Seen {
    pub fn of(
        view: &Arc<dyn View>,
        grants: &Arc<dyn Grants>,
        bindings: &Bindings,
        records: Option<&records::Handle>,
    ) -> Seen {
        Seen {
            view: Arc::clone(view),
            grants: Arc::clone(grants),
            bindings: bindings.clone(),
            records: records.cloned(),
        }
    }
}

impl Start {
    /// Reads both. `state` is the command's folder, which goes before the file's; `tells` is what the filter of an instance
    /// in the kernel tells of it. Writes nothing.
    pub fn of(
        file: &Path,
        state: Option<&Path>,
        tells: &dyn Fn(&str) -> Option<Witness>,
    ) -> Result<Start, NoStart> {
        let mut loaded = engine::load_policy(file);
        let fault = match (&loaded.unreadable, engine::refusal(&loaded)) {
            (Some(why), _) => Some(why.clone()),
            (None, refusal) => refusal,
        };
        let written = loaded.policy.as_ref().map(|policy| policy.daemon.state.clone());
        let folder = state
            .map(Path::to_owned)
            .or(written)
            .unwrap_or_else(|| STATE.into());
        let own = match fault {
            None => loaded.policy.take(),
            Some(_) => None,
        };
        // Before the folder: a daemon that is about to end may write there still.
        let witness = instance(own.as_ref(), &folder).and_then(|instance| tells(&instance));
        let store = Store::read(&folder, witness.as_ref().map(|witness| &witness.policy));
        if let Some(newer) = store.newer() {
            return Err(NoStart::Newer(newer));
        }
        // As status names it, from whatever folder that is asked.
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let owners_needed = own.as_ref().map_or(0, engine::owners_needed);
        let Last { kept, is_file, lost } = last(&store, own.as_ref().map(|_| loaded.hash.as_str()));
        let (mut policy, hash, warnings) = match (own, kept) {
            (None, None) => return Err(NoStart::Policy(Box::new(loaded))),
            (Some(own), None) => (own, loaded.hash.clone(), engine::warnings(&loaded)),
            // The same: its places are the file's.
            (Some(own), Some(kept)) if kept.hash == loaded.hash => {
                (own, kept.hash, engine::warnings(&loaded))
            }
            (Some(own), Some(kept)) => (serving(kept.policy, &own), kept.hash, engine::warnings(&loaded)),
            (None, Some(kept)) => (kept.policy, kept.hash, kept.warnings),
        };
        policy.daemon.state = folder;
        // Not where it may be another that was confirmed: the next start would take this one for the last.
        let nothing = store.confirmed().next().is_none() && lost.is_none();
        let first = (nothing || is_file) && fault.is_none();
        let first = first.then(|| PolicyText::of(&loaded, file.parent())).flatten();
        let file_state = FileState {
            at_start: fault.is_some(),
            hash: fault.is_none().then(|| loaded.hash.clone()),
            error: fault.clone(),
            fault,
            lost: lost.as_deref().map(lost_sentence),
            unopened: Vec::new(),
        };
        let files = loaded.files.iter().map(|file| file.name.as_ref().into());
        Ok(Start {
            policy: Arc::new(policy),
            hash,
            owners_needed,
            warnings,
            files: files.collect(),
            file,
            store,
            first,
            file_state,
            is_lost: lost.is_some(),
            state_given: state.is_some(),
            witness,
        })
    }

    /// Whether the policy that was confirmed last is not known: this one may be older.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// The number of the last confirmed entry; none before the first is written.
    pub fn number(&self) -> Option<u64> {
        Some(self.store.confirmed().next()?.number)
    }

    /// Whether no policy was ever written down here: as before the very first start, or all of it is gone.
    pub fn is_unwritten(&self) -> bool {
        self.store.entries().is_empty() && !self.is_lost
    }

    /// It is not the first start, and what was confirmed is gone: the file is not taken for it.
    pub fn lose(&mut self) {
        (self.is_lost, self.first) = (true, None);
        self.file_state.lost = Some(lost_sentence("nothing is written down of any"));
    }

    /// Brings policies that an older release has kept into this one's form.
    pub fn migrate(&mut self) -> std::io::Result<()> {
        self.store.migrate()
    }

    /// The daemon goes on without something that is no part of the filter: told until it is started anew.
    pub fn goes_without(&mut self, what: String) {
        tracing::error!("{what}");
        self.file_state.unopened.push(what);
    }

    /// What an operator should know: files that cannot be read, and a file that is not what is in force.
    pub fn say(&self) {
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
        for unreadable in self.store.unreadable() {
            tracing::error!("of the policies that were in force, one cannot be read: {unreadable}");
        }
        if let Some(lost) = &self.file_state.lost {
            tracing::error!("{lost}");
        }
        if let Some(error) = &self.file_state.error {
            tracing::error!(
                hash = self.hash,
                "the policy file is invalid, and the last confirmed policy serves for all: {error}"
            );
        } else if !self.is_lost && self.file_state.hash.as_ref() != Some(&self.hash) {
            tracing::warn!(
                hash = self.hash,
                "the policy file says something else than the last confirmed policy, which is in force: `keyfence reload` \
                 applies the file"
            );
        }
    }
}

/// A policy that was kept, loaded again.
struct Kept {
    policy: Policy,
    hash: String,
    warnings: Vec<String>,
}

/// What was confirmed last.
#[derive(Default)]
struct Last {
    /// The last that can be read.
    kept: Option<Kept>,
    /// Whether the file says what was confirmed last, whose own text cannot be read.
    is_file: bool,
    /// Why that is not the last, or may not be.
    lost: Option<String>,
}

/// The last confirmed policy that can be read; each that cannot is told. `own` is the hash of the file.
fn lost_sentence(why: &str) -> String {
    format!(
        "the last confirmed policy cannot be read ({why}): what the kernel had stays in force as it is, and where it had \
         nothing, what can be read serves; `keyfence reload` or `keyfence apply FILE` begins anew"
    )
}

fn last(store: &Store, own: Option<&str>) -> Last {
    if let Some(gone) = store.gone().filter(|gone| own == Some(*gone)) {
        tracing::error!(
            "nothing was kept of {gone}, the policy in force: it is kept anew, since the file says the same"
        );
        return Last {
            is_file: true,
            ..Last::default()
        };
    }
    let mut last = Last {
        lost: store.lacks_the_last().map(str::to_owned),
        ..Last::default()
    };
    for entry in store.confirmed() {
        match kept(store, &entry.hash) {
            Ok(kept) => {
                last.kept = Some(kept);
                break;
            }
            Err(why) if last.lost.is_none() && own == Some(entry.hash.as_str()) => {
                tracing::error!("the confirmed policy is kept anew, since the file says the same: {why}");
                last.is_file = true;
                break;
            }
            Err(why) => {
                tracing::error!("a confirmed policy cannot serve, the one before it is taken: {why}");
                last.lost.get_or_insert(why);
            }
        }
    }
    last
}

/// Whose filter it is, by the file, or by what was kept where that is invalid.
fn instance(own: Option<&Policy>, folder: &Path) -> Option<String> {
    if let Some(own) = own {
        return Some(own.daemon.instance.clone());
    }
    let store = Store::listed(folder);
    let mut confirmed = store.confirmed();
    let last = confirmed.find_map(|entry| kept(&store, &entry.hash).ok())?;
    Some(last.policy.daemon.instance)
}

fn kept(store: &Store, hash: &str) -> Result<Kept, String> {
    let loaded = store.text(hash)?.load();
    let refusal = engine::refusal(&loaded);
    let warnings = engine::warnings(&loaded);
    match (refusal, loaded.policy) {
        (None, Some(policy)) if loaded.hash == hash => Ok(Kept {
            policy,
            hash: loaded.hash,
            warnings,
        }),
        (refusal, _) => {
            let why = refusal.unwrap_or_else(|| "its text is not what was confirmed".to_owned());
            Err(format!("{hash}: {why}"))
        }
    }
}

/// A policy as a daemon with this file has it in force: what is read at start only is the file's.
pub(super) fn serving(policy: Policy, own: &Policy) -> Policy {
    Policy {
        daemon: own.daemon.clone(),
        listeners: own.listeners.clone(),
        credentials: own.credentials.clone(),
        authorize: own.authorize.clone(),
        records: own.records.clone(),
        sinks: own.sinks.clone(),
        ..policy
    }
}

/// Entries that were about to be in force when the daemon ended: their time is over.
pub(super) fn left_pending(store: &Store) -> Vec<(u64, String)> {
    let pending = store
        .entries()
        .iter()
        .filter(|entry| entry.state == State::Pending);
    pending.map(|entry| (entry.number, entry.hash.clone())).collect()
}
