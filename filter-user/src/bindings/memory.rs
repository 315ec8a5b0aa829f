//! All bindings in memory, as readers see them: what is durable and in force.
//!
//! Only the writer changes it. One ordered map a publisher, each behind a lock that is held for a few rows at a time.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use super::model::content::{Content, Names, Services};
use super::model::lease::Moment;
use super::model::row::{Row, Told};
use super::model::view::PublisherFacts;

/// Lists of services that are shared; more are kept by each binding itself.
const NAMES_SHARED_MAX: usize = 4_096;
/// Rows changed under one hold of a lock, so that no reader waits long.
const ROWS_A_HOLD: usize = 256;

type Rows = BTreeMap<Arc<str>, Arc<Row>>;

#[derive(Default)]
pub(crate) struct Memory {
    shelves: RwLock<BTreeMap<Arc<str>, Arc<Shelf>>>,
    names: Mutex<HashSet<Names>>,
}

/// A publisher's bindings.
pub(crate) struct Shelf {
    pub(crate) publisher: Arc<str>,
    rows: RwLock<Rows>,
    /// Of its last success, in this boot's time and by the wall; `i64::MIN` is never.
    success_boot_ms: AtomicI64,
    success_wall_ms: AtomicI64,
    pub(crate) unsynced: AtomicBool,
    /// How many were told to have ended.
    ended: AtomicU64,
    /// How many are held past their end.
    pub(crate) held: AtomicU64,
}

impl Shelf {
    fn new(publisher: Arc<str>) -> Shelf {
        Shelf {
            publisher,
            rows: RwLock::default(),
            success_boot_ms: AtomicI64::new(i64::MIN),
            success_wall_ms: AtomicI64::new(i64::MIN),
            unsynced: AtomicBool::new(false),
            ended: AtomicU64::new(0),
            held: AtomicU64::new(0),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Rows> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn facts(&self) -> PublisherFacts {
        PublisherFacts {
            last_success_boot_ms: self.success_boot_ms.load(Ordering::Acquire),
            unsynced: self.unsynced.load(Ordering::Acquire),
        }
    }

    pub(crate) fn last_success(&self) -> Option<Moment> {
        let boot_ms = self.success_boot_ms.load(Ordering::Acquire);
        (boot_ms != i64::MIN).then(|| Moment {
            boot_ms,
            wall_ms: self.success_wall_ms.load(Ordering::Acquire),
        })
    }

    pub(crate) fn succeeded(&self, at: Moment) {
        self.success_wall_ms.store(at.wall_ms, Ordering::Release);
        self.success_boot_ms.fetch_max(at.boot_ms, Ordering::AcqRel);
    }

    pub(crate) fn get(&self, credential: &str) -> Option<Arc<Row>> {
        self.read().get(credential).map(Arc::clone)
    }

    pub(crate) fn len(&self) -> u64 {
        self.read().len() as u64
    }

    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }

    /// Up to `most` rows after a credential, in their order.
    pub(crate) fn after(&self, credential: Option<&str>, most: usize) -> Vec<(Arc<str>, Arc<Row>)> {
        let from = match credential {
            Some(credential) => Bound::Excluded(credential),
            None => Bound::Unbounded,
        };
        let rows = self.read();
        let found = rows.range::<str, _>((from, Bound::Unbounded)).take(most);
        found
            .map(|(credential, row)| (Arc::clone(credential), Arc::clone(row)))
            .collect()
    }

    pub(crate) fn fill(&self, rows: impl Iterator<Item = (Arc<str>, Arc<Row>)>) {
        let rows: Rows = rows.collect();
        let ended = rows.values().filter(|row| row.told == Told::Ended).count();
        self.ended.store(ended as u64, Ordering::Release);
        *self.rows.write().unwrap_or_else(PoisonError::into_inner) = rows;
    }

    /// Puts rows in place; `None` takes one out.
    pub(crate) fn change(&self, changes: &[(Arc<str>, Option<Arc<Row>>)]) {
        for changes in changes.chunks(ROWS_A_HOLD) {
            let mut ended: i64 = 0;
            let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
            for (credential, row) in changes {
                let is_ended = |row: &Arc<Row>| i64::from(row.told == Told::Ended);
                ended += row.as_ref().map_or(0, is_ended);
                let before = match row {
                    Some(row) => rows.insert(Arc::clone(credential), Arc::clone(row)),
                    None => rows.remove(credential),
                };
                ended -= before.as_ref().map_or(0, is_ended);
            }
            drop(rows);
            let add = |count: u64| Some(count.saturating_add_signed(ended));
            // Only the writer changes it, so the update always takes.
            let _ = self.ended.fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
        }
    }
}

impl Memory {
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Arc<str>, Arc<Shelf>>> {
        self.shelves.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn shelf(&self, publisher: &str) -> Option<Arc<Shelf>> {
        self.read().get(publisher).map(Arc::clone)
    }

    /// The publisher's shelf, made if there is none.
    pub(crate) fn shelf_for(&self, publisher: &str) -> Arc<Shelf> {
        if let Some(shelf) = self.shelf(publisher) {
            return shelf;
        }
        let mut shelves = self.shelves.write().unwrap_or_else(PoisonError::into_inner);
        let name: Arc<str> = publisher.into();
        let shelf = shelves
            .entry(Arc::clone(&name))
            .or_insert_with(|| Arc::new(Shelf::new(name)));
        Arc::clone(shelf)
    }

    /// In the order of their names.
    pub(crate) fn shelves(&self) -> Vec<Arc<Shelf>> {
        self.read().values().map(Arc::clone).collect()
    }

    pub(crate) fn get(&self, publisher: &str, credential: &str) -> Option<Arc<Row>> {
        self.shelf(publisher)?.get(credential)
    }

    /// Calls for each publisher that has such a credential, until one call says enough.
    pub(crate) fn each_with(&self, credential: &str, mut call: impl FnMut(&Shelf, &Row) -> bool) {
        for shelf in self.read().values() {
            if let Some(row) = shelf.get(credential)
                && call(shelf, &row)
            {
                return;
            }
        }
    }

    /// The same content with its list of services shared.
    pub(crate) fn share(&self, content: &mut Content) {
        let Services::Named(names) = &mut content.services else {
            return;
        };
        let mut shared = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        match shared.get(names.as_ref()) {
            Some(known) => *names = Arc::clone(known),
            None if shared.len() < NAMES_SHARED_MAX => {
                shared.insert(Arc::clone(names));
            }
            None => {}
        }
    }

    /// Everything goes: another store takes its place.
    pub(crate) fn clear(&self) {
        self.shelves
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}
