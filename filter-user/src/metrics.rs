//! The metrics: scrapes and docs/METRICS.md, both made from the one table in `definitions`.
//!
//! A scrape reads the engine's `View` at that time: nothing is cached, nothing is counted twice. Only what the
//! listeners themselves do is counted here. A scrape is whole or it fails: where the kernel's counters cannot be
//! read there is no page.

mod bindings;
mod definitions;
mod process;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, TextEncoder};

use crate::bindings::requests::StoreStatus;
use crate::engine::snapshot::{CounterValues, InterfaceState, Snapshot, View};

pub use definitions::{
    AUTHORIZE_RESULTS, DEFINITIONS, Definition, HTTP_CODES, HTTP_ROUTES, Kind, Label, ROUTE_OTHER, Values,
};

use definitions::{HTTP_SECONDS_BUCKETS, Id, RECORD_KINDS};

/// Of a scrape's page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// What the listeners count themselves.
pub struct Metrics {
    http_requests: IntCounterVec,
    http_seconds: Histogram,
    http_refused: IntCounter,
    authorized: IntCounterVec,
    records: IntCounterVec,
    records_lost: IntCounterVec,
    records_waiting: IntGaugeVec,
}

/// Counts one kind of answers to gateways, without a look for its counters each time.
pub struct Answers {
    requests: IntCounter,
    authorized: IntCounter,
    seconds: Histogram,
}

impl Answers {
    pub fn count(&self, took: Duration) {
        self.requests.inc();
        self.authorized.inc();
        self.seconds.observe(took.as_secs_f64());
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    pub fn new() -> Metrics {
        let fixed = "the names in the table of definitions are valid, as a test shows";
        let [requests, seconds, refused, authorized] =
            [Id::HttpRequests, Id::HttpSeconds, Id::HttpRefused, Id::Authorized].map(definition);
        let [records, records_lost, waiting] =
            [Id::Records, Id::RecordsLost, Id::RecordsWaiting].map(definition);
        let labels = |of: &Definition| -> Vec<&str> { of.labels.iter().map(|label| label.name).collect() };
        let counters =
            |of: &Definition| IntCounterVec::new(Opts::new(of.name, of.help), &labels(of)).expect(fixed);
        let records_waiting = IntGaugeVec::new(Opts::new(waiting.name, waiting.help), &labels(waiting));
        let options = HistogramOpts::new(seconds.name, seconds.help).buckets(HTTP_SECONDS_BUCKETS.to_vec());
        let authorized = counters(authorized);
        authorized.with_label_values(&["", "misconfigured"]);
        let records = counters(records);
        for kind in RECORD_KINDS {
            records.with_label_values(&[kind]);
        }
        Metrics {
            http_requests: counters(requests),
            authorized,
            records,
            records_lost: counters(records_lost),
            records_waiting: records_waiting.expect(fixed),
            http_seconds: Histogram::with_opts(options).expect(fixed),
            http_refused: IntCounter::new(refused.name, refused.help).expect(fixed),
        }
    }

    /// Counts an answer. `route` is one of `HTTP_ROUTES`.
    pub fn request_answered(&self, route: &'static str, code: u16, took: Duration) {
        self.http_requests
            .with_label_values(&[route, &code.to_string()])
            .inc();
        self.http_seconds.observe(took.as_secs_f64());
    }

    /// Lets the counters of this service exist from the start.
    pub fn authorizes(&self, service: &str) {
        for result in AUTHORIZE_RESULTS
            .iter()
            .filter(|result| **result != "misconfigured")
        {
            self.authorized.with_label_values(&[service, result]);
        }
    }

    /// Counts an answer to a gateway. `service` is one of the policy or empty, `result` one of `AUTHORIZE_RESULTS`.
    pub fn authorized(&self, service: &str, result: &'static str) {
        self.authorized.with_label_values(&[service, result]).inc();
    }

    /// The counters of a kind of answers to gateways.
    pub fn answers(
        &self,
        route: &'static str,
        code: u16,
        (service, result): (&str, &'static str),
    ) -> Answers {
        Answers {
            requests: self.http_requests.with_label_values(&[route, &code.to_string()]),
            authorized: self.authorized.with_label_values(&[service, result]),
            seconds: self.http_seconds.clone(),
        }
    }

    /// Lets the counter of this sink exist from the start.
    pub fn sink(&self, sink: &str) {
        self.records_lost.with_label_values(&[sink]);
        self.sink_waits(sink, false);
    }

    /// Whether records wait in the kernel for this sink.
    pub fn sink_waits(&self, sink: &str, waits: bool) {
        self.records_waiting
            .with_label_values(&[sink])
            .set(i64::from(waits));
    }

    /// Counts records that a sink did not take.
    pub fn records_lost(&self, sink: &str, records: u64) {
        self.records_lost.with_label_values(&[sink]).inc_by(records);
    }

    /// Counts records that are in every sink: those of one key, and those of more.
    pub fn records_written(&self, exact: u64, overflow: u64) {
        for (kind, count) in RECORD_KINDS.iter().zip([exact, overflow]) {
            self.records.with_label_values(&[kind]).inc_by(count);
        }
    }

    pub fn connection_refused(&self) {
        self.http_refused.inc();
    }

    /// A whole page, or why there is none. Reads the kernel's counters: it may block. `bindings` is the store's, once
    /// it is there.
    pub fn encode(&self, view: &dyn View, bindings: Option<&StoreStatus>) -> Result<String, String> {
        let counters = view.counters()?;
        let snapshot = view.snapshot();
        let process = process::Figures::read()?;
        let values = |definition| {
            let known = bindings::values(definition, bindings).or_else(|| process.values(definition));
            known.unwrap_or_else(|| self.values(definition, &snapshot, &counters))
        };
        let families: Vec<MetricFamily> = DEFINITIONS
            .iter()
            .map(|definition| family(definition, values(definition)))
            // A family without values has no place in the format.
            .filter(|family| !family.get_metric().is_empty())
            .collect();
        TextEncoder::new()
            .encode_to_string(&families)
            .map_err(|error| error.to_string())
    }

    fn values(&self, of: &Definition, snapshot: &Snapshot, counters: &CounterValues) -> Vec<Metric> {
        let verdicts = |value: fn(&crate::engine::snapshot::VerdictCount) -> u64| {
            let values = counters.verdicts.iter().map(|count| {
                let service = count.service.as_deref().unwrap_or("");
                sample(of, &[service, count.verdict, count.reason], value(count))
            });
            values.collect()
        };
        match of.id {
            Id::Packets => verdicts(|count| count.packets),
            Id::Bytes => verdicts(|count| count.bytes),
            Id::InterfacePackets => {
                let values = counters.interfaces.iter();
                values
                    .map(|count| sample(of, &[&count.interface, count.verdict], count.packets))
                    .collect()
            }
            Id::LimitRefused => limits_refused(of, counters),
            Id::SourceShared => vec![sample(of, &[], counters.shared_sources)],
            Id::TableEntries => snapshot
                .tables
                .iter()
                .map(|fill| sample(of, &[fill.table], fill.entries))
                .collect(),
            Id::TableCapacity => snapshot
                .tables
                .iter()
                .map(|fill| sample(of, &[fill.table], fill.capacity))
                .collect(),
            Id::HttpRequests => collected(&self.http_requests),
            Id::HttpSeconds => collected(&self.http_seconds),
            Id::HttpRefused => collected(&self.http_refused),
            Id::Authorized => collected(&self.authorized),
            Id::Records => collected(&self.records),
            Id::RecordsLost => collected(&self.records_lost),
            Id::RecordsWaiting => collected(&self.records_waiting),
            Id::PolicyInfo => vec![sample(of, &[&snapshot.policy.hash], 1)],
            Id::ReloadSuccess => vec![sample(of, &[], u64::from(snapshot.policy.reload_ok))],
            Id::ConfirmDeadline => {
                let pending = snapshot.policy.pending.as_ref();
                let deadline = pending.map_or(0, |pending| pending.deadline.as_second());
                vec![sample(of, &[], u64::try_from(deadline).unwrap_or(0))]
            }
            Id::Attached => {
                let value = |state: &InterfaceState| {
                    sample(of, &[&state.name, state.mode.as_str()], u64::from(state.attached))
                };
                snapshot.interfaces.iter().map(value).collect()
            }
            Id::Generation => vec![sample(of, &[], snapshot.generation)],
            Id::Drift => vec![sample(of, &[], snapshot.drift.entries)],
            Id::Canary => vec![sample(of, &[], snapshot.canary.differing.len() as u64)],
            Id::BuildInfo => vec![sample(of, &[snapshot.version], 1)],
            Id::Bindings
            | Id::BindingsEnding
            | Id::PublisherSuccess
            | Id::BindingsRevision
            | Id::Denies
            | Id::Alarms
            | Id::StoreErrors
            | Id::AuditLine
            | Id::AuditHash
            | Id::ProcessCpu
            | Id::ProcessDescriptors
            | Id::ProcessDescriptorsMax
            | Id::ProcessVirtual
            | Id::ProcessResident
            | Id::ProcessStart
            | Id::ProcessThreads => Vec::new(),
        }
    }
}

/// By level and service: the verdicts' counters, those of a limit dropped and observed together.
fn limits_refused(of: &Definition, counters: &CounterValues) -> Vec<Metric> {
    let mut sums: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for count in &counters.verdicts {
        if let Some(level) = count.reason.strip_prefix("limit-") {
            let service = count.service.as_deref().unwrap_or("");
            *sums.entry((level, service)).or_default() += count.packets;
        }
    }
    let sums = sums.into_iter();
    sums.map(|((level, service), packets)| sample(of, &[level, service], packets))
        .collect()
}

fn definition(id: Id) -> &'static Definition {
    DEFINITIONS
        .iter()
        .find(|definition| definition.id == id)
        .expect("each id has its line in the table")
}

fn family(definition: &Definition, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(definition.name.to_owned());
    family.set_help(definition.help.to_owned());
    family.set_field_type(match definition.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram => MetricType::HISTOGRAM,
    });
    family.set_metric(metrics);
    family
}

/// One value; `labels` stand in the definition's order.
fn sample(of: &Definition, labels: &[&str], value: u64) -> Metric {
    // The format's numbers are floating: whole ones are exact up to 2^53.
    floating(of, labels, value as f64)
}

fn floating(of: &Definition, labels: &[&str], value: f64) -> Metric {
    debug_assert_eq!(of.labels.len(), labels.len(), "{} has other labels", of.name);
    let pair = |(label, value): (&Label, &&str)| {
        let mut pair = LabelPair::default();
        pair.set_name(label.name.to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    let mut metric = Metric::from_label(of.labels.iter().zip(labels).map(pair).collect());
    if of.kind == Kind::Counter {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

fn collected(collector: &dyn Collector) -> Vec<Metric> {
    collector
        .collect()
        .into_iter()
        .flat_map(|mut family| family.take_metric())
        .collect()
}

/// The text of docs/METRICS.md.
pub fn reference() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         Made by `keyfence generate metrics-reference`; do not edit. Served at `/metrics` on each listener with the role \
         `metrics`.\n\
         Where the kernel's counters cannot be read, a scrape is answered 500 with the reason, never with a part.\n",
    );
    for definition in DEFINITIONS {
        let kind = match definition.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a String cannot fail.
        let _ = write!(
            page,
            "\n## `{}`\n{}, {kind}.\n",
            definition.name,
            definition.help.trim_end_matches('.')
        );
        if !definition.labels.is_empty() {
            page.push_str("\n| label | values |\n| --- | --- |\n");
        }
        for label in definition.labels {
            let values = match label.values {
                Values::Names(what) => what.to_owned(),
                Values::Words(words) => words
                    .iter()
                    .map(|word| format!("`{word}`"))
                    .collect::<Vec<_>>()
                    .join(", "),
            };
            let _ = writeln!(page, "| `{}` | {values} |", label.name);
        }
    }
    page
}
