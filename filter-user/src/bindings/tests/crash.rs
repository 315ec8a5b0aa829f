//! Power lost at any moment: what was synced is there, what was not is there in any part, as disks do it.

use std::collections::BTreeMap;
use std::io::Error;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use redb::StorageBackend;

use super::fixture::START;
use crate::bindings::model::content::{Content, Services};
use crate::bindings::model::row::{Row, Told};
use crate::bindings::requests::Event;
use crate::bindings::store::{Batch, StoredChange, key_of, open_backend};

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
        source_ports: Box::default(),
        limit: None,
        labels: None,
    };
    Row {
        etag: content.etag(),
        content: Arc::new(content),
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

fn batch(revision: u64, writes: &Writes, rows: &mut Rows) -> Batch {
    let mut batch = Batch {
        revision,
        ..Batch::default()
    };
    let mut last: BTreeMap<String, Option<Row>> = BTreeMap::new();
    for (key, size) in writes {
        let credential = format!("key-{key}");
        last.insert(credential, size.map(|size| row(revision, size)));
    }
    for (credential, row) in last {
        match &row {
            Some(row) => rows.insert(credential.clone(), row.clone()),
            None => rows.remove(&credential),
        };
        batch
            .rows
            .push((key_of("p", &credential), row.clone().map(Arc::new)));
        if row.is_none() {
            let tombstone = Some((revision, START.wall_ms));
            batch.tombstones.push((key_of("p", &credential), tombstone));
        }
    }
    let change = StoredChange {
        wall_ms: START.wall_ms,
        event: Event::Put,
        publisher: "p".to_owned(),
        credential: "key".to_owned(),
        row: None,
    };
    batch.changes.push((revision, change));
    batch
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_crash_keeps_the_store_holds_what_was_acknowledged_and_no_half_of_the_rest(
        groups in prop::collection::vec(prop::collection::vec((0u8..40, prop::option::of(1usize..300)), 1..12), 1..8),
        crashes in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 12),
    ) {
        let disk = Disk::default();
        let opened = open_backend(disk.clone(), START).unwrap();
        let mut rows = Rows::new();
        // After each acknowledgement: how far the disk was, and what is then promised.
        let mut promised = vec![(disk.actions(), rows.clone())];
        for (at, writes) in groups.iter().enumerate() {
            let batch = batch(at as u64 + 1, writes, &mut rows);
            opened.store.apply(&batch, START).unwrap();
            promised.push((disk.actions(), rows.clone()));
        }
        let begin = promised[0].0;
        for (at, kept) in crashes {
            let crash = begin + at.index(disk.actions() - begin + 1);
            let acknowledged = promised.iter().rposition(|(actions, _)| *actions <= crash).unwrap();
            let after = open_backend(disk.crashed(crash, kept), START).unwrap();
            let found: Rows = after.rows.into_values().flatten().collect();
            let revision = usize::try_from(after.revision).unwrap();
            // The group that was under way may be there: whole.
            prop_assert!(revision == acknowledged || revision == acknowledged + 1, "{revision} of {acknowledged}");
            prop_assert_eq!(&found, &promised[revision].1);
            let changes = after.store.changes(0, u64::MAX, 100).unwrap();
            prop_assert_eq!(changes.len(), revision);
            // And it takes writes again.
            let next = batch(revision as u64 + 1, &vec![(1, Some(1))], &mut Rows::new());
            after.store.apply(&next, START).unwrap();
        }
    }

    #[test]
    fn undone_group_leaves_the_store_as_it_was(
        first in prop::collection::vec((0u8..40, prop::option::of(1usize..300)), 1..12),
    ) {
        let opened = open_backend(Disk::default(), START).unwrap();
        let mut rows = Rows::new();
        let batch = batch(1, &first, &mut rows);
        opened.store.apply(&batch, START).unwrap();
        let undo = Batch {
            rows: batch.rows.iter().map(|(key, _)| (key.clone(), None)).collect(),
            tombstones: batch.tombstones.iter().map(|(key, _)| (key.clone(), None)).collect(),
            undone: Some(1..=1),
            revision: 1,
            ..Batch::default()
        };
        opened.store.apply(&undo, START).unwrap();
        prop_assert_eq!(opened.store.rows().unwrap(), 0);
        prop_assert_eq!(opened.store.counts().unwrap(), (0, 0, 0));
    }
}
