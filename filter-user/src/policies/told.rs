//! What the audit log is told of policies.

use super::By;
use super::Inner;
use crate::bindings::requests::AuditNote;

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
}
