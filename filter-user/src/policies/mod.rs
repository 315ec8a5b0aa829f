//! The operator's policies: planned, guarded, put in force, confirmed, rolled back, and kept.
//!
//! One handle, `Policies`, for the listeners and for signals; one change at a time. The engine makes what is decided here;
//! what it says is in force is then written down. Flow: a text -> checked -> planned -> guarded -> kept -> engine -> settled.

mod book;
mod change;
mod cover;
mod cut;
mod entries;
mod error;
mod foretold;
pub mod guard;
mod observing;
mod opens;
pub mod plan;
mod schema;
mod stamps;
mod start;
mod store;
mod text;
mod told;
mod trial;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as TaskMutex, watch};

use crate::bindings::Bindings;
use crate::bindings::requests::{Actor, Caller};
use crate::bindings::seam::Grants;
use crate::bindings::witness::PolicyTold;
use crate::engine;
use crate::engine::apply::{FileState, Pending};
use crate::engine::snapshot::{Applied, View};
use crate::policy::Policy;
use crate::records;
use book::{Book, unkept, watch_pending};
use guard::Connection;
use plan::Plan;
use stamps::{Stamp, stamps, stamps_of};
use trial::Over;

pub use error::PolicyError;
pub use foretold::REFUSED;
pub use start::{NoStart, STATE, Seen, Start};
pub use store::{Entry, State, Via};
pub use text::{PolicyText, TextFault};

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

/// A policy that is in force again.
#[derive(Clone, Debug)]
pub struct Back {
    pub hash: String,
    pub warnings: Vec<String>,
    /// It goes again unless it is confirmed.
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
    /// Who is observed.
    records: Option<records::Handle>,
    /// Whose daemon, listeners, credentials, authorize, records and sinks serve until the daemon ends.
    serving: Arc<Policy>,
    /// Whether the state's folder is not the file's.
    state_given: bool,
    /// That `run` was given.
    file: PathBuf,
    /// Held over a whole change, on purpose: changes come one after the other, and waiters are few and in order.
    book: TaskMutex<Book>,
    known: Mutex<Known>,
    /// What the kernel may be told.
    told: watch::Sender<Option<PolicyTold>>,
}

/// Of the file, as it was read last.
#[derive(Default)]
struct Known {
    state: FileState,
    /// By which a change is seen without reading it.
    stamps: Vec<Stamp>,
}

/// A policy without faults that does what it expects.
struct Checked {
    policy: Arc<Policy>,
    hash: String,
    warnings: Vec<String>,
    text: PolicyText,
}

impl Policies {
    /// The start is over, and its policy in force. Writes down what that means.
    pub fn new(start: Start, seen: Seen) -> Policies {
        let Seen {
            view,
            grants,
            bindings,
            records,
        } = seen;
        let Start {
            policy,
            hash,
            file,
            mut store,
            first,
            file_state,
            is_lost,
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
        let book = Book {
            store,
            pending: None,
            trial_over: left.last().map(|(_, hash)| Over::now(hash)),
            is_lost,
            reloaded: None,
        };
        let inner = Arc::new(Inner {
            view,
            grants,
            bindings,
            records,
            serving: policy,
            state_given,
            file,
            told: watch::Sender::new(book.told(&hash)),
            book: TaskMutex::new(book),
            known: Mutex::new(known),
        });
        let telling = Arc::clone(&inner);
        tokio::spawn(async move {
            for (_, reverted) in left {
                let by = By {
                    actor: None,
                    via: Via::Start,
                };
                telling.tell("revert", &by, (&reverted, &hash), None).await;
            }
        });
        tokio::spawn(watch_pending(Arc::downgrade(&inner), inner.view.pending()));
        Policies { inner }
    }

    /// What a policy would change, and what would be said of it if it were applied.
    pub async fn plan(&self, text: PolicyText, terms: Terms) -> Result<Plan, PolicyError> {
        let inner = &self.inner;
        inner.is_base(terms.base.as_deref())?;
        let checked = inner.check(text).await?;
        inner.compiled(&checked).await?;
        let mut plan = inner.plan(&checked, true).await?;
        plan.warnings
            .extend(inner.foretell(&checked, terms.connections).await);
        Ok(plan)
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
    pub async fn reload(&self, by: By, connections: Vec<Connection>) -> Result<Done, PolicyError> {
        let asked = Instant::now();
        let inner = Arc::clone(&self.inner);
        finish(async move {
            let mut book = inner.book.lock().await;
            // Another's was not looked at for what this caller hangs on.
            if let Some((began, result)) = &book.reloaded
                && *began > asked
                && connections.is_empty()
            {
                return result.clone();
            }
            let began = Instant::now();
            let result = inner.reload(&mut book, connections, &by).await;
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

    /// The pending policy stays; where one is named, that one or none.
    pub async fn confirm(&self, named: Option<String>, by: By) -> Result<String, PolicyError> {
        let inner = Arc::clone(&self.inner);
        finish(async move {
            let mut book = inner.book.lock().await;
            let Some(pending) = inner.view.pending().borrow().clone() else {
                return Err(PolicyError::NothingPending);
            };
            if named.is_some_and(|named| named != pending.hash) {
                let pending = pending.hash;
                return Err(PolicyError::OtherPending { pending });
            }
            // On disk first: what is not there would be gone after a restart, and its time goes on meanwhile.
            if let Some(number) = book.pending {
                book.keep_confirmed(number)?;
            }
            if let Err(error) = inner.view.confirm().await {
                if let Some(number) = book.pending {
                    noted(book.store.settle(number, State::Pending, None));
                }
                return Err(error.into());
            }
            book.pending = None;
            let hash = (pending.base.as_str(), pending.hash.as_str());
            inner.tell_both(&book, "confirm", &by, hash, None).await;
            Ok(pending.hash)
        })
        .await
    }

    /// Back to what was in force before the pending policy; where none is pending, to the one confirmed before, which the
    /// guard may refuse; soon after a trial that ended by itself, only by force or by who names what is in force.
    pub async fn rollback(&self, by: By, terms: Terms) -> Result<Back, PolicyError> {
        let inner = Arc::clone(&self.inner);
        finish(async move {
            let mut book = inner.book.lock().await;
            inner.is_base(terms.base.as_deref())?;
            let pending = inner.view.pending().borrow().clone();
            let back = match pending {
                // Of the one before there is nothing that would come back in its turn.
                Some(pending) if terms.confirm.is_some() => return Err(PolicyError::Pending(pending)),
                Some(pending) => {
                    inner.view.revert().await?;
                    if let Some(number) = book.pending.take() {
                        let note = format!("rolled back by {}", who(&by));
                        noted(book.store.settle(number, State::Reverted, Some(note)));
                    }
                    let hash = (pending.hash.as_str(), pending.base.as_str());
                    inner.tell_both(&book, "rollback", &by, hash, None).await;
                    Back {
                        hash: pending.base,
                        warnings: Vec::new(),
                        pending: None,
                    }
                }
                None => inner.earlier(&mut book, terms, &by).await?,
            };
            inner.look_again();
            Ok(back)
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

fn failed(error: tokio::task::JoinError) -> PolicyError {
    PolicyError::Failed(error.to_string())
}
