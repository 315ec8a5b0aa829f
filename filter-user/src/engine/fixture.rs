//! A daemon that is not there, for tests of what shows it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::ExplainError;
use super::apply::{FileState, Pending, Proposed};
use super::snapshot::*;
use crate::judge::in_force::{InForce, Question};
use crate::policy::model::Mode;

/// Shows what it was given.
pub struct FakeView {
    pub snapshot: Mutex<Arc<Snapshot>>,
    pub counters: Mutex<Result<CounterValues, String>>,
    /// What becomes of policies.
    pub applied: Mutex<Result<Applied, ReloadError>>,
    pub pending: watch::Sender<Option<Pending>>,
    pub detach: Mutex<Result<Vec<String>, String>>,
    pub is_detached: AtomicBool,
    /// What was asked to be observed.
    pub observed: Mutex<Vec<(Option<String>, u64)>>,
}

impl Default for FakeView {
    fn default() -> FakeView {
        FakeView {
            snapshot: Mutex::new(Arc::new(snapshot())),
            counters: Mutex::new(Ok(counters())),
            applied: Mutex::new(Ok(Applied {
                detail: "generation 8 is in force".to_owned(),
                clients: 1,
                warnings: Vec::new(),
            })),
            pending: watch::Sender::new(None),
            detach: Mutex::new(Ok(vec!["eth0".to_owned()])),
            is_detached: AtomicBool::new(false),
            observed: Mutex::default(),
        }
    }
}

impl FakeView {
    pub fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut held = self.snapshot.lock().unwrap();
        let mut snapshot = Snapshot::clone(&held);
        change(&mut snapshot);
        *held = Arc::new(snapshot);
    }
}

impl View for FakeView {
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.lock().unwrap())
    }

    fn counters(&self) -> Result<CounterValues, String> {
        self.counters.lock().unwrap().clone()
    }

    fn apply(&self, proposed: Proposed) -> BoxFuture<Result<Applied, ReloadError>> {
        let result = self.applied.lock().unwrap().clone();
        if result.is_ok() {
            let base = self.snapshot().policy.hash.clone();
            self.change(|snapshot| snapshot.policy.hash.clone_from(&proposed.hash));
            self.pending.send_replace(proposed.confirm.map(|time| Pending {
                hash: proposed.hash,
                base,
                deadline: jiff::Timestamp::now() + time,
                deadline_ns: 0,
            }));
        }
        Box::pin(async move { result })
    }

    fn confirm(&self) -> BoxFuture<Result<(), ReloadError>> {
        let was = self.pending.send_replace(None);
        Box::pin(async move { was.map(drop).ok_or(ReloadError::NothingPending) })
    }

    fn revert(&self) -> BoxFuture<Result<(), ReloadError>> {
        let was = self.pending.send_replace(None);
        if let Some(pending) = &was {
            self.change(|snapshot| snapshot.policy.hash.clone_from(&pending.base));
        }
        Box::pin(async move { was.map(drop).ok_or(ReloadError::NothingPending) })
    }

    fn pending(&self) -> watch::Receiver<Option<Pending>> {
        self.pending.subscribe()
    }

    fn note_file(&self, state: FileState) {
        self.change(|snapshot| {
            snapshot.not_ready.clear();
            state.show(snapshot);
        });
    }

    fn observe(&self, service: Option<String>, seconds: u64) -> BoxFuture<Result<(), ObserveError>> {
        let unknown = service.clone().filter(|name| name != "payments");
        self.observed.lock().unwrap().push((service, seconds));
        let known = unknown.map_or(Ok(()), |name| Err(ObserveError::NoSuchService(name)));
        Box::pin(async move { known })
    }

    fn observes(&self, service: &str) -> [bool; 2] {
        let observed = self.observed.lock().unwrap();
        let is = |of: Option<&str>| observed.iter().any(|(name, _)| name.as_deref() == of);
        [is(Some(service)), is(None)]
    }

    fn detach(&self) -> BoxFuture<Result<Vec<String>, String>> {
        let result = self.detach.lock().unwrap().clone();
        self.is_detached.fetch_or(result.is_ok(), Ordering::Relaxed);
        Box::pin(async move { result })
    }

    fn is_detached(&self) -> bool {
        self.is_detached.load(Ordering::Relaxed)
    }

    fn explain(&self, _question: Question) -> BoxFuture<Result<InForce, ExplainError>> {
        Box::pin(async { Err(ExplainError::Failed("no kernel is there".to_owned())) })
    }
}

pub fn snapshot() -> Snapshot {
    let time: jiff::Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    Snapshot {
        instance: "main".to_owned(),
        version: "0.1.0",
        started_at: time,
        policy: PolicyState {
            file: "/etc/keyfence/keyfence.toml".to_owned(),
            hash: format!("sha256:{}", "0f".repeat(32)),
            in_force_since: time,
            reload_ok: true,
            last_error: None,
            file_differs: false,
            file_error: None,
            pending: None,
        },
        generation: 7,
        mode: Some(Mode::Enforce),
        interfaces: vec![InterfaceState {
            name: "eth0".to_owned(),
            ifindex: 2,
            mode: AttachMode::Native,
            attached: true,
        }],
        services: vec![ServiceState {
            name: "payments".to_owned(),
            environment: "production".to_owned(),
            mode: Some(Mode::Observe),
            number: 0,
        }],
        tables: vec![TableFill {
            table: "grants",
            entries: 3,
            capacity: 1024,
        }],
        drift: Drift::default(),
        canary: Canary::default(),
        observing: Vec::new(),
        not_ready: Vec::new(),
    }
}

pub fn counters() -> CounterValues {
    let count = |service: Option<&str>, verdict, reason, packets, bytes| VerdictCount {
        service: service.map(str::to_owned),
        verdict,
        reason,
        packets,
        bytes,
    };
    CounterValues {
        verdicts: vec![
            count(Some("payments"), "pass", "allowed", 12, 1200),
            count(Some("payments"), "observe", "unlisted", 5, 500),
            count(Some("payments"), "drop", "unlisted", 0, 0),
            count(None, "pass", "other", 7, 700),
        ],
        interfaces: vec![InterfaceCount {
            interface: "eth0".to_owned(),
            verdict: "pass",
            packets: 19,
        }],
        shared_sources: 3,
    }
}
