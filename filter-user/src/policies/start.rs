//! What is in force from a start on: the file that `run` was given, and the last confirmed policy of the state.
//!
//! `[daemon]`, listeners, credentials, authorize, records and sinks are the file's; all else is the kept policy's. Where
//! none was ever confirmed, all is the file's; where the file is invalid, all is the kept policy's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::store::{State, Store};
use super::text::PolicyText;
use crate::bindings::Bindings;
use crate::bindings::seam::Grants;
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
    /// The file's warnings; those of what is in force, where they are others.
    pub warnings: Vec<String>,
    /// All that was read for the policy: what a reload reads again.
    pub files: Vec<PathBuf>,
    pub(super) file: PathBuf,
    pub(super) store: Store,
    /// The file's text, where it is what is in force and nothing was confirmed before.
    pub(super) first: Option<PolicyText>,
    pub(super) file_state: FileState,
    /// Whether the command named the state's folder.
    pub(super) state_given: bool,
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
    /// Reads both. `state` is the command's folder, which goes before the file's. Writes nothing.
    pub fn of(file: &Path, state: Option<&Path>) -> Result<Start, NoStart> {
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
        let store = Store::read(&folder);
        if let Some(newer) = store.newer() {
            return Err(NoStart::Newer(newer));
        }
        let kept = last(&store);
        // As status names it, from whatever folder that is asked.
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let own = match fault {
            None => loaded.policy.take(),
            Some(_) => None,
        };
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
        let first = store.confirmed().next().is_none() && fault.is_none();
        let first = first.then(|| PolicyText::of(&loaded, file.parent())).flatten();
        let file_state = FileState {
            at_start: fault.is_some(),
            hash: fault.is_none().then(|| loaded.hash.clone()),
            error: fault,
            unopened: Vec::new(),
        };
        let files = loaded.files.iter().map(|file| file.name.as_ref().into());
        Ok(Start {
            policy: Arc::new(policy),
            hash,
            warnings,
            files: files.collect(),
            file,
            store,
            first,
            file_state,
            state_given: state.is_some(),
        })
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
        if let Some(error) = &self.file_state.error {
            tracing::error!(
                hash = self.hash,
                "the policy file is invalid, and the last confirmed policy serves for all: {error}"
            );
        } else if self.file_state.hash.as_ref() != Some(&self.hash) {
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

/// The last confirmed policy that can be read; each that cannot is told.
fn last(store: &Store) -> Option<Kept> {
    store.confirmed().find_map(|entry| {
        let loaded = match store.text(&entry.hash) {
            Ok(text) => text.load(),
            Err(why) => {
                tracing::error!("a confirmed policy cannot be read, the one before it is taken: {why}");
                return None;
            }
        };
        let refusal = engine::refusal(&loaded);
        let warnings = engine::warnings(&loaded);
        match (refusal, loaded.policy) {
            (None, Some(policy)) if loaded.hash == entry.hash => Some(Kept {
                policy,
                hash: loaded.hash,
                warnings,
            }),
            (refusal, _) => {
                let why = refusal.unwrap_or_else(|| "its text is not what was confirmed".to_owned());
                let hash = &entry.hash;
                tracing::error!("confirmed policy {hash} cannot serve, the one before it is taken: {why}");
                None
            }
        }
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies::store::tests::entry;

    fn text(client: &str, operator: &str) -> String {
        format!(
            "version = 1\n[filter]\ninterfaces = [\"eth0\"]\n[daemon]\noperators = [\"{operator}\"]\n\
             [[service]]\nname = \"a\"\nprotocol = \"tcp\"\nports = [443]\n\
             [[management]]\nname = \"ssh\"\nsources = [\"192.0.2.0/24\"]\nprotocol = \"tcp\"\nports = [22]\n\
             [[client]]\nname = \"{client}\"\nsources = [\"198.51.100.7\"]\nservices = [\"a\"]\n"
        )
    }

    struct Host {
        folder: tempfile::TempDir,
    }

    impl Host {
        fn new() -> Host {
            let folder = tempfile::tempdir().unwrap();
            Host { folder }
        }

        fn file(&self) -> PathBuf {
            self.folder.path().join("keyfence.toml")
        }

        fn state(&self) -> PathBuf {
            self.folder.path().join("state")
        }

        fn write(&self, text: &str) {
            std::fs::write(self.file(), text).unwrap();
        }

        /// As an apply of this text did.
        fn confirm(&self, text: &str) -> String {
            let of = PolicyText {
                root: "keyfence.toml".to_owned(),
                folder: None,
                files: [("keyfence.toml".to_owned(), text.to_owned())].into(),
            };
            let hash = of.load().hash;
            let mut store = Store::read(&self.state());
            store.add(entry(&hash, State::Confirmed), &of).unwrap();
            hash
        }

        fn start(&self) -> Start {
            Start::of(&self.file(), Some(&self.state())).unwrap_or_else(|_| panic!("there is a policy"))
        }
    }

    fn told(start: &Start) -> (&str, &str) {
        let policy = &start.policy;
        (&policy.clients[0].name, &policy.daemon.operators[0])
    }

    fn differs(start: &Start) -> bool {
        start.file_state.hash.as_ref() != Some(&start.hash)
    }

    #[test]
    fn file_is_in_force_where_none_was_confirmed() {
        let host = Host::new();
        host.write(&text("new", "root"));
        let start = host.start();
        assert_eq!(told(&start), ("new", "root"));
        assert!(start.first.is_some(), "it counts as confirmed");
        assert!(!differs(&start) && start.file_state.error.is_none());
        assert_eq!(start.policy.daemon.state, host.state());
    }

    #[test]
    fn confirmed_policy_is_in_force_with_what_the_file_says_of_the_daemon() {
        let host = Host::new();
        host.write(&text("new", "alice"));
        let hash = host.confirm(&text("old", "root"));
        let start = host.start();
        assert_eq!(told(&start), ("old", "alice"));
        assert_eq!(start.hash, hash);
        assert!(start.first.is_none());
        assert!(differs(&start) && start.file_state.error.is_none());
    }

    #[test]
    fn file_that_says_the_same_does_not_differ() {
        let host = Host::new();
        host.write(&text("old", "root"));
        host.confirm(&text("old", "root"));
        let start = host.start();
        assert!(!differs(&start) && start.file_state.error.is_none());
        let file = start.policy.clients[0].origin.file.as_ref();
        assert_eq!(file, host.file().to_str().unwrap(), "places are the file's");
    }

    #[test]
    fn confirmed_policy_serves_for_all_where_the_file_is_invalid_or_gone() {
        let host = Host::new();
        host.confirm(&text("old", "root"));
        for broken in [Some("version = 1\nnonsense = 2\n"), None] {
            match broken {
                Some(text) => host.write(text),
                None => std::fs::remove_file(host.file()).unwrap(),
            }
            let start = host.start();
            assert_eq!(told(&start), ("old", "root"));
            assert!(differs(&start) && start.file_state.error.is_some());
        }
    }

    #[test]
    fn without_file_and_without_confirmed_policy_there_is_nothing_to_start_with() {
        let host = Host::new();
        host.write("version = 1\nnonsense = 2\n");
        match Start::of(&host.file(), Some(&host.state())).err() {
            Some(NoStart::Policy(loaded)) => assert!(loaded.errors > 0),
            _ => panic!("the file has faults"),
        }
        assert!(!host.state().exists(), "nothing is written");
    }

    #[test]
    fn one_that_cannot_be_read_gives_its_place_to_the_one_confirmed_before() {
        let host = Host::new();
        host.write(&text("new", "root"));
        let first = host.confirm(&text("first", "root"));
        let second = host.confirm(&text("second", "root"));
        assert_eq!(host.start().hash, second);
        let kept = host.state().join("policy").join(format!("{second}.policy"));
        std::fs::write(kept, "{}").unwrap();
        assert_eq!(host.start().hash, first);
    }
}
