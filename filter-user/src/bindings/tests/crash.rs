//! Power lost at any moment: what was synced is there, what was not is there in any part, as disks do it.

use std::collections::BTreeMap;
use std::io::Error;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use redb::StorageBackend;

use super::fixture::START;
use crate::bindings::audit::Known;
use crate::bindings::model::content::{Content, Services};
use crate::bindings::model::row::{Row, Told};
use crate::bindings::requests::Event;
use crate::bindings::store::{Batch, Opened, StoredChange, key_of, open_backend};
use crate::cases::cases;

/// A disk in memory that remembers every write.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Recorded>>);

#[derive(Debug, Default)]
struct Recorded {
    bytes: Vec<u8>,
    log: Vec<Action>,
}

#[derive(Clone, Debug)]
enum Action {
    Write(usize, Vec<u8>),
    Length(usize),
    Sync,
}

impl Action {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Action::Write(at, data) => {
                let end = at + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at..end].copy_from_slice(data);
            }
            Action::Length(length) => bytes.resize(*length, 0),
            Action::Sync => {}
        }
    }
}

impl Disk {
    fn act(&self, action: Action) {
        let mut recorded = self.0.lock().unwrap();
        action.apply(&mut recorded.bytes);
        recorded.log.push(action);
    }

    fn actions(&self) -> usize {
        self.0.lock().unwrap().log.len()
    }

    /// What is on the disk after a crash past so many actions: all before the last sync, and of the rest the writes
    /// that `kept` keeps.
    fn crashed(&self, actions: usize, kept: u64) -> Disk {
        let recorded = self.0.lock().unwrap();
        let log = &recorded.log[..actions];
        let synced = log
            .iter()
            .rposition(|action| matches!(action, Action::Sync))
            .map_or(0, |at| at + 1);
        let mut bytes = Vec::new();
        for (at, action) in log.iter().enumerate() {
            // Lengths are kept: a file that grew has zeros there, one that shrank has lost its end.
            let is_length = matches!(action, Action::Length(_));
            if at < synced || is_length || kept >> (at % 64) & 1 == 1 {
                action.apply(&mut bytes);
            }
        }
        Disk(Arc::new(Mutex::new(Recorded {
            bytes,
            log: Vec::new(),
        })))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, Error> {
        Ok(self.0.lock().unwrap().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let recorded = self.0.lock().unwrap();
        let at = usize::try_from(offset).unwrap();
        let bytes = recorded.bytes.get(at..at + out.len());
        let bytes = bytes.ok_or_else(|| Error::from(std::io::ErrorKind::UnexpectedEof))?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<(), Error> {
        self.act(Action::Length(usize::try_from(length).unwrap()));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), Error> {
        self.act(Action::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.act(Action::Write(usize::try_from(offset).unwrap(), data.to_vec()));
        Ok(())
    }
}

fn row(revision: u64, size: usize) -> Row {
    let content = Content {
        sources: vec!["192.0.2.1/32".parse().unwrap(); size].into(),
        services: Services::All,
        source_ports: crate::bindings::model::content::Ports::default(),
        limit: None,
        labels: None,
    };
    Row {
        content,
        row_version: Some(revision),
        created_ms: 0,
        end: None,
        revision,
        told: Told::Active,
    }
}

type Rows = BTreeMap<String, Row>;

/// A group of writes: key, and how much is put there, or nothing.
type Writes = Vec<(u8, Option<usize>)>;

/// The writes as one group after a revision.
fn batch(revision: u64, writes: &Writes, rows: &mut Rows) -> Batch {
    let mut batch = Batch {
        revision,
        ..Batch::default()
    };
    for (key, size) in writes {
        batch.revision += 1;
        let credential = format!("key-{key}");
        let row = size.map(|size| row(batch.revision, size));
        let change = StoredChange {
            wall_ms: START.wall_ms,
            event: if row.is_some() { Event::Put } else { Event::Delete },
            publisher: "p".to_owned(),
            credential: credential.clone(),
            row: row.as_ref().map(|row| row.stored(START.boot_id)),
        };
        batch.changes.push((batch.revision, change));
        match row {
            Some(row) => rows.insert(credential, row),
            None => {
                let tombstone = Some((batch.revision, START.wall_ms));
                batch.tombstones.push((key_of("p", &credential), tombstone));
                rows.remove(&credential)
            }
        };
    }
    batch
}

/// Folds some keys as they are, or all of them and says so.
fn fold(opened: &Opened, rows: &Rows, keys: std::ops::Range<u8>, folded: Option<u64>) {
    let row = |key| {
        let credential = format!("key-{key}");
        let row = rows.get(&credential).cloned().map(Arc::new);
        (key_of("p", &credential), row)
    };
    let rows: BTreeMap<_, _> = keys.map(row).collect();
    let rows: Vec<_> = rows.into_iter().collect();
    opened.store.fold(&rows, folded, &Known::default()).unwrap();
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn whatever_a_crash_keeps_the_store_holds_what_was_acknowledged_and_no_half_of_the_rest(
        groups in prop::collection::vec(prop::collection::vec((0u8..40, prop::option::of(1usize..300)), 1..12), 1..8),
        crashes in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 12),
    ) {
        let disk = Disk::default();
        let opened = open_backend(disk.clone(), START).unwrap();
        let mut rows = Rows::new();
        // After each acknowledgement: how far the disk was, and what is then promised at which revision.
        let mut promised = vec![(disk.actions(), rows.clone(), 0)];
        let mut revision = 0;
        for (at, writes) in groups.iter().enumerate() {
            let batch = batch(revision, writes, &mut rows);
            revision = batch.revision;
            opened.store.apply(&batch, START).unwrap();
            promised.push((disk.actions(), rows.clone(), revision));
            match at % 3 {
                1 => fold(&opened, &rows, 0..20, None),
                2 => fold(&opened, &rows, 0..40, Some(revision)),
                _ => {}
            }
        }
        let begin = promised[0].0;
        for (at, kept) in crashes {
            let crash = begin + at.index(disk.actions() - begin + 1);
            let acknowledged = promised.iter().rposition(|(actions, _, _)| *actions <= crash).unwrap();
            let after = open_backend(disk.crashed(crash, kept), START).unwrap();
            let found = after.rows.into_values().flatten();
            let found: Rows = found.map(|(credential, row)| (credential.to_string(), (*row).clone())).collect();
            // The group that was under way may be there: whole.
            let next = promised.get(acknowledged + 1);
            let whole = match next.is_some_and(|(_, _, revision)| *revision == after.revision) {
                true => &promised[acknowledged + 1],
                false => &promised[acknowledged],
            };
            prop_assert_eq!(after.revision, whole.2);
            prop_assert_eq!(&found, &whole.1);
            let changes = after.store.changes(0, u64::MAX, 1_000).unwrap();
            prop_assert_eq!(changes.len() as u64, after.revision);
            // And it takes writes again.
            let next = batch(after.revision, &vec![(1, Some(1))], &mut Rows::new());
            after.store.apply(&next, START).unwrap();
        }
    }

    #[test]
    fn undone_group_leaves_the_store_as_it_was(
        first in prop::collection::vec((0u8..40, prop::option::of(1usize..300)), 1..12),
    ) {
        let disk = Disk::default();
        let opened = open_backend(disk.clone(), START).unwrap();
        let mut rows = Rows::new();
        let batch = batch(0, &first, &mut rows);
        opened.store.apply(&batch, START).unwrap();
        let undo = Batch {
            tombstones: batch.tombstones.iter().map(|(key, _)| (key.clone(), None)).collect(),
            undone: Some(1..=batch.revision),
            revision: batch.revision,
            ..Batch::default()
        };
        opened.store.apply(&undo, START).unwrap();
        prop_assert_eq!(opened.store.counts().unwrap(), (0, 0, 0));
        drop(opened);
        let after = open_backend(disk.crashed(disk.actions(), 0), START).unwrap();
        prop_assert_eq!(after.rows.values().flatten().count(), 0);
    }
}
