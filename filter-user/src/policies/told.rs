//! What the audit log is told of policies, and then the kernel.

use tokio::sync::watch;

use super::{Book, By, Inner, Policies};
use crate::bindings::requests::AuditNote;
use crate::bindings::witness::PolicyTold;

impl Inner {
    /// The line of the audit log. What it tells of has happened: where the disk refuses the line, the log says so.
    /// `number` is the entry's that was put in force.
    pub(super) async fn tell(&self, what: &'static str, by: &By, hash: (&str, &str), number: Option<u64>) {
        if hash.0 == hash.1 {
            return;
        }
        let generation = self.view.snapshot().generation;
        let mut note = AuditNote::applied(by.actor.clone(), by.via.as_str(), hash, generation);
        note.what = what;
        let number = number.map(|number| ("number".to_owned(), number.into()));
        note.members.extend(number);
        if let Err(refusal) = self.bindings.audit(note).await {
            tracing::error!("the audit log does not tell of this {what}: {}", refusal.detail);
        }
    }

    /// The same, and the kernel what is in force since.
    pub(super) async fn tell_both(
        &self,
        book: &Book,
        what: &'static str,
        by: &By,
        hash: (&str, &str),
        number: Option<u64>,
    ) {
        self.tell(what, by, hash, number).await;
        self.told.send_replace(book.told(&self.in_force()));
    }
}

impl Book {
    /// What the kernel may be told of the policy in force: nothing where the one that was confirmed last is not known. The
    /// history has an entry of it, unless the disk has refused that.
    pub(super) fn told(&self, hash: &str) -> Option<PolicyTold> {
        let entries = self.store.entries().iter();
        let entry = entries.rev().find(|entry| entry.hash == hash);
        let told = entry.map(|entry| PolicyTold {
            number: entry.number,
            hash: entry.hash.clone(),
        });
        (!self.is_lost).then(|| told.unwrap_or_default())
    }
}

impl Policies {
    /// What the kernel may be told of the policy in force, as it changes.
    pub fn told(&self) -> watch::Receiver<Option<PolicyTold>> {
        self.inner.told.subscribe()
    }
}
