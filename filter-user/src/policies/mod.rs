//! The operator's policies: planned, guarded, put in force, confirmed, rolled back, and kept.
//!
//! One handle, `Policies`, for the listeners and for signals; one change at a time. The engine makes what is decided here;
//! what it says is in force is then written down. Flow: a text -> checked -> planned -> guarded -> kept -> engine -> settled.

mod cover;
mod entries;
pub mod guard;
pub mod plan;
mod start;
mod store;
mod text;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as TaskMutex, watch};

use crate::bindings::Bindings;
use crate::bindings::requests::{Actor, AuditNote, Caller};
use crate::bindings::seam::Grants;
use crate::compiler::Pushed;
use crate::engine;
use crate::engine::apply::{FileState, Pending, Proposed};
use crate::engine::snapshot::{Applied, ReloadError, View};
use crate::judge::Bench;
use crate::judge::both::JudgeError;
use crate::policy::{self, Colour, Loaded, Policy};
use guard::{Connection, CutConnection};
use plan::{Ground, Plan};
use store::Store;

pub use start::{NoPolicy, STATE, Start};
pub use store::{Entry, State, Via};
pub use text::{PolicyText, TextFault};

/// Why a policy was not planned or put in force. What was in force stays so.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PolicyError {
    /// It has faults: all of them, as text.
    #[error("{0}")]
    Invalid(String),
    /// It would cut connections that stand.
    #[error("{}", refused(.0))]
    Refused(Vec<CutConnection>),
    #[error("policy {in_force} is in force, and not the one that this change was made for: plan it again")]
    Changed { in_force: String },
    #[error("policy {} waits to be confirmed until {}: confirm it or roll it back first", .0.hash, .0.deadline)]
    Pending(Pending),
    #[error("no policy waits to be confirmed")]
    NothingPending,
    #[error("no earlier policy was confirmed")]
    NothingEarlier,
    /// The disk has no room to keep it.
    #[error("{0}")]
    Full(String),
    /// The kernel or the disk refused.
    #[error("{0}")]
    Failed(String),
}

impl From<ReloadError> for PolicyError {
    fn from(error: ReloadError) -> PolicyError {
        match error {
            ReloadError::Invalid(faults) => PolicyError::Invalid(faults),
            ReloadError::NothingPending => PolicyError::NothingPending,
            error => PolicyError::Failed(error.to_string()),
        }
    }
}

fn refused(cut: &[CutConnection]) -> String {
    let lines: Vec<String> = cut.iter().map(ToString::to_string).collect();
    format!(
        "it would cut connections that stand, and perhaps you off:\n  {}\nadd a [[management]] entry for the peer, or \
         apply it with --confirm-within, or with --force",
        lines.join("\n  ")
    )
}

/// Who asks for a change.
#[derive(Clone, Debug)]
pub struct By {
    pub actor: Option<Actor>,
    pub via: Via,
}

/// How a policy is to be put in force.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The policy that it was made for; any where none is named.
    pub base: Option<String>,
    /// It goes again unless it is confirmed within this time.
    pub confirm: Option<Duration>,
    /// Whatever it cuts.
    pub force: bool,
    /// Those that the caller found.
    pub connections: Vec<Connection>,
}

/// A policy that is in force now.
#[derive(Clone, Debug)]
pub struct Done {
    pub plan: Plan,
    pub applied: Applied,
    pub pending: Option<Pending>,
}

/// The handle.
#[derive(Clone)]
pub struct Policies {
    inner: Arc<Inner>,
}

struct Inner {
    view: Arc<dyn View>,
    grants: Arc<dyn Grants>,
    bindings: Bindings,
    /// Whose daemon, listeners, credentials, authorize, records and sinks serve until the daemon ends.
    serving: Arc<Policy>,
    /// Whether the state's folder is not the file's.
    state_given: bool,
    /// That `run` was given.
    file: PathBuf,
    /// Held over a whole change, on purpose: changes come one after the other, and waiters are few and in order.
    book: TaskMutex<Book>,
    known: Mutex<Known>,
}

/// What is written down.
struct Book {
    store: Store,
    /// The entry that waits to be confirmed.
    pending: Option<u64>,
    /// The last reload: when it began, and what became of it, for those who asked meanwhile.
    reloaded: Option<(Instant, Result<Done, PolicyError>)>,
}

/// Of the file, as it was read last.
#[derive(Default)]
struct Known {
    state: FileState,
    /// By which a change is seen without reading it.
    stamps: Vec<Stamp>,
}

/// A file's or folder's name, size and last change; no size where it is not there.
type Stamp = (PathBuf, Option<(u64, std::time::SystemTime)>);

/// A policy without faults that does what it expects.
struct Checked {
    policy: Arc<Policy>,
    hash: String,
    warnings: Vec<String>,
    text: PolicyText,
}

impl Policies {
    /// The start is over, and its policy in force. Writes down what that means.
    pub fn new(start: Start, view: Arc<dyn View>, grants: Arc<dyn Grants>, bindings: Bindings) -> Policies {
        let Start {
            policy,
            hash,
            file,
            mut store,
            first,
            file_state,
            state_given,
            ..
        } = start;
        let left = start::left_pending(&store);
        for (number, _) in &left {
            let note = "the daemon ended before it was confirmed";
            noted(store.settle(*number, State::Reverted, Some(note.to_owned())));
        }
        if let Some(text) = first {
            let by = By {
                actor: None,
                via: Via::Start,
            };
            let entry = entry(&policy, &hash, &by, State::Confirmed);
            noted(store.add(entry, &text).map(drop));
        }
        view.note_file(file_state.clone());
        let known = Known {
            stamps: stamps(&file, &[]),
            state: file_state,
        };
        let inner = Arc::new(Inner {
            view,
            grants,
            bindings,
            serving: policy,
            state_given,
            file,
            book: TaskMutex::new(Book {
                store,
                pending: None,
                reloaded: None,
            }),
            known: Mutex::new(known),
        });
        let telling = Arc::clone(&inner);
        tokio::spawn(async move {
            for (_, reverted) in left {
                let by = By {
                    actor: None,
                    via: Via::Start,
                };
                telling.tell("revert", &by, (&reverted, &hash)).await;
            }
        });
        tokio::spawn(watch_pending(Arc::downgrade(&inner), inner.view.pending()));
        Policies { inner }
    }

    /// What a policy would change.
    pub async fn plan(&self, text: PolicyText, base: Option<String>) -> Result<Plan, PolicyError> {
        let inner = &self.inner;
        inner.is_base(base.as_deref())?;
        let checked = inner.check(text).await?;
        inner.compiled(&checked).await?;
        inner.plan(&checked).await
    }

    /// Puts a policy in force.
    pub async fn apply(&self, text: PolicyText, terms: Terms, by: By) -> Result<Done, PolicyError> {
        let inner = Arc::clone(&self.inner);
        finish(async move {
            let mut book = inner.book.lock().await;
            inner.is_base(terms.base.as_deref())?;
            let checked = inner.check(text).await?;
            let done = inner.put(&mut book, checked, terms, &by).await;
            if done.is_ok() {
                inner.look_again();
            }
            done
        })
        .await
    }

    /// Puts the file in force that `run` was given. Those who ask while one is read share the next.
    pub async fn reload(&self, by: By) -> Result<Done, PolicyError> {
        let asked = Instant::now();
        let inner = Arc::clone(&self.inner);
        finish(async move {
            let mut book = inner.book.lock().await;
            if let Some((began, result)) = &book.reloaded
                && *began > asked
            {
                return result.clone();
            }
            let began = Instant::now();
            let result = inner.reload(&mut book, &by).await;
            if let Err(error) = &result {
                tracing::error!("reload changed nothing: {error}");
            }
            // A full disk is no fault of the file's.
            if !matches!(result, Err(PolicyError::Full(_))) {
                inner.note(|known| {
                    known.state.error = result.as_ref().err().map(ToString::to_string);
                    known.state.at_start = false;
                });
            }
            book.reloaded = Some((began, result.clone()));
            result
        })
        .await
    }

    /// The pending policy stays.
    pub async fn confirm(&self, by: By) -> Result<String, PolicyError> {
        let inner = Arc::clone(&self.inner);
        finish(async move {
            let mut book = inner.book.lock().await;
            let Some(pending) = inner.view.pending().borrow().clone() else {
                return Err(PolicyError::NothingPending);
            };
            inner.view.confirm().await?;
            if let Some(number) = book.pending.take() {
                noted(book.store.settle(number, State::Confirmed, None));
            }
            let hash = (pending.base.as_str(), pending.hash.as_str());
            inner.tell("confirm", &by, hash).await;
            Ok(pending.hash)
        })
        .await
    }

    /// Back to what was in force before the pending policy; where none is pending, to the one confirmed before.
    pub async fn rollback(&self, by: By) -> Result<String, PolicyError> {
        let inner = Arc::clone(&self.inner);
        finish(async move {
            let mut book = inner.book.lock().await;
            let pending = inner.view.pending().borrow().clone();
            let hash = match pending {
                Some(pending) => {
                    inner.view.revert().await?;
                    if let Some(number) = book.pending.take() {
                        let note = format!("rolled back by {}", who(&by));
                        noted(book.store.settle(number, State::Reverted, Some(note)));
                    }
                    let hash = (pending.hash.as_str(), pending.base.as_str());
                    inner.tell("rollback", &by, hash).await;
                    pending.base
                }
                None => inner.earlier(&mut book, &by).await?,
            };
            inner.look_again();
            Ok(hash)
        })
        .await
    }

    /// The last policies that were put in force, the last first; and a sentence for each that cannot be read.
    pub async fn history(&self) -> (Vec<Entry>, Vec<String>) {
        let book = self.inner.book.lock().await;
        let entries = book.store.entries().iter().rev();
        let entries =
            entries.filter(|entry| entry.state != State::Pending || book.pending == Some(entry.number));
        (entries.cloned().collect(), book.store.unreadable().to_vec())
    }

    /// Looks whether the file has changed; reads it if so. Blocks.
    pub fn look(&self) {
        let inner = &self.inner;
        let before = {
            let known = inner.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.stamps.clone()
        };
        let names: Vec<PathBuf> = before.iter().map(|(path, _)| path.clone()).collect();
        if before.len() > 1 && stamps_of(&names) == before {
            return;
        }
        let loaded = engine::load_policy(&inner.file);
        inner.read_file(&loaded);
        inner.note(|known| {
            // It was invalid at the start, and is mended.
            if known.state.at_start && known.state.hash.is_some() {
                (known.state.error, known.state.at_start) = (None, false);
            }
        });
    }
}

/// Runs to its end, whether the caller waits or not.
async fn finish<T: Send + 'static>(
    work: impl Future<Output = Result<T, PolicyError>> + Send + 'static,
) -> Result<T, PolicyError> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => Err(PolicyError::Failed(error.to_string())),
    }
}

/// What is in force is told whatever the disk says: it would not be after a restart.
fn noted(written: std::io::Result<()>) {
    if let Err(error) = written {
        tracing::error!("the policies' history is not as it should be on disk: {error}");
    }
}

fn who(by: &By) -> String {
    let user = by.actor.as_ref().map(|actor| match &actor.caller {
        Caller::Publisher(name) | Caller::Operator(name) | Caller::Other(name) => name.clone(),
    });
    user.unwrap_or_else(|| by.via.as_str().to_owned())
}

fn entry(policy: &Policy, hash: &str, by: &By, state: State) -> Entry {
    Entry {
        number: 0,
        hash: hash.to_owned(),
        at: jiff::Timestamp::now(),
        user: by.actor.is_some().then(|| who(by)),
        via: by.via,
        state,
        note: None,
        services: policy.services.len(),
        clients: policy.clients.len(),
        sources: policy.clients.iter().map(|client| client.sources.len()).sum(),
    }
}

/// A pending policy that has gone without anybody's word is written down as reverted.
async fn watch_pending(inner: Weak<Inner>, mut pending: watch::Receiver<Option<Pending>>) {
    let mut was: Option<Pending> = None;
    loop {
        let now = pending.borrow_and_update().clone();
        let Some(inner) = inner.upgrade() else { return };
        if let (Some(was), None) = (&was, &now) {
            let mut book = inner.book.lock().await;
            // Whoever confirmed it or rolled it back has taken it.
            if let Some(number) = book.pending.take() {
                let note = "not confirmed in time".to_owned();
                noted(book.store.settle(number, State::Reverted, Some(note)));
                tracing::warn!(
                    hash = was.base,
                    "policy {} was not confirmed in time: the one before is back",
                    was.hash
                );
                let by = By {
                    actor: None,
                    via: Via::Apply,
                };
                inner.tell("revert", &by, (&was.hash, &was.base)).await;
                inner.look_again();
            }
        }
        was = now;
        drop(inner);
        if pending.changed().await.is_err() {
            return;
        }
    }
}

impl Inner {
    fn in_force(&self) -> String {
        self.view.snapshot().policy.hash.clone()
    }

    fn is_base(&self, base: Option<&str>) -> Result<(), PolicyError> {
        let in_force = self.in_force();
        match base.is_none_or(|base| base == in_force) {
            true => Ok(()),
            false => Err(PolicyError::Changed { in_force }),
        }
    }

    /// Its faults, what this build does not enforce, what it expects.
    async fn check(&self, text: PolicyText) -> Result<Checked, PolicyError> {
        let read = tokio::task::spawn_blocking(move || {
            let loaded = text.load();
            (loaded, Some(text))
        });
        self.checked(read.await.map_err(failed)?).await
    }

    async fn checked(
        &self,
        (mut loaded, text): (Loaded, Option<PolicyText>),
    ) -> Result<Checked, PolicyError> {
        if let Some(why) = &loaded.unreadable {
            return Err(PolicyError::Failed(why.clone()));
        }
        if let Some(refusal) = engine::refusal(&loaded) {
            return Err(PolicyError::Invalid(refusal));
        }
        let Some(mut policy) = loaded.policy.take() else {
            return Err(PolicyError::Invalid(policy::render(&loaded, Colour::Never)));
        };
        let text = text.ok_or_else(|| {
            PolicyError::Failed(
                "a file's name is no text: rename it, so that the policy can be kept".to_owned(),
            )
        })?;
        let mut warnings = engine::warnings(&loaded);
        if self.state_given {
            policy.daemon.state.clone_from(&self.serving.daemon.state);
        }
        warnings.extend(engine::restart_keys(&self.serving, &policy));
        let policy = Arc::new(start::serving(policy, &self.serving));
        let tried = Arc::clone(&policy);
        let tried = tokio::task::spawn_blocking(move || engine::unexpected(&tried));
        match tried.await.map_err(failed)? {
            Ok(None) => {}
            Ok(Some(faults)) => return Err(PolicyError::Invalid(faults)),
            Err(JudgeError::Compile(error)) => return Err(PolicyError::Invalid(error.to_string())),
            Err(error) => return Err(PolicyError::Failed(error.to_string())),
        }
        Ok(Checked {
            policy,
            hash: loaded.hash,
            warnings,
            text,
        })
    }

    /// Whether it has tables: the engine would say so when it makes them.
    async fn compiled(&self, checked: &Checked) -> Result<(), PolicyError> {
        let policy = Arc::clone(&checked.policy);
        let bench = move || Bench::new(&policy, &[], &|_| u64::MAX, &Pushed::default()).map(drop);
        let tables = tokio::task::spawn_blocking(bench).await.map_err(failed)?;
        tables.map_err(|error| PolicyError::Invalid(error.to_string()))
    }

    async fn plan(&self, checked: &Checked) -> Result<Plan, PolicyError> {
        let (bindings, grants) = (self.bindings.clone(), Arc::clone(&self.grants));
        let (old, new) = (self.grants.policy().1, Arc::clone(&checked.policy));
        let (base, hash, warnings) = (self.in_force(), checked.hash.clone(), checked.warnings.clone());
        let plan = tokio::task::spawn_blocking(move || {
            let ground = Ground {
                old: &old,
                new: &new,
                bindings: &bindings,
                grants: &*grants,
            };
            ground.plan(&base, &hash, warnings)
        });
        plan.await.map_err(failed)
    }

    async fn put(
        &self,
        book: &mut Book,
        checked: Checked,
        terms: Terms,
        by: &By,
    ) -> Result<Done, PolicyError> {
        if let Some(pending) = self.view.pending().borrow().clone() {
            return Err(PolicyError::Pending(pending));
        }
        let mut plan = self.plan(&checked).await?;
        let (epoch, in_force) = self.grants.policy();
        // What is in force already needs no way back.
        let confirm = terms.confirm.filter(|_| plan.base != plan.hash);
        if !terms.force && confirm.is_none() {
            let planned = (epoch + 1, &checked.policy);
            let found = guard::look(&self.bindings, &in_force, planned, terms.connections).await;
            if !found.cut.is_empty() {
                return Err(PolicyError::Refused(found.cut));
            }
            plan.warnings.extend(found.unseen);
        }
        for warning in &plan.warnings {
            tracing::warn!("{warning}");
        }
        let number = self.keep(book, &checked, by).await?;
        let proposed = Proposed {
            policy: checked.policy,
            hash: checked.hash,
            warnings: plan.warnings.clone(),
            confirm,
        };
        let applied = match self.view.apply(proposed).await {
            Ok(applied) => applied,
            Err(error) => {
                if let Some(number) = number {
                    noted(book.store.forget(number));
                }
                return Err(error.into());
            }
        };
        let pending = self.view.pending().borrow().clone();
        match (number, &pending) {
            (Some(number), None) => {
                let settled = book.store.settle(number, State::Confirmed, None);
                if let Err(error) = &settled {
                    plan.warnings.push(format!(
                        "it is in force and could not be written down as confirmed, so a restart brings the one before \
                         back: {error}; apply it again"
                    ));
                }
                noted(settled);
            }
            (number, _) => book.pending = number,
        }
        let what = if by.via == Via::Rollback {
            "rollback"
        } else {
            "apply"
        };
        self.tell(what, by, (&plan.base, &plan.hash)).await;
        Ok(Done {
            plan,
            applied,
            pending,
        })
    }

    /// Writes the policy down before it is in force. One that was confirmed last is there already.
    async fn keep(&self, book: &mut Book, checked: &Checked, by: &By) -> Result<Option<u64>, PolicyError> {
        let last = book.store.confirmed().next();
        if last.is_some_and(|last| last.hash == checked.hash) {
            return Ok(None);
        }
        let entry = entry(&checked.policy, &checked.hash, by, State::Pending);
        let store = &mut book.store;
        // As large as all sources: other tasks of this thread go on elsewhere.
        let added = match tokio::runtime::Handle::current().runtime_flavor() {
            tokio::runtime::RuntimeFlavor::MultiThread => {
                tokio::task::block_in_place(|| store.add(entry, &checked.text))
            }
            _ => store.add(entry, &checked.text),
        };
        let added = added.map_err(|error| {
            let why =
                format!("the policy cannot be kept in [daemon] state, so it was not put in force: {error}");
            match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => PolicyError::Full(why),
                _ => PolicyError::Failed(why),
            }
        });
        added.map(Some)
    }

    async fn reload(&self, book: &mut Book, by: &By) -> Result<Done, PolicyError> {
        let file = self.file.clone();
        let read = tokio::task::spawn_blocking(move || {
            let loaded = engine::load_policy(&file);
            let text = PolicyText::of(&loaded, file.parent());
            (loaded, text)
        });
        let read = read.await.map_err(failed)?;
        self.read_file(&read.0);
        let checked = self.checked(read).await?;
        self.put(book, checked, Terms::default(), by).await
    }

    /// Puts the policy in force that was confirmed before the one that is.
    async fn earlier(&self, book: &mut Book, by: &By) -> Result<String, PolicyError> {
        let in_force = self.in_force();
        let before = book.store.confirmed().find(|entry| entry.hash != in_force);
        let hash = before.ok_or(PolicyError::NothingEarlier)?.hash.clone();
        let text = book.store.text(&hash).map_err(PolicyError::Failed)?;
        let checked = self.check(text).await?;
        let terms = Terms {
            force: true,
            ..Terms::default()
        };
        self.put(book, checked, terms, by).await?;
        Ok(hash)
    }

    /// The line of the audit log. What it tells of has happened: where the disk refuses the line, the log says so.
    async fn tell(&self, what: &'static str, by: &By, hash: (&str, &str)) {
        if hash.0 == hash.1 {
            return;
        }
        let generation = self.view.snapshot().generation;
        let mut note = AuditNote::applied(by.actor.clone(), by.via.as_str(), hash, generation);
        note.what = what;
        if let Err(refusal) = self.bindings.audit(note).await {
            tracing::error!("the audit log does not tell of this {what}: {}", refusal.detail);
        }
    }

    /// Notes what the file says now.
    fn read_file(&self, loaded: &Loaded) {
        let invalid = match (&loaded.unreadable, engine::refusal(loaded)) {
            (Some(why), _) => Some(why.clone()),
            (None, refusal) => refusal,
        };
        let files: Vec<&str> = loaded.files.iter().map(|file| file.name.as_ref()).collect();
        let stamps = stamps(&self.file, &files);
        self.note(|known| {
            known.state.hash = invalid.is_none().then(|| loaded.hash.clone());
            known.stamps = stamps;
        });
    }

    /// After a change of what is in force: the file may say the same now, or no longer.
    fn look_again(&self) {
        let in_force = self.in_force();
        self.note(|known| {
            if known.state.hash.as_ref() == Some(&in_force) {
                (known.state.error, known.state.at_start) = (None, false);
            }
        });
    }

    fn note(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut known);
        self.view.note_file(known.state.clone());
    }
}

fn failed(error: tokio::task::JoinError) -> PolicyError {
    PolicyError::Failed(error.to_string())
}

/// Of the file, the files it was read with, and the folders that they are in: a new one there may be included.
fn stamps(file: &Path, others: &[&str]) -> Vec<Stamp> {
    let mut paths: Vec<PathBuf> = others.iter().map(PathBuf::from).collect();
    paths.push(file.to_owned());
    let folders: Vec<PathBuf> = paths
        .iter()
        .filter_map(|path| Some(path.parent()?.to_owned()))
        .collect();
    if !others.is_empty() {
        paths.extend(folders);
    }
    paths.sort();
    paths.dedup();
    stamps_of(&paths)
}

fn stamps_of(paths: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.len(), metadata.modified().ok()?))
    };
    paths.iter().map(|path| (path.clone(), stamp(path))).collect()
}
