//! What the tests stand on: a kernel and clocks in memory, a daemon without listeners.
//!
//! The kernel here is a mock: it holds what it is told, as the engine does, and refuses when a test says so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

pub(super) use super::clock::{FakeClock, START};
use crate::bindings::clock::Clock;
use crate::bindings::refusal::{Code, Refusal};
use crate::bindings::requests::*;
use crate::bindings::seam::*;
use crate::bindings::witness::StoreTold;
use crate::bindings::{Bindings, Options};
use crate::policy::{LoadContext, MemoryFiles, Policy, load_from};

pub(super) const POLICY: &str = r#"version = 1
[filter]
interfaces = ["eth0"]
[[management]]
name = "ssh"
sources = ["192.0.2.0/24"]
protocol = "tcp"
ports = [22]
[[service]]
name = "payments"
address = ["203.0.113.10"]
protocol = "tcp"
ports = [443]
[[service]]
name = "ledger"
address = ["203.0.113.11"]
protocol = "tcp"
ports = [443]
[[service]]
name = "sandbox"
environment = "sandbox"
address = ["203.0.113.12"]
protocol = "tcp"
ports = [443]
[[client]]
name = "acme"
sources = ["198.51.100.0/24"]
services = ["payments"]
credentials = ["acme-key"]
[[deny]]
name = "abuse-2026"
sources = ["198.51.100.66"]
[[publisher]]
name = "gateway"
user = "www-data"
services = ["payments", "ledger"]
environments = ["production"]
bindings-max = 1000000
widest-prefix = { ipv4 = 24, ipv6 = 48 }
limit-max = { packets = { rate = 1000, burst = 1000 } }
[[publisher]]
name = "endless"
user = "nobody"
services = ["*"]
environments = ["production", "sandbox"]
bindings-max = 20
lease-max = "none"
[[publisher]]
name = "holding"
user = "daemon"
services = ["payments"]
environments = ["production"]
bindings-max = 100
lease-hold = "60s"
"#;

pub(super) fn policy(text: &str) -> Arc<Policy> {
    let root = Path::new("keyfence.toml");
    let files = MemoryFiles::new([(root.to_owned(), text.as_bytes().to_vec())]);
    let now = "2026-06-01T00:00:00Z".parse().unwrap();
    let loaded = load_from(&files, root, &LoadContext::at(now));
    let told: Vec<String> = loaded.diagnostics.iter().map(|d| d.to_string()).collect();
    Arc::new(loaded.policy.unwrap_or_else(|| panic!("{told:#?}")))
}

/// The mock of the kernel's side.
pub(super) struct FakeKernel {
    pub(super) held: Arc<Mutex<Held>>,
    /// A change of `gateway`'s bindings takes a permit: there are as many as one could want until a test takes them.
    pub(super) gate: Arc<Semaphore>,
    /// How many of them have come to the gate.
    pub(super) came: Arc<AtomicUsize>,
}

pub(super) struct Held {
    pub(super) epoch: u64,
    pub(super) policy: Arc<Policy>,
    pub(super) owners: BTreeMap<Arc<str>, Grantee>,
    pub(super) denies: BTreeMap<String, u64>,
    pub(super) calls: Vec<Vec<Change>>,
    /// What stands by, and what it was told.
    pub(super) standby: Option<(u64, Arc<Policy>)>,
    pub(super) told_standby: Vec<Change>,
    pub(super) owners_max: usize,
    /// Whether it tells what would not fit.
    pub(super) sifts: bool,
    /// Nothing judges packets.
    pub(super) detached: bool,
    /// What the next change is refused with.
    pub(super) refuse: Option<GrantError>,
    pub(super) used: BTreeMap<String, OwnerUse>,
}

impl FakeKernel {
    pub(super) fn new(policy: Arc<Policy>) -> FakeKernel {
        FakeKernel {
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            came: Arc::default(),
            held: Arc::new(Mutex::new(Held {
                epoch: 1,
                policy,
                owners: BTreeMap::new(),
                denies: BTreeMap::new(),
                calls: Vec::new(),
                standby: None,
                told_standby: Vec::new(),
                owners_max: usize::MAX,
                sifts: true,
                detached: false,
                refuse: None,
                used: BTreeMap::new(),
            })),
        }
    }

    /// Lets so many more changes of `gateway` through, and no other.
    pub(super) fn let_through(&self, changes: usize) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
        self.gate.add_permits(changes);
    }

    /// Returns when so many changes of `gateway` have come, let through or not.
    pub(super) async fn has_come(&self, changes: usize) {
        while self.came.load(Ordering::Relaxed) < changes {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    pub(super) fn owners(&self) -> Vec<String> {
        self.held
            .lock()
            .unwrap()
            .owners
            .keys()
            .map(|name| name.to_string())
            .collect()
    }

    pub(super) fn owner(&self, name: &str) -> Option<Grantee> {
        self.held.lock().unwrap().owners.get(name).cloned()
    }

    pub(super) fn calls(&self) -> usize {
        self.held.lock().unwrap().calls.len()
    }
}

impl Held {
    fn change(&mut self, epoch: u64, changes: Vec<Change>) -> Result<(), GrantError> {
        if let Some(error) = self.refuse.take() {
            return Err(error);
        }
        if self.detached && !changes.iter().all(Change::revokes) {
            return Err(GrantError::Detached);
        }
        if epoch != self.epoch {
            return Err(GrantError::PolicyChanged);
        }
        let mut owners = self.owners.clone();
        for change in changes.iter().cloned() {
            match change {
                Change::Put(grantee) => {
                    assert!(!grantee.sources.is_empty() && !grantee.services.is_empty());
                    owners.insert(grantee.credential.clone(), grantee);
                }
                Change::End { owner, end } => {
                    if let Some(grantee) = owners.get_mut(&owner) {
                        grantee.end = end;
                    }
                }
                Change::Remove { owner } => drop(owners.remove(&owner)),
                Change::Kept { .. } => {}
                Change::Deny { name, end, .. } => drop(self.denies.insert(name, end)),
                Change::Undeny { name } => drop(self.denies.remove(&name)),
            }
        }
        if owners.len() > self.owners_max {
            return Err(GrantError::TableFull {
                table: "OWNERS",
                needed: owners.len() as u64,
                max: self.owners_max as u64,
            });
        }
        self.owners = owners;
        self.calls.push(changes);
        Ok(())
    }
}

impl Grants for FakeKernel {
    fn change(&self, epoch: u64, changes: Changes) -> BoxFuture<Result<(), GrantError>> {
        let (held, gate) = (Arc::clone(&self.held), Arc::clone(&self.gate));
        let gated = |change: &Change| {
            change
                .owner()
                .is_some_and(|owner| owner.starts_with("binding/gateway/"))
        };
        let is_gated = changes.in_force.iter().any(gated);
        if is_gated {
            self.came.fetch_add(1, Ordering::Relaxed);
        }
        Box::pin(async move {
            if is_gated {
                let permit = gate.acquire().await;
                permit
                    .map_err(|_| GrantError::Failed("killed".to_owned()))?
                    .forget();
            }
            let mut held = held.lock().unwrap();
            let answer = held.change(epoch, changes.in_force);
            if answer.is_ok() {
                held.told_standby.extend(changes.standby);
            }
            answer
        })
    }

    fn sift(&self, _: u64, changes: Vec<Change>) -> BoxFuture<Vec<(Arc<str>, GrantError)>> {
        let refused = self.held.lock().unwrap().sift(&changes);
        Box::pin(async { refused })
    }

    fn fit(&self, _: &Policy, all: Vec<Grantee>, more: i64) -> Result<(), GrantError> {
        let held = self.held.lock().unwrap();
        let needed = held
            .owners
            .len()
            .checked_add_signed(more.try_into().unwrap())
            .unwrap();
        assert_eq!(all.len(), needed, "all that is in force, and what is more");
        match needed > held.owners_max {
            false => Ok(()),
            true => Err(GrantError::TableFull {
                table: "OWNERS",
                needed: needed as u64,
                max: held.owners_max as u64,
            }),
        }
    }

    fn policy(&self) -> (u64, Arc<Policy>) {
        let held = self.held.lock().unwrap();
        (held.epoch, Arc::clone(&held.policy))
    }

    fn standby(&self) -> Option<(u64, Arc<Policy>)> {
        self.held.lock().unwrap().standby.clone()
    }

    fn used(&self, owner: &str) -> Option<OwnerUse> {
        self.held.lock().unwrap().used.get(owner).copied()
    }
}

pub(super) struct Fixture {
    pub(super) bindings: Bindings,
    pub(super) kernel: Arc<FakeKernel>,
    pub(super) clock: Arc<FakeClock>,
    pub(super) folder: Arc<tempfile::TempDir>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

pub(super) fn start() -> Fixture {
    let clock = Arc::new(FakeClock(Mutex::new(START)));
    start_in(Arc::new(tempfile::tempdir().unwrap()), clock, POLICY)
}

pub(super) fn start_in(folder: Arc<tempfile::TempDir>, clock: Arc<FakeClock>, text: &str) -> Fixture {
    start_told((folder, clock), text, None)
}

/// Over a filter that was told this of the store.
pub(super) fn start_told(
    (folder, clock): (Arc<tempfile::TempDir>, Arc<FakeClock>),
    text: &str,
    witness: Option<StoreTold>,
) -> Fixture {
    let policy = policy(text);
    let options = Options {
        folder: folder.path().to_owned(),
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        witness,
    };
    let (bindings, writer) = Bindings::open(options, Arc::clone(&policy)).unwrap();
    let kernel = Arc::new(FakeKernel::new(Arc::clone(&policy)));
    // As the engine starts: with all that holds.
    let (grantees, denies) = bindings.under(1, &policy).all();
    {
        let mut held = kernel.held.lock().unwrap();
        held.owners = grantees.into_iter().map(|g| (g.credential.clone(), g)).collect();
        held.denies = denies.into_iter().map(|(name, _, end)| (name, end)).collect();
    }
    let (stop, stopped) = watch::channel(false);
    let grants = Arc::clone(&kernel) as Arc<dyn Grants>;
    // Once it runs, requests are taken; until then they are `starting`.
    bindings.shared.set_phase(crate::bindings::shared::Phase::Running);
    let task = tokio::spawn(writer.run(grants, stopped));
    Fixture {
        bindings,
        kernel,
        clock,
        folder,
        stop,
        task,
    }
}

impl Fixture {
    /// Ends the writer in order and opens the same folder again.
    pub(super) async fn restart(self) -> Fixture {
        let (folder, clock) = self.stop().await;
        start_in(folder, clock, POLICY)
    }

    pub(super) async fn stop(self) -> (Arc<tempfile::TempDir>, Arc<FakeClock>) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap();
        (self.folder, self.clock)
    }

    /// The daemon dies between two steps: nothing is written any more.
    pub(super) async fn kill(self) -> (Arc<tempfile::TempDir>, Arc<FakeClock>) {
        self.task.abort();
        let _ = self.task.await;
        self.kernel.gate.close();
        // Its threads end: the store's lock goes with the last of them.
        while Arc::strong_count(&self.bindings.shared) > 1 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        (self.folder, self.clock)
    }

    pub(super) async fn put(&self, credential: &str, body: &str) -> Answer<PutAnswer> {
        self.put_as("gateway", credential, body, Conditions::default())
            .await
    }

    pub(super) async fn put_as(
        &self,
        publisher: &str,
        credential: &str,
        body: &str,
        conditions: Conditions,
    ) -> Answer<PutAnswer> {
        let put = Put {
            publisher: publisher.to_owned(),
            credential: credential.to_owned(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            conditions,
        };
        self.bindings.put(&actor(publisher), put).await
    }

    pub(super) async fn delete(&self, credential: &str, row_version: Option<u64>) -> Answer<DeleteAnswer> {
        let delete = Delete {
            publisher: "gateway".to_owned(),
            credential: credential.to_owned(),
            row_version,
            conditions: Conditions::default(),
        };
        self.bindings.delete(&actor("gateway"), delete).await
    }

    pub(super) fn state(&self, publisher: &str, credential: &str) -> State {
        self.bindings.get(publisher, credential).unwrap().state
    }

    /// Returns when all that is due by the clock is done.
    pub(super) async fn settle(&self) {
        for _ in 0..3 {
            let note = AuditNote {
                actor: None,
                what: "settled",
                members: Map::new(),
            };
            self.bindings.audit(note).await.unwrap();
        }
    }

    pub(super) fn audit_path(&self) -> PathBuf {
        crate::bindings::audit::path_in(self.folder.path())
    }

    /// The audit log's lines, but those of `settle`.
    pub(super) fn audit_lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.audit_path()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.filter(|line: &Value| line["what"] != "settled").collect()
    }

    pub(super) async fn list(&self, publisher: &str) -> Vec<BindingView> {
        let list = List {
            publisher: Some(publisher.to_owned()),
            ..List::default()
        };
        self.bindings.list(list).await.unwrap().items
    }

    /// Another policy comes into force, as the engine does it.
    pub(super) fn apply(&self, text: &str) {
        let policy = policy(text);
        let (grantees, _) = self.bindings.under(u64::MAX, &policy).all();
        let epoch = {
            let mut held = self.kernel.held.lock().unwrap();
            held.epoch += 1;
            held.policy = Arc::clone(&policy);
            held.owners = grantees.into_iter().map(|g| (g.credential.clone(), g)).collect();
            held.epoch
        };
        self.bindings.applied(epoch, &policy);
    }
}

pub(super) fn actor(publisher: &str) -> Actor {
    Actor {
        caller: Caller::Publisher(publisher.to_owned()),
        peer: Peer {
            pid: Some(7),
            uid: Some(33),
            user: Some("www-data".to_owned()),
        },
    }
}

pub(super) fn operator() -> Actor {
    Actor {
        caller: Caller::Operator("root".to_owned()),
        peer: Peer::default(),
    }
}

pub(super) fn body(source: &str, lease_seconds: u64) -> String {
    format!(r#"{{"sources": ["{source}"], "services": ["payments"], "lease_seconds": {lease_seconds}}}"#)
}

pub(super) fn code<T: std::fmt::Debug>(answer: Result<T, Refusal>) -> Code {
    answer.unwrap_err().code
}

pub(super) fn faults<T: std::fmt::Debug>(answer: Result<T, Refusal>) -> Vec<(&'static str, String)> {
    let faults = answer.unwrap_err().errors;
    faults
        .into_iter()
        .map(|fault| (fault.code, fault.pointer))
        .collect()
}
