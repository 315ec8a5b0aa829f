//! What the daemon answers at `/v1/top`, as far as it is shown. It may gain members.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Top {
    pub(super) at: String,
    pub(super) instance: String,
    /// `None` where nobody knows which policy is in force.
    pub(super) mode: Option<String>,
    pub(super) generation: u64,
    pub(super) not_ready: Vec<String>,
    pub(super) verdicts: Vec<Verdict>,
    pub(super) owners: Vec<Owner>,
    pub(super) sources: Vec<Source>,
    pub(super) sources_in_all: u64,
    pub(super) buckets: Vec<Bucket>,
    #[serde(default)]
    pub(super) buckets_error: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Verdict {
    pub(super) service: Option<String>,
    pub(super) verdict: String,
    pub(super) reason: String,
    pub(super) packets: u64,
    pub(super) packets_per_second: f64,
    pub(super) bytes_per_second: f64,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Owner {
    pub(super) owner: String,
    pub(super) packets: u64,
    pub(super) packets_per_second: f64,
    pub(super) bytes_per_second: f64,
    pub(super) refused_per_second: f64,
    pub(super) last_seen: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Source {
    pub(super) source: String,
    pub(super) packets: u64,
    pub(super) packets_per_second: f64,
    pub(super) bytes_per_second: f64,
    pub(super) reasons: BTreeMap<String, u64>,
    pub(super) services: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Bucket {
    pub(super) level: String,
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) left: u64,
    pub(super) burst: u64,
}

impl Top {
    /// Packets a second of one verdict, over all services and reasons.
    pub(super) fn rate(&self, verdict: &str) -> f64 {
        let of = self.verdicts.iter().filter(|count| count.verdict == verdict);
        of.map(|count| count.packets_per_second).sum()
    }
}
