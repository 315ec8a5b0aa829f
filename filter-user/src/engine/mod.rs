//! The one owner of what is in force: loads the policy, compiles it, has the kernel take it, publishes it.
//!
//! Whole or not at all: until the last step of an apply succeeds, what was in force stays in force. Reads and
//! writes the kernel through `filter`; knows no listener.

pub mod apply;
mod attachments;
#[cfg(test)]
mod beside_tests;
mod build;
#[cfg(test)]
mod build_tests;
mod canary;
mod change;
mod compile;
mod crowded;
mod drift;
mod error;
mod explain;
mod fill;
mod filter;
mod finding;
#[cfg(test)]
pub mod fixture;
mod gate;
mod grantees;
mod live;
#[cfg(test)]
mod live_tests;
mod next_start;
mod operate;
mod pinned;
mod reader;
mod room;
#[cfg(test)]
mod room_tests;
mod shared;
#[cfg(test)]
mod sift_tests;
pub mod snapshot;
mod standby;
#[cfg(test)]
mod standby_tests;
mod start;
mod succession;
mod tables;
mod told;
mod under_way;
mod watch;

pub use change::NotSingly;
pub use compile::Occasion;
pub use crowded::crowded_out;
pub use error::FilterError;
pub use explain::ExplainError;
pub use fill::owners_needed;
pub use filter::Filter;
pub use finding::Finding;
pub use gate::{load_policy, load_policy_from, refusal, unexpected};
pub use next_start::lacking_at_start;
pub use shared::Shared;
pub use told::{restart_keys, warnings};

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use tokio::sync::{mpsc, oneshot};

use crate::bindings::seam::{Change, Changes, Effective, GrantError, Many, Under};
use crate::compiler::Pushed;
use crate::judge::in_force::{InForce, Question};
use crate::kernel::capture::Tap;
use crate::kernel::clock;
use crate::kernel::records::Accounting;
use crate::kernel::state::State;
use crate::policy::Policy;
use apply::{FileState, Proposed, Settled};
use snapshot::{
    Applied, Canary, Drift, InterfaceState, ObserveError, PolicyState, ReloadError, ServiceState, Snapshot,
    View,
};
use under_way::UnderWay;
use watch::Woken;

/// What the engine is started with.
#[derive(Clone, Debug)]
pub struct Options {
    pub policy_file: PathBuf,
    pub bpf_fs: PathBuf,
    /// Whether a start does as much as can be done, and follows the rest, as on a change of the host.
    pub await_interfaces: bool,
    /// Whether a filter of a newer layout gives way too.
    pub downgrade: bool,
    /// The owner table's entries, whatever the policy in force needs: its file may say another.
    pub owners_at_least: u32,
    pub kernel_log: crate::kernel::load::KernelLog,
}

/// What is known of what an earlier daemon had in force. Where that is not all, what it left in the kernel stays in force as
/// it is, until a policy is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earlier {
    Known,
    /// The store of what was pushed was made just now: all, unless the kernel has an owner that the policy has not.
    NewStore,
    /// The same, and no policy was ever written down beside it.
    Nothing,
    /// Which policy it was is not known, and the one at hand is older.
    NoPolicy,
    /// What was pushed is not known.
    NoPushes,
}

/// In the place of a policy's hash, where nobody knows which one is in force.
const UNKNOWN: &str = "unknown";

/// Why a reload would find no way to attach this policy to the interfaces of now.
pub async fn lacking_interfaces(policy: &Policy) -> Option<String> {
    let around = build::Around::read(policy, compile::Occasion::Reload).await;
    around.err().map(|error| error.to_string())
}

/// Asked of the engine by others.
enum Command {
    Apply(Box<Proposed>, Answer),
    Confirm(Settled),
    Revert(Settled),
    Change(u64, Changes, Changed),
    Sift(u64, Vec<Change>, oneshot::Sender<Vec<(Arc<str>, GrantError)>>),
    Expect(Many),
    Observe(Option<String>, u64, oneshot::Sender<Result<(), ObserveError>>),
    Detach(oneshot::Sender<Result<Vec<String>, String>>),
    Explain(Question, oneshot::Sender<Result<InForce, ExplainError>>),
}

type Commands = mpsc::Sender<Command>;
type Answer = oneshot::Sender<Result<Applied, ReloadError>>;
type Changed = oneshot::Sender<Result<(), GrantError>>;

/// Commands that wait; one more waits with its sender.
const COMMANDS_WAITING_MAX: usize = 16;

/// The engine's state; `run` drives it.
pub struct Engine {
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
    /// The generation on its way.
    under_way: Option<UnderWay>,
    room: room::Room,
    /// Changes that need one of their own, and the epoch they were computed under.
    waiting: VecDeque<(u64, Changes, Changed)>,
    /// Policies that wait for their turn; who proposes does so one at a time.
    proposed: VecDeque<(Box<Proposed>, Answer)>,
}

impl Engine {
    /// Puts a checked policy in force, taking over what an earlier daemon left.
    pub async fn start(
        finding: Finding,
        hash: String,
        policy: Arc<Policy>,
        effective: Option<Arc<dyn Effective>>,
        earlier: Earlier,
    ) -> Result<(Self, Arc<Shared>), FilterError> {
        // The bindings' view of the policy is wanted once more when it is in force.
        let under = effective.as_ref().map(|effective| effective.under(1, &policy));
        let pushed = match (earlier, &under) {
            (Earlier::NoPushes, _) | (_, None) => Pushed::default(),
            (_, Some(under)) => all_pushed(under.as_ref()),
        };
        let policy_file = finding.options.policy_file.clone();
        let filter = Filter::start(finding, &policy, (pushed, under.clone(), earlier)).await?;
        let hash = match (filter.kept, earlier) {
            (true, Earlier::NoPolicy | Earlier::Nothing) => UNKNOWN.to_owned(),
            _ => hash,
        };
        let (sender, commands) = mpsc::channel(COMMANDS_WAITING_MAX);
        let started_at = jiff::Timestamp::now();
        let state = PolicyState::at_start(&policy_file, &hash, started_at);
        let snapshot = picture(&filter, &policy, state, started_at);
        let shared = Arc::new(Shared {
            reader: RwLock::new(Arc::new(filter.reader(&policy)?)),
            snapshot: RwLock::new(Arc::new(snapshot)),
            policy: RwLock::new((1, Arc::clone(&policy))),
            standby: RwLock::new(None),
            numbers: filter.shared_numbers(),
            fill: RwLock::new(Arc::clone(filter.fill())),
            in_force: filter.tables_in_force(),
            drift: RwLock::default(),
            sung: RwLock::default(),
            observing: operate::Observed::default(),
            record_keys: std::sync::atomic::AtomicU64::new(0),
            pending: tokio::sync::watch::Sender::new(None),
            // Whoever started it knows better.
            file: RwLock::new(FileState::of(&hash)),
            looks: std::sync::atomic::AtomicU64::new(0),
            pins: filter.pins.clone(),
            links: Arc::clone(filter.entry.links()),
            witness: filter.witness.clone(),
            commands: sender,
        });
        let engine = Self {
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
            under_way: None,
            room: room::Room::default(),
            waiting: VecDeque::new(),
            proposed: VecDeque::new(),
        };
        if !engine.is_kept() {
            engine.say_applied();
        }
        engine.shared.observing.set(engine.filter.observed());
        tokio::task::spawn_blocking(crate::sys::give_back_memory);
        Ok((engine, shared))
    }

    /// Whether what an earlier daemon left is in force as it was, until the next reload.
    pub fn is_kept(&self) -> bool {
        self.filter.kept
    }

    /// The drop accounting, and the state that its numbers are of.
    pub fn accounting(&self) -> Result<(Accounting, State), FilterError> {
        self.filter.accounting()
    }

    /// Where captures are put in the packets' way: the same for all generations.
    pub fn tap(&self) -> Arc<Tap> {
        self.filter.tap()
    }

    /// Serves commands until told to stop; gives the filter back.
    pub async fn run(mut self, mut stop: tokio::sync::watch::Receiver<bool>) -> Filter {
        let mut looks = tokio::time::interval(std::time::Duration::from_secs(1));
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut events = watch::Listener::open();
        let mut reading = std::pin::pin!(drift::read_back(Arc::clone(&self.shared)));
        let mut singing = std::pin::pin!(canary::sing(Arc::clone(&self.shared)));
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.take(command),
                    None => return self.filter,
                },
                done = under_way::step(&mut self.under_way) => self.advance(done).await,
                () = events.changed() => self.watch(Woken::ByEvent).await,
                () = &mut reading => {}
                () = standby::over(self.filter.due()) => self.not_confirmed(),
                () = &mut singing => {}
                _ = looks.tick() => self.watch(Woken::ByClock).await,
                // An error means that the stopper itself is gone: stop as well.
                _ = stop.changed() => return self.filter,
            }
        }
    }

    fn take(&mut self, command: Command) {
        // Whatever is asked of a policy whose time is over is asked of the one that is in force instead.
        self.not_confirmed();
        match command {
            Command::Change(epoch, changes, answer) => self.change(epoch, changes, answer),
            Command::Sift(epoch, changes, answer) => drop(answer.send(self.sift(epoch, &changes))),
            Command::Expect(more) => self.expect(more),
            Command::Observe(service, seconds, answer) => drop(answer.send(self.observe(service, seconds))),
            Command::Detach(answer) => drop(answer.send(self.detach())),
            Command::Explain(question, answer) => drop(answer.send(self.explain(&question))),
            Command::Apply(proposed, answer) if self.under_way.is_some() => {
                self.proposed.push_back((proposed, answer));
            }
            Command::Apply(proposed, answer) => self.propose(proposed, answer),
            Command::Confirm(answer) => self.confirm(answer),
            Command::Revert(answer) => self.revert(answer),
        }
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
        snapshot.not_ready.extend(self.watch.unpinned.clone());
        snapshot.not_ready.extend(self.watch.behind.clone());
        let snapshot = Arc::new(snapshot);
        if let Ok(mut slot) = self.shared.snapshot.write() {
            *slot = snapshot;
        }
        if let Ok(mut slot) = self.shared.fill.write() {
            *slot = Arc::clone(self.filter.fill());
        }
        self.shared.observing.set(self.filter.observed());
    }
}

/// All that was pushed and holds under one policy.
fn all_pushed(under: &dyn Under) -> Pushed {
    let (grantees, denies) = under.all();
    Pushed::of(grantees, denies)
}

fn picture(filter: &Filter, policy: &Policy, state: PolicyState, started_at: jiff::Timestamp) -> Snapshot {
    let known = |mode| (state.hash != UNKNOWN).then_some(mode);
    let mode = known(policy.filter.mode);
    let services = policy.services.iter().map(|service| ServiceState {
        name: service.name.clone(),
        environment: service.environment.clone(),
        mode: known(crate::compiler::service_mode(policy, service)),
        number: filter.service_number(&service.name).unwrap_or(u32::MAX),
    });
    let interfaces: Vec<InterfaceState> = filter.interfaces().to_vec();
    let mut not_ready = filter.unfiltered();
    if let Some(why) = filter.narrowed() {
        not_ready.push(format!("{why}; until then the written service has it"));
    }
    Snapshot {
        instance: policy.daemon.instance.clone(),
        version: env!("CARGO_PKG_VERSION"),
        started_at,
        services: services.collect(),
        policy: state,
        generation: filter.generation(),
        mode,
        interfaces,
        tables: filter.fill().shown(),
        drift: Drift::default(),
        canary: Canary::default(),
        observing: Vec::new(),
        not_ready,
    }
}
