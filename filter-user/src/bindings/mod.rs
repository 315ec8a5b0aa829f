//! The bindings: which credential may call from which addresses, pushed at run time, durable, and in force in the
//! kernel.
//!
//! `Bindings` is the one handle: cheap to clone, typed in and out; the listeners translate HTTP into it. One task, the
//! `Writer`, owns the store. Flow: listeners -> `Bindings` -> `Writer` -> store, audit log, `seam::Grants` -> answer.

pub mod audit;
mod authorize;
mod backup;
mod batch;
pub mod clock;
mod compare;
mod feed;
mod guard;
mod lines;
mod list;
mod memory;
mod model;
mod open;
mod outlook;
mod planned;
pub mod refusal;
mod replay;
pub mod requests;
pub mod seam;
mod secret;
mod shared;
mod sources;
mod status;
mod store;
mod sync;
#[cfg(test)]
mod tests;
mod unfound;
pub mod witness;
mod writer;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use crate::policy::Policy;
use audit::Line;
use clock::{Clock, Now};
use memory::{Shelf, Which};
use model::allowance::{Allowance, PolicyView};
use model::body::{Shape, Wanted, put_body};
use model::owned::Credential;
use model::row::Row;
use model::view::PublisherFacts;
use model::{credential, json, view};
use refusal::{Code, FieldFault, Refusal};
use requests::{
    Actor, Answer, AuditHead, AuditNote, BindingView, Delete, DeleteAnswer, DenyView, LINE_BYTES_MAX,
    Outcome, Put, PutAnswer, PutDeny,
};
use seam::{BoxFuture, DenyGrant, Effective, Grantee, LeftOut, Under};
use shared::{CROWDED_ALARM, Shared};
use witness::StoreTold;
use writer::denies::{self, DenyJob, DenyOp};
use writer::job::{BindingJob, Done, Job, Op, Reply};

pub use batch::{BatchInput, BatchOutput};
pub use feed::WatchFeed;
pub use planned::Planned;
pub use replay::{BadLine, grantees_of_lines};
pub use secret::read_secret;
pub use sync::SyncInput;
pub use writer::Writer;

/// Where and how the store is opened.
pub struct Options {
    /// `[daemon] state`: made if it is not there.
    pub folder: PathBuf,
    pub clock: Arc<dyn Clock>,
    /// What the filter in the kernel was told of the store here, where there is one.
    pub witness: Option<StoreTold>,
}

/// Why the bindings cannot be opened at all. A store that cannot be read is no such reason: it is set aside.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path}: {error}; name another folder with --state or [daemon] state")]
    Folder { path: PathBuf, error: std::io::Error },
    /// Left untouched.
    #[error(
        "{path} is of store format {found}, this release reads up to {known}: it is left as it is. Run the release that \
         wrote it, or a newer one; {back}"
    )]
    Newer {
        path: PathBuf,
        found: u64,
        known: u64,
        back: String,
    },
    #[error("{path}: {error}")]
    Store { path: PathBuf, error: String },
    #[error("[credentials]: {0}")]
    Credentials(String),
}

/// The handle. Until `Writer::run` has the engine, what changes something is refused with `starting`.
#[derive(Clone)]
pub struct Bindings {
    shared: Arc<Shared>,
}

impl Bindings {
    /// Reads the store under the policy about to be in force. Blocks. The handle answers reads and `Effective` at
    /// once, so that the engine can start with what it holds.
    pub fn open(options: Options, policy: Arc<Policy>) -> Result<(Bindings, Writer), OpenError> {
        open::open(options, policy)
    }

    /// Whether the store could not be read, and nothing that it held was put in force anew since: not even by a start in
    /// between.
    pub fn is_lost(&self) -> bool {
        self.shared.is_lost.load(Ordering::Acquire)
    }

    /// Whether there was none before.
    pub fn is_new(&self) -> bool {
        self.shared.is_new
    }

    /// Whether an earlier daemon has written to the audit log here.
    pub fn has_past(&self) -> bool {
        self.shared.has_past
    }

    /// The kernel holds what was pushed, and the store, which is new, does not. Blocks.
    pub fn lose(&self) {
        let why = compare::missing(&self.shared.folder);
        if let Err(error) = self.shared.store.lose(&why) {
            tracing::error!("{error}");
        }
        self.shared.lost.store(Some(Arc::new(why)));
        self.shared.is_lost.store(true, Ordering::Release);
    }

    /// The kernel keeps what it had, which nobody here knows: until a policy is applied, nothing can be pushed.
    pub fn keep(&self) {
        self.shared.keep();
    }

    /// It does: nobody here knows who is let in.
    pub fn is_kept(&self) -> bool {
        self.shared.kept.load(Ordering::Acquire)
    }

    /// Durable, audited and in force when it returns.
    pub async fn put(&self, actor: &Actor, put: Put) -> Answer<PutAnswer> {
        let view = self.shared.view.load_full();
        let allowance = allowance_of(&view, &put.publisher)?;
        self.judge_credential(&put.credential)?;
        if put.body.len() > LINE_BYTES_MAX {
            let detail = format!("a binding has at most {LINE_BYTES_MAX} bytes");
            return Err(Refusal::new(Code::LineTooLong, detail));
        }
        let json = json::parse(&put.body).map_err(|detail| Refusal::new(Code::Malformed, detail))?;
        let body = put_body(&json, Shape::Body, &view, allowance).map_err(Refusal::of_faults)?;
        let op = Op::Put {
            wanted: self.want(body),
            epoch: view.epoch,
            conditions: put.conditions,
        };
        match self.ask(actor, &put.publisher, &put.credential, op).await? {
            Done::Put { outcome, row } => Ok(PutAnswer {
                binding: self.shared.show(&put.publisher, &put.credential, &row),
                changed: outcome != Outcome::Unchanged,
                outcome,
            }),
            _ => Err(lost()),
        }
    }

    pub async fn delete(&self, actor: &Actor, delete: Delete) -> Answer<DeleteAnswer> {
        let op = Op::Delete {
            row_version: delete.row_version,
            conditions: delete.conditions,
        };
        self.judge_credential(&delete.credential)?;
        match self.ask(actor, &delete.publisher, &delete.credential, op).await? {
            Done::Delete {
                removed,
                row_version,
                revision,
            } => Ok(DeleteAnswer {
                credential: delete.credential,
                publisher: delete.publisher,
                removed,
                row_version,
                revision,
            }),
            _ => Err(lost()),
        }
    }

    /// `unknown-credential` where it is not there.
    pub fn get(&self, publisher: &str, credential: &str) -> Answer<BindingView> {
        let row = self.shared.memory.get(publisher, credential);
        let row = row.ok_or_else(|| Refusal::new(Code::UnknownCredential, "there is no such binding"))?;
        Ok(self.shared.show(publisher, credential, &row))
    }

    /// Whether there are, or were since the start, bindings of this publisher, in the policy or not.
    pub fn has_of(&self, publisher: &str) -> bool {
        self.shared.memory.shelf(publisher).is_some()
    }

    pub async fn put_deny(&self, actor: &Actor, deny: PutDeny) -> Answer<DenyView> {
        let body = denies::read(&deny.name, &deny.body, actor)?;
        let answer = self.ask_deny(actor, deny.name, DenyOp::Put(body)).await?;
        answer.ok_or_else(lost)
    }

    /// False where there was none.
    pub async fn remove_deny(&self, actor: &Actor, name: &str) -> Answer<bool> {
        let removed = self.ask_deny(actor, name.to_owned(), DenyOp::Remove).await?;
        Ok(removed.is_some())
    }

    pub fn denies(&self) -> Vec<DenyView> {
        self.shared.denies.load().views()
    }

    /// A publisher's request that succeeded without changing anything (a list, a GET): its held leases end.
    pub fn succeeded(&self, publisher: &str) {
        self.shared.succeeded(publisher);
    }

    pub fn audit_head(&self) -> AuditHead {
        self.shared.audit_head.load().as_ref().clone()
    }

    /// Appends a line about something else than bindings; returns when it is on disk.
    pub async fn audit(&self, note: AuditNote) -> Answer<AuditHead> {
        let mut line = Line::new(note.what, note.actor.as_ref());
        for (name, value) in &note.members {
            line = line.with(name, value);
        }
        let (reply, answer) = oneshot::channel();
        self.shared.send(Job::Note(line, reply))?;
        answer.await.map_err(|_| lost())?
    }

    async fn ask(&self, actor: &Actor, publisher: &str, credential: &str, op: Op) -> Answer<Done> {
        let (reply, answer) = oneshot::channel();
        self.shared.send(Job::Binding(BindingJob {
            publisher: publisher.into(),
            credential: Credential::new(publisher, credential),
            op,
            actor: Some(Arc::new(actor.clone())),
            reply: Reply::One(reply),
        }))?;
        answer.await.map_err(|_| lost())?
    }

    async fn ask_deny(&self, actor: &Actor, name: String, op: DenyOp) -> Answer<Option<DenyView>> {
        let (reply, answer) = oneshot::channel();
        self.shared.send(Job::Deny(DenyJob {
            name,
            op,
            actor: Some(Arc::new(actor.clone())),
            reply: Some(reply),
        }))?;
        answer.await.map_err(|_| lost())?
    }

    fn judge_credential(&self, text: &str) -> Result<(), Refusal> {
        match credential::fault(text, &self.shared.id_pattern) {
            None => Ok(()),
            Some(fault) => Err(Refusal::of_faults(vec![credential_fault(fault)])),
        }
    }

    fn want(&self, mut body: model::body::Wanted) -> Wanted {
        self.shared.memory.share(&mut body.content);
        body
    }
}

fn credential_fault((code, detail, fix): (&'static str, String, &'static str)) -> FieldFault {
    FieldFault {
        code,
        pointer: "/credential".to_owned(),
        detail,
        fix: fix.to_owned(),
    }
}

fn allowance_of<'v>(view: &'v PolicyView, publisher: &str) -> Answer<&'v Allowance> {
    view.publisher(publisher)
        .ok_or_else(|| Refusal::new(Code::NotAPublisher, "the policy has no such publisher"))
}

/// The writer ended before it answered: what was asked may be done or not.
fn lost() -> Refusal {
    Refusal::new(
        Code::Draining,
        "the daemon stopped before it could answer: ask again",
    )
}

impl Effective for Bindings {
    fn under(&self, epoch: u64, policy: &Arc<Policy>) -> Arc<dyn Under> {
        Arc::new(UnderPolicy {
            shared: Arc::clone(&self.shared),
            view: self.shared.view_to_be(epoch, policy),
        })
    }

    fn caught_up(&self, changes: u64) -> BoxFuture<()> {
        let mut settled = self.shared.settled.subscribe();
        Box::pin(async move {
            // The sender lives as long as anything that could be waited for.
            let _ = settled.wait_for(|settled| *settled >= changes).await;
        })
    }

    fn applied(&self, epoch: u64, policy: &Arc<Policy>) {
        let left_out = self.shared.view_of(epoch, policy).left_out();
        self.shared.set_alarm(CROWDED_ALARM, left_out);
        self.shared.let_go();
        self.shared.applied.store(true, Ordering::Release);
        self.shared.nudge.notify_one();
    }
}

/// The bindings as one policy has them.
struct UnderPolicy {
    shared: Arc<Shared>,
    view: Arc<PolicyView>,
}

impl Under for UnderPolicy {
    fn all(&self) -> (Vec<Grantee>, Vec<DenyGrant>) {
        let now = self.shared.clock.now();
        let shelves = self.shared.memory.shelves();
        let count: u64 = shelves.iter().map(|shelf| shelf.len()).sum();
        let mut grantees = Vec::with_capacity(count as usize);
        for shelf in shelves {
            let facts = shelf.facts_to_be();
            shelf.look(Which::ToBe, |credential, row| {
                grantees.extend(self.grantee(&shelf, facts, credential, row, now));
            });
        }
        (grantees, self.shared.denies.load().grants(now))
    }

    fn of(&self, owners: &BTreeSet<String>) -> Vec<Grantee> {
        let now = self.shared.clock.now();
        let grantee = |owner: &String| {
            let (publisher, credential) = view::named(owner)?;
            let shelf = self.shared.memory.shelf(publisher)?;
            let row = shelf.get_of(Which::ToBe, credential)?;
            let credential = Credential::new(publisher, credential);
            self.grantee(&shelf, shelf.facts_to_be(), &credential, &row, now)
        };
        owners.iter().filter_map(grantee).collect()
    }

    fn age(&self, owner: &str) -> u64 {
        self.row(owner).map_or(0, |row| row.revision)
    }

    fn leave_out(&self, left: &[LeftOut]) {
        let rows = left
            .iter()
            .filter_map(|left| Some((self.row(&left.owner)?.revision, left.lacks.clone())));
        self.view.leave_out(rows);
    }
}

impl UnderPolicy {
    fn row(&self, owner: &str) -> Option<Arc<Row>> {
        let (publisher, credential) = view::named(owner)?;
        self.shared
            .memory
            .shelf(publisher)?
            .get_of(Which::ToBe, credential)
    }

    /// What has ended needs no place in the kernel.
    fn grantee(
        &self,
        shelf: &Shelf,
        facts: PublisherFacts,
        credential: &Credential,
        row: &Row,
        now: Now,
    ) -> Option<Grantee> {
        let grantee = view::grantee(&self.view, &shelf.publisher, facts, credential, row, now);
        grantee.filter(|grantee| grantee.end > now.monotonic_ns)
    }
}
