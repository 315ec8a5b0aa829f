//! All bindings in memory, as readers see them: what is durable and in force.
//!
//! Only the writer changes it. One ordered map a publisher, each behind a lock that is held for a few rows at a time.

mod look;
mod over;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use self::over::over;
use super::model::content::{Content, NamesTable};
use super::model::lease::Moment;
use super::model::owned::{Credential, Named, Sought};
use super::model::row::{Row, Told};
use super::model::view::PublisherFacts;

/// Rows changed under one hold of a lock, so that no reader waits long.
const ROWS_A_HOLD: usize = 256;
/// Rows copied out under one hold of a lock.
const ROWS_A_SLICE: usize = 4_096;

/// Rows to be put in place; `None` takes one out.
pub(crate) type RowChanges = Vec<(Credential, Option<Arc<Row>>)>;

/// A publisher's.
pub(crate) type Rows = BTreeMap<Credential, Arc<Row>>;

/// What takes the place of rows: `None` takes one out.
pub(crate) type Next = BTreeMap<Credential, Option<Arc<Row>>>;

#[derive(Default)]
struct Held {
    rows: Rows,
    /// A large change that counts already, and is on its way into the rows.
    next: Option<Arc<Next>>,
    /// One that is not durable yet, and that the kernel is being given: `Which::ToBe` has it, and nobody else.
    coming: Option<Coming>,
}

struct Coming {
    next: Arc<Next>,
    /// It ends what a restore has suspended.
    synced: bool,
}

/// Which rows are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// As readers see them: durable and in force.
    Seen,
    /// As the kernel is to have them, with what it is being given just now.
    ToBe,
}

impl Held {
    fn next(&self, which: Which) -> Option<&Next> {
        let coming = self.coming.as_ref().filter(|_| which == Which::ToBe);
        self.next
            .as_ref()
            .or(coming.map(|coming| &coming.next))
            .map(AsRef::as_ref)
    }

    fn get(&self, which: Which, sought: &dyn Named) -> Option<&Arc<Row>> {
        match self.next(which).and_then(|next| next.get(sought)) {
            Some(next) => next.as_ref(),
            None => self.rows.get(sought),
        }
    }
}

#[derive(Default)]
pub(crate) struct Memory {
    shelves: RwLock<BTreeMap<Arc<str>, Arc<Shelf>>>,
    names: Mutex<NamesTable>,
}

/// A publisher's bindings.
pub(crate) struct Shelf {
    pub(crate) publisher: Arc<str>,
    held: RwLock<Held>,
    /// Who waits to change it: the lock itself would let a walk over all rows take it again before them.
    waiting: AtomicU64,
    /// Of its last success, in this boot's time and by the wall; `i64::MIN` is never.
    success_boot_ms: AtomicI64,
    success_wall_ms: AtomicI64,
    /// Of the last success that is on disk: it alone ends held leases, or a restart would put them in force again.
    counted_boot_ms: AtomicI64,
    pub(crate) unsynced: AtomicU64,
    /// How many were told to have ended.
    ended: AtomicU64,
    /// How many are held past their end.
    pub(crate) past_end: AtomicU64,
}

impl Shelf {
    fn new(publisher: Arc<str>) -> Shelf {
        Shelf {
            publisher,
            held: RwLock::default(),
            waiting: AtomicU64::new(0),
            success_boot_ms: AtomicI64::new(i64::MIN),
            success_wall_ms: AtomicI64::new(i64::MIN),
            counted_boot_ms: AtomicI64::new(i64::MIN),
            unsynced: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            past_end: AtomicU64::new(0),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Held> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        held
    }

    pub(crate) fn facts(&self) -> PublisherFacts {
        PublisherFacts {
            last_success_boot_ms: self.counted_boot_ms.load(Ordering::Acquire),
            unsynced: self.unsynced.load(Ordering::Acquire),
        }
    }

    /// With what a change that is coming makes of them.
    pub(crate) fn facts_to_be(&self) -> PublisherFacts {
        let synced = self.read().coming.as_ref().is_some_and(|coming| coming.synced);
        let facts = self.facts();
        PublisherFacts {
            unsynced: if synced { 0 } else { facts.unsynced },
            ..facts
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

    /// This success is on disk.
    pub(crate) fn count_success(&self, at: Moment) {
        self.counted_boot_ms.fetch_max(at.boot_ms, Ordering::AcqRel);
    }

    /// Whether leases are held that a success ends which does not count yet.
    pub(crate) fn owes_ends(&self) -> bool {
        let counted = self.counted_boot_ms.load(Ordering::Acquire);
        self.past_end.load(Ordering::Acquire) > 0 && self.success_boot_ms.load(Ordering::Acquire) > counted
    }

    pub(crate) fn get(&self, credential: &str) -> Option<Arc<Row>> {
        self.get_of(Which::Seen, credential)
    }

    pub(crate) fn get_of(&self, which: Which, credential: &str) -> Option<Arc<Row>> {
        self.read().get(which, &Sought::of(credential)).cloned()
    }

    /// Right where no change is under way: for the writer.
    pub(crate) fn len(&self) -> u64 {
        self.read().rows.len() as u64
    }

    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }

    /// Up to `most` rows after a credential, in their order.
    pub(crate) fn after(&self, credential: Option<&str>, most: usize) -> Vec<(Credential, Arc<Row>)> {
        self.after_of(Which::Seen, credential, most)
    }

    fn after_of(&self, which: Which, credential: Option<&str>, most: usize) -> Vec<(Credential, Arc<Row>)> {
        let from = match credential {
            Some(credential) => Bound::Excluded(credential),
            None => Bound::Unbounded,
        };
        let held = self.read();
        let range = (from, Bound::Unbounded);
        let rows = held.rows.range::<str, _>(range);
        let taken = |(credential, row): (&Credential, &Arc<Row>)| (credential.clone(), Arc::clone(row));
        let Some(next) = held.next(which) else {
            return rows.take(most).map(taken).collect();
        };
        over(rows, next.range::<str, _>(range))
            .take(most)
            .map(taken)
            .collect()
    }

    /// Calls for each row; the lock is held for a slice at a time.
    pub(crate) fn each(&self, call: impl FnMut(&Credential, &Arc<Row>)) {
        self.each_of(Which::Seen, call);
    }

    pub(crate) fn each_of(&self, which: Which, mut call: impl FnMut(&Credential, &Arc<Row>)) {
        let mut after: Option<Credential> = None;
        loop {
            self.give_way();
            let rows = self.after_of(which, after.as_deref(), ROWS_A_SLICE);
            let Some((last, _)) = rows.last() else { return };
            after = Some(last.clone());
            for (credential, row) in &rows {
                call(credential, row);
            }
        }
    }

    pub(crate) fn fill(&self, rows: Rows) {
        let ended = rows.values().filter(|row| row.told == Told::Ended).count();
        self.ended.store(ended as u64, Ordering::Release);
        self.write().rows = rows;
    }

    /// Puts rows in place, a few at a time; `None` takes one out.
    pub(crate) fn change(&self, changes: &[(Credential, Option<Arc<Row>>)]) {
        changes.chunks(ROWS_A_HOLD).for_each(|changes| self.put(changes));
    }

    /// The same, where readers are to see all of it or nothing.
    pub(crate) fn change_whole(&self, changes: &[(Credential, Option<Arc<Row>>)]) {
        if changes.len() <= ROWS_A_HOLD {
            return self.put(changes);
        }
        // In one step for readers, while the rows themselves follow a few at a time.
        let next: Next = changes.iter().cloned().collect();
        self.write().next = Some(Arc::new(next));
        self.place(changes);
        self.placed();
    }

    /// A large change is about to be made in the kernel: what is to be has it from here on, whole.
    pub(crate) fn announce(&self, next: Arc<Next>, synced: bool) {
        self.write().coming = Some(Coming { next, synced });
    }

    /// It is not to be after all.
    pub(crate) fn withdraw(&self) {
        let gone = self.write().coming.take();
        // Freed after the lock.
        drop(gone);
    }

    /// It is durable and in force: all readers see it in one step. Its rows are still to be placed.
    pub(crate) fn come(&self) {
        let mut held = self.write();
        let Some(Coming { next, synced }) = held.coming.take() else {
            return;
        };
        held.next = Some(next);
        if synced {
            self.unsynced.store(0, Ordering::Release);
        }
    }

    /// Rows of a large change that readers see already.
    pub(crate) fn place(&self, changes: &[(Credential, Option<Arc<Row>>)]) {
        for changes in changes.chunks(ROWS_A_HOLD) {
            self.put(changes);
        }
    }

    /// All of them are in place.
    pub(crate) fn placed(&self) {
        let done = self.write().next.take();
        // Freed after the lock.
        drop(done);
    }

    fn put(&self, changes: &[(Credential, Option<Arc<Row>>)]) {
        let is_ended = |row: &Arc<Row>| i64::from(row.told == Told::Ended);
        let mut ended: i64 = 0;
        let mut held = self.write();
        for (credential, row) in changes {
            ended += row.as_ref().map_or(0, is_ended);
            let before = match row {
                Some(row) => held.rows.insert(credential.clone(), Arc::clone(row)),
                None => held.rows.remove(credential),
            };
            ended -= before.as_ref().map_or(0, is_ended);
        }
        drop(held);
        let add = |count: u64| Some(count.saturating_add_signed(ended));
        // Only the writer changes it, so the update always takes.
        let _ = self.ended.fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
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

    /// Calls for each publisher that has such a credential, until one call says enough. Its shelf's lock is held while it
    /// is called: it has to be quick, and must ask nothing of the shelf's rows.
    pub(crate) fn each_with(&self, credential: &str, mut call: impl FnMut(&Shelf, &Row) -> bool) {
        let sought: &dyn Named = &Sought::of(credential);
        for shelf in self.read().values() {
            if let Some(row) = shelf.read().get(Which::Seen, sought)
                && call(shelf, row)
            {
                return;
            }
        }
    }

    /// The same content with its list of services shared.
    pub(crate) fn share(&self, content: &mut Content) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.share(content);
    }

    /// Lists that rows share which are about to be put in place.
    pub(crate) fn learn(&self, names: NamesTable) {
        let mut known = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        known.learn(names);
    }

    /// Everything goes: another store takes its place.
    pub(crate) fn clear(&self) {
        self.shelves
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::model::row::plain as row;

    fn shown(shelf: &Shelf) -> Vec<(String, u64)> {
        let rows = shelf.after(None, usize::MAX).into_iter();
        rows.map(|(credential, row)| (credential.to_string(), row.revision))
            .collect()
    }

    #[test]
    fn large_change_is_seen_whole_before_its_rows_are_in_place() {
        let shelf = Shelf::new("p".into());
        shelf.put(&[
            (Credential::new("p", "a"), Some(row(1))),
            (Credential::new("p", "b"), Some(row(1))),
            (Credential::new("p", "d"), Some(row(1))),
        ]);
        let next = [("b", None), ("c", Some(row(2))), ("d", Some(row(2)))];
        let next = next.map(|(credential, row)| (Credential::new("p", credential), row));
        shelf.write().next = Some(Arc::new(next.into_iter().collect()));
        let expected = [("a", 1), ("c", 2), ("d", 2)].map(|(credential, at)| (credential.to_owned(), at));
        assert_eq!(shown(&shelf), expected);
        assert!(shelf.get("b").is_none() && shelf.get("c").is_some() && shelf.get("a").is_some());
        assert_eq!(&*shelf.after(Some("a"), 1)[0].0, "c");
    }

    #[test]
    fn change_that_is_coming_is_seen_by_who_asks_what_is_to_be_until_it_has_come() {
        let shelf = Shelf::new("p".into());
        shelf.unsynced.store(9, Ordering::Release);
        shelf.put(&[
            (Credential::new("p", "a"), Some(row(1))),
            (Credential::new("p", "b"), Some(row(1))),
        ]);
        let changes = [
            (Credential::new("p", "b"), None),
            (Credential::new("p", "c"), Some(row(2))),
        ];
        let next: Arc<Next> = Arc::new(changes.iter().cloned().collect());
        let to_be = |shelf: &Shelf| {
            let mut names = String::new();
            shelf.each_of(Which::ToBe, |credential, _| names.push_str(credential));
            names
        };
        shelf.announce(Arc::clone(&next), true);
        assert_eq!((shown(&shelf)[1].0.as_str(), to_be(&shelf).as_str()), ("b", "ac"));
        assert!(shelf.get("b").is_some() && shelf.get_of(Which::ToBe, "b").is_none());
        assert_eq!((shelf.facts().unsynced, shelf.facts_to_be().unsynced), (9, 0));
        shelf.withdraw();
        assert_eq!(to_be(&shelf), "ab");
        shelf.announce(next, true);
        shelf.come();
        assert!(shelf.get("b").is_none() && shelf.facts().unsynced == 0);
        shelf.place(&changes);
        shelf.placed();
        assert_eq!((shelf.len(), to_be(&shelf).as_str()), (2, "ac"));
    }

    #[test]
    fn large_change_ends_as_many_small_ones_do() {
        let shelf = Shelf::new("p".into());
        let key = |at: usize| -> Credential { Credential::new("p", &format!("key-{at:04}")) };
        let puts: RowChanges = (0..1_000).map(|at| (key(at), Some(row(1)))).collect();
        shelf.change_whole(&puts);
        let changes: RowChanges = (500..1_500)
            .map(|at| (key(at), (at >= 1_000).then(|| row(2))))
            .collect();
        shelf.change_whole(&changes);
        assert!(shelf.read().next.is_none());
        let rows = shown(&shelf);
        assert_eq!((rows.len(), rows[499].1, rows[500].1), (1_000, 1, 2));
    }
}
