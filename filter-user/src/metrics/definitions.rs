//! Every metric: name, help, kind and labels in one table.
//!
//! Label values are closed lists, or names of the policy and the host: never an address, a credential or a text
//! that a caller sent.

use filter_common::verdict::{Reason, Verdict};

use crate::engine::snapshot::AttachMode;

/// The `route` of what is no documented path.
pub const ROUTE_OTHER: &str = "other";

/// Of `keyfence_http_requests_total`: the documented paths.
pub const HTTP_ROUTES: &[&str] = &[
    "/livez",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/v1/audit",
    "/v1/authorize/{service}",
    "/v1/authorize/{service}/{*rest}",
    "/v1/backup",
    "/v1/bindings",
    "/v1/bindings/batch",
    "/v1/bindings/{credential}",
    "/v1/capture",
    "/v1/denies",
    "/v1/denies/{name}",
    "/v1/detach",
    "/v1/drops",
    "/v1/explain",
    "/v1/observe",
    "/v1/policy/apply",
    "/v1/policy/confirm",
    "/v1/policy/history",
    "/v1/policy/plan",
    "/v1/policy/rollback",
    "/v1/reload",
    "/v1/restore",
    "/v1/status",
    "/v1/top",
    "/v1/watch",
    "/v1/why",
    ROUTE_OTHER,
];
/// The statuses that answers have; those that come before a request is read whole (400, 431) are not counted.
pub const HTTP_CODES: &[&str] = &[
    "200", "201", "400", "401", "403", "404", "405", "408", "409", "410", "412", "413", "414", "415", "422",
    "429", "431", "500", "501", "503", "507",
];
/// Of `keyfence_authorize_total`; `observe-…` was answered 200 and would have been refused.
pub const AUTHORIZE_RESULTS: &[&str] = &[
    "allowed",
    "unknown",
    "denied",
    "ended",
    "address",
    "observe-unknown",
    "observe-denied",
    "observe-ended",
    "observe-address",
    "misconfigured",
];
pub(super) const VERDICTS: &[&str] = &Verdict::NAMES;
pub(super) const REASONS: &[&str] = &Reason::NAMES;
/// Of `keyfence_limit_refused_packets_total`: whose bucket did not pay.
pub(super) const LIMIT_LEVELS: &[&str] = &["source", "grant", "publisher", "service", "icmp"];
/// Of `keyfence_records_total`: of one key, or of those that found no room.
pub(super) const RECORD_KINDS: &[&str] = &["record", "overflow"];
const ATTACH_MODES: &[&str] = &[AttachMode::Native.as_str(), AttachMode::Generic.as_str()];
/// From what a file system needs to what a listener waits for at most.
pub(super) const HTTP_SECONDS_BUCKETS: [f64; 9] = [0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 5.0, 30.0];

pub(super) const BINDING_STATES: &[&str] = &["active", "held", "ended", "suspended"];
/// As `PublisherStatus::ending` counts them.
pub(super) const ENDING_WITHIN: &[&str] = &["5m", "1h", "24h"];

/// A metric as it is shown and documented.
pub struct Definition {
    pub(super) id: Id,
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Kind,
    pub labels: &'static [Label],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A label and what it may hold: words of a closed list, or names from the policy and the host.
pub struct Label {
    pub name: &'static str,
    pub values: Values,
}

pub enum Values {
    Words(&'static [&'static str]),
    Names(&'static str),
}

/// Where a metric's values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Id {
    Packets,
    Bytes,
    InterfacePackets,
    LimitRefused,
    SourceShared,
    TableEntries,
    TableCapacity,
    HttpRequests,
    HttpSeconds,
    HttpRefused,
    Authorized,
    Bindings,
    BindingsEnding,
    PublisherSuccess,
    BindingsRevision,
    Denies,
    Alarms,
    StoreErrors,
    AuditLine,
    AuditHash,
    Records,
    RecordsLost,
    RecordsWaiting,
    PolicyInfo,
    ReloadSuccess,
    ConfirmDeadline,
    Attached,
    Generation,
    Drift,
    Canary,
    BuildInfo,
    ProcessCpu,
    ProcessDescriptors,
    ProcessDescriptorsMax,
    ProcessVirtual,
    ProcessResident,
    ProcessStart,
    ProcessThreads,
}

const SERVICE: Label = Label {
    name: "service",
    values: Values::Names("a service of the policy, or one that has left it; empty where none decided"),
};
const VERDICT: Label = Label {
    name: "verdict",
    values: Values::Words(VERDICTS),
};
const REASON: Label = Label {
    name: "reason",
    values: Values::Words(REASONS),
};
const INTERFACE: Label = Label {
    name: "interface",
    values: Values::Names("an interface of the filter"),
};
const LEVEL: Label = Label {
    name: "level",
    values: Values::Words(LIMIT_LEVELS),
};
const TABLE: Label = Label {
    name: "table",
    values: Values::Names("a table of the kernel program"),
};
const MODE: Label = Label {
    name: "mode",
    values: Values::Words(ATTACH_MODES),
};
const ROUTE: Label = Label {
    name: "route",
    values: Values::Words(HTTP_ROUTES),
};
const CODE: Label = Label {
    name: "code",
    values: Values::Words(HTTP_CODES),
};
const RESULT: Label = Label {
    name: "result",
    values: Values::Words(AUTHORIZE_RESULTS),
};
const PUBLISHER: Label = Label {
    name: "publisher",
    values: Values::Names("a publisher of the policy, or of bindings that it left"),
};
const STATE: Label = Label {
    name: "state",
    values: Values::Words(BINDING_STATES),
};
const WITHIN: Label = Label {
    name: "within",
    values: Values::Words(ENDING_WITHIN),
};
const KIND: Label = Label {
    name: "kind",
    values: Values::Words(RECORD_KINDS),
};
const SINK: Label = Label {
    name: "sink",
    values: Values::Names("a sink of the policy: its type and its place among the sinks, from 0"),
};
const HASH: Label = Label {
    name: "hash",
    values: Values::Names("the policy's hash"),
};
const VERSION: Label = Label {
    name: "version",
    values: Values::Names("the daemon's version"),
};

const fn define(
    id: Id,
    kind: Kind,
    name: &'static str,
    labels: &'static [Label],
    help: &'static str,
) -> Definition {
    Definition {
        id,
        name,
        help,
        kind,
        labels,
    }
}

/// Every metric of this build.
#[rustfmt::skip]
pub const DEFINITIONS: &[Definition] = &[
    define(Id::Packets, Kind::Counter, "keyfence_packets_total", &[SERVICE, VERDICT, REASON],
        "Packets judged, by service, verdict and reason."),
    define(Id::Bytes, Kind::Counter, "keyfence_bytes_total", &[SERVICE, VERDICT, REASON],
        "Bytes of the packets judged (IP packet lengths), by service, verdict and reason."),
    define(Id::InterfacePackets, Kind::Counter, "keyfence_interface_packets_total", &[INTERFACE, VERDICT],
        "Packets judged, by interface and verdict."),
    define(Id::LimitRefused, Kind::Counter, "keyfence_limit_refused_packets_total", &[LEVEL, SERVICE],
        "Packets that a limit refused, dropped and observed ones, by the limit's level and service."),
    define(Id::SourceShared, Kind::Counter, "keyfence_source_limit_shared_packets_total", &[],
        "Packets of sources that shared another source's bucket because all that they could have were in use: raise source-limit-max."),
    define(Id::TableEntries, Kind::Gauge, "keyfence_table_entries", &[TABLE],
        "Entries in a table of the kernel program."),
    define(Id::TableCapacity, Kind::Gauge, "keyfence_table_capacity", &[TABLE],
        "Entries that a table of the kernel program can hold."),
    define(Id::HttpRequests, Kind::Counter, "keyfence_http_requests_total", &[ROUTE, CODE],
        "Requests answered by the daemon's listeners, by documented path and status."),
    define(Id::HttpSeconds, Kind::Histogram, "keyfence_http_request_duration_seconds", &[],
        "Seconds from a request's complete header until its answer was ready."),
    define(Id::HttpRefused, Kind::Counter, "keyfence_http_connections_refused_total", &[],
        "Connections closed at once because their listener had no place left for who opened them."),
    define(Id::Authorized, Kind::Counter, "keyfence_authorize_total", &[SERVICE, RESULT],
        "Requests of gateways answered, by service and result; misconfigured ones name no service."),
    define(Id::Bindings, Kind::Gauge, "keyfence_bindings", &[PUBLISHER, STATE],
        "Bindings, by publisher and state; suspended ones are kept and grant nothing."),
    define(Id::BindingsEnding, Kind::Gauge, "keyfence_bindings_ending", &[PUBLISHER, WITHIN],
        "Bindings whose lease ends within a time; each holds the shorter ones."),
    define(Id::PublisherSuccess, Kind::Gauge, "keyfence_publisher_last_success_timestamp_seconds", &[PUBLISHER],
        "When a request of the publisher last succeeded, in seconds since 1970; 0 if none has."),
    define(Id::BindingsRevision, Kind::Gauge, "keyfence_bindings_revision", &[],
        "Revision of the store of bindings; rises with each change."),
    define(Id::Denies, Kind::Gauge, "keyfence_denies", &[],
        "Denies put by requests; those of the policy are not among them."),
    define(Id::Alarms, Kind::Gauge, "keyfence_bindings_alarms", &[],
        "Alarms of the store of bindings that stand; the status tells them."),
    define(Id::StoreErrors, Kind::Counter, "keyfence_store_errors_total", &[],
        "Writes to the store or the audit log that the disk refused, since the start."),
    define(Id::AuditLine, Kind::Gauge, "keyfence_audit_head_line", &[],
        "Number of the audit log's last line; a fall shows a log that was cut."),
    define(Id::AuditHash, Kind::Gauge, "keyfence_audit_head_hash", &[],
        "The first 13 hex digits of the audit log's head, as a number; the status has all."),
    define(Id::Records, Kind::Counter, "keyfence_records_total", &[KIND],
        "Records of dropped and observed packets written since the start, by kind; overflow ones stand for several keys."),
    define(Id::RecordsLost, Kind::Counter, "keyfence_records_lost_total", &[SINK],
        "Records that a sink did not take within a minute since the start, by sink. Files lose none."),
    define(Id::RecordsWaiting, Kind::Gauge, "keyfence_records_waiting", &[SINK],
        "1 if a sink takes no records, which wait in the kernel meanwhile, else 0. All sinks wait for the files."),
    define(Id::PolicyInfo, Kind::Gauge, "keyfence_policy_info", &[HASH],
        "Always 1; the label is the hash of the policy in force."),
    define(Id::ReloadSuccess, Kind::Gauge, "keyfence_policy_reload_success", &[],
        "1 if the last load of the policy succeeded, else 0: then the one before is still in force."),
    define(Id::ConfirmDeadline, Kind::Gauge, "keyfence_policy_confirm_deadline_timestamp_seconds", &[],
        "When the policy in force is taken back unless it is confirmed, in seconds since 1970; 0 if none waits for that."),
    define(Id::Attached, Kind::Gauge, "keyfence_filter_attached", &[INTERFACE, MODE],
        "1 if the filter is attached to the interface, else 0: then nothing on it is judged."),
    define(Id::Generation, Kind::Gauge, "keyfence_generation", &[],
        "Number of the set of kernel tables in force; rises by one with each policy."),
    define(Id::Drift, Kind::Gauge, "keyfence_drift_entries", &[],
        "Entries of the kernel's tables that the last read-back found not to be as the daemon wrote them."),
    define(Id::Canary, Kind::Gauge, "keyfence_canary_differing_frames", &[],
        "Known frames of the last round that the kernel's program in force judged otherwise than the reference."),
    define(Id::BuildInfo, Kind::Gauge, "keyfence_build_info", &[VERSION],
        "Always 1; the label is the daemon's version."),
    define(Id::ProcessCpu, Kind::Counter, "process_cpu_seconds_total", &[],
        "CPU time of the daemon, in user and in kernel mode; what packets cost is not among it."),
    define(Id::ProcessDescriptors, Kind::Gauge, "process_open_fds", &[],
        "File descriptors that the daemon has open."),
    define(Id::ProcessDescriptorsMax, Kind::Gauge, "process_max_fds", &[],
        "File descriptors that the daemon may have open."),
    define(Id::ProcessVirtual, Kind::Gauge, "process_virtual_memory_bytes", &[],
        "Virtual memory of the daemon."),
    define(Id::ProcessResident, Kind::Gauge, "process_resident_memory_bytes", &[],
        "Resident memory of the daemon; the kernel's tables are not among it."),
    define(Id::ProcessStart, Kind::Gauge, "process_start_time_seconds", &[],
        "When the daemon was started, in seconds since 1970."),
    define(Id::ProcessThreads, Kind::Gauge, "process_threads", &[],
        "Threads of the daemon."),
];
