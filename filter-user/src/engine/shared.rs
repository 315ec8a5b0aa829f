//! What others hold of the engine: pictures of its state, and the way to ask it for changes.

use std::sync::{Arc, RwLock};

use tokio::sync::{mpsc, oneshot};

use super::filter::SharedNumbers;
use super::snapshot::{BoxFuture, CounterValues, RECORD_KEYS_TABLE, ReloadError, Snapshot, View};
use super::{Command, reader};
use crate::bindings::seam::{Change, GrantError, Grants, OwnerUse};
use crate::policy::Policy;

/// What others see of the engine.
pub struct Shared {
    pub(super) snapshot: RwLock<Arc<Snapshot>>,
    /// Replaced where the services or interfaces change; the maps it reads outlive generations.
    pub(super) reader: RwLock<Arc<reader::Reader>>,
    /// The policy in force, and how many there were before it.
    pub(super) policy: RwLock<(u64, Arc<Policy>)>,
    pub(super) numbers: SharedNumbers,
    pub(super) commands: mpsc::Sender<Command>,
}

impl Shared {
    /// How many keys of the drop accounting are in use, for the picture.
    pub fn note_record_keys(&self, keys: u64) {
        let mut slot = match self.snapshot.write() {
            Ok(slot) => slot,
            Err(poisoned) => poisoned.into_inner(),
        };
        let mut snapshot = Snapshot::clone(&slot);
        for fill in &mut snapshot.tables {
            if fill.table == RECORD_KEYS_TABLE {
                fill.entries = keys;
            }
        }
        *slot = Arc::new(snapshot);
    }

    pub(super) fn policy_in_force(&self) -> (u64, Arc<Policy>) {
        match self.policy.read() {
            Ok(slot) => slot.clone(),
            Err(poisoned) => poisoned.into_inner().clone(),
        }
    }

    fn reader(&self) -> Arc<reader::Reader> {
        match self.reader.read() {
            Ok(slot) => Arc::clone(&slot),
            Err(poisoned) => Arc::clone(&poisoned.into_inner()),
        }
    }
}

impl Grants for Shared {
    fn change(
        &self,
        epoch: u64,
        changes: Vec<Change>,
    ) -> crate::bindings::seam::BoxFuture<Result<(), GrantError>> {
        let commands = self.commands.clone();
        Box::pin(async move {
            let (sender, answer) = oneshot::channel();
            let gone = || GrantError::Failed(String::from("the daemon is stopping"));
            let command = Command::Change(epoch, changes, sender);
            commands.send(command).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        })
    }

    fn policy(&self) -> (u64, Arc<Policy>) {
        self.policy_in_force()
    }

    fn used(&self, owner: &str) -> Option<OwnerUse> {
        let number = match self.numbers.read() {
            Ok(numbers) => numbers.owner(owner),
            Err(poisoned) => poisoned.into_inner().owner(owner),
        };
        self.reader().used(number?)
    }
}

impl View for Shared {
    fn snapshot(&self) -> Arc<Snapshot> {
        // A poisoned lock would mean that a writer of one pointer panicked: the pointer is whole either way.
        match self.snapshot.read() {
            Ok(slot) => Arc::clone(&slot),
            Err(poisoned) => Arc::clone(&poisoned.into_inner()),
        }
    }

    fn counters(&self) -> Result<CounterValues, String> {
        self.reader().read()
    }

    fn reload(&self) -> BoxFuture<Result<String, ReloadError>> {
        let commands = self.commands.clone();
        Box::pin(async move {
            let (sender, answer) = oneshot::channel();
            let gone = || ReloadError::Failed(String::from("the daemon is stopping"));
            commands.send(Command::Reload(sender)).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        })
    }
}
