//! The lines of one epoch: records merged, numbered, named and rendered, the same way each time.

use std::collections::{HashMap, HashSet};

use filter_common::parse::Address;
use filter_common::records::{Ports, Record, RecordKey, Tally};
use filter_common::verdict::{NO_OWNER, NO_SERVICE, Verdict};

use super::address::Veil;
use super::document::{Event, Named, beyond, exact};
use super::{Naming, timestamp};
use crate::kernel::records::Epoch;

/// The lines of one epoch, in the order of their numbers.
pub(super) struct Batch {
    pub(super) epoch: u64,
    pub(super) lines: Vec<Line>,
}

pub(super) struct Line {
    pub(super) sequence: u64,
    pub(super) observed: bool,
    pub(super) overflow: bool,
    pub(super) packets: u64,
    /// Packets dropped and observed in all records up to this one.
    pub(super) sums: [u64; 2],
    /// Newline included.
    pub(super) text: String,
}

impl Batch {
    /// Packets dropped and observed.
    pub(super) fn packets(&self) -> [u64; 2] {
        self.lines.iter().fold([0, 0], |mut sums, line| {
            sums[usize::from(line.observed)] += line.packets;
            sums
        })
    }
}

/// Whose records these are.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) instance: String,
    pub(super) boot: String,
}

/// What several lines of the kernel's become one record of: two CPUs' lines of one key, sources of one network.
enum Merged {
    Exact(RecordKey, Tally, Ports),
    Overflow(Record),
}

impl Names {
    pub(super) fn new(instance: &str, boot: &str) -> Self {
        Self {
            instance: instance.to_owned(),
            boot: boot.to_owned(),
        }
    }

    /// The lines of an epoch: the same, in the same order, each time.
    pub(super) fn batch(
        &self,
        epoch: &Epoch,
        records: Vec<Record>,
        veil: &Veil,
        naming: &dyn Naming,
    ) -> Batch {
        let records = merged(records, veil);
        let mut known = Known::new(naming, &records);
        let mut sums = epoch.sums;
        let lines = (epoch.first_sequence..).zip(records).map(|(sequence, record)| {
            let mut line = self.line(epoch, sequence, &record, veil, &mut known);
            sums[usize::from(line.observed)] += line.packets;
            line.sums = sums;
            line
        });
        Batch {
            epoch: epoch.number,
            lines: lines.collect(),
        }
    }

    /// What every id of an epoch begins with.
    pub(super) fn epoch_id(&self, epoch: u64) -> String {
        format!("{}/{}/{epoch}/", self.instance, self.boot)
    }

    fn line(
        &self,
        epoch: &Epoch,
        sequence: u64,
        record: &Merged,
        veil: &Veil,
        known: &mut Known<'_>,
    ) -> Line {
        let (verdict, tally, overflow) = match record {
            Merged::Exact(key, tally, _) => (key.verdict, *tally, false),
            Merged::Overflow(
                Record::Overflow { verdict, tally, .. }
                | Record::Exact {
                    key: RecordKey { verdict, .. },
                    tally,
                    ..
                },
            ) => (*verdict, *tally, true),
        };
        let observed = verdict == Verdict::Observe;
        let event = |reason| Event {
            id: format!("{}{sequence}", self.epoch_id(epoch.number)),
            sequence,
            start: timestamp(epoch.started.min(epoch.ended)),
            end: timestamp(epoch.ended),
            kind: "event",
            category: ["network"],
            r#type: ["connection", if observed { "allowed" } else { "denied" }],
            action: if observed { "observed" } else { "dropped" },
            outcome: "success",
            reason,
        };
        let document = match record {
            Merged::Exact(key, tally, ports) => {
                let (service, owner, interface) = known.of(key);
                exact(
                    epoch,
                    key,
                    *tally,
                    *ports,
                    veil,
                    (service, owner, interface),
                    event(key.reason.name()),
                )
            }
            Merged::Overflow(record) => beyond(epoch, record, event),
        };
        let mut text = serde_json::to_string(&document).expect("texts and numbers always have a JSON form");
        text.push('\n');
        Line {
            sequence,
            observed,
            overflow,
            packets: tally.packets,
            sums: [0, 0],
            text,
        }
    }
}

/// One record a key, in the order of their first lines.
fn merged(records: Vec<Record>, veil: &Veil) -> Vec<Merged> {
    let mut all: Vec<Merged> = Vec::with_capacity(records.len());
    let mut places: HashMap<RecordKey, usize> = HashMap::with_capacity(records.len());
    for record in records {
        let Record::Exact {
            mut key,
            tally,
            ports,
        } = record
        else {
            all.push(Merged::Overflow(record));
            continue;
        };
        match key.family {
            Some(family) => key.source = veil.network(key.source, family),
            None => (key.source, key.destination) = (Address::default(), Address::default()),
        }
        match places.get(&key).map(|at| &mut all[*at]) {
            Some(Merged::Exact(_, sum, seen)) => {
                sum.packets += tally.packets;
                sum.bytes += tally.bytes;
                *seen = seen.with(ports);
            }
            _ => {
                places.insert(key, all.len());
                all.push(Merged::Exact(key, tally, ports));
            }
        }
    }
    all
}

/// Names asked for once a batch.
struct Known<'a> {
    naming: &'a dyn Naming,
    services: HashMap<u32, Option<String>>,
    owners: HashMap<u32, String>,
    interfaces: HashMap<u32, Option<String>>,
}

impl<'a> Known<'a> {
    fn new(naming: &'a dyn Naming, records: &[Merged]) -> Self {
        let owner = |record: &Merged| match record {
            Merged::Exact(key, ..) => Some(key.owner).filter(|number| *number != NO_OWNER),
            Merged::Overflow(_) => None,
        };
        let owners: HashSet<u32> = records.iter().filter_map(owner).collect();
        Self {
            naming,
            services: HashMap::new(),
            owners: match owners.is_empty() {
                true => HashMap::new(),
                false => naming.owners(&owners),
            },
            interfaces: HashMap::new(),
        }
    }

    fn of(&mut self, key: &RecordKey) -> Named<'_> {
        let naming = self.naming;
        let of = |number: u32, none: u32, ask: &dyn Fn(u32) -> Option<String>| {
            (number != none).then(|| ask(number)).flatten()
        };
        let service = self
            .services
            .entry(key.service)
            .or_insert_with(|| of(key.service, NO_SERVICE, &|number| naming.service(number)));
        let interface = self
            .interfaces
            .entry(key.interface)
            .or_insert_with(|| of(key.interface, 0, &|number| naming.interface(number)));
        let owner = self.owners.get(&key.owner).map(String::as_str);
        (service.as_deref(), owner, interface.as_deref())
    }
}
