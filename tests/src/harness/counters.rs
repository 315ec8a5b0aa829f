//! The verdicts' counters as another program reads them from the maps: bpftool, summed here over the CPUs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use filter_common::abi::names;
use filter_common::account;
use filter_common::verdict::{NO_SERVICE, Reason, Verdict};
use serde::Deserialize;

use super::bpffs;
use super::site::Site;

/// What a counter counts; the service is empty where none decided.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    pub service: String,
    pub verdict: Verdict,
    pub reason: Reason,
}

impl Label {
    pub fn new(service: &str, verdict: Verdict, reason: Reason) -> Self {
        Self {
            service: service.into(),
            verdict,
            reason,
        }
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = if self.service.is_empty() {
            "-"
        } else {
            &self.service
        };
        write!(
            formatter,
            "{service} {} {}",
            self.verdict.name(),
            self.reason.name()
        )
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Tally {
    pub packets: u64,
    pub bytes: u64,
}

/// The counters that are not zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub BTreeMap<Label, Tally>);

impl Counts {
    pub fn packets(&self, service: &str, verdict: Verdict, reason: Reason) -> u64 {
        self.0
            .get(&Label::new(service, verdict, reason))
            .map_or(0, |tally| tally.packets)
    }

    /// Counts packets, for what is expected.
    pub fn add(&mut self, label: Label, packets: u64, bytes: u64) {
        if packets > 0 {
            let tally = self.0.entry(label).or_default();
            tally.packets += packets;
            tally.bytes += bytes;
        }
    }

    /// All packets that a service has judged, or no service.
    pub fn of(&self, service: &str) -> u64 {
        let of = self.0.iter().filter(|(label, _)| label.service == service);
        of.map(|(_, tally)| tally.packets).sum()
    }

    pub fn total(&self) -> u64 {
        self.0.values().map(|tally| tally.packets).sum()
    }

    /// What differs: label, here, expected.
    pub fn against(&self, expected: &Counts) -> Vec<(Label, Tally, Tally)> {
        let labels: BTreeSet<&Label> = self.0.keys().chain(expected.0.keys()).collect();
        let of = |counts: &Counts, label| counts.0.get(label).copied().unwrap_or_default();
        let both = labels
            .into_iter()
            .map(|label| (label.clone(), of(self, label), of(expected, label)));
        both.filter(|(_, here, there)| here != there).collect()
    }

    /// The labels whose counter is lower here than there.
    pub fn fallen_since(&self, earlier: &Counts) -> Vec<Label> {
        let now = |label: &Label| self.0.get(label).copied().unwrap_or_default();
        let fell = |(label, then): (&Label, &Tally)| {
            let tally = now(label);
            (tally.packets < then.packets || tally.bytes < then.bytes).then(|| label.clone())
        };
        earlier.0.iter().filter_map(fell).collect()
    }
}

#[derive(Deserialize)]
struct Entry<V> {
    formatted: V,
}

#[derive(Deserialize)]
struct PerCpu<V> {
    key: u32,
    values: Vec<OfCpu<V>>,
}

#[derive(Deserialize)]
struct OfCpu<V> {
    value: V,
}

#[derive(Deserialize)]
struct Single<V> {
    key: u32,
    value: V,
}

#[derive(Deserialize)]
struct Named {
    name: Vec<u8>,
}

impl Site {
    /// All counters of the instance `main`.
    pub fn counters(&self) -> Counts {
        let maps = self.pins("main").join("maps");
        let labels = labels(&service_names(self));
        let entries: Vec<Entry<PerCpu<Tally>>> = bpffs::dump(&maps.join(names::COUNTERS));
        let mut counts = Counts::default();
        for Entry { formatted } in entries {
            let sum = formatted.values.iter().fold(Tally::default(), |sum, of| Tally {
                packets: sum.packets + of.value.packets,
                bytes: sum.bytes + of.value.bytes,
            });
            if sum == Tally::default() {
                continue;
            }
            let label = labels.get(&formatted.key);
            let label =
                label.unwrap_or_else(|| panic!("counter {} belongs to nothing: {sum:?}", formatted.key));
            counts.add(label.clone(), sum.packets, sum.bytes);
        }
        counts
    }
}

/// The numbers of the services, as the kernel's own table names them.
fn service_names(site: &Site) -> Vec<(u32, String)> {
    let path = site.pins("main").join("maps").join(names::SERVICE_STATE);
    let entries: Vec<Entry<Single<Named>>> = bpffs::dump(&path);
    let names = entries.into_iter().map(|Entry { formatted }| {
        let name = formatted.value.name.split(|byte| *byte == 0).next();
        let name = String::from_utf8(name.unwrap_or_default().to_vec()).expect("names are ASCII");
        (formatted.key, name)
    });
    names.filter(|(_, name)| !name.is_empty()).collect()
}

fn labels(services: &[(u32, String)]) -> BTreeMap<u32, Label> {
    let mut labels = BTreeMap::new();
    for (verdict, reason) in account::general_reasons() {
        labels.insert(
            account::index(verdict, reason, NO_SERVICE),
            Label::new("", verdict, reason),
        );
    }
    for (number, name) in services {
        for (verdict, reason) in account::service_reasons() {
            labels.insert(
                account::index(verdict, reason, *number),
                Label::new(name, verdict, reason),
            );
        }
    }
    labels
}
