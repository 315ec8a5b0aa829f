//! The one owner of what is in force: loads the policy, compiles it, has the kernel take it, publishes it.
//!
//! Whole or not at all: until the last step of an apply succeeds, what was in force stays in force. Reads and
//! writes the kernel through `filter`; knows no listener.

mod error;
mod filter;
#[cfg(test)]
pub mod fixture;
mod gate;
mod members;
mod reader;
pub mod snapshot;
mod tables;

pub use error::FilterError;
pub use filter::Filter;
pub use gate::{load_policy, refusal, unexpected};
pub use tables::Overlaps;

use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use tokio::sync::{mpsc, oneshot};

use crate::kernel::clock;
use crate::policy::{self, Colour, Loaded, Policy, Severity};
use snapshot::{
    BoxFuture, CounterValues, InterfaceState, PolicyState, ReloadError, ServiceState, Snapshot, TableFill,
    View,
};

/// What the engine is started with.
#[derive(Clone, Debug)]
pub struct Options {
    pub policy_file: PathBuf,
    pub bpf_fs: PathBuf,
    pub kernel_log: crate::kernel::load::KernelLog,
}

/// Asked of the engine by others.
enum Command {
    Reload(Answer),
}

type Answer = oneshot::Sender<Result<String, ReloadError>>;

/// Commands that wait; one more waits with its sender.
const COMMANDS_WAITING_MAX: usize = 16;
/// How far the wall clock may drift from the monotonic one before ends are armed anew: less than a tick of the
/// check below, far more than the two reads of the clocks can differ.
const CLOCK_JUMP_NANOS: u128 = 100_000_000;

/// The engine's state; `run` drives it.
pub struct Engine {
    options: Options,
    filter: Filter,
    policy: Policy,
    hash: String,
    wall_offset: i128,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
}

/// What others see of the engine.
pub struct Shared {
    snapshot: RwLock<Arc<Snapshot>>,
    /// Replaced where the services or interfaces change; the maps it reads outlive generations.
    reader: RwLock<Arc<reader::Reader>>,
    commands: mpsc::Sender<Command>,
}

impl Engine {
    /// Puts a checked policy in force, taking over what an earlier daemon left.
    pub async fn start(
        options: Options,
        loaded: &Loaded,
        policy: Policy,
    ) -> Result<(Self, Arc<Shared>), FilterError> {
        let filter = Filter::start(&options, &policy).await?;
        let (sender, commands) = mpsc::channel(COMMANDS_WAITING_MAX);
        let started_at = jiff::Timestamp::now();
        let state = PolicyState {
            file: options.policy_file.display().to_string(),
            hash: loaded.hash.clone(),
            in_force_since: started_at,
            reload_ok: true,
            last_error: None,
            file_differs: false,
        };
        let snapshot = picture(&filter, &policy, state, started_at);
        let shared = Arc::new(Shared {
            reader: RwLock::new(Arc::new(filter.reader(&policy)?)),
            snapshot: RwLock::new(Arc::new(snapshot)),
            commands: sender,
        });
        let engine = Self {
            options,
            filter,
            policy,
            hash: loaded.hash.clone(),
            wall_offset: clock::wall_offset(),
            shared: Arc::clone(&shared),
            commands,
        };
        Ok((engine, shared))
    }

    /// Serves commands until told to stop; gives the filter back.
    pub async fn run(mut self, mut stop: tokio::sync::watch::Receiver<bool>) -> Filter {
        let mut clock_check = tokio::time::interval(std::time::Duration::from_secs(1));
        clock_check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Reload(first)) => {
                        let answers = sharing(first, &mut self.commands);
                        let result = self.reload().await;
                        for answer in answers {
                            // Who asked may have gone; what was done stands either way.
                            let _ = answer.send(result.clone());
                        }
                    }
                    None => return self.filter,
                },
                _ = clock_check.tick() => self.watch().await,
                // An error means that the stopper itself is gone: stop as well.
                _ = stop.changed() => return self.filter,
            }
        }
    }

    async fn reload(&mut self) -> Result<String, ReloadError> {
        let result = self.try_reload().await;
        let mut state = self.shared.snapshot().policy.clone();
        match &result {
            Ok(summary) => {
                state.reload_ok = true;
                state.last_error = None;
                state.file_differs = false;
                state.hash = self.hash.clone();
                state.in_force_since = jiff::Timestamp::now();
                tracing::info!(hash = %self.hash, generation = self.filter.generation(), "reload: {summary}");
            }
            Err(error) => {
                state.reload_ok = false;
                state.last_error = Some(error.to_string());
                state.file_differs = true;
                tracing::error!("reload changed nothing: {error}");
            }
        }
        self.publish(state);
        result
    }

    async fn try_reload(&mut self) -> Result<String, ReloadError> {
        let file = self.options.policy_file.clone();
        let loaded = tokio::task::spawn_blocking(move || load_policy(&file))
            .await
            .map_err(|error| ReloadError::Failed(format!("reading the policy: {error}")))?;
        if let Some(refusal) = refusal(&loaded) {
            return Err(ReloadError::Invalid(refusal));
        }
        let Some(policy) = loaded.policy.clone() else {
            return Err(ReloadError::Invalid(policy::render(&loaded, Colour::Never)));
        };
        let tried = policy.clone();
        let tried = tokio::task::spawn_blocking(move || unexpected(&tried))
            .await
            .map_err(|error| ReloadError::Failed(format!("trying what the policy expects: {error}")))?;
        match tried {
            Ok(None) => {}
            Ok(Some(faults)) => return Err(ReloadError::Invalid(faults)),
            Err(error) => return Err(ReloadError::Failed(error.to_string())),
        }
        say_warnings(&loaded);
        say_restart_keys(&self.policy, &policy);
        self.filter
            .apply(&policy, Some(&self.policy), Overlaps::Refuse)
            .await
            .map_err(|error| ReloadError::Failed(error.to_string()))?;
        let summary = format!(
            "{} services and {} clients in force as generation {}",
            policy.services.len(),
            policy.clients.len(),
            self.filter.generation()
        );
        self.policy = policy;
        self.hash = loaded.hash;
        self.wall_offset = clock::wall_offset();
        self.refresh_reader();
        Ok(summary)
    }

    /// Once a second: ends follow the wall clock, and what is attached is looked at.
    async fn watch(&mut self) {
        let offset = clock::wall_offset();
        let jumped = offset.abs_diff(self.wall_offset) > CLOCK_JUMP_NANOS;
        if jumped && self.policy.clients.iter().any(|client| client.expires.is_some()) {
            tracing::warn!("the wall clock was set (or the machine slept): ends are armed anew");
            self.apply_again("ends go by the old clock").await;
        }
        match self.filter.host_moved(&self.policy) {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!("the addresses of this host have changed: \"host\" follows them");
                self.apply_again("\"host\" means the old addresses").await;
            }
            Err(error) => tracing::error!("{error}"),
        }
        if jumped {
            self.wall_offset = offset;
        }
        if self.filter.look().await {
            let state = self.shared.snapshot().policy.clone();
            self.publish(state);
        }
        if self.filter.members_moved() {
            tracing::info!("a bond's members have changed: they are counted where the bond is");
            self.apply_again("a bond's new members are counted nowhere").await;
        }
    }

    /// The policy in force once more, for what has changed around it.
    async fn apply_again(&mut self, otherwise: &str) {
        let policy = self.policy.clone();
        if let Err(error) = self.filter.apply(&policy, Some(&policy), Overlaps::Narrow).await {
            tracing::error!("{otherwise}: the tables could not be made anew: {error}");
            return;
        }
        self.refresh_reader();
        let state = self.shared.snapshot().policy.clone();
        self.publish(state);
    }

    fn refresh_reader(&self) {
        match self.filter.reader(&self.policy) {
            Ok(reader) => {
                if let Ok(mut slot) = self.shared.reader.write() {
                    *slot = Arc::new(reader);
                }
            }
            Err(error) => tracing::error!("the counters of the new generation cannot be read: {error}"),
        }
    }

    fn publish(&self, state: PolicyState) {
        let started_at = self.shared.snapshot().started_at;
        let snapshot = Arc::new(picture(&self.filter, &self.policy, state, started_at));
        if let Ok(mut slot) = self.shared.snapshot.write() {
            *slot = snapshot;
        }
    }
}

/// Who waits for the reload that is about to begin: it reads the file after all of them asked, so one is enough.
fn sharing(first: Answer, commands: &mut mpsc::Receiver<Command>) -> Vec<Answer> {
    let mut answers = vec![first];
    while answers.len() <= COMMANDS_WAITING_MAX
        && let Ok(Command::Reload(answer)) = commands.try_recv()
    {
        answers.push(answer);
    }
    answers
}

/// The warnings of a policy, and the defaults that this build does not enforce, said once a load.
pub fn say_warnings(loaded: &Loaded) {
    let warnings = loaded
        .diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Warning);
    for warning in warnings {
        tracing::warn!(
            "{}:{}:{}: {}",
            warning.file,
            warning.line,
            warning.column,
            warning.message
        );
    }
}

/// What is read at start only, and differs: said, since the reload leaves it as it is.
fn say_restart_keys(old: &Policy, new: &Policy) {
    let differs = [
        ("[daemon]", old.daemon != new.daemon),
        (
            "[[listener]]",
            old.listeners
                .iter()
                .map(|l| &l.address)
                .ne(new.listeners.iter().map(|l| &l.address)),
        ),
        ("[credentials]", old.credentials != new.credentials),
        ("[authorize]", old.authorize != new.authorize),
    ];
    for (table, differs) in differs {
        if differs {
            tracing::warn!("{table} has changed and is read at start only: restart the daemon for it");
        }
    }
}

fn picture(filter: &Filter, policy: &Policy, state: PolicyState, started_at: jiff::Timestamp) -> Snapshot {
    let services = policy.services.iter().map(|service| ServiceState {
        name: service.name.clone(),
        environment: service.environment.clone(),
        mode: crate::compiler::service_mode(policy, service),
        number: filter.service_number(&service.name).unwrap_or(u32::MAX),
    });
    let interfaces: Vec<InterfaceState> = filter.interfaces().to_vec();
    let mut not_ready: Vec<String> = interfaces
        .iter()
        .filter(|interface| !interface.attached)
        .map(|interface| format!("interface {} is not filtered", interface.name))
        .collect();
    if let Some(why) = filter.narrowed() {
        not_ready.push(format!("{why}; until then the written service has it"));
    }
    if !state.reload_ok {
        not_ready.push(String::from(
            "the last reload failed; what was in force before still is",
        ));
    }
    Snapshot {
        instance: policy.daemon.instance.clone(),
        version: env!("CARGO_PKG_VERSION"),
        started_at,
        policy: state,
        generation: filter.generation(),
        mode: policy.filter.mode,
        interfaces,
        services: services.collect(),
        tables: filter
            .fill()
            .iter()
            .map(|(table, entries, capacity)| TableFill {
                table,
                entries: *entries,
                capacity: *capacity,
            })
            .collect(),
        not_ready,
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
        let reader = match self.reader.read() {
            Ok(slot) => Arc::clone(&slot),
            Err(poisoned) => Arc::clone(&poisoned.into_inner()),
        };
        reader.read()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_wait_share_one_reload_and_later_ones_do_not() {
        let (sender, mut commands) = mpsc::channel(COMMANDS_WAITING_MAX);
        let ask = || {
            let (answer, asked) = oneshot::channel();
            sender.try_send(Command::Reload(answer)).unwrap();
            asked
        };
        let waiting: Vec<_> = (0..COMMANDS_WAITING_MAX).map(|_| ask()).collect();
        let Ok(Command::Reload(first)) = commands.try_recv() else {
            panic!("one was sent");
        };
        let answers = sharing(first, &mut commands);
        let mut later = ask();
        assert_eq!(answers.len(), waiting.len());
        for answer in answers {
            answer.send(Ok("done".to_owned())).unwrap();
        }
        for mut asked in waiting {
            assert_eq!(asked.try_recv().unwrap(), Ok("done".to_owned()));
        }
        assert!(later.try_recv().is_err());
    }
}
