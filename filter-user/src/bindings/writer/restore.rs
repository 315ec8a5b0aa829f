//! A backup in place of what is there: the writer swaps the store between two groups.
//!
//! The copy is made whole beside the store, then renamed over it: a crash leaves the one or the other. What was there
//! is kept under another name.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::core::Core;
use super::fold::Fold;
use crate::bindings::audit::Line;
use crate::bindings::clock::Now;
use crate::bindings::model::allowance::PolicyView;
use crate::bindings::model::view;
use crate::bindings::open;
use crate::bindings::refusal::{Code, Refusal};
use crate::bindings::requests::{Actor, Answer, Kept};
use crate::bindings::seam::{Change, Changes, GrantError, Grants};
use crate::bindings::shared::DISK_ALARM;
use crate::bindings::store::{self, Live, Opened, StoreError};
use crate::bindings::writer::denies::{Denies, Deny};

/// Asks for a restore.
pub(crate) struct RestoreJob {
    pub(crate) from: PathBuf,
    pub(crate) trust: bool,
    pub(crate) actor: Arc<Actor>,
    pub(crate) reply: oneshot::Sender<Answer<Kept>>,
}

/// Swaps the store, then the kernel's content. Where the kernel has no room for it, all of it is suspended.
pub(super) async fn restore(core: Box<Core>, job: RestoreJob, grants: &dyn Grants) -> Box<Core> {
    let RestoreJob {
        from,
        trust,
        actor,
        reply,
    } = job;
    let now = core.shared.clock.now();
    let (mut core, swapped) = super::blocking(core, move |core| core.swap(&from, trust, &actor, now)).await;
    let answer = match swapped {
        Ok(kept) => core.put_in_force(grants, now).await.map(|()| kept),
        Err(error) => Err(error.into()),
    };
    // Who has left does not need the answer.
    let _ = reply.send(answer);
    core
}

impl Core {
    /// The store on disk and memory. Blocks. On an error nothing has changed.
    fn swap(&mut self, from: &Path, trust: bool, actor: &Actor, now: Now) -> Result<Kept, StoreError> {
        let shared = Arc::clone(&self.shared);
        let path = store::path_in(&shared.folder);
        let new = path.with_extension("restoring");
        let at_new = |error| StoreError::File(new.clone(), error);
        store::copy_from(from, &new)?;
        let live = Live {
            store: &shared.store,
            denies: shared.denies.load().running(now),
        };
        let renamed = store::rename_store(&new, trust, self.revision, &live, now);
        let kept = renamed.map_err(|error| match error.is_full() {
            true => error,
            false => StoreError::Named(from.to_owned(), format!("no backup that can be used: {error}")),
        })?;
        let synced = std::fs::File::open(&new).and_then(|file| file.sync_all());
        synced.map_err(at_new)?;
        let aside = path.with_extension(format!("replaced-{}-{}", now.wall_ms, self.revision));
        std::fs::hard_link(&path, &aside).map_err(|error| StoreError::File(aside.clone(), error))?;
        std::fs::rename(&new, &path).map_err(at_new)?;
        let synced = std::fs::File::open(&shared.folder).and_then(|folder| folder.sync_all());
        synced.map_err(at_new)?;
        let opened = shared.store.replace(&path, now)?;
        self.take(opened, now);
        let line = Line::new("restore", Some(actor))
            .with("trust", trust)
            .with("replaced", aside.display().to_string())
            .with("kept_denies", kept.denies)
            .with("kept_deletions", kept.deletions)
            .at(self.revision);
        if let Err(error) = self.audit.append(&[line], now.wall_ms) {
            shared.set_alarm(DISK_ALARM, Some(format!("the audit log: {error}")));
        }
        shared.audit_head.store(Arc::new(self.audit.head()));
        Ok(kept)
    }

    /// Memory becomes what the store holds.
    fn take(&mut self, mut opened: Opened, now: Now) {
        let shared = Arc::clone(&self.shared);
        self.revision = self.revision.max(opened.revision);
        // To the store that is set aside.
        self.owed = None;
        self.gone = shared.memory.shelves();
        shared.memory.clear();
        open::fill(&shared.memory, &mut opened);
        let deny = |(name, stored)| (name, Arc::new(Deny::read(stored, now, opened.last_write)));
        let denies = Denies::new(opened.denies.into_iter().map(deny).collect());
        self.gone_denies = shared.denies.swap(Arc::new(denies)).names();
        self.held.clear();
        self.fold = Fold::new(opened.dirty);
        self.set_timers();
        self.sweeps.policy_changed();
        shared.store_id.store(Arc::new(opened.id));
        shared.published.send_replace(self.revision);
    }

    /// Memory has it already.
    fn settled(&self, changed: Result<(), GrantError>) -> Result<(), GrantError> {
        changed.inspect(|()| self.shared.settle())
    }

    /// Takes out of the kernel what was there, and puts in what is there now.
    async fn put_in_force(&mut self, grants: &dyn Grants, now: Now) -> Answer<()> {
        if self.shared.kept.load(Ordering::Acquire) {
            // What the kernel has is not known here: the policy that is applied next puts all of it in force.
            (self.gone, self.gone_denies) = Default::default();
            return Ok(());
        }
        let (epoch, policy) = grants.policy();
        let view = self.shared.view_of(epoch, &policy);
        let standby = self.shared.standby_of(grants);
        let mut gone = Vec::new();
        for shelf in std::mem::take(&mut self.gone) {
            shelf.each(|credential, _| {
                gone.push(Change::Remove {
                    owner: credential.owner(),
                });
            });
        }
        let denies = std::mem::take(&mut self.gone_denies);
        gone.extend(denies.into_iter().map(|name| Change::Undeny { name }));
        let gone = Changes {
            standby: standby.as_ref().map_or_else(Vec::new, |_| gone.clone()),
            in_force: gone,
            patient: false,
        };
        let removed = self.settled(grants.change(epoch, gone).await);
        let changes = Changes {
            in_force: self.all_under(&view, now),
            standby: standby.map_or_else(Vec::new, |standby| self.all_under(&standby, now)),
            patient: false,
        };
        let put = match removed {
            Ok(()) => self.settled(grants.change(epoch, changes).await),
            Err(error) => Err(error),
        };
        put.map_err(|error| {
            let detail =
                format!("the store is restored, but not yet in force ({error}): apply the policy again");
            Refusal::new(Code::Unavailable, detail)
        })
    }

    /// All that a policy makes of what is there.
    fn all_under(&self, view: &PolicyView, now: Now) -> Vec<Change> {
        let mut changes = Vec::new();
        for shelf in self.shared.memory.shelves() {
            let facts = shelf.facts();
            shelf.each(|credential, row| {
                let grantee = view::grantee(view, &shelf.publisher, facts, credential, row, now);
                changes.extend(grantee.map(Change::Put));
            });
        }
        let denies = self.shared.denies.load().grants(now).into_iter();
        changes.extend(denies.map(|(name, sources, end)| Change::Deny { name, sources, end }));
        changes
    }
}
