//! All rows of a store, for an open: one thread reads the pages, another makes of them what is held in memory.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use redb::{ReadTransaction, ReadableTable as _};

use super::StoreError;
use super::tables::{BINDINGS, CHANGES, split_key};
use crate::bindings::clock::Now;
use crate::bindings::model::content::NamesTable;
use crate::bindings::model::lease::LastWrite;
use crate::bindings::model::owned::{Credential, Named as _, OfPublisher, Sought};
use crate::bindings::model::row::{Row, StoredRow};
use crate::bindings::requests::Event;

/// A publisher's, as memory holds them.
type Held = BTreeMap<Credential, Arc<Row>>;

/// By publisher, then by credential.
pub(crate) type Rows = BTreeMap<Arc<str>, Held>;

/// What must be folded, by publisher: changes after the last fold, and leases of another boot. One may stand there twice.
pub(crate) type Dirty = BTreeMap<Arc<str>, Vec<Credential>>;

/// Entries that are handed on at once, and how many such slices may wait.
const SLICE: usize = 2_048;
const SLICES_AHEAD: usize = 8;
/// Of an entry, as a rule.
const BYTES_USUAL: usize = 192;

/// All that stands in the table of bindings, with the changes behind the last fold.
#[derive(Default)]
pub(super) struct Found {
    pub(super) rows: Rows,
    pub(super) dirty: Dirty,
    pub(super) names: NamesTable,
}

pub(super) fn read(
    read: &ReadTransaction,
    folded: u64,
    now: Now,
    last: LastWrite,
) -> Result<Found, StoreError> {
    std::thread::scope(|scope| {
        let (sender, slices) = sync_channel(SLICES_AHEAD);
        let making = scope.spawn(move || Maker::new(now, last).all(&slices));
        let sent = send(read, folded, &sender);
        drop(sender);
        let made = making.join().unwrap_or_else(|panic| resume_unwind(panic));
        // Where the other thread has hung up, it says why.
        made.and_then(|made| sent.map(|()| made))
    })
}

/// Entries as they stand in the store.
enum Slice {
    Rows(Entries),
    Changes(Entries),
}

#[derive(Default)]
struct Entries {
    bytes: Vec<u8>,
    /// Where each key and each value ends.
    ends: Vec<(usize, usize)>,
}

impl Entries {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        if self.ends.is_empty() {
            self.bytes.reserve(SLICE * BYTES_USUAL);
            self.ends.reserve(SLICE);
        }
        self.bytes.extend_from_slice(key);
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.ends.push((middle, self.bytes.len()));
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |(middle, end)| {
            let entry = (&self.bytes[start..*middle], &self.bytes[*middle..*end]);
            start = *end;
            entry
        })
    }
}

/// Ends early where nobody takes them any more.
fn send(read: &ReadTransaction, folded: u64, slices: &SyncSender<Slice>) -> Result<(), StoreError> {
    let mut entries = Entries::default();
    for entry in read.open_table(BINDINGS)?.iter()? {
        let (key, value) = entry?;
        entries.add(key.value().as_bytes(), value.value());
        if entries.ends.len() == SLICE && slices.send(Slice::Rows(std::mem::take(&mut entries))).is_err() {
            return Ok(());
        }
    }
    if slices.send(Slice::Rows(std::mem::take(&mut entries))).is_err() {
        return Ok(());
    }
    for entry in read.open_table(CHANGES)?.range(folded.saturating_add(1)..)? {
        let (_, value) = entry?;
        entries.add(&[], value.value());
        if entries.ends.len() == SLICE && slices.send(Slice::Changes(std::mem::take(&mut entries))).is_err() {
            return Ok(());
        }
    }
    // One that has hung up says why.
    let _ = slices.send(Slice::Changes(entries));
    Ok(())
}

/// In the order of credentials.
type Sorted = Vec<(Credential, Arc<Row>)>;

/// In the order of credentials; `None` took one out.
type Changed = Vec<(Credential, Option<Arc<Row>>)>;

/// What was changed last of each, and how it stands in the store.
type Unread<'e> = Vec<(Sought<'e>, &'e [u8])>;

struct Maker {
    now: Now,
    last: LastWrite,
    names: NamesTable,
    rows: BTreeMap<Arc<str>, Sorted>,
    dirty: Dirty,
}

impl Maker {
    fn new(now: Now, last: LastWrite) -> Maker {
        Maker {
            now,
            last,
            names: NamesTable::default(),
            rows: BTreeMap::new(),
            dirty: Dirty::new(),
        }
    }

    fn all(mut self, slices: &Receiver<Slice>) -> Result<Found, StoreError> {
        let mut publisher = OfPublisher::new("");
        let mut rows = Sorted::new();
        let mut changes = Vec::new();
        for slice in slices {
            match slice {
                Slice::Rows(entries) => {
                    for (key, value) in entries.iter() {
                        self.row(&mut publisher, &mut rows, text(key)?, value)?;
                    }
                }
                Slice::Changes(entries) => changes.push(entries),
            }
        }
        self.rows.insert(publisher.name(), rows);
        self.change(&changes)?;
        self.rows.retain(|_, rows| !rows.is_empty());
        let rows = self.rows.into_iter();
        Ok(Found {
            // Of what is in order already, a map is made whole, with no place left free in it.
            rows: rows
                .map(|(publisher, rows)| (publisher, Held::from_iter(rows)))
                .collect(),
            dirty: self.dirty,
            names: self.names,
        })
    }

    /// A publisher's rows come one after the other.
    fn row(
        &mut self,
        at: &mut OfPublisher,
        rows: &mut Sorted,
        key: &str,
        value: &[u8],
    ) -> Result<(), StoreError> {
        let (publisher, credential) = split_key(key);
        if *at.name() != *publisher {
            let before = std::mem::replace(at, OfPublisher::new(publisher));
            self.rows.insert(before.name(), std::mem::take(rows));
        }
        let stored: StoredRow = postcard::from_bytes(value)?;
        let credential = at.credential(credential);
        if stored.is_of_another_boot(self.now.boot_id) {
            self.dirty.entry(at.name()).or_default().push(credential.clone());
        }
        rows.push((credential, self.made(stored)));
        Ok(())
    }

    fn made(&mut self, stored: StoredRow) -> Arc<Row> {
        let mut row = stored.in_this_boot(self.now, self.last);
        self.names.share(&mut row.content);
        Arc::new(row)
    }

    /// Makes the changes in the rows. They are put in order first, and made after that, so that what is walked over together
    /// stands together in memory.
    fn change(&mut self, changes: &[Entries]) -> Result<(), StoreError> {
        let mut unread: BTreeMap<&str, Unread<'_>> = BTreeMap::new();
        for (_, value) in changes.iter().flat_map(Entries::iter) {
            let ((_, _, publisher, credential), row): ((i64, Event, &str, &str), _) =
                postcard::take_from_bytes(value)?;
            let of_publisher = unread.entry(publisher).or_default();
            of_publisher.push((Sought::of(credential), row));
        }
        for (publisher, unread) in unread {
            let changed = self.read_in_halves(publisher, &last_of_each(unread))?;
            let publisher: Arc<str> = publisher.into();
            let dirty = changed.iter().map(|(credential, _)| credential.clone());
            self.dirty
                .entry(Arc::clone(&publisher))
                .or_default()
                .extend(dirty);
            let before = self.rows.remove(&publisher).unwrap_or_default();
            self.rows.insert(publisher, merged(before, changed));
        }
        Ok(())
    }

    /// The first half beside the second.
    fn read_in_halves(&mut self, publisher: &str, unread: &Unread<'_>) -> Result<Changed, StoreError> {
        let (first, second) = unread.split_at(unread.len() / 2);
        let (now, last) = (self.now, self.last);
        std::thread::scope(|scope| {
            let reading = scope.spawn(move || {
                let mut beside = Maker::new(now, last);
                let read = beside.read(publisher, first)?;
                Ok::<_, StoreError>((read, beside.names))
            });
            let second = self.read(publisher, second);
            let (mut changed, names) = reading.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            self.names.learn(names);
            changed.extend(second?);
            Ok(changed)
        })
    }

    fn read(&mut self, publisher: &str, unread: &[(Sought<'_>, &[u8])]) -> Result<Changed, StoreError> {
        let mut publisher = OfPublisher::new(publisher);
        let read = unread.iter().map(|(credential, row)| {
            let stored: Option<StoredRow> = postcard::from_bytes(row)?;
            let row = stored.map(|stored| self.made(stored));
            Ok((publisher.credential(credential.text()), row))
        });
        read.collect()
    }
}

/// redb has made a text of it before.
fn text(key: &[u8]) -> Result<&str, StoreError> {
    std::str::from_utf8(key).map_err(|_| StoreError::Entry(postcard::Error::DeserializeBadUtf8))
}

/// In the order of credentials.
fn last_of_each(mut changes: Unread<'_>) -> Unread<'_> {
    changes.sort_by(|(one, _), (other, _)| one.cmp(other));
    changes.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            // The later one goes, and what it says stays.
            earlier.1 = later.1;
        }
        same
    });
    changes
}

/// Rows with changes made.
fn merged(rows: Sorted, changes: Changed) -> Sorted {
    let mut all = Sorted::with_capacity(rows.len() + changes.len());
    let mut rows = rows.into_iter().peekable();
    for (credential, row) in changes {
        all.extend(std::iter::from_fn(|| {
            rows.next_if(|(other, _)| *other < credential)
        }));
        drop(rows.next_if(|(other, _)| *other == credential));
        all.extend(row.map(|row| (credential, row)));
    }
    all.extend(rows);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::model::row::plain as row;

    #[test]
    fn entries_are_handed_on_as_they_stood() {
        let mut entries = Entries::default();
        let all: [(&[u8], &[u8]); 3] = [(b"a/1", b"one"), (b"", b"two"), (b"a/3", b"")];
        all.iter().for_each(|(key, value)| entries.add(key, value));
        assert_eq!(entries.iter().collect::<Vec<_>>(), all);
    }

    #[test]
    fn last_change_of_each_counts_in_the_order_of_credentials() {
        let changes = [
            ("b", "1"),
            ("a", "2"),
            ("b", "3"),
            ("c", "4"),
            ("a", "5"),
            ("b", "6"),
        ];
        let changes = changes.map(|(name, value)| (Sought::of(name), value.as_bytes()));
        let last = last_of_each(changes.into());
        let last: Vec<_> = last.iter().map(|(name, value)| (name.text(), *value)).collect();
        assert_eq!(last, [("a", &b"5"[..]), ("b", b"6"), ("c", b"4")]);
    }

    #[test]
    fn changes_are_made_before_among_and_behind_the_rows() {
        let named = |name: &str, revision| (Credential::new("p", name), row(revision));
        let rows = vec![named("b", 1), named("d", 1), named("f", 1)];
        let changes = [
            ("a", Some(2)),
            ("b", None),
            ("c", None),
            ("d", Some(2)),
            ("e", Some(2)),
            ("g", Some(2)),
        ];
        let changes = changes.map(|(name, revision)| (Credential::new("p", name), revision.map(row)));
        let all = merged(rows, changes.into());
        let all: Vec<_> = all.iter().map(|(name, row)| (&**name, row.revision)).collect();
        assert_eq!(all, [("a", 2), ("d", 2), ("e", 2), ("f", 1), ("g", 2)]);
    }
}
