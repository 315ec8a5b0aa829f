//! What others hold of the engine: pictures of its state, and the way to ask it for changes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use filter_common::abi::names;
use filter_common::bounds::{OWNERS_PER_SOURCE_MAX, RECORD_KEYS};
use tokio::sync::{oneshot, watch};

use super::apply::{FileState, Pending, Proposed, asked};
use super::canary::Sung;
use super::drift::TablesInForce;
use super::fill::Fill;
use super::filter::SharedNumbers;
use super::operate::Observed;
use super::snapshot::{
    Applied, BoxFuture, CounterValues, Drift, ObserveError, RECORD_KEYS_TABLE, ReloadError, Snapshot,
    TableFill, View,
};
use super::{Command, Commands, ExplainError, FilterError, crowded_out, reader};
use crate::bindings::seam::{Change, Changes, GrantError, Grantee, Grants, Lacks, Many, OwnerUse};
use crate::compiler::Pushed;
use crate::judge::in_force::{InForce, Question};
use crate::kernel::links::Links;
use crate::kernel::pins::Pins;
use crate::kernel::witness::WitnessMap;
use crate::policy::Policy;
use crate::policy::bounds::PORT_SETS_MAX;

/// What others see of the engine.
pub struct Shared {
    pub(super) snapshot: RwLock<Arc<Snapshot>>,
    /// Replaced where the services or interfaces change; the maps it reads outlive generations.
    pub(super) reader: RwLock<Arc<reader::Reader>>,
    /// The policy in force, and how many there were before it.
    pub(super) policy: RwLock<(u64, Arc<Policy>)>,
    /// The one that comes back unless that is confirmed, and the epoch it had. Written first where one comes into force.
    pub(super) standby: RwLock<Option<(u64, Arc<Policy>)>>,
    pub(super) numbers: SharedNumbers,
    /// Of the generation in force; kept up by single changes.
    pub(super) fill: RwLock<Arc<Fill>>,
    pub(super) in_force: Arc<TablesInForce>,
    /// What the last read-back found.
    pub(super) drift: RwLock<Drift>,
    pub(super) sung: RwLock<Sung>,
    pub(super) observing: Observed,
    /// Of the drop accounting, as of the last interval's end.
    pub(super) record_keys: AtomicU64,
    pub(super) pending: watch::Sender<Option<Pending>>,
    /// What became of the file that `run` was given.
    pub(super) file: RwLock<FileState>,
    /// How often the engine has looked after the filter: once a second, while it lives.
    pub(super) looks: AtomicU64,
    /// Whose being there tells whether packets are judged.
    pub(super) pins: Pins,
    /// Where they are gone, these tell.
    pub(super) links: Arc<Links>,
    pub(super) witness: Option<Arc<WitnessMap>>,
    pub(super) commands: Commands,
}

impl Shared {
    /// How many keys of the drop accounting are in use, for the picture.
    pub fn note_record_keys(&self, keys: u64) {
        self.record_keys.store(keys, Ordering::Relaxed);
    }

    /// What tells the next start of the state folder; none where the kernel refuses it.
    pub fn witness(&self) -> Option<Arc<WitnessMap>> {
        self.witness.clone()
    }

    /// Rises while the engine lives.
    pub fn looks(&self) -> u64 {
        self.looks.load(Ordering::Relaxed)
    }

    pub(super) fn policy_in_force(&self) -> (u64, Arc<Policy>) {
        match self.policy.read() {
            Ok(slot) => slot.clone(),
            Err(poisoned) => poisoned.into_inner().clone(),
        }
    }

    pub(super) fn stands_by(&self, standby: Option<(u64, Arc<Policy>)>) {
        *self.standby.write().unwrap_or_else(PoisonError::into_inner) = standby;
    }

    /// Notes what a read-back found, and says what is new.
    pub(super) fn drifted(&self, drift: Drift) {
        let in_force = self.in_force.number();
        let mut slot = self.drift.write().unwrap_or_else(PoisonError::into_inner);
        let before = match slot.generation == drift.generation {
            true => slot.entries,
            false => 0,
        };
        if drift.entries > 0 && drift.entries != before {
            let sentence = drift.sentence(in_force).unwrap_or_else(|| drift.past());
            tracing::error!(
                entries = drift.entries,
                generation = drift.generation,
                "{sentence}"
            );
        } else if before > drift.entries {
            tracing::info!("the kernel's tables are as they were written again");
        }
        *slot = drift;
    }

    /// Notes what a round of the canary found, and says what is new.
    pub(super) fn sung(&self, sung: Sung) {
        let mut slot = self.sung.write().unwrap_or_else(PoisonError::into_inner);
        let same_generation = slot.generation == sung.generation;
        let before = if same_generation {
            slot.canary.differing.len()
        } else {
            0
        };
        let sentence = sung.canary.sentence();
        if let Some(sentence) =
            sentence.filter(|_| !same_generation || slot.canary.differing != sung.canary.differing)
        {
            tracing::error!(generation = sung.generation, "{sentence}");
        } else if before > sung.canary.differing.len() {
            tracing::info!("the kernel's program judges known frames as it should again");
        }
        *slot = sung;
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
        changes: Changes,
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

    fn sift(
        &self,
        epoch: u64,
        changes: Vec<Change>,
    ) -> crate::bindings::seam::BoxFuture<Vec<(Arc<str>, GrantError)>> {
        let commands = self.commands.clone();
        Box::pin(async move {
            let (sender, answer) = oneshot::channel();
            // Who makes the changes next is told that the daemon stops.
            let _ = commands.send(Command::Sift(epoch, changes, sender)).await;
            answer.await.unwrap_or_default()
        })
    }

    fn expect(&self, more: Many) -> crate::bindings::seam::BoxFuture<()> {
        let commands = self.commands.clone();
        Box::pin(async move {
            // Who makes the changes themselves is told that the daemon stops.
            let _ = commands.send(Command::Expect(more)).await;
        })
    }

    fn fit(&self, policy: &Policy, all: Vec<Grantee>, more: i64) -> Result<(), GrantError> {
        if self.is_detached() {
            return Err(GrantError::Detached);
        }
        let fill = Arc::clone(&self.fill.read().unwrap_or_else(PoisonError::into_inner));
        let full = u64::try_from(more)
            .ok()
            .and_then(|more| fill.owners.refuses(more));
        if let Some((table, needed, max)) = full {
            return Err(GrantError::TableFull { table, needed, max });
        }
        match crowded_out(policy, &Pushed::of(all, []), |_| 0)
            .into_iter()
            .next()
        {
            None => Ok(()),
            Some(left) => Err(match left.lacks {
                Lacks::Owners(prefix) => GrantError::TooManyOwners {
                    prefix,
                    max: OWNERS_PER_SOURCE_MAX,
                },
                Lacks::PortSets => GrantError::TableFull {
                    table: names::PORT_SETS,
                    needed: u64::from(PORT_SETS_MAX) + 1,
                    max: PORT_SETS_MAX.into(),
                },
            }),
        }
    }

    fn policy(&self) -> (u64, Arc<Policy>) {
        self.policy_in_force()
    }

    fn standby(&self) -> Option<(u64, Arc<Policy>)> {
        self.standby
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
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
    fn explain(&self, question: Question) -> BoxFuture<Result<InForce, ExplainError>> {
        let commands = self.commands.clone();
        Box::pin(async move {
            let (sender, answer) = oneshot::channel();
            let gone = || ExplainError::Failed(String::from("the daemon is stopping"));
            let command = Command::Explain(question, sender);
            commands.send(command).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        })
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        // A poisoned lock would mean that a writer of one pointer panicked: the pointer is whole either way.
        let published = self.snapshot.read().unwrap_or_else(PoisonError::into_inner);
        let mut snapshot = Snapshot::clone(&published);
        drop(published);
        // What changes without the engine, or too often to be published.
        let fill = self.fill.read().unwrap_or_else(PoisonError::into_inner);
        snapshot.tables = fill.shown();
        snapshot.tables.push(TableFill {
            table: RECORD_KEYS_TABLE,
            entries: self.record_keys.load(Ordering::Relaxed),
            capacity: RECORD_KEYS.into(),
        });
        drop(fill);
        let drift = self.drift.read().unwrap_or_else(PoisonError::into_inner);
        snapshot.drift = drift.clone();
        snapshot
            .not_ready
            .extend(drift.sentence(Some(snapshot.generation)));
        drop(drift);
        snapshot.policy.pending = self.pending.borrow().clone();
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner);
        file.show(&mut snapshot);
        drop(file);
        let sung = self.sung.read().unwrap_or_else(PoisonError::into_inner);
        if sung.generation == snapshot.generation {
            snapshot.canary = sung.canary.clone();
            snapshot.not_ready.extend(sung.canary.sentence());
        }
        drop(sung);
        snapshot.observing = self.observing.shown();
        // Whoever did it, from the moment on: the engine's next look may be a second away.
        if self.is_detached() {
            snapshot
                .interfaces
                .iter_mut()
                .for_each(|interface| interface.attached = false);
            snapshot.not_ready.insert(0, FilterError::Detached.to_string());
        }
        Arc::new(snapshot)
    }

    fn is_detached(&self) -> bool {
        !self.pins.stands() && !self.links.any()
    }

    fn observe(&self, service: Option<String>, seconds: u64) -> BoxFuture<Result<(), ObserveError>> {
        let commands = self.commands.clone();
        Box::pin(async move {
            let (sender, answer) = oneshot::channel();
            let gone = || ObserveError::Failed(String::from("the daemon is stopping"));
            let command = Command::Observe(service, seconds, sender);
            commands.send(command).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        })
    }

    fn observes(&self, service: &str) -> [bool; 2] {
        self.observing.of(service)
    }

    fn detach(&self) -> BoxFuture<Result<Vec<String>, String>> {
        let commands = self.commands.clone();
        Box::pin(async move {
            let (sender, answer) = oneshot::channel();
            let gone = || String::from("the daemon is stopping");
            commands.send(Command::Detach(sender)).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        })
    }

    fn counters(&self) -> Result<CounterValues, String> {
        self.reader().read()
    }

    fn apply(&self, proposed: Proposed) -> BoxFuture<Result<Applied, ReloadError>> {
        let command = |answer| Command::Apply(Box::new(proposed), answer);
        Box::pin(asked(self.commands.clone(), command))
    }

    fn confirm(&self) -> BoxFuture<Result<(), ReloadError>> {
        Box::pin(asked(self.commands.clone(), Command::Confirm))
    }

    fn revert(&self) -> BoxFuture<Result<(), ReloadError>> {
        Box::pin(asked(self.commands.clone(), Command::Revert))
    }

    fn pending(&self) -> watch::Receiver<Option<Pending>> {
        self.pending.subscribe()
    }

    fn note_file(&self, state: FileState) {
        *self.file.write().unwrap_or_else(PoisonError::into_inner) = state;
    }
}
