//! The daemon's listeners with a store behind them, in this process: for tests of what asks them. The kernel is a
//! stand-in that takes every change.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use filter_user::api::{self, Backing, Bounds};
use filter_user::bindings::clock::SystemClock;
use filter_user::bindings::seam::{Changes, GrantError, Grants, OwnerUse};
use filter_user::bindings::{Bindings, Options};
use filter_user::engine::ExplainError;
use filter_user::engine::apply::{FileState, Pending, Proposed};
use filter_user::engine::snapshot::{
    Applied, BoxFuture, Canary, CounterValues, Drift, ObserveError, PolicyState, ReloadError, Snapshot, View,
};
use filter_user::judge::in_force::{InForce, Question};
use filter_user::policy::model::Mode;
use filter_user::policy::{LoadContext, MemoryFiles, Policy, load_from};
use tokio::runtime::Runtime;
use tokio::sync::watch;

const SERVICE: &str = r#"
version = 1
[filter]
interfaces = ["eth0"]
[[service]]
name = "payments"
protocol = "tcp"
ports = [8443]
[[management]]
name = "ssh"
sources = ["192.0.2.0/24"]
protocol = "tcp"
ports = [22]
"#;

/// They end with this.
#[derive(Debug)]
pub struct Listeners {
    folder: tempfile::TempDir,
    stop: watch::Sender<bool>,
    _runtime: Runtime,
}

impl Listeners {
    /// Of a policy of one service, `payments`, with these entries, in which `SOCKET` stands for the path of a socket.
    pub fn start(entries: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let socket = folder.path().join("api.sock");
        let policy = format!("{SERVICE}{entries}").replace("SOCKET", &socket.display().to_string());
        let policy = read(&policy);
        let runtime = Runtime::new().expect("an event loop can be made");
        let (bound, faults) = runtime.block_on(api::bind_each(&policy.listeners, Vec::new()));
        assert!(faults.is_empty(), "{faults:?}");
        let options = Options {
            folder: folder.path().join("state"),
            clock: Arc::new(SystemClock::new().expect("the clocks can be read")),
            witness: None,
        };
        let opened = Bindings::open(options, Arc::clone(&policy));
        let (bindings, writer) = opened.expect("the store can be opened");
        let grants: Arc<dyn Grants> = Arc::new(Anything(Arc::clone(&policy)));
        let (stop, stopped) = watch::channel(false);
        runtime.spawn(writer.run(Arc::clone(&grants), stopped.clone()));
        let backing = Backing::new(bindings, grants, &policy);
        let operators = policy.daemon.operators.clone();
        let view: Arc<dyn View> = Arc::new(Nothing);
        runtime.spawn(api::serve(
            bound,
            view,
            Some(backing),
            Arc::new(filter_user::metrics::Metrics::new()),
            operators,
            Bounds::default(),
            stopped,
        ));
        Self {
            folder,
            stop,
            _runtime: runtime,
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        // Nobody may be left to hear it.
        let _ = self.stop.send(true);
    }
}

fn read(text: &str) -> Arc<Policy> {
    let root = PathBuf::from("keyfence.toml");
    let files = MemoryFiles::new([(root.clone(), text.as_bytes().to_vec())]);
    let loaded = load_from(&files, &root, &LoadContext::at(jiff::Timestamp::now()));
    let faults = loaded.diagnostics;
    Arc::new(loaded.policy.unwrap_or_else(|| panic!("{faults:?}")))
}

struct Anything(Arc<Policy>);

impl Grants for Anything {
    fn change(&self, _: u64, _: Changes) -> BoxFuture<Result<(), GrantError>> {
        Box::pin(async { Ok(()) })
    }

    fn policy(&self) -> (u64, Arc<Policy>) {
        (1, Arc::clone(&self.0))
    }

    fn used(&self, _: &str) -> Option<OwnerUse> {
        None
    }
}

/// A daemon that filters nothing.
struct Nothing;

impl View for Nothing {
    fn snapshot(&self) -> Arc<Snapshot> {
        let now = jiff::Timestamp::UNIX_EPOCH;
        Arc::new(Snapshot {
            instance: "test".to_owned(),
            version: "0",
            started_at: now,
            policy: PolicyState {
                file: "keyfence.toml".to_owned(),
                hash: String::new(),
                in_force_since: now,
                reload_ok: true,
                last_error: None,
                file_differs: false,
                file_error: None,
                pending: None,
            },
            generation: 1,
            mode: Some(Mode::Enforce),
            interfaces: Vec::new(),
            services: Vec::new(),
            tables: Vec::new(),
            drift: Drift::default(),
            canary: Canary::default(),
            observing: Vec::new(),
            not_ready: Vec::new(),
        })
    }

    fn is_detached(&self) -> bool {
        false
    }

    fn counters(&self) -> Result<CounterValues, String> {
        Ok(CounterValues::default())
    }

    fn apply(&self, _: Proposed) -> BoxFuture<Result<Applied, ReloadError>> {
        Box::pin(async { Err(ReloadError::Failed("there is nothing to filter".to_owned())) })
    }

    fn confirm(&self) -> BoxFuture<Result<(), ReloadError>> {
        Box::pin(async { Err(ReloadError::NothingPending) })
    }

    fn revert(&self) -> BoxFuture<Result<(), ReloadError>> {
        self.confirm()
    }

    fn pending(&self) -> watch::Receiver<Option<Pending>> {
        watch::channel(None).1
    }

    fn note_file(&self, _: FileState) {}

    fn observe(&self, _: Option<String>, _: u64) -> BoxFuture<Result<(), ObserveError>> {
        Box::pin(async { Err(ObserveError::Failed("there is nothing to observe".to_owned())) })
    }

    fn observes(&self, _: &str) -> [bool; 2] {
        [false; 2]
    }

    fn detach(&self) -> BoxFuture<Result<Vec<String>, String>> {
        Box::pin(async { Err("there is nothing to detach".to_owned()) })
    }

    fn explain(&self, _: Question) -> BoxFuture<Result<InForce, ExplainError>> {
        Box::pin(async { Err(ExplainError::Failed("there is nothing to explain".to_owned())) })
    }
}
