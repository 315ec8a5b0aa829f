//! What the daemon answers at `/v1/status`, as far as the command shows it.

use serde::Deserialize;

use crate::cli::exit::{Exit, Failure};

/// The answer of `/v1/status`. It may gain members; what is not known here is passed over.
#[derive(Deserialize)]
pub(super) struct Status {
    pub(super) schema: u32,
    pub(super) instance: String,
    pub(super) version: String,
    pub(super) started_at: jiff::Timestamp,
    pub(super) policy: Policy,
    pub(super) generation: u64,
    /// `None` where nobody knows which policy is in force, here and below.
    pub(super) mode: Option<String>,
    pub(super) interfaces: Vec<Interface>,
    pub(super) services: Vec<Service>,
    pub(super) tables: Vec<Fill>,
    #[serde(default)]
    pub(super) drift: Drift,
    #[serde(default)]
    pub(super) observing: Vec<serde_json::Value>,
    /// `None` until the store is there.
    #[serde(default)]
    pub(super) bindings: Option<Bindings>,
    pub(super) not_ready: Vec<String>,
    pub(super) counters: Option<Counters>,
    #[serde(default)]
    pub(super) counters_error: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Policy {
    pub(super) file: String,
    pub(super) hash: String,
    pub(super) in_force_since: jiff::Timestamp,
    pub(super) reload_ok: bool,
    pub(super) last_error: Option<String>,
    pub(super) file_differs: bool,
    #[serde(default)]
    pub(super) file_error: Option<String>,
    #[serde(default)]
    pub(super) pending: Option<Pending>,
}

/// A policy that waits to be confirmed.
#[derive(Deserialize)]
pub(super) struct Pending {
    pub(super) base: String,
    pub(super) deadline: String,
}

#[derive(Deserialize)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) ifindex: u32,
    pub(super) mode: String,
    pub(super) attached: bool,
}

#[derive(Deserialize)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) environment: String,
    pub(super) mode: Option<String>,
}

/// Of the store of bindings.
#[derive(Deserialize)]
pub(super) struct Bindings {
    pub(super) alarms: Vec<String>,
    pub(super) publishers: Vec<Publisher>,
    /// Of run time.
    #[serde(default)]
    pub(super) denies: u64,
}

#[derive(Deserialize)]
pub(super) struct Publisher {
    pub(super) name: String,
    pub(super) active: u64,
    pub(super) held: u64,
    pub(super) ended: u64,
    pub(super) suspended: u64,
    /// Within 5 minutes, an hour, a day.
    pub(super) ending: [u64; 3],
    pub(super) last_success: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Fill {
    pub(super) table: String,
    pub(super) entries: u64,
    pub(super) capacity: u64,
}

#[derive(Default, Deserialize)]
pub(super) struct Drift {
    pub(super) entries: u64,
    pub(super) generation: Option<u64>,
    pub(super) checked_at: Option<jiff::Timestamp>,
}

#[derive(Deserialize)]
pub(super) struct Counters {
    pub(super) verdicts: Vec<VerdictCount>,
}

#[derive(Deserialize)]
pub(super) struct VerdictCount {
    pub(super) service: Option<String>,
    pub(super) verdict: String,
    pub(super) packets: u64,
}

pub(super) fn parse(body: &str) -> Result<Status, Failure> {
    let status: Status = serde_json::from_str(body).map_err(|error| {
        let text =
            format!("the daemon's answer is not understood: {error}; are command and daemon of one version?");
        Failure::new(Exit::Failed, text)
    })?;
    match status.schema {
        1 => Ok(status),
        schema => {
            let text =
                format!("the daemon answers schema {schema}, this command reads 1; use the daemon's release");
            Err(Failure::new(Exit::Failed, text))
        }
    }
}
