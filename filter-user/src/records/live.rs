//! What is going on now: who passes how much, and who is dropped, between two looks into the kernel's tables.
//!
//! For eyes, not for the log: it ends no interval, writes nothing and keeps one look. The drop accounting's half in force
//! is read while packets add to it; sources are shown as the records show them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use filter_common::records::{Record, Tally};
use filter_common::verdict::{NO_OWNER, NO_SERVICE};

use super::address::{Shown, Veil, show_prefix};
use super::{Naming, RecordsError, now};
use crate::engine::snapshot::CounterValues;
use crate::kernel::records::Accounting;
use crate::kernel::state::{OwnerUse, State};
use crate::policy::model::Policy;

/// An interval that has only begun says little: what it holds is taken as of so long at least.
const SECONDS_MIN: f64 = 0.1;

/// The kernel's tables, for whoever looks.
pub struct Live {
    accounting: Accounting,
    state: State,
    naming: Mutex<Box<dyn Naming>>,
    veil: Veil,
    last: Mutex<Option<Arc<Look>>>,
}

/// The tables at one moment.
pub struct Look {
    at: Instant,
    /// Of the verdicts, as the caller read them.
    pub counters: CounterValues,
    /// Packets and bytes passed, by the owner's number.
    owners: Vec<(u64, u64)>,
    epoch: u64,
    /// Since the epoch's start.
    epoch_seconds: f64,
    sources: HashMap<String, Refused>,
    /// Packets that an owner's limit refused in this epoch.
    limited: HashMap<u32, u64>,
}

/// What a source was refused within an epoch, dropped or observed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Refused {
    pub packets: u64,
    pub bytes: u64,
    pub reasons: BTreeMap<&'static str, u64>,
    /// By their numbers.
    services: BTreeMap<u32, u64>,
}

/// Rates are a second's.
#[derive(Clone, Debug, PartialEq)]
pub struct BusyOwner {
    pub name: String,
    pub used: OwnerUse,
    pub packets: f64,
    pub bytes: f64,
    /// Packets that a limit of its own refused.
    pub refused: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct BusySource {
    pub source: String,
    pub packets: f64,
    pub bytes: f64,
    /// Of the interval so far.
    pub so_far: Refused,
    pub services: BTreeMap<String, u64>,
}

/// The busiest between two looks.
pub struct Busiest {
    /// Between the two.
    pub seconds: f64,
    pub owners: Vec<BusyOwner>,
    pub sources: Vec<BusySource>,
    /// Sources that were refused anything, busy or not.
    pub sources_in_all: usize,
}

impl Look {
    pub fn age(&self) -> Duration {
        self.at.elapsed()
    }

    pub fn seconds_since(&self, before: &Look) -> f64 {
        self.at.duration_since(before.at).as_secs_f64().max(SECONDS_MIN)
    }

    /// Of a count within an epoch: a second's.
    fn rate(&self, before: &Look, now: u64, then: impl FnOnce() -> u64) -> f64 {
        if self.epoch == before.epoch {
            now.saturating_sub(then()) as f64 / self.seconds_since(before)
        } else {
            now as f64 / self.epoch_seconds
        }
    }

    /// The numbers of the owners that passed or were refused most, the busiest first.
    fn owners_since(&self, before: &Look, limit: usize) -> Vec<(u32, [f64; 3])> {
        let seconds = self.seconds_since(before);
        let of = |number: usize| {
            let (packets, bytes) = self.owners[number];
            // A number may have come to another owner meanwhile.
            let (before_packets, before_bytes) = before.owners.get(number).copied().unwrap_or_default();
            let rate = |now: u64, then: u64| now.checked_sub(then).unwrap_or(now) as f64 / seconds;
            let number = number as u32;
            let limited = self.limited.get(&number).copied().unwrap_or(0);
            let refused = self.rate(before, limited, || {
                before.limited.get(&number).copied().unwrap_or(0)
            });
            (
                number,
                [rate(packets, before_packets), rate(bytes, before_bytes), refused],
            )
        };
        let mut busy: Vec<(u32, [f64; 3])> = (0..self.owners.len())
            .map(of)
            .filter(|(_, [packets, _, refused])| *packets > 0.0 || *refused > 0.0)
            .collect();
        let weight = |(_, [packets, _, refused]): &(u32, [f64; 3])| packets + refused;
        busy.sort_by(|one, other| weight(other).total_cmp(&weight(one)).then(one.0.cmp(&other.0)));
        busy.truncate(limit);
        busy
    }

    fn sources_since(&self, before: &Look, limit: usize) -> Vec<BusySource> {
        let none = Refused::default();
        let of = |(source, so_far): (&String, &Refused)| {
            let then = before.sources.get(source).unwrap_or(&none);
            BusySource {
                source: source.clone(),
                packets: self.rate(before, so_far.packets, || then.packets),
                bytes: self.rate(before, so_far.bytes, || then.bytes),
                so_far: so_far.clone(),
                services: BTreeMap::new(),
            }
        };
        let mut busy: Vec<BusySource> = self.sources.iter().map(of).collect();
        busy.sort_by(|one, other| {
            let packets = other.packets.total_cmp(&one.packets);
            let so_far = other.so_far.packets.cmp(&one.so_far.packets);
            packets.then(so_far).then_with(|| one.source.cmp(&other.source))
        });
        busy.truncate(limit);
        busy
    }
}

impl Live {
    pub fn new(
        policy: &Policy,
        accounting: Accounting,
        state: State,
        naming: Box<dyn Naming>,
    ) -> Result<Self, RecordsError> {
        Ok(Self {
            accounting,
            state,
            naming: Mutex::new(naming),
            veil: Veil::of(policy.records.addresses, &policy.daemon.state)?,
            last: Mutex::default(),
        })
    }

    /// The last look that anybody took.
    pub fn last(&self) -> Option<Arc<Look>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks, and keeps it for the next; reads all owners and half of the drop accounting's lines.
    pub fn look(&self, counters: CounterValues) -> Arc<Look> {
        let owner = |number| {
            self.state
                .owner(number)
                .map_or((0, 0), |used| (used.packets, used.bytes))
        };
        let (epoch, started, records) = self.accounting.so_far();
        let mut look = Look {
            at: Instant::now(),
            counters,
            owners: (0..self.state.owners_max()).map(owner).collect(),
            epoch,
            epoch_seconds: (now().saturating_sub(started) as f64 / 1e9).max(SECONDS_MIN),
            sources: HashMap::new(),
            limited: HashMap::new(),
        };
        for record in &records {
            look.add(record, &self.veil);
        }
        let look = Arc::new(look);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&look));
        look
    }

    /// The busiest since the look before, at most so many of each.
    pub fn busiest(&self, now: &Look, before: &Look, limit: usize) -> Busiest {
        let naming = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sources = now.sources_since(before, limit);
        for source in &mut sources {
            let services = source.so_far.services.iter();
            let named = services.filter_map(|(number, packets)| Some((naming.service(*number)?, *packets)));
            source.services = named.collect();
        }
        let owners = now.owners_since(before, limit);
        let mut names = naming.owners(&owners.iter().map(|(number, _)| *number).collect::<HashSet<u32>>());
        let owners = owners
            .into_iter()
            .filter_map(|(number, [packets, bytes, refused])| {
                Some(BusyOwner {
                    name: names.remove(&number)?,
                    used: self.state.owner(number)?,
                    packets,
                    bytes,
                    refused,
                })
            });
        Busiest {
            seconds: now.seconds_since(before),
            owners: owners.collect(),
            sources,
            sources_in_all: now.sources.len(),
        }
    }
}

impl Look {
    fn add(&mut self, record: &Record, veil: &Veil) {
        let (shown, reason, service, tally): (Option<Shown>, _, u32, &Tally) = match record {
            Record::Exact { key, tally, .. } => {
                if key.owner != NO_OWNER {
                    *self.limited.entry(key.owner).or_default() += tally.packets;
                }
                let shown = key.family.map(|family| veil.show(key.source, family));
                (shown, key.reason, key.service, tally)
            }
            Record::Overflow {
                prefix,
                reason,
                tally,
                ..
            } => {
                let shown = prefix.map(|(address, family)| show_prefix(address, family));
                (shown, *reason, NO_SERVICE, tally)
            }
        };
        let name = shown.and_then(|shown| shown.address.or(shown.ip.map(|ip| ip.to_string())));
        let refused = self
            .sources
            .entry(name.unwrap_or_else(|| "unknown".to_owned()))
            .or_default();
        refused.packets += tally.packets;
        refused.bytes += tally.bytes;
        *refused.reasons.entry(reason.name()).or_default() += tally.packets;
        if service != NO_SERVICE {
            *refused.services.entry(service).or_default() += tally.packets;
        }
    }
}

#[cfg(test)]
mod tests {
    use filter_common::parse::{Address, Family};
    use filter_common::records::{Ports, RecordKey};
    use filter_common::verdict::{Reason, Verdict};

    use super::*;

    fn look(at: Instant, epoch: u64, owners: &[(u64, u64)], records: &[Record]) -> Look {
        let mut look = Look {
            at,
            counters: CounterValues::default(),
            owners: owners.to_vec(),
            epoch,
            epoch_seconds: 0.5,
            sources: HashMap::new(),
            limited: HashMap::new(),
        };
        for record in records {
            look.add(record, &Veil::Full);
        }
        look
    }

    fn dropped(host: u8, packets: u64, reason: Reason, owner: u32) -> Record {
        Record::Exact {
            key: RecordKey {
                source: Address::of_v4(0x0a00_0000 + u32::from(host)),
                destination: Address::default(),
                family: Some(Family::V4),
                service: 3,
                owner,
                interface: 1,
                destination_port: 443,
                protocol: 6,
                reason,
                verdict: Verdict::Drop,
            },
            tally: Tally {
                packets,
                bytes: 60 * packets,
            },
            ports: Ports::default(),
        }
    }

    #[test]
    fn sources_are_shown_as_the_records_show_them() {
        let mut veiled = look(Instant::now(), 4, &[], &[]);
        for host in [1, 2] {
            veiled.add(&dropped(host, 5, Reason::Denied, NO_OWNER), &Veil::Prefix);
        }
        let overflow = Record::Overflow {
            prefix: Some((Address::of_v4(0x0a42_0000), Family::V4)),
            reason: Reason::Denied,
            verdict: Verdict::Drop,
            tally: Tally {
                packets: 7,
                bytes: 420,
            },
        };
        veiled.add(&overflow, &Veil::Prefix);
        let told: BTreeMap<&str, u64> = veiled
            .sources
            .iter()
            .map(|(name, refused)| (name.as_str(), refused.packets))
            .collect();
        assert_eq!(told, BTreeMap::from([("10.0.0.0/24", 10), ("10.66.0.0/16", 7)]));
    }

    #[test]
    fn rates_are_of_the_time_between_two_looks_and_of_a_new_interval_since_its_start() {
        let start = Instant::now();
        let unlisted = |host, packets| dropped(host, packets, Reason::Unlisted, NO_OWNER);
        let before = look(
            start,
            4,
            &[(0, 0), (100, 6000), (7, 420)],
            &[unlisted(1, 10), unlisted(2, 5)],
        );
        let records = [
            unlisted(1, 14),
            unlisted(2, 25),
            dropped(3, 6, Reason::LimitGrant, 2),
        ];
        let now = look(
            start + Duration::from_secs(2),
            4,
            &[(0, 0), (300, 18000), (7, 420)],
            &records,
        );
        assert_eq!(
            now.owners_since(&before, 9),
            [(1, [100.0, 6000.0, 0.0]), (2, [0.0, 0.0, 3.0])]
        );
        let busy = now.sources_since(&before, 2);
        let told: Vec<_> = busy
            .iter()
            .map(|busy| (busy.source.as_str(), busy.packets))
            .collect();
        assert_eq!(told, [("10.0.0.2", 10.0), ("10.0.0.3", 3.0)]);
        assert_eq!(busy[0].so_far.reasons["unlisted"], 25);
        // Another interval has begun half a second ago: what the one before had says nothing.
        let next = look(start + Duration::from_secs(4), 5, &[], &[unlisted(1, 3)]);
        assert_eq!(next.sources_since(&now, 2)[0].packets, 6.0);
        assert_eq!(next.owners_since(&now, 2), []);
    }
}
