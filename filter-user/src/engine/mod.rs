//! The one owner of what is in force: loads the policy, compiles it, has the kernel take it, publishes it.
//!
//! Whole or not at all: until the last step of an apply succeeds, what was in force stays in force. Reads and
//! writes the kernel through `filter`; knows no listener.

mod attachments;
#[cfg(test)]
mod beside_tests;
mod change;
mod drift;
mod error;
mod explain;
mod fill;
mod filter;
#[cfg(test)]
pub mod fixture;
mod gate;
mod live;
#[cfg(test)]
mod live_tests;
mod reader;
mod shared;
pub mod snapshot;
mod tables;
#[cfg(test)]
mod tests;
mod told;
mod watch;

pub use error::FilterError;
pub use explain::ExplainError;
pub use filter::Filter;
pub use gate::{load_policy, refusal, unexpected};
pub use shared::Shared;
pub use tables::Occasion;
pub use told::say_warnings;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use tokio::sync::{mpsc, oneshot};

use crate::bindings::seam::{Change, Effective, GrantError};
use crate::compiler::Pushed;
use crate::judge::both::JudgeError;
use crate::judge::in_force::{InForce, Question};
use crate::kernel::clock;
use crate::kernel::records::Accounting;
use crate::kernel::state::State;
use crate::policy::{self, Colour, Policy};
use snapshot::{Applied, Drift, InterfaceState, PolicyState, ReloadError, ServiceState, Snapshot, View};
use told::{counted, restart_keys, warnings};
use watch::Woken;

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
    Change(u64, Vec<Change>, oneshot::Sender<Result<(), GrantError>>),
    Explain(Question, oneshot::Sender<Result<InForce, ExplainError>>),
}

type Answer = oneshot::Sender<Result<Applied, ReloadError>>;

/// Commands that wait; one more waits with its sender.
const COMMANDS_WAITING_MAX: usize = 16;

/// Far longer than the bindings take to make a change seen that is in force.
const CATCH_UP_PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// The engine's state; `run` drives it.
pub struct Engine {
    options: Options,
    filter: Filter,
    policy: Arc<Policy>,
    hash: String,
    /// Who knows what is pushed; `None` where nobody can push.
    effective: Option<Arc<dyn Effective>>,
    /// Changes of what is pushed, made since the start.
    changes: u64,
    wall_offset: i128,
    watch: watch::Watch,
    told: fill::Told,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
}

impl Engine {
    /// Puts a checked policy in force, taking over what an earlier daemon left.
    pub async fn start(
        options: Options,
        hash: String,
        policy: Arc<Policy>,
        effective: Option<Arc<dyn Effective>>,
    ) -> Result<(Self, Arc<Shared>), FilterError> {
        let filter = Filter::start(&options, &policy, pushed_under(effective.as_ref(), &policy)).await?;
        let (sender, commands) = mpsc::channel(COMMANDS_WAITING_MAX);
        let started_at = jiff::Timestamp::now();
        let state = PolicyState {
            file: options.policy_file.display().to_string(),
            hash: hash.clone(),
            in_force_since: started_at,
            reload_ok: true,
            last_error: None,
            file_differs: false,
        };
        let snapshot = picture(&filter, &policy, state, started_at);
        let shared = Arc::new(Shared {
            reader: RwLock::new(Arc::new(filter.reader(&policy)?)),
            snapshot: RwLock::new(Arc::new(snapshot)),
            policy: RwLock::new((1, Arc::clone(&policy))),
            numbers: filter.shared_numbers(),
            fill: RwLock::new(Arc::clone(filter.fill())),
            in_force: filter.tables_in_force(),
            found: RwLock::default(),
            record_keys: std::sync::atomic::AtomicU64::new(0),
            commands: sender,
        });
        let engine = Self {
            options,
            filter,
            policy,
            hash,
            effective,
            changes: 0,
            wall_offset: clock::wall_offset(),
            watch: watch::Watch::default(),
            told: fill::Told::default(),
            shared: Arc::clone(&shared),
            commands,
        };
        engine.say_applied();
        tokio::task::spawn_blocking(crate::sys::give_back_memory);
        Ok((engine, shared))
    }

    /// The drop accounting, and the state that its numbers are of.
    pub fn accounting(&self) -> Result<(Accounting, State), FilterError> {
        self.filter.accounting()
    }

    /// Serves commands until told to stop; gives the filter back.
    pub async fn run(mut self, mut stop: tokio::sync::watch::Receiver<bool>) -> Filter {
        let mut looks = tokio::time::interval(std::time::Duration::from_secs(1));
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut events = watch::Listener::open();
        let mut reading = std::pin::pin!(drift::read_back(Arc::clone(&self.shared)));
        // What came in between requests to reload that share one.
        let mut later = VecDeque::new();
        loop {
            tokio::select! {
                command = next(&mut later, &mut self.commands) => match command {
                    Some(Command::Reload(first)) => {
                        let answers = sharing(first, &mut self.commands, &mut later);
                        let result = self.reload().await;
                        for answer in answers {
                            // Who asked may have gone; what was done stands either way.
                            let _ = answer.send(result.clone());
                        }
                    }
                    Some(Command::Change(epoch, changes, answer)) => {
                        let result = self.change(epoch, changes).await;
                        let _ = answer.send(result);
                    }
                    Some(Command::Explain(question, answer)) => drop(answer.send(self.explain(&question))),
                    None => return self.filter,
                },
                () = events.changed() => self.watch(Woken::ByEvent).await,
                () = &mut reading => {}
                _ = looks.tick() => self.watch(Woken::ByClock).await,
                // An error means that the stopper itself is gone: stop as well.
                _ = stop.changed() => return self.filter,
            }
        }
    }

    async fn reload(&mut self) -> Result<Applied, ReloadError> {
        let result = self.try_reload().await;
        let mut state = self.shared.snapshot().policy.clone();
        match &result {
            Ok(applied) => {
                state.reload_ok = true;
                state.last_error = None;
                state.file_differs = false;
                state.hash = self.hash.clone();
                state.in_force_since = jiff::Timestamp::now();
                tracing::info!(hash = %self.hash, generation = self.filter.generation(), "reload: {}", applied.detail);
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

    async fn try_reload(&mut self) -> Result<Applied, ReloadError> {
        let file = self.options.policy_file.clone();
        let mut loaded = tokio::task::spawn_blocking(move || load_policy(&file))
            .await
            .map_err(|error| ReloadError::Failed(format!("reading the policy: {error}")))?;
        if let Some(why) = &loaded.unreadable {
            return Err(ReloadError::Failed(why.clone()));
        }
        if let Some(refusal) = refusal(&loaded) {
            return Err(ReloadError::Invalid(refusal));
        }
        let Some(policy) = loaded.policy.take() else {
            return Err(ReloadError::Invalid(policy::render(&loaded, Colour::Never)));
        };
        let mut warnings = warnings(&loaded);
        let (hash, policy) = (loaded.hash, Arc::new(policy));
        // As large as all sources.
        drop(loaded.files);
        let tried = Arc::clone(&policy);
        let tried = tokio::task::spawn_blocking(move || unexpected(&tried))
            .await
            .map_err(|error| ReloadError::Failed(format!("trying what the policy expects: {error}")))?;
        match tried {
            Ok(None) => {}
            Ok(Some(faults)) => return Err(ReloadError::Invalid(faults)),
            Err(JudgeError::Compile(error)) => return Err(ReloadError::Invalid(error.to_string())),
            Err(error) => return Err(ReloadError::Failed(error.to_string())),
        }
        warnings.extend(restart_keys(&self.policy, &policy));
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        self.catch_up().await?;
        let pushed = pushed_under(self.effective.as_ref(), &policy);
        self.filter
            .apply(&policy, pushed, Some(&self.policy), Occasion::Reload)
            .await
            .map_err(|error| match error {
                FilterError::Compile(error) => ReloadError::Invalid(error.to_string()),
                error => ReloadError::Failed(error.to_string()),
            })?;
        let clients = policy.clients.len();
        let detail = format!(
            "{} and {} in force as generation {}",
            counted(policy.services.len(), "service"),
            counted(clients, "client"),
            self.filter.generation()
        );
        self.policy = policy;
        if let Ok(mut slot) = self.shared.policy.write() {
            *slot = (slot.0 + 1, Arc::clone(&self.policy));
        }
        self.say_applied();
        self.hash = hash;
        self.wall_offset = clock::wall_offset();
        self.watch.behind = None;
        self.refresh_reader();
        tokio::task::spawn_blocking(crate::sys::give_back_memory);
        Ok(Applied {
            detail,
            clients,
            warnings,
        })
    }

    async fn change(&mut self, epoch: u64, changes: Vec<Change>) -> Result<(), GrantError> {
        if epoch != self.shared.policy_in_force().0 {
            return Err(GrantError::PolicyChanged);
        }
        let generation = self.filter.generation();
        let result = self.filter.change(&self.policy, changes).await;
        if self.filter.generation() != generation {
            self.refresh_reader();
            self.publish(self.shared.snapshot().policy.clone());
        }
        self.changes += u64::from(result.is_ok());
        result
    }

    /// Waits until who pushes knows all that is in force: it is asked for all of it next.
    async fn catch_up(&self) -> Result<(), ReloadError> {
        let Some(effective) = &self.effective else {
            return Ok(());
        };
        let waited = tokio::time::timeout(CATCH_UP_PATIENCE, effective.caught_up(self.changes)).await;
        waited
            .map_err(|_| ReloadError::Failed(String::from("the bindings do not follow the kernel's tables")))
    }

    fn say_applied(&self) {
        if let Some(effective) = &self.effective {
            let (epoch, policy) = self.shared.policy_in_force();
            effective.applied(epoch, &policy);
        }
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
        let mut snapshot = picture(&self.filter, &self.policy, state, started_at);
        snapshot.not_ready.extend(self.watch.behind.clone());
        let snapshot = Arc::new(snapshot);
        if let Ok(mut slot) = self.shared.snapshot.write() {
            *slot = snapshot;
        }
        if let Ok(mut slot) = self.shared.fill.write() {
            *slot = Arc::clone(self.filter.fill());
        }
    }
}

async fn next(later: &mut VecDeque<Command>, commands: &mut mpsc::Receiver<Command>) -> Option<Command> {
    match later.pop_front() {
        Some(command) => Some(command),
        None => commands.recv().await,
    }
}

/// What holds of all that was pushed under a policy.
fn pushed_under(effective: Option<&Arc<dyn Effective>>, policy: &Policy) -> Pushed {
    let Some(effective) = effective else {
        return Pushed::default();
    };
    let (grantees, denies) = effective.effective(policy);
    Pushed::of(grantees, denies)
}

/// Who waits for the reload that is about to begin: it reads the file after all of them asked, so one is enough.
fn sharing(
    first: Answer,
    commands: &mut mpsc::Receiver<Command>,
    later: &mut VecDeque<Command>,
) -> Vec<Answer> {
    let mut answers = vec![first];
    while answers.len() + later.len() <= COMMANDS_WAITING_MAX
        && let Ok(command) = commands.try_recv()
    {
        match command {
            Command::Reload(answer) => answers.push(answer),
            other => later.push_back(other),
        }
    }
    answers
}

fn picture(filter: &Filter, policy: &Policy, state: PolicyState, started_at: jiff::Timestamp) -> Snapshot {
    let services = policy.services.iter().map(|service| ServiceState {
        name: service.name.clone(),
        environment: service.environment.clone(),
        mode: crate::compiler::service_mode(policy, service),
        number: filter.service_number(&service.name).unwrap_or(u32::MAX),
    });
    let interfaces: Vec<InterfaceState> = filter.interfaces().to_vec();
    let mut not_ready = filter.unfiltered();
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
        tables: filter.fill().shown(),
        drift: Drift::default(),
        not_ready,
    }
}
