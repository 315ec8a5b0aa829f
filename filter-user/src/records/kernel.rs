//! The kernel's tables as the records read them, and the names that the daemon knows for the numbers there.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use filter_common::records::Record;
use nix::net::if_::if_indextoname;

use super::{Naming, Source};
use crate::bindings::Bindings;
use crate::bindings::requests::AuditHead;
use crate::bindings::seam::{Effective, Grants};
use crate::compiler::{owner_hash, owner_name};
use crate::engine::Shared;
use crate::engine::snapshot::View as _;
use crate::kernel::records::{Accounting, Epoch};
use crate::kernel::state::State;

/// The tables of the instance.
pub struct Kernel {
    accounting: Accounting,
    state: Arc<State>,
    /// Whom the figures are told to, and whose audit log has a head; `None` without a daemon.
    daemon: Option<(Arc<Shared>, Bindings)>,
}

impl Kernel {
    pub fn new(accounting: Accounting, state: State, shared: Arc<Shared>, bindings: Bindings) -> Self {
        Self {
            accounting,
            state: Arc::new(state),
            daemon: Some((shared, bindings)),
        }
    }

    /// Where no daemon reads them any more.
    pub(super) fn alone(accounting: Accounting, state: Arc<State>) -> Self {
        Self {
            accounting,
            state,
            daemon: None,
        }
    }
}

impl Source for Kernel {
    fn is_new(&self) -> bool {
        self.accounting.is_new()
    }
    fn begin(&self, now: u64, seed: u64, first_sequence: u64) {
        self.accounting.begin(now, seed, first_sequence);
    }
    fn pending(&self) -> Option<Epoch> {
        self.accounting.pending()
    }
    fn end_epoch(&self, now: u64) {
        self.accounting.end_epoch(now);
        if let Some((shared, _)) = &self.daemon {
            shared.note_record_keys(self.accounting.keys());
        }
    }
    fn quiet(&self) -> std::io::Result<()> {
        self.accounting.quiet()
    }
    fn read(&self, epoch: u64) -> Vec<Record> {
        self.accounting.read(epoch)
    }
    fn finish(&self, epoch: &Epoch, records: u64, packets: [u64; 2]) {
        self.accounting.finish(epoch, records, packets);
    }
    fn written(&self) -> ([u64; 2], u64) {
        self.accounting.written()
    }
    fn began(&self) -> u64 {
        self.accounting.began()
    }
    fn counters(&self) -> Result<[u64; 2], String> {
        self.state.refused().map_err(|error| error.to_string())
    }
    fn audit_head(&self) -> AuditHead {
        // The bindings' store is not opened only to be told of.
        let bindings = self.daemon.as_ref().map(|(_, bindings)| bindings);
        bindings.map(Bindings::audit_head).unwrap_or_default()
    }
}

/// Names by the kernel's own tables, the policy and the bindings.
pub struct KernelNames {
    state: State,
    shared: Arc<Shared>,
    effective: Arc<dyn Effective>,
    /// Owners that were asked for, by their hash; those that nobody knew are asked for again.
    owners: Mutex<HashMap<[u8; 16], String>>,
}

impl KernelNames {
    pub fn new(state: State, shared: Arc<Shared>, effective: Arc<dyn Effective>) -> Self {
        Self {
            state,
            shared,
            effective,
            owners: Mutex::default(),
        }
    }

    /// Puts the names of these owners at hand: one pass over all names there are, however many are asked for.
    fn look_up(&self, mut wanted: HashSet<[u8; 16]>, owners: &mut HashMap<[u8; 16], String>) {
        let (epoch, policy) = self.shared.policy();
        let mut take = |name: &str| {
            let hash = owner_hash(name);
            if wanted.remove(&hash) {
                owners.insert(hash, name.to_owned());
            }
            !wanted.is_empty()
        };
        let clients = policy.clients.iter().map(|client| owner_name(&client.name));
        if clients.into_iter().all(|name| take(&name)) {
            let (grantees, _) = self.effective.under(epoch, &policy).all();
            // Whoever is left has no grant any more.
            let _ = grantees.iter().all(|grantee| take(&grantee.credential));
        }
    }
}

/// Owners whose names are kept at hand.
const OWNERS_MAX: usize = 100_000;

impl Naming for KernelNames {
    fn service(&self, number: u32) -> Option<String> {
        self.state.service_name(number)
    }

    fn owners(&self, numbers: &HashSet<u32>) -> HashMap<u32, String> {
        let hash = |number: &u32| Some((*number, self.state.owner_hash(*number)?));
        let hashes: HashMap<u32, [u8; 16]> = numbers.iter().filter_map(hash).collect();
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        if owners.len() + hashes.len() > OWNERS_MAX {
            owners.clear();
        }
        let unknown = hashes.values().filter(|hash| !owners.contains_key(*hash));
        let unknown: HashSet<[u8; 16]> = unknown.copied().collect();
        if !unknown.is_empty() {
            self.look_up(unknown, &mut owners);
        }
        let name = |(number, hash)| Some((number, owners.get(&hash)?.clone()));
        hashes.into_iter().filter_map(name).collect()
    }

    fn interface(&self, number: u32) -> Option<String> {
        let snapshot = self.shared.snapshot();
        let known = snapshot
            .interfaces
            .iter()
            .find(|interface| interface.ifindex == number);
        known
            .map(|interface| interface.name.clone())
            // A bond's member, say.
            .or_else(|| if_indextoname(number).ok()?.into_string().ok())
    }
}
