//! The daemon: starts the parts in their order, waits for signals, drains them in the reverse order.
//!
//! The only spawner. Owns no state: what is in force belongs to the engine.

mod lock;
mod rights;
mod service;
mod witness;

use std::path::Path;
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api::{self, Backing, Bound, Bounds};
use crate::bindings::clock::SystemClock;
use crate::bindings::requests::AuditNote;
use crate::bindings::seam::{Effective, Grants};
use crate::bindings::witness::StoreTold;
use crate::bindings::{self, Bindings, Writer};
use crate::engine::snapshot::{Snapshot, View};
use crate::engine::{self, Earlier, Engine, Filter, FilterError, Finding, Options};
use crate::metrics::Metrics;
use crate::policies::{By, Policies, Seen, Start, Via};
use crate::policy::Policy;
use crate::policy::model::{ListenerAddress, OnExit, SinkType};
use crate::records::capture::{CAPTURES_MAX, Captures};
use crate::records::live::Live;
use crate::records::{self, Kernel, KernelNames, Records};
use crate::sys;
use lock::Lock;
use rights::Need;

#[derive(Debug, Error)]
pub enum DaemonError {
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error("{path}: {error}; name another folder with --state or [daemon] state")]
    State { path: String, error: std::io::Error },
    #[error(
        "another daemon runs as instance {instance} ({path} is locked): stop it first, or name another instance"
    )]
    Running { instance: String, path: String },
    #[error(transparent)]
    Bindings(#[from] bindings::OpenError),
    #[error("the clocks cannot be read: {0}")]
    Clock(std::io::Error),
    #[error("the bindings could not be opened: {0}")]
    Opening(String),
    #[error(transparent)]
    Records(#[from] records::RecordsError),
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
    #[error("the runtime cannot start: {0}")]
    Runtime(std::io::Error),
    #[error(transparent)]
    Rights(#[from] rights::RightsError),
}

/// A start that has what it takes, and no right beyond what the daemon keeps.
pub struct Prepared {
    lock: Lock,
    bound: Vec<Bound>,
}

/// What may take more rights than the daemon keeps: its folder, and its listeners, with their groups. Then gives up the
/// others. To be called before there is a second thread.
///
/// A listener that cannot be opened keeps nothing from being filtered: a port that somebody has taken would open the host.
pub fn prepare(options: &Options, start: &mut Start) -> Result<Prepared, DaemonError> {
    let policy = Arc::clone(&start.policy);
    let lock = Lock::take(&policy.daemon.state, &policy.daemon.instance)?;
    raise_descriptors();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let handed = sys::handed_over().unwrap_or_else(|error| {
        tracing::error!("the sockets that the service manager has kept cannot be taken over: {error}");
        Vec::new()
    });
    let (mut bound, faults) = runtime
        .map_err(DaemonError::Runtime)?
        .block_on(api::bind_each(&policy.listeners, handed));
    for fault in faults {
        start.goes_without(format!(
            "{fault}; nobody is answered there until the daemon is restarted"
        ));
    }
    service::keep(&mut bound);
    rights::keep_few(needs(options, start))?;
    Ok(Prepared { lock, bound })
}

/// What is read and written for as long as the daemon runs.
fn needs(options: &Options, start: &Start) -> Vec<Need> {
    let policy = &start.policy;
    let folder = |path: &Path| Need::Write(path.parent().unwrap_or(path).to_owned());
    let files = start.files.iter().cloned().map(Need::Read);
    let sockets = policy
        .listeners
        .iter()
        .filter_map(|listener| match &listener.address {
            ListenerAddress::Unix(path) => Some(folder(path)),
            ListenerAddress::Tcp(_) => None,
        });
    let sinks = policy.sinks.iter().filter(|sink| sink.kind == SinkType::File);
    let own = [policy.daemon.state.clone(), options.bpf_fs.join("keyfence")];
    let own = own.map(Need::Write).into_iter();
    own.chain(files)
        .chain(sockets)
        .chain(sinks.map(|sink| folder(&sink.path)))
        .collect()
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(prepared: Prepared, options: Options, mut start: Start) -> Result<(), DaemonError> {
    let policy = Arc::clone(&start.policy);
    let Prepared { mut lock, bound } = prepared;
    let mut hangup = signal(SignalKind::hangup()).map_err(DaemonError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Signals)?;
    start.say();
    let hash = start.hash.clone();
    let ((bindings, writer), finding) = open(&options, &mut start).await?;
    if start.is_unwritten() && bindings.has_past() {
        start.lose();
    }
    let effective: Arc<dyn Effective> = Arc::new(bindings.clone());
    let earlier = earlier(&bindings, &start);
    let (engine, shared) =
        Engine::start(finding, hash, Arc::clone(&policy), Some(effective), earlier).await?;
    if engine.is_kept() {
        keep(earlier, &bindings, &mut start);
    }
    let metrics = Arc::new(Metrics::new());
    let captures = open_captures(&engine, &shared, &bindings)?;
    let (records, log) = open_records(&policy, &engine, &shared, &bindings, Arc::clone(&metrics))?;
    lock.keep();
    let snapshot = shared.snapshot();
    let (stop_api, api_stops) = watch::channel(false);
    let (stop_engine, engine_stops) = watch::channel(false);
    let view: Arc<dyn View> = Arc::clone(&shared) as Arc<dyn View>;
    let grants: Arc<dyn Grants> = Arc::clone(&shared) as Arc<dyn Grants>;
    // Before anybody is told that the daemon is ready.
    let (stop_writer, writer_stops) = watch::channel(false);
    let writing = tokio::spawn(writer.run(Arc::clone(&grants), writer_stops));
    let (stop_records, records_stop) = watch::channel(false);
    let recording = tokio::spawn(records.run(records_stop));
    let engine = tokio::spawn(engine.run(engine_stops));
    // The writer waits for the engine where a lease has ended: only now is anybody there to answer it.
    note(&bindings, started(&snapshot, &start)).await;
    let policies = Policies::new(start, Seen::of(&view, &grants, &bindings, Some(&log)));
    witness::follow(shared.witness(), &bindings, &policies);
    let mut backing = Backing::new(bindings.clone(), grants, &policy);
    backing.policies = Some(policies.clone());
    backing.records = Some(log.clone());
    backing.captures = Some(captures);
    let serving = tokio::spawn(api::serve(
        bound,
        view,
        Some(backing),
        metrics,
        policy.daemon.operators.clone(),
        Bounds::default(),
        api_stops,
    ));
    tracing::info!(hash = %snapshot.policy.hash, generation = snapshot.generation, mode = ?snapshot.mode, "ready");
    let state = service::State::of(&shared, &bindings, &log);
    service::ready(&state);
    let following = tokio::spawn(service::follow(state.clone()));
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                service::reloading();
                // Whoever rotates logs says so by the same signal.
                log.reopen().await;
                let by = By { actor: None, via: Via::Sighup };
                // What fails is logged where it happens; a start or a stop is not held up by it.
                let (policies, state) = (policies.clone(), state.clone());
                tokio::spawn(async move {
                    // What failed is logged, and in the status.
                    let _ = policies.reload(by, Vec::new()).await;
                    service::ready(&state);
                });
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    tracing::info!("stopping: the listeners drain");
    service::stopping();
    following.abort();
    // A receiver that is gone has stopped already.
    let _ = stop_api.send(true);
    if let Err(error) = serving.await {
        tracing::error!("the listeners ended badly: {error}");
    }
    // What was taken is decided before the engine goes.
    let _ = stop_writer.send(true);
    if let Err(error) = writing.await {
        tracing::error!("the bindings' writer ended badly: {error}");
    }
    let _ = stop_engine.send(true);
    let left = leave(engine, policy.daemon.on_exit).await;
    // What was dropped until the filter was left, or taken off, is in the log.
    let _ = stop_records.send(true);
    if let Err(error) = recording.await {
        tracing::error!("the records ended badly: {error}; what they have not written stays in the kernel");
    }
    left
}

/// What an earlier daemon left in the kernel stays in force as it is.
fn keep(earlier: Earlier, bindings: &Bindings, start: &mut Start) {
    if matches!(earlier, Earlier::NewStore | Earlier::Nothing) {
        tokio::task::block_in_place(|| bindings.lose());
    }
    if earlier == Earlier::Nothing {
        start.lose();
    }
    bindings.keep();
}

/// What is known of what was in force before this start.
fn earlier(bindings: &Bindings, start: &Start) -> Earlier {
    match (bindings.is_lost(), start.is_lost()) {
        (false, false) if bindings.is_new() && start.is_unwritten() => Earlier::Nothing,
        (false, false) if bindings.is_new() => Earlier::NewStore,
        (false, false) => Earlier::Known,
        (true, false) => Earlier::NoPushes,
        (_, true) => Earlier::NoPolicy,
    }
}

/// What an older release has kept becomes this one's; what a newer one has left, or another daemon has, stays as it is, and
/// stops a start before anything is opened.
fn take_kept(options: &Options, start: &mut Start) -> Result<(), DaemonError> {
    Filter::refuse_start(options, &start.policy)?;
    let path = start.policy.daemon.state.display().to_string();
    start
        .migrate()
        .map_err(|error| DaemonError::State { path, error })
}

/// Leaves the filter in force, or takes it off.
async fn leave(engine: JoinHandle<Filter>, on_exit: OnExit) -> Result<(), DaemonError> {
    match (engine.await, on_exit) {
        (Ok(filter), OnExit::Detach) => {
            filter.leave()?;
            tracing::info!("detached: every packet passes");
        }
        (Ok(mut filter), OnExit::Keep) if filter.is_pinned() => match filter.mend_pins() {
            Ok(()) => tracing::info!("stopped: the filter stays in force"),
            Err(error) => tracing::error!("stopped: {error}"),
        },
        (Ok(_), OnExit::Keep) => tracing::warn!("stopped: the filter had been detached, every packet passes"),
        (Err(error), _) => tracing::error!("the engine ended badly: {error}; the filter stays in force"),
    }
    Ok(())
}

/// The audit log's line of a start. What is in force for want of what was confirmed last is not told as the last.
fn started(snapshot: &Snapshot, start: &Start) -> AuditNote {
    let members = [
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("policy", snapshot.policy.hash.as_str().into()),
        ("generation", snapshot.generation.into()),
    ];
    let number = start.number().map(|number| ("number", number.into()));
    let stands_in = start.is_lost().then(|| (bindings::audit::STANDS_IN, true.into()));
    let members = members.into_iter().chain(number).chain(stands_in);
    AuditNote {
        actor: None,
        what: "start",
        members: members.map(|(name, value)| (name.to_owned(), value)).collect(),
    }
}

/// A line of the audit log. What it tells of has happened: a disk that refuses it stops nothing.
async fn note(bindings: &Bindings, note: AuditNote) {
    let what = note.what;
    if let Err(refusal) = bindings.audit(note).await {
        tracing::error!("the audit log does not tell of this {what}: {}", refusal.detail);
    }
}

/// The bindings, and beside that what an earlier daemon has left in the kernel: both take long where much was pushed.
async fn open(options: &Options, start: &mut Start) -> Result<((Bindings, Writer), Finding), DaemonError> {
    take_kept(options, start)?;
    let (policy, told) = (&start.policy, start.witness.take().map(|witness| witness.store));
    let (opened, finding) = tokio::join!(open_bindings(policy, told), Finding::of(options, policy));
    Ok((opened?, finding?))
}

/// The bindings of the state folder, under the policy about to be in force; `told` is what the kernel knows of them.
async fn open_bindings(
    policy: &Arc<Policy>,
    told: Option<StoreTold>,
) -> Result<(Bindings, Writer), DaemonError> {
    let options = bindings::Options {
        folder: policy.daemon.state.clone(),
        clock: Arc::new(SystemClock::new().map_err(DaemonError::Clock)?),
        witness: told,
    };
    let policy = Arc::clone(policy);
    let opened = tokio::task::spawn_blocking(move || Bindings::open(options, policy)).await;
    Ok(opened.map_err(|error| DaemonError::Opening(error.to_string()))??)
}

/// Who captures what the filter has judged.
fn open_captures(
    engine: &Engine,
    shared: &Arc<engine::Shared>,
    bindings: &Bindings,
) -> Result<Arc<Captures>, DaemonError> {
    let (_, names) = engine.accounting()?;
    let naming = KernelNames::new(names, Arc::clone(shared), Arc::new(bindings.clone()));
    Ok(Arc::new(Captures::new(
        engine.tap(),
        Arc::new(naming),
        CAPTURES_MAX,
    )))
}

/// The drop log of what the kernel counts.
fn open_records(
    policy: &Policy,
    engine: &Engine,
    shared: &Arc<engine::Shared>,
    bindings: &Bindings,
    metrics: Arc<Metrics>,
) -> Result<(Records, records::Handle), DaemonError> {
    let (accounting, state) = engine.accounting()?;
    let (_, names) = engine.accounting()?;
    let kernel = Kernel::new(accounting, state, Arc::clone(shared), bindings.clone());
    let naming = KernelNames::new(names, Arc::clone(shared), Arc::new(bindings.clone()));
    let (records, mut log) = Records::open(policy, Box::new(kernel), Box::new(naming), metrics)?;
    let (accounting, state) = engine.accounting()?;
    let (_, names) = engine.accounting()?;
    let naming = KernelNames::new(names, Arc::clone(shared), Arc::new(bindings.clone()));
    log.live = Some(Arc::new(Live::new(policy, accounting, state, Box::new(naming))?));
    Ok((records, log))
}

/// Connections and maps soon pass the soft limit that a shell gives.
fn raise_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        } else {
            Ok(())
        }
    });
    if let Err(error) = raised {
        tracing::warn!("the limit of open files stays low: {error}");
    }
}
