//! The checked policy: what the rest of the program works with once a file has been found free of faults.
//!
//! Only `validate` builds these types; who holds one need not check anything again. Names are unique within
//! their kind, references resolve, prefixes have no host bits, ranges are in order. Pure: no IO, no clock.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::policy::words::Word as _;

/// A whole policy, all its files merged. Entries stand in file order, included files in byte order of their names.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Policy {
    pub filter: Filter,
    pub services: Vec<Service>,
    pub clients: Vec<Client>,
    pub denies: Vec<Deny>,
    pub management: Vec<Management>,
    pub publishers: Vec<Publisher>,
    pub expects: Vec<Expect>,
    pub daemon: Daemon,
    pub listeners: Vec<Listener>,
    pub credentials: Credentials,
    pub authorize: Authorize,
    pub records: Records,
    pub sinks: Vec<Sink>,
}

/// Where an entry was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// The file as it was named (the root as given, an included one joined to the root's folder).
    pub file: Arc<str>,
    /// 1-based line of the entry's table header.
    pub line: u32,
}

/// What every entry may carry for people: shown in explain, plan, drops and audit, never in metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Remarks {
    pub note: Option<String>,
    pub labels: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    Enforce,
    Observe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attach {
    Auto,
    Native,
    Generic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PassDrop {
    Pass,
    Drop,
}

/// `ping` and `fragments`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PassListedDrop {
    Pass,
    Listed,
    Drop,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Filter {
    /// Names or globs, as written.
    pub interfaces: Vec<String>,
    pub mode: Mode,
    pub attach: Attach,
    pub other_traffic: PassDrop,
    pub other_address: PassDrop,
    pub fragments: PassListedDrop,
    pub ping: PassListedDrop,
    pub non_ip: PassDrop,
    pub management_none: bool,
    pub source_limit_max: u64,
    /// Where it was written; `None` is the default.
    pub source_limit_max_origin: Option<Origin>,
    pub source_limit: Limits,
    pub source_limit_origin: Option<Origin>,
    pub icmp_limit: Limits,
}

/// A token bucket: `rate` is an exact fraction, tokens in `per`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limit {
    /// Tokens gained in each `per_seconds`; at least 1.
    pub rate: u64,
    /// 1, 60 or 3600.
    pub per_seconds: u32,
    /// Tokens held when full; at least 1.
    pub burst: u64,
}

/// The limits of one level; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limits {
    pub packets: Option<Limit>,
    pub bytes: Option<Limit>,
    pub connections: Option<Limit>,
}

/// Destination addresses of a service or a management entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Addresses {
    /// Omitted: every address.
    Any,
    /// `"host"`: this host's own addresses, followed as they change.
    Host,
    Prefixes(Vec<IpNet>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Protocols {
    pub tcp: bool,
    pub udp: bool,
}

/// Inclusive, `first <= last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Service {
    pub name: String,
    pub environment: String,
    pub address: Addresses,
    pub protocols: Protocols,
    /// Sorted, merged, not empty; ports 1..=65535.
    pub ports: Vec<PortRange>,
    /// As written; `None` is the filter's.
    pub mode: Option<Mode>,
    pub limit: Limits,
    pub remarks: Remarks,
    pub origin: Origin,
}

/// Which services an entry reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceSet {
    /// `["*"]`: every service.
    All,
    /// Indexes into `Policy::services`, sorted, unique.
    Some(Vec<usize>),
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Client {
    pub name: String,
    /// From `sources` and `sources-file`, IPv4-mapped ones as IPv4; sorted, unique, not empty.
    pub sources: Vec<Source>,
    /// Sorted, merged; empty is any.
    pub source_ports: Vec<PortRange>,
    pub services: ServiceSet,
    pub credentials: Vec<String>,
    pub limit: Limits,
    /// Wall clock, nanoseconds since 1970 would not fit a reader: whole RFC 3339 instant.
    pub expires: Option<jiff::Timestamp>,
    pub enabled: bool,
    pub remarks: Remarks,
    pub origin: Origin,
}

/// One source prefix and where it was written (a line of the policy or of a sources-file).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Source {
    pub prefix: IpNet,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Deny {
    pub name: String,
    pub sources: Vec<Source>,
    pub remarks: Remarks,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Management {
    pub name: String,
    pub sources: Vec<Source>,
    pub address: Addresses,
    pub protocols: Protocols,
    pub ports: Vec<PortRange>,
    pub remarks: Remarks,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PublisherIdentity {
    User(String),
    Group(String),
    /// The address of a listener of its own, as written (`unix:/…`).
    Socket(String),
    /// The exact SAN: (`uri` | `dns` | `email` …, value).
    Certificate {
        kind: String,
        value: String,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Publisher {
    pub name: String,
    pub identity: PublisherIdentity,
    pub services: ServiceSet,
    pub environments: Vec<String>,
    pub bindings_max: u64,
    pub sources_max: u64,
    pub widest_ipv4: u8,
    pub widest_ipv6: u8,
    /// `None` is `"none"`: bindings without an end are allowed.
    pub lease_max: Option<Duration>,
    pub lease_hold: Duration,
    pub revoke_max_percent: f64,
    pub limit_default: Limits,
    pub limit_max: Limits,
    pub limit: Limits,
    /// Of the API.
    pub requests: Option<Limit>,
    pub remarks: Remarks,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Expect {
    /// Source address and port (port 0 where none was written).
    pub from: (IpAddr, u16),
    pub to: (IpAddr, u16),
    pub protocol: ExpectProtocol,
    pub verdict: String,
    pub reason: Option<String>,
    pub remarks: Remarks,
    pub origin: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExpectProtocol {
    Tcp,
    Udp,
    /// An echo request, or its ICMPv6 kin.
    Icmp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnExit {
    Keep,
    Detach,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Daemon {
    pub instance: String,
    pub state: PathBuf,
    pub on_exit: OnExit,
    pub operators: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListenerAddress {
    Unix(PathBuf),
    Tcp(std::net::SocketAddr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    Publish,
    Authorize,
    Read,
    Operate,
    Deny,
    Metrics,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub client_ca: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Listener {
    pub address: ListenerAddress,
    /// Of a Unix socket; default 0o660.
    pub mode: u32,
    pub group: String,
    /// Whether `group` was written (a default group that this host lacks is a warning, a written one a fault).
    pub group_written: bool,
    pub assert: bool,
    pub tls: Option<Tls>,
    pub roles: Vec<Role>,
    /// Whether `roles` was written, else they are the default for that address.
    pub roles_written: bool,
    /// `None`: a listener of the defaults.
    pub origin: Option<Origin>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    Sha256,
    HmacSha256,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Credentials {
    pub header: Vec<String>,
    pub scheme: Scheme,
    pub secret_files: Vec<(String, PathBuf)>,
    pub id_pattern: String,
    /// `None`: no table was written.
    pub origin: Option<Origin>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Authorize {
    pub address_header: String,
    pub trusted_proxies: Vec<IpNet>,
    pub reason_header: bool,
    /// `None`: no table was written.
    pub origin: Option<Origin>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordAddresses {
    Full,
    Prefix,
    Hmac,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Records {
    pub interval: Duration,
    pub addresses: RecordAddresses,
    /// Whether a `[records]` table or any `[[sink]]` was written (else: the defaults).
    pub written: bool,
    /// `None`: no `[records]` table was written.
    pub origin: Option<Origin>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SinkType {
    File,
    Syslog,
    Journald,
    Stdout,
}

impl SinkType {
    pub fn as_str(self) -> &'static str {
        self.name()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sink {
    pub kind: SinkType,
    pub path: PathBuf,
    pub rotate_size: u64,
    pub keep_size: u64,
    pub keep_age: Duration,
    /// `None`: the sink of the defaults.
    pub origin: Option<Origin>,
}
