//! All figures of a run, as they are written to JSON: what the tables, the plots and docs/PERFORMANCE.md are made of.

use serde::{Deserialize, Serialize};

use crate::live::peers::Peer;
use crate::scenario::{Feature, Owners};
use crate::selection::Kind;

/// A whole run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) machine: Machine,
    pub(crate) rounds: usize,
    pub(crate) packets: u32,
    pub(crate) quick: bool,
    pub(crate) judged: Vec<Judged>,
    pub(crate) features: Vec<Featured>,
    /// One source with so many owners, all exhausted but the last.
    pub(crate) exhausted: Vec<Exhausted>,
    pub(crate) live: Vec<Live>,
    pub(crate) bulk: Vec<Bulk>,
    pub(crate) single: Vec<Single>,
    #[serde(default)]
    pub(crate) beside: Vec<Beside>,
    pub(crate) daemon: Vec<DaemonMemory>,
    #[serde(default)]
    pub(crate) bindings: Vec<crate::bindings::Bindings>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) processor: String,
    pub(crate) cpus: usize,
    /// The load average over a minute, when the run began and when it ended: ours alone adds 1.
    pub(crate) load_before: f64,
    pub(crate) load_after: f64,
    /// Of what the processor is spared or pays in kernel calls, as the kernel says it.
    pub(crate) mitigations: Vec<String>,
    pub(crate) date: String,
    pub(crate) commit: String,
}

/// CPU time in nanoseconds, over the rounds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |at: usize| values.get(at).copied().unwrap_or(f64::NAN);
        Self {
            median: at(values.len() / 2),
            low: at(0),
            high: at(values.len().saturating_sub(1)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Traffic {
    Hit,
    /// From so many addresses that records of drops have no room for a line each: a flood.
    Stranger,
    /// From as many as each have a record of their own.
    FewStrangers,
}

impl Traffic {
    /// Where records do not matter.
    pub(crate) const BOTH: [Traffic; 2] = [Traffic::Hit, Traffic::Stranger];
    pub(crate) const ALL: [Traffic; 3] = [Traffic::Hit, Traffic::Stranger, Traffic::FewStrangers];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Traffic::Hit => "hit",
            Traffic::Stranger => "stranger",
            Traffic::FewStrangers => "one of 1,024 strangers",
        }
    }
}

/// What is run behind the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Variant {
    /// A program that does nothing, without the driver: what a run costs by itself.
    Bare,
    /// The same behind the driver, as all the others are.
    Empty,
    /// The filter's parser alone.
    Parse,
    /// The whole filter, without records of what is dropped.
    Keyfence,
    /// With records, as it is by default.
    Recorded,
    /// Keyfence with the kernel's LPM_TRIE for the sources, all else equal; without records.
    Trie,
    TrieRecorded,
}

/// A packet's cost in the kernel's test run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Judged {
    pub(crate) sources: usize,
    pub(crate) kind: Kind,
    pub(crate) owners: Owners,
    pub(crate) traffic: Traffic,
    pub(crate) variant: Variant,
    pub(crate) ns: Spread,
}

/// The same for the filter with one feature more or less, over /32s of one client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Featured {
    pub(crate) sources: usize,
    pub(crate) feature: Feature,
    pub(crate) traffic: Traffic,
    pub(crate) ns: Spread,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Exhausted {
    pub(crate) owners: usize,
    pub(crate) ns: Spread,
}

/// A packet's cost on a veth, sending it included.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Live {
    pub(crate) sources: usize,
    pub(crate) peer: Peer,
    pub(crate) traffic: Traffic,
    pub(crate) ns: Spread,
}

/// A whole policy, from the checked model to the tables in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Bulk {
    pub(crate) sources: usize,
    pub(crate) owners: Owners,
    pub(crate) compile_ms: Spread,
    /// Laid out, written into maps of its own, verified.
    pub(crate) load_ms: Spread,
    pub(crate) swap_ms: Spread,
    pub(crate) whole_ms: Spread,
    pub(crate) kernel_bytes_a_source: f64,
}

/// One binding at a time, from the engine to the kernel's tables.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Single {
    /// There already.
    pub(crate) bindings: usize,
    pub(crate) changes: usize,
    pub(crate) put_us: Percentiles,
    pub(crate) remove_us: Percentiles,
    /// The same of wider prefixes, and of denies.
    #[serde(default)]
    pub(crate) wider: Vec<Wider>,
}

/// A prefix bound or denied, at random places among the bindings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Wider {
    pub(crate) what: String,
    pub(crate) put_us: Percentiles,
    pub(crate) remove_us: Percentiles,
}

/// One binding at a time, asked of the engine while it reloads a large policy again and again; and one packet at a
/// time, judged by what is in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Beside {
    /// Of the policy's client.
    pub(crate) sources: usize,
    pub(crate) changes: usize,
    /// Asked to in force, these changes beside it.
    pub(crate) reload_ms: Spread,
    pub(crate) put_us: Percentiles,
    pub(crate) remove_us: Percentiles,
    /// A packet's test run, the system call included.
    pub(crate) packet_alone_us: Percentiles,
    pub(crate) packet_beside_changes_us: Percentiles,
    pub(crate) packet_beside_reloads_us: Percentiles,
}

/// Of wall-clock time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    pub(crate) half: f64,
    pub(crate) of_99: f64,
    pub(crate) most: f64,
}

/// The daemon with a policy of one client, from a file of addresses.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DaemonMemory {
    pub(crate) sources: usize,
    /// Its own memory with one source.
    pub(crate) empty_bytes: u64,
    pub(crate) bytes_a_source: f64,
    pub(crate) bytes_a_source_after_reload: f64,
    /// The most it took while it started and reloaded, mapped tables included.
    pub(crate) peak_bytes: u64,
    /// SIGHUP to in force: files read, checked, compiled, loaded.
    pub(crate) reload_ms: f64,
}

impl Figures {
    pub(crate) fn live(&self, sources: usize, peer: Peer, traffic: Traffic) -> Option<f64> {
        let wanted = |cell: &&Live| (cell.sources, cell.peer, cell.traffic) == (sources, peer, traffic);
        self.live.iter().find(wanted).map(|cell| cell.ns.median)
    }

    /// The median cost with one feature more or less.
    pub(crate) fn feature(&self, sources: usize, feature: Feature, traffic: Traffic) -> Option<f64> {
        let wanted =
            |cell: &&Featured| (cell.sources, cell.feature, cell.traffic) == (sources, feature, traffic);
        self.features.iter().find(wanted).map(|cell| cell.ns.median)
    }

    /// The median cost of one cell.
    pub(crate) fn ns(
        &self,
        kind: Kind,
        owners: Owners,
        sources: usize,
        traffic: Traffic,
        variant: Variant,
    ) -> Option<f64> {
        let wanted = |cell: &&Judged| {
            (cell.kind, cell.owners, cell.sources, cell.traffic, cell.variant)
                == (kind, owners, sources, traffic, variant)
        };
        self.judged.iter().find(wanted).map(|cell| cell.ns.median)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_rounds_is_theirs_in_the_middle() {
        let spread = Spread::of(vec![9.0, 1.0, 3.0]);
        assert_eq!((spread.low, spread.median, spread.high), (1.0, 3.0, 9.0));
    }

    #[test]
    fn a_cell_is_found_by_all_that_it_is_of() {
        let judged = |variant, median| Judged {
            sources: 1000,
            kind: Kind::HostsV4,
            owners: Owners::Client,
            traffic: Traffic::Hit,
            variant,
            ns: Spread::of(vec![median]),
        };
        let figures = Figures {
            judged: vec![judged(Variant::Empty, 1.0), judged(Variant::Keyfence, 2.0)],
            ..Figures::default()
        };
        let ns = |sources, variant| figures.ns(Kind::HostsV4, Owners::Client, sources, Traffic::Hit, variant);
        assert_eq!(ns(1000, Variant::Keyfence), Some(2.0));
        assert_eq!(
            (ns(1000, Variant::Trie), ns(1001, Variant::Keyfence)),
            (None, None)
        );
    }
}
