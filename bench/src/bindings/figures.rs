//! What the part measures.

use serde::{Deserialize, Serialize};

use crate::figures::Percentiles;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Bindings {
    pub(crate) bindings: usize,
    pub(crate) batch: Stream,
    /// The daemon's own memory behind the batch, less that of one without bindings.
    pub(crate) bytes_a_binding: f64,
    /// The most while the batch was read, the same way.
    pub(crate) peak_bytes_a_binding: f64,
    /// A whole set of which so many lines differ.
    pub(crate) sync: Stream,
    pub(crate) sync_changed: u64,
    /// Generations that the sync made; none is entry by entry.
    pub(crate) sync_generations: u64,
    pub(crate) puts: Puts,
    /// One client's PUTs alone, beside another publisher's batch, and beside another's full sync.
    pub(crate) put_alone_ms: Percentiles,
    pub(crate) put_beside_batch_ms: Percentiles,
    pub(crate) put_beside_sync_ms: Percentiles,
    /// A bare append of 4 KiB and fdatasync on the same disk.
    pub(crate) fsync_ms: Percentiles,
    pub(crate) authorize: Authorize,
    pub(crate) restart: Restart,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stream {
    pub(crate) lines: usize,
    pub(crate) bytes: usize,
    pub(crate) seconds: f64,
}

/// Single PUTs, durable and in force, with so many clients that each wait for their answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Puts {
    pub(crate) clients: usize,
    pub(crate) a_second: f64,
    pub(crate) ms: Percentiles,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Authorize {
    /// As many as were asked for in a second, and answered.
    pub(crate) a_second: f64,
    /// CPU time of the daemon, user and system, for each.
    pub(crate) cpu_us: f64,
    pub(crate) ms: Percentiles,
    /// The same while a full sync runs.
    pub(crate) beside_sync_ms: Percentiles,
    pub(crate) beside_sync_a_second: f64,
    /// The same of a server that reads and writes and does nothing else, on this machine: of which no daemon can be
    /// cheaper or sooner.
    pub(crate) floor_cpu_us: f64,
    pub(crate) floor_ms: Percentiles,
    pub(crate) floor_beside_sync_ms: Percentiles,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Restart {
    /// From the start of the process until `/readyz` says 200.
    pub(crate) seconds: f64,
    /// Looks at the interface meanwhile, and how many found no filter.
    pub(crate) looks: usize,
    pub(crate) looks_without_filter: usize,
}
